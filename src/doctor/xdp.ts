// SPDX-License-Identifier: Apache-2.0
/**
 * XDP on attached devices: whether ours gains anything there, and programs of others, which see packets before all that
 * is on TC. Notes: all of it carries every frame.
 */
import type { Found } from "./check.js";
import type { UnderlayFacts } from "./underlay.js";

type Facts = Pick<UnderlayFacts, "native" | "hooks" | "places">;

export function xdpFound(facts: Facts): Found[] {
  const devices = new Map(facts.places().map(({ device, state }) => [device, state.ifindex]));
  return [...devices].flatMap(([device, ifindex]) => {
    if (ifindex === 0) return [];
    const { mode, programId } = facts.native.xdpQuery(ifindex);
    if (mode === "none") return [];
    const noted = facts.hooks.xdp.present(ifindex)
      ? ofOurs(facts, device, mode)
      : [ofOthers(device, programId)];
    return noted.map((each) => ({ level: "note" as const, ...each }));
  });
}

type Noted = Omit<Found, "level">;

function ofOthers(device: string, programId: number): Noted {
  return {
    what: `${device}: an XDP program of others sees vnets' packets first, and may take or change them`,
    seen: `XDP program ${String(programId)}, which is not ours`,
    fix: `bpftool net show dev ${device}; ip link set dev ${device} xdp off takes it away`,
  };
}

function ofOurs({ native }: Facts, device: string, mode: string): Noted[] {
  const byTc = `vnetd attach ${device} --mode tc`;
  if (mode !== "native")
    return [
      {
        what: `${device}: XDP gains nothing here, since the device's driver does not run the program`,
        seen: "our program is hooked in generic mode",
        fix: byTc,
      },
    ];
  const found: Noted[] = [];
  if (native.featuresGet(device)["rx-gro"] === false)
    found.push({
      what: `${device}: what XDP decapsulates is not merged, which is most of its gain`,
      seen: "generic receive offload is off",
      fix: `ethtool -K ${device} gro on`,
    });
  if (native.linkGet(device)?.kind === "veth")
    found.push({
      what: `${device}: its peer segments what it sends while there is an XDP program, which is slower than TC`,
      seen: "it is a veth, and our program is hooked in native mode",
      fix: byTc,
    });
  return found;
}
