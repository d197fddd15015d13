// SPDX-License-Identifier: Apache-2.0
/**
 * Every metric: its name by Prometheus' conventions, type, labels and help. What is not here is not served.
 *
 * Labels are bounded: vnets, attached devices and configured peers of this host, and words of fixed sets;
 * never a MAC, nor anything else that others choose. docs/metrics.md lists them for people; a test holds the two
 * together, and dashboards and rules (monitoring/) to both.
 */
export interface MetricInfo {
  type: "counter" | "gauge" | "histogram";
  labels: readonly string[];
  help: string;
}

const counter = (help: string, ...labels: string[]): MetricInfo => ({
  ...{ type: "counter", labels, help },
});
const gauge = (help: string, ...labels: string[]): MetricInfo => ({
  ...{ type: "gauge", labels, help },
});
const histogram = (help: string): MetricInfo => ({ type: "histogram", labels: [], help });

/** Read from BPF maps and the kernel at each scrape; src/metrics/families.ts. */
export const kernelMetrics = {
  vnetd_vnet_up: gauge("1 when the vnet is there with all of its devices.", "vnet"),
  vnetd_vnet_mtu_bytes: gauge("Longest packet of a guest that is carried whole.", "vnet"),
  vnetd_vnet_ports: gauge("Direct ports of the vnet that are there.", "vnet"),
  vnetd_vnet_hosts: gauge("Pairs of host and path that the vnet has frames of.", "vnet"),
  vnetd_frames_total: counter("Inner frames that were forwarded.", "vnet", "direction"),
  vnetd_bytes_total: counter("Bytes of inner frames that were forwarded.", "vnet", "direction"),
  vnetd_flooded_frames_total: counter(
    "Of the frames forwarded: those sent to, or received from, the group.",
    "vnet",
  ),
  vnetd_flooded_bytes_total: counter("Their bytes.", "vnet"),
  vnetd_fragmented_frames_total: counter(
    "Of the frames forwarded: those whose outer packet was, or came, in fragments.",
    ...["vnet", "direction"],
  ),
  vnetd_drops_total: counter(
    "Frames and messages that went no further, or whose source was not learned (refused_*), by reason.",
    ...["vnet", "direction", "reason"],
  ),
  vnetd_drop_counters_full_total: counter(
    "Drops that were counted without their vnet, because there was no room for another counter.",
  ),
  vnetd_table_entries: gauge("MACs in the table, by where they live.", "vnet", "place"),
  vnetd_table_static_entries: gauge("Of these: those that are configured."),
  vnetd_table_learned_total: counter("MACs that came into the table."),
  vnetd_table_moved_total: counter("MACs that went to another place."),
  vnetd_table_aged_total: counter("MACs that left the table because they were not heard."),
  vnetd_table_refused_total: counter("MACs that were not learned, over all reasons refused_*."),
  vnetd_neighbours: gauge("IP addresses of guests that are known, of vnets that suppress.", "vnet"),
  vnetd_neighbour_answers_total: counter(
    "Requests by ARP or neighbour discovery that were answered on this host and sent to nobody.",
    "vnet",
  ),
  vnetd_neighbour_changes_total: counter(
    "IP addresses that went to another MAC while the one before was heard.",
    "vnet",
  ),
  vnetd_neighbours_refused_total: counter(
    "IP addresses that were not learned, because there was no room.",
    "vnet",
  ),
  vnetd_map_entries: gauge("Entries in a table of the data plane.", "map"),
  vnetd_map_limit_entries: gauge("Entries that it holds at most.", "map"),
  vnetd_underlay_up: gauge("1 when an attached device carries traffic.", "device", "family"),
  vnetd_underlay_mtu_bytes: gauge("MTU of an attached device.", "device", "family"),
  vnetd_underlay_multicast: gauge(
    "1 when what is for all goes to the multicast group, 0 when it goes to each host.",
    ...["device", "family"],
  ),
  vnetd_underlay_xdp: gauge(
    "2 when an attached device's driver runs the program on its XDP hook, 1 when the stack does, 0: there is none.",
    ...["device", "family"],
  ),
  vnetd_peer_reachable: gauge("1 when there is a way to a configured peer's address.", "peer"),
  vnetd_peer_last_heard_timestamp_seconds: gauge(
    "When a peer's address was heard last, by a hello or by what it forwards; not there: never.",
    "peer",
  ),
  vnetd_peer_frames_total: counter(
    "Frames and messages that were forwarded to a peer, or came from it.",
    ...["peer", "direction"],
  ),
  vnetd_peer_bytes_total: counter("Their bytes.", "peer", "direction"),
  vnetd_secure_paths: gauge("Paths to hosts of a secure vnet, by state.", "vnet", "state"),
  vnetd_secure_vnet_changing: gauge("1 while a secure vnet changes its secret.", "vnet"),
  vnetd_security_associations: gauge("SAs of a secure vnet.", "vnet", "direction"),
  vnetd_keys_oldest_timestamp_seconds: gauge(
    "When the oldest keys that are sent with came into use; not there: there are none.",
    "vnet",
  ),
  vnetd_key_agreements_total: counter("Agreements on keys with a host.", "vnet"),
  vnetd_rekeys_total: counter("Of these: those that replaced keys.", "vnet"),
  vnetd_key_agreement_failures_total: counter("Agreements that were given up.", "vnet"),
  vnetd_xfrm_errors_total: counter(
    "What the kernel's IPsec refused in this network namespace, vnetd's or not, by the kernel's names.",
    "reason",
  ),
} as const satisfies Record<string, MetricInfo>;

