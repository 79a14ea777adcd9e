/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MACHINE_VMX_H
#define HANOK_MACHINE_VMX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * A .vmx file: VMware's dictionary of one virtual machine, a line a key:
 *
 *     .encoding = "UTF-8"
 *     displayName = "Mail |22old|22"       |XX stands for the byte XX
 *     # comments, and empty lines
 *
 * Keys are compared without regard to case. Everything that is not set anew stays as it was in the
 * file: order, comments, spelling, keys that nobody here knows, line ends. vmx.c tells what is
 * taken and what is refused. No thread but one at a time.
 */
struct vmx;

enum { VMX_BYTES_MAX = 1 << 20, VMX_KEYS_MAX = 4096 };

/* A document with nothing but its encoding in it. 0 or -ENOMEM. */
int vmx_create(struct vmx **out, struct error *err);

/* From text in memory (copied); name is what a line of error begins with. -EINVAL: not a .vmx. */
int vmx_parse(struct vmx **out, const char *text, size_t len, const char *name, struct error *err);

/* From a file; name for errors is its path. */
int vmx_read(struct vmx **out, const char *path, struct error *err);

/* NULL is allowed. */
void vmx_destroy(struct vmx *v);

/* The value, in UTF-8 and without escapes, or NULL; the document's, till the key is set anew. */
const char *vmx_get(const struct vmx *v, const char *key);

/*
 * Typed values: `missing` when the key is not there or its value is empty. A bool is TRUE, FALSE,
 * yes, no, 1 or 0; a number decimal, from min to max. 0, or -EINVAL with *err naming file and key.
 */
int vmx_get_bool(const struct vmx *v, const char *key, bool missing, bool *out, struct error *err);
int vmx_get_number(const struct vmx *v, const char *key, uint64_t missing, uint64_t min,
		   uint64_t max, uint64_t *out, struct error *err);

/* Sets a key, in its place or at the end. -EINVAL: not a key that can be written; -ENOMEM;
 * -ENOSPC: VMX_KEYS_MAX. */
int vmx_set(struct vmx *v, const char *key, const char *value, struct error *err);
/* Takes its line out, if it is there. */
void vmx_unset(struct vmx *v, const char *key);

/* The keys in the file's order: i from 0; false after the last. */
bool vmx_entry(const struct vmx *v, unsigned i, const char **key, const char **value);

/* What it was read from, for lines of error. */
const char *vmx_name(const struct vmx *v);

/* The text as it would be written; *text is the caller's to free. 0 or -ENOMEM. */
int vmx_format(const struct vmx *v, char **text, size_t *len);

/* Replaces the file at once (a new file, synced, renamed over it): it is never seen half written. */
int vmx_write(const struct vmx *v, const char *path, struct error *err);

#endif
