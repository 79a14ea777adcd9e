/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok doctor`: what this host offers, what is missing and how to mend it. */
#include "app/doctor.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "app/options.h"
#include "app/vm_verb.h"

static const char help[] =
	"hanok doctor: what this host offers for virtual machines, what is missing and how to mend\n"
	"it. Every line comes from trying the thing, not from looking it up.\n"
	"\n"
	"  hanok doctor          a table for people\n"
	"  hanok doctor --json   the same for programs\n"
	"\n"
	"Exit status: 0 guests can run here; 125 they cannot.\n";

static const struct {
	const char *name;
	void (*probe)(struct finding *f);
} probes[] = {
	{"engine", probe_engines},
	{"cpu", probe_cpu},
	{"tsc", probe_tsc},
	{"kvm", probe_kvm},
	{"window", probe_window},
	{"memory", probe_memory},
	{"hugepages", probe_huge_pages},
	{"ksm", probe_ksm},
	{"userfaultfd", probe_userfaultfd},
	{"io_uring", probe_io_uring},
	{"netns", probe_netns},
	{"tap", probe_tap},
};
enum { PROBES = sizeof(probes) / sizeof(probes[0]) };

static const char *const status_names[] = {
	[FINDING_OK] = "ok",
	[FINDING_LIMITED] = "limited",
	[FINDING_MISSING] = "missing",
	[FINDING_FATAL] = "fatal",
};

void finding_set(struct finding *f, enum finding_status status, const char *fmt, ...)
{
	va_list ap;

	f->status = status;
	va_start(ap, fmt);
	vsnprintf(f->detail, sizeof(f->detail), fmt, ap);
	va_end(ap);
}

void finding_mend(struct finding *f, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f->mend, sizeof(f->mend), fmt, ap);
	va_end(ap);
}

static void print_table(const struct finding *findings)
{
	/* Red and yellow for a person's eyes only. */
	static const char *const colour[] = {"\033[32m", "\033[33m", "\033[33m", "\033[31m"};
	bool colours = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");

	for (unsigned i = 0; i < PROBES; i++) {
		const struct finding *f = &findings[i];
		printf("%-12s %s%-7s%s  %s%s%s\n", f->name, colours ? colour[f->status] : "",
		       status_names[f->status], colours ? "\033[0m" : "", f->detail,
		       f->mend[0] ? "; to mend it: " : "", f->mend);
	}
}

static int print_json(const struct finding *findings, bool usable)
{
	json_t *checks = json_array();
	int r = 0;

	for (unsigned i = 0; i < PROBES; i++)
		r |= json_array_append_new(
			checks, json_pack("{s:s, s:s, s:s, s:s}", "name", findings[i].name,
					  "status", status_names[findings[i].status], "detail",
					  findings[i].detail, "mend", findings[i].mend));
	json_t *all = json_pack("{s:s, s:b, s:o}", "version", HANOK_VERSION, "usable", usable,
				"checks", checks);
	if (r || !all || json_dumpf(all, stdout, JSON_INDENT(2)) < 0)
		r = fail(STATUS_FAILED, "doctor --json: it could not be written");
	else
		putchar('\n');
	json_decref(all);
	return r;
}

int verb_doctor(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct finding findings[PROBES] = {0};
	bool json = false, usable = true;
	const struct verb_words words = {NULL, 0, 0, "", verb_set_true, &json};

	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	for (unsigned i = 0; i < PROBES; i++) {
		findings[i].name = probes[i].name;
		probes[i].probe(&findings[i]);
		usable &= findings[i].status != FINDING_FATAL;
	}
	if (json) {
		r = print_json(findings, usable);
		if (r)
			return r;
	} else {
		print_table(findings);
	}
	return usable ? STATUS_OK : STATUS_FAILED;
}
