/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "machine/boot/internal.h"
#include "machine/layout.h"

/*
 * Multiboot 1, by the Multiboot Specification 0.6.96. The header lies in the file's first 8192
 * bytes, 4-byte aligned. With flag 16 it gives load addresses itself (the "a.out kludge"),
 * otherwise the file must be ELF; 64-bit ELF is taken too, as GRUB does, and entered in 32-bit mode
 * all the same. The information structure and its strings lie below 640 KiB, from the top down, out of the
 * way of low parts that such kernels like to have; modules follow the kernel.
 */
enum {
	/* header (3.1.1) */
	H_FLAGS = 4,
	H_CHECKSUM = 8,
	H_HEADER_ADDR = 12,
	H_LOAD_ADDR = 16,
	H_LOAD_END_ADDR = 20,
	H_BSS_END_ADDR = 24,
	H_ENTRY_ADDR = 28,
	H_BYTES = 12,
	H_BYTES_KLUDGE = 32,
	F_PAGE_ALIGN = 1, /* modules on page boundaries: always done */
	F_MEMORY = 2,	  /* memory information: always given */
	F_VIDEO = 4,	  /* a wish for a video mode: may be left unfulfilled (3.1.1) */
	F_MUST = 0xffff,  /* a loader that does not know one of these must refuse */
	F_KLUDGE = 0x10000,
	/* information (3.3) */
	I_FLAGS = 0,
	I_MEM_LOWER = 4,
	I_MEM_UPPER = 8,
	I_CMDLINE = 16,
	I_MODS_COUNT = 20,
	I_MODS_ADDR = 24,
	I_MMAP_LENGTH = 44,
	I_MMAP_ADDR = 48,
	I_LOADER_NAME = 64,
	I_BYTES = 120,
	HAS_MEM = 1,
	HAS_CMDLINE = 4,
	HAS_MODS = 8,
	HAS_MMAP = 64,
	HAS_LOADER_NAME = 512,
	MODULE_BYTES = 16,     /* mod_start, mod_end, string, reserved */
	MMAP_ENTRY_BYTES = 24, /* size, base, length, type */
	MODULES_MAX = 64,
	STRING_MAX = 65535,
	CONVENTIONAL_KIB = 639,
};
#define HEADER_MAGIC UINT32_C(0x1badb002)
#define LOADER_MAGIC UINT32_C(0x2badb002)
#define RAM_START UINT64_C(0x100000)

long multiboot_find(const uint8_t *head, size_t len)
{
	for (size_t at = 0; at + H_BYTES <= len && at < MULTIBOOT_SEARCH; at += 4)
		if (get32(head + at) == HEADER_MAGIC &&
		    HEADER_MAGIC + get32(head + at + H_FLAGS) + get32(head + at + H_CHECKSUM) == 0)
			return (long)at;
	return -1;
}

/* Load addresses from the header: text and data from the file, then bss up to bss_end_addr. */
static int load_kludge(struct boot *b, const uint8_t *h, size_t header, uint64_t *end,
		       uint64_t *entry)
{
	uint64_t load = get32(h + H_LOAD_ADDR);
	uint64_t above = (uint64_t)get32(h + H_HEADER_ADDR) - load; /* header's place in the text */
	uint64_t load_end = get32(h + H_LOAD_END_ADDR);
	uint64_t bss_end = get32(h + H_BSS_END_ADDR);
	uint64_t offset = header - above;
	int rc;

	if (get32(h + H_HEADER_ADDR) < load || above > header)
		return boot_file_fail(&b->kernel, -EINVAL,
				      "its Multiboot header says that it lies %lld bytes after the "
				      "load address, which is not in the file; the file is damaged",
				      (long long)above);
	if (!load_end)
		load_end = load + (b->kernel.bytes - offset);
	if (!bss_end)
		bss_end = load_end;
	if (load_end <= load || bss_end < load_end)
		return boot_file_fail(&b->kernel, -EINVAL,
				      "its Multiboot addresses are out of order (load 0x%llx, end "
				      "0x%llx, bss end 0x%llx); the file is damaged",
				      (unsigned long long)load, (unsigned long long)load_end,
				      (unsigned long long)bss_end);
	if (load_end - load > b->kernel.bytes - offset)
		return boot_file_fail(
			&b->kernel, -ENODATA,
			"is cut short: its Multiboot header promises %llu bytes, %llu "
			"are there; get it anew",
			(unsigned long long)(load_end - load),
			(unsigned long long)(b->kernel.bytes - offset));
	rc = boot_claim(b, &b->kernel, load, bss_end - load, "the Multiboot image");
	if (!rc)
		rc = boot_file_to_ram(b, &b->kernel, offset, load, load_end - load);
	if (!rc)
		rc = boot_zero(b, load_end, bss_end - load_end);
	*end = bss_end;
	*entry = get32(h + H_ENTRY_ADDR);
	return rc;
}

