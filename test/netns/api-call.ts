// SPDX-License-Identifier: Apache-2.0
/** One request on a daemon's socket, as any client could write it. */
import net from "node:net";
import { join } from "node:path";
import type { Host } from "../lib/lab.js";

/** Sends the bytes and returns the first line of the answer, parsed; undefined if there is none. */
export function callApi(
  host: Host,
  bytes: string | Uint8Array,
): Promise<Record<string, unknown> | undefined> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(join(host.runDir, "vnetd.sock"));
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString();
      if (text.includes("\n")) socket.destroy();
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE" && error.code !== "ECONNRESET") reject(error);
    });
    socket.on("close", () => {
      const [line] = text.split("\n");
      resolve(
        line === undefined || line === ""
          ? undefined
          : (JSON.parse(line) as Record<string, unknown>),
      );
    });
    socket.end(bytes);
  });
}
