/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "machine/boot/boot.h"
#include "machine/layout.h"
#include "pins.h"

/*
 * Kernels made by hand, whole and torn in every way that a loader must notice, and Debian's real
 * ones where the cache has them.
 */
#define MIB(n) ((uint64_t)(n) << 20)

struct image {
	int fd;
	char path[64];
};

struct machine {
	struct mem *mem;
	struct cpu_state cpu;
	struct error err;
};

static struct image image_create(const void *bytes, size_t len)
{
	struct image im = {.fd = memfd_create("kernel", MFD_CLOEXEC)};

	assert_true(im.fd >= 0);
	assert_int_equal(pwrite(im.fd, bytes, len, 0), len);
	snprintf(im.path, sizeof(im.path), "/proc/self/fd/%d", im.fd);
	return im;
}

static void machine_start(struct machine *m, uint64_t ram_bytes)
{
	memset(m, 0, sizeof(*m));
	assert_int_equal(mem_create(&m->mem, ram_bytes, &m->err), 0);
	cpu_state_reset(&m->cpu, 0);
}

static uint64_t peek(const struct machine *m, uint64_t gpa, unsigned bytes)
{
	uint64_t v = 0;

	assert_int_equal(mem_read(m->mem, gpa, &v, bytes), 0);
	return v;
}

static int load(struct machine *m, const char *kernel, const char *initrd, const char *cmdline)
{
	struct boot_source src = {
		.kernel_path = kernel, .initrd_path = initrd, .cmdline = cmdline, .cpus = 1};

	int rc = boot_load(&src, m->mem, &m->cpu, &m->err);
	assert_int_equal(pinned_pages(m->mem), 0); /* what was loaded can leave */
	return rc;
}

/* One clear line: not empty, one line, names the file. */
static void check_line(const struct machine *m, const char *word)
{
	assert_non_null(strstr(m->err.text, word));
	assert_null(strchr(m->err.text, '\n'));
	assert_non_null(strchr(m->err.text, '\''));
}

/* Loads the bytes as a kernel; the code and a word of the line are expected. */
static void expect(const void *bytes, size_t len, uint64_t ram, int code, const char *word)
{
	struct image im = image_create(bytes, len);
	struct machine m;

	machine_start(&m, ram);
	assert_int_equal(load(&m, im.path, NULL, NULL), code);
	if (code)
		check_line(&m, word);
	mem_destroy(m.mem);
	close(im.fd);
}

static void put(uint8_t *to, uint64_t value, unsigned bytes)
{
	memcpy(to, &value, bytes);
}

/* --- bzImage --- */

enum { BZ_SETUP = 1024, BZ_CODE = 8192, BZ_BYTES = BZ_SETUP + BZ_CODE };
enum { BZ_PREF = 0x1000000, BZ_INIT_SIZE = 0x200000, BZ_CMDLINE = 64 };

/* Protocol 2.15, 64-bit, relocatable, to run at 16 MiB. */
static void bz_make(uint8_t *z)
{
	memset(z, 0, BZ_BYTES);
	z[0x1f1] = BZ_SETUP / 512 - 1;
	put(z + 0x1f4, BZ_CODE / 16, 4);
	put(z + 0x1fe, 0xaa55, 2);
	put(z + 0x200, 0x6aeb, 2);
	memcpy(z + 0x202, "HdrS", 4);
	put(z + 0x206, 0x20f, 2);
	z[0x211] = 1;
	put(z + 0x214, 0x100000, 4);
	put(z + 0x22c, 0x7fffffff, 4);
	put(z + 0x230, 0x200000, 4);
	z[0x234] = 1;
	put(z + 0x236, 1, 2);
	put(z + 0x238, BZ_CMDLINE, 4);
	put(z + 0x258, BZ_PREF, 8);
	put(z + 0x260, BZ_INIT_SIZE, 4);
	memset(z + BZ_SETUP, 0xcc, BZ_CODE);
}

static uint64_t translate(const struct machine *m, uint64_t gva)
{
	uint64_t e = m->cpu.cr3 + (gva >> 39 & 511) * 8;

	for (int shift = 30; shift >= 21; shift -= 9) {
		e = peek(m, e, 8);
		assert_int_equal(e & 3, 3);
		e = (e & ~UINT64_C(0xfff)) + (gva >> shift & 511) * 8;
	}
	e = peek(m, e, 8);
	assert_int_equal(e & 0x83, 0x83);
	return (e & ~UINT64_C(0x1fffff)) | (gva & 0x1fffff);
}

