/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok rm`: a machine's files go. Only those that are known to be its own. */
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/app.h"
#include "app/options.h"
#include "app/vm_verb.h"
#include "disk/vmsd.h"
#include "machine/vm_config.h"

static const char help[] =
	"hanok rm: remove a machine and its disks.\n"
	"\n"
	"  hanok rm mail            asks first\n"
	"  hanok rm --yes mail      does not ask\n"
	"  hanok rm --force mail    does not ask, and cuts its power if it runs\n"
	"\n"
	"Removed are the .vmx, every file in its folder that has its name (mail.*, mail-*), and those\n"
	"in the folder that its .vmx names. What else is in the folder stays, and the folder with it.\n"
	"\n"
	"Exit status: 0 it is gone; 2 the command line is wrong; 125 it runs, or could not be removed.\n";

struct rm {
	bool yes, force;
};

static int set_option(void *opaque, int option, struct error *err)
{
	struct rm *r = opaque;

	(void)err;
	r->yes = true;
	r->force |= option == 'f';
	return 0;
}

/* Names of files in the machine's folder. */
struct names {
	char *name[512];
	unsigned count;
};

static void add(struct names *n, const char *name)
{
	if (n->count < sizeof(n->name) / sizeof(n->name[0]) && (n->name[n->count] = strdup(name)))
		n->count++;
}

static int add_drive(void *opaque, const char *key, const char *file_name)
{
	(void)key;
	if (*file_name && !strchr(file_name, '/'))
		add(opaque, file_name);
	return 0;
}

/* Is it called BASE.something or BASE-something? */
static bool has_name(const char *file, const char *base)
{
	size_t len = strlen(base);

	return !strncmp(file, base, len) && (file[len] == '.' || file[len] == '-');
}

/* The machine's own files; -EINVAL: its name cannot tell them, as another machine is there, too. */
static int list_files(const struct vm_folder *f, struct names *n, struct error *err)
{
	static const char *const keys[] = {"hanok.kernel", "hanok.initrd", "nvram"};
	DIR *d = opendir(f->folder);
	unsigned machines = 0;
	struct dirent *e;
	struct vmx *v;

	if (!d)
		return error_set(err, -errno, "%s: %s", f->folder, strerror(errno));
	while ((e = readdir(d))) {
		size_t len = strlen(e->d_name);
		machines += len > 4 && !strcasecmp(e->d_name + len - 4, ".vmx");
		if (has_name(e->d_name, f->base))
			add(n, e->d_name);
	}
	closedir(d);
	if (machines > 1)
		return error_set(
			err, -EINVAL,
			"%s: %u machines share this folder, so which files are whose is not "
			"known; remove them by hand",
			f->folder, machines);
	/* One that cannot be read names nothing. */
	if (vmx_read(&v, f->vmx, NULL) == 0) {
		vm_config_each_drive(v, add_drive, n);
		for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
			const char *name = vmx_get(v, keys[i]);
			if (name && *name && !strchr(name, '/'))
				add(n, name);
		}
		vmx_destroy(v);
	}
	return 0;
}

/* -EBUSY: a linked clone, which is there, lies on this machine's disks. */
static int check_clones(const struct vm_folder *f, struct error *err)
{
	char *path = vm_file(f, ".vmsd");
	struct vmsd tree = {0};
	int r = 0;

	/* A .vmsd that cannot be read tells of no clone; `rm` must work then, too. */
	if (path && vmsd_load(&tree, path, NULL) < 0)
		tree.count = 0;
	for (unsigned i = 0; r == 0 && i < tree.count; i++)
		for (unsigned n = 0; r == 0 && n < tree.snapshot[i].clones; n++)
			if (access(tree.snapshot[i].clone[n], F_OK) == 0)
				r = error_set(
					err, -EBUSY,
					"%s: the linked clone %s lies on its disks; remove that "
					"first",
					f->vmx, tree.snapshot[i].clone[n]);
	vmsd_free(&tree);
	free(path);
	return r;
}

static bool agrees(const struct vm_folder *f)
{
	char answer[16] = "";

	fprintf(stderr, "Remove %s and its disks for good? [y/N] ", f->folder);
	return fgets(answer, sizeof(answer), stdin) && (*answer == 'y' || *answer == 'Y');
}

/* The .vmx goes last: until then there is something to try again with. */
static int remove_files(const struct vm_folder *f, const struct names *n, struct error *err)
{
	char path[4096];
	int r = 0;

	for (unsigned i = 0; i < n->count; i++) {
		snprintf(path, sizeof(path), "%s/%s", f->folder, n->name[i]);
		if (strcmp(path, f->vmx) && unlink(path) < 0 && errno != ENOENT)
			r = error_set(err, -errno, "%s: %s", path, strerror(errno));
	}
	if (r == 0 && unlink(f->vmx) < 0)
		r = error_set(err, -errno, "%s: %s", f->vmx, strerror(errno));
	if (r == 0 && rmdir(f->folder) < 0)
		fprintf(stderr, "hanok: %s stays: other files are in it\n", f->folder);
	return r;
}

static int stop_if_forced(const struct rm *r, const char *word, struct vm_folder *f,
			  struct error *err)
{
	struct control_client *c;
	int code = verb_connect(word, f, &c, err);

	if (code == -ESRCH)
		return 0;
	if (code < 0)
		return code;
	if (r->force)
		code = verb_pull_plug(f, c, err);
	else
		code = error_set(err, -EBUSY,
				 "%s: it runs; `hanok stop %s` first, or `hanok rm --force %s`",
				 f->vmx, word, word);
	control_close(c);
	if (code < 0)
		vm_folder_free(f);
	return code;
}

static int remove_vm(const struct rm *r, const char *word, struct error *err)
{
	struct names names = {.count = 0};
	struct vm_folder f;
	int lock = -1;
	int code = stop_if_forced(r, word, &f, err);

	if (code < 0)
		return code;
	code = vm_lock(&f, &lock, err);
	if (code == 0)
		code = check_clones(&f, err);
	if (code == 0)
		code = list_files(&f, &names, err);
	if (code == 0 && !r->yes && !isatty(STDIN_FILENO))
		code = error_set(err, -EPERM, "%s: nobody is there to be asked; say --yes", f.vmx);
	else if (code == 0 && !r->yes && !agrees(&f))
		code = error_set(err, -ECANCELED, "%s: it stays", f.vmx);
	if (code == 0)
		code = remove_files(&f, &names, err);
	for (unsigned i = 0; i < names.count; i++)
		free(names.name[i]);
	vm_unlock(&f, lock);
	vm_folder_free(&f);
	return code;
}

int verb_rm(int argc, char **argv)
{
	static const struct option options[] = {
		{"yes", no_argument, NULL, 'y'},
		{"force", no_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct rm rm = {0};
	const char *word;
	const struct verb_words words = {&word, 1, 1, "which machine?", set_option, &rm};
	struct error err;

	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	return remove_vm(&rm, word, &err) < 0 ? fail(STATUS_FAILED, "%s", err.text) : STATUS_OK;
}
