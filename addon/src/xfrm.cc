// SPDX-License-Identifier: Apache-2.0
/** What states and policies of xfrm have in common; see xfrm.h. */
#include "xfrm.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "failure.h"

namespace vnetd {
namespace {

struct Mode {
  uint8_t number;
  const char* name;
};
constexpr Mode kModes[] = {
    {XFRM_MODE_TRANSPORT, "transport"}, {XFRM_MODE_TUNNEL, "tunnel"}, {XFRM_MODE_BEET, "beet"}};

}  // namespace

NetlinkSession xfrmSession() {
  try {
    return NetlinkSession(NETLINK_XFRM);
  } catch (SystemFailure& failure) {
    if (failure.errnum == EPROTONOSUPPORT) {
      failure.detail = "the kernel lacks CONFIG_XFRM_USER (module xfrm_user)";
    }
    throw;
  }
}

xfrm_address_t xfrmAddress(const IpAddress& address) {
  xfrm_address_t result{};
  memcpy(&result, address.bytes.data(), address.length());
  return result;
}

std::string xfrmAddressText(uint16_t family, const xfrm_address_t& address) {
  return ipText(family, &address);
}

uint8_t toXfrmMode(Napi::Value value, const char* what) {
  const std::string text = toText(value, what, 16);
  // tunnel mode is none that we make: it is only named when others' are listed
  if (text == "transport") return XFRM_MODE_TRANSPORT;
  if (text == "beet") return XFRM_MODE_BEET;
  failRange(std::string(what) + " must be \"transport\" or \"beet\"");
}

std::string xfrmModeText(uint8_t mode) {
  for (const Mode& known : kModes) {
    if (known.number == mode) return known.name;
  }
  return std::to_string(mode);
}

xfrm_mark toXfrmMark(Napi::Value value, const char* what) {
  const Napi::Object object = toObject(value, what);
  return xfrm_mark{toUint32(object.Get("value"), what), toUint32(object.Get("mask"), what)};
}

Napi::Object xfrmMarkObject(Napi::Env env, const xfrm_mark& mark) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("value", Napi::Number::New(env, mark.v));
  object.Set("mask", Napi::Number::New(env, mark.m));
  return object;
}

XfrmKey readXfrmKey(const Napi::Object& options) {
  XfrmKey key;
  if (const auto mark = optionalProperty(options, "mark")) key.mark = toXfrmMark(*mark, "mark");
  if (const auto ifId = optionalProperty(options, "ifId")) key.ifId = toUint32(*ifId, "ifId", 1);
  return key;
}

void putXfrmKey(NetlinkRequest& request, const XfrmKey& key) {
  if (key.mark) request.put(XFRMA_MARK, &*key.mark, sizeof *key.mark);
  if (key.ifId) request.putU32(XFRMA_IF_ID, *key.ifId);
}

void parseXfrmKey(XfrmKey& key, uint16_t type, const nlattr* attribute) {
  if (type == XFRMA_IF_ID) key.ifId = attributeU32(attribute);
  if (type != XFRMA_MARK || mnl_attr_get_payload_len(attribute) < sizeof(xfrm_mark)) return;
  xfrm_mark mark;
  memcpy(&mark, mnl_attr_get_payload(attribute), sizeof mark);
  key.mark = mark;
}

void setXfrmKey(Napi::Object object, const XfrmKey& key) {
  const Napi::Env env = object.Env();
  if (key.mark) object.Set("mark", xfrmMarkObject(env, *key.mark));
  if (key.ifId) object.Set("ifId", Napi::Number::New(env, *key.ifId));
}

IfIdFilter::IfIdFilter(Napi::Value value) {
  if (!value.IsUndefined()) wanted_ = toXfrmMark(value, "ifId");
}

bool IfIdFilter::takes(const XfrmKey& key) const {
  return !wanted_ || (key.ifId.value_or(0) & wanted_->m) == wanted_->v;
}

xfrm_selector xfrmSelector(const IpAddress& source, uint8_t sourcePrefix,
                           const IpAddress& destination, uint8_t destinationPrefix) {
  if (source.family != destination.family) failRange("both addresses must be of one family");
  xfrm_selector selector{};
  selector.family = static_cast<uint16_t>(source.family);
  selector.saddr = xfrmAddress(source);
  selector.daddr = xfrmAddress(destination);
  selector.prefixlen_s = sourcePrefix;
  selector.prefixlen_d = destinationPrefix;
  return selector;
}

void unlimited(xfrm_lifetime_cfg& lifetime) {
  lifetime.soft_byte_limit = XFRM_INF;
  lifetime.hard_byte_limit = XFRM_INF;
  lifetime.soft_packet_limit = XFRM_INF;
  lifetime.hard_packet_limit = XFRM_INF;
}

}  // namespace vnetd