static void bz_64(void **state)
{
	uint8_t z[BZ_BYTES], disk[5000];
	struct image im, initrd;
	struct machine m;
	uint64_t zero, at;
	char line[64];

	(void)state;
	bz_make(z);
	memset(disk, 0x5a, sizeof(disk));
	im = image_create(z, sizeof(z));
	initrd = image_create(disk, sizeof(disk));
	machine_start(&m, MIB(64));
	assert_int_equal(load(&m, im.path, initrd.path, "console=ttyS0 quiet"), 0);
	/* The entry state of the 64-bit boot protocol. */
	assert_int_equal(m.cpu.rip, BZ_PREF + 0x200);
	assert_true(cpu_in_64bit(&m.cpu));
	assert_int_equal(m.cpu.cr0 & (CR0_PE | CR0_PG), CR0_PE | CR0_PG);
	assert_int_equal(m.cpu.cr4, CR4_PAE);
	assert_int_equal(m.cpu.seg[SEG_CS].sel, 0x10);
	assert_int_equal(m.cpu.seg[SEG_SS].sel, 0x18);
	assert_int_equal(m.cpu.rflags, FLAG_R1);
	assert_int_equal(translate(&m, 0x12345678), 0x12345678);
	assert_int_equal(translate(&m, 0xfedcba98), 0xfedcba98);
	/* The descriptor behind CS: code, L, present, as the hidden part says. */
	assert_int_equal(peek(&m, m.cpu.gdt.base + 0x10, 8) >> 40 & 0xf0ff,
			 m.cpu.seg[SEG_CS].attr & 0xf0ff);
	/* boot_params. */
	zero = m.cpu.gpr[RSI];
	assert_int_equal(peek(&m, zero + 0x202, 4), 0x53726448);
	assert_int_equal(peek(&m, zero + 0x210, 1), 0xff);
	assert_int_equal(peek(&m, zero + 0x070, 8), LAYOUT_ACPI_BASE);
	assert_int_equal(peek(&m, zero + 0x214, 4), BZ_PREF);
	assert_int_equal(peek(&m, zero + 0x1ef, 1), 0); /* the sentinel */
	at = peek(&m, zero + 0x228, 4);
	assert_int_equal(mem_read(m.mem, at, line, sizeof(line)), 0);
	assert_string_equal(line, "console=ttyS0 quiet");
	assert_int_equal(peek(&m, zero + 0x21c, 4), sizeof(disk));
	at = peek(&m, zero + 0x218, 4);
	assert_int_equal(at % 4096, 0);
	assert_true(at > BZ_PREF + BZ_INIT_SIZE && at + sizeof(disk) <= MIB(64));
	assert_int_equal(peek(&m, at + sizeof(disk) - 1, 1), 0x5a);
	assert_int_equal(peek(&m, BZ_PREF + BZ_CODE - 1, 1), 0xcc);
	/* setup_data: one node, the random seed, not all zero. */
	at = peek(&m, zero + 0x250, 8);
	assert_int_equal(peek(&m, at, 8), 0);
	assert_int_equal(peek(&m, at + 8, 4), 9);
	assert_int_equal(peek(&m, at + 12, 4), 32);
	assert_true(peek(&m, at + 16, 8) | peek(&m, at + 24, 8));
	mem_destroy(m.mem);
	close(im.fd);
	close(initrd.fd);
}

/* The e820 map: ascending, no overlaps, RAM adds up to what there is. */
static void bz_e820(void **state)
{
	static const uint64_t sizes[] = {MIB(64), MIB(3072), MIB(5000)};
	uint8_t z[BZ_BYTES];
	struct image im;

	(void)state;
	bz_make(z);
	im = image_create(z, sizeof(z));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct machine m;
		uint64_t ram = 0, end = 0, zero;
		unsigned n;

		machine_start(&m, sizes[i]);
		assert_int_equal(load(&m, im.path, NULL, NULL), 0);
		zero = m.cpu.gpr[RSI];
		n = (unsigned)peek(&m, zero + 0x1e8, 1);
		assert_true(n >= 5);
		for (unsigned e = 0; e < n; e++) {
			uint64_t start = peek(&m, zero + 0x2d0 + 20 * e, 8);
			uint64_t bytes = peek(&m, zero + 0x2d8 + 20 * e, 8);

			assert_true(start >= end && bytes > 0);
			end = start + bytes;
			if (peek(&m, zero + 0x2e0 + 20 * e, 4) == 1) {
				ram += bytes;
				/* It is RAM, first byte and last. */
				assert_non_null(ram_at(m.mem, start, 1));
				assert_non_null(ram_at(m.mem, end - 1, 1));
			}
		}
		/* 0x9fc00 to 1 MiB is not for the kernel. */
		assert_int_equal(ram, sizes[i] - (MIB(1) - 0x9fc00));
		mem_destroy(m.mem);
	}
	close(im.fd);
}

