/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cpu/state/cpu_state.h"
#include "truth.h"

/*
 * What may differ: this table and the few functions after it. Flags that the manuals leave undefined
 * and that the engine does not compute with the very instruction; all other undefined ones agree.
 */
static const struct undefined {
	uint16_t mnemonic;
	uint64_t flags;
} undefined[] = {
	/* No host instruction to ask in 64-bit mode. */
	{ZYDIS_MNEMONIC_AAA, FLAG_OF | FLAG_SF | FLAG_ZF | FLAG_PF},
	{ZYDIS_MNEMONIC_AAS, FLAG_OF | FLAG_SF | FLAG_ZF | FLAG_PF},
	{ZYDIS_MNEMONIC_DAA, FLAG_OF},
	{ZYDIS_MNEMONIC_DAS, FLAG_OF},
	{ZYDIS_MNEMONIC_AAM, FLAG_OF | FLAG_AF | FLAG_CF},
	{ZYDIS_MNEMONIC_AAD, FLAG_OF | FLAG_AF | FLAG_CF},
};

static uint64_t undefined_flags(uint16_t mnemonic)
{
	for (unsigned k = 0; k < sizeof(undefined) / sizeof(undefined[0]); k++)
		if (undefined[k].mnemonic == mnemonic)
			return undefined[k].flags;
	return 0;
}

/*
 * MXCSR when an unmasked SIMD exception is raised. The dot products raise it at one of several
 * steps, and the manuals do not say which flags of the others are set. And with underflow or overflow
 * unmasked, hardware tells inexactness by the precision of the number, the engine by that of the
 * subnormal or of infinity.
 */
static uint32_t mxcsr_mask(const struct tcase *t, const struct result *native)
{
	uint32_t mxcsr;

	if (native->vector != 19)
		return ~0u;
	switch (form_at(t->form)->mnemonic) {
	case ZYDIS_MNEMONIC_DPPS:
	case ZYDIS_MNEMONIC_DPPD:
	case ZYDIS_MNEMONIC_VDPPS:
	case ZYDIS_MNEMONIC_VDPPD:
		return ~0x3fu;
	default:
		memcpy(&mxcsr, native->fx + 24, 4);
		return mxcsr & ~(mxcsr >> 7) & 0x18 ? ~0x20u : ~0u;
	}
}

/* The instruction that faulted, in a sequence not the first one. */
struct fault {
	uint16_t mnemonic; /* 0: none did */
	uint8_t opcode;
};

static struct fault faulting(const struct tcase *t, const struct result *r)
{
	ZydisDecodedInstruction z;
	uint64_t at = r->rip - CODE_BASE - t->code_offset;

	if (r->vector == 1 || r->vector == 3 || at >= t->length ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(forms_decoder(t->mode32), NULL,
							t->code + at, t->length - at, &z)))
		return (struct fault){0};
	return (struct fault){z.mnemonic, z.opcode};
}

static bool has_error(uint32_t v)
{
	return (v >= 10 && v <= 14) || v == 17;
}

/*
 * CR2 of an access that crosses into a page which faults: the x87 environment goes in pieces, and the
 * address is that of some byte of one of them.
 */
static bool piecewise(uint16_t m)
{
	return m == ZYDIS_MNEMONIC_FNSTENV || m == ZYDIS_MNEMONIC_FNSAVE ||
	       m == ZYDIS_MNEMONIC_FLDENV || m == ZYDIS_MNEMONIC_FRSTOR;
}

/* AMD's begin at the end, so that of two pages which both fault the other one may be told. */
static bool backward(uint16_t m)
{
	return m == ZYDIS_MNEMONIC_FXSAVE || m == ZYDIS_MNEMONIC_FXSAVE64 ||
	       m == ZYDIS_MNEMONIC_FXRSTOR || m == ZYDIS_MNEMONIC_FXRSTOR64;
}

static bool is_cmps(uint16_t m)
{
	return m == ZYDIS_MNEMONIC_CMPSB || m == ZYDIS_MNEMONIC_CMPSW ||
	       m == ZYDIS_MNEMONIC_CMPSD || m == ZYDIS_MNEMONIC_CMPSQ;
}

/*
 * CMPS whose operands both fault: which is looked at first differs among processors, so either's
 * fault (#SS, #GP, #PF, #AC) will do.
 */
static bool of_access(uint32_t vector)
{
	return (vector >= 12 && vector <= 14) || vector == 17;
}

