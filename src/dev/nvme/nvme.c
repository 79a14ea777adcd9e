/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An NVM Express controller (NVMe 1.4): registers and life. Its parts:
 *
 *     vCPU: doorbell ─> queue.c: commands are taken ─┬─> admin.c, identify.c
 *                                                    └─> io.c ─> prp.c: memory ─> disk
 *     loop: the disk is done ─> io.c ─> queue.c: a completion, an interrupt
 *
 *     BAR 0  0000h registers, 1000h doorbells, 2000h MSI-X table, 3000h MSI-X pending bits
 *
 * A command that is over at once is completed on the vCPU's thread, with one interrupt for all of a
 * doorbell. Reset: CC.EN = 0 takes the queues away at once; commands that a disk still has become
 * stale, and CSTS.RDY stays 1 until the last is over (NVMe 3.1.6), which a driver waits for. A
 * shutdown flushes all disks and is over (CSTS.SHST) when they are.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/nvme/nvme_internal.h"

enum { BAR_BYTES = 0x4000, DOORBELLS_AT = 0x1000, MSIX_TABLE_AT = 0x2000, MSIX_PBA_AT = 0x3000 };

/* NVMe 3.1 */
enum {
	REG_CAP = 0x00,
	REG_VS = 0x08,
	REG_INTMS = 0x0c,
	REG_INTMC = 0x10,
	REG_CC = 0x14,
	REG_CSTS = 0x1c,
	REG_AQA = 0x24,
	REG_ASQ = 0x28,
	REG_ACQ = 0x30,
};
#define VERSION UINT32_C(0x00010400)
/* Queue entries less one, contiguous queues only, 10 s to get ready, NVM commands, 4 KiB pages. */
#define CAPABILITIES                                                                               \
	((uint64_t)(NVME_ENTRIES_MAX - 1) | UINT64_C(1) << 16 | UINT64_C(20) << 24 |               \
	 UINT64_C(1) << 37)

enum { CC_ENABLE = 1, CC_UNSUPPORTED = 0x3ff0, CC_SHN = 0xc000, CC_WRITABLE = 0xfffff1 };
enum { CSTS_READY = 1, CSTS_FATAL = 2, CSTS_SHUTTING = 1 << 2, CSTS_SHUT_DOWN = 2 << 2 };
enum { AQA_WRITABLE = 0x0fff0fff };

bool nvme_is_running(struct nvme *n)
{
	return atomic_load(&n->enabled) && pci_dev_is_master(&n->pci);
}

struct nvme_namespace *nvme_namespace(struct nvme *n, uint32_t nsid)
{
	if (nsid < 1 || nsid > NVME_NAMESPACES_MAX || !n->ns[nsid - 1].disk)
		return NULL;
	return &n->ns[nsid - 1];
}

/* --- enabling, resetting; lock held --- */

static void reset_queues(struct nvme *n)
{
	atomic_store(&n->enabled, false);
	for (unsigned i = 0; i < NVME_QUEUES; i++) {
		pthread_mutex_lock(&n->sq[i].lock);
		nvme_sq_reset(&n->sq[i]);
		if (!i)
			nvme_reset_admin(n);
		pthread_mutex_unlock(&n->sq[i].lock);
	}
	/* No command of theirs completes any more. */
	for (unsigned i = 0; i < NVME_QUEUES; i++) {
		pthread_mutex_lock(&n->cq[i].lock);
		nvme_cq_reset(&n->cq[i], n);
		pthread_mutex_unlock(&n->cq[i].lock);
	}
	nvme_update_pin(n);
}

