/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MC146818A real-time clock. "Datasheet" is Motorola's MC146818A.
 *
 * The clock is an offset to the host's UTC. While register B's SET bit holds the update cycle, or
 * the divider is held in reset, the ten time bytes are plain memory in `cmos`; otherwise they are
 * worked out when read, and a write to one sets the clock.
 *
 * The flags of register C are worked out too: each remembers up to which instant it has been
 * looked at, and is set if its event has happened since. A host timer runs only while an interrupt
 * is enabled. A late timer gives one interrupt for all the events it missed.
 */
#include "dev/rtc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "dev/regs.h"

enum { SECONDS, SEC_ALARM, MINUTES, MIN_ALARM, HOURS, HOUR_ALARM, WEEKDAY, DAY, MONTH, YEAR };
enum { REG_A = 10, REG_B, REG_C, REG_D, CENTURY = 0x32 };
enum { A_UIP = 0x80, A_DIVIDER = 0x70, A_DIVIDER_RUN = 0x20, A_RATE = 0x0f };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_BINARY = 4, B_24H = 2 };
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };
enum { D_VALID = 0x80 };
enum { UIP_NS = 244 * 1000, HOURS_PM = 0x80, ALARM_ANY = 0xc0 };
enum { MIN_PERIOD_NS = 100 * 1000, DAY_S = 86400 };
#define SECOND_NS UINT64_C(1000000000)

struct rtc {
	struct rtc_config cfg;
	pthread_mutex_t lock;
	bool mapped;
	struct timer timer;
	uint8_t index, c;
	uint8_t cmos[RTC_BYTES];
	int64_t offset_ns;	    /* the guest's clock less the host's UTC */
	uint64_t periodic_epoch_ns; /* CLOCK_MONOTONIC at which the divider started */
	uint64_t periodic_seen;	    /* periods already accounted for */
	uint64_t second_seen;	    /* the guest's second up to which UF and AF are accounted for */
	uint64_t fire_ns;
};

static bool held(const struct rtc *r)
{
	return r->cmos[REG_B] & B_SET || (r->cmos[REG_A] & A_DIVIDER) != A_DIVIDER_RUN;
}

/* The guest's time since 1970. */
static uint64_t guest_ns(const struct rtc *r)
{
	return clock_utc_ns() + (uint64_t)r->offset_ns;
}

/* --- the time bytes (datasheet table 3) --- */

