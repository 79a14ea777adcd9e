/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_BT_ENGINE_BT_H
#define HANOK_CPU_BT_ENGINE_BT_H

#include "cpu/engine.h"

/* The binary translator: fast without hardware help; needs no privilege. */
extern const struct engine_ops engine_bt;

#endif
