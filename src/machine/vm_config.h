/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_MACHINE_VM_CONFIG_H
#define HANOK_MACHINE_VM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "machine/board.h"
#include "machine/machine.h"
#include "machine/nic.h"
#include "machine/storage.h"
#include "machine/vmx.h"
#include "mem/entitle.h"

/*
 * What a .vmx asks for, checked and with file names made absolute. These keys are looked at, all
 * others are left alone:
 *
 *     displayName guestOS memsize (MiB) numvcpus firmware uuid.bios
 *     scsiN.present .virtualDev (pvscsi, lsilogic, lsisas1068), sataN.present, nvmeN.present
 *     scsiN:M. sataN:M. nvmeN:M. ideN:M. hanok.virtioN:M.   .present .fileName .deviceType .mode
 *                                                           .startConnected
 *     serialN.present .fileType (file, pipe) .fileName
 *     ethernetN.present .virtualDev (e1000, vmxnet3, virtio) .connectionType (nat, hostonly, bridged,
 *               custom) .vnet .networkName .startConnected .addressType .address .generatedAddress
 *               .generatedAddressOffset
 *     hanok.ethernetN.forwards                   as forward= of --nic, commas between them
 *     sched.mem.max hanok.mem.limit              MiB of host memory for it, as --memory-limit; the second
 *                                                goes before the first, which may be "unlimited"
 *     sched.mem.min sched.mem.minSize            MiB reserved, as --memory-min; the first goes before
 *     sched.mem.shares                           as --memory-shares
 *     hanok.mem.share                            as --memory-share
 *     hanok.balloon hanok.mem.balloon            FALSE: no balloon; auto or off, as --balloon
 *     hanok.engine                               as --engine
 *     hanok.kernel hanok.initrd hanok.append     what is booted directly, as --kernel and so on
 */
struct vm_config {
	const char *name;     /* displayName, or the .vmx file's own without .vmx */
	const char *guest_os; /* NULL: not said */
	const char *uuid;     /* NULL: not said */
	uint64_t memory_bytes;
	uint64_t memory_limit_bytes; /* 0: none */
	uint64_t memory_min_bytes;   /* 0: none */
	struct mem_shares memory_shares;
	bool memory_share; /* equal pages */
	enum balloon_mode balloon;
	unsigned cpus;
	const char *engine;			/* "auto" when not said */
	const char *kernel, *initrd, *append;	/* NULL: not said */
	const char *serial[BOARD_SERIAL_PORTS]; /* as --serial: "file:/x", "socket:/x"; or NULL */
	struct storage_plan storage;
	struct nic_plan nics;

	char **strings; /* all of the above */
	unsigned string_count;
};

/* v's relative file names are looked for in folder. 0, -EINVAL or -ENOMEM with *err naming file and
 * key. vm_config_free frees what is in it, also after a failure. */
int vm_config_read(struct vm_config *c, const struct vmx *v, const char *folder, struct error *err);
void vm_config_free(struct vm_config *c);

/* Sets the keys that put disk n (0, 1 ...) of a machine, the file file_name, on a controller of this
 * kind. 0; -ENOSPC: no room for so many; or an error of vmx_set. */
int vm_config_add_disk(struct vmx *v, const struct storage_kind *kind, unsigned n,
		       const char *file_name, struct error *err);

/* Sets the keys of network card n (0, 1 ...). A card whose mac is all zero gets the address that
 * follows from uuid.bios. 0, or an error of vmx_set. */
int vm_config_add_nic(struct vmx *v, unsigned n, const struct nic_card *card, struct error *err);

/*
 * Each drive that v has on a bus, present ones only: key is "scsi0:0". Returns what fn returned
 * first that was not 0. For those that handle a machine's files: clones, removal.
 */
int vm_config_each_drive(const struct vmx *v,
			 int (*fn)(void *opaque, const char *key, const char *file_name),
			 void *opaque);

#endif
