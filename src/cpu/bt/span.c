/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"

/*
 * Spans: accesses of a block that lie a known distance from each other share one probe. Pushes and
 * pops, the locals of a function, the fields of a structure, an array's element read and written:
 *
 *	mov rax, [rdi + 8]		probe [rdi + 8, + 24); keep the host address
 *	mov rcx, [rsi]			(another span, or a probe of its own)
 *	add rdi, 8			known: the distance is 8 less from here on
 *	mov [rdi + 16], rax		host address + 16
 *
 * An address is what its registers held when they were last changed in an unknown way (a version)
 * plus an offset; accesses with equal registers and versions belong together. The first one probes
 * for all of them, leaves the host address of the span's low end in T_ADDR, and keeps it in
 * bt.span[] if a later one will find T_ADDR gone.
 *
 * A probe clobbers flags. Where they are wanted at a span's first access, the span is looked up
 * earlier if it can, which costs less than to save them:
 *
 *	(probe [rsp - 8, + 8) here)
 *	test rax, rax
 *	jz out				the flags may be wanted there, and by the function
 *	call function			host address of [rsp - 8]
 *
 * When the span is not within one page, or the page is not in the TLB, the block goes on in its
 * plain variant, another block which begins at this instruction and shares nothing.
 *
 * A kept address stays right till the block's end: what could make it wrong (the guest changes its
 * page tables, a page becomes code) is done by instructions that end all spans here, or asked of
 * this vCPU and answered between blocks alone (share.c).
 */
enum { SPAN_MAX = 1024 };

static unsigned word(const struct trans *t)
{
	return t->key & MODE_KEY_64 ? 8 : 4;
}

/* Changes of a register by a constant: ADD, SUB, INC, DEC and LEA, as wide as addresses are. */
static bool constant_move(const struct trans *t, const struct item *it, unsigned *reg, int *by)
{
	const struct insn *i = &it->i;

	*reg = i->reg[0];
	if (*reg >= GPR_NR || i->width != word(t))
		return false;
	if (it->kind == KIND_LEA && i->base == *reg && i->index == REG_NONE &&
	    i->addr_bytes == i->width) {
		*by = (int)i->disp;
		return true;
	}
	if (it->kind != KIND_COPY || i->reg[1] != REG_NONE)
		return false;
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_ADD:
		*by = (int)i->imm;
		return true;
	case ZYDIS_MNEMONIC_SUB:
		*by = (int)(0u - (uint32_t)i->imm);
		return true;
	case ZYDIS_MNEMONIC_INC:
		*by = 1;
		return true;
	case ZYDIS_MNEMONIC_DEC:
		*by = -1;
		return true;
	default:
		return false;
	}
}

/* See stack.c. */
static bool trusts_sp(const struct trans *t)
{
	return t->direct && t->sp.trusted;
}

/* PUSH of what needs no probe of its own. */
static bool is_push(const struct trans *t, const struct item *it)
{
	if (it->kind != KIND_PUSH)
		return false;
	return !(it->i.flags & INSN_MEM) ||
	       (trusts_sp(t) && it->i.base == RSP && it->i.index == REG_NONE && !has_segment(it) &&
		it->i.addr_bytes == word(t));
}

/* What an access adds to a span. False: it is one that cannot share. */
struct access {
	struct span key;
	int offset, moved;
	unsigned size, align;
	bool write;
};

static bool stack_access(const struct trans *t, const struct item *it, const struct known *k,
			 struct access *a)
{
	const bool push = it->kind == KIND_PUSH;
	int at = push || it->kind == KIND_CALL ? -(int)word(t) : 0;

	if (push && !(it->i.flags & INSN_MEM) && it->i.reg[0] == REG_NONE &&
	    !fits32((int64_t)it->i.imm))
		return false;
	if (!trusts_sp(t)) {
		a->key.base = RSP;
		a->key.base_version = k->version[RSP];
	}
	a->moved = k->delta[RSP];
	a->offset = a->moved + at;
	a->size = word(t);
	a->write = at != 0;
	return true;
}

