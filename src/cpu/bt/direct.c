/* SPDX-License-Identifier: Apache-2.0 */
#include "base/layout.h"
#include "cpu/bt/translate.h"

/*
 * The other way a memory operand is reached: at the guest's own address, where the guest's page lies in
 * this process as well (the window, window.c). The instruction is copied as it is. What has to be known
 * is that its address is none of the monitor's own:
 *
 *	rorx r10, base, LAYOUT_SHIFT		what slice of the address space is it?
 *	cmp  r10b, LAYOUT_SLICE			(41 80 fa 02)
 *	je   $ - 2				the monitor's: to the third byte of CMP
 *	(the instruction)
 *
 * Nothing waits for the answer. The third byte of CMP is, by itself, CLI: it faults, and the interpreter does
 * the instruction. So a check is 12 bytes and no code elsewhere: large programs wait for their code.
 *
 * Where flags are wanted that the comparison would overwrite, a table is read instead, which has a hole for
 * the slice. The monitor's memory lies at least LAYOUT_GUARD inside of its slice, so one answer for a register
 * does for all displacements, for an index of 32 bits, and for all that is added to the register in the block.
 * Accesses share answers as they share look-ups: a span (span.c) is what one answer is for. A loop (loop.c)
 * asks once for all turns: its registers move by little, and whatever they come to is accessed, so that they
 * do not pass the guard unseen. RSP is trusted (stack.c).
 *
 * A page that is not in the window, or not to be written, faults in the host, and so does everything of the
 * kernel's half. Where that may be is kept for each block: which guest instruction is it, and are the
 * flags parked (struct bt_site)?
 */
static_assert(LAYOUT_GUARD > (UINT64_C(8) << 32) + (UINT64_C(4) << 32) + (UINT64_C(2) << 32),
	      "an index, the other way round in a loop, a displacement and what a block adds");

bool direct_is_near_slice(uint64_t gva)
{
	return gva >= LAYOUT_BASE - LAYOUT_GUARD && gva < LAYOUT_END + LAYOUT_GUARD;
}

void note_site(struct trans *t, const struct item *it)
{
	if (t->sites == sizeof(t->site) / sizeof(t->site[0])) {
		t->failed = true;
		return;
	}
	t->site[t->sites++] = (struct bt_site){
		.at = (uint16_t)(e_here(&t->e) - (uint64_t)t->b->main),
		.rip = (uint16_t)(it->rip - t->item[0].rip),
		.flags_in_host = t->flags == FLAGS_HOST || t->flags == FLAGS_BOTH,
		.may_probe = it->kind == KIND_MEMORY,
	};
}

void bt_keep_sites(struct trans *t)
{
	const size_t bytes = t->sites * sizeof(t->site[0]);

	if (!bytes)
		return;
	struct emit e = bt_emit_begin(&t->a->cold, bytes + 16);
	if (!e.p) {
		t->failed = true;
		return;
	}
	e_bytes(&e, t->site, bytes);
	t->b->site = bt_emit_end(&t->a->cold, &e);
	t->b->sites = (uint16_t)t->sites;
}

/* ---- addresses ---- */

/*
 * Left out are instructions of MMX, for when one faults the host's processor has changed x87's registers
 * already; and what locks, which the interpreter does where it lies across pages, for hosts that make their
 * users pay for locking the bus, and so that no vCPU sees half of it.
 */
bool direct_may_reach(const struct trans *t, const struct item *it)
{
	uint64_t gva;

	if (it->needs == LOADED_X87 || (it->i.flags & INSN_LOCK) ||
	    (it->kind == KIND_MEMORY && it->i.mnemonic == ZYDIS_MNEMONIC_XCHG))
		return false;
	if (it->kind == KIND_MEMORY && bt_window_avoids(t->bt, it->rip))
		return false;
	return !constant_address(it, 0, &gva) || (gva >> 47 == 0 && !direct_is_near_slice(gva));
}

bool direct_needs_check(const struct span *s)
{
	return s->base != REG_NONE || s->index != REG_NONE || s->seg != REG_NONE;
}

/* ---- checks ---- */

