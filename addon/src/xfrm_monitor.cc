// SPDX-License-Identifier: Apache-2.0
/**
 * Reports SAs that have come to a limit, and packets for which there is none.
 *
 * What the kernel sends has the SA's keys in it: the buffer is wiped after each turn.
 */
#include <libmnl/libmnl.h>
#include <string.h>

#include "netlink.h"
#include "netlink_watcher.h"
#include "operations.h"
#include "values.h"
#include "xfrm.h"

namespace vnetd {
namespace {

void setText(Napi::Object object, const char* name, const std::string& text) {
  object.Set(name, Napi::String::New(object.Env(), text));
}

Napi::Value expireEvent(Napi::Env env, const nlmsghdr* message) {
  const auto* expired = payloadOf<xfrm_user_expire>(message);
  if (expired == nullptr) return Napi::Value();
  const auto state = parseXfrmState(message, expired->state, sizeof *expired);
  if (!state) return Napi::Value();
  Napi::Object event = Napi::Object::New(env);
  setText(event, "type", "expire");
  event.Set("hard", Napi::Boolean::New(env, expired->hard != 0));
  event.Set("state", xfrmStateObject(env, *state));
  return event;
}

Napi::Value acquireEvent(Napi::Env env, const nlmsghdr* message) {
  const auto* acquire = payloadOf<xfrm_user_acquire>(message);
  if (acquire == nullptr) return Napi::Value();
  XfrmKey key;
  uint32_t reqid = 0;
  uint16_t family = acquire->sel.family;
  forEachAttribute(message, sizeof *acquire, [&](uint16_t type, const nlattr* attribute) {
    parseXfrmKey(key, type, attribute);
    if (type != XFRMA_TMPL || mnl_attr_get_payload_len(attribute) < sizeof(xfrm_user_tmpl)) return;
    const auto* wanted = static_cast<const xfrm_user_tmpl*>(mnl_attr_get_payload(attribute));
    reqid = wanted->reqid;
    family = wanted->family;
  });
  Napi::Object event = Napi::Object::New(env);
  setText(event, "type", "acquire");
  setText(event, "source", xfrmAddressText(family, acquire->saddr));
  setText(event, "destination", xfrmAddressText(family, acquire->id.daddr));
  event.Set("reqid", Napi::Number::New(env, reqid));
  setXfrmKey(event, key);
  return event;
}

Napi::Value xfrmEvent(Napi::Env env, const nlmsghdr* message) {
  if (message->nlmsg_type == XFRM_MSG_EXPIRE) return expireEvent(env, message);
  if (message->nlmsg_type == XFRM_MSG_ACQUIRE) return acquireEvent(env, message);
  return Napi::Value();
}

class XfrmMonitor : public NetlinkWatcher {
 public:
  explicit XfrmMonitor(napi_env env)
      : NetlinkWatcher(env, NETLINK_XFRM, "the kernel lacks CONFIG_XFRM_USER (module xfrm_user)") {
    join({XFRMNLGRP_EXPIRE, XFRMNLGRP_ACQUIRE});
  }

 protected:
  Napi::Value eventOf(Napi::Env env, const nlmsghdr* message) override {
    return xfrmEvent(env, message);
  }

  void onReadable() override {
    readSome();
    explicit_bzero(buffer().data(), buffer().size());
  }
};

}  // namespace

Napi::Value xfrmMonitor(const Napi::CallbackInfo& info) {
  const Napi::Function onEvent = toFunction(info[0], "onEvent");
  const auto monitor = std::make_shared<XfrmMonitor>(info.Env());
  return LoopWatcher::start(monitor, onEvent, monitor->pollFd(), "VnetdXfrmMonitor");
}

}  // namespace vnetd
