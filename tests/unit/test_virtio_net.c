/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio network card: frames both ways, their headers, and headers that lie. */
#include "virtio_net_test.h"

#define TX_OFFLOADS (NET_F_CSUM | NET_F_HOST_TSO4 | NET_F_HOST_TSO6 | NET_F_HOST_USO)
#define RX_OFFLOADS (NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6)

/* --- what is sent --- */

static void test_transmit(void **state)
{
	(void)state;
	bring_up(VIRTIO_F_INDIRECT_DESC | NET_F_MQ | NET_F_CTRL_VQ);
	for (unsigned i = 0; i < 50; i++) /* more than once around, both queues */
		must_send(i & 1 ? TX1 : TX0);
	/* In odd pieces, in a table of its own: the header's end and the frame's start in one. */
	uint32_t n = make_tcp4(ram(DATA + 12), 1, 2, 500), len;
	const uint32_t piece[] = {5, 20, 1, 100, n + 12 - 126}, count = 5;
	uint64_t at = DATA;
	for (unsigned i = 0; i < count; at += piece[i++]) {
		ram_put(TABLE + 16 * i, 8, at);
		ram_put(TABLE + 16 * i + 8, 4, piece[i]);
		ram_put(TABLE + 16 * i + 12, 4, (i < count - 1 ? NEXT : 0) | (i + 1) << 16);
	}
	memset(ram(DATA), 0, 12);
	desc(TX0, 7, TABLE, count * 16, INDIRECT, 0);
	offer(TX0, 7);
	kick(TX0);
	assert_int_equal(nic_wire.frames, 51);
	assert_int_equal(nic_wire.last[50].bytes, n);
	assert_memory_equal(nic_wire.last[50].data, ram(DATA + 12), n);
	used_seen[TX0] = used_idx(TX0) - 1;
	assert_int_equal(take_used(TX0, &len), 7);
	assert_int_equal(len, 0);
}

/* More pieces than a cable takes: copied together, frame by frame, whatever else is in the batch. */
static void test_many_pieces(void **state)
{
	enum { PIECES = NET_IOV_MAX + 20 };

	(void)state;
	bring_up(VIRTIO_F_INDIRECT_DESC);
	uint32_t n = 0;
	for (unsigned table = 0; table < 3; table++) {
		uint64_t t = TABLE + table * 0x1000, data = DATA + table * 0x1000;
		n = make_tcp4(ram(data), (uint8_t)table, 2, 1000);
		ram_put(t, 8, HEADER);
		ram_put(t + 8, 4, 12);
		ram_put(t + 12, 4, NEXT | 1 << 16);
		for (unsigned i = 1; i <= PIECES; i++) {
			bool last = i == PIECES;
			ram_put(t + 16 * i, 8, data + (i - 1) * 10);
			ram_put(t + 16 * i + 8, 4, last ? n - (PIECES - 1) * 10 : 10);
			ram_put(t + 16 * i + 12, 4, (last ? 0 : NEXT) | (i + 1) << 16);
		}
		desc(TX0, 2 * table, t, (PIECES + 1) * 16, INDIRECT, 0);
		offer(TX0, 2 * table);
	}
	memset(ram(HEADER), 0, 12);
	desc(TX0, 9, HEADER, 12, NEXT, 10);
	desc(TX0, 10, DATA, 60, 0, 0);
	offer(TX0, 9);
	kick(TX0);
	assert_int_equal(nic_wire.frames, 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(nic_wire.last[i].bytes, i < 3 ? n : 60);
		assert_memory_equal(nic_wire.last[i].data, ram(DATA + i % 3 * 0x1000),
				    i < 3 ? n : 60);
	}
	assert_int_equal(used_idx(TX0), 4);
}

