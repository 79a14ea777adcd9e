/* SPDX-License-Identifier: Apache-2.0 */
#include "bt.h"

#include "base/layout.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/tsan.h"

/*
 * btisolate: a hostile guest, its kernel included, translated. It runs random programs and random bytes
 * in ring 0 and ring 3, in long, protected and real mode, with random registers, page tables and
 * descriptors that it may destroy, random answers from devices. Meanwhile
 *
 *  - canaries, pages all over the VMM's address space and next to the guest's RAM, must not change,
 *    and what they hold must not turn up in the guest: nothing outside of RAM is written or read;
 *  - no address of anything of the VMM's may turn up in the guest (where a number is one, the same
 *    guest runs again in other processes, whose addresses are others: a leak turns up there as well);
 *  - the VMM must not crash.
 */

enum { CANARIES_MAX = 64, CANARY_BYTES = 64 * 1024, RANGES_MAX = 4096 };
static struct {
	uint64_t *at;
	bool told; /* guests are given its address */
} canary[CANARIES_MAX];
static unsigned canaries;
static uint64_t magic; /* upper half of what canaries hold */

/* ---- canaries ---- */

static void add_canary(uint64_t where)
{
	uint64_t *p = mmap((void *)where, CANARY_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | (where ? MAP_FIXED_NOREPLACE : 0), -1, 0);

	if (p == MAP_FAILED || canaries == CANARIES_MAX)
		return;
	for (unsigned k = 0; k < CANARY_BYTES / 8; k++)
		p[k] = magic | (canaries << 16) | k;
	canary[canaries++].at = p;
}

/* Where stray accesses would go: next to RAM, at the addresses that guests use, at small ones. Where
 * there is a window those are the guest's, and the VMM's lie in its slice alone. */
static void make_canaries(const struct box *b)
{
	static const uint64_t at[] = {0x10000,	  0x20000,    0x100000,	  0x200000,   0x400000,
				      0x40000000, 0x50000000, 0x500c0000, 0x60000000, 0x80000000,
				      0xc0000000, 0xfee00000, 0x100000000};
	static const uint64_t in_slice[] = {
		LAYOUT_BASE + LAYOUT_GUARD, LAYOUT_BASE + 2 * LAYOUT_GUARD,
		LAYOUT_BASE + (LAYOUT_END - LAYOUT_BASE) / 2, LAYOUT_END - 2 * LAYOUT_GUARD,
		LAYOUT_END - LAYOUT_GUARD - CANARY_BYTES};
	const bool window = layout_is_own(&(struct layout_taken){0}, NULL);
	const uint64_t *where = window ? in_slice : at;
	const size_t count = window ? sizeof(in_slice) / sizeof(in_slice[0])
				    : sizeof(at) / sizeof(at[0]);

	for (size_t k = 0; k < count; k++) {
		const unsigned before = canaries;
		add_canary(where[k]);
		if (canaries > before)
			canary[before].told = true;
	}
	add_canary((uint64_t)b->ram - CANARY_BYTES);
	add_canary((uint64_t)b->ram + BOX_RAM_BYTES);
	for (unsigned k = 0; k < 8; k++)
		add_canary(0);
}

static bool canaries_live(void)
{
	for (unsigned n = 0; n < canaries; n++)
		for (unsigned k = 0; k < CANARY_BYTES / 8; k++)
			if (canary[n].at[k] != (magic | (n << 16) | k)) {
				printf("canary at %p was written: %llx\n",
				       (void *)(canary[n].at + k),
				       (unsigned long long)canary[n].at[k]);
				return false;
			}
	return true;
}

/* ---- what the guest must not know ---- */

static struct range {
	uint64_t from, to;
} ranges[RANGES_MAX];
static unsigned range_count;

#ifdef __SANITIZE_ADDRESS__
enum { ADDRESSES_ARE_RARE = false };
#else
enum { ADDRESSES_ARE_RARE = !HANOK_HAS_TSAN };
#endif

