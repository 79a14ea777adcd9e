/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"
#include "cpu/hostexec/hostexec.h"
#include "cpu/interp/select.h"

/*
 * What the translator does with an instruction. Only what is known to be harmless and to mean the
 * same in host code is copied: a list of general-purpose mnemonics, and the vector instruction sets
 * apart from those that touch memory in ways of their own. All else is a helper.
 */
static bool is_general(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_MOV:
	case ZYDIS_MNEMONIC_MOVZX:
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_ADC:
	case ZYDIS_MNEMONIC_SBB:
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_SUB:
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_CMP:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_INC:
	case ZYDIS_MNEMONIC_DEC:
	case ZYDIS_MNEMONIC_NEG:
	case ZYDIS_MNEMONIC_NOT:
	case ZYDIS_MNEMONIC_XCHG:
	case ZYDIS_MNEMONIC_XADD:
	case ZYDIS_MNEMONIC_CMPXCHG:
	case ZYDIS_MNEMONIC_CMPXCHG8B:
	case ZYDIS_MNEMONIC_CMPXCHG16B:
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
	case ZYDIS_MNEMONIC_MUL:
	case ZYDIS_MNEMONIC_IMUL:
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_BSF:
	case ZYDIS_MNEMONIC_BSR:
	case ZYDIS_MNEMONIC_BSWAP:
	case ZYDIS_MNEMONIC_CBW:
	case ZYDIS_MNEMONIC_CWDE:
	case ZYDIS_MNEMONIC_CDQE:
	case ZYDIS_MNEMONIC_CWD:
	case ZYDIS_MNEMONIC_CDQ:
	case ZYDIS_MNEMONIC_CQO:
	case ZYDIS_MNEMONIC_LAHF:
	case ZYDIS_MNEMONIC_SAHF:
	case ZYDIS_MNEMONIC_CLC:
	case ZYDIS_MNEMONIC_STC:
	case ZYDIS_MNEMONIC_CMC:
		return true;
	default:
		return false;
	}
}

static bool is_vector_class(ZydisRegisterClass k)
{
	return k == ZYDIS_REGCLASS_XMM || k == ZYDIS_REGCLASS_YMM;
}

static bool is_x87_class(ZydisRegisterClass k)
{
	return k == ZYDIS_REGCLASS_X87 || k == ZYDIS_REGCLASS_MMX;
}

static bool is_x87_word(ZydisRegister r)
{
	return r == ZYDIS_REGISTER_X87CONTROL || r == ZYDIS_REGISTER_X87STATUS ||
	       r == ZYDIS_REGISTER_X87TAG;
}

static bool is_gpr_class(ZydisRegisterClass k)
{
	return k == ZYDIS_REGCLASS_GPR8 || k == ZYDIS_REGCLASS_GPR16 || k == ZYDIS_REGCLASS_GPR32 ||
	       k == ZYDIS_REGCLASS_GPR64;
}

static unsigned gpr_number(ZydisRegister r)
{
	ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);

	return (unsigned)ZydisRegisterGetId(wide);
}

/* Fills in what an instruction does to registers and memory. False: something in it is not for
 * copied code. */
