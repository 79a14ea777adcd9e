/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/vmxnet3/vmxnet3.h"
#include "fuzz_nic.h"

/*
 * A guest's view of vmxnet3: what it shares, commands and rings as the input has them, frames that
 * arrive, a port without room. Whatever it did, after a reset a driver that behaves sends and
 * receives.
 */
enum { TXPROD = 0x600, RXPROD = 0x800, DSAL = 0x10, DSAH = 0x18, CMD = 0x20 };
enum { SHARED = 0x1000, QUEUES = 0x1800, RSS = 0x1400, TX = 0x2000, TXC = 0x2400, SIZE = 32 };
enum { RX1 = 0x3000, RX2 = 0x4000, RXC = 0x5000, STEP = 0x800, HEADS = 0x10000, BODIES = 0x60000 };
enum { RX_QUEUES = 2, GEN = 1 << 14 };

static struct fuzz_nic w;
static unsigned tail;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fuzz_nic_make(&w, &vmxnet3_kind);
	return 0;
}

static void describe(unsigned q, uint32_t ring, uint32_t ring2, uint32_t comp)
{
	uint32_t d = QUEUES + 256 * q;

	fuzz_nic_poke(&w, d + 16, 8, ring);
	fuzz_nic_poke(&w, d + 24, 8, ring2);
	fuzz_nic_poke(&w, d + 32, 8, comp);
	fuzz_nic_poke(&w, d + 56, 4, SIZE);
	fuzz_nic_poke(&w, d + 60, 4, q ? SIZE : 0);
	fuzz_nic_poke(&w, d + 64, 4, q ? 2 * SIZE : SIZE);
	fuzz_nic_poke(&w, d + 72, 1, q);
}

static void fill(unsigned q, bool gen)
{
	for (unsigned i = 0; i < SIZE; i++) {
		uint32_t at = q * STEP + 16 * i;
		fuzz_nic_poke(&w, RX1 + at, 8, HEADS + 2048 * i);
		fuzz_nic_poke(&w, RX1 + at + 8, 4, 1600 | (uint32_t)gen << 31);
		fuzz_nic_poke(&w, RX2 + at, 8, BODIES + 4096 * i);
		fuzz_nic_poke(&w, RX2 + at + 8, 4, 4096 | GEN | (uint32_t)gen << 31);
	}
}

static void prepare(uint8_t features)
{
	memset(ram_at(w.m.mem, SHARED, 0x6000), 0, 0x6000);
	tail = 0;
	fuzz_nic_poke(&w, SHARED, 4, 3133079265u);
	fuzz_nic_poke(&w, SHARED + 24, 8, features);
	fuzz_nic_poke(&w, SHARED + 40, 8, QUEUES);
	fuzz_nic_poke(&w, SHARED + 56, 4, features & 0x80 ? 9000 : 1500);
	fuzz_nic_poke(&w, SHARED + 62, 2, 1 | RX_QUEUES << 8);
	fuzz_nic_poke(&w, SHARED + 80, 4, 1 | 4 << 8 | 3 << 16);
	fuzz_nic_poke(&w, SHARED + 120, 4, 5);
	fuzz_nic_poke(&w, SHARED + 652, 4, 176);
	fuzz_nic_poke(&w, SHARED + 656, 8, RSS);
	fuzz_nic_poke(&w, RSS, 8, 0xf | 1ull << 16 | 40ull << 32 | 128ull << 48);
	fuzz_nic_poke(&w, RSS + 8, 8, 0xc20e5b25da565a6d);
	fuzz_nic_poke(&w, RSS + 48, 8, 0x0001000100010001);
	describe(0, TX, 0, TXC);
	for (unsigned q = 0; q < RX_QUEUES; q++) {
		describe(1 + q, RX1 + q * STEP, RX2 + q * STEP, RXC + q * STEP);
		fill(q, true);
	}
}

