/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control transfers of the reference engine where guest programs do not reach: that a fault leaves
 * neither registers nor memory changed, and the shapes of frames.
 */
#include "far_machine.h"

/* ---- faults change nothing ---- */

static void far_calls_fault_whole(void **state)
{
	(void)state;
	/* Room for one of two pushes. */
	fresh32();
	start.seg[SEG_SS] = segment_of(SMALL0);
	start.gpr[RSP] = 4;
	assert_fault(INSN("\x9a\x00\x90\x00\x00\x08\x00"), VEC_SS, 0);

	/* Beyond the limit of the target, the stack being fine. */
	fresh32();
	descriptor(FRESH_CODE, 0, 0xfff, 0x9a, 4);
	assert_fault(INSN("\x9a\x00\x10\x00\x00\x80\x00"), VEC_GP, 0);

	fresh32();
	assert_fault(INSN("\x9a\x00\x90\x00\x00\x78\x00"), VEC_NP, ABSENT_CODE);
}

static void call_gates_fault_whole(void **state)
{
	(void)state;
	/* The inner stack holds 6 bytes, the frame takes 16; the code segment is not accessed yet. */
	fresh32();
	ring3_32();
	descriptor(FRESH_CODE, 0, 0xfffff, 0x9a, 0xc);
	put(TSS + 4, 6, 4);
	put(TSS + 8, SMALL0, 4);
	gate(GDT + GATE, FRESH_CODE, HANDLER, 0xec, 0);
	assert_fault(INSN("\x9a\x00\x00\x00\x00\x5b\x00"), VEC_SS, SMALL0);

	/* A parameter lies outside the caller's stack. */
	fresh32();
	ring3_32();
	descriptor(FRESH_CODE, 0, 0xfffff, 0x9a, 0xc);
	gate(GDT + GATE, FRESH_CODE, HANDLER, 0xec, 3);
	descriptor(STACK16_3, 0, 0xafff, 0xf3, 4);
	start.seg[SEG_SS] = segment_of(STACK16_3 | 3);
	start.gpr[RSP] = 0xaff8;
	assert_fault(INSN("\x9a\x00\x00\x00\x00\x5b\x00"), VEC_SS, 0);

	/* The TSS ends in the middle of SS0. */
	fresh32();
	ring3_32();
	start.tr.limit = 8;
	gate(GDT + GATE, CODE0, HANDLER, 0xec, 0);
	assert_fault(INSN("\x9a\x00\x00\x00\x00\x5b\x00"), VEC_TS, TSS_SEL);
}

static void returns_fault_whole(void **state)
{
	(void)state;
	/* To ring 3 with a stack of ring 0, through a code segment not accessed yet. */
	fresh32();
	STACK_HOLDS(4, HANDLER, FRESH_CODE | 3, STACK, DATA0);
	assert_fault(INSN("\xcb"), VEC_GP, DATA0);

	fresh32();
	STACK_HOLDS(4, HANDLER, FRESH_CODE | 3, 0, STACK, 0);
	assert_fault(INSN("\xcf"), VEC_GP, 0);

	/* A null SS only for 64-bit code below ring 3. */
	fresh64();
	STACK_HOLDS(8, HANDLER, CODE64_3 | 3, 0, STACK, 0);
	assert_fault(INSN("\x48\xcf"), VEC_GP, 0);
	fresh64();
	STACK_HOLDS(8, UINT64_C(0x800000000000), CODE64, 0, STACK, 0);
	assert_fault(INSN("\x48\xcf"), VEC_GP, 0);

	/* NMIs are unblocked all the same. */
	fresh32();
	start.nmi_blocked = true;
	STACK_HOLDS(4, HANDLER, DATA0, 0);
	assert_fault(INSN("\xcf"), VEC_GP, DATA0);
	assert_false(after.nmi_blocked);
}

static void events_fault_whole(void **state)
{
	(void)state;
	fresh32();
	ring3_32();
	descriptor(FRESH_CODE, 0, 0xfffff, 0x9a, 0xc);
	put(TSS + 4, 6, 4);
	put(TSS + 8, SMALL0, 4);
	idt_gate(0x30, FRESH_CODE, 0xee);
	assert_fault(INSN("\xcd\x30"), VEC_SS, SMALL0);

	/* Real mode, a stack pointer in the middle of which the segment ends. */
	fresh32();
	start.cr0 &= ~CR0_PE;
	start.seg[SEG_SS].limit = start.seg[SEG_CS].limit = 0xffff;
	start.seg[SEG_SS].attr = start.seg[SEG_CS].attr = 0x93;
	start.idt = (struct table_reg){.limit = 0x3ff, .base = IDT};
	start.gpr[RSP] = 3;
	put(IDT + 4 * 0x30, HANDLER, 4);
	assert_int_equal(INSN("\xcd\x30"), VEC_SS);
	assert_int_equal(after.gpr[RSP] & 0xffff, 3);
	assert_memory_equal(ram, ram_before, RAM);

	/* 64-bit: no room to look at RSP0; a stack that is not canonical. */
	fresh64();
	ring3_64();
	start.tr.limit = 10;
	idt_gate(0x30, CODE64, 0xee);
	assert_fault(INSN("\xcd\x30"), VEC_TS, TSS_SEL);
	fresh64();
	ring3_64();
	put(TSS + 4, UINT64_C(0x800000000000), 8);
	idt_gate(0x30, CODE64, 0xee);
	assert_fault(INSN("\xcd\x30"), VEC_SS, 0);
}

