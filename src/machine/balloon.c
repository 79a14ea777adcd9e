/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The automatic balloon. A guest knows best what it can do without: page cache that no program will
 * miss. So where a machine may have less memory than its guest believes in, the guest is asked for
 * pages before the memory thread has to swap some out.
 *
 *     used / limit       what is done at a tick, once a second (four times when used is near the limit)
 *     ------------       ------------------------------------------------------------------
 *     below a half       nothing
 *     above              up to half of what the guest can spare
 *     above 7/8          all of it
 *
 * What it can spare is what it calls available, less a reserve of 32 MiB or 6 % of its RAM. It is never asked for
 * more than all but the limit, less a sixteenth of that: with so much in the balloon the rest fits.
 *
 * When the guest is short (it has less than 3/4 of the reserve left, kills processes, swaps by
 * itself, or reads pages of its programs over and over) the balloon shrinks, and does not grow for
 * ten seconds. From there on the memory thread swaps.
 *
 * Without a limit, or far from it, the guest is not bothered; without one a tick every five seconds
 * sees whether there is one now.
 */
#include "machine/balloon.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"

#define MIB (UINT64_C(1) << 20)
#define SECOND UINT64_C(1000000000)
#define IDLE_NS (5 * SECOND)
#define TICK_NS SECOND
#define URGENT_NS (SECOND / 4)
#define TENDER_NS (10 * SECOND)
/* Figures older than this say nothing. */
#define STALE_NS (3 * SECOND)

enum { MAJOR_FAULTS_MANY = 200 };

const char *const balloon_mode_names[BALLOON_MODE_NR] = {
	[BALLOON_AUTO] = "auto",
	[BALLOON_OFF] = "off",
	[BALLOON_NONE] = "none",
};

struct ballooner {
	struct ballooner_config cfg;
	struct timer timer;
	uint64_t told_ns; /* of the figures that were acted upon last; 0: none */
	struct balloon_info last;
	uint64_t tender_until_ns;
};

/* ---- how large ---- */

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t reserve_of(uint64_t ram)
{
	return most(32 * MIB, ram / 100 * 6);
}

/* With so much in the balloon the rest of RAM fits below the limit. */
static uint64_t ceiling_of(const struct balloon_view *v)
{
	if (!v->limit || v->limit >= v->ram)
		return 0;
	return v->ram - v->limit + v->limit / 16;
}

static bool guest_is_short(const struct balloon_view *v)
{
	uint64_t reserve = reserve_of(v->ram);

	if (!v->actual)
		return false; /* the balloon is not to blame */
	return v->available < reserve / 4 * 3 || v->oom_kills || v->swapped ||
	       (v->major_faults > MAJOR_FAULTS_MANY && v->available < 2 * reserve);
}

struct balloon_advice balloon_advise(const struct balloon_view *v)
{
	uint64_t reserve = reserve_of(v->ram), ceiling = ceiling_of(v);
	struct balloon_advice a = {.target = least(v->target, ceiling)};

	if (!ceiling)
		return a;
	if (guest_is_short(v)) {
		uint64_t back = v->ram / 32;
		if (v->available < reserve)
			back = most(back, reserve - v->available);
		uint64_t size = least(v->actual, a.target);
		a.target = size > back ? size - back : 0;
		a.is_short = true;
		return a;
	}
	bool near = v->used > v->limit - v->limit / 8;
	a.is_urgent = near && v->actual < ceiling;
	if (v->used <= v->limit / 2 || v->tender || v->available <= reserve ||
	    v->actual < a.target) /* it is on its way still */
		return a;
	uint64_t spare = v->available - reserve;
	uint64_t step = most(near ? spare : spare / 2, 4 * MIB);
	a.target = least(v->actual + least(step, spare), ceiling);
	return a;
}

/* ---- ticks ---- */

static uint64_t grown(const struct balloon_info *now, const struct balloon_info *last,
		      enum balloon_stat what)
{
	uint64_t a = now->stat[what], b = last->stat[what];

