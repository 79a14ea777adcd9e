/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/state/cpu_state.h"

#include <string.h>

#include "cpu/state/cpuid.h"
#include "cpu/state/msr.h"

/* Attributes of hidden segment registers after reset (SDM Vol. 3 table 10-1). */
enum {
	ATTR_DATA = SEG_P | SEG_S | SEG_TYPE_WR | SEG_TYPE_ACCESSED,
	ATTR_CODE = ATTR_DATA | SEG_TYPE_CODE,
	ATTR_LDT = SEG_P | 2,
	ATTR_TSS_BUSY = SEG_P | 11,
};

static void put32(struct cpu_state *s, unsigned at, uint32_t v)
{
	memcpy(s->xsave.bytes + at, &v, sizeof(v));
}

/* x87 as after power-up, not as after FNINIT: control word 40H, all tags valid (zero). */
static void reset_xsave(struct cpu_state *s)
{
	memset(&s->xsave, 0, sizeof(s->xsave));
	s->xsave.bytes[XSAVE_FCW] = 0x40;
	s->xsave.bytes[XSAVE_FTW] = 0xff;
	put32(s, XSAVE_MXCSR, 0x1f80);
	put32(s, XSAVE_MXCSR + 4, 0xffff);
	s->xsave.bytes[XSAVE_BV] = XCR0_X87 | XCR0_SSE | XCR0_AVX;
}

/* What reset and INIT have in common. */
static void reset_registers(struct cpu_state *s)
{
	memset(s->gpr, 0, sizeof(s->gpr));
	s->gpr[RDX] = cpuid_signature();
	s->rip = 0xfff0;
	s->rflags = FLAG_R1;
	for (unsigned n = 0; n < SEG_NR; n++)
		s->seg[n] = (struct segment){.attr = ATTR_DATA, .limit = 0xffff};
	s->seg[SEG_CS] = (struct segment){
		.sel = 0xf000, .attr = ATTR_CODE, .limit = 0xffff, .base = 0xffff0000};
	s->ldtr = (struct segment){.attr = ATTR_LDT, .limit = 0xffff};
	s->tr = (struct segment){.attr = ATTR_TSS_BUSY, .limit = 0xffff};
	s->gdt = s->idt = (struct table_reg){.limit = 0xffff};
	s->cr2 = s->cr3 = s->cr4 = 0;
	memset(s->pdpte, 0, sizeof(s->pdpte));
	s->efer = 0;
	memset(s->dr, 0, sizeof(s->dr));
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;
	s->debugctl = 0;
	s->shadow = SHADOW_NONE;
	s->nmi_blocked = s->nmi_pending = false;
	s->event_pending = false;
}

void cpu_state_reset(struct cpu_state *s, unsigned cpu)
{
	memset(s, 0, sizeof(*s));
	reset_registers(s);
	s->cr0 = CR0_CD | CR0_NW | CR0_ET;
	s->xcr0 = XCR0_X87;
	s->pat = PAT_RESET;
	s->misc_enable = MISC_ENABLE_FAST_STRINGS | MISC_ENABLE_BTS_UNAVAILABLE |
			 MISC_ENABLE_PEBS_UNAVAIL;
	reset_xsave(s);
	s->activity = cpu ? ACTIVITY_WAIT_SIPI : ACTIVITY_RUNNING;
}

void cpu_state_init(struct cpu_state *s, bool boot)
{
	uint64_t cache = s->cr0 & (CR0_CD | CR0_NW); /* the only bits of CR0 that INIT keeps */

	reset_registers(s);
	s->cr0 = cache | CR0_ET;
	s->activity = boot ? ACTIVITY_RUNNING : ACTIVITY_WAIT_SIPI;
}

/* Memory types (SDM Vol. 3 table 11-8), eight of a fixed-range MTRR at once. */
#define EIGHT_UC UINT64_C(0)
#define EIGHT_WP UINT64_C(0x0505050505050505)
#define EIGHT_WB UINT64_C(0x0606060606060606)

void cpu_state_memory_types(struct cpu_state *s, uint64_t hole, uint64_t bytes)
{
	uint64_t top = UINT64_C(1) << cpuid_maxphyaddr();

	s->mtrr_def_type = 0xc00 | 6; /* fixed and variable ranges on; write-back */
	s->mtrr_fixed[0] = EIGHT_WB;  /* 0 to 512 KiB */
	s->mtrr_fixed[1] = EIGHT_WB;  /* to 640 KiB */
	s->mtrr_fixed[2] = EIGHT_UC;  /* video memory */
	for (unsigned n = 3; n < 11; n++)
		s->mtrr_fixed[n] = EIGHT_WP; /* C0000H to FFFFFH */
	s->mtrr_var[0] = hole;
	s->mtrr_var[1] = (top - bytes) | 0x800; /* mask, valid */
}
