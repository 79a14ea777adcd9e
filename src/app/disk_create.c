/* SPDX-License-Identifier: Apache-2.0 */
/* hanok disk create, resize, convert, compact: what makes images and changes them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/disk.h"
#include "app/options.h"
#include "app/vm_verb.h"

enum { BLOCK_BYTES = 1 << 20 };

#define CREATE_OPTIONS_HELP                                                                        \
	"  --format raw|vmdk    default: by the name's ending\n"                                   \
	"  --type TYPE          of a VMDK: monolithicSparse (default), monolithicFlat,\n"          \
	"                       twoGbMaxExtentSparse, twoGbMaxExtentFlat, vmfs, vmfsSparse"
#define CREATE_OPTIONS_HELP_2                                                                      \
	"  --thick lazy|eager   flat and raw ones: take all space now; eager: write zeroes, too\n" \
	"  --grain SIZE         in what pieces a sparse one grows, 4K to 1M (64K)\n"               \
	"  --adapter NAME       for which controller: lsilogic (default), ide, buslogic, pvscsi\n"

/* ---- create ---- */

static const char create_help[] =
	"hanok disk create [OPTIONS] FILE SIZE: makes an image; SIZE in bytes, or with K, M, G or T.\n"
	"\n" CREATE_OPTIONS_HELP "\n"
	"  --parent FILE        a delta over that image, of its size\n" CREATE_OPTIONS_HELP_2;

static int create(const char *const *word, struct disk_create_options *opt, struct error *err)
{
	int rc = 0;

	if (word[1]) {
		rc = parse_size("SIZE", word[1], &opt->bytes, err);
		if (!rc && (!opt->bytes || opt->bytes % DISK_SECTOR_BYTES))
			rc = error_set(err, -EINVAL, "SIZE %s: it is a multiple of %d bytes",
				       word[1], DISK_SECTOR_BYTES);
	} else if (!opt->parent) {
		rc = error_set(err, -EINVAL, "%s: how large? `hanok disk create %s 20G`", word[0],
			       word[0]);
	}
	if (rc)
		return rc;
	if (opt->parent && (rc = disk_refuse_foreign(opt->parent, err)))
		return rc;
	return disk_create(word[0], opt, err);
}

