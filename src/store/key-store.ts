// SPDX-License-Identifier: Apache-2.0
/**
 * Reads the keys of vnets: by an absolute path, or by a name, which is looked for in the
 * directory of systemd's credentials ($CREDENTIALS_DIRECTORY) and then in STATE_DIR/keys. A file that others could
 * read or change is refused (secret-file.ts).
 */
import { join } from "node:path";
import { VnetdError } from "../base/errors.js";
import {
  defaultKeyName,
  keyPathIn,
  maxKeyFileBytes,
  parseKeyFile,
  type VnetKey,
} from "../base/vnet-key.js";
import { readSecretFile, type SecretKind } from "./secret-file.js";

export interface KeyPlaces {
  stateDir: string;
  /** $CREDENTIALS_DIRECTORY, where systemd has set it */
  credentialsDir?: string | undefined;
}

const keyFile: SecretKind = {
  code: "BAD_KEY",
  word: "key",
  maxBytes: maxKeyFileBytes,
  remake: "make a new one with vnetd key-gen",
};

export class KeyStore {
  constructor(private readonly places: KeyPlaces) {}

  /** Where the key of a vnet is looked for, in this order; null: the host's default key. */
  pathsOf(key: string | null): string[] {
    if (key?.startsWith("/") === true) return [key];
    const name = key ?? defaultKeyName;
    const { credentialsDir, stateDir } = this.places;
    const own = keyPathIn(stateDir, name);
    return credentialsDir === undefined ? [own] : [join(credentialsDir, name), own];
  }

  /** Reads it anew each time, so that a key that was replaced is seen. Throws NO_KEY or BAD_KEY. */
  read(key: string | null): VnetKey {
    const paths = this.pathsOf(key);
    for (const path of paths) {
      const bytes = readSecretFile(path, keyFile);
      if (bytes === undefined) continue;
      try {
        return parseKeyFile(bytes, path);
      } finally {
        bytes.fill(0);
      }
    }
    throw this.missing(key, paths);
  }

  private missing(key: string | null, paths: readonly string[]): VnetdError {
    const wanted = paths.at(-1) ?? "";
    const what = key === null ? "this host has no default key" : "the vnet's key is not there";
    return new VnetdError("NO_KEY", `${what}: no file ${paths.join(", nor ")}`, {
      hint:
        `On the first host of the vnet: vnetd key-gen ${wanted}` +
        `; on all others: copy that file to the same place, mode 0600.`,
      place: { source: wanted },
    });
  }
}
