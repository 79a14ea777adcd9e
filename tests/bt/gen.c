/* SPDX-License-Identifier: Apache-2.0 */
#include "bt.h"

#include <stdio.h>
#include <string.h>

/*
 * Random programs: a main part and a few functions, made of runs of random instructions, branches of
 * every kind, counted loops, calls, the stack, string instructions. They end by construction: jumps go
 * forward, except for loops over counters that nothing else touches; a function calls later ones only.
 * (A program may still lose its way when a fault is skipped or its bytes are changed; the machines'
 * clocks see to those.)
 */

/* ---- small pieces ---- */

static void label(struct gen *g, struct node *jump)
{
	jump->to = (uint16_t)g->p->count;
}

static struct node *add_jump(struct gen *g)
{
	struct node *n = add_bytes(g, "\xe9\0\0\0\0", 5);

	n->fix = FIX_REL32;
	n->fix_at = 1;
	n->frame = true;
	return n;
}

static struct node *add_jcc(struct gen *g, unsigned cc)
{
	struct node *n = add_bytes(g, "\x0f\x80\0\0\0\0", 6);

	n->bytes[1] |= (uint8_t)cc;
	n->fix = FIX_REL32;
	n->fix_at = 2;
	n->frame = true;
	return n;
}

static struct node *add_call(struct gen *g)
{
	struct node *n = add_bytes(g, "\xe8\0\0\0\0", 5);

	n->fix = FIX_REL32;
	n->fix_at = 1;
	return n;
}

/* A slot of the safe page that holds the address of a node; its place in that page. */
enum { TABLES_AT = 2048 };
static unsigned add_slot(struct gen *g, unsigned to)
{
	struct program *p = g->p;
	unsigned k = p->slots < SLOTS_MAX ? p->slots++ : SLOTS_MAX - 1;

	p->slot[k].at = (uint16_t)(TABLES_AT + 8 * k);
	p->slot[k].to = (uint16_t)to;
	return k;
}

static void run(struct gen *g, unsigned most)
{
	unsigned n = 1 + (unsigned)rng_below(&g->r, most);

	while (n-- > 0)
		add_random(g);
}

static void part(struct gen *g, unsigned depth);

/* mov reg, address of a node yet to come */
static struct node *add_mov_label(struct gen *g, unsigned reg)
{
	bool mode32 = g->p->mode32;
	struct node *n;

	if (!mode32 && rng_percent(&g->r, 50)) { /* lea reg, [rip + ...] */
		uint8_t lea[7] = {(uint8_t)(0x48 | (reg >> 3) << 2), 0x8d,
				  (uint8_t)(5 | (reg & 7) << 3)};
		n = add_bytes(g, lea, 7);
		n->fix = FIX_REL32;
		n->fix_at = 3;
	} else {
		add_mov_ri(g, reg, mode32 ? CODE_BASE : UINT64_C(0x100000000));
		n = &g->p->node[g->p->count - 1];
		n->fix = mode32 ? FIX_ABS32 : FIX_ABS64;
		n->fix_at = n->length - (mode32 ? 4 : 8);
	}
	n->frame = true;
	return n;
}

/* jmp/call reg (op 4, 2) */
static struct node *add_indirect(struct gen *g, unsigned op, unsigned reg)
{
	uint8_t b[3];
	unsigned n = 0;

	if (reg >= 8)
		b[n++] = 0x41;
	b[n++] = 0xff;
	b[n++] = (uint8_t)(0xc0 | op << 3 | (reg & 7));
	struct node *k = add_bytes(g, b, n);
	k->frame = true;
	return k;
}

/* ---- control flow ---- */

static void make_if(struct gen *g, unsigned depth)
{
	unsigned around = g->p->count;

	add_jcc(g, (unsigned)rng_below(&g->r, 16));
	part(g, depth + 1);
	if (rng_percent(&g->r, 40)) {
		unsigned over = g->p->count;
		add_jump(g);
		label(g, &g->p->node[around]);
		part(g, depth + 1);
		around = over;
	}
	label(g, &g->p->node[around]);
}

/* A short jump over a long one: JCXZ, LOOP, LOOPE and short Jcc. */
static void make_short_jump(struct gen *g, unsigned depth)
{
	uint8_t b[2] = {(uint8_t)(rng_percent(&g->r, 50) ? 0x70 + rng_below(&g->r, 16)
							 : 0xe0 + rng_below(&g->r, 4)),
			0};

	/* LOOP changes RCX. */
	if (b[0] >= 0xe0 && b[0] <= 0xe2 && (g->reserved & 2))
		b[0] = 0xe3;
	struct node *near = add_bytes(g, b, 2);
	near->fix = FIX_REL8;
	near->fix_at = 1;
	near->frame = true;
	unsigned at = g->p->count - 1, far = g->p->count;
	add_jump(g);
	label(g, &g->p->node[at]);
	part(g, depth + 1);
	label(g, &g->p->node[far]);
}

static void make_indirect_jump(struct gen *g)
{
	unsigned reg = some_free_reg(g), at = g->p->count;

	add_mov_label(g, reg);
	add_indirect(g, 4, reg);
	if (rng_percent(&g->r, 50))
		add_bytes(g, "\x0f\x0b", 2)->frame = true; /* never reached */
	label(g, &g->p->node[at]);
}

