// SPDX-License-Identifier: Apache-2.0
/**
 * What the native addon offers: the kernel's BPF, netlink and socket calls that Node lacks.
 *
 * This is the one typed contract for the binary (addon/src implements it, src/native/load.ts is
 * the only module that loads it). Names mirror libbpf's and iproute2's verbs. There is no policy
 * in here: nothing is retried, guessed or logged. All calls are synchronous and short; every
 * failure throws a {@link NativeError}. File descriptors are plain numbers, owned by the caller,
 * close-on-exec, closed with {@link Native.close}.
 */

/** An Error whose fields tell what the kernel refused. Branch on `code`, never on the text. */
export interface NativeError extends Error {
  /** errno's name, e.g. "EEXIST" */
  code: string;
  /** positive errno */
  errno: number;
  /** the operation, e.g. "linkAdd" */
  operation: string;
  /** netlink extended ack, or the end of the verifier's log, where there is one */
  detail?: string;
}

export type Direction = "ingress" | "egress";

export interface LoadOptions {
  /** absolute directory on a bpffs; every map of the object is pinned there by its name, or
   * taken from there when it is already pinned and compatible; left out: nothing is pinned */
  pinDir?: string;
  /** maps of another object that take the place of this one's, by name: their fds */
  shared?: Record<string, number>;
  /** only these are loaded, by name; left out: all */
  programs?: Record<string, true>;
  /** of those, these are checked by a second thread meanwhile, with constants (and variables) of their own */
  apart?: Record<string, true>;
  /** overrides of max_entries, by map name; ignored for maps that are already pinned */
  maxEntries?: Record<string, number>;
  /** values of `const volatile` variables in .rodata, by name, little-endian bytes of their size */
  rodata?: Record<string, Uint8Array>;
}

export interface LoadedObject {
  /** program name -> fd */
  programs: Record<string, number>;
  /** map name -> fd (internal maps such as .rodata left out) */
  maps: Record<string, number>;
  /** map name -> whether it was taken from pinDir rather than made */
  reused: Record<string, boolean>;
}

export interface MapInfo {
  type: number;
  keySize: number;
  valueSize: number;
  maxEntries: number;
  id: number;
  name: string;
}

export interface ProgramInfo {
  id: number;
  /** its first 15 bytes */
  name: string;
  /** of all maps that it uses, .rodata among them */
  mapIds: number[];
  /** it runs as the CPU's own instructions, and is not interpreted */
  jited: boolean;
}

export interface MapDump {
  count: number;
  /** count * keySize bytes */
  keys: Buffer;
  /** count * valueSize bytes (per-CPU maps: summed over CPUs as u64 words) */
  values: Buffer;
}

export interface TestRunOptions {
  repeat?: number;
  /** fields of the struct __sk_buff given as ctx_in */
  mark?: number;
  ifindex?: number;
  ingressIfindex?: number;
  gsoSize?: number;
  gsoSegs?: number;
  /** of an XDP program: the device by which the packet comes, which must have a program on its XDP hook */
  xdpIfindex?: number;
  /** room for the packet after the run; default: input length + 256 */
  outSize?: number;
}

export interface TestRunResult {
  /** the program's return value, e.g. TC_ACT_* */
  retval: number;
  data: Buffer;
  /** mean of one run, nanoseconds */
  durationNs: number;
  mark: number;
  /** of an XDP program: as much metadata is in front of the packet in `data` */
  metadataBytes: number;
}

export interface TcxLinkInfo {
  linkId: number;
  programId: number;
  /** 0 when the device is gone or moved away: the link is defunct */
  ifindex: number;
}

/** who runs the program: the device's driver, or the stack */
export type XdpMode = "native" | "generic";

export interface XdpInfo {
  mode: XdpMode | "none" | "other";
  /** 0: there is none */
  programId: number;
}

export interface FilterInfo {
  priority: number;
  handle: number;
  /** "bpf", "flower", … */
  kind: string;
}

