/* SPDX-License-Identifier: Apache-2.0 */
#include "net_test.h"
#include "pins.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static unsigned receive(void *opaque, const struct net_frame *f, unsigned n)
{
	struct sink *s = opaque;
	unsigned i;

	for (i = 0; i < n && s->room_for; i++, s->room_for--) {
		unsigned k = s->frames++ % 128;
		for (unsigned p = 0; s->mem && p < f[i].iov_count; p++)
			assert_true(is_held(s->mem, f[i].iov[p].iov_base, f[i].iov[p].iov_len));
		s->last[k].meta = f[i].meta;
		s->last[k].bytes = f[i].bytes;
		s->bytes += f[i].bytes;
		net_frame_read(&f[i], 0, s->last[k].data, sizeof(s->last[k].data));
	}
	return i;
}

static void room(void *opaque)
{
	((struct sink *)opaque)->room_calls++;
}

static void changed(void *opaque)
{
	((struct sink *)opaque)->changes++;
}

void sink_create(struct sink *s, const char *name, uint32_t features, const uint8_t *mac,
		 bool waits)
{
	struct netport_ops ops = {
		.receive = receive, .room = waits ? room : NULL, .changed = changed};
	struct netport_config c = {.name = name, .features = features, .queue_frames = 16};

	memset(s, 0, sizeof(*s));
	s->room_for = ~0u;
	if (mac)
		memcpy(c.mac, mac, 6);
	assert_int_equal(netport_create(&s->port, &c, &ops, s), 0);
}

void sink_clear(struct sink *s)
{
	s->frames = s->bytes = s->room_calls = s->changes = 0;
}

uint16_t plain_sum(const uint8_t *p, uint32_t n, uint32_t start)
{
	uint32_t sum = start;

	for (uint32_t i = 0; i < n; i += 2) {
		sum += (uint32_t)(p[i] << 8) + (i + 1 < n ? p[i + 1] : 0);
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return (uint16_t)sum;
}

static void ethernet(uint8_t *p, uint8_t from, uint8_t to, uint16_t type)
{
	const uint8_t start[12] = {2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from};

	memcpy(p, start, 12);
	net_put16(p + 12, type);
}

static void ipv4(uint8_t *p, uint8_t from, uint8_t to, uint8_t protocol, uint32_t bytes)
{
	ethernet(p, from, to, ETH_IPV4);
	p[14] = 0x45;
	net_put16(p + 16, (uint16_t)(20 + bytes));
	net_put16(p + 18, 0xfffe); /* an id about to wrap */
	p[20] = 0x40;
	p[22] = 64;
	p[23] = protocol;
	p[26] = p[30] = 10;
	p[29] = from;
	p[33] = to;
	net_put16(p + 24, (uint16_t)~plain_sum(p + 14, 20, 0));
}

static void tcp(uint8_t *t, uint32_t payload)
{
	net_put16(t, 1000);
	net_put16(t + 2, 80);
	net_put32(t + 4, 0xffffff00); /* about to wrap */
	net_put32(t + 8, 77);
	t[12] = 0x50;
	t[13] = 0x18; /* ACK PSH */
	net_put16(t + 14, 500);
	for (uint32_t i = 0; i < payload; i++)
		t[20 + i] = (uint8_t)(i ^ i >> 8);
}

uint32_t make_tcp4(uint8_t *p, uint8_t from, uint8_t to, uint32_t payload)
{
	memset(p, 0, 54);
	ipv4(p, from, to, IP_TCP, 20 + payload);
	tcp(p + 34, payload);
	return 54 + payload;
}

uint32_t make_tcp6(uint8_t *p, uint8_t from, uint8_t to, uint32_t payload)
{
	memset(p, 0, 74);
	ethernet(p, from, to, ETH_IPV6);
	p[14] = 0x60;
	net_put16(p + 18, (uint16_t)(20 + payload));
	p[20] = IP_TCP;
	p[21] = 64;
	p[22] = p[38] = 0xfd;
	p[37] = from;
	p[53] = to;
	tcp(p + 54, payload);
	return 74 + payload;
}

uint32_t make_udp4(uint8_t *p, uint8_t from, uint8_t to, uint32_t payload)
{
	memset(p, 0, 42);
	ipv4(p, from, to, IP_UDP, 8 + payload);
	net_put16(p + 34, 53);
	net_put16(p + 36, 53);
	net_put16(p + 38, (uint16_t)(8 + payload));
	for (uint32_t i = 0; i < payload; i++)
		p[42 + i] = (uint8_t)(i * 7);
	return 42 + payload;
}

bool checksums_right(const uint8_t *p, uint32_t bytes)
{
	bool v4 = net_get16(p + 12) == ETH_IPV4;
	uint32_t l4 = v4 ? 34 : 54, start;

	if (v4 && plain_sum(p + 14, 20, 0) != 0xffff)
		return false;
	if (v4 && net_get16(p + 16) != bytes - 14)
		return false;
	if (!v4 && net_get16(p + 18) != bytes - 54)
		return false;
	start = v4 ? plain_sum(p + 26, 8, p[23]) : plain_sum(p + 22, 32, p[20]);
	return plain_sum(p + l4, bytes - l4, start + (bytes - l4)) == 0xffff;
}
