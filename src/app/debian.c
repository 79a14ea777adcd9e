/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A minimal Debian on a disk.
 *
 *   mmdebstrap ──> root.tar ──> mke2fs -d ──> base.ext4, vmlinuz, initrd     once, in the cache
 *                                                 │
 *        for each machine: a copy, resize2fs to its disk's size, its own UUID, name and password
 *                                                 │
 *                        partition table, data ───┴──> the disk's image; holes stay holes
 *
 * mmdebstrap works without root where user namespaces are to be had; owners are kept by fakeroot
 * then. What the host's tools cannot mount, debugfs changes. Nothing is installed on the host.
 */
#include "app/debian.h"

#include <crypt.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "app/child.h"
#include "app/debian_recipe.h"
#include "app/vm_verb.h"
#include "disk/disk.h"

enum {
	PATH_BYTES = 4096,
	PARTITION_SECTOR = 2048,
	PIECE_BYTES = 1 << 20,
	FRESH_S = 30 * 86400,
	SHADOW_BYTES = 16384,
};
static const char log_name[] = "log";

/* ---- the cache ---- */

/* FNV-1a, 64 bits. */
static uint64_t hash(uint64_t h, const char *s)
{
	while (*s)
		h = (h ^ (unsigned char)*s++) * UINT64_C(0x100000001b3);
	return h;
}

static int cache_folder(char *path, struct error *err)
{
	const char *own = getenv("HANOK_CACHE"), *xdg = getenv("XDG_CACHE_HOME");
	const char *home = getenv("HOME");
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	char top[PATH_BYTES / 2];

	if (own && *own)
		snprintf(top, sizeof(top), "%s", own);
	else if (xdg && *xdg)
		snprintf(top, sizeof(top), "%s/hanok", xdg);
	else if (home && *home)
		snprintf(top, sizeof(top), "%s/.cache/hanok", home);
	else
		return error_set(err, -ENOENT, "the cache: neither HOME nor HANOK_CACHE is set");
	h = hash(hash(hash(hash(h, debian_setup), debian_customize), debian_image),
		 DEBIAN_PACKAGES);
	for (char *slash = top + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		mkdir(top, 0755);
		*slash = '/';
	}
	if (mkdir(top, 0755) < 0 && errno != EEXIST)
		return error_set(err, -errno, "%s: %s", top, strerror(errno));
	snprintf(path, PATH_BYTES, "%s/debian-%s-%016" PRIx64, top, DEBIAN_SUITE, h);
	return 0;
}

static bool is_there(const char *folder, bool *fresh)
{
	char path[PATH_BYTES];
	struct stat st;

	snprintf(path, sizeof(path), "%.4000s/base.ext4", folder);
	if (stat(path, &st) < 0)
		return false;
	*fresh = st.st_mtime > time(NULL) - FRESH_S;
	return true;
}

/* From Debian's packages, in `folder`, which is ours alone. */
static int bootstrap(const char *folder, const char *log, struct error *err)
{
	char setup[sizeof(debian_setup) + 32], customize[sizeof(debian_customize) + 32];
	char tar[PATH_BYTES];
	const char *const strap[] = {"mmdebstrap",
				     "--mode=auto",
				     "--variant=minbase",
				     "--include=" DEBIAN_PACKAGES,
				     "--aptopt=Apt::Install-Recommends \"false\"",
				     "--dpkgopt=path-exclude=/usr/share/man/*",
				     "--dpkgopt=path-exclude=/usr/share/doc/*",
				     "--dpkgopt=path-include=/usr/share/doc/*/copyright",
				     "--dpkgopt=path-exclude=/usr/share/locale/*",
				     setup,
				     customize,
				     DEBIAN_SUITE,
				     "-",
				     NULL};
	const char *const as_root[] = {"sh", "-c", debian_image, NULL};
	const char *const as_user[] = {"fakeroot", "sh", "-c", debian_image, NULL};
	bool root = geteuid() == 0;

	snprintf(setup, sizeof(setup), "--setup-hook=%s", debian_setup);
	snprintf(customize, sizeof(customize), "--customize-hook=%s", debian_customize);
	snprintf(tar, sizeof(tar), "%.4000s/root.tar", folder);
	int r = child_run(&(struct child){.argv = strap,
					  .what = "installing Debian (once, a minute or two)",
					  .package = "mmdebstrap",
					  .log = log,
					  .out = tar},
			  err);
	if (r == -EIO && !root) {
		struct error why = *err;
		error_set(
			err, r,
			"%.400s; as a user it needs user namespaces and newuidmap (package uidmap)",
			why.text);
	}
	if (r == 0)
		r = child_run(&(struct child){.argv = root ? as_root : as_user,
					      .what = "making Debian's file system",
					      .package = root ? "e2fsprogs" : "fakeroot",
					      .folder = folder,
					      .log = log},
			      err);
	return r;
}

