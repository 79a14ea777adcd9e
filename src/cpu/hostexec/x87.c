/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cpu/hostexec/form.h"

/*
 * x87 and MMX: the instruction runs on a copy of the guest's FXSAVE image, which becomes the
 * guest's after the last access to memory.
 *
 * The last-instruction and last-data pointers and the opcode: when FIP comes back as the address of
 * the stub's instruction, the host has updated them, and the host's addresses in them are replaced
 * by the guest's. When it does not, they are kept as they were, but for AMD's: its FXSAVE has them
 * only while an exception is pending, so that an update is made here. A host may update FIP alone when
 * no exception is unmasked (SDM Vol. 1, 8.1.8 and 8.1.9); whether FOP is the stub's or the guest's own,
 * that by chance is the same, shows in starting from another. CS and DS selectors are
 * always 0, as CPUID says (7.0:EBX bit 13).
 */
enum { IMAGE_BYTES = 160, IMAGE_XMM_BYTES = 416, MXCSR_AT = 24, MXCSR_END = 32 };

static void load_image(struct soft_cpu *c, const struct form *f, struct frame *fr)
{
	uint32_t mxcsr = 0x1f80;

	fr->host_fcw = 0x37f;
	memcpy(fr->fx, c->s.xsave.bytes, f->flags & FORM_FX_XMM ? IMAGE_XMM_BYTES : IMAGE_BYTES);
	if (f->flags & FORM_FX_XMM)
		mxcsr = simd_begin(c);
	memcpy(fr->fx + XSAVE_MXCSR, &mxcsr, 4);
}

static void store_image(struct soft_cpu *c, const struct form *f, const struct frame *fr)
{
	uint8_t *to = c->s.xsave.bytes;
	const uint8_t fcw = to[XSAVE_FCW], fsw = to[XSAVE_FSW];

	memcpy(to, fr->fx, MXCSR_AT);
	memcpy(to + MXCSR_END, fr->fx + MXCSR_END,
	       (f->flags & FORM_FX_XMM ? IMAGE_XMM_BYTES : IMAGE_BYTES) - MXCSR_END);
	cpu_note_x87(c, fcw, fsw);
}

struct pointers {
	uint16_t fop;
	uint64_t fip, fdp;
};

static struct pointers get_pointers(const uint8_t *image)
{
	struct pointers p;

	memcpy(&p.fop, image + XSAVE_FOP, 2);
	memcpy(&p.fip, image + XSAVE_FIP, 8);
	memcpy(&p.fdp, image + XSAVE_FDP, 8);
	return p;
}

static void load_fop(const struct form *f, struct frame *fr, uint16_t fop)
{
	if (fop == f->host_fop)
		fop ^= 1;
	memcpy(fr->fx + XSAVE_FOP, &fop, 2);
}

static void put_pointers(uint8_t *image, const struct pointers *p)
{
	memcpy(image + XSAVE_FOP, &p->fop, 2);
	memcpy(image + XSAVE_FIP, &p->fip, 8);
	memcpy(image + XSAVE_FDP, &p->fdp, 8);
}

/* Runs the stub and makes the pointers it leaves the guest's. */
static void run(struct soft_cpu *c, const struct form *f, struct frame *fr, uint64_t ea)
{
	struct pointers old = get_pointers(c->s.xsave.bytes), new;
	bool memory = f->flags & (FORM_READ | FORM_WRITE);

	load_fop(f, fr, old.fop);
	f->code(c, fr);
	new = get_pointers(fr->fx);
	if (new.fip == (uint64_t)f->at) {
		new.fop = new.fop == f->host_fop ? f->guest_fop : old.fop;
		new.fip = c->s.rip;
		if (memory && new.fdp == (uint64_t)fr->mem)
			new.fdp = ea;
	} else if ((f->flags & FORM_POINTERS) && c->vendor_amd) {
		new.fop = f->guest_fop;
		new.fip = c->s.rip;
		new.fdp = memory ? ea : old.fdp;
	} else {
		new = old;
	}
	put_pointers(fr->fx, &new);
}

