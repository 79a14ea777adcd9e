/* SPDX-License-Identifier: Apache-2.0 */
#include "mmu/walk.h"

#include <errno.h>

#include "mmu/pte.h"

/*
 * Theory of operation. A walk goes down the levels of the guest's tables, each entry read from
 * guest RAM through its host address, collecting the rights of all levels: an access must be
 * allowed by every one. Once the access is known to be allowed, accessed (and, for a write, dirty)
 * bits are set by compare-and-swap from the top down; when another vCPU has changed an entry
 * meanwhile the whole walk starts again, so that bits are never set in an entry that was not the
 * one used (SDM 4.8). Tables outside RAM read as not present: real hardware reads what the bus
 * gives there, and no working guest depends on it.
 */

struct level {
	uint64_t *hva; /* of the entry, 4 or 8 bytes; NULL where it cannot be written (ROM) */
	uint64_t gpa;
	uint64_t entry; /* as read */
};

struct walk {
	struct mem *mem;
	const struct cpu_state *s;
	uint64_t gva;
	struct level level[4];
	unsigned levels;
	unsigned entry_bytes;
	uint64_t rights; /* PTE_W and PTE_U as all levels allow */
	bool nx;
	uint8_t page_shift;
	uint64_t base; /* gpa of the page */
	bool away;     /* the last level's table is not in host memory */
};

/* Reads one entry; 0 (not present) where there is no memory. */
static uint64_t read_entry(struct walk *w, uint64_t gpa)
{
	struct level *l = &w->level[w->levels++];
	enum mem_kind kind;

	l->entry = 0;
	uint8_t *page = mem_page(w->mem, gpa, false, &kind);
	void *hva = page ? page + (gpa & (MEM_PAGE_BYTES - 1)) : NULL;

	if (hva && w->entry_bytes == 4)
		l->entry = __atomic_load_n((uint32_t *)hva, __ATOMIC_RELAXED);
	else if (hva)
		l->entry = __atomic_load_n((uint64_t *)hva, __ATOMIC_RELAXED);
	w->away = kind == MEM_AWAY;
	l->hva = kind == MEM_RAM ? hva : NULL;
	l->gpa = gpa;
	return l->entry;
}

/* 4-level and PAE: depth 0 PML4, 1 PDPT, 2 PD, 3 PT. Returns 0 or a partial error code. */
static int walk8(struct walk *w, bool pae, uint32_t *error)
{
	uint64_t table = w->s->cr3 & PHYS_MASK & ~UINT64_C(0xfff);
	unsigned depth = 0;

	w->entry_bytes = 8;
	w->rights = PTE_W | PTE_U;
	if (pae) {
		uint64_t pdpte = w->s->pdpte[(w->gva >> 30) & 3];
		if (!(pdpte & PTE_P)) {
			*error = 0;
			return -EFAULT;
		}
		table = pdpte & PHYS_MASK & ~UINT64_C(0xfff);
		depth = 2;
	}
	for (;; depth++) {
		unsigned shift = 39 - 9 * depth;
		uint64_t e = read_entry(w, table + ((w->gva >> shift) & 511) * 8);

		if (!(e & PTE_P)) {
			*error = 0;
			return -EFAULT;
		}
		if (e & pte_reserved8(w->s->efer, depth, e, pae)) {
			*error = PF_P | PF_RSVD;
			return -EFAULT;
		}
		w->rights &= e;
		if ((e & PTE_NX) && (w->s->efer & EFER_NXE))
			w->nx = true;
		if (depth == 3 || ((e & PTE_PS) && depth > 0)) {
			w->page_shift = (uint8_t)shift;
			w->base = e & PHYS_MASK & ~((UINT64_C(1) << shift) - 1);
			return 0;
		}
		table = e & PHYS_MASK & ~UINT64_C(0xfff);
	}
}

/* 32-bit paging: two levels, 4 MiB pages with CR4.PSE (PSE-36: bits 13 to 20 are bits 32 to 39). */
static int walk4(struct walk *w, uint32_t *error)
{
	uint64_t e = 0;
	uint64_t table = w->s->cr3 & UINT64_C(0xfffff000);

	w->entry_bytes = 4;
	w->rights = PTE_W | PTE_U;
	for (unsigned depth = 0; depth < 2; depth++) {
		unsigned shift = depth ? 12 : 22;

		e = read_entry(w, table + ((w->gva >> shift) & 1023) * 4);
		if (!(e & PTE_P)) {
			*error = 0;
			return -EFAULT;
		}
		w->rights &= e;
		if (!depth && (e & PTE_PS) && (w->s->cr4 & CR4_PSE)) {
			if (e & RSVD_PSE) {
				*error = PF_P | PF_RSVD;
				return -EFAULT;
			}
			w->page_shift = 22;
			w->base = pse_base(e);
			return 0;
		}
		table = e & UINT64_C(0xfffff000);
	}
	w->page_shift = 12;
	w->base = e & UINT64_C(0xfffff000);
	return 0;
}

