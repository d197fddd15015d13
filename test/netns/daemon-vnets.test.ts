// SPDX-License-Identifier: Apache-2.0
/**
 * vnet-create and vnet-delete in all their variants: what is made, what is refused and leaves
 * nothing behind, what persists.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { BridgeInfo, StatusInfo, VnetInfo, VnetState } from "../../src/api/contract.js";
import { Lab, eventually, type Host } from "../lib/lab.js";
import { peerNameOf } from "../../src/host/names.js";
import { callApi, longId, startDaemon } from "./world.js";

let lab: Lab;
let a: Host;

beforeAll(async () => {
  lab = await Lab.create();
  a = await lab.host("a", { underlay: "10.66.1.1/24" });
  await startDaemon(a);
});
afterAll(() => lab.close());

const links = async (): Promise<string[]> =>
  (await a.ip<{ ifname: string }[]>("link", "show")).map(({ ifname }) => ifname).sort();
const list = async (): Promise<VnetInfo[]> => {
  const answer = await callApi(a, '{"v":1,"id":1,"method":"vnetList","params":{}}\n');
  return answer?.["result"] as VnetInfo[];
};
const ids = async (): Promise<string[]> => (await list()).map(({ id }) => id);

/** vnet-create with this text fails with this code, says this, and leaves everything as it was. */
async function refused(text: string, code: string, says: RegExp): Promise<void> {
  await refusedRequest("vnetCreate", { text, source: "test.sxp" }, code, says);
}

async function refusedRequest(
  method: string,
  params: object,
  code: string,
  says: RegExp,
): Promise<void> {
  const before = [await links(), await list()];
  const answer = await callApi(a, `${JSON.stringify({ v: 1, id: 1, method, params })}\n`);
  expect(answer).toMatchObject({ error: { code } });
  expect(JSON.stringify(answer)).toMatch(says);
  expect([await links(), await list()]).toEqual(before);
}

