/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the switch can do without guests, on one core: frames from one port to another, each copied
 * once by its receiver, as a NIC would.
 *
 *   netbench [--seconds S] [--json]
 *
 * "64 B" counts frames, "GSO" bits of TCP payload in 64 KiB frames that nobody segments; "TSO" the
 * same with a receiver that can take nothing, so that segments and checksums are made in software.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "net/frame.h"
#include "net/switch.h"

enum { PORTS_MAX = 256, BATCH = 32, SMALL_RING_BYTES = 2 << 10, RING_BYTES = 1 << 20 };

struct end {
	struct netport *port;
	uint8_t *ring;
	uint32_t at;
	uint64_t frames, bytes;
};

static struct end ends[PORTS_MAX];
static double seconds = 1;
static uint32_t
	ring_bytes; /* small for small frames: the switch is measured, not the host's caches */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static unsigned receive(void *opaque, const struct net_frame *f, unsigned n)
{
	struct end *e = opaque;

	for (unsigned i = 0; i < n; i++) {
		if (e->at + f[i].bytes > ring_bytes)
			e->at = 0;
		net_frame_read(&f[i], 0, e->ring + e->at, f[i].bytes);
		e->at += (f[i].bytes + 63) & ~63u;
		e->frames++;
		e->bytes += f[i].bytes;
	}
	return n;
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "netbench: %s\n", what);
	exit(1);
}

static void mac_of(uint8_t *mac, unsigned i)
{
	memcpy(mac, "\x02\x00\x00\x00\x00", 5);
	mac[5] = (uint8_t)i;
	mac[4] = 1;
}

static struct net_switch *build(unsigned ports, uint32_t features)
{
	static const struct netport_ops ops = {.receive = receive};
	struct net_switch *sw;
	struct net_port_group g = {.name = "lan", .forged = true, .mac_changes = true};
	unsigned id;

	must(!net_switch_create(&sw, NULL, &(struct net_switch_config){.name = "bench"}), "switch");
	must(!net_switch_set_group(sw, &g), "group");
	for (unsigned i = 0; i < ports; i++) {
		struct netport_config c = {.name = "p", .features = features};
		mac_of(c.mac, i);
		must(!netport_create(&ends[i].port, &c, &ops, &ends[i]), "port");
		must(!net_switch_connect(sw, ends[i].port, "lan", false, &id), "connect");
		ends[i].ring = malloc(ring_bytes);
		memset(ends[i].ring, 0, ring_bytes);
		ends[i].at = 0;
	}
	return sw;
}

static void tear(struct net_switch *sw, unsigned ports)
{
	net_switch_destroy(sw);
	for (unsigned i = 0; i < ports; i++) {
		netport_destroy(ends[i].port);
		free(ends[i].ring);
	}
}

/* A TCP/IPv4 frame from port `from` to port `to`. */
static void fill(uint8_t *p, uint32_t bytes, unsigned from, unsigned to)
{
	memset(p, 0, 54);
	mac_of(p, to);
	mac_of(p + 6, from);
	net_put16(p + 12, ETH_IPV4);
	p[14] = 0x45;
	net_put16(p + 16, (uint16_t)(bytes - 14));
	p[22] = 64;
	p[23] = IP_TCP;
	p[29] = (uint8_t)from;
	p[33] = (uint8_t)to;
	p[46] = 0x50;
	p[47] = 0x10;
}

/* Port i sends batches to port i + 1; or, scattered, each frame of a batch to another port. */
static double run(unsigned ports, uint32_t bytes, uint32_t features, bool gso, bool scattered,
		  double *gbits)
{
	ring_bytes = gso ? RING_BYTES : SMALL_RING_BYTES;
	struct net_switch *sw = build(ports, features);
	unsigned kinds = scattered ? BATCH : 1;
	uint8_t *memory = malloc((size_t)bytes * ports * kinds);
	struct net_frame f[BATCH];
	static struct iovec iov[PORTS_MAX][BATCH];
	double start, spent;
	uint64_t sent = 0;

	memset(memory, 0x5a, (size_t)bytes * ports * kinds);
	for (unsigned i = 0; i < ports * kinds; i++) {
		uint8_t *p = memory + (size_t)bytes * i;
		fill(p, bytes, i / kinds, (i / kinds + 1 + i % kinds % (ports - 1)) % ports);
		iov[i / kinds][i % kinds] = (struct iovec){p, bytes};
	}
	/* Everybody is heard of once before the clock starts. */
	for (unsigned round = 0; round < 2; round++) {
		start = now();
		do {
			for (unsigned i = 0; i < ports; i++) {
				for (unsigned k = 0; k < BATCH; k++) {
					f[k] = (struct net_frame){
						&iov[i][k % kinds], 1, bytes, {0}};
					if (!gso)
						continue;
					f[k].meta.flags = NET_CSUM_NEEDED;
					f[k].meta.csum_start = 34;
					f[k].meta.csum_offset = 16;
					f[k].meta.gso = NET_GSO_TCP4;
					f[k].meta.gso_size = 1448;
				}
				netport_send(ends[i].port, f, BATCH);
				sent += round ? BATCH : 0;
			}
			spent = now() - start;
		} while (round && spent < seconds);
	}
	*gbits = (double)sent * bytes * 8 / spent / 1e9;
	tear(sw, ports);
	free(memory);
	return (double)sent / spent / 1e6;
}

int main(int argc, char **argv)
{
	static const unsigned ports[] = {2, 16, 64, 256};
	bool json = false;
	double gbits, mpps;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json"))
			json = true;
		else if (!strcmp(argv[i], "--seconds") && i + 1 < argc)
			seconds = strtod(argv[++i], NULL);
		else
			must(false, "usage: netbench [--seconds S] [--json]");
	}
	if (json)
		printf("{\"small_mpps\": {");
	for (unsigned i = 0; i < 4; i++) {
		mpps = run(ports[i], 64, NET_CAN_ALL, false, false, &gbits);
		printf(json ? "%s\"%u\": %.3f" : "%s64 B frames, %3u ports   %7.2f Mpps\n",
		       json && i ? ", " : "", ports[i], mpps);
	}
	printf(json ? "}, \"scattered_mpps\": {" : "");
	for (unsigned i = 1; i < 4; i++) {
		mpps = run(ports[i], 64, NET_CAN_ALL, false, true, &gbits);
		printf(json ? "%s\"%u\": %.3f" : "%sscattered,   %3u ports   %7.2f Mpps\n",
		       json && i > 1 ? ", " : "", ports[i], mpps);
	}
	mpps = run(2, 65226, NET_CAN_ALL, true, false, &gbits);
	printf(json ? "}, \"gso_gbits\": %.1f" : "GSO frames, one copy     %7.1f Gbit/s\n", gbits);
	mpps = run(2, 65226, NET_CAN_CSUM, true, false, &gbits);
	printf(json ? ", \"tso_csum_gbits\": %.1f" : "TSO, checksums left      %7.1f Gbit/s\n",
	       gbits);
	mpps = run(2, 65226, 0, true, false, &gbits);
	printf(json ? ", \"tso_gbits\": %.1f}\n" : "TSO and checksums        %7.1f Gbit/s\n",
	       gbits);
	return 0;
}
