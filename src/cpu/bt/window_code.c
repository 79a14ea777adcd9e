/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/window.h"

#include <string.h>

/*
 * Code pages that links trust. A jump from one code page to another looks whether that one is still mapped, as
 * address spaces take turns and only who runs knows (bt.c: page_id[]). In a large program that is every call and
 * every return. The window is one address space's, and what takes pages out of it is known: so its code pages
 * are looked at by who changes them, not by who jumps to them.
 *
 *	found by a fetch			trusted; links that lead there lose their check
 *	INVLPG					not any more; they get it back
 *	another flush, another owner		all are looked at anew before user code runs next, with the
 *						window's pages (window_fill.c)
 *
 * As with the window, there is one vCPU, and it is in C when links are changed.
 */
static uint32_t *slot_of(struct bt_window *w, uint64_t gva)
{
	return &w->code_hash[(gva >> MEM_PAGE_SHIFT) % WINDOW_CODE_HASH];
}

void bt_window_trust(struct soft_cpu *c, uint32_t page)
{
	struct bt *bt = c->translator;
	struct bt_window *w = bt->window;
	struct bt_page *p = &bt->pages[page];

	if (p->trusted || !(bt->mode_keys[p->mode] & MODE_KEY_WINDOW))
		return;
	uint32_t *slot = slot_of(w, p->gva);
	w->code[w->codes++] = page;
	p->trusted = w->codes;
	p->next_trusted = *slot;
	*slot = page;
	bt_settle_page(bt, page);
}

uint32_t bt_window_trusted(const struct bt *bt, uint64_t gva, unsigned mode)
{
	if (!bt->window || !(bt->mode_keys[mode] & MODE_KEY_WINDOW))
		return 0;
	uint32_t id = *slot_of(bt->window, gva);
	while (id && (bt->pages[id].gva != gva || bt->pages[id].mode != mode))
		id = bt->pages[id].next_trusted;
	return id;
}

static void forget(struct bt *bt, struct bt_window *w, uint32_t page)
{
	struct bt_page *p = &bt->pages[page];
	const uint32_t last = w->code[--w->codes];
	uint32_t *at = slot_of(w, p->gva);

	while (*at != page)
		at = &bt->pages[*at].next_trusted;
	*at = p->next_trusted;
	w->code[p->trusted - 1] = last;
	bt->pages[last].trusted = p->trusted;
	p->trusted = p->next_trusted = 0;
}

void window_distrust(struct soft_cpu *c, struct bt_window *w, uint32_t n)
{
	const uint32_t page = w->code[n];

	bt_lock(c);
	forget(c->translator, w, page);
	bt_settle_page(c->translator, page);
	bt_unlock(c);
}

void window_distrust_at(struct soft_cpu *c, struct bt_window *w, uint64_t gva)
{
	const struct bt *bt = c->translator;
	uint32_t next;

	for (uint32_t id = *slot_of(w, gva); id; id = next) {
		next = bt->pages[id].next_trusted;
		if (bt->pages[id].gva != (gva & PAGE_MASK))
			continue;
		window_distrust(c, w, bt->pages[id].trusted - 1);
		bt_serialize();
	}
}

void window_forget_code(struct bt_window *w)
{
	w->codes = 0;
	memset(w->code_hash, 0, WINDOW_CODE_HASH * sizeof(*w->code_hash));
}
