#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * include/vnetd/*.h -> src/generated/layouts.ts, so that no layout is ever written twice.
 *
 * A C file that names every struct and enum of the headers is compiled for the BPF target, and
 * what the compiler says about them (BTF, read with `bpftool -j btf dump`) is printed as
 * TypeScript. The order is the headers' own, so the output does not depend on the compiler.
 *
 *   gen-layouts.mjs          writes the file
 *   gen-layouts.mjs --check  writes nothing, fails when the file is stale (make lint)
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const headerDir = join(root, "include", "vnetd");
const target = join(root, "src", "generated", "layouts.ts");
const environment = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

/** Fields that carry nothing: written as zero, left out of the interfaces. */
const padding = /^(pad|reserved)\d*$/;

function headers() {
  return readdirSync(headerDir)
    .filter((name) => name.endsWith(".h"))
    .sort();
}

/** tags in the order of the headers: [{kind: "struct" | "enum", tag}] */
function declared() {
  const found = [];
  for (const name of headers()) {
    const text = readFileSync(join(headerDir, name), "utf8").replace(/\/\*[^]*?\*\//g, "");
    for (const [, kind, tag] of text.matchAll(/\b(struct|enum)\s+(vnetd_\w+)\s*\{/g))
      found.push({ kind, tag });
  }
  return found;
}

function readBtf(tags) {
  const dir = mkdtempSync(join(tmpdir(), "vnetd-layouts-"));
  try {
    const lines = headers().map((name) => `#include <vnetd/${name}>`);
    tags.forEach(({ kind, tag }, i) => lines.push(`${kind} ${tag} use_${i};`));
    const source = join(dir, "layouts.c");
    const object = join(dir, "layouts.o");
    writeFileSync(source, lines.join("\n") + "\n");
    const machine = execFileSync("gcc", ["-dumpmachine"], { encoding: "utf8" }).trim();
    const include = [`-I${join(root, "include")}`, `-I/usr/include/${machine}`];
    execFileSync(
      "clang",
      ["-O2", "-g", "-target", "bpf", "-Wall", "-Werror", ...include, "-c", source, "-o", object],
      {
        stdio: "inherit",
      },
    );
    const json = execFileSync("bpftool", ["-j", "btf", "dump", "file", object], {
      encoding: "utf8",
      env: environment,
      maxBuffer: 1 << 26,
    });
    // bpftool 7.1 prints enum values from 2^31 up sign-extended to 64 bits, which a double rounds
    return JSON.parse(json.replace(/"val":(-?\d+)/g, '"val":"$1"')).types;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
const pascal = (name) => camel(`_${name}`);

/** BTF type id -> {type, size, count?, be?, struct?}; throws on what the headers must not use */
function resolve(types, id, where) {
  const t = types[id - 1];
  switch (t?.kind) {
    case "TYPEDEF": {
      const inner = resolve(types, t.type_id, where);
      return /^__be(16|32|64)$/.test(t.name) ? { ...inner, be: true } : inner;
    }
    case "INT":
      if (/SIGNED/.test(t.encoding))
        throw new Error(`${where}: signed integers are not used in shared layouts`);
      return { type: `u${t.nr_bits}`, size: t.size };
    case "ENUM":
      return { type: `u${t.size * 8}`, size: t.size };
    case "STRUCT":
      return { type: "struct", size: t.size, struct: t.name };
    case "ARRAY": {
      const inner = resolve(types, t.type_id, where);
      return {
        ...inner,
        size: inner.size * t.nr_elems,
        count: t.nr_elems,
        elementSize: inner.size,
      };
    }
    default:
      throw new Error(`${where}: ${t?.kind ?? "nothing"} is not a type for a shared layout`);
  }
}

/** Harmless here (written as zero), but the headers promise to spell their padding out. */
function implicit(tag, bytes, where) {
  console.error(`warning: ${tag}: ${bytes} bytes of implicit padding ${where}`);
}

function structOf(types, tag) {
  const t = types.find((each) => each.kind === "STRUCT" && each.name === tag);
  if (!t) throw new Error(`struct ${tag} left no BTF`);
  let end = 0;
  const fields = t.members.map((m) => {
    if (m.bits_offset % 8 || m.bitfield_size)
      throw new Error(`${tag}.${m.name}: bit fields are not used`);
    const offset = m.bits_offset / 8;
    if (offset !== end) implicit(tag, offset - end, `before ${m.name}`);
    const field = { name: camel(m.name), offset, ...resolve(types, m.type_id, `${tag}.${m.name}`) };
    end = offset + field.size;
    return field;
  });
  if (end !== t.size) implicit(tag, t.size - end, "at the end");
  return { tag, size: t.size, fields };
}

function tsType(f) {
  if (f.struct) return f.count === undefined ? pascal(f.struct) : `${pascal(f.struct)}[]`;
  if (f.count === undefined) return f.type === "u64" ? "bigint" : "number";
  if (f.type === "u8") return "Uint8Array";
  return f.type === "u64" ? "bigint[]" : "number[]";
}

/** names of Buffer's accessors, without read/write */
function accessor(f) {
  const order = f.be ? "BE" : "LE";
  return { u8: "UInt8", u16: `UInt16${order}`, u32: `UInt32${order}`, u64: `BigUInt64${order}` }[
    f.type
  ];
}

const at = (offset) => (offset === 0 ? "offset" : `offset + ${offset}`);

function writeField(f) {
  const value = `value.${f.name}`;
  if (f.count === undefined)
    return f.struct
      ? `write${pascal(f.struct)}(out, ${value}, ${at(f.offset)});`
      : `out.write${accessor(f)}(${value}, ${at(f.offset)});`;
  if (f.type === "u8") return `putBytes(out, ${value}, ${at(f.offset)}, ${f.count}, "${f.name}");`;
  const element = f.struct
    ? `write${pascal(f.struct)}(out, element, ${at(f.offset)} + i * ${f.elementSize})`
    : `out.write${accessor(f)}(element, ${at(f.offset)} + i * ${f.elementSize})`;
  return `elements(${value}, ${f.count}, "${f.name}").forEach((element, i) => ${element});`;
}

function readField(f) {
  if (f.count === undefined)
    return f.struct
      ? `decode${pascal(f.struct)}(buf, ${at(f.offset)})`
      : `buf.read${accessor(f)}(${at(f.offset)})`;
  if (f.type === "u8")
    return `Buffer.from(buf.subarray(${at(f.offset)}, offset + ${f.offset + f.count}))`;
  const element = f.struct
    ? `decode${pascal(f.struct)}(buf, ${at(f.offset)} + i * ${f.elementSize})`
    : `buf.read${accessor(f)}(${at(f.offset)} + i * ${f.elementSize})`;
  return `Array.from({ length: ${f.count} }, (_, i) => ${element})`;
}

function printStruct({ tag, size, fields }) {
  const name = pascal(tag);
  const carried = fields.filter((f) => !padding.test(f.name));
  const described = fields.map((f) => {
    const extra =
      (f.count === undefined ? "" : `, count: ${f.count}`) + (f.be ? `, endian: "be"` : "");
    return `    ${f.name}: { offset: ${f.offset}, size: ${f.size}, type: "${f.struct ?? f.type}"${extra} },`;
  });
  return [
    `/** struct ${tag} */`,
    `export interface ${name} {`,
    ...carried.map((f) => `  ${f.name}: ${tsType(f)};`),
    `}`,
    ``,
    `export const ${name} = {`,
    `  size: ${size},`,
    `  fields: {`,
    ...described,
    `  },`,
    `} as const;`,
    ``,
    `export function write${name}(out: Buffer, value: ${name}, offset = 0): void {`,
    ...carried.map((f) => `  ${writeField(f)}`),
    `}`,
    ``,
    `export function encode${name}(value: ${name}): Buffer {`,
    `  const out = Buffer.alloc(${size});`,
    `  write${name}(out, value);`,
    `  return out;`,
    `}`,
    ``,
    `export function decode${name}(buf: Buffer, offset = 0): ${name} {`,
    `  atLeast(buf, offset, ${size}, "${tag}");`,
    `  return {`,
    ...carried.map((f) => `    ${f.name}: ${readField(f)},`),
    `  };`,
    `}`,
  ].join("\n");
}

function enumOf(types, tag) {
  const t = types.find((each) => each.kind === "ENUM" && each.name === tag);
  if (!t) throw new Error(`enum ${tag} left no BTF`);
  return {
    tag,
    values: t.values.map((v) => ({ name: v.name, val: Number(BigInt.asUintN(32, BigInt(v.val))) })),
  };
}

function printEnum({ tag, values }) {
  const name = camel(tag);
  return [
    `/** enum ${tag}; VNETD_ left out of the names */`,
    `export const ${name} = {`,
    ...values.map((v) => `  ${v.name.replace(/^VNETD_/, "")}: ${v.val},`),
    `} as const;`,
    `export type ${pascal(tag)} = (typeof ${name})[keyof typeof ${name}];`,
  ].join("\n");
}

function printNames(constant, comment, values, strip) {
  const names = values.map((v, i) => {
    if (v.val !== i)
      throw new Error(`${v.name} is ${v.val}, expected ${i}: names need values without gaps`);
    return `  "${v.name.replace(strip, "").toLowerCase()}",`;
  });
  return [
    `/** ${comment} */`,
    `export const ${constant}: readonly string[] = [`,
    ...names,
    `];`,
  ].join("\n");
}

const prologue = `// SPDX-License-Identifier: Apache-2.0
/**
 * Generated from include/vnetd/*.h by scripts/gen-layouts.mjs. Do not edit: change the header and
 * run \`make layouts\`. \`make lint\` fails when this file is stale.
 *
 * Every enum is a constant object, every struct an interface with its sizes and offsets and a
 * write / encode / decode function. Fields are camelCase. u64 is a bigint; byte arrays are copied
 * on decode; __be fields are big-endian and appear as numbers in host order. Padding and reserved
 * fields are written as zero and not read. Other fields are in the machine's own order, and only
 * little-endian machines are supported (checked below).
 */

if (new Uint8Array(new Uint16Array([1]).buffer)[0] !== 1) {
  throw new Error("vnetd's map layouts are read as little-endian; this machine is big-endian");
}

function atLeast(buf: Buffer, offset: number, size: number, what: string): void {
  if (buf.length - offset < size) {
    throw new RangeError(\`\${what} is \${size} bytes, there are \${buf.length - offset}\`);
  }
}

function elements<T>(value: readonly T[], count: number, what: string): readonly T[] {
  if (value.length !== count) throw new RangeError(\`\${what} has \${count} elements, not \${value.length}\`);
  return value;
}

function putBytes(out: Buffer, value: Uint8Array, offset: number, count: number, what: string): void {
  if (value.length !== count) throw new RangeError(\`\${what} is \${count} bytes, not \${value.length}\`);
  out.set(value, offset);
}
`;

function generate() {
  const tags = declared();
  const types = readBtf(tags);
  const enums = tags.filter((t) => t.kind === "enum").map((t) => enumOf(types, t.tag));
  const structs = tags.filter((t) => t.kind === "struct").map((t) => structOf(types, t.tag));
  const valuesOf = (tag) => enums.find((e) => e.tag === tag).values;
  const reasons = valuesOf("vnetd_reason").filter((v) => v.name !== "VNETD_REASON_COUNT");
  const names = [
    printNames(
      "reasonNames",
      'enum vnetd_reason -> label: "unknown_vnet", "refused_host_limit"',
      reasons,
      /^VNETD_(DROP_)?/,
    ),
    printNames(
      "directionNames",
      "enum vnetd_direction -> label",
      valuesOf("vnetd_direction"),
      /^VNETD_DIR_/,
    ),
  ];
  return (
    [prologue.trimEnd(), ...enums.map(printEnum), ...names, ...structs.map(printStruct)].join(
      "\n\n",
    ) + "\n"
  );
}

const text = generate();
if (process.argv.includes("--check")) {
  let current = "";
  try {
    current = readFileSync(target, "utf8");
  } catch {
    // missing counts as stale
  }
  if (current !== text) {
    console.error("src/generated/layouts.ts is stale: run `make layouts` and commit the result");
    process.exit(1);
  }
} else {
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, text);
}
