/* SPDX-License-Identifier: Apache-2.0 */
/* Fusion-MPT: doorbell, queues, messages, driven as a driver does it. */
#include "dev/scsi/mpt.h"
#include "scsi_test.h"

enum {
	DOORBELL = 0,
	SEQUENCE = 4,
	DIAG = 8,
	INTR = 0x30,
	MASK = 0x34,
	REQUEST = 0x40,
	REPLY = 0x44
};
enum { FRAME = 0x10000, REPLIES = 0x20000, SENSE = 0x30000, CHAIN = 0x31000, BUF = 0x100000 };
enum { OTHER_SLOT = 4, READY = 1, OPERATIONAL = 2, FAULT = 4 };
#define ACTIVE 0x08000000u
#define NONE UINT32_MAX

static void *dev;
static const struct storage_kind *kind;
static struct mpt_stats stats;
static uint8_t reply[128];

static unsigned ioc_state(void)
{
	return reg_read(DOORBELL) >> 28;
}

static uint32_t get(unsigned at, unsigned bytes)
{
	uint32_t v = 0;

	memcpy(&v, reply + at, bytes);
	return v;
}

/* mpt_handshake_req_reply_wait, without its waits. */
static void handshake(const uint32_t *words, unsigned n)
{
	unsigned halves = 2;

	reg_write(INTR, 0);
	reg_write(DOORBELL, 0x42000000u | n << 16);
	assert_int_equal(reg_read(INTR) & 1, 1);
	assert_true(reg_read(DOORBELL) & ACTIVE);
	reg_write(INTR, 0);
	assert_int_equal(reg_read(INTR), 0);
	for (unsigned i = 0; i < n; i++) {
		reg_write(DOORBELL, words[i]);
		assert_int_equal(reg_read(INTR) >> 31, 0);
	}
	memset(reply, 0, sizeof(reply));
	for (unsigned i = 0; i < halves; i++) {
		assert_int_equal(reg_read(INTR) & 1, 1);
		uint16_t half = (uint16_t)reg_read(DOORBELL);
		memcpy(reply + 2 * i, &half, 2);
		reg_write(INTR, 0);
		if (i == 1)
			halves = reply[2] * 2u;
	}
	assert_int_equal(reg_read(INTR) & 1, 1);
	reg_write(INTR, 0);
	assert_int_equal(reg_read(INTR) & 1, 0);
	assert_false(reg_read(DOORBELL) & ACTIVE);
}

static void bring_up(unsigned devices)
{
	handshake((uint32_t[]){0x03000000, 0, 0xaa}, 3); /* IOC Facts */
	assert_int_equal(get(14, 2), 0);
	assert_int_equal(get(8, 4), 0xaa);
	handshake((uint32_t[]){0x05000000, 0, 0}, 3); /* Port Facts */
	assert_int_equal(get(14, 2), 0);
	for (unsigned i = 0; i < 64; i++)
		reg_write(REPLY, REPLIES + i * 80);
	handshake((uint32_t[]){0x02000004, 0x00010000 | devices << 8, 0, 80, 0, 0, 0, 0, 0, 0}, 10);
	assert_int_equal(get(14, 2), 0);
	handshake((uint32_t[]){0x06000000, 0, 0}, 3); /* Port Enable */
	assert_int_equal(ioc_state(), OPERATIONAL);
	reg_write(MASK, 1);
}

static void make(const struct storage_kind *k, unsigned devices)
{
	test_machine();
	kind = k;
	dev = test_controller(kind, TEST_SLOT, 1);
	assert_int_equal(ioc_state(), READY);
	bring_up(devices);
}

static int setup_spi(void **state)
{
	(void)state;
	make(&lsilogic_kind, 16);
	return 0;
}

static int setup_sas(void **state)
{
	(void)state;
	make(&lsisas1068_kind, 8);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kind->ops.destroy(dev);
	test_machine_end();
	return 0;
}

