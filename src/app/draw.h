/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_DRAW_H
#define HANOK_APP_DRAW_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Text that is pleasant to look at: colours where standard output is a terminal (and NO_COLOR is not
 * set), boxes, and values out of JSON. */

enum ink {
	INK_NONE,
	INK_DIM,
	INK_BOLD,
	INK_RED,
	INK_GREEN,
	INK_YELLOW,
	INK_BLUE,
	INK_MAGENTA,
	INK_CYAN,
	INK_NR
};

/* What switches an ink on; "" without colours. ink_off() ends it. */
const char *ink(enum ink i);
const char *ink_off(void);

/* Columns that a text takes: its characters, without escape sequences. */
unsigned text_columns(const char *text);

/* A box of BOX_COLUMNS columns, with a title in its upper edge. box_arrow leads from one to the next. */
enum { BOX_COLUMNS = 92 };
void box_top(const char *title, const char *right, enum ink i);
void box_line(enum ink i, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void box_bottom(bool leads_on, enum ink i);

/* Members of an object; "", 0, false where there is none of that type. */
const char *get_string(const json_t *o, const char *name);
long long get_number(const json_t *o, const char *name);
bool get_true(const json_t *o, const char *name);
/* A "0x..." string. */
uint64_t get_hex(const json_t *o, const char *name);

/* "1,234,567". Into text, which is returned. */
struct count_text {
	char text[32];
};
const char *show_count(struct count_text *t, uint64_t n);

#endif
