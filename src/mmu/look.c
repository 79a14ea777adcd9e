/* SPDX-License-Identifier: Apache-2.0 */
#include "mmu/look.h"

#include <errno.h>
#include <string.h>

#include "mmu/pte.h"
#include "mmu/walk.h"

enum { TRIES = 4 };

const char *const mmu_paging_names[MMU_PAGING_NR] = {
	[MMU_PAGING_OFF] = "off",
	[MMU_PAGING_32] = "32-bit",
	[MMU_PAGING_PAE] = "PAE",
	[MMU_PAGING_4LEVEL] = "4-level",
};

const char *const mmu_look_end_names[MMU_LOOK_END_NR] = {
	[MMU_LOOK_MAPPED] = "mapped",
	[MMU_LOOK_NOT_PRESENT] = "not-present",
	[MMU_LOOK_RESERVED] = "reserved-bits",
	[MMU_LOOK_OUTSIDE] = "table-outside-memory",
	[MMU_LOOK_NOT_CANONICAL] = "not-canonical",
	[MMU_LOOK_TOO_HIGH] = "above-4-GiB",
};

void mmu_mode_of(struct mmu_mode *mode, const struct cpu_state *s)
{
	*mode = (struct mmu_mode){
		.cr0 = s->cr0, .cr3 = s->cr3, .cr4 = s->cr4, .efer = s->efer, .pdptes_known = true};
	memcpy(mode->pdpte, s->pdpte, sizeof(mode->pdpte));
}

static enum mmu_paging paging_of(const struct mmu_mode *m)
{
	if (!(m->cr0 & CR0_PG))
		return MMU_PAGING_OFF;
	if (m->efer & EFER_LMA)
		return MMU_PAGING_4LEVEL;
	return m->cr4 & CR4_PAE ? MMU_PAGING_PAE : MMU_PAGING_32;
}

/* ---- memory ---- */

/*
 * The guest may write there meanwhile. Aligned words are read at once, so that an entry of a table is one that was
 * there. Thread checkers are not told: the race is the guest's, and any outcome is good.
 */
__attribute__((no_sanitize("thread"))) static void copy_racing(uint8_t *to, const uint8_t *from,
							       size_t len)
{
	while (len) {
		if ((uintptr_t)from % 8 == 0 && len >= 8) {
			uint64_t word = *(const volatile uint64_t *)(const void *)from;
			__builtin_memcpy(to, &word, 8);
			to += 8;
			from += 8;
			len -= 8;
		} else {
			*to++ = *(const volatile uint8_t *)from++;
			len--;
		}
	}
}

static int look_page(struct mem *m, uint64_t gpa, void *buf, size_t len)
{
	struct mem_frame f;

	/* ROM has no frame, and may lie over RAM: what is read there is not the frame's. */
	if (mem_frame_at(m, gpa, &f) == 0 && f.state != MEM_STATE_PRESENT &&
	    f.state != MEM_STATE_SWAPPED) {
		memset(buf, 0, len);
		return 0;
	}
	void *host = mem_pin(m, gpa, len, false);
	if (!host)
		return mem_read(m, gpa, buf, len); /* ROM, or nothing */
	copy_racing(buf, host, len);
	mem_unpin(m, host, len);
	return 0;
}

static size_t in_page(uint64_t address, size_t len)
{
	size_t left = MEM_PAGE_BYTES - (address & (MEM_PAGE_BYTES - 1));

	return len < left ? len : left;
}

int mmu_look_phys(struct mem *m, uint64_t gpa, void *buf, size_t len)
{
	uint8_t *to = buf;
	int r = 0;

	while (len && r == 0) {
		size_t n = in_page(gpa, len);
		r = look_page(m, gpa, to, n);
		to += n;
		gpa += n;
		len -= n;
	}
	return r;
}

int mmu_look_virt(struct mem *m, const struct mmu_mode *mode, uint64_t gva, void *buf, size_t len)
{
	uint8_t *to = buf;
	int r = 0;

	while (len && r == 0) {
		size_t n = in_page(gva, len);
		struct mmu_look l;
		mmu_look(m, mode, gva, &l);
		r = l.end == MMU_LOOK_MAPPED ? look_page(m, l.gpa, to, n) : -EFAULT;
		to += n;
		gva += n;
		len -= n;
	}
	return r;
}

/* ---- descending ---- */

static uint64_t read_at(struct mem *m, uint64_t gpa, unsigned bytes, bool *readable)
{
	uint64_t entry = 0;

	*readable = mmu_look_phys(m, gpa, &entry, bytes) == 0;
	return *readable ? entry : 0;
}

