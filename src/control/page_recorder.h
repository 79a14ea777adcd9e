/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_PAGE_RECORDER_H
#define HANOK_CONTROL_PAGE_RECORDER_H

#include <stdint.h>

#include "base/error.h"
#include "machine/machine.h"

/*
 * Records which pages of a machine's memory are used, for so many seconds, into a file (mem/trace.h)
 * that `hanok lab` replays page-replacement policies on. References are what the engines' TLBs miss; they are
 * emptied once a period, so that a page in use is seen at least once a period. The loop's thread.
 */
struct page_recorder;

struct page_recording {
	uint64_t records, bytes, ns;
	bool cut; /* the file grew to its limit */
};

struct page_recorder_config {
	struct machine *machine;
	const char *path; /* made or emptied */
	uint64_t ns;	  /* how long */
	unsigned period_ms;
	uint64_t bytes_max; /* then it ends early */
	/* It is over: 0, or -errno with err. The loop's thread. */
	void (*over)(void *opaque, int code, const struct page_recording *r,
		     const struct error *err);
	void *opaque;
};

/* Begins. 0 or -errno with *err. */
int page_recorder_create(struct page_recorder **out, const struct page_recorder_config *cfg,
			 struct error *err);
/* When it is over, also within over(); or early, when the vCPUs have ended: what there is is then
 * written, and over() is not called. NULL is allowed. */
void page_recorder_destroy(struct page_recorder *p);

#endif
