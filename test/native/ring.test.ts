// SPDX-License-Identifier: Apache-2.0
/** Ring buffers on the event loop: order, fairness, exceptions, ends of every kind. */
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";

import type { Closable } from "../../src/native/contract.js";
import { loadNative } from "../../src/native/load.js";
import {
  addonPath,
  compileBpf,
  errorOf,
  eventually,
  pinDirectory,
  removePins,
  sleep,
  temporaryDirectory,
} from "./support.js";

const native = loadNative();
const work = temporaryDirectory();
let pinDir: string;
let probe: string;
let events: number;
let record: number;
let table: number;
let open: Closable[] = [];
const packet = Buffer.alloc(60, 0xee);

beforeAll(() => {
  pinDir = pinDirectory("ring");
  probe = compileBpf(work, "probe");
  const { maps, programs } = native.objectLoad(probe, { pinDir });
  events = maps["events"] ?? -1;
  table = maps["table"] ?? -1;
  record = programs["probe_record"] ?? -1;
  native.objectPin(record, join(pinDir, "record"));
});
afterEach(async () => {
  for (const ring of open) ring.close();
  open = [];
  await drain();
});
afterAll(() => {
  removePins(pinDir);
  rmSync(work, { recursive: true });
});

function consume(onRecord: (record: Buffer) => void): Closable {
  const ring = native.ringConsume(events, onRecord);
  open.push(ring);
  return ring;
}

function produce(count: number): void {
  native.progTestRun(record, packet, { repeat: count });
}

async function drain(): Promise<void> {
  const ring = native.ringConsume(events, () => undefined);
  await sleep(50);
  ring.close();
}

/** Runs a script with `native`, `events` and `produce` in a process of its own. */
function runScript(body: string) {
  const script = `
    const native = require(${JSON.stringify(addonPath)});
    const events = native.objectGet(${JSON.stringify(join(pinDir, "events"))});
    const record = native.objectGet(${JSON.stringify(join(pinDir, "record"))});
    const packet = Buffer.alloc(60);
    const produce = (repeat) => native.progTestRun(record, packet, { repeat });
    ${body}`;
  return spawnSync(process.execPath, ["-e", script], { encoding: "utf8", timeout: 10_000 });
}

const workerScript = `
  const { parentPort, workerData } = require("node:worker_threads");
  const native = require(workerData.addon);
  const events = native.objectGet(workerData.events);
  const record = native.objectGet(workerData.record);
  native.netlinkMonitor(() => undefined);
  native.ringConsume(events, (data) => {
    parentPort.postMessage(data.length);
    if (workerData.mode === "exit") process.exit(0);
    if (workerData.mode === "throw") throw new Error("thrown in the worker");
    if (workerData.mode === "spin") for (;;);
  });
  native.progTestRun(record, Buffer.alloc(60), { repeat: 20 });
`;

function startWorker(mode: string): Worker {
  return new Worker(workerScript, {
    eval: true,
    workerData: {
      mode,
      addon: addonPath,
      events: join(pinDir, "events"),
      record: join(pinDir, "record"),
    },
  });
}

test("records come whole, in order, each once", async () => {
  const sequence: bigint[] = [];
  const bodies: Buffer[] = [];
  consume((data) => {
    sequence.push(data.readBigUInt64LE());
    bodies.push(data.subarray(8));
  });
  produce(1000);
  await eventually(() => sequence.length >= 1000, "1000 records");
  await sleep(20);
  expect(sequence.length).toBe(1000);
  expect(sequence.every((value, i) => value === (sequence[0] ?? 0n) + BigInt(i))).toBe(true);
  expect(bodies.every((body) => body.equals(Buffer.alloc(40, 0xee)))).toBe(true);
});

test("a record keeps its bytes after the ring has gone on", async () => {
  const kept: Buffer[] = [];
  consume((data) => kept.push(data));
  produce(1);
  await eventually(() => kept.length === 1, "a record");
  const copy = Buffer.from(kept[0] ?? "");
  for (let i = 0; i < 20; i++) {
    produce(2000);
    await eventually(() => kept.length === 1 + 2000 * (i + 1), "records");
  }
  expect(kept[0]).toEqual(copy);
});

test("at most 256 records a turn, then the others have theirs", async () => {
  produce(2000);
  let count = 0;
  let perTurn = 0;
  const turns: number[] = [];
  consume(() => {
    count++;
    perTurn++;
  });
  const tick = () => {
    if (perTurn > 0) turns.push(perTurn);
    perTurn = 0;
    if (count < 2000) setImmediate(tick);
  };
  setImmediate(tick);
  await eventually(() => count >= 2000, "2000 records");
  await eventually(() => perTurn === 0, "the last turn");
  expect(Math.max(...turns)).toBe(256);
  expect(turns.length).toBeGreaterThanOrEqual(8);
});

