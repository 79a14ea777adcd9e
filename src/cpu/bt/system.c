/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"

/*
 * System instructions that are frequent enough to be done in line: the interrupt flag, SWAPGS,
 * STAC and CLAC, PUSHF, RDTSC, FLDCW; and bit tests with a register, which reach over their operand.
 */

static void emit_rdtsc(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;

	flags_clobber(t, it->live_after);
	e_bytes(e, "\x0f\x31", 2);	   /* rdtsc */
	e_bytes(e, "\x48\xc1\xe2\x20", 4); /* shl rdx, 32 */
	e_bytes(e, "\x48\x09\xd0", 3);	   /* or rax, rdx */
	e_gs(e, true, 0x03, RAX, OFF(s.tsc_offset));
	e_bytes(e, "\x48\x89\xc2", 3);	   /* mov rdx, rax */
	e_bytes(e, "\x48\xc1\xea\x20", 4); /* shr rdx, 32 */
	e_bytes(e, "\x89\xc0", 2);	   /* mov eax, eax */
	if (it->i.mnemonic == ZYDIS_MNEMONIC_RDTSCP)
		e_load32(e, RCX, OFF(s.tsc_aux));
}

static void emit_swapgs(struct trans *t)
{
	struct emit *e = &t->e;
	size_t base = OFF(s.seg) + SEG_GS * sizeof(struct segment) + offsetof(struct segment, base);

	e_load(e, T_ADDR, base);
	e_load(e, T_INDEX, OFF(s.kernel_gs_base));
	e_store(e, OFF(s.kernel_gs_base), T_ADDR);
	e_store(e, base, T_INDEX);
	e_store(e, OFF(seg_base) + SEG_GS * sizeof(uint64_t), T_INDEX);
}

/* STAC and CLAC: RFLAGS.AC, and with it the class that the following accesses are translated for. */
static void emit_access_check(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;
	bool set = it->kind == KIND_STAC;
	unsigned class = set ? MMU_KERNEL_USER : MMU_KERNEL;

	flags_clobber(t, it->live_after);
	e_gs(e, false, 0x81, set ? ALU_OR : ALU_AND, OFF(s.rflags));
	e32(e, set ? (uint32_t)FLAG_AC : ~(uint32_t)FLAG_AC);
	t->key = (uint16_t)((t->key & ~(3 * MODE_KEY_CLASS)) | class * MODE_KEY_CLASS);
	unsigned mode = bt_mode_index(t->bt, t->key);
	if (mode == BT_MODES)
		t->failed = true;
	e_gs(e, false, 0xc6, 0, OFF(data_class));
	e8(e, (uint8_t) class);
	e_gs(e, false, 0xc6, 0, OFF(bt.mode));
	e8(e, (uint8_t)mode);
}

static void emit_cli(struct trans *t, const struct item *it)
{
	flags_clobber(t, it->live_after);
	e_gs(&t->e, false, 0x81, ALU_AND, OFF(s.rflags));
	e32(&t->e, ~(uint32_t)FLAG_IF);
	e_store_imm32(&t->e, OFF(bt.request_mask), ~(uint32_t)VCPU_REQ_IRQ);
}

/* With something asked, or as the last of a block, the helper does it, which knows of the interrupt
 * shadow. */
static void emit_sti(struct trans *t, struct item *it)
{
	if (it == &t->item[t->count - 1]) {
		emit_helper(t, it, true);
		return;
	}
	flags_clobber(t, it->live_after);
	e_cmp_gs32(&t->e, OFF(vcpu.requests), 0);
	leave_to_helper(t, it, CC_NE);
	e_gs(&t->e, false, 0x81, ALU_OR, OFF(s.rflags));
	e32(&t->e, (uint32_t)FLAG_IF);
	e_store_imm32(&t->e, OFF(bt.request_mask), UINT32_MAX);
}

static void emit_cld(struct trans *t, const struct item *it)
{
	flags_clobber(t, it->live_after);
	e_gs(&t->e, false, 0x81, ALU_AND, OFF(s.rflags));
	e32(&t->e, ~(uint32_t)FLAG_DF);
}

/* mov [r11], r10 after the sum: a word from bt.scratch to the probed place on the stack. */
void store_scratch(struct trans *t)
{
	struct emit *e = &t->e;
	bool w = t->key & MODE_KEY_64;

	emit_sum(e);
	e_load(e, T_INDEX, OFF(bt.scratch));
	e_rex(e, w, T_INDEX, 0, T_ADDR);
	e8(e, 0x89);
	e8(e, (T_INDEX & 7) << 3 | (T_ADDR & 7));
	move_sp(t, w ? -8 : -4);
}

