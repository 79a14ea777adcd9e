/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/bt.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/*
 * Where translations are kept: code pages and their ids, blocks, the links between them, and what
 * lies in which guest-physical page, to find the blocks that a store makes stale. Everything is
 * taken from the front of its array and given back all at once by a flush, when no vCPU is in
 * translated code; so a pointer to code never goes wrong, it only leads to a dead block, whose
 * entries lead back to C.
 */
static void *map_lazily(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void unmap(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}

int bt_cache_create(struct bt *bt, struct mem *mem, size_t code_bytes, struct error *err)
{
	int r = code_mem_create(&bt->code, code_bytes, err);

	if (r < 0)
		return r;
	bt->gpa_pages = (MEM_HIGH_BASE + mem_high_bytes(mem)) >> MEM_PAGE_SHIFT;
	bt->pages = map_lazily(BT_PAGES_MAX * sizeof(*bt->pages));
	bt->page_hash = map_lazily(BT_HASH * sizeof(*bt->page_hash));
	bt->blocks = map_lazily(BT_BLOCKS_MAX * sizeof(*bt->blocks));
	bt->block_hash = map_lazily(BT_HASH * sizeof(*bt->block_hash));
	bt->exits = map_lazily(BT_EXITS_MAX * sizeof(*bt->exits));
	bt->insns = map_lazily(BT_INSNS_MAX * sizeof(*bt->insns));
	bt->gpa_page = map_lazily(bt->gpa_pages * sizeof(*bt->gpa_page));
	bt->marked = map_lazily(bt->gpa_pages);
	if (!bt->pages || !bt->page_hash || !bt->blocks || !bt->block_hash || !bt->exits ||
	    !bt->insns || !bt->gpa_page || !bt->marked)
		return error_set(err, -ENOMEM, "bt: no address space for the translation cache");
	bt->page_count = 1;
	if (bt_thunks_make(bt) < 0)
		return error_set(err, -ENOMEM, "bt: a code cache of %zu bytes is too small",
				 code_bytes);
	return 0;
}

void bt_cache_destroy(struct bt *bt)
{
	code_mem_destroy(&bt->code);
	unmap(bt->pages, BT_PAGES_MAX * sizeof(*bt->pages));
	unmap(bt->page_hash, BT_HASH * sizeof(*bt->page_hash));
	unmap(bt->blocks, BT_BLOCKS_MAX * sizeof(*bt->blocks));
	unmap(bt->block_hash, BT_HASH * sizeof(*bt->block_hash));
	unmap(bt->exits, BT_EXITS_MAX * sizeof(*bt->exits));
	unmap(bt->insns, BT_INSNS_MAX * sizeof(*bt->insns));
	unmap(bt->gpa_page, bt->gpa_pages * sizeof(*bt->gpa_page));
	unmap((void *)bt->marked, bt->gpa_pages);
}

/* No vCPU is in translated code. */
void bt_cache_flush(struct bt *bt)
{
	bt->code.used = bt->thunk_bytes;
	madvise(bt->page_hash, BT_HASH * sizeof(*bt->page_hash), MADV_DONTNEED);
	madvise(bt->block_hash, BT_HASH * sizeof(*bt->block_hash), MADV_DONTNEED);
	madvise(bt->gpa_page, bt->gpa_pages * sizeof(*bt->gpa_page), MADV_DONTNEED);
	madvise((void *)bt->marked, bt->gpa_pages, MADV_DONTNEED);
	memset(bt->mode_keys, 0, sizeof(bt->mode_keys));
	bt->page_count = 1;
	bt->block_count = bt->exit_count = bt->insn_count = 0;
	for (unsigned n = 0; n < bt->cpu_count; n++)
		bt_cpu_reset(bt, bt->cpus[n]);
}

void bt_cpu_reset(struct bt *bt, struct soft_cpu *c)
{
	struct bt_cpu *k = &c->bt;

	k->mode_known = false;
	k->exit = NULL;
	k->fills = 0;
	memset(k->page_id, 0, sizeof(k->page_id));
	memset(k->lookup, 0, sizeof(k->lookup));
	for (unsigned m = 0; m < BT_MODES; m++)
		for (unsigned j = 0; j < BT_JUMPS; j++)
			k->jump[m][j] = bt->thunks.no_jump;
}

struct emit bt_emit_begin(struct bt *bt, size_t most)
{
	struct emit e = {.p = code_mem_reserve(&bt->code, most)};

	if (e.p) {
		e.end = e.p + most;
		e.run = bt->code.rx - bt->code.rw;
	}
	return e;
}

const void *bt_emit_end(struct bt *bt, struct emit *e)
{
	if (e->full)
		return NULL;
	return code_mem_commit(&bt->code, (size_t)(e->p - (bt->code.rw + bt->code.used)));
}

/* ---- code pages ---- */

static unsigned hash64(uint64_t v)
{
	return (unsigned)(v * UINT64_C(0x9e3779b97f4a7c15) >> 40) % BT_HASH;
}

uint32_t bt_page_id(struct bt *bt, uint64_t gva, uint64_t gpa, unsigned mode)
{
	uint32_t *slot = &bt->page_hash[hash64(gva ^ gpa >> 7 ^ mode)];

	for (uint32_t id = *slot; id; id = bt->pages[id].next_hash)
		if (bt->pages[id].gva == gva && bt->pages[id].gpa == gpa &&
		    bt->pages[id].mode == mode)
			return id;
	if (bt->page_count == BT_PAGES_MAX)
		return 0;
	uint32_t id = bt->page_count++;
	bt->pages[id] =
		(struct bt_page){.gva = gva, .gpa = gpa, .mode = (uint8_t)mode, .next_hash = *slot};
	*slot = id;
	return id;
}

/* ---- blocks ---- */

static struct bt_block **block_slot(struct bt *bt, uint32_t page, unsigned offset)
{
	return &bt->block_hash[hash64((uint64_t)page << 12 | offset)];
}

struct bt_block *bt_block_find(struct bt *bt, uint32_t page, unsigned offset)
{
	struct bt_block *b = *block_slot(bt, page, offset);

	while (b && (b->page != page || b->offset != offset || b->dead))
		b = b->next_hash;
	return b;
}

struct bt_block *bt_block_new(struct bt *bt, uint32_t page, unsigned offset)
{
	if (bt->block_count == BT_BLOCKS_MAX)
		return NULL;
	struct bt_block *b = &bt->blocks[bt->block_count++];
	*b = (struct bt_block){.page = page, .offset = (uint16_t)offset};
	return b;
}

static void list_in_gpa_page(struct bt *bt, struct bt_block *b)
{
	struct bt_block **first = &bt->gpa_page[bt->pages[b->page].gpa >> MEM_PAGE_SHIFT];

	b->next_in_gpa_page = *first;
	*first = b;
}

bool bt_block_publish(struct bt *bt, struct bt_block *b)
{
	struct bt_block **slot = block_slot(bt, b->page, b->offset);

	if (b->page2) {
		struct bt_block *rest = bt_block_new(bt, b->page2, 0);
		if (!rest)
			return false;
		rest->owner = b;
		rest->bytes = (uint16_t)(b->offset + b->bytes - MEM_PAGE_BYTES);
		list_in_gpa_page(bt, rest);
	}
	b->next_hash = *slot;
	*slot = b;
	list_in_gpa_page(bt, b);
	return true;
}

struct bt_exit *bt_exit_new(struct bt *bt, struct bt_block *from)
{
	if (bt->exit_count == BT_EXITS_MAX)
		return NULL;
	struct bt_exit *x = &bt->exits[bt->exit_count++];
	*x = (struct bt_exit){.from = from, .next_of_block = from->exits};
	from->exits = x;
	return x;
}

/* ---- links ---- */

/* The distance of a jump, changed while others may run it: one aligned store cannot be assumed, but
 * the CPU fetches the four bytes whole unless they cross a cache line (translate.c places them). */
static void set_jump(struct bt *bt, uint8_t *at, const void *to)
{
	const uint8_t *run = bt->code.rx + (at - bt->code.rw);
	uint32_t rel = (uint32_t)((const uint8_t *)to - (run + 4));

	__atomic_store_n((uint32_t *)at, rel, __ATOMIC_RELEASE);
}

void bt_emit_page_check(struct bt *bt, struct emit *e, uint32_t page)
{
	const struct bt_page *p = &bt->pages[page];
	unsigned index = (p->gva >> MEM_PAGE_SHIFT) % BT_CODE_PAGES;

	e_cmp_gs32(e, OFF(bt.page_id) + (p->mode * BT_CODE_PAGES + index) * sizeof(uint32_t), page);
}

/* Where a failed check goes: C, with the rip that was meant. */
static void emit_check_failed(struct bt *bt, struct emit *e, uint64_t rip)
{
	e_mov_ri(e, T_ADDR, rip);
	e_jmp(e, bt->thunks.leave);
}

/* Makes an entry of the kind; NULL when there is no room. */
static const void *make_entry(struct bt *bt, struct bt_block *b, enum bt_entry_kind kind)
{
	struct emit e = bt_emit_begin(bt, 256);
	uint64_t rip = bt->pages[b->page].gva + b->offset;
	bool host = kind == ENTRY_HOST || kind == ENTRY_HOST_CHECK;
	bool check = kind != ENTRY_HOST && kind != ENTRY_PARKED;
	uint8_t *failed[2] = {NULL, NULL};

	if (!e.p)
		return NULL;
	if (kind == ENTRY_JUMP) {
		if (fits32((int64_t)rip)) {
			e_alu_ri(&e, true, ALU_CMP, T_ADDR, (int32_t)rip);
		} else {
			e_mov_ri(&e, T_INDEX, rip);
			e_bytes(&e, "\x4d\x39\xd3", 3); /* cmp r11, r10 */
		}
		failed[1] = e_jcc_later(&e, CC_NE);
	}
	if (host && (check || b->flags == FLAGS_PARKED))
		emit_park(&e);
	if (check) {
		bt_emit_page_check(bt, &e, b->page);
		failed[0] = e_jcc_later(&e, CC_NE);
	}
	if (b->flags == FLAGS_HOST && (check || !host))
		emit_unpark(&e);
	e_jmp(&e, b->main);
	if (failed[0]) {
		e_patch(&e, failed[0]);
		emit_check_failed(bt, &e, rip);
	}
	if (failed[1]) {
		e_patch(&e, failed[1]);
		e_jmp(&e, bt->thunks.leave); /* r11 is the rip that was meant */
	}
	return bt_emit_end(bt, &e);
}

const void *bt_entry(struct bt *bt, struct bt_block *b, enum bt_entry_kind kind)
{
	bool plain = b->flags == FLAGS_DEAD || (kind == ENTRY_HOST && b->flags == FLAGS_HOST) ||
		     (kind == ENTRY_PARKED && b->flags == FLAGS_PARKED);

	if ((kind == ENTRY_HOST || kind == ENTRY_PARKED) && plain)
		return b->main;
	if (!b->entry[kind])
		b->entry[kind] = make_entry(bt, b, kind);
	return b->entry[kind];
}

void bt_link(struct bt *bt, struct bt_exit *x, struct bt_block *to)
{
	bool same_page = x->from->page == to->page;
	bool host = x->flags == FLAGS_HOST ||
		    (x->flags == FLAGS_BOTH && to->flags == FLAGS_HOST && same_page);
	enum bt_entry_kind kind;

	if (x->linked || to->dead || x->from->dead)
		return;
	if (bt->stress.on && bt_stress_comes_back(bt))
		return;
	if (same_page)
		kind = host ? ENTRY_HOST : ENTRY_PARKED;
	else
		kind = host ? ENTRY_HOST_CHECK : ENTRY_PARKED_CHECK;
	const void *entry = bt_entry(bt, to, kind);
	if (!entry)
		return;
	x->to = to;
	x->next_in = to->in;
	to->in = x;
	x->linked = true;
	set_jump(bt, x->jump, entry);
}

/* ---- stale code ---- */

static void unlink_from_target(struct bt_exit *x)
{
	if (!x->linked)
		return;
	struct bt_exit **at = &x->to->in;
	while (*at && *at != x)
		at = &(*at)->next_in;
	if (*at)
		*at = x->next_in;
	x->linked = false;
}

/* A jump at the very place of the entry, to code that leaves with the block's rip. */
static void redirect(struct bt *bt, const void *entry, const void *to)
{
	uint8_t *at = bt->code.rw + ((const uint8_t *)entry - bt->code.rx);
	uint32_t rel = (uint32_t)((const uint8_t *)to - ((const uint8_t *)entry + 5));
	uint64_t old, now;

	/* Entries are 16-byte aligned: the eight bytes change at once. */
	memcpy(&old, at, 8);
	now = (old & ~UINT64_C(0xffffffffff)) | 0xe9 | (uint64_t)rel << 8;
	__atomic_store_n((uint64_t *)at, now, __ATOMIC_RELEASE);
}

void bt_block_kill(struct bt *bt, struct bt_block *b)
{
	b->dead = true;
	for (struct bt_exit *x = b->in, *next; x; x = next) {
		next = x->next_in;
		x->linked = false;
		x->next_in = NULL;
		set_jump(bt, x->jump, x->stub);
	}
	b->in = NULL;
	for (struct bt_exit *x = b->exits; x; x = x->next_of_block)
		unlink_from_target(x);
	/* What indirect jumps may still hold: the jump entry leaves to C by its own failed check. A
	 * vCPU in the block goes on to its end, as one that has fetched the old bytes would. */
	if (b->entry[ENTRY_JUMP])
		redirect(bt, b->entry[ENTRY_JUMP], bt->thunks.leave);
}

bool bt_invalidate(struct bt *bt, uint64_t gpa, unsigned len)
{
	uint64_t page = gpa >> MEM_PAGE_SHIFT;
	unsigned from = gpa & ~PAGE_MASK;
	bool any = false;

	if (page >= bt->gpa_pages)
		return false;
	struct bt_block *keep = NULL, *next;
	for (struct bt_block *b = bt->gpa_page[page]; b; b = next) {
		next = b->next_in_gpa_page;
		if (b->dead || (b->owner && b->owner->dead))
			continue;
		if (b->offset < from + len && from < (unsigned)b->offset + b->bytes) {
			bt_block_kill(bt, b->owner ? b->owner : b);
			any = true;
		} else {
			b->next_in_gpa_page = keep;
			keep = b;
		}
	}
	bt->gpa_page[page] = keep;
	if (!keep)
		atomic_store(&bt->marked[page], 0);
	return any;
}
