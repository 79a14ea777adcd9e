/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MACHINE_ACPI_ACPI_H
#define HANOK_MACHINE_ACPI_ACPI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "mem/mem.h"

/* What of the board the tables depend on; the rest is fixed by machine/layout.h. */
struct acpi_board {
	unsigned
		cpus; /* 1 to ACPI_CPUS_MAX; local APIC ids and processor _UIDs are 0 to cpus - 1 */
	bool hpet;
};
enum { ACPI_CPUS_MAX = 1024 };

/*
 * Writes the board's ACPI tables to guest RAM at LAYOUT_ACPI_BASE; *rsdp is the root pointer's
 * address, which is also where a scan of the BIOS area (ACPI 6.4, 5.2.5.1) finds it.
 * Return: 0; -EINVAL for too many cpus, -ENOMEM, -EFAULT, with a line in *err.
 */
int acpi_build(const struct acpi_board *board, struct mem *mem, uint64_t *rsdp, struct error *err);

#endif
