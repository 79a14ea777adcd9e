/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is sent (SDM 3.3, 3.4): descriptors from TDH to TDT become frames that point into the guest's
 * memory, a batch at a time. What the card would do to them goes along as metadata.
 *
 *     TDH                                                        TDT
 *      │ context │ data │ data EOP │ legacy EOP │ context │ data ...
 *      └──────── frame ────────────┴─── frame ──┘
 *
 * TDH moves, and descriptors are written back, when the port has taken their frame. If it has no
 * room, the rest is read again from the ring when there is; the context is put back for that.
 */
#include <stdlib.h>
#include <string.h>

#include "dev/e1000/e1000_internal.h"
#include "net/frame.h"

/* Commands (SDM 3.3.3, 3.3.7), byte 11 of a descriptor. */
enum {
	CMD_EOP = 1 << 0,
	CMD_IFCS = 1 << 1,
	CMD_IC = 1 << 2, /* legacy; TSE with DEXT */
	CMD_RS = 1 << 3,
	CMD_RPS = 1 << 4,
	CMD_DEXT = 1 << 5,
	CMD_VLE = 1 << 6,
	CMD_IDE = 1 << 7,
};
enum { POPTS_IXSM = 1 << 0, POPTS_TXSM = 1 << 1 };
enum { TX_CMD = 11, TX_STATUS = 12, STATUS_DD = 1 << 0 };

struct desc {
	uint64_t buffer;
	uint32_t lower, upper;
};

struct ring {
	uint8_t *descs;
	uint64_t gpa;
	uint32_t entries;
};

static bool find_ring(struct e1000 *e, struct ring *r)
{
	uint32_t tail = *e1000_reg(e, TDT);

	r->entries = *e1000_reg(e, TDLEN) / E1000_DESC_BYTES;
	r->gpa = (uint64_t)*e1000_reg(e, TDBAH) << 32 | *e1000_reg(e, TDBAL);
	r->descs = e1000_ring(e, &e->tx_ring, r->gpa, r->entries);
	if (r->entries && r->descs && *e1000_reg(e, TDH) < r->entries && tail < r->entries)
		return true;
	e->stats.tx_bad_rings++;
	return false;
}

static uint32_t after(const struct ring *r, uint32_t i)
{
	return i + 1 == r->entries ? 0 : i + 1;
}

static uint8_t command(const struct desc *d)
{
	return (uint8_t)(d->lower >> 24);
}

static void read_desc(const struct ring *r, uint32_t i, struct desc *d)
{
	memcpy(d, r->descs + i * E1000_DESC_BYTES, sizeof(*d));
	__asm__ volatile("" : "+m"(*d)); /* the copy is what is looked at from here on */
}

static bool is_context(const struct desc *d)
{
	return command(d) & CMD_DEXT && !(d->lower >> 20 & 15);
}

/* Context descriptor (SDM 3.3.6). */
static void load_context(struct e1000 *e, const struct desc *d)
{
	uint32_t low = (uint32_t)d->buffer, high = (uint32_t)(d->buffer >> 32);

	e->ctx = (struct tx_context){
		.ipcss = (uint8_t)low,
		.ipcso = (uint8_t)(low >> 8),
		.ipcse = (uint16_t)(low >> 16),
		.tucss = (uint8_t)high,
		.tucso = (uint8_t)(high >> 8),
		.tucse = (uint16_t)(high >> 16),
		.tcp = d->lower >> 24 & 1,
		.ipv4 = d->lower >> 25 & 1,
		.hdrlen = (uint8_t)(d->upper >> 8),
		.mss = (uint16_t)(d->upper >> 16),
	};
}

/* --- gathering a frame --- */

/* Copies what there is of the frame to the bounce buffer, of which there is one a batch. */
static bool to_bounce(struct e1000 *e, struct tx_frame *t)
{
	if (t->bounced)
		return true;
	if (!e->bounce)
		e->bounce = malloc(NET_FRAME_MAX_BYTES);
	if (!e->bounce)
		return false;
	net_frame_read(&t->net, 0, e->bounce, t->net.bytes);
	t->iov[0] = (struct iovec){e->bounce, t->net.bytes};
	t->net.iov_count = 1;
	t->bounced = true;
	return true;
}

static void add_buffer(struct e1000 *e, struct tx_frame *t, uint64_t gpa, uint32_t bytes)
{
	struct dma_area area = {0};
	uint8_t *host;

	if (!bytes || t->dropped)
		return;
	host = dma_map(e->mem, &area, gpa, bytes, false);
	if (!host) {
		e->stats.tx_bad_buffers++;
		t->dropped = true;
	} else if (bytes > NET_FRAME_MAX_BYTES - t->net.bytes ||
		   (t->net.iov_count == NET_IOV_MAX && !to_bounce(e, t))) {
		t->dropped = true;
	} else if (t->bounced) {
		memcpy(e->bounce + t->net.bytes, host, bytes);
		t->iov[0].iov_len += bytes;
		t->net.bytes += bytes;
	} else {
		t->iov[t->net.iov_count++] = (struct iovec){host, bytes};
		t->net.bytes += bytes;
		/* Held until the batch is over. */
		e->tx_area[e->tx_areas++] = area;
		return;
	}
	dma_unmap(e->mem, &area);
}

