/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_TRUTH_H
#define HANOK_TESTS_TRUTH_H

#include <Zydis/Zydis.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/*
 * truth: the host CPU is the oracle. Each case is one instruction with a whole register and memory
 * state, made from (seed, case number) alone. It runs natively in a sandboxed child (native.c) and
 * in an engine (guest.c), at the same addresses with the same pages; what they leave is compared
 * (compare.c).
 *
 * How a case ends: either TF is set and #DB comes after the instruction, or it is followed by INT3.
 * Faults end it earlier. All are seen as (vector, error code, CR2) and the registers pushed.
 */

/* ---- the address space of a case, the same in the child and in the guest ---- */

enum {
	PAGE = 4096,
	CODE_BASE = 0x40000000, /* two pages, executable; not present around them */
	CODE_BYTES = 2 * PAGE,
	DATA_BASE = 0x50000000, /* two pages writable, one read-only; not present around them */
	DATA_RW_BYTES = 2 * PAGE,
	DATA_BYTES = 3 * PAGE,
	FS_BASE = 0x1000,
	GS_BASE = 0x23450,
};

/* Selectors of Linux's GDT, which the guest's has at the same places. */
enum { SEL_CODE32 = 0x23, SEL_DATA = 0x2b, SEL_CODE64 = 0x33 };

enum { CASE_BYTES = 256, LENGTH_MAX = 16 }; /* of code; of instructions in sequence */
enum {
	FX_BYTES = 416,
	YMMH_BYTES = 256,
	PATCH_BYTES = 64,
	PATCHES = 4,
	LINE_BYTES = 64,
	LINES_KEPT = 12
};

/* What is put into data memory before the instruction. */
struct patch {
	uint32_t offset; /* in the data pages */
	uint32_t bytes;
	uint8_t data[PATCH_BYTES];
};

struct tcase {
	uint64_t number;
	uint32_t form;
	bool mode32;
	bool step; /* by TF; else by INT3 */
	uint8_t length;
	uint8_t instructions; /* asked for; a sequence may end early */
	uint16_t code_offset; /* in the code pages; may run past their end */
	uint8_t code[CASE_BYTES];
	uint64_t gpr[16], rflags;
	alignas(16) uint8_t fx[FX_BYTES]; /* FXSAVE64 layout */
	uint8_t ymmh[YMMH_BYTES];
	struct patch patch[PATCHES];
	/* An FXSAVE image is written here (an offset in the data pages, or -1): its MXCSR_MASK is the
	 * machine's, and the pointers AMD's hardware saves only at times. Neither is compared. */
	int32_t fxsave_at;
};

struct result {
	uint32_t vector; /* 1 and 3: it was carried out; VECTOR_* below */
	uint32_t error;
	uint64_t cr2;
	uint64_t gpr[16], rip, rflags;
	alignas(16) uint8_t fx[FX_BYTES];
	uint8_t ymmh[YMMH_BYTES];
	/* Lines of data memory that were changed: the first ones whole, a hash of all. */
	uint32_t lines;
	uint16_t line[LINES_KEPT];
	uint8_t line_data[LINES_KEPT][LINE_BYTES];
	uint64_t hash;
};
enum { VECTOR_NOT_RUN = 1000, VECTOR_SHUTDOWN, VECTOR_ODD_EXIT };

/* Collects what changed in data memory and puts it back. */
void result_take_memory(struct result *r, const struct tcase *t, uint8_t *data,
			const uint8_t *pristine);
/* Applies the case's patches. */
void case_apply_patches(const struct tcase *t, uint8_t *data);

/* ---- random numbers (xoshiro256**; Blackman and Vigna) ---- */
struct rng {
	uint64_t s[4];
};
void rng_init(struct rng *r, uint64_t seed, uint64_t stream);
uint64_t rng_next(struct rng *r);
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return rng_next(r) % n;
}
static inline bool rng_percent(struct rng *r, unsigned p)
{
	return rng_next(r) % 100 < p;
}
void rng_fill(struct rng *r, void *buf, unsigned bytes);

/* ---- forms (forms.c) ---- */

enum { ENC_LEGACY, ENC_VEX };
/* An instruction apart from registers, addressing and immediates. */
struct iform {
	uint16_t mnemonic;
	uint8_t encoding;
	bool mode32;
	bool opsize; /* 66 */
	uint8_t rep; /* 0, F2, F3 */
	bool w, l;   /* REX.W or VEX.W; VEX.L */
	uint8_t map; /* 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A */
	uint8_t pp;  /* of VEX */
	uint8_t opcode;
	bool has_modrm, memory;
	uint8_t reg, rm; /* where they are no operands */
	bool reg_free, rm_free, vvvv_free;
	bool lockable, branch, string, vsib;
	bool plain; /* may be part of a sequence */
	bool junk;  /* stands for bytes that are no instruction */
};
/* Fills the table: all of them for one or both modes. Their number. */
unsigned forms_init(bool with32);
const struct iform *form_at(unsigned n);
ZydisDecoder *forms_decoder(bool mode32);
bool host_is_amd(void);

/* ---- cases (cases.c) ---- */

/* Makes case `number`, of `length` instructions. false: this combination has no encoding, or no
 * sequence begins with it; the case is left out. */
bool case_make(struct tcase *t, uint64_t seed, uint64_t number, unsigned forms, unsigned length);
/* Values (values.c). */
uint64_t some_int(struct rng *r);
void some_vector(struct rng *r, uint8_t *to);	/* 16 bytes */
void some_extended(struct rng *r, uint8_t *to); /* 10 bytes */
void make_x87(struct rng *r, struct tcase *t);
void make_vectors(struct rng *r, struct tcase *t);
/* Contents of data memory before the patches. */
void pristine_make(uint8_t *data, uint64_t seed, uint64_t batch);

/* ---- the two runners ---- */

enum { BATCH = 256 };
struct batch {
	unsigned count;
	struct tcase in[BATCH];
	struct result out[BATCH];
	uint8_t pristine[DATA_BYTES];
};

struct native;
int native_start(struct native **out, struct error *err);
/* Does the host let programs go on whose RSP is not canonical? PVM's does not: after an interrupt, or a signal,
 * it gives them a fault that is none of theirs. */
bool native_takes_any_rsp(void);
/* Does it run 32-bit code? Kernels are made that do not. */
bool native_has_32_bit(void);
void native_stop(struct native *n);
/* The batch that the child sees; post, then wait. */
struct batch *native_batch(struct native *n);
void native_post(struct native *n);
/* 0; -ECHILD: the child died at case *at of the batch (and was started anew). */
int native_wait(struct native *n, unsigned *at, struct error *err);

struct guest;
int guest_start(struct guest **out, const char *engine, struct error *err);
void guest_stop(struct guest *g);
/* Before the cases of a batch: what data memory holds. */
void guest_fill(struct guest *g, const uint8_t *pristine);
void guest_run(struct guest *g, const struct tcase *t, const uint8_t *pristine, struct result *r);

/* ---- comparison (compare.c) ---- */

/* Of which engine the results will be; first of all. */
void compare_for(const char *engine);
/* true: equal but for what is documented as undefined. */
bool results_agree(const struct tcase *t, const struct result *native, const struct result *engine);
void print_difference(const struct tcase *t, const struct result *native,
		      const struct result *engine, uint64_t seed);
void print_case(const struct tcase *t);
const char *case_text(const struct tcase *t, char *buf, unsigned bytes);

#endif
