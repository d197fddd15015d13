// SPDX-License-Identifier: Apache-2.0
/**
 * How many hosts on one LAN know one another, and what it takes: a model of hellos (src/varp/hello-schedule.ts,
 * src/controller/hellos.ts), with the lengths that the real encoder makes and the rates of the real code. It is checked beside real
 * daemons by bench/fleet.mjs, and says what to expect of more hosts than one machine can run.
 *
 * Taken into account: each vnet says hello to the group every interval, give or take a fifth, and when it appears, with a
 * question; who hears a new host or a question answers it by unicast, as far as a bucket of `replies` allows; each
 * message gets lost with `loss` at each receiver by itself; a daemon takes `perSecond` messages a second from a ring that holds
 * `ring` of them, and loses the rest. Of MACs: announces one by one and in lists, with the room that the real lists have, and what guests
 * flood to find their neighbours. Not: keys, peers, several LANs.
 */

import { asksAgain, earlyMs } from "../dist/src/varp/hello-schedule.js";
import { MacRoom, vnetsThatFit } from "../dist/src/wire/varp-list.js";

const earlySeconds = earlyMs.map((ms) => ms / 1000);

/** bytes on the wire of a hello: Ethernet, IPv4, UDP, and what the encoder makes */
export const helloFrameBytes = (messageBytes) => 14 + 20 + 8 + messageBytes;

/** how many vnets a hello of so many bytes is said of when it is a list */
export const inList = (messageBytes) => 1 + vnetsThatFit({ length: messageBytes });
/** of a vnet in a list of vnets, a MAC and a vnet in a list of MACs; the header of the list's TLV, and of the extension */
const [vnetBytes, macBytes, groupBytes, tlvBytes, extensionBytes] = [22, 6, 18, 4, 8];

/** Of one host, bytes a second. A probe for loops is a frame of the vnet to the group. */
export function steady(options) {
  const { hosts, vnets, helloSeconds, probeSeconds, helloBytes, probeBytes } = options;
  const { lists = false, inList: most = 1 } = options;
  const messages = lists ? Math.ceil(vnets / most) : vnets;
  const more = lists
    ? (vnets - messages) * vnetBytes + (vnets > messages ? messages * tlvBytes : 0)
    : 0;
  const sent = (messages * helloBytes + more) / helloSeconds + (vnets * probeBytes) / probeSeconds;
  return {
    sentBytes: sent,
    heardBytes: (hosts - 1) * sent,
    heardMessages: (hosts - 1) * (messages / helloSeconds + vnets / probeSeconds),
  };
}

/** So many MACs of one host, which appear at the same time in so many vnets: frames on the wire. The first one goes by itself. */
export function announced({ macs, vnets, lists }) {
  const single = helloFrameBytes(43);
  if (!lists) return { messages: macs, bytes: macs * single };
  let [messages, bytes, room, seen] = [1, single, new MacRoom(), new Set()];
  room.take(-1);
  let isFull = true;
  for (let at = 1; at < macs; at += 1) {
    const vnet = at % vnets;
    if (isFull || !room.take(vnet)) {
      [room, seen, isFull] = [new MacRoom(), new Set(), false];
      room.take(vnet);
      messages += 1;
      bytes += single + extensionBytes + tlvBytes;
      continue;
    }
    bytes += macBytes + (seen.has(vnet) ? 0 : groupBytes);
    seen.add(vnet);
  }
  return { messages, bytes };
}

/**
 * What each host of a LAN hears of guests that look for neighbours: each guest asks by broadcast for one address every
 * `everySeconds` (each new connection, and each that Linux does not find again by unicast), in a frame of 60 bytes behind the
 * outer headers. Suppressed: only for what the guest's host does not know is asked.
 */
export function arpFloods({ macs, suppressed, everySeconds = 60, unknownShare = 0.02 }) {
  const frameBytes = 14 + 20 + 8 + 22 + 60;
  const perSecond = (macs / everySeconds) * (suppressed ? unknownShare : 1);
  return { messages: perSecond, bytes: perSecond * frameBytes };
}

/** A generator of its own, so that a run can be repeated (mulberry32). */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * `newcomers` hosts appear within `withinSeconds` on a LAN where `hosts - newcomers` are already; a vnet. When does each host
 * know each newcomer, and each newcomer each host? Returns seconds from the last appearance until `share` of the pairs know
 * the other (for several shares, 1 is all of them), and what a host hears in the busiest second.
 *
 * Hosts are looked at one by one, `observed` of them: what one hears does not depend on what another has heard, but for the answers,
 * whose bucket is emptied by all that ask.
 */
