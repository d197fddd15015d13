// SPDX-License-Identifier: Apache-2.0
/** From the underlay into a vnet: vnetd_decap against its table. */
import { afterAll, beforeAll, describe, it } from "vitest";
import { BpfLab } from "../lib/bpf-lab.js";
import { DECAP_ROWS } from "./decap-rows.js";
import { runRow } from "./rows.js";

let lab: BpfLab | undefined;
beforeAll(() => {
  lab = BpfLab.open();
});
afterAll(() => lab?.close());

describe("vnetd_decap", () => {
  for (const row of DECAP_ROWS) it(row.description, () => runRow(lab!, row));
});
