# SPDX-License-Identifier: Apache-2.0
"""Sends IPv4 packets as they are, with source addresses of others, as an original forwarder does.

Started by original-host.mjs with this host's address: the device that packets leave by. Each line
of stdin is: DESTINATION PACKET-IN-HEX. The kernel fills in the header's checksum, and the id where
it is 0. What goes to the group comes back to this host, as it did to the original.
"""
import socket
import sys

own = sys.argv[1]
out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
for line in sys.stdin:
    destination, packet_hex = line.split()
    out.sendto(bytes.fromhex(packet_hex), (destination, 0))
