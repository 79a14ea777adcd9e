/* SPDX-License-Identifier: Apache-2.0 */
/* How `walk` and `dump` look. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "app/app.h"
#include "app/inspect.h"
#include "app/vm_verb.h"

/* "process 217 (sh)" or "CPU 0" */
static void describe_space(const json_t *answer, char *out, size_t size)
{
	const json_t *of = json_object_get(answer, "of");

	if (json_object_get(of, "pid"))
		snprintf(out, size, "process %lld (%s)", get_number(of, "pid"),
			 get_string(of, "comm"));
	else
		snprintf(out, size, "CPU %lld", get_number(of, "cpu"));
}

/* The address in the parts that pick an entry at each level. */
static void print_address(const json_t *answer)
{
	const json_t *levels = json_object_get(answer, "levels"), *level;
	uint64_t gva = get_hex(answer, "address"), rest = UINT64_MAX;
	char who[64];
	size_t n;

	describe_space(answer, who, sizeof(who));
	printf("%s%s%s in %s, paging %s, CR3 %s\n", ink(INK_BOLD), get_string(answer, "address"),
	       ink_off(), who, get_string(answer, "paging"), get_string(answer, "cr3"));
	if (!json_array_size(levels))
		return;
	fputs("  = ", stdout);
	json_array_foreach(levels, n, level)
	{
		printf("%s%s%s %lld · ", ink(INK_CYAN), get_string(level, "name"), ink_off(),
		       get_number(level, "index"));
		rest = (uint64_t)get_number(level, "spans_bytes") - 1;
	}
	printf("%soffset%s 0x%" PRIx64 "\n", ink(INK_CYAN), ink_off(), gva & rest);
}

static void print_flags(const json_t *level, enum ink edge)
{
	const json_t *flags = json_object_get(level, "flags"), *flag;
	char line[512] = "";
	size_t n, at = 0;

	json_array_foreach(flags, n, flag)
	{
		const char *text = json_string_value(flag);
		bool strong = !strcmp(text, "writable") || !strcmp(text, "dirty");
		int len = snprintf(line + at, sizeof(line) - at, "%s%s%s ",
				   ink(strong ? INK_YELLOW : INK_GREEN), text, ink_off());
		at += (size_t)len;
		if (at >= sizeof(line))
			break;
	}
	box_line(edge, "%s", at ? line : "(no flags)");
}

static void print_level(const json_t *level, bool leads_on)
{
	char title[64], right[64];
	struct short_text size;
	enum ink edge = INK_DIM;

	snprintf(title, sizeof(title), "%s%s%s table at %s", ink(INK_BOLD),
		 get_string(level, "name"), ink_off(), get_string(level, "table"));
	show_bytes(&size, (uint64_t)get_number(level, "spans_bytes"));
	snprintf(right, sizeof(right),
		 json_object_get(level, "page_bytes") ? "maps a %s page" : "an entry spans %s",
		 size.text);
	box_top(title, right, edge);
	box_line(edge, "entry %-3lld at %-12s = %s%s%s%s", get_number(level, "index"),
		 get_string(level, "entry_at"), ink(INK_BOLD), get_string(level, "entry"),
		 ink_off(),
		 get_true(level, "from_register") ? "   (from the register, loaded with CR3)" : "");
	print_flags(level, edge);
	if (json_object_get(level, "reserved_bits"))
		box_line(edge, "%sreserved bits are set: %s%s", ink(INK_RED),
			 get_string(level, "reserved_bits"), ink_off());
	if (json_object_get(level, "same_table_as"))
		box_line(edge, "%sthe same table as the %s above: the tables contain themselves%s",
			 ink(INK_YELLOW), get_string(level, "same_table_as"), ink_off());
	box_bottom(leads_on, edge);
}

/* Why there is no page. */
static void print_end(const json_t *answer)
{
	const json_t *levels = json_object_get(answer, "levels");
	const json_t *last = json_array_get(levels, json_array_size(levels) - 1);
	const char *end = get_string(answer, "end"), *name = get_string(last, "name");
	char title[64];

	snprintf(title, sizeof(title), "%sno page%s", ink(INK_RED), ink_off());
	box_top(title, "", INK_RED);
	if (!strcmp(end, "not-present")) {
		box_line(INK_RED,
			 "The %s entry is not present: an access gives the guest a page fault.",
			 name);
		if (get_hex(last, "entry"))
			box_line(INK_RED,
				 "What else is in it is the guest's own note, as of a page it "
				 "has swapped out.");
	} else if (!strcmp(end, "reserved-bits")) {
		box_line(INK_RED, "The %s entry has reserved bits set: a page fault with RSVD.",
			 name);
	} else if (!strcmp(end, "table-outside-memory")) {
		box_line(INK_RED, "The %s table lies where the machine has no memory.", name);
	} else if (!strcmp(end, "not-canonical")) {
		box_line(INK_RED,
			 "Bits 47 to 63 of the address are not alike: no processor takes it.");
	} else {
		box_line(INK_RED, "The address has more than 32 bits; this paging has no more.");
	}
	box_bottom(false, INK_RED);
}

