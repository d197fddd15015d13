// SPDX-License-Identifier: Apache-2.0
/**
 * The daemon's API: what is said on RUN_DIR/vnetd.sock. The CLI and the daemon share this file
 * and nothing else but src/base.
 *
 * One JSON object a line. Request: {"v":1,"id":7,"method":"vnetList","params":{…}}; answer:
 * {"v":1,"id":7,"result":…} or {"v":1,"id":7,"error":{code,message,hint?,place?}}. Requests on
 * one connection are answered in order. A line longer than {@link maxLineBytes} closes the
 * connection. Fields may be added within a version; a client ignores those it does not know.
 */
import type { ErrorCode, Place } from "../base/errors.js";
import type { SuiteName } from "../base/suite.js";

export const apiVersion = 1;
export const maxLineBytes = 1 << 20;
export const socketName = "vnetd.sock";
/** An answer may be longer than a request: a full MAC table. A client reads no more than this. */
export const maxAnswerBytes = 256 << 20;

export type SecurityLevel = "none" | "auth" | "conf";
/** how a vnet's frames are sent; both are always received */
export type EncapsulationName = "udp" | "etherip";

/** A vnet as it was configured; ids in canonical long form. */
export interface VnetInfo {
  id: string;
  /** null: the vnetif is on no bridge */
  bridge: string | null;
  vnetif: string;
  security: SecurityLevel;
  /** its key file by path or name, never what is in it; null: the default key, if it is secure */
  key: string | null;
  /** while it changes its secret: the key before, which is accepted too */
  previousKey?: string;
  /** in use; null: it is not secure */
  suite: SuiteName | null;
  /** in use: the vnet's own, or this host's default; udp, within ESP, of a secure vnet */
  encapsulation: EncapsulationName;
  /** ARP and neighbour discovery are answered on this host where they can be */
  suppress: boolean;
  /** multicast groups of its own; null: the default one */
  group: string | null;
  group6: string | null;
}

/** What runs: one row of `vnets`. */
export interface VnetState extends VnetInfo {
  handle: number;
  up: boolean;
  /** why it is not up, or "" */
  problem: string;
  mtu: number;
  vmac: string;
  entries: number;
  hosts: number;
  /** made by the daemon by itself (2, 3, 4) and configured by nobody */
  builtIn: boolean;
  /** only with `all`: totals since the vnet was made */
  traffic?: TrafficInfo;
}

export interface TrafficInfo {
  encapFrames: number;
  encapBytes: number;
  decapFrames: number;
  decapBytes: number;
  floodedFrames: number;
  floodedBytes: number;
}

export interface VnifInfo {
  vnet: string;
  vnetif: string;
  vmac: string;
  bridge: string | null;
  up: boolean;
  mtu: number;
}

/** A MAC that lives on this host. */
export interface VifInfo {
  vnet: string;
  vmac: string;
  /** added: configured, does not age, and goes where it is heard; static: stays here, whatever is heard */
  state: "learned" | "added" | "static";
  /** since it was last heard; null: configured, does not age */
  ageSeconds: number | null;
  /** direct port, or bridge port that it is behind, where the kernel's bridge knows it */
  device: string | null;
}

/** A MAC that lives elsewhere. */
export interface VarpEntry {
  vnet: string;
  vmac: string;
  /** underlay address of the host */
  address: string;
  device: string;
  /** aged: still in the table, no longer used */
  state: "learned" | "announced" | "static" | "aged";
  ageSeconds: number;
  /** of the path to the host; null: not known */
  mtu: number | null;
}

/** An IP address of a guest, in a vnet that suppresses. */
export interface NeighbourEntry {
  vnet: string;
  address: string;
  vmac: string;
  /** where it was heard last: on this host, or behind another */
  place: "here" | "elsewhere";
  /** it advertised itself as a router (IPv6) */
  router: boolean;
  /** who asks for it is answered on this host just now */
  answered: boolean;
  /** since its owner last said that it has the address */
  ageSeconds: number;
}

