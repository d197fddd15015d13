// SPDX-License-Identifier: Apache-2.0
/**
 * The test projects. `npx vitest run --project unit` runs one; docs/testing.md says what each is
 * for. Only unit needs no root. Those that change the kernel's state run one file at a time.
 */
import { defineConfig } from "vitest/config";

const timeFactor = Number(process.env["VNETD_TIME_FACTOR"] ?? "1");

interface Project {
  name: string;
  timeoutMs: number;
  sequential: boolean;
  /** left out: all of test/NAME */
  files?: string[];
  env?: Record<string, string>;
}

const projects: Project[] = [
  { name: "unit", timeoutMs: 10_000, sequential: false },
  { name: "native", timeoutMs: 15_000, sequential: true },
  { name: "packet", timeoutMs: 15_000, sequential: true },
  { name: "golden", timeoutMs: 30_000, sequential: true },
  { name: "netns", timeoutMs: 60_000, sequential: true },
  // once more with hooks as clsact filters, the only way of kernels before 6.6
  {
    name: "clsact",
    timeoutMs: 60_000,
    sequential: true,
    files: ["robust", "underlay", "vnets"].map((area) => `test/netns/daemon-${area}.test.ts`),
    env: { VNETD_HOOK_MODE: "clsact" },
  },
  // for kernels that have what the test wants: by test/vm/files only
  { name: "vm", timeoutMs: 60_000, sequential: true },
];

export default defineConfig({
  test: {
    projects: projects.map(({ name, timeoutMs, sequential, files, env }) => ({
      test: {
        name,
        include: files ?? [`test/${name}/**/*.test.ts`],
        ...(env === undefined ? {} : { env }),
        environment: "node",
        // processes, not threads: an addon's handles and a lab's namespaces belong to a process
        pool: "forks",
        fileParallelism: !sequential,
        testTimeout: timeoutMs * timeFactor,
        hookTimeout: timeoutMs * timeFactor,
      },
    })),
  },
});
