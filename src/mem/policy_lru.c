/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lru, exactly and for every number of frames in one pass (Mattson, Gecsei, Slutz, Traiger 1970).
 *
 * Put the pages on a stack, the one referenced last on top. With n frames LRU holds the upper n, so
 * a reference to the page at depth d hits with d frames or more. Depths are counted without a
 * stack: each page has a mark where its last reference stands in time, and its depth is the number
 * of marks from there on. Marks are bits; a Fenwick tree (1994) has the sums of their words. When
 * the line of time is full the marks move together.
 *
 *     time   . x . . x x . x . . x|       page last referenced at the second x:
 *                    ^-----------^        depth 4
 *
 * Write-backs (Thompson, Smith 1989): a page that was written is dirty with d frames and more, d
 * being the greatest depth at which it has been found since; with fewer it has left and was written
 * back, so at each depth at which it is found those between are counted.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mem/replay.h"

#define CLEAN UINT32_MAX /* dirty with that many frames: never */

struct stack {
	uint32_t pages, words, capacity; /* of the line of time */
	uint32_t at, marks;
	uint64_t *bits;	   /* [words] */
	uint32_t *tree;	   /* [words + 1], Fenwick's, from 1 */
	uint32_t *page_at; /* [capacity] */
	uint32_t *mark;	   /* [pages]: where in time; CLEAN: nowhere yet */
	uint32_t *dirty;   /* [pages]: with so many frames and more */
	uint64_t *found;   /* [pages + 1]: references that found their page at that depth */
	int64_t *written;  /* [pages + 2]: write-backs; differences to one frame fewer */
};

static void stack_free(struct stack *s)
{
	free(s->bits);
	free(s->tree);
	free(s->page_at);
	free(s->mark);
	free(s->dirty);
	free(s->found);
	free(s->written);
}

static int stack_create(struct stack *s, uint32_t pages)
{
	uint64_t capacity = 2 * (uint64_t)pages + 1024;

	*s = (struct stack){.pages = pages};
	s->words = (uint32_t)((capacity + 63) / 64);
	s->capacity = s->words * 64;
	s->bits = calloc(s->words, sizeof(*s->bits));
	s->tree = calloc((size_t)s->words + 1, sizeof(*s->tree));
	s->page_at = malloc((size_t)s->capacity * sizeof(*s->page_at));
	s->mark = malloc(((size_t)pages + 1) * sizeof(*s->mark));
	s->dirty = malloc(((size_t)pages + 1) * sizeof(*s->dirty));
	s->found = calloc((size_t)pages + 1, sizeof(*s->found));
	s->written = calloc((size_t)pages + 2, sizeof(*s->written));
	if (!s->bits || !s->tree || !s->page_at || !s->mark || !s->dirty || !s->found ||
	    !s->written) {
		stack_free(s);
		return -ENOMEM;
	}
	memset(s->mark, 0xff, (size_t)pages * sizeof(*s->mark));
	memset(s->dirty, 0xff, (size_t)pages * sizeof(*s->dirty));
	return 0;
}

static void tree_add(struct stack *s, uint32_t word, uint32_t n)
{
	for (uint32_t i = word + 1; i <= s->words; i += i & -i)
		s->tree[i] += n;
}

/* Marks before a place in time. */
static uint32_t marks_before(const struct stack *s, uint32_t place)
{
	uint64_t below = s->bits[place / 64] & ((UINT64_C(1) << place % 64) - 1);
	uint32_t n = (uint32_t)__builtin_popcountll(below);

	for (uint32_t i = place / 64; i; i -= i & -i)
		n += s->tree[i];
	return n;
}

static void set_mark(struct stack *s, uint32_t page)
{
	s->bits[s->at / 64] |= UINT64_C(1) << s->at % 64;
	tree_add(s, s->at / 64, 1);
	s->page_at[s->at] = page;
	s->mark[page] = s->at++;
	s->marks++;
}

static void clear_mark(struct stack *s, uint32_t page)
{
	uint32_t place = s->mark[page];

	s->bits[place / 64] &= ~(UINT64_C(1) << place % 64);
	tree_add(s, place / 64, UINT32_MAX); /* - 1 */
	s->marks--;
}

