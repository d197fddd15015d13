// SPDX-License-Identifier: Apache-2.0
/** What was set out to be reached: each is a ratio of two ways in one row, as the median over the rounds. Pure. */

/** {of: the row's values, text, ours, theirs, atLeast | atMost} */
export const targets = [
  {
    text: "TCP, wire, host to host, to bare veth",
    rows: { name: ["tcp"], mode: "wire", place: ["host"], congestion: "reno" },
    ours: "vnetd",
    theirs: "bare",
    atLeast: 0.97,
  },
  {
    text: "TCP with offload, to VXLAN",
    rows: { name: ["tcp"], mode: "offload", place: ["host", "guest"] },
    ours: "vnetd",
    theirs: "vxlan",
    atLeast: 1,
  },
  {
    text: "64-byte UDP, host to host, to VXLAN",
    rows: { name: ["udp64"], place: ["host"] },
    ours: "vnetd",
    theirs: "vxlan",
    atLeast: 1.2,
  },
  {
    text: "64-byte UDP, guest to guest through bridges, to VXLAN and bridge",
    rows: { name: ["udp64"], place: ["guest"] },
    ours: "vnetd",
    theirs: "vxlan",
    atLeast: 1.15,
  },
  {
    text: "64-byte UDP, guest to guest by direct ports, to VXLAN and bridge",
    rows: { name: ["udp64"], place: ["guest"] },
    ours: "port",
    theirs: "vxlan",
    atLeast: 1.5,
  },
  {
    text: "forwarding only, to VXLAN",
    rows: { name: ["forward"], place: ["host", "guest"] },
    ours: "vnetd",
    theirs: "vxlan",
    atLeast: 1.5,
  },
  {
    text: "forwarding only, by direct ports, to VXLAN and bridge",
    rows: { name: ["forward"], place: ["guest"] },
    ours: "port",
    theirs: "vxlan",
    atLeast: 1.5,
  },
  {
    text: "round trip, median and 99.9th percentile, to VXLAN",
    rows: { name: ["echo", "echoP999"], place: ["host", "guest"] },
    ours: "vnetd",
    theirs: "vxlan",
    atMost: 1,
  },
  {
    text: "CPU for a forwarded packet, to VXLAN and bridge",
    rows: { name: ["forwardCpu"], place: ["guest"] },
    ours: "vnetd",
    theirs: "vxlan",
    atMost: 0.8,
  },
];

/** The targets that a row is measured for. */
export const targetsOf = ({ name, mode, place, congestion }) =>
  targets.filter(
    ({ rows }) =>
      rows.name.includes(name) &&
      rows.place.includes(place) &&
      [undefined, mode].includes(rows.mode) &&
      [undefined, congestion].includes(rows.congestion),
  );

/** Of secure vnets (bench/secure.mjs); of WireGuard where AES instructions are real, which in an emulated machine they are not */
export const secureTargets = [
  {
    text: "conf, to VXLAN over ESP with the same cipher",
    rows: { suite: ["sha1", "gcm"], kind: ["tcp", "udp"] },
    ours: "vnetd",
    theirs: "esp",
    atLeast: 1.05,
  },
  {
    text: "conf, round trip, to VXLAN over ESP",
    rows: { suite: ["sha1", "gcm"], kind: ["echo"] },
    ours: "vnetd",
    theirs: "esp",
    atMost: 1,
  },
  {
    text: "conf with GCM, to VXLAN over WireGuard",
    rows: { suite: ["gcm"], kind: ["tcp", "udp"] },
    ours: "vnetd",
    theirs: "wg",
    atLeast: 1,
  },
  {
    text: "conf with GCM, round trip, to VXLAN over WireGuard",
    rows: { suite: ["gcm"], kind: ["echo"] },
    ours: "vnetd",
    theirs: "wg",
    atMost: 1,
  },
];

export const secureTargetsOf = ({ suite, kind }) =>
  secureTargets.filter(({ rows }) => rows.suite.includes(suite) && rows.kind.includes(kind));
