/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/bt.h"

#include <errno.h>
#include <stdlib.h>

/*
 * Where translations are kept: code pages and their ids, blocks, the links between them, and what
 * lies in which guest-physical page, to find the blocks that a store makes stale. Everything is
 * taken from the front of its array and given back all at once by a flush, when no vCPU is in
 * translated code; so a pointer to code never goes wrong, it only leads to a dead block, whose
 * entries lead back to C.
 */
int bt_cache_create(struct bt *bt, struct mem *mem, size_t code_bytes, struct error *err)
{
	/* As cc1 and a kernel come out: a block's code is 560 bytes, what is known of it 500. */
	const size_t known_bytes = code_bytes / 2, per_block = 500;

	bt->mem = mem;
	bt->blocks_max = (uint32_t)(known_bytes / per_block);
	bt->exits_max = 5 * bt->blocks_max;
	bt->insns_max = bt->blocks_max / 2;
	bt->pages_max = bt->blocks_max / 4;
	code_bytes = (code_bytes - known_bytes) & PAGE_MASK;
	int r = code_mem_create(&bt->code, code_bytes, err);
	if (r < 0)
		return r;
	size_t hot = code_bytes / 8 * 5 & PAGE_MASK;
	if (hot > CODE_MEM_HUGE)
		hot &= ~(size_t)(CODE_MEM_HUGE - 1); /* so that the other part is aligned, too */
	bt->hot = (struct code_mem){.rw = bt->code.rw, .rx = bt->code.rx, .bytes = hot};
	bt->cold = (struct code_mem){
		.rw = bt->code.rw + hot, .rx = bt->code.rx + hot, .bytes = code_bytes - hot};
	bt->gpa_pages = (MEM_HIGH_BASE + mem_high_bytes(mem)) >> MEM_PAGE_SHIFT;
	bt->pages = bt_table_map(bt->pages_max * sizeof(*bt->pages));
	bt->page_hash = bt_table_map(BT_HASH * sizeof(*bt->page_hash));
	bt->blocks = bt_table_map(bt->blocks_max * sizeof(*bt->blocks));
	bt->block_hash = bt_table_map(BT_BLOCK_HASH * sizeof(*bt->block_hash));
	bt->templates = bt_table_map(BT_HASH * sizeof(*bt->templates));
	bt->exits = bt_table_map(bt->exits_max * sizeof(*bt->exits));
	bt->insns = bt_table_map(bt->insns_max * sizeof(*bt->insns));
	bt->gpa_page = bt_table_map(bt->gpa_pages * sizeof(*bt->gpa_page));
	bt->marked = bt_table_map(bt->gpa_pages);
	if (!bt->pages || !bt->page_hash || !bt->blocks || !bt->block_hash || !bt->templates ||
	    !bt->exits || !bt->insns || !bt->gpa_page || !bt->marked)
		return error_set(err, -ENOMEM, "bt: no address space for the translation cache");
	bt->page_count = 1;
	r = bt_arenas_create(bt, err);
	if (r < 0)
		return r;
	if (bt_thunks_make(bt) < 0)
		return error_set(err, -ENOMEM, "bt: a code cache of %zu bytes is too small",
				 code_bytes);
	return 0;
}

void bt_cache_destroy(struct bt *bt)
{
	bt_arenas_destroy(bt);
	code_mem_destroy(&bt->code);
	bt_table_unmap(bt->pages, bt->pages_max * sizeof(*bt->pages));
	bt_table_unmap(bt->page_hash, BT_HASH * sizeof(*bt->page_hash));
	bt_table_unmap(bt->blocks, bt->blocks_max * sizeof(*bt->blocks));
	bt_table_unmap(bt->block_hash, BT_BLOCK_HASH * sizeof(*bt->block_hash));
	bt_table_unmap(bt->templates, BT_HASH * sizeof(*bt->templates));
	bt_table_unmap(bt->exits, bt->exits_max * sizeof(*bt->exits));
	bt_table_unmap(bt->insns, bt->insns_max * sizeof(*bt->insns));
	bt_table_unmap(bt->gpa_page, bt->gpa_pages * sizeof(*bt->gpa_page));
	bt_table_unmap((void *)bt->marked, bt->gpa_pages);
}

