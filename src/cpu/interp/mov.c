/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/select.h"

/*
 * Data movement: MOV of general registers, MOVZX, MOVSX, LEA, XCHG, BSWAP, CMOVcc, SETcc, the
 * CBW family, XLAT, flag instructions.
 */
#define MOVES(BITS)                                                                                \
	static void mov_r_r##BITS(struct soft_cpu *c, const struct insn *i)                        \
	{                                                                                          \
		set_reg(c, i->reg[0], BITS / 8, get_reg(c, i->reg[1], BITS / 8));                  \
	}                                                                                          \
	static void mov_r_i##BITS(struct soft_cpu *c, const struct insn *i)                        \
	{                                                                                          \
		set_reg(c, i->reg[0], BITS / 8, i->imm);                                           \
	}                                                                                          \
	static void mov_r_m##BITS(struct soft_cpu *c, const struct insn *i)                        \
	{                                                                                          \
		set_reg(c, i->reg[0], BITS / 8, rd##BITS(c, i->seg, ea(c, i)));                    \
	}                                                                                          \
	static void mov_m_r##BITS(struct soft_cpu *c, const struct insn *i)                        \
	{                                                                                          \
		wr##BITS(c, i->seg, ea(c, i), (uint##BITS##_t)get_reg(c, i->reg[1], BITS / 8));    \
	}                                                                                          \
	static void mov_m_i##BITS(struct soft_cpu *c, const struct insn *i)                        \
	{                                                                                          \
		wr##BITS(c, i->seg, ea(c, i), (uint##BITS##_t)i->imm);                             \
	}
MOVES(8)
MOVES(16)
MOVES(32)
MOVES(64)

static op_fn *mov_form(const struct decoded *d, const struct insn *i)
{
	static op_fn *const forms[4][5] = {
		{mov_r_r8, mov_r_i8, mov_r_m8, mov_m_r8, mov_m_i8},
		{mov_r_r16, mov_r_i16, mov_r_m16, mov_m_r16, mov_m_i16},
		{mov_r_r32, mov_r_i32, mov_r_m32, mov_m_r32, mov_m_i32},
		{mov_r_r64, mov_r_i64, mov_r_m64, mov_m_r64, mov_m_i64},
	};
	op_fn *const *f = forms[__builtin_ctz(i->size[0])];

	for (unsigned k = 0; k < 2; k++) {
		if (d->op[k].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (ZydisRegisterGetClass(d->op[k].reg.value)) {
		case ZYDIS_REGCLASS_GPR8:
		case ZYDIS_REGCLASS_GPR16:
		case ZYDIS_REGCLASS_GPR32:
		case ZYDIS_REGCLASS_GPR64:
			break;
		default:
			return NULL; /* segment, control and debug registers */
		}
	}
	if (i->flags & INSN_DST_MEM)
		return f[i->reg[1] != REG_NONE ? 3 : 4];
	if (i->flags & INSN_MEM)
		return f[2];
	return f[i->reg[1] != REG_NONE ? 0 : 1];
}

static void op_movzx(struct soft_cpu *c, const struct insn *i)
{
	set_reg(c, i->reg[0], i->size[0], get_operand(c, i, 1));
}

static void movzx_r_m8(struct soft_cpu *c, const struct insn *i)
{
	c->s.gpr[i->reg[0]] = rd8(c, i->seg, ea(c, i));
}

static uint64_t sign_extend(uint64_t v, unsigned size)
{
	unsigned shift = 64 - 8 * size;

	return (uint64_t)((int64_t)(v << shift) >> shift);
}

static void op_movsx(struct soft_cpu *c, const struct insn *i)
{
	set_reg(c, i->reg[0], i->size[0], sign_extend(get_operand(c, i, 1), i->size[1]));
}

static void lea16(struct soft_cpu *c, const struct insn *i)
{
	set_reg(c, i->reg[0], 2, ea(c, i));
}

static void lea32(struct soft_cpu *c, const struct insn *i)
{
	c->s.gpr[i->reg[0]] = (uint32_t)ea(c, i);
}

static void lea64(struct soft_cpu *c, const struct insn *i)
{
	c->s.gpr[i->reg[0]] = ea(c, i);
}

static void op_xchg_reg(struct soft_cpu *c, const struct insn *i)
{
	uint64_t a = get_reg(c, i->reg[0], i->size[0]);
	uint64_t b = get_reg(c, i->reg[1], i->size[0]);

	set_reg(c, i->reg[0], i->size[0], b);
	set_reg(c, i->reg[1], i->size[0], a);
}

/* XCHG with memory is locked with and without the prefix (SDM XCHG). */
static void op_xchg_mem(struct soft_cpu *c, const struct insn *i)
{
	unsigned n = i->flags & INSN_DST_MEM ? i->reg[1] : i->reg[0];
	unsigned size = i->size[0];
	uint64_t at = ea(c, i), v = get_reg(c, n, size);
	void *p = rmw_ptr(c, i->seg, at, size);

	if (likely(p != NULL)) {
		switch (size) {
		case 1:
			v = __atomic_exchange_n((uint8_t *)p, (uint8_t)v, __ATOMIC_SEQ_CST);
			break;
		case 2:
			v = __atomic_exchange_n((uint16_t *)p, (uint16_t)v, __ATOMIC_SEQ_CST);
			break;
		case 4:
			v = __atomic_exchange_n((uint32_t *)p, (uint32_t)v, __ATOMIC_SEQ_CST);
			break;
		default:
			v = __atomic_exchange_n((uint64_t *)p, v, __ATOMIC_SEQ_CST);
			break;
		}
	} else {
		rmw_lock(c);
		uint64_t old = read_mem(c, i->seg, at, size);
		write_mem(c, i->seg, at, size, v);
		rmw_unlock(c);
		v = old;
	}
	set_reg(c, n, size, v);
}

static void op_bswap(struct soft_cpu *c, const struct insn *i)
{
	uint64_t v = c->s.gpr[i->reg[0]];

	if (i->width == 8)
		v = __builtin_bswap64(v);
	else if (i->width == 4)
		v = __builtin_bswap32((uint32_t)v);
	else
		v = 0; /* undefined for 16 bits (SDM BSWAP); CPUs clear the register */
	set_reg(c, i->reg[0], i->width, v);
}

/* The condition code is kept in imm2 by the selection below. */
static void op_cmov(struct soft_cpu *c, const struct insn *i)
{
	uint64_t v = get_operand(c, i, 1); /* read, and may fault, also when not moved */
	uint64_t old = get_reg(c, i->reg[0], i->size[0]);

	set_reg(c, i->reg[0], i->size[0], condition(c, i->imm2) ? v : old);
}

static void op_setcc(struct soft_cpu *c, const struct insn *i)
{
	set_operand0(c, i, condition(c, i->imm2));
}

static void op_cbw(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	set_reg(c, RAX, 2, sign_extend(c->s.gpr[RAX], 1));
}

static void op_cwde(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	set_reg(c, RAX, 4, sign_extend(c->s.gpr[RAX], 2));
}

static void op_cdqe(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	c->s.gpr[RAX] = sign_extend(c->s.gpr[RAX], 4);
}

static void op_cwd(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	set_reg(c, RDX, 2, (c->s.gpr[RAX] & 0x8000) ? 0xffff : 0);
}

static void op_cdq(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	set_reg(c, RDX, 4, (c->s.gpr[RAX] & 0x80000000) ? UINT32_MAX : 0);
}

static void op_cqo(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	c->s.gpr[RDX] = c->s.gpr[RAX] >> 63 ? UINT64_MAX : 0;
}

static void op_xlat(struct soft_cpu *c, const struct insn *i)
{
	uint64_t at = c->s.gpr[RBX] + (uint8_t)c->s.gpr[RAX];

	*(uint8_t *)&c->s.gpr[RAX] = rd8(c, i->seg, at & size_mask(i->addr_bytes));
}

static void op_lahf(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	*reg8(c, REG_HIGH) = (uint8_t)((c->s.rflags & 0xd5) | FLAG_R1);
}

static void op_sahf(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	c->s.rflags = (c->s.rflags & ~UINT64_C(0xd5)) | (*reg8(c, REG_HIGH) & 0xd5);
}

static void op_clc(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	c->s.rflags &= ~FLAG_CF;
}

static void op_stc(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	c->s.rflags |= FLAG_CF;
}

static void op_cmc(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	c->s.rflags ^= FLAG_CF;
}

static void op_cld(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	c->s.rflags &= ~FLAG_DF;
}

static void op_std(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	c->s.rflags |= FLAG_DF;
}

static void op_salc(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	*reg8(c, RAX) = (c->s.rflags & FLAG_CF) ? 0xff : 0;
}

/* 0F 0D with a register: AMD's prefetch has no such form, Intel's reserved no-operation has. */
static void op_prefetch_reg(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	if (c->vendor_amd)
		cpu_ud(c);
}

/* F3 90 with REX.B: AMD's exchanges, whatever the F3; Intel's pauses, whatever the B. */
static void op_pause_r8(struct soft_cpu *c, const struct insn *i)
{
	if (!c->vendor_amd)
		return;
	uint64_t rax = get_reg(c, RAX, i->width), r8 = get_reg(c, R8, i->width);

	set_reg(c, RAX, i->width, r8);
	set_reg(c, R8, i->width, rax);
}

static void op_nop(struct soft_cpu *c, const struct insn *i)
{
	(void)c;
	(void)i;
}

bool insn_does_nothing(const struct insn *i)
{
	return i->fn == op_nop;
}

static op_fn *lea_form(const struct insn *i)
{
	if (i->width == 2)
		return lea16;
	return i->width == 4 ? lea32 : lea64;
}

static op_fn *conditional(const struct decoded *d, struct insn *i)
{
	op_fn *fn;

	switch (d->z.meta.category) {
	case ZYDIS_CATEGORY_CMOV:
		fn = op_cmov;
		break;
	case ZYDIS_CATEGORY_SETCC:
		fn = op_setcc;
		break;
	default:
		return NULL; /* imm2 is others' */
	}
	/* Jcc, SETcc and CMOVcc have the condition in the opcode's low four bits. */
	i->imm2 = d->z.opcode & 15;
	return fn;
}

op_fn *mov_select(const struct decoded *d, struct insn *i)
{
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		return mov_form(d, i);
	case ZYDIS_MNEMONIC_MOVZX:
		return (i->flags & INSN_MEM) && i->size[1] == 1 && i->size[0] >= 4 ? movzx_r_m8
										   : op_movzx;
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
		return op_movsx;
	case ZYDIS_MNEMONIC_LEA:
		return lea_form(i);
	case ZYDIS_MNEMONIC_XCHG:
		return i->flags & INSN_MEM ? op_xchg_mem : op_xchg_reg;
	case ZYDIS_MNEMONIC_BSWAP:
		return op_bswap;
	case ZYDIS_MNEMONIC_CBW:
		return op_cbw;
	case ZYDIS_MNEMONIC_CWDE:
		return op_cwde;
	case ZYDIS_MNEMONIC_CDQE:
		return op_cdqe;
	case ZYDIS_MNEMONIC_CWD:
		return op_cwd;
	case ZYDIS_MNEMONIC_CDQ:
		return op_cdq;
	case ZYDIS_MNEMONIC_CQO:
		return op_cqo;
	case ZYDIS_MNEMONIC_XLAT:
		return op_xlat;
	case ZYDIS_MNEMONIC_LAHF:
		return op_lahf;
	case ZYDIS_MNEMONIC_SAHF:
		return op_sahf;
	case ZYDIS_MNEMONIC_CLC:
		return op_clc;
	case ZYDIS_MNEMONIC_STC:
		return op_stc;
	case ZYDIS_MNEMONIC_CMC:
		return op_cmc;
	case ZYDIS_MNEMONIC_CLD:
		return op_cld;
	case ZYDIS_MNEMONIC_STD:
		return op_std;
	case ZYDIS_MNEMONIC_SALC:
		return op_salc;
	case ZYDIS_MNEMONIC_NOP:
		if (d->z.opcode_map == ZYDIS_OPCODE_MAP_0F && d->z.opcode == 0x0d &&
		    d->z.raw.modrm.mod == 3)
			return op_prefetch_reg;
		return op_nop;
	case ZYDIS_MNEMONIC_PAUSE:
		if ((d->z.attributes & ZYDIS_ATTRIB_HAS_REX) && d->z.raw.rex.B)
			return op_pause_r8;
		return op_nop;
	default:
		return conditional(d, i);
	}
}
