/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same code at many addresses, one after the other and in turn, as shared libraries are in the
 * processes of a system with address space layout randomization. Three pages that call each other, ask
 * for their own address, read and change what lies among them, jump by a table, and fault.
 */
#include "guest.h"

#define BASE FAR_BASE
#define RW (PTE_P | PTE_W | PTE_U)

static u64 *table;

enum { PAGES = 3, PLACES = 160 };

/* Position-independent, three pages long. RBX: the first page's address; RSI: a word of memory. */
extern u8 moving[], moving_fault[], moving_end[], moving_imm[], moving_far[];
asm(".pushsection .data\n"
    ".balign 4096\n"
    "moving:\n"
    "	lea moving(%rip), %rbx\n"
    "	xor %eax, %eax\n"
    "	xor %r10d, %r10d\n"
    "	mov $6, %ecx\n"
    "1:	call near_one\n"
    "	call far_one\n"
    "	mov %ecx, %edx\n"
    "	and $1, %edx\n"
    "	lea ways(%rip), %r11\n"
    "	movslq (%r11,%rdx,4), %rdx\n"
    "	add %r11, %rdx\n"
    "	jmp *%rdx\n"
    "way_a:	add $1000, %rax\n"
    "	jmp 2f\n"
    "way_b:	add $2000, %rax\n"
    "2:	add %rax, (%rsi)\n"
    "	dec %ecx\n"
    "	jnz 1b\n"
    "	lea moving_fault(%rip), %rdx\n"
    "	sub %rbx, %rdx\n"
    "	add %rdx, %rax\n"
    "	test %rdi, %rdi\n"
    "	jz 3f\n"
    "	jmp faulting\n"
    "3:	int3\n"
    "moving_end:\n"
    "near_one:\n"
    "	push %rcx\n"
    "	mov $3, %ecx\n"
    "4:	add %rcx, %rax\n"
    "	loop 4b\n"
    "	pop %rcx\n"
    "	mov (%rsp), %rdx\n" /* where it goes back to, in the page */
    "	sub %rbx, %rdx\n"
    "	add %rdx, %rax\n"
    "	ret\n"
    ".balign 4096, 0xcc\n"
    "far_one:\n"
    "	mov $7, %edx\n"
    "moving_imm = . - 4\n"
    "	add %rdx, %rax\n"
    "	add word(%rip), %rax\n"
    "	call farther\n"
    "	inc %r10\n"
    "	ret\n"
    "faulting:\n"
    "	lea faulting(%rip), %rdx\n"
    "	sub %rbx, %rdx\n"
    "	add %rdx, %rax\n"
    "moving_fault:\n"
    "	mov (%rdi), %rdx\n"
    "	int3\n"
    ".balign 4096, 0xcc\n"
    "farther:\n"
    "moving_far:\n"
    "	lea near_one(%rip), %rdx\n"
    "	sub %rbx, %rdx\n"
    "	add %rdx, %rax\n"
    "	jmp back\n"
    "	.balign 8\n"
    "word:	.quad 5\n"
    "ways:	.long way_a - ways, way_b - ways\n"
    ".balign 64\n"
    "back:	add %r10, %rax\n"
    "	ret\n"
    ".balign 4096, 0xcc\n"
    ".popsection\n");

static u64 word_there;

/* All pages at one place and nowhere else. */
static u8 *put(u32 place)
{
	const u32 first = place * PAGES;

	memset(table, 0, 4096);
	for (u32 i = 0; i < PAGES; i++)
		table[first + i] = ((ulong)moving + i * 4096) | RW;
	write_cr3(read_cr3());
	return (u8 *)(BASE + first * 4096ul);
}

static ulong go(u8 *code, u64 fault_at)
{
	struct regs r;

	regs_init(&r, RING3, code);
	r.si = (ulong)&word_there;
	r.di = fault_at;
	run(&r);
	return trap.r.ax;
}

static void visit(const char *name, u32 place, ulong want)
{
	u8 *code = put(place);
	ulong got = go(code, 0);

	if (got != want || trap.r.vec != 3 || trap.r.bx != (ulong)code ||
	    trap.r.ip != (ulong)code + (ulong)(moving_end - moving)) {
		say("place %u", place);
		check_eq(name, got, want);
		check_trap(name, 3, 0, (ulong)code + (ulong)(moving_end - moving));
		finish();
	}
}

static void faults(u32 place)
{
	u8 *code = put(place);
	const ulong nowhere = BASE + 0x1ff000;

	go(code, nowhere);
	if (trap.r.vec != 14 || trap.cr2 != nowhere ||
	    trap.r.ip != (ulong)code + (ulong)(moving_fault - moving)) {
		say("place %u", place);
		check_eq("a fault is at the place where the code is now", trap.r.ip,
			 (ulong)code + (ulong)(moving_fault - moving));
		finish();
	}
}

int main(void)
{
	u32 lots = 1;

	table = far_table();

	group("moved");
	put(0);
	const ulong want = go((u8 *)BASE, 0);
	check_trap("the first time", 3, 0, BASE + (ulong)(moving_end - moving));
	for (u32 place = 0; place < PLACES; place++)
		visit("at every place", place, want);
	check("at every place", true);
	for (u32 place = PLACES; place-- > 0;)
		visit("the way back", place, want);
	check("the way back", true);
	for (u32 n = 0; n < 400; n++) {
		lots = lots * 1664525 + 1013904223;
		visit("a few in turn", (lots >> 16) % 9, want);
	}
	check("a few in turn", true);
	for (u32 n = 0; n < 400; n++) {
		lots = lots * 1664525 + 1013904223;
		visit("many in turn", (lots >> 16) % 40, want);
		if (n % 7 == 0)
			faults((lots >> 20) % PLACES);
	}
	check("many in turn, with faults", true);
	for (u32 n = 0; n < 200; n++) {
		lots = lots * 1664525 + 1013904223;
		/* By its own address, and by the other one that the kernel has. */
		u8 *imm = n % 2 ? moving_imm : put((lots >> 16) % PLACES) + (moving_imm - moving);
		*(volatile u32 *)imm = n;
		visit("changed between", (lots >> 8) % PLACES, want + 6ul * n - 6ul * 7);
	}
	check("changed between", true);
	finish();
}