/* and reg, 3; jmp [table + reg * word] */
static void make_switch(struct gen *g)
{
	unsigned reg = some_free_reg(g), ends[4], first = g->p->slots;

	while (reg == RSP)
		reg = some_free_reg(g);
	if (first + 4 > SLOTS_MAX)
		return;
	struct node *n = add_reg_reg(g, 0x83, 4, reg, false); /* and reg, imm8 */
	n->bytes[n->length++] = 3;
	n->frame = true;
	for (unsigned k = 0; k < 4; k++)
		add_slot(g, 0);
	uint8_t b[8];
	unsigned c = 0;
	if (reg >= 8)
		b[c++] = 0x42;
	b[c++] = 0xff;
	b[c++] = 0x24;
	b[c++] = (uint8_t)(0xc0 | (reg & 7) << 3 | 5);
	uint32_t table = SAFE_BASE + TABLES_AT + 8 * first;
	memcpy(b + c, &table, 4);
	add_bytes(g, b, c + 4)->frame = true;
	for (unsigned k = 0; k < 4; k++) {
		g->p->slot[first + k].to = (uint16_t)g->p->count;
		run(g, 4);
		ends[k] = g->p->count;
		add_jump(g);
	}
	for (unsigned k = 0; k < 4; k++)
		label(g, &g->p->node[ends[k]]);
}

/* ---- the stack ---- */

static void add_push(struct gen *g, unsigned reg, bool pop)
{
	uint8_t b[2] = {0x41, (uint8_t)((pop ? 0x58 : 0x50) | (reg & 7))};

	add_bytes(g, reg >= 8 ? b : b + 1, reg >= 8 ? 2 : 1)->frame = true;
}

static void make_push_pop(struct gen *g, unsigned depth)
{
	unsigned n = 1 + (unsigned)rng_below(&g->r, 3);

	for (unsigned k = 0; k < n; k++) {
		uint32_t v = (uint32_t)some_int(&g->r);
		switch (rng_below(&g->r, 5)) {
		case 0: {
			struct node *i = add_bytes(g, "\x68\0\0\0\0", 5);
			memcpy(i->bytes + 1, &v, 4);
			i->frame = true;
			break;
		}
		case 1: /* push [safe] */
			add_absolute(g, 0xff, 6, SAFE_BASE + 8 * (uint32_t)rng_below(&g->r, 8),
				     false)
				->frame = true;
			break;
		case 2: { /* push [rsp + disp8] */
			struct node *i = add_bytes(g, "\xff\x74\x24\0", 4);
			i->bytes[3] = (uint8_t)(8 * rng_below(&g->r, 4));
			i->frame = true;
			break;
		}
		default:
			add_push(g, (unsigned)rng_below(&g->r, regs_of(g)), false);
			break;
		}
	}
	part(g, depth + 1);
	while (n-- > 0) {
		unsigned reg = some_free_reg(g);
		if (rng_percent(&g->r, 15)) /* pop [safe]: 64 to 127 are for that */
			add_absolute(g, 0x8f, 0, SAFE_BASE + 64 + 8 * (uint32_t)rng_below(&g->r, 8),
				     false)
				->frame = true;
		else
			add_push(g, reg, true);
	}
}

static void make_pushf(struct gen *g, unsigned depth)
{
	add_bytes(g, "\x9c", 1)->frame = true;
	part(g, depth + 1);
	add_bytes(g, "\x9d", 1)->frame = true;
}

/* A frame as compilers make them; RBP has to last. */
static void make_frame(struct gen *g, unsigned depth)
{
	if (g->reserved >> RBP & 1)
		return;
	g->reserved |= 1u << RBP;
	if (rng_percent(&g->r, 20)) {
		add_bytes(g, "\xc8\x40\0\0", 4)->frame = true; /* enter 64, 0 */
	} else {
		add_bytes(g, "\x55", 1)->frame = true;
		add_reg_reg(g, 0x89, RSP, RBP, true)->frame = true;
		struct node *n = add_reg_reg(g, 0x83, 5, RSP, true);
		n->bytes[n->length++] = 0x40;
		n->frame = true;
	}
	for (unsigned k = 0; k < 3; k++) { /* mov [rbp - x], reg and back */
		static const uint8_t ops[] = {0x89, 0x8b, 0x01, 0x33, 0x39};
		uint8_t op = ops[rng_below(&g->r, sizeof(ops))];
		unsigned reg = some_free_reg(g);
		struct node *n = add_reg_reg(g, op, reg, RBP, true);
		n->bytes[n->length - 1] = (uint8_t)(0x45 | (reg & 7) << 3);
		n->bytes[n->length++] = (uint8_t)(0x100 - 8 * (1 + rng_below(&g->r, 8)));
	}
	part(g, depth + 1);
	add_bytes(g, "\xc9", 1)->frame = true;
	g->reserved &= ~(1u << RBP);
}

/* ---- strings and specialities ---- */

