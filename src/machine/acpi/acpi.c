/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/acpi/acpi.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/acpi/dsdt.hex"
#include "machine/acpi/hpet.hex"
#include "machine/layout.h"

/*
 * ACPI tables, theory of operation. Section numbers are those of ACPI 6.4.
 *
 *   RSDP -> XSDT (and RSDT) -> FADT -> FACS, DSDT
 *                              MADT   processors and interrupt controllers
 *                              MCFG   the PCI ECAM window
 *                              SSDT   one device a processor, built here
 *                              HPET, SSDT   on a board that has one
 *
 * The tables are put together in a buffer that mirrors guest RAM at LAYOUT_ACPI_BASE, so a table's
 * guest-physical address is its offset plus that base, then copied to the guest in one go. The AML
 * comes from dsdt.asl and hpet.asl by way of iasl at build time. The FACS, which the OS may write,
 * has the area's last page for itself: the memory map calls that page NVS and the rest ACPI data.
 */
enum {
	FACS_OFFSET = LAYOUT_ACPI_BYTES - MEM_PAGE_BYTES,
	TABLE_ALIGN = 16,
	ROOT_MAX = 8, /* tables that the XSDT names */
	/* The header that all tables but RSDP and FACS begin with (5.2.6). */
	HEADER_BYTES = 36,
	AT_LENGTH = 4,
	AT_REVISION = 8,
	AT_CHECKSUM = 9,
	AT_OEM_ID = 10,
	AT_OEM_TABLE_ID = 16,
	AT_OEM_REVISION = 24,
	AT_CREATOR_ID = 28,
	AT_CREATOR_REVISION = 32,
};

/* MADT entries (5.2.12) and a processor's device in the SSDT. */
enum {
	MADT_LAPIC = 0,
	MADT_IOAPIC = 1,
	MADT_OVERRIDE = 2,
	MADT_LAPIC_NMI = 4,
	MADT_X2APIC = 9,
	MADT_X2APIC_NMI = 10,
	MADT_X2APIC_BYTES = 16, /* the longest of a processor's entries */
	XAPIC_ID_MAX = 254,	/* FFh is broadcast */
	CPU_DEVICE_BYTES = 32,
	OTHER_BYTES = 2048, /* all the fixed parts together */
};

/* So nothing below can run out of room. */
static_assert(sizeof(dsdt_aml_code) + sizeof(hpet_aml_code) + OTHER_BYTES +
			      ACPI_CPUS_MAX * (MADT_X2APIC_BYTES + CPU_DEVICE_BYTES) <=
		      FACS_OFFSET,
	      "the ACPI area holds the tables of the largest machine");

struct builder {
	const struct acpi_board *board;
	uint8_t *bytes; /* LAYOUT_ACPI_BYTES, zeroed */
	size_t used;
	size_t table; /* offset of the open table */
	uint64_t root[ROOT_MAX];
	unsigned root_nr;
	uint64_t dsdt; /* gpa */
};

static void put(uint8_t *to, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		to[i] = (uint8_t)(value >> (8 * i));
}

static uint8_t checksum(const uint8_t *bytes, size_t len)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += bytes[i];
	return (uint8_t)-sum;
}

static uint64_t gpa_of(size_t offset)
{
	return LAYOUT_ACPI_BASE + offset;
}

/* Zeroed bytes at the end of the open table. */
static uint8_t *extend(struct builder *b, size_t bytes)
{
	uint8_t *at = b->bytes + b->used;

	b->used += bytes;
	return at;
}

static void append(struct builder *b, uint64_t value, unsigned bytes)
{
	put(extend(b, bytes), value, bytes);
}

static void append_bytes(struct builder *b, const void *data, size_t len)
{
	memcpy(extend(b, len), data, len);
}

static void table_begin(struct builder *b, const char *signature, uint8_t revision)
{
	uint8_t *h;

	b->used = (b->used + TABLE_ALIGN - 1) & -(size_t)TABLE_ALIGN;
	b->table = b->used;
	h = extend(b, HEADER_BYTES);
	memcpy(h, signature, 4);
	h[AT_REVISION] = revision;
	memcpy(h + AT_OEM_ID, "HANOK ", 6);
	memcpy(h + AT_OEM_TABLE_ID, "HANOKPC ", 8);
	put(h + AT_OEM_REVISION, 1, 4);
	memcpy(h + AT_CREATOR_ID, "HNOK", 4);
	put(h + AT_CREATOR_REVISION, 1, 4);
}

