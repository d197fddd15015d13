// SPDX-License-Identifier: Apache-2.0
/** monitor: what goes on, as it happens. */
import type { MonitorEvent } from "../../src/api/contract.js";
import { VnetdError } from "../../src/base/errors.js";
import { shortVnetId } from "../../src/base/vnet-id.js";
import type { CommandSpec, Invocation } from "../command.js";
import { printable } from "../printable.js";

/** of a frame's beginning in a line for people; --json has all that there is */
const shownBytes = 32;
const kindWidth = 7;
const vnetWidth = 4;

export const watchCommands: readonly CommandSpec[] = [
  {
    name: "monitor",
    describe: "show what goes on: MACs, drops, keys, members, peers",
    options: [
      { name: "vnet", value: "ID", describe: "of this vnet alone", completes: "vnet" },
      { name: "mac", short: "m", value: "MAC", describe: "from or to this MAC alone" },
      { name: "reason", short: "r", value: "REASON", describe: "drops for this reason alone" },
      { name: "count", short: "c", value: "N", describe: "end after so many events" },
    ],
    epilogue:
      'Ends with Ctrl-C. With --json each event is an object in a line of its own, and {"lost": N} stands ' +
      "where N are missing. docs/watching.md explains the events, docs/drop-reasons.md the reasons.",
    run: monitor,
  },
];

async function monitor(invocation: Invocation): Promise<void> {
  const { output } = invocation;
  const limit = countOf(invocation);
  const params = Object.fromEntries(
    ["vnet", "mac", "reason"].flatMap((name) => {
      const value = invocation.option(name);
      return value === undefined ? [] : [[name, value]];
    }),
  );
  let seen = 0;
  await invocation.follow("monitor", params, (client) => {
    const drained = (): void => client.resume();
    return {
      event: (event) => {
        if (seen >= limit) return false;
        seen += 1;
        const goesOn = output.json
          ? output.flowValue(event, drained)
          : output.flow(`${printable(lineOf(event))}\n`, drained);
        if (seen >= limit) client.close();
        return goesOn;
      },
      lost: (lost) =>
        output.json
          ? output.flowValue({ lost }, drained)
          : output.flow(`… ${String(lost)} events are missing here\n`, drained),
    };
  });
}

/** Infinity: no limit. */
export function countOf(invocation: Invocation): number {
  const text = invocation.option("count");
  if (text === undefined) return Infinity;
  const count = /^\d{1,9}$/u.test(text) ? Number(text) : 0;
  if (count > 0) return count;
  throw new VnetdError("USAGE", `"${text}" is not a number of events`, {
    hint: "Give a whole number from 1 on.",
  });
}

function lineOf(event: MonitorEvent): string {
  const { time, kind, vnet, mac, destination, reason, direction, device, from, bytes } = event;
  const isFrame = bytes !== undefined || reason !== undefined;
  const words = [
    localTime(time),
    kind.padEnd(kindWidth),
    (vnet === null ? "-" : shortVnetId(vnet)).padEnd(vnetWidth),
    reason,
    direction,
    mac === null ? undefined : destination ? `${mac} > ${destination}` : mac,
    isFrame && from !== undefined ? `from ${from}` : undefined,
    device === undefined ? undefined : `by ${device}`,
    bytes === undefined ? undefined : `${String(bytes)} bytes`,
    event.text === "" ? undefined : event.text,
    headText(event.head),
  ];
  return words.filter((word) => word !== undefined).join(" ");
}

function headText(head: string | undefined): string | undefined {
  if (head === undefined || head === "") return undefined;
  const shown = head.slice(0, 2 * shownBytes);
  return `${shown.replace(/(.{8})(?=.)/gu, "$1 ")}${head.length > shown.length ? " …" : ""}`;
}

function localTime(iso: string): string {
  const date = new Date(iso);
  const two = (value: number): string => String(value).padStart(2, "0");
  const ms = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}