static bool either_fault(const struct tcase *t, const struct result *a, const struct result *b)
{
	return of_access(a->vector) && of_access(b->vector) && a->rip == b->rip &&
	       is_cmps(faulting(t, a).mnemonic);
}

/*
 * An operand that goes on beyond 4 GiB, in segments of that limit: Intel's may look at its alignment or
 * for its pages before it finds that out, or not find it at all (SDM Vol. 3, 5.3: "may or may not cause the
 * indicated exceptions").
 */
enum { NEAR_4G = 128 };

static bool near_4g(uint64_t address)
{
	return (uint32_t)(address + NEAR_4G) < 2 * NEAR_4G;
}

static bool beyond_4g(const struct tcase *t, const struct result *native,
		      const struct result *engine)
{
	bool close = native->vector == 14 && near_4g(native->cr2);

	for (unsigned n = 0; n < 8 && native->vector == 17; n++)
		close |= native->gpr[n] > UINT32_MAX - NEAR_4G;
	return close && !host_is_amd() && t->mode32 &&
	       (engine->vector == 12 || engine->vector == 13) && !engine->error;
}

/*
 * Of a masked store that crosses into a page which faults, Intel's processors tell the last byte to be
 * stored, AMD's the first.
 */
static bool masked_store(uint16_t m)
{
	return m == ZYDIS_MNEMONIC_VMASKMOVPS || m == ZYDIS_MNEMONIC_VMASKMOVPD ||
	       m == ZYDIS_MNEMONIC_VPMASKMOVD || m == ZYDIS_MNEMONIC_VPMASKMOVQ;
}

/*
 * Parts of a store may be in memory when the rest of it faults, if it is of more than 8 bytes (SDM Vol. 3,
 * 9.1.1); so it is with Intel's stores of 10. And Intel's CALL may push before it finds that
 * its target is not canonical.
 */
static bool may_have_written(const struct fault *f, uint32_t vector)
{
	if (host_is_amd())
		return false;
	switch (f->mnemonic) {
	case ZYDIS_MNEMONIC_CALL:
		return vector == 13;
	case ZYDIS_MNEMONIC_FSTP:
		return f->opcode == 0xdb;
	default:
		return f->mnemonic == ZYDIS_MNEMONIC_FBSTP;
	}
}

/* The host's kernel reports every fault above its user's address space as one of protection. */
static uint32_t error_mask(uint16_t mnemonic, const struct result *native)
{
	if (native->vector == 14 && backward(mnemonic))
		return ~1u;
	return native->vector == 14 && native->cr2 >= UINT64_C(0x7ffffffff000) ? ~1u : ~0u;
}

/* Does the translator run the cases? */
static bool translated;

void compare_for(const char *engine)
{
	translated = !strcmp(engine, "bt");
}

/* What differs, as bits. */
enum {
	DIFF_VECTOR = 1,
	DIFF_ERROR = 2,
	DIFF_CR2 = 4,
	DIFF_RIP = 8,
	DIFF_FLAGS = 16,
	DIFF_GPR = 32,
	DIFF_X87 = 64,
	DIFF_MXCSR = 128,
	DIFF_XMM = 256,
	DIFF_YMM = 512,
	DIFF_MEMORY = 1024
};

/*
 * AMD's processors save the opcode and the pointers of the last instruction only while an exception
 * is pending (APM Vol. 2, 11.4.4), so that the signal frame has them only then. Of a sequence the
 * engine may have kept the state by such a save before a later instruction made one pending.
 */
static bool has_pointers(const struct tcase *t, const struct result *native)
{
	return !host_is_amd() || (t->instructions == 1 && (native->fx[2] & 0x80));
}

/* The translator does not keep the pointers: what it ran leaves them zero (cpu/bt/bt.h). */
static bool without_pointers(const struct result *engine)
{
	static const uint8_t zero[18];

	return translated && !host_is_amd() && !memcmp(engine->fx + 6, zero, sizeof(zero));
}

/*
 * An MMX instruction's store that faults: Intel's may have set TOP to 0 by then, not yet the tags.
 */
static bool may_have_set_top(const struct tcase *t, const struct result *native)
{
	uint16_t m = faulting(t, native).mnemonic;

	return !host_is_amd() && of_access(native->vector) && !(native->fx[3] & 0x38) &&
	       (m == ZYDIS_MNEMONIC_MOVD || m == ZYDIS_MNEMONIC_MOVQ || m == ZYDIS_MNEMONIC_MOVNTQ);
}

