/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When limits are set. Memory without a limit is faster (it may be in huge pages), so as long as there is
 * room nobody has one but his own:
 *
 *     sum of used      > 90 % of the pool: limits from now on
 *                      < 70 % for 10 s:    no more
 *
 * What will be used by the next time is guessed from the last two: as much more again, but no more than a
 * fifth of the pool. A limit is changed when the new one
 * differs by more than a 32nd and 1 MiB. The entitlements add up to the pool, so used memory is above
 * it for no longer than it takes to look and to evict.
 */
#include "control/pool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/pool_file.h"
#include "mem/entitle.h"

#define MIB (UINT64_C(1) << 20)
#define SECOND UINT64_C(1000000000)
#define BUSY_NS SECOND
#define QUIET_NS (5 * SECOND)
#define SILENT_NS (4 * QUIET_NS) /* who has not written for so long does not keep a limit either */
#define RELAX_NS (10 * SECOND)
#define LIMIT_MIN (4 * MIB)
enum { RELOAD_SAMPLES = 12, RELOAD_STEP_S = 5 };

struct pool {
	struct pool_config cfg;
	struct pool_file *file; /* NULL: it was removed, and comes again */
	struct timer timer;
	struct pool_member me;
	uint64_t pool_bytes;
	uint64_t used_bytes; /* of all */
	bool moving;	     /* it was another a moment ago */
	bool pressed;
	uint64_t roomy_since_ns; /* below 70 %; 0: it is not */
	bool told_scaled;
	/* Pages that came back from the store, in steps of 5 s. */
	uint64_t reloads[RELOAD_SAMPLES];
	unsigned reload_at;
	uint64_t reload_ns;
	/* All of them, oneself first. */
	struct pool_member member[POOL_MEMBERS + 1];
	struct mem_claim claim[POOL_MEMBERS + 1];
	uint64_t entitled[POOL_MEMBERS + 1];
};

/* ---- looking at oneself ---- */

/* How many pages came back from the store within the last minute. */
static uint64_t reloads_lately(struct pool *p, uint64_t swap_ins, uint64_t now)
{
	while (now - p->reload_ns >= RELOAD_STEP_S * SECOND) {
		p->reload_ns = now - p->reload_ns > 2 * RELOAD_SAMPLES * RELOAD_STEP_S * SECOND
				       ? now
				       : p->reload_ns + RELOAD_STEP_S * SECOND;
		p->reload_at = (p->reload_at + 1) % RELOAD_SAMPLES;
		p->reloads[p->reload_at] = swap_ins;
	}
	return swap_ins - p->reloads[(p->reload_at + 1) % RELOAD_SAMPLES];
}

static void look_at_oneself(struct pool *p, uint64_t now)
{
	struct mem_stats s;

	mem_get_stats(p->cfg.mem, &s, false);
	uint64_t touched = s.pages[MEM_STATE_PRESENT] + s.stored_pages;
	/* What was evicted and is back, or was and left again, belongs to the working set, too. */
	uint64_t active = s.working_set_pages + reloads_lately(p, s.swap_ins, now);
	touched = touched < s.ram_pages ? touched : s.ram_pages;
	active = active < touched ? active : touched;
	p->me.beat_ns = now;
	p->me.used_bytes = s.used_bytes;
	p->me.touched_bytes = touched << MEM_PAGE_SHIFT;
	p->me.active_bytes = active << MEM_PAGE_SHIFT;
	p->me.equal_bytes = s.ksm_pages << MEM_PAGE_SHIFT;
}

/* ---- looking at all ---- */

static struct mem_claim claim_of(const struct pool_member *m, uint64_t now)
{
	uint64_t max = m->limit_bytes && m->limit_bytes < m->ram_bytes ? m->limit_bytes
								       : m->ram_bytes;

	/* A process that stands still keeps what it has. */
	if (now > m->beat_ns && now - m->beat_ns > SILENT_NS)
		return (struct mem_claim){.min_bytes = m->used_bytes, .max_bytes = m->used_bytes};
	return (struct mem_claim){
		.min_bytes = m->min_bytes,
		.max_bytes = max,
		.shares = m->shares,
		.active_bytes = m->active_bytes,
		.touched_bytes = m->touched_bytes,
	};
}

/* How many there are, oneself included; or -errno. */
static int look_at_all(struct pool *p, struct error *err)
{
	int n = pool_file_read(p->file, &p->pool_bytes, p->member + 1, err);

	p->member[0] = p->me;
	return n < 0 ? n : n + 1;
}

static void share_out(struct pool *p, unsigned n, uint64_t now)
{
	bool fits = true;

	p->me.entitled_bytes = 0;
	for (unsigned i = 0; i < n; i++)
		p->claim[i] = claim_of(&p->member[i], now);
	if (p->pool_bytes) {
		fits = mem_entitle(p->claim, n, p->pool_bytes, p->entitled);
		p->me.entitled_bytes = p->entitled[0];
	}
	if (!fits && !p->told_scaled)
		log_warn("the memory pool of %" PRIu64
			 " MiB is smaller than the reservations of its machines: "
			 "each gets a part of his; make it larger by `hanok pool SIZE`",
			 p->pool_bytes / MIB);
	p->told_scaled = !fits;
}

