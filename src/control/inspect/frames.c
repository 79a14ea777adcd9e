/* SPDX-License-Identifier: Apache-2.0 */
/* `frames` and `memory`: where the machine's pages are, and what its memory manager has counted. */
#include <errno.h>
#include <stdlib.h>

#include "control/inspect/tables.h"

enum { CELLS = 1024, CELLS_MAX = 4096, AGES = 256 };

struct census {
	uint64_t pages, cell_pages;
	unsigned cells;
	uint64_t state[MEM_STATE_NR], age[AGES];
	uint64_t dirty, logged, leaving, pinned, on_file;
	uint32_t (*cell)[MEM_STATE_NR];
};

static void count(struct census *c, uint64_t page, const struct mem_frame *f)
{
	c->state[f->state]++;
	c->cell[page / c->cell_pages][f->state]++;
	c->dirty += f->dirty;
	c->logged += f->logged;
	c->leaving += f->leaving;
	c->pinned += f->pins != 0;
	c->on_file += f->on_file && f->state == MEM_STATE_SWAPPED;
	if (f->state == MEM_STATE_PRESENT)
		c->age[f->age < AGES ? f->age : AGES - 1]++;
}

/* All pages of RAM in the order of their addresses; those under a ROM count as never touched. */
static void take_census(struct mem *m, struct census *c)
{
	uint64_t low = mem_low_bytes(m) >> MEM_PAGE_SHIFT;

	for (uint64_t page = 0; page < c->pages; page++) {
		uint64_t gpa = page < low ? page << MEM_PAGE_SHIFT
					  : MEM_HIGH_BASE + ((page - low) << MEM_PAGE_SHIFT);
		struct mem_frame f;
		if (mem_frame_at(m, gpa, &f) < 0)
			f = (struct mem_frame){.state = MEM_STATE_NONE};
		count(c, page, &f);
	}
}

static json_t *by_state(const uint64_t pages[MEM_STATE_NR])
{
	json_t *o = json_object();

	for (unsigned s = 0; s < MEM_STATE_NR; s++)
		json_object_set_new(o, mem_state_names[s], json_integer((json_int_t)pages[s]));
	return o;
}

static json_t *describe_cells(const struct census *c)
{
	json_t *all = json_array();

	for (unsigned n = 0; n < c->cells; n++) {
		json_t *cell = json_array();
		for (unsigned s = 0; s < MEM_STATE_NR; s++)
			json_array_append_new(cell, json_integer(c->cell[n][s]));
		json_array_append_new(all, cell);
	}
	return all;
}

/* [age]: pages; up to the oldest that has any. */
static json_t *describe_ages(const struct census *c)
{
	json_t *all = json_array();
	unsigned last = 0;

	for (unsigned n = 0; n < AGES; n++)
		if (c->age[n])
			last = n;
	for (unsigned n = 0; n <= last; n++)
		json_array_append_new(all, json_integer((json_int_t)c->age[n]));
	return all;
}

int inspect_frames(struct looker *l, const struct request *r, json_t **answer, struct error *err)
{
	struct census c = {.pages = mem_ram_bytes(l->mem) >> MEM_PAGE_SHIFT};
	json_t *states = json_array();
	long long cells;

	int code = request_number(r, "cells", CELLS, 1, CELLS_MAX, &cells, err);
	if (code < 0) {
		json_decref(states);
		return code;
	}
	c.cell_pages = (c.pages + (uint64_t)cells - 1) / (uint64_t)cells;
	c.cells = (unsigned)((c.pages + c.cell_pages - 1) / c.cell_pages);
	c.cell = calloc(c.cells, sizeof(*c.cell));
	if (c.cell) {
		take_census(l->mem, &c);
		for (unsigned s = 0; s < MEM_STATE_NR; s++)
			json_array_append_new(states, json_string(mem_state_names[s]));
		*answer = json_pack(
			"{s:i, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:O, s:o}",
			"page_bytes", MEM_PAGE_BYTES, "pages", (json_int_t)c.pages, "low_bytes",
			(json_int_t)mem_low_bytes(l->mem), "state_pages", by_state(c.state),
			"dirty_pages", (json_int_t)c.dirty, "logged_pages", (json_int_t)c.logged,
			"leaving_pages", (json_int_t)c.leaving, "pinned_pages",
			(json_int_t)c.pinned, "swapped_on_file_pages", (json_int_t)c.on_file,
			"age_pages", describe_ages(&c), "cell_pages", (json_int_t)c.cell_pages,
			"states", states, "cells", describe_cells(&c));
	}
	json_decref(states);
	free(c.cell);
	return *answer ? 0 : inspect_no_memory(answer, err);
}

int inspect_memory(struct looker *l, const struct request *r, json_t **answer, struct error *err)
{
	struct mem_stats s;

	(void)r;
	mem_get_stats(l->mem, &s, true);
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"ram_bytes", s.ram_pages << MEM_PAGE_SHIFT},
		{"limit_bytes", s.limit_bytes},
		{"used_bytes", s.used_bytes},
		{"working_set_bytes", s.working_set_pages << MEM_PAGE_SHIFT},
		{"pinned_bytes", s.pinned_pages << MEM_PAGE_SHIFT},
		{"swap_memory_bytes", s.swap_memory_bytes},
		{"swap_file_bytes", s.swap_file_bytes},
		{"swap_compressed_bytes", s.swap_compressed_bytes},
		{"first_touches", s.first_touches},
		{"zero_ins", s.zero_ins},
		{"swap_ins", s.swap_ins},
		{"read_aheads", s.read_aheads},
		{"rescues", s.rescues},
		{"evicted_clean", s.evicted_clean},
		{"evicted_zero", s.evicted_zero},
		{"evicted_stored", s.evicted_stored},
		{"discarded", s.discarded},
		{"swap_reads", s.swap_reads},
		{"swap_writes", s.swap_writes},
		{"waits", s.waits},
		{"wait_ns", s.wait_ns},
	};

	json_t *pages = json_object();
	*answer = json_object();
	for (unsigned n = 0; n < MEM_STATE_NR; n++)
		json_object_set_new(pages, mem_state_names[n],
				    json_integer((json_int_t)(s.pages[n] << MEM_PAGE_SHIFT)));
	int bad = json_object_set_new(*answer, "state_bytes", pages);
	for (unsigned n = 0; n < sizeof(numbers) / sizeof(numbers[0]); n++)
		bad |= json_object_set_new(*answer, numbers[n].name,
					   json_integer((json_int_t)numbers[n].value));
	return bad ? inspect_no_memory(answer, err) : 0;
}
