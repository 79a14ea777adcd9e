/* SPDX-License-Identifier: Apache-2.0 */
/* net/: frames, offloads in software, cables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net_test.h"

static struct sink a, b;
static uint8_t buf[70000];

static void connect_with(uint32_t features, bool waits)
{
	sink_create(&a, "a", NET_CAN_ALL, NULL, waits);
	sink_create(&b, "b", features, NULL, false);
	assert_int_equal(netport_connect(a.port, b.port), 0);
}

static int teardown(void **state)
{
	(void)state;
	netport_destroy(a.port);
	netport_destroy(b.port);
	a.port = b.port = NULL;
	return 0;
}

/* The frame in `pieces` pieces of odd sizes. */
static unsigned send_pieces(uint32_t bytes, struct net_meta meta, unsigned pieces)
{
	struct iovec iov[NET_IOV_MAX];
	uint32_t at = 0;

	for (unsigned i = 0; i < pieces; i++) {
		uint32_t n = i + 1 == pieces ? bytes - at : (bytes / pieces) | 1;
		iov[i] = (struct iovec){buf + at, n};
		at += n;
	}
	struct net_frame f = {iov, pieces, bytes, meta};
	return netport_send(a.port, &f, 1);
}

static uint64_t dropped(enum net_drop cause)
{
	struct netport_stats s, t;

	netport_get_stats(a.port, &s);
	netport_get_stats(b.port, &t);
	return s.sent_drops[cause] + t.received_drops[cause];
}

static struct net_meta tso(uint8_t gso, uint16_t l4, uint16_t size)
{
	return (struct net_meta){.flags = NET_CSUM_NEEDED,
				 .gso = gso,
				 .csum_start = l4,
				 .csum_offset = gso == NET_GSO_UDP ? 6 : 16,
				 .gso_size = size};
}

static void sums_agree_with_rfc1071(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)rand();
	for (unsigned n = 0; n < 200; n++)
		for (unsigned at = 0; at < 3; at++)
			assert_int_equal(net_sum_fold(net_sum(0, buf + at, n)),
					 plain_sum(buf + at, n, 0));
	memset(buf, 0xff, 65536);
	assert_int_equal(net_sum_fold(net_sum(0, buf, 65536)), 0xffff);
	/* Pieces that begin at odd places. */
	struct iovec iov[3] = {{buf, 3}, {buf + 3, 6}, {buf + 9, 100}};
	for (unsigned i = 0; i < 109; i++)
		buf[i] = (uint8_t)(i * 37);
	struct net_frame f = {iov, 3, 109, {0}};
	for (uint32_t at = 0; at < 20; at++)
		assert_int_equal(net_sum_fold(net_frame_sum(&f, at)),
				 plain_sum(buf + at, 109 - at, 0));
}

static void fitting_frames_pass_untouched(void **state)
{
	(void)state;
	connect_with(NET_CAN_ALL, false);
	uint32_t n = make_tcp4(buf, 1, 2, 100);
	struct net_meta m = {.flags = NET_CSUM_NEEDED | NET_VLAN,
			     .vlan_tci = 0x6005,
			     .csum_start = 34,
			     .csum_offset = 16};
	assert_int_equal(send_pieces(n, m, 1), 1);
	assert_int_equal(b.frames, 1);
	assert_memory_equal(b.last[0].data, buf, n);
	assert_memory_equal(&b.last[0].meta, &m, sizeof(m));
}

static void checksum_is_filled_in(void **state)
{
	(void)state;
	connect_with(0, false);
	for (unsigned pieces = 1; pieces < 8; pieces++) {
		uint32_t n = make_tcp4(buf, 1, 2, 100 + pieces);
		/* The pseudo header's sum, as a driver leaves it. */
		net_put16(buf + 50, plain_sum(buf + 26, 8, IP_TCP + 120 + pieces));
		sink_clear(&b);
		send_pieces(n,
			    (struct net_meta){
				    .flags = NET_CSUM_NEEDED, .csum_start = 34, .csum_offset = 16},
			    pieces);
		assert_int_equal(b.frames, 1);
		assert_true(checksums_right(b.last[0].data, n));
		assert_int_equal(b.last[0].meta.flags, 0);
	}
}

/* A sum of 0 goes out as 0xffff: 0 says "no checksum" in UDP (RFC 768). */
static void udp_sum_of_zero(void **state)
{
	(void)state;
	connect_with(0, false);
	uint32_t n = make_udp4(buf, 1, 2, 4), sum;
	net_put16(buf + 40, plain_sum(buf + 26, 8, IP_UDP + 12));
	memset(buf + 42, 0, 4);
	sum = plain_sum(buf + 34, n - 34, 0);
	net_put16(buf + 42, (uint16_t)(0xffff - sum));
	send_pieces(n,
		    (struct net_meta){.flags = NET_CSUM_NEEDED, .csum_start = 34, .csum_offset = 6},
		    1);
	assert_int_equal(net_get16(b.last[0].data + 40), 0xffff);
}