static void make_string(struct gen *g)
{
	static const uint8_t ops[] = {0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad, 0xa6, 0xa7, 0xae, 0xaf};
	static const uint8_t prefixes[] = {0, 0, 0xf3, 0xf3, 0xf3, 0xf2};
	uint8_t b[4], rep = prefixes[rng_below(&g->r, sizeof(prefixes))];
	unsigned n = 0;
	bool down = rng_percent(&g->r, 15);

	if (g->reserved & (1u << RSI | 1u << RDI | 1u << RCX))
		return;
	add_mov_ri(g, RSI, some_address(g, 64));
	add_mov_ri(g, RDI, some_address(g, 64));
	add_mov_ri(g, RCX, rng_percent(&g->r, 80) ? rng_below(&g->r, 20) : rng_below(&g->r, 900));
	if (down)
		add_bytes(g, "\xfd", 1);
	if (rep)
		b[n++] = rep;
	if (rng_percent(&g->r, 20))
		b[n++] = 0x66;
	else if (!g->p->mode32 && rng_percent(&g->r, 40))
		b[n++] = 0x48;
	b[n++] = ops[rng_below(&g->r, sizeof(ops))];
	add_bytes(g, b, n);
	if (down)
		add_bytes(g, "\xfc", 1);
}

/* Branches to where there is no code, or no address at all. */
static void make_lost(struct gen *g)
{
	unsigned reg = some_free_reg(g);
	uint64_t to = 0x60000000 + rng_below(&g->r, PAGE);

	if (rng_percent(&g->r, 40))
		to = DATA_BASE + rng_below(&g->r, PAGE); /* not to be executed */
	if (!g->p->mode32 && rng_percent(&g->r, 60))
		to = rng_next(&g->r) | UINT64_C(1) << 62;
	add_mov_ri(g, reg, to);
	switch (rng_below(&g->r, 3)) {
	case 0:
		add_indirect(g, 4, reg);
		break;
	case 1:
		add_indirect(g, 2, reg);
		break;
	default: {
		struct node *n = add_node(g); /* push reg; ret [n], as one */
		if (reg >= 8)
			n->bytes[n->length++] = 0x41;
		n->bytes[n->length++] = (uint8_t)(0x50 | (reg & 7));
		bool more = rng_percent(&g->r, 50);
		n->bytes[n->length++] = more ? 0xc2 : 0xc3;
		if (more) {
			uint16_t v = (uint16_t)rng_next(&g->r);
			memcpy(n->bytes + n->length, &v, 2);
			n->length += 2;
		}
		break;
	}
	}
}

static void make_special(struct gen *g)
{
	switch (rng_below(&g->r, 8)) {
	case 7:
		make_lost(g);
		break;
	case 0: /* int3 */
		add_bytes(g, "\xcc", 1)->trap = true;
		break;
	case 1: /* ud2 */
		add_bytes(g, "\x0f\x0b", 2);
		break;
	case 2: /* hlt: #GP here */
		add_bytes(g, "\xf4", 1);
		break;
	case 3: /* ldmxcsr [safe]: zero, so that exceptions are not masked; set right by the handler */
		if (rng_percent(&g->r, 30)) {
			struct node *n = add_node(g);
			n->bytes[n->length++] = 0x0f;
			struct node *m = add_absolute(g, 0xae, 2, SAFE_BASE + 256, false);
			memmove(m->bytes + 1, m->bytes, m->length);
			m->bytes[0] = 0x0f;
			m->length++;
			m->fix_at += m->fix != FIX_NONE;
			*n = *m;
			g->p->count--;
		}
		break;
	case 4: /* a division by what may be zero */
	{
		unsigned reg = some_free_reg(g);
		if (!(g->reserved & 5)) {
			add_reg_reg(g, 0x31, RDX, RDX, false);
			struct node *n = add_reg_reg(g, 0xf7, 6 + (unsigned)rng_below(&g->r, 2),
						     reg, rng_percent(&g->r, 50));
			memcpy(n->bytes + n->length, "\x39\xc0", 2); /* cmp eax, eax */
			n->length += 2;
			n->second = 2;
		}
		break;
	}
	case 5: /* into, gone in 64-bit mode */
		if (g->p->mode32)
			add_bytes(g, "\xce", 1)->trap = true;
		break;
	default: /* an address that is not canonical, or very high */
		if (!g->p->mode32) {
			unsigned reg = some_free_reg(g);
			add_mov_ri(g, reg, rng_next(&g->r) | UINT64_C(1) << 62);
			struct node *n = add_reg_reg(g, 0x8b, some_free_reg(g), reg & 7, true);
			n->bytes[0] |= (uint8_t)(reg >> 3);
			n->bytes[n->length - 1] &= 0x3f;
			if ((reg & 7) == 4)
				n->bytes[n->length++] = 0x24;
			else if ((reg & 7) == 5) {
				n->bytes[n->length - 1] |= 0x40;
				n->bytes[n->length++] = 0;
			}
		}
		break;
	}
}

/* A chain that carries through memory: add, adc, adc, sbb. */
static void make_carry(struct gen *g)
{
	static const uint8_t ops[] = {0x01, 0x11, 0x13, 0x19, 0x1b};
	unsigned n = 2 + (unsigned)rng_below(&g->r, 4);

	for (unsigned k = 0; k < n; k++) {
		add_absolute(g, ops[k ? 1 + rng_below(&g->r, 4) : 0], some_free_reg(g),
			     some_address(g, 8), !g->p->mode32);
		if (rng_percent(&g->r, 30)) /* mov keeps flags */
			add_absolute(g, rng_percent(&g->r, 50) ? 0x89 : 0x8b, some_free_reg(g),
				     some_address(g, 8), !g->p->mode32);
	}
}

/* ---- code that changes ---- */

