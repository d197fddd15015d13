// SPDX-License-Identifier: Apache-2.0
/**
 * How a host of the original user-space vnet daemon behaves, as the golden captures show it.
 *
 * No I/O in here: messages come in by receive(), go out by the `send` callback, time is a
 * parameter. original-host.mjs puts it on a socket; test/golden/original-model.test.ts replays the
 * captures against it and compares its answers with those of the real original byte for byte.
 *
 * Strict: what an original drops is dropped and recorded in `rejections`, so that a test can assert
 * that nothing of ours was ever refused. What is well formed but not for this host (another vnet, a
 * vif that lives elsewhere) is counted in `ignored`. Frames that reach a guest with a wrong inner
 * checksum are recorded as rejections too.
 *
 * With peers it forwards as the routed captures show: what it sends to the group, with a valid inner
 * header and source 0; what it hears on the group, with an inner header that is mostly 0. It does not
 * ask who sent that: what other forwarders have brought to its subnet, and its own packets that come
 * back, are forwarded once more, only not to the peer that they are from. VFWD from a peer it handles
 * as if it had come by the group, and sends the packet inside to its own group as it is, with the
 * original source, once for each time that it comes; without a valid header it cannot. VFWD from who
 * is no peer is refused.
 *
 * Plain JavaScript because it runs in a child process inside a network namespace, where nothing
 * transpiles.
 *
 * @typedef {{vnet: string, mac: string, ip: string, mtuBytes?: number}} Guest  vnet id in any form; MTU 1500
 * @typedef {{reason: string, source: string, hex: string}} Rejection
 * @typedef {{vnet: string, mac: string, address: string, heardMs: number}} TableEntry
 */

const PORT = 1798;
/** an original reads into a buffer of this size; more cannot be received whole */
const MAX_PAYLOAD = 1662;
const MAX_REJECTIONS = 200;
const MAX_PENDING_FRAGMENTS = 64;
const MAX_ARP_TARGETS = 1000;

/** @param {string} text */
export function vnetKey(text) {
  const fields = text.split(":");
  const all = fields.length === 1 ? [..."0000000"].concat(fields) : fields;
  return all.map((f) => f.toLowerCase().padStart(4, "0")).join(":");
}

/** @param {Uint8Array} bytes */
const vnetText = (bytes) => Buffer.from(bytes).toString("hex").match(/.{4}/g).join(":");
/** @param {string} key */
const vnetBytes = (key) => Buffer.from(key.replaceAll(":", ""), "hex");
/** @param {Uint8Array} bytes */
const macText = (bytes) => Buffer.from(bytes).toString("hex").match(/../g).join(":");
/** @param {string} text */
const macBytes = (text) => Buffer.from(text.replaceAll(":", ""), "hex");
/** @param {Uint8Array} bytes */
const ipText = (bytes) => [...bytes.subarray(0, 4)].join(".");
/** @param {string} text */
const ipBytes = (text) => Buffer.from(text.split(".").map(Number));

