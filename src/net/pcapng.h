/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_PCAPNG_H
#define HANOK_NET_PCAPNG_H

#include "net/netport.h"

/*
 * A capture in pcapng format (draft-ietf-opsawg-pcapng), one interface a port. Frames are written
 * as they would be seen on a wire, tags and checksums put in, but for GSO frames, which are written
 * whole, as captures on a Linux host have them.
 *
 * Threads: any.
 */
struct net_capture;

/* Writes to a new file; limit_bytes 0: as long as there is room. When the file cannot be written
 * any more, one line goes to the log and the capture says no more. */
int net_capture_create(struct net_capture **out, const char *path, uint64_t limit_bytes,
		       struct error *err);
/* No port may have it any more (netport_set_capture). NULL is allowed. 0 or what went wrong while
 * it was written. */
int net_capture_close(struct net_capture *c);

/* A port; returns its number. */
unsigned net_capture_add(struct net_capture *c, const char *name);
/* `sent`: by the port's owner; otherwise received by it. */
void net_capture_frame(struct net_capture *c, unsigned id, const struct net_frame *f, bool sent);

uint64_t net_capture_frames(struct net_capture *c);

#endif