enum { SOFT_ADD, SOFT_EAX, SOFT_JCC };
static const uint8_t soft_opcodes[] = {0x05, 0x0d, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0xa9, 0xb8};

static void add_soft(struct gen *g, unsigned kind)
{
	uint32_t v = (uint32_t)some_int(&g->r);
	unsigned reg = some_free_reg(g);
	struct node *n;

	if (g->soft[kind].count == 32 || (kind == SOFT_EAX && (g->reserved & 1)))
		return;
	g->soft[kind].node[g->soft[kind].count++] = (uint16_t)g->p->count;
	switch (kind) {
	case SOFT_ADD:
		reg = some_low_reg(g);
		n = add_reg_reg(g, 0x81, 0, reg, false);
		memcpy(n->bytes + n->length, &v, 4);
		n->length += 4;
		break;
	case SOFT_EAX:
		n = add_bytes(g, "\x05\0\0\0\0", 5);
		n->bytes[0] = soft_opcodes[rng_below(&g->r, sizeof(soft_opcodes))];
		memcpy(n->bytes + 1, &v, 4);
		break;
	default: {
		unsigned at = g->p->count;
		add_jcc(g, (unsigned)rng_below(&g->r, 16));
		run(g, 2);
		label(g, &g->p->node[at]);
		break;
	}
	}
}

/* OPCODE reg, [place of a node yet to be chosen + at], directly or by the other address. */
static struct node *add_code_access(struct gen *g, uint8_t opcode, unsigned reg, unsigned at)
{
	uint32_t base = rng_percent(&g->r, 50) ? CODE_BASE : ALIAS_BASE;
	struct node *n = add_absolute(g, opcode, reg, base + at, false);

	if (!n->fix)
		n->fix_at = n->length - 4;
	n->fix = n->fix ? FIX_CODE_RIP : FIX_CODE;
	n->target = base + at;
	return n;
}

static void add_writer(struct gen *g, unsigned kind)
{
	struct rng *r = &g->r;
	unsigned k = g->soft[kind].writers;

	if (k == 32)
		return;
	g->soft[kind].writer[g->soft[kind].writers++] = (uint16_t)g->p->count;
	switch (kind) {
	case SOFT_ADD: {
		static const uint8_t ops[] = {0x88, 0x89, 0x89, 0x01, 0x31, 0x86, 0x00};
		uint8_t op = ops[rng_below(r, sizeof(ops))];
		unsigned reg = some_free_reg(g);
		if (op == 0x86 && reg >= 4) /* as a byte, it may be part of another one */
			op = 0x88;
		add_code_access(g, op, reg, op & 1 ? 2 : 2 + (unsigned)rng_below(r, 4));
		break;
	}
	case SOFT_EAX: {
		struct node *n = add_code_access(g, 0xc6, 0, 0);
		n->bytes[n->length++] = soft_opcodes[rng_below(r, sizeof(soft_opcodes))];
		/* The translator does not keep flags that the old code has no use for over the
		 * store, while the new code may. So they are made anew: cmp eax, eax */
		n->bytes[n->length++] = 0x39;
		n->bytes[n->length++] = 0xc0;
		n->second = 2;
		break;
	}
	default: {
		struct node *n = add_code_access(g, 0x80, 6, 1);
		n->bytes[n->length++] = 1;
		break;
	}
	}
}

/* Copies a function to where others were before, and calls it. */
static void make_copy(struct gen *g)
{
	static const uint8_t moves[4][3] = {{0xf3, 0xa4}, {0xf3, 0xa5}, {0xa5}, {0xa4}};
	unsigned kind = (unsigned)rng_below(&g->r, 4), reg = some_free_reg(g);

	if ((g->reserved & (1u << RSI | 1u << RDI | 1u << RCX)) || g->copies == 16 ||
	    g->area == NODE_NONE)
		return;
	g->copy[g->copies++] = (uint16_t)g->p->count;
	add_mov_label(g, RSI);
	add_mov_label(g, RDI)->to = g->area;
	add_mov_ri(g, RCX, kind == 1 ? 5 : 20);
	add_bytes(g, moves[kind], kind < 2 ? 2 : 1);
	if (rng_percent(&g->r, 50)) {
		add_call(g)->to = g->area;
	} else {
		add_mov_label(g, reg)->to = g->area;
		add_indirect(g, 2, reg);
	}
}

/* Calls a function of the alternative pages, perhaps after they have changed places. */
static void make_alt(struct gen *g)
{
	unsigned reg = some_free_reg(g);

	if (rng_percent(&g->r, 70))
		add_bytes(g, "\xcd\x81", 2);
	add_mov_ri(g, reg, ALT_BASE + ALT_SLOT * rng_below(&g->r, 8) + PAGE * rng_below(&g->r, 2));
	add_indirect(g, 2, reg);
}

static void make_change(struct gen *g)
{
	unsigned kind = (unsigned)rng_below(&g->r, 5);

	if (kind == 3) {
		make_copy(g);
	} else if (kind == 4) {
		make_alt(g);
	} else {
		if (rng_percent(&g->r, 60))
			add_writer(g, kind);
		if (rng_percent(&g->r, 30))
			run(g, 3);
		add_soft(g, kind);
		if (rng_percent(&g->r, 60))
			add_writer(g, kind);
	}
}

