/* SPDX-License-Identifier: Apache-2.0 */
#include "app/new_folder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "app/child.h"

int new_folder_check(const char *name, struct error *err)
{
	const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;

	if (!*base || *base == '.' || *base == '-' || strlen(base) > 64)
		return error_set(
			err, -EINVAL,
			"%s: not a name for a machine; it has 1 to 64 characters, and no dot "
			"or dash at its beginning",
			name);
	for (const char *p = base; *p; p++)
		if ((unsigned char)*p < ' ' || *p == '"' || *p == '|' || *p == 0x7f)
			return error_set(
				err, -EINVAL,
				"a name for a machine has no control characters, quotes or "
				"bars");
	return 0;
}

/* Where it shall be, as the path of its .vmx, the caller's to free. */
static char *vmx_path(const char *name)
{
	const char *slash = strrchr(name, '/');
	char *root = slash ? NULL : vm_root(), *path = NULL;
	int n = -1;

	if (slash)
		n = asprintf(&path, "%s/%s.vmx", name, slash + 1);
	else if (root)
		n = asprintf(&path, "%s/%s/%s.vmx", root, name, name);
	if (root)
		mkdir(root, 0755);
	free(root);
	return n < 0 ? NULL : path;
}

int new_folder_make(const char *name, struct vm_folder *out, struct error *err)
{
	char *path = vmx_path(name), *slash = path ? strrchr(path, '/') : NULL;
	int r = 0;

	*out = (struct vm_folder){0};
	if (!path)
		return error_set(
			err, -ENOENT,
			"%s: no place for it: HOME is not set; name its folder with a slash", name);
	*slash = 0;
	if (mkdir(path, 0755) < 0) {
		r = -errno;
		if (r == -EEXIST)
			error_set(
				err, r,
				"%s: it is there already; take another name, or `hanok rm` it first",
				path);
		else
			error_set(err, r, "%s: %s", path, strerror(-r));
	}
	*slash = '/';
	if (r == 0)
		r = vm_folder_of(out, path, err);
	free(path);
	return r;
}

void new_folder_undo(const struct vm_folder *f)
{
	const char *const argv[] = {"rm", "-rf", "--", f->folder, NULL};

	(void)child_run(&(struct child){.argv = argv, .what = "cleaning up", .log = "/dev/null"},
			NULL);
}

void new_uuid_bios(char text[UUID_BIOS_BYTES])
{
	unsigned char b[16] = {0};

	(void)!getrandom(b, sizeof(b), 0);
	b[0] = 0x56;
	b[1] = 0x4d;
	for (unsigned i = 0; i < 16; i++)
		text += sprintf(text, "%s%02x", i == 0 ? "" : i == 8 ? "-" : " ", b[i]);
}
