/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "machine/boot/internal.h"

/*
 * ELF files (System V ABI, chapters 4 and 5), 32- and 64-bit, as the PVH and Multiboot loaders need
 * them: PT_LOAD segments go to their physical addresses. <elf.h> is not used: fields are taken out
 * of bytes, at offsets that the two classes share in the order of the names below.
 */
enum { CLASS_32 = 1, CLASS_64 = 2, DATA_LSB = 1, TYPE_EXEC = 2, TYPE_DYN = 3 };
enum { MACHINE_386 = 3, MACHINE_X86_64 = 62, PT_LOAD = 1, PT_NOTE = 4 };
enum { EHDR32_BYTES = 52, EHDR64_BYTES = 64, PHDR32_BYTES = 32, PHDR64_BYTES = 56 };
enum { PHDRS_MAX = 256, NOTES_BYTES_MAX = 1 << 20 };
enum { NOTE_HEAD_BYTES = 12, NOTE_ALIGN = 4, NOTE_PHYS32_ENTRY = 18 };

struct segment_header {
	uint32_t type;
	uint64_t offset, vaddr, paddr, filesz, memsz;
};

bool elf_recognise(const uint8_t *head, size_t len)
{
	return len >= 4 && !memcmp(head, "\177ELF", 4);
}

static int damaged(const struct boot *b, const char *what)
{
	return boot_file_fail(&b->kernel, -ENOEXEC, "its ELF header %s; use an x86 kernel", what);
}

int elf_open(struct boot *b, const uint8_t *head, size_t len, struct elf_image *elf)
{
	unsigned type, machine, minimum;

	if (len < EHDR64_BYTES)
		return boot_file_fail(&b->kernel, -ENODATA, "is cut short within its ELF header");
	if (head[4] != CLASS_32 && head[4] != CLASS_64)
		return damaged(b, "names no class, 32 or 64 bit");
	if (head[5] != DATA_LSB)
		return damaged(b, "says big-endian");
	type = get16(head + 16);
	machine = get16(head + 18);
	if (type != TYPE_EXEC && type != TYPE_DYN)
		return damaged(b, "says that it is no executable (an object file or a core)");
	if (machine != MACHINE_386 && machine != MACHINE_X86_64)
		return damaged(b, "names another processor");
	elf->is64 = head[4] == CLASS_64;
	elf->entry = elf->is64 ? get64(head + 24) : get32(head + 24);
	elf->phoff = elf->is64 ? get64(head + 32) : get32(head + 28);
	elf->phentsize = get16(head + (elf->is64 ? 54 : 42));
	elf->phnum = get16(head + (elf->is64 ? 56 : 44));
	minimum = elf->is64 ? PHDR64_BYTES : PHDR32_BYTES;
	if (elf->phnum == 0)
		return damaged(b, "has no program headers (an object file or a stripped module)");
	if (elf->phnum > PHDRS_MAX)
		return damaged(b, "has more program headers than a kernel can have (256)");
	if (elf->phentsize < minimum)
		return damaged(b, "gives a program header size that is too small");
	return 0;
}

static int read_phdr(struct boot *b, const struct elf_image *elf, unsigned i,
		     struct segment_header *h)
{
	uint8_t raw[PHDR64_BYTES] = {0};
	uint64_t at;
	int rc;

	if (__builtin_add_overflow(elf->phoff, (uint64_t)i * elf->phentsize, &at))
		return damaged(b, "puts the program headers past the end of everything");
	rc = boot_file_read(&b->kernel, at, raw, elf->is64 ? PHDR64_BYTES : PHDR32_BYTES);
	if (rc)
		return rc;
	h->type = get32(raw);
	if (elf->is64) {
		h->offset = get64(raw + 8);
		h->vaddr = get64(raw + 16);
		h->paddr = get64(raw + 24);
		h->filesz = get64(raw + 32);
		h->memsz = get64(raw + 40);
	} else {
		h->offset = get32(raw + 4);
		h->vaddr = get32(raw + 8);
		h->paddr = get32(raw + 12);
		h->filesz = get32(raw + 16);
		h->memsz = get32(raw + 20);
	}
	return 0;
}

