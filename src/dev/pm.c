/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI fixed hardware. The SCI is the level of "some status bit that is enabled". The timer is
 * worked out from CLOCK_MONOTONIC; its status bit, set when the top bit changes (ACPI 6.4, 4.8.2.1),
 * is worked out when looked at, and a host timer waits for it only while its interrupt is enabled.
 */
#include "dev/pm.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "dev/regs.h"

/* ACPI 6.4, tables 4.13 to 4.15. */
enum { TMR_STS = 1 << 0, GBL_STS = 1 << 5, PWRBTN_STS = 1 << 8, RTC_STS = 1 << 10 };
enum { STS_CLEARABLE = 0xcf31, EN_WRITABLE = TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS | 1 << 9 };
enum { CNT_SCI_EN = 1, CNT_BM_RLD = 2, CNT_SLP_TYP = 7 << 10, CNT_SLP_EN = 1 << 13, S5 = 5 };
enum { TIMER_BITS = 24, EVT_BYTES = 4, CNT_AT = 4, TIMER_AT = 8, BLOCK_BYTES = 12, GPE_BYTES = 4 };

struct pm {
	struct pm_config cfg;
	pthread_mutex_t lock;
	unsigned mapped;
	struct timer timer;
	uint64_t epoch_ns;
	uint64_t half_turns; /* changes of the timer's top bit accounted for */
	uint64_t fire_ns;
	uint16_t sts, en, cnt, gpe_sts, gpe_en;
};

static uint64_t ticks(const struct pm *p)
{
	return clock_muldiv(clock_ns() - p->epoch_ns, PM_TIMER_HZ, 1000000000);
}

static void update(struct pm *p)
{
	uint64_t half_turns = ticks(p) >> (TIMER_BITS - 1);

	if (half_turns != p->half_turns)
		p->sts |= TMR_STS;
	p->half_turns = half_turns;
	irq_set(&p->cfg.sci, (p->sts & p->en) || (p->gpe_sts & p->gpe_en));
	p->fire_ns = 0;
	if (p->en & TMR_STS && !(p->sts & TMR_STS))
		p->fire_ns =
			p->epoch_ns + 1 +
			clock_muldiv((half_turns + 1) << (TIMER_BITS - 1), 1000000000, PM_TIMER_HZ);
	if (p->fire_ns)
		timer_arm(&p->timer, p->fire_ns);
	else
		timer_cancel(&p->timer);
}

static void on_timer(void *opaque)
{
	struct pm *p = opaque;

	pthread_mutex_lock(&p->lock);
	if (p->fire_ns)
		update(p);
	pthread_mutex_unlock(&p->lock);
}

void pm_power_button(struct pm *p)
{
	pthread_mutex_lock(&p->lock);
	p->sts |= PWRBTN_STS;
	update(p);
	pthread_mutex_unlock(&p->lock);
}

void pm_raise_gpe(struct pm *p, unsigned bit)
{
	pthread_mutex_lock(&p->lock);
	p->gpe_sts |= (uint16_t)(1u << (bit & 15));
	update(p);
	pthread_mutex_unlock(&p->lock);
}

/* --- registers, byte by byte --- */

static void set_byte(uint16_t *reg, unsigned high, uint8_t value)
{
	*reg = high ? (uint16_t)(*reg & 0xff) | (uint16_t)(value << 8) : (*reg & 0xff00) | value;
}

static void clear_byte(uint16_t *reg, unsigned high, uint8_t ones)
{
	*reg &= (uint16_t) ~(high ? ones << 8 : ones);
}

static void write_cnt(struct pm *p, unsigned high, uint8_t value)
{
	bool sleep = high && value & CNT_SLP_EN >> 8;

	set_byte(&p->cnt, high, value);
	p->cnt = (p->cnt & (CNT_BM_RLD | CNT_SLP_TYP)) | CNT_SCI_EN;
	/* S5 is the only sleeping state that the DSDT offers. */
	if (sleep && (p->cnt & CNT_SLP_TYP) >> 10 == S5 && p->cfg.power_off)
		p->cfg.power_off(p->cfg.opaque);
}

