/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "state/stream.h"

/*
 * The state stream. The input's first half is a script of calls, the second the bytes they read:
 * nothing may be read past the end, and after a failure nothing is set any more. Then the same
 * script writes a stream that must read back as it was written.
 */
enum { VALUES = 256, RAW_MAX = 64 };

struct values {
	uint64_t word[VALUES];
	uint8_t raw[VALUES][RAW_MAX];
	bool flag[VALUES];
};

static void must(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One call a byte: low 3 bits which, the rest an argument. */
static void call(struct state_stream *s, uint8_t op, unsigned i, struct values *v)
{
	static const char *const names[] = {"a", "uart", "ab", "section-name-of-32-bytes-exactly"};
	unsigned arg = op >> 3;

	switch (op & 7) {
	case 0:
		state_u8(s, (uint8_t *)&v->word[i]);
		break;
	case 1:
		state_u16(s, (uint16_t *)&v->word[i]);
		break;
	case 2:
		state_u32(s, (uint32_t *)&v->word[i]);
		break;
	case 3:
		state_u64(s, &v->word[i]);
		break;
	case 4:
		state_bool(s, &v->flag[i]);
		break;
	case 5:
		state_raw(s, v->raw[i], arg * 2);
		break;
	case 6:
		state_begin(s, names[arg & 3], arg >> 2 & 1, 1 + (arg >> 3));
		break;
	case 7:
		state_end(s);
		break;
	}
}

static int run(struct state_stream *s, const uint8_t *script, size_t n, struct values *v)
{
	struct error err = {""};
	int rc;

	for (size_t i = 0; i < n; i++) {
		struct values before;
		bool failed = state_stream_error(s, NULL);

		if (failed)
			before = *v;
		call(s, script[i], (unsigned)i, v);
		if (failed)
			must(!memcmp(&before, v, sizeof(before)));
	}
	rc = state_stream_error(s, &err);
	must(rc <= 0 && (rc == 0 || err.text[0]));
	return rc;
}

/* Inputs for the writer: something different at each place. */
static void fill(struct values *v)
{
	memset(v, 0, sizeof(*v));
	for (unsigned i = 0; i < VALUES; i++) {
		v->word[i] = i * UINT64_C(0x0123456789abcdef);
		memset(v->raw[i], (int)i, RAW_MAX);
		v->flag[i] = i & 1;
	}
}

static void round_trip(const uint8_t *script, size_t n)
{
	static struct values wrote, read;
	struct state_stream *w, *r;
	const void *bytes;
	size_t len;

	fill(&wrote);
	read = wrote;
	must(!state_writer_create(&w, NULL));
	if (!run(w, script, n, &wrote)) {
		bytes = state_bytes(w, &len);
		must(!state_reader_create(bytes, len, &r, NULL));
		/* An open section at the end has no length yet. */
		if (n && (script[n - 1] & 7) == 7) {
			must(!run(r, script, n, &read));
			must(!memcmp(&read, &wrote, sizeof(read)));
		}
		state_stream_destroy(r);
	}
	state_stream_destroy(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct values v;
	size_t n = size / 2 < VALUES ? size / 2 : VALUES;
	struct state_stream *r;
	uint8_t *bytes;

	/* A copy of its own, so that a read past the end is seen. */
	bytes = malloc(size - n + 1);
	must(bytes != NULL);
	memcpy(bytes + 1, data + n, size - n);
	memset(&v, 0, sizeof(v));
	must(!state_reader_create(bytes + 1, size - n, &r, NULL));
	run(r, data, n, &v);
	state_stream_destroy(r);
	free(bytes);
	round_trip(data, n);
	return 0;
}
