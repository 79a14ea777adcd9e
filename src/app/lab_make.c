/* SPDX-License-Identifier: Apache-2.0 */
/* hanok lab make-trace: traces made up, so that nobody needs a machine to begin. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/lab.h"
#include "app/options.h"
#include "app/vm_verb.h"

static const char help[] =
	"hanok lab make-trace PATTERN -o FILE: a made-up trace of page references.\n"
	"\n"
	"  hanok lab make-trace loop --pages 1000 --refs 100000 -o loop.trace\n"
	"  hanok lab make-trace zipf --exponent 1.1 -o zipf.trace\n"
	"  hanok lab make-trace list --list 1,2,3,4,1,2,5,1,2,3,4,5 -o belady.trace\n"
	"\n"
	"Patterns:\n"
	"  loop      page 0, 1, 2 ... and again: a program that walks through an array. LRU's worst\n"
	"            case: with one frame too few every reference misses\n"
	"  uniform   any page, all alike: no policy can know anything, and none but OPT beats random\n"
	"  zipf      the k-th most popular page with a probability of 1/k^s: what caches, databases and\n"
	"            most programs look like\n"
	"  phases    a working set that moves: each phase has a part of the pages, half of them the part\n"
	"            of the phase before\n"
	"  mix       9 of 10 references zipf to one half of the pages, the rest a loop over the other\n"
	"            half: a server beside a backup. Does the scan drive out what is needed?\n"
	"  list      the pages of --list; a w after a page writes it: 1,2w,3\n"
	"\n"
	"Options:\n"
	"  -o, --out FILE       where to; it is overwritten\n"
	"  --pages N            how many pages there are (4096)\n"
	"  --refs N             how many references to make (1000000)\n"
	"  --writes PERCENT     how many of them write (20)\n"
	"  --exponent S         zipf's s, from 0 to 10 (0.9); also of mix\n"
	"  --phases N           how many phases (8)\n"
	"  --list P,P,...       for list\n"
	"  --seed N             another one for another trace of the same kind (1)\n"
	"\n"
	"Exit status: 0 well; 2 the command line is wrong; 125 the file could not be written.\n";

enum { PAGE_BYTES = 4096, NS_PER_REF = 1000, PAGES_MAX = 1 << 26, CHUNK = 1 << 16 };

struct maker {
	const char *out, *list;
	uint64_t pages, refs, writes, phases, seed;
	double exponent;
	uint64_t x; /* of the dice */
	/* zipf: */
	uint64_t zipf_pages;
	uint32_t *page_of; /* which page is the k-th most popular */
	/* Walker's alias method: column k is k itself with the probability keep, else alias. */
	float *keep;
	uint32_t *alias;
};

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t dice(struct maker *m)
{
	uint64_t z = m->x += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* From 0 to n - 1. */
static uint64_t below(struct maker *m, uint64_t n)
{
	return (uint64_t)((unsigned __int128)dice(m) * n >> 64);
}

/* ---- zipf ---- */

/* Vose's way to build the columns (1991): each takes from one that has too much. */
static void fill_columns(struct maker *m, double *weight, uint32_t *todo)
{
	uint64_t n = m->zipf_pages, small = 0, large = n;

	/* todo: those below the mean from the front, the others from the back. */
	for (uint64_t k = 0; k < n; k++)
		todo[weight[k] < 1 ? small++ : --large] = (uint32_t)k;
	while (small && large < n) {
		uint32_t s = todo[--small], l = todo[large];
		m->keep[s] = (float)weight[s];
		m->alias[s] = l;
		weight[l] -= 1 - weight[s];
		if (weight[l] < 1) {
			large++;
			todo[small++] = l;
		}
	}
	/* What rounding has left over. */
	while (small) {
		uint32_t k = todo[--small];
		m->keep[k] = 1;
	}
	for (; large < n; large++)
		m->keep[todo[large]] = 1;
}

static int zipf_begin(struct maker *m, uint64_t pages)
{
	double *weight = malloc(pages * sizeof(*weight)), sum = 0;
	uint32_t *todo = malloc(pages * sizeof(*todo));
	int rc = -ENOMEM;

	m->zipf_pages = pages;
	m->page_of = malloc(pages * sizeof(*m->page_of));
	m->keep = malloc(pages * sizeof(*m->keep));
	m->alias = calloc(pages, sizeof(*m->alias));
	if (!weight || !todo || !m->page_of || !m->keep || !m->alias)
		goto out;
	for (uint64_t k = 0; k < pages; k++)
		sum += weight[k] = pow((double)(k + 1), -m->exponent);
	for (uint64_t k = 0; k < pages; k++)
		weight[k] *= (double)pages / sum;
	fill_columns(m, weight, todo);
	/* Popular pages lie anywhere. */
	for (uint64_t k = 0; k < pages; k++) {
		uint64_t other = below(m, k + 1);
		m->page_of[k] = m->page_of[other];
		m->page_of[other] = (uint32_t)k;
	}
	rc = 0;
out:
	free(weight);
	free(todo);
	return rc;
}

static uint64_t zipf_page(struct maker *m)
{
	uint64_t k = below(m, m->zipf_pages);
	double u = (double)(dice(m) >> 11) * 0x1p-53;

	return m->page_of[u < (double)m->keep[k] ? k : m->alias[k]];
}

/* ---- patterns: which page is referenced i-th ---- */

static uint64_t loop_page(struct maker *m, uint64_t i)
{
	return i % m->pages;
}

static uint64_t uniform_page(struct maker *m, uint64_t i)
{
	(void)i;
	return below(m, m->pages);
}

static uint64_t zipf_next(struct maker *m, uint64_t i)
{
	(void)i;
	return zipf_page(m);
}

/* A window of the pages, which moves by half of itself with each phase; the windows of all phases
 * cover all pages. */
static uint64_t phases_page(struct maker *m, uint64_t i)
{
	uint64_t phase = (uint64_t)((unsigned __int128)i * m->phases / m->refs);
	uint64_t from = m->pages * phase / (m->phases + 1);
	uint64_t to = m->pages * (phase + 2) / (m->phases + 1);

	return from + below(m, to > from ? to - from : 1);
}

static uint64_t mix_page(struct maker *m, uint64_t i)
{
	uint64_t half = m->zipf_pages;

	if (i % 10 == 9 && m->pages > half)
		return half + i / 10 % (m->pages - half);
	return zipf_page(m);
}

static const struct {
	const char *name;
	uint64_t (*page)(struct maker *m, uint64_t i);
	unsigned zipf_part; /* of the pages are zipf's: all, half of them, none */
} patterns[] = {
	{"loop", loop_page, 0},	    {"uniform", uniform_page, 0}, {"zipf", zipf_next, 1},
	{"phases", phases_page, 0}, {"mix", mix_page, 2},	  {"list", NULL, 0},
};
enum { PATTERNS = sizeof(patterns) / sizeof(patterns[0]) };

static int make(struct maker *m, unsigned pattern, struct trace_writer *w)
{
	struct lab_progress p;
	unsigned part = patterns[pattern].zipf_part;
	uint64_t writes = m->writes * (UINT64_MAX / 100);

	m->x = m->seed;
	if (part && zipf_begin(m, (m->pages + part - 1) / part))
		return -ENOMEM;
	lab_progress_begin(&p, "making the trace");
	for (uint64_t i = 0; i < m->refs; i++) {
		uint64_t page = patterns[pattern].page(m, i);
		trace_writer_add(w, page, m->writes && dice(m) <= writes, i * NS_PER_REF);
		if (i % CHUNK == 0)
			p.progress.fn(p.progress.opaque, i, m->refs);
	}
	lab_progress_end(&p);
	return 0;
}

/* ---- list ---- */

/* The next page of "1,2w,3". 1; 0 at the end; -EINVAL with *err. */
static int list_next(const char **at, uint64_t *page, bool *write, struct error *err)
{
	char *end;

	if (!**at)
		return 0;
	errno = 0;
	*page = strtoull(*at, &end, 10);
	if (end == *at || **at < '0' || **at > '9' || errno || *page >= PAGES_MAX)
		return error_set(err, -EINVAL,
				 "--list %s: pages are numbers from 0 to %u, commas between them",
				 *at, PAGES_MAX - 1);
	*write = *end == 'w';
	end += *write;
	if (*end && (*end != ',' || !end[1]))
		return error_set(err, -EINVAL,
				 "--list: '%s' after page %" PRIu64 "; write for example 1,2w,3",
				 end, *page);
	*at = *end ? end + 1 : end;
	return 1;
}

/* How many pages it goes up to; w: where to add them, or NULL. 0 or -EINVAL. */
static int walk_list(struct maker *m, struct trace_writer *w, struct error *err)
{
	const char *at = m->list;
	uint64_t page = 0, n = 0;
	bool write = false;
	int rc;

	while ((rc = list_next(&at, &page, &write, err)) > 0) {
		m->pages = page >= m->pages ? page + 1 : m->pages;
		if (w)
			trace_writer_add(w, page, write, n * NS_PER_REF);
		n++;
	}
	m->refs = n;
	return rc;
}

/* ---- the command line ---- */

static int set_option(void *opaque, int option, struct error *err)
{
	struct maker *m = opaque;
	char *end;

	switch (option) {
	case 'o':
		m->out = optarg;
		return 0;
	case 'l':
		m->list = optarg;
		return 0;
	case 'p':
		return parse_unsigned("--pages", optarg, 1, PAGES_MAX, &m->pages, err);
	case 'r':
		return parse_unsigned("--refs", optarg, 1, PAGE_TRACE_REFS_MAX, &m->refs, err);
	case 'w':
		return parse_unsigned("--writes", optarg, 0, 100, &m->writes, err);
	case 'n':
		return parse_unsigned("--phases", optarg, 1, 1000000, &m->phases, err);
	case 's':
		return parse_unsigned("--seed", optarg, 0, UINT64_MAX, &m->seed, err);
	default:
		m->exponent = strtod(optarg, &end);
		if (end == optarg || *end || strspn(optarg, "0123456789.") < strlen(optarg) ||
		    m->exponent > 10)
			return error_set(err, -EINVAL, "--exponent %s: it is a number from 0 to 10",
					 optarg);
		return 0;
	}
}

static int find_pattern(const char *name, unsigned *out, struct error *err)
{
	const char *names[PATTERNS + 1] = {0};

	for (unsigned i = 0; i < PATTERNS; i++) {
		names[i] = patterns[i].name;
		if (!strcmp(name, names[i])) {
			*out = i;
			return 0;
		}
	}
	const char *near = nearest_name(name, names);
	return near ? error_set(err, -EINVAL,
				"make-trace %s: there is no such pattern; did you mean %s?", name,
				near)
		    : error_set(err, -EINVAL,
				"make-trace %s: there is no such pattern; there are loop, uniform, "
				"zipf, phases, mix and list",
				name);
}

static int parse(int argc, char **argv, struct maker *m, unsigned *pattern, struct error *err)
{
	static const struct option options[] = {
		{"out", required_argument, NULL, 'o'},
		{"pages", required_argument, NULL, 'p'},
		{"refs", required_argument, NULL, 'r'},
		{"writes", required_argument, NULL, 'w'},
		{"exponent", required_argument, NULL, 'e'},
		{"phases", required_argument, NULL, 'n'},
		{"list", required_argument, NULL, 'l'},
		{"seed", required_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const char *name = NULL;
	const struct verb_words words = {&name, 1, 1, "which pattern?", set_option, m};
	int rc = verb_parse(argc, argv, options, &words, err);

	if (!rc)
		rc = find_pattern(name, pattern, err);
	if (rc)
		return rc;
	if (!m->out)
		return error_set(err, -EINVAL, "make-trace: where to? -o FILE says it");
	if (!patterns[*pattern].page != !!m->list)
		return error_set(
			err, -EINVAL,
			m->list ? "--list: it goes with the pattern list"
				: "make-trace list: which pages? for example --list 1,2,3");
	if (!m->list)
		return 0;
	m->pages = 1;
	return walk_list(m, NULL, err);
}

static int write_trace(struct maker *m, unsigned pattern, struct error *err)
{
	struct trace_info info = {.page_bytes = PAGE_BYTES,
				  .sampling = TRACE_SYNTHETIC,
				  .sample_period = 1,
				  .ram_pages = m->pages,
				  .end_page = m->pages};
	struct trace_writer *w;
	int rc = trace_writer_create(&w, m->out, &info, err);

	if (rc)
		return rc;
	rc = m->list ? walk_list(m, w, err) : make(m, pattern, w);
	if (rc == -ENOMEM)
		error_set(err, rc, "make-trace --pages %" PRIu64 ": out of memory", m->pages);
	int ended = trace_writer_finish(w, rc ? NULL : err);
	return rc ? rc : ended;
}

int lab_verb_make(int argc, char **argv)
{
	struct maker m = {.pages = 4096,
			  .refs = 1000000,
			  .writes = 20,
			  .phases = 8,
			  .seed = 1,
			  .exponent = 0.9};
	struct error err;
	unsigned pattern = 0;
	int rc = parse(argc, argv, &m, &pattern, &err);

	if (rc > 0) {
		fputs(help, stdout);
		return STATUS_OK;
	}
	if (rc < 0)
		return fail(STATUS_USAGE, "lab: %s", err.text);
	rc = write_trace(&m, pattern, &err);
	free(m.page_of);
	free(m.keep);
	free(m.alias);
	return rc ? fail(STATUS_FAILED, "%s", err.text) : STATUS_OK;
}