/* ---- one's limit ---- */

static void set_pressed(struct pool *p, bool pressed)
{
	if (pressed && !p->pressed)
		log_info(
			"the memory pool is nearly full: limits by shares from now on; `hanok pool` "
			"shows them");
	else if (!pressed && p->pressed)
		log_info("the memory pool has room again");
	p->pressed = pressed;
}

static void feel_pressure(struct pool *p, unsigned n, uint64_t now)
{
	uint64_t before = p->used_bytes, used = 0, growth;

	for (unsigned i = 0; i < n; i++)
		used += p->member[i].used_bytes;
	p->used_bytes = used;
	p->moving = (used > before ? used - before : before - used) > p->pool_bytes / 64;
	growth = used > before ? used - before : 0;
	growth = growth < p->pool_bytes / 5 ? growth : p->pool_bytes / 5;
	if (used >= p->pool_bytes / 10 * 7)
		p->roomy_since_ns = 0;
	else if (!p->roomy_since_ns)
		p->roomy_since_ns = now;
	if (!p->pool_bytes)
		set_pressed(p, false);
	else if (used + growth > p->pool_bytes / 10 * 9)
		set_pressed(p, true);
	else if (p->roomy_since_ns && now - p->roomy_since_ns > RELAX_NS)
		set_pressed(p, false);
}

static void keep(struct pool *p, uint64_t limit)
{
	if (limit == p->me.kept_bytes)
		return;
	log_debug("memory pool: limit %" PRIu64 " MiB", limit / MIB);
	p->me.kept_bytes = limit;
	mem_set_limit(p->cfg.mem, limit);
}

static void set_limit(struct pool *p)
{
	uint64_t own = p->cfg.limit_bytes, kept = p->me.kept_bytes;
	uint64_t want = p->me.entitled_bytes > LIMIT_MIN ? p->me.entitled_bytes : LIMIT_MIN;

	if (!p->pressed || (own && own < want)) {
		keep(p, own);
		return;
	}
	uint64_t change = want > kept ? want - kept : kept - want;
	if (!kept || change > kept / 32 + MIB)
		keep(p, want);
}

/* ---- the timer ---- */

static void fall_out(struct pool *p, const struct error *err)
{
	log_warn("the memory pool is left: %s", err->text);
	pool_file_close(p->file);
	p->file = NULL;
	keep(p, p->cfg.limit_bytes);
}

/* A file that was removed is made anew, by whoever sees it first. */
static int enter(struct pool *p, struct error *err)
{
	int r = pool_file_open(&p->file, true, err);

	if (r == 0)
		r = pool_file_claim(p->file, err);
	if (r < 0) {
		pool_file_close(p->file);
		p->file = NULL;
	}
	return r;
}

static int turn(struct pool *p, struct error *err)
{
	uint64_t now = clock_ns();

	look_at_oneself(p, now);
	int n = look_at_all(p, err);
	if (n == -ESTALE) {
		pool_file_close(p->file);
		n = enter(p, err);
		if (n == 0)
			n = look_at_all(p, err);
	}
	if (n < 0)
		return n;
	share_out(p, (unsigned)n, now);
	feel_pressure(p, (unsigned)n, now);
	set_limit(p);
	return pool_file_publish(p->file, &p->me, err);
}

static void tick(void *opaque)
{
	struct pool *p = opaque;
	struct error err = {""};

	if (turn(p, &err) < 0) {
		fall_out(p, &err);
		return;
	}
	bool busy = p->pool_bytes && (p->pressed || p->moving || p->used_bytes > p->pool_bytes / 2);
	timer_arm(&p->timer, clock_ns() + (busy ? BUSY_NS : QUIET_NS));
}

/* ---- joining and leaving ---- */

int pool_join(struct pool **out, const struct pool_config *c, struct error *err)
{
	struct pool *p = calloc(1, sizeof(*p));

	*out = NULL;
	if (!p)
		return error_set(err, -ENOMEM, "the memory pool: out of memory");
	p->cfg = *c;
	p->cfg.name = NULL;
	p->reload_ns = clock_ns();
	p->me = (struct pool_member){
		.pid = (uint64_t)getpid(),
		.ram_bytes = mem_ram_bytes(c->mem),
		.min_bytes = c->min_bytes,
		.shares = c->shares,
		.limit_bytes = c->limit_bytes,
		.kept_bytes = c->limit_bytes,
	};
	snprintf(p->me.name, sizeof(p->me.name), "%s", c->name);
	timer_init(&p->timer, c->loop, tick, p);
	int r = enter(p, err);
	if (r == 0)
		r = turn(p, err);
	if (r < 0) {
		pool_leave(p);
		return r;
	}
	timer_arm(&p->timer, clock_ns() + BUSY_NS);
	*out = p;
	return 0;
}

void pool_leave(struct pool *p)
{
	if (!p)
		return;
	timer_destroy(&p->timer);
	pool_file_close(p->file);
	keep(p, p->cfg.limit_bytes);
	free(p);
}
