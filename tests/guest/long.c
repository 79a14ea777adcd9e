/* SPDX-License-Identifier: Apache-2.0 */
/* Long mode: modes, gates, canonical addresses, segment bases (Intel SDM volume 3, 3.3-3.5, 5.8, 6.14). */
#include "guest.h"

#define T0 TEST_SEL
#define T1 (TEST_SEL + 8)
#define GATE (TEST_SEL + 16) /* two slots */
#define VEC 0x40
#define NON_CANONICAL 0x0000800000000000ul

u64 word[8] __attribute__((aligned(64)));
static u8 area[4096] __attribute__((aligned(4096)));

SNIP(c64, "int3");
SNIP32(c32,
       "mov $0x12345678, %eax\n.byte 0x40\npush %eax\nint3"); /* 0x40: inc %eax here, REX there */
SNIP16(c16, "mov $0x1234, %ax\npush %ax\nint3");
SNIP32(c32_wrap, "mov $0xfffffff0, %ebx\nmov word+0x10(%ebx), %ecx\nint3");
SNIP32(c32_limit, "movb %fs:16, %al\nint3");
SNIP(c64_limit, "movb %fs:16, %al\nint3");
SNIP32(c32_regs, "mov $1, %ebx\nint3");
SNIP(c64_iret32, "pushq $" STR(UDATA) "+3\npushq $0x7000\npushq $2\npushq $" STR(
			 UCODE32) "+3\npushq $c32\niretq");
SNIP32(c32_ljmp, "ljmp $" STR(UCODE64) "+3, $1f\n.code64\n1: mov $-1, %rax\nint3\n.code32");
SNIP32(c32_ljmp0, "ljmp $" STR(KCODE) ", $1f\n.code64\n1: mov $-1, %rax\nint3\n.code32");

static void modes(void)
{
	struct regs r;

	group("mode");
	regs_init(&r, RING3, c64);
	run(&r);
	check_eq("64-bit ring 3", trap.r.vec << 16 | trap.r.cs, BP << 16 | UCODE64 | 3);
	regs_init(&r, RING3_32, c32);
	r.ax = -1ul;
	run(&r);
	check_eq("compatibility mode, ring 3", trap.r.vec << 16 | trap.r.cs,
		 BP << 16 | UCODE32 | 3);
	check_eq("0x40 is inc there", trap.r.ax, 0x12345679);
	check_eq("push is four bytes", (ulong)user_stack_top - trap.r.sp, 4);
	regs_init(&r, RING0_32, c32);
	run(&r);
	check_eq("compatibility mode, ring 0", trap.r.vec << 16 | trap.r.cs, BP << 16 | KCODE32);
	regs_init(&r, RING3_16, c16);
	gdt_set(T0, 0, 0xffff, 0xfb, 0);
	r.cs = T0 + 3;
	run(&r);
	check_eq("16-bit compatibility mode", trap.r.vec << 16 | (trap.r.ax & 0xffff),
		 BP << 16 | 0x1234);
	check_eq("push is two bytes", trap.r.sp & 0xffff, 0x7efe);
	word[0] = 0x1122334455667788;
	regs_init(&r, RING3_32, c32_wrap);
	run(&r);
	check_eq("addresses wrap at 4 GiB there", trap.r.cx, 0x55667788);
	regs_init(&r, RING3_32, c32_regs);
	r.r15 = 0x123456789abcdef0;
	r.bx = -1ul;
	run(&r);
	check_eq("r15 survives compatibility mode", trap.r.r15, 0x123456789abcdef0);
	check_eq("a 32-bit write clears the high half", trap.r.bx, 1);
	gdt_set(T1, (ulong)area, 15, 0xf3, 4);
	regs_init(&r, RING3_32, c32_limit);
	asm volatile("mov %w0, %%fs" ::"r"(T1 + 3));
	run(&r);
	check_trap("limits hold in compatibility mode", GP, 0, (ulong)c32_limit);
	regs_init(&r, RING3, c64_limit);
	asm volatile("mov %w0, %%fs" ::"r"(T1 + 3));
	run(&r);
	check_trap("limits do not hold in 64-bit mode", BP, 0, 0);
	asm volatile("mov %w0, %%fs" ::"r"(0));
	regs_init(&r, RING0, c64_iret32);
	run(&r);
	check_eq("iretq to compatibility mode", trap.r.vec << 16 | trap.r.cs,
		 BP << 16 | UCODE32 | 3);
	regs_init(&r, RING3_32, c32_ljmp);
	run(&r);
	check_eq("ljmp from compatibility to 64-bit mode", trap.r.ax, -1ul);
	regs_init(&r, RING0_32, c32_ljmp0);
	run(&r);
	check_eq("the same in ring 0", trap.r.ax, -1ul);
	check_mask("EFER: LME and LMA", rdmsr(MSR_EFER), EFER_LME | EFER_LMA, EFER_LME | EFER_LMA);
}

