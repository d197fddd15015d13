// SPDX-License-Identifier: Apache-2.0
/**
 * deploy/: kustomize and Helm make what Kubernetes takes. Each object is checked by Kubernetes' own schemas (formats, what must be
 * there) and, as a literal of their TypeScript types, for fields that do not exist, at any depth. What both make is the same, its
 * configuration is the daemon's, and what was copied from monitoring/ and schema/ is what stands there.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { load } from "js-yaml";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadDaemonConfig } from "../../src/config/daemon-config.js";
import {
  faultsOf,
  helm,
  kustomize,
  objectOf,
  rendered,
  root,
  toolsAreThere,
  type KubeObject,
} from "../lib/kubernetes.js";

const directory = mkdtempSync(join(tmpdir(), "vnetd-deploy-"));
afterAll(() => rmSync(directory, { recursive: true }));
const read = (path: string): string => readFileSync(join(root, path), "utf8");

interface PodSpec {
  containers: {
    name: string;
    image?: string;
    imagePullPolicy?: string;
    volumeMounts: { name: string }[];
  }[];
  initContainers?: { image?: string; imagePullPolicy?: string }[];
  volumes: { name: string; configMap?: { name: string } }[];
}
const podOf = (objects: readonly KubeObject[]): PodSpec => {
  const { spec } = objectOf(objects, "DaemonSet", "vnetd") as unknown as {
    spec: { template: { spec: PodSpec } };
  };
  return structuredClone(spec.template.spec);
};

describe.skipIf(!toolsAreThere)("kustomize and Helm", () => {
  let base: KubeObject[] = [];
  let example: KubeObject[] = [];
  let chart: KubeObject[] = [];
  let monitored: KubeObject[] = [];
  beforeAll(() => {
    base = rendered(kustomize("deploy/kubernetes/base"));
    example = rendered(kustomize("deploy/kubernetes/example"));
    chart = rendered(helm());
    monitored = rendered(helm("--set", "monitoring.enabled=true"));
  }, 60_000);

  it("make what is known to Kubernetes, with no field that is not", () => {
    const all = [...base, ...example, ...chart, ...monitored];
    expect(faultsOf(all)).toEqual([]);
    expect(base.map(({ kind }) => kind).sort()).toEqual([
      ...["ConfigMap", "ConfigMap", "DaemonSet", "Namespace", "Service", "ServiceAccount"],
    ]);
    expect(monitored.map(({ kind }) => kind)).toEqual(
      expect.arrayContaining(["PodMonitor", "PrometheusRule"]),
    );
  }, 60_000);

  it("and what is wrong in them would be seen", () => {
    const broken = (change: (pod: Record<string, unknown>) => void): string => {
      const copy = structuredClone(base);
      const { spec } = objectOf(copy, "DaemonSet", "vnetd") as unknown as {
        spec: { template: { spec: Record<string, unknown> } };
      };
      change(spec.template.spec);
      return faultsOf(copy).join("\n");
    };
    expect(broken((pod) => (pod["hostNetwrok"] = true))).toContain("hostNetwrok");
    expect(
      broken((pod) => {
        const [first] = pod["containers"] as { securityContext: Record<string, unknown> }[];
        first!.securityContext["readOnlyRootFileSystem"] = true;
      }),
    ).toContain("readOnlyRootFileSystem");
    expect(broken((pod) => (pod["terminationGracePeriodSeconds"] = "10"))).toContain("Seconds");
    expect(broken((pod) => delete pod["containers"])).toContain("containers");
    expect(faultsOf([{ apiVersion: "v1", kind: "Sevrice", metadata: { name: "x" } }])).toEqual([
      "Sevrice of v1: not known",
    ]);
  }, 60_000);

  it("make the same pods", () => {
    const byName = (one: { name: string }, other: { name: string }): number =>
      one.name < other.name ? -1 : 1;
    const normal = (pod: PodSpec): PodSpec => {
      pod.volumes.sort(byName);
      for (const { volumeMounts } of pod.containers) volumeMounts.sort(byName);
      for (const each of [...pod.containers, ...(pod.initContainers ?? [])])
        delete each.imagePullPolicy;
      for (const { configMap } of pod.volumes)
        if (configMap !== undefined)
          configMap.name = configMap.name.replace(/(?<=^vnetd-config)-.*/, "");
      return pod;
    };
    expect(normal(podOf(chart))).toEqual(normal(podOf(base)));
    const image = (pod: PodSpec): PodSpec => {
      for (const each of [...pod.containers, ...(pod.initContainers ?? [])])
        each.image = "vnetd:0.1.0";
      return pod;
    };
    expect(normal(podOf(monitored))).toEqual(image(normal(podOf(example))));
    for (const [kind, name] of [
      ["Service", "vnetd-nodes"],
      ["PodMonitor", "vnetd"],
      ["PrometheusRule", "vnetd"],
    ] as const)
      expect(objectOf(monitored, kind, name)["spec"]).toEqual(
        objectOf(example, kind, name)["spec"],
      );
  });

  it("give the daemon a configuration that it takes, with the service as its peers", () => {
    for (const objects of [base, example, chart, monitored]) {
      const map = objects.find(
        ({ kind, metadata }) => kind === "ConfigMap" && metadata.name.startsWith("vnetd-config"),
      );
      const text = (map as unknown as { data: Record<string, string> }).data["vnetd.yaml"] ?? "";
      const config = loadDaemonConfig("vnetd.yaml", () => text);
      const service = objectOf(objects, "Service", "vnetd-nodes");
      expect(config.peers.map(({ peer }) => peer)).toEqual([`${service.metadata.name}.vnetd.svc`]);
      expect(config.multicast).toBe("off");
      expect(config.metricsTokenFile === null).toBe(!objects.some((o) => o.kind === "PodMonitor"));
    }
  });

  it("refuse values that the daemon would refuse", () => {
    const refused = (...values: string[]): string => {
      try {
        helm(...values.flatMap((value) => ["--set-json", value]));
        return "";
      } catch (error) {
        return String(error);
      }
    };
    expect(refused('config={"atach":["eth0"]}')).toContain("'atach' not allowed");
    expect(refused('config={"ageingSeconds":0}')).toContain("ageingSeconds");
    expect(refused('vnets=[{"id":97,"brigde":"b"}]')).toContain("'brigde' not allowed");
    expect(refused('tolerance="x"')).toContain("'tolerance' not allowed");
    expect(refused('vnets=[{"id":97,"bridge":"b"}]', 'maxUnavailable="10%"')).toBe("");
  });

  it("a change of the configuration changes the pods, one of vnets does not", () => {
    const podText = (...values: string[]): string =>
      JSON.stringify(objectOf(rendered(helm(...values)), "DaemonSet", "vnetd")["spec"]);
    expect(podText("--set", "config.ageingSeconds=61")).not.toEqual(podText());
    expect(podText("--set-json", 'vnets=[{"id":97}]')).toEqual(podText());
    const copy = (change: string): string => {
      const at = mkdtempSync(join(directory, "base-"));
      execFileSync("cp", ["-r", `${root}/deploy/kubernetes/base/.`, at]);
      const file = join(at, "config", change);
      writeFileSync(file, `${readFileSync(file, "utf8")}# changed\n`);
      return JSON.stringify(objectOf(rendered(kustomize(at)), "DaemonSet", "vnetd"));
    };
    const plain = JSON.stringify(objectOf(base, "DaemonSet", "vnetd"));
    expect(copy("vnetd.yaml")).not.toEqual(plain);
    expect(copy("vnets.yaml")).toEqual(plain);
  }, 30_000);
});

