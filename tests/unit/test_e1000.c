/* SPDX-License-Identifier: Apache-2.0 */
/* e1000: registers, EEPROM, PHY, rings and offloads, driven as a driver does it. */
#include "dev/e1000/e1000.h"

#include <zlib.h>

#include "nic_test.h"

enum { CTRL = 0, STATUS = 8, EECD = 0x10, EERD = 0x14, MDIC = 0x20, ICR = 0xc0, ITR = 0xc4 };
enum { ICS = 0xc8, IMS = 0xd0, IMC = 0xd8, RCTL = 0x100, TCTL = 0x400 };
enum { RDBAL = 0x2800, RDLEN = 0x2808, RDH = 0x2810, RDT = 0x2818 };
enum { TDBAL = 0x3800, TDLEN = 0x3808, TDH = 0x3810, TDT = 0x3818, TIDV = 0x3820, TADV = 0x382c };
enum { RXCSUM = 0x5000, MTA = 0x5200, RA = 0x5400, VFTA = 0x5600 };
enum { TX_RING = 0x10000, RX_RING = 0x20000, DATA = 0x100000, BUFFERS = 0x200000, ENTRIES = 128 };
enum {
	EOP = 1 << 24,
	IFCS = 2 << 24,
	IC = 4 << 24,
	TSE = 4 << 24,
	RS = 8 << 24,
	DEXT = 0x20 << 24
};
enum { VLE = 0x40 << 24, DTYP_DATA = 1 << 20, TXSM = 2 << 8, IXSM = 1 << 8 };
#define IDE (0x80u << 24)
enum { INT_TXDW = 1, INT_LSC = 4, INT_RXT0 = 0x80 };
enum { RCTL_EN = 2, UPE = 8, MPE = 0x10, LPE = 0x20, BAM = 0x8000, VFE = 1 << 18, SECRC = 1 << 26 };

static void *dev;
static struct e1000_stats stats;
static uint32_t tail;

static uint32_t rd(unsigned reg)
{
	return bar_read(0, reg);
}

static void wr(unsigned reg, uint32_t v)
{
	bar_write(0, reg, v);
}

static const struct e1000_stats *now(void)
{
	e1000_get_stats(dev, &stats);
	return &stats;
}

static void rings(void)
{
	tail = 0;
	memset(ram(TX_RING), 0, ENTRIES * 16);
	memset(ram(RX_RING), 0, ENTRIES * 16);
	wr(TDBAL, TX_RING);
	wr(TDLEN, ENTRIES * 16);
	wr(TDH, 0);
	wr(TDT, 0);
	wr(TCTL, 2);
	for (unsigned i = 0; i < ENTRIES; i++)
		ram_put(RX_RING + 16 * i, 8, BUFFERS + 2048 * i);
	wr(RDBAL, RX_RING);
	wr(RDLEN, ENTRIES * 16);
	wr(RDH, 0);
	wr(RDT, ENTRIES - 1);
	wr(RCTL, RCTL_EN | BAM);
	wr(IMS, INT_TXDW | INT_LSC | INT_RXT0);
}

static int with(uint32_t features)
{
	nic_machine(features);
	dev = nic_card(&e1000_kind, NIC_SLOT, nic_wire.port);
	nic_plug(NIC_SLOT, 1, 4);
	rings();
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return with(NET_CAN_ALL);
}

static int setup_plain(void **state)
{
	(void)state;
	return with(0);
}

static int teardown(void **state)
{
	(void)state;
	e1000_kind.ops.destroy(dev);
	nic_machine_end();
	return 0;
}

/* --- beside the MAC --- */

static uint16_t bang(unsigned word)
{
	enum { SK = 1, CS = 2, DI = 4, DO = 8, REQ = 0x40, GNT = 0x80 };
	uint32_t bits = 6u << 6 | word, v = 0;

	wr(EECD, REQ);
	assert_true(rd(EECD) & GNT);
	wr(EECD, REQ | CS);
	for (unsigned i = 9; i-- > 0;) {
		uint32_t di = bits >> i & 1 ? DI : 0;
		wr(EECD, REQ | CS | di);
		wr(EECD, REQ | CS | SK | di);
	}
	assert_false(rd(EECD) & DO); /* the dummy bit */
	for (unsigned i = 0; i < 16; i++) {
		wr(EECD, REQ | CS);
		wr(EECD, REQ | CS | SK);
		v = v << 1 | !!(rd(EECD) & DO);
	}
	wr(EECD, 0);
	return (uint16_t)v;
}

