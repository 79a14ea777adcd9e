/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What arrives: filters, a queue by RSS, buffers from its two rings, a completion for each.
 *
 *     ring 1   │ head │ head │ ...            │ head │ body │ body │ head ...   (jumbo)
 *     ring 2   │ body │ body │ ...
 *
 * A frame begins in a head buffer, from ring 1, and goes on in body buffers: of ring 1 if they are
 * next there, else of ring 2. Bodies of ring 1 that no frame wanted are passed over on the way to
 * the next head, and are the driver's again. When there are too few, the frame waits at the port,
 * and the driver is asked to write RXPROD when it has filled the ring.
 */
#include <string.h>

#include "dev/nic_frame.h"
#include "dev/vmxnet3/vmxnet3_internal.h"

/* Vmxnet3_RxDesc: dword 2. */
enum { RXD_LEN = 0x3fff, RXD_BODY = 1 << 14 };
#define RXD_GEN (UINT32_C(1) << 31)
/* Vmxnet3_RxCompDesc. */
enum { RCD_EOP = 1 << 14, RCD_SOP = 1 << 15, RCD_QUEUE_SHIFT = 16, RCD_RSS_SHIFT = 26 };
enum { RCD_NO_CSUM = 1 << 30 };
enum { RCD_TS = 1 << 15, RCD_TCI_SHIFT = 16 };
enum {
	RCD_TUC = 1 << 16,
	RCD_UDP = 1 << 17,
	RCD_TCP = 1 << 18,
	RCD_IPC = 1 << 19,
	RCD_V6 = 1 << 20,
	RCD_V4 = 1 << 21,
	RCD_FRG = 1 << 22,
	RCD_FCS = 1 << 23,
};
enum { TYPE_RXCOMP = 3, TYPE_RXCOMP_LRO = 4 };
enum { RXM_UNICAST = 1, RXM_MULTICAST = 2, RXM_BROADCAST = 4, RXM_ALL_MULTI = 8, RXM_PROMISC = 16 };
/* Bits of UPT1_RSSConf.hashType, and RxCompDesc.rssType. */
enum { HASH_IPV4 = 1, HASH_TCP4 = 2, HASH_IPV6 = 4, HASH_TCP6 = 8, HASH_TOEPLITZ = 1 };
enum { RSS_NONE, RSS_IPV4, RSS_TCP4, RSS_IPV6, RSS_TCP6 };

struct piece {
	uint64_t gpa;
	uint32_t bytes, index;
	unsigned ring;
};

struct arrival {
	const struct net_frame *frame;
	struct nic_view view;
	struct net_headers h;
	unsigned queue;
	uint32_t hash, hash_type;
	/* The buffers, and the rings as they are behind them. */
	struct piece piece[VMXNET3_RX_PIECES];
	unsigned pieces;
	struct vmxnet3_ring ring[2];
};

/* --- filters --- */

static bool in_table(const struct vmxnet3 *v, const uint8_t *to)
{
	for (unsigned i = 0; i + 6 <= v->rx.filter.table_bytes; i += 6)
		if (!memcmp(v->rx.groups + i, to, 6))
			return true;
	return false;
}

static bool for_us(const struct vmxnet3 *v, const struct nic_view *view)
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	uint32_t mode = v->rx.filter.rx_mode;
	const uint8_t *to = view->head;
	unsigned id = view->tci & 0xfff;

	if (mode & RXM_PROMISC)
		return true;
	if (view->tagged && !(v->rx.filter.vlans[id >> 5] >> (id & 31) & 1))
		return false;
	if (!memcmp(to, broadcast, 6))
		return mode & RXM_BROADCAST;
	if (to[0] & 1)
		return mode & RXM_ALL_MULTI || (mode & RXM_MULTICAST && in_table(v, to));
	return mode & RXM_UNICAST && !memcmp(to, v->mac, 6);
}

/* --- RSS --- */

/* Microsoft's Toeplitz hash: for each 1 of the input, the 32 bits of the key that begin there. */
static uint32_t toeplitz(const uint8_t *key, const uint8_t *in, unsigned bytes)
{
	uint32_t window = net_get32(key), hash = 0;

	for (unsigned i = 0; i < bytes; i++) {
		for (unsigned bit = 8; bit-- > 0;) {
			if (in[i] >> bit & 1)
				hash ^= window;
			window = window << 1 | (key[(i + 4) % VMXNET3_RSS_KEY_MAX] >> bit & 1);
		}
	}
	return hash;
}

