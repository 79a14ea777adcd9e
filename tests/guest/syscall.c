/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYSCALL, SYSRET, SYSENTER and SYSEXIT in long mode (Intel SDM volume 2; AMD APM volume 3). The two
 * makers differ: SYSCALL from compatibility mode is AMD's, SYSENTER in long mode is Intel's.
 */
#include "guest.h"

#define STAR_VALUE ((u64)(UCODE32 | 3) << 48 | (u64)KCODE << 32)
#define NON_CANONICAL 0x0000800000000000ul

SNIP(arrive, "arrive_at: int3");
SNIP(arrive_compat, "arrive_compat_at: int3");
SNIP(u_syscall, "syscall\nu_syscall_next: int3");
SNIP32(c_syscall, "syscall\nc_syscall_next: int3");
SNIP(k_sysretq, "sysretq\nint3");
SNIP(k_sysretl, "sysretl\nint3");
SNIP(user_here, "nop\nint3");
SNIP32(user_here32, "mov $0x12345678, %eax\n.byte 0x40\nint3");
SNIP(u_sysenter, "sysenter\nint3");
SNIP32(c_sysenter, "sysenter\nint3");
SNIP(k_sysexit, "sysexit\nint3");
SNIP(k_sysexitq, "rex.w sysexit\nint3");
extern char u_syscall_next[];

static struct regs r;

static void start(enum mode mode, const void *code, u64 flags)
{
	regs_init(&r, mode, code);
	r.fl |= flags;
	run(&r);
}

static void syscall(void)
{
	group("syscall");
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_SCE);
	start(RING3, u_syscall, 0);
	check_trap("SCE clear", UD, 0, (ulong)u_syscall);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	wrmsr(MSR_STAR, STAR_VALUE);
	wrmsr(MSR_LSTAR, (ulong)arrive);
	wrmsr(MSR_CSTAR, (ulong)arrive_compat);
	wrmsr(MSR_FMASK, FL_IF | FL_DF);
	check_eq("STAR reads back", rdmsr(MSR_STAR) >> 32, STAR_VALUE >> 32);
	check_eq("LSTAR reads back", rdmsr(MSR_LSTAR), (ulong)arrive);
	check_eq("FMASK reads back", rdmsr(MSR_FMASK), FL_IF | FL_DF);
	start(RING3, u_syscall, FL_IF | FL_DF | FL_CF);
	check_trap("goes to LSTAR", BP, 0, (ulong)arrive + 1);
	check_eq("cs and ss", trap.r.cs << 16 | trap.r.ss, KCODE << 16 | KDATA);
	check_eq("rcx is the next address", trap.r.cx, (ulong)u_syscall_next);
	check_mask("r11 is the old flags", trap.r.r11, FL_IF | FL_DF | FL_CF,
		   FL_IF | FL_DF | FL_CF | FL_RF);
	check_mask("FMASK's flags are clear, others stay", trap.r.fl, FL_CF, FL_IF | FL_DF | FL_CF);
	check_eq("rsp is untouched", trap.r.sp, (ulong)user_stack_top);
	wrmsr(MSR_STAR, (u64)0x3f8 << 32);
	start(RING3, u_syscall, 0);
	check_eq("cs comes from STAR, not from the GDT", trap.r.cs << 16 | trap.r.ss, 0x3f80400);
	wrmsr(MSR_STAR, STAR_VALUE);
	start(RING0, u_syscall, 0);
	check_trap("from ring 0", BP, 0, (ulong)arrive + 1);
	start(RING3_32, c_syscall, 0);
	if (cpu_is_amd)
		check_trap("from compatibility mode: CSTAR", BP, 0, (ulong)arrive_compat + 1);
	else
		check_trap("from compatibility mode: #UD", UD, 0, (ulong)c_syscall);

	/* TF is looked at after the flags are masked. */
	wrmsr(MSR_FMASK, FL_TF);
	start(RING3, u_syscall, FL_TF);
	check_trap("TF that FMASK clears does not trap", BP, 0, (ulong)arrive + 1);
	wrmsr(MSR_FMASK, 0);
	start(RING3, u_syscall, FL_TF);
	check_trap("TF that stays traps on arrival", DB, 0, (ulong)arrive);
	write_dr6(0);
}

