/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_DEBUG_EXIT_H
#define HANOK_DEV_DEBUG_EXIT_H

#include "dev/dev.h"

/* A port through which a test guest ends its machine with a value (as QEMU's isa-debug-exit). It
 * has no state. Reads give 0. */
struct debug_exit;

extern const struct dev_ops debug_exit_ops;

int debug_exit_create(struct debug_exit **out, struct bus *bus, uint16_t port,
		      void (*fn)(void *opaque, uint32_t value), void *opaque, struct error *err);

#endif
