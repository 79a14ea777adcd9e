/* SPDX-License-Identifier: Apache-2.0 */
/* Call, interrupt, trap and task gates; 32-bit task switches (Intel SDM volume 3, 5.8, 6.12, 7.3). */
#include "guest.h"

#define GATE TEST_SEL	      /* the gate under test */
#define TARGET (TEST_SEL + 8) /* a code segment it leads to */
#define TASK2 (TEST_SEL + 16)
#define LDT2 (TEST_SEL + 24)
#define SS1 (TEST_SEL + 32)
#define TASK3 (TEST_SEL + 40)
#define VEC 0x40

struct tss32 {
	u16 link, r0;
	u32 esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
	u32 eax, ecx, edx, ebx, esp, ebp, esi, edi;
	u32 es, cs, ss, ds, fs, gs, ldt;
	u16 trap, iomap;
};

static struct tss32 task2;
static u32 stack1[64], stack2[256];
static u32 ldt[16] __attribute__((aligned(8)));

static struct tss32 *main_tss(void)
{
	return (struct tss32 *)tss;
}

static void gdt_gate(u32 selector, u32 target, const void *ip, u8 access, u8 params)
{
	u32 offset = (ulong)ip;

	gdt[selector / 8] = (offset & 0xffff) | (u64)target << 16 | (u64)params << 32 |
			    (u64)access << 40 | (u64)(offset >> 16) << 48;
}

SNIP(arrive, "int3");
SNIP(r3_call, "push $0x11111111\npush $0x22222222\nlcall $" STR(GATE) "+3, $0xdeadbeef\n"
								      "r3_call_next: int3");
SNIP(r3_call_rpl0, "lcall $" STR(GATE) ", $0\nint3");
SNIP(r3_jmp, "ljmp $" STR(GATE) "+3, $0\nint3");
SNIP(ring1_return, "lret $8");
extern char r3_call_next[];

static void call_gate_good(void)
{
	struct regs r;
	u32 *inner;

	group("call gate");
	gdt_gate(GATE, KCODE, arrive, 0x8c, 3);
	CATCH(asm volatile("mov %%esp, %%ebx\n\tlcall %0, $0" ::"i"(GATE) : "ebx"));
	check_eq("ring 0 to 0 arrives", trap.r.vec << 16 | trap.r.cs, BP << 16 | KCODE);
	check_eq("ring 0 to 0 pushes cs and eip only", trap.r.bx - trap.r.sp, 8);

	gdt_gate(GATE, KCODE, arrive, 0xec, 2);
	regs_init(&r, RING3, r3_call);
	run(&r);
	inner = (u32 *)trap.r.sp;
	check_eq("ring 3 to 0 arrives", trap.r.vec << 16 | trap.r.cs, BP << 16 | KCODE);
	check_eq("ip after the int3", trap.r.ip, (ulong)arrive + 1);
	check_eq("stack comes from the TSS", trap.r.sp, (ulong)trap_stack_top - 24);
	check_eq("pushed eip", inner[0], (ulong)r3_call_next);
	check_eq("pushed cs", inner[1] & 0xffff, UCODE32 | 3);
	check_eq("last parameter is lowest", inner[2], 0x22222222);
	check_eq("first parameter is above", inner[3], 0x11111111);
	check_eq("pushed esp", inner[4], (ulong)user_stack_top - 8);
	check_eq("pushed ss", inner[5] & 0xffff, UDATA | 3);

	gdt_gate(GATE, KCODE16, arrive, 0xe4, 2);
	gdt_set(TARGET, (ulong)arrive, 0xffff, 0x9b, 0);
	gdt_gate(GATE, TARGET, NULL, 0xe4, 2);
	regs_init(&r, RING3, r3_call);
	run(&r);
	u16 *words = (u16 *)trap.r.sp;
	check_eq("16-bit gate pushes words", trap.r.sp, (ulong)trap_stack_top - 12);
	check_eq("16-bit gate pushes ip", words[0], (ulong)r3_call_next & 0xffff);
	check_eq("16-bit gate copies words", words[2] | (u32)words[3] << 16, 0x22222222);

	/* To ring 1 and back. */
	main_tss()->esp1 = (ulong)(stack1 + ARRAY_SIZE(stack1));
	main_tss()->ss1 = R1DATA + 1;
	gdt_gate(GATE, R1CODE, ring1_return, 0xec, 2);
	regs_init(&r, RING3, r3_call);
	run(&r);
	check_eq("ring 3 to 1 and back", trap.r.vec << 16 | trap.r.cs, BP << 16 | UCODE32 | 3);
	check_eq("lret releases both stacks", trap.r.sp, (ulong)user_stack_top);
	gdt_gate(GATE, R1CODE, arrive, 0xec, 0);
	regs_init(&r, RING3, r3_call);
	run(&r);
	check_eq("cs gets CPL 1", trap.r.cs, R1CODE | 1);
	check_eq("on ss1:esp1", trap.r.sp, (ulong)(stack1 + ARRAY_SIZE(stack1)) - 16);

	gdt_set(TARGET, 0, 0xfffff, 0x9f, 0xc);
	gdt_gate(GATE, TARGET, arrive, 0xec, 1);
	regs_init(&r, RING3, r3_call);
	run(&r);
	check_eq("to conforming code keeps CPL 3", trap.r.cs, TARGET | 3);
	check_eq("and the stack", trap.r.sp, (ulong)user_stack_top - 16);
	regs_init(&r, RING3, r3_jmp);
	run(&r);
	check_eq("jmp to conforming code", trap.r.vec << 16 | trap.r.cs, BP << 16 | TARGET | 3);
}

