/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's half of the disk benchmark (disk.py is the other): it reads orders from the console, a line each,
 * and does them.
 *
 *   DEVICE read|write random|order BYTES DEPTH MS
 *   DEVICE fill SHARE SHARES       writes the grains (64 KiB) of which SHARE is the number modulo SHARES
 *
 * Every request is O_DIRECT, past the guest's page cache. Depth 1 is pread and pwrite; more is Linux's own
 * asynchronous I/O, where what has ended is replaced at once. What is printed:
 *
 *   diskio-begin
 *   diskio requests=N elapsed_ns=N pause_ns=N       the longest time in which no request ended
 *   diskio-failed WHY
 *
 * `diskio-ready` comes first, when orders are taken. The end of input, or a line `end`, ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH_MAX = 64, BYTES_MAX = 1 << 20, ALIGN = 4096, GRAIN = 65536 };

struct job {
	int fd;
	int write, in_order;
	uint64_t bytes;	 /* of a request */
	uint64_t places; /* of that size on the disk */
	unsigned depth;
	uint64_t random, next; /* where the last request was, for random ones and those in order */
	uint64_t start_ns, end_ns, last_ns;
	uint64_t requests, pause_ns;
};

static char *buffers; /* DEPTH_MAX of BYTES_MAX */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static off_t place(struct job *j)
{
	if (j->in_order)
		return (off_t)(j->next++ % j->places * j->bytes);
	j->random ^= j->random << 13;
	j->random ^= j->random >> 7;
	j->random ^= j->random << 17;
	return (off_t)(j->random % j->places * j->bytes);
}

/* Requests have ended: is it over? */
static int ended(struct job *j, unsigned requests)
{
	uint64_t now = now_ns();

	if (now - j->last_ns > j->pause_ns)
		j->pause_ns = now - j->last_ns;
	j->last_ns = now;
	j->requests += requests;
	return now >= j->end_ns;
}

/* 0 or -errno, as all that follow. */
static int one_by_one(struct job *j)
{
	do {
		off_t at = place(j);
		ssize_t n = j->write ? pwrite(j->fd, buffers, j->bytes, at)
				     : pread(j->fd, buffers, j->bytes, at);
		if (n != (ssize_t)j->bytes)
			return n < 0 ? -errno : -EIO;
	} while (!ended(j, 1));
	return 0;
}

static int submit(struct job *j, aio_context_t aio, struct iocb **list, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		list[i]->aio_offset = place(j);
	while (count) {
		long n = syscall(SYS_io_submit, aio, (long)count, list);
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		list += n;
		count -= (unsigned)n;
	}
	return 0;
}

static int many_at_once(struct job *j, aio_context_t aio)
{
	struct iocb request[DEPTH_MAX] = {0}, *list[DEPTH_MAX];
	struct io_event event[DEPTH_MAX];
	unsigned in_flight = j->depth, over = 0;

	for (unsigned i = 0; i < j->depth; i++) {
		request[i].aio_fildes = (uint32_t)j->fd;
		request[i].aio_lio_opcode = j->write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
		request[i].aio_buf = (uintptr_t)(buffers + (size_t)i * BYTES_MAX);
		request[i].aio_nbytes = j->bytes;
		request[i].aio_data = (uintptr_t)&request[i];
		list[i] = &request[i];
	}
	int rc = submit(j, aio, list, in_flight);
	while (!rc && in_flight) {
		long n = syscall(SYS_io_getevents, aio, 1L, (long)DEPTH_MAX, event, NULL);
		if (n < 0)
			return -errno;
		for (long i = 0; i < n; i++) {
			if (event[i].res != (int64_t)j->bytes)
				return event[i].res < 0 ? (int)event[i].res : -EIO;
			list[i] = (struct iocb *)(uintptr_t)event[i].data;
		}
		/* The last ones count too: all in flight are waited for within the time that is told. */
		over = ended(j, (unsigned)n) || over;
		if (over)
			in_flight -= (unsigned)n;
		else
			rc = submit(j, aio, list, (unsigned)n);
	}
	return rc;
}