/* In the window, what a register adds to an address need not be known if it is less than the guard. */
static bool leads_nowhere(const struct trans *t, const struct item *it, unsigned reg)
{
	return t->direct && it->small & 1u << reg;
}

static bool is_known_base(const struct trans *t, const struct item *it)
{
	const unsigned index = it->i.index;

	return leads_nowhere(t, it, it->i.base) ||
	       (it->i.base == RSP && trusts_sp(t) && !has_segment(it) &&
		(index >= GPR_NR || leads_nowhere(t, it, index)));
}

static bool operand_access(const struct trans *t, const struct item *it, const struct known *k,
			   struct access *a)
{
	const struct insn *i = &it->i;
	const bool segment = has_segment(it);

	a->size = it->mem_bytes;
	a->align = it->align;
	a->write = it->mem_write;
	if (i->addr_bytes != word(t) || (t->direct && !direct_may_reach(t, it)))
		return false;
	if (segment) {
		const bool registers = i->base != REG_NONE || i->index != REG_NONE;
		if (registers && (!t->direct || i->base == REG_IP || (it->address & HOME_MASK)))
			return false;
		a->key.seg = i->seg;
	}
	if (i->base == REG_IP || (i->base == REG_NONE && i->index == REG_NONE)) {
		uint64_t at = i->disp + (i->base == REG_IP ? it->rip + i->length : 0);
		if (!(t->key & MODE_KEY_64))
			at = (uint32_t)at;
		a->key.page = t->direct ? 0 : at & PAGE_MASK;
		a->offset = (int)(at & ~PAGE_MASK);
		return true;
	}
	if (!t->direct && (i->disp > SPAN_FAR || i->disp < -SPAN_FAR))
		return false;
	if (i->base < GPR_NR && !is_known_base(t, it)) {
		a->key.base = i->base;
		a->key.base_version = k->version[i->base];
		a->moved += k->delta[i->base];
	}
	if (i->index < GPR_NR && !leads_nowhere(t, it, i->index)) {
		a->key.index = i->index;
		a->key.scale = i->scale;
		a->key.index_version = k->version[i->index];
		a->moved += k->delta[i->index] * i->scale;
	}
	a->offset = (int)i->disp + a->moved;
	return true;
}

static bool find_access(const struct trans *t, const struct item *it, const struct known *k,
			struct access *a)
{
	*a = (struct access){
		.key = {.base = REG_NONE, .index = REG_NONE, .seg = REG_NONE, .epoch = k->epoch}};
	switch (it->kind) {
	case KIND_PUSH:
		return is_push(t, it) && stack_access(t, it, k, a);
	case KIND_POP:
	case KIND_RET:
	case KIND_CALL:
		return stack_access(t, it, k, a);
	case KIND_MEMORY:
		return operand_access(t, it, k, a);
	case KIND_CALL_IND:
		return t->direct && stack_access(t, it, k, a);
	case KIND_LEAVE:
		a->key.base = RBP;
		a->key.base_version = k->version[RBP];
		return t->direct;
	default:
		return false;
	}
}

static bool same_key(const struct span *a, const struct span *b)
{
	return a->base == b->base && a->index == b->index && a->scale == b->scale &&
	       a->seg == b->seg && a->page == b->page && a->epoch == b->epoch &&
	       a->base_version == b->base_version && a->index_version == b->index_version;
}

/* Takes the access into the span if they fit. */
static bool take(struct span *s, const struct access *a, bool direct)
{
	int low = a->offset < s->low ? a->offset : s->low;
	int end = a->offset + (int)a->size;
	int high = end > s->high ? end : s->high;

	if (!direct && high - low > SPAN_MAX)
		return false;
	if (a->align && s->align &&
	    (a->align != s->align || (a->offset - s->aligned_at) % (int)a->align))
		return false;
	if (a->align) {
		s->align = a->align;
		s->aligned_at = a->offset;
	}
	s->low = low;
	s->high = high;
	s->write |= a->write;
	s->accesses++;
	return true;
}