/* Return: the table's gpa. */
static uint64_t table_end(struct builder *b)
{
	uint8_t *h = b->bytes + b->table;
	size_t len = b->used - b->table;

	put(h + AT_LENGTH, len, 4);
	h[AT_CHECKSUM] = 0;
	h[AT_CHECKSUM] = checksum(h, len);
	return gpa_of(b->table);
}

static void root_add(struct builder *b, uint64_t gpa)
{
	b->root[b->root_nr++] = gpa;
}

/* A table as iasl made it, checksum and all. Return: its gpa. */
static uint64_t table_copy(struct builder *b, const unsigned char *aml, size_t len)
{
	b->used = (b->used + TABLE_ALIGN - 1) & -(size_t)TABLE_ALIGN;
	b->table = b->used;
	append_bytes(b, aml, len);
	return gpa_of(b->table);
}

/* Firmware ACPI control structure (5.2.10): no header, no checksum. */
static void build_facs(struct builder *b)
{
	enum { FACS_BYTES = 64, AT_VERSION = 32, VERSION = 2 };
	uint8_t *f = b->bytes + FACS_OFFSET;

	memcpy(f, "FACS", 4);
	put(f + AT_LENGTH, FACS_BYTES, 4);
	f[AT_VERSION] = VERSION;
}

/* Generic address structure in I/O space (5.2.3.2). */
static void put_gas(uint8_t *to, uint16_t port, unsigned bytes)
{
	enum { SPACE_IO = 1, BYTE_ACCESS = 1, WORD_ACCESS = 2, DWORD_ACCESS = 3 };

	to[0] = SPACE_IO;
	to[1] = (uint8_t)(bytes * 8);
	to[3] = bytes == 1 ? BYTE_ACCESS : bytes == 2 ? WORD_ACCESS : DWORD_ACCESS;
	put(to + 4, port, 8);
}

/*
 * Fixed ACPI description table (5.2.9), offsets from its table 5.9. SMI_CMD is 0: the machine is
 * always in ACPI mode (SCI_EN reads 1). No bit for the power button: it is a fixed feature.
 */
static void build_fadt(struct builder *b)
{
	enum { FADT_BYTES = 276, REVISION = 6, MINOR = 4, DESKTOP = 1, RESET_SYSTEM = 6 };
	enum { PM1_EVT_BYTES = 4, PM1_CNT_BYTES = 2, PM_TMR_BYTES = 4 };
	enum { NO_C2 = 101, NO_C3 = 1001, CMOS_CENTURY = 0x32 };
	enum { LEGACY_DEVICES = 1, HAS_8042 = 2, NO_VGA = 4 }; /* 5.2.9.3 */
	enum { WBINVD = 1, PROC_C1 = 4, SLP_BUTTON = 32, FIX_RTC = 64, RESET_REG_SUP = 1 << 10 };
	uint8_t *f;

	table_begin(b, "FACP", REVISION);
	extend(b, FADT_BYTES - HEADER_BYTES);
	f = b->bytes + b->table;
	put(f + 36, gpa_of(FACS_OFFSET), 4);
	put(f + 40, b->dsdt, 4);
	f[45] = DESKTOP;
	put(f + 46, LAYOUT_IRQ_SCI, 2);
	put(f + 56, LAYOUT_PM1A_EVT, 4);
	put(f + 64, LAYOUT_PM1A_CNT, 4);
	put(f + 76, LAYOUT_PM_TMR, 4);
	put(f + 80, LAYOUT_GPE0, 4);
	f[88] = PM1_EVT_BYTES;
	f[89] = PM1_CNT_BYTES;
	f[91] = PM_TMR_BYTES;
	f[92] = LAYOUT_GPE0_BYTES;
	put(f + 96, NO_C2, 2);
	put(f + 98, NO_C3, 2);
	f[108] = CMOS_CENTURY;
	put(f + 109, LEGACY_DEVICES | HAS_8042 | NO_VGA, 2);
	put(f + 112, WBINVD | PROC_C1 | SLP_BUTTON | FIX_RTC | RESET_REG_SUP, 4);
	put_gas(f + 116, LAYOUT_RESET, 1);
	f[128] = RESET_SYSTEM;
	f[131] = MINOR;
	put(f + 140, b->dsdt, 8);
	put_gas(f + 148, LAYOUT_PM1A_EVT, PM1_EVT_BYTES);
	put_gas(f + 172, LAYOUT_PM1A_CNT, PM1_CNT_BYTES);
	put_gas(f + 208, LAYOUT_PM_TMR, PM_TMR_BYTES);
	put_gas(f + 220, LAYOUT_GPE0, LAYOUT_GPE0_BYTES);
	root_add(b, table_end(b));
}

