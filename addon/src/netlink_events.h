// SPDX-License-Identifier: Apache-2.0
/**
 * Events from a multicast netlink socket in the network namespace of the calling thread.
 *
 * When the socket's buffer runs over, events are lost for good, and the kernel silently drops more
 * until the buffer has been read empty. So what is left in it is thrown away first; the "overrun"
 * that comes then tells the caller to read everything again, and no event after it is missing.
 */
#ifndef VNETD_NETLINK_EVENTS_H
#define VNETD_NETLINK_EVENTS_H

#include <errno.h>
#include <libmnl/libmnl.h>
#include <sys/socket.h>

#include <initializer_list>

#include "failure.h"
#include "loop_watcher.h"
#include "netlink.h"
#include "values.h"

namespace vnetd {

class NetlinkEvents : public LoopWatcher {
 public:
  ~NetlinkEvents() override { release(); }
  NetlinkEvents(const NetlinkEvents&) = delete;
  NetlinkEvents& operator=(const NetlinkEvents&) = delete;

  int pollFd() const { return mnl_socket_get_fd(socket_); }

 protected:
  /** lacking: what the kernel lacks where it does not know the protocol. */
  NetlinkEvents(napi_env env, int protocol, const char* lacking = "")
      : LoopWatcher(env),
        socket_(mnl_socket_open2(protocol, SOCK_CLOEXEC | SOCK_NONBLOCK)),
        buffer_(kReceiveBytes) {
    if (socket_ != nullptr) return;
    failSystem(errno, "netlink socket", errno == EPROTONOSUPPORT ? lacking : "");
  }

  void join(std::initializer_list<int> groups) {
    if (mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0) failSystem(errno, "netlink socket");
    for (int group : groups) {
      if (mnl_socket_setsockopt(socket_, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0) {
        failSystem(errno, "netlink group " + std::to_string(group));
      }
    }
  }

  /** The contract's event for a message; an empty value for one that is none. */
  virtual Napi::Value eventOf(Napi::Env env, const nlmsghdr* message) = 0;

  void onReadable() override {
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

  void release() override {
    if (socket_ != nullptr) mnl_socket_close(socket_);
    socket_ = nullptr;
  }

  Bytes& buffer() { return buffer_; }

 private:
  static constexpr size_t kReceiveBytes = 64 * 1024;
  static constexpr int kDatagramsPerTurn = 64;
  // throwing away is much faster than the kernel is at filling
  static constexpr int kDiscardsPerTurn = 65536;

  enum class Received { kNothing, kDatagram, kLoss };

  Received receive() {
    try {
      received_ = receiveFromKernel(pollFd(), buffer_.data(), buffer_.size());
      return Received::kDatagram;
    } catch (const SystemFailure& failure) {
      // ENOBUFS, or a message that did not fit: something is lost
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
      event.Set("type", Napi::String::New(env, "overrun"));
      deliver(event);
    } catch (const Napi::Error&) {
      // the environment ends
    }
  }

  mnl_socket* socket_;
  Bytes buffer_;
  size_t received_ = 0;
};

}  // namespace vnetd

#endif
