/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pair of 8259As. "Datasheet" below is Intel's 8259A, order number 231468.
 *
 * Each chip is its three registers (IRR, ISR, IMR), the priority rotation and the command words.
 * pending() is the priority resolver; sync() recomputes both INT outputs after any change, the
 * slave's first because it drives the master's pin 2.
 *
 * One liberty: an edge latched in IRR stays until it is acknowledged, although the line goes low
 * before. The chip would give a spurious interrupt 7 for it (datasheet, "edge and level triggered
 * modes"); a device that lowers its line early loses nothing here, as in the chip sets' own
 * integrated controllers.
 */
#include "dev/pic.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "dev/regs.h"

enum { CASCADE = 2, SPURIOUS = 7 };
enum { ICW1_IC4 = 1, ICW1_SINGLE = 2, ICW1_LEVEL = 8, ICW1 = 0x10 };
enum { ICW4_AEOI = 2, ICW4_SFNM = 0x10 };
enum { OCW3 = 8, OCW3_READ_IRR = 2, OCW3_READ_ISR = 3, OCW3_POLL = 4 };
enum { OCW3_MASK_RESET = 0x40, OCW3_MASK_SET = 0x60 };

/* ICW sequence: what the next write to the odd port is. */
enum init_step { INIT_DONE, INIT_ICW2, INIT_ICW3, INIT_ICW4 };

struct chip {
	uint8_t irr, isr, imr;
	uint8_t lines; /* levels at the pins */
	uint8_t elcr, elcr_mask;
	uint8_t vector_base; /* ICW2 */
	uint8_t lowest;	     /* the pin of lowest priority; 7 unless rotated */
	uint8_t icw1, icw3, icw4;
	uint8_t step; /* enum init_step */
	bool read_isr, poll, special_mask, rotate_on_aeoi;
};

struct pic {
	struct pic_config cfg;
	pthread_mutex_t lock;
	struct chip chip[2]; /* master, slave */
	int output;
	unsigned mapped;
};

static bool is_level(const struct chip *c, unsigned pin)
{
	return c->icw1 & ICW1_LEVEL || c->elcr & 1 << pin;
}

/* The first pin of mask by priority, or -1. */
static int highest(const struct chip *c, uint8_t mask)
{
	for (unsigned i = 1; i <= 8 && mask; i++) {
		unsigned pin = (c->lowest + i) & 7;
		if (mask & 1 << pin)
			return (int)pin;
	}
	return -1;
}

/* Is pin a's priority over pin b's? */
static bool outranks(const struct chip *c, int a, int b)
{
	return ((a - c->lowest - 1) & 7) < ((b - c->lowest - 1) & 7);
}

/* The request that INT stands for, or -1 (datasheet, "fully nested", "special fully nested" and
 * "special mask" modes). */
static int pending(const struct chip *c)
{
	uint8_t isr = c->isr;
	int want = highest(c, c->irr & ~c->imr), busy;

	if (want < 0 || c->step != INIT_DONE)
		return -1;
	if (c->special_mask) /* only equal levels in service and not masked hold it back */
		isr &= ~c->imr & 1 << want;
	if (c->icw4 & ICW4_SFNM && !(c->icw1 & ICW1_SINGLE))
		isr &= ~(c->icw3 & 1 << want); /* the slave may interrupt itself */
	busy = highest(c, isr);
	return busy < 0 || outranks(c, want, busy) ? want : -1;
}

static void chip_set(struct chip *c, unsigned pin, int level)
{
	uint8_t bit = (uint8_t)(1 << pin);

	if (is_level(c, pin))
		c->irr = level ? c->irr | bit : c->irr & ~bit;
	else if (level && !(c->lines & bit))
		c->irr |= bit;
	c->lines = level ? c->lines | bit : c->lines & ~bit;
}

static void sync(struct pic *p)
{
	struct chip *master = &p->chip[0];
	bool slave_int = pending(&p->chip[1]) >= 0;
	uint8_t bit = 1 << CASCADE;

	/* The cascade pin follows the slave's INT: it is never left latched. */
	master->irr = slave_int ? master->irr | bit : master->irr & ~bit;
	master->lines = slave_int ? master->lines | bit : master->lines & ~bit;
	int output = pending(master) >= 0;
	if (output != p->output) {
		p->output = output;
		irq_set(&p->cfg.output, output);
	}
}

void pic_set_irq(struct pic *p, unsigned irq, int level)
{
	if (irq > 15 || irq == CASCADE)
		return;
	pthread_mutex_lock(&p->lock);
	chip_set(&p->chip[irq >> 3], irq & 7, level);
	sync(p);
	pthread_mutex_unlock(&p->lock);
}

/* Takes pin into service (the second INTA pulse). */
static void take(struct chip *c, int pin)
{
	uint8_t bit = (uint8_t)(1 << pin);

	if (!is_level(c, (unsigned)pin))
		c->irr &= ~bit;
	if (!(c->icw4 & ICW4_AEOI))
		c->isr |= bit;
	else if (c->rotate_on_aeoi)
		c->lowest = (uint8_t)pin;
}

uint8_t pic_ack(struct pic *p)
{
	struct chip *master = &p->chip[0], *slave = &p->chip[1];
	uint8_t vector;
	int pin;

	pthread_mutex_lock(&p->lock);
	pin = pending(master);
	if (pin >= 0)
		take(master, pin);
	if (pin != CASCADE) {
		vector = master->vector_base | (uint8_t)(pin < 0 ? SPURIOUS : pin);
	} else {
		pin = pending(slave);
		if (pin >= 0)
			take(slave, pin);
		vector = slave->vector_base | (uint8_t)(pin < 0 ? SPURIOUS : pin);
	}
	sync(p);
	pthread_mutex_unlock(&p->lock);
	return vector;
}

/* --- command words --- */

static void write_icw1(struct chip *c, uint8_t value)
{
	c->icw1 = value;
	c->imr = c->isr = 0;
	/* Edge sense is cleared: an input must rise again. Level inputs just are what they are. */
	c->irr = 0;
	for (unsigned pin = 0; pin < 8; pin++)
		if (is_level(c, pin))
			c->irr |= c->lines & 1 << pin;
	c->lowest = 7;
	c->special_mask = c->read_isr = c->poll = c->rotate_on_aeoi = false;
	if (!(value & ICW1_IC4))
		c->icw4 = 0;
	c->step = INIT_ICW2;
}

static void eoi(struct chip *c, int pin, bool rotate)
{
	if (pin < 0)
		return;
	c->isr &= (uint8_t) ~(1 << pin);
	if (rotate)
		c->lowest = (uint8_t)pin;
}

/* Datasheet figure 8: R, SL, EOI in bits 7 to 5. */
static void write_ocw2(struct chip *c, uint8_t value)
{
	int level = value & 7;
	/* In special mask mode a non-specific EOI passes over what is masked. */
	uint8_t served = c->special_mask ? c->isr & ~c->imr : c->isr;

	switch (value >> 5) {
	case 0:
		c->rotate_on_aeoi = false;
		break;
	case 1:
		eoi(c, highest(c, served), false);
		break;
	case 2:
		break;
	case 3:
		eoi(c, level, false);
		break;
	case 4:
		c->rotate_on_aeoi = true;
		break;
	case 5:
		eoi(c, highest(c, served), true);
		break;
	case 6:
		c->lowest = (uint8_t)level;
		break;
	case 7:
		eoi(c, level, true);
		break;
	}
}

static void write_ocw3(struct chip *c, uint8_t value)
{
	if (value & OCW3_POLL)
		c->poll = true;
	else if ((value & 3) >= OCW3_READ_IRR)
		c->read_isr = (value & 3) == OCW3_READ_ISR;
	if ((value & OCW3_MASK_SET) == OCW3_MASK_RESET)
		c->special_mask = false;
	else if ((value & OCW3_MASK_SET) == OCW3_MASK_SET)
		c->special_mask = true;
}

static void write_odd(struct chip *c, uint8_t value)
{
	switch (c->step) {
	case INIT_DONE:
		c->imr = value;
		break;
	case INIT_ICW2:
		c->vector_base = value & 0xf8;
		c->step = !(c->icw1 & ICW1_SINGLE) ? INIT_ICW3
			  : c->icw1 & ICW1_IC4	   ? INIT_ICW4
						   : INIT_DONE;
		break;
	case INIT_ICW3:
		c->icw3 = value;
		c->step = c->icw1 & ICW1_IC4 ? INIT_ICW4 : INIT_DONE;
		break;
	default:
		c->icw4 = value & 0x1f;
		c->step = INIT_DONE;
		break;
	}
}

static void port_write(struct pic *p, struct chip *c, unsigned reg, uint8_t value)
{
	pthread_mutex_lock(&p->lock);
	if (reg)
		write_odd(c, value);
	else if (value & ICW1)
		write_icw1(c, value);
	else if (value & OCW3)
		write_ocw3(c, value);
	else
		write_ocw2(c, value);
	sync(p);
	pthread_mutex_unlock(&p->lock);
}

/* A read after the poll command acknowledges like INTA and tells the level (datasheet, "poll
 * command"). */
static uint8_t poll(struct chip *c)
{
	int pin = pending(c);

	c->poll = false;
	if (pin < 0)
		return 0;
	take(c, pin);
	return 0x80 | (uint8_t)pin;
}

static uint8_t port_read(struct pic *p, struct chip *c, unsigned reg)
{
	uint8_t value;

	pthread_mutex_lock(&p->lock);
	if (c->poll)
		value = poll(c);
	else if (reg)
		value = c->imr;
	else
		value = c->read_isr ? c->isr : c->irr;
	sync(p);
	pthread_mutex_unlock(&p->lock);
	return value;
}

static uint8_t master_read(void *p, unsigned reg)
{
	return port_read(p, &((struct pic *)p)->chip[0], reg);
}

static void master_write(void *p, unsigned reg, uint8_t value)
{
	port_write(p, &((struct pic *)p)->chip[0], reg, value);
}

static uint8_t slave_read(void *p, unsigned reg)
{
	return port_read(p, &((struct pic *)p)->chip[1], reg);
}

static void slave_write(void *p, unsigned reg, uint8_t value)
{
	port_write(p, &((struct pic *)p)->chip[1], reg, value);
}

static uint8_t elcr_read(void *dev, unsigned reg)
{
	struct pic *p = dev;
	uint8_t value;

	pthread_mutex_lock(&p->lock);
	value = p->chip[reg & 1].elcr;
	pthread_mutex_unlock(&p->lock);
	return value;
}

static void elcr_write(void *dev, unsigned reg, uint8_t value)
{
	struct pic *p = dev;
	struct chip *c = &p->chip[reg & 1];

	pthread_mutex_lock(&p->lock);
	c->elcr = value & c->elcr_mask;
	for (unsigned pin = 0; pin < 8; pin++)
		if (is_level(c, pin))
			chip_set(c, pin, c->lines >> pin & 1);
	sync(p);
	pthread_mutex_unlock(&p->lock);
}

static void access_master(void *p, struct bus_access *a)
{
	regs_by_byte(p, a, master_read, master_write);
}

static void access_slave(void *p, struct bus_access *a)
{
	regs_by_byte(p, a, slave_read, slave_write);
}

static void access_elcr(void *p, struct bus_access *a)
{
	regs_by_byte(p, a, elcr_read, elcr_write);
}

/* --- life --- */

/* The chip itself has no reset. The board's leaves the pair as PC firmware does: vectors 08h and 70h,
 * cascaded, everything masked; with the lines as the devices drive them. */
static void reset(void *dev)
{
	struct pic *p = dev;

	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < 2; i++) {
		struct chip *c = &p->chip[i];
		*c = (struct chip){.lines = c->lines,
				   .imr = 0xff,
				   .elcr_mask = i ? 0xde : 0xf8,
				   .vector_base = i ? 0x70 : 0x08,
				   .lowest = 7,
				   .icw1 = ICW1 | ICW1_IC4,
				   .icw3 = i ? CASCADE : 1 << CASCADE,
				   .icw4 = 1};
	}
	sync(p);
	pthread_mutex_unlock(&p->lock);
}

