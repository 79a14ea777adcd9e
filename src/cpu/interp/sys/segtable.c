/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/sys/sys.h"

/*
 * Instructions about descriptors and their tables: LAR, LSL, VERR, VERW, ARPL; LLDT, LTR, LGDT,
 * LIDT and what stores them; the bases of FS and GS. Source: SDM Vol. 2, each by its name.
 */
static void set_zf(struct soft_cpu *c, bool value)
{
	c->s.rflags = value ? c->s.rflags | FLAG_ZF : c->s.rflags & ~FLAG_ZF;
}

static void need_protected(struct soft_cpu *c)
{
	if (!in_protected_mode(c))
		cpu_ud(c);
}

static void need_cpl0(struct soft_cpu *c)
{
	if (c->cpl != 0)
		cpu_gp0(c);
}

static void need_umip(struct soft_cpu *c)
{
	if ((c->s.cr4 & CR4_UMIP) && c->cpl != 0)
		cpu_gp0(c);
}

/* ---- looking at descriptors ---- */

/* System types that LAR and LSL see (SDM tables 3-53 and 3-59), by bit. */
enum {
	LSL_LONG = 1 << SYS_LDT | 1 << SYS_TSS32 | 1 << SYS_TSS32_BUSY,
	LSL_LEGACY = LSL_LONG | 1 << SYS_TSS16 | 1 << SYS_TSS16_BUSY,
	LAR_LONG = LSL_LONG | 1 << SYS_CALL_GATE32,
	LAR_LEGACY = LSL_LEGACY | 1 << SYS_CALL_GATE32 | 1 << SYS_CALL_GATE16 | 1 << SYS_TASK_GATE,
};

/* A descriptor as seen from the current level; false: ZF is to be clear. */
static bool look_up(struct soft_cpu *c, uint16_t sel, unsigned system_types, struct desc *d)
{
	if (sel_is_null(sel) || !desc_find(c, sel, d))
		return false;
	if (!(d->attr & SEG_S) && !(system_types >> desc_system_type(d) & 1))
		return false;
	return attr_is_conforming(d->attr) ||
	       (c->cpl <= desc_dpl(d) && sel_rpl(sel) <= desc_dpl(d));
}

/* Bits 19:16 of LAR's result are undefined; processors leave the limit's there. */
static void op_lar(struct soft_cpu *c, const struct insn *i)
{
	struct desc d;

	need_protected(c);
	bool ok = look_up(c, read_selector(c, i, 1),
			  cpu_in_long_mode(&c->s) ? LAR_LONG : LAR_LEGACY, &d);
	if (ok)
		set_reg(c, i->reg[0], i->width, d.raw >> 32 & 0xffff00);
	set_zf(c, ok);
}

static void op_lsl(struct soft_cpu *c, const struct insn *i)
{
	struct desc d;

	need_protected(c);
	bool ok = look_up(c, read_selector(c, i, 1),
			  cpu_in_long_mode(&c->s) ? LSL_LONG : LSL_LEGACY, &d);
	if (ok)
		set_reg(c, i->reg[0], i->width, desc_limit(&d));
	set_zf(c, ok);
}

static void op_verr(struct soft_cpu *c, const struct insn *i)
{
	struct desc d;

	need_protected(c);
	set_zf(c, look_up(c, read_selector(c, i, 0), 0, &d) &&
			  (attr_is_data(d.attr) || (d.attr & SEG_TYPE_WR)));
}

static void op_verw(struct soft_cpu *c, const struct insn *i)
{
	struct desc d;

	need_protected(c);
	set_zf(c, look_up(c, read_selector(c, i, 0), 0, &d) && attr_is_writable_data(d.attr));
}

static void op_arpl(struct soft_cpu *c, const struct insn *i)
{
	need_protected(c);
	uint16_t sel = read_selector(c, i, 0);
	unsigned rpl = sel_rpl((uint16_t)c->s.gpr[i->reg[1]]);
	bool raised = sel_rpl(sel) < rpl;
	if (raised) {
		sel = sel_error(sel) | rpl;
		if (i->reg[0] != REG_NONE)
			set_reg(c, i->reg[0], 2, sel);
		else
			cpu_write16(c, i->seg, cpu_ea(c, i), sel);
	}
	set_zf(c, raised);
}

