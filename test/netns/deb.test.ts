// SPDX-License-Identifier: Apache-2.0
/**
 * The Debian package: the same bytes each time, installed, upgraded, removed and purged where systemd runs. That is this machine's
 * root, whose Node is not Debian's; or, for test/fresh/package, the Debian in VNETD_DEB_ROOT, where apt finds all that is needed.
 */
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { booted, secondHost, type BootedMachine } from "../lib/booted.js";
import { run } from "../lib/processes.js";

const repository = join(import.meta.dirname, "..", "..");
const directory = mkdtempSync(join(tmpdir(), "vnetd-deb-"));
const freshRoot = process.env.VNETD_DEB_ROOT;
const packages = ["one", "two"].map((name) => join(directory, name));
let deb: string;

beforeAll(async () => {
  for (const to of packages) mkdirSync(to);
  // at the same time, by a umask and a locale of its own
  const make = join(repository, "scripts/make-deb");
  const options = { timeoutMs: 220_000 };
  await Promise.all([
    run([make, packages[0] ?? "", "1.0"], options),
    run(`umask 077; LC_ALL=C TZ=Asia/Tokyo ${make} ${packages[1] ?? ""} 1.0`, options),
  ]);
  deb = join(packages[0] ?? "", readdirSync(packages[0] ?? "")[0] ?? "");
}, 240_000);
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe("make-deb", () => {
  it("makes the same bytes each time", () => {
    const sums = packages.map((each) => {
      const [name] = readdirSync(each);
      expect(name).toMatch(/^vnetd_1\.0_\w+\.deb$/);
      return createHash("sha256")
        .update(readFileSync(join(each, name ?? "")))
        .digest("hex");
    });
    expect(sums[0]).toBe(sums[1]);
  });

  it("says which Node and libraries are needed, and brings none", async () => {
    const { stdout: fields } = await run(["dpkg-deb", "--field", deb]);
    expect(fields).toMatch(/^Depends: nodejs \(>= 20\), .*libbpf1 .*libmnl0 /m);
    const { stdout: contents } = await run(["dpkg-deb", "--contents", deb]);
    expect(contents).not.toMatch(/bin\/node$|node_modules\/(vitest|typescript)\//m);
    for (const path of [
      "./etc/vnetd/vnetd.yaml",
      "./usr/lib/systemd/system/vnetd.service",
      "./usr/lib/systemd/network/10-vnetd.network",
      "./usr/lib/NetworkManager/conf.d/vnetd.conf",
      "./usr/share/man/man8/vnetd.8.gz",
      "./usr/share/zsh/vendor-completions/_vnetd",
      "./usr/share/doc/vnetd/install.md",
      "./usr/share/doc/vnetd/copyright",
    ])
      expect(contents).toContain(` ${path}\n`);
    // whoever made it
    for (const line of contents.trimEnd().split("\n")) expect(line).toMatch(/^\S+ root\/root /);
  });

  it("has nothing of the machine in what was built", async () => {
    for (const name of ["addon/vnetd.node", "bpf/vnetd.bpf.o"]) {
      const bytes = readFileSync(join(repository, "build", name));
      expect(bytes.includes(repository), name).toBe(false);
    }
  });
});

/** the Node that runs this, where the package's daemon finds it */
const ownNode = `
  touch "$root/usr/local/bin/node"
  mount --bind ${realpathSync(process.execPath)} "$root/usr/local/bin/node"`;

describe("the package", () => {
  let machine: BootedMachine;

  /** A ping of a vnet goes on from the first installation to the last before the purge. */
  const script = `
    install() { ${
      freshRoot === undefined
        ? "dpkg --force-depends -i"
        : "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"
    } /run/out/$1; }
    dpkg-deb -R /run/out/vnetd-1.deb /tmp/next
    sed -i 's/^Version: .*/Version: 2.0/' /tmp/next/DEBIAN/control
    dpkg-deb -Znone -b /tmp/next /run/out/vnetd-2.deb >/dev/null

    install vnetd-1.deb
    say installed systemctl show -P ActiveState -P UnitFileState vnetd
    ${secondHost}
    vnetd attach eth0
    ip address add 10.0.0.1/24 dev vnif0004
    wait_for ping -c 1 -W 1 10.0.0.2
    ping -i 0.05 10.0.0.2 >/run/out/ping &
    pinging=$!

    before=$(systemctl show -P MainPID vnetd)
    install vnetd-2.deb
    say version dpkg-query -W -f '\${Version}' vnetd
    say upgraded systemctl show -P ActiveState vnetd
    say daemons sh -c "[ $before != $(systemctl show -P MainPID vnetd) ] && echo another"
    say status vnetd status
    say reload vnetd reload
    # what the administrator has written stays
    echo 'helloSeconds: 20' >>/etc/vnetd/vnetd.yaml

    say removing dpkg -r vnetd
    say removed sh -c 'systemctl is-active vnetd; ls /usr/lib/vnetd /usr/bin/vnetd; ls /var/lib/vnetd/state.yaml'
    wait_for ping -c 3 -i 0.05 -W 1 10.0.0.2
    install vnetd-2.deb
    say back systemctl show -P ActiveState -P UnitFileState vnetd
    say back-status vnetd status
    say conffile cat /etc/vnetd/vnetd.yaml
    kill -INT $pinging; wait $pinging || true
    say ping tail -n 3 /run/out/ping

    # a bridge that a guest is still on, and a key of the administrator's
    printf '(vnet (id 97) (bridge vnet97))(vnet (id 98) (bridge vnet98))' | vnetd vnet-create -
    ip link add guest type veth peer name guest-in
    ip link set guest master vnet98
    touch /etc/vnetd/my.key
    say before ip -o link
    say purging dpkg -P vnetd
    say links ip -o link
    say addresses ip -o address
    say programs bpftool net
    say left sh -c 'ls -d /etc/vnetd/* /var/lib/vnetd /run/vnetd /sys/fs/bpf/vnetd; systemctl cat vnetd; dpkg -l vnetd; true'
    say wants ls /etc/systemd/system/multi-user.target.wants
    say after sh -c 'ping -c 1 -W 1 10.0.0.2 >/dev/null 2>&1 || echo unreachable'`;

  beforeAll(async () => {
    machine = await booted({
      script,
      ...(freshRoot === undefined ? {} : { root: freshRoot }),
      setUp: `cp ${deb} "$work/out/vnetd-1.deb"${freshRoot === undefined ? ownNode : ""}`,
    });
  }, 240_000);

  it("starts the daemon when it is installed, and at every boot", () => {
    expect(machine.said("installed")).toBe("active|enabled|");
  });

  it("is upgraded to another daemon with everything that was", () => {
    expect(machine.said("version")).toBe("2.0");
    expect(machine.said("upgraded")).toBe("active|");
    expect(machine.said("daemons")).toBe("another|");
    expect(machine.said("status")).toMatch(/eth0 +10\.66\.1\.1 +up/);
    expect(machine.said("reload")).toMatch(/^\/etc\/vnetd\/vnetd\.yaml was read/);
  });

  it("is removed with the vnets going on, and says so", () => {
    expect(machine.said("removing")).toContain("goes on forwarding without the daemon");
    const removed = machine.said("removed");
    expect(removed).toMatch(/^inactive\|/);
    expect(removed).toContain("cannot access '/usr/lib/vnetd'");
    expect(removed).toContain("cannot access '/usr/bin/vnetd'");
    expect(removed).toMatch(/\|\/var\/lib\/vnetd\/state\.yaml\|$/);
  });

  it("comes back with everything, the administrator's configuration included", () => {
    expect(machine.said("back")).toBe("active|enabled|");
    expect(machine.said("back-status")).toMatch(/eth0 +10\.66\.1\.1 +up/);
    expect(machine.said("conffile")).toContain("helloSeconds: 20");
  });

  it("loses no frame by any of this", () => {
    expect(machine.said("ping")).toMatch(/ 0% packet loss/);
  });

  it("is purged with pins, devices, group and state; what is another's stays", () => {
    expect(machine.said("before")).toMatch(/vn-segment0.*vnif0004.*vnet97/);
    const links = machine.said("links");
    expect(links).not.toMatch(/vnif|vn-|vnet97/);
    expect(links).toMatch(/\|\d+: vnet98: .* guest@guest-in: .* master vnet98 /);
    expect(machine.said("purging")).toContain("the bridge vnet98 stays");
    expect(machine.said("addresses")).not.toContain("224.10.0.1");
    expect(machine.said("programs")).not.toContain("vnetd_");
    const left = machine.said("left");
    expect(left.split("|").filter((line) => line.startsWith("/"))).toEqual(["/etc/vnetd/my.key"]);
    expect(left).toContain("No files found for vnetd.service.");
    expect(left).toContain("no packages found matching vnetd");
    expect(machine.said("wants")).not.toContain("vnetd");
    expect(machine.said("after")).toBe("unreachable|");
  });
});
