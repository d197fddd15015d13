// SPDX-License-Identifier: Apache-2.0
/**
 * The addon's SAs, policies, interfaces and events against kernels that have ESP: in QEMU alone
 * (test/vm/files). Two namespaces and a wire; what is encrypted is looked at on the wire.
 */
import { execFileSync, spawn } from "node:child_process";
import { createCipheriv, createHmac } from "node:crypto";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type {
  XfrmEvent,
  XfrmMode,
  XfrmPolicyId,
  XfrmState,
  XfrmStateInfo,
} from "../../src/native/contract.js";
import { deriveEspKeys, suites, type Suite } from "../../src/keys/esp-keys.js";
import { eventually } from "../lib/lab.js";
import { Namespace, rejectionOf } from "../native/support.js";

const outer = { a: "10.9.0.1", b: "10.9.0.2" };
const inside = { a: "10.8.0.1", b: "10.8.0.2" };
const spis = { a: 0x0a0a0a0a, b: 0x0b0b0b0b };
const ifId = 5;
const mark = { value: 0x77, mask: 0xff };
let a: Namespace;
let b: Namespace;

beforeAll(() => {
  for (const name of ["esp4", "esp6", "xfrm_interface", "xfrm_user", "drbg", "ecb"])
    execFileSync("modprobe", ["-q", name]);
  a = new Namespace("xa");
  b = new Namespace("xb");
  a.exec("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b.name);
  for (const [ns, address] of [
    [a, outer.a],
    [b, outer.b],
  ] as const) {
    ns.exec("ip", "addr", "add", `${address}/24`, "dev", "eth0");
    ns.exec("ip", "link", "set", "eth0", "up");
    ns.exec("ip", "link", "set", "lo", "up");
  }
});
afterAll(async () => {
  await a.close();
  await b.close();
});

const spiOf = (id: string): number => (id === "b" ? spis.b : spis.a);

/** Keys as the daemons would have agreed on. */
function algorithmsOf(suite: Suite, spi: number): Partial<XfrmState> {
  const keys = deriveEspKeys(Buffer.alloc(32, 1), {
    ...{ vnet: Buffer.alloc(16, 2), sender: Buffer.alloc(16, 3), receiver: Buffer.alloc(16, 4) },
    ...{ spi, suite },
  });
  const { cipher, salt, auth } = keys;
  if (suite.name !== "sha1") {
    const name = suite.level === "conf" ? "rfc4106(gcm(aes))" : "rfc4543(gcm(aes))";
    return { aead: { name, key: Buffer.concat([cipher, salt]), icvBits: 128 } };
  }
  return {
    encryption: { name: suite.level === "conf" ? "cbc(aes)" : "ecb(cipher_null)", key: cipher },
    authentication: { name: "hmac(sha1)", key: auth, icvBits: 96 },
  };
}

function stateTo(to: "a" | "b", suite: Suite, more: Partial<XfrmState>): XfrmState {
  const from = to === "a" ? "b" : "a";
  return {
    ...{ source: outer[from], destination: outer[to], spi: spiOf(to), reqid: 7 },
    ...{ mode: "transport", esn: true, replayWindow: 256 },
    ...algorithmsOf(suite, spiOf(to)),
    ...more,
  };
}

/** All is taken away, by the addon's own means; an SA that was never made (SPI 0) by ip's. */
async function clear(): Promise<void> {
  for (const ns of [a, b]) {
    for (const state of (await ns.run.xfrmStateList()).filter(({ spi }) => spi !== 0))
      expect(await ns.run.xfrmStateDelete(state)).toBe(true);
    for (const policy of await ns.run.xfrmPolicyList())
      expect(await ns.run.xfrmPolicyDelete(policy)).toBe(true);
    ns.exec("ip", "xfrm", "state", "flush");
    expect(await ns.run.xfrmStateList()).toEqual([]);
    expect(await ns.run.xfrmPolicyList()).toEqual([]);
    if ((await ns.run.linkGet("xf0")) !== undefined) ns.exec("ip", "link", "del", "xf0");
  }
}
afterEach(clear);

/** SAs both ways on both hosts, and the policies that send by them. */
async function secure(suite: Suite, mode: XfrmMode): Promise<void> {
  const beet = mode === "beet";
  for (const [ns, me, other] of [
    [a, "a", "b"],
    [b, "b", "a"],
  ] as const) {
    const ids = beet ? { ifId } : {};
    const addresses = beet ? inside : outer;
    for (const to of ["a", "b"] as const) {
      const from = to === "a" ? "b" : "a";
      const inner = beet ? { inner: { source: inside[from], destination: inside[to] } } : {};
      await ns.run.xfrmStateAdd(
        stateTo(to, suite, {
          mode,
          ...ids,
          ...inner,
          ...(to === me && beet ? { outputMark: mark } : {}),
        }),
      );
    }
    await ns.run.xfrmPolicySet({
      ...{ direction: "out", source: addresses[me], destination: addresses[other], priority: 10 },
      ...ids,
      template: { source: outer[me], destination: outer[other], reqid: 7, mode, spi: spiOf(other) },
    });
    if (!beet) continue;
    // for the host's own stack, which takes nothing from an SA that no policy asks for
    await ns.run.xfrmPolicySet({
      ...{ direction: "in", source: inside[other], destination: inside[me], priority: 10, ifId },
      template: { source: outer[other], destination: outer[me], reqid: 7, mode },
    });
    await ns.run.linkAddXfrm({ name: "xf0", ifId, mtuBytes: 1400 });
    ns.exec("ip", "addr", "add", `${inside[me]}/24`, "dev", "xf0");
    ns.exec("ip", "link", "set", "xf0", "up");
  }
}

const pings = (to: string, count = 3): void => {
  a.exec("ping", "-n", "-c", String(count), "-i", "0.2", "-W", "5", to);
};

async function stateOf(ns: Namespace, to: "a" | "b", more: object = {}): Promise<XfrmStateInfo> {
  const state = await ns.run.xfrmStateGet({ destination: outer[to], spi: spiOf(to), ...more });
  if (state === undefined) throw new Error("the SA is not there");
  return state;
}

describe("SAs", () => {
  for (const suite of suites) {
    for (const mode of ["transport", "beet"] as const) {
      it(`${suite.level} ${suite.name}, ${mode}: carry packets, and tell how many`, async () => {
        await secure(suite, mode);
        pings(mode === "beet" ? inside.b : outer.b);
        const sent = await stateOf(a, "b", mode === "beet" ? { ifId } : {});
        expect(sent).toMatchObject({ mode, esn: true, replayWindow: 256, protocol: 50, reqid: 7 });
        expect(sent.packets).toBeGreaterThanOrEqual(3);
        expect(sent.sentSequence).toBe(sent.packets);
        const received = await stateOf(b, "b", mode === "beet" ? { ifId } : {});
        expect(received.receivedSequence).toBeGreaterThanOrEqual(3);
        expect(received.usedSeconds).toBeGreaterThan(0);
        if (mode === "beet") expect(received.outputMark).toEqual(mark);
        if (suite.name === "sha1") expect(sent.authentication).toBe("hmac(sha1)");
        else expect(sent.aead).toContain("gcm(aes)");
        // no SA, nothing goes: not by another one, not in clear
        expect(await a.run.xfrmStateDelete({ ...sent })).toBe(true);
        expect(() =>
          a.exec("ping", "-n", "-c", "1", "-W", "1", mode === "beet" ? inside.b : outer.b),
        ).toThrow();
      });
    }
  }

  it("two of one identity: EEXIST; what the kernel tells has no key in it", async () => {
    const suite = suites[3]!;
    await a.run.xfrmStateAdd(stateTo("b", suite, {}));
    const error = await rejectionOf(a.run.xfrmStateAdd(stateTo("b", suite, {})));
    expect(error).toMatchObject({ code: "EEXIST", operation: "xfrmStateAdd" });
    const { aead } = algorithmsOf(suite, spis.b);
    const key = Buffer.from(aead!.key);
    const told = JSON.stringify(await a.run.xfrmStateList()) + error.message;
    for (const text of [key.toString("hex"), key.toString("base64")])
      expect(told).not.toContain(text.slice(0, 8));
  });

  it("marks are part of an SA's identity", async () => {
    const suite = suites[3]!;
    const marks = [1, 2].map((value) => ({ value, mask: 0xff }));
    for (const each of marks) await a.run.xfrmStateAdd(stateTo("b", suite, { mark: each }));
    expect((await a.run.xfrmStateList()).map((state) => state.mark)).toEqual(
      expect.arrayContaining(marks),
    );
    expect(
      await a.run.xfrmStateDelete({ destination: outer.b, spi: spis.b, mark: marks[0]! }),
    ).toBe(true);
    expect((await a.run.xfrmStateList()).map((state) => state.mark)).toEqual([marks[1]]);
  });
});

describe("what does not belong to an SA", () => {
  /** an ESP packet of one's own: null cipher, HMAC-SHA1-96 with ESN, transport mode */
  function espPacket(key: Buffer, sequence: number): string {
    const head = Buffer.alloc(8);
    head.writeUInt32BE(spis.b, 0);
    head.writeUInt32BE(sequence, 4);
    // an ICMP echo request and the trailer: padding to 4 bytes, its length, next header 1
    const icmp = Buffer.from("0800f7fd00010001" + "0102", "hex");
    const body = Buffer.concat([head, icmp, Buffer.from([0, 1])]);
    const icv = createHmac("sha1", key)
      .update(body)
      .update(Buffer.alloc(4))
      .digest()
      .subarray(0, 12);
    return Buffer.concat([body, icv]).toString("hex");
  }

  const inject = (packet: string): void => {
    const script = `use Socket; socket(S, AF_INET, SOCK_RAW, 50) or die $!;
      send(S, pack("H*", $ARGV[0]), 0, sockaddr_in(0, inet_aton($ARGV[1]))) or die $!;`;
    a.exec("perl", "-e", script, packet, outer.b);
  };

  it("replays, packets older than the window and wrong ICVs are counted by the SA", async () => {
    const suite = suites[0]!;
    const key = Buffer.from(algorithmsOf(suite, spis.b).authentication!.key);
    await b.run.xfrmStateAdd(stateTo("b", suite, {}));
    const counts = async (): Promise<number[]> => {
      const { packets, replayErrors, replayWindowErrors, integrityErrors } = await stateOf(b, "b");
      return [packets, replayErrors, replayWindowErrors, integrityErrors];
    };
    inject(espPacket(key, 1000));
    await eventually(async () => (await counts())[0] === 1);
    inject(espPacket(key, 1000));
    await eventually(async () => (await counts())[1] === 1);
    inject(espPacket(Buffer.alloc(20), 1001));
    await eventually(async () => (await counts())[3] === 1);
    // further back than the window the kernel takes the number for one of the next 2^32, whose ICV is another
    inject(espPacket(key, 10));
    await eventually(async () => (await counts())[3] === 2);
    expect(await counts()).toEqual([1, 1, 0, 2]);
  });
});

describe("events", () => {
  it("soft and hard limits, also such as were changed later", async () => {
    const suite = suites[3]!;
    await secure(suite, "transport");
    const handle = await a.run.xfrmEvents();
    await a.run.xfrmStateUpdate(
      stateTo("b", suite, { limits: { softPackets: 2, hardPackets: 6 } }),
    );
    const seen = (): XfrmEvent[] => a.eventsOf<XfrmEvent>(handle);
    pings(outer.b, 4);
    await eventually(() => seen().some((event) => event.type === "expire" && !event.hard));
    try {
      pings(outer.b, 6);
    } catch {
      // the last ones have no SA any more
    }
    await eventually(() => seen().some((event) => event.type === "expire" && event.hard));
    const hard = seen().find((event) => event.type === "expire" && event.hard);
    expect(hard).toMatchObject({ state: { spi: spis.b, destination: outer.b, reqid: 7 } });
    const { aead } = algorithmsOf(suite, spis.b);
    expect(JSON.stringify(seen())).not.toContain(
      Buffer.from(aead!.key).toString("hex").slice(0, 8),
    );
    // what is there now, if anything, is the kernel's wish for one, of the SPI that the policy names
    const left = await a.run.xfrmStateGet({ destination: outer.b, spi: spis.b });
    expect(left?.aead ?? "").toBe("");
    await a.run.stop(handle);
  });

  it("a packet without an SA is told, with what its policy wants", async () => {
    const handle = await a.run.xfrmEvents();
    const id: XfrmPolicyId = { direction: "out", source: outer.a, destination: outer.b };
    const template = {
      source: outer.a,
      destination: outer.b,
      reqid: 99,
      mode: "transport",
    } as const;
    await a.run.xfrmPolicySet({ ...id, priority: 1, template });
    expect(() => a.exec("ping", "-n", "-c", "1", "-W", "1", outer.b)).toThrow();
    await eventually(() => a.eventsOf<XfrmEvent>(handle).length > 0);
    expect(a.eventsOf<XfrmEvent>(handle)[0]).toMatchObject({
      ...{ type: "acquire", source: outer.a, destination: outer.b, reqid: 99 },
    });
    await a.run.stop(handle);
  });
});

describe("on the wire", () => {
  it("a packet of conf gcm is what RFC 4106 says, by the keys of the exchange", async () => {
    const suite = suites[3]!;
    await secure(suite, "transport");
    const packet = await capture();
    pings(outer.b, 1);
    const esp = await packet();
    const key = Buffer.from(algorithmsOf(suite, spis.b).aead!.key);
    expect(esp.readUInt32BE(0)).toBe(spis.b);
    // CTR from 2 on is what GCM encrypts with
    const iv = Buffer.concat([key.subarray(16), esp.subarray(8, 16), Buffer.from([0, 0, 0, 2])]);
    const clear_ = createCipheriv("aes-128-ctr", key.subarray(0, 16), iv).update(
      esp.subarray(16, -16),
    );
    expect(clear_[0]).toBe(8); // an echo request
    expect(clear_.at(-1)).toBe(1); // next header: ICMP
    const padding = clear_.at(-2)!;
    expect([...clear_.subarray(-2 - padding, -2)]).toEqual(
      Array.from({ length: padding }, (_, n) => n + 1),
    );
  });

  /** begins to listen; gives what waits for the first ESP packet to b, without its IP header */
  async function capture(): Promise<() => Promise<Buffer>> {
    const filter = `ip proto 50 and dst host ${outer.b}`;
    const child = spawn("nsenter", [
      ...[`--net=/run/netns/${b.name}`, "timeout", "120"],
      ...["tcpdump", "-U", "-i", "eth0", "-c", "1", "-w", "-", filter],
    ]);
    const chunks: Buffer[] = [];
    let said = "";
    child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()));
    const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
    await eventually(() => said.includes("listening"), { timeoutMs: 10_000 });
    // behind the headers of the file, the record, Ethernet and IP
    return () => ended.then(() => Buffer.concat(chunks).subarray(24 + 16 + 14 + 20));
  }
});
