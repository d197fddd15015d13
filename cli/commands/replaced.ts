// SPDX-License-Identifier: Apache-2.0
/**
 * What the original did and vnetd has no need of: the kernel module and xend's network script.
 * Old scripts call these, so they explain themselves and succeed.
 */
import type { CommandSpec, Invocation, PositionalSpec } from "../command.js";

const explanations = {
  insmod: [
    "There is no vnet kernel module any more. vnetd's forwarding is made of BPF programs, which the",
    "daemon loads by itself when a network device is attached:",
    "",
    "    vnetd attach eth0",
    "",
    "That starts the daemon if none runs, and makes the interfaces vnif0002, vnif0003 and vnif0004,",
    "as loading the module did.",
  ],
  rmmod: [
    "There is no vnet kernel module any more, so none needs removing. To stop carrying vnets over a",
    "network device:",
    "",
    "    vnetd detach eth0",
    "",
    "Forwarding goes on when the daemon stops; it is detach that ends it.",
  ],
  "network-vnet": [
    "The script network-vnet loaded the vnet module and called network-bridge. vnetd needs neither:",
    "",
    "    systemctl enable --now vnetd    runs the daemon, now and at every start of the machine",
    "    vnetd attach eth0               names the network device once; it is remembered",
    "    vnetd vnet-create FILE          makes a vnet and its bridge; both are remembered",
    "",
    "Guests are put on the vnet's bridge as on any other. The physical network's own bridge, which",
    "network-bridge made, is the machine's network configuration and none of vnetd's business.",
  ],
} as const;

function explain(name: keyof typeof explanations): (invocation: Invocation) => void {
  return ({ output }) => {
    const text = explanations[name].join("\n");
    if (output.json) output.value({ replaced: name, text });
    else output.text(`${text}\n`);
  };
}

const ignored: PositionalSpec = {
  name: "ARG",
  describe: "is not looked at",
  completes: "none",
  optional: true,
  many: true,
};

export const replacedCommands: readonly CommandSpec[] = [
  {
    name: "insmod",
    describe: "explain what replaced the kernel module",
    positionals: [ignored],
    run: explain("insmod"),
  },
  {
    name: "rmmod",
    describe: "explain what replaced the removal of the kernel module",
    positionals: [ignored],
    run: explain("rmmod"),
  },
  {
    name: "network-vnet",
    describe: "explain what replaced xend's network script",
    positionals: [ignored],
    run: explain("network-vnet"),
  },
];
