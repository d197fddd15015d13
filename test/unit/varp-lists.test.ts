// SPDX-License-Identifier: Apache-2.0
/** Lists that come in: what is entered many at a time, what takes the way of single messages, and what is refused. */
import { beforeEach, describe, expect, it } from "vitest";
import { parseAddress } from "../../src/base/address.js";
import { macToBytes } from "../../src/base/mac.js";
import { vnetIdToBytes, type VnetId } from "../../src/base/vnet-id.js";
import type { Context } from "../../src/controller/context.js";
import type { MacBatch } from "../../src/dataplane/control.js";
import { VarpLists } from "../../src/controller/varp-lists.js";
import type { Underlay } from "../../src/controller/underlays.js";
import type { RunningVnet } from "../../src/controller/vnets.js";
import type { VarpMessage } from "../../src/wire/varp.js";
import type { VnetMac } from "../../src/wire/varp-list.js";

const idOf = (n: number): VnetId => `${"0000:".repeat(7)}${n.toString(16).padStart(4, "0")}`;
const running = (n: number, more: object = {}): RunningVnet =>
  ({ id: idOf(n), handle: n, slot: n, vmac: "02:ff:00:00:00:01", ...more }) as RunningVnet;
const vnets = new Map([
  [idOf(1), { running: running(1) }],
  [idOf(2), { running: running(2) }],
  [idOf(5), { running: running(5, { secure: { level: "conf" } }) }],
]);
const mac = (n: number): string => `02:00:00:00:00:${n.toString(16).padStart(2, "0")}`;
const entry = (vnet: number, n: number): VnetMac => ({
  vnet: vnetIdToBytes(idOf(vnet)),
  vmac: macToBytes(mac(n)),
});
const PEER = "10.66.1.66";
const messageOf = (head: VnetMac, change: Partial<VarpMessage> = {}): VarpMessage => ({
  opcode: "announce",
  ...head,
  address: parseAddress(PEER),
  trailing: new Uint8Array(),
  ...change,
});
const own = { ifindex: 3, family: 4, state: { address: "10.66.1.1" } };

let refused: string[];
let entered: { handle: number; macs: number; addr: string }[];
let single: string[];
let resolved: string[];
let answers: string[][];
let sent: string[];
let result: { entered: number; reason: string; here: number[] } | undefined;
let lists: VarpLists;
const underlay = {
  ...own,
  socket: { send: (_: Buffer, to: string) => void sent.push(to) },
} as unknown as Underlay;

beforeEach(() => {
  [refused, entered, single, resolved, answers, sent] = [[], [], [], [], [], []];
  result = undefined;
  const context = {
    control: {
      countDrop: ({ handle, reason }: { handle: number; reason: string }) =>
        void refused.push(`${String(handle)} ${reason}`),
      learnMany: ({ handle, addr }: { handle: number; addr: Buffer }, batch: MacBatch) => {
        const all = Array.from({ length: batch.count }, (_, at) => at);
        const here = all.filter((at) => batch.bytes[at * 16 + 5] === 9);
        const macs = batch.count - here.length;
        entered.push({ handle, macs, addr: addr.subarray(12).join(".") });
        const answer = result ?? { entered: macs, reason: "ok", here };
        batch.count = 0;
        return answer;
      },
    },
    counts: { judged: () => undefined },
    news: { tell: () => undefined },
    log: { say: () => undefined },
  } as unknown as Context;
  lists = new VarpLists(context, {
    vnets: { get: (id: VnetId) => vnets.get(id) } as never,
    underlays: { isOwnAddress: (address) => address === own.state.address },
    isWaitedFor: () => true,
    heard: (_, vmac, isEntered) => void (isEntered && resolved.push(vmac)),
    livesHere: (_, vmac) => vmac === mac(9),
    mayAnswer: () => true,
    message: (_, about) => {
      answers.push(about.map((each) => each.mac));
      return Buffer.alloc(43);
    },
    one: (vnet, _, { vmac }) => void single.push(`${String(vnet.handle)} ${String(vmac[5])}`),
    whyNotAt: () => undefined,
  });
});
const take = (head: VnetMac, others: VnetMac[], change: Partial<VarpMessage> = {}): void =>
  lists.onList(
    underlay,
    messageOf(head, change),
    { of: "macs", groups: others.map(({ vnet, vmac }) => ({ vnet, macs: vmac })) },
    {
      source: PEER,
      onGroup: true,
    },
  );

