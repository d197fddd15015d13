// SPDX-License-Identifier: Apache-2.0
/**
 * The UDP socket of one underlay device: VARP messages leave by it, from the device's address and
 * the protocol's port, TTL 1 to the group. There is one for each place of the underlay. Messages come in through BPF, not here; but
 * for questions of `vnetd doctor` that are in fragments, what the socket receives nevertheless is read and dropped.
 */
import dgram from "node:dgram";
import { familyOfText } from "../base/address.js";
import { errnoName } from "../host/errno.js";
import type { Log } from "../log.js";
import { nowMs } from "./context.js";
import type { Native } from "../native/contract.js";

export interface VarpSocketOptions {
  device: string;
  ifindex: number;
  address: string;
  group: string;
  port: number;
}

/** What waits to be sent is bounded; beyond it messages are lost, as on a full wire, and counted. */
const maxQueuedBytes = 256 << 10;
/** the same before the socket is bound, which takes a turn of the event loop */
const maxWaiting = 1024;

export interface VarpSocketParts {
  native: Pick<Native, "udpSocket">;
  log: Log;
  /** a message was lost because too many wait */
  overflowed: (bytes: number) => void;
  /** what came by the kernel's stack, not through BPF: messages in fragments */
  received?: (message: Buffer, source: string) => void;
}

export class VarpSocket {
  private readonly socket: dgram.Socket;
  private closed = false;
  private readonly waiting: (() => void)[] = [];
  private ready = false;
  /** the last message that the kernel refused to send: errno's name, and when */
  refused: { errno: string; address: string; atMs: number } | undefined;

  constructor(
    private readonly parts: VarpSocketParts,
    private readonly options: VarpSocketOptions,
  ) {
    const { native, log } = parts;
    const { device, address, port } = options;
    const family = familyOfText(address);
    // Addresses are numbers here; without a look-up a message leaves before send() returns.
    this.socket = dgram.createSocket({
      type: family === 4 ? "udp4" : "udp6",
      lookup: (text, _options, done) => done(null, text, family),
    });
    const fd = native.udpSocket({ device, address, port, multicastTtl: 1 });
    this.socket.on("error", (error) => {
      log.say("varp_socket_failed", `${device}: VARP socket: ${error.message}`, {
        device,
        reason: error.message,
      });
    });
    this.socket.on("message", (message, { address: source }) => {
      // a link-local address has its device behind it
      parts.received?.(message, source.replace(/%.*$/u, ""));
    });
    this.socket.bind({ fd, exclusive: true }, () => {
      this.ready = true;
      this.socket.setMulticastLoopback(false);
      for (const send of this.waiting.splice(0)) send();
    });
  }

  isFor(wanted: { ifindex: number; address: string | null; group: string; port: number }): boolean {
    const { ifindex, address, group, port } = this.options;
    const samePlace = ifindex === wanted.ifindex && address === wanted.address;
    return !this.closed && samePlace && group === wanted.group && port === wanted.port;
  }

  sendToGroup(message: Buffer): void {
    this.send(message, this.options.group);
  }

  send(message: Buffer, address: string, port = this.options.port): void {
    if (this.closed) return;
    if (!this.ready) {
      if (this.waiting.length >= maxWaiting) return this.parts.overflowed(message.length);
      this.waiting.push(() => this.send(message, address, port));
      return;
    }
    if (this.socket.getSendQueueSize() > maxQueuedBytes)
      return this.parts.overflowed(message.length);
    this.socket.send(message, port, address, (error) => {
      if (error === null) return;
      this.refused = { errno: errnoName(error), address, atMs: nowMs() };
      const { device } = this.options;
      const reason = errnoName(error);
      const fields = { device, host: address, reason };
      this.parts.log.say("varp_not_sent", `${device}: VARP to ${address}: ${reason}`, fields);
    });
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.socket.close();
  }
}