static void far_jump(u16 selector, u32 offset)
{
	struct {
		u32 offset;
		u16 selector;
	} __attribute__((packed)) p = {offset, selector};

	CATCH(asm volatile(HERE "ljmp *%0" ::"m"(p)));
}

static void code_segments(void)
{
	group("code segment");
	gdt_set(T0, 0, 0xfffff, 0x9b, 0xe);
	far_jump(T0, (ulong)c64);
	check_trap("L and D both set", GP, T0, want_ip);
	gdt_set(T0, 0x12345678, 0, 0x9b, 0x2);
	far_jump(T0, (ulong)c64);
	check_trap("base and limit are ignored in 64-bit mode", BP, 0, (ulong)c64 + 1);
	gdt_set(T0, 0, 0xfffff, 0x1b, 0xa);
	far_jump(T0, (ulong)c64);
	check_trap("not present", NP, T0, want_ip);
	far_jump(0, (ulong)c64);
	check_trap("null", GP, 0, want_ip);
	gdt_set(T0, 0, 0xfffff, 0x89, 0);
	gdt[T0 / 8 + 1] = 0;
	far_jump(T0, 0);
	check_trap("jmp to a TSS: no task switches", GP, T0, want_ip);
	gdt[T0 / 8] = 0x85ull << 40 | (u64)TSS_SEL << 16;
	far_jump(T0, 0);
	check_trap("jmp to a task gate", GP, T0, want_ip);
	write_flags(FL_NT | 2);
	FAULT("iretq with NT", GP, 0, "iretq", ::);
	write_flags(2);
}

extern char trap_iret[];

static void data_segments(void)
{
	struct regs r;
	ulong v;

	group("data segment");
	CATCH(asm volatile(
		"mov %w1, %%ds\n\tmov %w1, %%es\n\tmov %w1, %%ss\n\tmov word, %0\n\tpush "
		"%0\n\tpop %0\n\tmov %w2, %%ds\n\tmov %w2, %%es\n\tmov %w2, %%ss"
		: "=&r"(v)
		: "r"(0), "r"(KDATA)));
	check_trap("null ds, es and ss work in ring 0", NOTRAP, 0, 0);
	FAULT("null ss with RPL 3 in ring 0", GP, 0, "mov %w0, %%ss", ::"r"(3));
	gdt_set(T0, 0x1000, 0, 0x93, 4);
	CATCH(asm volatile("mov %w1, %%ds\n\tmov word, %0\n\tmov %w2, %%ds"
			   : "=&r"(v)
			   : "r"(T0), "r"(KDATA)));
	check_eq("base and limit of ds are ignored", trap.r.vec << 8 | (v == word[0]),
		 NOTRAP << 8 | 1);
	gdt_set(T0, 0, 0xfffff, 0x91, 0xc);
	CATCH(asm volatile("mov %w0, %%ds\n\tmov %1, word\n\tmov %w2, %%ds" ::"r"(T0), "r"(v),
			   "r"(KDATA)));
	check_trap("ds may be read-only", NOTRAP, 0, 0);
	gdt_set(T0, 0, 0xfffff, 0x13, 0xc);
	FAULT("ds not present is still #NP", NP, T0, "mov %w0, %%ds", ::"r"(T0));
	FAULT("ss of DPL 3 is still #GP", GP, UDATA, "mov %w0, %%ss", ::"r"(UDATA));
	regs_init(&r, RING3, c64);
	r.ss = 0;
	run(&r);
	check_trap("iretq to ring 3 with null ss", GP, 0, (ulong)trap_iret);
	regs_init(&r, RING3, c64);
	r.ds = KDATA;
	r.es = UDATA + 3;
	run(&r);
	check_eq("iretq outward: ds of DPL 0 becomes null", trap.r.ds, 0);
	check_eq("iretq outward: es of DPL 3 stays", trap.r.es, UDATA + 3);
	regs_init(&r, RING0, c64);
	r.ss = 0;
	run(&r);
	check_trap("iretq to ring 0 with null ss", BP, 0, (ulong)c64 + 1);
}

