// SPDX-License-Identifier: Apache-2.0
/**
 * The devices through which frames pass on their way between two of our programs. Of a pair the
 * sending end has its offloads off, so that the kernel makes single packets of super-frames there:
 *
 *   segment   outer super-frames that cannot be decapsulated whole   (bpf/decap.bpf.c); and the other way round, TCP that
 *             GRO merges on its way to a direct port (bpf/port.bpf.c)
 *   relay     what is forwarded to peers, and what comes from them (bpf/relay.bpf.c)
 *   oversize  inner frames too large for the underlay, whose checksums must be filled in as well
 *             (bpf/oversize.bpf.c)
 *
 * And a VXLAN device for packets that came in fragments. One of each for a network namespace; they
 * stay when the daemon goes.
 */
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { VnetdError } from "../base/errors.js";
import { vnetdLimits } from "../generated/layouts.js";
import type { LinkInfo, Native } from "../native/contract.js";
import { kernel } from "./errno.js";
import { helperPairs, reassemblyDevice } from "./names.js";
import {
  mustGet,
  peerMtuBytes,
  quiet,
  setFeatures,
  tsoOff,
  tunnelSegmentationOff,
} from "./vnetif.js";

export type HelperKind = keyof typeof helperPairs;

export interface HelperPair {
  out: LinkInfo;
  in: LinkInfo;
}

/** each end has a ring of pointers for each */
const maxQueues = 64;
const segmentationOff = { ...tsoOff, ...tunnelSegmentationOff, "tx-udp-segmentation": false };
const featuresOf: Record<HelperKind, Record<string, boolean>> = {
  segment: segmentationOff,
  oversize: { ...segmentationOff, "tx-checksum-ip-generic": false },
  relay: { ...segmentationOff, "tx-checksum-ip-generic": false },
};
/** locally administered; the last byte tells the ends apart */
const macPrefixOf: Record<HelperKind, string> = {
  segment: "02:76:6e:65:74:0",
  oversize: "02:76:6e:65:74:1",
  relay: "02:76:6e:65:74:3",
};

export function ensureHelperPair(native: Native, kind: HelperKind): HelperPair {
  const names = helperPairs[kind];
  const existing = native.linkGet(names.out);
  if (existing === undefined) create(native, kind);
  else if (existing.alias !== names.alias) {
    throw notOurs(names.out);
  }
  return kernel(`setting up ${names.out}`, () => {
    for (const name of [names.out, names.in]) quiet(native, mustGet(native, name), names.alias);
    setFeatures(native, names.out, featuresOf[kind]);
    if (kind === "segment") {
      // the other way round it merges (bpf/lib/ports.h); veth leaves that out where the sending end has TSO
      setFeatures(native, names.in, tsoOff);
      setFeatures(native, names.out, { "rx-gro": true });
      // the stack has nothing that comes by this end; programs ask for routes as if it had (bpf/lib/route.h)
      // not when it is so already: the kernel would tell all who listen, this daemon among them
      if (!forwardsIpv4(names.out))
        native.linkSet(mustGet(native, names.out).ifindex, { forwardsIpv4: true });
    }
    return { out: mustGet(native, names.out), in: mustGet(native, names.in) };
  });
}

function forwardsIpv4(device: string): boolean {
  try {
    return readFileSync(`/proc/sys/net/ipv4/conf/${device}/forwarding`, "utf8").trim() === "1";
  } catch {
    // no /proc: it is set once more
    return false;
  }
}

/**
 * A VXLAN device that nobody sends by: outer packets in fragments are made to look like VXLAN to
 * its port, so that the kernel reassembles them and delivers them to a program
 * (bpf/lib/reassembly.h).
 */
export function ensureReassembly(native: Native): LinkInfo {
  const { name, alias } = reassemblyDevice;
  const existing = native.linkGet(name);
  if (existing !== undefined && existing.alias !== alias) throw notOurs(name);
  if (existing === undefined) {
    const port = vnetdLimits.REASSEMBLY_PORT;
    const mac = "02:76:6e:65:74:20";
    kernel(`making ${name}`, () => native.linkAddVxlan({ name, port, mac, alias }));
  }
  return kernel(`setting up ${name}`, () => {
    const link = mustGet(native, name);
    if (!link.up) {
      native.linkSet(link.ifindex, { noIpv6LinkLocal: true, noArp: true });
      native.linkSet(link.ifindex, { up: true });
    }
    return mustGet(native, name);
  });
}

function notOurs(name: string): VnetdError {
  return new VnetdError("NAME_IN_USE", `${name} is a device that vnetd did not make`, {
    hint: "Remove or rename it.",
  });
}

function create(native: Native, kind: HelperKind): void {
  const names = helperPairs[kind];
  const options = {
    name: names.out,
    peerName: names.in,
    mac: `${macPrefixOf[kind]}0`,
    peerMac: `${macPrefixOf[kind]}1`,
    mtuBytes: peerMtuBytes,
    peerMtuBytes,
    alias: names.alias,
    // what a NIC's queues deliver on many cores is merged on as many
    ...(kind === "segment" ? { queues: Math.min(cpus().length, maxQueues) } : {}),
  };
  kernel(`making ${names.out}`, () => native.linkAddVeth(options));
}
