/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_LRO_H
#define HANOK_NET_LRO_H

#include "net/frame.h"

/*
 * Joins TCP segments that follow each other in a batch into GSO frames, for a port that wants that
 * (NET_WANT_LRO): fewer, longer frames cost a guest far less. Only what a sender's TSO could have
 * made is joined, so that segmenting the result gives the same segments again.
 *
 * Checksums that nobody vouches for are verified before: a segment with a bad one is left alone,
 * because a joined frame would hide it.
 */
struct net_lro {
	struct net_frame frames[NET_BATCH_MAX];
	struct iovec iov[NET_BATCH_MAX][NET_IOV_MAX];
	uint8_t headers[NET_BATCH_MAX][NET_HEADERS_MAX];
};

/* Fills lro->frames from n frames, n up to NET_BATCH_MAX, for a port with these NET_CAN_*; returns
 * how many there are now. They refer to the frames' memory. */
unsigned net_lro_join(struct net_lro *lro, const struct net_frame *frames, unsigned n,
		      uint32_t features);

#endif