static void invalid(void)
{
	static const struct {
		const char *name;
		u8 code[4];
	} cases[] = {
		{"push es", {0x06}},	  {"pop es", {0x07}},  {"push cs", {0x0e}},
		{"push ss", {0x16}},	  {"push ds", {0x1e}}, {"daa", {0x27}},
		{"das", {0x2f}},	  {"aaa", {0x37}},     {"aas", {0x3f}},
		{"pusha", {0x60}},	  {"popa", {0x61}},    {"82 /0", {0x82, 0xc0, 1}},
		{"lcall direct", {0x9a}}, {"aam", {0xd4, 10}}, {"aad", {0xd5, 10}},
		{"salc", {0xd6}},	  {"into", {0xce}},    {"ljmp direct", {0xea}},
	};
	static u8 code[16];

	group("invalid in 64-bit mode");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		memset(code, 0x90, sizeof(code));
		memcpy(code, cases[i].code, 4);
		code[8] = code[9] = code[10] = 0xcc;
		CATCH(asm volatile("call *%0" ::"r"(code)));
		check_trap(cases[i].name, UD, 0, (ulong)code);
	}
}

SNIP(u_push, "push %rax\nint3");
SNIP(u_call, "call 1f\n1: int3");

static void canonical(void)
{
	struct regs r;

	group("canonical");
	FAULT("read", GP, 0, "mov (%0), %%al", ::"r"(NON_CANONICAL) : "rax");
	FAULT("write", GP, 0, "mov %%al, (%0)", ::"r"(NON_CANONICAL));
	FAULT("read just below the high half", GP, 0, "mov (%0), %%al", ::"r"(0xffff7ffffffffffful)
	      : "rax");
	FAULT("read that ends beyond the low half", GP, 0, "mov (%0), %%eax",
	      ::"r"(0x00007ffffffffffeul)
	      : "rax");
	CATCH(asm volatile("mov %0, %%rbp\n" HERE "mov (%%rbp), %%al" ::"r"(NON_CANONICAL)
			   : "rax"));
	check_trap("rbp-based read is #SS(0)", SS, 0, want_ip);
	CATCH(asm volatile("mov %0, %%rbp\n" HERE "mov %%ds:(%%rbp), %%al" ::"r"(NON_CANONICAL)
			   : "rax"));
	check_trap("rbp-based read, ds prefix ignored: #SS(0)", SS, 0, want_ip);
	regs_init(&r, RING3, u_push);
	r.sp = NON_CANONICAL + 8;
	run(&r);
	check_trap("push is #SS(0)", SS, 0, (ulong)u_push);
	check_eq("push leaves rsp", trap.r.sp, NON_CANONICAL + 8);
	regs_init(&r, RING3, u_call);
	r.sp = NON_CANONICAL + 16;
	run(&r);
	check_trap("call is #SS(0)", SS, 0, (ulong)u_call);
	FAULT("jmp", GP, 0, "jmp *%0", ::"r"(NON_CANONICAL));
	CATCH(asm volatile("mov %%rsp, %%rbx\n" HERE "call *%0" ::"r"(NON_CANONICAL) : "rbx"));
	check_trap("call", GP, 0, want_ip);
	check_eq("call: nothing pushed", trap.r.bx - trap.r.sp, 0);
	CATCH(asm volatile("push %0\n" HERE "ret" ::"r"(NON_CANONICAL)));
	check_trap("ret", GP, 0, want_ip);
	regs_init(&r, RING3, c64);
	r.ip = NON_CANONICAL;
	run(&r);
	check_trap("iretq", GP, 0, (ulong)trap_iret);
	FAULT("wrmsr FS_BASE", GP, 0, "wrmsr", ::"c"(MSR_FS_BASE), "a"(0), "d"(0x8000));
	FAULT("wrmsr GS_BASE", GP, 0, "wrmsr", ::"c"(MSR_GS_BASE), "a"(0), "d"(0x8000));
	FAULT("wrmsr KERNEL_GS_BASE", GP, 0, "wrmsr", ::"c"(MSR_KERNEL_GS_BASE), "a"(0),
	      "d"(0x8000));
	FAULT("wrmsr LSTAR", GP, 0, "wrmsr", ::"c"(MSR_LSTAR), "a"(0), "d"(0x8000));
	NOFAULT("invlpg does not care", "invlpg (%0)", ::"r"(NON_CANONICAL));
	NOFAULT("prefetch does not care", "prefetcht0 (%0)", ::"r"(NON_CANONICAL));
	NOFAULT("lea does not care", "lea 8(%0), %%rax", ::"r"(NON_CANONICAL) : "rax");
}

