/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_VIRTIO_VIRTIO_H
#define HANOK_DEV_VIRTIO_VIRTIO_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/loop.h"
#include "bus/dma.h"
#include "bus/pci.h"
#include "mem/mem.h"
#include "state/stream.h"

/*
 * What all virtio devices share: the PCI transport, modern and legacy, and split virtqueues, as in
 * "Virtual I/O Device (VIRTIO) Version 1.2", called VIRTIO below. virtio.c tells how it works
 * together.
 *
 * A device embeds a struct virtio, fills a struct virtio_config, and gets called through its
 * struct virtio_ops. Of the guest's rings it sees chains: checked lists of host addresses.
 *
 * Lock order: virtio.lock, virtqueue.lock, virtio.irq_lock, then the PCI bus's. The device's own
 * locks are taken within a queue's.
 */
struct virtio;
struct virtqueue;

/* Feature bits of the transport (VIRTIO 6); those below 24 are each device type's. */
#define VIRTIO_F_ANY_LAYOUT (UINT64_C(1) << 27)
#define VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define VIRTIO_F_EVENT_IDX (UINT64_C(1) << 29)
#define VIRTIO_F_VERSION_1 (UINT64_C(1) << 32)

enum {
	VIRTIO_QUEUES_MAX = 64,
	VIRTIO_QUEUE_SIZE_MAX = 1024,
	VIRTIO_CONFIG_MAX = 104,
	VIRTIO_RINGS = 3, /* of a queue */
};
/* Most bytes of a chain. No driver comes near; a device would hold that much for one request. */
#define VIRTIO_CHAIN_BYTES_MAX (UINT64_C(64) << 20)

struct virtio_ops {
	/* The guest says that there are chains in the queue. On a vCPU's thread or the loop's, with
	 * the queue's lock held; not while the device is being reset or is broken. */
	void (*notify)(void *dev, struct virtqueue *q);
	/* After notify, on the same thread, with no lock held. May be NULL. */
	void (*after_notify)(void *dev, struct virtqueue *q);
	/* The guest wrote value into the device's configuration; the device changes its bytes
	 * there if it likes it. virtio.lock held. May be NULL. */
	void (*config_write)(void *dev, unsigned offset, unsigned size, uint64_t value);
	/* The guest resets the device, or the machine is reset: back to how it was made. No queue
	 * is enabled any more; chains still out belong to nobody and are pushed when they are
	 * ready as if nothing had happened. virtio.lock held. May be NULL. */
	void (*reset)(void *dev);
};

struct virtio_config {
	const char *name; /* "virtio-blk"; also of its section in a state stream */
	uint16_t type;	  /* VIRTIO 5: 2 is a block device */
	/* PCI device id of the transitional device (VIRTIO 4.1.2.1); 0: modern only. */
	uint16_t transitional_id;
	uint32_t class_code; /* struct pci_ident */
	uint64_t features;   /* offered besides those of the transport */
	unsigned queues;     /* 1 to VIRTIO_QUEUES_MAX */
	uint16_t queue_size; /* most; a power of two, up to VIRTIO_QUEUE_SIZE_MAX */
	/* The device's configuration space, little-endian; the device's, guarded by virtio.lock. */
	uint8_t *config;
	unsigned config_bytes; /* up to VIRTIO_CONFIG_MAX */
	const struct virtio_ops *ops;
	void *dev;

	struct pci_bus *pci;
	unsigned slot, index; /* index: instance of the section in a stream */
	struct mem *mem;
	struct loop *loop;
};

struct virtqueue {
	struct virtio *v;
	unsigned index;
	pthread_mutex_t lock; /* guards what follows */
	bool enabled;
	uint16_t size, vector;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	/* While enabled: the rings, and their host addresses, checked. */
	struct dma_area area[VIRTIO_RINGS];
	const void *desc;
	uint16_t *avail;
	void *used;
	uint16_t last_avail; /* next entry of the available ring to take */
	uint16_t used_idx;   /* next entry of the used ring to fill; published by virtqueue_flush */
	uint16_t published;  /* what the guest was shown of it */
	bool kick_posted;
	uint32_t generation; /* counts resets */
	unsigned out;	     /* chains taken and not yet pushed, of this generation */
};

struct virtio_stats {
	_Atomic uint64_t notifications, interrupts, chains, broken;
};

