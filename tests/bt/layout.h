/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_BT_LAYOUT_H
#define HANOK_TESTS_BT_LAYOUT_H

/*
 * The little machine that the programs run on (box.c), for C and for its kernel (kernel.S).
 *
 * User addresses, all below 4 GiB so that 32-bit code sees the same:
 *	CODE	pages to execute, not writable (WRITABLE_CODE: they are)
 *	DATA	writable pages, one that is read-only, one that is not there
 *	LAZY	pages that are not there until they are touched; the kernel brings them in and, every now
 *		and then, takes them away again
 *	SAFE	a writable page that only the programs' scaffolding uses: counters, jump tables
 *	STACK	with nothing below and above
 *	ALIAS	the code pages once more, to write to
 *	ALT	two more pages of code, which SWAP_VECTOR makes change places
 * All of it is there twice more, MOVED bytes further up and MOVED_AGAIN: the code can be run there, too.
 * The kernel's own things are in the upper half: HIGH + gpa, for all of the first 2 MiB.
 */
#define HIGH 0xffff800000000000

#define CODE_BASE 0x40000000
#define CODE_PAGES 4
#define CODE_BYTES (CODE_PAGES * 4096)
#define DATA_BASE 0x50000000
#define DATA_RW_PAGES 4
#define DATA_PAGES 5 /* the last one read-only */
#define DATA_BYTES (DATA_PAGES * 4096)
#define LAZY_BASE 0x50040000
#define LAZY_PAGES 2
#define LAZY_BYTES (LAZY_PAGES * 4096)
#define SAFE_BASE 0x50080000
#define STACK_BASE 0x500c0000
#define STACK_PAGES 2
#define STACK_BYTES (STACK_PAGES * 4096)

#define ALIAS_BASE 0x50100000
#define ALT_BASE 0x40100000
#define ALT_PAGES 2
#define ALT_BYTES (ALT_PAGES * 4096)
#define ALT_SLOT 64 /* bytes for a function there */

#define MOVED 0x550000000000
#define MOVED_AGAIN 0x7f8000000000

#define FS_BASE 0x1000
#define GS_BASE 0x23450

#define GPA_PML4 0x1000
#define GPA_PDPT 0x2000
#define GPA_PD 0x3000
#define GPA_PT_CODE 0x4000
#define GPA_PT_DATA 0x5000
#define GPA_PDPT_HIGH 0x6000
#define GPA_PD_HIGH 0x7000
#define GPA_GDT 0x8000
#define GPA_TSS 0x9000
#define GPA_IDT 0xa000
#define GPA_KERNEL 0x10000 /* 8 KiB: code */
#define GPA_PARAMS 0x18000
#define GPA_STACK_TOP 0x1f000
#define GPA_NEXT 0x20000 /* CODE_BYTES halfwords */
#define GPA_LOG 0x30000
#define GPA_STAGING 0x50000 /* what the kernel copies to CODE and ALT */
#define GPA_CODE 0x80000
#define GPA_ALT 0x84000
#define GPA_DATA 0x90000
#define GPA_LAZY 0xa0000
#define GPA_SAFE 0xb0000
#define GPA_STACK 0xc0000
#define GPA_SPARE 0xd0000  /* pages for what single tests need */
#define LOW_BYTES 0x100000 /* all of the above */

#define SEL_KERNEL 0x08
#define SEL_CODE32 0x23
#define SEL_DATA 0x2b
#define SEL_CODE64 0x33
#define SEL_TSS 0x40

/* GPA_PARAMS: struct params of bt.h */
#define P_COPY 0 /* quadwords to copy from staging to code */
#define P_LOG_COUNT 8
#define P_LOG_LIMIT 16
#define P_IRQS 24
#define P_SWAPS 32
#define P_AGAIN 40 /* RIP to start the program at once more when it has ended, or 0 */
#define P_FRAME 48 /* 15 registers, r15 first; then RIP, CS, RFLAGS, RSP, SS */

/* One event in the log: 21 quadwords used of 24. */
#define L_BYTES 192
#define L_VECTOR 120
#define L_ERROR 128
#define L_RIP 136
#define L_CS 144
#define L_RFLAGS 152
#define L_RSP 160
#define L_CR2 168
#define LOG_MAX 256

#define END_VECTOR 0x80
#define SWAP_VECTOR 0x81
#define FLAGS_ARITH_MASK 0x8d5

#endif