ulong handler_sp, handler_ss;
SNIP(note_stack, "mov %rsp, handler_sp\nmovq $0, handler_ss\nmovw %ss, handler_ss\niretq");
SNIP(u_int, "int $" STR(VEC) "\nu_int_next: int3");
SNIP(u_ud, "ud2");
extern char u_int_next[];

static void gates(void)
{
	static u8 ist_stack[512] __attribute__((aligned(16)));
	struct regs r;
	ulong top = (ulong)(ist_stack + sizeof(ist_stack));

	group("gate");
	gate_set(VEC, KCODE, note_stack, 0xee, 0);
	ulong sp;
	asm volatile("mov %%rsp, %0\n\tand $-16, %%rsp\n\tsub $8, %%rsp\n\tint %1\n\tmov %0, %%rsp"
		     : "=&r"(sp)
		     : "i"(VEC)
		     : "memory");
	check_eq("same ring: five words on an aligned stack", handler_sp & 15, 8);
	check_range("same ring: just below", sp - handler_sp, 40, 72);
	regs_init(&r, RING3, u_int);
	run(&r);
	check_eq("from ring 3: rsp0", handler_sp, (ulong)trap_stack_top - 40);
	check_eq("from ring 3: ss is null", handler_ss, 0);
	check_trap("and back", BP, 0, (ulong)u_int_next + 1);
	*(u64 *)(tss + 36 + 8) = top;
	gate_set(VEC, KCODE, note_stack, 0xee, 2);
	asm volatile("int %0" ::"i"(VEC) : "memory");
	check_eq("IST from ring 0", handler_sp, top - 40);
	check_eq("IST from ring 0 keeps ss", handler_ss, KDATA);
	*(u64 *)(tss + 36 + 8) = top - 8;
	asm volatile("int %0" ::"i"(VEC) : "memory");
	check_eq("IST is aligned down to 16", handler_sp, top - 16 - 40);
	*(u64 *)(tss + 36 + 8) = top;
	regs_init(&r, RING3, u_int);
	run(&r);
	check_eq("IST from ring 3", handler_sp, top - 40);
	gate_set(UD, KCODE, trap_stubs + UD * 16, 0x8e, 2);
	regs_init(&r, RING3, u_ud);
	run(&r);
	check_eq("IST for a fault", trap.frame, top - 48);
	gate_reset(UD);

	static const struct {
		const char *name;
		u16 selector;
		u8 type;
		u16 vec, err;
	} cases[] = {
		{"16-bit interrupt gate", KCODE, 0x86, GP, VEC * 8 + 2},
		{"task gate", KCODE, 0x85, GP, VEC * 8 + 2},
		{"call gate type", KCODE, 0x8c, GP, VEC * 8 + 2},
		{"not present", KCODE, 0x0e, NP, VEC * 8 + 2},
		{"32-bit code segment", KCODE32, 0x8e, GP, KCODE32},
		{"null", 0, 0x8e, GP, 0},
		{"data", KDATA, 0x8e, GP, KDATA},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		gate_set(VEC, cases[i].selector, note_stack, cases[i].type, 0);
		FAULT(cases[i].name, cases[i].vec, cases[i].err, "int %0", ::"i"(VEC));
	}
	gate_reset(VEC);
	gate_set(VEC, KCODE, trap_stubs + VEC * 16, 0x8e, 0);
	regs_init(&r, RING3, u_int);
	run(&r);
	check_trap("DPL 0 from ring 3", GP, VEC * 8 + 2, (ulong)u_int);
	*(u32 *)(idt + VEC * 16 + 8) = 0x8000;
	FAULT("handler not canonical", GP, 0, "int %0", ::"i"(VEC));
	idt_load();
	gate_set(GP, KCODE, trap_stubs + GP * 16, 0x0e, 0);
	CATCH(asm volatile("mov (%0), %%al" ::"r"(NON_CANONICAL) : "rax"));
	check_trap("#GP, then #NP: double fault on its IST", DF, 0, 0);
	gate_reset(GP);
}

