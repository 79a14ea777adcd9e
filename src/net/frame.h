/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_FRAME_H
#define HANOK_NET_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "net/netport.h"

/*
 * What is in a frame, and what a card would do to it on its way to the wire. All of it takes frames
 * from anybody: lengths and offsets are checked against what is there, and a header is read once,
 * into memory of our own, before anything is decided by it.
 */

enum {
	NET_HEADERS_MAX = 256,	 /* headers longer than this are not understood */
	NET_SEGMENTS_MAX = 2048, /* of one frame */
	NET_IOV_TOTAL = NET_IOV_MAX + 8,
};

enum {
	ETH_IPV4 = 0x0800,
	ETH_ARP = 0x0806,
	ETH_VLAN = 0x8100,
	ETH_QINQ = 0x88a8,
	ETH_IPV6 = 0x86dd
};
enum { IP_ICMP = 1, IP_TCP = 6, IP_UDP = 17, IP_ICMP6 = 58 };

static inline uint16_t net_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t net_get32(const uint8_t *p)
{
	return (uint32_t)net_get16(p) << 16 | net_get16(p + 2);
}

static inline void net_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void net_put32(uint8_t *p, uint32_t v)
{
	net_put16(p, (uint16_t)(v >> 16));
	net_put16(p + 2, (uint16_t)v);
}

/* The headers of a frame, in a copy of its first bytes. Offsets are from the frame's start. */
struct net_headers {
	uint8_t bytes[NET_HEADERS_MAX];
	uint32_t have;	  /* bytes of the frame that are in `bytes` */
	uint16_t type;	  /* EtherType behind all tags; 0: not even an Ethernet header */
	uint8_t version;  /* of IP: 4, 6, or 0 for something else */
	uint8_t protocol; /* of layer 4, behind IPv6's extension headers */
	bool fragment;	  /* of an IP packet: layer 4 may not begin here */
	uint16_t l3;	  /* where the IP header is; 0: there is none */
	uint16_t l4;	  /* where TCP or UDP is; 0: there is none, or none complete */
	uint16_t payload; /* behind TCP's or UDP's header; 0 as l4 */
};

/* Reads the headers as far as they are there and make sense. Never fails: what is not understood
 * is 0. */
void net_headers_parse(struct net_headers *h, const struct net_frame *f);

/* Ones' complement sums: not folded, not complemented; net_sum_fold gives 16 bits in host order
 * for net_put16. A sum over several pieces continues at an even offset. */
uint64_t net_sum(uint64_t sum, const void *bytes, size_t n);
uint16_t net_sum_fold(uint64_t sum);
/* Of the frame's bytes from `offset` to the end. */
uint64_t net_frame_sum(const struct net_frame *f, uint32_t offset);
/* Of the pseudo header of h's packet, for layer 4's length: RFC 9293 3.1, RFC 8200 8.1. */
uint64_t net_pseudo_sum(const struct net_headers *h, uint32_t l4_bytes);

/* The pieces of `bytes` bytes of f from `offset`; returns how many. out has room for f's all. */
unsigned net_frame_slice(const struct net_frame *f, uint32_t offset, uint32_t bytes,
			 struct iovec *out);

/* Is the sum of f's pieces what f says, and has it an Ethernet header? 0 or the cause to drop it. */
int net_frame_check(const struct net_frame *f, unsigned iov_max, enum net_drop *cause);

/* How many frames f would be on a wire. */
uint32_t net_frame_packets(const struct net_frame *f);

/*
 * Makes frames that a port can take of one that it cannot take as it is: adds checksums, segments,
 * puts tags in; and sets right what senders of GSO frames may leave wrong (IP lengths, header
 * checksum, pseudo header sum). emit gets the frames, in batches; they live until it returns.
 * Returns 0 or -1 with *cause, when the frame is to be dropped.
 */
struct net_fit {
	struct net_frame frames[NET_BATCH_MAX];
	uint8_t headers[NET_BATCH_MAX][NET_HEADERS_MAX + 16];
	struct iovec iov[NET_BATCH_MAX][NET_IOV_TOTAL];
	unsigned count;
	uint64_t checksummed, segmented, tagged; /* for statistics; the user's to reset */
	void (*emit)(void *opaque, const struct net_frame *frames, unsigned count);
	void *opaque;
};
int net_fit_frame(struct net_fit *fit, const struct net_frame *f, uint32_t features,
		  uint32_t max_frame_bytes, enum net_drop *cause);
/* Can f go to such a port as it is? */
bool net_fits(const struct net_frame *f, uint32_t features, uint32_t max_frame_bytes);

#endif