	return a == BALLOON_UNTOLD || b == BALLOON_UNTOLD || a < b ? 0 : a - b;
}

/* What the guest can spare; older drivers do not tell. */
static uint64_t available_in(const struct balloon_info *i)
{
	if (i->stat[BALLOON_AVAILABLE] != BALLOON_UNTOLD)
		return i->stat[BALLOON_AVAILABLE];
	return i->stat[BALLOON_FREE] != BALLOON_UNTOLD ? i->stat[BALLOON_FREE] : 0;
}

/* Acts upon new figures. Returns when to look again. */
static uint64_t act(struct ballooner *b, const struct mem_stats *m, const struct balloon_info *i)
{
	uint64_t now = clock_ns();
	const struct balloon_info *last = b->told_ns ? &b->last : i;
	const struct balloon_view v = {
		.ram = mem_ram_bytes(b->cfg.mem),
		.limit = m->limit_bytes,
		.used = m->used_bytes,
		.target = i->target,
		.actual = i->actual,
		.available = available_in(i),
		.oom_kills = grown(i, last, BALLOON_OOM_KILLS),
		.swapped = grown(i, last, BALLOON_SWAP_IN) + grown(i, last, BALLOON_SWAP_OUT),
		.major_faults = grown(i, last, BALLOON_MAJOR_FAULTS),
		.tender = now < b->tender_until_ns,
	};
	struct balloon_advice a = balloon_advise(&v);

	if (a.is_short)
		b->tender_until_ns = now + TENDER_NS;
	b->last = *i;
	b->told_ns = i->told_ns;
	balloon_set_target(b->cfg.balloon, a.target);
	return a.is_urgent ? URGENT_NS : TICK_NS;
}

static uint64_t look(struct ballooner *b)
{
	struct balloon_info i;
	struct mem_stats m;

	mem_get_stats(b->cfg.mem, &m, false);
	balloon_get_info(b->cfg.balloon, &i);
	bool limited = m.limit_bytes && m.limit_bytes < mem_ram_bytes(b->cfg.mem);
	if (!limited || !i.driver) {
		balloon_set_target(b->cfg.balloon, 0);
		b->told_ns = 0;
		return limited ? TICK_NS : IDLE_NS;
	}
	if (!i.target && !i.actual && m.used_bytes <= m.limit_bytes / 2)
		return TICK_NS;
	uint64_t next = URGENT_NS;
	if (i.told && i.told_ns != b->told_ns && clock_ns() - i.told_ns < STALE_NS)
		next = act(b, &m, &i);
	/* Answered by the next tick. */
	return balloon_ask(b->cfg.balloon) ? next : TICK_NS;
}

static void on_tick(void *opaque)
{
	struct ballooner *b = opaque;

	if (b->cfg.mode == BALLOON_AUTO)
		timer_arm(&b->timer, clock_ns() + look(b));
}

/* ---- from outside ---- */

void ballooner_set(struct ballooner *b, enum balloon_mode mode, uint64_t bytes)
{
	b->cfg.mode = mode;
	if (mode == BALLOON_AUTO) {
		b->told_ns = 0;
		timer_arm(&b->timer, clock_ns());
	} else {
		timer_cancel(&b->timer);
		balloon_set_target(b->cfg.balloon, bytes);
	}
}

enum balloon_mode ballooner_mode(const struct ballooner *b)
{
	return b->cfg.mode;
}

struct balloon *ballooner_balloon(struct ballooner *b)
{
	return b->cfg.balloon;
}

int ballooner_create(struct ballooner **out, const struct ballooner_config *cfg, struct error *err)
{
	struct ballooner *b = calloc(1, sizeof(*b));

	*out = b;
	if (!b)
		return error_set(err, -ENOMEM, "balloon: out of memory");
	b->cfg = *cfg;
	timer_init(&b->timer, cfg->loop, on_tick, b);
	ballooner_set(b, cfg->mode, 0);
	return 0;
}

void ballooner_destroy(struct ballooner *b)
{
	if (!b)
		return;
	timer_destroy(&b->timer);
	free(b);
}