describe("what deploy/ has from elsewhere", () => {
  it("is what `make schema` makes", () => {
    const to = join(directory, "made");
    execFileSync(process.execPath, [join(root, "scripts", "gen-deploy.mjs"), to]);
    for (const name of [
      "helm/vnetd/files/vnetd.rules.yml",
      "helm/vnetd/values.schema.json",
      "kubernetes/monitoring/prometheusrule.yaml",
    ])
      expect(read(`deploy/${name}`), `${name}: make schema`).toBe(
        readFileSync(join(to, name), "utf8"),
      );
  });

  it("has all the rules", () => {
    const rules = load(read("monitoring/vnetd.rules.yml"));
    const rule = load(read("deploy/kubernetes/monitoring/prometheusrule.yaml")) as KubeObject;
    expect(rule["spec"]).toEqual(rules);
    expect(load(read("deploy/helm/vnetd/files/vnetd.rules.yml"))).toEqual(rules);
  });

  it("has the version of the release", () => {
    const { version } = JSON.parse(read("package.json")) as { version: string };
    const chart = load(read("deploy/helm/vnetd/Chart.yaml"));
    expect(chart).toMatchObject({ version, appVersion: version });
    expect(read("deploy/kubernetes/base/kustomization.yaml")).toContain(`newTag: ${version}\n`);
  });
});
