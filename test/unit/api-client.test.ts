// SPDX-License-Identifier: Apache-2.0
/** The socket's client: answers in pieces, hostile answers, and no daemon at all. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ApiClient, requestOnce } from "../../src/api/client.js";
import { maxLineBytes, socketName } from "../../src/api/contract.js";
import { VnetdError } from "../../src/base/errors.js";
import { FakeDaemon, type Answers, type Asked } from "./lib/fake-daemon.js";
import type { Socket } from "node:net";

let directory: string;
let daemon: FakeDaemon | undefined;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "vnetd-client-"));
});
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
  rmSync(directory, { recursive: true, force: true });
});

async function start(
  answers: Answers,
  raw?: (asked: Asked, socket: Socket) => void,
): Promise<string> {
  daemon = await FakeDaemon.start(answers, raw);
  return daemon.runDir;
}

async function errorOf(promise: Promise<unknown>): Promise<VnetdError> {
  const error: unknown = await promise.then(
    () => new Error("nothing was thrown"),
    (thrown: unknown) => thrown,
  );
  if (error instanceof VnetdError) return error;
  throw error;
}

const version = { version: "9.9.9", api: 1, layout: 1 };

describe("the client", () => {
  it("asks and gets the answer", async () => {
    const runDir = await start({ version });
    expect(await requestOnce({ runDir }, "version", {})).toEqual(version);
    expect(daemon?.asked).toEqual([{ v: 1, id: 1, method: "version", params: {} }]);
  });

  it("tells overlapping answers apart by id, whatever the pieces they come in", async () => {
    const waiting: Asked[] = [];
    const runDir = await start({}, (asked, socket) => {
      waiting.push(asked);
      if (waiting.length < 3) return;
      const text = waiting
        .reverse()
        .map(
          ({ id, method }) =>
            `${JSON.stringify({ v: 1, id, result: { method, text: "ä".repeat(50) } })}\n`,
        )
        .join("");
      const bytes = Buffer.from(text);
      let at = 0;
      const next = (): void => {
        if (at >= bytes.length) return;
        socket.write(bytes.subarray(at, (at += 37)), () => setImmediate(next));
      };
      next();
    });
    const client = await ApiClient.connect({ runDir });
    const results = await Promise.all([
      client.request("version", {}),
      client.request("status", {}),
      client.request("hosts", {}),
    ]);
    expect(
      results.map((result) => (result as unknown as { method: string; text: string }).method),
    ).toEqual(["version", "status", "hosts"]);
    expect((results[0] as unknown as { text: string }).text).toBe("ä".repeat(50));
    client.close();
    expect((await errorOf(client.request("version", {}))).code).toBe("CONNECTION_LOST");
  });

  it("hands on the daemon's errors whole", async () => {
    const place = { source: "f", line: 3, column: 5 };
    const runDir = await start({
      vnetList: { error: { code: "VNET_NOT_FOUND", message: "m", hint: "h", place } },
    });
    expect(await errorOf(requestOnce({ runDir }, "vnetList", {}))).toMatchObject({
      code: "VNET_NOT_FOUND",
      message: "m",
      hint: "h",
      place,
    });
  });

  it.each([
    ["no JSON", "hello\n", "BAD_ANSWER"],
    ["no object", "[]\n", "BAD_ANSWER"],
    ["null", "null\n", "BAD_ANSWER"],
    ["another version", '{"v":2,"id":1,"result":{}}\n', "API_VERSION"],
    ["no version", '{"id":1,"result":{}}\n', "API_VERSION"],
    ["an unknown id", '{"v":1,"id":7,"result":{}}\n', "BAD_ANSWER"],
    ["an id that is no number", '{"v":1,"id":"1","result":{}}\n', "BAD_ANSWER"],
    [
      "an error for the connection",
      '{"v":1,"id":null,"error":{"code":"BAD_REQUEST","message":"m"}}\n',
      "BAD_REQUEST",
    ],
    ["an error without a code", '{"v":1,"id":1,"error":{}}\n', "BAD_ANSWER"],
    ["an error that is null", '{"v":1,"id":1,"error":null}\n', "BAD_ANSWER"],
    [
      "an unknown error",
      '{"v":1,"id":1,"error":{"code":"FROM_THE_FUTURE","message":"m"}}\n',
      "INTERNAL",
    ],
    [
      "an error named like a property of objects",
      '{"v":1,"id":1,"error":{"code":"toString","message":"m"}}\n',
      "INTERNAL",
    ],
    ["half a line", '{"v":1,', "CONNECTION_LOST"],
    ["nothing", "", "CONNECTION_LOST"],
  ])("takes %s for an error", async (_name, text, code) => {
    const runDir = await start({}, (_asked, socket) => socket.end(text));
    expect((await errorOf(requestOnce({ runDir }, "version", {}))).code).toBe(code);
  });

  it("reads no more than its bound", async () => {
    const runDir = await start({}, (_asked, socket) => socket.write("x".repeat(5000)));
    const client = await ApiClient.connect({ runDir }, 4096);
    expect((await errorOf(client.request("version", {}))).message).toContain("too long");
  });

  it("waits no longer than its time", async () => {
    const runDir = await start({}, () => undefined);
    const client = await ApiClient.connect({ runDir, answerTimeoutMs: 50 });
    expect((await errorOf(client.request("version", {}))).code).toBe("TIMEOUT");
    client.close();
  });

  it("sends no line that the daemon would refuse", async () => {
    const runDir = await start({});
    const client = await ApiClient.connect({ runDir });
    const text = "\n".repeat(maxLineBytes / 2);
    expect((await errorOf(client.request("vnetCreate", { text, source: "f" }))).code).toBe(
      "TOO_LARGE",
    );
    client.close();
  });
});

describe("where no daemon is", () => {
  it("says how to start one", async () => {
    expect(await errorOf(ApiClient.connect({ runDir: directory }))).toMatchObject({
      code: "NO_DAEMON",
      hint: expect.stringContaining(`vnetd attach --run-dir ${directory}`) as string,
    });
    expect((await errorOf(ApiClient.connect({ runDir: "/run/vnetd-of-nobody/x" }))).code).toBe(
      "NO_DAEMON",
    );
  });

  it("knows a socket that a killed daemon left, and a file that is none", async () => {
    const path = join(directory, socketName);
    const server = createServer();
    await new Promise<void>((done) => server.listen(path, done));
    // a second name of the socket stays when the server closes and removes its own
    const { linkSync } = await import("node:fs");
    linkSync(path, `${path}.left`);
    await new Promise((done) => server.close(done));
    linkSync(`${path}.left`, path);
    expect((await errorOf(ApiClient.connect({ runDir: directory }))).code).toBe("NO_DAEMON");
    rmSync(path);
    writeFileSync(path, "");
    expect((await errorOf(ApiClient.connect({ runDir: directory }))).code).toBe("NO_DAEMON");
    expect((await errorOf(ApiClient.connect({ runDir: path }))).code).toBe("NO_DAEMON");
  });

  it("says so when the caller may not", async () => {
    const runDir = await start({ version });
    chmodSync(runDir, 0o700);
    chmodSync(join(runDir, socketName), 0);
    const isRoot = process.geteuid?.() === 0;
    if (isRoot) process.seteuid?.(65534);
    try {
      expect(await errorOf(ApiClient.connect({ runDir }))).toMatchObject({
        code: "PERMISSION",
        hint: expect.stringContaining("root") as string,
      });
    } finally {
      if (isRoot) process.seteuid?.(0);
    }
  });

  it("refuses a path that is too long for a socket", async () => {
    expect(
      (
        await errorOf(
          Promise.resolve().then(() => ApiClient.connect({ runDir: `/tmp/${"x".repeat(100)}` })),
        )
      ).code,
    ).toBe("USAGE");
  });
});
