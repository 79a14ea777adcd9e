/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding a virtual machine's folder, and seeing to it that it runs once.
 *
 * The lock is an open-file-description lock (fcntl(2)) on NAME.vmx.lck: it goes with the process,
 * however that ends, is handed on by fork, and can be asked about without taking it. The file's
 * text is only for those who find it locked. VMware has a folder of the same name there instead.
 */
#include "control/vm_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/inventory.h"
#include "machine/vmx.h"

/* ---- places ---- */

/* asprintf that gives NULL when out of memory. */
__attribute__((format(printf, 1, 2))) static char *format(const char *fmt, ...)
{
	va_list ap;
	char *text;

	va_start(ap, fmt);
	int n = vasprintf(&text, fmt, ap);
	va_end(ap);
	return n < 0 ? NULL : text;
}

static const char *home(void)
{
	const char *h = getenv("HOME");

	if (h && *h == '/')
		return h;
	struct passwd *pw = getpwuid(getuid());
	return pw && pw->pw_dir && *pw->pw_dir == '/' ? pw->pw_dir : NULL;
}

/* The value of an environment variable that names an absolute path, or NULL. */
static const char *path_from(const char *variable)
{
	const char *value = getenv(variable);

	return value && *value == '/' ? value : NULL;
}

char *vm_root(void)
{
	const char *given = path_from("HANOK_VMS"), *h = home();

	if (given)
		return strdup(given);
	return h ? format("%s/hanok", h) : NULL;
}

/* mkdir -p with mode 0700 for what is made. */
static int make_folders(char *path)
{
	for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		int r = mkdir(path, 0700);
		*slash = '/';
		if (r < 0 && errno != EEXIST)
			return -errno;
	}
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

int vm_runtime(char **out, bool create, struct error *err)
{
	const char *given = path_from("HANOK_RUNTIME"), *xdg = path_from("XDG_RUNTIME_DIR");
	const char *h = home();
	struct stat st;
	char *path = NULL;

	*out = NULL;
	if (given)
		path = strdup(given);
	else if (xdg)
		path = format("%s/hanok", xdg);
	else if (h)
		path = format("%s/.local/state/hanok", h);
	else
		return error_set(
			err, -ENOENT,
			"control sockets: neither HOME nor XDG_RUNTIME_DIR is set; set one "
			"of them");
	if (!path)
		return error_set(err, -ENOMEM, "control sockets: out of memory");
	int r = create ? make_folders(path) : 0;
	if (r == 0 && create && stat(path, &st) < 0)
		r = -errno;
	if (r < 0) {
		error_set(err, r, "%s: %s; control sockets belong there, HANOK_RUNTIME moves them",
			  path, strerror(-r));
	} else if (create && (st.st_uid != geteuid() || st.st_mode & 022)) {
		r = error_set(err, -EPERM,
			      "%s: others may write there, so no control socket is put there; "
			      "chmod 700 it, or name another folder in HANOK_RUNTIME",
			      path);
	}
	if (r < 0) {
		free(path);
		return r;
	}
	*out = path;
	return 0;
}

/* ---- folders ---- */

void vm_folder_free(struct vm_folder *f)
{
	free(f->vmx);
	free(f->folder);
	free(f->base);
	*f = (struct vm_folder){0};
}

static bool is_vmx_name(const char *name)
{
	size_t len = strlen(name);

	return len > 4 && !strcasecmp(name + len - 4, ".vmx");
}

int vm_folder_of(struct vm_folder *out, const char *vmx_path, struct error *err)
{
	const char *slash = strrchr(vmx_path, '/'), *name = slash ? slash + 1 : vmx_path;
	char *parent = slash ? strndup(vmx_path, (size_t)(slash - vmx_path) + 1) : strdup(".");

	*out = (struct vm_folder){0};
	if (!is_vmx_name(name)) {
		free(parent);
		return error_set(err, -EINVAL, "%s: not the name of a .vmx file", vmx_path);
	}
	out->folder = parent ? realpath(parent, NULL) : NULL;
	int code = errno;
	free(parent);
	if (!out->folder)
		return error_set(err, -code, "%s: %s", vmx_path, strerror(code));
	if (!strcmp(out->folder, "/"))
		out->folder[0] = 0;
	out->vmx = format("%s/%s", out->folder, name);
	out->base = strndup(name, strlen(name) - 4);
	if (!out->vmx || !out->base) {
		vm_folder_free(out);
		return error_set(err, -ENOMEM, "%s: out of memory", vmx_path);
	}
	return 0;
}

