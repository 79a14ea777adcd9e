/* SPDX-License-Identifier: Apache-2.0 */
/* Single stepping, breakpoints and the interrupt shadow (Intel SDM volume 3, chapter 17 and 6.8.3). */
#include "guest.h"

#define MAX_STEPS 64

u32 word[8] __attribute__((aligned(32)));
static volatile u32 steps;
static volatile ulong step_ip[MAX_STEPS];
static volatile u32 step_dr6[MAX_STEPS], step_rf[MAX_STEPS];
static volatile bool set_rf;

/* Log each #DB and go on. */
static bool log_step(struct regs *r)
{
	if (steps < MAX_STEPS) {
		step_ip[steps] = r->ip;
		step_dr6[steps] = read_dr6();
		step_rf[steps] = !!(r->fl & FL_RF);
	}
	steps++;
	write_dr6(0);
	if (set_rf)
		r->fl |= FL_RF;
	if (steps > MAX_STEPS) {
		r->fl &= ~FL_TF;
		write_dr7(0x400);
	}
	return true;
}

/* Run code in ring 0 with these flags; it ends with INT3. */
static void step(const char *code, u32 flags)
{
	struct regs r;

	steps = 0;
	memset((void *)step_ip, 0, sizeof(step_ip));
	memset((void *)step_dr6, 0, sizeof(step_dr6));
	write_dr6(0);
	regs_init(&r, RING0, code);
	r.fl |= flags;
	r.cx = 3;
	r.si = (ulong)word;
	r.di = (ulong)word + 16;
	trap_hook[DB] = log_step;
	run(&r);
	trap_hook[DB] = NULL;
}

#define ARM7(n, rw, len) (1 << (n)*2 | ((rw) | (len) << 2) << (16 + (n)*4) | 0x400)
enum { RW_EXEC, RW_WRITE, RW_IO, RW_BOTH };
enum { LEN1, LEN2, LEN8, LEN4 };

SNIP(s_nops, "nop\ns_nops1: nop\ns_nops2: int3");
SNIP(s_rep, "rep movsb\ns_rep1: int3");
SNIP(s_rep_done, "xor %ecx, %ecx\ns_rep_done1: rep movsb\ns_rep_done2: int3");
SNIP(s_popf, "pushl $0x102\npopf\ns_popf1: nop\ns_popf2: nop\ns_popf3: pushl $2\ns_popf4: popf\n"
	     "s_popf5: int3");
SNIP(s_int, "int $0x48\ns_int1: nop\ns_int2: int3");
SNIP(s_int_handler, "nop\nnop\niret");
SNIP(s_movss, "mov %ss, %eax\nmov %eax, %ss\ns_movss_shadow: nop\ns_movss2: nop\nint3");
SNIP(s_popss, "push %ss\ns_popss1: pop %ss\nnop\ns_popss2: nop\nint3");
SNIP(s_sti, "sti\ns_sti1: nop\ncli\nint3");
SNIP(s_pushf, "pushf\npop %eax\nint3");
SNIP(s_jmp, "jmp 1f\nnop\n1: nop\nint3");
SNIP(s_cpuid, "cpuid\ns_cpuid1: nop\nint3");
SNIP(s_in, "inb $0x61, %al\ns_in1: nop\nint3");
SNIP(s_fault, "nop\ns_fault_at: ud2\nint3");
extern char s_nops1[], s_nops2[], s_rep1[], s_popf2[], s_popf3[], s_popf4[], s_popf5[], s_int1[],
	s_int2[];
extern char s_movss_shadow[], s_movss2[], s_popss1[], s_popss2[], s_sti1[], s_cpuid1[], s_in1[];
extern char s_rep_done1[], s_rep_done2[], s_fault_at[];

