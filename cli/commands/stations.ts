// SPDX-License-Identifier: Apache-2.0
/** vnifs, vifs, varp, neighbours and bridges, and the entries that are configured: who is on the vnets, here and elsewhere. */
import type {
  BridgeInfo,
  NeighbourEntry,
  VarpEntry,
  VifInfo,
  VnifInfo,
} from "../../src/api/contract.js";
import { VnetdError } from "../../src/base/errors.js";
import { checkDeviceName, deviceNameProblem } from "../../src/base/ifname.js";
import { macFromText, parseMac } from "../../src/base/mac.js";
import { shortVnetId } from "../../src/base/vnet-id.js";
import type { CommandSpec, Invocation, PositionalSpec } from "../command.js";
import { durationText } from "../printable.js";
import type { Column } from "../table.js";

const vnifColumns: readonly Column<VnifInfo>[] = [
  { title: "VNET", text: ({ vnet }) => shortVnetId(vnet) },
  { title: "VNETIF", text: ({ vnetif }) => vnetif },
  { title: "VMAC", text: ({ vmac }) => vmac },
  { title: "BRIDGE", text: ({ bridge }) => bridge ?? "" },
  {
    title: "STATE",
    text: ({ up }) => (up ? "up" : "down"),
    colour: ({ up }) => (up ? "good" : "bad"),
  },
  { title: "MTU", text: ({ mtu }) => String(mtu), right: true },
];

const vifColumns: readonly Column<VifInfo>[] = [
  { title: "VNET", text: ({ vnet }) => shortVnetId(vnet) },
  { title: "VMAC", text: ({ vmac }) => vmac },
  { title: "STATE", text: ({ state }) => state },
  {
    title: "AGE",
    text: ({ ageSeconds }) => (ageSeconds === null ? "" : durationText(ageSeconds)),
    right: true,
  },
  { title: "DEVICE", text: ({ device }) => device ?? "" },
];

const varpColumns: readonly Column<VarpEntry>[] = [
  { title: "VNET", text: ({ vnet }) => shortVnetId(vnet) },
  { title: "VMAC", text: ({ vmac }) => vmac },
  { title: "ADDRESS", text: ({ address }) => address },
  { title: "DEVICE", text: ({ device }) => device },
  {
    title: "STATE",
    text: ({ state }) => state,
    colour: ({ state }) => (state === "aged" ? "faint" : "none"),
  },
  { title: "AGE", text: ({ ageSeconds }) => durationText(ageSeconds), right: true },
  { title: "MTU", text: ({ mtu }) => String(mtu ?? ""), right: true },
];

const neighbourColumns: readonly Column<NeighbourEntry>[] = [
  { title: "VNET", text: ({ vnet }) => shortVnetId(vnet) },
  { title: "ADDRESS", text: ({ address }) => address },
  { title: "VMAC", text: ({ vmac }) => vmac },
  { title: "PLACE", text: ({ place }) => place },
  { title: "ANSWERED", text: ({ answered }) => (answered ? "yes" : "no") },
  { title: "ROUTER", text: ({ router }) => (router ? "yes" : "") },
  { title: "AGE", text: ({ ageSeconds }) => durationText(ageSeconds), right: true },
];

const bridgeColumns: readonly Column<BridgeInfo>[] = [
  { title: "BRIDGE", text: ({ bridge }) => bridge },
  { title: "VNET", text: ({ vnet }) => shortVnetId(vnet) },
  { title: "MADE BY", text: ({ owned }) => (owned ? "vnetd" : "others") },
  { title: "PORTS", text: ({ ports }) => ports.join(" ") },
];

