// SPDX-License-Identifier: Apache-2.0
/**
 * Reports SAs that have come to a limit, and packets for which there is none.
 *
 * One multicast NETLINK_XFRM socket in the network namespace of the calling thread. What the kernel
 * sends has the SA's keys in it: the buffer is wiped after each turn. Loss is told as by the
 * netlink monitor (netlink_monitor.cc): "overrun", after which everything is to be read again.
 */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <sys/socket.h>

#include "failure.h"
#include "loop_watcher.h"
#include "netlink.h"
#include "operations.h"
#include "values.h"
#include "xfrm.h"

namespace vnetd {
namespace {

constexpr size_t kReceiveBytes = 64 * 1024;
constexpr int kDatagramsPerTurn = 64;
constexpr int kDiscardsPerTurn = 65536;

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

Napi::Value eventOf(Napi::Env env, const nlmsghdr* message) {
  if (message->nlmsg_type == XFRM_MSG_EXPIRE) return expireEvent(env, message);
  if (message->nlmsg_type == XFRM_MSG_ACQUIRE) return acquireEvent(env, message);
  return Napi::Value();
}

class XfrmMonitor : public LoopWatcher {
 public:
  explicit XfrmMonitor(napi_env env)
      : LoopWatcher(env),
        socket_(mnl_socket_open2(NETLINK_XFRM, SOCK_CLOEXEC | SOCK_NONBLOCK)),
        buffer_(kReceiveBytes) {
    if (socket_ == nullptr) {
      const bool lacking = errno == EPROTONOSUPPORT;
      failSystem(errno, "netlink socket",
                 lacking ? "the kernel lacks CONFIG_XFRM_USER (module xfrm_user)" : "");
    }
    try {
      join();
    } catch (...) {
      release();
      throw;
    }
  }
  ~XfrmMonitor() override { release(); }

  int pollFd() const { return mnl_socket_get_fd(socket_); }

 protected:
  void onReadable() override {
    readSome();
    explicit_bzero(buffer_.data(), buffer_.size());
  }

  void release() override {
    if (socket_ != nullptr) mnl_socket_close(socket_);
    socket_ = nullptr;
  }

 private:
  void join() {
    if (mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0) failSystem(errno, "netlink socket");
    for (int group : {XFRMNLGRP_EXPIRE, XFRMNLGRP_ACQUIRE}) {
      if (mnl_socket_setsockopt(socket_, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0) {
        failSystem(errno, "netlink group " + std::to_string(group));
      }
    }
  }

  void readSome() {
    for (int i = 0; i < kDatagramsPerTurn && !closed(); i++) {
      switch (receive()) {
        case Received::kNothing:
          return;
        case Received::kDatagram:
          if (!deliverDatagram()) return;
          break;
        case Received::kLoss:
          discardAll();
          deliverOverrun();
          return;
      }
    }
  }

  enum class Received { kNothing, kDatagram, kLoss };

  Received receive() {
    try {
      received_ = receiveFromKernel(pollFd(), buffer_.data(), buffer_.size());
      return Received::kDatagram;
    } catch (const SystemFailure& failure) {
      return failure.errnum == EAGAIN ? Received::kNothing : Received::kLoss;
    }
  }

  void discardAll() {
    for (int i = 0; i < kDiscardsPerTurn; i++) {
      if (receive() == Received::kNothing) return;
    }
  }

  /** false when JavaScript cannot run any more */
  bool deliverDatagram() {
    auto length = static_cast<int>(received_);
    const auto* message = reinterpret_cast<const nlmsghdr*>(buffer_.data());
    for (; mnl_nlmsg_ok(message, length) && !closed(); message = mnl_nlmsg_next(message, &length)) {
      if (!deliverEvent(message)) return false;
    }
    return true;
  }

  bool deliverEvent(const nlmsghdr* message) {
    const Napi::Env env(this->env());
    const Napi::HandleScope scope(env);
    try {
      const Napi::Value event = eventOf(env, message);
      return event.IsEmpty() || deliver(event) != Delivery::kImpossible;
    } catch (const Napi::Error&) {
      return false;  // the environment ends: nothing can be made in it any more
    }
  }

  void deliverOverrun() {
    const Napi::Env env(this->env());
    const Napi::HandleScope scope(env);
    try {
      Napi::Object event = Napi::Object::New(env);
      setText(event, "type", "overrun");
      deliver(event);
    } catch (const Napi::Error&) {
      // the environment ends
    }
  }

  mnl_socket* socket_;
  Bytes buffer_;
  size_t received_ = 0;
};

}  // namespace

Napi::Value xfrmMonitor(const Napi::CallbackInfo& info) {
  const Napi::Function onEvent = toFunction(info[0], "onEvent");
  const auto monitor = std::make_shared<XfrmMonitor>(info.Env());
  return LoopWatcher::start(monitor, onEvent, monitor->pollFd(), "VnetdXfrmMonitor");
}

}  // namespace vnetd
