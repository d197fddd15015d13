// SPDX-License-Identifier: Apache-2.0
/** monitor and capture: what goes on, as it happens. */
import { closeSync, openSync, writeSync } from "node:fs";
import { maxSnapBytes, type CapturedFrame, type MonitorEvent } from "../../src/api/contract.js";
import type { ApiClient } from "../../src/api/client.js";
import { VnetdError } from "../../src/base/errors.js";
import { version } from "../../src/base/version.js";
import { parseVnetId, shortVnetId } from "../../src/base/vnet-id.js";
import type { CommandSpec, Invocation } from "../command.js";
import { pcapngEnd, pcapngPacket, pcapngStart } from "../pcapng.js";
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
  {
    name: "capture",
    describe: "write a vnet's frames to a pcapng file, decapsulated and decrypted",
    positionals: [{ name: "VNET", describe: "a vnet's id", completes: "vnet" }],
    options: [
      {
        name: "write",
        short: "w",
        value: "FILE",
        describe: "the file; - is stdout",
        completes: "file",
      },
      { name: "count", short: "c", value: "N", describe: "end after so many frames" },
      { name: "snap", short: "s", value: "BYTES", describe: "of each frame no more than this" },
    ],
    epilogue:
      "Ends with Ctrl-C. In Wireshark each frame says which way it went, and a comment why it was dropped. " +
      "At once: vnetd capture 97 -w - | wireshark -k -i -",
    run: capture,
  },
];

/** Where the frames go; false: no more for now. */
type Sink = (bytes: Buffer, client: ApiClient | undefined) => boolean;

async function capture(invocation: Invocation): Promise<void> {
  const { output } = invocation;
  const file = invocation.option("write");
  if (file === undefined)
    throw new VnetdError("USAGE", "--write FILE is missing", {
      hint: "--write - writes to stdout, for another program.",
    });
  const vnet = invocation.positional("VNET");
  const snapBytes = numberOf(invocation, "snap", maxSnapBytes);
  const limit = countOf(invocation);
  const counts = { received: 0, dropped: 0, lost: 0 };
  const fd = file === "-" ? undefined : openFile(file);
  const sink: Sink = (bytes, client) => {
    if (fd === undefined) return output.flow(bytes, () => client?.resume());
    writeFully(fd, bytes, file);
    return true;
  };
  try {
    const id = parseVnetId(vnet);
    const application = `vnetd ${version}`;
    sink(pcapngStart({ name: `vnet ${shortVnetId(id)}`, snapBytes, application }), undefined);
    await invocation.follow("capture", { vnet, snapBytes }, (client) => ({
      event: (frame) => {
        if (counts.received >= limit) return false;
        counts.received += 1;
        if (frame.reason !== undefined) counts.dropped += 1;
        const goesOn = sink(blockOf(frame), client);
        if (counts.received >= limit) client.close();
        return goesOn;
      },
      lost: (lost) => {
        counts.lost += lost;
        return true;
      },
    }));
    sink(pcapngEnd(BigInt(Date.now()) * 1_000_000n, counts), undefined);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
  const { received, dropped, lost } = counts;
  if (output.json && fd !== undefined) return output.value({ frames: received, dropped, lost });
  output.note(
    `${String(received)} frames, ${String(dropped)} of them with a reason why they were dropped or not learned; ` +
      `${String(lost)} are missing`,
  );
}

function blockOf({ timeNs, direction, bytes, data, reason }: CapturedFrame): Buffer {
  const isRefused = reason?.startsWith("refused_") === true;
  return pcapngPacket({
    timeNs: BigInt(timeNs),
    data: Buffer.from(data, "base64"),
    length: bytes,
    direction: direction === "decap" ? "in" : "out",
    ...(reason === undefined
      ? {}
      : { comment: isRefused ? `source not learned: ${reason}` : `dropped: ${reason}` }),
  });
}

/** For its owner alone: what guests say is in it. */
function openFile(file: string): number {
  try {
    return openSync(file, "w", 0o600);
  } catch (error) {
    throw unwritable(file, error);
  }
}

function writeFully(fd: number, bytes: Buffer, file: string): void {
  try {
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at);
  } catch (error) {
    throw unwritable(file, error);
  }
}

function unwritable(file: string, cause: unknown): VnetdError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new VnetdError("FILE_UNWRITABLE", `${file} cannot be written: ${why}`, { cause });
}

function numberOf(invocation: Invocation, name: string, otherwise: number): number {
  const text = invocation.option(name);
  if (text === undefined) return otherwise;
  const value = /^\d{1,9}$/u.test(text) ? Number(text) : 0;
  if (value > 0) return value;
  throw new VnetdError("USAGE", `--${name}: "${text}" is no number from 1 on`);
}

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
  return numberOf(invocation, "count", Infinity);
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
