/* SPDX-License-Identifier: Apache-2.0 */
/* Segmentation and far transfers of IA-32e mode: 64-bit and compatibility code, 16-byte descriptors,
 * null stacks (SDM Vol. 3, 5.8.3.1, 5.8.5.1 and 8.2.3). */
#include "far_machine.h"

static void gate64(uint16_t code, uint64_t offset, uint8_t access)
{
	gate(GDT + GATE, code, (uint32_t)offset, access, 0);
	put(GDT + GATE + 8, offset >> 32, 8);
}

/* lcall *(%rbx) of 16:32 bits in 64-bit code, lcall $GATE|3, $0 in 32-bit code. */
static int call_through_memory(uint16_t sel)
{
	put(HANDLER + 0x100, 0, 4);
	put(HANDLER + 0x104, sel, 2);
	start.gpr[RBX] = HANDLER + 0x100;
	return INSN("\xff\x1b");
}

static void call_gate_to_ring0(void **state)
{
	(void)state;
	for (unsigned compat = 0; compat < 2; compat++) {
		fresh64();
		if (compat)
			ring3_32();
		else
			ring3_64();
		gate64(CODE64, HANDLER, 0xec);
		uint16_t cs = start.seg[SEG_CS].sel;
		assert_int_equal(compat ? INSN("\x9a\x00\x00\x00\x00\x5b\x00")
					: call_through_memory(GATE | 3),
				 NONE);
		assert_int_equal(after.rip, HANDLER);
		assert_int_equal(after.seg[SEG_CS].sel, CODE64);
		assert_int_equal(after.seg[SEG_SS].sel, 0);
		assert_true(after.seg[SEG_SS].attr & SEG_UNUSABLE);
		assert_int_equal(cpu_cpl(&after), 0);
		assert_int_equal(after.gpr[RSP], STACK0 - 32);
		ASSERT_STACK(8, CODE + (compat ? 7 : 2), cs, STACK, DATA3 | 3);
	}
}

static void call_gate_to_the_same_level(void **state)
{
	(void)state;
	/* Out of compatibility mode all of RSP counts, on a stack that is 64-bit. */
	for (unsigned compat = 0; compat < 2; compat++) {
		fresh64();
		if (compat)
			start.seg[SEG_CS] = segment_of(CODE0);
		uint16_t cs = start.seg[SEG_CS].sel;
		gate64(CODE64, HANDLER, 0x8c);
		assert_int_equal(compat ? INSN("\x9a\x00\x00\x00\x00\x58\x00")
					: call_through_memory(GATE),
				 NONE);
		assert_int_equal(after.gpr[RSP], STACK - 16);
		ASSERT_STACK(8, CODE + (compat ? 7 : 2), cs);
		assert_int_equal(after.seg[SEG_CS].attr & (SEG_L | SEG_DB), SEG_L);
		assert_int_equal(after.seg[SEG_SS].sel, DATA0);
	}
}

static void call_gate_faults(void **state)
{
	(void)state;
	fresh64();
	gate64(CODE0, HANDLER, 0x8c); /* 32-bit code */
	assert_fault(call_through_memory(GATE), VEC_GP, CODE0);
	fresh64();
	gate64(CODE64, HANDLER, 0x8c);
	ram[GDT + GATE + 13] = 0x0c; /* type bits of the second half */
	assert_fault(call_through_memory(GATE), VEC_GP, GATE);
	fresh64();
	gate64(CODE64, HANDLER, 0x8c);
	start.gdt.limit = GATE + 14;
	assert_fault(call_through_memory(GATE), VEC_GP, GATE);
	fresh64();
	gate64(CODE64, HANDLER, 0x0c);
	assert_fault(call_through_memory(GATE), VEC_NP, GATE);
	fresh64();
	gate64(CODE64, UINT64_C(0x800000000000), 0x8c);
	assert_fault(call_through_memory(GATE), VEC_GP, 0);
	/* No 16-bit gates, task gates and tasks. */
	fresh64();
	gate64(CODE64, HANDLER, 0x84);
	assert_fault(call_through_memory(GATE), VEC_GP, GATE);
	gate64(TSS2_SEL, 0, 0x85);
	assert_fault(call_through_memory(GATE), VEC_GP, GATE);
	assert_fault(call_through_memory(TSS2_SEL), VEC_GP, TSS2_SEL);
	/* L and D together. */
	fresh64();
	descriptor(FRESH_CODE, 0, 0xfffff, 0x9b, 0xe);
	assert_fault(call_through_memory(FRESH_CODE), VEC_GP, FRESH_CODE);
}

