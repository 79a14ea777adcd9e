/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio network card: its configuration, the control queue and what it changes, old drivers, state. */
#include "virtio_net_test.h"

#define CONTROL                                                                                    \
	(NET_F_CTRL_VQ | NET_F_CTRL_RX | NET_F_CTRL_RX_EXTRA | NET_F_CTRL_VLAN |                   \
	 NET_F_CTRL_MAC_ADDR | NET_F_GUEST_ANNOUNCE | NET_F_MQ | NET_F_CTRL_GUEST_OFFLOADS |       \
	 NET_F_GUEST_CSUM | NET_F_GUEST_TSO4)
enum { C_RX, C_MAC, C_VLAN, C_ANNOUNCE, C_MQ, C_OFFLOADS, CLASSES };
enum { PROMISC, ALLMULTI, ALLUNI, NOMULTI, NOUNI, NOBCAST };
enum { OK, ERR };
enum { OTHER_SLOT = NIC_SLOT + 1 };

static void test_registers(void **state)
{
	(void)state;
	assert_int_equal(cfg_read(NIC_SLOT, 0, 4), 0x10001af4);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(rd(CONFIG + i, 1), nic_mac[i]);
	assert_int_equal(rd(CONFIG + 6, 2), VNET_STATUS_LINK_UP);
	assert_int_equal(rd(CONFIG + 8, 2), 2); /* pairs, one a vCPU */
	assert_int_equal(rd(COMMON + 0x12, 2), QUEUES);
	bring_up(NET_F_STATUS);
	netport_set_link(nic_wire.port, false);
	assert_int_equal(rd(CONFIG + 6, 2), 0);
	assert_int_equal(wire_level[NIC_PIN], 1);
	assert_int_equal(rd(ISR, 1), 2);
	netport_set_link(nic_wire.port, true);
	assert_int_equal(rd(CONFIG + 6, 2), VNET_STATUS_LINK_UP);
	assert_int_equal(rd(ISR, 1), 2);
	/* The address is changed by a command, not here. */
	wr(CONFIG, 1, 0x22);
	wr(CONFIG + 8, 2, 7);
	assert_int_equal(rd(CONFIG, 1), nic_mac[0]);
	assert_int_equal(rd(CONFIG + 8, 2), 2);
}

/* --- commands --- */

static const uint8_t own[6] = {0x00, 0x0c, 0x29, 1, 2, 3}, other[6] = {2, 9, 9, 9, 9, 9};
static const uint8_t group[6] = {1, 0, 0x5e, 0, 0x12, 0x34},
		     all[6] = {255, 255, 255, 255, 255, 255};

/* Commands that are cut off, too long, of no such kind or of what was not agreed on are refused and
 * change nothing; the queue goes on. */
