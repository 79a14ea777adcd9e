/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "machine/boot/internal.h"

/*
 * What goes where in guest RAM. A loader may use three banks: conventional memory from the end of
 * the BIOS data area to the EBDA, RAM from 1 MiB to the PCI hole, and RAM from 4 GiB on. Everything
 * put there is claimed first, so that a kernel whose segments overlap, or lie over the loader's own
 * tables, is refused and nothing is overwritten.
 */
#define LOW_START UINT64_C(0x500)
#define LOW_END UINT64_C(0x9fc00)
#define MIB UINT64_C(0x100000)

enum { BANK_NR = 3, SHOW_MIB = 20 };

static struct boot_range bank(const struct boot *b, unsigned i)
{
	uint64_t low = mem_low_bytes(b->mem);
	uint64_t high = mem_high_bytes(b->mem);

	switch (i) {
	case 0:
		return (struct boot_range){LOW_START, LOW_END < low ? LOW_END : low, NULL};
	case 1:
		return (struct boot_range){MIB, low > MIB ? low : MIB, NULL};
	default:
		return (struct boot_range){MEM_HIGH_BASE, MEM_HIGH_BASE + high, NULL};
	}
}

uint64_t boot_low_top(const struct boot *b)
{
	return mem_low_bytes(b->mem) - 1;
}

static bool in_a_bank(const struct boot *b, uint64_t start, uint64_t end)
{
	for (unsigned i = 0; i < BANK_NR; i++) {
		struct boot_range r = bank(b, i);

		if (start >= r.start && end <= r.end)
			return true;
	}
	return false;
}

static const struct boot_range *overlapping(const struct boot *b, uint64_t start, uint64_t end)
{
	for (unsigned i = 0; i < b->taken_nr; i++)
		if (start < b->taken[i].end && b->taken[i].start < end)
			return &b->taken[i];
	return NULL;
}

bool boot_is_taken(const struct boot *b, uint64_t gpa)
{
	return overlapping(b, gpa, gpa + 1);
}

static int take(struct boot *b, uint64_t start, uint64_t end, const char *what)
{
	if (b->taken_nr == BOOT_RANGES_MAX)
		return -E2BIG;
	b->taken[b->taken_nr++] = (struct boot_range){start, end, what};
	return 0;
}

/* Says how much memory would do, where some would. */
static int no_ram(const struct boot *b, const struct boot_file *f, uint64_t start, uint64_t end,
		  const char *what)
{
	if (start >= MIB && end <= MEM_LOW_MAX)
		return boot_file_fail(
			f, -ENOMEM,
			"%s lies at 0x%llx-0x%llx, past the machine's %llu MiB of RAM; "
			"give it at least %llu MiB (--memory)",
			what, (unsigned long long)start, (unsigned long long)end - 1,
			(unsigned long long)(mem_ram_bytes(b->mem) >> SHOW_MIB),
			(unsigned long long)((end + MIB - 1) >> SHOW_MIB));
	return boot_file_fail(
		f, -ENOMEM,
		"%s lies at 0x%llx-0x%llx, where a PC has no RAM for a kernel; use one "
		"that is linked for a PC",
		what, (unsigned long long)start, (unsigned long long)end - 1);
}

int boot_claim(struct boot *b, const struct boot_file *f, uint64_t start, uint64_t len,
	       const char *what)
{
	const struct boot_range *other;
	uint64_t end;

	if (len == 0)
		return 0;
	if (__builtin_add_overflow(start, len, &end))
		end = UINT64_MAX;
	if (!in_a_bank(b, start, end))
		return no_ram(b, f, start, end, what);
	other = overlapping(b, start, end);
	if (other)
		return boot_file_fail(
			f, -EEXIST,
			"%s at 0x%llx-0x%llx overlaps %s at 0x%llx-0x%llx; the file is "
			"damaged or not linked for a PC",
			what, (unsigned long long)start, (unsigned long long)end - 1, other->what,
			(unsigned long long)other->start, (unsigned long long)other->end - 1);
	if (take(b, start, end, what))
		return boot_file_fail(f, -E2BIG, "has more than %d parts to load", BOOT_RANGES_MAX);
	return 0;
}