/** The daemon's own; src/metrics/registry.ts. */
export const daemonMetrics = {
  vnetd_build_info: gauge("Always 1; the labels say what runs.", "version", "layout", "node"),
  vnetd_problems: gauge("Lines that vnetd status shows as problems."),
  vnetd_vnets: gauge("Vnets of this host."),
  vnetd_hosts: gauge("Other hosts that say hello."),
  vnetd_peers: gauge("Addresses of configured peers."),
  vnetd_loops: gauge("Vnets with a loop."),
  vnetd_storms: gauge("Sources of more frames to the group than a vnet's budget allows."),
  vnetd_duplicate_addresses: gauge("MACs that are at two places of a vnet."),
  vnetd_varp_received_messages_total: counter(
    "VARP messages by what became of them, in BPF or in the daemon.",
    ...["kind", "verdict"],
  ),
  vnetd_varp_sent_messages_total: counter(
    "VARP messages that were sent, by BPF or by the daemon; one for all counts once for each device.",
    "kind",
  ),
  vnetd_config_reloads_total: counter("Times that the configuration was read again.", "verdict"),
  vnetd_config_last_reload_success: gauge("1 when the configuration was taken the last time."),
  vnetd_config_last_taken_timestamp_seconds: gauge("When a configuration was taken last."),
  vnetd_hooks_removed_total: counter(
    "Programs of ours that somebody removed from a device, by what the device is; they are hooked again.",
    "owner",
  ),
  vnetd_event_loop_lag_seconds: histogram("How late the daemon's timers are, ten times a second."),
  vnetd_scrape_duration_seconds: histogram("How long it took to make this page, until the last."),
  process_cpu_seconds_total: counter("CPU time of the daemon."),
  process_resident_memory_bytes: gauge("Memory of the daemon."),
  process_open_fds: gauge("Open file descriptors of the daemon."),
  process_start_time_seconds: gauge("When the daemon was started."),
} as const satisfies Record<string, MetricInfo>;

export type KernelMetric = keyof typeof kernelMetrics;
export type DaemonMetric = keyof typeof daemonMetrics;

export const catalogue: ReadonlyMap<string, MetricInfo> = new Map<string, MetricInfo>([
  ...Object.entries(kernelMetrics),
  ...Object.entries(daemonMetrics),
]);
