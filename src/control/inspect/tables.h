/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_INSPECT_TABLES_H
#define HANOK_CONTROL_INSPECT_TABLES_H

#include "control/inspect/fault_log.h"
#include "control/inspect/inspect.h"
#include "control/inspect/linux.h"
#include "mmu/look.h"

/* What the tables of control/inspect/ share. Everything on the thread that answers. */
struct looker {
	struct machine *machine;
	struct mem *mem;
	struct linux_guest *linux_guest;
	struct fault_log *faults;
	uint64_t began_ns;	      /* clock_ns(): times in answers count from here */
	const struct cpu_state *cpus; /* a moment ago; NULL where the table does not want them */
};

/* A table: fills in *answer, an object, and returns 0; or -errno with *err. */
typedef int inspect_fn(struct looker *l, const struct request *r, json_t **answer,
		       struct error *err);
inspect_fn inspect_walk, inspect_dump, inspect_processes, inspect_frames, inspect_memory,
	inspect_faults, inspect_tlb;

/* 64-bit numbers go as "0x..." strings, since JSON's are not that large; both are taken. */
json_t *json_hex(uint64_t value);
int request_address(const struct request *r, const char *name, bool needed, uint64_t *out,
		    struct error *err);

/* What an answer that could not be put together is. */
int inspect_no_memory(json_t **answer, struct error *err);

/*
 * Whose address space is meant: arguments cpu, cr3, pid or name; without any, that of CPU 0. *who (a new
 * object) says what was found.
 */
int request_space(struct looker *l, const struct request *r, struct mmu_mode *mode, json_t **who,
		  struct error *err);

/* What is behind a guest-physical address on the host. A new object; NULL: no memory. */
json_t *describe_gpa(struct looker *l, uint64_t gpa);

/* A fault as `faults` has it; times count from l->began_ns. */
json_t *describe_fault(const struct looker *l, const struct fault *f);

#endif
