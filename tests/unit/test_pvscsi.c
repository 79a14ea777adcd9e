/* SPDX-License-Identifier: Apache-2.0 */
/* pvscsi: registers and rings, driven as a driver does it. */
#include "dev/scsi/pvscsi.h"
#include "scsi_test.h"

enum { COMMAND = 0, DATA = 4, STATUS = 8, INTR = 0x100c, MASK = 0x2010, KICK = 0x4018 };
enum { RESET = 1, SETUP_RINGS = 3, RESET_BUS, RESET_DEVICE, ABORT, CONFIG, MSG_RING };
enum { THRESHOLD = 10, OTHER_SLOT = 4, PAGE = 4096 };
enum { STATE = 0x10000, REQ = 0x20000, CMP = 0x30000, SENSE = 0x40000, SGL = 0x41000 };
enum { BUF = 0x100000, MSG = 0x50000, REQ_ENTRIES = 64, CMP_ENTRIES = 128 };

static void *dev;
static struct pvscsi_stats stats;

static void command(uint32_t cmd, const uint32_t *words, unsigned n)
{
	reg_write(COMMAND, cmd);
	for (unsigned i = 0; i < n; i++)
		reg_write(DATA, words[i]);
}

static void setup_rings(void)
{
	uint32_t w[132] = {2, 1, STATE / PAGE};

	memset(ram(STATE), 0, PAGE);
	w[4] = REQ / PAGE;
	w[6] = REQ / PAGE + 1;
	w[68] = CMP / PAGE;
	command(SETUP_RINGS, w, 132);
}

static int setup(void **state)
{
	(void)state;
	test_machine();
	dev = test_controller(&pvscsi_kind, TEST_SLOT, 0);
	command(RESET, NULL, 0);
	setup_rings();
	reg_write(MASK, 0xf);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pvscsi_kind.ops.destroy(dev);
	test_machine_end();
	return 0;
}

/* Puts a request into the ring, without a kick. */
static void put(uint64_t context, unsigned target, const uint8_t *cdb, uint64_t addr, uint64_t len,
		uint32_t flags)
{
	uint32_t prod = ram_get32(STATE);
	uint64_t d = REQ + prod % REQ_ENTRIES * 128;

	memset(ram(d), 0, 128);
	ram_put64(d, context);
	ram_put64(d + 8, addr);
	ram_put64(d + 16, len);
	ram_put64(d + 24, SENSE);
	ram_put32(d + 32, 96);
	ram_put32(d + 36, flags);
	memcpy(ram(d + 40), cdb, 16);
	ram(d)[56] = 16;
	ram(d)[67] = (uint8_t)target;
	ram_put32(STATE, prod + 1);
}

static void give(uint64_t context, unsigned target, const uint8_t *cdb, uint64_t addr, uint64_t len,
		 uint32_t flags)
{
	put(context, target, cdb, addr, len, flags);
	reg_write(KICK, 0);
}

/* Takes a completion from the ring. */
static void expect(uint64_t context, uint64_t len, unsigned host, unsigned scsi, unsigned sense)
{
	uint32_t cons = ram_get32(STATE + 16);
	uint64_t d = CMP + cons % CMP_ENTRIES * 32;

	assert_int_not_equal(ram_get32(STATE + 12), cons);
	assert_int_equal(ram_get64(d), context);
	assert_int_equal(ram_get64(d + 8), len);
	assert_int_equal(ram_get32(d + 16), sense);
	assert_int_equal(ram_get32(d + 20), scsi << 16 | host);
	ram_put32(STATE + 16, cons + 1);
}

static void expect_nothing(void)
{
	assert_int_equal(ram_get32(STATE + 12), ram_get32(STATE + 16));
}

/* Takes the unit attention of power on away. */
static void settle(unsigned target)
{
	give(1, target, (uint8_t[16]){0}, 0, 0, 0);
	expect(1, 0, 0, 2, 18);
}

static const uint8_t read_0[16] = {0x28, 0, 0, 0, 0, 0, 0, 0, 1},
		     write_4[16] = {0x2a, 0, 0, 0, 0, 4, 0, 0, 2};

