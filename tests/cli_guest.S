/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest of test_cli.py: a Multiboot kernel whose command line is a row of one-letter orders.
 *
 *   o  print "hello"                   p  power off (ACPI, PM1a_CNT)
 *   e  echo input until a q (break: ^) r  reset by port CF9h, but only in the first boot
 *   f  print 200000 digits             k  the same by the keyboard controller
 *   d  write 5 to the debug exit port  t  triple fault
 *   b  run in circles                  s  sleep for good with interrupts off (also at the end)
 */
	.code32
	.section .text
	.globl _start
	.align 4
	.long 0x1badb002, 0, -0x1badb002

	.set BOOTS, 0x500000 /* beyond the image: it stays over a reset */

_start:
	mov $0x80000, %esp
	mov 16(%ebx), %esi /* the command line */
	incl BOOTS
	mov $0x3fb, %dx    /* LCR: 8 bits */
	mov $3, %al
	out %al, %dx
next:
	lodsb
	cmp $'o', %al
	je hello
	cmp $'p', %al
	je power_off
	cmp $'e', %al
	je echo
	cmp $'r', %al
	je reset
	cmp $'f', %al
	je flood
	cmp $'k', %al
	je keyboard_reset
	cmp $'d', %al
	je debug_exit
	cmp $'t', %al
	je triple_fault
	cmp $'b', %al
	je busy
sleep:
	cli
	hlt
	jmp sleep
busy:
	jmp busy

putc:
	push %eax
	mov $0x3fd, %dx
1:	in %dx, %al
	test $0x20, %al
	jz 1b
	pop %eax
	mov $0x3f8, %dx
	out %al, %dx
	ret
hello:
	mov $text, %edi
1:	mov (%edi), %al
	inc %edi
	test %al, %al
	jz next
	call putc
	jmp 1b
echo:
	mov $0x3fd, %dx
	in %dx, %al
	test $1, %al
	jz echo
	mov %al, %ah
	mov $0x3f8, %dx
	in %dx, %al
	test $0x10, %ah /* LSR.BI */
	jz 1f
	mov $'^', %al
1:	cmp $'q', %al
	je next
	call putc
	jmp echo
flood:
	mov $20000, %ecx
1:	mov $'0', %al
2:	call putc
	inc %al
	cmp $':', %al
	jne 2b
	loop 1b
	jmp next
power_off:
	mov $0x604, %dx
	mov $0x3400, %ax /* SLP_EN, and 5 as SLP_TYP */
	out %ax, %dx
	jmp sleep
reset:
	cmpl $1, BOOTS
	jne next
	mov $0xcf9, %dx
	mov $2, %al
	out %al, %dx
	mov $6, %al
	out %al, %dx
	jmp sleep
keyboard_reset:
	cmpl $1, BOOTS
	jne next
	mov $0xfe, %al
	out %al, $0x64
	jmp sleep
debug_exit:
	mov $5, %al
	out %al, $0xf4
	jmp sleep
triple_fault:
	lidt no_idt
	ud2

text:
	.asciz "hello\n"
no_idt:
	.word 0
	.long 0
