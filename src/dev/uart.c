/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16550A serial port. Register numbers, bits and the rules of the interrupts follow the PC16550D
 * datasheet, section 8; what the PC adds is that OUT2 of the modem control register connects the
 * interrupt output to its line.
 *
 * Time: a byte written is sent at once, so the transmitter is empty again when the write ends;
 * the THR-empty interrupt still follows each such edge. Output is gathered in `out` and handed to
 * the backend when the buffer is full or a short while after its first byte (FLUSH_NS), so that a
 * boot's console does not cost a system call a byte. Only if the backend takes nothing does the
 * buffer stay full, and then THRE stays clear: that is the back-pressure the guest feels.
 * Input goes straight into the receive FIFO; what does not fit stays with the backend.
 */
#include "dev/uart.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dev/regs.h"

enum { RBR_THR, REG_IER, IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR, REG_COUNT };
enum { IER_RDA = 1, IER_THRE = 2, IER_LSR = 4, IER_MSR = 8, IER_MASK = 0xf };
enum { IIR_NONE = 1, IIR_LSR = 6, IIR_RDA = 4, IIR_TIMEOUT = 12, IIR_THRE = 2, IIR_MSR = 0 };
enum { IIR_FIFOS = 0xc0 };
enum { FCR_ENABLE = 1, FCR_RX_RESET = 2, FCR_TX_RESET = 4, FCR_KEEP = 0xc9 };
enum { LCR_BREAK = 0x40, LCR_DLAB = 0x80 };
enum { MCR_OUT2 = 8, MCR_LOOP = 0x10, MCR_MASK = 0x1f };
enum { LSR_DR = 1, LSR_OE = 2, LSR_ERRORS = 0x1e, LSR_BI = 0x10, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum { LSR_FIFO_ERROR = 0x80 };
enum { MSR_TERI = 4, MSR_DELTAS = 0xf, MSR_RI = 0x40, MSR_CONNECTED = 0xb0 /* DCD, DSR, CTS */ };
enum { FIFO_BYTES = 16, OUT_BYTES = 4096, FLUSH_NS = 2 * 1000 * 1000 };
enum { UART_CLOCK_HZ = 1843200 };

struct uart {
	struct uart_config cfg;
	pthread_mutex_t lock;
	bool mapped;
	struct timer flush_timer, rx_timer;

	uint8_t ier, fcr, lcr, mcr, msr, scr, dll, dlm;
	bool thre_pending;  /* the edge to empty has not been seen in IIR yet */
	bool overrun;	    /* LSR.OE */
	uint8_t top_errors; /* LSR.BI, FE, PE of the byte at the top, once revealed */
	bool rx_timeout;
	uint64_t rx_deadline_ns; /* of the character timeout; 0: none */

	uint8_t rx[FIFO_BYTES], rx_errors[FIFO_BYTES];
	uint8_t rx_head, rx_count;
	bool input_refused; /* input_room is owed */

