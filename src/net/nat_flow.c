/* SPDX-License-Identifier: Apache-2.0 */
#include "net/nat_flow.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS(n) ((n)*UINT64_C(1000000000))

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16, PROBES = 64 };

int nat_flows_create(struct nat_flows *t)
{
	t->flows = calloc(NAT_FLOWS, sizeof(*t->flows));
	t->count = 0;
	return t->flows ? 0 : -ENOMEM;
}

void nat_flows_destroy(struct nat_flows *t)
{
	free(t->flows);
	t->flows = NULL;
}

static void key_of(struct net_nat_flow *k, const struct net_headers *h, bool from_inside)
{
	const uint8_t *ip = h->bytes + h->l3, *l4 = h->bytes + h->l4;
	unsigned bytes = h->version == 4 ? 4 : 16;
	const uint8_t *source = ip + (h->version == 4 ? 12 : 8), *destination = source + bytes;

	memset(k, 0, sizeof(*k));
	k->protocol = h->protocol;
	k->version = h->version;
	memcpy(k->inside, from_inside ? source : destination, bytes);
	memcpy(k->outside, from_inside ? destination : source, bytes);
	k->inside_port = net_get16(from_inside ? l4 : l4 + 2);
	k->outside_port = net_get16(from_inside ? l4 + 2 : l4);
}

static bool same(const struct net_nat_flow *a, const struct net_nat_flow *b)
{
	return a->protocol == b->protocol && a->version == b->version &&
	       a->inside_port == b->inside_port && a->outside_port == b->outside_port &&
	       !memcmp(a->inside, b->inside, 16) && !memcmp(a->outside, b->outside, 16);
}

static unsigned hash(const struct net_nat_flow *k)
{
	uint64_t x = (uint64_t)k->inside_port << 32 | (uint64_t)k->outside_port << 8 | k->protocol;
	uint64_t w[4];

	memcpy(w, k->inside, 16);
	memcpy(w + 2, k->outside, 16);
	for (unsigned i = 0; i < 4; i++)
		x = (x ^ w[i]) * UINT64_C(0x9e3779b97f4a7c15) + (x >> 29);
	return (unsigned)(x >> 40) % NAT_FLOWS;
}

/* How long a flow may be silent before it is taken for over. libslirp keeps UDP for 240 s. */
static uint64_t patience(const struct nat_flow *e)
{
	if (e->closed)
		return SECONDS(5);
	return e->f.protocol == IP_UDP ? SECONDS(240) : SECONDS(2 * 3600);
}

/* The flow, or the best place for it. A place is a hint only: the table is searched in a window, so
 * that places may be freed at any time. */
static struct nat_flow *find(struct nat_flows *t, const struct net_nat_flow *k, uint64_t now_ns,
			     struct nat_flow **vacant)
{
	unsigned start = hash(k);

	*vacant = NULL;
	for (unsigned i = 0; i < PROBES; i++) {
		struct nat_flow *e = &t->flows[(start + i) % NAT_FLOWS];
		if (e->used && same(&e->f, k))
			return e;
		if (!*vacant && (!e->used || now_ns - e->f.idle_ns > patience(e)))
			*vacant = e;
	}
	return NULL;
}

static void set_state(struct nat_flow *e, const char *state)
{
	snprintf(e->f.state, sizeof(e->f.state), "%.15s", state);
}

static void note_tcp(struct nat_flow *e, uint8_t flags, bool from_inside)
{
	if (flags & RST) {
		e->closed = true;
		set_state(e, "CLOSED");
	} else if (flags & SYN) {
		e->closed = false;
		e->fins = 0;
		set_state(e, flags & ACK ? "SYN_RCVD" : "SYN_SENT");
	} else if (flags & FIN) {
		e->fins |= from_inside ? 1 : 2;
		set_state(e, e->fins == 3 ? "CLOSING" : from_inside ? "FIN_WAIT" : "CLOSE_WAIT");
	} else if (e->fins == 3) {
		e->closed = true;
		set_state(e, "CLOSED");
	} else if (!e->fins) {
		set_state(e, "ESTABLISHED");
	}
}

struct nat_flow *nat_flows_note(struct nat_flows *t, const struct net_headers *h, uint32_t bytes,
				bool from_inside, uint64_t now_ns)
{
	struct net_nat_flow key;
	struct nat_flow *e, *vacant;

	if (!h->l4)
		return NULL;
	key_of(&key, h, from_inside);
	/* DHCP is the NAT's own business. */
	if (key.protocol == IP_UDP && key.inside_port == 68 && key.outside_port == 67)
		return NULL;
	e = find(t, &key, now_ns, &vacant);
	if (!e) {
		/* What the NAT refuses at once is no connection. */
		if (!vacant || (h->protocol == IP_TCP && (h->bytes[h->l4 + 13] & RST)))
			return NULL;
		t->count += !vacant->used;
		*vacant = (struct nat_flow){.f = key, .used = true};
		e = vacant;
		e->f.age_ns = now_ns;
	}
	e->f.idle_ns = now_ns;
	if (from_inside)
		e->f.bytes_out += bytes - h->l4;
	else
		e->f.bytes_in += bytes - h->l4;
	if (h->protocol == IP_TCP)
		note_tcp(e, h->bytes[h->l4 + 13], from_inside);
	return e;
}

