// SPDX-License-Identifier: Apache-2.0
/** The daemon's log: its forms, what is held back, and that docs/logs.md lists every event. */
import { fstatSync, mkdtempSync, openSync, readFileSync, closeSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { logEvents } from "../../src/log-events.js";
import { logFormOf, logTarget } from "../../src/log-form.js";
import { createLog, type AdjustableLog, type LogForm } from "../../src/log.js";

interface World {
  log: AdjustableLog;
  lines: string[];
  at(ms: number): void;
}

function world(form: LogForm = "text"): World {
  const lines: string[] = [];
  let now = 0;
  const date = (): Date => new Date(Date.UTC(2026, 10, 26) + now);
  const log = createLog({ form, write: (text) => lines.push(text), nowMs: () => now, date });
  return { log, lines, at: (ms) => (now = ms) };
}

describe("what is held back", () => {
  it("repeated lines, for ten seconds; how many is said", () => {
    const { log, lines, at } = world();
    for (let n = 0; n < 5; n++) log.say("device_down", "eth0 is down");
    log.say("vnet_made", "something else");
    at(10_000);
    log.say("device_down", "eth0 is down");
    expect(lines).toEqual([
      "warn eth0 is down\n",
      "info something else\n",
      "warn eth0 is down (and 4 more: device_down)\n",
    ]);
  });

  it("of what strangers cause a few lines are written, then one in ten seconds with the number of others", () => {
    const { log, lines, at } = world();
    for (let ms = 0; ms < 60_000; ms++) {
      at(ms);
      log.say("host_refused", `192.0.2.${String(ms)} is left out`);
    }
    expect(lines).toHaveLength(5 + 5);
    expect(lines.at(-1)).toMatch(
      /^warn 192\.0\.2\.\d+ is left out \(and 9999 more: host_refused\)\n$/,
    );
    log.say("varp_not_sent", "eth0: ENETUNREACH");
    log.say("device_down", "eth0 is down");
    expect(lines.slice(-2)).toEqual(["warn eth0: ENETUNREACH\n", "warn eth0 is down\n"]);
  });

  it("is said when the flood is over, and at the end", () => {
    const { log, lines, at } = world("json");
    for (let n = 0; n < 25; n++) log.say("host_refused", `${String(n)} is left out`);
    log.flush();
    expect(lines).toHaveLength(5);
    at(10_000);
    log.flush();
    log.flush();
    expect(lines).toHaveLength(6);
    expect(JSON.parse(lines[5]!)).toMatchObject({ event: "host_refused", level: "warn", held: 20 });
    log.say("host_refused", "again");
    log.flush(true);
    expect(JSON.parse(lines[6]!)).toMatchObject({ held: 1 });
    expect(lines).toHaveLength(7);
  });

  it("every event is bounded, with ever new texts and at every level", () => {
    for (const event of Object.keys(logEvents) as (keyof typeof logEvents)[]) {
      const { log, lines, at } = world();
      log.set({ level: "debug", form: "text" });
      for (let n = 0; n < 10_000; n++) {
        at(n / 10);
        log.say(event, `text ${String(n)}`);
      }
      expect(lines.length, event).toBeLessThanOrEqual(2002);
      if ("wire" in logEvents[event])
        expect(lines.length, event).toBeLessThanOrEqual(event === "device_merge" ? 5 : 111);
    }
  });
});

describe("a record", () => {
  const fields = { vnet: "0097", host: "10.0.0.2", reason: "refused_vnet_hosts" };

  it("is one line, with the priority for the journal or the time for a file", () => {
    const said = (form: LogForm): string[] => {
      const { log, lines } = world(form);
      log.say("host_refused", "too many", fields);
      log.say("internal_error", "two\nlines \u001b[31m");
      return lines;
    };
    expect(said("text")).toEqual(["warn too many\n", "error two | lines \\x1b[31m\n"]);
    expect(said("journal")).toEqual(["<4>warn too many\n", "<3>error two | lines \\x1b[31m\n"]);
    expect(said("file")[0]).toBe("2026-11-26T00:00:00.000Z warn too many\n");
  });

  it("as JSON has time, level, event, sentence and the fields that are there", () => {
    const { log, lines } = world("json");
    log.say("host_refused", "too many", { ...fields, mac: undefined });
    log.say("mac_twice", "a\u202e", { host: "evil\u001b[2J" });
    expect(lines.every((line) => line.endsWith("}\n"))).toBe(true);
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      {
        ...{ ts: "2026-11-26T00:00:00.000Z", level: "warn", event: "host_refused" },
        ...{ msg: "too many", ...fields },
      },
      {
        ...{ ts: "2026-11-26T00:00:00.000Z", level: "warn", event: "mac_twice" },
        ...{ msg: "a\\u202e", host: "evil\\x1b[2J" },
      },
    ]);
  });

  it("is no longer than a page", () => {
    const { log, lines } = world();
    log.say("internal_error", "x".repeat(1 << 20));
    expect(lines[0]!.length).toBeLessThan(2100);
  });

  it("is written from the level on that is set", () => {
    const { log, lines } = world();
    log.say("hello_bad", "detail");
    log.set({ level: "warn", form: "text" });
    log.say("vnet_made", "made");
    log.set({ level: "debug", form: "text" });
    log.say("hello_bad", "detail");
    expect(lines).toEqual(["debug detail\n"]);
  });
});

describe("the form", () => {
  const pipe = { isTerminal: false, isJournal: false, isOwnFile: false };

  it.each([
    ["auto", {}, "json"],
    ["auto", { isTerminal: true }, "text"],
    ["auto", { isJournal: true }, "journal"],
    ["auto", { isOwnFile: true }, "file"],
    ["text", {}, "text"],
    ["text", { isJournal: true }, "journal"],
    ["text", { isOwnFile: true }, "file"],
    ["json", { isTerminal: true }, "json"],
    ["json", { isJournal: true }, "json"],
  ] as const)("%s with %j is %s", (format, target, form) => {
    expect(logFormOf(format, { ...pipe, ...target })).toBe(form);
  });

  it("stderr is the journal's where JOURNAL_STREAM names the same descriptor", () => {
    const directory = mkdtempSync(join(tmpdir(), "vnetd-log-"));
    const fd = openSync(join(directory, "stream"), "w");
    const { dev, ino } = fstatSync(fd);
    const target = (journalStream: string | undefined): boolean =>
      logTarget(fd, { journalStream, ownFile: undefined }).isJournal;
    expect(target(`${String(dev)}:${String(ino)}`)).toBe(true);
    expect(target(`${String(dev)}:${String(ino + 1)}`)).toBe(false);
    expect(target(undefined)).toBe(false);
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });
});

describe("docs/logs.md", () => {
  const docs = readFileSync(new URL("../../docs/logs.md", import.meta.url), "utf8");

  it("lists every event once, with its level and meaning, and no other", () => {
    const rows = docs
      .split("\n")
      .filter((line) => /^\| `\w+`\*? +\| (?:error|warn|info|debug) /.test(line))
      .map((line) => line.split("|").map((cell) => cell.trim()));
    const listed = rows.map(([, name, level, means]) => `${name!} ${level!} ${means!}`);
    const known = Object.entries(logEvents).map(
      ([name, spec]) => `\`${name}\`${"wire" in spec ? "*" : ""} ${spec.level} ${spec.means}`,
    );
    expect(listed).toEqual(known);
  });
});