	uint8_t out[OUT_BYTES];
	uint32_t out_len;
	uint64_t out_bytes, in_bytes;
};

static bool fifos_on(const struct uart *u)
{
	return u->fcr & FCR_ENABLE;
}

static unsigned rx_capacity(const struct uart *u)
{
	return fifos_on(u) ? FIFO_BYTES : 1;
}

static unsigned rx_trigger(const struct uart *u)
{
	static const uint8_t level[4] = {1, 4, 8, 14};

	return fifos_on(u) ? level[u->fcr >> 6] : 1;
}

static bool tx_busy(const struct uart *u)
{
	return OUT_BYTES - u->out_len < FIFO_BYTES;
}

static uint8_t lsr(const struct uart *u)
{
	uint8_t v = u->top_errors;

	if (u->rx_count)
		v |= LSR_DR;
	if (u->overrun)
		v |= LSR_OE;
	if (!tx_busy(u))
		v |= LSR_THRE | LSR_TEMT;
	for (unsigned i = 0; fifos_on(u) && i < u->rx_count; i++)
		if (u->rx_errors[(u->rx_head + i) % FIFO_BYTES])
			v |= LSR_FIFO_ERROR;
	return v;
}

/* The interrupt identification by priority: datasheet table IV. */
static uint8_t iir(const struct uart *u)
{
	if (u->ier & IER_LSR && (u->overrun || u->top_errors))
		return IIR_LSR;
	if (u->ier & IER_RDA && u->rx_count >= rx_trigger(u))
		return IIR_RDA;
	if (u->ier & IER_RDA && u->rx_timeout)
		return IIR_TIMEOUT;
	if (u->ier & IER_THRE && u->thre_pending)
		return IIR_THRE;
	if (u->ier & IER_MSR && u->msr & MSR_DELTAS)
		return IIR_MSR;
	return IIR_NONE;
}

/* In loop-back the OUT2 pin is forced inactive, and with it the PC's interrupt gate. */
static void update_irq(struct uart *u)
{
	bool gate = (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;

	irq_set(&u->cfg.irq, gate && iir(u) != IIR_NONE);
}

/* --- output --- */

static void flush(struct uart *u)
{
	size_t taken = u->out_len;

	if (!u->out_len)
		return;
	if (u->cfg.backend.write)
		taken = u->cfg.backend.write(u->cfg.backend.opaque, u->out, u->out_len);
	if (taken > u->out_len)
		taken = u->out_len;
	bool was_busy = tx_busy(u);
	memmove(u->out, u->out + taken, u->out_len - taken);
	u->out_len -= (uint32_t)taken;
	if (was_busy && !tx_busy(u))
		u->thre_pending = true;
}

static void on_flush_timer(void *opaque)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->lock);
	flush(u);
	update_irq(u);
	pthread_mutex_unlock(&u->lock);
}

void uart_writable(struct uart *u)
{
	on_flush_timer(u);
}

static void send(struct uart *u, uint8_t byte)
{
	u->out_bytes++;
	if (!u->out_len)
		timer_arm(&u->flush_timer, clock_ns() + FLUSH_NS);
	if (u->out_len < OUT_BYTES)
		u->out[u->out_len++] = byte;
	if (tx_busy(u))
		flush(u);
}

/* --- input --- */

/* Four character times (datasheet 8.5), within reason for a host's timers. */
static uint64_t rx_timeout_ns(const struct uart *u)
{
	unsigned divisor = u->dlm << 8 | u->dll;
	unsigned bits = 1 + 5 + (u->lcr & 3) + !!(u->lcr & 8) + 1 + !!(u->lcr & 4);
	uint64_t ns =
		4 * clock_muldiv(16u * (divisor ? divisor : 1) * bits, 1000000000, UART_CLOCK_HZ);

	return ns < 100000 ? 100000 : ns > 20000000 ? 20000000 : ns;
}

/* A byte came or went: the character timeout starts again. */
static void rx_restart_timeout(struct uart *u)
{
	u->rx_timeout = false;
	u->rx_deadline_ns = 0;
	if (fifos_on(u) && u->rx_count && u->rx_count < rx_trigger(u)) {
		u->rx_deadline_ns = clock_ns() + rx_timeout_ns(u);
		timer_arm(&u->rx_timer, u->rx_deadline_ns);
	}
}

static void on_rx_timer(void *opaque)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->lock);
	if (u->rx_deadline_ns && u->rx_deadline_ns <= clock_ns()) {
		u->rx_deadline_ns = 0;
		u->rx_timeout = u->rx_count > 0;
		update_irq(u);
	}
	pthread_mutex_unlock(&u->lock);
}

/* Errors show in LSR when their byte comes to the top of the FIFO. */
static void rx_reveal_top(struct uart *u)
{
	if (u->rx_count) {
		u->top_errors |= u->rx_errors[u->rx_head];
		u->rx_errors[u->rx_head] = 0;
	}
}

