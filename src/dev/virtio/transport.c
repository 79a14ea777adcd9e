/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio over PCI (VIRTIO 4.1): the registers that drivers see.
 *
 *     BAR 0  I/O     legacy registers (VIRTIO 4.1.4.10), transitional devices only
 *     BAR 1  memory  MSI-X table and pending bits
 *     BAR 4  memory  0000h common configuration, 1000h ISR, 2000h the device's configuration,
 *                    3000h notifications, four bytes a queue
 *
 * Capabilities tell a modern driver of the four parts of BAR 4, and a fifth is a window to them
 * through the configuration space, for firmware.
 */
#include <errno.h>
#include <string.h>

#include "dev/virtio/virtio_internal.h"

enum { PCI_VENDOR_VIRTIO = 0x1af4, PCI_DEVICE_MODERN = 0x1040 };
enum { BAR_LEGACY = 0, BAR_MSIX = 1, BAR_MODERN = 4 };
enum { MSIX_BAR_BYTES = 0x1000, MSIX_PBA_AT = 0x800 };
enum {
	AT_COMMON = 0x0000,
	AT_ISR = 0x1000,
	AT_DEVICE = 0x2000,
	AT_NOTIFY = 0x3000,
	MODERN_BYTES = 0x4000,
	PART_BYTES = 0x1000,
	NOTIFY_BYTES = 4,
};
enum { CAP_VENDOR = 0x09, CAP_BYTES = 16, CAP_NOTIFY_BYTES = 20, CAP_PCI_CFG_BYTES = 20 };
enum { CFG_COMMON = 1, CFG_NOTIFY, CFG_ISR, CFG_DEVICE, CFG_PCI };

/* Common configuration (VIRTIO 4.1.4.3). */
enum {
	DEVICE_FEATURE_SELECT = 0x00,
	DEVICE_FEATURE = 0x04,
	DRIVER_FEATURE_SELECT = 0x08,
	DRIVER_FEATURE = 0x0c,
	CONFIG_MSIX_VECTOR = 0x10,
	NUM_QUEUES = 0x12,
	DEVICE_STATUS = 0x14,
	CONFIG_GENERATION = 0x15,
	QUEUE_SELECT = 0x16,
	QUEUE_SIZE = 0x18,
	QUEUE_MSIX_VECTOR = 0x1a,
	QUEUE_ENABLE = 0x1c,
	QUEUE_NOTIFY_OFF = 0x1e,
	QUEUE_DESC = 0x20,
	QUEUE_DRIVER = 0x28,
	QUEUE_DEVICE = 0x30,
	COMMON_BYTES = 0x38,
};

/* Legacy registers; the device's configuration is at LEGACY_MSIX if MSI-X is off, or after it. */
enum {
	LEGACY_DEVICE_FEATURES = 0x00,
	LEGACY_DRIVER_FEATURES = 0x04,
	LEGACY_QUEUE_PFN = 0x08,
	LEGACY_QUEUE_SIZE = 0x0c,
	LEGACY_QUEUE_SELECT = 0x0e,
	LEGACY_QUEUE_NOTIFY = 0x10,
	LEGACY_STATUS = 0x12,
	LEGACY_ISR = 0x13,
	LEGACY_MSIX = 0x14, /* vector of the configuration, then of the selected queue */
	LEGACY_MSIX_BYTES = 4,
	LEGACY_PAGE_SHIFT = 12,
	LEGACY_BYTES = 128, /* a BAR's size: 20 + 4 + VIRTIO_CONFIG_MAX fit */
};
_Static_assert(LEGACY_MSIX + LEGACY_MSIX_BYTES + VIRTIO_CONFIG_MAX <= LEGACY_BYTES, "BAR 0");

/* --- queues' registers; virtio.lock held --- */

static struct virtqueue *selected(struct virtio *v)
{
	return v->queue_select < v->cfg.queues ? &v->queue[v->queue_select] : NULL;
}

static uint16_t accept_vector(const struct virtio *v, uint64_t value)
{
	return value < virtio_vectors(v) ? (uint16_t)value : VIRTIO_NO_VECTOR;
}

