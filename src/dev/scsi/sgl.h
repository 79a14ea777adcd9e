/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_SCSI_SGL_H
#define HANOK_DEV_SCSI_SGL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "bus/dma.h"

/*
 * A scatter/gather list: pieces of guest memory that make up one buffer, checked as they are added,
 * and held from then until sgl_clear or sgl_free. A zeroed one is empty. No locks: the owner's
 * business.
 */
enum { SGL_PIECES_MAX = 1024 };
#define SGL_BYTES_MAX (UINT64_C(64) << 20)

struct scsi_sgl {
	struct iovec *iov;
	struct dma_area *area; /* of each piece, as it was added */
	unsigned count, room;
	uint64_t bytes;
	bool write;	 /* it is to be written to; set while it is empty */
	struct mem *mem; /* while it is not */
};

/* Appends guest memory. 0; -EFAULT: not RAM; -E2BIG: more pieces or bytes than there may be;
 * -ENOMEM. */
int sgl_add(struct scsi_sgl *s, struct mem *m, uint64_t gpa, uint64_t len);
/* Cuts it to at most bytes; no more is added then. */
void sgl_trim(struct scsi_sgl *s, uint64_t bytes);
/* Copies into it (nothing, unless it is to be written to) or out of it from its start: returns how many
 * bytes that were. */
uint64_t sgl_write(struct scsi_sgl *s, const void *data, uint64_t len);
uint64_t sgl_read(const struct scsi_sgl *s, uint64_t offset, void *data, uint64_t len);
/* All of it was written by a disk: tells mem. */
void sgl_written(const struct scsi_sgl *s);
/* Empties it, and keeps its arrays; frees them. */
void sgl_clear(struct scsi_sgl *s);
void sgl_free(struct scsi_sgl *s);

#endif
