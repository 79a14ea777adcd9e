/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/ata/ahci.h"
#include "fuzz_storage.h"

/*
 * A guest's view of AHCI: registers, command lists, tables, FISes and region tables, all as the input
 * has them, with disks that are slow or fail. Whatever it did, after a reset the disk identifies
 * itself.
 */
enum { ABAR = 0xc0000000, LIST = 0x1000, FIS = 0x2000, TABLES = 0x10000, TABLE_BYTES = 0x400 };

static struct fuzz_machine m;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fuzz_make(&m, &ahci_kind);
	return 0;
}

static void port_out(unsigned port, unsigned reg, uint32_t v)
{
	fuzz_out(&m, BUS_MMIO, ABAR + 0x100 + port * 0x80 + reg, 4, v);
}

static void start(unsigned port)
{
	port_out(port, PX_CMD, PXCMD_FRE);
	port_out(port, PX_CLB, LIST);
	port_out(port, PX_FB, FIS);
	port_out(port, PX_CMD, PXCMD_FRE | PXCMD_ST);
}

static uint8_t *table_of(unsigned slot)
{
	return ram_at(m.mem, TABLES + slot * TABLE_BYTES, TABLE_BYTES);
}

static void header(unsigned slot, unsigned regions)
{
	uint32_t *h = ram_at(m.mem, LIST + slot * 32, 32);

	h[0] = 5 | regions << 16;
	h[1] = 0;
	h[2] = TABLES + slot * TABLE_BYTES;
	h[3] = 0;
}

/* A command that makes some sense. */
static void command(struct fuzz_input *in)
{
	unsigned where = (unsigned)take(in, 1), slot = where & 31, port = where >> 5 & 3;
	unsigned regions = (unsigned)take(in, 1) & 15;
	uint8_t *t = table_of(slot);

	memset(t, 0, 0x80);
	t[0] = 0x27;
	t[1] = 0x80;
	t[2] = (uint8_t)take(in, 1);
	t[3] = (uint8_t)take(in, 1);
	t[7] = (uint8_t)take(in, 1);
	t[12] = (uint8_t)take(in, 1);
	t[4] = (uint8_t)take(in, 1);
	t[5] = (uint8_t)take(in, 1);
	t[6] = (uint8_t)(t[2] == 0xb0 ? 0xc2 : 0);
	if (t[2] == 0x60 || t[2] == 0x61)
		t[12] = (uint8_t)(slot << 3);
	if (t[2] == 0xa0)
		for (unsigned i = 0; i < 12; i++)
			t[0x40 + i] = (uint8_t)take(in, 1);
	for (unsigned i = 0; i < regions; i++) {
		uint32_t *r = (uint32_t *)(t + 0x80 + i * 16);
		r[0] = (uint32_t)take(in, 3) % (FUZZ_RAM + 4096);
		r[1] = 0;
		r[3] = (uint32_t)take(in, 2);
	}
	header(slot, regions);
	port_out(port, PX_SACT, 1u << slot);
	port_out(port, PX_CI, 1u << slot);
}

static void step(struct fuzz_input *in)
{
	unsigned op = (unsigned)take(in, 1), reg;

	switch (op & 7) {
	case 0:
	case 1:
		command(in);
		break;
	case 2:
		reg = (unsigned)take(in, 2) & 0xfff;
		fuzz_out(&m, BUS_MMIO, ABAR + reg, 1u << (op >> 6), take(in, 4));
		break;
	case 3:
		fuzz_in(&m, BUS_MMIO, ABAR + (take(in, 2) & 0xfff), 1u << (op >> 6));
		break;
	case 4: /* any bytes in lists and tables */
		reg = (unsigned)take(in, 2);
		*(uint8_t *)ram_at(m.mem, LIST + reg, 1) = (uint8_t)take(in, 1);
		break;
	case 5:
		fuzz_disk(&m, (uint8_t)take(in, 1));
		break;
	case 6:
		start(op >> 3 & 3);
		break;
	case 7:
		if (op & 0x80)
			fuzz_state(&m, in);
		else
			fuzz_config(&m, 4, (uint32_t)take(in, 1) & 0x407);
		break;
	}
}

static void identify(void)
{
	uint8_t *t = table_of(0), sum = 0, *data;
	uint32_t *r = (uint32_t *)(t + 0x80);

	fuzz_config(&m, 0x24, ABAR);
	fuzz_config(&m, 4, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	start(0);
	memset(t, 0, 0x90);
	t[0] = 0x27;
	t[1] = 0x80;
	t[2] = 0xec;
	r[0] = 0x8000;
	r[3] = 511;
	header(0, 1);
	port_out(0, PX_CI, 1);
	data = ram_at(m.mem, 0x8000, 512);
	for (unsigned i = 0; i < 512; i++)
		sum = (uint8_t)(sum + data[i]);
	must(!sum && data[510] == 0xa5);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};

	fuzz_reset(&m);
	fuzz_config(&m, 0x24, ABAR);
	fuzz_config(&m, 4, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	for (unsigned i = 0; i < FUZZ_UNITS; i++)
		start(i);
	while (in.left)
		step(&in);
	fuzz_reset(&m);
	identify();
	return 0;
}
