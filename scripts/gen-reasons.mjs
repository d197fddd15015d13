#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * docs/drop-reasons.md -> src/generated/reason-texts.ts: what each reason means, as it is told by `vnetd trace`.
 *
 *   gen-reasons.mjs          writes the file
 *   gen-reasons.mjs --check  writes nothing, fails when the file is stale (make lint)
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const target = join(root, "src", "generated", "reason-texts.ts");
const page = readFileSync(join(root, "docs", "drop-reasons.md"), "utf8");

const plain = (text) =>
  text
    .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
    .replaceAll("`", "")
    .trim();
const rows = [...page.matchAll(/^\| *`(\w+)` *\|([^|]*)\|([^|]*)\|([^|]*)\|$/gm)];
const lines = rows.map(([, reason, , means]) => `  ${reason}: ${JSON.stringify(plain(means))},`);
const text = `// SPDX-License-Identifier: Apache-2.0
// Made from docs/drop-reasons.md by scripts/gen-reasons.mjs: \`make layouts\`.

/** reason -> what it means */
export const reasonTexts: Readonly<Record<string, string>> = {
${lines.join("\n")}
};
`;
if (!process.argv.includes("--check")) writeFileSync(target, text);
else if (readFileSync(target, "utf8") !== text) {
  console.error("src/generated/reason-texts.ts is stale: make layouts");
  process.exitCode = 1;
}
