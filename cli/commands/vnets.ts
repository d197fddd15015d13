// SPDX-License-Identifier: Apache-2.0
/** vnet-create, vnet-delete, vnet-list and vnets: the LANs themselves. */
import { existsSync } from "node:fs";
import type { VnetInfo, VnetState } from "../../src/api/contract.js";
import { VnetdError } from "../../src/base/errors.js";
import { defaultSuiteName } from "../../src/base/suite.js";
import { isVnetIdText, shortVnetId } from "../../src/base/vnet-id.js";
import type { CommandSpec, Invocation } from "../command.js";
import { keyArgument } from "../key-argument.js";
import { readConfigurationText, stdinArgument } from "../read-text.js";
import type { Column } from "../table.js";

/** While the vnet changes its secret. A newer command may ask an older daemon, which says none. */
function wasKey(previousKey: string | undefined): string {
  return previousKey === undefined ? "" : `, before: ${previousKey}`;
}

function groupText({ group, group6 }: Pick<VnetInfo, "group" | "group6">): string {
  return [group, group6].filter((each) => each !== null).join(" ");
}

const infoColumns: readonly Column<VnetInfo>[] = [
  { title: "ID", text: ({ id }) => id },
  { title: "BRIDGE", text: ({ bridge }) => bridge ?? "" },
  { title: "VNETIF", text: ({ vnetif }) => vnetif },
  { title: "SECURITY", text: ({ security }) => security },
  {
    title: "KEY",
    text: ({ security, key, previousKey }) =>
      security === "none" ? "" : `${key ?? "default"}${wasKey(previousKey)}`,
  },
  { title: "SUITE", text: ({ suite }) => suite ?? "" },
  { title: "ENCAPSULATION", text: ({ encapsulation }) => encapsulation },
  { title: "SUPPRESS", text: ({ suppress }) => (suppress ? "on" : "off") },
  { title: "GROUP", text: groupText },
];

async function createVnet(invocation: Invocation): Promise<void> {
  const what = invocation.positional("FILE|ID");
  const names = [
    ...(["security", "key", "suite", "bridge", "vnetif", "encapsulation", "suppress"] as const),
    ...(["group", "group6"] as const),
  ];
  const given = Object.fromEntries(
    names.flatMap((name) => {
      const value = invocation.option(name);
      if (value === undefined) return [];
      return [[name, name === "key" ? keyArgument(invocation, value) : value]];
    }),
  );
  const isId = isVnetIdText(what);
  if (!isId && Object.keys(given).length > 0) {
    throw new VnetdError(
      "USAGE",
      `-s, -k, -b, -v, -e, --suite, --suppress, --group and --group6 go with an id, and "${what}" is not one`,
      {
        hint: "Write them into the file, or give an id: 8 fields of 1 to 4 hex digits between colons, or one alone.",
      },
    );
  }
  if (isId && existsSync(what)) {
    invocation.output.note(`${what} is taken for an id; write ./${what} for the file of that name`);
  }
  const created = isId
    ? await invocation.request("vnetCreate", {
        parameters: { id: what, ...given },
      })
    : await invocation.request(
        "vnetCreate",
        await readConfigurationText(what, invocation.environment.stdin),
      );
  if (invocation.output.json) {
    invocation.output.value(created);
    return;
  }
  for (const vnet of created) {
    const { id, bridge, vnetif, security, suite, encapsulation, suppress, note } = vnet;
    const onBridge = bridge === null ? "no bridge" : `bridge ${bridge}`;
    const suiteNote = suite === null || suite === defaultSuiteName ? "" : ` (${suite})`;
    const by = encapsulation === "udp" ? "" : `, by ${encapsulation}`;
    const answers = suppress ? ", suppress on" : "";
    const groups = groupText(vnet) === "" ? "" : `, group ${groupText(vnet)}`;
    invocation.output.line(
      `created vnet ${shortVnetId(id)}: ${onBridge}, vnetif ${vnetif}, security ${security}${suiteNote}${by}${answers}${groups}`,
    );
    if (typeof note === "string") invocation.output.note(note);
  }
}

async function deleteVnet(invocation: Invocation): Promise<void> {
  const deleted = await invocation.request("vnetDelete", { id: invocation.positional("ID") });
  if (invocation.output.json) return invocation.output.value(deleted);
  invocation.output.line(`deleted vnet ${shortVnetId(deleted.id)}`);
  if (typeof deleted.note === "string") invocation.output.note(deleted.note);
}

async function listVnets(invocation: Invocation): Promise<void> {
  const ids = invocation.list("ID");
  const vnets = await invocation.request("vnetList", ids.length === 0 ? {} : { ids });
  invocation.output.rows(vnets, infoColumns, "there are no vnets; vnet-create makes one");
}

