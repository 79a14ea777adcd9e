/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/select.h"

/*
 * PUSH, POP (general operands), PUSHA, POPA, ENTER, LEAVE. Segment registers and flags are in sys.
 */
static void set_sp(struct soft_cpu *c, uint64_t mask, uint64_t sp)
{
	if (mask == UINT16_MAX)
		*(uint16_t *)&c->s.gpr[RSP] = (uint16_t)sp;
	else
		c->s.gpr[RSP] = sp & mask;
}

static void push64_reg(struct soft_cpu *c, const struct insn *i)
{
	uint64_t sp = c->s.gpr[RSP] - 8;

	wr64(c, SEG_SS, sp, c->s.gpr[i->reg[0]]);
	c->s.gpr[RSP] = sp;
}

static void pop64_reg(struct soft_cpu *c, const struct insn *i)
{
	uint64_t v = rd64(c, SEG_SS, c->s.gpr[RSP]);

	c->s.gpr[RSP] += 8;
	c->s.gpr[i->reg[0]] = v; /* POP RSP: the value popped stays */
}

static void op_push(struct soft_cpu *c, const struct insn *i)
{
	uint64_t v;

	/* Operand of the stack's width: an immediate is sign-extended, memory read at full width. */
	if (i->reg[0] != REG_NONE)
		v = get_reg(c, i->reg[0], i->width);
	else if (i->flags & INSN_MEM)
		v = read_mem(c, i->seg, ea(c, i), i->width);
	else
		v = i->imm;
	cpu_push(c, v, i->width);
}

static void op_pop_reg(struct soft_cpu *c, const struct insn *i)
{
	set_reg(c, i->reg[0], i->width, cpu_pop(c, i->width));
}

static void op_pop_mem(struct soft_cpu *c, const struct insn *i)
{
	uint64_t mask = cpu_stack_mask(c), old = c->s.gpr[RSP];
	uint64_t v = read_mem(c, SEG_SS, old & mask, i->width);

	/* The address is computed with the stack pointer already moved (SDM POP). It is put back
	 * before the write, which may fault. */
	set_sp(c, mask, old + i->width);
	uint64_t at = ea(c, i), moved = c->s.gpr[RSP];
	c->s.gpr[RSP] = old;
	write_mem(c, i->seg, at, i->width, v);
	c->s.gpr[RSP] = moved;
}

static void op_pusha(struct soft_cpu *c, const struct insn *i)
{
	uint64_t mask = cpu_stack_mask(c);
	uint32_t image[8];
	uint16_t image16[8];
	uint64_t sp = (c->s.gpr[RSP] - 8u * i->width) & mask;

	for (unsigned n = 0; n < 8; n++) {
		image[7 - n] = (uint32_t)c->s.gpr[n];
		image16[7 - n] = (uint16_t)c->s.gpr[n];
	}
	/* One push after another: when one faults, those before it are in memory, below the stack
	 * pointer, as the hardware leaves them. */
	for (unsigned n = 8; n--;)
		write_mem(c, SEG_SS, (sp + n * i->width) & mask, i->width,
			  i->width == 2 ? image16[n] : image[n]);
	set_sp(c, mask, sp);
}

static void op_popa(struct soft_cpu *c, const struct insn *i)
{
	uint64_t mask = cpu_stack_mask(c);

	/* Registers read before one that faults stay so: the hardware does it, and starting again is
	 * harmless. */
	for (unsigned n = 0; n < 8; n++) {
		uint64_t at = (c->s.gpr[RSP] + n * i->width) & mask;
		uint64_t v = read_mem(c, SEG_SS, at, i->width);
		if (7 - n != RSP)
			set_reg(c, 7 - n, i->width, v);
	}
	set_sp(c, mask, c->s.gpr[RSP] + 8u * i->width);
}

/* SDM ENTER: frame pointers of the enclosing levels are copied from the old frame. */
static void op_enter(struct soft_cpu *c, const struct insn *i)
{
	uint64_t mask = cpu_stack_mask(c);
	unsigned level = i->imm2 & 31, size = i->width;
	uint64_t sp = c->s.gpr[RSP], bp = c->s.gpr[RBP], frame;

	sp = (sp - size) & mask;
	write_mem(c, SEG_SS, sp, size, bp);
	frame = sp;
	for (unsigned n = 1; n < level; n++) {
		bp -= size;
		uint64_t v = read_mem(c, SEG_SS, bp & mask, size);
		sp = (sp - size) & mask;
		write_mem(c, SEG_SS, sp, size, v);
	}
	if (level) {
		sp = (sp - size) & mask;
		write_mem(c, SEG_SS, sp, size, frame);
	}
	sp = (sp - (uint16_t)i->imm) & mask;
	cpu_probe(c, SEG_SS, sp, size, true); /* a fault at the new top of stack comes here */
	set_sp(c, mask, sp);
	set_reg(c, RBP, size,
		mask == UINT16_MAX && size == 4 ? (c->s.gpr[RBP] & 0xffff0000) | frame : frame);
}

static void op_leave(struct soft_cpu *c, const struct insn *i)
{
	uint64_t mask = cpu_stack_mask(c);
	uint64_t v = read_mem(c, SEG_SS, c->s.gpr[RBP] & mask, i->width);

	set_sp(c, mask, c->s.gpr[RBP] + i->width);
	set_reg(c, RBP, i->width, v);
}

static bool general(const struct decoded *d)
{
	return d->op[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
	       ZydisRegisterGetClass(d->op[0].reg.value) != ZYDIS_REGCLASS_SEGMENT;
}

op_fn *stack_select(const struct decoded *d, struct insn *i)
{
	bool wide = d->z.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 && i->width == 8;

	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_PUSH:
		if (!general(d))
			return NULL;
		return wide && i->reg[0] != REG_NONE ? push64_reg : op_push;
	case ZYDIS_MNEMONIC_POP:
		if (!general(d))
			return NULL;
		if (i->flags & INSN_MEM)
			return op_pop_mem;
		return wide ? pop64_reg : op_pop_reg;
	case ZYDIS_MNEMONIC_PUSHA:
	case ZYDIS_MNEMONIC_PUSHAD:
		return op_pusha;
	case ZYDIS_MNEMONIC_POPA:
	case ZYDIS_MNEMONIC_POPAD:
		return op_popa;
	case ZYDIS_MNEMONIC_ENTER:
		return op_enter;
	case ZYDIS_MNEMONIC_LEAVE:
		return op_leave;
	default:
		return NULL;
	}
}