export function appear(options) {
  const { hosts, newcomers, withinSeconds, helloSeconds, loss = 0, seed = 1 } = options;
  const {
    replies = { perSecond: 500, burst: 1000 },
    perSecond = Infinity,
    ring = Infinity,
  } = options;
  const { shares = [0.99, 1], observed = 50, vnets = 1 } = options;
  const random = generator(seed);
  const old = hosts - newcomers;
  // a newcomer's appearance; the old ones' are in the past
  const start = Float64Array.from({ length: hosts }, (_, i) =>
    i < old ? -1 : random() * withinSeconds,
  );
  const last = newcomers === 0 ? 0 : start.reduce((a, b) => Math.max(a, b), 0);
  const about = (delay) => delay * (0.8 + 0.4 * random());
  /** when a host says hello to the group; of a newcomer the first ones are questions */
  const hellos = (i) => {
    const isNew = start[i] >= 0;
    const times = isNew ? [start[i]] : [random() * helloSeconds];
    for (const delay of isNew ? earlySeconds : []) times.push(times.at(-1) + about(delay));
    while (times.length < 10) times.push(times.at(-1) + about(helloSeconds));
    return times;
  };
  const questions = asksAgain({ hosts, vnets, lists: true }) ? 1 + earlySeconds.length : 1;
  // all questions of newcomers, by time: how many of them a host answers is the same for all hosts that are there
  const asked = [...start.keys()]
    .filter((i) => start[i] >= 0)
    .flatMap((i) => {
      let at = start[i];
      const again = earlySeconds.slice(0, questions - 1).map((delay) => (at += delay));
      return [start[i], ...again].map((time, n) => ({ i, n, time }));
    })
    .sort((a, b) => a.time - b.time);
  const answered = (() => {
    // a host answers each question that it hears: by a bucket, nothing is put off
    let tokens = replies.burst;
    let before = 0;
    const keys = new Set();
    for (const { i, n, time } of asked) {
      tokens = Math.min(replies.burst, tokens + (time - before) * replies.perSecond);
      before = time;
      if (tokens < 1) continue;
      tokens -= 1;
      keys.add(i * questions + n);
    }
    return keys;
  })();

  const delays = [];
  let busiest = 0;
  let lost = 0;
  const watched = Math.min(observed, hosts);
  for (let w = 0; w < watched; w += 1) {
    // newcomers and old ones by turns, however few there are of either
    const ofNew = old === 0 || (w % 2 === 0 && newcomers > 0);
    const among = ofNew ? newcomers : old;
    const i = (ofNew ? old : 0) + Math.floor((w * among) / watched);
    const isNew = start[i] >= 0;
    const heard = [];
    const own = isNew ? hellos(i) : [];
    for (let j = 0; j < hosts; j += 1) {
      if (j === i || (!isNew && start[j] < 0)) continue;
      const hear = (time) => {
        if (time >= start[i] && random() >= loss) heard.push({ time, j });
      };
      for (const time of hellos(j)) hear(time);
      // j answers what i asks, and the first that it hears of i
      let knows = false;
      for (const [at, time] of own.entries()) {
        if (time < start[j] || random() < loss) continue;
        const asks = at < questions;
        if (asks ? answered.has(i * questions + at) : !knows) hear(time);
        knows = true;
      }
    }
    heard.sort((a, b) => a.time - b.time);
    // what the daemon takes: a queue of `ring`, served at `perSecond`
    const known = new Set();
    let queue = 0;
    let clock = 0;
    let second = 0;
    let inSecond = 0;
    for (const { time, j } of heard) {
      queue = Math.max(0, queue - (time - clock) * perSecond);
      clock = time;
      if (Math.floor(time) !== second) {
        second = Math.floor(time);
        inSecond = 0;
      }
      inSecond += 1;
      busiest = Math.max(busiest, inSecond);
      if (queue + 1 > ring) {
        lost += 1;
        continue;
      }
      queue += 1;
      if (known.has(j)) continue;
      known.add(j);
      // and it is known when it has been taken
      delays.push(time + queue / perSecond - last);
    }
  }
  delays.sort((a, b) => a - b);
  const at = (share) =>
    delays.length === 0
      ? 0
      : Math.max(0, delays[Math.min(delays.length, Math.ceil(share * delays.length)) - 1]);
  return { seconds: shares.map(at), busiestPerSecond: busiest, lost: lost / watched };
}
