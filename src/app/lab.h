/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_LAB_H
#define HANOK_APP_LAB_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "mem/replay.h"

/* What the verbs of `hanok lab` share. Each gets argv[0] = its own name; an exit status. */
int lab_verb_replay(int argc, char **argv);
int lab_verb_make(int argc, char **argv);
int lab_verb_show(int argc, char **argv);

/* How far something is, on a terminal and once it has taken 2 s. */
struct lab_progress {
	struct trace_progress progress; /* to be handed on */
	const char *what;
	uint64_t start_ns, shown_ns;
};
void lab_progress_begin(struct lab_progress *p, const char *what);
void lab_progress_end(struct lab_progress *p);

/* Loads a trace that has references. 0, or -errno with *err. */
int lab_load(struct page_trace **out, const char *path, struct error *err);

/* What there is to say about a trace, as two lines or so, or as an object. */
void lab_print_trace(const struct page_trace *t, const char *path);
json_t *lab_trace_json(const struct page_trace *t, const char *path);

/* Prints and frees it. An exit status; who names the verb. */
int lab_print_json(json_t *all, const char *who);

/* What was replayed: by policy and size, the way replay_run gives it. */
struct lab_result {
	const char *path;
	const struct page_trace *trace;
	const struct policy_ops *const *policy;
	unsigned policies; /* those that were asked for come first */
	unsigned hidden;   /* after them: only to be compared with */
	const uint64_t *frames;
	unsigned sizes;
	const struct replay_count *count;
};

static inline const struct replay_count *lab_count(const struct lab_result *r, unsigned policy,
						   unsigned size)
{
	return &r->count[(size_t)policy * r->sizes + size];
}

/* Draws the miss-ratio curves into a file. 0, or -errno with *err. */
int lab_write_svg(const struct lab_result *r, bool linear, const char *path, struct error *err);

#endif
