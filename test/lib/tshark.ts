// SPDX-License-Identifier: Apache-2.0
/** What tshark makes of packets with our dissector (wireshark/vnetd.lua), as a table of fields. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { encodePcap } from "./pcap.js";
import { run } from "./processes.js";

export const dissector = resolve(import.meta.dirname, "..", "..", "wireshark", "vnetd.lua");

/** field -> its values in the packet, outermost first; a field that is not there has none */
export type Row = Record<string, string[]>;

export interface TsharkOptions {
  filter?: string;
  /** more of tshark's arguments */
  args?: readonly string[];
  /** left out: the checkout's; null: what Wireshark has found itself */
  script?: string | null;
}

export interface Table {
  rows: Row[];
  /** what tshark complains about, but for being root */
  complaints: string;
}

const separator = "\u001f";

/** A pcap or pcapng file, read by tshark; a row for each packet. */
export async function readWithTshark(
  file: Uint8Array,
  fields: readonly string[],
  { filter, args = [], script = dissector }: TsharkOptions = {},
): Promise<Table> {
  const directory = mkdtempSync(join(tmpdir(), "vnetd-tshark-"));
  try {
    const path = join(directory, "packets");
    writeFileSync(path, file);
    const { stdout, stderr } = await run(
      [
        ...["tshark", "-n", "-r", path, "-T", "fields", "-E", `aggregator=${separator}`],
        ...(script === null ? [] : ["-X", `lua_script:${script}`]),
        ...(filter === undefined ? [] : ["-Y", filter]),
        ...args,
        ...fields.flatMap((field) => ["-e", field]),
      ],
      { env: { WIRESHARK_CONFIG_DIR: directory } },
    );
    const rows = stdout
      .split("\n")
      .slice(0, -1)
      .map((line) => {
        const values = line.split("\t");
        return Object.fromEntries(
          fields.map((field, at) => [field, (values[at] ?? "").split(separator).filter(Boolean)]),
        );
      });
    return { rows, complaints: stderr.replace(/^Running as user .*\n/u, "") };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Ethernet frames. */
export function tsharkOf(
  frames: readonly Buffer[],
  fields: readonly string[],
  options: TsharkOptions = {},
): Promise<Table> {
  const packets = frames.map((data, at) => ({
    timeNs: BigInt(at) * 1_000_000n,
    wireLength: data.length,
    data,
  }));
  return readWithTshark(encodePcap(packets), fields, options);
}