/** The daemon lists them as the kernel's tables do: in no order. */
function ordered<Row extends { vnet: string; vmac: string }>(rows: readonly Row[]): Row[] {
  const key = ({ vnet, vmac }: Row): string => `${vnet} ${vmac}`;
  return [...rows].sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

const vnetPositional: PositionalSpec = {
  name: "VNET",
  describe: "the vnet's id",
  completes: "vnet",
};

async function addVif(invocation: Invocation): Promise<void> {
  const vnet = invocation.positional("VNET");
  const vmacOrDevice = invocation.positional("VMAC|DEV");
  const kind = invocation.flag("static") ? { static: true } : {};
  let params: { vnet: string; vmac: string; byDevice?: boolean; static?: boolean };
  if (invocation.flag("interface")) {
    params = { vnet, vmac: checkDeviceName(vmacOrDevice, "device"), byDevice: true, ...kind };
  } else {
    const mac = macFromText(vmacOrDevice);
    if (mac === undefined && deviceNameProblem(vmacOrDevice) === undefined) {
      throw new VnetdError("BAD_MAC", `"${vmacOrDevice}" is not a MAC address`, {
        hint: `If it is an interface, whose MAC is meant: vif-add -i ${vnet} ${vmacOrDevice}`,
      });
    }
    params = { vnet, vmac: mac ?? parseMac(vmacOrDevice), ...kind };
  }
  const vif = await invocation.request("vifAdd", params);
  if (invocation.output.json) invocation.output.value(vif);
  else {
    const what = vif.state === "static" ? "static vif" : "vif";
    invocation.output.line(`added ${what} ${vif.vmac} to vnet ${shortVnetId(vif.vnet)}`);
  }
}

async function deleteVif(invocation: Invocation): Promise<void> {
  const vif = await invocation.request("vifDelete", {
    vnet: invocation.positional("VNET"),
    vmac: parseMac(invocation.positional("VMAC")),
  });
  if (invocation.output.json) invocation.output.value(vif);
  else invocation.output.line(`deleted vif ${vif.vmac} from vnet ${shortVnetId(vif.vnet)}`);
}

async function addVarp(invocation: Invocation): Promise<void> {
  const device = invocation.option("device");
  const entry = await invocation.request("varpAdd", {
    vnet: invocation.positional("VNET"),
    vmac: parseMac(invocation.positional("VMAC")),
    address: invocation.positional("ADDR"),
    ...(device === undefined ? {} : { device: checkDeviceName(device, "device") }),
  });
  if (invocation.output.json) return invocation.output.value(entry);
  invocation.output.line(
    `added ${entry.vmac} of vnet ${shortVnetId(entry.vnet)} on ${entry.address} by ${entry.device}`,
  );
}

async function deleteVarp(invocation: Invocation): Promise<void> {
  const entry = await invocation.request("varpDelete", {
    vnet: invocation.positional("VNET"),
    vmac: parseMac(invocation.positional("VMAC")),
  });
  if (invocation.output.json) invocation.output.value(entry);
  else invocation.output.line(`deleted ${entry.vmac} of vnet ${shortVnetId(entry.vnet)}`);
}

async function flushVarp(invocation: Invocation): Promise<void> {
  const vnet = invocation.option("VNET");
  const flushed = await invocation.request("varpFlush", vnet === undefined ? {} : { vnet });
  if (invocation.output.json) invocation.output.value(flushed);
  else
    invocation.output.line(
      `flushed the entries of ${flushed.vnets} vnet${flushed.vnets === 1 ? "" : "s"}`,
    );
}

async function showNeighbours(invocation: Invocation): Promise<void> {
  const vnet = invocation.option("VNET");
  const rows = await invocation.request("neighbours", vnet === undefined ? {} : { vnet });
  const key = ({ vnet: id, address }: NeighbourEntry): string => `${id} ${address}`;
  invocation.output.rows(
    [...rows].sort((a, b) => (key(a) < key(b) ? -1 : 1)),
    neighbourColumns,
    "no guest's address is known; vnets learn them with suppress on",
  );
}

async function flushNeighbours(invocation: Invocation): Promise<void> {
  const address = invocation.option("ADDRESS");
  const flushed = await invocation.request("neighbourFlush", {
    vnet: invocation.positional("VNET"),
    ...(address === undefined ? {} : { address }),
  });
  if (invocation.output.json) return invocation.output.value(flushed);
  const { neighbours } = flushed;
  invocation.output.line(`forgot ${neighbours} neighbour${neighbours === 1 ? "" : "s"}`);
}

export const stationCommands: readonly CommandSpec[] = [
  {
    name: "vnifs",
    describe: "list the vnets' interfaces on this host",
    run: async (invocation) => {
      invocation.output.rows(
        await invocation.request("vnifs", {}),
        vnifColumns,
        "there are no vnets; vnet-create makes one",
      );
    },
  },
  {
    name: "vifs",
    describe: "list the MACs on this host",
    run: async (invocation) => {
      invocation.output.rows(
        ordered(await invocation.request("vifs", {})),
        vifColumns,
        "no MAC of this host was heard on a vnet",
      );
    },
  },
  {
    name: "vif-add",
    describe: "enter a MAC of this host, which is announced and does not age",
    positionals: [
      vnetPositional,
      {
        name: "VMAC|DEV",
        describe: "its MAC, or with -i an interface that has it",
        completes: "device",
      },
    ],
    options: [
      {
        name: "interface",
        short: "i",
        flag: true,
        describe: "what follows the vnet is an interface's name",
      },
      {
        name: "static",
        flag: true,
        describe: "it stays here, also when it is heard from another host",
      },
    ],
    epilogue:
      "What is entered is remembered, also after a reboot, until vif-delete. Without --static a guest that moves to another host takes its MAC along.",
    run: addVif,
  },
  {
    name: "vif-delete",
    describe: "forget a MAC of this host",
    positionals: [vnetPositional, { name: "VMAC", describe: "its MAC", completes: "none" }],
    run: deleteVif,
  },
  {
    name: "varp",
    describe: "list the MACs on other hosts",
    run: async (invocation) => {
      invocation.output.rows(
        ordered(await invocation.request("varp", {})),
        varpColumns,
        "no MAC of another host is known",
      );
    },
  },
  {
    name: "varp-add",
    describe: "enter a MAC of another host, which then stays there",
    positionals: [
      vnetPositional,
      { name: "VMAC", describe: "the MAC", completes: "none" },
      { name: "ADDR", describe: "the host's underlay address", completes: "none" },
    ],
    options: [
      {
        name: "device",
        short: "d",
        value: "DEV",
        describe: "the attached device that leads there; otherwise the route decides",
        completes: "device",
      },
    ],
    epilogue:
      "The entry does not age and is not changed by what is heard. It is remembered, also after a reboot, until varp-delete.",
    run: addVarp,
  },
  {
    name: "varp-delete",
    describe: "delete an entry that varp-add made",
    positionals: [vnetPositional, { name: "VMAC", describe: "the MAC", completes: "none" }],
    run: deleteVarp,
  },
  {
    name: "varp-flush",
    describe: "forget the MACs that were learned to be on other hosts",
    positionals: [{ ...vnetPositional, describe: "only those of this vnet", optional: true }],
    run: flushVarp,
  },
  {
    name: "neighbours",
    describe: "list the guests' IP addresses that are known, and which of them are answered for",
    positionals: [{ ...vnetPositional, describe: "only those of this vnet", optional: true }],
    epilogue: "They are learned in vnets with suppress on.",
    run: showNeighbours,
  },
  {
    name: "neighbour-flush",
    describe: "forget guests' IP addresses, which are then asked for as ever",
    positionals: [
      vnetPositional,
      { name: "ADDRESS", describe: "only this one", completes: "none", optional: true },
    ],
    run: flushNeighbours,
  },
  {
    name: "bridges",
    describe: "list the vnets' bridges and their ports",
    run: async (invocation) => {
      invocation.output.rows(
        await invocation.request("bridges", {}),
        bridgeColumns,
        "no vnet has a bridge",
      );
    },
  },
];
