/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program whose code pages change places while it runs: another page comes behind an address that its calls,
 * jumps and returns have gone to many times, by INVLPG or by a load of CR3, with another PCID as well; or there is
 * none, or none that may be run.
 */
#include "guest.h"

#define BASE FAR_BASE
#define RW (PTE_P | PTE_W | PTE_U)

static u64 *table;

enum { TURNS = 60, ROUNDS = 300 };

/*
 * Pages for the first place (callers) and for the second (callees), each with two contents of one shape. RDI: how
 * often the caller calls; RSI: at which of these the callee stops and lets others look.
 */
extern u8 caller_a[], caller_b[], callee_a[], callee_b[];
#define CALLER(NAME, BEHIND, JUMPED)                                                               \
	".balign 4096, 0xcc\n" NAME ":\n"                                                          \
	"	xor %eax, %eax\n"                                                                        \
	"1:	call . + 5 + (4096 - (. + 5 - " NAME "))\n"                                        \
	"	add $" BEHIND ", %rax\n"                                                           \
	"	jmp . + 5 + (4096 + 64 - (. + 5 - " NAME "))\n"                                    \
	"	.org " NAME " + 128, 0xcc\n"                                                       \
	"	add $" JUMPED ", %rax\n"                                                           \
	"	dec %rdi\n"                                                                              \
	"	jnz 1b\n"                                                                                \
	"	int3\n"
#define CALLEE(NAME, CALLED, JUMPED)                                                               \
	".balign 4096, 0xcc\n" NAME ":\n"                                                          \
	"	add $" CALLED ", %rax\n"                                                           \
	"	cmp %rsi, %rdi\n"                                                                        \
	"	jne 2f\n"                                                                                \
	"	int3\n"                                                                                  \
	"2:	ret\n"                                                                                 \
	"	.org " NAME " + 64, 0xcc\n"                                                        \
	"	add $" JUMPED ", %rax\n"                                                           \
	"	.byte 0xe9\n"                                                                            \
	"	.long 128 - 4096 - (. + 4 - " NAME ")\n"
asm(".pushsection .data\n" CALLER("caller_a", "0x10", "0x100") CALLER("caller_b", "0x20", "0x200")
	    CALLEE("callee_a", "1", "0x1000")
		    CALLEE("callee_b", "2", "0x2000") ".balign 4096, 0xcc\n"
						      ".popsection\n");

enum how { BY_INVLPG, BY_CR3, BY_INVLPG_OF_OTHERS, BY_PCID };

static void set(u32 page, u64 entry, enum how how)
{
	table[page] = entry;
	if (how == BY_CR3)
		write_cr3(read_cr3());
	else if (how == BY_PCID)
		write_cr3(read_cr3() ^ 1);
	else
		invlpg((void *)(BASE + page * 4096ul));
	if (how == BY_INVLPG_OF_OTHERS) /* and of what has nothing to do with it */
		invlpg((void *)(BASE + 0x100000));
}

static u64 frame(const u8 *page)
{
	return (ulong)page | RW;
}

static struct regs program(ulong turns, ulong stop)
{
	struct regs r;

	regs_init(&r, RING3, (void *)BASE);
	r.di = turns;
	r.si = stop;
	return r;
}

/* What all turns add, with what was there before the stop and after it. */
static ulong sum(ulong before, ulong after, ulong stop)
{
	return (TURNS - stop) * before + stop * after;
}

static const ulong callers[] = {0x110, 0x220}, callees[] = {0x1001, 0x2002};

/* The callee's page becomes another at the stop, in which it is: the rest of this turn is the new one's. */
static bool callee_swapped(u32 n, enum how how)
{
	const u32 a = n & 1, b = a ^ 1, stop = 1 + n % TURNS;
	struct regs r = program(TURNS, stop);

	set(0, frame(caller_a), BY_INVLPG);
	set(1, frame(a ? callee_b : callee_a), BY_INVLPG);
	if (run(&r) != 3)
		return false;
	set(1, frame(b ? callee_b : callee_a), how);
	r = trap.r;
	if (run(&r) != 3)
		return false;
	/* Of the turn with the stop, the call is the old one's. */
	const ulong own = callees[b] & 0xff, others = callees[a] & 0xff;
	return trap.r.ax ==
	       sum(callers[0] + callees[a], callers[0] + callees[b], stop) - own + others;
}

