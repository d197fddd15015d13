// SPDX-License-Identifier: Apache-2.0
/** The API's socket with handlers of the test: form, order, bounds, and hostile input. */
import {
  existsSync,
  linkSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  ApiServer,
  type ApiServerOptions,
  type Handlers,
  type StreamHandlers,
} from "../../src/api/server.js";
import { maxWaitingBytes } from "../../src/api/stream-writer.js";
import { maxLineBytes } from "../../src/api/contract.js";
import { VnetdError } from "../../src/base/errors.js";
import { createLog } from "../../src/log.js";
import { eventually } from "../lib/processes.js";

let directory: string;
let server: ApiServer | undefined;
let logged: string[];

const version = { version: "0", api: 1, layout: 1 };
const handlers = {
  version: () => version,
  status: () => {
    throw new Error("a fault");
  },
  attach: () => {
    throw new VnetdError("DEVICE_NOT_FOUND", "there is no eth9", { hint: "look" });
  },
  detach: () => {
    throw Object.assign(new Error("refused"), {
      code: "EPERM",
      errno: 1,
      operation: "linkAdd",
      detail: "why",
    });
  },
  varp: async () => {
    await new Promise((resolve) => setTimeout(resolve, 30));
    return [];
  },
} as unknown as Handlers;

async function start(options: Partial<ApiServerOptions> = {}): Promise<ApiServer> {
  const log = createLog({ write: (line) => logged.push(line) });
  server = new ApiServer({ runDir: directory, handlers: () => handlers, log, ...options });
  await server.listen();
  return server;
}

/** Sends bytes and returns the lines that come until the server closes or `count` came. */
function talk(bytes: string | Uint8Array, count = 1): Promise<Record<string, unknown>[]> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(path.join(directory, "vnetd.sock"));
    let text = "";
    const done = (): void => {
      socket.destroy();
      resolve(
        text
          .split("\n")
          .slice(0, -1)
          .map((line) => JSON.parse(line) as Record<string, unknown>),
      );
    };
    socket.on("data", (chunk) => {
      text += chunk.toString();
      if (text.split("\n").length > count) done();
    });
    socket.on("close", done);
    socket.on("error", (error: NodeJS.ErrnoException) =>
      error.code === "EPIPE" || error.code === "ECONNRESET" ? done() : reject(error),
    );
    socket.write(bytes);
  });
}

const request = (method: string, id = 1, more: object = {}): string =>
  `${JSON.stringify({ v: 1, id, method, params: {}, ...more })}\n`;

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), "vnetd-api-"));
  logged = [];
});
afterEach(async () => {
  await server?.close();
  server = undefined;
  rmSync(directory, { recursive: true, force: true });
});

