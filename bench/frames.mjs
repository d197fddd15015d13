// SPDX-License-Identifier: Apache-2.0
/**
 * Forwarding with no socket at either end: what bench/forward.c does, with the frames and devices of the lab.
 */
import { join, resolve } from "node:path";

const built = (name) => join(resolve(import.meta.dirname, ".."), "build", "bench", name);
const forward = built("forward");
const object = built("forward.bpf.o");
const udpBytes = 64;
const forwardCore = 0;

const word = (n) => [n >> 8, n & 255];
const macBytes = (text) => text.split(":").map((byte) => Number.parseInt(byte, 16));
const ipv4 = (text) => text.split(".").map(Number);

/** RFC 1071 */
function checksum(bytes) {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += bytes[i] * 256 + bytes[i + 1];
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

/** A UDP packet, as hex: between two MACs and two IPv4 addresses; no UDP checksum. `payload`: bytes; else `bytes` of them, all 0. */
export function udpFrame({ fromMac, toMac, from, to, ...options }) {
  const { bytes = udpBytes, port = 9000, sourcePort = 9001 } = options;
  const { payload = new Array(bytes).fill(0) } = options;
  const head = [0x45, 0, ...word(28 + payload.length), 0, 0, 0, 0, 64, 17];
  const addresses = [...ipv4(from), ...ipv4(to)];
  const ip = [...head, ...word(checksum([...head, 0, 0, ...addresses])), ...addresses];
  const udp = [...word(sourcePort), ...word(port), ...word(8 + payload.length), 0, 0];
  return Buffer.from([
    ...macBytes(toMac),
    ...macBytes(fromMac),
    8,
    0,
    ...ip,
    ...udp,
    ...payload,
  ]).toString("hex");
}

/** "Who has", to the one that has it: not IP, and for one host. As hex. */
function arpFrame({ fromMac, toMac, from, to }) {
  const sender = [...macBytes(fromMac), ...ipv4(from)];
  const body = [0, 1, 8, 0, 6, 4, 0, 1, ...sender, ...new Array(6).fill(0), ...ipv4(to)];
  const head = [...macBytes(toMac), ...macBytes(fromMac), 8, 6];
  return Buffer.from([...head, ...body, ...new Array(18).fill(0)]).toString("hex");
}

const macOf = (place, device) => place.link(device).address;

/**
 * What goes in at one end and is counted at the other, by place and way.
 *
 * @returns {host: {way: lane}, guest: {way: lane}}; a lane is {at, wayOut, far, device, frame, back, arp}; back: a frame the other way
 */
export function lanes(lab) {
  const [near, far] = lab.hosts;
  const lane = (from, to, device, [source, target], entry) => {
    const [fromMac, toMac] = [macOf(from, device), macOf(to, device)];
    const there = { fromMac, toMac, from: source, to: target };
    const back = { fromMac: toMac, toMac: fromMac, from: target, to: source };
    const frames = { frame: udpFrame(there), back: udpFrame(back), arp: arpFrame(there) };
    return { ...entry, far: to.netns, device, ...frames };
  };
  const net = (prefix) => [`${prefix}.1`, `${prefix}.2`];
  // what was not made is not there
  const present = (place, all) =>
    Object.fromEntries(
      Object.entries(all)
        .filter(([way]) => lab.targets[place][way] !== undefined)
        .map(([way, [make, ...where]]) => [way, make(...where)]),
    );
  const host = (device, prefix) =>
    lane(near, far, device, net(prefix), { at: "feed", wayOut: device });
  const guest = (device, prefix) =>
    lane(lab.guests[0], lab.guests[1], device, net(prefix), { at: `g-${device}`, wayOut: "-" });
  return {
    host: present("host", {
      bare: [host, lab.otherUnderlay, "192.0.2"],
      vxlan: [host, "vx4", "192.168.5"],
      vnetd: [host, "vnif0004", "192.168.4"],
    }),
    guest: present("guest", {
      vxlan: [guest, "vxlan0", "192.168.98"],
      vnetd: [guest, "vnet0", "192.168.97"],
      port: [guest, "port0", "192.168.99"],
    }),
  };
}

/** {millions, nsPerFrame}: of frames a second that arrived, all on one core, and of that core's time for each. */
export function forwarded(lab, { at, wayOut, far, device, frame }, seconds) {
  const what = [at, wayOut, far, device, frame, String(seconds)];
  const text = lab.hosts[0].run([forward, "frames", object, ...what], forwardCore);
  const { perSecond, arrived, busyNs } = JSON.parse(text);
  return { millions: perSecond / 1e6, nsPerFrame: busyNs / arrived };
}
