// SPDX-License-Identifier: Apache-2.0
/**
 * What somebody on the LAN of two hosts can do to their secure vnets, and what a member of one vnet to another: each
 * try is counted by its own reason, and changes nothing.
 *
 *   a, b: vnetd, 10.66.1.1 and .2, vnets 98 and 99 with security auth, whose packets this test can read and make
 *   m: the attacker, 10.66.1.66        o: an original host, 10.66.1.11, in vnet 4 as a is, which must notice nothing
 */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { VnetParameters } from "../../src/api/contract.js";
import { vnetKeyOf, type VnetKey } from "../../src/base/vnet-key.js";
import { suiteOf } from "../../src/base/suite.js";
import {
  encodeMessage,
  headerBytes,
  secretsOf,
  type Header,
  type MessageType,
  type VnetSecrets,
} from "../../src/keys/messages.js";
import { vnetdTlvType } from "../../src/generated/layouts.js";
import { extendedBy } from "../../src/wire/hello.js";
import { Lab, eventually, type Capture, type Host } from "../lib/lab.js";
import { vnetBytes } from "../lib/bytes.js";
import { sasOf, seal, type Sa } from "../lib/esp.js";
import { startOriginal, type OriginalHost } from "../lib/original.js";
import { packet } from "../lib/packet.js";
import {
  Attacker,
  helloMessage,
  keysMessage,
  recorded,
  strangeMac,
  varpMessage,
  type Recorded,
} from "./attacker.js";
import { ask, drops, quickHosts, quickVnet, reaches, statusOf, writeKey } from "./secure.js";

const addressA = "10.66.1.1";
const addressB = "10.66.1.2";
const addressM = "10.66.1.66";
const ours = { vnet: "4", mac: "aa:00:00:00:04:11", ip: "192.168.4.11" };
const secret = randomBytes(32);
const key: VnetKey = vnetKeyOf(Buffer.from(secret));
const stranger: VnetKey = vnetKeyOf(randomBytes(32));
const auth = suiteOf("auth", "sha1");
/** what is known changes by attacks or not at all: also where a second takes several, no host is silent for too long */
const config = "helloSeconds: 5\nageingSeconds: 3600\n";

let lab: Lab;
let a: Host;
let b: Host;
let m: Attacker;
let original: OriginalHost;
/** all that a hears and says on 1798 and by ESP */
let wire: Capture;
/** frames of the attacker that come out of a's vnetifs */
let inside: Capture[];
let idOfA: string;
let idOfB: string;

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await quickHosts(lab, ["a", "b"], { secret, config })) as [Host, Host];
  m = await Attacker.join(lab, addressM, { host: a, address: addressA });
  const o = await lab.host("o", { underlay: "10.66.1.11/24" });
  original = await startOriginal({ netns: o.netns, address: "10.66.1.11", guests: [ours] });
  wire = await a.capture("eth0", "udp port 1798 or ip proto 50");
  await ask(a, "vnetCreate", { parameters: { id: "4", bridge: "none" } });
  await a.exec("ip addr add 192.168.4.1/24 dev vnif0004");
  for (const id of ["98", "99"]) {
    await quickVnet([a, b], id, { security: "auth" });
    await reaches(a, `10.${id}.0.2`);
  }
  inside = await Promise.all(
    ["98", "99"].map((id) => a.capture(`vnif${id}`, "ether[6:4] = 0x02666666")),
  );
  [idOfA, idOfB] = [(await statusOf(a)).hostId, (await statusOf(b)).hostId];
  // exchanges that both began at once leave SAs for a moment
  await eventually(async () => (await sasOf(a)).length === 4, { timeoutMs: 60_000 });
});
afterAll(async () => {
  await (original as OriginalHost | undefined)?.stop();
  await lab.close();
});
afterEach(async () => {
  // one that an emulated machine takes too long for says nothing about the attack
  const pings = { from: ours.ip, to: "192.168.4.1", count: 1 };
  await eventually(async () => (await original.ping(pings)).received === 1, {
    timeoutMs: 20_000,
    what: "the original's ping",
  });
  await original.expectNothingRejected();
});

