/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok pool`: how much of the host's memory the machines have together, and who gets what of it. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/options.h"
#include "app/vm_verb.h"
#include "base/clock.h"
#include "control/pool_file.h"

static const char help[] =
	"hanok pool: the host memory that all your machines get together.\n"
	"\n"
	"  hanok pool            who uses how much of it, and is entitled to how much\n"
	"  hanok pool 8G         from now on so much, at least 4M; machines that run notice within\n"
	"                        five seconds\n"
	"  hanok pool off        as much as they like, which is how it is at first\n"
	"  hanok pool --json     the same for programs\n"
	"\n"
	"When it is nearly full, each machine keeps a limit that follows from its --memory-min,\n"
	"--memory-shares and --memory-limit (sched.mem.min, .shares and .max) and from how much of its\n"
	"memory is in use: idle memory counts four times. docs/MEMORY.md has the formula.\n"
	"\n"
	"Exit status: 0; 2 the command line is wrong; 125 it could not be done.\n";

static int set_size(const char *word, struct error *err)
{
	struct pool_file *f;
	uint64_t bytes = 0;

	if (strcmp(word, "off") && parse_size("pool", word, &bytes, err) < 0)
		return -EINVAL;
	if (strcmp(word, "off") && bytes < UINT64_C(4) << 20)
		return error_set(err, -EINVAL, "pool %s: the least is 4M, as in 8G; or off", word);
	int r = pool_file_open(&f, true, err);
	if (r == 0)
		r = pool_file_set_size(f, bytes, err);
	pool_file_close(f);
	return r == -EINVAL ? -EIO : r; /* the command line was right */
}

/* ---- showing ---- */

static json_t *describe(const struct pool_member *m)
{
	uint64_t now = clock_ns();

	return json_pack(
		"{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "name",
		m->name, "pid", (json_int_t)m->pid, "memory_bytes", (json_int_t)m->ram_bytes,
		"min_bytes", (json_int_t)m->min_bytes, "shares", (json_int_t)m->shares,
		"limit_bytes", (json_int_t)m->limit_bytes, "used_bytes", (json_int_t)m->used_bytes,
		"touched_bytes", (json_int_t)m->touched_bytes, "working_set_bytes",
		(json_int_t)m->active_bytes, "entitled_bytes", (json_int_t)m->entitled_bytes,
		"kept_bytes", (json_int_t)m->kept_bytes, "equal_bytes", (json_int_t)m->equal_bytes,
		"age_s", now > m->beat_ns ? (double)(now - m->beat_ns) / 1e9 : 0.0);
}

static int print_json(uint64_t pool, const struct pool_member *m, int n)
{
	json_t *list = json_array(), *all = NULL;
	int r = !list;

	for (int i = 0; r == 0 && i < n; i++)
		r = json_array_append_new(list, describe(&m[i]));
	if (r == 0)
		all = json_pack("{s:I, s:O}", "pool_bytes", (json_int_t)pool, "machines", list);
	r = !all || json_dumpf(all, stdout, JSON_INDENT(2)) < 0
		    ? fail(STATUS_FAILED, "pool --json: it could not be written")
		    : STATUS_OK;
	if (r == STATUS_OK)
		putchar('\n');
	json_decref(all);
	json_decref(list);
	return r;
}

static const char *or_none(struct short_text *t, uint64_t bytes)
{
	return bytes ? show_bytes(t, bytes) : "-";
}

static void print_member(const struct pool_member *m)
{
	struct short_text t[8];
	char line[400];

	snprintf(line, sizeof(line),
		 "%-20s %8" PRIu64 " %9s %9s %9" PRIu64 " %9s %9s %9s %9s %9s %9s", m->name, m->pid,
		 show_bytes(&t[0], m->ram_bytes), or_none(&t[1], m->min_bytes), m->shares,
		 or_none(&t[2], m->limit_bytes), show_bytes(&t[3], m->used_bytes),
		 show_bytes(&t[4], m->active_bytes), or_none(&t[5], m->entitled_bytes),
		 or_none(&t[6], m->kept_bytes), or_none(&t[7], m->equal_bytes));
	make_printable(line);
	puts(line);
}

/* What KSM saves on the whole host, for whomever. */
static uint64_t saved_bytes(void)
{
	FILE *f = fopen("/sys/kernel/mm/ksm/pages_sharing", "re");
	uint64_t pages = 0;

	if (f && fscanf(f, "%" SCNu64, &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	return pages * 4096;
}

static int print_table(uint64_t pool, const struct pool_member *m, int n)
{
	uint64_t used = 0, equal = 0, minima = 0;
	struct short_text a, b;

	for (int i = 0; i < n; i++) {
		used += m[i].used_bytes;
		equal += m[i].equal_bytes;
		minima += m[i].min_bytes;
	}
	if (pool)
		printf("pool of %s, %s used\n", show_bytes(&a, pool), show_bytes(&b, used));
	else
		printf("no pool, %s used; to set one: hanok pool SIZE\n", show_bytes(&b, used));
	if (pool && minima > pool)
		printf("the reservations, %s, are more than the pool: each gets a part of his\n",
		       show_bytes(&a, minima));
	if (equal)
		printf("equal pages: KSM saves %s on this host\n", show_bytes(&a, saved_bytes()));
	if (n)
		printf("%-20s %8s %9s %9s %9s %9s %9s %9s %9s %9s %9s\n", "NAME", "PID", "MEMORY",
		       "MIN", "SHARES", "LIMIT", "USED", "IN USE", "ENTITLED", "KEPT", "EQUAL");
	for (int i = 0; i < n; i++)
		print_member(&m[i]);
	return STATUS_OK;
}

static int show(bool json, struct error *err)
{
	static struct pool_member m[POOL_MEMBERS];
	struct pool_file *f;
	uint64_t pool = 0;

	int r = pool_file_open(&f, false, err);
	int n = r == 0 ? pool_file_read(f, &pool, m, err) : r;
	pool_file_close(f);
	if (n == -ENOENT)
		n = 0; /* nothing ran here yet, and nobody set one */
	if (n < 0)
		return fail(STATUS_FAILED, "%s", err->text);
	return json ? print_json(pool, m, n) : print_table(pool, m, n);
}

int verb_pool(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const char *word = NULL;
	bool json = false;
	const struct verb_words words = {&word, 0, 1, "", verb_set_true, &json};
	struct error err = {""};

	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	r = word ? set_size(word, &err) : 0;
	if (r < 0)
		return fail(r == -EINVAL ? STATUS_USAGE : STATUS_FAILED, "%s", err.text);
	return show(json, &err);
}