static void task_switches_fault_whole(void **state)
{
	(void)state;
	fresh32();
	descriptor(TSS2_SEL, TSS2, 0x66, 0x89, 0);
	assert_fault(INSN("\xea\x00\x00\x00\x00\x68\x00"), VEC_TS, TSS2_SEL);

	/* The task we come from has no room for its registers. */
	fresh32();
	start.tr.limit = 0x5e;
	assert_fault(INSN("\xea\x00\x00\x00\x00\x68\x00"), VEC_TS, TSS_SEL);

	/* PDPTEs with reserved bits. */
	fresh32();
	put(PML4, 0x01 | 0x67, 8);
	put(TSS2 + 0x1c, PML4, 4);
	put(PML4 + 0x40, (PML4 + 0x2000) | 1, 8);
	put(PML4 + 0x2000, 0xe7, 8);
	start.cr0 |= CR0_PG;
	start.cr4 = CR4_PAE;
	start.cr3 = PML4 + 0x40;
	start.pdpte[0] = (PML4 + 0x2000) | 1;
	assert_fault(INSN("\xea\x00\x00\x00\x00\x68\x00"), VEC_GP, 0);
}

/* ---- task switches ---- */

static void fill_task2(uint32_t eip)
{
	put(TSS2 + 0x20, eip, 4);
	put(TSS2 + 0x24, 2, 4);
	put(TSS2 + 0x28, 0x1234, 4);
	put(TSS2 + 0x38, STACK, 4);
	for (unsigned n = 0; n < SEG_NR; n++)
		put(TSS2 + 0x48 + 4 * n, n == SEG_CS ? CODE0 : DATA0, 4);
}

static void a_busy_bit_alone_changes(void **state)
{
	(void)state;
	fresh32();
	fill_task2(HANDLER);
	/* DPL changed in memory after LTR: only the busy bit is the processor's. */
	ram[GDT + TSS_SEL + 5] = 0xeb;
	put(TSS + 0x4a, 0xabcd, 2); /* reserved half beside ES */
	assert_int_equal(INSN("\xea\x00\x00\x00\x00\x68\x00"), NONE);
	assert_int_equal(ram[GDT + TSS_SEL + 5], 0xe9);
	assert_int_equal(ram[GDT + TSS2_SEL + 5], 0x8b);
	assert_int_equal(get(TSS + 0x48, 4), 0xabcd0000 | DATA0);
	assert_int_equal(get(TSS + 0x20, 4), CODE + 7);
	assert_int_equal(after.rip, HANDLER);
	assert_int_equal(after.gpr[RAX], 0x1234);
	assert_true(after.cr0 & CR0_TS);
	assert_int_equal(after.tr.attr & 15, 11);
}

static void an_error_code_goes_to_the_new_task(void **state)
{
	(void)state;
	fresh32();
	fill_task2(HANDLER);
	start.rflags |= FLAG_IF;
	start.idt = (struct table_reg){.limit = 0xfff, .base = IDT};
	gate(IDT + 8 * VEC_GP, TSS2_SEL, 0, 0x85, 0);
	assert_int_equal(event(VEC_GP, EVENT_EXCEPTION, true, 0x1230), VEC_GP);
	assert_int_equal(after.rip, HANDLER + 1);
	assert_int_equal(after.gpr[RSP], STACK - 4);
	ASSERT_STACK(4, 0x1230);
	assert_int_equal(get(TSS2, 2), TSS_SEL);
	assert_true(after.rflags & FLAG_NT);
	/* A fault: the interrupted task restarts with RF set. */
	assert_int_equal(get(TSS + 0x24, 4), FLAG_RF | FLAG_IF | FLAG_R1);
	assert_int_equal(get(TSS + 0x20, 4), CODE);
}

/* ---- frames ---- */