SNIP(u_lcall, "lcall *u_lcall_pointer\nu_lcall_next: int3\n"
	      "u_lcall_pointer: .long 0xdeadbeef\n.word " STR(GATE) "+3");
SNIP(call_target,
     "mov 0(%rsp), %rax\nmov 8(%rsp), %rbx\nmov 16(%rsp), %rcx\nmov 24(%rsp), %rdx\nint3");
SNIP(call_return, "lretq");
extern char u_lcall_next[];

static void call_gate_set(u32 target, const void *ip, u8 access)
{
	u32 offset = (ulong)ip;

	gdt[GATE / 8] = (offset & 0xffff) | (u64)target << 16 | (u64)access << 40 |
			(u64)(offset >> 16) << 48;
	gdt[GATE / 8 + 1] = (ulong)ip >> 32;
}

static void call_gates(void)
{
	struct regs r;

	group("call gate");
	call_gate_set(KCODE, call_target, 0xec);
	regs_init(&r, RING3, u_lcall);
	run(&r);
	check_eq("ring 3 to 0", trap.r.vec << 16 | trap.r.cs, BP << 16 | KCODE);
	check_eq("four quadwords on rsp0", trap.r.sp, (ulong)trap_stack_top - 32);
	check_eq("rip and cs pushed", trap.r.ax << 16 | trap.r.bx,
		 (ulong)u_lcall_next << 16 | UCODE64 | 3);
	check_eq("rsp and ss pushed", trap.r.cx << 16 | trap.r.dx,
		 (ulong)user_stack_top << 16 | UDATA | 3);
	check_eq("ss is null", trap.r.ss, 0);
	call_gate_set(KCODE, call_return, 0xec);
	regs_init(&r, RING3, u_lcall);
	run(&r);
	check_trap("lretq goes back", BP, 0, (ulong)u_lcall_next + 1);
	call_gate_set(KCODE32, call_target, 0xec);
	regs_init(&r, RING3, u_lcall);
	run(&r);
	check_trap("target not 64-bit", GP, KCODE32, (ulong)u_lcall);
	call_gate_set(KCODE, call_target, 0xe4);
	regs_init(&r, RING3, u_lcall);
	run(&r);
	check_trap("16-bit gate type", GP, GATE, (ulong)u_lcall);
	call_gate_set(KCODE, call_target, 0xec);
	gdt[GATE / 8 + 1] |= 0xcull << 40;
	regs_init(&r, RING3, u_lcall);
	run(&r);
	check_trap("type in the upper half not 0", GP, GATE, (ulong)u_lcall);
	call_gate_set(KCODE, (void *)NON_CANONICAL, 0xec);
	regs_init(&r, RING3, u_lcall);
	run(&r);
	check_trap("target not canonical", GP, 0, (ulong)u_lcall);
	gdt[GATE / 8] = gdt[GATE / 8 + 1] = 0;
}

