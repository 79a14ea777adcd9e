/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"

/*
 * REP MOVS and REP STOS: where the direction is upward and source and destination each end in the
 * page they begin in, the host's own instruction does it on the host addresses. The helper does
 * all other cases. In the window the host's instruction does it where the guest has it (direct.c).
 */
enum { DF_MASK = 0x400, WINDOW_BYTES_MAX = 1 << 19 };

/* From the probe's result: T_INDEX becomes the host address; leaves to the helper when rcx elements
 * from there run over the page's end. */
static void check_room(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;

	e_lea(e, true, T_INDEX, T_INDEX, T_ADDR, 1, 0);
	e_lea(e, true, T_ADDR, T_ADDR, RCX, it->i.width, 0);
	e_alu_ri(e, true, ALU_CMP, T_ADDR, MEM_PAGE_BYTES);
	leave_to_helper(t, it, CC_A);
}

static void emit_host_rep(struct trans *t, const struct item *it, bool stos)
{
	static const uint8_t opcode[2][2] = {{0xa4, 0xa5}, {0xaa, 0xab}};
	struct emit *e = &t->e;

	if (it->i.width == 2)
		e8(e, 0x66);
	e8(e, 0xf3);
	if (it->i.width == 8)
		e8(e, 0x48);
	e8(e, opcode[stos][it->i.width > 1]);
}

/* In the window any length will do, but for requests, which wait meanwhile; and whatever stands in the way
 * faults, with the registers as the guest finds them. */
static void rep_in_window(struct trans *t, const struct item *it, bool stos)
{
	static const struct span source = {.base = RSI, .index = REG_NONE, .seg = REG_NONE},
				 destination = {.base = RDI, .index = REG_NONE, .seg = REG_NONE};

	e_alu_ri(&t->e, true, ALU_CMP, RCX, WINDOW_BYTES_MAX / it->i.width);
	leave_to_helper(t, it, CC_A);
	if (!stos)
		direct_check(t, &source, it);
	direct_check(t, &destination, it);
	note_site(t, it);
	emit_host_rep(t, it, stos);
}

void emit_rep(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;
	unsigned size = it->i.width;
	bool stos =
		it->i.mnemonic == ZYDIS_MNEMONIC_STOSB || it->i.mnemonic == ZYDIS_MNEMONIC_STOSW ||
		it->i.mnemonic == ZYDIS_MNEMONIC_STOSD || it->i.mnemonic == ZYDIS_MNEMONIC_STOSQ;

	flags_clobber(t, it->live_after);
	e_gs(e, false, 0xf7, 0, OFF(s.rflags)); /* test dword gs:[rflags], imm */
	e32(e, DF_MASK);
	leave_to_helper(t, it, CC_NE);
	if (t->direct) {
		rep_in_window(t, it, stos);
		return;
	}
	/* 1 to a page's worth of elements, by one unsigned comparison. */
	e_lea(e, true, T_INDEX, RCX, 0xff, 1, -1);
	e_alu_ri(e, true, ALU_CMP, T_INDEX, (int32_t)(MEM_PAGE_BYTES / size - 1));
	leave_to_helper(t, it, CC_A);

	if (stos) {
		emit_probe_stack(t, it, RDI, 0, size, true);
		check_room(t, it);
		e_lea(e, true, T_ADDR, RDI, RCX, size, 0);
		e_mov_rr(e, RDI, T_INDEX);
		emit_host_rep(t, it, true);
		e_mov_rr(e, RDI, T_ADDR);
		return;
	}
	/* The source first: where neither is there, the fault is its. */
	emit_probe_stack(t, it, RSI, 0, size, false);
	check_room(t, it);
	e_store(e, OFF(bt.scratch), T_INDEX);
	emit_probe_stack(t, it, RDI, 0, size, true);
	check_room(t, it);
	e_bytes(e, "\x4c\x87\xd7", 3); /* xchg rdi, r10 */
	e_lea(e, true, T_INDEX, T_INDEX, RCX, size, 0);
	e_lea(e, true, T_ADDR, RSI, RCX, size, 0);
	e_load(e, RSI, OFF(bt.scratch));
	emit_host_rep(t, it, false);
	e_mov_rr(e, RDI, T_INDEX);
	e_mov_rr(e, RSI, T_ADDR);
}
