/* SPDX-License-Identifier: Apache-2.0 */
#include "rig_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/disk_tools.h"
#include "disk/file.h"

enum { STEP_SECTORS = 300 };

void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

uint32_t pick(uint32_t *seed, uint32_t n)
{
	/* xorshift32 */
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return (uint32_t)((uint64_t)*seed * n >> 32);
}

void *must(void *p)
{
	if (!p)
		die("out of memory");
	return p;
}

char *in_folder(const char *folder, const char *name)
{
	char *p;

	if (asprintf(&p, "%s/%s", folder, name) < 0)
		die("out of memory");
	return p;
}

/* ---- the machine ---- */

static int save(struct snapshot_machine *m, struct error *err)
{
	struct rig *r = m->opaque;

	return file_replace(r->vmx, r->disk.file, strlen(r->disk.file), err);
}

bool rig_load(struct rig *r, struct error *err)
{
	uint64_t bytes;

	free(r->disk.file);
	r->disk.file = NULL;
	return !file_load(r->vmx, 4096, &r->disk.file, &bytes, err);
}

static void tell(struct rig *r, struct rig_event e)
{
	known_apply(&r->known, &e);
	if (r->told)
		r->told(r, &e);
}

void rig_create(struct rig *r, const char *folder, const struct disk_create_options *opt,
		uint32_t seed)
{
	struct error err;
	char *path;

	snprintf(r->folder, sizeof(r->folder), "%s", folder);
	r->vmx = in_folder(folder, "m.vmx");
	r->vmsd = in_folder(folder, "m.vmsd");
	r->disk = (struct snapshot_disk){.node = "scsi0:0", .file = strdup("disk.vmdk")};
	r->m = (struct snapshot_machine){.folder = r->folder,
					 .vmsd_path = r->vmsd,
					 .disks = 1,
					 .disk = &r->disk,
					 .save = save,
					 .opaque = r};
	r->create = *opt;
	r->seed = seed ? seed : 1;
	r->known = (struct known){0};
	model_resize(&r->known.model, opt->bytes / DISK_SECTOR_BYTES);
	path = in_folder(folder, r->disk.file);
	if (disk_create(path, opt, &err))
		die("%s", err.text);
	free(path);
	if (save(&r->m, &err) || file_sync_folder(r->vmx))
		die("%s", err.text);
}

void rig_close(struct rig *r)
{
	disk_close(r->open);
	r->open = r->disk.open = NULL;
}

void rig_destroy(struct rig *r)
{
	rig_close(r);
	free(r->vmx);
	free(r->vmsd);
	free(r->disk.file);
	known_free(&r->known);
}

static bool failed(struct rig *r, const char *what, const struct error *err)
{
	if (!r->crashes)
		die("%s: %s (folder %s)", what, err->text, r->folder);
	return false;
}

static bool power_on(struct rig *r)
{
	struct error err;
	char *path;
	int rc;

	if (r->open)
		return true;
	path = in_folder(r->folder, r->disk.file);
	rc = disk_open(&r->open, path, &(struct disk_options){0}, &err);
	free(path);
	r->disk.open = r->open;
	return rc ? failed(r, "open", &err) : true;
}

static bool request(struct rig *r, enum disk_op op, uint64_t sector, uint64_t n, void *buf)
{
	struct error err;
	int rc = disk_rw(r->open, op, sector * DISK_SECTOR_BYTES, buf, n * DISK_SECTOR_BYTES);

	if (!rc)
		return true;
	snprintf(err.text, sizeof(err.text), "op %d: %s", op, strerror(-rc));
	return failed(r, "request", &err);
}

static bool do_flush(struct rig *r)
{
	if (!request(r, DISK_FLUSH, 0, 0, NULL))
		return false;
	tell(r, (struct rig_event){.change = RIG_FLUSHED});
	return true;
}

/* Mostly small, mostly in few places, so that grains are shared and overwritten. */
static void choose(struct rig *r, uint64_t *sector, uint64_t *n)
{
	uint64_t sectors = r->known.model.sectors;

	*n = 1 + pick(&r->seed, pick(&r->seed, 4) ? 16 : STEP_SECTORS);
	if (*n > sectors)
		*n = sectors;
	*sector = pick(&r->seed, (uint32_t)(sectors - *n + 1));
	if (pick(&r->seed, 2))
		*sector = *sector / 8 * 8;
}

/* A sector is not to have more than one unflushed write too many. */
static bool flush_if_full(struct rig *r, uint64_t sector, uint64_t n)
{
	for (uint64_t i = sector; i < sector + n; i++)
		if (r->known.model.sector[i].n > SINCE_MAX - 3)
			return do_flush(r);
	return true;
}

