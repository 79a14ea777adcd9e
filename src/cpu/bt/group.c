/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"

/*
 * Runs of accesses off one base register share a probe: pushes, pops, the locals of a function,
 * the fields of a structure. The probe covers the span of all of them; T_ADDR then holds the host
 * address of its low end for the whole run, and each access is [T_ADDR + its distance].
 *
 *	push rbp ; push rbx ; sub rsp, 8 ; mov [rsp], rax      one probe, for [rsp - 24, rsp)
 *
 * When the span is not within one page, or the page is not in the TLB, the same instructions are
 * done one by one with a probe each, by a second copy in cold code.
 */
enum { SPAN_MAX = 1024 };

struct plan {
	struct group g;
	int delta; /* of the base register since the start, by pushes and the like */
	unsigned accesses;
	bool based;
};

static unsigned word(const struct trans *t)
{
	return t->key & MODE_KEY_64 ? 8 : 4;
}

/* Moves by ADD, SUB and LEA of RSP with a constant. */
static bool constant_move(const struct item *it, int *by)
{
	if (it->i.reg[0] != RSP || it->i.width < 4)
		return false;
	if (it->kind == KIND_LEA && it->i.base == RSP && it->i.index == REG_NONE &&
	    it->i.addr_bytes == it->i.width) {
		*by = (int)it->i.disp;
		return true;
	}
	if (it->kind != KIND_COPY || it->i.reg[1] != REG_NONE)
		return false;
	if (it->i.mnemonic == ZYDIS_MNEMONIC_ADD)
		*by = (int)it->i.imm;
	else if (it->i.mnemonic == ZYDIS_MNEMONIC_SUB)
		*by = -(int)it->i.imm;
	else
		return false;
	return true;
}

/* Takes an access of size bytes at base + offset into the plan if it fits. */
static bool take(struct plan *p, unsigned base, int offset, unsigned size, unsigned align,
		 bool write)
{
	struct group *g = &p->g;

	if (p->based && g->base != base)
		return false;
	int low = p->based && g->low < offset ? g->low : offset;
	int high = p->based && g->high > offset + (int)size ? g->high : offset + (int)size;
	if (align) {
		/* One test of the low end has to do for all aligned accesses. */
		if (g->align && g->align != align)
			return false;
		if (g->align && (offset - g->low) % (int)align)
			return false;
		low -= (low - offset) % (int)align
			       ? ((low - offset) % (int)align + (int)align) % (int)align
			       : 0;
	} else if (g->align && low < g->low) {
		low = g->low - (g->low - low + (int)g->align - 1) / (int)g->align * (int)g->align;
	}
	if (high - low > SPAN_MAX)
		return false;
	g->low = low;
	g->high = high;
	g->base = base;
	g->write |= write;
	if (align)
		g->align = align;
	p->based = true;
	p->accesses++;
	return true;
}

/* Whether the item leaves T_ADDR alone and can be in a run; takes its access. */
static bool fits(const struct trans *t, struct plan *p, const struct item *it, bool *last)
{
	unsigned size = word(t);
	const struct insn *i = &it->i;
	int by;

	switch (it->kind) {
	case KIND_NOP:
		return true;
	case KIND_COPY:
	case KIND_LEA:
		if ((it->reads | it->writes | it->address) & HOME_MASK)
			return false;
		if (it->kind == KIND_LEA && 1u << i->reg[0] & HOME_MASK)
			return false;
		if (constant_move(it, &by)) {
			p->delta += by;
			return !p->based || p->g.base == RSP;
		}
		if (!p->based)
			return true;
		return !(it->writes & 1u << p->g.base) &&
		       !(it->kind == KIND_LEA && i->reg[0] == p->g.base);
	case KIND_PUSH:
		if (i->reg[0] == T_ADDR || (i->flags & INSN_MEM) ||
		    (i->reg[0] == REG_NONE && !fits32((int64_t)i->imm)) ||
		    !take(p, RSP, p->delta - (int)size, size, 0, true))
			return false;
		p->delta -= (int)size;
		return true;
	case KIND_POP:
		if (i->reg[0] == T_ADDR || !take(p, RSP, p->delta, size, 0, false))
			return false;
		p->delta += (int)size;
		return true;
	case KIND_RET:
		*last = true;
		return take(p, RSP, p->delta, size, 0, false);
	case KIND_MEMORY:
		break;
	default:
		return false;
	}
	if (i->base >= GPR_NR || i->index != REG_NONE || (1u << i->base & HOME_MASK) ||
	    i->seg == SEG_FS || i->seg == SEG_GS || i->addr_bytes != size ||
	    ((it->reads | it->writes) & 1u << T_ADDR) || i->disp > 0x100000 || i->disp < -0x100000)
		return false;
	if (!take(p, i->base, (i->base == RSP ? p->delta : 0) + (int)i->disp, it->mem_bytes,
		  it->align, it->mem_write))
		return false;
	if (it->writes & 1u << i->base)
		*last = true; /* the base is another afterwards */
	return true;
}

/* Before the first access the base is not known, so pushes moved RSP by then are no harm; but an
 * access off another register must not come after moves of RSP were counted for it. */
