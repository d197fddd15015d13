// SPDX-License-Identifier: Apache-2.0
/** Locks, peers' credentials, the service manager's socket, file systems. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  closeSync,
  copyFileSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";

import { loadNative } from "../../src/native/load.js";
import { addonPath, errorOf, temporaryDirectory } from "./support.js";

const native = loadNative();
const work = temporaryDirectory();
const children: ChildProcess[] = [];

afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});
afterAll(() => {
  rmSync(work, { recursive: true });
});

/** A process whose first line of output is awaited. */
async function startAndHear(command: string, ...parameters: string[]) {
  const child = spawn(command, parameters, { stdio: ["pipe", "pipe", "inherit"] });
  children.push(child);
  const lines: string[] = [];
  let rest = "";
  const waiting: (() => void)[] = [];
  child.stdout.on("data", (data: Buffer) => {
    const parts = (rest + data.toString()).split("\n");
    rest = parts.pop() ?? "";
    lines.push(...parts);
    for (const wake of waiting.splice(0)) wake();
  });
  const line = async (): Promise<string> => {
    while (lines.length === 0) await new Promise<void>((resolve) => waiting.push(resolve));
    return lines.shift() ?? "";
  };
  return { child, line };
}

describe("network namespaces", () => {
  test("each has an inode and a cookie, and asking another leaves this one where it is", async () => {
    const own = native.netnsIdentity();
    expect(own.inode).toBe(statSync("/proc/self/ns/net", { bigint: true }).ino);
    const name = `a-identity-${process.pid}`;
    execFileSync("ip", ["netns", "add", name]);
    try {
      const other = native.netnsIdentity(`/run/netns/${name}`);
      expect(other.inode).not.toBe(own.inode);
      expect(other.cookie).not.toBe(own.cookie);
      expect(native.netnsIdentity(`/run/netns/${name}`)).toEqual(other);
      expect(native.netnsIdentity()).toEqual(own);
      expect(native.netnsIdentity("/proc/self/ns/net")).toEqual(own);
      const inside = ["nsenter", `--net=/run/netns/${name}`, process.execPath, "-p"];
      inside.push(`require(${JSON.stringify(addonPath)}).netnsIdentity().cookie.toString()`);
      expect(
        spawnSync(inside[0] as string, inside.slice(1))
          .stdout.toString()
          .trim(),
      ).toBe(String(other.cookie));
    } finally {
      execFileSync("ip", ["netns", "delete", name]);
    }
  });

  test("a cookie is never given again, as an inode may be", () => {
    const cookies = new Set<bigint>();
    const name = `a-again-${process.pid}`;
    for (let round = 0; round < 10; round++) {
      execFileSync("ip", ["netns", "add", name]);
      cookies.add(native.netnsIdentity(`/run/netns/${name}`).cookie);
      execFileSync("ip", ["netns", "delete", name]);
    }
    expect(cookies.size).toBe(10);
  });

  test("what is none, is not there, or may not be entered", () => {
    const ofNone = errorOf(() => native.netnsIdentity("/proc/self/ns/mnt"));
    expect(ofNone).toMatchObject({ code: "EINVAL", detail: "it is no network namespace" });
    for (const where of [work, "/dev/null"]) {
      expect(errorOf(() => native.netnsIdentity(where)).code).toBe("EINVAL");
    }
    expect(errorOf(() => native.netnsIdentity(join(work, "none"))).code).toBe("ENOENT");
    const { stdout } = spawnSync("setpriv", [
      ...["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", process.execPath, "-e"],
      `const { netnsIdentity } = require(${JSON.stringify(addonPath)});
       try { netnsIdentity("/proc/self/ns/net"); } catch (error) { console.log(error.code); }
       console.log(typeof netnsIdentity().cookie);`,
    ]);
    expect(stdout.toString()).toBe("EPERM\nbigint\n");
  });
});

describe("abstract names", () => {
  test("one process has one, and is told to others; it is free again when that one dies", async () => {
    const name = `vnetd-test-${process.pid}`;
    const holder = await startAndHear(
      process.execPath,
      "-e",
      `console.log(require(${JSON.stringify(addonPath)}).abstractListen(${JSON.stringify(name)}));
       setInterval(() => {}, 1000);`,
    );
    expect(Number(await holder.line())).toBeGreaterThan(2);
    expect(errorOf(() => native.abstractListen(name)).code).toBe("EADDRINUSE");
    const fd = native.abstractConnect(name);
    expect(native.peerCredentials(fd)).toMatchObject({ pid: holder.child.pid, uid: 0 });
    native.close(fd);
    holder.child.kill("SIGKILL");
    await once(holder.child, "exit");
    expect(errorOf(() => native.abstractConnect(name)).code).toBe("ECONNREFUSED");
    native.close(native.abstractListen(name));
    expect(errorOf(() => native.abstractListen("n".repeat(108))).code).toBe("ENAMETOOLONG");
  });
});

describe("fileLock", () => {
  test("one process has it; it is free again when that one dies", async () => {
    const path = join(work, "lock");
    writeFileSync(path, "");
    const holder = await startAndHear(
      process.execPath,
      "-e",
      `const fd = require("fs").openSync(${JSON.stringify(path)}, "r");
       console.log(require(${JSON.stringify(addonPath)}).fileLock(fd)); setInterval(() => {}, 1000);`,
    );
    expect(await holder.line()).toBe("true");
    const fd = openSync(path, "r");
    expect(native.fileLock(fd)).toBe(false);
    holder.child.kill("SIGKILL");
    await once(holder.child, "exit");
    expect(native.fileLock(fd)).toBe(true);
    expect(native.fileLock(fd)).toBe(true);
    const second = openSync(path, "r");
    expect(native.fileLock(second)).toBe(false);
    closeSync(fd);
    expect(native.fileLock(second)).toBe(true);
    closeSync(second);
    expect(errorOf(() => native.fileLock(fd))).toMatchObject({
      code: "EBADF",
      operation: "fileLock",
    });
  });
});

