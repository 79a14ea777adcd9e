/* SPDX-License-Identifier: Apache-2.0 */
/* Forwards as people write them: "tcp:127.0.0.1:2222-22". */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/nat.h"

/* "[ADDRESS:]PORT" up to the mark `end`; returns what follows it, or NULL. */
static const char *parse_side(const char *text, char end, struct sockaddr_storage *out)
{
	const char *stop = end ? strchr(text, end) : text + strlen(text);
	struct sockaddr_in *in = (struct sockaddr_in *)out;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
	char side[80], *colon, *rest;
	unsigned long port;

	memset(out, 0, sizeof(*out));
	if (!stop || (size_t)(stop - text) >= sizeof(side))
		return NULL;
	memcpy(side, text, (size_t)(stop - text));
	side[stop - text] = 0;
	colon = strrchr(side, ':');
	const char *number = colon ? colon + 1 : side;
	if (*number < '0' || *number > '9')
		return NULL;
	port = strtoul(number, &rest, 10);
	if (*rest || port < 1 || port > 65535)
		return NULL;
	in->sin_family = AF_INET;
	in->sin_port = htons((uint16_t)port);
	if (!colon || colon == side)
		return end ? stop + 1 : stop;
	*colon = 0;
	if (side[0] == '[' && colon[-1] == ']') {
		colon[-1] = 0;
		in6->sin6_family = AF_INET6;
		if (inet_pton(AF_INET6, side + 1, &in6->sin6_addr) != 1)
			return NULL;
	} else if (inet_pton(AF_INET, side, &in->sin_addr) != 1) {
		return NULL;
	}
	return end ? stop + 1 : stop;
}

static bool has_address(const char *side, char end)
{
	const char *stop = end ? strchr(side, end) : side + strlen(side);

	for (const char *p = side; p < stop; p++)
		if (*p == ':')
			return p > side;
	return false;
}

int net_forward_parse(const char *text, struct net_forward *out, struct error *err)
{
	const char *host, *guest;

	memset(out, 0, sizeof(*out));
	if (!strncmp(text, "tcp:", 4) || !strncmp(text, "udp:", 4)) {
		out->udp = text[0] == 'u';
		host = text + 4;
		guest = parse_side(host, '-', &out->host);
		if (guest && parse_side(guest, 0, &out->guest)) {
			struct sockaddr_in *in = (struct sockaddr_in *)&out->host;
			if (!has_address(host, '-') && out->guest.ss_family == AF_INET)
				in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
			if (out->host.ss_family == out->guest.ss_family)
				return 0;
			return error_set(err, -EINVAL,
					 "forward %s: both sides must be IPv4, or both IPv6", text);
		}
	}
	return error_set(err, -EINVAL,
			 "forward %s: it must be like tcp:127.0.0.1:2222-22 or "
			 "udp:[::1]:5353-[fec0::15]:53, first the host's side, then the guest's",
			 text);
}

static void format_side(const struct sockaddr_storage *a, char *out, size_t n)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)a;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)a;
	char text[INET6_ADDRSTRLEN] = "";

	if (a->ss_family == AF_INET6) {
		inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
		snprintf(out, n, "[%s]:%u", text, ntohs(in6->sin6_port));
	} else if (in->sin_addr.s_addr) {
		inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
		snprintf(out, n, "%s:%u", text, ntohs(in->sin_port));
	} else {
		snprintf(out, n, "%u", ntohs(in->sin_port));
	}
}

void net_forward_format(const struct net_forward *f, char *out)
{
	char host[56], guest[56];

	format_side(&f->host, host, sizeof(host));
	format_side(&f->guest, guest, sizeof(guest));
	/* Without an address the host would be 127.0.0.1. */
	if (f->host.ss_family == AF_INET && !strchr(host, ':'))
		snprintf(out, 128, "%s:0.0.0.0:%.6s-%s", f->udp ? "udp" : "tcp", host, guest);
	else
		snprintf(out, 128, "%s:%s-%s", f->udp ? "udp" : "tcp", host, guest);
}
