// SPDX-License-Identifier: Apache-2.0
/**
 * What the log can say: every event with its level and its meaning. The names are what programs
 * look for, so they stay; docs/logs.md lists them, and a test keeps both equal.
 */
export const logLevels = ["error", "warn", "info", "debug"] as const;
export type LogLevel = (typeof logLevels)[number];

interface EventSpec {
  level: LogLevel;
  /** others can cause it as often as they like, with names and addresses of their choice */
  wire?: true;
  means: string;
}

export const logEvents = {
  ready: { level: "info", means: "the daemon has started and answers commands" },
  stopping: { level: "info", means: "the daemon was told to stop" },
  stopped: { level: "info", means: "it has; what is attached goes on forwarding" },
  detached_all: { level: "info", means: "`detach --all` removed the data plane; the daemon ends" },
  manager_untold: {
    level: "warn",
    means: "systemd could not be told of a reload, or that the daemon lives",
  },
  step_failed: {
    level: "error",
    means: "something that is tried again later was refused, mostly by the kernel",
  },
  internal_error: { level: "error", means: "a mistake of vnetd's own: report it, with this line" },
  cleanup_failed: { level: "warn", means: "what is not needed any more could not be taken away" },
  api_failed: { level: "warn", means: "the socket that commands are answered on" },
  lock_taken: {
    level: "warn",
    means: "a program of another user has the name of the daemon's lock",
  },
  lock_failed: { level: "warn", means: "the socket that stands for the lock" },

  config_taken: { level: "info", means: "`vnetd.yaml` was read again; what is different" },
  config_refused: {
    level: "error",
    means: "it has a mistake or cannot be had; the one before is in use",
  },
  config_mixed: { level: "error", means: "and the way back failed too: restart the daemon" },
  limit_kept: {
    level: "warn",
    means: "a table has the size that it was made with, not the configured one",
  },

  metrics_open: {
    level: "info",
    means: "metrics without a token, on an address that others reach",
  },
  metrics_down: { level: "warn", means: "metrics are not served" },
  metrics_failed: { level: "error", means: "a scrape could not be answered" },

  carried_over: {
    level: "info",
    means: "what the maps of another version held is in the new ones",
  },
  not_carried_over: { level: "warn", means: "and what could not be" },
  maps_removed: { level: "info", means: "the other version's maps are gone" },
  sweeper_down: { level: "error", means: "the timer that ages entries does not run" },
  reassembly_down: { level: "warn", means: "packets in fragments are not received" },
  hook_lost: {
    level: "warn",
    means: "somebody removed a program of ours from a device; it was hooked again",
  },
  hook_not_restored: { level: "error", means: "and it cannot be hooked again; it is tried on" },
  hook_removed: { level: "debug", means: "a program of a device that is not ours any more" },

  device_xdp: { level: "info", means: "XDP takes part in carrying vnets over a device" },
  device_xdp_failed: {
    level: "warn",
    means: "XDP was asked for and cannot be had; TC carries everything",
  },
  group_failed: { level: "warn", means: "a device cannot join the group of a vnet; tried again" },
  group_limit: { level: "info", means: "a host may join more groups now, by the kernel's setting" },
  group_differs: {
    level: "warn",
    wire: true,
    means: "hosts of a vnet have different groups for it; it uses the default one meanwhile",
  },

  device_attached: { level: "info", means: "an underlay device carries vnets" },
  device_down: { level: "warn", means: "it cannot any more" },
  device_failed: { level: "error", means: "it could not be set up; tried again" },
  device_detached: { level: "info", means: "by `detach`, or by the configuration" },
  device_listed: {
    level: "warn",
    means: "`detach` of a device that the configuration attaches again",
  },
  device_merge: { level: "info", wire: true, means: "merging on receipt was switched" },

  vnet_made: { level: "info", means: "by `vnet-create`" },
  vnet_applied: { level: "info", means: "made, changed or deleted by `apply`" },
  vnet_deleted: { level: "info", means: "by `vnet-delete`, and what stays behind" },
  vnet_not_up: { level: "error", means: "a vnet that could not be brought up" },
  vnet_addresses: {
    level: "warn",
    means: "its interface is a bridge's port and has addresses that do not answer",
  },
  vnet_mtu_failed: {
    level: "warn",
    means: "the kernel refuses the MTU of one of its devices; tried again",
  },
  vnet_bridge_remade: {
    level: "warn",
    means: "somebody deleted its bridge; it is made again, without the other ports",
  },
  vnet_port_restored: {
    level: "warn",
    means: "somebody took its interface off the bridge; it is put back",
  },
  vnet_left_over: { level: "info", means: "a device of a vnet that is not configured was removed" },
  vnet_foreign: { level: "warn", means: "a device of another vnetd is left alone" },

  static_removed: { level: "info", means: "a configured entry that is configured no more" },
  static_failed: { level: "warn", means: "a configured entry that cannot be entered" },
  announce_refused: { level: "debug", wire: true, means: "an announce was not believed, and why" },
  silent_refused: {
    level: "debug",
    wire: true,
    means: "the MAC of a guest that says nothing was not entered",
  },
  silent_gone: { level: "debug", wire: true, means: "a MAC's port is gone" },
  guest_unread: { level: "debug", means: "a port's other end cannot be read" },

  port_up: { level: "info", means: "a device is a direct port of a vnet (`port-add`)" },
  port_gone: { level: "info", means: "and is it no more: it went, or by `port-delete`" },

  peer_added: { level: "info", means: "by `peer-add`" },
  peer_deleted: { level: "info", means: "by `peer-delete`" },
  peer_resolved: { level: "info", wire: true, means: "a peer's name has other addresses" },
  peer_failed: { level: "error", wire: true, means: "and they could not be used" },
  peers_not_stored: { level: "warn", means: "peers could not be written to the state directory" },

  host_refused: {
    level: "warn",
    wire: true,
    means: "a host more than `limits.hostsPerVnet` or `limits.hosts` allow",
  },
  host_unheard: {
    level: "info",
    wire: true,
    means: "a host does not answer by one path; another is tried",
  },
  host_id_twice: {
    level: "warn",
    wire: true,
    means: "another machine has this host's id: a copy of its disk",
  },
  hello_bad: { level: "debug", wire: true, means: "a hello was not understood, and why" },
  hop_refused: { level: "debug", wire: true, means: "a host's path was not entered" },
  varp_socket_failed: { level: "warn", wire: true, means: "the socket for VARP of a device" },
  varp_not_sent: { level: "warn", wire: true, means: "the kernel did not send a message, and why" },

  storm: {
    level: "warn",
    wire: true,
    means: "more frames to all than the limit, from one host or from here",
  },
  loop: { level: "warn", wire: true, means: "a vnet is joined to itself, and where" },
  loop_gone: { level: "info", wire: true, means: "it is not any more" },
  mac_twice: { level: "warn", wire: true, means: "two guests have one MAC, and where" },
  mac_twice_gone: { level: "info", wire: true, means: "they do not any more" },
  probe_failed: { level: "debug", means: "a probe for loops could not be sent" },

  keys_differ: {
    level: "warn",
    wire: true,
    means: "a host has another level, suite or key for a secure vnet",
  },
  keys_failed: {
    level: "error",
    wire: true,
    means: "keys with a host could not be taken into use",
  },
  sa_gone: { level: "warn", means: "somebody deleted an SA of ours; new keys are agreed" },
  sas_unread: { level: "error", means: "the kernel's SAs could not be looked at" },
  secret_changing: { level: "info", means: "`key-rotate`: both secrets are taken" },
  secret_changed: {
    level: "info",
    means: "all hosts have the new one; the old one is taken no more",
  },
  secret_ended: { level: "info", means: "`key-rotate --end`: the old one is taken no more" },
} as const satisfies Record<string, EventSpec>;

export type LogEvent = keyof typeof logEvents;

export function eventSpec(event: LogEvent): EventSpec {
  return logEvents[event];
}
