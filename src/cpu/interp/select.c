/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/select.h"

#include "cpu/hostexec/hostexec.h"
#include "cpu/interp/sys/ctl.h"
#include "cpu/interp/sys/sys.h"

static void op_undefined(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	cpu_ud(c);
}

op_fn *insn_select(const struct decoded *d, struct insn *i)
{
	/* Most frequent first; hostexec last, since it takes whatever it can run. */
	static op_fn *(*const selects[])(const struct decoded *d, struct insn *i) = {
		mov_select,	alu_select,    flow_select,   stack_select,    shift_select,
		bits_select,	muldiv_select, string_select, atomic_select,   sys_ctl_select,
		sys_far_select, port_select,   bcd_select,    hostexec_select,
	};

	for (unsigned k = 0; k < sizeof(selects) / sizeof(selects[0]); k++) {
		op_fn *fn = selects[k](d, i);
		if (fn)
			return fn;
	}
	i->flags |= INSN_END;
	return op_undefined;
}
