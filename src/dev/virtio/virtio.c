/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio devices: status, features, reset, interrupts, state. transport.c is the PCI function that
 * drivers see, queue.c the rings.
 *
 *     vCPU: write to the notify register
 *       └─> virtio_notify ─> ops.notify ── virtqueue_pop ─> chain ─> disk, net ...
 *                              │  over at once: virtqueue_push ...
 *                              └─> virtqueue_flush: the used index, at most one interrupt
 *     loop: a request is over ─> virtqueue_lock, _push, _flush, _unlock
 *
 * A queue's lock covers its ring from pop to flush, so two vCPUs can work on two queues at once.
 *
 * Reset. A driver that resets the device wants its memory back, but requests may be in flight, on
 * threads we must not wait for here. So a reset takes the queues away at once and begins a new
 * generation; chains of an older one are counted in `stale`, and until they have come back the
 * status register does not read 0, which a driver waits for (VIRTIO 4.1.4.3.2).
 */
#include "dev/virtio/virtio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "dev/virtio/virtio_internal.h"

#define TRANSPORT_FEATURES                                                                         \
	(VIRTIO_F_ANY_LAYOUT | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1)

uint64_t virtio_offered(const struct virtio *v)
{
	return v->cfg.features | TRANSPORT_FEATURES;
}

unsigned virtio_vectors(const struct virtio *v)
{
	return v->cfg.queues + 1; /* one for changes of the configuration */
}

bool virtio_is_running(struct virtio *v)
{
	uint8_t status = atomic_load(&v->status);

	return (status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET)) == STATUS_DRIVER_OK &&
	       pci_dev_is_master(&v->pci);
}

/* --- interrupts --- */

void virtio_interrupt(struct virtio *v, uint16_t vector, uint8_t isr)
{
	atomic_fetch_add_explicit(&v->stats.interrupts, 1, memory_order_relaxed);
	if (pci_msix_enabled(&v->pci)) {
		if (vector != VIRTIO_NO_VECTOR)
			pci_msix_send(&v->pci, vector);
		return;
	}
	pthread_mutex_lock(&v->irq_lock);
	v->isr |= isr;
	pci_set_intx(&v->pci, 1);
	pthread_mutex_unlock(&v->irq_lock);
}

/* VIRTIO 4.1.4.5: reading takes the interrupt back. */
uint8_t virtio_read_isr(struct virtio *v)
{
	uint8_t isr;

	pthread_mutex_lock(&v->irq_lock);
	isr = v->isr;
	v->isr = 0;
	pci_set_intx(&v->pci, 0);
	pthread_mutex_unlock(&v->irq_lock);
	return isr;
}

void virtio_config_changed(struct virtio *v)
{
	v->config_generation++;
	if (atomic_load(&v->status) & STATUS_DRIVER_OK)
		virtio_interrupt(v, v->config_vector, ISR_CONFIG);
}

void virtio_break(struct virtio *v, const char *why)
{
	uint8_t before = atomic_fetch_or(&v->status, STATUS_NEEDS_RESET);

	if (before & STATUS_NEEDS_RESET)
		return;
	/* Once: a driver could do it all day long. */
	if (!atomic_fetch_add_explicit(&v->stats.broken, 1, memory_order_relaxed))
		log_warn("%s: the guest's driver went wrong: %s; it has to reset the device",
			 v->cfg.name, why);
	/* config_vector is a hint here: virtio.lock cannot be taken under a queue's. */
	if (before & STATUS_DRIVER_OK)
		virtio_interrupt(v, __atomic_load_n(&v->config_vector, __ATOMIC_RELAXED),
				 ISR_CONFIG);
}

/* --- status --- */

static void reset_queues(struct virtio *v)
{
	for (unsigned i = 0; i < v->cfg.queues; i++) {
		virtqueue_lock(&v->queue[i]);
		virtqueue_reset(&v->queue[i]);
		virtqueue_unlock(&v->queue[i]);
	}
}

