/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O APIC. Each pin has a redirection entry (82093AA datasheet 3.2.4). An edge pin sends a message
 * per rising edge; edges while it is masked are ignored, as the datasheet has it for the mask bit.
 * A level pin sends one message while its line is high, then waits with Remote IRR set for the EOI of its vector, which comes by broadcast
 * from a local APIC or, with broadcast suppressed, by the EOI register; if the line is still high,
 * it sends again.
 */
#include "dev/ioapic.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum { IOREGSEL = 0x00, IOWIN = 0x10, IOEOI = 0x40, WINDOW_BYTES = 0x1000 };
enum { REG_ID = 0, REG_VERSION = 1, REG_ARBITRATION = 2, REG_REDIR = 0x10 };
enum { VERSION = 0x20 };

#define REDIR_MODE(e) ((enum apic_mode)((e) >> 8 & 7))
#define REDIR_LOGICAL UINT64_C(0x0800)
#define REDIR_REMOTE_IRR UINT64_C(0x4000)
#define REDIR_LEVEL UINT64_C(0x8000)
#define REDIR_MASKED UINT64_C(0x10000)
/* Vector, modes, polarity, trigger, mask, destination; bits 12 and 14 are the chip's. */
#define REDIR_WRITABLE UINT64_C(0xff0000000001afff)

struct ioapic {
	struct ioapic_config cfg;
	pthread_mutex_t lock; /* taken before the local APICs' */
	bool mapped;
	uint8_t select, id;
	uint32_t lines; /* levels at the pins */
	uint64_t redir[IOAPIC_PINS];
};

/* Only fixed and lowest priority are ever level (datasheet 3.2.4, delivery mode). */
static bool is_level(uint64_t e)
{
	return e & REDIR_LEVEL && REDIR_MODE(e) <= APIC_LOWEST;
}

static bool send(struct ioapic *io, uint64_t e)
{
	struct apic_message m = {
		.dest = (uint32_t)(e >> 56),
		.logical = e & REDIR_LOGICAL,
		.mode = REDIR_MODE(e),
		.vector = (uint8_t)e,
		.level_triggered = is_level(e),
	};

	return lapic_deliver(io->cfg.lapics, &m);
}

/* Sends what a level pin has to send. */
static void service_level(struct ioapic *io, unsigned pin)
{
	uint64_t e = io->redir[pin];

	if (is_level(e) && !(e & (REDIR_MASKED | REDIR_REMOTE_IRR)) &&
	    io->lines & UINT32_C(1) << pin && send(io, e))
		io->redir[pin] |= REDIR_REMOTE_IRR;
}

void ioapic_set_irq(struct ioapic *io, unsigned pin, int level)
{
	uint32_t bit = UINT32_C(1) << (pin & 31);

	if (pin >= IOAPIC_PINS)
		return;
	pthread_mutex_lock(&io->lock);
	bool rising = level && !(io->lines & bit);
	io->lines = level ? io->lines | bit : io->lines & ~bit;
	if (level)
		service_level(io, pin);
	if (rising && !is_level(io->redir[pin]) && !(io->redir[pin] & REDIR_MASKED))
		send(io, io->redir[pin]);
	pthread_mutex_unlock(&io->lock);
}

static void eoi(void *opaque, uint8_t vector)
{
	struct ioapic *io = opaque;

	pthread_mutex_lock(&io->lock);
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		uint64_t *e = &io->redir[pin];
		if ((uint8_t)*e != vector || !(*e & REDIR_LEVEL) || !(*e & REDIR_REMOTE_IRR))
			continue;
		*e &= ~REDIR_REMOTE_IRR;
		service_level(io, pin);
	}
	pthread_mutex_unlock(&io->lock);
}

static void write_redir(struct ioapic *io, unsigned pin, bool high, uint32_t value)
{
	uint64_t *e = &io->redir[pin];
	uint64_t v = high ? (uint64_t)value << 32 | (uint32_t)*e
			  : (*e & ~UINT64_C(0xffffffff)) | value;

	*e = (*e & ~REDIR_WRITABLE) | (v & REDIR_WRITABLE);
	/* In edge mode Remote IRR means nothing: clearing it there is how software gets a pin out
	 * of a lost EOI where there is no EOI register. */
	if (!(*e & REDIR_LEVEL))
		*e &= ~REDIR_REMOTE_IRR;
	service_level(io, pin);
}

