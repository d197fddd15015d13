// SPDX-License-Identifier: Apache-2.0
/**
 * Runs a pod of a rendered DaemonSet with an OCI runtime (crun) in a host of the lab, as kubelet and containerd would: capabilities,
 * user, seccomp, read-only root, mounts with their propagation, ConfigMaps and emptyDirs are the manifest's; nothing of it is
 * repeated here. A node is a network namespace of the lab, and a mount namespace in which its paths lie below a directory of its own.
 *
 * RuntimeDefault is the profile of Debian's container tools. It is of 2022: newer ones allow bpf() to who has CAP_BPF, so that is added.
 */
import * as fs from "node:fs";
import { dirname, join } from "node:path";
import { eventually, run, type Background, type Host } from "./lab.js";
import type { KubeObject } from "./kubernetes.js";

interface HttpGet {
  host: string;
  path: string;
  port: string;
}

export interface Container {
  name: string;
  args: string[];
  env?: { name: string; value: string }[];
  ports?: { name: string; containerPort: number }[];
  securityContext: {
    runAsUser?: number;
    runAsGroup?: number;
    privileged?: boolean;
    allowPrivilegeEscalation?: boolean;
    readOnlyRootFilesystem?: boolean;
    capabilities?: { drop: string[]; add?: string[] };
  };
  volumeMounts: {
    name: string;
    mountPath: string;
    readOnly?: boolean;
    mountPropagation?: string;
  }[];
  startupProbe?: { httpGet: HttpGet };
  readinessProbe?: { httpGet: HttpGet };
}

interface Volume {
  name: string;
  hostPath?: { path: string; type: string };
  emptyDir?: object;
  configMap?: { name: string };
  secret?: { secretName: string; defaultMode: number; optional?: boolean };
}

export interface PodSpec {
  hostNetwork: boolean;
  dnsPolicy: string;
  securityContext: { seccompProfile: { type: string } };
  initContainers: Container[];
  containers: Container[];
  volumes: Volume[];
}

export interface Image {
  rootfs: string;
  entrypoint: string[];
  env: string[];
}

/** Takes an image apart, whose digests must be right. */
export async function unpack(layout: string, rootfs: string): Promise<Image> {
  interface Descriptor {
    digest: string;
    size: number;
  }
  const blob = async ({ digest, size }: Descriptor): Promise<string> => {
    const path = join(layout, "blobs", digest.replace(":", "/"));
    const { stdout } = await run(["sha256sum", path]);
    if (!stdout.startsWith(digest.slice("sha256:".length)) || fs.statSync(path).size !== size)
      throw new Error(`${path} is not what its name says`);
    return path;
  };
  const json = (path: string): unknown => JSON.parse(fs.readFileSync(path, "utf8"));
  const index = json(join(layout, "index.json")) as { manifests: Descriptor[] };
  const manifest = json(await blob(index.manifests[0]!)) as {
    config: Descriptor;
    layers: Descriptor[];
  };
  const { config } = json(await blob(manifest.config)) as {
    config: { Entrypoint: string[]; Env: string[] };
  };
  fs.mkdirSync(rootfs);
  for (const layer of manifest.layers)
    await run(["tar", "-xzf", await blob(layer), "--keep-directory-symlink", "-C", rootfs]);
  return { rootfs, entrypoint: config.Entrypoint, env: config.Env };
}

// ---- what containerd makes of a security context

