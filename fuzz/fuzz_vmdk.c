/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "disk/disk.h"
#include "disk/disk_tools.h"

/*
 * Hostile VMDKs: the input is the file disk.vmdk, after a first byte that says how it is used; its
 * second part, behind the marker below, is extent.vmdk, which descriptors may name. It is opened, read
 * all over, checked, written to, repaired and read again. Errors are one line, the files stay within
 * bounds, and what was written and flushed reads the same after opening again.
 */
enum { PIECE = 8192, LIMIT_MIB = 64 };

static const char marker[] = "<<extent>>";
static char folder[64], disk_path[96], extent_path[96];

static void must(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void quiet(void *opaque, enum log_level level, const char *line)
{
	(void)opaque, (void)level;
	must(!strchr(line, '\n'));
}

static void clean_up(void)
{
	unlink(disk_path);
	unlink(extent_path);
	rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *shm = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";

	(void)argc;
	(void)argv;
	snprintf(folder, sizeof(folder), "%s/hanok-fuzz-XXXXXX", shm);
	must(mkdtemp(folder) != NULL);
	snprintf(disk_path, sizeof(disk_path), "%s/disk.vmdk", folder);
	snprintf(extent_path, sizeof(extent_path), "%s/extent.vmdk", folder);
	log_set_sink(quiet, NULL);
	atexit(clean_up);
	return 0;
}

static void put_file(const char *path, const uint8_t *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	close(fd);
}

static struct disk *open_disk(bool read_only)
{
	struct disk_options opt = {.read_only = read_only};
	struct error err = {""};
	struct disk *d;
	int rc = disk_open(&d, disk_path, &opt, &err);

	must(rc <= 0 && !rc == !!d);
	must(!rc || (err.text[0] && !strchr(err.text, '\n')));
	return d;
}

/* Some pieces from all over the disk. */
static void read_around(struct disk *d, unsigned how)
{
	static uint8_t buf[PIECE];
	struct disk_info info;
	struct disk_run run;
	uint64_t step;

	disk_get_info(d, &info);
	must(info.bytes && info.bytes % DISK_SECTOR_BYTES == 0);
	step = info.bytes / 64 / 512 * 512 + 512 * (1 + how % 3);
	for (uint64_t at = 0; at < info.bytes && at / step < 80; at += step) {
		uint64_t n = info.bytes - at < PIECE ? info.bytes - at : PIECE;
		disk_rw(d, DISK_READ, at, buf, n);
		if (!disk_map(d, at, n, &run))
			must(run.bytes && run.bytes <= n && run.bytes % 512 == 0);
	}
}

/* In a sound image, where writes work, they have to be there afterwards. In one whose tables point to
 * each other, anything may. */
static void write_around(unsigned how, bool sound)
{
	static uint8_t buf[PIECE], got[PIECE];
	struct disk *d = open_disk(false);
	struct disk_info info;
	uint64_t at, n;
	bool wrote;

	if (!d)
		return;
	disk_get_info(d, &info);
	at = info.bytes / 7 / 512 * 512 * (how % 7);
	n = info.bytes - at < PIECE ? info.bytes - at : PIECE;
	memset(buf, 0x5c, sizeof(buf));
	wrote = !disk_rw(d, DISK_WRITE, at, buf, n);
	if (how & 8)
		disk_rw(d, DISK_WRITE_ZEROES, 0, NULL, at);
	if (how & 16)
		disk_rw(d, DISK_DISCARD, at + n, NULL, info.bytes - at - n);
	wrote = wrote && !disk_flush(d) && !disk_rw(d, DISK_READ, at, got, n);
	if (wrote && sound)
		must(!memcmp(buf, got, n));
	disk_close(d);
}

static bool check(bool repair)
{
	struct disk_check_options opt = {.repair = repair};
	struct disk_check_result result;
	struct error err = {""};
	int rc = disk_check(disk_path, &opt, &result, &err);

	must(rc <= 0);
	must(!rc || (err.text[0] && !strchr(err.text, '\n')));
	return !rc && !result.errors;
}

static bool sane(const char *path)
{
	struct stat st;

	return stat(path, &st) || (uint64_t)st.st_blocks * 512 < (uint64_t)LIMIT_MIB << 20;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *split;
	unsigned how;
	struct disk *d;
	bool sound;

	if (size < 2 || size > 1 << 20)
		return 0;
	how = *data++;
	size--;
	split = memmem(data, size, marker, sizeof(marker) - 1);
	put_file(disk_path, data, split ? (size_t)(split - data) : size);
	if (split) {
		split += sizeof(marker) - 1;
		put_file(extent_path, split, (size_t)(data + size - split));
	} else {
		unlink(extent_path);
	}
	d = open_disk(true);
	if (d)
		read_around(d, how);
	disk_close(d);
	sound = check(false);
	if (how & 1)
		write_around(how, sound);
	if (how & 2)
		check(true);
	if (how & 4)
		disk_resize(disk_path, (uint64_t)(how + 1) << 16, true, NULL);
	d = open_disk(true);
	if (d)
		read_around(d, how);
	disk_close(d);
	must(sane(disk_path) && sane(extent_path));
	return 0;
}