/* Tries one bank: moves past each overlapping range until a gap is found. */
static bool fit(const struct boot *b, struct boot_range room, uint64_t len, uint64_t align,
		enum boot_from from, uint64_t *start)
{
	const struct boot_range *other;
	uint64_t at;

	while (room.start < room.end && len <= room.end - room.start) {
		at = from == BOOT_FROM_TOP ? (room.end - len) & -align
					   : (room.start + align - 1) & -align;
		if (at < room.start || at > room.end - len)
			return false;
		other = overlapping(b, at, at + len);
		if (!other) {
			*start = at;
			return true;
		}
		if (from == BOOT_FROM_TOP)
			room.end = other->start;
		else
			room.start = other->end;
	}
	return false;
}

int boot_place(struct boot *b, uint64_t len, uint64_t align, uint64_t lowest, uint64_t highest,
	       enum boot_from from, const char *what, uint64_t *start)
{
	if (len == 0)
		len = 1;
	for (unsigned n = 0; n < BANK_NR; n++) {
		struct boot_range r = bank(b, from == BOOT_FROM_TOP ? BANK_NR - 1 - n : n);

		if (r.start < lowest)
			r.start = lowest;
		if (r.end - 1 > highest)
			r.end = highest + 1;
		if (fit(b, r, len, align, from, start))
			return take(b, *start, *start + len, what) ? -ENOMEM : 0;
	}
	return -ENOMEM;
}

int boot_put_low(struct boot *b, const void *data, size_t len, uint64_t align, enum boot_from from,
		 const char *what, uint64_t *start)
{
	/* The first page is left to the interrupt vectors and the BIOS data area. */
	int rc = boot_place(b, len, align, MEM_PAGE_BYTES, LOW_END - 1, from, what, start);

	if (rc)
		return boot_file_fail(&b->kernel, rc,
				      "leaves no room below 640 KiB for %s (%zu bytes); it is not "
				      "linked for a PC",
				      what, len);
	return mem_write(b->mem, *start, data, len);
}

int boot_file_to_ram(struct boot *b, const struct boot_file *f, uint64_t offset, uint64_t gpa,
		     uint64_t len)
{
	void *to = mem_pin(b->mem, gpa, len, true);

	if (len == 0)
		return 0;
	if (!to)
		return boot_file_fail(f, -EFAULT,
				      "cannot be put at address 0x%llx (%llu bytes): "
				      "that is not RAM",
				      (unsigned long long)gpa, (unsigned long long)len);
	int rc = boot_file_read(f, offset, to, len);
	mem_written(b->mem, gpa, len);
	mem_unpin(b->mem, to, len);
	return rc;
}

int boot_zero(struct boot *b, uint64_t gpa, uint64_t len)
{
	void *to = len ? mem_pin(b->mem, gpa, len, true) : NULL;

	if (len && !to)
		return -EFAULT;
	if (len) {
		memset(to, 0, len);
		mem_written(b->mem, gpa, len);
		mem_unpin(b->mem, to, len);
	}
	return 0;
}

int boot_load_file(struct boot *b, const char *role, const char *path, uint64_t lowest,
		   uint64_t highest, uint64_t highest_at_worst, enum boot_from from, uint64_t *gpa,
		   uint64_t *size)
{
	struct boot_file f;
	int rc = boot_file_open(&f, role, path, b->err);

	if (rc)
		goto out;
	rc = boot_place(b, f.bytes, MEM_PAGE_BYTES, lowest, highest, from, role, gpa);
	if (rc && highest_at_worst > highest)
		rc = boot_place(b, f.bytes, MEM_PAGE_BYTES, lowest, highest_at_worst, from, role,
				gpa);
	if (rc) {
		boot_file_fail(
			&f, rc,
			"its %llu bytes do not fit beside the kernel in %llu MiB of RAM; give "
			"the machine more memory or use a smaller %s",
			(unsigned long long)f.bytes,
			(unsigned long long)(mem_ram_bytes(b->mem) >> SHOW_MIB), role);
		goto out;
	}
	*size = f.bytes;
	rc = boot_file_to_ram(b, &f, 0, *gpa, f.bytes);
out:
	boot_file_close(&f);
	return rc;
}