/*
 * An access that comes while flags are wanted would have to save them from its probe. Where they were
 * not wanted a moment ago, and the registers have moved by no more than is known since, the span is
 * looked up there.
 */
static void find_early(const struct trans *t, struct span *s, unsigned item, int free_at)
{
	const unsigned base = s->base, index = s->index;
	struct known k = {0}; /* since then */
	int moved = t->item[item].moved;

	if (t->direct && !direct_needs_check(s))
		return;
	if (free_at < 0 || !t->item[item].live_before)
		return;
	for (unsigned n = (unsigned)free_at; n < item; n++)
		note_effects(t, &t->item[n], &k);
	if (k.epoch || (base < GPR_NR && k.version[base]) || (index < GPR_NR && k.version[index]))
		return;
	moved -= base < GPR_NR ? k.delta[base] : 0;
	moved -= index < GPR_NR ? k.delta[index] * s->scale : 0;
	s->early = (int8_t)free_at;
	s->early_moved = moved;
}

static int place_access(struct trans *t, const struct access *a, unsigned item)
{
	for (unsigned n = 0; n < t->spans; n++)
		if (same_key(&t->span[n], &a->key) && take(&t->span[n], a, t->direct))
			return (int)n;
	if (t->spans == BT_SPANS)
		return -1;
	struct span *s = &t->span[t->spans];
	*s = a->key;
	s->low = a->offset;
	s->high = a->offset;
	s->item = (uint8_t)item;
	s->early = -1;
	take(s, a, t->direct);
	return (int)t->spans++;
}

/* Is its first register then a number of 32 bits, extended with zeros or its sign? */
static bool makes_small(const struct item *it)
{
	const struct insn *i = &it->i;

	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_SUB:
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
		return i->width == 4;
	case ZYDIS_MNEMONIC_MOVZX:
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
		return i->width >= 4;
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
		return i->width == 4 && i->reg[1] == REG_NONE && i->imm & 31;
	default:
		return false;
	}
}

void note_effects(const struct trans *t, const struct item *it, struct known *k)
{
	unsigned reg;
	int by, w = (int)word(t);

	switch (it->kind) {
	case KIND_HELPER:
	case KIND_REP:
	case KIND_SWAPGS:
	case KIND_STAC:
	case KIND_CLAC:
		k->epoch++;
		k->small = 0;
		return;
	case KIND_PUSH:
	case KIND_PUSHF:
		k->delta[RSP] -= w;
		return;
	case KIND_POP:
		k->delta[RSP] += w;
		k->version[it->i.reg[0]]++;
		k->small &= (uint16_t) ~(1u << it->i.reg[0]);
		return;
	case KIND_LEAVE:
		k->version[RSP]++;
		k->version[RBP]++;
		k->small &= (uint16_t) ~(1u << RSP | 1u << RBP);
		return;
	default:
		break;
	}
	if (constant_move(t, it, &reg, &by) && by <= SPAN_FAR && by >= -SPAN_FAR &&
	    k->delta[reg] + by <= SPAN_FAR && k->delta[reg] + by >= -SPAN_FAR) {
		k->delta[reg] += by;
		return;
	}
	uint32_t writes = it->writes;
	if ((it->kind == KIND_LEA || it->kind == KIND_MOV_SELECTOR) && it->i.reg[0] < GPR_NR)
		writes |= 1u << it->i.reg[0];
	writes &= (1u << GPR_NR) - 1;
	k->small &= (uint16_t)~writes;
	if (it->i.reg[0] < GPR_NR && writes & 1u << it->i.reg[0] && makes_small(it))
		k->small |= (uint16_t)(1u << it->i.reg[0]);
	for (; writes; writes &= writes - 1)
		k->version[__builtin_ctz(writes)]++;
}