describe("a list of MACs", () => {
  it("is entered a vnet at a time, what lives here is looked at by itself, what is not here is left out", () => {
    take(entry(1, 1), [entry(1, 2), entry(1, 9), entry(2, 3), entry(7, 4)]);
    expect(entered).toEqual([
      { handle: 1, macs: 2, addr: PEER },
      { handle: 2, macs: 1, addr: PEER },
    ]);
    expect(single).toEqual(["1 9"]);
    expect(resolved).toEqual([mac(1), mac(2), mac(3)]);
    expect(refused).toEqual([]);
  });

  it("with the vnetif's own MAC, a group's or none in it: those are judged by themselves", () => {
    const wrong = ["02:ff:00:00:00:01", "03:00:00:00:00:07", "00:00:00:00:00:00"];
    const others = wrong.map((each) => ({ vnet: vnetIdToBytes(idOf(1)), vmac: macToBytes(each) }));
    take(entry(1, 1), others);
    expect(entered).toEqual([{ handle: 1, macs: 1, addr: PEER }]);
    expect(single.sort()).toEqual(["1 0", "1 1", "1 7"]);
  });

  it("is nothing to a secure vnet, by whichever entry", () => {
    take(entry(5, 1), [entry(5, 2), entry(1, 3)]);
    expect(entered).toEqual([{ handle: 1, macs: 1, addr: PEER }]);
    expect(refused).toEqual(["5 varp_unauthenticated"]);
    take(entry(5, 1), [entry(5, 2)], { opcode: "request" });
    expect(answers).toEqual([]);
    expect(single).toEqual([]);
  });

  it("of which some do not fit into the table is counted for each that does not", () => {
    result = { entered: 1, reason: "refused_host_limit", here: [] };
    take(entry(1, 1), [entry(1, 2), entry(1, 3)]);
    expect(refused).toEqual(["1 refused_host_limit", "1 refused_host_limit"]);
  });

  it("that came from this host, or is of another, is refused once", () => {
    const from = { source: "10.66.1.1", onGroup: true };
    lists.onList(
      underlay,
      messageOf(entry(1, 1)),
      { of: "macs", groups: [{ vnet: entry(1, 2).vnet, macs: entry(1, 2).vmac }] },
      from,
    );
    take(entry(1, 1), [entry(1, 2)], { address: parseAddress("10.66.1.67") });
    expect(refused).toEqual(["1 own_echo", "1 varp_bad_address"]);
    expect(entered).toEqual([]);
  });

  it("that asks is answered to who asked, with what lives here", () => {
    take(entry(1, 1), [entry(2, 9), entry(1, 9)], { opcode: "request" });
    expect(answers).toEqual([[mac(9), mac(9)]]);
    expect(sent).toEqual([PEER]);
  });
});

it("a hello of several vnets is a hello of each that is here and in clear", () => {
  const others = [entry(5, 2), entry(2, 3), entry(7, 4)];
  const from = { source: PEER, onGroup: true };
  lists.onList(underlay, messageOf(entry(1, 1)), { of: "vnets", entries: others }, from);
  expect(single).toEqual(["1 1", "2 3"]);
  expect(refused).toEqual(["5 varp_unauthenticated"]);
});

it("a list that is not what its lengths say is counted, and is what is in front of it", () => {
  lists.onList(
    underlay,
    messageOf(entry(1, 1)),
    { of: "malformed" },
    {
      source: PEER,
      onGroup: true,
    },
  );
  expect(single).toEqual(["1 1"]);
  expect(refused).toEqual(["1 varp_bad_tlv"]);
});
