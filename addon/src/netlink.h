// SPDX-License-Identifier: Apache-2.0
/**
 * Requests of rtnetlink and xfrm, their answers and dumps, on top of libmnl.
 *
 * A session is one socket in the calling thread's network namespace, made for one operation. Only
 * messages that come from the kernel and answer our request are looked at; attributes are read
 * with their length checked.
 */
#pragma once

#include <libmnl/libmnl.h>
#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#include "failure.h"

namespace vnetd {

/** A message being built; throws EMSGSIZE rather than growing over its buffer. */
class NetlinkRequest {
 public:
  NetlinkRequest(uint16_t type, uint16_t flags);
  /** keys may have been in it */
  ~NetlinkRequest() { explicit_bzero(buffer_, sizeof buffer_); }
  NetlinkRequest(const NetlinkRequest&) = default;
  NetlinkRequest& operator=(const NetlinkRequest&) = default;

  /** the family's fixed header, zeroed; also used for the header inside VETH_INFO_PEER */
  template <typename Header>
  Header* header() {
    return static_cast<Header*>(extend(sizeof(Header)));
  }
  void put(uint16_t type, const void* data, size_t length);
  void putU8(uint16_t type, uint8_t value) { put(type, &value, sizeof value); }
  void putU32(uint16_t type, uint32_t value) { put(type, &value, sizeof value); }
  /** with its NUL */
  void putText(uint16_t type, const std::string& text) { put(type, text.c_str(), text.size() + 1); }
  template <typename Fill>
  void nest(uint16_t type, Fill fill) {
    nlattr* start = nestStart(type);
    fill();
    mnl_attr_nest_end(message(), start);
  }
  nlmsghdr* message() { return reinterpret_cast<nlmsghdr*>(buffer_); }

 private:
  void* extend(size_t length);
  nlattr* nestStart(uint16_t type);

  static constexpr size_t kBufferBytes = 4096;
  alignas(nlmsghdr) uint8_t buffer_[kBufferBytes];
};

class NetlinkSession {
 public:
  using OnMessage = std::function<void(const nlmsghdr*)>;

  /** NETLINK_ROUTE or NETLINK_XFRM */
  explicit NetlinkSession(int protocol = NETLINK_ROUTE);
  ~NetlinkSession();
  NetlinkSession(const NetlinkSession&) = delete;
  NetlinkSession& operator=(const NetlinkSession&) = delete;

  /** Sends and waits for the kernel's acknowledgement; answers before it go to onMessage. */
  void execute(NetlinkRequest& request, const std::string& subject,
               const OnMessage& onMessage = nullptr);
  /** Reads a dump; when the kernel says that it changed meanwhile, onRestart and once more. */
  void dump(NetlinkRequest& request, const std::function<void()>& onRestart,
            const OnMessage& onMessage);

 private:
  enum class Outcome { kDone, kInterrupted };
  Outcome exchange(NetlinkRequest& request, const std::string& subject, const OnMessage& onMessage);

  mnl_socket* socket_;
  /** answers may hold keys */
  bool wipes_;
};

/** Turns on extended acks in their short form. */
void enableExtendedAck(mnl_socket* socket);

/**
 * Receives one datagram of the kernel; 0 when there is none (non-blocking) or it was not the
 * kernel's. Throws the errno of recvmsg, EMSGSIZE for one that did not fit.
 */
size_t receiveFromKernel(int fd, uint8_t* buffer, size_t capacity);

/** A message's fixed header, nullptr when the message is too short for one. */
template <typename Header>
const Header* payloadOf(const nlmsghdr* message) {
  if (mnl_nlmsg_get_payload_len(message) < sizeof(Header)) return nullptr;
  return static_cast<const Header*>(mnl_nlmsg_get_payload(message));
}

/** visit(type, attribute) for each attribute behind a fixed header of headerBytes */
template <typename Visit>
void forEachAttribute(const nlmsghdr* message, size_t headerBytes, Visit visit) {
  const auto* attribute =
      static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(message, headerBytes));
  const auto* end = static_cast<const char*>(mnl_nlmsg_get_payload_tail(message));
  while (mnl_attr_ok(attribute, static_cast<int>(end - reinterpret_cast<const char*>(attribute)))) {
    visit(mnl_attr_get_type(attribute), attribute);
    attribute = mnl_attr_next(attribute);
  }
}

template <typename Visit>
void forEachNested(const nlattr* nest, Visit visit) {
  const auto* attribute = static_cast<const nlattr*>(mnl_attr_get_payload(nest));
  const char* end = reinterpret_cast<const char*>(attribute) + mnl_attr_get_payload_len(nest);
  while (mnl_attr_ok(attribute, static_cast<int>(end - reinterpret_cast<const char*>(attribute)))) {
    visit(mnl_attr_get_type(attribute), attribute);
    attribute = mnl_attr_next(attribute);
  }
}

/** 0 when the attribute is too short */
uint32_t attributeU32(const nlattr* attribute);
/** up to the first NUL or the end */
std::string attributeText(const nlattr* attribute);

}  // namespace vnetd