static int load_image(struct boot *b, const uint8_t *head, size_t len, size_t header, uint64_t *end,
		      uint64_t *entry)
{
	const uint8_t *h = head + header;
	uint32_t flags = get32(h + H_FLAGS);
	uint32_t unknown = flags & F_MUST & ~(uint32_t)(F_PAGE_ALIGN | F_MEMORY | F_VIDEO);
	struct elf_image elf;
	int rc;

	if (unknown)
		return boot_file_fail(
			&b->kernel, -ENOEXEC,
			"its Multiboot header demands features 0x%x, which Multiboot 1 "
			"does not define",
			unknown);
	if (flags & F_KLUDGE) {
		if (header + H_BYTES_KLUDGE > len)
			return boot_file_fail(&b->kernel, -ENODATA,
					      "is cut short within its Multiboot header");
		rc = load_kludge(b, h, header, end, entry);
	} else if (!elf_recognise(head, len)) {
		return boot_file_fail(
			&b->kernel, -ENOEXEC,
			"has a Multiboot header without load addresses (flag 16) and is "
			"no ELF file; link it as ELF");
	} else {
		rc = elf_open(b, head, len, &elf);
		if (!rc)
			rc = elf_load(b, &elf, end, entry);
	}
	if (!rc && (*entry >= MEM_HIGH_BASE || !boot_is_taken(b, *entry)))
		return boot_file_fail(
			&b->kernel, -EINVAL,
			"its entry point 0x%llx lies outside what it loads; the file is "
			"damaged",
			(unsigned long long)*entry);
	return rc;
}

static int put_string(struct boot *b, const char *text, const char *what, uint64_t *gpa)
{
	if (strlen(text) > STRING_MAX)
		return boot_file_fail(&b->kernel, -E2BIG, "%s has %zu bytes, over %d; shorten it",
				      what, strlen(text), STRING_MAX);
	return boot_put_low(b, text, strlen(text) + 1, 4, BOOT_FROM_TOP, what, gpa);
}

/* One module of the list: text is "path args", cut at the first blank for the path. */
static int put_module(struct boot *b, char *text, uint64_t lowest, uint8_t *entry)
{
	char *blank = strchr(text, ' ');
	uint64_t gpa, size, string;
	int rc = put_string(b, text, "a module's string", &string);

	if (rc)
		return rc;
	if (blank)
		*blank = '\0';
	rc = boot_load_file(b, "module", text, lowest, boot_low_top(b), boot_low_top(b),
			    BOOT_FROM_BOTTOM, &gpa, &size);
	if (rc)
		return rc;
	put32(entry, (uint32_t)gpa);
	put32(entry + 4, (uint32_t)(gpa + size));
	put32(entry + 8, (uint32_t)string);
	return 0;
}

