/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state stream. Layout of a section, all numbers little-endian:
 *
 *     u32 magic 'HKS1'   u8 name length   name   u32 instance   u32 version   u32 payload length
 *     payload
 *
 * A reader trusts none of it: every field is checked against the end of its section (sections do
 * not nest), and the end of a section must be where its fields end.
 */
#include "state/stream.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECTION_MAGIC = 0x31534b48, NAME_MAX_BYTES = 32 };

struct state_stream {
	bool writing;
	int failure; /* -errno of the first failure, or 0 */
	struct error error;

	uint8_t *buf; /* writer's */
	size_t cap;
	const uint8_t *in; /* reader's */
	size_t len;	   /* bytes written, or bytes there are to read */
	size_t pos;	   /* reader: the next byte */

	bool in_section;
	size_t section; /* writer: where its payload starts; reader: where it ends */
	char name[NAME_MAX_BYTES + 1];
	uint32_t instance;
};

static int stream_create(struct state_stream **out, bool writing, struct error *err)
{
	struct state_stream *s = calloc(1, sizeof(*s));

	*out = s;
	if (!s)
		return error_set(err, -ENOMEM, "state stream: out of memory");
	s->writing = writing;
	return 0;
}

int state_writer_create(struct state_stream **out, struct error *err)
{
	return stream_create(out, true, err);
}

int state_reader_create(const void *data, size_t len, struct state_stream **out, struct error *err)
{
	int rc = stream_create(out, false, err);

	if (!rc) {
		(*out)->in = data;
		(*out)->len = len;
	}
	return rc;
}

void state_stream_destroy(struct state_stream *s)
{
	if (!s)
		return;
	free(s->buf);
	free(s);
}

bool state_writing(const struct state_stream *s)
{
	return s->writing;
}

const void *state_bytes(const struct state_stream *s, size_t *len)
{
	*len = s->len;
	return s->writing ? s->buf : s->in;
}

int state_stream_error(const struct state_stream *s, struct error *err)
{
	if (s->failure && err)
		*err = s->error;
	return s->failure;
}

static void fail(struct state_stream *s, int code, const char *why)
{
	if (s->failure)
		return;
	if (s->name[0])
		s->failure =
			error_set(&s->error, code, "state of %s %u: %s", s->name, s->instance, why);
	else
		s->failure = error_set(&s->error, code, "state: %s", why);
}

void state_fail(struct state_stream *s, const char *fmt, ...)
{
	char why[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	fail(s, -EINVAL, why);
}

static void put(struct state_stream *s, const void *data, size_t len)
{
	if (len > s->cap - s->len) {
		size_t cap = s->cap ? s->cap : 4096;
		while (cap - s->len < len) {
			if (cap > SIZE_MAX / 2) {
				fail(s, -ENOMEM, "too large");
				return;
			}
			cap *= 2;
		}
		uint8_t *buf = realloc(s->buf, cap);
		if (!buf) {
			fail(s, -ENOMEM, "out of memory");
			return;
		}
		s->buf = buf;
		s->cap = cap;
	}
	if (len)
		memcpy(s->buf + s->len, data, len);
	s->len += len;
}

static void get(struct state_stream *s, void *data, size_t len)
{
	size_t end = s->in_section ? s->section : s->len;

	if (len > end - s->pos) {
		fail(s, -EINVAL, "cut short");
		return;
	}
	if (len)
		memcpy(data, s->in + s->pos, len);
	s->pos += len;
}

/* A field of the section's header. */
static void header_uint(struct state_stream *s, void *v, size_t len)
{
	if (s->failure)
		return;
	if (s->writing)
		put(s, v, len);
	else
		get(s, v, len);
}

/* A field of the payload. The host is x86-64, so memory order is the stream's. */
static void field(struct state_stream *s, void *v, size_t len)
{
	if (s->failure)
		return;
	if (!s->in_section)
		fail(s, -EINVAL, "a field outside any section");
	else
		header_uint(s, v, len);
}

static uint32_t begin_write(struct state_stream *s, uint8_t name_len, uint32_t version)
{
	uint32_t magic = SECTION_MAGIC, zero = 0;

	put(s, &magic, 4);
	put(s, &name_len, 1);
	put(s, s->name, name_len);
	put(s, &s->instance, 4);
	put(s, &version, 4);
	put(s, &zero, 4);
	s->section = s->len;
	s->in_section = !s->failure;
	return s->failure ? 0 : version;
}

static uint32_t begin_read(struct state_stream *s, uint32_t version)
{
	uint32_t magic = 0, instance = 0, found = 0, payload = 0;
	uint8_t name_len = 0;
	char name[UINT8_MAX + 1] = "";

	header_uint(s, &magic, 4);
	header_uint(s, &name_len, 1);
	header_uint(s, name, name_len);
	header_uint(s, &instance, 4);
	header_uint(s, &found, 4);
	header_uint(s, &payload, 4);
	if (s->failure)
		return 0;
	if (magic != SECTION_MAGIC)
		fail(s, -EINVAL, "not a section (damaged data)");
	else if (strcmp(name, s->name) || strlen(name) != name_len || instance != s->instance)
		fail(s, -EINVAL, "another section comes next (saved by a different machine?)");
	else if (!found || found > version)
		fail(s, -EINVAL, "its version is not known (saved by a newer Hanok?)");
	else if (payload > s->len - s->pos)
		fail(s, -EINVAL, "cut short");
	if (s->failure)
		return 0;
	s->section = s->pos + payload;
	s->in_section = true;
	return found;
}

uint32_t state_begin(struct state_stream *s, const char *name, uint32_t instance, uint32_t version)
{
	size_t len = strlen(name);

	if (s->failure)
		return 0;
	if (s->in_section || !len || len > NAME_MAX_BYTES || !version) {
		fail(s, -EINVAL, "a section begun wrongly");
		return 0;
	}
	memcpy(s->name, name, len + 1);
	s->instance = instance;
	return s->writing ? begin_write(s, (uint8_t)len, version) : begin_read(s, version);
}

void state_end(struct state_stream *s)
{
	if (s->failure)
		return;
	if (!s->in_section) {
		fail(s, -EINVAL, "a section ended twice");
		return;
	}
	s->in_section = false;
	if (s->writing) {
		size_t payload = s->len - s->section;
		uint32_t len32 = (uint32_t)payload;
		if (payload > UINT32_MAX)
			fail(s, -EFBIG, "section over 4 GiB");
		else
			memcpy(s->buf + s->section - 4, &len32, 4);
	} else if (s->pos != s->section) {
		fail(s, -EINVAL, "bytes left over");
	}
}

void state_u8(struct state_stream *s, uint8_t *v)
{
	field(s, v, sizeof(*v));
}

void state_u16(struct state_stream *s, uint16_t *v)
{
	field(s, v, sizeof(*v));
}

void state_u32(struct state_stream *s, uint32_t *v)
{
	field(s, v, sizeof(*v));
}

void state_u64(struct state_stream *s, uint64_t *v)
{
	field(s, v, sizeof(*v));
}

void state_bool(struct state_stream *s, bool *v)
{
	uint8_t byte = *v;

	field(s, &byte, 1);
	if (s->failure || s->writing)
		return;
	if (byte > 1)
		fail(s, -EINVAL, "a truth value that is neither 0 nor 1");
	else
		*v = byte;
}

void state_raw(struct state_stream *s, void *data, size_t len)
{
	field(s, data, len);
}
