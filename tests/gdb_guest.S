/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest of test_gdb.py: a Multiboot kernel in 32-bit protected mode. The boot processor counts
 * in `counter`, a second one, when there is one, in `ap_counter`; neither ever ends.
 */
	.code32
	.section .text
	.globl _start, work, done_work, ap_loop, counter, ap_counter, copy, message
	.align 4
	.long 0x1badb002, 0, -0x1badb002

	.set TRAMPOLINE, 0x7000
	.set APIC, 0xfee00000

_start:
	mov $0x90000, %esp
	cld
	mov $trampoline, %esi
	mov $TRAMPOLINE, %edi
	mov $(trampoline_end - trampoline), %ecx
	rep movsb
	movl $0x1ff, APIC + 0xf0
	movl $(1 << 24), APIC + 0x310 /* to APIC id 1: INIT, then SIPI twice */
	movl $0x4500, APIC + 0x300
	call delay
	movl $(0x4600 | TRAMPOLINE >> 12), APIC + 0x300
	call delay
	movl $(0x4600 | TRAMPOLINE >> 12), APIC + 0x300
loop:
	incl counter
	call work
	jmp loop

work:
	mov counter, %eax
	mov %eax, copy
done_work:
	ret

delay:
	mov $3000000, %ecx
1:	loop 1b
	ret

	.code16
trampoline:
	cli
	lgdtl %cs:gdt_pointer - trampoline
	mov $0x11, %eax
	mov %eax, %cr0
	ljmpl $8, $ap_start
	.align 8
gdt_pointer:
	.word 23
	.long gdt
trampoline_end:

	.code32
ap_start:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %ss
ap_loop:
	incl ap_counter
	pause
	jmp ap_loop

	.align 8
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff
	.quad 0x00cf93000000ffff

	.data
counter:
	.long 0
copy:
	.long 0
ap_counter:
	.long 0
message:
	.asciz "a debugger reads this"
