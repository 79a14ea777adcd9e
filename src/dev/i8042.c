/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8042 keyboard controller and an enhanced (101/102-key) keyboard. Bytes for the processor come
 * from two places: the controller's own answers, and the keyboard's queue, which the controller
 * passes on one by one as the output buffer is read. Each keyboard byte that enters the output
 * buffer raises IRQ 1 if the command byte allows it.
 *
 * The keyboard speaks scan code set 2 and the controller translates to set 1 while command byte bit
 * 6 is set, as it is by default. Keys come in as set 1; a table takes them back to set 2 for a guest
 * that switches translation off.
 */
#include "dev/i8042.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "dev/regs.h"

enum { ST_FULL = 1, ST_SYSTEM = 4, ST_COMMAND = 8, ST_UNLOCKED = 0x10 };
enum { CB_KBD_IRQ = 1, CB_SYSTEM = 4, CB_KBD_OFF = 0x10, CB_AUX_OFF = 0x20, CB_TRANSLATE = 0x40 };
enum { OUT_NO_RESET = 1, OUT_A20 = 2, OUT_KBD_FULL = 0x10, OUT_IDLE = 0xcc };
enum { KBD_ACK = 0xfa, KBD_RESEND = 0xfe, KBD_SELF_TEST_OK = 0xaa };
enum { QUEUE_BYTES = 32, QUEUE_KEYS = 16 };

struct i8042 {
	struct i8042_config cfg;
	pthread_mutex_t lock;
	unsigned mapped;

	uint8_t command_byte, output, ram[32];
	uint8_t out_buffer;
	bool out_full, out_is_kbd, last_was_command;
	uint8_t want; /* the controller command whose data byte is next; 0: none, it is a key byte */
	bool fast_a20;

	uint8_t queue[QUEUE_BYTES]; /* from the keyboard, oldest first */
	uint8_t queued;
	uint8_t kbd_want; /* the keyboard command whose argument is next */
	bool scanning;
	uint8_t leds, rate, scan_set, last_sent;
};

/* Scan codes: entry i is set 1's code of the set 2 key whose make code is i (the 8042's own
 * translation; IBM PS/2 reference, keyboard section). 0: passed on as it is. */
static const uint8_t set1_of[0x84] = {
	[0x01] = 0x43, [0x02] = 0x41, [0x03] = 0x3f, [0x04] = 0x3d, [0x05] = 0x3b, [0x06] = 0x3c,
	[0x07] = 0x58, [0x09] = 0x44, [0x0a] = 0x42, [0x0b] = 0x40, [0x0c] = 0x3e, [0x0d] = 0x0f,
	[0x0e] = 0x29, [0x11] = 0x38, [0x12] = 0x2a, [0x14] = 0x1d, [0x15] = 0x10, [0x16] = 0x02,
	[0x1a] = 0x2c, [0x1b] = 0x1f, [0x1c] = 0x1e, [0x1d] = 0x11, [0x1e] = 0x03, [0x1f] = 0x5b,
	[0x21] = 0x2e, [0x22] = 0x2d, [0x23] = 0x20, [0x24] = 0x12, [0x25] = 0x05, [0x26] = 0x04,
	[0x27] = 0x5c, [0x29] = 0x39, [0x2a] = 0x2f, [0x2b] = 0x21, [0x2c] = 0x14, [0x2d] = 0x13,
	[0x2e] = 0x06, [0x2f] = 0x5d, [0x31] = 0x31, [0x32] = 0x30, [0x33] = 0x23, [0x34] = 0x22,
	[0x35] = 0x15, [0x36] = 0x07, [0x3a] = 0x32, [0x3b] = 0x24, [0x3c] = 0x16, [0x3d] = 0x08,
	[0x3e] = 0x09, [0x41] = 0x33, [0x42] = 0x25, [0x43] = 0x17, [0x44] = 0x18, [0x45] = 0x0b,
	[0x46] = 0x0a, [0x49] = 0x34, [0x4a] = 0x35, [0x4b] = 0x26, [0x4c] = 0x27, [0x4d] = 0x19,
	[0x4e] = 0x0c, [0x52] = 0x28, [0x54] = 0x1a, [0x55] = 0x0d, [0x58] = 0x3a, [0x59] = 0x36,
	[0x5a] = 0x1c, [0x5b] = 0x1b, [0x5d] = 0x2b, [0x61] = 0x56, [0x66] = 0x0e, [0x69] = 0x4f,
	[0x6b] = 0x4b, [0x6c] = 0x47, [0x70] = 0x52, [0x71] = 0x53, [0x72] = 0x50, [0x73] = 0x4c,
	[0x74] = 0x4d, [0x75] = 0x48, [0x76] = 0x01, [0x77] = 0x45, [0x78] = 0x57, [0x79] = 0x4e,
	[0x7a] = 0x51, [0x7b] = 0x4a, [0x7c] = 0x37, [0x7d] = 0x49, [0x7e] = 0x46, [0x83] = 0x41,
};

