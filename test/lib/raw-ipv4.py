# SPDX-License-Identifier: Apache-2.0
"""Sends UDP datagrams with a source address that is not this host's, as an original forwarder does.

Started by original-host.mjs with this host's address: the device that packets leave by. Each line
of stdin is: SOURCE DESTINATION TTL PAYLOAD-IN-HEX. The kernel gives each packet its id and checksum.
"""
import socket
import struct
import sys

PORT = 1798

own = sys.argv[1]
out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
for line in sys.stdin:
    source, destination, ttl, payload_hex = line.split()
    payload = bytes.fromhex(payload_hex)
    udp = struct.pack("!4H", PORT, PORT, 8 + len(payload), 0)
    header = struct.pack(
        "!2B3H2BH4s4s",
        0x45,
        0,
        28 + len(payload),
        0,
        0,
        int(ttl),
        17,
        0,
        socket.inet_aton(source),
        socket.inet_aton(destination),
    )
    out.sendto(header + udp + payload, (destination, 0))
