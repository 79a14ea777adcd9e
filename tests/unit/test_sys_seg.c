/* SPDX-License-Identifier: Apache-2.0 */
/* Segments, fast system calls and port rights of the reference engine: the vendors' differences and
 * the edges that guest programs do not reach. */
#include "far_machine.h"

/* ---- vendors ---- */

static void syscall_by_vendor(void **state)
{
	(void)state;
	/* Out of compatibility mode: AMD only, to CSTAR. */
	for (unsigned is_amd = 0; is_amd < 2; is_amd++) {
		fresh64();
		ring3_32();
		amd(is_amd);
		start.star = (uint64_t)CODE64 << 32;
		start.cstar = HANDLER;
		start.lstar = HANDLER + 0x100;
		start.sfmask = FLAG_IF;
		start.rflags |= FLAG_IF;
		if (!is_amd) {
			assert_fault(INSN("\x0f\x05"), VEC_UD, 0);
			continue;
		}
		assert_int_equal(INSN("\x0f\x05"), NONE);
		assert_int_equal(after.rip, HANDLER);
		assert_int_equal(after.gpr[RCX], CODE + 2);
		assert_int_equal(after.gpr[R11], FLAG_IF | FLAG_R1);
		assert_int_equal(after.rflags, FLAG_R1);
		assert_int_equal(after.seg[SEG_CS].attr, 0xa09b);
		assert_int_equal(after.seg[SEG_SS].sel, CODE64 + 8);
		assert_int_equal(cpu_cpl(&after), 0);
	}
	/* SYSENTER in long mode: Intel only. */
	for (unsigned is_amd = 0; is_amd < 2; is_amd++) {
		fresh64();
		ring3_64();
		amd(is_amd);
		start.sysenter_cs = CODE0;
		start.sysenter_eip = HANDLER;
		start.sysenter_esp = STACK0;
		if (is_amd) {
			assert_fault(INSN("\x0f\x34"), VEC_UD, 0);
			continue;
		}
		assert_int_equal(INSN("\x0f\x34"), NONE);
		assert_int_equal(after.rip, HANDLER);
		assert_int_equal(after.gpr[RSP], STACK0);
		assert_int_equal(after.seg[SEG_CS].attr, 0xa09b);
	}
}

static void sysret_by_vendor(void **state)
{
	(void)state;
	for (unsigned is_amd = 0; is_amd < 2; is_amd++) {
		fresh64();
		amd(is_amd);
		start.star = (uint64_t)CODE3 << 48;
		start.gpr[RCX] = UINT64_C(0x800000000000);
		start.gpr[R11] = FLAG_IF | FLAG_RF | FLAG_VM | FLAG_IOPL;
		start.seg[SEG_SS] = (struct segment){.sel = 0, .attr = SEG_UNUSABLE};
		if (!is_amd) {
			assert_fault(INSN("\x48\x0f\x07"), VEC_GP, 0);
			start.gpr[RCX] = HANDLER;
		}
		assert_int_equal(INSN("\x48\x0f\x07"), NONE);
		assert_int_equal(after.rip, start.gpr[RCX]);
		assert_int_equal(after.rflags, FLAG_IF | FLAG_IOPL | FLAG_R1);
		assert_int_equal(after.seg[SEG_CS].sel, (CODE3 + 16) | 3);
		assert_int_equal(after.seg[SEG_CS].attr, 0xa0fb);
		assert_int_equal(after.seg[SEG_SS].sel, (CODE3 + 8) | 3);
		assert_int_equal(!!(after.seg[SEG_SS].attr & SEG_UNUSABLE), is_amd);
		assert_int_equal(cpu_cpl(&after), 3);
	}
	/* AMD then faults at the fetch, in ring 3. */
	fresh64();
	ring3_64();
	amd(true);
	start.rip = UINT64_C(0x800000000000);
	assert_int_equal(go(), VEC_GP);
	assert_int_equal(after.rip, start.rip);
	assert_int_equal(cpu_cpl(&after), 3);
}

static void push_of_a_selector_by_vendor(void **state)
{
	(void)state;
	for (unsigned is_amd = 0; is_amd < 2; is_amd++) {
		fresh32();
		amd(is_amd);
		put(STACK - 4, 0xffffffff, 4);
		assert_int_equal(INSN("\x1e"), NONE);
		assert_int_equal(after.gpr[RSP], STACK - 4);
		ASSERT_STACK(4, is_amd ? DATA0 : 0xffff0000 | DATA0);
	}
	/* Far pointers with 64-bit offsets are Intel's. */
	for (unsigned is_amd = 0; is_amd < 2; is_amd++) {
		fresh64();
		amd(is_amd);
		put(HANDLER, UINT64_C(0x0010000012345678), 8);
		put(HANDLER + 8, DATA0, 2);
		start.gpr[RBX] = HANDLER;
		put(HANDLER + 4, is_amd ? DATA0 : 0x7fff, 2);
		assert_int_equal(INSN("\x48\x0f\xb4\x03"), NONE); /* lfs (%rbx), %rax */
		assert_int_equal(after.gpr[RAX],
				 is_amd ? 0x12345678 : UINT64_C(0x00107fff12345678));
		assert_int_equal(after.seg[SEG_FS].sel, DATA0);
	}
}

/* ---- ports ---- */

