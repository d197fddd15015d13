// SPDX-License-Identifier: Apache-2.0
/** `attach` where no daemon runs: who is started, with what, and what is said when it fails. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { SystemdHost } from "../../cli/start-daemon.js";
import { cli } from "./lib/cli.js";
import { FakeDaemon } from "./lib/fake-daemon.js";

const binary = fileURLToPath(new URL("lib/fake-run.mjs", import.meta.url));
let directory: string;
let runDir: string;

interface Started {
  pid: number;
  args: string[];
  cwd: string;
}

const startedIn = (path: string): Started =>
  JSON.parse(readFileSync(join(path, "started.json"), "utf8")) as Started;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "vnetd-start-"));
  runDir = join(directory, "run");
});
afterEach(() => {
  if (existsSync(join(runDir, "started.json"))) {
    try {
      process.kill(startedIn(runDir).pid, "SIGKILL");
    } catch {
      // it has ended by itself
    }
  }
  rmSync(directory, { recursive: true, force: true });
});

describe("attach starts a daemon", () => {
  it("as a detached process, with what was given, and says so on stderr", async () => {
    const result = await cli(
      [
        "attach",
        "eth7",
        "--run-dir",
        runDir,
        "--state-dir",
        join(directory, "state"),
        "--metrics-listen",
        "off",
      ],
      {
        binary,
        variables: { ...process.env, VNETD_BPFFS: "/sys/fs/bpf/x", VNETD_CONFIG: "relative.yaml" },
      },
    );
    expect(result).toMatchObject({
      code: 0,
      stdout: "attached eth7: 192.0.2.7, tcx, mtu 1500, group 224.10.0.1:1798\n",
    });
    const started = startedIn(runDir);
    expect(result.stderr).toBe(
      `vnetd: no daemon was running; starting one (pid ${started.pid}, log ${join(runDir, "vnetd.log")})\n`,
    );
    expect(started.args).toEqual([
      "run",
      "--run-dir",
      runDir,
      "--state-dir",
      join(directory, "state"),
      "--bpffs",
      "/sys/fs/bpf/x",
      "--config",
      join(process.cwd(), "relative.yaml"),
      "--metrics-listen",
      "off",
    ]);
    expect(started.cwd).toBe("/");
    expect(readFileSync(join(runDir, "vnetd.log"), "utf8")).toBe("ready\n");
    // it runs on, and the next command finds it
    const again = await cli(["attach", "eth7", "--json", "--run-dir", runDir], { binary });
    expect(again).toMatchObject({ code: 0, stderr: "" });
    expect(JSON.parse(again.stdout)).toMatchObject({ device: "eth7" });
    expect(startedIn(runDir).pid).toBe(started.pid);
  });

  it("that remembers the device, and has attached it by itself: done as well", async () => {
    const variables = { ...process.env, FAKE_RUN_REMEMBERS: "1" };
    const first = await cli(["attach", "eth7", "--run-dir", runDir], { binary, variables });
    expect(first).toMatchObject({
      code: 0,
      stdout: "attached eth7: 192.0.2.7, tcx, mtu 1500, group 224.10.0.1:1798\n",
    });
    const second = await cli(["attach", "eth7", "--run-dir", runDir], { binary, variables });
    expect(second).toMatchObject({ code: 1, stderr: "vnetd: eth7 is attached already\n" });
  });

  it("and shows the end of its log when it does not come up, with nothing of older logs", async () => {
    mkdirSync(runDir);
    writeFileSync(join(runDir, "vnetd.log"), "of another day\n");
    const result = await cli(["attach", "eth7", "--run-dir", runDir], {
      binary,
      variables: { ...process.env, FAKE_RUN_FAILS: "1" },
    });
    expect(result).toMatchObject({ code: 1, stdout: "" });
    expect(result.stderr).toContain("  | first line\n  | \\x1b[31mthe reason of the failure\n");
    expect(result.stderr).toContain("vnetd: the daemon ended at once\n");
    expect(result.stderr).not.toContain("of another day");
  }, 20_000);

  it("and that is one JSON object with --json, with the log in it", async () => {
    const result = await cli(["attach", "eth7", "--json", "--run-dir", runDir], {
      binary,
      variables: { ...process.env, FAKE_RUN_FAILS: "1" },
    });
    expect(result).toMatchObject({ code: 1, stdout: "" });
    const { code, notes } = JSON.parse(result.stderr) as { code: string; notes: string[] };
    expect(code).toBe("START_FAILED");
    expect(notes[0]).toMatch(/no daemon was running; starting one \(pid \d+/);
    expect(notes).toContain("  | first line");
  }, 20_000);

  it("with --json remarks come on stderr when all is well", async () => {
    const result = await cli(["attach", "eth7", "--json", "--run-dir", runDir], { binary });
    expect(result.code).toBe(0);
    expect(JSON.parse(result.stdout)).toMatchObject({ device: "eth7" });
    expect(result.stderr).toMatch(/^vnetd: no daemon was running; starting one .*\n$/);
  });

  it.each([false, true])("and stops it when its own attach fails (--json: %s)", async (json) => {
    const result = await cli(
      ["attach", "nosuch", ...(json ? ["--json"] : []), "--run-dir", runDir],
      { binary, variables: { ...process.env, FAKE_RUN_REFUSES: "1" } },
    );
    expect(result).toMatchObject({ code: 1, stdout: "" });
    const { pid } = startedIn(runDir);
    const stopped = `vnetd: the daemon (pid ${pid}) was stopped again`;
    if (json) {
      expect(JSON.parse(result.stderr)).toMatchObject({
        code: "DEVICE_NOT_FOUND",
        notes: [expect.stringContaining("starting one") as unknown, stopped],
      });
    } else {
      expect(result.stderr.split("\n").slice(1)).toEqual([stopped, "vnetd: no nosuch", ""]);
    }
    expect(() => process.kill(pid, 0)).toThrow("ESRCH");
  });

  it("or says why there can be no log: what failed first", async () => {
    writeFileSync(join(directory, "file"), "");
    const result = await cli(["attach", "eth7", "--run-dir", join(directory, "file", "run")], {
      binary,
    });
    expect(result.code).toBe(1);
    expect(result.stderr).toContain("none can be started: ENOTDIR: not a directory, mkdir");
  });

  it("but not where one runs: then what a daemon would be given is not used", async () => {
    const daemon = await FakeDaemon.start({
      attach: {
        device: "eth7",
        address: null,
        mode: "clsact",
        xdp: null,
        mtu: 1500,
        up: false,
        problem: "no address",
        group: "224.10.0.1",
        port: 1798,
        merge: false,
        groupWay: "multicast",
        groupWhy: "",
      },
    });
    try {
      const result = await cli(
        ["attach", "eth7", "--run-dir", daemon.runDir, "--state-dir", "/x"],
        { binary },
      );
      expect(result.code).toBe(0);
      expect(result.stderr).toContain("a daemon runs already: --state-dir is not used\n");
      const variables = { ...process.env, VNETD_STATE_DIR: "/x" };
      const again = await cli(["attach", "eth7", "--run-dir", daemon.runDir], {
        binary,
        variables,
      });
      expect(again.stderr).toContain("a daemon runs already: VNETD_STATE_DIR is not used\n");
      expect(existsSync(join(daemon.runDir, "started.json"))).toBe(false);
    } finally {
      await daemon.stop();
    }
  });

  it("but not for an answer that is an error", async () => {
    const daemon = await FakeDaemon.start({
      attach: { error: { code: "DEVICE_NOT_FOUND", message: "no eth7" } },
    });
    try {
      expect(await cli(["attach", "eth7", "--run-dir", daemon.runDir], { binary })).toEqual({
        code: 1,
        stdout: "",
        stderr: "vnetd: no eth7\n",
      });
    } finally {
      await daemon.stop();
    }
  });

  it("says so where there is nowhere to write", async () => {
    writeFileSync(join(directory, "file"), "");
    const result = await cli(
      ["attach", "eth7", "--json", "--run-dir", join(directory, "file/run")],
      { binary },
    );
    expect(result.code).toBe(1);
    expect(JSON.parse(result.stderr)).toMatchObject({ code: "START_FAILED" });
  });
});

describe("attach and systemd", () => {
  /** A systemctl that notes its arguments and starts the fake daemon, or fails. */
  function host(
    overrides: Partial<SystemdHost> = {},
    exitCode = 0,
    environment = "",
  ): { systemd: SystemdHost; variables: NodeJS.ProcessEnv } {
    const bin = join(directory, "bin");
    mkdirSync(bin);
    mkdirSync(runDir);
    writeFileSync(join(directory, "vnetd.service"), "[Unit]\n");
    writeFileSync(
      join(bin, "systemctl"),
      `#!/bin/sh\necho "$@" > ${directory}/systemctl-args\n[ $1 = start ] && [ ${exitCode} = 0 ] && ${environment} ${process.execPath} ${binary} run --run-dir ${runDir} >/dev/null 2>&1 &\nexit ${exitCode}\n`,
    );
    chmodSync(join(bin, "systemctl"), 0o755);
    return {
      systemd: {
        runDir,
        unitDirectories: [directory],
        isBooted: () => true,
        sharesNetwork: () => true,
        ...overrides,
      },
      variables: { ...process.env, PATH: `${bin}:${process.env["PATH"]}` },
    };
  }

  it("starts the unit where it is installed", async () => {
    const result = await cli(["attach", "eth7", "--run-dir", runDir], { binary, ...host() });
    expect(result).toMatchObject({
      code: 0,
      stderr: "vnetd: no daemon was running; starting vnetd.service\n",
    });
    expect(readFileSync(join(directory, "systemctl-args"), "utf8")).toBe("start vnetd.service\n");
    expect(existsSync(join(runDir, "vnetd.log"))).toBe(false);
  });

  it("stops the unit that it started when its own attach fails", async () => {
    const result = await cli(["attach", "nosuch", "--run-dir", runDir], {
      binary,
      ...host({}, 0, "FAKE_RUN_REFUSES=1"),
    });
    expect(result).toMatchObject({ code: 1, stdout: "" });
    expect(result.stderr).toContain("vnetd: vnetd.service was stopped again\nvnetd: no nosuch\n");
    expect(readFileSync(join(directory, "systemctl-args"), "utf8")).toBe("stop vnetd.service\n");
  });

  it("says where to look when the unit fails", async () => {
    const result = await cli(["attach", "eth7", "--run-dir", runDir], { binary, ...host({}, 1) });
    expect(result.code).toBe(1);
    expect(result.stderr).toContain("journalctl -u vnetd");
  });

  it("enables the unit with --persist, also for a device that is attached", async () => {
    const at = { binary, ...host() };
    for (const begin of ["vnetd: no daemon was running; starting vnetd.service\n", ""]) {
      const result = await cli(["attach", "eth7", "--persist", "--run-dir", runDir], at);
      expect(result).toMatchObject({ code: 0, stderr: begin });
      expect(result.stdout).toMatch(/^attached eth7: .*\nvnetd\.service starts at every boot\n$/);
      expect(readFileSync(join(directory, "systemctl-args"), "utf8")).toBe(
        "--quiet enable vnetd.service\n",
      );
    }
  });

  it.each<[string, Partial<SystemdHost>, string[]]>([
    ["no unit", { unitDirectories: ["/nonexistent"] }, []],
    ["not booted with systemd", { isBooted: () => false }, []],
    ["another network namespace", { sharesNetwork: () => false }, []],
    ["a daemon of other options", {}, ["--state-dir", "/elsewhere"]],
  ])("refuses --persist before it does anything: %s", async (_name, overrides, args) => {
    const result = await cli(["attach", "eth7", "--persist", "--run-dir", runDir, ...args], {
      binary,
      ...host(overrides),
    });
    expect(result).toMatchObject({ code: 2, stdout: "" });
    expect(result.stderr).toContain("--persist: vnetd.service does not start such a daemon here");
    expect(existsSync(join(directory, "systemctl-args"))).toBe(false);
    expect(existsSync(join(runDir, "vnetd.log"))).toBe(false);
  });

  it("says so when the unit cannot be enabled", async () => {
    const at = host();
    await cli(["attach", "eth7", "--run-dir", runDir], { binary, ...at });
    writeFileSync(join(directory, "bin/systemctl"), "#!/bin/sh\nexit 1\n");
    const result = await cli(["attach", "eth7", "--persist", "--run-dir", runDir], {
      binary,
      ...at,
    });
    expect(result.code).toBe(1);
    expect(result.stdout).toMatch(/^attached eth7/);
    expect(result.stderr).toContain("vnetd.service was not enabled for the next boot");
  });

  it.each<[string, Partial<SystemdHost>, string[]]>([
    ["another run directory", { runDir: "/elsewhere" }, []],
    ["no unit", { unitDirectories: ["/nonexistent"] }, []],
    ["not booted with systemd", { isBooted: () => false }, []],
    ["another network namespace", { sharesNetwork: () => false }, []],
    ["a daemon of other options", {}, ["--metrics-listen", "off"]],
  ])("does not start the unit: %s", async (_name, overrides, args) => {
    const result = await cli(["attach", "eth7", "--run-dir", runDir, ...args], {
      binary,
      ...host(overrides),
    });
    expect(result.code).toBe(0);
    expect(existsSync(join(directory, "systemctl-args"))).toBe(false);
    expect(result.stderr).toContain("starting one (pid ");
  });
});
