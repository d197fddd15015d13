// SPDX-License-Identifier: Apache-2.0
/**
 * What the kernel said: reads the addon's errors, and makes them errors of the API.
 */
import { VnetdError } from "../base/errors.js";

/** errno's name of an addon's or Node's error ("EEXIST"), or "". */
export function errnoName(error: unknown): string {
  if (!(error instanceof Error) || !("code" in error)) return "";
  return typeof error.code === "string" ? error.code : "";
}

/** Runs an operation of the kernel; its refusal becomes a VnetdError that says what was tried. */
export function kernel<T>(what: string, operation: () => T): T {
  try {
    return operation();
  } catch (error) {
    throw kernelError(what, error);
  }
}

export function kernelError(what: string, error: unknown): VnetdError {
  if (error instanceof VnetdError) return error;
  if (!(error instanceof Error)) return new VnetdError("KERNEL", `${what}: ${String(error)}`);
  const name = errnoName(error);
  const detail = "detail" in error && typeof error.detail === "string" ? error.detail : "";
  const reason = [name === "" ? error.message : name, detail].filter((text) => text !== "");
  const hint = hints[name];
  const options = hint === undefined ? { cause: error } : { cause: error, hint };
  return new VnetdError("KERNEL", `${what}: ${reason.join(": ")}`, options);
}

const hints: Partial<Record<string, string>> = {
  EPERM: "Run the daemon as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.",
  ENOSPC: "A table or a limit of the kernel is full.",
};
