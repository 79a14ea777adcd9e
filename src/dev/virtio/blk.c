/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtio block device (VIRTIO 5.2), with a queue for each vCPU up to BLK_QUEUES_MAX.
 *
 * A request is a chain: a header, data, and a byte for the status at the very end. It becomes one
 * or more requests to the disk, one after the other: several ranges of a discard, or a write and a
 * flush when the driver wants writes to be stable at once.
 *
 *     on_notify: pop ─> begin ─> step ─┬─> over: push            all on the vCPU's thread,
 *                            ▲         │                         one flush for all of them
 *                            └─ next ──┼─> DISK_LATER
 *                                      ▼
 *     on_done, the loop's thread: step again, or push and flush
 */
#include "dev/virtio/blk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/virtio/virtio.h"

/* Feature bits (VIRTIO 5.2.3). */
#define BLK_F_SEG_MAX (UINT64_C(1) << 2)
#define BLK_F_GEOMETRY (UINT64_C(1) << 4)
#define BLK_F_RO (UINT64_C(1) << 5)
#define BLK_F_BLK_SIZE (UINT64_C(1) << 6)
#define BLK_F_FLUSH (UINT64_C(1) << 9)
#define BLK_F_TOPOLOGY (UINT64_C(1) << 10)
#define BLK_F_CONFIG_WCE (UINT64_C(1) << 11)
#define BLK_F_MQ (UINT64_C(1) << 12)
#define BLK_F_DISCARD (UINT64_C(1) << 13)
#define BLK_F_WRITE_ZEROES (UINT64_C(1) << 14)

enum { TYPE_BLOCK = 2, TRANSITIONAL_ID = 0x1001, CLASS_STORAGE_OTHER = 0x018000 };
enum { REQ_IN = 0, REQ_OUT = 1, REQ_FLUSH = 4, REQ_GET_ID = 8 };
enum { REQ_DISCARD = 11, REQ_WRITE_ZEROES = 13 };
enum { REQ_BARRIER = (int)0x80000000 }; /* legacy; an order that writes have anyway at a flush */
enum { STATUS_OK = 0, STATUS_IOERR = 1, STATUS_UNSUPP = 2 };
enum { ID_BYTES = 20 };

enum {
	BLK_QUEUES_MAX = 8,
	BLK_QUEUE_SIZE = 256,
	BLK_SEGMENTS = BLK_QUEUE_SIZE - 2, /* of data in a chain */
	BLK_RANGES = 16,		   /* of a discard */
	BLK_BATCH = 4 * BLK_QUEUE_SIZE,	   /* requests on a vCPU's thread at a time */
};
/* Longest range of a discard, in sectors: a request must not take for ever on a host that has to
 * write the zeroes. */
enum { BLK_RANGE_SECTORS = 1 << 21 };

/* VIRTIO 5.2.4 */
struct blk_config {
	uint64_t capacity; /* sectors */
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp, alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback, unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
	uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, unused1[3];
} __attribute__((packed));
_Static_assert(sizeof(struct blk_config) == 60, "VIRTIO 5.2.4");

struct blk_header {
	uint32_t type, reserved;
	uint64_t sector;
};

struct blk_range {
	uint64_t sector;
	uint32_t sectors, flags;
};

struct virtio_blk {
	struct virtio v;
	struct disk *disk;
	uint64_t bytes;
	char serial[ID_BYTES];
	struct blk_config config;
	/* Requests to be used again; under free_lock, which is the last to be taken. */
	pthread_mutex_t free_lock;
	struct blk_request *free;
};

struct blk_request {
	struct disk_request dr; /* first */
	struct virtio_blk *blk;
	struct virtqueue *q;
	struct blk_request *next; /* in the list of free ones */
	struct virtio_chain chain;
	uint8_t *status; /* the chain's last byte */
	bool flush_after;
	struct blk_range range[BLK_RANGES]; /* still to be discarded or zeroed */
	unsigned ranges, at;
	struct iovec iov[BLK_QUEUE_SIZE];
	struct dma_area area[BLK_QUEUE_SIZE];
};

/* --- requests' memory --- */

static struct blk_request *request_get(struct virtio_blk *b)
{
	struct blk_request *r;

	pthread_mutex_lock(&b->free_lock);
	r = b->free;
	if (r)
		b->free = r->next;
	pthread_mutex_unlock(&b->free_lock);
	if (!r)
		r = malloc(sizeof(*r));
	if (r) {
		r->blk = b;
		r->chain.iov = r->iov;
		r->chain.area = r->area;
		r->chain.room = BLK_QUEUE_SIZE;
		r->dr.opaque = r;
	}
	return r;
}

