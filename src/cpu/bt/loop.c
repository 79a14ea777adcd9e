/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"

/*
 * Loops of one block: spans that are looked up once for many turns.
 *
 *	start:	look up [rdi, + 8 * 31 + 8); keep host address - rdi
 *		loop_end = rdi + 8 * 31
 *	head:	cmp rdi, loop_end ; je start
 *		add rax, [rdi]			[rdi + what was kept]
 *		add rdi, 8
 *		cmp rdi, rdx ; jne head
 *
 * A span belongs before the loop when, from one turn to the next, its registers change by known
 * constants or not at all. If not at all, its host address is kept, as in any span. If its address
 * moves, what is kept is how far the host's address lies from the guest's: as long as the page is
 * the same, that added to the guest's own registers gives the host address. How long that is so is
 * known beforehand: the look-up is for as many bytes as so many turns reach, and a register that
 * moves along tells when they are over. So within the turns a host address can no more leave the
 * page than in a span: which registers hold what plus which constants is known for each access.
 *
 * A loop is a block whose first conditional jump goes back to its start: where there are others
 * before it, one turn may be all there is, and a look-up ahead is dearer than one in place.
 *
 * The way back to `head` is an exit like others, linked to its own block, so that the loop ends
 * when the block dies. When the look-up fails, near a page's end for instance, the plain variant
 * of the block does one turn and comes to `start` again.
 */
enum {
	REACH = 256,	/* bytes that a look-up is for, where addresses move */
	TURNS_MIN = 4,	/* fewer are not worth it */
	TURNS_MAX = 64, /* requests are looked at between them */
};

static bool fits_in_loop(const struct item *it)
{
	switch (it->kind) {
	case KIND_COPY:
	case KIND_MEMORY:
	case KIND_NOP:
	case KIND_PREFETCH:
	case KIND_LEA:
	case KIND_PUSH:
	case KIND_POP:
	case KIND_INC_DEC:
	case KIND_DIVIDE:
	case KIND_BIT:
	case KIND_JCC:
		return true;
	default:
		return false;
	}
}

bool is_loop_edge(const struct trans *t, const struct item *it)
{
	return t->loop.on && it == &t->item[t->loop.edge];
}

/* Does the loop plainly count to a small number? Then its few turns are not worth the look-ups. */
static bool is_short(const struct trans *t, unsigned edge, const struct known *k)
{
	const struct item *it = edge ? &t->item[edge - 1] : NULL;

	if (!it || it->kind != KIND_COPY || it->i.mnemonic != ZYDIS_MNEMONIC_CMP ||
	    it->i.reg[0] >= GPR_NR || it->i.reg[1] != REG_NONE)
		return false;
	const int64_t to = (int64_t)it->i.imm, by = k->delta[it->i.reg[0]];
	return by > 0 && to >= 0 && to < 2 * TURNS_MIN * by;
}

void plan_loop(struct trans *t)
{
	struct loop *l = &t->loop;
	const uint64_t start = t->item[0].rip;
	struct known k = {0};

	*l = (struct loop){.edge = -1, .reg = REG_NONE, .turns = TURNS_MAX};
	if (t->b->plain || t->item[0].live_before)
		return;
	for (unsigned n = 0; n < t->count && fits_in_loop(&t->item[n]); n++) {
		const struct item *it = &t->item[n];

		if (it->kind == KIND_JCC) {
			/* With another way out before it, who knows how often it comes here. */
			if (jump_target(it) == start && (t->direct || !is_short(t, n, &k))) {
				l->edge = (int)n;
				l->k = k;
			}
			return;
		}
		note_effects(t, it, &k);
	}
}

/* May the register tell when the turns are over? */
static bool counts(const struct loop *l, unsigned r)
{
	return r < GPR_NR && r != RSP && !(1u << r & HOME_MASK) && !l->k.version[r] &&
	       l->k.delta[r] != 0;
}

/* Every access of a span that moves is an operand which its own registers can reach. */
static bool all_may_move(const struct trans *t, unsigned span)
{
	for (int n = 0; n <= t->loop.edge; n++) {
		const struct item *it = &t->item[n];

		if (it->span == (int)span && (it->kind != KIND_MEMORY ||
					      ((it->reads | it->writes | it->address) & HOME_MASK)))
			return false;
	}
	return true;
}

