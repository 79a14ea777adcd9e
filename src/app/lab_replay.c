/* SPDX-License-Identifier: Apache-2.0 */
/* hanok lab replay: policies on a trace, as a table, as JSON, as curves. */
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
	"hanok lab replay TRACE: how often would each policy of page replacement miss, with how much\n"
	"memory?\n"
	"\n"
	"  hanok lab replay mail.trace                            a table\n"
	"  hanok lab replay mail.trace --frames 1000,16M,64M      with so many frames, or so many bytes\n"
	"  hanok lab replay mail.trace --policy lru,gen,opt --svg mail.svg\n"
	"                                                         the miss-ratio curves as a picture\n"
	"\n"
	"Options:\n"
	"  --policy LIST        which (fifo,clock,lru,gen,opt), or all\n"
	"  --frames LIST        numbers of frames, or sizes with K, M, G or T; without it, --points many\n"
	"                       from a few up to one for each page\n"
	"  --points N           how many sizes to try (24)\n"
	"  --x log|linear       the curve's axis of frames, and how points are spread (log)\n"
	"  --svg FILE           draw the curves\n"
	"  --json               for programs\n"
	"  --gen-share N        gen: an epoch lasts for 1/N of the frames' faults (8)\n"
	"  --gen-sample N       gen: one in N hits is seen (1)\n"
	"  --seed N             of random's dice and gen's samples (1)\n"
	"\n"
	"Policies: which page leaves when all frames are full and another comes?\n"
	"  fifo    the one that came first. Simple, and it may get worse with more memory\n"
	"  clock   fifo with a second chance: who was referenced since the hand passed may stay\n"
	"  lru     the one not referenced for the longest time: good, but too dear for real memory\n"
	"  gen     from those not seen referenced for the most epochs: what Hanok does with a guest\n"
	"  random  any\n"
	"  opt     the one that is needed again last (Belady's optimum). It needs the future: no real\n"
	"          policy reaches it, so it shows how much there is to gain\n"
	"\n"
	"A miss-ratio curve shows the share of references that miss, by the number of frames. It falls\n"
	"as memory grows, down to the cold misses: each page's first reference, which nothing avoids.\n"
	"Where it falls steeply, a little memory more helps much; after its knee, the working set is in\n"
	"memory and more is wasted. The distance to opt is what a better policy could still gain.\n"
	"\n"
	"Belady's anomaly: more memory can mean more misses, with fifo. See it happen:\n"
	"  hanok lab make-trace list --list 1,2,3,4,1,2,5,1,2,3,4,5 -o belady.trace\n"
	"  hanok lab replay belady.trace --policy fifo,lru --frames 3,4\n"
	"fifo misses 9 times with 3 frames and 10 times with 4. lru and opt never do that: what they\n"
	"hold with n frames they also hold with n + 1.\n"
	"\n"
	"Exit status: 0 well; 2 the command line is wrong; 125 it could not be done.\n";

enum { POLICIES_MAX = 16, SIZES_MAX = 1000 };

struct asked {
	const char *svg, *policy_text, *frames_text;
	bool json, linear;
	uint64_t points;
	struct policy_params params;
	const struct policy_ops *policy[POLICIES_MAX];
	unsigned policies, hidden;
	uint64_t frames[SIZES_MAX];
	unsigned sizes;
};

/* ---- the command line ---- */

static int set_unsigned(const char *option, uint32_t max, uint32_t *out, struct error *err)
{
	uint64_t n;
	int rc = parse_unsigned(option, optarg, 1, max, &n, err);

	if (!rc)
		*out = (uint32_t)n;
	return rc;
}

static int set_option(void *opaque, int option, struct error *err)
{
	struct asked *a = opaque;

	switch (option) {
	case 'p':
		a->policy_text = optarg;
		return 0;
	case 'f':
		a->frames_text = optarg;
		return 0;
	case 'n':
		return parse_unsigned("--points", optarg, 2, SIZES_MAX, &a->points, err);
	case 'x':
		a->linear = !strcmp(optarg, "linear");
		if (a->linear || !strcmp(optarg, "log"))
			return 0;
		return error_set(err, -EINVAL, "--x %s: it is log or linear", optarg);
	case 'v':
		a->svg = optarg;
		return 0;
	case 'j':
		a->json = true;
		return 0;
	case 'g':
		return set_unsigned("--gen-share", 1u << 30, &a->params.gen_share, err);
	case 'm':
		return set_unsigned("--gen-sample", 1u << 30, &a->params.gen_sample, err);
	default:
		return parse_unsigned("--seed", optarg, 0, UINT64_MAX, &a->params.seed, err);
	}
}