static void test_eeprom(void **state)
{
	uint16_t sum = 0;

	(void)state;
	for (unsigned i = 0; i < 64; i++) {
		wr(EERD, i << 8 | 1);
		uint32_t v = rd(EERD);
		assert_true(v & 0x10);
		assert_int_equal(v >> 16, bang(i));
		sum = (uint16_t)(sum + (v >> 16));
		if (i < 3)
			assert_int_equal(v >> 16, nic_mac[2 * i] | nic_mac[2 * i + 1] << 8);
	}
	assert_int_equal(sum, 0xbaba);
	wr(EERD, 200 << 8 | 1);
	assert_int_equal(rd(EERD) >> 16, 0);
}

static uint32_t mdic(unsigned phy, unsigned reg, unsigned op, uint16_t v)
{
	wr(MDIC, op << 26 | phy << 21 | reg << 16 | v);
	assert_true(rd(MDIC) >> 28 & 1);
	return rd(MDIC);
}

static void test_phy(void **state)
{
	(void)state;
	assert_int_equal(mdic(1, 2, 2, 0) & 0xffff, 0x0141);
	assert_int_equal(mdic(1, 3, 2, 0) & 0xfff0, 0x0c20);
	assert_true(mdic(2, 2, 2, 0) >> 30 & 1);
	mdic(1, 2, 1, 0x1234);
	assert_int_equal(mdic(1, 2, 2, 0) & 0xffff, 0x0141);
	mdic(1, 4, 1, 0x01e1);
	assert_int_equal(mdic(1, 4, 2, 0) & 0xffff, 0x01e1);
	assert_true(mdic(1, 1, 2, 0) & 4);
	rd(ICR);
	netport_set_link(nic_wire.port, false);
	assert_false(mdic(1, 1, 2, 0) & 4);
	assert_false(rd(STATUS) & 2);
	assert_int_equal(rd(ICR), INT_LSC);
	netport_set_link(nic_wire.port, true);
	assert_true(rd(STATUS) & 2);
	assert_int_equal(rd(ICR), INT_LSC);
	mdic(1, 0, 1, 0x1940); /* down: both ends see it */
	assert_false(netport_link(nic_wire.port));
	assert_false(rd(STATUS) & 2);
	assert_int_equal(rd(ICR), INT_LSC);
	mdic(1, 0, 1, 0x1140);
	assert_true(netport_link(nic_wire.port));
	assert_int_equal(rd(ICR), INT_LSC);
}

/* --- what is sent --- */

static void put(uint64_t buffer, uint32_t lower, uint32_t upper)
{
	ram_put(TX_RING + 16 * tail, 8, buffer);
	ram_put(TX_RING + 16 * tail + 8, 4, lower);
	ram_put(TX_RING + 16 * tail + 12, 4, upper);
	tail = (tail + 1) % ENTRIES;
}

static bool done(unsigned i)
{
	return ram(TX_RING + 16 * i)[12] & 1;
}

static void test_legacy(void **state)
{
	(void)state;
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 100);
	put(DATA, 20 | IFCS, 0);
	put(DATA + 20, (n - 20) | EOP | IFCS | RS, 0);
	wr(TDT, tail);
	assert_int_equal(nic_wire.frames, 1);
	assert_int_equal(nic_wire.last[0].bytes, n);
	assert_memory_equal(nic_wire.last[0].data, ram(DATA), n);
	assert_true(!done(0) && done(1));
	assert_int_equal(wire_level[NIC_PIN], 1);
	assert_true(rd(ICR) & INT_TXDW);
	assert_int_equal(wire_level[NIC_PIN], 0);
	assert_int_equal(rd(0x4080), 1); /* GPTC, then cleared */
	assert_int_equal(rd(0x4080), 0);
	assert_int_equal(rd(0x4090), n + 4);
	assert_int_equal(rd(0x4094), 0);
	assert_int_equal(rd(0x4090), 0);
	/* Its own CRC: not part of the frame. A checksum by CSS and CSO. */
	put(DATA, (n + 4) | 50 << 16 | EOP | IC | RS, 34 << 8);
	wr(TDT, tail);
	assert_int_equal(nic_wire.last[1].bytes, n);
	assert_int_equal(nic_wire.last[1].meta.csum_start, 34);
	assert_int_equal(nic_wire.last[1].meta.csum_offset, 16);
}

