/* SPDX-License-Identifier: Apache-2.0 */
/* AHCI, and through it disks and CD drives. */
#include <errno.h>

#include "ata_test.h"
#include "dev/ata/ahci.h"

enum { ABAR = 0xc0000000, LISTS = 0x10000, FISES = 0x20000, TABLES = 0x40000, DATA = 0x400000 };
enum { ERR_BIT = 1, BSY_BIT = 0x80 };
enum { MSI_CONTROL_AT = 0x40 };

static struct world w;

/* --- a driver --- */

static uint32_t port_in(unsigned port, unsigned reg)
{
	return (uint32_t)bus_in(BUS_MMIO, ABAR + 0x100 + port * 0x80 + reg, 4);
}

static void port_out(unsigned port, unsigned reg, uint32_t v)
{
	bus_out(BUS_MMIO, ABAR + 0x100 + port * 0x80 + reg, 4, v);
}

static uint8_t *received(unsigned port)
{
	return ram(&w, FISES + port * 0x1000);
}

static uint64_t table_of(unsigned port, unsigned slot)
{
	return TABLES + (port * 32 + slot) * 0x800;
}

static void start_port(unsigned port)
{
	port_out(port, PX_CLB, LISTS + port * 0x1000);
	port_out(port, PX_FB, FISES + port * 0x1000);
	port_out(port, PX_SERR, UINT32_MAX);
	port_out(port, PX_IS, UINT32_MAX);
	port_out(port, PX_IE, UINT32_MAX);
	port_out(port, PX_CMD, PXCMD_FRE | PXCMD_ST);
}

static void restart_port(unsigned port)
{
	port_out(port, PX_CMD, PXCMD_FRE);
	port_out(port, PX_IS, UINT32_MAX);
	port_out(port, PX_CMD, PXCMD_FRE | PXCMD_ST);
}