static int transfer(struct job *j, unsigned ms)
{
	aio_context_t aio = 0;
	int rc;

	if (j->depth > 1 && syscall(SYS_io_setup, DEPTH_MAX, &aio))
		return -errno;
	j->start_ns = j->last_ns = now_ns();
	j->end_ns = j->start_ns + (uint64_t)ms * 1000000;
	rc = j->depth > 1 ? many_at_once(j, aio) : one_by_one(j);
	if (j->depth > 1)
		syscall(SYS_io_destroy, aio);
	return rc;
}

static int fill(struct job *j, unsigned share, unsigned shares, uint64_t disk_bytes)
{
	j->start_ns = j->last_ns = now_ns();
	for (uint64_t grain = 0; grain < disk_bytes / GRAIN; grain++) {
		if (grain * 7 % shares != share)
			continue;
		for (size_t i = 0; i < GRAIN; i += sizeof(grain))
			memcpy(buffers + i, &grain, sizeof(grain));
		if (pwrite(j->fd, buffers, GRAIN, (off_t)(grain * GRAIN)) != GRAIN)
			return -errno;
		ended(j, 1);
	}
	return fsync(j->fd) ? -errno : 0;
}

static int order(struct job *j, const char *verb, char *const *word, unsigned words)
{
	uint64_t disk_bytes;

	if (ioctl(j->fd, BLKGETSIZE64, &disk_bytes))
		return -errno;
	if (!strcmp(verb, "fill") && words == 2 && atoi(word[1]) > 0)
		return fill(j, (unsigned)atoi(word[0]), (unsigned)atoi(word[1]), disk_bytes);
	if (words != 4)
		return -EINVAL;
	j->write = !strcmp(verb, "write");
	j->in_order = !strcmp(word[0], "order");
	j->bytes = strtoull(word[1], NULL, 10);
	j->depth = (unsigned)atoi(word[2]);
	if (!j->bytes || j->bytes % 512 || j->bytes > BYTES_MAX || !j->depth ||
	    j->depth > DEPTH_MAX)
		return -EINVAL;
	j->places = disk_bytes / j->bytes;
	return j->places ? transfer(j, (unsigned)atoi(word[3])) : -EINVAL;
}

static void do_line(char *line)
{
	/* The same places in every round; not the same as in the round before: 0 is no start. */
	static uint64_t random = 88172645463325252;
	struct job j = {.random = random += 2};
	char *word[6] = {NULL};
	unsigned words = 0;
	int rc;

	for (char *at = strtok(line, " \r\n"); at && words < 6; at = strtok(NULL, " \r\n"))
		word[words++] = at;
	if (!words)
		return;
	j.fd = words < 3 ? -1 : open(word[0], O_RDWR | O_DIRECT | O_CLOEXEC);
	if (j.fd < 0 && (errno == EROFS || errno == EACCES || errno == EPERM))
		j.fd = open(word[0], O_RDONLY | O_DIRECT | O_CLOEXEC);
	printf("diskio-begin\n");
	fflush(stdout);
	rc = words < 3 ? -EINVAL : j.fd < 0 ? -errno : order(&j, word[1], word + 2, words - 2);
	if (rc)
		printf("diskio-failed %s: %s\n", word[0], strerror(-rc));
	else
		printf("diskio requests=%llu elapsed_ns=%llu pause_ns=%llu\n",
		       (unsigned long long)j.requests, (unsigned long long)(j.last_ns - j.start_ns),
		       (unsigned long long)j.pause_ns);
	fflush(stdout);
	if (j.fd >= 0)
		close(j.fd);
}

int main(void)
{
	struct termios t;
	char line[256];

	/* What is sent is not sent back. */
	if (!tcgetattr(STDIN_FILENO, &t)) {
		t.c_lflag &= ~(tcflag_t)ECHO;
		tcsetattr(STDIN_FILENO, TCSANOW, &t);
	}
	if (posix_memalign((void **)&buffers, ALIGN, (size_t)DEPTH_MAX * BYTES_MAX)) {
		printf("diskio-failed no memory\n");
		return 1;
	}
	memset(buffers, 0x5a, (size_t)DEPTH_MAX * BYTES_MAX);
	printf("diskio-ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) && strncmp(line, "end", 3))
		do_line(line);
	return 0;
}
