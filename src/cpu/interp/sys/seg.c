/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/sys/sys.h"

/*
 * Segment registers: what loading one checks and leaves (SDM Vol. 2 MOV, POP, LDS; Vol. 3 ch. 5).
 *
 * Vendors differ in what a null selector leaves of FS's and GS's base: Intel and AMD from Zen 2 on
 * (CPUID 8000_0021 EAX bit 6, NullSelectorClearsBase) clear it, and so does this engine for both.
 * A return to an outer level that nulls a data segment leaves the base as it was, on both.
 */
enum { REAL_ATTR = SEG_P | SEG_S | SEG_TYPE_WR | SEG_TYPE_ACCESSED };

struct segment seg_null(uint16_t sel)
{
	return (struct segment){.sel = sel, .attr = SEG_UNUSABLE};
}

struct segment seg_null_stack(uint16_t sel, unsigned cpl)
{
	return (struct segment){.sel = sel, .attr = SEG_UNUSABLE | cpl << SEG_DPL_SHIFT};
}

/* Real mode changes the base; the limit and the D bit are those loaded last in protected mode
 * (SDM 9.9.2 and 20.1.1). */
struct segment seg_real(const struct segment *old, uint16_t sel)
{
	struct segment s = {.sel = sel, .attr = REAL_ATTR, .limit = 0xffff};

	if (!(old->attr & SEG_UNUSABLE)) {
		s.attr |= old->attr & (SEG_DB | SEG_G | SEG_AVL);
		s.limit = old->limit;
	}
	s.base = (uint32_t)sel << 4;
	return s;
}

struct segment seg_v86(uint16_t sel)
{
	return (struct segment){.sel = sel,
				.attr = REAL_ATTR | SEG_DPL,
				.limit = 0xffff,
				.base = (uint32_t)sel << 4};
}

/* Readable, and not too privileged for whoever asks. */
static bool data_is_allowed(const struct desc *d, unsigned cpl, unsigned rpl)
{
	if (attr_is_code(d->attr) ? !(d->attr & SEG_TYPE_WR) : !attr_is_data(d->attr))
		return false;
	return attr_is_conforming(d->attr) || (rpl <= desc_dpl(d) && cpl <= desc_dpl(d));
}

void seg_check_data(struct soft_cpu *c, uint16_t sel, unsigned cpl, enum vector vector,
		    unsigned ext, struct desc *d)
{
	desc_fetch(c, sel, d, vector, ext);
	if (!data_is_allowed(d, cpl, sel_rpl(sel)))
		raise_sel(c, vector, sel, ext);
	if (!(d->attr & SEG_P))
		raise_sel(c, VEC_NP, sel, ext);
}

void seg_check_stack(struct soft_cpu *c, uint16_t sel, unsigned cpl, enum vector vector,
		     unsigned ext, struct desc *d)
{
	if (sel_is_null(sel))
		cpu_raise(c, vector, ext);
	desc_fetch(c, sel, d, vector, ext);
	if (sel_rpl(sel) != cpl || desc_dpl(d) != cpl || !attr_is_writable_data(d->attr))
		raise_sel(c, vector, sel, ext);
	if (!(d->attr & SEG_P))
		raise_sel(c, VEC_SS, sel, ext);
}

static void load_stack(struct soft_cpu *c, uint16_t sel)
{
	struct desc d;

	if (sel_is_null(sel) && c->mode == MODE_64 && c->cpl < 3 && sel_rpl(sel) == c->cpl) {
		c->s.seg[SEG_SS] = seg_null_stack(sel, c->cpl);
		return;
	}
	seg_check_stack(c, sel, c->cpl, VEC_GP, 0, &d);
	desc_set_accessed(c, &d);
	c->s.seg[SEG_SS] = desc_segment(&d, sel);
}

static void load_data(struct soft_cpu *c, enum seg_reg seg, uint16_t sel)
{
	struct desc d;

	if (sel_is_null(sel)) {
		c->s.seg[seg] = seg_null(sel);
		return;
	}
	seg_check_data(c, sel, c->cpl, VEC_GP, 0, &d);
	desc_set_accessed(c, &d);
	c->s.seg[seg] = desc_segment(&d, sel);
}

void seg_load(struct soft_cpu *c, enum seg_reg seg, uint16_t sel)
{
	if (in_v86_mode(c))
		c->s.seg[seg] = seg_v86(sel);
	else if (!in_protected_mode(c))
		c->s.seg[seg] = seg_real(&c->s.seg[seg], sel);
	else if (seg == SEG_SS)
		load_stack(c, sel);
	else
		load_data(c, seg, sel);
	cpu_update_mode(c);
}

/* SDM Vol. 2, RET: a segment the outer level could not have loaded becomes null; so do null ones
 * whose RPL is not 0. */
