/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a byte takes to another machine and back, by TCP, one at a time.
 *
 *   netpong serve PORT             sends back what comes, to one client at a time, for ever
 *   netpong ping ADDRESS PORT MS   for so long; prints `netpong trips=N median_us=T p99_us=T`
 *
 * Without a server, when it goes away, or when a byte has not come back after LOST_S seconds:
 * `netpong-failed WHY`, and status 1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { TRIPS_MAX = 1 << 20, WARM_UP = 50, LOST_S = 5 };

static uint32_t trip_ns[TRIPS_MAX];

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int fail(const char *what)
{
	printf("netpong-failed %s: %s\n", what, strerror(errno));
	return 1;
}

/* A TCP socket that sends at once; with its address in *a. */
static int open_socket(const char *address, const char *port, struct sockaddr_in *a)
{
	int one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*a = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	inet_pton(AF_INET, address, &a->sin_addr);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return fd;
}

static int serve(const char *port)
{
	struct sockaddr_in a;
	char c;
	int listener = open_socket("0.0.0.0", port, &a);

	if (bind(listener, (struct sockaddr *)&a, sizeof(a)) || listen(listener, 4))
		return fail("listen");
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		int one = 1;
		if (fd < 0)
			return fail("accept");
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		while (read(fd, &c, 1) == 1 && write(fd, &c, 1) == 1)
			;
		close(fd);
	}
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int ping(const char *address, const char *port, int ms)
{
	struct sockaddr_in a;
	unsigned trips = 0;
	char c = 0;
	int fd = open_socket(address, port, &a);
	struct timeval lost = {.tv_sec = LOST_S};

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &lost, sizeof(lost));
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)))
		return fail("connect");
	uint64_t start = now_ns(), end = start + (uint64_t)ms * 1000000, at = start;
	for (unsigned n = 0; at < end && trips < TRIPS_MAX; n++) {
		if (write(fd, &c, 1) != 1 || read(fd, &c, 1) != 1)
			return fail("ping");
		uint64_t then = at;
		at = now_ns();
		if (n >= WARM_UP)
			trip_ns[trips++] = (uint32_t)(at - then);
	}
	if (!trips) {
		errno = ETIMEDOUT;
		return fail("ping");
	}
	qsort(trip_ns, trips, sizeof(*trip_ns), compare);
	printf("netpong trips=%u median_us=%.1f p99_us=%.1f\n", trips, trip_ns[trips / 2] / 1e3,
	       trip_ns[(uint64_t)trips * 99 / 100] / 1e3);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(argv[2]);
	if (argc == 5 && !strcmp(argv[1], "ping"))
		return ping(argv[2], argv[3], atoi(argv[4]));
	fprintf(stderr, "usage: netpong serve PORT | ping ADDRESS PORT MS\n");
	return 2;
}
