/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout_probe [high]: a program with its memory in the slice, for tests/test_layout.py, and whether the
 * vdso still does its work there. It links src/base/layout*.c. One line for each thing that is not as it
 * should be; at last "layout_probe: N failures".
 *
 * high: the vdso is first moved above the stack, where older kernels put it.
 *
 * Clocks must be read without a system call. A filter forbids those; the coarse clocks, time() and getcpu()
 * are never in need of one, whatever the kernel takes the time from.
 */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <link.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/layout_internal.h"

static unsigned failures;

#define CHECK(what) check(what, #what)

static void check(bool good, const char *what)
{
	if (good)
		return;
	__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
	printf("not so: %s\n", what);
}

static void forbid_system_calls(void)
{
#define REFUSE(number)                                                                             \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),                                         \
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		REFUSE(SYS_clock_gettime),
		REFUSE(SYS_gettimeofday),
		REFUSE(SYS_time),
		REFUSE(SYS_getcpu),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};

	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
	CHECK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, NULL) < 0 && errno == EPERM);
}

static time_t real_seconds; /* as the kernel says, before it is asked no more */

static bool is_now(time_t seconds)
{
	return seconds >= real_seconds && seconds < real_seconds + 60;
}

static void *read_clocks(void *unused)
{
	time_t (*time_anew)(time_t *) = (time_t(*)(time_t *))dlsym(RTLD_DEFAULT, "time");
	struct timespec t;
	unsigned cpu = 9999;

	(void)unused;
	CHECK(clock_gettime(CLOCK_REALTIME_COARSE, &t) == 0 && is_now(t.tv_sec));
	CHECK(clock_gettime(CLOCK_MONOTONIC_COARSE, &t) == 0);
	CHECK(is_now(time(NULL)));
	CHECK(is_now(time_anew(NULL)));
	CHECK(getcpu(&cpu, NULL) == 0 && cpu < 4096);
	return NULL;
}

/* What only a kernel with a good source of time gives without a system call. */
static bool fine_clocks_work(void)
{
	struct timespec t;
	struct timeval v;

	return clock_gettime(CLOCK_MONOTONIC, &t) == 0 && clock_gettime(CLOCK_REALTIME, &t) == 0 &&
	       is_now(t.tv_sec) && gettimeofday(&v, NULL) == 0 && is_now(v.tv_sec);
}

static unsigned ns_each(void)
{
	struct timespec a, b;
	enum { TIMES = 100000 };

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (unsigned i = 0; i < TIMES; i++)
		clock_gettime(CLOCK_MONOTONIC, &b);
	return (unsigned)(((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec) / TIMES);
}

static void read_clocks_in_threads(void)
{
	pthread_t thread[4];

	for (unsigned i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, read_clocks, NULL);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
}

static void read_clocks_in_child(void)
{
	int status;

	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		unsigned before = failures;
		read_clocks_in_threads();
		exit(failures != before);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* ---- as a library ---- */

static int see_object(struct dl_phdr_info *object, size_t size, void *seen)
{
	(void)size;
	for (unsigned i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *h = &object->dlpi_phdr[i];
		if (h->p_type == PT_LOAD &&
		    object->dlpi_addr + h->p_vaddr == getauxval(AT_SYSINFO_EHDR))
			*(bool *)seen = true;
	}
	return 0;
}

/* What the loader says about the vdso. */
static void check_library(void)
{
	uintptr_t ehdr = getauxval(AT_SYSINFO_EHDR);
	const ElfW(Ehdr) *header = (const ElfW(Ehdr) *)ehdr;
	struct dl_find_object found;
	Dl_info info;

	CHECK(dladdr((void *)(ehdr + header->e_entry), &info) && info.dli_fbase == (void *)ehdr);
	CHECK(info.dli_fname && strstr(info.dli_fname, "linux-vdso"));
	/* What unwinders ask. */
	CHECK(_dl_find_object((void *)(ehdr + header->e_entry), &found) == 0);
	CHECK(found.dlfo_map_start == (void *)ehdr && found.dlfo_link_map->l_addr == ehdr);
	CHECK(found.dlfo_eh_frame > (void *)ehdr && found.dlfo_eh_frame < found.dlfo_map_end);
	CHECK(_dl_find_object((void *)(uintptr_t)dladdr, &found) == 0);
}

static int in_the_slice(int argc, char **argv)
{
	struct layout_taken stack;
	struct error err = {""};
	bool is_own = layout_is_own(&stack, &err), seen = false;

	(void)argv;
	if (!is_own)
		printf("%s\n", err.text);
	CHECK(is_own);
	CHECK(getauxval(AT_SYSINFO_EHDR) >> LAYOUT_SHIFT == LAYOUT_SLICE);
	CHECK(!memcmp((void *)getauxval(AT_SYSINFO_EHDR), ELFMAG, SELFMAG));
	dl_iterate_phdr(see_object, &seen);
	CHECK(seen);
	/* Not when the vdso was below a library first, and ended where that begins: whose address is that? */
	if (argc < 2)
		check_library();
	real_seconds = syscall(SYS_time, NULL);
	printf("clock_gettime: %u ns\n", ns_each());
	forbid_system_calls();
	read_clocks(NULL);
	read_clocks_in_threads();
	read_clocks_in_child();
	printf("fine clocks: %s\n", fine_clocks_work() ? "vdso" : "system calls");
	system("grep -E 'vvar|vdso|stack' /proc/$PPID/maps");
	printf("layout_probe: %u failures\n", failures);
	return failures != 0;
}

/* Right above the stack, before layout_run() looks. */
static void move_high(char **argv)
{
	uintptr_t ehdr = getauxval(AT_SYSINFO_EHDR), stack = getauxval(AT_EXECFN);
	struct error err = {""};

	if (ehdr < stack)
		CHECK(layout_move_vdso(((stack + (1 << 20)) & ~(uintptr_t)4095) - ehdr, argv,
				       &err) == 0);
	if (*err.text)
		printf("%s\n", err.text);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		move_high(argv);
	return layout_run(in_the_slice, argc, argv);
}
