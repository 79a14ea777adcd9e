/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/random.h>

#include "machine/boot/internal.h"

/*
 * Linux bzImage, by Documentation/arch/x86/boot.rst (boot protocol 2.02 to 2.15) and zero-page.rst.
 * The file is a boot sector and real-mode code (not used here), then the protected-mode code, which
 * is a decompressor with the kernel in it. Offsets below are the same in the file and in
 * boot_params, the "zero page" that the kernel is handed.
 *
 * A 64-bit kernel of protocol 2.12 with XLF_KERNEL_64 is entered in long mode 200h after its start;
 * any other in flat protected mode at its start. The kernel decompresses itself to pref_address (or
 * where it was loaded, if that is higher) and needs init_size bytes there, so there is no use in
 * loading lower: with too little RAM it is refused.
 */
enum {
	H_START = 0x1f1, /* setup_header begins */
	H_SETUP_SECTS = 0x1f1,
	H_SYSSIZE = 0x1f4,
	H_VID_MODE = 0x1fa,
	H_BOOT_FLAG = 0x1fe,
	H_JUMP_LEN = 0x201, /* the header ends at 202h + this byte */
	H_MAGIC = 0x202,
	H_VERSION = 0x206,
	H_TYPE_OF_LOADER = 0x210,
	H_LOADFLAGS = 0x211,
	H_CODE32_START = 0x214,
	H_RAMDISK_IMAGE = 0x218,
	H_RAMDISK_SIZE = 0x21c,
	H_CMD_LINE_PTR = 0x228,
	H_INITRD_ADDR_MAX = 0x22c,
	H_KERNEL_ALIGNMENT = 0x230,
	H_RELOCATABLE = 0x234,
	H_XLOADFLAGS = 0x236,
	H_CMDLINE_SIZE = 0x238,
	H_SETUP_DATA = 0x250,
	H_PREF_ADDRESS = 0x258,
	H_INIT_SIZE = 0x260,
	H_END_MAX = 0x290, /* boot_params goes on with something else */
	/* boot_params around the header (zero-page.rst) */
	P_ACPI_RSDP = 0x070,
	P_EXT_RAMDISK_IMAGE = 0x0c0,
	P_E820_ENTRIES = 0x1e8,
	P_E820_TABLE = 0x2d0,
	P_E820_BYTES = 20,
	P_BYTES = 4096,
};
enum { LOADED_HIGH = 1, LOADER_UNDEFINED = 0xff, XLF_KERNEL_64 = 1, XLF_ABOVE_4G = 2 };
enum { ENTRY64_OFFSET = 0x200, SECTOR = 512, PARAGRAPH = 16, DEFAULT_SETUP_SECTS = 4 };
enum { SETUP_RNG_SEED = 9, SEED_BYTES = 32, VID_MODE_NORMAL = 0xffff };
#define MAGIC_HDRS UINT32_C(0x53726448)
#define BOOT_FLAG 0xaa55
#define LOAD_DEFAULT UINT64_C(0x100000)
#define INITRD_MAX_DEFAULT UINT64_C(0x37ffffff) /* before protocol 2.03 */
#define CMDLINE_MAX_DEFAULT 255			/* before protocol 2.06 */

/* The header's fields, with defaults for what the version does not have. */
struct bzimage {
	unsigned version;     /* 20Fh is 2.15 */
	uint64_t code_offset; /* in the file, of the protected-mode code */
	uint64_t code_bytes;
	uint64_t header_end;
	uint64_t load;
	uint64_t room_start, room_end; /* what the kernel needs before it reads e820 */
	uint64_t initrd_max;
	uint64_t cmdline_max;
	bool entry64, initrd_above_4g;
};

bool bzimage_recognise(const uint8_t *head, size_t len)
{
	return len > H_VERSION + 1 && get16(head + H_BOOT_FLAG) == BOOT_FLAG &&
	       get32(head + H_MAGIC) == MAGIC_HDRS;
}

static int check_version(struct boot *b, const uint8_t *head, size_t len, struct bzimage *z)
{
	z->version = get16(head + H_VERSION);
	z->header_end = H_MAGIC + (uint64_t)head[H_JUMP_LEN];
	if (z->header_end > H_END_MAX)
		z->header_end = H_END_MAX;
	if (z->version < 0x202)
		return boot_file_fail(
			&b->kernel, -ENOEXEC,
			"its boot protocol is %u.%02u, older than 2.02 (Linux 2.4); use "
			"a newer kernel",
			z->version >> 8, z->version & 0xff);
	if (len < H_END_MAX)
		return boot_file_fail(&b->kernel, -ENODATA,
				      "is cut short: %zu bytes cannot hold a bzImage; get it anew",
				      len);
	if (!(head[H_LOADFLAGS] & LOADED_HIGH))
		return boot_file_fail(&b->kernel, -ENOEXEC,
				      "is a zImage, which loads below 1 MiB; use a bzImage");
	return 0;
}