static void enable(struct nvme *n)
{
	uint32_t sq_size = (n->aqa & 0xfff) + 1, cq_size = (n->aqa >> 16 & 0xfff) + 1;
	bool ok = !(n->cc & CC_UNSUPPORTED) && sq_size >= 2 && cq_size >= 2;

	/* The admin queues have their places in registers (NVMe 3.1.8 to 3.1.10). */
	pthread_mutex_lock(&n->sq[0].lock);
	pthread_mutex_lock(&n->cq[0].lock);
	ok = ok && !nvme_cq_create(&n->cq[0], n, n->acq, cq_size, 0, true) &&
	     !nvme_sq_create(&n->sq[0], n->asq, sq_size, 0);
	pthread_mutex_unlock(&n->cq[0].lock);
	pthread_mutex_unlock(&n->sq[0].lock);
	n->fatal = !ok;
	atomic_store(&n->enabled, ok);
}

static void flush_done(struct disk_request *r, int rc)
{
	(void)rc; /* the driver has gone; what failed was logged by the disk */
	atomic_fetch_sub((atomic_uint *)r->opaque, 1);
}

static void shut_down(struct nvme *n)
{
	/* Flushes of a shutdown before the last reset may still be on their way: they will do. */
	bool busy = atomic_load(&n->flushing);

	if (n->shut_down)
		return;
	n->shut_down = true;
	for (unsigned i = 0; !busy && i < NVME_NAMESPACES_MAX; i++) {
		struct nvme_namespace *ns = &n->ns[i];
		if (!ns->disk || ns->read_only)
			continue;
		ns->flush = (struct disk_request){
			.op = DISK_FLUSH, .done = flush_done, .opaque = &n->flushing};
		atomic_fetch_add(&n->flushing, 1);
		if (disk_submit(ns->disk, &ns->flush) != DISK_LATER)
			atomic_fetch_sub(&n->flushing, 1);
	}
}

static void write_cc(struct nvme *n, uint32_t value)
{
	uint32_t old = n->cc;

	__atomic_store_n(&n->cc, value & CC_WRITABLE, __ATOMIC_RELAXED);
	if (old & CC_ENABLE && !(value & CC_ENABLE)) {
		reset_queues(n);
		n->fatal = n->shut_down = false;
	} else if (!(old & CC_ENABLE) && value & CC_ENABLE) {
		n->shut_down = false;
		enable(n);
	}
	if (value & CC_SHN)
		shut_down(n);
}

static uint32_t read_csts(struct nvme *n)
{
	uint32_t csts = 0;

	if (atomic_load(&n->enabled) || (!(n->cc & CC_ENABLE) && atomic_load(&n->stale)))
		csts |= CSTS_READY;
	if (n->fatal)
		csts |= CSTS_FATAL;
	if (n->shut_down)
		csts |= atomic_load(&n->flushing) ? CSTS_SHUTTING : CSTS_SHUT_DOWN;
	return csts;
}

/* --- registers --- */

static uint32_t reg_read(struct nvme *n, unsigned offset)
{
	switch (offset) {
	case REG_CAP:
		return (uint32_t)CAPABILITIES;
	case REG_CAP + 4:
		return (uint32_t)(CAPABILITIES >> 32);
	case REG_VS:
		return VERSION;
	case REG_INTMS:
	case REG_INTMC:
		return n->masked;
	case REG_CC:
		return n->cc;
	case REG_CSTS:
		return read_csts(n);
	case REG_AQA:
		return n->aqa;
	case REG_ASQ:
		return (uint32_t)n->asq;
	case REG_ASQ + 4:
		return (uint32_t)(n->asq >> 32);
	case REG_ACQ:
		return (uint32_t)n->acq;
	case REG_ACQ + 4:
		return (uint32_t)(n->acq >> 32);
	}
	return 0;
}

static void set_mask(struct nvme *n, uint32_t set, uint32_t clear)
{
	pthread_mutex_lock(&n->irq_lock);
	n->masked = (n->masked | set) & ~clear;
	pthread_mutex_unlock(&n->irq_lock);
	nvme_update_pin(n);
}

static void set_base(uint64_t *base, bool high, uint32_t value)
{
	if (high)
		*base = (*base & UINT32_MAX) | (uint64_t)value << 32;
	else
		*base = (*base & ~(uint64_t)UINT32_MAX) |
			(value & ~(uint32_t)(NVME_PAGE_BYTES - 1));
}

