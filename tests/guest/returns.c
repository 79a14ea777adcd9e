/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls and returns that do not match: a translator that expects a return where the last call came from
 * has to be right where it is not. Recursion deeper than anything that could be remembered, calls that
 * nobody returns from and returns without a call, return addresses that are changed, coroutines, and code
 * behind a call that changes while the call is under way. And whatever a loop is made of, an interrupt ends it; and when
 * it goes on nothing has been lost.
 */
#include "guest.h"

enum { DEEP = 20000, MANY = 100000, STACK_WORDS = 1 << 17 };

static ulong stack[STACK_WORDS] __attribute__((aligned(16)));
ulong other_stack[256] __attribute__((aligned(16)));
ulong other_sp;

/* RDI: an argument, RSI: the stack to run on; the result in RAX. */
ulong on_stack(ulong arg, ulong *top, void (*code)(void));
void deep(void), unreturned(void), uncalled(void), elsewhere(void), tail(void), turns(void);
void changed(void), changed_twice(void), compared(void), known(void);
extern volatile u16 wants_flags;
asm(".pushsection .data\n" /* writable */
    ".balign 4096\n"
    "on_stack:\n"
    "	push %rbx\n"
    "	mov %rsp, %rbx\n"
    "	mov %rsi, %rsp\n"
    "	xor %eax, %eax\n"
    "	call *%rdx\n"
    "	mov %rbx, %rsp\n"
    "	pop %rbx\n"
    "	ret\n"
    "deep:\n"
    "	test %rdi, %rdi\n"
    "	jz 1f\n"
    "	dec %rdi\n"
    "	call deep\n"
    "	inc %rax\n"
    "1:	ret\n"
    "unreturned:\n"
    "	call 2f\n"
    "2:	add $8, %rsp\n"
    "	inc %rax\n"
    "	dec %rdi\n"
    "	jnz unreturned\n"
    "	ret\n"
    "uncalled:\n"
    "	lea 3f(%rip), %rcx\n"
    "	push %rcx\n"
    "	ret\n"
    "	ud2\n"
    "3:	inc %rax\n"
    "	dec %rdi\n"
    "	jnz uncalled\n"
    "	ret\n"
    "elsewhere:\n"
    "	call 4f\n"
    "	ud2\n"
    "4:	lea 5f(%rip), %rcx\n"
    "	mov %rcx, (%rsp)\n"
    "	ret\n"
    "5:	inc %rax\n"
    "	dec %rdi\n"
    "	jnz elsewhere\n"
    "	ret\n"
    "tail:\n"
    "	call 6f\n"
    "	add $2, %rax\n"
    "	dec %rdi\n"
    "	jnz tail\n"
    "	ret\n"
    "6:	test $3, %edi\n"
    "	jz 7f\n"
    "	jmp 8f\n"
    "7:	inc %rax\n"
    "8:	ret\n"
    /* Two stacks take turns; each calls and returns at its own pace. */
    "turns:\n"
    "	lea other_stack+2040(%rip), %rcx\n"
    "	lea there(%rip), %rdx\n"
    "	mov %rdx, (%rcx)\n"
    "	mov %rcx, other_sp(%rip)\n"
    "9:	call yield\n"
    "	inc %rax\n"
    "	dec %rdi\n"
    "	jnz 9b\n"
    "	ret\n"
    "there:	call deeper\n"
    "	add $1000, %rax\n"
    "	jmp there\n"
    "deeper: call yield\n"
    "	call yield\n"
    "	ret\n"
    "yield:	xchg %rsp, other_sp(%rip)\n"
    "	ret\n"
    /* The callee writes RDI into the instruction it returns to, or to the call first. */
    ".balign 64\n"
    "changed:\n"
    "	call change\n"
    "behind:	mov $0x11111111, %eax\n"
    "	ret\n"
    "changed_twice:\n"
    "	call change_both\n"
    "behind_both: mov $0x22222222, %eax\n"
    "	ret\n"
    /* RDI below 5? The code behind the jump overwrites flags before it asks, or it does not. */
    "known:\n"
    "	cmp %eax, %eax\n"
    "	setb %al\n"
    "	ret\n"
    ".balign 64\n"
    "compared:\n"
    "	lea stack(%rip), %rdx\n"
    "	cmp $5, %rdi\n"
    "	mov (%rdx), %rcx\n"
    "	jmp 1f\n"
    "	ud2\n"
    ".balign 64\n"
    "1:\n"
    "wants_flags:\n"
    "	cmp %eax, %eax\n"
    "	setb %al\n"
    "	ret\n"
    ".balign 4096\n"
    "change:\n"
    "	mov %edi, behind+1(%rip)\n"
    "	ret\n"
    "change_both:\n"
    "	movb $0xe8, changed_twice(%rip)\n"
    "	mov %edi, behind_both+1(%rip)\n"
    "	ret\n"
    ".popsection\n");

