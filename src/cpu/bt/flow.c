/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"

/*
 * Jumps, calls, returns, the stack, and the code behind a block: misses, exits, polls.
 */

/* An instruction with [r11 + r10] as its operand. */
static void e_on_host(struct emit *e, bool w, uint8_t opcode, unsigned reg)
{
	e8(e, (uint8_t)(0x43 | w << 3 | (reg >> 3 & 1) << 2));
	e8(e, opcode);
	e8(e, (uint8_t)((reg & 7) << 3 | 4));
	e8(e, (T_INDEX & 7) << 3 | (T_ADDR & 7));
}

static bool wide(const struct trans *t)
{
	return t->key & MODE_KEY_64;
}

static unsigned word(const struct trans *t)
{
	return wide(t) ? 8 : 4;
}

void move_sp(struct trans *t, int by)
{
	e_lea(&t->e, wide(t), RSP, RSP, 0xff, 1, by);
}

/* ---- exits ---- */

static struct bt_exit *new_exit(struct trans *t, uint64_t rip)
{
	struct bt_exit *x = bt_exit_new(t->bt, t->a, t->b);
	unsigned mode = bt_mode_index(t->bt, t->key);

	if (!x || mode == BT_MODES) {
		t->failed = true;
		return NULL;
	}
	x->rip = wide(t) ? rip : (uint32_t)rip;
	x->mode = (uint8_t)mode;
	x->flags = (uint8_t)t->flags;
	return x;
}

/* So that the four bytes that linking changes lie in one cache line. */
static void align_for_patch(struct emit *e, unsigned opcode_bytes)
{
	while ((e_here(e) + opcode_bytes) % 64 > 60 && !e->full)
		e8(e, 0x90);
}

/* So that all of a jump changes at once (cache.c: set_exit), which lies in one cache line then as well. */
static void align_for_nop(struct emit *e)
{
	while (!bt_may_be_nop(e->p) && !e->full)
		e8(e, 0x90);
}

static struct bt_exit *add_exit(struct trans *t, uint64_t rip, uint8_t *jump)
{
	struct bt_exit *x = new_exit(t, rip);

	if (!x)
		return NULL;
	struct cold *k = add_cold(t);
	x->jump = (uint32_t)(jump - t->bt->code.rw);
	k->kind = COLD_EXIT;
	k->from = jump;
	k->exit = x;
	return x;
}

void add_plain_exit(struct trans *t, uint64_t rip, uint8_t *from)
{
	struct bt_exit *x = new_exit(t, rip);

	if (!x)
		return;
	struct cold *k = add_cold(t);
	x->plain = true;
	x->flags = FLAGS_PARKED; /* or dead, which nobody minds */
	k->kind = COLD_PLAIN;
	k->from = from;
	k->exit = x;
}

void emit_direct_exit(struct trans *t, uint64_t rip)
{
	align_for_nop(&t->e);
	add_exit(t, rip, e_jmp_later(&t->e));
}

void emit_far_exit(struct trans *t, uint64_t rip)
{
	align_for_nop(&t->e);
	struct bt_exit *x = add_exit(t, rip, e_jmp_later(&t->e));
	if (x)
		x->far = true;
}

void emit_call_exit(struct trans *t, uint64_t rip)
{
	align_for_patch(&t->e, 1);
	struct bt_exit *x = add_exit(t, rip, e_call_later(&t->e));
	if (x)
		x->calls = true;
}

static void emit_jcc(struct trans *t, const struct item *it)
{
	flags_to_host(t);
	align_for_patch(&t->e, 2);
	uint8_t *jump = e_jcc_later(&t->e, it->at.opcode & 15);
	struct bt_exit *x = add_exit(t, jump_target(it), jump);
	if (x)
		x->loops = is_loop_edge(t, it);
}

void emit_dispatch(struct emit *e, unsigned mode)
{
	e_bytes(e, "\x45\x69\xd3", 3); /* imul r10d, r11d, imm32 */
	e32(e, BT_JUMP_HASH);
	e_bytes(e, "\x41\xc1\xea", 3); /* shr r10d, imm8 */
	e8(e, BT_JUMP_SHIFT);
	e_jmp_gs_index(e, T_INDEX, OFF(bt.jump) + mode * BT_JUMPS * sizeof(void *));
}

