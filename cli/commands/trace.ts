// SPDX-License-Identifier: Apache-2.0
/** trace: what would happen to a frame now. */
import type { Params, TraceReport } from "../../src/api/contract.js";
import { VnetdError } from "../../src/base/errors.js";
import type { CommandSpec, Invocation } from "../command.js";

const labelWidth = 11;

async function trace(invocation: Invocation): Promise<void> {
  const { output } = invocation;
  const params: Params<"trace"> = {
    vnet: invocation.positional("VNET"),
    destination: invocation.positional("DST-MAC"),
    byGroup: invocation.flag("by-group"),
    dontFragment: invocation.flag("dont-fragment"),
    send: invocation.flag("send"),
  };
  const source = invocation.option("SRC-MAC");
  if (source !== undefined) params.source = source;
  const from = invocation.option("from");
  if (from !== undefined) params.from = from;
  const type = invocation.option("type");
  if (type !== undefined) params.type = type;
  const asks = invocation.option("asks");
  if (asks !== undefined) params.asks = asks;
  const bytes = invocation.option("length");
  if (bytes !== undefined) params.bytes = bytesOf(bytes);
  const report = await invocation.request("trace", params);
  if (output.json) output.value(report);
  else for (const line of linesOf(report)) output.line(line);
}

function linesOf({ steps, outcome, reason, toAll }: TraceReport): string[] {
  const words = [outcome, toAll ? "to all" : "", reason ?? ""].filter((word) => word !== "");
  return [
    ...steps.map(({ step, text }) => `${step.padEnd(labelWidth)}  ${text}`),
    `${"outcome".padEnd(labelWidth)}  ${words.join(", ")}`,
  ];
}

function bytesOf(text: string): number {
  if (/^\d{1,5}$/u.test(text)) return Number(text);
  throw new VnetdError("USAGE", `--length: "${text}" is no number of bytes`);
}

export const traceCommands: readonly CommandSpec[] = [
  {
    name: "trace",
    describe: "say what would happen to a frame now, step by step, and do nothing of it",
    positionals: [
      { name: "VNET", describe: "a vnet's id", completes: "vnet" },
      { name: "DST-MAC", describe: "whom the frame is for", completes: "none" },
      {
        name: "SRC-MAC",
        describe: "who sends it; left out: the vnetif",
        completes: "none",
        optional: true,
      },
    ],
    options: [
      {
        name: "from",
        value: "ADDRESS",
        describe: "it comes from the host with this address, not from a guest here",
      },
      { name: "by-group", flag: true, describe: "with --from: it comes by the group" },
      { name: "type", value: "TYPE", describe: "ipv4 (as left out), ipv6, arp, or 0x88b5" },
      { name: "length", value: "BYTES", describe: "of the frame, 14 to 3000; 98 if left out" },
      {
        name: "asks",
        value: "ADDRESS",
        describe: "it asks who has this IP address, by ARP or neighbour discovery",
      },
      { name: "dont-fragment", flag: true, describe: "of an IPv4 packet: DF is set" },
      {
        name: "send",
        flag: true,
        describe: "ask the host that it would go to, and wait for its answer",
      },
    ],
    epilogue:
      "The programs that carry frames are asked themselves. Nothing is learned or counted, and nothing sent without --send. docs/watching.md explains the steps.",
    run: trace,
  },
];
