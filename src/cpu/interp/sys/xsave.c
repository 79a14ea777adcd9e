/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cpu/interp/access.h"
#include "cpu/interp/sys/ctl.h"
#include "cpu/state/cpuid.h"

/*
 * FXSAVE and the XSAVE family (SDM Vol. 1, ch. 10.5 and 13). The vCPU's registers are always true
 * in c->s.xsave, in the standard form with 64-bit pointers; these instructions copy between it and
 * the guest's memory, in the form asked for. Whether a component is in its initial state (XINUSE)
 * is decided by looking at its values.
 */
enum {
	HDR_XCOMP_BV = 520,
	HDR_END = 576,
	LEGACY_BYTES = 512,
	ST_END = XSAVE_XMM0, /* of the x87 registers */
	XMM_BYTES_64 = 256,  /* 16 registers */
	XMM_BYTES_32 = 128,  /* 8 registers outside 64-bit mode */
	YMM_BYTES = XSAVE_BYTES - XSAVE_YMMH0,
	MXCSR_RESET = 0x1f80,
};
#define XCOMP_COMPACT (UINT64_C(1) << 63)

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

static bool all_zero(const uint8_t *p, unsigned len)
{
	uint64_t any = 0;

	for (unsigned at = 0; at < len; at += 8)
		any |= get64(p + at);
	return !any;
}

/* Outside 64-bit mode the upper eight registers are neither saved nor restored. */
static unsigned xmm_bytes(const struct soft_cpu *c)
{
	return c->mode == MODE_64 ? XMM_BYTES_64 : XMM_BYTES_32;
}

/* The upper halves of YMM8 to YMM15 likewise. */
static unsigned ymm_bytes(const struct soft_cpu *c)
{
	return xmm_bytes(c);
}

/*
 * The first 24 bytes as FXSAVE writes them. With REX.W the pointers have 64 bits; without, 32 and
 * a selector, which has been zero on all CPUs since CPUID.7:EBX.13.
 */
static void save_x87_head(const uint8_t *x, bool wide, uint8_t *out)
{
	memcpy(out, x, 24);
	if (!wide) {
		put32(out + XSAVE_FIP + 4, 0);
		put32(out + XSAVE_FDP + 4, 0);
	}
}

/*
 * x87 values as loading them leaves them: reserved bits of the control word, the summary and busy
 * bits of the status word, padding of the registers. The host's CPU decides.
 */
static void x87_normalize(uint8_t *x)
{
	struct xsave_area mine, guest;

	memcpy(guest.bytes, x, LEGACY_BYTES);
	put32(guest.bytes + XSAVE_MXCSR, MXCSR_RESET);
	asm volatile("fxsave64 %[mine]\n\t"
		     "fxrstor64 %[guest]\n\t"
		     "fxsave64 %[guest]\n\t"
		     "fxrstor64 %[mine]"
		     : [mine] "+m"(mine), [guest] "+m"(guest));
	memcpy(x + XSAVE_FCW, guest.bytes + XSAVE_FCW, 5); /* FCW, FSW, FTW */
	x[5] = 0;
	memcpy(x + XSAVE_ST0, guest.bytes + XSAVE_ST0, ST_END - XSAVE_ST0);
}

static void load_x87(struct soft_cpu *c, const uint8_t *in, bool wide)
{
	uint8_t *x = c->s.xsave.bytes;
	const uint8_t fcw = x[XSAVE_FCW], fsw = x[XSAVE_FSW];

	memcpy(x, in, 24);
	memcpy(x + XSAVE_ST0, in + XSAVE_ST0, ST_END - XSAVE_ST0);
	x[XSAVE_FOP + 1] &= 7; /* 11 bits */
	if (!wide) {
		put32(x + XSAVE_FIP + 4, 0);
		put32(x + XSAVE_FDP + 4, 0);
	}
	x87_normalize(x);
	cpu_note_x87(c, fcw, fsw);
}