/* Of what is no secret: canaries that guests are told of, and the program, which lies at a fixed address. */
static bool is_told(uint64_t at)
{
	extern const char __executable_start[], end[];

	if (at >= (uint64_t)__executable_start && at < (uint64_t)end &&
	    layout_is_own(&(struct layout_taken){0}, NULL))
		return true;
	for (unsigned n = 0; n < canaries; n++)
		if (canary[n].told && (uint64_t)canary[n].at == at)
			return true;
	return false;
}

/* Everything mapped above 1 TiB; below, numbers are too common. Under a sanitizer nothing: much of the
 * address space is its shadow of the rest, and its heap lies at round numbers. */
static void read_ranges(void)
{
	FILE *f = !ADDRESSES_ARE_RARE ? NULL : fopen("/proc/self/maps", "re");
	char line[512];

	range_count = 0;
	while (f && range_count < RANGES_MAX && fgets(line, sizeof(line), f)) {
		struct range *r = &ranges[range_count];
		char *end;
		r->from = strtoull(line, &end, 16);
		r->to = strtoull(end + 1, NULL, 16);
		if (r->from < UINT64_C(1) << 40 || r->from >> 47 || is_told(r->from))
			continue;
		struct range *last = range_count ? r - 1 : NULL;
		if (last && last->to == r->from)
			last->to = r->to;
		else
			range_count++;
	}
	if (f)
		fclose(f);
}

static bool is_secret(uint64_t v)
{
	if ((v & 0xffffffff00000000) == magic)
		return true;
	if (v >> 47 || v < ranges[0].from)
		return false;
	for (unsigned n = 0; n < range_count; n++)
		if (v >= ranges[n].from && v < ranges[n].to)
			return true;
	return false;
}

static bool knows_nothing(const struct box *b, uint64_t bytes)
{
	const struct cpu_state *s = &b->state;
	uint64_t v;

	for (unsigned n = 0; n < GPR_NR; n++)
		if (is_secret(s->gpr[n])) {
			printf("register %u of the guest is %llx\n", n,
			       (unsigned long long)s->gpr[n]);
			return false;
		}
	for (unsigned at = 0; at < XSAVE_BYTES; at += 8) {
		memcpy(&v, s->xsave.bytes + at, 8);
		if (is_secret(v)) {
			printf("vector or x87 state at %u is %llx\n", at, (unsigned long long)v);
			return false;
		}
	}
	const uint64_t *ram = (const uint64_t *)b->ram;
	for (uint64_t k = 0; k < bytes / 8; k++)
		if (is_secret(ram[k])) {
			printf("guest memory at %llx is %llx\n", (unsigned long long)k * 8,
			       (unsigned long long)ram[k]);
			return false;
		}
	return true;
}

/* ---- the guest ---- */

static struct rng lots;
static uint64_t exits;

static bool answer(struct box *b)
{
	exits++;
	switch (b->exit.cause) {
	case EXIT_PIO_IN:
		b->exit.pio.data = (uint32_t)rng_next(&lots);
		return true;
	case EXIT_MMIO_READ:
		b->exit.mmio.data = rng_next(&lots);
		return true;
	case EXIT_RDMSR:
	case EXIT_WRMSR:
		b->exit.msr.value = rng_next(&lots);
		b->exit.msr.fault = rng_percent(&lots, 50);
		return true;
	case EXIT_PIO_OUT:
	case EXIT_MMIO_WRITE:
	case EXIT_HYPERCALL:
		return true;
	default:
		return false;
	}
}

static uint64_t some_place(struct rng *r)
{
	switch (rng_below(r, 6)) {
	case 0: /* of the kernel: tables, descriptors, code */
		return HIGH + rng_below(r, LOW_BYTES);
	case 1:
		return HIGH + rng_below(r, BOX_RAM_BYTES + (4 << 20));
	case 2:
		return DATA_BASE + rng_below(r, DATA_BYTES);
	case 3: { /* where a canary is, or near; not one whose address is secret */
		const unsigned n = (unsigned)rng_below(r, canaries);
		const uint64_t at = canary[n].told ? (uint64_t)canary[n].at : 0x200000;
		const uint64_t off = rng_percent(r, 20) ? rng_next(r) % LAYOUT_GUARD * 2 : 0;
		return at + rng_below(r, CANARY_BYTES) + (rng_percent(r, 50) ? off : -off);
	}
	case 4:
		return some_int(r);
	default:
		return rng_next(r) >> rng_below(r, 64);
	}
}

