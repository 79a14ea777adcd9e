/* SPDX-License-Identifier: Apache-2.0 */
/* net/switch.h: who hears what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "net/switch.h"
#include "net_test.h"

enum { ENDS = 6 };
static struct net_switch *sw;
static struct loop *loop;
static struct sink ends[ENDS];
static unsigned ids[ENDS];

static void group(const char *name, enum net_vlan_mode mode, uint16_t vid)
{
	struct net_port_group g = {.mode = mode, .vid = vid, .mac_changes = true, .forged = true};

	snprintf(g.name, sizeof(g.name), "%s", name);
	if (mode == NET_VLAN_TRUNK) {
		g.trunk[100 / 8] |= 1 << 100 % 8;
		g.trunk[200 / 8] |= 1 << 200 % 8;
	}
	assert_int_equal(net_switch_set_group(sw, &g), 0);
}

/* End i has address 02:00:00:00:00:0(i+1). */
static void plug(unsigned i, const char *in)
{
	uint8_t mac[6] = {2, 0, 0, 0, 0, (uint8_t)(i + 1)};

	sink_create(&ends[i], "end", NET_CAN_ALL, mac, false);
	assert_int_equal(net_switch_connect(sw, ends[i].port, in, false, &ids[i]), 0);
}

static int setup(void **state)
{
	(void)state;
	assert_int_equal(loop_create(&loop, NULL), 0);
	assert_int_equal(net_switch_create(&sw, loop, &(struct net_switch_config){0}), 0);
	group("lan", NET_VLAN_ACCESS, 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	net_switch_destroy(sw);
	for (unsigned i = 0; i < ENDS; i++)
		netport_destroy(ends[i].port);
	memset(ends, 0, sizeof(ends));
	loop_destroy(loop);
	return 0;
}

static void send_bytes(unsigned from, uint8_t *p, uint32_t n, struct net_meta m)
{
	struct iovec iov = {p, n};
	struct net_frame f = {&iov, 1, n, m};

	assert_int_equal(netport_send(ends[from].port, &f, 1), 1);
}

/* A frame; addresses are those of ends, 0xff: broadcast. */
static void send_frame(unsigned from, uint8_t source, uint8_t to)
{
	uint8_t p[200];
	uint32_t n = make_tcp4(p, (uint8_t)(source + 1), (uint8_t)(to + 1), 40);

	if (to == 0xff)
		memset(p, 0xff, 6);
	send_bytes(from, p, n, (struct net_meta){0});
}

/* Who got a frame since the last question: a bit for each end. */
static unsigned heard(void)
{
	unsigned who = 0;

	for (unsigned i = 0; i < ENDS; i++) {
		who |= (ends[i].frames ? 1u : 0) << i;
		ends[i].frames = 0;
	}
	return who;
}

static uint64_t drops(unsigned i, enum net_drop cause)
{
	struct net_switch_port p;

	assert_true(net_switch_get_port(sw, ids[i], &p));
	return p.stats.received_drops[cause] + p.stats.sent_drops[cause];
}

static void learns_and_floods(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++)
		plug(i, "lan");
	send_frame(0, 0, 0xff);
	assert_int_equal(heard(), 0x6);
	send_frame(1, 1, 0);
	assert_int_equal(heard(), 0x1);
	/* An address behind a port, which is not the port's own. */
	send_frame(2, 8, 0xff);
	heard();
	send_frame(0, 0, 8);
	assert_int_equal(heard(), 0x4);
	/* It moves, at once. */
	send_frame(1, 8, 0xff);
	heard();
	send_frame(0, 0, 8);
	assert_int_equal(heard(), 0x2);
	struct mac_table_stats s;
	net_switch_get_mac_stats(sw, &s);
	assert_int_equal(s.moved, 1);
	assert_int_equal(s.entries, 3);
	/* Its port goes: it is forgotten, and nobody hears what was for it. */
	net_switch_disconnect(sw, ids[1]);
	send_frame(0, 0, 8);
	assert_int_equal(heard(), 0);
	/* Nothing comes back to where it came from. */
	send_frame(2, 9, 0xff);
	heard();
	send_frame(2, 2, 9);
	assert_int_equal(heard(), 0);
}

