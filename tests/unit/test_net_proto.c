/* SPDX-License-Identifier: Apache-2.0 */
/* net/proto.h: a switch behind a socket; its clients, good and bad. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/proto_internal.h"
#include "net_test.h"

static struct loop *loop;
static struct net_switch *sw;
static struct net_server *server;
static struct sink nics[2];
static struct net_client *clients[2];
static char folder[] = "/tmp/hanok-test-XXXXXX", path[64];

static char *answer(void *opaque, const char *text)
{
	char *out;

	(void)opaque;
	return asprintf(&out, "<%s>", text) < 0 ? NULL : out;
}

static void start_server(void)
{
	struct net_server_config c = {.loop = loop, .sw = sw, .path = path, .request = answer};

	assert_int_equal(net_server_create(&server, &c, NULL), 0);
}

static void stop(void *opaque)
{
	(void)opaque;
	loop_stop(loop);
}

static void run_ms(unsigned ms)
{
	struct timer t;

	timer_init(&t, loop, stop, NULL);
	timer_arm(&t, clock_ns() + ms * UINT64_C(1000000));
	loop_run(loop);
}

/* Runs the loop until *n is at least `least`, for up to 10 s. */
static void run_until(const unsigned *n, unsigned least)
{
	for (unsigned i = 0; i < 2000 && *n < least; i++)
		run_ms(5);
	assert_in_range(*n, least, ~0u);
}

static void run_until_link(unsigned i, bool up)
{
	for (unsigned k = 0; k < 2000 && netport_link(nics[i].port) != up; k++)
		run_ms(5);
	assert_int_equal(netport_link(nics[i].port), up);
}

static int setup(void **state)
{
	struct net_port_group g = {.name = "default"};

	(void)state;
	strcpy(folder, "/tmp/hanok-test-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/s", folder);
	assert_int_equal(loop_create(&loop, NULL), 0);
	assert_int_equal(net_switch_create(&sw, loop, &(struct net_switch_config){0}), 0);
	assert_int_equal(net_switch_set_group(sw, &g), 0);
	start_server();
	for (unsigned i = 0; i < 2; i++) {
		struct net_client_config c = {.loop = loop, .path = path, .name = "vm"};
		uint8_t mac[6] = {2, 0, 0, 0, 0, (uint8_t)(i + 1)};
		sink_create(&nics[i], "nic", NET_CAN_ALL, mac, false);
		assert_int_equal(net_client_create(&clients[i], &c, NULL), 0);
		assert_int_equal(netport_connect(nics[i].port, net_client_port(clients[i])), 0);
		run_until_link(i, true);
	}
	run_ms(50); /* addresses and features are told */
	return 0;
}

static int teardown(void **state)
{
	char lock[80];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		net_client_destroy(clients[i]);
		netport_destroy(nics[i].port);
	}
	net_server_destroy(server);
	net_switch_destroy(sw);
	loop_destroy(loop);
	snprintf(lock, sizeof(lock), "%s.lock", path);
	unlink(lock);
	assert_int_equal(rmdir(folder), 0);
	return 0;
}

static void send_one(unsigned from, const uint8_t *p, uint32_t n, struct net_meta m)
{
	struct iovec iov = {(void *)p, n};
	struct net_frame f = {&iov, 1, n, m};

	netport_send(nics[from].port, &f, 1);
}

