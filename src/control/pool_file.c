/* SPDX-License-Identifier: Apache-2.0 */
#include "control/pool_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/vm_folder.h"

enum { VERSION = 1, HEADER_BYTES = 4096, SLOT_BYTES = 256, LOCK_TRIES = 100, READ_TRIES = 5 };
enum { FILE_BYTES = HEADER_BYTES + POOL_MEMBERS * SLOT_BYTES };
static const char magic[8] = "HANOKPL";

struct header {
	char magic[8];
	uint32_t version, members;
	uint64_t pool_bytes;
	uint64_t check; /* of what is before it */
};

struct slot {
	struct pool_member m; /* pid 0: nobody has it */
	uint64_t check;
};
_Static_assert(sizeof(struct slot) <= SLOT_BYTES, "a slot is 256 bytes");

struct pool_file {
	int fd, slot; /* slot -1: none */
	char *path;
	uint8_t bytes[POOL_MEMBERS * SLOT_BYTES];
};

/* FNV-1a, 64 bits: against what is half written, not against malice; the file is the user's own. */
static uint64_t checksum(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static off_t slot_at(int slot)
{
	return HEADER_BYTES + (off_t)slot * SLOT_BYTES;
}

static int failed(const struct pool_file *f, int code, struct error *err)
{
	return error_set(err, code, "%s: %s", f->path, strerror(-code));
}

static int unusable(const struct pool_file *f, const char *why, struct error *err)
{
	return error_set(err, -EINVAL,
			 "%s: %s; remove it, and machines will make a new one (set the pool's size "
			 "again by `hanok pool SIZE`)",
			 f->path, why);
}

/* ---- locks ---- */

static struct flock range(short type, off_t at, off_t len)
{
	return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = len};
}

/* For a moment only, so it is free soon, unless who holds it was stopped. */
static int lock_header(struct pool_file *f, struct error *err)
{
	struct flock l = range(F_WRLCK, 0, HEADER_BYTES);

	for (int n = 0; n < LOCK_TRIES; n++) {
		if (fcntl(f->fd, F_OFD_SETLK, &l) == 0)
			return 0;
		if (errno != EAGAIN && errno != EACCES)
			return failed(f, -errno, err);
		usleep(10000);
	}
	return error_set(err, -EBUSY, "%s: another hanok keeps it locked; is one stopped?",
			 f->path);
}

static void unlock_header(struct pool_file *f)
{
	struct flock l = range(F_UNLCK, 0, HEADER_BYTES);

	fcntl(f->fd, F_OFD_SETLK, &l);
}