static uint8_t to_set2(uint8_t set1)
{
	/* From the end: no key has make code 02h, which shares its translation with F7. */
	for (unsigned i = sizeof(set1_of); i-- > 0;)
		if (set1_of[i] == set1)
			return (uint8_t)i;
	return set1;
}

/* --- output buffer and interrupt --- */

static void update_irq(struct i8042 *k)
{
	irq_set(&k->cfg.irq, k->out_full && k->out_is_kbd && k->command_byte & CB_KBD_IRQ);
}

static void put(struct i8042 *k, uint8_t byte, bool kbd)
{
	k->out_buffer = byte;
	k->out_full = true;
	k->out_is_kbd = kbd;
}

/* Moves the keyboard's next byte into an empty output buffer, if its clock line is not held. */
static void pump(struct i8042 *k)
{
	if (!k->out_full && k->queued && !(k->command_byte & CB_KBD_OFF)) {
		put(k, k->queue[0], true);
		memmove(k->queue, k->queue + 1, --k->queued);
	}
	update_irq(k);
}

/* The keyboard sends. What does not fit is lost, as in its own buffer. */
static void kbd_send(struct i8042 *k, uint8_t byte)
{
	k->last_sent = byte;
	if (k->queued < QUEUE_BYTES)
		k->queue[k->queued++] = byte;
}

/* --- keyboard (IBM PS/2 reference, keyboard section: commands from the system) --- */

static void kbd_defaults(struct i8042 *k)
{
	k->scanning = true;
	k->leds = 0;
	k->rate = 0x2b;
	k->scan_set = 2;
	k->kbd_want = 0;
}

static uint8_t translated(const struct i8042 *k, uint8_t byte)
{
	if (!(k->command_byte & CB_TRANSLATE) || byte >= sizeof(set1_of) || !set1_of[byte])
		return byte;
	return set1_of[byte];
}

static void kbd_argument(struct i8042 *k, uint8_t byte)
{
	uint8_t command = k->kbd_want;

	k->kbd_want = 0;
	kbd_send(k, KBD_ACK);
	if (command == 0xed)
		k->leds = byte & 7;
	else if (command == 0xf3)
		k->rate = byte & 0x7f;
	else if (command == 0xf0 && !byte)
		kbd_send(k, translated(k, k->scan_set));
	else if (command == 0xf0 && byte <= 3)
		k->scan_set = byte;
}

