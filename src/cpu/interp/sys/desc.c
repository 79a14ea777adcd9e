/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/sys/sys.h"

/*
 * Descriptor tables (SDM Vol. 3, 3.4.5 and 3.5): finding a descriptor by its selector, what it
 * says, and the two bits the processor itself sets in it. Tables are read as implicit supervisor
 * accesses, whatever the CPL.
 */
_Noreturn void raise_sel(struct soft_cpu *c, enum vector vector, uint16_t sel, unsigned ext)
{
	cpu_raise(c, vector, sel_error(sel) | ext);
}

uint64_t desc_base(const struct desc *d)
{
	return (d->raw >> 16 & 0xffffff) | (d->raw >> 32 & 0xff000000) | d->high << 32;
}

uint32_t desc_limit(const struct desc *d)
{
	uint32_t limit = (uint32_t)((d->raw & 0xffff) | (d->raw >> 32 & 0xf0000));

	return (d->attr & SEG_G) ? limit << 12 | 0xfff : limit;
}

/* The table a selector points into; limit is inclusive. */
static bool table_of(const struct soft_cpu *c, uint16_t sel, uint64_t *base, uint32_t *limit)
{
	if (!sel_is_local(sel)) {
		*base = c->s.gdt.base;
		*limit = c->s.gdt.limit;
		return true;
	}
	*base = c->s.ldtr.base;
	*limit = c->s.ldtr.limit;
	return !(c->s.ldtr.attr & SEG_UNUSABLE);
}

bool desc_find(struct soft_cpu *c, uint16_t sel, struct desc *d)
{
	uint64_t base;
	uint32_t limit;

	if (!table_of(c, sel, &base, &limit) || (sel | 7u) > limit)
		return false;
	d->sel = sel;
	d->gva = base + (sel & ~7u);
	d->high = 0;
	lin_read(c, d->gva, &d->raw, sizeof(d->raw), cpu_system_class(c));
	d->attr = d->raw >> 40 & 0xf0ff;
	return true;
}

void desc_fetch(struct soft_cpu *c, uint16_t sel, struct desc *d, enum vector vector, unsigned ext)
{
	if (!desc_find(c, sel, d))
		raise_sel(c, vector, sel, ext);
}

bool desc_find_high(struct soft_cpu *c, struct desc *d)
{
	uint64_t base;
	uint32_t limit;

	if (!table_of(c, d->sel, &base, &limit) || (d->sel & ~7u) + 15 > limit)
		return false;
	lin_read(c, d->gva + 8, &d->high, sizeof(d->high), cpu_system_class(c));
	return true;
}

struct segment desc_segment(const struct desc *d, uint16_t sel)
{
	return (struct segment){
		.sel = sel,
		.attr = d->attr | SEG_TYPE_ACCESSED,
		.limit = desc_limit(d),
		.base = desc_base(d),
	};
}

/* Byte 5 of a descriptor holds its type, S, DPL and P. */
static void write_type(struct soft_cpu *c, uint64_t gva, uint8_t byte)
{
	lin_write(c, gva + 5, &byte, 1, cpu_system_class(c));
}

void desc_set_accessed(struct soft_cpu *c, const struct desc *d)
{
	if (!(d->attr & SEG_TYPE_ACCESSED))
		write_type(c, d->gva, (uint8_t)(d->attr | SEG_TYPE_ACCESSED));
}

void desc_set_busy(struct soft_cpu *c, uint64_t gva, bool busy)
{
	uint8_t byte;

	lin_read(c, gva + 5, &byte, 1, cpu_system_class(c));
	write_type(c, gva, (uint8_t)(busy ? byte | SYS_TYPE_BUSY : byte & ~SYS_TYPE_BUSY));
}

void desc_check_code(struct soft_cpu *c, const struct desc *d, enum vector vector, unsigned ext)
{
	bool both = (d->attr & (SEG_L | SEG_DB)) == (SEG_L | SEG_DB);

	if (!attr_is_code(d->attr) || (both && cpu_in_long_mode(&c->s)))
		raise_sel(c, vector, d->sel, ext);
}

uint64_t check_target(struct soft_cpu *c, const struct segment *cs, uint64_t rip, unsigned ext)
{
	bool is_64bit = cpu_in_long_mode(&c->s) && (cs->attr & SEG_L);

	if (!is_64bit)
		rip = (uint32_t)rip;
	if (is_64bit ? !cpu_is_canonical(rip) : rip > cs->limit)
		cpu_raise(c, VEC_GP, ext);
	return rip;
}
