/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/boot/internal.h"
#include "machine/layout.h"

/*
 * The memory map that every protocol hands over, the same that firmware would give by INT 15h,
 * E820h (ACPI 6.4, 15.1): conventional memory, the EBDA, the area of the ACPI tables with the FACS
 * as NVS at its end, RAM up to the PCI hole, the PCI ECAM window, RAM from 4 GiB on.
 */
#define EBDA_START UINT64_C(0x9fc00)
#define EBDA_END UINT64_C(0xa0000)
#define RAM_START UINT64_C(0x100000)

static void add(struct e820_entry *map, unsigned *n, uint64_t start, uint64_t bytes,
		enum e820_type type)
{
	if (bytes)
		map[(*n)++] = (struct e820_entry){start, bytes, type};
}

unsigned e820_build(const struct mem *mem, struct e820_entry map[E820_MAX])
{
	uint64_t low = mem_low_bytes(mem);
	uint64_t facs = LAYOUT_ACPI_BASE + LAYOUT_ACPI_BYTES - MEM_PAGE_BYTES;
	unsigned n = 0;

	add(map, &n, 0, EBDA_START, E820_RAM);
	add(map, &n, EBDA_START, EBDA_END - EBDA_START, E820_RESERVED);
	add(map, &n, LAYOUT_ACPI_BASE, facs - LAYOUT_ACPI_BASE, E820_ACPI);
	add(map, &n, facs, MEM_PAGE_BYTES, E820_NVS);
	add(map, &n, RAM_START, low - RAM_START, E820_RAM);
	add(map, &n, LAYOUT_ECAM_BASE, LAYOUT_ECAM_BYTES, E820_RESERVED);
	add(map, &n, MEM_HIGH_BASE, mem_high_bytes(mem), E820_RAM);
	return n;
}
