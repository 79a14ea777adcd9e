/* SPDX-License-Identifier: Apache-2.0 */
/* mem/replay.h: textbook answers, and each policy against another way to say the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "mem/replay.h"

static uint64_t dice_state;

static uint64_t dice(void)
{
	uint64_t z = dice_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static struct page_trace *empty(void)
{
	const struct trace_info info = {.page_bytes = 4096,
					.sampling = TRACE_SYNTHETIC,
					.sample_period = 1,
					.ram_pages = 1 << 20,
					.end_page = 1 << 20};
	struct page_trace *t = page_trace_new(&info);

	assert_non_null(t);
	return t;
}

static void add(struct page_trace *t, uint64_t page, bool write)
{
	const struct trace_record r = {.page = page, .write = write, .ns = t->refs};

	assert_int_equal(page_trace_add(t, &r), 0);
}

/* "1 2w 3": pages, those written with a w. */
static struct page_trace *trace_of(const char *text)
{
	struct page_trace *t = empty();
	char *end;

	for (; *text; text = end) {
		uint64_t page = strtoull(text, &end, 10);
		add(t, page, *end == 'w');
		end += *end == 'w';
	}
	return t;
}

/* Hot and cold pages, loops and jumps: short ones have ties, long ones wrap whatever wraps. */
static struct page_trace *random_trace(unsigned refs, unsigned pages)
{
	struct page_trace *t = empty();
	unsigned loop = 0;

	for (unsigned i = 0; i < refs; i++) {
		uint64_t page = dice() % pages;
		switch (dice() % 4) {
		case 0:
			page = page * page / pages;
			break;
		case 1:
			page = page * page / pages * page / pages;
			break;
		case 2:
			page = loop++ % pages;
			break;
		}
		add(t, page * 7, dice() % 4 == 0);
	}
	return t;
}

static struct replay_count run_with(const struct page_trace *t, const struct policy_ops *policy,
				    uint64_t frames, struct policy_params params)
{
	const struct replay_options o = {.policy = &policy,
					 .policies = 1,
					 .frames = &frames,
					 .sizes = 1,
					 .params = params,
					 .threads = 1};
	struct replay_count count;

	assert_int_equal(replay_run(t, &o, &count), 0);
	return count;
}

static struct replay_count run(const struct page_trace *t, const struct policy_ops *policy,
			       uint64_t frames)
{
	return run_with(t, policy, frames, POLICY_PARAMS_DEFAULT);
}

/* ---- known answers ---- */

static void textbooks(void **state)
{
	/* Belady, Nelson, Shedler 1969: FIFO with more frames misses more. */
	static const char anomaly[] = "1 2 3 4 1 2 5 1 2 3 4 5";
	/* Silberschatz, Galvin, Gagne, Operating System Concepts, 9.4 (10.4 in later ones). */
	static const char osc[] = "7 0 1 2 0 3 0 4 2 3 0 3 2 1 2 0 1 7 0 1";
	static const struct {
		const char *trace;
		const struct policy_ops *policy;
		unsigned frames, misses;
	} known[] = {
		{anomaly, &policy_fifo, 3, 9},
		{anomaly, &policy_fifo, 4, 10},
		{anomaly, &policy_lru, 3, 10},
		{anomaly, &policy_lru, 4, 8},
		{anomaly, &policy_opt, 3, 7},
		{anomaly, &policy_opt, 4, 6},
		{anomaly, &policy_fifo, 5, 5},
		{anomaly, &policy_opt, 5, 5},
		{osc, &policy_fifo, 3, 15},
		{osc, &policy_opt, 3, 9},
		{osc, &policy_lru, 3, 12},
		{osc, &policy_clock, 3, 14},
		{osc, &policy_fifo, 1, 20},
		{osc, &policy_lru, 1, 20},
		{osc, &policy_opt, 6, 6},
		{osc, &policy_lru, 7, 6},
		/* A loop one page too long: LRU never hits, OPT keeps all but one. */
		{"1 2 3 4 1 2 3 4 1 2 3 4", &policy_lru, 3, 12},
		{"1 2 3 4 1 2 3 4 1 2 3 4", &policy_opt, 3, 6},
		/* Clock: 1 was referenced when 4 comes, all were; 2 goes when 5 comes, 1 went for 4.
		 * The reference to 3 saves it when 6 comes. */
		{"1 2 3 4 5 3 6 3", &policy_clock, 3, 7},
		{"1 2 3 4 3 5 3", &policy_clock, 3, 5},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct page_trace *t = trace_of(known[i].trace);
		struct replay_count c = run(t, known[i].policy, known[i].frames);
		if (c.misses != known[i].misses)
			fail_msg("%s, %u frames, %s: %u misses, not %u", known[i].policy->name,
				 known[i].frames, known[i].trace, (unsigned)c.misses,
				 known[i].misses);
		page_trace_free(t);
	}
}

