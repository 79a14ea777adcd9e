/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/hostexec/form.h"

/* ---- availability (SDM Vol. 3, 13.1 and tables 2-21ff of Vol. 2) ---- */

static bool vex_allowed(const struct soft_cpu *c)
{
	return (c->s.cr0 & CR0_PE) && !(c->s.rflags & FLAG_VM);
}

void form_check(struct soft_cpu *c, enum form_check check)
{
	const struct cpu_state *s = &c->s;

	switch (check) {
	case CHECK_NONE:
		return;
	case CHECK_VEX_GPR:
		if (!vex_allowed(c))
			cpu_ud(c);
		return;
	case CHECK_AVX:
		if (!vex_allowed(c) || !(s->cr4 & CR4_OSXSAVE) ||
		    (s->xcr0 & (XCR0_SSE | XCR0_AVX)) != (XCR0_SSE | XCR0_AVX))
			cpu_ud(c);
		break;
	case CHECK_SSE:
	case CHECK_MMX_SSE:
		if ((s->cr0 & CR0_EM) || !(s->cr4 & CR4_OSFXSR))
			cpu_ud(c);
		break;
	case CHECK_MMX:
		if (s->cr0 & CR0_EM)
			cpu_ud(c);
		break;
	case CHECK_X87:
	case CHECK_X87_NOWAIT:
		if (s->cr0 & CR0_EM)
			cpu_raise(c, VEC_NM, 0);
		break;
	}
	if (s->cr0 & CR0_TS)
		cpu_raise(c, VEC_NM, 0);
}

/* An x87 exception waits to be reported. */
static bool pending(const struct soft_cpu *c)
{
	return c->s.xsave.bytes[XSAVE_FSW] & FSW_ES;
}

/* true: go on. */
static bool report_pending(struct soft_cpu *c)
{
	if (!pending(c))
		return true;
	if (c->s.cr0 & CR0_NE)
		cpu_raise(c, VEC_MF, 0);
	/* MS-DOS compatibility (SDM Vol. 1, appendix D): the pin, and the CPU stands still before
	 * this instruction until an interrupt comes. */
	c->board.set_ferr(c->board.opaque, true);
	c->next_rip = c->s.rip;
	c->break_block = true;
	return false;
}

bool x87_check(struct soft_cpu *c, enum form_check check)
{
	form_check(c, check);
	return check == CHECK_X87_NOWAIT || report_pending(c);
}

void exec_fwait(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	if ((c->s.cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		cpu_raise(c, VEC_NM, 0);
	report_pending(c);
}

void check_ac(struct soft_cpu *c, const struct insn *i, uint64_t offset, unsigned bytes, bool write)
{
	unsigned align = bytes >= 16 ? 16 : 8; /* 32-byte operands: as two of 16; 10-byte ones: 8 */

	/* Operands of vectors may or may not be checked (SDM, MOVUPS): AMD's are, Intel's are not. */
	if (!c->align_check || bytes <= 8 || (bytes >= 16 && !c->vendor_amd))
		return;
	if (cpu_linear(c, i->seg, offset, bytes, write) & (align - 1))
		cpu_raise(c, VEC_AC, 0);
}

/* ---- SIMD numeric exceptions (SDM Vol. 1, 11.5) ---- */

static uint32_t unmasked(uint32_t mxcsr)
{
	return ~(mxcsr >> MXCSR_MASK_SHIFT) & MXCSR_FLAGS;
}

bool simd_unmasked(struct soft_cpu *c)
{
	return unmasked(*guest_mxcsr(c));
}

bool simd_would_raise(struct soft_cpu *c, uint32_t got)
{
	return got & unmasked(*guest_mxcsr(c));
}

uint32_t simd_begin(struct soft_cpu *c)
{
	uint32_t guest = *guest_mxcsr(c) & hostexec_mxcsr_mask();
	uint32_t m = (guest & ~(uint32_t)MXCSR_FLAGS) | MXCSR_MASKS;

	/* Masked underflow is flagged only for inexact results, unmasked underflow comes for any tiny
	 * one. With FZ any tiny result is flagged, and where there is none FZ changes nothing. */
	if (unmasked(guest) & MXCSR_UE)
		m |= MXCSR_FZ;
	return m;
}

void simd_raise(struct soft_cpu *c, uint32_t got, const struct simd_old *old)
{
	uint32_t open = unmasked(*guest_mxcsr(c));
	const uint32_t before = MXCSR_IE | MXCSR_DE | MXCSR_ZE; /* found before computing */

	got &= MXCSR_FLAGS;
	if (!(got & open))
		return;
	if (old) {
		for (unsigned n = 0; n < GPR_NR; n++)
			c->s.gpr[n] = old->gpr[n];
		c->s.xsave = old->xsave;
	}
	if (got & before & open)
		got &= before;
	*guest_mxcsr(c) |= got;
	cpu_raise(c, c->s.cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD, 0);
}

void simd_commit(struct soft_cpu *c, uint32_t got)
{
	*guest_mxcsr(c) |= got & MXCSR_FLAGS;
}
