/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/virtio/blk.h"
#include "dev/virtio/virtio.h"
#include "fuzz_rings.h"

/*
 * A guest's view of virtio-blk: registers of both interfaces, descriptors, rings and indirect tables,
 * all as the input has them, with a disk that is slow or fails. Whatever it did, after a reset and a
 * proper start a sector can be read.
 */
enum { MSIX = 0xc0000000, MODERN = 0xc0010000, LEGACY = 0xc000, SIZE = 16 };
enum { DESC = 0x1000, AVAIL = 0x2000, USED = 0x3000, TABLE = 0x4000, HEADERS = 0x5000 };
enum { QUEUE_BYTES = 0x10000 };

static struct fuzz_machine m;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fuzz_make_rings(&m, &virtio_blk_kind, 1);
	return 0;
}

static void common(unsigned reg, unsigned size, uint64_t v)
{
	fuzz_out(&m, BUS_MMIO, MODERN + reg, size, v);
}

static void bars(void)
{
	fuzz_config(&m, 0x10, LEGACY);
	fuzz_config(&m, 0x14, MSIX);
	fuzz_config(&m, 0x20, MODERN);
	fuzz_config(&m, 0x04, 7);
}

static void start(uint32_t features)
{
	common(0x14, 1, 0);
	common(0x14, 1, 3);
	common(0x08, 4, 0);
	common(0x0c, 4, features);
	common(0x08, 4, 1);
	common(0x0c, 4, 1);
	common(0x14, 1, 11);
	for (unsigned q = 0; q < 2; q++) {
		common(0x16, 2, q);
		common(0x18, 2, SIZE);
		common(0x20, 8, DESC + q * QUEUE_BYTES);
		common(0x28, 8, AVAIL + q * QUEUE_BYTES);
		common(0x30, 8, USED + q * QUEUE_BYTES);
		common(0x1c, 2, 1);
	}
	common(0x14, 1, 15);
}

static void descriptor(uint64_t at, uint64_t gpa, uint32_t len, unsigned flags, unsigned next)
{
	fuzz_poke(&m, at, 8, gpa);
	fuzz_poke(&m, at + 8, 4, len);
	fuzz_poke(&m, at + 12, 4, flags | next << 16);
}

static void offer(unsigned q, unsigned head)
{
	uint64_t avail = AVAIL + q * QUEUE_BYTES;
	unsigned idx = (unsigned)fuzz_peek(&m, avail + 2, 2);

	fuzz_poke(&m, avail + 4 + 2 * (idx % SIZE), 2, head);
	fuzz_poke(&m, avail + 2, 2, idx + 1);
}

/* A request that makes some sense, its pieces cut as the input says. */
static void request(struct fuzz_input *in)
{
	unsigned what = (unsigned)take(in, 1), q = what & 1, first = what >> 1 & 7;
	unsigned pieces = 2 + (what >> 4 & 3), i = first;
	bool indirect = what & 0x80;
	uint64_t base = indirect ? TABLE + q * QUEUE_BYTES : DESC + q * QUEUE_BYTES;
	uint64_t header = HEADERS + q * QUEUE_BYTES + 64 * first;
	uint32_t type = (uint32_t)take(in, 1) & 15;

	fuzz_poke(&m, header, 8, type);
	fuzz_poke(&m, header + 8, 8, take(in, 2));
	descriptor(base + 16 * i, header, 16, 1, i + 1);
	for (unsigned k = 1; k < pieces; k++) {
		unsigned flags = (type & 1) && k + 1 < pieces ? 0 : 2;
		i++;
		descriptor(base + 16 * i, fuzz_address(in), (uint32_t)take(in, 2),
			   flags | (k + 1 < pieces ? 1 : 0), i + 1);
	}
	if (indirect)
		descriptor(DESC + q * QUEUE_BYTES + 16 * first, base + 16 * first,
			   16 * pieces + (first == 7), 4, 0);
	offer(q, first);
}

static void step(struct fuzz_input *in)
{
	unsigned what = (unsigned)take(in, 1), at;

	switch (what & 7) {
	case 0: /* a register */
		at = (unsigned)take(in, 1) % 0x3c;
		common(at, 1u << (what >> 3 & 3), take(in, 4));
		break;
	case 1: /* legacy */
		at = (unsigned)take(in, 1) % 128;
		fuzz_out(&m, BUS_PIO, LEGACY + at, 1u << (what >> 3) % 3, take(in, 4));
		break;
	case 2: /* anything in a ring or table */
		fuzz_poke(&m, DESC + take(in, 2) % 0x13000, 1u << (what >> 3 & 3), take(in, 4));
		break;
	case 3:
	case 4:
		request(in);
		break;
	case 5:
		common(0x3000 + 4 * (what >> 3 & 3), 2, 0);
		break;
	case 6:
		fuzz_disk(&m, (uint8_t)(what >> 3 << 2));
		fake_loop_run();
		break;
	case 7:
		if (what & 8)
			fuzz_state(&m, in);
		else if (what & 16)
			fuzz_config(&m, 0x40 + (unsigned)take(in, 1) % 0x60 / 4 * 4,
				    (uint32_t)take(in, 4));
		else
			start((uint32_t)take(in, 4));
		bars();
		break;
	}
}

static void still_works(void)
{
	fuzz_settle(&m);
	m.kind->ops.reset(m.dev);
	memset(m.disk[0].error, 0, sizeof(m.disk[0].error));
	bars();
	memset(ram_at(m.mem, DESC, 0x5000), 0, 0x5000);
	start(0);
	fuzz_poke(&m, HEADERS, 8, 0);
	fuzz_poke(&m, HEADERS + 8, 8, 1);
	fuzz_poke(&m, HEADERS + 32, 1, 0xff);
	descriptor(DESC, HEADERS, 16, 1, 1);
	descriptor(DESC + 16, 0x80000, 512, 3, 2);
	descriptor(DESC + 32, HEADERS + 32, 1, 2, 0);
	offer(0, 0);
	common(0x3000, 2, 0);
	must(fuzz_peek(&m, USED + 2, 2) == 1 && fuzz_peek(&m, HEADERS + 32, 1) == 0);
	must(!memcmp(ram_at(m.mem, 0x80000, 512), m.disk[0].bytes + 512, 512));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};

	fuzz_reset(&m);
	bars();
	start(1u << 28 | 1u << 9);
	while (in.left)
		step(&in);
	still_works();
	return 0;
}
