/* SPDX-License-Identifier: Apache-2.0 */
/* Virtio: registers, rings and block requests, driven as a driver does it, and as one must not. */
#include "dev/virtio/blk.h"
#include "dev/virtio/virtio.h"
#include "fake_loop.h"
#include "scsi_test.h"

enum { MODERN = TEST_BAR + 0x100000, MSIX = TEST_BAR + 0x200000, LEGACY = 0xc000, OTHER_SLOT = 4 };
enum { COMMON = MODERN, ISR = MODERN + 0x1000, CONFIG = MODERN + 0x2000, NOTIFY = MODERN + 0x3000 };
enum {
	SIZE = 8,
	DESC = 0x10000,
	AVAIL = 0x11000,
	USED = 0x12000,
	HEADER = 0x13000,
	STATUS = 0x14000
};
enum { TABLE = 0x15000, RANGES = 0x16000, DATA = 0x100000 };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
enum { NEEDS_RESET = 64, ALL_OK = 15 };
enum { T_IN, T_OUT, T_FLUSH = 4, T_ID = 8, T_DISCARD = 11, T_ZEROES = 13 };

static struct virtio *dev; /* first in every virtio device of ours */
static unsigned next_desc, avail_idx, used_seen;

static struct virtio *make(unsigned slot, uint64_t bar, unsigned cpus)
{
	static const struct storage_unit units[] = {{.disk = &test_disk[0], .serial = "SERIAL-0"}};
	struct storage_config cfg = {.bus = test_bus,
				     .pci = chipset_pci(test_chipset),
				     .slot = slot,
				     .mem = test_mem,
				     .cpus = cpus,
				     .units = units,
				     .unit_count = 1};
	struct error err = {""};
	void *made;

