/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/bt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Stress modes, for tests: the same meaning by other ways. HANOK_BT_STRESS is one of
 *
 *	interrupts	translated code runs one instruction at a time and comes back to C, where
 *			interrupts and everything else asked for are taken, after each
 *	switch		blocks are of random length, links are made or not, and each time around
 *			it is drawn by lot whether a block is interpreted or translated
 *	window		every address space has the window as soon as its user code runs
 *
 * with ":SEED" behind it for other lots (default 1). One vCPU's lots are the same in each run.
 */
int bt_stress_init(struct bt *bt, struct error *err)
{
	const char *text = getenv("HANOK_BT_STRESS");
	struct bt_stress *s = &bt->stress;

	if (!text || !*text)
		return 0;
	size_t length = strcspn(text, ":");
	if (length == 10 && !strncmp(text, "interrupts", length))
		s->interrupts = true;
	else if (length == 6 && !strncmp(text, "switch", length))
		s->switching = true;
	else if (length == 6 && !strncmp(text, "window", length))
		s->window = true;
	else
		return error_set(err, -EINVAL,
				 "HANOK_BT_STRESS=%s: there are only interrupts, switch and window",
				 text);
	s->on = !s->window;
	s->lots = text[length] ? strtoull(text + length + 1, NULL, 0) : 1;
	return 0;
}

static uint64_t draw(struct bt *bt)
{
	/* The vCPUs take turns at one sequence. */
	uint64_t x = atomic_fetch_add(&bt->stress.lots, UINT64_C(0x9e3779b97f4a7c15));

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

unsigned bt_stress_items(struct bt *bt, unsigned most)
{
	if (bt->stress.interrupts)
		return 1;
	return 1 + (unsigned)(draw(bt) % most);
}

bool bt_stress_comes_back(struct bt *bt)
{
	return bt->stress.interrupts || draw(bt) % 2;
}

bool bt_stress_interprets(struct bt *bt)
{
	return bt->stress.switching && draw(bt) % 2;
}
