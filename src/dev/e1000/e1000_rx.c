/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What arrives (SDM 3.2): filters, then descriptors from RDH on, which point at buffers of one size.
 *
 *     frame ─> enabled? ─> address, VLAN ─> enough buffers? ─> copied, with its CRC ─> RDH, RXT0
 *                └──────── dropped ────┘        └ waits at the port until RDT is written
 *
 * The "packet checksum" of a descriptor stays 0; drivers of this card go by the flags.
 */
#include <string.h>
#include <zlib.h>

#include "dev/e1000/e1000_internal.h"
#include "dev/nic_frame.h"

/* Receive descriptor (SDM 3.2.3), byte offsets. */
enum { RX_LENGTH = 8, RX_STATUS = 12, RX_ERRORS = 13, RX_SPECIAL = 14 };
enum {
	STATUS_DD = 1 << 0,
	STATUS_EOP = 1 << 1,
	STATUS_IXSM = 1 << 2,
	STATUS_VP = 1 << 3,
	STATUS_TCPCS = 1 << 5,
	STATUS_IPCS = 1 << 6,
	STATUS_PIF = 1 << 7,
	ERROR_TCPE = 1 << 5,
	ERROR_IPE = 1 << 6,
};
enum { RXCSUM_IPOFL = 1 << 8, RXCSUM_TUOFL = 1 << 9 };
enum { MIN_FRAME = 60, MAX_FRAME = 1522 };

/* What is written to the guest. */
struct arrival {
	struct nic_view view;
	uint32_t bytes;		/* with padding and CRC */
	uint32_t padded;	/* without the CRC */
	uint32_t crc;		/* over what was copied so far */
	uint8_t status, errors; /* of the last descriptor, without DD and EOP */
	bool pif;		/* passed inexactly, by the multicast table */
};

/* --- filters (SDM 3.2.1, 13.5.1) --- */

static bool exact(struct e1000 *e, const uint8_t *to)
{
	uint32_t low = (uint32_t)to[0] | to[1] << 8 | to[2] << 16 | (uint32_t)to[3] << 24;
	uint32_t high = (uint32_t)to[4] | to[5] << 8 | UINT32_C(0x80000000);

	for (unsigned i = 0; i < E1000_RA_COUNT; i++) {
		const uint32_t *ra = e1000_reg(e, RA + 8 * i);
		if (ra[0] == low && (ra[1] & 0x8000ffff) == high)
			return true;
	}
	return false;
}

static bool hashed(struct e1000 *e, const uint8_t *to)
{
	static const uint8_t shift[4] = {4, 3, 2, 0};
	unsigned hash = (unsigned)(to[5] << 8 | to[4]) >> shift[*e1000_reg(e, RCTL) >> 12 & 3];

	return *e1000_reg(e, MTA + 4 * (hash >> 5 & 0x7f)) >> (hash & 31) & 1;
}

static bool for_us(struct e1000 *e, struct arrival *a)
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	uint32_t rctl = *e1000_reg(e, RCTL);
	const uint8_t *to = a->view.head;

	if (!memcmp(to, broadcast, 6) && rctl & RCTL_BAM)
		return true;
	if (rctl & (to[0] & 1 ? RCTL_MPE : RCTL_UPE) || exact(e, to))
		return true;
	a->pif = to[0] & 1 && hashed(e, to);
	return a->pif;
}

static bool vlan_ok(struct e1000 *e, const struct nic_view *v)
{
	uint32_t rctl = *e1000_reg(e, RCTL);
	unsigned id = v->tci & 0xfff;

	if (!(rctl & RCTL_VFE) || !v->tagged)
		return true;
	if (rctl & RCTL_CFIEN && (v->tci >> 12 & 1) != (rctl >> 20 & 1))
		return false;
	return *e1000_reg(e, VFTA + 4 * (id >> 5)) >> (id & 31) & 1;
}

/* --- descriptors --- */

static uint32_t buffer_bytes(uint32_t rctl)
{
	unsigned size = rctl >> 16 & 3;

	if (rctl & RCTL_BSEX && size)
		return 32768u >> size;
	return 2048u >> size;
}