	assert_int_equal(virtio_blk_kind.create(&made, &cfg, &err), 0);
	cfg_write(slot, PCI_BAR0, 4, LEGACY);
	cfg_write(slot, PCI_BAR0 + 4, 4, (uint32_t)bar + 0x100000);
	cfg_write(slot, PCI_BAR0 + 16, 4, (uint32_t)bar);
	cfg_write(slot, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	return made;
}

static uint32_t rd(uint64_t at, unsigned size)
{
	return (uint32_t)bus_in(BUS_MMIO, at, size);
}

static void wr(uint64_t at, unsigned size, uint64_t v)
{
	bus_out(BUS_MMIO, at, size, v);
}

/* The way up to DRIVER_OK with these features of the lower 32 besides VERSION_1, and queue 0. */
static void bring_up(uint32_t features)
{
	wr(COMMON + 0x14, 1, 0);
	wr(COMMON + 0x14, 1, 3);
	wr(COMMON + 0x08, 4, 0);
	wr(COMMON + 0x0c, 4, features);
	wr(COMMON + 0x08, 4, 1);
	wr(COMMON + 0x0c, 4, 1);
	wr(COMMON + 0x14, 1, 11);
	assert_int_equal(rd(COMMON + 0x14, 1), 11);
	wr(COMMON + 0x16, 2, 0);
	wr(COMMON + 0x18, 2, SIZE);
	wr(COMMON + 0x20, 8, DESC);
	wr(COMMON + 0x28, 8, AVAIL);
	wr(COMMON + 0x30, 8, USED);
	wr(COMMON + 0x1c, 2, 1);
	wr(COMMON + 0x14, 1, ALL_OK);
	memset(ram(DESC), 0, 0x3000);
	next_desc = avail_idx = used_seen = 0;
}

static int setup(void **state)
{
	(void)state;
	test_machine();
	fake_loop_reset();
	dev = make(TEST_SLOT, MODERN, 1);
	for (unsigned i = 0; i < TEST_DISK_BYTES; i++)
		test_disk[0].bytes[i] = (uint8_t)(i * 7 + i / 512);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	virtio_blk_kind.ops.destroy(dev);
	test_machine_end();
	return 0;
}

static void desc(unsigned i, uint64_t gpa, uint32_t len, unsigned flags, unsigned next)
{
	ram_put64(DESC + 16 * i, gpa);
	ram_put32(DESC + 16 * i + 8, len);
	ram_put32(DESC + 16 * i + 12, flags | next << 16);
}

static void offer(unsigned head)
{
	uint16_t v = (uint16_t)head;

	memcpy(ram(AVAIL + 4 + 2 * (avail_idx % SIZE)), &v, 2);
	v = (uint16_t)++avail_idx;
	memcpy(ram(AVAIL + 2), &v, 2);
}

static void kick(void)
{
	wr(NOTIFY, 2, 0);
}

static unsigned used_idx(void)
{
	return ram_get32(USED) >> 16;
}

static void header(uint32_t type, uint64_t sector)
{
	ram_put32(HEADER, type);
	ram_put32(HEADER + 4, 0);
	ram_put64(HEADER + 8, sector);
	*ram(STATUS) = 0xff;
}

/* A request in the first three descriptors; returns its status. */
static unsigned request(uint32_t type, uint64_t sector, uint64_t gpa, uint32_t len)
{
	bool in = type == T_IN || type == T_ID;
	unsigned before = used_idx();

	header(type, sector);
	desc(0, HEADER, 16, NEXT, len ? 1 : 2);
	desc(1, gpa, len, NEXT | (in ? WRITE : 0), 2);
	desc(2, STATUS, 1, WRITE, 0);
	offer(0);
	kick();
	disk_drain(&test_disk[0]);
	assert_int_equal((used_idx() - before) & 0xffff, 1);
	assert_int_equal(ram_get32(USED + 4 + 8 * (before % SIZE)), 0);
	assert_int_equal(ram_get32(USED + 8 + 8 * (before % SIZE)), in ? len + 1 : 1);
	return *ram(STATUS);
}

static void must_work(void)
{
	assert_int_equal(request(T_IN, 3, DATA, 1024), 0);
	assert_memory_equal(ram(DATA), test_disk[0].bytes + 3 * 512, 1024);
}

static void test_registers(void **state)
{
	(void)state;
	assert_int_equal(cfg_read(TEST_SLOT, 0, 4), 0x10011af4);
	wr(COMMON, 4, 1);
	assert_int_equal(rd(COMMON + 4, 4), 1); /* VERSION_1 */
	wr(COMMON, 4, 2);
	assert_int_equal(rd(COMMON + 4, 4), 0);
	assert_int_equal(rd(COMMON + 0x12, 2), 1);
	assert_int_equal(rd(CONFIG, 4), TEST_DISK_BYTES / 512);
	wr(COMMON + 0x16, 2, 0);
	assert_int_equal(rd(COMMON + 0x18, 2), 256);
	wr(COMMON + 0x18, 2, 100); /* not a power of two */
	assert_int_equal(rd(COMMON + 0x18, 2), 256);
	wr(COMMON + 0x16, 2, 1);
	assert_int_equal(rd(COMMON + 0x18, 2), 0); /* no such queue */
	/* What was not offered is not agreed on, nor is a device of version 0. */
	wr(COMMON + 0x14, 1, 3);
	wr(COMMON + 0x0c, 4, 1 << 30);
	wr(COMMON + 0x14, 1, 11);
	assert_int_equal(rd(COMMON + 0x14, 1), 3);
	bring_up(0);
	must_work();
}

static void test_requests(void **state)
{
	(void)state;
	for (unsigned legacy = 0; legacy < 2; legacy++) {
		test_disk[0].later = legacy; /* both ways a request can end */
		bring_up(1 << 9 | 1 << 13 | 1 << 14);
		must_work();
		memset(ram(DATA), 0x5a, 2048);
		assert_int_equal(request(T_OUT, 100, DATA, 2048), 0);
		assert_memory_equal(test_disk[0].bytes + 100 * 512, ram(DATA), 2048);
		unsigned flushes = test_disk[0].count[DISK_FLUSH];
		assert_int_equal(request(T_FLUSH, 0, 0, 0), 0);
		assert_int_equal(test_disk[0].count[DISK_FLUSH], flushes + 1);
		assert_int_equal(request(T_ID, 0, DATA, 20), 0);
		assert_string_equal((char *)ram(DATA), "SERIAL-0");
		assert_int_equal(request(T_IN, TEST_DISK_BYTES / 512 - 1, DATA, 1024), 1);
		assert_int_equal(request(T_IN, UINT64_MAX / 512, DATA, 512), 1);
		assert_int_equal(request(T_IN, UINT64_MAX, DATA, 512), 1);
		assert_int_equal(request(T_IN, 0, DATA, 100), 1);
		assert_int_equal(request(77, 0, DATA, 512), 2);
		test_disk[0].error[DISK_WRITE] = -ENOSPC;
		assert_int_equal(request(T_OUT, 0, DATA, 512), 1);
		test_disk[0].error[DISK_WRITE] = 0;
		/* Two ranges, the second of which is too long by one. */
		ram_put64(RANGES, 8);
		ram_put64(RANGES + 8, 8);
		ram_put64(RANGES + 16, TEST_DISK_BYTES / 512 - 1);
		ram_put64(RANGES + 24, 1);
		assert_int_equal(request(T_DISCARD, 0, RANGES, 32), 0);
		assert_int_equal(test_disk[0].bytes[8 * 512], 0xdd);
		assert_int_equal(test_disk[0].bytes[TEST_DISK_BYTES - 1], 0xdd);
		assert_int_equal(request(T_ZEROES, 0, RANGES, 32), 0);
		assert_int_equal(test_disk[0].bytes[8 * 512], 0);
		ram_put64(RANGES + 24, 2);
		assert_int_equal(request(T_DISCARD, 0, RANGES, 32), 1);
		assert_int_equal(request(T_DISCARD, 0, RANGES, 31), 1);
		ram_put64(RANGES + 24, UINT64_C(1) << 32 | 1); /* "unmap" is not for a discard */
		assert_int_equal(request(T_DISCARD, 0, RANGES, 32), 2);
		assert_int_equal(request(T_ZEROES, 0, RANGES, 32), 0);
	}
}

/* Without a flush command, or with the cache off, each write is stable when it is over. */
static void test_write_through(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 2; how++) {
		bring_up(how ? 1 << 9 | 1 << 11 : 0);
		if (how) {
			assert_int_equal(rd(CONFIG + 32, 1), 1);
			assert_int_equal(request(T_OUT, 0, DATA, 512), 0);
			assert_int_equal(test_disk[0].count[DISK_FLUSH], 1);
			wr(CONFIG + 32, 1, 0);
		}
		assert_int_equal(request(T_OUT, 0, DATA, 512), 0);
		assert_int_equal(test_disk[0].count[DISK_FLUSH], 1 + how);
	}
}

