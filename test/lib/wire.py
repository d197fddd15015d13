#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sends frames out of a device with virtio-net headers, as a VM's tap does, and captures what a
device receives.

Node has no packet sockets. One request as JSON on stdin, one answer on stdout:
  {"device": "vn0", "capture": "ul0w", "quietMs": 200,
   "frames": [{"hex": "...", "gsoType": 1, "gsoSize": 1400, "headerLength": 66,
               "checksumStart": 34, "checksumOffset": 16}]}
  -> {"captured": ["hex", ...]}
Fields of a frame that are not given are zero; checksumStart asks for VIRTIO_NET_HDR_F_NEEDS_CSUM.
"""
import json
import select
import socket
import struct
import sys

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_OUTGOING = 4
NEEDS_CSUM = 1
MAX_CAPTURED = 4096


def sender(device):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    s.bind((device, 0))
    return s


def receiver(device):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    s.bind((device, ETH_P_ALL))
    return s


def packed(frame):
    start = frame.get("checksumStart", 0)
    header = struct.pack(
        "=BBHHHH",
        NEEDS_CSUM if start else 0,
        frame.get("gsoType", 0),
        frame.get("headerLength", 0),
        frame.get("gsoSize", 0),
        start,
        frame.get("checksumOffset", 0),
    )
    return header + bytes.fromhex(frame["hex"])


def main():
    request = json.load(sys.stdin)
    captured = []
    listening = receiver(request["capture"])
    sending = sender(request["device"])
    for frame in request["frames"]:
        sending.send(packed(frame))
    while len(captured) < MAX_CAPTURED:
        ready, _, _ = select.select([listening], [], [], request.get("quietMs", 200) / 1000)
        if not ready:
            break
        data, address = listening.recvfrom(1 << 17)
        if address[2] != PACKET_OUTGOING:
            captured.append(data.hex())
    json.dump({"captured": captured}, sys.stdout)


main()
