/* SPDX-License-Identifier: Apache-2.0 */
/* hanok disk info, map, check: what looks at images. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/disk.h"
#include "app/options.h"
#include "app/vm_verb.h"

/* What the three of them take. */
struct asked {
	const char *path;
	bool json, repair;
};

static int set_option(void *opaque, int option, struct error *err)
{
	struct asked *a = opaque;

	(void)err;
	if (option == 'r')
		a->repair = true;
	else
		a->json = true;
	return 0;
}

/* As verb_begin. */
static int begin(int argc, char **argv, bool can_repair, const char *help, struct asked *out)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{"repair", no_argument, NULL, 'r'},
		{0},
	};
	static const struct option no_repair[] = {
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const struct verb_words words = {&out->path, 1, 1, "which file?", set_option, out, "disk"};

	*out = (struct asked){0};
	return verb_begin(argc, argv, can_repair ? options : no_repair, &words, help);
}

static int print_json(json_t *all)
{
	if (!all || json_dumpf(all, stdout, JSON_INDENT(2)) < 0) {
		json_decref(all);
		return fail(STATUS_FAILED, "disk --json: it could not be written");
	}
	putchar('\n');
	json_decref(all);
	return STATUS_OK;
}

/* ---- info ---- */

static const char info_help[] =
	"hanok disk info FILE: an image's size, the space that it takes, and the images it lies on.\n"
	"\n"
	"  --json               for programs\n";

static json_t *link_json(const struct disk_link *link)
{
	json_t *o = json_pack("{s:s, s:s, s:I}", "path", link->path, "type", link->type,
			      "host_bytes", (json_int_t)link->host_bytes);
	char cid[16];

	if (o && *link->type) {
		snprintf(cid, sizeof(cid), "%08x", link->cid);
		json_object_set_new(o, "cid", json_string(cid));
		snprintf(cid, sizeof(cid), "%08x", link->parent_cid);
		json_object_set_new(o, "parent_cid", json_string(cid));
	}
	if (o && link->parent_hint)
		json_object_set_new(o, "parent_hint", json_string(link->parent_hint));
	return o;
}

static int info_json(const char *path, struct disk *d, const struct disk_info *info)
{
	json_t *chain = json_array();
	struct disk_link link;

	for (unsigned i = 0; !disk_chain(d, i, &link); i++)
		json_array_append_new(chain, link_json(&link));
	return print_json(json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:o}", "path", path, "format",
				    info->format, "type", info->type, "bytes",
				    (json_int_t)info->bytes, "host_bytes",
				    (json_int_t)info->host_bytes, "granule_bytes",
				    (json_int_t)info->granule_bytes, "chain", chain));
}

static int info_text(const char *path, struct disk *d, const struct disk_info *info)
{
	struct disk_link link;

	printf("%s: %s%s%s\n", path, info->format, *info->type ? ", " : "", info->type);
	printf("  size   %s (%" PRIu64 " bytes)\n", disk_size_text(info->bytes), info->bytes);
	printf("  takes  %s on the host%s\n", disk_size_text(info->host_bytes),
	       info->chain > 1 ? ", with all it lies on" : "");
	if (info->granule_bytes > DISK_SECTOR_BYTES)
		printf("  grows  in pieces of %s\n", disk_size_text(info->granule_bytes));
	for (unsigned i = 1; !disk_chain(d, i, &link); i++)
		printf("  on     %s (%s, takes %s)\n", link.path, *link.type ? link.type : "raw",
		       disk_size_text(link.host_bytes));
	return STATUS_OK;
}

int disk_verb_info(int argc, char **argv)
{
	struct disk_info info;
	struct asked asked;
	struct error err;
	struct disk *d;
	int rc = begin(argc, argv, false, info_help, &asked);

	if (rc >= 0)
		return rc;
	if (disk_open_image(&d, asked.path, &(struct disk_options){.read_only = true}, &err))
		return fail(STATUS_FAILED, "%s", err.text);
	disk_get_info(d, &info);
	rc = asked.json ? info_json(asked.path, d, &info) : info_text(asked.path, d, &info);
	disk_close(d);
	return rc;
}

/* ---- map ---- */

static const char map_help[] =
	"hanok disk map FILE: what each range of a disk is and where it is on the host: data (in which\n"
	"file, at which byte; compressed), zero (said to be zero), hole (never written). `depth` counts\n"
	"the images a range was looked for in: 0 is FILE itself.\n"
	"\n"
	"  --json               for programs\n";

static const char *const kind_names[] = {
	[DISK_RUN_HOLE] = "hole",
	[DISK_RUN_ZERO] = "zero",
	[DISK_RUN_DATA] = "data",
};

static json_t *run_json(uint64_t at, const struct disk_run *run)
{
	json_t *o = json_pack("{s:I, s:I, s:s, s:i}", "start", (json_int_t)at, "length",
			      (json_int_t)run->bytes, "kind", kind_names[run->kind], "depth",
			      (int)run->depth);

	if (o && run->path) {
		json_object_set_new(o, "file", json_string(run->path));
		if (run->compressed)
			json_object_set_new(o, "compressed", json_true());
		else
			json_object_set_new(o, "offset",
					    json_integer((json_int_t)run->file_offset));
	}
	return o;
}

static void print_run(uint64_t at, const struct disk_run *run)
{
	printf("%#14" PRIx64 " %#14" PRIx64 "  %s", at, run->bytes, kind_names[run->kind]);
	if (run->kind == DISK_RUN_DATA)
		printf("  %u  %s%s", run->depth, run->path, run->compressed ? " (compressed)" : "");
	if (run->kind == DISK_RUN_DATA && !run->compressed)
		printf(" at %#" PRIx64, run->file_offset);
	putchar('\n');
}

