// SPDX-License-Identifier: Apache-2.0
/** Where everything is when nobody says otherwise: what `vnetd run` and its configuration default to. */
import { beforeEach, describe, expect, it, vi } from "vitest";
import { runDaemon } from "../../cli/run.js";
import { loadDaemonConfig, parseDaemonConfig } from "../../src/config/daemon-config.js";
import { cli } from "./lib/cli.js";

vi.mock("../../cli/run.js", () => ({ runDaemon: vi.fn(() => Promise.resolve()) }));
const asked = vi.mocked(runDaemon);
beforeEach(() => void asked.mockClear());

describe("vnetd run", () => {
  it.each([
    ["runDir", "/run/vnetd"],
    ["stateDir", "/var/lib/vnetd"],
    ["bpffs", "/sys/fs/bpf/vnetd"],
    // the daemon's own: /etc/vnetd/vnetd.yaml, and what that says
    ["config", undefined],
    ["metricsListen", undefined],
  ] as const)("has %s: %s", async (name, value) => {
    expect(await cli(["run"])).toEqual({ code: 0, stdout: "", stderr: "" });
    expect(asked).toHaveBeenCalledTimes(1);
    expect(asked.mock.calls[0]![0][name]).toBe(value);
  });

  it.each([
    ["--state-dir", "/var/lib/vnetd"],
    ["--bpffs", "/sys/fs/bpf/vnetd"],
    ["--config", "/etc/vnetd/vnetd.yaml"],
    ["--metrics-listen", "127.0.0.1:11798"],
  ])("says in its help of %s: %s", async (option, value) => {
    const { stdout } = await cli(["run", "--help"]);
    // the option's own words, up to the next option
    const words = new RegExp(`${option} [^]*?(?=\\n +-)`).exec(`${stdout}\n  --`)?.[0];
    expect(words?.replace(/\s+/g, " ")).toContain(value);
  });
});

describe("the configuration", () => {
  it("is read from /etc/vnetd/vnetd.yaml", () => {
    const read: string[] = [];
    const config = loadDaemonConfig(undefined, (path) => {
      read.push(path);
      return "port: 1799\n";
    });
    expect(read).toEqual(["/etc/vnetd/vnetd.yaml"]);
    expect(config.port).toBe(1799);
  });

  it("serves metrics on 127.0.0.1:11798", () => {
    expect(parseDaemonConfig("", "f").metricsListen).toEqual({ address: "127.0.0.1", port: 11798 });
  });
});