describe("the API's socket", () => {
  it("answers with the request's id", async () => {
    await start();
    expect(await talk(request("version", 7))).toEqual([{ v: 1, id: 7, result: version }]);
  });

  it("is for its owner alone", async () => {
    await start();
    expect(statSync(path.join(directory, "vnetd.sock")).mode & 0o777).toBe(0o600);
  });

  it("turns another user away", async () => {
    await start({ peerUid: () => 12345 });
    const [answer] = await talk(request("version"));
    expect(answer).toMatchObject({ error: { code: "PERMISSION" } });
  });

  it("answers requests of a connection in order, the slow one first", async () => {
    await start();
    const answers = await talk(request("varp", 1) + request("version", 2) + request("varp", 3), 3);
    expect(answers.map(({ id }) => id)).toEqual([1, 2, 3]);
  });

  it("takes a request in pieces", async () => {
    await start();
    const socket = net.connect(path.join(directory, "vnetd.sock"));
    const answer = new Promise<string>((resolve) =>
      socket.once("data", (chunk) => resolve(chunk.toString())),
    );
    for (const character of request("version", 3)) {
      socket.write(character);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(JSON.parse(await answer)).toMatchObject({ id: 3, result: version });
    socket.destroy();
  });

  it.each([
    ["not JSON", "hello\n", "BAD_REQUEST"],
    ["an array", "[]\n", "BAD_REQUEST"],
    ["null", "null\n", "BAD_REQUEST"],
    ["no method", '{"v":1,"id":1}\n', "BAD_REQUEST"],
    ["an id beyond all numbers", '{"v":1,"id":1e400,"method":"version"}\n', "BAD_REQUEST"],
    ["an unknown method", request("reboot"), "BAD_REQUEST"],
    ["a name of Object's", request("constructor"), "BAD_REQUEST"],
    ["__proto__", request("__proto__"), "BAD_REQUEST"],
    ["parameters that are no object", request("version", 1, { params: 5 }), "BAD_REQUEST"],
    ["another version", request("version", 1, { v: 2 }), "API_VERSION"],
  ])("refuses %s and goes on", async (_, bytes, code) => {
    await start();
    const answers = await talk(bytes + request("version", 9), 2);
    expect(answers[0]).toMatchObject({ error: { code } });
    expect(answers[1]).toMatchObject({ id: 9, result: version });
  });

  it("tells a VnetdError whole, the kernel's refusal with operation and errno, a fault in few words", async () => {
    await start();
    const answers = await talk(request("attach") + request("detach") + request("status"), 3);
    expect(answers[0]).toMatchObject({
      error: { code: "DEVICE_NOT_FOUND", message: "there is no eth9", hint: "look" },
    });
    expect(answers[1]).toMatchObject({ error: { code: "KERNEL", message: "linkAdd: EPERM: why" } });
    expect(answers[2]).toMatchObject({ error: { code: "INTERNAL" } });
    expect(logged.join("")).toContain("a fault");
  });

  it("closes the connection on a line that is too long, and serves the next", async () => {
    await start();
    const [answer] = await talk("x".repeat(maxLineBytes + 10));
    expect(answer).toMatchObject({ error: { code: "BAD_REQUEST" } });
    expect(await talk(request("version"))).toHaveLength(1);
  });

  it("survives any bytes", { timeout: 30_000 }, async () => {
    await start();
    const noise = fc.sample(fc.uint8Array({ maxLength: 300 }), 100);
    for (const bytes of noise) {
      const socket = net.connect(path.join(directory, "vnetd.sock"));
      socket.on("error", () => undefined);
      socket.end(bytes);
    }
    expect(await talk(request("version", 5))).toEqual([{ v: 1, id: 5, result: version }]);
  });

  it("replaces the socket of a dead daemon, and leaves one that is alive, or no socket at all", async () => {
    const first = await start();
    const log = createLog({ write: () => undefined });
    const second = new ApiServer({ runDir: directory, handlers: () => handlers, log });
    await expect(second.listen()).rejects.toMatchObject({ code: "ANOTHER_DAEMON" });
    await first.close();
    server = undefined;
    const stale = path.join(directory, "vnetd.sock");
    const dead = net.createServer().listen(stale);
    await new Promise((resolve) => dead.once("listening", resolve));
    // closing unlinks the name: keep it, as a killed process does
    linkSync(stale, `${stale}.kept`);
    await new Promise((resolve) => dead.close(resolve));
    renameSync(`${stale}.kept`, stale);
    expect(existsSync(stale)).toBe(true);
    const third = await start();
    expect(await talk(request("version"))).toHaveLength(1);
    await third.close();
    server = undefined;
    writeFileSync(stale, "a file");
    await expect(start()).rejects.toMatchObject({ code: "KERNEL" });
    server = undefined;
  });
});

describe("streams", () => {
  interface Opened {
    params: unknown;
    listener: { event: (event: never) => void; lost: (count: number) => void };
    closed: boolean;
  }
  let opened: Opened[];
  const streams = (): StreamHandlers => ({
    capture: () => {
      throw new Error("no test asks for it");
    },
    monitor: (params, listener) => {
      if (params.vnet === "bad") throw new VnetdError("VNET_NOT_FOUND", "there is no such vnet");
      const stream: Opened = { params, listener, closed: false };
      opened.push(stream);
      return {
        close: () => {
          stream.closed = true;
        },
      };
    },
  });
  beforeEach(async () => {
    opened = [];
    await start({ streams });
  });

  const connect = (): Promise<net.Socket> =>
    new Promise((resolve) => {
      const socket = net.connect(path.join(directory, "vnetd.sock"), () => resolve(socket));
    });
  const begin = async (params = {}): Promise<[net.Socket, Opened]> => {
    const socket = await connect();
    const known = opened.length;
    socket.write(`${JSON.stringify({ v: 1, id: 5, method: "monitor", params })}\n`);
    await eventually(() => opened.length > known);
    return [socket, opened[known]!];
  };
  const collect = (socket: net.Socket): (() => Record<string, unknown>[]) => {
    let text = "";
    socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
    return () =>
      text
        .split("\n")
        .slice(0, -1)
        .map((each) => JSON.parse(each) as Record<string, unknown>);
  };

  it("go on until the client closes the connection", async () => {
    const [socket, stream] = await begin({ vnet: "97" });
    const lines = collect(socket);
    stream.listener.event({ text: "one" } as never);
    stream.listener.lost(3);
    stream.listener.event({ text: "two" } as never);
    await eventually(() => lines().length === 4);
    expect(lines()).toEqual([
      { v: 1, id: 5, result: {} },
      { v: 1, id: 5, event: { text: "one" } },
      { v: 1, id: 5, lost: 3 },
      { v: 1, id: 5, event: { text: "two" } },
    ]);
    expect(stream).toMatchObject({ params: { vnet: "97" }, closed: false });
    socket.end();
    await eventually(() => stream.closed);
    stream.listener.event({ text: "late" } as never);
  });

  it("have their connection for themselves", async () => {
    const [socket, stream] = await begin();
    const lines = collect(socket);
    socket.write(request("version"));
    await eventually(() => stream.closed);
    await eventually(() => lines().length === 2);
    expect(lines()[1]).toMatchObject({ error: { code: "BAD_REQUEST" } });
  });

  it("that are refused say why, and the connection goes on", async () => {
    const bad = JSON.stringify({ v: 1, id: 6, method: "monitor", params: { vnet: "bad" } });
    const answers = await talk(`${bad}\n${request("version")}`, 2);
    expect(answers).toMatchObject([
      { id: 6, error: { code: "VNET_NOT_FOUND" } },
      { result: version },
    ]);
    expect(opened).toEqual([]);
  });

  it("keep no more than a bound for a client that does not read, and tell it what is missing", async () => {
    const [socket, stream] = await begin();
    socket.pause();
    const text = "x".repeat(1000);
    const count = 50_000;
    for (let at = 0; at < count; at += 1) {
      stream.listener.event({ at, text } as never);
      // now and then what can be sent is sent
      if (at % 5000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    const lines = collect(socket);
    socket.resume();
    await eventually(() => lines().some((each) => "lost" in each));
    stream.listener.event({ at: count, text: "last" } as never);
    await eventually(() => lines().some((each) => JSON.stringify(each).includes("last")));
    const events = lines().filter((each) => "event" in each).length;
    const missing = lines().reduce((sum, { lost }) => sum + Number(lost ?? 0), 0);
    expect(events + missing).toBe(count + 1);
    // the bound, and what the kernel keeps for the socket
    expect(events * 1000).toBeLessThan(2 * maxWaitingBytes);
    socket.destroy();
    await eventually(() => stream.closed);
  });
});
