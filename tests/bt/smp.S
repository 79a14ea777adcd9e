/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two processors of smp.c run, in ring 0. RDI is the shared struct smp, RSI the arrays of this run, ECX how
 * often. Position-independent; copied to HIGH + GPA_SPARE. Each test has an entry for each of the two; both wait
 * for the other one first.
 */
#include "layout.h"
#include "smp.h"

	/* For the insides of quotes, where the preprocessor does not look. */
	.set s_counter, S_COUNTER
	.set s_split, S_SPLIT
	.set s_cross, S_CROSS

	.section .rodata
	.balign 16
	.globl smp_begin, smp_end, smp_entries, smp_ipi
smp_begin:

	.macro meet
	lock incl S_HERE(%rdi)
1:	pause
	cmpl $2, S_HERE(%rdi)
	jb 1b
	.endm

	/* One side of a litmus test: \body for each cell, whose two variables are at (%rsi) and 64(%rsi); it leaves
	 * results in EAX and EDX, which go to \out in the cell. */
	.macro litmus out, body
	meet
	/* Wait for the other one to come to this cell, so that they are in it together. */
1:	mov %ecx, S_PLACE + (\out - CELL_OUT0)(%rdi)
2:	cmp %ecx, S_PLACE + (CELL_OUT1 - \out)(%rdi)
	ja 2b
	xor %eax, %eax
	xor %edx, %edx
	\body
	mov %eax, \out(%rsi)
	mov %edx, \out + 4(%rsi)
	add $CELL_BYTES, %rsi
	dec %ecx
	jnz 1b
	hlt
	.endm

	.macro locked body
	meet
1:	\body
	dec %ecx
	jnz 1b
	hlt
	.endm

sb_0:	litmus CELL_OUT0, "movl $1, (%rsi); mov 64(%rsi), %eax"
sb_1:	litmus CELL_OUT1, "movl $1, 64(%rsi); mov (%rsi), %eax"
sb_fence_0: litmus CELL_OUT0, "movl $1, (%rsi); mfence; mov 64(%rsi), %eax"
sb_fence_1: litmus CELL_OUT1, "movl $1, 64(%rsi); mfence; mov (%rsi), %eax"
sb_xchg_0: litmus CELL_OUT0, "mov $1, %edx; xchg %edx, (%rsi); mov 64(%rsi), %eax"
sb_xchg_1: litmus CELL_OUT1, "mov $1, %edx; xchg %edx, 64(%rsi); mov (%rsi), %eax"
sb_lock_0: litmus CELL_OUT0, "movl $1, (%rsi); lock addl $0, (%rsp); mov 64(%rsi), %eax"
sb_lock_1: litmus CELL_OUT1, "movl $1, 64(%rsi); lock addl $0, (%rsp); mov (%rsi), %eax"
mp_0:	litmus CELL_OUT0, "movl $1, (%rsi); movl $1, 64(%rsi)"
mp_1:	litmus CELL_OUT1, "mov 64(%rsi), %eax; mov (%rsi), %edx"
lb_0:	litmus CELL_OUT0, "mov (%rsi), %eax; movl $1, 64(%rsi)"
lb_1:	litmus CELL_OUT1, "mov 64(%rsi), %eax; movl $1, (%rsi)"
s2w_0:	litmus CELL_OUT0, "movl $1, (%rsi); movl $2, 64(%rsi)"
s2w_1:	litmus CELL_OUT1, "movl $1, 64(%rsi); movl $2, (%rsi)"
	/* Own stores are seen at once, the other's perhaps not (SDM Vol. 3, 9.2.3.5). */
fwd_0:	litmus CELL_OUT0, "movl $1, (%rsi); mov (%rsi), %eax; mov 64(%rsi), %edx"
fwd_1:	litmus CELL_OUT1, "movl $1, 64(%rsi); mov 64(%rsi), %eax; mov (%rsi), %edx"
corr_0:	litmus CELL_OUT0, "movl $1, (%rsi); movl $2, (%rsi)"
corr_1:	litmus CELL_OUT1, "mov (%rsi), %eax; mov (%rsi), %edx"
	/* Whole quadwords only. */
whole_0: litmus CELL_OUT0, "movq $-1, (%rsi); movq $0, (%rsi); movq $-1, (%rsi)"
whole_1: litmus CELL_OUT1, "mov (%rsi), %rax; mov %rax, %rdx; shr $32, %rdx"

	/* Counters, the same for both. */
inc:	locked "lock incq s_counter(%rdi)"
xadd:	locked "mov $1, %eax; lock xadd %rax, s_counter(%rdi)"
cmpxchg: locked "mov s_counter(%rdi), %rax; 2: lea 1(%rax), %rdx; lock cmpxchg %rdx, s_counter(%rdi); jne 2b"
	/* A counter that runs over a cache line's end; and over a page's. */
split:	locked "lock incq s_split(%rdi)"
cross:	locked "lock incq s_cross(%rdi)"
	/* In translated code registers 10 and 11 are special. */
xadd11:	locked "mov $1, %r11d; lock xadd %r11, s_counter(%rdi)"
	.balign 16
wide:	/* 128 bits, both halves counted */
	mov %ecx, %r8d
	meet
1:	mov S_WIDE(%rdi), %rax
	mov S_WIDE + 8(%rdi), %rdx
