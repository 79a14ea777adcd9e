/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_TESTS_UNIT_FAR_MACHINE_H
#define HANOK_TESTS_UNIT_FAR_MACHINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "cpu/engine.h"

/*
 * One vCPU of the reference engine with a state made by hand, for test_sys_far.c and
 * test_sys_seg.c: each case is one instruction or one event from `start` to `after`. The IDT is
 * empty unless a case fills it: an exception is seen by the engine's trace and then shuts the vCPU
 * down as it stood. Names in capitals are physical addresses and selectors.
 */
enum {
	GDT = 0x1000,
	IDT = 0x2000,
	TSS = 0x3000,
	TSS2 = 0x4000,
	CODE = 0x8000,
	HANDLER = 0x8800,
	STACK = 0xa000,
	STACK0 = 0xc000, /* of the TSS */
	IST1 = 0xe008,	 /* not aligned on purpose */
	PML4 = 0x100000,
	RAM = 2 << 20,
};
enum {
	CODE0 = 0x08,
	DATA0 = 0x10,
	CODE3 = 0x18,
	DATA3 = 0x20,
	CODE64 = 0x28,
	CODE64_3 = 0x30,
	STACK16_3 = 0x38, /* 16-bit data, DPL 3 */
	SMALL0 = 0x40,	  /* expand-up stack of 6 bytes, DPL 0 */
	TSS_SEL = 0x48,
	GATE = 0x58,
	TSS2_SEL = 0x68,
	ABSENT_CODE = 0x78,
	FRESH_CODE = 0x80, /* accessed bit clear */
	FRESH_STACK = 0x88,
	GDT_LIMIT = 0x9f,
};
enum { NONE = -1 };

extern uint8_t *ram, *ram_before; /* guest memory, and as it was before the last case ran */
extern struct vcpu *vcpu;
extern struct cpu_state start, after;
extern int first_event;		 /* the vector, as insn() returns it */
extern unsigned software_events; /* INT n and INT1 delivered so far */

/* cmocka group fixture. */
int setup(void **state);
int teardown(void **state);

/* Whose CPU the guest has. */
void amd(bool on);

/* Physical memory. */
void put(uint32_t at, uint64_t v, unsigned bytes);
uint64_t get(uint32_t at, unsigned bytes);

/* Into the GDT. access: type, S, DPL, P; flags: AVL, L, D, G. */
void descriptor(uint16_t sel, uint32_t base, uint32_t limit, uint8_t access, uint8_t flags);
/* A gate; low is the parameter count or the IST. */
void gate(uint32_t at, uint16_t sel, uint32_t offset, uint8_t access, uint8_t low);
/* To HANDLER, for the mode of `start`. */
void idt_gate(unsigned vector, uint16_t sel, uint8_t access);

/* As a segment register holds a descriptor of the GDT. */
struct segment segment_of(uint16_t sel);

/* `start`: flat 32-bit protected mode, no paging, CPL 0; or 64-bit mode, identity-mapped. */
void fresh32(void);
void fresh64(void);
void ring3_32(void);
void ring3_64(void);
void v86(void);

/* Goes from `start` to `after` through one instruction, wherever it leads. The vector of the first
 * exception or event delivered (software interrupts apart), or NONE. */
int go(void);
int insn(const char *bytes, size_t len);
#define INSN(bytes) insn(bytes, sizeof(bytes) - 1)

/* Delivers an event and runs a NOP of its handler. */
int event(uint8_t vector, enum event_kind kind, bool has_error, uint32_t error);
bool same_segment(const struct segment *a, const struct segment *b);

/* A fault: its vector and error code; and nothing the guest can see has changed. */
void assert_fault(int got, int vector, uint32_t error);

/* On the stack of `start`; on that of `after`. */
void pushes(unsigned size, const uint64_t *values, unsigned count);
void assert_stack(unsigned size, const uint64_t *values, unsigned count);
#define STACK_HOLDS(size, ...)                                                                     \
	pushes(size, (const uint64_t[]){__VA_ARGS__},                                              \
	       sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))
#define ASSERT_STACK(size, ...)                                                                    \
	assert_stack(size, (const uint64_t[]){__VA_ARGS__},                                        \
		     sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

#endif
