// SPDX-License-Identifier: Apache-2.0
/**
 * `key-rotate`: the vnet's key becomes another one, and the one before is taken as well until all hosts have moved.
 *
 *   rotate()   checks, persists both keys, begins to use the new one: no SA changes at that instant
 *   finish()   nobody needs the old one: forgotten here and in the state (src/keys/rotation.ts decides)
 *   end()      the same at once, whoever needs it: who has not moved is cut off
 *
 * Both keys must be readable when it begins, and are persisted in one write: whenever the daemon ends, the next one
 * finds a state by which it can talk to every host that it talked to.
 */
import type { KeyRotationInfo } from "../../api/contract.js";
import { VnetdError } from "../../base/errors.js";
import { defaultKeyName, keyNameProblem, type VnetKey } from "../../base/vnet-key.js";
import type { VnetId } from "../../base/vnet-id.js";
import type { StateDirectory } from "../../store/state-directory.js";
import type { Context } from "../context.js";
import type { RunningVnet, Vnets } from "../vnets.js";

export interface KeyRotationParts {
  context: Pick<Context, "keys" | "log">;
  vnets: Pick<Vnets, "find" | "setKeys">;
  persist: (change: Parameters<StateDirectory["update"]>[0]) => void;
  /** the running vnet's keys are other ones: exchanges follow, and other hosts are told */
  changed: (vnet: RunningVnet) => void;
  /** what was agreed on by a key that is not taken any more goes now */
  evict: (vnet: RunningVnet) => void;
}

/** As a vnet's configuration names them, and what is in them: of each one, or of both. */
interface NamedKeys {
  key: string | null;
  previousKey: string | undefined;
  keys: readonly [VnetKey, VnetKey?];
}

export class KeyRotation {
  constructor(private readonly parts: KeyRotationParts) {}

  /** `name`: as a vnet's `key`. What the vnet has already is left as it is. */
  rotate(id: VnetId, name: string): KeyRotationInfo {
    const problem = keyNameProblem(name);
    if (problem !== undefined) {
      throw new VnetdError("BAD_VALUE", `the key cannot be "${name.slice(0, 80)}": ${problem}`, {
        hint: "Give the absolute path of a key file, or the name of a key of this host.",
      });
    }
    const { running, now } = this.secure(id);
    const next = this.parts.context.keys.read(name);
    const wanted = this.wanted(id, now, { name, next });
    if (!isSame(now, wanted)) {
      this.parts.persist((draft) => {
        const vnet = draft.vnets.find((each) => each.id === id);
        if (vnet === undefined) return;
        vnet.key = wanted.key;
        if (wanted.previousKey === undefined) delete vnet.previousKey;
        else vnet.previousKey = wanted.previousKey;
      });
      this.use(id, running, wanted);
    }
    return infoOf(id, wanted);
  }

  /** Throws why the vnet could not be given this key now; changes nothing. */
  check(id: VnetId, name: string): void {
    const { now } = this.secure(id);
    this.wanted(id, now, { name, next: this.parts.context.keys.read(name) });
  }

  /** All hosts have the vnet's new key: the old one is taken no more. */
  finish(id: VnetId): void {
    const { running, now } = this.secure(id);
    const [{ id: keyId }] = this.forgetPrevious(id, running, now).keys;
    this.parts.context.log.say(
      "secret_changed",
      `vnet ${id}: all hosts have key id ${keyId}; the one before is not taken any more`,
      { vnet: id },
    );
  }

  /** The old key is taken no more, whatever others have. Where there is none, nothing changes. */
  end(id: VnetId): KeyRotationInfo {
    const { running, now } = this.secure(id);
    if (now.previousKey === undefined) return infoOf(id, now);
    const wanted = this.forgetPrevious(id, running, now);
    this.parts.evict(running);
    this.parts.context.log.say(
      "secret_ended",
      `vnet ${id}: the key before ${wanted.keys[0].id} is not taken any more; hosts that have not moved are cut off`,
      { vnet: id },
    );
    return infoOf(id, wanted);
  }

  private forgetPrevious(id: VnetId, running: RunningVnet, now: NamedKeys): NamedKeys {
    const wanted: NamedKeys = { key: now.key, previousKey: undefined, keys: [now.keys[0]] };
    this.parts.persist((draft) => {
      const vnet = draft.vnets.find((each) => each.id === id);
      if (vnet !== undefined) delete vnet.previousKey;
    });
    this.use(id, running, wanted);
    return wanted;
  }

  private wanted(
    id: VnetId,
    now: NamedKeys,
    { name, next }: { name: string; next: VnetKey },
  ): NamedKeys {
    const [current, previous] = now.keys;
    // the same in another file, perhaps
    if (next.id === current.id) return { ...now, key: name };
    if (previous !== undefined && next.id !== previous.id) {
      throw new VnetdError(
        "KEY_ROTATING",
        `vnet ${id} is changing from key id ${previous.id} to ${current.id}`,
        {
          hint: "`vnetd keys` shows which hosts it waits for. To go back, give it the key that was before.",
        },
      );
    }
    this.checkFile(id, now.key, current);
    const previousKey = now.key ?? defaultKeyName;
    return { key: name, previousKey, keys: [next, current] };
  }

  /** The old key must outlive a restart: until all have moved it is read from its file. */
  private checkFile(id: VnetId, key: string | null, current: VnetKey): void {
    const inFile = this.parts.context.keys.read(key);
    if (inFile.id === current.id) return;
    throw new VnetdError(
      "BAD_KEY",
      `the file of vnet ${id}'s key, ${key ?? defaultKeyName}, was replaced: ` +
        `it has key id ${inFile.id}, the vnet uses ${current.id}`,
      {
        hint: "Put the old key back where it was, and give the new one as another file: both are needed until all hosts have moved.",
      },
    );
  }

  private use(id: VnetId, running: RunningVnet, { key, previousKey, keys }: NamedKeys): void {
    const both = keys.filter((each) => each !== undefined);
    this.parts.vnets.setKeys(id, { key, previousKey }, both);
    this.parts.changed(running);
    if (previousKey === undefined) return;
    this.parts.context.log.say(
      "secret_changing",
      `vnet ${id}: changing from key id ${both[1]?.id ?? ""} to ${both[0]?.id ?? ""}`,
      { vnet: id },
    );
  }

  private secure(id: VnetId): { running: RunningVnet; now: NamedKeys } {
    const { config, running, problem } = this.parts.vnets.find(id);
    if (config.security === "none") {
      throw new VnetdError("NOT_SECURE", `vnet ${id} has no keys: its security is none`, {
        hint: "`vnetd vnet-list` shows which vnets are secure.",
      });
    }
    const [current, previous] = running?.secure?.keys ?? [];
    if (running === undefined || current === undefined) {
      throw new VnetdError("SECURITY_UNAVAILABLE", `vnet ${id} is not up: ${problem}`, {
        hint: "Mend that first; its key can be changed while it runs.",
      });
    }
    const { key, previousKey } = config;
    return {
      running,
      now: { key, previousKey, keys: previous === undefined ? [current] : [current, previous] },
    };
  }
}

function isSame(one: NamedKeys, other: NamedKeys): boolean {
  return one.key === other.key && one.keys[0].id === other.keys[0].id;
}

function infoOf(vnet: VnetId, { key, previousKey, keys }: NamedKeys): KeyRotationInfo {
  const [current, previous] = keys;
  return {
    ...{ vnet, key: key ?? defaultKeyName, keyId: current.id },
    previousKey: previousKey ?? null,
    previousKeyId: previous?.id ?? null,
  };
}