describe("vnet-create", () => {
  it("takes the original's file, comments included", async () => {
    const file = lab.file(
      "one.sxp",
      "# a vnet\n(vnet (id 97) (bridge vnet97) (vnetif vnif97) (security none))\n",
    );
    await a.vnetd(["vnet-create", file]);
    expect(await list()).toContainEqual({
      id: longId("97"),
      bridge: "vnet97",
      vnetif: "vnif97",
      security: "none",
      key: null,
      suite: null,
      encapsulation: "udp",
      suppress: false,
      group: null,
      group6: null,
    });
    expect(await links()).toEqual(expect.arrayContaining(["vnet97", "vnif97"]));
  });

  it("takes YAML with several, JSON, and parameters", async () => {
    await a.vnetd([
      "vnet-create",
      lab.file("y.yaml", "- {id: 1e3, bridge: by}\n- id: 0101\n  vnetif: vy\n"),
    ]);
    await a.vnetd(["vnet-create", lab.file("j.json", '{"id":"a:0:0:0:0:0:0:5","bridge":null}')]);
    await a.vnetd(["vnet-create", "-b", "bp", "-v", "vp", "500"]);
    const names = new Map((await list()).map(({ id, bridge, vnetif }) => [id, [bridge, vnetif]]));
    expect(names.get(longId("1e3"))).toEqual(["by", "vnif01e3"]);
    expect(names.get(longId("101"))).toEqual(["vnet0101", "vy"]);
    expect(names.get("000a:0000:0000:0000:0000:0000:0000:0005")).toEqual([null, "vnif0005"]);
    expect(names.get(longId("500"))).toEqual(["bp", "vp"]);
  });

  it("makes a bridge without delay and STP, and puts the vnetif on it", async () => {
    const [bridge] = await a.ip<
      { linkinfo: { info_data: { forward_delay: number; stp_state: number } } }[]
    >("-d", "link", "show", "vnet97");
    expect(bridge?.linkinfo.info_data).toMatchObject({ forward_delay: 0, stp_state: 0 });
    const [port] = await a.ip<{ master: string }[]>("link", "show", "vnif97");
    expect(port?.master).toBe("vnet97");
  });

  it("uses a bridge that is there, and leaves it when the vnet goes", async () => {
    await a.exec("ip link add mine type bridge && ip link set mine up");
    await a.vnetd(["vnet-create", "-b", "mine", "501"]);
    expect(await a.vnetdJson<BridgeInfo[]>(["bridges"])).toContainEqual({
      bridge: "mine",
      vnet: longId("501"),
      ports: ["vnif0501"],
      owned: false,
    });
    await a.vnetd(["vnet-delete", "501"]);
    expect(await links()).toContain("mine");
    expect(await links()).not.toContain("vnif0501");
  });

  it("refuses what is in use, by name and place, and makes nothing", async () => {
    await refused("(vnet (id 97))", "VNET_EXISTS", /97/);
    await refused("(vnet (id 600) (vnetif eth0))", "NAME_IN_USE", /eth0/);
    await refused("(vnet (id 600) (vnetif vnif97))", "NAME_IN_USE", /vnif97/);
    await refused("(vnet (id 600) (bridge vnet97))", "NAME_IN_USE", /vnet97/);
    await refused("(vnet (id 600) (vnetif vnet97))", "NAME_IN_USE", /vnet97/);
    await refused("(vnet (id 600)\n  (bridge eth0))", "NOT_A_BRIDGE", /eth0.*"line":2/);
    await refused(
      "(vnet (id 600) (bridge lo))",
      "NOT_A_BRIDGE",
      /"Name a bridge[^"]*then vnetd makes one\."/,
    );
    await refused("(vnet (id 600)\n (bridge default))", "BAD_NAME", /default.*reserves.*"line":2/);
    await refused("(vnet (id 600)\n (vnetif all))", "BAD_NAME", /"\\"all.*reserves.*"line":2/);
    await refused("(vnet (id 600) (security conf))", "NO_KEY", /default key/);
    await refused("(vnet (id 600) (vnetif a/b))", "BAD_NAME", /a\/b/);
    const cli = await a.tryVnetd(["vnet-create", "-b", "eth0", "600"]);
    expect(cli).toMatchObject({ code: 1, stdout: "" });
    expect(cli.stderr).toMatch(/eth0/);
  });

  it("takes a file whole or not at all", async () => {
    await refused(
      "(vnet (id 601))\n(vnet (id 602)\n (bridge eth0))\n",
      "NOT_A_BRIDGE",
      /test\.sxp/,
    );
    await refused("- id: 601\n- id: zz\n", "BAD_VNET_ID", /zz/);
  });

  it("undoes what it made when a later step fails", async () => {
    const peer = peerNameOf(longId("604"));
    await a.exec(`ip link add ${peer} type veth peer name other`);
    const says = new RegExp(`${peer}.*"source":"test.sxp","line":2`);
    await refused("(vnet (id 603))\n(vnet (id 604))\n", "NAME_IN_USE", says);
    await a.exec(`ip link del ${peer}`);
    await a.vnetd(["vnet-create", "604"]);
    await a.vnetd(["vnet-delete", "604"]);
  });
});

describe("vnet-delete", () => {
  it("takes everything away that was made", async () => {
    await a.vnetd(["vnet-delete", "97"]);
    const left = await links();
    expect(left).not.toContain("vnet97");
    expect(left).not.toContain("vnif97");
    expect(await ids()).not.toContain(longId("97"));
  });

  it("leaves a bridge of ours on which others have ports", async () => {
    await a.vnetd(["vnet-create", "700"]);
    await a.exec(
      "ip link add foreign type veth peer name foreign2 && ip link set foreign master vnet0700",
    );
    await a.vnetd(["vnet-delete", "700"]);
    expect(await links()).toContain("vnet0700");
    await a.exec("ip link del foreign; ip link del vnet0700");
  });

  it("says so when there is no such vnet", async () => {
    await refusedRequest("vnetDelete", { id: "777" }, "VNET_NOT_FOUND", /777/);
  });

  it("never uses a handle twice", async () => {
    const before = await a.vnetdJson<VnetState[]>(["vnets"]);
    const highest = Math.max(...before.map(({ handle }) => handle));
    for (let at = 0; at < 3; at++) {
      await a.vnetd(["vnet-create", "800"]);
      await a.vnetd(["vnet-delete", "800"]);
    }
    await a.vnetd(["vnet-create", "800"]);
    const now = (await a.vnetdJson<VnetState[]>(["vnets"])).find(({ id }) => id === longId("800"));
    expect(now?.handle).toBeGreaterThan(highest + 3);
  });
});

