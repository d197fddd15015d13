// SPDX-License-Identifier: Apache-2.0
/** VARP that needs no daemon: vnetd_decap against varp-rows.ts, over IPv4 and IPv6. */
import { afterAll, beforeAll, describe, it } from "vitest";
import { BpfLab } from "../lib/bpf-lab.js";
import { runRow, rowsFor } from "./rows.js";
import { VARP_ROWS } from "./varp-rows.js";

describe.each(["udp4", "udp6"] as const)("%s", (form) => {
  let lab: BpfLab | undefined;
  beforeAll(() => {
    lab = BpfLab.open({ form });
  });
  afterAll(() => lab?.close());

  for (const row of rowsFor(form, VARP_ROWS)) it(row.description, () => runRow(lab!, row));
});
