/* SPDX-License-Identifier: Apache-2.0 */
#include "bt.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/*
 * btdma: a device writes to code while it is being translated. Each instruction of a loop is, from one
 * moment to the next, OR RAX, RCX (C1) or OR RAX, [RCX] (01). RAX and RCX are the address of something
 * that is the VMM's, where the guest has nothing: the one changes nothing, the other ends in a page fault.
 * Only an instruction that was judged as the one and copied as the other could read it.
 *
 * And it writes to code that jumps from one piece to the next while that runs, so that jumps are changed under the
 * vCPU all the time. The pieces count, and have to have counted alike in the end.
 */
enum { UNIT = 10, UNITS = 6, MODRM = 2, FLIPS = 600, SECONDS = 4 };
static const uint8_t unit[UNIT] = {
	0x48, 0x0b, 0xc1,	/* or rax, rcx, or [rcx] */
	0x48, 0x39, 0xc8,	/* cmp rax, rcx */
	0x4c, 0x0f, 0x45, 0xf8, /* cmovne r15, rax */
};
static const uint64_t secret = 0xca5e0123456789ab;

/* The pieces: add reg, 1 ; jmp to the next, and some bytes that are none. */
enum { PIECE = 24, PIECES = 4, TURNS = 20000 };

static atomic_bool over;

static void *rewrites(void *opaque)
{
	struct box *b = opaque;

	for (unsigned n = 0; !over; n++) {
		const unsigned from = n % PIECES;
		mem_written(b->mem, GPA_CODE + from * PIECE, n % 3 ? 4 : (PIECES - from) * PIECE);
		for (unsigned k = 0; k < n % 64; k++)
			__builtin_ia32_pause();
	}
	return NULL;
}

static void make_pieces(struct program *p)
{
	memset(p, 0, sizeof(*p));
	memset(p->code, 0xcc, PIECES * PIECE);
	for (unsigned k = 0; k < PIECES; k++) {
		uint8_t *at = p->code + k * PIECE;
		const int32_t next = PIECE - 9;
		memcpy(at, (const uint8_t[]){0x49, 0x83, (uint8_t)(0xc4 + k), 1, 0xe9}, 5);
		memcpy(at + 5, &next, 4);
	}
	uint8_t *at = p->code + PIECES * PIECE;
	const int32_t back = -(PIECES * PIECE + 9);
	memcpy(at, (const uint8_t[]){0x48, 0xff, 0xcb, 0x0f, 0x85}, 5); /* dec rbx ; jnz */
	memcpy(at + 5, &back, 4);
	memcpy(at + 9, (const uint8_t[]){0xcd, END_VECTOR}, 2); /* int */
	p->gpr[RSP] = STACK_BASE + STACK_BYTES;
	p->gpr[RBX] = TURNS;
	p->rflags = 2;
}

static void *device(void *opaque)
{
	struct box *b = opaque;

	while (!over) {
		for (unsigned n = 0; n < FLIPS; n++)
			__atomic_store_n(b->ram + GPA_CODE + n / 2 % UNITS * UNIT + MODRM,
					 n & 1 ? 0x01 : 0xc1, __ATOMIC_RELAXED);
		mem_written(b->mem, GPA_CODE, UNITS * UNIT);
	}
	return NULL;
}

static void make(struct program *p, uint64_t address)
{
	unsigned at = 0;

	memset(p, 0, sizeof(*p));
	for (unsigned k = 0; k < UNITS; k++, at += UNIT) {
		memcpy(p->code + at, unit, UNIT);
		p->next[at] = (uint16_t)(at + 3);
	}
	const int32_t back = -(int32_t)(at + 5);
	p->code[at] = 0xe9;
	memcpy(p->code + at + 1, &back, 4);
	p->gpr[RSP] = STACK_BASE + STACK_BYTES;
	p->gpr[RCX] = p->gpr[RAX] = address;
	p->rflags = 2;
}

static bool run_for(struct box *b, const struct program *p, void *(*device_main)(void *),
		    bool (*judge)(struct box *b), uint64_t *runs, uint64_t *events)
{
	static uint8_t pristine[DATA_BYTES];
	pthread_t thread;
	bool good = true;

	over = false;
	*runs = *events = 0;
	if (pthread_create(&thread, NULL, device_main, b))
		return false;
	for (const time_t end = time(NULL) + SECONDS; good && time(NULL) < end; ++*runs) {
		box_reset_memory(b);
		box_run_program(b, p, pristine);
		*events += box_params(b)->log_count;
		good = judge(b);
	}
	over = true;
	pthread_join(thread, NULL);
	return good;
}

static bool read_nothing(struct box *b)
{
	bool good = b->state.gpr[R15] == 0;

	for (uint64_t n = 0; n < box_params(b)->log_count && n < LOG_MAX; n++)
		good = good && box_event(b, (unsigned)n)->r15 == 0;
	return good;
}

/* Where it came to its end: a busy host may have had no time for it. */
static bool counted(struct box *b)
{
	const struct event *e = box_event(b, 0);

	return !box_params(b)->log_count || (e->vector == END_VECTOR && e->r12 == TURNS &&
					     e->r13 == TURNS && e->r14 == TURNS && e->r15 == TURNS);
}

int main(void)
{
	static struct program p;
	struct error err;
	struct box *b;
	uint64_t runs, faults, ends;

	uint64_t *vmm =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (vmm == MAP_FAILED || box_create(&b, "bt", 1, 4 << 20, &err)) {
		fprintf(stderr, "btdma: %s\n", vmm == MAP_FAILED ? "no memory" : err.text);
		return 125;
	}
	*vmm = secret;
	b->patience_ms = 20;
	make(&p, (uint64_t)vmm);
	const bool safe = run_for(b, &p, device, read_nothing, &runs, &faults);
	printf("btdma: %llu runs, %llu faults: %s\n", (unsigned long long)runs,
	       (unsigned long long)faults,
	       safe ? "nothing got out" : "FAILED: the guest has read the VMM's memory");
	b->patience_ms = 1000;
	make_pieces(&p);
	const bool right = run_for(b, &p, rewrites, counted, &runs, &ends);
	printf("btdma: %llu runs, %llu ends: %s\n", (unsigned long long)runs,
	       (unsigned long long)ends, right ? "all counted right" : "FAILED: a wrong count");
	box_destroy(b);
	munmap(vmm, PAGE);
	return safe && faults && right && ends ? 0 : 1;
}