static void reset(struct virtio *v)
{
	v->status_shown = virtio_get_status(v);
	/* From here on no queue is served; who is serving one has its lock. */
	atomic_store(&v->status, 0);
	reset_queues(v);
	atomic_store(&v->features, 0);
	v->driver_features = 0;
	v->device_features_select = v->driver_features_select = 0;
	v->queue_select = 0;
	v->config_vector = VIRTIO_NO_VECTOR;
	v->config_generation = 0;
	virtio_read_isr(v);
	if (v->cfg.ops->reset)
		v->cfg.ops->reset(v->cfg.dev);
}

uint8_t virtio_get_status(struct virtio *v)
{
	return atomic_load(&v->stale) ? v->status_shown : atomic_load(&v->status);
}

void virtio_set_status(struct virtio *v, uint8_t status)
{
	uint8_t old = atomic_load(&v->status);

	if (!status) {
		reset(v);
		return;
	}
	if (atomic_load(&v->stale))
		return; /* still being reset */
	/* VIRTIO 3.1.1: what cannot be agreed on is not accepted. Legacy drivers do not ask. */
	if (status & ~old & STATUS_FEATURES_OK &&
	    (v->driver_features & ~virtio_offered(v) || !(v->driver_features & VIRTIO_F_VERSION_1)))
		status &= (uint8_t)~STATUS_FEATURES_OK;
	if (status & ~old & (STATUS_FEATURES_OK | STATUS_DRIVER_OK))
		atomic_store(&v->features, v->driver_features & virtio_offered(v));
	/* Only a reset takes bits back. */
	atomic_fetch_or(&v->status, status & (uint8_t)~STATUS_NEEDS_RESET);
}

/* --- notifications --- */

static void notify(struct virtqueue *q)
{
	struct virtio *v = q->v;

	virtqueue_lock(q);
	if (q->enabled && virtio_is_running(v))
		v->cfg.ops->notify(v->cfg.dev, q);
	virtqueue_unlock(q);
	if (v->cfg.ops->after_notify)
		v->cfg.ops->after_notify(v->cfg.dev, q);
}

void virtio_notify(struct virtio *v, unsigned queue)
{
	if (queue >= v->cfg.queues)
		return;
	atomic_fetch_add_explicit(&v->stats.notifications, 1, memory_order_relaxed);
	notify(&v->queue[queue]);
}

static void notify_posted(void *opaque)
{
	struct virtqueue *q = opaque;

	virtqueue_lock(q);
	q->kick_posted = false;
	virtqueue_unlock(q);
	notify(q);
}

void virtqueue_notify_later(struct virtqueue *q)
{
	if (!q->kick_posted)
		q->kick_posted = !loop_post(q->v->cfg.loop, notify_posted, q);
}

/* --- state --- */

void virtio_reset(struct virtio *v)
{
	pthread_mutex_lock(&v->lock);
	reset(v);
	pthread_mutex_unlock(&v->lock);
	pci_dev_reset(&v->pci);
}

static void state_queue(struct virtqueue *q, struct state_stream *s)
{
	state_bool(s, &q->enabled);
	state_u16(s, &q->size);
	state_u16(s, &q->vector);
	state_u64(s, &q->desc_gpa);
	state_u64(s, &q->avail_gpa);
	state_u64(s, &q->used_gpa);
	state_u16(s, &q->last_avail);
	state_u16(s, &q->used_idx);
	if (state_writing(s))
		return;
	q->published = q->used_idx;
	if (!q->size || q->size > q->v->cfg.queue_size || q->size & (q->size - 1) ||
	    (q->vector != VIRTIO_NO_VECTOR && q->vector >= virtio_vectors(q->v)) ||
	    (q->enabled && virtqueue_map(q))) {
		q->enabled = false;
		virtqueue_unmap(q);
		q->size = q->v->cfg.queue_size;
		q->vector = VIRTIO_NO_VECTOR;
		state_fail(s, "%s: a queue that cannot be", q->v->cfg.name);
	}
}

