// SPDX-License-Identifier: Apache-2.0
/** Key files: how they are made, which are refused, and that nothing shows what is in them. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { writeKeyFile } from "../../cli/key-file.js";
import { VnetdError, errorParts } from "../../src/base/errors.js";
import {
  keyIdOf,
  keyNameProblem,
  maxKeyFileBytes,
  parseKeyFile,
  printKeyFile,
  vnetKeyOf,
} from "../../src/base/vnet-key.js";
import { KeyStore } from "../../src/store/key-store.js";
import { cli } from "./lib/cli.js";

// base64 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
const known = Buffer.from(Array.from({ length: 32 }, (_, index) => index));
const isRoot = process.geteuid?.() === 0;

let directory: string;
let store: KeyStore;
beforeEach(() => {
  directory = fs.mkdtempSync(join(tmpdir(), "vnetd-keys-"));
  store = new KeyStore({ stateDir: directory });
});
afterEach(() => {
  fs.rmSync(directory, { recursive: true, force: true });
});

function errorOf(action: () => unknown): VnetdError {
  try {
    action();
  } catch (error) {
    if (error instanceof VnetdError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

function keyFile(name: string, secret: Uint8Array = known, mode = 0o600): string {
  const path = join(directory, name);
  fs.writeFileSync(path, printKeyFile(secret), { mode });
  fs.chmodSync(path, mode);
  return path;
}

describe("a key's id", () => {
  it("is HKDF-SHA256 of the secret, as another implementation has it", () => {
    // python3: hmac-based extract with 32 zero bytes, expand with b"vnetd key id 1" 0x01, 8 bytes
    expect(keyIdOf(known)).toBe("60f175f672b98400");
    expect(vnetKeyOf(Buffer.from(known)).id).toBe(keyIdOf(known));
    expect(keyIdOf(randomBytes(32))).not.toBe(keyIdOf(known));
  });
});

describe("the text of a key file", () => {
  it("reads back as it was printed, with Windows' line ends and a missing last one too", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 32, maxLength: 32 }).filter((bytes) => bytes.some(Boolean)),
        (secret) => {
          const text = printKeyFile(secret);
          for (const variant of [text, text.trimEnd(), text.replaceAll("\n", "\r\n")]) {
            const key = parseKeyFile(Buffer.from(variant), "f");
            expect(key.secret.export()).toEqual(Buffer.from(secret));
            expect(key.id).toBe(keyIdOf(secret));
          }
        },
      ),
    );
  });

  const encoded = known.toString("base64");
  it.each([
    ["nothing", "", undefined],
    ["comments alone", "# a\n\n# b\n", undefined],
    ["a bare key", `${encoded}\n`, 1],
    ["another version", `vnetd-key-2:${encoded}\n`, 1],
    ["two keys", `vnetd-key-1:${encoded}\nvnetd-key-1:${encoded}\n`, 2],
    ["a short key", `vnetd-key-1:${known.subarray(1).toString("base64")}\n`, 1],
    ["a long key", `\nvnetd-key-1:${Buffer.concat([known, known]).toString("base64")}\n`, 2],
    ["no padding", `vnetd-key-1:${encoded.slice(0, -1)}\n`, 1],
    ["hex", `vnetd-key-1:${known.toString("hex")}\n`, 1],
    ["a character within", `vnetd-key-1:${encoded.slice(0, 9)} ${encoded.slice(9)}\n`, 1],
    ["a zero key", `vnetd-key-1:${Buffer.alloc(32).toString("base64")}\n`, 1],
  ])("is refused with %s, unquoted", (_name, text, line) => {
    const error = errorOf(() => parseKeyFile(Buffer.from(text, "latin1"), "f"));
    expect(error.code).toBe("BAD_KEY");
    expect(error.place).toEqual(line === undefined ? { source: "f" } : { source: "f", line });
    expect(error.hint).toContain("key-gen");
    expect(inspect(errorParts(error))).not.toContain(encoded.slice(4, 12));
  });

  it("whatever it is, makes a key or BAD_KEY, and no error quotes it", () => {
    const secretText = known.toString("base64");
    fc.assert(
      fc.property(
        fc.nat(120),
        fc.nat(3),
        fc.string({ unit: "binary", maxLength: 4 }),
        (at, remove, insert) => {
          const text = printKeyFile(known).split("\n")[1] ?? "";
          const mutated = Buffer.from(
            text.slice(0, at) + insert + text.slice(at + remove),
            "latin1",
          );
          try {
            parseKeyFile(mutated, "f");
          } catch (error) {
            expect(errorParts(error).code).toBe("BAD_KEY");
            expect(inspect(error)).not.toContain(secretText.slice(8, 16));
          }
        },
      ),
    );
  });
});

describe("a key in memory", () => {
  it("is shown by nothing, and what it came from is wiped", () => {
    const secret = Buffer.from(known);
    const key = vnetKeyOf(secret);
    expect(secret.equals(Buffer.alloc(32))).toBe(true);
    const shown = [
      inspect(key, { depth: 9, showHidden: true }),
      JSON.stringify(key),
      inspect(key.secret),
    ];
    for (const text of shown) {
      expect(text).not.toContain(known.toString("base64").slice(4, 12));
      expect(text).not.toContain(known.toString("hex").slice(4, 12));
      expect(text).not.toMatch(/4, 5, 6, 7/);
    }
  });
});

describe("what a vnet may call its key", () => {
  it.each(["/etc/vnetd/a.key", "/a", "a", "default.key", "a b", "ä"])("%j", (name) => {
    expect(keyNameProblem(name)).toBeUndefined();
  });
  it.each(["", ".", "..", "/", "/etc/", "a/b", "./a", "../a", "a\n", "a\0", "x".repeat(256)])(
    "not %j",
    (name) => {
      expect(keyNameProblem(name)).toBeDefined();
    },
  );
});

describe("where a key is found", () => {
  it("by path; by name, first among the credentials; the default key by its name", () => {
    const credentials = join(directory, "credentials");
    fs.mkdirSync(credentials, { mode: 0o700 });
    fs.mkdirSync(join(directory, "keys"), { mode: 0o700 });
    const both = new KeyStore({ stateDir: directory, credentialsDir: credentials });
    const [one, two, three] = [randomBytes(32), randomBytes(32), randomBytes(32)];
    keyFile("elsewhere.key", one);
    keyFile("keys/default.key", two);
    keyFile("credentials/blue.key", three, 0o400);
    keyFile("keys/blue.key", one);
    expect(both.read(join(directory, "elsewhere.key")).id).toBe(keyIdOf(one));
    expect(both.read(null).id).toBe(keyIdOf(two));
    expect(both.read("default.key").id).toBe(keyIdOf(two));
    expect(both.read("blue.key").id).toBe(keyIdOf(three));
    expect(store.read("blue.key").id).toBe(keyIdOf(one));
    keyFile("credentials/default.key", three);
    expect(both.read(null).id).toBe(keyIdOf(three));
  });

  it("a file that cannot be used is not passed over for the next place", () => {
    fs.mkdirSync(join(directory, "keys"), { mode: 0o700 });
    const both = new KeyStore({ stateDir: directory, credentialsDir: directory });
    keyFile("a.key", known, 0o644);
    keyFile("keys/a.key");
    expect(errorOf(() => both.read("a.key")).code).toBe("BAD_KEY");
  });

  it("nowhere: says where it was looked for, and the command that makes one", () => {
    const both = new KeyStore({ stateDir: directory, credentialsDir: "/run/credentials/x" });
    const error = errorOf(() => both.read(null));
    expect(error).toMatchObject({ code: "NO_KEY" });
    expect(error.message).toContain("/run/credentials/x/default.key");
    expect(error.message).toContain(join(directory, "keys/default.key"));
    expect(error.hint).toContain(`vnetd key-gen ${join(directory, "keys/default.key")}`);
    expect(errorOf(() => store.read(join(directory, "none.key"))).hint).toContain(
      `vnetd key-gen ${join(directory, "none.key")}`,
    );
  });
});

describe("which files are refused", () => {
  it.each([0o640, 0o604, 0o644, 0o660, 0o602, 0o620, 0o610, 0o601, 0o666, 0o777])(
    "mode %o",
    (mode) => {
      const path = keyFile("a.key", known, mode);
      const error = errorOf(() => store.read(path));
      expect(error.code).toBe("BAD_KEY");
      expect(error.message).toContain(mode.toString(8).padStart(4, "0"));
      expect(error.hint).toContain(`chmod 600 ${path}`);
      fs.chmodSync(path, 0o600);
      expect(store.read(path).id).toBe(keyIdOf(known));
    },
  );

  it("a link to one that others can read; a link to a good one is followed", () => {
    const link = join(directory, "link.key");
    fs.symlinkSync(keyFile("open.key", known, 0o644), link);
    expect(errorOf(() => store.read(link))).toMatchObject({ code: "BAD_KEY" });
    fs.rmSync(link);
    fs.symlinkSync(keyFile("good.key"), link);
    expect(store.read(link).id).toBe(keyIdOf(known));
  });

  it("none of a Kubernetes Secret that is mounted with mode 0400, but one that a fsGroup may read", () => {
    // as kubelet writes it: links by way of ..data, in a directory like /tmp
    const mounted = join(directory, "keys");
    fs.mkdirSync(join(mounted, "..2026_11_26"), { recursive: true });
    fs.chmodSync(mounted, 0o1777);
    const path = keyFile("keys/..2026_11_26/blue.key", known, 0o400);
    fs.symlinkSync("..2026_11_26", join(mounted, "..data"));
    fs.symlinkSync("..data/blue.key", join(mounted, "blue.key"));
    const secrets = new KeyStore({ stateDir: directory, credentialsDir: mounted });
    expect(secrets.read("blue.key").id).toBe(keyIdOf(known));
    fs.chmodSync(path, 0o440);
    expect(errorOf(() => secrets.read("blue.key")).message).toContain("others may read");
  });

  it("a directory, a FIFO and a device, without waiting for a writer", () => {
    expect(errorOf(() => store.read(directory)).message).toMatch(/no regular file/);
    expect(errorOf(() => store.read("/dev/null")).message).toMatch(/no regular file/);
    const fifo = join(directory, "fifo");
    execFileSync("mkfifo", ["-m", "600", fifo]);
    expect(errorOf(() => store.read(fifo)).message).toMatch(/no regular file/);
  });

  it("what is too large, though a key stands in it", () => {
    const path = keyFile("large.key");
    fs.appendFileSync(path, "#".repeat(maxKeyFileBytes));
    expect(errorOf(() => store.read(path)).message).toMatch(/too large/);
  });

  it("in a directory into which others may put files, but for one like /tmp", () => {
    const shared = join(directory, "shared");
    fs.mkdirSync(shared);
    keyFile("shared/a.key");
    const link = join(directory, "link.key");
    fs.symlinkSync(join(shared, "a.key"), link);
    for (const mode of [0o777, 0o775, 0o757]) {
      fs.chmodSync(shared, mode);
      expect(errorOf(() => store.read(join(shared, "a.key"))).message).toMatch(/put files into/);
      expect(errorOf(() => store.read(link)).message).toMatch(/put files into/);
    }
    fs.chmodSync(shared, 0o1777);
    expect(store.read(join(shared, "a.key")).id).toBe(keyIdOf(known));
  });

  it.runIf(isRoot)("another user's", () => {
    const path = keyFile("theirs.key");
    fs.chownSync(path, 65534, 65534);
    expect(errorOf(() => store.read(path)).message).toMatch(/belongs to user 65534/);
    const theirs = join(directory, "home");
    fs.mkdirSync(theirs, { mode: 0o700 });
    keyFile("home/a.key");
    fs.chownSync(theirs, 65534, 65534);
    expect(errorOf(() => store.read(join(theirs, "a.key"))).message).toMatch(/put files into/);
  });
});

describe("key-gen", () => {
  it("makes a key that is nobody else's to read, whatever the umask, and says its id", async () => {
    const path = join(directory, "new.key");
    const umask = process.umask(0);
    try {
      const { code, stdout, stderr } = await cli(["key-gen", path]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expect(stdout).toBe(`made ${path}, key id ${store.read(path).id}\n`);
    } finally {
      process.umask(umask);
    }
    expect(fs.statSync(path).mode & 0o7777).toBe(0o600);
    expect(fs.readdirSync(directory)).toEqual(["new.key"]);
  });

  it("makes another each time, and shows none", async () => {
    const paths = [1, 2, 3].map((n) => join(directory, `${n}.key`));
    const outputs = [];
    for (const path of paths) outputs.push(await cli(["--json", "key-gen", path]));
    const ids = outputs.map(({ stdout }) => (JSON.parse(stdout) as { keyId: string }).keyId);
    expect(new Set(ids).size).toBe(3);
    for (const path of paths) {
      const secret = fs.readFileSync(path, "latin1").split("vnetd-key-1:")[1]?.trim() ?? "";
      expect(secret).toHaveLength(44);
      expect(JSON.stringify(outputs)).not.toContain(secret.slice(0, 10));
    }
  });

  it("without a file makes the default key, where the daemon looks for it", async () => {
    const state = join(directory, "state");
    const { code } = await cli(["key-gen", "--state-dir", state]);
    expect(code).toBe(0);
    expect(new KeyStore({ stateDir: state }).read(null).id).toMatch(/^[0-9a-f]{16}$/);
    expect(fs.statSync(join(state, "keys")).mode & 0o7777).toBe(0o700);
    const variables = { VNETD_STATE_DIR: state };
    expect(await cli(["key-gen"], { variables })).toMatchObject({ code: 1 });
  });

  it("never writes over anything", async () => {
    for (const [name, make] of [
      ["file", (path: string) => fs.writeFileSync(path, "mine")],
      ["link", (path: string) => fs.symlinkSync(join(directory, "file"), path)],
      ["dangling", (path: string) => fs.symlinkSync(join(directory, "nowhere"), path)],
      ["directory", (path: string) => fs.mkdirSync(path)],
    ] as const) {
      const path = join(directory, name);
      make(path);
      const { code, stderr } = await cli(["--json", "key-gen", path]);
      expect({ name, code }).toEqual({ name, code: 1 });
      expect(JSON.parse(stderr)).toMatchObject({ code: "KEY_EXISTS" });
    }
    expect(fs.readFileSync(join(directory, "file"), "utf8")).toBe("mine");
    expect(fs.existsSync(join(directory, "nowhere"))).toBe(false);
    expect(fs.readdirSync(directory).sort()).toEqual(["dangling", "directory", "file", "link"]);
  });

  it("leaves nothing behind where it cannot write", async () => {
    const { code, stderr } = await cli(["--json", "key-gen", join(directory, "none", "a.key")]);
    expect(code).toBe(1);
    expect(JSON.parse(stderr)).toMatchObject({ code: "FILE_UNWRITABLE" });
    expect(() => writeKeyFile("/proc/a.key", Buffer.from("x"), false)).toThrow(/cannot be written/);
    expect(fs.readdirSync(directory)).toEqual([]);
  });
});