static bool nearly_full(const struct rig *r)
{
	for (uint64_t i = 0; i < r->known.model.sectors; i++)
		if (r->known.model.sector[i].n > SINCE_MAX - 6)
			return true;
	return false;
}

static bool do_write(struct rig *r, enum disk_op op)
{
	static char buf[STEP_SECTORS * DISK_SECTOR_BYTES];
	uint64_t sector, n, stamp = op == DISK_WRITE ? ++r->stamps : 0;

	choose(r, &sector, &n);
	if (!flush_if_full(r, sector, n))
		return false;
	/* Told before: from the first byte on it may be there. */
	tell(r, (struct rig_event){.change = op == DISK_DISCARD ? RIG_DISCARD : RIG_WRITE,
				   .sector = sector,
				   .n = n,
				   .stamp = stamp});
	for (uint64_t i = 0; op == DISK_WRITE && i < n; i++)
		stamp_fill(buf + i * DISK_SECTOR_BYTES, sector + i, stamp);
	if (!request(r, op, sector, n, op == DISK_WRITE ? buf : NULL))
		return false;
	if (op != DISK_DISCARD)
		return true;
	/* Which of the two is known only to the disk; now it is told which is newest. */
	if (!request(r, DISK_READ, sector, n, buf))
		return false;
	for (uint64_t i = 0; i < n; i++) {
		struct sector *s = &r->known.model.sector[sector + i];
		uint64_t old = s->stamp[s->n - 1];
		if (stamp_has(buf + i * DISK_SECTOR_BYTES, sector + i, old))
			continue;
		if (!stamp_has(buf + i * DISK_SECTOR_BYTES, sector + i, 0))
			die("a discarded sector %llu is neither old nor zero (folder %s)",
			    (unsigned long long)(sector + i), r->folder);
		tell(r, (struct rig_event){.change = RIG_WRITE, .sector = sector + i, .n = 1});
	}
	return true;
}

static bool do_read(struct rig *r)
{
	static char buf[STEP_SECTORS * DISK_SECTOR_BYTES];
	uint64_t sector, n;

	choose(r, &sector, &n);
	if (!request(r, DISK_READ, sector, n, buf))
		return false;
	for (uint64_t i = 0; i < n; i++) {
		const struct sector *s = &r->known.model.sector[sector + i];
		if (!stamp_has(buf + i * DISK_SECTOR_BYTES, sector + i, s->stamp[s->n - 1]))
			die("sector %llu does not read as it was written (folder %s)",
			    (unsigned long long)(sector + i), r->folder);
	}
	return true;
}

/* ---- snapshots ---- */

/* A few requests, if it is on. flushes: they may be among them. */
static bool go_on(struct rig *r, bool flushes)
{
	for (unsigned n = r->open ? pick(&r->seed, 4) : 0; n; n--) {
		unsigned what = pick(&r->seed, 10);
		/* A write flushes first where there is much that was not. */
		if (what < 6 && (flushes || !nearly_full(r))) {
			if (!do_write(r, what < 4 ? DISK_WRITE : DISK_WRITE_ZEROES))
				return false;
		} else if (what < 7 && flushes) {
			if (!do_flush(r))
				return false;
		} else if (!do_read(r)) {
			return false;
		}
	}
	return true;
}

/* A guest that does not care about the merge, nor is it too fast for that, mostly. */
static int meanwhile(void *opaque, uint64_t done, uint64_t total)
{
	struct rig *r = opaque;

	(void)done, (void)total;
	return pick(&r->seed, 8) == 0 && !go_on(r, true);
}

/* rc of a merge: 0; or it was too fast. */
static bool merged(struct rig *r, int rc, const char *what, const struct error *err)
{
	return !rc || (rc == -EBUSY && r->open) || failed(r, what, err);
}

static bool tree_of(struct rig *r, struct vmsd *v)
{
	struct error err;

	if (!vmsd_load(v, r->vmsd, &err))
		return true;
	vmsd_free(v);
	return failed(r, "vmsd", &err);
}

static bool do_take(struct rig *r)
{
	struct snapshot_take *t;
	struct error err;
	struct vmsd tree;
	uint32_t uid;
	int rc;

	if (!tree_of(r, &tree))
		return false;
	unsigned count = tree.count;
	uid = tree.last_uid + 1;
	vmsd_free(&tree);
	if (count >= 5)
		return true;
	/* With and without what was not flushed, on and off. */
	if (pick(&r->seed, 2))
		rig_close(r);
	rc = snapshot_take_prepare(&t, &r->m, "a snapshot", "", NULL, &err);
	if (rc)
		return failed(r, "prepare", &err);
	/* A machine that runs goes on, before and after. */
	if (!go_on(r, true)) {
		snapshot_take_abort(t);
		return false;
	}
	uint64_t *now = model_copy(&r->known.model);
	tell(r, (struct rig_event){.change = RIG_SNAP, .uid = uid, .content = now});
	rc = pick(&r->seed, 8) ? snapshot_take_exchange(t, &err) : (snapshot_take_abort(t), 1);
	if (rc) {
		free(now);
		return rc > 0 || failed(r, "exchange", &err);
	}
	bool went_on = go_on(r, false);
	rc = snapshot_take_list(t, &uid, &err);
	if (rc || !went_on) {
		free(now);
		return went_on && failed(r, "list", &err);
	}
	/* Taking one makes durable what there was. */
	tell(r, (struct rig_event){.change = RIG_KEPT, .content = now});
	free(now);
	return true;
}

