/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/select.h"

/*
 * Near jumps, calls and returns, Jcc, LOOPcc, JCXZ, BOUND. Far ones are in sys/far.c. All end a
 * block.
 */

/* The target of a relative branch, cut to the operand size. */
static uint64_t relative(const struct soft_cpu *c, const struct insn *i)
{
	return (c->s.rip + i->length + i->imm) & size_mask(i->width);
}

static void op_jmp_rel(struct soft_cpu *c, const struct insn *i)
{
	cpu_near_jump(c, relative(c, i));
}

static void op_jcc(struct soft_cpu *c, const struct insn *i)
{
	if (condition(c, i->imm2))
		cpu_near_jump(c, relative(c, i));
}

static uint64_t branch_operand(struct soft_cpu *c, const struct insn *i)
{
	if (i->reg[0] != REG_NONE)
		return get_reg(c, i->reg[0], i->width);
	return read_mem(c, i->seg, ea(c, i), i->width);
}

static void op_jmp_ind(struct soft_cpu *c, const struct insn *i)
{
	cpu_near_jump(c, branch_operand(c, i));
}

/* The target is checked before the push: a fault of either leaves all as it was. */
static void call_to(struct soft_cpu *c, const struct insn *i, uint64_t target)
{
	uint64_t back = c->next_rip;

	/* The push is checked before the target. */
	if (unlikely(c->mode == MODE_64 && !cpu_is_canonical(target)))
		cpu_probe(c, SEG_SS, (c->s.gpr[RSP] - i->width) & cpu_stack_mask(c), i->width,
			  true);
	cpu_near_jump(c, target);
	cpu_push(c, back, i->width);
}

static void op_call_rel(struct soft_cpu *c, const struct insn *i)
{
	call_to(c, i, relative(c, i));
}

static void op_call_ind(struct soft_cpu *c, const struct insn *i)
{
	call_to(c, i, branch_operand(c, i));
}

static void op_ret(struct soft_cpu *c, const struct insn *i)
{
	uint64_t mask = cpu_stack_mask(c);

	cpu_near_jump(c, read_mem(c, SEG_SS, c->s.gpr[RSP] & mask, i->width));
	uint64_t sp = c->s.gpr[RSP] + i->width + (uint16_t)i->imm;
	if (mask == UINT16_MAX)
		*(uint16_t *)&c->s.gpr[RSP] = (uint16_t)sp;
	else
		c->s.gpr[RSP] = sp & mask;
}

/* LOOP, LOOPE, LOOPNE count in CX, ECX or RCX by the address size. */
static void op_loop(struct soft_cpu *c, const struct insn *i)
{
	uint64_t count = (get_reg(c, RCX, i->addr_bytes) - 1) & size_mask(i->addr_bytes);
	bool zf = c->s.rflags & FLAG_ZF;
	bool jump = count != 0;

	if (i->mnemonic == ZYDIS_MNEMONIC_LOOPE)
		jump = jump && zf;
	else if (i->mnemonic == ZYDIS_MNEMONIC_LOOPNE)
		jump = jump && !zf;
	if (jump)
		cpu_near_jump(c, relative(c, i));
	set_reg(c, RCX, i->addr_bytes, count);
}

static void op_jcxz(struct soft_cpu *c, const struct insn *i)
{
	if (get_reg(c, RCX, i->addr_bytes) == 0)
		cpu_near_jump(c, relative(c, i));
}

static void op_bound(struct soft_cpu *c, const struct insn *i)
{
	unsigned size = i->width;
	uint64_t at = ea(c, i);
	uint64_t low = read_mem(c, i->seg, at, size);
	uint64_t v = get_reg(c, i->reg[0], size);
	unsigned shift = 64 - 8 * size;
	bool below = (int64_t)(v << shift) < (int64_t)(low << shift);

	/* Intel's compares before it reads the upper bound, which may fault. */
	if (below && !c->vendor_amd)
		cpu_raise(c, VEC_BR, 0);
	uint64_t high = read_mem(c, i->seg, (at + size) & size_mask(i->addr_bytes), size);
	if (below || (int64_t)(v << shift) > (int64_t)(high << shift))
		cpu_raise(c, VEC_BR, 0);
}

static bool is_far(const struct decoded *d)
{
	return d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

/* Bytes of a near branch's target: IP, EIP or RIP. */
static void set_branch_width(const struct decoded *d, struct insn *i)
{
	if (d->z.machine_mode == ZYDIS_MACHINE_MODE_LONG_64)
		i->width = i->width == 2 ? 2 : 8;
}

op_fn *flow_select(const struct decoded *d, struct insn *i)
{
	op_fn *fn = NULL;
	bool relative_target = d->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;

	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
		if (!is_far(d))
			fn = relative_target ? op_jmp_rel : op_jmp_ind;
		break;
	case ZYDIS_MNEMONIC_CALL:
		if (!is_far(d))
			fn = relative_target ? op_call_rel : op_call_ind;
		break;
	case ZYDIS_MNEMONIC_RET:
		if (!is_far(d))
			fn = op_ret;
		break;
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
		fn = op_loop;
		break;
	case ZYDIS_MNEMONIC_JCXZ:
	case ZYDIS_MNEMONIC_JECXZ:
	case ZYDIS_MNEMONIC_JRCXZ:
		fn = op_jcxz;
		break;
	case ZYDIS_MNEMONIC_BOUND:
		return op_bound;
	default:
		/* XBEGIN and XABORT count as branches too; they are not offered. */
		if (d->z.meta.category == ZYDIS_CATEGORY_COND_BR &&
		    d->z.meta.isa_set != ZYDIS_ISA_SET_RTM) {
			i->imm2 = d->z.opcode & 15;
			fn = op_jcc;
		}
		break;
	}
	if (fn) {
		i->flags |= INSN_END;
		set_branch_width(d, i);
	}
	return fn;
}
