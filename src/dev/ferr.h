/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_FERR_H
#define HANOK_DEV_FERR_H

#include "dev/dev.h"

/* The PC's way of telling an unmasked x87 error while CR0.NE is clear: FERR# of the processors
 * raises IRQ 13, a write to port F0h takes it down (ICH9 datasheet 13.7.3, COPROC_ERR). */
struct ferr;

extern const struct dev_ops ferr_ops;

int ferr_create(struct ferr **out, struct bus *bus, const struct irq_line *irq, struct error *err);

/* The level of a processor's FERR# pin. Any thread. */
void ferr_set(struct ferr *f, bool level);

#endif
