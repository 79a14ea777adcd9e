/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/scsi/mpt.h"
#include "fuzz_storage.h"

/*
 * A guest's view of the Fusion-MPT controllers: doorbell, queues, messages and scatter lists as the
 * input has them, with disks that are slow or fail. Whatever it did, after a reset IOC Facts come.
 */
enum { BAR = 0xc0000000, FRAMES = 0x1000, REPLIES = 0x3000, REPLY_BYTES = 80 };
enum { DOORBELL = 0, INTR = 0x30, REQUEST = 0x40, REPLY = 0x44 };

static struct fuzz_machine m[2];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fuzz_make(&m[0], &lsilogic_kind);
	fuzz_make(&m[1], &lsisas1068_kind);
	return 0;
}

static void out(struct fuzz_machine *f, unsigned reg, uint32_t v)
{
	fuzz_out(f, BUS_MMIO, BAR + reg, 4, v);
}

static void handshake(struct fuzz_machine *f, const uint32_t *words, unsigned n)
{
	out(f, DOORBELL, 0x42000000u | n << 16);
	out(f, INTR, 0);
	for (unsigned i = 0; i < n; i++)
		out(f, DOORBELL, words[i]);
}

/* Reads the reply of a handshake to its end: its second half-word, with the function and length. */
static unsigned drain(struct fuzz_machine *f)
{
	unsigned second = 0;

	for (unsigned i = 0; i < 256 && fuzz_in(f, BUS_MMIO, BAR + INTR, 4) & 1; i++) {
		unsigned v = (uint16_t)fuzz_in(f, BUS_MMIO, BAR + DOORBELL, 4);
		if (i == 1)
			second = v;
		out(f, INTR, 0);
	}
	return second;
}

static void bring_up(struct fuzz_machine *f)
{
	static const uint32_t init[10] = {0x02000004, 0x00010800, 0, REPLY_BYTES};

	fuzz_config(f, PCI_BAR0 + 4, BAR);
	fuzz_config(f, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	for (unsigned i = 0; i < 64; i++)
		out(f, REPLY, REPLIES + i * REPLY_BYTES);
	handshake(f, init, 10);
	drain(f);
}

/* A message that makes some sense. */
static void message(struct fuzz_machine *f, struct fuzz_input *in)
{
	unsigned where = (unsigned)take(in, 1), at = FRAMES + (where & 31) * 128;
	uint8_t *d = ram_at(f->mem, at, 128);

	memset(d, 0, 128);
	d[0] = (uint8_t)take(in, 1) & 7;
	d[3] = where >> 5;
	d[2] = (uint8_t)take(in, 1) & 31;
	d[4] = 10;
	d[5] = (uint8_t)take(in, 1);
	d[8] = (uint8_t)where;
	for (unsigned i = 0; i < 10; i++)
		d[0x18 + i] = (uint8_t)take(in, 1);
	if (d[3] == 4) { /* a page */
		d[0x16] = d[0x18] & 15;
		d[0x17] = d[0x19] & 15;
		d[6] = d[0x1a];
		d[0x1d] = 0x80;
		d[0x1f] = 0xd1;
	}
	d[0x29] = (uint8_t)take(in, 1);
	d[0x2d] = 0x80;
	for (unsigned i = 0x30; i < 128 && in->left && i < 0x30 + (where & 7) * 8; i++)
		d[i] = (uint8_t)take(in, 1);
	out(f, REQUEST, at);
}

static void poke(struct fuzz_machine *f, struct fuzz_input *in)
{
	static const uint8_t regs[] = {DOORBELL, 4, 8, INTR, 0x34, REQUEST, REPLY, 0x48};
	unsigned reg = regs[take(in, 1) % 8];

	fuzz_in(f, BUS_MMIO, BAR + reg, 4);
	out(f, reg, (uint32_t)take(in, 4));
}

/* Takes replies and gives their frames back. */
static void replies(struct fuzz_machine *f)
{
	uint32_t v;

	while ((v = (uint32_t)fuzz_in(f, BUS_MMIO, BAR + REPLY, 4)) != UINT32_MAX)
		if (v >> 31)
			out(f, REPLY, v << 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t facts[3] = {0x03000000};
	struct fuzz_input in = {.data = data, .left = size};
	struct fuzz_machine *f = &m[take(&in, 1) & 1];

	fuzz_reset(f);
	bring_up(f);
	while (in.left) {
		switch (take(&in, 1) % 8) {
		case 0:
		case 1:
		case 2:
			message(f, &in);
			break;
		case 3:
			replies(f);
			break;
		case 4:
			poke(f, &in);
			break;
		case 5:
			fuzz_disk(f, (uint8_t)take(&in, 1));
			break;
		case 6:
			if (!(take(&in, 1) & 15)) {
				fuzz_reset(f);
				bring_up(f);
			}
			break;
		default:
			if (!(take(&in, 1) & 15))
				fuzz_state(f, &in);
		}
	}
	fuzz_reset(f);
	bring_up(f);
	handshake(f, facts, 3);
	must(drain(f) == 0x0314); /* IOC Facts, 20 words */
	return 0;
}