static void test_identity(void **state)
{
	(void)state;
	assert_int_equal(cfg_read(TEST_SLOT, 0, 4), 0x07c015ad);
	assert_int_equal(ram_get32(STATE + 8), 6); /* log2 of the entries */
	assert_int_equal(ram_get32(STATE + 20), 7);
	reg_write(COMMAND, MSG_RING);
	assert_int_equal(reg_read(STATUS), 34);
	reg_write(COMMAND, 2); /* unknown */
	assert_int_equal(reg_read(STATUS), UINT32_MAX);
	reg_write(COMMAND, 77);
	assert_int_equal(reg_read(STATUS), UINT32_MAX);
}

static void test_requests(void **state)
{
	(void)state;
	settle(0);
	assert_memory_equal(ram(SENSE), "\x70\0\x06", 3);
	memset(test_disk[0].bytes, 0x42, 512);
	give(7, 0, read_0, BUF, 512, 8);
	expect(7, 512, 0, 0, 0);
	assert_int_equal(ram(BUF)[511], 0x42);
	assert_int_equal(ram_get32(STATE + 4), 2); /* consumed */
	give(8, 9, read_0, BUF, 512, 8);
	expect(8, 0, 0x11, 0, 0); /* nobody there */
	give(9, 0, read_0, BUF, 511, 8);
	expect(9, 0, 0x12, 0, 0);		       /* too little room */
	give(10, 0, (uint8_t[16]){0x28}, BUF, 512, 8); /* no blocks at all */
	expect(10, 0, 0, 0, 0);
	give(11, 0, (uint8_t[16]){0x28, 0, 0xff, 0, 0, 0, 0, 0, 1}, BUF, 512, 8);
	expect(11, 0, 0, 2, 18);
	expect_nothing();
}

static void test_scatter_list(void **state)
{
	(void)state;
	settle(1);
	/* 100 bytes, a chain, 300 bytes, nothing, 112 bytes and more than is wanted. */
	memset(ram(SGL), 0, 2 * PAGE);
	ram_put64(SGL, BUF);
	ram_put32(SGL + 8, 100);
	ram_put64(SGL + 16, SGL + PAGE);
	ram_put32(SGL + 28, 1);
	ram_put64(SGL + PAGE, BUF + 0x1000);
	ram_put32(SGL + PAGE + 8, 300);
	ram_put64(SGL + PAGE + 16, BUF);
	ram_put64(SGL + PAGE + 32, BUF + 0x2000);
	ram_put32(SGL + PAGE + 40, 5000);
	for (unsigned i = 0; i < 512; i++)
		test_disk[1].bytes[i] = (uint8_t)i;
	give(3, 1, read_0, SGL, 512, 9);
	expect(3, 512, 0, 0, 0);
	assert_int_equal(ram(BUF)[99], 99);
	assert_int_equal(ram(BUF + 0x1000)[0], 100);
	assert_int_equal(ram(BUF + 0x2000)[111], 255);
	assert_int_equal(ram(BUF + 0x2000)[112], 0);
}

static void test_hostile_requests(void **state)
{
	(void)state;
	settle(0);
	give(1, 0, read_0, TEST_RAM - 100, 512, 8); /* past RAM */
	expect(1, 0, 0x1a, 0, 0);
	give(2, 0, read_0, TEST_BAR, 512, 8); /* not RAM */
	expect(2, 0, 0x1a, 0, 0);
	give(3, 0, read_0, BUF, UINT64_MAX, 8);
	expect(3, 0, 0x1a, 0, 0);
	ram_put64(SGL, SGL); /* a chain that bites its tail */
	ram_put32(SGL + 12, 1);
	give(4, 0, read_0, SGL, 512, 9);
	expect(4, 0, 0x1a, 0, 0);
	memset(ram(SGL), 0, 16 * PAGE); /* a list of nothings */
	give(5, 0, read_0, SGL, 512, 9);
	expect(5, 0, 0x1a, 0, 0);
	give(6, 0, read_0, BUF, 512, 2); /* out of band CDBs */
	expect(6, 0, 0x1a, 0, 0);
	put(7, 0, read_0, BUF, 512, 8);
	ram(REQ + 7 * 128)[56] = 17; /* a CDB that is too long */
	reg_write(KICK, 0);
	expect(7, 0, 0x1a, 0, 0);
	put(8, 0, (uint8_t[16]){0xff}, 0, 0, 0);
	ram_put64(REQ + 8 * 128 + 24, TEST_BAR); /* sense data to nowhere */
	reg_write(KICK, 0);
	expect(8, 0, 0, 2, 0);
	pvscsi_get_stats(dev, &stats);
	assert_int_equal(stats.bad_requests, 7);
}

