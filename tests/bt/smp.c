/* SPDX-License-Identifier: Apache-2.0 */
#include "bt.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * btsmp: two vCPUs on shared memory. Litmus tests, whose results must be among those that x86-TSO
 * allows (Owens, Sarkar, Sewell 2009; SDM Vol. 3, 9.2.3); counters that must be exact; code and
 * page tables changed by one processor under the other.
 *
 *	btsmp ENGINE [ROUNDS [TEST]]	TEST: the number of one; all without
 */
extern const uint8_t smp_begin[], smp_end[], smp_ipi[];
extern const uint32_t smp_entries[][2];

enum { CELLS = 16384, ROUNDS = 3 };

/* Results of one cell: two of each side, and the variables in the end. */
struct cell {
	uint32_t x, y, a0, a1, b0, b1;
};

static bool not_both_zero(const struct cell *c)
{
	return c->a0 || c->b0;
}

static bool mp(const struct cell *c)
{
	return !(c->b0 == 1 && c->b1 == 0);
}

static bool lb(const struct cell *c)
{
	return !(c->a0 == 1 && c->b0 == 1);
}

static bool two_writes(const struct cell *c)
{
	return !(c->x == 1 && c->y == 1);
}

static bool forwarded(const struct cell *c)
{
	return c->a0 == 1 && c->b0 == 1;
}

static bool in_order(const struct cell *c)
{
	return c->b0 <= c->b1;
}

static bool whole(const struct cell *c)
{
	return c->b0 == c->b1 && (c->b0 == 0 || c->b0 == UINT32_MAX);
}

static bool anything(const struct cell *c)
{
	(void)c;
	return true;
}

/* What a counter must be after n turns of each of the two. */
enum check { LITMUS, COUNTER, SPLIT, CROSS, WIDE, BITS, WRONG };
static const struct test {
	const char *name;
	bool (*allowed)(const struct cell *c);
	enum check check;
	uint32_t times;
	unsigned more; /* rounds: for what goes wrong only when an engine makes room for blocks */
} tests[] = {
	{"store buffering", anything, LITMUS, CELLS},
	{"store buffering, MFENCE", not_both_zero, LITMUS, CELLS},
	{"store buffering, XCHG", not_both_zero, LITMUS, CELLS},
	{"store buffering, LOCK ADD", not_both_zero, LITMUS, CELLS},
	{"message passing", mp, LITMUS, CELLS},
	{"load buffering", lb, LITMUS, CELLS},
	{"two writes each", two_writes, LITMUS, CELLS},
	{"own stores first", forwarded, LITMUS, CELLS},
	{"reads in order", in_order, LITMUS, CELLS},
	{"whole quadwords", whole, LITMUS, CELLS},
	{"LOCK INC", NULL, COUNTER, 100000},
	{"LOCK XADD", NULL, COUNTER, 100000},
	{"LOCK CMPXCHG", NULL, COUNTER, 100000},
	{"LOCK INC over a line's end", NULL, SPLIT, 2000},
	{"LOCK INC over a page's end", NULL, CROSS, 20000},
	{"LOCK XADD of R11", NULL, COUNTER, 100000},
	{"LOCK CMPXCHG16B", NULL, WIDE, 50000},
	{"XCHG as a lock", NULL, COUNTER, 20000},
	{"LOCK BTS", NULL, BITS, 20000},
	{"code changed by the other", NULL, WRONG, 3000},
	{"code changed by the other while it is run", NULL, WRONG, 3000, 100},
	{"pages changed by the other", NULL, WRONG, 3000},
};
enum { TESTS = sizeof(tests) / sizeof(tests[0]) };

/* ---- the machine ---- */

static void prepare(struct box *b)
{
	uint64_t ipi = HIGH + GPA_SPARE + (uint64_t)(smp_ipi - smp_begin);

	memcpy(b->ram + GPA_SPARE, smp_begin, (size_t)(smp_end - smp_begin));
	box_put64(b, GPA_IDT + 16 * IPI_VECTOR,
		  (ipi & 0xffff) | SEL_KERNEL << 16 | UINT64_C(0x8e00) << 32 |
			  (ipi >> 16 & 0xffff) << 48);
	box_put64(b, GPA_IDT + 16 * IPI_VECTOR + 8, ipi >> 32);
	for (uint32_t k = 0; k < 4; k++) { /* mov eax, k; ret; and k at 64 */
		uint8_t *page = b->ram + GPA_FOUR + k * PAGE;
		page[0] = 0xb8;
		memcpy(page + 1, &k, 4);
		page[5] = 0xc3;
		memcpy(page + 64, &k, 4);
	}
	/* The page tables of user code are the kernel's to use here. */
	box_put64(b, GPA_PT_CODE + 8 * (ALT_BASE >> 12 & 511), GPA_FOUR | 3);
}

struct side {
	struct box *box;
	unsigned n;
	const struct test *test;
	struct cpu_state state;
	enum exit_cause end;
};