static void reg_write(struct nvme *n, unsigned offset, uint32_t value)
{
	switch (offset) {
	case REG_INTMS:
		set_mask(n, value, 0);
		break;
	case REG_INTMC:
		set_mask(n, 0, value);
		break;
	case REG_CC:
		write_cc(n, value);
		break;
	case REG_AQA:
		n->aqa = value & AQA_WRITABLE;
		break;
	case REG_ASQ:
	case REG_ASQ + 4:
		set_base(&n->asq, offset & 4, value);
		break;
	case REG_ACQ:
	case REG_ACQ + 4:
		set_base(&n->acq, (offset & 4) != 0, value);
		break;
	}
}

static void access_doorbell(struct nvme *n, const struct bus_access *a)
{
	unsigned bell = (unsigned)(a->offset - DOORBELLS_AT) / 4;

	if (!a->write || a->offset & 3 || bell / 2 > n->io_queues)
		return;
	if (bell & 1)
		nvme_cq_doorbell(n, bell / 2, (uint32_t)a->value & 0xffff);
	else
		nvme_sq_doorbell(n, bell / 2, (uint32_t)a->value & 0xffff);
}

static void access_bar(void *opaque, struct bus_access *a)
{
	struct nvme *n = opaque;
	unsigned at = (unsigned)a->offset;

	if (!a->write)
		a->value = 0;
	if (a->size < 4 || at & 3)
		return; /* NVMe 3.1: dwords, or qwords */
	if (at >= DOORBELLS_AT) {
		access_doorbell(n, a);
		return;
	}
	pthread_mutex_lock(&n->lock);
	if (a->write) {
		reg_write(n, at, (uint32_t)a->value);
		if (a->size == 8)
			reg_write(n, at + 4, (uint32_t)(a->value >> 32));
	} else {
		a->value = reg_read(n, at);
		if (a->size == 8)
			a->value |= (uint64_t)reg_read(n, at + 4) << 32;
	}
	pthread_mutex_unlock(&n->lock);
}

/* --- reset, state --- */

static void drain(struct nvme *n)
{
	for (unsigned i = 0; i < NVME_NAMESPACES_MAX; i++)
		if (n->ns[i].disk)
			disk_drain(n->ns[i].disk);
}

static void reset_registers(struct nvme *n)
{
	pthread_mutex_lock(&n->lock);
	reset_queues(n);
	n->cc = n->aqa = 0;
	n->asq = n->acq = 0;
	n->fatal = n->shut_down = false;
	pthread_mutex_unlock(&n->lock);
	set_mask(n, 0, UINT32_MAX);
}

static void nvme_reset(void *dev)
{
	struct nvme *n = dev;

	drain(n);
	reset_registers(n);
	pci_dev_reset(&n->pci);
}

static void state_cq(struct nvme *n, struct nvme_cq *cq, struct state_stream *s)
{
	bool created = cq->created, interrupts = cq->interrupts, phase = cq->phase;
	uint64_t gpa = cq->area.gpa;
	uint32_t size = cq->size;
	uint16_t head = atomic_load(&cq->head), tail = cq->tail, vector = cq->vector;

	state_bool(s, &created);
	state_bool(s, &interrupts);
	state_bool(s, &phase);
	state_u64(s, &gpa);
	state_u32(s, &size);
	state_u16(s, &head);
	state_u16(s, &tail);
	state_u16(s, &vector);
	if (state_writing(s) || !created)
		return;
	if (size < 2 || size > 4096 || head >= size || tail >= size || vector >= nvme_vectors(n) ||
	    cq->id > n->io_queues || nvme_cq_create(cq, n, gpa, size, vector, interrupts)) {
		state_fail(s, "nvme: completion queue %u cannot be", cq->id);
		return;
	}
	cq->tail = tail;
	cq->phase = phase;
	atomic_store(&cq->head, head);
	atomic_store(&cq->waiting, interrupts && head != tail);
}

