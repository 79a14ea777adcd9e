/* SPDX-License-Identifier: Apache-2.0 */
/* Exceptions, their priorities and what ring 3 may not do (Intel SDM volume 3, chapter 6). */
#include "guest.h"

u32 word[4] __attribute__((aligned(16)));

static void faults(void)
{
	static const u32 bounds[2] = {10, 20};

	group("fault");
	FAULT("div by zero", DE, 0, "divl %0", ::"r"(0), "a"(1), "d"(0));
	FAULT("div overflow", DE, 0, "divl %0", ::"r"(1), "a"(0), "d"(1));
	FAULT("idiv overflow", DE, 0, "idivl %0", ::"r"(-1), "a"(0x80000000), "d"(-1));
	FAULT("byte div overflow", DE, 0, "divb %b0", ::"q"(1), "a"(0x100));
	check_eq("a divide error leaves eax", trap.r.ax, 0x100);
	FAULT("aam 0", DE, 0, ".byte 0xd4, 0", ::);
	FAULT("bound below", BR, 0, "bound %0, %1", ::"r"(9), "m"(bounds));
	FAULT("bound above", BR, 0, "bound %0, %1", ::"r"(21), "m"(bounds));
	NOFAULT("bound at the upper bound", "bound %0, %1", ::"r"(20), "m"(bounds));
	FAULT("ud2", UD, 0, "ud2", ::);
	FAULT("ud1", UD, 0, ".byte 0x0f, 0xb9, 0xc0", ::);
	FAULT("ud0", UD, 0, ".byte 0x0f, 0xff, 0xc0", ::);
	FAULT("0f 04", UD, 0, ".byte 0x0f, 0x04", ::);
	FAULT("0f 0a", UD, 0, ".byte 0x0f, 0x0a", ::);
	FAULT("fe /2", UD, 0, ".byte 0xfe, 0xd0", ::);
	FAULT("ff /7", UD, 0, ".byte 0xff, 0xf8", ::);
	FAULT("c6 /1", UD, 0, ".byte 0xc6, 0xc8, 0", ::);
	FAULT("8f /1", UD, 0, ".byte 0x8f, 0xc8", ::);
	FAULT("lea of a register", UD, 0, ".byte 0x8d, 0xc0", ::);
	FAULT("cmpxchg8b of a register", UD, 0, ".byte 0x0f, 0xc7, 0xc8", ::);
	FAULT("invlpg of a register", UD, 0, ".byte 0x0f, 0x01, 0xff", ::);
	FAULT("mov from cr1", UD, 0, ".byte 0x0f, 0x20, 0xc8", ::);
	FAULT("mov from cr5", UD, 0, ".byte 0x0f, 0x20, 0xe8", ::);
	FAULT("syscall outside long mode or with SCE clear", UD, 0, "syscall", ::);
	FAULT("16 bytes of prefixes", GP, 0, ".fill 15, 1, 0x3e\n\tnop", ::);
	NOFAULT("15 bytes", ".fill 14, 1, 0x3e\n\tnop", ::);
	NOFAULT("multi-byte nop with a memory operand", "nopl 0xffffff00", ::);
	extern char exc_int3[];
	CATCH(asm volatile(".globl exc_int3\nint3\nexc_int3:" ::));
	check_trap("int3 reports the next instruction", BP, 0, (ulong)exc_int3);
	CATCH(asm volatile(".byte 0xcd, 3\n.globl exc_int_3\nexc_int_3:" ::));
	extern char exc_int_3[];
	check_trap("int 3 (two bytes) too", BP, 0, (ulong)exc_int_3);
}

