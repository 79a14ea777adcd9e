/* SPDX-License-Identifier: Apache-2.0 */
/* hanok lab show: what is in a trace. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "app/app.h"
#include "app/lab.h"
#include "app/options.h"
#include "app/vm_verb.h"

static const char help[] =
	"hanok lab show TRACE: what is in a trace: references, pages, writes, time, and reuse distances.\n"
	"\n"
	"  hanok lab show mail.trace\n"
	"  hanok lab show mail.trace --json    for programs\n"
	"\n"
	"The reuse distance of a reference is how many other pages were referenced since the same page\n"
	"was referenced last. With n frames, LRU hits exactly the references whose distance is below n:\n"
	"a trace with short distances has locality, and gets by with little memory.\n"
	"\n"
	"Exit status: 0 well; 2 the command line is wrong; 125 the trace could not be read.\n";

enum { BUCKETS = 34, BAR = 40 };

struct shown {
	bool json;
	const struct page_trace *trace;
	const struct replay_count *count; /* LRU's: [pages + 1] */
};

/* Bucket 0 has distance 0, bucket b those from 2^(b-1) to 2^b - 1. How many references it has. */
static uint64_t bucket(const struct shown *s, unsigned b, uint64_t *from, uint64_t *to)
{
	*from = b ? UINT64_C(1) << (b - 1) : 0;
	*to = b ? (UINT64_C(1) << b) - 1 : 0;
	if (*from >= s->trace->pages)
		return 0;
	/* With n frames all distances below n hit. */
	uint64_t end = *to + 1 < s->trace->pages ? *to + 1 : s->trace->pages;
	return s->count[*from].misses - s->count[end].misses;
}

/* The fewest frames with which LRU has this share of the hits that it has with all. */
static uint32_t frames_for(const struct shown *s, double share)
{
	uint64_t all = s->trace->refs - s->trace->pages;
	uint32_t low = 0, high = s->trace->pages;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if ((double)(s->trace->refs - s->count[middle].misses) >= share * (double)all)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static void print_row(const char *what, uint64_t n, uint64_t most, uint64_t all)
{
	int bar = (int)((double)n / (double)most * BAR + 0.5);

	printf("  %21s  %12" PRIu64 "  %5.1f %%  %.*s\n", what, n, 100.0 * (double)n / (double)all,
	       n && !bar ? 1 : bar, "########################################");
}

static void print_text(const struct shown *s)
{
	const struct page_trace *t = s->trace;
	uint64_t from, to, most = t->pages;
	char what[64];
	struct short_text bytes;

	for (unsigned b = 0; b < BUCKETS; b++) {
		uint64_t n = bucket(s, b, &from, &to);
		most = n > most ? n : most;
	}
	printf("\n  %21s  %12s\n", "REUSE DISTANCE", "REFERENCES");
	for (unsigned b = 0; b < BUCKETS; b++) {
		uint64_t n = bucket(s, b, &from, &to);
		if (from >= t->pages)
			break;
		if (from == to)
			snprintf(what, sizeof(what), "%" PRIu64, from);
		else
			snprintf(what, sizeof(what), "%" PRIu64 " - %" PRIu64, from, to);
		print_row(what, n, most, t->refs);
	}
	print_row("first reference: cold", t->pages, most, t->refs);
	if (t->refs == t->pages)
		return;
	printf("\nOf the hits that memory for all pages would give, LRU has\n");
	for (unsigned i = 0; i < 3; i++) {
		static const double share[] = {0.5, 0.9, 0.99};
		uint32_t frames = frames_for(s, share[i]);
		printf("  %2.0f %% with %" PRIu32 " frames (%s)\n", 100 * share[i], frames,
		       show_bytes(&bytes, (uint64_t)frames * t->info.page_bytes));
	}
}

static int print_json(const struct shown *s, const char *path)
{
	json_t *all = lab_trace_json(s->trace, path), *distances = json_array();
	uint64_t from, to;

	for (unsigned b = 0; b < BUCKETS; b++) {
		uint64_t n = bucket(s, b, &from, &to);
		if (from >= s->trace->pages)
			break;
		json_array_append_new(distances,
				      json_pack("{s:I, s:I, s:I}", "from", (json_int_t)from, "to",
						(json_int_t)to, "references", (json_int_t)n));
	}
	json_object_set_new(all, "reuse_distances", distances);
	return lab_print_json(all, "show");
}

static int set_option(void *opaque, int option, struct error *err)
{
	struct shown *s = opaque;

	(void)option, (void)err;
	s->json = true;
	return 0;
}

int lab_verb_show(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const char *path = NULL;
	struct shown s = {0};
	const struct verb_words words = {&path, 1, 1, "which trace?", set_option, &s, "lab"};
	struct replay_count *count = NULL;
	struct page_trace *t;
	struct lab_progress p;
	struct error err;
	int rc = verb_begin(argc, argv, options, &words, help);

	if (rc >= 0)
		return rc;
	if (lab_load(&t, path, &err))
		return fail(STATUS_FAILED, "%s", err.text);
	lab_progress_begin(&p, "reuse distances");
	rc = replay_lru_curve(t, &p.progress, &count);
	lab_progress_end(&p);
	if (rc) {
		page_trace_free(t);
		return fail(STATUS_FAILED, "%s: out of memory", path);
	}
	s.trace = t;
	s.count = count;
	if (s.json) {
		rc = print_json(&s, path);
	} else {
		lab_print_trace(t, path);
		print_text(&s);
	}
	free(count);
	page_trace_free(t);
	return rc;
}
