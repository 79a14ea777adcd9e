/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_DISK_RIG_INTERNAL_H
#define HANOK_TESTS_DISK_RIG_INTERNAL_H

#include "rig.h"

/* Shared by the files of the rig only. */

/* What a write with this stamp puts into a sector, 0: zeroes; and is it that? */
void stamp_fill(void *buf, uint64_t sector, uint64_t stamp);
bool stamp_has(const void *buf, uint64_t sector, uint64_t stamp);
uint64_t *copy_stamps(const uint64_t *stamp, uint64_t n);

/* p, or the program ends. */
void *must(void *p);
/* The caller's to free. */
char *in_folder(const char *folder, const char *name);

#endif
