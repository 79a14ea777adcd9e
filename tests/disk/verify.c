/* SPDX-License-Identifier: Apache-2.0 */
/* Does what is in a rig's folder agree with what is known? */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/disk_tools.h"
#include "rig_internal.h"

struct verdict {
	char *line;
	size_t bytes;
};

static bool no(struct verdict *v, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(v->line, v->bytes, fmt, ap);
	va_end(ap);
	return false;
}

static bool sector_fits(struct sector *s, const void *buf, uint64_t at, bool settle)
{
	for (unsigned i = s->n; i-- > 0;)
		if (stamp_has(buf, at, s->stamp[i])) {
			if (settle) {
				s->stamp[0] = s->stamp[i];
				s->n = 1;
			}
			return true;
		}
	return false;
}

static char *read_all(struct disk *d, uint64_t sectors, int *rc)
{
	char *all = must(malloc(sectors * DISK_SECTOR_BYTES));

	*rc = disk_rw(d, DISK_READ, 0, all, sectors * DISK_SECTOR_BYTES);
	return all;
}

static bool all_instead(const struct model *m, const char *all)
{
	for (uint64_t i = 0; i < m->sectors; i++)
		if (!stamp_has(all + i * DISK_SECTOR_BYTES, i, m->instead[i]))
			return false;
	return true;
}

static bool disk_fits(struct disk *d, struct model *m, bool settle, struct verdict *v)
{
	struct disk_info info;
	bool fits = true;
	int rc;

	disk_get_info(d, &info);
	if (info.bytes != m->sectors * DISK_SECTOR_BYTES)
		return no(v, "the disk has %llu bytes", (unsigned long long)info.bytes);
	char *all = read_all(d, m->sectors, &rc);
	if (rc) {
		free(all);
		return no(v, "reading the disk: %s", strerror(-rc));
	}
	if (m->instead && all_instead(m, all)) {
		if (settle)
			model_set(m, m->instead);
		free(all);
		return true;
	}
	for (uint64_t i = 0; fits && i < m->sectors; i++)
		if (!sector_fits(&m->sector[i], all + i * DISK_SECTOR_BYTES, i, settle)) {
			uint64_t w;
			memcpy(&w, all + i * DISK_SECTOR_BYTES, 8);
			fits = no(
				v,
				"sector %llu begins with %016llx; flushed stamp %llu, newest %llu",
				(unsigned long long)i, (unsigned long long)w,
				(unsigned long long)m->sector[i].stamp[0],
				(unsigned long long)m->sector[i].stamp[m->sector[i].n - 1]);
		}
	if (settle && m->instead) {
		free(m->instead);
		m->instead = NULL;
	}
	free(all);
	return fits;
}

static bool snap_fits(const char *path, const struct snap *s, struct verdict *v)
{
	struct error err;
	struct disk *d;
	bool fits = true;
	int rc = disk_open(&d, path, &(struct disk_options){.read_only = true}, &err);

	if (rc)
		return no(v, "snapshot %u: %s", s->uid, err.text);
	char *all = read_all(d, s->sectors, &rc);
	if (rc)
		fits = no(v, "snapshot %u: %s", s->uid, strerror(-rc));
	for (uint64_t i = 0; fits && i < s->sectors; i++)
		if (!stamp_has(all + i * DISK_SECTOR_BYTES, i, s->stamp[i]))
			fits = no(v, "snapshot %u (%s): sector %llu is not as it was", s->uid, path,
				  (unsigned long long)i);
	free(all);
	disk_close(d);
	return fits;
}

/* Every image of the chain: no errors; leaks may be. */
static bool images_clean(const char *path, struct verdict *v)
{
	struct disk_check_options opt = {0};
	struct disk_check_result result;
	char *at = strdup(path), *parent;
	struct error err;
	bool clean = true;

	while (clean && at) {
		if (disk_check(at, &opt, &result, &err))
			clean = no(v, "check: %s", err.text);
		else if (result.errors)
			clean = no(v, "check: %s has %llu errors", at,
				   (unsigned long long)result.errors);
		if (clean && snapshot_parent(at, &parent, &err))
			clean = no(v, "parent: %s", err.text);
		if (!clean)
			parent = NULL;
		free(at);
		at = parent;
	}
	return clean;
}

static bool snapshots_fit(const struct rig *r, struct known *k, struct verdict *v)
{
	struct error err;
	struct vmsd tree;
	bool fits = true;

	if (vmsd_load(&tree, r->vmsd, &err))
		fits = no(v, "%s", err.text);
	for (unsigned i = 0; fits && i < tree.count; i++) {
		const struct snap *s = NULL;
		for (unsigned j = 0; j < k->snaps; j++)
			if (k->snap[j].uid == tree.snapshot[i].uid)
				s = &k->snap[j];
		if (!s || tree.snapshot[i].disks != 1) {
			fits = no(v, "snapshot %u was never taken", tree.snapshot[i].uid);
			break;
		}
		char *path = in_folder(r->folder, tree.snapshot[i].disk[0].file);
		fits = snap_fits(path, s, v);
		free(path);
	}
	vmsd_free(&tree);
	return fits;
}

bool rig_verify(const struct rig *r, struct known *k, bool settle, char *line, size_t bytes)
{
	struct verdict v = {line, bytes};
	char *path = in_folder(r->folder, r->disk.file);
	struct disk *d = r->open;
	struct error err;
	bool fits = true;

	if (!d && disk_open(&d, path, &(struct disk_options){0}, &err))
		fits = no(&v, "open: %s", err.text);
	if (fits)
		fits = disk_fits(d, &k->model, settle, &v);
	if (!r->open)
		disk_close(fits || d ? d : NULL);
	if (fits && !r->open)
		fits = images_clean(path, &v) && snapshots_fit(r, k, &v);
	free(path);
	return fits;
}
