// SPDX-License-Identifier: Apache-2.0
/**
 * Another host that asks where MACs live, a fixed number of times a second, for bench/scrape.mjs: reads one JSON
 * object from stdin ({own, to, port, perSecond, seconds, vnets: [{id, vmac}]}), prints one: how many requests went,
 * how many were answered, and how long the answers took.
 */
import dgram from "node:dgram";
import { readFileSync } from "node:fs";
import { decodeVarp, encodeVarp } from "../dist/src/wire/varp.js";

const { own, to, port, perSecond, seconds, vnets } = JSON.parse(readFileSync(0, "utf8"));
const requests = vnets.map(({ id, vmac }) =>
  encodeVarp({
    opcode: "request",
    vnet: Buffer.from(id.replaceAll(":", ""), "hex"),
    vmac: Buffer.from(vmac.replaceAll(":", ""), "hex"),
    address: Buffer.alloc(16),
  }),
);
const idOf = (message) => Buffer.from(message.vnet).toString("hex");
/** by vnet, when each request left that has no answer yet */
const waiting = new Map();
const latenciesMs = [];

const socket = dgram.createSocket("udp4");
socket.on("message", (bytes) => {
  const decoded = decodeVarp(bytes);
  if (!decoded.ok || decoded.message.opcode !== "announce") return;
  // the daemon's hellos are announces as well
  if (decoded.message.trailing.length > 0) return;
  const id = idOf(decoded.message);
  const sentMs = waiting.get(id)?.shift();
  if (sentMs === undefined) return;
  latenciesMs.push(performance.now() - sentMs);
});
await new Promise((done) => socket.bind({ address: own, port }, done));

const startMs = performance.now();
let sent = 0;
const total = perSecond * seconds;
await new Promise((done) => {
  const timer = setInterval(() => {
    const due = Math.min(total, Math.floor(((performance.now() - startMs) / 1000) * perSecond));
    for (; sent < due; sent += 1) {
      const at = sent % requests.length;
      const id = vnets[at].id.replaceAll(":", "");
      if (!waiting.has(id)) waiting.set(id, []);
      waiting.get(id).push(performance.now());
      socket.send(requests[at], port, to);
    }
    if (sent < total) return;
    clearInterval(timer);
    // late is not missed
    setTimeout(done, 5000);
  }, 1);
});
socket.close();
const unanswered = sent - latenciesMs.length;
latenciesMs.sort((a, b) => a - b);
const quantile = (q) =>
  latenciesMs[Math.min(latenciesMs.length - 1, Math.floor(q * latenciesMs.length))] ?? 0;
console.log(
  JSON.stringify({
    ...{ sent, unanswered, medianMs: quantile(0.5), p99Ms: quantile(0.99) },
    worstMs: latenciesMs.at(-1) ?? 0,
  }),
);