/** a counts so many by this reason, or more, after `act`. */
async function counts(reason: string, times: number, act: () => Promise<void>): Promise<void> {
  const before = await drops(a);
  await act();
  const isCounted = async (): Promise<boolean> => {
    const now = await drops(a);
    if ((now[reason] ?? 0) >= (before[reason] ?? 0) + times) return true;
    throw new Error(`${JSON.stringify(before)} before, ${JSON.stringify(now)} now`);
  };
  const what = `${times} counted as ${reason}`;
  await eventually(isCounted, { timeoutMs: 10_000, everyMs: 200, what });
}

/** What a knows of secure vnets, and by which SAs it speaks. */
async function knowledge(): Promise<{ varp: string[]; hosts: string[]; spis: number[] }> {
  const varp = await ask(a, "varp", {});
  const hosts = await ask(a, "hosts", {});
  return {
    varp: varp
      .filter(({ vnet }) => /009[89]$/.test(vnet))
      .map(({ vnet, vmac, address }) => `${vnet} ${vmac} ${address}`)
      .sort(),
    hosts: hosts.flatMap(({ hostId, vnets, paths }) =>
      [...vnets].sort().map((vnet) => `${hostId} ${vnet} ${paths.map((p) => p.address).join()}`),
    ),
    spis: (await sasOf(a)).map(({ spi }) => spi).sort(),
  };
}

/**
 * `act` changes nothing of what a knows, and vnet 98 goes on. Where daemons wait seconds for their turn, a host may be
 * silent for too long and come back: what an attack has changed stays as it is.
 */
async function changesNothing(act: () => Promise<void>): Promise<void> {
  await reaches(a, "10.98.0.2");
  const before = await knowledge();
  await act();
  const isAsBefore = async (): Promise<boolean> => {
    expect(await knowledge()).toEqual(before);
    return true;
  };
  await eventually(isAsBefore, { everyMs: 500, what: "what was known" });
  await reaches(a, "10.98.0.2");
}

/** What a and b sent. */
const overheard = (): Recorded[] => recorded(wire).filter(({ mac }) => mac !== m.mac);

/** The last packet of b in this vnet, which can be read at this level. */
function espOfB(vnet: string): Buffer {
  const id = vnetBytes(vnet);
  const all = overheard().filter(
    ({ source, esp }) => source === addressB && esp?.includes(id) === true,
  );
  const found = all.at(-1);
  if (found?.esp === undefined) throw new Error(`b sent nothing in vnet ${vnet}`);
  return found.esp;
}

/** With all of its keys. */
async function saOfB(vnet: string): Promise<Sa> {
  const spi = espOfB(vnet).readUInt32BE(0);
  const sa = (await sasOf(b)).find((each) => each.spi === spi);
  if (sa === undefined) throw new Error(`b sends no longer by ${spi}`);
  return sa;
}

/** A frame from a MAC of the attacker's, or another, as it is in ESP. */
const frameIn = (vnet: string, src = "02:66:66:66:00:01"): Buffer =>
  packet()
    .udp({ src: 1798, dst: 1798, checksum: 0 })
    .vudp({ vnet })
    .eth({ src, dst: "ff:ff:ff:ff:ff:ff", type: 0x88b5 })
    .payload("made up")
    .build();

/**
 * By the SA of b for `vnet`; ahead of what b sends, but by so little that what b sends stays within the window: else all
 * of it would be too old, hellos too, until its numbers are as high, and a would take b for gone.
 */
