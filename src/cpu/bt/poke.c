/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "cpu/bt/translate.h"

/*
 * Code of the window does not look for requests: to look costs two instructions in every turn of a loop, and flags.
 * Who makes a request while such code runs pokes it instead:
 *
 *	vcpu_request --> bt_poke: a signal to the thread
 *	the handler: which block is running? A byte that faults (CLI) goes over the first of its code, and of
 *	its loop (loop.c)
 *	the block, when it is next come to --> SIGSEGV --> `leave`: to C, with all as at its begin
 *	bt_run: the bytes are as they were
 *
 * So the code goes on to the next turn of the loop that it is in; or, if it is in none, forward, and comes to another
 * loop or to C. The handler has itself called again after a while, for that, and where it was not a block's code
 * that ran: until the code is left. Which blocks are running is as random as the time, so an endless way through
 * the code is met in one of its blocks soon, and left with its next turn.
 *
 * A signal takes microseconds. While there are many requests, from a network for instance, code that looks for them runs
 * instead: another translation mode (MODE_KEY_POLLS).
 *
 * The vCPU's thread alone changes these bytes, between instructions of translated code or in C. Others change jumps,
 * so a block that is no more than a jump looks for requests (translate.c).
 */
enum {
	AGAIN_NS = 50000, /* the first time, then twice as long each time */
	AGAIN_MAX_NS = 1000000,
	CLI = 0xfa,
	/* So many within so long cost a twentieth of the time, as much as looking does. */
	OFTEN = 32,
	OFTEN_NS = 16000000,
	POLLS_NS = 1000000000, /* then it looks for so long */
};

bool bt_poke_bind(struct soft_cpu *c)
{
	struct sigevent how = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = BT_POKE_SIGNAL};
	struct bt_cpu *k = &c->bt;

	how._sigev_un._tid = gettid();
	bt_poke_unbind(c);
	k->thread = pthread_self();
	k->can_be_poked = timer_create(CLOCK_MONOTONIC, &how, &k->again) == 0;
	return k->can_be_poked;
}

void bt_poke_unbind(struct soft_cpu *c)
{
	if (c->bt.can_be_poked)
		timer_delete(c->bt.again);
	c->bt.can_be_poked = false;
}

void bt_poke(struct vcpu *v)
{
	struct soft_cpu *c = (struct soft_cpu *)v;

	if (atomic_load(&c->bt.unpolled))
		pthread_kill(c->bt.thread, BT_POKE_SIGNAL);
}

static void set_unpolled(struct soft_cpu *c, bool on)
{
	if (on || atomic_load_explicit(&c->bt.unpolled, memory_order_relaxed))
		atomic_store(&c->bt.unpolled, on);
}

bool bt_run_mode(struct soft_cpu *c)
{
	const uint16_t key = c->translator->mode_keys[c->bt.mode];
	const bool unpolled = (key & (MODE_KEY_WINDOW | MODE_KEY_POLLS)) == MODE_KEY_WINDOW;

	/* In this order: who makes a request looks at it afterwards. */
	set_unpolled(c, unpolled);
	return !unpolled || !atomic_load(&c->vcpu.requests);
}

/* ---- where it comes too dear ---- */

bool bt_polls(const struct soft_cpu *c)
{
	return c->bt.polls_until && clock_ns() < c->bt.polls_until;
}

void bt_poke_tick(struct soft_cpu *c)
{
	if (!c->bt.polls_until || bt_polls(c))
		return;
	c->bt.polls_until = 0;
	c->bt.mode_known = false;
}

/* There have been OFTEN. */
static void look_at_rate(struct bt_cpu *k)
{
	const uint64_t now = clock_ns();

	if (now - k->pokes_since < OFTEN_NS) {
		k->polls_until = now + POLLS_NS;
		k->mode_known = false;
	}
	k->pokes_since = now;
	k->pokes = 0;
}

/* ---- traps ---- */

static uint8_t *writable(const struct bt *bt, const uint8_t *at)
{
	return bt->code.rw + (at - bt->code.rx);
}

static void remove_trap(const struct bt *bt, const struct bt_trap *t)
{
	*writable(bt, t->at) = t->byte;
}

void bt_code_left(struct soft_cpu *c)
{
	const struct itimerspec never = {0};
	struct bt_cpu *k = &c->bt;

	set_unpolled(c, false);
	if (k->pokes >= OFTEN)
		look_at_rate(k);
	if (!k->poked)
		return;
	k->poked = false;
	timer_settime(k->again, 0, &never, NULL);
	while (k->traps)
		remove_trap(c->translator, &k->trap[--k->traps]);
}

static void set_trap(struct soft_cpu *c, const struct bt_block *b, const uint8_t *at)
{
	const struct bt *bt = c->translator;
	struct bt_cpu *k = &c->bt;

	for (unsigned n = 0; n < k->traps; n++)
		if (k->trap[n].at == at)
			return;
	if (k->traps == BT_TRAPS) { /* the oldest has not been come to */
		remove_trap(bt, &k->trap[0]);
		memmove(&k->trap[0], &k->trap[1], --k->traps * sizeof(k->trap[0]));
	}
	k->trap[k->traps++] = (struct bt_trap){
		.at = at, .byte = *writable(bt, at), .block = (uint32_t)(b - bt->blocks)};
	*writable(bt, at) = CLI;
}

void bt_poked(struct soft_cpu *c, const ucontext_t *u)
{
	struct bt_cpu *k = &c->bt;
	const int kept = errno;

	k->pokes++; /* also those that come too late */
	if (!atomic_load(&k->unpolled) || !atomic_load(&c->vcpu.requests))
		return;
	const struct bt_block *b =
		bt_window_block_at(c->translator, (const uint8_t *)u->uc_mcontext.gregs[REG_RIP]);
	/* What a dead one leads to is C. */
	if (b && !b->dead) {
		set_trap(c, b, b->main);
		if (b->loop)
			set_trap(c, b, (const uint8_t *)b->main + b->loop);
	}
	if (!k->poked)
		k->again_ns = AGAIN_NS;
	else if (k->again_ns < AGAIN_MAX_NS)
		k->again_ns *= 2;
	k->poked = true;
	const struct itimerspec soon = {.it_value = {.tv_nsec = k->again_ns}};
	timer_settime(k->again, 0, &soon, NULL);
	errno = kept;
}

bool bt_poke_caught(struct soft_cpu *c, ucontext_t *u)
{
	const struct bt *bt = c->translator;
	greg_t *r = u->uc_mcontext.gregs;

	for (unsigned n = 0; n < c->bt.traps; n++) {
		const struct bt_trap *t = &c->bt.trap[n];
		const struct bt_block *b = &bt->blocks[t->block];
		if ((const uint8_t *)r[REG_RIP] != t->at)
			continue;
		if (t->at == b->main && b->flags == FLAGS_HOST)
			c->bt.flags = bt_parked((uint64_t)r[REG_EFL]);
		r[REG_R11] = (greg_t)bt_rip_of(bt, b);
		r[REG_RIP] = (greg_t)bt->thunks.leave;
		return true;
	}
	return false;
}