static unsigned top_of(const struct result *r)
{
	return r->fx[3] >> 3 & 7;
}

static bool x87_differs(const struct tcase *t, const struct result *a, const struct result *b)
{
	uint8_t status = a->fx[3] ^ b->fx[3];

	if (may_have_set_top(t, a))
		status &= ~0x38;
	if (memcmp(a->fx, b->fx, 3) || status || memcmp(a->fx + 4, b->fx + 4, 2))
		return true; /* control, status, tags */
	if (has_pointers(t, a) && memcmp(a->fx + 6, b->fx + 6, 18) && !without_pointers(b))
		return true;
	/* By their own numbers, which are those of ST(n) without TOP. */
	for (unsigned n = 0; n < 8; n++)
		if (memcmp(a->fx + 32 + 16 * ((n - top_of(a)) & 7),
			   b->fx + 32 + 16 * ((n - top_of(b)) & 7), 10))
			return true;
	return false;
}

static unsigned differences(const struct tcase *t, const struct result *a, const struct result *b)
{
	uint16_t mnemonic = form_at(t->form)->mnemonic;
	uint64_t flags = ~undefined_flags(mnemonic);
	struct fault fault = faulting(t, a);
	bool in_page = piecewise(mnemonic) || (masked_store(fault.mnemonic) && !host_is_amd());
	uint64_t cr2_bits = backward(mnemonic) ? 0 : in_page ? ~UINT64_C(0xfff) : UINT64_MAX;
	unsigned d = 0;

	if (either_fault(t, a, b) || beyond_4g(t, a, b))
		cr2_bits = 0;
	else if (a->vector != b->vector)
		d |= DIFF_VECTOR;
	else if (has_error(a->vector) && ((a->error ^ b->error) & error_mask(mnemonic, a)))
		d |= DIFF_ERROR;
	if (a->vector == 14 && b->vector == 14 && ((a->cr2 ^ b->cr2) & cr2_bits))
		d |= DIFF_CR2;
	if (a->rip != b->rip)
		d |= DIFF_RIP;
	if ((a->rflags ^ b->rflags) & flags)
		d |= DIFF_FLAGS;
	if (memcmp(a->gpr, b->gpr, sizeof(a->gpr)))
		d |= DIFF_GPR;
	if (x87_differs(t, a, b))
		d |= DIFF_X87;
	uint32_t mxcsr[2];
	memcpy(&mxcsr[0], a->fx + 24, 4);
	memcpy(&mxcsr[1], b->fx + 24, 4);
	if ((mxcsr[0] ^ mxcsr[1]) & mxcsr_mask(t, a))
		d |= DIFF_MXCSR;
	if (memcmp(a->fx + 160, b->fx + 160, 256))
		d |= DIFF_XMM;
	if (memcmp(a->ymmh, b->ymmh, YMMH_BYTES))
		d |= DIFF_YMM;
	if ((a->lines != b->lines || a->hash != b->hash) && !may_have_written(&fault, a->vector))
		d |= DIFF_MEMORY;
	return d;
}

bool results_agree(const struct tcase *t, const struct result *native, const struct result *engine)
{
	return !differences(t, native, engine);
}

/* ---- printing ---- */

/* The instructions, parted by semicolons. */
const char *case_text(const struct tcase *t, char *buf, unsigned bytes)
{
	ZydisFormatter fmt;
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	unsigned n = 0, at = 0;

	ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL);
	buf[0] = 0;
	while (at < t->length && n + 4 < bytes &&
	       ZYAN_SUCCESS(ZydisDecoderDecodeFull(forms_decoder(t->mode32), t->code + at,
						   t->length - at, &z, op))) {
		if (at)
			n += (unsigned)snprintf(buf + n, bytes - n, "; ");
		if (!ZYAN_SUCCESS(ZydisFormatterFormatInstruction(
			    &fmt, &z, op, z.operand_count_visible, buf + n, bytes - n,
			    CODE_BASE + t->code_offset + at, NULL)))
			break;
		n += (unsigned)strlen(buf + n);
		at += z.length;
	}
	if (!at)
		snprintf(buf, bytes, "(no instruction)");
	return buf;
}

static const char *const gpr_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					"r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

static void print_bytes(const uint8_t *p, unsigned n) /* as a number: highest first */
{
	while (n--)
		printf("%02x", p[n]);
}

