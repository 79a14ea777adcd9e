/* SPDX-License-Identifier: Apache-2.0 */
#include "control/gdb/regs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * One table in gdb's order. What gdb knows by name has to carry that name in that feature (GDB
 * manual, G.5.9 "i386 Features"); the system registers are a feature of our own, with the names
 * that people know from other stubs ($cr3, $efer, $k_gs_base).
 */
enum kind {
	GPR,
	RIP,
	EFLAGS,
	SEL,
	ST,
	FCTRL,
	FSTAT,
	FTAG,
	FISEG,
	FIOFF,
	FOSEG,
	FOOFF,
	FOP,
	XMM,
	MXCSR,
	YMMH,
	SEG_BASE,
	K_GS_BASE,
	CR,
	CR8,
	EFER,
};

enum where { BOTH, ONLY_64, ONLY_32 };

struct reg {
	const char *name;
	uint8_t kind;
	uint8_t index;
	uint8_t where;
	const char *feature; /* where one begins */
};

#define CORE "org.gnu.gdb.i386.core"
#define SSE "org.gnu.gdb.i386.sse"
#define AVX "org.gnu.gdb.i386.avx"
#define SEGMENTS "org.gnu.gdb.i386.segments"
#define SYSTEM "org.hanok.system"

static const struct reg table[] = {
	{"rax", GPR, RAX, ONLY_64, CORE},
	{"rbx", GPR, RBX, ONLY_64},
	{"rcx", GPR, RCX, ONLY_64},
	{"rdx", GPR, RDX, ONLY_64},
	{"rsi", GPR, RSI, ONLY_64},
	{"rdi", GPR, RDI, ONLY_64},
	{"rbp", GPR, RBP, ONLY_64},
	{"rsp", GPR, RSP, ONLY_64},
	{"r8", GPR, R8, ONLY_64},
	{"r9", GPR, R9, ONLY_64},
	{"r10", GPR, R10, ONLY_64},
	{"r11", GPR, R11, ONLY_64},
	{"r12", GPR, R12, ONLY_64},
	{"r13", GPR, R13, ONLY_64},
	{"r14", GPR, R14, ONLY_64},
	{"r15", GPR, R15, ONLY_64},
	{"rip", RIP, 0, ONLY_64},
	{"eax", GPR, RAX, ONLY_32, CORE},
	{"ecx", GPR, RCX, ONLY_32},
	{"edx", GPR, RDX, ONLY_32},
	{"ebx", GPR, RBX, ONLY_32},
	{"esp", GPR, RSP, ONLY_32},
	{"ebp", GPR, RBP, ONLY_32},
	{"esi", GPR, RSI, ONLY_32},
	{"edi", GPR, RDI, ONLY_32},
	{"eip", RIP, 0, ONLY_32},
	{"eflags", EFLAGS, 0, BOTH},
	{"cs", SEL, SEG_CS, BOTH},
	{"ss", SEL, SEG_SS, BOTH},
	{"ds", SEL, SEG_DS, BOTH},
	{"es", SEL, SEG_ES, BOTH},
	{"fs", SEL, SEG_FS, BOTH},
	{"gs", SEL, SEG_GS, BOTH},
	{"st0", ST, 0, BOTH},
	{"st1", ST, 1, BOTH},
	{"st2", ST, 2, BOTH},
	{"st3", ST, 3, BOTH},
	{"st4", ST, 4, BOTH},
	{"st5", ST, 5, BOTH},
	{"st6", ST, 6, BOTH},
	{"st7", ST, 7, BOTH},
	{"fctrl", FCTRL, 0, BOTH},
	{"fstat", FSTAT, 0, BOTH},
	{"ftag", FTAG, 0, BOTH},
	{"fiseg", FISEG, 0, BOTH},
	{"fioff", FIOFF, 0, BOTH},
	{"foseg", FOSEG, 0, BOTH},
	{"fooff", FOOFF, 0, BOTH},
	{"fop", FOP, 0, BOTH},
	{"xmm0", XMM, 0, BOTH, SSE},
	{"xmm1", XMM, 1, BOTH},
	{"xmm2", XMM, 2, BOTH},
	{"xmm3", XMM, 3, BOTH},
	{"xmm4", XMM, 4, BOTH},
	{"xmm5", XMM, 5, BOTH},
	{"xmm6", XMM, 6, BOTH},
	{"xmm7", XMM, 7, BOTH},
	{"xmm8", XMM, 8, ONLY_64},
	{"xmm9", XMM, 9, ONLY_64},
	{"xmm10", XMM, 10, ONLY_64},
	{"xmm11", XMM, 11, ONLY_64},
	{"xmm12", XMM, 12, ONLY_64},
	{"xmm13", XMM, 13, ONLY_64},
	{"xmm14", XMM, 14, ONLY_64},
	{"xmm15", XMM, 15, ONLY_64},
	{"mxcsr", MXCSR, 0, BOTH},
	{"ymm0h", YMMH, 0, BOTH, AVX},
	{"ymm1h", YMMH, 1, BOTH},
	{"ymm2h", YMMH, 2, BOTH},
	{"ymm3h", YMMH, 3, BOTH},
	{"ymm4h", YMMH, 4, BOTH},
	{"ymm5h", YMMH, 5, BOTH},
	{"ymm6h", YMMH, 6, BOTH},
	{"ymm7h", YMMH, 7, BOTH},
	{"ymm8h", YMMH, 8, ONLY_64},
	{"ymm9h", YMMH, 9, ONLY_64},
	{"ymm10h", YMMH, 10, ONLY_64},
	{"ymm11h", YMMH, 11, ONLY_64},
	{"ymm12h", YMMH, 12, ONLY_64},
	{"ymm13h", YMMH, 13, ONLY_64},
	{"ymm14h", YMMH, 14, ONLY_64},
	{"ymm15h", YMMH, 15, ONLY_64},
	{"fs_base", SEG_BASE, SEG_FS, ONLY_64, SEGMENTS},
	{"gs_base", SEG_BASE, SEG_GS, ONLY_64},
	{"k_gs_base", K_GS_BASE, 0, ONLY_64, SYSTEM},
	{"cr0", CR, 0, ONLY_64},
	{"cr0", CR, 0, ONLY_32, SYSTEM},
	{"cr2", CR, 2, BOTH},
	{"cr3", CR, 3, BOTH},
	{"cr4", CR, 4, BOTH},
	{"cr8", CR8, 0, BOTH},
	{"efer", EFER, 0, BOTH},
};
enum { TABLE_NR = sizeof(table) / sizeof(table[0]) };

