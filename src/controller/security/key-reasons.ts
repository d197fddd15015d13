// SPDX-License-Identifier: Apache-2.0
/** By which drop reason a key message is counted that was not taken (docs/drop-reasons.md). Pure. */
import type { NotTaken } from "../../keys/exchanges.js";

export const keyReasons: Readonly<Record<NotTaken, string>> = {
  malformed: "keys_malformed",
  not_for_us: "keys_not_for_us",
  unknown_key: "keys_unknown_key",
  bad_mac: "keys_bad_mac",
  other_suite: "keys_other_suite",
  not_fresh: "keys_not_fresh",
  no_exchange: "keys_no_exchange",
  too_many: "keys_too_many",
};
