// SPDX-License-Identifier: Apache-2.0
/** Who may scrape, over what, and what happens while a file is not as it should be: nothing is served then. */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TLSSocket } from "node:tls";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Access, type AccessFiles } from "../../src/metrics/access.js";
import type { Log } from "../../src/log.js";
import { MetricsServer } from "../../src/metrics/http.js";
import { MetricsPage } from "../../src/metrics/page.js";
import { readSecretFile } from "../../src/store/secret-file.js";
import { metricsSource } from "./lib/metrics.js";

const directory = mkdtempSync(join(tmpdir(), "vnetd-metrics-"));
const file = (name: string): string => join(directory, name);
const token = "correct-horse-battery-staple";
const other = "another-horse-battery-staple";

function certificate(name: string): void {
  execFileSync(
    "openssl",
    [
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
      ...["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"],
      ...["-keyout", file(`${name}.key`), "-out", file(`${name}.crt`)],
    ],
    { stdio: "ignore" },
  );
  chmodSync(file(`${name}.key`), 0o600);
}

beforeAll(() => {
  for (const name of ["one", "two"]) certificate(name);
});
afterAll(() => rmSync(directory, { recursive: true }));

let servers: MetricsServer[] = [];
afterEach(() => {
  for (const server of servers) server.close();
  servers = [];
});

const none: AccessFiles = { token: null, certificate: null, key: null };
const kind = { code: "CONFIG", maxBytes: 65536, remake: "make a new one" } as const;

interface Serving {
  server: MetricsServer;
  port: number;
  warned: string[];
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

async function serve(
  files: Partial<AccessFiles>,
  notReady: () => string[] = () => [],
): Promise<Serving> {
  const warned: string[] = [];
  const log: Log = {
    say: (event, text) => void (event === "metrics_down" && warned.push(text)),
  };
  const access = new Access({ ...none, ...files }, (path, word) =>
    readSecretFile(path, { ...kind, word }),
  );
  const port = await freePort();
  const page = new MetricsPage(metricsSource());
  const server = new MetricsServer({ page, access, notReady, log }, { address: "127.0.0.1", port });
  servers.push(server);
  await server.listen();
  return { server, port, warned };
}

interface Answer {
  status: number;
  text: string;
  serial: string | undefined;
}

interface Ask {
  path?: string;
  authorization?: string;
  method?: string;
  ca?: string;
}

function get(
  port: number,
  { path = "/metrics", authorization, method, ca }: Ask = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = {
      ...{ host: "127.0.0.1", port, path, agent: false },
      ...(method === undefined ? {} : { method }),
      headers: authorization === undefined ? {} : { authorization },
    };
    const request =
      ca === undefined
        ? http.request(options)
        : https.request({ ...options, ca: readFileSync(file(ca)) });
    request.on("error", reject);
    request.on("response", (response) => {
      const { socket } = response;
      const serial =
        socket instanceof TLSSocket ? socket.getPeerCertificate().serialNumber : undefined;
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => (text += part));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text, serial }));
    });
    request.end();
  });
}

/** As people replace a file: whole, under its name. */
function put(name: string, text: string, mode = 0o600): void {
  writeFileSync(file(`${name}.new`), text, { mode });
  chmodSync(file(`${name}.new`), mode);
  renameSync(file(`${name}.new`), file(name));
}

describe("without files", () => {
  it("metrics, health and readiness are for everybody who reaches the port", async () => {
    const { port, server } = await serve({});
    expect(server.problem).toBe("");
    expect((await get(port)).text).toContain("vnetd_build_info{");
    expect(await get(port, { path: "/healthz" })).toMatchObject({ status: 200, text: "ok\n" });
    expect(await get(port, { path: "/readyz?verbose" })).toMatchObject({
      status: 200,
      text: "ok\n",
    });
    expect((await get(port, { path: "/" })).status).toBe(404);
    expect((await get(port, { method: "POST" })).status).toBe(405);
    const head = await get(port, { method: "HEAD" });
    expect(head).toMatchObject({ status: 200, text: "" });
  });

  it("a host whose devices are down is healthy, not ready, and says why", async () => {
    let why = ["eth0: it has no carrier"];
    const { port } = await serve({}, () => why);
    expect(await get(port, { path: "/readyz" })).toMatchObject({
      ...{ status: 503, text: "eth0: it has no carrier\n" },
    });
    expect((await get(port, { path: "/healthz" })).status).toBe(200);
    why = [];
    expect((await get(port, { path: "/readyz" })).status).toBe(200);
  });

  it("a port that is taken is a problem until it is free", async () => {
    const { port, server } = await serve({});
    const log = { say: () => undefined };
    const second = new MetricsServer(
      {
        ...{ page: new MetricsPage(metricsSource()), notReady: () => [], log },
        access: new Access(none, () => undefined),
      },
      { address: "127.0.0.1", port },
    );
    servers.push(second);
    await second.listen();
    expect(second.problem).toBe(`metrics are not served on 127.0.0.1:${port}: EADDRINUSE`);
    server.close();
    await second.look();
    expect(second.problem).toBe("");
    expect((await get(port)).status).toBe(200);
  });
});