static void locks(void)
{
	static const struct {
		const char *name;
		u8 code[8];
	} bad[] = {
		{"mov", {0x89, 0x01}},
		{"mov moffs", {0xa3, 0, 0, 0, 0}},
		{"add to a register", {0x01, 0xc8}},
		{"add from memory", {0x03, 0x01}},
		{"cmp", {0x39, 0x01}},
		{"test", {0x85, 0x01}},
		{"bt", {0x0f, 0xa3, 0x01}},
		{"inc of a register", {0xff, 0xc0}},
		{"push", {0x50}},
		{"nop", {0x90}},
		{"xadd to a register", {0x0f, 0xc1, 0xc8}},
		{"shl", {0xd1, 0x21}},
		{"lea", {0x8d, 0x01}},
		{"movs", {0xa5}},
		{"jmp", {0xeb, 0x00}},
	};
	static const struct {
		const char *name;
		u8 code[8];
	} good[] = {
		{"add", {0x01, 0x01}},
		{"sub imm8", {0x83, 0x29, 1}},
		{"adc", {0x11, 0x01}},
		{"xor byte", {0x30, 0x01}},
		{"inc", {0xff, 0x01}},
		{"neg", {0xf7, 0x19}},
		{"not", {0xf7, 0x11}},
		{"xchg", {0x87, 0x01}},
		{"xadd", {0x0f, 0xc1, 0x01}},
		{"cmpxchg", {0x0f, 0xb1, 0x01}},
		{"bts", {0x0f, 0xab, 0x01}},
		{"btr imm", {0x0f, 0xba, 0x31, 1}},
		{"cmpxchg8b", {0x0f, 0xc7, 0x09}},
	};
	static u8 code[32];

	group("lock");
	for (size_t i = 0; i < ARRAY_SIZE(bad) + ARRAY_SIZE(good); i++) {
		bool fine = i >= ARRAY_SIZE(bad);
		size_t j = i - ARRAY_SIZE(bad);

		code[0] = 0xf0;
		memset(code + 1, 0x90, 16);
		memcpy(code + 1, fine ? good[j].code : bad[i].code, 8);
		/* The tables fill up with zeros; those become NOPs and then the INT3. */
		for (int k = 8; k > 1 && !code[k]; k--)
			code[k] = 0x90;
		if (!fine && bad[i].code[0] == 0xa3)
			memset(code + 2, 0, 4);
		if (!fine && bad[i].code[0] == 0xeb)
			code[2] = 0;
		code[20] = 0xcc;
		memset(code + 9, 0x90, 11);
		CATCH(asm volatile("mov $1, %%eax\n\tmov $0, %%edx\n\tmov $word, %%ecx\n\tmov $1, "
				   "%%ebx\n\tpush %%esi\n\tpush %%edi\n\tmov %%ecx, %%esi\n\tmov "
				   "%%ecx, %%edi\n\tjmp *%0" ::"m"((u32){(ulong)code})
				   : "eax", "ecx", "edx", "ebx", "esi", "edi"));
		char name[40] = "lock ";
		const char *what = fine ? good[j].name : bad[i].name;
		memcpy(name + 5, what, strlen(what) + 1);
		memcpy(name + strlen(name), fine ? " runs" : " is #UD", 8);
		if (fine)
			check_trap(name, BP, 0, (ulong)code + 21);
		else
			check_trap(name, UD, 0, (ulong)code);
	}
}

/* Which of two faults wins. */
SNIP(r3_lock_hlt, ".byte 0xf0\nhlt");
SNIP(r3_long_hlt, ".fill 15, 1, 0x3e\nhlt");
SNIP(r3_lldt_bad, "mov $0x1f0, %eax\nr3_lldt_at: lldt %ax");
SNIP(r3_ltr, "xor %eax, %eax\nr3_ltr_at: ltr %ax");

static void priorities(void)
{
	struct regs r;

	extern char r3_lldt_at[], r3_ltr_at[];

	group("priority");
	regs_init(&r, RING3, r3_lock_hlt);
	run(&r);
	check_trap("lock hlt in ring 3: #UD before #GP", UD, 0, (ulong)r3_lock_hlt);
	regs_init(&r, RING3, r3_long_hlt);
	run(&r);
	check_trap("too long and privileged: #GP(0)", GP, 0, (ulong)r3_long_hlt);
	regs_init(&r, RING3, r3_lldt_bad);
	run(&r);
	check_trap("lldt in ring 3: #GP(0), not the selector", GP, 0, (ulong)r3_lldt_at);
	regs_init(&r, RING3, r3_ltr);
	run(&r);
	check_trap("ltr in ring 3: #GP(0)", GP, 0, (ulong)r3_ltr_at);
	write_cr0(read_cr0() | CR0_TS);
	FAULT("invalid fpu encoding with TS: #UD or #NM", trap.r.vec == UD ? UD : NM, 0,
	      ".byte 0xd9, 0xd1", ::);
	write_cr0(read_cr0() & ~CR0_TS);
}