void bt_cache_make_huge(struct bt *bt)
{
	bt->huge = true;
	bt_table_make_huge(bt->page_hash, BT_HASH * sizeof(*bt->page_hash));
	bt_table_make_huge(bt->block_hash, BT_BLOCK_HASH * sizeof(*bt->block_hash));
	bt_table_make_huge(bt->templates, BT_HASH * sizeof(*bt->templates));
	bt_table_make_huge(bt->gpa_page, bt->gpa_pages * sizeof(*bt->gpa_page));
	bt_table_make_huge((void *)bt->marked, bt->gpa_pages);
	bt_table_make_huge(bt->blocks, bt->block_count * sizeof(*bt->blocks));
	bt_table_make_huge(bt->exits, bt->exit_count * sizeof(*bt->exits));
}

/* No vCPU is in translated code. */
void bt_cache_flush(struct bt *bt)
{
	bt->hot.used = bt->thunk_bytes;
	bt->cold.used = 0;
	bt->links.used = bt->links.bytes = 0;
	bt_table_forget(bt->page_hash, BT_HASH * sizeof(*bt->page_hash));
	bt_table_forget(bt->block_hash, BT_BLOCK_HASH * sizeof(*bt->block_hash));
	bt_table_forget(bt->templates, BT_HASH * sizeof(*bt->templates));
	bt_table_forget(bt->gpa_page, bt->gpa_pages * sizeof(*bt->gpa_page));
	bt_table_forget((void *)bt->marked, bt->gpa_pages);
	memset(bt->mode_keys, 0, sizeof(bt->mode_keys));
	bt_window_forget_blocks(bt);
	bt->page_count = 1;
	bt->block_count = bt->exit_count = bt->insn_count = 0;
	bt->huge = false;
	for (unsigned n = 0; n < bt->cpu_count; n++)
		bt_cpu_reset(bt, bt->cpus[n]);
}

void bt_cache_shrink(struct bt *bt)
{
	code_mem_give_back(&bt->hot, bt->thunk_bytes);
	code_mem_give_back(&bt->cold, 0);
	bt_table_forget(bt->pages, bt->pages_max * sizeof(*bt->pages));
	bt_table_forget(bt->blocks, bt->blocks_max * sizeof(*bt->blocks));
	bt_table_forget(bt->exits, bt->exits_max * sizeof(*bt->exits));
	bt_table_forget(bt->insns, bt->insns_max * sizeof(*bt->insns));
}

void bt_cpu_reset(struct bt *bt, struct soft_cpu *c)
{
	struct bt_cpu *k = &c->bt;

	k->mode_known = false;
	k->exit = NULL;
	k->fills = 0;
	k->traps = 0;
	if (k->arena)
		bt_arena_reset(k->arena);
	bt_shadow_reset(bt, c);
	memset(k->page_id, 0, sizeof(k->page_id));
	memset(k->lookup, 0, sizeof(k->lookup));
	for (unsigned m = 0; m < BT_MODES; m++)
		for (unsigned j = 0; j < BT_JUMPS; j++)
			k->jump[m][j] = bt->thunks.no_jump;
}

struct emit bt_emit_begin(struct code_mem *part, size_t most)
{
	struct emit e = {.p = code_mem_reserve(part, most)};

	if (e.p) {
		e.end = e.p + most;
		e.run = part->rx - part->rw;
	}
	return e;
}

struct emit bt_emit_go_on(struct code_mem *part, size_t most)
{
	const size_t used = part->used;
	struct emit e = bt_emit_begin(part, most);

	if (e.p) {
		e.p -= part->used - used;
		part->used = used;
	}
	return e;
}

const void *bt_emit_end(struct code_mem *part, struct emit *e)
{
	if (e->full)
		return NULL;
	return code_mem_commit(part, (size_t)(e->p - (part->rw + part->used)));
}