static void single_step(void)
{
	group("tf");
	step(s_nops, FL_TF);
	check_eq("a trap after each instruction", steps, 2);
	check_eq("first at the second instruction", step_ip[0], (ulong)s_nops1);
	check_eq("second at the third", step_ip[1], (ulong)s_nops2);
	check_mask("DR6.BS", step_dr6[0], 0x4000, 0x400f);
	check_mask("the handler's frame has TF", trap.r.fl, FL_TF, FL_TF);
	step(s_rep, FL_TF);
	check_eq("rep movsb: a trap per iteration", steps, 3);
	check_eq("between iterations at the rep", step_ip[0], (ulong)s_rep);
	check_eq("after the last one behind it", step_ip[2], (ulong)s_rep1);
	/* SDM volume 3, 18.3.1.1; AMD's push it clear. */
	check_eq("Intel's push RF between iterations", step_rf[0] << 1 | step_rf[1],
		 cpu_is_amd ? 0 : 3);
	check_eq("not after the last one", step_rf[2], 0);
	step(s_rep_done, FL_TF);
	check_eq("rep with ecx 0: one trap", steps, 2);
	step(s_popf, 0);
	check_eq("popf that sets TF: first trap one instruction later", step_ip[0], (ulong)s_popf2);
	check_eq("popf that clears TF: still traps after it", step_ip[steps - 1], (ulong)s_popf5);
	check_eq("in all", steps, 4);
	gate_set(0x48, KCODE, s_int_handler, 0x8e, 0);
	step(s_int, FL_TF);
	gate_reset(0x48);
	check_eq("int n: nothing in the handler",
		 step_ip[0] == (ulong)s_int1 || step_ip[0] == (ulong)s_int2, 1);
	check_mask("pushf shows TF", (step(s_pushf, FL_TF), trap.r.ax), FL_TF, FL_TF);
	step(s_movss, FL_TF);
	check_eq("mov ss holds the trap back by one", step_ip[1], (ulong)s_movss2);
	step(s_popss, FL_TF);
	check_eq("pop ss holds the trap back by one", step_ip[1], (ulong)s_popss2);
	step(s_sti, FL_TF);
	check_eq("sti does not", step_ip[0], (ulong)s_sti1);
	step(s_jmp, FL_TF);
	check_eq("jmp: two traps", steps, 2);
	step(s_cpuid, FL_TF);
	check_eq("cpuid", step_ip[0], (ulong)s_cpuid1);
	step(s_in, FL_TF);
	check_eq("in", step_ip[0], (ulong)s_in1);
	step(s_fault, FL_TF);
	check_eq("a fault comes without a trap of its own", steps << 16 | trap.r.vec, 1 << 16 | UD);
	check_mask("TF is in the fault's frame", trap.r.fl, FL_TF, FL_TF);
	check_mask("RF is in the fault's frame", trap.r.fl, FL_RF, FL_RF);
}

SNIP(b_code, "nop\nb_code1: nop\nb_code2: nop\nint3");
SNIP(b_write, "movl $1, word\nb_write1: nop\nint3");
SNIP(b_write_byte, "movb $1, word+3\nb_write_byte1: nop\nint3");
SNIP(b_write_after, "movb $1, word+4\nnop\nint3");
SNIP(b_read, "movl word, %eax\nb_read1: nop\nint3");
SNIP(b_across, "movl $1, word-2\nb_across1: nop\nint3");
SNIP(b_rep, "rep stosb\nb_rep1: nop\nint3");
SNIP(b_movss, "movw word, %ss\nb_movss1: nop\nb_movss2: nop\nint3");
SNIP(b_push, "mov %esp, %ebx\nmov $word+8, %esp\npush %eax\nb_push1: mov %ebx, %esp\nint3");
SNIP(b_out, "mov $0x3ff, %edx\nmov $0, %al\nout %al, %dx\nb_out1: nop\nint3");
SNIP(b_both, "movl $1, word\nb_both1: nop\nb_both2: int3");
SNIP(b_xchg, "xchg %eax, word\nb_xchg1: nop\nint3");
extern char b_code1[], b_code2[], b_write1[], b_write_byte1[], b_read1[], b_across1[], b_rep1[];
extern char b_movss2[], b_push1[], b_out1[], b_both1[], b_xchg1[];

/* One breakpoint in slot n, one run; checks the number of traps, the first address and DR6.Bn. */
static void bp(const char *name, int n, u32 rw, u32 len, const void *at, const char *code,
	       const char *want_at, u32 want_count)
{
	ulong address = (ulong)at;
	u32 want_b = want_count ? 1 << n : 0;

	if (n == 0)
		write_dr0(address);
	else if (n == 1)
		write_dr1(address);
	else if (n == 2)
		write_dr2(address);
	else
		write_dr3(address);
	write_dr7(ARM7(n, rw, len));
	step(code, 0);
	write_dr7(0x400);
	bool ok = steps == want_count && (!want_count || (step_ip[0] == (ulong)want_at &&
							  (step_dr6[0] & 0x400f) == want_b));
	if (!ok)
		say("# %s: %u traps, first at 0x%lx with dr6 0x%x; want %u at 0x%lx with 0x%x\n",
		    name, steps, step_ip[0], step_dr6[0], want_count, (ulong)want_at, want_b);
	check(name, ok);
}

