/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8254 interval timer. "Datasheet" is Intel's 8254, order number 231164.
 *
 * Nothing counts: a counter is the tick at which its count was loaded, and what it holds and its
 * OUT are worked out from the ticks that have passed since (the chip's epoch is CLOCK_MONOTONIC).
 * So the guest's idea of time never depends on how punctually the host runs us, and never goes
 * back.
 *
 * Interrupts: a timer waits for the next rising edge of counter 0's OUT. A host that is late by
 * several periods gives one edge, not several, and the next deadline is the first one still ahead:
 * ticks coalesce, they do not storm. Periods shorter than MIN_EDGE_NS coalesce likewise.
 */
#include "dev/pit.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "dev/regs.h"

enum { COUNTERS = 3, SPEAKER = 2, REG_CONTROL = 3 };
enum { MIN_EDGE_NS = 100 * 1000, MIN_PERIOD = 120 /* ticks, about as long */ };
enum { RW_LATCH, RW_LOW, RW_HIGH, RW_BOTH };
enum { READ_BACK = 3, READ_BACK_NO_COUNT = 0x20, READ_BACK_NO_STATUS = 0x10 };
enum { PORT61_GATE2 = 1, PORT61_KEEP = 0xf, PORT61_REFRESH = 0x10, PORT61_OUT2 = 0x20 };
enum { REFRESH_NS = 15085 }; /* half a period of the refresh request's toggle */

struct counter {
	uint8_t control; /* the last control word's low 6 bits: RW, mode, BCD */
	bool gate;
	bool loaded;	  /* a count has been written since the control word */
	bool running;	  /* counts; else it holds `elapsed` */
	bool triggered;	  /* modes 1 and 5: a gate edge has come */
	uint32_t count;	  /* initial count in ticks, 1 to 65536 */
	uint64_t start;	  /* tick at which count was loaded; may be one ahead of now */
	uint64_t elapsed; /* while held */

	bool next_valid; /* a count that takes over at next_tick (modes 2, 3) or trigger (1, 5) */
	uint32_t next_count;
	uint64_t next_tick;

	bool write_high, read_high; /* the second byte of a pair is next */
	uint8_t write_low;
	uint8_t latched; /* bytes of latch still to be read */
	uint16_t latch;
	bool status_latched;
	uint8_t status;
};

struct pit {
	struct pit_config cfg;
	pthread_mutex_t lock;
	unsigned mapped;
	struct timer timer;
	uint64_t epoch_ns;
	uint64_t edge_tick; /* of the rising edge waited for; 0: none */
	uint8_t port61;
	struct counter counter[COUNTERS];
};

static uint64_t tick_now(const struct pit *p)
{
	return clock_muldiv(clock_ns() - p->epoch_ns, PIT_HZ, 1000000000);
}

/* The first nanosecond at which tick_now is tick. */
static uint64_t tick_ns(const struct pit *p, uint64_t tick)
{
	return p->epoch_ns + clock_muldiv(tick, 1000000000, PIT_HZ) + 1;
}

/* Modes 6 and 7 are 2 and 3 (datasheet figure 7). */
static unsigned mode_of(const struct counter *c)
{
	unsigned mode = c->control >> 1 & 7;

	return mode > 5 ? mode - 4 : mode;
}

static bool is_bcd(const struct counter *c)
{
	return c->control & 1;
}

/* --- what a counter shows --- */

static uint64_t elapsed(const struct counter *c, uint64_t now)
{
	if (!c->running)
		return c->elapsed;
	return now > c->start ? now - c->start : 0;
}

static bool out(const struct counter *c, uint64_t now)
{
	uint64_t e = elapsed(c, now), n = c->count;
	unsigned mode = mode_of(c);

	if (!c->loaded)
		return mode != 0;
	switch (mode) {
	case 0:
		return e >= n;
	case 1:
		return !c->triggered || e >= n;
	case 2:
		return !c->gate || e % n != n - 1;
	case 3:
		return !c->gate || e % n < (n + 1) / 2;
	case 4:
		return e != n;
	default:
		return !c->triggered || e != n;
	}
}

/* The counting element's value as it is read: 16 bits, or four digits. */
static uint16_t value(const struct counter *c, uint64_t now)
{
	uint64_t e = elapsed(c, now), n = c->count, modulus = is_bcd(c) ? 10000 : 65536, v;

	switch (mode_of(c)) {
	case 2:
		v = n - e % n;
		break;
	case 3:
		/* By twos; an odd count loads one less, twice as many halves up as down. */
		v = e % n;
		if (v >= (n + 1) / 2)
			v -= (n + 1) / 2;
		v = (n & ~UINT64_C(1)) - 2 * v;
		break;
	default:
		v = n + modulus - e % modulus;
		break;
	}
	v %= modulus;
	if (is_bcd(c))
		v = v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10;
	return (uint16_t)v;
}

static uint32_t ticks_of(const struct counter *c, uint16_t raw)
{
	uint32_t n = raw;

	if (is_bcd(c))
		n = (raw >> 12) * 1000u + (raw >> 8 & 15) * 100u + (raw >> 4 & 15) * 10u +
		    (raw & 15);
	return n ? n : is_bcd(c) ? 10000 : 65536;
}

/* Lets a waiting count take over once its time has come. */
static void advance(struct counter *c, uint64_t now)
{
	unsigned mode = mode_of(c);
	uint64_t e;

	if (!c->next_valid || !c->running || (mode != 2 && mode != 3) || now < c->next_tick)
		return;
	/* Mode 3 changes over between half cycles: the new count goes on with the other half. */
	e = c->next_tick - c->start;
	c->start = c->next_tick;
	if (mode == 3 && e % c->count)
		c->start -= (c->next_count + 1) / 2;
	c->count = c->next_count;
	c->next_valid = false;
}

/* --- counter 0's interrupt --- */

/* The tick of the next rising edge of OUT after now, or 0. */
static uint64_t next_edge(const struct counter *c, uint64_t now)
{
	uint64_t n = c->count, e = elapsed(c, now), at;

	if (!c->loaded || !c->running)
		return 0;
	switch (mode_of(c)) {
	case 0:
		at = e < n ? c->start + n : 0;
		break;
	case 2:
	case 3:
		at = c->start + (e / n + 1) * n;
		break;
	case 4:
		at = e < n + 1 ? c->start + n + 1 : 0;
		break;
	default:
		return 0; /* counter 0's gate is tied high: no trigger ever comes */
	}
	/* Before a new count takes over, or after its first period, whichever the edge falls in. */
	if (at && c->next_valid && mode_of(c) == 3 && at > c->next_tick)
		at = c->next_tick + c->next_count / 2;
	return at;
}

/* For the next edge after now: what the counter was last changed or looked at, or an edge that comes meanwhile would be
 * none. */
static void arm(struct pit *p, uint64_t now)
{
	uint64_t soonest = clock_ns() + MIN_EDGE_NS, ns;

	p->edge_tick = next_edge(&p->counter[0], now);
	if (!p->edge_tick) {
		timer_cancel(&p->timer);
		return;
	}
	ns = tick_ns(p, p->edge_tick);
	if (ns < soonest && p->counter[0].count < MIN_PERIOD && mode_of(&p->counter[0]) / 2 == 1)
		ns = soonest;
	timer_arm(&p->timer, ns);
}

static void on_timer(void *opaque)
{
	struct pit *p = opaque;
	struct counter *c = &p->counter[0];
	uint64_t now;

	pthread_mutex_lock(&p->lock);
	now = tick_now(p);
	if (p->edge_tick && now >= p->edge_tick) {
		advance(c, now);
		if (mode_of(c))
			irq_set(&p->cfg.irq, 0);
		irq_set(&p->cfg.irq, 1);
		arm(p, now);
	} else if (p->edge_tick) {
		timer_arm(&p->timer, tick_ns(p, p->edge_tick));
	}
	pthread_mutex_unlock(&p->lock);
}

/* --- programming --- */

static void write_control(struct pit *p, struct counter *c, uint8_t word)
{
	bool gate = c->gate;

	*c = (struct counter){.control = word & 0x3f, .gate = gate, .count = c->count};
	if (c == &p->counter[0]) {
		irq_set(&p->cfg.irq, mode_of(c) != 0);
		arm(p, tick_now(p)); /* for none: no count is loaded */
	}
}

static void load(struct counter *c, uint32_t n, uint64_t now)
{
	unsigned mode = mode_of(c);
	bool first = !c->loaded;

	c->loaded = true;
	if (first || mode == 0 || mode == 4) {
		c->count = n;
		c->start = now + 1;
		c->elapsed = 0;
		c->next_valid = false;
		/* Modes 1 and 5 wait for their trigger. */
		c->running = c->gate && mode != 1 && mode != 5;
		return;
	}
	if (mode == 1 || mode == 5 || !c->running) {
		c->next_count = n;
		c->next_valid = true;
		return;
	}
	uint64_t e = elapsed(c, now), half = (c->count + 1) / 2, period = e / c->count * c->count;
	c->next_tick = c->start + period + c->count;
	if (mode == 3 && e - period < half)
		c->next_tick = c->start + period + half;
	c->next_count = n;
	c->next_valid = true;
}

static void write_count(struct pit *p, struct counter *c, uint8_t byte)
{
	unsigned rw = c->control >> 4;
	uint64_t now = tick_now(p);
	uint16_t raw = rw == RW_HIGH ? (uint16_t)(byte << 8) : byte;

	advance(c, now);
	if (rw == RW_BOTH && !c->write_high) {
		c->write_high = true;
		c->write_low = byte;
		if (mode_of(c) == 0) { /* the first byte stops it; OUT goes low */
			c->elapsed = elapsed(c, now) < c->count ? elapsed(c, now) : 0;
			c->running = false;
		}
	} else {
		if (rw == RW_BOTH)
			raw = (uint16_t)(byte << 8 | c->write_low);
		c->write_high = false;
		load(c, ticks_of(c, raw), now);
	}
	if (c == &p->counter[0]) {
		if (mode_of(c) == 0)
			irq_set(&p->cfg.irq, 0);
		arm(p, now);
	}
}

static void latch_count(struct counter *c, uint64_t now)
{
	if (c->latched) /* a latched count stays until it is read */
		return;
	c->latch = value(c, now);
	c->latched = c->control >> 4 == RW_BOTH ? 2 : 1;
}

static void latch_status(struct counter *c, uint64_t now)
{
	bool null_count = !c->loaded || c->next_valid || (c->running && now < c->start);

	if (c->status_latched)
		return;
	c->status_latched = true;
	c->status = (uint8_t)(out(c, now) << 7 | null_count << 6 | c->control);
}

static void read_back(struct pit *p, uint8_t word)
{
	uint64_t now = tick_now(p);

	for (unsigned i = 0; i < COUNTERS; i++) {
		if (!(word & 2 << i))
			continue;
		advance(&p->counter[i], now);
		if (!(word & READ_BACK_NO_COUNT))
			latch_count(&p->counter[i], now);
		if (!(word & READ_BACK_NO_STATUS))
			latch_status(&p->counter[i], now);
	}
}

static void port_write(void *dev, unsigned reg, uint8_t byte)
{
	struct pit *p = dev;
	unsigned select = byte >> 6;

	pthread_mutex_lock(&p->lock);
	if (reg != REG_CONTROL) {
		write_count(p, &p->counter[reg & 3], byte);
	} else if (select == READ_BACK) {
		read_back(p, byte);
	} else if ((byte >> 4 & 3) == RW_LATCH) {
		advance(&p->counter[select], tick_now(p));
		latch_count(&p->counter[select], tick_now(p));
	} else {
		write_control(p, &p->counter[select], byte);
	}
	pthread_mutex_unlock(&p->lock);
}

static uint8_t read_counter(struct counter *c, uint64_t now)
{
	unsigned rw = c->control >> 4;
	bool high = rw == RW_HIGH || (rw == RW_BOTH && c->read_high);
	uint16_t v;

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	advance(c, now);
	v = c->latched ? c->latch : value(c, now);
	if (c->latched)
		c->latched--;
	if (rw == RW_BOTH)
		c->read_high = !c->read_high;
	return high ? (uint8_t)(v >> 8) : (uint8_t)v;
}

static uint8_t port_read(void *dev, unsigned reg)
{
	struct pit *p = dev;
	uint8_t v = 0xff; /* the control word register cannot be read */

	pthread_mutex_lock(&p->lock);
	if (reg < COUNTERS)
		v = read_counter(&p->counter[reg], tick_now(p));
	pthread_mutex_unlock(&p->lock);
	return v;
}

/* --- gate and port 61h --- */

/* What the gate does in each mode: datasheet figure 21. */
static void set_gate(struct counter *c, bool gate, uint64_t now)
{
	unsigned mode = mode_of(c);

	if (gate == c->gate)
		return;
	advance(c, now);
	c->gate = gate;
	if (!c->loaded || (!gate && (mode == 1 || mode == 5)))
		return;
	if (!gate) {
		c->elapsed = elapsed(c, now);
		c->running = false;
		return;
	}
	if (mode == 0 || mode == 4) { /* goes on */
		c->start = now - c->elapsed;
	} else { /* starts afresh at the next clock */
		if (c->next_valid)
			c->count = c->next_count;
		c->next_valid = false;
		c->triggered = true;
		c->start = now + 1;
	}
	c->running = !(mode == 0 && c->write_high);
}

static uint8_t port61_read(void *dev, unsigned reg)
{
	struct pit *p = dev;
	uint64_t now_ns = clock_ns();
	uint8_t v;

	(void)reg;
	pthread_mutex_lock(&p->lock);
	advance(&p->counter[SPEAKER], tick_now(p));
	v = p->port61;
	if ((now_ns - p->epoch_ns) / REFRESH_NS & 1)
		v |= PORT61_REFRESH;
	if (out(&p->counter[SPEAKER], tick_now(p)))
		v |= PORT61_OUT2;
	pthread_mutex_unlock(&p->lock);
	return v;
}

static void port61_write(void *dev, unsigned reg, uint8_t byte)
{
	struct pit *p = dev;

	(void)reg;
	pthread_mutex_lock(&p->lock);
	p->port61 = byte & PORT61_KEEP;
	set_gate(&p->counter[SPEAKER], byte & PORT61_GATE2, tick_now(p));
	pthread_mutex_unlock(&p->lock);
}

static void access_pit(void *p, struct bus_access *a)
{
	regs_by_byte(p, a, port_read, port_write);
}

static void access_port61(void *p, struct bus_access *a)
{
	regs_by_byte(p, a, port61_read, port61_write);
}

/* --- life --- */

/* The chip has no reset; firmware leaves counter 0 as the 18.2 Hz tick and counter 1 refreshing.
 * The board does that part of the firmware's work. */
static void reset(void *dev)
{
	struct pit *p = dev;

	pthread_mutex_lock(&p->lock);
	p->epoch_ns = clock_ns();
	p->port61 = 0;
	for (unsigned i = 0; i < COUNTERS; i++) {
		struct counter *c = &p->counter[i];
		*c = (struct counter){.control = RW_BOTH << 4 | 3 << 1, .gate = i != SPEAKER};
		load(c, i == 1 ? 18 : 65536, 0);
	}
	irq_set(&p->cfg.irq, 1);
	arm(p, 0);
	pthread_mutex_unlock(&p->lock);
}

static void counter_state(struct counter *c, struct state_stream *s)
{
	state_u8(s, &c->control);
	state_bool(s, &c->gate);
	state_bool(s, &c->loaded);
	state_bool(s, &c->running);
	state_bool(s, &c->triggered);
	state_u32(s, &c->count);
	state_u64(s, &c->start);
	state_u64(s, &c->elapsed);
	state_bool(s, &c->next_valid);
	state_u32(s, &c->next_count);
	state_u64(s, &c->next_tick);
	state_bool(s, &c->write_high);
	state_bool(s, &c->read_high);
	state_u8(s, &c->write_low);
	state_u8(s, &c->latched);
	state_u16(s, &c->latch);
	state_bool(s, &c->status_latched);
	state_u8(s, &c->status);
	if (c->count > 65536 || c->next_count > 65536 || !c->count ||
	    (c->next_valid && !c->next_count) || c->latched > 2 || c->control > 0x3f)
		state_fail(s, "a counter that cannot be");
}

static void state(void *dev, struct state_stream *s)
{
	struct pit *p = dev;

	pthread_mutex_lock(&p->lock);
	state_begin(s, "pit", 0, 1);
	regs_state_epoch_ns(s, &p->epoch_ns);
	state_u8(s, &p->port61);
	for (unsigned i = 0; i < COUNTERS; i++)
		counter_state(&p->counter[i], s);
	state_end(s);
	if (!state_writing(s) && !state_stream_error(s, NULL))
		arm(p, tick_now(p));
	pthread_mutex_unlock(&p->lock);
	if (state_stream_error(s, NULL) && !state_writing(s))
		reset(p); /* never divide by a count that was refused */
}

static void destroy(void *dev)
{
	struct pit *p = dev;

	if (!p)
		return;
	if (p->mapped > 1)
		bus_unmap(p->cfg.bus, BUS_PIO, p->cfg.port61, p);
	if (p->mapped > 0)
		bus_unmap(p->cfg.bus, BUS_PIO, p->cfg.port, p);
	timer_destroy(&p->timer);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

const struct dev_ops pit_ops = {
	.name = "pit",
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int pit_create(struct pit **out, const struct pit_config *cfg, struct error *err)
{
	struct pit *p = calloc(1, sizeof(*p));
	struct bus_range r = {.space = BUS_PIO, .base = cfg->port, .len = 4, .name = "pit"};
	int rc;

	*out = NULL;
	if (!p)
		return error_set(err, -ENOMEM, "pit: out of memory");
	p->cfg = *cfg;
	pthread_mutex_init(&p->lock, NULL);
	timer_init(&p->timer, cfg->loop, on_timer, p);
	r.fn = access_pit;
	r.opaque = p;
	rc = bus_map(cfg->bus, &r);
	if (!rc) {
		p->mapped++;
		r.base = cfg->port61;
		r.len = 1;
		r.fn = access_port61;
		r.name = "port 61h";
		rc = bus_map(cfg->bus, &r);
	}
	if (rc) {
		destroy(p);
		return error_set(err, rc, "pit: ports cannot be mapped");
	}
	p->mapped++;
	reset(p);
	*out = p;
	return 0;
}