static void far_jumps_between_the_modes(void **state)
{
	(void)state;
	fresh64();
	put(HANDLER + 0x100, HANDLER, 4);
	put(HANDLER + 0x104, CODE0, 2);
	start.gpr[RBX] = HANDLER + 0x100;
	assert_int_equal(INSN("\xff\x2b"), NONE);
	assert_int_equal(after.rip, HANDLER);
	assert_int_equal(after.seg[SEG_CS].attr, 0xc09b);

	fresh64();
	start.seg[SEG_CS] = segment_of(CODE0);
	assert_int_equal(INSN("\xea\x00\x88\x00\x00\x28\x00"), NONE);
	assert_int_equal(after.rip, HANDLER);
	assert_true(cpu_in_64bit(&after));

	/* A limit counts for compatibility code only. */
	fresh64();
	descriptor(CODE0, 0, 0xfff, 0x9b, 4);
	descriptor(CODE64, 0, 0xfff, 0x9b, 2);
	put(HANDLER + 0x100, HANDLER, 4);
	put(HANDLER + 0x104, CODE0, 2);
	start.gpr[RBX] = HANDLER + 0x100;
	assert_fault(INSN("\xff\x2b"), VEC_GP, 0);
	put(HANDLER + 0x104, CODE64, 2);
	assert_int_equal(INSN("\xff\x2b"), NONE);
}

static void far_returns(void **state)
{
	(void)state;
	/* To compatibility code of ring 3. */
	fresh64();
	start.gpr[RSP] = STACK;
	STACK_HOLDS(8, HANDLER, CODE3 | 3, 0xdead, UINT64_C(0x7700004000), DATA3 | 3);
	assert_int_equal(INSN("\x48\xca\x08\x00"), NONE);
	assert_int_equal(after.rip, HANDLER);
	assert_int_equal(after.gpr[RSP], 0x4008);
	assert_int_equal(cpu_cpl(&after), 3);
	assert_int_equal(after.seg[SEG_DS].sel, 0);
	/* To ring 1, 64-bit, with a null stack: 0 to 2 may. */
	fresh64();
	descriptor(FRESH_CODE, 0, 0xfffff, 0xba, 0xa);
	STACK_HOLDS(8, HANDLER, FRESH_CODE | 1, 0x4000, 1);
	assert_int_equal(INSN("\x48\xcb"), NONE);
	assert_int_equal(cpu_cpl(&after), 1);
	assert_int_equal(after.seg[SEG_SS].sel, 1);
	assert_int_equal(ram[GDT + FRESH_CODE + 5], 0xbb);
	/* To ring 3 it may not be null. */
	fresh64();
	STACK_HOLDS(8, HANDLER, CODE64_3 | 3, 0x4000, 3);
	assert_fault(INSN("\x48\xcb"), VEC_GP, 0);
}

static void iret_of_each_size_pops_the_stack(void **state)
{
	(void)state;
	fresh64();
	start.gpr[RSP] = 0xa000;
	start.rflags |= FLAG_ID | FLAG_AC;
	STACK_HOLDS(4, HANDLER, CODE64, FLAG_R1, 0x7000, DATA0);
	assert_int_equal(INSN("\xcf"), NONE);
	assert_int_equal(after.gpr[RSP], 0x7000);
	assert_int_equal(after.rflags, FLAG_R1);
	fresh64();
	start.rflags |= FLAG_ID | FLAG_AC;
	STACK_HOLDS(2, HANDLER, CODE64, FLAG_R1, 0x7000, DATA0);
	assert_int_equal(INSN("\x66\xcf"), NONE);
	assert_int_equal(after.gpr[RSP], 0x7000);
	assert_int_equal(after.rflags, FLAG_R1 | FLAG_ID | FLAG_AC);
	/* VM means nothing here; NT is an error. */
	fresh64();
	STACK_HOLDS(8, HANDLER, CODE64, FLAG_R1 | FLAG_VM, 0x7000, DATA0);
	assert_int_equal(INSN("\x48\xcf"), NONE);
	assert_int_equal(after.rflags, FLAG_R1);
	start.rflags |= FLAG_NT;
	assert_fault(INSN("\x48\xcf"), VEC_GP, 0);
	/* Compatibility mode pops the stack only for an outer level. */
	fresh64();
	start.seg[SEG_CS] = segment_of(CODE0);
	STACK_HOLDS(4, HANDLER, CODE64, FLAG_R1);
	assert_int_equal(INSN("\xcf"), NONE);
	assert_int_equal(after.gpr[RSP], STACK + 12);
	assert_true(cpu_in_64bit(&after));
}

