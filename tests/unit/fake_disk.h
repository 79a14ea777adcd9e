/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_FAKE_DISK_H
#define HANOK_TESTS_FAKE_DISK_H

#include "disk/disk.h"
#include "mem/mem.h"

/* A disk in memory under a test's control: takes the place of disk/disk.c for controllers. */
enum { FAKE_DISK_WAITING_MAX = 256 };

struct disk {
	uint8_t *bytes;
	struct disk_info info;
	bool later;	     /* requests wait for fake_disk_run or disk_drain */
	int error[DISK_OPS]; /* what requests of a kind end with; 0: well */
	unsigned count[DISK_OPS];
	uint64_t last_offset, last_bytes; /* of the last request */
	struct disk_request *waiting[FAKE_DISK_WAITING_MAX];
	unsigned waiting_count;
	struct mem *mem; /* if not NULL: what lies there of a request has to be pinned */
};

void fake_disk_init(struct disk *d, uint64_t bytes);
void fake_disk_free(struct disk *d);
/* Lets those that wait happen, and calls their done: returns how many. */
unsigned fake_disk_run(struct disk *d);

#endif
