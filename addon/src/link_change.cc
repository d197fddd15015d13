// SPDX-License-Identifier: Apache-2.0
/**
 * Makes, changes and deletes links.
 *
 * A link is made with everything that the kernel takes in the creating message, so that nobody ever
 * sees it with a random MAC or another MTU; what it does not take there (the alias) follows at
 * once, and when that fails the link is deleted again.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>

#include "failure.h"
#include "link.h"
#include "netlink.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

constexpr uint32_t kMaxGsoBytes = 512 * 1024;
/**
 * 01:80:c2:00:00:03 to 0f (LLDP, 802.1X, …) are forwarded, as on a cable; the kernel takes no bits
 * for 00 (without STP it forwards that one anyway), 01 and 02.
 */
constexpr uint16_t kGroupForwardMask = 0xfff8;
constexpr uint8_t kAddrGenModeEui64 = 0;
constexpr uint8_t kAddrGenModeNone = 1;

/** What both ends of a veth, or a bridge, are made with. */
struct NewLink {
  std::string name;
  std::optional<MacAddress> mac;
  std::optional<uint32_t> mtuBytes;
  std::optional<uint32_t> gsoMaxSizeBytes;
  std::optional<uint32_t> queues{};
};

uint32_t toMtu(Napi::Value value, const char* what) { return toUint32(value, what, 1, INT32_MAX); }

std::optional<std::string> readAlias(const Napi::Object& options) {
  if (const auto value = optionalProperty(options, "alias")) return toAlias(*value, "alias");
  return std::nullopt;
}

std::optional<uint32_t> readGsoMaxSize(const Napi::Object& options) {
  if (const auto value = optionalProperty(options, "gsoMaxSizeBytes")) {
    return toUint32(*value, "gsoMaxSizeBytes", 1, kMaxGsoBytes);
  }
  return std::nullopt;
}

/** The kernel's own limit. */
constexpr uint32_t kMaxQueues = 4096;

std::optional<uint32_t> readQueues(const Napi::Object& options) {
  if (const auto value = optionalProperty(options, "queues")) {
    return toUint32(*value, "queues", 1, kMaxQueues);
  }
  return std::nullopt;
}

void putNewLink(NetlinkRequest& request, const NewLink& link) {
  request.putText(IFLA_IFNAME, link.name);
  if (link.mac) request.put(IFLA_ADDRESS, link.mac->data(), link.mac->size());
  if (link.mtuBytes) request.putU32(IFLA_MTU, *link.mtuBytes);
  if (link.gsoMaxSizeBytes) request.putU32(IFLA_GSO_MAX_SIZE, *link.gsoMaxSizeBytes);
  if (!link.queues) return;
  request.putU32(IFLA_NUM_TX_QUEUES, *link.queues);
  request.putU32(IFLA_NUM_RX_QUEUES, *link.queues);
}

/** A message that changes the link `ifindex`. */
NetlinkRequest changeRequest(uint32_t ifindex) {
  NetlinkRequest request(RTM_NEWLINK, 0);
  request.header<ifinfomsg>()->ifi_index = static_cast<int>(ifindex);
  return request;
}

void setAlias(uint32_t ifindex, const std::string& name, const std::string& alias) {
  NetlinkRequest request = changeRequest(ifindex);
  request.putText(IFLA_IFALIAS, alias);
  NetlinkSession().execute(request, name);
}

void deleteLink(uint32_t ifindex, const std::string& subject) {
  NetlinkRequest request(RTM_DELLINK, 0);
  request.header<ifinfomsg>()->ifi_index = static_cast<int>(ifindex);
  NetlinkSession().execute(request, subject);
}

/** Sets what the kernel did not take at creation. */
void completeLink(const NewLink& wanted, const std::optional<std::string>& alias) {
  const auto made = findLink(wanted.name);
  if (!made) failSystem(ENODEV, wanted.name, "the link is gone again");
  if (wanted.gsoMaxSizeBytes && made->gsoMaxSizeBytes != *wanted.gsoMaxSizeBytes) {
    NetlinkRequest request = changeRequest(made->ifindex);
    request.putU32(IFLA_GSO_MAX_SIZE, *wanted.gsoMaxSizeBytes);
    NetlinkSession().execute(request, wanted.name);
  }
  if (alias && !alias->empty()) setAlias(made->ifindex, wanted.name, *alias);
}