/* Segments without limits and without paging: what the guest addresses is guest-physical memory. */
static void flat32(struct cpu_state *s)
{
	s->cr0 &= ~CR0_PG;
	s->efer = 0;
	for (unsigned n = 0; n < SEG_NR; n++)
		s->seg[n] = (struct segment){0x10, 0xc093, UINT32_MAX, 0};
	s->seg[SEG_CS] = (struct segment){0x08, 0xc09b, UINT32_MAX, 0};
	s->rip = GPA_CODE + rng_below(&lots, CODE_BYTES);
}

static void real_mode(struct cpu_state *s)
{
	s->cr0 &= ~(CR0_PG | CR0_PE);
	s->efer = 0;
	for (unsigned n = 0; n < SEG_NR; n++)
		s->seg[n] = (struct segment){(uint16_t)(GPA_CODE >> 4), 0x93, 0xffff, GPA_CODE};
	s->seg[SEG_CS].attr = 0x9b;
	s->idt = (struct table_reg){0x3ff, 0};
	s->rip = rng_below(&lots, CODE_BYTES);
}

/*
 * Walks RSP through the guard to a canary, in steps that say nothing, and accesses what is there: blocks of
 * the window do not ask about RSP where they need not (cpu/bt/stack.c). The stack that it begins on may be real.
 */
static uint8_t *walk_step(uint8_t *p, int32_t by, bool quiet)
{
	const int32_t minus = -by;

	switch (rng_below(&lots, 5)) {
	case 0:
		p = mempcpy(p, "\x48\x8d\xa4\x24", 4); /* lea rsp, [rsp + by] */
		p = mempcpy(p, &by, 4);
		break;
	case 1:
		p = mempcpy(p, "\x48\x81\xec", 3); /* sub rsp, -by */
		p = mempcpy(p, &minus, 4);
		break;
	default:
		p = mempcpy(p, "\x48\x81\xc4", 3); /* add rsp, by */
		p = mempcpy(p, &by, 4);
		break;
	}
	switch (rng_below(&lots, quiet ? 5 : 6)) {
	case 0: /* in the same block */
		return p;
	case 1:
		return mempcpy(p, "\xeb\0", 2); /* jmp on */
	case 2:
		return mempcpy(p, "\x85\xc0\x74\0", 4); /* test eax, eax; je on */
	case 3:
		return mempcpy(p, "\x74\0", 2); /* je on */
	case 4:					/* lea r8, [rip + 3]; jmp r8 */
		return mempcpy(p, "\x4c\x8d\x05\3\0\0\0\x41\xff\xe0", 10);
	default:
		return mempcpy(p, "\x0f\xa2", 2); /* cpuid: the interpreter's, which asks */
	}
}

