/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uses memory, for tests of who gets how much of it: `touch MIB` (on its command line) writes to so many MiB
 * at once, then goes round: looks whether each page is as it left it, and writes it anew, 1 MiB every
 * hundredth of a second. `touch MIB idle` only halts after the first round. `touch MIB equal` fills them with
 * pages that are all the same, and then halts. It never ends by itself but when something is wrong.
 */
#include "guest.h"

enum { PAGE = 4096, FIRST = 8 << 20, PIT_HZ = 1193182, TICK_HZ = 100 };

static volatile u32 ticks;

static bool on_tick(struct regs *r)
{
	(void)r;
	ticks++;
	pic_eoi(0);
	return true;
}

static void halt(void)
{
	asm volatile("sti\n\thlt\n\tcli" ::: "memory");
}

static void start_clock(void)
{
	trap_hook[0x20] = on_tick;
	pic_init(0xfe, 0xff);
	outb(0x43, 0x34); /* channel 0, both bytes, mode 2 */
	outb(0x40, (PIT_HZ / TICK_HZ) & 0xff);
	outb(0x40, PIT_HZ / TICK_HZ >> 8);
}

static u32 *page_at(u32 n)
{
	return (u32 *)(ulong)(FIRST + n * PAGE);
}

static u32 value(u32 n, u32 round)
{
	return (n + 1) * 2654435761u ^ round;
}

static void write_page(u32 n, u32 round)
{
	for (u32 i = 0; i < PAGE / 4; i += 64)
		page_at(n)[i] = value(n, round) + i;
}

static void check_page(u32 n, u32 round)
{
	for (u32 i = 0; i < PAGE / 4; i += 64) {
		if (page_at(n)[i] == value(n, round) + i)
			continue;
		say("page %x, word %x, round %x: %x is %x\n", n, i, round, value(n, round) + i,
		    page_at(n)[i]);
		bail("a page is not as it was left");
	}
}

/* Multiboot 0.6.96, 3.3: the command line's address is at 16; flag 2 says whether it is there. */
static const char *command_line(void)
{
	const u32 *info = (const u32 *)(ulong)mb_info;

	return info[0] & 4 ? (const char *)(ulong)info[4] : "";
}

static bool has_word(const char *line, const char *word)
{
	size_t len = strlen(word);

	for (; *line; line++)
		if (!memcmp(line, word, len))
			return true;
	return false;
}

static u32 number_in(const char *line)
{
	u32 n = 0;

	while (*line && (*line < '0' || *line > '9'))
		line++;
	for (; *line >= '0' && *line <= '9'; line++)
		n = 10 * n + (u32)(*line - '0');
	return n;
}

int main(void)
{
	const char *line = command_line();
	bool equal = has_word(line, "equal");
	u32 pages = number_in(line) * 256;

	if (!pages)
		bail("touch MIB [idle | equal]");
	start_clock();
	for (u32 n = 0; n < pages; n++)
		write_page(equal ? 0 : n, 0);
	for (u32 n = 1; equal && n < pages; n++)
		memcpy(page_at(n), page_at(0), PAGE);
	say("# touched\n");
	while (equal || has_word(line, "idle"))
		halt();
	for (u32 round = 1;; round++) {
		for (u32 n = 0; n < pages; n++) {
			check_page(n, round - 1);
			write_page(n, round);
			if (n % 256 == 255)
				halt();
		}
		say("# round\n");
	}
}