/* Has all marks stand side by side again, in their order. */
static void move_together(struct stack *s)
{
	uint32_t to = 0;

	for (uint32_t place = 0; place < s->at; place++) {
		if (!(s->bits[place / 64] >> place % 64 & 1))
			continue;
		uint32_t page = s->page_at[place];
		s->page_at[to] = page;
		s->mark[page] = to++;
	}
	memset(s->bits, 0, s->words * sizeof(*s->bits));
	memset(s->tree, 0, ((size_t)s->words + 1) * sizeof(*s->tree));
	s->at = s->marks = 0;
	for (uint32_t i = 0; i < to; i++)
		set_mark(s, s->page_at[i]);
}

/* The page was found at depth, or is at the end of the trace. */
static void found_at(struct stack *s, uint32_t page, uint32_t depth)
{
	if (s->dirty[page] >= depth)
		return;
	s->written[s->dirty[page]]++;
	s->written[depth]--;
	s->dirty[page] = depth;
}

static void reference(struct stack *s, uint32_t ref)
{
	uint32_t page = ref >> PAGE_TRACE_ID_SHIFT;

	if (s->at == s->capacity)
		move_together(s);
	if (s->mark[page] != CLEAN) {
		uint32_t depth = s->marks - marks_before(s, s->mark[page]);
		s->found[depth]++;
		found_at(s, page, depth);
		if (depth > 1) {
			clear_mark(s, page);
			set_mark(s, page);
		}
	} else {
		set_mark(s, page);
	}
	if (ref & PAGE_TRACE_WRITE)
		s->dirty[page] = 1;
}

/* Pages that are dirty when the trace ends left with fewer frames than their depth. */
static void finish(struct stack *s, uint64_t refs, struct replay_count *count)
{
	uint32_t depth = s->marks;
	uint64_t misses = refs;
	int64_t written = 0;

	for (uint32_t place = 0; place < s->at; place++)
		if (s->bits[place / 64] >> place % 64 & 1)
			found_at(s, s->page_at[place], depth--);
	for (uint32_t frames = 0; frames <= s->pages; frames++) {
		misses -= s->found[frames];
		written += s->written[frames];
		count[frames] = (struct replay_count){misses, (uint64_t)written};
	}
}

/* going gets each chunk's number of references. */
static int curve(const struct page_trace *t, bool (*going)(void *opaque, size_t refs), void *opaque,
		 struct replay_count **out)
{
	struct replay_count *count = malloc(((size_t)t->pages + 1) * sizeof(*count));
	struct stack s;
	int rc = count ? stack_create(&s, t->pages) : -ENOMEM;

	*out = NULL;
	if (rc) {
		free(count);
		return rc;
	}
	for (size_t i = 0; i < t->refs && !rc;) {
		size_t n = t->refs - i < REPLAY_CHUNK ? t->refs - i : REPLAY_CHUNK;
		for (size_t end = i + n; i < end; i++)
			reference(&s, t->ref[i]);
		if (!going(opaque, n))
			rc = -ECANCELED;
	}
	if (!rc) {
		finish(&s, t->refs, count);
		*out = count;
	} else {
		free(count);
	}
	stack_free(&s);
	return rc;
}

static bool job_going(void *opaque, size_t refs)
{
	return replay_going(opaque, refs);
}

static int lru_replay(const struct replay_job *job)
{
	uint32_t pages = job->trace->pages;
	struct replay_count *count;
	int rc = curve(job->trace, job_going, job->shared, &count);

	for (unsigned i = 0; !rc && i < job->sizes; i++)
		job->out[i] = count[job->frames[i] < pages ? job->frames[i] : pages];
	free(count);
	return rc;
}

const struct policy_ops policy_lru = {
	.name = "lru",
	.about = "the page that was not referenced for the longest time leaves",
	.replay = lru_replay,
	.all_sizes = true,
};

struct alone {
	const struct trace_progress *progress;
	uint64_t done, total;
};

static bool alone_going(void *opaque, size_t refs)
{
	struct alone *a = opaque;

	a->done += refs;
	return !a->progress || !a->progress->fn ||
	       !a->progress->fn(a->progress->opaque, a->done, a->total);
}

int replay_lru_curve(const struct page_trace *t, const struct trace_progress *progress,
		     struct replay_count **count)
{
	struct alone a = {.progress = progress, .total = t->refs};

	return curve(t, alone_going, &a, count);
}