static void block_write(void *dev, unsigned reg, uint8_t value)
{
	struct pm *p = dev;

	pthread_mutex_lock(&p->lock);
	update(p);
	switch (reg) {
	case 0:
	case 1:
		clear_byte(&p->sts, reg, value & (uint8_t)(STS_CLEARABLE >> (8 * reg)));
		break;
	case 2:
	case 3:
		set_byte(&p->en, reg & 1, value);
		p->en &= EN_WRITABLE;
		break;
	case CNT_AT:
	case CNT_AT + 1:
		write_cnt(p, reg & 1, value);
		break;
	default:
		break; /* the timer cannot be written */
	}
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static uint8_t block_read(void *dev, unsigned reg)
{
	struct pm *p = dev;
	uint16_t v = 0;

	pthread_mutex_lock(&p->lock);
	update(p);
	if (reg < EVT_BYTES)
		v = reg < 2 ? p->sts : p->en;
	else if (reg < CNT_AT + 2)
		v = p->cnt;
	pthread_mutex_unlock(&p->lock);
	return (uint8_t)(reg & 1 ? v >> 8 : v);
}

static void access_block(void *dev, struct bus_access *a)
{
	struct pm *p = dev;
	uint32_t timer;

	if (a->write || a->offset < TIMER_AT) {
		regs_by_byte(p, a, block_read, block_write);
		return;
	}
	/* The timer is read in one piece, or its bytes would not belong together. */
	pthread_mutex_lock(&p->lock);
	timer = (uint32_t)(ticks(p) & ((1u << TIMER_BITS) - 1));
	pthread_mutex_unlock(&p->lock);
	a->value = timer >> (8 * (a->offset - TIMER_AT));
}

static void gpe_write(void *dev, unsigned reg, uint8_t value)
{
	struct pm *p = dev;

	pthread_mutex_lock(&p->lock);
	if (reg < 2)
		clear_byte(&p->gpe_sts, reg, value);
	else
		set_byte(&p->gpe_en, reg & 1, value);
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static uint8_t gpe_read(void *dev, unsigned reg)
{
	struct pm *p = dev;
	uint16_t v;

	pthread_mutex_lock(&p->lock);
	v = reg < 2 ? p->gpe_sts : p->gpe_en;
	pthread_mutex_unlock(&p->lock);
	return (uint8_t)(reg & 1 ? v >> 8 : v);
}

static void access_gpe(void *dev, struct bus_access *a)
{
	regs_by_byte(dev, a, gpe_read, gpe_write);
}

/* --- life --- */

static void reset(void *dev)
{
	struct pm *p = dev;

	pthread_mutex_lock(&p->lock);
	p->sts = p->en = p->gpe_sts = p->gpe_en = 0;
	p->cnt = CNT_SCI_EN;
	p->epoch_ns = clock_ns();
	p->half_turns = 0;
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static void state(void *dev, struct state_stream *s)
{
	struct pm *p = dev;

	pthread_mutex_lock(&p->lock);
	state_begin(s, "pm", 0, 1);
	regs_state_epoch_ns(s, &p->epoch_ns);
	state_u64(s, &p->half_turns);
	state_u16(s, &p->sts);
	state_u16(s, &p->en);
	state_u16(s, &p->cnt);
	state_u16(s, &p->gpe_sts);
	state_u16(s, &p->gpe_en);
	state_end(s);
	if (!state_writing(s)) {
		p->en &= EN_WRITABLE;
		p->cnt = (p->cnt & (CNT_BM_RLD | CNT_SLP_TYP)) | CNT_SCI_EN;
		update(p);
	}
	pthread_mutex_unlock(&p->lock);
}

static void destroy(void *dev)
{
	struct pm *p = dev;

	if (!p)
		return;
	if (p->mapped > 1)
		bus_unmap(p->cfg.bus, BUS_PIO, p->cfg.gpe0_port, p);
	if (p->mapped > 0)
		bus_unmap(p->cfg.bus, BUS_PIO, p->cfg.evt_port, p);
	timer_destroy(&p->timer);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

const struct dev_ops pm_ops = {
	.name = "pm",
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int pm_create(struct pm **out, const struct pm_config *cfg, struct error *err)
{
	struct pm *p;

	*out = NULL;
	if (cfg->cnt_port != cfg->evt_port + CNT_AT || cfg->timer_port != cfg->evt_port + TIMER_AT)
		return error_set(err, -EINVAL, "pm: its blocks do not follow one another");
	p = calloc(1, sizeof(*p));
	if (!p)
		return error_set(err, -ENOMEM, "pm: out of memory");
	p->cfg = *cfg;
	pthread_mutex_init(&p->lock, NULL);
	timer_init(&p->timer, cfg->loop, on_timer, p);
	const struct bus_range ranges[] = {
		{BUS_PIO, cfg->evt_port, BLOCK_BYTES, access_block, p, "acpi pm1"},
		{BUS_PIO, cfg->gpe0_port, GPE_BYTES, access_gpe, p, "acpi gpe0"},
	};
	for (; p->mapped < 2; p->mapped++) {
		int rc = bus_map(cfg->bus, &ranges[p->mapped]);
		if (rc) {
			destroy(p);
			return error_set(err, rc, "pm: ports cannot be mapped");
		}
	}
	reset(p);
	*out = p;
	return 0;
}
