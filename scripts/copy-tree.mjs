#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * Lays out the files of an installation from a built checkout:
 *
 *   copy-tree.mjs DIRECTORY [--with-node | --without-node]
 *
 *   bin/vnetd bin/vn                  start dist/ with node/ or the machine's Node
 *   dist/ node_modules/ package.json  daemon and command line, with the packages they import
 *   build/addon build/bpf             addon and BPF programs, where dist/ looks for them
 *   monitoring/                       alert rules for Prometheus, a dashboard for Grafana
 *   schema/                           JSON Schemas of the configuration, for editors
 *   wireshark/vnetd.lua               Wireshark's dissector
 *   doc/                              README, changes, licences
 *   completion.bash completion.zsh    what `vnetd completion` prints
 *   man/                              manual pages (scripts/make-man.mjs)
 *   10-vnetd.network networkmanager.conf   keep others off our devices (packaging/)
 *   node/bin/node                     the Node that runs this: with --with-node, and, if nothing is said, where nothing
 *                                     of version 20 or later is where services look for it (the
 *                                     checkout's set-up has fetched one, or it is in somebody's PATH)
 *
 * The directory is made anew. A Node that is brought along must need nothing but the C and C++
 * libraries: the one of the npm registry does, Debian's own (a shared library) does not.
 */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative, resolve } from "node:path";

const root = resolve(import.meta.dirname, "..");
const [directory, option] = process.argv.slice(2);
if (directory === undefined || ![undefined, "--with-node", "--without-node"].includes(option)) {
  console.error("usage: copy-tree.mjs DIRECTORY [--with-node | --without-node]");
  process.exit(2);
}
const to = resolve(directory);

function fail(message) {
  console.error(`copy-tree: ${message}`);
  process.exit(1);
}

function copy(path, filter = () => true) {
  const source = join(root, path);
  if (!existsSync(source)) fail(`${path} is missing: run make first`);
  mkdirSync(dirname(join(to, path)), { recursive: true });
  cpSync(source, join(to, path), { recursive: true, filter });
}

/** The packages that package.json's "dependencies" pull in, as npm installed them. */
function runtimePackages() {
  const listing = execFileSync("npm", ["ls", "--omit=dev", "--all", "--parseable"], {
    cwd: root,
    encoding: "utf8",
  });
  return listing
    .split("\n")
    .filter((line) => line.includes("/node_modules/"))
    .map((line) => relative(root, line));
}

/** a Node of its own: `ldd` names only libraries that every Debian machine has */
function isSelfContained(node) {
  const libraries = execFileSync("ldd", [node], { encoding: "utf8" });
  return !/=> (?!.*\/(?:libc|libm|libdl|libpthread|librt|libgcc_s|libstdc\+\+|libatomic)\.so)/.test(
    libraries,
  );
}

/** what systemd, sudo and a login shell have in their PATH */
const systemDirectories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/** The machine has a Node that will do, where everybody finds it. */
function systemHasNode() {
  const node = systemDirectories.map((each) => join(each, "node")).find((path) => existsSync(path));
  if (node === undefined) return false;
  try {
    const version = execFileSync(node, ["--version"], { encoding: "utf8" });
    return Number(/^v(\d+)/.exec(version)?.[1]) >= 20;
  } catch {
    return false;
  }
}

function copyNode() {
  const node = realpathSync(process.execPath);
  if (!isSelfContained(node)) {
    const where =
      option === "--with-node" ? "the other machine" : "this machine, where services look,";
    console.error(`copy-tree: ${node} cannot be copied: ${where} needs Node >= 20`);
    return;
  }
  mkdirSync(join(to, "node", "bin"), { recursive: true });
  cpSync(node, join(to, "node", "bin", "node"));
  const licence = join(dirname(dirname(node)), "LICENSE");
  if (existsSync(licence)) cpSync(licence, join(to, "node", "LICENSE"));
}

rmSync(to, { recursive: true, force: true });
mkdirSync(join(to, "doc"), { recursive: true });
for (const path of [
  "bin/vnetd",
  "bin/vn",
  "bin/package.json",
  "build/addon/vnetd.node",
  "build/bpf/vnetd.bpf.o",
  "wireshark/vnetd.lua",
  "package.json",
  "schema",
  "monitoring",
])
  copy(path);
const runs = (path) => !/\.(?:map|stamp|d\.[cm]?ts)$/.test(path);
copy("dist", runs);
for (const path of runtimePackages()) copy(path, runs);
for (const name of readdirSync(root)) {
  if (/^(README|CHANGELOG|LICENSE)/.test(name))
    cpSync(join(root, name), join(to, "doc", name), { recursive: true });
}
chmodSync(join(to, "build", "addon", "vnetd.node"), 0o755);
for (const shell of ["bash", "zsh"]) {
  const argv = [join(root, "bin", "vnetd"), "completion", shell];
  writeFileSync(join(to, `completion.${shell}`), execFileSync(process.execPath, argv));
}
execFileSync(process.execPath, [join(root, "scripts", "make-man.mjs"), join(to, "man")]);
for (const name of ["10-vnetd.network", "networkmanager.conf"])
  cpSync(join(root, "packaging", name), join(to, name));
if (option === "--with-node" || (option === undefined && !systemHasNode())) copyNode();
