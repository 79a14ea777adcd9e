/* SPDX-License-Identifier: Apache-2.0 */
#include "base/layout.h"
#include "cpu/bt/translate.h"

/*
 * In the window a register is asked about before what it leads to is accessed (direct.c). The stack pointer,
 * which would be asked about in every second block, is trusted instead:
 *
 *	Wherever a block of the window begins or is left, RSP is not in the monitor's slice, or is no deeper in
 *	it than STACK_TRUST. With what a block may add to it that is less than the guard.
 *
 * What a block does to RSP keeps it so:
 *
 *	an access [RSP + constant]	proves it: it would have faulted in the guard
 *	a constant added		is little, and comes with an access in the block, as push, pop, call, return
 *					and most functions' begins and ends do; or else RSP is asked about after it,
 *					or it could go any way in small steps
 *	anything else			is asked about when RSP is next used, or the block is left before
 *
 * Instructions that the interpreter does in a block, and whatever enters one from C, ask there (bt.c). Blocks of
 * the window that reach memory by the TLB can prove nothing, and ask whenever they have changed RSP.
 */
static_assert(LAYOUT_GUARD > STACK_TRUST + SPAN_FAR + (UINT64_C(8) << 32) + (UINT64_C(2) << 31),
	      "what a block adds, an index and a displacement");

void stack_begin(struct trans *t)
{
	t->sp = (struct sp_plan){.trusted = true, .changed = -1};
	t->sp_check_end = false;
}

/* Does the item access [RSP + constant] in the window? What may leave its operand alone, as VMASKMOV does, is
 * the interpreter's (classify.c). */
static bool proves(const struct trans *t, const struct item *it)
{
	if (!t->direct || it->span < 0)
		return false;
	switch (it->kind) {
	case KIND_PUSH:
	case KIND_POP:
	case KIND_CALL:
	case KIND_CALL_IND:
	case KIND_RET:
		return true;
	case KIND_MEMORY:
		return it->i.base == RSP && it->i.index == REG_NONE && !has_segment(it);
	default:
		return false;
	}
}

/* HELPER_END goes by C, which asks. */
static bool leaves(const struct item *it)
{
	return it->kind == KIND_JCC || (ends_block(it) && it->kind != KIND_HELPER_END);
}

static bool moves_at_end(const struct item *it)
{
	return it->kind == KIND_CALL || it->kind == KIND_CALL_IND || it->kind == KIND_RET;
}

/* Has RSP asked about between its last change and the item: where no flags are wanted, if there is such a place. */
static void plan_check(struct trans *t, unsigned item)
{
	unsigned n = (unsigned)(t->sp.changed + 1);

	while (n < item && t->item[n].live_before)
		n++;
	t->item[n].sp_check = true;
	t->sp.due = false;
	t->sp.trusted = t->sp.proven = true;
	t->sp.moved = 0;
}

void stack_note(struct trans *t, unsigned item, const struct known *k)
{
	struct sp_plan *s = &t->sp;
	const struct item *it = &t->item[item];
	const bool proven = proves(t, it), elsewhere = k->version[RSP] != s->version;
	const int by = k->delta[RSP] - s->delta;

	if (leaves(it) && !proven && (s->due || moves_at_end(it)))
		plan_check(t, item);
	/* After one that the interpreter does it has been asked. */
	if (proven || it->kind == KIND_HELPER) {
		*s = (struct sp_plan){.trusted = true, .proven = true};
	} else if (by && s->trusted) {
		s->moved += by < 0 ? -by : by;
		s->due |= !s->proven || s->moved > SPAN_FAR;
	}
	if (elsewhere) {
		/* LEAVE has accessed where it leads. */
		s->trusted = s->proven = it->kind == KIND_LEAVE && t->direct && it->span >= 0;
		s->due = !s->trusted;
	}
	if (by || elsewhere)
		s->changed = (int)item;
	s->version = k->version[RSP];
	s->delta = k->delta[RSP];
	if (item + 1 == t->count && s->due && !ends_block(it))
		t->sp_check_end = true;
}

void emit_stack_check(struct trans *t, const struct item *it)
{
	const struct span stack = {.base = RSP, .index = REG_NONE, .seg = REG_NONE};

	direct_check(t, &stack, it);
}

void emit_stack_check_end(struct trans *t, uint64_t rip)
{
	flags_clobber(t, FLAGS_ARITH);
	t->homes = 0;
	emit_slice_of(t, RSP);
	e_bytes(&t->e, (const uint8_t[]){0x41, 0x80, 0xfa, LAYOUT_SLICE}, 4); /* cmp r10b, imm8 */
	leave_to_c(t, e_jcc_later(&t->e, CC_E), rip);
}