#define PRIVILEGED(X)                                                                              \
	X(hlt, "hlt")                                                                              \
	X(clts, "clts")                                                                            \
	X(mov_from_cr0, "mov %cr0, %eax")                                                          \
	X(mov_to_cr0, "mov %eax, %cr0")                                                            \
	X(mov_from_cr3, "mov %cr3, %eax")                                                          \
	X(mov_from_cr4, "mov %cr4, %eax")                                                          \
	X(mov_from_dr7, "mov %db7, %eax")                                                          \
	X(mov_to_dr0, "mov %eax, %db0")                                                            \
	X(lgdt, "lgdt word")                                                                       \
	X(lidt, "lidt word")                                                                       \
	X(lmsw, "lmsw %ax")                                                                        \
	X(invlpg, "invlpg word")                                                                   \
	X(wbinvd, "wbinvd")                                                                        \
	X(invd, "invd")                                                                            \
	X(rdmsr, "rdmsr")                                                                          \
	X(wrmsr, "wrmsr")                                                                          \
	X(cli, "cli")                                                                              \
	X(sti, "sti")                                                                              \
	X(in_imm, "inb $0x61, %al")                                                                \
	X(out_dx, "outb %al, %dx")                                                                 \
	X(insb, "insb")                                                                            \
	X(outsb, "outsb")

#define X(name, code) SNIP(priv_##name, code "\nint3");
PRIVILEGED(X)
#undef X

static void privileged(void)
{
	static const struct {
		const char *name, *code;
	} cases[] = {
#define X(name, code) {code, priv_##name},
		PRIVILEGED(X)
#undef X
	};
	struct regs r;

	group("privileged in ring 3");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		regs_init(&r, RING3, cases[i].code);
		r.di = r.si = (ulong)word;
		run(&r);
		check_trap(cases[i].name, GP, 0, (ulong)cases[i].code);
	}
	regs_init(&r, RING2, priv_hlt);
	run(&r);
	check_trap("hlt in ring 2", GP, 0, (ulong)priv_hlt);
	regs_init(&r, RING1, priv_clts);
	run(&r);
	check_trap("clts in ring 1", GP, 0, (ulong)priv_clts);
	regs_init(&r, RING1, priv_cli);
	r.fl |= 0x1000;
	run(&r);
	check_trap("cli in ring 1 with IOPL 1", BP, 0, 0);
	regs_init(&r, RING2, priv_cli);
	r.fl |= 0x1000;
	run(&r);
	check_trap("cli in ring 2 with IOPL 1", GP, 0, (ulong)priv_cli);
}

SNIP(r3_popf, "push $0x3202\npopf\npushf\npop %eax\nint3");
SNIP(r3_popf_clear, "push $2\npopf\npushf\npop %eax\nint3");
SNIP(r3_iret_iopl,
     "pushl $0x3202\npush $" STR(UCODE32) "+3\npush $1f\niret\n1: pushf\npop %eax\nint3");
SNIP(r3_sgdt, "sgdt word\nsidt word\nsldt %eax\nstr %ebx\nsmsw %ecx\nr3_sgdt_end: int3");
SNIP(r3_rdtsc, "rdtsc\nint3");
SNIP(r3_in, "mov $0x3ff, %edx\nr3_in_at: inb %dx, %al\nint3");
SNIP(r3_inw, "mov $0x3fe, %edx\nr3_inw_at: inw %dx, %ax\nint3");
SNIP(r3_inl_end, "mov $0xfffd, %edx\nr3_inl_end_at: inl %dx, %eax\nint3");
SNIP(r3_rdpmc, "xor %ecx, %ecx\nr3_rdpmc_at: rdpmc\nint3");
extern char r3_in_at[], r3_inw_at[], r3_sgdt_end[], r3_inl_end_at[], r3_rdpmc_at[];