static void port_bitmap_edges(void **state)
{
	static const struct {
		uint32_t limit;
		uint16_t map;
		uint8_t access;
		uint16_t port;
		bool allowed;
	} cases[] = {
		{0x69, 0x68, 0x8b, 0, true},
		{0x68, 0x68, 0x8b, 0, false}, /* two bytes are read */
		{0x69, 0x68, 0x8b, 7, true},
		{0x69, 0x68, 0x8b, 8, false},
		{0x69, 0xffff, 0x8b, 0, false},
		{0x69, 0x68, 0x83, 0, false},	    /* a 16-bit TSS */
		{0xffff, 0x68, 0x8b, 0x100, false}, /* its bit is set */
		{0xffff, 0x68, 0x8b, 0xff, true},
	};

	(void)state;
	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		struct exit e = {0};
		fresh32();
		ring3_32();
		start.tr.limit = cases[n].limit;
		start.tr.attr = cases[n].access;
		put(TSS + 0x66, cases[n].map, 2);
		ram[TSS + 0x68 + 0x100 / 8] = 1;
		start.gpr[RDX] = cases[n].port;
		if (!cases[n].allowed) {
			assert_fault(INSN("\xec"), VEC_GP, 0);
			continue;
		}
		ram[CODE] = 0xec;
		assert_int_equal(vcpu->ops->set_state(vcpu, &start, NULL), 0);
		vcpu->ops->run(vcpu, &e);
		assert_int_equal(e.cause, EXIT_PIO_IN);
		assert_int_equal(e.pio.port, cases[n].port);
	}
}

static void ports_have_breakpoints(void **state)
{
	/* Port and length of DR0, port accessed (4 bytes), hit. */
	static const struct {
		uint16_t at;
		unsigned len;
		uint16_t port;
		bool hit;
	} cases[] = {
		{0x100, 0, 0x100, true},  {0x103, 0, 0x100, true},  {0x104, 0, 0x100, false},
		{0x0ff, 0, 0x100, false}, {0x0fe, 1, 0x100, false}, {0x0fd, 3, 0x0ff, true},
	};

	(void)state;
	for (unsigned n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
		for (unsigned de = 0; de < 2; de++) {
			struct exit e = {0};
			fresh32();
			start.cr4 = de ? CR4_DE : 0;
			start.dr[0] = cases[n].at;
			start.dr7 = 0x400 | 2 | 2u << 16 | cases[n].len << 18;
			start.gpr[RDX] = cases[n].port;
			memcpy(ram + CODE, "\xef\xf4", 2); /* out %eax, %dx; hlt */
			assert_int_equal(vcpu->ops->set_state(vcpu, &start, NULL), 0);
			first_event = NONE;
			vcpu->ops->run(vcpu, &e);
			assert_int_equal(e.cause, EXIT_PIO_OUT);
			assert_int_equal(first_event, NONE); /* the access comes first */
			vcpu->ops->run(vcpu, &e);
			vcpu->ops->get_state(vcpu, &after);
			assert_int_equal(first_event, de && cases[n].hit ? VEC_DB : NONE);
			assert_int_equal(after.dr6 & 15, de && cases[n].hit);
			if (de && cases[n].hit)
				assert_int_equal(after.rip, CODE + 1);
		}
	}
}

/* ---- segments ---- */

static void real_mode_keeps_limits(void **state)
{
	(void)state;
	fresh32();
	start.cr0 &= ~CR0_PE;
	start.seg[SEG_CS] = (struct segment){.sel = 0, .attr = 0x93, .limit = 0xffff};
	start.gpr[RAX] = 0x1234;
	assert_int_equal(INSN("\x8e\xd8"), NONE); /* mov %ax, %ds */
	assert_int_equal(after.seg[SEG_DS].base, 0x12340);
	assert_int_equal(after.seg[SEG_DS].limit, UINT32_MAX);
	assert_int_equal(after.seg[SEG_DS].attr & SEG_DB, SEG_DB);
	start.seg[SEG_DS] = (struct segment){.attr = SEG_UNUSABLE};
	assert_int_equal(INSN("\x8e\xd8"), NONE);
	assert_int_equal(after.seg[SEG_DS].limit, 0xffff);
	assert_int_equal(after.seg[SEG_DS].attr, 0x93);
}

static void loads_set_accessed_and_shadow(void **state)
{
	(void)state;
	fresh32();
	start.gpr[RAX] = FRESH_STACK;
	assert_int_equal(INSN("\x8e\xd0"), NONE); /* mov %eax, %ss */
	assert_int_equal(ram[GDT + FRESH_STACK + 5], 0x93);
	assert_int_equal(after.shadow, SHADOW_MOV_SS);
	assert_int_equal(after.seg[SEG_SS].attr, 0xc093);
	/* A read-only GDT page: the write is a supervisor's, whatever the CPL; nothing is loaded. */
	fresh64();
	ring3_64();
	put(PML4 + 0x2000, (PML4 + 0x3000) | 0x67, 8);
	for (uint32_t page = 0; page < 512; page++)
		put(PML4 + 0x3000 + 8 * page, page << 12 | (page == GDT >> 12 ? 0x61 : 0x67), 8);
	descriptor(FRESH_STACK, 0, 0xfffff, 0xf2, 0xc);
	start.cr0 |= CR0_WP;
	start.gpr[RAX] = FRESH_STACK | 3;
	assert_fault(INSN("\x8e\xd0"), VEC_PF, 3);
	assert_int_equal(after.cr2, GDT + FRESH_STACK + 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(syscall_by_vendor),
		cmocka_unit_test(sysret_by_vendor),
		cmocka_unit_test(push_of_a_selector_by_vendor),
		cmocka_unit_test(port_bitmap_edges),
		cmocka_unit_test(ports_have_breakpoints),
		cmocka_unit_test(real_mode_keeps_limits),
		cmocka_unit_test(loads_set_accessed_and_shadow),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