static void enable(struct virtqueue *q)
{
	if (q->enabled)
		return;
	if (virtqueue_map(q))
		virtio_break(q->v, "a queue's rings are not in memory");
	else
		q->enabled = true;
}

static uint32_t queue_read(struct virtqueue *q, unsigned offset)
{
	switch (offset) {
	case QUEUE_SIZE:
		return q->size;
	case QUEUE_MSIX_VECTOR:
		return q->vector;
	case QUEUE_ENABLE:
		return q->enabled;
	case QUEUE_NOTIFY_OFF:
		return q->index;
	case QUEUE_DESC:
		return (uint32_t)q->desc_gpa;
	case QUEUE_DESC + 4:
		return (uint32_t)(q->desc_gpa >> 32);
	case QUEUE_DRIVER:
		return (uint32_t)q->avail_gpa;
	case QUEUE_DRIVER + 4:
		return (uint32_t)(q->avail_gpa >> 32);
	case QUEUE_DEVICE:
		return (uint32_t)q->used_gpa;
	case QUEUE_DEVICE + 4:
		return (uint32_t)(q->used_gpa >> 32);
	}
	return 0;
}

static void set_half(uint64_t *gpa, bool high, uint32_t value)
{
	if (high)
		*gpa = (*gpa & UINT32_MAX) | (uint64_t)value << 32;
	else
		*gpa = (*gpa & ~(uint64_t)UINT32_MAX) | value;
}

static void queue_write(struct virtqueue *q, unsigned offset, uint32_t value)
{
	if (offset == QUEUE_MSIX_VECTOR)
		q->vector = accept_vector(q->v, value);
	if (q->enabled)
		return; /* in use: the rest stays as it is */
	switch (offset) {
	case QUEUE_SIZE:
		if (value && value <= q->v->cfg.queue_size && !(value & (value - 1)))
			q->size = (uint16_t)value;
		break;
	case QUEUE_ENABLE:
		if (value == 1)
			enable(q);
		break;
	case QUEUE_DESC:
	case QUEUE_DESC + 4:
		set_half(&q->desc_gpa, offset & 4, value);
		break;
	case QUEUE_DRIVER:
	case QUEUE_DRIVER + 4:
		set_half(&q->avail_gpa, offset & 4, value);
		break;
	case QUEUE_DEVICE:
	case QUEUE_DEVICE + 4:
		set_half(&q->used_gpa, offset & 4, value);
		break;
	}
}

/* VIRTIO 2.7.2: one page-aligned block holds all three rings. A page of 0 takes the queue away,
 * which drivers do before they reset; here only the reset does it. */
static void legacy_set_pfn(struct virtqueue *q, uint32_t pfn)
{
	uint64_t mask = (1u << LEGACY_PAGE_SHIFT) - 1;

	if (!pfn || q->enabled)
		return;
	q->desc_gpa = (uint64_t)pfn << LEGACY_PAGE_SHIFT;
	q->avail_gpa = q->desc_gpa + 16u * q->size;
	q->used_gpa = (q->avail_gpa + 6 + 2u * q->size + mask) & ~mask;
	enable(q);
}

/* --- common configuration --- */

static uint32_t common_read(struct virtio *v, unsigned offset)
{
	switch (offset) {
	case DEVICE_FEATURE_SELECT:
		return v->device_features_select;
	case DEVICE_FEATURE:
		return v->device_features_select < 2
			       ? (uint32_t)(virtio_offered(v) >> 32 * v->device_features_select)
			       : 0;
	case DRIVER_FEATURE_SELECT:
		return v->driver_features_select;
	case DRIVER_FEATURE:
		return v->driver_features_select < 2
			       ? (uint32_t)(v->driver_features >> 32 * v->driver_features_select)
			       : 0;
	case CONFIG_MSIX_VECTOR:
		return v->config_vector;
	case NUM_QUEUES:
		return v->cfg.queues;
	case DEVICE_STATUS:
		return virtio_get_status(v);
	case CONFIG_GENERATION:
		return v->config_generation;
	case QUEUE_SELECT:
		return v->queue_select;
	}
	struct virtqueue *q = selected(v);
	if (!q)
		return 0;
	virtqueue_lock(q);
	uint32_t value = queue_read(q, offset);
	virtqueue_unlock(q);
	return value;
}

