/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_INTERP_SYS_SYS_H
#define HANOK_CPU_INTERP_SYS_SYS_H

#include <string.h>

#include "cpu/interp/interp.h"

/*
 * System instructions. Two select functions, one a half: sys_far_select has segmentation, far
 * control transfers, interrupts, flags and fast system calls (seg, far, gate, deliver, task, iret,
 * syscall, io_perm); sys_reg_select has control and debug registers, MSRs, CPUID, XSAVE and the
 * rest. Each returns the handler of an instruction, or NULL when the mnemonic is none of its own,
 * and sets i->flags |= INSN_END where the block must end.
 */
op_fn *sys_far_select(const struct decoded *d, struct insn *i);
op_fn *sys_reg_select(const struct decoded *d, struct insn *i);

/* Parts of sys_far_select, a file each. */
op_fn *seg_select(const struct decoded *d, struct insn *i);
op_fn *segtable_select(const struct decoded *d, struct insn *i);
op_fn *far_select(const struct decoded *d, struct insn *i);
op_fn *int_select(const struct decoded *d, struct insn *i);
op_fn *iret_select(const struct decoded *d, struct insn *i);
op_fn *syscall_select(const struct decoded *d, struct insn *i);
op_fn *flags_select(const struct decoded *d, struct insn *i);

static inline op_fn *ends_block(struct insn *i, op_fn *fn)
{
	i->flags |= INSN_END;
	return fn;
}

/* Operand k as a selector: a register's low half or 16 bits of memory. */
static inline uint16_t read_selector(struct soft_cpu *c, const struct insn *i, unsigned k)
{
	if (i->reg[k] != REG_NONE)
		return (uint16_t)c->s.gpr[i->reg[k]];
	return cpu_read16(c, i->seg, cpu_ea(c, i));
}

/* ---- modes ---- */

static inline bool in_protected_mode(const struct soft_cpu *c)
{
	return (c->s.cr0 & CR0_PE) && !(c->s.rflags & FLAG_VM);
}

static inline bool in_v86_mode(const struct soft_cpu *c)
{
	return (c->s.cr0 & CR0_PE) && (c->s.rflags & FLAG_VM);
}

static inline unsigned cpu_iopl(const struct soft_cpu *c)
{
	return (c->s.rflags & FLAG_IOPL) >> 12;
}

/* ---- descriptors (desc.c) ---- */

/* Types of system descriptors (SDM table 3-2). */
enum {
	SYS_TSS16 = 1,
	SYS_LDT = 2,
	SYS_TSS16_BUSY = 3,
	SYS_CALL_GATE16 = 4,
	SYS_TASK_GATE = 5,
	SYS_INT_GATE16 = 6,
	SYS_TRAP_GATE16 = 7,
	SYS_TSS32 = 9,
	SYS_TSS32_BUSY = 11,
	SYS_CALL_GATE32 = 12,
	SYS_INT_GATE32 = 14,
	SYS_TRAP_GATE32 = 15,
	SYS_TYPE_BUSY = 2, /* the bit that makes an available TSS a busy one */
	SYS_TYPE_32 = 8,   /* the bit that makes a 16-bit TSS or gate a 32-bit one */
};

/* A descriptor as found in the GDT, LDT or IDT. */
struct desc {
	uint64_t gva; /* of the descriptor */
	uint64_t raw;
	uint64_t high; /* second half of a 16-byte one, 0 otherwise */
	uint16_t sel;  /* it was found by */
	uint32_t attr; /* as in struct segment */
};

/* A selector's index and TI, which is what error codes hold (SDM 6.13). */
static inline uint16_t sel_error(uint16_t sel)
{
	return sel & 0xfffc;
}

static inline bool sel_is_null(uint16_t sel)
{
	return sel_error(sel) == 0;
}

static inline unsigned sel_rpl(uint16_t sel)
{
	return sel & 3;
}

static inline bool sel_is_local(uint16_t sel)
{
	return sel & 4;
}

static inline unsigned attr_dpl(uint32_t attr)
{
	return (attr & SEG_DPL) >> SEG_DPL_SHIFT;
}