static void kbd_command(struct i8042 *k, uint8_t byte)
{
	if (k->kbd_want && byte < 0x80) {
		kbd_argument(k, byte);
		return;
	}
	k->kbd_want = 0;
	switch (byte) {
	case 0xed: /* indicators */
	case 0xf0: /* scan code set */
	case 0xf3: /* typematic rate */
		kbd_send(k, KBD_ACK);
		k->kbd_want = byte;
		break;
	case 0xee:
		kbd_send(k, 0xee);
		break; /* echo */
	case 0xf2:     /* identify: 83ABh, the second byte translated as any other */
		kbd_send(k, KBD_ACK);
		kbd_send(k, 0xab);
		kbd_send(k, translated(k, 0x83));
		break;
	case 0xf4:
	case 0xf5: /* enable; disable */
	case 0xf6: /* defaults */
		if (byte == 0xf6)
			kbd_defaults(k);
		k->queued = 0;
		k->scanning = byte != 0xf5;
		kbd_send(k, KBD_ACK);
		break;
	case 0xf7 ... 0xfa:
		kbd_send(k, KBD_ACK);
		break; /* all keys: kinds of repeat (set 3) */
	case 0xfe:
		kbd_send(k, k->last_sent);
		break;
	case 0xff:
		k->queued = 0;
		kbd_defaults(k);
		kbd_send(k, KBD_ACK);
		kbd_send(k, KBD_SELF_TEST_OK);
		break;
	default:
		kbd_send(k, KBD_RESEND);
		break;
	}
}

void i8042_key(struct i8042 *k, const uint8_t *set1, unsigned len)
{
	pthread_mutex_lock(&k->lock);
	if (k->scanning && k->queued + 2 * len <= QUEUE_KEYS) {
		bool raw = !(k->command_byte & CB_TRANSLATE) && k->scan_set != 1;
		for (unsigned i = 0; i < len; i++) {
			if (!raw || set1[i] == 0xe0 || set1[i] == 0xe1) {
				kbd_send(k, set1[i]);
				continue;
			}
			if (set1[i] & 0x80)
				kbd_send(k, 0xf0);
			kbd_send(k, to_set2(set1[i] & 0x7f));
		}
	}
	pump(k);
	pthread_mutex_unlock(&k->lock);
}

/* --- controller --- */

static bool a20_open(const struct i8042 *k)
{
	return k->output & OUT_A20 || k->fast_a20;
}

static void set_a20(struct i8042 *k, bool was)
{
	if (k->cfg.set_a20 && was != a20_open(k))
		k->cfg.set_a20(k->cfg.opaque, a20_open(k));
}

static void system_reset(struct i8042 *k)
{
	if (k->cfg.reset)
		k->cfg.reset(k->cfg.opaque);
}

static void write_output_port(struct i8042 *k, uint8_t value)
{
	bool was = a20_open(k);

	k->output = value;
	set_a20(k, was);
	if (!(value & OUT_NO_RESET))
		system_reset(k);
}

static uint8_t output_port(const struct i8042 *k)
{
	return (uint8_t)((k->output & ~OUT_KBD_FULL) |
			 (k->out_full && k->out_is_kbd ? OUT_KBD_FULL : 0));
}

static void controller_command(struct i8042 *k, uint8_t command)
{
	k->want = 0;
	switch (command) {
	case 0x20 ... 0x3f:
		put(k, command == 0x20 ? k->command_byte : k->ram[command & 31], false);
		break;
	case 0x60 ... 0x7f: /* write RAM */
	case 0xd1:	    /* write output port */
	case 0xd2:	    /* write keyboard output buffer */
	case 0xd3:	    /* write auxiliary output buffer */
	case 0xd4:
		k->want = command;
		break; /* write to the auxiliary device */
	case 0xa7:
		k->command_byte |= CB_AUX_OFF;
		break;
	case 0xa8:
		k->command_byte &= ~CB_AUX_OFF;
		break;
	case 0xa9:
		put(k, 2, false);
		break; /* auxiliary port test: clock stuck, nothing there */
	case 0xaa:     /* self test; leaves the keyboard off, without interrupts, translating */
		k->command_byte = CB_SYSTEM | CB_KBD_OFF | CB_AUX_OFF | CB_TRANSLATE;
		put(k, 0x55, false);
		break;
	case 0xab:
		put(k, 0, false);
		break; /* keyboard port test: good */
	case 0xad:
		k->command_byte |= CB_KBD_OFF;
		break;
	case 0xae:
		k->command_byte &= ~CB_KBD_OFF;
		break;
	case 0xc0:
		put(k, 0x80, false);
		break; /* input port: keyboard not locked */
	case 0xd0:
		put(k, output_port(k), false);
		break;
	case 0xdd:
	case 0xdf: /* A20 off and on, as many 8042s have it */
		write_output_port(k, command == 0xdf ? k->output | OUT_A20 : k->output & ~OUT_A20);
		break;
	case 0xf0 ... 0xff: /* pulse the output port's low bits that are 0 */
		if (!(command & 1))
			system_reset(k);
		break;
	default:
		break;
	}
}