static void test_offloads(void **state)
{
	(void)state;
	bring_up(TX_OFFLOADS);
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 20000);
	const struct vnet_header tso = {VNET_HDR_NEEDS_CSUM, VNET_GSO_TCPV4, 54, 1448, 34, 16, 0};
	send_with(TX0, tso, n);
	n = make_tcp6(ram(DATA), 1, 2, 3000);
	const struct vnet_header tso6 = {VNET_HDR_NEEDS_CSUM, VNET_GSO_TCPV6, 74, 1000, 54, 16, 0};
	send_with(TX0, tso6, n);
	n = make_udp4(ram(DATA), 1, 2, 3000);
	/* The length of the headers is a hint, and may lie (VIRTIO 5.1.6.2). */
	const struct vnet_header uso = {VNET_HDR_NEEDS_CSUM, VNET_GSO_UDP_L4, 9999, 1000, 34, 6, 0};
	send_with(TX0, uso, n);
	n = make_tcp4(ram(DATA), 1, 2, 100);
	send_with(TX0, (struct vnet_header){VNET_HDR_NEEDS_CSUM, 0, 0, 0, 34, 16, 0}, n);
	assert_int_equal(nic_wire.frames, 4);
	static const uint8_t gso[] = {NET_GSO_TCP4, NET_GSO_TCP6, NET_GSO_UDP, NET_GSO_NONE};
	static const uint16_t size[] = {1448, 1000, 1000, 0}, start[] = {34, 54, 34, 34};
	static const uint16_t headers[] = {54, 74, 42, 0};
	for (unsigned i = 0; i < 4; i++) {
		const struct net_meta *m = &nic_wire.last[i].meta;
		assert_int_equal(m->flags, NET_CSUM_NEEDED);
		assert_int_equal(m->gso, gso[i]);
		assert_int_equal(m->gso_size, size[i]);
		assert_int_equal(m->csum_start, start[i]);
		assert_int_equal(m->csum_offset, i == 2 ? 6 : 16);
		assert_int_equal(m->header_bytes, headers[i]);
	}
	/* A cable that takes none of it. */
	netport_set_features(nic_wire.port, 0, 1514);
	sink_clear(&nic_wire);
	make_tcp4(ram(DATA), 1, 2, 4000);
	send_with(TX0, tso, 4054);
	assert_int_equal(nic_wire.frames, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_true(checksums_right(nic_wire.last[i].data, nic_wire.last[i].bytes));
}

static uint64_t bad_offloads(void)
{
	struct netport_stats s;

	netport_get_stats(nic_wire.port, &s);
	return s.received_drops[NET_DROP_BAD_OFFLOAD];
}

/* What is no frame, or was not agreed on, is given back and counted; what the cable finds out about
 * a frame it drops. The card goes on. */