static void test_refused_commands(void **state)
{
	static const struct {
		unsigned class, cmd;
		uint32_t bytes;
		uint8_t data[14];
	} bad[] = {
		{C_RX, PROMISC, 0, {0}},
		{C_RX, PROMISC, 2, {1, 0}},
		{C_RX, PROMISC, 1, {2}},
		{C_RX, NOBCAST + 1, 1, {1}},
		{C_RX, 255, 1, {1}},
		{C_MAC, 0, 0, {0}},
		{C_MAC, 0, 3, {0}},
		{C_MAC, 0, 4, {0}},			  /* no second table */
		{C_MAC, 0, 8, {1}},			  /* an entry that is not there */
		{C_MAC, 0, 8, {255, 255, 255, 255}},	  /* very many of them */
		{C_MAC, 0, 12, {0x56, 0x55, 0x55, 0x55}}, /* 6 times as many is 4 in 32 bits */
		{C_MAC, 0, 11, {0, 0, 0, 0, 1, 0, 0, 0}},
		{C_MAC, 1, 5, {2, 1, 1, 1, 1}},
		{C_MAC, 1, 7, {2, 1, 1, 1, 1, 1, 1}},
		{C_MAC, 1, 6, {1, 1, 1, 1, 1, 1}}, /* a group's */
		{C_MAC, 2, 6, {2, 1, 1, 1, 1, 1}},
		{C_VLAN, 0, 1, {7}},
		{C_VLAN, 0, 2, {0, 0x10}}, /* 4096 */
		{C_VLAN, 2, 2, {7, 0}},
		{C_ANNOUNCE, 1, 0, {0}},
		{C_MQ, 0, 1, {1}},
		{C_MQ, 0, 2, {0, 0}},
		{C_MQ, 0, 2, {3, 0}},
		{C_MQ, 0, 2, {0, 0x80}},
		{C_MQ, 1, 2, {2, 0}},
		{C_OFFLOADS, 0, 4, {2}},
		{C_OFFLOADS, 0, 8, {0, 1}}, /* GUEST_TSO6: not agreed on */
		{C_OFFLOADS, 0, 8, {1}},    /* no offload of this direction */
		{C_OFFLOADS, 1, 8, {2}},
		{CLASSES, 0, 0, {0}},
		{255, 255, 14, {0}},
	};
	unsigned count = sizeof(bad) / sizeof(bad[0]);

	(void)state;
	bring_up(CONTROL);
	kick(RX0);
	struct vnet_filter before = card->filter;
	uint64_t offloads = card->offloads;
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(command(bad[i].class, bad[i].cmd, bad[i].data, bad[i].bytes), ERR);
		assert_int_equal(card->stats.commands_refused, i + 1);
	}
	assert_memory_equal(&card->filter, &before, sizeof(before));
	assert_int_equal(card->offloads, offloads);
	assert_int_equal(card->pairs_used, 1);
	/* Half a command, and a very long one. */
	desc(CTRL, 5, DATA, 1, NEXT, 6);
	desc(CTRL, 6, HEADER, 1, WRITE, 0);
	*ram(HEADER) = 0xff;
	offer(CTRL, 5);
	kick(CTRL);
	take_used(CTRL, NULL);
	assert_int_equal(*ram(HEADER), ERR);
	desc(CTRL, 5, DATA, 1 << 20, NEXT, 6);
	*ram(HEADER) = 0xff;
	memset(ram(DATA), 0, 100);
	offer(CTRL, 5);
	kick(CTRL);
	take_used(CTRL, NULL);
	assert_int_equal(*ram(HEADER), ERR);
	assert_int_equal(card->v.stats.broken, 0);
	/* Nothing of it was agreed on. */
	bring_up(NET_F_CTRL_VQ | NET_F_MQ);
	static const uint8_t one[8] = {1}, tables[8] = {0};
	assert_int_equal(command(C_RX, PROMISC, one, 1), ERR);
	assert_int_equal(command(C_RX, NOUNI, one, 1), ERR);
	assert_int_equal(command(C_MAC, 0, tables, 8), ERR);
	assert_int_equal(command(C_MAC, 1, other, 6), ERR);
	assert_int_equal(command(C_VLAN, 0, one, 2), ERR);
	assert_int_equal(command(C_ANNOUNCE, 0, NULL, 0), ERR);
	assert_int_equal(command(C_OFFLOADS, 0, tables, 8), ERR);
	assert_int_equal(command(C_MQ, 0, one, 2), OK);
	/* There is no control queue, or it is another one. */
	bring_up(NET_F_MQ);
	assert_int_equal(command(C_MQ, 0, one, 2), -1);
	bring_up(NET_F_CTRL_VQ | NET_F_CTRL_RX);
	assert_int_equal(command_on(CTRL, C_RX, PROMISC, one, 1, 0), -1);
	assert_int_equal(command_on(CTRL_WITHOUT_MQ, C_RX, PROMISC, one, 1, 0), OK);
	assert_int_equal(command_on(CTRL_WITHOUT_MQ, C_MQ, 0, one, 2, 0), ERR);
	/* No place for an answer. */
	desc(CTRL_WITHOUT_MQ, 0, DATA, 3, 0, 0);
	offer(CTRL_WITHOUT_MQ, 0);
	kick(CTRL_WITHOUT_MQ);
	assert_true(is_broken());
	bring_up(CONTROL);
	assert_int_equal(command(C_RX, PROMISC, one, 1), OK);
}

