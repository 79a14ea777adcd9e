/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok snapshot`: a machine's disks as they were. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "app/app.h"
#include "app/options.h"
#include "app/vm_verb.h"
#include "control/vm_snapshot.h"

static const char help[] =
	"hanok snapshot: keep a machine's disks as they are now, and go back to them.\n"
	"\n"
	"  hanok snapshot create mail before-upgrade      also while it runs\n"
	"  hanok snapshot list mail                       the tree; > is what it came from last\n"
	"  hanok snapshot revert mail before-upgrade      what was written since is lost\n"
	"  hanok snapshot delete mail before-upgrade      the disks stay as they are now\n"
	"  hanok snapshot consolidate mail                merge what no snapshot needs any more\n"
	"\n"
	"  --description TEXT   of create\n"
	"  --children           of delete: also those that were taken on top of it\n"
	"  --json               of list: as an array\n"
	"\n"
	"A snapshot is named by its name or its number. It has the disks, not the memory: going back\n"
	"to one that was taken while the machine ran is like after a power failure then. revert\n"
	"wants a machine that does not run; the others also work while it runs.\n"
	"\n"
	"Exit status: 0; 2 the command line is wrong; 125 it could not be done.\n";

struct snapshot_words {
	const char *description;
	bool children, json;
};

static int set_option(void *opaque, int option, struct error *err)
{
	struct snapshot_words *w = opaque;

	(void)err;
	if (option == 'd')
		w->description = optarg;
	else if (option == 'c')
		w->children = true;
	else
		w->json = true;
	return 0;
}

static int show_progress(void *opaque, uint64_t done, uint64_t total)
{
	struct short_text a, b;

	(void)opaque;
	progress("merging: %s of %s", show_bytes(&a, done), show_bytes(&b, total));
	return 0;
}

static const struct snapshot_progress watch = {.fn = show_progress};

/* ---- with the machine locked: it does not run ---- */

enum act { ACT_CREATE, ACT_REVERT, ACT_DELETE, ACT_CONSOLIDATE };

static int take(struct vm_snapshot *s, const char *name, const char *description, struct error *err)
{
	struct snapshot_take *t;
	uint32_t uid;
	int r = snapshot_take_prepare(&t, &s->machine, name, description, NULL, err);

	return r < 0 ? r : snapshot_take_commit(t, &uid, err);
}

/* The uid of the snapshot that a person means. */
static int find_uid(const struct vm_snapshot *s, const char *name, uint32_t *uid, struct error *err)
{
	struct vmsd_snapshot *found;
	struct vmsd tree;
	int r = vmsd_load(&tree, s->vmsd, err);

	if (r == 0)
		r = vmsd_find_name(&tree, name, &found, err);
	if (r == 0)
		*uid = found->uid;
	vmsd_free(&tree);
	return r;
}

static int act_on(struct vm_snapshot *s, enum act act, const char *name,
		  const struct snapshot_words *w, struct error *err)
{
	uint32_t uid = 0;
	int r = 0;

	if (act == ACT_REVERT || act == ACT_DELETE)
		r = find_uid(s, name, &uid, err);
	if (r < 0)
		return r;
	switch (act) {
	case ACT_CREATE:
		return take(s, name, w->description, err);
	case ACT_REVERT:
		return snapshot_revert(&s->machine, uid, err);
	case ACT_DELETE:
		return snapshot_delete(&s->machine, uid, w->children, &watch, err);
	case ACT_CONSOLIDATE:
		return snapshot_consolidate(&s->machine, &watch, err);
	}
	return -EINVAL;
}

static int act_stopped(const struct vm_folder *f, enum act act, const char *name,
		       const struct snapshot_words *w, struct error *err)
{
	struct vm_snapshot s = {0};
	int lock = -1;
	int r = vm_lock(f, &lock, err);

	if (r < 0)
		return r;
	r = vm_snapshot_open(&s, f, NULL, NULL, err);
	if (r == 0)
		r = act_on(&s, act, name, w, err);
	progress_end();
	vm_snapshot_close(&s);
	vm_unlock(f, lock);
	return r;
}

/* ---- the machine itself does it while it runs ---- */

static json_t *request(enum act act, const char *name, const struct snapshot_words *w)
{
	if (act == ACT_CREATE)
		return json_pack("{s:s, s:s, s:s}", "do", "snapshot-create", "name", name,
				 "description", w->description);
	if (act == ACT_DELETE)
		return json_pack("{s:s, s:s, s:b}", "do", "snapshot-delete", "name", name,
				 "children", w->children);
	return json_pack("{s:s}", "do", "snapshot-consolidate");
}

static int act_anyhow(const char *word, enum act act, const char *name,
		      const struct snapshot_words *w, struct error *err)
{
	struct control_client *c;
	struct vm_folder f;
	int r = verb_connect(word, &f, &c, err);

	if (r == -ESRCH) {
		r = act_stopped(&f, act, name, w, err);
	} else if (r == 0) {
		if (act != ACT_CREATE)
			progress("merging, while it runs");
		r = control_ask(c, request(act, name, w), NULL, -1, err);
		progress_end();
		control_close(c);
	} else {
		return r;
	}
	vm_folder_free(&f);
	return r;
}

/* ---- list ---- */

static void show_time(const struct vmsd_snapshot *s, char *text, size_t room)
{
	time_t seconds = (time_t)(s->created_us / 1000000);
	struct tm tm;

	localtime_r(&seconds, &tm);
	strftime(text, room, "%Y-%m-%d %H:%M:%S", &tm);
}

static void print_below(const struct vmsd *tree, uint32_t parent, unsigned depth)
{
	char when[32], line[1000];

	for (unsigned i = 0; depth < 64 && i < tree->count; i++) {
		const struct vmsd_snapshot *s = &tree->snapshot[i];
		if (s->parent != parent)
			continue;
		show_time(s, when, sizeof(when));
		snprintf(line, sizeof(line), "%4" PRIu32 " %s %s %*s%s%s%s", s->uid,
			 s->uid == tree->current ? ">" : " ", when, (int)(2 * depth), "", s->name,
			 *s->description ? ": " : "", s->description);
		make_printable(line);
		puts(line);
		print_below(tree, s->uid, depth + 1);
	}
}

static int print_json(const struct vmsd *tree)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < tree->count; i++) {
		const struct vmsd_snapshot *s = &tree->snapshot[i];
		json_t *disks = json_object();
		for (unsigned d = 0; d < s->disks; d++)
			json_object_set_new(disks, s->disk[d].node, json_string(s->disk[d].file));
		json_array_append_new(list,
				      json_pack("{s:I, s:I, s:s, s:s, s:f, s:b, s:o}", "uid",
						(json_int_t)s->uid, "parent", (json_int_t)s->parent,
						"name", s->name, "description", s->description,
						"created", (double)s->created_us / 1e6, "current",
						s->uid == tree->current, "disks", disks));
	}
	int r = json_dumpf(list, stdout, JSON_INDENT(2));
	json_decref(list);
	putchar('\n');
	return r < 0 ? -EIO : 0;
}

static int list(const char *word, bool json, struct error *err)
{
	struct vmsd tree = {0};
	struct vm_folder f;
	int r = vm_find(&f, word, err);

	if (r < 0)
		return r;
	char *path = vm_file(&f, ".vmsd");
	r = path ? vmsd_load(&tree, path, err) : error_set(err, -ENOMEM, "list: out of memory");
	if (r == 0 && json) {
		r = print_json(&tree);
	} else if (r == 0) {
		print_below(&tree, 0, 0);
		if (tree.need_consolidate)
			printf("Deltas are left that no snapshot needs: `hanok snapshot consolidate "
			       "%s`\n",
			       word);
	}
	vmsd_free(&tree);
	free(path);
	vm_folder_free(&f);
	return r;
}

