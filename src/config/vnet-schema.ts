// SPDX-License-Identifier: Apache-2.0
/**
 * The published JSON Schema of a vnet's YAML or JSON file: the parameters that src/config/vnet-file.ts
 * reads, in the forms that it takes. Whether names and ids meet those of other vnets is for the daemon
 * to say. Pure.
 */
import { defaultSuiteName, suiteNames } from "../base/suite.js";
import type { JsonSchema } from "./spec.js";
import { encapsulations, securityLevels, type ParameterName } from "./vnet-file.js";

const deviceName = { type: "string", minLength: 1, maxLength: 15, pattern: "^[^\\s/:%]+$" };

/** A key's name here, or its absolute path. */
const keyName = { type: ["string", "null"], minLength: 1 };

/** An id is the text that was written; editors read a plain 97 as a number, and 0097 as another. */
const parameters: Record<ParameterName, JsonSchema> = {
  id: {
    description: "the vnet's id: 8 fields of 1 to 4 hex digits between colons, or the last alone",
    anyOf: [
      { type: "string", pattern: "^([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}$" },
      { type: "string", pattern: "^[0-9a-fA-F]{1,4}$" },
      { type: "number" },
    ],
  },
  bridge: {
    description: "name of its bridge; none or null: its interface is on no bridge",
    anyOf: [deviceName, { type: "null" }],
  },
  vnetif: { description: "name of its interface on this host", ...deviceName },
  security: { description: "what protects it", enum: securityLevels, default: "none" },
  key: {
    description: "its key file by absolute path, or the name of a key of this host",
    ...keyName,
  },
  previousKey: {
    description: "the key before, accepted too while the secret is changed",
    ...keyName,
  },
  suite: {
    description: "with which algorithms it is protected, the same on all of its hosts",
    enum: [...suiteNames, null],
    default: defaultSuiteName,
  },
  encapsulation: {
    description: "how its frames are sent; left out, the host's default",
    enum: [...encapsulations, null],
  },
  suppress: {
    description: "ARP and neighbour discovery are answered on each host, where they can be",
    enum: ["on", "off", true, false, null],
    default: "off",
  },
  group: {
    description:
      "IPv4 multicast group of its own for what is for all, the same on all of its hosts",
    type: ["string", "null"],
    pattern: "^(none|2(2[4-9]|3[0-9])(\\.[0-9]{1,3}){3})$",
  },
  group6: {
    description: "IPv6 multicast group of its own, likewise",
    type: ["string", "null"],
    pattern: "^(none|[Ff]{2}[1-9a-fA-F][2-9a-fA-F]:[0-9a-fA-F:.]*)$",
  },
};

export function vnetFileSchema(): JsonSchema {
  const one = { $ref: "#/definitions/vnet" };
  const several = { type: "array", items: one };
  const below = (name: string): JsonSchema => ({
    type: "object",
    properties: { [name]: { anyOf: [one, several] } },
    required: [name],
    additionalProperties: false,
  });
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    title: "vnets",
    description: "Vnets for vnetd vnet-create and vnetd apply, as YAML or JSON.",
    anyOf: [one, several, below("vnet"), below("vnets")],
    definitions: {
      vnet: {
        type: "object",
        additionalProperties: false,
        required: ["id"],
        properties: parameters,
      },
    },
  };
}