static bool do_revert(struct rig *r)
{
	struct error err;
	struct vmsd tree;
	uint32_t uid = 0;

	if (!tree_of(r, &tree))
		return false;
	if (tree.count)
		uid = tree.snapshot[pick(&r->seed, tree.count)].uid;
	vmsd_free(&tree);
	if (!uid)
		return true;
	rig_close(r);
	for (unsigned i = 0; i < r->known.snaps; i++) {
		if (r->known.snap[i].uid != uid)
			continue;
		uint64_t *stamp = copy_stamps(r->known.snap[i].stamp, r->known.snap[i].sectors);
		tell(r, (struct rig_event){.change = RIG_INSTEAD, .content = stamp});
		bool done = !snapshot_revert(&r->m, uid, &err) || failed(r, "revert", &err);
		if (done)
			tell(r, (struct rig_event){.change = RIG_SET, .content = stamp});
		free(stamp);
		return done;
	}
	die("snapshot %u is listed, but was never taken (folder %s)", uid, r->folder);
}

/* A delete or consolidate, of a machine that is on with its last deltas large or small. */
static void on_or_off(struct rig *r)
{
	if (pick(&r->seed, 3) == 0)
		rig_close(r);
	r->m.held_bytes = pick(&r->seed, 3) * 60000;
}

static bool do_delete(struct rig *r)
{
	struct snapshot_progress progress = {.fn = meanwhile, .opaque = r};
	struct error err;
	struct vmsd tree;
	uint32_t uid = 0;

	if (!tree_of(r, &tree))
		return false;
	if (tree.count)
		uid = tree.snapshot[pick(&r->seed, tree.count)].uid;
	vmsd_free(&tree);
	if (!uid)
		return true;
	on_or_off(r);
	int rc = snapshot_delete(&r->m, uid, !pick(&r->seed, 4), &progress, &err);
	return merged(r, rc, "delete", &err);
}

static bool do_consolidate(struct rig *r)
{
	struct snapshot_progress progress = {.fn = meanwhile, .opaque = r};
	struct error err;

	on_or_off(r);
	return merged(r, snapshot_consolidate(&r->m, &progress, &err), "consolidate", &err);
}

static bool do_resize(struct rig *r)
{
	struct error err;
	struct vmsd tree;
	uint64_t sectors = r->known.model.sectors;

	if (!tree_of(r, &tree))
		return false;
	unsigned count = tree.count;
	vmsd_free(&tree);
	rig_close(r);
	if (count || !do_consolidate(r))
		return true;
	sectors = pick(&r->seed, 2) ? sectors + 8 * pick(&r->seed, 200)
				    : sectors - 8 * pick(&r->seed, (uint32_t)(sectors / 32));
	if (sectors > r->create.bytes / DISK_SECTOR_BYTES * 2)
		sectors = r->create.bytes / DISK_SECTOR_BYTES;
	char *path = in_folder(r->folder, r->disk.file);
	int rc = disk_resize(path, sectors * DISK_SECTOR_BYTES, true, &err);
	free(path);
	if (rc)
		return failed(r, "resize", &err);
	model_resize(&r->known.model, sectors);
	return true;
}

bool rig_step(struct rig *r)
{
	unsigned what = pick(&r->seed, r->snaps && pick(&r->seed, 3) == 0 ? 28 : 1000);

	if (what < 12)
		return do_take(r);
	if (what < 18)
		return do_revert(r);
	if (what < 26)
		return do_delete(r);
	if (what < 28)
		return do_consolidate(r);
	/* What a crash leaves of the sectors that were to go is nobody's business. */
	if (what < 32 && r->resizes && !r->crashes)
		return do_resize(r);
	if (what < 50) {
		rig_close(r);
		return true;
	}
	if (!power_on(r))
		return false;
	if (what < 450)
		return do_write(r, DISK_WRITE);
	if (what < 530)
		return do_write(r, DISK_WRITE_ZEROES);
	if (what < 600)
		return do_write(r, DISK_DISCARD);
	if (what < 700)
		return do_flush(r);
	return do_read(r);
}
