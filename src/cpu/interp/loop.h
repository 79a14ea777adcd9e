/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CPU_INTERP_LOOP_H
#define HANOK_CPU_INTERP_LOOP_H

#include "cpu/interp/interp.h"

/* What the loop of interp.c has of leave.c and event.c. */

/* How a handler left: what run()'s setjmp returns. interp.c tells what follows. */
enum leave { LEAVE_FAULT = 1, LEAVE_EXIT, LEAVE_AGAIN };

/* Takes the answer of the exit that run() left with. */
void cpu_complete_exit(struct soft_cpu *c, const struct exit *exit);
/* What was going on is as if it had not been begun; an event will be delivered first thing. */
void cpu_take_back(struct soft_cpu *c);

/* A fault came up, perhaps while another event was being delivered. */
void cpu_handle_fault(struct soft_cpu *c);
/* A debug exception, with the cause in DR6 (SDM 17.2.3). */
void cpu_debug_exception(struct soft_cpu *c, uint64_t dr6);
/* The event of the state, which was taken back or was there when the state was set. */
void cpu_deliver_pending(struct soft_cpu *c);
/* Handles what is asked for between instructions. True when run() has to return with c->exit. */
bool cpu_take_requests(struct soft_cpu *c, uint32_t req);

#endif
