// SPDX-License-Identifier: Apache-2.0
/**
 * A multicast netlink socket that is read on the environment's event loop: what the monitors share.
 *
 * It is in the network namespace of the calling thread. When its buffer runs over, events are lost
 * for good, and the kernel silently drops more until the buffer has been read empty. So what is
 * left in it is thrown away first; the "overrun" that comes then tells the caller to read
 * everything again, and no event after it is missing.
 */
#pragma once

#include <libmnl/libmnl.h>

#include <initializer_list>
#include <string>

#include "loop_watcher.h"
#include "netlink.h"
#include "values.h"

namespace vnetd {

class NetlinkWatcher : public LoopWatcher {
 public:
  ~NetlinkWatcher() override;

  int pollFd() const { return mnl_socket_get_fd(socket_); }

 protected:
  /** hint: of a failure, where the kernel lacks the protocol. Throws SystemFailure. */
  NetlinkWatcher(napi_env env, int protocol, const std::string& hint = "");

  /** From now on there are events. */
  void join(std::initializer_list<int> groups);
  /** The contract's event for a message; an empty value for one that is none. */
  virtual Napi::Value eventOf(Napi::Env env, const nlmsghdr* message) = 0;

  void onReadable() override { readSome(); }
  void release() override;
  void readSome();
  /** what was read last is still in it */
  Bytes& buffer() { return buffer_; }

 private:
  enum class Received { kNothing, kDatagram, kLoss };

  Received receive();
  void discardAll();
  bool deliverDatagram();
  bool deliverEvent(const nlmsghdr* message);
  void deliverOverrun();

  mnl_socket* socket_;
  Bytes buffer_;
  size_t received_ = 0;
};

}  // namespace vnetd
