// SPDX-License-Identifier: Apache-2.0
/** port-list, port-add and port-delete: guests' devices that belong to a vnet without a bridge. */
import type { PortInfo } from "../../src/api/contract.js";
import { shortVnetId } from "../../src/base/vnet-id.js";
import type { CommandSpec } from "../command.js";
import type { Column } from "../table.js";

const columns: readonly Column<PortInfo>[] = [
  { title: "VNET", text: ({ vnet }) => shortVnetId(vnet) },
  { title: "PORT", text: ({ device }) => device },
  {
    title: "STATE",
    text: ({ state }) => state,
    colour: ({ state }) => (state === "up" ? "good" : "bad"),
  },
  { title: "DIRECT", text: ({ direct }) => (direct ? "yes" : "no") },
  { title: "MACS", text: ({ macs }) => String(macs), right: true },
  { title: "PROBLEM", text: ({ problem }) => problem, colour: () => "bad" },
];

const positionals = [
  { name: "VNET", describe: "the vnet's id", completes: "vnet" },
  { name: "DEVICE", describe: "the host's end of a guest's veth, or its tap", completes: "device" },
] as const;

export const portCommands: readonly CommandSpec[] = [
  {
    name: "port-list",
    describe: "list the devices that belong to a vnet without a bridge",
    positionals: [{ ...positionals[0], optional: true }],
    run: async (invocation) => {
      const vnet = invocation.option("VNET");
      const ports = await invocation.request("ports", vnet === undefined ? {} : { vnet });
      if (invocation.output.json) return invocation.output.value(ports);
      invocation.output.rows(ports, columns, "there are no ports");
    },
  },
  {
    name: "port-add",
    describe: "attach a guest's veth or tap to a vnet, without a bridge",
    positionals,
    epilogue:
      "The device must be there, and on no bridge. It stays a port when it goes and one of its name comes again.",
    run: async (invocation) => {
      const added = await invocation.request("portAdd", {
        vnet: invocation.positional("VNET"),
        device: invocation.positional("DEVICE"),
      });
      if (invocation.output.json) invocation.output.value(added);
      else invocation.output.line(added.device);
    },
  },
  {
    name: "port-delete",
    describe: "take a guest's device from its vnet",
    positionals,
    run: async (invocation) => {
      const deleted = await invocation.request("portDelete", {
        vnet: invocation.positional("VNET"),
        device: invocation.positional("DEVICE"),
      });
      if (invocation.output.json) invocation.output.value(deleted);
      else invocation.output.line(deleted.device);
    },
  },
];
