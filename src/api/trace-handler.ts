// SPDX-License-Identifier: Apache-2.0
/** `trace`: reads and checks its parameters. */
import { maxFrameBytes, minFrameBytes, type Trace } from "../controller/trace/trace.js";
import type { TraceParams, TraceReport } from "./contract.js";
import {
  flagField,
  onlyFields,
  optionalIntegerField,
  optionalTextField,
  textField,
} from "./params.js";

const texts = ["source", "from", "type", "asks"] as const;
const flags = ["byGroup", "dontFragment", "send"] as const;

export function traceHandler(trace: Trace, params: unknown): Promise<TraceReport> {
  onlyFields(params, ["vnet", "destination", "bytes", ...texts, ...flags]);
  const asked: TraceParams = {
    vnet: textField(params, "vnet"),
    destination: textField(params, "destination"),
  };
  for (const name of texts) {
    const value = optionalTextField(params, name);
    if (value !== undefined) asked[name] = value;
  }
  for (const name of flags) asked[name] = flagField(params, name);
  const bounds = { smallest: minFrameBytes, largest: maxFrameBytes };
  const bytes = optionalIntegerField(params, "bytes", bounds);
  if (bytes !== undefined) asked.bytes = bytes;
  return trace.run(asked);
}
