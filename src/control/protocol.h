/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_PROTOCOL_H
#define HANOK_CONTROL_PROTOCOL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/*
 * What goes over a control socket: lines of JSON, as docs/CONTROL.md tells. Both sides use this.
 */
enum {
	PROTOCOL_REQUEST_BYTES = 64 * 1024, /* the longest request; a longer one ends the talk */
	PROTOCOL_ANSWER_BYTES = 4 << 20,
};

/* Puts lines together from what arrives in pieces. */
struct line_reader {
	char *data;
	size_t len, room, at, max;
};

void line_reader_init(struct line_reader *r, size_t max_bytes);
void line_reader_free(struct line_reader *r);
/* 0; -EMSGSIZE: a line without an end grew longer than max_bytes; -ENOMEM. */
int line_reader_feed(struct line_reader *r, const void *data, size_t len);
/* The next whole line, without its newline, ended by a 0 byte; valid till the next feed. */
bool line_reader_next(struct line_reader *r, char **line, size_t *len);
/* What was fed and not given out; *data is the caller's to free, NULL when there is none. */
void line_reader_rest(struct line_reader *r, char **data, size_t *len);

/* A request. */
struct request {
	json_t *object; /* all of it; request_free lets go */
	const char *what;
	json_t *id; /* may be NULL; in object */
};

/* 0, or -EINVAL with *err; also then request_free. */
int request_parse(struct request *r, const char *line, size_t len, struct error *err);
void request_free(struct request *r);

/*
 * An argument. Missing: `missing` (NULL: it has to be there). -EINVAL with *err when it is of
 * another type or out of range.
 */
int request_string(const struct request *r, const char *name, const char *missing, const char **out,
		   struct error *err);
int request_number(const struct request *r, const char *name, long long missing, long long min,
		   long long max, long long *out, struct error *err);
int request_bool(const struct request *r, const char *name, bool missing, bool *out,
		 struct error *err);

#endif