static void sysret(void)
{
	group("sysret");
	regs_init(&r, RING0, k_sysretq);
	r.cx = (ulong)user_here;
	r.r11 = FL_CF | 2;
	run(&r);
	check_trap("sysretq goes to rcx", BP, 0, (ulong)user_here + 2);
	check_eq("64-bit cs and ss of ring 3", trap.r.cs << 16 | trap.r.ss,
		 (u64)(UCODE64 | 3) << 16 | UDATA | 3);
	check_mask("flags from r11", trap.r.fl, FL_CF, FL_CF | FL_IF | FL_ZF);
	regs_init(&r, RING0, k_sysretq);
	r.cx = (ulong)user_here;
	r.r11 = FL_RF | FL_VM | FL_IOPL3 | FL_AC | 2;
	run(&r);
	check_mask("RF and VM are not taken from r11", trap.r.fl, FL_IOPL3 | FL_AC,
		   FL_RF | FL_VM | FL_IOPL3 | FL_AC);
	regs_init(&r, RING0, k_sysretl);
	r.cx = (ulong)user_here32 | 0xffffffff00000000;
	r.r11 = 2;
	run(&r);
	check_eq("sysretl: compatibility mode", trap.r.cs << 16 | trap.r.ss,
		 (u64)(UCODE32 | 3) << 16 | UDATA | 3);
	check_eq("sysretl: 32-bit code runs, rip from ecx", trap.r.ax, 0x12345679);
	wrmsr(MSR_STAR, (u64)0x1f0 << 48);
	regs_init(&r, RING0, k_sysretq);
	r.cx = (ulong)user_here;
	r.r11 = 2;
	run(&r);
	check_eq("RPL 3 is forced, the GDT not asked", trap.r.cs << 16 | trap.r.ss, 0x20301fb);
	wrmsr(MSR_STAR, STAR_VALUE);
	regs_init(&r, RING0, k_sysretq);
	r.cx = (ulong)user_here;
	r.r11 = FL_TF | 2;
	run(&r);
	check_trap("TF traps at once, as if after the syscall", DB, 0, (ulong)user_here);
	check_eq("TF: that is in ring 3", trap.r.cs & 3, 3);
	write_dr6(0);
	start(RING3, k_sysretq, 0);
	check_trap("in ring 3", GP, 0, (ulong)k_sysretq);
	regs_init(&r, RING0, k_sysretq);
	r.cx = NON_CANONICAL;
	r.r11 = 2;
	run(&r);
	if (cpu_is_amd)
		check_eq("rcx not canonical: #GP in ring 3", trap.r.vec << 16 | (trap.r.cs & 3),
			 GP << 16 | 3);
	else
		check_trap("rcx not canonical: #GP in ring 0", GP, 0, (ulong)k_sysretq);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_SCE);
	regs_init(&r, RING0, k_sysretq);
	r.cx = (ulong)user_here;
	run(&r);
	check_trap("SCE clear", UD, 0, (ulong)k_sysretq);
}

static void sysenter(void)
{
	group("sysenter");
	if (!(cpu_features_1_edx & 1 << 11)) {
		skip("sysenter", "no SEP");
		return;
	}
	wrmsr(MSR_SYSENTER_CS, SYSENTER_SEL);
	wrmsr(MSR_SYSENTER_ESP, (ulong)trap_stack_top);
	wrmsr(MSR_SYSENTER_EIP, (ulong)arrive);
	check_eq("SYSENTER_CS reads back", rdmsr(MSR_SYSENTER_CS), SYSENTER_SEL);
	if (cpu_is_amd) {
		start(RING3, u_sysenter, 0);
		check_trap("#UD in 64-bit mode", UD, 0, (ulong)u_sysenter);
		start(RING3_32, c_sysenter, 0);
		check_trap("#UD in compatibility mode", UD, 0, (ulong)c_sysenter);
		start(RING0, k_sysexit, 0);
		check_trap("sysexit is #UD", UD, 0, (ulong)k_sysexit);
		return;
	}
	start(RING3, u_sysenter, FL_IF | FL_CF);
	check_trap("from 64-bit mode", BP, 0, (ulong)arrive + 1);
	check_eq("cs and ss", trap.r.cs << 16 | trap.r.ss, SYSENTER_SEL << 16 | (SYSENTER_SEL + 8));
	check_eq("rsp", trap.r.sp, (ulong)trap_stack_top);
	check_mask("IF is clear, CF stays", trap.r.fl, FL_CF, FL_IF | FL_CF);
	start(RING3_32, c_sysenter, 0);
	check_trap("from compatibility mode", BP, 0, (ulong)arrive + 1);
	wrmsr(MSR_SYSENTER_CS, 0);
	start(RING3, u_sysenter, 0);
	check_trap("null SYSENTER_CS", GP, 0, (ulong)u_sysenter);
	start(RING0, k_sysexit, 0);
	check_trap("sysexit with null SYSENTER_CS", GP, 0, (ulong)k_sysexit);
	wrmsr(MSR_SYSENTER_CS, SYSENTER_SEL);
	regs_init(&r, RING0, k_sysexit);
	r.dx = (ulong)user_here32;
	r.cx = (ulong)user_stack_top;
	run(&r);
	check_eq("sysexit: compatibility mode", trap.r.cs << 16 | trap.r.ss,
		 (SYSENTER_SEL + 16 + 3) << 16 | (SYSENTER_SEL + 24 + 3));
	check_eq("sysexit: 32-bit code runs", trap.r.ax, 0x12345679);
	regs_init(&r, RING0, k_sysexitq);
	r.dx = (ulong)user_here;
	r.cx = (ulong)user_stack_top;
	run(&r);
	check_trap("sysexit with rex.w goes to rdx", BP, 0, (ulong)user_here + 2);
	check_eq("sysexit with rex.w: cs and ss", trap.r.cs << 16 | trap.r.ss,
		 (SYSENTER_SEL + 32 + 3) << 16 | (SYSENTER_SEL + 40 + 3));
	start(RING3, k_sysexit, 0);
	check_trap("sysexit in ring 3", GP, 0, (ulong)k_sysexit);
	FAULT("wrmsr SYSENTER_EIP not canonical", GP, 0, "wrmsr", ::"c"(MSR_SYSENTER_EIP), "a"(0),
	      "d"(0x8000));
	FAULT("wrmsr SYSENTER_ESP not canonical", GP, 0, "wrmsr", ::"c"(MSR_SYSENTER_ESP), "a"(0),
	      "d"(0x8000));
}

int main(void)
{
	syscall();
	sysret();
	sysenter();
	return 0;
}