static bool present(enum gdb_arch arch, const struct reg *r)
{
	return r->where == BOTH || (r->where == ONLY_64) == (arch == GDB_X86_64);
}

unsigned gdb_regs_count(enum gdb_arch arch)
{
	unsigned count = 0;

	for (unsigned n = 0; n < TABLE_NR; n++)
		count += present(arch, &table[n]);
	return count;
}

static const struct reg *find(enum gdb_arch arch, unsigned n)
{
	for (unsigned k = 0; k < TABLE_NR; k++)
		if (present(arch, &table[k]) && n-- == 0)
			return &table[k];
	return NULL;
}

static unsigned kind_bytes(enum gdb_arch arch, uint8_t kind)
{
	switch (kind) {
	case GPR:
	case RIP:
	case SEG_BASE:
	case K_GS_BASE:
	case CR:
	case CR8:
	case EFER:
		return arch == GDB_X86_64 ? 8 : 4;
	case ST:
		return 10;
	case XMM:
	case YMMH:
		return 16;
	default:
		return 4;
	}
}

unsigned gdb_reg_bytes(enum gdb_arch arch, unsigned n)
{
	const struct reg *r = find(arch, n);

	return r ? kind_bytes(arch, r->kind) : 0;
}

/* ---- x87 tags: two bits a register in gdb, one in the saved area (SDM Vol. 1, 10.5.1) ---- */

enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

static unsigned tag_of(const uint8_t *st)
{
	uint64_t mantissa;
	uint16_t exponent;

	memcpy(&mantissa, st, sizeof(mantissa));
	memcpy(&exponent, st + 8, sizeof(exponent));
	exponent &= 0x7fff;
	if (!exponent && !mantissa)
		return TAG_ZERO;
	return exponent == 0x7fff || !(mantissa >> 63) ? TAG_SPECIAL : TAG_VALID;
}

static uint32_t full_tags(const uint8_t *x)
{
	unsigned top = x[XSAVE_FSW + 1] >> 3 & 7;
	uint32_t tags = 0;

	for (unsigned n = 0; n < 8; n++) {
		const uint8_t *st = x + XSAVE_ST0 + 16 * ((n - top) & 7);
		unsigned tag = x[XSAVE_FTW] >> n & 1 ? tag_of(st) : TAG_EMPTY;
		tags |= tag << (2 * n);
	}
	return tags;
}

