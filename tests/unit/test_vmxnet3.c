/* SPDX-License-Identifier: Apache-2.0 */
/* vmxnet3: activation, rings, offloads, RSS and interrupts, driven as a driver does it. */
#include "dev/vmxnet3/vmxnet3.h"

#include "nic_test.h"

enum { IMR = 0, TXPROD = 0x600, RXPROD = 0x800, RXPROD2 = 0xa00 };
enum { VRRS = 0, UVRS = 8, DSAL = 0x10, DSAH = 0x18, CMD = 0x20, MACL = 0x28, MACH = 0x30 };
enum { ICR = 0x38, ECR = 0x40 };
enum {
	ACTIVATE = 0xcafe0000,
	QUIESCE,
	RESET,
	RX_MODE,
	MAC_FILTERS,
	VLAN_FILTERS,
	FEATURE = 0xcafe0009
};
enum { QUEUE_STATUS = 0xf00d0000, STATS, LINK, PERM_LO, PERM_HI, CONF_INTR = 0xf00d0008 };
/* Offsets in DriverShared and in a queue's descriptor. */
enum { FEATURES = 24, QUEUES_PA = 40, MTU = 56, NUM_TX = 62, NUM_RX, AUTO_MASK = 80, NUM_INTRS };
enum { EVENT_INTR = 82, INTR_CTRL = 108, RX_MODES = 120, MF_LEN = 124, MF_PA = 128, VLANS = 136 };
enum { RSS_LEN = 652, RSS_PA = 656, SHARED_ECR = 696 };
enum { Q_RING = 16, Q_RING2 = 24, Q_COMP = 32, Q_SIZE = 56, Q_SIZE2 = 60, Q_COMP_SIZE = 64 };
enum { Q_INTR = 72, Q_STOPPED = 80, Q_ERROR = 84, Q_STATS = 88, Q_BYTES = 256 };
enum { F_RXCSUM = 1, F_RSS = 2, F_RXVLAN = 4, F_LRO = 8 };
enum { UCAST = 1, MCAST = 2, BCAST = 4, ALL_MULTI = 8, PROMISC = 16 };
enum { SHARED = 0x10000, QUEUES = 0x11000, GROUPS = 0x13000, RSS = 0x14000 };
enum { TX = 0x20000, TXC = 0x21000, DATA = 0x100000, SIZE = 64, RX_QUEUES = 2 };
enum { RX1 = 0x30000, RX2 = 0x40000, RXC = 0x50000, PER_QUEUE = 0x1000 }; /* a page a queue */
enum { HEADS = 0x200000, BODIES = 0x300000, HEAD_BYTES = 1600, BODY_BYTES = 4096 };
enum {
	GEN = 1 << 14,
	EOP = 1 << 12,
	CQ = 1 << 13,
	OM_CSUM = 2 << 10,
	OM_TSO = 3 << 10,
	TI = 1 << 15
};

static void *dev;
static struct vmxnet3_stats stats;
static unsigned tail, txc;
static uint8_t frame[66000];
static const struct net_meta plain = {0};

static uint64_t shared(unsigned at, unsigned bytes)
{
	return ram_get(SHARED + at, bytes);
}

static void share(unsigned at, unsigned bytes, uint64_t v)
{
	ram_put(SHARED + at, bytes, v);
}

static uint32_t command(uint32_t cmd)
{
	bar_write(1, CMD, cmd);
	return bar_read(1, CMD);
}

static const struct vmxnet3_stats *now(void)
{
	vmxnet3_get_stats(dev, &stats);
	return &stats;
}

static void describe(unsigned q, uint64_t ring, uint64_t ring2, uint64_t comp, unsigned intr)
{
	uint64_t d = QUEUES + q * Q_BYTES;

	memset(ram(d), 0, Q_BYTES);
	ram_put(d + Q_RING, 8, ring);
	ram_put(d + Q_RING2, 8, ring2);
	ram_put(d + Q_COMP, 8, comp);
	ram_put(d + Q_SIZE, 4, SIZE);
	ram_put(d + Q_SIZE2, 4, q ? SIZE : 0);
	ram_put(d + Q_COMP_SIZE, 4, q ? 2 * SIZE : SIZE);
	ram_put(d + Q_INTR, 1, intr);
}

