/* SPDX-License-Identifier: Apache-2.0 */
/* IRET, and SYSENTER, SYSEXIT and SYSCALL, in 32-bit protected mode (Intel SDM volume 2). */
#include "guest.h"

#define T0 TEST_SEL
#define T1 (TEST_SEL + 8)
#define BEYOND (GDT_SLOTS * 8)

SNIP(there, "int3");
SNIP(nop_there, "nop\nint3");
SNIP16(there16, "int3");

/* IRET from ring 0 with this frame. */
static void iret(u32 ip, u32 cs, u32 flags, u32 sp, u32 ss)
{
	CATCH(asm volatile("pushl %4\n\tpushl %3\n\tpushl %2\n\tpushl %1\n\tpushl %0\n" HERE
			   "iret" ::"g"(ip),
			   "g"(cs), "g"(flags), "g"(sp), "g"(ss)));
}

static void outer(void)
{
	static const struct {
		const char *name;
		u16 cs, ss;
		u8 cs_access, ss_access;
		u16 vec, err;
	} cases[] = {
		{"cs null", 0, UDATA + 3, 0, 0, GP, 0},
		{"cs null with RPL 3", 3, UDATA + 3, 0, 0, GP, 0},
		{"cs is data", T0 + 3, UDATA + 3, 0xf3, 0, GP, T0},
		{"cs is a TSS", T0 + 3, UDATA + 3, 0xe9, 0, GP, T0},
		{"cs not present", T0 + 3, UDATA + 3, 0x7b, 0, NP, T0},
		{"cs DPL is not its RPL", T0 + 3, UDATA + 3, 0x9b, 0, GP, T0},
		{"conforming cs, DPL above RPL", T0 + 1, R1DATA + 1, 0xff, 0, GP, T0},
		{"cs beyond the GDT", BEYOND + 3, UDATA + 3, 0, 0, GP, BEYOND},
		{"ss null", UCODE32 + 3, 0, 0, 0, GP, 0},
		{"ss with another RPL", UCODE32 + 3, UDATA, 0, 0, GP, UDATA},
		{"ss with another DPL", UCODE32 + 3, T1 + 3, 0, 0x93, GP, T1},
		{"ss read-only", UCODE32 + 3, T1 + 3, 0, 0xf1, GP, T1},
		{"ss is code", UCODE32 + 3, T1 + 3, 0, 0xfb, GP, T1},
		{"ss not present", UCODE32 + 3, T1 + 3, 0, 0x73, SS, T1},
		{"ss beyond the GDT", UCODE32 + 3, BEYOND + 3, 0, 0, GP, BEYOND},
		{"ring 3", UCODE32 + 3, UDATA + 3, 0, 0, BP, 0},
		{"ring 3, conforming cs", T0 + 3, UDATA + 3, 0x9f, 0, BP, 0},
		{"ring 1", R1CODE + 1, R1DATA + 1, 0, 0, BP, 0},
		{"ring 2", R2CODE + 2, R2DATA + 2, 0, 0, BP, 0},
	};

	group("iret outward");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		gdt_set(T0, 0, 0xfffff, cases[i].cs_access, 0xc);
		gdt_set(T1, 0, 0xfffff, cases[i].ss_access, 0xc);
		iret((ulong)there, cases[i].cs, 2, (ulong)user_stack_top, cases[i].ss);
		check_trap(cases[i].name, cases[i].vec, cases[i].err,
			   cases[i].vec == BP ? (ulong)there + 1 : want_ip);
	}
	gdt_set(T0, 0, 0xfff, 0xfb, 4);
	iret(0x1000, T0 + 3, 2, (ulong)user_stack_top, UDATA + 3);
	check_trap("eip beyond the limit", GP, 0, want_ip);

	gdt_set(T0, 0, 0xfffff, 0x9b, 0xc);
	CATCH(asm volatile(
		"mov %w0, %%fs\n\tmov %w1, %%gs\n\tmov %w2, %%es\n\tpushl %3\n\tpushl %4\n\t"
		"pushl $2\n\tpushl %5\n\tpushl $there\n\tiret" ::"r"(KDATA),
		"r"(T0), "r"(UDATA + 3), "i"(UDATA + 3), "r"(user_stack_top), "i"(UCODE32 + 3)));
	check_eq("data of DPL 0 becomes null", trap.r.fs, 0);
	check_eq("code of DPL 0 becomes null", trap.r.gs, 0);
	check_eq("data of DPL 3 stays", trap.r.es, UDATA + 3);
	gdt_set(T0, 0, 0xfffff, 0x9f, 0xc);
	CATCH(asm volatile("mov %w0, %%gs\n\tpushl %1\n\tpushl %2\n\tpushl $2\n\tpushl %3\n\tpushl "
			   "$there\n\tiret" ::"r"(T0),
			   "i"(UDATA + 3), "r"(user_stack_top), "i"(UCODE32 + 3)));
	check_eq("conforming code of DPL 0 stays", trap.r.gs, T0);
}