/* To the rip in T_ADDR; flags are parked. A target that is not canonical is in no slot and comes to
 * C, which takes the branch back and lets the interpreter fault (bt.c). */
void emit_indirect(struct trans *t, const struct item *it, unsigned popped)
{
	unsigned mode = bt_mode_index(t->bt, t->key);
	struct bt_exit *x = new_exit(t, it->rip);

	if (!x)
		return;
	x->rip = it->rip;
	x->popped = (int32_t)popped;
	e_store_imm32(&t->e, OFF(bt.from), (uint32_t)(x - t->bt->exits));
	note_reloc(t, RELOC_EXIT_INDEX, t->e.p - 4);
	if (it->kind == KIND_RET)
		emit_shadow_return(&t->e, mode);
	else
		emit_dispatch(&t->e, mode);
}

/* ---- the stack ---- */

/* Stores a constant on the probed place. */
static void store_constant(struct trans *t, uint64_t v)
{
	struct emit *e = &t->e;

	if (!wide(t) || fits32((int64_t)v)) {
		e_on_host(e, wide(t), 0xc7, 0);
		e32(e, (uint32_t)v);
	} else {
		emit_sum(e);
		mov_rip(t, T_INDEX, v);
		e_bytes(e, "\x4d\x89\x13", 3); /* mov [r11], r10 */
	}
}

static void store_register(struct trans *t, unsigned r)
{
	struct emit *e = &t->e;

	if (!(1u << r & HOME_MASK)) {
		e_on_host(e, wide(t), 0x89, r);
		return;
	}
	emit_sum(e);
	e_load(e, T_INDEX, OFF_GPR(r));
	if (wide(t))
		e_bytes(e, "\x4d\x89\x13", 3);
	else
		e_bytes(e, "\x45\x89\x13", 3);
}

static void emit_push(struct trans *t, const struct item *it)
{
	flags_clobber(t, it->live_after);
	if (it->i.flags & INSN_MEM) {
		emit_probe(t, it, word(t), 0, false);
		e_on_host(&t->e, wide(t), 0x8b, T_ADDR);
		e_store(&t->e, OFF(bt.scratch), T_ADDR);
		emit_probe_stack(t, it, RSP, -(int)word(t), word(t), true);
		store_scratch(t);
		return;
	}
	emit_probe_stack(t, it, RSP, -(int)word(t), word(t), true);
	if (it->i.reg[0] != REG_NONE)
		store_register(t, it->i.reg[0]);
	else
		store_constant(t, it->i.imm);
	move_sp(t, -(int)word(t));
}

static void emit_pop(struct trans *t, const struct item *it)
{
	unsigned r = it->i.reg[0];

	flags_clobber(t, it->live_after);
	emit_probe_stack(t, it, RSP, 0, word(t), false);
	e_on_host(&t->e, wide(t), 0x8b, r);
	emit_homes_out(t, (uint16_t)(1u << r & HOME_MASK));
	move_sp(t, (int)word(t));
}

static void emit_leave(struct trans *t, const struct item *it)
{
	flags_clobber(t, it->live_after);
	emit_probe_stack(t, it, RBP, 0, word(t), false);
	e_on_host(&t->e, wide(t), 0x8b, T_ADDR);
	e_lea(&t->e, wide(t), RSP, RBP, 0xff, 1, (int)word(t));
	e_mov_rr(&t->e, RBP, T_ADDR);
}

/* ---- calls and returns ---- */

static void push_return(struct trans *t, const struct item *it)
{
	uint64_t back = it->rip + it->i.length;

	if (t->direct && it->span >= 0) {
		direct_push_return(t, it);
		return;
	}
	emit_probe_stack(t, it, RSP, -(int)word(t), word(t), true);
	store_constant(t, wide(t) ? back : (uint32_t)back);
	move_sp(t, -(int)word(t));
}

static void emit_call(struct trans *t, const struct item *it)
{
	flags_clobber(t, FLAGS_ARITH);
	push_return(t, it);
	emit_shadow_call(t, it);
}

