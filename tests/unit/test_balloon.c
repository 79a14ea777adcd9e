/* SPDX-License-Identifier: Apache-2.0 */
/* The balloon: its device, driven as a driver does it and as one must not, and its automatic size. */
#include <pthread.h>
#include <unistd.h>

#include "dev/virtio/balloon.h"
#include "dev/virtio/virtio.h"
#include "fake_loop.h"
#include "machine/balloon.h"
#include "scsi_test.h"

enum { MODERN = TEST_BAR, COMMON = MODERN, CONFIG = MODERN + 0x2000, NOTIFY = MODERN + 0x3000 };
enum { SIZE = 32, RINGS = 0x10000, QUEUE_BYTES = 0x4000, PFNS = 0x40000, DATA = 0x100000 };
enum { INFLATE, DEFLATE, STATS, COMPACT_REPORTING, REPORTING, QUEUES };
enum { NEXT = 1, WRITE = 2 };
enum { NEEDS_RESET = 64, ALL_OK = 15 };
enum { F_STATS = 1 << 1, F_OOM = 1 << 2, F_POISON = 1 << 4, F_REPORTING = 1 << 5 };
enum { PAGE = 4096, MIB = 1 << 20 };

static struct balloon *dev;
static unsigned avail_idx[QUEUES];

static uint32_t rd(uint64_t at, unsigned size)
{
	return (uint32_t)bus_in(BUS_MMIO, at, size);
}

static void wr(uint64_t at, unsigned size, uint64_t v)
{
	bus_out(BUS_MMIO, at, size, v);
}

static uint64_t desc_of(unsigned q)
{
	return RINGS + q * QUEUE_BYTES;
}

static uint64_t avail_of(unsigned q)
{
	return desc_of(q) + 0x1000;
}

static uint64_t used_of(unsigned q)
{
	return desc_of(q) + 0x2000;
}

static void bring_up(uint32_t features)
{
	wr(COMMON + 0x14, 1, 0);
	assert_int_equal(rd(COMMON + 0x14, 1), 0);
	wr(COMMON + 0x14, 1, 3);
	wr(COMMON + 0x08, 4, 0);
	wr(COMMON + 0x0c, 4, features);
	wr(COMMON + 0x08, 4, 1);
	wr(COMMON + 0x0c, 4, 1);
	wr(COMMON + 0x14, 1, 11);
	assert_int_equal(rd(COMMON + 0x14, 1), 11);
	memset(ram_at(test_mem, RINGS, QUEUES * QUEUE_BYTES), 0, QUEUES * QUEUE_BYTES);
	memset(avail_idx, 0, sizeof(avail_idx));
	for (unsigned q = 0; q < QUEUES; q++) {
		wr(COMMON + 0x16, 2, q);
		wr(COMMON + 0x18, 2, SIZE);
		wr(COMMON + 0x20, 8, desc_of(q));
		wr(COMMON + 0x28, 8, avail_of(q));
		wr(COMMON + 0x30, 8, used_of(q));
		wr(COMMON + 0x1c, 2, 1);
	}
	wr(COMMON + 0x14, 1, ALL_OK);
}

