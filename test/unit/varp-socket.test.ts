// SPDX-License-Identifier: Apache-2.0
/** The daemon's UDP socket: what it sends waits in a bounded queue, and what does not fit is counted. */
import dgram from "node:dgram";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { VarpSocket } from "../../src/controller/varp-socket.js";

const message = Buffer.alloc(43, 1);
/** stands in for the kernel: what has left, and how much of it waits */
let left: Buffer[];
let queuedBytes: number;
let bound: () => void;
let overflowed: number[];

beforeEach(() => {
  [left, overflowed, queuedBytes] = [[], [], 0];
  vi.spyOn(dgram, "createSocket").mockReturnValue({
    on: () => undefined,
    bind: (_options: unknown, done: () => void) => void (bound = done),
    setMulticastLoopback: () => undefined,
    getSendQueueSize: () => queuedBytes,
    send: (bytes: Buffer) => void left.push(bytes),
    close: () => undefined,
  } as unknown as dgram.Socket);
});
afterEach(() => vi.restoreAllMocks());

const open = (): VarpSocket =>
  new VarpSocket(
    {
      native: { udpSocket: () => 99 },
      log: { say: () => undefined },
      overflowed: (bytes) => void overflowed.push(bytes),
    },
    { device: "eth0", ifindex: 2, address: "192.0.2.1", group: "224.10.0.1", port: 1798 },
  );

describe("a message that finds no room", () => {
  it("is counted where the socket sends no more", () => {
    const socket = open();
    bound();
    socket.sendToGroup(message);
    queuedBytes = (256 << 10) + 1;
    socket.sendToGroup(message);
    socket.send(Buffer.alloc(100), "192.0.2.2");
    expect(left).toHaveLength(1);
    expect(overflowed).toEqual([43, 100]);
    queuedBytes = 0;
    socket.sendToGroup(message);
    expect(left).toHaveLength(2);
    expect(overflowed).toHaveLength(2);
  });

  it("is counted before the socket is bound, and what waited leaves then", () => {
    const socket = open();
    for (let i = 0; i < 1026; i++) socket.sendToGroup(message);
    expect(left).toEqual([]);
    expect(overflowed).toEqual([43, 43]);
    bound();
    expect(left).toHaveLength(1024);
  });

  it("is none when the socket is closed: its device is gone", () => {
    const socket = open();
    socket.close();
    socket.sendToGroup(message);
    bound();
    expect([left, overflowed]).toEqual([[], []]);
  });
});
