// SPDX-License-Identifier: Apache-2.0
/**
 * Builds the native addon to build/addon/vnetd.node; does nothing when that is newer than all of
 * its sources. node-gyp takes the headers of the running node and fetches nothing.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const built = join(root, "addon/build/Release/vnetd.node");
const target = join(root, "build/addon/vnetd.node");

function sources() {
  const folder = join(root, "addon/src");
  return [
    fileURLToPath(import.meta.url),
    join(root, "addon/binding.gyp"),
    join(root, "node_modules/node-addon-api/package.json"),
    ...readdirSync(folder).map((name) => join(folder, name)),
  ];
}

function upToDate() {
  if (!existsSync(target)) return false;
  const builtMs = statSync(target).mtimeMs;
  return sources().every((path) => statSync(path).mtimeMs <= builtMs);
}

/** The folder that holds include/node of the node that runs this. */
function nodeDirectory() {
  const prefix = dirname(dirname(process.execPath));
  if (existsSync(join(prefix, "include/node/node_api.h"))) return prefix;
  process.stderr.write(
    `build-addon: no Node headers in ${prefix}/include/node; install Node with its headers\n`,
  );
  process.exit(1);
}

function build() {
  const require = createRequire(import.meta.url);
  const nodeGyp = require.resolve("node-gyp/bin/node-gyp.js");
  const directory = nodeDirectory();
  const result = spawnSync(
    process.execPath,
    [
      nodeGyp,
      "configure",
      "build",
      "-C",
      "addon",
      `--nodedir=${directory}`,
      "--jobs=2",
      "--loglevel=warn",
    ],
    { cwd: root, stdio: ["ignore", "inherit", "inherit"] },
  );
  if (result.status !== 0) process.exit(result.status ?? 1);
  // a running daemon has the old file mapped: replace the name, never the contents
  mkdirSync(dirname(target), { recursive: true });
  const fresh = `${target}.${process.pid}`;
  copyFileSync(built, fresh);
  renameSync(fresh, target);
}

if (!upToDate()) build();
