/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz_storage.h"

/*
 * A guest's view of IDE: task files, the data port, bus-master tables, as the input has them, with
 * disks that are slow or fail. Whatever it did, after a reset the disk identifies itself.
 */
enum { BM = 0xc000, PRD = 0x1000, REGIONS = 16 };

static struct fuzz_machine m;
static const uint16_t blocks[] = {0x1f0, 0x170}, controls[] = {0x3f6, 0x376};

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fuzz_make(&m, &ide_kind);
	return 0;
}

static void out(uint16_t port, unsigned size, uint32_t v)
{
	fuzz_out(&m, BUS_PIO, port, size, v);
}

/* A command that makes some sense. */
static void command(struct fuzz_input *in)
{
	unsigned target = (unsigned)take(in, 1);
	uint16_t b = blocks[target & 1];

	out(b + 6, 1, (target >> 1 & 1) << 4 | 0x40);
	for (unsigned reg = 1; reg <= 5; reg++) {
		out((uint16_t)(b + reg), 1, target & 0x80 ? (uint32_t)take(in, 1) : 0);
		out((uint16_t)(b + reg), 1, (uint32_t)take(in, 1) & (reg > 3 ? 0x0f : 0xff));
	}
	out(b + 7, 1, (uint32_t)take(in, 1));
}

static void data_port(struct fuzz_input *in, unsigned op)
{
	uint16_t b = blocks[op & 1];
	unsigned count = (unsigned)take(in, 2) % 5000, size = 1u << (op >> 1) % 3;

	for (unsigned i = 0; i < count; i++) {
		if (op & 8)
			out(b, size, (uint32_t)(in->left ? in->data[i % in->left] : 0));
		else
			fuzz_in(&m, BUS_PIO, b, size);
	}
}

static void regions(struct fuzz_input *in)
{
	uint32_t *p = ram_at(m.mem, PRD, REGIONS * 8);
	unsigned n = (unsigned)take(in, 1) % REGIONS;

	for (unsigned i = 0; i < n; i++) {
		p[i * 2] = (uint32_t)take(in, 3) % (FUZZ_RAM + 4096);
		p[i * 2 + 1] = (uint32_t)take(in, 2) | (take(in, 1) & 1 ? 1u << 31 : 0);
	}
	out(BM + 4, 4, PRD);
	out(BM + 12, 4, PRD);
}

static void step(struct fuzz_input *in)
{
	unsigned op = (unsigned)take(in, 1);

	switch (op & 7) {
	case 0:
		command(in);
		break;
	case 1:
		data_port(in, op >> 3);
		break;
	case 2:
		out((uint16_t)(blocks[op >> 3 & 1] + (op >> 4 & 7)), 1u << (op >> 7),
		    (uint32_t)take(in, 2));
		break;
	case 3:
		fuzz_in(&m, BUS_PIO, blocks[op >> 3 & 1] + (op >> 4 & 7), 1u << (op >> 7));
		break;
	case 4:
		out(BM + (op >> 4), 1u << (op >> 3 & 1), (uint32_t)take(in, 2));
		break;
	case 5:
		fuzz_disk(&m, (uint8_t)take(in, 1));
		break;
	case 6:
		if (op & 0x10)
			regions(in);
		else
			out(controls[op >> 3 & 1], 1, (uint32_t)take(in, 1));
		break;
	case 7:
		if (op & 0x80)
			fuzz_state(&m, in);
		else
			fuzz_config(&m, op & 8 ? 0x40 : 4, (uint32_t)take(in, 4));
		break;
	}
}

static void identify(void)
{
	uint8_t sum = 0;

	fuzz_config(&m, 4, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
	out(0x1f6, 1, 0);
	must(fuzz_in(&m, BUS_PIO, 0x1f7, 1) == 0x50);
	out(0x1f7, 1, 0xec);
	must(fuzz_in(&m, BUS_PIO, 0x1f7, 1) == 0x58);
	for (unsigned i = 0; i < 512; i++)
		sum = (uint8_t)(sum + fuzz_in(&m, BUS_PIO, 0x1f0, 1));
	must(!sum && fuzz_in(&m, BUS_PIO, 0x1f7, 1) == 0x50);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};

	fuzz_reset(&m);
	fuzz_config(&m, 0x20, BM);
	fuzz_config(&m, 4, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
	while (in.left)
		step(&in);
	fuzz_reset(&m);
	identify();
	return 0;
}
