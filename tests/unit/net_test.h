/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_NET_TEST_H
#define TESTS_UNIT_NET_TEST_H

#include "mem/mem.h"
#include "net/frame.h"

/* Frames and ends for the tests of net/. */

/* An end that keeps what it gets. */
struct sink {
	struct netport *port;
	unsigned room_for; /* frames it takes before it says it has no room */
	unsigned frames, room_calls, changes;
	uint32_t bytes;
	struct mem *mem; /* if not NULL: what lies there of a frame has to be pinned */
	struct {
		struct net_meta meta;
		uint32_t bytes;
		uint8_t data[2048];
	} last[128];
};

void sink_create(struct sink *s, const char *name, uint32_t features, const uint8_t *mac,
		 bool waits);
void sink_clear(struct sink *s);

/* A TCP segment with right lengths and checksums but for TCP's own; payload bytes count up. Returns
 * how many bytes it has. */
uint32_t make_tcp4(uint8_t *p, uint8_t from, uint8_t to, uint32_t payload);
uint32_t make_tcp6(uint8_t *p, uint8_t from, uint8_t to, uint32_t payload);
uint32_t make_udp4(uint8_t *p, uint8_t from, uint8_t to, uint32_t payload);
/* RFC 1071 word by word, nothing of it shared with the code under test. */
uint16_t plain_sum(const uint8_t *p, uint32_t n, uint32_t start);
/* Are the IP header's and TCP's or UDP's checksum of a frame without tags right? */
bool checksums_right(const uint8_t *p, uint32_t bytes);

#endif
