// SPDX-License-Identifier: Apache-2.0
/**
 * The kernel's ESP for secure vnets: an xfrm interface beside each underlay device, and the SAs and
 * policies of the paths that lead over it. A path is a next hop, which has one vnet and one host's address.
 *
 *   out  from synthetic addresses that name the next hop (enum vnetd_esp) by the one policy of theirs, whose
 *        template names an SA by its SPI, to the real ones (BEET). Another SPI in the template is all
 *        that it takes to change keys: the kernel replaces a policy in place. It takes packets with the mark
 *        of our programs alone: IPv6 has a route to those addresses, by which strangers' could be forwarded.
 *   in   by the SPI that we chose; on the interface the packet's mark is that SPI. There are no policies: the
 *        interface's program takes all, and the stack takes nothing without one.
 *
 * What is ours bears VNETD_ESP_ID in its interface id. SAs and policies without are others' (an IKE
 * daemon's), and are never changed, not even where they are in our way. All stays when the daemon goes.
 */
import { vnetdEsp, vnetdMark } from "../generated/layouts.js";
import { type EspKeys, type Suite, wipeEspKeys } from "../keys/esp-keys.js";
import type {
  LinkInfo,
  Native,
  XfrmPolicyId,
  XfrmPolicyInfo,
  XfrmState,
  XfrmStateId,
  XfrmStateInfo,
} from "../native/contract.js";
import { errnoName, kernel } from "./errno.js";
import { ensureEspDevice, removeEspDevice } from "./esp-device.js";
import { EspProbe } from "./esp-probe.js";
import { algorithmsOf, deviceOfIfId, ifIdOf, ourIfIds, synthetic } from "./esp-form.js";
import { espAlias } from "./names.js";

/** Over which device, and between which addresses, ESP goes for a next hop. */
export interface EspPath {
  own: string;
  peer: string;
  /** ifindex of the underlay device */
  device: number;
  nexthop: number;
}

export type EspDirection = "in" | "out";

/** What the kernel says of an SA of ours. */
export interface EspSa extends EspPath {
  direction: EspDirection;
  spi: number;
  packets: number;
  bytes: number;
  /** since 1970; used: 0 for never */
  addedSeconds: number;
  usedSeconds: number;
  /** packets that came twice, that were older than the window, and whose ICV was wrong */
  replayErrors: number;
  replayWindowErrors: number;
  integrityErrors: number;
}

/** By which SA a next hop is sent to; there need not be one of that SPI. */
export interface EspPolicy extends EspPath {
  spi: number;
}

/** RFC 4303 asks for 32, and advises 64; packets that several cores sent overtake each other by more */
const replayWindow = 256;
/** of an SA that is sent by, where nothing is compared with it */
const noReplayWindow = 32;
/** of packets that our programs give to the interface, and none else (marks.h); it ends with the SA */
const programsMark = { value: vnetdMark.MARK_ESP, mask: 0xffffffff };
const noMark = { value: 0, mask: 0xffffffff };
const reqidMask = 0x00ffffff;
/** there is one policy for a packet, so none is before another */
const priority = 1;

export class EspHost {
  private readonly probe: EspProbe;

  constructor(private readonly native: Native) {
    this.probe = new EspProbe(native);
  }

  /**
   * Why this kernel cannot do ESP, by the options and modules that it lacks; undefined: it can. One
   * suite, or all. Tried once, by which the kernel loads its modules; nothing is left of that.
   */
  problem(suite?: Suite): string | undefined {
    return this.probe.problem(suite);
  }

  /** The xfrm interface of an underlay device: made, or adopted and set right; to be called as well when the underlay's
   * MTU has changed. */
  ensureDevice(underlay: LinkInfo): LinkInfo {
    return ensureEspDevice(this.native, underlay);
  }

  /** The interface of an underlay device, that one's ifindex given, with all its SAs and policies. */
  removeDevice(ifindex: number): void {
    this.removeWhere((device) => device === ifindex);
  }

  /** All interfaces, SAs and policies of ours but those of the underlay devices that are kept. */
  removeAll(keep: ReadonlySet<number>): void {
    this.removeWhere((device) => !keep.has(device));
  }

  /** Adds an SA to receive by. The kernel's EEXIST (`cause`): the SPI is taken. The keys are wiped. */
  addIn(path: EspPath, spi: number, suite: Suite, keys: EspKeys, hardSeconds: number): void {
    this.addState(keys, `SA from ${path.peer}`, () => ({
      ...{ source: path.peer, destination: path.own, spi, ...common(path) },
      ...algorithmsOf(suite, keys),
      ...{ replayWindow, limits: { hardSeconds } },
      outputMark: { value: spi, mask: 0xffffffff },
    }));
  }

  /** Adds an SA to send by, and sends by it from now on. The keys are wiped. */
  addOut(path: EspPath, spi: number, suite: Suite, keys: EspKeys, hardSeconds: number): void {
    const { own, peer } = path;
    const what = `SA to ${peer}`;
    const ids = common(path);
    this.addState(keys, what, () => ({
      ...{ source: own, destination: peer, spi, ...ids },
      ...algorithmsOf(suite, keys),
      ...{ replayWindow: noReplayWindow, limits: { hardSeconds } },
      inner: synthetic(path),
      outputMark: noMark,
    }));
    try {
      const { reqid, mode } = ids;
      const template = { source: own, destination: peer, spi, reqid, mode };
      kernel(`policy for ${peer}`, () =>
        this.native.xfrmPolicySet({ ...policyId(path), priority, template }),
      );
    } catch (error) {
      this.removeOut(path, spi, false);
      throw error;
    }
  }

