// SPDX-License-Identifier: Apache-2.0
/**
 * The UDP socket that control messages go out of and, in some modes, come in by.
 *
 * It is bound to one device, sends multicast out of it and does not hear itself. The kernel gives
 * it no multicast at all that it did not join: what the group gets is taken by BPF.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "failure.h"
#include "operations.h"
#include "values.h"

#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif

namespace vnetd {
namespace {

struct Options {
  std::string device;
  IpAddress address;
  uint16_t port;
  int multicastTtl;
  bool dontFragment;
};

Options readOptions(const Napi::CallbackInfo& info) {
  const Napi::Object options = toObject(info[0], "options");
  return Options{
      toDeviceName(options.Get("device"), "options.device"),
      toIpAddress(options.Get("address"), "options.address"),
      static_cast<uint16_t>(toUint32(options.Get("port"), "options.port", 0, 65535)),
      static_cast<int>(toUint32(options.Get("multicastTtl"), "options.multicastTtl", 0, 255)),
      options.Has("dontFragment") &&
          toBoolean(options.Get("dontFragment"), "options.dontFragment")};
}

class SocketSetup {
 public:
  explicit SocketSetup(const Options& options)
      : options_(options),
        ifindex_(if_nametoindex(options.device.c_str())),
        fd_(socket(options.address.family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    if (ifindex_ == 0) failSystem(errno, options.device);
    if (!fd_.valid()) failSystem(errno, options.device);
  }

  UniqueFd run() {
    set(SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
    if (setsockopt(fd_.get(), SOL_SOCKET, SO_BINDTODEVICE, options_.device.c_str(),
                   static_cast<socklen_t>(options_.device.size() + 1)) != 0) {
      failSystem(errno, options_.device, "SO_BINDTODEVICE");
    }
    if (options_.address.family == AF_INET) {
      bindIpv4();
    } else {
      bindIpv6();
    }
    return std::move(fd_);
  }

 private:
  void set(int level, int option, int value, const char* name) {
    if (setsockopt(fd_.get(), level, option, &value, sizeof value) != 0) {
      failSystem(errno, options_.device, name);
    }
  }

  template <typename Address>
  void bindTo(const Address& address) {
    if (bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return;
    failSystem(errno, ipText(options_.address.family, options_.address.bytes.data()) + " port " +
                          std::to_string(options_.port) + " on " + options_.device);
  }

  void bindIpv4() {
    set(IPPROTO_IP, IP_MULTICAST_TTL, options_.multicastTtl, "IP_MULTICAST_TTL");
    set(IPPROTO_IP, IP_MULTICAST_LOOP, 0, "IP_MULTICAST_LOOP");
    set(IPPROTO_IP, IP_MULTICAST_ALL, 0, "IP_MULTICAST_ALL");
    set(IPPROTO_IP, IP_MTU_DISCOVER, options_.dontFragment ? IP_PMTUDISC_PROBE : IP_PMTUDISC_DONT,
        "IP_MTU_DISCOVER");
    ip_mreqn device{};
    device.imr_ifindex = static_cast<int>(ifindex_);
    if (setsockopt(fd_.get(), IPPROTO_IP, IP_MULTICAST_IF, &device, sizeof device) != 0) {
      failSystem(errno, options_.device, "IP_MULTICAST_IF");
    }
    sockaddr_in local{};
    local.sin_family = AF_INET;
    local.sin_port = htons(options_.port);
    memcpy(&local.sin_addr, options_.address.bytes.data(), sizeof local.sin_addr);
    bindTo(local);
  }

  void bindIpv6() {
    set(IPPROTO_IPV6, IPV6_V6ONLY, 1, "IPV6_V6ONLY");
    set(IPPROTO_IPV6, IPV6_MULTICAST_HOPS, options_.multicastTtl, "IPV6_MULTICAST_HOPS");
    set(IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0, "IPV6_MULTICAST_LOOP");
    set(IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0, "IPV6_MULTICAST_ALL");
    set(IPPROTO_IPV6, IPV6_MTU_DISCOVER,
        options_.dontFragment ? IPV6_PMTUDISC_PROBE : IPV6_PMTUDISC_DONT, "IPV6_MTU_DISCOVER");
    if (options_.dontFragment) set(IPPROTO_IPV6, IPV6_DONTFRAG, 1, "IPV6_DONTFRAG");
    set(IPPROTO_IPV6, IPV6_MULTICAST_IF, static_cast<int>(ifindex_), "IPV6_MULTICAST_IF");
    sockaddr_in6 local{};
    local.sin6_family = AF_INET6;
    local.sin6_port = htons(options_.port);
    memcpy(&local.sin6_addr, options_.address.bytes.data(), sizeof local.sin6_addr);
    const bool linkScope =
        IN6_IS_ADDR_LINKLOCAL(&local.sin6_addr) || IN6_IS_ADDR_MC_LINKLOCAL(&local.sin6_addr);
    if (linkScope) local.sin6_scope_id = ifindex_;
    bindTo(local);
  }

  const Options& options_;
  unsigned ifindex_;
  UniqueFd fd_;
};

}  // namespace

Napi::Value udpSocket(const Napi::CallbackInfo& info) {
  const Options options = readOptions(info);
  return Napi::Number::New(info.Env(), SocketSetup(options).run().release());
}

}  // namespace vnetd
