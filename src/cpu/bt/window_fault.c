/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"
#include "cpu/bt/window.h"

/* From the host's instruction that faulted to the guest's: blocks of the window are listed by their place in the hot
 * code, and say where they reach operands (struct bt_site). */

enum { BLOCK_GRANULES = HOT_MAX / WINDOW_GRANULE + 1 };

static size_t granule_of(const struct bt *bt, const void *at)
{
	return (size_t)((const uint8_t *)at - bt->hot.rx) / WINDOW_GRANULE;
}

void bt_window_list(struct bt *bt, struct bt_block *b)
{
	struct bt_window *w = bt->window;
	_Atomic uint32_t *first = &w->near[granule_of(bt, b->main)];

	b->next_near = atomic_load(first);
	atomic_store(first, (uint32_t)(b - bt->blocks) + 1);
}

void bt_window_forget_blocks(struct bt *bt)
{
	struct bt_window *w = bt->window;

	if (!w)
		return;
	memset((void *)w->near, 0, w->granules * sizeof(*w->near));
	window_forget_code(w);
}

static const struct bt_site *find_site(const struct bt_block *b, const uint8_t *at)
{
	const uint8_t *main = b->main;

	for (unsigned n = 0; at >= main && n < b->sites; n++)
		if (main + b->site[n].at == at)
			return &b->site[n];
	return NULL;
}

/* #GP has no address (an alignment, a canonical form, a check), nor has a check by the table; and #PF may be
 * the host's own (shadow.c). */
static bool has_gva(const struct bt_window *w, const siginfo_t *info, const greg_t *r)
{
	enum { PF_FAULT = 14 };

	return r[REG_TRAPNO] == PF_FAULT && cpu_is_canonical((uint64_t)r[REG_RSP]) &&
	       (uint64_t)info->si_addr - (uint64_t)w->slices >= SLICES_BYTES;
}

const struct bt_block *bt_window_block_at(const struct bt *bt, const uint8_t *at)
{
	const struct bt_window *w = bt->window;

	if (!w || at < bt->hot.rx || at >= bt->hot.rx + bt->hot.bytes)
		return NULL;
	size_t g = granule_of(bt, at);
	for (unsigned n = 0; n < BLOCK_GRANULES; n++, g--) {
		for (uint32_t i = atomic_load(&w->near[g]); i; i = bt->blocks[i - 1].next_near) {
			const struct bt_block *b = &bt->blocks[i - 1];
			if (at >= (const uint8_t *)b->main &&
			    at < (const uint8_t *)b->main + b->hot_bytes)
				return b;
		}
		if (!g)
			break;
	}
	return NULL;
}

bool bt_window_caught(struct soft_cpu *c, const siginfo_t *info, ucontext_t *u)
{
	const struct bt *bt = c->translator;
	const struct bt_window *w = bt->window;
	greg_t *r = u->uc_mcontext.gregs;
	const uint8_t *at = (const uint8_t *)r[REG_RIP];
	enum { PF_WRITE = 2 };
	const struct bt_block *b = bt_window_block_at(bt, at);
	const struct bt_site *s = b ? find_site(b, at) : NULL;

	if (!s)
		return false;
	c->bt.fault = (struct bt_fault){
		.at = at,
		.rip = bt_rip_of(bt, b) + s->rip,
		.gva = has_gva(w, info, r) ? (uint64_t)info->si_addr : UINT64_MAX,
		.r10 = (uint64_t)r[REG_R10],
		.r11 = (uint64_t)r[REG_R11],
		.flags = (uint64_t)r[REG_EFL],
		.write = r[REG_ERR] & PF_WRITE,
		.block = (uint32_t)(b - bt->blocks),
		.flags_in_host = s->flags_in_host,
		.may_probe = s->may_probe,
	};
	r[REG_RIP] = (greg_t)bt->thunks.window;
	return true;
}
