/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is sent: descriptors whose generation is the ring's become frames that point into the guest's
 * memory, a batch at a time; a completion names the last descriptor of each.
 *
 *     │ SOP, offload: how │ ... │ EOP │ SOP EOP │ SOP ...
 *     └─────── frame ───────────┴──────┘
 *
 * The ring's position moves when the port has taken the frames; if it has no room, the rest is read
 * again from the ring when there is.
 */
#include <string.h>

#include "dev/vmxnet3/vmxnet3_internal.h"
#include "net/frame.h"

/* Vmxnet3_TxDesc: dword 2 and 3. */
enum { TXD_LEN = 0x3fff, TXD_LEN_MAX = 0x4000, TXD_GEN = 1 << 14, TXD_DTYPE = 1 << 16 };
enum { TXD_MSSCOF_SHIFT = 18, TXD_HLEN = 0x3ff, TXD_OM_SHIFT = 10 };
enum { TXD_EOP = 1 << 12, TXD_CQ = 1 << 13, TXD_TI = 1 << 15, TXD_TCI_SHIFT = 16 };
enum { OM_NONE, OM_ENCAP, OM_CSUM, OM_TSO };
#define ERR_NOEOP UINT32_C(0x80000000)

enum { TCP_CSUM_AT = 16 };

struct desc {
	uint64_t buffer;
	uint32_t lower, upper;
};

/* The descriptor at r's position, if it is the card's. */
static bool read_desc(const struct vmxnet3_ring *r, struct desc *d)
{
	const uint8_t *p = r->descs + r->next * VMXNET3_DESC_BYTES;

	d->lower = __atomic_load_n((const uint32_t *)(p + 8), __ATOMIC_ACQUIRE);
	if (!!(d->lower & TXD_GEN) != r->gen)
		return false;
	memcpy(&d->buffer, p, 8);
	memcpy(&d->upper, p + 12, 4);
	__asm__ volatile("" : "+m"(*d)); /* the copy is what is looked at from here on */
	return true;
}

static void add_buffer(struct vmxnet3 *v, struct vmxnet3_tx *t, struct vmxnet3_tx_frame *f,
		       const struct desc *d)
{
	uint32_t bytes = d->lower & TXD_LEN ? d->lower & TXD_LEN : TXD_LEN_MAX;
	struct dma_area area = {0};
	uint8_t *host;

	if (f->dropped)
		return;
	host = dma_map(v->mem, &area, d->buffer, bytes, false);
	if (!host)
		t->stats.tx_bad_buffers++;
	if (!host || d->lower & TXD_DTYPE || f->net.iov_count == NET_IOV_MAX ||
	    bytes > NET_FRAME_MAX_BYTES - f->net.bytes) {
		f->dropped = true;
		dma_unmap(v->mem, &area);
		return;
	}
	t->area[t->areas++] = area;
	f->iov[f->net.iov_count++] = (struct iovec){host, bytes};
	f->net.bytes += bytes;
}

/* TSO: `headers` bytes of them, in front of what is cut to mss bytes each. */
static bool segment(struct vmxnet3_tx *t, struct vmxnet3_tx_frame *f, uint32_t headers,
		    uint32_t mss)
{
	struct net_meta *m = &f->net.meta;
	struct net_headers h;

	net_headers_parse(&h, &f->net);
	if (!mss || !h.l4 || h.protocol != IP_TCP || h.fragment || headers < h.payload ||
	    headers > f->net.bytes)
		return false;
	m->gso = h.version == 4 ? NET_GSO_TCP4 : NET_GSO_TCP6;
	m->gso_size = (uint16_t)mss;
	m->header_bytes = h.payload;
	m->flags |= NET_CSUM_NEEDED;
	m->csum_start = h.l4;
	m->csum_offset = TCP_CSUM_AT;
	t->stats.tx_tso++;
	return true;
}

/* What the first descriptor asks for. */
static void offload(struct vmxnet3_tx *t, struct vmxnet3_tx_frame *f, const struct desc *first)
{
	uint32_t hlen = first->upper & TXD_HLEN, msscof = first->lower >> TXD_MSSCOF_SHIFT;
	struct net_meta *m = &f->net.meta;
	bool ok = f->net.bytes >= NET_ETH_HEADER_BYTES;

	switch (first->upper >> TXD_OM_SHIFT & 3) {
	case OM_ENCAP:
		ok = false; /* of revision 4 on */
		break;
	case OM_CSUM:
		ok = ok && msscof >= hlen && msscof + 2 <= f->net.bytes;
		m->flags |= NET_CSUM_NEEDED;
		m->csum_start = (uint16_t)hlen;
		m->csum_offset = (uint16_t)(msscof - hlen);
		t->stats.tx_csum++;
		break;
	case OM_TSO:
		ok = ok && segment(t, f, hlen, msscof);
		break;
	}
	if (first->upper & TXD_TI) {
		m->flags |= NET_VLAN;
		m->vlan_tci = (uint16_t)(first->upper >> TXD_TCI_SHIFT);
	}
	if (!ok)
		f->dropped = true;
}