/* The target of an indirect branch into T_ADDR. */
static void load_target(struct trans *t, const struct item *it)
{
	unsigned r = it->i.reg[0];

	flags_clobber(t, FLAGS_ARITH);
	if (r == REG_NONE && t->direct && direct_load_target(t, it))
		return;
	if (r == REG_NONE) {
		emit_probe(t, it, word(t), 0, false);
		e_on_host(&t->e, wide(t), 0x8b, T_ADDR);
	} else if (1u << r & HOME_MASK) {
		e_load(&t->e, T_ADDR, OFF_GPR(r));
	} else {
		wide(t) ? e_mov_rr(&t->e, T_ADDR, r) : e_mov_rr32(&t->e, T_ADDR, r);
	}
}

/* Nothing is pushed when the target, in T_ADDR, is not canonical: bits 63 to 47 are equal. Of user code the
 * kernel's addresses go the same way, where they fault. */
static void check_canonical(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;

	if ((t->key & MODE_KEY_CPL3) && t->bt->has_bmi2) {
		e_rorx(e, true, T_INDEX, T_ADDR, 47);
		e_bytes(e, "\x41\xf7\xc2\xff\xff\1\0", 7); /* test r10d, 1ffffh */
		leave_to_helper(t, it, CC_NE);
		return;
	}
	e_bytes(e, "\x4d\x89\xda\x49\xc1\xfa\x2f", 7); /* mov r10, r11; sar r10, 47 */
	e_bytes(e, "\x49\xff\xc2", 3);		       /* inc r10 */
	e_alu_ri(e, true, ALU_CMP, T_INDEX, 1);
	leave_to_helper(t, it, CC_A);
}

void emit_call_indirect(struct trans *t, const struct item *it)
{
	const bool stays = t->direct && it->span >= 0; /* in T_ADDR */

	load_target(t, it);
	if (!stays)
		e_store(&t->e, OFF(bt.scratch), T_ADDR);
	if (wide(t))
		check_canonical(t, it);
	push_return(t, it);
	emit_shadow_call_on(t, it);
	if (!stays)
		e_load(&t->e, T_ADDR, OFF(bt.scratch));
	emit_indirect(t, it, 0);
}

static void emit_ret(struct trans *t, const struct item *it)
{
	flags_clobber(t, FLAGS_ARITH);
	emit_probe_stack(t, it, RSP, 0, word(t), false);
	e_on_host(&t->e, wide(t), 0x8b, T_ADDR);
	unsigned popped = word(t) + (uint16_t)it->i.imm;
	move_sp(t, (int)popped);
	emit_indirect(t, it, popped);
}

void emit_flow(struct trans *t, struct item *it)
{
	switch (it->kind) {
	case KIND_PUSH:
		emit_push(t, it);
		break;
	case KIND_POP:
		emit_pop(t, it);
		break;
	case KIND_LEAVE:
		emit_leave(t, it);
		break;
	case KIND_JUMP:
		emit_direct_exit(t, jump_target(it));
		break;
	case KIND_JCC:
		emit_jcc(t, it);
		break;
	case KIND_JUMP_IND:
		load_target(t, it);
		emit_indirect(t, it, 0);
		break;
	case KIND_CALL:
		emit_call(t, it);
		break;
	case KIND_CALL_IND:
		emit_call_indirect(t, it);
		break;
	case KIND_RET:
		emit_ret(t, it);
		break;
	default:
		break;
	}
}

/* ---- cold code ---- */

static const uint8_t *run_address(const struct trans *t, const uint8_t *p)
{
	return p + t->e.run;
}

static void jmp_hot(struct trans *t, const uint8_t *to)
{
	e_jmp(&t->e, run_address(t, to));
	note_reloc(t, RELOC_COLD_TO_HOT, t->e.p - 4);
}

