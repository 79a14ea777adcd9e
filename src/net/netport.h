/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_NETPORT_H
#define HANOK_NET_NETPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"

/*
 * A network port: one end of a cable. A NIC, a switch's port, a NAT and an uplink are all ends;
 * any two can be connected.
 *
 *     NIC ── netport ══════ netport ── switch ── netport ══════ netport ── NAT, TAP, another NIC
 *               └ netport_send() calls the peer's receive() ┘
 *
 * Frames go from the sender's memory to the receiver's in one copy, made by whoever receives. What
 * a real card would do to a frame on its way to the wire (checksums, segmentation, the VLAN tag) is
 * not done but noted in its metadata; netport_send does it in software only where the peer cannot
 * take the frame as it is. So a sender may ask for every offload, whatever it is connected to, and
 * two ports that can take everything never segment.
 *
 * Threads.
 *  - netport_send may be called on any thread (a vCPU's, the loop's), by several at once.
 *  - receive() is called on the thread that sends, or within netport_ready() on that of its caller.
 *    Never twice at once for one port.
 *  - receive() may take locks of its own, raise interrupts and post to a loop. It may not call
 *    netport_send, netport_ready, netport_connect, netport_disconnect or netport_destroy, on any
 *    port, nor wait for a thread that does. So a NIC has one lock for what it transmits, held over
 *    netport_send if it likes, and another for what it receives, not held over it.
 *  - room() is called on the thread in which the peer called netport_ready, changed() on the thread
 *    that made the change; both with no lock of the port held, so both may send.
 */
struct netport;

/* ---- frames ---- */

enum {
	NET_ETH_HEADER_BYTES = 14,
	NET_VLAN_TAG_BYTES = 4,
	/* The longest frame there is, GSO or not: an Ethernet header, a VLAN tag and an IP packet. */
	NET_FRAME_MAX_BYTES = 14 + 4 + 65535,
	NET_IOV_MAX = 64,   /* pieces of a frame for netport_send; for receive() some more */
	NET_BATCH_MAX = 64, /* frames; netport_send takes any number, receive() gets at most this */
};

/* net_meta.flags */
enum {
	/* The 16-bit ones' complement sum from csum_start to the frame's end is still to be put at
	 * csum_start + csum_offset, where the pseudo header's sum lies already (as virtio's
	 * VIRTIO_NET_HDR_F_NEEDS_CSUM and Linux's CHECKSUM_PARTIAL have it). A receiver that took
	 * NET_CAN_CSUM may tell its guest that such a frame's checksum is good: it never was on a
	 * wire. */
	NET_CSUM_NEEDED = 1 << 0,
	/* Whoever sent it vouches for the TCP or UDP checksum. */
	NET_CSUM_GOOD = 1 << 1,
	/* The 802.1Q tag (0x8100) vlan_tci was taken out of the frame, or is to be put in. */
	NET_VLAN = 1 << 2,
};

enum net_gso {
	NET_GSO_NONE,
	NET_GSO_TCP4, /* needs NET_CSUM_NEEDED, as all but NET_GSO_UDP_FRAG */
	NET_GSO_TCP6,
	NET_GSO_UDP,	  /* UDP over IPv4 or IPv6 into datagrams (USO) */
	NET_GSO_UDP_FRAG, /* one UDP datagram over IPv4 or IPv6 into IP fragments (UFO) */
};

struct net_meta {
	uint8_t flags;
	uint8_t gso;	       /* enum net_gso */
	uint16_t csum_start;   /* from the frame's first byte as it lies in memory */
	uint16_t csum_offset;  /* from csum_start */
	uint16_t gso_size;     /* payload bytes of a segment, not 0 with GSO */
	uint16_t header_bytes; /* all headers before the payload; a hint: 0 is "find out" */
	uint16_t vlan_tci;     /* priority, DEI and VLAN id, host byte order */
};

/*
 * A frame without preamble and FCS. It may be shorter than 60 bytes (receivers that care pad). The
 * memory is the sender's and may be a guest's, who may change it meanwhile: whoever decides by what
 * is in a frame reads it once. Valid until the call it was handed to returns.
 *
 * In a GSO frame the sender may leave the IP length, the IPv4 header's checksum, the UDP length and
 * the pseudo header's sum as they are: netport_send sets them, as a card would.
 */
struct net_frame {
	const struct iovec *iov;
	unsigned iov_count; /* up to NET_IOV_MAX */
	uint32_t bytes;	    /* the sum of iov; netport_send drops and counts a frame that lies */
	struct net_meta meta;
};

/* Copies up to `bytes` from `offset` of a frame to buf; returns how many there were. */
uint32_t net_frame_read(const struct net_frame *f, uint32_t offset, void *buf, uint32_t bytes);

/* ---- ports ---- */

/* What a port can take: the frames its receive() wants to see as they are. */
enum {
	NET_CAN_CSUM = 1 << 0, /* NET_CSUM_NEEDED; without it frames come with their checksums */
	NET_CAN_TSO4 = 1 << 1, /* GSO frames of these types (a NIC: its guest does LRO); */
	NET_CAN_TSO6 = 1 << 2, /*   without NET_CAN_CSUM they are not used */
	NET_CAN_USO = 1 << 3,
	NET_CAN_UFO = 1 << 4,
	NET_CAN_VLAN = 1 << 5, /* NET_VLAN; without it tags lie within the frames */
	/* Wants TCP segments of one flow that arrive together joined into one GSO frame, in software
	 * if nobody did it before. With NET_CAN_TSO4 or NET_CAN_TSO6. */
	NET_WANT_LRO = 1 << 6,
	NET_CAN_ALL = NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6 | NET_CAN_USO | NET_CAN_UFO |
		      NET_CAN_VLAN,
};