static void open_abar(void)
{
	config_write(0x24, ABAR);
	config_write(4, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	bus_out(BUS_MMIO, ABAR + 4, 4, 2); /* GHC.IE */
}

static int setup(void **state)
{
	(void)state;
	wires_clear();
	world_make(&w, &ahci_kind);
	open_abar();
	for (unsigned i = 0; i < W_UNITS; i++)
		start_port(i);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	world_free(&w);
	return 0;
}

struct region {
	uint64_t gpa;
	uint32_t len;
};

struct fis {
	uint8_t command, device;
	uint16_t feature, count;
	uint64_t lba;
	const uint8_t *packet;
};

/* Fills the slot's header and table. */
static void prepare(unsigned port, unsigned slot, const struct fis *f, const struct region *r,
		    unsigned regions)
{
	uint32_t *header = ram(&w, LISTS + port * 0x1000 + slot * 32);
	uint8_t *table = ram(&w, table_of(port, slot));

	memset(header, 0, 32);
	memset(table, 0, 0x80);
	header[0] = 5 | regions << 16 | (f->packet ? 1 << 5 : 0);
	header[2] = (uint32_t)table_of(port, slot);
	table[0] = 0x27;
	table[1] = 0x80;
	table[2] = f->command;
	table[3] = (uint8_t)f->feature;
	table[7] = f->device;
	table[11] = (uint8_t)(f->feature >> 8);
	table[12] = (uint8_t)f->count;
	table[13] = (uint8_t)(f->count >> 8);
	for (unsigned i = 0; i < 3; i++) {
		table[4 + i] = (uint8_t)(f->lba >> (8 * i));
		table[8 + i] = (uint8_t)(f->lba >> (24 + 8 * i));
	}
	if (f->packet)
		memcpy(table + 0x40, f->packet, 12);
	for (unsigned i = 0; i < regions; i++) {
		uint32_t *entry = (uint32_t *)(table + 0x80 + i * 16);
		entry[0] = (uint32_t)r[i].gpa;
		entry[1] = (uint32_t)(r[i].gpa >> 32);
		entry[2] = 0;
		entry[3] = r[i].len - 1;
	}
}

static uint32_t moved_of(unsigned port, unsigned slot)
{
	return ((uint32_t *)ram(&w, LISTS + port * 0x1000 + slot * 32))[1];
}

/* One command in slot 0 with one region of `len` bytes at DATA. Returns PxTFD. */
static uint32_t command(unsigned port, const struct fis *f, uint32_t len)
{
	struct region r = {DATA, len};

	prepare(port, 0, f, &r, len ? 1 : 0);
	port_out(port, PX_CI, 1);
	return port_in(port, PX_TFD);
}

static void good(unsigned port, const struct fis *f, uint32_t len)
{
	assert_int_equal(command(port, f, len) & 0xff, 0x50);
	assert_int_equal(port_in(port, PX_CI), 0);
}

/* It ends with this error register, and the port goes on afterwards. */
static void bad(unsigned port, const struct fis *f, uint32_t len, unsigned error)
{
	assert_int_equal(command(port, f, len), error << 8 | 0x51);
	assert_int_equal(port_in(port, PX_CI), 1);
	assert_true(port_in(port, PX_IS) & PXI_TFES);
	restart_port(port);
}

static void queue(unsigned port, unsigned slot, bool write, uint64_t lba, unsigned sectors,
		  uint64_t gpa)
{
	const struct fis f = {.command = write ? 0x61 : 0x60,
			      .device = 0x40,
			      .feature = (uint16_t)sectors,
			      .count = (uint16_t)(slot << 3),
			      .lba = lba};
	const struct region r = {gpa, sectors * 512};

	prepare(port, slot, &f, &r, 1);
	port_out(port, PX_SACT, 1u << slot);
	port_out(port, PX_CI, 1u << slot);
}

/* --- the controller --- */

static void test_registers(void **state)
{
	(void)state;
	assert_int_equal(config_read(0), 0x29228086);
	assert_int_equal(config_read(8) >> 8, 0x010601);
	assert_int_equal(bus_in(BUS_MMIO, ABAR + 0x10, 4), 0x00010301);
	assert_int_equal(bus_in(BUS_MMIO, ABAR + 0x0c, 4), 0x3f);
	assert_int_equal(bus_in(BUS_MMIO, ABAR + 4, 4), 0x80000002);
	assert_int_equal(bus_in(BUS_MMIO, ABAR, 1), 5);		     /* ports - 1, by a byte */
	assert_int_equal(bus_in(BUS_MMIO, ABAR + 1, 2) & 0x1f, 31);  /* slots - 1 */
	assert_int_equal(bus_in(BUS_MMIO, ABAR + 8, 8) >> 32, 0x3f); /* IS and PI at once */
	assert_int_equal(port_in(W_DISK, PX_SIG), 0x00000101);
	assert_int_equal(port_in(W_CD, PX_SIG), 0xeb140101);
	assert_int_equal(port_in(W_DISK, PX_SSTS), 0x133);
	assert_int_equal(port_in(5, PX_SSTS), 0);
	assert_int_equal(port_in(5, PX_TFD), 0x7f);
	assert_int_equal(port_in(W_DISK, PX_TFD), 0x150);
	bus_out(BUS_MMIO, ABAR + 0x100 + PX_CLB, 8, UINT64_C(0x1234567800000fff));
	assert_int_equal(port_in(0, PX_CLB), 0xc00);
	assert_int_equal(port_in(0, PX_CLBU), 0x12345678);
	assert_int_equal(received(W_DISK)[0x40], 0x34); /* the signature, as FRE was set */
}

static void test_hba_reset(void **state)
{
	(void)state;
	port_out(0, PX_SCTL, 0x300);
	bus_out(BUS_MMIO, ABAR + 4, 4, 1);
	assert_int_equal(bus_in(BUS_MMIO, ABAR + 4, 4), 0x80000000);
	assert_int_equal(port_in(0, PX_CMD), PXCMD_SUD | PXCMD_POD);
	assert_int_equal(port_in(0, PX_SCTL), 0);
	assert_int_equal(port_in(0, PX_IE), 0);
	assert_int_equal(port_in(0, PX_CLB), LISTS); /* stays (AHCI 10.4.3) */
	port_out(0, PX_CI, 1);
	assert_int_equal(port_in(0, PX_CI), 0); /* not while ST is clear */
}

static void test_interrupts(void **state)
{
	const struct fis check = {.command = 0xe5};

	(void)state;
	assert_int_equal(wire_level[W_WIRE_INTX], 0);
	good(0, &check, 0);
	assert_int_equal(wire_level[W_WIRE_INTX], 1);
	assert_int_equal(bus_in(BUS_MMIO, ABAR + 8, 4), 1);
	assert_int_equal(port_in(0, PX_IS), PXI_DHRS);
	port_out(0, PX_IS, PXI_DHRS);
	bus_out(BUS_MMIO, ABAR + 8, 4, 1);
	assert_int_equal(wire_level[W_WIRE_INTX], 0);

	config_write(MSI_CONTROL_AT, 1 << 16);
	good(0, &check, 0);
	assert_int_equal(wire_level[W_WIRE_INTX], 0);
	assert_int_equal(w.messages, 1);
	good(W_CD, &check, 0); /* another port, another message */
	assert_int_equal(w.messages, 2);
	/* What came between the port's acknowledge and the controller's is not lost. */
	port_out(0, PX_IS, PXI_DHRS);
	good(0, &check, 0);
	assert_int_equal(w.messages, 2);
	bus_out(BUS_MMIO, ABAR + 8, 4, 1);
	assert_int_equal(w.messages, 3);
	bus_out(BUS_MMIO, ABAR + 4, 4, 0);
	good(W_EMPTY, &check, 0);
	assert_int_equal(w.messages, 3);
}

static void test_link(void **state)
{
	(void)state;
	port_out(0, PX_CMD, PXCMD_FRE);
	port_out(0, PX_SCTL, 0x301);
	assert_int_equal(port_in(0, PX_SSTS), 0);
	assert_int_equal(port_in(0, PX_TFD), 0x7f);
	port_out(0, PX_SCTL, 0x300);
	assert_int_equal(port_in(0, PX_SSTS), 0x133);
	assert_int_equal(port_in(0, PX_TFD), 0x150);
	assert_int_equal(port_in(0, PX_SERR), 1 << 26 | 1 << 16);
	assert_true(port_in(0, PX_IS) & PXI_PCS);
	port_out(0, PX_SERR, UINT32_MAX);
	assert_false(port_in(0, PX_IS) & (PXI_PCS | PXI_PRCS));
	port_out(0, PX_SCTL, 0x304);
	assert_int_equal(port_in(0, PX_SSTS), 4);
}

static void test_soft_reset(void **state)
{
	const struct fis f = {0};
	uint8_t *table = ram(&w, table_of(W_CD, 0));

	(void)state;
	memset(received(W_CD), 0, 256);
	prepare(W_CD, 0, &f, NULL, 0);
	table[1] = 0; /* the control register */
	table[15] = 4;
	port_out(W_CD, PX_CI, 1);
	assert_int_equal(port_in(W_CD, PX_CI), 0);
	assert_int_equal(received(W_CD)[0x40], 0);
	table[15] = 0;
	port_out(W_CD, PX_CI, 1);
	assert_int_equal(received(W_CD)[0x40], 0x34);
	assert_int_equal(received(W_CD)[0x45], 0x14);
	assert_int_equal(received(W_CD)[0x46], 0xeb);
}

/* --- disks --- */

static void test_identify(void **state)
{
	const struct fis f = {.command = 0xec};
	uint8_t *data = ram(&w, DATA), sum = 0;
	char text[41];

	(void)state;
	good(0, &f, 512);
	assert_int_equal(port_in(0, PX_IS), PXI_PSS);
	assert_int_equal(received(0)[0x20], 0x5f);
	assert_int_equal(received(0)[0x20 + 15], 0x50);
	assert_int_equal(moved_of(0, 0), 512);
	for (unsigned i = 0; i < 512; i++)
		sum = (uint8_t)(sum + data[i]);
	assert_int_equal(sum, 0);
	identify_text(data, 10, 19, text);
	assert_string_equal(text, "HANOK00-00");
	identify_text(data, 27, 46, text);
	assert_string_equal(text, "HANOK HARDDISK");
	assert_int_equal(le16(data + 60 * 2), (W_DISK_BYTES / 512) & 0xffff);
	assert_int_equal(le16(data + 61 * 2), W_DISK_BYTES / 512 >> 16);
	assert_int_equal(le16(data + 100 * 2), (W_DISK_BYTES / 512) & 0xffff);
	assert_int_equal(le16(data + 75 * 2), 31);
	assert_true(le16(data + 76 * 2) & 1 << 8);  /* NCQ */
	assert_true(le16(data + 83 * 2) & 1 << 10); /* LBA48 */
	assert_int_equal(le16(data + 169 * 2), 1);  /* TRIM */
	assert_int_equal(le16(data + 217 * 2), 1);  /* not rotating */
	good(W_READ_ONLY, &f, 512);
	assert_int_equal(le16(data + 169 * 2), 0);
}

/* Regions of all sizes, also such that a sector begins in one and ends in another. */
static void test_scattered(void **state)
{
	static const uint32_t sizes[] = {2, 510, 1022, 4, 1534, 65536, 1024 * 1024 + 512};
	struct region r[7];
	uint32_t total = 0;
	struct fis f = {.command = 0x25, .device = 0x40, .lba = 1000};
	uint64_t gpa = DATA;

	(void)state;
	for (unsigned i = 0; i < 7; i++) {
		r[i] = (struct region){gpa, sizes[i]};
		gpa += sizes[i] + 6;
		total += sizes[i];
	}
	memset(ram(&w, DATA), 0xee, 2 << 20);
	f.count = (uint16_t)(total / 512);
	total = f.count * 512u;
	prepare(0, 4, &f, r, 7);
	port_out(0, PX_CI, 1 << 4);
	assert_int_equal(port_in(0, PX_CI), 0);
	assert_int_equal(moved_of(0, 4), total);
	uint32_t at = 0;
	for (unsigned i = 0; i < 7; i++) {
		uint8_t *p = ram(&w, r[i].gpa);
		uint32_t n = r[i].len < total - at ? r[i].len : total - at;
		assert_memory_equal(p, w.disk[0].bytes + 1000 * 512 + at, n);
		assert_int_equal(p[r[i].len], 0xee);
		at += n;
	}
	/* And back, to another place. */
	f.command = 0x35;
	f.lba = 70000;
	prepare(0, 4, &f, r, 7);
	port_out(0, PX_CI, 1 << 4);
	assert_memory_equal(w.disk[0].bytes + 1000 * 512, w.disk[0].bytes + 70000 * 512, total);
}

/* More regions than one request of the disk takes. */
static void test_many_regions(void **state)
{
	const struct fis f = {.command = 0x25, .device = 0x40, .count = 9, .lba = 77};
	uint32_t *header = ram(&w, LISTS);
	uint32_t *entry = ram(&w, 0x200080);
	struct region none = {0, 2};
	struct fis back = f;

	(void)state;
	prepare(0, 0, &f, &none, 0);
	memcpy(ram(&w, 0x200000), ram(&w, table_of(0, 0)), 0x80);
	header[0] |= 2304u << 16;
	header[2] = 0x200000;
	for (unsigned i = 0; i < 2304; i++, entry += 4) {
		entry[0] = DATA + i * 2;
		entry[1] = entry[2] = 0;
		entry[3] = 1;
	}
	port_out(0, PX_CI, 1);
	assert_int_equal(port_in(0, PX_CI), 0);
	assert_memory_equal(ram(&w, DATA), w.disk[0].bytes + 77 * 512, 9 * 512);
	assert_true(w.disk[0].count[DISK_READ] > 8); /* a sector at a time: 256 and 1 */
	back.command = 0x35;
	back.lba = 7700;
	good(0, &back, 9 * 512);
	assert_memory_equal(w.disk[0].bytes + 7700 * 512, w.disk[0].bytes + 77 * 512, 9 * 512);
}

static void test_addresses(void **state)
{
	const uint32_t last = W_DISK_BYTES / 512 - 1;
	struct fis f = {.command = 0x25, .device = 0x40, .count = 1, .lba = last};

	(void)state;
	good(0, &f, 512);
	f.count = 2;
	bad(0, &f, 1024, ATA_E_IDNF);
	f.lba = last + 1;
	f.count = 1;
	bad(0, &f, 512, ATA_E_IDNF);
	f.lba = UINT64_C(0xffffffffffff);
	f.count = 0;
	bad(0, &f, 512, ATA_E_IDNF);
	/* 28 bits: the device register has the upper four. */
	f = (struct fis){.command = 0xc8, .device = 0x40, .count = 1, .lba = 0x5000};
	good(0, &f, 512);
	assert_int_equal(w.disk[0].last_offset, 0x5000 * 512);
	f.device = 0x41;
	bad(0, &f, 512, ATA_E_IDNF);
	/* A count of 0 is 256, or 65536. */
	f = (struct fis){.command = 0xc8, .device = 0x40, .lba = 1};
	good(0, &f, 256 * 512);
	assert_int_equal(w.disk[0].last_bytes, 256 * 512);
	f = (struct fis){.command = 0x40, .device = 0x40, .lba = last - 255};
	good(0, &f, 0);
	f.lba++;
	bad(0, &f, 0, ATA_E_IDNF);
	/* CHS: cylinder 1, head 2, sector 3. */
	f = (struct fis){.command = 0x20, .device = 0x02, .count = 1, .lba = 0x000103};
	good(0, &f, 512);
	assert_int_equal(w.disk[0].last_offset, ((1 * 16 + 2) * 63 + 2) * 512);
	f.lba = 0x000100;
	bad(0, &f, 512, ATA_E_IDNF); /* there is no sector 0 */
}

static void test_memory_errors(void **state)
{
	struct fis f = {.command = 0x25, .device = 0x40, .count = 2, .lba = 5};
	struct region r = {W_RAM - 512, 1024};

	(void)state;
	prepare(0, 0, &f, &r, 1); /* past the end of RAM */
	port_out(0, PX_CI, 1);
	assert_int_equal(port_in(0, PX_TFD), ATA_E_ABRT << 8 | 0x51);
	assert_true(port_in(0, PX_IS) & PXI_HBFS);
	restart_port(0);
	command(0, &f, 512); /* too short */
	assert_true(port_in(0, PX_IS) & PXI_OFS);
	assert_true(port_in(0, PX_TFD) & ERR_BIT);
	restart_port(0);
	port_out(0, PX_CMD, PXCMD_FRE);
	port_out(0, PX_CLBU, 0x1000); /* no command list there */
	port_out(0, PX_CMD, PXCMD_FRE | PXCMD_ST);
	port_out(0, PX_CI, 1);
	assert_true(port_in(0, PX_IS) & PXI_HBFS);
	port_out(0, PX_CLBU, 0);
	restart_port(0);
	good(0, &f, 1024);
	config_write(4, PCI_COMMAND_MEMORY); /* not a bus master any more */
	port_out(0, PX_CI, 1);
	assert_true(port_in(0, PX_IS) & PXI_HBFS);
	assert_int_equal(port_in(0, PX_CI), 1);
}

static void test_disk_errors(void **state)
{
	struct fis f = {.command = 0x25, .device = 0x40, .count = 2, .lba = 0x123};

	(void)state;
	w.disk[0].error[DISK_READ] = -EIO;
	w.disk[0].error[DISK_WRITE] = -ENOSPC;
	w.disk[0].error[DISK_FLUSH] = -EIO;
	bad(0, &f, 1024, ATA_E_UNC);
	assert_int_equal(received(0)[0x44], 0x23);
	assert_int_equal(received(0)[0x45], 0x01);
	f.command = 0x35;
	bad(0, &f, 1024, ATA_E_ABRT);
	bad(0, &(struct fis){.command = 0xea}, 0, ATA_E_ABRT);
	bad(W_READ_ONLY, &f, 1024, ATA_E_ABRT);
	bad(0, &(struct fis){.command = 0xff}, 0, ATA_E_ABRT);
	w.disk[0].error[DISK_WRITE] = 0;
	good(0, &f, 1024);
	struct ata_stats stats;
	ahci_get_stats(w.dev, 0, &stats);
	assert_int_equal(stats.errors, 4);
	assert_int_equal(stats.written_bytes, 1024);
}

static void test_flush_and_cache(void **state)
{
	struct fis write = {.command = 0x35, .device = 0x40, .count = 1, .lba = 9};
	const unsigned *flushes = &w.disk[0].count[DISK_FLUSH];

	(void)state;
	good(0, &write, 512);
	assert_int_equal(*flushes, 0);
	good(0, &(struct fis){.command = 0xea}, 0);
	good(0, &(struct fis){.command = 0xe7}, 0);
	assert_int_equal(*flushes, 2);
	write.command = 0x3d; /* FUA */
	good(0, &write, 512);
	assert_int_equal(*flushes, 3);
	write.command = 0x35;
	good(0, &(struct fis){.command = 0xef, .feature = 0x82}, 0); /* no cache */
	assert_int_equal(*flushes, 4);
	good(0, &write, 512);
	assert_int_equal(*flushes, 5);
	good(0, &(struct fis){.command = 0xef, .feature = 0x02}, 0);
	good(0, &write, 512);
	assert_int_equal(*flushes, 5);
	good(0, &(struct fis){.command = 0xe0}, 0); /* STANDBY IMMEDIATE */
	assert_int_equal(*flushes, 6);
	good(0, &(struct fis){.command = 0xe5}, 0);
	assert_int_equal(received(0)[0x40 + 12], 0);
	good(0, &(struct fis){.command = 0xe1}, 0);
	good(0, &(struct fis){.command = 0xe5}, 0);
	assert_int_equal(received(0)[0x40 + 12], 0xff);
	bad(0, &(struct fis){.command = 0xef, .feature = 0x99}, 0, ATA_E_ABRT);
	bad(0, &(struct fis){.command = 0xef, .feature = 3, .count = 0x47}, 0, ATA_E_ABRT);
	good(0, &(struct fis){.command = 0xef, .feature = 3, .count = 0x46}, 0);
}

static void put_range(unsigned i, uint64_t lba, uint64_t sectors)
{
	((uint64_t *)ram(&w, DATA))[i] = sectors << 48 | lba;
}

static void test_trim(void **state)
{
	struct fis f = {.command = 0x06, .device = 0x40, .feature = 1, .count = 1};

	(void)state;
	memset(ram(&w, DATA), 0, 4096);
	put_range(0, 100, 50);
	put_range(1, 150, 50); /* goes on */
	put_range(3, 1000, 1);
	put_range(63, 2000, 65535);
	good(0, &f, 512);
	assert_int_equal(w.disk[0].count[DISK_DISCARD], 3);
	assert_int_equal(w.disk[0].bytes[100 * 512], 0xdd);
	assert_int_equal(w.disk[0].bytes[200 * 512 - 1], 0xdd);
	assert_int_equal(w.disk[0].last_bytes, 65535 * 512);
	put_range(5, W_DISK_BYTES / 512 - 1, 2);
	bad(0, &f, 512, ATA_E_IDNF);
	f.count = 9; /* more than IDENTIFY says */
	bad(0, &f, 9 * 512, ATA_E_ABRT);
	f.count = 1;
	f.feature = 0;
	bad(0, &f, 512, ATA_E_ABRT);
}

static void test_logs_and_smart(void **state)
{
	const uint64_t key = 0xc24f00;
	uint8_t *data = ram(&w, DATA);
	struct fis log = {.command = 0x2f, .count = 1};

	(void)state;
	good(0, &log, 512);
	assert_int_equal(le16(data), 1);
	assert_int_equal(le16(data + 0x10 * 2), 1);
	log.lba = 0x30;
	good(0, &log, 512);
	assert_int_equal(data[8], 2);
	log.lba = 0x130; /* page 1: as IDENTIFY */
	log.command = 0x47;
	good(0, &log, 512);
	assert_int_equal(data[510], 0xa5);
	log.lba = 0x230;
	bad(0, &log, 512, ATA_E_ABRT);
	log.lba = 0x42;
	bad(0, &log, 512, ATA_E_ABRT);
	good(0, &(struct fis){.command = 0xb0, .feature = 0xda, .lba = key}, 0);
	assert_int_equal(received(0)[0x45], 0x4f);
	assert_int_equal(received(0)[0x46], 0xc2);
	good(0, &(struct fis){.command = 0xb0, .feature = 0xd0, .lba = key}, 512);
	good(0, &(struct fis){.command = 0xb0, .feature = 0xd5, .count = 1, .lba = key | 1}, 512);
	bad(0, &(struct fis){.command = 0xb0, .feature = 0xda}, 0, ATA_E_ABRT);
	good(0, &(struct fis){.command = 0xb0, .feature = 0xd9, .lba = key}, 0);
	bad(0, &(struct fis){.command = 0xb0, .feature = 0xd0, .lba = key}, 512, ATA_E_ABRT);
	good(0, &(struct fis){.command = 0xb0, .feature = 0xd8, .lba = key}, 0);
	good(0, &(struct fis){.command = 0x27, .device = 0x40}, 0);
	assert_int_equal(received(0)[0x46], (W_DISK_BYTES / 512 - 1) >> 16);
}

/* --- queued commands --- */

static void test_queue(void **state)
{
	struct ata_stats stats;

	(void)state;
	w.disk[0].later = true;
	for (unsigned i = 0; i < 32; i++)
		queue(0, i, false, i * 10, 8, DATA + i * 4096);
	assert_int_equal(port_in(0, PX_CI), 0);		   /* taken, */
	assert_int_equal(port_in(0, PX_SACT), UINT32_MAX); /* and under way */
	assert_int_equal(w.disk[0].waiting_count, 32);
	port_out(0, PX_IS, UINT32_MAX);
	assert_int_equal(fake_disk_run(&w.disk[0]), 32);
	assert_int_equal(port_in(0, PX_SACT), 0);
	assert_int_equal(port_in(0, PX_IS), PXI_SDBS);
	assert_int_equal(received(0)[0x58], 0xa1);
	for (unsigned i = 0; i < 32; i++)
		assert_memory_equal(ram(&w, DATA + i * 4096), w.disk[0].bytes + i * 5120, 4096);
	ahci_get_stats(w.dev, 0, &stats);
	assert_int_equal(stats.queued, 32);
	assert_int_equal(stats.queue_most, 32);
	/* FUA: a flush follows. */
	w.disk[0].later = false;
	queue(0, 3, true, 7, 1, DATA);
	assert_int_equal(w.disk[0].count[DISK_FLUSH], 0);
	prepare(0, 3, &(struct fis){.command = 0x61, .device = 0xc0, .feature = 1, .count = 3 << 3},
		&(struct region){DATA, 512}, 1);
	port_out(0, PX_SACT, 8);
	port_out(0, PX_CI, 8);
	assert_int_equal(w.disk[0].count[DISK_FLUSH], 1);
	assert_int_equal(port_in(0, PX_SACT), 0);
}

static void test_queue_error(void **state)
{
	uint8_t *data = ram(&w, DATA);

	(void)state;
	w.disk[0].later = true;
	for (unsigned i = 0; i < 4; i++)
		queue(0, i, false, i, 1, DATA + 4096 + i * 512);
	queue(0, 4, false, W_DISK_BYTES / 512, 1, DATA + 8192); /* past the end: fails at once */
	assert_int_equal(port_in(0, PX_TFD), ATA_E_IDNF << 8 | 0x51);
	assert_int_equal(port_in(0, PX_SACT), 0x1f);
	assert_true(port_in(0, PX_IS) & PXI_TFES);
	queue(0, 9, false, 0, 1, DATA); /* not begun: the list stands */
	assert_int_equal(port_in(0, PX_CI), 1 << 9);
	assert_int_equal(w.disk[0].waiting_count, 4);
	restart_port(0);
	assert_int_equal(port_in(0, PX_SACT), 0);
	/* The log waits for the requests that were given up, and nobody hears of their end. */
	prepare(0, 0, &(struct fis){.command = 0x2f, .count = 1, .lba = 0x10},
		&(struct region){DATA, 512}, 1);
	port_out(0, PX_CI, 1);
	assert_int_equal(port_in(0, PX_CI), 1);
	assert_int_equal(fake_disk_run(&w.disk[0]), 4);
	assert_int_equal(port_in(0, PX_CI), 0);
	assert_int_equal(port_in(0, PX_SACT), 0);
	assert_int_equal(data[0], 4); /* the tag */
	assert_int_equal(data[2], 0x51);
	assert_int_equal(data[3], ATA_E_IDNF);
	w.disk[0].later = false;
	queue(0, 1, false, 3, 1, DATA);
	assert_int_equal(port_in(0, PX_SACT), 0);
	good(0, &(struct fis){.command = 0x2f, .count = 1, .lba = 0x10}, 512);
	assert_int_equal(data[0], 0x80); /* told already */
}

/* Before the log is read the drive takes nothing else. */
static void test_queue_error_blocks(void **state)
{
	const struct fis read = {.command = 0x25, .device = 0x40, .count = 1};

	(void)state;
	w.disk[0].error[DISK_READ] = -EIO;
	queue(0, 7, false, 3, 1, DATA);
	assert_int_equal(port_in(0, PX_TFD), ATA_E_UNC << 8 | 0x51);
	w.disk[0].error[DISK_READ] = 0;
	restart_port(0);
	bad(0, &read, 512, ATA_E_ABRT);
	good(0, &(struct fis){.command = 0x2f, .count = 1, .lba = 0x10}, 512);
	assert_int_equal(((uint8_t *)ram(&w, DATA))[0], 7);
	good(0, &read, 512);
	/* Queued and other commands do not mix; nor may a tag be another slot's. */
	w.disk[0].later = true;
	queue(0, 1, false, 3, 1, DATA);
	prepare(0, 2, &read, &(struct region){DATA, 512}, 1);
	port_out(0, PX_CI, 4);
	assert_int_equal(port_in(0, PX_TFD), ATA_E_ABRT << 8 | 0x51);
	port_out(0, PX_CMD, PXCMD_FRE);
	assert_true(port_in(0, PX_CMD) & PXCMD_CR); /* the disk still has one */
	fake_disk_run(&w.disk[0]);
	assert_false(port_in(0, PX_CMD) & PXCMD_CR);
	restart_port(0);
	prepare(0, 2, &(struct fis){.command = 0x60, .device = 0x40, .feature = 1, .count = 8},
		&(struct region){DATA, 512}, 1);
	port_out(0, PX_CI, 4);
	assert_int_equal(port_in(0, PX_TFD), ATA_E_ABRT << 8 | 0x51);
}

/* --- resets and state with requests under way --- */

static void test_reset_in_flight(void **state)
{
	const struct fis write = {.command = 0x35, .device = 0x40, .count = 1, .lba = 9};

	(void)state;
	w.disk[0].later = true;
	prepare(0, 0, &write, &(struct region){DATA, 512}, 1);
	port_out(0, PX_CI, 1);
	assert_true(port_in(0, PX_TFD) & BSY_BIT);
	port_out(0, PX_CMD, PXCMD_FRE);
	port_out(0, PX_SCTL, 1);
	port_out(0, PX_SCTL, 0);
	assert_int_equal(port_in(0, PX_TFD), BSY_BIT); /* until the disk has let go */
	port_out(0, PX_SERR, UINT32_MAX);
	restart_port(0);
	port_out(0, PX_CI, 1); /* waits too */
	assert_int_equal(w.disk[0].waiting_count, 1);
	assert_int_equal(port_in(0, PX_IS), 0);
	fake_disk_run(&w.disk[0]);
	assert_int_equal(w.disk[0].waiting_count, 1); /* the new one */
	fake_disk_run(&w.disk[0]);
	assert_int_equal(port_in(0, PX_TFD), 0x50);
	assert_int_equal(port_in(0, PX_IS), PXI_DHRS);
	/* The machine's reset takes the disk along. */
	for (unsigned i = 0; i < 8; i++)
		queue(0, i, false, i, 1, DATA + i * 512);
	assert_int_equal(w.disk[0].waiting_count, 8);
	ahci_kind.ops.reset(w.dev);
	assert_int_equal(w.disk[0].waiting_count, 0);
	open_abar();
	assert_int_equal(port_in(0, PX_TFD), 0x150);
	assert_int_equal(port_in(0, PX_CI) | port_in(0, PX_SACT) | port_in(0, PX_IS), 0);
	w.disk[0].later = false;
	start_port(0);
	good(0, &write, 512);
}

/* The controller holds a command's memory till its end, and nothing else. */
static void test_pins(void **state)
{
	const struct fis read = {.command = 0x25, .device = 0x40, .count = 2, .lba = 9},
			 write = {.command = 0x35, .device = 0x40, .count = 1, .lba = 9};

	(void)state;
	good(0, &read, 1024);
	bad(0, &read, 512, ATA_E_ABRT); /* a table too short */
	w.disk[0].error[DISK_WRITE] = w.disk[0].error[DISK_READ] = -EIO;
	bad(0, &write, 512, ATA_E_ABRT);
	bad(0, &read, 1024, ATA_E_UNC);
	w.disk[0].error[DISK_WRITE] = w.disk[0].error[DISK_READ] = 0;
	assert_int_equal(pinned_pages(w.mem), 0);
	w.disk[0].later = true;
	for (unsigned i = 0; i < 4; i++)
		queue(0, i, i & 1, 9, 1, DATA + i * 0x1000);
	assert_int_equal(all_pins(w.mem), 4);
	port_out(0, PX_CMD, PXCMD_FRE);
	port_out(0, PX_SCTL, 1);
	port_out(0, PX_SCTL, 0);
	assert_int_equal(all_pins(w.mem), 4); /* the disk still has them */
	fake_disk_run(&w.disk[0]);
	assert_int_equal(pinned_pages(w.mem), 0);
	port_out(0, PX_SERR, UINT32_MAX);
	restart_port(0);
	for (unsigned i = 0; i < 4; i++)
		queue(0, i, i & 1, 9, 1, DATA + i * 0x1000);
	w.disk[0].error[DISK_WRITE] = -EIO; /* takes the others along */
	fake_disk_run(&w.disk[0]);
	assert_int_equal(pinned_pages(w.mem), 0);
}

static void test_destroy_in_flight(void **state)
{
	(void)state;
	w.disk[0].later = true;
	for (unsigned i = 0; i < 32; i++)
		queue(0, i, i & 1, i, 1, DATA + i * 512);
	/* teardown asserts that nothing is left */
}

static void test_state(void **state)
{
	static struct world other;
	struct ata_stats stats;

	(void)state;
	w.disk[0].later = true;
	for (unsigned i = 0; i < 8; i++)
		queue(0, i, true, 500 + i, 1, DATA + i * 512);
	prepare(W_CD, 0, &(struct fis){.command = 0xff}, NULL, 0);
	port_out(W_CD, PX_CI, 1); /* halted, with its bit still set */
	world_make(&other, &ahci_kind);
	round_trip(&ahci_kind.ops, w.dev, other.dev);
	assert_int_equal(w.disk[0].waiting_count, 0); /* settled before it was saved */
	ahci_get_stats(w.dev, 0, &stats);
	assert_int_equal(stats.written_bytes, 8 * 512);
	struct world first = w;
	w = other;
	test_bus = w.bus;
	assert_int_equal(port_in(0, PX_SACT), 0);
	assert_int_equal(port_in(0, PX_CLB), LISTS);
	assert_int_equal(port_in(0, PX_IS), PXI_SDBS);
	assert_int_equal(port_in(W_CD, PX_CI), 1);
	assert_true(port_in(W_CD, PX_TFD) & ERR_BIT);
	restart_port(0);
	good(0, &(struct fis){.command = 0xec}, 512);
	other = w;
	w = first;
	world_free(&other);
	test_bus = w.bus;
}

static void test_refused_state(void **state)
{
	(void)state;
	refused_restores(&w);
}

/* --- CD drives --- */

/* Status and sense key (0: good) of a packet whose answer is at DATA. */
static unsigned packet(unsigned port, const uint8_t *bytes, uint32_t len)
{
	const struct fis f = {.command = 0xa0, .feature = 1, .packet = bytes};
	uint32_t tfd = command(port, &f, len);

	if (tfd & ERR_BIT)
		restart_port(port);
	return tfd & ERR_BIT ? tfd >> 12 & 15 : 0;
}
#define PACKET(port, len, ...) packet(port, (const uint8_t[12]){__VA_ARGS__}, len)

static void sense_is(unsigned port, unsigned key, unsigned asc, unsigned ascq)
{
	const uint8_t *p = ram(&w, DATA);

	assert_int_equal(PACKET(port, 18, 3, 0, 0, 0, 18), 0);
	assert_int_equal(p[2], key);
	assert_int_equal(p[12], asc);
	assert_int_equal(p[13], ascq);
}

static void test_cd_identify(void **state)
{
	uint8_t *data = ram(&w, DATA);

	(void)state;
	assert_int_equal(command(W_CD, &(struct fis){.command = 0xec}, 512),
			 ATA_E_ABRT << 8 | 0x51);
	assert_int_equal(received(W_CD)[0x45], 0x14); /* the signature says what it is */
	assert_int_equal(received(W_CD)[0x46], 0xeb);
	restart_port(W_CD);
	good(W_CD, &(struct fis){.command = 0xa1}, 512);
	assert_int_equal(le16(data), 0x85c0);
	bad(W_CD, &(struct fis){.command = 0x25}, 512, ATA_E_ABRT);
	bad(W_CD, &(struct fis){.command = 0x60}, 512, ATA_E_ABRT);
	bad(0, &(struct fis){.command = 0xa1}, 512, ATA_E_ABRT);
}

static void test_cd_sense(void **state)
{
	(void)state;
	assert_int_equal(PACKET(W_CD, 0, 0), 6); /* UNIT ATTENTION, once */
	sense_is(W_CD, 6, 0x29, 0);
	sense_is(W_CD, 0, 0, 0);
	assert_int_equal(PACKET(W_CD, 0, 0), 0);
	assert_int_equal(PACKET(W_EMPTY, 36, 0x12, 0, 0, 0, 36), 0); /* INQUIRY comes before it */
	assert_int_equal(PACKET(W_EMPTY, 0, 0), 6);
	assert_int_equal(PACKET(W_EMPTY, 0, 0), 2);
	sense_is(W_EMPTY, 2, 0x3a, 1);
	assert_int_equal(PACKET(W_CD, 0, 0x04), 5); /* FORMAT UNIT: no */
	sense_is(W_CD, 5, 0x20, 0);
	w.disk[W_CD].error[DISK_READ] = -EIO;
	assert_int_equal(PACKET(W_CD, 2048, 0x28, 0, 0, 0, 0, 0, 0, 0, 1), 3);
	sense_is(W_CD, 3, 0x11, 0);
}

static void test_cd_read(void **state)
{
	const unsigned last = W_CD_BYTES / 2048 - 1;
	const uint8_t *p = ram(&w, DATA);

	(void)state;
	PACKET(W_CD, 0, 0);
	assert_int_equal(PACKET(W_CD, 8, 0x25), 0);
	assert_int_equal(p[2] << 8 | p[3], last);
	assert_int_equal(p[6], 8);
	assert_int_equal(PACKET(W_CD, 6144, 0x28, 0, 0, 0, 1, 7, 0, 0, 3), 0);
	assert_memory_equal(p, w.disk[W_CD].bytes + 0x107 * 2048, 6144);
	assert_int_equal(moved_of(W_CD, 0), 6144);
	assert_int_equal(received(W_CD)[0x40 + 12], 3); /* interrupt reason */
	assert_int_equal(PACKET(W_CD, 2048, 0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 1), 0);
	assert_memory_equal(p, w.disk[W_CD].bytes + 9 * 2048, 2048);
	assert_int_equal(PACKET(W_CD, 2048, 0xbe, 0, 0, 0, 0, 5, 0, 0, 1, 0x10), 0);
	assert_memory_equal(p, w.disk[W_CD].bytes + 5 * 2048, 2048);
	assert_int_equal(PACKET(W_CD, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 0), 0); /* nothing */
	assert_int_equal(PACKET(W_CD, 4096, 0x28, 0, 0, 0, last >> 8, last & 0xff, 0, 0, 2), 5);
	sense_is(W_CD, 5, 0x21, 0);
	assert_int_equal(PACKET(W_CD, 4096, 0xa8, 0, 0, 0, 0, 1, 255, 255, 255, 255), 5);
	assert_int_equal(PACKET(W_CD, 4096, 0xa8, 0, 255, 255, 255, 255, 0, 0, 0, 2), 5);
}

static void test_cd_answers(void **state)
{
	const uint8_t *p = ram(&w, DATA);

	(void)state;
	PACKET(W_CD, 0, 0);
	assert_int_equal(PACKET(W_CD, 64, 0x43, 2, 0, 0, 0, 0, 0, 0, 64), 0); /* TOC, MSF */
	assert_int_equal(moved_of(W_CD, 0), 20);
	assert_int_equal(p[1], 18);
	assert_int_equal(p[6], 1);
	assert_int_equal(p[10], 2); /* 00:02:00 */
	assert_int_equal(p[14], 0xaa);
	assert_int_equal(PACKET(W_CD, 64, 0x43, 0, 2, 0, 0, 0, 0, 0, 64), 0);
	assert_int_equal(moved_of(W_CD, 0), 48);
	assert_int_equal(PACKET(W_CD, 64, 0x43, 0, 9, 0, 0, 0, 0, 0, 64), 5);
	assert_int_equal(PACKET(W_CD, 256, 0x46, 0, 0, 0, 0, 0, 0, 1, 0), 0);
	assert_int_equal(p[7], 8); /* CD-ROM */
	assert_int_equal(moved_of(W_CD, 0), p[3] + 4);
	assert_int_equal(PACKET(W_CD, 256, 0x46, 2, 0, 3, 0, 0, 0, 1, 0), 0);
	assert_int_equal(moved_of(W_CD, 0), 16);
	assert_int_equal(PACKET(W_CD, 128, 0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 128), 0);
	assert_int_equal(p[8], 0x2a);
	assert_int_equal(PACKET(W_CD, 128, 0x5a, 0, 0x7f, 0, 0, 0, 0, 0, 128), 0); /* changeable */
	assert_int_equal(p[11], 0);
	assert_int_equal(PACKET(W_CD, 128, 0x5a, 0, 0xff, 0, 0, 0, 0, 0, 128), 5);
	assert_int_equal(PACKET(W_CD, 128, 0x5a, 0, 0x05, 0, 0, 0, 0, 0, 128), 5);
	assert_int_equal(PACKET(W_CD, 34, 0x51, 0, 0, 0, 0, 0, 0, 0, 34), 0);
	assert_int_equal(p[2], 0x0e);
	assert_int_equal(PACKET(W_CD, 36, 0x52, 1, 0, 0, 0, 1, 0, 0, 36), 0);
	assert_int_equal(PACKET(W_CD, 8, 0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8), 0);
	assert_int_equal(PACKET(W_CD, 4, 0x12, 0, 0, 0, 4), 0); /* only what is asked for */
	assert_int_equal(moved_of(W_CD, 0), 4);
	assert_int_equal(PACKET(W_CD, 4, 0x12, 1, 0x83, 0, 4), 5);
}

static unsigned media_event(unsigned port)
{
	const uint8_t *p = ram(&w, DATA);

	assert_int_equal(PACKET(port, 8, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 0);
	return (unsigned)p[4] << 8 | p[5];
}

static void test_cd_tray(void **state)
{
	(void)state;
	PACKET(W_CD, 0, 0);
	assert_int_equal(media_event(W_CD), 0x002);
	PACKET(W_CD, 0, 0x1e, 0, 0, 0, 1); /* PREVENT */
	assert_int_equal(PACKET(W_CD, 0, 0x1b, 0, 0, 0, 2), 5);
	sense_is(W_CD, 5, 0x53, 2);
	PACKET(W_CD, 0, 0x1e);
	assert_int_equal(PACKET(W_CD, 0, 0x1b, 0, 0, 0, 2), 0); /* eject */
	assert_int_equal(media_event(W_CD), 0x301);
	assert_int_equal(media_event(W_CD), 0x001);
	assert_int_equal(PACKET(W_CD, 0, 0), 2);
	sense_is(W_CD, 2, 0x3a, 2);
	assert_int_equal(PACKET(W_CD, 2048, 0x28, 0, 0, 0, 0, 0, 0, 0, 1), 2);
	assert_int_equal(PACKET(W_CD, 0, 0x1b, 0, 0, 0, 3), 0); /* load */
	assert_int_equal(media_event(W_CD), 0x202);
	assert_int_equal(PACKET(W_CD, 0, 0), 6);
	sense_is(W_CD, 6, 0x28, 0);
	assert_int_equal(PACKET(W_CD, 0, 0), 0);
}

/* --- bad configurations, hostile guests --- */

static void test_bad_units(void **state)
{
	struct storage_unit units[2] = {
		{.target = 6, .cdrom = true, .serial = "A"},
		{.target = 0, .cdrom = true, .serial = "B"},
	};
	struct storage_config cfg = {.bus = w.bus, .pci = w.pci, .mem = w.mem, .slot = 9};
	struct error err = {""};
	void *dev;

	(void)state;
	cfg.units = units;
	cfg.unit_count = 2;
	assert_int_equal(ahci_kind.create(&dev, &cfg, &err), -EINVAL);
	assert_non_null(strstr(err.text, "port 6"));
	units[0].target = 0;
	assert_int_equal(ahci_kind.create(&dev, &cfg, &err), -EINVAL);
	units[0] = (struct storage_unit){.target = 1, .serial = "C"}; /* a disk without a disk */
	assert_int_equal(ahci_kind.create(&dev, &cfg, &err), -EINVAL);
	units[0].cdrom = true;
	cfg.slot = W_SLOT;
	assert_int_equal(ahci_kind.create(&dev, &cfg, &err), -EEXIST);
	assert_null(dev);
}

static void test_hostile(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 400; round++) {
		uint8_t *tables = ram(&w, TABLES), *lists = ram(&w, LISTS);
		for (unsigned i = 0; i < 4 * 0x1000; i++)
			lists[i] = (uint8_t)rand();
		for (unsigned slot = 0; slot < 32; slot++) {
			unsigned port = (unsigned)rand() % W_UNITS;
			struct region r = {(uint64_t)rand() % (W_RAM + 4096),
					   1 + (uint32_t)rand() % 20000};
			struct fis f = {.command = (uint8_t)rand(),
					.device = (uint8_t)rand(),
					.feature = (uint16_t)(rand() & 0x0103),
					.count = (uint16_t)(rand() & 0x40ff),
					.lba = (uint64_t)rand() % 200000};
			prepare(port, slot, &f, &r, 1);
			tables[(unsigned)rand() % 0x40000] = (uint8_t)rand();
		}
		w.disk[0].later = rand() & 1;
		for (unsigned port = 0; port < W_UNITS; port++) {
			start_port(port);
			port_out(port, PX_SACT, (uint32_t)rand());
			port_out(port, PX_CI, (uint32_t)rand() | (uint32_t)rand() << 16);
		}
		scribble(BUS_MMIO, ABAR, 0x400, 60);
		fake_disk_run(&w.disk[0]);
		bus_out(BUS_MMIO, ABAR + 4, 4, rand() & 3);
		for (unsigned port = 0; port < W_UNITS; port++)
			port_out(port, PX_SCTL, 0);
	}
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers),
		T(test_hba_reset),
		T(test_interrupts),
		T(test_link),
		T(test_soft_reset),
		T(test_identify),
		T(test_scattered),
		T(test_many_regions),
		T(test_addresses),
		T(test_memory_errors),
		T(test_disk_errors),
		T(test_flush_and_cache),
		T(test_trim),
		T(test_logs_and_smart),
		T(test_queue),
		T(test_queue_error),
		T(test_queue_error_blocks),
		T(test_reset_in_flight),
		T(test_pins),
		T(test_destroy_in_flight),
		T(test_state),
		T(test_refused_state),
		T(test_cd_identify),
		T(test_cd_sense),
		T(test_cd_read),
		T(test_cd_answers),
		T(test_cd_tray),
		T(test_bad_units),
		T(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
