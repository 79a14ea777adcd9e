/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gen: generations. Time passes in epochs of frames / gen_share faults. A page belongs to the
 * generation (8 bits) of the epoch in which a reference to it was last seen; not every reference is
 * seen, as a machine looks at the referenced bits only now and then. Victims come from the oldest
 * generation, the one that has been in it longest first.
 *
 *     oldest                                    epoch
 *     [ g h ] [ ] [ a ] ............... [ c d ] [ e f b ]
 *       ^ victim                                      ^ seen or filled: to the end
 *
 * So the order within an epoch is lost, and with it some of what LRU knows; in exchange a reference
 * costs a byte, and only the first in an epoch that. The numbers wrap: when a new epoch needs the
 * number of the oldest generation, that is joined with the one after it.
 */
#include <stdlib.h>

#include "mem/policy.h"

enum { GENERATIONS = 256 };

struct gen {
	uint32_t frames, faults, epoch_faults, sample, until_sample;
	uint64_t x;
	uint8_t epoch, oldest; /* no page is in a generation before oldest */
	uint8_t *of;	       /* [frames]: its generation */
	/* Rings of frames; frames + g is the head of generation g's. */
	uint32_t *next, *prev;
};

static void gen_destroy(void *state)
{
	struct gen *g = state;

	free(g->of);
	free(g->next);
	free(g->prev);
	free(g);
}

/* How many hits to the next that is seen: uniform from 1 to 2 * sample - 1, sample in the mean, so
 * that a loop of the guest never runs in step with it. xorshift64 (Marsaglia 2003). */
static uint32_t gap(struct gen *g)
{
	g->x ^= g->x << 13;
	g->x ^= g->x >> 7;
	g->x ^= g->x << 17;
	return 1 + (uint32_t)((g->x >> 32) * (2 * (uint64_t)g->sample - 1) >> 32);
}

static void *gen_create(uint32_t frames, const struct policy_params *params)
{
	struct gen *g = calloc(1, sizeof(*g));
	size_t nodes = (size_t)frames + GENERATIONS;

	if (!g)
		return NULL;
	g->frames = frames;
	g->epoch_faults = frames / params->gen_share ? frames / params->gen_share : 1;
	g->sample = params->gen_sample;
	g->x = params->seed ? params->seed : 1;
	g->until_sample = gap(g);
	g->of = calloc(frames, 1);
	g->next = malloc(nodes * sizeof(*g->next));
	g->prev = malloc(nodes * sizeof(*g->prev));
	if (!g->of || !g->next || !g->prev) {
		gen_destroy(g);
		return NULL;
	}
	/* Alone: heads of empty rings, and frames in none, which can be taken out all the same. */
	for (size_t i = 0; i < nodes; i++)
		g->next[i] = g->prev[i] = (uint32_t)i;
	return g;
}

static void unlink_frame(struct gen *g, uint32_t frame)
{
	g->next[g->prev[frame]] = g->next[frame];
	g->prev[g->next[frame]] = g->prev[frame];
}

/* Puts it at the end of the present generation. */
static void stamp(struct gen *g, uint32_t frame)
{
	uint32_t head = g->frames + g->epoch, last;

	unlink_frame(g, frame);
	last = g->prev[head];
	g->of[frame] = g->epoch;
	g->next[last] = frame;
	g->prev[frame] = last;
	g->next[frame] = head;
	g->prev[head] = frame;
}

static void gen_hit(void *state, uint32_t frame)
{
	struct gen *g = state;

	if (--g->until_sample)
		return;
	g->until_sample = g->sample == 1 ? 1 : gap(g);
	if (g->of[frame] != g->epoch)
		stamp(g, frame);
}

/* The oldest generation's pages go before those of the one after it. */
static void join_oldest(struct gen *g)
{
	uint32_t from = g->frames + g->oldest, to = g->frames + (uint8_t)(g->oldest + 1);
	uint32_t first = g->next[from], last = g->prev[from], then = g->next[to];

	g->oldest++;
	if (first == from)
		return;
	for (uint32_t i = first; i != from; i = g->next[i])
		g->of[i] = g->oldest;
	g->next[to] = first;
	g->prev[first] = to;
	g->next[last] = then;
	g->prev[then] = last;
	g->next[from] = g->prev[from] = from;
}

static void gen_fill(void *state, uint32_t frame)
{
	struct gen *g = state;

	stamp(g, frame);
	if (++g->faults < g->epoch_faults)
		return;
	g->faults = 0;
	if ((uint8_t)(g->epoch + 1) == g->oldest)
		join_oldest(g);
	g->epoch++;
}

static uint32_t gen_victim(void *state)
{
	struct gen *g = state;

	while (g->next[g->frames + g->oldest] == g->frames + g->oldest)
		g->oldest++;
	return g->next[g->frames + g->oldest];
}

const struct policy_ops policy_gen = {
	.name = "gen",
	.about = "generations: from those not seen referenced for the most epochs",
	.create = gen_create,
	.destroy = gen_destroy,
	.hit = gen_hit,
	.victim = gen_victim,
	.fill = gen_fill,
};
