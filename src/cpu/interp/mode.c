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

/* Which regions of 4 MiB and 1 GiB have entries of large pages, as bit sets by a hash. */
static uint64_t *large_word(struct soft_cpu *c, unsigned giant, uint64_t gva, unsigned *bit)
{
	uint64_t region = gva >> (giant ? 30 : 22);
	unsigned h = (unsigned)(region * UINT64_C(0x9e3779b97f4a7c15) >> 54);

	*bit = h % 64;
	return &c->large[giant][h / 64];
}

static bool in_large_page(struct soft_cpu *c, uint64_t gva)
{
	for (unsigned giant = 0; giant < 2; giant++) {
		unsigned bit;
		uint64_t word = *large_word(c, giant, gva, &bit);
		if (word >> bit & 1)
			return true;
	}
	return false;
}

void cpu_note_page(struct soft_cpu *c, uint64_t gva, const struct mmu_page *page)
{
	unsigned bit;

	if (page->page_shift > MEM_PAGE_SHIFT) {
		uint64_t *word = large_word(c, page->page_shift == 30, gva, &bit);
		*word |= UINT64_C(1) << bit;
	}
}

void cpu_flush_page(struct soft_cpu *c, uint64_t gva)
{
	if (in_large_page(c, gva)) {
		cpu_flush_tlb(c, false);
		return;
	}
	tlb_flush_page(&c->tlb, gva);
	if (c->translator) {
		bt_flush_page(c, gva);
		bt_window_flush_page(c, gva);
	}
	c->vcpu.stats.count[EXIT_TLB_FLUSH]++;
	c->break_block = true;
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
