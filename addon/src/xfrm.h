// SPDX-License-Identifier: Apache-2.0
/**
 * What states and policies of xfrm have in common: addresses, marks, modes, and the session whose
 * failures say what the kernel lacks.
 */
#pragma once

#include <linux/xfrm.h>
#include <napi.h>

#include <optional>
#include <string>

#include "netlink.h"
#include "values.h"

namespace vnetd {

/** A NETLINK_XFRM socket. EPROTONOSUPPORT with the option's name where the kernel has none. */
NetlinkSession xfrmSession();

xfrm_address_t xfrmAddress(const IpAddress& address);
std::string xfrmAddressText(uint16_t family, const xfrm_address_t& address);

uint8_t toXfrmMode(Napi::Value value, const char* what);
std::string xfrmModeText(uint8_t mode);

/** {value, mask} */
xfrm_mark toXfrmMark(Napi::Value value, const char* what);
Napi::Object xfrmMarkObject(Napi::Env env, const xfrm_mark& mark);

/** Attributes that both have: {mark?, ifId?} */
struct XfrmKey {
  std::optional<xfrm_mark> mark;
  std::optional<uint32_t> ifId;
};
XfrmKey readXfrmKey(const Napi::Object& options);
void putXfrmKey(NetlinkRequest& request, const XfrmKey& key);
/** takes what the attribute says, if it is one of these */
void parseXfrmKey(XfrmKey& key, uint16_t type, const nlattr* attribute);
void setXfrmKey(Napi::Object object, const XfrmKey& key);

/** Which interfaces' states or policies a list is to have: {value, mask}, or all. */
class IfIdFilter {
 public:
  explicit IfIdFilter(Napi::Value value);
  bool takes(const XfrmKey& key) const;

 private:
  std::optional<xfrm_mark> wanted_;
};

/** a selector for packets from one prefix to another, of any protocol */
xfrm_selector xfrmSelector(const IpAddress& source, uint8_t sourcePrefix,
                           const IpAddress& destination, uint8_t destinationPrefix);

/** limits of none */
void unlimited(xfrm_lifetime_cfg& lifetime);

struct XfrmState;
/** an SA in a message of the kernel; without its keys */
std::optional<XfrmState> parseXfrmState(const nlmsghdr* message, const xfrm_usersa_info& info,
                                        size_t headerBytes);
Napi::Object xfrmStateObject(Napi::Env env, const XfrmState& state);

struct XfrmState {
  xfrm_usersa_info info;
  XfrmKey key;
  std::optional<xfrm_mark> outputMark;
  std::string encryption;
  std::string authentication;
  std::string aead;
  bool hasReplay = false;
  uint32_t replayWindow = 0;
  uint64_t received = 0;
  uint64_t sent = 0;
};

}  // namespace vnetd