/* Takes a reply: its context, with `reply` filled in if it has a frame. */
static uint32_t take(bool *frame)
{
	uint32_t v = reg_read(REPLY);

	*frame = v != NONE && v >> 31;
	if (!*frame)
		return v;
	assert_in_range(v << 1, REPLIES, REPLIES + 64 * 80);
	memcpy(reply, ram(v << 1), 80);
	reg_write(REPLY, v << 1); /* given back */
	return get(8, 4);
}

static void expect_good(uint32_t context)
{
	bool frame;

	assert_int_equal(take(&frame), context);
	assert_false(frame);
}

static void expect_io(uint32_t context, unsigned ioc_status, unsigned scsi, unsigned scsi_state,
		      uint32_t transferred)
{
	bool frame;

	assert_int_equal(take(&frame), context);
	assert_true(frame);
	assert_int_equal(get(14, 2), ioc_status);
	assert_int_equal(reply[12], scsi);
	assert_int_equal(reply[13], scsi_state);
	assert_int_equal(get(20, 4), transferred);
}

static void expect_nothing(void)
{
	assert_int_equal(reg_read(REPLY), NONE);
	assert_int_equal(reg_read(INTR) & 8, 0);
}

/* A SCSI IO request in the frame, with one simple element. */
static void fill_io(uint32_t context, unsigned target, const uint8_t *cdb, uint32_t addr,
		    uint32_t len)
{
	memset(ram(FRAME), 0, 128);
	ram(FRAME)[0] = (uint8_t)target;
	ram(FRAME)[4] = 16;
	ram(FRAME)[5] = 32;
	ram_put32(FRAME + 8, context);
	memcpy(ram(FRAME + 0x18), cdb, 16);
	ram_put32(FRAME + 0x28, len);
	ram_put32(FRAME + 0x2c, SENSE);
	ram_put32(FRAME + 0x30, 0xd1000000 | len);
	ram_put32(FRAME + 0x34, addr);
}

static void give(uint32_t context, unsigned target, const uint8_t *cdb, uint32_t addr, uint32_t len)
{
	fill_io(context, target, cdb, addr, len);
	reg_write(REQUEST, FRAME | 1);
}

static void settle(unsigned target)
{
	give(1, target, (uint8_t[16]){0}, 0, 0);
	expect_io(1, 0, 2, 1, 0);
	assert_int_equal(get(24, 4), 18);
	assert_memory_equal(ram(SENSE), "\x70\0\x06", 3);
}

static const uint8_t read_0[16] = {0x28, 0, 0, 0, 0, 0, 0, 0, 1};
static const uint8_t write_4[16] = {0x2a, 0, 0, 0, 0, 4, 0, 0, 2};

static void test_facts(void **state)
{
	(void)state;
	handshake((uint32_t[]){0x03000000, 0, 0}, 3);
	assert_int_equal(reply[2], 20);
	assert_int_equal(get(0, 2), kind == &lsilogic_kind ? 0x0102 : 0x0105);
	assert_int_equal(reply[0x15], 4); /* a host driver brought it up */
	assert_int_equal(get(0x1a, 2), 32);
	assert_int_equal(get(0x24, 2), 128);
	assert_int_equal(reply[0x26], 1);
	handshake((uint32_t[]){0x05000000, 0x00010000, 0}, 3); /* there is no port 1 */
	assert_int_equal(get(14, 2), 7);
	handshake((uint32_t[]){0x07000001, 0, 0}, 3); /* events on */
	assert_int_equal(get(0x14, 4), 0x0a);
	assert_int_equal(reply[0x1c], 1);
	handshake((uint32_t[]){0x15000000, 0, 0}, 3); /* RAID */
	assert_int_equal(get(14, 2), 1);
	handshake((uint32_t[]){0x02000004, 0x00011000, 0, 80, 0, 0, 0, 0, 0, 0}, 10); /* again */
	assert_int_equal(get(14, 2), 7);
}

