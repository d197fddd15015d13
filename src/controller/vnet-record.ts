// SPDX-License-Identifier: Apache-2.0
/** What the programs know of a vnet: its record in the map `vnets`, from what it and the daemon are configured with. */
import { macToBytes, type Mac } from "../base/mac.js";
import { groupBytesOf } from "../base/vnet-group.js";
import { suiteOfVnet, type VnetConfig } from "../config/vnet-file.js";
import { securityNumbers, type VnetTable } from "../dataplane/vnet-table.js";
import { vnetdEncap } from "../generated/layouts.js";
import type { Vnetif } from "../host/vnetif.js";
import { espRoom } from "../wire/overhead.js";
import type { Context } from "./context.js";
import { suppressSettings } from "./neighbours.js";
import { probeNonceOf } from "./probe-nonce.js";

/** In a record: the vnetif is in another namespace. No device here has this number. */
export const vnifElsewhere = 0x7fffffff;

/** `vnet` says which encapsulation is in use. */
export function recordOf(
  { config, probeSecret }: Context,
  vnet: VnetConfig,
  { vnif, peer, vmac }: Pick<Vnetif, "vnif" | "peer"> & { vmac: Mac },
): Parameters<VnetTable["write"]>[2] {
  const suite = suiteOfVnet(vnet);
  const isEtherip = vnet.encapsulation === "etherip";
  const { limits, ageingSeconds } = config;
  return {
    security: securityNumbers[vnet.security],
    vnif: vnif?.ifindex ?? vnifElsewhere,
    vnifPeer: peer.ifindex,
    vmac: macToBytes(vmac),
    maxEntries: limits.entriesPerVnet,
    maxEntriesPerHost: limits.entriesPerHost,
    maxHosts: limits.hostsPerVnet,
    ageMs: ageingSeconds * 1000,
    floodPerSecond: limits.floodPerSecond,
    floodBurst: limits.floodBurst,
    probeNonce: probeNonceOf(probeSecret, vnet.id),
    encap: isEtherip ? vnetdEncap.ENCAP_ETHERIP : vnetdEncap.ENCAP_UDP,
    ...(suite === undefined ? {} : { esp: espRoom(suite) }),
    ...(vnet.suppress === true ? { suppress: suppressSettings(config) } : {}),
    ...groupBytesOf(vnet),
  };
}
