// SPDX-License-Identifier: Apache-2.0
/**
 * How SAs of ours are numbered and addressed (enum vnetd_esp), and what the kernel calls the
 * suites' algorithms. Pure.
 */
import { VnetdError } from "../base/errors.js";
import { vnetdEsp } from "../generated/layouts.js";
import type { EspKeys, Suite } from "../keys/esp-keys.js";
import type { XfrmState } from "../native/contract.js";

const { ESP_ID, ESP_ID_MASK, ESP_LOCAL4, ESP_REMOTE4, ESP_PREFIX6 } = vnetdEsp;

/** for lists of what is ours */
export const ourIfIds = { value: ESP_ID, mask: ESP_ID_MASK } as const;
const largestNumber = ~ESP_ID_MASK;
/** a device's number that none has */
export const noDevice = largestNumber;

/** The id of the xfrm interface beside an underlay device. */
export function ifIdOf(device: number): number {
  if (device >= largestNumber)
    throw new VnetdError("DEVICE_UNSUITABLE", `no id for the device of ifindex ${String(device)}`);
  return ESP_ID + device;
}

/** The underlay device; undefined for what is not ours. */
export function deviceOfIfId(ifId: number | undefined): number | undefined {
  if (ifId === undefined || (ifId & ESP_ID_MASK) >>> 0 !== ESP_ID) return undefined;
  return ifId & largestNumber;
}

export function isIpv6(address: string): boolean {
  return address.includes(":");
}

/** Between which addresses packets for a next hop are given to the interface. */
export function synthetic(path: { own: string; device: number; nexthop: number }): {
  source: string;
  destination: string;
} {
  const { own, device, nexthop } = path;
  if (isIpv6(own)) return { source: address6(device, 0), destination: address6(device, nexthop) };
  return { source: address4(ESP_LOCAL4), destination: address4(ESP_REMOTE4 + nexthop) };
}

/** All addresses of a device's next hops over IPv6. */
export function prefix6Of(device: number): { address: string; prefixLength: number } {
  return { address: address6(device, 0), prefixLength: 96 };
}

function address4(word: number): string {
  return [24, 16, 8, 0].map((shift) => (word >>> shift) & 0xff).join(".");
}

/** of the words ESP_PREFIX6, 0, device, number */
function address6(device: number, number: number): string {
  const halves = [ESP_PREFIX6, 0, device, number].flatMap((word) => [word >>> 16, word & 0xffff]);
  return halves.map((half) => half.toString(16)).join(":");
}

/** By the kernel's names; the keys are not copied but for the AEAD's, which the addon wipes. */
export function algorithmsOf(
  { level, name, authBytes }: Suite,
  { cipher, salt, auth }: EspKeys,
): Pick<XfrmState, "aead" | "encryption" | "authentication"> {
  if (authBytes === 0) {
    const aead = level === "conf" ? "rfc4106(gcm(aes))" : "rfc4543(gcm(aes))";
    return { aead: { name: aead, key: Buffer.concat([cipher, salt]), icvBits: 128 } };
  }
  if (name !== "sha1") throw new Error(`the kernel's name of ${name} is not known`);
  return {
    encryption: { name: level === "conf" ? "cbc(aes)" : "ecb(cipher_null)", key: cipher },
    authentication: { name: "hmac(sha1)", key: auth, icvBits: 96 },
  };
}
