/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/boot/boot.h"

#include <errno.h>
#include <stdlib.h>

#include "machine/acpi/acpi.h"
#include "machine/boot/internal.h"
#include "machine/layout.h"

/*
 * Direct boot, theory of operation.
 *
 * A kernel that is entered directly finds what firmware would have left: a memory map, ACPI tables,
 * the BIOS data area's few words that kernels look at, and a processor in the state its boot
 * protocol names. boot_load finds out the format from the file's first 8 KiB:
 *
 *   "HdrS" at 202h                   bzimage.c    Linux, by the 64- or 32-bit boot protocol
 *   ELF with a PHYS32_ENTRY note     pvh.c        vmlinux, FreeBSD, ... by PVH
 *   Multiboot 1 header               multiboot.c  ELF or a flat file with load addresses
 *
 * An ELF that has both is entered by PVH, which also passes the ACPI tables.
 *
 * Everything read from a file is untrusted: file.c reads through a view that knows the file's end,
 * place.c hands out guest RAM so that no part can lie outside it or over another part, and each
 * loader checks a number before it counts with it. Guest-physical layout of what is added:
 *
 *   0x00400  BIOS data area    0x01000 up  tables of the protocol, command line (bzImage, PVH)
 *   0xe0000  ACPI tables       (Multiboot: down from 0x9fc00, as such kernels load low parts)
 *   kernel   where it says     initrd: as high as the kernel can reach; modules: after the kernel
 */

/* BIOS data area words that kernels read without asking: "serial port bases", "equipment",
 * "conventional memory", "EBDA segment" (IBM PC/AT Technical Reference, BIOS data area). */
enum {
	BDA_COM1 = 0x400,
	BDA_COM2 = 0x402,
	BDA_EBDA = 0x40e,
	BDA_EQUIPMENT = 0x410,
	BDA_MEMORY_KIB = 0x413
};
enum { EBDA_KIB = 1, CONVENTIONAL_KIB = 639, EQUIPMENT_TWO_SERIAL = 2 << 9, EQUIPMENT_FPU = 2 };

static int put_word(struct mem *mem, uint64_t gpa, uint16_t value)
{
	return mem_write(mem, gpa, &value, sizeof(value));
}

static int bios_data(struct mem *mem)
{
	uint64_t ebda = CONVENTIONAL_KIB << 10;
	int rc = put_word(mem, BDA_COM1, LAYOUT_COM1);

	if (!rc)
		rc = put_word(mem, BDA_COM2, LAYOUT_COM2);
	if (!rc)
		rc = put_word(mem, BDA_EQUIPMENT, EQUIPMENT_TWO_SERIAL | EQUIPMENT_FPU);
	if (!rc)
		rc = put_word(mem, BDA_MEMORY_KIB, CONVENTIONAL_KIB);
	if (!rc)
		rc = put_word(mem, BDA_EBDA, (uint16_t)(ebda >> 4));
	if (!rc)
		rc = put_word(mem, ebda, EBDA_KIB); /* the EBDA begins with its size */
	return rc;
}

static int not_a_kernel(struct boot *b, const uint8_t *head, size_t len)
{
	static const struct {
		uint8_t magic[4];
		uint8_t bytes;
		const char *what;
	} known[] = {
		{{0x1f, 0x8b}, 2, "a gzip file; unpack it (gunzip)"},
		{{0xfd, '7', 'z', 'X'}, 4, "an xz file; unpack it (unxz)"},
		{{0x28, 0xb5, 0x2f, 0xfd}, 4, "a zstd file; unpack it (unzstd)"},
		{{'B', 'Z', 'h'}, 3, "a bzip2 file; unpack it (bunzip2)"},
		{{'0', '7', '0', '7'}, 4, "a cpio archive, as an initrd is; give it as the initrd"},
		{{'M', 'Z'}, 2, "an EFI or DOS program without a Linux boot header; use a bzImage"},
		{{'K', 'D', 'M', 'V'}, 4, "a VMDK disk; give it as a disk"},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (len >= known[i].bytes && !memcmp(head, known[i].magic, known[i].bytes))
			return boot_file_fail(&b->kernel, -ENOEXEC, "is no kernel but %s",
					      known[i].what);
	return boot_file_fail(
		&b->kernel, -ENOEXEC,
		"is no kernel of a kind known here; use a Linux bzImage (vmlinuz), an "
		"ELF file with a PVH note, or a Multiboot 1 kernel");
}

static int load_elf(struct boot *b, const uint8_t *head, size_t len, long multiboot)
{
	struct elf_image elf;
	uint32_t entry;
	int rc = elf_open(b, head, len, &elf);

	if (rc)
		return rc;
	rc = elf_pvh_entry(b, &elf, &entry);
	if (rc == 0)
		return pvh_load(b, &elf, entry);
	if (rc != -ENOENT)
		return rc;
	if (multiboot >= 0)
		return multiboot_load(b, head, len, (size_t)multiboot);
	return boot_file_fail(
		&b->kernel, -ENOEXEC,
		"is an ELF file with neither a PVH entry note nor a Multiboot 1 header; "
		"for Linux use the bzImage (vmlinuz) or build vmlinux with CONFIG_PVH=y");
}

static int load_kernel(struct boot *b, const uint8_t *head, size_t len)
{
	long multiboot = multiboot_find(head, len);

	if (bzimage_recognise(head, len))
		return bzimage_load(b, head, len);
	if (elf_recognise(head, len))
		return load_elf(b, head, len, multiboot);
	if (multiboot >= 0)
		return multiboot_load(b, head, len, (size_t)multiboot);
	return not_a_kernel(b, head, len);
}

int boot_load(const struct boot_source *src, struct mem *mem, struct cpu_state *bsp,
	      struct error *err)
{
	struct acpi_board board = {.cpus = src->cpus, .hpet = src->hpet};
	struct boot b = {.src = src, .mem = mem, .bsp = bsp, .err = err};
	uint8_t *head = NULL;
	size_t len = 0;
	int rc = boot_file_open(&b.kernel, "kernel", src->kernel_path, err);

	if (rc)
		goto out;
	head = malloc(BOOT_HEAD_BYTES);
	if (!head) {
		rc = boot_file_fail(&b.kernel, -ENOMEM, "no memory left on the host");
		goto out;
	}
	rc = boot_file_peek(&b.kernel, head, BOOT_HEAD_BYTES, &len);
	if (!rc)
		rc = acpi_build(&board, mem, &b.rsdp, err);
	if (!rc)
		rc = bios_data(mem);
	if (!rc)
		rc = load_kernel(&b, head, len);
out:
	free(head);
	boot_file_close(&b.kernel);
	return rc;
}