static void call_gate_faults(void)
{
	static const struct {
		const char *name;
		char *code;
		u8 gate, access;
		u16 target, vec, err;
	} cases[] = {
		{"gate DPL 0 from ring 3", r3_call, 0x8c, 0x9b, TARGET, GP, GATE},
		{"gate not present", r3_call, 0x6c, 0x9b, TARGET, NP, GATE},
		{"target null", r3_call, 0xec, 0x9b, 0, GP, 0},
		{"target is data", r3_call, 0xec, 0x93, TARGET, GP, TARGET},
		{"target not present", r3_call, 0xec, 0x1b, TARGET, NP, TARGET},
		{"target is a TSS", r3_call, 0xec, 0x89, TARGET, GP, TARGET},
		{"target beyond the GDT", r3_call, 0xec, 0, 0x200, GP, 0x200},
		{"jmp to inner non-conforming code", r3_jmp, 0xec, 0x9b, TARGET, GP, TARGET},
	};
	struct regs r;

	group("call gate fault");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		gdt_set(TARGET, 0, 0xfffff, cases[i].access, 0xc);
		gdt_gate(GATE, cases[i].target, arrive, cases[i].gate, 0);
		regs_init(&r, RING3, cases[i].code);
		run(&r);
		check_trap(cases[i].name, cases[i].vec, cases[i].err,
			   (ulong)cases[i].code + (cases[i].code == r3_call ? 10 : 0));
	}
	gdt_set(TARGET, 0, 0xfffff, 0x9b, 0xc);
	gdt_gate(GATE, TARGET, arrive, 0xac, 0);
	regs_init(&r, RING3, r3_call_rpl0);
	run(&r);
	check_trap("gate DPL 1 from ring 3 with RPL 0", GP, GATE, (ulong)r3_call_rpl0);

	static const struct {
		const char *name;
		u16 ss1;
		u8 access;
		u16 vec, err;
	} stacks[] = {
		{"inner ss null", 0, 0, TS, 0},
		{"inner ss with the wrong RPL", SS1, 0xb3, TS, SS1},
		{"inner ss with the wrong DPL", SS1 + 1, 0x93, TS, SS1},
		{"inner ss read-only", SS1 + 1, 0xb1, TS, SS1},
		{"inner ss not present", SS1 + 1, 0x33, SS, SS1},
		{"inner ss beyond the GDT", 0x201, 0, TS, 0x200},
	};
	for (size_t i = 0; i < ARRAY_SIZE(stacks); i++) {
		gdt_set(SS1, 0, 0xfffff, stacks[i].access, 0xc);
		main_tss()->ss1 = stacks[i].ss1;
		gdt_gate(GATE, R1CODE, arrive, 0xec, 0);
		regs_init(&r, RING3, r3_call);
		run(&r);
		check_trap(stacks[i].name, stacks[i].vec, stacks[i].err, (ulong)r3_call + 10);
	}
	check_eq("esp is unchanged after it", trap.r.sp, (ulong)user_stack_top - 8);
	gdt_set(SS1, 0, 0, 0xb3, 4);
	main_tss()->ss1 = SS1 + 1;
	main_tss()->esp1 = 4;
	regs_init(&r, RING3, r3_call);
	run(&r);
	check_trap("no room on the inner stack", SS, SS1, (ulong)r3_call + 10);
	tss_load();
}