static int setup(void **state)
{
	struct error err = {""};

	(void)state;
	test_machine();
	fake_loop_reset();
	const struct balloon_config cfg = {
		.pci = chipset_pci(test_chipset), .slot = TEST_SLOT, .mem = test_mem};
	assert_int_equal(balloon_create(&dev, &cfg, &err), 0);
	cfg_write(TEST_SLOT, PCI_BAR0 + 4, 4, TEST_BAR + 0x200000);
	cfg_write(TEST_SLOT, PCI_BAR0 + 16, 4, MODERN);
	cfg_write(TEST_SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	mem_stop(test_mem);
	balloon_ops.destroy(dev);
	test_machine_end();
	return 0;
}

static void desc(unsigned q, unsigned i, uint64_t gpa, uint32_t len, unsigned flags)
{
	uint64_t at = desc_of(q) + 16 * i;

	ram_put64(at, gpa);
	ram_put32(at + 8, len);
	ram_put32(at + 12, flags | (i + 1) << 16);
}

static void offer(unsigned q, unsigned head)
{
	uint16_t v = (uint16_t)head;

	memcpy(ram(avail_of(q) + 4 + 2 * (avail_idx[q] % SIZE)), &v, 2);
	v = (uint16_t)++avail_idx[q];
	memcpy(ram(avail_of(q) + 2), &v, 2);
}

static void kick(unsigned q)
{
	wr(NOTIFY + 4 * q, 2, 0);
}

static unsigned used(unsigned q)
{
	return ram_get32(used_of(q)) >> 16;
}

static struct balloon_info info(void)
{
	struct balloon_info i;

	balloon_get_info(dev, &i);
	return i;
}

/* Names n pages to the inflate or deflate queue, over two buffers. */
static void name_pages(unsigned q, const uint32_t *pfn, unsigned n)
{
	unsigned bytes = 4 * n, first = bytes / 2 + 1; /* cuts through a number */

	assert_int_equal(mem_write(test_mem, PFNS, pfn, bytes), 0);
	desc(q, 0, PFNS, first, NEXT);
	desc(q, 1, PFNS + first, bytes - first, 0);
	offer(q, 0);
	kick(q);
}

static void fill(uint64_t gpa, unsigned pages)
{
	uint8_t bytes[PAGE];

	memset(bytes, 0xa5, sizeof(bytes));
	for (unsigned i = 0; i < pages; i++)
		assert_int_equal(mem_write(test_mem, gpa + i * PAGE, bytes, PAGE), 0);
}

static enum mem_state state_at(uint64_t gpa)
{
	struct mem_frame f;

	assert_int_equal(mem_frame_at(test_mem, gpa, &f), 0);
	return f.state;
}

static unsigned byte_at(uint64_t gpa)
{
	uint8_t v = 1;

	assert_int_equal(mem_read(test_mem, gpa, &v, 1), 0);
	return v;
}

static void must_work(void)
{
	uint32_t pfn[2] = {(DATA + 64 * PAGE) / PAGE, (DATA + 65 * PAGE) / PAGE};
	unsigned before = used(INFLATE);
	uint64_t inflated = info().inflated;

	fill(DATA + 64 * PAGE, 2);
	name_pages(INFLATE, pfn, 2);
	assert_int_equal((used(INFLATE) - before) & 0xffff, 1);
	assert_int_equal(info().inflated, inflated + 2);
	assert_int_equal(state_at(DATA + 65 * PAGE), MEM_STATE_BALLOON);
	assert_int_equal(rd(COMMON + 0x14, 1), ALL_OK);
}

static void test_registers(void **state)
{
	(void)state;
	assert_int_equal(cfg_read(TEST_SLOT, 0, 4), 0x10451af4);
	assert_int_equal(rd(COMMON + 0x12, 2), QUEUES);
	wr(COMMON, 4, 0);
	/* Neither MUST_TELL_HOST (0) nor FREE_PAGE_HINT (3). */
	assert_int_equal(rd(COMMON + 4, 4) & 0xff, F_STATS | F_OOM | F_POISON | F_REPORTING);
	assert_false(info().driver);
	bring_up(F_OOM);
	assert_true(info().driver);
	must_work();
}

static void test_inflate(void **state)
{
	uint32_t pfn[] = {(DATA + 3 * PAGE) / PAGE, (DATA + 1 * PAGE) / PAGE,
			  (DATA + 2 * PAGE) / PAGE, (DATA + 9 * PAGE) / PAGE};

	(void)state;
	bring_up(F_OOM);
	fill(DATA, 12);
	name_pages(INFLATE, pfn, 4);
	assert_int_equal(used(INFLATE), 1);
	assert_int_equal(ram_get32(used_of(INFLATE) + 8), 0); /* nothing was written */
	assert_int_equal(info().inflated, 4);
	for (unsigned i = 0; i < 12; i++) {
		bool in = (i >= 1 && i <= 3) || i == 9;
		assert_int_equal(state_at(DATA + i * PAGE),
				 in ? MEM_STATE_BALLOON : MEM_STATE_PRESENT);
	}
	/* Touched, it is a page as any other, and zero. */
	assert_int_equal(byte_at(DATA + 2 * PAGE + 7), 0);
	assert_int_equal(byte_at(DATA + 4 * PAGE + 7), 0xa5);
	assert_int_equal(state_at(DATA + 2 * PAGE), MEM_STATE_PRESENT);
	assert_int_equal(state_at(DATA + 3 * PAGE), MEM_STATE_BALLOON);
	name_pages(DEFLATE, pfn, 4);
	assert_int_equal(used(DEFLATE), 1);
	assert_int_equal(info().deflated, 4);
	fill(DATA + 3 * PAGE, 1);
	assert_int_equal(byte_at(DATA + 3 * PAGE), 0xa5);
}

/* A driver that lies hurts its guest only, and is counted. */
static void test_lies(void **state)
{
	static uint32_t pfn[5000];
	struct balloon_info i;

	(void)state;
	bring_up(F_OOM);
	fill(DATA, 4);
	void *pinned = mem_pin(test_mem, DATA + PAGE, 1, false);
	const uint32_t lies[] = {
		TEST_RAM / PAGE,     0xfffff,	  UINT32_MAX,	      0xc0000,
		DATA / PAGE,	     DATA / PAGE, DATA / PAGE,	      DATA / PAGE + 1,
		PFNS / PAGE,	     0x100000,	  avail_of(0) / PAGE, TEST_RAM / PAGE - 1,
		TEST_BAR / PAGE + 2,
	};
	name_pages(INFLATE, lies, sizeof(lies) / 4);
	assert_int_equal(used(INFLATE), 1);
	i = info();
	assert_int_equal(i.refused, 6);
	assert_int_equal(i.repeated, 2);
	assert_int_equal(i.inflated, 5);
	assert_int_equal(state_at(DATA), MEM_STATE_BALLOON);
	assert_int_equal(state_at(PFNS), MEM_STATE_BALLOON); /* even the list itself */
	assert_int_equal(state_at(DATA + PAGE), MEM_STATE_PRESENT);
	assert_int_equal(byte_at(DATA + PAGE), 0xa5);
	/* Once more, in another chain. */
	name_pages(INFLATE, lies + 4, 1);
	assert_int_equal(info().repeated, 3);
	/* More than is taken of one chain; half a number; nothing. */
	for (unsigned k = 0; k < 5000; k++)
		pfn[k] = UINT32_MAX - k;
	name_pages(INFLATE, pfn, 5000);
	assert_int_equal(info().refused, 6 + 5000);
	desc(INFLATE, 0, PFNS, 3, 0);
	offer(INFLATE, 0);
	desc(INFLATE, 2, PFNS, 8, WRITE);
	offer(INFLATE, 2);
	kick(INFLATE);
	assert_int_equal(used(INFLATE), 5);
	assert_int_equal(info().inflated, 5);
	must_work();
	/* A list that is not in memory, even if it is said to be endless. */
	desc(INFLATE, 0, TEST_RAM - 4, UINT32_MAX, 0);
	offer(INFLATE, 0);
	kick(INFLATE);
	assert_int_equal(rd(COMMON + 0x14, 1), ALL_OK | NEEDS_RESET);
	assert_false(info().driver);
	mem_unpin(test_mem, pinned, 1);
	bring_up(F_OOM);
	must_work();
}

static void test_target(void **state)
{
	unsigned raised;

	(void)state;
	bring_up(F_OOM);
	raised = wire_rises[TEST_PIN];
	balloon_set_target(dev, 3 * MIB + 17);
	assert_int_equal(wire_rises[TEST_PIN], raised + 1);
	assert_int_equal(rd(MODERN + 0x1000, 1), 2); /* the configuration has changed */
	assert_int_equal(rd(CONFIG, 4), 3 * MIB / PAGE);
	balloon_set_target(dev, 3 * MIB);
	assert_int_equal(wire_level[TEST_PIN], 0);
	balloon_set_target(dev, UINT64_MAX);
	assert_int_equal(info().target, TEST_RAM);
	wr(CONFIG, 4, 0); /* not the driver's */
	assert_int_equal(info().target, TEST_RAM);
	wr(CONFIG + 4, 4, 256);
	assert_int_equal(info().actual, MIB);
	wr(CONFIG + 4, 4, UINT32_MAX);
	assert_int_equal(info().actual, TEST_RAM);
	/* A reset takes the driver's word back, not ours. */
	wr(COMMON + 0x14, 1, 0);
	assert_int_equal(info().actual, 0);
	assert_int_equal(info().target, TEST_RAM);
}

static void tell_stats(uint16_t tag, uint64_t value, unsigned head)
{
	uint8_t told[30] = {0};
	const uint64_t free = 17 * MIB;
	const uint16_t unknown = 0xffff, free_tag = 4;

	memcpy(told, &tag, 2);
	memcpy(told + 2, &value, 8);
	memcpy(told + 10, &unknown, 2);
	memcpy(told + 20, &free_tag, 2);
	memcpy(told + 22, &free, 8);
	assert_int_equal(mem_write(test_mem, PFNS, told, 30), 0);
	desc(STATS, head, PFNS, 30, 0);
	offer(STATS, head);
}

static void test_stats(void **state)
{
	(void)state;
	bring_up(F_STATS);
	assert_false(balloon_ask(dev));
	assert_false(info().told);
	tell_stats(6, 99 * MIB, 0);
	kick(STATS);
	struct balloon_info i = info();
	assert_true(i.told);
	assert_int_equal(i.stat[BALLOON_AVAILABLE], 99 * MIB);
	assert_int_equal(i.stat[BALLOON_FREE], 17 * MIB);
	assert_true(i.stat[BALLOON_TOTAL] == BALLOON_UNTOLD);
	assert_int_equal(used(STATS), 0); /* kept until we ask */
	fake_time_pass(1000);
	assert_true(balloon_ask(dev));
	assert_int_equal(used(STATS), 1);
	assert_false(balloon_ask(dev));
	tell_stats(5, 512 * MIB, 0);
	tell_stats(10, 3, 1); /* and once more, without being asked */
	kick(STATS);
	assert_int_equal(used(STATS), 2);
	assert_true(info().told_ns > i.told_ns);
	assert_int_equal(info().stat[BALLOON_OOM_KILLS], 3);
	/* A reset gives the buffer back at once. */
	bring_up(F_STATS);
	assert_false(info().told);
	assert_false(balloon_ask(dev));
	/* A buffer that was announced too early. */
	tell_stats(6, 5, 0);
	assert_true(balloon_ask(dev));
	assert_int_equal(info().stat[BALLOON_AVAILABLE], 5);
	assert_int_equal(used(STATS), 1);
	/* Without the feature there is no such queue. */
	bring_up(F_OOM);
	tell_stats(6, 1, 0);
	kick(STATS);
	assert_false(info().told);
	must_work();
}

static void report(unsigned q, uint64_t gpa, uint32_t len)
{
	desc(q, 0, gpa, len, WRITE | NEXT);
	desc(q, 1, DATA + 32 * PAGE, 2 * PAGE, WRITE);
	offer(q, 0);
	kick(q);
}

static void test_reporting(void **state)
{
	/* Where the queue is: by the book, and as Linux before 6.11 counts. */
	static const struct {
		uint32_t features;
		unsigned queue;
	} ways[] = {{F_REPORTING | F_STATS, REPORTING},
		    {F_REPORTING | F_STATS, COMPACT_REPORTING},
		    {F_REPORTING, STATS},
		    {F_REPORTING, REPORTING},
		    {F_REPORTING | F_POISON, REPORTING}};

	(void)state;
	for (unsigned w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
		unsigned q = ways[w].queue;
		struct balloon_info before = info(), after;
		bring_up(ways[w].features);
		fill(DATA, 40);
		report(q, DATA, 8 * PAGE);
		assert_int_equal(used(q), 1);
		after = info();
		assert_int_equal(after.reported, before.reported + 10);
		assert_int_equal(state_at(DATA + 7 * PAGE), MEM_STATE_NONE);
		assert_int_equal(state_at(DATA + 8 * PAGE), MEM_STATE_PRESENT);
		assert_int_equal(state_at(DATA + 33 * PAGE), MEM_STATE_NONE);
		/* Lies: the other range counts all the same. */
		report(q, DATA + 10 * PAGE + 1, PAGE);
		report(q, DATA + 10 * PAGE, PAGE + 1);
		report(q, TEST_RAM - PAGE, 2 * PAGE);
		report(q, UINT64_MAX - PAGE + 1, PAGE);
		report(q, TEST_BAR, PAGE);
		assert_int_equal(used(q), 6);
		assert_int_equal(info().refused, after.refused + 1 + 2 + 2 + 1 + 1);
		assert_int_equal(info().reported, after.reported + 10);
		assert_int_equal(state_at(DATA + 10 * PAGE), MEM_STATE_PRESENT);
		assert_int_equal(rd(COMMON + 0x14, 1), ALL_OK);
	}
	/* What is poisoned is wanted back as it was. */
	wr(CONFIG + 12, 4, 0xaaaaaaaa);
	fill(DATA, 40);
	uint64_t kept = info().kept;
	report(REPORTING, DATA, 8 * PAGE);
	assert_int_equal(used(REPORTING), 7);
	assert_int_equal(info().kept, kept + 10);
	assert_int_equal(byte_at(DATA), 0xa5);
	wr(CONFIG + 12, 4, 0);
	report(REPORTING, DATA, 8 * PAGE);
	assert_int_equal(byte_at(DATA), 0);
	/* Not negotiated. */
	bring_up(F_STATS);
	fill(DATA, 8);
	report(REPORTING, DATA, 8 * PAGE);
	report(COMPACT_REPORTING, DATA, 8 * PAGE);
	assert_int_equal(state_at(DATA), MEM_STATE_PRESENT);
}

/* ---- the memory thread, held up where vCPUs would hold it up ---- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void ask_at_gate(void *opaque, unsigned what)
{
	(void)opaque, (void)what;
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
}

static void start_memory_thread(void)
{
	static const struct mem_engine engine = {.ask = ask_at_gate};
	static const struct mem_config cfg = {0};
	struct error err = {""};

	assert_int_equal(mem_start(test_mem, &cfg, &err), 0);
	mem_set_engine(test_mem, &engine);
}

static void wait_for_used(unsigned q, unsigned n)
{
	for (unsigned i = 0;
	     i < 5000 && __atomic_load_n((uint16_t *)ram(used_of(q) + 2), __ATOMIC_ACQUIRE) != n;
	     i++)
		usleep(1000);
	assert_int_equal(used(q), n);
}

static void test_reset_in_flight(void **state)
{
	const uint32_t pfn[] = {DATA / PAGE, DATA / PAGE + 1};
	size_t len;

	(void)state;
	start_memory_thread();
	bring_up(F_STATS | F_REPORTING);
	fill(DATA, 40);
	name_pages(INFLATE, pfn, 2);
	wait_for_used(INFLATE, 1);
	fill(DATA, 2);

	pthread_mutex_lock(&gate);
	name_pages(INFLATE, pfn, 2);
	report(REPORTING, DATA + 4 * PAGE, 2 * PAGE);
	tell_stats(6, 1, 0);
	kick(STATS);
	wr(COMMON + 0x14, 1, 0);
	/* Its memory is not the driver's again yet. */
	assert_int_not_equal(rd(COMMON + 0x14, 1), 0);
	assert_int_equal(used(INFLATE), 1);
	pthread_mutex_unlock(&gate);
	for (unsigned i = 0; i < 5000 && rd(COMMON + 0x14, 1); i++)
		usleep(1000);
	assert_int_equal(rd(COMMON + 0x14, 1), 0);
	assert_int_equal(used(INFLATE), 1);
	assert_int_equal(used(REPORTING), 0);
	bring_up(F_OOM);

	/* Saving waits, as the machine's own reset does. */
	fill(DATA, 2);
	name_pages(INFLATE, pfn, 2);
	free(state_of(&balloon_ops, dev, &len));
	assert_int_equal(used(INFLATE), 1);
	fill(DATA, 2);
	name_pages(INFLATE, pfn, 2);
	balloon_ops.reset(dev);
	assert_int_equal(state_at(DATA), MEM_STATE_BALLOON);
	assert_int_equal(cfg_read(TEST_SLOT, PCI_COMMAND, 2), 0);
}

