/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process's own memory in one slice of the address space.
 *
 * The program is linked to an address in the slice (meson.build), and its heap follows it. Where mmap
 * places the rest follows from the limit on the stack: the kernel leaves room for a stack as large as the
 * soft limit allows, and begins right below. So the process sets a very large limit and execs itself;
 * what it is then, it knows from a word in its environment, which also says what the limit was. It takes
 * the word away and sets the limit back before anything else.
 *
 * Left over is the initial stack, which is at the top whatever one does: layout_stack.c. So is the vdso
 * of older kernels (6.1): layout_vdso.c.
 */
#include "base/layout.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/layout_internal.h"

/* mmap begins below this address, by up to 1 TiB at random, or by 16 TiB if the host is set up so
 * (vm.mmap_rnd_bits): then it may have to be tried again until there is room above LOWEST. */
#define MMAP_TOP UINT64_C(0x2e0000000000)
#define LOWEST UINT64_C(0x230000000000)
/* Where the kernel begins to count down from: TASK_SIZE. */
#define USER_END UINT64_C(0x7ffffffff000)
#define OUR_LIMIT (USER_END - MMAP_TOP)

enum { TURNS = 4, NAME_BYTES = 16, THREAD_STACK = 8 << 20, THREAD_STACK_MIN = 128 << 10 };

#define NOTE "HANOK_STACK_LIMIT"

/* The note in the environment: SOFT,TURN,NAME. */
struct note {
	uint64_t soft;	       /* the soft limit as it was */
	unsigned turn;	       /* how many times the process has exec'd itself */
	char name[NAME_BYTES]; /* the process's, for exec makes it "exe" */
	const char *at;	       /* where it was in the environment; NULL: there was none */
};

/* Why the layout is not what it should be, as far as that was noticed on the way. */
static struct error why;

static bool in_slice(uint64_t start, uint64_t end)
{
	return start >= LAYOUT_BASE + LAYOUT_GUARD && end <= LAYOUT_END - LAYOUT_GUARD;
}

/* ---- what is mapped ---- */

struct survey {
	struct layout_taken stack;
	bool stack_hidden;
	uint64_t lowest;
	uint64_t stray; /* a mapping out of the slice, 0: none */
	char stray_name[64];
};

static void survey_mapping(const struct layout_mapping *m, void *opaque)
{
	struct survey *s = opaque;

	if (!strncmp(m->name, "[stack]", 7)) {
		s->stack = m->at;
		s->stack_hidden = !strncmp(m->access, "---", 3);
		return;
	}
	/* vsyscall, in the kernel's half: no data of it may be seen there either. */
	if (m->at.start >> 63 && m->access[0] != 'r')
		return;
	if (m->at.start < s->lowest)
		s->lowest = m->at.start;
	if (!s->stray && !in_slice(m->at.start, m->at.end)) {
		s->stray = m->at.start;
		snprintf(s->stray_name, sizeof(s->stray_name), "%s", m->name);
	}
}

static int survey(struct survey *s, struct error *err)
{
	*s = (struct survey){.lowest = UINT64_MAX};
	int r = layout_each_mapping(survey_mapping, s, err);
	if (r == 0 && !s->stack.end)
		r = error_set(err, -ENOENT, "/proc/self/maps: it has no [stack]");
	return r;
}

bool layout_is_own(struct layout_taken *stack, struct error *err)
{
	struct survey s;

	if (survey(&s, err) < 0)
		return false;
	*stack = s.stack;
	if (s.stray)
		error_set(err, -EADDRINUSE, "%s is at 0x%" PRIx64 "%s%s",
			  *s.stray_name ? s.stray_name : "memory", s.stray, *why.text ? ": " : "",
			  why.text);
	else if (!s.stack_hidden)
		error_set(err, -EADDRINUSE, "the initial stack is in use%s%s",
			  *why.text ? ": " : "", why.text);
	return !s.stray && s.stack_hidden;
}

/* ---- the note ---- */

static bool parse_note(const char *text, struct note *n)
{
	int name = 0;

	if (sscanf(text, "%" SCNu64 ",%u,%n", &n->soft, &n->turn, &name) < 2 || !name)
		return false;
	if (strlen(text + name) >= sizeof(n->name))
		return false;
	strcpy(n->name, text + name);
	return true;
}