static void breakpoints(void)
{
	u8 *w = (u8 *)word;

	group("breakpoint");
	set_rf = true;
	bp("execution", 0, RW_EXEC, LEN1, b_code1, b_code, b_code1, 1);
	bp("execution, slot 3", 3, RW_EXEC, LEN1, b_code2, b_code, b_code2, 1);
	set_rf = false;
	bp("write", 0, RW_WRITE, LEN4, w, b_write, b_write1, 1);
	bp("write, slot 1", 1, RW_WRITE, LEN4, w, b_write, b_write1, 1);
	bp("write, slot 2, a byte of the dword", 2, RW_WRITE, LEN4, w, b_write_byte, b_write_byte1,
	   1);
	bp("write of a dword over a 1-byte watch", 0, RW_WRITE, LEN1, w + 1, b_write, b_write1, 1);
	bp("write of a dword over a 2-byte watch", 0, RW_WRITE, LEN2, w + 2, b_write, b_write1, 1);
	bp("write of a dword next to it", 0, RW_WRITE, LEN4, w, b_write_after, NULL, 0);
	bp("write of a dword that overlaps it", 0, RW_WRITE, LEN2, w, b_across, b_across1, 1);
	bp("a write watch ignores reads", 0, RW_WRITE, LEN4, w, b_read, NULL, 0);
	bp("a read/write watch sees reads", 0, RW_BOTH, LEN4, w, b_read, b_read1, 1);
	bp("a read/write watch sees writes", 0, RW_BOTH, LEN4, w, b_write, b_write1, 1);
	bp("a read/write watch ignores execution", 0, RW_BOTH, LEN1, b_code1, b_code, NULL, 0);
	bp("push writes", 0, RW_WRITE, LEN4, w + 4, b_push, b_push1, 1);
	bp("xchg writes", 0, RW_WRITE, LEN4, w, b_xchg, b_xchg1, 1);
	bp("rep stosb: in the middle", 0, RW_WRITE, LEN1, w + 17, b_rep, b_rep, 1);
	bp("rep stosb: the last byte", 0, RW_WRITE, LEN1, w + 18, b_rep, b_rep1, 1);
	word[0] = KDATA;
	bp("a watch on mov ss waits for one more instruction", 0, RW_BOTH, LEN2, w, b_movss,
	   b_movss2, 1);

	group("debug register");
	write_dr0((ulong)word);
	write_dr7(0x400);
	step(b_write, 0);
	check_eq("a disabled one does not trap", steps, 0);
	write_dr7(ARM7(0, RW_WRITE, LEN4) | 2);
	step(b_write, 0);
	check_eq("global and local enable: one trap", steps, 1);
	write_dr7((ARM7(0, RW_WRITE, LEN4) & ~1u) | 2);
	step(b_write, 0);
	check_eq("global enable alone", steps, 1);
	write_dr7(0x400);

	write_dr0((ulong)word);
	write_dr7(ARM7(0, RW_WRITE, LEN4));
	step(b_both, FL_TF);
	check_mask("watch and step at once: both bits", step_dr6[0], 0x4001, 0x400f);
	write_dr7(0x400);

	/* Execution breakpoints are faults: without RF they repeat. */
	write_dr0((ulong)b_code1);
	write_dr7(ARM7(0, RW_EXEC, LEN1));
	step(b_code, 0);
	check_eq("execution without RF repeats", steps > MAX_STEPS, 1);
	write_dr7(0x400);
	write_dr7(ARM7(0, RW_EXEC, LEN1));
	step(b_code1, FL_RF);
	check_eq("iret with RF skips it once", steps, 0);
	write_dr7(0x400);
	write_dr7(ARM7(0, RW_EXEC, LEN1));
	struct regs r;
	regs_init(&r, RING0, b_code);
	write_dr6(0);
	run(&r);
	check_trap("execution: the frame", DB, 0, (ulong)b_code1);
	check_mask("execution: RF clear in the pushed flags", trap.r.fl, 0, FL_RF);
	write_dr7(0x400);
	write_dr0((ulong)word);
	write_dr7(ARM7(0, RW_WRITE, LEN4));
	regs_init(&r, RING0, b_write);
	write_dr6(0);
	run(&r);
	check_mask("data: RF clear in the pushed flags", trap.r.fl, 0, FL_RF);
	write_dr7(0x400);

	write_dr7(0x400);
	write_dr6(0);
	check_eq("DR6 fixed bits", read_dr6() & ~0x10800ul, 0xffff0ff0 & ~0x10800ul);
	write_dr6(0xffffffff);
	check_mask("DR6 bit 12 reads 0", read_dr6(), 0xe00f, 0xf00f);
	write_dr6(0);
	write_dr7(0);
	check_eq("DR7 bit 10 reads 1", read_dr7(), 0x400);
	write_dr7(0xc000 | 0x1400);
	check_mask("DR7 bits 12, 14 and 15 read 0", read_dr7(), 0x400, 0xd400);
	write_dr7(0x400);
	write_dr3(0x12345678);
	check_eq("DR3 reads back", read_dr3(), 0x12345678);
	write_dr6(0x4);
	check_eq("DR4 is DR6 with CR4.DE clear", ({
			 ulong v;
			 asm volatile("mov %%db4, %0" : "=r"(v));
			 v & 0xf;
		 }),
		 4);
	write_dr6(0);
	write_cr4(read_cr4() | CR4_DE);
	FAULT("DR4 is #UD with CR4.DE", UD, 0, "mov %%db4, %%eax", ::: "eax");
	FAULT("DR5 is #UD with CR4.DE", UD, 0, "mov %%eax, %%db5", ::);
	bp("port write, CR4.DE", 1, RW_IO, LEN1, (void *)0x3ff, b_out, b_out1, 1);
	bp("port next to it", 1, RW_IO, LEN1, (void *)0x3fe, b_out, NULL, 0);
	write_cr4(read_cr4() & ~CR4_DE);

	/* General detect: DR7.GD makes every access to a debug register fault, once. */
	write_dr6(0);
	CATCH(asm volatile("mov %0, %%db7\n" HERE "mov %%db0, %%eax" ::"r"(0x2400) : "eax"));
	check_trap("GD faults on access", DB, 0, want_ip);
	check_mask("DR6.BD", trap.dr6, 0x2000, 0x2000);
	check_mask("GD is clear in the handler", read_dr7(), 0, 0x2000);
	write_dr6(0);
	write_dr7(0x400);
}

