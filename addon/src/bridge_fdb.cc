// SPDX-License-Identifier: Apache-2.0
/** Reads bridges' forwarding databases; see bridge_fdb.h. */
#include "bridge_fdb.h"

#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <set>
#include <vector>

#include "netlink.h"
#include "operations.h"
#include "values.h"

namespace vnetd {

std::optional<BridgeFdb> parseBridgeFdb(const nlmsghdr* message) {
  if (message->nlmsg_type != RTM_NEWNEIGH && message->nlmsg_type != RTM_DELNEIGH) {
    return std::nullopt;
  }
  const auto* header = payloadOf<ndmsg>(message);
  if (header == nullptr || header->ndm_family != PF_BRIDGE) return std::nullopt;
  BridgeFdb entry;
  entry.ifindex = static_cast<uint32_t>(header->ndm_ifindex);
  entry.permanent = (header->ndm_state & NUD_PERMANENT) != 0;
  forEachAttribute(message, sizeof(ndmsg), [&](uint16_t type, const nlattr* attribute) {
    if (type == NDA_MASTER) entry.master = attributeU32(attribute);
    if (type == NDA_LLADDR && mnl_attr_get_payload_len(attribute) == 6) {
      entry.mac = macText(static_cast<const uint8_t*>(mnl_attr_get_payload(attribute)));
    }
  });
  if (entry.master == 0 || entry.mac.empty()) return std::nullopt;
  return entry;
}

Napi::Object bridgeFdbObject(Napi::Env env, const BridgeFdb& entry) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("mac", Napi::String::New(env, entry.mac));
  object.Set("ifindex", Napi::Number::New(env, entry.ifindex));
  object.Set("master", Napi::Number::New(env, entry.master));
  object.Set("permanent", Napi::Boolean::New(env, entry.permanent));
  return object;
}

Napi::Value bridgeFdbList(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::set<uint32_t> leaveOut;
  if (!info[0].IsUndefined()) {
    if (!info[0].IsArray()) throw Napi::TypeError::New(env, "leaveOut must be an array");
    const Napi::Array ports = info[0].As<Napi::Array>();
    for (uint32_t i = 0; i < ports.Length(); i++)
      leaveOut.insert(toUint32(ports.Get(i), "leaveOut"));
  }
  NetlinkRequest request(RTM_GETNEIGH, 0);
  request.header<ndmsg>()->ndm_family = PF_BRIDGE;
  std::vector<BridgeFdb> entries;
  NetlinkSession().dump(
      request, [&] { entries.clear(); },
      [&](const nlmsghdr* message) {
        auto entry = parseBridgeFdb(message);
        if (!entry || (!entry->permanent && leaveOut.count(entry->ifindex) != 0)) return;
        entries.push_back(std::move(*entry));
      });
  Napi::Array array = Napi::Array::New(env, entries.size());
  for (uint32_t i = 0; i < entries.size(); i++) array.Set(i, bridgeFdbObject(env, entries[i]));
  return array;
}

}  // namespace vnetd
