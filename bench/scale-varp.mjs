// SPDX-License-Identifier: Apache-2.0
/**
 * VARP above what a host can take, for bench/scale.mjs: one message of a host's, for one vnet, put into the device that is
 * attached as often as it can be (bench/forward.c), while a third host asks for a MAC of another vnet, 100 times a second. What
 * came is taken or answered, refused for a reason that is counted, or dropped by the kernel before any program; nothing
 * else may become of it.
 *
 * "All at one CPU": what comes in is handed to the last CPU (RPS), as by a NIC with one queue that does not wait. Else it is worked on
 * where it is made, so no more comes than can be.
 */
import { cpus } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseAddress } from "../dist/src/base/address.js";
import { encodeVarp } from "../dist/src/wire/varp.js";
import { udpFrame } from "./frames.mjs";
import { lostByKernel } from "./kernel-settings.mjs";
import { printed } from "./measure.mjs";

const built = (name) => join(resolve(import.meta.dirname, ".."), "build", "bench", name);
const port = 1798;
const group = { address: "224.10.0.1", mac: "01:00:5e:0a:00:01" };
const seconds = 3;
const quiet = { perSecond: 100, seconds: seconds + 2 };
const floodedId = "97".padStart(32, "0");
const quietId = "98".padStart(32, "0");
const whole = (n) => n.toLocaleString("en");
const thousands = (n) => (n < 500 ? "none" : `${whole(Math.round(n / 1000))},000`);

/** The MAC of a vnet's own interface, which lives on the host. */
const vmacOf = (host, id) =>
  JSON.parse(host.vnetd("vnets", "--json")).find(
    (vnet) => vnet.id.replaceAll(":", "").padStart(32, "0") === id,
  ).vmac;

/** A message of the second host's, as it comes to the first. */
function messageFrame([host, other], { opcode, vmac, to }) {
  const payload = encodeVarp({
    ...{ opcode, vnet: Buffer.from(floodedId, "hex"), address: parseAddress(other.address) },
    vmac: Buffer.from(vmac.replaceAll(":", ""), "hex"),
  });
  const { address, mac } = to ?? { address: host.address, mac: host.link("eth0").address };
  const from = { fromMac: other.link("eth0").address, from: other.address };
  return udpFrame({ ...from, toMac: mac, to: address, port, sourcePort: port, payload });
}

/** {sent, unanswered, medianMs, ...} of requests for the quiet vnet. */
function ask(host, asker) {
  const script = join(import.meta.dirname, "varp-asker.mjs");
  const vnets = [{ id: quietId, vmac: vmacOf(host, quietId) }];
  const ends = { own: asker.address, to: host.address, port };
  const input = JSON.stringify({ ...ends, ...quiet, vnets });
  return printed(asker.argv([process.execPath, script]), input);
}

/** What the host did with messages so far, and what it refused, by reason. */
function countsOf(lab, maps, host) {
  const { taken, answered } = maps.varpStats();
  return { taken: Number(taken), answered: Number(answered), refused: lab.refusedOf(host) };
}

async function flood(lab, maps, { key, frame }) {
  const [host, , asker] = lab.hosts;
  const before = { ...countsOf(lab, maps, host), lost: lostByKernel().backlog };
  const asked = ask(host, asker);
  // until it has begun
  await delay(1000);
  const argv = [built("forward"), "flood", built("forward.bpf.o"), "eth0", frame, String(seconds)];
  const { sent, seconds: took } = await printed(host.argv(argv, 0));
  const answers = await asked;
  const after = { ...countsOf(lab, maps, host), lost: lostByKernel().backlog };
  const ofQuiet = answers.sent - answers.unanswered;
  const done = after[key] - before[key] - (key === "answered" ? ofQuiet : 0);
  const refused = [...after.refused]
    .map(([reason, n]) => [reason, n - (before.refused.get(reason) ?? 0)])
    .filter(([, n]) => n > 0);
  const counted = refused.reduce((sum, [, n]) => sum + n, done);
  return { sent, took, done, refused, counted, lost: after.lost - before.lost, answers };
}

/** One row of the table. cpu: the mask of those that what comes in is handed to; 0: none */
async function measure(lab, maps, row, [what, key, message, cpu]) {
  const [host] = lab.hosts;
  host.runWithSys(["sh", "-c", `echo ${cpu} > /sys/class/net/eth0/queues/rx-0/rps_cpus`]);
  const found = await flood(lab, maps, { key, frame: messageFrame(lab.hosts, message) });
  const { sent, took, done, refused, counted, lost, answers } = found;
  const ofQuiet = answers.sent - answers.unanswered;
  const text = [
    `${thousands(done / took)} a second ${key}`,
    ...refused.map(([reason, n]) => `${thousands(n / took)} refused (\`${reason}\`)`),
    `${thousands((sent - counted) / took)} dropped by the kernel before any program`,
    `of another vnet ${ofQuiet} of ${answers.sent} requests answered, in ${answers.medianMs.toFixed(1)} ms`,
  ];
  // what did not come to a program the kernel has counted, of all that the machine received
  const isAccounted = counted <= sent && sent - counted <= lost;
  if (!isAccounted) text.push(`${whole(sent - counted - lost)} not accounted for`);
  // of a CPU that has too much the kernel drops whatever comes
  const isQuietOwed = cpu === "0";
  row(
    `VARP above it, ${what}: ${thousands(sent / took)} a second for ${took.toFixed(1)} s`,
    `each accounted for${isQuietOwed ? ", another vnet answered" : ""}`,
    text.join("; "),
    isAccounted && (!isQuietOwed || answers.unanswered === 0),
  );
}

/** The host has the vnets 97 and 98. */
export async function varpAbove(lab, maps, row) {
  const announce = { opcode: "announce", vmac: "02:00:00:00:00:01", to: group };
  const request = { opcode: "request", vmac: vmacOf(lab.hosts[0], floodedId) };
  const last = (1 << (cpus().length - 1)).toString(16);
  for (const each of [
    ["announces", "taken", announce, "0"],
    ["requests", "answered", request, "0"],
    ["announces, all at one CPU", "taken", announce, last],
    ["requests, all at one CPU", "answered", request, last],
  ])
    await measure(lab, maps, row, each);
}