describe("peerCredentials", () => {
  function fdOf(socket: Socket): number {
    return (socket as unknown as { _handle: { fd: number } })._handle.fd;
  }

  test("tells who is at the other end", async () => {
    const path = join(work, "socket");
    const server = createServer().listen(path);
    await once(server, "listening");
    chmodSync(work, 0o755);
    chmodSync(path, 0o777);
    const script = `process.setuid(65534); require("net").connect(${JSON.stringify(path)});`;
    const child = spawn(process.execPath, ["-e", script]);
    children.push(child);
    const [socket] = (await once(server, "connection")) as [Socket];
    expect(native.peerCredentials(fdOf(socket))).toEqual({ pid: child.pid, uid: 65534, gid: 0 });
    const own = connect(path);
    const [accepted] = (await once(server, "connection")) as [Socket];
    expect(native.peerCredentials(fdOf(accepted))).toEqual({ pid: process.pid, uid: 0, gid: 0 });
    own.destroy();
    socket.destroy();
    server.close();
  });

  test("nobody's credentials pass for nobody", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const fd = (server as unknown as { _handle: { fd: number } })._handle.fd;
    expect(errorOf(() => native.peerCredentials(fd)).code).toBe("EAFNOSUPPORT");
    server.close();
  });
});

describe("sdNotify", () => {
  const receiver = `
    use Socket; $| = 1;
    socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die; my $path = shift; $path =~ s/^@/\\0/;
    bind($s, pack("S a*", AF_UNIX, $path)) or die "$!"; print "ready\\n";
    while (1) { recv($s, my $data, 4096, 0); $data =~ s/\\n/|/g; print "$data\\n"; }`;

  afterEach(() => {
    delete process.env["NOTIFY_SOCKET"];
  });

  test.each([
    ["a path", () => join(work, "notify")],
    ["an abstract name", () => `@vnetd-a-test-${String(process.pid)}`],
  ])("to %s", async (_name, address) => {
    const { line } = await startAndHear("perl", "-e", receiver, address());
    expect(await line()).toBe("ready");
    process.env["NOTIFY_SOCKET"] = address();
    expect(native.sdNotify("READY=1\nSTATUS=two vnets")).toBe(true);
    expect(await line()).toBe("READY=1|STATUS=two vnets");
  });

  test("nobody asked: false; nobody there: an error", () => {
    expect(native.sdNotify("READY=1")).toBe(false);
    process.env["NOTIFY_SOCKET"] = "";
    expect(native.sdNotify("READY=1")).toBe(false);
    process.env["NOTIFY_SOCKET"] = join(work, "nobody");
    expect(errorOf(() => native.sdNotify("READY=1")).code).toBe("ENOENT");
    process.env["NOTIFY_SOCKET"] = "@nobody-there";
    expect(errorOf(() => native.sdNotify("READY=1")).code).toBe("ECONNREFUSED");
    process.env["NOTIFY_SOCKET"] = `/${"x".repeat(200)}`;
    expect(errorOf(() => native.sdNotify("READY=1")).code).toBe("ENAMETOOLONG");
    process.env["NOTIFY_SOCKET"] = "vsock:2:1";
    expect(errorOf(() => native.sdNotify("READY=1")).code).toBe("EAFNOSUPPORT");
  });
});

describe("memoryHide", () => {
  // in a directory that everybody may enter, which a checkout's or a Node's may be not
  const [addon, node] = [join(work, "vnetd.node"), join(work, "node")];
  const script = `
    const native = require(${JSON.stringify(addon)});
    console.log("as it is");
    process.stdin.once("data", () => { native.memoryHide(); console.log("hidden"); });
    setInterval(() => {}, 1000);`;
  const readAs = (uid: number, pid: number | undefined): number | null =>
    spawnSync("cat", [`/proc/${String(pid)}/environ`], { uid, gid: uid }).status;

  test("no core, and no look at the memory for its own user", async () => {
    copyFileSync(addonPath, addon);
    copyFileSync(process.execPath, node);
    for (const path of [work, addon, node]) chmodSync(path, 0o755);
    const child = spawn(node, ["-e", script], {
      uid: 65534,
      gid: 65534,
      stdio: ["pipe", "pipe", "inherit"],
    });
    children.push(child);
    let heard = "";
    child.stdout.on("data", (data: Buffer) => (heard += data.toString()));
    const until = async (text: string): Promise<void> => {
      while (!heard.includes(text)) await once(child.stdout, "data");
    };
    await until("as it is");
    expect(readAs(65534, child.pid)).toBe(0);
    child.stdin.write("go");
    await until("hidden");
    expect(readAs(65534, child.pid)).not.toBe(0);
    const limits = readFileSync(`/proc/${String(child.pid)}/limits`, "utf8");
    expect(limits).toMatch(/^Max core file size +0 +0 +bytes/m);
  });
});

test("filesystemType", () => {
  const hex = execFileSync("stat", ["-f", "-c", "%t", work], { encoding: "utf8" }).trim();
  expect(native.filesystemType(work).toString(16)).toBe(hex);
  expect(native.filesystemType("/proc")).toBe(0x9fa0);
  expect(errorOf(() => native.filesystemType(join(work, "none")))).toMatchObject({
    code: "ENOENT",
  });
});

test("close", () => {
  const fd = openSync("/dev/null", "r");
  native.close(fd);
  expect(errorOf(() => native.close(fd))).toMatchObject({ code: "EBADF", operation: "close" });
});
