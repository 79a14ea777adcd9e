/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Submission and completion queues (NVMe 4.1): rings in guest memory, one producer and one consumer
 * each, told by doorbells.
 *
 * A command is taken off its submission queue only when there is room for its completion: room is
 * reserved then, so a completion never has to wait. A queue that found none is looked at again when
 * the driver has taken completions.
 */
#include <string.h>

#include "dev/nvme/nvme_internal.h"

enum { BATCH = 1024 }; /* commands on a vCPU's thread at a time */

/* --- life --- */

unsigned nvme_sq_create(struct nvme_sq *sq, uint64_t gpa, uint32_t size, uint16_t cq)
{
	sq->ring = dma_map(sq->n->mem, &sq->area, gpa, size * sizeof(*sq->ring), false);
	if (!sq->ring)
		return NVME_DATA_ERROR;
	sq->size = size;
	sq->cq = cq;
	sq->head = sq->tail = 0;
	sq->deleting = false;
	sq->created = true;
	return NVME_OK;
}

unsigned nvme_cq_create(struct nvme_cq *cq, struct nvme *n, uint64_t gpa, uint32_t size,
			uint16_t vector, bool interrupts)
{
	cq->ring = dma_map(n->mem, &cq->area, gpa, size * sizeof(*cq->ring), true);
	if (!cq->ring)
		return NVME_DATA_ERROR;
	cq->size = size;
	cq->vector = vector;
	cq->interrupts = interrupts;
	cq->tail = 0;
	atomic_store(&cq->head, 0);
	cq->phase = true;
	cq->reserved = 0;
	cq->full = cq->unsaid = false;
	atomic_store(&cq->waiting, false);
	cq->created = true;
	return NVME_OK;
}

void nvme_sq_end(struct nvme_sq *sq)
{
	sq->created = sq->deleting = false;
	dma_unmap(sq->n->mem, &sq->area);
	sq->ring = NULL;
}

void nvme_sq_reset(struct nvme_sq *sq)
{
	nvme_sq_end(sq);
	sq->size = 0;
	sq->head = sq->tail = sq->cq = sq->delete_cid = 0;
	sq->generation++;
	atomic_fetch_add(&sq->n->stale, sq->out);
	sq->out = 0;
}

void nvme_cq_reset(struct nvme_cq *cq, struct nvme *n)
{
	cq->created = cq->interrupts = cq->phase = cq->full = cq->unsaid = false;
	dma_unmap(n->mem, &cq->area);
	cq->ring = NULL;
	cq->size = 0;
	cq->tail = cq->vector = 0;
	cq->reserved = 0;
	atomic_store(&cq->head, 0);
	atomic_store(&cq->waiting, false);
}

/* --- completions --- */

static uint32_t filled(const struct nvme_cq *cq)
{
	uint16_t head = atomic_load(&cq->head);

	return cq->tail - head + (cq->tail < head ? cq->size : 0u);
}

bool nvme_cq_reserve(struct nvme_cq *cq)
{
	bool room;

	pthread_mutex_lock(&cq->lock);
	/* One entry stays free, to tell full from empty. */
	room = cq->created && filled(cq) + cq->reserved < cq->size - 1;
	if (room)
		cq->reserved++;
	else
		cq->full = true;
	pthread_mutex_unlock(&cq->lock);
	return room;
}

void nvme_cq_unreserve(struct nvme_cq *cq)
{
	pthread_mutex_lock(&cq->lock);
	cq->reserved--;
	pthread_mutex_unlock(&cq->lock);
}

void nvme_complete(struct nvme_sq *sq, uint16_t id, uint16_t cid, uint32_t result, unsigned status)
{
	struct nvme *n = sq->n;
	struct nvme_cq *cq = &n->cq[id];
	struct nvme_completion *e, c = {.result = result, .cid = cid};

	if (status)
		atomic_fetch_add_explicit(&n->stats.errors, 1, memory_order_relaxed);
	c.sq_id = sq->id;
	/* The end of a deletion is told from another queue than the admin queue. */
	c.sq_head = __atomic_load_n(&sq->head, __ATOMIC_RELAXED);
	pthread_mutex_lock(&cq->lock);
	e = &cq->ring[cq->tail];
	c.status = (uint16_t)(status << 1 | cq->phase);
	e->result = c.result;
	e->reserved = 0;
	e->sq_head = c.sq_head;
	e->sq_id = c.sq_id;
	e->cid = c.cid;
	/* The phase makes the entry valid: last. */
	__atomic_store_n(&e->status, c.status, __ATOMIC_RELEASE);
	mem_written(n->mem, cq->area.gpa + cq->tail * sizeof(*e), sizeof(*e));
	if (++cq->tail == cq->size) {
		cq->tail = 0;
		cq->phase = !cq->phase;
	}
	cq->reserved--;
	cq->unsaid = true;
	atomic_store(&cq->waiting, cq->interrupts);
	pthread_mutex_unlock(&cq->lock);
}

/* NVMe 7.5.1: the pin is on while any queue that wants interrupts holds entries. */
void nvme_update_pin(struct nvme *n)
{
	int level = 0;

	pthread_mutex_lock(&n->irq_lock);
	for (unsigned i = 0; i < NVME_QUEUES; i++)
		if (atomic_load(&n->cq[i].waiting) && !(n->masked & 1))
			level = 1;
	pci_set_intx(&n->pci, level && !pci_msix_enabled(&n->pci));
	pthread_mutex_unlock(&n->irq_lock);
}