/* ---- code pages ---- */

static unsigned hash64(uint64_t v)
{
	return (unsigned)(v * UINT64_C(0x9e3779b97f4a7c15) >> 40) % BT_HASH;
}

static uint32_t *page_slot(struct bt *bt, uint64_t gva, uint64_t gpa, unsigned mode)
{
	return &bt->page_hash[hash64(gva ^ gpa >> 7 ^ mode)];
}

uint32_t bt_page_find(struct bt *bt, uint64_t gva, uint64_t gpa, unsigned mode)
{
	uint32_t id = __atomic_load_n(page_slot(bt, gva, gpa, mode), __ATOMIC_ACQUIRE);

	while (id &&
	       (bt->pages[id].gva != gva || bt->pages[id].gpa != gpa || bt->pages[id].mode != mode))
		id = bt->pages[id].next_hash;
	return id;
}

static void hash_page(struct bt *bt, uint32_t id)
{
	struct bt_page *p = &bt->pages[id];
	uint32_t *slot = page_slot(bt, p->gva, p->gpa, p->mode);

	p->next_hash = *slot;
	__atomic_store_n(slot, id, __ATOMIC_RELEASE);
}

uint32_t bt_page_alias(const struct bt *bt, uint64_t gpa, unsigned mode)
{
	const struct bt_block *b = bt->gpa_page[gpa >> MEM_PAGE_SHIFT];

	while (b && bt->pages[b->page].mode != mode)
		b = b->next_in_gpa_page;
	return b ? b->page : 0;
}

uint32_t bt_page_new(struct bt *bt, uint64_t gva, uint64_t gpa, unsigned mode)
{
	if (bt->page_count == bt->pages_max)
		return 0;
	const uint32_t id = bt->page_count++, alias = bt_page_alias(bt, gpa, mode);
	struct bt_page *p = &bt->pages[id];
	*p = (struct bt_page){.gva = gva, .gpa = gpa, .mode = (uint8_t)mode, .next_alias = id};
	if (alias) {
		p->next_alias = bt->pages[alias].next_alias;
		bt->pages[alias].next_alias = id;
	}
	hash_page(bt, id);
	return id;
}

void bt_page_move(struct bt *bt, uint32_t id, uint64_t gva)
{
	struct bt_page *p = &bt->pages[id];
	uint32_t *at = page_slot(bt, p->gva, p->gpa, p->mode);

	while (*at != id)
		at = &bt->pages[*at].next_hash;
	*at = p->next_hash;
	p->gva = gva;
	hash_page(bt, id);
}

/* ---- blocks ---- */

static uint32_t *block_slot(struct bt *bt, uint32_t page, unsigned offset)
{
	/* A page's blocks lie near each other. */
	return &bt->block_hash[(page * UINT32_C(0x9e3779b1) / 64 + offset / 4) % BT_BLOCK_HASH];
}

struct bt_block *bt_block_find(struct bt *bt, uint32_t page, unsigned offset, bool plain)
{
	uint32_t n = __atomic_load_n(block_slot(bt, page, offset), __ATOMIC_ACQUIRE);

	while (n) {
		struct bt_block *b = &bt->blocks[n - 1];
		if (b->page == page && b->offset == offset && b->plain == plain)
			return b;
		n = __atomic_load_n(&b->next_hash, __ATOMIC_ACQUIRE);
	}
	return NULL;
}

struct bt_block *bt_block_new(struct bt *bt, struct bt_arena *a, uint32_t page, unsigned offset)
{
	if (a->blocks.next == a->blocks.end)
		return NULL;
	struct bt_block *b = &bt->blocks[a->blocks.next++];
	*b = (struct bt_block){.page = page, .offset = (uint16_t)offset};
	return b;
}

static void list_in_page(struct bt *bt, struct bt_block *b)
{
	struct bt_page *p = &bt->pages[b->page];
	struct bt_block **first = &bt->gpa_page[p->gpa >> MEM_PAGE_SHIFT];

	b->next_in_gpa_page = *first;
	*first = b;
	b->next_in_page = p->blocks;
	p->blocks = b;
}

