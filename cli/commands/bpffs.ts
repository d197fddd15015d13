// SPDX-License-Identifier: Apache-2.0
/** mount-bpffs: the step before the daemon on a machine whose init does not do it, such as a node of Kubernetes. */
import { resolve } from "node:path";
import type { CommandSpec, Invocation } from "../command.js";
import { mountBpffs } from "../run.js";

async function mount(invocation: Invocation): Promise<void> {
  const directory = resolve(invocation.positional("DIR"));
  const mounted = await mountBpffs(directory);
  if (invocation.output.json) return invocation.output.value({ directory, mounted });
  invocation.output.line(
    mounted ? `mounted a BPF file system on ${directory}` : `${directory} is one already`,
  );
}

export const bpffsCommands: readonly CommandSpec[] = [
  {
    name: "mount-bpffs",
    describe: "mount a BPF file system on a directory, unless there is one",
    positionals: [{ name: "DIR", describe: "for example /sys/fs/bpf", completes: "directory" }],
    epilogue:
      "systemd mounts one on /sys/fs/bpf; this is for machines without it. It takes CAP_SYS_ADMIN, which the daemon does not need.",
    run: mount,
  },
];
