/* SPDX-License-Identifier: Apache-2.0 */
/* mem/swap.h against a plain array: what is stored comes back, from memory and file, moved or not, while disks
 * fill, fail and lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "mem/swap.h"

#define MIB (UINT64_C(1) << 20)
enum { PAGE = SWAP_PAGE_BYTES, PAGES_MAX = 40000 };

/* ---- the owner: a word a page, which holds the slot, and a version that says what the page holds ---- */

static struct owner {
	struct swap *s;
	char dir[64];
	_Atomic uint64_t word[PAGES_MAX];
	_Atomic uint32_t version[PAGES_MAX];
	_Atomic unsigned refuse; /* of 100 moves */
	atomic_uint offers, moves;
	pthread_mutex_t lock;
	char trouble[512];
	unsigned troubles;
} own;

static uint64_t random64(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

enum kind { ZEROS, TEXT, NOISE, MIXED };

/* The contents of a page's version: its number and version, then zeros, words or noise. */
static void fill(uint32_t page, uint32_t version, enum kind kind, uint8_t *out)
{
	static const char *const words[] = {"memory ", "page ", "segment ",
					    "the ",    "of ",	"frame "};
	uint64_t seed = ((uint64_t)page << 32 | version) * 2654435761U + 88172645463325252U;
	uint64_t head[2] = {page, version};
	size_t at = sizeof(head);

	memset(out, 0, PAGE);
	memcpy(out, head, sizeof(head));
	if (kind == MIXED)
		kind = random64(&seed) % 3;
	while (kind == TEXT && at + 40 < PAGE) {
		const char *w = words[random64(&seed) % 6];
		size_t n = strlen(w);
		memcpy(out + at, w, n);
		at += n;
		if (!(random64(&seed) % 8))
			at += (size_t)sprintf((char *)out + at, "%u ", (unsigned)random64(&seed));
	}
	for (; kind == NOISE && at + 8 <= PAGE; at += 8) {
		uint64_t r = random64(&seed);
		memcpy(out + at, &r, 8);
	}
}

static bool moved(void *opaque, uint32_t page, uint64_t old, uint64_t slot)
{
	static _Atomic uint64_t seed = 1;
	uint64_t r = ++seed * UINT64_C(0x9e3779b97f4a7c15) >> 32;

	(void)opaque;
	own.offers++;
	if (r % 100 < own.refuse)
		return false;
	own.moves++;
	return atomic_compare_exchange_strong(&own.word[page], &old, slot);
}

static void trouble(void *opaque, const char *text)
{
	(void)opaque;
	pthread_mutex_lock(&own.lock);
	snprintf(own.trouble, sizeof(own.trouble), "%s", text);
	own.troubles++;
	pthread_mutex_unlock(&own.lock);
}

static bool in_trouble(const char *word)
{
	bool found;

	pthread_mutex_lock(&own.lock);
	found = word ? strstr(own.trouble, word) != NULL : own.trouble[0] != 0;
	pthread_mutex_unlock(&own.lock);
	return found;
}

static void open_store(uint64_t memory, uint64_t file)
{
	struct swap_config c = {.dir = own.dir,
				.memory_bytes = memory,
				.file_bytes = file,
				.moved = moved,
				.trouble = trouble};
	struct error err = {""};

	if (swap_create(&own.s, &c, &err))
		fail_msg("%s", err.text);
}

static int setup(void **state)
{
	(void)state;
	memset(&own, 0, sizeof(own));
	pthread_mutex_init(&own.lock, NULL);
	/* Not in /tmp, which may be memory. */
	strcpy(own.dir, "swap-test-XXXXXX");
	return mkdtemp(own.dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	swap_destroy(own.s);
	return rmdir(own.dir); /* empty, or this fails */
}

/* The page's next version. 0 or -ENOSPC: then it is not stored. */
static int put(uint32_t page, enum kind kind)
{
	uint64_t old = atomic_exchange(&own.word[page], 0), slot = 0;
	uint8_t data[PAGE];
	int rc;

	if (old)
		swap_free(own.s, old);
	fill(page, ++own.version[page], kind, data);
	rc = swap_store(own.s, page, data, &slot);
	if (rc) {
		assert_int_equal(rc, -ENOSPC);
		return rc;
	}
	assert_int_not_equal(slot, 0);
	assert_int_equal(slot >> SWAP_SLOT_BITS, 0);
	own.word[page] = slot;
	return 0;
}

static void drop(uint32_t page)
{
	uint64_t old = atomic_exchange(&own.word[page], 0);

	if (old)
		swap_free(own.s, old);
}

/* As an owner without a mark of its own loads: again, when the word has changed meanwhile. */
static int get(uint32_t page, uint8_t *data)
{
	uint64_t word;
	int rc;

	do {
		word = own.word[page];
		rc = swap_load(own.s, word, page, data);
	} while (word != own.word[page]);
	return rc;
}

static void check(uint32_t page, enum kind kind)
{
	uint8_t data[PAGE], want[PAGE];

	assert_int_equal(get(page, data), 0);
	fill(page, own.version[page], kind, want);
	assert_memory_equal(data, want, PAGE);
}

static void check_all(uint32_t pages, enum kind kind)
{
	for (uint32_t i = 0; i < pages; i++)
		if (own.word[i])
			check(i, kind);
}

static struct swap_stats stats(void)
{
	struct swap_stats st;

	swap_stats(own.s, &st);
	return st;
}

/* Waits, 10 s at the longest. */
#define WAIT_FOR(condition)                                                                        \
	do {                                                                                       \
		uint64_t wait_until = clock_ns() + UINT64_C(10000000000);                          \
		while (!(condition) && clock_ns() < wait_until)                                    \
			usleep(1000);                                                              \
		assert_true(condition);                                                            \
	} while (0)

/* The swap file's descriptor, which has no name any more. */
static int file_fd(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	int fd = -1;

	while ((e = readdir(d)) != NULL) {
		char path[300], target[600];
		ssize_t n;
		snprintf(path, sizeof(path), "/proc/self/fd/%s", e->d_name);
		n = readlink(path, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = 0;
		if (strstr(target, own.dir) && strstr(target, "(deleted)"))
			fd = atoi(e->d_name);
	}
	closedir(d);
	assert_true(fd >= 0);
	return fd;
}

/* ---- contents ---- */

static void pages_come_back(void **state)
{
	uint8_t data[PAGE], back[PAGE];
	uint64_t slot;

	(void)state;
	open_store(8 * MIB, 0);
	for (uint32_t i = 0; i < 300; i++)
		assert_int_equal(put(i, i % 3), 0);
	for (uint32_t i = 0; i < 300; i++)
		check(i, i % 3);
	assert_int_equal(stats().raw_pages, 100);
	assert_int_equal(stats().live_pages, 300);
	/* Every length that LZ4 can make of a page: noise up to there, then zeros. */
	for (unsigned noise = 0; noise <= PAGE; noise += 8) {
		fill(7, noise, NOISE, data);
		memset(data + noise, 0, PAGE - noise);
		assert_int_equal(swap_store(own.s, UINT32_MAX, data, &slot), 0);
		assert_int_equal(swap_load(own.s, slot, UINT32_MAX, back), 0);
		assert_memory_equal(data, back, PAGE);
	}
}

static void small_pages_cost_little(void **state)
{
	(void)state;
	open_store(4 * MIB, 0);
	for (uint32_t i = 0; i < PAGES_MAX; i++)
		assert_int_equal(put(i, ZEROS), 0);
	check_all(PAGES_MAX, ZEROS);
	assert_true(stats().compressed_bytes <= PAGES_MAX * UINT64_C(64));
}

static void dead_slots_are_refused(void **state)
{
	uint8_t data[PAGE];
	uint64_t slot;

	(void)state;
	open_store(4 * MIB, 0);
	put(1, TEXT);
	put(2, TEXT);
	slot = own.word[1];
	assert_int_equal(swap_load(own.s, slot, 2, data), -ESTALE);
	swap_free(own.s, slot);
	swap_free(own.s, slot);
	assert_int_equal(stats().live_pages, 1);
	assert_int_equal(swap_load(own.s, slot, 1, data), -ESTALE);
	for (unsigned bit = 0; bit < 64; bit++) {
		uint64_t wrong = own.word[2] ^ UINT64_C(1) << bit;
		assert_int_equal(swap_load(own.s, wrong, 2, data), -ESTALE);
		assert_false(swap_on_file(own.s, wrong));
		swap_free(own.s, wrong);
	}
	assert_int_equal(swap_load(own.s, 0, 0, data), -ESTALE);
	check(2, TEXT);
	own.word[1] = 0;
}

/* ---- the model: far more than memory holds, everything at random ---- */

static void run_model(uint32_t pages, unsigned steps, uint64_t seed)
{
	for (unsigned i = 0; i < steps; i++) {
		uint32_t page = (uint32_t)(random64(&seed) % pages);
		unsigned what = random64(&seed) % 10;
		if (what < 5)
			put(page, MIXED);
		else if (what < 7)
			drop(page);
		else if (own.word[page])
			check(page, MIXED);
	}
	check_all(pages, MIXED);
}

static void model_with_file(void **state)
{
	struct swap_stats st;

	(void)state;
	open_store(4 * MIB, 256 * MIB);
	own.refuse = 5;
	for (uint32_t i = 0; i < 20000; i++)
		assert_int_equal(put(i, MIXED), 0);
	run_model(20000, 60000, 12345);
	st = stats();
	assert_true(st.writes > 20);
	assert_true(st.reads > 100);
	assert_true(st.file_bytes <= 256 * MIB);
	assert_int_equal(st.errors, 0);
	for (uint32_t i = 0; i < 20000; i++)
		drop(i);
	st = stats();
	assert_int_equal(st.live_pages, 0);
	assert_int_equal(st.compressed_bytes, 0);
	assert_int_equal(st.file_live_bytes, 0);
}

/* A file that is nearly full of live pages: only compaction goes on finding room. */
static void model_with_little_file(void **state)
{
	(void)state;
	open_store(4 * MIB, 12 * MIB);
	own.refuse = 10;
	run_model(5000, 60000, 777);
	assert_true(stats().compactions > 10);
	assert_true(own.moves > 1000);
	assert_int_equal(stats().errors, 0);
}

static void model_in_memory(void **state)
{
	(void)state;
	open_store(8 * MIB, 0);
	run_model(4000, 60000, 4242);
	assert_true(stats().compactions > 10);
	assert_true(stats().memory_bytes <= 12 * MIB);
}

/* A store that moves nothing because nobody takes it still holds everything. */
static void all_moves_refused(void **state)
{
	(void)state;
	open_store(4 * MIB, 12 * MIB);
	own.refuse = 100;
	run_model(4000, 20000, 99);
	assert_true(own.offers > 1000);
	assert_int_equal(stats().moved_pages, 0);
}

static void dead_space_in_the_file_is_used_again(void **state)
{
	uint64_t seed = 5;

	(void)state;
	open_store(4 * MIB, 512 * MIB);
	/* 137 MiB of noise, of which a sixteenth stays, scattered: no segment dies by itself. */
	for (uint32_t i = 0; i < 35000; i++)
		assert_int_equal(put(i, NOISE), 0);
	for (uint32_t i = 0; i < 35000; i++)
		if (random64(&seed) % 16)
			drop(i);
	WAIT_FOR(stats().file_bytes - stats().file_live_bytes <=
		 2 * stats().file_live_bytes + 130 * MIB);
	WAIT_FOR(stats().compactions > 5);
	check_all(35000, NOISE);
}

/* Less memory: the rest goes to the file, soon. More: it stays in memory from then on. */
static void memory_can_be_more_or_less(void **state)
{
	(void)state;
	open_store(32 * MIB, 128 * MIB);
	for (uint32_t i = 0; i < 6000; i++) /* 24 MiB */
		assert_int_equal(put(i, NOISE), 0);
	assert_int_equal(stats().file_bytes, 0);
	swap_set_memory(own.s, 8 * MIB);
	WAIT_FOR(stats().memory_bytes <= 10 * MIB);
	assert_true(stats().file_live_bytes >= 14 * MIB);
	check_all(6000, NOISE);
	swap_set_memory(own.s, 64 * MIB);
	uint64_t written = stats().written_bytes;
	for (uint32_t i = 6000; i < 12000; i++)
		assert_int_equal(put(i, NOISE), 0);
	assert_int_equal(stats().written_bytes, written);
	swap_set_memory(own.s, 0); /* counts as 4 MiB */
	WAIT_FOR(stats().memory_bytes <= 6 * MIB);
	check_all(12000, NOISE);
}

/* ---- threads ---- */

static atomic_bool done;
static atomic_uint near_taken;

/* Loads by words as they are: what comes with a word that stays is that version of that page. */
static void *load_all_the_time(void *opaque)
{
	uint64_t seed = (uintptr_t)opaque, good = 0;
	uint8_t data[PAGE], want[PAGE];

	while (!done) {
		uint32_t page = (uint32_t)(random64(&seed) % 6000);
		uint64_t word = own.word[page];
		uint32_t version = own.version[page];
		int rc = word ? swap_load(own.s, word, page, data) : -ESTALE;
		if (own.word[page] != word || own.version[page] != version || !word)
			continue;
		fill(page, version, MIXED, want);
		if (rc || memcmp(data, want, PAGE) != 0)
			return "a page was not what was stored";
		good++;
	}
	return good > 50 ? NULL : "hardly any load";
}

/* An owner takes what comes along with its word as it is; here, to drop it. */
static void take_near(void *opaque, uint32_t page, uint64_t slot, const void *data)
{
	uint32_t version = own.version[page];
	uint64_t word = slot;
	uint8_t want[PAGE];

	if (!atomic_compare_exchange_strong(&own.word[page], &word, 0))
		return;
	swap_free(own.s, slot);
	if (own.version[page] != version)
		return; /* stored again since */
	near_taken++;
	fill(page, version, MIXED, want);
	if (memcmp(data, want, PAGE) != 0)
		*(const char **)opaque = "a near page was not what was stored";
}

static void *look_around_all_the_time(void *opaque)
{
	uint64_t seed = (uintptr_t)opaque;
	const char *wrong = NULL;
	uint8_t data[PAGE];

	while (!done && !wrong) {
		uint32_t page = (uint32_t)(random64(&seed) % 6000);
		int rc = swap_load_around(own.s, own.word[page], page, data, 2, take_near, &wrong);
		if (rc && rc != -ESTALE)
			return "a load failed";
	}
	return (void *)wrong;
}

static void loads_go_on_while_pages_come_and_go(void **state)
{
	void *(*const fn[])(void *) = {load_all_the_time, load_all_the_time,
				       look_around_all_the_time};
	pthread_t thread[3];
	uint64_t seed = 31;
	void *wrong;

	(void)state;
	open_store(4 * MIB, 24 * MIB);
	own.refuse = 5;
	done = false;
	near_taken = 0;
	for (uintptr_t i = 0; i < 3; i++)
		pthread_create(&thread[i], NULL, fn[i], (void *)(i + 1));
	for (unsigned i = 0; i < 60000; i++) {
		uint32_t page = (uint32_t)(random64(&seed) % 6000);
		if (random64(&seed) % 4)
			put(page, MIXED);
		else
			drop(page);
	}
	done = true;
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(thread[i], &wrong);
		if (wrong)
			fail_msg("%s", (const char *)wrong);
	}
	check_all(6000, MIXED);
	assert_true(own.moves > 100);
	assert_true(near_taken > 10);
	assert_int_equal(stats().errors, 0);
}

/* ---- read-ahead ---- */

static struct {
	uint32_t page[64];
	unsigned nr;
	bool wrong;
} seen;

static void see(void *opaque, uint32_t page, uint64_t slot, const void *data)
{
	uint8_t want[PAGE];

	assert_ptr_equal(opaque, &seen);
	fill(page, own.version[page], TEXT, want);
	seen.wrong |= own.word[page] != slot || memcmp(data, want, PAGE) != 0;
	seen.page[seen.nr++] = page;
}

static void near_pages_come_along(void **state)
{
	uint8_t data[PAGE], want[PAGE];
	uint64_t reads;

	(void)state;
	open_store(4 * MIB, 64 * MIB);
	/* Each followed by one from far away, and page 505 dead. */
	for (uint32_t i = 0; i < 1000; i++) {
		put(i, TEXT);
		put(30000 + i, TEXT);
	}
	drop(505);
	for (uint32_t i = 5000; !swap_on_file(own.s, own.word[900]); i++)
		put(i, NOISE);
	memset(&seen, 0, sizeof(seen));
	reads = stats().reads;
	assert_int_equal(swap_load_around(own.s, own.word[500], 500, data, 64, see, &seen), 0);
	fill(500, own.version[500], TEXT, want);
	assert_memory_equal(data, want, PAGE);
	assert_int_equal(stats().reads, reads + 1);
	assert_false(seen.wrong);
	assert_true(seen.nr >= 8);
	assert_int_equal(stats().near_pages, seen.nr);
	assert_int_equal(seen.page[0], 501); /* what was stored after it comes first */
	for (unsigned i = 0; i < seen.nr; i++) {
		assert_in_range(seen.page[i], 500 - SWAP_NEAR_PAGES, 500 + SWAP_NEAR_PAGES);
		assert_int_not_equal(seen.page[i], 500);
		assert_int_not_equal(seen.page[i], 505);
	}
	seen.nr = 0;
	assert_int_equal(swap_load_around(own.s, own.word[0], 0, data, 3, see, &seen), 0);
	assert_int_equal(seen.nr, 3);
}

static void drop_everything(void *opaque, uint32_t page, uint64_t slot, const void *data)
{
	(void)page;
	(void)slot;
	(void)data;
	for (uint32_t i = 0; i < PAGES_MAX; i++)
		drop(i);
	++*(unsigned *)opaque;
}

/* The segment that is being read loses its last page meanwhile: its place must not be lost, nor given twice. */
static void all_pages_die_while_one_is_loaded(void **state)
{
	unsigned calls = 0;
	uint8_t data[PAGE];

	(void)state;
	open_store(4 * MIB, 64 * MIB);
	for (uint32_t i = 0; i < 20 || !swap_on_file(own.s, own.word[10]); i++)
		put(i, TEXT);
	assert_int_equal(
		swap_load_around(own.s, own.word[10], 10, data, 8, drop_everything, &calls), 0);
	assert_int_equal(calls, 1); /* the others were dead by then */
	assert_int_equal(stats().live_pages, 0);
	for (uint32_t i = 0; i < 6000; i++)
		assert_int_equal(put(i, NOISE), 0);
	check_all(6000, NOISE);
}

/* ---- trouble ---- */

/* Stores noise from page first on until there is no room. The page that had none. */
static uint32_t fill_up(uint32_t first)
{
	while (first < PAGES_MAX && !put(first, NOISE))
		first++;
	assert_true(first < PAGES_MAX);
	return first;
}

static void full_file_refuses_and_recovers(void **state)
{
	uint32_t pages, more;

	(void)state;
	open_store(4 * MIB, 8 * MIB);
	pages = fill_up(0);
	assert_in_range(pages, 10 * MIB / PAGE, 16 * MIB / PAGE);
	assert_true(stats().file_bytes <= 8 * MIB);
	check_all(pages, NOISE);
	for (uint32_t i = 0; i < pages; i += 2)
		drop(i);
	more = fill_up(pages);
	assert_true(more - pages > pages / 4);
	check_all(more, NOISE);
	assert_false(in_trouble(NULL));
}

static void full_disk_is_told_and_survived(void **state)
{
	struct rlimit was, little;
	uint32_t pages;

	(void)state;
	open_store(4 * MIB, 64 * MIB);
	getrlimit(RLIMIT_FSIZE, &was);
	little = was;
	little.rlim_cur = 3 * MIB;
	setrlimit(RLIMIT_FSIZE, &little);
	pages = fill_up(0);
	setrlimit(RLIMIT_FSIZE, &was);
	assert_true(in_trouble("cannot write the swap file in"));
	assert_true(in_trouble(own.dir));
	assert_true(in_trouble(strerror(EFBIG)));
	assert_int_equal(own.troubles, 1);
	check_all(pages, NOISE);
	WAIT_FOR(!in_trouble(NULL));
	for (uint32_t i = 0; i < 2000; i++)
		assert_int_equal(put(pages + i, NOISE), 0);
	check_all(pages + 2000, NOISE);
}

/* Pages 0 on, noise, until page is on file and the thread is quiet. */
static void put_on_file(uint32_t page)
{
	for (uint32_t i = 0; i <= page || !swap_on_file(own.s, own.word[page]); i++)
		assert_int_equal(put(i, NOISE), 0);
	WAIT_FOR(stats().memory_bytes <= 6 * MIB);
	usleep(20000);
}

static void failed_reads_can_be_tried_again(void **state)
{
	uint8_t data[PAGE], *copy;
	struct stat st;
	int fd;

	(void)state;
	open_store(4 * MIB, 64 * MIB);
	put_on_file(100);
	fd = file_fd();
	fstat(fd, &st);
	copy = aligned_alloc(4096, (size_t)st.st_size);
	assert_int_equal(pread(fd, copy, (size_t)st.st_size, 0), st.st_size);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(swap_load(own.s, own.word[100], 100, data), -EIO);
	assert_true(in_trouble("cannot read the swap file in"));
	assert_true(stats().errors > 0);
	assert_int_equal(pwrite(fd, copy, (size_t)st.st_size, 0), st.st_size);
	free(copy);
	check(100, NOISE);
	assert_false(in_trouble(NULL));
	assert_int_equal(own.troubles, 2);
}

static void changed_bytes_are_seen(void **state)
{
	uint8_t *bytes = aligned_alloc(4096, 2 * MIB), data[PAGE];
	int fd;

	(void)state;
	open_store(4 * MIB, 64 * MIB);
	put_on_file(600);
	fd = file_fd();
	/* One bit in page 100 (a noise page is 4112 bytes); its neighbours are as they were. */
	assert_int_equal(pread(fd, bytes, MIB, 0), MIB);
	bytes[100 * 4112 + 2000] ^= 4;
	assert_int_equal(pwrite(fd, bytes, MIB, 0), MIB);
	assert_int_equal(swap_load(own.s, own.word[100], 100, data), -EBADMSG);
	check(99, NOISE);
	check(101, NOISE);
	/* A write that went to another place: the first segment's bytes in the second. */
	bytes[100 * 4112 + 2000] ^= 4;
	assert_int_equal(pwrite(fd, bytes, MIB, 0), MIB);
	assert_int_equal(pwrite(fd, bytes, MIB, MIB), MIB);
	check(100, NOISE);
	for (uint32_t i = 300; i < 400; i++)
		assert_int_equal(swap_load(own.s, own.word[i], i, data), -EBADMSG);
	/* Scribbles all over: every page is right or refused. */
	for (uint64_t i = 0, seed = 3; i < 200; i++)
		bytes[random64(&seed) % MIB] ^= 1 << i % 8;
	assert_int_equal(pwrite(fd, bytes, MIB, 0), MIB);
	for (uint32_t i = 0; i < 200; i++)
		if (swap_load(own.s, own.word[i], i, data) != -EBADMSG)
			check(i, NOISE);
	free(bytes);
}

static void bad_folders_are_told(void **state)
{
	struct swap_config c = {.dir = "no/such/folder", .memory_bytes = MIB, .file_bytes = MIB};
	struct error err = {""};
	struct swap *s = own.s;

	(void)state;
	assert_int_equal(swap_create(&s, &c, &err), -ENOENT);
	assert_null(s);
	assert_non_null(strstr(err.text, "no/such/folder"));
	/* Nothing to write, nothing made. */
	c.file_bytes = 0;
	assert_int_equal(swap_create(&own.s, &c, &err), 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pages_come_back),
		TEST(small_pages_cost_little),
		TEST(dead_slots_are_refused),
		TEST(model_with_file),
		TEST(model_with_little_file),
		TEST(model_in_memory),
		TEST(all_moves_refused),
		TEST(dead_space_in_the_file_is_used_again),
		TEST(memory_can_be_more_or_less),
		TEST(loads_go_on_while_pages_come_and_go),
		TEST(near_pages_come_along),
		TEST(all_pages_die_while_one_is_loaded),
		TEST(full_file_refuses_and_recovers),
		TEST(full_disk_is_told_and_survived),
		TEST(failed_reads_can_be_tried_again),
		TEST(changed_bytes_are_seen),
		TEST(bad_folders_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
