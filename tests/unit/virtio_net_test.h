/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_VIRTIO_NET_TEST_H
#define HANOK_TESTS_VIRTIO_NET_TEST_H

#include "dev/virtio/net.h"
#include "dev/virtio/net_internal.h"
#include "fake_loop.h"
#include "nic_test.h"

/*
 * What the tests of the virtio network card share: a driver of two pairs of queues and a control
 * queue, each with SIZE descriptors and a buffer of VBUF_BYTES for each.
 */
enum { RX0, TX0, RX1, TX1, CTRL, QUEUES, CTRL_WITHOUT_MQ = 2 };
enum { SIZE = 16, VBUF_BYTES = 2048 };
enum { MODERN = NIC_BAR + (4 << 20), COMMON = MODERN, ISR = MODERN + 0x1000 };
enum { CONFIG = MODERN + 0x2000, NOTIFY = MODERN + 0x3000, LEGACY = NIC_IO };
enum { STATUS = COMMON + 0x14, ALL_OK = 15, NEEDS_RESET = 64 };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
/* Places in RAM; HEADER and TABLE are of no queue. */
enum { RINGS = 0x10000, RING_BYTES = 0x4000, HEADER = 0x30000, TABLE = 0x40000, DATA = 0x200000 };
enum { BUFFERS = 0x100000 };

static struct virtio_net *card;
static unsigned avail_idx[QUEUES], used_seen[QUEUES];
static uint8_t frame[66000];
static const struct net_meta plain = {0};

static inline uint64_t rd(uint64_t at, unsigned size)
{
	return bus_in(BUS_MMIO, at, size) &
	       (size == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * size) - 1);
}

static inline void wr(uint64_t at, unsigned size, uint64_t v)
{
	bus_out(BUS_MMIO, at, size, v);
}

static inline uint64_t desc_at(unsigned q)
{
	return RINGS + q * RING_BYTES;
}

static inline uint64_t avail_at(unsigned q)
{
	return desc_at(q) + 0x1000;
}

static inline uint64_t used_at(unsigned q)
{
	return desc_at(q) + 0x2000;
}

static inline uint64_t buffer(unsigned q, unsigned i)
{
	return BUFFERS + (q * SIZE + i) * VBUF_BYTES;
}

static inline void desc(unsigned q, unsigned i, uint64_t gpa, uint32_t len, unsigned flags,
			unsigned next)
{
	uint64_t at = desc_at(q) + 16 * (uint64_t)i;

	ram_put(at, 8, gpa);
	ram_put(at + 8, 4, len);
	ram_put(at + 12, 4, flags | next << 16);
}

static inline void offer(unsigned q, unsigned head)
{
	ram_put(avail_at(q) + 4 + 2 * (avail_idx[q] % SIZE), 2, head);
	ram_put(avail_at(q) + 2, 2, ++avail_idx[q]);
}

static inline void kick(unsigned q)
{
	wr(NOTIFY + 4 * q, 2, q);
}

static inline unsigned used_idx(unsigned q)
{
	return (unsigned)ram_get(used_at(q) + 2, 2);
}

/* The next chain that was given back: its head; *len is what was written to it. */
static inline unsigned take_used(unsigned q, uint32_t *len)
{
	uint64_t at = used_at(q) + 4 + 8 * (used_seen[q] % SIZE);

	assert_int_not_equal(used_idx(q), used_seen[q] & 0xffff);
	used_seen[q]++;
	if (len)
		*len = (uint32_t)ram_get(at + 4, 4);
	return (unsigned)ram_get(at, 4);
}

static inline bool is_broken(void)
{
	return rd(STATUS, 1) & NEEDS_RESET;
}

static inline void enable_queue(unsigned q)
{
	wr(COMMON + 0x16, 2, q);
	wr(COMMON + 0x18, 2, SIZE);
	wr(COMMON + 0x20, 8, desc_at(q));
	wr(COMMON + 0x28, 8, avail_at(q));
	wr(COMMON + 0x30, 8, used_at(q));
	wr(COMMON + 0x1c, 2, 1);
	memset(ram(desc_at(q)), 0, RING_BYTES);
	avail_idx[q] = used_seen[q] = 0;
}

/* From a reset to DRIVER_OK with these features and all queues; no buffers yet. */
static inline void bring_up(uint64_t features)
{
	wr(STATUS, 1, 0);
	assert_int_equal(rd(STATUS, 1), 0);
	wr(STATUS, 1, 3);
	wr(COMMON + 0x08, 4, 0);
	wr(COMMON + 0x0c, 4, features & UINT32_MAX);
	wr(COMMON + 0x08, 4, 1);
	wr(COMMON + 0x0c, 4, (features | VIRTIO_F_VERSION_1) >> 32);
	wr(STATUS, 1, 11);
	assert_int_equal(rd(STATUS, 1), 11);
	for (unsigned q = 0; q < QUEUES; q++)
		enable_queue(q);
	wr(STATUS, 1, ALL_OK);
}