static void frames_keep_their_metadata(void **state)
{
	static uint8_t p[66000];
	uint32_t n = make_tcp4(p, 1, 2, 60000);
	struct net_meta m = {.flags = NET_CSUM_NEEDED,
			     .gso = NET_GSO_TCP4,
			     .csum_start = 34,
			     .csum_offset = 16,
			     .gso_size = 1448};
	struct net_switch_port info;

	(void)state;
	assert_true(net_switch_get_port(sw, 0, &info));
	assert_int_equal(info.mac_given[5], 1);
	/* More than a ring holds, so that it goes around. */
	for (unsigned i = 0; i < 300; i++) {
		send_one(0, p, n, m);
		run_until(&nics[1].frames, i + 1);
	}
	unsigned last = 299 % 128;
	assert_int_equal(nics[1].last[last].bytes, n);
	assert_int_equal(nics[1].last[last].meta.gso, NET_GSO_TCP4);
	assert_int_equal(nics[1].last[last].meta.gso_size, 1448);
	assert_memory_equal(nics[1].last[last].data + 54, p + 54, 1900);
	/* What a NIC cannot take is done on the switch's side, and changes when it says so. */
	netport_set_features(nics[1].port, 0, 1514);
	run_ms(100);
	nics[1].frames = 0;
	send_one(0, p, make_tcp4(p, 1, 2, 3000), m);
	run_until(&nics[1].frames, 3);
	assert_true(checksums_right(nics[1].last[0].data, nics[1].last[0].bytes));
}

/* A NIC that takes nothing: bounded queues, counted drops, and all in order afterwards. */
static void peers_that_stop_reading(void **state)
{
	static uint8_t p[2000];
	uint32_t n = make_tcp4(p, 1, 2, 1400);
	struct netport_stats s;

	(void)state;
	nics[1].room_for = 0;
	for (unsigned i = 0; i < 20000; i++) {
		net_put32(p + 54, i);
		send_one(0, p, n, (struct net_meta){0});
		if (i % 500 == 0)
			run_ms(1);
	}
	run_ms(50);
	assert_int_equal(nics[1].frames, 0);
	netport_get_stats(nics[1].port, &s);
	assert_in_range(s.received_drops[NET_DROP_QUEUE_FULL], 1, 20000);
	nics[1].room_for = ~0u;
	netport_ready(nics[1].port);
	run_ms(50);
	assert_int_equal(net_get32(nics[1].last[0].data + 54), 0);
	assert_int_equal(net_get32(nics[1].last[1].data + 54), 1);
	unsigned before = nics[1].frames;
	send_one(0, p, n, (struct net_meta){0});
	run_until(&nics[1].frames, before + 1);
}

static void the_switch_dies_and_comes_back(void **state)
{
	uint8_t p[200];
	uint32_t n = make_tcp4(p, 1, 2, 40);

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		net_server_destroy(server);
		server = NULL;
		run_until_link(0, false);
		run_until_link(1, false);
		send_one(0, p, n, (struct net_meta){0});
		start_server();
		run_until_link(0, true);
		run_until_link(1, true);
		run_ms(50);
		nics[1].frames = 0;
		send_one(0, p, n, (struct net_meta){0});
		run_until(&nics[1].frames, 1);
	}
}