export interface BridgeInfo {
  bridge: string;
  vnet: string;
  ports: string[];
  /** vnetd made it and removes it with the vnet */
  owned: boolean;
}

export interface HostPathInfo {
  address: string;
  device: string;
  /** the longest packet that reaches it by this path, as far as is known */
  mtu: number;
  primary: boolean;
  heardSeconds: number;
}

/** A host that said hello, with the paths that lead to it. */
export interface HostInfo {
  hostId: string;
  name: string;
  software: string;
  vnets: string[];
  paths: HostPathInfo[];
}

/** A device that belongs to a vnet without a bridge. */
export interface PortInfo {
  vnet: string;
  device: string;
  /** absent: no device has the name now; refused: it cannot be a port as it is */
  state: "up" | "down" | "absent" | "refused";
  /** frames go into the guest's namespace without a queue between */
  direct: boolean;
  /** that were learned behind it */
  macs: number;
  /** why it is refused, or "" */
  problem: string;
}

/** How group traffic gets to a peer's address: src/controller/peers.ts explains each. */
export type PeerWay = "vfwd" | "unicast" | "multicast" | "none";

export interface PeerAddressInfo {
  address: string;
  /** underlay device by which it is reached */
  device: string | null;
  way: PeerWay;
  /** since something came from it inside VFWD; null: never */
  heardSeconds: number | null;
  sentFrames: number;
  heardFrames: number;
  sentBytes: number;
  heardBytes: number;
  /** why it cannot be reached, or "" */
  problem: string;
}

/** A configured peer: a host, or a name that stands for hosts. */
export interface PeerInfo {
  peer: string;
  port: number;
  addresses: PeerAddressInfo[];
  /** why the name was not resolved the last time, or "" */
  problem: string;
}

/** A device with one IP family; one that carries both is there twice. */
export interface AttachedDevice {
  device: string;
  address: string | null;
  /** how programs are hooked: "tcx" or "clsact" */
  mode: string;
  /** who runs the program on the XDP hook: "native" (the driver) or "generic"; null: there is none */
  xdp: string | null;
  mtu: number;
  up: boolean;
  /** why it does not carry traffic, or "" */
  problem: string;
  group: string;
  port: number;
  merge: boolean;
  /** how what goes to all leaves: to the group, or to each host by unicast */
  groupWay: "multicast" | "unicast";
  groupWhy: string;
}

export interface DropInfo {
  /** canonical id, or null before the vnet was known */
  vnet: string | null;
  direction: "encap" | "decap";
  reason: string;
  frames: number;
  bytes: number;
}

export interface StatusInfo {
  version: string;
  pid: number;
  hostId: string;
  uptimeSeconds: number;
  kernel: string;
  bpffs: string;
  layout: number;
  attached: AttachedDevice[];
  /** of the vnets that name none */
  encapsulation: EncapsulationName;
  vnets: number;
  hosts: number;
  /** of secure vnets: paths to their hosts, and how many of them have keys; changing: vnets that change their secret */
  secure: { vnets: number; paths: number; keyed: number; changing: number };
  table: { entries: number; limit: number; learned: number; moved: number; aged: number };
  drops: DropInfo[];
  configuration: ConfigurationInfo;
  problems: string[];
}

/** The daemon's configuration file, and what became of it when it was read last. */
export interface ConfigurationInfo {
  file: string;
  /** since the one in use was read */
  loadedSeconds: number;
  /** how often it was read again and taken, and not taken */
  reloads: number;
  refused: number;
  /** why the file as it was last is not in use; null: it is */
  failure: ({ ageSeconds: number } & ErrorBody) | null;
}

export interface ReloadInfo {
  file: string;
  /** needs: what must be done beyond this, or null */
  changes: { key: string; before: string; after: string; needs: string | null }[];
}

