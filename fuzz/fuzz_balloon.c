/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/virtio/balloon.h"
#include "fuzz_rings.h"
#include "machine/balloon.h"

/*
 * A guest's view of the balloon: registers, rings, lists of pages and free ranges as the input has
 * them, while the host asks and sets targets. No page is pinned here, so all that is named is given
 * back, at once. What is in the balloon reads as zero, and whatever the guest did, after a reset and a
 * proper start a page can be put into it. The automatic size never asks for more than there is.
 */
enum { MSIX = 0xc0000000, MODERN = 0xc0010000, SIZE = 16, QUEUES = 5, PAGE = 4096 };
enum { RINGS = 0x10000, QUEUE_BYTES = 0x4000, AVAIL = 0x1000, USED = 0x2000, LISTS = 0x3000 };
enum { F_ALL = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 };

static struct fuzz_machine m;
static struct storage_kind kind; /* as a dress only: fuzz_state asks it for ops */
static unsigned avail_idx[QUEUES];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct pci_bus_config pci = {.address_port = 0xcf8,
				     .data_port = 0xcfc,
				     .ecam_gpa = 0xe0000000,
				     .ecam_bytes = 0x10000000};
	struct balloon_config cfg = {.slot = FUZZ_SLOT};

	(void)argc;
	(void)argv;
	must(!bus_create(&m.bus, NULL) && !mem_create(&m.mem, FUZZ_RAM, NULL));
	pci.bus = m.bus;
	must(!pci_bus_create(&m.pci, &pci, NULL));
	cfg.pci = m.pci;
	cfg.mem = m.mem;
	must(!balloon_create((struct balloon **)&m.dev, &cfg, NULL));
	kind.ops = balloon_ops;
	m.kind = &kind;
	return 0;
}

static void poke(uint64_t gpa, const void *data, size_t bytes)
{
	must(!mem_write(m.mem, gpa, data, bytes));
}

static void poke_word(uint64_t gpa, unsigned bytes, uint64_t v)
{
	poke(gpa, &v, bytes);
}

static uint64_t peek(uint64_t gpa, unsigned bytes)
{
	uint64_t v = 0;

	must(!mem_read(m.mem, gpa, &v, bytes));
	return v;
}

static void common(unsigned reg, unsigned size, uint64_t v)
{
	fuzz_out(&m, BUS_MMIO, MODERN + reg, size, v);
}

static void bars(void)
{
	fuzz_config(&m, 0x14, MSIX);
	fuzz_config(&m, 0x20, MODERN);
	fuzz_config(&m, 0x04, 6);
}

static uint64_t rings(unsigned q)
{
	return RINGS + q * QUEUE_BYTES;
}

static void start(uint32_t features)
{
	static const uint8_t zeros[LISTS];

	common(0x14, 1, 0);
	common(0x14, 1, 3);
	common(0x08, 4, 0);
	common(0x0c, 4, features);
	common(0x08, 4, 1);
	common(0x0c, 4, 1);
	common(0x14, 1, 11);
	for (unsigned q = 0; q < QUEUES; q++) {
		poke(rings(q), zeros, sizeof(zeros));
		avail_idx[q] = 0;
		common(0x16, 2, q);
		common(0x18, 2, SIZE);
		common(0x20, 8, rings(q));
		common(0x28, 8, rings(q) + AVAIL);
		common(0x30, 8, rings(q) + USED);
		common(0x1c, 2, 1);
	}
	common(0x14, 1, 15);
}

static void descriptor(unsigned q, unsigned i, uint64_t gpa, uint32_t len, unsigned flags)
{
	poke_word(rings(q) + 16 * i, 8, gpa);
	poke_word(rings(q) + 16 * i + 8, 4, len);
	poke_word(rings(q) + 16 * i + 12, 4, flags | (i + 1) << 16);
}

static void offer(unsigned q, unsigned head)
{
	poke_word(rings(q) + AVAIL + 4 + 2 * (avail_idx[q] % SIZE), 2, head);
	poke_word(rings(q) + AVAIL + 2, 2, ++avail_idx[q]);
}

static void kick(unsigned q)
{
	common(0x3000 + 4 * q, 2, 0);
}