export interface LinkInfo {
  ifindex: number;
  name: string;
  /** IFLA_INFO_KIND: "veth", "bridge", "vxlan", …; "" for a physical device */
  kind: string;
  mtuBytes: number;
  /** "aa:bb:cc:dd:ee:ff"; "" for devices without one */
  mac: string;
  /** IFF_UP */
  up: boolean;
  /** IFF_LOWER_UP: has carrier */
  carrier: boolean;
  loopback: boolean;
  /** ifindex of the bridge or bond it belongs to, 0 if none */
  master: number;
  /** IFLA_LINK: ifindex of the other end of a veth, or of the lower device; 0 if none */
  link: number;
  /** IFLA_LINK_NETNSID: set when `link` is in another namespace */
  linkNetnsId?: number;
  alias?: string;
  /** bridges only */
  bridge?: { stp: boolean; forwardDelayMs: number };
  /** xfrm interfaces only: what ties SAs and policies to it */
  xfrmIfId?: number;
}

export interface VethOptions {
  name: string;
  peerName: string;
  mac: string;
  peerMac: string;
  mtuBytes: number;
  peerMtuBytes: number;
  /** IFLA_GSO_MAX_SIZE of both ends */
  gsoMaxSizeBytes?: number;
  /** to send and to receive, of both ends; default 1 each */
  queues?: number;
  alias?: string;
}

export interface BridgeOptions {
  name: string;
  mac?: string;
  mtuBytes?: number;
  alias?: string;
  /** MACs that it learns at most, on Linux 6.7 and later; 0 or left out: as many as come */
  maxLearned?: number;
}

export interface VxlanOptions {
  name: string;
  /** UDP port that it listens on, on every address of the namespace, over IPv6 without a
   * checksum as well */
  port: number;
  mac?: string;
  mtuBytes?: number;
  alias?: string;
}

export interface LinkChange {
  /** before Linux 6.2 EBUSY while it is up */
  name?: string;
  up?: boolean;
  mtuBytes?: number;
  /** 0 takes it off its bridge */
  master?: number;
  mac?: string;
  alias?: string;
  gsoMaxSizeBytes?: number;
  /** IFLA_INET6_ADDR_GEN_MODE none: the link makes no IPv6 link-local address by itself */
  noIpv6LinkLocal?: boolean;
  noArp?: boolean;
  /** of a bridge: MACs that it learns at most; skipped before Linux 6.7 */
  maxLearned?: number;
  /** what comes by it is forwarded by the kernel: IPV4_DEVCONF_FORWARDING */
  forwardsIpv4?: boolean;
}

export interface AddressInfo {
  ifindex: number;
  /** "10.0.0.1" or "fe80::1" */
  address: string;
  prefixLength: number;
  family: 4 | 6;
  /** IFA_F_SECONDARY */
  secondary: boolean;
  /** IFA_F_MCAUTOJOIN */
  autojoin: boolean;
  /** IPv6: not known to be nobody else's (yet): IFA_F_TENTATIVE or IFA_F_DADFAILED */
  tentative: boolean;
  /** IFA_F_DEPRECATED */
  deprecated: boolean;
  scope: number;
}

export interface BridgeFdbEntry {
  mac: string;
  /** the port */
  ifindex: number;
  /** the bridge */
  master: number;
  /** NUD_PERMANENT: the port's own address or a static entry */
  permanent: boolean;
}

export type NetlinkEvent =
  | { type: "link"; link: LinkInfo }
  | { type: "link-deleted"; ifindex: number; name: string }
  | { type: "address"; address: AddressInfo }
  | { type: "address-deleted"; address: AddressInfo }
  | { type: "bridge-fdb-deleted"; entry: BridgeFdbEntry }
  /** a filter came, or filters or a qdisc went, whosever; of TCX programs nothing is told */
  | { type: "tc"; ifindex: number }
  /** the socket's buffer ran over (ENOBUFS): read everything again */
  | { type: "overrun" };

export interface XfrmMark {
  value: number;
  mask: number;
}

export type XfrmMode = "transport" | "beet";

/** By the kernel's name, e.g. "rfc4106(gcm(aes))". The key is wiped where it stands, whatever comes. */
export interface XfrmAlgorithm {
  name: string;
  key: Uint8Array;
}

export interface XfrmStateId {
  destination: string;
  /** 256 and more */
  spi: number;
  /** marks and interface that packets must have for it: part of its identity */
  mark?: XfrmMark;
  ifId?: number;
}

