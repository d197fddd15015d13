// SPDX-License-Identifier: Apache-2.0
/**
 * Strict TypeScript rules, and the tree's own: who may import what (docs/architecture.md).
 *
 * The pure modules (codecs, tables, state machines, parsers) do no I/O and get the time as a
 * parameter, so that a test can be a table. Only src/native/load.ts loads the addon. The command
 * line knows the daemon by its API's contract alone, but for cli/run.ts, which becomes the daemon.
 */
import tseslint from "typescript-eslint";

const ioModules = [
  "child_process",
  "cluster",
  "dgram",
  "dns",
  "fs",
  "fs/promises",
  "http",
  "http2",
  "https",
  "net",
  "os",
  "process",
  "readline",
  "timers",
  "timers/promises",
  "tls",
  "worker_threads",
].map((name) => `node:${name}`);

const shellingOut = {
  name: "node:child_process",
  message: "Nothing is shelled out to at run time: libbpf and netlink by the addon.",
};
const loadingAddons = { name: "node:module", message: "Only src/native/load.ts loads the addon." };
const noDlopen = {
  object: "process",
  property: "dlopen",
  message: "Only src/native/load.ts loads the addon.",
};

/** paths of src/ that a folder must not import; the importer's own folder needs no mention */
const folders = {
  base: [],
  generated: [],
  wire: ["base", "generated"],
  varp: ["base", "generated", "wire"],
  config: ["base", "generated", "api/contract"],
  keys: ["base", "generated", "varp", "wire"],
  native: ["base"],
  store: ["base", "config", "generated"],
  host: ["base", "generated", "native", "log", "keys/esp-keys"],
  dataplane: ["base", "generated", "native", "host", "log"],
  metrics: ["base", "generated", "config", "host", "log", "api/contract"],
};
const pure = ["base", "generated", "wire", "varp", "config", "keys"];

const allNames = [
  "api",
  "controller",
  "dataplane",
  "doctor",
  "host",
  "log",
  "main",
  "metrics",
  "native",
  "store",
];
allNames.push(...pure);

function importRules(folder) {
  const allowed = [folder, ...folders[folder]];
  const forbidden = allNames.filter((name) => !allowed.includes(name));
  // of a folder that is allowed in part ("api/contract"), the rest is forbidden
  const inPart = allowed.filter((name) => name.includes("/")).map((name) => name.split("/"));
  const group = forbidden.flatMap((name) => {
    const part = inPart.find(([head]) => head === name);
    return part
      ? [`../${name}/*`, `!../${name}/${part[1]}.js`]
      : [`../${name}.js`, `../${name}/**`];
  });
  const message = `src/${folder} may import ${folders[folder].join(", ") || "no other folder"} only.`;
  return {
    files: [`src/${folder}/**/*.ts`],
    rules: {
      "no-restricted-imports": [
        "error",
        {
          paths: [
            ...(pure.includes(folder)
              ? ioModules.map((name) => ({ name, message: "This module is pure: no I/O." }))
              : [shellingOut]),
            ...(folder === "native" ? [] : [loadingAddons]),
          ],
          patterns: [{ group, message }],
        },
      ],
    },
  };
}

const timeSources = [
  {
    object: "Date",
    property: "now",
    message: "This module is pure: take the time as a parameter.",
  },
  {
    object: "performance",
    property: "now",
    message: "This module is pure: take the time as a parameter.",
  },
];

