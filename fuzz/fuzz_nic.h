/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_FUZZ_NIC_H
#define HANOK_FUZZ_NIC_H

#include "../tests/unit/fake_time.h"
#include "dev/nic.h"
#include "fuzz_storage.h"
#include "net/frame.h"

/* What the fuzz targets of network cards share: a small machine around one, and a cable whose other
 * end reads all it gets, or has no room, and sends what the input says. */
enum { NIC_BAR = 0xc0000000, NIC_STEP = 20 };

struct fuzz_nic {
	struct fuzz_machine m; /* its bus, PCI bus and memory */
	const struct nic_kind *kind;
	void *dev;
	struct netport *wire;
	unsigned room, frames;
	uint8_t last[NET_FRAME_MAX_BYTES];
	uint32_t last_bytes;
};

static inline unsigned fuzz_nic_receive(void *opaque, const struct net_frame *f, unsigned n)
{
	struct fuzz_nic *w = opaque;
	unsigned i;

	for (i = 0; i < n && w->room; i++, w->room--) {
		w->last_bytes = net_frame_read(&f[i], 0, w->last, sizeof(w->last));
		must(w->last_bytes == f[i].bytes);
		w->frames++;
	}
	return i;
}

static inline void fuzz_nic_room(void *opaque)
{
	(void)opaque;
}

static inline void fuzz_nic_make(struct fuzz_nic *w, const struct nic_kind *kind)
{
	static const struct netport_ops ops = {.receive = fuzz_nic_receive, .room = fuzz_nic_room};
	struct netport_config wire = {.name = "wire", .queue_frames = 8};
	struct pci_bus_config pci = {.address_port = 0xcf8,
				     .data_port = 0xcfc,
				     .ecam_gpa = 0xe0000000,
				     .ecam_bytes = 0x10000000};
	struct nic_config cfg = {.slot = FUZZ_SLOT, .cpus = 2, .mac = {2, 0, 0, 0, 0, 2}};

	w->kind = kind;
	must(!bus_create(&w->m.bus, NULL) && !mem_create(&w->m.mem, FUZZ_RAM, NULL));
	pci.bus = w->m.bus;
	must(!pci_bus_create(&w->m.pci, &pci, NULL));
	must(!netport_create(&w->wire, &wire, &ops, w));
	cfg.bus = w->m.bus;
	cfg.pci = w->m.pci;
	cfg.mem = w->m.mem;
	cfg.cable = w->wire;
	must(!kind->create(&w->dev, &cfg, NULL));
}

static inline void fuzz_nic_plug(struct fuzz_nic *w, unsigned bars)
{
	for (unsigned i = 0; i < bars; i++)
		fuzz_config(&w->m, PCI_BAR0 + 4 * i, NIC_BAR + (i << NIC_STEP));
	fuzz_config(&w->m, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* Every input begins alike. */
static inline void fuzz_nic_reset(struct fuzz_nic *w)
{
	netport_set_features(w->wire, 0, 1514);
	w->room = ~0u;
	for (unsigned i = 0; i < 64; i++)
		netport_ready(w->wire);
	w->kind->ops.reset(w->dev);
	fake_time_pass(1000000);
	must(!held_pages(w->m.mem)); /* whatever the one before it did */
	memset(ram_at(w->m.mem, 0, FUZZ_RAM), 0, FUZZ_RAM);
	w->frames = 0;
}

static inline uint32_t fuzz_nic_in(struct fuzz_nic *w, unsigned bar, unsigned reg)
{
	return (uint32_t)fuzz_in(&w->m, BUS_MMIO, NIC_BAR + (bar << NIC_STEP) + reg, 4);
}

static inline void fuzz_nic_out(struct fuzz_nic *w, unsigned bar, unsigned reg, uint32_t v)
{
	fuzz_out(&w->m, BUS_MMIO, NIC_BAR + (bar << NIC_STEP) + reg, 4, v);
}

static inline void fuzz_nic_poke(struct fuzz_nic *w, uint64_t gpa, unsigned bytes, uint64_t v)
{
	uint8_t *p = ram_at(w->m.mem, gpa, bytes);

	must(p != NULL);
	memcpy(p, &v, bytes);
}

/* A TCP segment to the card, with lengths that fit; then what the input changes. */
static inline uint32_t fuzz_nic_tcp(uint8_t *p, uint32_t payload)
{
	static const uint8_t start[54] = {2,	0,	  0,	     0,		0,	     2,	  2,
					  0,	0,	  0,	     0,		1,	     8,	  0,
					  0x45, [23] = 6, [26] = 10, [30] = 10, [46] = 0x50, 0x18};

	memset(p, 0, 54 + payload);
	memcpy(p, start, sizeof(start));
	net_put16(p + 16, (uint16_t)(40 + payload));
	net_put16(p + 24, (uint16_t)~net_sum_fold(net_sum(0, p + 14, 20)));
	return 54 + payload;
}

static inline void fuzz_nic_arrives(struct fuzz_nic *w, struct fuzz_input *in)
{
	static uint8_t frame[NET_FRAME_MAX_BYTES];
	uint32_t n = fuzz_nic_tcp(frame, (uint32_t)take(in, 2) % 20000);
	unsigned how = (unsigned)take(in, 1);
	struct iovec iov[2] = {{frame, n / 3}, {frame + n / 3, n - n / 3}};
	struct net_frame f = {.iov = iov, .iov_count = 2, .bytes = n};

	for (unsigned i = how & 7; i; i--)
		frame[take(in, 1) % 80] = (uint8_t)take(in, 1);
	f.meta.flags = how >> 3 & 7;
	f.meta.vlan_tci = (uint16_t)take(in, 2);
	f.meta.csum_start = 34;
	f.meta.csum_offset = 16;
	if (how & 0x40) {
		f.meta.gso = how & 0x80 ? NET_GSO_TCP6 : NET_GSO_TCP4;
		f.meta.gso_size = (uint16_t)take(in, 2);
		f.meta.flags |= NET_CSUM_NEEDED;
	}
	netport_send(w->wire, &f, 1);
}

/* A bit of trouble at the cable's other end. */
static inline void fuzz_nic_wire(struct fuzz_nic *w, uint8_t what)
{
	switch (what & 3) {
	case 0:
		w->room = what >> 2 & 7;
		break;
	case 1:
		w->room = ~0u;
		netport_ready(w->wire);
		break;
	case 2:
		netport_set_features(w->wire, what >> 2, what & 0x80 ? 9014 : 1514);
		break;
	default:
		netport_set_link(w->wire, what >> 2 & 1);
		break;
	}
}

/* Saves, with some bytes changed if the input says so, and restores. */
static inline void fuzz_nic_state(struct fuzz_nic *w, struct fuzz_input *in)
{
	struct state_stream *s, *r;
	size_t len;
	uint8_t *copy;
	unsigned changes = (unsigned)take(in, 1) & 7;

	must(!state_writer_create(&s, NULL));
	w->kind->ops.state(w->dev, s);
	must(!state_stream_error(s, NULL));
	const void *bytes = state_bytes(s, &len);
	copy = malloc(len);
	must(copy != NULL);
	memcpy(copy, bytes, len);
	for (unsigned i = 0; i < changes; i++)
		copy[take(in, 3) % len] = (uint8_t)take(in, 1);
	must(!state_reader_create(copy, len, &r, NULL));
	w->kind->ops.state(w->dev, r);
	must(changes || !state_stream_error(r, NULL));
	state_stream_destroy(r);
	state_stream_destroy(s);
	free(copy);
}

#endif
