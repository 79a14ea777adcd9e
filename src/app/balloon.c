/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok balloon`: how much memory a guest gives back, and what it says of the rest. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "app/options.h"
#include "app/vm_verb.h"
#include "base/clock.h"

static const char help[] =
	"hanok balloon: have a guest give memory back.\n"
	"\n"
	"  hanok balloon mail           how large its balloon is, and what its guest says of its memory\n"
	"  hanok balloon mail 256M      its guest gives 256 MiB back and keeps the rest\n"
	"  hanok balloon mail off       it gets all of it back\n"
	"  hanok balloon mail auto      the balloon grows when the machine comes near its memory limit,\n"
	"                               before anything is swapped out, and shrinks when its guest is\n"
	"                               short; so it is when nobody says (docs/MEMORY.md)\n"
	"  hanok balloon --json mail    what `balloon` answers (docs/CONTROL.md)\n"
	"\n"
	"The guest needs a driver, in Linux virtio_balloon. It does it in its own time: look again.\n"
	"\n"
	"Exit status: 0; 2 the command line is wrong; 125 it could not be asked, or has no driver.\n";

enum { FRESH_MS = 2000, POLL_US = 50000 };

/* The request that a word stands for; NULL: it stands for none. */
static json_t *make_request(const char *word, struct error *err)
{
	json_t *request = json_pack("{s:s}", "do", "balloon");
	uint64_t bytes = 0;

	if (word && !strcmp(word, "auto")) {
		json_object_set_new(request, "auto", json_true());
	} else if (word) {
		if (strcmp(word, "off") && parse_size("balloon", word, &bytes, err) < 0) {
			error_set(err, -EINVAL,
				  "balloon: %.60s: it is a size as in 256M, off or auto", word);
			json_decref(request);
			return NULL;
		}
		json_object_set_new(request, "target_bytes", json_integer((json_int_t)bytes));
	}
	return request;
}

/* Asks until the guest's figures are new, or for two seconds. The request's own error comes first. */
static int ask(struct control_client *c, json_t *request, json_t **answer, struct error *err)
{
	uint64_t begin = clock_ns();
	int r = control_ask(c, request, answer, ANSWER_MS, err);

	while (r == 0 && json_is_true(json_object_get(*answer, "driver"))) {
		double waited = (double)(clock_ns() - begin) / 1e9;
		json_t *guest = json_object_get(*answer, "guest");
		json_t *age = json_object_get(guest, "age_s");
		if (waited * 1000 > FRESH_MS || (age && json_number_value(age) < waited))
			break;
		usleep(POLL_US);
		json_decref(*answer);
		*answer = NULL;
		r = control_ask(c, json_pack("{s:s}", "do", "balloon"), answer, ANSWER_MS, err);
	}
	return r;
}

static uint64_t number(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

static void print_figures(const json_t *guest)
{
	static const struct {
		const char *key, *label;
	} sizes[] =
		{
			{"total_bytes", "total"},	  {"free_bytes", "free"},
			{"available_bytes", "available"}, {"caches_bytes", "caches"},
			{"swap_in_bytes", "swapped in"},  {"swap_out_bytes", "swapped out"},
		},
	  counts[] = {
		  {"major_faults", "major faults"},
		  {"minor_faults", "minor faults"},
		  {"oom_kills", "killed for lack of memory"},
	  };
	struct short_text t;

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (json_object_get(guest, sizes[i].key))
			printf("  %-26s %s\n", sizes[i].label,
			       show_bytes(&t, number(guest, sizes[i].key)));
	for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		if (json_object_get(guest, counts[i].key))
			printf("  %-26s %" PRIu64 "\n", counts[i].label,
			       number(guest, counts[i].key));
	printf("  %-26s %.1f s ago\n", "said", json_number_value(json_object_get(guest, "age_s")));
}

static void print(const json_t *answer)
{
	const char *mode = json_string_value(json_object_get(answer, "mode"));
	const json_t *guest = json_object_get(answer, "guest");
	struct short_text a, b;

	printf("balloon: %s of the %s wanted (%s)\n",
	       show_bytes(&a, number(answer, "actual_bytes")),
	       show_bytes(&b, number(answer, "target_bytes")),
	       mode && !strcmp(mode, "auto") ? "automatic" : "not automatic");
	printf("free pages given back: %s\n",
	       show_bytes(&a, number(answer, "reported_pages") * 4096));
	if (json_object_get(guest, "age_s")) {
		printf("its guest's memory:\n");
		print_figures(guest);
	}
}

static int show(const struct vm_folder *f, const json_t *answer, bool json, struct error *err)
{
	char *text = json ? json_dumps(answer, JSON_INDENT(2)) : NULL;

	if (text)
		puts(text);
	free(text);
	if (json)
		return 0;
	if (!json_is_true(json_object_get(answer, "driver")))
		return error_set(
			err, -ENODEV,
			"%s: its guest has no driver for the balloon, or has not loaded it "
			"yet; in Linux that is virtio_balloon",
			f->vmx);
	print(answer);
	return 0;
}

int verb_balloon(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
	bool json = false;
	const char *word[2] = {NULL, NULL};
	const struct verb_words words = {word, 1, 2, "which machine?", verb_set_true, &json};
	struct control_client *c;
	json_t *answer = NULL, *request = NULL;
	struct vm_folder f;
	struct error err;

	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	request = make_request(word[1], &err);
	if (!request)
		return fail(STATUS_USAGE, "%s", err.text);
	r = verb_reach(word[0], &f, &c, &err);
	if (r < 0) {
		json_decref(request);
		return fail(STATUS_FAILED, "%s", err.text);
	}
	r = ask(c, request, &answer, &err);
	if (r == -EREMOTEIO) {
		struct error why = err;
		error_set(&err, r, "%s: %.400s", f.vmx, why.text);
	}
	if (r == 0)
		json_object_del(answer, "ok");
	/* `off` and `auto` are for later, too. */
	if (r == 0 && (json || !word[1] || json_is_true(json_object_get(answer, "driver"))))
		r = show(&f, answer, json, &err);
	json_decref(answer);
	control_close(c);
	vm_folder_free(&f);
	return r == 0 ? STATUS_OK : fail(STATUS_FAILED, "%s", err.text);
}