describe("built-in vnets", () => {
  it("are there, without a bridge", async () => {
    const states = await a.vnetdJson<VnetState[]>(["vnets"]);
    expect(
      states.filter(({ builtIn }) => builtIn).map(({ vnetif, bridge }) => [vnetif, bridge]),
    ).toEqual([
      ["vnif0002", null],
      ["vnif0003", null],
      ["vnif0004", null],
    ]);
  });

  it("are configured by vnet-create, with the same or another vnetif", async () => {
    await a.vnetd(["vnet-create", "2"]);
    await a.vnetd(["vnet-create", "-v", "three", "3"]);
    expect(await list()).toEqual(
      expect.arrayContaining([
        {
          id: longId("2"),
          bridge: "vnet0002",
          vnetif: "vnif0002",
          security: "none",
          key: null,
          suite: null,
          encapsulation: "udp",
          suppress: false,
          group: null,
          group6: null,
        },
        {
          id: longId("3"),
          bridge: "vnet0003",
          vnetif: "three",
          security: "none",
          key: null,
          suite: null,
          encapsulation: "udp",
          suppress: false,
          group: null,
          group6: null,
        },
      ]),
    );
    expect(await links()).not.toContain("vnif0003");
    const [port] = await a.ip<{ master: string }[]>("link", "show", "vnif0002");
    expect(port?.master).toBe("vnet0002");
    await refused("(vnet (id 2))", "VNET_EXISTS", /2/);
  });

  it("stay deleted, and can be made again", async () => {
    await a.vnetd(["vnet-delete", "4"]);
    await a.killDaemon();
    await startDaemon(a);
    expect(await ids()).not.toContain(longId("4"));
    expect(await links()).not.toContain("vnif0004");
    await a.vnetd(["vnet-create", "4"]);
    expect(await ids()).toContain(longId("4"));
  });
});

describe("what is configured", () => {
  it("is there after a restart, and after everything else was lost", async () => {
    const before = await list();
    await a.killDaemon("SIGKILL");
    // a reboot: no devices, no maps
    for (const name of await links()) {
      if (/^(vn|by|bp|three|lo$)/.test(name) && name !== "lo")
        await a.tryExec(["ip", "link", "del", name]);
    }
    await lab.execInSwitch(`rm -rf ${a.bpffs}`);
    await startDaemon(a);
    expect(await list()).toEqual(before);
    expect((await a.vnetdJson<VnetState[]>(["vnets"])).every(({ up }) => up)).toBe(true);
  });

  it("is repaired when somebody deletes a vnetif, and orphans of a crash are removed", async () => {
    await a.exec("ip link del vnif0500 2>/dev/null || ip link del vp");
    await eventually(async () => (await links()).includes("vp"), { what: "vp to come back" });
    expect(
      (await a.vnetdJson<StatusInfo>(["status"])).problems.filter((text) => text.includes("vnet")),
    ).toHaveLength(1);
    await a.killDaemon("SIGKILL");
    await a.exec(
      `ip link add orphan type bridge && ip link set orphan alias "vnetd ${longId("dead")}"`,
    );
    await startDaemon(a);
    expect(await links()).not.toContain("orphan");
    expect(await links()).toContain("mine");
  });
});
