/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cpu/interp/access.h"

/* What is derived from a vCPU's state: its mode, and the translations that it keeps. */

static bool segment_is_flat(const struct soft_cpu *c, unsigned n)
{
	const struct segment *s = &c->s.seg[n];

	if (s->base || s->limit != UINT32_MAX || (s->attr & SEG_UNUSABLE))
		return false;
	if (!(c->s.cr0 & CR0_PE))
		return true;
	return (s->attr & (SEG_TYPE_CODE | SEG_TYPE_DC | SEG_TYPE_WR)) == SEG_TYPE_WR;
}

static void update_segments(struct soft_cpu *c)
{
	bool wide = c->mode == MODE_64;

	c->seg_flat = 0;
	for (unsigned n = 0; n < SEG_NR; n++) {
		c->seg_base[n] = wide && n != SEG_FS && n != SEG_GS ? 0 : c->s.seg[n].base;
		if (!c->align_check && (wide || segment_is_flat(c, n)))
			c->seg_flat |= 1u << n;
	}
}

void cpu_update_mode(struct soft_cpu *c)
{
	struct cpu_state *s = &c->s;
	uint32_t cs = s->seg[SEG_CS].attr;

	c->cpl = (uint8_t)cpu_cpl(s);
	if (cpu_in_long_mode(s) && (cs & SEG_L))
		c->mode = MODE_64;
	else
		c->mode = cs & SEG_DB ? MODE_32 : MODE_16;
	c->lin_mask = c->mode == MODE_64 ? UINT64_MAX : UINT32_MAX;
	c->ip_mask = c->mode == MODE_64 ? UINT64_MAX : UINT32_MAX;

	if (c->cpl == 3)
		c->data_class = MMU_USER;
	else if ((s->cr4 & CR4_SMAP) && !(s->rflags & FLAG_AC))
		c->data_class = MMU_KERNEL;
	else
		c->data_class = MMU_KERNEL_USER;
	c->align_check = c->cpl == 3 && (s->cr0 & CR0_AM) && (s->rflags & FLAG_AC);

	update_segments(c);
	c->bt.mode_known = false;
	if (!(s->dr7 & 0xff) && !c->debug.points && !c->watching) { /* the common case */
		c->careful_near = false;
		c->careful = c->debug.step || (s->rflags & FLAG_TF); /* RF holds nothing back */
		return;
	}

	bool watching = false, breakpoints = false;
	for (unsigned n = 0; n < 4; n++) {
		if (!(s->dr7 >> (2 * n) & 3))
			continue;
		if (s->dr7 >> (16 + 4 * n) & 1)
			watching = true;
		else if (!(s->dr7 >> (16 + 4 * n) & 3))
			breakpoints = true;
	}
	for (unsigned n = 0; n < c->debug.points; n++) {
		if (c->debug.point[n].len)
			watching = true;
		else
			breakpoints = true;
	}
	if (watching && !c->watching)
		tlb_flush(&c->tlb, false);
	c->watching = watching;
	c->careful = c->debug.step || (s->rflags & (FLAG_TF | FLAG_RF));
	c->careful_near = (breakpoints || watching) && !c->careful;
	c->careful |= c->careful_near;
}

static void flush_tlb(struct soft_cpu *c, bool keep_global)
{
	c->vcpu.stats.count[EXIT_TLB_FLUSH]++;
	if (c->translator)
		bt_flush_pages(c, keep_global);
	tlb_flush(&c->tlb, keep_global);
	if (!keep_global)
		memset(c->large, 0, sizeof(c->large));
	c->break_block = true;
}

void cpu_flush_tlb(struct soft_cpu *c, bool keep_global)
{
	flush_tlb(c, keep_global);
	if (c->translator)
		bt_window_flush(c);
}

void cpu_switch_tlb(struct soft_cpu *c, bool flush)
{
	flush_tlb(c, true);
	if (c->translator)
		bt_window_switch(c, flush);
}

/*
 * INVLPG drops all of a large page, and entries are for 4 KiB. So it is kept in which regions there are entries
 * of large pages: by the low bits of the region's number the number, + 1, or LARGE_MANY where there have been
 * several. The kernel's half has a table of its own, as its map of all memory would be met by every program.
 */
enum { LARGE_SHIFT = 22, GIANT_SHIFT = 30 };
#define LARGE_MANY UINT64_MAX

static uint64_t *large_slot(struct soft_cpu *c, unsigned giant, uint64_t gva)
{
	return &c->large[gva >> 63][giant]
			[(gva >> (giant ? GIANT_SHIFT : LARGE_SHIFT)) % SOFT_LARGE];
}

void cpu_note_page(struct soft_cpu *c, uint64_t gva, const struct mmu_page *page)
{
	if (page->page_shift == MEM_PAGE_SHIFT)
		return;
	const bool giant = page->page_shift == 30;
	uint64_t *slot = large_slot(c, giant, gva),
		 region = (gva >> (giant ? GIANT_SHIFT : LARGE_SHIFT)) + 1;
	*slot = !*slot || *slot == region ? region : LARGE_MANY;
}

static void flush_small_page(struct soft_cpu *c, uint64_t gva)
{
	tlb_flush_page(&c->tlb, gva);
	if (c->translator)
		bt_flush_page(c, gva);
}

void cpu_flush_page(struct soft_cpu *c, uint64_t gva)
{
	uint64_t *large = large_slot(c, 0, gva);
	const uint64_t giant = *large_slot(c, 1, gva), region = (gva >> LARGE_SHIFT) + 1;

	if (*large == LARGE_MANY || giant == LARGE_MANY || giant == (gva >> GIANT_SHIFT) + 1) {
		cpu_flush_tlb(c, false);
		return;
	}
	if (*large == region) {
		const uint64_t from = gva >> LARGE_SHIFT << LARGE_SHIFT;
		for (uint64_t by = 0; by < UINT64_C(1) << LARGE_SHIFT; by += MEM_PAGE_BYTES)
			flush_small_page(c, from + by);
		*large = 0;
		if (c->translator)
			bt_window_flush(c);
	} else {
		flush_small_page(c, gva);
		if (c->translator)
			bt_window_flush_page(c, gva);
	}
	c->vcpu.stats.count[EXIT_TLB_FLUSH]++;
	c->break_block = true;
}

void cpu_forbid_writes(struct soft_cpu *c, uint64_t gpa)
{
	tlb_forbid_writes(&c->tlb, gpa);
	if (c->translator)
		bt_window_forbid_writes(c, gpa);
}

void cpu_near_jump(struct soft_cpu *c, uint64_t target)
{
	if (c->mode == MODE_64) {
		if (!cpu_is_canonical(target)) /* at the branch, on AMD's too (seen on Zen 5) */
			cpu_gp0(c);
	} else if (target > c->s.seg[SEG_CS].limit) {
		cpu_gp0(c);
	}
	c->next_rip = target;
}
