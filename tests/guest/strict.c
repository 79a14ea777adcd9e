/* SPDX-License-Identifier: Apache-2.0 */
/* What the manuals forbid and QEMU's TCG lets through, to its own ruin: not run under QEMU. */
#include "guest.h"

#define NON_CANONICAL 0x0000800000000000ul

SNIP(ring3_hlt, "hlt");

static volatile u32 irq13;

static bool on_irq13(struct regs *r)
{
	(void)r;
	irq13++;
	outb(0xf0, 0);
	asm volatile("fnclex");
	pic_eoi(13);
	return true;
}

static void ferr(void)
{
	group("ferr");
	pic_init(0xfb, 0xdf);
	trap_hook[0x2d] = on_irq13;
	write_cr0(read_cr0() & ~(ulong)(CR0_NE | CR0_EM | CR0_TS));
	asm volatile("fninit");
	asm volatile("fldcw %0" ::"m"((u16){0x37b}));
	sti();
	CATCH(asm volatile("fld1\n\tfldz\n\tfdivrp\n\tfwait"));
	for (u32 i = 0; i < 100000 && !irq13; i++)
		pause();
	cli();
	check_eq("an error with NE clear is IRQ13", (u64)trap.r.vec << 8 | irq13, NOTRAP << 8 | 1);
	asm volatile("fninit");
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

int main(void)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) table = {0x7f, NON_CANONICAL};
	ulong cr4 = read_cr4(), cr3 = read_cr3();
	struct regs r;

	group("strict");
	FAULT("lgdt: base not canonical", GP, 0, "lgdt %0", ::"m"(table));
	FAULT("lidt: base not canonical", GP, 0, "lidt %0", ::"m"(table));
	FAULT("cr4: bit 15", GP, 0, "mov %0, %%cr4", ::"r"(cr4 | 1ul << 15));
	FAULT("cr4: bit 31", GP, 0, "mov %0, %%cr4", ::"r"(cr4 | 1ul << 31));
	FAULT("cr4: bit 63", GP, 0, "mov %0, %%cr4", ::"r"(cr4 | 1ul << 63));
	if (cpu_features_1_ecx & 1 << 17) {
		write_cr3(cr3 | PTE_PCD);
		FAULT("cr4: PCIDE while CR3 bits 11:0 are not 0", GP, 0, "mov %0, %%cr4",
		      ::"r"(cr4 | CR4_PCIDE));
		write_cr3(cr3);
	} else {
		FAULT("cr4: PCIDE without PCID", GP, 0, "mov %0, %%cr4", ::"r"(cr4 | CR4_PCIDE));
	}
	if (!(cpu_features_7_ebx & 1 << 20))
		FAULT("cr4: SMAP without SMAP", GP, 0, "mov %0, %%cr4", ::"r"(cr4 | CR4_SMAP));
	else
		NOFAULT("cr4: SMAP where CPUID has it", "mov %0, %%cr4\n\tmov %1, %%cr4",
			::"r"(cr4 | CR4_SMAP), "r"(cr4));
	FAULT("cr3: bit 62", GP, 0, "mov %0, %%cr3", ::"r"(cr3 | 1ul << 62));
	FAULT("cr3: bit 63 without PCIDE", GP, 0, "mov %0, %%cr3", ::"r"(cr3 | 1ul << 63));
	FAULT("cr0: clear PG in 64-bit mode", GP, 0, "mov %0, %%cr0",
	      ::"r"(read_cr0() & 0x7ffffffful));
	FAULT("cr0: high half", GP, 0, "mov %0, %%cr0", ::"r"(read_cr0() | 1ul << 32));
	FAULT("cr4: clear PAE", GP, 0, "mov %0, %%cr4", ::"r"(cr4 & ~(ulong)CR4_PAE));
	FAULT("efer: LME while paging", GP, 0, "wrmsr", ::"c"(MSR_EFER),
	      "a"((u32)rdmsr(MSR_EFER) & ~EFER_LME), "d"(0));
	check_eq("cr4 is as before", read_cr4(), cr4);
	check_eq("cr3 is as before", read_cr3(), cr3);

	/* rsp0 not canonical: #SS in the delivery of #GP; the double fault has its own stack. */
	ulong rsp0 = *(ulong *)(tss + 4);
	*(ulong *)(tss + 4) = NON_CANONICAL;
	regs_init(&r, RING3, ring3_hlt);
	run(&r);
	*(ulong *)(tss + 4) = rsp0;
	check_trap("rsp0 not canonical: double fault", DF, 0, 0);
	ferr();
	return 0;
}