SNIP(r3_int, "int $" STR(VEC) "\nr3_int_next: int3");
SNIP(r3_ud, "ud2");
SNIP(r3_int3, "int3");
SNIP(r3_icebp, ".byte 0xf1\nint3");
SNIP(r3_into, "mov $0x7fffffff, %eax\nadd $1, %eax\ninto\nr3_into_next: int3");
extern char r3_int_next[], r3_into_next[];

static u32 flags_in_handler;
SNIP(flags_handler, "pushf\npopl flags_in_handler\niret");

static void interrupt_gates(void)
{
	struct regs r;

	group("int gate");
	asm volatile("" ::"m"(flags_in_handler));
	gate_set(VEC, KCODE, flags_handler, 0x8e, 0);
	write_flags(FL_IF | FL_NT);
	asm volatile("int %0" ::"i"(VEC) : "memory");
	write_flags(2);
	check_mask("interrupt gate clears IF and NT", flags_in_handler, 0, FL_IF | FL_NT | FL_TF);
	gate_set(VEC, KCODE, flags_handler, 0x8f, 0);
	write_flags(FL_IF | FL_NT);
	asm volatile("int %0" ::"i"(VEC) : "memory");
	write_flags(2);
	check_mask("trap gate keeps IF, clears NT", flags_in_handler, FL_IF, FL_IF | FL_NT | FL_TF);

	gate_set(VEC, KCODE, trap_stubs + VEC * 16, 0xee, 0);
	regs_init(&r, RING3, r3_int);
	run(&r);
	check_trap("DPL 3 from ring 3", VEC, 0, (ulong)r3_int_next);
	check_eq("on esp0", trap.frame, (ulong)trap_stack_top - 24);
	gate_set(VEC, KCODE, trap_stubs + VEC * 16, 0x8e, 0);
	regs_init(&r, RING3, r3_int);
	run(&r);
	check_trap("DPL 0 from ring 3", GP, VEC * 8 + 2, (ulong)r3_int);
	gate_set(BP, KCODE, trap_stubs + BP * 16, 0x8e, 0);
	regs_init(&r, RING3, r3_int3);
	run(&r);
	check_trap("int3 with DPL 0 from ring 3", GP, BP * 8 + 2, (ulong)r3_int3);
	gate_reset(BP);
	regs_init(&r, RING3, r3_icebp);
	run(&r);
	check_trap("int1 (0xf1) ignores the DPL", DB, 0, (ulong)r3_icebp + 1);
	regs_init(&r, RING3, r3_into);
	run(&r);
	check_trap("into with OF", OF, 0, (ulong)r3_into_next);
	gate_set(UD, KCODE, trap_stubs + UD * 16, 0x8e, 0);
	regs_init(&r, RING3, r3_ud);
	run(&r);
	check_trap("a fault ignores the DPL", UD, 0, (ulong)r3_ud);

	gate_set(VEC, KCODE, trap_stubs + VEC * 16, 0x0e, 0);
	FAULT("gate not present", NP, VEC * 8 + 2, "int $" STR(VEC), ::);
	gate_set(UD, KCODE, trap_stubs + UD * 16, 0x0e, 0);
	FAULT("gate of a fault not present sets EXT", NP, UD * 8 + 3, "ud2", ::);
	gate_reset(UD);
	gate_set(VEC, KCODE, trap_stubs + VEC * 16, 0x8c, 0);
	FAULT("a call gate in the IDT", GP, VEC * 8 + 2, "int $" STR(VEC), ::);
	gate_set(VEC, 0, trap_stubs + VEC * 16, 0x8e, 0);
	FAULT("null code selector", GP, 0, "int $" STR(VEC), ::);
	gate_set(VEC, KDATA, trap_stubs + VEC * 16, 0x8e, 0);
	FAULT("data selector", GP, KDATA, "int $" STR(VEC), ::);
	gdt_set(TARGET, 0, 0xfffff, 0x1b, 0xc);
	gate_set(VEC, TARGET, trap_stubs + VEC * 16, 0x8e, 0);
	FAULT("code segment not present", NP, TARGET, "int $" STR(VEC), ::);
	gate_set(VEC, UCODE32, trap_stubs + VEC * 16, 0x8e, 0);
	FAULT("to an outer ring", GP, UCODE32, "int $" STR(VEC), ::);
	gdt_set(TARGET, 0, 0xfff, 0x9b, 4);
	gate_set(VEC, TARGET, (void *)0x1000, 0x8e, 0);
	FAULT("handler beyond the code limit", GP, 0, "int $" STR(VEC), ::);

	struct {
		u16 limit;
		u32 base;
	} __attribute__((packed)) idtr = {VEC * 8 + 6, (ulong)idt};
	gate_reset(VEC);
	asm volatile("lidt %0" ::"m"(idtr));
	FAULT("one byte beyond the IDT limit", GP, VEC * 8 + 2, "int $" STR(VEC), ::);
	idt_load();

	/* Conforming handlers do not change the ring, so the stack stays. */
	gdt_set(TARGET, 0, 0xfffff, 0x9f, 0xc);
	gate_set(VEC, TARGET, r3_int3, 0xee, 0);
	regs_init(&r, RING3, r3_int);
	run(&r);
	check_eq("conforming handler keeps CPL 3", trap.r.cs, TARGET | 3);
	check_eq("and pushes on the ring 3 stack", trap.r.sp, (ulong)user_stack_top - 12);

	main_tss()->esp1 = (ulong)(stack1 + ARRAY_SIZE(stack1));
	main_tss()->ss1 = R1DATA + 1;
	gate_set(VEC, R1CODE, r3_int3, 0xee, 0);
	regs_init(&r, RING3, r3_int);
	run(&r);
	check_eq("handler in ring 1", trap.r.cs, R1CODE | 1);
	check_eq("pushes five dwords on esp1", trap.r.sp,
		 (ulong)(stack1 + ARRAY_SIZE(stack1)) - 20);

	gdt_set(TARGET, (ulong)r3_int3, 0xffff, 0x9b, 4);
	gate_set(VEC, TARGET, NULL, 0x86, 0);
	CATCH(asm volatile("mov %%esp, %%ebx\n\tint %0" ::"i"(VEC) : "ebx"));
	check_eq("16-bit gate pushes three words", trap.r.bx - trap.r.sp, 6);
	idt_load();
}

