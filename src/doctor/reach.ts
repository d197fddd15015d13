// SPDX-License-Identifier: Apache-2.0
/**
 * Whether packets get from here to each host and back, by asking: small ones by unicast, by the group in both
 * directions, as large as the path is said to be, and in fragments; and what the clock of each says.
 * All hosts are asked at the same time; a question that is not answered is put again.
 */
import { familyOfText, parseAddress } from "../base/address.js";
import type { Controller } from "../controller.js";
import type { AskAnswer, WholeSocket } from "../controller/asks.js";
import { onSubnetOf } from "../controller/peer-places.js";
import type { Underlay } from "../controller/underlays.js";
import type { RunningVnet } from "../controller/vnets.js";
import { nowMs } from "../controller/context.js";
import { pathMtuBytes } from "../dataplane/tables.js";
import { vnetdCapability, vnetdWire } from "../generated/layouts.js";
import { Skipped, type Check, type Found } from "./check.js";
import { largestThat } from "./search.js";

/** A host by one of its paths. */
export interface Target {
  name: string;
  address: string;
  underlay: Underlay;
  vnet: RunningVnet;
  /** by this device of ours it is heard on the group, or should be */
  multicast: boolean;
  mtuBytes: number;
  /** its clock is ahead of ours by so much, give or take half of what the answer took; undefined: it did not answer */
  skewMs?: number;
}

const maxTargets = 64;
const tries = 3;
const waitMs = 700;
const refusedForMs = 60_000;
const skewAllowedMs = 5_000;
/** what the firewall lets pass, on whichever host has one */
export const letPass =
  "let UDP 1798 pass on both hosts and between them: nft insert rule inet filter input udp dport 1798 accept (and output); iptables -I INPUT -p udp --dport 1798 -j ACCEPT (and OUTPUT)";

const multicastFix =
  "see that no switch between drops multicast (IGMP or MLD snooping without a querier); " +
  "where there is none: multicast: off in /etc/vnetd/vnetd.yaml, and vnetd peer-add ADDRESS";

export class Reach {
  private targets: Target[] = [];

  constructor(private readonly controller: Controller) {}

  checks(): Check[] {
    return [
      { name: "reach", run: () => this.unicast() },
      { name: "multicast", run: () => this.multicast() },
      { name: "path-mtu", run: () => this.pathMtus() },
      { name: "fragments", run: () => this.fragments() },
      { name: "clocks", run: () => this.clocks() },
      { name: "sending", run: () => this.refused() },
    ];
  }

  // ---- who is asked

  private find(): Target[] {
    const { hellos, vnets, underlays, peers, context } = this.controller;
    const byHandle = vnets.byHandle();
    const targets = new Map<string, Target>();
    for (const member of hellos.list()) {
      const vnet = byHandle.get(member.handle);
      if (vnet === undefined) continue;
      for (const { address, ifindex, mtuBytes: theirs, capabilities } of member.paths) {
        const underlay = underlays.at(ifindex, familyOfText(address));
        if (underlay?.socket === undefined) continue;
        const key = `${String(ifindex)} ${address}`;
        const known = targets.get(key);
        // in clear there is no budget for questions (bpf/lib/varp.h)
        if (known !== undefined && known.vnet.secure === undefined) continue;
        const path = { ifindex, addr: parseAddress(address), mtuBytes: theirs };
        const mtuBytes = pathMtuBytes(context.maps, underlay.state.mtuBytes, path);
        const listens = (capabilities & vnetdCapability.CAP_UNICAST) === 0;
        const multicast = listens && !peers.usesUnicast(underlay) && onSubnetOf(underlay, address);
        const name = `${member.name} (${address})`;
        targets.set(key, { name, address, underlay, vnet, multicast, mtuBytes });
      }
    }
    return [...targets.values()].slice(0, maxTargets);
  }

  private answering(): Target[] {
    const all = this.targets.filter(({ skewMs }) => skewMs !== undefined);
    if (all.length === 0) throw new Skipped("no other host answers");
    return all;
  }

  // ---- the checks