static void system_descriptors(void)
{
	u32 bad_lar = 0, bad_lsl = 0;
	bool z;
	u32 v;

	group("system descriptor");
	check_eq("ltr made the TSS busy", gdt[TSS_SEL / 8] >> 40 & 0xff, 0x8b);
	gdt_set(T0, (ulong)tss, 103, 0x81, 0);
	gdt[T0 / 8 + 1] = 0;
	FAULT("ltr of a 16-bit TSS", GP, T0, "ltr %w0", ::"r"(T0));
	gdt_set(T0, (ulong)area, 15, 0x82, 0);
	gdt[T0 / 8 + 1] = 0;
	NOFAULT("lldt of a 16-byte descriptor", "lldt %w0", ::"r"(T0));
	asm volatile("lldt %w0" ::"r"(0));
	gdt[T0 / 8 + 1] = 0xffff8000;
	NOFAULT("lldt of a base in the high half", "lldt %w0", ::"r"(T0));
	asm volatile("lldt %w0" ::"r"(0));
	/* Only LDT, TSS and (lar) call gate are left in long mode. */
	for (u32 type = 0; type < 16; type++) {
		gdt_set(T0, 0, 0x123, 0x80 | type, 0);
		gdt[T0 / 8 + 1] = 0;
		asm("lar %w2, %0" : "=r"(v), "=@ccz"(z) : "r"(T0));
		if (z != (type == 2 || type == 9 || type == 11 || type == 12))
			bad_lar |= 1 << type;
		asm("lsl %w2, %0" : "=r"(v), "=@ccz"(z) : "r"(T0));
		if (z != (type == 2 || type == 9 || type == 11))
			bad_lsl |= 1 << type;
	}
	check_eq("lar types (bad ones as a mask)", bad_lar, 0);
	check_eq("lsl types (bad ones as a mask)", bad_lsl, 0);
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) p;
	memset(&p, 0, sizeof(p));
	asm volatile("sidt %0" : "=m"(p));
	check_eq("sidt stores ten bytes", p.base, (ulong)idt);
	check_eq("sidt limit", p.limit, 4095);
}

static void control(void)
{
	group("control");
	FAULT("dr7: high half", GP, 0, "mov %0, %%db7", ::"r"(1ul << 32 | 0x400));
	FAULT("dr6: high half", GP, 0, "mov %0, %%db6", ::"r"(1ul << 32));
	write_cr2(0x123456789abcdef0);
	check_eq("cr2 is 64 bits wide", read_cr2(), 0x123456789abcdef0);
	ulong v;
	asm volatile("mov %1, %%cr8\n\tmov %%cr8, %0" : "=r"(v) : "r"(5ul));
	check_eq("cr8 reads back", v, 5);
	check_eq("cr8 is the local APIC's TPR", apic_read(0x80) & 0xff, 0x50);
	apic_write(0x80, 0x3f);
	asm volatile("mov %%cr8, %0" : "=r"(v));
	check_eq("TPR is cr8", v, 3);
	asm volatile("mov %0, %%cr8" ::"r"(0ul));
	FAULT("cr8: reserved bits", GP, 0, "mov %0, %%cr8", ::"r"(16ul));
}

