/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cpu/hostexec/form.h"
#include "cpu/interp/access.h"

/* The commonest moves and bit operations on XMM and YMM registers, in C on the register file. */

static inline void need_sse(struct soft_cpu *c)
{
	if (unlikely((c->s.cr0 & (CR0_EM | CR0_TS)) || !(c->s.cr4 & CR4_OSFXSR)))
		form_check(c, CHECK_SSE);
}

static void load_slow(struct soft_cpu *c, const struct insn *i, uint64_t offset, void *to,
		      unsigned len)
{
	check_ac(c, i, offset, len, false);
	cpu_read(c, i->seg, offset, to, len);
}

static void store_slow(struct soft_cpu *c, const struct insn *i, uint64_t offset, const void *from,
		       unsigned len)
{
	check_ac(c, i, offset, len, true);
	cpu_write(c, i->seg, offset, from, len);
}

static inline void load(struct soft_cpu *c, const struct insn *i, uint64_t offset, void *to,
			unsigned len)
{
	const void *p = data_hit(c, i->seg, offset, len, false);

	if (likely(p != NULL))
		memcpy(to, p, len);
	else
		load_slow(c, i, offset, to, len);
}

static inline void store(struct soft_cpu *c, const struct insn *i, uint64_t offset,
			 const void *from, unsigned len)
{
	void *p = data_hit(c, i->seg, offset, len, true);

	if (likely(p != NULL))
		memcpy(p, from, len);
	else
		store_slow(c, i, offset, from, len);
}

/* Alignment comes before the segment's and the page's checks. */
static inline void need_aligned(struct soft_cpu *c, const struct insn *i, uint64_t offset,
				unsigned len)
{
	if (unlikely(flat_linear(c, i->seg, offset) & (len - 1)))
		cpu_gp0(c);
}

/* ---- 128 bits ---- */

static void copy128(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	memmove(guest_xmm(c, i->reg[0]), guest_xmm(c, i->reg[1]), 16);
}

static void load128(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	load(c, i, ea(c, i), guest_xmm(c, i->reg[0]), 16);
}

static void load128_aligned(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	uint64_t at = ea(c, i);
	need_aligned(c, i, at, 16);
	load(c, i, at, guest_xmm(c, i->reg[0]), 16);
}

static void store128(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	store(c, i, ea(c, i), guest_xmm(c, i->reg[1]), 16);
}

static void store128_aligned(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	uint64_t at = ea(c, i);
	need_aligned(c, i, at, 16);
	store(c, i, at, guest_xmm(c, i->reg[1]), 16);
}

static op_fn *select128(const struct insn *i, bool aligned)
{
	if (!(i->flags & INSN_MEM))
		return copy128;
	if (i->flags & INSN_DST_MEM)
		return aligned ? store128_aligned : store128;
	return aligned ? load128_aligned : load128;
}

/* ---- VEX: 128 or 256 bits, zero above ---- */

static inline void need_avx(struct soft_cpu *c)
{
	if (unlikely(c->mode != MODE_64 || (c->s.cr0 & CR0_TS) || !(c->s.cr4 & CR4_OSXSAVE) ||
		     (c->s.xcr0 & (XCR0_SSE | XCR0_AVX)) != (XCR0_SSE | XCR0_AVX)))
		form_check(c, CHECK_AVX);
}

static inline void set_high(struct soft_cpu *c, unsigned n, const void *high, unsigned len)
{
	if (len == 32)
		memmove(guest_ymmh(c, n), high, 16);
	else
		memset(guest_ymmh(c, n), 0, 16);
}

static void vcopy(struct soft_cpu *c, const struct insn *i)
{
	need_avx(c);
	memmove(guest_xmm(c, i->reg[0]), guest_xmm(c, i->reg[1]), 16);
	set_high(c, i->reg[0], guest_ymmh(c, i->reg[1]), i->size[0]);
}

static inline void vload_at(struct soft_cpu *c, const struct insn *i, uint64_t at)
{
	uint8_t v[32];

	if (i->size[0] == 32)
		load(c, i, at, v, 32);
	else
		load(c, i, at, v, 16);
	memcpy(guest_xmm(c, i->reg[0]), v, 16);
	set_high(c, i->reg[0], v + 16, i->size[0]);
}

static void vload(struct soft_cpu *c, const struct insn *i)
{
	need_avx(c);
	vload_at(c, i, ea(c, i));
}

static void vload_aligned(struct soft_cpu *c, const struct insn *i)
{
	need_avx(c);
	uint64_t at = ea(c, i);
	need_aligned(c, i, at, i->size[0]);
	vload_at(c, i, at);
}