static void check_sums(struct e1000 *e, struct arrival *a, const struct net_frame *f)
{
	uint32_t rxcsum = *e1000_reg(e, RXCSUM);
	struct net_headers h;
	struct nic_csum c;

	if (!(rxcsum & (RXCSUM_IPOFL | RXCSUM_TUOFL))) {
		a->status |= STATUS_IXSM;
		return;
	}
	net_headers_parse(&h, f);
	nic_csum_check(&c, &h, f);
	if (rxcsum & RXCSUM_IPOFL && c.ip_checked) {
		a->status |= STATUS_IPCS;
		a->errors |= c.ip_good ? 0 : ERROR_IPE;
	}
	if (rxcsum & RXCSUM_TUOFL && c.l4_checked) {
		a->status |= STATUS_TCPCS;
		a->errors |= c.l4_good ? 0 : ERROR_TCPE;
	}
	if (!(a->status & (STATUS_IPCS | STATUS_TCPCS)))
		a->status |= STATUS_IXSM;
}

/* Bytes [offset, offset + n) of the frame, its padding and its CRC, to the guest's memory. */
static void fill(struct arrival *a, uint32_t offset, uint8_t *to, uint32_t n)
{
	uint32_t body = 0;

	if (offset < a->padded) {
		body = n < a->padded - offset ? n : a->padded - offset;
		uint32_t got = nic_view_read(&a->view, offset, to, body);
		memset(to + got, 0, body - got);
		if (a->bytes != a->padded)
			a->crc = (uint32_t)crc32(a->crc, to, body);
	}
	for (uint32_t i = body; i < n; i++)
		to[i] = (uint8_t)(a->crc >> 8 * (offset + i - a->padded));
}

static void write_descriptor(struct e1000 *e, uint8_t *desc, uint64_t gpa, struct arrival *a,
			     uint32_t offset, uint32_t n)
{
	bool last = offset + n == a->bytes;
	uint64_t buffer;
	uint16_t length = (uint16_t)n, special = a->view.stripped ? a->view.tci : 0;

	memcpy(&buffer, desc, 8);
	struct dma_area area = {0};
	uint8_t *to = dma_map(e->mem, &area, buffer, n, true);
	if (to) {
		fill(a, offset, to, n);
		dma_written(e->mem, &area, 1, n);
		dma_unmap(e->mem, &area);
	} else {
		e->stats.rx_bad_buffers++;
	}
	memcpy(desc + RX_LENGTH, &length, 2);
	memset(desc + RX_LENGTH + 2, 0, 2);
	desc[RX_ERRORS] = last ? a->errors : 0;
	memcpy(desc + RX_SPECIAL, &special, 2);
	__atomic_store_n(desc + RX_STATUS,
			 (uint8_t)(STATUS_DD | (last ? STATUS_EOP | a->status : 0)),
			 __ATOMIC_RELEASE);
	mem_written(e->mem, gpa, E1000_DESC_BYTES);
}

static void count(struct e1000 *e, const struct arrival *a)
{
	const uint8_t *to = a->view.head;
	uint32_t wire = a->padded + E1000_CRC_BYTES;

	e->stats.rx_frames++;
	e1000_count(e, STAT_TPR, 1);
	e1000_count(e, STAT_GPRC, 1);
	e1000_count(e, STAT_PRC64 + 4 * e1000_size_class(wire), 1);
	e1000_count64(e, STAT_GORCL, wire);
	e1000_count64(e, STAT_TORL, wire);
	if (to[0] & 1)
		e1000_count(e, to[0] == 0xff && to[1] == 0xff ? STAT_BPRC : STAT_MPRC, 1);
}

static unsigned ring_free(uint32_t head, uint32_t tail, uint32_t entries)
{
	return tail >= head ? tail - head : entries - head + tail;
}

