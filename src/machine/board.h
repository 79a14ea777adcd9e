/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MACHINE_BOARD_H
#define HANOK_MACHINE_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "cpu/engine.h"
#include "dev/nic.h"
#include "dev/storage.h"
#include "dev/uart.h"
#include "mem/mem.h"
#include "state/stream.h"

/*
 * The board: every device of the machine, wired as in machine/layout.h. It is made before the
 * vCPUs, because an engine wants the board's callbacks when it makes one:
 *
 *     board_create -> per vCPU: board_vcpu_callbacks, ops->vcpu_create, board_attach_vcpu
 *     ... run; exits go to bus_access, board_rdmsr and board_wrmsr ...
 *     loop stopped, vCPU threads joined -> board_destroy -> vCPUs and engine destroyed
 */
struct balloon;
struct board;
struct fw_cfg;
struct pci_bus;

/* A storage controller for the board; its units' disks are the machine's (machine/storage.h). */
struct board_controller {
	const struct storage_kind *kind;
	const struct storage_unit *units; /* by rising target */
	unsigned unit_count;
};

/* A network card for the board; its cable is the machine's (machine/nic.h). */
struct board_nic {
	const struct nic_kind *kind;
	uint8_t mac[6];
	struct netport *cable; /* NULL: none is plugged in */
};

enum { BOARD_SERIAL_PORTS = 2, BOARD_CPUS_MAX = 255 };

struct board_config {
	struct mem *mem;
	struct bus *bus;
	struct loop *loop;
	unsigned cpus;	    /* 1 to BOARD_CPUS_MAX; APIC ids are the vCPU indices */
	uint64_t tsc_hz;    /* of the guest's TSC, which is the host's plus an offset */
	unsigned phys_bits; /* the CPUs' physical address width as CPUID tells it, 32 to 52 */

	/* COM1 and COM2; a zeroed one is a port with nothing plugged in. Copied. */
	struct uart_backend serial[BOARD_SERIAL_PORTS];

	uint16_t debug_exit_port; /* 0: none */
	bool balloon;		  /* a virtio balloon in PCI slot LAYOUT_BALLOON_SLOT */

	const struct board_controller *controller; /* in PCI slots LAYOUT_STORAGE_SLOT on */
	unsigned controllers;			   /* 0 to LAYOUT_STORAGE_SLOTS */

	const struct board_nic *nic; /* in PCI slots LAYOUT_NIC_SLOT on */
	unsigned nics;		     /* 0 to LAYOUT_NIC_SLOTS */

	/*
	 * What a guest may do to its machine. Called on the thread of the vCPU whose access did it,
	 * with device locks held: note it, kick the vCPUs and return; do not call the board. After
	 * power_off or debug_exit no more guest code should run. reset asks for a system reset
	 * (port CF9h, keyboard controller, port 92h): the machine stops all vCPUs, calls
	 * board_reset, puts the vCPUs into their reset state and runs them.
	 */
	void (*power_off)(void *opaque);
	void (*reset)(void *opaque);
	void (*debug_exit)(void *opaque, uint32_t value); /* the bytes written, zero-extended */
	void *opaque;
};

/* cfg is copied; what it points to outlives the board. The devices come out reset. On failure *out
 * is NULL. Before the loop runs, or on its thread. */
int board_create(struct board **out, const struct board_config *cfg, struct error *err);

/* vCPUs and the loop do not run, or on the loop's thread. NULL is allowed. */
void board_destroy(struct board *b);

/* System reset of every device. vCPUs do not run. Any one thread. */
void board_reset(struct board *b);

/* Saves or restores every device, by the stream's direction; the caller asks state_stream_error.
 * vCPUs are attached and do not run. A board whose restore failed must be reset or destroyed. */
void board_state(struct board *b, struct state_stream *s);

/* What to hand to the engine's vcpu_create for that vCPU; and the vCPU it made, before it runs.
 * board_attach_vcpu(b, cpu, NULL) takes it away again. */
void board_vcpu_callbacks(struct board *b, unsigned cpu, struct vcpu_board *out);
void board_attach_vcpu(struct board *b, unsigned cpu, struct vcpu *v);

/*
 * EXIT_RDMSR and EXIT_WRMSR for the local APIC: IA32_APIC_BASE (1Bh), IA32_TSC_DEADLINE (6E0h),
 * x2APIC (800h-8FFh). 0, or -ENOENT for #GP: not the board's, or not allowed now. The vCPU's own
 * thread.
 */
int board_rdmsr(struct board *b, unsigned cpu, uint32_t index, uint64_t *value);
int board_wrmsr(struct board *b, unsigned cpu, uint32_t index, uint64_t value);

/* The guest's TSC of that vCPU is the host's plus offset (0 at create): to be told when it changes
 * (IA32_TSC, IA32_TSC_ADJUST, restore), for the TSC-deadline timer. Any thread. */
void board_set_tsc_offset(struct board *b, unsigned cpu, uint64_t offset);

/* A press of the power button: a fixed-hardware ACPI event to the guest. Any thread. */
void board_power_button(struct board *b);

/* A non-maskable interrupt by LINT1 of the local APICs, as a front-panel button. Any thread. */
void board_nmi(struct board *b);

/* Bytes for COM1 (0) or COM2 (1): returns how many were taken; the backend's input_room is called
 * when there is room again after not all were. Any thread but from within a backend's callback. */
size_t board_serial_receive(struct board *b, unsigned port, const uint8_t *data, size_t len);
/* The backend, having taken fewer bytes than offered, can take bytes again. Any thread but from
 * within a backend's callback. */
void board_serial_writable(struct board *b, unsigned port);
/* A break condition on the line, as a person's break key makes it. Any thread, as above. */
void board_serial_break(struct board *b, unsigned port);

/* For those that plug more in: PCI devices (before vCPUs run), blobs for firmware and loaders,
 * and the sink of message-signalled interrupts. The board's own. */
struct pci_bus *board_pci(struct board *b);
struct fw_cfg *board_fw_cfg(struct board *b);
/* NULL: it has none. */
struct balloon *board_balloon(struct board *b);
struct msi_sink board_msi(struct board *b);

#endif
