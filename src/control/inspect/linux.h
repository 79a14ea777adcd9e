/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_INSPECT_LINUX_H
#define HANOK_CONTROL_INSPECT_LINUX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "cpu/state/cpu_state.h"
#include "mem/mem.h"
#include "mmu/look.h"

/*
 * The processes of a guest that is a 64-bit Linux, found from outside in its memory: the guest does
 * nothing for it. Needs a kernel with BTF (CONFIG_DEBUG_INFO_BTF; Debian's, Fedora's, Ubuntu's have it).
 * All that is read may be made up by the guest: every search is bounded and every pointer checked, and
 * the worst it can do is to lie. One thread at a time.
 */
struct linux_guest;

int linux_guest_create(struct linux_guest **out, struct mem *m);
/* NULL is allowed. */
void linux_guest_destroy(struct linux_guest *g);

enum { LINUX_COMM_BYTES = 16, LINUX_TASKS_MAX = 8192 };

struct linux_task {
	int32_t pid, tgid;
	char comm[LINUX_COMM_BYTES + 1];
	uint64_t task;	 /* gva of its task_struct */
	bool has_memory; /* false: a thread of the kernel */
	uint64_t cr3;	 /* gpa of its top page table, where has_memory */
};

struct linux_tasks {
	struct linux_task *list; /* free() it */
	unsigned count;
	bool complete; /* false: more than LINUX_TASKS_MAX, or the list broke off while it was read */
};

/*
 * All processes, in the order of the kernel's list. cpus: the state of the vCPUs a moment ago. What was
 * found out about the kernel is kept for the next call and checked again. 0 or -errno with *err:
 * -ENOTSUP: this is not a 64-bit Linux that can be understood.
 */
int linux_guest_tasks(struct linux_guest *g, const struct cpu_state *cpus, unsigned count,
		      struct linux_tasks *out, struct error *err);

#endif