static void bz_32(void **state)
{
	uint8_t z[BZ_BYTES];
	struct image im;
	struct machine m;

	(void)state;
	bz_make(z);
	put(z + 0x236, 0, 2); /* no XLF_KERNEL_64 */
	im = image_create(z, sizeof(z));
	machine_start(&m, MIB(64));
	assert_int_equal(load(&m, im.path, NULL, ""), 0);
	assert_int_equal(m.cpu.rip, BZ_PREF);
	assert_int_equal(m.cpu.cr0 & (CR0_PE | CR0_PG), CR0_PE);
	assert_int_equal(m.cpu.efer, 0);
	assert_int_equal(m.cpu.seg[SEG_CS].attr & (SEG_L | SEG_DB), SEG_DB);
	assert_int_equal(m.cpu.seg[SEG_DS].limit, UINT32_MAX);
	assert_int_equal(m.cpu.gpr[RBX] | m.cpu.gpr[RBP] | m.cpu.gpr[RDI], 0);
	mem_destroy(m.mem);
	/* The 64-bit flag does not count before protocol 2.12. */
	bz_make(z);
	put(z + 0x206, 0x20b, 2);
	close(im.fd);
	im = image_create(z, sizeof(z));
	machine_start(&m, MIB(64));
	assert_int_equal(load(&m, im.path, NULL, ""), 0);
	assert_int_equal(m.cpu.rip, BZ_PREF);
	mem_destroy(m.mem);
	close(im.fd);
}

/* A kernel that cannot be moved is loaded at 1 MiB and needs room where it will run, too. */
static void bz_not_relocatable(void **state)
{
	uint8_t z[BZ_BYTES];
	struct image im;
	struct machine m;

	(void)state;
	bz_make(z);
	z[0x234] = 0;
	im = image_create(z, sizeof(z));
	machine_start(&m, MIB(64));
	assert_int_equal(load(&m, im.path, NULL, NULL), 0);
	assert_int_equal(m.cpu.rip, 0x100000 + 0x200);
	mem_destroy(m.mem);
	close(im.fd);
	expect(z, sizeof(z), MIB(17), -ENOMEM, "at least 18 MiB");
}

static void bz_cmdline_limit(void **state)
{
	uint8_t z[BZ_BYTES];
	char line[BZ_CMDLINE + 2];
	struct image im;
	struct machine m;

	(void)state;
	bz_make(z);
	im = image_create(z, sizeof(z));
	memset(line, 'x', sizeof(line));
	line[BZ_CMDLINE] = '\0';
	machine_start(&m, MIB(64));
	assert_int_equal(load(&m, im.path, NULL, line), 0);
	line[BZ_CMDLINE] = 'x';
	line[BZ_CMDLINE + 1] = '\0';
	assert_int_equal(load(&m, im.path, NULL, line), -E2BIG);
	check_line(&m, "shorten");
	mem_destroy(m.mem);
	close(im.fd);
}

static void bz_initrd_limits(void **state)
{
	uint8_t z[BZ_BYTES];
	struct image im, initrd = image_create("x", 1);
	struct machine m;

	(void)state;
	/* Under initrd_addr_max although RAM goes on. */
	bz_make(z);
	put(z + 0x22c, MIB(32) - 1, 4);
	im = image_create(z, sizeof(z));
	machine_start(&m, MIB(64));
	assert_int_equal(load(&m, im.path, initrd.path, NULL), 0);
	assert_int_equal(peek(&m, m.cpu.gpr[RSI] + 0x218, 4), MIB(32) - 4096);
	/* As large as RAM. */
	assert_int_equal(ftruncate(initrd.fd, (off_t)MIB(64)), 0);
	assert_int_equal(load(&m, im.path, initrd.path, NULL), -ENOMEM);
	check_line(&m, "initrd");
	/* Larger than what is left of it. */
	assert_int_equal(ftruncate(initrd.fd, (off_t)MIB(40)), 0);
	assert_int_equal(load(&m, im.path, initrd.path, NULL), -ENOMEM);
	/* Empty, absent. */
	assert_int_equal(ftruncate(initrd.fd, 0), 0);
	assert_int_equal(load(&m, im.path, initrd.path, NULL), -ENODATA);
	assert_int_equal(load(&m, im.path, "/nonexistent/initrd", NULL), -ENOENT);
	check_line(&m, "initrd '/nonexistent/initrd'");
	mem_destroy(m.mem);
	close(im.fd);
	close(initrd.fd);
}

