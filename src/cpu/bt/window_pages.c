/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/window.h"

#include <stdlib.h>
#include <sys/mman.h>

/* What is mapped in the window, where, and where a page of the guest's memory may be written to. */

static uint32_t *slot_of(struct bt_window *w, uint64_t gva)
{
	return &w->hash[(gva >> MEM_PAGE_SHIFT) * UINT64_C(0x9e3779b97f4a7c15) >> 46];
}

struct window_page *window_find(struct bt_window *w, uint64_t gva)
{
	uint32_t n = *slot_of(w, gva);

	while (n && w->page[n - 1].gva != gva)
		n = w->page[n - 1].next;
	return n ? &w->page[n - 1] : NULL;
}

static void forget_written(struct bt_window *w, const struct window_page *p)
{
	uint32_t *at = &w->written[p->gpfn];

	if (!p->write)
		return;
	while (*at != (uint32_t)(p - w->page) + 1)
		at = &w->page[*at - 1].next_written;
	*at = p->next_written;
}

static void forget_page(struct bt_window *w, struct window_page *p)
{
	uint32_t *at = slot_of(w, p->gva), n = (uint32_t)(p - w->page) + 1;

	while (*at != n)
		at = &w->page[*at - 1].next;
	*at = p->next;
	forget_written(w, p);
	*p = (struct window_page){.next = w->unused};
	w->unused = n;
	w->live--;
}

static void unmap(uint64_t gva, uint64_t bytes)
{
	munmap((void *)gva, bytes);
}

void window_drop(struct bt_window *w, struct window_page *p)
{
	w->maps++;
	unmap(p->gva, MEM_PAGE_BYTES);
	forget_page(w, p);
}

void window_protect(struct bt_window *w, struct window_page *p)
{
	forget_written(w, p);
	p->write = false;
	w->maps += 2;
	mprotect((void *)p->gva, MEM_PAGE_BYTES, PROT_READ);
}

/* Everything outside of the monitor's slice and of the stack it began on is the window's. */
void window_drop_all(struct bt_window *w)
{
	if (!w->pages)
		return;
	unmap(WINDOW_LOW, LAYOUT_BASE - WINDOW_LOW);
	unmap(LAYOUT_END, w->stack.start - LAYOUT_END);
	if (w->stack.end < WINDOW_END)
		unmap(w->stack.end, WINDOW_END - w->stack.end);
	for (uint32_t n = 0; n < w->pages; n++)
		if (w->page[n].gva) {
			*slot_of(w, w->page[n].gva) = 0;
			forget_written(w, &w->page[n]);
		}
	w->pages = w->unused = w->live = w->maps = 0;
}

bool window_is_for(const struct bt_window *w, uint64_t gva)
{
	return gva >= WINDOW_LOW && gva < WINDOW_END && (gva < LAYOUT_BASE || gva >= LAYOUT_END) &&
	       (gva < w->stack.start || gva >= w->stack.end);
}

static struct window_page *new_page(struct bt_window *w, uint64_t gva)
{
	uint32_t n = w->unused;

	if (n) {
		w->unused = w->page[n - 1].next;
	} else {
		n = ++w->pages;
	}
	w->live++;
	struct window_page *p = &w->page[n - 1];
	*p = (struct window_page){.gva = gva, .next = *slot_of(w, gva)};
	*slot_of(w, gva) = n;
	return p;
}

static void note_page(struct bt_window *w, uint64_t gva, uint64_t gpa, bool write)
{
	struct window_page *p = window_find(w, gva);

	if (!p)
		p = new_page(w, gva);
	else
		forget_written(w, p);
	p->gpfn = (uint32_t)(gpa >> MEM_PAGE_SHIFT);
	p->write = write;
	if (!write)
		return;
	p->next_written = w->written[p->gpfn];
	w->written[p->gpfn] = (uint32_t)(p - w->page) + 1;
}

bool window_map(struct bt_window *w, const struct window_run *run)
{
	const size_t bytes = run->pages * (size_t)MEM_PAGE_BYTES;
	uint64_t offset;
	const int fd = mem_file(w->mem, (const void *)run->hva, &offset);

	if (fd < 0)
		return false; /* ROM */
	if (w->live + run->pages > WINDOW_PAGES || w->maps >= WINDOW_MAPS)
		window_drop_all(w);
	w->maps++;
	if (mmap((void *)run->gva, bytes, run->write ? PROT_READ | PROT_WRITE : PROT_READ,
		 MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, (off_t)offset) == MAP_FAILED) {
		window_drop_all(w); /* too many, most likely */
		return false;
	}
	for (size_t by = 0; by < bytes; by += MEM_PAGE_BYTES)
		note_page(w, run->gva + by, run->gpa + by, run->write);
	return true;
}

static int by_gva(const void *a, const void *b)
{
	const struct window_page *x = *(struct window_page *const *)a;
	const struct window_page *y = *(struct window_page *const *)b;

	return x->gva < y->gva ? -1 : x->gva > y->gva;
}

uint32_t window_take_back(struct bt_window *w, struct window_page **wrong, uint32_t count)
{
	uint32_t runs = 0;

	qsort(wrong, count, sizeof(wrong[0]), by_gva);
	for (uint32_t n = 0; n < count; runs++) {
		const uint64_t from = wrong[n]->gva;
		const bool stay = wrong[n]->stay;
		uint64_t to = from;
		for (; n < count && wrong[n]->gva == to && wrong[n]->stay == stay;
		     n++, to += MEM_PAGE_BYTES) {
			forget_written(w, wrong[n]);
			wrong[n]->write = false;
			if (!stay)
				forget_page(w, wrong[n]);
		}
		w->maps++;
		if (stay)
			mprotect((void *)from, to - from, PROT_READ);
		else
			unmap(from, to - from);
	}
	return runs;
}
