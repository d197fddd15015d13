// SPDX-License-Identifier: Apache-2.0
/**
 * VARP messages that go no further in the daemon are counted as frames are in BPF: by vnet, direction
 * and reason (include/vnetd/reasons.h, docs/drop-reasons.md).
 */
import { macFromBytes } from "../base/mac.js";
import { VnetdVarp, vnetdDirection } from "../generated/layouts.js";
import type { VarpMessage } from "../wire/varp.js";
import type { Context } from "./context.js";

/** A vnet, or what is known of it: handle 0 is none. */
interface OfVnet {
  handle: number;
}

/** One that came in was not taken, not answered, or not entered in the table. */
export function refuse(
  { control, counts, news }: Pick<Context, "control" | "counts" | "news">,
  { handle }: OfVnet,
  reason: string,
  message: VarpMessage,
): void {
  const bytes = VnetdVarp.size + message.trailing.length;
  counts.judged(reason);
  control.countDrop({ handle, direction: vnetdDirection.DIR_DECAP, reason, bytes });
  news.tell(() => {
    const text = `VARP ${message.opcode} of ${macFromBytes(message.vmac)}`;
    return { kind: "dropped", handle, reason, direction: "decap", bytes, text };
  });
}

/** One that should have left did not. */
export function notSent(
  { control, news }: Context,
  { handle }: OfVnet,
  reason: string,
  bytes: number = VnetdVarp.size,
): void {
  control.countDrop({ handle, direction: vnetdDirection.DIR_ENCAP, reason, bytes });
  news.tell(() => {
    return { kind: "dropped", handle, reason, direction: "encap", bytes, text: "VARP" };
  });
}
