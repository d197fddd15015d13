// SPDX-License-Identifier: Apache-2.0
/**
 * Reasons that a test run cannot bring about: it takes 14 bytes to one page (real.test.ts does it with real
 * frames), and the daemon is not there (test/netns/daemon-varp.test.ts).
 */
export const REAL_REASONS: readonly string[] = [
  "superframe_too_long",
  "varp_bad_address",
  "varp_bad_tlv",
  "varp_local",
];

/**
 * Reasons that the daemon counts of what the kernel's ESP refuses, and of messages between hosts of secure vnets:
 * only where there is ESP (test/vm/secure-attacks.test.ts).
 */
export const ELSEWHERE: readonly string[] = [
  "esp_replay",
  "esp_integrity",
  "varp_unauthenticated",
  "keys_malformed",
  "keys_not_for_us",
  "keys_unknown_key",
  "keys_bad_mac",
  "keys_other_suite",
  "keys_not_fresh",
  "keys_no_exchange",
  "keys_too_many",
];
