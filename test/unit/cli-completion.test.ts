// SPDX-License-Identifier: Apache-2.0
/** What may follow a half-typed line, for every command and option there is. */
import { describe, expect, it } from "vitest";
import { commands } from "../../cli/commands.js";
import { complete, filesMark } from "../../cli/complete.js";
import { cli } from "./lib/cli.js";

const sources = {
  devices: () => ["eth0", "eth1"],
  vnets: () => Promise.resolve(["0097", "0001:0:0:0:0:0:0:ab"]),
};
const after = async (line: string): Promise<string[]> =>
  (await complete(line, commands, sources)).sort();

describe("completion", () => {
  it.each([
    ["vnetd vnet-", ["vnet-create", "vnet-delete", "vnet-list"]],
    ["  vn   vnet-d", ["vnet-delete"]],
    ["/usr/bin/vnetd --json vnet-d", ["vnet-delete"]],
    ["vnetd --run-dir vnets vnet-d", ["vnet-delete"]],
    ["vnetd --run-dir ", [filesMark]],
    ["vnetd colour ", []],
    ["vnetd colour -", []],
    ["vnetd", []],
    ["", []],
    ["vnetd __comp", []],
    ["vnetd vnets --a", ["--all"]],
    ["vnetd vnets -l --lo", ["--long"]],
    ["vnetd vnets ", []],
    ["vnetd vnet-create ", [filesMark]],
    ["vnetd vnet-create -s ", ["auth", "conf", "none"]],
    ["vnetd vnet-create --security c", ["conf"]],
    ["vnetd vnet-create --suite gcm", ["gcm", "gcm256"]],
    ["vnetd key-", ["key-gen", "key-rotate"]],
    ["vnetd key-rotate 97 ", [":files"]],
    ["vnetd vnet-create -b e", ["eth0", "eth1"]],
    ["vnetd vnet-create -v ", []],
    ["vnetd vnet-create - ", []],
    ["vnetd apply ", [filesMark]],
    [
      "vnetd apply --",
      ["--dry-run", "--follow", "--help", "--json", "--prune", "--run-dir", "--version"],
    ],
    ["vnetd rel", ["reload"]],
    ["vnetd completion ", ["bash", "zsh"]],
    ["vnetd attach ", ["eth0", "eth1"]],
    ["vnetd attach --config ", [filesMark]],
    ["vnetd attach eth0 ", []],
    ["vnetd vif-add 97 ", ["eth0", "eth1"]],
    ["vnetd vif-add --st", ["--static"]],
    ["vn varp-", ["varp-add", "varp-delete", "varp-flush"]],
    ["vnetd varp-add 97 02:0:0:0:0:1 192.0.2.2 --device ", ["eth0", "eth1"]],
    ["vnetd varp-delete 009", ["0097"]],
    ["vnetd vif-add -i 97 eth1", ["eth1"]],
    ["vnetd vnet-delete 00", ["0001:0:0:0:0:0:0:ab", "0097"]],
    ["vnetd vnet-delete 0001:0", ["0001:0:0:0:0:0:0:ab"]],
    ["vnetd vnet-list 97 009", ["0097"]],
    ["vnetd vnet-delete 97 ", []],
    ["vnetd run --metrics-listen ", []],
  ])("%j", async (line, expected) => {
    expect(await after(line)).toEqual([...expected].sort());
  });

  it("offers every command but the hidden one, and every option", async () => {
    expect(await after("vnetd ")).toEqual(
      commands
        .map(({ name }) => name)
        .filter((name) => name !== "__complete")
        .sort(),
    );
    for (const { name, options } of commands) {
      const offered = await after(`vnetd ${name} -`);
      for (const option of options ?? []) expect(offered).toContain(`--${option.name}`);
      expect(offered).toEqual(expect.arrayContaining(["--help", "--json", "--run-dir"]));
    }
  });

  it("has a function for either shell, chosen by name or by SHELL", async () => {
    const bash = await cli(["completion", "bash"]);
    const zsh = await cli(["completion", "zsh"]);
    expect(bash.stdout).toContain("complete -F _vnetd vnetd vn\n");
    expect(zsh.stdout).toMatch(/^#compdef vnetd vn\n/);
    expect(await cli(["completion"], { variables: { SHELL: "/bin/bash" } })).toEqual(bash);
    expect(await cli(["completion"], { variables: { SHELL: "/usr/bin/zsh" } })).toEqual(zsh);
    expect((await cli(["completion"], { variables: { SHELL: "/bin/dash" } })).code).toBe(2);
    expect((await cli(["completion"])).code).toBe(2);
  });

  it("never fails for want of a daemon", async () => {
    expect(await cli(["__complete", "vnetd vnet-delete ", "--run-dir", "/nonexistent"])).toEqual({
      code: 0,
      stdout: "",
      stderr: "",
    });
  });
});
