// SPDX-License-Identifier: Apache-2.0
/**
 * A packet socket on one device, by which whole frames are sent and received with what the kernel
 * knows of them: a struct virtio_net_hdr in front of each, which says that a checksum is to be
 * filled in, or that it is a super-frame.
 *
 * Sent and received with write(2) and read(2), which Node has.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <string.h>
#include <sys/socket.h>

#include "failure.h"
#include "operations.h"
#include "values.h"

namespace vnetd {

Napi::Value packetSocket(const Napi::CallbackInfo& info) {
  const uint32_t ifindex = toIfindex(info[0], "ifindex");
  const std::string subject = "ifindex " + std::to_string(ifindex);
  // of no protocol: nothing is taken before it is bound
  UniqueFd fd(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) failSystem(errno, subject);
  const int on = 1;
  if (setsockopt(fd.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0) {
    failSystem(errno, subject, "PACKET_VNET_HDR");
  }
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(ifindex);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    failSystem(errno, subject, "bind");
  }
  return Napi::Number::New(info.Env(), fd.release());
}

}  // namespace vnetd
