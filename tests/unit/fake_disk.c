/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pins.h"

void fake_disk_init(struct disk *d, uint64_t bytes)
{
	memset(d, 0, sizeof(*d));
	d->bytes = calloc(1, bytes);
	if (!d->bytes)
		abort();
	d->info = (struct disk_info){.bytes = bytes,
				     .format = "raw",
				     .type = "",
				     .chain = 1,
				     .granule_bytes = DISK_SECTOR_BYTES};
}

void fake_disk_free(struct disk *d)
{
	free(d->bytes);
	d->bytes = NULL;
}

static void copy(struct disk *d, struct disk_request *r)
{
	uint64_t at = r->offset, end = r->offset + r->bytes;

	for (unsigned i = 0; i < r->iov_count && at < end; i++) {
		uint64_t n = r->iov[i].iov_len;
		if (n > end - at)
			abort(); /* the contract: their sum is `bytes` */
		if (d->mem && !is_held(d->mem, r->iov[i].iov_base, n))
			abort(); /* the page may have gone */
		if (r->op == DISK_READ)
			memcpy(r->iov[i].iov_base, d->bytes + at, n);
		else
			memcpy(d->bytes + at, r->iov[i].iov_base, n);
		at += n;
	}
	if (at != end)
		abort();
}

static int happen(struct disk *d, struct disk_request *r)
{
	if (d->error[r->op])
		return d->error[r->op];
	if (r->op == DISK_READ || r->op == DISK_WRITE)
		copy(d, r);
	else if (r->op == DISK_WRITE_ZEROES)
		memset(d->bytes + r->offset, 0, r->bytes);
	else if (r->op == DISK_DISCARD)
		memset(d->bytes + r->offset, 0xdd, r->bytes);
	return 0;
}

int disk_submit(struct disk *d, struct disk_request *r)
{
	d->count[r->op]++;
	d->last_offset = r->offset;
	d->last_bytes = r->bytes;
	if ((r->offset | r->bytes) % DISK_SECTOR_BYTES || r->offset > d->info.bytes ||
	    r->bytes > d->info.bytes - r->offset)
		return -EINVAL;
	if (!d->later || d->waiting_count == FAKE_DISK_WAITING_MAX)
		return happen(d, r);
	d->waiting[d->waiting_count++] = r;
	return DISK_LATER;
}

unsigned fake_disk_run(struct disk *d)
{
	unsigned n = d->waiting_count;
	struct disk_request *now[FAKE_DISK_WAITING_MAX];

	memcpy(now, d->waiting, sizeof(now));
	d->waiting_count = 0;
	for (unsigned i = 0; i < n; i++)
		now[i]->done(now[i], happen(d, now[i]));
	return n;
}

void disk_drain(struct disk *d)
{
	while (fake_disk_run(d))
		;
}

void disk_get_info(struct disk *d, struct disk_info *out)
{
	*out = d->info;
}

void disk_get_stats(struct disk *d, struct disk_stats *out)
{
	*out = (struct disk_stats){0};
	for (unsigned op = 0; op < DISK_OPS; op++)
		out->requests[op] = d->count[op];
}