static void vlans_are_apart(void **state)
{
	uint8_t p[200];
	uint32_t n = make_tcp4(p, 1, 0, 40);

	(void)state;
	group("v100", NET_VLAN_ACCESS, 100);
	group("v200", NET_VLAN_ACCESS, 200);
	group("trunk", NET_VLAN_TRUNK, 0);
	plug(0, "v100");
	plug(1, "v100");
	plug(2, "v200");
	plug(3, "trunk");
	plug(4, "lan");
	memset(p, 0xff, 6);
	send_bytes(0, p, n, (struct net_meta){0});
	assert_int_equal(ends[3].last[0].meta.flags, NET_VLAN);
	assert_int_equal(ends[3].last[0].meta.vlan_tci, 100);
	assert_int_equal(ends[1].last[0].meta.flags, 0);
	assert_int_equal(heard(), 0xa);
	send_frame(2, 2, 0xff);
	assert_int_equal(heard(), 0x8);
	/* Not even by address. */
	send_frame(2, 2, 0);
	assert_int_equal(heard(), 0x0);
	/* From the trunk: a tag in the metadata, one in the frame, one that is not in the trunk. */
	struct net_meta m = {.flags = NET_VLAN, .vlan_tci = 0xe000 | 200};
	p[11] = 9;
	send_bytes(3, p, n, m);
	assert_int_equal(heard(), 0x4);
	memmove(p + 16, p + 12, n - 12);
	net_put32(p + 12, 0x81000000 | 100);
	send_bytes(3, p, n + 4, (struct net_meta){0});
	assert_int_equal(net_get16(ends[0].last[(1 - 1)].data + 12), ETH_IPV4);
	assert_int_equal(heard(), 0x3);
	net_put32(p + 12, 0x81000000 | 300);
	send_bytes(3, p, n + 4, (struct net_meta){0});
	assert_int_equal(heard(), 0);
	assert_int_equal(drops(3, NET_DROP_VLAN), 1);
	/* A tag from an access port is not believed; twice tagged, neither. */
	net_put32(p + 12, 0x81000000 | 200);
	send_bytes(0, p, n + 4, (struct net_meta){0});
	memmove(p + 16, p + 12, 40);
	net_put32(p + 12, 0x81000000 | 100);
	send_bytes(0, p, n + 4, (struct net_meta){0});
	assert_int_equal(heard(), 0);
	assert_int_equal(drops(0, NET_DROP_VLAN), 2);
	/* Moved to another group, it is in the other VLAN. */
	assert_int_equal(net_switch_move(sw, ids[0], "v200"), 0);
	send_frame(0, 0, 0xff);
	assert_int_equal(heard(), 0xc);
}

static void policies(void **state)
{
	struct net_port_group strict = {.name = "strict"},
			      all = {.name = "all", .promiscuous = true};
	uint8_t other[6] = {2, 0, 0, 0, 0, 0x77}, own[6] = {2, 0, 0, 0, 0, 1};

	(void)state;
	net_switch_set_group(sw, &strict);
	net_switch_set_group(sw, &all);
	plug(0, "strict");
	plug(1, "strict");
	plug(2, "all");
	/* Forged addresses do not leave; own ones do, and the promiscuous port sees them. */
	send_frame(0, 5, 0xff);
	assert_int_equal(heard(), 0);
	assert_int_equal(drops(0, NET_DROP_FORGED), 1);
	send_frame(0, 0, 0xff);
	assert_int_equal(heard(), 0x6);
	send_frame(1, 1, 0);
	assert_int_equal(heard(), 0x5);
	/* An unknown address: only whoever sees everything. */
	send_frame(1, 1, 9);
	assert_int_equal(heard(), 0x4);
	/* The guest changes its address: it may send from it, but hears nothing. */
	netport_set_mac(ends[0].port, other);
	send_frame(0, 0x76, 0xff);
	assert_int_equal(heard(), 0x6);
	send_frame(1, 1, 0x76);
	send_frame(1, 1, 0xff);
	assert_int_equal(heard(), 0x4);
	struct net_switch_port info;
	net_switch_get_port(sw, ids[0], &info);
	assert_true(info.blocked);
	netport_set_mac(ends[0].port, own);
	send_frame(1, 1, 0xff);
	assert_int_equal(heard(), 0x5);
	/* A group that accepts changes. */
	strict.mac_changes = true;
	net_switch_set_group(sw, &strict);
	netport_set_mac(ends[0].port, other);
	send_frame(1, 1, 0x76);
	assert_int_equal(heard(), 0x5);
}

