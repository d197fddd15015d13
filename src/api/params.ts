// SPDX-License-Identifier: Apache-2.0
/**
 * Reads the fields of a request's parameters: what came over the socket has any form.
 */
import { VnetdError } from "../base/errors.js";

type Fields = Readonly<Record<string, unknown>>;

/** JSON fields of a request; the handler's type says what they should be, nothing says they are. */
export function fieldsOf(params: unknown): Fields {
  return typeof params === "object" && params !== null ? (params as Fields) : {};
}

export function textField(params: unknown, name: string): string {
  const value = optionalTextField(params, name);
  if (value !== undefined) return value;
  throw new VnetdError("BAD_REQUEST", `the request has no "${name}"`);
}

export function optionalTextField(params: unknown, name: string): string | undefined {
  const value = ownField(params, name);
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return value;
  throw new VnetdError("BAD_REQUEST", `"${name}" must be a text`);
}

export function optionalIntegerField(
  params: unknown,
  name: string,
  bounds: { smallest: number; largest: number },
): number | undefined {
  const value = ownField(params, name);
  if (value === undefined || value === null) return undefined;
  const { smallest, largest } = bounds;
  const fits = typeof value === "number" && Number.isInteger(value);
  if (fits && value >= smallest && value <= largest) return value;
  throw new VnetdError(
    "BAD_REQUEST",
    `"${name}" must be a whole number from ${String(smallest)} to ${String(largest)}`,
  );
}

export function flagField(params: unknown, name: string): boolean {
  const value = ownField(params, name);
  if (value === undefined || typeof value === "boolean") return value ?? false;
  throw new VnetdError("BAD_REQUEST", `"${name}" must be true or false`);
}

export function textListField(params: unknown, name: string): string[] {
  const value = ownField(params, name) ?? [];
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  throw new VnetdError("BAD_REQUEST", `"${name}" must be a list of texts`);
}

/** Throws BAD_REQUEST for a field that means nothing: what it asks for would be silently left out. */
export function onlyFields(params: unknown, known: readonly string[]): void {
  const unknown = Object.keys(fieldsOf(params)).find((name) => !known.includes(name));
  if (unknown === undefined) return;
  throw new VnetdError("BAD_REQUEST", `the request has an unknown "${unknown.slice(0, 80)}"`, {
    hint: `It takes ${known.join(", ")}.`,
  });
}

function ownField(params: unknown, name: string): unknown {
  const fields = fieldsOf(params);
  return Object.hasOwn(fields, name) ? fields[name] : undefined;
}