static void state_registers(struct virtio *v, struct state_stream *s)
{
	uint64_t features = v->features;
	uint8_t status = v->status;

	state_u8(s, &status);
	state_u64(s, &features);
	state_u64(s, &v->driver_features);
	state_u32(s, &v->device_features_select);
	state_u32(s, &v->driver_features_select);
	state_u16(s, &v->queue_select);
	state_u16(s, &v->config_vector);
	state_u8(s, &v->config_generation);
	state_u8(s, &v->isr);
	state_raw(s, v->cfg.config, v->cfg.config_bytes);
	if (state_writing(s))
		return;
	if (v->config_vector >= virtio_vectors(v))
		v->config_vector = VIRTIO_NO_VECTOR;
	atomic_store(&v->features, features & virtio_offered(v));
	atomic_store(&v->status, status);
}

void virtio_state_begin(struct virtio *v, struct state_stream *s, uint32_t version)
{
	uint32_t queues = v->cfg.queues;

	state_begin(s, v->cfg.name, v->cfg.index, version);
	if (!state_writing(s)) {
		/* Nothing of what is restored may look to be of the generation before. */
		atomic_store(&v->status, 0);
		reset_queues(v);
	}
	pci_dev_state(&v->pci, s);
	state_u32(s, &queues);
	if (queues != v->cfg.queues)
		state_fail(s, "%s: saved with %u queues, this machine's has %u", v->cfg.name,
			   queues, v->cfg.queues);
	pthread_mutex_lock(&v->lock);
	state_registers(v, s);
	for (unsigned i = 0; i < v->cfg.queues; i++) {
		virtqueue_lock(&v->queue[i]);
		state_queue(&v->queue[i], s);
		virtqueue_unlock(&v->queue[i]);
	}
	pthread_mutex_unlock(&v->lock);
}

void virtio_state_end(struct virtio *v, struct state_stream *s)
{
	state_end(s);
	if (state_writing(s))
		return;
	if (state_stream_error(s, NULL))
		atomic_store(&v->status, 0);
	/* A notification may have been on its way. */
	for (unsigned i = 0; i < v->cfg.queues; i++) {
		virtqueue_lock(&v->queue[i]);
		if (v->queue[i].enabled)
			virtqueue_notify_later(&v->queue[i]);
		virtqueue_unlock(&v->queue[i]);
	}
}

/* --- life --- */

int virtio_create(struct virtio *v, const struct virtio_config *cfg, struct error *err)
{
	int rc;

	memset(v, 0, sizeof(*v));
	v->cfg = *cfg;
	pthread_mutex_init(&v->lock, NULL);
	pthread_mutex_init(&v->irq_lock, NULL);
	v->config_vector = VIRTIO_NO_VECTOR;
	for (unsigned i = 0; i < cfg->queues; i++) {
		v->queue[i].v = v;
		v->queue[i].index = i;
		pthread_mutex_init(&v->queue[i].lock, NULL);
		virtqueue_reset(&v->queue[i]);
	}
	rc = virtio_add_bars(v);
	if (!rc)
		rc = pci_dev_add(&v->pci, cfg->pci, cfg->slot, 0);
	if (rc)
		return error_set(err, rc, "%s: PCI slot %u: %s", cfg->name, cfg->slot,
				 strerror(-rc));
	return 0;
}

void virtio_destroy(struct virtio *v)
{
	if (!v->cfg.ops)
		return;
	pci_dev_remove(&v->pci);
	reset_queues(v);
	for (unsigned i = 0; i < v->cfg.queues; i++)
		pthread_mutex_destroy(&v->queue[i].lock);
	pthread_mutex_destroy(&v->irq_lock);
	pthread_mutex_destroy(&v->lock);
}
