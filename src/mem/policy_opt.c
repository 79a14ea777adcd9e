/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opt (Belady 1966): the page whose next reference is farthest away leaves. No policy misses less;
 * none that runs in a machine can do it, as it needs the future.
 *
 * The pages in memory are kept as the places in the trace where they are referenced next: one bit
 * for each place, and above each 64 bits one bit that says whether any is set, and so on. Then a
 * reference hits when the bit of its own place is set, and the victim is the last bit of all. Pages
 * that are never referenced again have no bit: they leave first, and it is enough to know how many
 * there are. Of these, clean ones are taken before dirty ones. (opt is best in misses; in
 * write-backs it need not be.)
 */
#include <errno.h>
#include <stdlib.h>

#include "mem/replay.h"

enum { LEVELS = 6 }; /* 64^6 > 2^32 places */

struct opt {
	uint64_t *level[LEVELS]; /* 0: the places */
	unsigned levels;
	uint8_t *dirty; /* [pages] */
	uint64_t resident, gone_clean, gone_dirty;
};

static void opt_free(struct opt *o)
{
	for (unsigned i = 0; i < o->levels; i++)
		free(o->level[i]);
	free(o->dirty);
}

static int opt_create(struct opt *o, const struct page_trace *t)
{
	uint64_t n = t->refs;

	*o = (struct opt){.dirty = calloc((size_t)t->pages + 1, 1)};
	if (!o->dirty)
		return -ENOMEM;
	do {
		n = (n + 63) / 64;
		o->level[o->levels] = calloc(n + !n, sizeof(uint64_t));
		if (!o->level[o->levels]) {
			opt_free(o);
			return -ENOMEM;
		}
		o->levels++;
	} while (n > 1);
	return 0;
}

static void set_place(struct opt *o, uint32_t place)
{
	for (unsigned i = 0; i < o->levels; i++) {
		uint64_t *word = &o->level[i][place / 64], before = *word;
		*word |= UINT64_C(1) << place % 64;
		if (before)
			break;
		place /= 64;
	}
}

static void clear_place(struct opt *o, uint32_t place)
{
	for (unsigned i = 0; i < o->levels; i++) {
		uint64_t *word = &o->level[i][place / 64];
		*word &= ~(UINT64_C(1) << place % 64);
		if (*word)
			break;
		place /= 64;
	}
}

/* There is one. */
static uint32_t last_place(const struct opt *o)
{
	uint32_t place = 0;

	for (unsigned i = o->levels; i--;)
		place = place * 64 + 63 - (uint32_t)__builtin_clzll(o->level[i][place]);
	return place;
}

static void evict(struct opt *o, const struct page_trace *t, struct replay_count *count)
{
	if (o->gone_clean) {
		o->gone_clean--;
	} else if (o->gone_dirty) {
		o->gone_dirty--;
		count->written_back++;
	} else {
		uint32_t place = last_place(o);
		clear_place(o, place);
		count->written_back += o->dirty[t->ref[place] >> PAGE_TRACE_ID_SHIFT];
	}
	o->resident--;
}

static void reference(struct opt *o, const struct replay_job *job, uint32_t place,
		      struct replay_count *count)
{
	uint32_t ref = job->trace->ref[place], page = ref >> PAGE_TRACE_ID_SHIFT;
	uint8_t write = ref & PAGE_TRACE_WRITE;

	if (o->level[0][place / 64] >> place % 64 & 1) {
		clear_place(o, place);
		o->dirty[page] |= write;
	} else {
		count->misses++;
		if (o->resident == job->frames[0])
			evict(o, job->trace, count);
		o->resident++;
		o->dirty[page] = write;
	}
	if (job->next[place] != REPLAY_NEVER)
		set_place(o, job->next[place]);
	else if (o->dirty[page])
		o->gone_dirty++;
	else
		o->gone_clean++;
}

static int opt_replay(const struct replay_job *job)
{
	size_t refs = job->trace->refs;
	struct opt o;
	int rc = opt_create(&o, job->trace);

	if (rc)
		return rc;
	for (size_t i = 0; i < refs && !rc;) {
		size_t n = refs - i < REPLAY_CHUNK ? refs - i : REPLAY_CHUNK;
		for (size_t end = i + n; i < end; i++)
			reference(&o, job, (uint32_t)i, job->out);
		if (!replay_going(job->shared, n))
			rc = -ECANCELED;
	}
	opt_free(&o);
	return rc;
}

const struct policy_ops policy_opt = {
	.name = "opt",
	.about = "Belady's optimum: the page that is needed again last leaves; needs the future",
	.replay = opt_replay,
	.wants_future = true,
};
