/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NVM commands (NVMe 6): read, write, flush, write zeroes, deallocate. Each becomes one request to
 * the disk after the other, on the thread that rang the doorbell as long as each is over at once,
 * then on the loop's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/nvme/nvme_internal.h"

enum { IO_FLUSH = 0x00, IO_WRITE = 0x01, IO_READ = 0x02, IO_WRITE_ZEROES = 0x08, IO_DSM = 0x09 };
enum { CDW12_FUA = 1 << 30, DSM_DEALLOCATE = 1 << 2 };

static struct nvme_request *request_get(struct nvme *n)
{
	struct nvme_request *r;

	pthread_mutex_lock(&n->free_lock);
	r = n->free;
	if (r)
		n->free = r->next;
	pthread_mutex_unlock(&n->free_lock);
	return r ? r : malloc(sizeof(*r));
}

static void request_put(struct nvme_request *r)
{
	struct nvme *n = r->n;

	pthread_mutex_lock(&n->free_lock);
	r->next = n->free;
	n->free = r;
	pthread_mutex_unlock(&n->free_lock);
}

void nvme_free_requests(struct nvme *n)
{
	while (n->free) {
		struct nvme_request *r = n->free;
		n->free = r->next;
		free(r);
	}
}

/* What a disk's error is to the driver. A host's full disk may have room at another time, but not
 * within the few times a driver tries again at once. */
static unsigned status_of(enum disk_op op, int rc)
{
	switch (rc) {
	case 0:
		return NVME_OK;
	case -ENOSPC:
		return NVME_CAPACITY | NVME_DO_NOT_RETRY;
	case -EROFS:
		return NVME_WRITE_PROTECTED | NVME_DO_NOT_RETRY;
	case -EOPNOTSUPP:
		return NVME_INVALID_OPCODE | NVME_DO_NOT_RETRY;
	}
	return (op == DISK_READ ? NVME_READ_ERROR : NVME_WRITE_FAULT) | NVME_DO_NOT_RETRY;
}

/* The next request to the disk, or the end. 0 or -errno: over; DISK_LATER. rc: of the one before. */
static int step(struct nvme_request *r, int rc)
{
	while (!rc) {
		if (r->at < r->ranges) {
			r->dr.offset = r->range[r->at].lba * NVME_LBA_BYTES;
			r->dr.bytes = (uint64_t)r->range[r->at].blocks * NVME_LBA_BYTES;
			r->at++;
		} else if (r->flush_after) {
			r->flush_after = false;
			r->dr.op = DISK_FLUSH;
			r->dr.offset = r->dr.bytes = 0;
			r->dr.iov_count = 0;
		} else {
			return 0;
		}
		rc = disk_submit(r->ns->disk, &r->dr);
	}
	return rc;
}

static void on_done(struct disk_request *dr, int rc)
{
	struct nvme_request *r = (struct nvme_request *)dr;
	struct nvme_sq *sq = r->sq;

	rc = step(r, rc);
	if (rc == DISK_LATER)
		return;
	nvme_unmap(r->n, &r->data); /* what a read has written, also one that failed halfway */
	pthread_mutex_lock(&sq->lock);
	if (r->generation != sq->generation) {
		atomic_fetch_sub(&r->n->stale, 1);
	} else {
		nvme_complete(sq, r->cq, r->cid, 0, status_of(dr->op, rc));
		nvme_sq_command_over(sq);
		nvme_cq_say(r->n, r->cq);
	}
	pthread_mutex_unlock(&sq->lock);
	request_put(r);
}

/* --- commands; r is filled as far as it is common to all. A status or NVME_LATER --- */

/* Submits, and says how it went if it is over. The last that is done with r, unless later. */
static unsigned submit(struct nvme_request *r, int rc)
{
	rc = step(r, rc);
	if (rc == DISK_LATER)
		return NVME_LATER;
	nvme_unmap(r->n, &r->data);
	return status_of(r->dr.op, rc);
}

static bool in_range(const struct nvme_namespace *ns, uint64_t lba, uint64_t blocks)
{
	return lba <= ns->blocks && blocks <= ns->blocks - lba;
}

static uint64_t slba(const struct nvme_command *c)
{
	return (uint64_t)c->cdw11 << 32 | c->cdw10;
}

