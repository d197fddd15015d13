// SPDX-License-Identifier: Apache-2.0
/**
 * An original vnet host as a process: OriginalModel on a UDP socket, driven by JSON lines.
 *
 * Started by test/lib/original.ts inside a network namespace; argv[2] is the configuration as
 * JSON. Each line on stdin is {seq, cmd, ...}; each answer on stdout is {seq, ok, ...}. It ends
 * when stdin closes, so a test that dies leaves nothing behind.
 *
 * Sends as the captures show: multicast TTL 1, unicast TTL 64, source port 1798, DF as the stack
 * sets it, and large datagrams fragmented by the stack.
 */
import { spawn } from "node:child_process";
import dgram from "node:dgram";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { ORIGINAL_PORT, OriginalModel } from "./original-model.mjs";

const RAW_PROGRAM = fileURLToPath(new URL("./raw-ipv4.py", import.meta.url));
const MAX_PINGS = 100_000;
const ARP_TRIES = 5;
const ARP_WAIT_MS = 200;

const config = JSON.parse(process.argv[2] ?? "{}");
const socket = dgram.createSocket({ type: "udp4", reuseAddr: true });
let sent = 0;
const sendErrors = [];

/** Only a forwarder sends with the addresses of others; this ends with our end of its stdin. */
const raw =
  (config.peers ?? []).length === 0
    ? undefined
    : spawn("/usr/bin/python3", [RAW_PROGRAM, config.address], {
        stdio: ["pipe", "ignore", "inherit"],
      });

const host = new OriginalModel({
  ...config,
  sendAs(to, packet) {
    raw?.stdin.write(`${to} ${packet.toString("hex")}\n`);
  },
  send(to, payload) {
    sent += 1;
    socket.send(payload, ORIGINAL_PORT, to, (error) => {
      if (error && sendErrors.length < 100) sendErrors.push(`${to}: ${error.message}`);
    });
  },
});

const now = () => performance.now();
const sleep = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Counters of this namespace's stack: what the kernel refused never reaches the socket. */
function kernelCounters() {
  const rows = readFileSync("/proc/self/net/snmp", "utf8").trim().split("\n");
  /** @type {Record<string, number>} */
  const all = {};
  for (let i = 0; i + 1 < rows.length; i += 2) {
    const [prefix, ...names] = rows[i].split(/\s+/);
    const values = rows[i + 1].split(/\s+/).slice(1);
    names.forEach((name, k) => (all[prefix.slice(0, -1) + name] = Number(values[k])));
  }
  const { UdpInCsumErrors, IpInHdrErrors, IpReasmFails, IpReasmOKs, UdpRcvbufErrors } = all;
  return { UdpInCsumErrors, IpInHdrErrors, IpReasmFails, IpReasmOKs, UdpRcvbufErrors };
}

/** @param {string} ip */
function guestByIp(ip) {
  const guest = host.guests.find((g) => g.ip === ip);
  if (!guest) throw new Error(`no guest with address ${ip}`);
  return guest;
}

/** @param {ReturnType<typeof guestByIp>} guest @param {string} to */
async function resolve(guest, to) {
  for (let i = 0; i < ARP_TRIES && !guest.neighbours.has(to); i++) {
    // remembered before the answer: receiveArp then takes it from whoever sends it
    guest.sendArp(1, "", to, now());
    for (let waited = 0; waited < ARP_WAIT_MS && !guest.neighbours.has(to); waited += 5)
      await sleep(5);
  }
  return guest.neighbours.has(to);
}

let nextPingId = 1;

async function ping({ from, to, count = 1, intervalMs = 20, timeoutMs = 1000, sizeBytes = 56 }) {
  const guest = guestByIp(from);
  const id = nextPingId++ & 0xffff;
  const total = Math.min(count, MAX_PINGS);
  const rttsMs = [];
  if (!(await resolve(guest, to))) return { resolved: false, sent: 0, received: 0, rttsMs };
  const replies = [];
  for (let sequence = 1; sequence <= total; sequence++) {
    replies.push(
      new Promise((done) => {
        const startMs = now();
        const timer = setTimeout(() => {
          guest.waiting.delete(`${id} ${sequence}`);
          done(undefined);
        }, timeoutMs);
        guest.waiting.set(`${id} ${sequence}`, (nowMs) => {
          clearTimeout(timer);
          rttsMs.push(nowMs - startMs);
          done(undefined);
        });
        guest.sendEcho({ to, id, sequence, sizeBytes, nowMs: startMs });
      }),
    );
    if (sequence < total) await sleep(intervalMs);
  }
  await Promise.all(replies);
  return { resolved: true, sent: total, received: rttsMs.length, rttsMs };
}

const commands = {
  ping,
  table: () => ({
    entries: [...host.table.values()].map(({ heardMs, ...rest }) => ({
      ...rest,
      ageMs: now() - heardMs,
    })),
  }),
  stats: () => ({
    received: host.received,
    sent,
    delivered: host.delivered,
    arrivals: host.arrivals,
    arpArrivals: host.arpArrivals,
    rejected: host.rejectedCounts,
    rejections: host.rejections,
    ignored: host.ignored,
    sendErrors,
    kernel: kernelCounters(),
  }),
  guestAdd: ({ guest }) => void host.addGuest(guest),
  guestDelete: ({ mac }) => void host.removeGuest(mac),
  /** what a freshly moved guest does: a gratuitous ARP */
  arpProbe: async ({ from, to }) => ({ resolved: await resolve(guestByIp(from), to) }),
  /** one request, whatever answers */
  arpOnce: ({ from, to }) => guestByIp(from).sendArp(1, "", to, now()),
  arpForget: ({ from }) => guestByIp(from).neighbours.clear(),
  flush: () => host.table.clear(),
  sweep: () => host.sweep(now()),
  /** a payload as given, for hostile input */
  raw: ({ to, payloadHex }) => host.send(to, Buffer.from(payloadHex, "hex")),
};

// Two sockets, since a datagram does not tell what address it was sent to.
const groupSocket = dgram.createSocket({ type: "udp4", reuseAddr: true });
for (const [each, toGroup] of [
  [socket, false],
  [groupSocket, true],
]) {
  each.on("message", (payload, { address, port }) =>
    host.receive(payload, address, now(), toGroup, port),
  );
  each.on("error", (error) => {
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  });
}
socket.bind({ port: ORIGINAL_PORT, address: host.address }, () => {
  socket.setMulticastInterface(host.address);
  socket.setMulticastTTL(1);
  socket.setTTL(64);
  groupSocket.bind({ port: ORIGINAL_PORT, address: host.group }, () => {
    groupSocket.addMembership(host.group, host.address);
    process.stdout.write(`${JSON.stringify({ ready: true })}\n`);
  });
});
setInterval(() => host.sweep(now()), host.ageMs);

const input = createInterface({ input: process.stdin });
input.on("close", () => process.exit(0));
input.on("line", (line) => {
  void (async () => {
    const { seq, cmd, ...parameters } = JSON.parse(line);
    try {
      const run = commands[cmd];
      if (!run) throw new Error(`no command ${cmd}`);
      const result = await run(parameters);
      process.stdout.write(`${JSON.stringify({ seq, ok: true, result: result ?? null })}\n`);
    } catch (error) {
      process.stdout.write(`${JSON.stringify({ seq, ok: false, error: String(error) })}\n`);
    }
  })();
});