char *vm_file(const struct vm_folder *f, const char *suffix)
{
	return format("%s/%s%s", f->folder, f->base, suffix);
}

/*
 * The .vmx in a folder: the one of the folder's own name, or the only one. *vmx is the caller's to
 * free; NULL with 0: none.
 */
static int vmx_in(const char *folder, char **vmx, struct error *err)
{
	char *real = realpath(folder, NULL);
	const char *own = real ? strrchr(real, '/') + 1 : "";
	DIR *d = real ? opendir(real) : NULL;
	struct dirent *e;
	unsigned count = 0;
	bool is_own = false;
	int r = 0;

	*vmx = NULL;
	if (!d)
		r = error_set(err, -errno, "%s: %s", folder, strerror(errno));
	while (d && !is_own && (e = readdir(d))) {
		if (!is_vmx_name(e->d_name))
			continue;
		is_own = !strncmp(e->d_name, own, strlen(own)) &&
			 strlen(e->d_name) == strlen(own) + 4;
		count++;
		free(*vmx);
		*vmx = format("%s/%s", real, e->d_name);
	}
	if (count > 1 && !is_own) {
		free(*vmx);
		*vmx = NULL;
		r = error_set(err, -EINVAL, "%s: it holds %u .vmx files; name one of them", folder,
			      count);
	}
	if (d)
		closedir(d);
	free(real);
	return r;
}

int vm_each(int (*fn)(void *opaque, const char *vmx_path), void *opaque)
{
	char *root = vm_root();
	DIR *d = root ? opendir(root) : NULL;
	struct dirent *e;
	int r = 0;

	while (d && r == 0 && (e = readdir(d))) {
		char *folder = e->d_name[0] == '.' ? NULL : format("%s/%s", root, e->d_name);
		char *vmx = NULL;
		struct stat st;
		if (folder && stat(folder, &st) == 0 && S_ISDIR(st.st_mode) &&
		    vmx_in(folder, &vmx, NULL) == 0 && vmx)
			r = fn(opaque, vmx);
		free(vmx);
		free(folder);
	}
	if (d)
		closedir(d);
	free(root);
	return r;
}

/* ---- by display name ---- */

struct by_name {
	const char *word;
	char *found;
	unsigned count;
};

static void note_match(struct by_name *n, const char *name, const char *vmx_path)
{
	if (!name || strcasecmp(name, n->word) || (n->found && !strcmp(n->found, vmx_path)))
		return;
	n->count++;
	free(n->found);
	n->found = strdup(vmx_path);
}

static int look_at_vmx(void *opaque, const char *vmx_path)
{
	struct vmx *v;

	if (vmx_read(&v, vmx_path, NULL) == 0)
		note_match(opaque, vmx_get(v, "displayName"), vmx_path);
	vmx_destroy(v);
	return 0;
}

static void look_at_running(void *opaque, const struct inventory_entry *e)
{
	note_match(opaque, json_string_value(json_object_get(e->status, "name")),
		   json_string_value(json_object_get(e->status, "vmx")));
}

static int find_by_name(struct vm_folder *out, const char *word, struct error *err)
{
	struct by_name n = {.word = word};
	int r;

	vm_each(look_at_vmx, &n);
	inventory_each(look_at_running, &n);
	if (n.count == 1 && n.found)
		r = vm_folder_of(out, n.found, err);
	else if (n.count > 1)
		r = error_set(err, -EINVAL,
			      "%s: %u virtual machines have this name; name one by its folder "
			      "(`hanok ps --all` shows them)",
			      word, n.count);
	else
		r = error_set(err, -ENOENT,
			      "%s: no virtual machine of this name: neither a .vmx file or folder, "
			      "nor one that `hanok ps --all` lists",
			      word);
	free(n.found);
	return r;
}

/* In a folder that is there. */
static int find_in(struct vm_folder *out, const char *folder, struct error *err)
{
	char *vmx;
	int r = vmx_in(folder, &vmx, err);

	if (r == 0 && !vmx)
		return error_set(err, -ENOENT, "%s: no .vmx file in this folder", folder);
	if (r == 0)
		r = vm_folder_of(out, vmx, err);
	free(vmx);
	return r;
}

