/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio network card: rings, chains and buffers as no driver should write them, and what is held. */
#include "virtio_net_test.h"

/* A queue of which the driver has given no rings, or which it does not use. */
static void test_no_queue(void **state)
{
	(void)state;
	wr(STATUS, 1, 3);
	wr(COMMON + 0x08, 4, 1);
	wr(COMMON + 0x0c, 4, 1);
	wr(STATUS, 1, 11);
	wr(STATUS, 1, ALL_OK);
	for (unsigned q = 0; q < 70; q++)
		kick(q);
	nic_arrives(frame, tcp_to_us(1, 100), plain);
	nic_arrives(frame, tcp_to_us(1, 100), plain);
	assert_int_equal(card->v.stats.broken, 0);
	/* Rings that are not in memory. */
	for (unsigned i = 0; i < 3; i++) {
		wr(STATUS, 1, 0);
		wr(STATUS, 1, 3);
		wr(COMMON + 0x20, 8, i == 0 ? NIC_RAM - 16 : desc_at(RX0));
		wr(COMMON + 0x28, 8, i == 1 ? UINT64_MAX - 1 : avail_at(RX0));
		wr(COMMON + 0x30, 8, i == 2 ? NIC_RAM - 4 : used_at(RX0));
		wr(COMMON + 0x1c, 2, 1);
		assert_true(is_broken());
		assert_int_equal(rd(COMMON + 0x1c, 2), 0);
		assert_int_equal(pinned_pages(nic_mem), 0);
	}
	bring_up(0);
	must_send(TX0);
	must_receive();
}

/* --- rings that make no sense --- */

/* Each is about the chain at descriptor 0 of queue q. */
static void circle(unsigned q)
{
	desc(q, 0, DATA, 16, NEXT | (q & 1 ? 0 : WRITE), 1);
	desc(q, 1, DATA, 16, NEXT | (q & 1 ? 0 : WRITE), 0);
	offer(q, 0);
}
static void to_itself(unsigned q)
{
	desc(q, 0, DATA, 16, NEXT | (q & 1 ? 0 : WRITE), 0);
	offer(q, 0);
}
static void empty_circle(unsigned q)
{
	for (unsigned i = 0; i < SIZE; i++)
		desc(q, i, DATA, 0, NEXT | (q & 1 ? 0 : WRITE), (i + 1) % SIZE);
	offer(q, 0);
}
static void number(unsigned q)
{
	offer(q, SIZE);
}
static void next_number(unsigned q)
{
	desc(q, 0, DATA, 16, NEXT, SIZE);
	offer(q, 0);
}
static void too_many(unsigned q)
{
	avail_idx[q] += SIZE;
	offer(q, 0);
}
static void order(unsigned q)
{
	desc(q, 0, DATA, 100, WRITE | NEXT, 1);
	desc(q, 1, DATA, 100, 0, 0);
	offer(q, 0);
}
static void outside(unsigned q)
{
	desc(q, 0, NIC_RAM - 50, 100, q & 1 ? 0 : WRITE, 0);
	offer(q, 0);
}
static void far_outside(unsigned q)
{
	desc(q, 0, UINT64_MAX - 50, 100, q & 1 ? 0 : WRITE, 0);
	offer(q, 0);
}
static void at_a_register(unsigned q)
{
	desc(q, 0, MODERN, 100, q & 1 ? 0 : WRITE, 0);
	offer(q, 0);
}
static void later_outside(unsigned q)
{
	desc(q, 0, DATA, 100, NEXT | (q & 1 ? 0 : WRITE), 1);
	desc(q, 1, NIC_RAM, 100, q & 1 ? 0 : WRITE, 0);
	offer(q, 0);
}
static void endless(unsigned q)
{
	for (unsigned i = 0; i < SIZE; i++)
		desc(q, i, 0, UINT32_MAX, NEXT | (q & 1 ? 0 : WRITE), i + 1);
	offer(q, 0);
}
static void table_length(unsigned q)
{
	desc(q, 0, TABLE, 17, INDIRECT, 0);
	offer(q, 0);
}
static void table_empty(unsigned q)
{
	desc(q, 0, TABLE, 0, INDIRECT, 0);
	offer(q, 0);
}
static void table_outside(unsigned q)
{
	desc(q, 0, NIC_RAM - 16, 32, INDIRECT, 0);
	offer(q, 0);
}
static void table_and_more(unsigned q)
{
	desc(q, 0, TABLE, 16, INDIRECT | NEXT, 1);
	offer(q, 0);
}
static void table_within(unsigned q)
{
	ram_put(TABLE, 8, TABLE);
	ram_put(TABLE + 8, 4, 16);
	ram_put(TABLE + 12, 4, INDIRECT);
	desc(q, 0, TABLE, 16, INDIRECT, 0);
	offer(q, 0);
}
static void table_circle(unsigned q)
{
	ram_put(TABLE, 8, DATA);
	ram_put(TABLE + 8, 4, 16);
	ram_put(TABLE + 12, 4, NEXT | (q & 1 ? 0 : WRITE));
	desc(q, 0, TABLE, 16, INDIRECT, 0);
	offer(q, 0);
}
static void table_number(unsigned q)
{
	ram_put(TABLE, 8, DATA);
	ram_put(TABLE + 8, 4, 16);
	ram_put(TABLE + 12, 4, NEXT | (q & 1 ? 0 : WRITE) | 1 << 16);
	desc(q, 0, TABLE, 16, INDIRECT, 0);
	offer(q, 0);
}