static void rx_push(struct uart *u, uint8_t byte, uint8_t errors)
{
	unsigned at;

	if (u->rx_count == rx_capacity(u)) {
		u->overrun = true; /* 8.4: with FIFOs the new byte is lost, without the old one */
		if (fifos_on(u))
			return;
		u->rx_count--;
		u->rx_head = (u->rx_head + 1) % FIFO_BYTES;
	}
	at = (u->rx_head + u->rx_count++) % FIFO_BYTES;
	u->rx[at] = byte;
	u->rx_errors[at] = errors;
	if (u->rx_count == 1)
		rx_reveal_top(u);
	rx_restart_timeout(u);
}

static void rx_offer_room(struct uart *u)
{
	if (!u->input_refused || u->rx_count || u->mcr & MCR_LOOP)
		return;
	u->input_refused = false;
	if (u->cfg.backend.input_room)
		u->cfg.backend.input_room(u->cfg.backend.opaque);
}

static uint8_t rx_pop(struct uart *u)
{
	uint8_t byte = u->rx[u->rx_head];

	if (!u->rx_count)
		return byte; /* the last byte again */
	u->rx_count--;
	if (u->rx_count) {
		u->rx_head = (u->rx_head + 1) % FIFO_BYTES;
		rx_reveal_top(u);
	}
	rx_restart_timeout(u);
	return byte;
}

static void rx_clear(struct uart *u)
{
	u->rx_count = 0;
	memset(u->rx_errors, 0, sizeof(u->rx_errors));
	u->overrun = false;
	u->top_errors = 0;
	rx_restart_timeout(u);
}

size_t uart_receive(struct uart *u, const uint8_t *data, size_t len)
{
	size_t taken = 0;

	pthread_mutex_lock(&u->lock);
	if (!(u->mcr & MCR_LOOP)) /* looped back, the receiver is cut off from the line */
		while (taken < len && u->rx_count < rx_capacity(u))
			rx_push(u, data[taken++], 0);
	u->in_bytes += taken;
	u->input_refused |= taken < len;
	update_irq(u);
	pthread_mutex_unlock(&u->lock);
	return taken;
}

void uart_receive_break(struct uart *u)
{
	pthread_mutex_lock(&u->lock);
	if (!(u->mcr & MCR_LOOP))
		rx_push(u, 0, LSR_BI);
	update_irq(u);
	pthread_mutex_unlock(&u->lock);
}

/* --- registers --- */

/* The modem inputs: what is plugged in, or in loop-back the modem outputs (8.6). */
static void msr_update(struct uart *u)
{
	uint8_t now = u->cfg.backend.write ? MSR_CONNECTED : 0;
	uint8_t old = u->msr & 0xf0, changed;

	if (u->mcr & MCR_LOOP)
		now = (uint8_t)((u->mcr & 0xc) << 4 | (u->mcr & 1) << 5 | (u->mcr & 2) << 3);
	changed = old ^ now;
	u->msr |= (changed & ~MSR_RI) >> 4;
	if (old & ~now & MSR_RI)
		u->msr |= MSR_TERI;
	u->msr = (u->msr & MSR_DELTAS) | now;
}

static void write_thr(struct uart *u, uint8_t value)
{
	uint8_t byte = value & (0xff >> (3 - (u->lcr & 3)));

	u->thre_pending = false;
	update_irq(u);
	if (u->mcr & MCR_LOOP)
		rx_push(u, byte, 0);
	else
		send(u, byte);
	u->thre_pending = !tx_busy(u);
}

static void write_fcr(struct uart *u, uint8_t value)
{
	bool toggled = (value ^ u->fcr) & FCR_ENABLE;

	if (toggled || (value & FCR_ENABLE && value & FCR_RX_RESET))
		rx_clear(u);
	if (toggled || (value & FCR_ENABLE && value & FCR_TX_RESET))
		u->thre_pending = !tx_busy(u);
	/* 8.3: the other bits are programmed only while bit 0 is written as 1. */
	u->fcr = value & FCR_ENABLE ? value & FCR_KEEP : 0;
	rx_restart_timeout(u);
	rx_offer_room(u);
}

