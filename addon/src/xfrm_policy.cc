// SPDX-License-Identifier: Apache-2.0
/** Policies of xfrm: which packets must go, or must have come, by which SA. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include <vector>

#include "failure.h"
#include "netlink.h"
#include "operations.h"
#include "values.h"
#include "xfrm.h"

namespace vnetd {
namespace {

struct Direction {
  uint8_t number;
  const char* name;
};
constexpr Direction kDirections[] = {
    {XFRM_POLICY_IN, "in"}, {XFRM_POLICY_OUT, "out"}, {XFRM_POLICY_FWD, "fwd"}};

uint8_t toDirection(Napi::Value value) {
  const std::string text = toText(value, "direction", 8);
  for (const Direction& known : kDirections) {
    if (text == known.name) return known.number;
  }
  failRange("direction must be \"in\", \"out\" or \"fwd\"");
}

/** Who a policy is: direction, selector, mark and interface. */
struct PolicyId {
  uint8_t direction;
  xfrm_selector selector;
  XfrmKey key;
  std::string subject;
};

uint8_t prefixOf(const Napi::Object& options, const char* name, const IpAddress& address) {
  const auto value = optionalProperty(options, name);
  if (!value) return address.maxPrefixLength();
  return static_cast<uint8_t>(toUint32(*value, name, 0, address.maxPrefixLength()));
}

PolicyId readPolicyId(const Napi::Object& options) {
  const IpAddress source = toIpAddress(options.Get("source"), "source");
  const IpAddress destination = toIpAddress(options.Get("destination"), "destination");
  PolicyId id;
  id.direction = toDirection(options.Get("direction"));
  id.selector = xfrmSelector(source, prefixOf(options, "sourcePrefix", source), destination,
                             prefixOf(options, "destinationPrefix", destination));
  id.key = readXfrmKey(options);
  id.subject = "policy " + ipText(source.family, source.bytes.data()) + " to " +
               ipText(destination.family, destination.bytes.data());
  return id;
}

xfrm_user_tmpl readTemplate(const Napi::Object& options) {
  const IpAddress source = toIpAddress(options.Get("source"), "template.source");
  const IpAddress destination = toIpAddress(options.Get("destination"), "template.destination");
  if (source.family != destination.family) failRange("both addresses must be of one family");
  xfrm_user_tmpl result{};
  result.id.daddr = xfrmAddress(destination);
  result.id.proto = IPPROTO_ESP;
  if (const auto spi = optionalProperty(options, "spi")) {
    result.id.spi = htonl(toUint32(*spi, "template.spi", 256));
  }
  result.family = static_cast<uint16_t>(source.family);
  result.saddr = xfrmAddress(source);
  result.reqid = toUint32(options.Get("reqid"), "template.reqid");
  result.mode = toXfrmMode(options.Get("mode"), "template.mode");
  // whatever algorithms the SA has: it is chosen by reqid and SPI
  result.aalgos = UINT32_MAX;
  result.ealgos = UINT32_MAX;
  result.calgos = UINT32_MAX;
  return result;
}

struct Policy {
  xfrm_userpolicy_info info;
  XfrmKey key;
  std::vector<xfrm_user_tmpl> templates;
};

std::optional<Policy> parsePolicy(const nlmsghdr* message) {
  if (message->nlmsg_type != XFRM_MSG_NEWPOLICY) return std::nullopt;
  const auto* info = payloadOf<xfrm_userpolicy_info>(message);
  if (info == nullptr || info->dir > XFRM_POLICY_FWD) return std::nullopt;
  if (info->sel.family != AF_INET && info->sel.family != AF_INET6) return std::nullopt;
  Policy policy{*info, {}, {}};
  forEachAttribute(message, sizeof *info, [&](uint16_t type, const nlattr* attribute) {
    parseXfrmKey(policy.key, type, attribute);
    if (type != XFRMA_TMPL) return;
    const size_t count = mnl_attr_get_payload_len(attribute) / sizeof(xfrm_user_tmpl);
    policy.templates.resize(count);
    if (count == 0) return;
    memcpy(policy.templates.data(), mnl_attr_get_payload(attribute),
           count * sizeof(xfrm_user_tmpl));
  });
  return policy;
}

