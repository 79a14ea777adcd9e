/* SPDX-License-Identifier: Apache-2.0 */
#include "exit/exit.h"

#include <assert.h>

static const char *const names[] = {
	[EXIT_PIO_IN] = "pio-in",
	[EXIT_PIO_OUT] = "pio-out",
	[EXIT_MMIO_READ] = "mmio-read",
	[EXIT_MMIO_WRITE] = "mmio-write",
	[EXIT_RDMSR] = "rdmsr",
	[EXIT_WRMSR] = "wrmsr",
	[EXIT_HLT] = "hlt",
	[EXIT_HYPERCALL] = "hypercall",
	[EXIT_DEBUG] = "debug",
	[EXIT_SHUTDOWN] = "shutdown",
	[EXIT_INTERRUPTED] = "interrupted",
	[EXIT_ERROR] = "error",
	[EXIT_INTERRUPT] = "interrupt",
	[EXIT_NMI] = "nmi",
	[EXIT_EXCEPTION] = "exception",
	[EXIT_PAGE_FAULT] = "page-fault",
	[EXIT_SOFT_INT] = "soft-int",
	[EXIT_TLB_MISS] = "tlb-miss",
	[EXIT_TLB_FLUSH] = "tlb-flush",
	[EXIT_CR_WRITE] = "cr-write",
	[EXIT_DR_ACCESS] = "dr-access",
	[EXIT_MSR] = "msr",
	[EXIT_CPUID] = "cpuid",
	[EXIT_TASK_SWITCH] = "task-switch",
};
static_assert(sizeof(names) / sizeof(names[0]) == EXIT_NR, "every cause has a name");

const char *exit_cause_name(enum exit_cause cause)
{
	return (unsigned)cause < EXIT_NR ? names[cause] : "unknown";
}

/* Thread checkers are not told: each number is one that was there. */
__attribute__((no_sanitize("thread"))) void exit_stats_look(const struct exit_stats *s,
							    struct exit_stats *copy)
{
	for (unsigned n = 0; n < EXIT_NR; n++) {
		copy->count[n] = *(const volatile uint64_t *)&s->count[n];
		copy->ticks[n] = *(const volatile uint64_t *)&s->ticks[n];
	}
	copy->instructions = *(const volatile uint64_t *)&s->instructions;
}