bool bt_block_publish(struct bt *bt, struct bt_arena *a, struct bt_block *b)
{
	uint32_t *slot = block_slot(bt, b->page, b->offset);

	if (b->page2) {
		struct bt_block *rest = bt_block_new(bt, a, b->page2, 0);
		if (!rest)
			return false;
		rest->owner = b;
		rest->bytes = (uint16_t)(b->offset + b->bytes - MEM_PAGE_BYTES);
		rest->needs_to = rest->bytes;
		list_in_page(bt, rest);
	}
	b->next_hash = *slot;
	__atomic_store_n(slot, (uint32_t)(b - bt->blocks) + 1, __ATOMIC_RELEASE);
	list_in_page(bt, b);
	if (bt->window && bt->mode_keys[b->mode] & MODE_KEY_WINDOW)
		bt_window_list(bt, b);
	return true;
}

struct bt_exit *bt_exit_new(struct bt *bt, struct bt_arena *a, struct bt_block *from)
{
	if (a->exits.next == a->exits.end)
		return NULL;
	struct bt_exit *x = &bt->exits[a->exits.next++];
	if (!from->exit_nr++)
		from->first_exit = (uint32_t)(x - bt->exits);
	*x = (struct bt_exit){.from = (uint32_t)(from - bt->blocks) + 1};
	return x;
}

/* ---- links ---- */

enum { ENTRY_BYTES_MAX = 256 };

/* The distance of a jump, changed while others may run it: one aligned store cannot be assumed, but
 * the CPU fetches the four bytes whole unless they cross a cache line (translate.c places them). */
static void set_jump(struct bt *bt, uint8_t *at, const void *to)
{
	const uint8_t *run = bt->code.rx + (at - bt->code.rw);
	uint32_t rel = (uint32_t)((const uint8_t *)to - (run + 4));

	__atomic_store_n((uint32_t *)at, rel, __ATOMIC_RELEASE);
}

/* Eight bytes that begin with a multiple of eight change at once; those behind the first five stay. */
static void set_five(uint8_t *at, uint64_t five)
{
	const uint64_t mask = (UINT64_C(1) << 40) - 1;
	const unsigned shift = 8 * ((uintptr_t)at % 8);
	uint64_t *word = (uint64_t *)(at - (uintptr_t)at % 8);
	const uint64_t old = __atomic_load_n(word, __ATOMIC_RELAXED);

	__atomic_store_n(word, (old & ~(mask << shift)) | five << shift, __ATOMIC_RELEASE);
}

/*
 * A jump to what comes next anyway is a NOP of as many bytes. Where one becomes the other, the vCPU may be about to
 * run it (a device writes to code): so only where all five bytes change at once (flow.c places most so). With several
 * vCPUs there are none.
 */
static void set_exit(struct bt *bt, uint8_t *at, const void *to)
{
	const uint64_t nop = UINT64_C(0x0000441f00) | NOP_OPCODE; /* 0f 1f 44 00 00 */
	const uint8_t *next = bt->code.rx + (at - bt->code.rw) + 4;
	const uint32_t rel = (uint32_t)((const uint8_t *)to - next);

	if (at[-1] == NOP_OPCODE && to != next)
		set_five(at - 1, JMP_OPCODE | (uint64_t)rel << 8);
	else if (at[-1] == JMP_OPCODE && to == next && bt->cpu_count == 1 && bt_may_be_nop(at - 1))
		set_five(at - 1, nop);
	else if (at[-1] != NOP_OPCODE)
		set_jump(bt, at, to);
}

static size_t page_id_offset(const struct bt *bt, uint32_t page)
{
	const struct bt_page *p = &bt->pages[page];
	const unsigned index = (p->gva >> MEM_PAGE_SHIFT) % BT_CODE_PAGES;

	return OFF(bt.page_id) + (p->mode * BT_CODE_PAGES + index) * sizeof(uint32_t);
}

