/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_NAT_FLOW_H
#define HANOK_NET_NAT_FLOW_H

#include "net/frame.h"
#include "net/nat.h"

/*
 * The connections of a NAT, found by watching frames pass: libslirp tells of its own only in a text
 * that knows no IPv6 and counts no bytes. What the text does say (states, sockets) is joined in.
 */
enum { NAT_FLOWS = 4096 };

struct nat_flow {
	struct net_nat_flow f; /* age_ns and idle_ns: times of first and last frame */
	uint16_t mss;	       /* what the guest asked for; 0: not heard */
	uint8_t fins;	       /* bit 0 from inside, 1 from outside */
	bool used, closed;
};

struct nat_flows {
	struct nat_flow *flows; /* open addressing, NAT_FLOWS places */
	unsigned count;
};

int nat_flows_create(struct nat_flows *t);
void nat_flows_destroy(struct nat_flows *t);
/* Notes a frame; NULL if it is of no flow, or there is no room for more. */
struct nat_flow *nat_flows_note(struct nat_flows *t, const struct net_headers *h, uint32_t bytes,
				bool from_inside, uint64_t now_ns);
/* Forgets what is over; `text` is slirp_connection_info's, or NULL. */
void nat_flows_refresh(struct nat_flows *t, const char *text, uint64_t now_ns);

/*
 * The MSS option of a SYN in h's headers: returns it, and where; 0 if there is none.
 */
uint16_t nat_syn_mss(const struct net_headers *h, uint32_t *at);

#endif