/** An SA of ESP. */
export interface XfrmState extends XfrmStateId {
  source: string;
  mode: XfrmMode;
  reqid: number;
  /** "cbc(aes)", or "ecb(cipher_null)" with an empty key; with authentication */
  encryption?: XfrmAlgorithm;
  /** "hmac(sha1)", 96 bits of whose ICV are sent */
  authentication?: XfrmAlgorithm & { icvBits: number };
  /** instead of the two: "rfc4106(gcm(aes))", "rfc4543(gcm(aes))"; the key ends with the salt of 4 bytes */
  aead?: XfrmAlgorithm & { icvBits: number };
  /** sequence numbers of 64 bits */
  esn: boolean;
  /** packets, up to 4096; 0 (without esn): none is checked */
  replayWindow: number;
  /** BEET: the addresses in the packet inside; left out: the outer ones */
  inner?: { source: string; destination: string };
  /** what packets are marked with behind it: those that were decrypted, and those that leave */
  outputMark?: XfrmMark;
  /** soft: an event; hard: it is deleted as well. Seconds since it was added */
  limits?: {
    softBytes?: number;
    hardBytes?: number;
    softPackets?: number;
    hardPackets?: number;
    softSeconds?: number;
    hardSeconds?: number;
  };
}

/** What the kernel says of an SA; its keys are never read. */
export interface XfrmStateInfo {
  source: string;
  destination: string;
  /** 50 ESP; others' may be of other protocols */
  protocol: number;
  spi: number;
  reqid: number;
  /** XfrmMode, "tunnel", or a number */
  mode: string;
  mark?: XfrmMark;
  ifId?: number;
  outputMark?: XfrmMark;
  /** names, "" for none */
  encryption: string;
  authentication: string;
  aead: string;
  esn: boolean;
  replayWindow: number;
  packets: number;
  bytes: number;
  /** since 1970, by the kernel's clock; 0: never used */
  addedSeconds: number;
  usedSeconds: number;
  sentSequence: number;
  receivedSequence: number;
  /** packets that were older than the window, that had come already, and whose ICV was wrong */
  replayWindowErrors: number;
  replayErrors: number;
  integrityErrors: number;
}

export interface XfrmPolicyId {
  direction: "in" | "out" | "fwd";
  source: string;
  /** left out: the whole address */
  sourcePrefix?: number;
  destination: string;
  destinationPrefix?: number;
  mark?: XfrmMark;
  ifId?: number;
}

export interface XfrmTemplate {
  source: string;
  destination: string;
  /** left out: any SA with the reqid, the newest first */
  spi?: number;
  reqid: number;
  mode: XfrmMode;
}

export interface XfrmPolicy extends XfrmPolicyId {
  /** the smallest goes first */
  priority: number;
  /** left out: packets are dropped. There is no policy that lets packets pass in clear. */
  template?: XfrmTemplate;
}

export interface XfrmPolicyInfo extends Required<Omit<XfrmPolicyId, "mark" | "ifId">> {
  mark?: XfrmMark;
  ifId?: number;
  priority: number;
  action: "allow" | "block";
  templates: (Omit<XfrmTemplate, "mode"> & { mode: string })[];
}

export interface XfrmLinkOptions {
  name: string;
  /** what ties SAs and policies to it; not 0 */
  ifId: number;
  /** ifindex of the underlying device; left out: by the routes */
  lower?: number;
  mtuBytes?: number;
  alias?: string;
}

export type XfrmEvent =
  /** a limit was reached; after a hard one the SA is gone */
  | { type: "expire"; hard: boolean; state: XfrmStateInfo }
  /** a packet met a policy, and there is no SA for it */
  | {
      type: "acquire";
      source: string;
      destination: string;
      reqid: number;
      mark?: XfrmMark;
      ifId?: number;
    }
  /** events were lost: read everything again */
  | { type: "overrun" };

export interface Closable {
  close(): void;
}

export interface NetnsIdentity {
  /** its number in nsfs; another namespace may get it when this one is gone */
  inode: bigint;
  /** no other namespace gets it until the machine boots again */
  cookie: bigint;
}

export interface UdpSocketOptions {
  /** SO_BINDTODEVICE */
  device: string;
  /** local address to bind to; also the source of what is sent */
  address: string;
  port: number;
  multicastTtl: number;
  /** nothing is sent in fragments, whatever is known of the path: what routers say comes as EMSGSIZE */
  dontFragment?: boolean;
}

