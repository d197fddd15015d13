// SPDX-License-Identifier: Apache-2.0
/** A vnet changes its secret: when it has, and what is stored and taken meanwhile. */
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { VnetdError } from "../../src/base/errors.js";
import { printKeyFile } from "../../src/base/vnet-key.js";
import { suiteOf } from "../../src/base/suite.js";
import type { VnetConfig } from "../../src/config/vnet-file.js";
import { KeyRotation } from "../../src/controller/security/rotation.js";
import type { RunningVnet, Vnet } from "../../src/controller/vnets.js";
import { RotationClock, notMoved, type RotationHost } from "../../src/keys/rotation.js";
import { KeyStore } from "../../src/store/key-store.js";
import { StateDirectory } from "../../src/store/state-directory.js";
import { keyOf } from "./lib/key-hosts.js";

const [oldId, newId] = ["aa", "bb"];

describe("when it is over", () => {
  const host = (keyIds: string[], current?: string): RotationHost => ({
    name: "b",
    keyIds,
    current,
  });

  it.each([
    [[], false, "nothing was heard of it"],
    [[oldId], false, "it has the old one alone"],
    [[newId, oldId], true, "it has the new one"],
    [[newId], true, "it has given the old one up"],
  ])("%j without traffic keys: %s, for %s", (keyIds, moved) => {
    expect(notMoved(newId, [host(keyIds)])).toHaveLength(moved ? 0 : 1);
  });

  it("not while there are traffic keys of the old one", () => {
    expect(notMoved(newId, [host([newId, oldId], oldId)])).toHaveLength(1);
    expect(notMoved(newId, [host([newId, oldId], newId)])).toHaveLength(0);
    expect(notMoved(newId, [host([oldId], newId)])).toHaveLength(1);
  });

  it("not before all that are there can have been heard, and not before the last has moved", () => {
    const clock = new RotationClock(3000);
    expect(clock.isOver(newId, [], 1000)).toBe(false);
    expect(clock.isOver(newId, [], 3999)).toBe(false);
    expect(clock.isOver(newId, [host([newId], newId), host([oldId], oldId)], 4000)).toBe(false);
    expect(clock.isOver(newId, [host([newId], newId)], 4000)).toBe(true);
    expect(clock.isOver(newId, [], 4000)).toBe(true);
  });
});

