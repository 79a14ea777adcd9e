/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stack in the slice instead of the initial one.
 *
 * The kernel puts arguments, environment and the auxiliary vector at the initial stack's end. The C
 * library keeps pointers to them, and not only those with names: dlopen looks at the name of the platform
 * there, getauxval at the vector. So all of it is copied, to the same place at the new stack's end, and
 * every word in the data of the program and its libraries that points there is made to point to the
 * copy. The kernel is told, too, for ps asks it.
 *
 *   initial stack   [ ...... frames of main | argc argv[] environ[] auxv[] strings ]
 *                                            └──────────── copied ───────────────┘
 *   new stack   guard [ ........... fn runs | argc argv[] environ[] auxv[] strings ]
 */
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/layout_internal.h"

enum { PAGE = 4096, STACK_BYTES = 8 << 20, STAT_FIELDS = 52, AUXV_ENTRIES = 64 };

/* Not on either stack. */
static struct crossing {
	struct layout_call call;
	ucontext_t here, there;
	int status;
} crossing;

/* ---- what the kernel knows ---- */

/* The numbers of /proc/self/stat, as proc(5) counts them; those before 4 are not numbers. */
static int read_stat(unsigned long long fields[STAT_FIELDS], struct error *err)
{
	char text[2048];
	FILE *f = fopen("/proc/self/stat", "re");
	size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

	if (f)
		fclose(f);
	text[n] = 0;
	/* Field 2 is a name with anything in it, in parentheses. */
	char *p = strrchr(text, ')');
	if (!p || strlen(p) < 4)
		return error_set(err, -ENOENT, "/proc/self/stat cannot be read");
	p += 3;
	for (unsigned i = 4; i < STAT_FIELDS; i++)
		fields[i] = strtoull(p, &p, 10);
	return 0;
}

/* The auxiliary vector as debuggers are to see it. Returns its size, or a negative errno. */
static int make_auxv(const struct layout_move *m, ElfW(auxv_t) auxv[AUXV_ENTRIES],
		     struct error *err)
{
	int fd = open("/proc/self/auxv", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, auxv, AUXV_ENTRIES * sizeof(*auxv));

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return error_set(err, -ENOENT, "/proc/self/auxv cannot be read");
	for (size_t i = 0; i < (size_t)n / sizeof(*auxv); i++) {
		/* The vdso may have moved, which the kernel does not note here. */
		if (auxv[i].a_type == AT_SYSINFO_EHDR)
			auxv[i].a_un.a_val = getauxval(AT_SYSINFO_EHDR);
		else if (layout_points_there(m, auxv[i].a_un.a_val))
			auxv[i].a_un.a_val += m->delta;
	}
	return (int)n;
}

/* So that /proc/PID/cmdline, environ and auxv are those of the copy. */
static int tell_kernel(const struct layout_move *m, const char *env_end, struct error *err)
{
	unsigned long long stat[STAT_FIELDS] = {0};
	ElfW(auxv_t) auxv[AUXV_ENTRIES];
	int r = read_stat(stat, err);
	int auxv_bytes = r < 0 ? r : make_auxv(m, auxv, err);

	if (auxv_bytes < 0)
		return auxv_bytes;
	struct prctl_mm_map map = {
		.start_code = stat[26],
		.end_code = stat[27],
		.start_data = stat[45],
		.end_data = stat[46],
		.start_brk = stat[47],
		.brk = (uint64_t)syscall(SYS_brk, 0),
		.start_stack = stat[28],
		.arg_start = stat[48] + m->delta,
		.arg_end = stat[49] + m->delta,
		.env_start = stat[50] + m->delta,
		.env_end = (env_end ? (uintptr_t)env_end : stat[51]) + m->delta,
		.auxv = (void *)auxv,
		.auxv_size = (uint32_t)auxv_bytes,
		.exe_fd = (uint32_t)-1,
	};
	if (!layout_points_there(m, stat[48]) || !layout_points_there(m, stat[51] - 1))
		return error_set(err, -EINVAL, "the arguments are not on the initial stack");
	if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0) < 0)
		return error_set(err, -errno, "the kernel cannot be told where arguments are: %s",
				 strerror(errno));
	return 0;
}

/* ---- over there ---- */

/* On the new stack. Nothing touches the old one until it is accessible again: not exit() either. */
static void over_there(void)
{
	const struct layout_call *c = &crossing.call;
	void *old = (void *)c->old.start;
	size_t bytes = c->old.end - c->old.start;

	mprotect(old, bytes, PROT_NONE);
	crossing.status = c->fn(c->argc, c->argv);
	mprotect(old, bytes, PROT_READ | PROT_WRITE);
}

/* Guard, stack, and the copy at the end of it. NULL: no memory. */
static uint8_t *make_stack(const struct layout_move *m, size_t *bytes)
{
	uintptr_t first = m->from & ~(uintptr_t)(PAGE - 1);

	*bytes = PAGE + STACK_BYTES + (m->end - first);
	uint8_t *p = mmap(NULL, *bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	mprotect(p, PAGE, PROT_NONE);
	return p;
}

int layout_cross(const struct layout_call *c, int *status, struct error *err)
{
	/* argc lies right before argv[0]. */
	struct layout_move m = {.from = (uintptr_t)(c->argv - 1), .end = c->old.end};
	size_t bytes;

	if (m.from < c->old.start || m.from >= c->old.end)
		return error_set(err, -EINVAL, "the arguments are not on the initial stack");
	uint8_t *p = make_stack(&m, &bytes);
	if (!p)
		return error_set(err, -ENOMEM, "a stack: %s", strerror(errno));
	m.delta = (uintptr_t)p + bytes - m.end;
	memcpy((void *)(m.from + m.delta), (void *)m.from, m.end - m.from);
	int r = tell_kernel(&m, c->env_end, err);
	if (r < 0) {
		munmap(p, bytes);
		return r;
	}
	/* The copy's own: argv[], environ[], auxv[], which end where the strings begin. */
	layout_turn_words(&m, m.from + m.delta, (uintptr_t)c->argv[0] + m.delta);
	layout_turn_objects(&m);

	crossing.call = *c;
	crossing.call.argv = (char **)((uintptr_t)c->argv + m.delta);
	getcontext(&crossing.there);
	crossing.there.uc_link = &crossing.here;
	crossing.there.uc_stack.ss_sp = p + PAGE;
	crossing.there.uc_stack.ss_size = (m.from + m.delta - (uintptr_t)(p + PAGE)) & ~(size_t)15;
	makecontext(&crossing.there, over_there, 0);
	swapcontext(&crossing.here, &crossing.there);
	*status = crossing.status;
	return 0;
}