/* With CR0.NE clear the FERR# pin goes down when no exception is left to report. */
static void drop_ferr(struct soft_cpu *c)
{
	if (!(c->s.cr0 & CR0_NE) && !(c->s.xsave.bytes[XSAVE_FSW] & FSW_ES))
		c->board.set_ferr(c->board.opaque, false);
}

/* An unmasked exception keeps a store from being done. Whether this one was done shows in running
 * it on two different contents. */
static bool store_was_done(struct soft_cpu *c, const struct form *f, const struct frame *done)
{
	struct frame again;

	if (!(done->fx[XSAVE_FSW] & FSW_ES))
		return true;
	load_image(c, f, &again);
	again.flags = FLAG_R1 | FLAG_IF;
	for (unsigned k = 0; k < f->mem_bytes; k++)
		again.mem[k] = (uint8_t)~done->mem[k];
	f->code(c, &again);
	return !memcmp(again.mem, done->mem, f->mem_bytes);
}

void exec_x87(struct soft_cpu *c, const struct insn *i)
{
	const struct form *f = form_need(c, i);
	struct frame fr;
	uint64_t ea = 0;

	if (!x87_check(c, f->check))
		return;
	if (f->flags & (FORM_READ | FORM_WRITE)) {
		ea = cpu_ea(c, i);
		if (f->align && (c->seg_base[i->seg] + ea) & (f->align - 1))
			cpu_gp0(c);
		/* The operand of a store that an exception keeps from being done: AMD's checks it,
		 * Intel's does not. */
		if ((f->flags & FORM_READ) || c->vendor_amd)
			check_ac(c, i, ea, f->mem_bytes, f->flags & FORM_WRITE);
		if (f->flags & FORM_WRITE) {
			if (c->vendor_amd)
				cpu_probe(c, i->seg, ea, f->mem_bytes, true);
			memset(fr.mem, 0, f->mem_bytes);
		}
		if (f->flags & FORM_READ)
			cpu_read(c, i->seg, ea, fr.mem, f->mem_bytes);
	}
	load_image(c, f, &fr);
	fr.flags = (c->s.rflags & FLAGS_ARITH) | FLAG_R1 | FLAG_IF;
	run(c, f, &fr, ea);
	if (i->mnemonic == ZYDIS_MNEMONIC_FNINIT)
		put_pointers(fr.fx, &(struct pointers){0});
	uint32_t mxcsr;
	memcpy(&mxcsr, fr.fx + XSAVE_MXCSR, 4);
	if (f->flags & FORM_FX_XMM) {
		/* With MMX registers the transition to MMX comes before the exception. */
		bool mmx = i->mnemonic != ZYDIS_MNEMONIC_CVTPI2PS || !(f->flags & FORM_READ);
		if (mmx && simd_would_raise(c, mxcsr))
			enter_mmx(c);
		simd_raise(c, mxcsr, NULL);
	}
	if ((f->flags & FORM_WRITE) && store_was_done(c, f, &fr)) {
		check_ac(c, i, ea, f->mem_bytes, true);
		cpu_write(c, i->seg, ea, fr.mem, f->mem_bytes);
	}
	store_image(c, f, &fr);
	if (f->flags & FORM_FX_XMM)
		simd_commit(c, mxcsr);
	if (f->flags & FORM_FLAGS)
		c->s.rflags = (c->s.rflags & ~FLAGS_ARITH) | (fr.flags & FLAGS_ARITH);
	if (f->check == CHECK_X87_NOWAIT)
		drop_ferr(c);
}

/* ---- the environment in memory (SDM Vol. 1, 8.1.10) ---- */

/*
 * The host's is the 28-byte protected-mode one: doublewords FCW, FSW, FTW, FIP, FCS with FOP above,
 * FDP, FDS. There are three others. Before real-mode ones, pointers are linear; with the selectors
 * always 0 that makes no difference here.
 */
enum { ENV_BYTES = 28, ENV16_BYTES = 14, REGS_BYTES = 80 };

static bool real_mode(const struct soft_cpu *c)
{
	return !(c->s.cr0 & CR0_PE) || (c->s.rflags & FLAG_VM);
}

