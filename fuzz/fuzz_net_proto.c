/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of a shared switch that says and writes anything: messages through the socket, and bytes
 * into the rings that it shares. The switch must stay whole, and another client be served.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/proto_internal.h"

static struct loop *loop;
static struct net_switch *sw;
static struct net_server *server;
static struct timer timer;
static char folder[] = "/tmp/hanok-fuzz-XXXXXX", path[64];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
	if (!ok)
		abort();
}

static void stop(void *opaque)
{
	loop_stop(opaque);
}

static void turn(void)
{
	timer_arm(&timer, clock_ns() + 50000);
	loop_run(loop);
}

static char *answer(void *opaque, const char *text)
{
	(void)opaque;
	return strdup(text);
}

static void remove_folder(void)
{
	char lock[80];

	net_server_destroy(server);
	strcpy(lock, path);
	strcat(lock, ".lock");
	unlink(lock);
	rmdir(folder);
}

static void build(void)
{
	struct net_port_group g = {.name = "default", .forged = true, .mac_changes = true};
	struct net_server_config c = {.path = path, .request = answer};

	must(mkdtemp(folder) != NULL);
	strcpy(path, folder);
	strcat(path, "/s");
	must(!loop_create(&loop, NULL));
	must(!net_switch_create(&sw, loop, &(struct net_switch_config){0}));
	must(!net_switch_set_group(sw, &g));
	c.loop = loop;
	c.sw = sw;
	must(!net_server_create(&server, &c, NULL));
	timer_init(&timer, loop, stop, loop);
	atexit(remove_folder);
}

/* Writes what the input says into the ring towards the switch, and wakes it. */
static void scribble(const uint8_t *data, size_t size, int fds[PROTO_FDS])
{
	uint8_t *memory =
		mmap(NULL, 2 * NET_RING_MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
	uint64_t one = 1;

	must(memory != MAP_FAILED);
	uint8_t *ring = memory + NET_RING_MAP_BYTES;
	struct net_ring_shared *s = (void *)ring;
	if (size >= 8) {
		uint32_t head, tail;
		memcpy(&head, data, 4);
		memcpy(&tail, data + 4, 4);
		size_t n = size - 8 < 4096 ? size - 8 : 4096;
		memcpy(ring + NET_RING_HEADER_BYTES, data + 8, n);
		((struct net_ring_shared *)memory)->tail = tail;
		((struct net_ring_shared *)memory)->reader_waits = 1;
		s->head = head;
	}
	must(write(fds[2], &one, 8) == 8);
	turn();
	munmap(memory, 2 * NET_RING_MAP_BYTES);
}

static int start_client(int fds[PROTO_FDS], const uint8_t *mac)
{
	struct proto_hello h = {.head = {PROTO_MAGIC, PROTO_VERSION, PROTO_HELLO},
				.name = "fuzz",
				.group = "default",
				.up = 1,
				.features = NET_CAN_ALL,
				.max_frame_bytes = 1514};
	struct proto_welcome w;
	int fd = proto_connect(path);

	must(fd >= 0);
	memcpy(h.mac_given, mac, 6);
	memcpy(h.mac_used, mac, 6);
	must(!proto_send(fd, &h, sizeof(h), NULL, 0));
	for (unsigned i = 0; i < 1000; i++) {
		turn();
		ssize_t n = recv(fd, &w, sizeof(w), MSG_DONTWAIT | MSG_PEEK);
		if (n > 0)
			break;
	}
	must(proto_receive(fd, &w, sizeof(w), fds) == sizeof(w) && !w.error);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t mac[2][6] = {{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}};
	int fds[PROTO_FDS] = {-1, -1, -1}, other[PROTO_FDS] = {-1, -1, -1};

	if (!server)
		build();
	if (!size)
		return 0;
	int good = start_client(other, mac[1]), fd;
	if (data[0] & 1) {
		fd = start_client(fds, mac[0]);
		scribble(data + 1, size - 1, fds);
	} else {
		/* Messages of up to 255 bytes, each behind its length. */
		fd = proto_connect(path);
		must(fd >= 0);
		for (size_t at = 1; at < size;) {
			size_t n = data[at++];
			if (n > size - at)
				n = size - at;
			if (proto_send(fd, data + at, n, NULL, 0))
				break;
			at += n;
			turn();
		}
	}
	turn();
	char c;
	must(recv(good, &c, 1, MSG_DONTWAIT) < 0); /* still there */
	proto_close_fds(fds);
	proto_close_fds(other);
	close(fd);
	close(good);
	turn();
	turn();
	return 0;
}