static void choose_queue(const struct vmxnet3 *v, struct arrival *a)
{
	const struct vmxnet3_rss_conf *rss = &v->rx.rss;
	const uint8_t *ip = a->h.bytes + a->h.l3;
	uint8_t in[36];
	unsigned n = a->h.version == 4 ? 8 : 32;
	bool tcp = a->h.l4 && a->h.protocol == IP_TCP;

	a->queue = 0;
	if (!(v->rx.features & FEATURE_RSS) || rss->function != HASH_TOEPLITZ || !a->h.version)
		return;
	tcp = tcp && rss->types & (a->h.version == 4 ? HASH_TCP4 : HASH_TCP6);
	if (!tcp && !(rss->types & (a->h.version == 4 ? HASH_IPV4 : HASH_IPV6)))
		return;
	memcpy(in, ip + (a->h.version == 4 ? 12 : 8), n);
	if (tcp)
		memcpy(in + n, a->h.bytes + a->h.l4, 4);
	a->hash = toeplitz(rss->key, in, n + (tcp ? 4 : 0));
	a->hash_type = (a->h.version == 4 ? RSS_IPV4 : RSS_IPV6) + (tcp ? 1 : 0);
	a->queue = rss->table[a->hash % rss->table_entries] % v->conf.rx_queues;
}

/* --- buffers --- */

/* The descriptor at r's position, if it is the card's. */
static bool peek(const struct vmxnet3_ring *r, uint64_t *gpa, uint32_t *word)
{
	const uint8_t *p;

	if (!r->entries)
		return false;
	p = r->descs + r->next * VMXNET3_DESC_BYTES;
	*word = __atomic_load_n((const uint32_t *)(p + 8), __ATOMIC_ACQUIRE);
	if (!!(*word & RXD_GEN) != r->gen)
		return false;
	memcpy(gpa, p, 8);
	return true;
}

static bool take_head(struct arrival *a, uint64_t *gpa, uint32_t *word)
{
	for (uint32_t n = 0; n < a->ring[0].entries && peek(&a->ring[0], gpa, word); n++) {
		if (!(*word & RXD_BODY))
			return true;
		vmxnet3_ring_step(&a->ring[0]);
	}
	return false;
}

static bool take_body(struct arrival *a, unsigned *ring, uint64_t *gpa, uint32_t *word)
{
	*ring = 0;
	if (peek(&a->ring[0], gpa, word) && *word & RXD_BODY)
		return true;
	*ring = 1;
	return peek(&a->ring[1], gpa, word);
}

enum found { ENOUGH, TOO_FEW, NEVER };

/* Finds buffers for the frame; nothing is written yet. */
static enum found find_buffers(struct vmxnet3 *v, struct arrival *a)
{
	uint32_t left = a->view.bytes, word, bytes;
	uint64_t gpa;

	a->ring[0] = v->rx.q[a->queue].ring[0];
	a->ring[1] = v->rx.q[a->queue].ring[1];
	for (a->pieces = 0; left; a->pieces++) {
		struct piece *p = &a->piece[a->pieces];
		if (a->pieces == VMXNET3_RX_PIECES)
			return NEVER;
		p->ring = 0;
		if (!(a->pieces ? take_body(a, &p->ring, &gpa, &word) : take_head(a, &gpa, &word)))
			return a->pieces && !a->ring[1].entries ? NEVER : TOO_FEW;
		bytes = word & RXD_LEN;
		p->bytes = bytes < left ? bytes : left;
		p->gpa = gpa;
		p->index = a->ring[p->ring].next;
		left -= p->bytes;
		vmxnet3_ring_step(&a->ring[p->ring]);
	}
	return ENOUGH;
}

/* --- completions --- */

static uint32_t flags(const struct vmxnet3 *v, const struct arrival *a)
{
	const struct net_headers *h = &a->h;
	struct nic_csum c;
	uint32_t f = RCD_FCS;

	if (h->version)
		f |= (h->version == 4 ? RCD_V4 : RCD_V6) | (h->fragment ? RCD_FRG : 0);
	if (h->l4)
		f |= h->protocol == IP_TCP ? RCD_TCP : RCD_UDP;
	if (!(v->rx.features & FEATURE_RXCSUM))
		return f;
	nic_csum_check(&c, h, a->frame);
	if (c.ip_good || h->version == 6)
		f |= RCD_IPC;
	if (c.l4_good && (c.ip_good || h->version == 6))
		f |= RCD_TUC;
	return f;
}

static unsigned segments(const struct arrival *a)
{
	uint32_t n = net_frame_packets(a->frame);

	return n < 255 ? n : 255;
}

static void complete(struct vmxnet3 *v, struct arrival *a, unsigned i, uint32_t f)
{
	struct vmxnet3_ring *comp = &v->rx.q[a->queue].comp;
	uint64_t at = comp->next * VMXNET3_DESC_BYTES;
	uint32_t *c = (uint32_t *)(comp->descs + at);
	const struct piece *p = &a->piece[i];
	bool lro = !i && a->frame->meta.gso, last = i + 1 == a->pieces;
	uint32_t type = lro ? TYPE_RXCOMP_LRO : TYPE_RXCOMP;

	c[0] = p->index | (last ? RCD_EOP : 0) | (i ? 0 : RCD_SOP) |
	       (a->queue + (p->ring ? v->conf.rx_queues : 0u)) << RCD_QUEUE_SHIFT |
	       (lro ? 0 : a->hash_type << RCD_RSS_SHIFT) |
	       (v->rx.features & FEATURE_RXCSUM ? 0 : RCD_NO_CSUM);
	c[1] = lro ? segments(a) : a->hash;
	c[2] = p->bytes;
	if (a->view.stripped)
		c[2] |= RCD_TS | (uint32_t)a->view.tci << RCD_TCI_SHIFT;
	__atomic_store_n(&c[3],
			 f | (lro ? a->frame->meta.gso_size : 0) | type << 24 |
				 (uint32_t)comp->gen << 31,
			 __ATOMIC_RELEASE);
	mem_written(v->mem, comp->gpa + at, VMXNET3_DESC_BYTES);
	vmxnet3_ring_step(comp);
}

