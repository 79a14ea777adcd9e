/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_GDB_REGS_H
#define HANOK_CONTROL_GDB_REGS_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu/state/cpu_state.h"

/*
 * The registers as gdb numbers them: those of its own i386:x86-64 (or i386) target descriptions,
 * and after them the system registers. Values are little-endian bytes.
 */
enum gdb_arch { GDB_X86_64, GDB_I386 };
enum { GDB_REG_BYTES_MAX = 16 };

/* cpu_state with what it does not hold. */
struct gdb_cpu {
	struct cpu_state s;
	uint8_t cr8; /* read only */
};

/* How many registers there are. */
unsigned gdb_regs_count(enum gdb_arch arch);

/* Size of register n in bytes; 0 when there is none. */
unsigned gdb_reg_bytes(enum gdb_arch arch, unsigned n);

/* Reads register n; its size. */
unsigned gdb_reg_read(enum gdb_arch arch, unsigned n, const struct gdb_cpu *c,
		      uint8_t value[GDB_REG_BYTES_MAX]);

/* Writes register n of gdb_reg_bytes bytes; false when it cannot be written. Selectors take
 * nothing but their number: the hidden parts stay. */
bool gdb_reg_write(enum gdb_arch arch, unsigned n, struct gdb_cpu *c, const uint8_t *value);

/* The target description (GDB manual, appendix G), malloc'd. NULL when memory is out. */
char *gdb_target_xml(enum gdb_arch arch);

#endif
