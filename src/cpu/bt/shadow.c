/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/mman.h>

#include "cpu/bt/translate.h"

/*
 * Returns go where the processor expects: it keeps a stack of its own of where calls came from, and a
 * jump by a table, which is what a return of the guest's would be, is guessed wrongly half the time in a
 * large program. So a call of the guest's is also one of the host's, on a stack of host return addresses
 * (the shadow stack), and a return is one:
 *
 *	call:	(push the guest's return address)
 *		mov r10, rsp ; mov rsp, gs:[shadow] ; call entry
 *		mov gs:[shadow], rsp ; mov rsp, r10	the host returns to here, r11 = where the guest does
 *		cmp r11, rip behind the call ; jne dispatch
 *		jmp (the block there)
 *
 *	entry:	mov gs:[shadow], rsp ; mov rsp, r10
 *		(the block called)
 *
 *	return:	(pop the guest's return address to r11)
 *		mov r10, rsp ; mov rsp, gs:[shadow] ; ret
 *
 * Guests need not return where they called from, nor at all, and threads and processes of theirs take
 * turns: what is on the shadow stack is a guess, and compared. What counts is that whatever is on it is code
 * for just this mode and vCPU. So there is one stack for each mode; nothing but these calls writes to it; and
 * before the first of them, and after each flush, it is full of the address of code that dispatches.
 *
 * A loop may be made of returns alone, so those that are not to where a call came from look for requests.
 *
 * Where it is full, calls go on in its middle: the push meets a page that is not there, and the handler of
 * SIGSEGV sets RSP anew. Where it is empty, the last entry leads to code that does not take it off.
 */
enum {
	GUARD = MEM_PAGE_BYTES,
	ENTRIES = 1024,
	STACK = ENTRIES * sizeof(uint64_t),
	REGION = GUARD + STACK,
	MEMORY = BT_MODES * REGION,
};

static uint64_t *stack_of(const struct soft_cpu *c, unsigned mode)
{
	return (uint64_t *)(c->bt.shadow_memory + mode * REGION + GUARD);
}

int bt_shadow_create(struct soft_cpu *c)
{
	uint8_t *p = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -1;
	for (unsigned m = 0; m < BT_MODES; m++)
		if (mprotect(p + m * REGION, GUARD, PROT_NONE) < 0) {
			munmap(p, MEMORY);
			return -1;
		}
	c->bt.shadow_memory = p;
	return 0;
}

void bt_shadow_destroy(struct soft_cpu *c)
{
	if (!c->bt.shadow_memory)
		return;
	munmap(c->bt.shadow_memory, MEMORY);
	c->bt.shadow_memory = NULL;
}

void bt_shadow_reset(const struct bt *bt, struct soft_cpu *c)
{
	for (unsigned m = 0; m < BT_MODES; m++) {
		uint64_t *stack = stack_of(c, m);
		for (unsigned n = 0; n < ENTRIES; n++)
			stack[n] = (uint64_t)bt->thunks.stray[m];
		stack[ENTRIES - 1] = (uint64_t)bt->thunks.stray_last[m];
		c->bt.shadow[m] = (uint64_t)(stack + ENTRIES / 2);
	}
}

/* ---- where it is full ---- */

bool bt_shadow_caught(struct soft_cpu *c, const siginfo_t *info, ucontext_t *u)
{
	const uint64_t at = (uint64_t)info->si_addr - (uint64_t)c->bt.shadow_memory;

	if (at >= BT_MODES * REGION || at % REGION >= GUARD)
		return false;
	u->uc_mcontext.gregs[REG_RSP] =
		(greg_t)(stack_of(c, (unsigned)(at / REGION)) + ENTRIES / 2);
	return true;
}

/* ---- code ---- */

static size_t shadow_of(unsigned mode)
{
	return OFF(bt.shadow) + mode * sizeof(uint64_t);
}

/* RSP becomes the shadow stack's, the guest's is in T_INDEX; and back. */
static void to_shadow(struct emit *e, unsigned mode)
{
	e_mov_rr(e, T_INDEX, RSP);
	e_load(e, RSP, shadow_of(mode));
}

void bt_emit_from_shadow(struct emit *e, unsigned mode)
{
	e_store(e, shadow_of(mode), RSP);
	e_mov_rr(e, RSP, T_INDEX);
}

/* What a return comes to: goes on behind the call if that is where it goes. */
static void emit_landing(struct trans *t, const struct item *it, unsigned mode)
{
	struct emit *e = &t->e;
	const uint64_t next = it->rip + it->i.length;
	const uint64_t back = t->key & MODE_KEY_64 ? next : (uint32_t)next;

	bt_emit_from_shadow(e, mode);
	mov_rip(t, T_INDEX, back);
	e_rr(e, true, 0x39, T_INDEX, T_ADDR); /* cmp r11, r10 */
	e_jcc(e, CC_NE, t->bt->thunks.dispatch[mode]);
	note_reloc(t, RELOC_THUNK, e->p - 4);
	t->flags = FLAGS_PARKED;
	emit_far_exit(t, back);
}

static unsigned shadow_mode(struct trans *t)
{
	const unsigned mode = bt_mode_index(t->bt, t->key);

	if (mode < BT_MODES)
		return mode;
	t->failed = true;
	return 0;
}

void emit_shadow_call(struct trans *t, const struct item *it)
{
	const unsigned mode = shadow_mode(t);

	to_shadow(&t->e, mode);
	emit_call_exit(t, jump_target(it));
	emit_landing(t, it, mode);
}

void emit_shadow_call_on(struct trans *t, const struct item *it)
{
	struct emit *e = &t->e;
	const unsigned mode = shadow_mode(t);
	const enum flags_at flags = t->flags;

	to_shadow(e, mode);
	uint8_t *on = e_call_later(e);
	emit_landing(t, it, mode);
	e_patch(e, on);
	t->flags = flags;
	bt_emit_from_shadow(e, mode);
}

void emit_shadow_return(struct emit *e, unsigned mode)
{
	to_shadow(e, mode);
	e8(e, 0xc3);
}

void bt_make_shadow_thunks(struct bt *bt, struct emit *e, unsigned mode)
{
	struct bt_thunks *t = &bt->thunks;

	t->stray[mode] = (const void *)e_here(e);
	bt_emit_from_shadow(e, mode);
	t->dispatch[mode] = (const void *)e_here(e);
	emit_requests(e);
	e_jcc(e, CC_NE, t->leave);
	emit_dispatch(e, mode);
	t->stray_last[mode] = (const void *)e_here(e);
	e_mov_rr(e, RSP, T_INDEX);
	e_jmp(e, t->dispatch[mode]);
}
