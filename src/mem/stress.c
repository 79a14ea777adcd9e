/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stress mode, for tests: HANOK_MEM_STRESS=evict has the memory thread throw out pages drawn by lot all the
 * time, whatever the limit, have vCPUs wait for every other one, take the dirty bits of the log away from under
 * the engine, empty its TLBs and have it drop its translations. A guest must not notice. ":SEED" behind it for
 * other lots (default 1).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mem/mem_internal.h"

enum { BATCH = 64, SCAN = 4096, PAUSE_NS = 200000 };

int mem_stress_init(struct mem *m, struct error *err)
{
	const char *text = getenv("HANOK_MEM_STRESS");

	if (!text || !*text)
		return 0;
	size_t length = strcspn(text, ":");
	if (length != 5 || strncmp(text, "evict", length))
		return error_set(err, -EINVAL, "HANOK_MEM_STRESS=%s: there is only evict", text);
	m->stress = true;
	m->lots = text[length] ? strtoull(text + length + 1, NULL, 0) : 1;
	return 0;
}

static uint64_t draw(struct mem *m)
{
	uint64_t x = m->lots += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

void mem_stress_turn(struct mem *m)
{
	static const struct timespec pause = {.tv_nsec = PAUSE_NS};
	uint64_t frame[BATCH], at = draw(m) % m->pages;
	unsigned n = 0;
	bool full = false;

	for (unsigned k = 0; k < SCAN && n < BATCH && at < m->pages; k++, at++) {
		uint64_t word = atomic_load(&m->frames[at]);
		if (!(word & FRAME_PRESENT) || (word & (FRAME_PINS | FRAME_LOCKED)) || draw(m) % 2)
			continue;
		if (draw(m) % 8 == 0)
			atomic_fetch_and(&m->frames[at], ~FRAME_LOGGED);
		else if (atomic_compare_exchange_strong(&m->frames[at], &word,
							word | FRAME_LEAVING))
			frame[n++] = at;
	}
	if (n)
		evict_pages(m, frame, n, &full);
	if (draw(m) % 16 == 0)
		mem_ask(m, draw(m) % 2 ? MEM_ASK_ALL : MEM_ASK_WRITES);
	if (draw(m) % 512 == 0)
		mem_ask(m, MEM_ASK_TRIM);
	nanosleep(&pause, NULL);
}