static inline unsigned desc_dpl(const struct desc *d)
{
	return attr_dpl(d->attr);
}

/* Type of a system descriptor; of code and data ones 0, which is no system type. */
static inline unsigned desc_system_type(const struct desc *d)
{
	return (d->attr & SEG_S) ? 0 : d->attr & SEG_TYPE;
}

static inline bool attr_is_code(uint32_t attr)
{
	return (attr & (SEG_S | SEG_TYPE_CODE)) == (SEG_S | SEG_TYPE_CODE);
}

static inline bool attr_is_conforming(uint32_t attr)
{
	return attr_is_code(attr) && (attr & SEG_TYPE_DC);
}

static inline bool attr_is_data(uint32_t attr)
{
	return (attr & (SEG_S | SEG_TYPE_CODE)) == SEG_S;
}

static inline bool attr_is_writable_data(uint32_t attr)
{
	return attr_is_data(attr) && (attr & SEG_TYPE_WR);
}

/* 32 bits; of TSS and LDT descriptors of 16 bytes, 64. */
uint64_t desc_base(const struct desc *d);
uint32_t desc_limit(const struct desc *d);

/* Fields of gates. */
static inline uint16_t gate_selector(const struct desc *d)
{
	return (uint16_t)(d->raw >> 16);
}

static inline uint64_t gate_offset(const struct desc *d)
{
	return (d->raw & 0xffff) | (d->raw >> 32 & 0xffff0000) | d->high << 32;
}

/* Finds a descriptor by selector: false when it is outside its table or there is no LDT. Null
 * selectors are the caller's to refuse. Raises #PF. */
bool desc_find(struct soft_cpu *c, uint16_t sel, struct desc *d);
/* The same; raises vector with the selector and ext as its error code when it is not there. */
void desc_fetch(struct soft_cpu *c, uint16_t sel, struct desc *d, enum vector vector, unsigned ext);
/* Reads the second half of a 16-byte descriptor: false when it is outside the table. */
bool desc_find_high(struct soft_cpu *c, struct desc *d);
/* As a segment register holds it, accessed. */
struct segment desc_segment(const struct desc *d, uint16_t sel);
/* Sets the accessed bit in memory when it is clear. */
void desc_set_accessed(struct soft_cpu *c, const struct desc *d);
/* Sets or clears the busy bit of the TSS descriptor at gva. */
void desc_set_busy(struct soft_cpu *c, uint64_t gva, bool busy);

_Noreturn void raise_sel(struct soft_cpu *c, enum vector vector, uint16_t sel, unsigned ext);

/* A code segment's descriptor: vector unless it is one and, in IA-32e mode, not both L and D. */
void desc_check_code(struct soft_cpu *c, const struct desc *d, enum vector vector, unsigned ext);
/* #GP(ext) unless rip can be reached in the code segment. Returns rip, cut to 32 bits for a segment
 * that is not 64-bit. */
uint64_t check_target(struct soft_cpu *c, const struct segment *cs, uint64_t rip, unsigned ext);

/* ---- segment registers (seg.c) ---- */

/* MOV, POP and LxS to a segment register other than CS, in any mode. */
void seg_load(struct soft_cpu *c, enum seg_reg seg, uint16_t sel);
/* What a segment register holds in real (keeps limit and most rights) and virtual-8086 mode. */
struct segment seg_real(const struct segment *old, uint16_t sel);
struct segment seg_v86(uint16_t sel);
struct segment seg_null(uint16_t sel);
/* SS after a change of privilege in IA-32e mode: null, with the new CPL. */
struct segment seg_null_stack(uint16_t sel, unsigned cpl);
/* Checks of a data segment for level cpl and its descriptor: #GP or #TS (vector), #NP. */
void seg_check_data(struct soft_cpu *c, uint16_t sel, unsigned cpl, enum vector vector,
		    unsigned ext, struct desc *d);
/* Checks of a stack segment for level cpl and its descriptor: #GP or #TS (vector), #SS when not
 * present. */