static void test_io(void **state)
{
	(void)state;
	settle(0);
	assert_int_equal(wire_level[TEST_PIN], 0);
	memset(test_disk[0].bytes, 0x42, 512);
	give(0x00070005, 0, read_0, BUF, 512);
	assert_int_equal(wire_level[TEST_PIN], 1);
	assert_int_equal(reg_read(INTR), 8);
	expect_good(0x00070005);
	assert_int_equal(wire_level[TEST_PIN], 0);
	assert_int_equal(ram(BUF)[511], 0x42);
	give(2, 0, (uint8_t[16]){0x12, 0, 0, 0, 36}, BUF, 255);
	expect_io(2, 0x45, 0, 0, 36); /* less than there was room for */
	give(3, 5, read_0, BUF, 512);
	expect_io(3, 0x43, 0, 4, 0); /* nobody there */
	give(4, 200, read_0, BUF, 512);
	expect_io(4, 0x42, 0, 4, 0);
	fill_io(5, 0, read_0, BUF, 512);
	ram(FRAME)[1] = 1;
	reg_write(REQUEST, FRAME);
	expect_io(5, 0x41, 0, 4, 0); /* no such bus */
	give(6, 0, read_0, BUF, 100);
	expect_io(6, 0x44, 0, 4, 0);
	expect_nothing();
}

/* A 64-bit element, a chain, and in it a second one. */
static void test_scatter_list(void **state)
{
	(void)state;
	settle(1);
	for (unsigned i = 0; i < 512; i++)
		test_disk[1].bytes[i] = (uint8_t)i;
	fill_io(9, 1, read_0, 0, 512);
	ram(FRAME)[2] = 0x40 / 4; /* the chain element */
	ram_put32(FRAME + 0x30, 0x92000000 | 100);
	ram_put64(FRAME + 0x34, BUF);
	ram_put32(FRAME + 0x40, 0x30000000 | 2 << 16 | 16);
	ram_put32(FRAME + 0x44, CHAIN);
	ram_put32(CHAIN, 0x90000000 | 12);
	ram_put32(CHAIN + 4, BUF + 0x1000);
	ram_put32(CHAIN + 8, 0x30000000 | 8);
	ram_put32(CHAIN + 12, CHAIN + 0x100);
	ram_put32(CHAIN + 0x100, 0xd1000000 | 400);
	ram_put32(CHAIN + 0x104, BUF + 0x2000);
	reg_write(REQUEST, FRAME);
	expect_good(9);
	assert_int_equal(ram(BUF)[99], 99);
	assert_int_equal(ram(BUF + 0x1000)[0], 100);
	assert_int_equal(ram(BUF + 0x2000)[0], 112);
	assert_int_equal(ram(BUF + 0x2000)[399], 255);
}

static void expect_bad_list(uint32_t context)
{
	reg_write(REQUEST, FRAME);
	expect_io(context, 3, 0, 4, 0);
}

static void test_hostile_lists(void **state)
{
	(void)state;
	settle(0);
	fill_io(1, 0, read_0, TEST_RAM - 10, 512);
	expect_bad_list(1);
	fill_io(2, 0, read_0, BUF, 512);
	ram_put32(FRAME + 0x30, 0x30000000 | 128); /* a chain that is its own next */
	ram_put32(FRAME + 0x34, FRAME + 0x30);
	expect_bad_list(2);
	fill_io(3, 0, read_0, BUF, 512);
	ram_put32(FRAME + 0x30, 0x30000000 | 16);
	ram_put32(FRAME + 0x34, TEST_BAR);
	expect_bad_list(3);
	fill_io(4, 0, read_0, BUF, 512);
	ram_put32(FRAME + 0x30, 0x00000000 | 512); /* a transaction element */
	expect_bad_list(4);
	fill_io(5, 0, read_0, BUF, 512);
	for (unsigned i = 0x30; i < 128; i += 8) /* a list that leaves its frame */
		ram_put32(FRAME + i, 0x10000000);
	expect_bad_list(5);
	fill_io(6, 0, read_0, BUF, 512);
	ram(FRAME)[4] = 17;
	reg_write(REQUEST, FRAME);
	expect_io(6, 7, 0, 4, 0);
	mpt_get_stats(dev, &stats);
	assert_int_equal(stats.bad_messages, 5);
}

static void message_reset(void)
{
	reg_write(DOORBELL, 0x40000000);
	assert_int_equal(ioc_state(), READY);
}

