#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Taps as a hypervisor opens them for VMs (IFF_VNET_HDR, offloads on), each in a network namespace, on a
bridge there; sends frames with virtio-net headers out of them and returns what comes.

One request as JSON on stdin, one answer on stdout:
  {"taps": [{"netns": "/run/netns/a", "device": "tap0", "bridge": "vnet97", "offload": ["csum", "tso4"]}],
   "watch": [{"netns": "/run/netns/b", "device": "eth0"}],
   "frames": [{"tap": 0, "awaited": true, "hex": "...", "gsoType": 1, "gsoSize": 1400,
               "headerLength": 66, "checksumStart": 34, "checksumOffset": 16}],
   "quietMs": 200}
  -> {"taps": [{"offload": [...], "frames": [{"hex": "...", "needsChecksum": false, "gsoType": 0, ...}]}],
      "watched": [["hex", ...]]}
A device that is there already is not made: without "bridge" the tap is a plain interface. After a frame
that is "awaited" nothing more is sent until one has come at another tap. Offloads that the kernel
does not know are left out of the answer. A watched device gives what it receives.
"""
import ctypes
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
# include/uapi/linux/if_tun.h: what the side of the VM takes
OFFLOADS = {"csum": 1, "tso4": 2, "tso6": 4, "ecn": 8, "uso4": 0x20, "uso6": 0x40}
NEEDS_CSUM = 1
HEADER = "=BBHHHH"
HEADER_LENGTH = struct.calcsize(HEADER)
LARGEST = 1 << 17
ETH_P_ALL = 3
PACKET_OUTGOING = 4
CLONE_NEWNET = 0x40000000
AWAIT_SECONDS = 10 * float(os.environ.get("VNETD_TIME_FACTOR", "1"))

libc = ctypes.CDLL(None, use_errno=True)


def enter(netns):
    with open(netns) as f:
        if libc.setns(f.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns " + netns)


def ip(*args):
    subprocess.run(["ip", *args], check=True)


def accept(fd, wanted):
    """Sets the offloads; USO is unknown to kernels before 6.2, which refuse all then."""
    for names in (wanted, [name for name in wanted if not name.startswith("uso")]):
        try:
            fcntl.ioctl(fd, TUNSETOFFLOAD, sum(OFFLOADS[name] for name in names))
            return names
        except OSError:
            if names == []:
                raise
    raise OSError("the tap takes no offloads: " + " ".join(wanted))


class Tap:
    def __init__(self, spec):
        enter(spec["netns"])
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
        fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH", spec["device"].encode(), flags))
        fcntl.ioctl(self.fd, TUNSETVNETHDRSZ, struct.pack("i", HEADER_LENGTH))
        self.offload = accept(self.fd, spec.get("offload", []))
        mtu = ["mtu", str(spec["mtuBytes"])] if "mtuBytes" in spec else []
        master = ["master", spec["bridge"]] if "bridge" in spec else []
        # nothing of the host's own may mix with the frames
        ip("link", "set", spec["device"], "addrgenmode", "none")
        ip("link", "set", spec["device"], *mtu, *master, "up")
        self.frames = []

    def send(self, frame):
        start = frame.get("checksumStart", 0)
        header = struct.pack(
            HEADER,
            NEEDS_CSUM if start else 0,
            frame.get("gsoType", 0),
            frame.get("headerLength", 0),
            frame.get("gsoSize", 0),
            start,
            frame.get("checksumOffset", 0),
        )
        os.write(self.fd, header + bytes.fromhex(frame["hex"]))

    def receive(self):
        data = os.read(self.fd, LARGEST)
        flags, gso_type, header_length, gso_size, start, offset = struct.unpack_from(HEADER, data)
        self.frames.append(
            {
                "hex": data[HEADER_LENGTH:].hex(),
                "needsChecksum": bool(flags & NEEDS_CSUM),
                "gsoType": gso_type,
                "gsoSize": gso_size,
                "headerLength": header_length,
                "checksumStart": start,
                "checksumOffset": offset,
            }
        )

    def fileno(self):
        return self.fd


class Watch:
    def __init__(self, spec):
        enter(spec["netns"])
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 25)  # SO_RCVBUFFORCE
        self.socket.bind((spec["device"], ETH_P_ALL))
        self.packets = []

    def receive(self):
        data, address = self.socket.recvfrom(LARGEST)
        if address[2] != PACKET_OUTGOING:
            self.packets.append(data.hex())

    def fileno(self):
        return self.socket.fileno()


def drain(sources, seconds):
    """Takes what comes until nothing has for so long; True if anything did."""
    any_came = False
    while True:
        ready, _, _ = select.select(sources, [], [], seconds)
        if not ready:
            return any_came
        any_came = True
        for source in ready:
            source.receive()


def main():
    request = json.load(sys.stdin)
    taps = [Tap(spec) for spec in request["taps"]]
    watches = [Watch(spec) for spec in request.get("watch", [])]
    sources = [*taps, *watches]
    for frame in request["frames"]:
        sender = taps[frame["tap"]]
        others = [tap for tap in taps if tap is not sender]
        before = sum(len(tap.frames) for tap in others)
        sender.send(frame)
        deadline = time.monotonic() + AWAIT_SECONDS
        while frame.get("awaited") and sum(len(tap.frames) for tap in others) == before:
            if time.monotonic() > deadline:
                raise SystemExit("a frame that was awaited did not come: " + frame["hex"][:64])
            drain(sources, 0.01)
        drain(sources, 0)
    drain(sources, request.get("quietMs", 200) / 1000)
    answer = {
        "taps": [{"offload": tap.offload, "frames": tap.frames} for tap in taps],
        "watched": [watch.packets for watch in watches],
    }
    json.dump(answer, sys.stdout)


main()