/* The caller's page becomes another: what the callee returns to. */
static bool caller_swapped(u32 n, enum how how)
{
	const u32 a = n & 1, b = a ^ 1, stop = 1 + n % TURNS;
	struct regs r = program(TURNS, stop);

	set(0, frame(a ? caller_b : caller_a), BY_INVLPG);
	set(1, frame(callee_a), BY_INVLPG);
	if (run(&r) != 3)
		return false;
	set(0, frame(b ? caller_b : caller_a), how);
	r = trap.r;
	return run(&r) == 3 &&
	       trap.r.ax == sum(callers[a] + callees[0], callers[b] + callees[0], stop);
}

/* The callee's page is taken away: the next call of it faults there, and goes on when it is back. */
static bool callee_gone(u32 n, enum how how, u64 entry, ulong error)
{
	const u32 stop = 2 + n % (TURNS - 2);
	struct regs r = program(TURNS, stop);

	set(0, frame(caller_a), BY_INVLPG);
	set(1, frame(callee_a), BY_INVLPG);
	if (run(&r) != 3)
		return false;
	set(1, entry, how);
	r = trap.r;
	/* In the page itself: at once, behind the INT3. */
	if (run(&r) != 14 || trap.r.err != error || trap.cr2 != r.ip)
		return false;
	set(1, frame(callee_a), BY_INVLPG);
	r = trap.r;
	return run(&r) == 3 && trap.r.ax == TURNS * (callers[0] + callees[0]);
}

/* The same while another page runs: the fault is at the call's target. */
static bool called_when_gone(enum how how, u64 entry, ulong error)
{
	struct regs r;

	set(0, frame(caller_a), BY_INVLPG);
	set(1, frame(callee_a), BY_INVLPG);
	for (u32 turn = 0; turn < 3; turn++) {
		r = program(TURNS, 0);
		if (run(&r) != 3 || trap.r.ax != TURNS * (callers[0] + callees[0]))
			return false;
	}
	set(1, entry, how);
	r = program(TURNS, 0);
	return run(&r) == 14 && trap.r.err == error && trap.cr2 == BASE + 4096 &&
	       trap.r.ip == BASE + 4096;
}

/* Without PCIDs the bit of CR3 means nothing. */
static bool has_pcid(void)
{
	u32 r[4];

	cpuid(1, 0, r);
	return r[2] & 1u << 17;
}

int main(void)
{
	static const char *const names[] = {"swapped by INVLPG", "swapped by CR3",
					    "swapped by INVLPG of several",
					    "swapped by a load of CR3 with another PCID"};
	static const char *const what[] = {
		"the callee's page",
		"the caller's page",
		"no page",
		"a page that must not run",
		"no page to be called",
		"none to be called that may run",
	};
	enum { CHECKS = sizeof(what) / sizeof(what[0]), USER = 4, FETCH = 16, PRESENT = 1 };

	table = far_table();
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
	for (enum how how = BY_INVLPG; how <= BY_PCID; how++) {
		if (how == BY_PCID && has_pcid())
			write_cr4(read_cr4() | CR4_PCIDE);
		const u64 nx = frame(callee_a) | PTE_NX;
		bool good[CHECKS];
		memset(good, true, sizeof(good));
		for (u32 n = 0; n < ROUNDS; n++) {
			good[0] &= callee_swapped(n, how);
			good[1] &= caller_swapped(n, how);
			good[2] &= callee_gone(n, how, 0, USER | FETCH);
			good[3] &= callee_gone(n, how, nx, USER | FETCH | PRESENT);
			good[4] &= called_when_gone(how, 0, USER | FETCH);
			good[5] &= called_when_gone(how, nx, USER | FETCH | PRESENT);
		}
		group(names[how]);
		for (u32 k = 0; k < CHECKS; k++)
			check(what[k], good[k]);
	}
	finish();
}
