// SPDX-License-Identifier: Apache-2.0
// Stands in for `vnetd run` where a test is about the starting of a daemon: answers version and
// attach on the socket, or fails at once with FAKE_RUN_FAILS; FAKE_RUN_REFUSES: no device is there. Ends by itself after a minute.
import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";

const args = process.argv.slice(2);
const runDir = args[args.indexOf("--run-dir") + 1];
writeFileSync(
  join(runDir, "started.json"),
  JSON.stringify({ pid: process.pid, args, cwd: process.cwd() }),
);
if (process.env.FAKE_RUN_FAILS !== undefined) {
  console.error("first line\n\u001b[31mthe reason of the failure");
  process.exit(1);
}
console.log("ready");
const device = {
  device: "eth7",
  address: "192.0.2.7",
  mode: "tcx",
  xdp: null,
  mtu: 1500,
  up: true,
  problem: "",
  group: "224.10.0.1",
  port: 1798,
  merge: false,
};
const answers = {
  version: { result: { version: "0.0.0", api: 1, layout: 1 } },
  attach:
    process.env.FAKE_RUN_REFUSES !== undefined
      ? { error: { code: "DEVICE_NOT_FOUND", message: "no nosuch" } }
      : process.env.FAKE_RUN_REMEMBERS === undefined
        ? { result: device }
        : { error: { code: "ALREADY_ATTACHED", message: "eth7 is attached already" } },
  status: { result: { attached: [device] } },
};
const server = createServer((socket) => {
  socket.on("error", () => undefined);
  socket.on("data", (chunk) => {
    const { id, method } = JSON.parse(chunk.toString());
    socket.write(`${JSON.stringify({ v: 1, id, ...answers[method] })}\n`);
  });
});
server.listen(join(runDir, "vnetd.sock"));
setTimeout(() => process.exit(0), 60_000).unref();