/* In TCP it stays 0. */
static void tcp_sum_of_zero(void **state)
{
	(void)state;
	connect_with(0, false);
	uint32_t n = make_tcp4(buf, 1, 2, 4), sum;
	net_put16(buf + 50, plain_sum(buf + 26, 8, IP_TCP + n - 34));
	memset(buf + 54, 0, 4);
	sum = plain_sum(buf + 34, n - 34, 0);
	net_put16(buf + 54, (uint16_t)(0xffff - sum));
	send_pieces(
		n, (struct net_meta){.flags = NET_CSUM_NEEDED, .csum_start = 34, .csum_offset = 16},
		1);
	assert_int_equal(net_get16(b.last[0].data + 50), 0);
}

static void tcp_is_segmented(void **state)
{
	(void)state;
	for (unsigned v = 0; v < 4; v++) {
		bool v6 = v & 1, csum = v & 2;
		uint16_t l4 = v6 ? 54 : 34;
		connect_with(csum ? NET_CAN_CSUM : 0, false);
		uint32_t n = v6 ? make_tcp6(buf, 1, 2, 3500) : make_tcp4(buf, 1, 2, 3500);
		/* As e1000's driver leaves it: no length, no checksum. */
		net_put16(buf + (v6 ? 18 : 16), 0);
		buf[l4 + 13] = 0x80 | 0x18 | 0x01; /* CWR ACK PSH FIN */
		send_pieces(n, tso(v6 ? NET_GSO_TCP6 : NET_GSO_TCP4, l4, 1000), 3);
		assert_int_equal(b.frames, 4);
		for (unsigned i = 0; i < 4; i++) {
			uint8_t *p = b.last[i].data, *t = p + l4;
			uint32_t payload = i == 3 ? 500 : 1000;
			assert_int_equal(b.last[i].bytes, l4 + 20 + payload);
			assert_int_equal(net_get32(t + 4), (uint32_t)(0xffffff00 + i * 1000));
			assert_int_equal(t[13], 0x10 | (i == 0 ? 0x80 : 0) | (i == 3 ? 9 : 0));
			assert_memory_equal(t + 20, buf + l4 + 20 + i * 1000, payload);
			if (!v6)
				assert_int_equal(net_get16(p + 18), (uint16_t)(0xfffe + i));
			assert_int_equal(b.last[i].meta.gso, 0);
			assert_int_equal(b.last[i].meta.flags, csum ? NET_CSUM_NEEDED : 0);
			if (!csum)
				assert_true(checksums_right(p, b.last[i].bytes));
		}
		teardown(NULL);
	}
}

static void udp_is_segmented_and_fragmented(void **state)
{
	(void)state;
	connect_with(0, false);
	uint32_t n = make_udp4(buf, 1, 2, 2500);
	send_pieces(n, tso(NET_GSO_UDP, 34, 1000), 2);
	assert_int_equal(b.frames, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(checksums_right(b.last[i].data, b.last[i].bytes));
		assert_int_equal(net_get16(b.last[i].data + 38), i == 2 ? 508 : 1008);
	}
	sink_clear(&b);
	struct net_meta m = tso(NET_GSO_UDP_FRAG, 34, 1480);
	m.csum_offset = 6;
	send_pieces(n, m, 2);
	assert_int_equal(b.frames, 2);
	uint8_t whole[4096];
	memcpy(whole, b.last[0].data, 34 + 1480);
	memcpy(whole + 34 + 1480, b.last[1].data + 34, 2508 - 1480);
	assert_int_equal(net_get16(b.last[0].data + 20), 0x2000);
	assert_int_equal(net_get16(b.last[1].data + 20), 1480 / 8);
	assert_int_equal(b.last[1].bytes, 34 + 2508 - 1480);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(plain_sum(b.last[i].data + 14, 20, 0), 0xffff);
	/* Put together, it is the datagram with a right checksum. */
	assert_memory_equal(whole + 42, buf + 42, 2500);
	assert_int_equal(plain_sum(whole + 34, 2508, plain_sum(whole + 26, 8, IP_UDP + 2508)),
			 0xffff);
}

