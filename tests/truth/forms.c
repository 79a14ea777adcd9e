/* SPDX-License-Identifier: Apache-2.0 */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/hostexec/hostexec.h"
#include "truth.h"

/*
 * Finding the instruction forms: every opcode of every map with every mandatory prefix, width,
 * register extension and operand kind is decoded; what decodes to a new (mnemonic, operands)
 * pattern that a guest may use and a child may run is a form.
 */
enum { FORM_MAX = 16384, JUNK_FORMS = 100, SEEN_SIZE = 65536 };
static struct iform forms[FORM_MAX];
static unsigned form_count;
static uint64_t seen[SEEN_SIZE];
static ZydisDecoder decoders[2];

ZydisDecoder *forms_decoder(bool mode32)
{
	return &decoders[mode32];
}

const struct iform *form_at(unsigned n)
{
	return &forms[n];
}

/* Instructions of sets that are no hostexec matter but that every CPU of ours has. */
static bool set_offered(ZydisISASet set)
{
	switch (set) {
	case ZYDIS_ISA_SET_I86:
	case ZYDIS_ISA_SET_I186:
	case ZYDIS_ISA_SET_I286REAL:
	case ZYDIS_ISA_SET_I286PROTECTED:
	case ZYDIS_ISA_SET_I386:
	case ZYDIS_ISA_SET_I486:
	case ZYDIS_ISA_SET_I486REAL:
	case ZYDIS_ISA_SET_PENTIUMREAL:
	case ZYDIS_ISA_SET_PPRO:
	case ZYDIS_ISA_SET_CMOV:
	case ZYDIS_ISA_SET_LAHF:
	case ZYDIS_ISA_SET_LONGMODE:
	case ZYDIS_ISA_SET_CMPXCHG16B:
	case ZYDIS_ISA_SET_FAT_NOP:
	case ZYDIS_ISA_SET_PAUSE:
	case ZYDIS_ISA_SET_FXSAVE:
	case ZYDIS_ISA_SET_FXSAVE64:
		return true;
	default:
		return hostexec_supports(set);
	}
}

/*
 * What is left out: results that are no function of the state (time, random numbers, CPUID), ways
 * into the host's kernel, what depends on its descriptor tables or control registers, and what the
 * host's kernel emulates.
 */
static bool excluded(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDPMC:
	case ZYDIS_MNEMONIC_SYSCALL:
	case ZYDIS_MNEMONIC_SYSENTER:
	case ZYDIS_MNEMONIC_SYSRET:
	case ZYDIS_MNEMONIC_SYSEXIT:
	case ZYDIS_MNEMONIC_INT:
	case ZYDIS_MNEMONIC_INT1:
	case ZYDIS_MNEMONIC_INT3:
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ:
	case ZYDIS_MNEMONIC_SGDT:
	case ZYDIS_MNEMONIC_SIDT:
	case ZYDIS_MNEMONIC_SLDT:
	case ZYDIS_MNEMONIC_STR:
	case ZYDIS_MNEMONIC_SMSW:
	case ZYDIS_MNEMONIC_LAR:
	case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW:
	case ZYDIS_MNEMONIC_LDS:
	case ZYDIS_MNEMONIC_LES:
	case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
	case ZYDIS_MNEMONIC_LSS:
	case ZYDIS_MNEMONIC_RSM:
	case ZYDIS_MNEMONIC_SWAPGS:
		return true;
	default:
		break;
	}
	if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return true;
	return op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ZydisRegisterGetClass(op[0].reg.value) == ZYDIS_REGCLASS_SEGMENT &&
	       (op[0].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
}

static uint64_t mix(uint64_t h, uint64_t v)
{
	return (h ^ v) * UINT64_C(0x100000001b3) ^ h >> 29;
}