static bool names_r11(const struct item *it)
{
	unsigned r = it->i.reg[0];

	if (it->kind == KIND_PUSH || it->kind == KIND_POP)
		return false; /* they go by T_INDEX */
	return ((it->reads | it->writes) & 1u << T_ADDR) || (it->kind == KIND_LEA && r == T_ADDR);
}

/* Does T_ADDR live through the instruction, which has no access that shares? */
static bool keeps_t_addr(const struct item *it)
{
	switch (it->kind) {
	case KIND_COPY:
	case KIND_LEA:
		return !names_r11(it) && !(it->address & 1u << T_ADDR);
	case KIND_NOP:
	case KIND_JCC:
		return true;
	default:
		return false;
	}
}

static bool is_early(const struct span *s, unsigned item)
{
	return s->early == (int)item && !s->hoisted;
}

/* Which spans have to be kept in memory: by going through the block as emission will. */
static void find_kept(struct trans *t)
{
	bool probed[BT_SPANS] = {false}, any_early = false;
	int held = -1;

	for (unsigned n = 0; n < t->spans; n++) {
		probed[n] = t->span[n].kept = t->span[n].hoisted;
		any_early |= t->span[n].early >= 0;
	}
	for (unsigned n = 0; n < t->count; n++) {
		struct item *it = &t->item[n];
		for (unsigned m = 0; any_early && m < t->spans; m++) {
			if (is_early(&t->span[m], n)) {
				probed[m] = true;
				held = (int)m;
			}
		}
		if (it->span < 0) {
			held = keeps_t_addr(it) ? held : -1;
			continue;
		}
		struct span *s = &t->span[it->span];
		if (probed[it->span] && (held != it->span || names_r11(it)))
			s->kept = true;
		probed[it->span] = true;
		held = names_r11(it) ? -1 : it->span;
	}
}

/* A single access is looked up ahead only if T_ADDR keeps the address till then. */
static bool drop_dear(struct trans *t)
{
	bool any = false;

	for (unsigned n = 0; n < t->count; n++) {
		struct item *it = &t->item[n];
		struct span *s = it->span >= 0 ? &t->span[it->span] : NULL;
		if (s && s->accesses < 2 && !s->hoisted && s->kept) {
			s->early = -1;
			s->kept = false;
			it->span = -1;
			any = true;
		}
	}
	return any;
}

void plan_spans(struct trans *t)
{
	struct known k = {0};
	int free_at = -1; /* the last item before which no flag is wanted */
	const bool window = t->key & MODE_KEY_WINDOW;
	const bool shares = !t->b->plain && (t->direct || !window);

	t->spans = 0;
	t->held = -1;
	t->sp_due = 0;
	plan_loop(t);
	stack_begin(t);
	for (unsigned n = 0; n < t->count; n++) {
		struct item *it = &t->item[n];
		const unsigned spans = t->spans;
		struct access a;

		it->span = -1;
		it->small = k.small;
		it->sp_check = false;
		const bool shadow = n && t->item[n - 1].kind == KIND_STI;
		if (!it->live_before && !shadow)
			free_at = (int)n;
		if (shares && find_access(t, it, &k, &a)) {
			it->span = (int8_t)place_access(t, &a, n);
			it->offset = a.offset;
			it->moved = a.moved;
			if (t->spans > spans)
				find_early(t, &t->span[spans], n, free_at);
		}
		note_effects(t, it, &k);
		if (window)
			stack_note(t, n, &k);
		if ((int)n == t->loop.edge) {
			k.epoch++; /* what follows shares nothing with the loop */
			free_at = -1;
		}
	}
	plan_hoisting(t);
	if (t->direct)
		return;
	for (unsigned n = 0; n < t->count; n++) {
		struct item *it = &t->item[n];
		if (it->span >= 0 && t->span[it->span].accesses < 2 && !t->span[it->span].hoisted &&
		    t->span[it->span].early < 0)
			it->span = -1;
	}
	for (unsigned n = 0; n < t->spans; n++) {
		struct span *s = &t->span[n];
		if (s->align) /* one test of the low end does for all */
			s->low -= (int)(((unsigned)s->low - (unsigned)s->aligned_at) % s->align);
	}
	find_kept(t);
	if (drop_dear(t))
		find_kept(t);
}

