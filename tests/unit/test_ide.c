/* SPDX-License-Identifier: Apache-2.0 */
/* IDE: the task file, PIO, bus-master DMA, resets, two drives a channel. */
#include <errno.h>

#include "ata_test.h"

enum { BM = 0xc000, PRD = 0x8000, DATA = 0x100000, BLOCK = 0x1f0, CONTROL = 0x3f6 };
enum { BSY = 0x80, DRDY = 0x40, DRQ = 0x08, ERR_BIT = 1, READY = 0x50, READY_DRQ = 0x58 };

static struct world w;

static int setup(void **state)
{
	(void)state;
	wires_clear();
	world_make(&w, &ide_kind);
	config_write(0x20, BM);
	config_write(4, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	world_free(&w);
	return 0;
}

/* Where target t is: its channel's command block. */
static uint16_t block(unsigned t)
{
	return t < 2 ? 0x1f0 : 0x170;
}

static int irq(unsigned t)
{
	return wire_level[t < 2 ? W_WIRE_14 : W_WIRE_15];
}

static uint8_t status(unsigned t)
{
	return inb((uint16_t)(block(t) + 7));
}

struct file {
	uint8_t command, device;
	uint16_t feature, count;
	uint64_t lba;
};

/* Writes the task file, 48-bit high bytes first, and the command. */
static void command(unsigned t, const struct file *f)
{
	uint16_t b = block(t);

	outb(b + 6, (uint8_t)(f->device | (t & 1) << 4));
	for (unsigned high = 2; high-- > 0;) {
		outb(b + 1, (uint8_t)(f->feature >> (8 * high)));
		outb(b + 2, (uint8_t)(f->count >> (8 * high)));
		for (unsigned i = 0; i < 3; i++)
			outb((uint16_t)(b + 3 + i), (uint8_t)(f->lba >> (24 * high + 8 * i)));
	}
	outb(b + 7, f->command);
}

static void read_words(unsigned t, void *to, unsigned bytes)
{
	for (unsigned i = 0; i < bytes / 2; i++)
		((uint16_t *)to)[i] = inw(block(t));
}

/* A command without data. */
static uint8_t run(unsigned t, const struct file *f)
{
	command(t, f);
	return status(t);
}

static void test_signatures(void **state)
{
	(void)state;
	assert_int_equal(config_read(0), 0x71118086);
	assert_int_equal(config_read(8) >> 8, 0x010180);
	outb(BLOCK + 6, 0);
	assert_int_equal(status(0), READY);
	assert_int_equal(inb(BLOCK + 4), 0);
	outb(BLOCK + 6, 0x10);
	assert_int_equal(status(1), 0);
	assert_int_equal(inb(BLOCK + 4), 0x14);
	assert_int_equal(inb(BLOCK + 5), 0xeb);
	outb(CONTROL, 4); /* SRST */
	assert_int_equal(inb(CONTROL), BSY);
	outb(CONTROL, 0);
	assert_int_equal(inb(CONTROL), READY);
	assert_int_equal(inb(BLOCK + 1), 1);
	assert_int_equal(inb(BLOCK + 2), 1);
	assert_int_equal(inb(BLOCK + 6) & 0x10, 0);
	outb(BLOCK + 7, 0x90); /* EXECUTE DEVICE DIAGNOSTIC */
	assert_int_equal(irq(0), 1);
	assert_int_equal(inb(BLOCK + 1), 1);
	assert_int_equal(status(0), READY);
	assert_int_equal(irq(0), 0);
}

/* A channel with one drive, and one with none. */
static void test_missing(void **state)
{
	struct storage_unit unit = {.target = 0, .disk = &w.disk[0], .serial = "A"};
	struct storage_config cfg = {.bus = w.bus,
				     .pci = w.pci,
				     .mem = w.mem,
				     .slot = 9,
				     .units = &unit,
				     .unit_count = 1};
	void *dev;

	(void)state;
	assert_int_equal(ide_kind.create(&dev, &cfg, NULL), 0); /* lies over the other one */
	outb(BLOCK + 6, 0x10);
	assert_int_equal(status(1), 0);
	outb(BLOCK + 2, 0x55);
	assert_int_equal(inb(BLOCK + 2), 0);
	outb(BLOCK + 7, 0xec);
	assert_int_equal(status(1), 0);
	assert_int_equal(inb(0x177), 0x7f);
	assert_int_equal(inb(0x376), 0x7f);
	outb(0x172, 0x55);
	assert_int_equal(inb(0x172), 0x7f);
	ide_kind.ops.destroy(dev);
	unit.target = 4;
	assert_int_equal(ide_kind.create(&dev, &cfg, NULL), -EINVAL);
}

static void test_identify(void **state)
{
	uint8_t data[512];
	char text[41];

	(void)state;
	command(0, &(struct file){.command = 0xec});
	assert_int_equal(irq(0), 1);
	assert_int_equal(status(0), READY_DRQ);
	assert_int_equal(irq(0), 0);
	read_words(0, data, 510);
	assert_int_equal(inb(CONTROL), READY_DRQ);
	read_words(0, data + 510, 2);
	assert_int_equal(inb(CONTROL), READY);
	assert_int_equal(irq(0), 0); /* none after data in */
	identify_text(data, 10, 19, text);
	assert_string_equal(text, "HANOK00-00");
	assert_int_equal(le16(data + 76 * 2), 0); /* no SATA */
	assert_int_equal(inw(BLOCK), 0);	  /* nothing more */
	assert_int_equal(run(0, &(struct file){.command = 0x60}), READY | ERR_BIT);
	assert_int_equal(run(1, &(struct file){.command = 0xec}), READY | ERR_BIT);
	assert_int_equal(inb(BLOCK + 5), 0xeb);
	command(1, &(struct file){.command = 0xa1});
	assert_int_equal(status(1), READY_DRQ);
	read_words(1, data, 512);
	assert_int_equal(le16(data), 0x85c0);
}

/* Data in and out by blocks of a sector and of 16, across the buffer's end. */
static void test_pio(void **state)
{
	static uint8_t data[200 * 512];
	struct file f = {.command = 0x24, .device = 0x40, .count = 200, .lba = 300};

	(void)state;
	command(0, &f);
	for (unsigned i = 0; i < 200; i++) {
		assert_int_equal(irq(0), 1);
		assert_int_equal(status(0), READY_DRQ);
		read_words(0, data + i * 512, 512);
	}
	assert_int_equal(status(0), READY);
	assert_memory_equal(data, w.disk[0].bytes + 300 * 512, sizeof(data));

	f.command = 0x39; /* WRITE MULTIPLE EXT, by dwords */
	f.lba = 9000;
	command(0, &f);
	assert_int_equal(irq(0), 0); /* none before the first block */
	for (unsigned at = 0; at < sizeof(data);) {
		unsigned n = sizeof(data) - at < 8192 ? (unsigned)sizeof(data) - at : 8192;
		assert_int_equal(status(0), READY_DRQ);
		for (unsigned end = at + n; at < end; at += 4) {
			uint32_t v;
			memcpy(&v, data + at, 4);
			outl(BLOCK, v);
		}
		assert_int_equal(irq(0), 1);
	}
	assert_int_equal(status(0), READY);
	assert_memory_equal(data, w.disk[0].bytes + 9000 * 512, sizeof(data));
	assert_int_equal(w.disk[0].count[DISK_WRITE], 2);
}

static void test_errors(void **state)
{
	struct file f = {.command = 0x20, .device = 0x40, .count = 4, .lba = 0x1234};
	uint8_t data[512];

	(void)state;
	w.disk[0].error[DISK_READ] = -EIO;
	command(0, &f);
	assert_int_equal(irq(0), 1);
	assert_int_equal(status(0), READY | ERR_BIT);
	assert_int_equal(inb(BLOCK + 1), ATA_E_UNC);
	assert_int_equal(inb(BLOCK + 3), 0x34);
	assert_int_equal(inb(BLOCK + 4), 0x12);
	w.disk[0].error[DISK_READ] = 0;
	f.device = 0x4f;
	assert_int_equal(run(0, &f), READY | ERR_BIT);
	assert_int_equal(inb(BLOCK + 1), ATA_E_IDNF);
	f = (struct file){.command = 0x34, .device = 0x40, .count = 1, .lba = 1};
	assert_int_equal(run(W_READ_ONLY, &f), READY | ERR_BIT);
	w.disk[0].error[DISK_WRITE] = -ENOSPC;
	command(0, &f);
	for (unsigned i = 0; i < 256; i++)
		outw(BLOCK, 0);
	assert_int_equal(irq(0), 1);
	assert_int_equal(status(0), READY | ERR_BIT);
	assert_int_equal(inb(BLOCK + 1), ATA_E_ABRT);
	/* READ MULTIPLE with no multiple set. */
	assert_int_equal(run(0, &(struct file){.command = 0xc6, .count = 3}), READY | ERR_BIT);
	assert_int_equal(run(0, &(struct file){.command = 0xc6, .count = 0}), READY);
	assert_int_equal(run(0, &(struct file){.command = 0xc4, .device = 0x40, .count = 1}),
			 READY | ERR_BIT);
	command(0, &(struct file){.command = 0xec});
	read_words(0, data, 512);
	assert_int_equal(le16(data + 59 * 2), 0);
}

static void test_nien_and_hob(void **state)
{
	struct file f = {.command = 0x27, .device = 0x40};

	(void)state;
	outb(CONTROL, 2);
	command(0, &f);
	assert_int_equal(irq(0), 0);
	assert_int_equal(inb(BM + 2) & 4, 0);
	outb(CONTROL, 0); /* was only held back */
	assert_int_equal(irq(0), 1);
	status(0);
	const uint32_t last = W_DISK_BYTES / 512 - 1;
	assert_int_equal(inb(BLOCK + 3), last & 0xff);
	assert_int_equal(inb(BLOCK + 5), last >> 16 & 0xff);
	outb(BLOCK + 3, 0x11);
	outb(BLOCK + 3, 0x22);
	assert_int_equal(inb(BLOCK + 3), 0x22);
	outb(CONTROL, 0x80);
	assert_int_equal(inb(BLOCK + 3), 0x11);
	outb(BLOCK + 4, 0); /* any write ends it */
	assert_int_equal(inb(BLOCK + 3), 0x22);
	/* The decode bit takes the ports away. */
	config_write(0x40, 0x80000000);
	assert_int_equal(inb(BLOCK + 7), 0xff);
	assert_int_equal(inb(0x177), 0); /* the CD drive's, of the other channel */
}

/* --- bus master --- */

static void put_region(unsigned i, uint32_t gpa, uint32_t len, bool last)
{
	uint32_t *p = ram(&w, PRD + i * 8);

	p[0] = gpa;
	p[1] = (len & 0xffff) | (last ? 1u << 31 : 0);
}

static void test_dma(void **state)
{
	struct file f = {.command = 0x25, .device = 0x40, .count = 256, .lba = 64};

	(void)state;
	put_region(0, DATA, 2, false);
	put_region(1, DATA + 0x100, 0, false); /* 64 KiB */
	put_region(2, DATA + 0x20000, 0xfffe, true);
	outl(BM + 4, PRD | 3);
	assert_int_equal(inl(BM + 4), PRD);
	command(0, &f);
	assert_int_equal(irq(0), 0);
	assert_true(status(0) & DRQ);
	outb(BM, 8 | 1);
	assert_int_equal(irq(0), 1);
	assert_int_equal(inb(BM + 2), 4); /* interrupt, no longer active */
	assert_int_equal(status(0), READY);
	outb(BM, 8);
	outb(BM + 2, 4 | 0x60);
	assert_int_equal(inb(BM + 2), 0x60);
	const uint8_t *disk = w.disk[0].bytes + 64 * 512;
	assert_memory_equal(ram(&w, DATA), disk, 2);
	assert_memory_equal(ram(&w, DATA + 0x100), disk + 2, 0x10000);
	assert_memory_equal(ram(&w, DATA + 0x20000), disk + 0x10002, 0xfffe);

	f.command = 0x35; /* the bus master may be started first */
	f.lba = 5000;
	outb(BM, 1);
	command(0, &f);
	assert_int_equal(status(0), READY);
	outb(BM, 0);
	assert_memory_equal(w.disk[0].bytes + 5000 * 512, disk, 256 * 512);
}

static void test_dma_tables(void **state)
{
	struct file f = {.command = 0xc8, .device = 0x40, .count = 4, .lba = 64};

	(void)state;
	outl(BM + 4, PRD);
	put_region(0, DATA, 8192, true); /* longer than the data: stays active */
	command(0, &f);
	outb(BM, 9);
	assert_int_equal(inb(BM + 2), 5);
	assert_int_equal(status(0), READY);
	outb(BM, 8);
	assert_int_equal(inb(BM + 2), 4);
	outb(BM + 2, 4);

	put_region(0, DATA, 1024, true); /* shorter: the drive waits for another table */
	memset(ram(&w, DATA), 0, 2048);
	command(0, &f);
	outb(BM, 9);
	assert_int_equal(inb(BM + 2), 0);
	assert_int_equal(irq(0), 0);
	assert_true(inb(CONTROL) & DRQ);
	assert_memory_equal(ram(&w, DATA), w.disk[0].bytes + 64 * 512, 1024);
	put_region(0, DATA + 1024, 1024, true);
	outb(BM, 8);
	outb(BM, 9);
	assert_int_equal(inb(BM + 2), 4);
	assert_int_equal(status(0), READY);
	assert_memory_equal(ram(&w, DATA), w.disk[0].bytes + 64 * 512, 2048);
	outb(BM, 8);

	put_region(0, W_RAM - 512, 2048, true); /* no memory */
	command(0, &f);
	outb(BM, 9);
	assert_int_equal(inb(BM + 2) & 3, 2);
	assert_int_equal(status(0), READY | ERR_BIT);
	outb(BM, 8);
	outb(BM + 2, 6);
	put_region(0, DATA, 2048, true);
	command(0, &f);
	outb(BM, 1); /* the wrong way */
	assert_int_equal(status(0), READY | ERR_BIT);
	outb(BM, 0);
	config_write(4, PCI_COMMAND_IO); /* not a bus master */
	command(0, &f);
	outb(BM, 9);
	assert_int_equal(status(0), READY | ERR_BIT);
}

/* --- ATAPI --- */

static void send_packet(unsigned t, const uint8_t *p, unsigned limit, bool dma)
{
	command(t, &(struct file){.command = 0xa0, .feature = dma, .lba = (uint64_t)limit << 8});
	assert_int_equal(status(t), READY_DRQ);
	assert_int_equal(inb((uint16_t)(block(t) + 2)), 1); /* command, to the drive */
	for (unsigned i = 0; i < 12; i += 2)
		outw(block(t), (uint16_t)(p[i] | p[i + 1] << 8));
}

static void test_packet(void **state)
{
	static const uint8_t ready[12], sense[12] = {3, 0, 0, 0, 18},
					inquiry[12] = {0x12, 0, 0, 0, 5};
	static const uint8_t read[12] = {0x28, 0, 0, 0, 0, 7, 0, 0, 3};
	uint8_t data[6144];

	(void)state;
	send_packet(1, ready, 0, false);
	assert_int_equal(irq(1), 1);
	assert_int_equal(status(1), READY | ERR_BIT);
	assert_int_equal(inb(BLOCK + 1), 6 << 4 | 4);
	assert_int_equal(inb(BLOCK + 2), 3); /* the end */
	send_packet(1, sense, 64, false);
	assert_int_equal(irq(1), 1);
	assert_int_equal(status(1), READY_DRQ);
	assert_int_equal(inb(BLOCK + 2), 2);
	assert_int_equal(inb(BLOCK + 4) | inb(BLOCK + 5) << 8, 18);
	read_words(1, data, 18);
	assert_int_equal(data[12], 0x29);
	assert_int_equal(irq(1), 1); /* with the end */
	assert_int_equal(status(1), READY);
	send_packet(1, inquiry, 0xffff, false); /* an odd length: a pad byte comes along */
	assert_int_equal(inb(BLOCK + 4), 5);
	read_words(1, data, 6);
	assert_int_equal(status(1), READY);
	/* A limit of 4097 makes blocks of 4096. */
	send_packet(1, read, 4097, false);
	assert_int_equal(inb(BLOCK + 5), 0x10);
	read_words(1, data, 4096);
	assert_int_equal(irq(1), 1);
	assert_int_equal(status(1), READY_DRQ);
	assert_int_equal(inb(BLOCK + 5), 0x08);
	read_words(1, data + 4096, 2048);
	assert_int_equal(status(1), READY);
	assert_memory_equal(data, w.disk[W_CD].bytes + 7 * 2048, 6144);
	/* And by DMA. */
	put_region(0, DATA, 6144, true);
	outl(BM + 4, PRD);
	send_packet(1, read, 0, true);
	outb(BM, 9);
	assert_int_equal(inb(BM + 2), 4);
	assert_int_equal(status(1), READY);
	assert_memory_equal(ram(&w, DATA), data, 6144);
	/* DEVICE RESET in the middle of a packet. */
	command(1, &(struct file){.command = 0xa0});
	outb(BLOCK + 7, 0x08);
	assert_int_equal(status(1), 0);
	assert_int_equal(inb(BLOCK + 4), 0x14);
	send_packet(1, ready, 0, false);
	assert_int_equal(inb(BLOCK + 1) >> 4, 6);
}

/* --- requests under way --- */

/* The controller holds a command's memory while the disk has it. */
static void test_pins(void **state)
{
	struct file f = {.command = 0x25, .device = 0x40, .count = 4, .lba = 64};

	(void)state;
	outl(BM + 4, PRD);
	put_region(0, DATA, 1024, true); /* too short: the drive waits */
	command(0, &f);
	outb(BM, 9);
	assert_int_equal(pinned_pages(w.mem), 0);
	outb(BM, 8);
	put_region(0, W_RAM, 1024, true); /* none */
	outb(BM, 9);
	assert_int_equal(pinned_pages(w.mem), 0);
	outb(BM, 8);
	put_region(0, DATA + 0xf00, 2048, true);
	for (unsigned write = 0; write < 2; write++) {
		f.command = write ? 0x35 : 0x25;
		w.disk[0].later = false;
		w.disk[0].error[DISK_READ] = w.disk[0].error[DISK_WRITE] = -EIO;
		command(0, &f);
		outb(BM, write ? 1 : 9);
		outb(BM, write ? 0 : 8);
		assert_true(status(0) & ERR_BIT);
		assert_int_equal(pinned_pages(w.mem), 0);
		w.disk[0].later = true;
		command(0, &f);
		outb(BM, write ? 1 : 9);
		assert_int_equal(all_pins(w.mem), 2);
		outb(BM, write ? 0 : 8); /* stopped in the middle */
		outb(CONTROL, 4);
		outb(CONTROL, 0);
		assert_int_equal(all_pins(w.mem), 2);
		fake_disk_run(&w.disk[0]);
		assert_int_equal(pinned_pages(w.mem), 0);
	}
}

static void test_in_flight(void **state)
{
	struct file f = {.command = 0x25, .device = 0x40, .count = 4, .lba = 64};

	(void)state;
	w.disk[0].later = true;
	outl(BM + 4, PRD);
	put_region(0, DATA, 2048, true);
	command(0, &f);
	outb(BM, 9);
	assert_true(inb(CONTROL) & BSY);
	assert_int_equal(inb(BM + 2) & 1, 1);
	outb(BLOCK + 7, 0xec); /* a busy drive does not listen */
	outb(BLOCK + 6, 0x10);
	assert_true(inb(CONTROL) & BSY);
	fake_disk_run(&w.disk[0]);
	assert_int_equal(irq(0), 1);
	assert_int_equal(status(0), READY);
	outb(BM, 8);
	/* Stopped in the middle: the memory is the disk's a little longer. */
	outb(BM + 2, 4);
	command(0, &f);
	outb(BM, 9);
	outb(BM, 8);
	assert_int_equal(inb(BM + 2) & 1, 1);
	outb(CONTROL, 4);
	outb(CONTROL, 0);
	assert_int_equal(inb(CONTROL), BSY);
	fake_disk_run(&w.disk[0]);
	assert_int_equal(inb(CONTROL), READY);
	assert_int_equal(inb(BM + 2) & 1, 0);
	assert_int_equal(irq(0), 0);
	/* The machine's reset. */
	command(0, &f);
	outb(BM, 9);
	assert_int_equal(w.disk[0].waiting_count, 1);
	ide_kind.ops.reset(w.dev);
	assert_int_equal(w.disk[0].waiting_count, 0);
	assert_int_equal(inb(CONTROL), READY);
	assert_int_equal(irq(0), 0);
	/* A flush, and the end. */
	command(0, &(struct file){.command = 0xe7});
	assert_int_equal(inb(CONTROL), BSY);
}

/* Saved in the middle of data out, with a packet waiting on the other channel. */
static void test_state(void **state)
{
	static struct world other;
	struct file f = {.command = 0x34, .device = 0x40, .count = 2, .lba = 77};

	(void)state;
	command(0, &f);
	for (unsigned i = 0; i < 300; i++)
		outw(BLOCK, (uint16_t)(i * 3));
	command(2, &(struct file){.command = 0xa0});
	outw(0x170, 0x0012);
	world_make(&other, &ide_kind);
	round_trip(&ide_kind.ops, w.dev, other.dev);
	struct world first = w;
	w = other;
	test_bus = w.bus;
	for (unsigned i = 300; i < 512; i++) {
		assert_true(inb(CONTROL) & DRQ);
		outw(BLOCK, (uint16_t)(i * 3));
	}
	assert_int_equal(status(0), READY);
	for (unsigned i = 0; i < 512; i++)
		assert_int_equal(le16(w.disk[0].bytes + 77 * 512 + i * 2), (uint16_t)(i * 3));
	outw(0x170, 0);
	outw(0x170, 5);
	for (unsigned i = 0; i < 3; i++)
		outw(0x170, 0);
	assert_int_equal(status(2), READY_DRQ);
	assert_int_equal(inw(0x170), 0x8005); /* INQUIRY: a removable CD drive */
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

static void test_hostile(void **state)
{
	static const uint8_t likely[] = {0x20, 0x24, 0x25, 0x30, 0x34, 0x35, 0xc4, 0xc5, 0xc8,
					 0xca, 0xec, 0xa0, 0xa1, 0x06, 0x08, 0xb0, 0x2f, 0x47};

	(void)state;
	for (unsigned round = 0; round < 3000; round++) {
		unsigned t = (unsigned)rand() % 4;
		w.disk[t].later = rand() & 1;
		for (unsigned i = 0; i < 8; i++)
			put_region(i, (uint32_t)rand() % (W_RAM + 8192), (uint32_t)rand(),
				   rand() % 4 == 0);
		outl(BM + 4, PRD);
		outl(BM + 12, PRD);
		command(t, &(struct file){.command = likely[(unsigned)rand() % sizeof(likely)],
					  .device = (uint8_t)(rand() & 0x40),
					  .feature = (uint16_t)(rand() & 1),
					  .count = (uint16_t)(rand() & 0xff),
					  .lba = (uint64_t)rand() & 0xffff});
		for (unsigned i = 0; i < 400; i++)
			rand() & 1 ? outw(block(t), (uint16_t)rand()) : (void)inw(block(t));
		scribble(BUS_PIO, BM, 16, 8);
		scribble(BUS_PIO, block(t), 8, 10);
		if (rand() % 8 == 0)
			scribble(BUS_PIO, 0x3f6, 1, 2);
		fake_disk_run(&w.disk[t]);
	}
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_signatures),    T(test_missing),	     T(test_identify), T(test_pio),
		T(test_errors),	       T(test_nien_and_hob), T(test_dma),      T(test_dma_tables),
		T(test_packet),	       T(test_in_flight),    T(test_state),    T(test_hostile),
		T(test_refused_state), T(test_pins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