static void fill(unsigned q, unsigned ring, unsigned i, unsigned bytes, bool body, bool gen)
{
	uint64_t d = (ring ? RX2 : RX1) + q * PER_QUEUE + 16 * i;
	uint64_t at = (ring ? BODIES : HEADS) + q * 0x80000 + i * 4096;

	ram_put(d, 8, at);
	ram_put(d + 8, 4, bytes | (body ? GEN : 0) | (uint32_t)gen << 31);
}

/* One queue to send, two to receive, as Linux lays them out. */
static void prepare(void)
{
	memset(ram(SHARED), 0, 0x50000);
	tail = txc = 0;
	share(0, 4, 3133079265u);
	share(FEATURES, 8, F_RXCSUM | F_RXVLAN);
	share(QUEUES_PA, 8, QUEUES);
	share(MTU, 4, 1500);
	share(NUM_TX, 1, 1);
	share(NUM_RX, 1, RX_QUEUES);
	share(AUTO_MASK, 1, 1);
	share(NUM_INTRS, 1, 4);
	share(EVENT_INTR, 1, 3);
	share(RX_MODES, 4, UCAST | BCAST);
	describe(0, TX, 0, TXC, 0);
	for (unsigned q = 0; q < RX_QUEUES; q++) {
		describe(1 + q, RX1 + q * PER_QUEUE, RX2 + q * PER_QUEUE, RXC + q * PER_QUEUE,
			 1 + q);
		for (unsigned i = 0; i < SIZE; i++) {
			fill(q, 0, i, HEAD_BYTES, false, i < SIZE - 1);
			fill(q, 1, i, BODY_BYTES, true, i < SIZE - 1);
		}
	}
	bar_write(1, DSAL, SHARED);
	bar_write(1, DSAH, 0);
}

static void start(void)
{
	assert_int_equal(command(ACTIVATE), 0);
	for (unsigned i = 0; i < 4; i++)
		bar_write(0, IMR + 8 * i, 0);
}

static int with(uint32_t features)
{
	nic_machine(features);
	dev = nic_card(&vmxnet3_kind, NIC_SLOT, nic_wire.port);
	nic_plug(NIC_SLOT, 7, 0);
	prepare();
	start();
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
	vmxnet3_kind.ops.destroy(dev);
	nic_machine_end();
	return 0;
}

/* --- what is sent --- */

static void put(uint64_t buffer, uint32_t lower, uint32_t upper)
{
	uint64_t d = TX + 16 * (tail % SIZE);

	ram_put(d, 8, buffer);
	ram_put(d + 12, 4, upper);
	ram_put(d + 8, 4, lower | (tail / SIZE % 2 ? 0 : GEN));
	tail++;
}

static void expect_completion(unsigned index)
{
	uint64_t c = TXC + 16 * (txc % SIZE);

	assert_int_equal(ram_get(c, 4), index);
	assert_int_equal(ram_get(c + 12, 4) >> 31, !(txc / SIZE % 2));
	txc++;
}

static void test_registers(void **state)
{
	(void)state;
	assert_true(bar_read(1, VRRS) & 1);
	assert_int_equal(bar_read(1, UVRS), 1);
	assert_int_equal(command(PERM_LO), 0x01290c00);
	assert_int_equal(command(PERM_HI), 0x0302);
	assert_int_equal(command(LINK), 10000 << 16 | 1);
	assert_int_equal(command(CONF_INTR), 0);
	assert_int_equal(command(0xcafe1234), UINT32_MAX);
	bar_write(1, MACL, 0x44332202);
	bar_write(1, MACH, 0x6655);
	assert_int_equal(bar_read(1, MACL), 0x44332202);
	assert_int_equal(bar_read(1, MACH), 0x6655);
	assert_int_equal(command(PERM_LO), 0x01290c00);
	netport_set_link(nic_wire.port, false);
	assert_int_equal(shared(SHARED_ECR, 4), 4);
	assert_int_equal(command(LINK), 0);
	assert_int_equal(wire_level[NIC_PIN], 1);
	bar_write(1, ECR, 4);
	assert_int_equal(shared(SHARED_ECR, 4), 0);
	assert_int_equal(bar_read(1, ICR), 1);
	assert_int_equal(bar_read(1, ICR), 0);
	assert_int_equal(wire_level[NIC_PIN], 0);
}

