#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * Writes schema/*.schema.json from src/config, as built to dist/. test/unit/config-schema.test.ts
 * fails when what is checked in is not what the code says: `make schema`.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { format } from "prettier";
import { daemonConfigSchema } from "../dist/src/config/daemon-config.js";
import { vnetFileSchema } from "../dist/src/config/vnet-schema.js";

const directory = join(import.meta.dirname, "..", "schema");
mkdirSync(directory, { recursive: true });
for (const [name, schema] of [
  ["vnetd.schema.json", daemonConfigSchema()],
  ["vnet.schema.json", vnetFileSchema()],
]) {
  const text = await format(JSON.stringify(schema), { parser: "json", printWidth: 100 });
  writeFileSync(join(directory, name), text);
}
