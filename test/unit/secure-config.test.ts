// SPDX-License-Identifier: Apache-2.0
/** What a vnet's configuration comes to, with its keys read: never clear, and never without its own key. */
import { describe, expect, it } from "vitest";
import { VnetdError } from "../../src/base/errors.js";
import type { VnetConfig } from "../../src/config/vnet-file.js";
import { checkSecureConfig, secureConfigOf } from "../../src/controller/security/config.js";
import { keyOf } from "./lib/key-hosts.js";

const vnet: VnetConfig = {
  id: "0000:0000:0000:0000:0000:0000:0000:0097",
  bridge: null,
  vnetif: "vnif97",
  security: "conf",
  key: "new.key",
  suite: null,
  encapsulation: null,
};
const missing = new VnetdError("NO_KEY", "there is no file old.key");
const store = (...names: string[]): { keys: never } => ({
  keys: {
    read: (name: string | null) => {
      if (name !== null && names.includes(name)) return keyOf(name);
      throw missing;
    },
  } as never,
});
const noProblem = (): undefined => undefined;
const codeOf = (step: () => unknown): string => {
  try {
    step();
  } catch (error) {
    if (error instanceof VnetdError) return error.code;
    throw error;
  }
  return "";
};

describe("a vnet's security", () => {
  it("is none where it is none, whatever keys there are", () => {
    const plain: VnetConfig = { ...vnet, security: "none", key: null };
    expect(secureConfigOf(store(), plain, noProblem)).toBe(undefined);
  });

  it("is the level's suite with the vnet's key", () => {
    const secure = secureConfigOf(store("new.key"), vnet, noProblem);
    expect(secure?.suite).toMatchObject({ level: "conf", name: "sha1" });
    expect(secure?.keys.map(({ id }) => id)).toEqual([keyOf("new.key").id]);
    const gcm = secureConfigOf(store("new.key"), { ...vnet, suite: "gcm" }, noProblem);
    expect(gcm?.suite).toMatchObject({ level: "conf", name: "gcm" });
  });

  it("without the key, or on a kernel that cannot, there is none", () => {
    expect(codeOf(() => secureConfigOf(store(), vnet, noProblem))).toBe("NO_KEY");
    const lacks = (): string => "it has no ESP";
    expect(codeOf(() => secureConfigOf(store("new.key"), vnet, lacks))).toBe(
      "SECURITY_UNAVAILABLE",
    );
    // the key first: that can be mended
    expect(codeOf(() => secureConfigOf(store(), vnet, lacks))).toBe("NO_KEY");
  });

  it("while it changes its secret both keys are taken, the new one first", () => {
    const changing = { ...vnet, previousKey: "old.key" };
    const secure = secureConfigOf(store("old.key", "new.key"), changing, noProblem);
    expect(secure?.keys.map(({ id }) => id)).toEqual([keyOf("new.key").id, keyOf("old.key").id]);
    expect(secure?.previousProblem).toBe(undefined);
  });

  it("an old key that is gone takes no vnet down; one that is to be made must have it", () => {
    const changing = { ...vnet, previousKey: "old.key" };
    const secure = secureConfigOf(store("new.key"), changing, noProblem);
    expect(secure?.keys.map(({ id }) => id)).toEqual([keyOf("new.key").id]);
    expect(secure?.previousProblem).toBe(missing);
    expect(codeOf(() => checkSecureConfig(store("new.key"), changing, noProblem))).toBe("NO_KEY");
    expect(codeOf(() => checkSecureConfig(store("new.key"), vnet, noProblem))).toBe("");
    expect(codeOf(() => secureConfigOf(store("old.key"), changing, noProblem))).toBe("NO_KEY");
  });
});