static void *run_side(void *opaque)
{
	struct side *s = opaque;
	struct box *b = s->box;
	struct box_cpu *cpu = &b->cpu[s->n], *other = &b->cpu[!s->n];
	struct exit exit = {.cause = EXIT_INTERRUPTED};
	struct error err;

	s->end = EXIT_ERROR;
	if (b->ops->set_state(cpu->vcpu, &s->state, &err))
		return NULL;
	for (;;) {
		b->ops->run(cpu->vcpu, &exit);
		if (exit.cause == EXIT_PIO_OUT && exit.pio.port == PORT_IPI) {
			atomic_store(&other->ipi, true);
			vcpu_request(other->vcpu, VCPU_REQ_IRQ);
		} else if (exit.cause != EXIT_INTERRUPTED) {
			break;
		}
	}
	s->end = exit.cause;
	b->ops->get_state(cpu->vcpu, &s->state);
	return NULL;
}

static bool run_once(struct box *b, const struct test *t)
{
	struct side side[2];
	pthread_t thread[2];

	memset(b->ram + GPA_SMP, 0, S_BYTES);
	memset(b->ram + GPA_SMP + S_PLACE, 0xff, 4);
	memset(b->ram + GPA_SMP + S_PLACE + 64, 0xff, 4);
	memset(b->ram + GPA_CELLS, 0, CELLS * CELL_BYTES);
	for (unsigned n = 0; n < 2; n++) {
		struct cpu_state *s = &side[n].state;
		side[n].box = b;
		side[n].n = n;
		side[n].test = t;
		*s = b->start;
		s->rip = HIGH + GPA_SPARE + smp_entries[t - tests][n];
		s->gpr[RDI] = HIGH + GPA_SMP;
		s->gpr[RSI] = HIGH + GPA_CELLS;
		s->gpr[RCX] = t->times;
		s->gpr[RSP] = HIGH + GPA_STACK_TOP - n * 0x1000;
	}
	for (unsigned n = 0; n < 2; n++)
		if (pthread_create(&thread[n], NULL, run_side, &side[n]))
			abort();
	for (unsigned n = 0; n < 2; n++)
		pthread_join(thread[n], NULL);
	for (unsigned n = 0; n < 2; n++)
		if (side[n].end != EXIT_HLT) {
			printf("# vCPU %u ended with %s at %llx\n", n, exit_cause_name(side[n].end),
			       (unsigned long long)side[n].state.rip);
			return false;
		}
	return true;
}

/* ---- judging ---- */

static uint64_t shared(const struct box *b, unsigned at)
{
	return box_get64(b, GPA_SMP + at);
}

static bool judge_cells(const struct box *b, const struct test *t, uint64_t *both_zero)
{
	for (uint32_t k = 0; k < CELLS; k++) {
		const uint8_t *at = b->ram + GPA_CELLS + k * CELL_BYTES;
		struct cell c;
		memcpy(&c.x, at, 4);
		memcpy(&c.y, at + 64, 4);
		memcpy(&c.a0, at + CELL_OUT0, 8);
		memcpy(&c.b0, at + CELL_OUT1, 8);
		*both_zero += !c.a0 && !c.b0;
		if (t->allowed(&c))
			continue;
		printf("# cell %u: x %u, y %u, first %u %u, second %u %u\n", k, c.x, c.y, c.a0,
		       c.a1, c.b0, c.b1);
		return false;
	}
	return true;
}

static bool judge(const struct box *b, const struct test *t, uint64_t *both_zero)
{
	uint64_t got = shared(b, S_COUNTER), want = 2 * (uint64_t)t->times;

	switch (t->check) {
	case LITMUS:
		return judge_cells(b, t, both_zero);
	case SPLIT:
		got = shared(b, S_SPLIT);
		break;
	case CROSS:
		got = shared(b, S_CROSS);
		break;
	case WIDE:
		got = shared(b, S_WIDE);
		if (got != shared(b, S_WIDE + 8))
			got = 0;
		break;
	case BITS:
		want = t->times;
		break;
	case WRONG:
		got = shared(b, S_WRONG);
		want = 0;
		break;
	default:
		break;
	}
	if (got == want)
		return true;
	printf("# counted %llu, not %llu\n", (unsigned long long)got, (unsigned long long)want);
	return false;
}

int main(int argc, char **argv)
{
	const char *engine = argc > 1 ? argv[1] : "bt";
	unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : ROUNDS;
	const unsigned only = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 0) : 0;
	unsigned failed = 0;
	struct error err;
	struct box *b;

	if (box_create(&b, engine, 2, 0, &err)) {
		fprintf(stderr, "btsmp: %s\n", err.text);
		return 125;
	}
	prepare(b);
	for (unsigned k = 0; k < TESTS; k++) {
		uint64_t both_zero = 0;
		bool good = true;
		if (only && only != k + 1)
			continue;
		for (unsigned n = 0; n < rounds + tests[k].more && good; n++)
			good = run_once(b, &tests[k]) && judge(b, &tests[k], &both_zero);
		printf("%sok %u - %s: %s", good ? "" : "not ", k + 1, engine, tests[k].name);
		if (k == 0) /* not a must, but a sign that the test can see something */
			printf(" (both zero: %llu)", (unsigned long long)both_zero);
		printf("\n");
		fflush(stdout);
		failed += !good;
	}
	printf("1..%u\n", TESTS);
	box_destroy(b);
	return failed ? 1 : 0;
}
