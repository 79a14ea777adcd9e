/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"

/*
 * Which arithmetic flags are wanted later, and so have to be put away before something clobbers them. Behind a jump
 * that is not known; but most code overwrites them before it reads any. So where a block would put flags away for
 * what other blocks might want, the first few instructions there are looked at. What is found holds as long as these
 * are what they are: the block needs their bytes as it needs its own (bt_block.needs_from).
 */

/* Does its translation clobber them? */
static bool clobbers_flags(const struct item *it)
{
	switch (it->kind) {
	case KIND_COPY:
	case KIND_LEA:
	case KIND_NOP:
	case KIND_INC_DEC:
	case KIND_SWAPGS:
	case KIND_MOV_SELECTOR:
	case KIND_JUMP:
	case KIND_JCC:
		return it->needs;
	default:
		return true;
	}
}

enum flags_at entry_flags(const struct trans *t, enum flags_at come)
{
	if (!t->item[0].live_before)
		return FLAGS_DEAD;
	if (come == FLAGS_HOST || come == FLAGS_PARKED)
		return come;
	for (unsigned n = 0; n < t->count; n++) {
		if (clobbers_flags(&t->item[n]))
			return FLAGS_PARKED;
		if (t->item[n].flags_read || t->item[n].flags_written ||
		    t->item[n].kind == KIND_JCC)
			return FLAGS_HOST;
	}
	return FLAGS_HOST;
}

/* ---- behind jumps ---- */

/* Goes on to the next, and does with flags what is known of it and nothing else. */
static bool is_plain(const struct item *it)
{
	switch (it->kind) {
	case KIND_COPY:
	case KIND_MEMORY:
	case KIND_LEA:
	case KIND_NOP:
	case KIND_PUSH:
	case KIND_POP:
		return true;
	default:
		return false;
	}
}

/* The flags that the code at rip wants; all, where it does not overwrite them soon. */
static uint16_t wanted_at(struct trans *t, uint64_t rip)
{
	const unsigned from = rip & ~PAGE_MASK;
	uint16_t wanted = 0, open = FLAGS_ARITH;
	unsigned to = from;

	if (!t->hva_page || (rip ^ t->item[0].rip) & PAGE_MASK)
		return FLAGS_ARITH;
	const unsigned seen = recall_ahead(t, t->hva_page + from, MEM_PAGE_BYTES - from);
	for (unsigned n = 0; n < seen && open; n++) {
		struct item it;
		if (!recall(t, &it, &t->seen[n]) || !is_plain(&it))
			return FLAGS_ARITH;
		wanted |= it.flags_read & open;
		open &= (uint16_t)~it.flags_written;
		to += it.i.length;
	}
	if (open)
		return FLAGS_ARITH;
	if (from < t->needs_from)
		t->needs_from = (uint16_t)from;
	if (to > t->needs_to)
		t->needs_to = (uint16_t)to;
	return wanted;
}

static void look_behind_jumps(struct trans *t)
{
	const struct item *end = &t->item[t->count - 1];

	for (unsigned n = 0; n < t->count; n++) {
		struct item *it = &t->item[n];
		if (it->kind == KIND_JCC || it->kind == KIND_JUMP)
			it->live_there = wanted_at(t, jump_target(it));
	}
	if (!ends_block(end))
		t->live_next = wanted_at(t, end->rip + end->i.length);
}

/* ---- in the block ---- */

static void go_back(struct trans *t)
{
	uint16_t live = t->live_next;

	for (unsigned n = t->count; n-- > 0;) {
		struct item *it = &t->item[n];

		if (it->kind == KIND_JCC)
			live |= it->live_there;
		else if (it->kind == KIND_JUMP)
			live = it->live_there;
		else if (ends_block(it))
			live = FLAGS_ARITH;
		it->live_after = live;
		if (it->kind == KIND_HELPER || it->kind == KIND_PUSHF ||
		    (ends_block(it) && it->kind != KIND_JUMP))
			live = FLAGS_ARITH;
		else if (it->kind == KIND_JCC)
			live |= it->flags_read;
		else if (it->kind != KIND_NOP && it->kind != KIND_PREFETCH)
			live = (uint16_t)((live & ~it->flags_written) | it->flags_read);
		it->live_before = live;
	}
}

void find_live_flags(struct trans *t)
{
	bool clobbered = false;

	t->needs_from = UINT16_MAX;
	t->needs_to = 0;
	t->live_next = FLAGS_ARITH;
	for (unsigned n = 0; n < t->count; n++)
		t->item[n].live_there = FLAGS_ARITH;
	go_back(t);
	for (unsigned n = 0; n < t->count && !clobbered; n++)
		clobbered = t->item[n].live_before && clobbers_flags(&t->item[n]);
	if (!clobbered)
		return;
	look_behind_jumps(t);
	go_back(t);
}