static void context(bool tso, uint32_t payload, unsigned mss, bool ip4)
{
	unsigned l4 = ip4 ? 34 : 54;

	put((uint64_t)(l4 | (l4 + 16) << 8) << 32 | 14 | 24 << 8 | 33 << 16,
	    payload | DEXT | 1 << 24 | (ip4 ? 2 << 24 : 0) | (tso ? TSE : 0),
	    (l4 + 20) << 8 | mss << 16);
}

static void test_tso(void **state)
{
	(void)state;
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 5000);
	context(true, 5000, 1000, true);
	put(DATA, 54 | DTYP_DATA | DEXT | TSE | IFCS, TXSM | IXSM);
	put(DATA + 54, 5000 | DTYP_DATA | DEXT | TSE | IFCS | EOP | RS, TXSM | IXSM);
	n = make_tcp6(ram(DATA + 0x8000), 1, 2, 3000);
	context(true, 3000, 1400, false);
	put(DATA + 0x8000, n | DTYP_DATA | DEXT | TSE | IFCS | EOP | RS, TXSM);
	wr(TDT, tail);
	assert_int_equal(nic_wire.frames, 2);
	assert_int_equal(nic_wire.last[0].meta.gso, NET_GSO_TCP4);
	assert_int_equal(nic_wire.last[0].meta.gso_size, 1000);
	assert_int_equal(nic_wire.last[0].bytes, 5054);
	assert_int_equal(nic_wire.last[1].meta.gso, NET_GSO_TCP6);
	assert_int_equal(nic_wire.last[1].meta.gso_size, 1400);
	assert_int_equal(rd(0x40f8), 2); /* TSCTC */
	assert_int_equal(rd(0x40d4), 5 + 3);
	/* Without TCP, or a segment's size, it is not sent; the guest is told it is over. */
	put(0, DEXT | TSE, 54 << 8);
	put(DATA, 200 | DTYP_DATA | DEXT | TSE | IFCS | EOP | RS, TXSM);
	wr(TDT, tail);
	assert_int_equal(nic_wire.frames, 2);
	assert_int_equal(now()->tx_bad_frames, 1);
	assert_int_equal(rd(TDH), tail);
}

/* The other end has no offloads: whole segments, with right checksums, come. */
static void test_software(void **state)
{
	(void)state;
	make_tcp4(ram(DATA), 1, 2, 2500);
	context(true, 2500, 1000, true);
	put(DATA, 2554 | DTYP_DATA | DEXT | TSE | IFCS | EOP | RS, TXSM | IXSM);
	wr(TDT, tail);
	assert_int_equal(nic_wire.frames, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_true(checksums_right(nic_wire.last[i].data, nic_wire.last[i].bytes));
	/* Both sums of a small frame; the IP header's is this card's own work. */
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 333);
	uint8_t *p = ram(DATA);
	uint16_t pseudo = plain_sum(p + 26, 8, 6 + 20 + 333);
	net_put16(p + 24, 0);
	net_put16(p + 50, pseudo);
	context(false, 0, 0, true);
	put(DATA, n | DTYP_DATA | DEXT | IFCS | EOP | RS, TXSM | IXSM);
	wr(TDT, tail);
	assert_int_equal(nic_wire.frames, 4);
	assert_true(checksums_right(nic_wire.last[3].data, n));
	assert_int_equal(net_get16(p + 24), 0); /* the guest's memory stays */
}

static void test_pieces_and_tags(void **state)
{
	(void)state;
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 946); /* 1000 bytes, in 100 pieces */
	for (unsigned i = 0; i < 100; i++)
		put(DATA + 10 * i, 10 | IFCS | (i == 99 ? EOP | RS : 0), 0);
	wr(TDT, tail);
	assert_int_equal(nic_wire.last[0].bytes, n);
	assert_memory_equal(nic_wire.last[0].data, ram(DATA), n);
	put(DATA, n | EOP | IFCS | RS | VLE, 0x2005u << 16);
	wr(TDT, tail); /* without CTRL.VME: no tag */
	assert_false(nic_wire.last[1].meta.flags & NET_VLAN);
	wr(CTRL, rd(CTRL) | 1u << 30);
	put(DATA, n | EOP | IFCS | RS | VLE, 0x2005u << 16);
	wr(TDT, tail);
	assert_true(nic_wire.last[2].meta.flags & NET_VLAN);
	assert_int_equal(nic_wire.last[2].meta.vlan_tci, 0x2005);
}

