#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A short transfer whose every byte is known: TCP, and UDP super-frames (UDP_SEGMENT).

  transfer.py receive            says "ready", takes one TCP connection on port 7000, and then says
                                 how many bytes came and the first that is wrong
  transfer.py send ADDRESS BYTES
  transfer.py receive-datagrams COUNT    on port 7001; says the length of each, and "wrong" of those
                                         whose bytes are not what was sent
  transfer.py send-datagrams ADDRESS SEGMENT SUPER TIMES
"""
import os
import socket
import sys

SOL_UDP = 17
UDP_SEGMENT = 103
SO_RCVBUFFORCE = 33
WAIT_SECONDS = 10 * float(os.environ.get("VNETD_TIME_FACTOR", "1"))
# a prime number of bytes: no piece of any usual size begins like another
PATTERN = bytes((i * 7 ^ i >> 8) & 0xFF for i in range(65521)) * 3


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def expected(at, length):
    return PATTERN[at % 65521 : at % 65521 + length]


def receive():
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::", 7000))
    listener.listen(1)
    listener.settimeout(WAIT_SECONDS)
    print("ready", flush=True)
    connection, _ = listener.accept()
    connection.settimeout(WAIT_SECONDS)
    at = 0
    while data := connection.recv(65536):
        if data != expected(at, len(data)):
            print(f"wrong {at}")
            return
        at += len(data)
    print(f"bytes {at}")


def send(address, length):
    connection = socket.socket(family(address))
    connection.settimeout(WAIT_SECONDS)
    connection.connect((address, 7000))
    for at in range(0, length, 65536):
        connection.sendall(expected(at, min(65536, length - at)))


def receive_datagrams(count):
    receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
    receiver.bind(("::", 7001))
    receiver.settimeout(WAIT_SECONDS)
    print("ready", flush=True)
    for _ in range(count):
        data = receiver.recv(65536)
        at = int.from_bytes(data[:4], "big")
        right = data[4:] == expected(at, len(data) - 4)
        print(len(data) if right else f"wrong {at}", flush=True)


def send_datagrams(address, segment, super_bytes, times):
    sender = socket.socket(family(address), socket.SOCK_DGRAM)
    sender.setsockopt(SOL_UDP, UDP_SEGMENT, segment)
    sender.connect((address, 7001))
    at = 0
    for _ in range(times):
        parts = []
        for start in range(0, super_bytes, segment):
            length = min(segment, super_bytes - start)
            parts.append(at.to_bytes(4, "big") + expected(at, length - 4))
            at += 1
        sender.send(b"".join(parts))


COMMANDS = {
    "receive": receive,
    "send": send,
    "receive-datagrams": receive_datagrams,
    "send-datagrams": send_datagrams,
}
COMMANDS[sys.argv[1]](*(int(a) if a.isdigit() else a for a in sys.argv[2:]))