static bool look_at_operands(struct item *it)
{
	bool fine = true;

	for (unsigned k = 0; k < it->d->z.operand_count; k++) {
		const ZydisDecodedOperand *op = &it->d->op[k];

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
				continue;
			if (op->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
			    op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
				fine = false;
			it->mem_bytes = op->size / 8;
			it->mem_read = op->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
			it->mem_write = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
			continue;
		}
		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		ZydisRegisterClass class = ZydisRegisterGetClass(op->reg.value);
		if (is_vector_class(class)) {
			it->needs |= LOADED_VEC;
		} else if (is_x87_class(class) || is_x87_word(op->reg.value)) {
			it->needs = LOADED_X87;
		} else if (is_gpr_class(class)) {
			unsigned n = gpr_number(op->reg.value);
			bool high = op->reg.value >= ZYDIS_REGISTER_AH &&
				    op->reg.value <= ZYDIS_REGISTER_BH;
			if (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
				it->reads |= 1u << n;
			if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) {
				it->writes |= 1u << n;
				/* Part of the register, or perhaps not at all: the rest is kept.
				 * So it is with a source of zero. */
				if (op->size < 32 || !(op->actions & ZYDIS_OPERAND_ACTION_WRITE) ||
				    it->i.mnemonic == ZYDIS_MNEMONIC_BSF ||
				    it->i.mnemonic == ZYDIS_MNEMONIC_BSR)
					it->reads |= 1u << n;
			}
			if (high && (it->i.flags & INSN_MEM))
				fine = false; /* a copy with REX would mean SPL to DIL */
		} else if (class != ZYDIS_REGCLASS_FLAGS && class != ZYDIS_REGCLASS_IP) {
			fine = false; /* segment, control, mask registers */
		}
	}
	if (it->i.base < GPR_NR)
		it->address |= 1u << it->i.base;
	if (it->i.index < GPR_NR)
		it->address |= 1u << it->i.index;
	return fine;
}

static bool shifts_by_cl(const struct item *it)
{
	switch (it->i.mnemonic) {
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
		return it->i.reg[1] != REG_NONE || (it->i.imm & 31) == 0;
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		return true;
	default:
		return false;
	}
}

/* Undefined flags that processors leave as they were, OF after rotates among them: then they are not
 * written. (After logic and shifts they are set to something that depends on the operands only.) */
static bool may_keep_undefined(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_MUL:
	case ZYDIS_MNEMONIC_IMUL:
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
	case ZYDIS_MNEMONIC_BSF:
	case ZYDIS_MNEMONIC_BSR:
	case ZYDIS_MNEMONIC_LZCNT:
	case ZYDIS_MNEMONIC_TZCNT:
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
		return true;
	default:
		return false;
	}
}

static void look_at_flags(struct item *it)
{
	const ZydisAccessedFlags *f = it->d->z.cpu_flags;

	if (!f)
		return;
	it->flags_read = f->tested & FLAGS_ARITH;
	it->flags_written = (f->modified | f->set_0 | f->set_1) & FLAGS_ARITH;
	if (!may_keep_undefined(it->i.mnemonic))
		it->flags_written |= f->undefined & FLAGS_ARITH;
	/* A count of zero leaves all flags alone. */
	if (shifts_by_cl(it))
		it->flags_read = FLAGS_ARITH;
	if (it->i.mnemonic == ZYDIS_MNEMONIC_LAHF)
		it->flags_read = FLAGS_ARITH & ~FLAG_OF;
}

/* ---- kinds ---- */

static bool condition_code(const struct item *it)
{
	return it->d->z.meta.category == ZYDIS_CATEGORY_CMOV ||
	       it->d->z.meta.category == ZYDIS_CATEGORY_SETCC;
}