/* Into a register that is none of them. */
static void load_with_segment(struct emit *e, unsigned reg, unsigned seg, unsigned base,
			      unsigned index, unsigned scale)
{
	e_load(e, reg, OFF(seg_base) + seg * sizeof(uint64_t));
	if (base < GPR_NR)
		e_lea(e, true, reg, base, reg, 1, 0);
	if (index < GPR_NR)
		e_lea(e, true, reg, reg, index, scale, 0);
}

/* The register that is asked about: what of the address is known at translation is left out. */
static unsigned load_base(struct trans *t, const struct span *s)
{
	struct emit *e = &t->e;

	if (s->seg != REG_NONE) {
		load_with_segment(e, T_INDEX, s->seg, s->base, s->index, s->scale);
		return T_INDEX;
	}
	const unsigned homes = (s->base < GPR_NR ? 1u << s->base : 0) |
			       (s->index < GPR_NR ? 1u << s->index : 0);
	emit_homes_in(t, (uint16_t)(homes & HOME_MASK));
	if (s->index == REG_NONE)
		return s->base;
	e_lea(e, true, T_INDEX, s->base < GPR_NR ? s->base : 0xff, s->index, s->scale, 0);
	return T_INDEX;
}

/*
 * The check that leaves flags alone: reads what the base's bits from SLICES_SHIFT on say of a table, of which
 * the page for the monitor's slice is not there, nor what is for the kernel's half (window.c). Then it
 * faults, and the interpreter does the instruction.
 */
static void check_by_load(struct trans *t, unsigned reg, const struct item *it)
{
	struct emit *e = &t->e;

	e_rorx(e, true, T_INDEX, reg, BT_SLICES_SHIFT);
	e_mov_rr32(e, T_INDEX, T_INDEX);
	e_load(e, T_ADDR, OFF(bt.slices));
	note_site(t, it);
	e_bytes(e, "\x47\x0f\xb6\x14\x13", 5); /* movzx r10d, byte [r11 + r10] */
	t->homes &= ~(1u << T_ADDR);
}

/* Will the flags be parked later in the block anyway? */
static bool is_parked_later(const struct trans *t, const struct item *it)
{
	const struct item *end = &t->item[t->count - 1];

	for (; it < end; it++)
		if (it->flags_written || it->kind == KIND_JCC)
			return false;
	return it->kind == KIND_RET || it->kind == KIND_JUMP_IND || it->kind == KIND_CALL_IND ||
	       it->kind == KIND_HELPER_END;
}

void emit_slice_of(struct trans *t, unsigned reg)
{
	struct emit *e = &t->e;

	if (t->bt->has_bmi2) {
		e_rorx(e, true, T_INDEX, reg, LAYOUT_SHIFT);
		return;
	}
	if (reg != T_INDEX)
		e_mov_rr(e, T_INDEX, reg);
	e_shr(e, true, T_INDEX, LAYOUT_SHIFT);
}

void direct_check(struct trans *t, const struct span *s, const struct item *it)
{
	struct emit *e = &t->e;
	const bool by_load = t->flags == FLAGS_HOST && it->live_before && t->bt->has_bmi2 &&
			     !is_parked_later(t, it);

	settle_homes(t);
	if (!by_load)
		flags_clobber(t, it->live_before);
	const unsigned reg = load_base(t, s);
	t->homes &= ~(1u << T_INDEX);
	if (by_load) {
		check_by_load(t, reg, it);
		return;
	}
	emit_slice_of(t, reg);
	e_bytes(e, "\x41\x80", 2); /* cmp r10b, imm8 */
	note_site(t, it);
	e_bytes(e, (const uint8_t[]){0xfa, LAYOUT_SLICE, 0x74, 0xfc}, 4);
}

/* ---- accesses ---- */

static bool names(const struct item *it, unsigned reg)
{
	return (it->reads | it->writes) & 1u << reg;
}

/* A register for an address that the instruction itself does not name. */
static unsigned spare(const struct item *it)
{
	return names(it, T_ADDR) ? T_INDEX : T_ADDR;
}

/* Brings an address that is not the instruction's own registers' to where it can have it, and says how. */
static enum addressing reach(struct trans *t, const struct item *it, unsigned reg, int32_t *disp)
{
	uint64_t gva;
	struct emit *e = &t->e;

