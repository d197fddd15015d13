// SPDX-License-Identifier: Apache-2.0
/**
 * GET /metrics and GET /healthz. A convenience beside the daemon's work: if it cannot listen, the
 * daemon goes on and says so in its status.
 */
import http from "node:http";
import type { ListenAddress } from "../config/daemon-config.js";
import { errnoName } from "../host/errno.js";
import type { Log } from "../log.js";
import { contentType, type MetricsPage } from "./page.js";

export class MetricsServer {
  private readonly server: http.Server;
  private failure = "";

  constructor(
    private readonly page: MetricsPage,
    private readonly log: Log,
  ) {
    this.server = http.createServer((request, response) => {
      void answer(page, request, response, log);
    });
    this.server.maxConnections = 32;
    this.server.requestTimeout = 10_000;
    this.server.headersTimeout = 5_000;
  }

  /** Why metrics are not served, or "". */
  get problem(): string {
    return this.failure;
  }

  async listen({ address, port }: ListenAddress): Promise<void> {
    this.page.start();
    await new Promise<void>((resolve) => {
      this.server.on("error", (error) => {
        this.failure = `metrics are not served on ${address}:${String(port)}: ${errnoName(error)}`;
        this.log.warn(this.failure);
        resolve();
      });
      this.server.listen({ host: address, port, exclusive: true }, resolve);
    });
  }

  close(): void {
    this.page.stop();
    this.server.close();
    this.server.closeAllConnections();
  }
}

async function answer(
  page: MetricsPage,
  request: http.IncomingMessage,
  response: http.ServerResponse,
  log: Log,
): Promise<void> {
  const path = (request.url ?? "").split("?", 1)[0];
  if (request.method !== "GET" && request.method !== "HEAD")
    return end(response, 405, "method not allowed\n");
  if (path === "/healthz") return end(response, 200, "ok\n");
  if (path !== "/metrics") return end(response, 404, "see /metrics and /healthz\n");
  try {
    const text = await page.text();
    response.setHeader("content-type", contentType);
    end(response, 200, text);
  } catch (error) {
    log.error(`metrics: ${String(error)}`);
    end(response, 500, "the metrics cannot be read; see the daemon's log\n");
  }
}

function end(response: http.ServerResponse, status: number, text: string): void {
  if (!response.hasHeader("content-type"))
    response.setHeader("content-type", "text/plain; charset=utf-8");
  response.writeHead(status);
  response.end(text);
}
