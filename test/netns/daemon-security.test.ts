// SPDX-License-Identifier: Apache-2.0
/**
 * A level of security that cannot be had is never replaced by none: not when it is written into
 * the state of a stopped daemon, and not by a request that is misunderstood.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ErrorBody, StatusInfo, VnetState } from "../../src/api/contract.js";
import { Lab, eventually, repository, type Host, type RunResult } from "../lib/lab.js";
import { attachedHosts, callApi, longId, startDaemon } from "./world.js";

let lab: Lab;
let a: Host;
let b: Host;
const id = longId("97");

const stateOf = async (host: Host): Promise<VnetState | undefined> =>
  (await host.vnetdJson<VnetState[]>(["vnets"])).find((vnet) => vnet.id === id);

/** Stops the daemon, writes the level into its state, and starts it again. */
async function restartWith(host: Host, from: string, to: string): Promise<void> {
  await host.killDaemon();
  const file = join(host.stateDir, "state.yaml");
  const text = readFileSync(file, "utf8");
  expect(text).toContain(`security: ${from}`);
  writeFileSync(file, text.replace(`security: ${from}`, `security: ${to}`));
  await startDaemon(host);
}

const pingFromA = async (): Promise<number> =>
  (await a.ping("10.97.0.2", { count: 3, intervalMs: 50, waitMs: 300 })).received;

beforeAll(async () => {
  lab = await Lab.create();
  [a, b] = (await attachedHosts(lab, ["a", "b"])) as [Host, Host];
  for (const [host, n] of [
    [a, 1],
    [b, 2],
  ] as const) {
    await host.vnetd(["vnet-create", "-b", "none", "-v", "vnif97", "97"]);
    await host.exec(`ip addr add 10.97.0.${n}/24 dev vnif97`);
  }
  expect(await pingFromA()).toBe(3);
});
afterAll(() => lab.close());

describe("a level in the state file that cannot be had", () => {
  it("takes the vnet down, says why, and lets nothing through in clear", async () => {
    await restartWith(a, "none", "auth");
    expect(await stateOf(a)).toMatchObject({
      security: "auth",
      up: false,
      problem: expect.stringMatching(/no default key: no file .*default\.key/) as string,
    });
    const { problems } = await a.vnetdJson<StatusInfo>(["status"]);
    expect(problems.join("\n")).toMatch(/97: this host has no default key/);
    expect(a.daemon.stderr).toMatch(/97 is not up: this host has no default key/);
    expect(await pingFromA()).toBe(0);
    await b.ping("10.97.0.1", { count: 3, intervalMs: 50, waitMs: 300 });
    await eventually(async () => {
      const { drops } = await a.vnetdJson<StatusInfo>(["status"]);
      return drops.some(({ reason, direction }) => reason === "security" && direction === "decap");
    });
  });

  it("is down as well where nothing of the vnet is left in the kernel", async () => {
    await a.killDaemon();
    await a.exec("ip link del vnif97");
    await lab.execInSwitch(`rm -rf ${a.bpffs}`);
    await startDaemon(a);
    expect(await stateOf(a)).toMatchObject({ security: "auth", up: false });
    expect(await a.ip("link", "show", "type", "veth")).not.toContainEqual(
      expect.objectContaining({ ifname: "vnif97" }),
    );
  });

  it("runs again when it is none again", async () => {
    await restartWith(a, "auth", "none");
    expect(await stateOf(a)).toMatchObject({ security: "none", up: true, problem: "" });
    await a.exec("ip addr add 10.97.0.1/24 dev vnif97");
    await eventually(async () => (await pingFromA()) === 3);
  });

  it("can be deleted, and leaves nothing in the maps", async () => {
    await restartWith(a, "none", "conf");
    await a.vnetd(["vnet-delete", "97"]);
    await a.vnetd(["vnet-create", "-b", "none", "-v", "vnif97", "97"]);
    expect(await stateOf(a)).toMatchObject({ security: "none", up: true });
  });
});

