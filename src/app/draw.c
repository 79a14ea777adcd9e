/* SPDX-License-Identifier: Apache-2.0 */
#include "app/draw.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/vm_verb.h"

/* ---- colours ---- */

static bool has_colours(void)
{
	static int known = -1;

	if (known < 0) {
		const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
		known = isatty(STDOUT_FILENO) && !(no && *no) && !(term && !strcmp(term, "dumb"));
	}
	return known;
}

const char *ink(enum ink i)
{
	static const char *const codes[INK_NR] = {
		[INK_NONE] = "",	 [INK_DIM] = "\033[2m",	     [INK_BOLD] = "\033[1m",
		[INK_RED] = "\033[31m",	 [INK_GREEN] = "\033[32m",   [INK_YELLOW] = "\033[33m",
		[INK_BLUE] = "\033[34m", [INK_MAGENTA] = "\033[35m", [INK_CYAN] = "\033[36m",
	};

	return has_colours() ? codes[i] : "";
}

const char *ink_off(void)
{
	return has_colours() ? "\033[0m" : "";
}

unsigned text_columns(const char *text)
{
	unsigned n = 0;

	for (const char *p = text; *p; p++) {
		if (*p == '\033') {
			p += strcspn(p, "m");
			if (!*p)
				break;
		} else if ((*p & 0xc0) != 0x80) {
			n++;
		}
	}
	return n;
}

/* ---- boxes ---- */

static void repeat(const char *what, int times)
{
	for (int n = 0; n < times; n++)
		fputs(what, stdout);
}

void box_top(const char *title, const char *right, enum ink i)
{
	int used = (int)text_columns(title) + (int)text_columns(right) + (*right ? 10 : 6);

	printf("%s┌─%s %s %s", ink(i), ink_off(), title, ink(i));
	repeat("─", BOX_COLUMNS - used);
	if (*right)
		printf("%s %s %s──", ink_off(), right, ink(i));
	printf("─┐%s\n", ink_off());
}

void box_line(enum ink i, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	int pad = BOX_COLUMNS - 4 - (int)text_columns(text);
	printf("%s│%s %s%*s %s│%s\n", ink(i), ink_off(), text, pad > 0 ? pad : 0, "", ink(i),
	       ink_off());
}

void box_bottom(bool leads_on, enum ink i)
{
	printf("%s└", ink(i));
	if (leads_on) {
		repeat("─", 5);
		fputs("┬", stdout);
		repeat("─", BOX_COLUMNS - 8);
	} else {
		repeat("─", BOX_COLUMNS - 2);
	}
	printf("┘%s\n", ink_off());
	if (leads_on)
		printf("%s      ▼%s\n", ink(INK_DIM), ink_off());
}

/* ---- JSON ---- */

const char *get_string(const json_t *o, const char *name)
{
	const char *text = json_string_value(json_object_get(o, name));

	return text ? text : "";
}

long long get_number(const json_t *o, const char *name)
{
	return json_integer_value(json_object_get(o, name));
}

bool get_true(const json_t *o, const char *name)
{
	return json_is_true(json_object_get(o, name));
}

uint64_t get_hex(const json_t *o, const char *name)
{
	return strtoull(get_string(o, name), NULL, 16);
}

const char *show_count(struct count_text *t, uint64_t n)
{
	char digits[24];
	int len = snprintf(digits, sizeof(digits), "%" PRIu64, n), to = 0;

	for (int k = 0; k < len; k++) {
		if (k && (len - k) % 3 == 0)
			t->text[to++] = ',';
		t->text[to++] = digits[k];
	}
	t->text[to] = 0;
	return t->text;
}