static void write_backs(void **state)
{
	static const struct {
		const char *trace;
		const struct policy_ops *policy;
		unsigned frames, written;
	} known[] = {
		{"1w 2 3", &policy_fifo, 2, 1},
		{"1w 2 3", &policy_lru, 2, 1},
		{"1w 2 3", &policy_lru, 3, 0},
		/* It came back clean. */
		{"1w 2 3 1 2 3 1", &policy_lru, 2, 1},
		{"1w 2 3 1w 2 3 1", &policy_lru, 2, 2},
		/* Written while it was there. */
		{"1 1w 2 3", &policy_fifo, 2, 1},
		{"1 1w 2 3", &policy_clock, 2, 1},
		{"1 1w 2 3", &policy_gen, 2, 1},
		/* 1 is never needed again, and neither is 2, which is clean. */
		{"1w 2 3", &policy_opt, 2, 0},
		{"1w 2w 3", &policy_opt, 2, 1},
		{"1w 2 3 2 1", &policy_opt, 2, 1},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct page_trace *t = trace_of(known[i].trace);
		struct replay_count c = run(t, known[i].policy, known[i].frames);
		if (c.written_back != known[i].written)
			fail_msg("%s, %u frames, %s: %u written, not %u", known[i].policy->name,
				 known[i].frames, known[i].trace, (unsigned)c.written_back,
				 known[i].written);
		page_trace_free(t);
	}
}

/* ---- another way to say the same ---- */

/*
 * A list of what is in memory, the next victim first; slow and plain. keep[] tells what a hit does:
 * lru moves the page to the end. clock notes it, and whoever was noted is sent to the end once
 * instead of leaving. gen moves it if its epoch is not the present one; epochs are plain numbers.
 * opt looks through the rest of the trace.
 */
struct slow {
	const struct policy_ops *policy;
	uint32_t page[600];
	uint64_t note[600]; /* clock: referenced; gen: epoch */
	bool dirty[600];
	unsigned used, frames;
	uint64_t epoch, faults;
};

static void to_end(struct slow *s, unsigned i)
{
	uint32_t page = s->page[i];
	uint64_t note = s->note[i];
	bool dirty = s->dirty[i];

	for (; i + 1 < s->used; i++) {
		s->page[i] = s->page[i + 1];
		s->note[i] = s->note[i + 1];
		s->dirty[i] = s->dirty[i + 1];
	}
	s->page[i] = page;
	s->note[i] = note;
	s->dirty[i] = dirty;
}

static size_t next_use(const struct page_trace *t, size_t at, uint32_t page)
{
	while (++at < t->refs && t->ref[at] >> PAGE_TRACE_ID_SHIFT != page)
		;
	return at;
}

static unsigned slow_victim(struct slow *s, const struct page_trace *t, size_t at)
{
	unsigned victim = 0;

	if (s->policy == &policy_clock) {
		while (s->note[0]) {
			s->note[0] = 0;
			to_end(s, 0);
		}
	}
	if (s->policy == &policy_opt) {
		size_t far = next_use(t, at, s->page[0]);
		for (unsigned i = 1; i < s->used; i++) {
			size_t next = next_use(t, at, s->page[i]);
			if (next > far || (next == far && !s->dirty[i])) {
				far = next;
				victim = i;
			}
		}
	}
	return victim;
}

