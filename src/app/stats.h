/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_STATS_H
#define HANOK_APP_STATS_H

#include "machine/machine.h"

/*
 * Prints on stderr what took the guest out of its straight path, by cause and over all vCPUs, and
 * what the whole has cost the host. wall_ns is the time since the machine started.
 */
void stats_print(struct machine *m, uint64_t wall_ns);

#endif
