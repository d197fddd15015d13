// SPDX-License-Identifier: Apache-2.0
/** Network links as the kernel describes them, shared by the lists, the changes and the monitor. */
#pragma once

#include <linux/netlink.h>
#include <napi.h>

#include <cstdint>
#include <optional>
#include <string>

namespace vnetd {

struct Link {
  uint32_t ifindex = 0;
  uint32_t flags = 0;
  std::string name;
  std::string kind;
  uint32_t mtuBytes = 0;
  std::string mac;
  uint32_t master = 0;
  uint32_t link = 0;
  uint32_t gsoMaxSizeBytes = 0;
  std::optional<int32_t> linkNetnsId;
  std::optional<std::string> alias;
  struct Bridge {
    bool stp = false;
    uint32_t forwardDelayMs = 0;
  };
  std::optional<Bridge> bridge;
  std::optional<uint32_t> xfrmIfId;
};

/** nothing for what is not a link's own message (a bridge port's, for one) */
std::optional<Link> parseLink(const nlmsghdr* message);
/** LinkInfo of the contract */
Napi::Object linkObject(Napi::Env env, const Link& link);
std::optional<Link> findLink(const std::string& name);

}  // namespace vnetd
