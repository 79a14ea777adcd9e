/* SPDX-License-Identifier: Apache-2.0 */
#include "../tests/unit/fake_time.h"
#include "dev/scsi/pvscsi.h"
#include "fuzz_storage.h"

/*
 * A guest's view of pvscsi: commands, rings, requests and scatter lists as the input has them, with
 * disks that are slow or fail. Whatever it did, after a reset a driver that behaves gets its answer.
 */
enum { BAR = 0xc0000000, STATE = 0x1000, REQ = 0x2000, CMP = 0x3000, LISTS = 0x4000 };
enum { COMMAND = 0, DATA = 4, MASK = 0x2010, KICK = 0x4018, SETUP_WORDS = 132 };

static struct fuzz_machine m;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fuzz_make(&m, &pvscsi_kind);
	return 0;
}

static void out(unsigned reg, uint32_t v)
{
	fuzz_out(&m, BUS_MMIO, BAR + reg, 4, v);
}

static void setup(void)
{
	uint32_t w[SETUP_WORDS] = {1, 1, STATE >> 12};

	memset(ram_at(m.mem, STATE, 4096), 0, 4096);
	w[4] = REQ >> 12;
	w[68] = CMP >> 12;
	out(COMMAND, 3);
	for (unsigned i = 0; i < SETUP_WORDS; i++)
		out(DATA, w[i]);
	out(MASK, 0xf);
}

static void plug(void)
{
	fuzz_config(&m, PCI_BAR0, BAR);
	fuzz_config(&m, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	out(COMMAND, 1);
	setup();
}

/* A request that makes some sense, in the ring. */
static void request(struct fuzz_input *in)
{
	uint32_t *state = ram_at(m.mem, STATE, 256);
	uint8_t *d = ram_at(m.mem, REQ + (state[0] & 31) * 128, 128);
	uint32_t sense = 0x9000;
	unsigned where = (unsigned)take(in, 1), addr = (unsigned)take(in, 3),
		 len = (unsigned)take(in, 2);

	memset(d, 0, 128);
	memcpy(d, &state[0], 4);
	memcpy(d + 8, &addr, 4);
	memcpy(d + 16, &len, 4);
	memcpy(d + 24, &sense, 4);
	d[32] = 64;
	d[36] = (uint8_t)(where >> 3 & 1);
	if (d[36]) /* a list */
		d[8] = 0, d[9] = LISTS >> 8, d[10] = 0;
	for (unsigned i = 0; i < 10; i++)
		d[40 + i] = (uint8_t)take(in, 1);
	d[56] = 10;
	d[67] = where & 7;
	state[0]++;
	if (where & 0x80)
		state[4] = state[3]; /* completions are taken */
	if (where & 0x40)
		out(KICK, 0);
}

static void scribble(struct fuzz_input *in)
{
	unsigned at = (unsigned)take(in, 2) % 0x8000 & ~3u;
	uint32_t v = (uint32_t)take(in, 4);

	memcpy(ram_at(m.mem, 0x1000 + at, 4), &v, 4);
}

static void poke(struct fuzz_input *in)
{
	static const uint16_t regs[] = {COMMAND, DATA, 8, 0x100c, MASK, 0x3014, KICK, DATA};
	unsigned reg = regs[take(in, 1) % 8];

	if (fuzz_in(&m, BUS_MMIO, BAR + reg, 4) != 0x12345678)
		out(reg, (uint32_t)take(in, 4));
}

/* INQUIRY, from a clean start. */
static void check_alive(void)
{
	uint32_t *state = ram_at(m.mem, STATE, 256);
	uint8_t *d = ram_at(m.mem, REQ, 128), *c = ram_at(m.mem, CMP, 32);

	fuzz_reset(&m);
	plug();
	d[0] = 77;
	d[10] = 1; /* at 10000h */
	d[16] = 36;
	d[40] = 0x12;
	d[44] = 36;
	d[56] = 6;
	state[0] = 1;
	out(KICK, 0);
	must(state[3] == 1 && c[0] == 77 && c[8] == 36 && !c[20] && !c[22]);
	must(!memcmp(ram_at(m.mem, 0x10008, 6), "VMware", 6));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {.data = data, .left = size};

	fuzz_reset(&m);
	plug();
	while (in.left) {
		switch (take(&in, 1) % 8) {
		case 0:
		case 1:
		case 2:
			request(&in);
			break;
		case 3:
			scribble(&in);
			break;
		case 4:
			poke(&in);
			break;
		case 5:
			fuzz_disk(&m, (uint8_t)take(&in, 1));
			break;
		case 6:
			setup();
			fake_time_pass(1000);
			break;
		default:
			if (!(take(&in, 1) & 15))
				fuzz_state(&m, &in);
		}
	}
	check_alive();
	return 0;
}