static void init_x87(struct soft_cpu *c)
{
	uint8_t *x = c->s.xsave.bytes;
	const uint8_t fcw = x[XSAVE_FCW], fsw = x[XSAVE_FSW];

	memset(x, 0, 24);
	memset(x + XSAVE_ST0, 0, ST_END - XSAVE_ST0);
	x[XSAVE_FCW] = 0x7f;
	x[XSAVE_FCW + 1] = 0x03;
	cpu_note_x87(c, fcw, fsw);
}

static bool x87_in_use(const struct soft_cpu *c)
{
	const uint8_t *x = c->s.xsave.bytes;

	/* Control and status words, then tags and opcode, then the pointers. */
	return get32(x) != 0x37f || get32(x + XSAVE_FTW) || !all_zero(x + XSAVE_FIP, 16) ||
	       !all_zero(x + XSAVE_ST0, ST_END - XSAVE_ST0);
}

static uint32_t mxcsr(const struct soft_cpu *c)
{
	return get32(c->s.xsave.bytes + XSAVE_MXCSR);
}

static void set_mxcsr(struct soft_cpu *c, uint32_t v)
{
	cpu_note_mxcsr(c, v);
	put32(c->s.xsave.bytes + XSAVE_MXCSR, v);
}

/* Components not in their initial state (SDM Vol. 1, 13.6). MXCSR counts apart. */
static uint64_t xinuse(const struct soft_cpu *c)
{
	const uint8_t *x = c->s.xsave.bytes;
	uint64_t in_use = 0;

	if (x87_in_use(c))
		in_use |= XCR0_X87;
	if (!all_zero(x + XSAVE_XMM0, XMM_BYTES_64))
		in_use |= XCR0_SSE;
	if (!all_zero(x + XSAVE_YMMH0, YMM_BYTES))
		in_use |= XCR0_AVX;
	return in_use;
}

static void need_x87(struct soft_cpu *c)
{
	if (c->s.cr0 & (CR0_TS | CR0_EM))
		cpu_raise(c, VEC_NM, 0);
}

/* ---- FXSAVE, FXRSTOR ---- */

static uint64_t aligned_ea(struct soft_cpu *c, const struct insn *i, unsigned align)
{
	uint64_t offset = ea(c, i);
	uint64_t gva = cpu_linear(c, i->seg, offset, 1, false); /* canonical, first of all */

	if (gva & (align - 1)) {
		/* FXSAVE, FXRSTOR: which of the two is the processor's choice (SDM, FXSAVE); AMD's and
		 * Intel's choose alike. */
		if (align == 16 && (gva & 3) && c->align_check)
			cpu_raise(c, VEC_AC, 0);
		cpu_gp0(c);
	}
	return offset;
}

static void fxsave(struct soft_cpu *c, const struct insn *i, bool wide)
{
	uint8_t out[LEGACY_BYTES];
	unsigned len = XSAVE_XMM0 + xmm_bytes(c);

	need_x87(c);
	uint64_t offset = aligned_ea(c, i, 16);
	memcpy(out, c->s.xsave.bytes, len);
	save_x87_head(c->s.xsave.bytes, wide, out);
	put32(out + XSAVE_MXCSR + 4, CPUID_MXCSR_MASK);
	/* What follows the registers in the 512 bytes is left alone. */
	cpu_probe(c, (enum seg_reg)i->seg, offset, LEGACY_BYTES, true);
	cpu_write(c, (enum seg_reg)i->seg, offset, out, len);
}

static void fxrstor(struct soft_cpu *c, const struct insn *i, bool wide)
{
	uint8_t in[LEGACY_BYTES];

	need_x87(c);
	uint64_t offset = aligned_ea(c, i, 16);
	cpu_read(c, (enum seg_reg)i->seg, offset, in, sizeof(in));
	if (get32(in + XSAVE_MXCSR) & ~(uint32_t)CPUID_MXCSR_MASK)
		cpu_gp0(c);
	load_x87(c, in, wide);
	set_mxcsr(c, get32(in + XSAVE_MXCSR));
	memcpy(c->s.xsave.bytes + XSAVE_XMM0, in + XSAVE_XMM0, xmm_bytes(c));
}

