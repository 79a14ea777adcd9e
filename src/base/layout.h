/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BASE_LAYOUT_H
#define HANOK_BASE_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/*
 * Where the process has its own memory: program, heap, libraries, stacks, guest RAM, all in one slice of
 * the address space, the addresses with addr >> LAYOUT_SHIFT == LAYOUT_SLICE. All others below the
 * kernel's half are empty then, for whoever wants to map something at an address that a guest chose.
 * A guard at each end stays empty too: an address outside of the slice plus a displacement of 32 bits, and eight
 * times an index of 32 bits, is none of the monitor's.
 *
 *   0x2000 ......  guard, 64 GiB
 *   0x2100 ......  guest RAM begins somewhere in the next 8 TiB (mem/ram.c)
 *   ... 0x2e00     libraries, vdso, stacks of threads and what else mmap places, downwards
 *   0x2f00 ......  the program, then its heap, upwards; near the end the vdso, of older kernels
 *   ... 0x3000     guard, 64 GiB
 */
#define LAYOUT_SHIFT 44
#define LAYOUT_SLICE 2
#define LAYOUT_BASE ((uint64_t)LAYOUT_SLICE << LAYOUT_SHIFT)
#define LAYOUT_END (LAYOUT_BASE + ((uint64_t)1 << LAYOUT_SHIFT))
#define LAYOUT_GUARD (UINT64_C(1) << 36)

/* Addresses that are not the process's to use, [start, end). */
struct layout_taken {
	uint64_t start, end;
};

/*
 * Runs fn(argc, argv) with the process's memory in the slice if that can be had, else just runs it.
 * The first thing in a process, once, while it has one thread; argv is what main was given. The process
 * execs itself for it. Returns what fn returns, which may also end the process by exit(), but not its
 * thread by pthread_exit(): that would go back to the initial stack.
 */
int layout_run(int (*fn)(int, char **), int argc, char **argv);

/*
 * Whether every mapping of this process lies in the slice, guards left free, but for the initial stack,
 * which then cannot be accessed, and vsyscall, which is in the kernel's half. *stack is where that stack
 * is, and nothing may ever be mapped over it. (The kernel makes it longer downwards, up to the soft limit on
 * the stack, when somebody touches what is not mapped below it; what is added is inaccessible, and empty.)
 * If not, *err says why.
 */
bool layout_is_own(struct layout_taken *stack, struct error *err);

#endif
