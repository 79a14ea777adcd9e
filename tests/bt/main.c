/* SPDX-License-Identifier: Apache-2.0 */
#include "bt.h"

#include "base/layout.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* btfuzz: random programs, interpreted and translated. */

struct options {
	uint64_t programs, seed, replay, code_cache;
	double seconds;
	unsigned irqs, show;
	bool replaying, print;
};

struct pair {
	struct box *interp, *bt;
	uint8_t pristine[DATA_BYTES];
	char why[256];
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool agree_within(struct pair *b, const struct program *p, uint64_t ms)
{
	b->interp->patience_ms = b->bt->patience_ms = ms;
	box_run_program(b->interp, p, b->pristine);
	box_run_program(b->bt, p, b->pristine);
	return boxes_agree(p, b->interp, b->bt, b->why);
}

/* Most that do not end at once do not end at all; a busy host may make one late. */
static bool agree(struct pair *b, const struct program *p)
{
	return agree_within(b, p, 300) ||
	       (b->interp->late != b->bt->late && agree_within(b, p, 20000));
}

/* Leaves out whatever can be left out without the difference going away. */
static void shrink(struct pair *b, struct program *p)
{
	unsigned step = p->count / 2;

	while (step) {
		bool any = false;
		for (unsigned at = 0; at < p->count; at += step) {
			bool gone[NODES_MAX], some = false;
			for (unsigned k = at; k < at + step && k < p->count; k++) {
				gone[k] = p->node[k].gone;
				if (!p->node[k].gone && !p->node[k].frame)
					p->node[k].gone = some = true;
			}
			if (some && program_layout(p) && !agree(b, p)) {
				any = true;
				continue;
			}
			for (unsigned k = at; k < at + step && k < p->count; k++)
				p->node[k].gone = gone[k];
		}
		if (!any || step > 1)
			step /= 2;
	}
	/* Then single pieces of scaffolding, too: the watchdog ends what no longer does. */
	for (unsigned k = 0; k + 1 < p->count; k++) {
		if (p->node[k].gone)
			continue;
		p->node[k].gone = true;
		if (!program_layout(p) || agree(b, p) || b->interp->late || b->bt->late)
			p->node[k].gone = false;
	}
	program_layout(p);
	agree(b, p);
}

static void report(struct pair *b, struct program *p)
{
	printf("\nDIFFERENT: %llu:%llu: %s\n", (unsigned long long)p->seed,
	       (unsigned long long)p->number, b->why);
	if (!p->wild)
		shrink(b, p);
	printf("shrunk: %s\n", b->why);
	program_print(p);
	for (unsigned k = 0; k < 2; k++) {
		struct box *x = k ? b->bt : b->interp;
		uint64_t n = box_params(x)->log_count;
		printf("  %s: %llu events, the last ones:\n", x->engine_name,
		       (unsigned long long)n);
		for (uint64_t e = n > 3 ? n - 3 : 0; e < n; e++)
			print_event(p, box_event(x, (unsigned)e));
	}
	fflush(stdout);
}

static void usage(FILE *to)
{
	fputs("btfuzz: runs random programs interpreted and translated, and compares.\n"
	      "usage: btfuzz [options]\n"
	      "  --programs N      stop after N programs (default 20000; 0: no limit)\n"
	      "  --seconds N       stop after N seconds\n"
	      "  --seed S          the random seed (default: from the clock; it is printed)\n"
	      "  --irqs N          interrupts; N percent of those asked for come\n"
	      "  --code-cache N    bytes of translated code at most\n"
	      "  --show N          programs that differ, shrunk and shown (default 3)\n"
	      "  --replay SEED:N   run program N of that seed only, and print it\n"
	      "HANOK_BT_STRESS and HANOK_MASK_CPU apply (docs/HACKING.md).\n",
	      to);
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"programs", 1, NULL, 'n'}, {"seconds", 1, NULL, 's'},	  {"seed", 1, NULL, 'S'},
		{"irqs", 1, NULL, 'i'},	    {"show", 1, NULL, 'w'},	  {"replay", 1, NULL, 'r'},
		{"help", 0, NULL, 'h'},	    {"code-cache", 1, NULL, 'c'}, {NULL, 0, NULL, 0}};
	char *end;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'n':
			o->programs = strtoull(optarg, NULL, 0);
			break;
		case 's':
			o->seconds = strtod(optarg, NULL);
			break;
		case 'S':
			o->seed = strtoull(optarg, NULL, 0);
			break;
		case 'i':
			o->irqs = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'c':
			o->code_cache = strtoull(optarg, NULL, 0);
			break;
		case 'w':
			o->show = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'r':
			o->seed = strtoull(optarg, &end, 0);
			o->replay = *end == ':' ? strtoull(end + 1, NULL, 0) : 0;
			o->replaying = true;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			return -1;
		}
	}
	return 0;
}

struct tally {
	uint64_t programs, differ, late, events, unplaced, irqs;
};

static void one(struct pair *b, const struct options *o, uint64_t number, unsigned forms,
		struct tally *t)
{
	static struct program p;

	program_make(&p, o->seed, number, forms);
	pristine_fill(b->pristine, o->seed, number);
	if (!program_layout(&p)) {
		t->unplaced++;
		return;
	}
	t->programs++;
	if (o->replaying)
		program_print(&p);
	bool same = agree(b, &p);
	t->late += b->interp->late;
	t->events += box_params(b->interp)->log_count;
	t->irqs += box_params(b->bt)->irqs;
	if (same)
		return;
	if (t->differ++ < o->show)
		report(b, &p);
	else
		printf("DIFFERENT: %llu:%llu: %s\n", (unsigned long long)o->seed,
		       (unsigned long long)number, b->why);
}

static int run(int argc, char **argv)
{
	struct options o = {.programs = 20000, .show = 3, .seed = (uint64_t)time(NULL)};
	struct pair b = {0};
	struct tally t = {0};
	struct error err;

	if (parse(argc, argv, &o))
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (box_create(&b.interp, "interp", 1, 0, &err) ||
	    box_create(&b.bt, "bt", 1, o.code_cache, &err)) {
		fprintf(stderr, "btfuzz: %s\n", err.text);
		return 125;
	}
	if (o.irqs)
		box_start_interrupts(b.bt, o.irqs);
	unsigned forms = forms_init(true);
	double start = now();
	printf("btfuzz: seed %llu\n", (unsigned long long)o.seed);
	if (o.replaying)
		one(&b, &o, o.replay, forms, &t);
	else
		for (uint64_t n = 0; (!o.programs || n < o.programs) &&
				     (o.seconds <= 0 || now() - start < o.seconds);
		     n++)
			one(&b, &o, n, forms, &t);
	printf("btfuzz: %llu programs in %.1f s, %llu events, %llu interrupts, %llu too long to place, "
	       "%llu without an end; %llu different\n",
	       (unsigned long long)t.programs, now() - start, (unsigned long long)t.events,
	       (unsigned long long)t.irqs, (unsigned long long)t.unplaced,
	       (unsigned long long)t.late, (unsigned long long)t.differ);
	box_destroy(b.interp);
	box_destroy(b.bt);
	return t.differ ? 1 : 0;
}

/* As the product does: with the process's memory in one slice, so that there is a window. */
int main(int argc, char **argv)
{
	return layout_run(run, argc, argv);
}
