/* SPDX-License-Identifier: Apache-2.0 */
/* Segmentation in 32-bit protected mode (Intel SDM volume 3, chapters 3 and 5). */
#include "guest.h"

#define T0 TEST_SEL
#define T1 (TEST_SEL + 8)
#define T2 (TEST_SEL + 16)
#define BEYOND (GDT_SLOTS * 8)

static u8 area[8192] __attribute__((aligned(4096)));
static u32 ldt[16] __attribute__((aligned(8)));

/* Descriptor loads into a data segment register, ring 0. */
static void data_loads(void)
{
	static const struct {
		const char *name;
		u16 selector;
		u8 access, flags;
		u16 vec, err;
	} cases[] = {
		{"null selector loads", 0, 0, 0, NOTRAP, 0},
		{"null selector with RPL 3 loads", 3, 0, 0, NOTRAP, 0},
		{"writable data", T0, 0x93, 4, NOTRAP, 0},
		{"read-only data", T0, 0x91, 4, NOTRAP, 0},
		{"expand-down data", T0, 0x97, 4, NOTRAP, 0},
		{"readable code", T0, 0x9b, 4, NOTRAP, 0},
		{"readable conforming code", T0, 0x9f, 4, NOTRAP, 0},
		{"execute-only code", T0, 0x99, 4, GP, T0},
		{"system descriptor", T0, 0x82, 4, GP, T0},
		{"all-zero descriptor", T0, 0, 0, GP, T0},
		{"data not present", T0, 0x13, 4, NP, T0},
		{"type is checked before present", T0, 0x19, 4, GP, T0},
		{"RPL 3 to DPL 0", T0 + 3, 0x93, 4, GP, T0},
		{"RPL 3 to DPL 3", T0 + 3, 0xf3, 4, NOTRAP, 0},
		{"RPL 3 to conforming code DPL 0", T0 + 3, 0x9f, 4, NOTRAP, 0},
		{"RPL 3 to non-conforming code DPL 0", T0 + 3, 0x9b, 4, GP, T0},
		{"beyond the GDT limit", BEYOND, 0, 0, GP, BEYOND},
		{"LDT selector without an LDT", T0 + 4, 0x93, 4, GP, T0 + 4},
	};

	group("load data");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		gdt_set(T0, 0, 0xfffff, cases[i].access, 8 | cases[i].flags);
		CATCH(asm volatile(HERE "mov %w0, %%fs" ::"r"(cases[i].selector)));
		check_trap(cases[i].name, cases[i].vec, cases[i].err, want_ip);
	}
}

static void stack_loads(void)
{
	static const struct {
		const char *name;
		u16 selector;
		u8 access;
		u16 vec, err;
	} cases[] = {
		{"null selector", 0, 0, GP, 0},
		{"null selector with RPL 3", 3, 0, GP, 0},
		{"RPL 3 in ring 0", T0 + 3, 0x93, GP, T0},
		{"DPL 3 in ring 0", T0, 0xf3, GP, T0},
		{"read-only data", T0, 0x91, GP, T0},
		{"readable code", T0, 0x9b, GP, T0},
		{"system descriptor", T0, 0x89, GP, T0},
		{"not present is #SS", T0, 0x13, SS, T0},
		{"beyond the GDT limit", BEYOND, 0, GP, BEYOND},
		{"flat writable data", T0, 0x93, NOTRAP, 0},
	};

	group("load ss");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		gdt_set(T0, 0, 0xfffff, cases[i].access, 0xc);
		CATCH(asm volatile(HERE "mov %w0, %%ss\n\tmov %w1, %%ss" ::"r"(cases[i].selector),
				   "r"(KDATA)));
		check_trap(cases[i].name, cases[i].vec, cases[i].err, want_ip);
	}
	FAULT("mov to cs is #UD", UD, 0, ".byte 0x8e, 0xc8", ::"a"(KCODE));
	FAULT("mov to segment register 6 is #UD", UD, 0, ".byte 0x8e, 0xf0", ::"a"(KDATA));
}

