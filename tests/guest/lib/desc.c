/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptor tables (Intel SDM volume 3, 3.4.5, 6.11 and 7.2). */
#include "guest.h"

#ifdef __x86_64__
#define GATE_BYTES 16
#define IDT_DF_IST 1
#else
#define GATE_BYTES 8
#define IDT_DF_IST 0
#endif

u8 idt[256 * GATE_BYTES] __attribute__((aligned(16)));
u8 tss[TSS_SIZE] __attribute__((aligned(16)));
static u8 df_stack[4096] __attribute__((aligned(16)));

/* flags: the high nibble of byte 6 (G, D/B, L, AVL); limit in units of G. */
u64 desc_make(u32 base, u32 limit, u32 access, u32 flags)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
	       (u64)(limit >> 16 & 15) << 48 | (u64)flags << 52 | (u64)(base >> 24) << 56;
}

void gdt_set(u32 selector, u32 base, u32 limit, u32 access, u32 flags)
{
	gdt[selector / 8] = desc_make(base, limit, access, flags);
}

/* type_dpl: byte 5 of the gate, present bit included (0x8e: interrupt gate, DPL 0). */
void gate_set(u32 vector, u32 selector, const void *handler, u32 type_dpl, u32 ist)
{
	u32 *gate = (u32 *)(idt + vector * GATE_BYTES);
	ulong ip = (ulong)handler;

	gate[0] = (ip & 0xffff) | selector << 16;
	gate[1] = (ip & 0xffff0000) | type_dpl << 8 | ist;
#ifdef __x86_64__
	gate[2] = ip >> 32;
	gate[3] = 0;
#endif
}

/* An interrupt gate to the vector's stub; INT3 and INTO also from ring 3. */
void gate_reset(u32 vector)
{
	gate_set(vector, KCODE, trap_stubs + vector * 16,
		 vector == BP || vector == OF ? 0xee : 0x8e, vector == DF ? IDT_DF_IST : 0);
}

void idt_load(void)
{
	struct {
		u16 limit;
		ulong base;
	} __attribute__((packed)) pointer = {sizeof(idt) - 1, (ulong)idt};

	for (u32 i = 0; i < 256; i++)
		gate_reset(i);
	asm volatile("lidt %0" ::"m"(pointer));
}

void tss_load(void)
{
	u32 *t = (u32 *)tss;

	memset(tss, 0, TSS_SIZE);
	memset(tss + TSS_IOMAP, 0xff, TSS_SIZE - TSS_IOMAP);
	t[25] = TSS_IOMAP << 16;
#ifdef __x86_64__
	t[1] = (ulong)trap_stack_top;
	t[9] = (ulong)(df_stack + sizeof(df_stack));
#else
	(void)df_stack;
	t[1] = (ulong)trap_stack_top;
	t[2] = KDATA;
#endif
	gdt_set(TSS_SEL, (ulong)tss, TSS_SIZE - 1, 0x89, 0);
	asm volatile("ltr %w0" ::"r"(TSS_SEL));
}
