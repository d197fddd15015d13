#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * `make image`: a container image in OCI's layout, of what is built here, of Debian's packages by this machine's apt, and of nothing
 * else; no container tool and no registry is needed, nor root.
 *
 *   build/image/vnetd-VERSION-ARCH.oci.tar      for podman load, ctr images import, skopeo copy oci-archive:…
 *   build/image/vnetd-VERSION-ARCH.spdx.json    what is in it (SPDX 2.3), also in the image
 *   build/image/oci/                            the same layout as a directory
 *
 * The image has no shell and no package manager: Node, the libraries that it and the addon are linked with, and vnetd. Which Debian
 * packages these are is found by ldd; dpkg's records of them are kept for scanners (/var/lib/dpkg/status.d). The same sources
 * and packages make the same bytes: times are those of the commit (or SOURCE_DATE_EPOCH), names are sorted.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { join, relative, resolve } from "node:path";
import { npmPackages, spdx } from "./sbom.mjs";

const root = resolve(import.meta.dirname, "..");
const out = join(root, "build", "image");
const { version, license } = JSON.parse(fs.readFileSync(join(root, "package.json"), "utf8"));
const arch = { x64: "amd64", arm64: "arm64" }[process.arch] ?? fail(`no image for ${process.arch}`);
const libraryDirectory = { x64: "x86_64-linux-gnu", arm64: "aarch64-linux-gnu" }[process.arch];
const name = `vnetd-${version}-${arch}`;

function fail(message) {
  console.error(`make-image: ${message}`);
  process.exit(1);
}
const run = (program, args, options = {}) =>
  execFileSync(program, args, { cwd: root, maxBuffer: 1 << 28, ...options });
const text = (program, ...args) => run(program, args, { encoding: "utf8" }).trim();
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

const seconds = Number(process.env.SOURCE_DATE_EPOCH ?? text("git", "log", "-1", "--format=%ct"));
const created = new Date(seconds * 1000).toISOString().replace(".000Z", "Z");

/** the file as it is written into a layer, its directories made */
function put(directory, path, content, mode = 0o644) {
  const file = join(directory, path);
  fs.mkdirSync(join(file, ".."), { recursive: true });
  fs.writeFileSync(file, content, { mode });
}

// ---- what is ours

function layOutVnetd(layer) {
  const tree = join(layer, "usr/lib/vnetd");
  run(process.execPath, ["scripts/copy-tree.mjs", tree, "--with-node"]);
  if (!fs.existsSync(join(tree, "node/bin/node")))
    fail(
      "this Node cannot be copied: it needs shared libraries (npm's package node-linux-* does not)",
    );
  fs.rmSync(join(tree, "wireshark"), { recursive: true });
  fs.mkdirSync(join(layer, "usr/bin"), { recursive: true });
  for (const program of ["vnetd", "vn"]) {
    // without the lines for a shell, which there is none
    const path = join(tree, "bin", program);
    const script = fs.readFileSync(path, "utf8").split("\n").slice(2).join("\n");
    fs.writeFileSync(path, `#!/usr/bin/node\n${script}`, { mode: 0o755 });
    fs.symlinkSync(`../lib/vnetd/bin/${program}`, join(layer, "usr/bin", program));
  }
  for (const each of ["etc/vnetd/config", "etc/vnetd/vnets", "etc/vnetd/keys", "etc/vnetd/metrics"])
    fs.mkdirSync(join(layer, each), { recursive: true });
  for (const each of ["run/vnetd", "var/lib/vnetd", "host/sys/fs"])
    fs.mkdirSync(join(layer, each), { recursive: true });
}

/** Node changes rarely, so it is in the layer of the libraries. */
function moveNode(from, to) {
  fs.mkdirSync(join(to, "usr/bin"), { recursive: true });
  fs.renameSync(join(from, "usr/lib/vnetd/node/bin/node"), join(to, "usr/bin/node"));
  const licence = join(from, "usr/lib/vnetd/node/LICENSE");
  if (fs.existsSync(licence)) {
    fs.mkdirSync(join(to, "usr/share/doc/node"), { recursive: true });
    fs.renameSync(licence, join(to, "usr/share/doc/node/LICENSE"));
  }
  fs.rmSync(join(from, "usr/lib/vnetd/node"), { recursive: true });
}

