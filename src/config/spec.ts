// SPDX-License-Identifier: Apache-2.0
/**
 * How a key of the daemon's configuration is described: once, for the reader of the file and for
 * the published JSON Schema. A key's spec says what it is for, reads it from the file or throws
 * with place and hint, and has the schema of its value.
 *
 * Pure; throws nothing but VnetdError.
 */
import { VnetdError, type Place } from "../base/errors.js";
import { didYouMean } from "../base/similar.js";
import { describeNode, type YamlMapping, type YamlNode } from "./yaml-tree.js";

export type JsonSchema = { readonly [key: string]: unknown };

export interface KeySpec<Value> {
  /** what it is for, in a few words; shown by editors */
  describe: string;
  schema: JsonSchema;
  read: (node: YamlNode, name: string) => Value;
  /** as it is written in the file; left out: as it is */
  print?(this: void, value: Value): unknown;
}

/** All keys of a mapping, each with its spec. */
export type KeyTable<Values> = { readonly [Key in keyof Values]: KeySpec<Values[Key]> };

export function refuse(message: string, hint: string, place: Place | undefined): VnetdError {
  return new VnetdError("CONFIG", message, { hint, ...(place === undefined ? {} : { place }) });
}

export function textOf(node: YamlNode, name: string): string {
  if (node.kind === "scalar" && node.text !== "") return node.text;
  throw refuse(
    `"${name}" must be one value, not ${describeNode(node)}`,
    `Give "${name}" a value or leave it out.`,
    node.place,
  );
}

// ---- kinds of values

export function integer(
  describe: string,
  { smallest, largest }: { smallest: number; largest: number },
): KeySpec<number> {
  return {
    describe,
    schema: { type: "integer", minimum: smallest, maximum: largest },
    read: (node, name) => {
      const text = textOf(node, name);
      const value = /^[0-9]{1,10}$/.test(text) ? Number(text) : Number.NaN;
      if (value >= smallest && value <= largest) return value;
      throw refuse(
        `"${name}" cannot be ${describeNode(node)}`,
        `It is a whole number from ${smallest} to ${largest}.`,
        node.place,
      );
    },
  };
}

export function boolean(describe: string): KeySpec<boolean> {
  return {
    describe,
    schema: { type: "boolean" },
    read: (node, name) => {
      const text = textOf(node, name);
      if (text === "true" || text === "false") return text === "true";
      throw refuse(`"${name}" cannot be ${describeNode(node)}`, "It is true or false.", node.place);
    },
  };
}

/** One of a few words. To YAML 1.1, which editors may read by, a plain `on` is a boolean. */
export function choice<Word extends string>(
  describe: string,
  words: readonly Word[],
): KeySpec<Word> {
  return {
    describe,
    schema: { enum: words.flatMap((word) => [word, ...yaml11(word)]) },
    read: (node, name) => {
      const text = textOf(node, name);
      const found = words.find((word) => word === text);
      if (found !== undefined) return found;
      throw refuse(
        `"${name}" cannot be ${describeNode(node)}`,
        `${didYouMean(text, words)}It is ${orList(words)}.`,
        node.place,
      );
    },
  };
}

function yaml11(word: string): boolean[] {
  return word === "on" ? [true] : word === "off" ? [false] : [];
}

/** Of any text, what `check` makes of it. */
export function text<Value>(
  describe: string,
  schema: JsonSchema,
  check: (text: string, node: YamlNode) => Value,
): KeySpec<Value> {
  return {
    describe,
    schema: { type: "string", ...schema },
    read: (node, name) => check(textOf(node, name), node),
  };
}

/** A mapping of keys of its own. `check` looks at what they are together. */
export function section<Values extends object>(
  describe: string,
  { table, defaults, check }: SectionSpec<Values>,
): KeySpec<Values> {
  return {
    describe,
    schema: mappingSchema(table, defaults()),
    read: (node, name) => {
      const values = readMapping(asMapping(node, `"${name}"`), table, defaults());
      check?.(values, node.place);
      return values;
    },
    print: (values) => printed(table, values),
  };
}

export interface SectionSpec<Values> {
  table: KeyTable<Values>;
  defaults: () => Values;
  check?: (values: Values, place: Place) => void;
}

// ---- mappings

export function asMapping(node: YamlNode, what: string): YamlMapping {
  if (node.kind === "mapping") return node;
  throw refuse(
    `${what} must be a mapping, not ${describeNode(node)}`,
    "Write KEY: VALUE, one on a line.",
    node.place,
  );
}

/** Throws for the first key that is not known, stands twice, or has no such value. */
export function readMapping<Values extends object>(
  mapping: YamlMapping,
  table: KeyTable<Values>,
  defaults: Values,
): Values {
  // a Map, so that a key such as "constructor" is as unknown as any other
  const known = new Map(entriesOf(table));
  const values = new Map<string, unknown>();
  for (const { key, value } of mapping.entries) {
    const spec = known.get(key.text);
    if (spec === undefined) throw unknownKey(key.text, known, key.place);
    if (values.has(key.text)) {
      throw new VnetdError("DUPLICATE_PARAMETER", `"${key.text}" is given twice`, {
        hint: "Keep one of the two.",
        place: key.place,
      });
    }
    values.set(key.text, spec.read(value, key.text));
  }
  return { ...defaults, ...(Object.fromEntries(values) as Partial<Values>) };
}

function unknownKey(
  name: string,
  known: ReadonlyMap<string, KeySpec<unknown>>,
  place: Place,
): VnetdError {
  const inside = [...known].find(([, { schema }]) => {
    const { properties } = schema as { properties?: object };
    return properties !== undefined && Object.hasOwn(properties, name);
  });
  const hint =
    inside !== undefined
      ? `Put it below "${inside[0]}".`
      : `${didYouMean(name, known.keys())}The keys here are ${[...known.keys()].join(", ")}.`;
  return new VnetdError(
    "UNKNOWN_PARAMETER",
    `"${name.slice(0, 80)}" is not a key of the configuration`,
    { hint, place },
  );
}

/** What of a mapping stands in the file when all of it does; null: there is nothing to write. */
export function printed<Values extends object>(
  table: KeyTable<Values>,
  values: Values,
): Record<string, unknown> {
  return Object.fromEntries(
    (Object.keys(table) as (keyof Values & string)[]).map((key) => {
      const value = values[key];
      const { print } = table[key];
      return [key, print === undefined ? value : print(value)];
    }),
  );
}

export function mappingSchema<Values extends object>(
  table: KeyTable<Values>,
  defaults: Values,
): JsonSchema {
  const written = printed(table, defaults);
  const properties = entriesOf(table).map(([key, { describe, schema }]) => {
    const hasDefault = written[key] !== null && !Object.hasOwn(schema, "properties");
    return [
      key,
      { description: describe, ...schema, ...(hasDefault ? { default: written[key] } : {}) },
    ];
  });
  return {
    type: "object",
    additionalProperties: false,
    properties: Object.fromEntries(properties) as JsonSchema,
  };
}

function entriesOf<Values>(table: KeyTable<Values>): [string, KeySpec<unknown>][] {
  return Object.entries(table as Record<string, KeySpec<unknown>>);
}

export function orList(words: readonly string[]): string {
  return words.length < 2
    ? words.join("")
    : `${words.slice(0, -1).join(", ")} or ${words.at(-1) ?? ""}`;
}