SNIP(r3_iret_inner, "pushl $2\npushl $" STR(KCODE) "\npushl $there\nr3_iret_at: iret");
SNIP(r3_iret_vm, "pushl $0x20002\npushl $" STR(UCODE32) "+3\npushl $1f\niret\n1: int3");
SNIP(r3_iret_same, "pushl $0xcd7\npushl $" STR(UCODE32) "+3\npushl $1f\niret\n1: int3");
SNIP(r1_iret_if, "pushl $0x3202\npushl $" STR(R1CODE) "+1\npushl $1f\niret\n1: int3");
extern char r3_iret_at[];

static void same_ring(void)
{
	struct regs r;

	group("iret");
	iret((ulong)there, KCODE, FL_CF | FL_IOPL3 | FL_AC | 2, 0, 0);
	check_mask("ring 0 loads IOPL and AC", trap.r.fl, FL_CF | FL_IOPL3 | FL_AC,
		   FL_CF | FL_IOPL3 | FL_AC | FL_ZF);
	CATCH(asm volatile(
		"mov %%esp, %%ebx\n\tpushl $2\n\tpushl %0\n\tpushl $there\n\tiret" ::"i"(KCODE)
		: "ebx"));
	check_eq("ring 0 pops three dwords", trap.r.bx - trap.r.sp, 0);
	CATCH(asm volatile(
		"mov %%esp, %%ebx\n\tpushw $2\n\tpushw %0\n\tpushw $there16\n\tiretw" ::"i"(KCODE)
		: "ebx"));
	check_eq("iretw pops three words", trap.r.bx - trap.r.sp, 0);
	check_trap("iretw zero-extends ip", BP, 0, (ulong)there16 + 1);
	iret((ulong)there16, KCODE16, 2, 0, 0);
	check_eq("to 16-bit code", trap.r.vec << 16 | trap.r.cs, BP << 16 | KCODE16);
	iret((ulong)there, KDATA, 2, 0, 0);
	check_trap("cs is data", GP, KDATA, want_ip);
	iret((ulong)there, UCODE32, 2, 0, 0);
	check_trap("cs DPL 3 with RPL 0", GP, UCODE32, want_ip);
	regs_init(&r, RING3, r3_iret_inner);
	run(&r);
	check_trap("to an inner ring", GP, KCODE, (ulong)r3_iret_at);
	check_eq("a failed iret pops nothing", trap.r.sp, (ulong)user_stack_top - 12);
	regs_init(&r, RING3, r3_iret_vm);
	run(&r);
	check_eq("ring 3 cannot set VM", trap.r.vec << 20 | (trap.r.fl & FL_VM), BP << 20);
	regs_init(&r, RING3, r3_iret_same);
	run(&r);
	check_mask("ring 3 loads the status flags and DF", trap.r.fl, 0xcd7, 0xcd7);
	regs_init(&r, RING1, r1_iret_if);
	run(&r);
	check_mask("ring 1, IOPL 0: IF and IOPL stay", trap.r.fl, 0, FL_IF | FL_IOPL3);
	regs_init(&r, RING1, r1_iret_if);
	r.fl |= 0x1000;
	run(&r);
	check_mask("ring 1, IOPL 1: IF loads, IOPL stays", trap.r.fl, FL_IF | 0x1000,
		   FL_IF | FL_IOPL3);
	iret((ulong)nop_there, KCODE, FL_RF | 2, 0, 0);
	check_mask("RF is clear again after an instruction", trap.r.fl, 0, FL_RF);
}