static void print_x87(const char *who, const uint8_t *fx)
{
	printf("    %-7s fcw %02x%02x fsw %02x%02x ftw %02x fop %02x%02x fip ", who, fx[1], fx[0],
	       fx[3], fx[2], fx[4], fx[7], fx[6]);
	print_bytes(fx + 8, 8);
	printf(" fdp ");
	print_bytes(fx + 16, 8);
	printf("\n           ");
	for (unsigned n = 0; n < 8; n++) {
		printf(" ");
		print_bytes(fx + 32 + 16 * n, 10);
	}
	printf("\n");
}

static void print_vector_lines(const struct tcase *t, const struct result *a,
			       const struct result *b)
{
	for (unsigned n = 0; n < 16; n++) {
		const unsigned at = 160 + 16 * n;
		if (!memcmp(a->fx + at, b->fx + at, 16) &&
		    !memcmp(a->ymmh + 16 * n, b->ymmh + 16 * n, 16))
			continue;
		printf("    ymm%-2u in ", n);
		print_bytes(t->ymmh + 16 * n, 16);
		print_bytes(t->fx + at, 16);
		printf("\n       native ");
		print_bytes(a->ymmh + 16 * n, 16);
		print_bytes(a->fx + at, 16);
		printf("\n       engine ");
		print_bytes(b->ymmh + 16 * n, 16);
		print_bytes(b->fx + at, 16);
		printf("\n");
	}
}

static void print_memory(const char *who, const struct result *r)
{
	printf("    %-7s %u lines changed\n", who, r->lines);
	for (unsigned k = 0; k < r->lines && k < 3; k++) {
		printf("      %08x:", DATA_BASE + r->line[k] * LINE_BYTES);
		for (unsigned n = 0; n < LINE_BYTES; n++)
			printf("%s%02x", n % 8 ? "" : " ", r->line_data[k][n]);
		printf("\n");
	}
}

void print_case(const struct tcase *t)
{
	printf("    in      rip %016llx rflags %llx mxcsr ",
	       (unsigned long long)CODE_BASE + t->code_offset, (unsigned long long)t->rflags);
	print_bytes(t->fx + 24, 4);
	for (unsigned n = 0; n < 16; n++)
		printf("%s%-3s %016llx", n % 4 ? " " : "\n            ", gpr_names[n],
		       (unsigned long long)t->gpr[n]);
	printf("\n");
	for (unsigned k = 0; k < PATCHES; k++) {
		if (!t->patch[k].bytes)
			continue;
		printf("            [%08x] ", DATA_BASE + t->patch[k].offset);
		for (unsigned n = 0; n < t->patch[k].bytes; n++)
			printf("%s%02x", n % 8 ? "" : " ", t->patch[k].data[n]);
		printf("\n");
	}
	print_x87("in", t->fx);
}

static void print_outcome(const char *who, const struct result *r)
{
	printf("    %-7s vector %u error %x cr2 %llx rip %llx rflags %llx mxcsr ", who, r->vector,
	       r->error, (unsigned long long)r->cr2, (unsigned long long)r->rip,
	       (unsigned long long)r->rflags);
	print_bytes(r->fx + 24, 4);
	printf("\n");
}

void print_difference(const struct tcase *t, const struct result *native,
		      const struct result *engine, uint64_t seed)
{
	unsigned d = differences(t, native, engine);
	char text[1024];

	printf("  %s   [", case_text(t, text, sizeof(text)));
	for (unsigned k = 0; k < t->length; k++)
		printf("%s%02x", k ? " " : "", t->code[k]);
	printf("] %s  --replay %llu:%llu\n", t->mode32 ? "32-bit" : "64-bit",
	       (unsigned long long)seed, (unsigned long long)t->number);
	print_case(t);
	print_outcome("native", native);
	print_outcome("engine", engine);
	for (unsigned n = 0; n < 16; n++)
		if (native->gpr[n] != engine->gpr[n])
			printf("    %-3s native %016llx engine %016llx\n", gpr_names[n],
			       (unsigned long long)native->gpr[n],
			       (unsigned long long)engine->gpr[n]);
	if (d & DIFF_X87) {
		print_x87("native", native->fx);
		print_x87("engine", engine->fx);
	}
	if (d & (DIFF_XMM | DIFF_YMM))
		print_vector_lines(t, native, engine);
	if (d & DIFF_MEMORY) {
		print_memory("native", native);
		print_memory("engine", engine);
	}
}
