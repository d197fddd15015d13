// SPDX-License-Identifier: Apache-2.0
/**
 * Makes JavaScript of a TypeScript module and of what it imports, for tests that run a part of
 * vnetd in a process of its own (to kill it, or to see its exit code). No type check, and no
 * need of a build.
 */
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../../..");

/** The new directory: below build/, so that packages are found from there. Remove it after. */
export function makeOutputDirectory(): string {
  mkdirSync(join(root, "build"), { recursive: true });
  return mkdtempSync(join(root, "build/unit-"));
}

/** Returns the path of the entry's JavaScript. Dynamic imports are not followed. */
export function transpile(entry: string, outputDirectory: string): string {
  const done = new Set<string>();
  const pending = [resolve(root, entry)];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    if (done.has(path)) continue;
    done.add(path);
    const { outputText } = ts.transpileModule(readFileSync(path, "utf8"), {
      fileName: path,
      compilerOptions: {
        target: ts.ScriptTarget.ES2022,
        module: ts.ModuleKind.ESNext,
        verbatimModuleSyntax: true,
      },
    });
    const output = join(outputDirectory, relative(root, path)).replace(/\.ts$/, ".js");
    mkdirSync(dirname(output), { recursive: true });
    writeFileSync(output, outputText);
    for (const match of outputText.matchAll(/from "(\.[^"]+)\.js"/g)) {
      pending.push(resolve(dirname(path), `${match[1]}.ts`));
    }
  }
  return join(outputDirectory, entry).replace(/\.ts$/, ".js");
}