describe("keys", () => {
  const create = (...args: string[]): Promise<RunResult> =>
    b.tryVnetd(["--json", "vnet-create", ...args]);
  const refusal = ({ stderr }: RunResult): ErrorBody => JSON.parse(stderr) as ErrorBody;

  it("without one, a secure vnet is refused with the key that is missing and its command", async () => {
    const error = refusal(await create("-s", "conf", "99"));
    const path = join(b.stateDir, "keys/default.key");
    expect(error.code).toBe("NO_KEY");
    expect(error.message).toContain(path);
    expect(error.hint).toContain(`vnetd key-gen ${path}`);
  });

  it("key-gen makes the one that the daemon finds; a kernel without ESP is told by what it lacks", async () => {
    const args = ["key-gen", "--state-dir", b.stateDir];
    const { file, keyId } = await b.vnetdJson<{ file: string; keyId: string }>(args);
    expect(file).toBe(join(b.stateDir, "keys/default.key"));
    expect(keyId).toMatch(/^[0-9a-f]{16}$/);
    expect((await b.exec(["stat", "-c", "%a %u", file])).stdout.trim()).toBe("600 0");
    const { code, message } = refusal(await create("-s", "conf", "99"));
    expect(code).toBe("SECURITY_UNAVAILABLE");
    expect(message).toMatch(/^security conf cannot be had on this host: .*CONFIG_INET_ESP/);
    expect(await b.ip("link", "show", "type", "veth")).not.toContainEqual(
      expect.objectContaining({ ifname: "vnif0099" }),
    );
    expect(await b.tryVnetd(args)).toMatchObject({ code: 1 });
  });

  it("a key that others can read is refused by name, and shown nowhere", async () => {
    const file = join(b.stateDir, "open.key");
    await b.vnetd(["key-gen", file]);
    await b.exec(["chmod", "644", file]);
    const { message, hint } = refusal(await create("-s", "auth", "-k", file, "99"));
    expect(message).toMatch(/open\.key cannot be used: others may read or write it \(mode 0644\)/);
    expect(hint).toContain(`chmod 600 ${file}`);
    const secret = readFileSync(file, "utf8").split("vnetd-key-1:")[1]?.trim() ?? "";
    expect(secret).toHaveLength(44);
    expect(b.daemon.stderr + message + (hint ?? "")).not.toContain(secret.slice(0, 12));
  });

  it("the path of a stored vnet's key is listed", async () => {
    await b.killDaemon();
    const file = join(b.stateDir, "state.yaml");
    const text = readFileSync(file, "utf8");
    writeFileSync(file, text.replace("security: none", 'security: conf\n    key: "blue.key"'));
    await startDaemon(b);
    const vnet = (await b.vnetdJson<VnetState[]>(["vnets"])).find((each) => each.id === id);
    expect(vnet).toMatchObject({ key: "blue.key", up: false });
    expect(vnet?.problem).toContain(join(b.stateDir, "keys/blue.key"));
    expect((await b.vnetd(["vnet-list"])).stdout).toMatch(/conf +blue\.key/);
  });
});

describe("commands about keys, where nothing is secure", () => {
  const refusal = async (...args: string[]): Promise<ErrorBody> => {
    const { code, stderr } = await a.tryVnetd(["--json", ...args]);
    expect(code).toBe(1);
    return JSON.parse(stderr) as ErrorBody;
  };

  it("for a vnet without security, or that is not there: said by code", async () => {
    const file = join(a.stateDir, "new.key");
    await a.vnetd(["key-gen", file]);
    for (const args of [
      ["rekey", "97"],
      ["keys", "97"],
      ["key-rotate", "97", file],
      ["key-rotate", "97", "--end"],
    ]) {
      expect(await refusal(...args)).toMatchObject({
        code: "NOT_SECURE",
        message: expect.stringContaining("its security is none") as string,
      });
      const [command = "", , ...rest] = args;
      expect(await refusal(command, "9a", ...rest)).toMatchObject({ code: "VNET_NOT_FOUND" });
    }
    expect(readFileSync(join(a.stateDir, "state.yaml"), "utf8")).not.toContain("new.key");
  });

  it("for all: there are none", async () => {
    for (const command of ["rekey", "keys"]) {
      expect(await a.vnetdJson<unknown[]>([command])).toEqual([]);
      const { stdout, stderr } = await a.vnetd([command]);
      expect([stdout, stderr]).toEqual(["", expect.stringContaining("no secure vnets")]);
    }
    expect((await a.vnetd(["status"])).stdout).not.toMatch(/^secure/m);
  });
});

describe("the daemon's memory", () => {
  const exeOf = (pid: number, ...as: string[]): Promise<RunResult> =>
    a.tryExec(["setpriv", ...as, "readlink", `/proc/${pid}/exe`]);
  // who has not this capability may follow the links of its own user's processes, if they are dumpable
  const without = "--bounding-set=-sys_ptrace";

  it("is not dumpable, and leaves no core", async () => {
    await a.killDaemon();
    const program = lab.file(
      "plain-vnetd",
      `#!/bin/sh\nexec setpriv ${without} ${process.execPath} ${repository}/bin/vnetd "$@"\n`,
    );
    await a.exec(["chmod", "755", program]);
    await startDaemon(a, { program });
    const pid = a.daemon.child.pid ?? 0;
    expect(await a.vnetdJson<StatusInfo>(["status"])).toMatchObject({ pid });
    const other = a.spawn(["setpriv", without, "sleep", "600"]);
    await eventually(async () => (await exeOf(other.child.pid ?? 0, without)).code === 0);
    expect((await exeOf(pid, without)).code).not.toBe(0);
    expect((await exeOf(pid, "--reuid=65534", "--clear-groups")).code).not.toBe(0);
    await other.stop();
    const limits = readFileSync(`/proc/${pid}/limits`, "utf8");
    expect(limits).toMatch(/^Max core file size +0 +0 +bytes/m);
  });
});

describe("a request with something unknown", () => {
  const refused = async (params: object, says: string): Promise<void> => {
    const request = { v: 1, id: 1, method: "vnetCreate", params };
    expect(await callApi(a, `${JSON.stringify(request)}\n`)).toMatchObject({
      error: { code: "BAD_REQUEST", message: expect.stringContaining(says) as string },
    });
    expect((await a.vnetdJson<VnetState[]>(["vnets"])).map((vnet) => vnet.id)).not.toContain(
      longId("99"),
    );
  };

  it("makes no vnet", async () => {
    await refused({ parameters: { id: "99", frob: "x" } }, '"frob"');
    await refused({ parameters: { id: "99" }, security: "auth" }, '"security"');
    await refused({ text: "(vnet (id 99))", security: "auth" }, '"security"');
    await refused({ text: "(vnet (id 99))", parameters: { id: "99" } }, '"text"');
  });
});
