#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * The manual pages, made of what the help and docs/ say:
 *
 *   make-man.mjs DIRECTORY            man8/vnetd.8, man5/vnetd.yaml.5, ...
 *
 * vnetd(8) is the table of commands (dist/cli/commands.js), the others are pages of docs/ or parts of them.
 * The Markdown that is understood is what docs/ uses: headings, paragraphs, lists, tables (a list of their first
 * column), indented and fenced code, emphasis, code and links in a line.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const root = resolve(import.meta.dirname, "..");
const [directory] = process.argv.slice(2);
if (directory === undefined) {
  console.error("usage: make-man.mjs DIRECTORY");
  process.exit(2);
}
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const { commands } = await import(new URL("../dist/cli/commands.js", import.meta.url));
const { exitCodes } = await import(new URL("../dist/src/base/errors.js", import.meta.url));

// ---- roff

const special = { "\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti" };

/** Text that is meant as it stands: a hyphen that can be copied, no quote made nice. */
const literal = (text) => text.replace(/[\\\-'`^~]/g, (each) => special[each]);
const prose = (text) => text.replaceAll("\\", "\\e");
/** A line that begins with a dot or a quote would be a request. */
const lineOf = (text) => (/^[.']/.test(text) ? `\\&${text}` : text);
const bold = (text) => `\\fB${text}\\fR`;
const italic = (text) => `\\fI${text}\\fR`;

/** Code, emphasis and links of one paragraph. */
function inline(text) {
  return text
    .split(/(`[^`]+`)/)
    .map((part) => {
      if (/^`.+`$/.test(part)) return bold(literal(part.slice(1, -1)));
      return prose(part)
        .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
        .replace(/\*\*([^*]+)\*\*/g, (_, inner) => bold(inner))
        .replace(/(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])/g, (_, inner) => italic(inner));
    })
    .join("");
}

const paragraph = (text) => lineOf(inline(text.replace(/\s+/g, " ").trim()));
const code = (lines) => [
  ".RS 4",
  ".EX",
  ...lines.map((each) => lineOf(literal(each))),
  ".EE",
  ".RE",
];
const heading = (level, text) =>
  `${level <= 2 ? ".SH" : ".SS"} "${inline(text).replaceAll('"', "\\(dq")}"`;

// ---- Markdown

const cellsOf = (row) => {
  const cells = row
    .trim()
    .replace(/^\||\|$/g, "")
    .split(/(?<!\\)\|/);
  return cells.map((each) => each.replaceAll("\\|", "|").trim());
};

/** Each row is an entry: its first cell, and below it the others with their titles. */
function table(rows) {
  const [titles, , ...body] = rows.map(cellsOf);
  return body.flatMap(([first, ...others]) => {
    const texts = others.flatMap((cell, i) => {
      if (cell === "") return [];
      const title = titles[i + 1] ?? "";
      return [others.length > 1 && title !== "" ? `${title}: ${cell}` : cell];
    });
    return [".TP", lineOf(inline(first === "" ? "(none)" : first)), paragraph(texts.join("; "))];
  });
}

/** Takes lines from the front while they fit. */
function take(lines, fits) {
  const taken = [];
  while (lines.length > 0 && fits(lines[0])) taken.push(lines.shift());
  return taken;
}

const isBlank = (line) => line.trim() === "";
const marker = /^ {0,3}(?:[-*]|\d+\.) +/;
const begins = /^(?:#|```|\||<|$)/;

function list(lines) {
  const out = [];
  while (lines.length > 0 && marker.test(lines[0])) {
    const first = lines.shift();
    const mark = /^\s*\d/.test(first) ? first.trim().split(" ")[0] : "\\(bu";
    const rest = take(lines, (line) => !isBlank(line) && !marker.test(line) && !begins.test(line));
    out.push(`.IP ${mark} 3`, paragraph([first.replace(marker, ""), ...rest].join(" ")));
    if (lines.length > 1 && isBlank(lines[0]) && marker.test(lines[1])) lines.shift();
  }
  return out;
}

function block(lines) {
  const [line] = lines;
  if (line.startsWith("#")) {
    const [, marks, text] = /^(#+) +(.*)$/.exec(lines.shift());
    return [heading(marks.length, text)];
  }
  if (line.startsWith("```")) {
    lines.shift();
    const inside = take(lines, (each) => !each.startsWith("```"));
    lines.shift();
    return code(inside);
  }
  if (line.startsWith("|")) return table(take(lines, (each) => each.startsWith("|")));
  if (marker.test(line)) return list(lines);
  if (/^ {4}/.test(line)) {
    const inside = take(lines, (each) => /^ {4}/.test(each) || isBlank(each));
    return code(
      inside
        .map((each) => each.slice(4))
        .join("\n")
        .trimEnd()
        .split("\n"),
    );
  }
  const text = [lines.shift(), ...take(lines, (each) => !begins.test(each) && !marker.test(each))];
  return [".PP", paragraph(text.join(" "))];
}

function fromMarkdown(text) {
  const lines = text.split("\n");
  const out = [];
  while (lines.length > 0) {
    if (isBlank(lines[0])) lines.shift();
    else out.push(...block(lines));
  }
  return out;
}

/** A page of docs/ without its title, or its part below one heading; what stands before a heading describes it. */
function docs(file, part) {
  const whole = readFileSync(join(root, "docs", file), "utf8").replace(/^# .*\n/, "");
  if (part === undefined) return whole;
  const begin = whole.indexOf(`\n## ${part}\n`);
  if (begin < 0) throw new Error(`docs/${file} has no part "${part}"`);
  const end = whole.indexOf("\n## ", begin + 1);
  const text = whole.slice(whole.indexOf("\n", begin + 1), end < 0 ? undefined : end);
  return text.replace(/^##(#+ )/gm, "#$1");
}

const beginning = (text) => (/^\s*(?:#|\|)/.test(text) ? [] : ["## DESCRIPTION", ""]);

// ---- pages

const head = (name, section, about) => [
  "'\\\" -*- coding: utf-8 -*-",
  `.TH ${name.toUpperCase()} ${section} "" "vnetd ${version}" "vnetd"`,
  ".SH NAME",
  `${literal(name)} \\- ${about}`,
];

const seeAlso = (names) => [".SH SEE ALSO", names.map((each) => literal(each)).join(", ")];

function page({ name, section, about, file, part, more }) {
  const text = docs(file, part);
  const body = fromMarkdown([...beginning(text), text].join("\n"));
  return [...head(name, section, about), ...body, ...seeAlso(more)];
}

function optionEntry({ name, short, describe, value }) {
  const flag = `${short === undefined ? "" : `-${short}, `}--${name}`;
  return [
    ".TP",
    `${bold(literal(flag))}${value === undefined ? "" : ` ${italic(literal(value))}`}`,
    paragraph(describe),
  ];
}

function commandEntry({ name, describe, positionals = [], options = [], epilogue }) {
  const words = positionals.map(({ name: each, optional, many }) => {
    const word = italic(literal(each)) + (many ? " ..." : "");
    return optional ? `[${word}]` : word;
  });
  return [
    `.SS "${literal(name)}"`,
    [bold(literal(`vnetd ${name}`)), ...(options.length > 0 ? ["[options]"] : []), ...words].join(
      " ",
    ),
    ".PP",
    paragraph(`${describe[0].toUpperCase()}${describe.slice(1)}.`),
    ...positionals.flatMap((each) => [".TP", italic(literal(each.name)), paragraph(each.describe)]),
    ...options.flatMap(optionEntry),
    ...(epilogue === undefined
      ? []
      : epilogue.split("\n").flatMap((each) => [".PP", paragraph(each)])),
  ];
}

const shown = commands.filter(({ hidden }) => hidden !== true);

const commandPage = [
  ...head("vnetd", 8, "private Ethernet LANs for virtual machines and containers"),
  ".SH SYNOPSIS",
  `${bold("vnetd")} ${italic("command")} [options] [arguments]`,
  ".br",
  `${bold("vn")} ${italic("command")} [options] [arguments]`,
  ".SH DESCRIPTION",
  paragraph(
    "vnetd carries Ethernet frames of virtual networks (vnets) between hosts, by UDP port 1798, and finds by itself which guest is where. " +
      "The frames are carried by BPF programs in the kernel, also while no daemon runs. `vn` is the original's name for the same commands.",
  ),
  ".SH COMMANDS",
  ...shown.flatMap(commandEntry),
  ".SH OPTIONS OF ALL COMMANDS",
  ...optionEntry({
    name: "run-dir",
    value: "DIR",
    describe: "the daemon's run directory (/run/vnetd)",
  }),
  ...optionEntry({ name: "json", describe: "print JSON" }),
  ".SH EXIT STATUS",
  ...Object.entries({
    [exitCodes.done]: "done",
    [exitCodes.failed]: "failed; the message says why and what to do",
    [exitCodes.usage]: "the command line is not right, or (doctor) something could not be checked",
    [exitCodes.noDaemon]: "no daemon answers",
  }).flatMap(([status, meaning]) => [".TP", bold(status), paragraph(meaning)]),
  ".SH FILES",
  ...Object.entries({
    "/etc/vnetd/vnetd.yaml": "the daemon's configuration, `vnetd.yaml`(5); need not be there",
    "/var/lib/vnetd": "the state: vnets, attached devices, peers, keys, the host's id",
    "/run/vnetd/vnetd.sock": "the daemon's socket, root's alone",
    "/sys/fs/bpf/vnetd": "maps and programs, which carry the frames",
  }).flatMap(([path, meaning]) => [".TP", bold(literal(path)), paragraph(meaning)]),
  ...seeAlso(["vnetd.yaml(5)", "vnetd-vnet(5)", "vnetd-operations(7)", "vnetd-drop-reasons(7)"]),
];

const pages = [
  {
    name: "vnetd.yaml",
    section: 5,
    about: "the configuration of vnetd",
    file: "vnet-file.md",
    part: "The daemon's configuration",
    more: ["vnetd(8)", "vnetd-vnet(5)"],
  },
  {
    name: "vnetd-vnet",
    section: 5,
    about: "files that describe vnets",
    file: "vnet-file.md",
    part: "Vnets",
    more: ["vnetd(8)", "vnetd.yaml(5)"],
  },
  {
    name: "vnetd-operations",
    section: 7,
    about: "what happens in a network that is not as it should be, and what to do",
    file: "operations.md",
    more: ["vnetd(8)", "vnetd-drop-reasons(7)"],
  },
  {
    name: "vnetd-drop-reasons",
    section: 7,
    about: "why vnetd did not forward a frame",
    file: "drop-reasons.md",
    more: ["vnetd(8)", "vnetd-operations(7)"],
  },
];

function write(name, section, lines) {
  const to = join(resolve(directory), `man${section}`);
  mkdirSync(to, { recursive: true });
  writeFileSync(join(to, `${name}.${section}`), `${lines.join("\n")}\n`);
}

rmSync(resolve(directory), { recursive: true, force: true });
write("vnetd", 8, commandPage);
write("vn", 8, [".so man8/vnetd.8"]);
for (const each of pages) write(each.name, each.section, page(each));