/* ---- emission ---- */

void look_span_up(struct trans *t, unsigned n, int moved, int low, unsigned bytes, uint64_t rip)
{
	struct emit *e = &t->e;
	const struct span *s = &t->span[n];
	const struct item *it = &t->item[s->item];
	const int extra = low - (it->offset - it->moved) - moved;
	struct constant_lookup l;
	uint8_t *from[2];

	if (it->kind == KIND_MEMORY &&
	    emit_lookup_constant(t, it, extra, bytes, s->align, s->write, &l)) {
		add_plain_exit(t, rip, l.from);
		e_lea(e, true, T_ADDR, T_INDEX, 0xff, 1, (int32_t)l.offset);
		return;
	}
	struct cold miss = {
		.it = it,
		.retry = (const uint8_t *)e_here(e),
		.size = (uint16_t)bytes,
		.write = s->write,
		.by_stack = it->kind != KIND_MEMORY,
		.base = it->kind != KIND_MEMORY ? RSP : only_base(it),
		.disp = it->kind != KIND_MEMORY ? low - moved : extra,
	};
	if (it->kind == KIND_MEMORY)
		emit_address(t, it, extra);
	else
		emit_base_disp(t, RSP, low - moved);
	if (!s->step && miss.base == RSP) {
		add_plain_exit(t, rip, emit_lookup_stack(t, &miss, s->align));
		emit_sum(e);
		return;
	}
	unsigned count = s->step ? emit_lookup_distance(t, bytes, s->align, s->write, from)
				 : emit_lookup(t, bytes, s->align, s->write, from);
	for (unsigned k = 0; k < count; k++)
		add_plain_exit(t, rip, from[k]);
	if (!s->step)
		emit_sum(e);
}

void keep_span(struct trans *t, unsigned span)
{
	e_store(&t->e, OFF(bt.span) + span * sizeof(uint64_t), T_ADDR);
}

/* Before the instruction, when registers have moved by so much. */
static void probe_span(struct trans *t, unsigned n, const struct item *it, int moved)
{
	struct span *s = &t->span[n];

	if (t->direct) {
		if (direct_needs_check(s))
			direct_check(t, s, it);
		s->probed = true;
		return;
	}
	flags_clobber(t, it->live_before);
	look_span_up(t, n, moved, s->low, (unsigned)(s->high - s->low), it->rip);
	if (s->kept)
		keep_span(t, n);
	s->probed = true;
	t->held = (int)n;
}

void probe_early(struct trans *t, unsigned item)
{
	for (unsigned n = 0; n < t->spans; n++) {
		if (is_early(&t->span[n], item)) {
			settle_sp(t);
			probe_span(t, n, &t->item[item], t->span[n].early_moved);
		}
	}
}

/* The host address of the span's low end in T_ADDR. */
static void hold_span(struct trans *t, const struct item *it)
{
	if (!t->span[it->span].probed)
		probe_span(t, (unsigned)it->span, it, it->moved);
	else if (t->held != it->span)
		e_load(&t->e, T_ADDR, OFF(bt.span) + (size_t)it->span * sizeof(uint64_t));
	t->held = it->span;
}

/* mov [T_ADDR + disp], reg and the other way round, in the mode's width. */
static void move_word(struct trans *t, uint8_t opcode, unsigned reg, int disp)
{
	e_rex(&t->e, t->key & MODE_KEY_64, reg, 0, T_ADDR);
	e8(&t->e, opcode);
	e_modrm_base(&t->e, reg, T_ADDR, disp);
}

static void span_store(struct trans *t, uint64_t v, int disp)
{
	if (!(t->key & MODE_KEY_64) || fits32((int64_t)v)) {
		move_word(t, 0xc7, 0, disp);
		e32(&t->e, (uint32_t)v);
	} else {
		mov_rip(t, T_INDEX, v); /* immediates of PUSH fit 32 bits */
		move_word(t, 0x89, T_INDEX, disp);
	}
}