static void test_no_room(void **state)
{
	(void)state;
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 10);
	nic_wire.room_for = 2;
	for (unsigned i = 0; i < 60; i++)
		put(DATA, n | EOP | IFCS | RS, 0);
	wr(TDT, tail);
	assert_int_equal(nic_wire.frames, 2);
	assert_int_not_equal(rd(TDH), tail);
	assert_int_equal(now()->tx_waits, 1);
	nic_wire.room_for = ~0u;
	for (unsigned i = 0; i < 8; i++)
		netport_ready(nic_wire.port);
	assert_int_equal(rd(TDH), tail);
	assert_int_equal(nic_wire.frames, 60);
}

static void test_bad_tx(void **state)
{
	(void)state;
	put(NIC_RAM - 10, 100 | EOP | IFCS | RS, 0);
	put(DATA, 5 | EOP | IFCS | RS, 0);
	put(UINT64_MAX - 5, 100 | EOP | IFCS | RS, 0);
	wr(TDT, tail);
	assert_int_equal(nic_wire.frames, 0);
	assert_int_equal(now()->tx_bad_buffers, 2);
	assert_int_equal(now()->tx_bad_frames, 3);
	assert_true(done(0) && done(1) && done(2));
	wr(TDT, ENTRIES);
	assert_int_equal(now()->tx_bad_rings, 1);
	wr(TDBAL, NIC_RAM - 16);
	wr(TDT, 1);
	assert_int_equal(now()->tx_bad_rings, 2);
	/* A ring without an end of a frame is nobody's endless loop. */
	rings();
	for (unsigned i = 0; i < ENTRIES - 1; i++)
		put(DATA, 10 | IFCS, 0);
	wr(TDT, tail);
	assert_int_equal(rd(TDH), 0);
}

/* --- what arrives --- */

static uint8_t frame[9100];

static uint32_t tcp_to(const uint8_t *mac, uint32_t payload)
{
	uint32_t n = make_tcp4(frame, 1, 2, payload);

	memcpy(frame, mac, 6);
	net_put16(frame + 50, 0);
	net_put16(frame + 50,
		  (uint16_t)~plain_sum(frame + 34, n - 34, plain_sum(frame + 26, 8, 6 + n - 34)));
	return n;
}

static const struct net_meta plain = {0};

static void test_receive(void **state)
{
	(void)state;
	uint32_t n = tcp_to(nic_mac, 500);
	wr(RXCSUM, 0x300);
	nic_arrives(frame, n, plain);
	assert_memory_equal(ram(BUFFERS), frame, n);
	assert_int_equal(ram_get(RX_RING + 8, 2), n + 4);
	assert_int_equal(ram_get(BUFFERS + n, 4), crc32(0, frame, n));
	assert_int_equal(ram(RX_RING)[12], 0x63); /* DD EOP TCPCS IPCS */
	assert_int_equal(ram(RX_RING)[13], 0);
	assert_int_equal(rd(RDH), 1);
	assert_true(rd(ICR) & INT_RXT0);
	frame[n - 1] ^= 1;
	nic_arrives(frame, n, plain);
	assert_int_equal(ram(RX_RING + 16)[13], 0x20); /* TCPE */
	/* Without CRC; a short one, padded, whose padding is no part of its checksum. */
	wr(RCTL, RCTL_EN | SECRC);
	n = tcp_to(nic_mac, 0);
	memset(frame + n, 0xee, 10);
	nic_arrives(frame, n + 6, plain);
	assert_int_equal(ram_get(RX_RING + 32 + 8, 2), 60);
	assert_int_equal(ram(RX_RING + 32)[13], 0);
	nic_arrives(frame, n, plain);
	assert_int_equal(ram_get(BUFFERS + 3 * 2048 + 54, 6), 0);
	assert_int_equal(rd(0x4074), 4); /* GPRC */
	wr(RCTL, 0);
	nic_arrives(frame, n, plain);
	assert_int_equal(now()->rx_disabled, 1);
}

