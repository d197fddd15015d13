// SPDX-License-Identifier: Apache-2.0
/** What `make install` and `make dist` lay out works from where it was put, without the checkout. */
import {
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, run, tryRun, type Host, type RunResult } from "../lib/lab.js";

const scripts = join(import.meta.dirname, "..", "..", "scripts");

let lab: Lab;
let host: Host;
let tree: string;
let prefix: string;

beforeAll(async () => {
  lab = await Lab.create();
  host = await lab.host("a", { underlay: "10.66.1.1/24" });
  tree = join(lab.directory, "tree");
  prefix = join(lab.directory, "usr");
  await run([process.execPath, join(scripts, "copy-tree.mjs"), tree, "--with-node"]);
  await run(["cp", join(scripts, "vnetd.service.in"), tree]);
  await run([join(scripts, "install-tree"), "--from", tree, "--prefix", prefix]);
}, 60_000);
afterAll(() => lab.close());

describe("an installation", () => {
  it("has commands that do not look into the checkout", async () => {
    expect(lstatSync(join(prefix, "bin", "vnetd")).isSymbolicLink()).toBe(true);
    const { version } = JSON.parse(
      readFileSync(join(prefix, "lib/vnetd/package.json"), "utf8"),
    ) as {
      version: string;
    };
    for (const name of ["vnetd", "vn"]) {
      const { stdout } = await run([join(prefix, "bin", name), "version"], { cwd: "/" });
      expect(stdout).toContain(version);
    }
    const unit = readFileSync(join(prefix, "lib/systemd/system/vnetd.service"), "utf8");
    expect(unit).toContain(`ExecStart=${prefix}/bin/vnetd run\n`);
  });

  it("has the unit that the README says it has", () => {
    const readme = readFileSync(join(scripts, "..", "README.md"), "utf8");
    expect(readme).toContain("systemctl enable --now vnetd");
    expect(readme).not.toMatch(/\[Service\]/);
    const unit = readFileSync(join(prefix, "lib/systemd/system/vnetd.service"), "utf8");
    expect(unit).toMatch(/^WantedBy=/m);
  });

  it("has the alert rules and the dashboard", () => {
    for (const name of ["vnetd.rules.yml", "grafana-dashboard.json"])
      expect(existsSync(join(prefix, "lib/vnetd/monitoring", name)), name).toBe(true);
  });

  it("has the schemas that editors check the configuration by", () => {
    for (const name of ["vnetd", "vnet"]) {
      const text = readFileSync(join(prefix, `lib/vnetd/schema/${name}.schema.json`), "utf8");
      expect(JSON.parse(text)).toHaveProperty("$schema");
    }
  });

  it("has no development packages", () => {
    expect(existsSync(join(prefix, "lib/vnetd/node_modules/yargs"))).toBe(true);
    expect(existsSync(join(prefix, "lib/vnetd/node_modules/vitest"))).toBe(false);
    expect(existsSync(join(prefix, "lib/vnetd/node_modules/typescript"))).toBe(false);
  });

  it("runs a daemon that carries a vnet", async () => {
    await host.startDaemon({ program: join(prefix, "bin", "vnetd") });
    await host.exec([join(prefix, "bin", "vn"), "attach", "eth0", "--run-dir", host.runDir]);
    const vnets = await host.vnetdJson<{ vnetif: string }[]>(["vnet-list"]);
    expect(vnets.map(({ vnetif }) => vnetif)).toContain("vnif0004");
    await host.killDaemon();
  });

  it("has a completion that bash loads by itself", async () => {
    const completions = join(prefix, "share/bash-completion/completions");
    for (const name of ["vnetd", "vn"]) {
      const script = `. ${completions}/${name}; COMP_LINE="${name} peer-a"; COMP_POINT=\${#COMP_LINE}
        _vnetd ${prefix}/bin/${name}; echo "\${COMPREPLY[@]}"; complete -p ${name}`;
      const { stdout } = await run(["bash", "-c", script]);
      expect(stdout.split("\n")).toEqual(["peer-add", `complete -F _vnetd ${name}`, ""]);
    }
  });

  it("is replaced by the next", async () => {
    await run([join(scripts, "install-tree"), "--from", tree, "--prefix", prefix]);
    const { stdout } = await run(["ls", "-A", join(prefix, "lib")]);
    expect(stdout.split("\n").filter(Boolean)).toEqual(["systemd", "vnetd"]);
  });

  it("has manual pages that man shows, without a warning", async () => {
    const manuals = join(prefix, "share/man");
    const files = (await filesIn(manuals)).filter((name) => /\.\d$/.test(name));
    expect(files).toEqual([
      "man5/vnetd-vnet.5",
      "man5/vnetd.yaml.5",
      "man7/vnetd-drop-reasons.7",
      "man7/vnetd-operations.7",
      "man8/vn.8",
      "man8/vnetd.8",
    ]);
    const shown = async (name: string): Promise<string> => {
      const groff = ["groff", "-man", "-k", "-Tutf8", "-ww", "-P-cbou", `-I${manuals}`, name];
      const { stdout, stderr } = await run(groff, { cwd: manuals });
      expect(stderr, name).toBe("");
      return stdout;
    };
    for (const name of files.filter((each) => each !== "man8/vn.8"))
      expect(await shown(name), name).toMatch(/^NAME$/m);
    expect(readFileSync(join(manuals, "man8/vn.8"), "utf8")).toBe(".so man8/vnetd.8\n");
    const help = (await run([join(prefix, "bin/vnetd"), "--help"])).stdout;
    const inHelp = [...help.matchAll(/^ {2}vnetd ([a-z-]+)/gm)].map(([, name]) => name ?? "");
    expect(inHelp.length).toBeGreaterThan(25);
    const inPage = await shown("man8/vnetd.8");
    for (const name of inHelp.filter((each) => each !== "help"))
      expect(inPage, name).toMatch(new RegExp(`^ {3}${name.replace("-", ".")}$`, "m"));
    expect(await shown("man5/vnetd.yaml.5")).toMatch(/^ +ageingSeconds/m);
  });

  it("has a completion that zsh loads by itself", () => {
    const script = readFileSync(join(prefix, "share/zsh/site-functions/_vnetd"), "utf8");
    expect(script).toMatch(/^#compdef vnetd vn\n/);
  });
});

describe("the tarball", () => {
  let dist: string;

  beforeAll(async () => {
    const make = join(scripts, "make-dist");
    const made = ["one", "two"].map((name) => join(lab.directory, name));
    // at the same time, one by a umask and a locale of its own
    await Promise.all([
      run([make, made[0]!], { timeoutMs: 220_000 }),
      run(`umask 077; LC_ALL=C TZ=Asia/Tokyo ${make} ${made[1]!}`, { timeoutMs: 220_000 }),
    ]);
    const [tarball] = readdirSync(made[0]!).filter((name) => name.endsWith(".tar.gz"));
    expect(tarball).toMatch(/^vnetd-.*-linux-\w+\.tar\.gz$/);
    const sums = made.map((each) => readFileSync(join(each, `${tarball!}.sha256`), "utf8"));
    expect(sums[0]).toBe(sums[1]);
    await run(["sha256sum", "-c", `${tarball!}.sha256`], { cwd: made[1]! });
    // it is copied to another machine
    const there = join(lab.directory, "another machine");
    mkdirSync(there);
    await run(["tar", "-x", "-f", join(made[0]!, tarball!), "-C", there]);
    dist = join(there, tarball!.replace(/\.tar\.gz$/, ""));
  }, 240_000);

  it.each(["", "staged"])("installs itself (DESTDIR: %j)", async (staged) => {
    const at = join(lab.directory, `from-dist${staged}`);
    const destdir = staged === "" ? "" : join(lab.directory, "dist-staged");
    await run([
      ...[join(dist, "install.sh"), "--prefix", at],
      ...(destdir === "" ? [] : ["--destdir", destdir]),
    ]);
    expect(existsSync(at)).toBe(destdir === "");
    const lib = join(`${destdir}${at}`, "lib/vnetd");
    const { version } = JSON.parse(readFileSync(join(lib, "package.json"), "utf8")) as {
      version: string;
    };
    for (const name of ["vnetd", "vn"]) {
      const { stdout } = await run([join(`${destdir}${at}`, "bin", name), "version"], {
        cwd: "/",
      });
      expect(stdout).toContain(version);
    }
    const unit = readFileSync(`${destdir}${at}/lib/systemd/system/vnetd.service`, "utf8");
    expect(unit).toContain(`ExecStart=${at}/bin/vnetd run\n`);
  });

  it("says what is in it", () => {
    const { spdxVersion, packages } = JSON.parse(
      readFileSync(join(dist, "tree/doc/sbom.spdx.json"), "utf8"),
    ) as { spdxVersion: string; packages: { name: string; versionInfo: string }[] };
    expect(spdxVersion).toBe("SPDX-2.3");
    const modules = readdirSync(join(dist, "tree/node_modules"));
    for (const name of modules.filter((each) => !/^[.@]/.test(each)))
      expect(packages.map((each) => each.name)).toContain(name);
    const { version } = JSON.parse(readFileSync(join(dist, "tree/package.json"), "utf8")) as {
      version: string;
    };
    expect(packages[0]).toMatchObject({ name: "vnetd", versionInfo: version });
  });

  it("says how, and whether it has a Node", () => {
    const readme = readFileSync(join(dist, "README"), "utf8");
    expect(readme).toContain("./install.sh");
    const hasNode = existsSync(join(dist, "tree/node/bin/node"));
    expect(readme).toMatch(hasNode ? /^included\.$/m : /^not included: it needs Node >= 20\.$/m);
  });
});

/** each file and directory below */
async function filesIn(directory: string): Promise<string[]> {
  const { stdout } = await run(["find", directory, "-mindepth", "1", "-printf", "%P\n"]);
  return stdout.split("\n").filter(Boolean).sort();
}

describe("uninstalling", () => {
  const install = (...args: string[]): Promise<RunResult> =>
    tryRun([join(scripts, "install-tree"), "--from", tree, ...args]);
  const uninstall = (...args: string[]): Promise<RunResult> =>
    tryRun([join(scripts, "install-tree"), "--uninstall", ...args]);

  it.each(["", "staged"])("leaves what was there before (DESTDIR: %j)", async (staged) => {
    const destdir = staged === "" ? "" : join(lab.directory, staged);
    const at = join(lab.directory, `opt${staged}`);
    const below = `${destdir}${at}`;
    // bin/ is there, and empty; an other's completion has ours beside it; lib/systemd/ is made
    mkdirSync(join(below, "bin"), { recursive: true });
    mkdirSync(join(below, "share/bash-completion/completions"), { recursive: true });
    writeFileSync(join(below, "share/bash-completion/completions/other"), "");
    const before = await filesIn(below);
    const options = ["--prefix", at, ...(destdir === "" ? [] : ["--destdir", destdir])];
    // twice: the second must know what the first has made
    for (let times = 0; times < 2; times++) expect((await install(...options)).code).toBe(0);
    expect(await filesIn(below)).toContain("lib/systemd/system/vnetd.service");
    const gone = await uninstall(...options);
    expect(gone.code).toBe(0);
    expect(gone.stdout).toContain(`removed ${below}/lib/vnetd\n`);
    expect(await filesIn(below)).toEqual(before);
    const again = await uninstall(...options);
    expect(again).toMatchObject({ code: 1 });
    expect(again.stderr).toContain(`no vnetd below ${below}`);
  });

  it("takes no command that somebody else has put there", async () => {
    const at = join(lab.directory, "shared");
    expect((await install("--prefix", at)).code).toBe(0);
    rmSync(join(at, "bin/vn"));
    writeFileSync(join(at, "bin/vn"), "another vn");
    expect((await uninstall("--prefix", at)).code).toBe(0);
    expect(await filesIn(at)).toEqual(["bin", "bin/vn"]);
  });

  it("is a target of make", async () => {
    const at = join(lab.directory, "made");
    expect((await install("--prefix", at)).code).toBe(0);
    await run(["make", "-C", join(scripts, ".."), "uninstall", `PREFIX=${at}`]);
    expect(existsSync(at)).toBe(false);
    expect((await run(["make", "-C", join(scripts, ".."), "help"])).stdout).toMatch(
      /^ {2}uninstall +remove what install put there/m,
    );
  });
});

describe("Node", () => {
  /** Where /usr/bin/node and its like cannot be run; and a copy of the Node in the PATH. */
  const elsewhere = (command: string): Promise<RunResult> =>
    tryRun([
      ...["unshare", "-m", "bash", "-c"],
      `for each in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin; do
         [ ! -e $each/node ] || mount --bind /dev/null "$(readlink -f $each/node)"; done
       export PATH=${lab.directory}/node-elsewhere:$PATH; ${command}`,
    ]);

  it("is said: which runs it", async () => {
    const { stdout } = await run([
      ...[join(scripts, "install-tree"), "--from", tree, "--prefix", prefix],
    ]);
    expect(stdout).toMatch(/^vnetd runs with \/\S+\/node \(v\d+\.\d+\.\d+\)$/m);
  });

  it("that only the caller has is brought along, or its lack is said", async () => {
    mkdirSync(join(lab.directory, "node-elsewhere"));
    copyFileSync(realpathSync(process.execPath), join(lab.directory, "node-elsewhere/node"));
    const own = join(lab.directory, "own-node");
    const laidOut = await elsewhere(`node ${scripts}/copy-tree.mjs ${own}`);
    expect(laidOut.stderr).toMatch(/^(|copy-tree: .* cannot be copied: this machine, .*)$/m);
    expect(laidOut.code).toBe(0);
    const isBrought = existsSync(join(own, "node/bin/node"));
    expect(isBrought).toBe(laidOut.stderr === "");
    await run(["cp", join(scripts, "vnetd.service.in"), own]);
    const at = join(lab.directory, "own");
    const installed = await elsewhere(`${scripts}/install-tree --from ${own} --prefix ${at}`);
    if (isBrought) {
      expect(installed.code).toBe(0);
      expect(installed.stdout).toContain(`vnetd runs with ${at}/lib/vnetd/node/bin/node (v`);
    }
    rmSync(join(own, "node"), { recursive: true, force: true });
    const without = await elsewhere(`${scripts}/install-tree --from ${own} --prefix ${at}`);
    expect(without.code).toBe(1);
    expect(without.stderr).toContain("vnetd needs Node >= 20 in /usr/local/sbin:/usr/local/bin:");
  });
});

describe("install.sh refuses", () => {
  it("a prefix that is not absolute", async () => {
    const result = await tryRun([join(scripts, "install-tree"), "--from", tree, "--prefix", "usr"]);
    expect(result).toMatchObject({ code: 2 });
    expect(result.stderr).toContain("not an absolute path");
  });

  it("a directory that is no tree", async () => {
    const result = await tryRun([
      join(scripts, "install-tree"),
      "--from",
      "/nowhere",
      "--prefix",
      prefix,
    ]);
    expect(result).toMatchObject({ code: 1 });
    expect(result.stderr).toContain("no vnetd tree in /nowhere");
  });
});