static void set_driver_features(struct virtio *v, uint32_t value)
{
	/* Settled once the driver has said so (VIRTIO 3.1.1), until the next reset. */
	if (v->driver_features_select < 2 &&
	    !(atomic_load(&v->status) & (STATUS_FEATURES_OK | STATUS_DRIVER_OK)))
		set_half(&v->driver_features, v->driver_features_select, value);
}

static void common_write(struct virtio *v, unsigned offset, uint32_t value)
{
	switch (offset) {
	case DEVICE_FEATURE_SELECT:
		v->device_features_select = value;
		return;
	case DRIVER_FEATURE_SELECT:
		v->driver_features_select = value;
		return;
	case DRIVER_FEATURE:
		set_driver_features(v, value);
		return;
	case CONFIG_MSIX_VECTOR:
		__atomic_store_n(&v->config_vector, accept_vector(v, value), __ATOMIC_RELAXED);
		return;
	case DEVICE_STATUS:
		virtio_set_status(v, (uint8_t)value);
		return;
	case QUEUE_SELECT:
		v->queue_select = (uint16_t)value;
		return;
	}
	struct virtqueue *q = selected(v);
	if (!q)
		return;
	virtqueue_lock(q);
	queue_write(q, offset, value);
	virtqueue_unlock(q);
}

static void access_common(struct virtio *v, struct bus_access *a)
{
	unsigned at = (unsigned)a->offset;

	if (a->offset + a->size > COMMON_BYTES) {
		a->value = 0;
		return;
	}
	pthread_mutex_lock(&v->lock);
	if (a->write) {
		common_write(v, at, (uint32_t)a->value);
		if (a->size == 8)
			common_write(v, at + 4, (uint32_t)(a->value >> 32));
	} else {
		a->value = common_read(v, at);
		if (a->size == 8)
			a->value |= (uint64_t)common_read(v, at + 4) << 32;
	}
	pthread_mutex_unlock(&v->lock);
}

/* --- the device's configuration --- */

static void access_device(struct virtio *v, struct bus_access *a, uint64_t offset)
{
	uint64_t value = 0;
	unsigned n = 0;

	pthread_mutex_lock(&v->lock);
	if (offset < v->cfg.config_bytes)
		n = v->cfg.config_bytes - offset < a->size
			    ? (unsigned)(v->cfg.config_bytes - offset)
			    : a->size;
	if (!a->write) {
		memcpy(&value, v->cfg.config + offset, n);
		a->value = value;
	} else if (n == a->size && v->cfg.ops->config_write) {
		v->cfg.ops->config_write(v->cfg.dev, (unsigned)offset, a->size, a->value);
	}
	pthread_mutex_unlock(&v->lock);
}

/* --- BAR 4 --- */

static void access_modern(void *opaque, struct bus_access *a)
{
	struct virtio *v = opaque;

	switch (a->offset & ~(uint64_t)(PART_BYTES - 1)) {
	case AT_COMMON:
		access_common(v, a);
		break;
	case AT_ISR:
		if (!a->write)
			a->value = a->offset == AT_ISR ? virtio_read_isr(v) : 0;
		break;
	case AT_DEVICE:
		access_device(v, a, a->offset - AT_DEVICE);
		break;
	case AT_NOTIFY:
		if (a->write)
			virtio_notify(v, (unsigned)(a->offset - AT_NOTIFY) / NOTIFY_BYTES);
		else
			a->value = 0;
		break;
	}
}

/* --- BAR 0 --- */