export interface Native {
  // ---- BPF objects and maps
  objectLoad(path: string, options: LoadOptions): LoadedObject;
  /** opens a pinned map or program */
  objectGet(pinPath: string): number;
  objectPin(fd: number, pinPath: string): void;
  mapInfo(mapFd: number): MapInfo;
  /** undefined when the key is not there; per-CPU maps: summed over CPUs as u64 words */
  mapLookup(mapFd: number, key: Uint8Array): Buffer | undefined;
  /** flags: 0 any, 1 only if absent, 2 only if present. Queues and stacks: an empty key pushes.
   * Per-CPU maps: the value is stored on CPU 0, zero on the others. */
  mapUpdate(mapFd: number, key: Uint8Array, value: Uint8Array, flags?: number): void;
  /** false when it was not there */
  mapDelete(mapFd: number, key: Uint8Array): boolean;
  /** all entries, read in batches where the kernel can; atMost: no more than so many, of an array the first */
  mapDump(mapFd: number, atMost?: number): MapDump;
  progTestRun(progFd: number, data: Uint8Array, options?: TestRunOptions): TestRunResult;
  /** calls back on the event loop with each record's bytes, at most 256 a turn */
  ringConsume(mapFd: number, onRecord: (record: Buffer) => void): Closable;

  // ---- hooks
  /** throws EINVAL or ENOTSUP where the kernel has no TCX (before 6.6) */
  tcxAttach(progFd: number, ifindex: number, direction: Direction, pinPath: string): void;
  tcxInfo(pinPath: string): TcxLinkInfo;
  tcxUpdate(pinPath: string, progFd: number): void;
  /** EOPNOTSUPP: the driver has no XDP; EBUSY, EEXIST: there is a program. Its link's pin is read and updated by
   * tcxInfo and tcxUpdate. */
  xdpAttach(progFd: number, ifindex: number, mode: XdpMode, pinPath: string): void;
  /** the program of a pinned link is gone from its device when this returns; the pin stays */
  xdpDetach(pinPath: string): void;
  /** the device's program, whosever */
  xdpQuery(ifindex: number): XdpInfo;
  /** makes the clsact qdisc where it is missing, and adds or replaces our filter in place */
  clsactAttach(
    progFd: number,
    ifindex: number,
    direction: Direction,
    priority: number,
    handle: number,
  ): void;
  /** program id of our filter, 0 if it is not there */
  clsactQuery(ifindex: number, direction: Direction, priority: number, handle: number): number;
  clsactDetach(ifindex: number, direction: Direction, priority: number, handle: number): void;
  programId(progFd: number): number;
  programInfo(progFd: number): ProgramInfo;
  /** ids of all programs at the hook, whosever, in their order; [] before Linux 6.6 */
  tcxPrograms(ifindex: number, direction: Direction): number[];
  /** Of many devices with a program at each one's ingress: the places in the list of those where it is not, or that are gone. */
  tcxLacking(ifindexes: readonly number[], programIds: readonly number[]): number[];
  /** Asks the same again and again, every so many milliseconds, and calls only when one is lacking, each time that it is. */
  tcxWatch(
    ifindexes: readonly number[],
    programIds: readonly number[],
    periodMs: number,
    onLacking: () => void,
  ): Closable;
  /** all filters at the hook, whosever; [] where there is no clsact qdisc */
  clsactFilters(ifindex: number, direction: Direction): FilterInfo[];

