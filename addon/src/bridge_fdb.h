// SPDX-License-Identifier: Apache-2.0
/** Entries of bridges' forwarding databases, shared by the list and the monitor. */
#pragma once

#include <linux/netlink.h>
#include <napi.h>

#include <cstdint>
#include <optional>
#include <string>

namespace vnetd {

struct BridgeFdb {
  std::string mac;
  uint32_t ifindex = 0;
  uint32_t master = 0;
  bool permanent = false;
};

/** nothing for what is not a bridge's entry: other neighbours, a device's own address filter */
std::optional<BridgeFdb> parseBridgeFdb(const nlmsghdr* message);
/** BridgeFdbEntry of the contract */
Napi::Object bridgeFdbObject(Napi::Env env, const BridgeFdb& entry);

}  // namespace vnetd