describe("key-rotate", () => {
  const id = "0000:0000:0000:0000:0000:0000:0000:0097";
  let directory: string;
  let state: StateDirectory;
  let vnet: Vnet;
  let told: string[][];
  let rotation: KeyRotation;
  let failing = false;

  const path = (name: string): string => join(directory, name);
  const write = (name: string, seed: string): void => {
    writeFileSync(path(name), printKeyFile(keyOf(seed).secret.export()), { mode: 0o600 });
    chmodSync(path(name), 0o600);
  };
  const keysNow = (): string[] => vnet.running?.secure?.keys.map((each) => each.id) ?? [];
  const stored = (): VnetConfig | undefined => state.state.vnets[0];
  const idOf = (seed: string): string => keyOf(seed).id;
  const errorOf = (step: () => unknown): VnetdError => {
    try {
      step();
    } catch (error) {
      if (error instanceof VnetdError) return error;
      throw error;
    }
    throw new Error("nothing was thrown");
  };

  function begin(key: string | null, previousKey?: string): void {
    const config: VnetConfig = {
      ...{ id, bridge: null, vnetif: "vnif97", security: "conf", key },
      ...(previousKey === undefined ? {} : { previousKey }),
      ...{ suite: null, encapsulation: null },
    };
    state = StateDirectory.open(path("state"), () => true);
    state.update((draft) => {
      draft.vnets = [config];
    });
    const keys = new KeyStore({ stateDir: path("state") });
    const names = [key, ...(previousKey === undefined ? [] : [previousKey])];
    const secure = { suite: suiteOf("conf", "sha1"), keys: names.map((name) => keys.read(name)) };
    vnet = { config, builtIn: false, problem: "", running: { secure } as unknown as RunningVnet };
    told = [];
    rotation = new KeyRotation({
      context: { keys, log: { say: () => undefined } },
      vnets: {
        find: () => vnet,
        setKeys: (_id, named, all) => {
          const { previousKey: _before, ...rest } = vnet.config;
          const previous =
            named.previousKey === undefined ? {} : { previousKey: named.previousKey };
          vnet.config = { ...rest, key: named.key, ...previous };
          if (vnet.running?.secure !== undefined)
            vnet.running.secure = { ...vnet.running.secure, keys: all };
        },
      },
      persist: (change) => {
        if (failing) throw new VnetdError("STATE_UNWRITABLE", "the disk is full");
        state.update(change);
      },
      changed: () => told.push(keysNow()),
      evict: () => told.push(["evicted", ...keysNow()]),
    });
  }

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "vnetd-rotate-"));
    write("old.key", "old");
    write("new.key", "new");
    write("third.key", "third");
    failing = false;
    begin(path("old.key"));
  });
  afterEach(() => {
    state.close();
    rmSync(directory, { recursive: true });
  });

  it("the new one is used first, the old one is taken too, and both are stored in one write", () => {
    expect(rotation.rotate(id, path("new.key"))).toEqual({
      vnet: id,
      key: path("new.key"),
      keyId: idOf("new"),
      previousKey: path("old.key"),
      previousKeyId: idOf("old"),
    });
    expect(keysNow()).toEqual([idOf("new"), idOf("old")]);
    expect(told).toEqual([keysNow()]);
    expect(stored()).toMatchObject({ key: path("new.key"), previousKey: path("old.key") });
    expect(vnet.config).toEqual(stored());
    // the next daemon reads the same
    state.close();
    const next = StateDirectory.open(path("state"), () => true);
    expect(next.state.vnets[0]).toEqual(vnet.config);
    next.close();
    const before = readFileSync(join(path("state"), "state.yaml.previous"), "utf8");
    expect(before).not.toContain("previousKey");
    expect(before).toContain("old.key");
  });

  it("from the default key: it has a name", () => {
    mkdirSync(join(path("state"), "keys"));
    write("state/keys/default.key", "default");
    state.close();
    begin(null);
    expect(rotation.rotate(id, path("new.key"))).toMatchObject({
      previousKey: "default.key",
      previousKeyId: idOf("default"),
    });
    expect(stored()).toMatchObject({ key: path("new.key"), previousKey: "default.key" });
  });

  it("once more with the same is no change; with a third it is refused until the first is over", () => {
    rotation.rotate(id, path("new.key"));
    const text = readFileSync(join(path("state"), "state.yaml"), "utf8");
    expect(rotation.rotate(id, path("new.key"))).toMatchObject({ previousKeyId: idOf("old") });
    expect(told).toHaveLength(1);
    const { code, message, hint } = errorOf(() => rotation.rotate(id, path("third.key")));
    expect(code).toBe("KEY_ROTATING");
    expect(message).toContain(`from key id ${idOf("old")} to ${idOf("new")}`);
    expect(hint).toMatch(/vnetd keys/);
    expect(readFileSync(join(path("state"), "state.yaml"), "utf8")).toBe(text);
    rotation.finish(id);
    expect(rotation.rotate(id, path("third.key"))).toMatchObject({ previousKeyId: idOf("new") });
  });

  it("back to the one before, while it runs", () => {
    rotation.rotate(id, path("new.key"));
    expect(rotation.rotate(id, path("old.key"))).toMatchObject({
      keyId: idOf("old"),
      previousKey: path("new.key"),
    });
    expect(keysNow()).toEqual([idOf("old"), idOf("new")]);
    expect(stored()).toMatchObject({ key: path("old.key"), previousKey: path("new.key") });
  });

  it("when it is over the old one is taken no more, and is stored no more", () => {
    rotation.rotate(id, path("new.key"));
    rotation.finish(id);
    expect(keysNow()).toEqual([idOf("new")]);
    expect(stored()).not.toHaveProperty("previousKey");
    expect(vnet.config).toEqual(stored());
    expect(told).toHaveLength(2);
  });

  it("it may be ended before that, and what came of the old one goes", () => {
    rotation.rotate(id, path("new.key"));
    const info = { vnet: id, key: path("new.key"), keyId: idOf("new") };
    const ended = { ...info, previousKey: null, previousKeyId: null };
    expect(rotation.end(id)).toEqual(ended);
    expect(stored()).not.toHaveProperty("previousKey");
    expect(told.slice(1)).toEqual([[idOf("new")], ["evicted", idOf("new")]]);
    // again: nothing to end
    expect(rotation.end(id)).toEqual(ended);
    expect(told).toHaveLength(3);
  });

  it("and ended when the old one's file is gone", () => {
    begin(path("new.key"), path("old.key"));
    vnet.running!.secure = { ...vnet.running!.secure!, keys: [keyOf("new")] };
    rotation.end(id);
    expect(stored()).not.toHaveProperty("previousKey");
  });

  it("the key that it has already, in another file, is a new name for it", () => {
    copyFileSync(path("old.key"), path("same.key"));
    expect(rotation.rotate(id, path("same.key"))).toEqual({
      vnet: id,
      key: path("same.key"),
      keyId: idOf("old"),
      previousKey: null,
      previousKeyId: null,
    });
    expect(stored()).toMatchObject({ key: path("same.key") });
    expect(stored()).not.toHaveProperty("previousKey");
  });

  it.each([
    ["a file that is not there", "none.key", "NO_KEY"],
    ["no name", "", "BAD_VALUE"],
    ["a relative path", "./new.key", "BAD_VALUE"],
  ])("%s is refused, and nothing changes", (_what, name, code) => {
    const before = readFileSync(join(path("state"), "state.yaml"), "utf8");
    const named = name === "none.key" ? path(name) : name;
    expect(errorOf(() => rotation.rotate(id, named)).code).toBe(code);
    expect([keysNow(), told]).toEqual([[idOf("old")], []]);
    expect(readFileSync(join(path("state"), "state.yaml"), "utf8")).toBe(before);
  });

  it("a file that others can read is refused", () => {
    chmodSync(path("new.key"), 0o640);
    expect(errorOf(() => rotation.rotate(id, path("new.key"))).code).toBe("BAD_KEY");
  });

  it("the old file, written over with the new key, is refused: a restart would need the old one", () => {
    write("old.key", "new");
    const inPlace = errorOf(() => rotation.rotate(id, path("old.key")));
    expect(inPlace.code).toBe("BAD_KEY");
    expect(inPlace.message).toContain(`key id ${idOf("new")}, the vnet uses ${idOf("old")}`);
    expect(errorOf(() => rotation.rotate(id, path("new.key"))).code).toBe("BAD_KEY");
    rmSync(path("old.key"));
    expect(errorOf(() => rotation.rotate(id, path("new.key"))).code).toBe("NO_KEY");
    expect(keysNow()).toEqual([idOf("old")]);
  });

  it("a state that cannot be written leaves the keys as they are", () => {
    failing = true;
    expect(errorOf(() => rotation.rotate(id, path("new.key"))).code).toBe("STATE_UNWRITABLE");
    expect([keysNow(), told, vnet.config.key]).toEqual([[idOf("old")], [], path("old.key")]);
  });

  it("a vnet that is not secure, or is down, has none to change", () => {
    vnet.config = { ...vnet.config, security: "none" };
    expect(errorOf(() => rotation.rotate(id, path("new.key"))).code).toBe("NOT_SECURE");
    vnet.config = { ...vnet.config, security: "conf" };
    vnet.running = undefined;
    vnet.problem = "no ESP";
    const { code, message } = errorOf(() => rotation.rotate(id, path("new.key")));
    expect([code, message]).toEqual(["SECURITY_UNAVAILABLE", `vnet ${id} is not up: no ESP`]);
  });
});