static void madt_processor(struct builder *b, unsigned cpu)
{
	enum { ENABLED = 1 };

	if (cpu > XAPIC_ID_MAX) {
		append(b, MADT_X2APIC | MADT_X2APIC_BYTES << 8, 4);
		append(b, cpu, 4);
		append(b, ENABLED, 4);
		append(b, cpu, 4);
		return;
	}
	append(b, MADT_LAPIC | 8 << 8, 2);
	append(b, cpu, 1); /* _UID */
	append(b, cpu, 1); /* APIC id */
	append(b, ENABLED, 4);
}

/* Interrupt source override (5.2.12.5); flags are those of table 5.26. */
static void madt_override(struct builder *b, unsigned irq, unsigned gsi, unsigned flags)
{
	append(b, MADT_OVERRIDE | 10 << 8, 2);
	append(b, 0, 1); /* bus: ISA */
	append(b, irq, 1);
	append(b, gsi, 4);
	append(b, flags, 2);
}

/* Multiple APIC description table (5.2.12). */
static void build_madt(struct builder *b)
{
	enum { REVISION = 5, PCAT_COMPAT = 1, PIT_GSI = 2, LINT1 = 1 };
	enum { AS_THE_BUS = 0, HIGH_LEVEL = 0xd, ALL_UIDS = 0xff };

	table_begin(b, "APIC", REVISION);
	append(b, LAYOUT_LAPIC, 4);
	append(b, PCAT_COMPAT, 4); /* a PC has a pair of 8259s too */
	for (unsigned cpu = 0; cpu < b->board->cpus; cpu++)
		madt_processor(b, cpu);
	append(b, MADT_IOAPIC | 12 << 8, 2);
	append(b, LAYOUT_IOAPIC_ID, 2);
	append(b, LAYOUT_IOAPIC, 4);
	append(b, 0, 4); /* its pin 0 is GSI 0 */
	madt_override(b, LAYOUT_IRQ_PIT, PIT_GSI, AS_THE_BUS);
	madt_override(b, LAYOUT_IRQ_SCI, LAYOUT_IRQ_SCI, HIGH_LEVEL);
	append(b, MADT_LAPIC_NMI | 6 << 8, 2);
	append(b, ALL_UIDS, 1);
	append(b, AS_THE_BUS, 2);
	append(b, LINT1, 1);
	if (b->board->cpus - 1 > XAPIC_ID_MAX) {
		append(b, MADT_X2APIC_NMI | 12 << 8, 2);
		append(b, AS_THE_BUS, 2);
		append(b, UINT32_MAX, 4);
		append(b, LINT1, 4);
	}
	root_add(b, table_end(b));
}

/* Memory-mapped configuration space (PCI Firmware Specification 3.2, 4.1.2). */
static void build_mcfg(struct builder *b)
{
	table_begin(b, "MCFG", 1);
	append(b, 0, 8);
	append(b, LAYOUT_ECAM_BASE, 8);
	append(b, 0, 2);			     /* segment */
	append(b, 0, 1);			     /* first bus */
	append(b, (LAYOUT_ECAM_BYTES >> 20) - 1, 1); /* last bus */
	append(b, 0, 4);
	root_add(b, table_end(b));
}

/* IA-PC HPET Specification 1.0a, 3.2.4. */
static void build_hpet(struct builder *b)
{
	enum { MIN_TICK = 0x80 };
	/* Vendor 8086h, legacy replacement, 64-bit counter, three comparators, revision 1. */
	const uint32_t block_id = 0x8086a201;

	table_begin(b, "HPET", 1);
	append(b, block_id, 4);
	append(b, 0, 4); /* generic address: memory space */
	append(b, LAYOUT_HPET, 8);
	append(b, 0, 1); /* the first HPET */
	append(b, MIN_TICK, 2);
	append(b, 0, 1);
	root_add(b, table_end(b));
	root_add(b, table_copy(b, hpet_aml_code, sizeof(hpet_aml_code)));
}

/*
 * Processors as devices in \_SB (8.4, ACPI0007), named C000 to C3FF. AML (20.2): a Device is 5Bh
 * 82h PkgLength NameSeg and its objects; a Name is 08h NameSeg and a value, here a string (0Dh) and
 * a doubleword (0Ch). PkgLength counts itself.
 */