int disk_verb_create(int argc, char **argv)
{
	static const struct option options[] = {
		DISK_CREATE_OPTIONS,
		{"parent", required_argument, NULL, OPTION_PARENT},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct disk_create_options opt = {0};
	const char *word[2] = {NULL};
	const struct verb_words words = {
		.operands = word,
		.min = 1,
		.max = 2,
		.what = "which file? `hanok disk create NAME.vmdk 20G`",
		.flag = disk_create_option,
		.opaque = &opt,
		.group = "disk",
	};
	struct error err;

	int rc = verb_begin(argc, argv, options, &words, create_help);
	if (rc >= 0)
		return rc;
	rc = create(word, &opt, &err);
	return rc ? fail(rc == -EINVAL ? STATUS_USAGE : STATUS_FAILED, "%s", err.text) : STATUS_OK;
}

/* ---- convert ---- */

static const char convert_help[] =
	"hanok disk convert [OPTIONS] SOURCE TARGET: copies an image with all it lies on into a new one\n"
	"that lies on nothing. Blocks of zeroes take no space in it, unless it is thick.\n"
	"\n" CREATE_OPTIONS_HELP ",\n"
	"                       streamOptimized: compressed, read-only, to send\n" CREATE_OPTIONS_HELP_2;

static int convert(const char *const *word, const struct disk_create_options *opt,
		   struct error *err)
{
	struct disk_progress p;
	int rc = disk_refuse_foreign(word[0], err);

	if (rc)
		return rc;
	disk_progress_begin(&p, word[1]);
	rc = snapshot_clone(word[0], word[1], opt, &p.progress, err);
	disk_progress_end(&p);
	return rc;
}

int disk_verb_convert(int argc, char **argv)
{
	static const struct option options[] = {
		DISK_CREATE_OPTIONS,
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct disk_create_options opt = {0};
	const char *word[2];
	const struct verb_words words = {
		.operands = word,
		.min = 2,
		.max = 2,
		.what = "from what to what? `hanok disk convert SOURCE TARGET`",
		.flag = disk_create_option,
		.opaque = &opt,
		.group = "disk",
	};
	struct error err;

	int rc = verb_begin(argc, argv, options, &words, convert_help);
	if (rc >= 0)
		return rc;
	rc = convert(word, &opt, &err);
	return rc ? fail(STATUS_FAILED, "%s", err.text) : STATUS_OK;
}

/* ---- resize ---- */

static const char resize_help[] =
	"hanok disk resize FILE SIZE: changes the size of a disk that lies on no other and has no\n"
	"snapshots. +SIZE: by so much more. What is on the disk (partitions, file systems) stays as it\n"
	"is: the guest makes use of new room, or has to have given up what is cut off.\n"
	"\n"
	"  --shrink             let SIZE be less: what lies behind it is lost\n";

static int resize(const char *path, const char *text, bool shrink, struct error *err)
{
	struct disk_info info;
	struct disk *d;
	uint64_t bytes;
	int rc = parse_size("SIZE", text + (*text == '+'), &bytes, err);

	if (rc)
		return rc;
	rc = disk_open_image(&d, path, &(struct disk_options){.read_only = true}, err);
	if (rc)
		return rc;
	disk_get_info(d, &info);
	disk_close(d);
	if (*text == '+' && __builtin_add_overflow(bytes, info.bytes, &bytes))
		return error_set(err, -EINVAL, "SIZE %s: that is too much", text);
	rc = disk_resize(path, bytes, shrink, err);
	if (!rc)
		printf("%s: %s, was %s\n", path, disk_size_text(bytes), disk_size_text(info.bytes));
	return rc;
}

int disk_verb_resize(int argc, char **argv)
{
	static const struct option options[] = {
		{"shrink", no_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	bool shrink = false;
	const char *word[2];
	const struct verb_words words = {
		.operands = word,
		.min = 2,
		.max = 2,
		.what = "which file, to what size? `hanok disk resize FILE +10G`",
		.flag = verb_set_true,
		.opaque = &shrink,
		.group = "disk",
	};
	struct error err;

	int rc = verb_begin(argc, argv, options, &words, resize_help);
	if (rc >= 0)
		return rc;
	rc = resize(word[0], word[1], shrink, &err);
	return rc ? fail(STATUS_FAILED, "%s", err.text) : STATUS_OK;
}

/* ---- compact ---- */

static const char compact_help[] =
	"hanok disk compact FILE: gives blocks that hold nothing but zeroes back to the host. What the\n"
	"disk holds stays the same, also for deltas that lie on it. Let the guest write zeroes over its\n"
	"free space before (or let it run fstrim, and this is not needed).\n";

static bool is_zero(const char *p, uint64_t n)
{
	return n && !p[0] && !memcmp(p, p + 1, n - 1);
}

/* The zeroes of one piece, in whole granules. */
static int compact_piece(struct disk *d, char *buf, uint64_t at, uint64_t bytes, uint64_t granule)
{
	int rc = disk_rw(d, DISK_READ, at, buf, bytes);

	for (uint64_t from = 0, n; !rc && from < bytes; from += n) {
		n = granule - (at + from) % granule;
		if (n > bytes - from)
			n = bytes - from;
		if (is_zero(buf + from, n))
			rc = disk_rw(d, DISK_WRITE_ZEROES, at + from, NULL, n);
	}
	return rc;
}

static int compact_disk(struct disk *d, const char *path, struct disk_progress *p,
			struct error *err)
{
	struct disk_info info;
	struct disk_run run;
	char *buf = malloc(BLOCK_BYTES);
	int rc = buf ? 0 : -ENOMEM;

	disk_get_info(d, &info);
	uint64_t granule = info.granule_bytes > 4096 ? info.granule_bytes : 4096;
	for (uint64_t at = 0, n; !rc && at < info.bytes; at += n) {
		n = 0;
		if (p->progress.fn(p, at, info.bytes))
			rc = -ECANCELED;
		else
			rc = disk_map(d, at, info.bytes - at, &run);
		if (rc)
			break;
		n = run.bytes;
		if (run.kind != DISK_RUN_DATA || run.depth)
			continue;
		if (n > BLOCK_BYTES)
			n = BLOCK_BYTES;
		rc = compact_piece(d, buf, at, n, granule);
	}
	free(buf);
	if (!rc)
		rc = disk_flush(d);
	if (rc)
		error_set(err, rc, "%s: %s", path,
			  rc == -ECANCELED ? "stopped; it is as sound as before" : strerror(-rc));
	return rc;
}

static uint64_t host_bytes(const char *path)
{
	struct disk_link link = {0};
	struct disk *d;

	if (disk_open(&d, path, &(struct disk_options){.read_only = true}, NULL))
		return 0;
	disk_chain(d, 0, &link);
	disk_close(d);
	return link.host_bytes;
}

static int compact(const char *path, struct error *err)
{
	struct disk_progress p;
	uint64_t before;
	struct disk *d;
	int rc;

	before = host_bytes(path);
	rc = disk_open_image(&d, path, &(struct disk_options){.keep_cid = true}, err);
	if (rc)
		return rc;
	disk_progress_begin(&p, path);
	rc = compact_disk(d, path, &p, err);
	disk_progress_end(&p);
	disk_close(d);
	if (!rc)
		printf("%s: takes %s, took %s\n", path, disk_size_text(host_bytes(path)),
		       disk_size_text(before));
	return rc;
}

int disk_verb_compact(int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
	const char *path;
	const struct verb_words words = {
		.operands = &path,
		.min = 1,
		.max = 1,
		.what = "which file? `hanok disk compact FILE`",
		.group = "disk",
	};
	struct error err;

	int rc = verb_begin(argc, argv, options, &words, compact_help);
	if (rc >= 0)
		return rc;
	rc = compact(path, &err);
	return rc ? fail(STATUS_FAILED, "%s", err.text) : STATUS_OK;
}
