/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"

#include <errno.h>

/*
 * From guest instructions to a block of host code, in three passes: decode and classify forward,
 * find which flags are wanted backward, emit forward. Each vCPU translates by itself, without the lock:
 * into its arena, from code that nobody writes to meanwhile, or else what was made is thrown away (share.c).
 */

/* ---- small pieces ---- */

unsigned class_of_key(uint16_t key)
{
	return key / MODE_KEY_CLASS & 3;
}

unsigned bt_mode_index(struct bt *bt, uint16_t key)
{
	for (unsigned n = 0; n < BT_MODES; n++) {
		uint16_t there = __atomic_load_n(&bt->mode_keys[n], __ATOMIC_RELAXED);
		if (!there && __atomic_compare_exchange_n(&bt->mode_keys[n], &there, key, false,
							  __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			return n;
		if (there == key)
			return n;
	}
	return BT_MODES;
}

struct cold *add_cold(struct trans *t)
{
	static _Thread_local struct cold spare;

	if (t->colds == sizeof(t->cold) / sizeof(t->cold[0])) {
		t->failed = true;
		return &spare;
	}
	struct cold *k = &t->cold[t->colds++];
	memset(k, 0, sizeof(*k));
	return k;
}

struct cold *leave_to_c(struct trans *t, uint8_t *from, uint64_t rip)
{
	struct cold *k = add_cold(t);

	k->kind = COLD_LEAVE;
	k->from = from;
	k->rip = rip;
	return k;
}

void settle_homes(struct trans *t)
{
	if (t->homes_due & 1u << T_INDEX)
		emit_home_store(&t->e, T_INDEX);
	if (t->homes_due & 1u << T_ADDR)
		emit_home_store(&t->e, T_ADDR);
	t->homes_due = 0;
}

void flags_park(struct trans *t)
{
	if (t->flags == FLAGS_HOST) {
		emit_park(&t->e);
		t->homes &= ~(1u << T_INDEX);
		t->flags = FLAGS_BOTH;
	}
}

void flags_clobber(struct trans *t, uint32_t wanted)
{
	if (wanted)
		flags_park(t);
	t->flags = t->flags == FLAGS_HOST || t->flags == FLAGS_DEAD ? FLAGS_DEAD : FLAGS_PARKED;
}

void flags_to_host(struct trans *t)
{
	if (t->flags == FLAGS_PARKED) {
		settle_homes(t);
		emit_unpark(&t->e);
		t->homes &= ~(1u << T_INDEX);
		t->flags = FLAGS_BOTH;
	}
}

void emit_home_load(struct emit *e, unsigned r)
{
	e_load(e, r, OFF_GPR(r));
}

void emit_home_store(struct emit *e, unsigned r)
{
	e_store(e, OFF_GPR(r), r);
}

void emit_homes_in(struct trans *t, uint16_t regs)
{
	const unsigned missing = regs & ~t->homes;

	if (missing & 1u << T_INDEX)
		emit_home_load(&t->e, T_INDEX);
	if (missing & 1u << T_ADDR)
		emit_home_load(&t->e, T_ADDR);
	t->homes |= t->minds ? regs : 0;
}

void emit_homes_out(struct trans *t, uint16_t regs)
{
	t->homes_due |= regs;
	if (t->minds)
		t->homes |= regs;
	else
		settle_homes(t);
}

/* Runs to its end wherever it stands: what is due may wait for the next one. */
static bool may_be_due(const struct item *it)
{
	return it->kind == KIND_COPY || it->kind == KIND_LEA || it->kind == KIND_NOP;
}

/* Instructions that say themselves when they take the translator's registers. The others take them as they
 * like, on ways that are not looked at here. */
static bool minds_homes(const struct trans *t, const struct item *it)
{
	switch (it->kind) {
	case KIND_COPY:
	case KIND_LEA:
	case KIND_NOP:
	case KIND_JCC:
		return t->direct;
	case KIND_MEMORY:
	case KIND_PUSH:
	case KIND_POP:
		return t->direct && it->span >= 0;
	default:
		return false;
	}
}

/* ---- instructions ---- */

void emit_helper(struct trans *t, struct item *it, bool end)
{
	struct emit *e = &t->e;

	if (t->a->insns.next == t->a->insns.end) {
		t->failed = true;
		return;
	}
	struct insn *i = &t->bt->insns[t->a->insns.next++];
	item_select(t, it);
	*i = it->i;
	i->flags = (uint8_t)(end ? i->flags | INSN_END : i->flags & ~INSN_END);
	flags_clobber(t, FLAGS_ARITH);
	e_bytes(e, "\x4c\x8d\x15\0\0\0", 7); /* lea r10, [rip + resume] */
	uint8_t *resume = e->p - 4;
	e_store(e, OFF(bt.resume), T_INDEX);
	e_mov_ri(e, T_INDEX, (uint64_t)i);
	mov_rip(t, T_ADDR, it->rip);
	jmp_thunk(t, t->bt->thunks.helper);
	e_patch(e, resume);
	t->flags = FLAGS_PARKED;
	t->ready = LOADED_NONE;
}

/* Does the instruction need the host's flags as they were? */
bool needs_flags(const struct item *it)
{
	return it->flags_read || (it->flags_written && (it->live_after & ~it->flags_written));
}

void emit_copy(struct trans *t, const struct item *it)
{
	if (needs_flags(it))
		flags_to_host(t);
	emit_homes_in(t, it->reads & HOME_MASK);
	e_bytes(&t->e, it->i.bytes, it->i.length);
	emit_homes_out(t, it->writes & HOME_MASK);
	if (it->flags_written)
		t->flags = FLAGS_HOST;
}

static void emit_memory(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;
	uint16_t homes = (it->reads | it->writes) & HOME_MASK;
	enum addressing how = ADDR_SUM;

	flags_clobber(t, it->flags_read | (it->live_after & ~it->flags_written));
	emit_probe(t, it, it->mem_bytes, it->align, it->mem_write);
	if (homes & 1u << T_ADDR) {
		e_lea(e, true, T_INDEX, T_ADDR, T_INDEX, 1, 0);
		how = ADDR_R10;
	} else if (homes || (needs_flags(it) && t->flags == FLAGS_PARKED)) {
		emit_sum(e);
		how = ADDR_R11;
	}
	if (needs_flags(it))
		flags_to_host(t);
	emit_homes_in(t, it->reads & HOME_MASK);
	emit_rewritten(e, it, how, 0);
	emit_homes_out(t, it->writes & HOME_MASK);
	if (it->flags_written)
		t->flags = FLAGS_HOST;
}

/* Where the page is not in the TLB it is not worth the way. */
static void emit_prefetch(struct trans *t, const struct item *it)
{
	uint8_t *from[2];

	flags_clobber(t, it->live_after);
	emit_address(t, it, 0);
	unsigned count = emit_lookup(t, 1, 0, false, from);
	emit_rewritten(&t->e, it, ADDR_SUM, 0);
	for (unsigned n = 0; n < count; n++)
		e_patch(&t->e, from[n]);
}

/* MOV between the accumulator and an absolute address. */
static void emit_moffs(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;
	unsigned size = it->mem_bytes;

	flags_clobber(t, it->live_after);
	emit_probe(t, it, size, 0, it->mem_write);
	if (size == 2)
		e8(e, 0x66);
	e8(e, size == 8 ? 0x4b : 0x43);
	e8(e, (uint8_t)((it->mem_write ? 0x88 : 0x8a) | (size > 1)));
	e8(e, 4);
	e8(e, (T_INDEX & 7) << 3 | (T_ADDR & 7));
}

void emit_lea(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;
	const struct insn *i = &it->i;
	unsigned dst = i->reg[0];
	bool w = i->width == 8 && i->addr_bytes == 8;

	if (i->base == REG_IP) {
		uint64_t v = it->rip + i->length + (uint64_t)i->disp;
		w ? mov_rip(t, dst, v) : e_mov_ri(e, dst, (uint32_t)v);
	} else {
		emit_homes_in(t, it->address & HOME_MASK);
		e_lea(e, w, dst, i->base < GPR_NR ? i->base : 0xff,
		      i->index < GPR_NR ? i->index : 0xff, i->scale, (int32_t)i->disp);
	}
	emit_homes_out(t, (uint16_t)(1u << dst & HOME_MASK));
}

static void emit_inc_dec(struct trans *t, const struct item *it)
{
	if (needs_flags(it))
		flags_to_host(t);
	if (it->i.width == 2)
		e8(&t->e, 0x66);
	e8(&t->e, 0xff);
	e8(&t->e, (uint8_t)((it->at.opcode >= 0x48 ? 0xc8 : 0xc0) | (it->at.opcode & 7)));
	t->flags = FLAGS_HOST;
}

void leave_to_helper(struct trans *t, const struct item *it, unsigned cc)
{
	struct cold *k = add_cold(t);

	k->kind = COLD_HELPER;
	k->it = it;
	k->from = e_jcc_later(&t->e, cc);
}

/* DIV and IDIV run on the host where it is plain that they do not fault: a high half below the
 * divisor; a dividend that was sign-extended and a divisor other than 0 and -1. The interpreter
 * does the others. The divisor comes to T_ADDR. */
static void emit_divide(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;
	bool w = it->i.width == 8;
	unsigned src = it->i.reg[0];

	flags_clobber(t, it->flags_read | it->live_after);
	if (src == REG_NONE) {
		emit_probe(t, it, it->i.width, 0, false);
		e8(e, w ? 0x4f : 0x47); /* mov r11, [r11 + r10] */
		e8(e, 0x8b);
		e8(e, (T_ADDR & 7) << 3 | 4);
		e8(e, (T_INDEX & 7) << 3 | (T_ADDR & 7));
	} else if (1u << src & HOME_MASK) {
		e_load(e, T_ADDR, OFF_GPR(src));
	} else {
		e_mov_rr(e, T_ADDR, src);
	}
	if (it->i.mnemonic == ZYDIS_MNEMONIC_DIV) {
		e_rr(e, w, 0x39, T_ADDR, RDX); /* cmp rdx, r11 */
		leave_to_helper(t, it, CC_AE);
	} else {
		e_lea(e, w, T_INDEX, T_ADDR, 0xff, 1, 1);
		e_alu_ri(e, w, ALU_CMP, T_INDEX, 1);
		leave_to_helper(t, it, CC_BE);
		w ? e_mov_rr(e, T_INDEX, RAX) : e_mov_rr32(e, T_INDEX, RAX);
		e_rex(e, w, 0, 0, T_INDEX);
		e8(e, 0xc1); /* sar */
		e8(e, 0xf8 | (T_INDEX & 7));
		e8(e, w ? 63 : 31);
		e_rr(e, w, 0x39, RDX, T_INDEX); /* cmp */
		leave_to_helper(t, it, CC_NE);
	}
	if (it->live_after)
		flags_to_host(t); /* leaves T_ADDR alone */
	e_rex(e, w, 0, 0, T_ADDR);
	e8(e, 0xf7);
	e8(e, (uint8_t)((it->i.mnemonic == ZYDIS_MNEMONIC_DIV ? 0xf0 : 0xf8) | (T_ADDR & 7)));
	t->flags = FLAGS_HOST;
}

void emit_ready(struct trans *t, const struct item *it, unsigned needs)
{
	if (!(needs & ~t->ready))
		return;
	settle_homes(t);
	flags_clobber(t, it->live_before);
	e_cmp_gs32(&t->e, OFF(bt.loaded), needs);
	t->homes = 0; /* cold code goes by T_INDEX */
	struct cold *k = add_cold(t);
	k->kind = COLD_LOAD;
	k->it = it;
	k->from = e_jcc_later(&t->e, CC_B);
	k->resume = t->e.p;
	k->ready = needs;
	t->ready = needs;
}

void emit_requests(struct emit *e)
{
	e_load32(e, T_INDEX, OFF(vcpu.requests));
	e_gs(e, false, 0x85, T_INDEX, OFF(bt.request_mask)); /* test */
}

void emit_poll(struct trans *t, const struct item *it)
{
	settle_homes(t);
	flags_clobber(t, it->live_before);
	t->homes = 0;
	if ((t->key & MODE_KEY_CPL3) && !t->bt->stress.interrupts) {
		e_cmp_gs32(&t->e, OFF(vcpu.requests), 0); /* IF is set there (bt_run) */
	} else {
		emit_requests(&t->e);
	}
	leave_to_c(t, e_jcc_later(&t->e, CC_NE), it->rip);
}

void emit_item(struct trans *t, struct item *it)
{
	unsigned first = t->colds;

	if (it->kind != KIND_HELPER && it->kind != KIND_HELPER_END) {
		emit_ready(t, it, it->needs);
		first = t->colds;
	}
	if (it->span >= 0) {
		emit_spanned(t, it);
		return;
	}
	switch (it->kind) {
	case KIND_HELPER:
		emit_helper(t, it, false);
		break;
	case KIND_HELPER_END:
		emit_helper(t, it, true);
		break;
	case KIND_COPY:
		emit_copy(t, it);
		break;
	case KIND_MEMORY:
		emit_memory(t, it);
		break;
	case KIND_MOFFS:
		emit_moffs(t, it);
		break;
	case KIND_LEA:
		emit_lea(t, it);
		break;
	case KIND_INC_DEC:
		emit_inc_dec(t, it);
		break;
	case KIND_DIVIDE:
		emit_divide(t, it);
		break;
	case KIND_REP:
		emit_rep(t, it);
		break;
	case KIND_STI:
	case KIND_CLI:
	case KIND_CLD:
	case KIND_PUSHF:
	case KIND_MOV_SELECTOR:
	case KIND_SWAPGS:
	case KIND_STAC:
	case KIND_CLAC:
	case KIND_RDTSC:
	case KIND_BIT:
	case KIND_FLDCW:
		emit_system(t, it);
		break;
	case KIND_PREFETCH:
		emit_prefetch(t, it);
		break;
	case KIND_NOP:
		break;
	default:
		emit_flow(t, it);
		break;
	}
	bool goes_on = it->kind != KIND_CALL && it->kind != KIND_CALL_IND && it->kind != KIND_RET &&
		       it->kind != KIND_JUMP_IND;
	for (unsigned n = first; n < t->colds; n++) {
		if (t->cold[n].kind != COLD_MISS && t->cold[n].kind != COLD_HELPER)
			continue;
		t->cold[n].resume = goes_on ? t->e.p : NULL;
		t->cold[n].resume_flags = t->flags;
		t->cold[n].ready = t->ready;
	}
}

/* ---- the three passes ---- */

bool ends_block(const struct item *it)
{
	switch (it->kind) {
	case KIND_HELPER_END:
	case KIND_JUMP:
	case KIND_JUMP_IND:
	case KIND_CALL:
	case KIND_CALL_IND:
	case KIND_RET:
		return true;
	default:
		return false;
	}
}

static bool decode_bytes(struct trans *t, struct item *it, const uint8_t *bytes, unsigned avail)
{
	const enum insn_mode mode = t->key & MODE_KEY_64 ? MODE_64 : MODE_32;

	memset(it, 0, sizeof(*it));
	if (insn_decode(mode, t->c->vendor_amd, bytes, avail, &t->d, &it->i) < 0)
		return false;
	classify(t, it);
	return true;
}

static void add_item(struct trans *t, uint64_t rip)
{
	t->item[t->count++].rip = rip;
}

/* A device may be writing to the guest's memory meanwhile: an instruction is read once and judged by what
 * was read, or one would be judged and another copied. */
static bool decode_seen(struct trans *t, uint64_t rip, const struct seen *s)
{
	struct item *it = &t->item[t->count];

	if (!recall(t, it, s)) {
		if (!decode_bytes(t, it, s->bytes, sizeof(s->bytes)))
			return false;
		remember_item(t, it);
	}
	add_item(t, rip);
	return true;
}

static bool decode_item(struct trans *t, uint64_t rip, const uint8_t *at, unsigned avail)
{
	uint8_t bytes[RECALL_BYTES];

	if (avail > sizeof(bytes))
		avail = sizeof(bytes);
	read_once(bytes, at, avail);
	if (!decode_bytes(t, &t->item[t->count], bytes, avail))
		return false;
	add_item(t, rip);
	return true;
}

/* A block goes on behind conditional jumps, for what is done once a block: but not behind any number,
 * as every jump makes it less likely that the code behind it runs at all. */
enum { JUMPS_MAX = 4 };

/* Where the last item jumps back into the block, without a jump in between, a loop begins that is to be a block of its
 * own (loop.c): this one ends before it. */
static bool ends_before_loop(struct trans *t)
{
	const struct item *last = &t->item[t->count - 1];

	if (last->kind != KIND_JCC)
		return false;
	for (unsigned n = t->count - 1; n-- > 1 && t->item[n].kind != KIND_JCC;)
		if (t->item[n].rip == jump_target(last)) {
			t->count = n;
			return true;
		}
	return false;
}

static void decode(struct trans *t, uint64_t rip, const uint8_t *hva_page)
{
	unsigned at = rip & ~PAGE_MASK, jumps = 0, seen = 0, next = 0;
	unsigned most = t->bt->stress.on ? bt_stress_items(t->bt, ITEMS_MAX) : ITEMS_MAX;

	while (t->count < most && at < MEM_PAGE_BYTES) {
		const struct item *it = &t->item[t->count];
		const unsigned avail = MEM_PAGE_BYTES - at;

		if (next == seen) {
			seen = recall_ahead(t, hva_page + at, avail);
			next = 0;
		}
		if (seen ? !decode_seen(t, rip, &t->seen[next++])
			 : !decode_item(t, rip, hva_page + at, avail))
			break;
		if (seen && t->seen[next - 1].parts.length != it->i.length)
			next = seen; /* what was read behind it is none */
		at += it->i.length;
		rip += it->i.length;
		jumps += it->kind == KIND_JCC;
		if (ends_before_loop(t) || ends_block(it) || jumps == JUMPS_MAX)
			break;
	}
}

/* Does the jump or call lead to where it is itself, or to before that? */
static bool goes_back(const struct trans *t, const struct item *it)
{
	const uint64_t to = jump_target(it);

	return (t->key & MODE_KEY_64 ? to : (uint32_t)to) <= it->rip;
}

/*
 * A block that may be part of a loop looks at the requests. Every endless way through the code has jumps or calls
 * that go back, or indirect ones, or returns to where no call came from; those returns look by themselves (shadow.c).
 * Without any of these, what is run between a call and the return to behind it counts as one step, and steps only
 * lead on; nor is there an endless row of calls that do not return, as each leads on, too.
 */
static bool needs_poll(const struct trans *t)
{
	const struct item *end = &t->item[t->count - 1];
	const uint64_t next = end->rip + end->i.length;

	for (unsigned n = 0; n < t->count; n++) {
		const struct item *it = &t->item[n];

		switch (it->kind) {
		case KIND_JUMP_IND:
		case KIND_CALL_IND:
			return true;
		case KIND_JUMP:
		case KIND_JCC:
		case KIND_CALL:
			if (goes_back(t, it))
				return true;
			break;
		default:
			break;
		}
	}
	/* Over the end of the address space? */
	return (t->key & MODE_KEY_64 ? next : (uint32_t)next) < end->rip;
}

/* Or does somebody else see to it that the block is left (poke.c)? Not where its code begins with a jump to another,
 * whose bytes are not the vCPU's own. */
static bool is_poked(const struct trans *t)
{
	unsigned n = 0;

	while (n < t->count && t->item[n].kind == KIND_NOP)
		n++;
	return t->direct && !(t->key & MODE_KEY_POLLS) && !t->bt->stress.interrupts &&
	       n < t->count && t->item[n].kind != KIND_JUMP;
}

static void emit_all(struct trans *t)
{
	bool poll = needs_poll(t) && !is_poked(t);

	if (t->loop.on) {
		if (poll && t->loop.reg != REG_NONE) {
			emit_poll(t, &t->item[0]); /* every few turns are enough */
			poll = false;
		}
		emit_loop_head(t);
	}
	for (unsigned n = 0; n < t->count; n++) {
		struct item *it = &t->item[n];
		bool last = n + 1 == t->count || it->kind == KIND_JCC;
		bool free = !it->live_before || t->flags == FLAGS_PARKED || t->flags == FLAGS_BOTH;

		bool shadow = n && t->item[n - 1].kind == KIND_STI;
		if (poll && (free || last) && !shadow) {
			settle_sp(t);
			emit_poll(t, it);
			poll = false;
		}
		if (it->sp_check)
			emit_stack_check(t, it);
		probe_early(t, n);
		t->minds = minds_homes(t, it);
		if (!t->minds || !may_be_due(it))
			settle_homes(t);
		t->homes = t->minds ? t->homes : 0;
		emit_item(t, it);
		t->minds = false;
		note_held(t, it);
	}
	settle_homes(t);
	const struct item *end = &t->item[t->count - 1];
	if (ends_block(end))
		return;
	if (t->sp_check_end)
		emit_stack_check_end(t, end->rip + end->i.length);
	emit_direct_exit(t, end->rip + end->i.length);
}

/* Begins a translation; the decoder is next. */
static struct trans *begin(struct bt *bt, struct soft_cpu *c, uint32_t page)
{
	struct bt_arena *a = c->bt.arena;
	struct trans *t = a->trans;

	t->bt = bt;
	t->a = a;
	t->before = *a;
	t->c = c;
	t->key = bt->mode_keys[bt->pages[page].mode];
	t->ready = LOADED_NONE;
	t->failed = false;
	t->count = t->colds = t->relocs = 0;
	t->may_move = bt_may_move(bt, page);
	t->hva_page = NULL;
	t->in_cold = false;
	return t;
}

void bt_tell_perf(struct bt *bt, const struct bt_block *b)
{
	const struct bt_page *p = &bt->pages[b->page];

	if (bt->perf_map)
		fprintf(bt->perf_map, "%lx %lx guest_%lx_%s\n", (unsigned long)b->main,
			(unsigned long)b->hot_bytes, (unsigned long)(p->gva + b->offset),
			bt->mode_keys[p->mode] & MODE_KEY_CPL3 ? "user" : "kernel");
}

uint64_t bt_next_rip(const struct soft_cpu *c)
{
	const struct trans *t = c->bt.arena->trans;
	const struct item *end = &t->item[t->count - 1];
	uint64_t rip = 0;

	for (const struct item *it = t->item; it < end; it++)
		if (it->kind == KIND_JCC)
			return 0;
	if (!ends_block(end) || end->kind == KIND_CALL || end->kind == KIND_CALL_IND)
		rip = end->rip + end->i.length;
	else if (end->kind == KIND_JUMP)
		rip = jump_target(end);
	if (!(t->key & MODE_KEY_64))
		rip = (uint32_t)rip;
	return (rip ^ t->item[0].rip) & PAGE_MASK ? 0 : rip;
}

void bt_untranslate(struct soft_cpu *c)
{
	struct bt_arena *a = c->bt.arena;
	const struct bt_arena *before = &a->trans->before;

	a->hot.used = before->hot.used;
	a->cold.used = before->cold.used;
	a->blocks = before->blocks;
	a->exits = before->exits;
	a->insns = before->insns;
}

static enum bt_head head_for(enum bt_variant variant)
{
	switch (variant) {
	case BT_FAR:
		return HEAD_CHECK;
	case BT_CALLED:
		return HEAD_CALL;
	case BT_FAR_CALLED:
		return HEAD_CALL_CHECK;
	case BT_JUMPED:
		return HEAD_JUMP;
	default:
		return HEAD_NONE;
	}
}

/* The second and third pass. NULL: no room. */
static struct bt_block *finish(struct trans *t, const uint32_t page[2], struct bt_way way)
{
	struct bt *bt = t->bt;
	struct bt_arena *a = t->a;
	const struct item *first = &t->item[0], *end = &t->item[t->count - 1];
	struct bt_block *b = bt_block_new(bt, a, page[0], first->rip & ~PAGE_MASK);

	t->b = b;
	t->e = way.variant == BT_NEXT ? bt_emit_go_on(&a->hot, HOT_MAX)
				      : bt_emit_begin(&a->hot, HOT_MAX);
	if (!b || !t->e.p)
		return NULL;
	find_live_flags(t);
	b->plain = way.variant == BT_PLAIN;
	t->direct = (t->key & MODE_KEY_WINDOW) && !b->plain && !direct_is_near_slice(first->rip);
	t->sites = t->homes = t->homes_due = 0;
	t->minds = false;
	plan_spans(t);
	b->mode = bt->pages[page[0]].mode;
	b->page2 = page[1];
	b->flags = (uint8_t)(b->page2 && first->live_before ? FLAGS_PARKED
							    : entry_flags(t, way.flags));
	b->bytes = (uint16_t)(end->rip + end->i.length - first->rip);
	b->needs_from = t->needs_from < b->offset ? t->needs_from : b->offset;
	b->needs_to = (uint16_t)(b->offset + b->bytes);
	if (t->needs_to > b->needs_to)
		b->needs_to = t->needs_to;
	t->flags = (enum flags_at)b->flags;
	const enum bt_head head = b->page2 ? HEAD_NONE : head_for(way.variant);
	if (head != HEAD_NONE) {
		uint8_t *from = bt_emit_head(bt, &t->e, b, head);
		if (from)
			leave_to_c(t, from, first->rip)->in_head = true;
	}
	b->main = (const void *)e_here(&t->e);
	if (b->page2) {
		t->may_move = false;
		bt_emit_page_check(bt, &t->e, b->page2);
		leave_to_c(t, e_jcc_later(&t->e, CC_NE), first->rip);
	}
	t->hot_start = t->e.p;
	emit_all(t);
	struct emit hot = t->e;
	t->e = bt_emit_begin(&a->cold, COLD_MAX);
	t->cold_start = t->e.p;
	t->in_cold = true;
	t->homes = 0;
	if (t->e.p && !t->failed)
		emit_cold(t);
	if (!t->e.p || t->failed || hot.full || t->e.full)
		return NULL;
	bt_emit_end(&a->hot, &hot);
	b->cold = bt_emit_end(&a->cold, &t->e);
	b->hot_bytes = (uint16_t)(e_here(&hot) - (uint64_t)b->main);
	bt_keep_sites(t);
	if (t->failed)
		return NULL;
	if (t->may_move)
		bt_keep_template(t, (size_t)(t->e.p - t->cold_start));
	return b;
}

struct bt_block *bt_translate(struct bt *bt, struct soft_cpu *c, uint32_t page, uint64_t rip,
			      struct bt_way way, const uint8_t *hva_page, bool *full)
{
	struct trans *t = begin(bt, c, page);

	*full = false;
	t->hva_page = hva_page;
	decode(t, rip, hva_page);
	if (!t->count)
		return NULL;
	struct bt_block *b = finish(t, (const uint32_t[2]){page, 0}, way);
	*full = !b;
	if (!b)
		bt_untranslate(c);
	return b;
}

struct bt_block *bt_translate_across(struct bt *bt, struct soft_cpu *c, const uint32_t page[2],
				     uint64_t rip, struct bt_way way,
				     const uint8_t *const hva_page[2], bool *full)
{
	struct trans *t = begin(bt, c, page[0]);
	unsigned room = MEM_PAGE_BYTES - (rip & ~PAGE_MASK);
	uint8_t bytes[30];

	*full = false;
	memcpy(bytes, hva_page[0] + (rip & ~PAGE_MASK), room);
	memcpy(bytes + room, hva_page[1], 15);
	if (!decode_item(t, rip, bytes, room + 15) || t->item[0].i.length <= room)
		return NULL;
	/* A loop that lies across two pages is one block, too. */
	if (!ends_block(&t->item[0]))
		decode(t, rip + t->item[0].i.length, hva_page[1]);
	struct bt_block *b = finish(t, page, way);
	*full = !b;
	if (!b)
		bt_untranslate(c);
	return b;
}