static void chip_state(struct chip *c, struct state_stream *s)
{
	state_u8(s, &c->irr);
	state_u8(s, &c->isr);
	state_u8(s, &c->imr);
	state_u8(s, &c->lines);
	state_u8(s, &c->elcr);
	state_u8(s, &c->vector_base);
	state_u8(s, &c->lowest);
	state_u8(s, &c->icw1);
	state_u8(s, &c->icw3);
	state_u8(s, &c->icw4);
	state_u8(s, &c->step);
	state_bool(s, &c->read_isr);
	state_bool(s, &c->poll);
	state_bool(s, &c->special_mask);
	state_bool(s, &c->rotate_on_aeoi);
	if (c->lowest > 7 || c->step > INIT_ICW4 || c->elcr & ~c->elcr_mask) {
		c->lowest &= 7;
		c->step = INIT_DONE;
		c->elcr &= c->elcr_mask;
		state_fail(s, "registers that cannot be");
	}
}

static void state(void *dev, struct state_stream *s)
{
	struct pic *p = dev;

	pthread_mutex_lock(&p->lock);
	state_begin(s, "pic", 0, 1);
	chip_state(&p->chip[0], s);
	chip_state(&p->chip[1], s);
	state_end(s);
	if (!state_writing(s)) {
		p->output = -1; /* tell the line in any case */
		sync(p);
	}
	pthread_mutex_unlock(&p->lock);
}

