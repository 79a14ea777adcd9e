/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects: one page each, by LZ4 or as it is. What comes from the file is checked before it is believed: a
 * disk that loses or mixes up writes must not hand one page out as another.
 */
#include <errno.h>
#include <lz4.h>
#include <string.h>

#include "mem/swap_internal.h"

static uint64_t mix(uint64_t h, uint64_t word)
{
	h ^= word;
	return (h << 29 | h >> 35) * UINT64_C(0x9e3779b97f4a7c15);
}

static uint64_t word_at(const uint8_t *p)
{
	uint64_t w;

	memcpy(&w, p, sizeof(w));
	return w;
}

/* Against accidents, not attackers. Each step is a bijection of its lane, so no single changed word
 * gets by; four lanes, for the multiplications to overlap. bytes is a multiple of UNIT. */
static uint32_t checksum(const struct object *o, const uint8_t *p, uint32_t bytes)
{
	uint64_t a = o->page, b = o->length, c = 1, d = 2;

	for (; bytes >= 32; bytes -= 32, p += 32) {
		a = mix(a, word_at(p));
		b = mix(b, word_at(p + 8));
		c = mix(c, word_at(p + 16));
		d = mix(d, word_at(p + 24));
	}
	if (bytes) {
		a = mix(a, word_at(p));
		b = mix(b, word_at(p + 8));
	}
	a = mix(mix(mix(a, b), c), d);
	return (uint32_t)(a ^ a >> 32);
}

uint64_t object_lz4_bytes(void)
{
	return (uint64_t)LZ4_sizeofState();
}

uint32_t object_pack(void *lz4, uint32_t page, uint32_t stamp, const void *data, uint8_t *out)
{
	struct object o = {.page = page, .stamp = stamp};
	uint8_t *bytes = out + sizeof(o);
	int n;

	/* Clears 16 KiB first, and is faster all the same than going on with a stream: what is known to be
	 * short takes a table of 16-bit entries. */
	n = LZ4_compress_fast_extState(lz4, data, (char *)bytes, SWAP_PAGE_BYTES, COMPRESSED_MAX,
				       1);
	if (n <= 0) {
		memcpy(bytes, data, SWAP_PAGE_BYTES);
		n = SWAP_PAGE_BYTES;
	}
	o.length = (uint16_t)n;
	memset(bytes + n, 0, -(unsigned)n % UNIT);
	o.sum = checksum(&o, bytes, (object_units(&o) - 1) * UNIT);
	memcpy(out, &o, sizeof(o));
	return object_units(&o);
}

int object_check(const uint8_t *bytes, uint32_t units, uint32_t stamp)
{
	struct object o;

	memcpy(&o, bytes, sizeof(o));
	if (!o.length || o.length > SWAP_PAGE_BYTES || object_units(&o) != units ||
	    o.stamp != stamp)
		return -EBADMSG;
	if (checksum(&o, bytes + sizeof(o), (units - 1) * UNIT) != o.sum)
		return -EBADMSG;
	return 0;
}

int object_unpack(const uint8_t *bytes, void *data)
{
	struct object o;
	int n;

	memcpy(&o, bytes, sizeof(o));
	bytes += sizeof(o);
	if (o.length == SWAP_PAGE_BYTES) {
		memcpy(data, bytes, SWAP_PAGE_BYTES);
		return 0;
	}
	n = LZ4_decompress_safe((const char *)bytes, data, o.length, SWAP_PAGE_BYTES);
	return n == SWAP_PAGE_BYTES ? 0 : -EBADMSG;
}