/** RFC 1071 @param {...Uint8Array} parts */
function checksum(...parts) {
  const all = Buffer.concat(parts);
  let sum = 0;
  for (let i = 0; i < all.length; i++) sum += i % 2 === 0 ? all[i] << 8 : all[i];
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

export class OriginalModel {
  /**
   * @param {object} options
   * @param {string} options.address  underlay address
   * @param {string} [options.group]
   * @param {string[]} [options.vnets]  besides 2, 3, 4 and those of the guests
   * @param {Guest[]} [options.guests]
   * @param {number} [options.ageMs]
   * @param {string[]} [options.peers]  addresses
   * @param {(to: string, payload: Buffer) => void} options.send  "to" is an address; port 1798
   * @param {(to: string, packet: Buffer) => void} [options.sendAs]  an IPv4 packet whose header
   *   lacks the checksum, and the id where it is 0
   */
  constructor({
    address,
    group = "224.10.0.1",
    vnets = [],
    guests = [],
    ageMs = 60_000,
    peers = [],
    send,
    sendAs = () => undefined,
  }) {
    this.peers = new Set(peers);
    this.sendAs = sendAs;
    /** frames that came in, by way: "group", "unicast", "vfwd" */
    this.arrivals = { group: 0, unicast: 0, vfwd: 0 };
    /** ARP requests for this address that came: how often, by way. @type {Record<string, {group: number, unicast: number, vfwd: number}>} */
    this.arpArrivals = {};
    this.address = address;
    this.group = group;
    this.ageMs = ageMs;
    this.send = send;
    this.vnets = new Set(["2", "3", "4", ...vnets].map(vnetKey));
    /** @type {Map<string, TableEntry>} */
    this.table = new Map();
    /** @type {VirtualGuest[]} */
    this.guests = [];
    this.received = 0;
    this.delivered = 0;
    /** @type {Record<string, number>} */
    this.rejectedCounts = {};
    /** @type {Record<string, number>} */
    this.ignored = {};
    /** @type {Rejection[]} */
    this.rejections = [];
    for (const guest of guests) this.addGuest(guest);
  }

  /** @param {Guest} guest */
  addGuest(guest) {
    const added = new VirtualGuest(this, { ...guest, vnet: vnetKey(guest.vnet) });
    this.vnets.add(added.vnet);
    this.guests.push(added);
    return added;
  }

  /** @param {string} mac */
  removeGuest(mac) {
    this.guests = this.guests.filter((g) => g.mac !== mac);
  }

  /** @param {string} reason @param {string} source @param {Uint8Array} bytes */
  reject(reason, source, bytes) {
    this.rejectedCounts[reason] = (this.rejectedCounts[reason] ?? 0) + 1;
    if (this.rejections.length < MAX_REJECTIONS) {
      this.rejections.push({ reason, source, hex: Buffer.from(bytes).toString("hex") });
    }
  }

  /** @param {string} reason */
  ignore(reason) {
    this.ignored[reason] = (this.ignored[reason] ?? 0) + 1;
  }

  /**
   * A datagram to port 1798. The source port is handed on to peers and plays no other part.
   * @param {Buffer} payload @param {string} source outer source address @param {number} nowMs
   */
  receive(payload, source, nowMs, toGroup = false, sourcePort = PORT) {
    // multicast comes back to its sender
    if (source === this.address) return this.ignore("own");
    this.received += 1;
    if (payload.length > MAX_PAYLOAD) return this.reject("too-big", source, payload);
    if (payload.length < 4) return this.reject("short-message", source, payload);
    const id = payload.readUInt16BE(0);
    if (toGroup && (id === 1 || id === 2)) this.forward(payload, { source, sourcePort });
    if (id === 2) this.count(toGroup ? "group" : "unicast", payload);
    if (id === 3) return this.receiveVfwd(payload, source, nowMs);
    return this.receiveMessage(payload, source, nowMs);
  }

  /** @param {"group" | "unicast" | "vfwd"} way @param {Buffer} message */
  count(way, message) {
    this.arrivals[way] += 1;
    const frame = message.subarray(22);
    if (frame.length < 42 || frame.readUInt16BE(12) !== 0x0806 || frame.readUInt16BE(20) !== 1)
      return;
    const target = ipText(frame.subarray(38, 42));
    if (!this.arpArrivals[target] && Object.keys(this.arpArrivals).length >= MAX_ARP_TARGETS)
      this.arpArrivals = {};
    this.arpArrivals[target] ??= { group: 0, unicast: 0, vfwd: 0 };
    this.arpArrivals[target][way] += 1;
  }

  /** @param {Buffer} payload @param {string} source @param {number} nowMs */
  receiveMessage(payload, source, nowMs) {
    switch (payload.readUInt16BE(0)) {
      case 1:
        return this.receiveVarp(payload, source, nowMs);
      case 2:
        return this.receiveVudp(payload, source, nowMs);
      default:
        return this.reject("unknown-message", source, payload);
    }
  }

  /**
   * To each peer. Of what was heard the inner header holds protocol, addresses and ports alone.
   * @param {Buffer} message
   * @param {{source: string, sourcePort: number}} [sender] who sent it; left out: this host
   */
  forward(message, sender) {
    const header = Buffer.alloc(32);
    header.writeUInt16BE(3, 0);
    header[13] = 17;
    ipBytes(this.group).copy(header, 20);
    header.writeUInt16BE(PORT, 24);
    header.writeUInt16BE(PORT, 26);
    if (sender === undefined) {
      header[4] = 0x45;
      header.writeUInt16BE(28 + message.length, 6);
      header[12] = 64;
      header.writeUInt16BE(8 + message.length, 28);
    } else {
      ipBytes(sender.source).copy(header, 16);
      header.writeUInt16BE(sender.sourcePort, 24);
    }
    for (const peer of this.peers) {
      if (peer !== sender?.source) this.send(peer, Buffer.concat([header, message]));
    }
  }

  /** @param {Buffer} payload @param {string} sender @param {number} nowMs */
  receiveVfwd(payload, sender, nowMs) {
    const reject = (/** @type {string} */ reason) => this.reject(reason, sender, payload);
    if (!this.peers.has(sender)) return reject("vfwd-not-a-peer");
    if (payload.length < 36) return reject("vfwd-short");
    const inner = payload.subarray(32);
    // what would crash an original, or make it send what it must not
    if (inner.readUInt16BE(0) === 3) return reject("vfwd-in-vfwd");
    if (payload[13] !== 17) return reject("vfwd-protocol");
    if (ipText(payload.subarray(20, 24)) !== this.group) return reject("vfwd-not-the-group");
    // it can send on nothing but what has a valid header
    if (payload[4] !== 0 && payload[4] !== 0x45) return reject("vfwd-header");
    if (payload[4] === 0x45 && payload.readUInt16BE(6) !== 28 + inner.length)
      return reject("vfwd-length");
    if (inner.readUInt16BE(0) === 2) this.count("vfwd", inner);
    const named = ipText(payload.subarray(16, 20));
    const source = named === "0.0.0.0" ? sender : named;
    this.receiveMessage(inner, source, nowMs);
    if (payload[4] !== 0x45) return;
    const packet = Buffer.from(payload.subarray(4));
    ipBytes(source).copy(packet, 12);
    this.sendAs(this.group, packet);
  }

  /** @param {Buffer} payload @param {string} source @param {number} nowMs */
  receiveVudp(payload, source, nowMs) {
    if (payload.length < 22) return this.reject("vudp-short", source, payload);
    // only the high nibble of the second version byte is looked at
    if ((payload[5] & 0xf0) !== 0x40) return this.reject("vudp-version", source, payload);
    const vnet = vnetText(payload.subarray(6, 22));
    if (!this.vnets.has(vnet)) return this.ignore("unknown-vnet");
    const frame = payload.subarray(22);
    if (frame.length < 14) return this.reject("frame-short", source, payload);
    // group source addresses are not learned, the frame is delivered all the same
    if ((frame[6] & 1) === 0) this.learn(vnet, macText(frame.subarray(6, 12)), source, nowMs);
    this.delivered += 1;
    for (const guest of this.guestsFor(vnet, frame)) guest.receive(frame, source, nowMs);
  }

  /** @param {Buffer} payload @param {string} source @param {number} nowMs */
  receiveVarp(payload, source, nowMs) {
    // bytes behind the 43 are nobody's business here
    if (payload.length < 43) return this.reject("varp-short", source, payload);
    const opcode = payload.readUInt16BE(2);
    const vnet = vnetText(payload.subarray(4, 20));
    const mac = macText(payload.subarray(20, 26));
    if (opcode === 1) {
      // family and address of a request are not read
      const isHere = this.guests.some((g) => g.vnet === vnet && g.mac === mac);
      return isHere ? this.send(source, this.announce(vnet, mac)) : this.ignore("request-not-here");
    }
    if (opcode !== 2) return this.reject("varp-opcode", source, payload);
    if (payload[26] !== 2) return this.reject("varp-family", source, payload);
    if (!this.vnets.has(vnet)) return this.ignore("unknown-vnet");
    this.learn(vnet, mac, ipText(payload.subarray(27, 31)), nowMs);
  }

  /** @param {string} vnet @param {string} mac */
  announce(vnet, mac) {
    const message = Buffer.alloc(43);
    message.writeUInt16BE(1, 0);
    message.writeUInt16BE(2, 2);
    vnetBytes(vnet).copy(message, 4);
    macBytes(mac).copy(message, 20);
    message[26] = 2;
    ipBytes(this.address).copy(message, 27);
    return message;
  }

  /** @param {string} vnet @param {string} mac @param {string} address @param {number} nowMs */
  learn(vnet, mac, address, nowMs) {
    this.table.set(`${vnet} ${mac}`, { vnet, mac, address, heardMs: nowMs });
  }

  /** The periodic sweep: entries not heard for ageMs go. Sending does not refresh. @param {number} nowMs */
  sweep(nowMs) {
    for (const [key, entry] of this.table) {
      if (nowMs - entry.heardMs >= this.ageMs) this.table.delete(key);
    }
  }

  /** @param {string} vnet @param {Buffer} frame */
  guestsFor(vnet, frame) {
    const isGroup = (frame[0] & 1) === 1;
    const dst = macText(frame.subarray(0, 6));
    return this.guests.filter((g) => g.vnet === vnet && (isGroup || g.mac === dst));
  }

  /**
   * A frame from a guest of this host: to local guests, and out by unicast or to the group.
   * @param {string} vnet @param {Buffer} frame @param {number} nowMs
   */
  transmit(vnet, frame, nowMs) {
    const src = macText(frame.subarray(6, 12));
    for (const guest of this.guestsFor(vnet, frame)) {
      if (guest.mac !== src) guest.receive(frame, this.address, nowMs);
    }
    const isGroup = (frame[0] & 1) === 1;
    const entry = isGroup ? undefined : this.table.get(`${vnet} ${macText(frame.subarray(0, 6))}`);
    const header = Buffer.from([0, 2, 0, 0, 0x00, 0x40]);
    const message = Buffer.concat([header, vnetBytes(vnet), frame]);
    // the capture's order: the peers first
    if (entry === undefined) this.forward(message);
    this.send(entry?.address ?? this.group, message);
  }
}

/** A guest on a vnet of an original host: answers ARP and ICMP echo, and can ping. */
class VirtualGuest {
  /** @param {OriginalModel} host @param {Guest} guest */
  constructor(host, { vnet, mac, ip, mtuBytes = 1500 }) {
    this.host = host;
    this.vnet = vnet;
    this.mac = mac.toLowerCase();
    this.ip = ip;
    this.mtuBytes = mtuBytes;
    /** @type {Map<string, string>} ip -> MAC */
    this.neighbours = new Map();
    /** @type {Map<string, (nowMs: number) => void>} "id sequence" -> who waits for that reply */
    this.waiting = new Map();
    /** @type {Map<string, Map<number, {more: boolean, body: Buffer}>>} */
    this.fragments = new Map();
    this.ipId = 1;
  }

  /** @param {Buffer} frame @param {string} source @param {number} nowMs */
  receive(frame, source, nowMs) {
    const type = frame.readUInt16BE(12);
    if (type === 0x0806) this.receiveArp(frame, source, nowMs);
    else if (type === 0x0800) this.receiveIpv4(frame, source, nowMs);
  }

  /** @param {Buffer} frame @param {string} source @param {number} nowMs */
  receiveArp(frame, source, nowMs) {
    if (frame.length < 42) return this.host.reject("inner-arp-short", source, frame);
    const arp = frame.subarray(14, 42);
    const operation = arp.readUInt16BE(6);
    const senderMac = macText(arp.subarray(8, 14));
    const senderIp = ipText(arp.subarray(14, 18));
    const isForMe = ipText(arp.subarray(24, 28)) === this.ip;
    if (isForMe || this.neighbours.has(senderIp)) this.neighbours.set(senderIp, senderMac);
    if (operation === 1 && isForMe) this.sendArp(2, senderMac, senderIp, nowMs);
  }

  /** @param {number} operation @param {string} targetMac @param {string} targetIp @param {number} nowMs */
  sendArp(operation, targetMac, targetIp, nowMs) {
    const unknown = operation === 1;
    const arp = Buffer.concat([
      Buffer.from([0, 1, 8, 0, 6, 4, 0, operation]),
      macBytes(this.mac),
      ipBytes(this.ip),
      unknown ? Buffer.alloc(6) : macBytes(targetMac),
      ipBytes(targetIp),
    ]);
    this.transmit(unknown ? "ff:ff:ff:ff:ff:ff" : targetMac, 0x0806, arp, nowMs);
  }

  /** @param {Buffer} frame @param {string} source @param {number} nowMs */
  receiveIpv4(frame, source, nowMs) {
    const packet = frame.subarray(14);
    const reject = (/** @type {string} */ reason) => this.host.reject(reason, source, frame);
    const headerLength = ((packet[0] ?? 0) & 0x0f) * 4;
    const totalLength = packet.length < 20 ? 0 : packet.readUInt16BE(2);
    if (totalLength < headerLength || headerLength < 20 || packet.length < totalLength) {
      return reject("inner-ip-length");
    }
    if (checksum(packet.subarray(0, headerLength)) !== 0) return reject("inner-ip-checksum");
    if (ipText(packet.subarray(16, 20)) !== this.ip) return;
    const whole = this.reassemble(
      packet.subarray(0, headerLength),
      packet.subarray(headerLength, totalLength),
    );
    if (whole === undefined) return;
    const protocol = packet[9];
    if (!transportChecksumHolds(packet, protocol, whole)) return reject("inner-transport-checksum");
    if (protocol !== 1 || whole.length < 8) return;
    const from = ipText(packet.subarray(12, 16));
    if (whole[0] === 8) {
      const reply = Buffer.from(whole);
      reply[0] = 0;
      this.sendIcmp(macText(frame.subarray(6, 12)), from, reply, nowMs);
    } else if (whole[0] === 0) {
      const key = `${whole.readUInt16BE(4)} ${whole.readUInt16BE(6)}`;
      this.waiting.get(key)?.(nowMs);
      this.waiting.delete(key);
    }
  }

  /** @param {Buffer} header @param {Buffer} body @returns {Buffer | undefined} */
  reassemble(header, body) {
    const flags = header.readUInt16BE(6);
    if ((flags & 0x3fff) === 0) return body;
    const key = header.subarray(12, 20).toString("hex") + header.subarray(4, 6).toString("hex");
    if (this.fragments.size >= MAX_PENDING_FRAGMENTS) this.fragments.clear();
    const parts = this.fragments.get(key) ?? new Map();
    this.fragments.set(key, parts);
    parts.set((flags & 0x1fff) * 8, { more: (flags & 0x2000) !== 0, body });
    const ordered = [];
    let at = 0;
    for (let part = parts.get(0); part !== undefined; part = parts.get(at)) {
      ordered.push(part.body);
      at += part.body.length;
      if (!part.more) {
        this.fragments.delete(key);
        return Buffer.concat(ordered);
      }
      if (part.body.length === 0) return undefined;
    }
    return undefined;
  }

  /**
   * @param {string} dstMac @param {string} dstIp @param {Buffer} icmp its checksum is filled in
   * @param {number} nowMs
   */
  sendIcmp(dstMac, dstIp, icmp, nowMs) {
    icmp.writeUInt16BE(0, 2);
    icmp.writeUInt16BE(checksum(icmp), 2);
    const id = this.ipId++ & 0xffff;
    const step = (this.mtuBytes - 20) & ~7;
    for (let at = 0; at < icmp.length; at += step) {
      const part = icmp.subarray(at, at + step);
      const header = Buffer.alloc(20);
      header[0] = 0x45;
      header.writeUInt16BE(20 + part.length, 2);
      header.writeUInt16BE(id, 4);
      header.writeUInt16BE((at + part.length < icmp.length ? 0x2000 : 0) | (at / 8), 6);
      header[8] = 64;
      header[9] = 1;
      ipBytes(this.ip).copy(header, 12);
      ipBytes(dstIp).copy(header, 16);
      header.writeUInt16BE(checksum(header), 10);
      this.transmit(dstMac, 0x0800, Buffer.concat([header, part]), nowMs);
    }
  }

  /** @param {{to: string, id: number, sequence: number, sizeBytes: number, nowMs: number}} echo needs the neighbour's MAC */
  sendEcho({ to, id, sequence, sizeBytes, nowMs }) {
    const icmp = Buffer.alloc(8 + sizeBytes, 0x5a);
    icmp[0] = 8;
    icmp[1] = 0;
    icmp.writeUInt16BE(id, 4);
    icmp.writeUInt16BE(sequence, 6);
    this.sendIcmp(this.neighbours.get(to), to, icmp, nowMs);
  }

  /** @param {string} dst @param {number} type @param {Buffer} body @param {number} nowMs */
  transmit(dst, type, body, nowMs) {
    const etherType = Buffer.from([type >> 8, type & 0xff]);
    const frame = Buffer.concat([macBytes(dst), macBytes(this.mac), etherType, body]);
    this.host.transmit(this.vnet, frame, nowMs);
  }
}

/** @param {Buffer} packet @param {number} protocol @param {Buffer} segment */
function transportChecksumHolds(packet, protocol, segment) {
  if (protocol === 1) return checksum(segment) === 0;
  if (protocol !== 6 && protocol !== 17) return true;
  if (protocol === 17 && segment.length >= 8 && segment.readUInt16BE(6) === 0) return true;
  const pseudo = Buffer.from([0, protocol, segment.length >> 8, segment.length & 0xff]);
  return checksum(packet.subarray(12, 20), pseudo, segment) === 0;
}

export { PORT as ORIGINAL_PORT };
