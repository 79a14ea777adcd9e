/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"

/*
 * Code that has been translated once is copied when it is met at another address: shared libraries
 * and position-independent programs lie elsewhere in every process, and translating costs some
 * twenty times what copying does.
 *
 * A user block whose page lies above 4 GiB remembers where in it there are values that depend on
 * its guest address, on where its parts lie in code memory, or on its exits (struct reloc, behind
 * its cold code). It is then the template for its place in the guest-physical page. A copy lies as
 * its template does in cache lines, so that what is patched later stays within one.
 */
enum { LINE = 64, COPIES_AHEAD = 32 };
#define HIGH_FROM (UINT64_C(1) << 33)
#define HIGH_TO (UINT64_C(1) << 47)

bool bt_may_move_to(const struct bt *bt, uint64_t gva, unsigned mode)
{
	const uint16_t key = bt->mode_keys[mode];

	return (key & MODE_KEY_64) && (key & MODE_KEY_CPL3) && gva >= HIGH_FROM && gva < HIGH_TO &&
	       !((key & MODE_KEY_WINDOW) && direct_is_near_slice(gva));
}

bool bt_may_move(const struct bt *bt, uint32_t page)
{
	return bt_may_move_to(bt, bt->pages[page].gva, bt->pages[page].mode);
}

void note_reloc(struct trans *t, enum reloc_kind kind, const uint8_t *at)
{
	if (!t->may_move)
		return;
	if (t->relocs == sizeof(t->reloc) / sizeof(t->reloc[0])) {
		t->may_move = false;
		return;
	}
	const uint8_t *start = t->in_cold && kind != RELOC_HOT_TO_COLD ? t->cold_start
								       : t->hot_start;
	t->reloc[t->relocs++] = (struct reloc){.kind = (uint8_t)kind,
					       .cold = start == t->cold_start,
					       .at = (uint16_t)(at - start)};
}

void mov_rip(struct trans *t, unsigned reg, uint64_t rip)
{
	e_mov_ri(&t->e, reg, rip);
	if (fits32((int64_t)rip) || rip <= UINT32_MAX)
		t->may_move = false; /* elsewhere it would have another size */
	else
		note_reloc(t, RELOC_RIP, t->e.p - 8);
}

void jmp_thunk(struct trans *t, const void *thunk)
{
	e_jmp(&t->e, thunk);
	note_reloc(t, RELOC_THUNK, t->e.p - 4);
}

/* ---- templates ---- */

static struct bt_block **template_slot(struct bt *bt, uint64_t gpa, unsigned mode, bool plain)
{
	uint64_t h =
		(gpa ^ (uint64_t)mode << 58 ^ (uint64_t)plain << 62) * UINT64_C(0x9e3779b97f4a7c15);

	return &bt->templates[(h >> 40) % BT_HASH];
}

/* The relocations lie behind the cold code. */
void bt_keep_template(struct trans *t, size_t cold)
{
	struct bt_block *b = t->b;
	const size_t bytes = t->relocs * sizeof(struct reloc);
	struct emit e = bt_emit_begin(&t->a->cold, bytes + 16);

	if (!e.p)
		return;
	e_bytes(&e, t->reloc, bytes);
	b->reloc = bt_emit_end(&t->a->cold, &e);
	b->relocs = (uint16_t)t->relocs;
	b->cold_bytes = (uint16_t)cold;
}

void bt_list_template(struct bt *bt, struct bt_block *b)
{
	if (!b->reloc)
		return;
	struct bt_block **slot =
		template_slot(bt, bt->pages[b->page].gpa | b->offset, b->mode, b->plain);
	b->next_template = *slot;
	*slot = b;
}

void bt_drop_template(struct bt *bt, struct bt_block *b)
{
	if (!b->reloc)
		return;
	struct bt_block **at =
		template_slot(bt, bt->pages[b->page].gpa | b->offset, b->mode, b->plain);
	while (*at && *at != b)
		at = &(*at)->next_template;
	if (*at)
		*at = b->next_template;
	b->reloc = NULL;
}

