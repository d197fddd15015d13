// SPDX-License-Identifier: Apache-2.0
/**
 * The devices that carry vnets: address, link, group, hook; the routes to the hosts; and guests whose frames
 * are larger than the vnet carries. It takes a daemon's devices, or those that are recorded in pinned maps.
 */
import { addressToText, familyOf, parseAddress, type Family } from "../base/address.js";
import { shortVnetId, type VnetId } from "../base/vnet-id.js";
import type { Hooks } from "../dataplane/hooks.js";
import type { Maps } from "../dataplane/maps.js";
import { vnetdNexthopFlags } from "../generated/layouts.js";
import { portsOf } from "../host/bridge.js";
import { vnetOfAlias } from "../host/names.js";
import type { UnderlayState } from "../host/underlay-state.js";
import type { LinkInfo, Native } from "../native/contract.js";
import { Skipped, type Check, type Found } from "./check.js";
import { fileText, type KernelFacts } from "./kernel.js";
import { xdpFound } from "./xdp.js";

export interface PlaceView {
  device: string;
  family: Family;
  group: string;
  /** group traffic by multicast is wanted here */
  joins: boolean;
  state: UnderlayState;
  /** what the daemon says of it, beyond its state */
  failure: string;
}

export interface UnderlayFacts extends KernelFacts {
  native: Native;
  places: () => PlaceView[];
  maps: Maps;
  hooks: Hooks;
  daemonRuns: boolean;
}

const maxNamed = 16;

export function underlayChecks(facts: UnderlayFacts): Check[] {
  return [
    { name: "underlay", run: () => devicesFound(facts) },
    { name: "group", run: () => joining(facts).flatMap((place) => groupFound(facts, place)) },
    { name: "hooks", run: () => hooksFound(facts) },
    { name: "other-programs", run: () => othersFound(facts) },
    { name: "xdp", run: () => xdpFound(facts) },
    { name: "routes", run: () => routesFound(facts) },
    { name: "guest-mtu", run: () => guestsFound(facts) },
  ];
}

// ---- devices

function devicesFound({ places }: UnderlayFacts): Found[] {
  const all = places();
  if (all.length === 0)
    return [
      {
        level: "problem",
        what: "no device is attached, so vnets reach no other host",
        seen: "there is no record of one",
        fix: "vnetd attach DEVICE, with the device by which this host reaches the others",
      },
    ];
  return all.flatMap(({ device, state, failure }) => {
    const problem = failure === "" ? state.problem : failure;
    if (problem === "") return [];
    const seen = `the kernel's lists of links and addresses`;
    return [
      { level: "problem", what: `${device}: ${problem}`, seen, fix: deviceFix(device, state) },
    ];
  });
}

function deviceFix(
  device: string,
  { ifindex, up, address, family, mtuBytes }: UnderlayState,
): string {
  if (ifindex === 0)
    return `ip -br link shows what is there; vnetd detach ${device} if it is gone for good`;
  if (address === null) return `ip -${String(family)} address add ADDRESS/PREFIX dev ${device}`;
  if (!up) return `ip link set dev ${device} up; with no carrier see the cable, or the other end`;
  return mtuBytes < 576 ? `ip link set dev ${device} mtu 1500` : "vnetd status says what to do";
}

// ---- the group

function joining({ places }: UnderlayFacts): PlaceView[] {
  const all = places().filter(({ state, joins }) => joins && state.ifindex !== 0);
  if (all.length === 0) throw new Skipped("no device is to use multicast");
  return all.filter(({ state }) => state.problem === "");
}

function groupFound(facts: UnderlayFacts, { device, family, group, state }: PlaceView): Found[] {
  const length = family === 4 ? 32 : 128;
  const fix = `ip address replace ${group}/${String(length)} dev ${device} autojoin`;
  const listed = isJoined(facts, device, group, family);
  if (state.groupJoined && listed !== false) return [];
  return [
    {
      level: "problem",
      what: `${device}: the group ${group} is not joined, so switches that watch IGMP or MLD send it nothing`,
      seen: state.groupJoined
        ? `/proc/net/${family === 4 ? "igmp" : "igmp6"} does not name it`
        : "the device does not have the group's address with autojoin",
      fix,
    },
  ];
}

/** undefined: the kernel does not say */
export function isJoined(
  facts: KernelFacts,
  device: string,
  group: string,
  family: Family,
): boolean | undefined {
  const bytes = Buffer.from(parseAddress(group));
  if (family === 6) {
    const text = fileText(facts, "proc/net/igmp6");
    const wanted = bytes.toString("hex");
    return text?.split("\n").some((line) => {
      const [, name, address] = line.trim().split(/\s+/u);
      return name === device && address === wanted;
    });
  }
  const text = fileText(facts, "proc/net/igmp");
  if (text === undefined) return undefined;
  // as the kernel has it in memory: the bytes of the address, read as a number of this machine
  const wanted = Buffer.from(bytes.subarray(12)).reverse().toString("hex").toUpperCase();
  let of = "";
  for (const line of text.split("\n").slice(1)) {
    const head = /^\d+\s+(\S+)/u.exec(line);
    if (head !== null) of = (head[1] ?? "").replace(/:$/u, "");
    else if (of === device && line.trim().startsWith(wanted)) return true;
  }
  return false;
}

