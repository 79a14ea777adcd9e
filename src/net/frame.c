/* SPDX-License-Identifier: Apache-2.0 */
/* Reading frames: pieces, headers, sums. What is done to frames is in fit.c. */
#include "net/frame.h"

#include <string.h>

uint32_t net_frame_read(const struct net_frame *f, uint32_t offset, void *buf, uint32_t bytes)
{
	uint8_t *to = buf;
	uint32_t done = 0;

	for (unsigned i = 0; i < f->iov_count && done < bytes; i++) {
		size_t len = f->iov[i].iov_len;
		if (offset >= len) {
			offset -= (uint32_t)len;
			continue;
		}
		size_t n = len - offset < bytes - done ? len - offset : bytes - done;
		memcpy(to + done, (const uint8_t *)f->iov[i].iov_base + offset, n);
		done += (uint32_t)n;
		offset = 0;
	}
	return done;
}

unsigned net_frame_slice(const struct net_frame *f, uint32_t offset, uint32_t bytes,
			 struct iovec *out)
{
	unsigned n = 0;

	for (unsigned i = 0; i < f->iov_count && bytes; i++) {
		size_t len = f->iov[i].iov_len;
		if (offset >= len) {
			offset -= (uint32_t)len;
			continue;
		}
		size_t take = len - offset < bytes ? len - offset : bytes;
		out[n].iov_base = (uint8_t *)f->iov[i].iov_base + offset;
		out[n++].iov_len = take;
		bytes -= (uint32_t)take;
		offset = 0;
	}
	return n;
}

int net_frame_check(const struct net_frame *f, unsigned iov_max, enum net_drop *cause)
{
	size_t sum = 0;

	*cause = NET_DROP_BAD_FRAME;
	if (!f->iov_count || f->iov_count > iov_max)
		return -1;
	for (unsigned i = 0; i < f->iov_count; i++) {
		if (f->iov[i].iov_len > NET_FRAME_MAX_BYTES)
			return -1;
		sum += f->iov[i].iov_len;
	}
	if (sum != f->bytes)
		return -1;
	*cause = NET_DROP_RUNT;
	if (sum < NET_ETH_HEADER_BYTES)
		return -1;
	*cause = NET_DROP_OVERSIZE;
	return sum > NET_FRAME_MAX_BYTES ? -1 : 0;
}

uint32_t net_frame_packets(const struct net_frame *f)
{
	uint32_t headers = f->meta.header_bytes ? f->meta.header_bytes : 54;

	if (!f->meta.gso || !f->meta.gso_size || f->bytes <= headers)
		return 1;
	return (f->bytes - headers + f->meta.gso_size - 1) / f->meta.gso_size;
}

/* ---- headers ---- */

static void parse_tcp_udp(struct net_headers *h, uint32_t at, uint32_t end)
{
	if (h->protocol == IP_TCP && at + 20 <= end) {
		uint32_t n = (h->bytes[at + 12] >> 4) * 4u;
		if (n < 20 || at + n > end)
			return;
		h->l4 = (uint16_t)at;
		h->payload = (uint16_t)(at + n);
	} else if (h->protocol == IP_UDP && at + 8 <= end) {
		h->l4 = (uint16_t)at;
		h->payload = (uint16_t)(at + 8);
	}
}

static void parse_ipv4(struct net_headers *h, uint32_t at)
{
	const uint8_t *ip = h->bytes + at;

	if (at + 20 > h->have || ip[0] >> 4 != 4)
		return;
	uint32_t n = (ip[0] & 15) * 4u;
	if (n < 20 || at + n > h->have)
		return;
	h->l3 = (uint16_t)at;
	h->version = 4;
	h->protocol = ip[9];
	h->fragment = net_get16(ip + 6) & 0x3fff;
	if (!h->fragment)
		parse_tcp_udp(h, at + n, h->have);
}