static void test_hostile_rings(void **state)
{
	static void (*const ways[])(unsigned q) = {
		circle,		empty_circle, to_itself,    number,	  next_number,
		too_many,	order,	      outside,	    far_outside,  at_a_register,
		later_outside,	endless,      table_length, table_empty,  table_outside,
		table_and_more, table_within, table_circle, table_number,
	};
	static const unsigned queues[] = {RX0, TX0, CTRL};
	uint64_t broken = 0;

	(void)state;
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		for (unsigned k = 0; k < 3; k++) {
			unsigned q = queues[k];
			bring_up(VIRTIO_F_INDIRECT_DESC | NET_F_MQ | NET_F_CTRL_VQ |
				 NET_F_MRG_RXBUF);
			kick(RX0); /* now frames may come */
			uint64_t pins = all_pins(nic_mem);
			memset(ram(TABLE), 0, 256);
			ways[i](q);
			kick(q);
			if (q == RX0)
				nic_arrives(frame, tcp_to_us(1, 100), plain);
			assert_true(is_broken());
			assert_int_equal(card->v.stats.broken, ++broken);
			assert_int_equal(used_idx(q), 0);
			assert_int_equal(all_pins(nic_mem), pins);
			/* It stands still until it is reset. */
			for (unsigned other = 0; other < QUEUES; other++)
				kick(other);
			nic_arrives(frame, tcp_to_us(1, 100), plain);
			assert_int_equal(card->v.stats.broken, broken);
			bring_up(0);
			must_send(TX0);
			must_receive();
		}
	}
}

/* Buffers to receive by that cannot even hold a header, or are to be read. */
static void test_small_buffers(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		bring_up(NET_F_MRG_RXBUF);
		kick(RX0);
		desc(RX0, 0, buffer(RX0, 0), 11, WRITE, 0);
		desc(RX0, 1, buffer(RX0, 1), 2000, WRITE, 0);
		if (i == 1)
			desc(RX0, 0, buffer(RX0, 0), 2000, 0, 0);
		if (i >= 2) { /* the second of a frame's: empty, or to be read */
			desc(RX0, 0, buffer(RX0, 0), 100, WRITE, 0);
			desc(RX0, 1, buffer(RX0, 1), i == 2 ? 0 : 100, i == 2 ? WRITE : 0, 0);
		}
		offer(RX0, 0);
		offer(RX0, 1);
		uint64_t pins = all_pins(nic_mem);
		nic_arrives(frame, tcp_to_us(1, 1000), plain);
		assert_true(is_broken());
		assert_int_equal(used_idx(RX0), 0);
		assert_int_equal(all_pins(nic_mem), pins);
		bring_up(0);
		must_receive();
	}
}

/* What the card holds: rings while their queues are enabled; frames never, whatever happens. */
static void test_pins(void **state)
{
	enum { PAGES = 3 * QUEUES };

	(void)state;
	bring_up(NET_F_MRG_RXBUF);
	assert_int_equal(all_pins(nic_mem), PAGES);
	must_send(TX0);
	send_with(TX0, (struct vnet_header){0, 9, 0, 0, 0, 0, 0}, 100);
	nic_wire.room_for = 0;
	for (unsigned i = 0; i < 16 + SIZE / 2;
	     i++) /* the cable takes 16, the ring holds the rest */
		send_with(TX0, (struct vnet_header){0}, 100);
	assert_int_equal(card->stats.tx_waits, SIZE / 2);
	assert_int_equal(all_pins(nic_mem), PAGES);
	kick(RX0);
	give(RX0, 0, 100);
	give(RX0, 1, 100);
	nic_arrives(frame, tcp_to_us(1, 1000), plain); /* waits: the two are put back */
	assert_int_equal(card->stats.rx_waits, 1);
	assert_int_equal(all_pins(nic_mem), PAGES);
	wr(STATUS, 1, 0);
	assert_int_equal(all_pins(nic_mem), 0);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_no_queue),
		T(test_hostile_rings),
		T(test_small_buffers),
		T(test_pins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
