/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/bt.h"

/*
 * Thunks: the passages between C and translated code. C's callee-saved registers are on the host
 * stack below bt.host_rsp while the guest runs; the guest's registers are in soft_cpu while C runs.
 */
static bool is_home(unsigned r)
{
	return r == T_ADDR || r == T_INDEX;
}

static void store_guest_registers(struct emit *e)
{
	for (unsigned r = 0; r < 16; r++)
		if (!is_home(r))
			e_store(e, OFF_GPR(r), r);
}

static void load_guest_registers(struct emit *e)
{
	for (unsigned r = 0; r < 16; r++)
		if (!is_home(r))
			e_load(e, r, OFF_GPR(r));
}

/* ---- vector state ---- */

static void e_sse_gs(struct emit *e, bool store, unsigned reg, size_t offset)
{
	/* movups */
	e8(e, 0x65);
	e_rex(e, false, reg, 0, 0);
	e8(e, 0x0f);
	e8(e, store ? 0x11 : 0x10);
	e8(e, (uint8_t)(0x04 | (reg & 7) << 3));
	e8(e, 0x25);
	e32(e, (uint32_t)offset);
}

/* vextractf128 gs:[offset], ymm, 1 or vinsertf128 ymm, ymm, gs:[offset], 1 */
static void e_ymm_high(struct emit *e, bool store, unsigned reg, size_t offset)
{
	e8(e, 0x65);
	e8(e, 0xc4);
	e8(e, (uint8_t)((reg < 8 ? 0x80 : 0) | 0x60 | 3));
	e8(e, (uint8_t)(store ? 0x7d : (~reg & 15) << 3 | 5));
	e8(e, store ? 0x19 : 0x18);
	e8(e, (uint8_t)(0x04 | (reg & 7) << 3));
	e8(e, 0x25);
	e32(e, (uint32_t)offset);
	e8(e, 1);
}

static void e_mxcsr(struct emit *e, bool store, size_t offset)
{
	e8(e, 0x65);
	e8(e, 0x0f);
	e8(e, 0xae);
	e8(e, (uint8_t)(0x04 | (store ? 3 : 2) << 3));
	e8(e, 0x25);
	e32(e, (uint32_t)offset);
}

/* fxsave64 or fxrstor64 gs:[area]: x87, XMM and MXCSR */
static void e_fx(struct emit *e, bool store, size_t area)
{
	e_bytes(e, "\x65\x48\x0f\xae", 4);
	e8(e, (uint8_t)(0x04 | (store ? 0 : 1) << 3));
	e8(e, 0x25);
	e32(e, (uint32_t)area);
}

static void move_ymm_highs(struct emit *e, bool store)
{
	for (unsigned r = 0; r < 16; r++)
		e_ymm_high(e, store, r, OFF(s.xsave) + XSAVE_YMMH0 + 16 * r);
}

/* vmovups ymm15, gs:[offset], or vorps with it */
static void e_ymm15(struct emit *e, bool or, size_t offset)
{
	e_bytes(e, or ? "\x65\xc5\x04\x56\x3c\x25" : "\x65\xc5\x7c\x10\x3c\x25", 6);
	e32(e, (uint32_t)offset);
}

/*
 * The upper halves, before the lower ones. Where they are all zero, as those of programs without AVX, the
 * processor has to know: once it has been given some, each SSE instruction waits for its destination's, and
 * loops whose turns have nothing to do with each other run after one another. Leaves flags alone; takes
 * T_INDEX.
 */
static void load_ymm_highs(struct emit *e, const struct bt *bt)
{
	const size_t highs = OFF(s.xsave) + XSAVE_YMMH0;

	if (!bt->has_avx)
		return;
	e_mov_rr(e, T_INDEX, RAX);
	e_bytes(e, "\x9f\x0f\x90\xc0", 4); /* lahf; seto al */
	for (unsigned n = 0; n < 8; n++)
		e_ymm15(e, n > 0, highs + 32 * n);
	e_bytes(e, "\xc4\x42\x7d\x17\xff", 5); /* vptest ymm15, ymm15 */
	uint8_t *some = e_jcc_later(e, CC_NE);
	e_bytes(e, "\xc5\xf8\x77", 3); /* vzeroupper */
	uint8_t *done = e_jmp_later(e);
	e_patch(e, some);
	move_ymm_highs(e, false);
	e_patch(e, done);
	e_bytes(e, "\x04\x7f\x9e", 3); /* add al, 7fh; sahf */
	e_mov_rr(e, RAX, T_INDEX);
}

static void load_vectors(struct emit *e, const struct bt *bt)
{
	size_t area = OFF(s.xsave);

	load_ymm_highs(e, bt);
	for (unsigned r = 0; r < 16; r++)
		e_sse_gs(e, false, r, area + XSAVE_XMM0 + 16 * r);
	e_mxcsr(e, false, area + XSAVE_MXCSR);
	e_store_imm32(e, OFF(bt.loaded), LOADED_VEC);
}

