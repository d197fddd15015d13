#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Packet sockets, which Node has none of, in the namespace that it runs in.

One request as JSON a line on stdin, one answer a line on stdout:
  {"op": "listen", "device": "eth0", "cooked": true}  -> {"listening": 1}; cooked: from the IP header on
  {"op": "read", "listening": 1, "count": 3, "timeoutMs": 1000}
      -> {"packets": [{"hex": "...", "mark": 0, "outgoing": false}, ...]}
  {"op": "count", "listening": 1, "at": 28, "quietMs": 500}  -> {"numbers": [of 4 bytes at that place]}
  {"op": "send", "device": "vn-esp5", "packets": ["..."], "mark": 1}    IP packets, as bpf_redirect gives them
  {"op": "frames", "device": "eth0", "frames": ["..."]}      whole frames
  {"op": "flood", "device": "vn-esp5", "packet": "...", "mark": 1, "at": 28, "count": 1000, "gapUs": 50}
      each with its number at that place; answers {"sent": ..., "seconds": ...} when all are sent
"""
import json
import select
import socket
import sys
import time

ETH_P_ALL = 3
SO_RCVMARK = 75
SO_MARK = 36
SO_RCVBUFFORCE = 33
PACKET_OUTGOING = 4

listening = []


def protocol(packet):
    return 0x86DD if packet[0] >> 4 == 6 else 0x0800


def listen(request):
    kind = socket.SOCK_DGRAM if request.get("cooked") else socket.SOCK_RAW
    s = socket.socket(socket.AF_PACKET, kind, socket.htons(ETH_P_ALL))
    s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 27)
    s.setsockopt(socket.SOL_SOCKET, SO_RCVMARK, 1)
    s.bind((request["device"], ETH_P_ALL))
    listening.append(s)
    return {"listening": len(listening) - 1}


def receive(s, timeout):
    if not select.select([s], [], [], timeout)[0]:
        return None
    data, ancillary, _, address = s.recvmsg(1 << 17, 64)
    mark = 0
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_MARK:
            mark = int.from_bytes(value, sys.byteorder)
    return {"data": data, "mark": mark, "outgoing": address[2] == PACKET_OUTGOING}


def read(request):
    packets = []
    deadline = time.monotonic() + request["timeoutMs"] / 1000
    while len(packets) < request["count"]:
        packet = receive(listening[request["listening"]], max(0, deadline - time.monotonic()))
        if packet is None:
            break
        packets.append({**packet, "data": None, "hex": packet["data"].hex()})
    return {"packets": packets}


def count(request):
    numbers, at = [], request["at"]
    while True:
        packet = receive(listening[request["listening"]], request["quietMs"] / 1000)
        if packet is None:
            return {"numbers": numbers}
        if not packet["outgoing"] and len(packet["data"]) >= at + 4:
            numbers.append(int.from_bytes(packet["data"][at : at + 4], "big"))


def send(request):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    s.setsockopt(socket.SOL_SOCKET, SO_MARK, request["mark"])
    for packet in map(bytes.fromhex, request["packets"]):
        s.sendto(packet, (request["device"], protocol(packet)))
    return {}


def frames(request):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.bind((request["device"], 0))
    for frame in request["frames"]:
        s.send(bytes.fromhex(frame))
    return {}


def flood(request):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    s.setsockopt(socket.SOL_SOCKET, SO_MARK, request["mark"])
    packet = bytearray.fromhex(request["packet"])
    to, at = (request["device"], protocol(packet)), request["at"]
    began = time.monotonic()
    due = began
    for number in range(request["count"]):
        packet[at : at + 4] = number.to_bytes(4, "big")
        s.sendto(packet, to)
        due += request["gapUs"] / 1e6
        while time.monotonic() < due:
            pass
    return {"sent": request["count"], "seconds": time.monotonic() - began}


operations = {f.__name__: f for f in (listen, read, count, send, frames, flood)}
for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps(operations[asked["op"]](asked)), flush=True)
