/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_HOSTEXEC_FORM_H
#define HANOK_CPU_HOSTEXEC_FORM_H

#include <stdalign.h>
#include <stddef.h>

#include "cpu/hostexec/hostexec.h"

/*
 * How an instruction is run on the host
 *
 * A form is one instruction apart from its addressing: the same encoding with its memory operand,
 * if any, turned into [register]. For each form a stub is generated, a small host function that
 * loads the guest registers which the instruction names from c->s, executes it with its memory
 * operand pointing at frame.mem, and stores what it wrote:
 *
 *	c->s.gpr, c->s.xsave  ->  host registers of the same numbers  ->  c->s
 *	frame.mem <-> cpu_read, cpu_write                frame.flags, frame.mxcsr, frame.fx
 *
 * RSP as an operand is renamed, since the host's stack pointer must stay. Flags, MXCSR and the
 * x87 state go through the frame, so that the C code around a stub decides when they become the
 * guest's: after the last access that can fault or leave with an exit.
 *
 * Numeric exceptions never reach the host: SIMD instructions run with everything masked, and what
 * hardware would have done with the guest's masks is worked out from the flags that came
 * (simd_finish); x87 ones are reported by the next waiting instruction only, before which C code
 * looks at FSW.ES.
 *
 * Forms live in a cache of the thread that runs the vCPU: no locks, and when it is full it is
 * emptied without asking anybody. insn.aux names a form by generation and index; a stale one is
 * noticed and made again from the instruction's bytes.
 */

/* Which rules decide whether the instruction is available (SDM Vol. 2, 2.4 and 2.5). */
enum form_check {
	CHECK_NONE,    /* general registers, legacy encoding */
	CHECK_VEX_GPR, /* general registers, VEX: protected mode only */
	CHECK_SSE,
	CHECK_AVX,
	CHECK_MMX,
	CHECK_MMX_SSE, /* MMX and XMM registers */
	CHECK_X87,
	CHECK_X87_NOWAIT, /* FNINIT, FNSTSW, ...: no pending exception is reported */
};

enum form_flag {
	FORM_READ = 1,	     /* reads its memory operand */
	FORM_WRITE = 2,	     /* writes it */
	FORM_FLAGS = 4,	     /* reads or writes arithmetic flags */
	FORM_SIMD_FP = 8,    /* uses MXCSR */
	FORM_FX = 16,	     /* runs on an FXSAVE image: x87 and MMX */
	FORM_FX_XMM = 32,    /* with XMM registers in it */
	FORM_POINTERS = 128, /* updates the x87 opcode and pointers: no control instruction */
	FORM_HALF_OUT = 64,  /* writes half-precision numbers, which ignore MXCSR.FZ */
	FORM_NO_AC = 256,    /* Intel's checks no alignment, also of 8 bytes and less */
};

/* What a stub works on. Offsets are in the generated code. */
struct frame {
	alignas(64) uint8_t mem[128]; /* the memory operand */
	uint64_t flags;		      /* in and out */
	uint32_t mxcsr;		      /* in and out: the guest's as far as the stub may see it */
	uint32_t host_mxcsr;
	uint16_t host_fcw;	     /* to be left in the x87 control word */
	alignas(16) uint8_t fx[512]; /* FXSAVE64 image, in and out */
};

typedef void stub_fn(struct soft_cpu *c, struct frame *f);

enum { FORM_BYTES = 15 };

struct form {
	stub_fn *code;
	const uint8_t *at;  /* where in it the instruction is: what FIP becomes */
	uint16_t flags;	    /* enum form_flag */
	uint8_t check;	    /* enum form_check */
	uint8_t align;	    /* of the linear address: 0, 16 or 32, else #GP(0) */
	uint16_t mem_bytes; /* of the memory operand */
	uint16_t host_fop, guest_fop;
	uint8_t length;		   /* of bytes */
	uint8_t bytes[FORM_BYTES]; /* the instruction as the host runs it; the key */
	uint8_t base;		   /* the register that points at frame.mem */
	uint8_t rsp_as;		   /* which register stands for RSP */
	uint32_t next;		   /* index + 1 in its hash chain */
};

/*
 * The form of a decoded instruction, made when it is not in this thread's cache yet, as a value
 * for insn.aux; NULL when it cannot be made (logged when the host is to blame).
 */
const void *form_make(const struct decoded *d, const struct insn *i);

/* #AC where the access is not aligned by its size: for operands over 8 bytes, of which cpu_read and
 * cpu_write think nothing. Raises what comes before it, too. */
void check_ac(struct soft_cpu *c, const struct insn *i, uint64_t offset, unsigned bytes,
	      bool write);

/* cpu_read, cpu_write and cpu_probe, but for alignment (masked.c). */
void read_any(struct soft_cpu *c, const struct insn *i, uint64_t at, void *to, unsigned len);
void write_any(struct soft_cpu *c, const struct insn *i, uint64_t at, const void *from,
	       unsigned len);
