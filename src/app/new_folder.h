/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_NEW_FOLDER_H
#define HANOK_APP_NEW_FOLDER_H

#include "control/vm_folder.h"

/* A new machine's folder, for `create` and `clone`. */

/* May a machine be called so, or be put there? 0 or -EINVAL. */
int new_folder_check(const char *name, struct error *err);

/* Makes the folder: in vm_root(), or where name says when it has a slash. -EEXIST: it is there. On
 * success *out is the caller's, and nothing else is in the folder yet. */
int new_folder_make(const char *name, struct vm_folder *out, struct error *err);

/* Removes it with all that is in it, after a failure. */
void new_folder_undo(const struct vm_folder *f);

/* A new uuid.bios, as VMware writes one: "56 4d .. .. .. .. .. ..-.. .. .. .. .. .. .. ..". */
enum { UUID_BIOS_BYTES = 48 };
void new_uuid_bios(char text[UUID_BIOS_BYTES]);

#endif