static const struct {
	void (*fn)(void *, struct bus_access *);
	const char *name;
} ports[] = {{access_master, "pic"}, {access_slave, "pic2"}, {access_elcr, "elcr"}};

static uint16_t port_base(const struct pic *p, unsigned i)
{
	return i == 0 ? p->cfg.master_port : i == 1 ? p->cfg.slave_port : p->cfg.elcr_port;
}

static void destroy(void *dev)
{
	struct pic *p = dev;

	if (!p)
		return;
	while (p->mapped)
		bus_unmap(p->cfg.bus, BUS_PIO, port_base(p, --p->mapped), p);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

const struct dev_ops pic_ops = {
	.name = "pic",
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int pic_create(struct pic **out, const struct pic_config *cfg, struct error *err)
{
	struct pic *p = calloc(1, sizeof(*p));

	*out = NULL;
	if (!p)
		return error_set(err, -ENOMEM, "pic: out of memory");
	p->cfg = *cfg;
	pthread_mutex_init(&p->lock, NULL);
	for (; p->mapped < 3; p->mapped++) {
		struct bus_range r = {.space = BUS_PIO,
				      .base = port_base(p, p->mapped),
				      .len = 2,
				      .fn = ports[p->mapped].fn,
				      .opaque = p,
				      .name = ports[p->mapped].name};
		int rc = bus_map(cfg->bus, &r);
		if (rc) {
			destroy(p);
			return error_set(err, rc, "pic: ports cannot be mapped");
		}
	}
	reset(p);
	*out = p;
	return 0;
}
