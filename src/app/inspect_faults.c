/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok inspect VM faults`: page faults as they happen, line by line. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "app/inspect.h"
#include "app/vm_verb.h"

enum { POLL_US = 200000, FIRST_LOOK_US = 1000000, LINES_A_POLL = 40, AT_ONCE = 2000 };

static void print_guest_fault(const json_t *e)
{
	const json_t *words = json_object_get(e, "error"), *word;
	size_t n;

	printf("%sguest fault%s  cpu %lld %-18s at rip %-18s ", ink(INK_YELLOW), ink_off(),
	       get_number(e, "cpu"), get_string(e, "address"), get_string(e, "rip"));
	json_array_foreach(words, n, word) printf("%s%s", n ? ", " : "", json_string_value(word));
	putchar('\n');
}

/* What was decided about a page that was not there. */
static void print_host_fault(const json_t *e)
{
	static const struct {
		const char *what, *decided;
		enum ink ink;
	} events[] = {
		{"first-touch", "never touched: a new frame, all zero", INK_GREEN},
		{"zero-in", "was evicted as all zero: a new frame", INK_BLUE},
		{"balloon-in", "was in the balloon: a new frame", INK_YELLOW},
		{"swap-in", "swapped out: loaded", INK_MAGENTA},
		{"rescue", "about to leave: it stays", INK_CYAN},
	};
	const char *what = get_string(e, "what"), *decided = "";
	enum ink colour = INK_NONE;

	for (unsigned n = 0; n < sizeof(events) / sizeof(events[0]); n++) {
		if (strcmp(what, events[n].what) != 0)
			continue;
		decided = events[n].decided;
		colour = events[n].ink;
	}
	printf("%s%-11s%s  gpa %-14s  %s", ink(colour), what, ink_off(), get_string(e, "gpa"),
	       decided);
	if (json_object_get(e, "slot"))
		printf(" from slot %lld", get_number(e, "slot"));
	if (json_object_get(e, "took_ns"))
		printf(" in %.1f us", (double)get_number(e, "took_ns") / 1e3);
	putchar('\n');
}

static void print_event(const json_t *e)
{
	printf("%s%12.6f%s  ", ink(INK_DIM), json_real_value(json_object_get(e, "time_s")),
	       ink_off());
	if (!strcmp(get_string(e, "what"), "guest-fault"))
		print_guest_fault(e);
	else
		print_host_fault(e);
}

static void print_text(const json_t *answer, bool limited)
{
	const json_t *events = json_object_get(answer, "events"), *e;
	unsigned long long more = (unsigned long long)get_number(answer, "lost");
	struct count_text count;
	size_t n;

	json_array_foreach(events, n, e)
	{
		if (limited && n >= LINES_A_POLL)
			more++;
		else
			print_event(e);
	}
	if (more)
		printf("%s              ... %s more%s\n", ink(INK_DIM), show_count(&count, more),
		       ink_off());
}

/* One event a line, and one that tells of those that were lost. */
static void print_lines(const json_t *answer)
{
	const json_t *e;
	size_t n;

	if (get_number(answer, "lost"))
		printf("{\"lost\": %lld}\n", get_number(answer, "lost"));
	json_array_foreach(json_object_get(answer, "events"), n, e)
	{
		json_dumpf(e, stdout, JSON_COMPACT);
		putchar('\n');
	}
}

static int ask(struct control_client *c, long long since, json_t **answer, struct error *err)
{
	json_t *request = json_pack("{s:s, s:i}", "do", "faults", "max", AT_ONCE);

	if (since >= 0)
		json_object_set_new(request, "since", json_integer(since));
	return control_ask(c, request, answer, ANSWER_MS, err);
}

static int follow(const struct inspect_args *a, struct control_client *c, long long since,
		  struct error *err)
{
	for (;;) {
		json_t *answer;
		int r = ask(c, since, &answer, err);
		if (r < 0)
			return r;
		if (a->json)
			print_lines(answer);
		else
			print_text(answer, true);
		since = get_number(answer, "next");
		bool full = json_array_size(json_object_get(answer, "events")) == AT_ONCE;
		json_decref(answer);
		if (fflush(stdout) == EOF)
			return 0; /* main() says so, once */
		if (!full || !a->json)
			usleep(POLL_US);
	}
}

int show_faults(const struct inspect_args *a, struct control_client *c, struct error *err)
{
	json_t *answer;
	int r = ask(c, -1, &answer, err);

	if (r < 0)
		return r;
	long long next = get_number(answer, "next");
	if (a->follow) {
		json_decref(answer);
		r = follow(a, c, next, err);
		if (r != -EPIPE)
			return r;
		/* What it is about has ended, and so has this. */
		fprintf(stderr, "hanok: %s: %s\n", a->vm, err->text);
		return 0;
	}
	/* Nobody had looked: wait until there may be something. */
	if (get_true(answer, "began")) {
		json_decref(answer);
		usleep(FIRST_LOOK_US);
		r = ask(c, -1, &answer, err);
		if (r < 0)
			return r;
	}
	if (a->json)
		r = print_json(answer, JSON_INDENT(2), err);
	else if (json_array_size(json_object_get(answer, "events")))
		print_text(answer, false);
	else
		puts("no page fault in the last second; --follow waits for some");
	json_decref(answer);
	return r;
}