static void test_transmit(void **state)
{
	(void)state;
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 1000);
	for (unsigned i = 0; i < 100; i++) { /* more than once around */
		put(DATA, 54, 0);
		put(DATA + 54, n - 54, EOP | CQ);
		bar_write(0, TXPROD, tail % SIZE);
		expect_completion((2 * i + 1) % SIZE);
	}
	assert_int_equal(nic_wire.frames, 100);
	assert_int_equal(nic_wire.last[99].bytes, n);
	assert_memory_equal(nic_wire.last[99].data, ram(DATA), n);
	command(STATS);
	assert_int_equal(ram_get(QUEUES + Q_STATS + 16, 8), 100);
	assert_int_equal(ram_get(QUEUES + Q_STATS + 24, 8), 100 * n);
}

static void test_offloads(void **state)
{
	(void)state;
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 20000);
	put(DATA, 54 | 1448u << 18, 54 | OM_TSO | TI | 0x2009u << 16);
	put(DATA + 54, 0, 54 | OM_TSO); /* 0 is 16384 */
	put(DATA + 54 + 16384, n - 54 - 16384, EOP | CQ);
	n = make_tcp6(ram(DATA + 0x8000), 1, 2, 3000);
	put(DATA + 0x8000, n | 1000u << 18, 74 | OM_TSO | EOP | CQ);
	n = make_tcp4(ram(DATA + 0xa000), 1, 2, 100);
	put(DATA + 0xa000, n | 50u << 18, 34 | OM_CSUM | EOP | CQ);
	bar_write(0, TXPROD, tail);
	assert_int_equal(nic_wire.frames, 3);
	assert_int_equal(nic_wire.last[0].bytes, 20054);
	assert_int_equal(nic_wire.last[0].meta.gso, NET_GSO_TCP4);
	assert_int_equal(nic_wire.last[0].meta.gso_size, 1448);
	assert_int_equal(nic_wire.last[0].meta.vlan_tci, 0x2009);
	assert_int_equal(nic_wire.last[1].meta.gso, NET_GSO_TCP6);
	assert_int_equal(nic_wire.last[2].meta.csum_start, 34);
	assert_int_equal(nic_wire.last[2].meta.csum_offset, 16);
	for (unsigned i = 0; i < 3; i++)
		expect_completion(i + 2);
	assert_int_equal(now()->tx_tso, 2);
}

static void test_software(void **state)
{
	(void)state;
	make_tcp4(ram(DATA), 1, 2, 4000);
	put(DATA, 4054 | 1448u << 18, 54 | OM_TSO | EOP | CQ);
	bar_write(0, TXPROD, tail);
	assert_int_equal(nic_wire.frames, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_true(checksums_right(nic_wire.last[i].data, nic_wire.last[i].bytes));
}

static void test_no_room(void **state)
{
	(void)state;
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 10);
	nic_wire.room_for = 2;
	for (unsigned i = 0; i < 60; i++)
		put(DATA, n, EOP | CQ);
	bar_write(0, TXPROD, tail);
	assert_int_equal(nic_wire.frames, 2);
	assert_int_equal(now()->tx_waits, 1);
	nic_wire.room_for = ~0u;
	for (unsigned i = 0; i < 8; i++)
		netport_ready(nic_wire.port);
	assert_int_equal(nic_wire.frames, 60);
	for (unsigned i = 0; i < 60; i++)
		expect_completion(i);
}