static void frames_of_events(void **state)
{
	(void)state;
	/* Faults push RF set, interrupts do not. */
	fresh32();
	idt_gate(VEC_GP, CODE0, 0x8e);
	start.rflags |= FLAG_IF | FLAG_AC | FLAG_NT;
	event(VEC_GP, EVENT_EXCEPTION, true, 0x55);
	ASSERT_STACK(4, 0x55, CODE, CODE0, FLAG_RF | FLAG_AC | FLAG_NT | FLAG_IF | FLAG_R1);
	assert_int_equal(after.rflags, FLAG_AC | FLAG_R1);
	fresh32();
	idt_gate(0x40, CODE0, 0x8f); /* trap gate */
	start.rflags |= FLAG_IF;
	event(0x40, EVENT_EXTERNAL, false, 0);
	ASSERT_STACK(4, CODE, CODE0, FLAG_IF | FLAG_R1);
	assert_int_equal(after.rflags, FLAG_IF | FLAG_R1);

	/* 16-bit gate. */
	fresh32();
	idt_gate(0x40, CODE0, 0x86);
	event(0x40, EVENT_EXTERNAL, false, 0);
	assert_int_equal(after.gpr[RSP], STACK - 6);
	ASSERT_STACK(2, CODE, CODE0, FLAG_R1);

	/* EXT is set for events that are no software interrupts. */
	fresh32();
	idt_gate(0x40, DATA0, 0x8e);
	assert_fault(INSN("\xcd\x40"), VEC_GP, DATA0);
	fresh32();
	idt_gate(VEC_DB, DATA0, 0x8e);
	assert_fault(INSN("\xf1"), VEC_GP, DATA0 | 1);
	fresh32();
	ring3_32();
	idt_gate(VEC_BP, CODE0, 0x8e);
	assert_fault(INSN("\xcc"), VEC_GP, VEC_BP * 8 + 2);

	/* INT1 looks at no DPL; software interrupts are told to the onlooker and counted. */
	fresh32();
	ring3_32();
	idt_gate(VEC_DB, CODE0, 0x8e);
	software_events = 0;
	uint64_t counted = vcpu->stats.count[EXIT_SOFT_INT];
	assert_int_equal(INSN("\xf1"), NONE);
	ASSERT_STACK(4, CODE + 1, CODE3 | 3, FLAG_R1, STACK, DATA3 | 3);
	assert_int_equal(software_events, 1);
	assert_int_equal(vcpu->stats.count[EXIT_SOFT_INT], counted + 1);
}

static void frames_out_of_v86(void **state)
{
	(void)state;
	fresh32();
	v86();
	idt_gate(VEC_GP, CODE0, 0x8e);
	event(VEC_GP, EVENT_EXCEPTION, true, 0);
	assert_int_equal(after.gpr[RSP], STACK0 - 40);
	ASSERT_STACK(4, 0, CODE, 0, FLAG_RF | FLAG_VM | FLAG_R1, STACK, 0, 0x11, 0x22, 0x33, 0x44);
	assert_true(after.seg[SEG_GS].attr & SEG_UNUSABLE);
	assert_int_equal(after.seg[SEG_SS].sel, DATA0);
	assert_int_equal(after.rflags, FLAG_R1);

	/* And back by IRET. */
	struct segment want[SEG_NR];
	memcpy(want, start.seg, sizeof(want));
	uint64_t flags = FLAG_RF | FLAG_VM | FLAG_R1;
	fresh32();
	start.gpr[RSP] = STACK0;
	STACK_HOLDS(4, HANDLER, 0, flags, STACK, 0, 0x11, 0x22, 0x33, 0x44);
	assert_int_equal(INSN("\xcf"), NONE);
	for (unsigned n = 0; n < SEG_NR; n++)
		assert_true(same_segment(&after.seg[n], &want[n]));
	assert_int_equal(after.gpr[RSP], STACK);
	assert_int_equal(after.rflags, flags);
	assert_int_equal(after.rip, HANDLER);
}