/* Whole GSO frames get the headers that their receivers expect. */
static void gso_headers_are_set(void **state)
{
	(void)state;
	connect_with(NET_CAN_ALL, false);
	uint32_t n = make_tcp4(buf, 1, 2, 20000);
	net_put16(buf + 16, 0);
	net_put16(buf + 24, 0xdead);
	net_put16(buf + 50, 0xdead);
	send_pieces(n, tso(NET_GSO_TCP4, 34, 1448), 1);
	assert_int_equal(b.frames, 1);
	assert_int_equal(b.last[0].bytes, n);
	assert_int_equal(net_get16(b.last[0].data + 16), n - 14);
	assert_int_equal(plain_sum(b.last[0].data + 14, 20, 0), 0xffff);
	assert_int_equal(net_get16(b.last[0].data + 50), plain_sum(buf + 26, 8, IP_TCP + n - 34));
	assert_int_equal(b.last[0].meta.gso_size, 1448);
	assert_int_equal(b.last[0].meta.header_bytes, 54);
}

static void tags_go_in_where_they_must(void **state)
{
	(void)state;
	connect_with(0, false);
	uint32_t n = make_tcp4(buf, 1, 2, 3000);
	struct net_meta m = tso(NET_GSO_TCP4, 34, 1448);
	m.flags |= NET_VLAN;
	m.vlan_tci = 0xa064;
	send_pieces(n, m, 1);
	assert_int_equal(b.frames, 3);
	for (unsigned i = 0; i < 3; i++) {
		uint8_t *p = b.last[i].data;
		assert_int_equal(net_get32(p + 12), 0x8100a064);
		assert_int_equal(b.last[i].meta.flags, 0);
		memmove(p + 4, p, 12);
		assert_true(checksums_right(p + 4, b.last[i].bytes - 4));
	}
}

/* Metadata that lies is dropped and counted, whatever it says. */
static void lies_are_dropped(void **state)
{
	(void)state;
	connect_with(0, false);
	uint32_t n = make_tcp4(buf, 1, 2, 3000);
	struct net_meta lies[] = {
		tso(NET_GSO_TCP4, 34, 0),
		tso(NET_GSO_TCP6, 34, 1000),
		tso(NET_GSO_UDP, 34, 1000),
		tso(NET_GSO_TCP4, 35, 1000),
		tso(NET_GSO_TCP4, 34, 1),
		tso(77, 34, 1000),
		tso(NET_GSO_TCP4, 4000, 100),
		{.gso = NET_GSO_TCP4, .gso_size = 1000},
		{.flags = NET_CSUM_NEEDED, .csum_start = 65535, .csum_offset = 65535},
		{.flags = NET_CSUM_NEEDED, .csum_start = 3050, .csum_offset = 3},
	};
	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		uint64_t before = dropped(NET_DROP_BAD_OFFLOAD);
		assert_int_equal(send_pieces(n, lies[i], 1), 1);
		assert_int_equal(b.frames, 0);
		assert_int_equal(dropped(NET_DROP_BAD_OFFLOAD), before + 1);
	}
}

static void lengths_are_checked(void **state)
{
	(void)state;
	connect_with(NET_CAN_ALL, false);
	make_tcp4(buf, 1, 2, 60000);
	send_pieces(13, (struct net_meta){0}, 1);
	assert_int_equal(dropped(NET_DROP_RUNT), 1);
	send_pieces(1515, (struct net_meta){0}, 1);
	assert_int_equal(dropped(NET_DROP_OVERSIZE), 1);
	send_pieces(60054, tso(NET_GSO_TCP4, 34, 1461), 1);
	assert_int_equal(dropped(NET_DROP_OVERSIZE), 2);
	struct iovec iov = {buf, 100};
	struct net_frame f = {&iov, 1, 200, {0}};
	netport_send(a.port, &f, 1);
	f.iov_count = 0;
	netport_send(a.port, &f, 1);
	assert_int_equal(dropped(NET_DROP_BAD_FRAME), 2);
	assert_int_equal(b.frames, 0);
	netport_set_features(b.port, NET_CAN_ALL, 9014);
	assert_int_equal(send_pieces(1515, (struct net_meta){0}, 1), 1);
	assert_int_equal(b.frames, 1);
}

/* ---- queues ---- */

static void full_rings_make_senders_wait(void **state)
{
	struct netport_stats s;

	(void)state;
	connect_with(NET_CAN_ALL, true);
	uint32_t n = make_tcp4(buf, 1, 2, 10);
	b.room_for = 2;
	for (unsigned i = 0; i < 18; i++) {
		buf[n - 1] = (uint8_t)i;
		assert_int_equal(send_pieces(n, (struct net_meta){0}, 1), 1);
	}
	assert_int_equal(send_pieces(n, (struct net_meta){0}, 1), 0);
	netport_get_stats(b.port, &s);
	assert_int_equal(s.queued_frames, 16);
	assert_int_equal(b.frames, 2);
	b.room_for = 4;
	netport_ready(b.port);
	assert_int_equal(b.frames, 6);
	assert_int_equal(a.room_calls, 0); /* not for a few places only */
	b.room_for = ~0u;
	netport_ready(b.port);
	assert_int_equal(a.room_calls, 1);
	assert_int_equal(b.frames, 18);
	for (unsigned i = 0; i < 18; i++)
		assert_int_equal(b.last[i].data[n - 1], i);
	assert_int_equal(dropped(NET_DROP_QUEUE_FULL), 0);
}