async function byTheKeysOf(vnet: string, frame: Buffer): Promise<void> {
  const sa = await saOfB(vnet);
  const number = Math.max(sa.sent, madeUp.get(sa.spi) ?? 0) + 8;
  madeUp.set(sa.spi, number);
  await m.send(m.esp(seal(sa, number, frame), addressB));
}
/** by SPI */
const madeUp = new Map<number, number>();

/** MACs of the attacker that are configured to be at a, and at the attacker's own address. */
const [here, there] = ["02:66:66:66:00:03", "02:66:66:66:00:04"] as const;

/** The attacker's MACs that a has heard. */
async function learned(): Promise<string[]> {
  const known = (await ask(a, "varp", {})).filter(({ state }) => state !== "static");
  return known.map(({ vmac }) => vmac).filter((mac) => mac.startsWith("02:66:66:66:00:"));
}

const cameIn = (): number => inside.reduce((sum, { packets }) => sum + packets.length, 0);

describe("frames", () => {
  it("in clear are dropped", () =>
    changesNothing(() =>
      counts("security", 3, async () => {
        const clear = frameIn("98").subarray(8);
        await m.send(
          m.datagram(clear),
          m.datagram(clear, addressB),
          m.datagram(clear, addressB, true),
        );
      }),
    ));

  it("under an SPI that is nobody's end in the kernel", async () => {
    const stat = async (): Promise<number> =>
      Number(/XfrmInNoStates\s+(\d+)/.exec((await a.exec("cat /proc/net/xfrm_stat")).stdout)?.[1]);
    const before = await stat();
    const esp = espOfB("98");
    esp.writeUInt32BE(0x12345678, 0);
    await m.send(m.esp(esp, addressB), m.esp(esp));
    await eventually(async () => (await stat()) >= before + 2);
  });

  it("of another host under an SPI of ours are dropped before they are decrypted", async () => {
    const sa = await saOfB("98");
    const good = seal(sa, sa.sent + 60, frameIn("98"));
    await counts("esp_source", 2, () => m.send(m.esp(espOfB("98")), m.esp(good)));
  });

  it("that are repeated are dropped and counted", () =>
    counts("esp_replay", 3, async () => {
      const again = m.esp(espOfB("98"), addressB);
      await m.send(again, again, again);
    }));

  it("that are changed on their way are dropped and counted", () =>
    counts("esp_integrity", 3, async () => {
      const esp = espOfB("98");
      const changed = [4, 40, esp.length - 1].map((at) => {
        const copy = Buffer.from(esp);
        // a number that has not come yet, or it would be the replay check's
        copy.writeUInt32BE(esp.readUInt32BE(4) + 1000, 4);
        copy[at]! ^= 1;
        return m.esp(copy, addressB);
      });
      await m.send(...changed);
    }));

  it("nothing of that came in, but what is made with the SA's keys would", async () => {
    expect(cameIn()).toBe(0);
    await byTheKeysOf("98", frameIn("98"));
    await eventually(() => cameIn() === 1, { what: "the frame that is right" });
    await eventually(async () => (await learned()).includes("02:66:66:66:00:01"));
  });

  it("of one vnet under another's SA are dropped", async () => {
    await counts("esp_other_vnet", 1, () => byTheKeysOf("99", frameIn("98", "02:66:66:66:00:02")));
    await counts("esp_other_vnet", 1, () => byTheKeysOf("98", frameIn("99", "02:66:66:66:00:02")));
    expect(cameIn()).toBe(1);
  });

  it("from a MAC that is configured to be elsewhere are dropped", async () => {
    await a.vnetd(["vif-add", "--static", "98", here]);
    await ask(a, "varpAdd", { vnet: "98", vmac: there, address: addressM });
    await counts("esp_inner_source", 1, () => byTheKeysOf("98", frameIn("98", here)));
    await counts("esp_inner_source", 1, () => byTheKeysOf("98", frameIn("98", there)));
    expect(cameIn()).toBe(1);
  });

  it("and of all of these no one was learned", async () => {
    // the one that was right goes with its host, where that is taken for gone on a slow machine
    const macs = (await learned()).filter((mac) => mac !== "02:66:66:66:00:01");
    expect(macs).toEqual([]);
    // not before: what came in so late would be learned, and rightly
    await ask(a, "vifDelete", { vnet: "98", vmac: here });
    await ask(a, "varpDelete", { vnet: "98", vmac: there });
  });
});