static void stacks_may_be_null(void **state)
{
	(void)state;
	fresh64();
	assert_int_equal(INSN("\x8e\xd0"), NONE); /* mov %eax, %ss */
	assert_true(after.seg[SEG_SS].attr & SEG_UNUSABLE);
	assert_int_equal(cpu_cpl(&after), 0);
	start.gpr[RAX] = 1;
	assert_fault(INSN("\x8e\xd0"), VEC_GP, 0);
	fresh64();
	ring3_64();
	start.gpr[RAX] = 3;
	assert_fault(INSN("\x8e\xd0"), VEC_GP, 0);
	fresh64();
	start.seg[SEG_CS] = segment_of(CODE0);
	assert_fault(INSN("\x8e\xd0"), VEC_GP, 0);
}

static void system_descriptors_have_16_bytes(void **state)
{
	(void)state;
	fresh64();
	start.gpr[RAX] = TSS2_SEL;
	put(GDT + TSS2_SEL + 8, 0xffff8000, 8);
	assert_int_equal(INSN("\x0f\x00\xd8"), NONE); /* ltr */
	assert_int_equal(after.tr.base, UINT64_C(0xffff800000000000) | TSS2);
	assert_int_equal(after.tr.attr, 0x8b);
	assert_int_equal(ram[GDT + TSS2_SEL + 5], 0x8b);
	assert_fault(INSN("\x0f\x00\xd8"), VEC_GP, TSS2_SEL); /* busy now */
	descriptor(TSS2_SEL, TSS2, 0x67, 0x81, 0);
	assert_fault(INSN("\x0f\x00\xd8"), VEC_GP, TSS2_SEL); /* 16-bit */
	descriptor(TSS2_SEL, TSS2, 0x67, 0x89, 0);
	put(GDT + TSS2_SEL + 8, 0x8000, 8); /* not canonical */
	assert_fault(INSN("\x0f\x00\xd8"), VEC_GP, TSS2_SEL);
	put(GDT + TSS2_SEL + 8, UINT64_C(1) << 40, 8); /* type bits */
	assert_fault(INSN("\x0f\x00\xd8"), VEC_GP, TSS2_SEL);
	descriptor(TSS2_SEL, TSS2, 0x67, 0x82, 0);
	put(GDT + TSS2_SEL + 8, 0x7fff, 8);
	assert_int_equal(INSN("\x0f\x00\xd0"), NONE); /* lldt */
	assert_int_equal(after.ldtr.base, UINT64_C(0x7fff00000000) | TSS2);
	start.gdt.limit = TSS2_SEL + 14;
	assert_fault(INSN("\x0f\x00\xd0"), VEC_GP, TSS2_SEL);
}

static void lar_and_lsl_see_what_the_mode_has(void **state)
{
	/* Types of system descriptors: in legacy mode, in IA-32e mode, and whether LSL does too. */
	static const struct {
		bool legacy, is_long, lsl;
	} want[16] = {
		[1] = {true, false, true},  [2] = {true, true, true},	[3] = {true, false, true},
		[4] = {true, false, false}, [5] = {true, false, false}, [9] = {true, true, true},
		[11] = {true, true, true},  [12] = {true, true, false},
	};

	(void)state;
	for (unsigned type = 0; type < 16; type++) {
		for (unsigned is_long = 0; is_long < 2; is_long++) {
			if (is_long)
				fresh64();
			else
				fresh32();
			bool seen = is_long ? want[type].is_long : want[type].legacy;
			descriptor(GATE, 0, 0x54321, 0xe0 | type, 8);
			start.gpr[RCX] = GATE;
			start.gpr[RAX] = 0x5555;
			start.rflags = FLAG_R1 | (seen ? 0 : FLAG_ZF);
			assert_int_equal(INSN("\x0f\x02\xc1"), NONE); /* lar %ecx, %eax */
			assert_int_equal(!!(after.rflags & FLAG_ZF), seen);
			assert_int_equal(after.gpr[RAX] & 0xf0ff00,
					 seen ? 0x80e000 | type << 8 : 0x5500);
			assert_int_equal(INSN("\x0f\x03\xc1"), NONE); /* lsl */
			assert_int_equal(!!(after.rflags & FLAG_ZF), seen && want[type].lsl);
			assert_int_equal(after.gpr[RAX],
					 seen && want[type].lsl ? 0x54321fff : 0x5555);
		}
	}
}