static uint8_t short_tags(uint32_t tags)
{
	uint8_t t = 0;

	for (unsigned n = 0; n < 8; n++)
		if ((tags >> (2 * n) & 3) != TAG_EMPTY)
			t |= (uint8_t)(1 << n);
	return t;
}

/* ---- values ---- */

/* Where a register of plain bytes lies in the saved area, or -1. */
static int xsave_offset(const struct reg *r)
{
	switch (r->kind) {
	case ST:
		return XSAVE_ST0 + 16 * r->index;
	case XMM:
		return XSAVE_XMM0 + 16 * r->index;
	case YMMH:
		return XSAVE_YMMH0 + 16 * r->index;
	case MXCSR:
		return XSAVE_MXCSR;
	case FIOFF:
		return XSAVE_FIP;
	case FOOFF:
		return XSAVE_FDP;
	default:
		return -1;
	}
}

static uint64_t *cr_place(struct cpu_state *s, unsigned n)
{
	switch (n) {
	case 0:
		return &s->cr0;
	case 2:
		return &s->cr2;
	case 3:
		return &s->cr3;
	default:
		return &s->cr4;
	}
}

/* Registers that are one 64-bit member of cpu_state, or NULL. */
static uint64_t *place(struct cpu_state *s, const struct reg *r)
{
	switch (r->kind) {
	case GPR:
		return &s->gpr[r->index];
	case RIP:
		return &s->rip;
	case EFLAGS:
		return &s->rflags;
	case SEG_BASE:
		return &s->seg[r->index].base;
	case K_GS_BASE:
		return &s->kernel_gs_base;
	case CR:
		return cr_place(s, r->index);
	case EFER:
		return &s->efer;
	default:
		return NULL;
	}
}

static uint64_t small_value(const struct gdb_cpu *c, const struct reg *r)
{
	const uint8_t *x = c->s.xsave.bytes;

	switch (r->kind) {
	case SEL:
		return c->s.seg[r->index].sel;
	case FCTRL:
		return x[XSAVE_FCW] | x[XSAVE_FCW + 1] << 8;
	case FSTAT:
		return x[XSAVE_FSW] | x[XSAVE_FSW + 1] << 8;
	case FTAG:
		return full_tags(x);
	case FOP:
		return x[XSAVE_FOP] | x[XSAVE_FOP + 1] << 8;
	case CR8:
		return c->cr8;
	default:
		return 0; /* FISEG, FOSEG: not kept by CPUs any more */
	}
}

unsigned gdb_reg_read(enum gdb_arch arch, unsigned n, const struct gdb_cpu *c,
		      uint8_t value[GDB_REG_BYTES_MAX])
{
	const struct reg *r = find(arch, n);

	if (!r)
		return 0;
	unsigned bytes = kind_bytes(arch, r->kind);
	int at = xsave_offset(r);
	const uint64_t *p = place((struct cpu_state *)&c->s, r);
	if (at >= 0) {
		memcpy(value, c->s.xsave.bytes + at, bytes);
	} else {
		uint64_t v = p ? *p : small_value(c, r);
		memcpy(value, &v, bytes);
	}
	return bytes;
}

static bool write_small(struct gdb_cpu *c, const struct reg *r, uint16_t v)
{
	uint8_t *x = c->s.xsave.bytes;

	switch (r->kind) {
	case SEL:
		c->s.seg[r->index].sel = v;
		return true;
	case FCTRL:
		memcpy(x + XSAVE_FCW, &v, 2);
		return true;
	case FSTAT:
		memcpy(x + XSAVE_FSW, &v, 2);
		return true;
	case FTAG:
		x[XSAVE_FTW] = short_tags(v);
		return true;
	case FOP:
		memcpy(x + XSAVE_FOP, &v, 2);
		return true;
	case FISEG:
	case FOSEG:
		return true; /* gdb writes them back with the others */
	default:
		return false;
	}
}

bool gdb_reg_write(enum gdb_arch arch, unsigned n, struct gdb_cpu *c, const uint8_t *value)
{
	const struct reg *r = find(arch, n);
	uint64_t v = 0;

	if (!r)
		return false;
	unsigned bytes = kind_bytes(arch, r->kind);
	int at = xsave_offset(r);
	uint64_t *p = place(&c->s, r);
	if (at >= 0) {
		memcpy(c->s.xsave.bytes + at, value, bytes);
		if (r->kind == MXCSR) /* reserved bits must never reach the host's LDMXCSR */
			c->s.xsave.bytes[at + 2] = c->s.xsave.bytes[at + 3] = 0;
		return true;
	}
	memcpy(&v, value, bytes > 8 ? 8 : bytes);
	if (!p)
		return write_small(c, r, (uint16_t)v);
	if (r->kind == EFLAGS)
		v = (v & UINT64_C(0x3f7fd5)) | FLAG_R1;
	if (r->kind == EFER)
		v &= EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	*p = v;
	return true;
}

