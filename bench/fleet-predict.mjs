// SPDX-License-Identifier: Apache-2.0
/** What the model (bench/fleet-model.mjs) says of many hosts, as tables; the lengths are those that the real encoder makes. */
import { version } from "../dist/src/base/version.js";
import { VnetdProbe } from "../dist/src/generated/layouts.js";
import { encodeHello } from "../dist/src/wire/hello.js";
import { encodeVarp } from "../dist/src/wire/varp.js";
import { announced, appear, arpFloods, helloFrameBytes, inList, steady } from "./fleet-model.mjs";

export const kB = (bytes) => `${(bytes / 1000).toFixed(bytes < 10_000 ? 1 : 0)} kB`;
export const s = (value) => `${value.toFixed(value < 10 ? 2 : 0)} s`;
/** what a daemon takes of hosts that it does not know yet: 460 to 550 µs each by `bench/run-scale hellos` on the slowest machine so far */
export const capacity = { perSecond: 2000, ring: 2500 };

const messageBytes = (hostName) =>
  encodeVarp(
    {
      opcode: "announce",
      vnet: Buffer.alloc(16),
      vmac: Buffer.alloc(6),
      address: Buffer.alloc(16, 1),
    },
    encodeHello({
      ...{
        hostId: "0".repeat(32),
        bootNonce: "0".repeat(16),
        capabilities: 1,
        underlayMtuBytes: 1500,
      },
      ...{ hostName, software: `vnetd ${version}`, solicit: false, goodbye: false },
    }),
  ).length;

/** what a probe for loops takes: Ethernet, IPv4, UDP and the vnet's header, then the inner Ethernet */
const probeFrameBytes = 14 + 20 + 8 + 22 + 14 + VnetdProbe.size;
export const shape = ({ vnets, helloSeconds }, count, hostName) => ({
  ...{ hosts: count, vnets, helloSeconds },
  probeSeconds: Math.max(10, helloSeconds),
  helloBytes: helloFrameBytes(messageBytes(hostName)),
  inList: inList(messageBytes(hostName)),
  probeBytes: probeFrameBytes,
});

function hostRows(protocol) {
  const out = [];
  for (const count of [64, 1000, 10_000]) {
    const rest = steady({ ...shape(protocol, count, anyName), lists: true });
    const options = { hosts: count, ...protocol, ...capacity };
    const cold = appear({ ...options, newcomers: count, withinSeconds: 10 });
    const lossy = appear({ ...options, newcomers: count, withinSeconds: 10, loss: 0.01 });
    const reboot = appear({ ...options, newcomers: 40, withinSeconds: 10, loss: 0.01 });
    out.push(
      `| ${count.toLocaleString("en")} | ${rest.sentBytes.toFixed(0)} | ${(rest.heardBytes / 1000).toFixed(0)} | ` +
        `${s(cold.seconds[0])}, ${s(cold.seconds[1])} | ${s(lossy.seconds[0])}, ${s(lossy.seconds[1])} | ` +
        `${s(reboot.seconds[0])}, ${s(reboot.seconds[1])} | ${cold.busiestPerSecond} |`,
    );
  }
  return out;
}

const anyName = "host-1000";
const macsPerHost = 100;
/** What each of so many hosts hears, one by one and in lists, and of guests' ARP with and without an answer from the table. */
function macRows(protocol) {
  return [64, 1000, 10_000].map((count) => {
    const rest = (lists) =>
      kB(steady({ ...shape(protocol, count, anyName), lists, probeBytes: 0 }).heardBytes);
    const rebooted = Math.min(40, count) * macsPerHost;
    const rackTold = (lists) => announced({ macs: macsPerHost, vnets: protocol.vnets, lists });
    const told = (lists) =>
      `${(rackTold(lists).messages * 40).toLocaleString("en")}, ${kB(rackTold(lists).bytes * 40)}`;
    const arp = (suppressed) => kB(arpFloods({ macs: count * macsPerHost, suppressed }).bytes);
    const missed = (rebooted / 100).toFixed(0);
    return (
      `| ${count.toLocaleString("en")} | ${(count * macsPerHost).toLocaleString("en")} | ${rest(false)}, ${rest(true)} | ` +
      `${told(false)} | ${told(true)} | ${missed} of ${rebooted.toLocaleString("en")} | ${arp(false)}, ${arp(true)} |`
    );
  });
}

export function modelTables(protocol) {
  return [
    `The model alone, ${protocol.vnets} vnets on each host, hosts appearing within 10 s:`,
    "",
    "| hosts | sends at rest, bytes/s | hears, kB/s | cold start: 99 %, all | with 1 % loss | 40 reboot, 1 % loss | busiest second, messages |",
    "|---:|---:|---:|---:|---:|---:|---:|",
    ...hostRows(protocol),
    "",
    `And with ${macsPerHost} guests behind each host, one by one and in lists, without and with ARP answered from the table:`,
    "",
    "| hosts | MACs | hellos heard a second | 40 hosts reboot: announces, one by one | in lists | 1 % loss: a host misses | ARP heard a second |",
    "|---:|---:|---:|---:|---:|---:|---:|",
    ...macRows(protocol),
  ];
}