static void accessed_bit(void)
{
	group("accessed");
	gdt_set(T0, 0, 0xfffff, 0x92, 0xc);
	asm volatile("mov %w0, %%fs" ::"r"(T0));
	check_eq("load sets the bit", gdt[T0 / 8] >> 40 & 0xff, 0x93);
	gdt_set(T0, 0, 0xfffff, 0x12, 0xc);
	CATCH(asm volatile("mov %w0, %%fs" ::"r"(T0)));
	check_eq("a failed load does not set it", gdt[T0 / 8] >> 40 & 0xff, 0x12);
	gdt_set(T0, (ulong)area, 15, 0x93, 4);
	asm volatile("mov %w0, %%fs" ::"r"(T0));
	gdt_set(T0, 0, 0, 0, 0);
	area[3] = 0x5a;
	u32 got;
	asm volatile("movzbl %%fs:3, %0" : "=r"(got));
	check_eq("the hidden part outlives the descriptor", got, 0x5a);
}

#define LOAD_FS(selector) asm volatile("mov %w0, %%fs" ::"r"(selector))

static void limits(void)
{
	group("limit");
	gdt_set(T0, (ulong)area, 15, 0x93, 4);
	LOAD_FS(T0);
	NOFAULT("byte at the limit", "movb %%fs:15, %%al", ::: "eax");
	LOAD_FS(T0);
	FAULT("byte above the limit", GP, 0, "movb %%fs:16, %%al", ::: "eax");
	LOAD_FS(T0);
	NOFAULT("dword ending at the limit", "movl %%fs:12, %%eax", ::: "eax");
	LOAD_FS(T0);
	FAULT("dword across the limit", GP, 0, "movl %%fs:13, %%eax", ::: "eax");
	LOAD_FS(T0);
	FAULT("write across the limit", GP, 0, "movw %%ax, %%fs:15", ::);
	LOAD_FS(T0);
	FAULT("dword at 0xfffffffe", GP, 0, "movl %%fs:0xfffffffe, %%eax", ::: "eax");
	gdt_set(T0, (ulong)area, 0, 0x93, 0xc);
	LOAD_FS(T0);
	NOFAULT("page granularity: last byte", "movb %%fs:0xfff, %%al", ::: "eax");
	LOAD_FS(T0);
	FAULT("page granularity: first byte beyond", GP, 0, "movb %%fs:0x1000, %%al", ::: "eax");

	group("expand-down");
	gdt_set(T0, (ulong)area, 15, 0x97, 0);
	LOAD_FS(T0);
	FAULT("at the limit", GP, 0, "movb %%fs:15, %%al", ::: "eax");
	LOAD_FS(T0);
	NOFAULT("above the limit", "movb %%fs:16, %%al", ::: "eax");
	LOAD_FS(T0);
	FAULT("dword starting at the limit", GP, 0, "movl %%fs:15, %%eax", ::: "eax");
	LOAD_FS(T0);
	FAULT("B=0: above 0xffff", GP, 0, "movb %%fs:0x10000, %%al", ::: "eax");
	LOAD_FS(T0);
	FAULT("B=0: word across 0xffff", GP, 0, "movw %%fs:0xffff, %%ax", ::: "eax");
	gdt_set(T0, (ulong)area, 15, 0x97, 4);
	LOAD_FS(T0);
	NOFAULT("B=1: above 0xffff", "movb %%fs:0x10000, %%al", ::: "eax");
}

static void rights(void)
{
	group("rights");
	gdt_set(T0, (ulong)area, 15, 0x91, 4);
	LOAD_FS(T0);
	FAULT("write to read-only data", GP, 0, "movb %%al, %%fs:0", ::);
	LOAD_FS(T0);
	NOFAULT("read from read-only data", "movb %%fs:0, %%al", ::: "eax");
	FAULT("write through cs", GP, 0, "movb %%al, %%cs:area", ::);
	NOFAULT("read through readable cs", "movb %%cs:area, %%al", ::: "eax");
	LOAD_FS(0);
	FAULT("read through a null selector", GP, 0, "movb %%fs:0, %%al", ::: "eax");
	LOAD_FS(0);
	FAULT("write through a null selector", GP, 0, "movb %%al, %%fs:0", ::);
	gdt_set(T1, 0, 0xfffff, 0x99, 0xc);
	CATCH(asm volatile("ljmp %0, $1f\n1:" HERE
			   "movb %%cs:area, %%al\n\tljmp %1, $2f\n2:" ::"i"(T1),
			   "i"(KCODE)
			   : "eax"));
	check_trap("read through execute-only cs", GP, 0, want_ip);

	group("stack limit");
	gdt_set(T0, (ulong)area, 0xff, 0x93, 4);
	CATCH(asm volatile("mov %%esp, %%ebx\n\tmov %w0, %%ss\n\tmov $0x80, %%esp\n\t"
			   "movl %%ss:0xfc, %%eax\n\tmov %w1, %%ss\n\tmov %%ebx, %%esp" ::"r"(T0),
			   "r"(KDATA)
			   : "eax", "ebx"));
	check_trap("read at the limit", NOTRAP, 0, 0);
}