static void test_bad_tx(void **state)
{
	(void)state;
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 10);
	put(NIC_RAM - 5, 100, EOP | CQ);
	put(DATA, 5, EOP | CQ);
	put(DATA, n | 1 << 15 | 1 << 16, EOP | CQ);	   /* another type of descriptor */
	put(DATA, n, EOP | CQ | 1 << 10);		   /* encapsulation */
	put(DATA, n | 20u << 18, 34 | OM_CSUM | EOP | CQ); /* a sum in front of its start */
	put(DATA, n | 0u << 18, 54 | OM_TSO | EOP | CQ);   /* segments of nothing */
	put(DATA, 20 | 100u << 18, 54 | OM_TSO | EOP | CQ);
	bar_write(0, TXPROD, tail);
	assert_int_equal(nic_wire.frames, 0);
	assert_int_equal(now()->tx_bad_frames, 7);
	for (unsigned i = 0; i < 7; i++)
		expect_completion(i);
	/* No end in the whole ring: the queue stops, and the driver hears of it. */
	for (unsigned i = 0; i < SIZE; i++)
		put(DATA, 100, 0);
	bar_write(0, TXPROD, tail);
	assert_int_equal(now()->tx_stops, 1);
	assert_int_equal(shared(SHARED_ECR, 4), 2);
	assert_int_equal(command(QUEUE_STATUS), 1);
	assert_int_equal(ram_get(QUEUES + Q_STOPPED, 1), 1);
	assert_int_equal(ram_get(QUEUES + Q_ERROR, 4), 0x80000000);
	command(RESET);
	prepare();
	start();
	put(DATA, n, EOP | CQ);
	bar_write(0, TXPROD, tail);
	assert_int_equal(nic_wire.frames, 1);
}

static void test_bad_activation(void **state)
{
	static const struct {
		unsigned at, bytes;
		uint64_t v;
	} bad[] = {
		{SHARED + 0, 4, 1},
		{SHARED + NUM_TX, 1, 0},
		{SHARED + NUM_TX, 1, 9},
		{SHARED + NUM_RX, 1, 17},
		{SHARED + NUM_INTRS, 1, 26},
		{SHARED + EVENT_INTR, 1, 4},
		{SHARED + QUEUES_PA, 8, NIC_RAM - 256},
		{SHARED + QUEUES_PA, 8, QUEUES + 1},
		{SHARED + MF_LEN, 2, 6}, /* of a list that is not in memory */
		{SHARED + FEATURES, 8, F_RSS},
		{QUEUES + Q_RING, 8, TX + 16},
		{QUEUES + Q_RING, 8, UINT64_MAX & ~511ull},
		{QUEUES + Q_SIZE, 4, 33},
		{QUEUES + Q_SIZE, 4, 8192},
		{QUEUES + Q_COMP_SIZE, 4, 0},
		{QUEUES + Q_INTR, 1, 4},
		{QUEUES + Q_BYTES + Q_SIZE2, 4, 31},
		{QUEUES + 2 * Q_BYTES + Q_COMP, 8, NIC_RAM - 512},
		{QUEUES + 2 * Q_BYTES + Q_COMP, 8, NIC_RAM},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		prepare();
		share(MF_PA, 8, NIC_RAM);
		ram_put(bad[i].at, bad[i].bytes, bad[i].v);
		assert_int_equal(command(ACTIVATE), UINT32_MAX);
		nic_arrives(frame, 100, plain);
		assert_int_equal(now()->rx_disabled, i + 1);
		bar_write(0, TXPROD, 0);
		assert_int_equal(pinned_pages(nic_mem), 0);
	}
	bar_write(1, DSAL, NIC_RAM);
	assert_int_equal(command(ACTIVATE), UINT32_MAX);
	prepare();
	start();
}

/* --- what arrives --- */

static uint32_t tcp_to_us(uint32_t payload)
{
	uint32_t n = make_tcp4(frame, 1, 2, payload);

	memcpy(frame, nic_mac, 6);
	net_put16(frame + 50, 0);
	net_put16(frame + 50,
		  (uint16_t)~plain_sum(frame + 34, n - 34, plain_sum(frame + 26, 8, 6 + n - 34)));
	return n;
}