/* Wherever the driver cuts a command in two, it is the same command. */
static void test_split_commands(void **state)
{
	uint8_t tables[4 + 6 + 4 + 6] = {1, 0, 0, 0, [10] = 1};

	(void)state;
	memcpy(tables + 4, other, 6);
	memcpy(tables + 14, group, 6);
	for (uint32_t cut = 1; cut < sizeof(tables) + 2; cut++) {
		bring_up(CONTROL);
		assert_int_equal(command_on(CTRL, C_MAC, 0, tables, sizeof(tables), cut), OK);
		assert_int_equal(card->filter.macs[0], 1);
		assert_int_equal(card->filter.macs[1], 1);
		assert_memory_equal(card->filter.mac[0][0], other, 6);
		assert_memory_equal(card->filter.mac[1][0], group, 6);
	}
}

static bool passes(const uint8_t *mac)
{
	unsigned before = used_idx(RX0);

	tcp_to_us(1, 100);
	memcpy(frame, mac, 6);
	give(RX0, before % SIZE, VBUF_BYTES);
	kick(RX0);
	nic_arrives(frame, 154, plain);
	return used_idx(RX0) != before;
}

static void mode(unsigned which, uint8_t on)
{
	assert_int_equal(command(C_RX, which, &on, 1), OK);
}

static void test_filters(void **state)
{
	static const uint8_t no_tables[8] = {0};

	(void)state;
	bring_up(CONTROL);
	/* Before the driver asks for a filter it gets everything. */
	assert_true(passes(own) && passes(other) && passes(group) && passes(all));
	mode(PROMISC, 0);
	assert_true(passes(own) && !passes(other) && !passes(group) && passes(all));
	mode(ALLUNI, 1);
	assert_true(passes(other) && !passes(group));
	mode(NOUNI, 1);
	assert_true(!passes(own) && !passes(other));
	mode(NOUNI, 0);
	mode(ALLUNI, 0);
	mode(ALLMULTI, 1);
	assert_true(passes(group) && !passes(other));
	mode(NOMULTI, 1);
	assert_true(!passes(group) && passes(all));
	mode(NOBCAST, 1);
	assert_true(!passes(all));
	mode(PROMISC, 1);
	assert_true(passes(own) && passes(other) && passes(group) && passes(all));
	for (unsigned which = 0; which <= NOBCAST; which++)
		mode(which, 0);
	/* The tables. */
	uint8_t tables[20] = {1, 0, 0, 0, [10] = 1};
	memcpy(tables + 4, other, 6);
	memcpy(tables + 14, group, 6);
	assert_int_equal(command(C_MAC, 0, tables, sizeof(tables)), OK);
	assert_true(passes(own) && passes(other) && passes(group));
	assert_int_equal(command(C_MAC, 0, no_tables, 8), OK);
	assert_true(passes(own) && !passes(other) && !passes(group));
	/* More than there is room for in the card: all of the kind, and only of it. */
	static uint8_t many[8 + (VNET_MACS + 1) * 6];
	many[0] = VNET_MACS + 1;
	assert_int_equal(command(C_MAC, 0, many, sizeof(many)), OK);
	assert_true(passes(other) && !passes(group));
	many[0] = VNET_MACS;
	assert_int_equal(command(C_MAC, 0, many, sizeof(many) - 6), OK);
	assert_true(!passes(other) && !passes(group));
	/* More than are looked at of a command. */
	static uint8_t huge[8 + 2000 * 6];
	net_put16(huge, 2000);
	huge[0] = 2000 & 255, huge[1] = 2000 >> 8;
	assert_int_equal(command(C_MAC, 0, huge, sizeof(huge)), OK);
	assert_true(passes(other) && passes(group));
	assert_int_equal(command(C_MAC, 0, no_tables, 8), OK);
	assert_true(!passes(other) && !passes(group));
	/* What is looked at ends just where the second table begins, or within its count. */
	for (unsigned less = 0; less < 2; less++) {
		unsigned entries = (VNET_CTRL_BYTES - 4) / 6 - less;
		memset(huge, 0, sizeof(huge));
		huge[0] = entries & 255, huge[1] = (uint8_t)(entries >> 8);
		assert_int_equal(command(C_MAC, 0, huge, 8 + entries * 6), OK);
		assert_true(passes(other) && passes(group) == !less);
	}
}