enum gathered { FRAME, NOTHING, ENDLESS };

/* Gathers the frame at `at`. NOTHING: its end is not there yet. */
static enum gathered gather(struct vmxnet3 *v, struct vmxnet3_tx *t, struct vmxnet3_ring at,
			    struct vmxnet3_tx_frame *f)
{
	struct desc first = {0}, d;

	f->dropped = false;
	f->net = (struct net_frame){.iov = f->iov};
	for (uint32_t n = 0; n < at.entries; n++) {
		if (!read_desc(&at, &d))
			return NOTHING;
		if (!n)
			first = d;
		add_buffer(v, t, f, &d);
		f->last = at.next;
		vmxnet3_ring_step(&at);
		if (d.upper & TXD_EOP) {
			f->complete = d.upper & TXD_CQ;
			f->next = at;
			if (!f->dropped)
				offload(t, f, &first);
			return FRAME;
		}
	}
	return ENDLESS;
}

/* Vmxnet3_TxCompDesc. */
static void complete(struct vmxnet3 *v, struct vmxnet3_queue *q, uint32_t index)
{
	uint32_t *c = (uint32_t *)(q->comp.descs + q->comp.next * VMXNET3_DESC_BYTES);

	c[0] = index;
	c[1] = c[2] = 0;
	__atomic_store_n(&c[3], (uint32_t)q->comp.gen << 31, __ATOMIC_RELEASE);
	mem_written(v->mem, q->comp.gpa + q->comp.next * VMXNET3_DESC_BYTES, VMXNET3_DESC_BYTES);
	vmxnet3_ring_step(&q->comp);
}

static void count(struct vmxnet3_tx *t, const struct net_frame *f)
{
	uint8_t to[2] = {0, 0};
	unsigned kind = TX_UNICAST;

	t->stats.tx_frames++;
	net_frame_read(f, 0, to, 2);
	if (to[0] & 1)
		kind = to[0] == 0xff && to[1] == 0xff ? TX_BROADCAST : TX_MULTICAST;
	t->q.stats[kind] += net_frame_packets(f);
	t->q.stats[kind + 1] += f->bytes;
	if (f->meta.gso) {
		t->q.stats[TX_TSO] += net_frame_packets(f);
		t->q.stats[TX_TSO + 1] += f->bytes;
	}
}

/* Sends the batch; returns how many of its frames are over and done. */
static unsigned send(struct vmxnet3 *v, struct vmxnet3_tx *t, unsigned n)
{
	struct net_frame frames[VMXNET3_BATCH];
	unsigned m = 0, taken, i;

	for (i = 0; i < n; i++)
		if (!t->frame[i].dropped)
			frames[m++] = t->frame[i].net;
	taken = m ? netport_send(v->port, frames, m) : 0;
	for (i = 0; i < taken; i++)
		count(t, &frames[i]);
	for (i = 0; i < n && (t->frame[i].dropped || taken); i++) {
		if (t->frame[i].dropped) {
			t->stats.tx_bad_frames++;
			t->q.stats[TX_ERROR]++;
		} else {
			taken--;
		}
	}
	return i;
}

/* A queue whose ring makes no sense waits for the driver's reset. */
static void stop(struct vmxnet3 *v, struct vmxnet3_tx *t, uint32_t error)
{
	t->q.error = error;
	t->stats.tx_stops++;
	vmxnet3_event(v, ECR_TQERR);
}

static bool gather_and_send(struct vmxnet3 *v, struct vmxnet3_tx *t, bool *told)
{
	struct vmxnet3_ring at = t->q.ring[0];
	enum gathered got = NOTHING;
	unsigned n = 0, done;

	while (n < VMXNET3_BATCH && (got = gather(v, t, at, &t->frame[n])) == FRAME)
		at = t->frame[n++].next;
	done = n ? send(v, t, n) : 0;
	for (unsigned i = 0; i < done; i++) {
		if (!t->frame[i].complete)
			continue;
		complete(v, &t->q, t->frame[i].last);
		*told = true;
	}
	if (done)
		t->q.ring[0] = t->frame[done - 1].next;
	if (done < n) {
		t->stats.tx_waits++;
		return false;
	}
	if (got == ENDLESS)
		stop(v, t, ERR_NOEOP);
	return got == FRAME;
}

static bool transmit_batch(struct vmxnet3 *v, struct vmxnet3_tx *t, bool *told)
{
	bool more = gather_and_send(v, t, told);

	dma_unmap_all(v->mem, t->area, &t->areas);
	return more;
}

void vmxnet3_transmit(struct vmxnet3 *v, struct vmxnet3_tx *t)
{
	bool told = false;

	if (!t->q.desc || t->q.error || !pci_dev_is_master(&v->pci))
		return;
	/* A guest that fills the ring while it is emptied gets no more than two rounds of it. */
	for (uint32_t turns = 2 * t->q.ring[0].entries / VMXNET3_BATCH + 1;
	     turns && transmit_batch(v, t, &told); turns--)
		;
	if (told)
		vmxnet3_raise(v, t->q.intr);
}
