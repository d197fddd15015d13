// SPDX-License-Identifier: Apache-2.0
/**
 * Makes one file of the command line, which bin/vnetd and bin/vn load, and one of the daemon:
 *
 *   bundle.mjs [DIST]     DIST/cli/main.js and what it imports -> DIST/cli/vnetd.cjs
 *                         DIST/src/main.js likewise            -> DIST/src/vnetd.mjs
 *
 * Most of what a short command takes is Node's: its start, and for each module of a program a file to find, read and
 * compile. The command line is CommonJS, since Node starts its loader for modules only when one is imported. What is imported
 * when it is needed (`await import()`: the daemon, the parser for help) stays apart, with its packages.
 */
import { existsSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { rolldown } from "rolldown";

const dist = resolve(process.argv[2] ?? join(import.meta.dirname, "..", "dist"));
const daemon = { from: join(dist, "src/main.js"), to: join(dist, "src/vnetd.mjs") };

/** Imported by the bundle when it is needed: the daemon as its one file. */
function lazyParts(directory) {
  return {
    name: "lazy-parts",
    resolveDynamicImport(source, importer) {
      if (!source.startsWith(".")) return { id: source, external: true };
      const path = resolve(dirname(importer), source);
      const id = relative(directory, path === daemon.from ? daemon.to : path);
      return { id: id.startsWith(".") ? id : `./${id}`, external: "relative" };
    },
  };
}

async function bundle({ from, to }, format) {
  const made = await rolldown({ input: from, platform: "node", plugins: [lazyParts(dirname(to))] });
  await made.write({ file: to, format, codeSplitting: false });
  await made.close();
}

await bundle({ from: join(dist, "cli/main.js"), to: join(dist, "cli/vnetd.cjs") }, "cjs");
// a test has the command line alone
if (existsSync(daemon.from)) await bundle(daemon, "esm");
