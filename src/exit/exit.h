/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_EXIT_EXIT_H
#define HANOK_EXIT_EXIT_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Exits: why a vCPU left the guest. Engines return one `struct exit` from run(); machine/ acts on
 * it and calls run() again, which completes the instruction with what was filled in.
 *
 * Causes from EXIT_FIRST_INTERNAL on are never returned: an engine that handles them itself counts
 * them there, so that one table shows everything that took a guest out of its straight path.
 */
enum exit_cause {
	EXIT_PIO_IN,	  /* pio: fill data */
	EXIT_PIO_OUT,	  /* pio */
	EXIT_MMIO_READ,	  /* mmio: fill data */
	EXIT_MMIO_WRITE,  /* mmio */
	EXIT_RDMSR,	  /* msr: fill value, or set fault; MSRs the engine does not hold itself */
	EXIT_WRMSR,	  /* msr: set fault for #GP */
	EXIT_HLT,	  /* hlt: wait until one of wake_mask is requested (also wait-for-SIPI) */
	EXIT_HYPERCALL,	  /* the guest's registers hold the call */
	EXIT_DEBUG,	  /* debug: a breakpoint, watchpoint or step set from outside the guest */
	EXIT_SHUTDOWN,	  /* triple fault */
	EXIT_INTERRUPTED, /* kicked; nothing to do */
	EXIT_ERROR,	  /* error: the engine cannot go on; a bug or a host failure */

	EXIT_FIRST_INTERNAL,
	EXIT_INTERRUPT = EXIT_FIRST_INTERNAL, /* an external interrupt was delivered */
	EXIT_NMI,
	EXIT_EXCEPTION,	 /* an exception was delivered to the guest (page faults apart) */
	EXIT_PAGE_FAULT, /* a page fault was delivered to the guest */
	EXIT_SOFT_INT,	 /* INT n, INT3, INTO */
	EXIT_TLB_MISS,	 /* a guest page walk */
	EXIT_TLB_FLUSH,	 /* by CR writes, INVLPG, INVPCID */
	EXIT_CR_WRITE,
	EXIT_DR_ACCESS,
	EXIT_MSR, /* MSRs the engine holds */
	EXIT_CPUID,
	EXIT_TASK_SWITCH,
	EXIT_NR
};

enum exit_debug_kind { EXIT_DEBUG_STEP, EXIT_DEBUG_BREAKPOINT, EXIT_DEBUG_WATCHPOINT };

struct exit {
	enum exit_cause cause;
	union {
		struct {
			uint16_t port;
			uint8_t size; /* 1, 2, 4 bytes */
			uint32_t data;
		} pio;
		struct {
			uint64_t gpa;
			uint8_t size; /* 1 to 8 bytes */
			uint64_t data;
		} mmio;
		struct {
			uint32_t index;
			bool fault;
			uint64_t value;
		} msr;
		struct {
			uint32_t wake_mask; /* VCPU_REQ_* bits, cpu/engine.h */
		} hlt;
		struct {
			enum exit_debug_kind kind;
			uint64_t gva; /* of the instruction, or of the datum watched */
		} debug;
		struct {
			int code; /* -errno */
			char text[160];
		} error;
	};
};

/* Counts and host time (TSC ticks) per cause, one table a vCPU, written by its thread only. Readers
 * may see a table in motion. */
struct exit_stats {
	uint64_t count[EXIT_NR];
	uint64_t ticks[EXIT_NR];
	uint64_t instructions; /* guest instructions run, where the engine can tell */
};

/* Copies a table that may be in motion. Any thread. */
void exit_stats_look(const struct exit_stats *s, struct exit_stats *copy);

/* "pio-in", "mmio-write", ...; never NULL. */
const char *exit_cause_name(enum exit_cause cause);

#endif