void bt_emit_page_check(struct bt *bt, struct emit *e, uint32_t page)
{
	e_cmp_gs32(e, page_id_offset(bt, page), page);
}

/* Where a failed check goes: C, with the rip that was meant. */
static void emit_check_failed(struct bt *bt, struct emit *e, uint64_t rip)
{
	e_mov_ri(e, T_ADDR, rip);
	e_jmp(e, bt->thunks.leave);
}

/*
 * The check of an entry that comes and goes on with the host's flags: without touching them, which
 * costs less than to put them away and bring them back. JRCXZ is the one jump that asks no flags:
 *
 *	mov r10, rcx ; mov ecx, gs:[page_id...] ; lea ecx, [rcx - id] ; jrcxz good
 *	mov rcx, r10 ; (put flags away) ; mov r11, rip ; jmp leave
 * good:	mov rcx, r10 ; jmp main
 */
static void emit_check_by_rcx(struct bt *bt, struct emit *e, const struct bt_block *b, uint64_t rip)
{
	e_mov_rr(e, T_INDEX, RCX);
	e_load32(e, RCX, page_id_offset(bt, b->page));
	e_lea(e, false, RCX, RCX, 0xff, 1, -(int32_t)b->page);
	e_bytes(e, "\xe3\0", 2); /* jrcxz */
	uint8_t *good = e->p - 1;
	e_mov_rr(e, RCX, T_INDEX);
	emit_park(e);
	emit_check_failed(bt, e, rip);
	if (!e->full)
		*good = (uint8_t)(e->p - (good + 1));
	e_mov_rr(e, RCX, T_INDEX);
	e_jmp(e, b->main);
}

/* Of an indirect jump, which comes with the rip that is meant in r11. */
static void emit_rip_check(struct bt *bt, struct emit *e, uint64_t rip)
{
	if (fits32((int64_t)rip)) {
		e_alu_ri(e, true, ALU_CMP, T_ADDR, (int32_t)rip);
	} else {
		e_mov_ri(e, T_INDEX, rip);
		e_rr(e, true, 0x39, T_INDEX, T_ADDR); /* cmp r11, r10 */
	}
	e_jcc(e, CC_NE, bt->thunks.leave);
}

static void emit_jump_entry(struct bt *bt, struct emit *e, const struct bt_block *b)
{
	emit_rip_check(bt, e, bt_rip_of(bt, b));
	bt_emit_page_check(bt, e, b->page);
	e_jcc(e, CC_NE, bt->thunks.leave);
	if (b->flags == FLAGS_HOST)
		emit_unpark(e);
	e_jmp(e, b->main);
}

static void emit_entry(struct bt *bt, struct emit *e, const struct bt_block *b,
		       enum bt_entry_kind kind)
{
	uint64_t rip = bt_rip_of(bt, b);
	bool host = kind == ENTRY_HOST || kind == ENTRY_HOST_CHECK;
	bool check = kind != ENTRY_HOST && kind != ENTRY_PARKED;
	uint8_t *failed = NULL;

	switch (kind) {
	case ENTRY_JUMP:
		emit_jump_entry(bt, e, b);
		return;
	case ENTRY_CALLED:
		bt_emit_from_shadow(e, b->mode);
		e_jmp(e, b->main);
		return;
	case ENTRY_CALLED_CHECK:
		bt_emit_from_shadow(e, b->mode);
		break;
	default:
		break;
	}

	if (kind == ENTRY_HOST_CHECK && b->flags != FLAGS_PARKED) {
		emit_check_by_rcx(bt, e, b, rip);
		return;
	}
	if (host && (check || b->flags == FLAGS_PARKED))
		emit_park(e);
	if (check) {
		bt_emit_page_check(bt, e, b->page);
		failed = e_jcc_later(e, CC_NE);
	}
	if (b->flags == FLAGS_HOST && (check || !host))
		emit_unpark(e);
	e_jmp(e, b->main);
	if (failed) {
		e_patch(e, failed);
		emit_check_failed(bt, e, rip);
	}
}

