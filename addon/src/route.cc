// SPDX-License-Identifier: Apache-2.0
/** Asks the kernel by which device it would send to an address. */
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

}  // namespace vnetd