static void test_faults(void **state)
{
	(void)state;
	reg_write(REQUEST, TEST_BAR); /* a frame that is not in memory */
	assert_int_equal(ioc_state(), FAULT);
	assert_int_equal(reg_read(DOORBELL) & 0xffff, 0x8112);
	reg_write(REQUEST, FRAME);
	message_reset();
	bring_up(8);
	for (unsigned i = 0; i < 65; i++) { /* more answers than there are frames for */
		assert_int_equal(ioc_state(), OPERATIONAL);
		give(i, 5, read_0, BUF, 512);
	}
	assert_int_equal(ioc_state(), FAULT);
	message_reset();
	expect_nothing();
	mpt_get_stats(dev, &stats);
	assert_int_equal(stats.faults, 2);
}

static void test_diagnostic_reset(void **state)
{
	(void)state;
	assert_int_equal(reg_read(DIAG), 0);
	reg_write(DIAG, 4); /* locked */
	assert_int_equal(ioc_state(), OPERATIONAL);
	for (unsigned i = 0; i < 6; i++)
		reg_write(SEQUENCE, (uint32_t[]){0xff, 4, 0xb, 2, 7, 0xd}[i]);
	assert_int_equal(reg_read(DIAG), 0x80);
	reg_write(DIAG, 0x84);
	assert_int_equal(ioc_state(), READY);
	assert_int_equal(reg_read(DIAG), 0x20);
	assert_int_equal(reg_read(MASK), 9);
	for (unsigned i = 0; i < 6; i++)
		reg_write(SEQUENCE, (uint32_t[]){0xff, 4, 0xb, 2, 7, 0xd}[i]);
	reg_write(DIAG, 0x80); /* forgets its history */
	reg_write(SEQUENCE, 0xff);
	assert_int_equal(reg_read(DIAG), 0);
}

static void task(uint32_t context, unsigned target, unsigned type, uint32_t task_context)
{
	memset(ram(FRAME), 0, 128);
	ram(FRAME)[0] = (uint8_t)target;
	ram(FRAME)[3] = 1;
	ram(FRAME)[5] = (uint8_t)type;
	ram_put32(FRAME + 8, context);
	ram_put32(FRAME + 0x30, task_context);
	reg_write(REQUEST + 8, FRAME);
}

static void expect_task(uint32_t context, unsigned status, unsigned code, unsigned count)
{
	bool frame;

	assert_int_equal(take(&frame), context);
	assert_true(frame);
	assert_int_equal(reply[3], 1);
	assert_int_equal(get(14, 2), status);
	assert_int_equal(reply[4], code);
	assert_int_equal(get(20, 4), count);
}

static void test_task_management(void **state)
{
	(void)state;
	settle(0);
	settle(1);
	test_disk[0].later = test_disk[1].later = true;
	give(10, 0, read_0, BUF, 512);
	give(11, 0, read_0, BUF, 512);
	give(12, 1, write_4, BUF, 1024);
	task(20, 0, 7, 11); /* query */
	expect_task(20, 0, 8, 0);
	task(21, 0, 1, 11); /* abort */
	task(22, 0, 1, 99); /* what is not */
	expect_task(22, 0, 0, 0);
	expect_nothing();
	fake_disk_run(&test_disk[0]);
	expect_good(10);
	expect_io(11, 0x48, 0, 0xc, 0);
	expect_task(21, 0, 0, 1);
	give(13, 0, read_0, BUF, 512);
	task(23, 0, 3, 0); /* target reset: the other target goes on */
	expect_io(13, 0x48, 0, 0xc, 0);
	expect_task(23, 0, 0, 2);
	assert_int_equal(test_disk[0].waiting_count, 0);
	assert_int_equal(test_disk[1].waiting_count, 1);
	task(24, 0, 4, 0); /* bus reset */
	expect_io(12, 0x48, 0, 0xc, 0);
	expect_task(24, 0, 0, 1);
	test_disk[0].later = test_disk[1].later = false;
	settle(0);
	settle(1);
	task(25, 9, 3, 0);
	expect_task(25, 0x43, 5, 0);
	task(26, 0, 0x33, 0);
	expect_task(26, 7, 4, 0);
}