/* Does a write have to be stable when it is over? */
static bool writes_through(const struct nvme *n, const struct nvme_command *c)
{
	return c->cdw12 & CDW12_FUA ||
	       !(__atomic_load_n(&n->feature[FEATURE_WRITE_CACHE], __ATOMIC_RELAXED) & 1);
}

static unsigned read_write(struct nvme_request *r, const struct nvme_command *c)
{
	uint64_t blocks = (c->cdw12 & 0xffff) + 1, bytes = blocks * NVME_LBA_BYTES;
	bool write = c->opcode == IO_WRITE;
	unsigned status;

	if (bytes > NVME_PAGE_BYTES << NVME_MDTS)
		return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
	if (!in_range(r->ns, slba(c), blocks))
		return NVME_LBA_RANGE | NVME_DO_NOT_RETRY;
	status = nvme_map(r->n, c->prp1, c->prp2, bytes, !write, &r->data);
	if (status)
		return status | NVME_DO_NOT_RETRY;
	r->dr.op = write ? DISK_WRITE : DISK_READ;
	r->dr.offset = slba(c) * NVME_LBA_BYTES;
	r->dr.bytes = bytes;
	r->dr.iov = r->data.iov;
	r->dr.iov_count = r->data.count;
	r->flush_after = write && writes_through(r->n, c);
	return submit(r, disk_submit(r->ns->disk, &r->dr));
}

static unsigned write_zeroes(struct nvme_request *r, const struct nvme_command *c)
{
	uint32_t blocks = (c->cdw12 & 0xffff) + 1;

	if (!in_range(r->ns, slba(c), blocks))
		return NVME_LBA_RANGE | NVME_DO_NOT_RETRY;
	r->dr.op = DISK_WRITE_ZEROES;
	r->range[0] = (struct nvme_range){.blocks = blocks, .lba = slba(c)};
	r->ranges = 1;
	r->flush_after = writes_through(r->n, c);
	return submit(r, 0);
}

/* NVMe 6.7: of the attributes only "deallocate" is more than a hint. */
static unsigned dataset_management(struct nvme_request *r, const struct nvme_command *c)
{
	unsigned count = (c->cdw10 & 0xff) + 1, status;

	if (!(c->cdw11 & DSM_DEALLOCATE))
		return NVME_OK;
	status = nvme_copy_in(r->n, c, r->range, count * sizeof(r->range[0]));
	if (status)
		return status | NVME_DO_NOT_RETRY;
	for (unsigned i = 0; i < count; i++)
		if (!in_range(r->ns, r->range[i].lba, r->range[i].blocks))
			return NVME_LBA_RANGE | NVME_DO_NOT_RETRY;
	r->dr.op = DISK_DISCARD;
	r->ranges = count;
	return submit(r, 0);
}

static unsigned begin(struct nvme_request *r, const struct nvme_command *c)
{
	if (c->opcode != IO_READ && c->opcode != IO_FLUSH && r->ns->read_only)
		return NVME_WRITE_PROTECTED | NVME_DO_NOT_RETRY;
	switch (c->opcode) {
	case IO_FLUSH:
		if (r->ns->read_only)
			return NVME_OK;
		r->flush_after = true;
		return submit(r, 0);
	case IO_READ:
	case IO_WRITE:
		return read_write(r, c);
	case IO_WRITE_ZEROES:
		return write_zeroes(r, c);
	case IO_DSM:
		return dataset_management(r, c);
	}
	return NVME_INVALID_OPCODE | NVME_DO_NOT_RETRY;
}

unsigned nvme_io(struct nvme_sq *sq, const struct nvme_command *c)
{
	struct nvme *n = sq->n;
	struct nvme_namespace *ns = nvme_namespace(n, c->nsid);
	struct nvme_request *r;
	unsigned status;

	if (!ns)
		return NVME_INVALID_NAMESPACE | NVME_DO_NOT_RETRY;
	r = request_get(n);
	if (!r)
		return NVME_INTERNAL;
	r->dr = (struct disk_request){.done = on_done};
	r->n = n;
	r->sq = sq;
	r->ns = ns;
	r->generation = sq->generation;
	r->cid = c->cid;
	r->cq = sq->cq;
	r->flush_after = r->data.write = false;
	r->ranges = r->at = r->data.count = 0;
	status = begin(r, c);
	if (status != NVME_LATER)
		request_put(r);
	return status;
}
