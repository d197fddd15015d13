// SPDX-License-Identifier: Apache-2.0
/**
 * Reports changes of links, addresses and traffic control, and what bridges' forwarding databases
 * lose, as they happen. What bridges learn is told to nobody: a filter of the socket drops it in
 * the kernel, since a burst of new MACs would cost the process more than the bridges.
 *
 * One multicast netlink socket in the network namespace of the calling thread. When its buffer
 * runs over, events are lost for good, and the kernel silently drops more until the buffer has been
 * read empty. So what is left in it is thrown away first; the "overrun" that comes then tells the
 * caller to read everything again, and no event after it is missing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/filter.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include "address.h"
#include "bridge_fdb.h"
#include "failure.h"
#include "link.h"
#include "loop_watcher.h"
#include "netlink.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

constexpr int kReceiveQueueBytes = 8 * 1024 * 1024;
constexpr size_t kReceiveBytes = 64 * 1024;
constexpr int kDatagramsPerTurn = 64;
// throwing away is much faster than the kernel is at filling
constexpr int kDiscardsPerTurn = 65536;

/** Of news about neighbours only what bridges forget passes; numbers are loaded big endian. */
void dropNewNeighbours(int fd) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(nlmsghdr, nlmsg_type)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_NEWNEIGH), 4, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_DELNEIGH), 0, 2),
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NLMSG_HDRLEN + offsetof(ndmsg, ndm_family)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PF_BRIDGE, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
      BPF_STMT(BPF_RET | BPF_K, 0),
  };
  const sock_fprog filter = {sizeof program / sizeof *program, program};
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) != 0) {
    failSystem(errno, "the filter of a netlink socket");
  }
}

void setEvent(Napi::Object event, const char* type) {
  event.Set("type", Napi::String::New(event.Env(), type));
}

void fillLinkEvent(Napi::Object event, const Link& link, bool deleted) {
  const Napi::Env env = event.Env();
  setEvent(event, deleted ? "link-deleted" : "link");
  if (deleted) {
    event.Set("ifindex", Napi::Number::New(env, link.ifindex));
    event.Set("name", Napi::String::New(env, link.name));
  } else {
    event.Set("link", linkObject(env, link));
  }
}

/** ifindex of the device whose filters or qdisc may be others now, 0 for other messages. */
uint32_t trafficControlChange(const nlmsghdr* message) {
  switch (message->nlmsg_type) {
    case RTM_DELQDISC:
    case RTM_DELCHAIN:
    case RTM_DELTFILTER:
    case RTM_NEWTFILTER:
      break;
    default:
      return 0;
  }
  const auto* change = payloadOf<tcmsg>(message);
  // blocks that devices share have a number in its place that is no device's
  if (change == nullptr || change->tcm_ifindex <= 0) return 0;
  return static_cast<uint32_t>(change->tcm_ifindex);
}

/** The contract's NetlinkEvent for a message; an empty value for one that is none. */
Napi::Value eventOf(Napi::Env env, const nlmsghdr* message) {
  Napi::Object event = Napi::Object::New(env);
  if (const auto link = parseLink(message)) {
    fillLinkEvent(event, *link, message->nlmsg_type == RTM_DELLINK);
    return event;
  }
  if (const auto address = parseAddress(message)) {
    setEvent(event, message->nlmsg_type == RTM_DELADDR ? "address-deleted" : "address");
    event.Set("address", addressObject(env, *address));
    return event;
  }
  if (const auto entry = parseBridgeFdb(message)) {
    setEvent(event, "bridge-fdb-deleted");
    event.Set("entry", bridgeFdbObject(env, *entry));
    return event;
  }
  if (const uint32_t ifindex = trafficControlChange(message)) {
    setEvent(event, "tc");
    event.Set("ifindex", Napi::Number::New(env, ifindex));
    return event;
  }
  return Napi::Value();
}

class NetlinkMonitor : public LoopWatcher {
 public:
  explicit NetlinkMonitor(napi_env env)
      : LoopWatcher(env),
        socket_(mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK)),
        buffer_(kReceiveBytes) {
    if (socket_ == nullptr) failSystem(errno, "netlink socket");
    try {
      join();
    } catch (...) {
      release();
      throw;
    }
  }
  ~NetlinkMonitor() override { release(); }

  int pollFd() const { return mnl_socket_get_fd(socket_); }

 protected:
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

 private:
  void join() {
    const int fd = mnl_socket_get_fd(socket_);
    const int bytes = kReceiveQueueBytes;
    // over the system's limit where we may, else as much as it allows
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0) {
      setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    }
    dropNewNeighbours(fd);
    if (mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0) failSystem(errno, "netlink socket");
    for (int group :
         {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_NEIGH, RTNLGRP_TC}) {
      if (mnl_socket_setsockopt(socket_, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0) {
        failSystem(errno, "netlink group " + std::to_string(group));
      }
    }
  }

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
      setEvent(event, "overrun");
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

Napi::Value netlinkMonitor(const Napi::CallbackInfo& info) {
  const Napi::Function onEvent = toFunction(info[0], "onEvent");
  const auto monitor = std::make_shared<NetlinkMonitor>(info.Env());
  return LoopWatcher::start(monitor, onEvent, monitor->pollFd(), "VnetdNetlinkMonitor");
}

}  // namespace vnetd