static void test_lying_headers(void **state)
{
	enum { C = VNET_HDR_NEEDS_CSUM, T4 = VNET_GSO_TCPV4, T6 = VNET_GSO_TCPV6 };
	static const struct {
		struct vnet_header h;
		uint32_t bytes;
		uint64_t without; /* a feature that is not negotiated */
		bool at_the_cable;
	} bad[] = {
		{{0, 0, 0, 0, 0, 0, 0}, 13, 0, false},
		{{0, 0, 0, 0, 0, 0, 0}, NET_FRAME_MAX_BYTES + 1, 0, false},
		{{0, 2, 54, 1448, 34, 16, 0}, 3000, 0, false},	       /* a type that is none */
		{{C, 3, 54, 1448, 34, 16, 0}, 3000, 0, false},	       /* fragments: not offered */
		{{C, T4 | 0x80, 54, 1448, 34, 16, 0}, 3000, 0, false}, /* ECN: not offered */
		{{0, T4, 54, 1448, 34, 16, 0}, 3000, 0, false},	       /* segments without sums */
		{{C, T4, 54, 0, 34, 16, 0}, 3000, 0, false},	       /* segments of nothing */
		{{C, 0, 0, 0, 34, 16, 0}, 100, NET_F_CSUM, false},
		{{C, T4, 54, 1448, 34, 16, 0}, 3000, NET_F_HOST_TSO4, false},
		{{C, T6, 74, 1448, 54, 16, 0}, 3000, NET_F_HOST_TSO6, false},
		{{C, VNET_GSO_UDP_L4, 42, 1000, 34, 6, 0}, 3000, NET_F_HOST_USO, false},
		{{C, 0, 0, 0, 0xffff, 0xffff, 0}, 100, 0, true},
		{{C, 0, 0, 0, 34, 66, 0}, 100, 0, true}, /* the sum half behind the end */
		{{C, 0, 0, 0, 99, 0, 0}, 100, 0, true},
		{{C, T4, 54, 1448, 35, 16, 0}, 3000, 0, true}, /* not where TCP is */
		{{C, T4, 54, 1448, 34, 15, 0}, 3000, 0, true},
		{{C, T6, 54, 1448, 34, 16, 0}, 3000, 0, true},		     /* it is IPv4 */
		{{C, VNET_GSO_UDP_L4, 42, 1000, 34, 6, 0}, 3000, 0, true},   /* it is TCP */
		{{C, T4, 54, 1448, 34, 16, 0}, 54, 0, true},		     /* no payload */
		{{C, T4, 54, 1448, 34, 16, 0}, 40, 0, true},		     /* half a header */
		{{C, T4, 54, 1, 34, 16, 0}, NET_SEGMENTS_MAX + 60, 0, true}, /* too many */
	};
	uint64_t malformed = 0, drops = 0;
	unsigned frames = 0;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		bring_up(TX_OFFLOADS & ~bad[i].without);
		make_tcp4(ram(DATA), 1, 2, 5000);
		send_with(TX0, bad[i].h, bad[i].bytes);
		*(bad[i].at_the_cable ? &drops : &malformed) += 1;
		assert_int_equal(nic_wire.frames, frames);
		assert_int_equal(card->stats.sent_malformed, malformed);
		assert_int_equal(bad_offloads(), drops);
		assert_int_equal(used_idx(TX0), 1);
		must_send(TX0);
		frames++;
	}
	/* A header that does not end, and one with nothing behind it. */
	for (unsigned bytes = 1; bytes <= 12; bytes++) {
		desc(TX0, 4, HEADER, bytes, 0, 0);
		offer(TX0, 4);
	}
	kick(TX0);
	assert_int_equal(card->stats.sent_malformed, malformed + 12);
	/* Buffers to be written are none of a frame's. */
	memset(ram(HEADER), 0, 12);
	desc(TX0, 4, HEADER, 12, NEXT, 5);
	desc(TX0, 5, DATA, 1000, WRITE, 0);
	offer(TX0, 4);
	kick(TX0);
	assert_int_equal(card->stats.sent_malformed, malformed + 13);
	assert_int_equal(nic_wire.frames, frames);
	assert_int_equal(card->v.stats.broken, 0);
}

static void test_no_room(void **state)
{
	(void)state;
	bring_up(0);
	uint32_t n = make_tcp4(ram(DATA), 1, 2, 10);
	memset(ram(HEADER), 0, 12);
	nic_wire.room_for = 2;
	/* 2 are taken, 16 wait in the cable; of the second round some stay in the ring. */
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < SIZE - 2; i += 2) {
			desc(TX0, i, HEADER, 12, NEXT, i + 1);
			desc(TX0, i + 1, DATA, n, 0, 0);
		}
		for (unsigned i = 0; i < SIZE; i++)
			offer(TX0, i % (SIZE / 2 - 1) * 2);
		kick(TX0);
	}
	assert_int_equal(nic_wire.frames, 2);
	assert_int_equal(used_idx(TX0), 18);
	assert_int_equal(card->stats.tx_waits, 1);
	nic_wire.room_for = ~0u;
	netport_ready(nic_wire.port);
	assert_int_equal(nic_wire.frames, 18);
	assert_true(fake_loop_run() > 0);
	assert_int_equal(nic_wire.frames, 32);
	assert_int_equal(used_idx(TX0), 32);
	assert_true(wants_notice(TX0));
	/* A reset while chains wait: nothing of them is sent. */
	nic_wire.room_for = 0;
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned k = 0; k < SIZE; k++)
			offer(TX0, k % (SIZE / 2 - 1) * 2);
		kick(TX0);
	}
	assert_int_equal(card->stats.tx_waits, 2);
	bring_up(0);
	nic_wire.room_for = ~0u;
	netport_ready(nic_wire.port);
	while (fake_loop_run())
		;
	assert_int_equal(nic_wire.frames, 48); /* those the cable had */
	assert_int_equal(used_idx(TX0), 0);
	must_send(TX0);
}

/* --- what arrives --- */

