// SPDX-License-Identifier: Apache-2.0
/** IP addresses of links as the kernel describes them, shared by the list and the monitor. */
#pragma once

#include <linux/netlink.h>
#include <napi.h>

#include <cstdint>
#include <optional>
#include <string>

namespace vnetd {

struct Address {
  uint32_t ifindex = 0;
  int family = 0;
  std::string address;
  uint8_t prefixLength = 0;
  uint8_t scope = 0;
  uint32_t flags = 0;
};

/** nothing for what is not an IPv4 or IPv6 address */
std::optional<Address> parseAddress(const nlmsghdr* message);
/** AddressInfo of the contract */
Napi::Object addressObject(Napi::Env env, const Address& address);

}  // namespace vnetd