static void state_sq(struct nvme *n, struct nvme_sq *sq, struct state_stream *s)
{
	bool created = sq->created;
	uint64_t gpa = sq->area.gpa;
	uint32_t size = sq->size;
	uint16_t head = sq->head, tail = sq->tail, cq = sq->cq;

	state_bool(s, &created);
	state_u64(s, &gpa);
	state_u32(s, &size);
	state_u16(s, &head);
	state_u16(s, &tail);
	state_u16(s, &cq);
	if (state_writing(s) || !created)
		return;
	if (size < 2 || size > 4096 || head >= size || tail >= size || sq->id > n->io_queues ||
	    cq > n->io_queues || !n->cq[cq].created || (!sq->id != !cq) ||
	    nvme_sq_create(sq, gpa, size, cq)) {
		nvme_sq_end(sq);
		state_fail(s, "nvme: submission queue %u cannot be", sq->id);
		return;
	}
	sq->head = head;
	sq->tail = tail;
}

static void state_registers(struct nvme *n, struct state_stream *s)
{
	uint8_t pending = atomic_load(&n->event_pending), events = (uint8_t)n->events;

	state_u32(s, &n->cc);
	state_u32(s, &n->aqa);
	state_u64(s, &n->asq);
	state_u64(s, &n->acq);
	state_bool(s, &n->fatal);
	state_bool(s, &n->shut_down);
	state_u32(s, &n->masked);
	for (unsigned i = 0; i < NVME_FEATURES; i++)
		state_u32(s, &n->feature[i]);
	for (unsigned i = 0; i < NVME_EVENTS_MAX; i++)
		state_u16(s, &n->event_cid[i]);
	state_u8(s, &events);
	state_bool(s, &n->event_masked);
	state_u8(s, &pending);
	if (state_writing(s))
		return;
	if (events > NVME_EVENTS_MAX) {
		state_fail(s, "nvme: %u event requests cannot be", events);
		events = 0;
	}
	n->cc &= CC_WRITABLE;
	n->events = events;
	atomic_store(&n->event_pending, pending & 3);
}

/* A saved machine has no command in flight: the registers and queues are all there is. */
static void nvme_state(void *dev, struct state_stream *s)
{
	struct nvme *n = dev;
	uint32_t queues = n->io_queues;
	bool enabled;

	drain(n);
	state_begin(s, "nvme", n->index, 1);
	if (!state_writing(s))
		reset_registers(n);
	pci_dev_state(&n->pci, s);
	pthread_mutex_lock(&n->lock);
	enabled = atomic_load(&n->enabled);
	state_u32(s, &queues);
	if (queues != n->io_queues)
		state_fail(s, "nvme: saved with %u queues, this machine's has %u", queues,
			   n->io_queues);
	for (unsigned i = 0; i < NVME_NAMESPACES_MAX; i++) {
		uint64_t blocks = n->ns[i].blocks;
		state_u64(s, &blocks);
		if (blocks != n->ns[i].blocks)
			state_fail(s, "nvme: namespace %u has another size than it was saved with",
				   i + 1);
	}
	state_registers(n, s);
	state_bool(s, &enabled);
	for (unsigned i = 0; i < NVME_QUEUES; i++)
		state_cq(n, &n->cq[i], s);
	for (unsigned i = 0; i < NVME_QUEUES; i++)
		state_sq(n, &n->sq[i], s);
	state_end(s);
	if (!state_writing(s)) {
		enabled = enabled && n->cc & CC_ENABLE && n->sq[0].created && n->cq[0].created;
		atomic_store(&n->enabled, enabled && !state_stream_error(s, NULL));
		nvme_update_pin(n);
		/* A batch may have been cut short. */
		for (unsigned i = 0; i < NVME_QUEUES; i++)
			if (n->sq[i].created)
				nvme_sq_later(&n->sq[i]);
	}
	pthread_mutex_unlock(&n->lock);
}