/* Small functions to be copied, and room for them; at the very end. */
static void make_area(struct gen *g)
{
	static const uint8_t rets[16] = {0xc3, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3,
					 0xc3, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3};

	g->area = (uint16_t)g->p->count;
	for (unsigned k = 0; k < 3; k++)
		add_bytes(g, rets, 16)->frame = true;
}

static void make_functions_to_copy(struct gen *g)
{
	uint16_t at[4];

	for (unsigned k = 0; k < 4; k++) {
		at[k] = (uint16_t)g->p->count;
		for (unsigned n = 0; n < 3; n++) {
			unsigned reg = some_low_reg(g);
			uint32_t v = (uint32_t)rng_next(&g->r);
			struct node *i =
				add_reg_reg(g, 0x81, (unsigned)rng_below(&g->r, 7), reg, false);
			memcpy(i->bytes + i->length, &v, 4);
			i->length += 4;
		}
		add_bytes(g, "\xc3", 1)->frame = true;
	}
	for (unsigned k = 0; k < g->copies; k++)
		g->p->node[g->copy[k]].to = at[rng_below(&g->r, 4)];
	for (unsigned kind = 0; kind < 3; kind++)
		for (unsigned k = 0; k < g->soft[kind].writers; k++) {
			struct node *n = &g->p->node[g->soft[kind].writer[k]];
			if (g->soft[kind].count)
				n->to = g->soft[kind].node[rng_below(&g->r, g->soft[kind].count)];
			else
				n->to = 0, n->gone = true;
		}
}

/* Functions of the alternative pages, in every slot another one. */
static void make_alt_pages(struct gen *g)
{
	for (unsigned at = 0; at < ALT_BYTES; at += ALT_SLOT) {
		uint8_t *b = g->p->alt + at;
		for (unsigned n = 1 + (unsigned)rng_below(&g->r, 4); n > 0; n--) {
			unsigned reg = some_low_reg(g);
			uint32_t v = (uint32_t)rng_next(&g->r);
			*b++ = 0x81;
			*b++ = (uint8_t)(0xc0 | rng_below(&g->r, 7) << 3 | reg);
			memcpy(b, &v, 4);
			b += 4;
		}
		*b = 0xc3;
	}
}

/* ---- loops ---- */

static void make_loop(struct gen *g, unsigned depth, unsigned most)
{
	uint32_t counter = SAFE_BASE + 512 + 8 * g->loops++;
	uint32_t n = 2 + (uint32_t)rng_below(&g->r, most);
	struct node *set = add_absolute(g, 0xc7, 0, counter, false);

	memcpy(set->bytes + set->length, &n, 4);
	set->length += 4;
	set->frame = true;
	unsigned top = g->p->count;
	part(g, depth + 1);
	part(g, depth + 1);
	add_absolute(g, 0xff, 1, counter, false)->frame = true; /* dec */
	add_jcc(g, 5)->to = (uint16_t)top;
}

/* ---- loops whose addresses move ---- */

/* An instruction with [p + disp] or [p + q * scale + disp]; both are of the lower eight. */
static void add_moving_access(struct gen *g, unsigned p, unsigned q)
{
	static const struct {
		uint8_t prefix, map, op;
	} ops[] = {{0, 0, 0x8b},       {0, 0, 0x8b},	{0, 0, 0x89},	    {0, 0, 0x89},
		   {0, 0, 0x01},       {0, 0, 0x33},	{0, 0, 0x39},	    {0, 0, 0x88},
		   {0, 0x0f, 0xb6},    {0, 0x0f, 0x10}, {0, 0x0f, 0x11},    {0, 0x0f, 0x28},
		   {0x66, 0x0f, 0xef}, {0, 0x0f, 0x58}, {0xf2, 0x0f, 0x11}, {0, 0x0f, 0xaf}};
	unsigned k = (unsigned)rng_below(&g->r, sizeof(ops) / sizeof(ops[0]));
	unsigned reg = some_free_reg(g), n = 0;
	bool wide = !g->p->mode32 && rng_percent(&g->r, 50), index = rng_percent(&g->r, 40);
	uint8_t b[9], rex = (uint8_t)(0x40 | wide << 3 | reg >> 3 << 2);

	if (ops[k].prefix)
		b[n++] = ops[k].prefix;
	if (rex != 0x40)
		b[n++] = rex;
	if (ops[k].map)
		b[n++] = ops[k].map;
	b[n++] = ops[k].op;
	b[n++] = (uint8_t)(0x40 | (reg & 7) << 3 | (index ? 4 : p));
	if (index)
		b[n++] = (uint8_t)(rng_below(&g->r, 4) << 6 | q << 3 | p);
	b[n++] = (uint8_t)rng_below(&g->r, 256);
	add_bytes(g, b, n);
}

/* add, sub or lea: a constant more or less */
static void add_step(struct gen *g, unsigned reg, int by)
{
	bool wide = !g->p->mode32 && rng_percent(&g->r, 90);

	if (rng_percent(&g->r, 30)) {
		struct node *n = add_reg_reg(g, 0x8d, reg, reg, wide);
		n->bytes[n->length - 1] = (uint8_t)(0x40 | reg << 3 | reg);
		n->bytes[n->length++] = (uint8_t)by;
		n->frame = true;
		return;
	}
	bool sub = rng_percent(&g->r, 50);
	struct node *n = add_reg_reg(g, 0x83, sub ? 5 : 0, reg, wide);
	n->bytes[n->length++] = (uint8_t)(sub ? -by : by);
	n->frame = true;
}

