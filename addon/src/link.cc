// SPDX-License-Identifier: Apache-2.0
/** Reads links: RTM_NEWLINK messages into LinkInfo of the contract; see link.h. */
#include "link.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <vector>

#include "failure.h"
#include "netlink.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

constexpr uint32_t kMsPerClockTick = 10;  // USER_HZ is 100 on every architecture

void parseBridgeData(const nlattr* data, Link& link) {
  Link::Bridge bridge;
  forEachNested(data, [&](uint16_t type, const nlattr* attribute) {
    if (type == IFLA_BR_STP_STATE) bridge.stp = attributeU32(attribute) != 0;
    if (type == IFLA_BR_FORWARD_DELAY) {
      bridge.forwardDelayMs = attributeU32(attribute) * kMsPerClockTick;
    }
  });
  link.bridge = bridge;
}

void parseLinkInfo(const nlattr* info, Link& link) {
  const nlattr* data = nullptr;
  forEachNested(info, [&](uint16_t type, const nlattr* attribute) {
    if (type == IFLA_INFO_KIND) link.kind = attributeText(attribute);
    if (type == IFLA_INFO_DATA) data = attribute;
  });
  if (data == nullptr) return;
  if (link.kind == "bridge") parseBridgeData(data, link);
  if (link.kind == "xfrm") {
    forEachNested(data, [&](uint16_t type, const nlattr* attribute) {
      if (type == IFLA_XFRM_IF_ID) link.xfrmIfId = attributeU32(attribute);
    });
  }
}

void parseAttribute(uint16_t type, const nlattr* attribute, Link& link) {
  switch (type) {
    case IFLA_IFNAME:
      link.name = attributeText(attribute);
      break;
    case IFLA_MTU:
      link.mtuBytes = attributeU32(attribute);
      break;
    case IFLA_ADDRESS:
      // tunnels have addresses of other lengths, which are no MACs
      if (mnl_attr_get_payload_len(attribute) == 6) {
        link.mac = macText(static_cast<const uint8_t*>(mnl_attr_get_payload(attribute)));
      }
      break;
    case IFLA_MASTER:
      link.master = attributeU32(attribute);
      break;
    case IFLA_LINK:
      link.link = attributeU32(attribute);
      break;
    case IFLA_LINK_NETNSID:
      link.linkNetnsId = static_cast<int32_t>(attributeU32(attribute));
      break;
    case IFLA_IFALIAS:
      link.alias = attributeText(attribute);
      break;
    case IFLA_GSO_MAX_SIZE:
      link.gsoMaxSizeBytes = attributeU32(attribute);
      break;
    case IFLA_LINKINFO:
      parseLinkInfo(attribute, link);
      break;
    default:
      break;
  }
}

}  // namespace

std::optional<Link> parseLink(const nlmsghdr* message) {
  if (message->nlmsg_type != RTM_NEWLINK && message->nlmsg_type != RTM_DELLINK) return std::nullopt;
  const auto* header = payloadOf<ifinfomsg>(message);
  if (header == nullptr || header->ifi_family != AF_UNSPEC) return std::nullopt;
  Link link;
  link.ifindex = static_cast<uint32_t>(header->ifi_index);
  link.flags = header->ifi_flags;
  forEachAttribute(message, sizeof(ifinfomsg), [&](uint16_t type, const nlattr* attribute) {
    parseAttribute(type, attribute, link);
  });
  return link;
}

Napi::Object linkObject(Napi::Env env, const Link& link) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("ifindex", Napi::Number::New(env, link.ifindex));
  object.Set("name", Napi::String::New(env, link.name));
  object.Set("kind", Napi::String::New(env, link.kind));
  object.Set("mtuBytes", Napi::Number::New(env, link.mtuBytes));
  object.Set("mac", Napi::String::New(env, link.mac));
  object.Set("up", Napi::Boolean::New(env, (link.flags & IFF_UP) != 0));
  object.Set("carrier", Napi::Boolean::New(env, (link.flags & IFF_LOWER_UP) != 0));
  object.Set("loopback", Napi::Boolean::New(env, (link.flags & IFF_LOOPBACK) != 0));
  object.Set("master", Napi::Number::New(env, link.master));
  object.Set("link", Napi::Number::New(env, link.link));
  if (link.linkNetnsId) object.Set("linkNetnsId", Napi::Number::New(env, *link.linkNetnsId));
  if (link.alias) object.Set("alias", Napi::String::New(env, *link.alias));
  if (link.bridge) {
    Napi::Object bridge = Napi::Object::New(env);
    bridge.Set("stp", Napi::Boolean::New(env, link.bridge->stp));
    bridge.Set("forwardDelayMs", Napi::Number::New(env, link.bridge->forwardDelayMs));
    object.Set("bridge", bridge);
  }
  if (link.xfrmIfId) object.Set("xfrmIfId", Napi::Number::New(env, *link.xfrmIfId));
  return object;
}

std::optional<Link> findLink(const std::string& name) {
  NetlinkRequest request(RTM_GETLINK, 0);
  request.header<ifinfomsg>();
  request.putU32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  request.putText(IFLA_IFNAME, name);
  std::optional<Link> found;
  try {
    NetlinkSession().execute(request, name, [&](const nlmsghdr* message) {
      if (auto link = parseLink(message)) found = std::move(link);
    });
  } catch (const SystemFailure& failure) {
    if (failure.errnum == ENODEV) return std::nullopt;
    throw;
  }
  return found;
}

Napi::Value linkList(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  NetlinkRequest request(RTM_GETLINK, 0);
  request.header<ifinfomsg>();
  request.putU32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  std::vector<Link> links;
  NetlinkSession().dump(
      request, [&] { links.clear(); },
      [&](const nlmsghdr* message) {
        if (auto link = parseLink(message)) links.push_back(std::move(*link));
      });
  Napi::Array array = Napi::Array::New(env, links.size());
  for (uint32_t i = 0; i < links.size(); i++) array.Set(i, linkObject(env, links[i]));
  return array;
}

Napi::Value linkGet(const Napi::CallbackInfo& info) {
  const auto link = findLink(toDeviceName(info[0], "name"));
  if (!link) return info.Env().Undefined();
  return linkObject(info.Env(), *link);
}

Napi::Value linkAt(const Napi::CallbackInfo& info) {
  const uint32_t ifindex = toIfindex(info[0], "ifindex");
  NetlinkRequest request(RTM_GETLINK, 0);
  request.header<ifinfomsg>()->ifi_index = static_cast<int>(ifindex);
  request.putU32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  if (!info[1].IsUndefined()) {
    request.putU32(IFLA_TARGET_NETNSID, toUint32(info[1], "netnsId", 0, INT32_MAX));
  }
  std::optional<Link> found;
  try {
    NetlinkSession().execute(request, "ifindex " + std::to_string(ifindex),
                             [&](const nlmsghdr* message) {
                               if (auto link = parseLink(message)) found = std::move(link);
                             });
  } catch (const SystemFailure& failure) {
    // EINVAL: the number stands for no namespace any more
    if (failure.errnum != ENODEV && failure.errnum != EINVAL) throw;
  }
  if (!found) return info.Env().Undefined();
  return linkObject(info.Env(), *found);
}

}  // namespace vnetd