static void make_walk(struct box *b, uint64_t *iret, unsigned start)
{
	static const struct {
		const char *bytes;
		unsigned length;
	} last[] = {
		{"\x50", 1},		     /* push rax */
		{"\x58", 1},		     /* pop rax */
		{"\x48\x8b\x04\x24", 4},     /* mov rax, [rsp] */
		{"\x48\x89\x44\x24\x40", 5}, /* mov [rsp + 64], rax */
		{"\xe8\0\0\0\0", 5},	     /* call on */
		{"\xc3", 1},		     /* ret */
		{"\xff\x34\x24", 3},	     /* push [rsp] */
		{"\x9c", 1},		     /* pushf */
	};
	enum { STEPS = 100, PASSES = 6 };
	uint8_t *p = b->ram + GPA_STAGING + start;
	const unsigned to = (unsigned)rng_below(&lots, canaries);
	const bool down = rng_percent(&lots, 30), quiet = rng_percent(&lots, 80);
	const int32_t by = (down ? -1 : 1) * (int32_t)(INT32_MAX - rng_below(&lots, 1 << 20) * 16);
	uint64_t from = (uint64_t)canary[to].at + rng_below(&lots, CANARY_BYTES / 16) * 16;
	const unsigned end = (unsigned)rng_below(&lots, sizeof(last) / sizeof(last[0]));

	if (!canary[to].told)
		return;
	from -= (uint64_t)(int64_t)by * STEPS;
	memset(b->ram + GPA_STAGING, 0x90, CODE_BYTES);
	if (rng_percent(&lots, 50))
		iret[3] = from;
	/* Some times where it does no harm, so that the blocks lead to each other. */
	p = mempcpy(p, "\x41\xbc", 2); /* mov r12d, PASSES */
	p = mempcpy(p, &(uint32_t){PASSES}, 4);
	const uint8_t *again = p;
	p = mempcpy(p, "\x49\xb9", 2); /* mov r9, harmless */
	p = mempcpy(p, &(uint64_t){LAYOUT_END + 2 * LAYOUT_GUARD + (uint64_t)STEPS * INT32_MAX}, 8);
	p = mempcpy(p, "\x41\x83\xfc\1\x75\xa", 6); /* cmp r12d, 1; jne over */
	p = mempcpy(p, "\x49\xb9", 2);		    /* mov r9, from */
	p = mempcpy(p, &from, 8);
	p = mempcpy(p, "\x4c\x89\xcc", 3); /* mov rsp, r9 */
	for (unsigned n = 0; n < STEPS; n++)
		p = walk_step(p, by, quiet);
	p = mempcpy(p, "\x41\xff\xcc\x0f\x85", 5); /* dec r12d; jne again */
	p = mempcpy(p, &(int32_t){(int32_t)(again - (p + 4))}, 4);
	p = mempcpy(p, last[end].bytes, last[end].length);
	memcpy(p, "\xcd\x80", 2); /* int 80h */
}

static void make_hostile(struct box *b, struct program *p)
{
	struct params *q = box_params(b);
	uint64_t *iret = q->frame + 17;
	unsigned kind = (unsigned)rng_below(&lots, 10);

	if (rng_percent(&lots, 15) && !p->mode32 && p->start + 2400 < CODE_BYTES) {
		make_walk(b, iret, p->start);
		return;
	}

	for (unsigned n = 0; n < 15; n++)
		if (rng_percent(&lots, 60))
			q->frame[n] = some_place(&lots);
	if (rng_percent(&lots, 70)) { /* ring 0 */
		iret[1] = SEL_KERNEL;
		iret[4] = 0;
		iret[3] = HIGH + GPA_STACK_TOP - 0x1000;
		iret[2] |= rng_next(&lots) & 0x240000;
		if (p->mode32) /* as 64-bit code: other instructions, no matter */
			p->mode32 = false;
	}
	if (rng_percent(&lots, 30)) /* a stack somewhere */
		iret[3] = some_place(&lots);
	if (kind < 2)
		for (unsigned at = 0; at < CODE_BYTES; at++)
			b->ram[GPA_STAGING + at] = (uint8_t)rng_next(&lots);
	if (kind < 4) {
		memcpy(b->ram + GPA_CODE, b->ram + GPA_STAGING, CODE_BYTES);
		memcpy(b->state.gpr, q->frame, sizeof(q->frame[0]) * 15);
		b->state.gpr[RSP] = some_place(&lots);
		if (kind == 2)
			flat32(&b->state);
		else if (kind == 3)
			real_mode(&b->state);
	}
	if (rng_percent(&lots, 20)) /* page tables with a hole in them */
		box_put64(b, GPA_PT_DATA + 8 * rng_below(&lots, 512), rng_next(&lots));
	if (rng_percent(&lots, 10))
		b->state.cr4 ^= rng_next(&lots) &
				(CR4_SMAP | CR4_SMEP | CR4_TSD | CR4_PGE | CR4_PCIDE);
}