static void remove_folder(const char *folder, const char *log)
{
	const char *const argv[] = {"rm", "-rf", "--", folder, NULL};

	(void)child_run(&(struct child){.argv = argv, .what = "cleaning up", .log = log}, NULL);
}

/* Sees to it that folder is there: made new, in a folder beside it, when it is not or is old. */
static int make_base(const char *folder, struct error *err)
{
	char work[PATH_BYTES], log[PATH_BYTES], old[PATH_BYTES];
	bool fresh = false, there = is_there(folder, &fresh);

	if (fresh)
		return 0;
	snprintf(work, sizeof(work), "%.4000s.new", folder);
	snprintf(old, sizeof(old), "%.4000s.old", folder);
	snprintf(log, sizeof(log), "%.4000s.%s", folder, log_name);
	if (!isatty(STDERR_FILENO))
		fprintf(stderr,
			"hanok: installing Debian (once, a minute or two); %s tells how it "
			"goes\n",
			log);
	unlink(log);
	remove_folder(work, log);
	int r = mkdir(work, 0700) < 0 ? error_set(err, -errno, "%s: %s", work, strerror(errno)) : 0;
	if (r == 0)
		r = bootstrap(work, log, err);
	if (r < 0) {
		remove_folder(work, log);
		if (there && r != -EINTR) {
			fprintf(stderr, "hanok: %s; going on with the one in the cache\n",
				err->text);
			return 0;
		}
		return r;
	}
	remove_folder(old, log);
	rename(folder, old);
	if (rename(work, folder) < 0)
		r = error_set(err, -errno, "%s: %s", folder, strerror(errno));
	remove_folder(old, log);
	return r;
}

/* The same, by one process at a time. */
static int get_base(char *folder, int *lock_fd, struct error *err)
{
	char lock[PATH_BYTES];
	int r = cache_folder(folder, err);

	if (r < 0)
		return r;
	snprintf(lock, sizeof(lock), "%.4000s.lock", folder);
	*lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (*lock_fd < 0)
		return error_set(err, -errno, "%s: %s", lock, strerror(errno));
	progress("waiting for another that installs Debian");
	while (flock(*lock_fd, LOCK_EX) < 0 && errno == EINTR)
		;
	progress_end();
	return make_base(folder, err);
}

/* ---- one machine's ---- */

struct install {
	struct debian *d;
	char base[PATH_BYTES]; /* the cache's folder */
	char work[PATH_BYTES]; /* ours, in the machine's folder */
	char fs[PATH_BYTES], log[PATH_BYTES];
	char uuid[37];
	char shadow[SHADOW_BYTES];
};

static int write_file(const char *folder, const char *name, const char *text, struct error *err)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%.4000s/%s", folder, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	size_t len = strlen(text);
	int r = fd >= 0 && write(fd, text, len) == (ssize_t)len ? 0 : -EIO;
	if (fd >= 0)
		close(fd);
	return r < 0 ? error_set(err, r, "%s: it cannot be written", path) : 0;
}

static int tool(struct install *in, const char *const *argv, const char *out, struct error *err)
{
	return child_run(&(struct child){.argv = argv,
					 .what = "setting Debian up",
					 .package = "e2fsprogs",
					 .folder = in->work,
					 .log = in->log,
					 .out = out},
			 err);
}

static void new_uuid(char *text)
{
	unsigned char b[16];

	if (getrandom(b, sizeof(b), 0) != sizeof(b))
		memset(b, 0x5a, sizeof(b));
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40); /* RFC 4122, version 4 */
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	for (unsigned i = 0, at = 0; i < 16; i++)
		at += (unsigned)sprintf(text + at, "%s%02x",
					i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[i]);
}

/* The installation's file system, in its own file, as large as the partition. */
static int copy_base(struct install *in, struct error *err)
{
	char base[PATH_BYTES], bytes[32];
	const char *const copy[] = {"cp", "--reflink=auto", "--sparse=always",
				    base, "root.ext4",	    NULL};
	const char *const size[] = {"truncate", "-s", bytes, "root.ext4", NULL};
	const char *const grow[] = {"resize2fs", "-f", "root.ext4", NULL};
	const char *const uuid[] = {"tune2fs", "-U", in->uuid, "root.ext4", NULL};
	const char *const *const steps[] = {copy, size, grow, uuid};
	int r = 0;

	snprintf(base, sizeof(base), "%.4000s/base.ext4", in->base);
	snprintf(bytes, sizeof(bytes), "%" PRIu64,
		 (in->d->disk_bytes - (UINT64_C(2) << 20)) & ~UINT64_C(0xfffff));
	for (unsigned i = 0; r == 0 && i < sizeof(steps) / sizeof(steps[0]); i++)
		r = tool(in, steps[i], NULL, err);
	return r;
}