/* Vector and bit-manipulation instructions that touch memory plainly, if at all. */
static bool is_plain_extension(const struct trans *t, struct item *it)
{
	ZydisISASet set = it->d->z.meta.isa_set;

	switch (it->i.mnemonic) {
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ:
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_STMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR:
	case ZYDIS_MNEMONIC_VSTMXCSR:
	/* They may unmask exceptions, or have to do with the pointers. */
	case ZYDIS_MNEMONIC_FLDCW:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FNINIT:
	case ZYDIS_MNEMONIC_FNCLEX:
	case ZYDIS_MNEMONIC_FDISI8087_NOP:
	case ZYDIS_MNEMONIC_FENI8087_NOP:
	case ZYDIS_MNEMONIC_FSETPM287_NOP:
		return false;
	case ZYDIS_MNEMONIC_VCVTPS2PH:
		if (it->i.flags & INSN_MEM) /* its flags may stay when the store faults */
			return false;
		break;
	default:
		break;
	}
	if (!hostexec_supports(set))
		return false;
	if (set == ZYDIS_ISA_SET_X87 || set == ZYDIS_ISA_SET_FCMOV ||
	    set == ZYDIS_ISA_SET_SSE3X87 || set == ZYDIS_ISA_SET_PENTIUMMMX ||
	    (set == ZYDIS_ISA_SET_PPRO && it->needs == LOADED_X87)) {
		it->needs = LOADED_X87;
		return t->key & MODE_KEY_X87;
	}
	switch (set) {
	case ZYDIS_ISA_SET_POPCNT:
	case ZYDIS_ISA_SET_LZCNT:
	case ZYDIS_ISA_SET_BMI1:
	case ZYDIS_ISA_SET_BMI2:
	case ZYDIS_ISA_SET_ADOX_ADCX:
	case ZYDIS_ISA_SET_MOVBE:
		return true;
	case ZYDIS_ISA_SET_SSE42:
		if (it->i.mnemonic == ZYDIS_MNEMONIC_CRC32)
			return true;
		break;
	case ZYDIS_ISA_SET_AVX2GATHER:
	case ZYDIS_ISA_SET_I86:
	case ZYDIS_ISA_SET_I186:
	case ZYDIS_ISA_SET_I386:
	case ZYDIS_ISA_SET_I486:
	case ZYDIS_ISA_SET_PPRO:
	case ZYDIS_ISA_SET_CLFSH:
	case ZYDIS_ISA_SET_CLFLUSHOPT:
	case ZYDIS_ISA_SET_CLWB:
		return false;
	default:
		break;
	}
	if (it->needs == LOADED_X87 && !(t->key & MODE_KEY_X87))
		return false;
	bool vex = it->d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
	if (it->i.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER ||
	    it->i.mnemonic == ZYDIS_MNEMONIC_VZEROALL)
		it->needs |= LOADED_VEC;
	return it->needs && (t->key & (vex ? MODE_KEY_AVX : MODE_KEY_SSE));
}

static bool unaligned_is_fine(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
		return true;
	default:
		return false;
	}
}

/* Operands that raise #GP where they are not aligned (SDM Vol. 2, 2.4). */
static uint8_t alignment(const struct item *it)
{
	if (it->i.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B)
		return 16;
	switch (it->d->z.meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_AVX1:
		return (uint8_t)it->mem_bytes;
	case ZYDIS_EXCEPTION_CLASS_SSE1:
	case ZYDIS_EXCEPTION_CLASS_SSE2:
	case ZYDIS_EXCEPTION_CLASS_SSE4:
	case ZYDIS_EXCEPTION_CLASS_SSE5:
	case ZYDIS_EXCEPTION_CLASS_SSE3:
		return it->mem_bytes == 16 && !unaligned_is_fine(it->i.mnemonic) ? 16 : 0;
	default:
		return it->needs && it->mem_bytes >= 16 &&
				       it->d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
				       !unaligned_is_fine(it->i.mnemonic)
			       ? 16
			       : 0;
	}
}

/* Can the operand's address be formed by one LEA and perhaps a segment base? */
static bool plain_address(const struct trans *t, const struct item *it)
{
	const struct insn *i = &it->i;
	bool wide = t->key & MODE_KEY_64;

	if (i->addr_bytes == 2)
		return false;
	if (wide && i->addr_bytes == 4 && has_segment(it))
		return false;
	if (!fits32(i->disp))
		return false;
	if (!wide) {
		if (i->seg == SEG_CS)
			return false;
		if (i->seg == SEG_FS && !(t->key & MODE_KEY_FS))
			return false;
		if (i->seg == SEG_GS && !(t->key & MODE_KEY_GS))
			return false;
	}
	return i->index != 4; /* VSIB is excluded elsewhere; RSP is no index */
}

static enum kind memory_kind(const struct trans *t, struct item *it)
{
	uint16_t homes = (it->reads | it->writes) & HOME_MASK;