/* Each word of a list with commas. */
static int each_word(const char *option, const char *list, struct asked *a,
		     int (*fn)(struct asked *a, const char *word, struct error *err),
		     struct error *err)
{
	char word[64];
	int rc = 0;

	for (const char *at = list; !rc; at++) {
		size_t n = strcspn(at, ",");
		if (!n || n >= sizeof(word))
			return error_set(err, -EINVAL, "%s %s: names or numbers, one comma between",
					 option, list);
		memcpy(word, at, n);
		word[n] = 0;
		rc = fn(a, word, err);
		at += n;
		if (!*at)
			break;
	}
	return rc;
}

static bool has_policy(const struct asked *a, const struct policy_ops *policy)
{
	for (unsigned i = 0; i < a->policies + a->hidden; i++)
		if (a->policy[i] == policy)
			return true;
	return false;
}

static int add_policy(struct asked *a, const char *word, struct error *err)
{
	const char *names[POLICIES_MAX] = {0};
	const struct policy_ops *policy = policy_find(word);
	bool all = !strcmp(word, "all");

	for (unsigned i = 0; policies[i]; i++) {
		names[i] = policies[i]->name;
		if ((all || policies[i] == policy) && !has_policy(a, policies[i]))
			a->policy[a->policies++] = policies[i];
	}
	if (all || policy)
		return 0;
	const char *near = nearest_name(word, names);
	return error_set(err, -EINVAL, "--policy %s: there is no such policy; %s%s", word,
			 near ? "did you mean " : "--help lists them", near ? near : "");
}

/* A number of frames, or of bytes; with 0 for the size of a page, only to see whether it is one. */
static int frames_of(const char *word, uint32_t page_bytes, uint64_t *frames, struct error *err)
{
	bool is_size = strspn(word, "0123456789") < strlen(word);
	int rc = parse_size("--frames", word, frames, err);

	if (!rc && is_size && page_bytes)
		*frames /= page_bytes;
	if (!rc && !*frames)
		rc = error_set(err, -EINVAL, "--frames %s: it must be one frame at least", word);
	return rc;
}

static int check_frames(struct asked *a, const char *word, struct error *err)
{
	uint64_t frames;

	if (a->sizes++ == SIZES_MAX)
		return error_set(err, -EINVAL, "--frames: more than %d are too many", SIZES_MAX);
	return frames_of(word, 0, &frames, err);
}