test("promises and ticks run between records", async () => {
  const log: string[] = [];
  consume(() => {
    log.push("record");
    queueMicrotask(() => log.push("microtask"));
  });
  produce(2);
  await eventually(() => log.length === 4, "records");
  expect(log).toEqual(["record", "microtask", "record", "microtask"]);
});

test("closed from within its callback it is silent at once, and twice is once", async () => {
  let count = 0;
  const ring = consume(() => {
    count++;
    ring.close();
    ring.close();
  });
  produce(50);
  await eventually(() => count > 0, "a record");
  await sleep(30);
  expect(count).toBe(1);
  ring.close();
});

test("goes on when its caller closes the map's descriptor", async () => {
  const own = native.objectGet(join(pinDir, "events"));
  let count = 0;
  const ring = native.ringConsume(own, () => count++);
  open.push(ring);
  native.close(own);
  produce(3);
  await eventually(() => count === 3, "records");
});

test("only a ring buffer's descriptor will do", () => {
  expect(errorOf(() => native.ringConsume(table, () => undefined))).toMatchObject({
    code: "EINVAL",
    operation: "ringConsume",
    detail: "the map is not a ring buffer",
  });
  expect(errorOf(() => native.ringConsume(0, () => undefined)).code).toBe("EINVAL");
  expect(() => native.ringConsume(events, undefined as never)).toThrow(TypeError);
});

test("what the callback throws is an uncaughtException, and the next records come", () => {
  const result = runScript(`
    const caught = [];
    process.on("uncaughtException", (error) => caught.push(error));
    let count = 0;
    const ring = native.ringConsume(events, () => {
      if (count++ < 3) throw count === 2 ? null : new Error("thrown " + count);
      if (count === 10) {
        ring.close();
        console.log(JSON.stringify(caught.map((error) => error && error.message)));
      }
    });
    produce(10);`);
  expect(result.stdout.trim()).toBe('["thrown 1",null,"thrown 3"]');
  expect(result.status).toBe(0);
});

test("an exception that nobody catches ends the process as usual", () => {
  const result = runScript(`
    native.ringConsume(events, () => { throw new Error("nobody catches this"); });
    produce(1);`);
  expect(result.signal).toBeNull();
  expect(result.status).toBe(1);
  expect(result.stderr).toContain("nobody catches this");
});

test("keeps the process alive until closed, and lets it exit then", () => {
  const result = runScript(`
    const ring = native.ringConsume(events, () => undefined);
    const monitor = native.netlinkMonitor(() => undefined);
    setTimeout(() => { console.log("still here"); ring.close(); monitor.close(); }, 100);`);
  expect(result.stdout.trim()).toBe("still here");
  expect(result.status).toBe(0);
});

test("process.exit within the callback", () => {
  const result = runScript(`
    native.ringConsume(events, () => process.exit(7));
    produce(5);`);
  expect(result.signal).toBeNull();
  expect(result.status).toBe(7);
});

test.each([
  ["exit", 0],
  ["throw", 1],
])("a worker that ends by %s within its callback leaves nothing behind", async (mode, code) => {
  for (let i = 0; i < 5; i++) {
    const worker = startWorker(mode);
    const errors: unknown[] = [];
    worker.on("error", (error) => errors.push(error));
    const exitCode = await new Promise((resolve) => worker.once("exit", resolve));
    expect(exitCode).toBe(code);
    expect(errors.length).toBe(code);
  }
});

test.each(["idle", "spin"])("a worker that is terminated (%s)", async (mode) => {
  for (let i = 0; i < 5; i++) {
    const worker = startWorker(mode);
    await new Promise((resolve) => worker.once("message", resolve));
    expect(await worker.terminate()).toBe(1);
  }
});

test("a worker that is terminated in the middle of operations", async () => {
  const script = `
    const { parentPort, workerData } = require("node:worker_threads");
    const native = require(workerData);
    native.netlinkMonitor(() => undefined);
    parentPort.postMessage("ready");
    for (;;) { try { native.linkList(); native.linkDelete(2147483647); } catch {} }`;
  for (let i = 0; i < 30; i++) {
    const worker = new Worker(script, { eval: true, workerData: addonPath });
    await new Promise((resolve) => worker.once("message", resolve));
    await sleep(i % 4);
    expect(await worker.terminate()).toBe(1);
  }
});

test("two workers and the main thread at a time, and the addon once more afterwards", async () => {
  const workers = [startWorker("idle"), startWorker("idle")];
  const heard: number[] = [];
  for (const worker of workers) worker.on("message", (length: number) => heard.push(length));
  await eventually(() => heard.length >= 20, "records in workers");
  expect(heard.every((length) => length === 48)).toBe(true);
  for (const worker of workers) await worker.terminate();
  let count = 0;
  consume(() => count++);
  produce(4);
  await eventually(() => count >= 4, "records");
});
