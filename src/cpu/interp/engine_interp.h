/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_INTERP_ENGINE_INTERP_H
#define HANOK_CPU_INTERP_ENGINE_INTERP_H

#include "cpu/engine.h"

/* The reference engine: complete, exact, no speed to speak of; works on every host. */
extern const struct engine_ops engine_interp;

#endif