void seg_check_stack(struct soft_cpu *c, uint16_t sel, unsigned cpl, enum vector vector,
		     unsigned ext, struct desc *d);
/* Nulls ES, DS, FS and GS where a return to the outer level cpl may not keep them. */
void seg_drop_inner(struct soft_cpu *c, unsigned cpl);

/* ---- stacks that are not, or not yet, the current one (gate.c) ---- */

struct stack {
	struct segment ss;
	uint64_t sp;
	uint64_t mask;	/* of sp */
	uint32_t error; /* what #SS carries */
	bool is_64bit;	/* no limits; canonical addresses */
	bool own;	/* SS itself, pushed to by the program: alignment checks, watchpoints */
	enum mmu_class class;
};

/* The current stack, for pushes of the instruction (own) or of an event. */
struct stack stack_current(const struct soft_cpu *c, bool own, unsigned ext);
/* The stack of an inner level by a 16- or 32-bit TSS, checked (#TS, #SS). Its descriptor's accessed
 * bit is left to the caller. */
struct stack stack_inner(struct soft_cpu *c, unsigned cpl, unsigned ext, struct desc *ss_desc);
/* In IA-32e mode: at sp, for code of level cpl. */
struct stack stack_long(const struct soft_cpu *c, uint64_t sp, unsigned cpl, unsigned ext);
/* In IA-32e mode: RSP for the level, or from the interrupt stack table when ist is not 0. */
uint64_t stack_tss64(struct soft_cpu *c, unsigned cpl, unsigned ist, unsigned ext);
/* Checks room for count pushes of size bytes: raises #SS, #PF; nothing is written. */
void stack_probe(struct soft_cpu *c, const struct stack *st, unsigned count, unsigned size);
/* Pushes value[0] to value[count - 1]; call stack_probe before. */
void stack_push(struct soft_cpu *c, struct stack *st, const uint64_t *value, unsigned count,
		unsigned size);
/* Makes st.sp the stack pointer. */
void stack_set_sp(struct soft_cpu *c, const struct stack *st);
/* Reads size bytes of the current stack at a distance from its top in bytes; pops nothing. */
uint64_t stack_peek(struct soft_cpu *c, uint64_t distance, unsigned size);

/* ---- far returns (far.c), of which IRET is one ---- */

/* The return CS: #GP, #NP. */
void return_check_cs(struct soft_cpu *c, uint16_t sel, struct desc *d);
/* The return SS for the level of cs's RPL: #GP, #SS. */
struct segment return_check_ss(struct soft_cpu *c, uint16_t sel, const struct segment *cs,
			       struct desc *d);
/* CS, next_rip, SS, the stack pointer; data segments when the level changes. */
void return_to(struct soft_cpu *c, const struct segment *cs, uint64_t rip, const struct segment *ss,
	       uint64_t sp);

/* ---- call gates (gate.c) ---- */

/* Far JMP and CALL through a call gate in protected or IA-32e mode. */
void gate_jump(struct soft_cpu *c, struct desc *gate);
void gate_call(struct soft_cpu *c, struct desc *gate);
/* A task gate that JMP or CALL names; fetches the TSS. */
void gate_task(struct soft_cpu *c, const struct desc *gate, bool call);

/* ---- tasks (task.c; SDM 8.3) ---- */

enum task_cause { TASK_JUMP, TASK_CALL, TASK_INT, TASK_IRET };

/* The available TSS that a task gate names: #GP, #NP. */
void task_gate_tss(struct soft_cpu *c, uint16_t sel, unsigned ext, struct desc *tss);
/* Switches to the task of an already checked TSS descriptor. return_rip is saved in the old task,
 * flags as its flags. Sets s.rip and next_rip. From some point on, faults are raised in the new
 * task. */
void task_switch(struct soft_cpu *c, const struct desc *tss, enum task_cause cause,
		 uint64_t return_rip, uint64_t flags, unsigned ext, bool has_error, uint32_t error);
/* IRET with NT set. */
void task_return(struct soft_cpu *c);

#endif