static void add_desc(struct e1000 *e, struct tx_frame *t, const struct desc *d, bool first)
{
	uint8_t cmd = command(d);

	if (first) {
		t->extended = cmd & CMD_DEXT;
		t->tse = t->extended && cmd & CMD_IC;
		t->popts = t->extended ? (uint8_t)(d->upper >> 8) : 0;
	}
	if (cmd & CMD_VLE) {
		t->vle = true;
		t->net.meta.vlan_tci = (uint16_t)(d->upper >> 16);
	}
	if (!t->extended) {
		t->ic = cmd & CMD_IC;
		t->cso = (uint8_t)(d->lower >> 16);
		t->css = (uint8_t)(d->upper >> 8);
	}
	if (cmd & CMD_EOP)
		t->no_fcs = !(cmd & CMD_IFCS);
	add_buffer(e, t, d->buffer, d->lower & (t->extended ? 0xfffff : 0xffff));
}

/* Software that adds the CRC itself: the port's frames have none. */
static void cut_crc(struct tx_frame *t)
{
	uint32_t cut = E1000_CRC_BYTES;

	if (t->net.bytes <= cut)
		return;
	t->net.bytes -= cut;
	while (cut) {
		struct iovec *last = &t->iov[t->net.iov_count - 1];
		uint32_t n = last->iov_len < cut ? (uint32_t)last->iov_len : cut;
		last->iov_len -= n;
		cut -= n;
		if (!last->iov_len)
			t->net.iov_count--;
	}
}

/* --- what the card does to it --- */

/* A sum over [start, end] that lands at `at`; `end` 0 is the frame's end. What the port's metadata
 * cannot say is done here. */
static void insert_sum(struct e1000 *e, struct tx_frame *t, uint32_t start, uint32_t end,
		       uint32_t at)
{
	struct net_meta *m = &t->net.meta;
	uint32_t stop = end && end < t->net.bytes ? end + 1 : t->net.bytes;

	if (start >= stop || at + 2 > t->net.bytes)
		return;
	if (stop == t->net.bytes && at >= start && !(m->flags & NET_CSUM_NEEDED)) {
		m->flags |= NET_CSUM_NEEDED;
		m->csum_start = (uint16_t)start;
		m->csum_offset = (uint16_t)(at - start);
		e->stats.tx_csum++;
		return;
	}
	if (!to_bounce(e, t))
		return;
	uint16_t sum = (uint16_t)~net_sum_fold(net_sum(0, e->bounce + start, stop - start));
	net_put16(e->bounce + at, sum);
	e->stats.tx_csum++;
}

/* TCP segmentation (SDM 3.5). The port's other end sets lengths, ids and sums. */
static void segment(struct e1000 *e, struct tx_frame *t)
{
	const struct tx_context *c = &e->ctx;
	struct net_meta *m = &t->net.meta;

	if (!c->tcp || !c->mss || !c->hdrlen || c->tucso < c->tucss) {
		t->dropped = true;
		return;
	}
	m->gso = c->ipv4 ? NET_GSO_TCP4 : NET_GSO_TCP6;
	m->gso_size = c->mss;
	m->header_bytes = c->hdrlen;
	m->flags |= NET_CSUM_NEEDED;
	m->csum_start = c->tucss;
	m->csum_offset = c->tucso - c->tucss;
	e->stats.tx_tso++;
}

static void finish(struct e1000 *e, struct tx_frame *t)
{
	const struct tx_context *c = &e->ctx;

	if (t->no_fcs)
		cut_crc(t);
	if (t->net.bytes < NET_ETH_HEADER_BYTES)
		t->dropped = true;
	if (t->dropped) {
		e->stats.tx_bad_frames++;
		return;
	}
	if (t->tse) {
		segment(e, t);
	} else if (t->extended) {
		if (t->popts & POPTS_TXSM)
			insert_sum(e, t, c->tucss, c->tucse, c->tucso);
		if (t->popts & POPTS_IXSM)
			insert_sum(e, t, c->ipcss, c->ipcse, c->ipcso);
	} else if (t->ic) {
		insert_sum(e, t, t->css, 0, t->cso);
	}
	if (t->vle && *e1000_reg(e, CTRL) & CTRL_VME)
		t->net.meta.flags |= NET_VLAN;
	if (t->dropped)
		e->stats.tx_bad_frames++;
}

enum gathered { FRAME, CONTEXTS, NOTHING };

/* Gathers the frame that begins at descriptor i. NOTHING: its end is not there yet. */
static enum gathered gather(struct e1000 *e, const struct ring *r, uint32_t i, struct tx_frame *t)
{
	uint32_t tail = *e1000_reg(e, TDT);
	bool first = true;
	struct desc d;