static void request_put(struct blk_request *r)
{
	pthread_mutex_lock(&r->blk->free_lock);
	r->next = r->blk->free;
	r->blk->free = r;
	pthread_mutex_unlock(&r->blk->free_lock);
}

/* --- the way of a request --- */

static void on_done(struct disk_request *dr, int rc);

static uint8_t status_of(int rc)
{
	return rc == 0 ? STATUS_OK : rc == -EOPNOTSUPP ? STATUS_UNSUPP : STATUS_IOERR;
}

/* The queue's lock is held. */
static void finish(struct blk_request *r, uint8_t status)
{
	*r->status = status;
	virtqueue_push(r->q, &r->chain, r->chain.in_bytes);
	request_put(r);
}

/* The next request to the disk, or the end. 0 or -errno: over; DISK_LATER. rc: of the one before. */
static int step(struct blk_request *r, int rc)
{
	while (!rc) {
		if (r->at < r->ranges) {
			r->dr.offset = r->range[r->at].sector * DISK_SECTOR_BYTES;
			r->dr.bytes = (uint64_t)r->range[r->at].sectors * DISK_SECTOR_BYTES;
			r->at++;
		} else if (r->flush_after) {
			r->flush_after = false;
			r->dr.op = DISK_FLUSH;
			r->dr.offset = r->dr.bytes = 0;
			r->dr.iov_count = 0;
		} else {
			return 0;
		}
		rc = disk_submit(r->blk->disk, &r->dr);
	}
	return rc;
}

static void on_done(struct disk_request *dr, int rc)
{
	struct blk_request *r = dr->opaque;
	struct virtqueue *q = r->q;

	rc = step(r, rc);
	if (rc == DISK_LATER)
		return;
	virtqueue_lock(q);
	finish(r, status_of(rc));
	virtqueue_flush(q);
	virtqueue_unlock(q);
}

/* Must writes be stable when they are over? (VIRTIO 5.2.6.2) */
static bool writes_through(struct virtio_blk *b)
{
	if (virtio_has(&b->v, BLK_F_CONFIG_WCE))
		return !__atomic_load_n(&b->config.writeback, __ATOMIC_RELAXED);
	return !virtio_has(&b->v, BLK_F_FLUSH);
}

static int begin_rw(struct blk_request *r, enum disk_op op, uint64_t sector, struct iovec *iov,
		    unsigned count, uint64_t bytes)
{
	struct virtio_blk *b = r->blk;

	if (bytes % DISK_SECTOR_BYTES || sector > b->bytes / DISK_SECTOR_BYTES ||
	    bytes > b->bytes - sector * DISK_SECTOR_BYTES)
		return -EINVAL;
	r->dr.op = op;
	r->dr.offset = sector * DISK_SECTOR_BYTES;
	r->dr.bytes = bytes;
	r->dr.iov = iov;
	r->dr.iov_count = count;
	r->flush_after = op == DISK_WRITE && writes_through(b);
	int rc = disk_submit(b->disk, &r->dr);
	return rc ? rc : step(r, 0);
}

static int begin_ranges(struct blk_request *r, enum disk_op op, struct iovec *iov, unsigned count,
			uint64_t bytes)
{
	struct virtio_blk *b = r->blk;
	uint64_t capacity = b->bytes / DISK_SECTOR_BYTES;

	if (!bytes || bytes % sizeof(r->range[0]) || bytes / sizeof(r->range[0]) > BLK_RANGES)
		return -EINVAL;
	r->ranges = (unsigned)(bytes / sizeof(r->range[0]));
	virtio_iov_take(&iov, &count, r->range, bytes);
	for (unsigned i = 0; i < r->ranges; i++) {
		const struct blk_range *x = &r->range[i];
		/* VIRTIO 5.2.6.2: bit 0, unmap, is for writing zeroes only; others are unknown. */
		if (x->flags & (op == DISK_DISCARD ? ~0u : ~1u))
			return -EOPNOTSUPP;
		if (x->sectors > BLK_RANGE_SECTORS || x->sector > capacity ||
		    x->sectors > capacity - x->sector)
			return -EINVAL;
	}
	r->dr.op = op;
	r->flush_after = writes_through(b);
	return step(r, 0);
}

