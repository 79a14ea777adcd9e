/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual-8086 mode, VME and PVI (Intel SDM volume 3, 20.2 to 20.4). */
#include "guest.h"

#define VEC 0x42

static struct regs r;

static int go(const char *code, u32 flags)
{
	regs_init(&r, V86, code);
	r.fl |= flags;
	return run(&r);
}

static volatile u16 *low16(u32 address)
{
	asm("" : "+r"(address));
	return (volatile u16 *)address;
}

SNIP16(vm_int3, "int3\nvm_int3_next: nop");
SNIP16(vm_cli, "cli\nint3");
SNIP16(vm_sti, "sti\nint3");
SNIP16(vm_pushf, "pushfw\npop %ax\nint3");
SNIP16(vm_pushfd, "pushfl\npop %eax\nint3");
SNIP16(vm_popf, "pushw $2\nvm_popf_at: popfw\nint3");
SNIP16(vm_popf_all, "pushl $-257\npopfl\npushfl\npop %eax\npushl $2\npopfl\nint3");
SNIP16(vm_iret, "pushw $2\npushw $0\npushw $1f\nvm_iret_at: iretw\n1: int3");
SNIP16(vm_int, "int $" STR(VEC) "\nvm_int_next: int3");
SNIP16(vm_hlt, "hlt\nint3");
SNIP16(vm_cr0, "mov %cr0, %eax\nint3");
SNIP16(vm_clts, "clts\nint3");
SNIP16(vm_lgdt, "lgdt 0x9000\nint3");
SNIP16(vm_lidt, "lidt 0x9000\nint3");
SNIP16(vm_rdmsr, "rdmsr\nint3");
SNIP16(vm_dr, "mov %db7, %eax\nint3");
SNIP16(vm_invd, "invd\nint3");
SNIP16(vm_lmsw, "lmsw %ax\nint3");
SNIP16(vm_arpl, ".byte 0x63, 0xc8\nint3");
SNIP16(vm_sldt, "sldt %ax\nint3");
SNIP16(vm_str, "str %ax\nint3");
SNIP16(vm_lar, "lar %ax, %bx\nint3");
SNIP16(vm_verw, "verw %ax\nint3");
SNIP16(vm_ltr, "ltr %ax\nint3");
SNIP16(vm_smsw, "smsw %ax\nvm_smsw_end: int3");
SNIP16(vm_in, "mov $0x3ff, %dx\nvm_in_at: in %dx, %al\nint3");
SNIP16(vm_inw, "mov $0x3ff, %dx\nvm_inw_at: in %dx, %ax\nint3");
SNIP16(vm_seg, "mov $0x0900, %ax\nmov %ax, %fs\nmov %fs:0x20, %bx\nint3");
SNIP16(vm_beyond, "mov 0xffff, %ax\nint3");
SNIP16(vm_beyond32, "mov $0x10000, %ebx\nvm_beyond32_at: addr32 mov (%ebx), %al\nint3");
SNIP16(vm_far, "ljmp $0x0010, $1f - 0x100\n1: mov %cs, %ax\nint3");
SNIP16(vm_null_ss, "xor %ax, %ax\nmov %ax, %ss\nmov %ax, %ds\nmov 0x9000, %cx\nint3");
SNIP16(vm_cli_sti, "sti\npushfw\npop %bx\ncli\npushfw\npop %cx\nint3");
SNIP16(vm_vme_popf, "pushw $0x202\npopfw\nint3");
SNIP16(vm_vme_popf_tf, "pushw $0x102\nvm_vme_tf_at: popfw\nint3");
SNIP16(vm_vme_int, "sti\nstc\nint $" STR(VEC) "\nvm_vme_int_next: int3");
SNIP16(vm_vme_handler, "mov %sp, %bp\nmov 0(%bp), %ax\nmov 2(%bp), %bx\nmov 4(%bp), %cx\n"
		       "pushfw\npop %dx\niretw");
extern char vm_int3_next[], vm_popf_at[], vm_iret_at[], vm_int_next[], vm_in_at[], vm_inw_at[];
extern char vm_beyond32_at[], vm_vme_tf_at[], vm_vme_int_next[], vm_smsw_end[];