static void op_fxsave(struct soft_cpu *c, const struct insn *i)
{
	fxsave(c, i, false);
}

static void op_fxsave64(struct soft_cpu *c, const struct insn *i)
{
	fxsave(c, i, true);
}

static void op_fxrstor(struct soft_cpu *c, const struct insn *i)
{
	fxrstor(c, i, false);
}

static void op_fxrstor64(struct soft_cpu *c, const struct insn *i)
{
	fxrstor(c, i, true);
}

/* ---- the XSAVE family ---- */

/* The checks all share (SDM Vol. 1, 13.3); where the area is. */
static uint64_t xsave_begin(struct soft_cpu *c, const struct insn *i)
{
	if (!(c->s.cr4 & CR4_OSXSAVE))
		cpu_ud(c);
	if (c->s.cr0 & CR0_TS)
		cpu_raise(c, VEC_NM, 0);
	return aligned_ea(c, i, 64);
}

static uint64_t requested(const struct soft_cpu *c)
{
	return edx_eax(c) & c->s.xcr0;
}

/* Writes pieces of a saved area, which has been probed. */
static void put_piece(struct soft_cpu *c, const struct insn *i, uint64_t offset, unsigned at,
		      const void *data, unsigned len)
{
	cpu_write(c, (enum seg_reg)i->seg, offset + at, data, len);
}

static void put_components(struct soft_cpu *c, const struct insn *i, uint64_t offset,
			   uint64_t which, bool with_mxcsr, bool wide)
{
	const uint8_t *x = c->s.xsave.bytes;

	if (which & XCR0_X87) {
		uint8_t head[24];
		save_x87_head(x, wide, head);
		put_piece(c, i, offset, 0, head, sizeof(head));
		put_piece(c, i, offset, XSAVE_ST0, x + XSAVE_ST0, ST_END - XSAVE_ST0);
	}
	if (with_mxcsr) {
		uint32_t pair[2] = {mxcsr(c), CPUID_MXCSR_MASK};
		put_piece(c, i, offset, XSAVE_MXCSR, pair, sizeof(pair));
	}
	if (which & XCR0_SSE)
		put_piece(c, i, offset, XSAVE_XMM0, x + XSAVE_XMM0, xmm_bytes(c));
	/* The only extended component: at the same place in both forms. */
	if (which & XCR0_AVX)
		put_piece(c, i, offset, XSAVE_YMMH0, x + XSAVE_YMMH0, ymm_bytes(c));
}

/* XSAVE, and XSAVEOPT, which may leave out what is in its initial state. */
static void xsave(struct soft_cpu *c, const struct insn *i, bool wide, bool optimize)
{
	uint64_t offset = xsave_begin(c, i);
	uint64_t rfbm = requested(c), in_use = xinuse(c);
	unsigned len = (rfbm & XCR0_AVX) ? XSAVE_BYTES : HDR_END;

	cpu_probe(c, (enum seg_reg)i->seg, offset, len, true);
	uint64_t bv = cpu_read64(c, (enum seg_reg)i->seg, offset + XSAVE_BV);
	put_components(c, i, offset, optimize ? rfbm & in_use : rfbm, rfbm & (XCR0_SSE | XCR0_AVX),
		       wide);
	cpu_write64(c, (enum seg_reg)i->seg, offset + XSAVE_BV, (bv & ~rfbm) | (rfbm & in_use));
}