/* Header, data and status over odd pieces, in an indirect table. */
static void test_pieces(void **state)
{
	static const struct {
		uint64_t gpa;
		uint32_t len, flags;
	} piece[] = {{HEADER, 5, NEXT},
		     {HEADER + 5, 11, NEXT},
		     {DATA, 1, NEXT | WRITE},
		     {DATA + 0x1001, 510, NEXT | WRITE},
		     {DATA + 0x2000, 2, WRITE}}; /* a byte of data, and the status */

	(void)state;
	bring_up(1u << 28);
	header(T_IN, 9);
	for (unsigned i = 0; i < 5; i++) {
		ram_put64(TABLE + 16 * i, piece[i].gpa);
		ram_put32(TABLE + 16 * i + 8, piece[i].len);
		ram_put32(TABLE + 16 * i + 12, piece[i].flags | (i + 1) << 16);
	}
	*ram(DATA + 0x2001) = 0xff;
	desc(0, TABLE, 5 * 16, INDIRECT, 0);
	offer(0);
	kick();
	assert_int_equal(used_idx(), 1);
	assert_int_equal(*ram(DATA + 0x2001), 0);
	const uint8_t *sector = test_disk[0].bytes + 9 * 512;
	assert_int_equal(*ram(DATA), sector[0]);
	assert_memory_equal(ram(DATA + 0x1001), sector + 1, 510);
	assert_int_equal(*ram(DATA + 0x2000), sector[511]);
}

/* What a driver must not do breaks the device until it is reset, and nothing else. */
static void broken(void (*how)(void))
{
	uint64_t before = dev->stats.broken;

	bring_up(1u << 28);
	must_work();
	header(T_IN, 0);
	how();
	kick();
	assert_int_equal(rd(COMMON + 0x14, 1), ALL_OK | NEEDS_RESET);
	assert_int_equal(dev->stats.broken, before + 1);
	kick();
	assert_int_equal(dev->stats.broken, before + 1);
	bring_up(0);
	must_work();
}