function stateColumns(long: boolean, all: boolean): Column<VnetState>[] {
  const columns: Column<VnetState>[] = [
    { title: "ID", text: ({ id }) => (long ? id : shortVnetId(id)) },
    { title: "VNETIF", text: ({ vnetif }) => vnetif },
    { title: "BRIDGE", text: ({ bridge }) => bridge ?? "" },
    { title: "SECURITY", text: ({ security }) => security },
    {
      title: "STATE",
      text: ({ up }) => (up ? "up" : "down"),
      colour: ({ up }) => (up ? "good" : "bad"),
    },
    { title: "HOSTS", text: ({ hosts }) => String(hosts), right: true },
    { title: "ENTRIES", text: ({ entries }) => String(entries), right: true },
  ];
  if (long) {
    columns.push(
      { title: "SUITE", text: ({ suite }) => suite ?? "" },
      { title: "ENCAPSULATION", text: ({ encapsulation }) => encapsulation },
      { title: "SUPPRESS", text: ({ suppress }) => (suppress ? "on" : "off") },
      { title: "GROUP", text: groupText },
      { title: "MTU", text: ({ mtu }) => String(mtu), right: true },
      { title: "VMAC", text: ({ vmac }) => vmac },
      { title: "HANDLE", text: ({ handle }) => String(handle), right: true },
      { title: "MADE BY", text: ({ builtIn }) => (builtIn ? "vnetd" : "configuration") },
    );
  }
  if (all) {
    columns.push(
      { title: "SENT", text: ({ traffic }) => String(traffic?.encapFrames ?? ""), right: true },
      {
        title: "SENT BYTES",
        text: ({ traffic }) => String(traffic?.encapBytes ?? ""),
        right: true,
      },
      { title: "RECEIVED", text: ({ traffic }) => String(traffic?.decapFrames ?? ""), right: true },
      {
        title: "RECEIVED BYTES",
        text: ({ traffic }) => String(traffic?.decapBytes ?? ""),
        right: true,
      },
      {
        title: "FLOODED",
        text: ({ traffic }) => String(traffic?.floodedFrames ?? ""),
        right: true,
      },
    );
  }
  return columns;
}

async function showVnets(invocation: Invocation): Promise<void> {
  const all = invocation.flag("all");
  const vnets = await invocation.request("vnets", all ? { all } : {});
  invocation.output.rows(
    vnets,
    stateColumns(invocation.flag("long"), all),
    "there are no vnets; vnet-create makes one",
  );
  if (invocation.output.json) return;
  for (const { id, problem } of vnets) {
    if (problem !== "") invocation.output.note(`vnet ${shortVnetId(id)}: ${problem}`);
  }
}

export const vnetCommands: readonly CommandSpec[] = [
  {
    name: "vnet-create",
    describe: "make the vnets of a configuration file, or one by its id",
    positionals: [
      {
        name: "FILE|ID",
        describe: `a file (s-expressions, YAML or JSON), ${stdinArgument} for standard input, or a vnet id`,
        completes: "file",
      },
    ],
    options: [
      {
        name: "security",
        short: "s",
        value: "LEVEL",
        describe: "none, auth or conf",
        completes: "security",
      },
      {
        name: "key",
        short: "k",
        value: "KEY",
        describe: "its key file, or the name of a key of this host (the default key)",
        completes: "file",
      },
      {
        name: "suite",
        value: "SUITE",
        describe: "with which algorithms a secure vnet is protected: sha1 (default), gcm or gcm256",
        completes: "suite",
      },
      {
        name: "encapsulation",
        short: "e",
        value: "KIND",
        describe: "how its frames are sent: udp or etherip (default: this host's)",
        completes: "encapsulation",
      },
      {
        name: "suppress",
        value: "on|off",
        describe: "whether ARP and neighbour discovery are answered on this host (off)",
        completes: "switch",
      },
      {
        name: "group",
        value: "ADDRESS",
        describe: "an IPv4 multicast group for this vnet alone (the one that all vnets have)",
        completes: "none",
      },
      {
        name: "group6",
        value: "ADDRESS",
        describe: "an IPv6 multicast group for this vnet alone, likewise",
        completes: "none",
      },
      {
        name: "bridge",
        short: "b",
        value: "BRIDGE",
        describe: "the vnet's bridge, or none",
        completes: "device",
      },
      {
        name: "vnetif",
        short: "v",
        value: "VNETIF",
        describe: "the vnet's interface",
        completes: "none",
      },
    ],
    epilogue:
      "What is a valid id is an id: write ./97 for a file of that name. Ids are always hex. The bridge is vnetID and the interface vnifID unless they are named.",
    run: createVnet,
  },
  {
    name: "vnet-delete",
    describe: "delete a vnet and its configuration",
    positionals: [{ name: "ID", describe: "the vnet's id", completes: "vnet" }],
    run: deleteVnet,
  },
  {
    name: "vnet-list",
    describe: "list the vnets as they are configured",
    positionals: [
      { name: "ID", describe: "only these", completes: "vnet", optional: true, many: true },
    ],
    run: listVnets,
  },
  {
    name: "vnets",
    describe: "list the vnets as they run",
    options: [
      { name: "all", short: "a", flag: true, describe: "with the traffic since each was made" },
      {
        name: "long",
        short: "l",
        flag: true,
        describe: "long ids, and suite, encapsulation, suppression, groups, MTU, MAC and handle",
      },
    ],
    run: showVnets,
  },
];
