/* SPDX-License-Identifier: Apache-2.0 */
#include "../tests/unit/fake_loop.h"
#include "dev/virtio/net.h"
#include "fuzz_nic.h"

/*
 * A guest's view of virtio-net: registers of both interfaces, descriptors and rings of all five
 * queues as the input has them, with frames that arrive meanwhile and a cable that is full now and
 * then. Whatever it did, after a reset and a proper start a frame goes out.
 */
enum { MODERN = 4, SIZE = 16, QUEUES = 5 };
/* What is offered, but for event indices: the input would have to find them. */
enum { ALL = 0x10ff99a7 };
enum { DESC = 0x1000, AVAIL = 0x2000, USED = 0x3000, BUFFERS = 0x4000, QUEUE_BYTES = 0x8000 };

static struct fuzz_nic w;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fuzz_nic_make(&w, &virtio_net_kind);
	return 0;
}

static void common(unsigned reg, unsigned size, uint64_t v)
{
	fuzz_out(&w.m, BUS_MMIO, NIC_BAR + ((uint64_t)MODERN << NIC_STEP) + reg, size, v);
}

static void bars(void)
{
	fuzz_nic_plug(&w, 6);
	fuzz_config(&w.m, 0x10, 0xc000);
	fuzz_config(&w.m, 0x04, 7);
}

static void start(uint32_t features, uint32_t high)
{
	common(0x14, 1, 0);
	common(0x14, 1, 3);
	common(0x08, 4, 0);
	common(0x0c, 4, features);
	common(0x08, 4, 1);
	common(0x0c, 4, high | 1);
	common(0x14, 1, 11);
	for (unsigned q = 0; q < QUEUES; q++) {
		common(0x16, 2, q);
		common(0x18, 2, SIZE);
		common(0x20, 8, DESC + q * QUEUE_BYTES);
		common(0x28, 8, AVAIL + q * QUEUE_BYTES);
		common(0x30, 8, USED + q * QUEUE_BYTES);
		common(0x1c, 2, 1);
	}
	common(0x14, 1, 15);
}

static void descriptor(unsigned q, unsigned i, uint64_t gpa, uint32_t len, unsigned flags)
{
	uint64_t at = DESC + q * QUEUE_BYTES + 16 * (uint64_t)i;

	fuzz_nic_poke(&w, at, 8, gpa);
	fuzz_nic_poke(&w, at + 8, 4, len);
	fuzz_nic_poke(&w, at + 12, 4, flags | (i + 1) % SIZE << 16);
}

static void offer(unsigned q, unsigned head)
{
	uint64_t avail = AVAIL + q * QUEUE_BYTES;
	const uint8_t *p = ram_at(w.m.mem, avail + 2, 2);
	unsigned idx = p[0] | (unsigned)p[1] << 8;

	fuzz_nic_poke(&w, avail + 4 + 2 * (idx % SIZE), 2, head);
	fuzz_nic_poke(&w, avail + 2, 2, idx + 1);
}

/* A chain that makes some sense for its queue. */
static void chain(struct fuzz_input *in)
{
	unsigned what = (unsigned)take(in, 1), q = what % QUEUES, head = (unsigned)take(in, 1) % 12;
	uint64_t at = BUFFERS + q * QUEUE_BYTES + 256 * head;
	uint32_t n;

	if (q < 4 && !(q & 1)) { /* to receive by */
		descriptor(q, head, take(in, 2) * 16, 1 + (uint32_t)take(in, 2) % 4096, 2);
	} else if (q < 4) {
		for (unsigned i = 0; i < 12; i++)
			fuzz_nic_poke(&w, at + i, 1, what & 0x80 ? take(in, 1) : 0);
		n = fuzz_nic_tcp(ram_at(w.m.mem, at + 12, 240), 40);
		for (unsigned i = what >> 5 & 3; i; i--)
			fuzz_nic_poke(&w, at + 12 + take(in, 1) % 60, 1, take(in, 1));
		descriptor(q, head, at, 12, 1);
		descriptor(q, head + 1, at + 12, 30, 1);
		descriptor(q, head + 2, at + 42, n - 30 + (what & 0x80 ? (uint32_t)take(in, 2) : 0),
			   0);
	} else { /* a command */
		for (unsigned i = 0; i < 24; i++)
			fuzz_nic_poke(&w, at + i, 1, take(in, 1) & 15);
		descriptor(q, head, at, 2, 1);
		descriptor(q, head + 1, at + 2, (uint32_t)take(in, 1) % 32, 1);
		descriptor(q, head + 2, at + 128, 1, 2);
	}
	offer(q, head);
	common(0x3000 + 4 * q, 2, 0);
}

static void step(struct fuzz_input *in)
{
	unsigned what = (unsigned)take(in, 1), at;

	switch (what & 7) {
	case 0:
		at = (unsigned)take(in, 1) % 0x3c;
		common(at, 1u << (what >> 3 & 3), take(in, 4));
		break;
	case 1:
		at = (unsigned)take(in, 1) % 128;
		fuzz_out(&w.m, BUS_PIO, 0xc000 + at, 1u << (what >> 3) % 3, take(in, 4));
		break;
	case 2:
		fuzz_nic_poke(&w, DESC + take(in, 3) % (QUEUES * QUEUE_BYTES),
			      1u << (what >> 3 & 3), take(in, 4));
		break;
	case 3:
	case 4:
		chain(in);
		break;
	case 5:
		fuzz_nic_arrives(&w, in);
		break;
	case 6:
		fuzz_nic_wire(&w, (uint8_t)(what >> 3 | take(in, 1) << 5));
		fake_loop_run();
		break;
	case 7:
		if (what & 8)
			fuzz_nic_state(&w, in);
		else
			start((uint32_t)take(in, 4), (uint32_t)take(in, 4));
		bars();
		break;
	}
}

static void still_works(void)
{
	while (fake_loop_run())
		;
	w.kind->ops.reset(w.dev);
	bars();
	netport_set_link(w.wire, true);
	w.room = ~0u;
	for (unsigned i = 0; i < 64; i++)
		netport_ready(w.wire);
	memset(ram_at(w.m.mem, 0, FUZZ_RAM), 0, FUZZ_RAM);
	start(0, 0);
	w.frames = 0;
	uint32_t n = fuzz_nic_tcp(ram_at(w.m.mem, BUFFERS + 12, 240), 40);
	descriptor(1, 0, BUFFERS, 12 + n, 0);
	offer(1, 0);
	common(0x3004, 2, 0);
	must(w.frames == 1 && w.last_bytes == n);
	must(!memcmp(w.last, ram_at(w.m.mem, BUFFERS + 12, n), n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};

	fuzz_nic_reset(&w);
	netport_set_link(w.wire, true);
	bars();
	start(ALL, 0);
	while (in.left)
		step(&in);
	still_works();
	return 0;
}
