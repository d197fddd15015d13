// SPDX-License-Identifier: Apache-2.0
/** peers, peer-add and peer-delete: hosts that multicast does not reach. */
import type { PeerAddressInfo, PeerInfo } from "../../src/api/contract.js";
import { VnetdError } from "../../src/base/errors.js";
import type { CommandSpec, Invocation } from "../command.js";
import { durationText } from "../printable.js";
import type { Column } from "../table.js";

/** A peer that is a name has a row for each address; one without addresses has a row as well. */
interface PeerRow {
  peer: PeerInfo;
  at: PeerAddressInfo | undefined;
}

const columns: readonly Column<PeerRow>[] = [
  { title: "PEER", text: ({ peer }) => peer.peer },
  { title: "PORT", text: ({ peer }) => String(peer.port), right: true },
  { title: "ADDRESS", text: ({ at }) => at?.address ?? "" },
  { title: "DEVICE", text: ({ at }) => at?.device ?? "" },
  {
    title: "WAY",
    text: ({ at }) => at?.way ?? "none",
    colour: ({ at }) => (at === undefined || at.way === "none" ? "bad" : "good"),
  },
  {
    title: "HEARD",
    text: ({ at }) =>
      at === undefined || at.heardSeconds === null ? "never" : durationText(at.heardSeconds),
    right: true,
  },
  { title: "SENT", text: ({ at }) => String(at?.sentFrames ?? 0), right: true },
  { title: "RECEIVED", text: ({ at }) => String(at?.heardFrames ?? 0), right: true },
  {
    title: "PROBLEM",
    text: ({ peer, at }) => [peer.problem, at?.problem ?? ""].filter((p) => p !== "").join("; "),
    colour: () => "bad",
  },
];

function rowsOf(peer: PeerInfo): PeerRow[] {
  if (peer.addresses.length === 0) return [{ peer, at: undefined }];
  return peer.addresses.map((at) => ({ peer, at }));
}

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
      const peers = await invocation.request("peers", {});
      if (invocation.output.json) return invocation.output.value(peers);
      invocation.output.rows(peers.flatMap(rowsOf), columns, "there are no peers");
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
      const params = port === undefined ? { peer } : { peer, port };
      const added = await invocation.request("peerAdd", params);
      if (invocation.output.json) invocation.output.value(added);
      else invocation.output.line(added.peer);
    },
  },
  {
    name: "peer-delete",
    describe: "stop forwarding to a host",
    positionals: [peerPositional],
    run: async (invocation) => {
      const deleted = await invocation.request("peerDelete", {
        peer: invocation.positional("PEER"),
      });
      if (invocation.output.json) invocation.output.value(deleted);
      else invocation.output.line(deleted.peer);
    },
  },
];