static void entry_and_exit(void)
{
	group("v86");
	regs_init(&r, V86, vm_int3);
	r.ves = 0x111;
	r.vds = 0x222;
	r.vfs = 0x333;
	r.vgs = 0x444;
	run(&r);
	check_trap("iret enters, int3 leaves", BP, 0, (ulong)vm_int3_next);
	check_mask("VM is in the pushed flags", trap.r.fl, FL_VM, FL_VM);
	check_eq("es and ds pushed", trap.r.ves << 16 | trap.r.vds, 0x1110222);
	check_eq("fs and gs pushed", trap.r.vfs << 16 | trap.r.vgs, 0x3330444);
	check_eq("the frame is on esp0", trap.frame, (ulong)trap_stack_top - 40);
	check_eq("data segments are null in the handler",
		 trap.r.ds | trap.r.es | trap.r.fs | trap.r.gs, 0);
	check_mask("VM is clear in the handler", read_flags(), 0, FL_VM);
	regs_init(&r, V86, vm_int3);
	r.cs = 0x10;
	r.ip -= 0x100;
	r.ss = 0x123;
	r.sp = 0x45678;
	run(&r);
	check_eq("cs is any paragraph", trap.r.cs << 16 | trap.r.ip,
		 0x100000 | ((ulong)vm_int3_next - 0x100));
	check_eq("ss and esp pushed", trap.r.ss << 20 | trap.r.sp, 0x12345678);
	gdt_set(TEST_SEL, 0, 0xfffff, 0xbb, 0xc);
	gate_set(VEC, TEST_SEL, trap_stubs + VEC * 16, 0xee, 0);
	go(vm_int, FL_IOPL3);
	check_trap("a gate to ring 1 is #GP(cs)", GP, TEST_SEL, (ulong)vm_int);
	gdt_set(TEST_SEL, 0, 0xfffff, 0x9f, 0xc);
	go(vm_int, FL_IOPL3);
	check_trap("a gate to conforming code is #GP(cs)", GP, TEST_SEL, (ulong)vm_int);
	gate_reset(VEC);
}

static void iopl(void)
{
	static const struct {
		const char *name, *code, *at;
	} sensitive[] = {
		{"cli at IOPL 0", vm_cli, vm_cli},	 {"sti at IOPL 0", vm_sti, vm_sti},
		{"pushf at IOPL 0", vm_pushf, vm_pushf}, {"popf at IOPL 0", vm_popf, vm_popf_at},
		{"iret at IOPL 0", vm_iret, vm_iret_at}, {"int n at IOPL 0", vm_int, vm_int},
	};

	group("iopl");
	gate_set(VEC, KCODE, trap_stubs + VEC * 16, 0xee, 0);
	for (size_t i = 0; i < ARRAY_SIZE(sensitive); i++) {
		go(sensitive[i].code, 0);
		check_trap(sensitive[i].name, GP, 0, (ulong)sensitive[i].at);
	}
	go(vm_sti, FL_IOPL3);
	check_mask("sti at IOPL 3 sets IF", trap.r.fl, FL_IF, FL_IF);
	go(vm_cli, FL_IOPL3 | FL_IF);
	check_mask("cli at IOPL 3 clears IF", trap.r.fl, 0, FL_IF);
	go(vm_pushf, FL_IOPL3);
	check_mask("pushf at IOPL 3", trap.r.ax, FL_IOPL3 | 2, FL_IOPL3 | 2);
	go(vm_pushfd, FL_IOPL3);
	check_mask("32-bit pushf pushes VM as 0", trap.r.ax, 0, FL_VM | FL_RF);
	go(vm_popf_all, FL_IOPL3);
	check_mask("popf cannot change VM or IOPL", trap.r.fl, FL_VM | FL_IOPL3, FL_VM | FL_IOPL3);
	check_mask("32-bit popf sets AC and ID", trap.r.ax, FL_AC | FL_ID, FL_AC | FL_ID);
	go(vm_iret, FL_IOPL3);
	check_mask("iret at IOPL 3 stays, keeps IOPL",
		   trap.r.vec << 20 | (trap.r.fl & (FL_VM | FL_IOPL3)), BP << 20 | FL_VM | FL_IOPL3,
		   0xffffffff);
	go(vm_int, FL_IOPL3);
	check_trap("int n at IOPL 3", VEC, 0, (ulong)vm_int_next);
	gate_reset(VEC);
	go(vm_int, FL_IOPL3);
	check_trap("int n at IOPL 3, gate DPL 0", GP, VEC * 8 + 2, (ulong)vm_int);
}

