/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/decode/insn.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "cpu/state/cpu_state.h"

/* One decoder a mode and vendor; they are read-only once made. */
static ZydisDecoder decoders[3][2];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_decoders(void)
{
	static const struct {
		ZydisMachineMode mode;
		ZydisStackWidth width;
	} kinds[] = {
		[MODE_16] = {ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16},
		[MODE_32] = {ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32},
		[MODE_64] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
	};
	for (unsigned mode = 0; mode < 3; mode++) {
		for (unsigned amd = 0; amd < 2; amd++) {
			ZydisDecoder *d = &decoders[mode][amd];
			ZydisDecoderInit(d, kinds[mode].mode, kinds[mode].width);
			ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_AMD_BRANCHES, amd);
			/* Not offered by any CPUID of ours: decode as what the bytes were before. */
			ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_MPX, 0);
			ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CET, 0);
			ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CLDEMOTE, 0);
			ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_KNC, 0);
		}
	}
}

static enum seg_reg seg_number(ZydisRegister r)
{
	switch (r) {
	case ZYDIS_REGISTER_ES:
		return SEG_ES;
	case ZYDIS_REGISTER_CS:
		return SEG_CS;
	case ZYDIS_REGISTER_SS:
		return SEG_SS;
	case ZYDIS_REGISTER_FS:
		return SEG_FS;
	case ZYDIS_REGISTER_GS:
		return SEG_GS;
	default:
		return SEG_DS;
	}
}

/* A register's number within its class; AH to BH as REG_HIGH + n. */
static uint8_t reg_number(ZydisRegister r)
{
	if (r == ZYDIS_REGISTER_NONE)
		return REG_NONE;
	if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
		return REG_HIGH + (r - ZYDIS_REGISTER_AH);
	if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP)
		return REG_IP;
	ZyanI8 id = ZydisRegisterGetId(r);
	if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_R15B)
		return 4 + (r - ZYDIS_REGISTER_SPL);
	return id < 0 ? REG_NONE : (uint8_t)id;
}

/* Zydis 4.0 takes [index + disp32] for [R13D + index] when there are an address-size prefix and
 * REX.B: SIB base 5 with mod 0 is no base, whatever REX.B (SDM Vol. 2, table 2-5). */
static bool sib_without_base(const ZydisDecodedInstruction *z)
{
	return (z->attributes & ZYDIS_ATTRIB_HAS_SIB) && z->raw.modrm.mod == 0 &&
	       z->raw.sib.base == 5;
}

static void take_memory(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op,
			struct insn *i)
{
	i->flags |= INSN_MEM;
	i->seg = seg_number(op->mem.segment);
	i->base = reg_number(op->mem.base);
	i->index = reg_number(op->mem.index);
	i->scale = op->mem.scale ? op->mem.scale : 1;
	i->disp = op->mem.disp.has_displacement ? op->mem.disp.value : 0;
	if (sib_without_base(z)) {
		i->base = REG_NONE;
		i->disp = z->raw.disp.value;
	}
}

static void take_operands(const struct decoded *d, struct insn *i)
{
	bool have_imm = false;

	for (unsigned k = 0; k < d->z.operand_count; k++) {
		const ZydisDecodedOperand *op = &d->op[k];
		bool visible = op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN;

		if (!visible) {
			/* Implicit DS:rSI, DS:rBX (XLAT) and DS:rDI (MASKMOV): only the segment, which
			 * a prefix may change; ES:rDI and the stack may not be overridden. */
			if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && !(i->flags & INSN_MEM) &&
			    op->mem.segment != ZYDIS_REGISTER_ES &&
			    op->mem.base != ZYDIS_REGISTER_RSP &&
			    op->mem.base != ZYDIS_REGISTER_ESP && op->mem.base != ZYDIS_REGISTER_SP)
				i->seg = seg_number(op->mem.segment);
			continue;
		}
		if (k < 2)
			i->size[k] = op->size / 8;
		switch (op->type) {
		case ZYDIS_OPERAND_TYPE_REGISTER:
			if (k < 3)
				i->reg[k] = reg_number(op->reg.value);
			break;
		case ZYDIS_OPERAND_TYPE_MEMORY:
			take_memory(&d->z, op, i);
			if (k == 0)
				i->flags |= INSN_DST_MEM;
			break;
		case ZYDIS_OPERAND_TYPE_POINTER:
			i->imm = op->ptr.offset;
			i->imm2 = op->ptr.segment;
			break;
		case ZYDIS_OPERAND_TYPE_IMMEDIATE:
			if (have_imm) {
				i->imm2 = (uint16_t)op->imm.value.u;
			} else {
				i->imm = op->imm.value.u;
				have_imm = true;
			}
			break;
		default:
			break;
		}
	}
}

int insn_decode(enum insn_mode mode, bool amd, const uint8_t *bytes, unsigned avail,
		struct decoded *d, struct insn *i)
{
	pthread_once(&once, init_decoders);
	ZyanStatus st = ZydisDecoderDecodeFull(&decoders[mode][amd], bytes, avail < 15 ? avail : 15,
					       &d->z, d->op);
	if (!ZYAN_SUCCESS(st)) {
		if (st == ZYDIS_STATUS_NO_MORE_DATA)
			return avail < 15 ? -ENODATA : -E2BIG;
		return st == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ? -E2BIG : -EINVAL;
	}
	/* MOVSXD to 16 bits reads 16 (SDM), AMD's 32 (APM Vol. 3), as the decoder has it for both. */
	if (!amd && d->z.mnemonic == ZYDIS_MNEMONIC_MOVSXD && d->op[0].size == 16 &&
	    d->op[1].type == ZYDIS_OPERAND_TYPE_MEMORY)
		d->op[1].size = 16;
	memset(i, 0, sizeof(*i));
	i->mnemonic = d->z.mnemonic;
	i->length = d->z.length;
	i->width = d->z.operand_width / 8;
	i->addr_bytes = d->z.address_width / 8;
	i->seg = SEG_DS;
	i->base = i->index = REG_NONE;
	i->scale = 1;
	memset(i->reg, REG_NONE, sizeof(i->reg));
	memcpy(i->bytes, bytes, d->z.length);
	if (d->z.attributes & ZYDIS_ATTRIB_HAS_LOCK)
		i->flags |= INSN_LOCK;
	/* F3 and F2 as they are in the bytes, whatever Zydis makes of them for this instruction. */
	if (d->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
		i->flags |= INSN_REP;
	if (d->z.attributes & ZYDIS_ATTRIB_HAS_REPNE)
		i->flags |= INSN_REPNE;
	take_operands(d, i);
	return 0;
}
