/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_FAKE_TIME_H
#define HANOK_TESTS_FAKE_TIME_H

#include <stdint.h>

/* Time under a test's control: takes the place of base/clock and of base/loop's timers. */

/* What clock_utc_ns says now; it goes on with the time that passes. */
void fake_time_set_utc(uint64_t ns);
/* Lets ns pass, running each timer at its deadline. */
void fake_time_pass(uint64_t ns);
/* A slow host: so much passes with each look at the clock. Until it is set back to 0. */
void fake_time_drift(uint64_t ns);
/* A host that was away for ns: time jumps, then each timer that is due runs once. Returns how many
 * callbacks ran. */
unsigned fake_time_jump(uint64_t ns);
/* Forgets all timers. */
void fake_time_reset(void);

#endif