/* p walks through memory, q counts down. */
static void make_walk(struct gen *g)
{
	static const int8_t steps[] = {1, 2, 4, 8, 8, 8, 16, 16, 24, 32, 64, 120, -4, -8, -16, -40};
	const uint32_t before = g->reserved;
	unsigned q = some_low_reg(g);

	g->reserved |= 1u << q;
	if ((g->reserved & 0xef) == 0xef) {
		g->reserved = before;
		return;
	}
	unsigned p = some_low_reg(g);
	add_mov_ri(g, p, some_address(g, 64));
	g->p->node[g->p->count - 1].frame = true;
	add_mov_ri(g, q, 1 + rng_below(&g->r, 60));
	g->p->node[g->p->count - 1].frame = true;
	if (rng_percent(&g->r, 85))
		g->reserved |= 1u << p;
	unsigned top = g->p->count, out = 0;
	for (unsigned k = 1 + (unsigned)rng_below(&g->r, 4); k > 0; k--) {
		add_moving_access(g, p, q);
		if (rng_percent(&g->r, 25))
			run(g, 2);
		if (!out && rng_percent(&g->r, 10)) {
			out = g->p->count;
			add_jcc(g, (unsigned)rng_below(&g->r, 16));
		}
		if (k == 1 || rng_percent(&g->r, 15))
			add_step(g, p, steps[rng_below(&g->r, sizeof(steps))]);
	}
	struct node *n = add_reg_reg(g, 0x83, 5, q, true); /* sub q, 1 */
	n->bytes[n->length++] = 1;
	n->frame = true;
	add_jcc(g, 5)->to = (uint16_t)top;
	if (out)
		label(g, &g->p->node[out]);
	g->reserved = before;
}

static void part(struct gen *g, unsigned depth)
{
	unsigned dice = (unsigned)rng_below(&g->r, 100);

	if (g->p->count > NODES_MAX - 200)
		return;
	if (g->p->writable && rng_percent(&g->r, 20)) {
		make_change(g);
		return;
	}
	if (rng_percent(&g->r, 8)) {
		make_walk(g);
		return;
	}
	if (depth > 3 || dice < 50) {
		run(g, 8);
		return;
	}
	if (dice < 62)
		make_if(g, depth);
	else if (dice < 67)
		make_short_jump(g, depth);
	else if (dice < 72)
		make_indirect_jump(g);
	else if (dice < 75)
		make_switch(g);
	else if (dice < 81)
		make_push_pop(g, depth);
	else if (dice < 83)
		make_pushf(g, depth);
	else if (dice < 86)
		make_frame(g, depth);
	else if (dice < 90)
		make_string(g);
	else if (dice < 93)
		make_special(g);
	else
		make_carry(g);
}

/* ---- functions ---- */

enum { FUNCTIONS_MAX = 4, CALLS_MAX = 32 };
struct calls {
	unsigned count;
	struct {
		unsigned node;
		unsigned function;
		bool slot;
	} at[CALLS_MAX];
};

static void call(struct gen *g, struct calls *c, unsigned function)
{
	unsigned reg = some_free_reg(g);

	if (c->count == CALLS_MAX)
		return;
	c->at[c->count].function = function;
	c->at[c->count].slot = false;
	c->at[c->count].node = g->p->count;
	switch (rng_below(&g->r, 4)) {
	case 0:
		add_mov_label(g, reg);
		add_indirect(g, 2, reg);
		break;
	case 1: { /* call [slot] */
		unsigned k = add_slot(g, 0);
		c->at[c->count].slot = true;
		c->at[c->count].node = k;
		add_absolute(g, 0xff, 2, SAFE_BASE + TABLES_AT + 8 * k, false);
		break;
	}
	default:
		add_call(g);
		break;
	}
	c->count++;
}

static void make_function(struct gen *g, struct calls *c, unsigned k, unsigned functions)
{
	unsigned parts = 1 + (unsigned)rng_below(&g->r, 4);
	bool loop = k == 0 || rng_percent(&g->r, 30);
	unsigned top = 0;
	uint32_t counter = SAFE_BASE + 512 + 8 * g->loops;

	if (loop) {
		uint32_t n = k ? 2 + (uint32_t)rng_below(&g->r, 3)
			       : 2 + (uint32_t)rng_below(&g->r, 30);
		g->loops++;
		struct node *set = add_absolute(g, 0xc7, 0, counter, false);
		memcpy(set->bytes + set->length, &n, 4);
		set->length += 4;
		set->frame = true;
		top = g->p->count;
	}
	while (parts-- > 0) {
		part(g, 0);
		if (k + 1 < functions && rng_percent(&g->r, 40))
			call(g, c, k + 1 + (unsigned)rng_below(&g->r, functions - k - 1));
		if (rng_percent(&g->r, 8) && g->loops < 100)
			make_loop(g, 1, 5);
	}
	if (loop) {
		add_absolute(g, 0xff, 1, counter, false)->frame = true;
		add_jcc(g, 5)->to = (uint16_t)top;
	}
	if (k == 0)
		add_bytes(g, "\xcd\x80", 2)->frame = true;
	else
		add_bytes(g, "\xc3", 1)->frame = true;
}