SNIP(u_rdfsbase, "rdfsbase %rax\nint3");
SNIP(u_wrgsbase, "mov %rax, %rbx\nwrgsbase %rbx\nmov %gs:0, %rcx\nint3");
SNIP32(c32_rdfsbase, ".byte 0xf3, 0x0f, 0xae, 0xc0\nint3");
SNIP(u_swapgs, "swapgs\nint3");
SNIP(u_cr8, "mov %cr8, %rax\nint3");

static void bases(void)
{
	struct regs r;
	ulong v;

	group("base");
	word[1] = 0xfeedface;
	wrmsr(MSR_FS_BASE, (ulong)word);
	asm volatile("mov %%fs:8, %0" : "=r"(v));
	check_eq("FS_BASE", v, 0xfeedface);
	wrmsr(MSR_GS_BASE, (ulong)word - 0x100000000);
	asm volatile("movabs $0x100000008, %%rax\n\tmov %%gs:(%%rax), %0" : "=r"(v)::"rax");
	check_eq("GS_BASE in the high half wraps", v, 0xfeedface);
	asm volatile("mov %1, %%fs\n\tmov %%fs:word+8, %0" : "=r"(v) : "r"(UDATA + 3));
	check_eq("loading fs sets its base from the descriptor", v, 0xfeedface);
	check_eq("FS_BASE shows it", rdmsr(MSR_FS_BASE), 0);
	wrmsr(MSR_GS_BASE, 0x1111);
	wrmsr(MSR_KERNEL_GS_BASE, 0x2222);
	asm volatile("swapgs");
	check_eq("swapgs", rdmsr(MSR_GS_BASE) << 16 | rdmsr(MSR_KERNEL_GS_BASE), 0x22221111);
	regs_init(&r, RING3, u_swapgs);
	run(&r);
	check_trap("swapgs in ring 3", GP, 0, (ulong)u_swapgs);
	regs_init(&r, RING3, u_cr8);
	run(&r);
	check_trap("mov from cr8 in ring 3", GP, 0, (ulong)u_cr8);

	if (!(cpu_features_7_ebx & 1)) {
		skip("fsgsbase", "no FSGSBASE");
		return;
	}
	FAULT("rdfsbase with CR4.FSGSBASE clear", UD, 0, "rdfsbase %%rax", ::: "rax");
	write_cr4(read_cr4() | CR4_FSGSBASE);
	wrmsr(MSR_FS_BASE, 0xffff800012345678);
	regs_init(&r, RING3, u_rdfsbase);
	run(&r);
	check_eq("rdfsbase in ring 3", trap.r.ax, 0xffff800012345678);
	regs_init(&r, RING3, u_wrgsbase);
	r.ax = (ulong)word + 8;
	run(&r);
	check_eq("wrgsbase in ring 3", trap.r.cx, 0xfeedface);
	check_eq("GS_BASE shows it", rdmsr(MSR_GS_BASE), (ulong)word + 8);
	regs_init(&r, RING3, u_wrgsbase);
	r.ax = NON_CANONICAL;
	run(&r);
	check_trap("wrgsbase not canonical", GP, 0, (ulong)u_wrgsbase + 3);
	asm volatile("wrfsbase %k0\n\trdfsbase %0" : "=r"(v) : "0"(-1ul));
	check_eq("wrfsbase with 32 bits clears the high half", v, 0xffffffff);
	regs_init(&r, RING3_32, c32_rdfsbase);
	run(&r);
	check_trap("rdfsbase in compatibility mode", UD, 0, (ulong)c32_rdfsbase);
	write_cr4(read_cr4() & ~(ulong)CR4_FSGSBASE);
	wrmsr(MSR_FS_BASE, 0);
	wrmsr(MSR_GS_BASE, 0);
}