// ---- what is Debian's

function librariesOf(program) {
  return text("ldd", program)
    .split("\n")
    .map((line) => /(?:=> )?(\/\S+) \(0x/.exec(line)?.[1])
    .filter((path) => path !== undefined);
}

/** dpkg knows a file by the path that its package has, which may be before the merge of /lib and /usr/lib */
function packageOf(library) {
  for (const path of [
    library,
    fs.realpathSync(library),
    library.replace(/^\/usr/, ""),
    `/usr${library}`,
  ]) {
    try {
      return run("dpkg", ["-S", path], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
      }).split(":")[0];
    } catch {
      // not by this path
    }
  }
  return fail(`${library} is of no Debian package`);
}

function download(packages) {
  const directory = join(out, "debs");
  fs.mkdirSync(directory, { recursive: true });
  const get = () =>
    run("apt-get", ["-q", "download", ...packages], { cwd: directory, stdio: "pipe" });
  try {
    get();
  } catch {
    // the lists may be old, or not there
    run("apt-get", ["-q", "update"], { stdio: "pipe" });
    get();
  }
  return fs
    .readdirSync(directory)
    .sort()
    .map((file) => join(directory, file));
}

const unwanted = [
  ...[
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/base-files",
    "usr/share/common-licenses/GPL-1",
  ],
  ...[
    `usr/lib/${libraryDirectory}/gconv`,
    "usr/share/i18n",
    "etc/update-motd.d",
    "etc/profile.d",
    "etc/motd",
    "etc/ld.so.conf.d",
  ],
  ...[
    "home",
    "boot",
    "media",
    "mnt",
    "opt",
    "srv",
    "var/backups",
    "var/local",
    "usr/games",
    "usr/src",
    "usr/local",
  ],
];