  private async unicast(): Promise<Found[]> {
    this.targets = this.find();
    if (this.targets.length === 0) throw new Skipped("no other host is known");
    await Promise.all(
      this.targets.map(async (target) => {
        let sentMs = 0;
        await this.untilAnswered((onAnswer) => {
          sentMs = Date.now();
          return this.controller.asks.ask({ ...target, to: target.address, onAnswer });
        }).then((answer) => {
          if (answer === undefined) return;
          target.skewMs = answer.clockMs - (sentMs + Date.now()) / 2;
        });
      }),
    );
    return this.targets
      .filter(({ skewMs }) => skewMs === undefined)
      .map(({ name }) => ({
        level: "problem",
        what: `${name} is known, and does not answer`,
        seen: `${String(tries)} questions by unicast, each waited for ${String(waitMs)} ms`,
        fix: `is it up? ${letPass}`,
      }));
  }

  private async multicast(): Promise<Found[]> {
    const { underlays, peers } = this.controller;
    const failing = underlays
      .usable()
      .filter((each) => peers.multicastState(each) === "fails")
      .map((each) => this.givenUp(each));
    const targets = this.answering().filter(({ multicast }) => multicast);
    if (targets.length === 0 && failing.length === 0)
      throw new Skipped("no host is to be reached by the group");
    const [deaf, unheard] = [await this.deafTo(targets), await this.unheardOf(targets)];
    const fix = multicastFix;
    const group = ({ family }: Underlay): string => this.groupOf(family);
    return [
      ...failing,
      ...deaf.map((each): Found => ({
        level: "problem",
        what: `what this host sends to the group does not reach ${each.name}`,
        seen: `it answers questions by unicast, and none of ${String(tries)} to ${group(each.underlay)} by ${each.underlay.device}`,
        fix,
      })),
      ...unheard.map((each): Found => ({
        level: "problem",
        what: `what ${each.name} sends to the group does not reach this host`,
        seen: `asked by unicast to answer to ${group(each.underlay)} it was not heard by ${each.underlay.device}`,
        fix,
      })),
    ];
  }

  private givenUp(underlay: Underlay): Found {
    return {
      level: "warning",
      what: `${underlay.device}: multicast does not work, so what is for all goes to each host by unicast`,
      seen: `${this.controller.peers.describe(underlay).why} (${this.groupOf(underlay.family)})`,
      fix: multicastFix,
    };
  }

  private groupOf(family: 4 | 6): string {
    const { group, group6 } = this.controller.context.config;
    return family === 4 ? group : group6;
  }

  /** Each group is asked once in each vnet that it takes to reach all hosts. */
  private async deafTo(targets: readonly Target[]): Promise<Target[]> {
    const places = new Map(
      targets.map((each) => [`${each.underlay.device} ${String(each.vnet.handle)}`, each]),
    );
    const heard = new Set<string>();
    const isDeaf = ({ address }: Target): boolean => !heard.has(address);
    for (let at = 0; at < tries && targets.some(isDeaf); at += 1) {
      const tokens = [...places.values()].map(({ underlay, vnet }) =>
        this.controller.asks.ask({ underlay, vnet, onAnswer: ({ source }) => heard.add(source) }),
      );
      await until(() => !targets.some(isDeaf));
      for (const token of tokens) this.controller.asks.forget(token);
    }
    return targets.filter(isDeaf);
  }

  private async unheardOf(targets: readonly Target[]): Promise<Target[]> {
    const heard = await Promise.all(
      targets.map((target) =>
        this.untilAnswered((onAnswer) =>
          this.controller.asks.ask({
            ...target,
            to: target.address,
            byGroup: true,
            onAnswer: (answer) => {
              if (answer.onGroup) onAnswer(answer);
            },
          }),
        ),
      ),
    );
    return targets.filter((_target, at) => heard[at] === undefined);
  }

  private async pathMtus(): Promise<Found[]> {
    const found = await Promise.all(this.answering().map((target) => this.pathMtu(target)));
    return found.flat();
  }

  private async pathMtu(target: Target): Promise<Found[]> {
    const { underlay, address, mtuBytes, name } = target;
    const low = underlay.family === 4 ? vnetdWire.PATH_MTU_MIN : vnetdWire.PATH_MTU_MIN_IPV6;
    const socket = this.controller.asks.wholeSocket(underlay, address);
    const arriving = (sizes: readonly number[]): Promise<Set<number>> =>
      this.arriving(target, socket, sizes);
    try {
      const ends = await arriving([low, mtuBytes]);
      // a router that says that it is too large is heard by the data plane as well
      if (ends.has(mtuBytes) || socket.error() === "EMSGSIZE" || !ends.has(low)) return [];
      const largest = String(await largestThat({ low, high: mtuBytes }, arriving));
      return [
        {
          level: "problem",
          what: `packets of more than ${largest} bytes do not reach ${name}, and nothing on the way says so`,
          seen: `questions of ${String(mtuBytes)} bytes that must not be fragmented are not answered, those of ${largest} are`,
          fix: `ip link set dev ${underlay.device} mtu ${largest}, or raise the MTU on the way; let ICMP about packets that are too large pass`,
        },
      ];
    } finally {
      socket.close();
    }
  }