static int put_modules(struct boot *b, uint64_t end, uint8_t *info)
{
	uint8_t table[MODULES_MAX * MODULE_BYTES] = {0};
	uint64_t lowest = end > RAM_START ? end : RAM_START;
	char *list, *text, *rest;
	unsigned n = 0;
	uint64_t gpa;
	int rc = 0;

	if (!b->src->initrd_path)
		return 0;
	list = strdup(b->src->initrd_path);
	if (!list)
		return boot_file_fail(&b->kernel, -ENOMEM, "no memory left on the host");
	for (rest = list; !rc && (text = strsep(&rest, ","));) {
		if (n == MODULES_MAX)
			rc = boot_file_fail(&b->kernel, -E2BIG, "gets more than %d modules",
					    MODULES_MAX);
		else
			rc = put_module(b, text, lowest, table + (size_t)n++ * MODULE_BYTES);
	}
	free(list);
	if (!rc)
		rc = boot_put_low(b, table, (size_t)n * MODULE_BYTES, 4, BOOT_FROM_TOP,
				  "the module list", &gpa);
	if (rc)
		return rc;
	put32(info + I_FLAGS, get32(info + I_FLAGS) | HAS_MODS);
	put32(info + I_MODS_COUNT, n);
	put32(info + I_MODS_ADDR, (uint32_t)gpa);
	return 0;
}

/* mem_lower, mem_upper: KiB below 640 KiB and from 1 MiB to the first hole. */
static int put_memory(struct boot *b, uint8_t *info)
{
	struct e820_entry map[E820_MAX];
	uint8_t table[E820_MAX * MMAP_ENTRY_BYTES] = {0};
	unsigned n = e820_build(b->mem, map);
	uint64_t gpa;
	int rc;

	for (unsigned i = 0; i < n; i++) {
		uint8_t *e = table + (size_t)i * MMAP_ENTRY_BYTES;

		put32(e, MMAP_ENTRY_BYTES - 4); /* size does not count itself */
		put64(e + 4, map[i].start);
		put64(e + 12, map[i].bytes);
		put32(e + 20, map[i].type);
	}
	rc = boot_put_low(b, table, (size_t)n * MMAP_ENTRY_BYTES, 4, BOOT_FROM_TOP,
			  "the memory map", &gpa);
	if (rc)
		return rc;
	put32(info + I_FLAGS, get32(info + I_FLAGS) | HAS_MEM | HAS_MMAP);
	put32(info + I_MEM_LOWER, CONVENTIONAL_KIB);
	put32(info + I_MEM_UPPER, (uint32_t)((mem_low_bytes(b->mem) - RAM_START) >> 10));
	put32(info + I_MMAP_LENGTH, n * MMAP_ENTRY_BYTES);
	put32(info + I_MMAP_ADDR, (uint32_t)gpa);
	return 0;
}

static int put_strings(struct boot *b, uint8_t *info)
{
	uint64_t cmdline, name;
	int rc = put_string(b, boot_cmdline(b), "the command line", &cmdline);

	if (!rc)
		rc = put_string(b, "Hanok " HANOK_VERSION, "the boot loader's name", &name);
	if (rc)
		return rc;
	put32(info + I_FLAGS, get32(info + I_FLAGS) | HAS_CMDLINE | HAS_LOADER_NAME);
	put32(info + I_CMDLINE, (uint32_t)cmdline);
	put32(info + I_LOADER_NAME, (uint32_t)name);
	return 0;
}

int multiboot_load(struct boot *b, const uint8_t *head, size_t len, size_t header)
{
	uint8_t info[I_BYTES] = {0};
	uint64_t end, entry, gpa;
	int rc = load_image(b, head, len, header, &end, &entry);

	if (!rc)
		rc = put_memory(b, info);
	if (!rc)
		rc = put_strings(b, info);
	if (!rc)
		rc = put_modules(b, end, info);
	if (!rc)
		rc = boot_put_low(b, info, sizeof(info), 4, BOOT_FROM_TOP,
				  "the Multiboot information", &gpa);
	if (rc)
		return rc;
	entry_flat32(b->bsp, entry);
	b->bsp->gpr[RAX] = LOADER_MAGIC;
	b->bsp->gpr[RBX] = gpa;
	return 0;
}