static void test_address(void **state)
{
	uint8_t given[6], used[6];

	(void)state;
	bring_up(CONTROL);
	mode(PROMISC, 0);
	assert_int_equal(command(C_MAC, 1, other, 6), OK);
	assert_true(passes(other) && !passes(own));
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(rd(CONFIG + i, 1), other[i]);
	assert_true(netport_peer_mac(nic_wire.port, given, used));
	assert_memory_equal(given, own, 6);
	assert_memory_equal(used, other, 6);
	/* A reset gives it the address it was made with. */
	bring_up(CONTROL);
	kick(RX0);
	mode(PROMISC, 0);
	assert_true(passes(own) && !passes(other));
	assert_true(netport_peer_mac(nic_wire.port, given, used));
	assert_memory_equal(used, own, 6);
}

static bool passes_tagged(unsigned tci)
{
	unsigned before = used_idx(RX0);

	tcp_to_us(1, 100);
	net_put16(frame + 12, ETH_VLAN);
	net_put16(frame + 14, (uint16_t)tci);
	give(RX0, before % SIZE, VBUF_BYTES);
	kick(RX0);
	nic_arrives(frame, 154, plain);
	return used_idx(RX0) != before;
}

static void test_vlans(void **state)
{
	static const uint8_t seven[2] = {7}, last[2] = {0xff, 0x0f};

	(void)state;
	bring_up(CONTROL & ~NET_F_CTRL_VLAN);
	assert_true(passes_tagged(7));
	bring_up(CONTROL);
	assert_true(!passes_tagged(7) && passes(own));
	assert_int_equal(command(C_VLAN, 0, seven, 2), OK);
	assert_int_equal(command(C_VLAN, 0, last, 2), OK);
	assert_true(passes_tagged(7) && passes_tagged(0xf007) && passes_tagged(4095));
	assert_true(!passes_tagged(8) && !passes_tagged(0));
	assert_int_equal(command(C_VLAN, 1, seven, 2), OK);
	assert_true(!passes_tagged(7) && passes_tagged(4095));
	/* A tag that the cable took out is put in before. */
	unsigned before = used_idx(RX0);
	give(RX0, before % SIZE, VBUF_BYTES);
	uint32_t n = tcp_to_us(1, 100), len;
	nic_arrives(frame, n, (struct net_meta){.flags = NET_VLAN, .vlan_tci = 0x2fff});
	used_seen[RX0] = before;
	take_used(RX0, &len);
	assert_int_equal(len, n + 4 + 12);
}

