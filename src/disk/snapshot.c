/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: theory of operation
 *
 * A snapshot freezes a disk by laying an empty delta over it: what is written from then on goes into
 * the delta, and what was never written there is read from below. Frozen images make a tree, whose
 * leaves are the disks that machines write to:
 *
 *	disk.vmdk <── disk-000001.vmdk <── disk-000003.vmdk	the machine's own
 *	 snapshot 1	snapshot 2     \── disk-000002.vmdk	snapshot 3, reverted from
 *
 * Each delta names its parent (parentFileNameHint) and the parent's content id as it was (parentCID):
 * an image that was written to behind its children's back is noticed when they are opened.
 *
 * Merging two images A <── B into one, either way, never makes B read otherwise:
 *	down	B's own grains are written into A, where B hides them from anybody who looks
 *		through B. Who looks at A alone sees a mixture, so no snapshot may be A by then. At the
 *		end A reads as B does, and whoever lay on B is laid on A.
 *	up	A's own grains are copied into B where B has none. At the end B needs A no more and is
 *		laid on A's parent.
 * Either can be stopped, or crash, and be done again from its start. A's content id stays as it is
 * meanwhile, as B has to stay openable.
 *
 * The order in which files change; "|" is a point at which all before it is durable (an fsync of the
 * file, of the folder for names, or file_replace, which does both):
 *
 *	take	deltas | .vmx | .vmsd |			between: deltas that nothing refers to; a machine
 *							that runs on deltas, but no snapshot is listed
 *	revert	deltas | .vmx | .vmsd | old deltas removed
 *	delete	.vmsd without the snapshot, needConsolidate set | then for each image that no snapshot
 *		needs and that one other image lies on:
 *		down	grains of B into A | those on B laid on A, one after another | .vmx, .vmsd: A
 *			where B was | B removed
 *		up	grains of A into B | B laid on A's parent | A removed
 *		.vmsd, needConsolidate gone |
 *
 * The .vmx goes before the .vmsd when a snapshot is taken, since a snapshot that is listed must have
 * nobody who still writes to its disk. It goes after .vmsd lost the snapshot when one is deleted, for
 * the same reason. A crash anywhere leaves a machine whose .vmx names disks that open and hold what
 * was flushed; snapshot_consolidate takes up what was left.
 *
 * A machine that runs has the top of its chain open. It takes a snapshot in the same order; the old top's
 * content id settles first, so that the delta can note it while the guest goes on to write there
 * (snapshot_take.c). Until the exchange, a crash leaves a .vmx that names a delta with nothing in it.
 * Deletes, too: snapshot_merge.c tells how. What is merged while the disk is held goes "down", with the
 * .vmx replaced before the guest writes again.
 */
#include "disk/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/snapshot_internal.h"

/* A delta is of its parent's kind, as far as that kind has deltas. */
const char *snapshot_delta_type(const char *parent_type)
{
	if (!strncasecmp(parent_type, "vmfs", 4))
		return "vmfsSparse";
	if (!strncasecmp(parent_type, "twoGb", 5))
		return "twoGbMaxExtentSparse";
	return "monolithicSparse";
}

int snapshot_create_bare(const char *path, const struct disk_create_options *opt, struct error *err)
{
	int rc = disk_create(path, opt, err);

	if (rc)
		return rc;
	rc = image_sync(path, err);
	if (rc)
		snapshot_remove_image(path, NULL);
	return rc;
}

int snapshot_create_delta(const char *path, const char *child_path, struct error *err)
{
	struct disk_create_options opt = {.format = "vmdk", .parent = path};
	struct disk_info info;
	struct disk *d;
	int rc = disk_open(&d, path, &(struct disk_options){.read_only = true}, err);

	if (rc)
		return rc;
	disk_get_info(d, &info);
	opt.type = snapshot_delta_type(info.type);
	disk_close(d);
	char *hint = path_hint(child_path, path);
	if (!hint)
		return error_set(err, -ENOMEM, "%s: out of memory", child_path);
	opt.parent_hint = hint;
	rc = snapshot_create_bare(child_path, &opt, err);
	free(hint);
	return rc;
}

/* The path at a depth of an open chain; NULL: there is none. */
static int chain_path(struct disk *d, unsigned depth, char **out)
{
	struct disk_link link;
	int rc = disk_chain(d, depth, &link);

	*out = NULL;
	if (rc == -ENOENT)
		return 0;
	if (!rc && !(*out = strdup(link.path)))
		rc = -ENOMEM;
	return rc;
}

