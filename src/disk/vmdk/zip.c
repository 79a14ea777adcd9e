/* SPDX-License-Identifier: Apache-2.0 */
/* Grains of streamOptimized extents: a marker, then the grain as zlib data (RFC 1950). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/log.h"
#include "disk/vmdk/vmdk.h"

static int bad(const struct run *run, const char *why)
{
	log_error("disk %s: grain %llu %s", file_path(run->extent->file),
		  (unsigned long long)run->grain, why);
	return -EIO;
}

static int inflate_grain(const struct run *run, const uint8_t *in, uint32_t in_bytes, uint8_t *out)
{
	uLongf bytes = run->extent->layout.grain_bytes;
	int z = uncompress(out, &bytes, in, in_bytes);

	if (z == Z_MEM_ERROR)
		return -ENOMEM;
	if (z != Z_OK)
		return bad(run, "cannot be decompressed");
	/* The disk's last grain may be shorter. */
	memset(out + bytes, 0, run->extent->layout.grain_bytes - bytes);
	return 0;
}

/* With unzip_lock held. */
static int load_grain(const struct run *run, uint8_t *out)
{
	const struct extent *e = run->extent;
	struct sparse_marker m;
	uint8_t *in;
	int rc = file_pread(e->file, &m, MARKER_GRAIN_BYTES, run->file_offset);

	if (rc)
		return rc;
	if (m.value != run->grain * (e->layout.grain_bytes / SECTOR) || !m.size)
		return bad(run, "is not where its table says");
	if (m.size > compressBound(e->layout.grain_bytes) + SECTOR)
		return bad(run, "is damaged: it is longer than any grain");
	in = malloc(m.size);
	if (!in)
		return -ENOMEM;
	rc = file_pread(e->file, in, m.size, run->file_offset + MARKER_GRAIN_BYTES);
	if (!rc)
		rc = inflate_grain(run, in, m.size, out);
	free(in);
	return rc;
}

/* The grain last read is kept: smaller reads of one after another inflate it once. */
int vmdk_read_compressed(const struct run *run, uint64_t skip, struct iov_cursor *to)
{
	struct chain *c = run->image->chain;
	uint64_t grain_bytes = run->extent->layout.grain_bytes;
	int rc = 0;

	pthread_mutex_lock(&c->unzip_lock);
	if (c->unzipped_extent != run->extent || c->unzipped_grain != run->grain) {
		c->unzipped_extent = NULL;
		free(c->unzipped);
		c->unzipped = malloc(grain_bytes);
		rc = c->unzipped ? load_grain(run, c->unzipped) : -ENOMEM;
		if (!rc) {
			c->unzipped_extent = run->extent;
			c->unzipped_grain = run->grain;
		}
	}
	if (!rc)
		iov_copy(to, IOV_TO, c->unzipped + skip, run->bytes);
	pthread_mutex_unlock(&c->unzip_lock);
	return rc;
}
