// SPDX-License-Identifier: Apache-2.0
/**
 * Which kernel modules ESP takes by suite, and which of them this kernel does not have in it now. The kernel says the first
 * thing that it lacks, and loads the rest by itself where it may; where it may not, somebody has to type all of them.
 */
import { existsSync, readFileSync } from "node:fs";
import { release } from "node:os";
import type { Suite } from "../base/suite.js";

/** What modules are looked for in. */
export interface ModuleFacts {
  /** /proc/crypto: algorithms that are in use, or ready for it */
  crypto: string;
  /** of modules that are there to be loaded, the kernel's own list; undefined: it is not known */
  dep: string | undefined;
  /** of what is no module in this kernel, by the kernel's own list */
  builtin: string;
  isLoaded: (module: string) => boolean;
}

/** An algorithm that is there needs none of its modules: a CPU's own driver may have brought it. */
interface Need {
  algorithm?: string;
  modules: readonly string[];
}

const anySuite: readonly Need[] = [
  { modules: ["xfrm_user", "xfrm_interface"] },
  // of what makes IVs; drbg's own default needs ecb
  { modules: ["drbg", "ecb"] },
];

function needsOf({ authBytes, level }: Suite): readonly Need[] {
  const aes: Need = { algorithm: "aes", modules: ["aes_generic"] };
  if (authBytes === 0) {
    const gcm = ["gcm", "ctr", "ghash-generic"];
    if (level === "conf")
      return [
        { algorithm: "rfc4106(gcm(aes))", modules: gcm },
        { algorithm: "seqiv(rfc4106(gcm(aes)))", modules: ["seqiv"] },
        aes,
      ];
    return [
      { algorithm: "rfc4543(gcm(aes))", modules: gcm },
      { algorithm: "seqiv(rfc4543(gcm(aes)))", modules: ["seqiv"] },
      aes,
    ];
  }
  const cipher: readonly Need[] =
    level === "conf"
      ? [{ algorithm: "cbc(aes)", modules: ["cbc"] }, aes]
      : [{ algorithm: "ecb(cipher_null)", modules: ["crypto_null", "ecb"] }];
  return [
    ...cipher,
    { algorithm: "hmac(sha1)", modules: ["hmac", "sha1_generic"] },
    { modules: ["authenc", "authencesn", "echainiv"] },
  ];
}

/**
 * What these suites take, and those that the kernel named, without what is built in or loaded, and without what this kernel does not
 * come with.
 */
export function modulesMissing(
  { suites, ipv6, named }: { suites: readonly Suite[]; ipv6: boolean; named: readonly string[] },
  facts: ModuleFacts = factsHere(),
): readonly string[] {
  const needs: readonly Need[] = [
    ...anySuite,
    { modules: ipv6 ? ["esp4", "esp6"] : ["esp4"] },
    ...suites.flatMap(needsOf),
    { modules: named },
  ];
  const names = new Set(
    needs
      .filter(({ algorithm }) => algorithm === undefined || !hasAlgorithm(facts, algorithm))
      .flatMap(({ modules }) => modules),
  );
  return [...names].filter((name) => isMissing(facts, name));
}

function hasAlgorithm({ crypto }: ModuleFacts, name: string): boolean {
  return crypto.split("\n").some((line) => /^name\s*: (.*)$/u.exec(line)?.[1] === name);
}

function isMissing(facts: ModuleFacts, name: string): boolean {
  if (facts.isLoaded(name) || isListed(facts.builtin, name)) return false;
  return facts.dep === undefined || isListed(facts.dep, name);
}

/** "kernel/crypto/gcm.ko.xz: ..." A name's - and _ are the same to the kernel. */
function isListed(list: string, name: string): boolean {
  const file = name.replaceAll(/[-_]/gu, "[-_]");
  return new RegExp(`^[^:]*/${file}\\.ko(\\.\\w+)?(:|$)`, "mu").test(list);
}

function factsHere(): ModuleFacts {
  const directory = `/lib/modules/${release()}`;
  return {
    crypto: read("/proc/crypto") ?? "",
    dep: read(`${directory}/modules.dep`),
    builtin: read(`${directory}/modules.builtin`) ?? "",
    isLoaded: (module) => existsSync(`/sys/module/${module.replaceAll("-", "_")}`),
  };
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}