/* Chooses reserved registers and gives all of them values. */
static void make_registers(struct gen *g)
{
	struct program *p = g->p;
	struct rng *r = &g->r;
	struct tcase *t = &(struct tcase){0};
	unsigned kept = 0;
	uint8_t keep[4];

	make_x87(r, t);
	make_vectors(r, t);
	memcpy(p->fx, t->fx, FX_BYTES);
	memcpy(p->ymmh, t->ymmh, YMMH_BYTES);
	if (rng_percent(r, 80)) { /* SIMD exceptions masked, as nearly everywhere */
		uint32_t mxcsr;
		memcpy(&mxcsr, p->fx + 24, 4);
		mxcsr |= 0x1f80;
		memcpy(p->fx + 24, &mxcsr, 4);
	}
	for (unsigned n = 0; n < 16; n++)
		p->gpr[n] = p->mode32 ? (n < 8 ? (uint32_t)some_int(r) : 0) : some_int(r);
	p->gpr[RSP] = STACK_BASE + STACK_BYTES - 512 - 16 * rng_below(r, 32);
	if (rng_percent(r, 5))
		p->gpr[RSP] += 1 + rng_below(r, 15);
	if (rng_percent(r, 10)) /* near the page in the middle */
		p->gpr[RSP] = STACK_BASE + PAGE + 4 * rng_below(r, 16);
	p->rflags = 0x202 | (rng_next(r) & 0x8d5);
	g->reserved = 1u << RSP;
	while (kept < 4) {
		unsigned n = (unsigned)rng_below(r, regs_of(g));
		if (!p->mode32 && rng_percent(r, 25))
			n = 10 + (rng_next(r) & 1);
		if (g->reserved >> n & 1)
			continue;
		/* Pointers that need SIB or a displacement are as good as others. */
		g->reserved |= 1u << n;
		keep[kept++] = (uint8_t)n;
		if (p->mode32 && kept == 2)
			break;
	}
	g->pointers = p->mode32 ? 1 : 3;
	memcpy(g->pointer, keep, g->pointers);
	g->index = keep[g->pointers];
	for (unsigned k = 0; k < g->pointers; k++)
		p->gpr[g->pointer[k]] = DATA_BASE + 256 + rng_below(r, 3 * PAGE);
	p->gpr[g->index] = rng_below(r, 100);
	for (unsigned k = 0; k < 2; k++)
		g->hot[k] = (uint8_t)(p->mode32 || rng_percent(r, 40) ? rng_below(r, regs_of(g))
								      : 10 + k);
	g->fault_percent = rng_percent(r, 60) ? 0 : rng_percent(r, 70) ? 2 : 12;
}

static void note_flags(struct program *p)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];

	for (unsigned k = 0; k < p->count; k++) {
		struct node *n = &p->node[k];
		n->flags_read = FLAGS_ARITH_MASK;
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(forms_decoder(p->mode32), n->bytes,
							 n->length, &z, op)))
			continue;
		/* What a direct jump leads to may want flags or not. */
		n->flags_end = z.meta.category == ZYDIS_CATEGORY_COND_BR ||
			       (z.mnemonic == ZYDIS_MNEMONIC_JMP &&
				op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE);
		if (z.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE && !n->flags_end)
			continue;
		const ZydisAccessedFlags *f = z.cpu_flags;
		n->flags_read = f ? (uint16_t)(f->tested & FLAGS_ARITH_MASK) : 0;
		n->flags_written =
			f ? (uint16_t)((f->modified | f->set_0 | f->set_1 | f->undefined) &
				       FLAGS_ARITH_MASK)
			  : 0;
		if (n->second) /* a CMP follows */
			n->flags_written = FLAGS_ARITH_MASK;
	}
}

void program_make(struct program *p, uint64_t seed, uint64_t number, unsigned forms)
{
	struct gen g = {.p = p, .forms = forms};
	struct calls c = {0};
	unsigned start[FUNCTIONS_MAX];

	memset(p, 0, sizeof(*p));
	p->seed = seed;
	p->number = number;
	rng_init(&g.r, seed, number);
	p->mode32 = rng_percent(&g.r, 35);
	p->writable = rng_percent(&g.r, 35);
	p->wild = rng_percent(&g.r, 7);
	p->moved = !p->mode32 && rng_percent(&g.r, 40);
	p->wild_seed = (uint32_t)rng_next(&g.r);
	p->start = (uint16_t)rng_below(&g.r, rng_percent(&g.r, 50) ? 64 : PAGE);
	make_registers(&g);
	make_alt_pages(&g);
	g.area = NODE_NONE;
	unsigned functions = 1 + (unsigned)rng_below(&g.r, FUNCTIONS_MAX);
	for (unsigned k = 0; k < functions; k++) {
		start[k] = p->count;
		if (k == 1 && p->writable)
			make_area(&g), start[k] = p->count;
		make_function(&g, &c, k, functions);
		if (k && rng_percent(&g.r, 40))
			p->node[start[k]].gap = (uint16_t)rng_below(&g.r, PAGE);
	}
	make_functions_to_copy(&g);
	for (unsigned k = 0; k < c.count; k++) {
		uint16_t to = (uint16_t)start[c.at[k].function];
		if (c.at[k].slot)
			p->slot[c.at[k].node].to = to;
		else
			p->node[c.at[k].node].to = to;
	}
	note_flags(p);
}

