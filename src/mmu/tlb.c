/* SPDX-License-Identifier: Apache-2.0 */
#include "mmu/tlb.h"

#define PAGE_MASK (~(uint64_t)(MEM_PAGE_BYTES - 1))

static uint16_t *written_at(struct tlb *t, uint64_t gpa)
{
	return &t->written[(gpa >> MEM_PAGE_SHIFT) % TLB_WRITTEN];
}

static void note_written(struct tlb *t, uint64_t gpa, unsigned slot)
{
	uint16_t *w = written_at(t, gpa);

	*w = !*w || *w == slot + 1 ? (uint16_t)(slot + 1) : TLB_WRITTEN_MANY;
}

void tlb_fill(struct tlb *t, enum mmu_class class, uint64_t gva, const struct mmu_page *page,
	      const void *hva, bool write)
{
	unsigned index = tlb_index(gva), slot = class * TLB_ENTRIES + index;
	struct tlb_entry *e = &t->data[class][index];

	if (!page->global) {
		if (t->locals < TLB_LOCAL_MAX)
			t->local[t->locals] = (uint16_t)slot;
		t->locals++;
	}
	e->read = gva & PAGE_MASK;
	e->write = write ? gva & PAGE_MASK : tlb_empty_tag(index);
	e->hva = (uint64_t)hva & PAGE_MASK;
	e->gpa = (page->gpa & PAGE_MASK) | page->global;
	if (write)
		note_written(t, page->gpa, slot);
}

void tlb_drop(struct tlb *t, enum mmu_class class, unsigned index)
{
	struct tlb_entry *e = &t->data[class][index];

	e->read = e->write = tlb_empty_tag(index);
	e->gpa = UINT64_MAX;
}

void tlb_forget_stack(struct tlb *t)
{
	for (unsigned k = 0; k < MMU_CLASS_NR; k++)
		t->stack[k] = (struct tlb_entry){.read = TLB_STACK_EMPTY,
						 .write = TLB_STACK_EMPTY,
						 .hva = (uint64_t)t->nowhere};
}

static void drop_local(struct tlb *t, unsigned slot)
{
	unsigned class = slot / TLB_ENTRIES, index = slot % TLB_ENTRIES;

	if (!(t->data[class][index].gpa & 1))
		tlb_drop(t, class, index);
}

static void flush_local_data(struct tlb *t)
{
	if (t->locals <= TLB_LOCAL_MAX) {
		for (unsigned n = 0; n < t->locals; n++)
			drop_local(t, t->local[n]);
	} else {
		for (unsigned n = 0; n < MMU_CLASS_NR * TLB_ENTRIES; n++)
			drop_local(t, n);
	}
	t->locals = 0;
}

void tlb_flush(struct tlb *t, bool keep_global)
{
	tlb_forget_stack(t);
	if (!keep_global) {
		for (unsigned n = 0; n < MMU_CLASS_NR * TLB_ENTRIES; n++)
			tlb_drop(t, n / TLB_ENTRIES, n % TLB_ENTRIES);
		memset(t->code, 0xff, sizeof(t->code));
		memset(t->written, 0, sizeof(t->written));
		t->locals = 0;
		return;
	}
	flush_local_data(t);
	for (unsigned k = 0; k < 2; k++) {
		for (unsigned n = 0; n < TLB_CODE_ENTRIES; n++) {
			struct tlb_code_entry *e = &t->code[k][n];
			if (!(e->gpa & 1))
				e->tag = TLB_CODE_EMPTY;
		}
	}
}

void tlb_flush_page(struct tlb *t, uint64_t gva)
{
	uint64_t page = gva & PAGE_MASK;

	tlb_forget_stack(t);
	for (unsigned k = 0; k < MMU_CLASS_NR; k++) {
		struct tlb_entry *e = &t->data[k][tlb_index(gva)];
		if (e->read == page || e->write == page)
			tlb_drop(t, k, tlb_index(gva));
	}
	for (unsigned k = 0; k < 2; k++) {
		struct tlb_code_entry *e = &t->code[k][tlb_code_index(gva)];
		if (e->tag == page)
			e->tag = TLB_CODE_EMPTY;
	}
}

/* Makes what is known of pages written exact, without this one, which is in several slots. */
static void look_at_all_slots(struct tlb *t, uint64_t gpa)
{
	memset(t->written, 0, sizeof(t->written));
	for (unsigned k = 0; k < MMU_CLASS_NR; k++) {
		for (unsigned n = 0; n < TLB_ENTRIES; n++) {
			struct tlb_entry *e = &t->data[k][n];
			if (e->write == tlb_empty_tag(n))
				continue;
			if ((e->gpa & PAGE_MASK) == (gpa & PAGE_MASK))
				e->write = tlb_empty_tag(n);
			else
				note_written(t, e->gpa, k * TLB_ENTRIES + n);
		}
	}
}

void tlb_forbid_writes(struct tlb *t, uint64_t gpa)
{
	uint16_t *w = written_at(t, gpa);

	tlb_forget_stack(t);
	if (!*w)
		return;
	if (*w == TLB_WRITTEN_MANY) {
		look_at_all_slots(t, gpa);
		return;
	}
	const unsigned slot = *w - 1u, index = slot % TLB_ENTRIES;
	struct tlb_entry *e = &t->data[slot / TLB_ENTRIES][index];
	if ((e->gpa & PAGE_MASK) != (gpa & PAGE_MASK))
		return; /* of another page, or no longer */
	e->write = tlb_empty_tag(index);
	*w = 0;
}