/* A 64-bit kernel that allows it gets an initrd above 4 GiB when it does not fit below. */
static void bz_initrd_high(void **state)
{
	uint8_t z[BZ_BYTES];
	struct image im, initrd = image_create("x", 1);
	struct machine m;
	uint64_t at;

	(void)state;
	bz_make(z);
	put(z + 0x236, 3, 2);
	put(z + 0x22c, MIB(20) - 1, 4);
	im = image_create(z, sizeof(z));
	machine_start(&m, MIB(4096));
	assert_int_equal(ftruncate(initrd.fd, (off_t)MIB(17)), 0);
	assert_int_equal(load(&m, im.path, initrd.path, NULL), 0);
	at = peek(&m, m.cpu.gpr[RSI] + 0x218, 4) | peek(&m, m.cpu.gpr[RSI] + 0x0c0, 4) << 32;
	assert_int_equal(at, MEM_HIGH_BASE + mem_high_bytes(m.mem) - MIB(17));
	mem_destroy(m.mem);
	close(im.fd);
	close(initrd.fd);
}

static void bz_torn(void **state)
{
	uint8_t z[BZ_BYTES];

	(void)state;
	bz_make(z);
	expect(z, BZ_BYTES - 1, MIB(64), 0, "");
	expect(z, BZ_BYTES - 16, MIB(64), -ENODATA, "cut short");
	expect(z, BZ_SETUP, MIB(64), -ENODATA, "cut short");
	expect(z, 0x208, MIB(64), -ENODATA, "cut short");
	expect(z, sizeof(z), MIB(17), -ENOMEM, "at least 18 MiB");
	put(z + 0x1f4, UINT32_MAX, 4);
	expect(z, sizeof(z), MIB(64), -ENODATA, "cut short");
	put(z + 0x1f4, 0, 4);
	expect(z, sizeof(z), MIB(64), -EINVAL, "no code");
	bz_make(z);
	put(z + 0x230, 0x1001, 4);
	expect(z, sizeof(z), MIB(64), -EINVAL, "power of two");
	put(z + 0x230, 0, 4);
	expect(z, sizeof(z), MIB(64), -EINVAL, "power of two");
	bz_make(z);
	put(z + 0x258, UINT64_MAX, 8);
	expect(z, sizeof(z), MIB(64), -EINVAL, "4 GiB");
	bz_make(z);
	put(z + 0x260, UINT32_MAX, 4);
	expect(z, sizeof(z), MIB(64), -ENOMEM, "0x1000000");
	bz_make(z);
	put(z + 0x206, 0x201, 2);
	expect(z, sizeof(z), MIB(64), -ENOEXEC, "2.01");
	bz_make(z);
	z[0x211] = 0;
	expect(z, sizeof(z), MIB(64), -ENOEXEC, "zImage");
	bz_make(z);
	z[0x1f1] = 255;
	expect(z, sizeof(z), MIB(64), -ENODATA, "cut short");
}

/* --- ELF and PVH --- */

enum { ELF_PHDRS = 3, ELF_NOTE_AT = 0x200, ELF_TEXT_AT = 0x300, ELF_BYTES = 0x400 };
enum { ELF_TEXT_BYTES = ELF_BYTES - ELF_TEXT_AT, ELF_BSS_BYTES = 0x1000 };
enum { ELF_PADDR = 0x200000, ELF_VADDR = 0x40200000, ELF_ENTRY = 0x200010 };

static uint8_t *elf_phdr(uint8_t *e, unsigned i)
{
	return e + 64 + 56 * i;
}

static void elf_segment(uint8_t *p, uint32_t type, uint64_t offset, uint64_t vaddr, uint64_t paddr,
			uint64_t filesz, uint64_t memsz)
{
	put(p, type, 4);
	put(p + 8, offset, 8);
	put(p + 16, vaddr, 8);
	put(p + 24, paddr, 8);
	put(p + 32, filesz, 8);
	put(p + 40, memsz, 8);
}