static void test_round_trip(void **state)
{
	const struct balloon_config cfg = {
		.pci = chipset_pci(test_chipset), .slot = TEST_SLOT + 1, .mem = test_mem};
	const uint32_t pfn[] = {DATA / PAGE};
	struct balloon *other;
	struct balloon_info i;

	(void)state;
	assert_int_equal(balloon_create(&other, &cfg, NULL), 0);
	bring_up(F_STATS | F_REPORTING | F_POISON);
	balloon_set_target(dev, 2 * MIB);
	wr(CONFIG + 4, 4, 77);
	wr(CONFIG + 12, 4, 0x55);
	fill(DATA, 1);
	name_pages(INFLATE, pfn, 1);
	tell_stats(6, 123, 0);
	kick(STATS);
	round_trip(&balloon_ops, dev, other);
	/* The kept buffer is found again, on both sides. */
	while (fake_loop_run())
		;
	balloon_get_info(other, &i);
	assert_true(i.driver && i.told);
	assert_int_equal(i.target, 2 * MIB);
	assert_int_equal(i.actual, 77 * PAGE);
	assert_int_equal(i.stat[BALLOON_AVAILABLE], 123);
	assert_true(balloon_ask(dev));
	assert_int_equal(used(STATS), 1);
	assert_true(balloon_ask(other));
	assert_false(balloon_ask(other));
	balloon_ops.destroy(other);
	while (fake_loop_run())
		;
	must_work();
}