static bool passes(const uint8_t *mac)
{
	uint32_t head = rd(RDH);

	memcpy(frame, mac, 6);
	nic_arrives(frame, 100, plain);
	wr(RDT, (rd(RDH) + ENTRIES - 1) % ENTRIES);
	return rd(RDH) != head;
}

static void test_filters(void **state)
{
	static const uint8_t other[6] = {2, 9, 9, 9, 9, 9}, all[6] = {255, 255, 255, 255, 255, 255};
	static const uint8_t group[6] = {1, 0, 0x5e, 0, 0x12, 0x34}, ra3[6] = {2, 0, 0, 0, 0, 3};

	(void)state;
	tcp_to(nic_mac, 46);
	assert_true(passes(nic_mac) && passes(all));
	assert_true(!passes(other) && !passes(group) && !passes(ra3));
	wr(RA + 24, 2);
	wr(RA + 28, 0x80000300);
	assert_true(passes(ra3));
	wr(RCTL, RCTL_EN);
	assert_false(passes(all));
	wr(RCTL, RCTL_EN | UPE);
	assert_true(passes(other) && !passes(group));
	wr(RCTL, RCTL_EN | MPE);
	assert_true(!passes(other) && passes(group));
	for (unsigned mo = 0; mo < 4; mo++) {
		static const unsigned shift[] = {4, 3, 2, 0};
		unsigned hash = 0x3412u >> shift[mo] & 0xfff;
		wr(RCTL, RCTL_EN | mo << 12);
		assert_false(passes(group));
		wr(MTA + 4 * (hash >> 5), 1u << (hash & 31));
		assert_true(passes(group) && !passes(other));
		wr(MTA + 4 * (hash >> 5), 0);
	}
	assert_true(now()->rx_filtered > 0);
}

static void test_tags(void **state)
{
	struct net_meta tag = {.flags = NET_VLAN, .vlan_tci = 0x6007};
	uint8_t inside[200];

	(void)state;
	uint32_t n = tcp_to(nic_mac, 100);
	memcpy(inside, frame, 12);
	memcpy(inside + 12, "\x81\x00\x60\x07", 4);
	memcpy(inside + 16, frame + 12, n - 12);
	wr(RCTL, RCTL_EN | SECRC);
	nic_arrives(frame, n, tag); /* the guest gets it within */
	assert_int_equal(ram_get(RX_RING + 8, 2), n + 4);
	assert_memory_equal(ram(BUFFERS), inside, n + 4);
	wr(CTRL, rd(CTRL) | 1u << 30);
	nic_arrives(frame, n, tag); /* beside */
	nic_arrives(inside, n + 4, plain);
	for (unsigned i = 1; i < 3; i++) {
		assert_int_equal(ram_get(RX_RING + 16 * i + 8, 2), n);
		assert_int_equal(ram_get(RX_RING + 16 * i + 14, 2), 0x6007);
		assert_true(ram(RX_RING + 16 * i)[12] & 8);
		assert_memory_equal(ram(BUFFERS + 2048 * i), frame, n);
	}
	wr(RCTL, RCTL_EN | VFE);
	nic_arrives(frame, n, tag);
	assert_int_equal(rd(RDH), 3);
	wr(VFTA, 1 << 7);
	nic_arrives(frame, n, tag);
	nic_arrives(frame, n, plain);
	assert_int_equal(rd(RDH), 5);
}

static void test_buffers(void **state)
{
	(void)state;
	uint32_t n = tcp_to(nic_mac, 8900);
	nic_arrives(frame, n, plain);
	assert_int_equal(rd(RDH), 0); /* not without RCTL.LPE */
	wr(RCTL, RCTL_EN | LPE);
	nic_arrives(frame, n, plain);
	assert_int_equal(rd(RDH), 5);
	assert_int_equal(ram(RX_RING)[12] & 3, 1);
	assert_int_equal(ram(RX_RING + 64)[12] & 3, 3);
	assert_int_equal(ram_get(RX_RING + 64 + 8, 2), n + 4 - 4 * 2048);
	for (unsigned i = 0, at = 0; at < n; i++, at += 2048)
		assert_memory_equal(ram(BUFFERS + 2048 * i), frame + at,
				    n - at < 2048 ? n - at : 2048);
	/* None left: it waits until the guest gives some. */
	wr(RDT, 6);
	nic_arrives(frame, n, plain);
	assert_int_equal(rd(RDH), 5);
	assert_int_equal(now()->rx_waits, 1);
	wr(RDT, 20);
	assert_int_equal(rd(RDH), 10);
	/* Not in memory: counted. */
	ram_put(RX_RING + 160, 8, UINT64_MAX - 100);
	nic_arrives(frame, 100, plain);
	assert_int_equal(now()->rx_bad_buffers, 1);
	wr(RDBAL, NIC_RAM - 16);
	nic_arrives(frame, 100, plain);
	wr(RDLEN, 0);
	nic_arrives(frame, 100, plain);
	assert_int_equal(now()->rx_bad_rings, 2);
	/* What waits is lost with a reset. */
	rings();
	wr(RDT, 0);
	nic_arrives(frame, 100, plain);
	wr(CTRL, 1 << 26);
	rings();
	assert_int_equal(rd(RDH), 0);
	wr(RDT, 0);
	nic_arrives(frame, 100, plain);
	e1000_kind.ops.reset(dev);
	nic_plug(NIC_SLOT, 1, 4);
	rings();
	assert_int_equal(rd(RDH), 0);
}