static void who_does_not_wait_loses(void **state)
{
	(void)state;
	connect_with(NET_CAN_ALL, false);
	uint32_t n = make_tcp4(buf, 1, 2, 10);
	b.room_for = 0;
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(send_pieces(n, (struct net_meta){0}, 1), 1);
	assert_int_equal(dropped(NET_DROP_QUEUE_FULL), 4);
}

static void links(void **state)
{
	(void)state;
	connect_with(NET_CAN_ALL, false);
	uint32_t n = make_tcp4(buf, 1, 2, 10);
	assert_true(netport_link(a.port));
	sink_clear(&a);
	netport_set_link(b.port, false);
	assert_int_equal(a.changes, 1);
	assert_false(netport_link(a.port));
	send_pieces(n, (struct net_meta){0}, 1);
	assert_int_equal(dropped(NET_DROP_LINK_DOWN), 1);
	netport_set_link(b.port, true);
	assert_int_equal(netport_peer_features(a.port), NET_CAN_ALL);
	assert_int_equal(netport_connect(a.port, b.port), -EBUSY);
	netport_disconnect(b.port);
	assert_false(netport_link(a.port));
	assert_int_equal(netport_peer_features(a.port), 0);
	send_pieces(n, (struct net_meta){0}, 1);
	assert_int_equal(dropped(NET_DROP_LINK_DOWN), 2);
	assert_int_equal(netport_connect(a.port, b.port), 0);
}

/* ---- LRO ---- */

/* What TSO took apart, LRO puts together again: the same bytes, the same headers. */
static void lro_undoes_tso(void **state)
{
	struct sink mid;
	struct net_frame f[64];
	struct iovec iov[64];

	(void)state;
	for (unsigned v6 = 0; v6 < 2; v6++) {
		connect_with(0, false);
		sink_create(&mid, "lro", NET_CAN_ALL | NET_WANT_LRO, NULL, false);
		uint32_t n = v6 ? make_tcp6(buf, 1, 2, 1900) : make_tcp4(buf, 1, 2, 1900);
		send_pieces(n, tso(v6 ? NET_GSO_TCP6 : NET_GSO_TCP4, v6 ? 54 : 34, 500), 1);
		assert_int_equal(b.frames, 4);
		for (unsigned i = 0; i < 4; i++) {
			iov[i] = (struct iovec){b.last[i].data, b.last[i].bytes};
			f[i] = (struct net_frame){&iov[i], 1, b.last[i].bytes, {0}};
		}
		netport_disconnect(a.port);
		netport_connect(a.port, mid.port);
		netport_send(a.port, f, 4);
		assert_int_equal(mid.frames, 1);
		assert_int_equal(mid.last[0].bytes, n);
		assert_int_equal(mid.last[0].meta.gso_size, 500);
		/* But for TCP's checksum, which is the pseudo header's sum now. */
		memcpy(buf + (v6 ? 70 : 50), mid.last[0].data + (v6 ? 70 : 50), 2);
		assert_memory_equal(mid.last[0].data, buf, n);
		/* A hole, and a wrong checksum, stay seen. */
		mid.frames = 0;
		f[1] = f[2];
		netport_send(a.port, f, 2);
		assert_int_equal(mid.frames, 2);
		mid.frames = 0;
		((uint8_t *)iov[3].iov_base)[iov[3].iov_len - 1] ^= 1;
		netport_send(a.port, f + 2, 2);
		assert_int_equal(mid.frames, 2);
		netport_destroy(mid.port);
		teardown(NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_agree_with_rfc1071),
		cmocka_unit_test_teardown(fitting_frames_pass_untouched, teardown),
		cmocka_unit_test_teardown(checksum_is_filled_in, teardown),
		cmocka_unit_test_teardown(udp_sum_of_zero, teardown),
		cmocka_unit_test_teardown(tcp_sum_of_zero, teardown),
		cmocka_unit_test_teardown(tcp_is_segmented, teardown),
		cmocka_unit_test_teardown(udp_is_segmented_and_fragmented, teardown),
		cmocka_unit_test_teardown(gso_headers_are_set, teardown),
		cmocka_unit_test_teardown(tags_go_in_where_they_must, teardown),
		cmocka_unit_test_teardown(lies_are_dropped, teardown),
		cmocka_unit_test_teardown(lengths_are_checked, teardown),
		cmocka_unit_test_teardown(full_rings_make_senders_wait, teardown),
		cmocka_unit_test_teardown(who_does_not_wait_loses, teardown),
		cmocka_unit_test_teardown(links, teardown),
		cmocka_unit_test_teardown(lro_undoes_tso, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
