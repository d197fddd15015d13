// SPDX-License-Identifier: Apache-2.0
/** What two daemons send each other, read by tshark with the dissector as it is installed. */
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { HostInfo } from "../../src/api/contract.js";
import { Lab, eventually, run, tryRun, type Host } from "../lib/lab.js";
import { dissector, readWithTshark } from "../lib/tshark.js";
import { addressVnet4, attachedHosts, quickHello } from "./world.js";

let lab: Lab;
let hosts: Host[];
beforeAll(async () => {
  lab = await Lab.create();
  hosts = await attachedHosts(lab, ["a", "b"], { config: quickHello });
});
afterAll(() => lab.close());

it("hellos, requests, announces and frames of the daemons have the values that the daemons have", async () => {
  const a = hosts[0]!;
  const capture = await a.capture("eth0", "udp port 1798");
  await addressVnet4(hosts);
  await eventually(async () => (await a.ping("10.4.0.2", { count: 2 })).received > 0, {
    timeoutMs: 30_000,
    what: "an answer",
  });
  // nobody has it: the daemon asks
  await a.exec("ip neigh replace 10.4.0.9 lladdr 02:00:00:00:00:09 dev vnif0004");
  await a.tryExec("ping -c 1 -W 1 10.4.0.9");
  const other = (await eventually(async () => (await a.vnetdJson<HostInfo[]>(["hosts"]))[0], {
    what: "the other host",
  }))!;
  const fields = [
    ...["ip.src", "varp.op", "varp.vnet", "varp.vmac", "varp.address", "varp.hello.host_id"],
    ...["varp.hello.name", "varp.hello.mtu", "vudp.vnet", "icmp.type", "vnetd.malformed"],
  ];
  await eventually(
    async () => {
      const { rows, complaints } = await readWithTshark(capture.bytes, fields);
      expect(complaints).toBe("");
      expect(rows.filter((row) => row["vnetd.malformed"]!.length > 0)).toEqual([]);
      // of one vnet, or of all in a list, as it comes
      expect(rows).toContainEqual(
        expect.objectContaining({
          ...{ "ip.src": ["10.66.1.2"], "varp.op": ["2"], "varp.address": ["10.66.1.2"] },
          "varp.hello.mtu": ["1500"],
          "varp.hello.host_id": [other.hostId.replaceAll("-", "")],
          "varp.hello.name": [other.name],
        }),
      );
      expect(rows).toContainEqual(
        expect.objectContaining({ "varp.op": ["1"], "varp.vmac": ["02:00:00:00:00:09"] }),
      );
      const echo = { "vudp.vnet": ["0004"], "icmp.type": ["0"] };
      expect(rows).toContainEqual(expect.objectContaining(echo));
      return true;
    },
    { timeoutMs: 20_000, what: "all that is looked for on the wire" },
  );
  await capture.stop();
});

describe("make install", () => {
  it("puts it where Wireshark looks, and uninstalling takes it away", async () => {
    const scripts = join(import.meta.dirname, "..", "..", "scripts");
    const tree = join(lab.directory, "tree");
    const destdir = join(lab.directory, "dest");
    const folders = (await run(["tshark", "-G", "folders"])).stdout;
    const plugins = /^Global Lua Plugins:\s*(.*)$/mu.exec(folders)![1]!;
    // no more of a tree than the script looks at
    for (const directory of ["bin", "wireshark", "man/man8"])
      mkdirSync(join(tree, directory), { recursive: true });
    writeFileSync(join(tree, "wireshark/vnetd.lua"), readFileSync(dissector));
    for (const name of [
      ...["bin/vnetd", "bin/vn", "vnetd.service.in", "10-vnetd.network", "man/man8/vnetd.8"],
      ...["completion.bash", "completion.zsh"],
    ])
      writeFileSync(join(tree, name), "");
    const script = (...args: string[]): ReturnType<typeof run> =>
      run([join(scripts, "install-tree"), ...args, "--destdir", destdir]);
    await script("--from", tree);
    const link = join(destdir, plugins, "vnetd.lua");
    const { stdout } = await run(["readlink", link]);
    expect(stdout.trim()).toBe("/usr/local/lib/vnetd/wireshark/vnetd.lua");
    await script("--uninstall");
    expect(existsSync(join(destdir, plugins))).toBe(false);
  });

  it("Wireshark finds it there by itself", async () => {
    const { stdout: found } = await tryRun(["tshark", "-G", "folders"]);
    const plugins = /^Global Lua Plugins:\s*(.*)$/mu.exec(found)![1]!;
    const beside = join(lab.directory, "plugins");
    mkdirSync(beside);
    symlinkSync(dissector, join(beside, "vnetd.lua"));
    const { stdout } = await run([
      ...["unshare", "-m", "sh", "-c"],
      `mkdir -p ${plugins} && mount --bind ${beside} ${plugins} && tshark -G protocols`,
    ]);
    for (const name of ["vudp", "varp", "vfwd"])
      expect(stdout).toMatch(new RegExp(`\\t${name}$`, "mu"));
  });
});
