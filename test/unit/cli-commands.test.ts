// SPDX-License-Identifier: Apache-2.0
/** The commands against a socket that answers what the test says: requests, output, exit codes. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type {
  PortInfo,
  AttachedDevice,
  ErrorBody,
  NeighbourEntry,
  SecureVnetInfo,
  StatusInfo,
  VnetState,
} from "../../src/api/contract.js";
import { durationText, printable, printableJson } from "../../cli/printable.js";
import { formatTable } from "../../cli/table.js";
import { cli, type CliOptions, type CliResult } from "./lib/cli.js";
import { FakeDaemon, type Answers } from "./lib/fake-daemon.js";

const id97 = "0000:0000:0000:0000:0000:0000:0000:0097";
const longId = "0001:0000:0000:0000:0000:0000:0000:0097";
const vnet97 = {
  id: id97,
  bridge: "vnet97",
  vnetif: "vnif97",
  security: "none",
  key: null,
  suite: null,
  encapsulation: "udp",
  suppress: false,
  group: null,
  group6: null,
} as const;
const state97: VnetState = {
  ...vnet97,
  handle: 5,
  up: true,
  problem: "",
  mtu: 1436,
  vmac: "02:00:00:00:00:97",
  entries: 12,
  hosts: 3,
  builtIn: false,
};
const eth0: AttachedDevice = {
  device: "eth0",
  address: "192.0.2.1",
  mode: "tcx",
  xdp: null,
  mtu: 1500,
  up: true,
  problem: "",
  group: "224.10.0.1",
  port: 1798,
  merge: true,
  groupWay: "multicast",
  groupWhy: "hosts were heard",
};
const status: StatusInfo = {
  version: "0.1.0",
  pid: 123,
  hostId: "ab".repeat(16),
  uptimeSeconds: 185,
  kernel: "6.1.0",
  bpffs: "/sys/fs/bpf/vnetd",
  layout: 1,
  attached: [eth0],
  encapsulation: "etherip",
  vnets: 4,
  hosts: 2,
  secure: { vnets: 0, paths: 0, keyed: 0, changing: 0 },
  table: { entries: 12, limit: 65536, learned: 20, moved: 1, aged: 3 },
  drops: [{ vnet: null, direction: "decap", reason: "unknown-vnet", frames: 7, bytes: 700 }],
  configuration: {
    file: "/etc/vnetd/vnetd.yaml",
    loadedSeconds: 90,
    reloads: 1,
    refused: 1,
    failure: { ageSeconds: 30, code: "CONFIG", message: "bad" },
  },
  problems: [],
};

let directory: string;
let daemon: FakeDaemon | undefined;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "vnetd-cli-"));
});
afterEach(async () => {
  await daemon?.stop();
  daemon = undefined;
  rmSync(directory, { recursive: true, force: true });
});

async function ask(
  answers: Answers,
  args: readonly string[],
  options: CliOptions = {},
): Promise<CliResult> {
  await daemon?.stop();
  daemon = await FakeDaemon.start(answers);
  return cli(["--run-dir", daemon.runDir, ...args], options);
}

const asked = (): unknown[] => (daemon?.asked ?? []).map(({ method, params }) => [method, params]);

describe("what is asked of the daemon", () => {
  it.each([
    [
      ["vnet-create", "97"],
      ["vnetCreate", { parameters: { id: "97" } }],
    ],
    [
      ["vnet-create", "0097"],
      ["vnetCreate", { parameters: { id: "0097" } }],
    ],
    [
      ["vnet-create", "1e3"],
      ["vnetCreate", { parameters: { id: "1e3" } }],
    ],
    [
      ["vnet-create", "0"],
      ["vnetCreate", { parameters: { id: "0" } }],
    ],
    [
      ["vnet-create", longId],
      ["vnetCreate", { parameters: { id: longId } }],
    ],
    [
      ["vnet-create", "-s", "none", "-b", "0x1", "-v", "1e3", "97"],
      ["vnetCreate", { parameters: { id: "97", security: "none", bridge: "0x1", vnetif: "1e3" } }],
    ],
    [
      ["vnet-create", "97", "--security=auth", "--bridge", "none"],
      ["vnetCreate", { parameters: { id: "97", security: "auth", bridge: "none" } }],
    ],
    [
      ["vnet-create", "97", "-s", "conf", "-k", "/k/../k/x.key"],
      ["vnetCreate", { parameters: { id: "97", security: "conf", key: "/k/x.key" } }],
    ],
    [
      ["vnet-create", "97", "--security", "conf", "--key", "./x.key"],
      [
        "vnetCreate",
        { parameters: { id: "97", security: "conf", key: join(process.cwd(), "x.key") } },
      ],
    ],
    [
      ["vnet-create", "97", "-s", "conf", "-k", "blue.key"],
      ["vnetCreate", { parameters: { id: "97", security: "conf", key: "blue.key" } }],
    ],
    [
      ["vnet-create", "97", "-s", "conf", "--suite", "gcm"],
      ["vnetCreate", { parameters: { id: "97", security: "conf", suite: "gcm" } }],
    ],
    [["vnet-list"], ["vnetList", {}]],
    [
      ["vnet-list", "97", "0098", "1e3"],
      ["vnetList", { ids: ["97", "0098", "1e3"] }],
    ],
    [["vnets"], ["vnets", {}]],
    [
      ["vnets", "-al"],
      ["vnets", { all: true }],
    ],
    [
      ["vnets", "-l"],
      ["vnets", {}],
    ],
    [["vnifs"], ["vnifs", {}]],
    [["vifs"], ["vifs", {}]],
    [["varp"], ["varp", {}]],
    [["neighbours"], ["neighbours", {}]],
    [
      ["neighbours", "97"],
      ["neighbours", { vnet: "97" }],
    ],
    [["bridges"], ["bridges", {}]],
    [["hosts"], ["hosts", {}]],
    [["keys"], ["keys", {}]],
    [
      ["keys", "97"],
      ["keys", { vnet: "97" }],
    ],
    [["rekey"], ["rekey", {}]],
    [
      ["rekey", "97"],
      ["rekey", { vnet: "97" }],
    ],
  ] as const)("%j", async (args, expected) => {
    await ask(
      {
        vnetCreate: [vnet97],
        vnetList: [],
        vnets: [],
        vnifs: [],
        vifs: [],
        varp: [],
        neighbours: [],
        bridges: [],
        hosts: [],
        keys: [],
        rekey: [],
      },
      args,
    );
    expect(asked()).toEqual([expected]);
  });

  it.each([
    [
      ["vnet-delete", "97"],
      ["vnetDelete", { id: "97" }],
    ],
    [
      ["vif-add", "97", "AA-0-0-1-2-3"],
      ["vifAdd", { vnet: "97", vmac: "aa:00:00:01:02:03" }],
    ],
    [
      ["vif-add", "-i", "97", "eth0"],
      ["vifAdd", { vnet: "97", vmac: "eth0", byDevice: true }],
    ],
    [
      ["vif-add", "97", "-i", "aabbccddeeff"],
      ["vifAdd", { vnet: "97", vmac: "aabbccddeeff", byDevice: true }],
    ],
    [
      ["vif-add", "--static", "97", "aa:00:00:01:02:03"],
      ["vifAdd", { vnet: "97", vmac: "aa:00:00:01:02:03", static: true }],
    ],
    [
      ["varp-add", "0097", "AA-0-0-1-2-3", "192.0.2.2"],
      ["varpAdd", { vnet: "0097", vmac: "aa:00:00:01:02:03", address: "192.0.2.2" }],
    ],
    [
      ["varp-add", "97", "aa:00:00:01:02:03", "192.0.2.2", "--device", "eth1"],
      ["varpAdd", { vnet: "97", vmac: "aa:00:00:01:02:03", address: "192.0.2.2", device: "eth1" }],
    ],
    [
      ["varp-delete", "97", "aa:00:00:01:02:03"],
      ["varpDelete", { vnet: "97", vmac: "aa:00:00:01:02:03" }],
    ],
    [
      ["vif-delete", "97", "aa00.0001.0203"],
      ["vifDelete", { vnet: "97", vmac: "aa:00:00:01:02:03" }],
    ],
    [["varp-flush"], ["varpFlush", {}]],
    [
      ["varp-flush", "97"],
      ["varpFlush", { vnet: "97" }],
    ],
    [
      ["attach", "eth0"],
      ["attach", { device: "eth0" }],
    ],
    [
      ["detach", "eth0"],
      ["detach", { device: "eth0" }],
    ],
    [
      ["detach", "--all"],
      ["detachAll", { all: true }],
    ],
  ] as const)("%j", async (args, expected) => {
    const vmac = "aa:00:00:01:02:03";
    const vif = { vnet: id97, vmac, state: "added", ageSeconds: null, device: null } as const;
    const result = await ask(
      {
        vnetDelete: { ...vnet97, note: null },
        vifAdd: vif,
        vifDelete: vif,
        varpAdd: {
          vnet: id97,
          vmac,
          address: "192.0.2.2",
          device: "eth0",
          state: "static",
          ageSeconds: 0,
          mtu: null,
        },
        varpDelete: { vnet: id97, vmac },
        varpFlush: { vnets: 3 },
        attach: eth0,
        detach: { device: "eth0" },
        detachAll: {
          ...{ removed: [], left: [], failed: [], daemon: 7, forgotten: [], stillConfigured: [] },
        },
      },
      args,
    );
    expect(asked()).toEqual([expected]);
    expect(result).toMatchObject({ code: 0, stderr: "" });
    expect(result.stdout).not.toBe("");
  });

  it("detach --all says what went, what stays, and fails when something could not be removed", async () => {
    const info = {
      removed: [
        { kind: "hook", name: "eth0 ingress" },
        ...Array.from({ length: 14 }, (_, at) => ({ kind: "device", name: `d${at}` }) as const),
      ] as const,
      left: ["bridge br0 stays: it still has tap0"],
      failed: ["removing vnif9: EBUSY"],
      ...{ daemon: null, forgotten: ["eth0"], stillConfigured: ["eth1"] },
    };
    const answer = { detachAll: { ...info, removed: [...info.removed] } };
    const result = await ask(answer, ["detach", "--all"]);
    expect(result.code).toBe(1);
    expect(result.stdout).toContain("removed hook: eth0 ingress\n");
    expect(result.stdout).toMatch(/^removed device: d0, .*, d11 and 2 more$/m);
    expect(result.stdout).toContain("no longer attached: eth0\n");
    for (const text of ["bridge br0 stays", "attaches eth1 again", "not removed: removing vnif9"])
      expect(result.stderr).toContain(text);
  });

  it("a file's text goes as it is, under the name that was typed", async () => {
    const text = "# ä vnet\n(vnet (id 97))\n";
    const path = join(directory, "v.sxp");
    writeFileSync(path, text);
    expect(await ask({ vnetCreate: [vnet97] }, ["vnet-create", path])).toMatchObject({
      code: 0,
      stdout: "created vnet 0097: bridge vnet97, vnetif vnif97, security none\n",
    });
    expect(asked()).toEqual([["vnetCreate", { text, source: path }]]);
    await ask({ vnetCreate: [vnet97] }, ["vnet-create", "-"], { stdin: text });
    expect(asked()).toEqual([["vnetCreate", { text, source: "standard input" }]]);
  });

  it("an id is an id, though a file has its name", async () => {
    const before = process.cwd();
    process.chdir(directory);
    try {
      writeFileSync("97", "(vnet (id 98))");
      const result = await ask({ vnetCreate: [vnet97] }, ["vnet-create", "97"]);
      expect(asked()).toEqual([["vnetCreate", { parameters: { id: "97" } }]]);
      expect(result.stderr).toContain("./97");
      await ask({ vnetCreate: [vnet97] }, ["vnet-create", "./97"]);
      expect(asked()).toEqual([["vnetCreate", { text: "(vnet (id 98))", source: "./97" }]]);
      writeFileSync("-x", "(vnet (id 99))");
      await ask({ vnetCreate: [vnet97] }, ["vnet-create", "--", "-x"]);
      expect(asked()).toEqual([["vnetCreate", { text: "(vnet (id 99))", source: "-x" }]]);
    } finally {
      process.chdir(before);
    }
  });
});

describe("what is refused before the daemon is asked", () => {
  it.each([
    [[], "USAGE"],
    [["colour"], "USAGE"],
    [["vnets", "--colour"], "USAGE"],
    [["vnets", "x"], "USAGE"],
    [["vnet-create"], "USAGE"],
    [["vnets", "--run-dir", ""], "USAGE"],
    [["vnets", "--run-dir="], "USAGE"],
    [["attach", "eth0", "--bpffs", ""], "USAGE"],
    [["vnet-create", "97", "98"], "USAGE"],
    [["vnet-create", "97", "-b"], "USAGE"],
    [["vnet-create", "97", "-b", "x", "-b", "y"], "USAGE"],
    [["vnet-create", "v.sxp", "-b", "x"], "USAGE"],
    [["vnet-create", "-", "-s", "none"], "USAGE"],
    [["vnet-delete"], "USAGE"],
    [["vif-add", "97"], "USAGE"],
    [["varp-add", "97", "aa:00:00:01:02:03"], "USAGE"],
    [["peer-add", "h", "-p", "0"], "USAGE"],
    [["help", "colour"], "USAGE"],
    [["completion", "fish"], "USAGE"],
    [["vnets", "--run-dir"], "USAGE"],
  ] as const)("%j: usage, exit code 2", async (args, code) => {
    const people = await cli(args);
    expect(people).toMatchObject({ code: 2, stdout: "" });
    expect(people.stderr).toMatch(/^vnetd: .+\n {2}hint: .+\n$/);
    const machine = await cli([...args, "--json"]);
    expect(machine.code).toBe(2);
    if (args.at(-1) !== "--run-dir") expect(JSON.parse(machine.stderr)).toMatchObject({ code });
  });

  it.each([
    [["vnet-create", "nofile.sxp"], "FILE_UNREADABLE"],
    [["vnet-create", "12345"], "FILE_UNREADABLE"],
    [["vnet-create", "/"], "FILE_UNREADABLE"],
    [["vnet-create", "/dev/zero"], "TOO_LARGE"],
    [["vif-add", "97", "eth0"], "BAD_MAC"],
    [["vif-add", "97", "not a mac"], "BAD_MAC"],
    [["vif-delete", "97", "eth0"], "BAD_MAC"],
    [["attach", "eth0/1"], "BAD_NAME"],
    [["vif-add", "-i", "97", "a b"], "BAD_NAME"],
    [["varp-add", "97", "eth0", "192.0.2.2"], "BAD_MAC"],
    [["varp-add", "97", "aa:00:00:01:02:03", "192.0.2.2", "-d", "a b"], "BAD_NAME"],
    [["varp-delete", "97", "x"], "BAD_MAC"],
  ] as const)("%j: exit code 1", async (args, code) => {
    const result = await ask({}, [...args, "--json"]);
    expect(result).toMatchObject({ code: 1, stdout: "" });
    expect(JSON.parse(result.stderr)).toMatchObject({ code, hint: expect.any(String) as string });
    expect(asked()).toEqual([]);
  });

  it("a file that is no UTF-8", async () => {
    const path = join(directory, "latin1");
    writeFileSync(path, Buffer.from([0x28, 0xe4]));
    expect(JSON.parse((await ask({}, ["vnet-create", path, "--json"])).stderr)).toMatchObject({
      code: "FILE_UNREADABLE",
      place: { source: path },
    });
  });
});

describe("errors", () => {
  const error: ErrorBody = {
    code: "BAD_VNET_ID",
    message: '"0x61" is not a vnet id',
    hint: "write 61",
    place: { source: "v.yaml", line: 2, column: 5 },
  };

  it("are sentences with place and hint, or an object", async () => {
    expect(await ask({ vnetList: { error } }, ["vnet-list", "0x61"])).toEqual({
      code: 1,
      stdout: "",
      stderr: 'vnetd: "0x61" is not a vnet id\n  at v.yaml:2:5\n  hint: write 61\n',
    });
    const machine = await ask({ vnetList: { error } }, ["--json", "vnet-list", "0x61"]);
    expect(machine).toMatchObject({ code: 1, stdout: "" });
    expect(JSON.parse(machine.stderr)).toEqual(error);
  });

  it("carry the program's name", async () => {
    expect((await ask({ vnetList: { error } }, ["vnet-list"], { program: "vn" })).stderr).toMatch(
      /^vn: /,
    );
  });

  it("cannot steer the terminal", async () => {
    const hostile: ErrorBody = { code: "BAD_NAME", message: "a\u001b[2Jb\n\u009bc\u202e" };
    const people = await ask({ vnetList: { error: hostile } }, ["vnet-list"]);
    expect(people.stderr).toBe("vnetd: a\\x1b[2Jb\\x0a\\x9bc\\u202e\n");
    const machine = await ask({ vnetList: { error: hostile } }, ["vnet-list", "--json"]);
    expect(machine.stderr).not.toMatch(/[\u001b\u009b\u202e]/);
    expect(JSON.parse(machine.stderr)).toEqual(hostile);
  });

  it.each([
    ["peers", []],
    ["peer-add", ["h"]],
    ["peer-delete", ["h"]],
  ])("%s says what the daemon says", async (command, args) => {
    const refused = { error: { code: "BAD_PEER", message: "not that one" } } as const;
    const result = await ask({ peers: refused, peerAdd: refused, peerDelete: refused }, [
      command,
      ...args,
    ]);
    expect(result).toMatchObject({ code: 1, stderr: "vnetd: not that one\n" });
  });

  it("port-list shows ports as people read them, and the others say the device's name", async () => {
    const port = { vnet: id97, device: "tap0", direct: false, macs: 3, problem: "" };
    const up: PortInfo = { ...port, state: "up" };
    const ports: PortInfo[] = [
      up,
      { ...port, device: "veth1", state: "refused", macs: 0, problem: "it is a bridge" },
    ];
    const answers: Answers = { ports, portAdd: up, portDelete: { vnet: id97, device: "x" } };
    const { stdout } = await ask(answers, ["port-list", "97"]);
    expect(stdout).toMatch(/^VNET +PORT +STATE +DIRECT +MACS +PROBLEM/);
    expect(stdout).toMatch(/0097 +tap0 +up +no +3/);
    expect(stdout).toMatch(/veth1 +refused +no +0 +it is a bridge/);
    expect(await ask(answers, ["port-add", "97", "tap0"])).toMatchObject({ stdout: "tap0\n" });
    expect(await ask(answers, ["port-delete", "97", "x"])).toMatchObject({ stdout: "x\n" });
    expect(await ask(answers, ["port-add", "97"])).toMatchObject({ code: 2 });
  });

  it.each([
    "vnets",
    "vnet-list",
    "port-list",
    "vifs",
    "varp",
    "vnifs",
    "bridges",
    "hosts",
    "status",
    "peers",
    "varp-flush",
  ])("%s without a daemon: exit code 3", async (command) => {
    const result = await cli([command], { variables: { VNETD_RUN_DIR: directory } });
    expect(result).toMatchObject({ code: 3, stdout: "" });
    expect(result.stderr).toContain(join(directory, "vnetd.sock"));
    expect(result.stderr).toContain("vnetd attach");
  });
});

describe("output", () => {
  it("--json gives what the daemon gave", async () => {
    const answers: Answers = {
      vnetList: [vnet97],
      vifs: [
        {
          vnet: id97,
          vmac: "02:00:00:00:00:01",
          state: "learned",
          ageSeconds: 1.5,
          device: "tap0",
        },
      ],
      varp: [
        {
          vnet: id97,
          vmac: "02:00:00:00:00:02",
          address: "192.0.2.2",
          device: "eth0",
          state: "learned",
          ageSeconds: 3,
          mtu: 1500,
        },
      ],
      status,
      vnets: [state97],
      vnetDelete: { ...vnet97, note: null },
      attach: eth0,
    };
    for (const [command, expected] of [
      [["vnet-list"], answers.vnetList],
      [["vifs"], answers.vifs],
      [["varp"], answers.varp],
      [["status"], status],
      [["vnets", "-a"], [state97]],
      [["vnet-delete", "97"], { ...vnet97, note: null }],
      [["attach", "eth0"], eth0],
    ] as const) {
      const result = await ask(answers, [...command, "--json"]);
      expect(result).toMatchObject({ code: 0, stderr: "" });
      expect(JSON.parse(result.stdout)).toEqual(expected);
    }
    expect(JSON.parse((await ask({ varp: [] }, ["varp", "--json"])).stdout)).toEqual([]);
  });

  it("neighbours: which are answered for, and forgets them", async () => {
    const of = (address: string, answered: boolean): NeighbourEntry => ({
      ...{ vnet: id97, address, vmac: "02:00:00:00:00:02", place: "elsewhere" },
      ...{ router: address === "fe80::1", answered, ageSeconds: 7 },
    });
    const rows = [of("fe80::1", true), of("10.0.0.2", false)];
    const answers: Answers = { neighbours: rows, neighbourFlush: { neighbours: 1 } };
    expect((await ask(answers, ["neighbours"])).stdout).toBe(
      [
        "VNET  ADDRESS   VMAC               PLACE      ANSWERED  ROUTER  AGE",
        "0097  10.0.0.2  02:00:00:00:00:02  elsewhere  no        -        7s",
        "0097  fe80::1   02:00:00:00:00:02  elsewhere  yes       yes      7s",
        "",
      ].join("\n"),
    );
    expect(JSON.parse((await ask(answers, ["neighbours", "--json"])).stdout)).toEqual([
      ...[...rows].reverse(),
    ]);
    expect((await ask(answers, ["neighbour-flush", "97", "10.0.0.2"])).stdout).toBe(
      "forgot 1 neighbour\n",
    );
    expect(await ask(answers, ["neighbour-flush"])).toMatchObject({ code: 2 });
  });

  it("tables are aligned, and plain where no terminal is", async () => {
    const groups = { group: "239.1.2.3", group6: "ff15::1" };
    const second = { ...vnet97, ...groups, id: longId, bridge: null, vnetif: "v" };
    expect((await ask({ vnetList: [vnet97, second] }, ["vnet-list"])).stdout).toBe(
      [
        "ID                                       BRIDGE  VNETIF  SECURITY  KEY  SUITE  ENCAPSULATION  SUPPRESS  GROUP",
        `${id97}  vnet97  vnif97  none      -    -      udp            off       -`,
        `${longId}  -       v       none      -    -      udp            off       239.1.2.3 ff15::1`,
        "",
      ].join("\n"),
    );
    expect((await ask({ vnets: [state97] }, ["vnets"])).stdout).toBe(
      "ID    VNETIF  BRIDGE  SECURITY  STATE  HOSTS  ENTRIES\n0097  vnif97  vnet97  none      up         3       12\n",
    );
    expect(
      (
        await ask(
          {
            varp: [
              {
                vnet: id97,
                vmac: "02:00:00:00:00:02",
                address: "192.0.2.2",
                device: "eth0",
                state: "announced",
                ageSeconds: 75,
                mtu: 1400,
              },
            ],
          },
          ["varp"],
        )
      ).stdout,
    ).toBe(
      "VNET  VMAC               ADDRESS    DEVICE  STATE        AGE   MTU\n0097  02:00:00:00:00:02  192.0.2.2  eth0    announced  1m15s  1400\n",
    );
    const vif = { vnet: id97, vmac: "02:00:00:00:00:02", device: null };
    const vifs = [
      { ...vif, state: "static", ageSeconds: null },
      { ...vif, state: "learned", ageSeconds: 75 },
    ] as const;
    expect((await ask({ vifs: [...vifs] }, ["vifs"])).stdout).toBe(
      [
        "VNET  VMAC               STATE      AGE  DEVICE",
        "0097  02:00:00:00:00:02  static       -  -",
        "0097  02:00:00:00:00:02  learned  1m15s  -",
        "",
      ].join("\n"),
    );
    expect(
      (
        await ask({ bridges: [{ bridge: "b", vnet: id97, ports: ["p", "q"], owned: true }] }, [
          "bridges",
        ])
      ).stdout,
    ).toContain("b       0097  vnetd    p q\n");
  });

  it("MACs are in order of vnet and MAC", async () => {
    const vif = { state: "learned", ageSeconds: 1, device: null } as const;
    const rows = ["0098 02", "0097 03", "0097 01"].map((text) => ({
      ...vif,
      vnet: id97.replace("0097", text.slice(0, 4)),
      vmac: `02:00:00:00:00:${text.slice(5)}`,
    }));
    const { stdout } = await ask({ vifs: rows }, ["vifs", "--json"]);
    expect(JSON.parse(stdout)).toEqual([...rows].reverse());
  });

  it("what stays behind when a vnet is deleted is said on stderr", async () => {
    const vnetDelete = { ...vnet97, note: "bridge vnet97 stays: it still has tap0" };
    expect(await ask({ vnetDelete }, ["vnet-delete", "97"])).toEqual({
      code: 0,
      stdout: "deleted vnet 0097\n",
      stderr: "vnetd: bridge vnet97 stays: it still has tap0\n",
    });
  });

  it("long and all add columns", async () => {
    const traffic = {
      encapFrames: 1,
      encapBytes: 2,
      decapFrames: 3,
      decapBytes: 4,
      floodedFrames: 5,
      floodedBytes: 6,
    };
    const { stdout } = await ask({ vnets: [{ ...state97, traffic }] }, ["vnets", "-a", "-l"]);
    expect(stdout).toContain(id97);
    expect(stdout).toContain("02:00:00:00:00:97");
    expect(stdout).toMatch(/SENT {2}SENT BYTES {2}RECEIVED {2}RECEIVED BYTES {2}FLOODED\n/);
  });

  it("problems go to stderr", async () => {
    const result = await ask(
      { vnets: [{ ...state97, up: false, problem: "the bridge is gone" }] },
      ["vnets"],
    );
    expect(result).toMatchObject({ code: 0, stderr: "vnetd: vnet 0097: the bridge is gone\n" });
    const attached = await ask({ attach: { ...eth0, problem: "no carrier" } }, ["attach", "eth0"]);
    expect(attached).toMatchObject({ code: 0, stderr: "vnetd: eth0: no carrier\n" });
  });

  it("status shows devices and drops", async () => {
    const { stdout, stderr } = await ask({ status }, ["status"]);
    expect(stderr).toBe("");
    expect(stdout).toContain("vnetd 0.1.0, pid 123, up 3m05s, kernel 6.1.0\n");
    expect(stdout).toContain(
      "eth0    192.0.2.1  up     tcx   1500  224.10.0.1:1798  on     multicast  hosts were heard\n",
    );
    expect(stdout).toContain("-     decap      unknown-vnet       7    700\n");
    const bare = await ask({ status: { ...status, attached: [], problems: ["layout 1 is old"] } }, [
      "status",
    ]);
    expect(bare.stderr).toBe("vnetd: layout 1 is old\n");
    const down = { ...eth0, up: false, problem: "no carrier" };
    const problems = ["eth0: no carrier"];
    const once = await ask({ status: { ...status, attached: [down], problems } }, ["status"]);
    expect(once.stderr).toBe("vnetd: eth0: no carrier\n");
  });

  it("keys, of this host and of the others, and who is waited for", async () => {
    const host = { hostId: "ab", name: "b", address: "192.0.2.2", device: "eth0", waits: false };
    const none = { keyId: null, ageSeconds: null, rekeySeconds: null, hardSeconds: null };
    const vnet: SecureVnetInfo = {
      ...{ vnet: id97, security: "conf", suite: "gcm", keyId: "11".repeat(8) },
      previousKeyId: null,
      hosts: [
        { ...host, keyId: "11".repeat(8), ageSeconds: 60, rekeySeconds: 3540, hardSeconds: 10740 },
        { ...host, ...none, name: "c", address: "192.0.2.3" },
      ],
    };
    const { stdout, stderr } = await ask({ keys: [vnet] }, ["keys"]);
    expect([stdout, stderr]).toEqual([
      [
        "VNET  SECURITY  HOST         ADDRESS    DEVICE  KEY ID              AGE  NEW IN  GONE IN",
        "0097  conf gcm  (this host)  -          -       1111111111111111      -       -        -",
        "0097  conf gcm  b            192.0.2.2  eth0    1111111111111111  1m00s  59m00s    2h59m",
        "0097  conf gcm  c            192.0.2.3  eth0    none yet              -       -        -",
        "",
      ].join("\n"),
      "",
    ]);
    const hosts = vnet.hosts.map((each) => ({ ...each, waits: each.name === "c" }));
    const changing = { ...vnet, previousKeyId: "22".repeat(8), hosts };
    expect((await ask({ keys: [changing] }, ["keys"])).stderr).toBe(
      "vnetd: vnet 0097 changes from key id 2222222222222222 to 1111111111111111, and waits for 1 of 2 hosts\n",
    );
    expect(JSON.parse((await ask({ keys: [vnet] }, ["keys", "--json"])).stdout)).toEqual([vnet]);
    expect((await ask({ keys: [] }, ["keys"])).stderr).toMatch(/no secure vnets/);
  });

  it("rekey and key-rotate say what they did", async () => {
    const other = { vnet: longId, hosts: 1 };
    const rekeyed = await ask({ rekey: [{ vnet: id97, hosts: 2 }, other] }, ["rekey"]);
    expect(rekeyed.stdout).toBe(
      `vnet 0097: new keys with 2 hosts\nvnet ${longId}: new keys with 1 host\n`,
    );
    expect(await ask({ rekey: [] }, ["rekey"])).toMatchObject({ code: 0, stdout: "" });
    const info = { vnet: id97, key: "/k/new", keyId: "11".repeat(8) };
    const keyRotate = { ...info, previousKey: "/k/old", previousKeyId: "22".repeat(8) };
    const args = ["key-rotate", "97", "/k/../k/new"];
    const rotated = await ask({ keyRotate }, args);
    expect(rotated.stdout).toBe(
      "vnet 0097: key /k/new, key id 1111111111111111; /k/old is taken too, until all hosts have moved\n",
    );
    expect(asked()).toEqual([["keyRotate", { vnet: "97", key: "/k/new" }]]);
    const same = { ...info, previousKey: null, previousKeyId: null };
    expect((await ask({ keyRotate: same }, args)).stdout).toMatch(/1111, as before\n$/);
    expect(JSON.parse((await ask({ keyRotate }, [...args, "--json"])).stdout)).toEqual(keyRotate);
    await ask({ keyRotate }, ["key-rotate", "97", "./new.key"]);
    expect(asked()).toEqual([["keyRotate", { vnet: "97", key: join(process.cwd(), "new.key") }]]);
    expect((await ask({ keyRotate: same }, ["key-rotate", "97", "--end"])).stdout).toBe(
      "vnet 0097: key /k/new, key id 1111111111111111; no other is taken\n",
    );
    expect(asked()).toEqual([["keyRotate", { vnet: "97", end: true }]]);
    expect(await cli(["key-rotate", "97"])).toMatchObject({ code: 2 });
    expect(await cli([...args, "--end"])).toMatchObject({ code: 2 });
    const failed = { error: { code: "KEY_ROTATING" as const, message: "it is changing" } };
    expect(await ask({ keyRotate: failed }, args)).toMatchObject({ code: 1 });
  });

  it("status counts secure vnets where there are some", async () => {
    const secure = { vnets: 2, paths: 3, keyed: 2, changing: 1 };
    expect((await ask({ status }, ["status"])).stdout).not.toMatch(/^secure/m);
    expect((await ask({ status: { ...status, secure } }, ["status"])).stdout).toContain(
      "secure   2, keys for 2 of 3 paths; 1 changing the secret\n",
    );
  });

  it("an empty list is said on stderr", async () => {
    expect(await ask({ varp: [] }, ["varp"])).toMatchObject({
      code: 0,
      stdout: "",
      stderr: expect.stringContaining("no MAC") as string,
    });
  });

  it("colour only on a terminal that wants it", async () => {
    const answers = { vnets: [state97] };
    expect((await ask(answers, ["vnets"], { terminal: true })).stdout).toContain(
      "\u001b[32mup\u001b[0m",
    );
    expect((await ask(answers, ["vnets"])).stdout).not.toContain("\u001b");
    expect(
      (await ask(answers, ["vnets"], { terminal: true, variables: { NO_COLOR: "1" } })).stdout,
    ).not.toContain("\u001b");
    expect(
      (await ask(answers, ["vnets"], { terminal: true, variables: { TERM: "dumb" } })).stdout,
    ).not.toContain("\u001b");
    expect((await ask(answers, ["vnets", "--json"], { terminal: true })).stdout).not.toContain(
      "\u001b",
    );
  });

  it("a host's name cannot steer the terminal", async () => {
    const host = {
      hostId: "ab",
      name: "\u001b]0;owned\u0007\u009b31m\r\n\u202e",
      software: "vnetd",
      vnets: [id97],
      paths: [{ address: "192.0.2.2", device: "eth0", mtu: 1500, primary: true, heardSeconds: 3 }],
    };
    const people = await ask({ hosts: [host] }, ["hosts"], { terminal: true });
    expect(people.stdout.replaceAll(/\u001b\[\d+m/g, "")).not.toMatch(
      /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/,
    );
    expect(people.stdout).toContain("\\x1b]0;owned\\x07");
    const machine = await ask({ hosts: [host] }, ["hosts", "--json"]);
    expect(machine.stdout).not.toMatch(/[\u007f-\u009f\u202e]/);
    expect(JSON.parse(machine.stdout)).toEqual([host]);
    const without = await ask({ hosts: [{ ...host, name: "b", paths: [] }] }, ["hosts"]);
    expect(without.stdout).toContain("ab    b     vnetd");
  });

  it("printable text has no control characters, and JSON stays the same value", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(printable(text)).not.toMatch(/[\p{Cc}\u2028-\u202e]/u);
        expect(JSON.parse(printableJson({ text }))).toEqual({ text });
        expect(
          formatTable([text], [{ title: "T", text: (row) => row }], false).split("\n"),
        ).toHaveLength(3);
      }),
    );
  });

  it.each([
    [0, "0s"],
    [59.9, "59s"],
    [60, "1m00s"],
    [3600, "1h00m"],
    [86_400 * 3 + 3600, "3d01h"],
    [-1, "0s"],
  ])("%d seconds are %s", (seconds, text) => {
    expect(durationText(seconds)).toBe(text);
  });
});

describe("commands that need no daemon", () => {
  it("version", async () => {
    const { version } = await import("../../src/base/version.js");
    const alone = await cli(["version", "--run-dir", directory]);
    expect(alone).toMatchObject({ code: 0, stdout: `vnetd ${version}\n` });
    expect(alone.stderr).toContain("no daemon");
    expect(JSON.parse((await cli(["version", "--json", "--run-dir", directory])).stdout)).toEqual({
      version,
      daemon: null,
    });
    const both = await ask({ version: { version: "0.0.9", api: 1, layout: 2 } }, ["version"]);
    expect(both.stdout).toBe(`vnetd ${version}\ndaemon 0.0.9 (API 1, layout 2)\n`);
    expect(await cli(["--version"])).toMatchObject({ code: 0, stdout: `${version}\n` });
  });

  it.each(["insmod", "rmmod", "network-vnet"])(
    "vn %s explains what replaced it",
    async (command) => {
      const result = await cli([command, "start"], { program: "vn" });
      expect(result).toMatchObject({ code: 0, stderr: "" });
      expect(result.stdout).toMatch(/vnetd (attach|detach) eth0/);
      expect(JSON.parse((await cli([command, "--json"])).stdout)).toMatchObject({
        replaced: command,
      });
    },
  );

  it("help, of all and of one", async () => {
    const all = await cli(["help"]);
    expect(all).toMatchObject({ code: 0, stderr: "" });
    for (const command of [
      "run",
      "attach",
      "detach",
      "vnet-create",
      "vnet-delete",
      "vnet-list",
      "vnets",
      "key-gen",
      "key-rotate",
      "keys",
      "rekey",
      "vnifs",
      "vifs",
      "vif-add",
      "vif-delete",
      "varp",
      "varp-add",
      "varp-delete",
      "varp-flush",
      "neighbours",
      "neighbour-flush",
      "port-list",
      "port-add",
      "port-delete",
      "peers",
      "peer-add",
      "peer-delete",
      "bridges",
      "hosts",
      "status",
      "version",
      "completion",
      "insmod",
    ]) {
      expect(all.stdout).toMatch(new RegExp(`^ {2}vnetd ${command}\\b`, "m"));
      const one = await cli(["help", command]);
      expect(one).toMatchObject({ code: 0, stderr: "" });
      expect(one.stdout).toContain(`vnetd ${command}`);
    }
    expect(all.stdout).not.toContain("__complete");
    expect(await cli(["--help"])).toEqual(all);
    expect((await cli(["help"], { program: "vn" })).stdout).toMatch(/^vn COMMAND/);
    expect((await cli(["help", "vnet-create"])).stdout).toContain("<FILE|ID>");
  });
});
