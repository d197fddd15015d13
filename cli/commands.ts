// SPDX-License-Identifier: Apache-2.0
/** All commands, in the order of the help. */
import type { CommandSpec } from "./command.js";
import { applyCommands } from "./commands/apply.js";
import { bpffsCommands } from "./commands/bpffs.js";
import { completionCommands } from "./commands/completion.js";
import { daemonCommands } from "./commands/daemon.js";
import { doctorCommands } from "./commands/doctor.js";
import { keyCommands } from "./commands/keys.js";
import { peerCommands } from "./commands/peers.js";
import { portCommands } from "./commands/ports.js";
import { replacedCommands } from "./commands/replaced.js";
import { stationCommands } from "./commands/stations.js";
import { traceCommands } from "./commands/trace.js";
import { watchCommands } from "./commands/watch.js";
import { vnetCommands } from "./commands/vnets.js";

export const commands: readonly CommandSpec[] = [
  ...daemonCommands,
  ...doctorCommands,
  ...vnetCommands,
  ...applyCommands,
  ...keyCommands,
  ...stationCommands,
  ...portCommands,
  ...peerCommands,
  ...watchCommands,
  ...traceCommands,
  ...bpffsCommands,
  ...replacedCommands,
  ...completionCommands,
];
