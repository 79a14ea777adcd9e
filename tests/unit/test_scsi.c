/* SPDX-License-Identifier: Apache-2.0 */
/* The SCSI target core: commands by their CDBs, as an initiator gives them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "dev/scsi/scsi.h"
#include "fake_disk.h"
#include "pins.h"

enum { DISK_BYTES = 4 << 20, BLOCKS = DISK_BYTES / 512, RAM = 16 << 20 };
enum { BUF = 0x100000, BUF2 = 0x300000, HOLE_AT = 0xf0000000 };
enum { T_DISK = 0, T_READ_ONLY = 1, T_CD = 3, T_EMPTY_CD = 4, T_NONE = 5 };

static struct mem *mem;
static struct scsi_bus *bus;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct disk disk, read_only, cd;

/* The last request that was over. */
static struct answer {
	unsigned count;
	enum scsi_outcome outcome;
	enum scsi_status status;
	uint8_t sense[SCSI_SENSE_BYTES];
	unsigned sense_len;
	uint64_t transferred, tag;
} answer;

static void on_done(void *opaque, struct scsi_request *r)
{
	assert_ptr_equal(opaque, &answer);
	assert_int_equal(pthread_mutex_trylock(&lock), EBUSY);
	answer.count++;
	answer.outcome = r->outcome;
	answer.status = r->status;
	memcpy(answer.sense, r->sense, sizeof(answer.sense));
	answer.sense_len = r->sense_len;
	answer.transferred = r->transferred;
	answer.tag = r->tag;
}

static uint8_t *ram(uint64_t gpa)
{
	return ram_at(mem, gpa, 1);
}

/* Gives a command; its buffer is len bytes at BUF. */
static unsigned give_to(unsigned target, unsigned lun, const uint8_t *cdb, size_t cdb_len,
			uint64_t len, uint64_t tag)
{
	struct scsi_request *r;
	unsigned before = answer.count;

	pthread_mutex_lock(&lock);
	r = scsi_request_new(bus, cdb, (unsigned)cdb_len);
	assert_non_null(r);
	r->target = target;
	r->lun[1] = (uint8_t)lun;
	r->tag = tag;
	assert_int_equal(sgl_add(&r->data, mem, BUF, len), 0);
	scsi_submit(r);
	pthread_mutex_unlock(&lock);
	return answer.count - before;
}

#define give(target, len, ...)                                                                     \
	give_to(target, 0, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), \
		len, 7)

static void good(uint64_t transferred)
{
	assert_int_equal(answer.outcome, SCSI_DONE);
	assert_int_equal(answer.status, SCSI_GOOD);
	assert_int_equal(answer.transferred, transferred);
	assert_int_equal(answer.sense_len, 0);
}

static void check(unsigned key, unsigned asc)
{
	assert_int_equal(answer.outcome, SCSI_DONE);
	assert_int_equal(answer.status, SCSI_CHECK_CONDITION);
	assert_int_equal(answer.sense_len, SCSI_SENSE_BYTES);
	assert_int_equal(answer.sense[0] & 0x7f, 0x70);
	assert_int_equal(answer.sense[2], key);
	assert_int_equal(answer.sense[12] << 8 | answer.sense[13], asc);
}

static uint32_t sense_info(void)
{
	assert_true(answer.sense[0] & 0x80);
	return (uint32_t)answer.sense[3] << 24 | (uint32_t)answer.sense[4] << 16 |
	       (uint32_t)answer.sense[5] << 8 | answer.sense[6];
}

static void make_bus(void)
{
	static const struct storage_unit units[] = {
		{.target = T_DISK, .disk = &disk, .serial = "SN1"},
		{.target = T_READ_ONLY, .disk = &read_only, .serial = ""},
		{.target = T_CD, .disk = &cd, .cdrom = true, .serial = "CD"},
		{.target = T_EMPTY_CD, .cdrom = true, .serial = ""},
	};
	struct scsi_bus_config cfg = {.mem = mem,
				      .lock = &lock,
				      .units = units,
				      .unit_count = 4,
				      .done = on_done,
				      .opaque = &answer};

	assert_int_equal(scsi_bus_create(&bus, &cfg, NULL), 0);
}

