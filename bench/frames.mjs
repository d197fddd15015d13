// SPDX-License-Identifier: Apache-2.0
/**
 * Forwarding with no socket at either end, and single programs: what bench/forward.c does, with the frames and
 * devices of the lab.
 */
import { existsSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { run } from "./lab.mjs";

const built = (name) => join(resolve(import.meta.dirname, ".."), "build", "bench", name);
const forward = built("forward");
const object = built("forward.bpf.o");
const udpBytes = 64;
const forwardCore = 0;

const word = (n) => [n >> 8, n & 255];
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
  const mac = (text) => text.split(":").map((byte) => Number.parseInt(byte, 16));
  const head = [0x45, 0, ...word(28 + payload.length), 0, 0, 0, 0, 64, 17];
  const addresses = [...ipv4(from), ...ipv4(to)];
  const ip = [...head, ...word(checksum([...head, 0, 0, ...addresses])), ...addresses];
  const udp = [...word(sourcePort), ...word(port), ...word(8 + payload.length), 0, 0];
  return Buffer.from([...mac(toMac), ...mac(fromMac), 8, 0, ...ip, ...udp, ...payload]).toString(
    "hex",
  );
}

const macOf = (place, device) => place.link(device).address;

/**
 * What goes in at one end and is counted at the other, by place and way.
 *
 * @returns {host: {way: lane}, guest: {way: lane}}; a lane is {at, wayOut, far, device, frame}
 */
export function lanes(lab) {
  const [near, far] = lab.hosts;
  const lane = (from, to, device, [source, target], entry) => ({
    ...entry,
    far: to.netns,
    device,
    frame: udpFrame({
      fromMac: macOf(from, device),
      toMac: macOf(to, device),
      from: source,
      to: target,
    }),
  });
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

/** The id of a vnetd program on a hook, TCX or clsact. */
function programId(host, device, direction) {
  const { ifindex } = host.link(device);
  const layout = readdirSync(host.bpffs).find((name) => name.startsWith("layout-"));
  const pin = join(host.bpffs, layout, `link-${ifindex}-${direction}`);
  if (existsSync(pin))
    return JSON.parse(run(["bpftool", "-j", "link", "show", "pinned", pin])).prog_id;
  const shown = host.run(["tc", "filter", "show", "dev", device, direction]);
  const id = /\bid (\d+)/.exec(shown)?.[1];
  if (id === undefined) throw new Error(`no program on ${device} ${direction}`);
  return Number(id);
}

const vnetId = [...new Array(15).fill(0), 4];

/** A frame of vnet 4 from the second host, as it comes by eth0 of the first. */
function outerFrame([near, far]) {
  const frame = (device, prefix, bytes) => ({
    fromMac: macOf(far, device),
    toMac: macOf(near, device),
    from: `${prefix}.2`,
    to: `${prefix}.1`,
    bytes,
  });
  const inner = udpFrame(frame("vnif0004", "192.168.4"));
  // message VUDP, EtherIP's version, the vnet
  const vudp = Buffer.from([0, 2, 0, 0, 0, 0x40, ...vnetId]).toString("hex");
  const bytes = (vudp.length + inner.length) / 2;
  const outer = udpFrame({ ...frame("eth0", "198.51.100", bytes), port: 1798 });
  return outer.slice(0, -2 * bytes) + vudp + inner;
}

/**
 * One packet's time in each program that a frame from host to host, or from a direct port, may run, and how large the
 * program is.
 *
 * @returns [{name, ns, verdict, instructions, bytes, verified}]
 */
export function programs(lab, count) {
  const [host] = lab.hosts;
  const all = lanes(lab);
  const { frame } = all.host.vnetd;
  const peer = host.link("vnif0004").link;
  const each = [
    ["vnif0004", "egress", frame],
    [peer, "ingress", frame],
    ["eth0", "ingress", outerFrame(lab.hosts)],
  ];
  const { port } = all.guest;
  if (port !== undefined) each.push([port.at, "ingress", port.frame]);
  return each.map(([device, direction, bytes]) => {
    const what = [String(programId(host, device, direction)), device, bytes, String(count)];
    return JSON.parse(host.run([forward, "program", object, ...what], forwardCore));
  });
}
