// SPDX-License-Identifier: Apache-2.0
/**
 * Names of network devices, by the kernel's rules (dev_valid_name, dev_alloc_name): 1 to 15
 * bytes, no white space, no '/', no ':', not "." or "..", no '%', which the kernel would take as
 * a pattern to be numbered; nor "all" and "default", which stand for all devices below /proc/sys. The original's manual says 14; the kernel takes 15. Beyond
 * the kernel, control characters are refused, because names are printed on terminals.
 */
import { VnetdError, type Place } from "./errors.js";

export const maxNameBytes = 15;

const encoder = new TextEncoder();

/** Why a name cannot be a device's, or undefined if it can. */
export function deviceNameProblem(name: string): string | undefined {
  if (name === "") return "it is empty";
  const bytes = encoder.encode(name).length;
  if (bytes > maxNameBytes) {
    return `it has ${bytes} bytes, and the kernel takes at most ${maxNameBytes}`;
  }
  if ([".", "..", "all", "default"].includes(name)) return "the kernel reserves it";
  const forbidden = /[/:%]/.exec(name)?.[0];
  if (forbidden !== undefined) return `it holds "${forbidden}"`;
  if (/\s/u.test(name)) return "it holds white space";
  if (/[\p{Cc}\p{Cf}\p{Cs}]/u.test(name)) return "it holds characters that cannot be printed";
  return undefined;
}

/** Returns the name, or throws BAD_NAME. `what` is e.g. "bridge". */
export function checkDeviceName(name: string, what: string, place?: Place): string {
  const problem = deviceNameProblem(name);
  if (problem === undefined) return name;
  const shown = name.length > 80 ? `${name.slice(0, 80)}…` : name;
  throw new VnetdError("BAD_NAME", `"${shown}" cannot be the name of a ${what}: ${problem}`, {
    hint: "Use 1 to 15 letters, digits, dots, dashes or underscores.",
    ...(place === undefined ? {} : { place }),
  });
}