static void emit_pushf(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;
	const uint32_t kept = ~(uint32_t)(FLAGS_ARITH | FLAG_RF | FLAG_VM);

	flags_clobber(t, FLAGS_ARITH);
	e_load32(e, T_INDEX, OFF(bt.flags));
	e_mov_rr32(e, T_ADDR, T_INDEX);
	e_bytes(e, "\x41\xc1\xeb\x08", 4); /* shr r11d, 8 */
	e_alu_ri(e, false, ALU_AND, T_ADDR, 0xd5);
	e_alu_ri(e, false, ALU_AND, T_INDEX, 1);
	e_bytes(e, "\x41\xc1\xe2\x0b", 4);     /* shl r10d, 11 */
	e_rr(e, false, 0x09, T_ADDR, T_INDEX); /* or r10d, r11d */
	e_load32(e, T_ADDR, OFF(s.rflags));
	e_alu_ri(e, false, ALU_AND, T_ADDR, (int32_t)kept);
	e_rr(e, false, 0x09, T_ADDR, T_INDEX);
	e_store(e, OFF(bt.scratch), T_INDEX);
	emit_probe_stack(t, it, RSP, -8, 8, true);
	store_scratch(t);
}

/* MOV of a segment register to a general one. */
static void emit_mov_selector(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;
	unsigned dst = it->i.reg[0];

	e8(e, 0x65); /* movzx dst, word gs:[selector] */
	e_rex(e, false, dst, 0, 0);
	e8(e, 0x0f);
	e8(e, 0xb7);
	e8(e, (uint8_t)(0x04 | (dst & 7) << 3));
	e8(e, 0x25);
	e32(e, (uint32_t)(OFF(s.seg) + it->i.reg[1] * sizeof(struct segment) +
			  offsetof(struct segment, sel)));
	emit_homes_out(t, (uint16_t)(1u << dst & HOME_MASK));
}

/* The unit that the bit lies in was added to the address (probe.c); its number within the unit
 * goes to T_INDEX, and that of the instruction's encoding becomes [T_ADDR], T_INDEX. */
static void emit_bit(struct trans *t, const struct item *it)
{
	static const uint8_t opcodes[] = {0xa3, 0xab, 0xb3, 0xbb};
	struct emit *e = &t->e;
	bool w = it->mem_bytes == 8;
	unsigned which = it->i.mnemonic == ZYDIS_MNEMONIC_BTS	? 1
			 : it->i.mnemonic == ZYDIS_MNEMONIC_BTR ? 2
			 : it->i.mnemonic == ZYDIS_MNEMONIC_BTC ? 3
								: 0;

	flags_clobber(t, it->live_after & ~it->flags_written);
	emit_probe(t, it, it->mem_bytes, 0, it->mem_write);
	emit_sum(e);
	e_mov_rr(e, T_INDEX, it->i.reg[1]);
	e_alu_ri(e, false, ALU_AND, T_INDEX, w ? 63 : 31);
	if (needs_flags(it)) {
		e_store(e, OFF(bt.scratch), T_INDEX);
		flags_to_host(t);
		e_load(e, T_INDEX, OFF(bt.scratch));
	}
	if (it->i.flags & INSN_LOCK)
		e8(e, 0xf0);
	e_rex(e, w, T_INDEX, 0, T_ADDR);
	e8(e, 0x0f);
	e8(e, opcodes[which]);
	e8(e, (T_INDEX & 7) << 3 | (T_ADDR & 7));
	t->flags = FLAGS_HOST;
}

/* In line as long as all exceptions stay masked (MODE_KEY_X87). */
static void emit_fldcw(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;

	flags_clobber(t, it->live_after);
	emit_probe(t, it, 2, 0, false);
	emit_sum(e);
	e_bytes(e, "\x45\x0f\xb6\x13", 4); /* movzx r10d, byte [r11] */
	e_alu_ri(e, false, ALU_AND, T_INDEX, 0x3f);
	e_alu_ri(e, false, ALU_CMP, T_INDEX, 0x3f);
	leave_to_helper(t, it, CC_NE);
	e_bytes(e, "\x41\xd9\x2b", 3); /* fldcw [r11] */
}

void emit_system(struct trans *t, struct item *it)
{
	switch (it->kind) {
	case KIND_STI:
		emit_sti(t, it);
		break;
	case KIND_CLI:
		emit_cli(t, it);
		break;
	case KIND_CLD:
		emit_cld(t, it);
		break;
	case KIND_PUSHF:
		emit_pushf(t, it);
		break;
	case KIND_MOV_SELECTOR:
		emit_mov_selector(t, it);
		break;
	case KIND_SWAPGS:
		emit_swapgs(t);
		break;
	case KIND_STAC:
	case KIND_CLAC:
		emit_access_check(t, it);
		break;
	case KIND_RDTSC:
		emit_rdtsc(t, it);
		break;
	case KIND_FLDCW:
		emit_fldcw(t, it);
		break;
	case KIND_BIT:
		emit_bit(t, it);
		break;
	default:
		break;
	}
}