	if (!plain_address(t, it) || it->mem_bytes == 0 || it->mem_bytes > 32)
		return KIND_HELPER;
	if (homes == HOME_MASK)
		return KIND_HELPER;
	/* Unparking needs T_INDEX, too. */
	if (homes && (it->flags_read || (it->flags_written && it->flags_written != FLAGS_ARITH)))
		return KIND_HELPER;
	switch (it->i.mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		if (it->i.reg[1] != REG_NONE) /* reaches beyond its operand */
			return it->mem_bytes >= 4 && !homes ? KIND_BIT : KIND_HELPER;
		break;
	default:
		break;
	}
	it->align = alignment(it);
	return it->d->z.raw.modrm.offset ? KIND_MEMORY : KIND_MOFFS;
}

static bool is_far(const struct item *it)
{
	return it->d->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

static enum kind branch_kind(const struct trans *t, const struct item *it)
{
	bool relative = it->d->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	bool wide = t->key & MODE_KEY_64;
	unsigned want = wide ? 8 : 4;

	if (is_far(it) || it->i.width != want)
		return KIND_HELPER_END;
	switch (it->i.mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
		if (relative)
			return KIND_JUMP;
		return (it->i.flags & INSN_MEM) && !plain_address(t, it) ? KIND_HELPER_END
									 : KIND_JUMP_IND;
	case ZYDIS_MNEMONIC_CALL:
		if (relative)
			return KIND_CALL;
		return (it->i.flags & INSN_MEM) && !plain_address(t, it) ? KIND_HELPER_END
									 : KIND_CALL_IND;
	case ZYDIS_MNEMONIC_RET:
		return KIND_RET;
	default:
		return it->d->z.meta.category == ZYDIS_CATEGORY_COND_BR &&
				       it->d->z.meta.isa_set != ZYDIS_ISA_SET_RTM &&
				       it->i.mnemonic != ZYDIS_MNEMONIC_JCXZ &&
				       it->i.mnemonic != ZYDIS_MNEMONIC_JECXZ &&
				       it->i.mnemonic != ZYDIS_MNEMONIC_JRCXZ &&
				       it->i.mnemonic != ZYDIS_MNEMONIC_LOOP &&
				       it->i.mnemonic != ZYDIS_MNEMONIC_LOOPE &&
				       it->i.mnemonic != ZYDIS_MNEMONIC_LOOPNE
			       ? KIND_JCC
			       : KIND_HELPER_END;
	}
}

static bool is_prefetch(const struct item *it)
{
	return it->d->z.meta.category == ZYDIS_CATEGORY_PREFETCH;
}

/* PUSH and POP of the mode's own width, general registers, immediates or memory. */
static bool plain_stack(const struct trans *t, const struct item *it)
{
	unsigned want = t->key & MODE_KEY_64 ? 8 : 4;

	if (it->i.width != want)
		return false;
	if (it->i.flags & INSN_MEM)
		return it->i.mnemonic == ZYDIS_MNEMONIC_PUSH && plain_address(t, it);
	if (it->d->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER)
		return is_gpr_class(ZydisRegisterGetClass(it->d->op[0].reg.value));
	return it->d->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

/* A repetition that stops half-way is seen by where rip is then (bt.c). */
static bool is_string(const struct item *it)
{
	return it->d->z.meta.category == ZYDIS_CATEGORY_STRINGOP;
}

static bool plain_rep(const struct trans *t, const struct item *it)
{
	return is_string(it) && (t->key & MODE_KEY_64) && (it->i.flags & INSN_REP) &&
	       it->i.addr_bytes == 8 && !has_segment(it);
}

/* F3 90 with REX.B may be XCHG; 0F 0D with a register operand is no instruction. */
static bool is_true_nop(const struct item *it)
{
	const ZydisDecodedInstruction *z = &it->d->z;

	if (it->i.mnemonic == ZYDIS_MNEMONIC_PAUSE)
		return !((z->attributes & ZYDIS_ATTRIB_HAS_REX) && z->raw.rex.B);
	return !(z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode == 0x0d &&
		 z->raw.modrm.mod == 3);
}

static enum kind special_kind(const struct trans *t, struct item *it)
{
	switch (it->i.mnemonic) {
	case ZYDIS_MNEMONIC_NOP:
	case ZYDIS_MNEMONIC_PAUSE:
		return is_true_nop(it) ? KIND_NOP : KIND_HELPER;
	case ZYDIS_MNEMONIC_LEA:
		return it->i.width >= 4 && plain_address(t, it) ? KIND_LEA : KIND_HELPER;
	case ZYDIS_MNEMONIC_PUSH:
		return plain_stack(t, it) ? KIND_PUSH : KIND_HELPER;
	case ZYDIS_MNEMONIC_POP:
		return plain_stack(t, it) && it->i.reg[0] != RSP ? KIND_POP : KIND_HELPER;
	case ZYDIS_MNEMONIC_LEAVE:
		return it->i.width == (t->key & MODE_KEY_64 ? 8 : 4) ? KIND_LEAVE : KIND_HELPER;
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
		return it->i.width >= 4 && (!(it->i.flags & INSN_MEM) || plain_address(t, it))
			       ? KIND_DIVIDE
			       : KIND_HELPER;
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
		return t->key & MODE_KEY_TSD ? KIND_HELPER : KIND_RDTSC;
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD:
	case ZYDIS_MNEMONIC_MOVSQ:
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_STOSQ:
		return plain_rep(t, it) ? KIND_REP : KIND_HELPER;
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
		return KIND_COPY;
	case ZYDIS_MNEMONIC_FLDCW:
		it->needs = LOADED_X87;
		it->mem_bytes = 2;
		return (t->key & MODE_KEY_X87) && plain_address(t, it) ? KIND_FLDCW : KIND_HELPER;
	case ZYDIS_MNEMONIC_FWAIT:
		return t->key & MODE_KEY_X87 ? KIND_NOP : KIND_HELPER;
	case ZYDIS_MNEMONIC_CLD:
		return KIND_CLD;
	case ZYDIS_MNEMONIC_PUSHFQ:
		return KIND_PUSHF;
	case ZYDIS_MNEMONIC_MOV:
		return it->i.width >= 4 && !(it->i.flags & INSN_MEM) &&
				       it->d->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
				       ZydisRegisterGetClass(it->d->op[1].reg.value) ==
					       ZYDIS_REGCLASS_SEGMENT
			       ? KIND_MOV_SELECTOR
			       : KIND_HELPER;
	case ZYDIS_MNEMONIC_CLI:
		return t->key & MODE_KEY_CPL0 ? KIND_CLI : KIND_HELPER;
	case ZYDIS_MNEMONIC_STI:
		return t->key & MODE_KEY_CPL0 ? KIND_STI : KIND_HELPER;
	case ZYDIS_MNEMONIC_SWAPGS:
		return (t->key & MODE_KEY_64) && (t->key & MODE_KEY_CPL0) ? KIND_SWAPGS
									  : KIND_HELPER;
	case ZYDIS_MNEMONIC_STAC:
		return t->key & MODE_KEY_SMAP ? KIND_STAC : KIND_HELPER_END;
	case ZYDIS_MNEMONIC_CLAC:
		return t->key & MODE_KEY_SMAP ? KIND_CLAC : KIND_HELPER_END;
	default:
		return KIND_HELPER;
	}
}

static bool is_branch(const struct item *it)
{
	switch (it->d->z.meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
		return true;
	default:
		return false;
	}
}

/* VEX instructions of 32-bit code whose bytes do something else as 64-bit code: VEX.W counts for
 * general registers, the high bits of vvvv and of a register in the immediate count, and there are registers above 7
 * to clear. */
static bool means_other_in_64bit(const struct item *it)
{
	if (it->d->z.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
		return false;
	const uint8_t *v = it->i.bytes + it->d->z.raw.vex.offset;
	if (v[0] == 0xc4 && !(v[2] & 0x40))
		return true; /* the high bit of vvvv */
	if (it->d->z.raw.vex.W && (it->reads | it->writes))
		return true;
	switch (it->i.mnemonic) {
	case ZYDIS_MNEMONIC_VBLENDVPS:
	case ZYDIS_MNEMONIC_VBLENDVPD:
	case ZYDIS_MNEMONIC_VPBLENDVB:
		return it->i.bytes[it->i.length - 1] & 0x80;
	case ZYDIS_MNEMONIC_VZEROUPPER:
	case ZYDIS_MNEMONIC_VZEROALL:
		return true;
	default:
		return false;
	}
}

void item_select(struct trans *t, struct item *it)
{
	struct insn again;

	if (it->i.fn)
		return;
	if (!it->d)
		insn_decode(t->key & MODE_KEY_64 ? MODE_64 : MODE_32, t->c->vendor_amd, it->i.bytes,
			    it->i.length, &t->d, &again);
	it->i.fn = insn_select(&t->d, &it->i);
}

/* Left to the interpreter's handler, which alone knows whether it ends a block. */
static enum kind helper_kind(struct trans *t, struct item *it)
{
	item_select(t, it);
	/* The mode of FPU use hangs on MXCSR. */
	bool ends = ((it->i.flags & INSN_END) && !is_string(it)) ||
		    it->i.mnemonic == ZYDIS_MNEMONIC_LDMXCSR ||
		    it->i.mnemonic == ZYDIS_MNEMONIC_VLDMXCSR;

	return ends ? KIND_HELPER_END : KIND_HELPER;
}

/* What is copied, with its memory operand changed if it has one. */
static enum kind copy_kind(struct trans *t, struct item *it)
{
	bool wide = t->key & MODE_KEY_64,
	     one_byte_map = it->d->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;

	if (!wide && means_other_in_64bit(it))
		return KIND_HELPER;
	/* 82H is 80H once more, and gone in 64-bit mode. */
	if (it->d->z.opcode == 0x82 && one_byte_map)
		return KIND_HELPER;
	if (it->i.flags & INSN_MEM)
		return memory_kind(t, it);
	if (!wide && one_byte_map && it->d->z.opcode >= 0x40 && it->d->z.opcode <= 0x4f)
		return KIND_INC_DEC;
	return KIND_COPY;
}

static void find_kind(struct trans *t, struct item *it)
{
	bool fine = look_at_operands(it);

	look_at_flags(it);
	if (is_branch(it)) {
		it->kind = branch_kind(t, it);
		return;
	}
	if (is_prefetch(it)) {
		bool known = plain_address(t, it) && (it->i.flags & INSN_MEM);
		it->kind = known ? KIND_PREFETCH : KIND_NOP;
		return;
	}
	it->kind = special_kind(t, it);
	if (it->kind == KIND_HELPER && fine &&
	    (is_general(it->i.mnemonic) || condition_code(it) || is_plain_extension(t, it)))
		it->kind = copy_kind(t, it);
	if (it->kind == KIND_HELPER)
		it->kind = helper_kind(t, it);
}

static struct encoding find_encoding(const ZydisDecodedInstruction *z)
{
	const bool rex = z->attributes & ZYDIS_ATTRIB_HAS_REX;
	const unsigned modrm = z->raw.modrm.offset;

	return (struct encoding){
		.opcode = z->opcode,
		.prefixes = z->raw.prefix_count,
		.rex = rex ? (uint8_t)(0x40 | z->raw.rex.W << 3 | z->raw.rex.R << 2) : 0,
		.vex = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? z->raw.vex.offset : NO_VEX,
		.modrm = (uint8_t)modrm,
		.rest = (uint8_t)(modrm + 1u + (z->raw.sib.offset != 0) + z->raw.disp.size / 8),
	};
}

void classify(struct trans *t, struct item *it)
{
	it->d = &t->d;
	it->at = find_encoding(&t->d.z);
	find_kind(t, it);
	it->d = NULL;
}
