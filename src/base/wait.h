/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BASE_WAIT_H
#define HANOK_BASE_WAIT_H

/*
 * One turn of waiting for what another thread does soon, the turn'th from 0. The first turns are spun, for
 * one that runs is done in a moment; then the processor is given up, for on a busy host the other may be
 * waiting for that very processor; then it is napped.
 */
void wait_turn(unsigned turn);

#endif
