/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_INTERP_SELECT_H
#define HANOK_CPU_INTERP_SELECT_H

#include "cpu/interp/interp.h"

/*
 * From a decoded instruction to its handler. Each file of handlers has a select function that
 * returns the handler for its mnemonics, or NULL, and marks in i->flags what ends a block.
 */
op_fn *mov_select(const struct decoded *d, struct insn *i);
op_fn *alu_select(const struct decoded *d, struct insn *i);
op_fn *shift_select(const struct decoded *d, struct insn *i);
op_fn *muldiv_select(const struct decoded *d, struct insn *i);
op_fn *bits_select(const struct decoded *d, struct insn *i);
op_fn *atomic_select(const struct decoded *d, struct insn *i);
op_fn *flow_select(const struct decoded *d, struct insn *i);
op_fn *stack_select(const struct decoded *d, struct insn *i);
op_fn *string_select(const struct decoded *d, struct insn *i);
op_fn *port_select(const struct decoded *d, struct insn *i);
op_fn *bcd_select(const struct decoded *d, struct insn *i);

/* Has the selected handler no effect at all? (NOP and PAUSE have encodings that mean others.) */
bool insn_does_nothing(const struct insn *i);

/* Asks them all; what nobody takes raises #UD. Never NULL. */
op_fn *insn_select(const struct decoded *d, struct insn *i);

#endif
