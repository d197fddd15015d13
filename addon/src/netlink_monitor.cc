// SPDX-License-Identifier: Apache-2.0
/**
 * Reports changes of links, addresses and traffic control, and what bridges' forwarding databases
 * lose, as they happen. What bridges learn is told to nobody: a filter of the socket drops it in
 * the kernel, since a burst of new MACs would cost the process more than the bridges.
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
#include "netlink.h"
#include "netlink_watcher.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

constexpr int kReceiveQueueBytes = 8 * 1024 * 1024;

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
Napi::Value routeEvent(Napi::Env env, const nlmsghdr* message) {
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

class NetlinkMonitor : public NetlinkWatcher {
 public:
  explicit NetlinkMonitor(napi_env env) : NetlinkWatcher(env, NETLINK_ROUTE) {
    const int bytes = kReceiveQueueBytes;
    // over the system's limit where we may, else as much as it allows
    if (setsockopt(pollFd(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0) {
      setsockopt(pollFd(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    }
    dropNewNeighbours(pollFd());
    join({RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_NEIGH, RTNLGRP_TC});
  }

 protected:
  Napi::Value eventOf(Napi::Env env, const nlmsghdr* message) override {
    return routeEvent(env, message);
  }
};

}  // namespace

Napi::Value netlinkMonitor(const Napi::CallbackInfo& info) {
  const Napi::Function onEvent = toFunction(info[0], "onEvent");
  const auto monitor = std::make_shared<NetlinkMonitor>(info.Env());
  return LoopWatcher::start(monitor, onEvent, monitor->pollFd(), "VnetdNetlinkMonitor");
}

}  // namespace vnetd