/* A list of the input's bytes, in two pieces: of page numbers, or of a guest's figures. */
static void name(struct fuzz_input *in, unsigned q)
{
	uint8_t list[64];
	unsigned bytes = (unsigned)take(in, 1) % sizeof(list), first = (unsigned)take(in, 1);

	for (unsigned i = 0; i < bytes; i++)
		list[i] = i % 4 == 1 || i % 4 == 2 ? 0 : (uint8_t)take(in, 1);
	poke(rings(q) + LISTS, list, bytes);
	first = bytes ? first % bytes : 0;
	descriptor(q, 0, rings(q) + LISTS, first, 1);
	descriptor(q, 1, rings(q) + LISTS + first, bytes - first, 0);
	offer(q, 0);
	kick(q);
}

static void report(struct fuzz_input *in, unsigned q)
{
	unsigned pieces = 1 + (unsigned)take(in, 1) % 4;

	for (unsigned i = 0; i < pieces; i++) {
		unsigned how = (unsigned)take(in, 1);
		uint64_t gpa = fuzz_address(in) & ~(uint64_t)(how & 1 ? 0 : PAGE - 1);
		uint32_t len = (uint32_t)take(in, 2) * (how & 2 ? 1 : PAGE);
		descriptor(q, i, gpa, len, 2 | (i + 1 < pieces));
	}
	offer(q, 0);
	kick(q);
}

static void advise(struct fuzz_input *in)
{
	const struct balloon_view v = {
		.ram = (1 + take(in, 2)) << 20,
		.limit = take(in, 2) << 20,
		.used = take(in, 2) << 20,
		.target = take(in, 2) << 20,
		.actual = take(in, 2) << 20,
		.available = take(in, 8),
		.swapped = take(in, 1),
		.tender = take(in, 1) & 1,
	};
	struct balloon_advice a = balloon_advise(&v);

	must(a.target <= v.ram && (v.limit || !a.target));
}

static void step(struct fuzz_input *in)
{
	unsigned what = (unsigned)take(in, 1);

	switch (what & 7) {
	case 0: /* a register */
		common((unsigned)take(in, 1) % 0x3c, 1u << (what >> 3 & 3), take(in, 4));
		break;
	case 1: /* the configuration */
		common(0x2000 + (unsigned)take(in, 1) % 32, 1u << (what >> 3 & 3), take(in, 4));
		break;
	case 2: /* anything in the rings */
		poke_word(RINGS + take(in, 2) % (QUEUES * QUEUE_BYTES - 8), 1u << (what >> 3 & 3),
			  take(in, 4));
		break;
	case 3:
		name(in, what >> 3 & 1 ? 2 : 0);
		break;
	case 4:
		report(in, 2 + (what >> 3) % 3);
		break;
	case 5:
		kick(what >> 3 & 7);
		break;
	case 6:
		if (what & 8)
			balloon_ask(m.dev);
		else if (what & 16)
			balloon_set_target(m.dev, take(in, 8));
		else if (what & 32)
			advise(in);
		else
			fake_loop_run();
		break;
	case 7:
		if (what & 8)
			fuzz_state(&m, in);
		else
			start((uint32_t)take(in, 4));
		bars();
		break;
	}
}

static void ballooned_is_zero(void)
{
	static uint8_t page[PAGE];
	struct mem_frame f;

	for (uint64_t gpa = 0; gpa < FUZZ_RAM; gpa += PAGE) {
		must(!mem_frame_at(m.mem, gpa, &f));
		if (f.state != MEM_STATE_BALLOON)
			continue;
		must(!mem_read(m.mem, gpa, page, PAGE));
		for (unsigned i = 0; i < PAGE; i++)
			must(!page[i]);
	}
}

static void still_works(void)
{
	const uint32_t pfn = 0x80000 / PAGE;
	struct mem_frame f;

	while (fake_loop_run())
		;
	balloon_ops.reset(m.dev);
	bars();
	start(F_ALL);
	poke_word(0x80000, 4, 1);
	poke(rings(0) + LISTS, &pfn, 4);
	descriptor(0, 0, rings(0) + LISTS, 4, 0);
	offer(0, 0);
	kick(0);
	must(peek(rings(0) + USED + 2, 2) == 1);
	must(!mem_frame_at(m.mem, 0x80000, &f) && f.state == MEM_STATE_BALLOON && !f.pins);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t full[PAGE] = {1, 2, 3};
	struct fuzz_input in = {data, size};

	balloon_ops.reset(m.dev);
	for (uint64_t gpa = 0; gpa < FUZZ_RAM; gpa += PAGE)
		poke(gpa, full, PAGE);
	bars();
	start(F_ALL);
	while (in.left)
		step(&in);
	ballooned_is_zero();
	still_works();
	return 0;
}
