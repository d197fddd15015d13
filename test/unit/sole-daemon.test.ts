// SPDX-License-Identifier: Apache-2.0
/** Whose a BPF directory is, by its marks; docs/daemon.md. The directory is a plain one, the namespaces are made up. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BpfDirectory } from "../../src/host/sole-daemon.js";
import type { Native, NetnsIdentity } from "../../src/native/contract.js";

/** that of a namespace which can be found: this process is in it */
const alive = statSync("/proc/self/ns/net", { bigint: true }).ino;
/** inodes that no namespace has */
const here = 1n;
const gone = 2n;

let work: string;
let bpffs: string;
let state: string;
/** what the kernel says of the namespace that is found */
let found: NetnsIdentity | NodeJS.ErrnoException;
let asked: string[];

beforeEach(() => {
  work = mkdtempSync(join(tmpdir(), "vnetd-sole-"));
  bpffs = join(work, "bpf");
  state = join(work, "state");
  mkdirSync(state);
  found = { inode: alive, cookie: 77n };
  asked = [];
});
afterEach(() => rmSync(work, { recursive: true }));

/** A daemon's start in the namespace, and its end. */
function claimIn(own: NetnsIdentity): void {
  const native = {
    fileLock: () => true,
    netnsIdentity: (where?: string) => {
      if (where === undefined) return own;
      asked.push(where);
      if (found instanceof Error) throw found;
      return found;
    },
  } as unknown as Native;
  const directory = BpfDirectory.open(native, bpffs);
  try {
    directory.claim(state);
  } finally {
    directory.close(false);
  }
}

function mark(...names: string[]): void {
  for (const name of names) mkdirSync(join(bpffs, name), { recursive: true });
}

/** marks of namespaces */
const marks = (): string[] => readdirSync(bpffs).filter((name) => !name.startsWith("state-"));

const own: NetnsIdentity = { inode: here, cookie: 42n };
const ownMarks = ["cookie-1-42", "netns-1"];
const inUse = /forwards in another network namespace, net:\[\d+\]/;

function failure(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(code), { code });
}

describe("the namespace that a BPF directory belongs to", () => {
  it("is marked by inode and cookie, and comes back to its own", () => {
    claimIn(own);
    expect(marks()).toEqual(ownMarks);
    claimIn(own);
    expect(marks()).toEqual(ownMarks);
    expect(asked).toEqual([]);
  });

  it("is gone when its inode is this one's and its cookie is not", () => {
    mark("netns-1", "cookie-1-41");
    claimIn(own);
    expect(marks()).toEqual(ownMarks);
  });

  it("is gone when no namespace has its inode", () => {
    mark(`netns-${gone}`, `cookie-${gone}-41`);
    claimIn(own);
    expect(marks()).toEqual(ownMarks);
  });

  it("lives when one has its inode and its cookie", () => {
    mark(`netns-${alive}`, `cookie-${alive}-77`);
    expect(() => claimIn(own)).toThrow(inUse);
    expect(asked).toHaveLength(1);
    expect(marks()).toEqual([`cookie-${alive}-77`, `netns-${alive}`]);
  });

  it("is gone when another has got its inode", () => {
    mark(`netns-${alive}`, `cookie-${alive}-76`);
    claimIn(own);
    expect(marks()).toEqual(ownMarks);
    expect(asked).toHaveLength(1);
  });

  it("may live where its cookie cannot be asked for", () => {
    mark(`netns-${alive}`, `cookie-${alive}-76`);
    found = failure("EPERM");
    expect(() => claimIn(own)).toThrow(inUse);
  });

  it("is gone when all who were in it have ended meanwhile", () => {
    mark(`netns-${alive}`, `cookie-${alive}-77`);
    found = failure("ENOENT");
    claimIn(own);
    found = { inode: 3n, cookie: 78n };
    mark(`netns-${alive}`, `cookie-${alive}-77`);
    claimIn(own);
    expect(marks()).toEqual(ownMarks);
  });
});

describe("what a release has left that knew inodes alone", () => {
  it("is taken over in its namespace, and marked anew", () => {
    mark("netns-1");
    claimIn(own);
    expect(marks()).toEqual(ownMarks);
  });

  it("is refused while a namespace has that inode, whichever it is", () => {
    mark(`netns-${alive}`);
    expect(() => claimIn(own)).toThrow(inUse);
    expect(asked).toEqual([]);
  });

  it("is taken over when no namespace has it", () => {
    mark(`netns-${gone}`);
    claimIn(own);
    expect(marks()).toEqual(ownMarks);
  });

  it("has a cookie beside it that is nobody's when that release took the directory over", () => {
    mark("netns-1", `cookie-${alive}-77`);
    claimIn(own);
    expect(marks()).toEqual(ownMarks);
  });
});