/* ---- how large it is by itself ---- */

#define M(n) ((uint64_t)(n) << 20)

static struct balloon_view view(void)
{
	return (struct balloon_view){
		.ram = M(512), .limit = M(192), .used = M(180), .available = M(400)};
}

static void test_advice(void **state)
{
	struct balloon_view v = view();
	struct balloon_advice a = balloon_advise(&v);

	(void)state;
	/* All that can be spared when it is urgent, half of it before, nothing when far away. */
	assert_int_equal(a.target, M(332));
	v.available = M(300);
	a = balloon_advise(&v);
	assert_int_equal(a.target, M(268));
	assert_true(a.is_urgent && !a.is_short);
	v.used = M(120);
	a = balloon_advise(&v);
	assert_int_equal(a.target, M(134));
	assert_false(a.is_urgent);
	v.used = M(96);
	assert_int_equal(balloon_advise(&v).target, 0);
	/* Not while the guest is on its way, or was short. */
	v = view();
	v.target = M(100);
	v.actual = M(50);
	assert_int_equal(balloon_advise(&v).target, M(100));
	v.actual = M(100);
	v.tender = true;
	assert_int_equal(balloon_advise(&v).target, M(100));
	/* Never into the reserve, nor beyond what makes the rest fit. */
	v = view();
	v.available = M(33);
	assert_int_equal(balloon_advise(&v).target, M(1));
	v.available = M(32);
	assert_int_equal(balloon_advise(&v).target, 0);
	v = view();
	v.target = v.actual = M(330);
	v.available = M(100);
	assert_int_equal(balloon_advise(&v).target, M(512 - 192 + 12));
	v.target = M(400); /* the limit was raised meanwhile */
	assert_int_equal(balloon_advise(&v).target, M(332));
	v.limit = 0;
	assert_int_equal(balloon_advise(&v).target, 0);
	v.limit = M(512);
	assert_int_equal(balloon_advise(&v).target, 0);
}

