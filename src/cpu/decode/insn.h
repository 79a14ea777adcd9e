/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_DECODE_INSN_H
#define HANOK_CPU_DECODE_INSN_H

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Instruction decoding: Zydis does it; this is the compact form that the engines keep. Prefixes,
 * sizes and operands are worked out once here.
 */
enum insn_mode { MODE_16, MODE_32, MODE_64 }; /* by CS.D and CS.L; real and v86 are MODE_16 */

/* What Zydis said, whole; lives on the stack of whoever decodes. */
struct decoded {
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

enum {
	REG_NONE = 0xff,
	REG_IP = 0x20,	 /* as a base */
	REG_HIGH = 0x10, /* AH, CH, DH, BH are REG_HIGH + 0 to 3 */
};

enum insn_flag {
	INSN_MEM = 1, /* has a memory operand (ea_* are set; for LEA too) */
	INSN_LOCK = 2,
	INSN_REP = 4,	   /* F3 */
	INSN_REPNE = 8,	   /* F2 */
	INSN_END = 16,	   /* ends a block: jumps, and whatever may change modes or mappings */
	INSN_DST_MEM = 32, /* operand 0 is the memory operand */
};

struct soft_cpu;
struct insn {
	void (*fn)(struct soft_cpu *c, const struct insn *i);
	const void *aux; /* hostexec's stub */
	uint64_t imm; /* immediate, sign-extended as encoded; relative branch distance; offset of a
			    far pointer */
	int64_t disp;
	uint16_t imm2;	   /* ENTER's second immediate, selector of a far pointer */
	uint16_t mnemonic; /* ZydisMnemonic */
	uint8_t length;
	uint8_t flags;
	uint8_t width;	    /* effective operand size in bytes: 1, 2, 4, 8 */
	uint8_t addr_bytes; /* address size: 2, 4, 8 */
	uint8_t size[2];    /* bytes of operands 0 and 1 */
	uint8_t reg[3]; /* register numbers of visible operands 0 to 2 within their class; REG_NONE
			    where the operand is no register */
	uint8_t seg;	/* enum seg_reg of the memory operand, also of implicit DS:rSI ones */
	uint8_t base, index, scale; /* scale: 1, 2, 4, 8 */
	uint8_t bytes[15];
};

/*
 * Decodes at most avail (1 to 15) bytes. amd: 66 on near branches counts in 64-bit mode.
 * 0; -ENODATA when the instruction goes on past avail; -E2BIG over 15 bytes (#GP); -EINVAL when it
 * is none (#UD). fn, aux and INSN_END are left to the engine. Any thread.
 */
int insn_decode(enum insn_mode mode, bool amd, const uint8_t *bytes, unsigned avail,
		struct decoded *d, struct insn *i);

#endif