void settle_sp(struct trans *t)
{
	if (t->sp_due)
		move_sp(t, t->sp_due);
	t->sp_due = 0;
}

/* Pushes and pops after one another move RSP once, as nothing between them can fault. */
static void span_move_sp(struct trans *t, const struct item *it, int by)
{
	const struct item *next = it + 1;

	t->sp_due += by;
	if (next < &t->item[t->count] && next->span >= 0 && t->span[next->span].probed &&
	    (next->kind == KIND_PUSH || next->kind == KIND_POP) && next->i.reg[0] != RSP)
		return;
	settle_sp(t);
}

static void span_push(struct trans *t, const struct item *it, int disp)
{
	unsigned r = it->i.reg[0];

	if (r == REG_NONE) {
		span_store(t, it->i.imm, disp);
	} else if (1u << r & HOME_MASK) {
		e_load(&t->e, T_INDEX, OFF_GPR(r));
		move_word(t, 0x89, T_INDEX, disp);
	} else {
		move_word(t, 0x89, r, disp);
	}
	span_move_sp(t, it, -(int)word(t));
}

static void span_pop(struct trans *t, const struct item *it, int disp)
{
	unsigned r = it->i.reg[0];

	if (1u << r & HOME_MASK) {
		move_word(t, 0x8b, T_INDEX, disp);
		e_store(&t->e, OFF_GPR(r), T_INDEX);
	} else {
		move_word(t, 0x8b, r, disp);
	}
	span_move_sp(t, it, (int)word(t));
}

/* An instruction that names R11 is given its operand by R10. */
static void span_memory(struct trans *t, const struct item *it, int disp)
{
	bool by_index = names_r11(it);

	if (needs_flags(it))
		flags_to_host(t);
	if (by_index)
		e_mov_rr(&t->e, T_INDEX, T_ADDR);
	emit_homes_in(t, it->reads & HOME_MASK);
	emit_rewritten(&t->e, it, by_index ? ADDR_R10 : ADDR_R11, disp);
	emit_homes_out(t, it->writes & HOME_MASK);
	if (it->flags_written)
		t->flags = FLAGS_HOST;
	if (by_index)
		t->held = -1;
}

static void span_ret(struct trans *t, const struct item *it, int disp)
{
	unsigned popped = word(t) + (uint16_t)it->i.imm;

	flags_park(t);
	move_word(t, 0x8b, T_ADDR, disp);
	move_sp(t, (int)popped);
	t->flags = FLAGS_PARKED;
	emit_indirect(t, it, popped);
}

static void span_call(struct trans *t, const struct item *it, int disp)
{
	uint64_t back = it->rip + it->i.length;

	span_store(t, t->key & MODE_KEY_64 ? back : (uint32_t)back, disp);
	move_sp(t, -(int)word(t));
	emit_shadow_call(t, it);
}

void emit_spanned(struct trans *t, const struct item *it)
{
	if (t->direct) {
		if (!t->span[it->span].probed)
			probe_span(t, (unsigned)it->span, it, it->moved);
		emit_direct(t, it);
		return;
	}
	hold_span(t, it);
	int disp = it->offset - t->span[it->span].low;

	switch (it->kind) {
	case KIND_PUSH:
		span_push(t, it, disp);
		break;
	case KIND_POP:
		span_pop(t, it, disp);
		break;
	case KIND_MEMORY:
		t->span[it->span].step ? emit_moving(t, it) : span_memory(t, it, disp);
		break;
	case KIND_RET:
		span_ret(t, it, disp);
		break;
	case KIND_CALL:
		span_call(t, it, disp);
		break;
	default:
		break;
	}
}

void note_held(struct trans *t, const struct item *it)
{
	if (it->span < 0 && !keeps_t_addr(it))
		t->held = -1;
}