static void one_process_serves_a_path(void **state)
{
	struct net_server_config c = {.loop = loop, .sw = sw, .path = path, .request = answer};
	struct net_server *second;
	struct net_client *nobody;
	struct net_client_config nc = {.loop = loop, .path = "/tmp/hanok-nobody", .name = "x"};
	struct error err = {""};

	(void)state;
	assert_int_equal(net_server_create(&second, &c, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(net_client_create(&nobody, &nc, &err), -ENOENT);
	assert_non_null(strstr(err.text, "hanok net start"));
}

static void *ask(void *opaque)
{
	char *text = NULL;

	net_request(path, "how are you", &text, opaque);
	loop_stop(loop);
	return text;
}

static void requests_are_answered(void **state)
{
	struct error err = {""};
	pthread_t thread;
	void *text;

	(void)state;
	pthread_create(&thread, NULL, ask, &err);
	loop_run(loop);
	pthread_join(thread, &text);
	assert_string_equal(text, "<how are you>");
	free(text);
}

/* ---- who wants to harm the switch ---- */

static bool closed(int fd)
{
	char c[512];

	run_ms(50);
	return recv(fd, c, sizeof(c), MSG_DONTWAIT) == 0;
}

static void bad_messages_end_their_client(void **state)
{
	struct proto_hello h = {.head = {PROTO_MAGIC, PROTO_VERSION, PROTO_HELLO}};
	uint8_t junk[sizeof(h) + 1] = {0};
	int fd;

	(void)state;
	memset(h.name, 'x', sizeof(h.name)); /* no end */
	strcpy(h.group, "default");
	for (unsigned i = 0; i < 6; i++) {
		fd = proto_connect(path);
		assert_true(fd >= 0);
		struct proto_hello bad = h;
		size_t n = sizeof(bad);
		if (i == 0)
			bad.head.magic++;
		if (i == 1)
			bad.head.version++;
		if (i == 2)
			bad.head.type = PROTO_UPDATE; /* before hello */
		if (i == 3)
			n--;
		if (i == 4)
			strcpy(bad.group, "nowhere");
		memcpy(junk, &bad, sizeof(bad));
		assert_int_equal(proto_send(fd, junk, i == 5 ? sizeof(junk) : n, NULL, 0), 0);
		run_ms(20);
		if (i == 4) { /* is told why */
			struct proto_welcome w;
			assert_true(recv(fd, &w, sizeof(w), MSG_DONTWAIT) == sizeof(w));
			assert_int_equal(w.error, -ENOENT);
		}
		assert_true(closed(fd));
		close(fd);
	}
	/* A name without an end is cut; a second hello is one too many. */
	fd = proto_connect(path);
	proto_send(fd, &h, sizeof(h), NULL, 0);
	run_ms(20);
	struct net_switch_port info;
	assert_true(net_switch_get_port(sw, 2, &info));
	assert_int_equal(strlen(info.name), 63);
	proto_send(fd, &h, sizeof(h), NULL, 0);
	run_ms(20);
	assert_false(net_switch_get_port(sw, 2, &info));
	close(fd);
}

/* What a client may write into the memory it shares. */
static void bad_rings_end_their_client(void **state)
{
	static const struct {
		uint32_t head, tail, bytes;
	} lies[] = {
		{NET_RING_BYTES + 32, 0, 60},
		{31, 0, 60},
		{0x80000000, 0, 60},
		{96, 0, 0xffffffff},
		{32, 0, 60},
		{96, 0, NET_FRAME_MAX_BYTES + 1},
		{~31u, 0, 60},
	};
	uint8_t p[200];
	uint32_t n = make_tcp4(p, 1, 2, 40);

	(void)state;
	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct proto_hello h = {.head = {PROTO_MAGIC, PROTO_VERSION, PROTO_HELLO},
					.group = "default",
					.name = "evil",
					.up = 1};
		struct proto_welcome w;
		int fd = proto_connect(path), fds[PROTO_FDS];
		uint64_t one = 1;
		proto_send(fd, &h, sizeof(h), NULL, 0);
		run_ms(20);
		assert_int_equal(proto_receive(fd, &w, sizeof(w), fds), sizeof(w));
		assert_int_equal(w.error, 0);
		/* It cannot be made shorter below the switch. */
		assert_int_equal(ftruncate(fds[0], 4096), -1);
		uint8_t *memory = mmap(NULL, 2 * NET_RING_MAP_BYTES, PROT_READ | PROT_WRITE,
				       MAP_SHARED, fds[0], 0);
		assert_true(memory != MAP_FAILED);
		struct net_ring_shared *s = (void *)(memory + NET_RING_MAP_BYTES);
		memcpy(memory + NET_RING_MAP_BYTES + NET_RING_HEADER_BYTES, &lies[i].bytes, 4);
		s->head = lies[i].head;
		s->reader_waits = 1;
		assert_int_equal(write(fds[2], &one, 8), 8);
		assert_true(closed(fd));
		munmap(memory, 2 * NET_RING_MAP_BYTES);
		proto_close_fds(fds);
		close(fd);
	}
	nics[1].frames = 0;
	send_one(0, p, n, (struct net_meta){0});
	run_until(&nics[1].frames, 1);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(frames_keep_their_metadata),     TEST(peers_that_stop_reading),
		TEST(the_switch_dies_and_comes_back), TEST(one_process_serves_a_path),
		TEST(requests_are_answered),	      TEST(bad_messages_end_their_client),
		TEST(bad_rings_end_their_client),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