/* Buffer i of a queue to receive by, `bytes` long. */
static inline void give(unsigned q, unsigned i, uint32_t bytes)
{
	desc(q, i, buffer(q, i), bytes, WRITE, 0);
	offer(q, i);
}

static inline void give_all(unsigned q, uint32_t bytes)
{
	for (unsigned i = 0; i < SIZE; i++)
		give(q, i, bytes);
	kick(q);
}

/* Is the driver to notify it (VIRTIO 2.7.10)? Without event indices. */
static inline bool wants_notice(unsigned q)
{
	return !(ram_get(used_at(q), 2) & 1);
}

/* A frame of n bytes at DATA behind this header, in two pieces; the driver has it back at once. */
static inline void send_with(unsigned q, struct vnet_header h, uint32_t n)
{
	unsigned head = avail_idx[q] * 2 % SIZE;

	memcpy(ram(HEADER), &h, sizeof(h));
	desc(q, head, HEADER, sizeof(h), NEXT, head + 1);
	desc(q, head + 1, DATA, n, 0, 0);
	offer(q, head);
	kick(q);
}

static inline void must_send(unsigned q)
{
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 100);
	unsigned before = nic_wire.frames, used = used_idx(q), k = before % 128;

	send_with(q, (struct vnet_header){0}, n);
	assert_int_equal(nic_wire.frames, before + 1);
	assert_int_equal(nic_wire.last[k].bytes, n);
	assert_memory_equal(nic_wire.last[k].data, ram(DATA), n);
	assert_int_equal(used_idx(q), (used + 1) & 0xffff);
	assert_true(wants_notice(q));
}

/* A frame for the card's own address in `frame`, with all sums right; its length. */
static inline uint32_t tcp_to_us(uint8_t from, uint32_t payload)
{
	uint32_t n = make_tcp4(frame, from, 2, payload);

	memcpy(frame, nic_mac, 6);
	net_put16(frame + 50, 0);
	net_put16(frame + 50,
		  (uint16_t)~plain_sum(frame + 34, n - 34, plain_sum(frame + 26, 8, 6 + n - 34)));
	return n;
}

/* With a queue that was just brought up. */
static inline void must_receive(void)
{
	uint32_t n = tcp_to_us(1, 100), len;

	give(RX0, 0, VBUF_BYTES);
	kick(RX0);
	assert_int_equal(nic_arrives(frame, n, plain), 1);
	assert_int_equal(take_used(RX0, &len), 0);
	assert_int_equal(len, n + 12);
	assert_memory_equal(ram(buffer(RX0, 0) + 12), frame, n);
}

/* A command on queue q, split after `cut` bytes if that is not 0; the answer, or -1: none. */
static inline int command_on(unsigned q, unsigned class, unsigned cmd, const void *data,
			     uint32_t bytes, uint32_t cut)
{
	uint32_t whole = bytes + 2, len;

	ram(DATA)[0] = (uint8_t) class;
	ram(DATA)[1] = (uint8_t)cmd;
	if (bytes)
		memcpy(ram(DATA + 2), data, bytes);
	*ram(HEADER) = 0xff;
	if (!cut || cut >= whole)
		cut = 0;
	desc(q, 0, DATA, cut ? cut : whole, NEXT, cut ? 1 : 2);
	desc(q, 1, DATA + cut, whole - cut, NEXT, 2);
	desc(q, 2, HEADER, 1, WRITE, 0);
	offer(q, 0);
	unsigned before = used_idx(q);
	kick(q);
	if (used_idx(q) == before)
		return -1;
	assert_int_equal(take_used(q, &len), 0);
	assert_int_equal(len, 1);
	return *ram(HEADER);
}

static inline int command(unsigned class, unsigned cmd, const void *data, uint32_t bytes)
{
	return command_on(CTRL, class, cmd, data, bytes, 0);
}

static inline void plug(unsigned slot)
{
	cfg_write(slot, PCI_BAR0, 4, LEGACY);
	nic_plug(slot, 1 << 1 | 1 << 4, 0);
	cfg_write(slot, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static inline void begin(uint32_t wire_features)
{
	nic_machine(wire_features);
	fake_loop_reset();
	card = nic_card(&virtio_net_kind, NIC_SLOT, nic_wire.port);
	plug(NIC_SLOT);
}

static int setup(void **state)
{
	(void)state;
	begin(NET_CAN_ALL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	virtio_net_kind.ops.destroy(card);
	nic_machine_end();
	return 0;
}

#endif
