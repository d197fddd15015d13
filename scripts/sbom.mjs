#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
/**
 * The list of what is in something that is built here, in SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3/):
 *
 *   sbom.mjs TREE NAME      of what scripts/copy-tree.mjs has laid out, to stdout
 *
 * make-image.mjs imports it, since an image has Debian packages too. The time is that of the commit (or SOURCE_DATE_EPOCH).
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { join, resolve } from "node:path";

const root = resolve(import.meta.dirname, "..");

/** Of a node_modules directory, nested ones included, each package once: {name, version, license}. */
export function npmPackages(directory) {
  const found = new Map();
  const look = (below) => {
    for (const each of fs.readdirSync(below).sort()) {
      const path = join(below, each);
      const file = join(path, "package.json");
      if (each.startsWith("@")) look(path);
      else if (fs.existsSync(file)) {
        const { name, version, license } = JSON.parse(fs.readFileSync(file, "utf8"));
        found.set(`${name}@${version}`, { name, version, license: license ?? "NOASSERTION" });
        if (fs.existsSync(join(path, "node_modules"))) look(join(path, "node_modules"));
      }
    }
  };
  look(directory);
  return [...found.values()];
}

function entry({ id, purl, declared, ...rest }) {
  return {
    SPDXID: `SPDXRef-${id.replace(/[^a-zA-Z0-9.-]/g, "-")}`,
    downloadLocation: "NOASSERTION",
    filesAnalyzed: false,
    licenseConcluded: "NOASSERTION",
    licenseDeclared: declared ?? "NOASSERTION",
    copyrightText: "NOASSERTION",
    ...rest,
    ...(purl === undefined
      ? {}
      : {
          externalRefs: [
            { referenceCategory: "PACKAGE-MANAGER", referenceType: "purl", referenceLocator: purl },
          ],
        }),
  };
}

const nodeEntry = () =>
  entry({
    id: "node",
    name: "node",
    versionInfo: process.versions.node,
    purl: `pkg:generic/node@${process.versions.node}`,
  });

const debianEntry = (arch) => (each) =>
  entry({
    id: `deb-${each.name}`,
    name: each.name,
    versionInfo: each.version,
    checksums: [{ algorithm: "SHA256", checksumValue: each.sha256 }],
    supplier: "Organization: Debian",
    purl: `pkg:deb/debian/${encodeURIComponent(each.name)}@${encodeURIComponent(each.version)}?arch=${arch}`,
  });

const npmEntry = (each) =>
  entry({
    id: `npm-${each.name}-${each.version}`,
    name: each.name,
    versionInfo: each.version,
    declared: each.license,
    purl: `pkg:npm/${each.name.replace("@", "%40")}@${each.version}`,
  });

/** The document, as text. `created`: RFC 3339 in seconds; `debian`: {name, version, sha256} each; `npm`: as npmPackages() has them. */
export function spdx({ name, arch, created, debian = [], npm, withNode }) {
  const { version, license } = JSON.parse(fs.readFileSync(join(root, "package.json"), "utf8"));
  const main = entry({
    id: "vnetd",
    name: "vnetd",
    versionInfo: version,
    declared: `${license} AND GPL-2.0-only`,
  });
  const packages = [
    ...(withNode ? [nodeEntry()] : []),
    ...debian.map(debianEntry(arch)),
    ...npm.map(npmEntry),
  ];
  const relation = (spdxElementId, relationshipType, relatedSpdxElement) => ({
    spdxElementId,
    relationshipType,
    relatedSpdxElement,
  });
  const sum = createHash("sha256")
    .update(JSON.stringify([main, packages]))
    .digest("hex");
  const document = {
    spdxVersion: "SPDX-2.3",
    dataLicense: "CC0-1.0",
    SPDXID: "SPDXRef-DOCUMENT",
    name,
    documentNamespace: `https://spdx.org/spdxdocs/${name}-${sum.slice(0, 32)}`,
    creationInfo: { created, creators: ["Tool: vnetd sbom"] },
    packages: [main, ...packages],
    relationships: [
      relation("SPDXRef-DOCUMENT", "DESCRIBES", main.SPDXID),
      ...packages.map(({ SPDXID }) => relation(main.SPDXID, "CONTAINS", SPDXID)),
    ],
  };
  return `${JSON.stringify(document, null, 1)}\n`;
}

if (process.argv[1] === import.meta.filename) {
  const [tree, name] = process.argv.slice(2);
  if (name === undefined) {
    console.error("usage: sbom.mjs TREE NAME");
    process.exit(2);
  }
  const commit = () =>
    execFileSync("git", ["log", "-1", "--format=%ct"], { cwd: root, encoding: "utf8" });
  const seconds = Number(process.env.SOURCE_DATE_EPOCH ?? commit());
  process.stdout.write(
    spdx({
      name,
      created: new Date(seconds * 1000).toISOString().replace(".000Z", "Z"),
      npm: npmPackages(join(tree, "node_modules")),
      withNode: fs.existsSync(join(tree, "node/bin/node")),
    }),
  );
}
