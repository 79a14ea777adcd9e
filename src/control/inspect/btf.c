/* SPDX-License-Identifier: Apache-2.0 */
#include "control/inspect/btf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	MAGIC = 0xeb9f,
	TYPE_BYTES = 12,
	MEMBER_BYTES = 12,
	TYPES_MAX = 4 << 20,
	DEPTH_MAX = 8,		 /* of unnamed structures in each other */
	LOOKED_AT_MAX = 1 << 16, /* members, for one question */
};

/* Kinds of types that matter here. */
enum { KIND_STRUCT = 4, KIND_UNION = 5 };

struct btf {
	const uint8_t *types;
	uint32_t types_bytes;
	const char *strings;
	uint32_t strings_bytes;
	uint32_t *at; /* offsets of the types; [0] is type 1 */
	uint32_t count;
};

static uint16_t get2(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint32_t get4(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

struct header {
	uint32_t bytes, type_off, type_len, str_off, str_len;
};

/* The parts lie within BTF_BYTES_MAX, types before strings, as every kernel has them. */
static bool read_header(const uint8_t *p, struct header *h)
{
	*h = (struct header){get4(p + 4), get4(p + 8), get4(p + 12), get4(p + 16), get4(p + 20)};
	return get2(p) == MAGIC && p[2] == 1 && p[3] == 0 && h->bytes >= BTF_HEADER_BYTES &&
	       h->bytes <= 4096 && h->type_off % 4 == 0 && h->type_len % 4 == 0 &&
	       h->type_off <= BTF_BYTES_MAX && h->type_len <= BTF_BYTES_MAX && h->type_len &&
	       h->str_off <= BTF_BYTES_MAX && h->str_len <= BTF_BYTES_MAX && h->str_len &&
	       h->str_off >= h->type_off + h->type_len &&
	       (uint64_t)h->bytes + h->str_off + h->str_len <= BTF_BYTES_MAX;
}

bool btf_begins(const void *header, size_t *bytes)
{
	struct header h;

	if (!read_header(header, &h))
		return false;
	*bytes = (size_t)h.bytes + h.str_off + h.str_len;
	return true;
}

/* Bytes that follow the 12 of a type; -1: there is no such kind. */
static int64_t tail_bytes(uint32_t info)
{
	/* By kind: a fixed part and a part for each element. */
	static const struct {
		int8_t fixed, each;
	} tails[] = {
		{-1, 0},	  /* void has no entry */
		{4, 0},	 {0, 0},  /* int, pointer */
		{12, 0}, {0, 12}, /* array, struct */
		{0, 12}, {0, 8},  /* union, enum */
		{0, 0},	 {0, 0},  /* forward, typedef */
		{0, 0},	 {0, 0},  /* volatile, const */
		{0, 0},	 {0, 0},  /* restrict, function */
		{0, 8},	 {4, 0},  /* prototype, variable */
		{0, 12}, {0, 0},  /* section, float */
		{4, 0},	 {0, 0},  /* declaration tag, type tag */
		{0, 12},	  /* 64-bit enum */
	};
	uint32_t kind = info >> 24 & 0x1f;

	if (kind >= sizeof(tails) / sizeof(tails[0]) || tails[kind].fixed < 0)
		return -1;
	return tails[kind].fixed + (int64_t)tails[kind].each * (info & 0xffff);
}

/* Notes where each type is. */
static int index_types(struct btf *b)
{
	uint32_t room = b->types_bytes / TYPE_BYTES;

	room = room < TYPES_MAX ? room : TYPES_MAX;
	b->at = malloc(((size_t)room + 1) * sizeof(*b->at));
	if (!b->at)
		return -ENOMEM;
	for (uint32_t at = 0; at < b->types_bytes;) {
		if (b->count == room || b->types_bytes - at < TYPE_BYTES)
			return -EINVAL;
		int64_t tail = tail_bytes(get4(b->types + at + 4));
		if (tail < 0 || tail > (int64_t)(b->types_bytes - at - TYPE_BYTES))
			return -EINVAL;
		b->at[b->count++] = at;
		at += TYPE_BYTES + (uint32_t)tail;
	}
	return 0;
}

int btf_open(struct btf **out, const void *data, size_t bytes)
{
	struct header h;

	*out = NULL;
	if (bytes < BTF_HEADER_BYTES || !read_header(data, &h) ||
	    (size_t)h.bytes + h.str_off + h.str_len > bytes)
		return -EINVAL;
	struct btf *b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->types = (const uint8_t *)data + h.bytes + h.type_off;
	b->types_bytes = h.type_len;
	b->strings = (const char *)data + h.bytes + h.str_off;
	b->strings_bytes = h.str_len;
	/* The first string is the empty one, and the last one ends. */
	int r = b->strings[0] || b->strings[h.str_len - 1] ? -EINVAL : index_types(b);
	if (r < 0) {
		btf_close(b);
		return r;
	}
	*out = b;
	return 0;
}

void btf_close(struct btf *b)
{
	if (b)
		free(b->at);
	free(b);
}

/* "" for what is no name. */
static const char *string_at(const struct btf *b, uint32_t offset)
{
	return offset < b->strings_bytes ? b->strings + offset : "";
}

static const uint8_t *type_of(const struct btf *b, uint32_t id)
{
	return id && id <= b->count ? b->types + b->at[id - 1] : NULL;
}

static bool has_members(const uint8_t *type)
{
	uint32_t info = get4(type + 4), kind = info >> 24 & 0x1f;

	return (kind == KIND_STRUCT || kind == KIND_UNION) && (info & 0xffff);
}

/* Looks through a structure, and the unnamed ones in it. 0: found, *bits is where. */
static int find_member(const struct btf *b, const uint8_t *type, const char *name, unsigned depth,
		       unsigned *looked_at, uint64_t *bits)
{
	uint32_t info = get4(type + 4);
	bool sized = info >> 31; /* bits 24 to 31 of an offset are the width of a bit field */

	for (uint32_t k = 0; k < (info & 0xffff); k++) {
		const uint8_t *member = type + TYPE_BYTES + (size_t)k * MEMBER_BYTES;
		const char *this = string_at(b, get4(member));
		uint32_t raw = get4(member + 8);
		uint64_t at = sized ? raw & 0xffffff : raw;
		if (++*looked_at > LOOKED_AT_MAX)
			return -ENOENT;
		if (!strcmp(this, name)) {
			*bits += at;
			return sized && raw >> 24 ? -ENOENT : 0;
		}
		const uint8_t *inner = *this ? NULL : type_of(b, get4(member + 4));
		if (!inner || !has_members(inner) || depth == DEPTH_MAX)
			continue;
		uint64_t inner_bits = *bits + at;
		if (find_member(b, inner, name, depth + 1, looked_at, &inner_bits) == 0) {
			*bits = inner_bits;
			return 0;
		}
	}
	return -ENOENT;
}

int btf_member(const struct btf *b, const char *type, const char *member, uint32_t *offset)
{
	for (uint32_t id = 1; id <= b->count; id++) {
		const uint8_t *t = type_of(b, id);
		unsigned looked_at = 0;
		uint64_t bits = 0;
		if (!has_members(t) || strcmp(string_at(b, get4(t)), type) != 0)
			continue;
		int r = find_member(b, t, member, 0, &looked_at, &bits);
		if (r < 0 || bits % 8 || bits / 8 > UINT32_MAX)
			return -ENOENT;
		*offset = (uint32_t)(bits / 8);
		return 0;
	}
	return -ENOENT;
}
