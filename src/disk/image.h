/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DISK_IMAGE_H
#define HANOK_DISK_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "disk/disk.h"
#include "disk/disk_tools.h"

/*
 * The seam between disk.c, which checks, counts and waits, and the image formats. disk.c has checked
 * a request before a format sees it: whole sectors, within the disk, not empty, its iov sums up,
 * no write to a read-only disk.
 */
struct image;
struct file;

enum { IMAGE_BLOCKS = 2 };

struct image_ops {
	const char *format;
	/*
	 * Starts a request without ever blocking on the host: 0, -errno, DISK_LATER (then
	 * disk_complete is called once, on the loop's thread), or IMAGE_BLOCKS: nothing was done, rw
	 * has to do it on a thread that may wait. At most IOV_MAX iovecs; only with a loop.
	 */
	int (*submit)(struct image *im, struct disk_request *r);
	/* Does a request, waiting for it. Any thread, several at once. iov: as in the request. */
	int (*rw)(struct image *im, enum disk_op op, uint64_t offset, uint64_t bytes,
		  const struct iovec *iov, unsigned iov_count);
	/* Fills in all but `removable`. */
	void (*info)(struct image *im, struct disk_info *out);
	/* As disk_map and disk_chain. */
	int (*map)(struct image *im, uint64_t offset, uint64_t bytes, struct disk_run *out);
	int (*chain)(struct image *im, unsigned depth, struct disk_link *out);
	/* These may be NULL. settle: before the first write at the latest, also called sooner: from then
	 * on the content id does not change. lend: gives up the locks on the parents' files, or takes
	 * them again, so that this process may change what shows through nothing of the image.
	 * write_back: all of memory to the files, without a flush. */
	int (*settle)(struct image *im);
	int (*lend)(struct image *im, bool lend, struct error *err);
	int (*write_back)(struct image *im);
	/* Waits for what is in flight, writes back, closes and frees, half-opened images too. */
	void (*close)(struct image *im);
};

struct image {
	const struct image_ops *ops;
	uint64_t bytes; /* of the virtual disk */
	bool read_only;
	struct file *poll_file; /* any of its files, to wait for their requests by */
};

/* The end of a request for which submit returned DISK_LATER. */
void disk_complete(struct disk_request *r, int rc);

/*
 * For live snapshots: disk_hold returns when no request is within the image; until disk_release those
 * that come wait. On the loop's thread, or while it does not run. Meanwhile disk_detach closes the
 * image (0 or -ENOMEM) and disk_attach opens another of the same size, or the same again, with the
 * disk's options; a disk that is released without an image gives -EIO. keep_cid: nobody but this run of
 * the machine has laid anything on the image, so its content id can stay.
 */
void disk_hold(struct disk *d);
void disk_release(struct disk *d);
/* Flushes wait on, until disk_release, on any thread: till what was exchanged is durable. */
void disk_release_all_but_flushes(struct disk *d);
/* What was exchanged did not become durable: every flush fails from now on. Any thread. */
void disk_lose(struct disk *d, int rc);
/* The image's `write_back`; errors are told, which disk_detach would only log. */
int disk_write_back_held(struct disk *d);
int disk_detach(struct disk *d);
int disk_attach(struct disk *d, const char *path, bool keep_cid, struct error *err);
/* The image's `settle` and `lend`. Any thread but while it is held. */
int disk_settle(struct disk *d);
int disk_lend_parents(struct disk *d, bool lend, struct error *err);
/* What is attached, or was last. Valid until the next disk_attach. */
const char *disk_path(const struct disk *d);

/* The image's word in a request. */
static inline void **image_priv(struct disk_request *r)
{
	return &r->priv[2];
}

int raw_open(struct image **out, const char *path, const struct disk_options *opt,
	     struct error *err);
int vmdk_open(struct image **out, const char *path, const struct disk_options *opt,
	      struct error *err);

/* As disk_set_parent, for a parent that is open for writing, and whose content id is known. path must
 * be an image that nothing lies on, and as large. */
int vmdk_set_parent_cid(const char *path, uint32_t cid, const char *hint, struct error *err);

#endif
