/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_STATE_STREAM_H
#define HANOK_STATE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * The versioned stream that snapshots, suspend and migration share. One function per device serves
 * both directions: it names each field once, and the stream writes it or reads it back, so that
 * save and restore cannot drift apart. Little-endian. After the first failure all further calls do
 * nothing; state_stream_error tells at the end.
 */
struct state_stream;

/* A writer growing its own buffer, and a reader over bytes that stay the caller's. */
int state_writer_create(struct state_stream **out, struct error *err);
int state_reader_create(const void *data, size_t len, struct state_stream **out, struct error *err);
void state_stream_destroy(struct state_stream *s);

bool state_writing(const struct state_stream *s);
/* The bytes written so far; the stream's own. */
const void *state_bytes(const struct state_stream *s, size_t *len);
/* 0, or the first failure with its line in *err. */
int state_stream_error(const struct state_stream *s, struct error *err);
/* For a device that finds a value that cannot be (a restored stream is untrusted input). */
void state_fail(struct state_stream *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A section: name (up to 32 bytes), instance and version. When reading, the section must be the
 * next one; returns the version found (0 on failure), which is at most the one given. */
uint32_t state_begin(struct state_stream *s, const char *name, uint32_t instance, uint32_t version);
void state_end(struct state_stream *s);

void state_u8(struct state_stream *s, uint8_t *v);
void state_u16(struct state_stream *s, uint16_t *v);
void state_u32(struct state_stream *s, uint32_t *v);
void state_u64(struct state_stream *s, uint64_t *v);
void state_bool(struct state_stream *s, bool *v);
void state_raw(struct state_stream *s, void *data, size_t len);

#endif