static void instructions(void)
{
	ulong v, w;
	struct {
		u64 lo, hi;
	} pair __attribute__((aligned(16))) = {1, 2};
	bool z;

	group("instruction");
	asm("mov $-1, %0\n\tmov $1, %k0" : "=r"(v));
	check_eq("a 32-bit write clears the high half", v, 1);
	asm("mov $-1, %0\n\tmov $1, %w0" : "=r"(v));
	check_eq("a 16-bit write keeps the rest", v, 0xffffffffffff0001);
	asm("mov $-1, %%rax\n\tmov $0, %%ah\n\tmov %%rax, %0" : "=r"(v)::"rax");
	check_eq("an ah write keeps the rest", v, 0xffffffffffff00ff);
	asm("mov $0x80000000, %k1\n\tmovslq %k1, %0" : "=r"(v), "=&r"(w));
	check_eq("movslq", v, 0xffffffff80000000);
	asm("push $-2\n\tpop %0" : "=r"(v));
	check_eq("push imm8 is sign-extended to 64 bits", v, -2ul);
	asm("mov $-1, %0\n\t.byte 0x67\n\tlea 1(%0), %0" : "=a"(v));
	check_eq("a 32-bit address size truncates", v, 0);
	asm("movabs $0xfeedfacecafebeef, %0" : "=r"(v));
	check_eq("movabs", v, 0xfeedfacecafebeef);
	asm volatile("mov $-1, %%rcx\n\tmov $1, %%ecx\n\tshlq %%cl, %0"
		     : "=r"(v)
		     : "0"(1ul << 62)
		     : "rcx");
	check_eq("shlq", v, 1ul << 63);
	asm volatile("mov $64, %%ecx\n\tshlq %%cl, %0" : "=r"(v) : "0"(3ul) : "rcx");
	check_eq("a 64-bit shift counts modulo 64", v, 3);
	asm volatile("cmovnzl %k2, %k0" : "=r"(v), "=@ccz"(z) : "r"(5), "0"(-1ul));
	check_eq("a 32-bit cmov clears the high half even if false", v >> 32, 0);
	asm volatile("bsfq %1, %0" : "=r"(v) : "r"(1ul << 40));
	check_eq("bsfq", v, 40);
	asm volatile("bswap %0" : "=r"(v) : "0"(0x0102030405060708ul));
	check_eq("bswap", v, 0x0807060504030201);
	FAULT("div with a 128-bit dividend overflows", DE, 0, "divq %0", ::"r"(1ul), "a"(0),
	      "d"(1));
	asm("mul %3" : "=a"(v), "=d"(w) : "a"(-1ul), "r"(-1ul));
	check_eq("mul: high half", w, -2ul);
	if (cpu_features_1_ecx & 1 << 13) {
		u64 a = 1, d = 2;
		asm volatile("lock cmpxchg16b %2"
			     : "=@ccz"(z), "+a"(a), "+m"(pair), "+d"(d)
			     : "b"(3ul), "c"(4ul));
		check_eq("cmpxchg16b swaps", (u64)z << 32 | pair.lo << 16 | pair.hi, 0x100030004);
		asm volatile("lock cmpxchg16b %2"
			     : "=@ccz"(z), "+a"(a), "+m"(pair), "+d"(d)
			     : "b"(5ul), "c"(6ul));
		check_eq("cmpxchg16b loads what it found", (u64)z << 32 | a << 16 | d, 0x30004);
		FAULT("cmpxchg16b misaligned", GP, 0, "cmpxchg16b (%0)", ::"r"(area + 8), "a"(0),
		      "d"(0), "b"(0), "c"(0)
		      : "memory");
	} else {
		skip("cmpxchg16b", "no CMPXCHG16B");
	}
	if (cpu_features_8_edx & 1 << 27) {
		u32 aux;
		wrmsr(0xc0000103, 0x77);
		asm volatile("rdtscp" : "=c"(aux)::"rax", "rdx");
		check_eq("rdtscp gives TSC_AUX", aux, 0x77);
	} else {
		skip("rdtscp gives TSC_AUX", "no RDTSCP");
	}
	u64 before = rdtsc();
	check("rdtsc goes forward", rdtsc() >= before);
}

int main(void)
{
	apic_enable();
	modes();
	code_segments();
	data_segments();
	invalid();
	canonical();
	gates();
	call_gates();
	system_descriptors();
	control();
	bases();
	instructions();
	return 0;
}