2:	lea 1(%rax), %rbx
	lea 1(%rdx), %rcx
	lock cmpxchg16b S_WIDE(%rdi)
	jne 2b
	dec %r8d
	jnz 1b
	hlt
spin:	/* a counter under a lock */
	meet
1:	mov $1, %eax
	xchg %eax, S_LOCK(%rdi)
	test %eax, %eax
	jz 3f
2:	pause
	cmpl $0, S_LOCK(%rdi)
	jne 2b
	jmp 1b
3:	mov S_COUNTER(%rdi), %rax
	inc %rax
	mov %rax, S_COUNTER(%rdi)
	movl $0, S_LOCK(%rdi)
	dec %ecx
	jnz 1b
	hlt
bits:	/* every bit of a bitmap is taken by one of them */
	meet
1:	lea -1(%rcx), %eax
	lock bts %rax, S_BITS(%rdi)
	jc 2f
	lock incq S_COUNTER(%rdi)
2:	dec %ecx
	jnz 1b
	hlt

	/* Code changed by one, run by the other: the number in the code must be that of the flag. */
	.balign 64
victim:	mov $0, %eax
	ret
	.balign 64
modify_0:
	lea victim(%rip), %rbx
	movl $0, 1(%rbx)
	meet
	mov $1, %edx
1:	mov %edx, 1(%rbx)
	mov %edx, S_FLAG(%rdi)
2:	pause
	cmp S_ACK(%rdi), %edx
	jne 2b
	inc %edx
	dec %ecx
	jnz 1b
	hlt
modify_1:
	mov %ecx, %r8d
	meet
	mov $1, %r9d
1:	pause
	cmp S_FLAG(%rdi), %r9d
	jne 1b
	xor %eax, %eax
	cpuid
	call victim
	cmp %eax, %r9d
	je 2f
	incq S_WRONG(%rdi)
2:	mov %r9d, S_ACK(%rdi)
	inc %r9d
	dec %r8d
	jnz 1b
	hlt

	/* The same, but the other runs the code all the while: so it may be read again at any moment of its
	 * being changed. Its number is never less than that of the flag, which is written after it. */
modify_often_1:
	mov %ecx, %r8d
	meet
1:	mov S_FLAG(%rdi), %r9d
	xor %eax, %eax
	cpuid
	call victim
	cmp %r9d, %eax
	jae 2f
	incq S_WRONG(%rdi)
2:	mov %r9d, S_ACK(%rdi)
	cmp %r8d, %r9d
	jne 1b
	hlt

	/* A page that is one of four, changed by one; the other is told by an interrupt. What it then reads
	 * there, and what runs there, is the page of the number it saw before or a later one. */
remap_0:
	mov $HIGH + GPA_PT_CODE + 8 * ((ALT_BASE >> 12) & 511), %rbx
	meet
	mov $1, %r8d
1:	mov %r8d, %eax
	and $3, %eax
	shl $12, %eax
	add $GPA_FOUR + 3, %eax
	mov %rax, (%rbx)
	mov $ALT_BASE, %eax
	invlpg (%rax)
	mov %eax, %eax
	out %al, $PORT_IPI
2:	pause
	cmp S_ACK(%rdi), %r8d
	jne 2b
	mov %r8d, S_FLAG(%rdi)
	inc %r8d
	dec %ecx
	jnz 1b
	movl $1, S_DONE(%rdi)
	hlt
remap_1:
	mov $ALT_BASE, %ebx
	meet
	sti
1:	mov S_FLAG(%rdi), %r8d
	mov 64(%rbx), %eax
	sub %r8d, %eax
	and $3, %eax
	cmp $1, %eax
	ja 3f
2:	mov S_FLAG(%rdi), %r8d
	call *%rbx
	sub %r8d, %eax
	and $3, %eax
	cmp $1, %eax
	ja 3f
	cmpl $0, S_DONE(%rdi)
	je 1b
	cli
	hlt
3:	/* the flag may have gone on meanwhile */
	cmp S_FLAG(%rdi), %r8d
	jne 1b
	incq S_WRONG(%rdi)
	jmp 1b

smp_ipi:
	push %rax
	mov $ALT_BASE, %eax
	invlpg (%rax)
	incl S_ACK(%rdi)
	pop %rax
	iretq
smp_end:

	/* In the order of smp.c's table: offsets of both entries. */
	.balign 4
smp_entries:
	.macro entry a, b
	.long \a - smp_begin, \b - smp_begin
	.endm
	entry sb_0, sb_1
	entry sb_fence_0, sb_fence_1
	entry sb_xchg_0, sb_xchg_1
	entry sb_lock_0, sb_lock_1
	entry mp_0, mp_1
	entry lb_0, lb_1
	entry s2w_0, s2w_1
	entry fwd_0, fwd_1
	entry corr_0, corr_1
	entry whole_0, whole_1
	entry inc, inc
	entry xadd, xadd
	entry cmpxchg, cmpxchg
	entry split, split
	entry cross, cross
	entry xadd11, xadd11
	entry wide, wide
	entry spin, spin
	entry bits, bits
	entry modify_0, modify_1
	entry modify_0, modify_often_1
	entry remap_0, remap_1

	.section .note.GNU-stack, "", @progbits
