/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>

#include "machine/boot/internal.h"

/*
 * The boot processor at a kernel's entry. 32-bit: protected mode, paging off, flat segments (boot
 * protocol 2.15 "32-bit Boot Protocol", PVH, Multiboot 3.2 want the same). 64-bit: long mode with
 * an identity map ("64-bit Boot Protocol"). Interrupts are off in both.
 */
enum {
	CODE32 = SEG_P | SEG_S | SEG_TYPE_CODE | SEG_TYPE_WR | SEG_TYPE_ACCESSED | SEG_DB | SEG_G,
	CODE64 = SEG_P | SEG_S | SEG_TYPE_CODE | SEG_TYPE_WR | SEG_TYPE_ACCESSED | SEG_L | SEG_G,
	DATA = SEG_P | SEG_S | SEG_TYPE_WR | SEG_TYPE_ACCESSED | SEG_DB | SEG_G,
	TSS_BUSY = SEG_P | 0xb, /* system type Bh: busy TSS, 32- or 64-bit (SDM 3.5) */
	TSS_LIMIT = 0x67,
};

/* As entries of a descriptor table (SDM 3.4.5), limit FFFFFh pages. */
#define GDT_CODE32 UINT64_C(0x00cf9b000000ffff)
#define GDT_CODE64 UINT64_C(0x00af9b000000ffff)
#define GDT_DATA UINT64_C(0x00cf93000000ffff)

static void flat_segments(struct cpu_state *s, uint32_t code)
{
	for (int i = 0; i < SEG_NR; i++)
		s->seg[i] = (struct segment){.sel = BOOT_DS, .attr = DATA, .limit = UINT32_MAX};
	s->seg[SEG_CS] = (struct segment){.sel = BOOT_CS, .attr = code, .limit = UINT32_MAX};
	s->tr = (struct segment){.sel = 0, .attr = TSS_BUSY, .limit = TSS_LIMIT};
	s->ldtr = (struct segment){.attr = SEG_UNUSABLE};
	s->idt = (struct table_reg){0};
	s->rflags = FLAG_R1;
	memset(s->gpr, 0, sizeof(s->gpr));
}

void entry_flat32(struct cpu_state *s, uint64_t rip)
{
	flat_segments(s, CODE32);
	s->gdt = (struct table_reg){0};
	s->cr0 = CR0_PE | CR0_ET;
	s->cr3 = 0;
	s->cr4 = 0;
	s->efer = 0;
	s->rip = rip;
}

void entry_long64(struct cpu_state *s, uint64_t rip, uint64_t cr3, uint64_t gdt)
{
	flat_segments(s, CODE64);
	s->gdt = (struct table_reg){BOOT_GDT_BYTES - 1, gdt};
	s->cr0 = CR0_PE | CR0_ET | CR0_PG;
	s->cr3 = cr3;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
	s->rip = rip;
}

int boot_put_gdt(struct boot *b, bool code64, uint64_t *gdt)
{
	uint64_t table[] = {0, 0, code64 ? GDT_CODE64 : GDT_CODE32, GDT_DATA};

	static_assert(sizeof(table) == BOOT_GDT_BYTES, "BOOT_CS and BOOT_DS are entries 2 and 3");
	return boot_put_low(b, table, sizeof(table), sizeof(uint64_t), BOOT_FROM_BOTTOM,
			    "the descriptor table", gdt);
}

/* One PML4, one PDPT and four page directories of 2 MiB pages: 4 GiB at their own addresses. */
int boot_put_page_tables(struct boot *b, uint64_t *cr3)
{
	enum { ENTRIES = 512, DIRECTORIES = 4, PRESENT_WRITE = 3, LARGE = 0x80, LARGE_SHIFT = 21 };
	static const uint64_t zero[ENTRIES * (2 + DIRECTORIES)];
	uint64_t entry[ENTRIES] = {0};
	uint64_t at;
	int rc = boot_put_low(b, zero, sizeof(zero), MEM_PAGE_BYTES, BOOT_FROM_BOTTOM,
			      "the page tables", &at);

	if (rc)
		return rc;
	*cr3 = at;
	entry[0] = (at + MEM_PAGE_BYTES) | PRESENT_WRITE;
	rc = mem_write(b->mem, at, entry, sizeof(entry[0]));
	for (uint64_t d = 0; !rc && d < DIRECTORIES; d++) {
		uint64_t directory = at + (2 + d) * MEM_PAGE_BYTES;
		uint64_t pointer = directory | PRESENT_WRITE;

		for (uint64_t i = 0; i < ENTRIES; i++)
			entry[i] = (d * ENTRIES + i) << LARGE_SHIFT | PRESENT_WRITE | LARGE;
		rc = mem_write(b->mem, directory, entry, sizeof(entry));
		if (!rc)
			rc = mem_write(b->mem, at + MEM_PAGE_BYTES + d * sizeof(pointer), &pointer,
				       sizeof(pointer));
	}
	return rc;
}
