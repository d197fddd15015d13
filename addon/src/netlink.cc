// SPDX-License-Identifier: Apache-2.0
/** Netlink requests, answers and dumps; see netlink.h. */
#include "netlink.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <vector>

namespace vnetd {
namespace {

// the kernel fills dumps in pieces of at most 32 KiB; a single link's message can be longer
constexpr size_t kReceiveBytes = 64 * 1024;
constexpr int kDumpAttempts = 16;
constexpr uint32_t kSequence = 1;  // one exchange at a time, on a socket of its own
constexpr int kReceiveTimeoutSeconds = 30;

/** The text of NLMSGERR_ATTR_MSG behind headerBytes, if there is one. */
std::string extendedAck(const nlmsghdr* message, size_t headerBytes) {
  std::string text;
  if ((message->nlmsg_flags & NLM_F_ACK_TLVS) == 0) return text;
  forEachAttribute(message, headerBytes, [&](uint16_t type, const nlattr* attribute) {
    if (type == NLMSGERR_ATTR_MSG) text = attributeText(attribute);
  });
  return text;
}

void checkError(const nlmsghdr* message, const std::string& subject) {
  const auto* error = payloadOf<nlmsgerr>(message);
  if (error == nullptr) failSystem(EBADMSG, subject);
  if (error->error == 0) return;
  size_t headerBytes = sizeof(nlmsgerr);
  if ((message->nlmsg_flags & NLM_F_CAPPED) == 0 && error->msg.nlmsg_len >= sizeof(nlmsghdr)) {
    headerBytes += error->msg.nlmsg_len - sizeof(nlmsghdr);
  }
  std::string detail;
  if (headerBytes <= mnl_nlmsg_get_payload_len(message)) detail = extendedAck(message, headerBytes);
  failSystem(error->error, subject, detail);
}

void checkDone(const nlmsghdr* message, const std::string& subject) {
  const auto* error = payloadOf<int>(message);
  if (error != nullptr && *error < 0)
    failSystem(*error, subject, extendedAck(message, sizeof(int)));
}

/** Clears a buffer at the end, by whatever way that comes. */
struct Wiper {
  std::vector<uint8_t>& buffer;
  bool wanted;
  ~Wiper() {
    if (wanted) explicit_bzero(buffer.data(), buffer.size());
  }
};

}  // namespace

NetlinkRequest::NetlinkRequest(uint16_t type, uint16_t flags) : buffer_{} {
  nlmsghdr* header = mnl_nlmsg_put_header(buffer_);
  header->nlmsg_type = type;
  header->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  header->nlmsg_seq = kSequence;
}

void* NetlinkRequest::extend(size_t length) {
  if (message()->nlmsg_len + MNL_ALIGN(length) > kBufferBytes) failSystem(EMSGSIZE, "request");
  return mnl_nlmsg_put_extra_header(message(), length);
}

void NetlinkRequest::put(uint16_t type, const void* data, size_t length) {
  if (!mnl_attr_put_check(message(), kBufferBytes, type, length, data)) {
    failSystem(EMSGSIZE, "request");
  }
}

nlattr* NetlinkRequest::nestStart(uint16_t type) {
  nlattr* start = mnl_attr_nest_start_check(message(), kBufferBytes, type);
  if (start == nullptr) failSystem(EMSGSIZE, "request");
  return start;
}

void enableExtendedAck(mnl_socket* socket) {
  // both exist since 4.12; where they fail the errors only say less
  int on = 1;
  mnl_socket_setsockopt(socket, NETLINK_EXT_ACK, &on, sizeof on);
  mnl_socket_setsockopt(socket, NETLINK_CAP_ACK, &on, sizeof on);
}

size_t receiveFromKernel(int fd, uint8_t* buffer, size_t capacity) {
  sockaddr_nl sender{};
  iovec vector{buffer, capacity};
  msghdr header{};
  header.msg_name = &sender;
  header.msg_namelen = sizeof sender;
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  ssize_t length;
  do {
    length = recvmsg(fd, &header, 0);
  } while (length < 0 && errno == EINTR);
  if (length < 0) failSystem(errno, "netlink socket");
  if ((header.msg_flags & MSG_TRUNC) != 0) failSystem(EMSGSIZE, "netlink socket");
  return sender.nl_pid == 0 ? static_cast<size_t>(length) : 0;
}

NetlinkSession::NetlinkSession(int protocol)
    : socket_(mnl_socket_open2(protocol, SOCK_CLOEXEC)), wipes_(protocol == NETLINK_XFRM) {
  if (socket_ == nullptr) failSystem(errno, "netlink socket");
  if (mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0) {
    const int error = errno;
    mnl_socket_close(socket_);
    failSystem(error, "netlink socket");
  }
  enableExtendedAck(socket_);
  // the kernel answers in the call that sends; a limit keeps a fault from blocking us for ever
  const timeval timeout{kReceiveTimeoutSeconds, 0};
  setsockopt(mnl_socket_get_fd(socket_), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
}

NetlinkSession::~NetlinkSession() { mnl_socket_close(socket_); }

NetlinkSession::Outcome NetlinkSession::exchange(NetlinkRequest& request,
                                                 const std::string& subject,
                                                 const OnMessage& onMessage) {
  nlmsghdr* outgoing = request.message();
  if (mnl_socket_sendto(socket_, outgoing, outgoing->nlmsg_len) < 0) failSystem(errno, subject);
  std::vector<uint8_t> buffer(kReceiveBytes);
  const Wiper wiper{buffer, wipes_};
  bool interrupted = false;
  for (;;) {
    const size_t received =
        receiveFromKernel(mnl_socket_get_fd(socket_), buffer.data(), buffer.size());
    auto length = static_cast<int>(received);
    const auto* message = reinterpret_cast<const nlmsghdr*>(buffer.data());
    for (; mnl_nlmsg_ok(message, length); message = mnl_nlmsg_next(message, &length)) {
      if (message->nlmsg_seq != kSequence) continue;
      if ((message->nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
      if (message->nlmsg_type == NLMSG_ERROR) {
        checkError(message, subject);
        return Outcome::kDone;
      }
      if (message->nlmsg_type == NLMSG_DONE) {
        checkDone(message, subject);
        return interrupted ? Outcome::kInterrupted : Outcome::kDone;
      }
      if (message->nlmsg_type >= NLMSG_MIN_TYPE && onMessage) onMessage(message);
    }
  }
}

void NetlinkSession::execute(NetlinkRequest& request, const std::string& subject,
                             const OnMessage& onMessage) {
  request.message()->nlmsg_flags |= NLM_F_ACK;
  exchange(request, subject, onMessage);
}

void NetlinkSession::dump(NetlinkRequest& request, const std::function<void()>& onRestart,
                          const OnMessage& onMessage) {
  request.message()->nlmsg_flags |= NLM_F_DUMP;
  for (int attempt = 0; attempt < kDumpAttempts; attempt++) {
    if (attempt > 0) onRestart();
    if (exchange(request, "dump", onMessage) == Outcome::kDone) return;
  }
  failSystem(EAGAIN, "dump", "what was listed changed during every attempt");
}

uint32_t attributeU32(const nlattr* attribute) {
  uint32_t value = 0;
  if (mnl_attr_get_payload_len(attribute) >= sizeof value) {
    memcpy(&value, mnl_attr_get_payload(attribute), sizeof value);
  }
  return value;
}

std::string attributeText(const nlattr* attribute) {
  const auto* text = static_cast<const char*>(mnl_attr_get_payload(attribute));
  return std::string(text, strnlen(text, mnl_attr_get_payload_len(attribute)));
}

}  // namespace vnetd
