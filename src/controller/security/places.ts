// SPDX-License-Identifier: Apache-2.0
/** Places of the underlay and vnets, in the forms that exchanges of keys need. */
import type { Family } from "../../base/address.js";
import type { Underlay } from "../underlays.js";
import type { RunningVnet } from "../vnets.js";
import type { SecureSlot } from "./leftovers.js";

export function placeOf({
  ifindex,
  family,
  state,
}: Underlay): { ifindex: number; family: Family; own: string } | undefined {
  return state.address === null || ifindex === 0
    ? undefined
    : { ifindex, family, own: state.address };
}

export function slotOf({ slot, handle, secure }: RunningVnet): SecureSlot {
  if (secure === undefined) throw new Error(`vnet ${String(handle)} is not secure`);
  return { slot, handle, suite: secure.suite, keyIds: secure.keys.map(({ id }) => id) };
}