static void test_hostile_rings(void **state)
{
	uint32_t w[132] = {2, 1, STATE / PAGE};

	(void)state;
	ram_put32(STATE, 1000); /* more than the ring holds */
	reg_write(KICK, 0);
	expect_nothing();
	pvscsi_get_stats(dev, &stats);
	assert_int_equal(stats.bad_rings, 1);
	ram_put32(STATE, 0);
	for (unsigned i = 0; i < CMP_ENTRIES + 10; i++) { /* nobody takes completions away */
		put(i, 9, read_0, 0, 0, 0);
		if (i % 32 == 31)
			reg_write(KICK, 0);
	}
	reg_write(KICK, 0);
	assert_int_equal(ram_get32(STATE + 12), CMP_ENTRIES);
	pvscsi_get_stats(dev, &stats);
	assert_int_equal(stats.lost, 10);
	command(SETUP_RINGS, w, 132); /* pages at 0 are RAM; */
	assert_int_equal(reg_read(STATUS), 0);
	w[4] = TEST_BAR / PAGE; /* these are not */
	command(SETUP_RINGS, w, 132);
	assert_int_equal(reg_read(STATUS), UINT32_MAX);
	w[4] = 0;
	w[0] = 3;
	command(SETUP_RINGS, w, 132);
	assert_int_equal(reg_read(STATUS), UINT32_MAX);
	w[0] = 64;
	command(SETUP_RINGS, w, 132);
	assert_int_equal(reg_read(STATUS), UINT32_MAX);
	w[0] = 0;
	command(SETUP_RINGS, w, 132);
	assert_int_equal(reg_read(STATUS), UINT32_MAX);
}

static void test_interrupts(void **state)
{
	(void)state;
	settle(0);
	assert_int_equal(wire_level[TEST_PIN], 1);
	assert_int_equal(reg_read(INTR), 1);
	reg_write(INTR, 1);
	assert_int_equal(wire_level[TEST_PIN], 0);
	reg_write(MASK, 0);
	give(2, 0, read_0, BUF, 512, 8);
	assert_int_equal(wire_level[TEST_PIN], 0);
	assert_int_equal(reg_read(INTR), 1); /* whoever polls sees it all the same */
	reg_write(MASK, 3);
	assert_int_equal(wire_level[TEST_PIN], 1);
	reg_write(INTR, 1);
	test_enable_msi(TEST_SLOT);
	put(3, 0, read_0, BUF, 512, 8);
	put(4, 0, read_0, BUF, 512, 8);
	reg_write(KICK, 0);
	assert_int_equal(test_messages, 1); /* one for both */
	assert_int_equal(wire_level[TEST_PIN], 0);
	test_disk[0].later = true;
	give(5, 0, read_0, BUF, 512, 8);
	assert_int_equal(test_messages, 1);
	fake_disk_run(&test_disk[0]);
	assert_int_equal(test_messages, 2);
}

static void test_threshold_and_messages(void **state)
{
	uint32_t w[34] = {1, 0, MSG / PAGE};

	(void)state;
	assert_int_equal(ram_get32(STATE + 24), 0);
	command(THRESHOLD, (uint32_t[]){1}, 1);
	assert_int_equal(reg_read(STATUS), 1);
	assert_int_equal(ram_get32(STATE + 24), 1);
	command(MSG_RING, w, 34);
	assert_int_equal(reg_read(STATUS), 0);
	assert_int_equal(ram_get32(STATE + 136), 5);
	w[0] = 32;
	command(MSG_RING, w, 34);
	assert_int_equal(reg_read(STATUS), UINT32_MAX);
}