/* Takes the note out of the environment. False: there is none, or not one of ours, for whoever wrote
 * that did not set the limit. */
static bool take_note(struct note *n, rlim_t soft)
{
	n->at = getenv(NOTE);
	bool ours = n->at && soft == OUR_LIMIT && parse_note(n->at, n);

	unsetenv(NOTE);
	return ours;
}

static int write_note(const struct note *n)
{
	char text[64];

	snprintf(text, sizeof(text), "%" PRIu64 ",%u,%s", n->soft, n->turn, n->name);
	return setenv(NOTE, text, 1);
}

/* ---- one exec to the other ---- */

/* Undoes what the limit has brought along. */
static void set_back(const struct note *n, rlim_t hard)
{
	struct rlimit was = {n->soft, hard};
	size_t bytes = THREAD_STACK;
	pthread_attr_t attr;

	setrlimit(RLIMIT_STACK, &was);
	prctl(PR_SET_NAME, n->name);
	/* The C library took the limit for the size of threads' stacks, which it is by custom. */
	if (n->soft >= THREAD_STACK_MIN && n->soft < UINT64_C(1) << 30)
		bytes = n->soft;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, bytes);
	pthread_setattr_default_np(&attr);
	pthread_attr_destroy(&attr);
}

/* Returns if it cannot be done. */
static void exec_again(struct note *n, rlim_t hard, char **argv)
{
	struct rlimit ours = {OUR_LIMIT, hard}, was = {n->soft, hard};

	n->turn++;
	if (setrlimit(RLIMIT_STACK, &ours) < 0) {
		error_set(&why, -errno, "the hard limit on the stack is too low (ulimit -Hs)");
		return;
	}
	if (write_note(n) == 0)
		execv("/proc/self/exe", argv);
	error_set(&why, -errno, "/proc/self/exe: %s", strerror(errno));
	unsetenv(NOTE);
	setrlimit(RLIMIT_STACK, &was);
}

/* What is mapped, after the vdso, if it is above the stack, has moved to the end of the slice: as far below
 * it as it was below the end of all, so that it is where chance put it, and after all libraries, as before. */
static int survey_moved(struct survey *s, char **argv)
{
	int r = survey(s, &why);

	if (r < 0 || getauxval(AT_SYSINFO_EHDR) < s->stack.end)
		return r;
	r = layout_move_vdso(LAYOUT_END - LAYOUT_GUARD - USER_END, argv, &why);
	return r < 0 ? r : survey(s, &why);
}

/* Where the note's string is the last of the environment, it ends before that. */
static const char *env_end(const struct note *n)
{
	const char *end = n->at + strlen(n->at) + 1;
	const char *after = (const char *)getauxval(AT_EXECFN);

	return after == end ? n->at - strlen(NOTE "=") : NULL;
}

/* Whether there is room enough, and all lies where it should, but for the stack. */
static bool is_placed(const struct survey *s)
{
	if (!s->stray && s->lowest >= LOWEST)
		return true;
	error_set(&why, -EADDRINUSE, "the kernel places mappings at 0x%" PRIx64, s->lowest);
	return false;
}

int layout_run(int (*fn)(int, char **), int argc, char **argv)
{
	struct layout_call c = {.fn = fn, .argc = argc, .argv = argv};
	struct note n = {0};
	struct rlimit limit;
	struct survey s;
	int status;

	/* Not the program that is linked to the slice: one with sanitizers, a unit test. */
	if (!in_slice((uintptr_t)&why, (uintptr_t)&why) || argc < 1 ||
	    getrlimit(RLIMIT_STACK, &limit) < 0)
		return fn(argc, argv);
	if (take_note(&n, limit.rlim_cur)) {
		set_back(&n, limit.rlim_max);
		if (survey_moved(&s, argv) < 0)
			return fn(argc, argv);
		if (is_placed(&s)) {
			c.old = s.stack;
			c.env_end = env_end(&n);
			return layout_cross(&c, &status, &why) == 0 ? status : fn(argc, argv);
		}
	} else {
		n = (struct note){.soft = limit.rlim_cur};
		prctl(PR_GET_NAME, n.name);
	}
	if (n.turn < TURNS)
		exec_again(&n, limit.rlim_max, argv);
	return fn(argc, argv);
}