static int parse(int argc, char **argv, struct asked *a, const char **path, struct error *err)
{
	static const struct option options[] = {
		{"policy", required_argument, NULL, 'p'},
		{"frames", required_argument, NULL, 'f'},
		{"points", required_argument, NULL, 'n'},
		{"x", required_argument, NULL, 'x'},
		{"svg", required_argument, NULL, 'v'},
		{"json", no_argument, NULL, 'j'},
		{"gen-share", required_argument, NULL, 'g'},
		{"gen-sample", required_argument, NULL, 'm'},
		{"seed", required_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const struct verb_words words = {path, 1, 1, "which trace?", set_option, a};
	int rc = verb_parse(argc, argv, options, &words, err);

	if (!rc)
		rc = each_word("--policy", a->policy_text, a, add_policy, err);
	if (!rc && a->frames_text)
		rc = each_word("--frames", a->frames_text, a, check_frames, err);
	/* Everybody is compared with these two. */
	if (!rc && !has_policy(a, &policy_lru))
		a->policy[a->policies + a->hidden++] = &policy_lru;
	if (!rc && !has_policy(a, &policy_opt))
		a->policy[a->policies + a->hidden++] = &policy_opt;
	return rc;
}

/* ---- sizes ---- */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void sort_sizes(struct asked *a)
{
	unsigned n = 0;

	qsort(a->frames, a->sizes, sizeof(a->frames[0]), compare);
	for (unsigned i = 0; i < a->sizes; i++)
		if (!n || a->frames[i] != a->frames[n - 1])
			a->frames[n++] = a->frames[i];
	a->sizes = n;
}

/* From 1/256 of the pages to all of them, in steps of the same ratio; or in equal steps. */
static void spread_sizes(struct asked *a, uint32_t pages)
{
	double last = pages, first = fmax(1, last / 256);

	a->sizes = (unsigned)a->points;
	for (unsigned i = 0; i < a->sizes; i++) {
		double part = i / (double)(a->sizes - 1);
		double n = a->linear ? first + (last - first) * part
				     : first * pow(last / first, part);
		a->frames[i] = (uint64_t)(n + 0.5);
	}
}

static int find_sizes(struct asked *a, const struct page_trace *t, struct error *err)
{
	const char *at = a->frames_text;
	char word[64];

	a->sizes = 0;
	if (!at)
		spread_sizes(a, t->pages);
	while (at && *at) {
		size_t n = strcspn(at, ",");
		snprintf(word, sizeof(word), "%.*s", (int)n, at);
		int rc = frames_of(word, t->info.page_bytes, &a->frames[a->sizes], err);
		if (rc)
			return rc;
		a->sizes++;
		at += n + (at[n] == ',');
	}
	sort_sizes(a);
	return 0;
}

/* ---- the report ---- */

static unsigned index_of(const struct lab_result *r, const struct policy_ops *policy)
{
	unsigned i = 0;

	while (r->policy[i] != policy)
		i++;
	return i;
}

/* How many more misses than that policy, as a share of its. */
static double over(const struct lab_result *r, unsigned policy, unsigned size,
		   const struct policy_ops *than)
{
	double base = (double)lab_count(r, index_of(r, than), size)->misses;

	return (double)lab_count(r, policy, size)->misses / base - 1;
}

static void print_size(const struct lab_result *r, unsigned size)
{
	const struct page_trace *t = r->trace;
	struct short_text bytes;

	for (unsigned p = 0; p < r->policies; p++) {
		const struct replay_count *c = lab_count(r, p, size);
		if (p)
			printf("%10s  %10s", "", "");
		else
			printf("%10" PRIu64 "  %10s", r->frames[size],
			       show_bytes(&bytes, r->frames[size] * t->info.page_bytes));
		printf("  %-6s  %11" PRIu64 "  %6.2f %%  %11" PRIu64 "  %11" PRIu64
		       "  %+8.1f %%  %+8.1f %%\n",
		       r->policy[p]->name, c->misses, 100.0 * (double)c->misses / (double)t->refs,
		       c->misses - t->pages, c->written_back, 100 * over(r, p, size, &policy_opt),
		       100 * over(r, p, size, &policy_lru));
	}
}

/* random has more misses with more frames now and then, by chance. */
static void print_anomalies(const struct lab_result *r)
{
	for (unsigned p = 0; p < r->policies; p++)
		for (unsigned i = 1; i < r->sizes && r->policy[p] != &policy_random; i++) {
			uint64_t before = lab_count(r, p, i - 1)->misses;
			uint64_t misses = lab_count(r, p, i)->misses;
			if (misses <= before)
				continue;
			printf("\n%s misses %" PRIu64 " times with %" PRIu64 " frames, but %" PRIu64
			       " times with %" PRIu64 ": Belady's anomaly.\n",
			       r->policy[p]->name, before, r->frames[i - 1], misses, r->frames[i]);
			break;
		}
}

static void print_summary(const struct lab_result *r)
{
	printf("\nOver all these sizes:\n%12s  %14s  %14s  %14s\n", "POLICY", "MEAN OVER OPT",
	       "MEAN OVER LRU", "WORST OVER LRU");
	for (unsigned p = 0; p < r->policies; p++) {
		double opt = 0, lru = 0, worst = -1;
		uint64_t at = 0;
		for (unsigned i = 0; i < r->sizes; i++) {
			double here = over(r, p, i, &policy_lru);
			opt += over(r, p, i, &policy_opt) / r->sizes;
			lru += here / r->sizes;
			at = here > worst ? r->frames[i] : at;
			worst = here > worst ? here : worst;
		}
		printf("%12s  %+12.1f %%  %+12.1f %%  %+12.1f %%  with %" PRIu64 " frames\n",
		       r->policy[p]->name, 100 * opt, 100 * lru, 100 * worst, at);
	}
}

static void print_text(const struct lab_result *r)
{
	const struct page_trace *t = r->trace;

	lab_print_trace(t, r->path);
	printf("  Cold misses, which no policy avoids: %" PRIu32 ", %.2f %% of the references.\n\n",
	       t->pages, 100.0 * t->pages / (double)t->refs);
	printf("%10s  %10s  %-6s  %11s  %8s  %11s  %11s  %10s  %10s\n", "FRAMES", "MEMORY",
	       "POLICY", "MISSES", "RATIO", "NOT COLD", "WRITTEN", "OVER OPT", "OVER LRU");
	for (unsigned i = 0; i < r->sizes; i++) {
		if (i && r->policies > 1)
			putchar('\n');
		print_size(r, i);
	}
	print_summary(r);
	print_anomalies(r);
}

static json_t *size_json(const struct lab_result *r, unsigned p, unsigned i)
{
	const struct replay_count *c = lab_count(r, p, i);
	uint64_t refs = r->trace->refs, cold = r->trace->pages;

	return json_pack("{s:s, s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:f, s:f}", "policy",
			 r->policy[p]->name, "frames", (json_int_t)r->frames[i], "references",
			 (json_int_t)refs, "misses", (json_int_t)c->misses, "miss_ratio",
			 (double)c->misses / (double)refs, "cold_misses", (json_int_t)cold,
			 "other_misses", (json_int_t)(c->misses - cold), "dirty_evictions",
			 (json_int_t)c->written_back, "over_opt", over(r, p, i, &policy_opt),
			 "over_lru", over(r, p, i, &policy_lru));
}

static int print_json(const struct lab_result *r)
{
	json_t *rows = json_array();

	for (unsigned p = 0; p < r->policies; p++)
		for (unsigned i = 0; i < r->sizes; i++)
			json_array_append_new(rows, size_json(r, p, i));
	return lab_print_json(json_pack("{s:o, s:o}", "trace", lab_trace_json(r->trace, r->path),
					"results", rows),
			      "replay");
}

static int report(const struct lab_result *r, const struct asked *a)
{
	struct error err;

	if (a->svg && lab_write_svg(r, a->linear, a->svg, &err))
		return fail(STATUS_FAILED, "%s", err.text);
	if (a->json)
		return print_json(r);
	print_text(r);
	return STATUS_OK;
}

static int replay(struct asked *a, const struct page_trace *t, const char *path)
{
	struct lab_progress p;
	struct replay_options options = {.policy = a->policy,
					 .policies = a->policies + a->hidden,
					 .frames = a->frames,
					 .sizes = a->sizes,
					 .params = a->params};
	struct replay_count *count;
	int rc = -ENOMEM;

	count = calloc((size_t)options.policies * a->sizes, sizeof(*count));
	lab_progress_begin(&p, "replaying");
	options.progress = p.progress;
	if (count)
		rc = replay_run(t, &options, count);
	lab_progress_end(&p);
	if (!rc) {
		const struct lab_result r = {.path = path,
					     .trace = t,
					     .policy = a->policy,
					     .policies = a->policies,
					     .hidden = a->hidden,
					     .frames = a->frames,
					     .sizes = a->sizes,
					     .count = count};
		rc = report(&r, a);
	} else {
		rc = fail(STATUS_FAILED, "%s: it could not be replayed: %s", path, strerror(-rc));
	}
	free(count);
	return rc;
}

int lab_verb_replay(int argc, char **argv)
{
	struct asked a = {.policy_text = "fifo,clock,lru,gen,opt",
			  .points = 24,
			  .params = POLICY_PARAMS_DEFAULT};
	const char *path = NULL;
	struct page_trace *t;
	struct error err;
	int rc = parse(argc, argv, &a, &path, &err);

	if (rc > 0) {
		fputs(help, stdout);
		return STATUS_OK;
	}
	if (rc < 0)
		return fail(STATUS_USAGE, "lab: %s", err.text);
	if (lab_load(&t, path, &err))
		return fail(STATUS_FAILED, "%s", err.text);
	rc = find_sizes(&a, t, &err);
	rc = rc ? fail(STATUS_USAGE, "%s", err.text) : replay(&a, t, path);
	page_trace_free(t);
	return rc;
}