/* 64-bit, one segment with bss, a foreign note and the PVH note. */
static void elf_make(uint8_t *e)
{
	uint8_t *n = e + ELF_NOTE_AT;

	memset(e, 0, ELF_BYTES);
	memcpy(e, "\177ELF\2\1\1", 7);
	put(e + 16, 2, 2);
	put(e + 18, 62, 2);
	put(e + 24, ELF_VADDR, 8);
	put(e + 32, 64, 8);
	put(e + 54, 56, 2);
	put(e + 56, ELF_PHDRS, 2);
	elf_segment(elf_phdr(e, 0), 1, ELF_TEXT_AT, ELF_VADDR, ELF_PADDR, ELF_TEXT_BYTES,
		    ELF_TEXT_BYTES + ELF_BSS_BYTES);
	elf_segment(elf_phdr(e, 1), 4, ELF_NOTE_AT, 0, 0, 44, 44);
	put(n, 4, 4);
	put(n + 4, 5, 4);
	put(n + 8, 1, 4);
	memcpy(n + 12, "GNU", 4);
	n += 24;
	put(n, 4, 4);
	put(n + 4, 4, 4);
	put(n + 8, 18, 4);
	memcpy(n + 12, "Xen", 4);
	put(n + 16, ELF_ENTRY, 4);
	memset(e + ELF_TEXT_AT, 0x90, ELF_TEXT_BYTES);
}

static void pvh(void **state)
{
	uint8_t e[ELF_BYTES], disk[100] = {7};
	struct image im, initrd = image_create(disk, sizeof(disk));
	struct machine m;
	uint64_t info, at;
	char line[16];

	(void)state;
	elf_make(e);
	im = image_create(e, sizeof(e));
	machine_start(&m, MIB(16));
	/* What was in memory before a reboot does not stay in bss. */
	memset(ram_at(m.mem, ELF_PADDR, 0x2000), 0xff, 0x2000);
	assert_int_equal(load(&m, im.path, initrd.path, "a=b c"), 0);
	assert_int_equal(m.cpu.rip, ELF_ENTRY);
	assert_int_equal(m.cpu.cr0, CR0_PE | CR0_ET);
	assert_int_equal(m.cpu.cr4, 0);
	assert_int_equal(m.cpu.tr.limit, 0x67);
	assert_int_equal(peek(&m, ELF_PADDR + ELF_TEXT_BYTES - 1, 1), 0x90);
	assert_int_equal(peek(&m, ELF_PADDR + ELF_TEXT_BYTES, 8), 0);
	assert_int_equal(peek(&m, ELF_PADDR + ELF_TEXT_BYTES + ELF_BSS_BYTES, 1), 0xff);
	info = m.cpu.gpr[RBX];
	assert_int_equal(peek(&m, info, 4), 0x336ec578);
	assert_int_equal(peek(&m, info + 4, 4), 1);
	assert_int_equal(peek(&m, info + 12, 4), 1);
	assert_int_equal(peek(&m, info + 32, 8), LAYOUT_ACPI_BASE);
	at = peek(&m, info + 16, 8);
	assert_int_equal(peek(&m, at + 8, 8), sizeof(disk));
	assert_int_equal(peek(&m, peek(&m, at, 8), 1), 7);
	assert_int_equal(mem_read(m.mem, peek(&m, info + 24, 8), line, sizeof(line)), 0);
	assert_string_equal(line, "a=b c");
	at = peek(&m, info + 40, 8);
	assert_true(peek(&m, info + 48, 4) >= 5);
	assert_int_equal(peek(&m, at + 8, 8), 0x9fc00);
	assert_int_equal(peek(&m, at + 16, 4), 1);
	mem_destroy(m.mem);
	close(im.fd);
	close(initrd.fd);
}

static void elf_torn(void **state)
{
	uint8_t e[ELF_BYTES];

	(void)state;
	elf_make(e);
	expect(e, ELF_BYTES - 1, MIB(16), -ENODATA, "cut short");
	expect(e, 65, MIB(16), -ENODATA, "cut short");
	expect(e, 40, MIB(16), -ENODATA, "cut short");
	put(e + 18, 40, 2);
	expect(e, sizeof(e), MIB(16), -ENOEXEC, "processor");
	elf_make(e);
	put(e + 16, 1, 2);
	expect(e, sizeof(e), MIB(16), -ENOEXEC, "executable");
	elf_make(e);
	put(e + 32, UINT64_MAX - 8, 8);
	expect(e, sizeof(e), MIB(16), -ENODATA, "cut short");
	elf_make(e);
	put(e + 56, 257, 2);
	expect(e, sizeof(e), MIB(16), -ENOEXEC, "program headers");
	elf_make(e);
	put(e + 54, 8, 2);
	expect(e, sizeof(e), MIB(16), -ENOEXEC, "too small");
	elf_make(e);
	put(e + ELF_NOTE_AT + 24 + 8, 17, 4);
	expect(e, sizeof(e), MIB(16), -ENOEXEC, "CONFIG_PVH");
	elf_make(e);
	put(e + ELF_NOTE_AT + 4, UINT32_MAX, 4);
	expect(e, sizeof(e), MIB(16), -ENOEXEC, "CONFIG_PVH");
	elf_make(e);
	put(e + ELF_NOTE_AT + 24 + 16, 0x7000000, 4);
	expect(e, sizeof(e), MIB(16), -EINVAL, "in no segment");
}

