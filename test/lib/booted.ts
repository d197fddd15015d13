// SPDX-License-Identifier: Apache-2.0
/**
 * A machine that systemd has booted, in namespaces of its own: what it sees is this machine's root below an
 * overlay whose changes are gone afterwards, an empty network, a bpffs, a cgroup hierarchy and a /run of its own.
 *
 *   const machine = await booted({ setUp: "cp …", script: "systemctl start vnetd; say state …" });
 *   machine.said("state")
 *
 * `script` runs in it once it is up, with this checkout at /opt/vnetd; `setUp` before systemd does, with the root at
 * $root. What `say NAME COMMAND...` notes is what a test looks at; the rest of the output is shown when something goes
 * wrong. `wait_for COMMAND...` waits until the command succeeds, for 60 s.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { timeFactor, tryRun } from "./processes.js";

const repository = resolve(import.meta.dirname, "..", "..");

const boot = `set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$work/layer"
mkdir "$work/layer/changes" "$work/layer/work" "$work/layer/root"
root=$work/layer/root
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$work/layer/changes,workdir=$work/layer/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t bpf bpf "$root/sys/fs/bpf"
mkdir -p "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
for each in run tmp dev/shm; do mount -t tmpfs tmpfs "$root/$each"; done
mkdir -p "$root/opt/vnetd" "$root/run/out"
mount --bind "$repository" "$root/opt/vnetd"
mount --bind "$work/out" "$root/run/out"
# nothing of this machine's own starts, and what is installed may
rm -f "$root/usr/sbin/policy-rc.d"
rm -rf "$root"/etc/systemd/system/*.wants "$root/etc/systemd/network" "$root/etc/vnetd" "$root/var/lib/vnetd"
: >"$root/etc/fstab"
units=$root/etc/systemd/system
for each in systemd-udevd systemd-networkd systemd-resolved systemd-timesyncd; do
  ln -sfn /dev/null "$units/$each.service"
done
cat >"$units/test.service" <<END
[Unit]
DefaultDependencies=no
After=basic.target
[Service]
Type=oneshot
Environment=PATH=$PATH
ExecStart=/bin/bash -eu /run/out/script
StandardOutput=file:/run/out/log
StandardError=inherit
ExecStopPost=/bin/systemctl --no-block exit
TimeoutStartSec=infinity
END
printf '[Unit]\\nRequires=basic.target test.service\\nAfter=basic.target\\n' >"$units/test.target"
. "$work/set-up"
cd "$root"
exec chroot . /usr/bin/env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \\
  /lib/systemd/systemd --system --unit=test.target --log-target=journal --show-status=no`;

/**
 * For a script: a second host in the namespace b, whose vnet 4 has 10.0.0.2; this host's eth0, 10.66.1.1, leads to it.
 * `in_b COMMAND...` runs something there.
 */
export const secondHost = `
    ip netns add b
    ip link add eth0 type veth peer name eth0 netns b
    ip address add 10.66.1.1/24 dev eth0; ip link set eth0 up
    in_b() { nsenter --net=/run/netns/b "$@"; }
    in_b ip address add 10.66.1.2/24 dev eth0; in_b ip link set eth0 up
    in_b /opt/vnetd/bin/vnetd run --run-dir /run/b --state-dir /tmp/b --bpffs /sys/fs/bpf/b >/dev/null &
    wait_for in_b /opt/vnetd/bin/vnetd status --run-dir /run/b
    in_b /opt/vnetd/bin/vnetd attach eth0 --run-dir /run/b
    in_b ip address add 10.0.0.2/24 dev vnif0004
`;

const prelude = `
say() { local name=$1; shift; printf '%s=%s\\n' "$name" "$({ set +x; } 2>/dev/null; "$@" 2>&1 | tr '\\n' '|')" >>/run/out/said; }
wait_for() {
  local deadline=$((SECONDS + ${String(60 * timeFactor)}))
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { echo "never: $*"; return 1; }
    sleep 0.05
  done
}
ip link set lo up
set -x
`;

export interface BootedOptions {
  script: string;
  setUp?: string;
  /** a root that is not this machine's; default / */
  root?: string;
  /** files for /run/out */
  files?: Record<string, string>;
  timeoutMs?: number;
}

export class BootedMachine {
  constructor(
    private readonly values: ReadonlyMap<string, string>,
    private readonly log: string,
  ) {}

  /** What `say` noted under the name last, its lines joined by "|". Throws with the whole log if nothing was. */
  said(name: string): string {
    const value = this.values.get(name);
    if (value === undefined) throw new Error(`nothing was said of ${name}\n${this.log}`);
    return value;
  }
}

/** Boots, runs the script to its end and returns what it said. */
export async function booted(options: BootedOptions): Promise<BootedMachine> {
  const work = mkdtempSync(join(tmpdir(), "vnetd-booted-"));
  const out = join(work, "out");
  try {
    for (const each of [out, join(work, "layer")]) mkdirSync(each);
    writeFileSync(join(work, "set-up"), options.setUp ?? "");
    writeFileSync(join(work, "boot"), boot);
    writeFileSync(join(out, "script"), `${prelude}${options.script}\nsay end echo reached\n`);
    for (const [name, text] of Object.entries(options.files ?? {}))
      writeFileSync(join(out, name), text);
    const namespaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"];
    const result = await tryRun(
      ["unshare", ...namespaces, "--fork", "--kill-child", "bash", join(work, "boot")],
      {
        env: { work, repository, lower: options.root ?? "/" },
        timeoutMs: options.timeoutMs ?? 220_000,
      },
    );
    const log = `${result.stderr}${result.stdout}${textOf(join(out, "log"))}`;
    const lines = textOf(join(out, "said")).split("\n").filter(Boolean);
    const pairs = lines.map((line): [string, string] => {
      const at = line.indexOf("=");
      return [line.slice(0, at), line.slice(at + 1)];
    });
    const machine = new BootedMachine(new Map(pairs), log);
    machine.said("end");
    return machine;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
