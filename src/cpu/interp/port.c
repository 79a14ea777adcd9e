/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/select.h"

/* IN and OUT. INS and OUTS are in string.c; the right to a port is checked by sys/io_perm.c. */
static uint16_t port_of(const struct soft_cpu *c, const struct insn *i, unsigned operand)
{
	return i->reg[operand] != REG_NONE ? (uint16_t)c->s.gpr[RDX] : (uint8_t)i->imm;
}

static void op_in(struct soft_cpu *c, const struct insn *i)
{
	uint16_t port = port_of(c, i, 1);

	cpu_check_io(c, port, i->size[0]);
	set_reg(c, RAX, i->size[0], cpu_in(c, port, i->size[0]));
}

static void op_out(struct soft_cpu *c, const struct insn *i)
{
	uint16_t port = port_of(c, i, 0);

	cpu_check_io(c, port, i->size[1]);
	cpu_out(c, port, i->size[1], (uint32_t)get_reg(c, RAX, i->size[1]));
}

op_fn *port_select(const struct decoded *d, struct insn *i)
{
	(void)i;
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_IN:
		return op_in;
	case ZYDIS_MNEMONIC_OUT:
		return op_out;
	default:
		return NULL;
	}
}