/* The frame, into the guest's buffers; false: there are too few now. */
static bool deliver(struct e1000 *e, const struct net_frame *f, struct arrival *a)
{
	uint32_t size = buffer_bytes(*e1000_reg(e, RCTL));
	uint32_t entries = *e1000_reg(e, RDLEN) / E1000_DESC_BYTES;
	uint32_t *head = e1000_reg(e, RDH), tail = *e1000_reg(e, RDT);
	uint32_t needed = (a->bytes + size - 1) / size;
	uint64_t ring = (uint64_t)*e1000_reg(e, RDBAH) << 32 | *e1000_reg(e, RDBAL);
	uint8_t *descs = e1000_ring(e, &e->rx_ring, ring, entries);

	if (!entries || !descs || *head >= entries || tail >= entries ||
	    !pci_dev_is_master(&e->pci)) {
		e->stats.rx_bad_rings++;
		netport_count_drop(e->port, NET_DROP_NO_BUFFER, 1);
		return true;
	}
	if (needed >= entries) {
		e->stats.rx_oversize++;
		netport_count_drop(e->port, NET_DROP_OVERSIZE, 1);
		return true;
	}
	if (needed > ring_free(*head, tail, entries)) {
		e->stats.rx_waits++;
		e1000_count(e, STAT_RNBC, 1);
		return false;
	}
	check_sums(e, a, f);
	for (uint32_t done = 0; done < a->bytes; done += size) {
		uint32_t n = a->bytes - done < size ? a->bytes - done : size;
		write_descriptor(e, descs + *head * E1000_DESC_BYTES,
				 ring + *head * E1000_DESC_BYTES, a, done, n);
		*head = *head + 1 == entries ? 0 : *head + 1;
	}
	count(e, a);
	return true;
}

static bool receive_one(struct e1000 *e, const struct net_frame *f)
{
	uint32_t rctl = *e1000_reg(e, RCTL);
	struct arrival a = {.crc = 0};

	if (!(rctl & RCTL_EN)) {
		e->stats.rx_disabled++;
		netport_count_drop(e->port, NET_DROP_LINK_DOWN, 1);
		return true;
	}
	nic_view_init(&a.view, f, *e1000_reg(e, CTRL) & CTRL_VME);
	if (!for_us(e, &a) || !vlan_ok(e, &a.view)) {
		e->stats.rx_filtered++;
		netport_count_drop(e->port, NET_DROP_FILTERED, 1);
		return true;
	}
	a.padded = a.view.bytes < MIN_FRAME ? MIN_FRAME : a.view.bytes;
	a.bytes = a.padded + (rctl & RCTL_SECRC ? 0 : E1000_CRC_BYTES);
	if (a.padded + E1000_CRC_BYTES > (rctl & RCTL_LPE ? E1000_FRAME_MAX : MAX_FRAME)) {
		e->stats.rx_oversize++;
		e1000_count(e, STAT_ROC, 1);
		netport_count_drop(e->port, NET_DROP_OVERSIZE, 1);
		return true;
	}
	if (a.view.stripped)
		a.status |= STATUS_VP;
	if (a.pif)
		a.status |= STATUS_PIF;
	return deliver(e, f, &a);
}

/* RCTL.RDMTS: fewer than a half, a quarter or an eighth of the descriptors are left. */
static bool few_left(struct e1000 *e)
{
	uint32_t entries = *e1000_reg(e, RDLEN) / E1000_DESC_BYTES;
	uint32_t head = *e1000_reg(e, RDH), tail = *e1000_reg(e, RDT);

	return ring_free(head, tail, entries) <= entries >> (1 + (*e1000_reg(e, RCTL) >> 8 & 3));
}

unsigned e1000_receive(void *opaque, const struct net_frame *frames, unsigned n)
{
	struct e1000 *e = opaque;
	uint64_t before;
	unsigned taken = 0;

	pthread_mutex_lock(&e->rx_lock);
	before = e->stats.rx_frames;
	while (taken < n && receive_one(e, &frames[taken]))
		taken++;
	if (e->stats.rx_frames != before) {
		if (few_left(e))
			e1000_irq_raise(e, INT_RXDMT0);
		e1000_irq_received(e);
	} else if (taken < n) {
		e1000_irq_raise(e, INT_RXDMT0); /* the guest may have missed that it is out */
	}
	pthread_mutex_unlock(&e->rx_lock);
	return taken;
}
