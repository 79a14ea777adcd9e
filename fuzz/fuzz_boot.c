/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "machine/boot/boot.h"

/*
 * Any bytes as a kernel, on machines of 16, 32 and 64 MiB, with and without an initrd or modules
 * (the input's length decides). Beyond the sanitizers: what boot_load says and sets must hold
 * together.
 */
enum { SIZES = 3, SIZE_MIN_MIB = 16, INITRD_BYTES = 6000 };

static struct mem *mems[SIZES];
static int kernel_fd, initrd_fd;
static char kernel_path[64], initrd_path[64], modules[256];

static void must(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	for (unsigned i = 0; i < SIZES; i++)
		must(!mem_create(&mems[i], (uint64_t)SIZE_MIN_MIB << (20 + i), NULL));
	kernel_fd = memfd_create("kernel", MFD_CLOEXEC);
	initrd_fd = memfd_create("initrd", MFD_CLOEXEC);
	must(kernel_fd >= 0 && initrd_fd >= 0 && !ftruncate(initrd_fd, INITRD_BYTES));
	snprintf(kernel_path, sizeof(kernel_path), "/proc/self/fd/%d", kernel_fd);
	snprintf(initrd_path, sizeof(initrd_path), "/proc/self/fd/%d", initrd_fd);
	snprintf(modules, sizeof(modules), "%s a b,%s", initrd_path, initrd_path);
	return 0;
}

static void check(int rc, const struct error *err, struct mem *mem, const struct cpu_state *cpu)
{
	if (rc) {
		must(rc < 0 && err->text[0] && !strchr(err->text, '\n'));
		return;
	}
	/* The entry point is RAM, in a mode that one of the protocols names. */
	must(mem_ptr(mem, cpu->rip, 1) != NULL);
	must(cpu->cr0 & CR0_PE);
	must(!!(cpu->cr0 & CR0_PG) == !!(cpu->efer & EFER_LMA));
	must(!(cpu->rflags & FLAG_IF));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const initrds[] = {NULL, initrd_path, modules};
	struct boot_source src = {.kernel_path = kernel_path,
				  .initrd_path = initrds[size % 3],
				  .cmdline = size % 2 ? "console=ttyS0" : NULL,
				  .cpus = 2};
	struct mem *mem = mems[size / 8 % SIZES];
	struct cpu_state cpu;
	struct error err = {""};

	must(!ftruncate(kernel_fd, 0));
	must(pwrite(kernel_fd, data, size, 0) == (ssize_t)size);
	cpu_state_reset(&cpu, 0);
	check(boot_load(&src, mem, &cpu, &err), &err, mem, &cpu);
	return 0;
}