static void instructions(void)
{
	static const struct {
		const char *name, *code;
		u16 vec;
	} cases[] = {
		{"hlt", vm_hlt, GP},	     {"mov from cr0", vm_cr0, GP}, {"clts", vm_clts, GP},
		{"lgdt", vm_lgdt, GP},	     {"lidt", vm_lidt, GP},	   {"rdmsr", vm_rdmsr, GP},
		{"mov from dr7", vm_dr, GP}, {"invd", vm_invd, GP},	   {"lmsw", vm_lmsw, GP},
		{"arpl", vm_arpl, UD},	     {"sldt", vm_sldt, UD},	   {"str", vm_str, UD},
		{"lar", vm_lar, UD},	     {"verw", vm_verw, UD},	   {"ltr", vm_ltr, UD},
	};

	group("instruction");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		go(cases[i].code, FL_IOPL3);
		check_trap(cases[i].name, cases[i].vec, 0, (ulong)cases[i].code);
	}
	go(vm_smsw, FL_IOPL3);
	check_trap("smsw is allowed", BP, 0, (ulong)vm_smsw_end + 1);
	tss[TSS_IOMAP + 0x3ff / 8] = 0xff;
	go(vm_in, FL_IOPL3);
	check_trap("in looks at the bitmap even at IOPL 3", GP, 0, (ulong)vm_in_at);
	tss[TSS_IOMAP + 0x3ff / 8] = 0x7f;
	outb(0x3ff, 0x3c);
	go(vm_in, 0);
	check_eq("in where the bitmap allows", trap.r.vec << 8 | (trap.r.ax & 0xff),
		 BP << 8 | 0x3c);
	go(vm_inw, 0);
	check_trap("a word needs both bits", GP, 0, (ulong)vm_inw_at);
	tss[TSS_IOMAP + 0x3ff / 8] = 0xff;

	group("memory");
	*low16(0x9020) = 0x9876;
	go(vm_seg, 0);
	check_eq("a segment starts at 16 times its value", trap.r.bx & 0xffff, 0x9876);
	go(vm_beyond, 0);
	check_trap("word at 0xffff is #GP", GP, 0, (ulong)vm_beyond);
	go(vm_beyond32, 0);
	check_trap("32-bit offset beyond 64 KiB is #GP", GP, 0, (ulong)vm_beyond32_at);
	go(vm_far, 0);
	check_eq("far jmp loads any paragraph", trap.r.vec << 16 | trap.r.cs, BP << 16 | 0x10);
	go(vm_null_ss, 0);
	check_eq("selector 0 is usable", trap.r.vec, BP);
}

