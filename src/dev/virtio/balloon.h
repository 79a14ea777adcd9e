/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_VIRTIO_BALLOON_H
#define HANOK_DEV_VIRTIO_BALLOON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "bus/pci.h"
#include "dev/dev.h"
#include "mem/mem.h"

/*
 * The balloon (VIRTIO 5.5): the guest's driver takes pages away from its own system and names them
 * here, and their host memory is given back. balloon.c begins with how.
 */
struct balloon;

struct balloon_config {
	struct pci_bus *pci;
	unsigned slot;
	struct mem *mem;
	struct loop *loop;
};

/* cfg is copied. 0 or -errno with *err, *out being NULL then. */
int balloon_create(struct balloon **out, const struct balloon_config *cfg, struct error *err);
extern const struct dev_ops balloon_ops;

/* How large the guest is asked to make it, in bytes, cut to whole pages and to the size of RAM; kept
 * while the guest or the machine is reset. Any thread. */
void balloon_set_target(struct balloon *b, uint64_t bytes);

/* Asks the guest to tell about its memory once more; the answer comes when the guest likes. False:
 * it cannot be asked now, having no driver or not having answered yet. Any thread. */
bool balloon_ask(struct balloon *b);

/* What a guest tells about its memory (VIRTIO 5.5.6.4): in bytes, or counts since its boot. */
enum balloon_stat {
	BALLOON_SWAP_IN,
	BALLOON_SWAP_OUT,
	BALLOON_MAJOR_FAULTS,
	BALLOON_MINOR_FAULTS,
	BALLOON_FREE,
	BALLOON_TOTAL,
	BALLOON_AVAILABLE, /* for new programs, without swapping */
	BALLOON_CACHES,	   /* that can be given up at once */
	BALLOON_HUGE_ALLOCS,
	BALLOON_HUGE_FAILURES,
	BALLOON_OOM_KILLS,
	BALLOON_STAT_NR
};
/* As in JSON: "swap_in_bytes". */
extern const char *const balloon_stat_names[BALLOON_STAT_NR];
#define BALLOON_UNTOLD UINT64_MAX

struct balloon_info {
	bool driver;		 /* the guest has one, and it runs */
	uint64_t target, actual; /* bytes; actual: what the driver says, at most all of RAM */
	bool told;		 /* the rest is there */
	uint64_t told_ns;	 /* when: clock_ns */
	uint64_t stat[BALLOON_STAT_NR]; /* BALLOON_UNTOLD: the driver does not tell */
	/* Pages, since the start. */
	uint64_t inflated, deflated, reported;
	uint64_t refused;  /* not in RAM, or too many at a time */
	uint64_t repeated; /* in the balloon already */
	uint64_t kept;	   /* not given back: reported by a guest that poisons free pages, or no
			    * memory of the host's to do it with */
};
/* Any thread. */
void balloon_get_info(struct balloon *b, struct balloon_info *info);

#endif