static void bases_of_fs_and_gs(void **state)
{
	(void)state;
	fresh64();
	start.cr4 |= CR4_FSGSBASE;
	start.seg[SEG_GS].base = 0x1111;
	start.kernel_gs_base = UINT64_C(0xffff800000002222);
	assert_int_equal(INSN("\x0f\x01\xf8"), NONE); /* swapgs */
	assert_int_equal(after.seg[SEG_GS].base, UINT64_C(0xffff800000002222));
	assert_int_equal(after.kernel_gs_base, 0x1111);
	start.gpr[RAX] = UINT64_C(0x800000001234);
	assert_fault(INSN("\xf3\x48\x0f\xae\xd0"), VEC_GP, 0); /* wrfsbase %rax */
	assert_int_equal(INSN("\xf3\x0f\xae\xd0"), NONE);      /* wrfsbase %eax */
	assert_int_equal(after.seg[SEG_FS].base, 0x1234);
	start.cr4 &= ~CR4_FSGSBASE;
	assert_fault(INSN("\xf3\x0f\xae\xd0"), VEC_UD, 0);
	ring3_64();
	assert_fault(INSN("\x0f\x01\xf8"), VEC_GP, 0);
	/* A null selector clears the base; a real one loads 32 bits. */
	fresh64();
	start.seg[SEG_FS].base = UINT64_C(0x123456789abc);
	assert_int_equal(INSN("\x8e\xe0"), NONE);
	assert_int_equal(after.seg[SEG_FS].base, 0);
	start.gpr[RAX] = FRESH_STACK;
	descriptor(FRESH_STACK, 0xfedcba98, 0xfffff, 0x92, 0xc);
	assert_int_equal(INSN("\x8e\xe0"), NONE);
	assert_int_equal(after.seg[SEG_FS].base, 0xfedcba98);
}

static void umip_guards_the_tables(void **state)
{
	static const char *const stores[] = {"\x0f\x00\xc0", "\x0f\x00\xc8", "\x0f\x01\x03",
					     "\x0f\x01\x0b"}; /* sldt, str, sgdt, sidt */

	(void)state;
	for (unsigned n = 0; n < sizeof(stores) / sizeof(stores[0]); n++) {
		fresh64();
		ring3_64();
		start.gpr[RBX] = HANDLER;
		assert_int_equal(insn(stores[n], 3), NONE);
		start.cr4 |= CR4_UMIP;
		assert_fault(insn(stores[n], 3), VEC_GP, 0);
	}
	assert_int_equal(get(HANDLER, 2), 0); /* SIDT's limit, before UMIP was on */
	fresh64();
	start.gpr[RBX] = HANDLER;
	assert_int_equal(INSN("\x0f\x01\x03"), NONE);
	assert_int_equal(get(HANDLER, 2), GDT_LIMIT);
	assert_int_equal(get(HANDLER + 2, 8), GDT);
	put(HANDLER + 2, UINT64_C(0x800000000000), 8);
	assert_int_equal(INSN("\x0f\x01\x13"), VEC_GP); /* lgdt */
	/* A 16-bit operand size loads 24 bits, but stores 32. */
	fresh32();
	start.gpr[RBX] = HANDLER;
	put(HANDLER, 0xfff, 2);
	put(HANDLER + 2, 0x12345678, 4);
	assert_int_equal(INSN("\x66\x0f\x01\x1b"), NONE); /* lidtw */
	assert_int_equal(after.idt.base, 0x345678);
	start.idt.base = 0x12345678;
	assert_int_equal(INSN("\x66\x0f\x01\x0b"), NONE); /* sidtw */
	assert_int_equal(get(HANDLER + 2, 4), 0x12345678);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(call_gate_to_ring0),
		cmocka_unit_test(call_gate_to_the_same_level),
		cmocka_unit_test(call_gate_faults),
		cmocka_unit_test(far_jumps_between_the_modes),
		cmocka_unit_test(far_returns),
		cmocka_unit_test(iret_of_each_size_pops_the_stack),
		cmocka_unit_test(stacks_may_be_null),
		cmocka_unit_test(system_descriptors_have_16_bytes),
		cmocka_unit_test(lar_and_lsl_see_what_the_mode_has),
		cmocka_unit_test(bases_of_fs_and_gs),
		cmocka_unit_test(umip_guards_the_tables),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
