// SPDX-License-Identifier: Apache-2.0
/** Loads under signals: the verifier gives up when the thread that it works for has one to take. */
import { spawn, spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { addonPath, here, temporaryDirectory } from "./support.js";

const work = temporaryDirectory();
const object = join(here, "../../build/bpf/vnetd.bpf.o");
afterAll(() => rmSync(work, { recursive: true }));

/** Loads programs that take the verifier some tenths of a second, and says which there are. */
const load = (options: object): string =>
  `const native = require(${JSON.stringify(addonPath)});
   const { programs } = native.objectLoad(${JSON.stringify(object)}, ${JSON.stringify(options)});
   console.log(Object.keys(programs).sort().join());`;
const both = { programs: { vnetd_decap: true, vnetd_encap: true } };

describe("programs are loaded", () => {
  test("while a profiler interrupts the thread ten thousand times a second", () => {
    const result = spawnSync(
      process.execPath,
      [
        ...["--cpu-prof", "--cpu-prof-interval=100", `--cpu-prof-dir=${work}`],
        ...["-e", load(both)],
      ],
      { encoding: "utf8" },
    );
    expect(result).toMatchObject({ stdout: "vnetd_decap,vnetd_encap\n", status: 0 });
    // it has run
    expect(readdirSync(work)).toHaveLength(1);
  });

  test("by two threads, while another process sends signals as fast as it can", async () => {
    const script = `let count = 0;
      process.on("SIGUSR2", () => (count += 1));
      const { spawn } = require("node:child_process");
      const sender = spawn("bash", ["-c", "while kill -USR2 " + process.pid + "; do :; done"], { stdio: "ignore" });
      const begun = setInterval(() => {
        if (count === 0) return;
        clearInterval(begun);
        ${load({ ...both, apart: { vnetd_decap: true } })}
        const before = count;
        // those that waited, and those that come, are taken
        const goesOn = setInterval(() => {
          if (count === before) return;
          clearInterval(goesOn);
          console.log("goes on");
          sender.once("exit", () => process.exit());
          sender.kill("SIGKILL");
        }, 1);
      }, 1);`;
    const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "pipe"] });
    let [out, errors] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
    const status = await new Promise((resolve) => child.once("close", resolve));
    expect({ out, errors, status }).toEqual({
      out: "vnetd_decap,vnetd_encap\ngoes on\n",
      errors: "",
      status: 0,
    });
  });
});