/* Task management through the doorbell, whose answer comes through the queue. */
static void test_task_management_by_doorbell(void **state)
{
	uint32_t words[13] = {0x01000000, 0x00000300, 0x77};

	(void)state;
	settle(0);
	reg_write(DOORBELL, 0x42000000 | 13 << 16);
	reg_write(INTR, 0);
	for (unsigned i = 0; i < 13; i++)
		reg_write(DOORBELL, words[i]);
	assert_int_equal(reg_read(INTR) & 1, 1);
	reg_write(INTR, 0);
	assert_false(reg_read(DOORBELL) & ACTIVE);
	expect_task(0x77, 0, 0, 0);
	settle(0);
}

static void test_reset_in_flight(void **state)
{
	(void)state;
	settle(0);
	test_disk[0].later = true;
	memset(ram(BUF), 0x31, 1024);
	give(5, 0, write_4, BUF, 1024);
	task(6, 0, 1, 5); /* an abort that nobody will hear of */
	message_reset();
	assert_int_equal(test_disk[0].waiting_count, 0);
	assert_int_equal(test_disk[0].bytes[4 * 512], 0x31);
	expect_nothing();
	test_disk[0].later = false;
	bring_up(8);
	settle(0);
	expect_nothing();
	test_disk[0].later = true;
	give(7, 0, read_0, BUF, 512);
	kind->ops.reset(dev);
	assert_int_equal(test_disk[0].waiting_count, 0);
	assert_int_equal(cfg_read(TEST_SLOT, PCI_COMMAND, 2), 0);
}

static void test_msi(void **state)
{
	(void)state;
	settle(0);
	test_enable_msi(TEST_SLOT);
	give(5, 0, read_0, BUF, 512);
	give(6, 0, read_0, BUF, 512);
	assert_int_equal(test_messages, 1); /* until the queue has been emptied */
	expect_good(5);
	expect_good(6);
	give(7, 0, read_0, BUF, 512);
	assert_int_equal(test_messages, 2);
	assert_int_equal(wire_level[TEST_PIN], 0);
}

/* Reads a configuration page: its length in bytes, 0 if there is none. */
static unsigned page(bool extended, unsigned type, unsigned number, uint32_t address)
{
	uint32_t words[12] = {0x04000000, extended ? type << 16 : 0, 0x55};
	unsigned len;

	words[5] = (extended ? 0x0fu : type) << 24 | number << 16;
	words[6] = address;
	handshake(words, 9); /* the header */
	if (get(14, 2))
		return 0;
	len = extended ? get(4, 2) * 4 : reply[0x15] * 4u;
	words[0] |= 1; /* read current */
	words[7] = 0xd1000000 | len;
	words[8] = BUF;
	memset(ram(BUF), 0xee, 512);
	handshake(words, 9);
	assert_int_equal(get(14, 2), 0);
	assert_int_equal(ram(BUF)[len], 0xee);
	assert_int_equal(ram(BUF)[3] & 0xf, extended ? 0xf : type);
	assert_int_equal(ram(BUF)[2], number);
	return len;
}

static void test_common_pages(void **state)
{
	static const struct {
		unsigned type, number, bytes;
	} pages[] = {
		{9, 0, 76}, {0, 0, 12}, {0, 1, 8}, {0, 2, 32}, {0, 3, 12}, {1, 0, 28},
		{1, 1, 16}, {1, 2, 12}, {1, 3, 8}, {1, 4, 8},  {1, 5, 12}, {1, 6, 60},
	};
	uint32_t words[9] = {0x04000002, 0, 0, 0, 0, 0x09000000, 0, 0xd1000000 | 76, BUF};

	(void)state;
	for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		assert_int_equal(page(false, pages[i].type, pages[i].number, 0), pages[i].bytes);
	page(false, 9, 0, 0);
	assert_memory_equal(ram(BUF + 4), "LSI", 3);
	page(false, 1, 0, 0);
	assert_int_equal(ram_get32(BUF + 12), cfg_read(TEST_SLOT, 0, 4));
	assert_int_equal(page(false, 1, 9, 0), 0);
	assert_int_equal(get(14, 2), 0x22);
	assert_int_equal(page(false, 6, 0, 0), 0);
	assert_int_equal(get(14, 2), 0x21);
	handshake(words, 9); /* nobody writes this one */
	assert_int_equal(get(14, 2), 0x25);
	words[0] = 0x04000009;
	handshake(words, 9);
	assert_int_equal(get(14, 2), 0x20);
	words[0] = 0x04000001;
	words[8] = TEST_BAR;
	handshake(words, 9);
	assert_int_equal(get(14, 2), 3);
}