static uint32_t place_of(const struct bt *bt, const void *at)
{
	return (uint32_t)((const uint8_t *)at - bt->code.rx);
}

uint8_t *bt_emit_head(struct bt *bt, struct emit *e, struct bt_block *b, enum bt_head head)
{
	const uint32_t here = place_of(bt, (const void *)e_here(e));

	b->head = (uint8_t)head;
	if (head == HEAD_JUMP) {
		b->entry[ENTRY_JUMP] = here;
		emit_rip_check(bt, e, bt_rip_of(bt, b));
	} else if (head == HEAD_CALL || head == HEAD_CALL_CHECK) {
		b->entry[head == HEAD_CALL ? ENTRY_CALLED : ENTRY_CALLED_CHECK] = here;
		bt_emit_from_shadow(e, b->mode);
	}
	if (head == HEAD_CALL)
		return NULL;
	b->entry[ENTRY_PARKED_CHECK] = place_of(bt, (const void *)e_here(e));
	bt_emit_page_check(bt, e, b->page);
	uint8_t *elsewhere = e_jcc_later(e, CC_NE);
	if (b->flags == FLAGS_HOST)
		emit_unpark(e);
	return elsewhere;
}

/* What changes of an entry when its block moves. */
static void emit_entry_again(struct bt *bt, struct emit *e, const struct bt_block *b,
			     enum bt_entry_kind kind)
{
	if (kind == ENTRY_JUMP && b->head == HEAD_JUMP)
		emit_rip_check(bt, e, bt_rip_of(bt, b));
	else if (kind == ENTRY_CALLED_CHECK && b->head == HEAD_CALL_CHECK)
		bt_emit_from_shadow(e, b->mode);
	else if (kind == ENTRY_PARKED_CHECK && b->head != HEAD_NONE && b->head != HEAD_CALL)
		bt_emit_page_check(bt, e, b->page);
	else
		emit_entry(bt, e, b, kind);
}

/* Makes an entry of the kind; NULL when there is no room. */
static const void *make_entry(struct bt *bt, struct bt_block *b, enum bt_entry_kind kind)
{
	struct emit e = {0};

	if (bt_links_ready(bt, ENTRY_BYTES_MAX))
		e = bt_emit_begin(&bt->links, ENTRY_BYTES_MAX);
	if (!e.p)
		return NULL;
	emit_entry(bt, &e, b, kind);
	return bt_emit_end(&bt->links, &e);
}

/* Anew at the same places: what is as long as before, where addresses have 64 bits before and after. */
void bt_settle_entries(struct bt *bt, struct bt_block *b)
{
	static const enum bt_entry_kind kinds[] = {ENTRY_HOST_CHECK, ENTRY_PARKED_CHECK, ENTRY_JUMP,
						   ENTRY_CALLED_CHECK};

	for (unsigned n = 0; n < sizeof(kinds) / sizeof(kinds[0]); n++) {
		if (!b->entry[kinds[n]])
			continue;
		const uint8_t *entry = bt->code.rx + b->entry[kinds[n]];
		uint8_t code[ENTRY_BYTES_MAX];
		struct emit e = {.p = code, .end = code + sizeof(code), .run = entry - code};
		emit_entry_again(bt, &e, b, kinds[n]);
		memcpy(bt->code.rw + (entry - bt->code.rx), code, (size_t)(e.p - code));
	}
}

const void *bt_entry_made(const struct bt *bt, const struct bt_block *b, enum bt_entry_kind kind)
{
	bool plain = b->flags == FLAGS_DEAD || (kind == ENTRY_HOST && b->flags == FLAGS_HOST) ||
		     (kind == ENTRY_PARKED && b->flags == FLAGS_PARKED);

	if ((kind == ENTRY_HOST || kind == ENTRY_PARKED) && plain)
		return b->main;
	const uint32_t at = __atomic_load_n(&b->entry[kind], __ATOMIC_ACQUIRE);
	return at ? bt->code.rx + at : NULL;
}