static void controller_data(struct i8042 *k, uint8_t value)
{
	uint8_t command = k->want;

	k->want = 0;
	switch (command) {
	case 0x60:
		k->command_byte = value;
		break;
	case 0x61 ... 0x7f:
		k->ram[command & 31] = value;
		break;
	case 0xd1:
		write_output_port(k, value);
		break;
	case 0xd2:
		put(k, value, true);
		break;
	case 0xd3:
		put(k, value, false);
		break; /* no auxiliary port to seem to come from */
	case 0xd4:
		put(k, KBD_RESEND, false);
		break; /* time-out: nobody answers */
	default:
		k->command_byte &= ~CB_KBD_OFF; /* a byte to the keyboard enables it */
		kbd_command(k, value);
		break;
	}
}

static uint8_t data_read(void *dev, unsigned reg)
{
	struct i8042 *k = dev;
	uint8_t v;

	(void)reg;
	pthread_mutex_lock(&k->lock);
	v = k->out_buffer; /* read empty, it shows the last byte */
	k->out_full = false;
	update_irq(k); /* down between bytes, for the edge */
	pump(k);
	pthread_mutex_unlock(&k->lock);
	return v;
}

static void data_write(void *dev, unsigned reg, uint8_t value)
{
	struct i8042 *k = dev;

	(void)reg;
	pthread_mutex_lock(&k->lock);
	k->last_was_command = false;
	controller_data(k, value);
	pump(k);
	pthread_mutex_unlock(&k->lock);
}

static uint8_t status_read(void *dev, unsigned reg)
{
	struct i8042 *k = dev;
	uint8_t v = ST_UNLOCKED;

	(void)reg;
	pthread_mutex_lock(&k->lock);
	v |= (k->out_full ? ST_FULL : 0) | (k->command_byte & CB_SYSTEM ? ST_SYSTEM : 0) |
	     (k->last_was_command ? ST_COMMAND : 0);
	pthread_mutex_unlock(&k->lock);
	return v;
}

static void command_write(void *dev, unsigned reg, uint8_t value)
{
	struct i8042 *k = dev;

	(void)reg;
	pthread_mutex_lock(&k->lock);
	k->last_was_command = true;
	controller_command(k, value);
	pump(k);
	pthread_mutex_unlock(&k->lock);
}

/* Port 92h: bit 0 resets on its way up, bit 1 is the other half of the A20 gate. */
static uint8_t port92_read(void *dev, unsigned reg)
{
	struct i8042 *k = dev;
	uint8_t v;

	(void)reg;
	pthread_mutex_lock(&k->lock);
	v = k->fast_a20 ? 2 : 0;
	pthread_mutex_unlock(&k->lock);
	return v;
}

static void port92_write(void *dev, unsigned reg, uint8_t value)
{
	struct i8042 *k = dev;
	bool was;

	(void)reg;
	pthread_mutex_lock(&k->lock);
	was = a20_open(k);
	k->fast_a20 = value & 2;
	set_a20(k, was);
	if (value & 1)
		system_reset(k);
	pthread_mutex_unlock(&k->lock);
}

static void access_data(void *k, struct bus_access *a)
{
	regs_by_byte(k, a, data_read, data_write);
}