void plan_group(const struct trans *t, unsigned first, struct group *g)
{
	struct plan p = {0}, good = {0};
	const struct item *start = &t->item[first];

	g->count = 0;
	if ((start->kind == KIND_PUSH && (start->i.flags & INSN_MEM)) ||
	    (start->kind != KIND_MEMORY && start->kind != KIND_PUSH && start->kind != KIND_POP))
		return;
	for (unsigned n = first; n < t->count; n++) {
		bool last = false;
		if (!fits(t, &p, &t->item[n], &last))
			break;
		p.g.count = n - first + 1;
		p.g.vec |= t->item[n].vec;
		bool access = t->item[n].kind != KIND_COPY && t->item[n].kind != KIND_LEA &&
			      t->item[n].kind != KIND_NOP;
		if (access)
			good = p;
		if (last)
			break;
	}
	if (good.accesses >= 2)
		*g = good.g;
}

/* ---- the run itself ---- */

/* mov [T_ADDR + disp], reg and the other way round, in the mode's width. */
static void move_word(struct trans *t, uint8_t opcode, unsigned reg, int disp)
{
	e_rex(&t->e, t->key & MODE_KEY_64, reg, 0, T_ADDR);
	e8(&t->e, opcode);
	e_modrm_base(&t->e, reg, T_ADDR, disp);
}

static void group_push(struct trans *t, const struct item *it, int disp)
{
	unsigned r = it->i.reg[0];

	if (r == REG_NONE) {
		move_word(t, 0xc7, 0, disp);
		e32(&t->e, (uint32_t)it->i.imm);
	} else {
		emit_homes_in(t, (uint16_t)(1u << r & HOME_MASK));
		move_word(t, 0x89, r, disp);
	}
	move_sp(t, -(int)word(t));
}

static void group_pop(struct trans *t, const struct item *it, int disp)
{
	unsigned r = it->i.reg[0];

	move_word(t, 0x8b, r, disp);
	emit_homes_out(t, (uint16_t)(1u << r & HOME_MASK));
	move_sp(t, (int)word(t));
}

static void group_memory(struct trans *t, const struct item *it, int disp)
{
	if (needs_flags(it))
		flags_to_host(t);
	emit_homes_in(t, it->reads & HOME_MASK);
	emit_rewritten(&t->e, it, ADDR_R11, disp);
	emit_homes_out(t, it->writes & HOME_MASK);
	if (it->flags_written)
		t->flags = FLAGS_HOST;
}

static void group_ret(struct trans *t, const struct item *it, int disp)
{
	unsigned popped = word(t) + (uint16_t)it->i.imm;

	flags_park(t);
	move_word(t, 0x8b, T_ADDR, disp);
	move_sp(t, (int)popped);
	t->flags = FLAGS_PARKED;
	emit_indirect(t, it, popped);
}

void emit_group(struct trans *t, unsigned first, const struct group *g)
{
	const struct item *start = &t->item[first];
	uint8_t *from[2];
	unsigned count;
	int delta = 0, by;

	if (g->vec && !t->vec_ready)
		emit_vec_ready(t, start);
	flags_clobber(t, start->live_before);
	enum flags_at start_flags = t->flags;
	emit_probe_span(t, g->base, g->low, (unsigned)(g->high - g->low), g->align, g->write, from,
			&count);
	unsigned cold = t->colds;
	for (unsigned n = 0; n < count; n++) {
		struct cold *k = add_cold(t);
		k->kind = COLD_GROUP;
		k->from = from[n];
		k->first = first;
		k->count = g->count;
		k->start_flags = start_flags;
		k->key = t->key;
	}
	for (unsigned n = first; n < first + g->count; n++) {
		const struct item *it = &t->item[n];

		switch (it->kind) {
		case KIND_PUSH:
			delta -= (int)word(t);
			group_push(t, it, delta - g->low);
			break;
		case KIND_POP:
			group_pop(t, it, delta - g->low);
			delta += (int)word(t);
			break;
		case KIND_MEMORY:
			group_memory(t, it,
				     (it->i.base == RSP ? delta : 0) + (int)it->i.disp - g->low);
			break;
		case KIND_RET:
			group_ret(t, it, delta - g->low);
			break;
		case KIND_LEA:
			emit_lea(t, it);
			break;
		case KIND_COPY:
			emit_copy(t, it);
			break;
		default:
			break;
		}
		if (constant_move(it, &by))
			delta += by;
	}
	bool ends = t->item[first + g->count - 1].kind == KIND_RET;
	for (unsigned n = cold; n < cold + count && n < t->colds; n++) {
		t->cold[n].resume = ends ? NULL : t->e.p;
		t->cold[n].resume_flags = t->flags;
	}
}

/* The same one by one. */
void emit_cold_group(struct trans *t, const struct cold *k)
{
	struct cold group = *k;
	bool vec = t->vec_ready;

	t->key = group.key;
	t->flags = group.start_flags;
	t->vec_ready = false;
	for (unsigned n = group.first; n < group.first + group.count; n++)
		emit_item(t, &t->item[n]);
	t->vec_ready = vec;
	if (!group.resume)
		return;
	if (group.resume_flags == FLAGS_HOST || group.resume_flags == FLAGS_BOTH)
		flags_to_host(t);
	if (group.resume_flags == FLAGS_PARKED || group.resume_flags == FLAGS_BOTH)
		flags_park(t);
	e_jmp(&t->e, group.resume + t->e.run);
}
