/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel of the little machine (layout.h): loads a program, starts it in user mode, and writes down every
 * exception. Position-independent; copied to HIGH + GPA_KERNEL.
 */
#include "layout.h"

	.section .rodata
	.balign 16
	.globl kernel_begin, kernel_load, kernel_end, kernel_syscall
kernel_begin:
	/* 256 entries of 16 bytes. */
	.set vector, 0
	.rept 256
	.balign 16
	.if vector != 8 && (vector < 10 || vector > 14) && vector != 17
	push $0
	.endif
	push $vector
	jmp event
	.set vector, vector + 1
	.endr

	/* Copies the program to where it runs, through another address, and goes there. */
	.balign 16
kernel_load:
	mov $HIGH + GPA_PARAMS, %rbx
	mov $HIGH + GPA_STAGING, %rsi
	mov $HIGH + GPA_CODE, %rdi
	mov P_COPY(%rbx), %rcx
	cld
	rep movsq
	lea P_FRAME(%rbx), %rsp
	jmp leave

	.balign 16
kernel_syscall:
	hlt

	.balign 16
event:
	push %rax
	push %rcx
	push %rdx
	push %rbx
	push %rbp
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	cld
	mov $HIGH + GPA_PARAMS, %rbx
	mov L_VECTOR(%rsp), %rax
	cmp $END_VECTOR, %eax
	je note
	cmp $32, %eax
	jb note
	cmp $SWAP_VECTOR, %eax
	je swap
	incq P_IRQS(%rbx)
	jmp leave

	/* The alternative pages change places; the TLB learns of it in one of two ways. */
swap:
	mov $HIGH + GPA_PT_CODE + 8 * ((ALT_BASE >> 12) & 511), %rdi
	mov (%rdi), %rax
	xchg %rax, 8(%rdi)
	mov %rax, (%rdi)
	incq P_SWAPS(%rbx)
	testb $1, P_SWAPS(%rbx)
	jz 1f
	cmpl $0, L_RIP + 4(%rsp)
	jne 1f /* it is mapped elsewhere, too */
	mov $ALT_BASE, %edi
	invlpg (%rdi)
	invlpg 4096(%rdi)
	jmp leave
1:
	mov %cr3, %rax
	mov %rax, %cr3
	jmp leave

	/* Into the log: the registers, the frame, CR2. */
note:
	mov P_LOG_COUNT(%rbx), %rdx
	cmp P_LOG_LIMIT(%rbx), %rdx
	jae stop
	imul $L_BYTES, %rdx, %rdi
	mov $HIGH + GPA_LOG, %rcx
	add %rcx, %rdi
	mov %rsp, %rsi
	mov $21, %ecx
	mov %rdi, %rbp
	rep movsq
	inc %rdx
	mov %rdx, P_LOG_COUNT(%rbx)
	xor %esi, %esi
	cmp $14, %eax
	jne 1f
	mov %cr2, %rsi
1:
	mov %rsi, L_CR2(%rbp)
	cmp $END_VECTOR, %eax
	je end
	/* Now and then the lazy pages go away. */
	test $3, %dl
	jnz 2f
	mov $HIGH + GPA_PT_DATA + 8 * ((LAZY_BASE >> 12) & 511), %rdi
	andq $~1, (%rdi)
	andq $~1, 8(%rdi)
	mov $LAZY_BASE, %edi
	invlpg (%rdi)
	invlpg 4096(%rdi)
	mov %cr3, %rdi
	mov %rdi, %cr3
2:
	cmp $14, %eax
	je page_fault
	cmp $16, %eax
	jne 3f
	fnclex
3:
	cmp $19, %eax
	jne 4f
	movl $0x1f80, L_VECTOR(%rsp)
	ldmxcsr L_VECTOR(%rsp)
4:
	/* Traps go on after the instruction as it is. */
	cmp $1, %eax
	je leave
	cmp $3, %eax
	je leave
	cmp $4, %eax
	je leave

	/* To the next instruction, as the table says; 0: there is none. Arithmetic flags are then clear. */
skip:
	movl L_RIP(%rsp), %edx /* the low half is the same wherever the code runs */
	mov L_RFLAGS(%rsp), %rsi
	and $~FLAGS_ARITH_MASK, %rsi
	mov %rsi, L_RFLAGS(%rsp)
	sub $CODE_BASE, %edx
	cmp $CODE_BYTES, %edx
	jae stop
	mov $HIGH + GPA_NEXT, %rcx
	movzwl (%rcx, %rdx, 2), %edx
	test %edx, %edx
	jz stop
	add $CODE_BASE, %edx
	mov %edx, L_RIP(%rsp)
	jmp leave

page_fault:
	movl L_CR2(%rbp), %esi
	sub $LAZY_BASE, %esi
	cmp $LAZY_BYTES, %esi
	jae skip
	testb $1, L_ERROR(%rsp)
	jnz skip
	shr $12, %rsi
	mov $HIGH + GPA_PT_DATA + 8 * ((LAZY_BASE >> 12) & 511), %rdi
	orq $1, (%rdi, %rsi, 8)

leave:
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rbp
	pop %rbx
	pop %rdx
	pop %rcx
	pop %rax
	add $16, %rsp
	iretq

	/* Once more, elsewhere, with the registers of the start. */
end:
	mov P_AGAIN(%rbx), %rax
	test %rax, %rax
	jz stop
	movq $0, P_AGAIN(%rbx)
	mov %rax, P_FRAME + 17 * 8(%rbx)
	lea P_FRAME(%rbx), %rsp
	jmp leave

stop:
	hlt
	jmp stop
kernel_end:

	.section .note.GNU-stack, "", @progbits