/* Task 2 goes on here each time it is switched to. */
SNIP(task2_returns, "1: incl %eax\niret\njmp 1b");
SNIP(task2_jumps_back, "1: incl %eax\nljmp $" STR(TSS_SEL) ", $0\njmp 1b");

static void task2_init(const void *ip)
{
	memset(&task2, 0, sizeof(task2));
	task2.eip = (ulong)ip;
	task2.eflags = 2;
	task2.esp = (ulong)(stack2 + ARRAY_SIZE(stack2));
	task2.esp0 = (ulong)(stack2 + 128);
	task2.ss0 = KDATA;
	task2.cs = KCODE;
	task2.ss = task2.ds = task2.es = KDATA;
	task2.eax = 0x100;
	task2.ebp = 0xbbbb;
	task2.iomap = 104;
	task2.cr3 = read_cr3();
	gdt_set(TASK2, (ulong)&task2, sizeof(task2) - 1, 0x89, 0);
}

static u8 access_of(u32 selector)
{
	return gdt[selector / 8] >> 40;
}

static void task_switches(void)
{
	u32 v;

	group("task call");
	task2_init(arrive);
	write_cr0(read_cr0() & ~CR0_TS);
	CATCH(asm volatile("mov $0x77, %%ecx\n\tmov %%esp, %%ebx\n\t"
			   "lcall %0, $0\n1:\n\t.set task_after_call, 1b" ::"i"(TASK2)
			   : "ebx", "ecx"));
	check_trap("arrives in the new task", BP, 0, (ulong)arrive + 1);
	check_eq("registers come from the TSS", trap.r.ax << 16 | trap.r.bp, 0x100bbbb);
	check_mask("NT is set", trap.r.fl, FL_NT, FL_NT);
	check_eq("back link", task2.link, TSS_SEL);
	check_eq("new task is busy", access_of(TASK2), 0x8b);
	check_eq("old task stays busy", access_of(TSS_SEL), 0x8b);
	check_eq("tr", ({
			 asm volatile("str %0" : "=r"(v));
			 v;
		 }),
		 TASK2);
	check_mask("CR0.TS is set", read_cr0(), CR0_TS, CR0_TS);
	extern char task_after_call[];
	check_eq("old eip saved", main_tss()->eip, (ulong)task_after_call);
	check_eq("old register saved", main_tss()->ecx, 0x77);
	check_eq("old esp saved (nothing pushed)", main_tss()->esp, main_tss()->ebx);
	check_eq("old cs saved", main_tss()->cs & 0xffff, KCODE);
	tss_load();

	group("task iret");
	task2_init(task2_returns);
	CATCH(asm volatile("lcall %0, $0" ::"i"(TASK2)));
	check_trap("iret with NT comes back", NOTRAP, 0, 0);
	check_eq("tr", ({
			 asm volatile("str %0" : "=r"(v));
			 v;
		 }),
		 TSS_SEL);
	check_eq("left task is available", access_of(TASK2), 0x89);
	check_eq("its eax was saved", task2.eax, 0x101);
	check_mask("its NT was saved clear", task2.eflags, 0, FL_NT);
	check_mask("NT is clear here", read_flags(), 0, FL_NT);
	CATCH(asm volatile("lcall %0, $0" ::"i"(TASK2)));
	check_eq("a second call goes on after the iret", task2.eax, 0x102);

	group("task jmp");
	task2_init(task2_jumps_back);
	task2.link = 0x1234;
	CATCH(asm volatile("ljmp %0, $0" ::"i"(TASK2)));
	check_trap("there and back", NOTRAP, 0, 0);
	check_eq("left task is available", access_of(TASK2), 0x89);
	check_eq("this task is busy again", access_of(TSS_SEL), 0x8b);
	check_eq("no back link written", task2.link, 0x1234);
	task2_init(arrive);
	CATCH(asm volatile("ljmp %0, $0" ::"i"(TASK2)));
	check_mask("NT stays clear", trap.r.fl, 0, FL_NT);
	check_eq("old task becomes available", access_of(TSS_SEL), 0x89);
	tss_load();

	group("task gate");
	task2_init(task2_returns);
	gdt_gate(GATE, TASK2, NULL, 0x85, 0);
	CATCH(asm volatile("lcall %0, $0" ::"i"(GATE)));
	check_eq("call through a task gate", trap.r.vec << 16 | task2.eax,
		 (u32)NOTRAP << 16 | 0x101);
	gate_set(VEC, TASK2, NULL, 0x85, 0);
	CATCH(asm volatile("int %0" ::"i"(VEC)));
	check_eq("int through a task gate", trap.r.vec << 16 | task2.eax,
		 (u32)NOTRAP << 16 | 0x102);
	gate_reset(VEC);
	task2_init(arrive);
	gate_set(GP, TASK2, NULL, 0x85, 0);
	CATCH(asm volatile(HERE "mov %w0, %%fs" ::"r"(0x1f8)));
	check_trap("a fault through a task gate", BP, 0, (ulong)arrive + 1);
	check_eq("its error code is on the new stack", *(u32 *)trap.r.sp, 0x1f8);
	check_eq("the old eip is the faulting one", main_tss()->eip, want_ip);
	gate_reset(GP);
	tss_load();
}