describe("with a token", () => {
  const bearer = (word: string): Ask => ({ authorization: `Bearer ${word}` });

  it("only who shows it gets metrics, or is told why the host is not ready", async () => {
    put("token", `${token}\n`);
    const { port } = await serve({ token: file("token") }, () => ["eth0 is gone"]);
    expect((await get(port, bearer(token))).text).toContain("vnetd_build_info{");
    expect((await get(port, { authorization: `bearer ${token}` })).status).toBe(200);
    for (const wrong of [`${token}x`, token.slice(1), "", `${token} ${token}`]) {
      const answer = await get(port, bearer(wrong));
      expect(answer.status, wrong).toBe(401);
      expect(answer.text).not.toContain("vnetd_");
    }
    expect((await get(port)).status).toBe(401);
    expect((await get(port, { authorization: `Basic ${token}` })).status).toBe(401);
    expect((await get(port, { path: "/healthz" })).status).toBe(200);
    expect((await get(port, { path: "/readyz" })).text).toBe("not ready\n");
    expect((await get(port, { path: "/readyz", ...bearer(token) })).text).toBe("eth0 is gone\n");
  });

  it("a new token takes the old one's place without a restart", async () => {
    put("token", token);
    const { port, server } = await serve({ token: file("token") });
    put("token", other);
    await server.look();
    expect((await get(port, bearer(token))).status).toBe(401);
    expect((await get(port, bearer(other))).status).toBe(200);
  });

  it.each([
    [
      "others can read",
      () => put("token", token, 0o644),
      /others may read or write it \(mode 0644\)/,
    ],
    ["its group can read", () => put("token", token, 0o640), /mode 0640/],
    ["is not there", () => rmSync(file("token")), /there is no token file/],
    ["is empty", () => put("token", "\n"), /holds no token/],
    ["is short", () => put("token", "hunter2"), /16 characters/],
    ["has two words", () => put("token", `${token} ${other}`), /one word/],
  ])(
    "one that %s closes the door, from the start and later, until it is right",
    async (_, spoil, says) => {
      put("token", token);
      spoil();
      const closed = await serve({ token: file("token") });
      expect(closed.server.problem).toMatch(says);
      expect(closed.warned.join()).toMatch(says);
      expect(closed.server.problem).not.toContain(token);
      await expect(get(closed.port, bearer(token))).rejects.toThrow("ECONNREFUSED");

      put("token", token);
      await closed.server.look();
      expect(closed.server.problem).toBe("");
      expect((await get(closed.port, bearer(token))).status).toBe(200);

      spoil();
      await closed.server.look();
      expect(closed.server.problem).toMatch(says);
      await expect(get(closed.port, bearer(token))).rejects.toThrow("ECONNREFUSED");
    },
  );
});

describe("with a certificate", () => {
  const files = { certificate: file("tls.crt"), key: file("tls.key") };
  const use = (name: string): void => {
    put("tls.crt", readFileSync(file(`${name}.crt`), "utf8"), 0o644);
    put("tls.key", readFileSync(file(`${name}.key`), "utf8"));
  };

  it("there is TLS alone, and a renewed certificate is used by the next connection", async () => {
    use("one");
    const { port, server } = await serve(files);
    const before = await get(port, { ca: "one.crt" });
    expect(before.text).toContain("vnetd_build_info{");
    await expect(get(port)).rejects.toThrow(/socket hang up|ECONNRESET/);
    await expect(get(port, { ca: "two.crt" })).rejects.toThrow(/self-signed|unable to verify/);
    use("two");
    await server.look();
    const after = await get(port, { ca: "two.crt" });
    expect(after.status).toBe(200);
    expect(after.serial).not.toBe(before.serial);
  });

  it("nothing is served in clear when the key is another's, or is readable by others", async () => {
    use("one");
    put("tls.key", readFileSync(file("two.key"), "utf8"));
    const { port, server } = await serve(files);
    expect(server.problem).toMatch(/cannot be used for TLS/);
    await expect(get(port)).rejects.toThrow("ECONNREFUSED");
    put("tls.key", readFileSync(file("one.key"), "utf8"), 0o644);
    await server.look();
    expect(server.problem).toMatch(/the private key file .* others may read or write it/);
    await expect(get(port)).rejects.toThrow("ECONNREFUSED");
    use("one");
    await server.look();
    expect((await get(port, { ca: "one.crt" })).status).toBe(200);
  });
});