static uint64_t pattern_of(const struct iform *f, const ZydisDecodedInstruction *z,
			   const ZydisDecodedOperand *op)
{
	uint64_t h = mix(UINT64_C(0xcbf29ce484222325), z->mnemonic);

	h = mix(h, f->mode32 | f->encoding << 1 | f->map << 4 | f->opcode << 8 | f->memory << 17);
	h = mix(h, z->attributes &
			   (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE));
	for (unsigned k = 0; k < z->operand_count; k++) {
		h = mix(h, op[k].type | op[k].visibility << 4 | op[k].size << 8 |
				   (uint64_t)op[k].actions << 32 | (uint64_t)op[k].encoding << 40);
		if (op[k].type == ZYDIS_OPERAND_TYPE_REGISTER)
			h = mix(h, op[k].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT
					   ? (uint64_t)ZydisRegisterGetClass(op[k].reg.value)
					   : 1000 + (uint64_t)op[k].reg.value);
	}
	return h | 1;
}

static bool is_new(uint64_t pattern)
{
	unsigned at = pattern % SEEN_SIZE;

	while (seen[at] && seen[at] != pattern)
		at = (at + 1) % SEEN_SIZE;
	if (seen[at])
		return false;
	seen[at] = pattern;
	return true;
}

static unsigned put_opcode(const struct iform *f, uint8_t *b, unsigned vvvv)
{
	unsigned n = 0;

	if (f->encoding == ENC_VEX) {
		b[n++] = 0xc4;
		b[n++] = 0xe0 | f->map;
		b[n++] = f->w << 7 | (~vvvv & 0xf) << 3 | f->l << 2 | f->pp;
	} else {
		if (f->opsize)
			b[n++] = 0x66;
		if (f->rep)
			b[n++] = f->rep;
		if (f->w)
			b[n++] = 0x48;
		if (f->map)
			b[n++] = 0x0f;
		if (f->map >= 2)
			b[n++] = f->map == 2 ? 0x38 : 0x3a;
	}
	b[n++] = f->opcode;
	return n;
}

/* May it be part of a sequence: does it go on normally, and with defined results? (compare.c) */
static bool is_plain(const ZydisDecodedInstruction *z)
{
	if ((z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) || z->meta.category == ZYDIS_CATEGORY_IO ||
	    z->meta.category == ZYDIS_CATEGORY_IOSTRINGOP ||
	    z->meta.category == ZYDIS_CATEGORY_DECIMAL)
		return false;
	switch (z->mnemonic) {
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
	case ZYDIS_MNEMONIC_LDMXCSR: /* of AMD's own bit */
	case ZYDIS_MNEMONIC_VLDMXCSR:
	case ZYDIS_MNEMONIC_DPPS:
	case ZYDIS_MNEMONIC_DPPD:
	case ZYDIS_MNEMONIC_VDPPS:
	case ZYDIS_MNEMONIC_VDPPD:
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FRSTOR:
		return false;
	default:
		return true;
	}
}

/* Tries one combination. */
static void try_form(struct iform f, unsigned vvvv)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint8_t b[24] = {0};
	unsigned n = put_opcode(&f, b, vvvv);

	b[n++] = (f.memory ? 0 : 0xc0) | f.reg << 3 | (f.memory ? 4 : f.rm);
	b[n++] = 0x38; /* SIB: [rax + rdi]; VSIB: [rax + xmm7] */
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders[f.mode32], b, 15, &z, op)))
		return;
	f.has_modrm = z.attributes & ZYDIS_ATTRIB_HAS_MODRM;
	if (!f.has_modrm && (f.reg || f.rm || f.memory))
		return; /* found without them */
	if (!set_offered(z.meta.isa_set) || excluded(&z, op) ||
	    form_count == FORM_MAX - 2 * JUNK_FORMS)
		return;
	for (unsigned k = 0; k < z.operand_count_visible; k++) {
		bool is_reg = op[k].type == ZYDIS_OPERAND_TYPE_REGISTER;
		f.reg_free |= is_reg && op[k].encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
		f.rm_free |= is_reg && op[k].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
		f.vvvv_free |= is_reg && op[k].encoding == ZYDIS_OPERAND_ENCODING_NDSNDD;
		f.vsib |= op[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
			  op[k].mem.type == ZYDIS_MEMOP_TYPE_VSIB;
	}
	f.mnemonic = z.mnemonic;
	f.lockable = z.attributes & ZYDIS_ATTRIB_ACCEPTS_LOCK;
	f.branch = z.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
	f.string = z.attributes & (ZYDIS_ATTRIB_ACCEPTS_REP | ZYDIS_ATTRIB_ACCEPTS_REPE |
				   ZYDIS_ATTRIB_ACCEPTS_REPNE);
	f.plain = is_plain(&z);
	if (is_new(pattern_of(&f, &z, op)))
		forms[form_count++] = f;
}