static void task_state(void)
{
	static u32 page_directory[1024] __attribute__((aligned(4096)));
	u32 v;

	group("task state");
	gdt_set(LDT2, (ulong)ldt, sizeof(ldt) - 1, 0x82, 0);
	u64 d = desc_make(0x1000, 0xfffff, 0x93, 0xc);
	memcpy(ldt + 2, &d, 8);
	task2_init(arrive);
	task2.ldt = LDT2;
	task2.fs = 8 + 4;
	CATCH(asm volatile("ljmp %0, $0" ::"i"(TASK2)));
	check_eq("LDT and a segment from it", trap.r.vec << 16 | trap.r.fs, BP << 16 | 12);
	check_eq("sldt", ({
			 asm volatile("sldt %0" : "=r"(v));
			 v;
		 }),
		 LDT2);
	asm volatile("lldt %w0" ::"r"(0));
	tss_load();

	/* A ring 3 task: its interrupts use the new TSS's esp0. */
	task2_init(arrive);
	task2.cs = UCODE32 + 3;
	task2.ss = task2.ds = task2.es = UDATA + 3;
	CATCH(asm volatile("ljmp %0, $0" ::"i"(TASK2)));
	check_eq("to ring 3", trap.r.vec << 16 | trap.r.cs, BP << 16 | UCODE32 | 3);
	check_eq("its interrupts use its esp0", trap.frame, (ulong)(stack2 + 128) - 24);
	tss_load();

	for (u32 i = 0; i < 1024; i++)
		page_directory[i] = i << 22 | PTE_P | PTE_W | PTE_PS;
	write_cr4(read_cr4() | CR4_PSE);
	write_cr3((ulong)page_directory);
	write_cr0(read_cr0() | CR0_PG);
	task2_init(arrive);
	task2.cr3 = (ulong)page_directory | PTE_PCD;
	CATCH(asm volatile("ljmp %0, $0" ::"i"(TASK2)));
	check_eq("CR3 is loaded when paging is on", read_cr3(), (ulong)page_directory | PTE_PCD);
	tss_load();
	write_cr0(read_cr0() & ~CR0_PG);

	/* The T bit: #DB with DR6.BT before the first instruction (SDM 3, 17.3.1.5). */
	task2_init(arrive);
	task2.trap = 1;
	write_dr6(0);
	CATCH(asm volatile("ljmp %0, $0" ::"i"(TASK2)));
	check_trap("T bit raises #DB at the first instruction", DB, 0, (ulong)arrive);
	check_mask("with DR6.BT", trap.dr6, 0x8000, 0x8000);
	write_dr6(0);
	tss_load();

	/* To virtual-8086 mode. */
	extern char low_int3[];
	task2_init(low_int3);
	task2.eflags = FL_VM | 2;
	task2.cs = task2.ds = task2.es = task2.fs = task2.gs = 0;
	task2.ss = 0x700;
	task2.esp = 0x800;
	CATCH(asm volatile("ljmp %0, $0" ::"i"(TASK2)));
	check_eq("to virtual-8086 mode", trap.r.vec << 24 | (trap.r.fl & FL_VM), BP << 24 | FL_VM);
	check_eq("with its ss:esp", trap.r.ss << 16 | trap.r.sp, 0x7000800);
	tss_load();

	/* A 16-bit TSS. */
	static u16 task16[22];
	gdt_set(TARGET, (ulong)arrive, 0xffff, 0x9b, 4);
	memset(task16, 0, sizeof(task16));
	task16[7] = 0;
	task16[8] = 2;
	task16[9] = 0x1616;
	task16[13] = 0x7e00;
	task16[17] = KDATA;
	task16[18] = TARGET;
	task16[19] = KDATA;
	task16[20] = KDATA;
	gdt_set(TASK2, (ulong)task16, sizeof(task16) - 1, 0x81, 0);
	CATCH(asm volatile("lcall %0, $0" ::"i"(TASK2)));
	check_eq("16-bit TSS: arrives", trap.r.vec << 16 | (trap.r.ax & 0xffff), BP << 16 | 0x1616);
	check_eq("16-bit TSS: busy type", access_of(TASK2), 0x83);
	check_eq("16-bit TSS: back link", task16[0], TSS_SEL);
	tss_load();
}
SNIP16(low_int3, "int3");