static void circle(void)
{
	desc(0, HEADER, 16, NEXT, 1);
	desc(1, HEADER, 16, NEXT, 0);
	offer(0);
}
static void number(void)
{
	offer(SIZE);
}
static void next_number(void)
{
	desc(0, HEADER, 16, NEXT, 4711);
	offer(0);
}
static void too_many(void)
{
	avail_idx += SIZE;
	offer(0);
}
static void order(void)
{
	desc(0, DATA, 16, NEXT | WRITE, 1);
	desc(1, HEADER, 16, 0, 0);
	offer(0);
}
static void outside(void)
{
	desc(0, TEST_RAM - 8, 16, 0, 0);
	offer(0);
}
static void far_outside(void)
{
	desc(0, UINT64_MAX - 8, 16, 0, 0);
	offer(0);
}
static void no_status(void)
{
	desc(0, HEADER, 16, 0, 0);
	offer(0);
}
static void indirect_length(void)
{
	desc(0, TABLE, 17, INDIRECT, 0);
	offer(0);
}
static void indirect_chain(void)
{
	desc(0, TABLE, 16, INDIRECT | NEXT, 1);
	offer(0);
}
static void indirect_within(void)
{
	ram_put64(TABLE, TABLE);
	ram_put32(TABLE + 8, 16);
	ram_put32(TABLE + 12, INDIRECT);
	desc(0, TABLE, 16, INDIRECT, 0);
	offer(0);
}
static void indirect_circle(void)
{
	ram_put64(TABLE, HEADER);
	ram_put32(TABLE + 8, 16);
	ram_put32(TABLE + 12, NEXT);
	desc(0, TABLE, 16, INDIRECT, 0);
	offer(0);
}

