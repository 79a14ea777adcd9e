/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/nvme/nvme.h"
#include "dev/nvme/nvme_internal.h"
#include "fuzz_rings.h"

/*
 * A guest's view of NVMe: registers, doorbells, commands, PRP lists, all as the input has them, with
 * disks that are slow or fail. Whatever it did, after a reset and a proper start a block can be read.
 */
enum { BAR = 0xc0000000, BELLS = BAR + 0x1000, SIZE = 8 };
enum { SQS = 0x10000, CQS = 0x20000, LISTS = 0x30000, ENABLE = 0x00460001 };

static struct fuzz_machine m;
static unsigned tail[3];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fuzz_make_rings(&m, &nvme_kind, 2);
	return 0;
}

static void reg(unsigned at, uint32_t v)
{
	fuzz_out(&m, BUS_MMIO, BAR + at, 4, v);
}

static void put(unsigned q, const struct nvme_command *c)
{
	memcpy(ram_at(m.mem, SQS + 0x1000 * q + 64 * tail[q], 64), c, 64);
	tail[q] = (tail[q] + 1) % SIZE;
}

static void ring(unsigned q)
{
	fuzz_out(&m, BUS_MMIO, BELLS + 8 * q, 4, tail[q]);
}

static void reap(unsigned q)
{
	/* As many as there are: the device knows how far that is. */
	fuzz_out(&m, BUS_MMIO, BELLS + 8 * q + 4, 4, ((struct nvme *)m.dev)->cq[q].tail);
}

static void admin(const struct nvme_command *c)
{
	put(0, c);
	ring(0);
	reap(0);
}

static void start(void)
{
	fuzz_config(&m, 0x10, BAR);
	fuzz_config(&m, 0x14, 0);
	fuzz_config(&m, 0x04, 6);
	memset(tail, 0, sizeof(tail));
	reg(0x14, 0);
	reg(0x24, (SIZE - 1) << 16 | (SIZE - 1));
	reg(0x28, SQS);
	reg(0x2c, 0);
	reg(0x30, CQS);
	reg(0x34, 0);
	reg(0x14, ENABLE);
	for (unsigned q = 1; q < 3; q++) {
		const struct nvme_command cq = {.opcode = 5,
						.prp1 = CQS + 0x1000 * q,
						.cdw10 = (SIZE - 1) << 16 | q,
						.cdw11 = 3},
					  sq = {.opcode = 1,
						.prp1 = SQS + 0x1000 * q,
						.cdw10 = (SIZE - 1) << 16 | q,
						.cdw11 = q << 16 | 1};
		admin(&cq);
		admin(&sq);
	}
}

static void command(struct fuzz_input *in, unsigned q)
{
	static const uint8_t io[] = {0, 1, 2, 8, 9, 1, 2, 0x55};
	uint8_t op = (uint8_t)take(in, 1);
	struct nvme_command c = {.opcode = q ? io[op & 7] : op & 15};

	c.cid = (uint16_t)take(in, 1);
	c.nsid = (uint32_t)take(in, 1) & 7;
	c.prp1 = fuzz_address(in);
	c.prp2 = take(in, 1) & 1 ? LISTS + take(in, 2) : fuzz_address(in);
	if (!(op & 0x80)) { /* most are where they should be */
		c.prp1 &= ~UINT64_C(3);
		c.prp2 &= ~UINT64_C(7);
	}
	if (!(op & 0x40) && !q)
		c.prp1 = SQS + 0x1000 * (c.cid % 16);
	c.cdw10 = (uint32_t)take(in, 2);
	if (!q)
		c.cdw10 |= (uint32_t)take(in, 1) << 16;
	c.cdw11 = op & 0x20 ? (uint32_t)take(in, 4) : q ? c.opcode == 9 ? 4 : 0 : 1 << 16 | 3;
	c.cdw12 = (uint32_t)take(in, 2);
	put(q, &c);
}

static void step(struct fuzz_input *in)
{
	unsigned what = (unsigned)take(in, 1), q = (what >> 3) % 3;

	switch (what & 7) {
	case 0:
		reg((unsigned)take(in, 1) % 0x40, (uint32_t)take(in, 4));
		break;
	case 1:
		fuzz_out(&m, BUS_MMIO, BELLS + 4 * (take(in, 1) & 15), 4, take(in, 2));
		break;
	case 2:
		fuzz_poke(&m, SQS + take(in, 3) % 0x2fff0, 1u << (what >> 3 & 3), take(in, 4));
		break;
	case 3: /* entries of PRP lists */
		fuzz_poke(&m, LISTS + take(in, 2) / 8 * 8, 8,
			  what & 8 ? fuzz_address(in) : take(in, 2) % 256 << 12);
		break;
	case 4:
		command(in, q);
		break;
	case 5:
		if (what & 0x80)
			reap(q);
		else
			ring(q);
		break;
	case 6:
		fuzz_disk(&m, (uint8_t)(what & ~7u) | (what & 8 ? 3 : 0));
		fake_loop_run();
		break;
	case 7:
		if (what & 8)
			fuzz_state(&m, in);
		else
			start();
		break;
	}
}

static void still_works(void)
{
	const struct nvme_command c = {
		.opcode = 2, .nsid = 1, .prp1 = 0x80000, .cdw10 = 1, .cid = 7};
	uint64_t status;

	fuzz_settle(&m);
	m.kind->ops.reset(m.dev);
	for (unsigned i = 0; i < FUZZ_UNITS; i++)
		memset(m.disk[i].error, 0, sizeof(m.disk[i].error));
	memset(ram_at(m.mem, CQS, 0x3000), 0, 0x3000);
	start();
	put(1, &c);
	ring(1);
	status = fuzz_peek(&m, CQS + 0x1000 + 12, 4);
	must(status == (1 << 16 | 7));
	must(!memcmp(ram_at(m.mem, 0x80000, 512), m.disk[0].bytes + 512, 512));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};

	fuzz_reset(&m);
	start();
	while (in.left)
		step(&in);
	still_works();
	return 0;
}