static void env_to_guest(struct soft_cpu *c, bool wide, const uint32_t host[7], uint8_t *out)
{
	uint32_t fip = host[3], fop = host[4] >> 16 & 0x7ff, fdp = host[5];

	if (wide) {
		uint32_t w[7] = {host[0], host[1], host[2], fip, fop << 16, fdp, 0xffff0000};
		if (real_mode(c)) {
			w[3] = (fip & 0xffff) | 0xffff0000;
			w[4] = (fip >> 16) << 12 | fop;
			w[5] = (fdp & 0xffff) | 0xffff0000;
			w[6] = (fdp >> 16) << 12;
		}
		memcpy(out, w, sizeof(w));
		return;
	}
	uint16_t w[7] = {(uint16_t)host[0],
			 (uint16_t)host[1],
			 (uint16_t)host[2],
			 (uint16_t)fip,
			 0,
			 (uint16_t)fdp,
			 0};
	if (real_mode(c)) {
		w[4] = (uint16_t)((fip >> 16 & 0xf) << 12 | fop);
		w[6] = (uint16_t)((fdp >> 16 & 0xf) << 12);
	}
	memcpy(out, w, sizeof(w));
}

static void env_from_guest(struct soft_cpu *c, bool wide, const uint8_t *in, uint32_t host[7])
{
	if (wide) {
		memcpy(host, in, ENV_BYTES);
		if (real_mode(c)) {
			uint32_t fop = host[4] & 0x7ff;
			host[3] = (host[3] & 0xffff) | (host[4] >> 12 & 0xffff) << 16;
			host[5] = (host[5] & 0xffff) | (host[6] >> 12 & 0xffff) << 16;
			host[4] = fop << 16;
		}
	} else {
		uint16_t w[7];
		memcpy(w, in, sizeof(w));
		for (unsigned k = 0; k < 3; k++)
			host[k] = w[k];
		host[3] = w[3];
		host[4] = 0;
		host[5] = w[5];
		if (real_mode(c)) {
			host[3] |= (uint32_t)(w[4] >> 12) << 16;
			host[5] |= (uint32_t)(w[6] >> 12) << 16;
			host[4] = (uint32_t)(w[4] & 0x7ff) << 16;
		}
	}
	host[4] &= 0xffff0000;
	host[6] = 0;
}

/* FNSTENV, FNSAVE, FLDENV, FRSTOR. */
void exec_x87_env(struct soft_cpu *c, const struct insn *i)
{
	const struct form *f = form_need(c, i);
	bool wide = i->width != 2;
	unsigned env = wide ? ENV_BYTES : ENV16_BYTES;
	unsigned regs = i->size[0] > ENV_BYTES ? REGS_BYTES : 0;
	uint8_t guest[ENV_BYTES + REGS_BYTES];
	uint32_t host[7];
	struct frame fr;

	if (!x87_check(c, f->check))
		return;
	uint64_t ea = cpu_ea(c, i);
	if (c->align_check &&
	    (cpu_linear(c, i->seg, ea, env + regs, f->flags & FORM_WRITE) & (wide ? 3 : 1)))
		cpu_raise(c, VEC_AC, 0);
	if (f->flags & FORM_READ) {
		cpu_read(c, i->seg, ea, guest, env + regs);
		env_from_guest(c, wide, guest, host);
		memcpy(fr.mem, host, sizeof(host));
		memcpy(fr.mem + sizeof(host), guest + env, regs);
	}
	load_image(c, f, &fr);
	struct pointers p = get_pointers(fr.fx);
	f->code(c, &fr);
	if (f->flags & FORM_WRITE) {
		memcpy(host, fr.mem, sizeof(host));
		host[3] = (uint32_t)p.fip;
		host[4] = (uint32_t)p.fop << 16;
		host[5] = (uint32_t)p.fdp;
		env_to_guest(c, wide, host, guest);
		memcpy(guest + env, fr.mem + sizeof(host), regs);
		cpu_write(c, i->seg, ea, guest, env + regs);
		if (regs) /* FNSAVE initialises */
			p = (struct pointers){0};
	} else {
		p = (struct pointers){(uint16_t)(host[4] >> 16 & 0x7ff), host[3], host[5]};
	}
	put_pointers(fr.fx, &p);
	store_image(c, f, &fr);
	drop_ferr(c);
}
