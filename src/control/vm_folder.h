/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_VM_FOLDER_H
#define HANOK_CONTROL_VM_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/error.h"

/*
 * A virtual machine lives in a folder:
 *
 *     mail/mail.vmx       what it is (machine/vmx.h)
 *     mail/mail.vmdk      its first disk, and what else hanok.* keys name
 *     mail/mail.nvram     what its firmware remembers
 *     mail/mail.log       its life; mail-0.log, -1, -2: those before
 *     mail/mail.vmx.lck   locked while it runs; says who runs it and where its control socket is
 *
 * Folders may be anywhere; those made by name alone are in vm_root(), ~/hanok.
 */
struct vm_folder {
	char *vmx;    /* absolute path of the .vmx */
	char *folder; /* absolute path without a slash at its end */
	char *base;   /* the .vmx file's name without .vmx */
};

/*
 * Finds the machine that a person means by word: the path of a .vmx or of its folder; the name of a
 * folder in vm_root(); the display name of a machine that is there or runs. 0; -ENOENT, -EINVAL or
 * another -errno with *err. On success vm_folder_free frees it.
 */
int vm_find(struct vm_folder *out, const char *word, struct error *err);

/* From the path of a .vmx that need not be there, but its folder must. */
int vm_folder_of(struct vm_folder *out, const char *vmx_path, struct error *err);
void vm_folder_free(struct vm_folder *f);

/* FOLDER/BASE + suffix (".log"), the caller's to free; NULL when out of memory. */
char *vm_file(const struct vm_folder *f, const char *suffix);

/* Calls fn with each .vmx in the folders right below vm_root(), until it returns non-zero, which is
 * then returned; in no order. */
int vm_each(int (*fn)(void *opaque, const char *vmx_path), void *opaque);

/* $HANOK_VMS, or ~/hanok; the caller's to free. NULL: out of memory or no home. */
char *vm_root(void);

/* Where control sockets are: $HANOK_RUNTIME, $XDG_RUNTIME_DIR/hanok or ~/.local/state/hanok; the
 * caller's to free. create: made with mode 0700 if need be, and refused when others may write. */
int vm_runtime(char **out, bool create, struct error *err);

/* ---- running once ---- */

/* Who runs a machine, from its lock file. */
struct vm_runner {
	pid_t pid;	  /* 0: not known */
	char socket[108]; /* empty: none yet */
};

/*
 * Locks the machine for this process, or one that it forks, until the descriptor is closed by all.
 * -EBUSY: it runs (also by VMware), and *err says so.
 */
int vm_lock(const struct vm_folder *f, int *fd, struct error *err);
/* Writes down who runs it. */
int vm_lock_note(int fd, const struct vm_runner *r, struct error *err);
/* Removes the file and unlocks. fd < 0 is allowed. */
void vm_unlock(const struct vm_folder *f, int fd);

/* 1: it runs, *r says who; 0: it does not; or -errno. Takes no lock, so disturbs nobody. */
int vm_is_running(const struct vm_folder *f, struct vm_runner *r, struct error *err);

#endif
