/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok stop`: the power button, and the wait until the guest has shut down. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "app/app.h"
#include "app/options.h"
#include "app/vm_verb.h"
#include "base/clock.h"

static const char help[] =
	"hanok stop: shut a running machine down.\n"
	"\n"
	"  hanok stop mail                  press its power button and wait until it is off\n"
	"  hanok stop --timeout 5m mail     ... at most so long (90 s)\n"
	"  hanok stop --force mail          cut its power: what it had not written is lost\n"
	"\n"
	"The power button is an ACPI event. A guest that does not listen for it (no systemd-logind,\n"
	"no acpid, still booting) stays on; shut it down from within, or use --force.\n"
	"\n"
	"Exit status: 0 it is off, also if it was before; 2 the command line is wrong; 3 it crashed\n"
	"meanwhile; 124 it did not shut down in time; 125 it could not be asked.\n";

enum { TICK_MS = 500 };

struct stop {
	bool force;
	uint64_t timeout_ns;
};

static int set_option(void *opaque, int option, struct error *err)
{
	struct stop *s = opaque;

	if (option == 'f')
		s->force = true;
	else
		return parse_seconds("--timeout", optarg, &s->timeout_ns, err);
	return 0;
}

/* Waits for the machine's end; *how is what `wait` answered, or NULL when it just went. */
static int wait_for_end(struct control_client *c, const char *name, uint64_t timeout_ns,
			json_t **how, struct error *err)
{
	uint64_t begin = clock_ns(), now = begin;
	int r = control_send(c, json_pack("{s:s}", "do", "wait"), err);

	*how = NULL;
	while (r == 0 && *how == NULL && now - begin < timeout_ns) {
		r = control_receive(c, how, TICK_MS, err);
		now = clock_ns();
		if (r == -ETIMEDOUT) {
			progress("%s: waiting for it to shut down, %" PRIu64 " s", name,
				 (now - begin) / 1000000000);
			r = 0;
		}
	}
	progress_end();
	if (r == -EPIPE)
		return 0;
	if (r == 0 && !*how)
		return error_set(
			err, -ETIMEDOUT,
			"%s: it did not shut down within %g s; wait longer with --timeout, "
			"or cut its power with `hanok stop --force`",
			name, (double)timeout_ns / 1e9);
	return r;
}

static int press_and_wait(const struct stop *s, const struct vm_folder *f, struct control_client *c,
			  struct error *err)
{
	json_t *how = NULL;
	int r = control_ask(c, json_pack("{s:s}", "do", "power-button"), NULL, ANSWER_MS, err);

	if (r == -EREMOTEIO) {
		struct error why = *err;
		error_set(err, r, "%s: %.400s", f->vmx, why.text);
	}
	if (r == 0)
		r = wait_for_end(c, f->base, s->timeout_ns, &how, err);
	if (r == 0)
		r = verb_wait_unlocked(f, ANSWER_MS, err);
	const char *end = json_string_value(json_object_get(how, "end"));
	if (r == 0 && end && !strcmp(end, "crashed")) {
		const char *why = json_string_value(json_object_get(how, "why"));
		r = error_set(err, -ECANCELED, "%s: %s", f->vmx, why ? why : "it crashed");
	}
	json_decref(how);
	return r;
}

int verb_stop(int argc, char **argv)
{
	static const struct option options[] = {
		{"force", no_argument, NULL, 'f'},
		{"timeout", required_argument, NULL, 't'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct stop s = {.timeout_ns = UINT64_C(90000000000)};
	const char *word;
	const struct verb_words words = {&word, 1, 1, "which machine?", set_option, &s};
	struct control_client *c;
	struct vm_folder f;
	struct error err;

	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	r = verb_connect(word, &f, &c, &err);
	if (r == -ESRCH) {
		vm_folder_free(&f);
		return STATUS_OK;
	}
	if (r < 0)
		return fail(STATUS_FAILED, "%s", err.text);
	r = s.force ? verb_pull_plug(&f, c, &err) : press_and_wait(&s, &f, c, &err);
	control_close(c);
	vm_folder_free(&f);
	if (r == 0)
		return STATUS_OK;
	return fail(r == -ETIMEDOUT   ? STATUS_TIMED_OUT
		    : r == -ECANCELED ? STATUS_CRASHED
				      : STATUS_FAILED,
		    "%s", err.text);
}