static int ancestors(const char *path, unsigned depth, char **out, struct error *err)
{
	struct disk *d;
	int rc = disk_open(&d, path, &(struct disk_options){.read_only = true}, err);

	*out = NULL;
	if (rc)
		return rc;
	rc = chain_path(d, depth, out);
	disk_close(d);
	if (rc)
		error_set(err, rc, "%s: its chain cannot be read: %s", path, strerror(-rc));
	return rc;
}

int snapshot_parent(const char *path, char **parent, struct error *err)
{
	return ancestors(path, 1, parent, err);
}

static int no_parent(const char *path, struct error *err)
{
	return error_set(err, -EINVAL, "%s: it lies on no other image; there is nothing to merge",
			 path);
}

int snapshot_merge_down(const char *child, const struct snapshot_progress *progress,
			struct error *err)
{
	struct disk *from = NULL, *to = NULL;
	char *parent;
	int rc = snapshot_parent(child, &parent, err);

	if (rc)
		return rc;
	if (!parent)
		return no_parent(child, err);
	rc = disk_open(&to, parent, &(struct disk_options){.keep_cid = true}, err);
	if (!rc)
		rc = disk_open(&from, child,
			       &(struct disk_options){.read_only = true, .alone = true}, err);
	if (!rc)
		rc = snapshot_copy(from, to, NULL, 0, false, child, progress, err);
	disk_close(from);
	disk_close(to);
	free(parent);
	return rc;
}

/* The parent's own into d; below: the grandparent, NULL: there is none. */
static int take_in(struct disk *d, const char *child, const char *below,
		   const struct snapshot_progress *progress, struct error *err)
{
	struct disk *under = NULL;
	int rc = below ? disk_open(&under, below, &(struct disk_options){.read_only = true}, err)
		       : 0;

	if (!rc)
		rc = snapshot_copy(d, d, under, 1, false, child, progress, err);
	disk_close(under);
	return rc;
}

int snapshot_merge_up(const char *child, const struct snapshot_progress *progress,
		      struct error *err)
{
	char *parent = NULL, *grandparent = NULL, *hint = NULL;
	struct disk *d;
	int rc = disk_open(&d, child, &(struct disk_options){.keep_cid = true}, err);

	if (rc)
		return rc;
	rc = chain_path(d, 1, &parent);
	if (!rc)
		rc = chain_path(d, 2, &grandparent);
	if (rc)
		error_set(err, rc, "%s: its chain cannot be read: %s", child, strerror(-rc));
	else if (!parent)
		rc = no_parent(child, err);
	else
		rc = take_in(d, child, grandparent, progress, err);
	disk_close(d);
	if (!rc && grandparent && !(hint = path_hint(child, grandparent)))
		rc = error_set(err, -ENOMEM, "%s: out of memory", child);
	if (!rc)
		rc = disk_set_parent(child, grandparent, hint, err);
	free(parent);
	free(grandparent);
	free(hint);
	return rc;
}

/* ---- a whole chain ---- */

static int chain_paths(const char *path, struct path_list *out, struct error *err)
{
	struct disk *d;
	char *p;
	int rc = disk_open(&d, path, &(struct disk_options){.read_only = true}, err);

	*out = (struct path_list){0};
	if (rc)
		return rc;
	for (unsigned depth = 0; !(rc = chain_path(d, depth, &p)) && p && !rc; depth++)
		rc = path_list_take(out, p);
	disk_close(d);
	if (rc)
		error_set(err, rc, "%s: its chain cannot be read: %s", path, strerror(-rc));
	return rc;
}

/* From below, so that each grain is copied once: the lowest delta goes into the base, and the next one
 * is laid on the base. */
static int flatten(const struct path_list *chain, const struct snapshot_progress *progress,
		   struct error *err)
{
	const char *base = chain->path[chain->count - 1];
	int rc = 0;

	for (unsigned i = chain->count - 1; !rc && i-- > 0;) {
		rc = snapshot_merge_down(chain->path[i], progress, err);
		if (rc || i == 0)
			break;
		char *hint = path_hint(chain->path[i - 1], base);
		rc = hint ? disk_set_parent(chain->path[i - 1], base, hint, err) : -ENOMEM;
		free(hint);
		if (!rc)
			rc = snapshot_remove_image(chain->path[i], err);
	}
	return rc;
}

int snapshot_flatten(const char *path, char **base, const struct snapshot_progress *progress,
		     struct error *err)
{
	struct path_list chain;
	int rc = chain_paths(path, &chain, err);

	*base = NULL;
	if (!rc)
		rc = flatten(&chain, progress, err);
	if (!rc && !(*base = strdup(chain.path[chain.count - 1])))
		rc = error_set(err, -ENOMEM, "%s: out of memory", path);
	path_list_free(&chain);
	return rc;
}