export interface ApplyParams {
  /** absolute, without links: whose vnets these are */
  directory: string;
  /** all that are in it; source names a file in errors */
  files: { source: string; text: string }[];
  dryRun?: boolean;
  /** delete vnets that are not in the directory also when something else made them */
  prune?: boolean;
}

export interface ApplyChange {
  /** take-over: it is as it is, and belongs to the directory from now on; remake: its security is another, so all of its
   * table is forgotten */
  action: "create" | "change" | "remake" | "take-over" | "delete";
  id: string;
  /** "file:line" where it stands, null: nowhere */
  place: string | null;
  /** what is different; of one that is made, what it has */
  parameters: { name: string; before: string | null; after: string | null }[];
  /** what stays behind and why, or null */
  note: string | null;
}

export interface ApplyInfo {
  directory: string;
  dryRun: boolean;
  changes: ApplyChange[];
  /** vnets of the directory that are as they should be */
  same: number;
  /** configured vnets that are not of this directory, and are left alone */
  others: string[];
}

export interface TraceParams {
  vnet: string;
  destination: string;
  /** left out: the vnetif's own */
  source?: string;
  /** the address of the host that sends it; left out: it comes from this host, or a guest here */
  from?: string;
  /** with `from`: it came by the group; one for all always does */
  byGroup?: boolean;
  /** ipv4, ipv6, arp, or 0x and four digits */
  type?: string;
  /** of the frame */
  bytes?: number;
  /** of an IPv4 packet */
  dontFragment?: boolean;
  /** it is the question, by ARP or neighbour discovery, who has this IP address; without `type` and `bytes` */
  asks?: string;
  /** the far host is asked as well */
  send?: boolean;
}

export interface TraceStep {
  step:
    | "vnet"
    | "keys"
    | "source"
    | "destination"
    | "neighbour"
    | "sends"
    | "answers"
    | "delivers"
    | "passes"
    | "dropped"
    | "counted"
    | "probe";
  /** for people */
  text: string;
  /** of a drop, or of a source that is not learned */
  reason?: string;
  /** of a packet that is sent in clear: its outer headers */
  outer?: OuterHeadersInfo;
}

export interface OuterHeadersInfo {
  family: 4 | 6;
  source: string;
  destination: string;
  etherip: boolean;
  sourcePort: number | null;
  port: number | null;
  ttl: number;
  dontFragment: boolean;
  bytes: number;
}

export interface TraceReport {
  vnet: string;
  direction: "encap" | "decap";
  source: string;
  destination: string;
  bytes: number;
  /** answered: the guest is told that it is too large, or who has the address that it asks for. stack: it is none of vnetd's */
  outcome: "sent" | "delivered" | "answered" | "dropped" | "stack";
  /** it goes, or came, to all */
  toAll: boolean;
  /** of what is dropped */
  reason: string | null;
  steps: TraceStep[];
}

export interface VersionInfo {
  version: string;
  api: number;
  layout: number;
}

/** What `detach --all` did. */
export interface DetachAllInfo {
  removed: {
    kind: "hook" | "group" | "device" | "bridge" | "security associations" | "pins";
    name: string;
  }[];
  /** what stays on purpose, and why */
  left: string[];
  /** what could not be removed, and why */
  failed: string[];
  /** pid of the daemon that did it, and ended; null: there was none */
  daemon: number | null;
  /** devices that were attached by command, and are so no more */
  forgotten: string[];
  /** devices that the configuration names: a daemon that is started attaches them again */
  stillConfigured: string[];
}