// ---- hooks

function hooksFound({ places, hooks, daemonRuns }: UnderlayFacts): Found[] {
  const devices = new Map(places().map(({ device, state }) => [device, state.ifindex]));
  return [...devices].flatMap(([device, ifindex]) => {
    if (ifindex === 0 || hooks.present({ ifindex, direction: "ingress" })) return [];
    return [
      {
        level: "problem" as const,
        what: `${device}: nothing is received, the program is not hooked`,
        seen: `no ingress program of ours on ${device}`,
        fix: daemonRuns
          ? "the daemon hooks it again within a second; if it does not: systemctl restart vnetd"
          : "systemctl start vnetd",
      },
    ];
  });
}

/** They may be meant to be there, and take or change what is ours: worth a look where frames are missing. */
function othersFound({ places, hooks }: UnderlayFacts): Found[] {
  const devices = new Map(places().map(({ device, state }) => [device, state.ifindex]));
  return [...devices].flatMap(([device, ifindex]) => {
    if (ifindex === 0) return [];
    return (["ingress", "egress"] as const).flatMap((direction): Found[] => {
      const others = hooks.others({ ifindex, direction });
      if (others.length === 0) return [];
      return [
        {
          level: "note",
          what: `${device}: programs of others are hooked where vnets' packets ${direction === "ingress" ? "arrive" : "leave"}, and may take or change them`,
          seen: others.slice(0, maxNamed).join(", "),
          fix: `bpftool net show dev ${device}; tc filter show dev ${device} ${direction}`,
        },
      ];
    });
  });
}

// ---- routes

function routesFound({ native, maps }: UnderlayFacts): Found[] {
  const links = new Map(native.linkList().map((link) => [link.ifindex, link]));
  const hosts = new Map<string, { address: string; ifindex: number }>();
  for (const { flags, key } of maps.nexthops().values()) {
    if ((flags & vnetdNexthopFlags.NEXTHOP_MEMBER) === 0) continue;
    const address = addressToText(key.addr);
    // a link-local address is on each device
    if (address.startsWith("fe80:") || inVrf(links, key.ifindex)) continue;
    hosts.set(`${address} ${String(key.ifindex)}`, { address, ifindex: key.ifindex });
  }
  if (hosts.size === 0) throw new Skipped("no other host is known");
  return [...hosts.values()]
    .flatMap(({ address, ifindex }) => {
      const routed = native.routeGet(address);
      const device = links.get(ifindex)?.name ?? String(ifindex);
      if (routed === ifindex) return [];
      const by = links.get(routed)?.name;
      const found: Found = {
        level: "problem",
        what: `${address} is heard by ${device}, and the kernel would not send to it by that`,
        seen: by === undefined ? "there is no route to it" : `its route leads by ${by}`,
        fix: `ip route get ${address} shows the route; ip route replace ${address}/${String(familyOf(parseAddress(address)) === 4 ? 32 : 128)} dev ${device}`,
      };
      return [found];
    })
    .slice(0, maxNamed);
}

function inVrf(links: ReadonlyMap<number, LinkInfo>, ifindex: number): boolean {
  return links.get(links.get(ifindex)?.master ?? 0)?.kind === "vrf";
}

// ---- guests

/** The kernel's bridge drops what is too large for the vnetif, and counts and answers nothing. */
function guestsFound({ native }: UnderlayFacts): Found[] {
  const vnifs = native
    .linkList()
    .filter(({ alias, master }) => master !== 0 && vnetOfAlias(alias) !== undefined);
  const found = vnifs.flatMap((vnif) => {
    const id = vnetOfAlias(vnif.alias) as VnetId;
    const larger = portsOf(native, vnif.master).filter(
      ({ ifindex, mtuBytes }) => ifindex !== vnif.ifindex && mtuBytes > vnif.mtuBytes,
    );
    return larger.map(({ name, mtuBytes }): Found => {
      const mtu = String(vnif.mtuBytes);
      return {
        level: "warning",
        what: `vnet ${shortVnetId(id)}: the guest behind ${name} may send packets that the vnet does not carry; the bridge drops them without a word`,
        seen: `${name} has MTU ${String(mtuBytes)}, ${vnif.name} has ${mtu}`,
        fix: `ip link set dev ${name} mtu ${mtu}, and the same in the guest (by DHCP option 26, for example)`,
      };
    });
  });
  const more = found.length - maxNamed;
  if (more <= 0) return found;
  const rest = { level: "warning" as const, what: `the same for ${String(more)} more ports` };
  return [...found.slice(0, maxNamed), { ...rest, seen: "as above", fix: "as above" }];
}
