// SPDX-License-Identifier: Apache-2.0
/**
 * Questions whether packets arrive (src/wire/ask.ts): those of others are answered at a limited rate, by unicast
 * to where they came from or to the group; those of this host are put by `vnetd doctor`. They change nothing
 * of what is known of hosts, and an answer says nothing but that it came.
 */
import { randomBytes } from "node:crypto";
import dgram from "node:dgram";
import { familyOfText, parseAddress } from "../base/address.js";
import { macToBytes, type Mac } from "../base/mac.js";
import { vnetIdToBytes } from "../base/vnet-id.js";
import { isFresh, isLocal, nowNs } from "../dataplane/tables.js";
import { errnoName } from "../host/errno.js";
import { TokenBucket } from "../varp/token-bucket.js";
import { askOf, askTokenBytes, encodeAsk, type Ask } from "../wire/ask.js";
import { encodeVarp, type VarpMessage } from "../wire/varp.js";
import { nowMs, type Context } from "./context.js";
import { refuse } from "./refusals.js";
import type { Underlay } from "./underlays.js";
import type { RunningVnet } from "./vnets.js";

const answersPerSecond = { perSecond: 200, burst: 400 };
/** of questions that wait for answers */
const maxWaiting = 4096;
/** the kernel hands errors about packets from these ports to the socket (bpf/lib/path_icmp.h) */
const firstPort = 20_000;
const ports = 12_000;

export interface AskAnswer {
  source: string;
  onGroup: boolean;
  /** of the answering host, milliseconds since 1970 */
  clockMs: number;
  /** whether the MAC that it was asked for lives there; undefined: it does not say */
  isHere: boolean | undefined;
}

/** How a question is put. */
export interface Question {
  underlay: Underlay;
  /** a vnet that who is to answer has as well */
  vnet: RunningVnet;
  /** left out: the group */
  to?: string;
  /** of the whole IP packet; left out: as small as it is */
  packetBytes?: number;
  /** the answer is to come by the group */
  byGroup?: boolean;
  /** whether this lives there is asked as well; of secure vnets nobody says */
  mac?: Mac;
  onAnswer: (answer: AskAnswer) => void;
}

/** Asks by packets that are never in fragments. */
export interface WholeSocket {
  /** as Asks.ask() */
  ask: (question: Question & { to: string }) => string;
  /** what the kernel said of a packet that did not leave, or did not arrive: errno's name */
  error: () => string;
  close: () => void;
}

const headerBytes = { 4: 28, 6: 48 } as const;

export class Asks {
  private readonly answers = new TokenBucket(answersPerSecond);
  private readonly waiting = new Map<string, (answer: AskAnswer) => void>();

  constructor(private readonly context: Context) {}

  /** False: it is no question and no answer. */
  onAnnounce(
    vnet: RunningVnet,
    underlay: Underlay,
    message: VarpMessage,
    { source, onGroup }: { source: string; onGroup: boolean },
  ): boolean {
    const ask = askOf(Buffer.from(message.trailing));
    if (ask === undefined) return false;
    if (ask.kind === "answer") {
      const { clockMs, isHere } = ask;
      this.waiting.get(ask.token)?.({ source, onGroup, clockMs, isHere });
      return true;
    }
    if (!this.answers.take(nowMs())) {
      refuse(this.context, vnet, "varp_rate", message);
      return true;
    }
    const { token, mac } = ask;
    // a question has no mac: who is in a secure vnet is told to no stranger
    const told = mac !== undefined && vnet.secure === undefined;
    const isHere = told ? { isHere: this.livesHere(vnet, mac) } : {};
    const answer: Ask = { kind: "answer", token, clockMs: Date.now(), ...isHere };
    const bytes = this.messageOf(vnet, underlay, answer);
    if (bytes === undefined) return true;
    if (ask.byGroup) underlay.socket?.sendToGroup(bytes);
    else underlay.socket?.send(bytes, source);
    return true;
  }

  /** Until forget() the answers come to onAnswer. */
  ask(question: Question): string {
    const { underlay, to } = question;
    const { token, bytes } = this.prepare(question);
    if (bytes === undefined) return token;
    if (to === undefined) underlay.socket?.sendToGroup(bytes);
    else underlay.socket?.send(bytes, to);
    return token;
  }

  forget(token: string): void {
    this.waiting.delete(token);
  }

  /** A socket of its own, so that what routers say of its packets comes to it alone. */
  wholeSocket({ device, state }: Underlay, to: string): WholeSocket {
    const { native, config } = this.context;
    const { address } = state;
    if (address === null) throw new Error(`${device} has no address`);
    const port = firstPort + (randomBytes(2).readUInt16BE() % ports);
    const fd = native.udpSocket({ device, address, port, multicastTtl: 1, dontFragment: true });
    const type = familyOfText(address) === 4 ? "udp4" : "udp6";
    const socket = dgram.createSocket({
      type,
      lookup: (text, _options, done) => done(null, text, familyOfText(text)),
    });
    let said = "";
    const note = (error: Error | null): void => {
      if (error !== null) said = errnoName(error);
    };
    socket.on("error", note);
    const ready = new Promise<void>((resolve) => {
      socket.bind({ fd, exclusive: true }, () => socket.connect(config.port, to, resolve));
    });
    return {
      ask: (question) => {
        const { token, bytes } = this.prepare(question);
        if (bytes !== undefined) void ready.then(() => socket.send(bytes, note));
        return token;
      },
      error: () => said,
      close: () => socket.close(),
    };
  }

  private livesHere({ slot, handle }: RunningVnet, mac: Mac): boolean {
    const { maps } = this.context;
    const record = maps.vnet(slot);
    const entry = maps.fdbEntry({ handle, mac: macToBytes(mac) });
    return (
      record !== undefined &&
      entry !== undefined &&
      isLocal(entry) &&
      isFresh(entry, record, nowNs())
    );
  }

  private prepare({ vnet, underlay, packetBytes, byGroup, mac, onAnswer }: Question): {
    token: string;
    bytes: Buffer | undefined;
  } {
    const token = randomBytes(askTokenBytes).toString("hex");
    if (this.waiting.size >= maxWaiting) throw new Error("too many questions wait for answers");
    this.waiting.set(token, onAnswer);
    const of = mac === undefined || vnet.secure !== undefined ? {} : { mac };
    const ask: Ask = { kind: "question", token, byGroup: byGroup === true, ...of };
    const message = this.messageOf(vnet, underlay, ask);
    if (message === undefined || packetBytes === undefined) return { token, bytes: message };
    const padded = Buffer.alloc(
      Math.max(message.length, packetBytes - headerBytes[underlay.family]),
    );
    message.copy(padded);
    return { token, bytes: padded };
  }

  /** undefined: the place has no address */
  private messageOf(vnet: RunningVnet, { state }: Underlay, ask: Ask): Buffer | undefined {
    if (state.address === null) return undefined;
    return encodeVarp(
      {
        opcode: "announce",
        vnet: vnetIdToBytes(vnet.id),
        vmac: macToBytes(vnet.vmac),
        address: parseAddress(state.address),
      },
      encodeAsk(ask),
    );
  }
}
