/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_STORAGE_H
#define HANOK_DEV_STORAGE_H

#include "base/loop.h"
#include "bus/pci.h"
#include "dev/dev.h"
#include "disk/disk.h"
#include "mem/mem.h"

/*
 * Storage controllers: what the board gives one, and what it may ask of it. Each kind is one
 * struct storage_kind in storage_kinds[] (machine/storage.c); nothing else names them.
 *
 * Requests in flight: ops.reset, ops.state and ops.destroy run on the loop's thread, or while the
 * loop does not run, and vCPUs do not; the controller calls disk_drain for each of its disks first,
 * without its lock held, so that none of its requests is in flight when it begins. A reset that the
 * guest asks for by a register, on a vCPU's thread, must not wait for the loop: its thread may itself
 * be waiting for this vCPU. It is begun at once and shown as done when the last request is over; or,
 * where the guest takes it for done when its write is, it waits by disk_drain.
 */
struct storage_unit {
	unsigned target; /* 0 to storage_kind.units - 1: the N of scsi0:N, port or drive */
	struct disk
		*disk; /* the machine's; outlives the controller. NULL: a CD drive that is empty */
	bool cdrom;
	const char
		*serial; /* for INQUIRY, IDENTIFY and the like; at most 20 characters; not NULL */
};

/* Copied; units and what they point to outlive the controller. */
struct storage_config {
	struct bus *bus;
	struct pci_bus *pci;
	unsigned slot;
	struct mem *mem;
	struct loop *loop;
	unsigned cpus;	/* vCPUs of the machine: how many queues are worth having */
	unsigned index; /* among the board's controllers: the instance of its section in a stream */
	struct irq_line isa_irq[2];	  /* IDE in compatibility mode: IRQ 14 and 15 */
	const struct storage_unit *units; /* by rising target */
	unsigned unit_count;		  /* 0: a controller with nothing on it */
};

struct storage_kind {
	const char *name;     /* on the command line: "virtio-blk" */
	const char *vmx_name; /* scsi0.virtualDev's value or the bus's name in a .vmx: "pvscsi" */
	unsigned units;	      /* most */
	uint64_t reserved;    /* bits of units that cannot be had: the controller's own id */
	bool cdrom;	      /* can it have CD drives? */
	struct dev_ops ops;
	/* 0 or -errno with err set. */
	int (*create)(void **out, const struct storage_config *cfg, struct error *err);
};

#endif