static uint64_t rxc(unsigned q, unsigned i)
{
	return RXC + q * PER_QUEUE + 16 * i;
}

static void test_receive(void **state)
{
	(void)state;
	uint32_t n = tcp_to_us(1000);
	nic_arrives(frame, n, plain);
	assert_memory_equal(ram(HEADS), frame, n);
	assert_int_equal(ram_get(rxc(0, 0), 4), 3 << 14);
	assert_int_equal(ram_get(rxc(0, 0) + 8, 4), n);
	assert_int_equal(ram_get(rxc(0, 0) + 12, 4), 1u << 31 | 3 << 24 | 0xad << 16);
	frame[n - 1] ^= 1; /* a wrong sum */
	nic_arrives(frame, n, plain);
	assert_int_equal(ram_get(rxc(0, 1) + 12, 4) >> 16 & 0xff, 0xac);
	struct net_meta tag = {.flags = NET_VLAN | NET_CSUM_GOOD, .vlan_tci = 7};
	nic_arrives(frame, n, tag); /* of no VLAN of ours */
	assert_int_equal(now()->rx_filtered, 1);
	share(VLANS, 4, 1 << 7);
	command(VLAN_FILTERS);
	nic_arrives(frame, n, tag);
	assert_int_equal(ram_get(rxc(0, 2) + 8, 4), n | 1 << 15 | 7 << 16);
	assert_int_equal(ram_get(rxc(0, 2) + 12, 4) >> 16 & 0xff, 0xad);
	share(FEATURES, 8, 0);
	command(FEATURE);
	nic_arrives(frame, n, tag); /* now within, and nothing is checked */
	assert_int_equal(ram_get(rxc(0, 3) + 8, 4), n + 4);
	assert_memory_equal(ram(HEADS + 3 * 4096 + 12), "\x81\x00\x00\x07", 4);
	assert_true(ram_get(rxc(0, 3), 4) & 1 << 30);
}

static bool passes(const uint8_t *mac, uint32_t mode)
{
	uint64_t before = now()->rx_frames;

	share(RX_MODES, 4, mode);
	command(RX_MODE);
	memcpy(frame, mac, 6);
	nic_arrives(frame, 100, plain);
	for (unsigned i = 0; i < SIZE; i++) /* whatever was used is there again */
		fill(0, 0, i, HEAD_BYTES, false, true);
	return now()->rx_frames != before;
}

static void test_filters(void **state)
{
	static const uint8_t other[6] = {2, 9, 9, 9, 9, 9}, all[6] = {255, 255, 255, 255, 255, 255};
	static const uint8_t group[6] = {1, 0, 0x5e, 0, 0x12, 0x34};

	(void)state;
	assert_true(passes(nic_mac, UCAST) && !passes(nic_mac, BCAST));
	assert_true(passes(all, BCAST) && !passes(all, UCAST | ALL_MULTI));
	assert_true(!passes(other, 15) && passes(other, PROMISC));
	assert_true(!passes(group, UCAST | MCAST) && passes(group, ALL_MULTI));
	memcpy(ram(GROUPS + 6), group, 6);
	share(MF_LEN, 2, 12);
	share(MF_PA, 8, GROUPS);
	command(MAC_FILTERS);
	assert_true(passes(group, UCAST | MCAST) && !passes(group, UCAST));
	share(MF_PA, 8, NIC_RAM - 6);
	assert_int_equal(command(MAC_FILTERS), UINT32_MAX);
	assert_true(now()->rx_filtered > 0);
}