/* Begins a request: 0 or -errno if it is over, or DISK_LATER. */
static int begin(struct blk_request *r)
{
	struct virtio_chain *c = &r->chain;
	struct iovec *out = r->iov, *in = r->iov + c->out_count;
	unsigned outs = c->out_count, ins = c->in_count;
	struct blk_header h;

	r->flush_after = false;
	r->ranges = r->at = 0;
	r->dr.iov_count = 0;
	r->dr.done = on_done;
	if (!virtio_iov_take(&out, &outs, &h, sizeof(h)))
		return -EINVAL;
	if (!in[ins - 1].iov_len)
		ins--; /* the status had a buffer of its own */
	switch (h.type & ~(uint32_t)REQ_BARRIER) {
	case REQ_IN:
		return begin_rw(r, DISK_READ, h.sector, in, ins, c->in_bytes - 1);
	case REQ_OUT:
		return begin_rw(r, DISK_WRITE, h.sector, out, outs, c->out_bytes - sizeof(h));
	case REQ_FLUSH:
		r->flush_after = true;
		return step(r, 0);
	case REQ_GET_ID:
		virtio_iov_fill(in, ins, r->blk->serial, ID_BYTES);
		return 0;
	case REQ_DISCARD:
		return begin_ranges(r, DISK_DISCARD, out, outs, c->out_bytes - sizeof(h));
	case REQ_WRITE_ZEROES:
		return begin_ranges(r, DISK_WRITE_ZEROES, out, outs, c->out_bytes - sizeof(h));
	}
	return -EOPNOTSUPP;
}

/* 1: a chain was taken; 0: there is none; -errno. The queue's lock is held. */
static int take(struct virtio_blk *b, struct virtqueue *q)
{
	struct blk_request *r = request_get(b);
	struct virtio_chain *c;
	struct iovec *last;
	int rc;

	if (!r)
		return -ENOMEM;
	r->q = q;
	c = &r->chain;
	rc = virtqueue_pop(q, c);
	if (rc <= 0) {
		request_put(r);
		return rc;
	}
	if (!c->in_count) {
		virtio_break(&b->v, "a request has no place for its status");
		virtqueue_push(q, c, 0);
		request_put(r);
		return -EIO;
	}
	last = &r->iov[c->out_count + c->in_count - 1];
	r->status = (uint8_t *)last->iov_base + --last->iov_len;
	rc = begin(r);
	if (rc != DISK_LATER)
		finish(r, status_of(rc));
	return 1;
}

static void on_notify(void *dev, struct virtqueue *q)
{
	struct virtio_blk *b = dev;
	unsigned taken = 0;
	int rc = 1;

	do {
		virtqueue_set_notify(q, false);
		while (taken < BLK_BATCH && (rc = take(b, q)) > 0)
			taken++;
		virtqueue_flush(q);
		/* Another vCPU may feed the queue for ever; this one has other things to do. */
		if (taken >= BLK_BATCH || rc == -ENOMEM) {
			virtqueue_notify_later(q);
			return;
		}
	} while (rc >= 0 && virtqueue_set_notify(q, true));
}

/* --- configuration --- */

static void on_config_write(void *dev, unsigned offset, unsigned size, uint64_t value)
{
	struct virtio_blk *b = dev;

	if (offset == offsetof(struct blk_config, writeback) && size == 1 && value <= 1 &&
	    virtio_has(&b->v, BLK_F_CONFIG_WCE))
		__atomic_store_n(&b->config.writeback, (uint8_t)value, __ATOMIC_RELAXED);
}

static void on_reset(void *dev)
{
	struct virtio_blk *b = dev;

	__atomic_store_n(&b->config.writeback, 1, __ATOMIC_RELAXED);
}

static const struct virtio_ops blk_virtio_ops = {
	.notify = on_notify,
	.config_write = on_config_write,
	.reset = on_reset,
};

/* A geometry for old drivers, as large as the disk or as large as one can be. */
static void fill_geometry(struct blk_config *c)
{
	uint64_t cylinders;

	c->heads = 16;
	c->sectors = 63;
	cylinders = c->capacity / (16 * 63);
	c->cylinders = cylinders > 16383 ? 16383 : (uint16_t)cylinders;
}

