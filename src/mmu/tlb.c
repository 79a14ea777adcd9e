/* SPDX-License-Identifier: Apache-2.0 */
#include "mmu/tlb.h"

void tlb_flush(struct tlb *t, bool keep_global)
{
	if (!keep_global) {
		memset(t, 0xff, sizeof(*t));
		return;
	}
	for (unsigned k = 0; k < MMU_CLASS_NR; k++) {
		for (unsigned n = 0; n < TLB_ENTRIES; n++) {
			struct tlb_entry *e = &t->data[k][n];
			if (!(e->gpa & 1))
				e->read = e->write = TLB_EMPTY;
		}
	}
	for (unsigned k = 0; k < 2; k++) {
		for (unsigned n = 0; n < TLB_CODE_ENTRIES; n++) {
			struct tlb_code_entry *e = &t->code[k][n];
			if (!(e->gpa & 1))
				e->tag = TLB_EMPTY;
		}
	}
}

void tlb_flush_page(struct tlb *t, uint64_t gva)
{
	uint64_t page = gva & ~(uint64_t)(MEM_PAGE_BYTES - 1);

	for (unsigned k = 0; k < MMU_CLASS_NR; k++) {
		struct tlb_entry *e = &t->data[k][tlb_index(gva)];
		if (e->read == page || e->write == page)
			e->read = e->write = TLB_EMPTY;
	}
	for (unsigned k = 0; k < 2; k++) {
		struct tlb_code_entry *e = &t->code[k][tlb_code_index(gva)];
		if (e->tag == page)
			e->tag = TLB_EMPTY;
	}
}
