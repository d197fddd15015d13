// SPDX-License-Identifier: Apache-2.0
/**
 * Who may scrape: a token, and TLS, both by files that are read again when they change, so that neither a
 * new token nor a renewed certificate needs a restart. What cannot be read closes the door: nothing is served in
 * clear, or without the token, because a file is not as it should be.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { createSecureContext } from "node:tls";
import { VnetdError } from "../base/errors.js";
import { errnoName } from "../host/errno.js";

export interface AccessFiles {
  /** null: everybody may */
  token: string | null;
  /** null: no TLS */
  certificate: string | null;
  key: string | null;
}

/** Reads a file that others must not read; undefined: it is not there. Throws a VnetdError. */
export type ReadSecret = (path: string, word: "token" | "private key") => Buffer | undefined;

export interface Tls {
  cert: Buffer;
  key: Buffer;
}

const minTokenChars = 16;

export class Access {
  private stamp = "";
  private digest: Buffer | undefined;
  private pair: Tls | undefined;
  private failure = "";

  constructor(
    private readonly files: AccessFiles,
    private readonly readSecret: ReadSecret,
  ) {}

  get isSecret(): boolean {
    return this.files.token !== null;
  }

  get isTls(): boolean {
    return this.files.certificate !== null;
  }

  /** undefined: there is no TLS, or it cannot be read. */
  get tls(): Tls | undefined {
    return this.pair;
  }

  /** Why nothing may be served, or "". */
  get problem(): string {
    return this.failure;
  }

  /** Reads what has changed; true: something did. */
  refresh(): boolean {
    const stamp = this.stampOf();
    if (stamp === this.stamp && this.failure === "") return false;
    this.stamp = stamp;
    try {
      const { digest, pair } = this.read();
      Object.assign(this, { digest, pair, failure: "" });
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      const hint = error instanceof VnetdError && error.hint !== undefined ? ` ${error.hint}` : "";
      Object.assign(this, { digest: undefined, pair: undefined, failure: `${text}.${hint}` });
    }
    return true;
  }

  /** Of a request's header `Authorization`. Takes the same time for every wrong one. */
  allows(header: string | undefined): boolean {
    if (!this.isSecret) return true;
    const given = /^Bearer +(\S+) *$/iu.exec(header ?? "")?.[1];
    if (given === undefined || this.digest === undefined) return false;
    return timingSafeEqual(digestOf(given), this.digest);
  }

  private read(): { digest: Buffer | undefined; pair: Tls | undefined } {
    const { token, certificate, key } = this.files;
    const digest = token === null ? undefined : this.readToken(token);
    if (certificate === null || key === null) return { digest, pair: undefined };
    const pair = { cert: readPublic(certificate), key: this.secret(key, "private key") };
    try {
      createSecureContext(pair);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new VnetdError("CONFIG", `${certificate} and ${key} cannot be used for TLS: ${why}`, {
        hint: "They are in PEM, and belong together.",
      });
    }
    return { digest, pair };
  }

  private readToken(path: string): Buffer {
    const bytes = this.secret(path, "token");
    const text = bytes.toString("utf8").trim();
    bytes.fill(0);
    if (text.length >= minTokenChars && /^[\x21-\x7e]+$/u.test(text)) return digestOf(text);
    throw new VnetdError("CONFIG", `${path} holds no token`, {
      hint: `It is one word of ${String(minTokenChars)} characters at least, for example of: openssl rand -hex 32`,
    });
  }

  private secret(path: string, word: "token" | "private key"): Buffer {
    const bytes = this.readSecret(path, word);
    if (bytes !== undefined) return bytes;
    throw new VnetdError("CONFIG", `there is no ${word} file ${path}`, {});
  }

  /** What tells that a file was changed or replaced. */
  private stampOf(): string {
    const { token, certificate, key } = this.files;
    return [token, certificate, key]
      .map((path) => {
        if (path === null) return "";
        const stats = statSync(path, { throwIfNoEntry: false });
        return `${String(stats?.ino)} ${String(stats?.mtimeMs)} ${String(stats?.ctimeMs)}`;
      })
      .join();
  }
}

function readPublic(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new VnetdError("CONFIG", `the certificate ${path} cannot be read: ${errnoName(error)}`, {
      cause: error,
    });
  }
}

function digestOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
