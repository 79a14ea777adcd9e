/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MACHINE_BOOT_BOOT_H
#define HANOK_MACHINE_BOOT_BOOT_H

#include <stdbool.h>

#include "base/error.h"
#include "cpu/state/cpu_state.h"
#include "mem/mem.h"

/*
 * Direct boot: a kernel file is put into guest RAM and entered as its boot protocol says, with no
 * firmware between. boot.c tells how.
 */
struct boot_source {
	const char *kernel_path;
	const char
		*initrd_path; /* NULL: none. Multiboot: "path args,path2 args2", commas between */
	const char *cmdline;  /* NULL: empty. Passed as it is, nothing is added */
	unsigned cpus;	      /* 1 and up; local APIC ids are 0 to cpus - 1 */
	bool hpet;	      /* the board has an HPET: ACPI describes it */
};

/*
 * Loads src's kernel (bzImage, ELF with a PVH note, Multiboot 1: found out from the file), initrd
 * or modules, command line, memory map and ACPI tables into mem, and sets *bsp, which comes in as
 * cpu_state_reset leaves it, to the protocol's entry state. vCPUs do not run. On a guest's reboot
 * it is called again: the files are read anew.
 *
 * Return: 0; or a negative errno with one line in *err, and mem and *bsp partly written: the guest
 * must not be started then.
 */
int boot_load(const struct boot_source *src, struct mem *mem, struct cpu_state *bsp,
	      struct error *err);

#endif
