/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok lab`: page-replacement policies on traces. They are in mem/; here are its words. */
#include "app/lab.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "app/app.h"
#include "app/options.h"
#include "app/vm_verb.h"
#include "base/clock.h"

static const char help[] =
	"hanok lab: which pages should stay in memory? Policies of page replacement, tried on traces of\n"
	"real guests and of made-up programs.\n"
	"\n"
	"  hanok inspect mail trace-pages --out mail.trace --seconds 30\n"
	"                                  record which pages a running machine references\n"
	"  hanok lab make-trace zipf --pages 10000 --refs 5000000 -o zipf.trace\n"
	"                                  or make a trace up, without a machine\n"
	"  hanok lab show mail.trace       what is in it\n"
	"  hanok lab replay mail.trace --policy fifo,clock,lru,gen,opt --svg mail.svg\n"
	"                                  how often would each policy miss?\n"
	"\n"
	"  hanok lab VERB --help           all options of a verb, and what it teaches\n"
	"\n"
	"docs/LAB.md walks through an afternoon with it.\n"
	"\n"
	"Exit status: 0 well; 2 the command line is wrong; 125 it could not be done.\n";

static const struct sub_verb verbs[] = {
	{"replay", lab_verb_replay},
	{"make-trace", lab_verb_make},
	{"show", lab_verb_show},
	{NULL, NULL},
};

int verb_lab(int argc, char **argv)
{
	return verb_below("lab", help, verbs, argc, argv);
}

/* ---- progress ---- */

static int show(void *opaque, uint64_t done, uint64_t total)
{
	struct lab_progress *p = opaque;
	uint64_t now = clock_ns();

	if (now - p->start_ns < 2000000000u || now - p->shown_ns < 200000000u)
		return 0;
	p->shown_ns = now;
	if (total)
		progress("%s: %.0f %%", p->what, 100.0 * (double)done / (double)total);
	else
		progress("%s ...", p->what);
	return 0;
}

void lab_progress_begin(struct lab_progress *p, const char *what)
{
	*p = (struct lab_progress){.progress = {show, p}, .what = what, .start_ns = clock_ns()};
}

void lab_progress_end(struct lab_progress *p)
{
	if (p->shown_ns)
		progress_end();
}

/* ---- traces ---- */

int lab_load(struct page_trace **out, const char *path, struct error *err)
{
	struct lab_progress p;
	int rc;

	lab_progress_begin(&p, "reading the trace");
	rc = page_trace_load(out, path, &p.progress, err);
	lab_progress_end(&p);
	if (rc || (*out)->refs)
		return rc;
	page_trace_free(*out);
	*out = NULL;
	return error_set(err, -EINVAL, "%s: there are no references in it; was the guest idle?",
			 path);
}

void lab_print_trace(const struct page_trace *t, const char *path)
{
	struct short_text page, all, ram;
	char name[512];

	snprintf(name, sizeof(name), "%s", path);
	make_printable(name);
	printf("%s: %zu references, %.1f %% of them writes, to %" PRIu32 " pages of %s (%s)\n",
	       name, t->refs, 100.0 * (double)t->writes / (double)t->refs, t->pages,
	       show_bytes(&page, t->info.page_bytes),
	       show_bytes(&all, (uint64_t)t->pages * t->info.page_bytes));
	printf("  %s", trace_sampling_name(t->info.sampling));
	if (t->info.sample_period > 1)
		printf(", one in %" PRIu64, t->info.sample_period);
	if (t->info.sampling != TRACE_SYNTHETIC)
		printf(", of a guest with %s",
		       show_bytes(&ram, t->info.ram_pages * t->info.page_bytes));
	printf(", in %.3f s\n", (double)(t->last_ns - t->first_ns) / 1e9);
	if (t->cut)
		printf("  its end is missing: the recording was cut; what came before is used\n");
	if (t->info.sampling == TRACE_TLB_MISSES)
		printf("  What the TLB hits was not seen: trust sizes well above its entries.\n");
}

/* JSON is UTF-8; names of files need not be. */
static json_t *path_json(const char *path)
{
	char text[1024];
	json_t *s = json_string(path);

	if (s)
		return s;
	snprintf(text, sizeof(text), "%s", path);
	for (char *c = text; *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	return json_string(text);
}

json_t *lab_trace_json(const struct page_trace *t, const char *path)
{
	return json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:f, s:b}", "path",
			 path_json(path), "references", (json_int_t)t->refs, "writes",
			 (json_int_t)t->writes, "pages", (json_int_t)t->pages, "page_bytes",
			 (json_int_t)t->info.page_bytes, "ram_pages", (json_int_t)t->info.ram_pages,
			 "sampling", trace_sampling_name(t->info.sampling), "sample_period",
			 (json_int_t)t->info.sample_period, "seconds",
			 (double)(t->last_ns - t->first_ns) / 1e9, "cut", t->cut);
}

int lab_print_json(json_t *all, const char *who)
{
	if (!all || json_dumpf(all, stdout, JSON_INDENT(2)) < 0) {
		json_decref(all);
		return fail(STATUS_FAILED, "lab %s --json: it could not be written", who);
	}
	putchar('\n');
	json_decref(all);
	return STATUS_OK;
}
