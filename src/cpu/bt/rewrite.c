/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"

/*
 * The copy of an instruction with its memory operand changed: prefixes but the segment and address
 * size ones, REX or VEX with the new base and index bits, the opcode, a new ModRM and SIB, and the
 * immediate (SDM Vol. 2, figure 2-1). R10 and R11 both need the extension bits, so REX is always
 * there; legacy instructions that name AH to BH are not rewritten (classify.c).
 */
struct operand {
	unsigned base, index; /* REG_NONE: there is no index */
	unsigned scale;
	int32_t disp;
};

static struct operand find_operand(const struct item *it, enum addressing how, int32_t disp)
{
	const struct insn *i = &it->i;

	switch (how) {
	case ADDR_SUM:
		return (struct operand){T_ADDR, T_INDEX, 1, 0};
	case ADDR_R10:
		return (struct operand){T_INDEX, REG_NONE, 1, disp};
	case ADDR_ABSOLUTE:
		return (struct operand){REG_NONE, REG_NONE, 1, disp};
	case ADDR_MOVED:
		if (i->index < GPR_NR)
			return (struct operand){T_ADDR, i->index, i->scale, (int32_t)i->disp};
		return (struct operand){i->base, T_ADDR, 1, (int32_t)i->disp};
	default:
		return (struct operand){T_ADDR, REG_NONE, 1, disp};
	}
}

static void emit_operand(struct emit *e, unsigned reg, const struct operand *o)
{
	if (o->base == REG_NONE) { /* SDM Vol. 2, table 2-3: SIB without base and index */
		e8(e, (uint8_t)(reg << 3 | 4));
		e8(e, 0x25);
		e32(e, (uint32_t)o->disp);
		return;
	}
	if (o->index == REG_NONE) {
		e_modrm_base(e, reg, o->base, o->disp);
		return;
	}
	unsigned mod = o->disp == 0 && (o->base & 7) != 5 ? 0 : o->disp == (int8_t)o->disp ? 1 : 2;
	e8(e, (uint8_t)(mod << 6 | reg << 3 | 4));
	e8(e,
	   (uint8_t)((unsigned)__builtin_ctz(o->scale) << 6 | (o->index & 7) << 3 | (o->base & 7)));
	if (mod == 1)
		e8(e, (uint8_t)o->disp);
	else if (mod == 2)
		e32(e, (uint32_t)o->disp);
}

static bool drops_prefix(uint8_t p)
{
	switch (p) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x67:
		return true;
	default:
		return p >= 0x40 && p <= 0x4f; /* REX: written anew */
	}
}

/* Always the three-byte form, which has the bits for base and index. All of R, X, B and vvvv are
 * stored inverted (SDM Vol. 2, 2.3.5). */
static void emit_vex(struct emit *e, const struct item *it, bool index, bool base)
{
	const uint8_t *v = it->i.bytes + it->at.vex;
	bool two_bytes = v[0] == 0xc5;
	uint8_t not_r = v[1] & 0x80, map = two_bytes ? 1 : v[1] & 0x1f;
	uint8_t last = two_bytes ? v[1] & 0x7f : v[2];

	e8(e, 0xc4);
	e8(e, (uint8_t)(not_r | (index ? 0 : 0x40) | (base ? 0 : 0x20) | map));
	e8(e, last);
	e8(e, it->at.opcode);
}

void emit_rewritten(struct emit *e, const struct item *it, enum addressing how, int32_t disp)
{
	const struct encoding *at = &it->at;
	const struct operand o = find_operand(it, how, disp);
	const bool base = o.base != REG_NONE && o.base > 7,
		   index = o.index != REG_NONE && o.index > 7;

	if (at->vex != NO_VEX) {
		emit_vex(e, it, index, base);
	} else {
		for (unsigned k = 0; k < at->prefixes; k++)
			if (!drops_prefix(it->i.bytes[k]))
				e8(e, it->i.bytes[k]);
		e8(e, (uint8_t)(0x40 | at->rex | index << 1 | base));
		/* Opcode bytes lie between the prefixes (and REX) and ModRM. */
		e_bytes(e, it->i.bytes + at->prefixes, at->modrm - at->prefixes);
	}
	emit_operand(e, it->i.bytes[at->modrm] >> 3 & 7, &o);
	/* What follows the operand: immediates, registers encoded as such among them. */
	e_bytes(e, it->i.bytes + at->rest, it->i.length - at->rest);
}
