// SPDX-License-Identifier: Apache-2.0
/** Every reason of include/vnetd/reasons.h has a row in some table, and no row has another. */
import { expect, it } from "vitest";
import { reasonNames } from "../../src/generated/layouts.js";
import { DECAP_ROWS } from "./decap-rows.js";
import { ENCAP_ROWS } from "./encap-rows.js";
import { FLOOD_ROWS } from "./flood-rows.js";
import { FRAGMENT_ROWS } from "./fragment-rows.js";
import { FORM_ROWS } from "./form-rows.js";
import { GROUP_ROWS } from "./group-rows.js";
import { LIMIT_ROWS, SMALL_TABLE_ROWS } from "./limit-rows.js";
import { PATH_MTU_ROWS } from "./path-mtu-rows.js";
import { PATH_ROWS } from "./path-rows.js";
import { PEER_ROWS } from "./peer-rows.js";
import { PORT_ROWS } from "./port-rows.js";
import { ELSEWHERE, REAL_REASONS } from "./real-reasons.js";
import { SECURE_ROWS } from "./secure-rows.js";

it("every reason has a row, and every row's reason is one", () => {
  const rows = [
    ...DECAP_ROWS,
    ...ENCAP_ROWS,
    ...FLOOD_ROWS,
    ...FRAGMENT_ROWS,
    ...LIMIT_ROWS,
    ...SMALL_TABLE_ROWS,
    ...PATH_ROWS,
    ...PATH_MTU_ROWS,
    ...PEER_ROWS,
    ...FORM_ROWS,
    ...GROUP_ROWS,
    ...SECURE_ROWS,
    ...PORT_ROWS,
  ];
  const covered = new Set([
    ...rows.flatMap((row) => row.reasons ?? []),
    ...REAL_REASONS,
    ...ELSEWHERE,
  ]);
  const all = reasonNames.filter((name) => name !== "ok");
  expect([...covered].sort()).toEqual([...all].sort());
});
