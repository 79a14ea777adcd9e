/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_VIRTIO_VIRTIO_INTERNAL_H
#define HANOK_DEV_VIRTIO_VIRTIO_INTERNAL_H

#include "dev/virtio/virtio.h"

/* Shared by the files of the transport only. */

enum { VIRTIO_NO_VECTOR = 0xffff };

/* Device status (VIRTIO 2.1). */
enum {
	STATUS_ACKNOWLEDGE = 1,
	STATUS_DRIVER = 2,
	STATUS_DRIVER_OK = 4,
	STATUS_FEATURES_OK = 8,
	STATUS_NEEDS_RESET = 64,
	STATUS_FAILED = 128,
};

/* --- virtio.c; virtio.lock held --- */

uint64_t virtio_offered(const struct virtio *v);
/* A write to the status register; 0 resets. */
void virtio_set_status(struct virtio *v, uint8_t status);
/* The status as the driver is shown it. */
uint8_t virtio_get_status(struct virtio *v);
unsigned virtio_vectors(const struct virtio *v);

/* --- virtio.c; any lock but irq_lock may be held --- */

enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };
/* An interrupt for a vector, or by the pin with these ISR bits where MSI-X is off. */
void virtio_interrupt(struct virtio *v, uint16_t vector, uint8_t isr);
uint8_t virtio_read_isr(struct virtio *v);

/* --- virtio.c; no lock held --- */

void virtio_notify(struct virtio *v, unsigned queue);

/* --- queue.c; the queue's lock held --- */

/* Checks the rings' places and begins to use them: 0 or -EFAULT. */
int virtqueue_map(struct virtqueue *q);
/* Ends that. The queue is not enabled. */
void virtqueue_unmap(struct virtqueue *q);
void virtqueue_reset(struct virtqueue *q);

/* --- transport.c --- */

/* Makes the PCI function's BARs and capabilities. */
int virtio_add_bars(struct virtio *v);

#endif