/** Runs a step after the creation of `name`; when it fails the link is taken away again. */
template <typename Step>
void orDelete(const std::string& name, Step step) {
  try {
    step();
  } catch (const SystemFailure&) {
    try {
      if (const auto link = findLink(name)) deleteLink(link->ifindex, name);
    } catch (const SystemFailure&) {
      // the first failure is the one to tell
    }
    throw;
  }
}

// IFLA_BR_FDB_MAX_LEARNED, which the headers of Debian 12 lack
constexpr uint16_t kBridgeMaxLearned = 49;

/** What linkSet changes, by the order in which it has to happen. */
struct LinkChange {
  std::optional<std::string> name;
  std::optional<uint32_t> mtuBytes;
  std::optional<uint32_t> master;
  std::optional<MacAddress> mac;
  std::optional<std::string> alias;
  std::optional<uint32_t> gsoMaxSizeBytes;
  std::optional<bool> noIpv6LinkLocal;
  std::optional<uint32_t> maxLearned;
  std::optional<bool> forwardsIpv4;
  uint32_t flags = 0;
  uint32_t flagsMask = 0;

  void setFlag(uint32_t flag, bool on) {
    flagsMask |= flag;
    if (on) flags |= flag;
  }
};

LinkChange readLinkChange(const Napi::Object& options) {
  LinkChange change;
  if (const auto name = optionalProperty(options, "name")) {
    change.name = toDeviceName(*name, "name");
  }
  change.alias = readAlias(options);
  change.gsoMaxSizeBytes = readGsoMaxSize(options);
  if (const auto mtu = optionalProperty(options, "mtuBytes")) {
    change.mtuBytes = toMtu(*mtu, "mtuBytes");
  }
  if (const auto master = optionalProperty(options, "master")) {
    change.master = toUint32(*master, "master", 0, INT32_MAX);
  }
  if (const auto mac = optionalProperty(options, "mac")) change.mac = toMac(*mac, "mac");
  if (const auto limit = optionalProperty(options, "maxLearned")) {
    change.maxLearned = toUint32(*limit, "maxLearned");
  }
  if (const auto value = optionalProperty(options, "noIpv6LinkLocal")) {
    change.noIpv6LinkLocal = toBoolean(*value, "noIpv6LinkLocal");
  }
  if (const auto value = optionalProperty(options, "forwardsIpv4")) {
    change.forwardsIpv4 = toBoolean(*value, "forwardsIpv4");
  }
  if (const auto up = optionalProperty(options, "up")) {
    change.setFlag(IFF_UP, toBoolean(*up, "up"));
  }
  if (const auto noArp = optionalProperty(options, "noArp")) {
    change.setFlag(IFF_NOARP, toBoolean(*noArp, "noArp"));
  }
  return change;
}

void putAttributes(NetlinkRequest& request, const LinkChange& change) {
  if (change.name) request.putText(IFLA_IFNAME, *change.name);
  if (change.mtuBytes) request.putU32(IFLA_MTU, *change.mtuBytes);
  if (change.master) request.putU32(IFLA_MASTER, *change.master);
  if (change.mac) request.put(IFLA_ADDRESS, change.mac->data(), change.mac->size());
  if (change.alias) request.putText(IFLA_IFALIAS, *change.alias);
  if (change.gsoMaxSizeBytes) request.putU32(IFLA_GSO_MAX_SIZE, *change.gsoMaxSizeBytes);
  if (change.forwardsIpv4) {
    request.nest(IFLA_AF_SPEC, [&] {
      request.nest(AF_INET, [&] {
        request.nest(IFLA_INET_CONF, [&] {
          request.putU32(IPV4_DEVCONF_FORWARDING, *change.forwardsIpv4 ? 1 : 0);
        });
      });
    });
  }
  if (!change.maxLearned) return;
  request.nest(IFLA_LINKINFO, [&] {
    request.putText(IFLA_INFO_KIND, "bridge");
    // kernels before 6.7 do not know it and skip it
    request.nest(IFLA_INFO_DATA, [&] { request.putU32(kBridgeMaxLearned, *change.maxLearned); });
  });
}