/* A flow is received by the pair that sends it; without a second pair, or its buffers, by none. */
static void test_pairs(void **state)
{
	static const uint8_t one[2] = {1}, two[2] = {2};

	(void)state;
	bring_up(CONTROL);
	give_all(RX0, VBUF_BYTES);
	give_all(RX1, VBUF_BYTES);
	uint32_t n;
	assert_int_equal(command(C_MQ, 0, two, 2), OK);
	assert_int_equal(card->pairs_used, 2);
	for (unsigned q = TX0; q <= TX1; q += 2) {
		n = make_tcp4(ram(DATA), 2, 1, 100); /* as answers to what tcp_to_us makes */
		uint16_t port = net_get16(ram(DATA + 34));
		net_put16(ram(DATA + 34), net_get16(ram(DATA + 36)));
		net_put16(ram(DATA + 36), port);
		send_with(q, (struct vnet_header){0}, n);
		unsigned a = used_idx(RX0), b = used_idx(RX1);
		nic_arrives(frame, tcp_to_us(1, 100), plain);
		assert_int_equal(used_idx(RX0) - a, q == TX0);
		assert_int_equal(used_idx(RX1) - b, q == TX1);
	}
	/* Several at once for both: each where it belongs, in order. */
	struct iovec iov[6];
	static uint8_t flow[6][154];
	struct net_frame f[6];
	for (unsigned i = 0; i < 6; i++) {
		n = tcp_to_us(i & 1 ? 1 : 77, 100);
		memcpy(flow[i], frame, n);
		flow[i][n - 1] = (uint8_t)i;
		iov[i] = (struct iovec){flow[i], n};
		f[i] = (struct net_frame){.iov = &iov[i], .iov_count = 1, .bytes = n};
	}
	unsigned a = used_idx(RX0), b = used_idx(RX1);
	assert_int_equal(netport_send(nic_wire.port, f, 6), 6);
	assert_int_equal(used_idx(RX0) - a, 3);
	assert_int_equal(used_idx(RX1) - b, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(*ram(buffer(RX0, a + i) + 12 + n - 1), 2 * i);
		assert_int_equal(*ram(buffer(RX1, b + i) + 12 + n - 1), 2 * i + 1);
	}
	/* Back to one pair. */
	assert_int_equal(command(C_MQ, 0, one, 2), OK);
	a = used_idx(RX0);
	nic_arrives(frame, tcp_to_us(1, 100), plain);
	assert_int_equal(used_idx(RX0) - a, 1);
	/* A reset forgets who sent what. */
	bring_up(CONTROL);
	give_all(RX0, VBUF_BYTES);
	assert_int_equal(command(C_MQ, 0, two, 2), OK);
	nic_arrives(frame, tcp_to_us(1, 100), plain);
	assert_int_equal(used_idx(RX0), 1);
	/* A pair of which one half was never set up. */
	wr(STATUS, 1, 0);
	wr(STATUS, 1, 3);
	wr(COMMON + 0x0c, 4, (uint32_t)CONTROL);
	wr(COMMON + 0x08, 4, 1);
	wr(COMMON + 0x0c, 4, 1);
	wr(STATUS, 1, 11);
	for (unsigned q = 0; q < QUEUES; q++)
		if (q != RX1)
			enable_queue(q);
	wr(STATUS, 1, ALL_OK);
	give_all(RX0, VBUF_BYTES);
	assert_int_equal(command(C_MQ, 0, two, 2), OK);
	must_send(TX1);
	make_tcp4(ram(DATA), 2, 1, 100);
	net_put16(ram(DATA + 34), 80);
	net_put16(ram(DATA + 36), 1000);
	send_with(TX1, (struct vnet_header){0}, 154);
	nic_arrives(frame, tcp_to_us(1, 100), plain);
	assert_int_equal(used_idx(RX0), 0);
	assert_int_equal(card->v.stats.broken, 0);
}

