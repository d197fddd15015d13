// SPDX-License-Identifier: Apache-2.0
/**
 * The image that `make image` makes, run on two nodes with exactly what deploy/kubernetes gives it: found by the headless Service's
 * name, a vnet from the ConfigMap, guests that reach one another, and a rolling restart by which they lose nothing.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  kustomize,
  objectOf,
  rendered,
  toolsAreThere,
  type KubeObject,
} from "../lib/kubernetes.js";
import { Lab, eventually, repository, run, type Guest, type Host } from "../lib/lab.js";
import { Node, unpack, type Image, type PodSpec } from "../lib/pods.js";

const built = join(repository, "build", "image");
let lab: Lab;
let hosts: Host[];
const nodes: Node[] = [];
let image: Image;
let pod: PodSpec;
let objects: KubeObject[];
let guest: Guest;
let names: string;

const addressOf = (index: number): string => `10.66.1.${String(index + 1)}`;
/** what the Service's name stands for */
const endpoints = (...indexes: number[]): void =>
  writeFileSync(names, indexes.map((index) => `${addressOf(index)}\n`).join(""));

/** A cluster's own, on top of the base; its times are short. */
function cluster(): KubeObject[] {
  const at = join(lab.directory, "cluster");
  mkdirSync(at);
  const base = join(repository, "deploy", "kubernetes", "base");
  const text = readFileSync(join(base, "config", "vnetd.yaml"), "utf8");
  writeFileSync(join(at, "vnetd.yaml"), `${text}resolveSeconds: 1\nhelloSeconds: 5\n`);
  writeFileSync(join(at, "vnets.yaml"), "vnets: [{id: 97, bridge: vnet97}]\n");
  const generated = ["vnetd-config", "vnetd-vnets"].map(
    (name) =>
      `  - {name: ${name}, namespace: vnetd, behavior: replace, files: [${name.replace("vnetd-", "").replace("config", "vnetd")}.yaml]}\n`,
  );
  const kustomization = `resources: [${relative(at, base)}]\nconfigMapGenerator:\n${generated.join("")}`;
  writeFileSync(join(at, "kustomization.yaml"), kustomization);
  return rendered(kustomize(at));
}

