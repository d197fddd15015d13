#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * Writes what deploy/ has from elsewhere: the alert rules (monitoring/vnetd.rules.yml) for kustomize and Helm, and the
 * schema of the chart's values with those of vnetd.yaml and of vnets (schema/) in it. `make schema` runs it;
 * test/unit/deploy-kubernetes.test.ts fails when what is checked in is something else.
 *
 *   gen-deploy.mjs [DIRECTORY]      deploy/, or where the test compares
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { format } from "prettier";

const root = join(import.meta.dirname, "..");
const to = process.argv[2] ?? join(root, "deploy");
const read = (path) => readFileSync(join(root, path), "utf8");

function write(path, text) {
  mkdirSync(dirname(join(to, path)), { recursive: true });
  writeFileSync(join(to, path), text);
}

const rules = read("monitoring/vnetd.rules.yml");
const body = rules.slice(rules.indexOf("groups:\n"));
write(
  "helm/vnetd/files/vnetd.rules.yml",
  `# Made of monitoring/vnetd.rules.yml by \`make schema\`.\n${body}`,
);
write(
  "kubernetes/monitoring/prometheusrule.yaml",
  `# SPDX-License-Identifier: Apache-2.0
# Made of monitoring/vnetd.rules.yml by \`make schema\`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: vnetd
  namespace: vnetd
  labels:
    app.kubernetes.io/name: vnetd
spec:
${body.replace(/^(?=.)/gm, "  ")}`,
);

const text = { type: "string", minLength: 1 };
const flag = { type: "boolean" };
const map = { type: "object", additionalProperties: { type: "string" } };
const list = { type: "array", items: { type: "object" } };
const object = (properties) => ({ type: "object", additionalProperties: false, properties });

/** Helm's regular expressions do not know \\u0000; JavaScript's and Helm's know \\x00. */
const schema = (name) =>
  JSON.parse(read(`schema/${name}.schema.json`).replaceAll(/\\\\u00([0-9a-f]{2})/g, "\\\\x$1"));
const { $schema, ...config } = schema("vnetd");
delete config.title;
const { definitions } = schema("vnet");
const values = {
  $schema,
  title: "values of the chart vnetd",
  ...object({
    image: object({
      repository: text,
      tag: { type: "string" },
      pullPolicy: { enum: ["Always", "IfNotPresent", "Never"] },
    }),
    imagePullSecrets: list,
    config,
    vnets: { type: "array", items: { $ref: "#/definitions/vnet" } },
    keysSecret: text,
    mountBpffs: flag,
    monitoring: object({ enabled: flag, tokenSecret: text }),
    priorityClassName: { type: "string" },
    maxUnavailable: {
      anyOf: [
        { type: "integer", minimum: 1 },
        { type: "string", pattern: "^[0-9]{1,2}%$" },
      ],
    },
    nodeSelector: map,
    tolerations: list,
    affinity: { type: "object" },
    podAnnotations: map,
    resources: { type: "object" },
    global: { type: "object" },
  }),
  definitions,
};
write(
  "helm/vnetd/values.schema.json",
  await format(JSON.stringify(values), { parser: "json", printWidth: 100 }),
);
