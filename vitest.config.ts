// SPDX-License-Identifier: Apache-2.0
/**
 * The test projects. `npx vitest run --project unit` runs one; docs/testing.md says what each is
 * for. Only unit needs no root. Those that share the state of a namespace run one file at a time.
 */
import { defineConfig } from "vitest/config";

/** Set: so many files at the same time, whatever the project says. */
const wantedWorkers = process.env["VNETD_TEST_WORKERS"];
const timeFactor = Number(process.env["VNETD_TIME_FACTOR"] ?? "1");

interface Project {
  name: string;
  timeoutMs: number;
  /** files at the same time; left out: as many as there are cores */
  workers?: number;
  /** left out: all of test/NAME */
  files?: string[];
  without?: string[];
  env?: Record<string, string>;
}

const flood = "test/netns/daemon-flood.test.ts";

const projects: Project[] = [
  { name: "unit", timeoutMs: 10_000 },
  { name: "native", timeoutMs: 15_000, workers: 1 },
  { name: "packet", timeoutMs: 15_000, workers: 1 },
  { name: "golden", timeoutMs: 30_000, workers: 1 },
  // each file has namespaces of its own and mostly waits
  { name: "netns", timeoutMs: 60_000, workers: 3, without: [flood] },
  // takes all that the machine has
  { name: "flood", timeoutMs: 60_000, workers: 1, files: [flood] },
  // once more with hooks as clsact filters, the only way of kernels before 6.6
  {
    name: "clsact",
    timeoutMs: 60_000,
    workers: 2,
    files: ["daemon-robust", "daemon-underlay", "daemon-vnets", "hooks", "outage"].map(
      (name) => `test/netns/${name}.test.ts`,
    ),
    env: { VNETD_HOOK_MODE: "clsact" },
  },
  // makes the image and runs it with crun
  { name: "image", timeoutMs: 60_000, workers: 1 },
  // for kernels that have what the test wants: by test/vm/files only
  { name: "vm", timeoutMs: 60_000, workers: 1 },
];

export default defineConfig({
  test: {
    projects: projects.map(({ name, timeoutMs, workers, files, without, env }, order) => ({
      test: {
        name,
        include: files ?? [`test/${name}/**/*.test.ts`],
        exclude: without ?? [],
        ...(env === undefined ? {} : { env }),
        environment: "node",
        // processes, not threads: an addon's handles and a lab's namespaces belong to a process
        pool: "forks",
        ...(wantedWorkers !== undefined
          ? { maxWorkers: Number(wantedWorkers) }
          : workers === undefined
            ? {}
            : { maxWorkers: workers }),
        // one project after the other
        sequence: { groupOrder: order },
        testTimeout: timeoutMs * timeFactor,
        hookTimeout: timeoutMs * timeFactor,
      },
    })),
  },
});
