// SPDX-License-Identifier: Apache-2.0
/**
 * GET /metrics, /healthz and /readyz. A convenience beside the daemon's work: while it cannot listen, or must not
 * because a file of its configuration is not as it should be, the daemon goes on, says so in its status, and tries
 * again. /healthz and /readyz need no token: they say one word to those who have none.
 */
import http from "node:http";
import https from "node:https";
import { isIP } from "node:net";
import type { ListenAddress } from "../config/daemon-config.js";
import { errnoName } from "../host/errno.js";
import type { Log } from "../log.js";
import type { Access } from "./access.js";
import { contentType, type MetricsPage } from "./page.js";

export interface MetricsServerParts {
  page: MetricsPage;
  access: Access;
  /** why this host does not carry vnets now; nothing: it does */
  notReady: () => string[];
  log: Log;
}

const lookEveryMs = 10_000;

export class MetricsServer {
  private server: http.Server | https.Server | undefined;
  private failure = "";
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly parts: MetricsServerParts,
    private readonly listenOn: ListenAddress,
  ) {}

  /** Why metrics are not served, or "". */
  get problem(): string {
    return this.failure;
  }

  async listen(): Promise<void> {
    const { page, access, log } = this.parts;
    page.start();
    await this.look();
    this.timer = setInterval(() => void this.look(), lookEveryMs);
    this.timer.unref();
    if (!access.isSecret && !isLoopback(this.listenOn.address) && this.failure === "")
      log.say(
        "metrics_open",
        `metrics on ${this.where} are for everybody who reaches it: metricsTokenFile`,
      );
  }

  close(): void {
    clearInterval(this.timer);
    this.parts.page.stop();
    this.stopServing();
  }

  /** Files that changed are read; who does not listen tries again. */
  async look(): Promise<void> {
    const { access } = this.parts;
    const changed = access.refresh();
    if (access.problem !== "") {
      this.stopServing();
      return this.failed(access.problem);
    }
    if (this.server === undefined) return this.serve();
    if (changed && access.tls !== undefined && this.server instanceof https.Server)
      this.server.setSecureContext(access.tls);
  }

  private async serve(): Promise<void> {
    const { tls } = this.parts.access;
    const onRequest: http.RequestListener = (request, response) => {
      void this.answer(request, response);
    };
    const server =
      tls === undefined
        ? http.createServer(onRequest)
        : https.createServer(
            { ...tls, minVersion: "TLSv1.2", handshakeTimeout: 10_000 },
            onRequest,
          );
    server.maxConnections = 32;
    server.requestTimeout = 10_000;
    server.headersTimeout = 5_000;
    // who does not read on must not keep others out
    server.timeout = 30_000;
    const { address, port } = this.listenOn;
    await new Promise<void>((resolve) => {
      server.on("error", (error) => {
        this.stopServing();
        this.failed(errnoName(error) || error.message);
        resolve();
      });
      server.listen({ host: address, port, exclusive: true }, () => {
        this.failure = "";
        resolve();
      });
      this.server = server;
    });
  }

  private stopServing(): void {
    this.server?.close();
    this.server?.closeAllConnections();
    this.server = undefined;
  }

  private failed(why: string): void {
    const text = `metrics are not served on ${this.where}: ${why}`;
    if (text !== this.failure) this.parts.log.say("metrics_down", text, { reason: why });
    this.failure = text;
  }

  private get where(): string {
    const { address, port } = this.listenOn;
    return `${address}:${String(port)}`;
  }

  private async answer(
    request: http.IncomingMessage,
    response: http.ServerResponse,
  ): Promise<void> {
    const { access, log } = this.parts;
    const path = (request.url ?? "").split("?", 1)[0];
    if (request.method !== "GET" && request.method !== "HEAD")
      return end(response, 405, "method not allowed\n");
    const allowed = access.allows(request.headers.authorization);
    if (path === "/healthz") return end(response, 200, "ok\n");
    if (path === "/readyz") return this.answerReady(response, allowed);
    if (path !== "/metrics") return end(response, 404, "see /metrics, /healthz and /readyz\n");
    if (!allowed) {
      response.setHeader("www-authenticate", 'Bearer realm="vnetd"');
      return end(response, 401, "a token is wanted: Authorization: Bearer TOKEN\n");
    }
    try {
      const text = await this.parts.page.text();
      response.setHeader("content-type", contentType);
      end(response, 200, text);
    } catch (error) {
      log.say("metrics_failed", `metrics: ${String(error)}`, { reason: String(error) });
      end(response, 500, "the metrics cannot be read; see the daemon's log\n");
    }
  }

  private answerReady(response: http.ServerResponse, allowed: boolean): void {
    const why = this.parts.notReady();
    if (why.length === 0) return end(response, 200, "ok\n");
    end(response, 503, allowed ? `${why.join("\n")}\n` : "not ready\n");
  }
}

function isLoopback(address: string): boolean {
  return isIP(address) === 4 ? address.startsWith("127.") : address === "::1";
}

function end(response: http.ServerResponse, status: number, text: string): void {
  if (!response.hasHeader("content-type"))
    response.setHeader("content-type", "text/plain; charset=utf-8");
  response.writeHead(status);
  response.end(text);
}
