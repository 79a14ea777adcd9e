/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "cpu/bt/translate.h"

/*
 * Arenas: what each vCPU makes its translations in. A piece of the cache's memory and of each of its
 * arrays belongs to one vCPU at a time, which takes from its front without the lock, and asks under the
 * lock for another piece where the rest might be too little for one more block. Where the new piece lies
 * right behind the old one, that just becomes longer: so a vCPU that is alone in translating fills the
 * cache without gaps. A flush takes all pieces back.
 */
enum {
	PIECE_CODE = 256 << 10,
	PIECE_LINKS = 32 << 10,
	PIECE_BLOCKS = 256,
	PIECE_EXITS = 5 * PIECE_BLOCKS,
	PIECE_INSNS = PIECE_BLOCKS / 2,
	/* What one block takes at most: an entry for its second page; two exits an instruction; */
	BLOCKS_MOST = 2,
	EXITS_MOST = 3 * ITEMS_MAX,
	INSNS_MOST = 2 * ITEMS_MAX,
	SHARES = 16, /* a vCPU's piece is this part of what would be its share, at most */
};

/* How large a piece is: of the whole, and not so much that the others have none. */
static size_t piece(const struct bt *bt, size_t most, size_t whole)
{
	const size_t share = whole / SHARES / (bt->cpu_count ? bt->cpu_count : 1);

	return share < most ? share : most;
}

static bool take_code(struct bt *bt, struct code_mem *part, struct code_mem *mine, size_t need,
		      size_t want)
{
	need = (need + 31) & ~(size_t)15; /* the first 16 for where it begins */
	if (mine->bytes - mine->used >= need)
		return true;
	const size_t from = (part->used + 15) & ~(size_t)15;
	const bool goes_on = mine->bytes && mine->bytes == from;
	const size_t have = goes_on ? mine->bytes - mine->used : 0;
	const size_t left = from < part->bytes ? (part->bytes - from) & ~(size_t)15 : 0;
	size_t take = want & ~(size_t)15;
	if (take < need - have)
		take = need - have;
	if (take > left)
		take = left;
	take = (take + 15) & ~(size_t)15;
	if (have + take < need)
		return false;
	if (!goes_on)
		*mine = (struct code_mem){.rw = part->rw, .rx = part->rx, .used = from};
	if (bt->huge)
		bt_table_ahead(bt->mem, part->rw, part->bytes, part->used, from + take);
	mine->bytes = part->used = from + take;
	code_mem_ask(part, part->used);
	return true;
}

struct array {
	void *entries;
	size_t entry_bytes;
	uint32_t *count, max;
};

static bool take_entries(const struct bt *bt, const struct array *a, struct bt_piece *mine,
			 uint32_t need, size_t want)
{
	uint32_t *count = a->count;

	if (mine->end - mine->next >= need)
		return true;
	const bool goes_on = mine->end && mine->end == *count;
	const uint32_t next = goes_on ? mine->next : *count;
	uint32_t end = *count + (uint32_t)want;
	if (end - next < need)
		end = next + need;
	if (end > a->max)
		end = a->max;
	if (end - next < need)
		return false;
	*mine = (struct bt_piece){.next = next, .end = end};
	const size_t from_byte = *count * a->entry_bytes, end_byte = end * a->entry_bytes;
	bt_table_populate(a->entries, from_byte, end_byte, bt->huge);
	if (bt->huge)
		bt_table_ahead(bt->mem, a->entries, a->max * a->entry_bytes, from_byte, end_byte);
	*count = end;
	return true;
}

/* Tables, and what translations are made in. */
static void make_huge(struct bt *bt)
{
	bt_cache_make_huge(bt);
	for (unsigned n = 0; n < bt->cpu_count; n++)
		bt_table_make_huge(bt->arenas[n].trans, sizeof(*bt->arenas[n].trans));
}

bool bt_arena_ready(struct bt *bt, struct bt_arena *a)
{
	const size_t relocs = sizeof(a->trans->reloc) + sizeof(a->trans->site) + 32;
	const struct array blocks = {bt->blocks, sizeof(*bt->blocks), &bt->block_count,
				     bt->blocks_max},
			   exits = {bt->exits, sizeof(*bt->exits), &bt->exit_count, bt->exits_max},
			   insns = {bt->insns, sizeof(*bt->insns), &bt->insn_count, bt->insns_max};

	if (!bt->huge && bt->block_count >= BT_HUGE_FROM)
		make_huge(bt);
	return take_code(bt, &bt->hot, &a->hot, HOT_MAX, piece(bt, PIECE_CODE, bt->hot.bytes)) &&
	       take_code(bt, &bt->cold, &a->cold, COLD_MAX + relocs,
			 piece(bt, PIECE_CODE, bt->cold.bytes)) &&
	       take_entries(bt, &blocks, &a->blocks, BLOCKS_MOST,
			    piece(bt, PIECE_BLOCKS, bt->blocks_max)) &&
	       take_entries(bt, &exits, &a->exits, EXITS_MOST,
			    piece(bt, PIECE_EXITS, bt->exits_max)) &&
	       take_entries(bt, &insns, &a->insns, INSNS_MOST,
			    piece(bt, PIECE_INSNS, bt->insns_max));
}

bool bt_links_ready(struct bt *bt, size_t bytes)
{
	return take_code(bt, &bt->hot, &bt->links, bytes, piece(bt, PIECE_LINKS, bt->hot.bytes));
}

void bt_arena_reset(struct bt_arena *a)
{
	*a = (struct bt_arena){.trans = a->trans};
}

struct bt_arena *bt_arena_create(struct bt *bt, unsigned index)
{
	struct bt_arena *a = &bt->arenas[index];

	a->trans = bt_table_map(sizeof(*a->trans));
	return a->trans ? a : NULL;
}

int bt_arenas_create(struct bt *bt, struct error *err)
{
	bt->arenas = calloc(BT_CPUS_MAX, sizeof(*bt->arenas));
	return bt->arenas ? 0 : error_set(err, -ENOMEM, "bt: out of memory");
}

void bt_arenas_destroy(struct bt *bt)
{
	for (unsigned n = 0; bt->arenas && n < BT_CPUS_MAX; n++)
		bt_table_unmap(bt->arenas[n].trans, sizeof(*bt->arenas[n].trans));
	free(bt->arenas);
}
