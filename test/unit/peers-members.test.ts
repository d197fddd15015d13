// SPDX-License-Identifier: Apache-2.0
/**
 * Members that are sent to one by one (src/controller/peers.ts): a host that is alone has nothing of them in its maps and reads none,
 * and the first of them, and the last, must change that all the same. The maps are made up.
 */
import { setImmediate as turn } from "node:timers/promises";
import { beforeEach, describe, expect, it } from "vitest";
import { addressToText } from "../../src/base/address.js";
import { daemonConfigDefaults } from "../../src/config/daemon-config.js";
import type { Context } from "../../src/controller/context.js";
import type { UnicastMember } from "../../src/controller/peer-places.js";
import { Peers } from "../../src/controller/peers.js";
import type { Underlays } from "../../src/controller/underlays.js";
import { Maps } from "../../src/dataplane/maps.js";
import {
  VnetdMeta,
  decodeVnetdMember,
  decodeVnetdMeta,
  decodeVnetdMemberKey,
} from "../../src/generated/layouts.js";
import type { Native } from "../../src/native/contract.js";

const fds = { meta: 1, unicast_members: 2, peers: 3 };

/** by key in hex */
let entries: Map<number, Map<string, Buffer>>;
let dumped: number;
let members: UnicastMember[];
let peers: Peers;

const of = (fd: number): Map<string, Buffer> => {
  const map = entries.get(fd);
  if (map === undefined) throw new Error(`no map ${String(fd)}`);
  return map;
};

const native = {
  mapLookup: (fd: number, key: Buffer) => of(fd).get(key.toString("hex")),
  mapUpdate: (fd: number, key: Buffer, value: Buffer) =>
    void of(fd).set(key.toString("hex"), Buffer.from(value)),
  mapDelete: (fd: number, key: Buffer) => of(fd).delete(key.toString("hex")),
  mapDump: (fd: number) => {
    dumped += 1;
    const keys = [...of(fd).keys()].map((key) => Buffer.from(key, "hex"));
    const values = Buffer.concat([...of(fd).values()]);
    return { count: keys.length, keys: Buffer.concat(keys), values };
  },
} as unknown as Native;

/** Of a host that is attached to nothing. */
const underlays = { list: () => [], usable: () => [] } as unknown as Underlays;

beforeEach(() => {
  entries = new Map([
    [fds.meta, new Map([["00000000", Buffer.alloc(VnetdMeta.size)]])],
    [fds.unicast_members, new Map<string, Buffer>()],
    [fds.peers, new Map<string, Buffer>()],
  ]);
  members = [];
  const maps = new Maps(native, fds);
  const config = daemonConfigDefaults();
  const context = { native, maps, config, generation: { maps } } as unknown as Context;
  const nothing = (): void => undefined;
  peers = new Peers(context, {
    underlays,
    heardHosts: () => [],
    unicastMembers: () => members,
    ask: nothing,
    appeared: nothing,
    gone: nothing,
    waysChanged: nothing,
    persist: nothing,
  });
  // at start
  peers.devicesChanged();
  dumped = 0;
});

const first: UnicastMember = { handle: 7, address: "192.0.2.1", ifindex: 3 };
const second: UnicastMember = { handle: 7, address: "2001:db8::2", ifindex: 3 };
const other: UnicastMember = { handle: 9, address: "192.0.2.1", ifindex: 3 };

/** What hellos do that changed something. */
async function become(...now: UnicastMember[]): Promise<void> {
  members = now;
  peers.membersChanged();
  await turn();
}

/** What the data plane has: "HANDLE.NUMBER ADDRESS by DEVICE". */
function inMap(): string[] {
  return [...of(fds.unicast_members)]
    .map(([key, value]) => {
      const { handle, number } = decodeVnetdMemberKey(Buffer.from(key, "hex"));
      const { addr, ifindex } = decodeVnetdMember(value);
      return `${String(handle)}.${String(number)} ${addressToText(addr)} by ${String(ifindex)}`;
    })
    .sort();
}

const meta = () => {
  const { peers: count, unicastMembers, forward } = decodeVnetdMeta(of(fds.meta).get("00000000")!);
  return { peers: count, unicastMembers, forward };
};
const nobody = { peers: 0, unicastMembers: 0, forward: 0 };

describe("a host without peers", () => {
  it("reads no map while there are none of them", async () => {
    for (let each = 0; each < 3; each += 1) {
      await become();
      peers.tick();
    }
    expect(dumped).toBe(0);
    expect(meta()).toEqual(nobody);
  });

  it("sends to its first, and to the next of either family", async () => {
    await become(first);
    expect(inMap()).toEqual(["7.0 192.0.2.1 by 3"]);
    expect(meta()).toEqual({ peers: 0, unicastMembers: 1, forward: 1 });
    await become(first, second, other);
    expect(inMap()).toEqual(["7.0 192.0.2.1 by 3", "7.1 2001:db8::2 by 3", "9.0 192.0.2.1 by 3"]);
    expect(meta()).toEqual({ peers: 0, unicastMembers: 3, forward: 3 });
  });

  it("sends to its first when several hosts said something in one turn", async () => {
    peers.membersChanged();
    members = [first];
    peers.membersChanged();
    await turn();
    expect(inMap()).toEqual(["7.0 192.0.2.1 by 3"]);
  });

  it("sends to nobody any more when the last has gone, and is alone again", async () => {
    await become(first, second);
    await become();
    expect(inMap()).toEqual([]);
    expect(meta()).toEqual(nobody);
    dumped = 0;
    await become();
    peers.tick();
    expect(dumped).toBe(0);
    await become(second);
    expect(inMap()).toEqual(["7.0 2001:db8::2 by 3"]);
    expect(meta()).toEqual({ peers: 0, unicastMembers: 1, forward: 2 });
  });

  it("follows by its ticks what it has, also what nobody told it of", async () => {
    await become(first);
    members = [second];
    peers.tick();
    expect(inMap()).toEqual(["7.0 2001:db8::2 by 3"]);
  });
});