static bool still(const struct loop *l, unsigned reg, unsigned version)
{
	return reg >= GPR_NR || (!version && !l->k.version[reg]);
}

static int step_of(const struct loop *l, const struct span *s)
{
	int step = 0;

	if (s->base < GPR_NR)
		step += l->k.delta[s->base];
	if (s->index < GPR_NR)
		step += l->k.delta[s->index] * s->scale;
	return step;
}

/* For how many turns the span's bytes, and those it moves over, are at most REACH. */
static unsigned turns_of(const struct span *s, int step)
{
	int bytes = s->high - s->low, by = step < 0 ? -step : step;

	return bytes > REACH ? 0 : 1 + (unsigned)((REACH - bytes) / by);
}

static bool may_hoist(struct trans *t, unsigned n)
{
	struct loop *l = &t->loop;
	struct span *s = &t->span[n];

	if (s->epoch || !still(l, s->base, s->base_version) ||
	    !still(l, s->index, s->index_version))
		return false;
	const int step = step_of(l, s);
	if (!step || t->direct)
		return true;
	const unsigned turns = turns_of(s, step);
	const unsigned reg = counts(l, s->base) ? s->base : s->index;
	if (!(t->key & MODE_KEY_64) || turns < TURNS_MIN || !counts(l, reg) ||
	    (s->align && step % (int)s->align) || !all_may_move(t, n))
		return false;
	if (l->reg == REG_NONE) {
		l->reg = reg;
		l->step = l->k.delta[reg];
	}
	l->turns = turns < l->turns ? turns : l->turns;
	s->step = step;
	return true;
}

/* What the loop needs loaded. */
static unsigned needs_of(const struct trans *t)
{
	unsigned needs = 0;

	for (int n = 0; n <= t->loop.edge; n++)
		needs |= t->item[n].needs;
	return needs;
}

void plan_hoisting(struct trans *t)
{
	if (t->loop.edge < 0)
		return;
	t->loop.on = needs_of(t) != 0;
	for (unsigned n = 0; n < t->spans; n++) {
		t->span[n].hoisted = may_hoist(t, n);
		t->loop.on |= t->span[n].hoisted;
	}
}

/* ---- emission ---- */

/* The host address of the span's low end, or how far the host's addresses are from the guest's. */
static void look_up(struct trans *t, unsigned n)
{
	const struct span *s = &t->span[n];
	const int over = s->step * (int)(t->loop.turns - 1);
	const int low = s->low + (over < 0 ? over : 0);
	const unsigned bytes = (unsigned)(s->high - s->low + (over < 0 ? -over : over));

	look_span_up(t, n, 0, low, bytes, t->item[0].rip);
}

void emit_loop_head(struct trans *t)
{
	struct loop *l = &t->loop;
	const uint8_t *start = (const uint8_t *)t->b->main;

	emit_ready(t, &t->item[0], needs_of(t));
	for (unsigned n = 0; n < t->spans; n++) {
		struct span *s = &t->span[n];
		if (!s->hoisted)
			continue;
		if (t->direct) {
			if (direct_needs_check(s))
				direct_check(t, s, &t->item[0]);
		} else {
			look_up(t, n);
			keep_span(t, n);
		}
		s->probed = true;
	}
	t->flags = FLAGS_DEAD;
	if (l->reg != REG_NONE) {
		e_lea(&t->e, true, T_ADDR, l->reg, 0xff, 1, l->step * (int)l->turns);
		e_store(&t->e, OFF(bt.loop_end), T_ADDR);
	}
	t->b->loop = (uint16_t)(e_here(&t->e) - (uint64_t)start);
	if (l->reg != REG_NONE) {
		e_gs(&t->e, true, 0x3b, l->reg, OFF(bt.loop_end)); /* cmp */
		e_jcc(&t->e, CC_E, start);
	}
}

void emit_moving(struct trans *t, const struct item *it)
{
	const bool both = it->i.base < GPR_NR && it->i.index < GPR_NR;

	if (needs_flags(it))
		flags_to_host(t);
	if (both)
		e_lea(&t->e, true, T_INDEX, it->i.base, it->i.index, it->i.scale,
		      (int32_t)it->i.disp);
	emit_rewritten(&t->e, it, both ? ADDR_SUM : ADDR_MOVED, 0);
	if (it->flags_written)
		t->flags = FLAGS_HOST;
}
