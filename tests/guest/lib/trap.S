/* SPDX-License-Identifier: Apache-2.0 */
/* Exception stubs, the catch and throw pair, and the door into other modes. */
#include "selectors.h"

	.text
	/* 256 stubs of 16 bytes; those without an error code push a zero. */
	.balign 16
	.globl trap_stubs
trap_stubs:
	.set vector, 0
	.rept 256
	.balign 16
	.if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21
	push $0
	.endif
	push $vector
	jmp trap_common
	.set vector, vector + 1
	.endr

#ifdef __x86_64__
trap_common:
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
	mov %ds, %eax
	push %rax
	mov %es, %eax
	push %rax
	mov $KDATA, %eax
	mov %eax, %ds
	mov %eax, %es
	cld
	mov %rsp, %rdi
	mov %rsp, %rbx
	and $-16, %rsp
	call trap_entry
	mov %rbx, %rsp
	.globl trap_return
trap_return:
	pop %rax
	mov %eax, %es
	pop %rax
	mov %eax, %ds
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
	.globl trap_iret
trap_iret:
	iretq

	/* void enter(struct regs *frame_on_a_stack) */
	.globl enter
enter:
	mov %rdi, %rsp
	jmp trap_return

	.globl catch_set
catch_set:
	pop %rdx
	mov %rdx, catch_context
	mov %rsp, catch_context + 8
	mov %rbx, catch_context + 16
	mov %rbp, catch_context + 24
	mov %r12, catch_context + 32
	mov %r13, catch_context + 40
	mov %r14, catch_context + 48
	mov %r15, catch_context + 56
	push %rdx
	sub $8, %rsp
	call catch_begin
	add $8, %rsp
	xor %eax, %eax
	ret

	.globl catch_throw
catch_throw:
	mov $KDATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov catch_context + 8, %rsp
	mov catch_context + 16, %rbx
	mov catch_context + 24, %rbp
	mov catch_context + 32, %r12
	mov catch_context + 40, %r13
	mov catch_context + 48, %r14
	mov catch_context + 56, %r15
	push $2
	popf
	mov $1, %eax
	jmp *catch_context
#else
trap_common:
	pusha
	push %ds
	push %es
	push %fs
	push %gs
	mov $KDATA, %eax
	mov %eax, %ds
	mov %eax, %es
	cld
	push %esp
	call trap_entry
	add $4, %esp
	.globl trap_return
trap_return:
	pop %gs
	pop %fs
	pop %es
	pop %ds
	popa
	add $8, %esp
	.globl trap_iret
trap_iret:
	iret

	.globl enter
enter:
	mov 4(%esp), %esp
	jmp trap_return

	.globl catch_set
catch_set:
	pop %edx
	mov %edx, catch_context
	mov %esp, catch_context + 4
	mov %ebx, catch_context + 8
	mov %ebp, catch_context + 12
	mov %esi, catch_context + 16
	mov %edi, catch_context + 20
	push %edx
	call catch_begin
	xor %eax, %eax
	ret

	.globl catch_throw
catch_throw:
	mov $KDATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov catch_context + 4, %esp
	xor %eax, %eax
	mov %eax, %fs
	mov %eax, %gs
	mov catch_context + 8, %ebx
	mov catch_context + 12, %ebp
	mov catch_context + 16, %esi
	mov catch_context + 20, %edi
	push $2
	popf
	mov $1, %eax
	jmp *catch_context
#endif

	.globl exit_stub
exit_stub:
	int3

	.bss
	.balign 8
catch_context:
	.skip 64

	.section .note.GNU-stack, "", @progbits
