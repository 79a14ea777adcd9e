/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MEM_POLICY_H
#define HANOK_MEM_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/trace.h"

/*
 * Page-replacement policies, to be replayed on a trace (mem/replay.h): which page leaves when all
 * frames are full and one is needed.
 *
 * Most decide by what has happened so far: the replay keeps the frames, and the policy hears of
 * hits and of fills, by the number of a frame, and names the victim. Two replay a trace themselves:
 * opt, because it knows the future, and lru, because one pass gives it every number of frames.
 */

enum { POLICY_GEN_SHARE = 8 };

struct policy_params {
	uint64_t seed;	     /* of random, and of what gen samples */
	uint32_t gen_share;  /* gen: an epoch lasts for frames / gen_share faults; at least 1 */
	uint32_t gen_sample; /* gen: of how many hits one is seen; at least 1 */
};
#define POLICY_PARAMS_DEFAULT                                                                      \
	(struct policy_params)                                                                     \
	{                                                                                          \
		.seed = 1, .gen_share = POLICY_GEN_SHARE, .gen_sample = 1                          \
	}

struct replay_job;

struct policy_ops {
	const char *name;  /* for --policy */
	const char *about; /* half a line */

	/* The state for so many frames, 1 or more. NULL: no memory. */
	void *(*create)(uint32_t frames, const struct policy_params *params);
	void (*destroy)(void *state);
	/* The page in this frame was referenced. NULL where that is nothing to the policy. */
	void (*hit)(void *state, uint32_t frame);
	/* All frames are full: which is to be emptied? It is filled next. */
	uint32_t (*victim)(void *state);
	/* A page came into this frame: frames 0, 1, 2 ... at first, then the victim's. */
	void (*fill)(void *state, uint32_t frame);

	/* Instead of all these: 0, -ENOMEM, or -ECANCELED as replay_going says. */
	int (*replay)(const struct replay_job *job);
	bool all_sizes;	   /* replay does all sizes of a job at once */
	bool wants_future; /* replay uses job->next */
};

extern const struct policy_ops policy_fifo, policy_clock, policy_lru, policy_gen, policy_random,
	policy_opt;

/* All of them, NULL at the end. */
extern const struct policy_ops *const policies[];

/* By its name; NULL. */
const struct policy_ops *policy_find(const char *name);

#endif
