// SPDX-License-Identifier: Apache-2.0
/** peers, peer-add and peer-delete: hosts that multicast does not reach. */
import { VnetdError } from "../../src/base/errors.js";
import type { CommandSpec, Invocation } from "../command.js";

const peerPositional = {
  name: "PEER",
  describe: "the other host's address or name",
  completes: "none",
} as const;

function portOf(invocation: Invocation): number | undefined {
  const text = invocation.option("port");
  if (text === undefined) return undefined;
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65535) {
    throw new VnetdError("USAGE", `"${text}" is not a port`, {
      hint: "A port is a number from 1 to 65535.",
    });
  }
  return port;
}

export const peerCommands: readonly CommandSpec[] = [
  {
    name: "peers",
    describe: "list the hosts that group traffic is forwarded to",
    run: async (invocation) => {
      invocation.output.value(await invocation.request("peers", {}));
    },
  },
  {
    name: "peer-add",
    describe: "forward group traffic to a host that multicast does not reach",
    positionals: [peerPositional],
    options: [{ name: "port", short: "p", value: "PORT", describe: "its UDP port" }],
    run: async (invocation) => {
      const port = portOf(invocation);
      const peer = invocation.positional("PEER");
      invocation.output.value(
        await invocation.request("peerAdd", port === undefined ? { peer } : { peer, port }),
      );
    },
  },
  {
    name: "peer-delete",
    describe: "stop forwarding to a host",
    positionals: [peerPositional],
    run: async (invocation) => {
      invocation.output.value(
        await invocation.request("peerDelete", { peer: invocation.positional("PEER") }),
      );
    },
  },
];
