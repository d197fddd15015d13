// SPDX-License-Identifier: Apache-2.0
/**
 * key-gen, key-rotate, keys and rekey: the secrets of vnets, and the traffic keys that come of them. No key ever
 * crosses the daemon's socket: it is told where one is.
 */
import { randomBytes } from "node:crypto";
import { resolve } from "node:path";
import {
  defaultKeyName,
  keyIdOf,
  keyPathIn,
  printKeyFile,
  secretBytes,
} from "../../src/base/vnet-key.js";
import type { KeyedHostInfo, SecureVnetInfo } from "../../src/api/contract.js";
import { VnetdError } from "../../src/base/errors.js";
import { shortVnetId } from "../../src/base/vnet-id.js";
import type { CommandSpec, Invocation, PositionalSpec } from "../command.js";
import { daemonOptions, daemonPaths } from "../daemon-options.js";
import { keyArgument } from "../key-argument.js";
import { writeKeyFile } from "../key-file.js";
import { durationText } from "../printable.js";
import type { Column } from "../table.js";

function generateKey(invocation: Invocation): void {
  const named = invocation.option("FILE");
  const path =
    named === undefined
      ? keyPathIn(daemonPaths(invocation).stateDir, defaultKeyName)
      : resolve(named);
  const secret = randomBytes(secretBytes);
  const text = Buffer.from(printKeyFile(secret));
  const keyId = keyIdOf(secret);
  try {
    writeKeyFile(path, text, named === undefined);
  } finally {
    secret.fill(0);
    text.fill(0);
  }
  if (invocation.output.json) return invocation.output.value({ file: path, keyId });
  invocation.output.line(`made ${path}, key id ${keyId}`);
}

/** A vnet without hosts has a row as well: what it uses can be compared. */
interface KeyRow {
  vnet: SecureVnetInfo;
  host: KeyedHostInfo | undefined;
}

const duration = (seconds: number | null = null): string =>
  seconds === null ? "" : durationText(seconds);

const keyColumns: readonly Column<KeyRow>[] = [
  { title: "VNET", text: ({ vnet }) => shortVnetId(vnet.vnet) },
  { title: "SECURITY", text: ({ vnet }) => `${vnet.security} ${vnet.suite}` },
  { title: "HOST", text: ({ host }) => host?.name ?? "(this host)" },
  { title: "ADDRESS", text: ({ host }) => host?.address ?? "" },
  { title: "DEVICE", text: ({ host }) => host?.device ?? "" },
  {
    title: "KEY ID",
    text: ({ vnet, host }) => (host === undefined ? vnet.keyId : (host.keyId ?? "none yet")),
    colour: ({ host }) => (host?.keyId === null ? "bad" : "none"),
  },
  { title: "AGE", text: ({ host }) => duration(host?.ageSeconds), right: true },
  { title: "NEW IN", text: ({ host }) => duration(host?.rekeySeconds), right: true },
  { title: "GONE IN", text: ({ host }) => duration(host?.hardSeconds), right: true },
];

function keyRows(vnet: SecureVnetInfo): KeyRow[] {
  return [{ vnet, host: undefined }, ...vnet.hosts.map((host) => ({ vnet, host }))];
}

function vnetParams(invocation: Invocation): { vnet?: string } {
  const vnet = invocation.option("VNET");
  return vnet === undefined ? {} : { vnet };
}

const noneSecure = "there are no secure vnets; vnet-create -s conf makes one";

async function showKeys(invocation: Invocation): Promise<void> {
  const vnets = await invocation.request("keys", vnetParams(invocation));
  if (invocation.output.json) return invocation.output.value(vnets);
  invocation.output.rows(vnets.flatMap(keyRows), keyColumns, noneSecure);
  for (const { vnet, keyId, previousKeyId, hosts } of vnets) {
    if (previousKeyId === null) continue;
    const waiting = hosts.filter(({ waits }) => waits).length;
    invocation.output.note(
      `vnet ${shortVnetId(vnet)} changes from key id ${previousKeyId} to ${keyId}, and waits for ${waiting} of ${hosts.length} hosts`,
    );
  }
}

async function rekey(invocation: Invocation): Promise<void> {
  const changed = await invocation.request("rekey", vnetParams(invocation));
  if (invocation.output.json) return invocation.output.value(changed);
  if (changed.length === 0) return invocation.output.note(noneSecure);
  for (const { vnet, hosts } of changed) {
    const withHosts = hosts === 1 ? "1 host" : `${hosts} hosts`;
    invocation.output.line(`vnet ${shortVnetId(vnet)}: new keys with ${withHosts}`);
  }
}

async function rotateKey(invocation: Invocation): Promise<void> {
  const vnet = invocation.positional("VNET");
  const file = invocation.option("FILE");
  const ends = invocation.flag("end");
  if (ends === (file !== undefined)) {
    throw new VnetdError("USAGE", "key-rotate takes the new key's FILE, or --end", {
      hint: "`vnetd key-rotate VNET FILE` begins a change of keys, `vnetd key-rotate VNET --end` ends it now.",
    });
  }
  const params =
    file === undefined ? { end: true as const } : { key: keyArgument(invocation, file) };
  const info = await invocation.request("keyRotate", { vnet, ...params });
  if (invocation.output.json) return invocation.output.value(info);
  const what = `vnet ${shortVnetId(info.vnet)}: key ${info.key}, key id ${info.keyId}`;
  if (ends) return invocation.output.line(`${what}; no other is taken`);
  if (info.previousKey === null) return invocation.output.line(`${what}, as before`);
  invocation.output.line(`${what}; ${info.previousKey} is taken too, until all hosts have moved`);
}

const secureVnet: PositionalSpec = {
  name: "VNET",
  describe: "a secure vnet's id",
  completes: "vnet",
};
const optionalVnet: PositionalSpec = {
  ...secureVnet,
  describe: "of one vnet alone",
  optional: true,
};

export const keyCommands: readonly CommandSpec[] = [
  {
    name: "key-gen",
    describe: "make a new secret for vnets; without FILE the default key of this host",
    positionals: [
      { name: "FILE", describe: "a file that is not there yet", completes: "file", optional: true },
    ],
    options: daemonOptions
      .filter(({ name }) => name === "state-dir")
      .map((option) => ({ ...option, describe: `of the daemon: ${option.describe}` })),
    epilogue:
      "Every host of a vnet needs a copy of one file, with mode 0600. Whoever has it can read and write the vnet.",
    run: generateKey,
  },
  {
    name: "key-rotate",
    describe: "change a vnet's secret, without loss: on each of its hosts, in any order",
    positionals: [
      secureVnet,
      {
        name: "FILE",
        describe: "the new key file, or the name of a key of this host",
        completes: "file",
        optional: true,
      },
    ],
    options: [
      {
        name: "end",
        flag: true,
        describe: "the key before is taken no more: hosts that have not moved are cut off",
      },
    ],
    epilogue:
      "The key before is taken too until all hosts that are known have the new one: do not remove its file before. `keys` shows who has not.",
    run: rotateKey,
  },
  {
    name: "keys",
    describe: "list the keys of secure vnets: ids and ages, never a key",
    positionals: [optionalVnet],
    run: showKeys,
  },
  {
    name: "rekey",
    describe: "make new traffic keys now, without loss",
    positionals: [optionalVnet],
    run: rekey,
  },
];