static void task_fault(const char *name, u16 vec)
{
	CATCH(asm volatile(HERE "lcall %0, $0" ::"i"(TASK2)));
	check_trap(name, vec, TASK2, want_ip);
	tss_load();
}

static void task_load_faults(void)
{
	static struct tss32 task3;
	static const struct {
		const char *name;
		u8 ds_access, ldt;
		u16 ds, vec, err;
	} cases[] = {
		{"ldt selector is data", 0x93, KDATA, KDATA, TS, KDATA},
		{"ldt selector in the ldt", 0x93, 0xc, KDATA, TS, 0xc},
		{"ds is an empty descriptor", 0, 0, SS1, TS, SS1},
		{"ds is execute-only code", 0x99, 0, SS1, TS, SS1},
		{"ds not present", 0x13, 0, SS1, NP, SS1},
		{"ds beyond the GDT", 0x93, 0, 0x200, TS, 0x200},
	};
	u32 wrong_eip = 0;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		task2_init(arrive);
		task3 = task2;
		gdt_set(TASK3, (ulong)&task3, sizeof(task3) - 1, 0x89, 0);
		gdt_set(SS1, 0, 0xfffff, cases[i].ds_access, 0xc);
		gate_set(cases[i].vec, TASK3, NULL, 0x85, 0);
		task2.ldt = cases[i].ldt;
		task2.ds = cases[i].ds;
		CATCH(asm volatile("lcall %0, $0" ::"i"(TASK2)));
		check_eq(cases[i].name, trap.r.vec << 16 | *(u32 *)trap.r.sp,
			 BP << 16 | cases[i].err);
		wrong_eip += task2.eip != (ulong)arrive;
		gate_reset(cases[i].vec);
		tss_load();
	}
	check_eq("they are reported at the new task's first instruction", wrong_eip, 0);
}