void pristine_fill(uint8_t *data, uint64_t seed, uint64_t number)
{
	struct rng r;

	rng_init(&r, ~seed, number);
	for (unsigned at = 0; at < DATA_BYTES; at += 16)
		some_vector(&r, data + at);
}

/* ---- layout ---- */

static uint32_t place_of(const struct program *p, unsigned node)
{
	return node < p->count ? p->node[node].offset : p->bytes;
}

static bool apply_fix(struct program *p, struct node *n)
{
	uint8_t *at = p->code + n->offset + n->fix_at;
	uint32_t behind = (uint32_t)(n->offset + n->length - n->second);
	uint32_t rel = place_of(p, n->to) - behind;
	uint64_t address = CODE_BASE + place_of(p, n->to);

	switch (n->fix) {
	case FIX_REL8:
		*at = (uint8_t)rel;
		return (int32_t)rel == (int8_t)rel;
	case FIX_REL32:
		memcpy(at, &rel, 4);
		return true;
	case FIX_ABS32:
		memcpy(at, &address, 4);
		return true;
	case FIX_ABS64:
		memcpy(at, &address, 8);
		return true;
	case FIX_CODE:
		rel = n->target + place_of(p, n->to);
		memcpy(at, &rel, 4);
		return true;
	case FIX_CODE_RIP:
		rel = n->target + place_of(p, n->to) - (CODE_BASE + behind);
		memcpy(at, &rel, 4);
		return true;
	case FIX_DATA:
		rel = n->target - (CODE_BASE + behind);
		memcpy(at, &rel, 4);
		return true;
	default:
		return true;
	}
}

/* Changes a few bytes. None of them may become an instruction with a result of its own kind. */
static void go_wild(struct program *p)
{
	struct rng r;

	rng_init(&r, p->wild_seed, 77);
	for (unsigned k = 1 + (unsigned)rng_below(&r, 8); k-- > 0;)
		p->code[p->start + rng_below(&r, p->bytes - p->start)] ^= (uint8_t)rng_next(&r);
	for (unsigned k = 0; k + 1 < CODE_BYTES; k++)
		if (p->code[k] == 0x0f && p->code[k + 1] == 0xc7) /* RDRAND, RDSEED, RDPID */
			p->code[k + 1] = 0xc8;
}

bool program_layout(struct program *p)
{
	unsigned at = p->start;

	memset(p->code, 0xcc, sizeof(p->code));
	memset(p->next, 0, sizeof(p->next));
	memset(p->node_at, 0xff, sizeof(p->node_at));
	for (unsigned k = 0; k < p->count; k++) {
		struct node *n = &p->node[k];
		at += n->gap;
		n->offset = (uint16_t)at;
		if (n->gone)
			continue;
		if (at + n->length >= CODE_BYTES)
			return false;
		memcpy(p->code + at, n->bytes, n->length);
		p->node_at[at] = (uint16_t)k;
		p->next[at] = (uint16_t)(at + n->length);
		at += n->length;
	}
	p->bytes = at;
	for (unsigned k = 0; k < p->count; k++)
		if (!p->node[k].gone && !apply_fix(p, &p->node[k]))
			return false;
	if (p->wild)
		go_wild(p);
	return true;
}

uint32_t program_live_flags(const struct program *p, unsigned node)
{
	uint32_t live = 0, unknown = FLAGS_ARITH_MASK;

	for (unsigned k = node; k < p->count && unknown; k++) {
		const struct node *n = &p->node[k];
		if (n->gone)
			continue;
		live |= n->flags_read & unknown;
		unknown &= ~(uint32_t)n->flags_written;
		if (n->flags_read == FLAGS_ARITH_MASK || n->flags_end)
			break;
	}
	return live;
}

void program_print(const struct program *p)
{
	ZydisFormatter f;
	char text[128];

	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	printf("program %llu:%llu, %s-bit%s%s, starts at %x\n", (unsigned long long)p->seed,
	       (unsigned long long)p->number, p->mode32 ? "32" : "64",
	       p->writable ? ", code writable" : "",
	       p->wild	  ? ", wild"
	       : p->moved ? ", moved"
			  : "",
	       CODE_BASE + p->start);
	for (unsigned n = 0; n < 16; n++)
		printf("%s%2u=%016llx",
		       n % 4 ? " "
		       : n   ? "\n  "
			     : "  ",
		       n, (unsigned long long)p->gpr[n]);
	printf("\n  rflags=%llx\n", (unsigned long long)p->rflags);
	for (unsigned at = p->start; at < p->bytes;) {
		ZydisDecodedInstruction z;
		ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
		if (p->node_at[at] == NODE_NONE && !p->wild) {
			at++;
			continue;
		}
		unsigned room = CODE_BYTES - at < 15 ? CODE_BYTES - at : 15;
		printf("  %08x ", CODE_BASE + at);
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(forms_decoder(p->mode32), p->code + at,
							 room, &z, op))) {
			printf("%02x ?\n", p->code[at++]);
			continue;
		}
		ZydisFormatterFormatInstruction(&f, &z, op, z.operand_count_visible, text,
						sizeof(text), CODE_BASE + at, NULL);
		for (unsigned k = 0; k < 12; k++)
			printf(k < z.length ? "%02x" : "  ", p->code[at + (k < z.length ? k : 0)]);
		printf(" %s\n", text);
		at += z.length;
	}
}