/* Adds the level whose table is `table`. */
static struct mmu_look_level *add_level(struct mem *m, struct mmu_look *l, const char *name,
					uint64_t table, uint8_t shift)
{
	unsigned bytes = l->paging == MMU_PAGING_32 ? 4 : 8;
	unsigned entries = l->paging == MMU_PAGING_32 ? 1024 : 512;
	struct mmu_look_level *at = &l->level[l->levels];

	if (l->paging == MMU_PAGING_PAE && shift == 30)
		entries = 4;
	*at = (struct mmu_look_level){.name = name, .table = table, .shift = shift, .same_as = -1};
	at->index = (unsigned)(l->gva >> shift) & (entries - 1);
	at->at = table + at->index * bytes;
	at->entry = read_at(m, at->at, bytes, &at->readable);
	for (unsigned k = 0; k < l->levels; k++)
		if (l->level[k].table == table)
			at->same_as = (int)k;
	l->levels++;
	return at;
}

/* Whether the walk is over at this level; l->end then says how. */
static bool is_over(struct mmu_look *l, const struct mmu_look_level *at)
{
	if (!at->readable && !at->from_pdpte)
		l->end = MMU_LOOK_OUTSIDE;
	else if (!(at->entry & PTE_P))
		l->end = MMU_LOOK_NOT_PRESENT;
	else if (at->reserved)
		l->end = MMU_LOOK_RESERVED;
	else
		return false;
	return true;
}

static void map(struct mmu_look *l, struct mmu_look_level *at, uint64_t base)
{
	uint64_t rest = (UINT64_C(1) << at->shift) - 1;

	at->maps = true;
	l->end = MMU_LOOK_MAPPED;
	l->page_shift = at->shift;
	l->gpa = (base & ~rest) | (l->gva & rest);
	l->accessed = at->entry & PTE_A;
	l->dirty = at->entry & PTE_D;
}

static void allow(struct mmu_look *l, const struct mmu_mode *mode, uint64_t entry)
{
	l->writable = l->writable && (entry & PTE_W);
	l->user = l->user && (entry & PTE_U);
	if (l->paging != MMU_PAGING_32 && (entry & PTE_NX) && (mode->efer & EFER_NXE))
		l->executable = false;
}

/* 4-level from depth 0, PAE from depth 2: as walk8() of mmu/walk.c. */
static void look8(struct mem *m, const struct mmu_mode *mode, struct mmu_look *l, uint64_t table,
		  unsigned depth)
{
	static const char *const names[] = {"PML4", "PDPT", "PD", "PT"};
	bool pae = l->paging == MMU_PAGING_PAE;

	for (;; depth++) {
		struct mmu_look_level *at =
			add_level(m, l, names[depth], table, (uint8_t)(39 - 9 * depth));
		if (at->entry & PTE_P)
			at->reserved = at->entry & pte_reserved8(mode->efer, depth, at->entry, pae);
		if (is_over(l, at))
			return;
		allow(l, mode, at->entry);
		table = at->entry & PHYS_MASK & ~UINT64_C(0xfff);
		if (depth == 3 || ((at->entry & PTE_PS) && depth > 0)) {
			map(l, at, at->entry & PHYS_MASK);
			return;
		}
	}
}

static void look_pae(struct mem *m, const struct mmu_mode *mode, struct mmu_look *l)
{
	struct mmu_look_level *at = add_level(m, l, "PDPT", mode->cr3 & UINT64_C(0xffffffe0), 30);

	if (mode->pdptes_known) {
		at->from_pdpte = true;
		at->entry = mode->pdpte[at->index];
	}
	if (at->entry & PTE_P)
		at->reserved = at->entry & RSVD_PDPTE;
	if (!is_over(l, at))
		look8(m, mode, l, at->entry & PHYS_MASK & ~UINT64_C(0xfff), 2);
}

static void look_32(struct mem *m, const struct mmu_mode *mode, struct mmu_look *l)
{
	uint64_t table = mode->cr3 & UINT64_C(0xfffff000);

	for (unsigned depth = 0; depth < 2; depth++) {
		struct mmu_look_level *at =
			add_level(m, l, depth ? "PT" : "PD", table, depth ? 12 : 22);
		bool large = !depth && (at->entry & PTE_PS) && (mode->cr4 & CR4_PSE);
		if (large && (at->entry & PTE_P))
			at->reserved = at->entry & RSVD_PSE;
		if (is_over(l, at))
			return;
		allow(l, mode, at->entry);
		table = at->entry & UINT64_C(0xfffff000);
		if (large || depth) {
			map(l, at, large ? pse_base(at->entry) : table);
			return;
		}
	}
}