static void write_lcr(struct uart *u, uint8_t value)
{
	if ((value ^ u->lcr) & LCR_BREAK) {
		if (u->mcr & MCR_LOOP) {
			if (value & LCR_BREAK)
				rx_push(u, 0, LSR_BI);
		} else if (u->cfg.backend.set_break) {
			flush(u);
			u->cfg.backend.set_break(u->cfg.backend.opaque, value & LCR_BREAK);
		}
	}
	u->lcr = value;
}

static void write_ier(struct uart *u, uint8_t value)
{
	/* Enabling the interrupt while the register is empty raises it at once. */
	if (value & ~u->ier & IER_THRE && !tx_busy(u))
		u->thre_pending = true;
	u->ier = value & IER_MASK;
}

static void reg_write(void *opaque, unsigned reg, uint8_t value)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->lock);
	switch (reg) {
	case RBR_THR:
		if (u->lcr & LCR_DLAB)
			u->dll = value;
		else
			write_thr(u, value);
		break;
	case REG_IER:
		if (u->lcr & LCR_DLAB)
			u->dlm = value;
		else
			write_ier(u, value);
		break;
	case IIR_FCR:
		write_fcr(u, value);
		break;
	case REG_LCR:
		write_lcr(u, value);
		break;
	case REG_MCR:
		u->mcr = value & MCR_MASK;
		msr_update(u);
		rx_offer_room(u);
		break;
	case REG_SCR:
		u->scr = value;
		break;
	default:
		break; /* LSR and MSR are not for writing outside the factory */
	}
	update_irq(u);
	pthread_mutex_unlock(&u->lock);
}

static uint8_t read_rbr(struct uart *u)
{
	uint8_t value = rx_pop(u);

	rx_offer_room(u);
	return value;
}

static uint8_t read_iir(struct uart *u)
{
	uint8_t value = iir(u);

	if (value == IIR_THRE)
		u->thre_pending = false;
	return value | (fifos_on(u) ? IIR_FIFOS : 0);
}

static uint8_t read_lsr(struct uart *u)
{
	uint8_t value = lsr(u);

	u->overrun = false;
	u->top_errors = 0;
	return value;
}

static uint8_t reg_read(void *opaque, unsigned reg)
{
	struct uart *u = opaque;
	uint8_t value = 0xff;

	pthread_mutex_lock(&u->lock);
	switch (reg) {
	case RBR_THR:
		value = u->lcr & LCR_DLAB ? u->dll : read_rbr(u);
		break;
	case REG_IER:
		value = u->lcr & LCR_DLAB ? u->dlm : u->ier;
		break;
	case IIR_FCR:
		value = read_iir(u);
		break;
	case REG_LCR:
		value = u->lcr;
		break;
	case REG_MCR:
		value = u->mcr;
		break;
	case REG_LSR:
		value = read_lsr(u);
		break;
	case REG_MSR:
		value = u->msr;
		u->msr &= 0xf0;
		break;
	case REG_SCR:
		value = u->scr;
		break;
	default:
		break;
	}
	update_irq(u);
	pthread_mutex_unlock(&u->lock);
	return value;
}

static void access_port(void *opaque, struct bus_access *a)
{
	regs_by_byte(opaque, a, reg_read, reg_write);
}

/* --- life --- */

/* Master reset (table II). The baud rate divisor is left alone by the chip; the PC's firmware
 * leaves 9600. */
static void reset(void *dev)
{
	struct uart *u = dev;

	pthread_mutex_lock(&u->lock);
	flush(u);
	u->ier = u->fcr = u->lcr = u->mcr = 0;
	u->dll = 12;
	u->dlm = 0;
	rx_clear(u);
	u->thre_pending = !tx_busy(u);
	msr_update(u);
	u->msr &= 0xf0;
	update_irq(u);
	rx_offer_room(u);
	pthread_mutex_unlock(&u->lock);
}