static volatile u32 irqs;
static volatile ulong irq_ip;

static bool irq0(struct regs *r)
{
	irqs++;
	irq_ip = r->ip;
	r->fl &= ~FL_IF;
	pic_eoi(0);
	return true;
}

/* Leaves IRQ0 requested at the PIC and not yet taken. */
static void pend_irq0(void)
{
	cli();
	pic_init(0xff, 0xff);
	outb(0x43, 0x30);
	outb(0x40, 1);
	outb(0x40, 0);
	outb(0x20, 0x0a);
	while (!(inb(0x20) & 1))
		pause();
	outb(0x21, 0xfe);
	irqs = 0;
	irq_ip = 0;
}

SNIP(i_sti, "sti\ni_sti1: nop\ni_sti2: nop\nnop\nint3");
SNIP(i_sti_cli, "sti\ncli\nnop\nnop\nint3");
SNIP(i_popf, "pushl $0x202\npopf\ni_popf1: nop\nnop\nint3");
SNIP(i_sti_hlt, "sti\nhlt\ni_sti_hlt1: nop\nint3");
SNIP(i_iret, "pushl $0x202\npush %cs\npush $i_iret1\niret\ni_iret1: nop\nnop\nint3");
SNIP(i_sti_sti, "sti\nsti\ni_sti_sti2: nop\nnop\nint3");
extern char i_sti2[], i_popf1[], i_sti_hlt1[], i_iret1[], i_sti_sti2[];

static void shadow_case(const char *name, const char *code, u32 want_irqs, const char *at)
{
	struct regs r;

	pend_irq0();
	regs_init(&r, RING0, code);
	trap_hook[0x20] = irq0;
	run(&r);
	trap_hook[0x20] = NULL;
	outb(0x21, 0xff);
	check_eq(name, (u64)irqs << 32 | (at ? irq_ip : 0), (u64)want_irqs << 32 | (ulong)at);
	pic_eoi(0);
}

static void shadows(void)
{
	group("shadow");
	shadow_case("sti: one more instruction", i_sti, 1, i_sti2);
	shadow_case("sti, cli: none", i_sti_cli, 0, NULL);
	shadow_case("sti, sti: only the first one shadows", i_sti_sti, 1, i_sti_sti2);
	shadow_case("popf has no shadow", i_popf, 1, i_popf1);
	shadow_case("iret has no shadow", i_iret, 1, i_iret1);
	shadow_case("sti, hlt: taken after the hlt", i_sti_hlt, 1, i_sti_hlt1);
}

int main(void)
{
	single_step();
	breakpoints();
	shadows();
	return 0;
}
