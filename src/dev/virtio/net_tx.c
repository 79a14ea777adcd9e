/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transmission (VIRTIO 5.1.6.1, 5.1.6.2): a chain is a header and a frame. Up to NET_BATCH_MAX
 * chains are taken, handed to netport_send together from where they lie in the guest's memory, and
 * given back. Those that the cable has no room for are put back into the ring and taken again when
 * room() says so: nothing is kept here meanwhile.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/virtio/net_internal.h"

enum { TX_BUDGET = 4 * VNET_QUEUE_SIZE }; /* chains on a vCPU's thread at a time */

/* What the driver asks for, or false: it asks for what was not agreed on. */
static bool read_header(struct virtio_net *n, const struct vnet_header *h, struct net_meta *m)
{
	uint64_t needs;

	*m = (struct net_meta){0};
	if (h->flags & VNET_HDR_NEEDS_CSUM) {
		if (!virtio_has(&n->v, NET_F_CSUM))
			return false;
		m->flags = NET_CSUM_NEEDED;
		m->csum_start = h->csum_start;
		m->csum_offset = h->csum_offset;
	}
	switch (h->gso_type) {
	case VNET_GSO_NONE:
		return true;
	case VNET_GSO_TCPV4:
		needs = NET_F_HOST_TSO4;
		m->gso = NET_GSO_TCP4;
		break;
	case VNET_GSO_TCPV6:
		needs = NET_F_HOST_TSO6;
		m->gso = NET_GSO_TCP6;
		break;
	case VNET_GSO_UDP_L4:
		needs = NET_F_HOST_USO;
		m->gso = NET_GSO_UDP;
		break;
	default:
		return false;
	}
	m->gso_size = h->gso_size;
	m->header_bytes = h->header_bytes;
	return virtio_has(&n->v, needs) && m->flags && m->gso_size;
}

/* Makes the frame of a chain; false if it is none. */
static bool make_frame(struct virtio_net *n, struct vnet_work *w, struct virtio_chain *c,
		       struct net_frame *f)
{
	struct iovec *iov = c->iov;
	unsigned count = c->out_count;
	struct vnet_header h = {0};
	size_t header_bytes = vnet_header_bytes(n);

	if (!virtio_iov_take(&iov, &count, &h, header_bytes))
		return false;
	*f = (struct net_frame){.iov = iov, .iov_count = count};
	if (!read_header(n, &h, &f->meta) || c->out_bytes - header_bytes > NET_FRAME_MAX_BYTES ||
	    c->out_bytes - header_bytes < NET_ETH_HEADER_BYTES)
		return false;
	f->bytes = (uint32_t)(c->out_bytes - header_bytes);
	if (count <= NET_IOV_MAX)
		return true;
	if (!w->bounce)
		w->bounce = malloc(NET_FRAME_MAX_BYTES);
	if (!w->bounce)
		return false;
	virtio_iov_take(&iov, &count, w->bounce, f->bytes);
	/* The chain's own pieces are not needed any more, but for the room of one. */
	c->iov[0] = (struct iovec){w->bounce, f->bytes};
	f->iov = c->iov;
	f->iov_count = 1;
	return true;
}

/* Chains of a batch, and which of them have frames. */
struct batch {
	unsigned chains, frames;
	uint8_t chain_of[NET_BATCH_MAX]; /* by frame */
};

/* 1, or what virtqueue_pop returned last. */
static int collect(struct virtio_net *n, struct virtqueue *q, struct vnet_work *w, struct batch *b)
{
	unsigned used = 0;
	int rc = 1;

	*b = (struct batch){0};
	while (b->chains < NET_BATCH_MAX && VNET_POOL - used >= VNET_QUEUE_SIZE) {
		struct virtio_chain *c = &w->chain[b->chains];
		*c = (struct virtio_chain){
			.iov = w->iov + used, .area = w->area + used, .room = VNET_QUEUE_SIZE};
		rc = virtqueue_pop(q, c);
		if (rc <= 0)
			break;
		used += c->out_count + c->in_count;
		struct net_frame *f = &w->frame[b->frames];
		if (!make_frame(n, w, c, f)) {
			vnet_count(&n->stats.sent_malformed);
		} else {
			b->chain_of[b->frames++] = (uint8_t)b->chains;
			if (atomic_load_explicit(&n->pairs_used, memory_order_relaxed) > 1)
				vnet_steer_learn(n, f, q->index / 2);
		}
		b->chains++;
		if (f->iov_count == 1 && f->iov[0].iov_base == w->bounce)
			break; /* there is one of these */
	}
	return rc;
}

void vnet_transmit(struct virtio_net *n, struct virtqueue *q)
{
	struct vnet_work *w = &n->work[q->index];
	unsigned taken = 0;
	struct batch b;
	int rc;

	w->blocked = false;
	do {
		virtqueue_set_notify(q, false);
		do {
			rc = collect(n, q, w, &b);
			unsigned sent = netport_send(n->port, w->frame, b.frames), done = b.chains;
			if (sent < b.frames) {
				done = b.chain_of[sent];
				w->blocked = true;
				vnet_count(&n->stats.tx_waits);
			}
			for (unsigned i = 0; i < done; i++)
				virtqueue_push(q, &w->chain[i], 0);
			virtqueue_put_back(q, &w->chain[done], b.chains - done);
			taken += done;
		} while (rc > 0 && taken < TX_BUDGET && !w->blocked);
		virtqueue_flush(q);
		if (w->blocked || rc < 0)
			return;
		/* Another vCPU may feed the queue for ever; this one has other things to do. */
		if (taken >= TX_BUDGET) {
			virtqueue_notify_later(q);
			return;
		}
	} while (virtqueue_set_notify(q, true));
}
