// SPDX-License-Identifier: Apache-2.0
/**
 * Lists, adds and deletes IP addresses, and deletes routes of the local table.
 *
 * An address with `autojoin` is a multicast group that the kernel keeps a membership of for as long
 * as the address is there, with no process needed; no prefix route is made for it.
 */
#include "address.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <vector>

#include "failure.h"
#include "netlink.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

std::string subjectOf(const IpAddress& address, uint32_t ifindex) {
  return ipText(address.family, address.bytes.data()) + " on ifindex " + std::to_string(ifindex);
}

struct AddressRequest {
  uint32_t ifindex;
  IpAddress address;
  uint8_t prefixLength;
};

AddressRequest readAddress(const Napi::CallbackInfo& info) {
  const uint32_t ifindex = toIfindex(info[0], "ifindex");
  const IpAddress address = toIpAddress(info[1], "address");
  const auto prefixLength =
      static_cast<uint8_t>(toUint32(info[2], "prefixLength", 0, address.maxPrefixLength()));
  return AddressRequest{ifindex, address, prefixLength};
}

void putAddress(NetlinkRequest& request, const AddressRequest& wanted) {
  auto* header = request.header<ifaddrmsg>();
  header->ifa_family = static_cast<uint8_t>(wanted.address.family);
  header->ifa_prefixlen = wanted.prefixLength;
  header->ifa_index = wanted.ifindex;
  request.put(IFA_LOCAL, wanted.address.bytes.data(), wanted.address.length());
  request.put(IFA_ADDRESS, wanted.address.bytes.data(), wanted.address.length());
}

}  // namespace

std::optional<Address> parseAddress(const nlmsghdr* message) {
  if (message->nlmsg_type != RTM_NEWADDR && message->nlmsg_type != RTM_DELADDR) return std::nullopt;
  const auto* header = payloadOf<ifaddrmsg>(message);
  if (header == nullptr) return std::nullopt;
  if (header->ifa_family != AF_INET && header->ifa_family != AF_INET6) return std::nullopt;
  Address address;
  address.ifindex = header->ifa_index;
  address.family = header->ifa_family;
  address.prefixLength = header->ifa_prefixlen;
  address.scope = header->ifa_scope;
  address.flags = header->ifa_flags;
  const size_t length = address.family == AF_INET ? 4 : 16;
  bool localSeen = false;
  forEachAttribute(message, sizeof(ifaddrmsg), [&](uint16_t type, const nlattr* attribute) {
    if (type == IFA_FLAGS) address.flags = attributeU32(attribute);
    // IFA_ADDRESS is the peer's where the two differ
    if (type != IFA_LOCAL && (type != IFA_ADDRESS || localSeen)) return;
    if (mnl_attr_get_payload_len(attribute) != length) return;
    address.address = ipText(address.family, mnl_attr_get_payload(attribute));
    if (type == IFA_LOCAL) localSeen = true;
  });
  if (address.address.empty()) return std::nullopt;
  return address;
}

Napi::Object addressObject(Napi::Env env, const Address& address) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("ifindex", Napi::Number::New(env, address.ifindex));
  object.Set("address", Napi::String::New(env, address.address));
  object.Set("prefixLength", Napi::Number::New(env, address.prefixLength));
  object.Set("family", Napi::Number::New(env, address.family == AF_INET ? 4 : 6));
  object.Set("secondary", Napi::Boolean::New(env, (address.flags & IFA_F_SECONDARY) != 0));
  object.Set("autojoin", Napi::Boolean::New(env, (address.flags & IFA_F_MCAUTOJOIN) != 0));
  object.Set("tentative",
             Napi::Boolean::New(env, (address.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) != 0));
  object.Set("deprecated", Napi::Boolean::New(env, (address.flags & IFA_F_DEPRECATED) != 0));
  object.Set("scope", Napi::Number::New(env, address.scope));
  return object;
}

Napi::Value addressList(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  NetlinkRequest request(RTM_GETADDR, 0);
  request.header<ifaddrmsg>();
  std::vector<Address> addresses;
  NetlinkSession().dump(
      request, [&] { addresses.clear(); },
      [&](const nlmsghdr* message) {
        if (auto address = parseAddress(message)) addresses.push_back(std::move(*address));
      });
  Napi::Array array = Napi::Array::New(env, addresses.size());
  for (uint32_t i = 0; i < addresses.size(); i++) array.Set(i, addressObject(env, addresses[i]));
  return array;
}

Napi::Value addressAdd(const Napi::CallbackInfo& info) {
  const AddressRequest wanted = readAddress(info);
  const bool autojoin = toBoolean(info[3], "autojoin");
  NetlinkRequest request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
  putAddress(request, wanted);
  if (autojoin) {
    uint32_t flags = IFA_F_MCAUTOJOIN | IFA_F_NOPREFIXROUTE;
    // asking a whole group whether it is a duplicate makes no sense
    if (wanted.address.family == AF_INET6) flags |= IFA_F_NODAD;
    request.putU32(IFA_FLAGS, flags);
    // scope host: the kernel never chooses it as the source of what the host sends
    static_cast<ifaddrmsg*>(mnl_nlmsg_get_payload(request.message()))->ifa_scope = RT_SCOPE_HOST;
  }
  NetlinkSession().execute(request, subjectOf(wanted.address, wanted.ifindex));
  return info.Env().Undefined();
}

Napi::Value addressDelete(const Napi::CallbackInfo& info) {
  const AddressRequest wanted = readAddress(info);
  NetlinkRequest request(RTM_DELADDR, 0);
  putAddress(request, wanted);
  NetlinkSession().execute(request, subjectOf(wanted.address, wanted.ifindex));
  return info.Env().Undefined();
}

Napi::Value routeDeleteLocal(const Napi::CallbackInfo& info) {
  const uint32_t ifindex = toIfindex(info[0], "ifindex");
  const IpAddress address = toIpAddress(info[1], "address");
  NetlinkRequest request(RTM_DELROUTE, 0);
  auto* header = request.header<rtmsg>();
  header->rtm_family = static_cast<uint8_t>(address.family);
  header->rtm_dst_len = address.maxPrefixLength();
  header->rtm_table = RT_TABLE_LOCAL;
  header->rtm_type = RTN_LOCAL;
  header->rtm_scope = RT_SCOPE_NOWHERE;  // any
  request.put(RTA_DST, address.bytes.data(), address.length());
  request.putU32(RTA_OIF, ifindex);
  try {
    NetlinkSession().execute(request, subjectOf(address, ifindex));
  } catch (const SystemFailure& failure) {
    if (failure.errnum == ESRCH) return Napi::Boolean::New(info.Env(), false);
    throw;
  }
  return Napi::Boolean::New(info.Env(), true);
}

}  // namespace vnetd