static void elf_segments(void **state)
{
	uint8_t e[ELF_BYTES];

	(void)state;
	/* More in the file than in memory. */
	elf_make(e);
	put(elf_phdr(e, 0) + 40, ELF_TEXT_BYTES - 1, 8);
	expect(e, sizeof(e), MIB(16), -EINVAL, "segment");
	/* Offsets and sizes whose sums wrap. */
	elf_make(e);
	put(elf_phdr(e, 0) + 8, UINT64_MAX - 0x10, 8);
	expect(e, sizeof(e), MIB(16), -ENODATA, "cut short");
	elf_make(e);
	put(elf_phdr(e, 0) + 40, UINT64_MAX, 8);
	expect(e, sizeof(e), MIB(16), -ENOMEM, "0x200000");
	elf_make(e);
	put(elf_phdr(e, 0) + 24, UINT64_MAX - 0x10, 8);
	expect(e, sizeof(e), MIB(16), -ENOMEM, "no RAM");
	/* Outside RAM, over the BIOS area, past its end. */
	elf_make(e);
	put(elf_phdr(e, 0) + 24, 0xe0000, 8);
	expect(e, sizeof(e), MIB(16), -ENOMEM, "no RAM");
	elf_make(e);
	put(elf_phdr(e, 0) + 24, MIB(16) - 0x100, 8);
	expect(e, sizeof(e), MIB(16), -ENOMEM, "at least 17 MiB");
	/* Two that overlap; two that touch are fine. */
	elf_make(e);
	elf_segment(elf_phdr(e, 2), 1, ELF_TEXT_AT, 0, ELF_PADDR + 0x80, 0x10, 0x10);
	expect(e, sizeof(e), MIB(16), -EEXIST, "overlaps");
	elf_segment(elf_phdr(e, 2), 1, ELF_TEXT_AT, 0, ELF_PADDR - 0x10, 0x10, 0x10);
	expect(e, sizeof(e), MIB(16), 0, "");
}

/* --- Multiboot --- */

enum { MB_BYTES = 0x400, MB_LOAD = 0x100000, MB_HEADER_AT = 0x40, MB_ENTRY = 0x100080 };

static void mb_header(uint8_t *h, uint32_t flags)
{
	put(h, 0x1badb002, 4);
	put(h + 4, flags, 4);
	put(h + 8, (uint32_t) - (0x1badb002 + flags), 4);
}

/* A flat file that says itself where it goes, with 4 KiB of bss. */
static void mb_make(uint8_t *k)
{
	uint8_t *h = k + MB_HEADER_AT;

	memset(k, 0x90, MB_BYTES);
	mb_header(h, 0x10003);
	put(h + 12, MB_LOAD + MB_HEADER_AT, 4);
	put(h + 16, MB_LOAD, 4);
	put(h + 20, MB_LOAD + MB_BYTES, 4);
	put(h + 24, MB_LOAD + MB_BYTES + 0x1000, 4);
	put(h + 28, MB_ENTRY, 4);
}

static void check_string(const struct machine *m, uint64_t gpa, const char *text)
{
	char line[128] = "";

	assert_int_equal(mem_read(m->mem, gpa, line, strlen(text) + 1), 0);
	assert_string_equal(line, text);
}