static void bad_frames_stop_here(void **state)
{
	uint8_t p[64] = {1, 0x80, 0xc2, 0, 0, 3, 2, 0, 0, 0, 0, 1};

	(void)state;
	plug(0, "lan");
	plug(1, "lan");
	send_bytes(0, p, 60, (struct net_meta){0}); /* 802.1X: link local */
	memset(p, 0xff, 12);
	send_bytes(0, p, 60, (struct net_meta){0}); /* from broadcast */
	memset(p, 0, 12);
	send_bytes(0, p, 60, (struct net_meta){0}); /* from nobody */
	p[0] = p[6] = 2;
	p[12] = 0x81;
	send_bytes(0, p, 14, (struct net_meta){0}); /* half a tag */
	send_bytes(0, p, 17, (struct net_meta){0});
	assert_int_equal(heard(), 0);
	assert_int_equal(drops(0, NET_DROP_FILTERED), 1);
	assert_int_equal(drops(0, NET_DROP_BAD_FRAME), 2);
	assert_int_equal(drops(0, NET_DROP_RUNT), 2);
	send_bytes(0, p, 18, (struct net_meta){0}); /* a whole one, priority 0 */
	assert_int_equal(drops(0, NET_DROP_RUNT), 2);
}

/* A port that makes up addresses neither grows the table nor makes it forget others. */
static void mac_floods_hurt_nobody_else(void **state)
{
	uint8_t p[100];
	uint32_t n = make_tcp4(p, 1, 2, 10);
	struct mac_table_stats s;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		plug(i, "lan");
	for (uint8_t i = 0; i < 100; i++)
		send_frame(1, (uint8_t)(20 + i), 0);
	for (unsigned i = 0; i < 200000; i++) {
		p[6] = 6;
		net_put32(p + 8, i * 2654435761u);
		send_bytes(0, p, n, (struct net_meta){0});
	}
	net_switch_get_mac_stats(sw, &s);
	assert_in_range(s.entries, 1, s.places / 8 + 110);
	assert_true(s.evicted + s.refused > 100000);
	heard();
	for (uint8_t i = 0; i < 100; i++) {
		send_frame(2, 2, (uint8_t)(20 + i));
		assert_int_equal(heard(), 0x2);
	}
}

static void storms_are_limited(void **state)
{
	(void)state;
	plug(0, "lan");
	plug(1, "lan");
	uint64_t start = clock_ns();
	for (unsigned i = 0; i < 10000; i++)
		send_frame(0, 0, 0xff);
	uint64_t spent = clock_ns() - start;
	unsigned allowed = 2000 + (unsigned)(spent / 50000) + 1;
	assert_in_range(ends[1].frames, spent / 50000, allowed);
	assert_int_equal(drops(0, NET_DROP_STORM), 10000 - ends[1].frames);
	/* Frames for somebody pass all the same, also if he never said a word. */
	heard();
	for (unsigned i = 0; i < 5000; i++)
		send_frame(0, 0, 1);
	assert_int_equal(ends[1].frames, 5000);
}

/* A port that floods a third one, which does not read, leaves room for another one. */
static void queues_are_shared(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++)
		plug(i, "lan");
	send_frame(2, 2, 0xff);
	ends[2].room_for = 0;
	for (unsigned i = 0; i < 100; i++)
		send_frame(0, 0, 2);
	for (unsigned i = 0; i < 4; i++)
		send_frame(1, 1, 2);
	ends[2].room_for = ~0u;
	heard();
	netport_ready(ends[2].port);
	unsigned of[3] = {0};
	for (unsigned i = 0; i < ends[2].frames; i++)
		of[ends[2].last[i].data[11]]++;
	assert_int_equal(of[1], 8); /* half of the queue of 16 */
	assert_int_equal(of[2], 4); /* half of the rest */
}

static void stop(void *opaque)
{
	(void)opaque;
	loop_stop(loop);
}

static void run_for(uint64_t ns)
{
	struct timer t;

	timer_init(&t, loop, stop, NULL);
	timer_arm(&t, clock_ns() + ns);
	loop_run(loop);
}

