/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_BT_SMP_H
#define HANOK_TESTS_BT_SMP_H

/* Shared between smp.c and smp.S. The struct smp at GPA_SMP: */
#define GPA_SMP 0x200000
#define S_HERE 0
#define S_COUNTER 64
#define S_LOCK 128
#define S_FLAG 192
#define S_ACK 256
#define S_WRONG 320
#define S_DONE 384
#define S_WIDE 448
#define S_PLACE 640  /* and 704: cells to go */
#define S_SPLIT 572  /* over the end of a line */
#define S_BITS 1024  /* up to 3500 */
#define S_CROSS 4092 /* over the end of a page */
#define S_BYTES 8192

/* The cells of litmus tests: two variables in lines of their own, two results each. */
#define GPA_CELLS 0x400000
#define CELL_BYTES 256
#define CELL_OUT0 128
#define CELL_OUT1 192

#define GPA_FOUR 0xe0000 /* four pages */
#define PORT_IPI 0x10
#define IPI_VECTOR 0x42

#endif
