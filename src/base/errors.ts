// SPDX-License-Identifier: Apache-2.0
/**
 * Every error that a person or a client can meet, in one table.
 *
 * Branch on `code`, never on the text. docs/errors.md lists the same codes and a test keeps the
 * two equal. An error says what was wrong, where, and what to do.
 */

/** Exit codes of the commands: 0 done, 1 failed, 2 usage, 3 no daemon. */
export const exitCodes = { done: 0, failed: 1, usage: 2, noDaemon: 3 } as const;

/** code -> what it means, in one sentence without the particulars */
export const errorTable = {
  INTERNAL: "A fault of vnetd itself.",
  USAGE: "The command line does not fit the command.",
  NO_DAEMON: "No daemon answers on the socket.",
  API_VERSION: "The command and the daemon speak different versions of the socket's API.",
  BAD_REQUEST: "A request on the socket is not of the API's form.",
  PERMISSION: "The caller may not do that.",

  FILE_UNREADABLE: "A file cannot be read.",
  FILE_UNWRITABLE: "A file cannot be written.",
  SYNTAX: "A file is not well-formed.",
  UNKNOWN_PARAMETER: "A parameter has a name that is not known.",
  DUPLICATE_PARAMETER: "A parameter is given twice.",
  MISSING_PARAMETER: "A parameter that must be given is missing.",
  BAD_VALUE: "A parameter's value is not of the form it must have.",
  BAD_VNET_ID: "A vnet id is not one.",
  BAD_NAME: "A device or bridge name breaks the kernel's rules.",
  BAD_MAC: "A MAC address is not one.",

  VNET_EXISTS: "There is a vnet with this id already.",
  VNET_NOT_FOUND: "There is no vnet with this id.",
  VNET_LIMIT: "No more vnets fit.",
  NAME_IN_USE: "A device or bridge name is taken by something else.",
  NOT_A_BRIDGE: "The name given as bridge is a device of another kind.",
  SECURITY_UNAVAILABLE: "The security level cannot be had, and clear is never used in its place.",
  NO_KEY: "There is no key for a vnet that is to be secure.",
  BAD_KEY: "A key file cannot be used.",
  NOT_SECURE: "The vnet has no keys: its security is none.",
  KEY_ROTATING: "The vnet is changing its secret already.",
  KEY_EXISTS: "There is a file in the place of a new key, which is never overwritten.",
  VIF_NOT_FOUND: "There is no such vif.",
  ENTRY_NOT_FOUND: "There is no such static entry.",
  MAC_IN_USE: "The MAC lives, or is configured to live, somewhere else.",
  NO_PATH: "No attached device leads to the address.",
  TABLE_FULL: "The MAC table takes no more entries.",

  DEVICE_NOT_FOUND: "There is no such network device.",
  DEVICE_UNSUITABLE: "The device cannot carry vnets.",
  ALREADY_ATTACHED: "The device is attached already.",
  NOT_ATTACHED: "The device is not attached.",

  STATE_LOCKED: "Another daemon uses the state directory.",
  ANOTHER_DAEMON: "Another vnetd has the network namespace, the BPF directory or the socket.",
  STATE_UNREADABLE: "A file in the state directory cannot be understood.",
  STATE_VERSION: "The state was written by a newer vnetd.",
  NOT_BPFFS: "The BPF directory is not on a bpffs.",
  KERNEL: "The kernel refused an operation.",
  CONFIG: "The daemon's configuration cannot be used.",

  BAD_ADDRESS: "An IP address is not one.",
  BAD_PEER: "A peer is neither the address of a host nor a name.",
  PEER_EXISTS: "There is such a peer already.",
  PEER_NOT_FOUND: "There is no such peer.",
  PEER_LIMIT: "No more peers fit.",
  PORT_NOT_FOUND: "There is no such port.",
  PORT_LIMIT: "No more ports fit.",
  DUPLICATE_VNET: "Two vnets of one configuration have the same id or name.",
  TOO_LARGE: "A file or a message is larger than vnetd reads.",
  STATE_UNWRITABLE: "The state directory cannot be written.",
  START_FAILED: "The daemon that a command started did not come up.",
  TIMEOUT: "The daemon did not answer in time.",
  CONNECTION_LOST: "The daemon went away before it answered.",
  BAD_ANSWER: "The daemon's answer is not of the API's form.",
} as const;

export type ErrorCode = keyof typeof errorTable;

/** Where in a text something is wrong; line and column count from 1. */
export interface Place {
  source: string;
  line?: number;
  column?: number;
}

export interface ErrorDetails {
  /** what to do about it, a full sentence or a command */
  hint?: string;
  place?: Place;
  cause?: unknown;
}

export class VnetdError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly place: Place | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "VnetdError";
    this.code = code;
    this.hint = details.hint;
    this.place = details.place;
  }

  /** By name: the command line's one file has this class once, and what it imports later has it again. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return value instanceof Error && value.name === "VnetdError";
  }
}

/** "file:3:5", "file:3" or "file" */
export function formatPlace(place: Place): string {
  const parts = [place.source, place.line, place.line === undefined ? undefined : place.column];
  return parts.filter((part) => part !== undefined).join(":");
}

/** An error as it goes over the socket and into --json. */
export interface ErrorParts {
  code: ErrorCode;
  message: string;
  hint?: string;
  place?: Place;
}

/** What is thrown and is no VnetdError is a fault of ours: INTERNAL, with its text. */
export function errorParts(error: unknown): ErrorParts {
  if (!(error instanceof VnetdError)) {
    return { code: "INTERNAL", message: error instanceof Error ? error.message : String(error) };
  }
  return {
    code: error.code,
    message: error.message,
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    ...(error.place === undefined ? {} : { place: error.place }),
  };
}

/** Adds the place in the file to an error that has none. */
export function atPlace<T>(place: Place, step: () => T): T {
  try {
    return step();
  } catch (error) {
    if (!(error instanceof VnetdError) || error.place !== undefined) throw error;
    const hint = error.hint === undefined ? {} : { hint: error.hint };
    throw new VnetdError(error.code, error.message, { ...hint, place, cause: error });
  }
}