static void slow_hit(struct slow *s, unsigned i, bool write)
{
	s->dirty[i] |= write;
	if (s->policy == &policy_lru)
		to_end(s, i);
	if (s->policy == &policy_clock)
		s->note[i] = 1;
	if (s->policy == &policy_gen && s->note[i] != s->epoch) {
		s->note[i] = s->epoch;
		to_end(s, i);
	}
}

static struct replay_count slow_run(const struct page_trace *t, const struct policy_ops *policy,
				    unsigned frames, unsigned share)
{
	struct slow s = {.policy = policy, .frames = frames};
	struct replay_count count = {0};

	for (size_t at = 0; at < t->refs; at++) {
		uint32_t page = t->ref[at] >> PAGE_TRACE_ID_SHIFT;
		bool write = t->ref[at] & PAGE_TRACE_WRITE;
		unsigned i = 0;
		while (i < s.used && s.page[i] != page)
			i++;
		if (i < s.used) {
			slow_hit(&s, i, write);
			continue;
		}
		count.misses++;
		if (s.used == frames) {
			unsigned victim = slow_victim(&s, t, at);
			count.written_back += s.dirty[victim];
			to_end(&s, victim);
			s.used--;
		}
		s.page[s.used] = page;
		s.dirty[s.used] = write;
		s.note[s.used++] = policy == &policy_clock ? 1 : s.epoch;
		if (++s.faults >= (frames / share ? frames / share : 1)) {
			s.faults = 0;
			s.epoch++;
		}
	}
	return count;
}

static void as_the_slow_way(void **state)
{
	static const struct policy_ops *const which[] = {&policy_fifo, &policy_clock, &policy_lru,
							 &policy_gen, &policy_opt};

	(void)state;
	dice_state = 3;
	for (unsigned round = 0; round < 120; round++) {
		unsigned pages = 1 + (unsigned)(dice() % 40);
		struct page_trace *t = random_trace(1 + (unsigned)(dice() % 600), pages);
		for (unsigned p = 0; p < 5; p++) {
			unsigned frames = 1 + (unsigned)(dice() % (pages + 2));
			struct replay_count got = run(t, which[p], frames);
			struct replay_count want = slow_run(t, which[p], frames, POLICY_GEN_SHARE);
			if (got.misses != want.misses || got.written_back != want.written_back)
				fail_msg("round %u, %s, %u frames, %zu references to %u pages: %u "
					 "misses, %u written; the slow way %u, %u",
					 round, which[p]->name, frames, t->refs, t->pages,
					 (unsigned)got.misses, (unsigned)got.written_back,
					 (unsigned)want.misses, (unsigned)want.written_back);
		}
		page_trace_free(t);
	}
}

/* With an epoch for each fault, pages that are not seen again stay for more than gen's 256
 * generations, which go round many times. */
static void generations_wrap(void **state)
{
	struct policy_params params = POLICY_PARAMS_DEFAULT;
	struct page_trace *t = empty();

	(void)state;
	dice_state = 5;
	params.gen_share = 1000;
	for (unsigned i = 0; i < 20000; i++)
		add(t, dice() % 3 ? dice() % 700 : dice() % 40, dice() & 1);
	for (unsigned frames = 290; frames < 600; frames += 77) {
		struct replay_count got = run_with(t, &policy_gen, frames, params);
		struct replay_count want = slow_run(t, &policy_gen, frames, 1000);
		assert_int_equal(got.misses, want.misses);
		assert_int_equal(got.written_back, want.written_back);
		assert_true(got.misses > 2000);
	}
	page_trace_free(t);
}

