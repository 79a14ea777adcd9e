/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_INSPECT_BTF_H
#define HANOK_CONTROL_INSPECT_BTF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * BTF, the description of a Linux kernel's types that the kernel carries in its read-only data
 * (Documentation/bpf/btf.rst of Linux): just enough of it to ask where a member lies in a structure. It comes
 * from a guest's memory, so nothing in it is believed: whatever the bytes are, every call ends.
 */
enum { BTF_HEADER_BYTES = 24, BTF_BYTES_MAX = 64 << 20 };

/* Whether BTF may begin with these bytes (BTF_HEADER_BYTES of them); *bytes is then the length of all of
 * it, at most BTF_BYTES_MAX. */
bool btf_begins(const void *header, size_t *bytes);

struct btf;

/* data stays the caller's and outlives the btf. 0, -EINVAL: this is not whole and sound, -ENOMEM. */
int btf_open(struct btf **out, const void *data, size_t bytes);
/* NULL is allowed. */
void btf_close(struct btf *b);

/*
 * The offset in bytes of a member of a named structure or union; members of unnamed ones within it count
 * as its own. -ENOENT: there is none (or it is a bit field), in the first structure of that name that
 * has members. Any thread.
 */
int btf_member(const struct btf *b, const char *type, const char *member, uint32_t *offset);

#endif