/* Loops without an end; RDI: the end of a stack. */
SNIP(by_returns, "1: lea 1b(%rip), %rcx\n push %rcx\n ret\n int3");
SNIP(by_two_returns, "1: lea 2f(%rip), %rcx\n push %rcx\n ret\n int3\n"
		     "2: lea 1b(%rip), %rcx\n push %rcx\n ret\n int3");
SNIP(by_calls, "1: mov %rdi, %rsp\n call 1b\n int3");
SNIP(by_calls_ahead, "1: mov %rdi, %rsp\n call 2f\n int3\n"
		     "2: lea 1b(%rip), %rcx\n push %rcx\n ret\n int3");
SNIP(by_calls_behind, "jmp 2f\n 1: ret\n 2: call 1b\n lea 2b(%rip), %rcx\n push %rcx\n ret\n int3");
SNIP(by_pointers, "lea 1f(%rip), %rcx\n 1: jmp *%rcx\n int3");
SNIP(by_called_pointers, "lea 1f(%rip), %rcx\n 1: mov %rdi, %rsp\n call *%rcx\n int3");
SNIP(by_jumps, "1: jmp 2f\n int3\n 2: jmp 1b\n int3");
SNIP(by_conditions, "1: test %rdi, %rdi\n jnz 1b\n int3");

SNIP(by_element, "1: mov -8(%rdi), %rax\n test %rdi, %rdi\n jnz 1b\n int3");
SNIP(by_elements, "1: lea -2048(%rdi), %rsi\n"
		  "2: mov (%rsi), %rax\n add $8, %rsi\n cmp %rdi, %rsi\n jne 2b\n jmp 1b\n int3");

/* RDI turns, each adds RDX to RAX; RBX: carries, R10: sums that are negative. */
SNIP(sums,
     "1: add %rdx, %rax\n jns 2f\n lea 1(%r10), %r10\n 2: adc $0, %rbx\n dec %rdi\n jnz 1b\n int3");

static void start_pit(u16 count)
{
	outb(0x43, 0x30); /* counter 0: once */
	outb(0x40, (u8)count);
	outb(0x40, (u8)(count >> 8));
}

/* Interrupted after so many ticks of the PIT, again and again. */
static bool sums_up(u16 ticks, u32 *interrupts)
{
	const ulong turns = 1000000, step = 0x2fffffffffffff17;
	ulong sum = 0, carries = 0, negative = 0;
	struct regs r;
	int vector;

	for (ulong n = 0; n < turns; n++) {
		const ulong before = sum;
		sum += step;
		carries += sum < before;
		negative += sum >> 63;
	}
	regs_init(&r, RING3, sums);
	r.fl |= FL_IF;
	r.ax = r.bx = r.r10 = 0;
	r.dx = step;
	r.di = turns;
	for (;;) {
		start_pit(ticks);
		vector = run(&r);
		if (vector != 0x20)
			break;
		pic_eoi(0);
		++*interrupts;
		r = trap.r;
	}
	return vector == 3 && trap.r.ax == sum && trap.r.bx == carries && trap.r.r10 == negative;
}