Napi::Object templateObject(Napi::Env env, const xfrm_user_tmpl& each) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("source", Napi::String::New(env, xfrmAddressText(each.family, each.saddr)));
  object.Set("destination", Napi::String::New(env, xfrmAddressText(each.family, each.id.daddr)));
  if (each.id.spi != 0) object.Set("spi", Napi::Number::New(env, ntohl(each.id.spi)));
  object.Set("reqid", Napi::Number::New(env, each.reqid));
  object.Set("mode", Napi::String::New(env, xfrmModeText(each.mode)));
  return object;
}

Napi::Object policyObject(Napi::Env env, const Policy& policy) {
  const xfrm_userpolicy_info& info = policy.info;
  Napi::Object object = Napi::Object::New(env);
  object.Set("direction", Napi::String::New(env, kDirections[info.dir].name));
  object.Set("source", Napi::String::New(env, xfrmAddressText(info.sel.family, info.sel.saddr)));
  object.Set("sourcePrefix", Napi::Number::New(env, info.sel.prefixlen_s));
  object.Set("destination",
             Napi::String::New(env, xfrmAddressText(info.sel.family, info.sel.daddr)));
  object.Set("destinationPrefix", Napi::Number::New(env, info.sel.prefixlen_d));
  object.Set("priority", Napi::Number::New(env, info.priority));
  object.Set("action",
             Napi::String::New(env, info.action == XFRM_POLICY_ALLOW ? "allow" : "block"));
  setXfrmKey(object, policy.key);
  Napi::Array templates = Napi::Array::New(env, policy.templates.size());
  for (uint32_t i = 0; i < policy.templates.size(); i++) {
    templates.Set(i, templateObject(env, policy.templates[i]));
  }
  object.Set("templates", templates);
  return object;
}

}  // namespace

Napi::Value xfrmPolicySet(const Napi::CallbackInfo& info) {
  const Napi::Object options = toObject(info[0], "policy");
  const PolicyId id = readPolicyId(options);
  NetlinkRequest request(XFRM_MSG_UPDPOLICY, 0);
  auto* policy = request.header<xfrm_userpolicy_info>();
  policy->sel = id.selector;
  unlimited(policy->lft);
  policy->dir = id.direction;
  policy->priority = toUint32(options.Get("priority"), "priority");
  policy->action = XFRM_POLICY_BLOCK;
  // a policy that wants no SA lets packets pass in clear: there is none such
  if (const auto value = optionalProperty(options, "template")) {
    policy->action = XFRM_POLICY_ALLOW;
    const xfrm_user_tmpl wanted = readTemplate(toObject(*value, "template"));
    request.put(XFRMA_TMPL, &wanted, sizeof wanted);
  }
  putXfrmKey(request, id.key);
  xfrmSession().execute(request, id.subject);
  return info.Env().Undefined();
}

Napi::Value xfrmPolicyDelete(const Napi::CallbackInfo& info) {
  const PolicyId id = readPolicyId(toObject(info[0], "id"));
  NetlinkRequest request(XFRM_MSG_DELPOLICY, 0);
  auto* header = request.header<xfrm_userpolicy_id>();
  header->sel = id.selector;
  header->dir = id.direction;
  putXfrmKey(request, id.key);
  bool found = true;
  try {
    xfrmSession().execute(request, id.subject);
  } catch (const SystemFailure& failure) {
    if (failure.errnum != ENOENT) throw;
    found = false;
  }
  return Napi::Boolean::New(info.Env(), found);
}

Napi::Value xfrmPolicyList(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const IfIdFilter filter(info[0]);
  NetlinkRequest request(XFRM_MSG_GETPOLICY, 0);
  std::vector<Policy> policies;
  xfrmSession().dump(
      request, [&] { policies.clear(); },
      [&](const nlmsghdr* message) {
        auto policy = parsePolicy(message);
        if (policy && filter.takes(policy->key)) policies.push_back(std::move(*policy));
      });
  Napi::Array array = Napi::Array::New(env, policies.size());
  for (uint32_t i = 0; i < policies.size(); i++) array.Set(i, policyObject(env, policies[i]));
  return array;
}

}  // namespace vnetd
