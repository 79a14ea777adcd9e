/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_PIC_H
#define HANOK_DEV_PIC_H

#include "dev/dev.h"

/* The PC's pair of 8259A interrupt controllers (Intel 8259A datasheet 231468), the second cascaded
 * on pin 2 of the first, with the edge/level registers of EISA (ICH9 datasheet 13.4). */
struct pic;

struct pic_config {
	struct bus *bus;
	uint16_t master_port, slave_port, elcr_port;
	/* The INT output of the first: to LINT0 of the local APICs. Called with the pair locked. */
	struct irq_line output;
};

extern const struct dev_ops pic_ops;

int pic_create(struct pic **out, const struct pic_config *cfg, struct error *err);

/* Drives input 0 to 15. Any thread. */
void pic_set_irq(struct pic *p, unsigned irq, int level);

/* The processor's interrupt acknowledge cycle: the vector, taken into service; with nothing pending
 * (any more) the spurious vector of input 7. Any thread. */
uint8_t pic_ack(struct pic *p);

#endif
