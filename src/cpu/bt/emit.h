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

/* Up to eight bytes of an instruction, put together in a register and written at once. */
struct piece {
	uint64_t bytes;
	unsigned n;
};

static inline void add8(struct piece *i, uint8_t v)
{
	i->bytes |= (uint64_t)v << 8 * i->n++;
}

static inline void add_rex(struct piece *i, bool w, unsigned reg, unsigned index, unsigned base)
{
	unsigned rex = 0x40 | w << 3 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 |
		       (base >> 3 & 1);

	if (rex != 0x40)
		add8(i, (uint8_t)rex);
}

/* Writes eight bytes where there is room, of which those behind the first n are still to come. */
static inline void e_piece(struct emit *e, const struct piece *i)
{
	if (e->end - e->p < 8) {
		e_bytes(e, &i->bytes, i->n);
		return;
	}
	memcpy(e->p, &i->bytes, 8);
	e->p += i->n;
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
	struct piece i = {0};

	add_rex(&i, w, reg, index, base);
	e_piece(e, &i);
}

static inline bool fits32(int64_t v)
{
	return v == (int32_t)v;
}

/* [REX] OPCODE ModRM of two registers. */
static inline void e_rr(struct emit *e, bool w, uint8_t opcode, unsigned reg, unsigned rm)
{
	struct piece i = {0};

	add_rex(&i, w, reg, 0, rm);
	add8(&i, opcode);
	add8(&i, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
	e_piece(e, &i);
}

static inline void e_disp(struct emit *e, unsigned mod, int32_t disp)
{
	if (mod == 1)
		e8(e, (uint8_t)disp);
	else if (mod == 2)
		e32(e, (uint32_t)disp);
}

static inline unsigned disp_mod(unsigned base, int32_t disp)
{
	return disp == 0 && (base & 7) != 5 ? 0 : disp == (int8_t)disp ? 1 : 2;
}

/* ModRM (and SIB) for [base + disp]; the displacement is left. */
static inline void add_base(struct piece *i, unsigned reg, unsigned base, unsigned mod)
{
	add8(i, (uint8_t)(mod << 6 | (reg & 7) << 3 | (base & 7)));
	if ((base & 7) == 4)
		add8(i, 0x24);
}

/* ModRM (and SIB, displacement) for [base + disp]. */
static inline void e_modrm_base(struct emit *e, unsigned reg, unsigned base, int32_t disp)
{
	const unsigned mod = disp_mod(base, disp);
	struct piece i = {0};

	add_base(&i, reg, base, mod);
	e_piece(e, &i);
	e_disp(e, mod, disp);
}

static inline void e_mov_rr(struct emit *e, unsigned dst, unsigned src)
{
	e_rr(e, true, 0x89, src, dst);
}

static inline void e_mov_rr32(struct emit *e, unsigned dst, unsigned src)
{
	e_rr(e, false, 0x89, src, dst);
}

static inline void e_movsxd(struct emit *e, unsigned dst, unsigned src)
{
	e_rr(e, true, 0x63, dst, src);
}

static inline void e_mov_ri(struct emit *e, unsigned dst, uint64_t v)
{
	const bool small = v <= UINT32_MAX, sign = !small && fits32((int64_t)v);
	struct piece i = {0};

	add_rex(&i, !small, 0, 0, dst);
	if (sign)
		add8(&i, 0xc7);
	add8(&i, (uint8_t)((sign ? 0xc0 : 0xb8) | (dst & 7)));
	e_piece(e, &i);
	if (small || sign)
		e32(e, (uint32_t)v);
	else
		e64(e, v);
}

/* lea dst, [base + index * scale + disp]; base or index may be 0xff for none. */
static inline void e_lea(struct emit *e, bool w, unsigned dst, unsigned base, unsigned index,
			 unsigned scale, int32_t disp)
{
	const bool has_base = base != 0xff, has_index = index != 0xff;
	unsigned mod = has_base ? disp_mod(base, disp) : 2;
	struct piece i = {0};

	add_rex(&i, w, dst, has_index ? index : 0, has_base ? base : 0);
	add8(&i, 0x8d);
	if (has_base && !has_index) {
		add_base(&i, dst, base, mod);
	} else {
		add8(&i, (uint8_t)((has_base ? mod << 6 : 0) | (dst & 7) << 3 | 4));
		add8(&i, (uint8_t)((unsigned)__builtin_ctz(scale) << 6 |
				   (has_index ? index & 7 : 4) << 3 | (has_base ? base & 7 : 5)));
	}
	e_piece(e, &i);
	e_disp(e, mod, disp);
}

/* An instruction with a register and gs:[offset]: opcode as given. */
static inline void e_gs(struct emit *e, bool w, uint8_t opcode, unsigned reg, size_t offset)
{
	struct piece i = {0};

	add8(&i, 0x65);
	add_rex(&i, w, reg, 0, 0);
	add8(&i, opcode);
	add8(&i, (uint8_t)(0x04 | (reg & 7) << 3));
	add8(&i, 0x25);
	e_piece(e, &i);
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

/* mov dst, [base + disp] */
static inline void e_load_base(struct emit *e, unsigned dst, unsigned base, int32_t disp)
{
	e_rex(e, true, dst, 0, base);
	e8(e, 0x8b);
	e_modrm_base(e, dst, base, disp);
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
	struct piece i = {0};

	add8(&i, 0x65);
	add_rex(&i, w, reg, index, 0);
	add8(&i, opcode);
	add8(&i, (uint8_t)(0x04 | (reg & 7) << 3));
	add8(&i, (uint8_t)(3 << 6 | (index & 7) << 3 | 5));
	e_piece(e, &i);
	e32(e, (uint32_t)offset);
}

/* An instruction with a register and gs:[base + offset]. */
static inline void e_gs_base(struct emit *e, bool w, uint8_t opcode, unsigned reg, unsigned base,
			     size_t offset)
{
	const unsigned mod = disp_mod(base, (int32_t)offset);
	struct piece i = {0};

	add8(&i, 0x65);
	add_rex(&i, w, reg, 0, base);
	add8(&i, opcode);
	add_base(&i, reg, base, mod);
	e_piece(e, &i);
	e_disp(e, mod, (int32_t)offset);
}

/* rorx dst, src, by (BMI2) */
static inline void e_rorx(struct emit *e, bool w, unsigned dst, unsigned src, unsigned by)
{
	struct piece i = {0};

	add8(&i, 0xc4);
	add8(&i, (uint8_t)((dst < 8 ? 0x80 : 0) | 0x40 | (src < 8 ? 0x20 : 0) | 3));
	add8(&i, w ? 0xfb : 0x7b);
	add8(&i, 0xf0);
	add8(&i, (uint8_t)(0xc0 | (dst & 7) << 3 | (src & 7)));
	add8(&i, (uint8_t)by);
	e_piece(e, &i);
}

static inline void e_shr(struct emit *e, bool w, unsigned reg, unsigned by)
{
	e_rr(e, w, 0xc1, 5, reg);
	e8(e, (uint8_t)by);
}

static inline void e_push(struct emit *e, unsigned r)
{
	e_rex(e, false, 0, 0, r);
	e8(e, (uint8_t)(0x50 | (r & 7)));
}

static inline void e_push_imm(struct emit *e, int32_t v)
{
	e8(e, 0x68);
	e32(e, (uint32_t)v);
}

static inline void e_pop(struct emit *e, unsigned r)
{
	e_rex(e, false, 0, 0, r);
	e8(e, (uint8_t)(0x58 | (r & 7)));
}

/* Jumps to an address in code memory (as it runs), and to places not known yet: those return where
 * the 4-byte distance is, for e_patch. */
static inline void e_jmp(struct emit *e, const void *to)
{
	struct piece i = {0};

	add8(&i, 0xe9);
	i.bytes |= (uint64_t)(uint32_t)((uint64_t)to - (e_here(e) + 5)) << 8;
	i.n = 5;
	e_piece(e, &i);
}

static inline void e_jcc(struct emit *e, unsigned cc, const void *to)
{
	e8(e, 0x0f);
	e8(e, (uint8_t)(0x80 | cc));
	e32(e, (uint32_t)((uint64_t)to - (e_here(e) + 4)));
}

static inline uint8_t *e_jmp_later(struct emit *e)
{
	e_piece(e, &(struct piece){.bytes = 0xe9, .n = 5});
	return e->p - 4;
}

static inline uint8_t *e_call_later(struct emit *e)
{
	e_piece(e, &(struct piece){.bytes = 0xe8, .n = 5});
	return e->p - 4;
}

static inline uint8_t *e_jcc_later(struct emit *e, unsigned cc)
{
	e_piece(e, &(struct piece){.bytes = 0x0f | (0x80u | cc) << 8, .n = 6});
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
	const bool small = v == (int8_t)v;

	e_rr(e, w, small ? 0x83 : 0x81, op, reg);
	if (small)
		e8(e, (uint8_t)v);
	else
		e32(e, (uint32_t)v);
}
enum { ALU_ADD = 0, ALU_OR = 1, ALU_AND = 4, ALU_SUB = 5, ALU_XOR = 6, ALU_CMP = 7 };

#endif