static inline void vstore_at(struct soft_cpu *c, const struct insn *i, uint64_t at)
{
	uint8_t v[32];

	memcpy(v, guest_xmm(c, i->reg[1]), 16);
	if (i->size[0] == 32) {
		memcpy(v + 16, guest_ymmh(c, i->reg[1]), 16);
		store(c, i, at, v, 32);
	} else {
		store(c, i, at, v, 16);
	}
}

static void vstore(struct soft_cpu *c, const struct insn *i)
{
	need_avx(c);
	vstore_at(c, i, ea(c, i));
}

static void vstore_aligned(struct soft_cpu *c, const struct insn *i)
{
	need_avx(c);
	uint64_t at = ea(c, i);
	need_aligned(c, i, at, i->size[0]);
	vstore_at(c, i, at);
}

static op_fn *vselect(const struct insn *i, bool aligned)
{
	if (!(i->flags & INSN_MEM))
		return vcopy;
	if (i->flags & INSN_DST_MEM)
		return aligned ? vstore_aligned : vstore;
	return aligned ? vload_aligned : vload;
}

/* ---- 32 and 64 bits ---- */

/* The low size bytes; a load clears the rest of 128 bits. */
static void load_low(struct soft_cpu *c, const struct insn *i, unsigned size)
{
	need_sse(c);
	uint64_t v = size == 4 ? rd32(c, i->seg, ea(c, i)) : rd64(c, i->seg, ea(c, i));
	guest_xmm(c, i->reg[0])[0] = v;
	guest_xmm(c, i->reg[0])[1] = 0;
}

static void load_low4(struct soft_cpu *c, const struct insn *i)
{
	load_low(c, i, 4);
}

static void load_low8(struct soft_cpu *c, const struct insn *i)
{
	load_low(c, i, 8);
}

static void store_low4(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	wr32(c, i->seg, ea(c, i), (uint32_t)guest_xmm(c, i->reg[1])[0]);
}

static void store_low8(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	wr64(c, i->seg, ea(c, i), guest_xmm(c, i->reg[1])[0]);
}

static void merge_low4(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	memmove(guest_xmm(c, i->reg[0]), guest_xmm(c, i->reg[1]), 4);
}

static void merge_low8(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	guest_xmm(c, i->reg[0])[0] = guest_xmm(c, i->reg[1])[0];
}

/* MOVQ xmm, xmm. */
static void copy_low8(struct soft_cpu *c, const struct insn *i)
{
	merge_low8(c, i);
	guest_xmm(c, i->reg[0])[1] = 0;
}

/* MOVD and MOVQ between XMM and general registers. */
static void from_gpr(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	guest_xmm(c, i->reg[0])[0] = get_reg(c, i->reg[1], i->size[1]);
	guest_xmm(c, i->reg[0])[1] = 0;
}

static void to_gpr(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	set_reg(c, i->reg[0], i->size[0], guest_xmm(c, i->reg[1])[0]);
}

static void load_high8(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	guest_xmm(c, i->reg[0])[1] = rd64(c, i->seg, ea(c, i));
}

static void load_into_low8(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	guest_xmm(c, i->reg[0])[0] = rd64(c, i->seg, ea(c, i));
}

static void store_high8(struct soft_cpu *c, const struct insn *i)
{
	need_sse(c);
	wr64(c, i->seg, ea(c, i), guest_xmm(c, i->reg[1])[1]);
}

static op_fn *select_scalar(const struct insn *i, unsigned size)
{
	if (!(i->flags & INSN_MEM))
		return size == 4 ? merge_low4 : merge_low8;
	if (i->flags & INSN_DST_MEM)
		return size == 4 ? store_low4 : store_low8;
	return size == 4 ? load_low4 : load_low8;
}

static ZydisRegisterClass class_of(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(op->reg.value)
						       : ZYDIS_REGCLASS_INVALID;
}

/* MOVD, MOVQ of XMM registers; those of MMX registers are x87.c's. */
static op_fn *select_movd(const struct decoded *d, const struct insn *i)
{
	ZydisRegisterClass to = class_of(&d->op[0]), from = class_of(&d->op[1]);

	if (to == ZYDIS_REGCLASS_MMX || from == ZYDIS_REGCLASS_MMX)
		return NULL;
	if (to == ZYDIS_REGCLASS_XMM) {
		if (from == ZYDIS_REGCLASS_XMM)
			return copy_low8;
		if (i->flags & INSN_MEM)
			return i->size[1] == 4 ? load_low4 : load_low8;
		return from_gpr;
	}
	if (i->flags & INSN_DST_MEM)
		return i->size[0] == 4 ? store_low4 : store_low8;
	return to_gpr;
}