static void test_config(void **state)
{
	(void)state;
	memset(ram(BUF), 0xff, 512);
	command(CONFIG, (uint32_t[]){BUF, 0, 0, 0x2120, 0x1958, 0}, 6);
	assert_int_equal(reg_read(STATUS), 0);
	assert_int_equal(ram_get32(BUF), 0x1958);
	assert_int_equal(ram_get32(BUF + 4) >> 16, 0);
	assert_int_equal(ram_get32(BUF + 472), 16);
	command(CONFIG, (uint32_t[]){BUF, 0, 0, 0x2120, 0x1959, 0}, 6);
	assert_int_equal(ram_get32(BUF + 4) >> 16, 0x1a);
	command(CONFIG, (uint32_t[]){TEST_BAR, 0, 0, 0x2120, 0x1958, 0}, 6);
	assert_int_equal(reg_read(STATUS), UINT32_MAX);
}

static void test_abort(void **state)
{
	(void)state;
	settle(0);
	test_disk[0].later = true;
	give(5, 0, read_0, BUF, 512, 8);
	give(6, 0, read_0, BUF, 512, 8);
	command(ABORT, (uint32_t[]){6, 0, 0, 0}, 4);
	expect_nothing();
	fake_disk_run(&test_disk[0]);
	expect(5, 512, 0, 0, 0);
	expect(6, 0, 0x26, 0, 0);
}

/* What is in flight ends before the register write does, and what a reset has ended stays ended. */
static void test_resets_in_flight(void **state)
{
	(void)state;
	settle(0);
	settle(1);
	test_disk[0].later = test_disk[1].later = true;
	memset(ram(BUF), 0x21, 1024);
	give(5, 0, write_4, BUF, 1024, 16);
	put(6, 0, read_0, BUF + 0x1000, 512, 8); /* not kicked yet */
	give(7, 1, read_0, BUF + 0x2000, 512, 8);
	command(RESET_DEVICE, (uint32_t[]){0, 0, 0}, 3);
	assert_int_equal(test_disk[0].waiting_count, 0);
	assert_int_equal(test_disk[0].bytes[4 * 512], 0x21);
	expect(5, 0, 0x25, 0, 0);
	expect(6, 0, 0x25, 0, 0);
	expect_nothing();
	command(RESET_BUS, NULL, 0);
	expect(7, 0, 0x25, 0, 0);
	settle(0);
	settle(1);
	give(8, 0, read_0, BUF, 512, 8);
	command(RESET, NULL, 0);
	expect(8, 0, 0x25, 0, 0);
	assert_int_equal(wire_level[TEST_PIN], 0);
	put(9, 0, read_0, BUF, 512, 8);
	reg_write(KICK, 0); /* no rings any more */
	assert_int_equal(test_disk[0].waiting_count, 0);
	expect_nothing();
	command(RESET_DEVICE, (uint32_t[]){13, 0, 0}, 3);
	assert_int_equal(reg_read(STATUS), UINT32_MAX);
}

static void test_system_reset_in_flight(void **state)
{
	(void)state;
	settle(0);
	test_disk[0].later = true;
	give(5, 0, read_0, BUF, 512, 8);
	uint32_t before = ram_get32(STATE + 12);
	pvscsi_kind.ops.reset(dev);
	assert_int_equal(test_disk[0].waiting_count, 0);
	assert_int_equal(ram_get32(STATE + 12), before); /* the next guest's memory */
	assert_int_equal(cfg_read(TEST_SLOT, PCI_COMMAND, 2), 0);
}