static void fill_config(struct virtio_blk *b, const struct disk_info *info, unsigned queues)
{
	struct blk_config *c = &b->config;
	uint32_t granule = info->granule_bytes / DISK_SECTOR_BYTES;

	*c = (struct blk_config){
		.capacity = info->bytes / DISK_SECTOR_BYTES,
		.seg_max = BLK_SEGMENTS,
		.blk_size = DISK_SECTOR_BYTES,
		.physical_block_exp = 3, /* hosts like 4 KiB */
		.min_io_size = 8,
		.writeback = 1,
		.num_queues = (uint16_t)queues,
		.max_discard_sectors = BLK_RANGE_SECTORS,
		.max_discard_seg = BLK_RANGES,
		.discard_sector_alignment = granule > 8 ? granule : 8,
		.max_write_zeroes_sectors = BLK_RANGE_SECTORS,
		.max_write_zeroes_seg = BLK_RANGES,
		.write_zeroes_may_unmap = 1,
	};
	fill_geometry(c);
}

/* --- life --- */

static void drain(struct virtio_blk *b)
{
	if (b->disk)
		disk_drain(b->disk);
}

static void blk_reset(void *dev)
{
	struct virtio_blk *b = dev;

	drain(b);
	virtio_reset(&b->v);
}

static void blk_state(void *dev, struct state_stream *s)
{
	struct virtio_blk *b = dev;
	uint64_t bytes = b->bytes;
	struct blk_config own = b->config;

	drain(b);
	virtio_state_begin(&b->v, s, 1);
	state_u64(s, &bytes);
	if (bytes != b->bytes)
		state_fail(s, "virtio-blk: saved with a disk of %llu bytes, this one has %llu",
			   (unsigned long long)bytes, (unsigned long long)b->bytes);
	/* Only one byte of the configuration is the guest's. */
	own.writeback = b->config.writeback == 1;
	b->config = own;
	virtio_state_end(&b->v, s);
}

static void blk_destroy(void *dev)
{
	struct virtio_blk *b = dev;

	drain(b);
	virtio_destroy(&b->v);
	while (b->free) {
		struct blk_request *r = b->free;
		b->free = r->next;
		free(r);
	}
	pthread_mutex_destroy(&b->free_lock);
	free(b);
}

static int blk_create(void **out, const struct storage_config *cfg, struct error *err)
{
	unsigned queues = cfg->cpus < BLK_QUEUES_MAX ? cfg->cpus : BLK_QUEUES_MAX;
	struct disk_info info;
	struct virtio_blk *b;
	int rc;

	*out = NULL;
	if (cfg->unit_count != 1)
		return error_set(err, -EINVAL, "virtio-blk: it has one disk, not %u",
				 cfg->unit_count);
	b = calloc(1, sizeof(*b));
	if (!b)
		return error_set(err, -ENOMEM, "virtio-blk: out of memory");
	pthread_mutex_init(&b->free_lock, NULL);
	b->disk = cfg->units[0].disk;
	disk_get_info(b->disk, &info);
	b->bytes = info.bytes;
	memcpy(b->serial, cfg->units[0].serial, strnlen(cfg->units[0].serial, ID_BYTES));
	fill_config(b, &info, queues);
	const struct virtio_config vcfg = {
		.name = "virtio-blk",
		.type = TYPE_BLOCK,
		.transitional_id = TRANSITIONAL_ID,
		.class_code = CLASS_STORAGE_OTHER,
		.features = BLK_F_SEG_MAX | BLK_F_GEOMETRY | BLK_F_BLK_SIZE | BLK_F_FLUSH |
			    BLK_F_TOPOLOGY | BLK_F_CONFIG_WCE | BLK_F_MQ |
			    (info.read_only ? BLK_F_RO : BLK_F_DISCARD | BLK_F_WRITE_ZEROES),
		.queues = queues,
		.queue_size = BLK_QUEUE_SIZE,
		.config = (uint8_t *)&b->config,
		.config_bytes = sizeof(b->config),
		.ops = &blk_virtio_ops,
		.dev = b,
		.pci = cfg->pci,
		.slot = cfg->slot,
		.index = cfg->index,
		.mem = cfg->mem,
		.loop = cfg->loop,
	};
	rc = virtio_create(&b->v, &vcfg, err);
	if (rc) {
		blk_destroy(b);
		return rc;
	}
	*out = b;
	return 0;
}

const struct storage_kind virtio_blk_kind = {
	.name = "virtio-blk",
	.vmx_name = "virtio-blk",
	.units = 1,
	.ops = {.name = "virtio-blk",
		.reset = blk_reset,
		.state = blk_state,
		.destroy = blk_destroy},
	.create = blk_create,
};