static const struct bt_block *find_template(struct bt *bt, uint64_t gpa, unsigned mode, bool plain)
{
	const struct bt_block *b = *template_slot(bt, gpa, mode, plain);

	while (b && (b->mode != mode || b->plain != plain ||
		     (bt->pages[b->page].gpa | b->offset) != gpa))
		b = b->next_template;
	return b;
}

/* ---- copies ---- */

struct copy {
	const struct bt_block *from;
	struct bt_block *to;
	uint8_t *hot, *cold; /* writable views of the copy */
	ptrdiff_t hot_moved, cold_moved;
	uint64_t rip_moved;
	struct bt_exit *old_exits, *new_exits; /* the first of each */
};

static void add32(uint8_t *at, int64_t by)
{
	uint32_t v;

	memcpy(&v, at, 4);
	v += (uint32_t)by;
	memcpy(at, &v, 4);
}

static void add64(uint8_t *at, uint64_t by)
{
	uint64_t v;

	memcpy(&v, at, 8);
	v += by;
	memcpy(at, &v, 8);
}

/* %gs:0 is entry 0. */
static void move_in_tlb(uint8_t *at, uint64_t pages)
{
	uint32_t v;

	memcpy(&v, at, 4);
	const uint64_t entry = (v / sizeof(struct tlb_entry) + pages) % TLB_ENTRIES;
	v = (uint32_t)(entry * sizeof(struct tlb_entry) + v % sizeof(struct tlb_entry));
	memcpy(at, &v, 4);
}

static void relocate(const struct copy *c, const struct reloc *r)
{
	uint8_t *at = (r->cold ? c->cold : c->hot) + r->at;

	switch ((enum reloc_kind)r->kind) {
	case RELOC_RIP:
		add64(at, c->rip_moved);
		break;
	case RELOC_THUNK:
		add32(at, -(r->cold ? c->cold_moved : c->hot_moved));
		break;
	case RELOC_HOT_TO_COLD:
		add32(at, c->cold_moved - c->hot_moved);
		break;
	case RELOC_COLD_TO_HOT:
		add32(at, c->hot_moved - c->cold_moved);
		break;
	case RELOC_HOT_ADDRESS:
		add64(at, (uint64_t)c->hot_moved);
		break;
	case RELOC_TLB:
		move_in_tlb(at, c->rip_moved >> MEM_PAGE_SHIFT);
		break;
	case RELOC_EXIT_INDEX:
		add32(at, (int64_t)(c->new_exits - c->old_exits));
		break;
	}
}

void bt_move_values(struct bt *bt, const struct bt_block *b, uint64_t by)
{
	const ptrdiff_t to_rw = bt->code.rw - bt->code.rx;
	const struct copy c = {
		.hot = (uint8_t *)(uintptr_t)b->main + to_rw,
		.cold = (uint8_t *)(uintptr_t)b->cold + to_rw,
		.rip_moved = by,
	};

	for (unsigned n = 0; n < b->relocs; n++)
		if (b->reloc[n].kind == RELOC_RIP || b->reloc[n].kind == RELOC_TLB)
			relocate(&c, &b->reloc[n]);
}

/* A place in the template's code is where in the copy? */
static uint32_t moved(const struct bt *bt, const struct copy *c, uint32_t at)
{
	const uint8_t *run = bt->code.rx + at, *hot = c->from->main;
	bool in_hot = run >= hot && run < hot + c->from->hot_bytes;

	return at + (uint32_t)(in_hot ? c->hot_moved : c->cold_moved);
}

static void copy_exits(struct bt *bt, struct bt_arena *a, const struct copy *c)
{
	for (unsigned n = 0; n < c->from->exit_nr; n++) {
		const struct bt_exit *x = &c->old_exits[n];
		struct bt_exit *y = bt_exit_new(bt, a, c->to);

		y->rip = x->rip + c->rip_moved;
		y->popped = x->popped;
		y->mode = x->mode;
		y->flags = x->flags;
		y->plain = x->plain;
		y->was_linked = x->jump &&
				(x->linked ? bt_to(bt, x)->page == c->from->page : x->was_linked);
		y->loops = x->loops;
		y->far = x->far;
		y->calls = x->calls;
		if (!x->jump)
			continue;
		y->jump = moved(bt, c, x->jump);
		y->stub = x->stub + (uint32_t)c->cold_moved;
		const uint32_t rel = y->stub - (y->jump + 4);
		uint8_t *at = bt_jump_of(bt, y);
		memcpy(at, &rel, 4);
		if (at[-1] == NOP_OPCODE)
			at[-1] = JMP_OPCODE;
		if (y->calls)
			memset(bt_veneer_of(bt, y), 0, 4);
	}
}

