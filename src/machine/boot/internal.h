/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MACHINE_BOOT_INTERNAL_H
#define HANOK_MACHINE_BOOT_INTERNAL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "machine/boot/boot.h"

/* Shared by the loaders in this folder only. */

/*
 * A file of the user's, known to end at `bytes`. Reads are pread(2): the file may shrink or change
 * while it is read, which is an error line and never a SIGBUS.
 */
struct boot_file {
	const char *role; /* "kernel", "initrd" or "module": begins every error line */
	const char *path;
	int fd; /* -1: not open */
	uint64_t bytes;
	struct error *err;
};

/* Opens a regular file that is not empty. The path stays the caller's. */
int boot_file_open(struct boot_file *f, const char *role, const char *path, struct error *err);
void boot_file_close(struct boot_file *f);
/* All of [offset, offset + len) or an error line; a range past the end is -ENODATA. */
int boot_file_read(const struct boot_file *f, uint64_t offset, void *buf, size_t len);
/* At most len bytes from the start, for looking at a format; sets *got. */
int boot_file_peek(const struct boot_file *f, void *buf, size_t len, size_t *got);
/* error_set with "ROLE 'PATH': " before the line. Return: code. */
int boot_file_fail(const struct boot_file *f, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Guest RAM that is taken, so that nothing is put over anything else. */
struct boot_range {
	uint64_t start, end; /* [start, end) */
	const char *what;
};
enum { BOOT_RANGES_MAX = 128 };

struct boot {
	const struct boot_source *src;
	struct mem *mem;
	struct cpu_state *bsp;
	struct error *err;
	struct boot_file kernel;
	uint64_t rsdp; /* gpa of the ACPI root pointer */
	struct boot_range taken[BOOT_RANGES_MAX];
	unsigned taken_nr;
};

/*
 * Takes [start, start + len) for what (a string that stays). -ENOMEM when it is not all RAM that a
 * loader may use, -EEXIST when it overlaps something taken; the line names f.
 */
int boot_claim(struct boot *b, const struct boot_file *f, uint64_t start, uint64_t len,
	       const char *what);

/* Where boot_place looks: the first place from the bottom up, or from the top down. */
enum boot_from { BOOT_FROM_BOTTOM, BOOT_FROM_TOP };

/*
 * Finds and takes len free bytes, aligned (a power of two), all within [lowest, highest] (highest
 * is the last byte's address). Return: 0 with *start, or -ENOMEM without an error line. len 0 is
 * placed as one byte.
 */
int boot_place(struct boot *b, uint64_t len, uint64_t align, uint64_t lowest, uint64_t highest,
	       enum boot_from from, const char *what, uint64_t *start);

/* boot_place in conventional memory (below 640 KiB) and the copy of data there. Writes the line. */
int boot_put_low(struct boot *b, const void *data, size_t len, uint64_t align, enum boot_from from,
		 const char *what, uint64_t *start);

/* Reads [offset, offset + len) of f to guest RAM at gpa, which must be claimed. */
int boot_file_to_ram(struct boot *b, const struct boot_file *f, uint64_t offset, uint64_t gpa,
		     uint64_t len);
/* Zeroes guest RAM, which must be claimed. */
int boot_zero(struct boot *b, uint64_t gpa, uint64_t len);

/*
 * Opens, places (page-aligned, in [lowest, highest], failing that in [lowest, highest_at_worst])
 * and reads a whole file; sets *gpa and *size. Writes the line.
 */
int boot_load_file(struct boot *b, const char *role, const char *path, uint64_t lowest,
		   uint64_t highest, uint64_t highest_at_worst, enum boot_from from, uint64_t *gpa,
		   uint64_t *size);

/* Whether something that was loaded lies at gpa. */
bool boot_is_taken(const struct boot *b, uint64_t gpa);

/* The last address of RAM below the PCI hole. */
uint64_t boot_low_top(const struct boot *b);

/* The command line, never NULL. */
static inline const char *boot_cmdline(const struct boot *b)
{
	return b->src->cmdline ? b->src->cmdline : "";
}

/* The map of guest-physical memory, in the types of ACPI 6.4 table 15.2 (INT 15h, E820h). */
enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3, E820_NVS = 4 };
struct e820_entry {
	uint64_t start, bytes;
	enum e820_type type;
};
enum { E820_MAX = 12 };
/* Fills map in ascending order without overlaps. Return: the number of entries. */
unsigned e820_build(const struct mem *mem, struct e820_entry map[E820_MAX]);

/* Entry states; the rest of *s stays as cpu_state_reset leaves it. */
void entry_flat32(struct cpu_state *s, uint64_t rip);
/* Identity map of the first 4 GiB at cr3, see boot_page_tables. */
void entry_long64(struct cpu_state *s, uint64_t rip, uint64_t cr3, uint64_t gdt);
/* Puts the GDT that CS 10h and DS 18h come from; code64 picks the code segment's kind. */
int boot_put_gdt(struct boot *b, bool code64, uint64_t *gdt);
enum { BOOT_CS = 0x10, BOOT_DS = 0x18, BOOT_GDT_BYTES = 32 };
int boot_put_page_tables(struct boot *b, uint64_t *cr3);

/* Each loader: 0, or a negative errno with a line in b->err. head is the file's first bytes. */
bool bzimage_recognise(const uint8_t *head, size_t len);
int bzimage_load(struct boot *b, const uint8_t *head, size_t len);

/* ELF (elf.c): what the PVH and Multiboot loaders share. */
struct elf_image {
	bool is64;
	uint64_t entry; /* e_entry, as it is */
	uint64_t phoff;
	unsigned phnum, phentsize;
};
bool elf_recognise(const uint8_t *head, size_t len);
int elf_open(struct boot *b, const uint8_t *head, size_t len, struct elf_image *elf);
/* Loads the PT_LOAD segments at their physical addresses; *end is the highest byte's address + 1,
 * *entry_gpa the entry point's physical address. */
int elf_load(struct boot *b, const struct elf_image *elf, uint64_t *end, uint64_t *entry_gpa);
/* The XEN_ELFNOTE_PHYS32_ENTRY note. 0 with *entry; -ENOENT, no line, when there is none. */
int elf_pvh_entry(struct boot *b, const struct elf_image *elf, uint32_t *entry);

int pvh_load(struct boot *b, const struct elf_image *elf, uint32_t entry);

/* Where in head the Multiboot 1 header is. Return: its offset, or -1. */
long multiboot_find(const uint8_t *head, size_t len);
int multiboot_load(struct boot *b, const uint8_t *head, size_t len, size_t header);

enum { MULTIBOOT_SEARCH = 8192, BOOT_HEAD_BYTES = MULTIBOOT_SEARCH };

/* Little-endian fields at any alignment. */
static inline uint16_t get16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint32_t get32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint64_t get64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void put16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void put64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

#endif