static uint32_t legacy_read(struct virtio *v, unsigned offset)
{
	struct virtqueue *q = selected(v);
	uint32_t value = 0;

	switch (offset) {
	case LEGACY_DEVICE_FEATURES:
		return (uint32_t)virtio_offered(v);
	case LEGACY_DRIVER_FEATURES:
		return (uint32_t)v->driver_features;
	case LEGACY_QUEUE_SELECT:
		return v->queue_select;
	case LEGACY_STATUS:
		return virtio_get_status(v);
	case LEGACY_ISR:
		return virtio_read_isr(v);
	case LEGACY_MSIX:
		return v->config_vector;
	}
	if (!q)
		return offset == LEGACY_MSIX + 2 ? VIRTIO_NO_VECTOR : 0;
	virtqueue_lock(q);
	if (offset == LEGACY_QUEUE_PFN && q->enabled)
		value = (uint32_t)(q->desc_gpa >> LEGACY_PAGE_SHIFT);
	else if (offset == LEGACY_QUEUE_SIZE)
		value = q->size;
	else if (offset == LEGACY_MSIX + 2)
		value = q->vector;
	virtqueue_unlock(q);
	return value;
}

static void legacy_write(struct virtio *v, unsigned offset, uint32_t value)
{
	struct virtqueue *q = selected(v);

	switch (offset) {
	case LEGACY_DRIVER_FEATURES:
		v->driver_features_select = 0;
		set_driver_features(v, value & (uint32_t)virtio_offered(v));
		return;
	case LEGACY_QUEUE_SELECT:
		v->queue_select = (uint16_t)value;
		return;
	case LEGACY_STATUS:
		virtio_set_status(v, (uint8_t)value);
		return;
	case LEGACY_MSIX:
		__atomic_store_n(&v->config_vector, accept_vector(v, value), __ATOMIC_RELAXED);
		return;
	}
	if (!q)
		return;
	virtqueue_lock(q);
	if (offset == LEGACY_QUEUE_PFN)
		legacy_set_pfn(q, value);
	else if (offset == LEGACY_MSIX + 2)
		q->vector = accept_vector(v, value);
	virtqueue_unlock(q);
}

static void access_legacy(void *opaque, struct bus_access *a)
{
	struct virtio *v = opaque;
	unsigned config = LEGACY_MSIX + (pci_msix_enabled(&v->pci) ? LEGACY_MSIX_BYTES : 0);

	if (a->offset >= config) {
		access_device(v, a, a->offset - config);
	} else if (a->offset == LEGACY_QUEUE_NOTIFY) {
		if (a->write)
			virtio_notify(v, (uint16_t)a->value);
		else
			a->value = 0;
	} else {
		pthread_mutex_lock(&v->lock);
		if (a->write)
			legacy_write(v, (unsigned)a->offset, (uint32_t)a->value);
		else
			a->value = legacy_read(v, (unsigned)a->offset);
		pthread_mutex_unlock(&v->lock);
	}
}

/* --- the window in the configuration space (VIRTIO 4.1.4.9) --- */

/* The access that the capability describes, or false if it describes none. */
static bool window(struct virtio *v, struct bus_access *a)
{
	const uint8_t *cap = &v->pci.config[v->pci_cfg_cap];
	uint32_t offset, length;

	memcpy(&offset, cap + 8, 4);
	memcpy(&length, cap + 12, 4);
	if (cap[4] != BAR_MODERN || (length != 1 && length != 2 && length != 4) ||
	    offset % length || offset >= MODERN_BYTES)
		return false;
	*a = (struct bus_access){.offset = offset, .size = length};
	return true;
}

static void config_read(void *opaque, unsigned offset, unsigned size)
{
	struct virtio *v = opaque;
	unsigned data = v->pci_cfg_cap + CAP_BYTES;
	struct bus_access a;

	if (offset + size <= data || offset >= data + 4 || !window(v, &a))
		return;
	access_modern(v, &a);
	memcpy(&v->pci.config[data], &a.value, a.size);
}

static void config_written(void *opaque, unsigned offset, unsigned size)
{
	struct virtio *v = opaque;
	unsigned data = v->pci_cfg_cap + CAP_BYTES;
	struct bus_access a;

	if (offset + size <= data || offset >= data + 4 || !window(v, &a))
		return;
	a.write = true;
	memcpy(&a.value, &v->pci.config[data], a.size);
	access_modern(v, &a);
}

