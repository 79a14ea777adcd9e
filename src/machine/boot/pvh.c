/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "machine/boot/internal.h"

/*
 * PVH: an ELF kernel is entered in 32-bit protected mode at the address of its
 * XEN_ELFNOTE_PHYS32_ENTRY note with EBX pointing to struct hvm_start_info. Source: Xen's
 * docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h, version 1 (with a memory
 * map). Linux, FreeBSD and others have it.
 */
enum {
	/* struct hvm_start_info */
	I_MAGIC = 0,
	I_VERSION = 4,
	I_NR_MODULES = 12,
	I_MODLIST = 16,
	I_CMDLINE = 24,
	I_RSDP = 32,
	I_MEMMAP = 40,
	I_MEMMAP_ENTRIES = 48,
	I_BYTES = 56,
	/* struct hvm_modlist_entry: paddr, size, cmdline_paddr, reserved */
	MODULE_BYTES = 32,
	/* struct hvm_memmap_table_entry: addr, size, type, reserved */
	MEMMAP_BYTES = 24,
};
#define START_MAGIC UINT32_C(0x336ec578)
#define INITRD_LOWEST UINT64_C(0x100000)

/* No limit is given; an argument of a kernel that long is a mistake. */
enum { CMDLINE_MAX = 65535, ALIGN = 8 };

static int put_memmap(struct boot *b, uint8_t *info)
{
	struct e820_entry map[E820_MAX];
	uint8_t table[E820_MAX * MEMMAP_BYTES] = {0};
	unsigned n = e820_build(b->mem, map);
	uint64_t gpa;
	int rc;

	for (unsigned i = 0; i < n; i++) {
		uint8_t *e = table + (size_t)i * MEMMAP_BYTES;

		put64(e, map[i].start);
		put64(e + 8, map[i].bytes);
		put32(e + 16, map[i].type);
	}
	rc = boot_put_low(b, table, (size_t)n * MEMMAP_BYTES, ALIGN, BOOT_FROM_BOTTOM,
			  "the memory map", &gpa);
	if (!rc) {
		put64(info + I_MEMMAP, gpa);
		put32(info + I_MEMMAP_ENTRIES, n);
	}
	return rc;
}

static int put_cmdline(struct boot *b, uint8_t *info)
{
	const char *line = boot_cmdline(b);
	uint64_t gpa;
	int rc;

	if (strlen(line) > CMDLINE_MAX)
		return boot_file_fail(&b->kernel, -E2BIG,
				      "gets a command line of %zu bytes, over %d; shorten it",
				      strlen(line), CMDLINE_MAX);
	rc = boot_put_low(b, line, strlen(line) + 1, ALIGN, BOOT_FROM_BOTTOM, "the command line",
			  &gpa);
	if (!rc)
		put64(info + I_CMDLINE, gpa);
	return rc;
}

static int put_initrd(struct boot *b, uint8_t *info)
{
	uint8_t module[MODULE_BYTES] = {0};
	uint64_t gpa, size;
	int rc;

	if (!b->src->initrd_path)
		return 0;
	rc = boot_load_file(b, "initrd", b->src->initrd_path, INITRD_LOWEST, boot_low_top(b),
			    boot_low_top(b), BOOT_FROM_TOP, &gpa, &size);
	if (rc)
		return rc;
	put64(module, gpa);
	put64(module + 8, size);
	rc = boot_put_low(b, module, sizeof(module), ALIGN, BOOT_FROM_BOTTOM, "the module list",
			  &gpa);
	if (!rc) {
		put64(info + I_MODLIST, gpa);
		put32(info + I_NR_MODULES, 1);
	}
	return rc;
}

int pvh_load(struct boot *b, const struct elf_image *elf, uint32_t entry)
{
	uint8_t info[I_BYTES] = {0};
	uint64_t end, elf_entry, gpa;
	int rc = elf_load(b, elf, &end, &elf_entry);

	if (rc)
		return rc;
	if (!boot_is_taken(b, entry))
		return boot_file_fail(&b->kernel, -EINVAL,
				      "its PVH entry point 0x%x lies in no segment; the file is "
				      "damaged",
				      entry);
	put32(info + I_MAGIC, START_MAGIC);
	put32(info + I_VERSION, 1);
	put64(info + I_RSDP, b->rsdp);
	rc = put_memmap(b, info);
	if (!rc)
		rc = put_cmdline(b, info);
	if (!rc)
		rc = put_initrd(b, info);
	if (!rc)
		rc = boot_put_low(b, info, sizeof(info), ALIGN, BOOT_FROM_BOTTOM,
				  "the start information", &gpa);
	if (rc)
		return rc;
	entry_flat32(b->bsp, entry);
	b->bsp->gpr[RBX] = gpa;
	return 0;
}
