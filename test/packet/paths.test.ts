// SPDX-License-Identifier: Apache-2.0
/**
 * Several paths to one host: the table, and what needs time to pass (a test sets back when a path
 * was heard last): which path is used, and that the window of copies ends.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  decodeVnetdNexthop,
  encodeVnetdNexthop,
  encodeVnetdNexthopKey,
  vnetdControlOp,
} from "../../src/generated/layouts.js";
import { macBytes, mappedBytes } from "../lib/bytes.js";
import { BpfLab, type LabVnet, type ProgramName } from "../lib/bpf-lab.js";
import { parseFrame } from "../lib/packet-parse.js";
import { PATH_ROWS, broadcast, setPaths, toB } from "./path-rows.js";
import { GUEST_B, PEER, THIRD, runRow } from "./rows.js";

const ON_UL1 = "10.66.2.9";
let lab: BpfLab | undefined;
let vnet: LabVnet;
beforeAll(() => {
  lab = BpfLab.open();
});
afterAll(() => lab?.close());

describe("one packet", () => {
  for (const row of PATH_ROWS) it(row.description, () => runRow(lab!, row));
});

/** As if the path had been heard last so long ago. */
function heardAgo(address: string, device: "ul0" | "ul1", ms: number): void {
  const { native } = lab!;
  const addr = mappedBytes(address);
  const key = encodeVnetdNexthopKey({ handle: vnet.handle, ifindex: lab!.ifindex(device), addr });
  const id = native.mapLookup(lab!.map("nexthop_ids"), key)!;
  const record = decodeVnetdNexthop(native.mapLookup(lab!.map("nexthops"), id)!);
  const heardNs = process.hrtime.bigint() - BigInt(ms) * 1_000_000n;
  native.mapUpdate(lab!.map("nexthops"), id, encodeVnetdNexthop({ ...record, heardNs }));
}

describe("unicast", () => {
  beforeEach(() => {
    lab!.underlay();
    lab!.underlay({ device: "ul1" });
    vnet = lab!.vnet();
    setPaths({ lab: lab!, vnet }, [{ address: PEER }, { address: ON_UL1, device: "ul1" }]);
    lab!.control(vnetdControlOp.CTL_LEARN, vnet, {
      mac: macBytes(GUEST_B),
      addr: mappedBytes(PEER),
    });
  });
  afterAll(() => lab?.detach("ul1"));

  const sentTo = (program: ProgramName): string => {
    const frame = toB().ipv4().udp({ dst: 9 }).payload(20).build();
    const { verdict, output } = lab!.run(program, frame);
    expect(verdict).toBe("redirect");
    return parseFrame(output).ipv4!.dst;
  };

  describe.each(["vnetd_encap", "vnetd_encap_fast"] as const)("%s", (program) => {
    it("stays on the primary path while it is heard", () => {
      heardAgo(PEER, "ul0", 900);
      heardAgo(ON_UL1, "ul1", 0);
      expect(sentTo(program)).toBe(PEER);
    });
    it("stays there when neither is heard", () => {
      heardAgo(PEER, "ul0", 50_500);
      heardAgo(ON_UL1, "ul1", 50_000);
      expect(sentTo(program)).toBe(PEER);
    });
    it("goes by the other when that alone is heard", () => {
      heardAgo(PEER, "ul0", 5000);
      heardAgo(ON_UL1, "ul1", 100);
      expect(sentTo(program)).toBe(ON_UL1);
      heardAgo(PEER, "ul0", 0);
      expect(sentTo(program)).toBe(PEER);
    });
    it("goes by the other when the primary's device is down or detached", () => {
      lab!.underlay({ up: false });
      expect(sentTo(program)).toBe(ON_UL1);
      lab!.detach("ul0");
      expect(sentTo(program)).toBe(ON_UL1);
    });
    it("leaves an entry's old path for the primary one", () => {
      setPaths({ lab: lab!, vnet }, [{ address: ON_UL1, device: "ul1" }, { address: PEER }]);
      expect(sentTo(program)).toBe(ON_UL1);
      heardAgo(ON_UL1, "ul1", 5000);
      heardAgo(PEER, "ul0", 100);
      expect(sentTo(program)).toBe(PEER);
    });
    it("never goes to another host, whatever an old record says", () => {
      setPaths(
        { lab: lab!, vnet },
        [
          { address: ON_UL1, device: "ul1" },
          { address: "10.66.2.8", device: "ul1" },
        ],
        Buffer.alloc(16, 7),
      );
      heardAgo(PEER, "ul0", 5000);
      expect(sentTo(program)).toBe(PEER);
    });
  });

  it("goes to the group when no path's device is up", () => {
    lab!.underlay({ up: false });
    lab!.underlay({ device: "ul1", up: false });
    const { drops } = lab!.run("vnetd_encap", toB().arp().build());
    expect(drops.map(({ reason }) => reason)).toEqual(["no_underlay"]);
  });
});

describe("copies", () => {
  it("are told for about a second", async () => {
    lab!.underlay();
    vnet = lab!.vnet();
    setPaths({ lab: lab!, vnet }, [{ address: PEER }, { address: THIRD }]);
    const verdict = (src: string): string =>
      lab!.run("vnetd_decap", broadcast(src, 9).build()).verdict;
    expect(verdict(PEER)).toBe("redirect");
    await sleep(1300);
    expect(verdict(THIRD)).toBe("redirect");
    expect(verdict(PEER)).toBe("drop");
  });
});
