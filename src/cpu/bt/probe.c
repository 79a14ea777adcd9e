/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"

/*
 * The way a memory operand is reached: a probe of the software TLB, in line.
 *
 *	lea  r11, [the operand's address]
 *	rorx r10d, r11d, 12 - 5 ; and r10d, (entries - 1) * 32
 *	xor  r11, gs:[tlb + r10 + tag]		offset within the page, if it is the page
 *	cmp  r11, 4096 - size			another page, or over its end: out of line
 *	ja   miss
 *	mov  r10, gs:[tlb + r10 + hva]
 *	(the instruction, with [r11 + r10])
 *
 * Where the address is a constant, so is its place in the TLB:
 *
 *	cmp  qword gs:[tlb + place + tag], page ; jne miss
 *	mov  r10, gs:[tlb + place + hva] ; mov r11d, offset in the page
 *
 * The one comparison covers a wrong tag and an access that runs over the page's end. That the host
 * address lies in guest RAM follows from the entry (only RAM pages are ever entered) and from this
 * comparison; nothing else in translated code forms a host address from guest values.
 */
enum { ENTRY_BYTES = sizeof(struct tlb_entry), ENTRY_SHIFT = 5 };
static_assert(ENTRY_BYTES == 1 << ENTRY_SHIFT, "the index is scaled by a shift");

void emit_sum(struct emit *e)
{
	e_lea(e, true, T_ADDR, T_ADDR, T_INDEX, 1, 0);
}

static size_t tlb_table(const struct trans *t, unsigned class)
{
	return OFF(tlb.data[0]) + class * sizeof(t->c->tlb.data[0]);
}

static size_t tag_of(bool write)
{
	return write ? offsetof(struct tlb_entry, write) : offsetof(struct tlb_entry, read);
}

static size_t tlb_tag(const struct trans *t, bool write)
{
	return tlb_table(t, class_of_key(t->key)) + tag_of(write);
}

/* What is left of T_ADDR: is it the offset of such an operand in a page? Returns how many jumps there are
 * where it is not; the last is the one for another page. */
static unsigned check_offset(struct emit *e, unsigned size, unsigned align, uint8_t *from[2])
{
	unsigned count = 0;

	if (align) {
		/* An unaligned operand takes the slow path, too, which raises #GP. */
		e_bytes(e, "\x41\xf6\xc3", 3); /* test r11b, imm8 */
		e8(e, (uint8_t)(align - 1));
		from[count++] = e_jcc_later(e, CC_NE);
	}
	e_alu_ri(e, true, ALU_CMP, T_ADDR, (int32_t)(MEM_PAGE_BYTES - size));
	from[count++] = e_jcc_later(e, CC_A);
	return count;
}

/* Leaves the place of the entry in T_INDEX and the offset within the page in T_ADDR. */
static unsigned find_entry(struct trans *t, unsigned class, unsigned size, unsigned align,
			   bool write, uint8_t *from[2])
{
	struct emit *e = &t->e;

	if (t->bt->has_bmi2) {
		e_rorx(e, false, T_INDEX, T_ADDR, MEM_PAGE_SHIFT - ENTRY_SHIFT);
	} else {
		e_mov_rr32(e, T_INDEX, T_ADDR);
		e_shr(e, false, T_INDEX, MEM_PAGE_SHIFT - ENTRY_SHIFT);
	}
	e_alu_ri(e, false, ALU_AND, T_INDEX, (TLB_ENTRIES - 1) << ENTRY_SHIFT);
	e_gs_base(e, true, 0x33, T_ADDR, T_INDEX, tlb_table(t, class) + tag_of(write));
	return check_offset(e, size, align, from);
}

unsigned emit_lookup(struct trans *t, unsigned size, unsigned align, bool write, uint8_t *from[2])
{
	const unsigned class = class_of_key(t->key),
		       count = find_entry(t, class, size, align, write, from);

	e_gs_base(&t->e, true, 0x8b, T_INDEX, T_INDEX,
		  tlb_table(t, class) + offsetof(struct tlb_entry, hva));
	return count;
}

/* ---- the copy of the stack's entry ---- */

static size_t stack_entry(unsigned class)
{
	return OFF(tlb.stack) + class * sizeof(struct tlb_entry);
}

