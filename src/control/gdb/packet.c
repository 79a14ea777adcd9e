/* SPDX-License-Identifier: Apache-2.0 */
#include "control/gdb/packet.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* ---- in ---- */

void gdb_parser_reset(struct gdb_parser *p)
{
	p->state = GDB_IDLE;
	p->len = 0;
}

static void begin(struct gdb_parser *p)
{
	p->state = GDB_DATA;
	p->overflow = p->bad_digit = false;
	p->sum = p->wanted = 0;
	p->len = 0;
}

static void add(struct gdb_parser *p, uint8_t byte)
{
	if (p->len < GDB_PACKET_BYTES)
		p->data[p->len++] = (char)byte;
	else
		p->overflow = true;
}

static void add_sum_digit(struct gdb_parser *p, uint8_t byte)
{
	int v = digit_value((char)byte);

	if (v < 0)
		p->bad_digit = true;
	p->wanted = (uint8_t)(p->wanted << 4 | (v & 15));
}

static enum gdb_input outside(struct gdb_parser *p, uint8_t byte)
{
	switch (byte) {
	case '$':
		begin(p);
		return GDB_INPUT_NONE;
	case '+':
		return GDB_INPUT_ACK;
	case '-':
		return GDB_INPUT_NAK;
	case 3:
		return GDB_INPUT_INTERRUPT;
	default:
		return GDB_INPUT_NONE; /* noise */
	}
}

static enum gdb_input finish(struct gdb_parser *p)
{
	p->state = GDB_IDLE;
	p->data[p->len] = 0;
	if (p->bad_digit || p->sum != p->wanted)
		return GDB_INPUT_BAD;
	return p->overflow ? GDB_INPUT_TOO_LONG : GDB_INPUT_PACKET;
}

enum gdb_input gdb_parser_feed(struct gdb_parser *p, uint8_t byte)
{
	switch (p->state) {
	case GDB_IDLE:
		return outside(p, byte);
	case GDB_DATA:
		if (byte == '#') {
			p->state = GDB_SUM_HIGH;
		} else if (byte == '$') {
			begin(p); /* the sender has begun anew */
		} else {
			p->sum += byte;
			if (byte == '}')
				p->state = GDB_ESCAPE;
			else
				add(p, byte);
		}
		return GDB_INPUT_NONE;
	case GDB_ESCAPE:
		p->sum += byte;
		add(p, byte ^ 0x20);
		p->state = GDB_DATA;
		return GDB_INPUT_NONE;
	case GDB_SUM_HIGH:
		add_sum_digit(p, byte);
		p->state = GDB_SUM_LOW;
		return GDB_INPUT_NONE;
	default:
		add_sum_digit(p, byte);
		return finish(p);
	}
}

/* ---- out ---- */

void gdb_reply_clear(struct gdb_reply *r)
{
	r->len = 0;
	r->overflow = false;
}

static void put(struct gdb_reply *r, const char *bytes, size_t len)
{
	if (len > sizeof(r->data) - r->len) {
		r->overflow = true;
		return;
	}
	memcpy(r->data + r->len, bytes, len);
	r->len += len;
}

void gdb_reply_text(struct gdb_reply *r, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	int len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (len < 0 || len >= (int)sizeof(text))
		r->overflow = true;
	else
		put(r, text, (size_t)len);
}

void gdb_reply_hex(struct gdb_reply *r, const void *bytes, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *b = bytes;

	for (size_t n = 0; n < len; n++) {
		char two[2] = {digits[b[n] >> 4], digits[b[n] & 15]};
		put(r, two, 2);
	}
}

static bool needs_escape(char c)
{
	return c == '#' || c == '$' || c == '}' || c == '*';
}

void gdb_reply_binary(struct gdb_reply *r, const void *bytes, size_t len)
{
	const char *b = bytes;

	for (size_t n = 0; n < len; n++) {
		char escaped[2] = {'}', (char)(b[n] ^ 0x20)};
		if (needs_escape(b[n]))
			put(r, escaped, 2);
		else
			put(r, &b[n], 1);
	}
}

size_t gdb_frame(const struct gdb_reply *reply, char *out)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t sum = 0;
	size_t n = 0;

	out[n++] = '$';
	for (size_t k = 0; k < reply->len; k++) {
		sum += (uint8_t)reply->data[k];
		out[n++] = reply->data[k];
	}
	out[n++] = '#';
	out[n++] = digits[sum >> 4];
	out[n++] = digits[sum & 15];
	return n;
}

/* ---- reading ---- */

bool gdb_take_hex(const char **at, uint64_t *value)
{
	const char *p = *at;
	uint64_t v = 0;

	if (digit_value(*p) < 0)
		return false;
	for (; digit_value(*p) >= 0; p++) {
		if (v >> 60)
			return false;
		v = v << 4 | (uint64_t)digit_value(*p);
	}
	*value = v;
	*at = p;
	return true;
}

bool gdb_take_bytes(const char **at, void *bytes, size_t len)
{
	const char *p = *at;
	uint8_t *b = bytes;

	for (size_t n = 0; n < len; n++, p += 2) {
		int high = digit_value(p[0]);
		int low = high < 0 ? -1 : digit_value(p[1]);
		if (low < 0)
			return false;
		b[n] = (uint8_t)(high << 4 | low);
	}
	*at = p;
	return true;
}

bool gdb_take_char(const char **at, char c)
{
	if (**at != c)
		return false;
	(*at)++;
	return true;
}

bool gdb_take_word(const char **at, const char *word)
{
	size_t len = strlen(word);

	if (strncmp(*at, word, len))
		return false;
	*at += len;
	return true;
}