int vm_find(struct vm_folder *out, const char *word, struct error *err)
{
	struct stat st;

	*out = (struct vm_folder){0};
	if (stat(word, &st) == 0) {
		if (S_ISDIR(st.st_mode)) {
			/* A folder that happens to be here must not hide a machine's name. */
			int r = find_in(out, word, err);
			if (r != -ENOENT || strchr(word, '/'))
				return r;
		} else {
			return vm_folder_of(out, word, err);
		}
	} else if (strchr(word, '/')) {
		return error_set(err, -errno, "%s: %s", word, strerror(errno));
	}
	char *root = vm_root(), *folder = root ? format("%s/%s", root, word) : NULL;
	bool there = *word && folder && stat(folder, &st) == 0 && S_ISDIR(st.st_mode);
	int r = there ? find_in(out, folder, err) : find_by_name(out, word, err);
	free(folder);
	free(root);
	return r;
}

/* ---- the lock ---- */

static struct flock whole(short type)
{
	return (struct flock){.l_type = type, .l_whence = SEEK_SET};
}

/* Reads who runs it; a file half written or anything else leaves *r empty. */
static void read_runner(int fd, struct vm_runner *r)
{
	char text[sizeof(r->socket) + 32];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	int pid, at;

	*r = (struct vm_runner){0};
	text[n > 0 ? n : 0] = 0;
	if (sscanf(text, "%d %n", &pid, &at) < 1 || pid <= 0)
		return;
	r->pid = pid;
	size_t len = strcspn(text + at, "\n");
	if (text[at + len] == '\n' && len < sizeof(r->socket)) {
		memcpy(r->socket, text + at, len);
		r->socket[len] = 0;
	}
}

static int open_failed(const char *path, int code, struct error *err)
{
	if (code == EISDIR)
		return error_set(err, -EBUSY,
				 "%s: VMware has this machine open; close it there, or remove this "
				 "folder if VMware is gone",
				 path);
	return error_set(err, -code, "%s: %s", path, strerror(code));
}

/* Is what was opened still the file of that name? */
static bool still_there(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

static int lock_path(const struct vm_folder *f, const char *path, int *out, struct error *err)
{
	struct flock l = whole(F_WRLCK);
	struct vm_runner r;

	for (;;) {
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return open_failed(path, errno, err);
		if (fcntl(fd, F_OFD_SETLK, &l) < 0) {
			int code = errno;
			read_runner(fd, &r);
			close(fd);
			if (code != EAGAIN && code != EACCES)
				return error_set(err, -code, "%s: %s", path, strerror(code));
			return error_set(err, -EBUSY,
					 "%s: it runs already, as process %d; `hanok console` "
					 "attaches to it, `hanok stop` ends it",
					 f->vmx, (int)r.pid);
		}
		if (still_there(fd, path)) {
			*out = fd;
			return 0;
		}
		close(fd); /* removed by whoever ran it last, between open and lock */
	}
}

int vm_lock(const struct vm_folder *f, int *fd, struct error *err)
{
	char *path = vm_file(f, ".vmx.lck");
	int r = path ? lock_path(f, path, fd, err)
		     : error_set(err, -ENOMEM, "%s: out of memory", f->vmx);

	free(path);
	return r;
}

int vm_lock_note(int fd, const struct vm_runner *r, struct error *err)
{
	char text[sizeof(r->socket) + 32];
	int len = snprintf(text, sizeof(text), "%d %s\n", (int)r->pid, r->socket);

	if (pwrite(fd, text, (size_t)len, 0) != len || ftruncate(fd, len) < 0)
		return error_set(err, -errno, "the lock file: %s", strerror(errno));
	return 0;
}

void vm_unlock(const struct vm_folder *f, int fd)
{
	char *path = fd >= 0 ? vm_file(f, ".vmx.lck") : NULL;

	if (path)
		unlink(path);
	free(path);
	if (fd >= 0)
		close(fd);
}

int vm_is_running(const struct vm_folder *f, struct vm_runner *r, struct error *err)
{
	struct flock l = whole(F_WRLCK);
	char *path = vm_file(f, ".vmx.lck");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1, result = 0;

	*r = (struct vm_runner){0};
	if (!path) {
		result = error_set(err, -ENOMEM, "%s: out of memory", f->vmx);
	} else if (fd < 0) {
		result = errno == ENOENT ? 0 : open_failed(path, errno, err);
	} else if (fcntl(fd, F_OFD_GETLK, &l) < 0) {
		result = error_set(err, -errno, "%s: %s", path, strerror(errno));
	} else if (l.l_type != F_UNLCK) {
		read_runner(fd, r);
		result = 1;
	}
	if (fd >= 0)
		close(fd);
	free(path);
	return result;
}