/* The run once more, alone, in processes of their own. */
static bool leaks_elsewhere(uint64_t seed, uint64_t run)
{
	char seed_text[32], run_text[32];
	char *const argv[] = {"btisolate", "--seed", seed_text, "--run", run_text, NULL};
	bool leaks = false;

	snprintf(seed_text, sizeof(seed_text), "%llu", (unsigned long long)seed);
	snprintf(run_text, sizeof(run_text), "%llu", (unsigned long long)run);
	fflush(stdout);
	for (unsigned n = 0; n < 4 && !leaks; n++) {
		int status = 0;
		const pid_t pid = fork();
		if (pid == 0) {
			execv("/proc/self/exe", argv);
			_exit(125);
		}
		leaks = pid < 0 || waitpid(pid, &status, 0) != pid || status != 0;
	}
	return leaks;
}

static bool run_one(struct box *b, uint64_t seed, uint64_t run, unsigned forms)
{
	static struct program p;
	static uint8_t pristine[DATA_BYTES];

	rng_init(&lots, seed, run + 1);
	program_make(&p, seed, run, forms);
	pristine_fill(pristine, seed, run);
	p.wild |= rng_percent(&lots, 60);
	if (!program_layout(&p))
		return false;
	box_reset_memory(b);
	box_load_program(b, &p, pristine);
	make_hostile(b, &p);
	box_run(b);
	return true;
}

static int run(int argc, char **argv)
{
	static const struct option longs[] = {{"seconds", 1, NULL, 's'},
					      {"seed", 1, NULL, 'S'},
					      {"run", 1, NULL, 'r'},
					      {NULL, 0, NULL, 0}};
	uint64_t seed = (uint64_t)time(NULL), runs = 0, shutdowns = 0, only = UINT64_MAX;
	unsigned by_chance = 0;
	double seconds = 10;
	struct error err;
	struct box *b;
	bool good = true;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 's')
			seconds = strtod(optarg, NULL);
		else if (c == 'S')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 'r')
			only = strtoull(optarg, NULL, 0);
		else
			return 2;
	}
	printf("btisolate: seed %llu\n", (unsigned long long)seed);
	if (box_create(&b, "bt", 1, 4 << 20, &err)) {
		fprintf(stderr, "btisolate: %s\n", err.text);
		return 125;
	}
	rng_init(&lots, seed, 0);
	magic = (rng_next(&lots) | 0xca00000000000000) & 0xffffffff00000000;
	make_canaries(b);
	b->answer = answer;
	b->patience_ms = 30;
	unsigned forms = forms_init(true);
	if (only != UINT64_MAX) {
		read_ranges();
		run_one(b, seed, only, forms);
		return canaries_live() && knows_nothing(b, BOX_RAM_BYTES) ? 0 : 1;
	}
	time_t end = time(NULL) + (time_t)seconds;
	while (good && time(NULL) < end) {
		if (!run_one(b, seed, runs, forms)) {
			runs++;
			continue;
		}
		shutdowns += b->cause == EXIT_SHUTDOWN;
		if (runs % 64 == 0)
			read_ranges();
		good = canaries_live();
		if (good && !knows_nothing(b, runs % 64 ? (uint64_t)LOW_BYTES : BOX_RAM_BYTES)) {
			good = !leaks_elsewhere(seed, runs);
			by_chance += good;
		}
		if (!good)
			printf("in run %llu of seed %llu\n", (unsigned long long)runs,
			       (unsigned long long)seed);
		runs++;
	}
	printf("btisolate: %llu hostile guests, %llu exits, %llu shutdowns, %u canaries, "
	       "%u numbers that are addresses by chance: %s\n",
	       (unsigned long long)runs, (unsigned long long)exits, (unsigned long long)shutdowns,
	       canaries, by_chance, good ? "nothing got out or in" : "FAILED");
	box_destroy(b);
	return good ? 0 : 1;
}

/* As the product does: with the process's memory in one slice, so that there is a window. */
int main(int argc, char **argv)
{
	return layout_run(run, argc, argv);
}
