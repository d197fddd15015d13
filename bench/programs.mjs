// SPDX-License-Identifier: Apache-2.0
/**
 * Single programs: how large each is, and what one packet takes in it, by BPF_PROG_TEST_RUN (bench/forward.c). They are the
 * daemon's own, by the names under which it has pinned them, since the kernel cuts names.
 */
import { readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { vnetdMark } from "../dist/src/generated/layouts.js";
import { lanes, udpFrame } from "./frames.mjs";
import { HostMaps } from "./host-maps.mjs";
import { run } from "./lab.mjs";

const built = (name) => join(resolve(import.meta.dirname, ".."), "build", "bench", name);
const forward = built("forward");
const object = built("forward.bpf.o");
const core = 0;
/** TC_ACT_OK, TC_ACT_SHOT, TC_ACT_REDIRECT; XDP_PASS */
const [passed, done, redirected, xdpPassed] = [0, 2, 7, 2];

/** What is not run by itself, and why. */
export const notRun = {
  vnetd_reassembled:
    "what came in fragments is told by the tunnel's marks, which a test run cannot give a packet",
  vnetd_merged: "the port stands in a VLAN tag beside the packet, which a test run cannot give it",
  vnetd_esp: "it takes what the kernel has decrypted, and a test run has no state of ESP's",
};
/** the daemon runs these, no frame does */
const notForFrames = ["vnetd_control", "vnetd_send"];

/** of a host that there is not, beyond the subnet: those of the subnet are reached by the group */
const peerAddress = "100.64.9.9";
const idOfVnet4 = [...new Array(15).fill(0), 4];
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const macOf = (place, device) => place.link(device).address;

/** A frame of vnet 4 in its headers, from one host to another, as it is on the wire. */
function outerFrame(from, to, inner, group) {
  const numberOf = ({ netns }) => netns.at(-1);
  // message VUDP, EtherIP's version, the vnet
  const vudp = [0, 2, 0, 0, 0, 0x40, ...idOfVnet4];
  return udpFrame({
    fromMac: macOf(from, "eth0"),
    toMac: group?.mac ?? macOf(to, "eth0"),
    from: `198.51.100.${numberOf(from)}`,
    to: group?.address ?? `198.51.100.${numberOf(to)}`,
    port: 1798,
    payload: [...vudp, ...Buffer.from(inner, "hex")],
  });
}

const defaultGroup = { address: "224.10.0.1", mac: "01:00:5e:0a:00:01" };

/** {program, what, device, frame, mark?, verdict, isXdp?} of each run */
function runsOf(lab) {
  const [near, far] = lab.hosts;
  const { host, guest } = lanes(lab);
  const ip = host.vnetd.frame;
  const back = host.vnetd.back;
  const { arp } = host.vnetd;
  const peer = near.link("vnif0004").link;
  const own = { device: "vnif0004", verdict: redirected };
  const out = { device: peer, verdict: redirected };
  const large = { fromMac: macOf(near, "vnif0004"), toMac: macOf(far, "vnif0004") };
  const tooLarge = udpFrame({ ...large, from: "192.168.4.1", to: "192.168.4.2", bytes: 1472 });
  const received = outerFrame(far, near, back);
  const xdp = { device: "eth0", frame: received, verdict: xdpPassed, isXdp: true };
  if (lab.variant.attach !== undefined)
    return [{ ...xdp, program: "vnetd_xdp", what: "headers taken off (attached with XDP)" }];
  return [
    { ...own, program: "vnetd_encap_fast", what: "IP", frame: ip },
    {
      ...own,
      program: "vnetd_encap_fast",
      what: "ARP, left to the next",
      frame: arp,
      verdict: passed,
    },
    { ...out, program: "vnetd_encap", what: "IP", frame: ip },
    { ...out, program: "vnetd_encap", what: "ARP, headers in front", frame: arp },
    {
      ...{ ...out, program: "vnetd_encap", what: "ARP, the second pass" },
      ...{ frame: outerFrame(near, far, arp), mark: vnetdMark.MARK_SECOND_PASS },
    },
    { program: "vnetd_decap", what: "IP", device: "eth0", frame: received, verdict: redirected },
    ...(guest.port === undefined
      ? []
      : [
          {
            ...out,
            program: "vnetd_port",
            what: "IP",
            device: guest.port.at,
            frame: guest.port.frame,
          },
        ]),
    { ...xdp, program: "vnetd_xdp", what: "headers left on" },
    { ...xdp, program: "vnetd_xdp_generic", what: "headers left on" },
    {
      ...{
        program: "vnetd_oversize",
        what: "1,500 bytes in two fragments, each a copy that is sent",
      },
      ...{ device: "vn-oversize1", frame: tooLarge, verdict: done },
      mark: vnetdMark.MARK_OVERSIZE | slotOfVnet4(near),
    },
    {
      ...{ program: "vnetd_relay", what: "for one peer, a copy that is sent" },
      ...{ device: "vn-relay1", frame: outerFrame(near, far, arp, defaultGroup), verdict: done },
      mark: vnetdMark.MARK_RELAY,
    },
  ];
}

function slotOfVnet4({ netns }) {
  const maps = new HostMaps(netns);
  try {
    return maps.maps.vnetSlots().get(hex(idOfVnet4));
  } finally {
    maps.close();
  }
}

/** By name, where the daemon of a host has pinned each. */
function pinned({ bpffs }) {
  const layout = join(
    bpffs,
    readdirSync(bpffs).find((name) => name.startsWith("layout-")),
  );
  const directory = readdirSync(layout).find((name) => /^programs-\d/.test(name));
  return new Map(
    readdirSync(join(layout, directory)).map((name) => [name, join(layout, directory, name)]),
  );
}

/** frames of vnets that were dropped, by reason */
function dropsOf(host) {
  const counts = {};
  for (const { reason, frames } of JSON.parse(host.vnetd("status", "--json")).drops)
    counts[reason] = (counts[reason] ?? 0) + frames;
  return counts;
}

/** How large all programs are that frames run. @returns [{name, instructions, bytes, verified}] */
export function sizes(lab) {
  return [...pinned(lab.hosts[0])]
    .filter(([name]) => !notForFrames.includes(name))
    .map(([name, pin]) => ({ name, ...JSON.parse(run([forward, "size", pin])) }));
}

/**
 * One packet's time in each program that can be run by itself, and how large the program is. Adds a peer to the first
 * host, so nothing is to be measured behind it.
 *
 * @returns [{name, what, ns, instructions, bytes, verified}]
 */
export function programs(lab, count) {
  const [host] = lab.hosts;
  const pins = pinned(host);
  if (lab.variant.attach === undefined) {
    host.ip(`route add ${peerAddress}/32 dev eth0`);
    host.ip(`neighbour add ${peerAddress} lladdr 02:00:00:00:00:09 dev eth0 nud permanent`);
    host.vnetd("peer-add", peerAddress);
  }
  return runsOf(lab).map((each) => {
    const argv = (name, times) => {
      const { device, frame, mark = 0 } = each;
      return [
        forward,
        "program",
        object,
        pins.get(name),
        device,
        frame,
        String(times),
        String(mark),
      ];
    };
    // the far host may announce what XDP then leaves to vnetd_decap once
    for (let tries = 1; ; tries += 1) {
      if (each.isXdp) host.run(argv("vnetd_decap", 1), core);
      const before = dropsOf(host);
      const found = JSON.parse(host.run(argv(each.program, count), core));
      const wrong = wrongEnd(each, found, before, dropsOf(host), count);
      if (wrong === undefined) return { name: each.program, what: each.what, ...found };
      if (tries === 3) throw new Error(`${each.program}, ${each.what}: ${wrong}`);
    }
  });
}

/** How runs did not end as they are meant to: what was measured is something else then. */
function wrongEnd({ verdict, isXdp }, found, before, after, count) {
  const dropped = Object.keys(after).filter(
    (reason) => after[reason] - (before[reason] ?? 0) >= count / 2,
  );
  if (dropped.length > 0) return `dropped, ${dropped.join(", ")}`;
  if (found.verdict !== verdict) return `returned ${found.verdict}, which is to be ${verdict}`;
  if (isXdp && found.changed < count / 2) return `took ${found.changed} of ${count} packets`;
  return undefined;
}