/* What the driver takes changes while it runs. */
static void test_offload_command(void **state)
{
	static const uint8_t none[8] = {0}, sums[8] = {2}, both[8] = {0x82};
	const struct net_meta lro = {.flags = NET_CSUM_NEEDED,
				     .gso = NET_GSO_TCP4,
				     .gso_size = 500,
				     .csum_start = 34,
				     .csum_offset = 16};
	const struct {
		const uint8_t *set;
		unsigned frames, flags;
	} steps[] = {{both, 1, VNET_HDR_NEEDS_CSUM}, {sums, 2, VNET_HDR_NEEDS_CSUM}, {none, 2, 0}};

	(void)state;
	bring_up(CONTROL);
	give_all(RX0, VBUF_BYTES);
	/* Longer than one of the segments, not longer than a frame may be without mergeable ones. */
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(command(C_OFFLOADS, 0, steps[i].set, 8), OK);
		unsigned before = used_idx(RX0);
		nic_arrives(frame, tcp_to_us(1, 1000), lro);
		assert_int_equal(used_idx(RX0) - before, steps[i].frames);
		assert_int_equal(ram_get(buffer(RX0, before), 1), steps[i].flags);
	}
}

/* --- old drivers, states --- */

/* Legacy: a header of ten bytes, the address set byte by byte, a queue of one page after another. */
static void test_legacy(void **state)
{
	enum { PAGE = 0x80000, NO_BUFFERS = 10 };

	(void)state;
	outb(LEGACY + 0x12, 3);
	assert_true(inl(LEGACY) & NET_F_MAC);
	outl(LEGACY + 4, 0);
	outw(LEGACY + 0x0e, TX0);
	unsigned size = inw(LEGACY + 0x0c);
	assert_int_equal(size, VNET_QUEUE_SIZE);
	outl(LEGACY + 8, PAGE >> 12);
	outb(LEGACY + 0x12, 7);
	for (unsigned i = 0; i < 6; i++)
		outb((uint16_t)(LEGACY + 0x14 + i), other[i]);
	outb(LEGACY + 0x14 + 6, 0x55); /* the status is not the driver's */
	assert_int_equal(inb(LEGACY + 0x14 + 6), VNET_STATUS_LINK_UP);
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 100);
	memset(ram(HEADER), 0, NO_BUFFERS);
	ram_put(PAGE, 8, HEADER);
	ram_put(PAGE + 8, 8, NO_BUFFERS | UINT64_C(0x10001) << 32);
	ram_put(PAGE + 16, 8, DATA);
	ram_put(PAGE + 24, 8, n);
	ram_put(PAGE + 16 * size + 2, 2, 1);
	outw(LEGACY + 0x10, TX0);
	assert_int_equal(nic_wire.frames, 1);
	assert_int_equal(nic_wire.last[0].bytes, n);
	uint8_t given[6], used[6];
	assert_true(netport_peer_mac(nic_wire.port, given, used));
	assert_memory_equal(used, other, 6);
}

