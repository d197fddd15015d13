// SPDX-License-Identifier: Apache-2.0
/** test/lib/wire.py for TypeScript: real frames, with virtio-net headers, in this namespace. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { timeFactor } from "./processes.js";

const PROGRAM = fileURLToPath(new URL("./wire.py", import.meta.url));
/**
 * Debian's own, and nothing but its standard library: what a PATH finds first can be a wrapper of
 * several shells, which takes seconds on an emulated machine.
 */
export const python = ["/usr/bin/python3", "-I", "-S"] as const;

export const VIRTIO_GSO = { none: 0, tcp4: 1, tcp6: 4, udpL4: 5 } as const;

export interface WireFrame {
  bytes: Uint8Array;
  gsoType?: number;
  gsoSize?: number;
  /** of the headers in front of the payload that is cut */
  headerLength?: number;
  /** where the checksum that is still to be made begins, and where it is put from there */
  checksumStart?: number;
  checksumOffset?: number;
}

export interface Exchange {
  device: string;
  capture: string;
  frames: readonly WireFrame[];
  /** how long nothing must come before it is over */
  quietMs?: number;
}

/** Sends the frames out of a device; returns what the other device received meanwhile. */
export function exchange({ frames, quietMs = 80, ...rest }: Exchange): Buffer[] {
  const request = {
    ...rest,
    quietMs: quietMs * timeFactor,
    frames: frames.map(({ bytes, ...header }) => ({
      ...header,
      hex: Buffer.from(bytes).toString("hex"),
    })),
  };
  const [interpreter, ...flags] = python;
  const answer = execFileSync(interpreter, [...flags, PROGRAM], {
    input: JSON.stringify(request),
    encoding: "utf8",
    maxBuffer: 1 << 28,
    timeout: 30_000 * timeFactor,
  });
  return (JSON.parse(answer) as { captured: string[] }).captured.map((text) =>
    Buffer.from(text, "hex"),
  );
}