  /** Which of several sizes are answered. */
  private async arriving(
    { underlay, vnet, address }: Target,
    socket: WholeSocket,
    sizes: readonly number[],
  ): Promise<Set<number>> {
    const arrived = new Set<number>();
    const tokens: string[] = [];
    for (let at = 0; at < tries && arrived.size < sizes.length; at += 1) {
      for (const packetBytes of sizes.filter((size) => !arrived.has(size))) {
        const onAnswer = (): unknown => arrived.add(packetBytes);
        tokens.push(socket.ask({ underlay, vnet, to: address, packetBytes, onAnswer }));
      }
      await until(() => arrived.size === sizes.length);
    }
    for (const token of tokens) this.controller.asks.forget(token);
    return arrived;
  }

  private async fragments(): Promise<Found[]> {
    const targets = this.answering();
    const answers = await Promise.all(
      targets.map((target) =>
        this.untilAnswered((onAnswer) =>
          this.controller.asks.ask({
            ...target,
            to: target.address,
            packetBytes: target.underlay.state.mtuBytes + 400,
            onAnswer,
          }),
        ),
      ),
    );
    return targets
      .filter((_target, at) => answers[at] === undefined)
      .map(({ name }) => ({
        level: "warning",
        what: `packets in fragments do not reach ${name}: frames that are larger than the path, and must not be refused, are lost`,
        seen: `${String(tries)} questions in two fragments are not answered, whole ones are`,
        fix: `let fragments pass between the hosts, and UDP 1798 and 4790 into ${name} (nft insert rule inet filter input udp dport { 1798, 4790 } accept); vnetd doctor there`,
      }));
  }

  private clocks(): Found[] {
    return this.answering().flatMap(({ name, skewMs = 0 }): Found[] => {
      if (Math.abs(skewMs) <= skewAllowedMs) return [];
      const seconds = String(Math.round(Math.abs(skewMs) / 1000));
      return [
        {
          level: "warning",
          what: `the clock of ${name} is ${seconds} s ${skewMs > 0 ? "ahead of" : "behind"} this host's: logs of the two do not fit`,
          seen: "its answer said its time",
          fix: "on the host whose clock is wrong: timedatectl set-ntp true (date shows it)",
        },
      ];
    });
  }

  /** What the kernel refused to send while the others asked, or just before. */
  private refused(): Found[] {
    return this.controller.underlays.usable().flatMap(({ device, socket }): Found[] => {
      if (socket?.refused === undefined) return [];
      const { errno, address, atMs } = socket.refused;
      if (nowMs() - atMs > refusedForMs) return [];
      return [
        {
          level: "problem",
          what: `${device}: the kernel refuses to send what the daemon says to ${address}`,
          seen: `sending failed with ${errno}`,
          fix:
            errno === "EPERM"
              ? `a firewall on this host drops it: ${letPass}`
              : `ip route get ${address} says by what route; ip route del takes one away that should not be there`,
        },
      ];
    });
  }

  // ---- asking

  private async untilAnswered(
    ask: (onAnswer: (answer: AskAnswer) => void) => string,
    times: number = tries,
  ): Promise<AskAnswer | undefined> {
    let answer: AskAnswer | undefined;
    const tokens: string[] = [];
    for (let at = 0; at < times && answer === undefined; at += 1) {
      tokens.push(ask((each) => (answer ??= each)));
      await until(() => answer !== undefined);
    }
    for (const token of tokens) this.controller.asks.forget(token);
    return answer;
  }
}

/** True, or the time to wait for an answer is over. */
async function until(condition: () => boolean): Promise<void> {
  const endMs = performance.now() + waitMs;
  while (!condition() && performance.now() < endMs)
    await new Promise((resolve) => setTimeout(resolve, 10));
}