/* Where the code is in the file. syssize is trusted from 2.04 on; what follows is signatures. */
static int find_code(struct boot *b, const uint8_t *head, struct bzimage *z)
{
	unsigned sects = head[H_SETUP_SECTS] ? head[H_SETUP_SECTS] : DEFAULT_SETUP_SECTS;
	uint64_t promised = (uint64_t)get32(head + H_SYSSIZE) * PARAGRAPH;
	uint64_t held;

	z->code_offset = (uint64_t)(sects + 1) * SECTOR;
	held = b->kernel.bytes > z->code_offset ? b->kernel.bytes - z->code_offset : 0;
	if (z->version < 0x204)
		promised = held;
	/* The last paragraph may be partly there. */
	if (!held || promised >= held + PARAGRAPH)
		return boot_file_fail(
			&b->kernel, -ENODATA,
			"is cut short: its header promises %llu bytes of code, %llu are "
			"there; get it anew",
			(unsigned long long)promised, (unsigned long long)held);
	if (!promised)
		return boot_file_fail(&b->kernel, -EINVAL, "its header promises no code at all");
	z->code_bytes = promised < held ? promised : held;
	return 0;
}

/* load and room, from pref_address, init_size, kernel_alignment, relocatable_kernel. */
static int find_room(struct boot *b, const uint8_t *head, struct bzimage *z)
{
	bool relocatable = z->version >= 0x205 && head[H_RELOCATABLE];
	uint64_t align = relocatable ? get32(head + H_KERNEL_ALIGNMENT) : 1;
	uint64_t pref = z->version >= 0x20a ? get64(head + H_PREF_ADDRESS) : 0;
	uint64_t need = z->version >= 0x20a ? get32(head + H_INIT_SIZE) : 0;
	uint64_t run;

	if (!align || (align & (align - 1)))
		return boot_file_fail(
			&b->kernel, -EINVAL,
			"its header's kernel_alignment, 0x%llx, is no power of two; the "
			"file is damaged",
			(unsigned long long)align);
	if (pref >= MEM_HIGH_BASE)
		return boot_file_fail(&b->kernel, -EINVAL,
				      "wants to run at 0x%llx, above 4 GiB; the file is damaged",
				      (unsigned long long)pref);
	z->load = LOAD_DEFAULT;
	if (relocatable) {
		if (pref > z->load)
			z->load = pref;
		z->load = (z->load + align - 1) & -align;
	}
	run = relocatable || !pref ? z->load : pref;
	if (need < z->code_bytes)
		need = z->code_bytes;
	z->room_start = run < z->load ? run : z->load;
	z->room_end = run + need;
	if (z->room_end < z->load + z->code_bytes)
		z->room_end = z->load + z->code_bytes;
	return 0;
}

static int parse(struct boot *b, const uint8_t *head, size_t len, struct bzimage *z)
{
	unsigned xload;
	int rc = check_version(b, head, len, z);

	if (!rc)
		rc = find_code(b, head, z);
	if (!rc)
		rc = find_room(b, head, z);
	if (rc)
		return rc;
	xload = z->version >= 0x20c ? get16(head + H_XLOADFLAGS) : 0;
	z->entry64 = xload & XLF_KERNEL_64;
	z->initrd_above_4g = z->entry64 && (xload & XLF_ABOVE_4G);
	z->initrd_max = z->version >= 0x203 ? get32(head + H_INITRD_ADDR_MAX) : INITRD_MAX_DEFAULT;
	z->cmdline_max = z->version >= 0x206 ? get32(head + H_CMDLINE_SIZE) : CMDLINE_MAX_DEFAULT;
	return 0;
}

static int put_cmdline(struct boot *b, const struct bzimage *z, uint8_t *params)
{
	const char *line = boot_cmdline(b);
	uint64_t gpa;
	int rc;

	if (strlen(line) > z->cmdline_max)
		return boot_file_fail(
			&b->kernel, -E2BIG,
			"takes a command line of at most %llu bytes, this one has %zu; "
			"shorten it",
			(unsigned long long)z->cmdline_max, strlen(line));
	rc = boot_put_low(b, line, strlen(line) + 1, PARAGRAPH, BOOT_FROM_BOTTOM,
			  "the command line", &gpa);
	if (!rc)
		put32(params + H_CMD_LINE_PTR, (uint32_t)gpa);
	return rc;
}

