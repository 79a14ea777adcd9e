/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_NETPORT_INTERNAL_H
#define HANOK_NET_NETPORT_INTERNAL_H

#include "net/netport.h"

/* What a switch may do with its ends, and nobody else. */

/* netport_send for `source` (from 1): queues are shared fairly between sources. Frames may have two
 * pieces more than NET_IOV_MAX. */
unsigned netport_send_from(struct netport *p, const struct net_frame *frames, unsigned count,
			   unsigned source);
/* Both addresses of p's own owner, when they are heard of late. Tells the peer. */
void netport_set_given_mac(struct netport *p, const uint8_t given[6], const uint8_t used[6]);
/* The peer's part of the link. */
bool netport_peer_up(struct netport *p);
/* A drop by p's owner of frames that p was to send. */
void netport_count_sent_drop(struct netport *p, enum net_drop cause, unsigned frames);

#endif