SNIP(r3_sysenter, "sysenter\nint3");
SNIP(r0_sysexit, "sysexit\nint3");
SNIP(r3_syscall, "syscall\nr3_syscall_next: int3");
SNIP(r0_sysret, "sysret\nint3");
extern char r3_syscall_next[];

static void sysenter(void)
{
	struct regs r;

	group("sysenter");
	if (!(cpu_features_1_edx & 1 << 11)) {
		skip("sysenter", "no SEP");
		return;
	}
	wrmsr(MSR_SYSENTER_CS, 0);
	regs_init(&r, RING3, r3_sysenter);
	run(&r);
	check_trap("null SYSENTER_CS", GP, 0, (ulong)r3_sysenter);
	regs_init(&r, RING0, r0_sysexit);
	run(&r);
	check_trap("sysexit: null SYSENTER_CS", GP, 0, (ulong)r0_sysexit);
	wrmsr(MSR_SYSENTER_CS, SYSENTER_SEL);
	wrmsr(MSR_SYSENTER_ESP, (ulong)trap_stack_top - 256);
	wrmsr(MSR_SYSENTER_EIP, (ulong)there);
	regs_init(&r, RING3, r3_sysenter);
	r.fl |= FL_IF | FL_CF;
	run(&r);
	check_trap("goes to SYSENTER_EIP", BP, 0, (ulong)there + 1);
	check_eq("cs and ss", trap.r.cs << 16 | trap.r.ss, SYSENTER_SEL << 16 | (SYSENTER_SEL + 8));
	check_eq("esp", trap.r.sp, (ulong)trap_stack_top - 256);
	check_mask("IF is clear, CF stays", trap.r.fl, FL_CF, FL_IF | FL_CF);
	regs_init(&r, RING0, r0_sysexit);
	r.dx = (ulong)there;
	r.cx = 0x1234;
	run(&r);
	check_trap("sysexit goes to edx", BP, 0, (ulong)there + 1);
	check_eq("sysexit: cs and ss", trap.r.cs << 16 | trap.r.ss,
		 (SYSENTER_SEL + 16 + 3) << 16 | (SYSENTER_SEL + 24 + 3));
	check_eq("sysexit: esp from ecx", trap.r.sp, 0x1234);
	regs_init(&r, RING3, r0_sysexit);
	run(&r);
	check_trap("sysexit in ring 3", GP, 0, (ulong)r0_sysexit);

	group("syscall");
	if (!cpu_is_amd) {
		skip("legacy mode", "Intel has it in 64-bit mode only");
		return;
	}
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	wrmsr(MSR_STAR, (u64)UCODE32 << 48 | (u64)KCODE << 32 | (ulong)there);
	regs_init(&r, RING3, r3_syscall);
	r.fl |= FL_IF;
	run(&r);
	check_trap("goes to STAR's eip", BP, 0, (ulong)there + 1);
	check_eq("cs and ss", trap.r.cs << 16 | trap.r.ss, KCODE << 16 | KDATA);
	check_eq("ecx is the next address", trap.r.cx, (ulong)r3_syscall_next);
	check_mask("IF is clear", trap.r.fl, 0, FL_IF);
	regs_init(&r, RING0, r0_sysret);
	r.cx = (ulong)there;
	run(&r);
	check_eq("sysret: cs and ss", trap.r.cs << 16 | trap.r.ss, (UCODE32 | 3) << 16 | UDATA | 3);
	check_mask("sysret: IF is set", trap.r.fl, FL_IF, FL_IF);
	regs_init(&r, RING3, r0_sysret);
	run(&r);
	check_trap("sysret in ring 3", GP, 0, (ulong)r0_sysret);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_SCE);
}

int main(void)
{
	same_ring();
	outer();
	sysenter();
	return 0;
}