static void test_shortage(void **state)
{
	struct balloon_view v = view();

	(void)state;
	v.target = v.actual = M(200);
	v.available = M(20);
	struct balloon_advice a = balloon_advise(&v);
	assert_true(a.is_short);
	assert_int_equal(a.target, M(200 - 16));
	v.available = M(1);
	assert_int_equal(balloon_advise(&v).target, M(200 - 31));
	v.actual = M(10); /* it let go by itself */
	assert_int_equal(balloon_advise(&v).target, 0);
	v = view();
	v.target = v.actual = M(200);
	v.swapped = 1;
	assert_true(balloon_advise(&v).is_short);
	v.swapped = 0;
	v.oom_kills = 1;
	assert_true(balloon_advise(&v).is_short);
	v.oom_kills = 0;
	v.major_faults = 1000;
	assert_false(balloon_advise(&v).is_short); /* it just starts programs */
	v.available = M(60);
	assert_true(balloon_advise(&v).is_short);
	/* Without a balloon the balloon is not to blame. */
	v.target = v.actual = 0;
	assert_false(balloon_advise(&v).is_short);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_inflate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lies, setup, teardown),
		cmocka_unit_test_setup_teardown(test_target, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stats, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reporting, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset_in_flight, setup, teardown),
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test(test_advice),
		cmocka_unit_test(test_shortage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