const void *bt_entry(struct bt *bt, struct bt_block *b, enum bt_entry_kind kind)
{
	const void *entry = bt_entry_made(bt, b, kind);

	if (!entry && (entry = make_entry(bt, b, kind)))
		__atomic_store_n(&b->entry[kind], place_of(bt, entry), __ATOMIC_RELEASE);
	return entry;
}

/* Does it lead to code of its own page, which is there as long as that is run? */
static bool stays_in_page(const struct bt *bt, const struct bt_exit *x, const struct bt_block *to)
{
	return bt_from(bt, x)->page == to->page && !x->far;
}

/* Where a link from x to the block leads, by what kind of entry. NULL: there is no room for it; or it is to a page of
 * the window that is not trusted, and is found to be there by the next who comes. */
static const void *link_entry(struct bt *bt, const struct bt_exit *x, struct bt_block *to,
			      enum bt_entry_kind *made)
{
	const struct bt_block *from = bt_from(bt, x);
	const bool sure = stays_in_page(bt, x, to) || bt->pages[to->page].trusted;
	const bool host = x->flags == FLAGS_HOST ||
			  ((x->flags == FLAGS_BOTH || x->flags == FLAGS_DEAD) &&
			   to->flags == FLAGS_HOST && sure);
	enum bt_entry_kind kind;

	if (!sure && (bt->mode_keys[x->mode] & MODE_KEY_WINDOW))
		return NULL;
	if (sure)
		kind = host ? ENTRY_HOST : ENTRY_PARKED;
	else
		kind = host ? ENTRY_HOST_CHECK : ENTRY_PARKED_CHECK;
	const void *entry = bt_entry(bt, to, kind);
	*made = kind;
	if (x->loops && from == to)
		entry = (const uint8_t *)to->main + to->loop;
	return entry;
}

/* Has the exit lead to its stub. */
static void let_go(struct bt *bt, const struct bt_exit *x)
{
	if (x->calls)
		set_jump(bt, bt_veneer_of(bt, x), bt_stub_of(bt, x) + SHADOW_OFF_BYTES + JMP_BYTES);
	set_exit(bt, bt_jump_of(bt, x), bt_stub_of(bt, x));
}

/* Has it lead to an entry of the block's. A call goes there at once if it may come on the shadow stack, else by
 * its veneer. */
static void aim(struct bt *bt, const struct bt_exit *x, struct bt_block *to, const void *entry,
		enum bt_entry_kind kind)
{
	const void *called = NULL;

	if (!x->calls) {
		set_exit(bt, bt_jump_of(bt, x), entry);
		return;
	}
	if (entry == to->main)
		called = bt_entry(bt, to, ENTRY_CALLED);
	else if (kind == ENTRY_PARKED_CHECK)
		called = bt_entry(bt, to, ENTRY_CALLED_CHECK);
	set_jump(bt, bt_veneer_of(bt, x), entry);
	set_jump(bt, bt_jump_of(bt, x), called ? called : bt_stub_of(bt, x));
}

static void unlink_from_target(struct bt *bt, struct bt_exit *x)
{
	const uint32_t n = (uint32_t)(x - bt->exits) + 1;

	if (!x->linked)
		return;
	uint32_t *at = &bt_to(bt, x)->in;
	while (*at && *at != n)
		at = &bt->exits[*at - 1].next_in;
	if (*at)
		*at = x->next_in;
	x->linked = x->asleep = false;
}

void bt_link(struct bt *bt, struct bt_exit *x, struct bt_block *to)
{
	if ((x->linked && !x->asleep) || to->dead || bt_from(bt, x)->dead)
		return;
	if (bt->stress.on && bt_stress_comes_back(bt))
		return;
	enum bt_entry_kind kind;
	const void *entry = link_entry(bt, x, to, &kind);
	if (!entry)
		return;
	unlink_from_target(bt, x);
	x->to = (uint32_t)(to - bt->blocks) + 1;
	x->next_in = to->in;
	to->in = (uint32_t)(x - bt->exits) + 1;
	x->linked = true;
	aim(bt, x, to, entry, kind);
}