/** method -> [params, result] */
export interface Methods {
  /** mode: of a device that is attached already, another changes it; left out, as the configuration says */
  attach: [{ device: string; mode?: "tc" | "xdp" }, AttachedDevice];
  detach: [{ device: string }, { device: string }];
  /** the whole data plane is removed, and the daemon ends */
  detachAll: [{ all: true }, DetachAllInfo];
  /** text of a configuration (sxp, YAML or JSON), or the parameters themselves */
  vnetCreate: [
    { text: string; source: string } | { parameters: VnetParameters },
    (VnetInfo & { note?: string })[],
  ];
  /** note: what stays behind and why, or null */
  vnetDelete: [{ id: string }, VnetInfo & { note: string | null }];
  vnetList: [{ ids?: string[] }, VnetInfo[]];
  vnets: [{ all?: boolean }, VnetState[]];
  vnifs: [Record<string, never>, VnifInfo[]];
  vifs: [Record<string, never>, VifInfo[]];
  /** vmac is a MAC, or the name of a device whose MAC is meant; byDevice: a device's name even
   * where it could be read as a MAC ("aabbccddeeff" is both) */
  vifAdd: [{ vnet: string; vmac: string; byDevice?: boolean; static?: boolean }, VifInfo];
  vifDelete: [{ vnet: string; vmac: string }, { vnet: string; vmac: string }];
  varp: [Record<string, never>, VarpEntry[]];
  /** device: the underlay device; left out, the one that leads to the address */
  varpAdd: [{ vnet: string; vmac: string; address: string; device?: string }, VarpEntry];
  varpDelete: [{ vnet: string; vmac: string }, { vnet: string; vmac: string }];
  varpFlush: [{ vnet?: string }, { vnets: number }];
  neighbours: [{ vnet?: string }, NeighbourEntry[]];
  /** one address, or all of the vnet */
  neighbourFlush: [{ vnet: string; address?: string }, { neighbours: number }];
  peers: [Record<string, never>, PeerInfo[]];
  /** an address or a name */
  peerAdd: [{ peer: string; port?: number }, { peer: string; port: number | null }];
  peerDelete: [{ peer: string }, { peer: string }];
  ports: [{ vnet?: string }, PortInfo[]];
  portAdd: [{ vnet: string; device: string }, PortInfo];
  portDelete: [{ vnet: string; device: string }, { vnet: string; device: string }];
  bridges: [Record<string, never>, BridgeInfo[]];
  hosts: [Record<string, never>, HostInfo[]];
  /** of secure vnets: of one, or of all */
  keys: [{ vnet?: string }, SecureVnetInfo[]];
  /** new traffic keys now, with all hosts of one secure vnet, or of all */
  rekey: [{ vnet?: string }, { vnet: string; hosts: number }[]];
  /** key: as in VnetInfo. end: the one before is taken no more, whoever has not moved */
  keyRotate: [{ vnet: string; key: string } | { vnet: string; end: true }, KeyRotationInfo];
  status: [Record<string, never>, StatusInfo];
  /** what would happen to a frame: nothing is sent, learned or counted, unless `send` says so */
  trace: [TraceParams, TraceReport];
  /** looks the host over; takes some seconds */
  doctor: [Record<string, never>, DoctorReport];
  /** makes the vnets of a directory be what its files say; dryRun: says alone what would be done */
  apply: [ApplyParams, ApplyInfo];
  /** the daemon's configuration is read again */
  reload: [Record<string, never>, ReloadInfo];
  version: [Record<string, never>, VersionInfo];
}

/**
 * Streams: the answer is {"v":1,"id":7,"result":{}}, and then come lines {"v":1,"id":7,"event":…} until the client closes
 * the connection, which is for nothing else from then on. {"v":1,"id":7,"lost":3} stands where three are missing, because
 * there were too many at once or the client did not read them in time.
 */
export interface Streams {
  /** what goes on: all of it, or of a vnet, a MAC (as source or destination), or for a reason */
  monitor: [{ vnet?: string; mac?: string; reason?: string }, MonitorEvent];
  /** the frames of a vnet as its guests have them, each up to so many bytes */
  capture: [{ vnet: string; snapBytes?: number }, CapturedFrame];
}

export type StreamMethod = keyof Streams;
export type StreamParams<M extends StreamMethod> = Streams[M][0];
export type StreamEvent<M extends StreamMethod> = Streams[M][1];