/* OPT by trying everything: the fewest misses that any sequence of victims has. */
static unsigned try_all(const struct page_trace *t, size_t at, uint32_t in_memory, unsigned frames)
{
	unsigned best = UINT32_MAX;

	for (; at < t->refs; at++) {
		uint32_t page = UINT32_C(1) << (t->ref[at] >> PAGE_TRACE_ID_SHIFT);
		if (in_memory & page)
			continue;
		if ((unsigned)__builtin_popcount(in_memory) < frames)
			return 1 + try_all(t, at + 1, in_memory | page, frames);
		for (uint32_t rest = in_memory; rest; rest &= rest - 1) {
			uint32_t victim = rest & -rest;
			unsigned n = 1 + try_all(t, at + 1, (in_memory & ~victim) | page, frames);
			best = n < best ? n : best;
		}
		return best;
	}
	return 0;
}

static void nothing_beats_opt(void **state)
{
	(void)state;
	dice_state = 11;
	for (unsigned round = 0; round < 60; round++) {
		struct page_trace *t = random_trace(1 + (unsigned)(dice() % 15), 5);
		for (unsigned frames = 1; frames <= 4; frames++)
			assert_int_equal(run(t, &policy_opt, frames).misses,
					 try_all(t, 0, 0, frames));
		page_trace_free(t);
	}
	for (unsigned round = 0; round < 10; round++) {
		struct page_trace *t = random_trace(20000, 500);
		for (unsigned i = 0; i < 8; i++) {
			uint64_t frames = 1 + dice() % 500,
				 opt = run(t, &policy_opt, frames).misses;
			for (unsigned p = 0; policies[p]; p++)
				assert_true(run(t, policies[p], frames).misses >= opt);
			assert_true(opt >= t->pages);
		}
		page_trace_free(t);
	}
}

/* ---- the whole ---- */

/* All policies and sizes at once, by threads, are what each is alone. */
static void all_at_once(void **state)
{
	uint64_t frames[] = {1, 3, 10, 100, 299, 300, 301, UINT64_MAX};
	struct replay_options o = {.policy = policies,
				   .frames = frames,
				   .sizes = 8,
				   .params = POLICY_PARAMS_DEFAULT,
				   .threads = 4};
	struct replay_count all[8 * 8];
	struct page_trace *t;

	(void)state;
	dice_state = 9;
	t = random_trace(30000, 300);
	assert_int_equal(t->pages, 300);
	while (policies[o.policies])
		o.policies++;
	assert_in_range(o.policies, 6, 8);
	assert_int_equal(replay_run(t, &o, all), 0);
	for (unsigned p = 0; p < o.policies; p++)
		for (unsigned i = 0; i < 8; i++) {
			struct replay_count one = run(t, policies[p], frames[i]);
			assert_memory_equal(&one, &all[p * 8 + i], sizeof(one));
			/* Enough frames for all: only cold misses, nothing leaves. */
			if (frames[i] >= 300) {
				assert_int_equal(one.misses, 300);
				assert_int_equal(one.written_back, 0);
			}
		}
	page_trace_free(t);
}

static void curve(void **state)
{
	struct page_trace *t = random_trace(5000, 64);
	struct replay_count *count;
	uint64_t found = 0;

	(void)state;
	assert_int_equal(replay_lru_curve(t, NULL, &count), 0);
	assert_int_equal(count[0].misses, t->refs);
	for (unsigned frames = 1; frames <= t->pages; frames++) {
		struct replay_count slow = slow_run(t, &policy_lru, frames, POLICY_GEN_SHARE);
		assert_int_equal(count[frames].misses, slow.misses);
		assert_int_equal(count[frames].written_back, slow.written_back);
		/* A stack: more frames never miss more. */
		assert_true(count[frames].misses <= count[frames - 1].misses);
		found += count[frames - 1].misses - count[frames].misses;
	}
	assert_int_equal(found + t->pages, t->refs);
	free(count);
	page_trace_free(t);
}