/* Frames longer than a buffer: bodies from ring 2, or from ring 1 where they follow a head. */
static void test_pieces(void **state)
{
	(void)state;
	command(QUIESCE);
	prepare();
	share(MTU, 4, 9000);
	for (unsigned i = 0; i < SIZE; i++)
		fill(0, 0, i, 4000, i % 3, i < SIZE - 1);
	start();
	uint32_t n = tcp_to_us(8900);
	nic_arrives(frame, n, plain);	/* three of ring 1 */
	nic_arrives(frame, 100, plain); /* a head; its bodies are passed over */
	nic_arrives(frame, n, plain);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(ram_get(rxc(0, i), 4),
				 i | (i == 0 ? 1 << 15 : 0) | (i == 2 ? 1 << 14 : 0));
		assert_int_equal(ram_get(rxc(0, i) + 8, 4) & 0x3fff, i < 2 ? 4000 : n - 8000);
		assert_memory_equal(ram(HEADS + 4096 * i), frame + 4000 * i,
				    i < 2 ? 4000 : n - 8000);
	}
	assert_int_equal(ram_get(rxc(0, 3), 4), 3 | 3 << 14);
	assert_int_equal(ram_get(rxc(0, 4), 4), 6 | 1 << 15);
	/* Heads only: the rest goes to ring 2, whose completions have the queue's second number. */
	command(QUIESCE);
	prepare();
	share(MTU, 4, 9000);
	start();
	nic_arrives(frame, n, plain);
	assert_int_equal(ram_get(rxc(0, 0), 4), 0 | 1 << 15);
	assert_int_equal(ram_get(rxc(0, 1), 4), 0 | RX_QUEUES << 16);
	assert_int_equal(ram_get(rxc(0, 2), 4), 1 | RX_QUEUES << 16 | 1 << 14);
	assert_memory_equal(ram(BODIES + 4096), frame + HEAD_BYTES + 4096, n - HEAD_BYTES - 4096);
}

static void test_lro(void **state)
{
	struct net_meta meta = {.flags = NET_CSUM_NEEDED,
				.gso = NET_GSO_TCP4,
				.gso_size = 1448,
				.csum_start = 34,
				.csum_offset = 16,
				.header_bytes = 54};

	(void)state;
	uint32_t n = tcp_to_us(10 * 1448);
	nic_arrives(frame, n, meta); /* the guest has not asked for it */
	assert_int_equal(now()->rx_frames, 10);
	command(QUIESCE);
	prepare();
	share(FEATURES, 8, F_RXCSUM | F_LRO);
	start();
	nic_arrives(frame, n, meta);
	assert_int_equal(now()->rx_lro, 1);
	assert_int_equal(ram_get(rxc(0, 0) + 4, 4), 10);
	assert_int_equal(ram_get(rxc(0, 0) + 12, 4), 1u << 31 | 4 << 24 | 0xad << 16 | 1448);
	assert_int_equal(ram_get(rxc(0, 1) + 12, 4), 1u << 31 | 3 << 24 | 0xad << 16);
	assert_memory_equal(ram(BODIES), frame + HEAD_BYTES, BODY_BYTES);
}

static void test_waits(void **state)
{
	(void)state;
	uint32_t n = tcp_to_us(100);
	for (unsigned i = 0; i < SIZE + 5; i++)
		nic_arrives(frame, n, plain);
	assert_int_equal(now()->rx_frames, SIZE - 1);
	assert_int_equal(ram(QUEUES + Q_BYTES)[0], 1); /* updateRxProd */
	fill(0, 0, SIZE - 1, HEAD_BYTES, false, true);
	bar_write(0, RXPROD, 0);
	assert_int_equal(now()->rx_frames, SIZE);
	for (unsigned i = 0; i < 3; i++)
		fill(0, 0, i, HEAD_BYTES, false, false);
	bar_write(0, RXPROD, 3);
	assert_int_equal(now()->rx_frames, SIZE + 3);
	ram_put(RX1 + 16 * 3, 8, UINT64_MAX - 4000);
	ram_put(RX1 + 16 * 3 + 8, 4, 1600);
	bar_write(0, RXPROD, 4);
	assert_int_equal(now()->rx_bad_buffers, 1);
	/* What waits is lost with a reset. */
	nic_arrives(frame, n, plain);
	vmxnet3_kind.ops.reset(dev);
	nic_plug(NIC_SLOT, 7, 0);
	prepare();
	start();
	assert_int_equal(now()->rx_frames, SIZE + 4);
	nic_arrives(frame, n, plain);
	assert_int_equal(now()->rx_frames, SIZE + 5);
}

