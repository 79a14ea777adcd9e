/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cpu/hostexec/form.h"

/* The common handler: everything on general, XMM and YMM registers that nothing faster takes. */

/* Numbers in half precision that are tiny: FZ, by which simd_begin finds the others, does not apply
 * to VCVTPS2PH. Its result lies in memory or in the low half of a register. */
static uint32_t half_underflow(struct soft_cpu *c, const struct insn *i, const struct form *f,
			       const struct frame *fr)
{
	const uint8_t *at = f->flags & FORM_WRITE ? fr->mem : (uint8_t *)guest_xmm(c, i->reg[0]);
	unsigned bytes = f->flags & FORM_WRITE ? f->mem_bytes : i->size[0];

	for (unsigned k = 0; k < bytes; k += 2) {
		uint16_t h;
		memcpy(&h, at + k, 2);
		if (!(h & 0x7c00) && (h & 0x3ff))
			return MXCSR_UE;
	}
	return 0;
}

/* Alignment comes before the segment's and the page's checks. */
static void need_alignment(struct soft_cpu *c, const struct insn *i, const struct form *f,
			   uint64_t ea)
{
	if (f->align && (c->seg_base[i->seg] + ea) & (f->align - 1))
		cpu_gp0(c);
	check_ac(c, i, ea, f->mem_bytes, f->flags & FORM_WRITE);
}

static bool unchecked(const struct soft_cpu *c, const struct form *f)
{
	return (f->flags & FORM_NO_AC) && !c->vendor_amd;
}

static void read_operand(struct soft_cpu *c, const struct insn *i, const struct form *f,
			 uint64_t ea, void *to)
{
	if (unchecked(c, f))
		read_any(c, i, ea, to, f->mem_bytes);
	else
		cpu_read(c, i->seg, ea, to, f->mem_bytes);
}

static void write_operand(struct soft_cpu *c, const struct insn *i, const struct form *f,
			  uint64_t ea, const void *from)
{
	if (unchecked(c, f))
		write_any(c, i, ea, from, f->mem_bytes);
	else
		cpu_write(c, i->seg, ea, from, f->mem_bytes);
}

static void save_old(const struct soft_cpu *c, struct simd_old *old)
{
	memcpy(old->gpr, c->s.gpr, sizeof(old->gpr));
	old->xsave = c->s.xsave;
}

/*
 * Flushing a tiny result makes it inexact; with underflow unmasked it is not flushed, and inexact
 * only if it was to be rounded. The precision flag comes from a run without flushing. (That rounds
 * at the subnormals' last bit, the hardware for the trap at the format's: where the two differ so
 * may the flag.)
 */
static uint32_t without_flush(struct soft_cpu *c, const struct form *f, const struct frame *done,
			      const struct simd_old *old)
{
	struct frame again = *done;

	memcpy(c->s.gpr, old->gpr, sizeof(old->gpr));
	c->s.xsave = old->xsave;
	again.mxcsr = simd_begin(c) & ~(uint32_t)MXCSR_FZ;
	f->code(c, &again);
	return (done->mxcsr & ~(uint32_t)MXCSR_PE) | (again.mxcsr & MXCSR_PE);
}

void exec_form(struct soft_cpu *c, const struct insn *i)
{
	const struct form *f = form_need(c, i);
	unsigned flags = f->flags;
	struct simd_old old;
	struct frame fr;
	uint64_t ea = 0;

	form_check(c, f->check);
	if (flags & (FORM_READ | FORM_WRITE)) {
		ea = cpu_ea(c, i);
		need_alignment(c, i, f, ea);
		if ((flags & FORM_WRITE) &&
		    ((flags & FORM_READ) || ((flags & FORM_SIMD_FP) && c->vendor_amd)))
			cpu_probe(c, i->seg, ea, f->mem_bytes, true);
		if (flags & FORM_READ)
			read_operand(c, i, f, ea, fr.mem);
	}
	fr.flags = (c->s.rflags & FLAGS_ARITH) | FLAG_R1 | FLAG_IF;
	bool careful = false;
	if (flags & FORM_SIMD_FP) {
		fr.mxcsr = simd_begin(c);
		careful = simd_unmasked(c);
		if (careful)
			save_old(c, &old);
	}
	f->code(c, &fr);
	if (careful) {
		if ((flags & FORM_HALF_OUT) && simd_would_raise(c, MXCSR_UE))
			fr.mxcsr |= half_underflow(c, i, f, &fr);
		if (simd_would_raise(c, fr.mxcsr & MXCSR_UE))
			fr.mxcsr = without_flush(c, f, &fr, &old);
		simd_raise(c, fr.mxcsr, &old);
	}
	/* VCVTPS2PH: Intel's converts first, so that its exceptions come before the store's, and its flags
	 * stay when that faults; AMD's looks at the operand first. */
	if ((flags & FORM_SIMD_FP) && !c->vendor_amd)
		simd_commit(c, fr.mxcsr);
	if (flags & FORM_WRITE)
		write_operand(c, i, f, ea, fr.mem);
	if ((flags & FORM_SIMD_FP) && c->vendor_amd)
		simd_commit(c, fr.mxcsr);
	if (flags & FORM_FLAGS)
		c->s.rflags = (c->s.rflags & ~FLAGS_ARITH) | (fr.flags & FLAGS_ARITH);
}
