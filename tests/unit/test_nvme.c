/* SPDX-License-Identifier: Apache-2.0 */
/* NVMe: registers, queues and commands, driven as a driver does it, and as one must not. */
#include "dev/nvme/nvme.h"
#include "dev/nvme/nvme_internal.h"
#include "fake_loop.h"
#include "scsi_test.h"

enum { BAR = TEST_BAR + 0x100000, OTHER_BAR = TEST_BAR + 0x200000, OTHER_SLOT = 4, SIZE = 8 };
enum { CC = 0x14, CSTS = 0x1c, AQA = 0x24, ASQ = 0x28, ACQ = 0x30, BELLS = 0x1000 };
enum { ENABLE = 0x00460001, READY = 1, FATAL = 2 };
enum { ASQ_AT = 0x10000, ACQ_AT = 0x11000, SQ_AT = 0x12000, CQ_AT = 0x13000, DATA = 0x100000 };
enum { LIST = 0x20000, ADMIN = 0, IO = 1 };

static struct nvme *dev;
static uint64_t bar;
/* The driver's side of the two queue pairs. */
static struct {
	uint64_t sq, cq;
	unsigned tail, head, size;
	bool phase;
} pair[2];

static struct nvme *make(unsigned slot, uint64_t at, unsigned cpus)
{
	static const struct storage_unit units[] = {
		{.target = 0, .disk = &test_disk[0], .serial = "S0"},
		{.target = 2, .disk = &test_disk[1], .serial = "S2"},
	};
	struct storage_config cfg = {.bus = test_bus,
				     .pci = chipset_pci(test_chipset),
				     .slot = slot,
				     .mem = test_mem,
				     .cpus = cpus,
				     .units = units,
				     .unit_count = 2};
	struct error err = {""};
	void *made;

