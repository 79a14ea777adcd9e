/* SPDX-License-Identifier: Apache-2.0 */
/* The list of policies, and the three simplest. */
#include "mem/policy.h"

#include <stdlib.h>
#include <string.h>

const struct policy_ops *const policies[] = {
	&policy_fifo, &policy_clock, &policy_lru, &policy_gen, &policy_random, &policy_opt, NULL,
};

const struct policy_ops *policy_find(const char *name)
{
	for (unsigned i = 0; policies[i]; i++)
		if (!strcmp(policies[i]->name, name))
			return policies[i];
	return NULL;
}

/* ---- fifo: frames were filled in order, so they are emptied in order ---- */

struct fifo {
	uint32_t frames, oldest;
};

static void *fifo_create(uint32_t frames, const struct policy_params *params)
{
	struct fifo *f = calloc(1, sizeof(*f));

	(void)params;
	if (f)
		f->frames = frames;
	return f;
}

static uint32_t fifo_victim(void *state)
{
	struct fifo *f = state;
	uint32_t frame = f->oldest;

	f->oldest = frame + 1 == f->frames ? 0 : frame + 1;
	return frame;
}

static void fifo_fill(void *state, uint32_t frame)
{
	(void)state, (void)frame;
}

const struct policy_ops policy_fifo = {
	.name = "fifo",
	.about = "the page that came first leaves first",
	.create = fifo_create,
	.destroy = free,
	.victim = fifo_victim,
	.fill = fifo_fill,
};

/* ---- clock: fifo, but what was referenced since the hand passed gets a second chance ---- */

struct clock {
	uint32_t frames, hand;
	uint8_t referenced[]; /* [frames] */
};

static void *clock_create(uint32_t frames, const struct policy_params *params)
{
	struct clock *c = calloc(1, sizeof(*c) + frames);

	(void)params;
	if (c)
		c->frames = frames;
	return c;
}

static void clock_hit(void *state, uint32_t frame)
{
	struct clock *c = state;

	c->referenced[frame] = 1;
}

static uint32_t clock_victim(void *state)
{
	struct clock *c = state;

	for (;;) {
		uint32_t frame = c->hand;
		c->hand = frame + 1 == c->frames ? 0 : frame + 1;
		if (!c->referenced[frame])
			return frame;
		c->referenced[frame] = 0;
	}
}

const struct policy_ops policy_clock = {
	.name = "clock",
	.about =
		"second chance: fifo, but passes over what was referenced since its hand's last pass",
	.create = clock_create,
	.destroy = free,
	.hit = clock_hit,
	.victim = clock_victim,
	/* The reference that brings a page in is one. */
	.fill = clock_hit,
};

/* ---- random ---- */

struct dice {
	uint64_t x;
	uint32_t frames;
};

static void *random_create(uint32_t frames, const struct policy_params *params)
{
	struct dice *d = calloc(1, sizeof(*d));

	if (d)
		*d = (struct dice){.x = params->seed, .frames = frames};
	return d;
}

static uint32_t random_victim(void *state)
{
	struct dice *d = state;
	/* splitmix64 (Steele, Lea, Flood 2014); its upper half scaled to the frames. */
	uint64_t z = d->x += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (uint32_t)((z >> 32) * d->frames >> 32);
}

const struct policy_ops policy_random = {
	.name = "random",
	.about = "any page: what a policy has to beat",
	.create = random_create,
	.destroy = free,
	.victim = random_victim,
	.fill = fifo_fill,
};
