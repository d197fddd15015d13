// SPDX-License-Identifier: Apache-2.0
/**
 * deploy/ as Kubernetes would get it: kustomize and Helm render it (scripts/setup puts them into .cache/kube), and every object is
 * held against Kubernetes' schemas, offline: the compiled ones of the packages kubernetes-models for values, and their TypeScript
 * types for fields that do not exist, which JSON Schemas of Kubernetes let pass.
 */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { loadAll } from "js-yaml";
import ts from "typescript";

export const root = resolve(import.meta.dirname, "..", "..");
const tools = join(root, ".cache", "kube");
const kubectlPath = join(tools, "kubectl", "kubectl");
const helmPath = join(tools, "helm", "helm");
/** the registry has them for x86-64 only */
export const toolsAreThere = process.arch === "x64";

export interface KubeObject {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
  [field: string]: unknown;
}

export const kustomize = (directory: string): string =>
  execFileSync(kubectlPath, ["kustomize", resolve(root, directory)], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });

export const helm = (...more: string[]): string =>
  execFileSync(
    helmPath,
    ["template", "vnetd", join(root, "deploy/helm/vnetd"), "--namespace", "vnetd", ...more],
    { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] },
  );

export const rendered = (text: string): KubeObject[] =>
  loadAll(text).filter((each) => each !== null && each !== undefined) as KubeObject[];

export function objectOf(objects: readonly KubeObject[], kind: string, name: string): KubeObject {
  const found = objects.find((each) => each.kind === kind && each.metadata.name === name);
  if (found === undefined) throw new Error(`no ${kind} ${name}`);
  return found;
}

const require = createRequire(import.meta.url);

interface Schema {
  /** as it is imported */
  module: string;
  /** the file with its types */
  types: string;
  interfaceName: string;
}

export function schemaOf({
  apiVersion,
  kind,
}: Pick<KubeObject, "apiVersion" | "kind">): Schema | undefined {
  const owner = apiVersion.startsWith("monitoring.coreos.com/")
    ? "@kubernetes-models/prometheus-operator"
    : "kubernetes-models";
  const types = join(root, "node_modules", owner, apiVersion, `${kind}.d.ts`);
  if (!existsSync(types)) return undefined;
  return { module: `${owner}/${apiVersion}/${kind}`, types, interfaceName: `I${kind}` };
}

/** Why Kubernetes would not take the objects as they stand, or would leave something of them out. */
export function faultsOf(objects: readonly KubeObject[]): string[] {
  const unknown = objects.filter((each) => schemaOf(each) === undefined);
  const known = objects.filter((each) => !unknown.includes(each));
  return [
    ...unknown.map(({ apiVersion, kind }) => `${kind} of ${apiVersion}: not known`),
    ...known.flatMap(wrongValues),
    ...unknownFields(known),
  ];
}

function wrongValues(object: KubeObject): string[] {
  const { module } = schemaOf(object)!;
  type Model = new (data: unknown) => { validate: () => void };
  const Class = (require(module) as Record<string, Model>)[object.kind]!;
  try {
    new Class(object).validate();
    return [];
  } catch (error) {
    return [`${object.kind} ${object.metadata.name}: ${String(error)}`];
  }
}

/** of packages: the same for each check */
const sources = new Map<string, ts.SourceFile | undefined>();

/** The compiler checks a literal for properties that its type does not have. */
function unknownFields(objects: readonly KubeObject[]): string[] {
  const name = join(root, "test", "lib", "rendered-objects.ts");
  const text = objects
    .map((object, i) => {
      const { module, interfaceName } = schemaOf(object)!;
      return (
        `import type { ${interfaceName} as T${String(i)} } from ${JSON.stringify(module)};\n` +
        `export const o${String(i)}: T${String(i)} = ${JSON.stringify(object, null, 1)};\n`
      );
    })
    .join("");
  const options: ts.CompilerOptions = {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
    types: [],
  };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  host.fileExists = (path) => path === name || fileExists.call(host, path);
  host.readFile = (path) => (path === name ? text : readFile.call(host, path));
  host.getSourceFile = (path, languageVersion, ...more) => {
    if (path === name) return ts.createSourceFile(path, text, languageVersion);
    if (!sources.has(path))
      sources.set(path, getSourceFile.call(host, path, languageVersion, ...more));
    return sources.get(path);
  };
  const program = ts.createProgram([name], options, host);
  return ts
    .getPreEmitDiagnostics(program)
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, " "));
}