void probe_any(struct soft_cpu *c, const struct insn *i, uint64_t at, unsigned len, bool write);

/* The form of i, from i->aux. NULL: it cannot be made again. */
const struct form *form_get(struct soft_cpu *c, const struct insn *i);

/* form_get, or #UD. */
const struct form *form_need(struct soft_cpu *c, const struct insn *i);

/* encode.c: rewrites the instruction for the host: f->bytes, length, base, rsp_as, fops. false when
 * it cannot be. */
bool form_encode(const struct decoded *d, const struct insn *i, struct form *f);
/* stub.c: emits the stub's code at out (at most STUB_BYTES); its length. *at gets the offset of the
 * instruction in it. */
enum { STUB_BYTES = 768 };
unsigned stub_emit(uint8_t *out, const struct decoded *d, const struct form *f, unsigned *at);
/* The number of the 64-bit register that r is part of, -1 when it is no general register. */
int form_gpr(ZydisRegister r);
/* Mask of the general registers that the instruction names, its addressing apart. */
uint32_t form_gprs(const struct decoded *d);
/* select.c: fills in check, flags, align and mem_bytes. */
void form_classify(const struct decoded *d, struct form *f);

/* ---- checks before and arithmetic after (check.c) ---- */

/* Raises #UD and #NM where the instruction is not available now. */
void form_check(struct soft_cpu *c, enum form_check check);
/*
 * The same and, for a waiting instruction, an x87 exception that is pending: #MF, or with CR0.NE
 * clear the FERR# pin. false: the instruction waits for the interrupt of that pin; the handler
 * returns and is called again.
 */
bool x87_check(struct soft_cpu *c, enum form_check check);

/*
 * SIMD numeric exceptions. begin: MXCSR for a run with everything masked. raise: #XM (or #UD) when
 * one of the flags that came is unmasked, after putting back `old` unless it is NULL. commit: the
 * flags become the guest's.
 */
struct simd_old {
	uint64_t gpr[GPR_NR];
	struct xsave_area xsave;
};
bool simd_unmasked(struct soft_cpu *c);
bool simd_would_raise(struct soft_cpu *c, uint32_t got);
uint32_t simd_begin(struct soft_cpu *c);
void simd_raise(struct soft_cpu *c, uint32_t got, const struct simd_old *old);
void simd_commit(struct soft_cpu *c, uint32_t got);

/* MMX instructions set TOP to 0 and all tags to valid (SDM Vol. 1, 9.5.1); the x87 registers turn
 * about, since MMX register n is ST((n - TOP) mod 8). */
void enter_mmx(struct soft_cpu *c);
static inline unsigned x87_top(const struct soft_cpu *c)
{
	return c->s.xsave.bytes[XSAVE_FSW + 1] >> 3 & 7;
}

static inline uint8_t *x87_st(struct soft_cpu *c, unsigned n)
{
	return c->s.xsave.bytes + XSAVE_ST0 + 16 * (n & 7);
}

/* The area's parts. */
static inline uint32_t *guest_mxcsr(struct soft_cpu *c)
{
	return (uint32_t *)(void *)(c->s.xsave.bytes + XSAVE_MXCSR);
}

static inline uint64_t *guest_xmm(struct soft_cpu *c, unsigned n)
{
	return (uint64_t *)(void *)(c->s.xsave.bytes + XSAVE_XMM0 + 16 * n);
}

static inline uint64_t *guest_ymmh(struct soft_cpu *c, unsigned n)
{
	return (uint64_t *)(void *)(c->s.xsave.bytes + XSAVE_YMMH0 + 16 * n);
}

/* MXCSR (SDM Vol. 1, 10.2.3). */
enum {
	MXCSR_FLAGS = 0x3f,
	MXCSR_IE = 1,
	MXCSR_DE = 2,
	MXCSR_ZE = 4,
	MXCSR_OE = 8,
	MXCSR_UE = 16,
	MXCSR_PE = 32,
	MXCSR_MASKS = 0x1f80,
	MXCSR_MASK_SHIFT = 7,
	MXCSR_FZ = 0x8000
};
enum { FSW_ES = 0x80, FSW_B = 0x8000 };

/* ---- handlers ---- */

op_fn exec_form;    /* exec.c */
op_fn exec_x87;	    /* x87.c: x87 and MMX */
op_fn exec_x87_env; /* FNSTENV, FNSAVE, FLDENV, FRSTOR */
op_fn exec_fwait;
op_fn *select_move(const struct decoded *d, const struct insn *i); /* moves.c; NULL: none of them */
op_fn *select_control(const struct decoded *d); /* control.c: MXCSR, VZEROUPPER, fences, hints */
op_fn *select_masked(const struct decoded *d, struct insn *i); /* masked.c: masked moves, gathers */

#endif