/* Reads /etc/shadow out of the file system into in->shadow. */
static int read_shadow(struct install *in, struct error *err)
{
	const char *const cat[] = {"debugfs", "-R", "cat /etc/shadow", "root.ext4", NULL};
	char path[PATH_BYTES];
	int r = tool(in, cat, "shadow.old", err);

	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%.4000s/shadow.old", in->work);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, in->shadow, sizeof(in->shadow) - 1) : -1;
	if (fd >= 0)
		close(fd);
	in->shadow[n > 0 ? n : 0] = 0;
	return 0;
}

/* The line of root in a shadow file, or NULL. */
static char *find_root(char *shadow)
{
	char *line = shadow;

	while (line && strncmp(line, "root:", 5)) {
		line = strchr(line, '\n');
		if (line)
			line++;
	}
	return line;
}

/* Has the line of root in in->shadow say the password, which goes nowhere else in the clear. */
static int set_password(struct install *in, struct error *err)
{
	struct crypt_data data = {0};
	char settings[CRYPT_GENSALT_OUTPUT_SIZE], old[SHADOW_BYTES];
	char *line = find_root(in->shadow), *rest = line ? strchr(line + 5, ':') : NULL;

	if (!rest)
		return error_set(err, -EIO, "setting Debian up: its /etc/shadow cannot be read");
	if (!crypt_gensalt_rn("$y$", 0, NULL, 0, settings, sizeof(settings)) ||
	    !crypt_r(in->d->password, settings, &data) || data.output[0] == '*')
		return error_set(err, -EINVAL, "the password: it cannot be hashed");
	memcpy(old, in->shadow, sizeof(old));
	size_t room = sizeof(in->shadow) - (size_t)(line - in->shadow);
	int n = snprintf(line, room, "root:%s%s", data.output, old + (rest - in->shadow));
	return n < (int)room
		       ? 0
		       : error_set(err, -EIO, "setting Debian up: its /etc/shadow is too long");
}

static int personalise(struct install *in, struct error *err)
{
	static const char commands[] = "rm /etc/shadow\n"
				       "write shadow /etc/shadow\n"
				       "sif /etc/shadow mode 0100640\n"
				       "sif /etc/shadow uid 0\n"
				       "sif /etc/shadow gid 42\n"
				       "rm /etc/hostname\n"
				       "write hostname /etc/hostname\n"
				       "sif /etc/hostname mode 0100644\n"
				       "sif /etc/hostname uid 0\n"
				       "sif /etc/hostname gid 0\n"
				       "rm /etc/hosts\n"
				       "write hosts /etc/hosts\n"
				       "sif /etc/hosts mode 0100644\n"
				       "sif /etc/hosts uid 0\n"
				       "sif /etc/hosts gid 0\n";
	const char *const edit[] = {"debugfs", "-w", "-f", "commands", "root.ext4", NULL};
	char text[512], wanted[SHADOW_BYTES];
	int r = read_shadow(in, err);

	if (r == 0)
		r = set_password(in, err);
	if (r == 0)
		r = write_file(in->work, "shadow", in->shadow, err);
	snprintf(text, sizeof(text), "%.200s\n", in->d->hostname);
	if (r == 0)
		r = write_file(in->work, "hostname", text, err);
	snprintf(text, sizeof(text),
		 "127.0.0.1 localhost\n127.0.1.1 %.200s\n::1 localhost ip6-localhost\n",
		 in->d->hostname);
	if (r == 0)
		r = write_file(in->work, "hosts", text, err);
	if (r == 0)
		r = write_file(in->work, "commands", commands, err);
	if (r == 0)
		r = tool(in, edit, NULL, err);
	/* debugfs never says by its status that something failed. */
	memcpy(wanted, in->shadow, sizeof(wanted));
	if (r == 0)
		r = read_shadow(in, err);
	if (r == 0 && strcmp(wanted, in->shadow))
		r = error_set(err, -EIO, "setting Debian up: debugfs did not write /etc/shadow");
	return r;
}

