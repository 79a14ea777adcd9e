/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/interp/access.h"
#include "cpu/interp/select.h"

enum { TABLE_BLOCKS = 16384, ARENA_INSNS = 65536 };

/* Both arrays are mapped lazily: what a guest does not use costs nothing. */
struct block_cache {
	struct block *table; /* hashed by gpa and mode */
	struct insn *arena;  /* instructions of the blocks, one after another */
	unsigned used;
	uint8_t *code_pages; /* one bit a guest-physical page */
	uint64_t pages;
	uint64_t current_gpa; /* page of the block running */

	/* Blocks that are not kept: single steps and instructions across pages. */
	struct block scratch;
	struct insn scratch_insn[BLOCK_INSNS];
};

static void *map_lazily(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int blocks_create(struct soft_cpu *c)
{
	struct block_cache *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	c->blocks = b;
	b->pages = (MEM_HIGH_BASE + mem_high_bytes(c->mem)) >> MEM_PAGE_SHIFT;
	b->table = map_lazily(TABLE_BLOCKS * sizeof(*b->table));
	b->arena = map_lazily(ARENA_INSNS * sizeof(*b->arena));
	b->code_pages = map_lazily(b->pages / 8 + 1);
	return b->table && b->arena && b->code_pages ? 0 : -ENOMEM;
}

void blocks_destroy(struct soft_cpu *c)
{
	struct block_cache *b = c->blocks;

	if (!b)
		return;
	if (b->table)
		munmap(b->table, TABLE_BLOCKS * sizeof(*b->table));
	if (b->arena)
		munmap(b->arena, ARENA_INSNS * sizeof(*b->arena));
	if (b->code_pages)
		munmap(b->code_pages, b->pages / 8 + 1);
	free(b);
	c->blocks = NULL;
}

/* ---- marked pages ---- */

bool blocks_page_is_code(const struct soft_cpu *c, uint64_t gpa)
{
	uint64_t page = gpa >> MEM_PAGE_SHIFT;
	const struct block_cache *b = c->blocks;

	return page < b->pages && (b->code_pages[page / 8] >> page % 8 & 1);
}

/* From now on stores to the page take the slow path. */
static void mark_code_page(struct soft_cpu *c, uint64_t gpa)
{
	uint64_t page = gpa >> MEM_PAGE_SHIFT;

	if (page >= c->blocks->pages || blocks_page_is_code(c, gpa))
		return;
	c->blocks->code_pages[page / 8] |= 1u << page % 8;
	cpu_forbid_writes(c, gpa);
}

void blocks_note_write(struct soft_cpu *c, uint64_t gpa)
{
	uint64_t page = gpa >> MEM_PAGE_SHIFT;

	if (!blocks_page_is_code(c, gpa))
		return;
	c->break_block = true;
	if ((gpa & PAGE_MASK) == c->blocks->current_gpa)
		return; /* code and data in one page: stay on the slow path */
	/* Most likely a page put to another use: give it back to the fast path until code is
	 * fetched from it again. */
	c->blocks->code_pages[page / 8] &= ~(1u << page % 8);
	for (unsigned k = 0; k < 2; k++)
		for (unsigned n = 0; n < TLB_CODE_ENTRIES; n++)
			if ((c->tlb.code[k][n].gpa & PAGE_MASK) == (gpa & PAGE_MASK))
				c->tlb.code[k][n].tag = TLB_CODE_EMPTY;
}

/* ---- fetching ---- */

static const uint8_t *open_bus(void)
{
	/* What a fetch from where there is nothing reads: all ones, which is no instruction. */
	static uint8_t page[MEM_PAGE_BYTES];

	if (!page[0])
		memset(page, 0xff, sizeof(page));
	return page;
}

/* The host page that code at gva is fetched from. */
const struct tlb_code_entry *block_fetch_page(struct soft_cpu *c, uint64_t gva)
{
	bool user = c->cpl == 3;
	struct tlb_code_entry *e = &c->tlb.code[user][tlb_code_index(gva)];

	if (likely(e->tag == (gva & PAGE_MASK)))
		return e;

	struct mmu_page page;
	uint32_t error;
	enum mem_kind kind;

	c->vcpu.stats.count[EXIT_TLB_MISS]++;
	int r = mmu_walk(c->mem, &c->s, gva, MMU_EXEC, user ? MMU_USER : MMU_KERNEL, &page, &error);
	if (r == -EAGAIN)
		cpu_begin_again(c, page.gpa);
	if (r < 0)
		cpu_raise_pf(c, gva, error);
	const uint8_t *hva = mem_page(c->mem, page.gpa, false, &kind);
	if (kind == MEM_AWAY)
		cpu_begin_again(c, page.gpa);
	e->tag = gva & PAGE_MASK;
	e->hva = hva ? hva : open_bus();
	e->gpa = (page.gpa & PAGE_MASK) | page.global;
	cpu_note_page(c, gva, &page);
	if (kind == MEM_RAM)
		mark_code_page(c, page.gpa);
	return e;
}

static uint64_t code_linear(const struct soft_cpu *c, uint64_t rip)
{
	return c->mode == MODE_64 ? rip : (uint32_t)(c->s.seg[SEG_CS].base + rip);
}

/* Bytes from rip up to the CS limit, or plenty. */
static uint64_t limit_room(const struct soft_cpu *c, uint64_t rip)
{
	uint32_t limit = c->s.seg[SEG_CS].limit;

	if (c->mode == MODE_64)
		return UINT64_MAX;
	return rip > limit ? 0 : (uint64_t)limit - rip + 1;
}

static void op_ud(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	cpu_ud(c);
}

static void op_too_long(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	cpu_gp0(c);
}

/* Decodes one instruction; what cannot be decoded becomes one that raises the right fault.
 * -ENODATA when more than avail bytes are needed. */
static int decode_one(struct soft_cpu *c, const uint8_t *bytes, unsigned avail, struct insn *i)
{
	struct decoded d;
	int r = insn_decode(c->mode, c->vendor_amd, bytes, avail, &d, i);

	if (r == -ENODATA)
		return r;
	if (r < 0) {
		memset(i, 0, sizeof(*i));
		i->fn = r == -E2BIG ? op_too_long : op_ud;
		i->length = (uint8_t)(avail < 15 ? avail : 15); /* all it was judged by */
		i->flags = INSN_END;
		return 0;
	}
	i->fn = insn_select(&d, i);
	return 0;
}

/* An instruction that may run over the page's end or the CS limit: byte by byte as far as needed,
 * so that the fault comes exactly where the instruction needs a byte that is not there. */
static void decode_across(struct soft_cpu *c, struct insn *i)
{
	uint8_t bytes[15];
	uint64_t rip = c->s.rip;
	uint64_t room = limit_room(c, rip);

	for (unsigned n = 0; n < sizeof(bytes); n++) {
		if (n >= room)
			cpu_gp0(c);
		uint64_t gva = code_linear(c, rip + n);
		bytes[n] = block_fetch_page(c, gva)->hva[gva & ~PAGE_MASK];
		if (decode_one(c, bytes, n + 1, i) == 0)
			return;
	}
	i->fn = op_too_long;
	i->flags = INSN_END;
	i->length = 1;
}

const struct block *block_find_one(struct soft_cpu *c)
{
	struct block_cache *b = c->blocks;

	if (c->mode == MODE_64 && !cpu_is_canonical(c->s.rip))
		cpu_gp0(c);
	decode_across(c, b->scratch_insn);
	uint64_t gva = code_linear(c, c->s.rip);
	b->current_gpa = block_fetch_page(c, gva)->gpa & PAGE_MASK;
	b->scratch.insn = b->scratch_insn;
	b->scratch.count = 1;
	b->scratch.bytes = b->scratch_insn[0].length;
	return &b->scratch;
}

static struct block *slot_of(struct block_cache *b, uint64_t gpa, unsigned mode)
{
	uint64_t h = (gpa ^ gpa >> 12 ^ (uint64_t)mode << 7) * UINT64_C(0x9e3779b97f4a7c15);

	return &b->table[h >> 50];
}

static void forget_all(struct block_cache *b)
{
	madvise(b->table, TABLE_BLOCKS * sizeof(*b->table), MADV_DONTNEED);
	b->used = 0;
}

/* Decodes a block from the page; NULL when even its first instruction does not fit. */
static struct block *build(struct soft_cpu *c, const uint8_t *hva, uint64_t gpa)
{
	struct block_cache *b = c->blocks;
	unsigned room = MEM_PAGE_BYTES - (gpa & ~PAGE_MASK);
	unsigned at = 0, count = 0;
	/* Decoded and kept are the same bytes, whatever another vCPU writes meanwhile. */
	uint8_t code[BLOCK_BYTES];

	if (room > sizeof(code))
		room = sizeof(code);
	memcpy(code, hva, room);
	if (b->used + BLOCK_INSNS > ARENA_INSNS)
		forget_all(b);
	struct insn *insn = &b->arena[b->used];
	while (count < BLOCK_INSNS && at < BLOCK_BYTES - 15) {
		struct insn *i = &insn[count];
		if (at >= room || decode_one(c, code + at, room - at, i) < 0)
			break;
		at += i->length;
		count++;
		if (i->flags & INSN_END)
			break;
	}
	if (!count)
		return NULL;
	b->used += count;
	struct block *k = slot_of(b, gpa, c->mode);
	*k = (struct block){.gpa = gpa + 1,
			    .insn = insn,
			    .mode = c->mode,
			    .count = (uint8_t)count,
			    .bytes = (uint8_t)at};
	memcpy(k->code, code, at);
	return k;
}

const struct block *block_find(struct soft_cpu *c)
{
	struct block_cache *b = c->blocks;
	uint64_t gva = code_linear(c, c->s.rip);

	if (unlikely(c->mode == MODE_64 && !cpu_is_canonical(gva)))
		cpu_gp0(c);
	const struct tlb_code_entry *e = block_fetch_page(c, gva);
	uint64_t gpa = (e->gpa & PAGE_MASK) | (gva & ~PAGE_MASK);
	const uint8_t *hva = e->hva + (gva & ~PAGE_MASK);
	struct block *k = slot_of(b, gpa, c->mode);

	b->current_gpa = gpa & PAGE_MASK;
	if (unlikely(k->gpa != gpa + 1 || k->mode != c->mode ||
		     memcmp(k->code, hva, k->bytes) != 0)) {
		k = build(c, hva, gpa);
		if (!k)
			return block_find_one(c);
	}
	if (unlikely(k->bytes > limit_room(c, c->s.rip)))
		return block_find_one(c);
	return k;
}
