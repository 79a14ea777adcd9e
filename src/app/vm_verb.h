/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_VM_VERB_H
#define HANOK_APP_VM_VERB_H

#include <stdbool.h>
#include <stdint.h>

#include "control/client.h"
#include "control/vm_folder.h"

/* What the verbs that handle virtual machines share. */

enum { ANSWER_MS = 30000 }; /* a machine that is well answers much sooner */

/*
 * The options and operands of a verb. flag takes an option's val (and optarg): 0, or -errno with
 * *err. Words that are no options go to operands, in their order, wherever they stand; there have
 * to be from min to max of them, and `what` says which ("which machine?"). 0; 1 when --help was
 * asked for, which must be 'h'; or -EINVAL with *err.
 */
struct verb_words {
	const char **operands;
	unsigned min, max;
	const char *what;
	int (*flag)(void *opaque, int option, struct error *err);
	void *opaque;
	const char *group; /* of a verb below a verb: the one above */
};
struct option;
int verb_parse(int argc, char **argv, const struct option *options, const struct verb_words *w,
	       struct error *err);

/* A flag for verbs with a single option, which is given or not: opaque is a bool. */
int verb_set_true(void *opaque, int option, struct error *err);

/* The same for a whole verb: help is printed if it was asked for, and an error is said. The exit
 * status of that, or -1: go on. */
int verb_begin(int argc, char **argv, const struct option *options, const struct verb_words *w,
	       const char *help);

/* Verbs below a verb, as in `hanok disk create`: runs the one that argv[1] names. group is the verb above.
 * verbs ends with a name of NULL; at most SUB_VERBS_MAX. The exit status. */
enum { SUB_VERBS_MAX = 15 };
struct sub_verb {
	const char *name;
	int (*fn)(int argc, char **argv);
};
int verb_below(const char *group, const char *help, const struct sub_verb *verbs, int argc,
	       char **argv);

/* Finds a machine and connects to it. -ESRCH: it does not run, and *f is found all the same. After
 * 0 and -ESRCH vm_folder_free; *c is the caller's. */
int verb_connect(const char *word, struct vm_folder *f, struct control_client **c,
		 struct error *err);

/* The same for who needs it to run: whatever the error is, nothing is to be freed. */
int verb_reach(const char *word, struct vm_folder *f, struct control_client **c, struct error *err);

/* One request without arguments to the machine named by word: a whole verb. The exit status. */
int verb_ask(int argc, char **argv, const char *help, const char *request);

/* Waits until nobody runs it any more, which is soon after it has ended. 0 or -ETIMEDOUT. */
int verb_wait_unlocked(const struct vm_folder *f, int timeout_ms, struct error *err);

/* Cuts the machine's power and waits until it is gone. 0 or -errno with *err. */
int verb_pull_plug(const struct vm_folder *f, struct control_client *c, struct error *err);

/* A line of progress on a terminal, replaced by the next; progress_end takes it away. Nothing where
 * standard error is no terminal. */
void progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void progress_end(void);

/* Control characters become question marks, in place. */
void make_printable(char *text);

/* "512 MiB", "1.5 GiB"; "2m 5s", "3h 2m". Into text, which is returned. */
struct short_text {
	char text[32];
};
const char *show_bytes(struct short_text *t, uint64_t bytes);
const char *show_seconds(struct short_text *t, double seconds);

#endif