static int load_segment(struct boot *b, const struct segment_header *h)
{
	int rc;

	if (h->filesz > h->memsz)
		return boot_file_fail(&b->kernel, -EINVAL,
				      "an ELF segment has %llu bytes for %llu bytes of memory; the "
				      "file is damaged",
				      (unsigned long long)h->filesz, (unsigned long long)h->memsz);
	/* Before RAM is touched: a lie about sizes shall not cost host memory. */
	if (h->offset > b->kernel.bytes || h->filesz > b->kernel.bytes - h->offset)
		return boot_file_fail(
			&b->kernel, -ENODATA,
			"is cut short: an ELF segment of %llu bytes at %llu ends past "
			"the file's %llu bytes; get it anew",
			(unsigned long long)h->filesz, (unsigned long long)h->offset,
			(unsigned long long)b->kernel.bytes);
	rc = boot_claim(b, &b->kernel, h->paddr, h->memsz, "an ELF segment");
	if (!rc)
		rc = boot_file_to_ram(b, &b->kernel, h->offset, h->paddr, h->filesz);
	if (!rc)
		rc = boot_zero(b, h->paddr + h->filesz, h->memsz - h->filesz);
	return rc;
}

int elf_load(struct boot *b, const struct elf_image *elf, uint64_t *end, uint64_t *entry_gpa)
{
	struct segment_header h;

	*end = 0;
	*entry_gpa = elf->entry;
	for (unsigned i = 0; i < elf->phnum; i++) {
		int rc = read_phdr(b, elf, i, &h);

		if (rc)
			return rc;
		if (h.type != PT_LOAD || h.memsz == 0)
			continue;
		rc = load_segment(b, &h);
		if (rc)
			return rc;
		if (h.paddr + h.memsz > *end)
			*end = h.paddr + h.memsz;
		/* e_entry is virtual. */
		if (elf->entry >= h.vaddr && elf->entry - h.vaddr < h.memsz)
			*entry_gpa = h.paddr + (elf->entry - h.vaddr);
	}
	if (!*end)
		return boot_file_fail(&b->kernel, -ENOEXEC,
				      "is an ELF file with nothing to load; use a linked kernel");
	return 0;
}

/* Walks notes: namesz, descsz, type, then name and desc, each padded to 4 bytes. */
static bool find_note(const uint8_t *notes, size_t len, uint32_t *entry)
{
	size_t at = 0;

	while (len - at >= NOTE_HEAD_BYTES) {
		uint64_t name = get32(notes + at);
		uint64_t desc = get32(notes + at + 4);
		uint32_t type = get32(notes + at + 8);
		uint64_t desc_at = at + NOTE_HEAD_BYTES + ((name + NOTE_ALIGN - 1) & -NOTE_ALIGN);
		uint64_t next = desc_at + ((desc + NOTE_ALIGN - 1) & -NOTE_ALIGN);

		if (desc_at > len || desc > len - desc_at)
			return false;
		if (type == NOTE_PHYS32_ENTRY && name == sizeof("Xen") && desc >= sizeof(*entry) &&
		    !memcmp(notes + at + NOTE_HEAD_BYTES, "Xen", sizeof("Xen"))) {
			*entry = get32(notes + desc_at);
			return true;
		}
		if (next > len)
			return false;
		at = (size_t)next;
	}
	return false;
}

int elf_pvh_entry(struct boot *b, const struct elf_image *elf, uint32_t *entry)
{
	struct segment_header h;

	for (unsigned i = 0; i < elf->phnum; i++) {
		uint8_t *notes;
		bool found;
		int rc = read_phdr(b, elf, i, &h);

		if (rc)
			return rc;
		if (h.type != PT_NOTE || h.filesz == 0)
			continue;
		if (h.filesz > NOTES_BYTES_MAX)
			return boot_file_fail(
				&b->kernel, -EINVAL,
				"its ELF notes take %llu bytes, over 1 MiB; the file is "
				"damaged",
				(unsigned long long)h.filesz);
		notes = malloc((size_t)h.filesz);
		if (!notes)
			return boot_file_fail(&b->kernel, -ENOMEM, "no memory left on the host");
		rc = boot_file_read(&b->kernel, h.offset, notes, (size_t)h.filesz);
		found = !rc && find_note(notes, (size_t)h.filesz, entry);
		free(notes);
		if (rc || found)
			return rc;
	}
	return -ENOENT;
}
