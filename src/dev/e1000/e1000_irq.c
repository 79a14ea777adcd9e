/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts (SDM 3.2.7, 3.4.3, 13.4.17 to .21): causes gather in ICR, IMS lets them through to the
 * pin, a read of ICR clears them.
 *
 *     frame ──> delay timers ──> ICR & IMS ──> ITR: not too soon after the last ──> INTx
 *              (RDTR, TIDV ...)
 *
 * One timer serves the two delays and the throttle; it stands for whichever is due first.
 */
#include "base/clock.h"
#include "dev/e1000/e1000_internal.h"
#include "dev/regs.h"

/*
 * ITR counts in 256 ns; the delay timers in 1.024 us. Drivers ask for up to 250 us between interrupts
 * when there is much traffic, to spare a processor that has other things to do. Ours is often idle
 * until it hears that there are acknowledgements, and TCP's window is over long before: 50 us are
 * enough to spare it.
 */
enum { ITR_NS = 256, ITR_MAX_NS = 50000, DELAY_NS = 1024 };

static void arm(struct e1000 *e, uint64_t throttle_ns)
{
	uint64_t first = throttle_ns ? throttle_ns : UINT64_MAX;

	if (e->irq.rx_ns && e->irq.rx_ns < first)
		first = e->irq.rx_ns;
	if (e->irq.tx_ns && e->irq.tx_ns < first)
		first = e->irq.tx_ns;
	if (first != UINT64_MAX)
		timer_arm(&e->irq.timer, first);
	else
		timer_cancel(&e->irq.timer);
}

/* Drives the pin, or waits until it may. irq_lock held. */
static void update(struct e1000 *e, uint64_t now)
{
	bool want = e->irq.icr & e->irq.ims;
	uint64_t throttle = 0;

	if (want && !e->irq.level && e->irq.itr && now < e->irq.next_ns) {
		throttle = e->irq.next_ns;
		e->irq.throttled++;
	} else if (want != e->irq.level) {
		e->irq.level = want;
		if (want) {
			uint64_t pause = (uint64_t)e->irq.itr * ITR_NS;
			e->irq.next_ns = now + (pause < ITR_MAX_NS ? pause : ITR_MAX_NS);
			e->irq.raised++;
		}
		pci_set_intx(&e->pci, want);
	}
	arm(e, throttle);
}

static void on_timer(void *opaque)
{
	struct e1000 *e = opaque;
	uint64_t now = clock_ns();

	pthread_mutex_lock(&e->irq_lock);
	if (e->irq.rx_ns && e->irq.rx_ns <= now) {
		e->irq.rx_ns = e->irq.rx_last_ns = 0;
		e->irq.icr |= INT_RXT0;
	}
	if (e->irq.tx_ns && e->irq.tx_ns <= now) {
		e->irq.tx_ns = e->irq.tx_last_ns = 0;
		e->irq.icr |= INT_TXDW;
	}
	update(e, now);
	pthread_mutex_unlock(&e->irq_lock);
}

void e1000_irq_init(struct e1000 *e, struct loop *loop)
{
	timer_init(&e->irq.timer, loop, on_timer, e);
}

void e1000_irq_reset(struct e1000 *e)
{
	pthread_mutex_lock(&e->irq_lock);
	e->irq.icr = e->irq.ims = e->irq.itr = 0;
	e->irq.next_ns = 0;
	e->irq.rx_ns = e->irq.rx_last_ns = e->irq.tx_ns = e->irq.tx_last_ns = 0;
	update(e, 0);
	pthread_mutex_unlock(&e->irq_lock);
}

uint32_t e1000_irq_read(struct e1000 *e, unsigned reg)
{
	uint32_t v = 0;

	pthread_mutex_lock(&e->irq_lock);
	if (reg == ICR) {
		v = e->irq.icr;
		e->irq.icr = 0;
		update(e, clock_ns());
	} else if (reg == ITR) {
		v = e->irq.itr;
	} else if (reg == IMS) {
		v = e->irq.ims;
	}
	pthread_mutex_unlock(&e->irq_lock);
	return v;
}

void e1000_irq_write(struct e1000 *e, unsigned reg, uint32_t v)
{
	pthread_mutex_lock(&e->irq_lock);
	if (reg == ICR)
		e->irq.icr &= ~v;
	else if (reg == ICS)
		e->irq.icr |= v & INT_ALL;
	else if (reg == IMS)
		e->irq.ims |= v & INT_ALL;
	else if (reg == IMC)
		e->irq.ims &= ~v;
	else if (reg == ITR)
		e->irq.itr = v & 0xffff;
	update(e, clock_ns());
	pthread_mutex_unlock(&e->irq_lock);
}

void e1000_irq_raise(struct e1000 *e, uint32_t causes)
{
	pthread_mutex_lock(&e->irq_lock);
	e->irq.icr |= causes;
	update(e, clock_ns());
	pthread_mutex_unlock(&e->irq_lock);
}

/* Each event begins the delay anew; the absolute delay counts from the first and ends it. */
static void delay(struct e1000 *e, uint32_t cause, uint64_t *at, uint64_t *last, uint32_t delay,
		  uint32_t absolute)
{
	uint64_t now = clock_ns();

	pthread_mutex_lock(&e->irq_lock);
	if (!delay) {
		*at = *last = 0;
		e->irq.icr |= cause;
	} else {
		if (!*at)
			*last = absolute ? now + (uint64_t)absolute * DELAY_NS : UINT64_MAX;
		*at = now + (uint64_t)delay * DELAY_NS;
		if (*at > *last)
			*at = *last;
	}
	update(e, now);
	pthread_mutex_unlock(&e->irq_lock);
}

void e1000_irq_received(struct e1000 *e)
{
	delay(e, INT_RXT0, &e->irq.rx_ns, &e->irq.rx_last_ns, *e1000_reg(e, RDTR) & 0xffff,
	      *e1000_reg(e, RADV) & 0xffff);
}

void e1000_irq_sent(struct e1000 *e)
{
	delay(e, INT_TXDW, &e->irq.tx_ns, &e->irq.tx_last_ns, *e1000_reg(e, TIDV) & 0xffff,
	      *e1000_reg(e, TADV) & 0xffff);
}

void e1000_irq_flush(struct e1000 *e)
{
	pthread_mutex_lock(&e->irq_lock);
	if (e->irq.rx_ns) {
		e->irq.rx_ns = e->irq.rx_last_ns = 0;
		e->irq.icr |= INT_RXT0;
		update(e, clock_ns());
	}
	pthread_mutex_unlock(&e->irq_lock);
}

/* Delays that were running end at the restore: early is allowed, never is not. */
void e1000_irq_state(struct e1000 *e, struct state_stream *s)
{
	pthread_mutex_lock(&e->irq_lock);
	if (state_writing(s)) {
		uint32_t icr = e->irq.icr | (e->irq.rx_ns ? INT_RXT0 : 0) |
			       (e->irq.tx_ns ? INT_TXDW : 0);
		state_u32(s, &icr);
	} else {
		e->irq.rx_ns = e->irq.rx_last_ns = e->irq.tx_ns = e->irq.tx_last_ns = 0;
		e->irq.next_ns = 0;
		state_u32(s, &e->irq.icr);
	}
	state_u32(s, &e->irq.ims);
	state_u32(s, &e->irq.itr);
	if (!state_writing(s)) {
		e->irq.itr &= 0xffff;
		e->irq.level = e->irq.icr & e->irq.ims;
		pci_set_intx(&e->pci, e->irq.level);
	}
	pthread_mutex_unlock(&e->irq_lock);
}