void putFlags(NetlinkRequest& request, const LinkChange& change) {
  auto* header = static_cast<ifinfomsg*>(mnl_nlmsg_get_payload(request.message()));
  header->ifi_change = change.flagsMask;
  header->ifi_flags = change.flags;
}

void putAddrGenMode(NetlinkRequest& request, bool none) {
  request.nest(IFLA_AF_SPEC, [&] {
    request.nest(AF_INET6, [&] {
      request.putU8(IFLA_INET6_ADDR_GEN_MODE, none ? kAddrGenModeNone : kAddrGenModeEui64);
    });
  });
}

void applyLinkChange(uint32_t ifindex, const LinkChange& change) {
  const std::string subject = "ifindex " + std::to_string(ifindex);
  NetlinkRequest attributes = changeRequest(ifindex);
  putAttributes(attributes, change);
  if (!change.noIpv6LinkLocal) {
    putFlags(attributes, change);
    NetlinkSession().execute(attributes, subject);
    return;
  }
  // within one message the kernel brings the link up before it reads the address mode, and the
  // link-local address would be made after all; the mode in turn may need the new MTU
  NetlinkSession().execute(attributes, subject);
  NetlinkRequest mode = changeRequest(ifindex);
  putAddrGenMode(mode, *change.noIpv6LinkLocal);
  NetlinkSession().execute(mode, subject);
  if (change.flagsMask == 0) return;
  NetlinkRequest flags = changeRequest(ifindex);
  putFlags(flags, change);
  NetlinkSession().execute(flags, subject);
}

}  // namespace

Napi::Value linkAddVeth(const Napi::CallbackInfo& info) {
  const Napi::Object options = toObject(info[0], "options");
  const auto gsoMaxSizeBytes = readGsoMaxSize(options);
  const auto queues = readQueues(options);
  const NewLink near{toDeviceName(options.Get("name"), "name"), toMac(options.Get("mac"), "mac"),
                     toMtu(options.Get("mtuBytes"), "mtuBytes"), gsoMaxSizeBytes, queues};
  const NewLink peer{toDeviceName(options.Get("peerName"), "peerName"),
                     toMac(options.Get("peerMac"), "peerMac"),
                     toMtu(options.Get("peerMtuBytes"), "peerMtuBytes"), gsoMaxSizeBytes, queues};
  const auto alias = readAlias(options);
  if (near.name == peer.name) failRange("name and peerName must differ");

  NetlinkRequest request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  request.header<ifinfomsg>();
  putNewLink(request, near);
  request.nest(IFLA_LINKINFO, [&] {
    request.putText(IFLA_INFO_KIND, "veth");
    request.nest(IFLA_INFO_DATA, [&] {
      request.nest(VETH_INFO_PEER, [&] {
        request.header<ifinfomsg>();
        putNewLink(request, peer);
      });
    });
  });
  NetlinkSession().execute(request, near.name + " and " + peer.name);
  orDelete(near.name, [&] {
    completeLink(near, alias);
    completeLink(peer, std::nullopt);
  });
  return info.Env().Undefined();
}

Napi::Value linkAddBridge(const Napi::CallbackInfo& info) {
  const Napi::Object options = toObject(info[0], "options");
  NewLink bridge{toDeviceName(options.Get("name"), "name"), {}, {}, {}, {}};
  if (const auto mac = optionalProperty(options, "mac")) bridge.mac = toMac(*mac, "mac");
  if (const auto mtu = optionalProperty(options, "mtuBytes")) {
    bridge.mtuBytes = toMtu(*mtu, "mtuBytes");
  }
  std::optional<uint32_t> maxLearned;
  if (const auto limit = optionalProperty(options, "maxLearned")) {
    maxLearned = toUint32(*limit, "maxLearned");
  }
  const auto alias = readAlias(options);

  NetlinkRequest request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  request.header<ifinfomsg>();
  putNewLink(request, bridge);
  request.nest(IFLA_LINKINFO, [&] {
    request.putText(IFLA_INFO_KIND, "bridge");
    request.nest(IFLA_INFO_DATA, [&] {
      request.putU32(IFLA_BR_FORWARD_DELAY, 0);
      request.putU32(IFLA_BR_STP_STATE, 0);
      // kernels before 6.7 do not know it and skip it
      if (maxLearned) request.putU32(kBridgeMaxLearned, *maxLearned);
      request.put(IFLA_BR_GROUP_FWD_MASK, &kGroupForwardMask, sizeof kGroupForwardMask);
    });
  });
  NetlinkSession().execute(request, bridge.name);
  orDelete(bridge.name, [&] { completeLink(bridge, alias); });
  return info.Env().Undefined();
}

