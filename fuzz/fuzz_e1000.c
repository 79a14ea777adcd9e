/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/e1000/e1000.h"
#include "fuzz_nic.h"

/*
 * A guest's view of e1000: registers and descriptors as the input has them, frames that arrive, a
 * port without room. Whatever it did, after a reset a driver that behaves sends and receives.
 */
enum { CTRL = 0, RCTL = 0x100, TCTL = 0x400, RDBAL = 0x2800, TDBAL = 0x3800, IMS = 0xd0 };
enum { TX = 0x1000, RX = 0x2000, BUFFERS = 0x10000, ENTRIES = 32 };

static struct fuzz_nic w;
static uint32_t tail;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fuzz_nic_make(&w, &e1000_kind);
	return 0;
}

static void ring(unsigned base, uint32_t gpa, uint32_t end)
{
	fuzz_nic_out(&w, 0, base, gpa);
	fuzz_nic_out(&w, 0, base + 4, 0);
	fuzz_nic_out(&w, 0, base + 8, ENTRIES * 16);
	fuzz_nic_out(&w, 0, base + 0x10, 0);
	fuzz_nic_out(&w, 0, base + 0x18, end);
}

static void plug(void)
{
	fuzz_nic_plug(&w, 1);
	tail = 0;
	for (unsigned i = 0; i < ENTRIES; i++)
		fuzz_nic_poke(&w, RX + 16 * i, 8, BUFFERS + 2048 * i);
	ring(RDBAL, RX, ENTRIES - 1);
	ring(TDBAL, TX, 0);
	fuzz_nic_out(&w, 0, TCTL, 2);
	fuzz_nic_out(&w, 0, RCTL, 0x8002);
	fuzz_nic_out(&w, 0, IMS, 0xff);
}

/* A descriptor of any type, its buffer in memory mostly. */
static void put(struct fuzz_input *in)
{
	uint64_t d = TX + 16 * (tail % ENTRIES);
	unsigned what = (unsigned)take(in, 1);

	fuzz_nic_poke(&w, d, 8, what & 0x80 ? take(in, 8) : take(in, 3));
	fuzz_nic_poke(&w, d + 8, 2, take(in, 2));
	fuzz_nic_poke(&w, d + 10, 1, what & 1 ? take(in, 1) : (what & 2) << 3);
	fuzz_nic_poke(&w, d + 11, 1, take(in, 1));
	fuzz_nic_poke(&w, d + 12, 4, take(in, 4));
	tail = (tail + 1) % ENTRIES;
	if (what & 0x40)
		fuzz_nic_out(&w, 0, TDBAL + 0x18, tail);
}

static void poke(struct fuzz_input *in)
{
	static const uint16_t regs[] = {0x0,	0x8,	0x10,	0x14,	0x20,	0xc0,	0xc4,
					0xc8,	0xd0,	0xd8,	0x100,	0x400,	0x2800, 0x2804,
					0x2808, 0x2810, 0x2818, 0x2820, 0x282c, 0x3800, 0x3804,
					0x3808, 0x3810, 0x3818, 0x3820, 0x382c, 0x5000, 0x5200,
					0x5400, 0x5404, 0x5600, 0x4074};
	unsigned reg = regs[take(in, 1) % 32];

	if (fuzz_nic_in(&w, 0, reg) != 0x12345678)
		fuzz_nic_out(&w, 0, reg, (uint32_t)take(in, 4));
}

static void check_alive(void)
{
	uint8_t frame[154];
	uint32_t n = fuzz_nic_tcp(frame, 100);
	struct iovec iov = {frame, n};
	struct net_frame f = {.iov = &iov, .iov_count = 1, .bytes = n};

	netport_set_link(w.wire, true);
	fuzz_nic_reset(&w);
	plug();
	memcpy(ram_at(w.m.mem, BUFFERS * 4, n), frame, n);
	fuzz_nic_poke(&w, TX, 8, BUFFERS * 4);
	fuzz_nic_poke(&w, TX + 8, 4, n | 0x0b000000);
	fuzz_nic_out(&w, 0, TDBAL + 0x18, 1);
	must(w.frames == 1 && w.last_bytes == n && !memcmp(w.last, frame, n));
	must(netport_send(w.wire, &f, 1) == 1);
	must(!memcmp(ram_at(w.m.mem, BUFFERS, n), frame, n));
	must(fuzz_nic_in(&w, 0, 0xc0) & 0x81);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {.data = data, .left = size};

	fuzz_nic_reset(&w);
	plug();
	while (in.left) {
		switch (take(&in, 1) % 8) {
		case 0:
		case 1:
		case 2:
			put(&in);
			break;
		case 3:
			poke(&in);
			break;
		case 4:
			fuzz_nic_arrives(&w, &in);
			break;
		case 5:
			fuzz_nic_wire(&w, (uint8_t)take(&in, 1));
			break;
		case 6:
			fuzz_nic_poke(&w, RX + (take(&in, 2) % (ENTRIES * 4)) * 4, 4, take(&in, 4));
			fake_time_pass(take(&in, 2) * 64);
			break;
		default:
			if (!(take(&in, 1) & 15))
				fuzz_nic_state(&w, &in);
		}
	}
	check_alive();
	return 0;
}