/* ---- LDTR and TR ---- */

/* The descriptor of an LDT or TSS; 16 bytes in IA-32e mode, whose type bits must be 0 in the
 * second half (SDM figure 8-4). */
static void fetch_system(struct soft_cpu *c, uint16_t sel, unsigned types, struct desc *d)
{
	if (sel_is_local(sel))
		raise_sel(c, VEC_GP, sel, 0);
	desc_fetch(c, sel, d, VEC_GP, 0);
	if ((d->attr & SEG_S) || !(types >> desc_system_type(d) & 1))
		raise_sel(c, VEC_GP, sel, 0);
	if (cpu_in_long_mode(&c->s)) {
		if (!desc_find_high(c, d) || (d->high >> 40 & 0x1f) ||
		    !cpu_is_canonical(desc_base(d)))
			raise_sel(c, VEC_GP, sel, 0);
	}
	if (!(d->attr & SEG_P))
		raise_sel(c, VEC_NP, sel, 0);
}

static struct segment system_segment(const struct desc *d, uint16_t sel)
{
	return (struct segment){
		.sel = sel, .attr = d->attr, .limit = desc_limit(d), .base = desc_base(d)};
}

static void op_lldt(struct soft_cpu *c, const struct insn *i)
{
	struct desc d;

	need_protected(c);
	need_cpl0(c);
	uint16_t sel = read_selector(c, i, 0);
	if (sel_is_null(sel)) {
		c->s.ldtr = seg_null(sel);
		return;
	}
	fetch_system(c, sel, 1 << SYS_LDT, &d);
	c->s.ldtr = system_segment(&d, sel);
}

static void op_ltr(struct soft_cpu *c, const struct insn *i)
{
	struct desc d;

	need_protected(c);
	need_cpl0(c);
	uint16_t sel = read_selector(c, i, 0);
	if (sel_is_null(sel))
		cpu_gp0(c);
	unsigned types = 1 << SYS_TSS32;
	if (!cpu_in_long_mode(&c->s))
		types |= 1 << SYS_TSS16;
	fetch_system(c, sel, types, &d);
	desc_set_busy(c, d.gva, true);
	d.attr |= SYS_TYPE_BUSY;
	c->s.tr = system_segment(&d, sel);
}

static void store_selector(struct soft_cpu *c, const struct insn *i, uint16_t sel)
{
	need_protected(c);
	need_umip(c);
	if (i->reg[0] != REG_NONE)
		set_reg(c, i->reg[0], i->size[0], sel);
	else
		cpu_write16(c, i->seg, cpu_ea(c, i), sel);
}

static void op_sldt(struct soft_cpu *c, const struct insn *i)
{
	store_selector(c, i, c->s.ldtr.sel);
}

static void op_str(struct soft_cpu *c, const struct insn *i)
{
	store_selector(c, i, c->s.tr.sel);
}

/* ---- GDTR and IDTR ---- */

/* In legacy modes all 32 bits of the base are stored whatever the operand size, as the processors
 * do it since the 386. */
static void store_table(struct soft_cpu *c, const struct insn *i, const struct table_reg *t)
{
	uint8_t buf[10];

	need_umip(c);
	memcpy(buf, &t->limit, 2);
	memcpy(buf + 2, &t->base, 8);
	cpu_write(c, i->seg, cpu_ea(c, i), buf, c->mode == MODE_64 ? 10 : 6);
}

/* A 16-bit operand size loads 24 bits of base. */
static void load_table(struct soft_cpu *c, const struct insn *i, struct table_reg *t)
{
	uint8_t buf[10] = {0};
	struct table_reg new;

	need_cpl0(c);
	cpu_read(c, i->seg, cpu_ea(c, i), buf, c->mode == MODE_64 ? 10 : 6);
	memcpy(&new.limit, buf, 2);
	memcpy(&new.base, buf + 2, 8);
	if (c->mode != MODE_64 && i->width == 2)
		new.base &= 0xffffff;
	if (!cpu_is_canonical(new.base))
		cpu_gp0(c);
	*t = new;
}

