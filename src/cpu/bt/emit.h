/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_BT_EMIT_H
#define HANOK_CPU_BT_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * A small assembler: writes x86-64 instructions at e->p (through the writable view of code memory;
 * e->run is what to add to get the address the code runs at). Registers are numbers 0 to 15. %gs
 * operands are absolute offsets in struct soft_cpu. Encodings: SDM Vol. 2, 2.1 and 2.2.
 *
 * When space runs out, full is set and nothing more is written; the caller looks once at the end.
 */
struct emit {
	uint8_t *p, *end;
	ptrdiff_t run;
	bool full;
};

enum cc { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP };

static inline void e_bytes(struct emit *e, const void *bytes, size_t n)
{
	if ((size_t)(e->end - e->p) < n) {
		e->full = true;
		return;
	}
	memcpy(e->p, bytes, n);
	e->p += n;
}

static inline void e8(struct emit *e, uint8_t v)
{
	e_bytes(e, &v, 1);
}

static inline void e32(struct emit *e, uint32_t v)
{
	e_bytes(e, &v, 4);
}

static inline void e64(struct emit *e, uint64_t v)
{
	e_bytes(e, &v, 8);
}

static inline uint64_t e_here(const struct emit *e)
{
	return (uint64_t)(e->p + e->run);
}

static inline void e_rex(struct emit *e, bool w, unsigned reg, unsigned index, unsigned base)
{
	uint8_t rex = (uint8_t)(0x40 | w << 3 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 |
				(base >> 3 & 1));
	if (rex != 0x40)
		e8(e, rex);
}

static inline bool fits32(int64_t v)
{
	return v == (int32_t)v;
}

/* ModRM (and SIB, displacement) for [base + disp]. */
static inline void e_modrm_base(struct emit *e, unsigned reg, unsigned base, int32_t disp)
{
	unsigned mod = disp == 0 && (base & 7) != 5 ? 0 : disp == (int8_t)disp ? 1 : 2;

	e8(e, (uint8_t)(mod << 6 | (reg & 7) << 3 | (base & 7)));
	if ((base & 7) == 4)
		e8(e, 0x24);
	if (mod == 1)
		e8(e, (uint8_t)disp);
	else if (mod == 2)
		e32(e, (uint32_t)disp);
}

static inline void e_mov_rr(struct emit *e, unsigned dst, unsigned src)
{
	e_rex(e, true, src, 0, dst);
	e8(e, 0x89);
	e8(e, (uint8_t)(0xc0 | (src & 7) << 3 | (dst & 7)));
}

static inline void e_mov_rr32(struct emit *e, unsigned dst, unsigned src)
{
	e_rex(e, false, src, 0, dst);
	e8(e, 0x89);
	e8(e, (uint8_t)(0xc0 | (src & 7) << 3 | (dst & 7)));
}

static inline void e_movsxd(struct emit *e, unsigned dst, unsigned src)
{
	e_rex(e, true, dst, 0, src);
	e8(e, 0x63);
	e8(e, (uint8_t)(0xc0 | (dst & 7) << 3 | (src & 7)));
}

static inline void e_mov_ri(struct emit *e, unsigned dst, uint64_t v)
{
	if (v <= UINT32_MAX) {
		e_rex(e, false, 0, 0, dst);
		e8(e, (uint8_t)(0xb8 | (dst & 7)));
		e32(e, (uint32_t)v);
	} else if (fits32((int64_t)v)) {
		e_rex(e, true, 0, 0, dst);
		e8(e, 0xc7);
		e8(e, (uint8_t)(0xc0 | (dst & 7)));
		e32(e, (uint32_t)v);
	} else {
		e_rex(e, true, 0, 0, dst);
		e8(e, (uint8_t)(0xb8 | (dst & 7)));
		e64(e, v);
	}
}

/* lea dst, [base + index * scale + disp]; base or index may be 0xff for none. */
static inline void e_lea(struct emit *e, bool w, unsigned dst, unsigned base, unsigned index,
			 unsigned scale, int32_t disp)
{
	bool has_base = base != 0xff, has_index = index != 0xff;

	e_rex(e, w, dst, has_index ? index : 0, has_base ? base : 0);
	e8(e, 0x8d);
	if (has_base && !has_index) {
		e_modrm_base(e, dst, base, disp);
		return;
	}
	unsigned ss = (unsigned)__builtin_ctz(scale), idx = has_index ? index & 7 : 4;
	if (!has_base) {
		e8(e, (uint8_t)(0x04 | (dst & 7) << 3));
		e8(e, (uint8_t)(ss << 6 | idx << 3 | 5));
		e32(e, (uint32_t)disp);
		return;
	}
	unsigned mod = disp == 0 && (base & 7) != 5 ? 0 : disp == (int8_t)disp ? 1 : 2;
	e8(e, (uint8_t)(mod << 6 | (dst & 7) << 3 | 4));
	e8(e, (uint8_t)(ss << 6 | idx << 3 | (base & 7)));
	if (mod == 1)
		e8(e, (uint8_t)disp);
	else if (mod == 2)
		e32(e, (uint32_t)disp);
}

