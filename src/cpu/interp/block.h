/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_INTERP_BLOCK_H
#define HANOK_CPU_INTERP_BLOCK_H

#include "cpu/interp/interp.h"

/*
 * Decoded code. A block is a run of instructions within one page, up to a jump, keyed by the
 * guest-physical address of its first byte and the mode, kept by one vCPU.
 *
 * A block is good as long as the bytes in memory are those it was decoded from, which is checked
 * by comparing them each time the block is entered: whoever wrote them, this vCPU, another or a
 * device, is seen without any protocol. What is left is a store into the block being run: pages
 * that code has been fetched from are marked, marked pages are not entered in the data TLB for
 * writes, and a store to one sets break_block, which ends the run of the block after the storing
 * instruction.
 */
enum { BLOCK_INSNS = 16, BLOCK_BYTES = 64 };

struct block {
	uint64_t gpa; /* of the first byte, plus 1; 0: empty */
	const struct insn *insn;
	uint8_t mode;
	uint8_t count; /* of instructions */
	uint8_t bytes; /* of code */
	uint8_t code[BLOCK_BYTES];
};

int blocks_create(struct soft_cpu *c);
void blocks_destroy(struct soft_cpu *c);

/* The block at CS:RIP, decoded anew if need be. Raises what the fetch raises. The block stays
 * until the next call. */
const struct block *block_find(struct soft_cpu *c);
/* The one instruction at CS:RIP as a block, never kept; for careful stepping. */
const struct block *block_find_one(struct soft_cpu *c);

/* The host page that code at gva is fetched from, through the code TLB. Raises #PF. */
const struct tlb_code_entry *block_fetch_page(struct soft_cpu *c, uint64_t gva);

/* Has this vCPU fetched code from the page? Then stores must come by blocks_note_write. */
bool blocks_page_is_code(const struct soft_cpu *c, uint64_t gpa);
void blocks_note_write(struct soft_cpu *c, uint64_t gpa);

#endif