static void append_cpu_device(struct builder *b, unsigned cpu)
{
	static const char digits[] = "0123456789ABCDEF";
	const uint8_t name[] = {'C', (uint8_t)digits[cpu >> 8 & 0xf],
				(uint8_t)digits[cpu >> 4 & 0xf], (uint8_t)digits[cpu & 0xf]};
	size_t start = b->used;

	append(b, 0x5b | 0x82 << 8 | (CPU_DEVICE_BYTES - 2) << 16, 3);
	append_bytes(b, name, sizeof(name));
	append_bytes(b,
		     "\x08_HID\x0d"
		     "ACPI0007",
		     15);
	append_bytes(b, "\x08_UID\x0c", 6);
	append(b, cpu, 4);
	assert(b->used - start == CPU_DEVICE_BYTES);
}

static void build_processors(struct builder *b)
{
	enum { REVISION = 2, SCOPE = 0x10, PKGLENGTH_BYTES = 4, PATH_BYTES = 5 };
	size_t len = PKGLENGTH_BYTES + PATH_BYTES + (size_t)b->board->cpus * CPU_DEVICE_BYTES;

	table_begin(b, "SSDT", REVISION);
	append(b, SCOPE, 1);
	/* PkgLength of four bytes (20.2.4): C0h and the low nibble, then 8 bits each. */
	append(b, 0xc0 | (len & 0xf), 1);
	append(b, len >> 4, 3);
	append_bytes(b, "\\_SB_", PATH_BYTES);
	for (unsigned cpu = 0; cpu < b->board->cpus; cpu++)
		append_cpu_device(b, cpu);
	root_add(b, table_end(b));
}

/* RSDT (5.2.7) with 4-byte or XSDT (5.2.8) with 8-byte addresses. Return: its gpa. */
static uint64_t build_root(struct builder *b, const char *signature, unsigned address_bytes)
{
	table_begin(b, signature, 1);
	for (unsigned i = 0; i < b->root_nr; i++)
		append(b, b->root[i], address_bytes);
	return table_end(b);
}

/* Root system description pointer (5.2.5.3), at offset 0. */
static void build_rsdp(struct builder *b, uint64_t rsdt, uint64_t xsdt)
{
	enum { RSDP_BYTES = 36, RSDP_V1_BYTES = 20, REVISION = 2 };
	uint8_t *r = b->bytes;

	memcpy(r, "RSD PTR ", 8);
	memcpy(r + 9, "HANOK ", 6);
	r[15] = REVISION;
	put(r + 16, rsdt, 4);
	put(r + 20, RSDP_BYTES, 4);
	put(r + 24, xsdt, 8);
	r[8] = checksum(r, RSDP_V1_BYTES);
	r[32] = checksum(r, RSDP_BYTES);
}

static void build_all(struct builder *b)
{
	enum { RSDP_ROOM = 64 };
	uint64_t rsdt, xsdt;

	b->used = RSDP_ROOM;
	build_facs(b);
	b->dsdt = table_copy(b, dsdt_aml_code, sizeof(dsdt_aml_code));
	build_fadt(b);
	build_madt(b);
	build_mcfg(b);
	build_processors(b);
	if (b->board->hpet)
		build_hpet(b);
	rsdt = build_root(b, "RSDT", 4);
	xsdt = build_root(b, "XSDT", 8);
	build_rsdp(b, rsdt, xsdt);
}

int acpi_build(const struct acpi_board *board, struct mem *mem, uint64_t *rsdp, struct error *err)
{
	struct builder b = {.board = board};
	int rc;

	if (board->cpus < 1 || board->cpus > ACPI_CPUS_MAX)
		return error_set(
			err, -EINVAL,
			"ACPI tables: %u processors; there can be 1 to %d: change --cpus or "
			"numvcpus",
			board->cpus, ACPI_CPUS_MAX);
	b.bytes = calloc(1, LAYOUT_ACPI_BYTES);
	if (!b.bytes)
		return error_set(err, -ENOMEM, "ACPI tables: no memory left on the host");
	build_all(&b);
	rc = mem_write(mem, LAYOUT_ACPI_BASE, b.bytes, LAYOUT_ACPI_BYTES);
	free(b.bytes);
	if (rc)
		return error_set(err, rc, "ACPI tables: no RAM at 0x%x for them", LAYOUT_ACPI_BASE);
	*rsdp = LAYOUT_ACPI_BASE;
	return 0;
}