static void no_references(void **state)
{
	struct page_trace *t = empty();
	struct replay_count *count, none = {0};

	(void)state;
	for (unsigned p = 0; policies[p]; p++) {
		struct replay_count c = run(t, policies[p], 5);
		assert_memory_equal(&c, &none, sizeof(c));
	}
	assert_int_equal(replay_lru_curve(t, NULL, &count), 0);
	assert_memory_equal(count, &none, sizeof(none));
	free(count);
	page_trace_free(t);
}

/* gen that sees no reference but those that miss is fifo; what it sees less of, it knows less of. */
static void parameters(void **state)
{
	struct policy_params params = POLICY_PARAMS_DEFAULT;
	struct page_trace *t;

	(void)state;
	dice_state = 21;
	t = random_trace(100000, 400);
	struct replay_count fifo = run(t, &policy_fifo, 100), lru = run(t, &policy_lru, 100);
	uint64_t seen_all = run(t, &policy_gen, 100).misses;
	params.gen_sample = UINT32_MAX;
	struct replay_count none = run_with(t, &policy_gen, 100, params);
	assert_memory_equal(&none, &fifo, sizeof(fifo));
	params.gen_sample = 10;
	uint64_t seen_some = run_with(t, &policy_gen, 100, params).misses;
	assert_true(lru.misses < seen_all && seen_all < seen_some && seen_some < fifo.misses);
	/* With an epoch for each fault it is LRU but for the order of hits between two faults. */
	params = POLICY_PARAMS_DEFAULT;
	params.gen_share = 100;
	uint64_t fine = run_with(t, &policy_gen, 100, params).misses;
	assert_true(fine < seen_all && fine < lru.misses + lru.misses / 50);
	/* random: another seed, another run, about as good. */
	uint64_t one = run(t, &policy_random, 100).misses;
	params.seed = 2;
	uint64_t two = run_with(t, &policy_random, 100, params).misses;
	assert_true(one != two);
	assert_in_range(two, one - one / 20, one + one / 20);
	page_trace_free(t);
}

static int stop_soon(void *opaque, uint64_t done, uint64_t total)
{
	(*(unsigned *)opaque)++;
	assert_true(done <= total);
	return 1;
}

static int stop_never(void *opaque, uint64_t done, uint64_t total)
{
	(*(unsigned *)opaque)++;
	assert_true(done <= total);
	return 0;
}

static void stopped(void **state)
{
	uint64_t frames[100];
	unsigned calls = 0;
	struct replay_options o = {.policy = policies,
				   .policies = 6,
				   .frames = frames,
				   .sizes = 100,
				   .params = POLICY_PARAMS_DEFAULT,
				   .threads = 2,
				   .progress = {stop_soon, &calls}};
	struct replay_count *out = calloc(600, sizeof(*out)), *count;
	struct page_trace *t = random_trace(300000, 3000);

	(void)state;
	for (unsigned i = 0; i < 100; i++)
		frames[i] = i + 1;
	assert_int_equal(replay_run(t, &o, out), -ECANCELED);
	assert_true(calls);
	calls = 0;
	assert_int_equal(replay_lru_curve(t, &(struct trace_progress){stop_soon, &calls}, &count),
			 -ECANCELED);
	assert_int_equal(calls, 1);
	o.sizes = 1;
	o.progress.fn = stop_never;
	assert_int_equal(replay_run(t, &o, out), 0);
	assert_true(calls > 1);
	free(out);
	page_trace_free(t);
}

static void names(void **state)
{
	(void)state;
	for (unsigned i = 0; policies[i]; i++) {
		assert_ptr_equal(policy_find(policies[i]->name), policies[i]);
		assert_non_null(policies[i]->about);
	}
	assert_null(policy_find("belady"));
	assert_null(policy_find(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(textbooks),
		cmocka_unit_test(write_backs),
		cmocka_unit_test(as_the_slow_way),
		cmocka_unit_test(generations_wrap),
		cmocka_unit_test(nothing_beats_opt),
		cmocka_unit_test(all_at_once),
		cmocka_unit_test(curve),
		cmocka_unit_test(no_references),
		cmocka_unit_test(parameters),
		cmocka_unit_test(stopped),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