describe("VARP in clear", () => {
  it("is not answered and changes nothing", () =>
    changesNothing(async () => {
      const vmac = await a.mac("vnif98");
      const [other] = (await ask(a, "varp", {})).filter(
        ({ vnet, address }) => vnet.endsWith("0098") && address === addressB,
      );
      const of = { vnet: "98", address: addressM };
      const goodbye = { ...of, address: addressB, hostId: idOfB, more: { goodbye: true } };
      const messages = [
        varpMessage({ ...of, opcode: "request", vmac }),
        varpMessage({ ...of, opcode: "announce", vmac: "02:66:66:66:00:05" }),
        varpMessage({ ...of, opcode: "announce", vmac: other!.vmac }),
        helloMessage(of),
      ];
      await counts("varp_unauthenticated", messages.length + 1, () =>
        m.send(
          ...messages.map((message) => m.datagram(message)),
          m.datagram(helloMessage(goodbye), addressB, true),
        ),
      );
      const answers = recorded(wire).filter(
        ({ source, destination, hello }) =>
          source === addressA && destination === addressM && hello === undefined,
      );
      expect(answers).toEqual([]);
    }));
});

const own = (host: string): Buffer => Buffer.from(host, "hex");

/** Of what b said in vnet 98. */
const ofB = (): Recorded[] =>
  overheard().filter(
    ({ source, payload }) => source === addressB && payload?.includes(vnetBytes("98")),
  );
const hellosOfB = (): Recorded[] => ofB().filter(({ hello }) => hello?.auth !== undefined);
/** Each of them once, however often it was repeated. */
const keysOfB = (): Recorded[] => {
  const all = ofB().filter(({ keys }) => keys !== undefined);
  return [...new Map(all.map((each) => [each.payload!.toString("hex"), each])).values()];
};

/** What came before it was looked at. */
async function lookedAt(): Promise<void> {
  await counts("keys_malformed", 1, () =>
    m.send(m.datagram(keysMessage("98", addressB, Buffer.of(9)), addressB)),
  );
}

describe("recorded hellos and key messages", () => {
  it("from where they came start nothing that ends in other keys", () =>
    changesNothing(async () => {
      // no more than a host may send at once, or they were refused for that
      const all = [...hellosOfB().slice(0, 3), ...keysOfB().slice(0, 15)];
      expect(keysOfB().length).toBeGreaterThan(1);
      const again = all.map(({ payload }) => m.datagram(payload!, addressB));
      await m.send(...again, ...again.reverse());
      await lookedAt();
    }));

  it("from elsewhere they are refused", () =>
    changesNothing(async () => {
      const hellos = hellosOfB().slice(0, 3);
      await counts("varp_unauthenticated", hellos.length, () =>
        m.send(...hellos.map(({ payload }) => m.datagram(payload!))),
      );
      const keys = keysOfB();
      await counts("keys_no_exchange", keys.length, () =>
        m.send(...keys.map(({ payload }) => m.datagram(payload!))),
      );
    }));

  it("hellos that are changed anywhere are refused", () =>
    changesNothing(async () => {
      const message = hellosOfB().at(-1)!.payload!;
      // vnet and the length of the extension aside, which make it something else
      const places = Array.from(message.keys())
        .slice(22, -1)
        .filter((at) => at % 7 === 0);
      const changed = places.map((at) => m.datagram(flipped(message, at), addressB, true));
      const goodbye = extendedBy(message.subarray(43), [
        Buffer.from([0, vnetdTlvType.TLV_GOODBYE, 0, 0]),
      ]);
      changed.push(m.datagram(Buffer.concat([message.subarray(0, 43), goodbye]), addressB, true));
      const before = total(await drops(a));
      await m.send(...changed);
      await eventually(async () => total(await drops(a)) >= before + changed.length);
    }));
});