	*disp = 0;
	t->homes &= ~(1u << reg);
	if (!constant_address(it, 0, &gva)) {
		load_with_segment(e, reg, it->i.seg, it->i.base, it->i.index, it->i.scale);
		*disp = (int32_t)it->i.disp;
	} else if (gva <= INT32_MAX) {
		if (it->i.base == REG_IP)
			t->may_move = false;
		*disp = (int32_t)gva;
		return ADDR_ABSOLUTE;
	} else if (it->i.base == REG_IP) {
		mov_rip(t, reg, gva);
	} else {
		e_mov_ri(e, reg, gva);
	}
	return reg == T_ADDR ? ADDR_R11 : ADDR_R10;
}

static void direct_memory(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;
	const bool by_registers = !has_segment(it) && (it->i.base < GPR_NR || it->i.index < GPR_NR);
	enum addressing how = ADDR_R11;
	int32_t disp = 0;

	if (needs_flags(it))
		flags_to_host(t);
	if (!by_registers)
		how = reach(t, it, spare(it), &disp);
	emit_homes_in(t, (it->reads | (by_registers ? it->address : 0)) & HOME_MASK);
	note_site(t, it);
	if (by_registers)
		e_bytes(e, it->i.bytes, it->i.length);
	else
		emit_rewritten(e, it, how, disp);
	emit_homes_out(t, it->writes & HOME_MASK);
	if (it->flags_written)
		t->flags = FLAGS_HOST;
}

/* A register of an address that has to be asked about, or REG_NONE. */
static unsigned asked(const struct item *it, unsigned reg)
{
	return reg < GPR_NR && !(it->small & 1u << reg) ? reg : REG_NONE;
}

bool direct_load_target(struct trans *t, const struct item *it)
{
	const struct insn *i = &it->i;
	const struct span operand = {
		.base = asked(it, i->base),
		.index = asked(it, i->index),
		.scale = i->scale,
		.seg = REG_NONE,
	};

	if (i->addr_bytes != 8 || has_segment(it) || !direct_may_reach(t, it))
		return false;
	if (direct_needs_check(&operand))
		direct_check(t, &operand, it);
	emit_address(t, it, 0);
	note_site(t, it);
	e_load_base(&t->e, T_ADDR, T_ADDR, 0);
	return true;
}

static void direct_push(struct trans *t, const struct item *it)
{
	const unsigned r = it->i.reg[0];

	if (r != REG_NONE && 1u << r & HOME_MASK)
		emit_homes_in(t, (uint16_t)(1u << r));
	note_site(t, it);
	e_bytes(&t->e, it->i.bytes, it->i.length);
}

static void direct_pop(struct trans *t, const struct item *it)
{
	note_site(t, it);
	e_bytes(&t->e, it->i.bytes, it->i.length);
	emit_homes_out(t, (uint16_t)(1u << it->i.reg[0] & HOME_MASK));
}

void direct_push_return(struct trans *t, const struct item *it)
{
	const uint64_t back = it->rip + it->i.length;

	if (fits32((int64_t)back)) {
		t->may_move = false;
		note_site(t, it);
		e_push_imm(&t->e, (int32_t)back);
	} else {
		mov_rip(t, T_INDEX, back);
		note_site(t, it);
		e_push(&t->e, T_INDEX);
	}
}

static void direct_ret(struct trans *t, const struct item *it)
{
	const unsigned more = (uint16_t)it->i.imm;

	flags_park(t);
	t->flags = FLAGS_PARKED;
	note_site(t, it);
	e_pop(&t->e, T_ADDR);
	if (more)
		move_sp(t, (int)more);
	emit_indirect(t, it, 8 + more);
}

void emit_direct(struct trans *t, const struct item *it)
{
	switch (it->kind) {
	case KIND_MEMORY:
		direct_memory(t, it);
		break;
	case KIND_PUSH:
		direct_push(t, it);
		break;
	case KIND_POP:
		direct_pop(t, it);
		break;
	case KIND_LEAVE:
		note_site(t, it);
		e8(&t->e, 0xc9);
		break;
	case KIND_CALL:
		direct_push_return(t, it);
		emit_shadow_call(t, it);
		break;
	case KIND_CALL_IND:
		emit_call_indirect(t, it);
		break;
	case KIND_RET:
		direct_ret(t, it);
		break;
	default:
		break;
	}
}