/* An instruction with a register and gs:[offset]: opcode as given. */
static inline void e_gs(struct emit *e, bool w, uint8_t opcode, unsigned reg, size_t offset)
{
	e8(e, 0x65);
	e_rex(e, w, reg, 0, 0);
	e8(e, opcode);
	e8(e, (uint8_t)(0x04 | (reg & 7) << 3));
	e8(e, 0x25);
	e32(e, (uint32_t)offset);
}

static inline void e_load(struct emit *e, unsigned dst, size_t offset)
{
	e_gs(e, true, 0x8b, dst, offset);
}

static inline void e_store(struct emit *e, size_t offset, unsigned src)
{
	e_gs(e, true, 0x89, src, offset);
}

static inline void e_load32(struct emit *e, unsigned dst, size_t offset)
{
	e_gs(e, false, 0x8b, dst, offset);
}

static inline void e_store32(struct emit *e, size_t offset, unsigned src)
{
	e_gs(e, false, 0x89, src, offset);
}

/* mov dword gs:[offset], imm */
static inline void e_store_imm32(struct emit *e, size_t offset, uint32_t v)
{
	e_gs(e, false, 0xc7, 0, offset);
	e32(e, v);
}

/* cmp dword gs:[offset], imm */
static inline void e_cmp_gs32(struct emit *e, size_t offset, uint32_t v)
{
	if (v < 0x80) {
		e_gs(e, false, 0x83, 7, offset);
		e8(e, (uint8_t)v);
	} else {
		e_gs(e, false, 0x81, 7, offset);
		e32(e, v);
	}
}

/* An instruction with a register and gs:[index * 8 + offset]. */
static inline void e_gs_index(struct emit *e, bool w, uint8_t opcode, unsigned reg, unsigned index,
			      size_t offset)
{
	e8(e, 0x65);
	e_rex(e, w, reg, index, 0);
	e8(e, opcode);
	e8(e, (uint8_t)(0x04 | (reg & 7) << 3));
	e8(e, (uint8_t)(3 << 6 | (index & 7) << 3 | 5));
	e32(e, (uint32_t)offset);
}

/* An instruction with a register and gs:[base + offset]. */
static inline void e_gs_base(struct emit *e, bool w, uint8_t opcode, unsigned reg, unsigned base,
			     size_t offset)
{
	e8(e, 0x65);
	e_rex(e, w, reg, 0, base);
	e8(e, opcode);
	e_modrm_base(e, reg, base, (int32_t)offset);
}

/* rorx dst, src, by (32 bits; BMI2) */
static inline void e_rorx32(struct emit *e, unsigned dst, unsigned src, unsigned by)
{
	e8(e, 0xc4);
	e8(e, (uint8_t)((dst < 8 ? 0x80 : 0) | 0x40 | (src < 8 ? 0x20 : 0) | 3));
	e8(e, 0x7b);
	e8(e, 0xf0);
	e8(e, (uint8_t)(0xc0 | (dst & 7) << 3 | (src & 7)));
	e8(e, (uint8_t)by);
}

/* Jumps to an address in code memory (as it runs), and to places not known yet: those return where
 * the 4-byte distance is, for e_patch. */
static inline void e_jmp(struct emit *e, const void *to)
{
	e8(e, 0xe9);
	e32(e, (uint32_t)((uint64_t)to - (e_here(e) + 4)));
}

static inline void e_jcc(struct emit *e, unsigned cc, const void *to)
{
	e8(e, 0x0f);
	e8(e, (uint8_t)(0x80 | cc));
	e32(e, (uint32_t)((uint64_t)to - (e_here(e) + 4)));
}

static inline uint8_t *e_jmp_later(struct emit *e)
{
	e8(e, 0xe9);
	e32(e, 0);
	return e->p - 4;
}

static inline uint8_t *e_jcc_later(struct emit *e, unsigned cc)
{
	e8(e, 0x0f);
	e8(e, (uint8_t)(0x80 | cc));
	e32(e, 0);
	return e->p - 4;
}

/* Makes the jump whose distance is at `at` go to e->p. */
static inline void e_patch(struct emit *e, uint8_t *at)
{
	uint32_t rel = (uint32_t)(e->p - (at + 4));

	if (!e->full)
		memcpy(at, &rel, 4);
}

/* jmp gs:[index * 8 + offset] */
static inline void e_jmp_gs_index(struct emit *e, unsigned index, size_t offset)
{
	e_gs_index(e, false, 0xff, 4, index, offset);
}

static inline void e_jmp_gs(struct emit *e, size_t offset)
{
	e_gs(e, false, 0xff, 4, offset);
}

/* and/cmp/... r32, imm (opcode extension op) */
static inline void e_alu_ri(struct emit *e, bool w, unsigned op, unsigned reg, int32_t v)
{
	e_rex(e, w, 0, 0, reg);
	e8(e, v == (int8_t)v ? 0x83 : 0x81);
	e8(e, (uint8_t)(0xc0 | op << 3 | (reg & 7)));
	if (v == (int8_t)v)
		e8(e, (uint8_t)v);
	else
		e32(e, (uint32_t)v);
}
enum { ALU_ADD = 0, ALU_OR = 1, ALU_AND = 4, ALU_SUB = 5, ALU_XOR = 6, ALU_CMP = 7 };

#endif
