// SPDX-License-Identifier: Apache-2.0
/** Direct ports: vnetd_port against its table, and how frames from the vnetif and from other hosts get to ports. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  vnetdFdbFlags,
  vnetdMark,
  vnetdProbeWire,
  vnetdSecurity,
} from "../../src/generated/layouts.js";
import { expectBytes } from "../lib/bytes.js";
import { BpfLab, type LabVnet } from "../lib/bpf-lab.js";
import { BROADCAST_MAC, VNETD_GROUP, packet } from "../lib/packet.js";
import { GUEST_C, PORT_ROWS, both, enterB, enterLocal, from, udp } from "./port-rows.js";
import { GUEST_A, GUEST_B, PEER, fromPeer, innerFrame, rowsFor, runRow } from "./rows.js";

let lab: BpfLab | undefined;

for (const form of ["udp4", "udp6", "etherip4"] as const) {
  describe(`vnetd_port, ${form}`, () => {
    beforeAll(() => {
      lab = BpfLab.open({ form });
    });
    afterAll(() => lab?.close());
    for (const row of rowsFor(form, PORT_ROWS)) it(row.description, () => runRow(lab!, row));
  });
}

describe("frames for ports", () => {
  let vnet: LabVnet;
  beforeAll(() => {
    lab = BpfLab.open();
  });
  afterAll(() => lab?.close());

  const open = (): void => {
    lab!.underlay();
    vnet = lab!.vnet();
    both({ lab: lab!, vnet });
  };
  const at = (port: "dp0" | "dp1", mac: string, flags = 0): void =>
    enterLocal({ lab: lab!, vnet }, mac, lab!.ifindex(port), flags);
  /** how many frames came at the guests' ends meanwhile; what is put into a device the kernel does not count */
  async function copies(step: () => void, wanted: Record<string, number>): Promise<void> {
    const devices = ["dp0g", "dp1g"] as const;
    const before = devices.map((device) => lab!.received(device));
    step();
    await expect
      .poll(
        () =>
          Object.fromEntries(
            devices.flatMap((device, i) => {
              const count = lab!.received(device) - before[i]!;
              return count === 0 ? [] : [[device, count]];
            }),
          ),
        { timeout: 10_000 },
      )
      .toEqual(wanted);
  }

  it("from a port, for all: to the other ports", async () => {
    open();
    await copies(
      () => {
        const run = lab!.run("vnetd_port", udp(BROADCAST_MAC).build());
        expect(run).toMatchObject({ verdict: "redirect", drops: [], mark: vnetdMark.MARK_PIECE });
      },
      { dp1g: 1 },
    );
  });

  it("from the vnetif, for all: to all ports and other hosts", async () => {
    open();
    await copies(
      () => {
        const run = lab!.run("vnetd_encap", udp(BROADCAST_MAC).build());
        expect(run).toMatchObject({ verdict: "redirect", drops: [] });
      },
      { dp0g: 1, dp1g: 1 },
    );
    expect(lab!.learned(vnet, GUEST_A)).toMatchObject({ host: "local", port: 0 });
    expect(lab!.traffic(vnet)).toMatchObject({ encapFrames: 1, floodedFrames: 1 });
  });

  it("from the vnetif, for one behind a port: to it alone", async () => {
    open();
    at("dp1", GUEST_C);
    const frame = udp(GUEST_C).build();
    await copies(() => {
      // the shortcut leaves it to the hook that can
      expect(lab!.run("vnetd_encap_fast", frame).verdict).toBe("pass");
      const run = lab!.run("vnetd_encap", frame);
      expect(run).toMatchObject({ verdict: "redirect", drops: [], mark: 0 });
      expectBytes(run.output, frame, { what: "the frame as it was" });
    }, {});
    expect(lab!.learned(vnet, GUEST_A)).toMatchObject({ host: "local", port: 0 });
    expect(lab!.traffic(vnet).encapFrames).toBe(0);
  });

  it("from another host, for one behind a port, and for all", async () => {
    open();
    at("dp1", GUEST_A);
    const inner = innerFrame();
    const outer = (dst: string, frame: Uint8Array): Buffer =>
      Buffer.from(fromPeer({ dst }).vudp({ vnet: "4" }).payload(frame).build());
    await copies(() => {
      const run = lab!.run("vnetd_decap", outer("10.66.1.1", inner.build()));
      expect(run).toMatchObject({ verdict: "redirect", drops: [], mark: 0 });
      expectBytes(run.output, inner.build(), { what: "inner frame" });
    }, {});
    await copies(
      () => {
        const all = innerFrame({ dst: BROADCAST_MAC }).build();
        expect(lab!.run("vnetd_decap", outer(VNETD_GROUP, all)).drops).toEqual([]);
      },
      { dp0g: 1, dp1g: 1 },
    );
    // nobody knows where it is
    await copies(
      () => {
        const unknown = innerFrame({ dst: GUEST_C }).build();
        expect(lab!.run("vnetd_decap", outer(VNETD_GROUP, unknown)).drops).toEqual([]);
      },
      { dp0g: 1, dp1g: 1 },
    );
    // it is behind the vnetif
    enterLocal({ lab: lab!, vnet }, GUEST_C, 0);
    await copies(() => {
      const known = innerFrame({ dst: GUEST_C }).build();
      expect(lab!.run("vnetd_decap", outer(VNETD_GROUP, known)).drops).toEqual([]);
    }, {});
  });

  it("from another host, where merging is on: TCP by way of GRO", () => {
    lab!.underlay({ merge: true });
    vnet = lab!.vnet();
    both({ lab: lab!, vnet });
    at("dp1", GUEST_A);
    const cases = {
      tcp4: [packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv4().tcp().payload(9), true],
      tcp6: [packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv6().tcp().payload(9), true],
      udp4: [innerFrame(), false],
      udp6: [packet().eth({ src: GUEST_B, dst: GUEST_A }).ipv6().udp().payload(9), false],
      arp: [packet().eth({ src: GUEST_B, dst: GUEST_A }).arp(), false],
      tagged: [packet().eth({ src: GUEST_B, dst: GUEST_A }).vlan({ id: 5 }).ipv4().tcp(), false],
    } as const;
    const marks = (): Record<string, boolean> =>
      Object.fromEntries(
        Object.entries(cases).map(([name, [inner]]) => {
          const outer = fromPeer().vudp({ vnet: "4" }).payload(inner.build()).build();
          const run = lab!.run("vnetd_decap", outer);
          expect(run, name).toMatchObject({ verdict: "redirect", drops: [] });
          expectBytes(run.output.subarray(0, inner.build().length), inner.build(), { what: name });
          expect([0, lab!.ifindex("dp1")]).toContain(run.mark);
          return [name, run.mark !== 0];
        }),
      );
    const none = Object.fromEntries(Object.keys(cases).map((name) => [name, false]));
    // without the pair it goes as ever
    expect(marks()).toEqual(none);
    lab!.forwarding(true);
    expect(marks()).toEqual(
      Object.fromEntries(Object.entries(cases).map(([k, [, tcp]]) => [k, tcp])),
    );
    lab!.underlay();
    expect(marks()).toEqual(none);
    lab!.forwarding(false);
  });

  it("stale_pass: at the merging end, what was not sent there", () => {
    open();
    for (const mark of [0, lab!.ifindex("dp1"), 4711]) {
      const run = lab!.run("vnetd_merged", innerFrame().build(), { mark });
      expect(run.verdict).toBe("drop");
      expect(run.drops).toMatchObject([{ reason: "stale_pass", direction: "decap", handle: 0 }]);
    }
  });

  it("a MAC that is configured to be here and was not heard: at all ports, or the vnetif", async () => {
    open();
    const { FDB_STATIC, FDB_PINNED } = vnetdFdbFlags;
    enterLocal({ lab: lab!, vnet }, GUEST_C, 0, FDB_STATIC | FDB_PINNED);
    await copies(
      () => {
        const run = lab!.run("vnetd_port", udp(GUEST_C).build());
        // to the vnetif, and not to other hosts
        expect(run).toMatchObject({ verdict: "redirect", drops: [], mark: 0 });
      },
      { dp1g: 1 },
    );
  });

  it("go where the MAC was heard last, and a configured one keeps its flags", () => {
    open();
    at("dp1", GUEST_A, vnetdFdbFlags.FDB_STATIC);
    lab!.run("vnetd_port", udp(BROADCAST_MAC).build());
    expect(lab!.learned(vnet, GUEST_A)).toMatchObject({
      ...{ host: "local", port: lab!.ifindex("dp0"), flags: vnetdFdbFlags.FDB_STATIC },
    });
    // who configures it does not know where it is heard
    enterLocal({ lab: lab!, vnet }, GUEST_A, 0, vnetdFdbFlags.FDB_STATIC);
    expect(lab!.learned(vnet, GUEST_A)?.port).toBe(lab!.ifindex("dp0"));
    lab!.run("vnetd_encap", udp(BROADCAST_MAC).build());
    expect(lab!.learned(vnet, GUEST_A)?.port).toBe(0);
    expect(lab!.counts(vnet)).toMatchObject({ entries: 1, local: 1 });
  });

  it("a probe of this host that comes back by a port is a loop", () => {
    lab!.underlay();
    vnet = lab!.vnet({ probeNonce: 77n });
    both({ lab: lab!, vnet });
    const probe = Buffer.alloc(vnetdProbeWire.PROBE_FRAME_LEN);
    packet()
      .eth({ src: GUEST_A, dst: "03:56:4e:54:50:01" })
      .build()
      .forEach((byte, i) => {
        probe[i] = byte;
      });
    probe.writeUInt16BE(vnetdProbeWire.PROBE_ETHERTYPE, 12);
    probe.writeUInt32BE(vnetdProbeWire.PROBE_MAGIC, 14);
    probe[18] = vnetdProbeWire.PROBE_VERSION;
    probe.writeBigUInt64LE(77n, 22);
    const run = lab!.run("vnetd_port", probe);
    expect(run).toMatchObject({ verdict: "drop", drops: [{ reason: "loop" }] });
  });

  it("of a secure vnet leave by an SA, or not at all", () => {
    lab!.underlay({ esp: "xf0" });
    vnet = lab!.vnet({ security: vnetdSecurity.SECURITY_CONF });
    both({ lab: lab!, vnet });
    enterB({ lab: lab!, vnet });
    const frame = udp(GUEST_B).build();
    const without = lab!.run("vnetd_port", frame);
    expect(without).toMatchObject({ verdict: "drop", drops: [{ reason: "no_keys" }] });
    lab!.keys(vnet, PEER);
    const run = lab!.run("vnetd_port", frame);
    expect(run).toMatchObject({ verdict: "redirect", drops: [], mark: vnetdMark.MARK_ESP });
    const arp = lab!.run("vnetd_port", from(GUEST_B).arp().build());
    expect(arp).toMatchObject({ verdict: "redirect", mark: vnetdMark.MARK_PIECE });
    expect(lab!.run("vnetd_encap", arp.output, { mark: arp.mark })).toMatchObject({
      verdict: "redirect",
      drops: [],
    });
  });
});