struct virtio {
	struct virtio_config cfg;
	struct pci_dev pci;
	pthread_mutex_t lock; /* guards what follows, but for the atomics */
	uint64_t driver_features;
	uint32_t device_features_select, driver_features_select;
	uint16_t queue_select, config_vector;
	uint8_t config_generation;
	_Atomic uint8_t status;
	_Atomic uint64_t features; /* negotiated */
	atomic_uint stale;	   /* chains of before a reset that are still out */
	uint8_t status_shown;	   /* while stale: the status of before the reset */
	unsigned pci_cfg_cap;	   /* offset of VIRTIO_PCI_CAP_PCI_CFG */
	pthread_mutex_t irq_lock;  /* guards isr and the interrupt pin */
	uint8_t isr;
	struct virtqueue queue[VIRTIO_QUEUES_MAX];
	struct virtio_stats stats;
};

/* Fills and plugs in *v, whose cfg is copied. 0 or -errno with err. On failure, and for a zeroed *v,
 * virtio_destroy is allowed. */
int virtio_create(struct virtio *v, const struct virtio_config *cfg, struct error *err);
void virtio_destroy(struct virtio *v);

/* For the device's dev_ops: no chain is out (the device has waited), vCPUs do not run, and on the
 * loop's thread or while it does not run. After a restore the queues are notified once. */
void virtio_reset(struct virtio *v);
void virtio_state_begin(struct virtio *v, struct state_stream *s, uint32_t version);
void virtio_state_end(struct virtio *v, struct state_stream *s);

/* May the device use its queues (DRIVER_OK, not broken, bus master)? Any thread. */
bool virtio_is_running(struct virtio *v);
static inline bool virtio_has(const struct virtio *v, uint64_t feature)
{
	return atomic_load_explicit(&v->features, memory_order_relaxed) & feature;
}

/* The device has changed its configuration bytes (with virtio.lock held, or before vCPUs run): tells
 * the driver. virtio.lock held. */
void virtio_config_changed(struct virtio *v);

/* --- queues; the queue's lock is held, and the device is running --- */

/* A list of buffers, first those that the device reads, then those that it writes. The arrays are
 * the device's and hold `room` entries; what is longer is refused as if broken. The device may change
 * the iovecs; the areas are what it holds, until the chain is pushed or put back. */
struct virtio_chain {
	struct iovec *iov;
	struct dma_area *area; /* of each iovec, as it was */
	unsigned room, held;
	unsigned out_count, in_count; /* read by the device, written by it */
	uint64_t out_bytes, in_bytes;
	uint16_t head;
	uint32_t generation;
	/* With iov NULL, for who only wants to know where the buffers are: they are not checked, not
	 * brought in and not held. Nothing may be said to be written to them then. */
	struct mem_range *place;
};

static inline void virtqueue_lock(struct virtqueue *q)
{
	pthread_mutex_lock(&q->lock);
}
static inline void virtqueue_unlock(struct virtqueue *q)
{
	pthread_mutex_unlock(&q->lock);
}

/* Takes the next chain: 1; 0: there is none; -EIO: the ring is broken, and the device with it, till
 * the driver resets it. Empty buffers are left out. */
int virtqueue_pop(struct virtqueue *q, struct virtio_chain *c);

/* Gives a chain back with `written` bytes written to its buffers from the first on; announces them
 * to mem. The driver sees it after virtqueue_flush. Also when the device is not running any more. */
void virtqueue_push(struct virtqueue *q, struct virtio_chain *c, uint64_t written);

/* Puts the last `chains` chains that were taken, which are these, back, as if they had not been. */
void virtqueue_put_back(struct virtqueue *q, struct virtio_chain *c, unsigned chains);

/* Shows the driver what was pushed, with one interrupt if it wants one. */
void virtqueue_flush(struct virtqueue *q);

/* Asks for notifications, or says that none are needed for now (a hint). Returns true if there are
 * chains to be taken, of which no notification may come. */
bool virtqueue_set_notify(struct virtqueue *q, bool on);

/* For a device that needs more chains than there are now: the next one that comes is announced; or
 * ops.notify is called soon. Look for chains again afterwards. */
void virtqueue_want_more(struct virtqueue *q);

/* Has ops.notify called soon on the loop's thread. */
void virtqueue_notify_later(struct virtqueue *q);

/* The device found the driver's doing to make no sense: DEVICE_NEEDS_RESET (VIRTIO 2.1). */
void virtio_break(struct virtio *v, const char *why);

/* --- bytes of a chain --- */

/* Takes bytes off the front of an array of iovecs: moves *iov on and lowers *count. buf (if not NULL)
 * gets the bytes. False: there are fewer. */
bool virtio_iov_take(struct iovec **iov, unsigned *count, void *buf, size_t bytes);
/* Copies buf to the front of the iovecs, as much as fits; returns how much. */
size_t virtio_iov_fill(const struct iovec *iov, unsigned count, const void *buf, size_t bytes);

#endif
