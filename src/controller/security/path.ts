// SPDX-License-Identifier: Apache-2.0
/**
 * One path of a secure vnet: a host, by one of its addresses and one device of ours. Holds the SAs and the
 * policy of the kernel together with what the programs know of them (maps `spis`, next hops).
 *
 * The order makes a crash at any instant harmless: what is received with is entered before the kernel can decrypt
 * with it, and what is sent with is the next hop's only when kernel and policy have it. What a crash leaves is
 * adopted or removed by the next start (src/controller/security/leftovers.ts).
 */
import { parseAddress } from "../../base/address.js";
import { VnetdError } from "../../base/errors.js";
import type { EspHost, EspPath } from "../../host/esp.js";
import type { EspKeys, Suite } from "../../keys/esp-keys.js";
import { vnetdSecurity } from "../../generated/layouts.js";
import type { Context } from "../context.js";
import type { VnetSlot } from "../../dataplane/vnet-table.js";

export interface PathEnds {
  /** addresses, canonical texts */
  own: string;
  peer: string;
  /** ifindex of our underlay device */
  device: number;
}

/** What is sent by, as the next hop says. */
export interface PathRecord {
  nexthop: number;
  gen: number;
}

export class SecurePath {
  private record: PathRecord;
  private out: number;
  private readonly inward: Set<number>;

  /**
   * SAs that a daemon before this one made go on until there are new ones. Throws where there is no room for
   * another host.
   */
  constructor(
    private readonly parts: { context: Context; esp: EspHost },
    private readonly vnet: VnetSlot,
    private readonly suite: Suite,
    readonly ends: PathEnds,
    old: { spiOut: number; spisIn: readonly number[] } = { spiOut: 0, spisIn: [] },
  ) {
    this.out = old.spiOut;
    this.inward = new Set(old.spisIn);
    // as long as there are no new keys, what is sent by stays
    this.record = this.writeRecord(this.sentBy());
  }

  /** 0: there are no keys to send with. */
  get spiOut(): number {
    return this.out;
  }

  get spisIn(): ReadonlySet<number> {
    return this.inward;
  }

  get nexthop(): PathRecord {
    return this.record;
  }

  /** `keyId`: of the vnet's secret, by which a later daemon knows whether the SA is still wanted. */
  receiveWith(spi: number, keys: EspKeys, hardSeconds: number, keyId: string): void {
    // a next hop without keys that was silent for long is another's by now
    this.record = this.writeRecord(this.out === 0 ? this.sentBy() : this.out);
    const { device, peer } = this.ends;
    const { slot, handle } = this.vnet;
    this.parts.context.maps.setSpi(spi, {
      source: parseAddress(peer),
      ifindex: device,
      ...{ slot, handle },
      ...this.record,
      security: securityOf(this.suite),
      suite: this.suite.id,
      keyId: Buffer.from(keyId, "hex"),
    });
    this.inward.add(spi);
    this.parts.esp.addIn(this.path(), spi, this.suite, keys, hardSeconds);
  }

  sendWith(spi: number, keys: EspKeys, hardSeconds: number): void {
    this.parts.esp.addOut(this.path(), spi, this.suite, keys, hardSeconds);
    this.out = spi;
    this.record = this.writeRecord();
  }

  stopReceiving(spi: number): void {
    this.parts.esp.removeIn(this.path(), spi);
    this.parts.context.maps.deleteSpi(spi);
    this.inward.delete(spi);
  }

  stopSending(spi: number): void {
    const isCurrent = spi === this.out;
    const path = this.path();
    try {
      if (isCurrent) {
        this.out = 0;
        this.record = this.writeRecord();
      }
    } finally {
      this.parts.esp.removeOut(path, spi, isCurrent);
    }
  }

  /** Another's keys are the next hop's now: only the SA is removed, not what says that it is sent by. */
  handOver(): void {
    const spi = this.out;
    this.out = 0;
    if (spi !== 0) this.parts.esp.removeOut(this.path(), spi, false);
  }

  path(): EspPath {
    return { ...this.ends, nexthop: this.record.nexthop };
  }

  private sentBy(): number {
    const { handle } = this.vnet;
    const { device: ifindex, peer } = this.ends;
    return (
      this.parts.context.maps.nexthopOf({ handle, ifindex, addr: parseAddress(peer) })?.spi ?? 0
    );
  }

  private writeRecord(spi = this.out): PathRecord {
    const { slot, handle } = this.vnet;
    const { reason, nexthop, gen } = this.parts.context.control.keys({
      ...{ slot, handle },
      ifindex: this.ends.device,
      addr: parseAddress(this.ends.peer),
      spi,
    });
    if (reason === "ok") return { nexthop, gen };
    throw new VnetdError("TABLE_FULL", `${this.ends.peer} is left out: ${reason}`, {
      hint: "See limits in docs/vnet-file.md.",
    });
  }
}

export function securityOf({ level }: Suite): number {
  return level === "conf" ? vnetdSecurity.SECURITY_CONF : vnetdSecurity.SECURITY_AUTH;
}