  // ---- links, addresses, bridges (this process's network namespace)
  linkList(): LinkInfo[];
  linkGet(name: string): LinkInfo | undefined;
  /** by its number; netnsId: in another namespace, as LinkInfo.linkNetnsId names it */
  linkAt(ifindex: number, netnsId?: number): LinkInfo | undefined;
  linkAddVeth(options: VethOptions): void;
  /** forward delay 0, STP off; forwards link-local groups (LLDP …) but pause and LACP */
  linkAddBridge(options: BridgeOptions): void;
  /** without a remote, an id and learning: programs read and write the tunnel's key ("external") */
  linkAddVxlan(options: VxlanOptions): void;
  /** an xfrm interface; EOPNOTSUPP says what the kernel lacks */
  linkAddXfrm(options: XfrmLinkOptions): void;
  linkSet(ifindex: number, change: LinkChange): void;
  linkDelete(ifindex: number): void;
  addressList(): AddressInfo[];
  /** autojoin: the kernel joins the multicast group for as long as the address is there
   * (IFA_F_MCAUTOJOIN, Linux 4.1), of scope host so that it is never a source; EEXIST when it is there already */
  addressAdd(ifindex: number, address: string, prefixLength: number, autojoin: boolean): void;
  addressDelete(ifindex: number, address: string, prefixLength: number): void;
  /** deletes `local ADDRESS dev IFINDEX` from the local table; false when it was not there */
  routeDeleteLocal(ifindex: number, address: string): boolean;
  /** ifindex of the device by which the kernel would send to the address (a local one: lo's);
   * 0: by none */
  routeGet(address: string): number;
  /** `ADDRESS/PREFIX dev IFINDEX` in the main table, or in place of the one of that prefix: path MTUs
   * that the kernel learned behind that are forgotten */
  routeSet(ifindex: number, address: string, prefixLength: number): void;
  /** without what was learned behind the ports `leaveOut`, which can be a lot */
  bridgeFdbList(leaveOut?: readonly number[]): BridgeFdbEntry[];
  netlinkMonitor(onEvent: (event: NetlinkEvent) => void): Closable;
  /** ethtool's feature names, e.g. {"rx-gro": true, "tx-udp_tnl-segmentation": false};
   * throws EOPNOTSUPP naming the feature that did not change */
  featuresSet(device: string, features: Record<string, boolean>): void;
  featuresGet(device: string): Record<string, boolean>;

  // ---- ESP (xfrm). What the kernel lacks is named in `detail`, by its configuration option.
  /** EEXIST when there is one of that identity */
  xfrmStateAdd(state: XfrmState): void;
  /** changes the limits of an SA that is there (ESRCH); the kernel leaves its keys as they are */
  xfrmStateUpdate(state: XfrmState): void;
  /** false when it was not there */
  xfrmStateDelete(id: XfrmStateId): boolean;
  xfrmStateGet(id: XfrmStateId): XfrmStateInfo | undefined;
  /** all of the namespace, others' too; ifId: those with these bits in theirs */
  xfrmStateList(ifId?: XfrmMark): XfrmStateInfo[];
  /** adds it, or replaces the one of that identity in place */
  xfrmPolicySet(policy: XfrmPolicy): void;
  /** false when it was not there */
  xfrmPolicyDelete(id: XfrmPolicyId): boolean;
  /** as xfrmStateList() */
  xfrmPolicyList(ifId?: XfrmMark): XfrmPolicyInfo[];
  /** while one listens, the kernel asks for an SA that is missing, once in a while for each */
  xfrmMonitor(onEvent: (event: XfrmEvent) => void): Closable;

  // ---- sockets and processes
  /** a non-blocking packet socket on the device; each frame has a struct virtio_net_hdr (10 bytes) in front */
  packetSocket(ifindex: number): number;
  /** a bound, non-blocking UDP socket for dgram.Socket.bind({fd}) */
  udpSocket(options: UdpSocketOptions): number;
  /** a listening local socket with an abstract name: one of a name in a network namespace (else
   * EADDRINUSE), gone with its process */
  abstractListen(name: string): number;
  /** the fd of a connection to it, whose other end peerCredentials() tells */
  abstractConnect(name: string): number;
  /** of this process's network namespace, or of the one at a path (a mount of it, /proc/PID/ns/net): that
   * is entered by a thread of its own, which wants CAP_SYS_ADMIN (else EPERM) */
  netnsIdentity(path?: string): NetnsIdentity;
  /** an exclusive lock that lives as long as the fd; false when another process holds it */
  fileLock(fd: number): boolean;
  peerCredentials(socketFd: number): { pid: number; uid: number; gid: number };
  /** false when NOTIFY_SOCKET is not set */
  sdNotify(state: string): boolean;
  /** No core dump of this process from now on, no debugger and no reader of its memory without
   * CAP_SYS_PTRACE, its own user included (RLIMIT_CORE 0, PR_SET_DUMPABLE 0) */
  memoryHide(): void;
  /** f_type of statfs(2), e.g. 0xcafe4a11 for a bpffs */
  filesystemType(path: string): number;
  /** a new BPF file system on the directory, mode 0700; over whatever is mounted there */
  mountBpf(path: string): void;
  close(fd: number): void;
}