static void parse_ipv6(struct net_headers *h, uint32_t at)
{
	const uint8_t *ip = h->bytes + at;
	uint8_t next;

	if (at + 40 > h->have || ip[0] >> 4 != 6)
		return;
	h->l3 = (uint16_t)at;
	h->version = 6;
	next = ip[6];
	at += 40;
	/* Hop-by-hop, routing, fragment, authentication, destination options: RFC 8200 4. */
	for (unsigned i = 0; i < 8; i++) {
		uint32_t n;
		if (next != 0 && next != 43 && next != 44 && next != 51 && next != 60)
			break;
		if (at + 8 > h->have)
			return;
		if (next == 44) {
			h->fragment = true;
			n = 8;
		} else {
			n = next == 51 ? (h->bytes[at + 1] + 2u) * 4 : (h->bytes[at + 1] + 1u) * 8;
		}
		next = h->bytes[at];
		at += n;
	}
	h->protocol = next;
	if (!h->fragment && at < h->have)
		parse_tcp_udp(h, at, h->have);
}

void net_headers_parse(struct net_headers *h, const struct net_frame *f)
{
	uint32_t at = 12;

	memset((uint8_t *)h + sizeof(h->bytes), 0, sizeof(*h) - sizeof(h->bytes));
	h->have = net_frame_read(f, 0, h->bytes, NET_HEADERS_MAX);
	if (h->have < NET_ETH_HEADER_BYTES)
		return;
	h->type = net_get16(h->bytes + at);
	at += 2;
	for (unsigned tags = 0; tags < 2 && (h->type == ETH_VLAN || h->type == ETH_QINQ); tags++) {
		if (at + 4 > h->have)
			return;
		h->type = net_get16(h->bytes + at + 2);
		at += 4;
	}
	if (h->type == ETH_IPV4)
		parse_ipv4(h, at);
	else if (h->type == ETH_IPV6)
		parse_ipv6(h, at);
}

/* ---- sums ---- */

/* Words in memory order: ones' complement sums may be added in either byte order as long as the
 * result is swapped once (RFC 1071 2). Carries are added when they happen. */
uint64_t net_sum(uint64_t sum, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	uint64_t a = sum, b = 0, w[4];

	while (n >= 32) {
		memcpy(w, p, 32);
		a += w[0];
		a += a < w[0];
		b += w[1];
		b += b < w[1];
		a += w[2];
		a += a < w[2];
		b += w[3];
		b += b < w[3];
		p += 32;
		n -= 32;
	}
	a += b;
	a += a < b;
	while (n) {
		size_t take = n < 8 ? n : 8;
		w[0] = 0;
		memcpy(w, p, take);
		a += w[0];
		a += a < w[0];
		p += take;
		n -= take;
	}
	return a;
}

uint16_t net_sum_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)(sum << 8 | sum >> 8);
}

uint64_t net_frame_sum(const struct net_frame *f, uint32_t offset)
{
	struct iovec iov[NET_IOV_TOTAL];
	unsigned n = net_frame_slice(f, offset, f->bytes - offset, iov);
	uint64_t sum = 0;
	bool odd = false;

	for (unsigned i = 0; i < n; i++) {
		uint64_t part = net_sum(0, iov[i].iov_base, iov[i].iov_len);
		/* A piece that begins at an odd place has its bytes in the other halves. */
		if (odd) {
			while (part >> 16)
				part = (part & 0xffff) + (part >> 16);
			part = (part << 8 & 0xff00) | part >> 8;
		}
		sum += part;
		sum += sum < part;
		odd ^= iov[i].iov_len & 1;
	}
	return sum;
}

uint64_t net_pseudo_sum(const struct net_headers *h, uint32_t l4_bytes)
{
	const uint8_t *ip = h->bytes + h->l3;
	uint8_t tail[8] = {[7] = h->protocol};

	net_put32(tail, l4_bytes);
	if (h->version == 4)
		return net_sum(net_sum(0, ip + 12, 8), tail, 8);
	return net_sum(net_sum(0, ip + 8, 32), tail, 8);
}
