// SPDX-License-Identifier: Apache-2.0
/**
 * Reading the daemon's configuration again, for SIGHUP and `vnetd reload`: one at a time, the new one whole or the old
 * one whole, and what became of it is kept for `vnetd status` and the metrics.
 */
import type { ConfigurationInfo, ErrorBody, ReloadInfo } from "../api/contract.js";
import { errorParts, VnetdError, type Place } from "../base/errors.js";
import type { KeyChange } from "../config/config-changes.js";
import type { Log } from "../log.js";
import { nowMs } from "./context.js";

export interface ReloadParts {
  file: string;
  log: Log;
  /** Reads and takes the file; throws and leaves everything as it was. */
  take: () => Promise<TakenConfig>;
  /** for the metrics: it was taken, or refused */
  done: (ok: boolean) => void;
}

export interface TakenConfig {
  changes: KeyChange[];
  /** what a change still needs beyond this, by key */
  needs: ReadonlyMap<string, string>;
}

export class Reloads {
  private readonly totals = { taken: 0, refused: 0 };
  private loadedMs = nowMs();
  private failure: { atMs: number; error: ErrorBody } | undefined;
  private last: Promise<unknown> = Promise.resolve();

  constructor(private readonly parts: ReloadParts) {}

  info(): ConfigurationInfo {
    const { failure } = this;
    return {
      file: this.parts.file,
      loadedSeconds: secondsSince(this.loadedMs),
      reloads: this.totals.taken,
      refused: this.totals.refused,
      failure:
        failure === undefined ? null : { ageSeconds: secondsSince(failure.atMs), ...failure.error },
    };
  }

  problems(): string[] {
    const { failure, parts } = this;
    if (failure === undefined) return [];
    const { message, place } = failure.error;
    return [
      `${parts.file} was not taken, the configuration before is in use: ${placed(message, place)}; ` +
        "vnetd reload when it is mended",
    ];
  }

  /** Throws why it was not taken. Who asks meanwhile waits. */
  reload(): Promise<ReloadInfo> {
    const next = this.last.then(() => this.reloadNow());
    this.last = next.catch(() => undefined);
    return next;
  }

  private async reloadNow(): Promise<ReloadInfo> {
    const { file, log, take } = this.parts;
    try {
      const { changes, needs } = await take();
      this.loadedMs = nowMs();
      this.failure = undefined;
      this.totals.taken += 1;
      this.parts.done(true);
      const texts = changes.map(({ key, before, after }) => `${key} ${before} -> ${after}`);
      log.say(
        "config_taken",
        `${file}: ${texts.length === 0 ? "nothing is different" : texts.join(", ")}`,
      );
      const needed = changes.map((change) => ({ ...change, needs: needs.get(change.key) ?? null }));
      return { file, changes: needed };
    } catch (error) {
      const body = errorParts(error);
      this.failure = { atMs: nowMs(), error: body };
      this.totals.refused += 1;
      this.parts.done(false);
      log.say("config_refused", `${file} is not taken: ${placed(body.message, body.place)}`, {
        reason: body.code,
      });
      if (error instanceof VnetdError && error.place !== undefined) throw error;
      throw new VnetdError(body.code, body.message, {
        ...(body.hint === undefined ? {} : { hint: body.hint }),
        place: { source: file },
        cause: error,
      });
    }
  }
}

function placed(message: string, place: Place | undefined): string {
  if (place?.line === undefined) return message;
  return `line ${String(place.line)}: ${message}`;
}

function secondsSince(atMs: number): number {
  return Math.floor((nowMs() - atMs) / 1000);
}