void bt_settle_link(struct bt *bt, struct bt_exit *x)
{
	struct bt_block *to = bt_to(bt, x);
	const void *entry = NULL;
	enum bt_entry_kind kind;

	if (x->rip == bt_rip_of(bt, to))
		entry = link_entry(bt, x, to, &kind);
	x->asleep = !entry;
	if (entry)
		aim(bt, x, to, entry, kind);
	else
		let_go(bt, x);
}

void bt_settle_page(struct bt *bt, uint32_t page)
{
	for (struct bt_block *b = bt->pages[page].blocks; b; b = b->next_in_page)
		for (struct bt_exit *x = bt_exit_at(bt, b->in); x; x = bt_exit_at(bt, x->next_in))
			if (!stays_in_page(bt, x, b))
				bt_settle_link(bt, x);
}

void bt_link_known(struct bt *bt, struct bt_block *b)
{
	const uint64_t gva = bt->pages[b->page].gva;

	for (struct bt_exit *x = bt_first_exit(bt, b); x < bt_end_exit(bt, b); x++) {
		if (!x->jump || x->mode != b->mode)
			continue;
		const uint64_t there = x->rip & PAGE_MASK;
		const uint32_t page = there == gva ? b->page
						   : bt_window_trusted(bt, there, x->mode);
		if (!page)
			continue;
		struct bt_block *to = bt_block_find(bt, page, x->rip & ~PAGE_MASK, x->plain);
		if (to)
			bt_link(bt, x, to);
	}
}

/* ---- stale code ---- */

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

/* Out of the hash table, so that those who look for blocks do not go by the dead. */
static void unlist(struct bt *bt, struct bt_block *b)
{
	const uint32_t n = (uint32_t)(b - bt->blocks) + 1;
	uint32_t *at = block_slot(bt, b->page, b->offset);

	while (*at && *at != n)
		at = &bt->blocks[*at - 1].next_hash;
	/* Who has come to the dead block without the lock goes on from it as before. */
	if (*at)
		__atomic_store_n(at, b->next_hash, __ATOMIC_RELEASE);
}

void bt_block_kill(struct bt *bt, struct bt_block *b)
{
	b->dead = true;
	unlist(bt, b);
	bt_drop_template(bt, b);
	for (struct bt_exit *x = bt_exit_at(bt, b->in), *next; x; x = next) {
		next = bt_exit_at(bt, x->next_in);
		x->linked = x->asleep = false;
		x->next_in = 0;
		let_go(bt, x);
	}
	b->in = 0;
	/* Returns may still come to the block (shadow.c), when what its exits lead to is dead as well. */
	for (struct bt_exit *x = bt_first_exit(bt, b); x < bt_end_exit(bt, b); x++) {
		if (x->linked)
			let_go(bt, x);
		unlink_from_target(bt, x);
	}
	/* What indirect jumps may still hold: the jump entry leaves to C by its own failed check. A
	 * vCPU in the block goes on to its end, as one that has fetched the old bytes would. */
	if (b->entry[ENTRY_JUMP])
		redirect(bt, bt->code.rx + b->entry[ENTRY_JUMP], bt->thunks.leave);
}

/* What is being translated of the page must not be published. Returns whether something is. */
static bool note_stale(struct bt *bt, uint64_t gpa)
{
	bool any = false;

	for (unsigned n = 0; n < bt->cpu_count; n++) {
		struct bt_cpu *k = &bt->cpus[n]->bt;
		if (atomic_load(&k->making[0]) == (gpa | 1) ||
		    atomic_load(&k->making[1]) == (gpa | 1))
			k->stale = any = true;
	}
	return any;
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
		if (b->needs_from < from + len && from < b->needs_to) {
			bt_block_kill(bt, b->owner ? b->owner : b);
			any = true;
		} else {
			b->next_in_gpa_page = keep;
			keep = b;
		}
	}
	bt->gpa_page[page] = keep;
	if (!note_stale(bt, gpa & PAGE_MASK) && !keep)
		atomic_store(&bt->marked[page], BT_UNMARKED);
	return any;
}
