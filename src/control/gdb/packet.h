/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_GDB_PACKET_H
#define HANOK_CONTROL_GDB_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Framing of gdb's remote serial protocol (GDB manual, appendix E "Overview"): $data#checksum with
 * } as the escape, + and - as acknowledgements, and 03H, outside packets, as the interrupt. The
 * bytes come from whoever connects: nothing about them is taken for granted.
 */
enum { GDB_PACKET_BYTES = 0x4000 }; /* of data, both ways; told to gdb as PacketSize */

enum gdb_input {
	GDB_INPUT_NONE,	     /* not yet a whole thing */
	GDB_INPUT_PACKET,    /* data and len hold one, and a 0 after it */
	GDB_INPUT_BAD,	     /* a packet whose checksum is wrong: ask for it again */
	GDB_INPUT_TOO_LONG,  /* a packet over GDB_PACKET_BYTES, dropped */
	GDB_INPUT_ACK,	     /* + */
	GDB_INPUT_NAK,	     /* - */
	GDB_INPUT_INTERRUPT, /* Ctrl-C */
};

struct gdb_parser {
	enum { GDB_IDLE, GDB_DATA, GDB_ESCAPE, GDB_SUM_HIGH, GDB_SUM_LOW } state;
	bool overflow;
	uint8_t sum, wanted;
	bool bad_digit;
	size_t len;
	char data[GDB_PACKET_BYTES + 1];
};

void gdb_parser_reset(struct gdb_parser *p);
/* Takes one byte. p->data stays until the next byte. */
enum gdb_input gdb_parser_feed(struct gdb_parser *p, uint8_t byte);

/* A reply in the making: what does not fit is dropped and noted. */
struct gdb_reply {
	size_t len;
	bool overflow;
	char data[GDB_PACKET_BYTES];
};

void gdb_reply_clear(struct gdb_reply *r);
void gdb_reply_text(struct gdb_reply *r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Bytes as two hexadecimal digits each. */
void gdb_reply_hex(struct gdb_reply *r, const void *bytes, size_t len);
/* Bytes as they are, with the protocol's own characters escaped. */
void gdb_reply_binary(struct gdb_reply *r, const void *bytes, size_t len);

/* Frames a reply into out, which has room for reply->len + 4 bytes; how many were written. */
size_t gdb_frame(const struct gdb_reply *reply, char *out);

/* ---- reading what packets hold; all advance *at and stop at its end ---- */

/* A hexadecimal number of at least one digit; false when there is none or it is over 64 bits. */
bool gdb_take_hex(const char **at, uint64_t *value);
/* Exactly len bytes of two digits each. */
bool gdb_take_bytes(const char **at, void *bytes, size_t len);
/* The character c. */
bool gdb_take_char(const char **at, char c);
/* The word, at *at. */
bool gdb_take_word(const char **at, const char *word);

#endif
