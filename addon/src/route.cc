// SPDX-License-Identifier: Apache-2.0
/** Asks the kernel by which device it would send to an address, and sets routes. */
#include <errno.h>
#include <linux/rtnetlink.h>

#include "failure.h"
#include "netlink.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

/** no route, or one that says that there is none */
bool meansUnreachable(int errnum) {
  return errnum == ENETUNREACH || errnum == EHOSTUNREACH || errnum == EACCES || errnum == EINVAL;
}

}  // namespace

Napi::Value routeGet(const Napi::CallbackInfo& info) {
  const IpAddress address = toIpAddress(info[0], "address");
  NetlinkRequest request(RTM_GETROUTE, 0);
  auto* header = request.header<rtmsg>();
  header->rtm_family = static_cast<uint8_t>(address.family);
  header->rtm_dst_len = address.maxPrefixLength();
  request.put(RTA_DST, address.bytes.data(), address.length());
  uint32_t ifindex = 0;
  try {
    NetlinkSession().execute(
        request, ipText(address.family, address.bytes.data()), [&](const nlmsghdr* message) {
          if (message->nlmsg_type != RTM_NEWROUTE) return;
          forEachAttribute(message, sizeof(rtmsg), [&](uint16_t type, const nlattr* attribute) {
            if (type == RTA_OIF) ifindex = attributeU32(attribute);
          });
        });
  } catch (const SystemFailure& failure) {
    if (!meansUnreachable(failure.errnum)) throw;
  }
  return Napi::Number::New(info.Env(), ifindex);
}

Napi::Value routeSet(const Napi::CallbackInfo& info) {
  const uint32_t ifindex = toIfindex(info[0], "ifindex");
  const IpAddress address = toIpAddress(info[1], "address");
  const uint32_t prefixLength = toUint32(info[2], "prefixLength", 0, address.maxPrefixLength());
  NetlinkRequest request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
  auto* header = request.header<rtmsg>();
  header->rtm_family = static_cast<uint8_t>(address.family);
  header->rtm_dst_len = static_cast<uint8_t>(prefixLength);
  header->rtm_table = RT_TABLE_MAIN;
  header->rtm_protocol = RTPROT_STATIC;
  header->rtm_scope = RT_SCOPE_LINK;
  header->rtm_type = RTN_UNICAST;
  request.put(RTA_DST, address.bytes.data(), address.length());
  request.putU32(RTA_OIF, ifindex);
  const std::string subject = ipText(address.family, address.bytes.data()) + "/" +
                              std::to_string(prefixLength) + " by ifindex " +
                              std::to_string(ifindex);
  NetlinkSession().execute(request, subject);
  return info.Env().Undefined();
}

}  // namespace vnetd
