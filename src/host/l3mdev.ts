// SPDX-License-Identifier: Apache-2.0
/**
 * Whether sockets that are in no VRF get what comes by one. The kernel hands reassembled packets to
 * such a socket (bpf/lib/reassembly.h). It is the machine's setting, and not ours to change: other
 * programs' sockets would be reached from the VRF as well.
 */
import { readFileSync } from "node:fs";

const setting = "/proc/sys/net/ipv4/udp_l3mdev_accept";

export function udpCrossesVrfs(): boolean {
  try {
    return readFileSync(setting, "utf8").trim() !== "0";
  } catch {
    // a kernel without VRFs
    return true;
  }
}