static int setup(void **state)
{
	(void)state;
	memset(&answer, 0, sizeof(answer));
	assert_int_equal(mem_create(&mem, RAM, NULL), 0);
	fake_disk_init(&disk, DISK_BYTES);
	fake_disk_init(&read_only, DISK_BYTES);
	read_only.info.read_only = true;
	fake_disk_init(&cd, 1 << 20);
	disk.mem = read_only.mem = cd.mem = mem;
	make_bus();
	for (unsigned t = 0; t < 5; t++) { /* the unit attention of power on */
		if (t == 2)
			continue;
		give(t, 0, 0x00);
		check(6, 0x2900);
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	scsi_bus_destroy(bus);
	assert_int_equal(pinned_pages(mem), 0);
	mem_destroy(mem);
	fake_disk_free(&disk);
	fake_disk_free(&read_only);
	fake_disk_free(&cd);
	return 0;
}

static void test_who_is_there(void **state)
{
	(void)state;
	give(T_DISK, 0, 0x00);
	good(0);
	give(T_NONE, 36, 0x12, 0, 0, 0, 36);
	assert_int_equal(answer.outcome, SCSI_NO_TARGET);
	give(200, 36, 0x12, 0, 0, 0, 36);
	assert_int_equal(answer.outcome, SCSI_NO_TARGET);
	give(T_DISK, 0, 0xff);
	check(5, 0x2000);
	/* Another unit of a target: INQUIRY says that there is none, the rest fails. */
	give_to(T_DISK, 1, (const uint8_t[]){0x12, 0, 0, 0, 36}, 5, 36, 0);
	good(36);
	assert_int_equal(ram(BUF)[0], 0x7f);
	give_to(T_DISK, 1, (const uint8_t[]){0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 10, 512, 0);
	check(5, 0x2500);
	give_to(T_DISK, 1, (const uint8_t[]){0x03, 0, 0, 0, 18}, 5, 18, 0);
	good(18);
	assert_int_equal(ram(BUF)[12], 0x25);
	give(T_DISK, 16, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16);
	good(16);
	assert_int_equal(ram(BUF)[3], 8);
	assert_int_equal(ram(BUF)[9], 0);
	give(T_DISK, 8, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 8);
	check(5, 0x2400);
}

static void test_inquiry(void **state)
{
	(void)state;
	give(T_DISK, 255, 0x12, 0, 0, 0, 36);
	good(36);
	assert_memory_equal(ram(BUF), "\0\0\x06\x12\x5b\0\0\x02", 8);
	assert_memory_equal(ram(BUF + 8), "VMware  Virtual disk    2.0 ", 28);
	give(T_DISK, 10, 0x12, 0, 0, 0, 96);
	good(10); /* no more than there is room for */
	give(T_CD, 36, 0x12, 0, 0, 0, 36);
	good(36);
	assert_int_equal(ram(BUF)[0], 5);
	assert_int_equal(ram(BUF)[1], 0x80);
	give(T_DISK, 255, 0x12, 1, 0x00, 0, 255);
	good(4 + 6);
	assert_memory_equal(ram(BUF), "\0\0\0\x06\0\x80\x83\xb0\xb1\xb2", 10);
	give(T_CD, 255, 0x12, 1, 0x00, 0, 255);
	good(4 + 3);
	give(T_DISK, 255, 0x12, 1, 0x80, 0, 255);
	good(4 + 3);
	assert_memory_equal(ram(BUF + 4), "SN1", 3);
	give(T_DISK, 255, 0x12, 1, 0x83, 0, 255);
	good(4 + 4 + 8 + 3 + 12);
	assert_memory_equal(ram(BUF + 4), "\x02\x01\0\x0bVMware  SN1\x01\x03\0\x08", 19);
	assert_int_equal(ram(BUF + 4 + 19)[0] >> 4, 3);
	give(T_READ_ONLY, 255, 0x12, 1, 0x83, 0, 255);
	good(4); /* no serial number: no name */
	give(T_DISK, 255, 0x12, 1, 0xb0, 0, 255);
	good(64);
	assert_memory_equal(ram(BUF), "\0\xb0\0\x3c", 4);
	give(T_DISK, 255, 0x12, 1, 0xb2, 0, 255);
	good(8);
	assert_int_equal(ram(BUF)[5], 0xe0);
	give(T_CD, 255, 0x12, 1, 0xb0, 0, 255);
	check(5, 0x2400);
	give(T_DISK, 255, 0x12, 0, 0x80, 0, 255);
	check(5, 0x2400);
}

static void test_capacity(void **state)
{
	(void)state;
	give(T_DISK, 8, 0x25);
	good(8);
	assert_memory_equal(ram(BUF), "\0\0\x1f\xff\0\0\x02\0", 8);
	give(T_DISK, 32, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32);
	good(32);
	assert_memory_equal(ram(BUF), "\0\0\0\0\0\0\x1f\xff\0\0\x02\0\0\0\x80\0", 16);
	give(T_DISK, 32, 0x9e, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32);
	check(5, 0x2400);
	give(T_CD, 8, 0x25);
	good(8);
	assert_memory_equal(ram(BUF), "\0\0\x01\xff\0\0\x08\0", 8);
	give(T_EMPTY_CD, 8, 0x25);
	check(2, 0x3a00);
}

static void test_read_write(void **state)
{
	static const struct {
		uint8_t read[16], write[16];
		uint64_t offset, bytes;
	} cases[] = {
		{{0x08, 0, 0, 2, 1}, {0x0a, 0, 0, 2, 1}, 1024, 512},
		{{0x08, 0, 1, 0, 0}, {0x0a, 0, 1, 0, 0}, 131072, 131072}, /* 0 is 256 */
		{{0x28, 0, 0, 0, 0, 3, 0, 0, 8}, {0x2a, 0, 0, 0, 0, 3, 0, 0, 8}, 1536, 4096},
		{{0xa8, 0, 0, 0, 0, 4, 0, 0, 0, 2}, {0xaa, 0, 0, 0, 0, 4, 0, 0, 0, 2}, 2048, 1024},
		{{0x88, 0, 0, 0, 0, 0, 0, 0, 0x1f, 0xff, 0, 0, 0, 1},
		 {0x8a, 0, 0, 0, 0, 0, 0, 0, 0x1f, 0xff, 0, 0, 0, 1},
		 DISK_BYTES - 512,
		 512},
	};
	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		memset(ram(BUF), 0x40 + (int)i, cases[i].bytes);
		give_to(T_DISK, 0, cases[i].write, 16, cases[i].bytes, 0);
		good(cases[i].bytes);
		assert_int_equal(disk.last_offset, cases[i].offset);
		assert_int_equal(disk.bytes[cases[i].offset + cases[i].bytes - 1], 0x40 + i);
		memset(ram(BUF), 0, cases[i].bytes);
		give_to(T_DISK, 0, cases[i].read, 16, cases[i].bytes, 0);
		good(cases[i].bytes);
		assert_int_equal(ram(BUF)[0], 0x40 + i);
		assert_int_equal(ram(BUF)[cases[i].bytes - 1], 0x40 + i);
	}
	give(T_DISK, 4096, 0x28, 0, 0, 0, 0, 0, 0, 0, 1); /* more room than needed */
	good(512);
	give(T_DISK, 511, 0x28, 0, 0, 0, 0, 0, 0, 0, 1);
	assert_int_equal(answer.outcome, SCSI_OVERRUN);
	assert_int_equal(disk.count[DISK_FLUSH], 0);
	give(T_DISK, 512, 0x2a, 0x08, 0, 0, 0, 0, 0, 0, 1); /* FUA */
	good(512);
	assert_int_equal(disk.count[DISK_FLUSH], 1);
	give(T_DISK, 0, 0x35, 0, 0, 0, 0, 0, 0, 0, 0);
	good(0);
	give(T_DISK, 0, 0x91, 0);
	good(0);
	assert_int_equal(disk.count[DISK_FLUSH], 3);
}

static void test_bad_addresses(void **state)
{
	unsigned before = disk.count[DISK_READ];

	(void)state;
	give(T_DISK, 1024, 0x28, 0, 0, 0, 0x1f, 0xff, 0, 0, 2);
	check(5, 0x2100);
	assert_int_equal(sense_info(), 0x1fff);
	give(T_DISK, 512, 0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1);
	check(5, 0x2100);
	give(T_DISK, 0, 0x28, 0, 0, 0, 0x20, 0x00, 0, 0, 0); /* nothing, at the end */
	good(0);
	assert_int_equal(disk.count[DISK_READ], before);
	give(T_READ_ONLY, 512, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1);
	check(7, 0x2700);
	give(T_READ_ONLY, 24, 0x42, 0, 0, 0, 0, 0, 0, 0, 24);
	check(7, 0x2700);
	give(T_READ_ONLY, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1);
	good(512);
}

static void test_host_errors(void **state)
{
	(void)state;
	disk.error[DISK_READ] = -EIO;
	disk.error[DISK_WRITE] = -ENOSPC;
	disk.error[DISK_FLUSH] = -EIO;
	give(T_DISK, 512, 0x28, 0, 0, 0, 0, 9, 0, 0, 1);
	check(3, 0x1100);
	assert_int_equal(sense_info(), 9);
	give(T_DISK, 512, 0x2a, 0, 0, 0, 0, 9, 0, 0, 1);
	check(7, 0x2707);
	give(T_DISK, 0, 0x35, 0);
	check(3, 0x0c00);
	disk.error[DISK_WRITE] = -EIO;
	disk.later = true;
	assert_int_equal(give(T_DISK, 512, 0x2a, 0, 0, 0, 0, 9, 0, 0, 1), 0);
	assert_int_equal(fake_disk_run(&disk), 1);
	check(3, 0x0c00);
	disk.error[DISK_WRITE] = -EROFS;
	give(T_DISK, 512, 0x2a, 0, 0, 0, 0, 9, 0, 0, 1);
	fake_disk_run(&disk);
	check(7, 0x2700);
	disk.error[DISK_WRITE] = -EINVAL;
	give(T_DISK, 512, 0x2a, 0, 0, 0, 0, 9, 0, 0, 1);
	fake_disk_run(&disk);
	check(4, 0x4400);
	disk.error[DISK_WRITE] = -ENOMEM;
	give(T_DISK, 512, 0x2a, 0, 0, 0, 0, 9, 0, 0, 1);
	fake_disk_run(&disk);
	assert_int_equal(answer.status, SCSI_BUSY);
}

static void test_unmap(void **state)
{
	uint8_t list[8 + 32] = {0, 38, 0, 32};

	(void)state;
	list[8 + 7] = 8; /* 2 blocks at 8, 1 block at 32 */
	list[8 + 11] = 2;
	list[24 + 7] = 32;
	list[24 + 11] = 1;
	memcpy(ram(BUF), list, sizeof(list));
	disk.later = true;
	assert_int_equal(give(T_DISK, sizeof(list), 0x42, 0, 0, 0, 0, 0, 0, 0, sizeof(list)), 0);
	disk_drain(&disk);
	good(sizeof(list));
	assert_int_equal(disk.count[DISK_DISCARD], 2);
	assert_int_equal(disk.bytes[8 * 512], 0xdd);
	assert_int_equal(disk.bytes[10 * 512], 0);
	assert_int_equal(disk.bytes[32 * 512], 0xdd);
	ram(BUF)[24 + 6] = 0x20; /* past the end: nothing is done at all */
	give(T_DISK, sizeof(list), 0x42, 0, 0, 0, 0, 0, 0, 0, sizeof(list));
	check(5, 0x2100);
	assert_int_equal(disk.count[DISK_DISCARD], 2);
	give(T_DISK, 4, 0x42, 0, 0, 0, 0, 0, 0, 0, 4);
	check(5, 0x1a00);
	give(T_DISK, 16, 0x42, 0, 0, 0, 0, 0, 0, 0, 24); /* the list is longer than the buffer */
	assert_int_equal(answer.outcome, SCSI_OVERRUN);
	give(T_DISK, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, 0);
	good(0);
}

static void test_write_same(void **state)
{
	(void)state;
	memset(disk.bytes, 0x11, DISK_BYTES);
	memset(ram(BUF), 0, 512);
	give(T_DISK, 512, 0x41, 0x08, 0, 0, 0, 1, 0, 0, 4); /* zeros, may be unmapped */
	good(512);
	assert_int_equal(disk.count[DISK_WRITE_ZEROES], 1);
	assert_int_equal(disk.bytes[511], 0x11);
	assert_int_equal(disk.bytes[512], 0);
	assert_int_equal(disk.bytes[5 * 512], 0x11);
	memset(ram(BUF), 0x77, 512);
	give(T_DISK, 512, 0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 1); /* 2049 blocks, in pieces */
	good(512);
	assert_int_equal(disk.bytes[2049 * 512 - 1], 0x77);
	assert_int_equal(disk.bytes[2049 * 512], 0x11);
	give(T_DISK, 0, 0x93, 0x01, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1); /* NDOB */
	good(0);
	assert_int_equal(disk.bytes[1024], 0);
	give(T_DISK, 512, 0x41, 0, 0, 0, 0x1f, 0xff, 0, 0, 2);
	check(5, 0x2100);
	give(T_DISK, 512, 0x41, 0x10, 0, 0, 0, 0, 0, 0, 1); /* anchor */
	check(5, 0x2400);
}

static void test_verify(void **state)
{
	(void)state;
	memset(disk.bytes + 512, 0x22, 1024);
	memset(ram(BUF), 0x22, 1024);
	give(T_DISK, 1024, 0x2f, 0x02, 0, 0, 0, 1, 0, 0, 2);
	good(1024);
	ram(BUF)[1000] = 0;
	give(T_DISK, 1024, 0x2f, 0x02, 0, 0, 0, 1, 0, 0, 2);
	check(0xe, 0x1d00);
	give(T_DISK, 0, 0x8f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0); /* all of it, unseen */
	good(0);
	give(T_DISK, 0, 0x2f, 0x04, 0, 0, 0, 1, 0, 0, 2);
	check(5, 0x2400);
	disk.error[DISK_READ] = -EIO;
	give(T_DISK, 0, 0x2f, 0, 0, 0, 0, 1, 0, 0, 2);
	check(3, 0x1100);
	disk.error[DISK_READ] = 0;
	memset(ram(BUF), 0x33, 512);
	give(T_DISK, 512, 0x2e, 0x02, 0, 0, 0, 5, 0, 0, 1);
	good(512);
	assert_int_equal(disk.bytes[5 * 512], 0x33);
	assert_int_equal(disk.count[DISK_FLUSH], 1);
}

static void test_mode_pages(void **state)
{
	(void)state;
	give(T_DISK, 255, 0x1a, 0x08, 0x08, 0, 255);
	good(4 + 20);
	assert_memory_equal(ram(BUF), "\x17\0\x10\0\x08\x12\x04", 7);
	give(T_DISK, 255, 0x1a, 0, 0x3f, 0, 255);
	good(4 + 8 + 12 + 20 + 12);
	assert_memory_equal(ram(BUF + 4), "\0\0\x20\0\0\0\x02\0", 8);
	give(T_READ_ONLY, 255, 0x1a, 0x08, 0x08, 0, 255);
	assert_int_equal(ram(BUF)[2], 0x90);
	give(T_DISK, 255, 0x5a, 0x10, 0x3f, 0xff, 0, 0, 0, 0, 255); /* long LBAs */
	good(8 + 16 + 44);
	assert_int_equal(ram(BUF)[4], 1);
	give(T_DISK, 255, 0x1a, 0, 0x02, 0, 255);
	check(5, 0x2400);
	give(T_DISK, 255, 0x1a, 0, 0xc8, 0, 255); /* saved values */
	check(5, 0x3900);
	give(T_DISK, 255, 0x1a, 0x08, 0x48, 0, 255); /* what can change */
	assert_memory_equal(ram(BUF + 4), "\x08\x12\x04\0", 4);

	/* The write cache off: each write is flushed. */
	memset(ram(BUF), 0, 24);
	memcpy(ram(BUF + 4), "\x08\x12", 2);
	give(T_DISK, 24, 0x15, 0x10, 0, 0, 24);
	good(24);
	give(T_DISK, 512, 0x2a, 0, 0, 0, 0, 0, 0, 0, 1);
	assert_int_equal(disk.count[DISK_FLUSH], 1);
	give(T_DISK, 255, 0x1a, 0x08, 0x08, 0, 255);
	assert_int_equal(ram(BUF)[6], 0);
	memset(ram(BUF), 0, 24);
	memcpy(ram(BUF + 4), "\x08\x12\x05", 3); /* RCD cannot be changed */
	give(T_DISK, 24, 0x15, 0x10, 0, 0, 24);
	check(5, 0x2600);
	memcpy(ram(BUF + 4), "\x08\x20\x04", 3); /* not its length */
	give(T_DISK, 24, 0x15, 0x10, 0, 0, 24);
	check(5, 0x2600);
	memcpy(ram(BUF + 4), "\x3f\x12\x04", 3); /* "all pages" is none */
	give(T_DISK, 24, 0x15, 0x10, 0, 0, 24);
	check(5, 0x2600);
	memset(ram(BUF), 0, 32);
	ram(BUF)[3] = 8; /* a descriptor of other blocks */
	ram(BUF)[4 + 6] = 4;
	give(T_DISK, 12, 0x15, 0x10, 0, 0, 12);
	check(5, 0x2600);
	give(T_DISK, 3, 0x15, 0x10, 0, 0, 3);
	check(5, 0x1a00);
}

static void test_cd(void **state)
{
	(void)state;
	cd.bytes[2048] = 0x5a;
	give(T_CD, 2048, 0x28, 0, 0, 0, 0, 1, 0, 0, 1);
	good(2048);
	assert_int_equal(ram(BUF)[0], 0x5a);
	give(T_CD, 2048, 0x2a, 0, 0, 0, 0, 1, 0, 0, 1);
	check(5, 0x2000);
	give(T_CD, 255, 0x43, 0, 0, 0, 0, 0, 0, 0, 255);
	good(20);
	assert_memory_equal(ram(BUF), "\0\x12\x01\x01\0\x14\x01\0\0\0\0\0\0\x14\xaa\0\0\0\x02\0",
			    20);
	give(T_CD, 255, 0x43, 2, 0, 0, 0, 0, 0xaa, 0, 255);
	good(12);
	assert_memory_equal(ram(BUF + 8), "\0\0\x08\x3e", 4); /* 0:08.62 */
	give(T_CD, 255, 0x46, 0, 0, 0, 0, 0, 0, 0, 255);
	assert_int_equal(ram(BUF)[7], 0x08); /* CD-ROM is the profile */
	assert_int_equal(ram(BUF)[3] + 4, answer.transferred);
	give(T_CD, 255, 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8);
	good(8);
	assert_int_equal(ram(BUF)[5], 2);
	give(T_CD, 0, 0x1e, 0, 0, 0, 1);
	good(0);
	give(T_CD, 0, 0x1b, 0, 0, 0, 2); /* eject */
	check(5, 0x5302);
	give(T_CD, 0, 0x1e, 0, 0, 0, 0);
	give(T_CD, 0, 0x1b, 0, 0, 0, 2);
	good(0);
	give(T_CD, 0, 0x00);
	check(2, 0x3a00);
	give(T_CD, 2048, 0x28, 0, 0, 0, 0, 1, 0, 0, 1);
	check(2, 0x3a00);
	give(T_CD, 0, 0x1b, 0, 0, 0, 3); /* load */
	give(T_CD, 0, 0x00);
	good(0);
	give(T_EMPTY_CD, 0, 0x00);
	check(2, 0x3a00);
}

static void test_stop(void **state)
{
	(void)state;
	give(T_DISK, 0, 0x1b, 0, 0, 0, 0);
	good(0);
	assert_int_equal(disk.count[DISK_FLUSH], 1);
	give(T_DISK, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1);
	check(2, 0x0402);
	give(T_DISK, 0, 0x1b, 0, 0, 0, 1);
	give(T_DISK, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1);
	good(512);
}

static void test_abort(void **state)
{
	(void)state;
	disk.later = true;
	give_to(T_DISK, 0, (const uint8_t[]){0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 10, 512, 1);
	give_to(T_DISK, 0, (const uint8_t[]){0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0}, 10, 512, 2);
	pthread_mutex_lock(&lock);
	assert_int_equal(scsi_abort(bus, T_DISK, 3), 0);
	assert_int_equal(scsi_abort(bus, T_READ_ONLY, 2), 0);
	assert_int_equal(scsi_abort(bus, T_DISK, 2), 1);
	assert_int_equal(scsi_in_flight(bus), 2);
	pthread_mutex_unlock(&lock);
	assert_int_equal(answer.count, 4); /* those of setup: it ends when the disk has let go */
	fake_disk_run(&disk);
	assert_int_equal(answer.count, 6);
	assert_int_equal(answer.tag, 2);
	assert_int_equal(answer.outcome, SCSI_ABORTED);
	assert_int_equal(scsi_in_flight(bus), 0);
}

static void test_reset(void **state)
{
	(void)state;
	give(T_DISK, 0, 0x1b, 0, 0, 0, 0); /* stopped */
	give(T_DISK, 0, 0x1b, 0, 0, 0, 1);
	disk.later = read_only.later = true;
	memset(ram(BUF), 0x66, 512);
	give(T_DISK, 512, 0x2a, 0, 0, 0, 0, 9, 0, 0, 1);
	give(T_READ_ONLY, 512, 0x28, 0, 0, 0, 0, 0, 0, 0, 1);
	unsigned before = answer.count;
	pthread_mutex_lock(&lock);
	scsi_reset(bus, T_DISK);
	pthread_mutex_unlock(&lock);
	assert_int_equal(answer.count, before + 1);
	assert_int_equal(answer.outcome, SCSI_WAS_RESET);
	assert_int_equal(disk.waiting_count, 0); /* the write is not under way any more */
	assert_int_equal(disk.bytes[9 * 512], 0x66);
	give(T_READ_ONLY, 0, 0x00); /* the other one was not reset */
	good(0);
	give(T_DISK, 36, 0x12, 0, 0, 0, 36); /* INQUIRY leaves the attention alone */
	good(36);
	give(T_DISK, 0, 0x00);
	check(6, 0x2900);
	give(T_DISK, 0, 0x00);
	good(0);
	pthread_mutex_lock(&lock);
	scsi_reset(bus, SCSI_ALL_TARGETS);
	assert_int_equal(scsi_in_flight(bus), 0);
	pthread_mutex_unlock(&lock);
	give(T_READ_ONLY, 18, 0x03, 0, 0, 0, 18); /* REQUEST SENSE takes the attention */
	good(18);
	assert_int_equal(ram(BUF)[2], 6);
	assert_int_equal(ram(BUF)[12], 0x29);
	give(T_READ_ONLY, 0, 0x00);
	good(0);
}

/* A command of several pieces ends at a reset, in the middle. */
static void test_reset_between_pieces(void **state)
{
	(void)state;
	disk.later = true;
	give(T_DISK, 0, 0x2f, 0, 0, 0, 0, 0, 0, 0x10, 0); /* VERIFY, 2 MiB */
	unsigned before = answer.count;
	fake_disk_run(&disk);
	assert_int_equal(answer.count, before);
	pthread_mutex_lock(&lock);
	scsi_reset(bus, SCSI_ALL_TARGETS);
	pthread_mutex_unlock(&lock);
	assert_int_equal(answer.count, before + 1);
	assert_int_equal(answer.outcome, SCSI_WAS_RESET);
	assert_int_equal(disk.count[DISK_READ], 2);
}

static void test_sgl(void **state)
{
	struct scsi_sgl s = {.write = true};
	uint8_t bytes[64];

	(void)state;
	assert_int_equal(sgl_add(&s, mem, BUF, 16), 0);
	assert_int_equal(sgl_add(&s, mem, BUF + 16, 16), 0); /* joined */
	assert_int_equal(s.count, 1);
	assert_int_equal(sgl_add(&s, mem, BUF2, 16), 0);
	assert_int_equal(s.count, 2);
	assert_int_equal(sgl_add(&s, mem, HOLE_AT, 16), -EFAULT);
	assert_int_equal(sgl_add(&s, mem, RAM - 8, 16), -EFAULT);
	assert_int_equal(sgl_add(&s, mem, UINT64_MAX - 8, 16), -EFAULT);
	assert_int_equal(sgl_add(&s, mem, BUF, SGL_BYTES_MAX), -E2BIG);
	assert_int_equal(sgl_add(&s, mem, BUF, UINT64_MAX), -E2BIG);
	assert_int_equal(s.bytes, 48);
	memset(bytes, 9, sizeof(bytes));
	assert_int_equal(sgl_write(&s, bytes, 64), 48);
	assert_int_equal(ram(BUF2)[15], 9);
	ram(BUF2)[3] = 1;
	assert_int_equal(sgl_read(&s, 35, bytes, 64), 13);
	assert_int_equal(bytes[0], 1);
	assert_int_equal(pins_of(mem, BUF), 1); /* joined pieces hold their page once */
	assert_int_equal(pins_of(mem, BUF2), 1);
	sgl_trim(&s, 33);
	assert_int_equal(s.bytes, 33);
	assert_int_equal(s.iov[1].iov_len, 1);
	assert_int_equal(pins_of(mem, BUF2), 1);
	sgl_trim(&s, 32);
	assert_int_equal(pins_of(mem, BUF2), 0);
	assert_int_equal(pins_of(mem, BUF), 1);
	sgl_clear(&s);
	assert_int_equal(pinned_pages(mem), 0);
	/* What is only to be read is not written to. */
	s.write = false;
	assert_int_equal(sgl_add(&s, mem, BUF, 16), 0);
	assert_int_equal(sgl_write(&s, bytes, 16), 0);
	sgl_clear(&s);
	for (unsigned i = 0; i < SGL_PIECES_MAX; i++)
		assert_int_equal(sgl_add(&s, mem, BUF + i * 16, 1), 0);
	assert_int_equal(sgl_add(&s, mem, BUF2, 1), -E2BIG);
	sgl_free(&s);
	assert_int_equal(pinned_pages(mem), 0);
}

static void test_bad_units(void **state)
{
	static const struct storage_unit twice[] = {{.target = 1, .disk = &disk, .serial = ""},
						    {.target = 1, .disk = &disk, .serial = ""}};
	static const struct storage_unit empty[] = {{.target = 1, .serial = ""}};
	struct scsi_bus_config cfg = {
		.mem = mem, .lock = &lock, .units = twice, .unit_count = 2, .done = on_done};
	struct scsi_bus *b;
	struct error err = {""};

	(void)state;
	assert_int_equal(scsi_bus_create(&b, &cfg, &err), -EINVAL);
	assert_null(b);
	assert_true(err.text[0]);
	cfg.units = empty;
	cfg.unit_count = 1;
	assert_int_equal(scsi_bus_create(&b, &cfg, &err), -EINVAL);
}

/* Whatever the CDB, whatever the buffer: an answer, and nothing outside of the disk is touched. */
static void test_random_cdbs(void **state)
{
	static const unsigned targets[] = {T_DISK, T_READ_ONLY, T_CD, T_EMPTY_CD};
	unsigned before = answer.count;

	(void)state;
	srand(3);
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t cdb[16];
		for (unsigned k = 0; k < 16; k++)
			cdb[k] = rand() % 3 ? 0 : (uint8_t)rand();
		cdb[0] = (uint8_t)rand();
		if (rand() % 2)
			for (unsigned k = 0; k < 64; k++)
				ram(BUF)[k] = (uint8_t)rand();
		give_to(targets[rand() % 4], 0, cdb, 16, (uint64_t)rand() % 8192, i);
		assert_int_equal(answer.count, before + i + 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_who_is_there, setup, teardown),
		cmocka_unit_test_setup_teardown(test_inquiry, setup, teardown),
		cmocka_unit_test_setup_teardown(test_capacity, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_write, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_addresses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_host_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unmap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_write_same, setup, teardown),
		cmocka_unit_test_setup_teardown(test_verify, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mode_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cd, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
		cmocka_unit_test_setup_teardown(test_abort, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset_between_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sgl, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_units, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_cdbs, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