uint16_t nat_syn_mss(const struct net_headers *h, uint32_t *at)
{
	uint32_t i, end = h->payload;

	if (!h->l4 || h->protocol != IP_TCP || !(h->bytes[h->l4 + 13] & SYN))
		return 0;
	/* RFC 9293 3.1: options are one byte (0, 1), or type, length, value. */
	for (i = h->l4 + 20u; i < end;) {
		uint8_t kind = h->bytes[i];
		if (kind == 0)
			break;
		if (kind == 1) {
			i++;
			continue;
		}
		if (i + 1 >= end || h->bytes[i + 1] < 2 || i + h->bytes[i + 1] > end)
			break;
		if (kind == 2 && h->bytes[i + 1] == 4) {
			*at = i + 2;
			return net_get16(h->bytes + i + 2);
		}
		i += h->bytes[i + 1];
	}
	return 0;
}

/* ---- what libslirp says ---- */

static void host_address(int fd, char *out, size_t n)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	char text[INET6_ADDRSTRLEN] = "";

	out[0] = 0;
	if (fd < 0 || getsockname(fd, (struct sockaddr *)&a, &len))
		return;
	if (a.ss_family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)&a;
		inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
		snprintf(out, n, "%s:%u", text, ntohs(in->sin_port));
	} else if (a.ss_family == AF_INET6) {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&a;
		inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
		snprintf(out, n, "[%s]:%u", text, ntohs(in6->sin6_port));
	}
}

/*
 * A line of slirp_connection_info:
 *   TCP[ESTABLISHED]  12  10.0.2.15 41234  93.184.216.34    80     0     0
 * IPv6's have the ports, and * and 0.0.0.0 for addresses. Of forwarded connections the first address
 * is the host's, the second the guest's.
 */
static void join_line(struct nat_flows *t, const char *line, bool *seen)
{
	char protocol[4], state[24], from[40], to[40];
	unsigned from_port, to_port;
	int fd;

	if (sscanf(line, " %3[A-Z][%23[^]]] %d %39s %u %39s %u", protocol, state, &fd, from,
		   &from_port, to, &to_port) != 7)
		return;
	bool v6 = !strcmp(from, "*");
	uint8_t a[4] = {0}, b[4] = {0}, number = strcmp(protocol, "TCP") ? IP_UDP : IP_TCP;
	inet_pton(AF_INET, from, a);
	inet_pton(AF_INET, to, b);
	for (unsigned i = 0; i < NAT_FLOWS; i++) {
		struct nat_flow *e = &t->flows[i];
		if (!e->used || seen[i] || e->f.protocol != number)
			continue;
		bool out = e->f.inside_port == from_port && e->f.outside_port == to_port &&
			   (e->f.version == 6
				    ? v6
				    : !memcmp(e->f.inside, a, 4) && !memcmp(e->f.outside, b, 4));
		/* UDP's socket of a guest serves all it sends to. */
		out |= number == IP_UDP && e->f.inside_port == from_port &&
		       (e->f.version == 6 ? v6 : !memcmp(e->f.inside, a, 4));
		bool in = e->f.inside_port == to_port && e->f.version == 4 &&
			  !memcmp(e->f.inside, b, 4) && !strcmp(state, "ESTABLISHED");
		if (!out && !in)
			continue;
		seen[i] = true;
		host_address(fd, e->f.host_address, sizeof(e->f.host_address));
		if (number == IP_TCP && strcmp(state, "HOST_FORWARD"))
			set_state(e, state);
		if (number == IP_TCP && out)
			return;
	}
}

void nat_flows_refresh(struct nat_flows *t, const char *text, uint64_t now_ns)
{
	bool *seen = calloc(NAT_FLOWS, sizeof(*seen));

	if (!seen)
		return;
	for (const char *line = text; line && *line;) {
		const char *end = strchr(line, '\n');
		join_line(t, line, seen);
		line = end ? end + 1 : NULL;
	}
	for (unsigned i = 0; i < NAT_FLOWS; i++) {
		struct nat_flow *e = &t->flows[i];
		if (!e->used)
			continue;
		/* Gone from libslirp is gone, but for what has just been closed; what it answers by itself (DHCP, DNS over a shared
		 * socket) it has no entry for, and that ends by its own time. */
		bool gone = text && !seen[i] && !e->closed && e->f.protocol == IP_TCP &&
			    now_ns - e->f.age_ns > SECONDS(1);
		if (!gone && now_ns - e->f.idle_ns <= patience(e))
			continue;
		e->used = false;
		t->count--;
	}
	free(seen);
}
