// SPDX-License-Identifier: Apache-2.0
#include "netlink_watcher.h"

#include <errno.h>
#include <sys/socket.h>

#include "failure.h"

namespace vnetd {
namespace {

constexpr size_t kReceiveBytes = 64 * 1024;
constexpr int kDatagramsPerTurn = 64;
// throwing away is much faster than the kernel is at filling
constexpr int kDiscardsPerTurn = 65536;

}  // namespace

NetlinkWatcher::NetlinkWatcher(napi_env env, int protocol, const std::string& hint)
    : LoopWatcher(env),
      socket_(mnl_socket_open2(protocol, SOCK_CLOEXEC | SOCK_NONBLOCK)),
      buffer_(kReceiveBytes) {
  if (socket_ == nullptr) failSystem(errno, "netlink socket", errno == EPROTONOSUPPORT ? hint : "");
}

NetlinkWatcher::~NetlinkWatcher() {
  if (socket_ != nullptr) mnl_socket_close(socket_);
}

void NetlinkWatcher::release() {
  if (socket_ != nullptr) mnl_socket_close(socket_);
  socket_ = nullptr;
}

void NetlinkWatcher::join(std::initializer_list<int> groups) {
  if (mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0) failSystem(errno, "netlink socket");
  for (int group : groups) {
    if (mnl_socket_setsockopt(socket_, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0) {
      failSystem(errno, "netlink group " + std::to_string(group));
    }
  }
}

void NetlinkWatcher::readSome() {
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

NetlinkWatcher::Received NetlinkWatcher::receive() {
  try {
    received_ = receiveFromKernel(pollFd(), buffer_.data(), buffer_.size());
    return Received::kDatagram;
  } catch (const SystemFailure& failure) {
    // ENOBUFS, or a message that did not fit: something is lost
    return failure.errnum == EAGAIN ? Received::kNothing : Received::kLoss;
  }
}

void NetlinkWatcher::discardAll() {
  for (int i = 0; i < kDiscardsPerTurn; i++) {
    if (receive() == Received::kNothing) return;
  }
}

/** false when JavaScript cannot run any more */
bool NetlinkWatcher::deliverDatagram() {
  auto length = static_cast<int>(received_);
  const auto* message = reinterpret_cast<const nlmsghdr*>(buffer_.data());
  for (; mnl_nlmsg_ok(message, length) && !closed(); message = mnl_nlmsg_next(message, &length)) {
    if (!deliverEvent(message)) return false;
  }
  return true;
}

bool NetlinkWatcher::deliverEvent(const nlmsghdr* message) {
  const Napi::Env env(this->env());
  const Napi::HandleScope scope(env);
  try {
    const Napi::Value event = eventOf(env, message);
    return event.IsEmpty() || deliver(event) != Delivery::kImpossible;
  } catch (const Napi::Error&) {
    return false;  // the environment ends: nothing can be made in it any more
  }
}

void NetlinkWatcher::deliverOverrun() {
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

}  // namespace vnetd
