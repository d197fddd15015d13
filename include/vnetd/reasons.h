/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Why a frame or message went no further.
 *
 * One list: the BPF programs return these, the drop counters are keyed by them, the metrics use
 * the lower-case names as label values, the packet tests have a row for each, and
 * docs/drop-reasons.md explains each (a test keeps list and page equal). Append only: the values
 * are stored in pinned maps.
 */
#ifndef VNETD_REASONS_H
#define VNETD_REASONS_H

enum vnetd_direction {
	/* from a guest or the host onto the underlay */
	VNETD_DIR_ENCAP = 0,
	/* from the underlay into a vnet */
	VNETD_DIR_DECAP = 1,
};

enum vnetd_reason {
	/* not a drop: forwarded, or not ours */
	VNETD_OK = 0,

	/* from the underlay: the outer packet */
	VNETD_DROP_TRUNCATED,
	VNETD_DROP_UNKNOWN_MESSAGE,
	VNETD_DROP_BAD_HEADER_CHECKSUM,
	VNETD_DROP_BAD_UDP_LENGTH,
	VNETD_DROP_OWN_ECHO,
	VNETD_DROP_BAD_SOURCE_ADDRESS,

	/* from the underlay: VUDP */
	VNETD_DROP_BAD_VERSION,
	VNETD_DROP_BAD_VNET_ID,
	VNETD_DROP_UNKNOWN_VNET,
	VNETD_DROP_VNET_DOWN,
	VNETD_DROP_SHORT_FRAME,
	VNETD_DROP_DUPLICATE_PATH,
	VNETD_DROP_SECURITY,
	VNETD_DROP_BAD_SUPERFRAME,

	/* from the underlay: VARP */
	VNETD_DROP_VARP_SHORT,
	VNETD_DROP_VARP_BAD_OPCODE,
	VNETD_DROP_VARP_BAD_FAMILY,
	VNETD_DROP_VARP_QUEUE_FULL,

	/* from the underlay: reassembled by the kernel */
	VNETD_DROP_REASSEMBLY_FORGED,

	/* from the underlay: VFWD */
	VNETD_DROP_VFWD_NOT_PEER,

	/* from a guest */
	VNETD_DROP_NO_UNDERLAY,
	VNETD_DROP_TOO_BIG,
	VNETD_DROP_SUPERFRAME_TOO_LONG,
	VNETD_DROP_ENCAP_FAILED,
	VNETD_DROP_STALE_PASS,

	/* either direction */
	VNETD_DROP_NO_MEMORY,

	/* the frame is forwarded, but its source was not learned (counted in the same table) */
	VNETD_REFUSED_GROUP_MAC,
	VNETD_REFUSED_HOST_LIMIT,
	VNETD_REFUSED_VNET_LIMIT,
	VNETD_REFUSED_TABLE_FULL,
	VNETD_REFUSED_VNET_HOSTS,
	VNETD_REFUSED_HOSTS_FULL,
	VNETD_REFUSED_STATIC,

	/* from a guest, continued (values are kept) */
	VNETD_DROP_CARRIES_ITSELF,
	/* from the underlay: what is inside VFWD, and copies of what peers forward */
	VNETD_DROP_VFWD_BAD_INNER,
	VNETD_DROP_VFWD_NESTED,
	VNETD_DROP_VFWD_NOT_GROUP,
	VNETD_DROP_VFWD_UNAVAILABLE,
	VNETD_DROP_DUPLICATE_FORWARD,

	/* from a guest, for all: no multicast is used, and nobody is known */
	VNETD_DROP_NO_RECEIVER,

	/* the frame went to the group, but not by one of the attached devices */
	VNETD_DROP_COPY_FAILED,
	/* either direction, continued: too many frames to or from the group; loops */
	VNETD_DROP_STORM,
	VNETD_DROP_LOOP,

	/* from the underlay: ICMP "fragmentation needed" or ICMPv6 "packet too big" about a packet of ours */
	VNETD_DROP_ICMP_CHECKSUM,
	VNETD_DROP_ICMP_FORGED,
	/* from the underlay: VARP, continued; all but the first are counted by the daemon */
	VNETD_DROP_VARP_UNKNOWN_VNET,
	VNETD_DROP_VARP_BAD_ADDRESS,
	VNETD_DROP_VARP_BAD_TLV,
	VNETD_DROP_VARP_LOCAL,
	VNETD_DROP_VARP_RATE,
	/* from the underlay: EtherIP */
	VNETD_DROP_ETHERIP_FRAGMENT,

	/* from a guest, of a secure vnet: there are no keys with that host, or with any */
	VNETD_DROP_NO_KEYS,
	/* from the underlay: ESP, before the kernel decrypts it … */
	VNETD_DROP_ESP_SOURCE,
	/* … and after: it came by no SA that is known, by another vnet's, by one of another level */
	VNETD_DROP_ESP_UNKNOWN,
	VNETD_DROP_ESP_OTHER_VNET,
	VNETD_DROP_ESP_OTHER_LEVEL,
	/* the source MAC is configured to live elsewhere */
	VNETD_DROP_ESP_INNER_SOURCE,
	/* what the kernel refused; taken from the SAs' statistics by the daemon */
	VNETD_DROP_ESP_REPLAY,
	VNETD_DROP_ESP_INTEGRITY,
	/* VARP for a secure vnet that did not come by an SA; the daemon counts this and what follows */
	VNETD_DROP_VARP_UNAUTHENTICATED,
	/* messages by which hosts agree on keys (docs/security.md) */
	VNETD_DROP_KEYS_MALFORMED,
	VNETD_DROP_KEYS_NOT_FOR_US,
	VNETD_DROP_KEYS_UNKNOWN_KEY,
	VNETD_DROP_KEYS_BAD_MAC,
	VNETD_DROP_KEYS_OTHER_SUITE,
	VNETD_DROP_KEYS_NOT_FRESH,
	VNETD_DROP_KEYS_NO_EXCHANGE,
	VNETD_DROP_KEYS_TOO_MANY,
	/* from a direct port: the frame is for a MAC behind that same port */
	VNETD_DROP_HAIRPIN,

	/* from the underlay: bpf/xdp.bpf.c took the headers off, and what it said of the frame was lost before
	 * bpf/decap.bpf.c */
	VNETD_DROP_XDP_LOST,

	/* from the underlay: it came to a multicast group that is neither its vnet's nor the default one */
	VNETD_DROP_OTHER_GROUP,

	VNETD_REASON_COUNT,
};

#endif