/* A fault on a bad stack needs another stack: ring 3 faults into ring 0's. */
SNIP(r3_ss_beyond, "movl %ss:0xfd, %eax\nint3");
SNIP(r3_push_beyond, "mov $0x104, %esp\nr3_push_at: push %eax\nint3");
SNIP(r3_bp_beyond, "mov $0x100, %ebp\nr3_bp_at: movl (%ebp), %eax\nint3");
SNIP(r3_pop_beyond, "mov $0x100, %esp\nr3_pop_at: pop %eax\nint3");
SNIP(r3_push_wrap, "mov $0x12345678, %eax\nmov $2, %esp\npushw %ax\npushw %ax\nint3");
SNIP(r3_call_beyond, "mov $2, %esp\nr3_call_at: call 1f\n1: int3");
SNIP(r3_enter_beyond, "mov $8, %esp\nr3_enter_at: enter $0, $3\nint3");
extern char r3_push_at[], r3_bp_at[], r3_pop_at[], r3_call_at[], r3_enter_at[];

static void stack_limits(void)
{
	struct regs r;

	gdt_set(T0, (ulong)area, 0xff, 0xf3, 4);
	static const struct {
		const char *name;
		char *code, *at;
	} cases[] = {
		{"read across the limit is #SS(0)", r3_ss_beyond, r3_ss_beyond},
		{"push beyond is #SS(0)", r3_push_beyond, r3_push_at},
		{"ebp-based read beyond is #SS(0)", r3_bp_beyond, r3_bp_at},
		{"pop beyond is #SS(0)", r3_pop_beyond, r3_pop_at},
		{"call without room is #SS(0)", r3_call_beyond, r3_call_at},
		{"enter without room is #SS(0)", r3_enter_beyond, r3_enter_at},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		regs_init(&r, RING3, cases[i].code);
		r.ss = T0 + 3;
		r.sp = 0x80;
		run(&r);
		check_trap(cases[i].name, SS, 0, (ulong)cases[i].at);
	}
	check_eq("a failed enter leaves esp", trap.r.sp, 8);

	gdt_set(T0, (ulong)user_stack_top - 0x10000 - 64, 0xffff, 0xf3, 0);
	regs_init(&r, RING3, r3_push_wrap);
	r.ss = T0 + 3;
	r.ax = 0;
	run(&r);
	check_eq("a 16-bit stack wraps in sp", trap.r.sp & 0xffff, 0xfffe);
	check_eq("the word is at the top", *(u16 *)(user_stack_top - 64 - 2), 0x5678);
}

static bool lar(u16 selector, u32 *v)
{
	bool z;

	*v = 0xabcdef;
	asm("lar %w2, %0" : "+r"(*v), "=@ccz"(z) : "r"((u32)selector));
	return z;
}

static bool lsl(u16 selector, u32 *v)
{
	bool z;

	*v = 0xabcdef;
	asm("lsl %w2, %0" : "+r"(*v), "=@ccz"(z) : "r"((u32)selector));
	return z;
}

static bool verr(u16 selector)
{
	bool z;

	asm("verr %w1" : "=@ccz"(z) : "r"(selector));
	return z;
}

static bool verw(u16 selector)
{
	bool z;

	asm("verw %w1" : "=@ccz"(z) : "r"(selector));
	return z;
}

