/* SPDX-License-Identifier: Apache-2.0 */
/* How `frames` looks: a map of the machine's memory as text and as SVG. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "app/app.h"
#include "app/inspect.h"
#include "app/vm_verb.h"

enum { COLUMNS = 64, SVG_CELL = 12, BAR = 40, AGES_SHOWN = 10 };

/* The states, in the order in which they are told of, and how each looks. */
static const struct look {
	const char *state, *means;
	enum ink ink;
	const char *shade[4]; /* by how much of a cell is in it */
	const char *colour;   /* SVG */
} looks[] = {
	{"present", "in the host's memory", INK_GREEN, {"░", "▒", "▓", "█"}, "#2e9e5b"},
	{"swapped",
	 "compressed, or in the swap file",
	 INK_MAGENTA,
	 {"s", "s", "S", "S"},
	 "#b0439c"},
	{"zero", "evicted, being all zero", INK_BLUE, {"o", "o", "O", "O"}, "#4a7fd0"},
	{"balloon",
	 "given back by the guest's balloon",
	 INK_YELLOW,
	 {"b", "b", "B", "B"},
	 "#d9a520"},
	{"none", "never touched: costs nothing", INK_DIM, {"·", "·", "·", "·"}, "#d8d8d8"},
};
enum { LOOKS = sizeof(looks) / sizeof(looks[0]) };

static long long cell_pages(const json_t *answer, const json_t *cell, const char *state)
{
	const json_t *states = json_object_get(answer, "states"), *name;
	size_t n;

	json_array_foreach(states, n, name)
	{
		if (!strcmp(json_string_value(name), state))
			return json_integer_value(json_array_get(cell, n));
	}
	return 0;
}

/* The state that most of a cell's pages are in, untouched ones apart; *pages are in it. */
static const struct look *look_of(const json_t *answer, const json_t *cell, long long *pages)
{
	const struct look *most = &looks[LOOKS - 1];

	*pages = 0;
	for (unsigned k = 0; k + 1 < LOOKS; k++) {
		long long n = cell_pages(answer, cell, looks[k].state);
		if (n > *pages) {
			*pages = n;
			most = &looks[k];
		}
	}
	if (!*pages)
		*pages = cell_pages(answer, cell, most->state);
	return most;
}

/* Where a cell of RAM lies: there is a hole below 4 GiB. */
static uint64_t gpa_of(const json_t *answer, uint64_t offset)
{
	uint64_t low = (uint64_t)get_number(answer, "low_bytes");

	return offset < low ? offset : offset - low + UINT64_C(0x100000000);
}

static void print_map(const json_t *answer)
{
	const json_t *cells = json_object_get(answer, "cells");
	uint64_t cell = (uint64_t)get_number(answer, "cell_pages");
	uint64_t bytes = cell * (uint64_t)get_number(answer, "page_bytes");

	for (size_t n = 0; n < json_array_size(cells); n++) {
		long long pages;
		const struct look *l = look_of(answer, json_array_get(cells, n), &pages);
		if (n % COLUMNS == 0)
			printf("%s%s%011" PRIx64 "%s ", n ? "\n" : "", ink(INK_DIM),
			       gpa_of(answer, n * bytes), ink_off());
		uint64_t quarter = cell ? ((uint64_t)pages * 4 + cell - 1) / cell : 1;
		printf("%s%s%s", ink(l->ink),
		       l->shade[quarter > 4 ? 3
				: quarter   ? quarter - 1
					    : 0],
		       ink_off());
	}
	putchar('\n');
}

static void print_legend(const json_t *answer)
{
	const json_t *states = json_object_get(answer, "state_pages");
	double all = (double)get_number(answer, "pages");
	struct count_text count;
	struct short_text size;

	printf("\nOne character is %s.\n",
	       show_bytes(&size, (uint64_t)(get_number(answer, "cell_pages") *
					    get_number(answer, "page_bytes"))));
	for (unsigned k = 0; k < LOOKS; k++) {
		uint64_t pages = (uint64_t)get_number(states, looks[k].state);
		printf("  %s%s%s %-8s %10s %5.1f %%  %11s pages  %s%s%s\n", ink(looks[k].ink),
		       looks[k].shade[3], ink_off(), looks[k].state,
		       show_bytes(&size, pages * 4096), all > 0 ? 100.0 * (double)pages / all : 0,
		       show_count(&count, pages), ink(INK_DIM), looks[k].means, ink_off());
	}
	static const struct {
		const char *name, *what;
	} bits[] = {
		{"dirty_pages", "dirty (no copy in the swap store)"},
		{"logged_pages", "in the dirty log"},
		{"pinned_pages", "pinned"},
		{"leaving_pages", "about to leave"},
		{"swapped_on_file_pages", "of the swapped in the file"},
	};
	fputs("Pages: ", stdout);
	for (unsigned k = 0; k < sizeof(bits) / sizeof(bits[0]); k++)
		printf("%s%s %s", k ? (k == 3 ? ",\n       " : ", ") : "",
		       show_count(&count, (uint64_t)get_number(answer, bits[k].name)),
		       bits[k].what);
	putchar('\n');
}