/* What the card holds: its rings from their first use till it is disabled, frames never. */
static void test_pins(void **state)
{
	(void)state;
	assert_int_equal(pinned_pages(nic_mem), 0);
	uint32_t n =
		make_tcp4(ram(TX_RING + 0x900), 1, 2, 946); /* beside the ring, in 100 pieces */
	for (unsigned i = 0; i < 100; i++)
		put(TX_RING + 0x900 + 10 * i, 10 | IFCS | (i == 99 ? EOP | RS : 0), 0);
	wr(TDT, tail);
	assert_int_equal(nic_wire.frames, 1);
	assert_int_equal(all_pins(nic_mem), 1);
	assert_int_equal(pins_of(nic_mem, TX_RING), 1);
	ram_put(RX_RING, 8, RX_RING + 0x800);
	nic_arrives(frame, tcp_to(nic_mac, 1000), plain);
	assert_int_equal(rd(RDH), 1);
	assert_int_equal(pins_of(nic_mem, RX_RING), 1);
	assert_int_equal(all_pins(nic_mem), 2);
	/* No room, frames that cannot be, a frame without its end. */
	nic_wire.room_for = 1;
	for (unsigned i = 0; i < 3; i++)
		put(DATA, n | EOP | IFCS | RS, 0);
	wr(TDT, tail);
	assert_int_equal(all_pins(nic_mem), 2);
	nic_wire.room_for = ~0u;
	for (unsigned i = 0; i < 8; i++)
		netport_ready(nic_wire.port);
	put(DATA, n | IFCS, 0);
	put(NIC_RAM - 10, 100 | EOP | IFCS, 0);
	put(DATA, n | IFCS, 0);
	wr(TDT, tail);
	assert_int_equal(all_pins(nic_mem), 2);
	/* A ring that moves, one that is none, and none. */
	wr(RDBAL, RX_RING + 0x2000);
	wr(RDH, 0);
	ram_put(RX_RING + 0x2000, 8, BUFFERS);
	nic_arrives(frame, 100, plain);
	assert_int_equal(pins_of(nic_mem, RX_RING), 0);
	assert_int_equal(pins_of(nic_mem, RX_RING + 0x2000), 1);
	wr(RDBAL, NIC_RAM - 16);
	nic_arrives(frame, 100, plain);
	assert_int_equal(all_pins(nic_mem), 1);
	wr(RDBAL, RX_RING);
	nic_arrives(frame, 100, plain);
	assert_int_equal(all_pins(nic_mem), 2);
	wr(RCTL, 0);
	assert_int_equal(all_pins(nic_mem), 1);
	wr(TCTL, 0);
	assert_int_equal(all_pins(nic_mem), 0);
}

/* --- interrupts and the rest --- */