static void lar_lsl(void)
{
	static const struct {
		u8 type;
		bool lar, lsl;
	} system[] = {{1, 1, 1},  {2, 1, 1},  {3, 1, 1},  {4, 1, 0},  {5, 1, 0},  {6, 0, 0},
		      {7, 0, 0},  {8, 0, 0},  {9, 1, 1},  {10, 0, 0}, {11, 1, 1}, {12, 1, 0},
		      {13, 0, 0}, {14, 0, 0}, {15, 0, 0}, {0, 0, 0}};
	u32 v, bad = 0;

	group("lar");
	gdt_set(T0, 0x11223344, 0x12345, 0x93, 0xd);
	check("data descriptor is valid", lar(T0, &v));
	/* The limit's high nibble is undefined on Intel, returned by all. */
	check_mask("access bytes", v, 0xd09300, 0xfff0ff00);
	check("null selector is invalid", !lar(0, &v));
	check_eq("an invalid one leaves the register", v, 0xabcdef);
	check("beyond the limit is invalid", !lar(BEYOND, &v));
	check("RPL above DPL is invalid", !lar(T0 + 3, &v));
	gdt_set(T0, 0, 0, 0x9f, 4);
	check("conforming code at any RPL", lar(T0 + 3, &v));
	gdt_set(T0, 0, 0, 0x13, 4);
	check("not present is still valid", lar(T0, &v));
	for (size_t i = 0; i < ARRAY_SIZE(system); i++) {
		gdt_set(T0, 0, 0, 0x80 | system[i].type, 0);
		if (lar(T0, &v) != system[i].lar)
			bad |= 1 << system[i].type;
	}
	check_eq("system types (bad ones as a mask)", bad, 0);

	group("lsl");
	gdt_set(T0, 0, 0x12345, 0x93, 4);
	check("data descriptor is valid", lsl(T0, &v));
	check_eq("byte granularity", v, 0x12345);
	gdt_set(T0, 0, 0x12345, 0x93, 0xc);
	lsl(T0, &v);
	check_eq("page granularity fills the low 12 bits", v, 0x12345fff);
	check("RPL above DPL is invalid", !lsl(T0 + 3, &v));
	check_eq("an invalid one leaves the register", v, 0xabcdef);
	bad = 0;
	for (size_t i = 0; i < ARRAY_SIZE(system); i++) {
		gdt_set(T0, 0, 0, 0x80 | system[i].type, 0);
		if (lsl(T0, &v) != system[i].lsl)
			bad |= 1 << system[i].type;
	}
	check_eq("system types (bad ones as a mask)", bad, 0);
	asm volatile("mov $0x1234abcd, %%eax\n\tlsl %w1, %%ax" : "=&a"(v) : "r"(KDATA16));
	check_eq("16-bit operand keeps the high half", v, 0x1234ffff);
}

static void verr_verw(void)
{
	static const struct {
		const char *name;
		u16 selector;
		u8 access;
		bool r, w;
	} cases[] = {
		{"writable data", T0, 0x93, 1, 1},
		{"read-only data", T0, 0x91, 1, 0},
		{"readable code", T0, 0x9b, 1, 0},
		{"execute-only code", T0, 0x99, 0, 0},
		{"TSS", T0, 0x89, 0, 0},
		{"data, RPL 3 to DPL 0", T0 + 3, 0x93, 0, 0},
		{"conforming readable code, RPL 3 to DPL 0", T0 + 3, 0x9f, 1, 0},
		{"data not present", T0, 0x13, 1, 1},
		{"null", 0, 0, 0, 0},
		{"beyond the limit", BEYOND, 0, 0, 0},
	};

	group("verr/verw");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		gdt_set(T0, 0, 0xfffff, cases[i].access, 0xc);
		check_eq(cases[i].name, verr(cases[i].selector) << 1 | verw(cases[i].selector),
			 cases[i].r << 1 | cases[i].w);
	}
}

static void arpl(void)
{
	u32 to, z;

	group("arpl");
	to = 0xaaaa0010;
	asm("arpl %w2, %w0\n\tsetz %b1\n\tmovzbl %b1, %1" : "+r"(to), "=q"(z) : "r"(0x23));
	check_eq("raises RPL", to, 0xaaaa0013);
	check_eq("and sets ZF", z, 1);
	to = 0x13;
	asm("arpl %w2, %w0\n\tsetz %b1\n\tmovzbl %b1, %1" : "+r"(to), "=q"(z) : "r"(0x21));
	check_eq("does not lower RPL", to, 0x13);
	check_eq("and clears ZF", z, 0);
}