	assert_int_equal(nvme_kind.create(&made, &cfg, &err), 0);
	cfg_write(slot, PCI_BAR0, 4, (uint32_t)at);
	cfg_write(slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	return made;
}

static uint32_t rd(unsigned reg)
{
	return (uint32_t)bus_in(BUS_MMIO, bar + reg, 4);
}

static void wr(unsigned reg, uint64_t v)
{
	bus_out(BUS_MMIO, bar + reg, reg == ASQ || reg == ACQ ? 8 : 4, v);
}

static void start_pair(unsigned q, uint64_t sq, uint64_t cq)
{
	memset(ram(sq), 0, 0x1000);
	memset(ram(cq), 0, 0x1000);
	pair[q].sq = sq;
	pair[q].cq = cq;
	pair[q].tail = pair[q].head = 0;
	pair[q].size = SIZE;
	pair[q].phase = true;
}

static void enable(void)
{
	wr(CC, 0);
	assert_int_equal(rd(CSTS), 0);
	start_pair(ADMIN, ASQ_AT, ACQ_AT);
	wr(AQA, (SIZE - 1) << 16 | (SIZE - 1));
	wr(ASQ, ASQ_AT);
	wr(ACQ, ACQ_AT);
	wr(CC, ENABLE);
	assert_int_equal(rd(CSTS), READY);
}

static void put(unsigned q, const struct nvme_command *c)
{
	memcpy(ram(pair[q].sq + 64 * pair[q].tail), c, 64);
	pair[q].tail = (pair[q].tail + 1) % pair[q].size;
}

static void ring(unsigned q)
{
	wr(BELLS + 8 * q, pair[q].tail);
}

/* The next completion: its status, or -1 if there is none. */
static int reap(unsigned q, uint32_t *result, unsigned *cid)
{
	struct nvme_completion c;

	memcpy(&c, ram(pair[q].cq + 16 * pair[q].head), 16);
	if ((c.status & 1) != pair[q].phase)
		return -1;
	if (++pair[q].head == pair[q].size) {
		pair[q].head = 0;
		pair[q].phase = !pair[q].phase;
	}
	wr(BELLS + 8 * q + 4, pair[q].head);
	assert_int_equal(c.sq_id, q);
	if (result)
		*result = c.result;
	if (cid)
		*cid = c.cid;
	return c.status >> 1 & 0x3fff; /* without "do not retry" */
}

static int run(unsigned q, struct nvme_command c)
{
	static uint16_t cid;
	unsigned got;
	int status;

	c.cid = ++cid;
	put(q, &c);
	ring(q);
	disk_drain(&test_disk[0]);
	status = reap(q, NULL, &got);
	assert_true(status >= 0);
	assert_int_equal(got, cid);
	return status;
}

static int admin(uint8_t opcode, uint32_t nsid, uint64_t prp1, uint32_t cdw10, uint32_t cdw11)
{
	return run(ADMIN, (struct nvme_command){.opcode = opcode,
						.nsid = nsid,
						.prp1 = prp1,
						.cdw10 = cdw10,
						.cdw11 = cdw11});
}

static void make_io_pair(void)
{
	start_pair(IO, SQ_AT, CQ_AT);
	assert_int_equal(admin(5, 0, CQ_AT, (SIZE - 1) << 16 | 1, 3), 0);
	assert_int_equal(admin(1, 0, SQ_AT, (SIZE - 1) << 16 | 1, 1 << 16 | 1), 0);
}

static struct nvme_command rw(uint8_t opcode, uint64_t lba, unsigned blocks, uint64_t prp1,
			      uint64_t prp2)
{
	return (struct nvme_command){.opcode = opcode,
				     .nsid = 1,
				     .prp1 = prp1,
				     .prp2 = prp2,
				     .cdw10 = (uint32_t)lba,
				     .cdw11 = (uint32_t)(lba >> 32),
				     .cdw12 = blocks - 1};
}

static void must_work(void)
{
	memset(ram(DATA), 0, 1024);
	assert_int_equal(run(IO, rw(2, 3, 2, DATA, 0)), 0);
	assert_memory_equal(ram(DATA), test_disk[0].bytes + 3 * 512, 1024);
}

static int setup(void **state)
{
	(void)state;
	test_machine();
	fake_loop_reset();
	bar = BAR;
	dev = make(TEST_SLOT, BAR, 1);
	for (unsigned i = 0; i < TEST_DISK_BYTES; i++)
		test_disk[0].bytes[i] = (uint8_t)(i * 7 + i / 512);
	enable();
	make_io_pair();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	nvme_kind.ops.destroy(dev);
	test_machine_end();
	return 0;
}

static void test_identify(void **state)
{
	(void)state;
	assert_int_equal(rd(0x08), 0x10400);
	assert_int_equal(admin(6, 0, DATA, 1, 0), 0);
	assert_memory_equal(ram(DATA + 4), "S0  ", 4);
	assert_int_equal(*ram(DATA + 77), NVME_MDTS);
	assert_int_equal(admin(6, 0, DATA, 2, 0), 0); /* namespaces */
	assert_int_equal(ram_get32(DATA), 1);
	assert_int_equal(ram_get32(DATA + 4), 3);
	assert_int_equal(ram_get32(DATA + 8), 0);
	assert_int_equal(admin(6, 3, DATA, 0, 0), 0);
	assert_int_equal(ram_get64(DATA), TEST_DISK_BYTES / 512);
	assert_int_equal(*ram(DATA + 130), 9);
	assert_int_equal(admin(6, 2, DATA, 0, 0), 0); /* may be, is not */
	assert_int_equal(ram_get64(DATA), 0);
	assert_int_equal(admin(6, 17, DATA, 0, 0), NVME_INVALID_NAMESPACE);
	assert_int_equal(admin(6, 2, DATA, 3, 0), NVME_INVALID_NAMESPACE);
	assert_int_equal(admin(6, 1, DATA, 99, 0), NVME_INVALID_FIELD);
	assert_int_equal(admin(6, 1, TEST_RAM, 1, 0), NVME_DATA_ERROR);
	must_work();
	assert_int_equal(admin(2, 0, DATA, 127 << 16 | 2, 0), 0); /* health */
	assert_int_equal(ram_get64(DATA + 64), 1);
	assert_int_equal(admin(2, 0, DATA, 127 << 16 | 0x70, 0), NVME_INVALID_LOG);
	assert_int_equal(admin(0x7f, 0, DATA, 0, 0), NVME_INVALID_OPCODE);
}

static void test_features(void **state)
{
	struct nvme_command c = {.opcode = 9, .cdw10 = 7, .cdw11 = 3 << 16 | 3};
	uint32_t result;

	(void)state;
	put(ADMIN, &c);
	ring(ADMIN);
	assert_int_equal(reap(ADMIN, &result, NULL), 0);
	assert_int_equal(result, 0); /* one queue of each, as there is one vCPU */
	assert_int_equal(admin(9, 0, 0, 7, 0xffff), NVME_INVALID_FIELD);
	assert_int_equal(admin(9, 0, 0, 0x0f, 0), NVME_INVALID_FIELD);
	assert_int_equal(admin(9, 0, 0, 1u << 31 | 6, 0), NVME_NOT_SAVEABLE);
	/* The write cache, off: each write is flushed. */
	assert_int_equal(run(IO, rw(1, 0, 1, DATA, 0)), 0);
	assert_int_equal(test_disk[0].count[DISK_FLUSH], 0);
	assert_int_equal(admin(9, 0, 0, 6, 0), 0);
	c = (struct nvme_command){.opcode = 10, .cdw10 = 6};
	put(ADMIN, &c);
	ring(ADMIN);
	assert_int_equal(reap(ADMIN, &result, NULL), 0);
	assert_int_equal(result, 0);
	assert_int_equal(run(IO, rw(1, 0, 1, DATA, 0)), 0);
	assert_int_equal(test_disk[0].count[DISK_FLUSH], 1);
	assert_int_equal(admin(9, 0, 0, 6, 1), 0);
	c = rw(1, 0, 1, DATA, 0);
	c.cdw12 |= 1 << 30; /* FUA */
	assert_int_equal(run(IO, c), 0);
	assert_int_equal(test_disk[0].count[DISK_FLUSH], 2);
}

static void test_commands(void **state)
{
	(void)state;
	for (unsigned later = 0; later < 2; later++) {
		test_disk[0].later = later; /* both ways a command can end */
		must_work();
		memset(ram(DATA), 0x5a, 2048);
		assert_int_equal(run(IO, rw(1, 100, 4, DATA, 0)), 0);
		assert_memory_equal(test_disk[0].bytes + 100 * 512, ram(DATA), 2048);
		unsigned flushes = test_disk[0].count[DISK_FLUSH];
		assert_int_equal(run(IO, (struct nvme_command){.opcode = 0, .nsid = 1}), 0);
		assert_int_equal(test_disk[0].count[DISK_FLUSH], flushes + 1);
		assert_int_equal(run(IO, rw(2, TEST_DISK_BYTES / 512 - 1, 2, DATA, 0)),
				 NVME_LBA_RANGE);
		assert_int_equal(run(IO, rw(2, UINT64_MAX, 2, DATA, 0)), NVME_LBA_RANGE);
		assert_int_equal(run(IO, rw(2, 0, 1025, DATA, LIST)), NVME_INVALID_FIELD);
		struct nvme_command c = rw(2, 0, 1, DATA, 0);
		c.nsid = 2;
		assert_int_equal(run(IO, c), NVME_INVALID_NAMESPACE);
		c.nsid = UINT32_MAX;
		assert_int_equal(run(IO, c), NVME_INVALID_NAMESPACE);
		c.nsid = 1;
		c.flags = 0x40; /* a scatter-gather list */
		assert_int_equal(run(IO, c), NVME_INVALID_FIELD);
		assert_int_equal(run(IO, rw(0x55, 0, 1, DATA, 0)), NVME_INVALID_OPCODE);
		test_disk[0].error[DISK_WRITE] = -ENOSPC;
		assert_int_equal(run(IO, rw(1, 0, 1, DATA, 0)), NVME_CAPACITY);
		test_disk[0].error[DISK_WRITE] = -EIO;
		assert_int_equal(run(IO, rw(1, 0, 1, DATA, 0)), NVME_WRITE_FAULT);
		test_disk[0].error[DISK_WRITE] = 0;
		test_disk[0].error[DISK_READ] = -EIO;
		assert_int_equal(run(IO, rw(2, 0, 1, DATA, 0)), NVME_READ_ERROR);
		test_disk[0].error[DISK_READ] = 0;
		/* Two ranges, then one that is too long by one. */
		const struct nvme_range ranges[2] = {{0, 8, 8}, {0, 1, TEST_DISK_BYTES / 512 - 1}};
		memcpy(ram(DATA), ranges, sizeof(ranges));
		c = (struct nvme_command){
			.opcode = 9, .nsid = 1, .prp1 = DATA, .cdw10 = 1, .cdw11 = 4};
		assert_int_equal(run(IO, c), 0);
		assert_int_equal(test_disk[0].bytes[8 * 512], 0xdd);
		assert_int_equal(test_disk[0].bytes[TEST_DISK_BYTES - 1], 0xdd);
		ram_put32(DATA + 16 + 4, 2);
		assert_int_equal(run(IO, c), NVME_LBA_RANGE);
		assert_int_equal(run(IO, rw(8, 8, 8, 0, 0)), 0); /* write zeroes */
		assert_int_equal(test_disk[0].bytes[8 * 512], 0);
	}
}

/* Pages in every way that PRPs can say it. */
static void test_prps(void **state)
{
	const uint8_t *bytes = test_disk[0].bytes;

	(void)state;
	assert_int_equal(run(IO, rw(2, 0, 8, DATA + 0x804, 0x200000)), 0);
	assert_memory_equal(ram(DATA + 0x804), bytes, 0x7fc);
	assert_memory_equal(ram(0x200000), bytes + 0x7fc, 4096 - 0x7fc);
	assert_int_equal(run(IO, rw(2, 0, 8, DATA + 2, 0x200000)), NVME_INVALID_PRP_OFFSET);
	assert_int_equal(run(IO, rw(2, 0, 16, DATA, 0x200008)), NVME_INVALID_PRP_OFFSET);
	/* A list over two pages, the first of which has only one entry left and then the way on. */
	for (unsigned i = 0; i < 100; i++)
		ram_put64(LIST + 0x1000 + 8 * i, 0x300000 + 0x2000 * i);
	ram_put64(LIST + 0xff0, 0x200000);
	ram_put64(LIST + 0xff8, LIST + 0x1000);
	assert_int_equal(run(IO, rw(2, 0, 64, DATA, LIST + 0xff0)), 0);
	assert_memory_equal(ram(DATA), bytes, 4096);
	assert_memory_equal(ram(0x200000), bytes + 4096, 4096);
	for (unsigned i = 0; i < 6; i++)
		assert_memory_equal(ram(0x300000 + 0x2000 * i), bytes + 4096 * (2 + i), 4096);
	ram_put64(LIST + 0x1008, 0x300004);
	assert_int_equal(run(IO, rw(2, 0, 64, DATA, LIST + 0xff0)), NVME_INVALID_PRP_OFFSET);
	ram_put64(LIST + 0x1008, TEST_RAM);
	assert_int_equal(run(IO, rw(2, 0, 64, DATA, LIST + 0xff0)), NVME_DATA_ERROR);
	assert_int_equal(run(IO, rw(2, 0, 64, DATA, LIST + 4)), NVME_INVALID_PRP_OFFSET);
	assert_int_equal(run(IO, rw(2, 0, 64, DATA, UINT64_MAX - 7)), NVME_DATA_ERROR);
	assert_int_equal(run(IO, rw(2, 0, 1, UINT64_MAX - 3, 0)), NVME_DATA_ERROR);
	/* The list leads to itself: as many pages as asked for, then it ends. */
	ram_put64(LIST + 0xff8, LIST);
	for (unsigned i = 0; i < 511; i++)
		ram_put64(LIST + 8 * i, 0x300000);
	assert_int_equal(run(IO, rw(2, 0, 1024, DATA, LIST + 0xff8)), 0);
	must_work();
}

static void test_queues(void **state)
{
	(void)state;
	assert_int_equal(admin(5, 0, CQ_AT, (SIZE - 1) << 16 | 1, 3), NVME_INVALID_QUEUE_ID);
	assert_int_equal(admin(5, 0, CQ_AT, (SIZE - 1) << 16 | 2, 3), NVME_INVALID_QUEUE_ID);
	assert_int_equal(admin(4, 0, 0, 1, 0), NVME_QUEUE_DELETION); /* in use */
	assert_int_equal(admin(0, 0, 0, 2, 0), NVME_INVALID_QUEUE_ID);
	assert_int_equal(admin(0, 0, 0, 1, 0), 0);
	assert_int_equal(admin(4, 0, 0, 1, 0), 0);
	assert_int_equal(admin(4, 0, 0, 0, 0), NVME_INVALID_QUEUE_ID);
	assert_int_equal(admin(1, 0, SQ_AT, (SIZE - 1) << 16 | 1, 1 << 16 | 1), NVME_CQ_INVALID);
	assert_int_equal(admin(5, 0, CQ_AT, 0 << 16 | 1, 3), NVME_INVALID_QUEUE_SIZE);
	assert_int_equal(admin(5, 0, CQ_AT, 1024 << 16 | 1, 3), NVME_INVALID_QUEUE_SIZE);
	assert_int_equal(admin(5, 0, CQ_AT, 7 << 16 | 1, 2), NVME_INVALID_FIELD);
	assert_int_equal(admin(5, 0, CQ_AT, 7 << 16 | 1, 5 << 16 | 3), NVME_INVALID_VECTOR);
	assert_int_equal(admin(5, 0, CQ_AT + 8, 7 << 16 | 1, 3), NVME_INVALID_PRP_OFFSET);
	assert_int_equal(admin(5, 0, TEST_RAM, 7 << 16 | 1, 3), NVME_DATA_ERROR);
	make_io_pair();
	must_work();

	/* A deletion waits for what is in flight. */
	struct nvme_command c = rw(2, 0, 1, DATA, 0), d = {.opcode = 0, .cid = 99, .cdw10 = 1};
	test_disk[0].later = true;
	put(IO, &c);
	ring(IO);
	put(ADMIN, &d);
	ring(ADMIN);
	assert_int_equal(reap(ADMIN, NULL, NULL), -1);
	assert_int_equal(fake_disk_run(&test_disk[0]), 1);
	assert_int_equal(reap(IO, NULL, NULL), 0);
	unsigned cid;
	assert_int_equal(reap(ADMIN, NULL, &cid), 0);
	assert_int_equal(cid, 99);
	assert_int_equal(admin(8, 0, 0, 1, 0), 0); /* abort: too late, and well */
}

/* More commands than completions have room: none is lost. */
static void test_full_queue(void **state)
{
	struct nvme_command c = rw(2, 0, 1, DATA, 0);

	(void)state;
	assert_int_equal(admin(0, 0, 0, 1, 0), 0);
	start_pair(IO, SQ_AT, CQ_AT);
	assert_int_equal(admin(1, 0, SQ_AT, 31 << 16 | 1, 1 << 16 | 1), 0);
	pair[IO].size = 32;
	for (unsigned i = 0; i < 30; i++) {
		c.cid = (uint16_t)i;
		put(IO, &c);
	}
	ring(IO);
	pair[IO].size = SIZE; /* of the completion queue */
	for (unsigned i = 0, cid; i < 30; i++) {
		assert_int_equal(reap(IO, NULL, &cid), 0);
		assert_int_equal(cid, i);
	}
	assert_int_equal(reap(IO, NULL, NULL), -1);
}

/* Doorbells that make no sense are events; the next one waits till the log was read. */
static void test_events(void **state)
{
	struct nvme_command c = {.opcode = 12};
	uint32_t result;
	unsigned cid;

	(void)state;
	for (c.cid = 70; c.cid < 74; c.cid++)
		put(ADMIN, &c);
	ring(ADMIN);
	assert_int_equal(reap(ADMIN, NULL, NULL), -1);
	c.cid = 74;
	assert_int_equal(run(ADMIN, c), NVME_EVENT_LIMIT);
	wr(BELLS + 8, SIZE); /* past the queue's end */
	assert_int_equal(reap(ADMIN, &result, &cid), 0);
	assert_int_equal(cid, 73);
	assert_int_equal(result, 1 << 16 | EVENT_BAD_DOORBELL_VALUE << 8);
	wr(BELLS + 12, (pair[IO].head + 3) % SIZE); /* completions that are not there */
	assert_int_equal(reap(ADMIN, NULL, NULL), -1);
	c = (struct nvme_command){.opcode = 2, .prp1 = DATA, .cdw10 = 15 << 16 | 1, .cid = 80};
	put(ADMIN, &c);
	ring(ADMIN);
	assert_int_equal(reap(ADMIN, &result, NULL), 0);
	assert_int_equal(reap(ADMIN, &result, NULL), 0);
	assert_int_equal(dev->stats.bad_doorbells, 2);
	must_work();
}

static void test_interrupts(void **state)
{
	struct nvme_command c = rw(2, 0, 1, DATA, 0);

	(void)state;
	assert_int_equal(wire_level[TEST_PIN], 0);
	put(IO, &c);
	put(IO, &c);
	unsigned rises = wire_rises[TEST_PIN];
	ring(IO);
	assert_int_equal(wire_level[TEST_PIN], 1);
	wr(0x0c, 1); /* masked */
	assert_int_equal(wire_level[TEST_PIN], 0);
	wr(0x10, 1);
	assert_int_equal(wire_level[TEST_PIN], 1);
	reap(IO, NULL, NULL);
	assert_int_equal(wire_level[TEST_PIN], 1);
	reap(IO, NULL, NULL);
	assert_int_equal(wire_level[TEST_PIN], 0);
	assert_int_equal(wire_rises[TEST_PIN], rises + 2);

	unsigned cap = cfg_read(TEST_SLOT, PCI_CAPABILITIES, 1);
	assert_int_equal(cfg_read(TEST_SLOT, cap, 1), 0x11);
	cfg_write(TEST_SLOT, cap + 2, 2, 0x8000);
	wr(0x2000, 0xfee00000);
	wr(0x200c, 0);
	unsigned messages = test_messages;
	put(IO, &c);
	put(IO, &c);
	put(IO, &c);
	ring(IO); /* its vector is 0, too */
	assert_int_equal(test_messages, messages + 1);
	assert_int_equal(wire_level[TEST_PIN], 0);
}

static void test_enable(void **state)
{
	(void)state;
	/* A reset with a command in flight: ready until it is over. */
	struct nvme_command c = rw(2, 0, 1, DATA, 0);
	test_disk[0].later = true;
	put(IO, &c);
	ring(IO);
	wr(CC, 0);
	assert_int_equal(rd(CSTS), READY);
	assert_int_equal(fake_disk_run(&test_disk[0]), 1);
	assert_int_equal(rd(CSTS), 0);
	ring(IO);
	assert_int_equal(test_disk[0].waiting_count, 0);
	/* What cannot be. */
	wr(CC, ENABLE | 1 << 7); /* 8 KiB pages */
	assert_int_equal(rd(CSTS), FATAL);
	wr(CC, 0);
	assert_int_equal(rd(CSTS), 0);
	wr(ASQ, TEST_RAM);
	wr(CC, ENABLE);
	assert_int_equal(rd(CSTS), FATAL);
	enable();
	make_io_pair();
	must_work();
	/* Shutdown: flushed, then told. */
	wr(CC, ENABLE | 1 << 14);
	assert_int_equal(rd(CSTS), READY | 1 << 2);
	assert_int_equal(fake_disk_run(&test_disk[0]), 1);
	assert_int_equal(rd(CSTS), READY | 2 << 2);
	assert_int_equal(test_disk[1].count[DISK_FLUSH], 1);
	enable();
	make_io_pair();
	must_work();
}

static void test_state(void **state)
{
	const struct dev_ops *ops = &nvme_kind.ops;
	struct nvme *copy = make(OTHER_SLOT, OTHER_BAR, 1);
	struct nvme_command c = {.opcode = 12, .cid = 42};
	unsigned cid;
	size_t len;

	(void)state;
	put(ADMIN, &c);
	ring(ADMIN);
	assert_int_equal(admin(9, 0, 0, 6, 0), 0);
	must_work();
	test_disk[0].later = true;
	c = rw(2, 9, 1, DATA, 0);
	put(IO, &c);
	ring(IO);
	round_trip(ops, dev, copy);
	fake_loop_run();
	assert_int_equal(reap(IO, NULL, NULL), 0); /* over before it was saved */
	test_disk[0].later = false;

	void *bytes = state_of(ops, dev, &len);
	ops->reset(dev);
	assert_int_equal(restore(ops, copy, bytes, len), 0);
	fake_loop_run();
	must_work(); /* its BAR is where the old one's was */
	unsigned flushes = test_disk[0].count[DISK_FLUSH];
	assert_int_equal(run(IO, rw(1, 0, 1, DATA, 0)), 0);
	assert_int_equal(test_disk[0].count[DISK_FLUSH], flushes + 1);
	wr(BELLS + 8, SIZE);
	assert_int_equal(reap(ADMIN, NULL, &cid), 0);
	assert_int_equal(cid, 42);
	free(bytes);
	struct nvme *wide = make(OTHER_SLOT + 1, OTHER_BAR + 0x100000, 4);
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
	for (unsigned i = 0; i < 200; i++) {
		scribble(BUS_MMIO, BAR, 0x40, 20);
		scribble(BUS_MMIO, BAR, 0x4000, 100);
		for (unsigned k = 0; k < 0x1000; k++)
			*ram(ASQ_AT + k) = (uint8_t)(rand() % (k % 64 ? 256 : 16));
		cfg_write(TEST_SLOT, PCI_COMMAND, 2, 6);
		wr(CC, 0);
		wr(AQA, (SIZE - 1) << 16 | (SIZE - 1));
		wr(ASQ, ASQ_AT);
		wr(ACQ, ACQ_AT);
		wr(CC, ENABLE);
		wr(BELLS, SIZE - 1);
		fake_loop_run();
	}
	enable();
	make_io_pair();
	must_work();
}

/* What the controller holds: rings of the queues there are, a command's memory till its end. */
static void test_pins(void **state)
{
	struct nvme_command c = rw(2, 0, 2, DATA + 0xf00, DATA + 0x1000);

	(void)state;
	assert_int_equal(all_pins(test_mem), 4);
	for (unsigned later = 0; later < 2; later++) {
		test_disk[0].later = later;
		assert_int_equal(run(IO, rw(2, 3, 2, SQ_AT + 0xc00, 0)), 0);
		assert_int_equal(run(IO, rw(1, 3, 2, CQ_AT + 0xc00, 0)), 0);
		assert_int_not_equal(run(IO, rw(2, UINT64_MAX / 2, 1, DATA, 0)), 0);
		test_disk[0].error[DISK_READ] = -5;
		assert_int_not_equal(run(IO, rw(2, 3, 2, DATA, 0)), 0);
		test_disk[0].error[DISK_READ] = 0;
		/* The second page is none. */
		assert_int_not_equal(run(IO, rw(2, 3, 8, DATA + 0xf00, TEST_RAM)), 0);
		assert_int_equal(run(IO, rw(2, 3, 2, DATA + 0xf00, 4)), 0x13);
		assert_int_equal(all_pins(test_mem), 4);
	}
	/* A queue that is deleted while a command of it is in flight; and then its completions'. */
	put(IO, &c);
	ring(IO);
	assert_int_equal(pins_of(test_mem, DATA), 1);
	assert_int_equal(pins_of(test_mem, DATA + 0x1000), 1);
	struct nvme_command delete = {.opcode = 0, .cdw10 = 1};
	put(ADMIN, &delete);
	ring(ADMIN);
	assert_int_equal(pinned_pages(test_mem), 4 + 2);
	fake_disk_run(&test_disk[0]);
	assert_int_equal(reap(ADMIN, NULL, NULL), 0);
	assert_int_equal(pins_of(test_mem, SQ_AT), 0);
	assert_int_equal(all_pins(test_mem), 3);
	assert_int_equal(admin(4, 0, 0, 1, 0), 0);
	assert_int_equal(all_pins(test_mem), 2);
	/* A reset with a command in flight. */
	make_io_pair();
	put(IO, &c);
	ring(IO);
	wr(CC, 0);
	assert_int_equal(all_pins(test_mem), 2);
	fake_disk_run(&test_disk[0]);
	assert_int_equal(all_pins(test_mem), 0);
	wr(ASQ, TEST_RAM);
	wr(CC, ENABLE);
	wr(CC, 0);
	assert_int_equal(all_pins(test_mem), 0);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_identify), T(test_features),   T(test_commands), T(test_prps),
		T(test_queues),	  T(test_full_queue), T(test_events),	T(test_interrupts),
		T(test_enable),	  T(test_state),      T(test_random),	T(test_pins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