/* The verification suite of "RSS hash" in Microsoft's documentation. */
/* What the card holds: what the driver shared while the card is active, frames never. */
static void test_pins(void **state)
{
	enum { PAGES = 2 + 2 + 3 * RX_QUEUES }; /* shared, queues; rings */

	(void)state;
	assert_int_equal(all_pins(nic_mem), PAGES);
	/* Frames in the ring's own page: more than once around, and some that cannot be. */
	uint32_t n = make_tcp4(ram(TX + 0x800), 1, 2, 1000);
	for (unsigned i = 0; i < 100; i++) {
		put(TX + 0x800, 54, 0);
		put(TX + 0x800 + 54, n - 54, EOP | CQ);
		bar_write(0, TXPROD, tail % SIZE);
	}
	put(NIC_RAM - 100, 1000, EOP | CQ);
	put(DATA, 5, EOP | CQ);
	put(DATA, 100, 0); /* its end is not there yet */
	bar_write(0, TXPROD, tail % SIZE);
	assert_int_equal(all_pins(nic_mem), PAGES);
	nic_wire.room_for = 0;
	put(DATA, 100, EOP | CQ);
	bar_write(0, TXPROD, tail % SIZE);
	assert_int_equal(all_pins(nic_mem), PAGES);
	nic_wire.room_for = ~0u;
	netport_ready(nic_wire.port);
	ram_put(RX1, 8, RX1 + 0x800);
	for (unsigned i = 0; i < 2 * SIZE; i++) /* till there are no buffers left */
		nic_arrives(frame, tcp_to_us(1000), plain);
	assert_int_equal(now()->rx_waits > 0, 1);
	assert_int_equal(all_pins(nic_mem), PAGES);
	start(); /* again, without an end */
	assert_int_equal(all_pins(nic_mem), PAGES);
	command(QUIESCE);
	assert_int_equal(all_pins(nic_mem), 0);
	start();
	vmxnet3_kind.ops.reset(dev);
	assert_int_equal(all_pins(nic_mem), 0);
}

static void test_rss(void **state)
{
	static const uint8_t key[40] = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
					0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
					0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
					0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};
	static const uint8_t from[4] = {66, 9, 149, 187}, to[4] = {161, 142, 100, 80};

	(void)state;
	command(QUIESCE);
	prepare();
	share(FEATURES, 8, F_RXCSUM | F_RSS);
	share(RSS_LEN, 4, 176);
	share(RSS_PA, 8, RSS);
	ram_put(RSS, 2, 3);
	ram_put(RSS + 2, 2, 1);
	ram_put(RSS + 4, 2, 40);
	ram_put(RSS + 6, 2, 128);
	memcpy(ram(RSS + 8), key, 40);
	ram(RSS + 48)[0x51ccc178 % 128] = 1;
	start();
	uint32_t n = tcp_to_us(100);
	memcpy(frame + 26, from, 4);
	memcpy(frame + 30, to, 4);
	net_put16(frame + 34, 2794);
	net_put16(frame + 36, 1766);
	nic_arrives(frame, n, plain);
	assert_int_equal(ram_get(rxc(1, 0) + 4, 4), 0x51ccc178);
	assert_int_equal(ram_get(rxc(1, 0), 4), 3 << 14 | 1 << 16 | 2 << 26);
	frame[23] = 17; /* UDP: by addresses only */
	nic_arrives(frame, n, plain);
	assert_int_equal(ram_get(rxc(0, 0) + 4, 4), 0x323e8fc2);
	assert_int_equal(ram_get(rxc(0, 0), 4) >> 26 & 15, 1);
	ram_put(RSS + 6, 2, 0);
	assert_int_equal(command(0xcafe0006), UINT32_MAX);
}

/* --- interrupts and the rest --- */

