#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Streams in which every loss shows: numbered datagrams, and a TCP connection whose sender says what it sent again.

  streams.py receive             UDP and TCP on port 7002
  streams.py send ADDRESS MS     a datagram each MS milliseconds, and 16 KiB by TCP as often

Both say "ready", and then ten times a second how it stands, in a line of JSON, until they are killed.
"""
import json
import select
import socket
import struct
import sys
import time

PORT = 7002
SO_RCVBUFFORCE = 33
CHUNK = bytes(16384)
# of struct tcp_info
TOTAL_RETRANS, DSACK_DUPS, TCP_INFO_BYTES = 100, 216, 232


class Report:
    def __init__(self, facts):
        self.facts, self.due = facts, time.monotonic()

    def say(self):
        if time.monotonic() < self.due:
            return
        self.due = time.monotonic() + 0.1
        print(json.dumps(self.facts()), flush=True)


def receive():
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
    datagrams.bind(("0.0.0.0", PORT))
    listener = socket.socket()
    listener.bind(("0.0.0.0", PORT))
    listener.listen(1)
    seen, state = set(), {"highest": -1, "bytes": 0, "stall": 0.0, "last": None}

    def facts():
        return {
            "highest": state["highest"],
            "lost": state["highest"] + 1 - len(seen),
            "bytes": state["bytes"],
            "stallSeconds": state["stall"],
        }

    print("ready", flush=True)
    connection, _ = listener.accept()
    report = Report(facts)
    while True:
        ready, _, _ = select.select([datagrams, connection], [], [], 0.1)
        report.say()
        if datagrams in ready:
            number = int.from_bytes(datagrams.recv(64), "big")
            seen.add(number)
            state["highest"] = max(state["highest"], number)
        if connection in ready:
            data = connection.recv(1 << 18)
            if not data:
                return
            now = time.monotonic()
            if state["last"] is not None:
                state["stall"] = max(state["stall"], now - state["last"])
            state["last"] = now
            state["bytes"] += len(data)


def send(address, milliseconds):
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.connect((address, PORT))
    connection = socket.create_connection((address, PORT))
    connection.setblocking(False)
    number, due = 0, time.monotonic()

    def facts():
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
        again = struct.unpack_from("=I", info, TOTAL_RETRANS)[0]
        # what the receiver says that it had already was not lost
        needless = struct.unpack_from("=I", info, DSACK_DUPS)[0]
        return {"sent": number, "again": again, "needless": needless}

    print("ready", flush=True)
    report = Report(facts)
    while True:
        time.sleep(max(0.0, due - time.monotonic()))
        report.say()
        due = max(due + milliseconds / 1000, time.monotonic() - 1)
        try:
            datagrams.send(number.to_bytes(8, "big"))
            number += 1
        except (BlockingIOError, ConnectionRefusedError):
            pass
        try:
            connection.send(CHUNK)
        except BlockingIOError:
            pass


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive()
    else:
        send(sys.argv[2], float(sys.argv[3]))
