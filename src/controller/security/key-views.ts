// SPDX-License-Identifier: Apache-2.0
/** What people are shown of a secure vnet's keys: ids and times, never what is in one. */
import type { KeyedHostInfo, SecureVnetInfo } from "../../api/contract.js";
import { notMoved } from "../../keys/rotation.js";
import type { KeyedPath, SecureVnet } from "./secure-vnet.js";

const seconds = (ms: number): number => Math.round(ms / 1000);

/** `deviceOf`: name of an underlay device by its ifindex. */
export function secureVnetInfo(
  secure: SecureVnet,
  deviceOf: (ifindex: number) => string,
  nowMs: number,
): SecureVnetInfo {
  const [current, previous] = secure.keys;
  const keyId = current?.id ?? "";
  const { level, name } = secure.suite;
  const hosts = secure
    .paths()
    .map((path) => hostInfo(secure, path, { deviceOf, nowMs }))
    .sort((a, b) => (`${a.name} ${a.address}` < `${b.name} ${b.address}` ? -1 : 1));
  return {
    ...{ vnet: secure.vnet.id, security: level, suite: name, keyId },
    previousKeyId: previous?.id ?? null,
    hosts,
  };
}

function hostInfo(
  secure: SecureVnet,
  each: KeyedPath,
  { deviceOf, nowMs }: { deviceOf: (ifindex: number) => string; nowMs: number },
): KeyedHostInfo {
  const { host, name, keyIds, path } = each;
  const keys = secure.currentKeys(each, nowMs);
  const [current, previous] = secure.keys;
  const waits =
    previous !== undefined &&
    current !== undefined &&
    notMoved(current.id, [{ keyIds, current: keys?.keyId }]).length > 0;
  return {
    ...{ hostId: host, name, address: path.ends.peer, device: deviceOf(path.ends.device) },
    keyId: keys?.keyId ?? null,
    ageSeconds: keys === undefined ? null : seconds(keys.ageMs),
    rekeySeconds: keys === undefined ? null : seconds(keys.rekeyInMs),
    hardSeconds: keys === undefined ? null : seconds(keys.hardInMs),
    waits,
  };
}