static void test_msix(void **state)
{
	unsigned at = cfg_read(NIC_SLOT, PCI_CAPABILITIES, 1);

	(void)state;
	while (cfg_read(NIC_SLOT, at, 1) != 0x11)
		at = cfg_read(NIC_SLOT, at + 1, 1);
	assert_int_equal(cfg_read(NIC_SLOT, at + 2, 2) & 0x7ff, 24);
	for (unsigned i = 0; i < 25; i++) {
		bar_write(2, 16 * i, 0xfee00000);
		bar_write(2, 16 * i + 8, i);
		bar_write(2, 16 * i + 12, 0);
	}
	cfg_write(NIC_SLOT, at + 2, 2, 0x8000);
	uint32_t n = tcp_to_us(100);
	nic_arrives(frame, n, plain);
	nic_arrives(frame, n, plain);
	assert_int_equal(nic_messages[1], 1); /* masked by itself */
	assert_int_equal(bar_read(0, IMR + 8), 1);
	bar_write(0, IMR + 8, 0);
	assert_int_equal(nic_messages[1], 2);
	bar_write(0, IMR + 8, 0);
	assert_int_equal(nic_messages[1], 2);
	share(INTR_CTRL, 4, 1); /* none at all */
	nic_arrives(frame, n, plain);
	assert_int_equal(nic_messages[1], 2);
	share(INTR_CTRL, 4, 0);
	bar_write(0, IMR + 8, 0);
	assert_int_equal(nic_messages[1], 3);
	make_tcp4(ram(DATA), 1, 2, 10);
	put(DATA, 64, EOP | CQ);
	bar_write(0, TXPROD, tail);
	netport_set_link(nic_wire.port, false);
	assert_int_equal(nic_messages[0], 1);
	assert_int_equal(nic_messages[3], 1);
	assert_int_equal(wire_rises[NIC_PIN], 0);
}

static void test_scribble(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		scribble(BUS_MMIO, NIC_BAR, 0x1000, 500);
		scribble(BUS_MMIO, NIC_BAR + (1 << 20), 0x50, 500);
		for (unsigned k = 0; k < 200; k++)
			ram(SHARED)[rand() % 0x45000] = (uint8_t)rand();
		bar_write(1, DSAL, SHARED);
		bar_write(1, DSAH, 0);
		command(ACTIVATE);
		tcp_to_us(100);
		nic_arrives(frame, 154, plain);
	}
	vmxnet3_kind.ops.reset(dev);
	nic_plug(NIC_SLOT, 7, 0);
	sink_clear(&nic_wire);
	prepare();
	start();
	test_transmit(state);
}

static void test_state(void **state)
{
	struct sink wire;
	void *other;

	(void)state;
	sink_create(&wire, "other", 0, NULL, false);
	other = nic_card(&vmxnet3_kind, NIC_SLOT + 1, wire.port);
	share(MF_LEN, 2, 12);
	share(MF_PA, 8, GROUPS);
	command(MAC_FILTERS);
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 10);
	put(DATA, n, EOP | CQ);
	bar_write(0, TXPROD, tail);
	expect_completion(0);
	n = tcp_to_us(100);
	nic_arrives(frame, n, plain);
	bar_write(1, DSAH, 0x12345678); /* for another activation */
	round_trip(&vmxnet3_kind.ops, dev, other);
	sink_clear(&wire); /* what damaged states sent */
	vmxnet3_kind.ops.destroy(dev);
	dev = other;
	nic_plug(NIC_SLOT + 1, 7, 0);
	put(DATA, 64, EOP | CQ);
	bar_write(0, TXPROD, tail);
	expect_completion(1);
	assert_int_equal(wire.frames, 1);
	struct iovec iov = {frame, n};
	struct net_frame f = {.iov = &iov, .iov_count = 1, .bytes = n};
	netport_send(wire.port, &f, 1);
	assert_int_equal(ram_get(rxc(0, 1), 4), 1 | 3 << 14);
	vmxnet3_kind.ops.destroy(other);
	dev = NULL;
	netport_destroy(wire.port);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_transmit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_offloads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_software, setup_plain, teardown),
		cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_tx, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_activation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_receive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_filters, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lro, setup, teardown),
		cmocka_unit_test_setup_teardown(test_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rss, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_msix, setup, teardown),
		cmocka_unit_test_setup_teardown(test_scribble, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
