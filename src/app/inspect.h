/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_INSPECT_H
#define HANOK_APP_INSPECT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "app/draw.h"
#include "control/client.h"

/* What the files of `hanok inspect` share: the command line, and how each table is drawn. */
struct inspect_args {
	const char *vm, *table;
	const char *operands[2]; /* after the table's name */
	unsigned count;
	const char *cr3, *name, *svg, *out;
	uint64_t ns;	    /* --seconds; 0: not given */
	long long cpu, pid; /* -1: not given */
	bool physical, json, follow;
};

/* Prints an answer. The exit status. */
typedef int inspect_draw(const struct inspect_args *a, const json_t *answer);
inspect_draw draw_walk, draw_dump, draw_processes, draw_frames, draw_memory, draw_exits, draw_tlb,
	draw_trace, draw_any;

/* The absolute path of what need not exist, or NULL: out of memory, or there is no such folder. free() it. */
char *absolute_path(const char *path);

/* The whole of `faults`: asks again and again. */
int show_faults(const struct inspect_args *a, struct control_client *c, struct error *err);

/* JSON on standard output, without the "ok" of an answer. 0 or -errno with *err. */
int print_json(const json_t *answer, size_t flags, struct error *err);

#endif
