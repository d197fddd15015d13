// SPDX-License-Identifier: Apache-2.0
/**
 * Reports changes of links, addresses and bridges' forwarding databases as they happen.
 */
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include "address.h"
#include "bridge_fdb.h"
#include "link.h"
#include "netlink_events.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

constexpr int kReceiveQueueBytes = 8 * 1024 * 1024;

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

/** The contract's NetlinkEvent for a message; an empty value for one that is none. */
Napi::Value changeEvent(Napi::Env env, const nlmsghdr* message) {
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
    setEvent(event, message->nlmsg_type == RTM_DELNEIGH ? "bridge-fdb-deleted" : "bridge-fdb");
    event.Set("entry", bridgeFdbObject(env, *entry));
    return event;
  }
  return Napi::Value();
}

class NetlinkMonitor : public NetlinkEvents {
 public:
  explicit NetlinkMonitor(napi_env env) : NetlinkEvents(env, NETLINK_ROUTE) {
    const int bytes = kReceiveQueueBytes;
    // over the system's limit where we may, else as much as it allows
    if (setsockopt(pollFd(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0) {
      setsockopt(pollFd(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    }
    join({RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_NEIGH});
  }

 protected:
  Napi::Value eventOf(Napi::Env env, const nlmsghdr* message) override {
    return changeEvent(env, message);
  }
};

}  // namespace

Napi::Value netlinkMonitor(const Napi::CallbackInfo& info) {
  const Napi::Function onEvent = toFunction(info[0], "onEvent");
  const auto monitor = std::make_shared<NetlinkMonitor>(info.Env());
  return LoopWatcher::start(monitor, onEvent, monitor->pollFd(), "VnetdNetlinkMonitor");
}

}  // namespace vnetd
