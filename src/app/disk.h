/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_DISK_H
#define HANOK_APP_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "disk/snapshot.h"

/* What the verbs of `hanok disk` share. Each gets argv[0] = its own name; an exit status. */
int disk_verb_create(int argc, char **argv);
int disk_verb_info(int argc, char **argv);
int disk_verb_check(int argc, char **argv);
int disk_verb_map(int argc, char **argv);
int disk_verb_convert(int argc, char **argv);
int disk_verb_resize(int argc, char **argv);
int disk_verb_compact(int argc, char **argv);

/* Options of new images, in the order of disk_create_options. */
enum {
	OPTION_FORMAT = 256,
	OPTION_TYPE,
	OPTION_THICK,
	OPTION_PARENT,
	OPTION_GRAIN,
	OPTION_ADAPTER
};
#define DISK_CREATE_OPTIONS                                                                        \
	{"format", required_argument, NULL, OPTION_FORMAT},                                        \
		{"type", required_argument, NULL, OPTION_TYPE},                                    \
		{"thick", required_argument, NULL, OPTION_THICK},                                  \
		{"grain", required_argument, NULL, OPTION_GRAIN},                                  \
	{                                                                                          \
		"adapter", required_argument, NULL, OPTION_ADAPTER                                 \
	}
/* Takes one of them, with its argument in optarg: the flag of a struct verb_words, whose opaque is a
 * struct disk_create_options. 0, or -EINVAL with a line. */
int disk_create_option(void *opaque, int option, struct error *err);

/* An image to work on; what is neither raw nor VMDK gets a line that says who reads it. */
int disk_open_image(struct disk **out, const char *path, const struct disk_options *opt,
		    struct error *err);
/* The same without opening: -EINVAL and a line for qcow2, VHD, VHDX, VDI and QED. */
int disk_refuse_foreign(const char *path, struct error *err);

/* "1.5 GiB", in one of a few buffers that are used in turn. */
const char *disk_size_text(uint64_t bytes);

/* Shows how far something is on stderr once it has taken 2 s; Ctrl-C stops it. */
struct disk_progress {
	struct snapshot_progress progress; /* to be handed on */
	const char *what;
	uint64_t start_ns, shown_ns;
	bool shown, terminal;
};
void disk_progress_begin(struct disk_progress *p, const char *what);
void disk_progress_end(struct disk_progress *p);

#endif