static void multiboot(void **state)
{
	uint8_t k[MB_BYTES];
	struct image im, a = image_create("AAAA", 4), c = image_create("CC", 2);
	char modules[256], first[128];
	struct machine m;
	uint64_t info, mods, at, end;

	(void)state;
	mb_make(k);
	im = image_create(k, sizeof(k));
	machine_start(&m, MIB(16));
	snprintf(first, sizeof(first), "%s one two", a.path);
	snprintf(modules, sizeof(modules), "%s,%s", first, c.path);
	assert_int_equal(load(&m, im.path, modules, "root=x"), 0);
	assert_int_equal(m.cpu.rip, MB_ENTRY);
	assert_int_equal(m.cpu.gpr[RAX], 0x2badb002);
	assert_int_equal(m.cpu.cr0, CR0_PE | CR0_ET);
	assert_int_equal(m.cpu.rflags & (FLAG_IF | FLAG_VM), 0);
	for (int i = 0; i < SEG_NR; i++) {
		assert_int_equal(m.cpu.seg[i].base, 0);
		assert_int_equal(m.cpu.seg[i].limit, UINT32_MAX);
		assert_int_equal(m.cpu.seg[i].attr & SEG_DB, SEG_DB);
	}
	info = m.cpu.gpr[RBX];
	assert_int_equal(peek(&m, info, 4), 0x24d);
	assert_int_equal(peek(&m, info + 4, 4), 639);
	assert_int_equal(peek(&m, info + 8, 4), 15 * 1024);
	check_string(&m, peek(&m, info + 16, 4), "root=x");
	check_string(&m, peek(&m, info + 64, 4), "Hanok " HANOK_VERSION);
	/* Modules: in order, on pages, after the kernel's bss, with their strings. */
	assert_int_equal(peek(&m, info + 20, 4), 2);
	mods = peek(&m, info + 24, 4);
	at = peek(&m, mods, 4);
	end = peek(&m, mods + 4, 4);
	assert_true(at >= MB_LOAD + MB_BYTES + 0x1000 && at % 4096 == 0);
	assert_int_equal(end - at, 4);
	assert_int_equal(peek(&m, at, 4), 0x41414141);
	check_string(&m, peek(&m, mods + 8, 4), first);
	at = peek(&m, mods + 16, 4);
	assert_true(at >= end && at % 4096 == 0);
	assert_int_equal(peek(&m, at, 2), 0x4343);
	check_string(&m, peek(&m, mods + 24, 4), c.path);
	/* The memory map's first entry. */
	at = peek(&m, info + 48, 4);
	assert_int_equal(peek(&m, info + 44, 4) % 24, 0);
	assert_int_equal(peek(&m, at, 4), 20);
	assert_int_equal(peek(&m, at + 12, 8), 0x9fc00);
	assert_int_equal(peek(&m, at + 20, 4), 1);
	mem_destroy(m.mem);
	close(im.fd);
	close(a.fd);
	close(c.fd);
}

/* ELF with a Multiboot header and no PVH note; the entry point is virtual. */
static void multiboot_elf(void **state)
{
	uint8_t e[ELF_BYTES];
	struct image im;
	struct machine m;

	(void)state;
	elf_make(e);
	put(e + ELF_NOTE_AT + 24 + 8, 17, 4);
	mb_header(e + ELF_TEXT_AT, 3);
	im = image_create(e, sizeof(e));
	machine_start(&m, MIB(16));
	assert_int_equal(load(&m, im.path, NULL, NULL), 0);
	assert_int_equal(m.cpu.rip, ELF_PADDR);
	assert_int_equal(m.cpu.gpr[RAX], 0x2badb002);
	assert_int_equal(peek(&m, m.cpu.gpr[RBX], 4) & 8, 0); /* no modules */
	check_string(&m, peek(&m, m.cpu.gpr[RBX] + 16, 4), "");
	mem_destroy(m.mem);
	close(im.fd);
}

static void multiboot_torn(void **state)
{
	uint8_t k[MB_BYTES], *h = k + MB_HEADER_AT;
	struct image im;
	struct machine m;

	(void)state;
	mb_make(k);
	expect(k, MB_BYTES - 1, MIB(16), -ENODATA, "cut short");
	expect(k, MB_HEADER_AT + 16, MIB(16), -ENODATA, "cut short");
	put(h + 8, 0, 4); /* a wrong checksum is no header */
	expect(k, sizeof(k), MIB(16), -ENOEXEC, "no kernel");
	mb_make(k);
	mb_header(h, 3); /* no load addresses, no ELF */
	expect(k, sizeof(k), MIB(16), -ENOEXEC, "ELF");
	mb_make(k);
	mb_header(h, 0x10013);
	expect(k, sizeof(k), MIB(16), -ENOEXEC, "0x10");
	mb_make(k);
	put(h + 12, MB_LOAD - 4, 4);
	expect(k, sizeof(k), MIB(16), -EINVAL, "damaged");
	put(h + 12, MB_LOAD + MB_HEADER_AT + 4, 4);
	expect(k, sizeof(k), MIB(16), -EINVAL, "damaged");
	mb_make(k);
	put(h + 20, MB_LOAD - 1, 4);
	expect(k, sizeof(k), MIB(16), -EINVAL, "out of order");
	mb_make(k);
	put(h + 24, UINT32_MAX, 4);
	expect(k, sizeof(k), MIB(16), -ENOMEM, "Multiboot image");
	mb_make(k);
	put(h + 28, MB_LOAD - 1, 4);
	expect(k, sizeof(k), MIB(16), -EINVAL, "entry point");
	mb_make(k);
	im = image_create(k, sizeof(k));
	machine_start(&m, MIB(16));
	assert_int_equal(load(&m, im.path, "/nonexistent/module args", NULL), -ENOENT);
	check_line(&m, "module '/nonexistent/module'");
	mem_destroy(m.mem);
	close(im.fd);
}

