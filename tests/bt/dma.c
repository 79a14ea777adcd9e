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
 */
enum { UNIT = 10, UNITS = 6, MODRM = 2, FLIPS = 600, SECONDS = 4 };
static const uint8_t unit[UNIT] = {
	0x48, 0x0b, 0xc1,	/* or rax, rcx, or [rcx] */
	0x48, 0x39, 0xc8,	/* cmp rax, rcx */
	0x4c, 0x0f, 0x45, 0xf8, /* cmovne r15, rax */
};
static const uint64_t secret = 0xca5e0123456789ab;

static atomic_bool over;

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

int main(void)
{
	static struct program p;
	static uint8_t pristine[DATA_BYTES];
	struct error err;
	struct box *b;
	pthread_t thread;
	uint64_t runs = 0, faults = 0;
	bool good = true;

	uint64_t *vmm =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (vmm == MAP_FAILED || box_create(&b, "bt", 1, 4 << 20, &err)) {
		fprintf(stderr, "btdma: %s\n", vmm == MAP_FAILED ? "no memory" : err.text);
		return 125;
	}
	*vmm = secret;
	b->patience_ms = 20;
	make(&p, (uint64_t)vmm);
	if (pthread_create(&thread, NULL, device, b))
		return 125;
	for (const time_t end = time(NULL) + SECONDS; good && time(NULL) < end; runs++) {
		box_reset_memory(b);
		box_run_program(b, &p, pristine);
		faults += box_params(b)->log_count;
		good = b->state.gpr[R15] == 0;
		for (uint64_t n = 0; n < box_params(b)->log_count && n < LOG_MAX; n++)
			good = good && box_event(b, (unsigned)n)->r15 == 0;
	}
	over = true;
	pthread_join(thread, NULL);
	printf("btdma: %llu runs, %llu faults: %s\n", (unsigned long long)runs,
	       (unsigned long long)faults,
	       good ? "nothing got out" : "FAILED: the guest has read the VMM's memory");
	box_destroy(b);
	munmap(vmm, PAGE);
	return good && faults ? 0 : 1;
}