static void test_receive(void **state)
{
	const struct net_meta needed = {
		.flags = NET_CSUM_NEEDED, .csum_start = 34, .csum_offset = 16};
	const struct net_meta good = {.flags = NET_CSUM_GOOD};
	struct vnet_header h;

	(void)state;
	for (unsigned csum = 0; csum < 2; csum++) {
		bring_up(csum ? NET_F_GUEST_CSUM : 0);
		give_all(RX0, VBUF_BYTES);
		uint32_t n = tcp_to_us(1, 1000), len;
		net_put16(frame + 50, (uint16_t)plain_sum(frame + 26, 8, 6 + n - 34));
		nic_arrives(frame, n, needed);
		tcp_to_us(1, 1000);
		nic_arrives(frame, n, good);
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(take_used(RX0, &len), i);
			assert_int_equal(len, n + 12);
			memcpy(&h, ram(buffer(RX0, i)), sizeof(h));
			assert_int_equal(h.flags, !csum ? 0
						  : i	? VNET_HDR_DATA_VALID
							: VNET_HDR_NEEDS_CSUM);
			assert_int_equal(h.gso_type, VNET_GSO_NONE);
			assert_int_equal(h.csum_start, csum && !i ? 34 : 0);
			assert_int_equal(h.buffers, 1);
			/* Who has not asked to do without gets the sum. */
			if (i || !csum)
				assert_memory_equal(ram(buffer(RX0, i) + 12), frame, n);
		}
		assert_int_equal(used_idx(RX0), 2);
		/* Longer than the buffer, and no mergeable ones: dropped, the buffer stays. */
		desc(RX0, 2, buffer(RX0, 2), n + 11, WRITE, 0);
		nic_arrives(frame, n, good);
		assert_int_equal(used_idx(RX0), 2);
		nic_arrives(frame, n - 1, good);
		assert_int_equal(take_used(RX0, &len), 2);
		assert_int_equal(len, n + 11);
		/* A buffer in pieces, the header's own first, as old drivers had it. */
		desc(RX0, 3, HEADER, 12, WRITE | NEXT, 4);
		desc(RX0, 4, buffer(RX0, 4), 700, WRITE | NEXT, 5);
		desc(RX0, 5, buffer(RX0, 5), 700, WRITE, 0);
		nic_arrives(frame, n, good);
		assert_int_equal(take_used(RX0, &len), 3);
		assert_int_equal(len, n + 12);
		assert_memory_equal(ram(buffer(RX0, 4)), frame, 700);
		assert_memory_equal(ram(buffer(RX0, 5)), frame + 700, n - 700);
	}
}

/* Frames over as many buffers as they take. */
static void test_mergeable(void **state)
{
	enum { ROOM = 1000 };
	const struct net_meta lro = {.flags = NET_CSUM_NEEDED,
				     .gso = NET_GSO_TCP4,
				     .gso_size = 1448,
				     .csum_start = 34,
				     .csum_offset = 16};
	struct vnet_header h;

	(void)state;
	bring_up(NET_F_MRG_RXBUF | RX_OFFLOADS);
	give_all(RX0, ROOM);
	uint32_t n = tcp_to_us(1, 8900), len, done = 0;
	nic_arrives(frame, n, lro);
	memcpy(&h, ram(buffer(RX0, 0)), sizeof(h));
	assert_int_equal(h.buffers, (n + 12 + ROOM - 1) / ROOM);
	assert_int_equal(h.gso_type, VNET_GSO_TCPV4);
	assert_int_equal(h.gso_size, 1448);
	assert_int_equal(h.header_bytes, 54);
	assert_int_equal(h.flags, VNET_HDR_NEEDS_CSUM);
	assert_int_equal(used_idx(RX0), h.buffers);
	for (unsigned i = 0; i < h.buffers; i++) {
		assert_int_equal(take_used(RX0, &len), i);
		assert_int_equal(len, i < h.buffers - 1u ? ROOM : n + 12 - done);
		if (i) /* the sum in the first is the pseudo header's */
			assert_memory_equal(ram(buffer(RX0, i)), frame + done - 12, len);
		done += len;
	}
	assert_int_equal(done, n + 12);
	/* Too few are left: the frame waits, and what was taken for it is in the ring again. */
	nic_arrives(frame, n, lro);
	assert_int_equal(card->stats.rx_waits, 1);
	unsigned before = used_seen[RX0];
	assert_int_equal(used_idx(RX0), before);
	for (unsigned i = 0; i < h.buffers; i++)
		give(RX0, i, ROOM);
	kick(RX0);
	assert_int_equal(used_idx(RX0), before + h.buffers);
	assert_int_equal(take_used(RX0, &len), h.buffers);
	/* Never enough, if all are given: dropped rather than waited for. */
	bring_up(NET_F_MRG_RXBUF | RX_OFFLOADS);
	give_all(RX0, 100);
	nic_arrives(frame, n, lro);
	assert_int_equal(used_idx(RX0), 0);
	n = tcp_to_us(1, 100);
	nic_arrives(frame, n, plain);
	assert_int_equal(used_idx(RX0), 2);
	/* Without them no such frame comes: it is cut before. */
	bring_up(NET_F_GUEST_CSUM);
	give_all(RX0, VBUF_BYTES);
	nic_arrives(frame, tcp_to_us(1, 4000), lro);
	assert_int_equal(used_idx(RX0), 3);
	assert_int_equal(card->v.stats.broken, 0);
}