/* XSAVEC and XSAVES: compacted, only what is in use (SDM Vol. 1, 13.10). */
static void xsave_compact(struct soft_cpu *c, const struct insn *i, bool wide)
{
	uint64_t offset = xsave_begin(c, i);
	uint64_t rfbm = requested(c);
	uint64_t bv = xinuse(c) & rfbm;
	unsigned len = (rfbm & XCR0_AVX) ? XSAVE_BYTES : HDR_END;

	if ((rfbm & XCR0_SSE) && mxcsr(c) != MXCSR_RESET)
		bv |= XCR0_SSE;
	cpu_probe(c, (enum seg_reg)i->seg, offset, len, true);
	put_components(c, i, offset, bv, bv & XCR0_SSE, wide);
	uint64_t header[2] = {bv, rfbm | XCOMP_COMPACT};
	put_piece(c, i, offset, XSAVE_BV, header, sizeof(header));
}

static void load_components(struct soft_cpu *c, const uint8_t *in, uint64_t rfbm, uint64_t bv,
			    bool wide)
{
	uint8_t *x = c->s.xsave.bytes;

	if (rfbm & bv & XCR0_X87)
		load_x87(c, in, wide);
	else if (rfbm & XCR0_X87)
		init_x87(c);
	if (rfbm & bv & XCR0_SSE)
		memcpy(x + XSAVE_XMM0, in + XSAVE_XMM0, xmm_bytes(c));
	else if (rfbm & XCR0_SSE)
		memset(x + XSAVE_XMM0, 0, xmm_bytes(c));
	if (rfbm & bv & XCR0_AVX)
		memcpy(x + XSAVE_YMMH0, in + XSAVE_YMMH0, ymm_bytes(c));
	else if (rfbm & XCR0_AVX)
		memset(x + XSAVE_YMMH0, 0, ymm_bytes(c));
}

/* The header's rules: SDM Vol. 1, 13.8.1 (standard) and 13.8.2 (compacted). */
static bool header_good(const struct soft_cpu *c, uint64_t bv, uint64_t comp, const uint8_t *rest)
{
	if (!(comp & XCOMP_COMPACT))
		return !comp && !get64(rest) && !(bv & ~c->s.xcr0);
	if (((comp & ~XCOMP_COMPACT) & ~c->s.xcr0) || (bv & ~comp))
		return false;
	return all_zero(rest, HDR_END - HDR_XCOMP_BV - 8);
}

/* How many bytes XRSTOR reads. */
static unsigned area_bytes(uint64_t rfbm, uint64_t bv)
{
	return (rfbm & bv & XCR0_AVX) ? XSAVE_BYTES : HDR_END;
}

static void xrstor(struct soft_cpu *c, const struct insn *i, bool wide, bool compact_only)
{
	uint64_t offset = xsave_begin(c, i);
	uint64_t rfbm = requested(c);
	uint8_t in[XSAVE_BYTES];

	cpu_read(c, (enum seg_reg)i->seg, offset, in, HDR_END);
	uint64_t bv = get64(in + XSAVE_BV), comp = get64(in + HDR_XCOMP_BV);
	bool compact = comp & XCOMP_COMPACT;
	if (!header_good(c, bv, comp, in + HDR_XCOMP_BV + 8) || (compact_only && !compact))
		cpu_gp0(c);
	/* The standard form loads MXCSR whenever SSE or AVX is asked for; the compacted one treats
	 * it as part of SSE. */
	bool load = compact ? rfbm & bv & XCR0_SSE : rfbm & (XCR0_SSE | XCR0_AVX);
	uint32_t new_mxcsr = get32(in + XSAVE_MXCSR);
	if (load && (new_mxcsr & ~(uint32_t)CPUID_MXCSR_MASK))
		cpu_gp0(c);
	unsigned len = area_bytes(rfbm, bv);
	if (len > HDR_END)
		cpu_read(c, (enum seg_reg)i->seg, offset + HDR_END, in + HDR_END, len - HDR_END);

	load_components(c, in, rfbm, bv, wide);
	if (load)
		set_mxcsr(c, new_mxcsr);
	else if (compact && (rfbm & XCR0_SSE))
		set_mxcsr(c, MXCSR_RESET);
}

