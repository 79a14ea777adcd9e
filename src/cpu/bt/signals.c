/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "cpu/bt/translate.h"

/*
 * Signals of a vCPU's thread. While translated code runs RSP is the guest's, so nothing may come that has not a stack
 * of its own; all are blocked but those of faults, which come from
 *
 *	the shadow stack's guard page		(shadow.c)
 *	operands in the window			(window_fault.c)
 *	code that is to be left			(poke.c)
 *	hosts that do not like the guest's RSP	(here)
 *
 * or are somebody else's; and the one that has it left.
 */
enum { HANDLER_STACK = 64 << 10 };

static _Thread_local struct soft_cpu *bound; /* whose code this thread runs */

int bt_signals_create(struct soft_cpu *c)
{
	c->bt.handler_stack = mmap(NULL, HANDLER_STACK, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c->bt.handler_stack != MAP_FAILED)
		return 0;
	c->bt.handler_stack = NULL;
	return -1;
}

void bt_signals_destroy(struct soft_cpu *c)
{
	const stack_t none = {.ss_flags = SS_DISABLE};

	if (!c->bt.handler_stack)
		return;
	bt_poke_unbind(c);
	if (bound == c) {
		sigaltstack(&none, NULL);
		bound = NULL;
	}
	munmap(c->bt.handler_stack, HANDLER_STACK);
	c->bt.handler_stack = NULL;
}

/* ---- faults ---- */

/*
 * There are hosts (PVM's are) that do not come back from an interrupt to a program whose RSP is not canonical,
 * but do its instructions for it, as far as they know how, and give it a fault where they do not: #GP, #UD, or
 * #PF with an address of nobody's. RSP is the guest's here, which may hold anything. So the program comes back
 * with another RSP, to code that loads the right one and goes on.
 */
static bool refused_rsp(struct soft_cpu *c, greg_t *r)
{
	const struct bt *bt = c->translator;
	const uint64_t at = (uint64_t)r[REG_RIP], go_on = (uint64_t)bt->thunks.go_on;

	if (cpu_is_canonical((uint64_t)r[REG_RSP]) || at - (uint64_t)bt->code.rx >= bt->code.bytes)
		return false;
	if (at < go_on || at >= (uint64_t)bt->thunks.gone_on) { /* else it has been told already */
		c->bt.refused.rsp = (uint64_t)r[REG_RSP];
		c->bt.refused.at = at;
	}
	r[REG_RSP] = (greg_t)c->bt.host_rsp;
	r[REG_RIP] = (greg_t)go_on;
	return true;
}

/* SIGBUS is what a stack address that is not canonical comes as. */
static const int faults[] = {SIGSEGV, SIGBUS, SIGILL};
enum { FAULTS = sizeof(faults) / sizeof(faults[0]) };
static struct sigaction before[FAULTS];

static const struct sigaction *before_us(int signal)
{
	unsigned n = 0;

	while (n + 1 < FAULTS && faults[n] != signal)
		n++;
	return &before[n];
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
	struct soft_cpu *c = bound;
	ucontext_t *u = context;

	if (c && (bt_shadow_caught(c, info, u) || bt_poke_caught(c, u) ||
		  bt_window_caught(c, info, u) || refused_rsp(c, u->uc_mcontext.gregs)))
		return;
	/* Of somebody else: to who was here first, on this stack, or it comes again and ends the process. */
	const struct sigaction *other = before_us(signal);
	if (other->sa_flags & SA_SIGINFO)
		other->sa_sigaction(signal, info, context);
	else if (other->sa_handler != SIG_DFL && other->sa_handler != SIG_IGN)
		other->sa_handler(signal);
	else
		sigaction(signal, other, NULL);
}

static void on_poke(int signal, siginfo_t *info, void *context)
{
	struct soft_cpu *c = bound;
	ucontext_t *u = context;

	(void)signal;
	(void)info;
	if (!c)
		return;
	bt_poked(c, u);
	refused_rsp(c, u->uc_mcontext.gregs);
}

static void install(void)
{
	struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	struct sigaction poke = {.sa_sigaction = on_poke,
				 .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};

	/* One after another: both look at what the other changes. */
	sigemptyset(&act.sa_mask);
	sigaddset(&act.sa_mask, BT_POKE_SIGNAL);
	sigemptyset(&poke.sa_mask);
	sigaction(BT_POKE_SIGNAL, &poke, NULL);
	for (unsigned n = 0; n < FAULTS; n++)
		sigaction(faults[n], &act, &before[n]);
}

bool bt_bind_thread(struct soft_cpu *c)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	const stack_t alternate = {.ss_sp = c->bt.handler_stack, .ss_size = HANDLER_STACK};
	stack_t had;
	sigset_t set;

	if (bound == c)
		return false;
	bound = c;
	pthread_once(&once, install);
	/* One that is there is a sanitizer's, who will want it back. */
	if (sigaltstack(NULL, &had) < 0 || (had.ss_flags & SS_DISABLE))
		sigaltstack(&alternate, NULL);
	sigfillset(&set);
	for (unsigned n = 0; n < FAULTS; n++)
		sigdelset(&set, faults[n]);
	if (bt_poke_bind(c))
		sigdelset(&set, BT_POKE_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	return true;
}
