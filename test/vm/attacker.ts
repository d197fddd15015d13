// SPDX-License-Identifier: Apache-2.0
/**
 * A machine on the LAN that no daemon runs on: hears what its switch port hears, and sends any bytes with any source
 * address. What a member can do it does when it is given the vnet's secret.
 */
import { randomBytes } from "node:crypto";
import { parseAddress } from "../../src/base/address.js";
import { signHello } from "../../src/keys/hello-auth.js";
import type { VnetSecrets } from "../../src/keys/messages.js";
import {
  decodeHello,
  encodeHello,
  encodeKeyMessage,
  keyMessageOf,
  type Hello,
} from "../../src/wire/hello.js";
import { decodeVarp, encodeVarp } from "../../src/wire/varp.js";
import { decodeMessage, type Message } from "../../src/keys/messages.js";
import { macText, vnetBytes } from "../lib/bytes.js";
import type { Background, Capture, Host, Lab } from "../lib/lab.js";
import { packet, VNETD_GROUP, VNETD_GROUP_MAC, type PacketBuilder } from "../lib/packet.js";
import { python } from "../lib/wire.js";

const espProtocol = 50;
/** of the vnetif that its hellos announce */
export const strangeMac = "02:66:66:66:66:00";

/** Sends frames in hex, one a line of a file: once, or again and again at a pace until it is stopped. */
const sender = `
import socket, sys, time
frames = [bytes.fromhex(line) for line in open(sys.argv[1])]
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
out.bind(("eth0", 0))
perSecond = int(sys.argv[2])
while True:
    for at, frame in enumerate(frames):
        try:
            out.send(frame)
        except OSError:
            time.sleep(0.01)
        if perSecond and at % 20 == 0:
            time.sleep(20 / perSecond)
    if not perSecond:
        break
`;

export class Attacker {
  private constructor(
    private readonly lab: Lab,
    readonly host: Host,
    readonly address: string,
    readonly mac: string,
    private readonly target: { address: string; mac: string },
  ) {}

  /** At `address`; sends to `target` when nothing else is said. */
  static async join(
    lab: Lab,
    address: string,
    target: { host: Host; address: string },
  ): Promise<Attacker> {
    const host = await lab.host("m", { underlay: `${address}/24` });
    const mac = await target.host.mac();
    return new Attacker(lab, host, address, await host.mac(), { address: target.address, mac });
  }

  /** Up to the outer IPv4 header; the frame has this machine's MAC, so that the switch is not confused. */
  private outer(source: string, protocol: number, toGroup: boolean): PacketBuilder {
    return packet()
      .eth({ src: this.mac, dst: toGroup ? VNETD_GROUP_MAC : this.target.mac })
      .ipv4({ src: source, dst: toGroup ? VNETD_GROUP : this.target.address, protocol, ttl: 64 });
  }

  /** A datagram to 1798. */
  datagram(payload: Uint8Array, source: string = this.address, toGroup = false): Buffer {
    return this.outer(source, 17, toGroup).udp({ src: 1798, dst: 1798 }).payload(payload).build();
  }

  esp(esp: Uint8Array, source: string = this.address): Buffer {
    return this.outer(source, espProtocol, false).payload(esp).build();
  }

  async send(...frames: readonly Buffer[]): Promise<void> {
    await this.host.exec([...python, "-c", sender, this.file(frames), "0"]);
  }

  /** Until it is stopped. */
  flood(frames: readonly Buffer[], perSecond: number): Background {
    return this.host.spawn([...python, "-c", sender, this.file(frames), String(perSecond)]);
  }

  private file(frames: readonly Buffer[]): string {
    return this.lab.file("frames", frames.map((frame) => frame.toString("hex")).join("\n"));
  }
}

interface Said {
  vnet: string;
  /** that it announces */
  address: string;
  vmac?: string;
  hostId?: string;
  more?: Partial<Hello>;
}

/** Of a host that may not exist; with secrets, signed as a member's. */
export function helloMessage(
  { vnet, address, vmac = strangeMac, hostId, more }: Said,
  signed?: { secrets: VnetSecrets; suiteId: number },
): Buffer {
  const hello: Hello = {
    hostId: hostId ?? randomBytes(16).toString("hex"),
    bootNonce: randomBytes(8).toString("hex"),
    capabilities: 0,
    underlayMtuBytes: 1500,
    hostName: "stranger",
    software: "none",
    ...{ solicit: false, goodbye: false },
    ...more,
  };
  const message = varpMessage({ opcode: "announce", vnet, vmac, address }, encodeHello(hello));
  return signed === undefined ? message : signHello(message, [signed.secrets], signed.suiteId);
}

export function varpMessage(
  {
    opcode,
    vnet,
    vmac,
    address,
  }: { opcode: "request" | "announce"; vnet: string; vmac: string; address: string },
  trailing?: Uint8Array,
): Buffer {
  const mac = Buffer.from(vmac.replaceAll(":", ""), "hex");
  return encodeVarp(
    { opcode, vnet: vnetBytes(vnet), vmac: mac, address: parseAddress(address) },
    trailing,
  );
}

/** A message about keys as it travels. `bytes` need not be one. */
export function keysMessage(vnet: string, address: string, bytes: Buffer): Buffer {
  const announce = { opcode: "announce", vnet, vmac: strangeMac, address } as const;
  return varpMessage(announce, encodeKeyMessage(bytes));
}

/** Something of a host of ours that somebody recorded. */
export interface Recorded {
  /** of the machine that sent it, whatever the address says */
  mac: string;
  source: string;
  destination: string;
  /** what follows the IP header */
  esp?: Buffer;
  /** what follows the UDP header */
  payload?: Buffer;
  hello?: Hello;
  keys?: Message;
}

/** Of the IPv4 packets in a capture what is ESP or to 1798. */
export function recorded(capture: Capture): Recorded[] {
  return capture.packets.flatMap(({ data }): Recorded[] => {
    if (data.readUInt16BE(12) !== 0x0800) return [];
    const address = (at: number): string => data.subarray(at, at + 4).join(".");
    const ends = {
      ...{ mac: macText(data.subarray(6, 12)) },
      ...{ source: address(26), destination: address(30) },
    };
    const body = data.subarray(34, 14 + data.readUInt16BE(16));
    if (data[23] === espProtocol) return [{ ...ends, esp: Buffer.from(body) }];
    if (data[23] !== 17 || body.readUInt16BE(2) !== 1798) return [];
    const payload = Buffer.from(body.subarray(8));
    const varp = decodeVarp(payload);
    if (!varp.ok) return [{ ...ends, payload }];
    const trailing = Buffer.from(varp.message.trailing);
    const bytes = keyMessageOf(trailing);
    const keys = bytes === undefined ? undefined : decodeMessage(bytes);
    const hello = decodeHello(trailing);
    return [
      {
        ...{ ...ends, payload },
        ...(keys === undefined ? {} : { keys }),
        ...(hello.ok ? { hello: hello.hello } : {}),
      },
    ];
  });
}