struct netport_ops {
	/*
	 * Takes frames, in order, and returns how many: fewer than count when there is no room. The
	 * rest then waits in a bounded queue until the owner calls netport_ready(). A frame that can
	 * never be taken is taken, dropped and counted (netport_count_drop).
	 */
	unsigned (*receive)(void *opaque, const struct net_frame *frames, unsigned count);
	/* After netport_send took fewer frames than it was given: there is room again. NULL: frames
	 * that find the peer's queue full are dropped and counted, and netport_send takes all. */
	void (*room)(void *opaque);
	/* The link went up or down, or what the peer can take has changed. NULL: no interest. */
	void (*changed)(void *opaque);
};

struct netport_config {
	const char *name;	  /* for inspection and captures; copied, cut to 63 bytes */
	uint32_t features;	  /* NET_CAN_* */
	uint32_t max_frame_bytes; /* of a frame or segment without a tag: MTU + 14; 0: 1514 */
	/* The address the owner was given; all zero: it has none of its own (an uplink). */
	uint8_t mac[6];
	/* The queue before receive(). 0: 512 frames, 4 MiB. */
	unsigned queue_frames;
	uint32_t queue_bytes;
};

/* 0 or -ENOMEM. The link is up at this end. */
int netport_create(struct netport **out, const struct netport_config *config,
		   const struct netport_ops *ops, void *opaque);
/* Disconnects first. After return no callback of this port runs or will run. NULL is allowed. */
void netport_destroy(struct netport *p);

/* Joins two ends that are free; -EBUSY if one is not. Any thread. */
int netport_connect(struct netport *a, struct netport *b);
/* Waits for callbacks under way on other threads; what is queued at both ends is dropped. Not
 * within a callback. Any thread; nothing if p is not connected. */
void netport_disconnect(struct netport *p);

/*
 * Sends frames to the peer. Returns how many were taken care of (delivered, queued or dropped and
 * counted): all, unless ops->room is set and the peer's queue is full. Frames sent while the link
 * is down are dropped.
 */
unsigned netport_send(struct netport *p, const struct net_frame *frames, unsigned count);

/* The owner has room again (its guest gave it buffers): receive() gets what waits. Any thread, with
 * no lock held that receive() takes. Cheap when nothing waits. */
void netport_ready(struct netport *p);

/* What this end can take from now on; also when the guest changes its mind. Tells the peer. */
void netport_set_features(struct netport *p, uint32_t features, uint32_t max_frame_bytes);
/* What the peer can take (NET_CAN_*) and its max_frame_bytes; 0 when there is no peer. */
uint32_t netport_peer_features(struct netport *p);
uint32_t netport_peer_max_frame(struct netport *p);
/* The peer's address, as it was given and as it is used now; false: there is no peer. */
bool netport_peer_mac(struct netport *p, uint8_t given[6], uint8_t used[6]);

/* The address the owner was given, when that is known later than the port; also what it uses. */
void netport_set_given(struct netport *p, const uint8_t mac[6]);
/* The address the guest uses now, if it is not the one the owner was given. Tells the peer, which
 * may be a switch that has a policy on it. */
void netport_set_mac(struct netport *p, const uint8_t mac[6]);

/* This end's part of the link: both must be up. Tells the peer. */
void netport_set_link(struct netport *p, bool up);
/* Connected, and both ends up. */
bool netport_link(struct netport *p);

/* ---- inspection ---- */

enum net_drop {
	NET_DROP_LINK_DOWN,
	NET_DROP_QUEUE_FULL,
	NET_DROP_RUNT,	      /* shorter than its headers */
	NET_DROP_OVERSIZE,    /* longer than the receiver can take */
	NET_DROP_BAD_FRAME,   /* its pieces do not add up */
	NET_DROP_BAD_OFFLOAD, /* metadata that lies about what is in the frame */
	NET_DROP_VLAN,	      /* not a VLAN of the port group */
	NET_DROP_FORGED,      /* not from the port's own address */
	NET_DROP_STORM,	      /* above the limit for broadcast, multicast and unknown addresses */
	NET_DROP_RATE,	      /* above the port's rate */
	NET_DROP_LOSS,	      /* asked for */
	NET_DROP_NO_MEMORY,
	NET_DROP_NO_BUFFER, /* the receiver's buffers are too small for it */
	NET_DROP_FILTERED,  /* for an address that is not the port's own */
	NET_DROPS
};
/* "link-down", ... */
const char *net_drop_name(enum net_drop cause);

struct netport_stats {
	/* Sent by this end, and received by it. packets counts what would be on a wire: segments. */
	uint64_t sent_frames, sent_packets, sent_bytes;
	uint64_t received_frames, received_packets, received_bytes;
	uint64_t sent_drops[NET_DROPS], received_drops[NET_DROPS];
	/* Done in software before receive(): what this port could not take. */
	uint64_t checksummed, segmented, tagged, joined;
	unsigned queued_frames;
	uint32_t queued_bytes;
};
/* Any thread. */
void netport_get_stats(struct netport *p, struct netport_stats *out);
/* The same of the peer's; false, and nothing is set, when there is none. */
bool netport_get_peer_stats(struct netport *p, struct netport_stats *out);
const char *netport_name(const struct netport *p);
/* For receive(): a frame it took and dropped. */
void netport_count_drop(struct netport *p, enum net_drop cause, unsigned frames);

/* Everything that passes this port, both ways, from now on; NULL: no more. The capture (pcapng.h)
 * stays the caller's, and must live until it was replaced. Any thread. */
struct net_capture;
void netport_set_capture(struct netport *p, struct net_capture *capture);

#endif