describe.skipIf(!toolsAreThere)("the image on two nodes of a cluster", () => {
  beforeAll(async () => {
    await run([process.execPath, join(repository, "scripts", "make-image.mjs")], {
      timeoutMs: 170_000,
    });
    lab = await Lab.create();
    image = await unpack(join(built, "oci"), join(lab.directory, "rootfs"));
    objects = cluster();
    const { spec } = objectOf(objects, "DaemonSet", "vnetd");
    pod = (spec as { template: { spec: PodSpec } }).template.spec;
    names = lab.file("names", "");
    endpoints(0, 1);
    const dns = await lab.host("dns", { underlay: "10.66.1.53/24" });
    const server = [join(import.meta.dirname, "dns.mjs"), "10.66.1.53"];
    const service = `${objectOf(objects, "Service", "vnetd-nodes").metadata.name}.vnetd.svc.cluster.local`;
    await dns.spawn([process.execPath, ...server, service, names]).output(/listening/);
    hosts = [
      await lab.host("a", { underlay: `${addressOf(0)}/24` }),
      await lab.host("b", { underlay: `${addressOf(1)}/24` }),
    ];
    // as kubelet writes it for this policy, and for no other with hostNetwork
    expect(pod.dnsPolicy).toBe("ClusterFirstWithHostNet");
    const resolvConf =
      "nameserver 10.66.1.53\nsearch vnetd.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
    for (const host of hosts) {
      const directory = join(lab.directory, `node-${host.name}`);
      nodes.push(await Node.create({ host, directory, image, resolvConf, objects }));
    }
  }, 240_000);
  afterAll(async () => {
    for (const node of nodes) await node.close();
    await lab.close();
  });

  it("has what it is made of in its list, and neither a shell nor a package manager", () => {
    const [file] = readdirSync(built).filter((name) => name.endsWith(".spdx.json"));
    const list = JSON.parse(readFileSync(join(built, file!), "utf8")) as {
      packages: { SPDXID: string; name: string; versionInfo: string }[];
    };
    const ids = list.packages.map(({ SPDXID }) => SPDXID);
    expect(new Set(ids).size).toBe(ids.length);
    const found = list.packages.map(({ name }) => name);
    for (const name of ["node", "libc6", "libbpf1", "libmnl0", "js-yaml", "prom-client", "yargs"])
      expect(found).toContain(name);
    expect(found).not.toContain("vitest");
    const programs = readdirSync(join(image.rootfs, "usr", "bin"));
    expect(programs.sort()).toEqual(["node", "vn", "vnetd"]);
    expect(existsSync(join(image.rootfs, "usr/sbin/ldconfig"))).toBe(false);
    expect(execFileSync("find", [image.rootfs, "-perm", "/6000"], { encoding: "utf8" })).toBe("");
  });

  it("becomes ready, finds the other node by name, and carries the vnet of the ConfigMap", async () => {
    for (const node of nodes) await node.startPod(pod);
    const peers = await nodes[0]!.exec("vnetd", ["vnetd", "peers"]);
    expect(peers).toContain(addressOf(1));
    await eventually(() => nodes.every((node) => node.output("vnets").includes("done:")));
    guest = await hosts[0]!.guest("g1", { bridge: "vnet97", address: "10.97.0.1/24" });
    await hosts[1]!.guest("g2", { bridge: "vnet97", address: "10.97.0.2/24" });
    await eventually(async () => (await guest.ping("10.97.0.2", { count: 1 })).received === 1, {
      timeoutMs: 30_000,
    });
  }, 120_000);

  it("has no more rights than the manifest gives", async () => {
    const status = await nodes[0]!.exec("vnetd", [
      ...["node", "-p", "require('fs').readFileSync('/proc/1/status', 'utf8')"],
    ]);
    expect(status).toMatch(/^CapBnd:\t000000c000001000$/m); // NET_ADMIN, PERFMON, BPF
    expect(status).toMatch(/^NoNewPrivs:\t1$/m);
    expect(status).toMatch(/^Seccomp:\t2$/m);
    const write = ["node", "-e", "require('fs').writeFileSync('/etc/x', '')"];
    await expect(nodes[0]!.exec("vnetd", write)).rejects.toThrow(/EROFS/);
  });

  it("is restarted node by node, and guests lose nothing", async () => {
    const pinging = guest.startPing("10.97.0.2", { intervalMs: 20 });
    await eventually(() => pinging.answers > 5);
    for (const [index, node] of nodes.entries()) {
      // the Service forgets a pod that ends
      endpoints(1 - index);
      expect(await node.stopPod()).toEqual([0, 0]);
      const mark = pinging.answers;
      await eventually(() => pinging.answers > mark + 20);
      await node.startPod(pod);
      endpoints(0, 1);
    }
    const mark = pinging.answers;
    await eventually(() => pinging.answers > mark + 20);
    const { lost } = await pinging.stop();
    expect(lost).toBeLessThanOrEqual(1); // the one that was under way when ping was stopped
    await eventually(async () =>
      (await nodes[1]!.exec("vnetd", ["vnetd", "peers"])).includes(addressOf(0)),
    );
  }, 180_000);

  it("is taken away from a node by detach --all in the same pod", async () => {
    const devices = async (): Promise<string[]> =>
      (await hosts[0]!.ip<{ ifname: string; ifalias?: string }[]>("link", "show"))
        .filter(({ ifalias }) => ifalias?.startsWith("vnetd"))
        .map(({ ifname }) => ifname);
    await nodes[0]!.stopPod();
    expect((await devices()).length).toBeGreaterThan(3);
    await nodes[0]!.once(pod, "vnetd", [
      ...["detach", "--all", "--config", "/etc/vnetd/config/vnetd.yaml"],
    ]);
    // the bridge has a port of the guest's
    expect(await devices()).toEqual(["vnet97"]);
  });
});