/** Each package's fields, for the list of what is in the image. */
function layOutDebian(layer, debs) {
  for (const each of ["bin", "sbin", "lib", "lib64"]) {
    fs.mkdirSync(join(layer, "usr", each), { recursive: true });
    fs.symlinkSync(`usr/${each}`, join(layer, each));
  }
  const found = [];
  for (const deb of debs) {
    const tar = run("dpkg-deb", ["--fsys-tarfile", deb]);
    run("tar", ["-x", "--keep-directory-symlink", "--no-same-owner", "-C", layer], { input: tar });
    const fields = run("dpkg-deb", ["-f", deb], { encoding: "utf8" });
    const field = (key) => new RegExp(`^${key}: (.*)$`, "m").exec(fields)?.[1] ?? "";
    found.push({
      name: field("Package"),
      version: field("Version"),
      source: field("Source"),
      sha256: sha256(fs.readFileSync(deb)),
    });
    put(layer, `var/lib/dpkg/status.d/${field("Package")}`, `${fields.trimEnd()}\n`);
  }
  for (const path of unwanted) fs.rmSync(join(layer, path), { recursive: true, force: true });
  for (const directory of fs.readdirSync(join(layer, "usr/share/doc"), { withFileTypes: true })) {
    if (!directory.isDirectory()) continue;
    const path = join(layer, "usr/share/doc", directory.name);
    for (const file of fs.readdirSync(path))
      if (file !== "copyright") fs.rmSync(join(path, file), { recursive: true });
  }
  put(
    layer,
    "etc/passwd",
    "root:x:0:0:root:/:/usr/bin/vnetd\nnobody:x:65534:65534:nobody:/:/usr/bin/vnetd\n",
  );
  put(layer, "etc/group", "root:x:0:\nnogroup:x:65534:\n");
  put(layer, "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
  for (const each of ["dev", "proc", "sys", "run", "var/lib"])
    fs.mkdirSync(join(layer, each), { recursive: true });
  fs.rmSync(join(layer, "tmp"), { recursive: true, force: true });
  fs.mkdirSync(join(layer, "tmp"));
  return found;
}

// ---- OCI's layout

const blobs = join(out, "oci", "blobs", "sha256");
function blob(mediaType, bytes) {
  const digest = sha256(bytes);
  fs.writeFileSync(join(blobs, digest), bytes);
  return { mediaType, digest: `sha256:${digest}`, size: bytes.length };
}

function pack(directory) {
  // nobody's umask, and nobody's owner
  run("chmod", ["-R", "u=rwX,go=rX", directory]);
  if (fs.existsSync(join(directory, "tmp"))) fs.chmodSync(join(directory, "tmp"), 0o1777);
  const tar = run(
    "tar",
    [
      ...["-c", "--sort=name", `--mtime=@${seconds}`, "--owner=0", "--group=0", "--numeric-owner"],
      ...["--format=posix", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"],
      ...["-C", directory, "."],
    ],
    { maxBuffer: 1 << 30 },
  );
  const packed = run("gzip", ["-n", "-6"], { input: tar, maxBuffer: 1 << 30 });
  return {
    ...blob("application/vnd.oci.image.layer.v1.tar+gzip", packed),
    diffId: `sha256:${sha256(tar)}`,
  };
}

fs.rmSync(out, { recursive: true, force: true });
fs.mkdirSync(blobs, { recursive: true });
const [base, app] = [join(out, "base"), join(out, "app")];
layOutVnetd(app);
const binaries = [
  join(app, "usr/lib/vnetd/node/bin/node"),
  join(app, "usr/lib/vnetd/build/addon/vnetd.node"),
];
const packages = new Set(["base-files", ...binaries.flatMap(librariesOf).map(packageOf)]);
const debian = layOutDebian(base, download([...packages].sort()));
moveNode(app, base);
const npm = npmPackages(join(app, "usr/lib/vnetd/node_modules"));
const list = spdx({ name, arch, created, debian, npm, withNode: true });
put(app, "usr/share/doc/vnetd/sbom.spdx.json", list);
fs.writeFileSync(join(out, `${name}.spdx.json`), list);

const layers = [pack(base), pack(app)];
const config = blob(
  "application/vnd.oci.image.config.v1+json",
  Buffer.from(
    JSON.stringify({
      created,
      architecture: arch,
      os: "linux",
      config: {
        Env: ["PATH=/usr/bin"],
        Entrypoint: ["/usr/bin/vnetd"],
        Cmd: ["run"],
        WorkingDir: "/",
        StopSignal: "SIGTERM",
        Labels: {
          "org.opencontainers.image.title": "vnetd",
          "org.opencontainers.image.version": version,
          "org.opencontainers.image.licenses": `${license} AND GPL-2.0-only`,
        },
      },
      rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
      history: layers.map(() => ({ created, created_by: "make image" })),
    }),
  ),
);
const manifest = blob(
  "application/vnd.oci.image.manifest.v1+json",
  Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config,
      layers: layers.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
    }),
  ),
);
put(join(out, "oci"), "oci-layout", JSON.stringify({ imageLayoutVersion: "1.0.0" }));
put(
  join(out, "oci"),
  "index.json",
  JSON.stringify({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [
      {
        ...manifest,
        platform: { architecture: arch, os: "linux" },
        annotations: {
          "org.opencontainers.image.ref.name": `vnetd:${version}`,
          "io.containerd.image.name": `docker.io/library/vnetd:${version}`,
        },
      },
    ],
  }),
);
const archive = join(out, `${name}.oci.tar`);
run("tar", [
  "-c",
  "-f",
  archive,
  "--sort=name",
  `--mtime=@${seconds}`,
  "--owner=0",
  "--group=0",
  "--numeric-owner",
  "-C",
  join(out, "oci"),
  ".",
]);
const megabytes = (bytes) => (bytes / 1e6).toFixed(0);
const unpacked = Number(text("du", "-sb", "--total", base, app).split("\n").at(-1).split("\t")[0]);
for (const each of [base, app, join(out, "debs")]) fs.rmSync(each, { recursive: true });
console.log(
  `made ${relative(root, archive)}: ${megabytes(fs.statSync(archive).size)} MB, unpacked ${megabytes(unpacked)} MB, ${manifest.digest}`,
);