static void ring3_rights(void)
{
	struct regs r;

	group("ring 3");
	regs_init(&r, RING3, r3_popf);
	run(&r);
	check_mask("popf does not set IF or IOPL", trap.r.ax, 0, FL_IF | FL_IOPL3);
	regs_init(&r, RING3, r3_popf_clear);
	r.fl |= FL_IF;
	run(&r);
	check_mask("popf does not clear IF", trap.r.ax, FL_IF, FL_IF);
	regs_init(&r, RING3, r3_popf_clear);
	r.fl |= FL_IF | FL_IOPL3;
	run(&r);
	check_mask("with IOPL 3 popf clears IF, keeps IOPL", trap.r.ax, FL_IOPL3, FL_IF | FL_IOPL3);
	regs_init(&r, RING3, r3_iret_iopl);
	run(&r);
	check_mask("iret does not set IF or IOPL", trap.r.ax, 0, FL_IF | FL_IOPL3);
	regs_init(&r, RING3, r3_sgdt);
	run(&r);
	check_trap("sgdt, sidt, sldt, str and smsw are allowed", BP, 0, (ulong)r3_sgdt_end + 1);
	check_eq("str gives the selector", trap.r.bx & 0xffff, TSS_SEL);
	regs_init(&r, RING3, r3_rdtsc);
	run(&r);
	check_trap("rdtsc is allowed", BP, 0, (ulong)r3_rdtsc + 3);
	write_cr4(read_cr4() | CR4_TSD);
	regs_init(&r, RING3, r3_rdtsc);
	run(&r);
	check_trap("rdtsc with CR4.TSD", GP, 0, (ulong)r3_rdtsc);
	write_cr4(read_cr4() & ~CR4_TSD);
	regs_init(&r, RING3, r3_rdpmc);
	run(&r);
	check_trap("rdpmc with CR4.PCE clear", GP, 0, (ulong)r3_rdpmc_at);

	group("i/o bitmap");
	u8 *map = tss + TSS_IOMAP;
	map[0x3f8 / 8] = 0x7f;
	regs_init(&r, RING3, r3_in);
	run(&r);
	check_trap("bit clear: allowed", BP, 0, 0);
	regs_init(&r, RING3, r3_inw);
	run(&r);
	check_trap("word with one bit set: #GP", GP, 0, (ulong)r3_inw_at);
	map[0x3f8 / 8] = 0x3f;
	regs_init(&r, RING3, r3_inw);
	run(&r);
	check_trap("word with both clear: allowed", BP, 0, 0);
	map[0x3f8 / 8] = 0xff;
	regs_init(&r, RING3, r3_in);
	r.fl |= FL_IOPL3;
	run(&r);
	check_trap("IOPL 3 needs no bitmap", BP, 0, 0);
	gdt_set(TSS_SEL, (ulong)tss, TSS_IOMAP + 0x3f8 / 8, 0x89, 0);
	asm volatile("ltr %w0" ::"r"(TSS_SEL));
	map[0x3f8 / 8] = 0;
	regs_init(&r, RING3, r3_in);
	run(&r);
	check_trap("the second byte beyond the TSS limit: #GP", GP, 0, (ulong)r3_in_at);
	gdt_set(TSS_SEL, (ulong)tss, TSS_IOMAP + 0x3f8 / 8 + 1, 0x89, 0);
	asm volatile("ltr %w0" ::"r"(TSS_SEL));
	regs_init(&r, RING3, r3_in);
	run(&r);
	check_trap("two bytes within the limit: allowed", BP, 0, 0);
	tss_load();
	memset(map + 8190, 0, 2);
	regs_init(&r, RING3, r3_inl_end);
	run(&r);
	check_trap("0xfffd, four bytes, looks at the byte after the map: #GP", GP, 0,
		   (ulong)r3_inl_end_at);
	tss_load();
}

/* Alignment checking: ring 3, CR0.AM, EFLAGS.AC. */
SNIP(ac_read, "movl word+1, %eax\nint3");
SNIP(ac_word, "movw word+1, %ax\nint3");
SNIP(ac_dword2, "movl word+2, %eax\nint3");
SNIP(ac_byte, "movb word+1, %al\nint3");
SNIP(ac_write, "movl %eax, word+3\nint3");
SNIP(ac_push, "mov $user_stack_top-2, %esp\nac_push_at: push %eax\nint3");
SNIP(ac_aligned, "movl word+4, %eax\nint3");
extern char ac_push_at[];