/* --- life --- */

static void nvme_destroy(void *dev)
{
	struct nvme *n = dev;

	drain(n);
	pci_dev_remove(&n->pci);
	nvme_free_requests(n);
	for (unsigned i = 0; i < NVME_QUEUES; i++) {
		nvme_sq_reset(&n->sq[i]);
		nvme_cq_reset(&n->cq[i], n);
		pthread_mutex_destroy(&n->sq[i].lock);
		pthread_mutex_destroy(&n->cq[i].lock);
	}
	pthread_mutex_destroy(&n->lock);
	pthread_mutex_destroy(&n->irq_lock);
	pthread_mutex_destroy(&n->free_lock);
	free(n);
}

static void init_locks(struct nvme *n)
{
	pthread_mutex_init(&n->lock, NULL);
	pthread_mutex_init(&n->irq_lock, NULL);
	pthread_mutex_init(&n->free_lock, NULL);
	for (unsigned i = 0; i < NVME_QUEUES; i++) {
		n->sq[i].n = n;
		n->sq[i].id = n->cq[i].id = (uint16_t)i;
		pthread_mutex_init(&n->sq[i].lock, NULL);
		pthread_mutex_init(&n->cq[i].lock, NULL);
	}
}

static void add_namespace(struct nvme *n, const struct storage_unit *u)
{
	struct nvme_namespace *ns = &n->ns[u->target];
	struct disk_info info;

	disk_get_info(u->disk, &info);
	ns->disk = u->disk;
	ns->blocks = info.bytes / NVME_LBA_BYTES;
	ns->read_only = info.read_only;
	ns->granule = info.granule_bytes / NVME_LBA_BYTES;
}

static int plug_in(struct nvme *n, const struct storage_config *cfg)
{
	static const struct pci_ident id = {.vendor = 0x15ad, /* VMware's NVMe controller */
					    .device = 0x07f0,
					    .subsystem_vendor = 0x15ad,
					    .subsystem = 0x07f0,
					    .class_code = 0x010802,
					    .interrupt_pin = 1};
	int rc;

	pci_dev_init(&n->pci, "nvme", &id);
	rc = pci_dev_set_bar(&n->pci, 0, PCI_BAR_MEM64, false, BAR_BYTES, access_bar, n);
	if (!rc)
		rc = pci_msix_add(&n->pci, nvme_vectors(n), 0, MSIX_TABLE_AT, MSIX_PBA_AT);
	if (!rc)
		rc = pci_dev_add(&n->pci, cfg->pci, cfg->slot, 0);
	return rc;
}

static int nvme_create(void **out, const struct storage_config *cfg, struct error *err)
{
	struct nvme *n = calloc(1, sizeof(*n));
	int rc;

	*out = NULL;
	if (!n)
		return error_set(err, -ENOMEM, "nvme: out of memory");
	n->mem = cfg->mem;
	n->loop = cfg->loop;
	n->index = cfg->index;
	n->io_queues = cfg->cpus < NVME_IO_QUEUES_MAX ? cfg->cpus : NVME_IO_QUEUES_MAX;
	n->serial = cfg->unit_count ? cfg->units[0].serial : "HANOK";
	init_locks(n);
	for (unsigned i = 0; i < cfg->unit_count; i++)
		add_namespace(n, &cfg->units[i]);
	rc = plug_in(n, cfg);
	if (rc) {
		nvme_destroy(n);
		return error_set(err, rc, "nvme: PCI slot %u: %s", cfg->slot, strerror(-rc));
	}
	reset_registers(n);
	*out = n;
	return 0;
}

const struct storage_kind nvme_kind = {
	.name = "nvme",
	.vmx_name = "nvme",
	.units = NVME_NAMESPACES_MAX,
	.ops = {.name = "nvme", .reset = nvme_reset, .state = nvme_state, .destroy = nvme_destroy},
	.create = nvme_create,
};
