/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_DRIVES_H
#define HANOK_APP_DRIVES_H

#include <stdbool.h>

#include "base/error.h"
#include "machine/storage.h"

/*
 * --disk FILE[,model=NAME][,readonly][,direct] and --cdrom FILE[,model=NAME]: adds the drive to the
 * plan. A comma that belongs to the file's name is written twice. spec is changed in place and must
 * stay: the plan points into it. 0, or -errno with *err naming the option.
 */
int drives_add(struct storage_plan *plan, const char *option, char *spec, bool cdrom,
	       struct error *err);

#endif