static uint8_t encode(const struct rtc *r, int v)
{
	return (uint8_t)(r->cmos[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static int decode(const struct rtc *r, uint8_t v)
{
	return r->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hours(const struct rtc *r, int h)
{
	if (r->cmos[REG_B] & B_24H)
		return encode(r, h);
	return encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? HOURS_PM : 0);
}

static int decode_hours(const struct rtc *r, uint8_t v)
{
	if (r->cmos[REG_B] & B_24H)
		return decode(r, v);
	return decode(r, v & ~HOURS_PM) % 12 + (v & HOURS_PM ? 12 : 0);
}

/* Puts the clock's time into the time bytes. */
static void bytes_from_clock(struct rtc *r)
{
	time_t t = (time_t)(guest_ns(r) / SECOND_NS);
	struct tm tm;

	if (held(r) || !gmtime_r(&t, &tm))
		return;
	r->cmos[SECONDS] = encode(r, tm.tm_sec);
	r->cmos[MINUTES] = encode(r, tm.tm_min);
	r->cmos[HOURS] = encode_hours(r, tm.tm_hour);
	r->cmos[WEEKDAY] = encode(r, tm.tm_wday + 1);
	r->cmos[DAY] = encode(r, tm.tm_mday);
	r->cmos[MONTH] = encode(r, tm.tm_mon + 1);
	r->cmos[YEAR] = encode(r, tm.tm_year % 100);
	/* BCD in either mode, as PC firmware keeps it. */
	int century = (1900 + tm.tm_year) / 100 % 100;
	r->cmos[CENTURY] = (uint8_t)(century / 10 << 4 | century % 10);
}

/* Sets the clock to what the time bytes say. Nonsense in them is carried over as mktime does. */
static void clock_from_bytes(struct rtc *r, uint64_t fraction_ns)
{
	int century = (r->cmos[CENTURY] >> 4) * 10 + (r->cmos[CENTURY] & 15);
	struct tm tm = {
		.tm_sec = decode(r, r->cmos[SECONDS]),
		.tm_min = decode(r, r->cmos[MINUTES]),
		.tm_hour = decode_hours(r, r->cmos[HOURS]),
		.tm_mday = decode(r, r->cmos[DAY]),
		.tm_mon = decode(r, r->cmos[MONTH]) - 1,
		.tm_year = decode(r, r->cmos[YEAR]) + century * 100 - 1900,
	};
	time_t t = timegm(&tm);

	if (t < 0)
		t = 0;
	r->offset_ns = 0;
	r->offset_ns = (int64_t)((uint64_t)t * SECOND_NS + fraction_ns - guest_ns(r));
	r->second_seen = (uint64_t)t;
}

/* --- events --- */

/* Periodic rate: datasheet table 5, 32.768 kHz time base. 0: none. */
static uint64_t period_ns(const struct rtc *r)
{
	unsigned rate = r->cmos[REG_A] & A_RATE;

	if (!rate || (r->cmos[REG_A] & A_DIVIDER) != A_DIVIDER_RUN)
		return 0;
	if (rate <= 2)
		rate += 7;
	return (SECOND_NS << (rate - 1)) / 32768;
}

static bool alarm_field(const struct rtc *r, unsigned reg, int now, bool hours)
{
	uint8_t v = r->cmos[reg];

	if ((v & ALARM_ANY) == ALARM_ANY)
		return true;
	return (hours ? decode_hours(r, v) : decode(r, v)) == now;
}

static bool alarm_at(const struct rtc *r, uint64_t second)
{
	unsigned day = (unsigned)(second % DAY_S);

	return alarm_field(r, SEC_ALARM, (int)(day % 60), false) &&
	       alarm_field(r, MIN_ALARM, (int)(day / 60 % 60), false) &&
	       alarm_field(r, HOUR_ALARM, (int)(day / 3600), true);
}

/* Can the field ever match? */
static bool alarm_possible(const struct rtc *r, unsigned reg, int limit)
{
	uint8_t v = r->cmos[reg];

	return (v & ALARM_ANY) == ALARM_ANY || decode(r, v) < limit;
}

/* The first second after `after` with an alarm, or 0: within a day, or never. */
static uint64_t next_alarm(const struct rtc *r, uint64_t after)
{
	if (!alarm_possible(r, SEC_ALARM, 60) || !alarm_possible(r, MIN_ALARM, 60))
		return 0;
	for (uint64_t s = after + 1; s <= after + DAY_S;) {
		if (!alarm_field(r, HOUR_ALARM, (int)(s % DAY_S / 3600), true))
			s += 3600 - s % 3600;
		else if (!alarm_field(r, MIN_ALARM, (int)(s / 60 % 60), false))
			s += 60 - s % 60;
		else if (!alarm_at(r, s))
			s++;
		else
			return s;
	}
	return 0;
}

/* Brings register C up to now. */
static void update_flags(struct rtc *r)
{
	uint64_t period = period_ns(r), second = guest_ns(r) / SECOND_NS;

	if (period) {
		uint64_t n = (clock_ns() - r->periodic_epoch_ns) / period;
		if (n != r->periodic_seen)
			r->c |= C_PF;
		r->periodic_seen = n;
	}
	if (held(r)) {
		r->second_seen = second;
	} else if (second > r->second_seen) {
		uint64_t alarm = next_alarm(r, r->second_seen);
		r->c |= C_UF;
		if (alarm && alarm <= second)
			r->c |= C_AF;
		r->second_seen = second;
	} else if (second < r->second_seen) {
		r->second_seen = second; /* the host's clock was set back */
	}
	r->c &= ~C_IRQF;
	if (r->c & r->cmos[REG_B] & (C_PF | C_AF | C_UF))
		r->c |= C_IRQF;
}

/* Sets the timer for the next event whose interrupt is enabled. */
static void arm(struct rtc *r)
{
	uint64_t now = clock_ns(), utc = guest_ns(r), period = period_ns(r), fire = 0, at;
	uint8_t want = r->cmos[REG_B] & ~r->c & (B_PIE | B_AIE | B_UIE);

	if (want & B_PIE && period) {
		at = r->periodic_epoch_ns + (r->periodic_seen + 1) * period;
		fire = at > now + MIN_PERIOD_NS ? at : now + MIN_PERIOD_NS;
	}
	if (want & (B_AIE | B_UIE) && !held(r)) {
		uint64_t second = want & B_UIE ? utc / SECOND_NS + 1
					       : next_alarm(r, utc / SECOND_NS);
		at = second ? now + second * SECOND_NS - utc : 0;
		if (at && (!fire || at < fire))
			fire = at;
	}
	r->fire_ns = fire;
	if (fire)
		timer_arm(&r->timer, fire);
	else
		timer_cancel(&r->timer);
}

static void refresh(struct rtc *r)
{
	update_flags(r);
	irq_set(&r->cfg.irq, !!(r->c & C_IRQF));
	arm(r);
}

static void on_timer(void *opaque)
{
	struct rtc *r = opaque;

	pthread_mutex_lock(&r->lock);
	if (r->fire_ns)
		refresh(r);
	pthread_mutex_unlock(&r->lock);
}

/* --- registers --- */

static bool is_time(unsigned index)
{
	return index <= YEAR || index == CENTURY;
}

static bool is_alarm(unsigned index)
{
	return index == SEC_ALARM || index == MIN_ALARM || index == HOUR_ALARM;
}

static uint8_t read_a(const struct rtc *r)
{
	bool soon = SECOND_NS - guest_ns(r) % SECOND_NS <= UIP_NS;

	return r->cmos[REG_A] | (!held(r) && soon ? A_UIP : 0);
}

static uint8_t read_c(struct rtc *r)
{
	uint8_t v;

	update_flags(r);
	v = r->c;
	r->c = 0;
	irq_set(&r->cfg.irq, 0);
	arm(r);
	return v;
}

static uint8_t read_cmos(struct rtc *r)
{
	switch (r->index) {
	case REG_A:
		return read_a(r);
	case REG_C:
		return read_c(r);
	case REG_D:
		return D_VALID;
	default:
		if (is_time(r->index) && !is_alarm(r->index))
			bytes_from_clock(r);
		return r->cmos[r->index];
	}
}

/* A or B: the clock stops as it was, or starts from the bytes. */
static void write_control(struct rtc *r, unsigned reg, uint8_t value)
{
	bool was_held = held(r);
	uint64_t fraction = 0;

	bytes_from_clock(r);
	if (reg == REG_A) {
		bool was_reset = (r->cmos[REG_A] & A_DIVIDER) != A_DIVIDER_RUN;
		r->cmos[REG_A] = value & ~A_UIP;
		/* The first update comes half a second after the divider starts (datasheet,
		 * "divider control"). */
		if (was_reset && (value & A_DIVIDER) == A_DIVIDER_RUN)
			fraction = SECOND_NS / 2;
		r->periodic_epoch_ns = clock_ns();
		r->periodic_seen = 0;
	} else {
		r->cmos[REG_B] = value & B_SET ? value & ~B_UIE : value; /* SET clears UIE */
	}
	if (was_held && !held(r))
		clock_from_bytes(r, fraction);
}

static void write_cmos(struct rtc *r, uint8_t value)
{
	unsigned i = r->index;

	if (i == REG_C || i == REG_D)
		return;
	update_flags(r); /* the past goes by the old settings */
	if (i == REG_A || i == REG_B) {
		write_control(r, i, value);
	} else if (is_time(i) && !is_alarm(i) && !held(r)) {
		uint64_t fraction = guest_ns(r) % SECOND_NS;
		bytes_from_clock(r);
		r->cmos[i] = value;
		clock_from_bytes(r, fraction);
	} else {
		r->cmos[i] = value;
	}
	refresh(r);
}

static uint8_t port_read(void *dev, unsigned reg)
{
	struct rtc *r = dev;
	uint8_t v = 0xff; /* the index port is write-only on a PC */

	pthread_mutex_lock(&r->lock);
	if (reg == 1)
		v = read_cmos(r);
	pthread_mutex_unlock(&r->lock);
	return v;
}

static void port_write(void *dev, unsigned reg, uint8_t value)
{
	struct rtc *r = dev;

	pthread_mutex_lock(&r->lock);
	if (reg == 0)
		r->index = value & 0x7f; /* bit 7 masks NMI on a PC; ours come by APIC only */
	else
		write_cmos(r, value);
	pthread_mutex_unlock(&r->lock);
}

static void access_port(void *r, struct bus_access *a)
{
	regs_by_byte(r, a, port_read, port_write);
}

void rtc_set_byte(struct rtc *r, unsigned index, uint8_t value)
{
	if (index <= REG_D || index >= RTC_BYTES || index == CENTURY)
		return;
	pthread_mutex_lock(&r->lock);
	r->cmos[index] = value;
	pthread_mutex_unlock(&r->lock);
}

/* --- life --- */

/* RESET# clears the interrupt enables and flags (datasheet, "RESET"); the rest is on battery. */
static void reset(void *dev)
{
	struct rtc *r = dev;

	pthread_mutex_lock(&r->lock);
	r->index = 0;
	r->cmos[REG_B] &= ~(B_PIE | B_AIE | B_UIE | 8);
	r->second_seen = guest_ns(r) / SECOND_NS;
	r->c = 0;
	refresh(r);
	pthread_mutex_unlock(&r->lock);
}

static void state(void *dev, struct state_stream *s)
{
	struct rtc *r = dev;
	uint64_t offset = (uint64_t)r->offset_ns;

	pthread_mutex_lock(&r->lock);
	if (state_writing(s))
		update_flags(r);
	state_begin(s, "rtc", 0, 1);
	state_u8(s, &r->index);
	state_u8(s, &r->c);
	state_raw(s, r->cmos, sizeof(r->cmos));
	state_u64(s, &offset);
	regs_state_epoch_ns(s, &r->periodic_epoch_ns);
	state_u64(s, &r->periodic_seen);
	state_end(s);
	if (!state_writing(s)) {
		r->index &= 0x7f;
		r->offset_ns = (int64_t)offset;
		r->cmos[REG_A] &= ~A_UIP;
		/* The wall clock went on: seconds missed while saved are no events. */
		r->second_seen = guest_ns(r) / SECOND_NS;
		refresh(r);
	}
	pthread_mutex_unlock(&r->lock);
}

static void destroy(void *dev)
{
	struct rtc *r = dev;

	if (!r)
		return;
	if (r->mapped)
		bus_unmap(r->cfg.bus, BUS_PIO, r->cfg.port, r);
	timer_destroy(&r->timer);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

const struct dev_ops rtc_ops = {
	.name = "rtc",
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int rtc_create(struct rtc **out, const struct rtc_config *cfg, struct error *err)
{
	struct rtc *r = calloc(1, sizeof(*r));
	int rc;

	*out = NULL;
	if (!r)
		return error_set(err, -ENOMEM, "rtc: out of memory");
	r->cfg = *cfg;
	pthread_mutex_init(&r->lock, NULL);
	timer_init(&r->timer, cfg->loop, on_timer, r);
	r->cmos[REG_A] = A_DIVIDER_RUN | 6; /* 1024 Hz, as firmware leaves it */
	r->cmos[REG_B] = B_24H;
	r->periodic_epoch_ns = clock_ns();
	rc = bus_map(cfg->bus, &(struct bus_range){.space = BUS_PIO,
						   .base = cfg->port,
						   .len = 2,
						   .fn = access_port,
						   .opaque = r,
						   .name = "rtc"});
	if (rc) {
		destroy(r);
		return error_set(err, rc, "rtc: port %#x cannot be mapped", cfg->port);
	}
	r->mapped = true;
	bytes_from_clock(r);
	reset(r);
	*out = r;
	return 0;
}
