// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from "vitest";
import { createLog } from "../../src/log.js";
import { ServiceManager, pingIntervalMs } from "../../src/service-manager.js";
import { eventually } from "../lib/processes.js";

describe("how often the watchdog is told", () => {
  it.each([
    ["30000000", "17", 10_000],
    ["30000000", undefined, 10_000],
    ["1", "17", 1],
    ["9000000000000000000", "17", 0x7fffffff],
    // systemd asks another process
    ["30000000", "18", undefined],
    [undefined, undefined, undefined],
    ["0", undefined, undefined],
    ["-5", undefined, undefined],
    ["3e7", undefined, undefined],
    ["", undefined, undefined],
  ])("WATCHDOG_USEC %s for pid %s: %s", (timeout, pid, intervalMs) => {
    const variables = { WATCHDOG_USEC: timeout, WATCHDOG_PID: pid };
    expect(pingIntervalMs(variables, 17)).toBe(intervalMs);
  });
});

describe("the service manager", () => {
  const lines: string[] = [];
  const log = createLog({ write: (line) => void lines.push(line) });
  const said: string[] = [];
  const manager = (sdNotify: (state: string) => boolean): ServiceManager =>
    new ServiceManager({ native: { sdNotify }, variables: {}, log });
  const listening = manager((state) => {
    said.push(state);
    return true;
  });

  it("hears of a reload's beginning, with the time, and of its end, also when it fails", async () => {
    expect(await listening.reloading(() => Promise.resolve("taken"))).toBe("taken");
    await expect(listening.reloading(() => Promise.reject(new Error("bad file")))).rejects.toThrow(
      "bad file",
    );
    const reloading = expect.stringMatching(/^RELOADING=1\nMONOTONIC_USEC=[1-9]\d*$/) as string;
    expect(said).toEqual([reloading, "READY=1", reloading, "READY=1"]);
  });

  it("hears again and again that the loop lives, from the start on, where it asked for that", async () => {
    const heard: string[] = [];
    const native = { sdNotify: (state: string) => heard.push(state) > 0 };
    const asked = new ServiceManager({ native, variables: { WATCHDOG_USEC: "3000" }, log });
    asked.ready();
    await eventually(() => heard.length > 4);
    asked.close();
    expect([...new Set(heard)]).toEqual(["READY=1", "WATCHDOG=1"]);
    expect(heard.indexOf("WATCHDOG=1")).toBe(1);
    listening.ready();
    expect(said.at(-1)).toBe("READY=1");
  });

  it("that went away does not stop anything", async () => {
    const gone = manager(() => {
      throw new Error("ECONNREFUSED");
    });
    expect(await gone.reloading(() => Promise.resolve("taken"))).toBe("taken");
    gone.stopping();
    expect(lines.join()).toContain("the service manager was not told: ECONNREFUSED");
    // but who cannot say that it is ready would be killed later, and ends now
    expect(() => gone.ready()).toThrow("ECONNREFUSED");
  });
});
