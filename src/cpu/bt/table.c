/* SPDX-License-Identifier: Apache-2.0 */
#include "base/advice.h"
#include "cpu/bt/bt.h"

/*
 * Memory for what is known of translations. It is found by hash values and by guest-physical pages, so every
 * look-up is somewhere else, and where pages have 4 KiB it costs the processor more to find the page than to
 * read it. So tables have huge pages as soon as there is some code.
 */
enum { TABLE_PAGE = 4096, TABLE_SMALL = 256 << 10, TABLE_LARGE = 8 << 20 };

static size_t whole(size_t bytes)
{
	return (bytes + HUGE_PAGE_BYTES - 1) & ~(size_t)(HUGE_PAGE_BYTES - 1);
}

/* Shared, as the code's memory is, so that who looks at the process's maps sees the cache as one kind of
 * memory. */
void *bt_table_map(size_t bytes)
{
	const size_t all = whole(bytes);
	uint8_t *p = mmap(NULL, all + HUGE_PAGE_BYTES, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	const size_t before = -(uintptr_t)p % HUGE_PAGE_BYTES;
	uint8_t *at = mmap(p + before, all, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (at == MAP_FAILED) {
		munmap(p, all + HUGE_PAGE_BYTES);
		return NULL;
	}
	if (before)
		munmap(p, before);
	munmap(at + all, HUGE_PAGE_BYTES - before);
	return at;
}

void bt_table_unmap(void *table, size_t bytes)
{
	if (table)
		munmap(table, whole(bytes));
}

void bt_table_forget(void *table, size_t bytes)
{
	if (madvise(table, whole(bytes), MADV_REMOVE) < 0)
		memset(table, 0, bytes);
}

void bt_table_make_huge(void *table, size_t bytes)
{
	if (bytes < TABLE_SMALL || bytes > TABLE_LARGE)
		return;
	for (uint8_t *at = table, *end = at + bytes; at < end; at += HUGE_PAGE_BYTES)
		if (!advise_huge(at))
			return;
}

void bt_table_populate(void *table, size_t from, size_t end, bool huge)
{
	uint8_t *low = (uint8_t *)table + (from & ~(size_t)(TABLE_PAGE - 1));
	uint8_t *high = (uint8_t *)table + ((end + TABLE_PAGE - 1) & ~(size_t)(TABLE_PAGE - 1));
	uint8_t *next = (uint8_t *)table + whole(from);

	if (huge && next < high && advise_huge(next))
		high = next;
	if (low < high)
		madvise(low, (size_t)(high - low), MADV_POPULATE_WRITE);
}

void bt_table_ahead(struct mem *mem, void *table, size_t bytes, size_t from, size_t end)
{
	const size_t half = HUGE_PAGE_BYTES / 2, next = whole(end);

	if ((from + half) / HUGE_PAGE_BYTES != (end + half) / HUGE_PAGE_BYTES &&
	    next + HUGE_PAGE_BYTES <= bytes)
		mem_ask_huge(mem, (uint8_t *)table + next);
}
