/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reception (VIRTIO 5.1.6.3, 5.1.6.4): a frame, with a header before it, goes into one chain, or
 * with mergeable buffers into as many as it takes. While the driver has given too few, the frame
 * stays with the cable, which offers it again when the driver notifies the queue.
 */
#include <errno.h>
#include <string.h>

#include "dev/virtio/net_internal.h"

enum outcome { TAKEN, DROPPED, NO_ROOM };

/* Copies a frame's bytes out piece by piece. */
struct source {
	const struct iovec *iov;
	unsigned count;
	size_t at; /* in iov[0] */
};

static size_t copy(struct source *s, uint8_t *to, size_t bytes)
{
	size_t done = 0;

	while (done < bytes && s->count) {
		size_t n = s->iov->iov_len - s->at;
		if (n > bytes - done)
			n = bytes - done;
		memcpy(to + done, (const uint8_t *)s->iov->iov_base + s->at, n);
		done += n;
		s->at += n;
		if (s->at == s->iov->iov_len) {
			s->iov++;
			s->count--;
			s->at = 0;
		}
	}
	return done;
}

/* The cable may still hold frames from when the driver could take more. */
static bool can_take(struct virtio_net *n, const struct net_meta *m)
{
	static const uint64_t needs[] = {
		[NET_GSO_NONE] = 0,
		[NET_GSO_TCP4] = NET_F_GUEST_TSO4,
		[NET_GSO_TCP6] = NET_F_GUEST_TSO6,
		[NET_GSO_UDP] = NET_F_GUEST_USO4 | NET_F_GUEST_USO6,
	};
	uint64_t can = atomic_load_explicit(&n->offloads, memory_order_relaxed);

	if (m->flags & NET_VLAN || m->gso >= sizeof(needs) / sizeof(needs[0]))
		return false;
	if (m->flags & NET_CSUM_NEEDED && !(can & NET_F_GUEST_CSUM))
		return false;
	return (can & needs[m->gso]) == needs[m->gso];
}

static void make_header(struct virtio_net *n, const struct net_meta *m, struct vnet_header *h)
{
	static const uint8_t types[] = {
		[NET_GSO_NONE] = VNET_GSO_NONE,
		[NET_GSO_TCP4] = VNET_GSO_TCPV4,
		[NET_GSO_TCP6] = VNET_GSO_TCPV6,
		[NET_GSO_UDP] = VNET_GSO_UDP_L4,
	};
	uint64_t can = atomic_load_explicit(&n->offloads, memory_order_relaxed);

	*h = (struct vnet_header){.buffers = 1};
	if (m->flags & NET_CSUM_NEEDED) {
		h->flags = VNET_HDR_NEEDS_CSUM;
		h->csum_start = m->csum_start;
		h->csum_offset = m->csum_offset;
	} else if (m->flags & NET_CSUM_GOOD && can & NET_F_GUEST_CSUM) {
		h->flags = VNET_HDR_DATA_VALID;
	}
	h->gso_type = types[m->gso];
	if (!h->gso_type)
		return;
	h->gso_size = m->gso_size;
	h->header_bytes = m->header_bytes;
	if (!h->header_bytes) /* a TCP header is the shortest there is behind csum_start, or UDP's */
		h->header_bytes = (uint16_t)(m->csum_start + (m->gso == NET_GSO_UDP ? 8 : 20));
}

/* Takes chains for `bytes` bytes; their number, 0: the driver has given too few, -ENOBUFS: there
 * will never be enough, -EIO: broken. Only of the first case nothing is left to be put back. */
static int take_chains(struct virtio_net *n, struct virtqueue *q, size_t bytes, unsigned *taken)
{
	struct vnet_work *w = &n->work[q->index];
	bool merge = virtio_has(&n->v, NET_F_MRG_RXBUF);
	unsigned used = 0;
	uint64_t room = 0;

	*taken = 0;
	while (room < bytes) {
		struct virtio_chain *c = &w->chain[*taken];
		if (*taken == (merge ? q->size : 1u) || VNET_POOL - used < VNET_QUEUE_SIZE)
			return -ENOBUFS;
		*c = (struct virtio_chain){
			.iov = w->iov + used, .area = w->area + used, .room = VNET_QUEUE_SIZE};
		int rc = virtqueue_pop(q, c);
		if (rc <= 0)
			return rc;
		++*taken;
		if (c->in_bytes < (*taken == 1 ? vnet_header_bytes(n) : 1)) {
			virtio_break(&n->v, "a buffer to receive by is too small for its header");
			return -EIO;
		}
		used += c->out_count + c->in_count;
		room += c->in_bytes;
	}
	return (int)*taken;
}