static void access_command(void *k, struct bus_access *a)
{
	regs_by_byte(k, a, status_read, command_write);
}

static void access_port92(void *k, struct bus_access *a)
{
	regs_by_byte(k, a, port92_read, port92_write);
}

/* --- life --- */

/* As firmware leaves it: tested, keyboard on with translation, A20 open. */
static void reset(void *dev)
{
	struct i8042 *k = dev;

	pthread_mutex_lock(&k->lock);
	bool was = a20_open(k);
	k->command_byte = CB_SYSTEM | CB_AUX_OFF | CB_TRANSLATE | CB_KBD_IRQ;
	k->output = OUT_IDLE | OUT_NO_RESET | OUT_A20;
	k->fast_a20 = true;
	set_a20(k, was);
	memset(k->ram, 0, sizeof(k->ram));
	k->out_buffer = k->want = k->queued = k->last_sent = 0;
	k->out_full = k->out_is_kbd = k->last_was_command = false;
	kbd_defaults(k);
	update_irq(k);
	pthread_mutex_unlock(&k->lock);
}

static void state(void *dev, struct state_stream *s)
{
	struct i8042 *k = dev;

	pthread_mutex_lock(&k->lock);
	state_begin(s, "i8042", 0, 1);
	state_u8(s, &k->command_byte);
	state_u8(s, &k->output);
	state_raw(s, k->ram, sizeof(k->ram));
	state_u8(s, &k->out_buffer);
	state_bool(s, &k->out_full);
	state_bool(s, &k->out_is_kbd);
	state_bool(s, &k->last_was_command);
	state_u8(s, &k->want);
	state_bool(s, &k->fast_a20);
	state_raw(s, k->queue, sizeof(k->queue));
	state_u8(s, &k->queued);
	state_u8(s, &k->kbd_want);
	state_bool(s, &k->scanning);
	state_u8(s, &k->leds);
	state_u8(s, &k->rate);
	state_u8(s, &k->scan_set);
	state_u8(s, &k->last_sent);
	if (k->queued > QUEUE_BYTES) {
		k->queued = 0;
		state_fail(s, "more keys than the buffer holds");
	}
	state_end(s);
	if (!state_writing(s)) {
		if (k->cfg.set_a20)
			k->cfg.set_a20(k->cfg.opaque, a20_open(k));
		update_irq(k);
	}
	pthread_mutex_unlock(&k->lock);
}

static void destroy(void *dev)
{
	struct i8042 *k = dev;

	if (!k)
		return;
	if (k->mapped > 2)
		bus_unmap(k->cfg.bus, BUS_PIO, k->cfg.port92, k);
	if (k->mapped > 1)
		bus_unmap(k->cfg.bus, BUS_PIO, k->cfg.command_port, k);
	if (k->mapped > 0)
		bus_unmap(k->cfg.bus, BUS_PIO, k->cfg.data_port, k);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

const struct dev_ops i8042_ops = {
	.name = "i8042",
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int i8042_create(struct i8042 **out, const struct i8042_config *cfg, struct error *err)
{
	struct i8042 *k = calloc(1, sizeof(*k));

	*out = NULL;
	if (!k)
		return error_set(err, -ENOMEM, "i8042: out of memory");
	k->cfg = *cfg;
	pthread_mutex_init(&k->lock, NULL);
	const struct bus_range ranges[] = {
		{BUS_PIO, cfg->data_port, 1, access_data, k, "i8042"},
		{BUS_PIO, cfg->command_port, 1, access_command, k, "i8042"},
		{BUS_PIO, cfg->port92, 1, access_port92, k, "port 92h"},
	};
	for (; k->mapped < 3; k->mapped++) {
		int rc = bus_map(cfg->bus, &ranges[k->mapped]);
		if (rc) {
			destroy(k);
			return error_set(err, rc, "i8042: ports cannot be mapped");
		}
	}
	reset(k);
	*out = k;
	return 0;
}