/** With another bit in this byte. */
function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at]! ^= 1 << (at % 8);
  return copy;
}

const total = (counted: Record<string, number>): number =>
  Object.entries(counted).reduce(
    (sum, [reason, frames]) => (/^(keys|varp)_/.test(reason) ? sum + frames : sum),
    0,
  );

describe("key messages", () => {
  const secretsIn = (vnet: string, of: VnetKey = key): VnetSecrets =>
    secretsOf(of.id, of.secret, vnetBytes(vnet));

  /** Such as only a member can make. */
  function made(type: MessageType, body: Buffer, more: Partial<Header> = {}): Buffer {
    const { keyId, macKey } = secretsIn("98");
    const ends = { sender: own(idOfB), receiver: own(idOfA), exchangeId: randomBytes(8) };
    return encodeMessage({ type, suiteId: auth.id, keyId, ...ends, ...more }, body, macKey);
  }
  const fromB = (bytes: Buffer): Buffer => m.datagram(keysMessage("98", addressB, bytes), addressB);
  const init = (more: Partial<Header> = {}): Buffer => made("init", randomBytes(68), more);

  it.each([
    ["keys_malformed", () => init().subarray(0, -1)],
    ["keys_not_for_us", () => init({ receiver: randomBytes(16) })],
    ["keys_not_for_us", () => init({ receiver: own(idOfB) })],
    ["keys_unknown_key", () => init({ keyId: stranger.id })],
    ["keys_other_suite", () => init({ suiteId: suiteOf("conf", "gcm").id })],
    ["keys_not_fresh", () => init()],
    ["keys_no_exchange", () => made("response", randomBytes(52))],
    ["keys_no_exchange", () => made("confirm", randomBytes(16))],
    ["keys_bad_mac", () => flipped(init(), 135)],
  ])("%s", (reason, message) =>
    changesNothing(() => counts(reason, 1, () => m.send(fromB(message()), fromB(message())))),
  );

  it("changed in any byte, or cut anywhere, are counted and end there", () =>
    changesNothing(async () => {
      const message = keysOfB().find(({ keys }) => keys?.type !== "refuse")!.keys!.bytes;
      const changed = Array.from(message.keys()).map((at) => fromB(flipped(message, at)));
      const cut = Array.from(message.keys())
        .slice(1)
        .map((length) => fromB(message.subarray(0, length)));
      const before = total(await drops(a));
      await m.send(...changed);
      await m.send(...cut);
      await eventually(async () => total(await drops(a)) >= before + changed.length + cut.length, {
        timeoutMs: 20_000,
        what: "each of them counted",
      });
    }));

  it("of a stranger, and hellos, as many as there may be, delay no keys and take no memory", async () => {
    const memory = (): number =>
      Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
    const { pid } = await statusOf(a);
    const before = memory();
    const counted = await drops(a);
    const strange = { secrets: secretsIn("97", stranger), suiteId: auth.id };
    // as b would have said it, were this its address: somebody may have recorded such a one
    const ofBefore = helloMessage(
      { vnet: "97", address: addressM, hostId: idOfB },
      { secrets: secretsIn("97"), suiteId: suiteOf("conf", "sha1").id },
    );
    const frames = Array.from({ length: 300 }, (_, at) => {
      const vnet = at % 2 === 0 ? "97" : "98";
      const said = { vnet, address: addressM };
      const forged = randomBytes(136);
      made("init", randomBytes(68)).copy(forged, 0, 0, headerBytes);
      return [
        m.datagram(helloMessage(said), addressM, at % 3 === 0),
        m.datagram(helloMessage(said, strange)),
        m.datagram(keysMessage(vnet, addressB, forged), addressB),
        m.datagram(keysMessage(vnet, addressM, forged)),
        ...(at % 4 === 0 ? [m.datagram(ofBefore)] : []),
      ];
    }).flat();
    const toM = await a.capture("eth0", `udp port 1798 and dst host ${addressM}`);
    const flood = m.flood(frames, 250);
    await eventually(async () => total(await drops(a)) > total(counted) + 400);
    // who does not answer is asked again, however much comes in between
    const silent = { vnet: "98", address: addressM, hostId: randomBytes(16).toString("hex") };
    const signed = { secrets: secretsIn("98"), suiteId: auth.id };
    const asked = (): number =>
      recorded(toM).filter(
        ({ keys }) => keys?.type === "init" && keys.receiver.equals(own(silent.hostId)),
      ).length;
    // a slow daemon does not hear each message of so many
    const isAsked = async (): Promise<boolean> => {
      await m.send(m.datagram(helloMessage(silent, signed)));
      await eventually(() => asked() > 0, { timeoutMs: 1000, everyMs: 100 });
      return true;
    };
    await eventually(isAsked, { timeoutMs: 60_000, what: "a key message" });
    await eventually(() => asked() >= 3, { everyMs: 200, what: "key messages that are repeated" });
    await quickVnet([a, b], "97");
    await reaches(a, "10.97.0.2");
    await reaches(b, "10.98.0.1");
    const after = await drops(a);
    await flood.stop();
    expect(memory() - before).toBeLessThan(80_000);
    expect(
      (after["varp_unauthenticated"] ?? 0) - (counted["varp_unauthenticated"] ?? 0),
    ).toBeGreaterThan(100);
    const hosts = await ask(a, "hosts", {});
    expect(hosts.map(({ hostId }) => hostId)).toEqual([idOfB]);
    const macs = (await ask(a, "varp", {})).map(({ vmac }) => vmac);
    expect(macs).not.toContain(strangeMac);
    expect((await statusOf(a)).problems.length).toBeLessThan(300);
  });
});