void nvme_cq_say(struct nvme *n, uint16_t id)
{
	struct nvme_cq *cq = &n->cq[id];
	bool say;
	uint16_t vector;

	pthread_mutex_lock(&cq->lock);
	say = cq->unsaid && cq->interrupts;
	vector = cq->vector;
	cq->unsaid = false;
	pthread_mutex_unlock(&cq->lock);
	if (!say)
		return;
	atomic_fetch_add_explicit(&n->stats.interrupts, 1, memory_order_relaxed);
	if (pci_msix_enabled(&n->pci))
		pci_msix_send(&n->pci, vector);
	else
		nvme_update_pin(n);
}

/* --- commands --- */

void nvme_sq_command_over(struct nvme_sq *sq)
{
	struct nvme *n = sq->n;

	if (--sq->out || !sq->deleting)
		return;
	uint16_t cid = sq->delete_cid;
	nvme_sq_end(sq);
	nvme_complete(&n->sq[0], 0, cid, 0, NVME_OK);
	nvme_cq_say(n, 0);
}

/* Takes the next command and begins it. Lock held, room is reserved. */
static void take(struct nvme_sq *sq)
{
	struct nvme *n = sq->n;
	struct nvme_command c;
	uint32_t result = 0;
	unsigned status;

	memcpy(&c, &sq->ring[sq->head], sizeof(c));
	__asm__ volatile("" : "+m"(c)); /* the copy is what is looked at from here on */
	__atomic_store_n(&sq->head, (uint16_t)((sq->head + 1u) % sq->size), __ATOMIC_RELAXED);
	sq->out++;
	atomic_fetch_add_explicit(&n->stats.commands, 1, memory_order_relaxed);
	/* NVMe 4.2: no fused commands, no scatter-gather lists. */
	if (c.flags)
		status = NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
	else if (sq->id)
		status = nvme_io(sq, &c);
	else
		status = nvme_admin(n, &c, &result);
	if (status == NVME_LATER) {
		/* Admin commands that wait (events, deletions) are not the queue's any more. */
		if (!sq->id)
			sq->out--;
		return;
	}
	nvme_complete(sq, sq->cq, c.cid, result, status);
	nvme_sq_command_over(sq);
}

/* Lock held. */
static void process(struct nvme_sq *sq)
{
	struct nvme *n = sq->n;
	uint16_t cq = sq->cq;
	unsigned taken = 0;

	while (sq->created && !sq->deleting && sq->head != sq->tail && nvme_is_running(n)) {
		/* Another vCPU may feed the queue for ever; this one has other things to do. */
		if (taken++ == BATCH) {
			nvme_sq_later(sq);
			break;
		}
		if (!nvme_cq_reserve(&n->cq[cq]))
			break;
		take(sq);
	}
	nvme_cq_say(n, cq);
}

static void process_posted(void *opaque)
{
	struct nvme_sq *sq = opaque;

	pthread_mutex_lock(&sq->lock);
	sq->later = false;
	process(sq);
	pthread_mutex_unlock(&sq->lock);
}

void nvme_sq_later(struct nvme_sq *sq)
{
	if (!sq->later)
		sq->later = !loop_post(sq->n->loop, process_posted, sq);
}

/* --- doorbells --- */

static void bad_doorbell(struct nvme *n, unsigned event)
{
	atomic_fetch_add_explicit(&n->stats.bad_doorbells, 1, memory_order_relaxed);
	nvme_event(n, event);
}

void nvme_sq_doorbell(struct nvme *n, unsigned id, uint32_t value)
{
	struct nvme_sq *sq = &n->sq[id];
	int bad = -1;

	if (!nvme_is_running(n))
		return;
	pthread_mutex_lock(&sq->lock);
	if (!sq->created) {
		bad = EVENT_BAD_DOORBELL;
	} else if (value >= sq->size) {
		bad = EVENT_BAD_DOORBELL_VALUE;
	} else {
		sq->tail = (uint16_t)value;
		process(sq);
	}
	pthread_mutex_unlock(&sq->lock);
	if (bad >= 0)
		bad_doorbell(n, (unsigned)bad);
}

/* Room has come: whoever waited for it goes on. */
static void go_on(struct nvme *n, unsigned cq)
{
	for (unsigned i = 0; i < NVME_QUEUES; i++) {
		struct nvme_sq *sq = &n->sq[i];
		pthread_mutex_lock(&sq->lock);
		if (sq->created && sq->cq == cq) {
			if (!i)
				nvme_tell_events(n);
			process(sq);
		}
		pthread_mutex_unlock(&sq->lock);
	}
}

void nvme_cq_doorbell(struct nvme *n, unsigned id, uint32_t value)
{
	struct nvme_cq *cq = &n->cq[id];
	bool full = false;
	int bad = -1;

	if (!nvme_is_running(n))
		return;
	pthread_mutex_lock(&cq->lock);
	if (!cq->created) {
		bad = EVENT_BAD_DOORBELL;
	} else if (value >= cq->size ||
		   (value + cq->size - atomic_load(&cq->head)) % cq->size > filled(cq)) {
		bad = EVENT_BAD_DOORBELL_VALUE; /* past what was put in */
	} else {
		atomic_store(&cq->head, (uint16_t)value);
		atomic_store(&cq->waiting, cq->interrupts && value != cq->tail);
		full = cq->full;
		cq->full = false;
	}
	pthread_mutex_unlock(&cq->lock);
	if (bad >= 0)
		bad_doorbell(n, (unsigned)bad);
	else if (!pci_msix_enabled(&n->pci))
		nvme_update_pin(n);
	if (full)
		go_on(n, id);
}