/* Does somebody else have it? */
static bool is_owned(const struct pool_file *f, int slot)
{
	struct flock l = range(F_WRLCK, slot_at(slot), SLOT_BYTES);

	return fcntl(f->fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

/* ---- header ---- */

static int write_header(struct pool_file *f, uint64_t pool_bytes, struct error *err)
{
	struct header h = {.version = VERSION, .members = POOL_MEMBERS, .pool_bytes = pool_bytes};

	memcpy(h.magic, magic, sizeof(magic));
	h.check = checksum(&h, offsetof(struct header, check));
	if (pwrite(f->fd, &h, sizeof(h), 0) != sizeof(h))
		return failed(f, errno ? -errno : -EIO, err);
	return 0;
}

/* What is wrong with a header of which so many bytes could be read; NULL: nothing. */
static const char *wrong_with(const struct header *h, ssize_t got)
{
	if (got < (ssize_t)sizeof(*h))
		return "it is cut off";
	if (memcmp(h->magic, magic, sizeof(magic)))
		return "not a pool's file";
	if (h->version != VERSION || h->members != POOL_MEMBERS)
		return "it is of another version of hanok";
	return h->check == checksum(h, offsetof(struct header, check)) ? NULL : "it is damaged";
}

/* It may be half written at this moment: then again. */
static int read_header(struct pool_file *f, uint64_t *pool_bytes, struct error *err)
{
	const char *wrong = NULL;
	struct header h;

	for (int n = 0; n < READ_TRIES; n++) {
		ssize_t got = pread(f->fd, &h, sizeof(h), 0);
		if (got < 0)
			return failed(f, -errno, err);
		wrong = wrong_with(&h, got);
		if (!wrong) {
			*pool_bytes = h.pool_bytes;
			return 0;
		}
		usleep(1000);
	}
	return unusable(f, wrong, err);
}

/* With the header locked: an empty file becomes a pool's. */
static int fill_in(struct pool_file *f, struct error *err)
{
	uint64_t pool_bytes;
	struct stat st;

	if (fstat(f->fd, &st) < 0)
		return failed(f, -errno, err);
	if (st.st_size)
		return read_header(f, &pool_bytes, err);
	if (ftruncate(f->fd, FILE_BYTES) < 0)
		return failed(f, -errno, err);
	return write_header(f, 0, err);
}

/* ---- opening ---- */

static int check_file(struct pool_file *f, struct error *err)
{
	struct stat st;

	if (fstat(f->fd, &st) < 0)
		return failed(f, -errno, err);
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 077)
		return unusable(f, "others may write to it, or it is not a file of yours", err);
	return 0;
}

static int open_in(struct pool_file *f, bool create, struct error *err)
{
	uint64_t pool_bytes;

	f->fd = open(f->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (create ? O_CREAT : 0),
		     0600);
	if (f->fd < 0)
		return failed(f, -errno, err);
	int r = check_file(f, err);
	if (r == 0 && create) {
		r = lock_header(f, err);
		if (r == 0) {
			r = fill_in(f, err);
			unlock_header(f);
		}
	}
	return r == 0 ? read_header(f, &pool_bytes, err) : r;
}

int pool_file_open(struct pool_file **out, bool create, struct error *err)
{
	struct pool_file *f = calloc(1, sizeof(*f));
	char *folder = NULL;

	*out = NULL;
	if (!f)
		return error_set(err, -ENOMEM, "the memory pool: out of memory");
	f->fd = f->slot = -1;
	int r = vm_runtime(&folder, create, err);
	if (r == 0 && asprintf(&f->path, "%s/pool", folder) < 0) {
		f->path = NULL;
		r = error_set(err, -ENOMEM, "the memory pool: out of memory");
	}
	free(folder);
	if (r == 0)
		r = open_in(f, create, err);
	if (r < 0) {
		pool_file_close(f);
		return r;
	}
	*out = f;
	return 0;
}

void pool_file_close(struct pool_file *f)
{
	const uint8_t nothing[SLOT_BYTES] = {0};

	if (!f)
		return;
	/* Only for tidiness: without its lock it is free. */
	if (f->slot >= 0 && pwrite(f->fd, nothing, SLOT_BYTES, slot_at(f->slot)) < 0)
		f->slot = -1;
	if (f->fd >= 0)
		close(f->fd);
	free(f->path);
	free(f);
}

/* ---- slots ---- */

int pool_file_claim(struct pool_file *f, struct error *err)
{
	for (int slot = 0; slot < POOL_MEMBERS; slot++) {
		struct flock l = range(F_WRLCK, slot_at(slot), SLOT_BYTES);
		if (fcntl(f->fd, F_OFD_SETLK, &l) == 0) {
			f->slot = slot;
			return 0;
		}
		if (errno != EAGAIN && errno != EACCES)
			return failed(f, -errno, err);
	}
	return error_set(err, -ENOSPC, "%s: %d machines are in it already, and no more fit",
			 f->path, POOL_MEMBERS);
}

int pool_file_publish(struct pool_file *f, const struct pool_member *m, struct error *err)
{
	uint8_t bytes[SLOT_BYTES] = {0};
	struct slot s = {.m = *m};

	s.check = checksum(&s, offsetof(struct slot, check));
	memcpy(bytes, &s, sizeof(s));
	if (pwrite(f->fd, bytes, SLOT_BYTES, slot_at(f->slot)) != SLOT_BYTES)
		return failed(f, errno ? -errno : -EIO, err);
	return 0;
}

int pool_file_set_size(struct pool_file *f, uint64_t bytes, struct error *err)
{
	int r = lock_header(f, err);

	if (r < 0)
		return r;
	r = write_header(f, bytes, err);
	unlock_header(f);
	return r;
}

/* The member in a slot; false: nobody, or it was half written each time that it was looked at. */
static bool take_slot(const struct pool_file *f, int slot, struct pool_member *m)
{
	struct slot s;

	memcpy(&s, f->bytes + (size_t)slot * SLOT_BYTES, sizeof(s));
	if (slot == f->slot || !s.m.pid || !is_owned(f, slot))
		return false;
	for (int n = 0; s.check != checksum(&s, offsetof(struct slot, check)); n++)
		if (n == READ_TRIES || pread(f->fd, &s, sizeof(s), slot_at(slot)) != sizeof(s))
			return false;
	*m = s.m;
	m->name[POOL_NAME_BYTES - 1] = 0;
	return m->pid != 0;
}

int pool_file_read(struct pool_file *f, uint64_t *pool_bytes, struct pool_member *members,
		   struct error *err)
{
	struct stat st;
	int count = 0;

	if (fstat(f->fd, &st) < 0)
		return failed(f, -errno, err);
	if (!st.st_nlink)
		return error_set(err, -ESTALE, "%s: it was removed", f->path);
	int r = read_header(f, pool_bytes, err);
	if (r < 0)
		return r;
	ssize_t got = pread(f->fd, f->bytes, sizeof(f->bytes), HEADER_BYTES);
	if (got < 0)
		return failed(f, -errno, err);
	if (got < (ssize_t)sizeof(f->bytes))
		return unusable(f, "it is cut off", err);
	for (int slot = 0; slot < POOL_MEMBERS; slot++)
		count += take_slot(f, slot, &members[count]);
	return count;
}