/* --- making it --- */

static int add_part(struct virtio *v, uint8_t type, unsigned bytes, uint32_t at, uint32_t length)
{
	int cap = pci_dev_add_capability(&v->pci, CAP_VENDOR, bytes);

	if (cap < 0)
		return cap;
	pci_dev_set(&v->pci, cap + 2, 1, bytes, 0);
	pci_dev_set(&v->pci, cap + 3, 1, type, 0);
	pci_dev_set(&v->pci, cap + 4, 1, BAR_MODERN, 0);
	pci_dev_set(&v->pci, cap + 8, 4, at, 0);
	pci_dev_set(&v->pci, cap + 12, 4, length, 0);
	return cap;
}

static int add_capabilities(struct virtio *v)
{
	int notify, window_at;

	if (add_part(v, CFG_COMMON, CAP_BYTES, AT_COMMON, COMMON_BYTES) < 0 ||
	    add_part(v, CFG_ISR, CAP_BYTES, AT_ISR, 1) < 0 ||
	    add_part(v, CFG_DEVICE, CAP_BYTES, AT_DEVICE, PART_BYTES) < 0)
		return -ENOSPC;
	notify = add_part(v, CFG_NOTIFY, CAP_NOTIFY_BYTES, AT_NOTIFY,
			  v->cfg.queues * (uint32_t)NOTIFY_BYTES);
	window_at = add_part(v, CFG_PCI, CAP_PCI_CFG_BYTES, 0, 0);
	if (notify < 0 || window_at < 0)
		return -ENOSPC;
	pci_dev_set(&v->pci, notify + CAP_BYTES, 4, NOTIFY_BYTES, 0);
	v->pci_cfg_cap = (unsigned)window_at;
	pci_dev_set(&v->pci, window_at + 4, 1, 0, 0xff);
	pci_dev_set(&v->pci, window_at + 8, 4, 0, UINT32_MAX);
	pci_dev_set(&v->pci, window_at + 12, 4, 0, UINT32_MAX);
	pci_dev_set(&v->pci, window_at + CAP_BYTES, 4, 0, UINT32_MAX);
	v->pci.config_read = config_read;
	v->pci.config_written = config_written;
	v->pci.opaque = v;
	return 0;
}

/* A BAR of its own keeps the MSI-X tables away from the other registers. */
static void access_nothing(void *opaque, struct bus_access *a)
{
	(void)opaque;
	a->value = 0;
}

int virtio_add_bars(struct virtio *v)
{
	bool transitional = v->cfg.transitional_id != 0;
	/* VIRTIO 4.1.2: a transitional device tells its type by the subsystem id. */
	struct pci_ident id = {
		.vendor = PCI_VENDOR_VIRTIO,
		.device = transitional ? v->cfg.transitional_id
				       : (uint16_t)(PCI_DEVICE_MODERN + v->cfg.type),
		.subsystem_vendor = PCI_VENDOR_VIRTIO,
		.subsystem = v->cfg.type,
		.class_code = v->cfg.class_code,
		.revision = transitional ? 0 : 1,
		.interrupt_pin = 1,
	};
	int rc;

	pci_dev_init(&v->pci, v->cfg.name, &id);
	rc = add_capabilities(v);
	if (!rc && transitional)
		rc = pci_dev_set_bar(&v->pci, BAR_LEGACY, PCI_BAR_IO, false, LEGACY_BYTES,
				     access_legacy, v);
	if (!rc)
		rc = pci_dev_set_bar(&v->pci, BAR_MSIX, PCI_BAR_MEM32, false, MSIX_BAR_BYTES,
				     access_nothing, v);
	if (!rc)
		rc = pci_dev_set_bar(&v->pci, BAR_MODERN, PCI_BAR_MEM32, false, MODERN_BYTES,
				     access_modern, v);
	if (!rc)
		rc = pci_msix_add(&v->pci, virtio_vectors(v), BAR_MSIX, 0, MSIX_PBA_AT);
	return rc;
}