const names = (
  "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE " +
  "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT " +
  "SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG " +
  "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split(" ");

/** A privileged container has all that there are; a machine may have fewer. */
function own(): string[] {
  const bounding = /^CapBnd:\t(\w+)$/m.exec(fs.readFileSync("/proc/self/status", "utf8"))![1]!;
  const mask = BigInt(`0x${bounding}`);
  return names.filter((_, bit) => (mask >> BigInt(bit)) & 1n).map((each) => `CAP_${each}`);
}

function capabilitiesOf({ privileged, capabilities }: Container["securityContext"]): string[] {
  if (privileged === true) return own();
  if (capabilities?.drop.join() !== "ALL") throw new Error("not all capabilities are dropped");
  return (capabilities.add ?? []).map((each) => `CAP_${each}`);
}

interface Rule {
  names: string[];
  action: string;
  args?: unknown[] | null;
  errnoRet?: number;
  includes?: { caps?: string[]; arches?: string[] };
  excludes?: { caps?: string[]; arches?: string[] };
}

function runtimeDefault(capabilities: readonly string[]): unknown {
  const profile = JSON.parse(fs.readFileSync("/usr/share/containers/seccomp.json", "utf8")) as {
    defaultAction: string;
    defaultErrnoRet?: number;
    syscalls: Rule[];
  };
  const mayBpf = capabilities.includes("CAP_BPF");
  const some = (wanted: string[] | undefined): boolean =>
    wanted?.some((each) => capabilities.includes(each)) ?? false;
  const arch = process.arch === "x64" ? "amd64" : "arm64";
  const syscalls = profile.syscalls
    .filter(({ includes = {}, excludes = {} }) => {
      if ((includes.caps?.length ?? 0) > 0 && !some(includes.caps)) return false;
      if ((includes.arches?.length ?? 0) > 0 && !includes.arches!.includes(arch)) return false;
      return !some(excludes.caps) && !(excludes.arches ?? []).includes(arch);
    })
    .map(({ names: calls, action, args, errnoRet }) => ({
      names: mayBpf ? calls.filter((each) => each !== "bpf") : calls,
      action,
      ...((args ?? []).length === 0 ? {} : { args }),
      ...(errnoRet === undefined ? {} : { errnoRet }),
    }));
  if (mayBpf) syscalls.push({ names: ["bpf"], action: "SCMP_ACT_ALLOW" });
  const { defaultAction, defaultErrnoRet } = profile;
  return { defaultAction, ...(defaultErrnoRet === undefined ? {} : { defaultErrnoRet }), syscalls };
}

const propagations: Record<string, string> = {
  Bidirectional: "rshared",
  HostToContainer: "rslave",
};

export interface NodeOptions {
  host: Host;
  directory: string;
  image: Image;
  /** as kubelet writes it for the pod's dnsPolicy */
  resolvConf: string;
  /** the ConfigMaps of the namespace, and its Secrets, by name */
  objects: readonly KubeObject[];
}

/** A node: what is its own of the machine's paths, and the pod that runs there. */
export class Node {
  private pods = 0;
  private running: { id: string; process: Background }[] = [];

  private constructor(
    private readonly options: NodeOptions,
    private readonly holder: Background,
  ) {}

  static async create(options: NodeOptions): Promise<Node> {
    const { directory, host } = options;
    for (const path of ["sys/fs/bpf", "var/lib", "crun"])
      fs.mkdirSync(join(directory, path), { recursive: true });
    fs.writeFileSync(join(directory, "resolv.conf"), options.resolvConf);
    const script = [
      `mount --bind ${directory} ${directory}`,
      `mount --make-rshared ${directory}`,
      // crun refuses a machine with both kinds of cgroups; it is told to use neither
      "mount -t cgroup2 none /sys/fs/cgroup",
      "echo mounted",
      "exec sleep infinity",
    ].join(" && ");
    const holder = host.spawn(["unshare", "--mount", "sh", "-c", script]);
    await holder.output(/mounted/);
    return new Node(options, holder);
  }

  private inside(command: readonly string[]): string[] {
    return ["nsenter", `--mount=/proc/${String(this.holder.pid)}/ns/mnt`, "--", ...command];
  }

  private crun(...args: string[]): string[] {
    const crun = ["crun", "--root", join(this.options.directory, "crun")];
    return this.inside([...crun, "--cgroup-manager=disabled", ...args]);
  }

  /** Init containers to their ends, then the others, until the probes are content. */
  async startPod(spec: PodSpec): Promise<void> {
    const { host } = this.options;
    const pod = this.newPod(spec);
    for (const container of spec.initContainers)
      await host.exec(this.crun("run", ...this.bundle(pod, spec, container)));
    for (const container of spec.containers) {
      const args = this.bundle(pod, spec, container);
      this.running.push({ id: args.at(-1)!, process: host.spawn(this.crun("run", ...args)) });
    }
    for (const container of spec.containers)
      for (const probe of [container.startupProbe, container.readinessProbe])
        if (probe !== undefined)
          await eventually(() => this.probe(container, probe.httpGet), { timeoutMs: 60_000 });
  }

  /** One container alone, with other arguments, to its end. */
  async once(spec: PodSpec, name: string, args: string[]): Promise<string> {
    const container = spec.containers.find((each) => each.name === name)!;
    const bundle = this.bundle(this.newPod(spec), spec, { ...container, args });
    return (await this.options.host.exec(this.crun("run", ...bundle))).stdout;
  }

  private newPod(spec: PodSpec): string {
    this.pods += 1;
    const pod = join(this.options.directory, `pod-${String(this.pods)}`);
    for (const volume of spec.volumes) this.makeVolume(pod, volume);
    return pod;
  }

  /** SIGTERM, and all ends; as it was asked to. */
  async stopPod(signal = "TERM"): Promise<number[]> {
    const { host } = this.options;
    const stopping = this.running;
    this.running = [];
    for (const { id } of stopping) await host.tryExec(this.crun("kill", id, signal));
    const codes: number[] = [];
    for (const { process } of stopping) codes.push((await process.end(30_000)).code);
    return codes;
  }

  /** `kubectl exec` */
  async exec(container: string, command: readonly string[]): Promise<string> {
    const found = this.running.find(({ id }) => id.endsWith(`-${container}`));
    if (found === undefined) throw new Error(`no container ${container}`);
    return (await this.options.host.exec(this.crun("exec", found.id, ...command))).stdout;
  }

  output(container: string): string {
    const found = this.running.find(({ id }) => id.endsWith(`-${container}`));
    return found === undefined ? "" : found.process.stdout + found.process.stderr;
  }

  async close(): Promise<void> {
    await this.stopPod("KILL");
    await this.holder.stop("SIGKILL");
  }

  private async probe({ ports = [] }: Container, { host, path, port }: HttpGet): Promise<boolean> {
    const number = ports.find(({ name }) => name === port)!.containerPort;
    const script = `fetch("http://${host}:${String(number)}${path}").then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))`;
    return (await this.options.host.tryExec([process.execPath, "-e", script])).code === 0;
  }

  private sourceOf(pod: string, { name, hostPath }: Volume): string {
    return hostPath === undefined ? join(pod, name) : join(this.options.directory, hostPath.path);
  }

  /** ConfigMaps and Secrets as kubelet writes them: files are links by way of `..data`. */
  private makeVolume(pod: string, volume: Volume): void {
    const at = this.sourceOf(pod, volume);
    const { hostPath, configMap, secret } = volume;
    if (hostPath?.type === "Directory" && !fs.existsSync(at)) throw new Error(`no ${at}`);
    fs.mkdirSync(at, { recursive: true });
    if (hostPath !== undefined) return;
    fs.chmodSync(at, configMap === undefined && secret === undefined ? 0o777 : 0o1777);
    const wanted = configMap?.name ?? secret?.secretName;
    const object = this.options.objects.find(({ metadata }) => metadata.name === wanted);
    if (wanted === undefined || object === undefined) {
      if (wanted !== undefined && secret?.optional !== true) throw new Error(`no ${wanted}`);
      return;
    }
    const data = object["data"] as Record<string, string>;
    fs.mkdirSync(join(at, "..1"));
    for (const [name, text] of Object.entries(data)) {
      const content = secret === undefined ? text : Buffer.from(text, "base64");
      fs.writeFileSync(join(at, "..1", name), content, { mode: secret?.defaultMode ?? 0o644 });
      fs.symlinkSync(join("..data", name), join(at, name));
    }
    fs.symlinkSync("..1", join(at, "..data"));
  }

  /** The arguments of `crun run`. */
  private bundle(pod: string, spec: PodSpec, container: Container): string[] {
    const { image, host, directory } = this.options;
    const { securityContext: rights } = container;
    const privileged = rights.privileged === true;
    const capabilities = capabilitiesOf(rights);
    const file = (path: string, type: string, source: string, options: string[]): object => ({
      ...{ destination: path, type, source, options },
    });
    const mounts = [
      file("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
      file("/dev", "tmpfs", "tmpfs", ["nosuid", "mode=755", "size=65536k"]),
      file("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", privileged ? "rw" : "ro"]),
      file("/etc/resolv.conf", "bind", join(directory, "resolv.conf"), ["rbind", "ro"]),
      ...container.volumeMounts.map(({ name, mountPath, readOnly, mountPropagation }) =>
        file(
          mountPath,
          "bind",
          this.sourceOf(
            pod,
            spec.volumes.find((each) => each.name === name)!,
          ),
          [
            "rbind",
            readOnly === true ? "ro" : "rw",
            propagations[mountPropagation ?? ""] ?? "rprivate",
          ],
        ),
      ),
    ];
    const shared = container.volumeMounts.some((each) => each.mountPropagation === "Bidirectional");
    if (!spec.hostNetwork) throw new Error("the pod is not on the host's network");
    if (spec.securityContext.seccompProfile.type !== "RuntimeDefault")
      throw new Error("not the runtime's profile");
    const config = {
      ociVersion: "1.0.2",
      process: {
        args: [...image.entrypoint, ...container.args],
        env: [...image.env, ...(container.env ?? []).map(({ name, value }) => `${name}=${value}`)],
        cwd: "/",
        user: { uid: rights.runAsUser ?? 0, gid: rights.runAsGroup ?? 0 },
        noNewPrivileges: rights.allowPrivilegeEscalation === false,
        capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      },
      root: { path: image.rootfs, readonly: rights.readOnlyRootFilesystem === true },
      mounts,
      linux: {
        namespaces: [
          ...["pid", "ipc", "mount"].map((type) => ({ type })),
          { type: "network", path: `/run/netns/${host.netns}` },
        ],
        rootfsPropagation: shared ? "rshared" : "rslave",
        ...(privileged
          ? {}
          : {
              seccomp: runtimeDefault(capabilities),
              maskedPaths: ["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"],
              readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
            }),
      },
    };
    const bundle = join(pod, `bundle-${container.name}`);
    fs.mkdirSync(bundle, { recursive: true });
    fs.writeFileSync(join(bundle, "config.json"), JSON.stringify(config));
    return [
      "--bundle",
      bundle,
      `${host.netns}-${dirname(bundle).split("-").at(-1)!}-${container.name}`,
    ];
  }
}