static bool is_canonical(uint64_t gva)
{
	uint64_t high = gva >> 47;

	return high == 0 || high == 0x1ffff;
}

static void descend(struct mem *m, const struct mmu_mode *mode, struct mmu_look *l)
{
	if (l->paging == MMU_PAGING_4LEVEL && !is_canonical(l->gva)) {
		l->end = MMU_LOOK_NOT_CANONICAL;
		return;
	}
	if (l->paging != MMU_PAGING_4LEVEL && l->gva > UINT32_MAX) {
		l->end = MMU_LOOK_TOO_HIGH;
		return;
	}
	l->writable = l->user = l->executable = true;
	switch (l->paging) {
	case MMU_PAGING_4LEVEL:
		look8(m, mode, l, mode->cr3 & PHYS_MASK & ~UINT64_C(0xfff), 0);
		break;
	case MMU_PAGING_PAE:
		look_pae(m, mode, l);
		break;
	case MMU_PAGING_32:
		look_32(m, mode, l);
		break;
	default:
		l->end = MMU_LOOK_MAPPED;
		l->page_shift = 12;
		l->gpa = l->gva;
		l->accessed = l->dirty = true;
		return;
	}
	if (l->end == MMU_LOOK_MAPPED)
		l->global = (l->level[l->levels - 1].entry & PTE_G) && (mode->cr4 & CR4_PGE);
	else
		l->writable = l->user = l->executable = false;
}

/* Whether the tables still say what was read; the processor's own marks apart. */
static bool is_stable(struct mem *m, const struct mmu_look *l)
{
	for (unsigned k = 0; k < l->levels; k++) {
		const struct mmu_look_level *at = &l->level[k];
		bool readable;
		if (at->from_pdpte)
			continue;
		uint64_t now = read_at(m, at->at, l->paging == MMU_PAGING_32 ? 4 : 8, &readable);
		if ((now ^ at->entry) & ~(PTE_A | PTE_D))
			return false;
	}
	return true;
}

void mmu_look(struct mem *m, const struct mmu_mode *mode, uint64_t gva, struct mmu_look *out)
{
	for (unsigned tries = 0; tries < TRIES; tries++) {
		*out = (struct mmu_look){.paging = paging_of(mode), .gva = gva};
		descend(m, mode, out);
		if (is_stable(m, out))
			return;
	}
	out->changing = true;
}

int mmu_peek(struct mem *m, const struct cpu_state *s, uint64_t gva, uint64_t *gpa)
{
	struct mmu_mode mode;
	struct mmu_look l;

	mmu_mode_of(&mode, s);
	/* A debugger may sign-extend the addresses of a 32-bit guest. */
	mmu_look(m, &mode, paging_of(&mode) == MMU_PAGING_4LEVEL ? gva : (uint32_t)gva, &l);
	if (l.end != MMU_LOOK_MAPPED)
		return -EFAULT;
	*gpa = l.gpa;
	return 0;
}

/* ---- flags ---- */

/* What a bit means depends on whether the entry points to a table or maps a page. */
static const struct flag {
	uint64_t bit;
	const char *in_table, *in_page; /* NULL: ignored there */
} flags[] = {
	{PTE_P, "present", "present"},
	{PTE_W, "writable", "writable"},
	{PTE_U, "user", "user"},
	{PTE_PWT, "write-through", "write-through"},
	{PTE_PCD, "cache-disabled", "cache-disabled"},
	{PTE_A, "accessed", "accessed"},
	{PTE_D, NULL, "dirty"},
	{PTE_G, NULL, "global"},
	{UINT64_C(1) << 9, "software-9", "software-9"},
	{UINT64_C(1) << 10, "software-10", "software-10"},
	{UINT64_C(1) << 11, "software-11", "software-11"},
};

unsigned mmu_look_flags(const struct mmu_look *l, unsigned level, const char *names[MMU_LOOK_FLAGS])
{
	const struct mmu_look_level *at = &l->level[level];
	unsigned count = 0;

	if (!(at->entry & PTE_P))
		return 0;
	for (unsigned k = 0; k < sizeof(flags) / sizeof(flags[0]); k++) {
		const char *name = at->maps ? flags[k].in_page : flags[k].in_table;
		if (name && (at->entry & flags[k].bit))
			names[count++] = name;
	}
	if (at->shift > 12 && (at->entry & PTE_PS) && (at->maps || at->reserved))
		names[count++] = "large-page";
	if (at->maps && (at->entry & (at->shift > 12 ? PTE_PAT_LARGE : PTE_PS)))
		names[count++] = "PAT";
	if (l->paging != MMU_PAGING_32 && (at->entry & PTE_NX))
		names[count++] = "no-execute";
	return count;
}