static void count(struct vmxnet3 *v, const struct arrival *a)
{
	struct vmxnet3_queue *q = &v->rx.q[a->queue];
	const uint8_t *to = a->view.head;
	uint32_t packets = net_frame_packets(a->frame);
	unsigned kind = RX_UNICAST;

	v->rx.stats.rx_frames++;
	if (to[0] & 1)
		kind = to[0] == 0xff && to[1] == 0xff ? RX_BROADCAST : RX_MULTICAST;
	q->stats[kind] += packets;
	q->stats[kind + 1] += a->view.bytes;
	if (a->frame->meta.gso) {
		v->rx.stats.rx_lro++;
		q->stats[RX_LRO]++;
		q->stats[RX_LRO + 1] += a->view.bytes;
	}
}

static void deliver(struct vmxnet3 *v, struct arrival *a)
{
	struct vmxnet3_queue *q = &v->rx.q[a->queue];
	uint32_t offset = 0, f = flags(v, a);

	for (unsigned i = 0; i < a->pieces; i++) {
		const struct piece *p = &a->piece[i];
		struct dma_area area = {0};
		uint8_t *to = dma_map(v->mem, &area, p->gpa, p->bytes, true);
		if (to) {
			uint32_t got = nic_view_read(&a->view, offset, to, p->bytes);
			memset(to + got, 0, p->bytes - got);
			dma_written(v->mem, &area, 1, p->bytes);
			dma_unmap(v->mem, &area);
		} else if (p->bytes) {
			v->rx.stats.rx_bad_buffers++;
		}
		offset += p->bytes;
		complete(v, a, i, f);
	}
	q->ring[0] = a->ring[0];
	q->ring[1] = a->ring[1];
	count(v, a);
}

/* Asks the driver to tell when it has filled the rings, and looks once more: it may just have. */
static enum found wait_for_buffers(struct vmxnet3 *v, struct arrival *a)
{
	struct vmxnet3_queue *q = &v->rx.q[a->queue];
	enum found found;

	__atomic_exchange_n(&q->desc->update_rx_prod, 1, __ATOMIC_SEQ_CST); /* a full barrier */
	found = find_buffers(v, a);
	if (found == TOO_FEW) {
		v->rx.stats.rx_waits++;
		q->stats[RX_NO_BUFFER]++;
	}
	return found;
}

static void drop(struct vmxnet3 *v, uint64_t *counter, enum net_drop cause)
{
	++*counter;
	netport_count_drop(v->port, cause, 1);
}

/* False: the frame waits. *queues gets the bit of the queue that it went to. */
static bool receive_one(struct vmxnet3 *v, const struct net_frame *f, uint32_t *queues)
{
	struct arrival a = {.frame = f};
	enum found found;

	if (!v->rx.q[0].desc || !pci_dev_is_master(&v->pci)) {
		drop(v, &v->rx.stats.rx_disabled, NET_DROP_LINK_DOWN);
		return true;
	}
	nic_view_init(&a.view, f, v->rx.features & FEATURE_RXVLAN);
	if (!for_us(v, &a.view)) {
		drop(v, &v->rx.stats.rx_filtered, NET_DROP_FILTERED);
		return true;
	}
	net_headers_parse(&a.h, f);
	choose_queue(v, &a);
	found = find_buffers(v, &a);
	if (found == TOO_FEW)
		found = wait_for_buffers(v, &a);
	if (found == NEVER) {
		drop(v, &v->rx.stats.rx_oversize, NET_DROP_OVERSIZE);
		return true;
	}
	if (found == TOO_FEW)
		return false;
	deliver(v, &a);
	*queues |= 1u << a.queue;
	return true;
}

unsigned vmxnet3_receive(void *opaque, const struct net_frame *frames, unsigned n)
{
	struct vmxnet3 *v = opaque;
	uint32_t queues = 0;
	unsigned taken = 0;

	pthread_mutex_lock(&v->rx.lock);
	while (taken < n && receive_one(v, &frames[taken], &queues))
		taken++;
	for (unsigned q = 0; q < VMXNET3_RX_QUEUES; q++)
		if (queues >> q & 1)
			vmxnet3_raise(v, v->rx.q[q].intr);
	pthread_mutex_unlock(&v->rx.lock);
	return taken;
}

void vmxnet3_rx_filled(struct vmxnet3 *v, unsigned q)
{
	pthread_mutex_lock(&v->rx.lock);
	if (v->rx.q[q].desc)
		__atomic_store_n(&v->rx.q[q].desc->update_rx_prod, 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&v->rx.lock);
	netport_ready(v->port);
}