static void load_x87(struct emit *e, const struct bt *bt)
{
	load_ymm_highs(e, bt);
	e_fx(e, false, OFF(s.xsave));
	e_store_imm32(e, OFF(bt.loaded), LOADED_X87);
}

/* The host's addresses in the x87 pointers are not the guest's business. */
static void clear_pointers(struct emit *e)
{
	size_t area = OFF(s.xsave);

	e8(e, 0x66);
	e_gs(e, false, 0xc7, 0, area + XSAVE_FOP);
	e_bytes(e, "\0", 2);
	for (unsigned n = 0; n < 16; n += 4)
		e_store_imm32(e, area + XSAVE_FIP + n, 0);
}

/* Puts the guest's vector and x87 state away, as far as it is in the host's registers. Clobbers
 * flags. */
static void save_state(struct emit *e, const struct bt *bt)
{
	size_t area = OFF(s.xsave);

	e_cmp_gs32(e, OFF(bt.loaded), LOADED_VEC);
	uint8_t *none = e_jcc_later(e, CC_B);
	uint8_t *x87 = e_jcc_later(e, CC_NE);
	for (unsigned r = 0; r < 16; r++)
		e_sse_gs(e, true, r, area + XSAVE_XMM0 + 16 * r);
	e_mxcsr(e, true, area + XSAVE_MXCSR);
	uint8_t *both = e_jmp_later(e);
	e_patch(e, x87);
	e_fx(e, true, area);
	clear_pointers(e);
	e_bytes(e, "\xdb\xe3", 2); /* fninit: as C expects it */
	e_patch(e, both);
	if (bt->has_avx)
		move_ymm_highs(e, true);
	e_mxcsr(e, false, OFF(bt.host_mxcsr));
	if (bt->has_avx)
		e_bytes(e, "\xc5\xf8\x77", 3); /* vzeroupper */
	e_store_imm32(e, OFF(bt.loaded), LOADED_NONE);
	e_patch(e, none);
}

/* ---- flags ---- */

void emit_park(struct emit *e)
{
	e_mov_rr(e, T_INDEX, RAX);
	e8(e, 0x9f);		       /* lahf */
	e_bytes(e, "\x0f\x90\xc0", 3); /* seto al */
	e_store32(e, OFF(bt.flags), RAX);
	e_mov_rr(e, RAX, T_INDEX);
}

void emit_unpark(struct emit *e)
{
	e_mov_rr(e, T_INDEX, RAX);
	e_load32(e, RAX, OFF(bt.flags));
	e_bytes(e, "\x04\x7f", 2); /* add al, 7fh: OF from bit 0 */
	e8(e, 0x9e);		   /* sahf */
	e_mov_rr(e, RAX, T_INDEX);
}

/* ---- thunks ---- */

static const unsigned callee_saved[] = {RBX, RBP, R12, R13, R14, R15};
enum { CALLEE_SAVED = sizeof(callee_saved) / sizeof(callee_saved[0]) };

static void make_enter(struct emit *e)
{
	for (unsigned k = 0; k < CALLEE_SAVED; k++)
		e_push(e, callee_saved[k]);
	e_alu_ri(e, true, ALU_SUB, RSP, 8); /* C calls need a 16-byte aligned stack */
	e_store(e, OFF(bt.host_rsp), RSP);
	e_mov_rr(e, T_ADDR, RSI);
	load_guest_registers(e);
	e_bytes(e, "\x41\xff\xe3", 3); /* jmp r11 */
}

/* With the guest's registers stored: back to the C caller of enter. */
static void back_to_c(struct emit *e)
{
	e_load(e, RSP, OFF(bt.host_rsp));
	e_alu_ri(e, true, ALU_ADD, RSP, 8);
	for (unsigned k = CALLEE_SAVED; k-- > 0;)
		e_pop(e, callee_saved[k]);
	e8(e, 0xc3);
}

/* Calls a C function with c and what is in RSI and RDX. */
static void call_c(struct emit *e, const void *fn)
{
	e_load(e, RSP, OFF(bt.host_rsp));
	e_load(e, RDI, OFF(self));
	e_mov_ri(e, RAX, (uint64_t)fn);
	e_bytes(e, "\xff\xd0", 2); /* call rax */
}

static void make_leave(struct emit *e, const struct bt *bt)
{
	e_store(e, OFF(s.rip), T_ADDR);
	store_guest_registers(e);
	save_state(e, bt);
	back_to_c(e);
}

static void make_leave_link(struct emit *e, const struct bt *bt)
{
	e_store32(e, OFF(bt.left_by), T_ADDR);
	store_guest_registers(e);
	save_state(e, bt);
	back_to_c(e);
}

/* After a C function that returned where to go on in RAX, or NULL to leave. */
static void resume_or_leave(struct emit *e)
{
	e_bytes(e, "\x48\x85\xc0", 3); /* test rax, rax */
	uint8_t *leave = e_jcc_later(e, CC_E);
	e_store(e, OFF(bt.resume), RAX);
	load_guest_registers(e);
	e_jmp_gs(e, OFF(bt.resume));
	e_patch(e, leave);
	back_to_c(e);
}