static void start(void)
{
	fuzz_nic_out(&w, 1, DSAL, SHARED);
	fuzz_nic_out(&w, 1, DSAH, 0);
	fuzz_nic_out(&w, 1, CMD, 0xcafe0000);
	for (unsigned i = 0; i < 4; i++)
		fuzz_nic_out(&w, 0, 8 * i, 0);
}

static void put(struct fuzz_input *in)
{
	uint64_t d = TX + 16 * (tail % SIZE);
	unsigned what = (unsigned)take(in, 1);
	uint32_t lower = (uint32_t)take(in, 4) & ~(uint32_t)GEN;

	fuzz_nic_poke(&w, d, 8, what & 0x80 ? take(in, 8) : take(in, 3));
	fuzz_nic_poke(&w, d + 12, 4, take(in, 4));
	fuzz_nic_poke(&w, d + 8, 4, lower | (tail / SIZE % 2 ? 0 : GEN));
	tail++;
	if (what & 0x40)
		fuzz_nic_out(&w, 0, TXPROD, tail);
}

static void poke(struct fuzz_input *in)
{
	unsigned what = (unsigned)take(in, 1), reg = 8 * ((unsigned)take(in, 1) % 9);

	if (what & 1)
		fuzz_nic_out(&w, 1, CMD,
			     (what & 2 ? 0xf00d0000 : 0xcafe0000) + (uint32_t)take(in, 1) % 17);
	else if (fuzz_nic_in(&w, what >> 1 & 1, reg) != 0x12345678)
		fuzz_nic_out(&w, what >> 1 & 1, reg, (uint32_t)take(in, 4));
}

static void scribble(struct fuzz_input *in)
{
	unsigned at = (unsigned)take(in, 2) % 0x6000 & ~3u;

	fuzz_nic_poke(&w, SHARED + at, 4, take(in, 4));
}

static void check_alive(void)
{
	uint8_t frame[154];
	uint32_t n = fuzz_nic_tcp(frame, 100);
	struct iovec iov = {frame, n};
	struct net_frame f = {.iov = &iov, .iov_count = 1, .bytes = n};

	netport_set_link(w.wire, true);
	fuzz_nic_reset(&w);
	fuzz_nic_plug(&w, 2);
	prepare(1);
	start();
	must(!fuzz_nic_in(&w, 1, CMD));
	memcpy(ram_at(w.m.mem, BODIES, n), frame, n);
	fuzz_nic_poke(&w, TX, 8, BODIES);
	fuzz_nic_poke(&w, TX + 12, 4, 0x3000);
	fuzz_nic_poke(&w, TX + 8, 4, n | GEN);
	fuzz_nic_out(&w, 0, TXPROD, 1);
	must(w.frames == 1 && w.last_bytes == n && !memcmp(w.last, frame, n));
	must(*(uint8_t *)ram_at(w.m.mem, TXC + 15, 1) == 0x80);
	must(netport_send(w.wire, &f, 1) == 1);
	must(!memcmp(ram_at(w.m.mem, HEADS, n), frame, n));
	must(*(uint8_t *)ram_at(w.m.mem, RXC + 15, 1) == 0x83);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {.data = data, .left = size};
	unsigned rounds = 0;

	fuzz_nic_reset(&w);
	fuzz_nic_plug(&w, 2);
	prepare((uint8_t)take(&in, 1));
	start();
	while (in.left) {
		switch (take(&in, 1) % 8) {
		case 0:
		case 1:
			put(&in);
			break;
		case 2:
			scribble(&in);
			start();
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
			scribble(&in);
			fill(take(&in, 1) & 1, ++rounds & 1);
			fuzz_nic_out(&w, 0, RXPROD, 0);
			fake_time_pass(1000);
			break;
		default:
			if (!(take(&in, 1) & 15))
				fuzz_nic_state(&w, &in);
		}
	}
	check_alive();
	return 0;
}
