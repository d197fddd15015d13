// SPDX-License-Identifier: Apache-2.0
/** detach: from one device, or `--all`, which ends forwarding and leaves nothing of the data plane. */
import type { DetachAllInfo } from "../../src/api/contract.js";
import { errorParts, VnetdError } from "../../src/base/errors.js";
import type { CommandSpec, Invocation } from "../command.js";
import { daemonOptions, daemonPaths } from "../daemon-options.js";
import { detachAlone } from "../run.js";

/** the kernel takes its time to remove thousands of devices, one by one */
const removalTimeoutMs = 600_000;
/** names of a kind that are shown; --json has all */
const maxNames = 12;

async function detach(invocation: Invocation): Promise<number | void> {
  const device = invocation.option("DEV");
  if (invocation.flag("all") !== (device === undefined)) {
    throw new VnetdError("USAGE", "detach takes a device, or --all", {
      hint: `${invocation.environment.program} status shows the attached devices.`,
    });
  }
  if (device === undefined) return detachAll(invocation);
  const detached = await invocation.request("detach", { device });
  if (invocation.output.json) invocation.output.value(detached);
  else invocation.output.line(`detached ${detached.device}`);
}

async function detachAll(invocation: Invocation): Promise<number> {
  const done = await remove(invocation);
  if (invocation.output.json) invocation.output.value(done);
  else show(invocation, done);
  return done.failed.length > 0 ? 1 : 0;
}

/** By the daemon, if one runs. */
async function remove(invocation: Invocation): Promise<DetachAllInfo> {
  try {
    return await invocation.request("detachAll", { all: true }, removalTimeoutMs);
  } catch (error) {
    if (errorParts(error).code !== "NO_DAEMON") throw error;
    return detachAlone(daemonPaths(invocation));
  }
}

function show({ output }: Invocation, done: DetachAllInfo): void {
  const kinds = [...new Set(done.removed.map(({ kind }) => kind))];
  for (const kind of kinds) {
    const names = done.removed.filter((each) => each.kind === kind).map(({ name }) => name);
    const more = names.length - maxNames;
    const rest = more > 0 ? ` and ${more} more` : "";
    output.line(`removed ${kind}: ${names.slice(0, maxNames).join(", ")}${rest}`);
  }
  if (kinds.length === 0 && done.failed.length === 0) output.line("nothing of vnetd is there");
  if (done.daemon !== null) output.line(`the daemon (pid ${done.daemon}) ends`);
  if (done.forgotten.length > 0) output.line(`no longer attached: ${done.forgotten.join(", ")}`);
  for (const text of done.left) output.note(text);
  if (done.stillConfigured.length > 0) {
    output.note(
      `a daemon that is started attaches ${done.stillConfigured.join(", ")} again: the configuration says so`,
    );
  }
  for (const text of done.failed) output.note(`not removed: ${text}`);
}

export const detachCommand: CommandSpec = {
  name: "detach",
  describe: "stop carrying vnets over a network device, or end it all",
  positionals: [{ name: "DEV", describe: "the device", completes: "device", optional: true }],
  options: [
    {
      name: "all",
      flag: true,
      describe:
        "remove the whole data plane: hooks, vnets' devices, keys in the kernel, all that is pinned",
    },
    ...daemonOptions
      .filter(({ name }) => name !== "metrics-listen")
      .map((option) => ({ ...option, describe: `--all where no daemon runs: ${option.describe}` })),
  ],
  epilogue:
    "--all works with and without a daemon, which it ends, and is what to type before the package is removed. Vnets, their keys and the rest of the state stay: the next daemon makes them again, attached to nothing but what the configuration says. What others made is left alone.",
  run: detach,
};