void seg_drop_inner(struct soft_cpu *c, unsigned cpl)
{
	static const uint8_t data_segs[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};

	for (unsigned k = 0; k < sizeof(data_segs); k++) {
		struct segment *s = &c->s.seg[data_segs[k]];
		if (s->attr & SEG_UNUSABLE) {
			s->sel = 0;
		} else if (attr_dpl(s->attr) < cpl && !attr_is_conforming(s->attr)) {
			s->sel = 0;
			s->attr = SEG_UNUSABLE;
		}
	}
}

/* ---- MOV, PUSH, POP ---- */

/* To memory always 16 bits, to a register the operand size, zero-extended. */
static void op_mov_from_seg(struct soft_cpu *c, const struct insn *i)
{
	uint16_t sel = c->s.seg[i->reg[1]].sel;

	if (i->reg[0] != REG_NONE)
		set_reg(c, i->reg[0], i->size[0], sel);
	else
		cpu_write16(c, i->seg, cpu_ea(c, i), sel);
}

static void op_mov_to_seg(struct soft_cpu *c, const struct insn *i)
{
	seg_load(c, i->reg[0], read_selector(c, i, 1));
	if (i->reg[0] == SEG_SS)
		c->s.shadow = SHADOW_MOV_SS;
}

/* With a 32-bit operand size Intel's processors write 16 bits and leave the upper half of the slot
 * (SDM Vol. 2, PUSH); AMD's write it as zero. */
static void op_push_seg(struct soft_cpu *c, const struct insn *i)
{
	uint16_t sel = c->s.seg[i->reg[0]].sel;
	uint64_t mask = cpu_stack_mask(c);
	uint64_t sp = c->s.gpr[RSP] - 4;

	if (i->width != 4 || c->vendor_amd) {
		cpu_push(c, sel, i->width);
		return;
	}
	cpu_write16(c, SEG_SS, sp & mask, sel);
	c->s.gpr[RSP] = mask == UINT16_MAX ? (c->s.gpr[RSP] & ~mask) | (sp & mask) : sp & mask;
}

static void op_pop_seg(struct soft_cpu *c, const struct insn *i)
{
	uint64_t mask = cpu_stack_mask(c);
	uint64_t old = c->s.gpr[RSP];
	uint64_t sp = (old + i->width) & mask;

	seg_load(c, i->reg[0], (uint16_t)stack_peek(c, 0, i->width));
	c->s.gpr[RSP] = mask == UINT16_MAX ? (old & ~mask) | sp : sp;
	if (i->reg[0] == SEG_SS)
		c->s.shadow = SHADOW_MOV_SS;
}

/* ---- LDS, LES, LFS, LGS, LSS ---- */

static void load_far_pointer(struct soft_cpu *c, const struct insn *i, enum seg_reg seg)
{
	/* AMD's have no 64-bit offsets in far pointers (APM Vol. 3, LFS). */
	unsigned size = i->width == 8 && c->vendor_amd ? 4 : i->width;
	uint8_t buf[10] = {0};
	uint64_t offset = 0;
	uint16_t sel;

	cpu_read(c, i->seg, cpu_ea(c, i), buf, size + 2);
	memcpy(&offset, buf, size);
	memcpy(&sel, buf + size, 2);
	seg_load(c, seg, sel);
	set_reg(c, i->reg[0], size, offset);
}

static void op_les(struct soft_cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, SEG_ES);
}

static void op_lss(struct soft_cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, SEG_SS);
}

static void op_lds(struct soft_cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, SEG_DS);
}

static void op_lfs(struct soft_cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, SEG_FS);
}

static void op_lgs(struct soft_cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, SEG_GS);
}

static bool is_seg(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

op_fn *seg_select(const struct decoded *d, struct insn *i)
{
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		if (is_seg(&d->op[0]))
			return ends_block(i, op_mov_to_seg);
		return is_seg(&d->op[1]) ? op_mov_from_seg : NULL;
	case ZYDIS_MNEMONIC_PUSH:
		return is_seg(&d->op[0]) ? op_push_seg : NULL;
	case ZYDIS_MNEMONIC_POP:
		return is_seg(&d->op[0]) ? ends_block(i, op_pop_seg) : NULL;
	case ZYDIS_MNEMONIC_LES:
		return ends_block(i, op_les);
	case ZYDIS_MNEMONIC_LSS:
		return ends_block(i, op_lss);
	case ZYDIS_MNEMONIC_LDS:
		return ends_block(i, op_lds);
	case ZYDIS_MNEMONIC_LFS:
		return ends_block(i, op_lfs);
	case ZYDIS_MNEMONIC_LGS:
		return ends_block(i, op_lgs);
	default:
		return NULL;
	}
}