#define DEFINE_PAIR(NAME, CALL)                                                                    \
	static void op_##NAME(struct soft_cpu *c, const struct insn *i)                            \
	{                                                                                          \
		const bool wide = false;                                                           \
		CALL;                                                                              \
	}                                                                                          \
	static void op_##NAME##64(struct soft_cpu * c, const struct insn *i)                       \
	{                                                                                          \
		const bool wide = true;                                                            \
		CALL;                                                                              \
	}
DEFINE_PAIR(xsave, xsave(c, i, wide, false))
DEFINE_PAIR(xsaveopt, xsave(c, i, wide, true))
DEFINE_PAIR(xsavec, xsave_compact(c, i, wide))
/* IA32_XSS is always 0, so XSAVES is XSAVEC and XRSTORS an XRSTOR, for the kernel. */
DEFINE_PAIR(xsaves, (need_cpl0(c), xsave_compact(c, i, wide)))
DEFINE_PAIR(xrstor, xrstor(c, i, wide, false))
DEFINE_PAIR(xrstors, (need_cpl0(c), xrstor(c, i, wide, true)))

static void op_xgetbv(struct soft_cpu *c, const struct insn *i)
{
	uint32_t n = (uint32_t)c->s.gpr[RCX];

	(void)i;
	if (!(c->s.cr4 & CR4_OSXSAVE))
		cpu_ud(c);
	if (n > 1)
		cpu_gp0(c);
	set_edx_eax(c, n ? c->s.xcr0 & xinuse(c) : c->s.xcr0);
}

static void op_xsetbv(struct soft_cpu *c, const struct insn *i)
{
	uint64_t v = edx_eax(c);

	(void)i;
	if (!(c->s.cr4 & CR4_OSXSAVE))
		cpu_ud(c);
	need_cpl0(c);
	if ((uint32_t)c->s.gpr[RCX] || !(v & XCR0_X87) || (v & ~c->cpuid->xcr0) ||
	    ((v & XCR0_AVX) && !(v & XCR0_SSE)))
		cpu_gp0(c);
	c->s.xcr0 = v;
	cpu_update_mode(c);
}

op_fn *xsave_select(const struct decoded *d, struct insn *i)
{
	static const struct {
		ZydisMnemonic mnemonic;
		op_fn *fn;
	} table[] = {
		{ZYDIS_MNEMONIC_FXSAVE, op_fxsave},	{ZYDIS_MNEMONIC_FXSAVE64, op_fxsave64},
		{ZYDIS_MNEMONIC_FXRSTOR, op_fxrstor},	{ZYDIS_MNEMONIC_FXRSTOR64, op_fxrstor64},
		{ZYDIS_MNEMONIC_XSAVE, op_xsave},	{ZYDIS_MNEMONIC_XSAVE64, op_xsave64},
		{ZYDIS_MNEMONIC_XSAVEOPT, op_xsaveopt}, {ZYDIS_MNEMONIC_XSAVEOPT64, op_xsaveopt64},
		{ZYDIS_MNEMONIC_XSAVEC, op_xsavec},	{ZYDIS_MNEMONIC_XSAVEC64, op_xsavec64},
		{ZYDIS_MNEMONIC_XSAVES, op_xsaves},	{ZYDIS_MNEMONIC_XSAVES64, op_xsaves64},
		{ZYDIS_MNEMONIC_XRSTOR, op_xrstor},	{ZYDIS_MNEMONIC_XRSTOR64, op_xrstor64},
		{ZYDIS_MNEMONIC_XRSTORS, op_xrstors},	{ZYDIS_MNEMONIC_XRSTORS64, op_xrstors64},
		{ZYDIS_MNEMONIC_XGETBV, op_xgetbv},	{ZYDIS_MNEMONIC_XSETBV, op_xsetbv},
	};

	if (d->z.mnemonic == ZYDIS_MNEMONIC_XSETBV)
		i->flags |= INSN_END;
	for (unsigned n = 0; n < sizeof(table) / sizeof(table[0]); n++)
		if (table[n].mnemonic == d->z.mnemonic)
			return table[n].fn;
	return NULL;
}
