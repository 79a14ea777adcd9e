/* SPDX-License-Identifier: Apache-2.0 */
#include "bt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * What must be the same: every event with all registers, the vector and x87 state at the end, all memory, the
 * page tables with their accessed and dirty bits, and how the run ended.
 *
 * One thing may differ: arithmetic flags pushed by a fault, as far as nothing between the faulting
 * instruction and the next jump reads them. The translator does not keep such flags over a memory access
 * (probe.c, live.c). A handler that goes back to the instruction can never see it; the little kernel, which
 * goes on behind it, clears them.
 *
 * x87's last-instruction pointers are not kept by translated code (bt.h).
 */

static const char *const names[15] = {"r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8",
				      "rdi", "rsi", "rbp", "rbx", "rdx", "rcx", "rax"};

void print_event(const struct program *p, const struct event *e)
{
	printf("    vector %llu error %llx rip %llx cs %llx rflags %llx rsp %llx cr2 %llx",
	       (unsigned long long)e->vector, (unsigned long long)e->error,
	       (unsigned long long)e->rip, (unsigned long long)e->cs, (unsigned long long)e->rflags,
	       (unsigned long long)e->rsp, (unsigned long long)e->cr2);
	for (unsigned k = 0; k < 15; k++)
		printf("%s%s=%llx", k % 5 ? " " : "\n      ", names[14 - k],
		       (unsigned long long)(&e->r15)[14 - k]);
	printf("\n");
	(void)p;
}

static uint32_t flags_mask(const struct program *p, const struct event *e)
{
	uint32_t at = (uint32_t)e->rip - CODE_BASE;

	if (!p || e->vector == 1 || e->vector == 3 || e->vector == 4 || e->vector >= 32)
		return ~0u;
	/* What is read later is known of code that stays as it is only. */
	if (p->wild || p->writable || at >= CODE_BYTES || p->node_at[at] == NODE_NONE)
		return ~(uint32_t)FLAGS_ARITH_MASK;
	return ~(FLAGS_ARITH_MASK & ~program_live_flags(p, p->node_at[at]));
}

static bool events_agree(const struct program *p, const struct event *a, const struct event *b,
			 char why[256], unsigned n)
{
	for (unsigned k = 0; k < 15; k++)
		if ((&a->r15)[k] != (&b->r15)[k]) {
			snprintf(why, 256, "event %u: %s is %llx and %llx", n, names[k],
				 (unsigned long long)(&a->r15)[k],
				 (unsigned long long)(&b->r15)[k]);
			return false;
		}
	if (a->vector != b->vector || a->error != b->error || a->rip != b->rip || a->cs != b->cs ||
	    a->rsp != b->rsp || a->cr2 != b->cr2 || ((a->rflags ^ b->rflags) & flags_mask(p, a))) {
		snprintf(why, 256,
			 "event %u: vector %llu at %llx, flags %llx; and vector %llu at %llx, "
			 "flags %llx (compared: %x)",
			 n, (unsigned long long)a->vector, (unsigned long long)a->rip,
			 (unsigned long long)a->rflags, (unsigned long long)b->vector,
			 (unsigned long long)b->rip, (unsigned long long)b->rflags,
			 flags_mask(p, a));
		return false;
	}
	return true;
}

static bool memory_agrees(struct box *a, struct box *b, char why[256])
{
	static const struct {
		const char *name;
		uint32_t gpa, bytes;
	} areas[] = {{"data", GPA_DATA, DATA_BYTES},
		     {"lazy", GPA_LAZY, LAZY_BYTES},
		     {"safe", GPA_SAFE, PAGE},
		     {"stack", GPA_STACK, STACK_BYTES},
		     {"code", GPA_CODE, CODE_BYTES},
		     {"alt", GPA_ALT, ALT_BYTES},
		     {"code's page table", GPA_PT_CODE, PAGE},
		     {"data's page table", GPA_PT_DATA, PAGE}};

	for (unsigned k = 0; k < sizeof(areas) / sizeof(areas[0]); k++) {
		const uint8_t *x = a->ram + areas[k].gpa, *y = b->ram + areas[k].gpa;
		if (!memcmp(x, y, areas[k].bytes))
			continue;
		unsigned at = 0;
		while (x[at] == y[at])
			at++;
		snprintf(why, 256, "%s + %x: %02x and %02x", areas[k].name, at, x[at], y[at]);
		return false;
	}
	return true;
}

static bool state_agrees(const struct cpu_state *a, const struct cpu_state *b, char why[256])
{
	static const struct {
		const char *name;
		unsigned at, bytes;
	} parts[] = {{"x87 control, status, tags", 0, 6},
		     {"mxcsr", 24, 4},
		     {"st", XSAVE_ST0, 128},
		     {"xmm", XSAVE_XMM0, 256},
		     {"ymm high", XSAVE_YMMH0, 256}};

	for (unsigned k = 0; k < sizeof(parts) / sizeof(parts[0]); k++)
		for (unsigned n = 0; n < parts[k].bytes; n++) {
			unsigned at = parts[k].at + n;
			if (a->xsave.bytes[at] != b->xsave.bytes[at]) {
				snprintf(why, 256, "%s, byte %u: %02x and %02x", parts[k].name, n,
					 a->xsave.bytes[at], b->xsave.bytes[at]);
				return false;
			}
		}
	for (unsigned n = 0; n < SEG_NR; n++)
		if (a->seg[n].sel != b->seg[n].sel || a->seg[n].base != b->seg[n].base) {
			snprintf(why, 256, "segment %u: %x and %x", n, a->seg[n].sel,
				 b->seg[n].sel);
			return false;
		}
	if (a->cr0 != b->cr0 || a->rip != b->rip || a->dr6 != b->dr6) {
		snprintf(why, 256, "cr0, rip or dr6: %llx %llx %llx and %llx %llx %llx",
			 (unsigned long long)a->cr0, (unsigned long long)a->rip,
			 (unsigned long long)a->dr6, (unsigned long long)b->cr0,
			 (unsigned long long)b->rip, (unsigned long long)b->dr6);
		return false;
	}
	return true;
}

bool boxes_agree(const struct program *p, struct box *a, struct box *b, char why[256])
{
	uint64_t count = box_params(a)->log_count, other = box_params(b)->log_count;

	if (a->cause != b->cause || a->late != b->late) {
		snprintf(why, 256, "one ended with %s, the other with %s",
			 exit_cause_name(a->cause), exit_cause_name(b->cause));
		return false;
	}
	if (a->late) /* both went round in circles */
		return true;
	for (unsigned n = 0; n < count && n < other && n < LOG_MAX; n++)
		if (!events_agree(p, box_event(a, n), box_event(b, n), why, n))
			return false;
	if (count != other) {
		snprintf(why, 256, "%llu events and %llu", (unsigned long long)count,
			 (unsigned long long)other);
		return false;
	}
	return state_agrees(&a->state, &b->state, why) && memory_agrees(a, b, why);
}