static void task_faults(void)
{
	struct regs r;

	group("task fault");
	task2_init(arrive);
	gdt_set(TASK2, (ulong)&task2, sizeof(task2) - 1, 0x8b, 0);
	task_fault("busy", GP);
	gdt_set(TASK2, (ulong)&task2, sizeof(task2) - 1, 0x09, 0);
	task_fault("not present", NP);
	gdt_set(TASK2, (ulong)&task2, 102, 0x89, 0);
	task_fault("limit below 103", TS);
	gdt_gate(GATE, 0, NULL, 0x85, 0);
	FAULT("task gate to null", GP, 0, "lcall %0, $0", ::"i"(GATE));
	gdt_gate(GATE, KDATA, NULL, 0x85, 0);
	FAULT("task gate to data", GP, KDATA, "lcall %0, $0", ::"i"(GATE));
	gdt_gate(GATE, TASK2, NULL, 0x05, 0);
	FAULT("task gate not present", NP, GATE, "lcall %0, $0", ::"i"(GATE));
	task2_init(arrive);
	regs_init(&r, RING3, r3_call);
	gdt[GATE / 8] = gdt[TASK2 / 8];
	run(&r);
	check_trap("TSS DPL 0 from ring 3", GP, GATE, (ulong)r3_call + 10);

	/*
	 * In the new task, before its first instruction. Its segments are in an unknown state, so
	 * the handler is a task as well (SDM 3, 7.3).
	 */
	task_load_faults();

	group("task iret fault");
	task2_init(arrive);
	main_tss()->link = TASK2;
	write_flags(FL_NT | 2);
	FAULT("link to a task that is not busy", TS, TASK2, "iret", ::);
	main_tss()->link = KDATA;
	write_flags(FL_NT | 2);
	FAULT("link to data", TS, KDATA, "iret", ::);
	main_tss()->link = 0;
	write_flags(FL_NT | 2);
	FAULT("null link", TS, 0, "iret", ::);
	gdt_set(TASK2, (ulong)&task2, sizeof(task2) - 1, 0x0b, 0);
	main_tss()->link = TASK2;
	write_flags(FL_NT | 2);
	FAULT("link to a task not present", NP, TASK2, "iret", ::);
	write_flags(2);
	tss_load();
}

int main(void)
{
	call_gate_good();
	call_gate_faults();
	interrupt_gates();
	task_switches();
	task_state();
	task_faults();
	return 0;
}