static void ldt_and_tr(void)
{
	u32 v;

	group("lldt");
	gdt_set(T1, (ulong)ldt, sizeof(ldt) - 1, 0x82, 0);
	u64 d = desc_make((ulong)area, 15, 0x93, 4);
	memcpy(ldt + 2, &d, 8);
	area[5] = 0x77;
	NOFAULT("a valid LDT", "lldt %w0", ::"r"(T1));
	asm volatile("sldt %0" : "=r"(v));
	check_eq("sldt reads it back", v & 0xffff, T1);
	CATCH(asm volatile("mov %w1, %%fs\n\tmovzbl %%fs:5, %0" : "=r"(v) : "r"(8 + 4)));
	check_eq("a segment from the LDT", v, 0x77);
	FAULT("beyond the LDT limit", GP, 0x44, "mov %w0, %%fs", ::"r"(0x44));
	check_eq("the descriptor's accessed bit", ldt[3] >> 8 & 0xff, 0x93);
	FAULT("not an LDT descriptor", GP, KDATA, "lldt %w0", ::"r"(KDATA));
	FAULT("selector in the LDT itself", GP, 0xc, "lldt %w0", ::"r"(0xc));
	gdt_set(T2, (ulong)ldt, sizeof(ldt) - 1, 0x02, 0);
	FAULT("not present", NP, T2, "lldt %w0", ::"r"(T2));
	NOFAULT("null is allowed", "lldt %w0", ::"r"(0));
	FAULT("then LDT selectors fault", GP, 0xc, "mov %w0, %%fs", ::"r"(0xc));

	group("ltr");
	asm volatile("str %0" : "=r"(v));
	check_eq("str reads the selector", v & 0xffff, TSS_SEL);
	check_eq("the TSS is marked busy", gdt[TSS_SEL / 8] >> 40 & 0xff, 0x8b);
	FAULT("a busy TSS", GP, TSS_SEL, "ltr %w0", ::"r"(TSS_SEL));
	FAULT("null", GP, 0, "ltr %w0", ::"r"(0));
	tss_load();
	FAULT("a data descriptor", GP, KDATA, "ltr %w0", ::"r"(KDATA));
	FAULT("a selector in the LDT", GP, 0xc, "ltr %w0", ::"r"(0xc));
	gdt_set(T2, (ulong)tss, 103, 0x09, 0);
	FAULT("not present", NP, T2, "ltr %w0", ::"r"(T2));
}

SNIP(far_target, "int3");

static void far_jump(u16 selector, u32 offset)
{
	struct {
		u32 offset;
		u16 selector;
	} __attribute__((packed)) p = {offset, selector};

	CATCH(asm volatile(HERE "ljmp *%0" ::"m"(p)));
}

static void far_jumps(void)
{
	static const struct {
		const char *name;
		u16 selector;
		u8 access;
		u16 vec, err;
	} cases[] = {
		{"null selector", 0, 0, GP, 0},
		{"data segment", T0, 0x93, GP, T0},
		{"not present", T0, 0x1b, NP, T0},
		{"non-conforming DPL 3 from ring 0", T0, 0xfb, GP, T0},
		{"conforming DPL 3 from ring 0", T0, 0xff, GP, T0},
		{"RPL above CPL", T0 + 3, 0x9b, GP, T0},
		{"beyond the GDT limit", BEYOND, 0, GP, BEYOND},
		{"interrupt gate", T0, 0x8e, GP, T0},
		{"LDT descriptor", T0, 0x82, GP, T0},
	};

	group("far jmp");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		gdt_set(T0, 0, 0xfffff, cases[i].access, 0xc);
		far_jump(cases[i].selector, (ulong)far_target);
		check_trap(cases[i].name, cases[i].vec, cases[i].err, want_ip);
	}
	gdt_set(T0, 0, 0xfffff, 0x9b, 0xc);
	far_jump(T0, (ulong)far_target);
	check_eq("to ring 0 code", trap.r.vec << 16 | trap.r.cs, BP << 16 | T0);
	gdt_set(T0, 0, 0xfffff, 0x9a, 0xc);
	far_jump(T0, (ulong)far_target);
	check_eq("sets the accessed bit", gdt[T0 / 8] >> 40 & 0xff, 0x9b);
	gdt_set(T0, 0, 0xfffff, 0x9f, 0xc);
	far_jump(T0 + 3, (ulong)far_target);
	check_eq("conforming code at RPL 3 keeps CPL", trap.r.vec << 16 | trap.r.cs, BP << 16 | T0);
	gdt_set(T0, 0, 0xfff, 0x9b, 4);
	far_jump(T0, 0x1000);
	check_trap("target beyond the limit", GP, 0, want_ip);
}

/* Ring 3: conforming code keeps CPL 3; everything privileged faults. */
SNIP(r3_conforming, "ljmp $" STR(T0) ", $1f\n1: int3");
SNIP(r3_jump_inner, "ljmp $" STR(KCODE) ", $1f\n1: int3");
SNIP(r3_retf_inner, "push $" STR(KCODE) "\npush $1f\nr3_retf_at: lret\n1: int3");
SNIP(r3_load_inner, "mov $" STR(KDATA) ", %eax\nr3_load_at: mov %eax, %fs\nint3");
extern char r3_retf_at[], r3_load_at[];