static void op_sgdt(struct soft_cpu *c, const struct insn *i)
{
	store_table(c, i, &c->s.gdt);
}

static void op_sidt(struct soft_cpu *c, const struct insn *i)
{
	store_table(c, i, &c->s.idt);
}

static void op_lgdt(struct soft_cpu *c, const struct insn *i)
{
	load_table(c, i, &c->s.gdt);
}

static void op_lidt(struct soft_cpu *c, const struct insn *i)
{
	load_table(c, i, &c->s.idt);
}

/* ---- bases of FS and GS ---- */

static void need_fsgsbase(struct soft_cpu *c)
{
	if (c->mode != MODE_64 || !(c->s.cr4 & CR4_FSGSBASE))
		cpu_ud(c);
}

static void write_base(struct soft_cpu *c, const struct insn *i, enum seg_reg seg)
{
	need_fsgsbase(c);
	uint64_t base = get_reg(c, i->reg[0], i->size[0]);
	if (!cpu_is_canonical(base))
		cpu_gp0(c);
	c->s.seg[seg].base = base;
	cpu_update_mode(c);
}

static void op_rdfsbase(struct soft_cpu *c, const struct insn *i)
{
	need_fsgsbase(c);
	set_reg(c, i->reg[0], i->size[0], c->s.seg[SEG_FS].base);
}

static void op_rdgsbase(struct soft_cpu *c, const struct insn *i)
{
	need_fsgsbase(c);
	set_reg(c, i->reg[0], i->size[0], c->s.seg[SEG_GS].base);
}

static void op_wrfsbase(struct soft_cpu *c, const struct insn *i)
{
	write_base(c, i, SEG_FS);
}

static void op_wrgsbase(struct soft_cpu *c, const struct insn *i)
{
	write_base(c, i, SEG_GS);
}

static void op_swapgs(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	if (c->mode != MODE_64)
		cpu_ud(c);
	need_cpl0(c);
	uint64_t base = c->s.seg[SEG_GS].base;
	c->s.seg[SEG_GS].base = c->s.kernel_gs_base;
	c->s.kernel_gs_base = base;
	cpu_update_mode(c);
}

op_fn *segtable_select(const struct decoded *d, struct insn *i)
{
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_LAR:
		return op_lar;
	case ZYDIS_MNEMONIC_LSL:
		return op_lsl;
	case ZYDIS_MNEMONIC_VERR:
		return op_verr;
	case ZYDIS_MNEMONIC_VERW:
		return op_verw;
	case ZYDIS_MNEMONIC_ARPL:
		return op_arpl;
	case ZYDIS_MNEMONIC_LLDT:
		return ends_block(i, op_lldt);
	case ZYDIS_MNEMONIC_LTR:
		return ends_block(i, op_ltr);
	case ZYDIS_MNEMONIC_SLDT:
		return op_sldt;
	case ZYDIS_MNEMONIC_STR:
		return op_str;
	case ZYDIS_MNEMONIC_SGDT:
		return op_sgdt;
	case ZYDIS_MNEMONIC_SIDT:
		return op_sidt;
	case ZYDIS_MNEMONIC_LGDT:
		return ends_block(i, op_lgdt);
	case ZYDIS_MNEMONIC_LIDT:
		return ends_block(i, op_lidt);
	case ZYDIS_MNEMONIC_SWAPGS:
		return ends_block(i, op_swapgs);
	case ZYDIS_MNEMONIC_RDFSBASE:
		return op_rdfsbase;
	case ZYDIS_MNEMONIC_RDGSBASE:
		return op_rdgsbase;
	case ZYDIS_MNEMONIC_WRFSBASE:
		return ends_block(i, op_wrfsbase);
	case ZYDIS_MNEMONIC_WRGSBASE:
		return ends_block(i, op_wrgsbase);
	default:
		return NULL;
	}
}