static void cold_miss(struct trans *t, const struct cold *k)
{
	struct emit *e = &t->e;

	emit_cold_address(t, k);
	uint8_t *lea = e->p;
	e_bytes(e, "\x4c\x8d\x15\0\0\0", 7); /* lea r10, [rip + access] */
	jmp_thunk(t, t->bt->thunks.slow);
	uint8_t *done = NULL;
	if (k->resume) {
		done = e->p;
		if (k->resume_flags == FLAGS_HOST || k->resume_flags == FLAGS_BOTH)
			emit_unpark(e);
		jmp_hot(t, k->resume);
	}
	while ((uint64_t)e->p % 8 && !e->full)
		e8(e, 0xcc);
	if (!e->full) {
		uint32_t rel = (uint32_t)(e->p - (lea + 7));
		memcpy(lea + 3, &rel, 4);
	}
	struct bt_access a = {
		.retry = (int32_t)(k->retry - run_address(t, e->p)),
		.done = done ? (int32_t)(done - e->p) : 0,
		.rip = k->it->rip,
		.size = (uint8_t)k->size,
		.write = k->write,
		.class = k->class,
		.unaligned = k->it->align ? (uint8_t)(k->it->align - 1) : 0,
	};
	note_reloc(t, RELOC_RIP, e->p + offsetof(struct bt_access, rip));
	note_reloc(t, RELOC_COLD_TO_HOT, e->p + offsetof(struct bt_access, retry));
	e_bytes(e, &a, sizeof(a));
}

static void cold_exit(struct trans *t, const struct cold *k)
{
	struct emit *e = &t->e;

	if (k->exit->calls)
		align_for_patch(e, SHADOW_OFF_BYTES + 1);
	k->exit->stub = (uint32_t)(e_here(e) - (uint64_t)t->bt->code.rx);
	if (k->exit->calls) {
		bt_emit_from_shadow(e, k->exit->mode);
		e_jmp_later(e); /* until it is linked, what comes next */
	}
	e_mov_ri(e, T_ADDR, (uint32_t)(k->exit - t->bt->exits));
	note_reloc(t, RELOC_EXIT_INDEX, e->p - 4);
	jmp_thunk(t, k->exit->flags == FLAGS_HOST ? t->bt->thunks.leave_link_host
						  : t->bt->thunks.leave_link);
}

static void cold_load(struct trans *t, const struct cold *k)
{
	struct emit *e = &t->e;
	const struct bt_thunks *thunks = &t->bt->thunks;

	e_mov_ri(e, T_INDEX, (uint64_t)run_address(t, k->resume));
	note_reloc(t, RELOC_HOT_ADDRESS, e->p - 8);
	e_store(e, OFF(bt.resume), T_INDEX);
	if (k->ready != LOADED_X87)
		jmp_thunk(t, thunks->load_vec);
	else
		jmp_thunk(t, k->kind == COLD_LOAD ? thunks->reload_x87 : thunks->load_x87);
}

static void cold_helper(struct trans *t, const struct cold *k)
{
	struct item it = *k->it;

	t->flags = FLAGS_PARKED; /* or dead: the instruction writes them all */
	emit_helper(t, &it, !k->resume);
	if (!k->resume)
		return;
	if (k->resume_flags == FLAGS_HOST || k->resume_flags == FLAGS_BOTH)
		emit_unpark(&t->e);
	if (k->ready)
		cold_load(t, k); /* the helper has put it away */
	else
		jmp_hot(t, k->resume);
}

void emit_cold(struct trans *t)
{
	for (unsigned n = 0; n < t->colds; n++) {
		struct cold *k = &t->cold[n];

		if (k->from)
			e_patch(&t->e, k->from);
		/* A jump of an exit goes to its stub in every copy. */
		if (k->from && k->kind != COLD_EXIT && !k->in_head)
			note_reloc(t, RELOC_HOT_TO_COLD, k->from);
		switch (k->kind) {
		case COLD_MISS:
			cold_miss(t, k);
			break;
		case COLD_REFILL:
			cold_refill(t, k);
			break;
		case COLD_LEAVE:
			mov_rip(t, T_ADDR, k->rip);
			jmp_thunk(t, t->bt->thunks.leave);
			break;
		case COLD_EXIT:
			cold_exit(t, k);
			break;
		case COLD_LOAD:
			cold_load(t, k);
			break;
		case COLD_HELPER:
			cold_helper(t, k);
			break;
		case COLD_PLAIN:
			align_for_patch(&t->e, 1);
			k->exit->jump = (uint32_t)(e_jmp_later(&t->e) - t->bt->code.rw);
			e_patch(&t->e, bt_jump_of(t->bt, k->exit));
			cold_exit(t, k);
			break;
		}
	}
}
