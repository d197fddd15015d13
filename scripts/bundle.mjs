// SPDX-License-Identifier: Apache-2.0
/**
 * Makes one file of the command line, which bin/vnetd and bin/vn load:
 *
 *   bundle.mjs [DIST]     DIST/cli/main.js and what it imports -> DIST/cli/vnetd.cjs
 *
 * Most of what a short command takes is Node's: its start, and for each module of a program a file to find, read and
 * compile. CommonJS, since Node starts its loader for modules only when one is imported. What is imported when it is needed
 * (`await import()`: the daemon, the parser for help) stays where it is.
 */
import { builtinModules } from "node:module";
import { dirname, join, relative, resolve } from "node:path";
import { rolldown } from "rolldown";

const dist = resolve(process.argv[2] ?? join(import.meta.dirname, "..", "dist"));
const directory = join(dist, "cli");

const lazyParts = {
  name: "lazy-parts",
  resolveDynamicImport(source, importer) {
    if (!source.startsWith(".")) return { id: source, external: true };
    const path = relative(directory, resolve(dirname(importer), source));
    return { id: path.startsWith(".") ? path : `./${path}`, external: "relative" };
  },
};
const bundle = await rolldown({
  input: join(directory, "main.js"),
  platform: "node",
  plugins: [lazyParts],
  external: [/^node:/u, ...builtinModules],
});
await bundle.write({ file: join(directory, "vnetd.cjs"), format: "cjs" });
await bundle.close();