static void test_spi_pages(void **state)
{
	uint32_t words[9] = {0x04000002, 0, 0, 0, 0, 0x04010000, 1, 0xd1000000 | 16, BUF};

	(void)state;
	assert_int_equal(page(false, 3, 0, 0), 12);
	assert_int_equal(ram_get32(BUF + 4), 0x207f0a00);
	assert_int_equal(page(false, 3, 0, 1), 0);
	assert_int_equal(page(false, 3, 1, 0), 16);
	assert_int_equal(page(false, 3, 2, 0), 76);
	assert_int_equal(page(false, 4, 0, 16), 0);
	assert_int_equal(page(false, 4, 0, 1), 12);
	assert_int_equal(ram_get32(BUF + 4), 0);
	/* What the guest asks for is agreed to, as far as the bus can do it. */
	assert_int_equal(page(false, 4, 1, 1), 16);
	ram_put32(BUF + 4, 0x20ff0807);
	handshake(words, 9);
	assert_int_equal(get(14, 2), 0);
	page(false, 4, 0, 1);
	assert_int_equal(ram_get32(BUF + 4), 0x207f0a00);
	assert_int_equal(ram_get32(BUF + 8), 1);
	assert_int_equal(page(false, 4, 2, 1), 16);
	assert_int_equal(page(false, 4, 3, 1), 12);
	assert_int_equal(page(true, 0x10, 0, 0), 0);
}

static void test_sas_pages(void **state)
{
	(void)state;
	assert_int_equal(page(true, 0x10, 0, 0), 16 + 8 * 16);
	assert_int_equal(ram(BUF)[12], 8);
	assert_int_equal(ram_get32(BUF + 16 + 8), 1 << 16 | 9);	     /* phy 0: handles */
	assert_int_equal(ram_get32(BUF + 16 + 3 * 16 + 8), 4 << 16); /* phy 3: nothing */
	assert_int_equal(page(true, 0x10, 1, 0), 20 + 8 * 12);
	assert_int_equal(page(true, 0x10, 2, 0), 20);
	assert_int_equal(page(true, 0x10, 3, 0), 44);
	assert_int_equal(page(true, 0x12, 0, 0x20000009), 36);
	assert_int_equal(ram(BUF)[0x1a], 0);
	assert_int_equal(ram_get32(BUF + 0x1c), 0xc01);
	assert_int_equal(page(true, 0x12, 0, 0x10000001), 36); /* by target */
	assert_int_equal(ram(BUF)[0x18], 10);
	assert_int_equal(page(true, 0x12, 0, 0x10000003), 0);
	/* All handles, one after another. */
	unsigned count = 0;
	for (uint32_t at = 0xffff; page(true, 0x12, 0, at); count++)
		at = ram_get32(BUF + 0x18) & 0xffff;
	assert_int_equal(count, 8 + 3);
	assert_int_equal(page(true, 0x12, 1, 0x20000009), 48);
	assert_int_equal(page(true, 0x12, 2, 0x20000009), 20);
	assert_int_equal(page(true, 0x13, 0, 0), 36);
	assert_int_equal(page(true, 0x13, 0, 8), 0);
	assert_int_equal(page(true, 0x13, 1, 0), 28);
	assert_int_equal(page(true, 0x15, 0, 0xffff), 40);
	assert_int_equal(page(true, 0x15, 0, 0x0001), 0);
	assert_int_equal(page(false, 3, 0, 0), 0);
}