static int ac_run(const char *code, u32 flags)
{
	struct regs r;

	regs_init(&r, RING3, code);
	r.fl |= flags;
	return run(&r);
}

static void alignment(void)
{
	group("alignment");
	ac_run(ac_read, FL_AC);
	check_trap("AM clear: none", BP, 0, 0);
	write_cr0(read_cr0() | CR0_AM);
	ac_run(ac_read, 0);
	check_trap("AC clear: none", BP, 0, 0);
	ac_run(ac_read, FL_AC);
	check_trap("dword at 1", AC, 0, (ulong)ac_read);
	ac_run(ac_word, FL_AC);
	check_trap("word at 1", AC, 0, (ulong)ac_word);
	ac_run(ac_dword2, FL_AC);
	check_trap("dword at 2", AC, 0, (ulong)ac_dword2);
	ac_run(ac_byte, FL_AC);
	check_trap("byte at 1: none", BP, 0, 0);
	ac_run(ac_write, FL_AC);
	check_trap("write at 3", AC, 0, (ulong)ac_write);
	ac_run(ac_push, FL_AC);
	check_trap("push", AC, 0, (ulong)ac_push_at);
	ac_run(ac_aligned, FL_AC);
	check_trap("aligned: none", BP, 0, 0);
	CATCH(asm volatile("pushf\n\torl %0, (%%esp)\n\tpopf\n\tmovl word+1, %%eax" ::"i"(FL_AC)
			   : "eax"));
	write_flags(2);
	check_trap("ring 0: none", NOTRAP, 0, 0);
	write_cr0(read_cr0() & ~CR0_AM);
}

/* Table 6-5: which pairs become a double fault. */
SNIP(df_frame, "int3");

static void double_faults(void)
{
	struct regs r;

	group("double fault");
	gate_set(GP, KCODE, trap_stubs + GP * 16, 0x0e, 0);
	CATCH(asm volatile("mov %w0, %%fs" ::"r"(0x1f8)));
	check_trap("#GP, then #NP for its gate", DF, 0, 0);
	gate_reset(GP);
	gate_set(DE, KCODE, trap_stubs, 0x0e, 0);
	CATCH(asm volatile("div %0" ::"r"(0), "a"(0), "d"(0)));
	check_trap("#DE, then #NP for its gate", DF, 0, 0);
	gate_reset(DE);
	gate_set(UD, 0, trap_stubs, 0x8e, 0);
	FAULT("#UD, then #GP for its selector: serial", GP, 1, "ud2", ::);
	gate_reset(UD);
	gate_set(BP, KCODE, trap_stubs + BP * 16, 0x6e, 0);
	FAULT("#BP, then #NP for its gate: serial", NP, BP * 8 + 2, "int3", ::);
	gate_reset(BP);
	gate_set(NP, KCODE, trap_stubs + NP * 16, 0x0e, 0);
	gdt_set(TEST_SEL, 0, 0, 0x13, 4);
	CATCH(asm volatile("mov %w0, %%fs" ::"r"(TEST_SEL)));
	check_trap("#NP, then #NP for its gate", DF, 0, 0);
	gate_reset(NP);
	gate_set(0x40, KCODE, trap_stubs, 0x0e, 0);
	FAULT("int n, then #NP: serial", NP, 0x40 * 8 + 2, "int $0x40", ::);
	gate_reset(0x40);
	/* From ring 3, the handler's stack is bad: #TS in the delivery of #GP. A task takes it. */
	static u32 df_tss[26], df_stack[64];
	memset(df_tss, 0, sizeof(df_tss));
	df_tss[7] = read_cr3();
	df_tss[8] = (ulong)df_frame;
	df_tss[9] = 2;
	df_tss[14] = (ulong)(df_stack + 64);
	df_tss[18] = df_tss[20] = df_tss[21] = KDATA;
	df_tss[19] = KCODE;
	df_tss[25] = 104 << 16;
	gdt_set(TEST_SEL, (ulong)df_tss, 103, 0x89, 0);
	gate_set(DF, TEST_SEL, NULL, 0x85, 0);
	*(u32 *)(tss + 8) = 0;
	regs_init(&r, RING3, priv_hlt);
	run(&r);
	check_eq("#GP, then #TS for the stack: task gate taken", trap.r.vec << 16 | trap.r.sp,
		 BP << 16 | (u32)(ulong)(df_stack + 63));
	check_eq("its error code is 0", *(u32 *)trap.r.sp, 0);
	check_eq("its back link", df_tss[0] & 0xffff, TSS_SEL);
	gate_reset(DF);
	tss_load();
}

