// SPDX-License-Identifier: Apache-2.0
/** Which modules somebody has to load by hand, by what a kernel says of itself. */
import { describe, expect, it } from "vitest";
import { suites } from "../../src/base/suite.js";
import { type ModuleFacts, modulesMissing } from "../../src/host/esp-modules.js";

const modules = [
  ...["xfrm_user", "xfrm_interface", "esp4", "esp6", "drbg", "ecb", "gcm", "ctr", "ghash-generic"],
  ...["seqiv", "cbc", "crypto_null", "hmac", "authenc", "authencesn", "echainiv", "sha1_generic"],
  "aes_generic",
];
const list = (names: readonly string[], suffix: string): string =>
  names.map((name) => `kernel/crypto/${name}.ko${suffix}\n`).join("");

function facts(over: Partial<ModuleFacts> = {}): ModuleFacts {
  return {
    crypto: "",
    dep: list(modules, ".xz: a.ko"),
    builtin: "",
    isLoaded: () => false,
    ...over,
  };
}

const missing = (over: Partial<ModuleFacts>, { ipv6 = true, wanted = suites, named = [""] } = {}) =>
  modulesMissing({ suites: wanted, ipv6, named }, facts(over));
const gcm = suites.filter(({ authBytes }) => authBytes === 0);
const gcmOwn = ["gcm", "ctr", "ghash-generic", "seqiv"];

describe("the modules that secure vnets miss", () => {
  it("are those of all suites where nothing is loaded", () => {
    expect([...missing({})].sort()).toEqual([...modules].sort());
  });

  it("are those of the suite that is wanted", () => {
    const found = missing({}, { wanted: gcm });
    expect(found).toEqual(expect.arrayContaining(gcmOwn));
    for (const other of ["authencesn", "cbc", "sha1_generic"]) expect(found).not.toContain(other);
  });

  it("are none that is loaded, built in, or not of this kernel", () => {
    const loaded = missing({ isLoaded: (name) => name === "ghash-generic" });
    expect(loaded).not.toContain("ghash-generic");
    const builtin = missing({ builtin: list(["ghash_generic", "hmac"], "") });
    expect(builtin).not.toContain("ghash-generic");
    expect(builtin).not.toContain("hmac");
    const without = missing({ dep: list(["esp4", "gcm"], ": ") });
    expect(without).toEqual(["esp4", "gcm"]);
  });

  it("are all that are not loaded where the kernel has no list", () => {
    expect([...missing({ dep: undefined }, { named: [] })].sort()).toEqual([...modules].sort());
  });

  it("are none of an algorithm that a driver has brought", () => {
    const crypto = "name         : rfc4106(gcm(aes))\ndriver       : rfc4106-gcm-aesni\n";
    const found = missing({ crypto }, { wanted: gcm.filter(({ level }) => level === "conf") });
    expect(found).toContain("seqiv");
    for (const name of ["gcm", "ctr", "ghash-generic"]) expect(found).not.toContain(name);
  });

  it("are those that the kernel named as well", () => {
    expect(missing({ dep: list(["rare"], ":") }, { named: ["rare"] })).toEqual(["rare"]);
  });

  it("leave out ESP over IPv6 where there is no IPv6", () => {
    expect(missing({}, { ipv6: false })).not.toContain("esp6");
  });
});