/* Room for `bytes` at the same place in a cache line as `like`. */
static uint8_t *place(struct code_mem *part, size_t bytes, const void *like)
{
	uint8_t *p = code_mem_reserve(part, bytes + LINE);

	if (!p)
		return NULL;
	size_t skip = ((uintptr_t)like - (uintptr_t)p) % LINE;
	part->used += skip;
	return p + skip;
}

static struct bt_block *copy_one(struct bt *bt, struct bt_arena *a, uint32_t page, unsigned offset,
				 bool plain)
{
	const struct bt_page *p = &bt->pages[page];
	const bool elsewhere = p->next_alias != page; /* is the code at another address, too */
	const struct bt_block *from = elsewhere && bt_may_move(bt, page)
					      ? find_template(bt, p->gpa | offset, p->mode, plain)
					      : NULL;

	if (!from || from->exit_nr > a->exits.end - a->exits.next)
		return NULL;
	struct copy c = {
		.from = from,
		.hot = place(&a->hot, from->hot_bytes, from->main),
		.cold = place(&a->cold, from->cold_bytes, from->cold),
		.rip_moved = p->gva - bt->pages[from->page].gva,
		.old_exits = &bt->exits[from->first_exit],
		.new_exits = &bt->exits[a->exits.next],
	};
	if (!c.hot || !c.cold || !(c.to = bt_block_new(bt, a, page, offset)))
		return NULL;
	const ptrdiff_t to_run = bt->code.rx - bt->code.rw;
	c.hot_moved = c.hot + to_run - (const uint8_t *)from->main;
	c.cold_moved = c.cold + to_run - (const uint8_t *)from->cold;
	memcpy(c.hot, from->main, from->hot_bytes);
	memcpy(c.cold, from->cold, from->cold_bytes);
	copy_exits(bt, a, &c);
	for (unsigned n = 0; n < from->relocs; n++)
		relocate(&c, &from->reloc[n]);

	struct bt_block *b = c.to;
	b->bytes = from->bytes;
	b->needs_from = from->needs_from;
	b->needs_to = from->needs_to;
	b->mode = from->mode;
	b->flags = from->flags;
	b->plain = from->plain;
	b->loop = from->loop;
	b->main = code_mem_commit(&a->hot, from->hot_bytes);
	b->cold = code_mem_commit(&a->cold, from->cold_bytes);
	b->hot_bytes = from->hot_bytes;
	b->site = from->site;
	b->sites = from->sites;
	/* To move it (rebase.c). */
	b->reloc = from->reloc;
	b->relocs = from->relocs;
	bt_block_publish(bt, a, b);
	bt_tell_perf(bt, b);
	return b;
}

/* Where the template's exits within its page were taken, the copy's will be: the blocks there are
 * copied as well, and linked, without a trip to C for each. */
struct bt_block *bt_copy(struct bt *bt, struct bt_arena *a, uint32_t page, unsigned offset,
			 bool plain)
{
	struct bt_block *first = copy_one(bt, a, page, offset, plain);
	struct bt_block *todo[COPIES_AHEAD] = {first};
	unsigned count = first != NULL;

	while (count) {
		struct bt_block *b = todo[--count];
		for (struct bt_exit *x = bt_first_exit(bt, b); x < bt_end_exit(bt, b); x++) {
			if (!x->was_linked || count == COPIES_AHEAD)
				continue;
			unsigned at = x->rip & ~PAGE_MASK;
			struct bt_block *to = bt_block_find(bt, page, at, x->plain);
			if (!to && (to = copy_one(bt, a, page, at, x->plain)))
				todo[count++] = to;
			if (to)
				bt_link(bt, x, to);
		}
	}
	return first;
}