static void ring3_transfers(void)
{
	struct regs r;

	group("ring 3");
	gdt_set(T0, 0, 0xfffff, 0x9f, 0xc);
	regs_init(&r, RING3, r3_conforming);
	run(&r);
	check_eq("jmp to conforming code keeps CPL", trap.r.vec << 16 | trap.r.cs,
		 BP << 16 | T0 | 3);
	regs_init(&r, RING3, r3_jump_inner);
	run(&r);
	check_trap("jmp to ring 0 code", GP, KCODE, (ulong)r3_jump_inner);
	regs_init(&r, RING3, r3_retf_inner);
	run(&r);
	check_trap("far ret to an inner ring", GP, KCODE, (ulong)r3_retf_at);
	regs_init(&r, RING3, r3_load_inner);
	run(&r);
	check_trap("load of ring 0 data", GP, KDATA, (ulong)r3_load_at);
}

SNIP(r0_retf_outer,
     "mov $" STR(KDATA) ", %eax\nmov %eax, %ds\nmov %eax, %fs\n"
			"mov $" STR(UDATA) "+3, %eax\nmov %eax, %es\nmov $" STR(
				KCODE) ", %eax\nmov %eax, %gs\n"
				       "push $" STR(UDATA) "+3\npush $0x1000\npush $" STR(
					       UCODE32) "+3\npush $1f\nlret\n1: int3");
SNIP(r0_retf_outer_args, "push $" STR(UDATA) "+3\npush $0x1000\npush $1\npush $2\npush $" STR(
				 UCODE32) "+3\npush $1f\n"
					  "lret $8\n1: int3");
SNIP(r0_retf_bad_ss,
     "push $" STR(KDATA) "\npush $0x1000\npush $" STR(UCODE32) "+3\npush $1f\n"
							       "r0_retf_bad_at: lret\n1: int3");
extern char r0_retf_bad_at[];

static void far_returns(void)
{
	struct regs r;

	group("far ret outward");
	regs_init(&r, RING0, r0_retf_outer);
	run(&r);
	check_eq("arrives in ring 3", trap.r.vec << 16 | trap.r.cs, BP << 16 | UCODE32 | 3);
	check_eq("on the given stack", trap.r.sp, 0x1000);
	check_eq("ds of DPL 0 becomes null", trap.r.ds, 0);
	check_eq("fs of DPL 0 becomes null", trap.r.fs, 0);
	check_eq("gs of non-conforming code DPL 0 becomes null", trap.r.gs, 0);
	check_eq("es of DPL 3 stays", trap.r.es, UDATA | 3);
	regs_init(&r, RING0, r0_retf_outer_args);
	run(&r);
	check_eq("the operand releases both stacks", trap.r.sp, 0x1008);
	regs_init(&r, RING0, r0_retf_bad_ss);
	run(&r);
	check_trap("ss with the wrong RPL", GP, KDATA, (ulong)r0_retf_bad_at);
}

static void pointers(void)
{
	static struct {
		u32 offset;
		u16 selector;
	} __attribute__((packed)) p;
	u32 v, sel;

	group("far pointer load");
	p.offset = 0x12345678;
	p.selector = KDATA;
	asm volatile("lfs p_%=, %0\n\tmov %%fs, %1\n\t.set p_%=, %c2"
		     : "=r"(v), "=r"(sel)
		     : "i"(&p));
	check_eq("lfs loads the offset", v, 0x12345678);
	check_eq("and the selector", sel & 0xffff, KDATA);
	p.selector = KDATA + 3;
	v = 1;
	CATCH(asm volatile(HERE "lss %1, %%eax" ::"a"(1), "m"(p)));
	check_trap("lss with a bad selector", GP, KDATA, want_ip);
	check_eq("leaves the register", trap.r.ax, 1);
	FAULT("les with a register operand is #UD", UD, 0, ".byte 0xc4, 0xc0\n\tnop\n\tnop", ::);
}

int main(void)
{
	data_loads();
	stack_loads();
	accessed_bit();
	limits();
	rights();
	stack_limits();
	lar_lsl();
	verr_verw();
	arpl();
	ldt_and_tr();
	far_jumps();
	ring3_transfers();
	far_returns();
	pointers();
	return 0;
}