static void test_broken_rings(void **state)
{
	static void (*const ways[])(void) = {
		circle,		number,		 next_number,	  too_many,
		order,		outside,	 no_status,	  indirect_length,
		indirect_chain, indirect_within, indirect_circle, far_outside,
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		broken(ways[i]);
	/* Rings that are not in memory. */
	wr(COMMON + 0x14, 1, 0);
	wr(COMMON + 0x20, 8, TEST_RAM - 64);
	wr(COMMON + 0x28, 8, AVAIL);
	wr(COMMON + 0x30, 8, USED);
	wr(COMMON + 0x1c, 2, 1);
	assert_int_equal(rd(COMMON + 0x1c, 2), 0);
	assert_true(rd(COMMON + 0x14, 1) & NEEDS_RESET);
	bring_up(0);
	must_work();
}

/* One interrupt for a batch; none where the driver does not want it. */
static void test_interrupts(void **state)
{
	(void)state;
	bring_up(0);
	must_work();
	assert_int_equal(wire_level[TEST_PIN], 1);
	assert_int_equal(rd(ISR, 1), 1);
	assert_int_equal(wire_level[TEST_PIN], 0);
	ram_put32(AVAIL, 1 | avail_idx << 16); /* NO_INTERRUPT */
	must_work();
	assert_int_equal(wire_level[TEST_PIN], 0);

	/* Event indices: only when the third is used. */
	bring_up(1u << 29);
	uint16_t event = 2;
	memcpy(ram(AVAIL + 4 + 2 * SIZE), &event, 2);
	must_work();
	must_work();
	assert_int_equal(wire_level[TEST_PIN], 0);
	must_work();
	assert_int_equal(wire_level[TEST_PIN], 1);
	assert_int_equal(rd(ISR, 1), 1);
	/* The device asks for the next notification. */
	assert_int_equal(ram_get32(USED + 4 + 8 * SIZE) & 0xffff, avail_idx);

	/* Messages. */
	unsigned cap = cfg_read(TEST_SLOT, PCI_CAPABILITIES, 1);
	while (cfg_read(TEST_SLOT, cap, 1) != 0x11)
		cap = cfg_read(TEST_SLOT, cap + 1, 1);
	cfg_write(TEST_SLOT, cap + 2, 2, 0x8000);
	wr(MSIX + 16, 4, 0xfee00000);
	wr(MSIX + 28, 4, 0);
	bring_up(0);
	wr(COMMON + 0x16, 2, 0);
	wr(COMMON + 0x1a, 2, 7); /* there are two */
	assert_int_equal(rd(COMMON + 0x1a, 2), 0xffff);
	wr(COMMON + 0x1a, 2, 1);
	must_work();
	assert_int_equal(test_messages, 1);
	assert_int_equal(wire_level[TEST_PIN], 0);
}

/* A reset with a request in flight: the status tells when the memory is the driver's again. */
static void test_reset_in_flight(void **state)
{
	(void)state;
	bring_up(0);
	test_disk[0].later = true;
	header(T_IN, 0);
	desc(0, HEADER, 16, NEXT, 1);
	desc(1, DATA, 512, NEXT | WRITE, 2);
	desc(2, STATUS, 1, WRITE, 0);
	offer(0);
	kick();
	assert_int_equal(used_idx(), 0);
	wr(COMMON + 0x14, 1, 0);
	assert_int_not_equal(rd(COMMON + 0x14, 1), 0);
	assert_int_equal(fake_disk_run(&test_disk[0]), 1);
	assert_int_equal(rd(COMMON + 0x14, 1), 0);
	assert_int_equal(used_idx(), 0);
	bring_up(0);
	must_work();
	/* The machine's reset waits. */
	header(T_IN, 0);
	offer(0);
	kick();
	virtio_blk_kind.ops.reset(dev);
	assert_int_equal(test_disk[0].waiting_count, 0);
	assert_int_equal(cfg_read(TEST_SLOT, PCI_COMMAND, 2), 0);
}

/* What the device holds: its rings while the queue is enabled, a request's memory till its end. */
static void test_pins(void **state)
{
	(void)state;
	bring_up(0);
	assert_int_equal(pinned_pages(test_mem), 3);
	/* Data in a ring's own page: its request lets go once, however it ends. */
	for (unsigned later = 0; later < 2; later++) {
		test_disk[0].later = later;
		assert_int_equal(request(T_IN, 3, DESC + 0x400, 1024), 0);
		assert_int_equal(request(T_OUT, 3, USED + 0x400, 1024), 0);
		assert_int_equal(request(T_IN, UINT64_MAX, AVAIL + 0x400, 512), 1);
		test_disk[0].error[DISK_READ] = -EIO;
		assert_int_equal(request(T_IN, 3, DESC + 0x400, 1024), 1);
		test_disk[0].error[DISK_READ] = 0;
		assert_int_equal(all_pins(test_mem), 3);
	}
	/* A chain that breaks the device has been followed halfway. */
	desc(0, HEADER, 16, NEXT, 1);
	desc(1, DATA, 512, NEXT | WRITE, 2);
	desc(2, TEST_RAM, 1, WRITE, 0);
	offer(0);
	kick();
	assert_int_equal(rd(COMMON + 0x14, 1) & NEEDS_RESET, NEEDS_RESET);
	assert_int_equal(all_pins(test_mem), 3);
	next_desc = avail_idx = used_seen = 0;
	memset(ram(DESC), 0, 0x3000);
	bring_up(0);
	assert_int_equal(all_pins(test_mem), 3);
	/* A reset with a request in flight. */
	header(T_IN, 0);
	desc(0, HEADER, 16, NEXT, 1);
	desc(1, DATA + 0xf00, 512, NEXT | WRITE, 2);
	desc(2, STATUS, 1, WRITE, 0);
	offer(0);
	kick();
	assert_int_equal(pins_of(test_mem, DATA), 1);
	assert_int_equal(pins_of(test_mem, DATA + 0x1000), 1);
	assert_int_equal(pinned_pages(test_mem), 3 + 4);
	wr(COMMON + 0x14, 1, 0);
	assert_int_equal(pins_of(test_mem, DESC), 0);
	assert_int_equal(pinned_pages(test_mem), 4);
	fake_disk_run(&test_disk[0]);
	assert_int_equal(pinned_pages(test_mem), 0);
	/* Rings of which one cannot be. */
	wr(COMMON + 0x14, 1, 3);
	wr(COMMON + 0x20, 8, DESC);
	wr(COMMON + 0x28, 8, AVAIL);
	wr(COMMON + 0x30, 8, TEST_RAM);
	wr(COMMON + 0x1c, 2, 1);
	assert_int_equal(pinned_pages(test_mem), 0);
}

static void test_legacy(void **state)
{
	(void)state;
	outb(LEGACY + 0x12, 3);
	assert_true(inl(LEGACY) & 1 << 28);
	outl(LEGACY + 4, 1 << 9);
	outw(LEGACY + 0x0e, 0);
	unsigned size = inw(LEGACY + 0x0c);
	assert_int_equal(size, 256);
	outl(LEGACY + 8, 0x20000 >> 12);
	assert_int_equal(inl(LEGACY + 8), 0x20000 >> 12);
	outb(LEGACY + 0x12, 7);
	assert_int_equal(inl(LEGACY + 0x14), TEST_DISK_BYTES / 512);
	header(T_IN, 1);
	const uint64_t words[][2] = {{HEADER, 16 | UINT64_C(0x10001) << 32},
				     {DATA, 512 | UINT64_C(0x20003) << 32},
				     {STATUS, 1 | UINT64_C(2) << 32}};
	memcpy(ram(0x20000), words, sizeof(words));
	ram_put32(0x20000 + 16 * size, 1 << 16);
	outw(LEGACY + 0x10, 0);
	/* VIRTIO 2.7.2: descriptors, available ring, then the used ring on the next page. */
	assert_int_equal(ram_get32(0x22000) >> 16, 1);
	assert_memory_equal(ram(DATA), test_disk[0].bytes + 512, 512);
	assert_int_equal(inb(LEGACY + 0x13), 1);
	outb(LEGACY + 0x12, 0);
	assert_int_equal(inb(LEGACY + 0x12), 0);
	assert_int_equal(inl(LEGACY + 8), 0);
}

/* Firmware's window (VIRTIO 4.1.4.9). */
static void test_window(void **state)
{
	unsigned cap = cfg_read(TEST_SLOT, PCI_CAPABILITIES, 1);

	(void)state;
	while (cfg_read(TEST_SLOT, cap, 1) != 9 || cfg_read(TEST_SLOT, cap + 3, 1) != 5)
		cap = cfg_read(TEST_SLOT, cap + 1, 1);
	cfg_write(TEST_SLOT, cap + 4, 1, 4);
	cfg_write(TEST_SLOT, cap + 8, 4, 0x2000);
	cfg_write(TEST_SLOT, cap + 12, 4, 4);
	assert_int_equal(cfg_read(TEST_SLOT, cap + 16, 4), TEST_DISK_BYTES / 512);
	cfg_write(TEST_SLOT, cap + 8, 4, 0x14);
	cfg_write(TEST_SLOT, cap + 12, 4, 1);
	cfg_write(TEST_SLOT, cap + 16, 1, 3);
	assert_int_equal(rd(COMMON + 0x14, 1), 3);
	/* Nowhere. */
	cfg_write(TEST_SLOT, cap + 8, 4, 0xffffffff);
	cfg_read(TEST_SLOT, cap + 16, 4);
	cfg_write(TEST_SLOT, cap + 16, 4, 0);
	assert_int_equal(rd(COMMON + 0x14, 1), 3);
}

/* Saved with a request in flight and another not noticed yet; the copy goes on where it was. */
static void test_state(void **state)
{
	const struct dev_ops *ops = &virtio_blk_kind.ops;
	struct virtio *copy = make(OTHER_SLOT, MODERN + 0x400000, 1);

	(void)state;
	bring_up(1 << 9 | 1 << 11 | 1u << 29);
	must_work();
	wr(CONFIG + 32, 1, 0);
	test_disk[0].later = true;
	header(T_IN, 5);
	offer(0);
	kick();
	round_trip(ops, dev, copy);
	test_disk[0].later = false;
	assert_int_equal(used_idx(), 2); /* drained before it was saved */
	fake_loop_run();
	assert_int_equal(used_idx(), 2);

	size_t len;
	void *bytes = state_of(ops, dev, &len);
	header(T_IN, 6);
	offer(0); /* its notification went to the old one, say */
	ops->reset(dev);
	assert_int_equal(restore(ops, copy, bytes, len), 0);
	free(bytes);
	assert_true(fake_loop_run() > 0);
	assert_int_equal(used_idx(), 3);
	assert_memory_equal(ram(DATA), test_disk[0].bytes + 6 * 512, 1024);
	assert_int_equal(rd(CONFIG + 32, 1), 0); /* its BAR is where the old one's was */
	must_work();
	/* A machine with other queues is not the same. */
	struct virtio *wide = make(OTHER_SLOT + 1, MODERN + 0x800000, 4);
	bytes = state_of(ops, copy, &len);
	assert_int_not_equal(restore(ops, wide, bytes, len), 0);
	free(bytes);
	ops->destroy(wide);
	ops->destroy(copy);
}

static void test_random(void **state)
{
	(void)state;
	srand(1);
	bring_up(1u << 28 | 1u << 29);
	for (unsigned i = 0; i < 300; i++) {
		scribble(BUS_MMIO, MODERN, 0x4000, 50);
		scribble(BUS_MMIO, COMMON, 0x38, 50);
		scribble(BUS_PIO, LEGACY, 0x80, 50);
		fake_loop_run();
		cfg_write(TEST_SLOT, PCI_COMMAND, 2, 7);
	}
	bring_up(0);
	must_work();
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers), T(test_requests),   T(test_write_through),
		T(test_pieces),	   T(test_interrupts), T(test_broken_rings),
		T(test_legacy),	   T(test_window),     T(test_reset_in_flight),
		T(test_state),	   T(test_random),     T(test_pins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