static void frames_of_64bit_events(void **state)
{
	(void)state;
	/* The same level: RSP is aligned, SS stays. */
	fresh64();
	idt_gate(0x40, CODE64, 0x8e);
	start.gpr[RSP] = STACK + 5;
	event(0x40, EVENT_EXTERNAL, false, 0);
	assert_int_equal(after.gpr[RSP], STACK - 40);
	ASSERT_STACK(8, CODE, CODE64, FLAG_R1, STACK + 5, DATA0);
	assert_int_equal(after.seg[SEG_SS].sel, DATA0);

	/* IST, aligned too; SS null with RPL 0 when the level changes. */
	fresh64();
	ring3_64();
	idt_gate(0x40, CODE64, 0x8e);
	ram[IDT + 16 * 0x40 + 4] = 1;
	event(0x40, EVENT_EXTERNAL, false, 0);
	assert_int_equal(after.gpr[RSP], (IST1 & ~15) - 40);
	ASSERT_STACK(8, CODE, CODE64_3 | 3, FLAG_R1, STACK, DATA3 | 3);
	assert_int_equal(after.seg[SEG_SS].sel, 0);
	assert_true(after.seg[SEG_SS].attr & SEG_UNUSABLE);
	assert_int_equal(cpu_cpl(&after), 0);

	/* 32-bit code is no handler. */
	fresh64();
	idt_gate(0x40, CODE0, 0x8e);
	assert_int_equal(event(0x40, EVENT_EXTERNAL, false, 0), 0x40);
	assert_int_equal(after.activity, ACTIVITY_SHUTDOWN);
}

/* ---- IRET ---- */

static void iret_keeps_the_upper_half_of_esp(void **state)
{
	(void)state;
	fresh32();
	start.gpr[RSP] = 0x1a000;
	STACK_HOLDS(4, HANDLER, CODE3 | 3, FLAG_R1, 0x55557777, STACK16_3 | 3);
	assert_int_equal(INSN("\xcf"), NONE);
	assert_int_equal(after.gpr[RSP], 0x17777);
	fresh64();
	start.gpr[RSP] = 0x1a000;
	STACK_HOLDS(8, HANDLER, CODE3 | 3, FLAG_R1, 0x55557777, STACK16_3 | 3);
	assert_int_equal(INSN("\x48\xcf"), NONE);
	assert_int_equal(after.gpr[RSP], 0x17777);
}

static void iret_nulls_what_ring3_may_not_keep(void **state)
{
	(void)state;
	fresh64();
	start.seg[SEG_FS] = (struct segment){.sel = 2, .attr = SEG_UNUSABLE, .base = 0x123456789};
	start.seg[SEG_GS] = segment_of(DATA0);
	start.seg[SEG_GS].base = 0x777;
	start.seg[SEG_DS] = segment_of(DATA3 | 3);
	STACK_HOLDS(8, HANDLER, CODE64_3 | 3, FLAG_R1 | FLAG_IF | FLAG_IOPL, STACK, DATA3 | 3);
	assert_int_equal(INSN("\x48\xcf"), NONE);
	assert_int_equal(after.seg[SEG_FS].sel, 0);
	assert_int_equal(after.seg[SEG_FS].base, 0x123456789);
	assert_int_equal(after.seg[SEG_GS].sel, 0);
	assert_true(after.seg[SEG_GS].attr & SEG_UNUSABLE);
	assert_int_equal(after.seg[SEG_GS].base, 0x777);
	assert_int_equal(after.seg[SEG_DS].sel, DATA3 | 3);
	assert_int_equal(after.rflags, FLAG_R1 | FLAG_IF | FLAG_IOPL);

	/* To a null stack at ring 0. */
	fresh64();
	STACK_HOLDS(8, HANDLER, CODE64, FLAG_R1, STACK - 8, 0);
	assert_int_equal(INSN("\x48\xcf"), NONE);
	assert_true(after.seg[SEG_SS].attr & SEG_UNUSABLE);
	assert_int_equal(after.gpr[RSP], STACK - 8);
}

static void iret_changes_flags_by_old_privilege(void **state)
{
	(void)state;
	fresh32();
	ring3_32();
	start.rflags = FLAG_R1 | FLAG_IF;
	STACK_HOLDS(4, HANDLER, CODE3 | 3,
		    FLAG_IOPL | FLAG_VM | FLAG_VIF | FLAG_CF | FLAG_RF | FLAG_ID);
	assert_int_equal(INSN("\xcf"), NONE);
	assert_int_equal(after.rflags, FLAG_R1 | FLAG_IF | FLAG_CF | FLAG_RF | FLAG_ID);
	assert_int_equal(after.gpr[RSP], STACK + 12);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(far_calls_fault_whole),
		cmocka_unit_test(call_gates_fault_whole),
		cmocka_unit_test(returns_fault_whole),
		cmocka_unit_test(events_fault_whole),
		cmocka_unit_test(task_switches_fault_whole),
		cmocka_unit_test(a_busy_bit_alone_changes),
		cmocka_unit_test(an_error_code_goes_to_the_new_task),
		cmocka_unit_test(frames_of_events),
		cmocka_unit_test(frames_out_of_v86),
		cmocka_unit_test(frames_of_64bit_events),
		cmocka_unit_test(iret_keeps_the_upper_half_of_esp),
		cmocka_unit_test(iret_nulls_what_ring3_may_not_keep),
		cmocka_unit_test(iret_changes_flags_by_old_privilege),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