/* Descends by the paging mode in force. */
static int descend(struct walk *w, uint32_t *error)
{
	w->levels = 0;
	w->nx = false;
	if (w->s->efer & EFER_LMA)
		return walk8(w, false, error);
	if (w->s->cr4 & CR4_PAE)
		return walk8(w, true, error);
	return walk4(w, error);
}

/* SDM 4.6.1: is the access allowed by the rights collected? */
static bool allowed(const struct walk *w, enum mmu_access access, enum mmu_class class)
{
	bool user_page = w->rights & PTE_U;
	bool writable = w->rights & PTE_W;
	const struct cpu_state *s = w->s;

	if (class == MMU_USER) {
		if (!user_page)
			return false;
		if (access == MMU_EXEC)
			return !w->nx;
		return access == MMU_READ || writable;
	}
	if (access == MMU_EXEC)
		return !w->nx && !(user_page && (s->cr4 & CR4_SMEP));
	if (user_page && class == MMU_KERNEL && (s->cr4 & CR4_SMAP))
		return false;
	return access == MMU_READ || writable || !(s->cr0 & CR0_WP);
}

/* Sets bits in an entry unless it has changed since it was read. */
static bool set_bits(const struct walk *w, const struct level *l, uint64_t bits)
{
	enum mem_kind kind;

	if ((l->entry & bits) == bits || !l->hva)
		return true;
	mem_page(w->mem, l->gpa, true, &kind);
	if (w->entry_bytes == 4) {
		uint32_t old = (uint32_t)l->entry;
		return __atomic_compare_exchange_n((uint32_t *)l->hva, &old, old | (uint32_t)bits,
						   false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
	}
	uint64_t old = l->entry;
	return __atomic_compare_exchange_n(l->hva, &old, old | bits, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_RELAXED);
}

static bool set_accessed_dirty(struct walk *w, bool write)
{
	for (unsigned k = 0; k < w->levels; k++) {
		bool leaf = k + 1 == w->levels;
		if (!set_bits(w, &w->level[k], PTE_A | (leaf && write ? PTE_D : 0)))
			return false;
	}
	return true;
}

static uint32_t access_error(const struct walk *w, enum mmu_access access, enum mmu_class class)
{
	uint32_t error = 0;

	if (access == MMU_WRITE)
		error |= PF_W;
	if (class == MMU_USER)
		error |= PF_U;
	/* SDM 4.7: the I/D flag is only reported with NXE (and PAE or long paging) or SMEP. */
	if (access == MMU_EXEC &&
	    ((w->s->cr4 & CR4_SMEP) || ((w->s->cr4 & CR4_PAE) && (w->s->efer & EFER_NXE))))
		error |= PF_I;
	return error;
}

int mmu_walk(struct mem *m, const struct cpu_state *s, uint64_t gva, enum mmu_access access,
	     enum mmu_class class, struct mmu_page *page, uint32_t *error)
{
	struct walk w = {.mem = m, .s = s, .gva = gva};

	if (!(s->cr0 & CR0_PG)) {
		*page = (struct mmu_page){
			.gpa = gva, .page_shift = 12, .writable = true, .executable = true};
		return 0;
	}
	do {
		uint32_t cause;
		if (descend(&w, &cause) < 0) {
			if (w.away) {
				page->gpa = w.level[w.levels - 1].gpa;
				return -EAGAIN;
			}
			*error = cause | access_error(&w, access, class);
			return -EFAULT;
		}
		if (!allowed(&w, access, class)) {
			*error = PF_P | access_error(&w, access, class);
			return -EFAULT;
		}
	} while (!set_accessed_dirty(&w, access == MMU_WRITE));

	uint64_t leaf = w.level[w.levels - 1].entry;
	bool dirty = (leaf & PTE_D) || access == MMU_WRITE;
	*page = (struct mmu_page){
		.gpa = w.base | (gva & ((UINT64_C(1) << w.page_shift) - 1)),
		.page_shift = w.page_shift,
		.writable = dirty && allowed(&w, MMU_WRITE, class),
		.executable = allowed(&w, MMU_EXEC, class),
		.global = (leaf & PTE_G) && (s->cr4 & CR4_PGE),
	};
	return 0;
}

int mmu_load_pdptes(struct mem *m, uint64_t cr3, uint64_t pdpte[4])
{
	uint64_t entry[4];

	if (mem_read(m, cr3 & UINT64_C(0xffffffe0), entry, sizeof(entry)) < 0)
		return -EFAULT;
	for (unsigned k = 0; k < 4; k++)
		if ((entry[k] & PTE_P) && (entry[k] & RSVD_PDPTE))
			return -EINVAL;
	for (unsigned k = 0; k < 4; k++)
		pdpte[k] = entry[k];
	return 0;
}