/* ---- the target description ---- */

static const char *type_of(enum gdb_arch arch, const struct reg *r)
{
	bool wide = arch == GDB_X86_64;

	switch (r->kind) {
	case RIP:
		return "code_ptr";
	case GPR:
		if (r->index == RSP || r->index == RBP)
			return "data_ptr";
		return wide ? "int64" : "int32";
	case EFLAGS:
		return "i386_eflags";
	case ST:
		return "i387_ext";
	case XMM:
		return "vec128";
	case YMMH:
		return "uint128";
	case MXCSR:
		return "i386_mxcsr";
	case SEG_BASE:
	case K_GS_BASE:
	case CR:
	case CR8:
	case EFER:
		return wide ? "int64" : "int32";
	default:
		return "int32";
	}
}

static const char *group_of(const struct reg *r)
{
	switch (r->kind) {
	case FCTRL:
	case FSTAT:
	case FTAG:
	case FISEG:
	case FIOFF:
	case FOSEG:
	case FOOFF:
	case FOP:
		return " group=\"float\"";
	case MXCSR:
		return " group=\"vector\"";
	case CR:
	case CR8:
	case EFER:
	case K_GS_BASE:
		return " group=\"system\"";
	default:
		return "";
	}
}

static const char core_types[] =
	"<flags id=\"i386_eflags\" size=\"4\">"
	"<field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" end=\"1\"/>"
	"<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/>"
	"<field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/>"
	"<field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"IF\" start=\"9\" end=\"9\"/>"
	"<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/>"
	"<field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" start=\"16\" end=\"16\"/>"
	"<field name=\"VM\" start=\"17\" end=\"17\"/><field name=\"AC\" start=\"18\" end=\"18\"/>"
	"<field name=\"VIF\" start=\"19\" end=\"19\"/><field name=\"VIP\" start=\"20\" end=\"20\"/>"
	"<field name=\"ID\" start=\"21\" end=\"21\"/></flags>\n";

static const char sse_types[] =
	"<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
	"<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
	"<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
	"<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
	"<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
	"<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
	"<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
	"<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>"
	"<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
	"<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>"
	"<flags id=\"i386_mxcsr\" size=\"4\">"
	"<field name=\"IE\" start=\"0\" end=\"0\"/><field name=\"DE\" start=\"1\" end=\"1\"/>"
	"<field name=\"ZE\" start=\"2\" end=\"2\"/><field name=\"OE\" start=\"3\" end=\"3\"/>"
	"<field name=\"UE\" start=\"4\" end=\"4\"/><field name=\"PE\" start=\"5\" end=\"5\"/>"
	"<field name=\"DAZ\" start=\"6\" end=\"6\"/><field name=\"IM\" start=\"7\" end=\"7\"/>"
	"<field name=\"DM\" start=\"8\" end=\"8\"/><field name=\"ZM\" start=\"9\" end=\"9\"/>"
	"<field name=\"OM\" start=\"10\" end=\"10\"/><field name=\"UM\" start=\"11\" end=\"11\"/>"
	"<field name=\"PM\" start=\"12\" end=\"12\"/><field name=\"FZ\" start=\"15\" end=\"15\"/>"
	"</flags>\n";

static const char *types_of_feature(const char *feature)
{
	if (!strcmp(feature, CORE))
		return core_types;
	return strcmp(feature, SSE) ? "" : sse_types;
}

char *gdb_target_xml(enum gdb_arch arch)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);
	bool inside = false;

	if (!f)
		return NULL;
	fprintf(f,
		"<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
		"<target>\n<architecture>%s</architecture>\n",
		arch == GDB_X86_64 ? "i386:x86-64" : "i386");
	for (unsigned n = 0; n < TABLE_NR; n++) {
		const struct reg *r = &table[n];
		if (!present(arch, r))
			continue;
		if (r->feature) {
			fprintf(f, "%s<feature name=\"%s\">\n%s", inside ? "</feature>\n" : "",
				r->feature, types_of_feature(r->feature));
			inside = true;
		}
		fprintf(f, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"%s/>\n", r->name,
			kind_bytes(arch, r->kind) * 8, type_of(arch, r), group_of(r));
	}
	fprintf(f, "</feature>\n</target>\n");
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