/* One Linux partition from 1 MiB on; the file system's sectors. */
static int write_table(struct disk *disk, uint64_t sectors)
{
	uint8_t mbr[DISK_SECTOR_BYTES] = {0}, *entry = mbr + 446;
	uint32_t start = PARTITION_SECTOR,
		 count = sectors > UINT32_MAX ? UINT32_MAX : (uint32_t)sectors;

	entry[0] = 0x80; /* active */
	memset(entry + 1, 0xfe, 3);
	entry[4] = 0x83;
	memset(entry + 5, 0xfe, 3);
	memcpy(entry + 8, &start, 4);
	memcpy(entry + 12, &count, 4);
	mbr[510] = 0x55;
	mbr[511] = 0xaa;
	return disk_rw(disk, DISK_WRITE, 0, mbr, sizeof(mbr));
}

static bool is_zero(const uint8_t *data, size_t len)
{
	return !data[0] && !memcmp(data, data + 1, len - 1);
}

/* Copies what of the file is not zero to the disk, from PARTITION_SECTOR on. */
static int copy_data(int fd, struct disk *disk, uint64_t bytes, uint8_t *piece)
{
	off_t at = 0, end;
	int r = 0;

	while (r == 0 && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
		at &= ~(off_t)(PIECE_BYTES - 1);
		end = at + PIECE_BYTES < (off_t)bytes ? at + PIECE_BYTES : (off_t)bytes;
		ssize_t n = pread(fd, piece, (size_t)(end - at), at);
		if (n != end - at)
			return n < 0 ? -errno : -EIO;
		if (!is_zero(piece, (size_t)n))
			r = disk_rw(disk, DISK_WRITE,
				    (uint64_t)at + PARTITION_SECTOR * DISK_SECTOR_BYTES, piece,
				    (uint64_t)n);
		at = end;
		progress("writing Debian to its disk, %" PRIu64 " MiB", (uint64_t)at >> 20);
	}
	progress_end();
	return r;
}

static int fill_disk(struct install *in, struct error *err)
{
	const struct disk_options options = {.loop = NULL};
	int fd = open(in->fs, O_RDONLY | O_CLOEXEC);
	uint8_t *piece = malloc(PIECE_BYTES);
	struct disk *disk = NULL;
	struct stat st;
	int r = 0;

	if (!piece || fd < 0 || fstat(fd, &st) < 0)
		r = error_set(err, -errno, "%s: %s", in->fs, strerror(errno));
	if (r == 0)
		r = disk_open(&disk, in->d->disk, &options, err);
	if (r == 0) {
		r = write_table(disk, (uint64_t)st.st_size / DISK_SECTOR_BYTES);
		if (r == 0)
			r = copy_data(fd, disk, (uint64_t)st.st_size, piece);
		if (r == 0)
			r = disk_flush(disk);
		if (r < 0)
			error_set(err, r, "%s: %s", in->d->disk, strerror(-r));
	}
	disk_close(disk);
	free(piece);
	if (fd >= 0)
		close(fd);
	return r;
}

/* The kernel and its initramfs, which are booted without the disk's help. */
static int copy_kernel(struct install *in, struct error *err)
{
	char from[2][PATH_BYTES], to[2][PATH_BYTES];
	static const char *const names[] = {"vmlinuz", "initrd"};
	int r = 0;

	for (unsigned i = 0; r == 0 && i < 2; i++) {
		const char *const copy[] = {"cp", "--reflink=auto", from[i], to[i], NULL};
		snprintf(from[i], PATH_BYTES, "%.4000s/%s", in->base, names[i]);
		snprintf(to[i], PATH_BYTES, "%.3000s/%.1000s.%s", in->d->folder, in->d->base,
			 names[i]);
		r = tool(in, copy, NULL, err);
	}
	return r;
}

int debian_install(struct debian *d, struct error *err)
{
	struct install in = {.d = d};
	int lock_fd = -1;

	if (d->disk_bytes < DEBIAN_BYTES_MIN)
		return error_set(err, -EINVAL, "--disk: Debian needs at least 1G");
	int r = get_base(in.base, &lock_fd, err);
	snprintf(in.work, sizeof(in.work), "%.4000s/.install", d->folder);
	snprintf(in.fs, sizeof(in.fs), "%.4000s/root.ext4", in.work);
	snprintf(in.log, sizeof(in.log), "%.4000s.%s", in.base, log_name);
	new_uuid(in.uuid);
	if (r == 0 && mkdir(in.work, 0700) < 0)
		r = error_set(err, -errno, "%s: %s", in.work, strerror(errno));
	if (r == 0)
		r = copy_base(&in, err);
	if (r == 0)
		r = copy_kernel(&in, err);
	if (lock_fd >= 0)
		close(lock_fd);
	if (r == 0)
		r = personalise(&in, err);
	if (r == 0)
		r = fill_disk(&in, err);
	remove_folder(in.work, "/dev/null");
	snprintf(d->append, sizeof(d->append),
		 "console=ttyS0 root=UUID=%s rw rootflags=noinit_itable quiet", in.uuid);
	return r;
}