Napi::Value linkAddVxlan(const Napi::CallbackInfo& info) {
  const Napi::Object options = toObject(info[0], "options");
  NewLink vxlan{toDeviceName(options.Get("name"), "name"), {}, {}, {}};
  if (const auto mac = optionalProperty(options, "mac")) vxlan.mac = toMac(*mac, "mac");
  if (const auto mtu = optionalProperty(options, "mtuBytes")) {
    vxlan.mtuBytes = toMtu(*mtu, "mtuBytes");
  }
  const uint16_t port =
      htons(static_cast<uint16_t>(toUint32(options.Get("port"), "port", 1, UINT16_MAX)));
  const auto alias = readAlias(options);

  NetlinkRequest request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  request.header<ifinfomsg>();
  putNewLink(request, vxlan);
  request.nest(IFLA_LINKINFO, [&] {
    request.putText(IFLA_INFO_KIND, "vxlan");
    request.nest(IFLA_INFO_DATA, [&] {
      request.putU8(IFLA_VXLAN_COLLECT_METADATA, 1);
      request.putU8(IFLA_VXLAN_LEARNING, 0);
      request.putU8(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 1);
      request.put(IFLA_VXLAN_PORT, &port, sizeof port);
    });
  });
  NetlinkSession().execute(request, vxlan.name);
  orDelete(vxlan.name, [&] { completeLink(vxlan, alias); });
  return info.Env().Undefined();
}

Napi::Value linkAddXfrm(const Napi::CallbackInfo& info) {
  const Napi::Object options = toObject(info[0], "options");
  NewLink xfrm{toDeviceName(options.Get("name"), "name"), {}, {}, {}};
  if (const auto mtu = optionalProperty(options, "mtuBytes")) {
    xfrm.mtuBytes = toMtu(*mtu, "mtuBytes");
  }
  const uint32_t ifId = toUint32(options.Get("ifId"), "ifId", 1);
  std::optional<uint32_t> lower;
  if (const auto value = optionalProperty(options, "lower")) lower = toIfindex(*value, "lower");
  const auto alias = readAlias(options);

  NetlinkRequest request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  request.header<ifinfomsg>();
  putNewLink(request, xfrm);
  request.nest(IFLA_LINKINFO, [&] {
    request.putText(IFLA_INFO_KIND, "xfrm");
    request.nest(IFLA_INFO_DATA, [&] {
      request.putU32(IFLA_XFRM_IF_ID, ifId);
      if (lower) request.putU32(IFLA_XFRM_LINK, *lower);
    });
  });
  try {
    NetlinkSession().execute(request, xfrm.name);
  } catch (SystemFailure& failure) {
    if (failure.errnum == EOPNOTSUPP) {
      failure.detail += "; the kernel lacks CONFIG_XFRM_INTERFACE (module xfrm_interface)";
    }
    throw;
  }
  orDelete(xfrm.name, [&] { completeLink(xfrm, alias); });
  return info.Env().Undefined();
}

Napi::Value linkSet(const Napi::CallbackInfo& info) {
  const uint32_t ifindex = toIfindex(info[0], "ifindex");
  applyLinkChange(ifindex, readLinkChange(toObject(info[1], "change")));
  return info.Env().Undefined();
}

Napi::Value linkDelete(const Napi::CallbackInfo& info) {
  const uint32_t ifindex = toIfindex(info[0], "ifindex");
  deleteLink(ifindex, "ifindex " + std::to_string(ifindex));
  return info.Env().Undefined();
}

}  // namespace vnetd