static void test_throttle(void **state)
{
	(void)state;
	rd(ICR);
	wires_clear();
	wr(ITR, 100); /* 25.6 us */
	wr(ICS, INT_LSC);
	assert_int_equal(wire_rises[NIC_PIN], 1);
	rd(ICR);
	wr(ICS, INT_LSC);
	assert_int_equal(wire_level[NIC_PIN], 0);
	fake_time_pass(25000);
	assert_int_equal(wire_level[NIC_PIN], 0);
	fake_time_pass(1000);
	assert_int_equal(wire_level[NIC_PIN], 1);
	/* However long a driver asks for, it is 50 us. */
	fake_time_pass(1000000);
	wr(ITR, 0xffff);
	rd(ICR);
	wr(ICS, INT_LSC);
	assert_int_equal(wire_level[NIC_PIN], 1);
	rd(ICR);
	wr(ICS, INT_LSC);
	fake_time_pass(49000);
	assert_int_equal(wire_level[NIC_PIN], 0);
	fake_time_pass(1000);
	assert_int_equal(wire_level[NIC_PIN], 1);
	wr(IMC, INT_LSC);
	assert_int_equal(wire_level[NIC_PIN], 0);
	assert_int_equal(rd(ICR), INT_LSC);
	/* TIDV begins anew with each frame, TADV ends it. */
	wr(ITR, 0);
	wr(TIDV, 100);
	wr(TADV, 150);
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 10);
	for (unsigned i = 0; i < 2; i++) {
		put(DATA, n | EOP | IFCS | RS | IDE, 0);
		wr(TDT, tail);
		fake_time_pass(70000);
		assert_false(rd(ICR) & INT_TXDW);
	}
	assert_true(done(0) && done(1));
	fake_time_pass(15000);
	assert_int_equal(wire_level[NIC_PIN], 1);
	assert_int_equal(rd(ICR), INT_TXDW);
}

static void test_reset(void **state)
{
	(void)state;
	wr(RA, 0x12345678);
	wr(RA + 4, 0x80009abc);
	outl(NIC_IO, IMS);
	assert_int_equal(inl(NIC_IO), IMS);
	assert_int_equal(inl(NIC_IO + 4), INT_TXDW | INT_LSC | INT_RXT0);
	outl(NIC_IO, CTRL);
	outl(NIC_IO + 4, rd(CTRL) | 1 << 26);
	assert_int_equal(rd(RCTL), 0);
	assert_int_equal(rd(IMS), 0);
	assert_int_equal(rd(RA), 0x01290c00);
	assert_int_equal(rd(RA + 4), 0x80000302);
	assert_int_equal(bar_read(0, 0x1f000), 0);
	scribble(BUS_MMIO, NIC_BAR, 0x20000, 30000);
	scribble(BUS_MMIO, NIC_BAR, 0x6000, 30000);
	scribble(BUS_PIO, NIC_IO, 64, 1000);
	e1000_kind.ops.reset(dev);
	nic_plug(NIC_SLOT, 1, 4);
	sink_clear(&nic_wire);
	rings();
	test_legacy(state);
}

static void test_state(void **state)
{
	struct sink wire;
	void *other;

	(void)state;
	sink_create(&wire, "other", 0, NULL, false);
	other = nic_card(&e1000_kind, NIC_SLOT + 1, wire.port);
	uint32_t n = tcp_to(nic_mac, 300);
	context(true, 2500, 1000, true);
	wr(TDT, tail);
	nic_arrives(frame, n, plain);
	round_trip(&e1000_kind.ops, dev, other);
	sink_clear(&wire); /* what damaged states sent */
	/* The other goes on, with the context that was loaded. */
	e1000_kind.ops.destroy(dev);
	dev = other;
	nic_plug(NIC_SLOT + 1, 1, 4);
	assert_int_equal(rd(RDH), 1);
	assert_true(rd(ICR) & INT_RXT0);
	assert_int_equal(rd(TDH), 1);
	assert_int_equal(rd(0x4074), 1);
	make_tcp4(ram(DATA), 1, 2, 2500);
	put(DATA, 2554 | DTYP_DATA | DEXT | TSE | IFCS | EOP | RS, TXSM | IXSM);
	wr(TDT, tail);
	assert_int_equal(wire.frames, 3);
	assert_true(checksums_right(wire.last[2].data, wire.last[2].bytes));
	e1000_kind.ops.destroy(other);
	dev = NULL;
	netport_destroy(wire.port);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_eeprom, setup, teardown),
		cmocka_unit_test_setup_teardown(test_phy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_legacy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tso, setup, teardown),
		cmocka_unit_test_setup_teardown(test_software, setup_plain, teardown),
		cmocka_unit_test_setup_teardown(test_pieces_and_tags, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_tx, setup, teardown),
		cmocka_unit_test_setup_teardown(test_receive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_filters, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tags, setup, teardown),
		cmocka_unit_test_setup_teardown(test_buffers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_throttle, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pins, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
