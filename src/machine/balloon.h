/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MACHINE_BALLOON_H
#define HANOK_MACHINE_BALLOON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "dev/virtio/balloon.h"
#include "mem/mem.h"

/*
 * Who says how large a machine's balloon is to be: somebody, or by itself what keeps the machine below its
 * memory limit without swapping. balloon.c begins with how.
 */
enum balloon_mode {
	BALLOON_AUTO,
	BALLOON_OFF,  /* it stays as large as somebody says, 0 at first */
	BALLOON_NONE, /* the machine has no balloon */
	BALLOON_MODE_NR
};
/* As in options: "auto", "off", "none". */
extern const char *const balloon_mode_names[BALLOON_MODE_NR];

struct ballooner;
struct ballooner_config {
	struct mem *mem;
	struct balloon *balloon;
	struct loop *loop;
	enum balloon_mode mode; /* not BALLOON_NONE */
};

/* All on the loop's thread, or while it does not run. cfg is copied; what it points to outlives the
 * ballooner. 0 or -ENOMEM. */
int ballooner_create(struct ballooner **out, const struct ballooner_config *cfg, struct error *err);
/* NULL is allowed. */
void ballooner_destroy(struct ballooner *b);

/* BALLOON_AUTO: bytes does not count. BALLOON_OFF: so large from now on. */
void ballooner_set(struct ballooner *b, enum balloon_mode mode, uint64_t bytes);
enum balloon_mode ballooner_mode(const struct ballooner *b);
struct balloon *ballooner_balloon(struct ballooner *b);

/* What the size of an automatic balloon depends on; bytes, and of counts what was added since the last
 * time. */
struct balloon_view {
	uint64_t ram, limit, used; /* struct mem_stats; limit 0: none */
	uint64_t target, actual;
	uint64_t available; /* in the guest */
	uint64_t oom_kills, swapped, major_faults;
	bool tender; /* the guest was short a moment ago: do not grow */
};
struct balloon_advice {
	uint64_t target;
	bool is_short;	/* the guest is: it was made smaller */
	bool is_urgent; /* look again soon */
};
/* For ballooner and its tests. */
struct balloon_advice balloon_advise(const struct balloon_view *v);

#endif