static void test_state(void **state)
{
	void *other = test_controller(kind, OTHER_SLOT, 1);
	uint64_t bar = TEST_BAR + (OTHER_SLOT << 20);

	(void)state;
	settle(0);
	test_disk[0].later = true;
	give(5, 0, read_0, BUF, 512); /* saving waits for it; its answer is in the queue */
	give(6, 7, read_0, BUF, 512);
	reg_write(DOORBELL, 0x42000000 | 3 << 16); /* in the middle of a handshake */
	reg_write(DOORBELL, 0x03000000);
	round_trip(&kind->ops, dev, other);
	cfg_write(OTHER_SLOT, PCI_BAR0 + 4, 4, (uint32_t)bar);
	assert_int_equal(wire_level[(OTHER_SLOT + 0) % 4], 1);
	assert_int_equal(bus_in(BUS_MMIO, bar + REPLY, 4) >> 31, 1);
	assert_int_equal(bus_in(BUS_MMIO, bar + REPLY, 4), 5);
	assert_int_equal(bus_in(BUS_MMIO, bar + REPLY, 4), NONE);
	bus_out(BUS_MMIO, bar + DOORBELL, 4, 0);
	bus_out(BUS_MMIO, bar + DOORBELL, 4, 0);
	assert_int_equal(bus_in(BUS_MMIO, bar + DOORBELL, 4) & 0xffff, /* the reply's first half */
			 kind == &lsilogic_kind ? 0x0102 : 0x0105);
	kind->ops.destroy(other);
}

static void test_scribble(void **state)
{
	(void)state;
	srand(12);
	for (unsigned i = 0; i < 60; i++) {
		for (unsigned k = 0; k < 32; k++)
			ram_put32(FRAME + k * 4, rand() % 2 ? (uint32_t)rand() & 0x1fffff : 0);
		ram(FRAME)[3] = (uint8_t)(rand() % 9);
		reg_write(REQUEST, FRAME);
		scribble(BUS_MMIO, TEST_BAR + (TEST_SLOT << 20), 0x50, 200);
		if (ioc_state() != OPERATIONAL) {
			kind->ops.reset(dev);
			cfg_write(TEST_SLOT, PCI_BAR0 + 4, 4, TEST_BAR + (TEST_SLOT << 20));
			cfg_write(TEST_SLOT, PCI_COMMAND, 2,
				  PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
			bring_up(8);
		}
	}
}

/* The controller holds a request's memory till its end, and nothing else. */
static void test_pins(void **state)
{
	(void)state;
	settle(0);
	for (unsigned later = 0; later < 2; later++) {
		test_disk[0].later = later;
		give(5, 0, read_0, BUF, 512);
		disk_drain(&test_disk[0]);
		expect_good(5);
		give(6, 0, read_0, TEST_RAM - 256, 512); /* half of it is none */
		take(&(bool){false});
		assert_int_equal(pinned_pages(test_mem), 0);
	}
	give(7, 0, read_0, BUF + 0xf00, 512);
	assert_int_equal(all_pins(test_mem), 2);
	kind->ops.reset(dev);
	assert_int_equal(pinned_pages(test_mem), 0);
}

#define FOR_SPI(test) cmocka_unit_test_setup_teardown(test, setup_spi, teardown)
#define FOR_SAS(test) cmocka_unit_test_setup_teardown(test, setup_sas, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FOR_SPI(test_facts),
		FOR_SAS(test_facts),
		FOR_SPI(test_io),
		FOR_SPI(test_scatter_list),
		FOR_SPI(test_hostile_lists),
		FOR_SPI(test_faults),
		FOR_SPI(test_diagnostic_reset),
		FOR_SAS(test_task_management),
		FOR_SPI(test_task_management_by_doorbell),
		FOR_SPI(test_reset_in_flight),
		FOR_SAS(test_msi),
		FOR_SPI(test_common_pages),
		FOR_SAS(test_common_pages),
		FOR_SPI(test_spi_pages),
		FOR_SAS(test_sas_pages),
		FOR_SPI(test_state),
		FOR_SAS(test_state),
		FOR_SPI(test_scribble),
		FOR_SPI(test_pins),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
