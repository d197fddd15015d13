// SPDX-License-Identifier: Apache-2.0
/** apply: this host's vnets are what the files of a directory say. */
import { readdirSync, realpathSync } from "node:fs";
import { extname, join } from "node:path";
import { maxLineBytes, type ApplyChange, type ApplyInfo } from "../../src/api/contract.js";
import { VnetdError } from "../../src/base/errors.js";
import { shortVnetId } from "../../src/base/vnet-id.js";
import type { CommandSpec, Invocation } from "../command.js";
import { followDirectory } from "../follow-directory.js";
import { readConfigurationText } from "../read-text.js";

const extensions: ReadonlySet<string> = new Set([".sxp", ".yaml", ".yml", ".json"]);

interface Directory {
  /** absolute, without links: by it the daemon knows whose vnets they are */
  path: string;
  files: { source: string; text: string }[];
  /** what is there and is no such file */
  leftOut: string[];
}

async function read(invocation: Invocation): Promise<Directory> {
  const typed = invocation.positional("DIR");
  const { path, names } = entriesOf(typed);
  const visible = names.filter((name) => !name.startsWith(".")).sort();
  const wanted = visible.filter((name) => extensions.has(extname(name)));
  const files: Directory["files"] = [];
  for (const name of wanted)
    files.push(await readConfigurationText(join(typed, name), invocation.environment.stdin));
  const bytes = files.reduce((sum, { text }) => sum + Buffer.byteLength(JSON.stringify(text)), 0);
  if (bytes > maxLineBytes - (64 << 10)) {
    throw new VnetdError("TOO_LARGE", `the files in ${typed} are too large together`, {
      hint: "A directory may have a megabyte, which is ten thousand vnets.",
      place: { source: typed },
    });
  }
  return { path, files, leftOut: visible.filter((name) => !wanted.includes(name)) };
}

function entriesOf(typed: string): { path: string; names: string[] } {
  try {
    const path = realpathSync(typed);
    return { path, names: readdirSync(path) };
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
    throw new VnetdError("FILE_UNREADABLE", `the directory ${typed} cannot be read (${code})`, {
      hint:
        code === "ENOTDIR" ? "Give the directory; vnet-create takes a file." : "Is the path right?",
      place: { source: typed },
      cause: error,
    });
  }
}

const signs: Record<ApplyChange["action"], string> = {
  create: "+",
  change: "~",
  remake: "~",
  "take-over": "=",
  delete: "-",
};

function textOf({ action, id, place, parameters }: ApplyChange): string {
  const what = parameters.map(({ name, before, after }) =>
    action === "create"
      ? `${name} ${after ?? "none"}`
      : `${name} ${before ?? "none"} -> ${after ?? "none"}`,
  );
  if (action === "take-over") what.push("as it is; belongs to this directory from now on");
  if (action === "remake") what.push("what was heard in it is forgotten");
  if (action === "delete") what.push("deleted");
  const where = place === null ? "" : `  (${place})`;
  return `${signs[action]} vnet ${shortVnetId(id)}: ${what.join(", ")}${where}`;
}

function show({ output }: Invocation, { changes, same, others }: ApplyInfo): void {
  for (const change of changes) output.line(textOf(change));
  if (same > 0) output.line(`  ${same} as ${same === 1 ? "it is" : "they are"}`);
  if (others.length > 0) {
    const named = others.slice(0, 5).map(shortVnetId).join(", ");
    const rest = others.length > 5 ? `, and ${others.length - 5} more` : "";
    output.note(`not of this directory, and left alone (--prune deletes them): ${named}${rest}`);
  }
}

async function applyDirectory(invocation: Invocation): Promise<void> {
  if (!invocation.flag("follow")) return applyFiles(invocation, await read(invocation));
  for (const flag of ["json", "dry-run"].filter((name) => invocation.flag(name)))
    throw new VnetdError("USAGE", `--follow goes on applying: it has no --${flag}`);
  await followDirectory({
    read: () => read(invocation),
    apply: (directory) => applyFiles(invocation, directory),
    note: (text) => invocation.output.note(text),
  });
}

async function applyFiles(invocation: Invocation, found: Directory): Promise<void> {
  const { output } = invocation;
  const { path: directory, files, leftOut } = found;
  if (leftOut.length > 0 && !output.json)
    output.note(`not read, neither .sxp nor .yaml nor .json: ${leftOut.join(", ")}`);
  const dryRun = invocation.flag("dry-run");
  const params = { directory, files, prune: invocation.flag("prune") };
  if (output.json) return output.value(await invocation.request("apply", { ...params, dryRun }));
  const plan = await invocation.request("apply", { ...params, dryRun: true });
  show(invocation, plan);
  if (plan.changes.length === 0) return output.line("nothing is to be changed");
  if (dryRun) return output.line("nothing was changed (--dry-run)");
  const done = await invocation.request("apply", { ...params, dryRun: false });
  output.line(`done: ${done.changes.length} of ${done.changes.length + done.same} vnets changed`);
  for (const { id, note } of done.changes)
    if (note !== null) output.note(`vnet ${shortVnetId(id)}: ${note}`);
}

export const applyCommands: readonly CommandSpec[] = [
  {
    name: "apply",
    describe: "make this host's vnets be what the files of a directory say",
    positionals: [
      {
        name: "DIR",
        describe: "a directory of .sxp, .yaml and .json files",
        completes: "directory",
      },
    ],
    options: [
      { name: "dry-run", flag: true, describe: "show the difference, and change nothing" },
      {
        name: "prune",
        flag: true,
        describe: "delete also vnets that were made by vnet-create or from another directory",
      },
      {
        name: "follow",
        flag: true,
        describe: "wait for the daemon, apply, and again whenever the files change, until SIGTERM",
      },
    ],
    epilogue:
      "The difference is shown first. A file that cannot be used changes nothing. Vnets that were applied from the directory and are no longer in it are deleted; those made otherwise are left alone without --prune. With --follow a mistake ends the command; who runs it starts it again.",
    run: applyDirectory,
  },
];
