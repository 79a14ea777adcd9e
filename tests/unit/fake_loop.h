/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_FAKE_LOOP_H
#define HANOK_TESTS_FAKE_LOOP_H

/* loop_post without a loop: what was posted waits until a test runs it. Beside fake_time.c. */

/* Runs what was posted so far: returns how many. */
unsigned fake_loop_run(void);
/* Forgets what was posted. */
void fake_loop_reset(void);

#endif