/* Saved with a frame before the card, commands behind it and chains not noticed yet. */
static void test_state(void **state)
{
	static const uint8_t two[2] = {2};
	const struct dev_ops *ops = &virtio_net_kind.ops;
	struct sink wire;
	size_t len, again_len;
	unsigned differences = 0;

	(void)state;
	sink_create(&wire, "other", NET_CAN_ALL, NULL, true);
	struct virtio_net *copy = nic_card(&virtio_net_kind, OTHER_SLOT, wire.port);
	bring_up(CONTROL | NET_F_MRG_RXBUF);
	kick(RX0);
	mode(PROMISC, 0);
	assert_int_equal(command(C_MAC, 1, other, 6), OK);
	assert_int_equal(command(C_MQ, 0, two, 2), OK);
	assert_int_equal(command(C_VLAN, 0, two, 2), OK);
	must_send(TX0);
	restore_damaged(ops, card, copy);
	uint8_t *bytes = state_of(ops, card, &len), *again;
	assert_int_equal(restore(ops, copy, bytes, len), 0);
	again = state_of(ops, copy, &again_len);
	assert_int_equal(len, again_len);
	/* A restore says itself that the configuration changed: the status, the count of changes
	 * and the interrupt. All else is as it was. */
	for (size_t i = 0; i < len; i++)
		differences += bytes[i] != again[i];
	assert_int_equal(differences, 3);
	free(bytes);
	free(again);
	while (fake_loop_run())
		;
	sink_clear(&wire); /* what damaged states sent */
	/* The notification of this one went to the old card. */
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 100);
	memset(ram(HEADER), 0, 12);
	desc(TX0, 4, HEADER, 12, NEXT, 5);
	desc(TX0, 5, DATA, n, 0, 0);
	offer(TX0, 4);
	bytes = state_of(ops, card, &len);
	ops->destroy(card);
	card = copy;
	assert_int_equal(restore(ops, copy, bytes, len), 0);
	free(bytes);
	plug(OTHER_SLOT);
	while (fake_loop_run())
		;
	assert_int_equal(wire.frames, 1);
	assert_int_equal(wire.last[0].bytes, n);
	assert_int_equal(card->pairs_used, 2);
	assert_memory_equal(card->filter.own, other, 6);
	assert_true(!card->filter.promiscuous && card->filter.vlan[0] == 4);
	/* Whoever was moved says where it is now, and is asked to till it has. */
	assert_int_equal(rd(CONFIG + 6, 2), VNET_STATUS_LINK_UP | VNET_STATUS_ANNOUNCE);
	assert_int_equal(command(C_ANNOUNCE, 0, NULL, 0), OK);
	assert_int_equal(rd(CONFIG + 6, 2), VNET_STATUS_LINK_UP);
	/* Frames come to it, too. */
	struct iovec iov = {frame, tcp_to_us(1, 100)};
	memcpy(frame, other, 6);
	struct net_frame f = {.iov = &iov, .iov_count = 1, .bytes = (uint32_t)iov.iov_len};
	give(RX0, 0, VBUF_BYTES);
	kick(RX0);
	assert_int_equal(netport_send(wire.port, &f, 1), 1);
	assert_int_equal(used_idx(RX0), 1);
	ops->destroy(card);
	netport_destroy(wire.port);
	card = nic_card(&virtio_net_kind, NIC_SLOT, nic_wire.port);
}

static void test_random(void **state)
{
	static const unsigned parts[] = {0x38, 0x1004, 0x200a, 0x3014};

	(void)state;
	srand(3);
	for (unsigned i = 0; i < 150; i++) {
		bring_up(((uint64_t)rand() << 16 ^ (uint64_t)rand()) &
			 (CONTROL | NET_F_MRG_RXBUF | NET_F_CSUM | NET_F_HOST_TSO4 |
			  VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX));
		for (unsigned q = 0; q < QUEUES; q++)
			for (unsigned k = 0; k < 30; k++)
				*ram(desc_at(q) + (unsigned)rand() % RING_BYTES) = (uint8_t)rand();
		for (unsigned k = 0; k < 40; k++) {
			unsigned q = (unsigned)rand() % QUEUES, at = (unsigned)rand() % SIZE;
			desc(q, at, (uint64_t)rand() % (NIC_RAM + 0x1000), (uint32_t)rand() % 3000,
			     (unsigned)rand() % 8, (unsigned)rand() % (SIZE + 1));
			offer(q, at);
			kick(q);
			nic_arrives(frame, tcp_to_us((uint8_t)k, (uint32_t)rand() % 3000), plain);
		}
		scribble(BUS_MMIO, MODERN, parts[i % 4], 50);
		scribble(BUS_PIO, LEGACY, 0x80, 50);
		fake_loop_run();
		plug(NIC_SLOT);
	}
	netport_set_link(nic_wire.port, true);
	bring_up(0);
	kick(RX0);
	memset(ram(RINGS), 0, 5 * RING_BYTES);
	must_send(TX0);
	wr(STATUS, 1, 0);
	assert_int_equal(held_pages(nic_mem), 0);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers), T(test_refused_commands), T(test_split_commands),
		T(test_filters),   T(test_address),	     T(test_vlans),
		T(test_pairs),	   T(test_offload_command),  T(test_legacy),
		T(test_state),	   T(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