static int put_initrd(struct boot *b, const struct bzimage *z, uint8_t *params)
{
	uint64_t gpa, size;
	uint64_t at_worst = z->initrd_above_4g ? UINT64_MAX - 1 : z->initrd_max;
	int rc;

	if (!b->src->initrd_path)
		return 0;
	rc = boot_load_file(b, "initrd", b->src->initrd_path, LOAD_DEFAULT, z->initrd_max, at_worst,
			    BOOT_FROM_TOP, &gpa, &size);
	if (rc)
		return rc;
	put32(params + H_RAMDISK_IMAGE, (uint32_t)gpa);
	put32(params + H_RAMDISK_SIZE, (uint32_t)size);
	put32(params + P_EXT_RAMDISK_IMAGE, (uint32_t)(gpa >> 32));
	put32(params + P_EXT_RAMDISK_IMAGE + 4, (uint32_t)(size >> 32));
	return 0;
}

/* struct setup_data: next, type, len, data. Entropy before the guest has any of its own. */
static int put_seed(struct boot *b, const struct bzimage *z, uint8_t *params)
{
	enum { TYPE = 8, LEN = 12, DATA = 16 };
	uint8_t node[DATA + SEED_BYTES] = {0};
	uint64_t gpa;
	int rc;

	if (z->version < 0x209)
		return 0;
	put32(node + TYPE, SETUP_RNG_SEED);
	put32(node + LEN, SEED_BYTES);
	if (getrandom(node + DATA, SEED_BYTES, 0) != SEED_BYTES)
		return 0; /* optional for the kernel */
	rc = boot_put_low(b, node, sizeof(node), PARAGRAPH, BOOT_FROM_BOTTOM, "the random seed",
			  &gpa);
	if (!rc)
		put64(params + H_SETUP_DATA, gpa);
	return rc;
}

static void put_e820(struct boot *b, uint8_t *params)
{
	struct e820_entry map[E820_MAX];
	unsigned n = e820_build(b->mem, map);

	params[P_E820_ENTRIES] = (uint8_t)n;
	for (unsigned i = 0; i < n; i++) {
		uint8_t *e = params + P_E820_TABLE + (size_t)i * P_E820_BYTES;

		put64(e, map[i].start);
		put64(e + 8, map[i].bytes);
		put32(e + 16, map[i].type);
	}
}

static int enter(struct boot *b, const struct bzimage *z, uint64_t params)
{
	uint64_t gdt, cr3;
	int rc = boot_put_gdt(b, z->entry64, &gdt);

	if (!rc && z->entry64)
		rc = boot_put_page_tables(b, &cr3);
	if (rc)
		return rc;
	if (z->entry64) {
		entry_long64(b->bsp, z->load + ENTRY64_OFFSET, cr3, gdt);
	} else {
		entry_flat32(b->bsp, z->load);
		b->bsp->gdt = (struct table_reg){BOOT_GDT_BYTES - 1, gdt};
	}
	b->bsp->gpr[RSI] = params;
	return 0;
}

int bzimage_load(struct boot *b, const uint8_t *head, size_t len)
{
	struct bzimage z = {0};
	uint8_t params[P_BYTES] = {0};
	uint64_t gpa;
	int rc = parse(b, head, len, &z);

	if (!rc)
		rc = boot_claim(b, &b->kernel, z.room_start, z.room_end - z.room_start,
				"the kernel");
	if (!rc)
		rc = boot_file_to_ram(b, &b->kernel, z.code_offset, z.load, z.code_bytes);
	if (rc)
		return rc;
	memcpy(params + H_START, head + H_START, z.header_end - H_START);
	params[H_TYPE_OF_LOADER] = LOADER_UNDEFINED;
	put16(params + H_VID_MODE, VID_MODE_NORMAL);
	put32(params + H_CODE32_START, (uint32_t)z.load);
	put32(params + H_RAMDISK_IMAGE, 0);
	put32(params + H_RAMDISK_SIZE, 0);
	put64(params + P_ACPI_RSDP, b->rsdp);
	put_e820(b, params);
	rc = put_cmdline(b, &z, params);
	if (!rc)
		rc = put_seed(b, &z, params);
	if (!rc)
		rc = put_initrd(b, &z, params);
	if (!rc)
		rc = boot_put_low(b, params, sizeof(params), MEM_PAGE_BYTES, BOOT_FROM_BOTTOM,
				  "the boot parameters", &gpa);
	if (!rc)
		rc = enter(b, &z, gpa);
	return rc;
}