static void test_waits(void **state)
{
	const struct net_meta lro = {.flags = NET_CSUM_NEEDED,
				     .gso = NET_GSO_TCP4,
				     .gso_size = 1448,
				     .csum_start = 34,
				     .csum_offset = 16};
	uint32_t len;

	(void)state;
	/* Before there is a driver, and with a driver that is not ready: nobody is there. */
	assert_int_equal(nic_arrives(frame, tcp_to_us(1, 100), plain), 1);
	bring_up(NET_F_MRG_RXBUF | RX_OFFLOADS);
	kick(RX0);
	assert_int_equal(used_idx(RX0), 0);
	uint32_t n = tcp_to_us(1, 100);
	for (unsigned i = 0; i < 3; i++)
		nic_arrives(frame, n + i, plain);
	assert_int_equal(card->stats.rx_waits, 1); /* the others wait behind the first */
	assert_true(wants_notice(RX0));
	for (unsigned i = 0; i < 3; i++) {
		give(RX0, i, VBUF_BYTES);
		kick(RX0);
		assert_int_equal(take_used(RX0, &len), i);
		assert_int_equal(len, n + 12 + i);
	}
	assert_false(wants_notice(RX0)); /* not before a frame finds no room */
	/* A reset while frames wait. The next driver can take no segments: the long one is dropped,
	 * the others it gets, as it is the same machine. */
	nic_arrives(frame, tcp_to_us(1, 5000), lro);
	nic_arrives(frame, tcp_to_us(1, 100), plain);
	bring_up(0);
	give(RX0, 0, VBUF_BYTES);
	kick(RX0);
	assert_int_equal(take_used(RX0, &len), 0);
	assert_int_equal(len, n + 12);
	assert_int_equal(ram_get(buffer(RX0, 0), 2), 0);
	give(RX0, 1, VBUF_BYTES);
	kick(RX0);
	assert_int_equal(used_idx(RX0), 1);
	/* With event indices: which chain it waits for (VIRTIO 2.7.10.1). */
	bring_up(VIRTIO_F_EVENT_IDX);
	for (unsigned i = 0; i < 3; i++) {
		give(RX0, i, VBUF_BYTES);
		kick(RX0);
		nic_arrives(frame, n, plain);
	}
	nic_arrives(frame, n, plain);
	assert_int_equal(ram_get(used_at(RX0) + 4 + 8 * SIZE, 2), 3);
	/* A reset of the machine, and a card that goes, with frames before it. */
	nic_arrives(frame, n, plain);
	for (unsigned i = 0; i < 3; i++)
		nic_arrives(frame, n, plain);
	virtio_net_kind.ops.reset(card);
	assert_int_equal(pinned_pages(nic_mem), 0);
	nic_arrives(frame, n, plain);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_transmit), T(test_many_pieces), T(test_offloads),  T(test_lying_headers),
		T(test_no_room),  T(test_receive),     T(test_mergeable), T(test_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
