/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MEM_REPLAY_H
#define HANOK_MEM_REPLAY_H

#include "mem/policy.h"

/*
 * Replays of a trace: how often would each policy miss with so many frames? Frames are empty at
 * first and every page comes in on its first reference, so the first miss of each page ("cold") is
 * the same for all policies: trace->pages of them are in every `misses`.
 */

/* What one policy did with one number of frames. */
struct replay_count {
	uint64_t misses;
	/* Pages that left while dirty: written since they came in. What is dirty and still there at
	 * the end of the trace is not counted. */
	uint64_t written_back;
};

struct replay_options {
	const struct policy_ops *const *policy;
	unsigned policies;
	const uint64_t *frames; /* each 1 or more */
	unsigned sizes;
	struct policy_params params;
	unsigned threads; /* 0: as many as there are processors to run on */
	struct trace_progress progress;
};

/*
 * Replays the trace, which is only read. out[policy * sizes + size] is filled. 0; -ENOMEM; -EAGAIN
 * when no thread could be made; -ECANCELED when progress says so.
 */
int replay_run(const struct page_trace *t, const struct replay_options *options,
	       struct replay_count *out);

/*
 * LRU for every number of frames, 0 to t->pages: count[frames]. How many references had the reuse
 * distance d (d - 1 other pages were referenced since the page's last one) is
 * count[d - 1].misses - count[d].misses. 0, -ENOMEM or -ECANCELED; *count is freed by free().
 */
int replay_lru_curve(const struct page_trace *t, const struct trace_progress *progress,
		     struct replay_count **count);

/* ---- for policies that replay a trace themselves ---- */

struct replay_shared; /* what the threads of one replay_run share */

struct replay_job {
	const struct page_trace *trace;
	const uint32_t *next; /* [refs]: where the same page is referenced again; REPLAY_NEVER */
	struct policy_params params;
	const uint64_t *frames; /* [sizes] */
	unsigned sizes;
	struct replay_count *out; /* [sizes], zero */
	struct replay_shared *shared;
};
#define REPLAY_NEVER UINT32_MAX

/* After every REPLAY_CHUNK references: so many more are done. False: stop. */
enum { REPLAY_CHUNK = 1 << 16 };
bool replay_going(struct replay_shared *s, size_t refs);

#endif
