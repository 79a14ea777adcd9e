/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real mode from a 32-bit image: real_enter() leaves protected mode, loads every register from
 * real_in and enters the code with IRET; any vector that real_run() left pointing at a stub ends
 * the visit, with the registers in real_out.
 */
#ifndef __x86_64__
#include "selectors.h"

	.text
	.code32
	.globl real_enter
real_enter:
	pusha
	mov %esp, saved_esp
	lidt real_idt
	ljmp $KCODE16, $to_real
back_to_c:
	mov $KDATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov saved_esp, %esp
	xor %eax, %eax
	mov %eax, %fs
	mov %eax, %gs
	popa
	ret

	.section .low, "awx"
	.code16
to_real:
	mov $KDATA16, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %fs
	mov %ax, %gs
	mov %ax, %ss
	mov %cr0, %eax
	and $~1, %eax
	mov %eax, %cr0
	ljmp $0, $1f
1:	xor %ax, %ax
	mov %ax, %ds
	mov real_in + 40, %ss
	mov real_in + 16, %esp
	pushw real_in + 46
	pushw real_in + 42
	pushw real_in + 44
	mov real_in + 0, %eax
	mov real_in + 4, %ecx
	mov real_in + 8, %edx
	mov real_in + 12, %ebx
	mov real_in + 20, %ebp
	mov real_in + 24, %esi
	mov real_in + 28, %edi
	mov real_in + 34, %es
	mov real_in + 36, %fs
	mov real_in + 38, %gs
	mov real_in + 32, %ds
	iretw

	.balign 16
	.globl real_stubs
real_stubs:
	.set vector, 0
	.rept 256
	.byte 0x68
	.word vector
	.byte 0xe9
	.word real_leave - (. + 2)
	.set vector, vector + 1
	.endr

	/* On the stack: vector, ip, cs, flags. */
real_leave:
	cli
	cld
	mov %eax, %cs:real_out + 0
	mov %ecx, %cs:real_out + 4
	mov %edx, %cs:real_out + 8
	mov %ebx, %cs:real_out + 12
	mov %ebp, %cs:real_out + 20
	mov %esi, %cs:real_out + 24
	mov %edi, %cs:real_out + 28
	mov %ds, %cs:real_out + 32
	mov %es, %cs:real_out + 34
	mov %fs, %cs:real_out + 36
	mov %gs, %cs:real_out + 38
	mov %ss, %cs:real_out + 40
	popw %cs:real_out + 48
	popw %cs:real_out + 44
	popw %cs:real_out + 42
	popw %cs:real_out + 46
	mov %esp, %cs:real_out + 16
	mov %cs, %ax
	mov %ax, %ds
	lgdtl gdt_low
	lidtl idt_low
	mov %cr0, %eax
	or $1, %eax
	mov %eax, %cr0
	ljmpl $KCODE32, $back_to_c

	.balign 4
	.globl real_in, real_out, real_idt
real_in:
	.skip 52
real_out:
	.skip 52
real_idt:
	.word 0x3ff
	.long 0
gdt_low:
	.word GDT_SLOTS * 8 - 1
	.long gdt
idt_low:
	.word 256 * 8 - 1
	.long idt

	.bss
saved_esp:
	.skip 4
#endif
	.section .note.GNU-stack, "", @progbits
