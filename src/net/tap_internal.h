/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_NET_TAP_INTERNAL_H
#define HANOK_NET_TAP_INTERNAL_H

#include "net/frame.h"
#include "net/tap.h"

/*
 * struct virtio_net_hdr as the kernel has it (virtio 1.2, 5.1.6), without num_buffers, in the host's
 * byte order.
 */
struct vnet_header {
	uint8_t flags, gso_type;
	uint16_t header_bytes, gso_size, csum_start, csum_offset;
};

/* 0, or -1: the kernel has no word for it. */
int vnet_from_meta(struct vnet_header *v, const struct net_meta *m);
int vnet_to_meta(struct net_meta *m, const struct vnet_header *v);

/* Takes a descriptor over, which speaks in frames behind vnet headers. */
struct net_tap_config {
	const char *name;
	uint32_t features, max_frame_bytes;
	int fd;
	bool packet; /* AF_PACKET: tags come beside the frame */
};
int net_tap_start(struct net_tap **out, struct loop *loop, const struct net_tap_config *c,
		  struct error *err);

#endif
