// SPDX-License-Identifier: Apache-2.0
/** The bpffs, the programs and ESP: what this host's kernel and its mounts must give. */
import { mkdirSync, rmSync } from "node:fs";
import path from "node:path";
import { errorParts } from "../base/errors.js";
import { checkBpffs, openGeneration, removeGeneration } from "../dataplane/generation.js";
import { kernelError } from "../host/errno.js";
import { EspProbe } from "../host/esp-probe.js";
import type { Native } from "../native/contract.js";
import { Skipped, type Check, type Found } from "./check.js";

export interface HostFacts {
  native: Native;
  bpffs: string;
  /** whether this host has secure vnets; undefined: it is not known */
  secure: boolean | undefined;
}

const smallMaps = { fdbEntries: 64, nexthops: 64 };

export function bpffsCheck({ native, bpffs }: HostFacts): Check {
  return {
    name: "bpffs",
    run: () => {
      try {
        checkBpffs(native, bpffs);
        return [];
      } catch (error) {
        const { code, message, hint } = errorParts(error);
        const seen =
          code === "NOT_BPFFS" ? "statfs(2) names another file system" : "by its owner and mode";
        return [{ level: "problem", what: message, seen, fix: hint ?? "" }];
      }
    },
  };
}

/** What only trying shows: the verifier, memory, rights. Beside what is pinned, and gone afterwards. */
export function programsCheck({ native, bpffs }: HostFacts, objectPath: string): Check {
  return {
    name: "programs",
    run: () => {
      const trial = path.join(
        path.dirname(path.resolve(bpffs)),
        `vnetd-doctor-${String(process.pid)}`,
      );
      try {
        checkBpffs(native, trial);
      } catch {
        throw new Skipped("without a bpffs they cannot be loaded");
      }
      mkdirSync(trial, { mode: 0o700 });
      try {
        const { dir } = openGeneration(native, { bpffs: trial, objectPath, ...smallMaps });
        removeGeneration(dir);
        return [];
      } catch (error) {
        return [notLoaded(error)];
      } finally {
        rmSync(trial, { recursive: true, force: true });
      }
    },
  };
}

function notLoaded(error: unknown): Found {
  const { message, hint } = errorParts(kernelError("loading the programs", error));
  return {
    level: "problem",
    what: "this kernel does not take the BPF programs",
    seen: message,
    fix: hint ?? "see the findings about the kernel; else report it with the output of uname -a",
  };
}

/** What it cannot do matters to hosts that have secure vnets. */
export function espCheck({ native, secure }: HostFacts): Check {
  return {
    name: "esp",
    run: () => {
      const text = new EspProbe(native).problem();
      if (text === undefined) return [];
      const modules = /modprobe -a [\w -]+$/u.exec(text)?.[0];
      return [
        {
          level: secure === true ? "problem" : "note",
          what:
            secure === true
              ? "secure vnets do not work here"
              : "this host could not have secure vnets",
          seen: text,
          fix: modules ?? "start a kernel that has it; Debian's linux-image-amd64 does",
        },
      ];
    },
  };
}