	t->before = e->ctx;
	t->next = i;
	t->dropped = t->bounced = t->vle = t->no_fcs = false;
	t->net = (struct net_frame){.iov = t->iov};
	for (; i != tail; i = after(r, i)) {
		read_desc(r, i, &d);
		if (is_context(&d)) {
			load_context(e, &d);
			continue;
		}
		add_desc(e, t, &d, first);
		first = false;
		if (command(&d) & CMD_EOP) {
			t->next = after(r, i);
			finish(e, t);
			return FRAME;
		}
	}
	if (first && t->next != tail) {
		t->next = tail;
		return CONTEXTS;
	}
	e->ctx = t->before;
	return NOTHING;
}

/* --- written back --- */

/* Descriptors up to next are done. Returns the causes: TXDW, at once or (IDE) later. */
static void write_back(struct e1000 *e, const struct ring *r, uint32_t next, bool *now, bool *later)
{
	uint32_t *head = e1000_reg(e, TDH);

	for (; *head != next; *head = after(r, *head)) {
		uint8_t *d = r->descs + *head * E1000_DESC_BYTES;
		uint8_t cmd = __atomic_load_n(d + TX_CMD, __ATOMIC_RELAXED);
		if (!(cmd & (CMD_RS | CMD_RPS)))
			continue;
		__atomic_store_n(d + TX_STATUS, (uint8_t)((d[TX_STATUS] & 0xf0) | STATUS_DD),
				 __ATOMIC_RELEASE);
		mem_written(e->mem, r->gpa + *head * E1000_DESC_BYTES, E1000_DESC_BYTES);
		if (cmd & CMD_IDE)
			*later = true;
		else
			*now = true;
	}
}

static void count(struct e1000 *e, const struct net_frame *f)
{
	uint32_t packets = net_frame_packets(f);
	uint32_t wire = (f->bytes < 60 ? 60 : f->bytes) + E1000_CRC_BYTES;
	uint8_t to[2] = {0, 0};

	if (packets > 1)
		wire += (packets - 1) * (f->meta.header_bytes + (uint32_t)E1000_CRC_BYTES);
	e->stats.tx_frames++;
	e1000_count(e, STAT_TPT, packets);
	e1000_count(e, STAT_GPTC, packets);
	e1000_count(e, STAT_PTC64 + 4 * e1000_size_class(wire / packets), packets);
	e1000_count64(e, STAT_GOTCL, wire);
	e1000_count64(e, STAT_TOTL, wire);
	if (f->meta.gso)
		e1000_count(e, STAT_TSCTC, 1);
	net_frame_read(f, 0, to, 2);
	if (to[0] & 1)
		e1000_count(e, to[0] == 0xff && to[1] == 0xff ? STAT_BPTC : STAT_MPTC, packets);
}

/* Sends the batch; returns how many of its frames are over and done. */
static unsigned send(struct e1000 *e, unsigned n)
{
	struct net_frame frames[E1000_TX_BATCH];
	unsigned m = 0, taken, i;

	for (i = 0; i < n; i++)
		if (!e->tx[i].dropped)
			frames[m++] = e->tx[i].net;
	taken = m ? netport_send(e->port, frames, m) : 0;
	for (i = 0; i < taken; i++)
		count(e, &frames[i]);
	for (i = 0; i < n && (e->tx[i].dropped || taken); i++)
		if (!e->tx[i].dropped)
			taken--;
	return i;
}

static bool gather_and_send(struct e1000 *e, const struct ring *r, bool *now, bool *later)
{
	uint32_t at = *e1000_reg(e, TDH);
	enum gathered got = NOTHING;
	unsigned n = 0, done;

	while (n < E1000_TX_BATCH && (got = gather(e, r, at, &e->tx[n])) == FRAME) {
		at = e->tx[n++].next;
		if (e->tx[n - 1].bounced)
			break;
	}
	done = n ? send(e, n) : 0;
	if (done)
		write_back(e, r, e->tx[done - 1].next, now, later);
	if (done < n) {
		e->ctx = e->tx[done].before;
		e->stats.tx_waits++;
		return false;
	}
	if (got == CONTEXTS)
		write_back(e, r, e->tx[n].next, now, later);
	return got == FRAME;
}

/* One batch. False when there is nothing more to do now. */
static bool transmit_batch(struct e1000 *e, const struct ring *r, bool *now, bool *later)
{
	bool more = gather_and_send(e, r, now, later);

	dma_unmap_all(e->mem, e->tx_area, &e->tx_areas);
	return more;
}

void e1000_transmit(struct e1000 *e)
{
	uint32_t start = *e1000_reg(e, TDH);
	bool now = false, later = false;
	struct ring r;

	if (!(*e1000_reg(e, TCTL) & TCTL_EN) || *e1000_reg(e, TDH) == *e1000_reg(e, TDT) ||
	    !pci_dev_is_master(&e->pci) || !find_ring(e, &r))
		return;

	while (transmit_batch(e, &r, &now, &later))
		;
	if (later)
		e1000_irq_sent(e);
	if (now || (*e1000_reg(e, TDH) == *e1000_reg(e, TDT) && *e1000_reg(e, TDH) != start))
		e1000_irq_raise(e,
				(now ? INT_TXDW : 0) |
					(*e1000_reg(e, TDH) == *e1000_reg(e, TDT) ? INT_TXQE : 0));
}