uint8_t *emit_lookup_stack(struct trans *t, const struct cold *miss, unsigned align)
{
	struct emit *e = &t->e;
	const unsigned class = class_of_key(t->key);
	uint8_t *from[2];

	e_gs(e, true, 0x33, T_ADDR, stack_entry(class) + tag_of(miss->write)); /* xor */
	const unsigned count = check_offset(e, miss->size, align, from);
	e_load(e, T_INDEX, stack_entry(class) + offsetof(struct tlb_entry, hva));
	struct cold *k = add_cold(t);
	*k = *miss;
	k->kind = COLD_REFILL;
	k->from = from[count - 1];
	k->class = (uint8_t) class;
	return count == 2 ? from[0] : NULL;
}

void cold_refill(struct trans *t, const struct cold *k)
{
	static const size_t words[] = {offsetof(struct tlb_entry, read),
				       offsetof(struct tlb_entry, write),
				       offsetof(struct tlb_entry, hva)};
	struct emit *e = &t->e;
	uint8_t *from[2];

	emit_cold_address(t, k);
	find_entry(t, k->class, k->size, 0, k->write, from);
	for (unsigned n = 0; n < 3; n++) {
		e_gs_base(e, true, 0x8b, T_ADDR, T_INDEX, tlb_table(t, k->class) + words[n]);
		e_store(e, stack_entry(k->class) + words[n], T_ADDR);
	}
	e_jmp(e, k->retry);
	note_reloc(t, RELOC_COLD_TO_HOT, e->p - 4);
	e_patch(e, from[0]);
}

unsigned emit_lookup_distance(struct trans *t, unsigned size, unsigned align, bool write,
			      uint8_t *from[2])
{
	const unsigned class = class_of_key(t->key),
		       count = find_entry(t, class, size, align, write, from);

	e_gs_base(&t->e, true, 0x8b, T_ADDR, T_INDEX,
		  tlb_table(t, class) + offsetof(struct tlb_entry, hva));
	e_gs_base(&t->e, true, 0x2b, T_ADDR, T_INDEX, tlb_tag(t, write)); /* sub */
	return count;
}

bool constant_address(const struct item *it, int extra, uint64_t *gva)
{
	const struct insn *i = &it->i;

	if (it->kind == KIND_BIT || has_segment(it) || i->base < GPR_NR || i->index < GPR_NR)
		return false;
	*gva = i->disp + (uint64_t)extra + (i->base == REG_IP ? it->rip + i->length : 0);
	if (i->addr_bytes == 4)
		*gva = (uint32_t)*gva;
	return true;
}

/* OPCODE reg, gs:[a TLB entry's field] */
static void e_tlb(struct trans *t, uint8_t opcode, unsigned reg, size_t at)
{
	e_gs(&t->e, true, opcode, reg, at);
	note_reloc(t, RELOC_TLB, t->e.p - 4);
}

bool emit_lookup_constant(struct trans *t, const struct item *it, int extra, unsigned size,
			  unsigned align, bool write, struct constant_lookup *l)
{
	struct emit *e = &t->e;
	uint64_t gva;

	if (!constant_address(it, extra, &gva) || (gva & ~PAGE_MASK) + size > MEM_PAGE_BYTES ||
	    (align && gva % align))
		return false;
	const uint64_t page = gva & PAGE_MASK;
	const size_t entry = OFF(tlb.data[0]) + class_of_key(t->key) * sizeof(t->c->tlb.data[0]) +
			     tlb_index(gva) * sizeof(struct tlb_entry);
	const size_t tag = entry + (write ? offsetof(struct tlb_entry, write)
					  : offsetof(struct tlb_entry, read));
	if (fits32((int64_t)page)) {
		t->may_move = false;
		e_gs(e, true, 0x81, ALU_CMP, tag);
		e32(e, (uint32_t)page);
	} else {
		mov_rip(t, T_ADDR, page);
		e_tlb(t, 0x3b, T_ADDR, tag); /* cmp */
	}
	l->from = e_jcc_later(e, CC_NE);
	l->offset = (unsigned)(gva & ~PAGE_MASK);
	e_tlb(t, 0x8b, T_INDEX, entry + offsetof(struct tlb_entry, hva));
	return true;
}

static void add_miss(struct trans *t, const struct cold *miss, uint8_t *from)
{
	struct cold *k = add_cold(t);

	*k = *miss;
	k->kind = COLD_MISS;
	k->from = from;
	k->class = (uint8_t)class_of_key(t->key);
}

