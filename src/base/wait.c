/* SPDX-License-Identifier: Apache-2.0 */
#include "base/wait.h"

#include <sched.h>
#include <time.h>

enum { SPINS = 256, YIELDS = 64, NAP_NS = 20000 };

void wait_turn(unsigned turn)
{
	static const struct timespec nap = {.tv_nsec = NAP_NS};

	if (turn < SPINS)
		__builtin_ia32_pause();
	else if (turn < SPINS + YIELDS)
		sched_yield();
	else
		nanosleep(&nap, NULL);
}
