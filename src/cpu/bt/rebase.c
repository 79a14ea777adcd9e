/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/bt.h"

/*
 * Code that moves. Every process has shared libraries and position-independent programs at addresses
 * of its own, so each one that is started would need copies of the same blocks (relocate.c), and those
 * of processes long gone would fill the cache. So where a guest-physical page has been met at many
 * addresses, the one that has not been looked up for the longest time is given up, and its blocks
 * become those of the new address, where they are:
 *
 *	values that depend on the guest address are moved (struct reloc)
 *	links within the page stay, as both ends move
 *	links from and to other pages sleep, unless the other page has moved by as much already; when
 *	it does, they wake. So a library's pages come one by one, each with its links
 *
 * Code is changed while nobody runs it: with one vCPU, which is in C now. With several, others might
 * be in these very blocks, and copies are made instead.
 */
enum { ALIASES_MAX = 16 };

/* Who changes code under another address than it runs at has to serialize before running it (SDM
 * Vol. 3, 8.1.3); IRET is the one instruction for that which no hypervisor intercepts. */
void bt_serialize(void)
{
	uint64_t scratch;

	__asm__ volatile("mov %%ss, %k0\n\t"
			 "push %q0\n\t"
			 "lea 8(%%rsp), %q0\n\t"
			 "push %q0\n\t"
			 "pushfq\n\t"
			 "mov %%cs, %k0\n\t"
			 "push %q0\n\t"
			 "lea 1f(%%rip), %q0\n\t"
			 "push %q0\n\t"
			 "iretq\n"
			 "1:"
			 : "=&r"(scratch)
			 :
			 : "memory", "cc");
}

/* May this vCPU be on its way from or to the page? */
static bool in_use(const struct soft_cpu *c, uint32_t id)
{
	const struct bt_page *p = &c->translator->pages[id];
	const unsigned slot = (p->gva >> MEM_PAGE_SHIFT) % BT_CODE_PAGES;

	return c->bt.page_id[p->mode][slot] == id || p->trusted ||
	       (c->bt.exit && bt_from(c->translator, c->bt.exit)->page == id);
}

/* The page to give up, or 0. */
static uint32_t find_oldest(const struct soft_cpu *c, uint32_t first)
{
	const struct bt *bt = c->translator;
	uint32_t oldest = 0, id = first;
	unsigned count = 0;

	do {
		if (bt_may_move(bt, id) && !in_use(c, id) &&
		    (!oldest || bt->pages[id].used < bt->pages[oldest].used))
			oldest = id;
		count++;
		id = bt->pages[id].next_alias;
	} while (id != first);
	return count < ALIASES_MAX ? 0 : oldest;
}

static void move_block(struct bt *bt, struct bt_block *b, uint64_t by)
{
	bt_move_values(bt, b, by);
	bt_settle_entries(bt, b);
	bt_tell_perf(bt, b);
	for (struct bt_exit *x = bt_first_exit(bt, b); x < bt_end_exit(bt, b); x++)
		x->rip += by;
}

/* After all blocks of the page have moved. */
static void settle_links(struct bt *bt, struct bt_block *b)
{
	for (struct bt_exit *x = bt_first_exit(bt, b); x < bt_end_exit(bt, b); x++)
		if (x->linked && bt_to(bt, x)->page != b->page)
			bt_settle_link(bt, x);
	for (struct bt_exit *x = bt_exit_at(bt, b->in); x; x = bt_exit_at(bt, x->next_in))
		if (bt_from(bt, x)->page != b->page)
			bt_settle_link(bt, x);
}

/* What cannot move goes: blocks across pages, and what stands for their other end. */
static void drop_unmovable(struct bt *bt, struct bt_page *p)
{
	struct bt_block **at = &p->blocks;

	while (*at) {
		struct bt_block *b = *at, *whole = b->owner ? b->owner : b;
		if (!whole->dead && (whole->page2 || !whole->reloc))
			bt_block_kill(bt, whole);
		if (whole->dead)
			*at = b->next_in_page;
		else
			at = &b->next_in_page;
	}
}

static void move_page(struct bt *bt, uint32_t id, uint64_t gva)
{
	struct bt_page *p = &bt->pages[id];
	const uint64_t by = gva - p->gva;

	drop_unmovable(bt, p);
	bt_page_move(bt, id, gva);
	for (struct bt_block *b = p->blocks; b; b = b->next_in_page)
		move_block(bt, b, by);
	for (struct bt_block *b = p->blocks; b; b = b->next_in_page)
		settle_links(bt, b);
	bt_serialize();
}

uint32_t bt_rebase(struct soft_cpu *c, uint64_t gva, uint64_t gpa, unsigned mode)
{
	struct bt *bt = c->translator;

	if (bt->cpu_count > 1 || !bt_may_move_to(bt, gva, mode))
		return 0;
	const uint32_t alias = bt_page_alias(bt, gpa, mode), id = alias ? find_oldest(c, alias) : 0;
	if (id)
		move_page(bt, id, gva);
	return id;
}