export default tseslint.config(
  { ignores: ["build/", "dist/", ".cache/", "node_modules/", "addon/", "src/generated/"] },
  { linterOptions: { reportUnusedDisableDirectives: "error" } },

  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: {
      parserOptions: { project: "./tsconfig.test.json", tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      eqeqeq: "error",
      "max-params": ["error", 5],
      "@typescript-eslint/restrict-template-expressions": [
        "error",
        { allowNumber: true, allowBoolean: true },
      ],
      // `() => each.close()` reads better than a block around it
      "@typescript-eslint/no-confusing-void-expression": "off",
      "@typescript-eslint/no-unused-vars": [
        "error",
        { argsIgnorePattern: "^_", varsIgnorePattern: "^_" },
      ],
      // a class that holds only static members is sometimes the clearest namespace
      "@typescript-eslint/no-extraneous-class": "off",
      "@typescript-eslint/no-invalid-void-type": "off",
      "@typescript-eslint/no-meaningless-void-operator": "off",
      // an interface's method may be async where this implementation has nothing to wait for
      "@typescript-eslint/require-await": "off",
      "@typescript-eslint/consistent-type-imports": "error",
      "@typescript-eslint/switch-exhaustiveness-check": [
        "error",
        { considerDefaultExhaustiveForUnions: true },
      ],
    },
  },

  // the daemon and the command line
  {
    files: ["src/**/*.ts", "cli/**/*.ts"],
    rules: {
      "no-restricted-imports": ["error", { paths: [shellingOut, loadingAddons] }],
      "no-restricted-properties": ["error", noDlopen],
      "max-lines": ["error", { max: 500, skipBlankLines: true, skipComments: true }],
    },
  },
  ...Object.keys(folders).map(importRules),
  {
    files: pure.map((folder) => `src/${folder}/**/*.ts`).concat("src/api/contract.ts"),
    rules: {
      "no-restricted-globals": [
        "error",
        ...["process", "setTimeout", "setInterval", "setImmediate", "fetch"].map((name) => ({
          name,
          message: "This module is pure: no I/O, no timers.",
        })),
      ],
      "no-restricted-properties": ["error", noDlopen, ...timeSources],
      "no-restricted-syntax": [
        "error",
        {
          selector: "NewExpression[callee.name='Date'][arguments.length=0]",
          message: "This module is pure: take the time as a parameter.",
        },
      ],
    },
  },
  {
    files: ["src/api/contract.ts", "src/api/client.ts"],
    rules: {
      "no-restricted-imports": [
        "error",
        {
          paths: [shellingOut, loadingAddons],
          patterns: [
            {
              group: ["../*", "../*/**", "!../base", "!../base/**", "!./*"],
              message: "Shared with the command line: src/base only.",
            },
          ],
        },
      ],
    },
  },
  {
    files: ["src/native/load.ts"],
    rules: {
      "no-restricted-imports": ["error", { paths: [shellingOut] }],
      "no-restricted-properties": "off",
    },
  },
  {
    files: ["cli/**/*.ts"],
    rules: {
      "no-restricted-imports": [
        "error",
        {
          paths: [shellingOut, loadingAddons],
          patterns: [
            {
              regex: "/src/(?!api/contract\\.js$|api/client\\.js$|base/)",
              message:
                "The command line knows src/api/contract, src/api/client and src/base alone.",
            },
          ],
        },
      ],
      "no-restricted-syntax": [
        "error",
        {
          selector: 'ImportExpression:not([source.value="./program.js"])',
          message: "Only cli/run.ts, which becomes the daemon, imports it.",
        },
      ],
    },
  },
  { files: ["cli/run.ts"], rules: { "no-restricted-syntax": "off" } },
  // starting a daemon where none runs means starting a process
  {
    files: ["cli/start-daemon.ts"],
    rules: { "no-restricted-imports": ["error", { paths: [loadingAddons] }] },
  },

  {
    files: ["test/**/*.ts"],
    rules: {
      // expect(mock.method) and the like
      "@typescript-eslint/unbound-method": "off",
      "@typescript-eslint/no-non-null-assertion": "off",
    },
  },
  {
    files: ["**/*.mjs", "**/*.js"],
    extends: [tseslint.configs.base, tseslint.configs.eslintRecommended],
    rules: {
      "prefer-const": "error",
      "no-var": "error",
      eqeqeq: "error",
      "no-unused-vars": "error",
    },
  },
);