/* After a C function that returned where to go on in RAX: brings back the vector state that was there, by
 * RBX. Returns the jump of NULL. */
static uint8_t *restore_state(struct emit *e, const struct bt *bt)
{
	e_bytes(e, "\x48\x85\xc0", 3); /* test rax, rax */
	uint8_t *leave = e_jcc_later(e, CC_E);
	e_store(e, OFF(bt.resume), RAX);
	e_alu_ri(e, false, ALU_CMP, RBX, LOADED_VEC);
	uint8_t *none = e_jcc_later(e, CC_B);
	uint8_t *x87 = e_jcc_later(e, CC_NE);
	load_vectors(e, bt);
	uint8_t *both = e_jmp_later(e);
	e_patch(e, x87);
	load_x87(e, bt);
	e_patch(e, both);
	e_patch(e, none);
	return leave;
}

/* The miss path keeps vector state where it was: the code that missed may be in the middle of
 * vector work. */
static void make_slow(struct emit *e, const struct bt *bt)
{
	store_guest_registers(e);
	e_mov_rr(e, RSI, T_ADDR);
	e_mov_rr(e, RDX, T_INDEX);
	e_load32(e, RBX, OFF(bt.loaded)); /* callee-saved in C */
	save_state(e, bt);
	call_c(e, (const void *)bt_slow);
	uint8_t *leave = restore_state(e, bt);
	load_guest_registers(e);
	e_jmp_gs(e, OFF(bt.resume));
	e_patch(e, leave);
	back_to_c(e);
}

/* As make_slow, but where it faulted the translator's registers and the host's flags are in use. */
static void make_window(struct emit *e, const struct bt *bt)
{
	store_guest_registers(e);
	e_load32(e, RBX, OFF(bt.loaded));
	save_state(e, bt);
	call_c(e, (const void *)bt_window_fault);
	uint8_t *leave = restore_state(e, bt);
	e_load(e, RSP, OFF(bt.host_rsp));
	e_gs(e, false, 0xff, 6, OFF(bt.fault.flags)); /* push */
	e8(e, 0x9d);				      /* popfq */
	load_guest_registers(e);
	e_load(e, T_INDEX, OFF(bt.fault.r10));
	e_load(e, T_ADDR, OFF(bt.fault.r11));
	e_jmp_gs(e, OFF(bt.resume));
	e_patch(e, leave);
	back_to_c(e);
}

static void make_helper(struct emit *e, const struct bt *bt)
{
	e_store(e, OFF(s.rip), T_ADDR);
	store_guest_registers(e);
	e_mov_rr(e, RSI, T_INDEX);
	save_state(e, bt);
	call_c(e, (const void *)bt_helper);
	resume_or_leave(e);
}

static void make_load_vec(struct emit *e, const struct bt *bt)
{
	load_vectors(e, bt);
	e_jmp_gs(e, OFF(bt.resume));
}

static void make_load_x87(struct emit *e, const struct bt *bt)
{
	load_x87(e, bt);
	e_jmp_gs(e, OFF(bt.resume));
}

int bt_thunks_make(struct bt *bt)
{
	struct bt_thunks *t = &bt->thunks;
	struct emit e = bt_emit_begin(&bt->hot, 16384);

	if (!e.p)
		return -1;
	t->enter = (void (*)(struct soft_cpu *, const void *))e_here(&e);
	make_enter(&e);
	t->leave = (const void *)e_here(&e);
	t->no_jump = t->leave; /* r11 = rip: C looks it up */
	make_leave(&e, bt);
	t->leave_link_host = (const void *)e_here(&e);
	emit_park(&e);
	t->leave_link = (const void *)e_here(&e);
	make_leave_link(&e, bt);
	t->slow = (const void *)e_here(&e);
	make_slow(&e, bt);
	t->window = (const void *)e_here(&e);
	make_window(&e, bt);
	t->go_on = (const void *)e_here(&e);
	e_load(&e, RSP, OFF(bt.refused.rsp));
	e_jmp_gs(&e, OFF(bt.refused.at));
	t->gone_on = (const void *)e_here(&e);
	t->helper = (const void *)e_here(&e);
	make_helper(&e, bt);
	t->load_vec = (const void *)e_here(&e);
	make_load_vec(&e, bt);
	t->load_x87 = (const void *)e_here(&e);
	make_load_x87(&e, bt);
	t->reload_x87 = (const void *)e_here(&e);
	save_state(&e, bt);
	make_load_x87(&e, bt);
	for (unsigned m = 0; m < BT_MODES; m++)
		bt_make_shadow_thunks(bt, &e, m);
	if (!bt_emit_end(&bt->hot, &e))
		return -1;
	bt->thunk_bytes = bt->hot.used;
	return 0;
}