static void bad_lines(void **state)
{
	struct net_shape slow = {.bits_per_s = 1000000, .delay_ns = 20000000};
	struct net_shape lossy = {.loss_ppm = 250000};

	(void)state;
	plug(0, "lan");
	plug(1, "lan");
	send_frame(1, 1, 0xff);
	heard();
	assert_int_equal(net_switch_set_shape(sw, ids[1], &slow), 0);
	/* 94 bytes at 1 Mbit/s: 0.752 ms each, and 20 ms on the way. */
	for (unsigned i = 0; i < 20; i++)
		send_frame(0, 0, 1);
	uint64_t start = clock_ns();
	assert_int_equal(ends[1].frames, 0);
	run_for(10000000);
	if (clock_ns() - start < 20000000) /* the host kept us waiting otherwise */
		assert_int_equal(ends[1].frames, 0);
	run_for(15000000);
	if (clock_ns() - start < 34000000)
		assert_in_range(ends[1].frames, 1, 19);
	run_for(30000000);
	assert_int_equal(ends[1].frames, 20);
	net_switch_set_shape(sw, ids[1], &lossy);
	heard();
	for (unsigned i = 0; i < 10000; i++)
		send_frame(0, 0, 1);
	run_for(1000000);
	assert_in_range(ends[1].frames, 7200, 7800);
	assert_int_equal(drops(1, NET_DROP_LOSS), 10000 - ends[1].frames);
	net_switch_set_shape(sw, ids[1], &(struct net_shape){0});
	heard();
	send_frame(0, 0, 1);
	assert_int_equal(heard(), 0x2);
}

/* Ports come and go, groups change and captures are switched while frames pass on other threads. */
static atomic_bool halt;

static void *sender(void *opaque)
{
	unsigned i = (unsigned)(uintptr_t)opaque;
	uint8_t p[200];
	uint32_t n = make_tcp4(p, (uint8_t)(i + 1), (uint8_t)(2 - i), 40);
	struct iovec iov = {p, n};
	struct net_frame f[2] = {{&iov, 1, n, {0}}, {&iov, 1, n, {0}}};

	while (!halt) {
		netport_send(ends[i].port, f, 2);
		memset(p, 0xff, 6);
		netport_send(ends[i].port, f, 1);
		make_tcp4(p, (uint8_t)(i + 1), (uint8_t)(2 - i), 40);
	}
	return NULL;
}

static void ports_come_and_go(void **state)
{
	enum { ROUNDS = 300 };
	pthread_t threads[2];
	struct net_switch_port info[2] = {0};
	uint64_t end = clock_ns() + 20000000000; /* no host is as busy as that */

	(void)state;
	plug(0, "lan");
	plug(1, "lan");
	halt = false;
	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, sender, (void *)i);
	/* A busy host may not run the senders before the last round: on until both ends have heard something. */
	for (unsigned round = 0;
	     round < ROUNDS || !info[0].stats.received_frames || !info[1].stats.received_frames;
	     round++) {
		if (clock_ns() > end)
			break;
		plug(2, "lan");
		group("lan", NET_VLAN_ACCESS, (uint16_t)(round % 3));
		netport_set_link(ends[1].port, round & 1);
		for (unsigned i = 0; i < 2; i++)
			net_switch_get_port(sw, ids[i], &info[i]);
		if (round & 1)
			net_switch_disconnect(sw, ids[2]);
		netport_destroy(ends[2].port);
		ends[2].port = NULL;
		if (!(round & 1))
			net_switch_disconnect(sw, ids[2]);
	}
	halt = true;
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_true(ends[0].frames && ends[1].frames);
}

static void limits(void **state)
{
	struct net_port_group g = {.name = "x", .vid = 4095};
	struct sink s;
	unsigned id;

	(void)state;
	assert_int_equal(net_switch_set_group(sw, &g), -EINVAL);
	assert_int_equal(net_switch_remove_group(sw, "x"), -ENOENT);
	plug(0, "lan");
	assert_int_equal(net_switch_remove_group(sw, "lan"), -EBUSY);
	sink_create(&s, "s", 0, NULL, false);
	assert_int_equal(net_switch_connect(sw, s.port, "nowhere", false, &id), -ENOENT);
	assert_int_equal(net_switch_connect(sw, ends[0].port, "lan", false, &id), -EBUSY);
	static struct netport *many[NET_SWITCH_PORTS];
	static const struct netport_ops none = {0};
	for (unsigned i = 1; i < NET_SWITCH_PORTS; i++) {
		assert_int_equal(netport_create(&many[i], &(struct netport_config){0}, &none, NULL),
				 0);
		assert_int_equal(net_switch_connect(sw, many[i], "lan", false, &id), 0);
	}
	assert_int_equal(net_switch_connect(sw, s.port, "lan", false, &id), -ENOSPC);
	for (unsigned i = 1; i < NET_SWITCH_PORTS; i++)
		netport_destroy(many[i]);
	netport_destroy(s.port);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(learns_and_floods),
		TEST(vlans_are_apart),
		TEST(policies),
		TEST(bad_frames_stop_here),
		TEST(mac_floods_hurt_nobody_else),
		TEST(storms_are_limited),
		TEST(queues_are_shared),
		TEST(bad_lines),
		TEST(ports_come_and_go),
		TEST(limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