void uart_flush(struct uart *u)
{
	pthread_mutex_lock(&u->lock);
	flush(u);
	pthread_mutex_unlock(&u->lock);
}

static void state_fields(struct uart *u, struct state_stream *s)
{
	state_u8(s, &u->ier);
	state_u8(s, &u->fcr);
	state_u8(s, &u->lcr);
	state_u8(s, &u->mcr);
	state_u8(s, &u->msr);
	state_u8(s, &u->scr);
	state_u8(s, &u->dll);
	state_u8(s, &u->dlm);
	state_bool(s, &u->thre_pending);
	state_bool(s, &u->overrun);
	state_u8(s, &u->top_errors);
	state_bool(s, &u->rx_timeout);
	regs_state_deadline_ns(s, &u->rx_deadline_ns);
	state_raw(s, u->rx, sizeof(u->rx));
	state_raw(s, u->rx_errors, sizeof(u->rx_errors));
	state_u8(s, &u->rx_head);
	state_u8(s, &u->rx_count);
	state_u32(s, &u->out_len);
	if (u->out_len > OUT_BYTES) {
		u->out_len = 0;
		state_fail(s, "more output than the buffer holds");
	}
	state_raw(s, u->out, u->out_len);
}

static void restore_finish(struct uart *u, struct state_stream *s)
{
	if (u->rx_head >= FIFO_BYTES || u->rx_count > rx_capacity(u)) {
		u->rx_head = u->rx_count = 0;
		state_fail(s, "a receive FIFO that cannot be");
	}
	u->ier &= IER_MASK;
	u->fcr &= FCR_KEEP;
	u->mcr &= MCR_MASK;
	u->top_errors &= LSR_ERRORS & ~LSR_OE;
	if (u->rx_deadline_ns)
		timer_arm(&u->rx_timer, u->rx_deadline_ns);
	if (u->out_len)
		timer_arm(&u->flush_timer, clock_ns() + FLUSH_NS);
	u->input_refused = true; /* whoever waits to give input asks again */
	update_irq(u);
	rx_offer_room(u);
}

static void state(void *dev, struct state_stream *s)
{
	struct uart *u = dev;

	pthread_mutex_lock(&u->lock);
	state_begin(s, "uart", u->cfg.port, 1);
	if (state_writing(s))
		flush(u);
	state_fields(u, s);
	state_end(s);
	if (!state_writing(s))
		restore_finish(u, s);
	pthread_mutex_unlock(&u->lock);
}

static void destroy(void *dev)
{
	struct uart *u = dev;

	if (!u)
		return;
	if (u->mapped)
		bus_unmap(u->cfg.bus, BUS_PIO, u->cfg.port, u);
	timer_destroy(&u->flush_timer);
	timer_destroy(&u->rx_timer);
	flush(u);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

const struct dev_ops uart_ops = {
	.name = "uart",
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int uart_create(struct uart **out, const struct uart_config *cfg, struct error *err)
{
	struct uart *u = calloc(1, sizeof(*u));
	int rc;

	*out = NULL;
	if (!u)
		return error_set(err, -ENOMEM, "uart: out of memory");
	u->cfg = *cfg;
	pthread_mutex_init(&u->lock, NULL);
	timer_init(&u->flush_timer, cfg->loop, on_flush_timer, u);
	timer_init(&u->rx_timer, cfg->loop, on_rx_timer, u);
	rc = bus_map(cfg->bus, &(struct bus_range){.space = BUS_PIO,
						   .base = cfg->port,
						   .len = REG_COUNT,
						   .fn = access_port,
						   .opaque = u,
						   .name = "uart"});
	if (rc) {
		destroy(u);
		return error_set(err, rc, "uart: port %#x cannot be mapped", cfg->port);
	}
	u->mapped = true;
	reset(u);
	*out = u;
	return 0;
}
