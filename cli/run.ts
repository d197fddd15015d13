// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd run`, `vnetd mount-bpffs`, and `vnetd doctor` and `detach --all` where no daemon answers: the one place where the command line reaches
 * into the daemon. It is loaded only here and only then, so that no other command needs the addon or the
 * kernel's features.
 */
import type { DetachAllInfo, DoctorReport } from "../src/api/contract.js";
import type { RunOptions } from "../src/base/paths.js";

/** Returns when the daemon was told to stop. */
export async function runDaemon(options: RunOptions): Promise<void> {
  const daemon = await import("../src/main.js");
  await daemon.main(options);
}

/** What can be seen without a daemon; `why` says why there is none. */
export async function diagnoseAlone(options: RunOptions, why: string): Promise<DoctorReport> {
  const doctor = await import("../src/doctor/alone.js");
  return doctor.diagnoseAlone(options, why);
}

/** With what the command tests by itself. */
export async function withOffloads(report: DoctorReport): Promise<DoctorReport> {
  const doctor = await import("../src/doctor/alone.js");
  return doctor.withOffloads(report);
}

/** true: mounted; false: there was one. */
export async function mountBpffs(directory: string): Promise<boolean> {
  const { loadNative } = await import("../src/native/load.js");
  const generation = await import("../src/dataplane/generation.js");
  return generation.mountBpffs(loadNative(), directory);
}

/** Removes the data plane where no daemon runs that would. */
export async function detachAlone(options: RunOptions): Promise<DetachAllInfo> {
  const alone = await import("../src/detach-alone.js");
  return alone.detachAlone(options);
}