/* All values of ModR/M that may mean different instructions. */
static void try_modrm(struct iform f, unsigned vvvv)
{
	for (unsigned memory = 0; memory < 2; memory++) {
		f.memory = memory;
		for (unsigned reg = 0; reg < 8; reg++) {
			f.reg = (uint8_t)reg;
			for (unsigned rm = 0; rm < (memory ? 1 : 8); rm++) {
				f.rm = (uint8_t)rm;
				try_form(f, vvvv);
			}
		}
	}
}

static bool is_prefix(unsigned opcode, bool mode32)
{
	switch (opcode) {
	case 0x0f:
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x66:
	case 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3:
		return true;
	default:
		return !mode32 && (opcode & 0xf0) == 0x40;
	}
}

static void try_legacy(bool mode32)
{
	static const uint8_t reps[] = {0, 0xf3, 0xf2};

	for (unsigned map = 0; map < 4; map++)
		for (unsigned opcode = 0; opcode < 256; opcode++)
			for (unsigned p = 0; p < 12; p++) {
				struct iform f = {.encoding = ENC_LEGACY,
						  .mode32 = mode32,
						  .map = (uint8_t)map,
						  .opcode = (uint8_t)opcode,
						  .opsize = p & 1,
						  .w = p >> 1 & 1,
						  .rep = reps[p >> 2]};
				if ((map == 0 && is_prefix(opcode, mode32)) ||
				    (map == 1 && (opcode == 0x38 || opcode == 0x3a)) ||
				    (mode32 && f.w))
					continue;
				try_modrm(f, 0);
			}
}

static void try_vex(bool mode32)
{
	for (unsigned map = 1; map < 4; map++)
		for (unsigned opcode = 0; opcode < 256; opcode++)
			for (unsigned p = 0; p < 16; p++) {
				struct iform f = {.encoding = ENC_VEX,
						  .mode32 = mode32,
						  .map = (uint8_t)map,
						  .opcode = (uint8_t)opcode,
						  .pp = p & 3,
						  .l = p >> 2 & 1,
						  .w = p >> 3};
				try_modrm(f, 0);
				try_modrm(f, 3);
			}
}

bool host_is_amd(void)
{
	static int amd = -1;
	uint32_t a, b, c, d;

	if (amd < 0)
		amd = __get_cpuid(0, &a, &b, &c, &d) && b == 0x68747541; /* "Auth" */
	return amd;
}

unsigned forms_init(bool with32)
{
	ZydisDecoderInit(&decoders[0], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderInit(&decoders[1], ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
	for (unsigned k = 0; k < 2; k++) {
		ZydisDecoderEnableMode(&decoders[k], ZYDIS_DECODER_MODE_AMD_BRANCHES,
				       host_is_amd());
		ZydisDecoderEnableMode(&decoders[k], ZYDIS_DECODER_MODE_MPX, 0);
		ZydisDecoderEnableMode(&decoders[k], ZYDIS_DECODER_MODE_CET, 0);
		ZydisDecoderEnableMode(&decoders[k], ZYDIS_DECODER_MODE_CLDEMOTE, 0);
		ZydisDecoderEnableMode(&decoders[k], ZYDIS_DECODER_MODE_KNC, 0);
	}
	for (unsigned k = 0; k < (with32 ? 2 : 1); k++) {
		try_legacy(k);
		try_vex(k);
		for (unsigned n = 0; n < JUNK_FORMS; n++)
			forms[form_count++] = (struct iform){.mode32 = k, .junk = true};
	}
	return form_count;
}