/* Does the second go on where the first ends? */
static bool continues(const struct disk_run *a, const struct disk_run *b)
{
	return a->kind == b->kind && a->depth == b->depth && a->compressed == b->compressed &&
	       a->path == b->path &&
	       (a->kind != DISK_RUN_DATA || a->compressed ||
		a->file_offset + a->bytes == b->file_offset);
}

static int map(struct disk *d, uint64_t total, json_t *array)
{
	struct disk_run run, next;
	int rc = 0;

	for (uint64_t at = 0; !rc && at < total; at += run.bytes) {
		rc = disk_map(d, at, total - at, &run);
		while (!rc && at + run.bytes < total) {
			rc = disk_map(d, at + run.bytes, total - at - run.bytes, &next);
			if (rc || !continues(&run, &next))
				break;
			run.bytes += next.bytes;
		}
		if (rc)
			break;
		if (array)
			json_array_append_new(array, run_json(at, &run));
		else
			print_run(at, &run);
	}
	return rc;
}

int disk_verb_map(int argc, char **argv)
{
	struct disk_info info;
	struct asked asked;
	struct error err;
	struct disk *d;
	json_t *array = NULL;
	int rc = begin(argc, argv, false, map_help, &asked);

	if (rc >= 0)
		return rc;
	if (disk_open_image(&d, asked.path, &(struct disk_options){.read_only = true}, &err))
		return fail(STATUS_FAILED, "%s", err.text);
	disk_get_info(d, &info);
	if (asked.json)
		array = json_array();
	else
		printf("%14s %14s  what  depth, file\n", "start", "length");
	rc = map(d, info.bytes, array);
	if (rc) {
		json_decref(array);
		rc = fail(STATUS_FAILED,
			  "%s: its tables cannot be read: %s; try `hanok disk check`", asked.path,
			  strerror(-rc));
	} else if (array) {
		rc = print_json(array);
	}
	disk_close(d);
	return rc;
}

/* ---- check ---- */

static const char check_help[] =
	"hanok disk check FILE: looks at all tables of an image and of those it lies on.\n"
	"\n"
	"  errors               entries that lead nowhere, or to what another uses: data is doubtful\n"
	"  mismatches           the second copy of the tables differs from the first\n"
	"  leaks                space that nothing uses, as a crash may leave it: harmless\n"
	"\n"
	"  --repair             mends mismatches and leaks, of FILE alone; never by guessing\n"
	"  --json               for programs\n";

static void print_finding(void *opaque, const char *line)
{
	(void)opaque;
	puts(line);
}

static json_t *result_json(const char *path, const struct disk_check_result *r)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "path", path, "errors",
			 (json_int_t)r->errors, "mismatches", (json_int_t)r->mismatches,
			 "leaked_grains", (json_int_t)r->leaked_grains, "leaked_bytes",
			 (json_int_t)r->leaked_bytes, "grains", (json_int_t)r->grains,
			 "allocated_grains", (json_int_t)r->allocated_grains, "repaired",
			 (json_int_t)r->repaired, "unclean", r->unclean);
}

static void print_result(const char *path, const struct disk_check_result *r)
{
	printf("%s: %s", path, r->errors ? "errors" : "sound");
	if (r->errors)
		printf(": %" PRIu64, r->errors);
	if (r->mismatches)
		printf(", %" PRIu64 " mismatches", r->mismatches);
	if (r->leaked_grains || r->leaked_bytes)
		printf(", %s leaked", disk_size_text(r->leaked_bytes));
	if (r->repaired)
		printf(", %" PRIu64 " repaired", r->repaired);
	if (r->unclean)
		printf(", was not closed after its last use");
	if (r->grains)
		printf("; %" PRIu64 " of %" PRIu64 " grains in use", r->allocated_grains,
		       r->grains);
	putchar('\n');
}

/* One image, then what it lies on. -ENOENT: no more. */
static int check_one(const struct asked *asked, const char *path, bool repair, json_t *array,
		     uint64_t *errors, struct error *err)
{
	struct disk_check_options opt = {.repair = repair,
					 .report = asked->json ? NULL : print_finding};
	struct disk_check_result result;
	int rc = disk_refuse_foreign(path, err);

	if (!rc)
		rc = disk_check(path, &opt, &result, err);
	if (rc)
		return rc;
	*errors += result.errors;
	if (array)
		json_array_append_new(array, result_json(path, &result));
	else
		print_result(path, &result);
	return 0;
}

int disk_verb_check(int argc, char **argv)
{
	struct asked asked;
	struct error err;
	json_t *array = NULL;
	uint64_t errors = 0;
	char *path, *parent;
	int rc = begin(argc, argv, true, check_help, &asked);

	if (rc >= 0)
		return rc;
	if (asked.json)
		array = json_array();
	path = strdup(asked.path);
	rc = 0;
	for (bool first = true; !rc && path; first = false) {
		rc = check_one(&asked, path, first && asked.repair, array, &errors, &err);
		/* Below an image with errors there is no way that could be trusted. */
		parent = NULL;
		if (!rc && !errors)
			rc = snapshot_parent(path, &parent, &err);
		free(path);
		path = parent;
	}
	free(path);
	if (rc) {
		json_decref(array);
		return fail(STATUS_FAILED, "%s", err.text);
	}
	if (array && (rc = print_json(array)))
		return rc;
	if (errors)
		return fail(STATUS_FAILED,
			    "%s: data may be lost; copy what can be read (hanok disk "
			    "convert) or restore a backup",
			    asked.path);
	return STATUS_OK;
}