static uint32_t read_window(struct ioapic *io)
{
	unsigned pin = (io->select - REG_REDIR) / 2u;

	switch (io->select) {
	case REG_ID:
	case REG_ARBITRATION:
		return (uint32_t)io->id << 24;
	case REG_VERSION:
		return VERSION | (IOAPIC_PINS - 1) << 16;
	default:
		if (io->select < REG_REDIR || pin >= IOAPIC_PINS)
			return 0;
		return (uint32_t)(io->redir[pin] >> (io->select & 1 ? 32 : 0));
	}
}

static void write_window(struct ioapic *io, uint32_t value)
{
	unsigned pin = (io->select - REG_REDIR) / 2u;

	if (io->select == REG_ID)
		io->id = value >> 24 & 0xf;
	else if (io->select >= REG_REDIR && pin < IOAPIC_PINS)
		write_redir(io, pin, io->select & 1, value);
}

/* Registers are 32 bits wide; narrower accesses see or write the low part. */
static void access_mmio(void *opaque, struct bus_access *a)
{
	struct ioapic *io = opaque;
	uint32_t v = 0;

	if (a->write && a->offset == IOEOI) {
		eoi(io, (uint8_t)a->value);
		return;
	}
	pthread_mutex_lock(&io->lock);
	switch (a->offset) {
	case IOREGSEL:
		if (a->write)
			io->select = (uint8_t)a->value;
		v = io->select;
		break;
	case IOWIN:
		if (a->write)
			write_window(io, (uint32_t)a->value);
		else
			v = read_window(io);
		break;
	default:
		break;
	}
	pthread_mutex_unlock(&io->lock);
	if (!a->write)
		a->value = v;
}

static void reset(void *dev)
{
	struct ioapic *io = dev;

	pthread_mutex_lock(&io->lock);
	io->select = 0;
	io->id = io->cfg.id;
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		io->redir[pin] = REDIR_MASKED;
	pthread_mutex_unlock(&io->lock);
}

static void state(void *dev, struct state_stream *s)
{
	struct ioapic *io = dev;

	pthread_mutex_lock(&io->lock);
	state_begin(s, "ioapic", 0, 1);
	state_u8(s, &io->select);
	state_u8(s, &io->id);
	state_u32(s, &io->lines);
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		state_u64(s, &io->redir[pin]);
		io->redir[pin] &= REDIR_WRITABLE | REDIR_REMOTE_IRR;
	}
	state_end(s);
	io->id &= 0xf;
	pthread_mutex_unlock(&io->lock);
}

static void destroy(void *dev)
{
	struct ioapic *io = dev;

	if (!io)
		return;
	if (io->mapped)
		bus_unmap(io->cfg.bus, BUS_MMIO, io->cfg.gpa, io);
	pthread_mutex_destroy(&io->lock);
	free(io);
}

const struct dev_ops ioapic_ops = {
	.name = "ioapic",
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int ioapic_create(struct ioapic **out, const struct ioapic_config *cfg, struct error *err)
{
	struct ioapic *io = calloc(1, sizeof(*io));
	int rc;

	*out = NULL;
	if (!io)
		return error_set(err, -ENOMEM, "I/O APIC: out of memory");
	io->cfg = *cfg;
	pthread_mutex_init(&io->lock, NULL);
	rc = bus_map(cfg->bus, &(struct bus_range){.space = BUS_MMIO,
						   .base = cfg->gpa,
						   .len = WINDOW_BYTES,
						   .fn = access_mmio,
						   .opaque = io,
						   .name = "ioapic"});
	if (rc) {
		destroy(io);
		return error_set(err, rc, "I/O APIC: cannot be mapped");
	}
	io->mapped = true;
	lapic_set_eoi_sink(cfg->lapics, eoi, io);
	reset(io);
	*out = io;
	return 0;
}