/* What the controller holds: pages of the rings that there are, a request's memory till its end. */
static void test_pins(void **state)
{
	uint32_t w[132] = {2, 1, STATE / PAGE};

	(void)state;
	settle(0);
	assert_int_equal(all_pins(test_mem), 4);
	setup_rings(); /* once more, in the same place */
	assert_int_equal(all_pins(test_mem), 4);
	w[4] = REQ / PAGE;
	w[6] = REQ / PAGE + 1;
	w[68] = TEST_RAM / PAGE;
	command(SETUP_RINGS, w, 132);
	assert_int_equal(reg_read(STATUS), UINT32_MAX);
	assert_int_equal(all_pins(test_mem), 4);
	command(MSG_RING, (uint32_t[34]){1, 0, MSG / PAGE}, 34);
	command(MSG_RING, (uint32_t[34]){1, 0, MSG / PAGE}, 34);
	assert_int_equal(all_pins(test_mem), 5);
	/* Buffers in pages of the rings; errors; a list that ends badly. */
	for (unsigned later = 0; later < 2; later++) {
		test_disk[0].later = later;
		give(5, 0, read_0, STATE + 0x800, 512, 8);
		disk_drain(&test_disk[0]);
		expect(5, 512, 0, 0, 0);
		give(6, 0, write_4, STATE + 0xc00, 1024, 16);
		disk_drain(&test_disk[0]);
		expect(6, 1024, 0, 0, 0);
		give(7, 0, read_0, BUF, 511, 8);
		expect(7, 0, 0x12, 0, 0);
		test_disk[0].error[DISK_READ] = -5;
		give(8, 0, read_0, BUF, 512, 8);
		disk_drain(&test_disk[0]);
		expect(8, 0, 0, 2, 18);
		test_disk[0].error[DISK_READ] = 0;
		memset(ram(SGL), 0, 32);
		ram_put64(SGL, BUF);
		ram_put32(SGL + 8, 100);
		ram_put64(SGL + 16, TEST_RAM);
		ram_put32(SGL + 24, 412);
		give(9, 0, read_0, SGL, 512, 8 | 1);
		expect(9, 0, 0x1a, 0, 0);
		assert_int_equal(all_pins(test_mem), 5);
	}
	give(10, 0, read_0, BUF + 0xf00, 4096, 8);
	assert_int_equal(pins_of(test_mem, BUF), 1);
	assert_int_equal(all_pins(test_mem), 5 + 2);
	command(RESET, NULL, 0);
	assert_int_equal(all_pins(test_mem), 0);
}

/* A guest that may not do DMA gets none. */
static void test_not_master(void **state)
{
	(void)state;
	cfg_write(TEST_SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	give(5, 0, read_0, BUF, 512, 8);
	expect_nothing();
	cfg_write(TEST_SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	reg_write(KICK, 0);
	expect(5, 0, 0, 2, 18);
}

static void test_state(void **state)
{
	void *other = test_controller(&pvscsi_kind, OTHER_SLOT, 0);

	(void)state;
	settle(0);
	command(THRESHOLD, (uint32_t[]){1}, 1);
	reg_write(COMMAND, RESET_DEVICE); /* in the middle of a command */
	reg_write(DATA, 0);
	test_disk[0].later = true;
	give(5, 0, read_0, BUF, 512, 8);
	round_trip(&pvscsi_kind.ops, dev, other);
	expect(5, 512, 0, 0, 0); /* saving waited for it */
	test_disk[0].later = false;
	put(6, 0, read_0, BUF, 512, 8); /* a kick that the old one did not see any more */
	fake_time_pass(1000);
	uint64_t bar = TEST_BAR + (OTHER_SLOT << 20);
	cfg_write(OTHER_SLOT, PCI_BAR0, 4, (uint32_t)bar);
	expect(6, 512, 0, 0, 0);
	bus_out(BUS_MMIO, bar + DATA, 4, 0);
	bus_out(BUS_MMIO, bar + DATA, 4, 0);
	assert_int_equal(bus_in(BUS_MMIO, bar + STATUS, 4), 0); /* the reset is complete */
	pvscsi_kind.ops.destroy(other);
}

static void test_scribble(void **state)
{
	(void)state;
	srand(11);
	for (unsigned i = 0; i < 30; i++) {
		for (unsigned k = 0; k < 64; k++)
			ram_put32(REQ + (unsigned)rand() % 0x2000 / 4 * 4,
				  (uint32_t)rand() & 0x1fffff);
		scribble(BUS_MMIO, TEST_BAR + (TEST_SLOT << 20), 0x6000, 300);
		setup_rings();
		ram_put32(STATE, (uint32_t)rand() % 64);
		reg_write(KICK, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
		cmocka_unit_test_setup_teardown(test_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(test_scatter_list, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_requests, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_rings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_interrupts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threshold_and_messages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_config, setup, teardown),
		cmocka_unit_test_setup_teardown(test_abort, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resets_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(test_system_reset_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_master, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state, setup, teardown),
		cmocka_unit_test_setup_teardown(test_scribble, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