static bool ends_by_interrupt(const char *code, enum mode mode)
{
	struct regs r;

	regs_init(&r, mode, code);
	r.fl |= FL_IF;
	r.di = (ulong)(stack + STACK_WORDS);
	start_pit(0xa00); /* some 2 ms */
	const int vector = run(&r);
	pic_eoi(0);
	return vector == 0x20;
}

static void interrupted(void)
{
	static const struct {
		const char *name, *code;
	} loops[] = {
		{"returns", by_returns},
		{"returns in turn", by_two_returns},
		{"calls", by_calls},
		{"calls ahead and returns", by_calls_ahead},
		{"calls back and returns", by_calls_behind},
		{"jumps by a register", by_pointers},
		{"calls by a register", by_called_pointers},
		{"jumps", by_jumps},
		{"conditional jumps", by_conditions},
		{"an element that is read", by_element},
		{"elements, and a loop around them", by_elements},
	};
	enum { LOOPS = sizeof(loops) / sizeof(loops[0]), TIMES = 20 };
	u32 interrupts = 0;
	bool right = true;

	pic_init(0xfe, 0xff);
	for (u32 n = 0; n < LOOPS; n++) {
		bool good = true;
		for (u32 k = 0; k < TIMES; k++)
			good = good && ends_by_interrupt(loops[n].code, k % 2 ? RING0 : RING3);
		check(loops[n].name, good);
	}
	for (u32 k = 0; k < TIMES / 4; k++)
		right = right && sums_up(0x100, &interrupts);
	check("and goes on", right && interrupts);
	for (u32 k = 0; k < TIMES; k++)
		right = right && sums_up(k < TIMES / 2 ? 0x20 : 0x1000, &interrupts);
	check("and goes on, more often and less", right);
}

static ulong go(void (*code)(void), ulong arg)
{
	return on_stack(arg, stack + STACK_WORDS, code);
}

int main(void)
{
	bool good = true;

	group("returns");
	check_eq("deep recursion", go(deep, DEEP), DEEP);
	check_eq("calls that nobody returns from", go(unreturned, MANY), MANY);
	check_eq("recursion after them", go(deep, 300), 300);
	check_eq("returns without calls", go(uncalled, MANY), MANY);
	check_eq("recursion after these", go(deep, 300), 300);
	check_eq("return addresses changed", go(elsewhere, MANY), MANY);
	check_eq("jumps instead of a last call", go(tail, MANY), 2 * MANY + MANY / 4);
	check_eq("coroutines", go(turns, 3000), 3000 + 1000 * 1499);
	check_eq("deep recursion after all that", go(deep, DEEP), DEEP);
	for (u32 n = 1; n < 3000 && good; n++)
		good = go(changed, n) == n && go(changed_twice, 7 * n) == 7 * n;
	check("code behind a call that the call changes", good);
	for (u32 n = 1; n < 3000 && good; n++) {
		/* Seldom: what was changed last has been run often. */
		for (u32 k = 0; k < n % 50; k++)
			good = good && go(changed, n) == n;
		good = good && go(changed_twice, n) == n && go(deep, n % 90) == n % 90;
	}
	check("the same, with other calls between", good);
	good = go(known, 0) == 0; /* so that the translator knows this comparison */
	for (u32 n = 0; n < 2000; n++) {
		const bool wants = n / 40 % 2;
		if (n % 40 == 0)
			wants_flags = wants ? 0x9090 /* nop; nop */ : 0xc039;
		good = good && go(compared, n % 10) == (wants && n % 10 < 5);
	}
	check("flags for code that changes behind a jump", good);
	group("interrupted");
	interrupted();
	finish();
}