/* CR4.VME: interrupts of the virtual machine, SDM 3, 20.3. */
static void vme(void)
{
	static u8 big_tss[104 + 32 + 8192 + 1] __attribute__((aligned(16)));

	group("vme");
	if (!(cpu_features_1_edx & 2)) {
		skip("cr4.vme", "no VME");
		return;
	}
	memcpy(big_tss, tss, 104);
	memset(big_tss + 104, 0xff, 32);
	memset(big_tss + 104 + 32, 0xff, 8193);
	big_tss[104 + VEC / 8] &= ~(1 << VEC % 8);
	*(u16 *)(big_tss + 102) = 104 + 32;
	gdt_set(TSS_SEL, (ulong)big_tss, sizeof(big_tss) - 1, 0x89, 0);
	asm volatile("ltr %w0" ::"r"(TSS_SEL));
	write_cr4(read_cr4() | CR4_VME);

	go(vm_sti, 0);
	check_mask("sti sets VIF, not IF", trap.r.fl, FL_VIF, FL_VIF | FL_IF);
	go(vm_cli, FL_VIF | FL_IF);
	check_mask("cli clears VIF, not IF", trap.r.fl, FL_IF, FL_VIF | FL_IF);
	go(vm_sti, FL_VIP);
	check_trap("sti with VIP is #GP", GP, 0, (ulong)vm_sti);
	go(vm_cli_sti, 0);
	check_mask("pushf shows VIF as IF, IOPL as 3", trap.r.bx, FL_IOPL3 | FL_IF,
		   FL_IOPL3 | FL_IF);
	check_mask("and clear after cli", trap.r.cx, FL_IOPL3, FL_IOPL3 | FL_IF);
	go(vm_vme_popf, 0);
	check_mask("popf sets VIF from IF", trap.r.fl, FL_VIF, FL_VIF | FL_IF);
	go(vm_vme_popf, FL_VIP);
	check_trap("popf of IF with VIP is #GP", GP, 0, (ulong)vm_vme_popf + 3);
	go(vm_vme_popf_tf, 0);
	check_trap("popf of TF is #GP", GP, 0, (ulong)vm_vme_tf_at);
	go(vm_pushfd, 0);
	check_trap("32-bit pushf is still #GP", GP, 0, (ulong)vm_pushfd);

	*low16(VEC * 4) = (ulong)vm_vme_handler;
	*low16(VEC * 4 + 2) = 0;
	go(vm_vme_int, 0);
	check_trap("a redirected int n returns by iret", BP, 0, (ulong)vm_vme_int_next + 1);
	check_eq("it pushed ip and cs", (trap.r.bx & 0xffff) << 16 | (trap.r.ax & 0xffff),
		 (ulong)vm_vme_int_next);
	check_mask("it pushed flags with VIF as IF, IOPL 3", trap.r.cx, FL_IOPL3 | FL_IF | FL_CF,
		   FL_IOPL3 | FL_IF | FL_CF);
	check_mask("the handler has VIF clear", trap.r.dx, 0, FL_IF);
	check_mask("iret restored VIF", trap.r.fl, FL_VIF, FL_VIF);
	big_tss[104 + VEC / 8] |= 1 << VEC % 8;
	go(vm_int, 0);
	check_trap("not redirected, IOPL 0: #GP", GP, 0, (ulong)vm_int);
	write_cr4(read_cr4() & ~CR4_VME);
	tss_load();
}

SNIP(pvi_sti, "sti\nint3");
SNIP(pvi_cli, "cli\nint3");

static void pvi(void)
{
	group("pvi");
	if (!(cpu_features_1_edx & 2)) {
		skip("cr4.pvi", "no VME");
		return;
	}
	regs_init(&r, RING3, pvi_sti);
	run(&r);
	check_trap("without it, sti in ring 3 is #GP", GP, 0, (ulong)pvi_sti);
	write_cr4(read_cr4() | CR4_PVI);
	regs_init(&r, RING3, pvi_sti);
	run(&r);
	check_mask("sti sets VIF", trap.r.vec << 24 | (trap.r.fl & (FL_VIF | FL_IF)),
		   BP << 24 | FL_VIF, 0xffffffff);
	regs_init(&r, RING3, pvi_cli);
	r.fl |= FL_VIF | FL_IF;
	run(&r);
	check_mask("cli clears VIF", trap.r.vec << 24 | (trap.r.fl & (FL_VIF | FL_IF)),
		   BP << 24 | FL_IF, 0xffffffff);
	regs_init(&r, RING3, pvi_sti);
	r.fl |= FL_VIP;
	run(&r);
	check_trap("sti with VIP is #GP", GP, 0, (ulong)pvi_sti);
	write_cr4(read_cr4() & ~CR4_PVI);
}

int main(void)
{
	entry_and_exit();
	iopl();
	instructions();
	vme();
	pvi();
	return 0;
}