  /** No error when it is gone. */
  removeIn(path: EspPath, spi: number): void {
    this.removeState({ destination: path.own, spi }, path);
  }

  /** With the policy when it is the current one: nothing goes to that next hop then. */
  removeOut(path: EspPath, spi: number, isCurrent: boolean): void {
    if (isCurrent)
      kernel(`policy for ${path.peer}`, () => this.native.xfrmPolicyDelete(policyId(path)));
    this.removeState({ destination: path.peer, spi }, path);
  }

  /** All SAs of ours. */
  stats(): EspSa[] {
    return this.states().flatMap((state) => saOf(state) ?? []);
  }

  one(direction: EspDirection, path: EspPath, spi: number): EspSa | undefined {
    const destination = direction === "in" ? path.own : path.peer;
    const state = kernel("SA", () => this.native.xfrmStateGet({ destination, spi }));
    const found = state === undefined ? undefined : saOf(state);
    return found?.direction === direction ? found : undefined;
  }

  /** All policies of ours: what is sent by, whether its SA is there or not. */
  policies(): EspPolicy[] {
    return this.policyList().flatMap((policy) => policyOf(policy) ?? []);
  }

  private states(): XfrmStateInfo[] {
    return kernel("SAs", () => this.native.xfrmStateList(ourIfIds));
  }

  private policyList(): XfrmPolicyInfo[] {
    return kernel("policies", () => this.native.xfrmPolicyList(ourIfIds));
  }

  private addState(keys: EspKeys, what: string, make: () => XfrmState): void {
    try {
      kernel(what, () => this.native.xfrmStateAdd(make()));
    } finally {
      wipeEspKeys(keys);
    }
  }

  /**
   * By its destination and SPI alone the kernel would delete whosoever's it is: another program's, or
   * that of another vnet, whose SPI a member of this one may have named as its own.
   */
  private removeState(id: XfrmStateId, path: EspPath): void {
    const { ifId: wanted, reqid } = common(path);
    kernel(`removing the SA to ${id.destination}`, () => {
      const found = this.native.xfrmStateGet(id);
      if (found?.ifId === wanted && found.reqid === reqid) this.native.xfrmStateDelete(id);
    });
  }

  /** Policies go first, then SAs, then interfaces: at no time can a packet leave in clear. */
  private removeWhere(isWanted: (device: number) => boolean): void {
    const wanted = ({ ifId }: { ifId?: number }): boolean => {
      const device = deviceOfIfId(ifId);
      return device !== undefined && isWanted(device);
    };
    this.removeXfrm(wanted);
    for (const link of this.native.linkList()) {
      if (link.alias === espAlias && wanted({ ifId: link.xfrmIfId ?? 0 }))
        removeEspDevice(this.native, link);
    }
  }

  private removeXfrm(wanted: (each: { ifId?: number }) => boolean): void {
    try {
      for (const policy of this.policyList().filter(wanted))
        kernel("policy", () => this.native.xfrmPolicyDelete(policy));
      // what waits for an SA as well (an SPI of 0 has none to delete it by, and goes by itself)
      for (const state of this.states().filter((each) => wanted(each) && each.spi !== 0))
        kernel("SA", () => this.native.xfrmStateDelete(state));
    } catch (error) {
      // a kernel without xfrm has nothing of ours
      const cause = error instanceof Error ? error.cause : undefined;
      if (errnoName(cause) !== "EPROTONOSUPPORT") throw error;
    }
  }
}

/** What both SAs of a path have. */
function common({ device, nexthop }: EspPath) {
  const reqid = vnetdEsp.ESP_ID + nexthop;
  return { ifId: ifIdOf(device), reqid, mode: "beet", esn: true } as const;
}

function policyId(path: EspPath): XfrmPolicyId {
  return { direction: "out", ...synthetic(path), ifId: ifIdOf(path.device), mark: programsMark };
}

/** Nothing for what is not ours, and for what the kernel made while it waited for an SA. */
function saOf(state: XfrmStateInfo): EspSa | undefined {
  const device = deviceOfIfId(state.ifId);
  if (device === undefined || (state.authentication === "" && state.aead === "")) return undefined;
  const { source, destination, spi } = state;
  const isIn = state.outputMark?.value === spi;
  const ends = isIn ? { own: destination, peer: source } : { own: source, peer: destination };
  const { packets, bytes, addedSeconds, usedSeconds } = state;
  const { replayErrors, replayWindowErrors, integrityErrors } = state;
  return {
    ...{ direction: isIn ? "in" : "out", spi, device, nexthop: state.reqid & reqidMask, ...ends },
    ...{ packets, bytes, addedSeconds, usedSeconds },
    ...{ replayErrors, replayWindowErrors, integrityErrors },
  };
}

function policyOf({ ifId, templates }: XfrmPolicyInfo): EspPolicy | undefined {
  const device = deviceOfIfId(ifId);
  const [template] = templates;
  if (device === undefined || template === undefined) return undefined;
  const { source: own, destination: peer, spi = 0, reqid } = template;
  return { own, peer, device, nexthop: reqid & reqidMask, spi };
}
