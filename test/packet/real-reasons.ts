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
  "varp_rate",
];
