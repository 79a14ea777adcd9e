/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_INSPECT_FAULT_LOG_H
#define HANOK_CONTROL_INSPECT_FAULT_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "machine/machine.h"

/*
 * Page faults as they happen, the host's (a page of the guest's memory was not there) and the guest's
 * own (its page tables did not allow an access), in a ring that keeps the last FAULT_LOG_EVENTS.
 * Writers are vCPUs and devices; they take no lock and never wait. Nothing is recorded, and nothing
 * but a test of a flag is paid, unless somebody has asked within FAULT_LOG_NS.
 */
struct fault_log;

enum { FAULT_LOG_EVENTS = 1 << 14 };
#define FAULT_LOG_NS (UINT64_C(60) * 1000000000)

/* Adds itself to the machine's vCPUs; before machine_run. */
int fault_log_create(struct fault_log **out, struct machine *m, struct error *err);
/* After the vCPUs have ended. NULL is allowed. */
void fault_log_destroy(struct fault_log *l);

enum { FAULT_GUEST = -1 }; /* as `event`: delivered to the guest */

struct fault {
	uint64_t number; /* they are counted from 0 on */
	uint64_t ns;	 /* clock_ns() */
	int event;	 /* enum mem_event, or FAULT_GUEST */
	/* mem_event: */
	uint64_t gpa, slot, took_ns;
	/* FAULT_GUEST: */
	unsigned cpu;
	uint32_t error; /* PF_* of mmu/walk.h */
	uint64_t gva, rip;
};

/* Records from now on, for FAULT_LOG_NS. *began: it did not before. 0 or -ENOMEM. Any thread but vCPUs',
 * as what follows. */
int fault_log_ask(struct fault_log *l, bool *began);
/* The number that the next one will have. */
uint64_t fault_log_next(const struct fault_log *l);
/*
 * Copies up to max of them, from number *since on or from the oldest that is left, and moves *since
 * past the last. *lost: how many were not there any more. Returns how many.
 */
unsigned fault_log_read(struct fault_log *l, uint64_t *since, struct fault *to, unsigned max,
			uint64_t *lost);
/* The last event of the host's kind at that page, if it is known. */
bool fault_log_last(struct fault_log *l, uint64_t gpa, struct fault *out);

#endif