/* Fills the chain with what is left of the header and the frame; returns how much. */
static uint64_t fill(const struct virtio_chain *c, struct source *header, struct source *s)
{
	uint64_t written = 0;

	for (unsigned i = c->out_count; i < c->out_count + c->in_count; i++) {
		uint8_t *to = c->iov[i].iov_base;
		size_t n = copy(header, to, c->iov[i].iov_len);
		n += copy(s, to + n, c->iov[i].iov_len - n);
		written += n;
		if (n < c->iov[i].iov_len)
			break;
	}
	return written;
}

static enum outcome deliver(struct virtio_net *n, struct virtqueue *q, const struct net_frame *f)
{
	struct vnet_work *w = &n->work[q->index];
	size_t header_bytes = vnet_header_bytes(n);
	struct vnet_header h;
	unsigned taken;
	int rc = take_chains(n, q, header_bytes + f->bytes, &taken);

	if (rc <= 0) {
		virtqueue_put_back(q, w->chain, taken);
		return rc ? DROPPED : NO_ROOM;
	}
	make_header(n, &f->meta, &h);
	h.buffers = (uint16_t)taken;
	struct iovec header_iov = {&h, header_bytes};
	struct source header = {&header_iov, 1, 0}, s = {f->iov, f->iov_count, 0};
	for (unsigned i = 0; i < taken; i++)
		virtqueue_push(q, &w->chain[i], fill(&w->chain[i], &header, &s));
	return TAKEN;
}

/* Delivers, or waits for buffers with notifications on. */
static enum outcome deliver_or_wait(struct virtio_net *n, struct virtqueue *q,
				    const struct net_frame *f)
{
	enum outcome o;

	if (!q->enabled || !virtio_is_running(&n->v))
		return DROPPED;
	o = deliver(n, q, f);
	/* Too few a moment ago. Once the next one will be announced, there may be enough. */
	if (o == NO_ROOM) {
		virtqueue_want_more(q);
		o = deliver(n, q, f);
	}
	return o;
}

static struct virtqueue *queue_for(struct virtio_net *n, const struct net_frame *f)
{
	unsigned pair = 0;

	if (atomic_load_explicit(&n->pairs_used, memory_order_relaxed) > 1)
		pair = vnet_steer_pair(n, f);
	return &n->v.queue[2 * pair];
}

static void leave(struct virtqueue *q)
{
	if (!q)
		return;
	virtqueue_flush(q);
	virtqueue_unlock(q);
}

unsigned vnet_receive(void *opaque, const struct net_frame *frames, unsigned count)
{
	struct virtio_net *n = opaque;
	struct virtqueue *locked = NULL;
	enum outcome o = TAKEN;
	unsigned i;

	if (!atomic_load(&n->ready)) {
		netport_count_drop(n->port, NET_DROP_LINK_DOWN, count);
		return count;
	}
	for (i = 0; i < count; i++) {
		const struct net_frame *f = &frames[i];
		if (!can_take(n, &f->meta) || !vnet_wants(n, f)) {
			netport_count_drop(n->port, NET_DROP_FILTERED, 1);
			continue;
		}
		struct virtqueue *q = queue_for(n, f);
		if (q != locked) {
			leave(locked);
			virtqueue_lock(q);
			locked = q;
		}
		o = deliver_or_wait(n, q, f);
		if (o == NO_ROOM)
			break;
		if (o == DROPPED)
			netport_count_drop(n->port, NET_DROP_NO_BUFFER, 1);
	}
	leave(locked);
	if (o == NO_ROOM)
		vnet_count(&n->stats.rx_waits);
	return i;
}