/* ---- bit operations ---- */

static inline const uint64_t *source128(struct soft_cpu *c, const struct insn *i, uint64_t buf[2])
{
	need_sse(c);
	if (!(i->flags & INSN_MEM))
		return guest_xmm(c, i->reg[1]);
	uint64_t at = ea(c, i);
	need_aligned(c, i, at, 16);
	load(c, i, at, buf, 16);
	return buf;
}

#define DEFINE_LOGIC(name, expr)                                                                   \
	static void name(struct soft_cpu *c, const struct insn *i)                                 \
	{                                                                                          \
		uint64_t buf[2];                                                                   \
		const uint64_t *src = source128(c, i, buf);                                        \
		uint64_t *dst = guest_xmm(c, i->reg[0]);                                           \
		for (unsigned k = 0; k < 2; k++) {                                                 \
			uint64_t a = dst[k], b = src[k];                                           \
			dst[k] = (expr);                                                           \
		}                                                                                  \
	}
DEFINE_LOGIC(xor128, a ^ b)
DEFINE_LOGIC(and128, a &b)
DEFINE_LOGIC(or128, a | b)
DEFINE_LOGIC(andn128, ~a &b)

static op_fn *select_logic(const struct decoded *d)
{
	if (class_of(&d->op[0]) != ZYDIS_REGCLASS_XMM)
		return NULL;
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_PXOR:
	case ZYDIS_MNEMONIC_XORPS:
	case ZYDIS_MNEMONIC_XORPD:
		return xor128;
	case ZYDIS_MNEMONIC_PAND:
	case ZYDIS_MNEMONIC_ANDPS:
	case ZYDIS_MNEMONIC_ANDPD:
		return and128;
	case ZYDIS_MNEMONIC_POR:
	case ZYDIS_MNEMONIC_ORPS:
	case ZYDIS_MNEMONIC_ORPD:
		return or128;
	case ZYDIS_MNEMONIC_PANDN:
	case ZYDIS_MNEMONIC_ANDNPS:
	case ZYDIS_MNEMONIC_ANDNPD:
		return andn128;
	default:
		return NULL;
	}
}

/* ---- selection ---- */

static op_fn *select_half(const struct insn *i, bool high)
{
	if (!(i->flags & INSN_MEM))
		return NULL;
	if (i->flags & INSN_DST_MEM)
		return high ? store_high8 : store_low8;
	return high ? load_high8 : load_into_low8;
}

op_fn *select_move(const struct decoded *d, const struct insn *i)
{
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
		return select128(i, false);
	case ZYDIS_MNEMONIC_MOVAPS:
	case ZYDIS_MNEMONIC_MOVAPD:
	case ZYDIS_MNEMONIC_MOVDQA:
	case ZYDIS_MNEMONIC_MOVNTPS:
	case ZYDIS_MNEMONIC_MOVNTPD:
	case ZYDIS_MNEMONIC_MOVNTDQ:
	case ZYDIS_MNEMONIC_MOVNTDQA:
		return select128(i, true);
	case ZYDIS_MNEMONIC_VMOVUPS:
	case ZYDIS_MNEMONIC_VMOVUPD:
	case ZYDIS_MNEMONIC_VMOVDQU:
	case ZYDIS_MNEMONIC_VLDDQU:
		return vselect(i, false);
	case ZYDIS_MNEMONIC_VMOVAPS:
	case ZYDIS_MNEMONIC_VMOVAPD:
	case ZYDIS_MNEMONIC_VMOVDQA:
	case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD:
	case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA:
		return vselect(i, true);
	case ZYDIS_MNEMONIC_MOVSS:
		return select_scalar(i, 4);
	case ZYDIS_MNEMONIC_MOVSD:
		return d->z.meta.isa_set == ZYDIS_ISA_SET_SSE2 ? select_scalar(i, 8) : NULL;
	case ZYDIS_MNEMONIC_MOVD:
	case ZYDIS_MNEMONIC_MOVQ:
		return select_movd(d, i);
	case ZYDIS_MNEMONIC_MOVLPS:
	case ZYDIS_MNEMONIC_MOVLPD:
		return select_half(i, false);
	case ZYDIS_MNEMONIC_MOVHPS:
	case ZYDIS_MNEMONIC_MOVHPD:
		return select_half(i, true);
	default:
		return select_logic(d);
	}
}