/* ---- the verb ---- */

static int revert(const char *word, const char *name, const struct snapshot_words *w,
		  struct error *err)
{
	struct vm_folder f;
	int r = vm_find(&f, word, err);

	if (r < 0)
		return r;
	r = act_stopped(&f, ACT_REVERT, name, w, err);
	vm_folder_free(&f);
	return r;
}

static int do_it(const char *const *word, const struct snapshot_words *w, struct error *err)
{
	static const struct {
		const char *name;
		unsigned words;
	} acts[] = {{"create", 3}, {"list", 2}, {"revert", 3}, {"delete", 3}, {"consolidate", 2}};
	unsigned given = word[2] ? 3 : 2, i = 0;

	while (i < 5 && strcmp(word[0], acts[i].name))
		i++;
	if (i == 5)
		return error_set(
			err, -E2BIG,
			"snapshot %s: there are create, list, revert, delete and consolidate",
			word[0]);
	if (given != acts[i].words)
		return error_set(err, -E2BIG, "snapshot %s: %s; --help shows how it goes", word[0],
				 given < 3 ? "which snapshot?" : "one word too many");
	switch (i) {
	case 0:
		return act_anyhow(word[1], ACT_CREATE, word[2], w, err);
	case 1:
		return list(word[1], w->json, err);
	case 2:
		return revert(word[1], word[2], w, err);
	case 3:
		return act_anyhow(word[1], ACT_DELETE, word[2], w, err);
	default:
		return act_anyhow(word[1], ACT_CONSOLIDATE, NULL, w, err);
	}
}

int verb_snapshot(int argc, char **argv)
{
	static const struct option options[] = {
		{"description", required_argument, NULL, 'd'},
		{"children", no_argument, NULL, 'c'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct snapshot_words w = {.description = ""};
	const char *word[3] = {NULL};
	const struct verb_words words = {word,
					 2,
					 3,
					 "create, list, revert, delete or consolidate, "
					 "and which machine?",
					 set_option,
					 &w};
	struct error err = {""};

	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	r = do_it(word, &w, &err);
	if (r < 0)
		return fail(r == -E2BIG ? STATUS_USAGE : STATUS_FAILED, "%s", err.text);
	return STATUS_OK;
}
