// SPDX-License-Identifier: Apache-2.0
/**
 * The configured peers and the addresses behind them: an address is itself, a name is whatever the
 * resolver last said. Pure; src/controller/peers.ts asks the resolver and writes the maps.
 *
 * A failing resolver keeps the last answer. An address that two peers stand for is one, with the
 * port of the first. Addresses get small numbers, under which the data plane knows them, and keep
 * them for as long as they are there.
 */
import { addressBytesFromText, addressToText } from "../base/address.js";
import { isHostAddress, isName, type PeerConfig } from "../base/peer.js";

export interface PeerAddress {
  address: string;
  port: number | null;
  /** from 1 on */
  number: number;
}

interface NameState {
  nextMs: number;
  asking: boolean;
  problem: string;
}

export class PeerTable {
  private readonly peers = new Map<string, PeerConfig>();
  private readonly names = new Map<string, NameState>();
  private readonly numbers = new Map<string, number>();
  /** addresses that do not fit */
  leftOut = 0;

  /** @param maxAddresses numbers go from 1 to this */
  constructor(
    private resolveMs: number,
    private readonly maxAddresses: number,
  ) {}

  /** Another interval: names are asked for no later than after it. */
  setResolveMs(resolveMs: number, nowMs: number): void {
    this.resolveMs = resolveMs;
    for (const state of this.names.values())
      state.nextMs = Math.min(state.nextMs, nowMs + resolveMs);
  }

  list(): PeerConfig[] {
    return [...this.peers.values()];
  }

  has(peer: string): boolean {
    return this.peers.has(peer);
  }

  add(config: PeerConfig): void {
    this.peers.set(config.peer, { ...config, addresses: [...config.addresses] });
    if (isName(config.peer)) {
      this.names.set(config.peer, { nextMs: 0, asking: false, problem: "" });
    }
  }

  delete(peer: string): boolean {
    this.names.delete(peer);
    return this.peers.delete(peer);
  }

  problemOf(peer: string): string {
    return this.names.get(peer)?.problem ?? "";
  }

  addressesOf({ peer, addresses }: PeerConfig): string[] {
    return isName(peer) ? addresses : [peer];
  }

  // ---- names

  /** Names that are to be asked for now; each is marked as being asked. */
  due(nowMs: number): string[] {
    const due = [...this.names].filter(([, state]) => !state.asking && nowMs >= state.nextMs);
    for (const [, state] of due) state.asking = true;
    return due.map(([name]) => name);
  }

  /** The resolver's answer, an empty one included. Returns whether the addresses changed. */
  resolved(name: string, answer: readonly string[], nowMs: number): boolean {
    const peer = this.peers.get(name);
    const state = this.names.get(name);
    if (peer === undefined || state === undefined) return false;
    const addresses = [...new Set(answer.flatMap(canonicalHost))].sort();
    Object.assign(state, { asking: false, nextMs: nowMs + this.resolveMs, problem: "" });
    if (addresses.length === 0) {
      state.problem = "the name has no address";
      return false;
    }
    const changed = addresses.join() !== peer.addresses.join();
    peer.addresses = addresses;
    return changed;
  }

  /** No answer: the last one holds. */
  unresolved(name: string, problem: string, nowMs: number): void {
    const state = this.names.get(name);
    if (state === undefined) return;
    Object.assign(state, { asking: false, nextMs: nowMs + this.resolveMs, problem });
  }

  // ---- addresses

  /** All addresses but `own`, numbered; those that do not fit are left out. */
  addresses(own: ReadonlySet<string>): PeerAddress[] {
    const wanted = new Map<string, number | null>();
    for (const peer of this.peers.values()) {
      for (const address of this.addressesOf(peer)) {
        if (!own.has(address) && !wanted.has(address)) wanted.set(address, peer.port);
      }
    }
    for (const address of [...this.numbers.keys()]) {
      if (!wanted.has(address)) this.numbers.delete(address);
    }
    this.leftOut = Math.max(0, wanted.size - this.maxAddresses);
    return [...wanted].flatMap(([address, port]) => {
      const number = this.numbers.get(address) ?? this.freeNumber();
      if (number === undefined) return [];
      this.numbers.set(address, number);
      return [{ address, port, number }];
    });
  }

  private freeNumber(): number | undefined {
    const used = new Set(this.numbers.values());
    for (let number = 1; number <= this.maxAddresses; number++) {
      if (!used.has(number)) return number;
    }
    return undefined;
  }
}

function canonicalHost(text: string): string[] {
  const bytes = addressBytesFromText(text);
  return bytes === undefined || !isHostAddress(bytes) ? [] : [addressToText(bytes)];
}