/* Pages present by when they were last seen used. */
static void print_ages(const json_t *answer)
{
	const json_t *ages = json_object_get(answer, "age_pages");
	uint64_t shown[AGES_SHOWN] = {0}, most = 1;
	struct short_text size;

	for (size_t n = 0; n < json_array_size(ages); n++)
		shown[n < AGES_SHOWN ? n : AGES_SHOWN - 1] +=
			(uint64_t)json_integer_value(json_array_get(ages, n));
	for (unsigned n = 0; n < AGES_SHOWN; n++)
		most = shown[n] > most ? shown[n] : most;
	printf("\nLast seen used, generations ago (one is at most 5 s):\n");
	for (unsigned n = 0; n < AGES_SHOWN; n++) {
		printf("  %2u%s %10s%s%s", n, n == AGES_SHOWN - 1 ? "+" : " ",
		       show_bytes(&size, shown[n] * 4096), ink(INK_GREEN), shown[n] ? "  " : "");
		for (uint64_t k = 0; k < (shown[n] * BAR + most - 1) / most; k++)
			fputs("▇", stdout);
		printf("%s\n", ink_off());
	}
}

/* ---- SVG ---- */

static void write_cell(FILE *f, const json_t *answer, size_t n, unsigned top)
{
	const json_t *cell = json_array_get(json_object_get(answer, "cells"), n);
	uint64_t all = (uint64_t)get_number(answer, "cell_pages");
	long long pages;
	const struct look *l = look_of(answer, cell, &pages);
	double share = all ? (double)pages / (double)all : 1;

	fprintf(f,
		"<rect x=\"%zu\" y=\"%zu\" width=\"%d\" height=\"%d\" fill=\"%s\" "
		"fill-opacity=\"%.2f\"><title>0x%" PRIx64,
		10 + n % COLUMNS * SVG_CELL, top + n / COLUMNS * SVG_CELL, SVG_CELL - 1,
		SVG_CELL - 1, l->colour, 0.25 + 0.75 * (share > 1 ? 1 : share),
		gpa_of(answer, n * all * 4096));
	for (unsigned k = 0; k < LOOKS; k++)
		if (cell_pages(answer, cell, looks[k].state))
			fprintf(f, ", %s %lld", looks[k].state,
				cell_pages(answer, cell, looks[k].state));
	fputs("</title></rect>\n", f);
}

static void write_svg(FILE *f, const struct inspect_args *a, const json_t *answer)
{
	size_t cells = json_array_size(json_object_get(answer, "cells"));
	size_t rows = (cells + COLUMNS - 1) / COLUMNS;
	struct short_text size;
	unsigned top = 40;

	fprintf(f,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %zu\" "
		"font-family=\"sans-serif\" font-size=\"13\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
		"<text x=\"10\" y=\"24\" font-size=\"16\">",
		COLUMNS * SVG_CELL + 20, top + rows * SVG_CELL + 20 + LOOKS * 20);
	for (const char *p = a->vm; *p; p++) {
		if (*p == '<' || *p == '&')
			fprintf(f, "&#%d;", *p);
		else if ((unsigned char)*p >= ' ')
			fputc(*p, f);
	}
	fprintf(f, ": %s of memory</text>\n",
		show_bytes(&size, (uint64_t)get_number(answer, "pages") * 4096));
	for (size_t n = 0; n < cells; n++)
		write_cell(f, answer, n, top);
	for (unsigned k = 0; k < LOOKS; k++) {
		size_t y = top + rows * SVG_CELL + 20 + k * 20;
		uint64_t pages = (uint64_t)get_number(json_object_get(answer, "state_pages"),
						      looks[k].state);
		fprintf(f,
			"<rect x=\"10\" y=\"%zu\" width=\"12\" height=\"12\" fill=\"%s\"/>"
			"<text x=\"28\" y=\"%zu\">%s: %s (%s)</text>\n",
			y, looks[k].colour, y + 11, looks[k].state, show_bytes(&size, pages * 4096),
			looks[k].means);
	}
	fputs("</svg>\n", f);
}

static int save_svg(const struct inspect_args *a, const json_t *answer)
{
	FILE *f = fopen(a->svg, "we");

	if (!f)
		return fail(STATUS_FAILED, "--svg %s: %s", a->svg, strerror(errno));
	write_svg(f, a, answer);
	bool bad = ferror(f);
	if (fclose(f) == EOF || bad)
		return fail(STATUS_FAILED, "--svg %s: it could not be written", a->svg);
	return STATUS_OK;
}

int draw_frames(const struct inspect_args *a, const json_t *answer)
{
	if (a->svg)
		return save_svg(a, answer);
	print_map(answer);
	print_legend(answer);
	print_ages(answer);
	return STATUS_OK;
}
