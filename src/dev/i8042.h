/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_I8042_H
#define HANOK_DEV_I8042_H

#include "dev/dev.h"

/* The PC/AT's 8042 keyboard controller (IBM PS/2 Hardware Interface Technical Reference, "Keyboard
 * and Auxiliary Device Controller") with a keyboard on its first port and nothing on the auxiliary
 * one; and system control port A (92h). */
struct i8042;

struct i8042_config {
	struct bus *bus;
	uint16_t data_port, command_port, port92;
	struct irq_line irq; /* the keyboard's */
	/* The reset line was pulled: output port bit 0 low, command FEh, port 92h bit 0. */
	void (*reset)(void *opaque);
	/* The A20 gate opened or closed; may be NULL. */
	void (*set_a20)(void *opaque, bool open);
	void *opaque;
};

extern const struct dev_ops i8042_ops;

int i8042_create(struct i8042 **out, const struct i8042_config *cfg, struct error *err);

/* A key went down or up: its scan code of set 1 (one byte, or E0h and one; bit 7 of the last is up),
 * as IBM's table has it. Dropped while the keyboard is disabled or its buffer full. Any thread. */
void i8042_key(struct i8042 *k, const uint8_t *set1, unsigned len);

#endif