export interface MonitorEvent {
  /** ISO 8601, in UTC */
  time: string;
  kind:
    | "learned"
    | "moved"
    /** a MAC that moves to and fro stays where it was */
    | "held"
    | "aged"
    | "dropped"
    /** the frame went on, its source was not learned */
    | "refused"
    | "storm"
    | "keys"
    | "member"
    | "peer";
  vnet: string | null;
  /** of a frame, its source */
  mac: string | null;
  destination?: string | null;
  reason?: string;
  direction?: "encap" | "decap";
  /** by which device it came */
  device?: string;
  /** addresses of hosts, or "this host" */
  from?: string;
  to?: string;
  /** of the packet that was dropped: its length, and its beginning in hex */
  bytes?: number;
  head?: string;
  /** for people */
  text: string;
}

export interface CapturedFrame {
  /** since 1970, a decimal number */
  timeNs: string;
  /** decap: from another host */
  direction: "encap" | "decap";
  /** of the whole frame */
  bytes: number;
  /** base64, cut to snapBytes */
  data: string;
  /** why it was dropped; refused_…: why its source was not learned */
  reason?: string;
}

/** as much of a frame as can be captured */
export const maxSnapBytes = 9000;

export type Method = keyof Methods;
export type Params<M extends Method> = Methods[M][0];
export type Result<M extends Method> = Methods[M][1];

/** A secure vnet's keys: their ids alone, which may be shown. */
export interface SecureVnetInfo {
  vnet: string;
  security: "auth" | "conf";
  suite: SuiteName;
  /** of the vnet's key */
  keyId: string;
  /** while it changes its secret: of the key before, which is taken too; else null */
  previousKeyId: string | null;
  hosts: KeyedHostInfo[];
}

/** A host of a secure vnet, by one path. */
export interface KeyedHostInfo {
  hostId: string;
  name: string;
  address: string;
  device: string;
  /** of the key that the traffic keys in use came of; this and what follows is null where there are none */
  keyId: string | null;
  ageSeconds: number | null;
  /** until they are changed, by time */
  rekeySeconds: number | null;
  /** until they are gone, if they are not changed */
  hardSeconds: number | null;
  /** the vnet changes its secret, and this host has not moved */
  waits: boolean;
}

/** problem: something does not work; warning: it will not, or works badly; note: worth knowing, nothing is wrong */
export type FindingLevel = "problem" | "warning" | "note";

export interface Finding {
  /** the name of the check */
  check: string;
  level: FindingLevel;
  /** what is wrong */
  what: string;
  /** how that was seen */
  seen: string;
  /** what to type, or to do; "": nothing */
  fix: string;
}

export interface CheckInfo {
  check: string;
  /** failed: it could not be done; skipped: there was nothing to check */
  result: "ok" | "found" | "skipped" | "failed";
  /** of failed and skipped */
  why: string;
  ms: number;
}

export interface DoctorReport {
  /** worst first */
  findings: Finding[];
  checks: CheckInfo[];
  /** attached devices that are usable: with these the command itself tests offloads */
  devices: string[];
}

export interface KeyRotationInfo {
  vnet: string;
  key: string;
  keyId: string;
  /** taken too, until all hosts have moved; null: there is none */
  previousKey: string | null;
  previousKeyId: string | null;
}

/** As they come from a command line; every field is the text that was typed. */
export interface VnetParameters {
  id: string;
  bridge?: string;
  vnetif?: string;
  security?: string;
  key?: string;
  previousKey?: string;
  suite?: string;
  encapsulation?: string;
  /** on or off */
  suppress?: string;
  group?: string;
  group6?: string;
}

export interface Request<M extends Method = Method> {
  v: number;
  id: number;
  method: M;
  params: Params<M>;
}

export interface ErrorBody {
  code: ErrorCode;
  message: string;
  hint?: string;
  place?: Place;
}

export type Answer<M extends Method = Method> =
  { v: number; id: number; result: Result<M> } | { v: number; id: number; error: ErrorBody };
