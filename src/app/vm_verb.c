/* SPDX-License-Identifier: Apache-2.0 */
#include "app/vm_verb.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "app/options.h"
#include "base/clock.h"

enum { UNLOCK_POLL_US = 20000, PLUG_MS = 15000 };

/* ---- words ---- */

int verb_parse(int argc, char **argv, const struct option *options, const struct verb_words *w,
	       struct error *err)
{
	unsigned count = 0;
	int r = 0;

	while (r == 0) {
		int option = option_next(argc, argv, options, err);
		if (option == 'h')
			return 1;
		if (option == '?')
			return -EINVAL;
		if (option != -1)
			r = w->flag(w->opaque, option, err);
		else if (optind == argc)
			break;
		else if (count == w->max)
			r = error_set(err, -EINVAL,
				      "%s: one word too many; --help shows how it goes",
				      argv[optind]);
		else
			w->operands[count++] = argv[optind++];
	}
	if (r == 0 && count < w->min)
		r = error_set(err, -EINVAL, "%s%s%s: %s; --help shows how it goes",
			      w->group ? w->group : "", w->group ? " " : "", argv[0], w->what);
	return r;
}

int verb_set_true(void *opaque, int option, struct error *err)
{
	(void)option, (void)err;
	*(bool *)opaque = true;
	return 0;
}

int verb_begin(int argc, char **argv, const struct option *options, const struct verb_words *w,
	       const char *help)
{
	struct error err;
	int r = verb_parse(argc, argv, options, w, &err);

	if (r < 0)
		return fail(STATUS_USAGE, "%s", err.text);
	if (r == 0)
		return -1;
	fputs(help, stdout);
	return STATUS_OK;
}

/* ---- machines ---- */

int verb_connect(const char *word, struct vm_folder *f, struct control_client **c,
		 struct error *err)
{
	struct vm_runner runner;
	int r = vm_find(f, word, err);

	*c = NULL;
	if (r < 0)
		return r;
	r = vm_is_running(f, &runner, err);
	if (r == 0)
		return error_set(err, -ESRCH, "%s: it does not run; `hanok start %s` starts it",
				 f->vmx, word);
	if (r > 0)
		r = control_connect(c, runner.socket, err);
	if (r == -ENOENT || r == -ECONNREFUSED)
		error_set(
			err, r,
			"%s: process %d runs it but does not listen; it is starting or ending, so "
			"try again soon",
			f->vmx, (int)runner.pid);
	if (r < 0)
		vm_folder_free(f);
	return r;
}

int verb_reach(const char *word, struct vm_folder *f, struct control_client **c, struct error *err)
{
	int r = verb_connect(word, f, c, err);

	if (r == -ESRCH)
		vm_folder_free(f);
	return r;
}

int verb_ask(int argc, char **argv, const char *help, const char *request)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
	const char *word;
	const struct verb_words words = {&word, 1, 1, "which machine?", NULL, NULL};
	struct control_client *c;
	struct vm_folder f;
	struct error err;

	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	r = verb_reach(word, &f, &c, &err);
	if (r < 0)
		return fail(STATUS_FAILED, "%s", err.text);
	r = control_ask(c, json_pack("{s:s}", "do", request), NULL, ANSWER_MS, &err);
	if (r < 0)
		fail(STATUS_FAILED, "%s: %s", f.vmx, err.text);
	control_close(c);
	vm_folder_free(&f);
	return r < 0 ? STATUS_FAILED : STATUS_OK;
}

int verb_wait_unlocked(const struct vm_folder *f, int timeout_ms, struct error *err)
{
	uint64_t until = clock_ns() + (uint64_t)timeout_ms * UINT64_C(1000000);
	struct vm_runner runner;
	int r;

	while ((r = vm_is_running(f, &runner, err)) > 0) {
		if (clock_ns() > until)
			return error_set(
				err, -ETIMEDOUT,
				"%s: process %d still has it after %d s; `kill %d` ends it", f->vmx,
				(int)runner.pid, timeout_ms / 1000, (int)runner.pid);
		usleep(UNLOCK_POLL_US);
	}
	return r;
}

int verb_pull_plug(const struct vm_folder *f, struct control_client *c, struct error *err)
{
	int r = control_ask(c, json_pack("{s:s}", "do", "quit"), NULL, ANSWER_MS, err);

	if (r == -EPIPE)
		r = 0;
	return r < 0 ? r : verb_wait_unlocked(f, PLUG_MS, err);
}

/* ---- words for people ---- */

void progress(const char *fmt, ...)
{
	va_list ap;

	if (!isatty(STDERR_FILENO))
		return;
	fputs("\r", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\033[K", stderr);
	fflush(stderr);
}

void progress_end(void)
{
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

void make_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

const char *show_bytes(struct short_text *t, uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	unsigned u = 0;
	double n = (double)bytes;

	while (n >= 1024 && u < 4) {
		n /= 1024;
		u++;
	}
	snprintf(t->text, sizeof(t->text), "%.*f %s", n == (double)(uint64_t)n ? 0 : 1, n,
		 units[u]);
	return t->text;
}

const char *show_seconds(struct short_text *t, double seconds)
{
	uint64_t s = (uint64_t)seconds;

	if (s < 60)
		snprintf(t->text, sizeof(t->text), "%" PRIu64 "s", s);
	else if (s < 3600)
		snprintf(t->text, sizeof(t->text), "%" PRIu64 "m %" PRIu64 "s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(t->text, sizeof(t->text), "%" PRIu64 "h %" PRIu64 "m", s / 3600,
			 s / 60 % 60);
	else
		snprintf(t->text, sizeof(t->text), "%" PRIu64 "d %" PRIu64 "h", s / 86400,
			 s / 3600 % 24);
	return t->text;
}

int verb_below(const char *group, const char *help, const struct sub_verb *verbs, int argc,
	       char **argv)
{
	const char *names[SUB_VERBS_MAX + 1] = {0};

	if (argc < 2)
		return fail(STATUS_USAGE, "%s: what to do? `hanok %s --help` lists the verbs",
			    group, group);
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		fputs(help, stdout);
		return STATUS_OK;
	}
	for (unsigned i = 0; i < SUB_VERBS_MAX && verbs[i].name; i++) {
		if (!strcmp(argv[1], verbs[i].name))
			return verbs[i].fn(argc - 1, argv + 1);
		names[i] = verbs[i].name;
	}
	const char *near = nearest_name(argv[1], names);
	if (near)
		return fail(STATUS_USAGE,
			    "%s %s: there is no such verb; did you mean `hanok %s %s`?", group,
			    argv[1], group, near);
	return fail(STATUS_USAGE, "%s %s: there is no such verb; `hanok %s --help` lists them",
		    group, argv[1], group);
}
