// SPDX-License-Identifier: Apache-2.0
/**
 * What the daemon watches all the time and shows as problems in `vnetd status`, as findings: each part's
 * problems are a check, and what to do is added where the text does not say it.
 */
import type { FindingLevel } from "../api/contract.js";
import type { Controller } from "../controller.js";
import type { Check, Found } from "./check.js";

interface Remedy {
  text: RegExp;
  fix: string;
}

/** The first that fits; test/unit/doctor.test.ts holds the texts as the parts write them. */
const remedies: readonly Remedy[] = [
  {
    text: /uses key id/u,
    fix: "give both hosts one key file: vnetd keys shows the ids, vnetd key-rotate VNET FILE takes another",
  },
  {
    text: /does a firewall in between drop protocol 50/u,
    fix: "let IP protocol 50 pass between the hosts and into both: nft insert rule inet filter input meta l4proto esp accept; iptables -I INPUT -p esp -j ACCEPT",
  },
  {
    text: /does not answer key messages/u,
    fix: "vnetd status on the other host; let UDP 1798 pass both ways",
  },
  {
    text: /(has this vnet with security|has this vnet without security|uses \S+ \S+, this host uses)/u,
    fix: "make the vnet anew on one of them with the other's level and suite: vnetd vnet-delete, vnetd vnet-create -s LEVEL --suite SUITE",
  },
  {
    text: /same host id/u,
    fix: "on all but one: systemctl stop vnetd; rm /var/lib/vnetd/host.yaml; systemctl start vnetd",
  },
  { text: /loop in/u, fix: "take one of the bridges named out: ip link set dev PORT nomaster" },
  {
    text: /storm in/u,
    fix: "find the guest: vnetd vifs, and tcpdump on its port; more is allowed by limits.floodPerSecond",
  },
  {
    text: /duplicate address/u,
    fix: "give one of the two guests another MAC: ip link set dev DEVICE address MAC",
  },
  {
    text: /somebody removed our program/u,
    fix: "find out who: journalctl around the time that vnetd's log names; an agent that cleans filters up (tc, bpftool, a CNI plugin) is to leave vnetd's alone",
  },
  {
    text: /its group here is/u,
    fix: "give the vnet the same group on all of its hosts, in their files and by vnetd apply, or none",
  },
  { text: /peer-add/u, fix: "vnetd peer-add ADDRESS on the host that lacks it" },
];

export function remedyOf(text: string): string {
  return remedies.find((each) => each.text.test(text))?.fix ?? "as the text says";
}

type Part = [name: string, level: FindingLevel, problems: () => string[]];

export function troubleChecks(controller: Controller): Check[] {
  const { vnets, hellos, troubles, peers, security, underlays, views } = controller;
  const parts: Part[] = [
    ["vnets", "problem", () => vnets.problems()],
    ["host-ids", "problem", () => hellos.problems()],
    ["keys", "problem", () => security.problems()],
    ["loops-and-duplicates", "problem", () => troubles.problems()],
    ["peers", "warning", () => peers.problems()],
  ];
  // what another check, or one of the parts, says
  const told = (): Set<string> =>
    new Set([...underlays.problems(), ...parts.flatMap(([, , problems]) => problems())]);
  const rest = (): string[] => {
    const known = told();
    return views.problems().filter((text) => !known.has(text) && !text.startsWith(noDevice));
  };
  return [...parts, ["daemon", "warning", rest] as Part].map(([name, level, problems]) => ({
    name,
    run: () => problems().map((text) => foundOf(level, text)),
  }));
}

/** the check of devices says it */
const noDevice = "no device is attached";

function foundOf(level: FindingLevel, text: string): Found {
  return { level, what: text, seen: "the daemon watches it: vnetd status", fix: remedyOf(text) };
}