/* The same for one access, with its misses. */
static void emit_access(struct trans *t, const struct cold *miss, unsigned align)
{
	uint8_t *from[2];

	if (miss->base == RSP) {
		add_miss(t, miss, emit_lookup_stack(t, miss, align));
		return;
	}
	const unsigned count = emit_lookup(t, miss->size, align, miss->write, from);

	for (unsigned n = 0; n < count; n++)
		add_miss(t, miss, from[n]);
}

void emit_address(struct trans *t, const struct item *it, int extra)
{
	struct emit *e = &t->e;
	const struct insn *i = &it->i;
	bool w = i->addr_bytes == 8;
	bool base = i->base < GPR_NR, index = i->index < GPR_NR;
	int32_t disp = (int32_t)i->disp + extra; /* extra only where displacements are small */

	emit_homes_in(t, it->address & HOME_MASK);
	if (i->base == REG_IP)
		w ? mov_rip(t, T_ADDR, it->rip + i->length + (uint64_t)(i->disp + extra))
		  : e_mov_ri(e, T_ADDR,
			     (uint32_t)(it->rip + i->length + (uint64_t)(i->disp + extra)));
	else if (!base && !index)
		e_mov_ri(e, T_ADDR, w ? (uint64_t)(i->disp + extra) : (uint32_t)(i->disp + extra));
	else if (base && !index && disp == 0 && i->base != T_ADDR)
		w ? e_mov_rr(e, T_ADDR, i->base) : e_mov_rr32(e, T_ADDR, i->base);
	else
		e_lea(e, w, T_ADDR, base ? i->base : 0xff, index ? i->index : 0xff, i->scale, disp);
	if (has_segment(it)) {
		e_load(e, T_INDEX, OFF(seg_base) + i->seg * sizeof(uint64_t));
		e_lea(e, t->key & MODE_KEY_64, T_ADDR, T_ADDR, T_INDEX, 1, 0);
	}
	if (it->kind == KIND_BIT) {
		/* The bit's number is signed; whole units of it count from the address (SDM BT). */
		bool wide_unit = it->mem_bytes == 8;
		wide_unit ? e_mov_rr(e, T_INDEX, i->reg[1]) : e_movsxd(e, T_INDEX, i->reg[1]);
		e_bytes(e, wide_unit ? "\x49\xc1\xfa\x06" : "\x49\xc1\xfa\x05", 4); /* sar r10, */
		e_lea(e, w, T_ADDR, T_ADDR, T_INDEX, wide_unit ? 8 : 4, 0);
	}
}

void emit_cold_address(struct trans *t, const struct cold *k)
{
	if (k->by_stack)
		e_lea(&t->e, t->key & MODE_KEY_64, T_ADDR, k->base, 0xff, 1, k->disp);
	else
		emit_address(t, k->it, k->disp);
}

unsigned only_base(const struct item *it)
{
	const struct insn *i = &it->i;

	return it->kind == KIND_BIT || has_segment(it) || i->index < GPR_NR || i->base >= GPR_NR
		       ? REG_NONE
		       : i->base;
}

void emit_probe(struct trans *t, const struct item *it, unsigned size, unsigned align, bool write)
{
	struct cold miss = {
		.it = it,
		.retry = (const uint8_t *)e_here(&t->e),
		.size = (uint16_t)size,
		.write = write,
		.base = only_base(it),
	};

	struct constant_lookup l;
	if (emit_lookup_constant(t, it, 0, size, align, write, &l)) {
		add_miss(t, &miss, l.from);
		e_mov_ri(&t->e, T_ADDR, l.offset);
		return;
	}
	emit_address(t, it, 0);
	emit_access(t, &miss, align);
}

void emit_base_disp(struct trans *t, unsigned base, int disp)
{
	bool w = t->key & MODE_KEY_64;

	if (disp)
		e_lea(&t->e, w, T_ADDR, base, 0xff, 1, disp);
	else
		w ? e_mov_rr(&t->e, T_ADDR, base) : e_mov_rr32(&t->e, T_ADDR, base);
}

void emit_probe_stack(struct trans *t, const struct item *it, unsigned base, int disp,
		      unsigned size, bool write)
{
	struct cold miss = {
		.it = it,
		.retry = (const uint8_t *)e_here(&t->e),
		.size = (uint16_t)size,
		.write = write,
		.by_stack = true,
		.base = base,
		.disp = disp,
	};

	emit_base_disp(t, base, disp);
	emit_access(t, &miss, 0);
}