/* --- files that are no kernels --- */

static void not_kernels(void **state)
{
	static const char *const paths[] = {"/", "/dev/null", "/nonexistent/kernel"};
	static const int codes[] = {-EISDIR, -EINVAL, -ENOENT};
	struct machine m;
	char fifo[] = "/tmp/hanok-test-fifo-XXXXXX";

	(void)state;
	machine_start(&m, MIB(16));
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		assert_int_equal(load(&m, paths[i], NULL, NULL), codes[i]);
		check_line(&m, paths[i]);
	}
	/* A FIFO that nobody writes to does not hang the loader. */
	close(mkstemp(fifo));
	unlink(fifo);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(load(&m, fifo, NULL, NULL), -EINVAL);
	unlink(fifo);
	mem_destroy(m.mem);
	expect("", 0, MIB(16), -ENODATA, "empty");
	expect("x", 1, MIB(16), -ENOEXEC, "no kernel");
	expect("#!/bin/sh\n", 10, MIB(16), -ENOEXEC, "no kernel");
	expect("\x1f\x8b\x08", 3, MIB(16), -ENOEXEC, "gzip");
	expect("070701", 6, MIB(16), -ENOEXEC, "initrd");
}

static void too_many_cpus(void **state)
{
	uint8_t z[BZ_BYTES];
	struct boot_source src = {.cpus = 100000};
	struct image im;
	struct machine m;

	(void)state;
	bz_make(z);
	im = image_create(z, sizeof(z));
	src.kernel_path = im.path;
	machine_start(&m, MIB(64));
	assert_int_equal(boot_load(&src, m.mem, &m.cpu, &m.err), -EINVAL);
	assert_non_null(strstr(m.err.text, "100000"));
	mem_destroy(m.mem);
	close(im.fd);
}

/* Debian's kernels, if tools/guest.sh has been run: and on a machine too small for them. */
static void real_kernels(void **state)
{
	const char *cache = getenv("HANOK_CACHE"), *home = getenv("HOME");
	char pattern[512];
	glob_t found = {0};

	(void)state;
	if (cache)
		snprintf(pattern, sizeof(pattern), "%s/guests/*/vmlinuz-*", cache);
	else
		snprintf(pattern, sizeof(pattern), "%s/.cache/hanok/guests/*/vmlinuz-*",
			 home ? home : "");
	if (glob(pattern, 0, NULL, &found)) {
		print_message("no real kernel in %s: run tools/guest.sh\n", pattern);
		skip();
	}
	for (size_t i = 0; i < found.gl_pathc; i++) {
		const char *path = found.gl_pathv[i];
		bool is64 = strstr(path, "amd64");
		struct machine m;

		machine_start(&m, MIB(512));
		assert_int_equal(load(&m, path, NULL, "console=ttyS0"), 0);
		assert_int_equal(cpu_in_64bit(&m.cpu), is64);
		assert_int_equal(m.cpu.rip, 0x1000000 + (is64 ? 0x200 : 0));
		mem_destroy(m.mem);
		machine_start(&m, MIB(24));
		assert_int_equal(load(&m, path, NULL, NULL), -ENOMEM);
		check_line(&m, "at least");
		mem_destroy(m.mem);
	}
	globfree(&found);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bz_64),
		cmocka_unit_test(bz_e820),
		cmocka_unit_test(bz_32),
		cmocka_unit_test(bz_not_relocatable),
		cmocka_unit_test(bz_cmdline_limit),
		cmocka_unit_test(bz_initrd_limits),
		cmocka_unit_test(bz_initrd_high),
		cmocka_unit_test(bz_torn),
		cmocka_unit_test(pvh),
		cmocka_unit_test(elf_torn),
		cmocka_unit_test(elf_segments),
		cmocka_unit_test(multiboot),
		cmocka_unit_test(multiboot_elf),
		cmocka_unit_test(multiboot_torn),
		cmocka_unit_test(not_kernels),
		cmocka_unit_test(too_many_cpus),
		cmocka_unit_test(real_kernels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
