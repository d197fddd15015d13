// SPDX-License-Identifier: Apache-2.0
/** A VARP message as BPF handed it over by the ring `control`: bpf/lib/varp.h. */
import {
  decodeVnetdEventVarp,
  VnetdEventVarp as Layout,
  vnetdLimits,
  type VnetdEventVarp,
} from "../generated/layouts.js";

const shortBytes = Layout.fields.message.offset + vnetdLimits.VARP_SHORT_LEN;

/** The record of a short message ends early. undefined: it is none. */
export function varpEventOf(record: Buffer): VnetdEventVarp | undefined {
  if (record.length < shortBytes) return undefined;
  const isWhole = record.length >= Layout.size;
  return decodeVnetdEventVarp(isWhole ? record : Buffer.concat([record], Layout.size));
}