describe("messages that bear a member's address, more than are looked at", () => {
  it("delay no change of keys", async () => {
    await reaches(a, "10.98.0.2");
    const before = await knowledge();
    const noise = Array.from({ length: 50 }, () =>
      m.datagram(keysMessage("98", addressB, randomBytes(136)), addressB),
    );
    const limited = (await drops(a))["varp_rate"] ?? 0;
    const flood = m.flood(noise, 500);
    // b's budget is used up, and stays so
    await eventually(async () => ((await drops(a))["varp_rate"] ?? 0) > limited + 100, {
      timeoutMs: 20_000,
      what: "messages over the limit",
    });
    await ask(a, "rekey", { vnet: "98" });
    const others = async (): Promise<boolean> => {
      const { spis } = await knowledge();
      const gone = before.spis.filter((spi) => !spis.includes(spi));
      return gone.length === 2 && spis.length === before.spis.length;
    };
    await eventually(others, { timeoutMs: 15_000, everyMs: 200, what: "other SAs" });
    await flood.stop();
    await reaches(a, "10.98.0.2");
  });
});

describe("hosts that differ", () => {
  const otherKey = (): string => join(b.stateDir, "keys", "other.key");
  const vnetOn = (host: Host, id: string, parameters: Partial<VnetParameters>): Promise<unknown> =>
    ask(host, "vnetCreate", {
      parameters: { id, bridge: "none", vnetif: `vnif${id}`, ...parameters },
    });

  beforeAll(async () => {
    writeKey(otherKey(), randomBytes(32));
    await quickVnet([a, b], "90", { security: "none" });
    await reaches(a, "10.90.0.2");
    // its level is raised on one of them
    await ask(a, "vnetDelete", { id: "90" });
    await vnetOn(a, "90", { security: "conf" });
    await a.exec("ip addr add 10.90.0.1/24 dev vnif90");
    const differing: [string, Partial<VnetParameters>, Partial<VnetParameters>][] = [
      ["91", { suite: "sha1" }, { suite: "gcm" }],
      ["92", {}, { key: otherKey() }],
      ["93", {}, { security: "auth" }],
    ];
    for (const [id, onA, onB] of differing) {
      await quickVnet([a], id, onA);
      await vnetOn(b, id, { security: "conf", ...onB });
      await b.exec(`ip addr add 10.${id}.0.2/24 dev vnif${id}`);
    }
  });

  const idIn = (text: string): string => /key id ([0-9a-f]{16})/.exec(text)?.[1] ?? "";
  const said = async (host: Host, ...patterns: RegExp[]): Promise<void> => {
    await eventually(
      async () => {
        const problems = (await statusOf(host)).problems.join("\n");
        for (const pattern of patterns) expect(problems).toMatch(pattern);
        return true;
      },
      { timeoutMs: 20_000, everyMs: 500 },
    );
  };

  it("name each other's level, suite and key id", async () => {
    const other = idIn(readFileSync(otherKey(), "utf8"));
    await said(
      a,
      /90: .*10\.66\.1\.2.* has this vnet without security, this host with conf/,
      /91: .*10\.66\.1\.2.* uses conf gcm, this host uses conf sha1/,
      new RegExp(`92: .*10\\.66\\.1\\.2.* uses key id ${other}, this host uses ${key.id}`),
      /93: .*10\.66\.1\.2.* uses auth sha1, this host uses conf sha1/,
    );
    await said(
      b,
      /90: .*10\.66\.1\.1.* has this vnet with security conf, this host with none/,
      /91: .*10\.66\.1\.1.* uses conf sha1, this host uses conf gcm/,
      new RegExp(`92: .*10\\.66\\.1\\.1.* uses key id ${key.id}, this host uses ${other}`),
      /93: .*10\.66\.1\.1.* uses conf sha1, this host uses auth sha1/,
    );
    const { stdout, stderr } = await a.vnetd(["status"]);
    expect(`${stdout}${stderr}`.replace(/\s+/g, " ")).toContain(
      `uses key id ${other}, this host uses ${key.id}`,
    );
  });

  it("have no traffic with each other, and what one sends in clear the other drops", async () => {
    const ids = ["90", "91", "92", "93"];
    const seen = overheard().length;
    await counts("security", 1, async () => {
      const quickly = { count: 1, waitMs: 300 };
      const pings = ids.flatMap((id) => [
        a.ping(`10.${id}.0.2`, quickly),
        b.ping(`10.${id}.0.1`, quickly),
      ]);
      for (const { received } of await Promise.all(pings)) expect(received).toBe(0);
    });
    const frames = overheard()
      .slice(seen)
      .filter(({ payload }) => payload?.readUInt16BE(0) === 2);
    const of = (id: string, from: string): number =>
      frames.filter(({ source, payload }) => source === from && payload?.includes(vnetBytes(id)))
        .length;
    expect(of("90", addressB)).toBeGreaterThan(0);
    for (const id of ids) {
      expect(of(id, addressA)).toBe(0);
      if (id !== "90") expect(of(id, addressB)).toBe(0);
    }
    // as many SAs as there were before: two for each of vnets 97, 98 and 99
    await eventually(async () => (await sasOf(b)).length === 6, { timeoutMs: 60_000 });
  });

  it("talk as soon as they are the same", async () => {
    await ask(b, "vnetDelete", { id: "90" });
    await vnetOn(b, "90", { security: "conf" });
    await b.exec("ip addr add 10.90.0.2/24 dev vnif90");
    await reaches(a, "10.90.0.2");
    await said(a, /92: /);
    expect((await statusOf(a)).problems.join("\n")).not.toMatch(/90: .*without security/);
  });
});