static void print_page(const json_t *page)
{
	char title[96];
	struct short_text size;

	snprintf(title, sizeof(title), "%sguest-physical%s %s", ink(INK_BOLD), ink_off(),
		 get_string(page, "gpa"));
	box_top(title, show_bytes(&size, (uint64_t)get_number(page, "bytes")), INK_CYAN);
	box_line(INK_CYAN, "%s may read%s%s%s%s%s",
		 get_true(page, "user") ? "user and kernel" : "only the kernel",
		 get_true(page, "writable") ? ", write" : "",
		 get_true(page, "executable") ? ", execute" : "",
		 get_true(page, "accessed") ? "; accessed" : "; not accessed yet",
		 get_true(page, "dirty") ? ", written to" : "",
		 get_true(page, "global") ? "; global: stays in TLBs" : "");
	box_bottom(true, INK_CYAN);
}

static void print_last_fault(const json_t *last)
{
	char slot[64] = "", took[64] = "";

	if (json_object_get(last, "slot"))
		snprintf(slot, sizeof(slot), " from slot %lld", get_number(last, "slot"));
	if (json_object_get(last, "took_ns"))
		snprintf(took, sizeof(took), " in %.1f us",
			 (double)get_number(last, "took_ns") / 1e3);
	box_line(INK_GREEN, "last fault  %s%s%s%s%s, %.3f s after the start", ink(INK_YELLOW),
		 get_string(last, "what"), ink_off(), slot, took,
		 json_real_value(json_object_get(last, "time_s")));
}

static void print_use(const json_t *host)
{
	long long age = get_number(host, "age"), pins = get_number(host, "pins");
	char pinned[48];

	/* mem/mem.h: more than 1,000 are never undone. */
	if (pins > 1000)
		snprintf(pinned, sizeof(pinned), "pinned for good");
	else
		snprintf(pinned, sizeof(pinned), "%lld pin%s", pins, pins == 1 ? "" : "s");
	box_line(INK_GREEN, "use         last seen used %lld generation%s ago; %s", age,
		 age == 1 ? "" : "s", pinned);
}

static void print_host(const json_t *host)
{
	const char *kind = get_string(host, "kind"), *state = get_string(host, "state");
	char title[96], slot[64] = "";

	snprintf(title, sizeof(title), "%shost%s", ink(INK_BOLD), ink_off());
	box_top(title, "", INK_GREEN);
	if (strcmp(kind, "ram") != 0) {
		box_line(INK_GREEN, "%s",
			 !strcmp(kind, "rom") ? "read-only memory: a firmware image"
					      : "no memory there: accesses go to a device, if any");
		box_bottom(false, INK_GREEN);
		return;
	}
	if (json_object_get(host, "slot"))
		snprintf(slot, sizeof(slot), ", a copy in slot %lld (%s)", get_number(host, "slot"),
			 get_string(host, "slot_in"));
	box_line(INK_GREEN, "frame       %s%s%s%s%s%s%s", ink(INK_BOLD), state, ink_off(),
		 get_true(host, "dirty") ? ", dirty" : "",
		 get_true(host, "logged") ? ", in the dirty log" : "",
		 get_true(host, "leaving") ? ", about to leave" : "", slot);
	if (!strcmp(state, "present"))
		print_use(host);
	box_line(INK_GREEN, "host addr   %s in the process%s%s", get_string(host, "hva"),
		 json_object_get(host, "hpa") ? ", physical " : "", get_string(host, "hpa"));
	if (json_object_get(host, "last_fault"))
		print_last_fault(json_object_get(host, "last_fault"));
	box_bottom(false, INK_GREEN);
}

int draw_walk(const struct inspect_args *a, const json_t *answer)
{
	const json_t *levels = json_object_get(answer, "levels"), *level;
	const json_t *page = json_object_get(answer, "page");
	size_t n;

	(void)a;
	print_address(answer);
	json_array_foreach(levels, n, level) print_level(level, true);
	if (get_true(answer, "changing"))
		printf("%sThe guest changed these tables again and again while they were read.%s\n",
		       ink(INK_YELLOW), ink_off());
	if (!page) {
		print_end(answer);
		return STATUS_OK;
	}
	print_page(page);
	print_host(json_object_get(answer, "host"));
	return STATUS_OK;
}

/* ---- dump ---- */

static unsigned nibble(char c)
{
	return c >= 'a' ? (unsigned)(c - 'a') + 10 : (unsigned)(c - '0') & 15;
}

int draw_dump(const struct inspect_args *a, const json_t *answer)
{
	uint64_t address = get_hex(answer, "address");
	const char *data = get_string(answer, "data");
	size_t len = strlen(data) / 2;

	(void)a;
	for (size_t at = 0; at < len; at += 16) {
		char text[17] = "";
		printf("%s%016" PRIx64 "%s ", ink(INK_CYAN), address + at, ink_off());
		for (size_t k = 0; k < 16; k++) {
			if (at + k >= len) {
				fputs(k == 8 ? "    " : "   ", stdout);
				continue;
			}
			unsigned byte = nibble(data[2 * (at + k)]) << 4 |
					nibble(data[2 * (at + k) + 1]);
			printf("%s%02x", k == 8 ? "  " : " ", byte);
			text[k] = byte >= ' ' && byte <= '~' ? (char)byte : '.';
		}
		printf("  %s|%s|%s\n", ink(INK_DIM), text, ink_off());
	}
	if (!len)
		return fail(STATUS_FAILED, "%s: nothing is mapped there; `walk` shows why",
			    get_string(answer, "address"));
	return STATUS_OK;
}