static void control_registers(void)
{
	ulong cr4 = read_cr4();

	group("control");
	/* Identity-mapped and undone at once, so that a CPU that takes it survives. */
	static u32 directory[1024] __attribute__((aligned(4096)));
	for (u32 i = 0; i < 1024; i++)
		directory[i] = i << 22 | PTE_P | PTE_W | PTE_PS;
	write_cr3((ulong)directory);
	write_cr4(cr4 | CR4_PSE);
	FAULT("cr0: PG without PE", GP, 0, "mov %0, %%cr0\n\tmov %1, %%cr0",
	      ::"r"((read_cr0() | CR0_PG) & ~CR0_PE), "r"(read_cr0()));
	write_cr4(cr4);
	FAULT("cr0: NW without CD", GP, 0, "mov %0, %%cr0", ::"r"(read_cr0() | CR0_NW));
	write_cr0(read_cr0() & ~CR0_ET);
	check_mask("cr0.ET reads 1", read_cr0(), CR0_ET, CR0_ET);
	asm volatile("lmsw %w0" ::"r"(0));
	check_mask("lmsw cannot clear PE", read_cr0(), CR0_PE, CR0_PE);
	asm volatile("lmsw %w0" ::"r"(CR0_PE | CR0_TS | CR0_NE | 0x8000));
	check_mask("lmsw sets only the low four", read_cr0(), CR0_TS, CR0_TS | CR0_NE | 0x8000);
	asm volatile("clts");
	check_mask("clts", read_cr0(), 0, CR0_TS);
	FAULT("rdmsr of an unknown register", GP, 0, "rdmsr", ::"c"(0x3fffffff) : "eax", "edx");
	FAULT("wrmsr of an unknown register", GP, 0, "wrmsr", ::"c"(0x3fffffff), "a"(0), "d"(0));
	FAULT("wrmsr EFER: a reserved bit", GP, 0, "wrmsr", ::"c"(MSR_EFER), "a"(1 << 1), "d"(0));
	check_eq("PAT at power-up", rdmsr(MSR_PAT), 0x0007040600070406);
	FAULT("wrmsr PAT: type 2", GP, 0, "wrmsr", ::"c"(MSR_PAT), "a"(0x02060606), "d"(0));
	FAULT("wrmsr PAT: a high bit", GP, 0, "wrmsr", ::"c"(MSR_PAT), "a"(0x00070406),
	      "d"(0x80070406));
	wrmsr(MSR_PAT, 0x0007040600070406);
	FAULT("wrmsr APIC_BASE: a reserved bit", GP, 0, "wrmsr", ::"c"(MSR_APIC_BASE),
	      "a"((u32)rdmsr(MSR_APIC_BASE) | 1), "d"(0));
	if (cpu_features_1_ecx & 1 << 26)
		FAULT("xsetbv with OSXSAVE clear is #UD", UD, 0, "xsetbv", ::"a"(1), "c"(0),
		      "d"(0));
	else
		skip("xsetbv with OSXSAVE clear is #UD", "no XSAVE");
	/* The ID and AC flags can be changed: this is no 386 or 486. */
	write_flags(FL_ID | FL_AC | 2);
	check_mask("flags: ID and AC can be set", read_flags(), FL_ID | FL_AC, FL_ID | FL_AC);
	write_flags(2);
	check_mask("flags: and cleared", read_flags(), 0, FL_ID | FL_AC);
	asm volatile("pushl $0x10002\n\tpopf");
	check_mask("flags: pushf shows RF clear", read_flags(), 0, FL_RF);
}

int main(void)
{
	faults();
	locks();
	priorities();
	privileged();
	ring3_rights();
	alignment();
	double_faults();
	control_registers();
	return 0;
}
