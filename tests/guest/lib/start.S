/* SPDX-License-Identifier: Apache-2.0 */
/* Multiboot 1 entry: 32-bit protected mode, paging off (Multiboot 0.6.96, 3.2). */
#include "selectors.h"

	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002
	.long 3
	.long -(0x1badb002 + 3)

	.text
	.code32
	.globl _start
_start:
	cli
	cld
	mov $stack_top, %esp
	mov %eax, mb_magic
	mov %ebx, mb_info
	lgdt gdt_pointer
	ljmp $KCODE32, $1f
1:	mov $KDATA, %ecx
	mov %ecx, %ds
	mov %ecx, %es
	mov %ecx, %ss
	xor %ecx, %ecx
	mov %ecx, %fs
	mov %ecx, %gs

	/* The low section is loaded above 1 MiB and belongs at 0x8000. */
	mov $low_load, %esi
	mov $low_start, %edi
	mov $low_end, %ecx
	sub $low_start, %ecx
	rep movsb

#ifdef __x86_64__
	call page_tables_fill
	call long_mode_on
	ljmp $KCODE, $2f
	.code64
2:	mov $stack_top, %rsp
#else
	ljmp $KCODE, $2f
2:
#endif
	call lib_main
3:	hlt
	jmp 3b

#ifdef __x86_64__
	.code32
	/* Identity map of 4 GiB by 2 MiB pages, user-accessible, A and D clear. */
page_tables_fill:
	mov $boot_pml4, %edi
	movl $boot_pdpt + 7, (%edi)
	mov $boot_pdpt, %edi
	mov $boot_pd + 7, %eax
	mov $4, %ecx
1:	mov %eax, (%edi)
	add $8, %edi
	add $4096, %eax
	loop 1b
	mov $boot_pd, %edi
	mov $0x87, %eax
	mov $2048, %ecx
1:	mov %eax, (%edi)
	add $8, %edi
	add $0x200000, %eax
	loop 1b
	ret

	/* Also used by the application processors (smp.S). */
	.globl long_mode_on
long_mode_on:
	mov %cr4, %eax
	or $0x20, %eax
	mov %eax, %cr4
	mov $boot_pml4, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx
	rdmsr
	or $0x900, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80000000, %eax
	mov %eax, %cr0
	ret
#endif

	.data
	.balign 16
	.globl gdt, gdt_pointer
gdt:
	.quad 0
#ifdef __x86_64__
	.quad 0x00af9b000000ffff
#else
	.quad 0x00cf9b000000ffff
#endif
	.quad 0x00cf93000000ffff
	.quad 0x00cf9b000000ffff
	.quad 0x00cffb000000ffff
	.quad 0x00cff3000000ffff
#ifdef __x86_64__
	.quad 0x00affb000000ffff
#else
	.quad 0x0000fb000000ffff
#endif
	.quad 0x00009b000000ffff
#ifdef __x86_64__
	.quad 0x00af9b000000ffff
#else
	.quad 0x00cf9b000000ffff
#endif
	.quad 0x00cf93000000ffff
	.quad 0x00cffb000000ffff
	.quad 0x00cff3000000ffff
#ifdef __x86_64__
	.quad 0x00affb000000ffff
#else
	.quad 0x00cffb000000ffff
#endif
	.quad 0x00cff3000000ffff
	.quad 0
	.quad 0
	.quad 0x000093000000ffff
	.quad 0x0000f3000000ffff
	.quad 0x00cfbb000000ffff
	.quad 0x00cfb3000000ffff
	.quad 0x00cfdb000000ffff
	.quad 0x00cfd3000000ffff
	.fill GDT_SLOTS - (. - gdt) / 8, 8, 0
gdt_pointer:
	.word GDT_SLOTS * 8 - 1
	.long gdt
	.long 0

	.globl mb_magic, mb_info
mb_magic:
	.long 0
mb_info:
	.long 0

	.bss
	.balign 4096
#ifdef __x86_64__
	.globl boot_pml4, boot_pdpt, boot_pd
boot_pml4:
	.skip 4096
boot_pdpt:
	.skip 4096
boot_pd:
	.skip 4 * 4096
#endif
	.skip 16384
stack_top:
	.skip 16384
	.globl trap_stack_top, user_stack_top
trap_stack_top:
	.skip 16384
user_stack_top:
	.skip 64

	.section .note.GNU-stack, "", @progbits
