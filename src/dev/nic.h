/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_NIC_H
#define HANOK_DEV_NIC_H

#include "base/loop.h"
#include "bus/pci.h"
#include "dev/dev.h"
#include "mem/mem.h"
#include "net/netport.h"

/*
 * Network cards: what the board gives one, and what it may ask of it. Each kind is one struct
 * nic_kind in nic_kinds[] (machine/nic.c); nothing else names them.
 *
 * A card makes its own netport, whose features follow what its guest wants, and connects it to the
 * cable. ops.destroy destroys the port, which disconnects it; ops.reset and ops.state run on the
 * loop's thread, or while the loop does not run, and vCPUs do not; frames may arrive meanwhile, on
 * threads of others: receive() drops what comes while the card is not set up.
 */

/* Copied; what it points to outlives the card. */
struct nic_config {
	struct bus *bus;
	struct pci_bus *pci;
	unsigned slot;
	struct mem *mem;
	struct loop *loop;
	unsigned cpus;	/* vCPUs of the machine: how many queues are worth having */
	unsigned index; /* among the board's cards: the instance of its section in a stream */
	uint8_t mac[6]; /* the address it is given: not all zero, not a group's */
	/* The free end of a cable, to netport_connect to; the machine's. NULL: none is plugged in,
	 * and the link stays down. */
	struct netport *cable;
};

struct nic_kind {
	const char *name;     /* on the command line: "virtio" */
	const char *vmx_name; /* ethernet0.virtualDev's value in a .vmx */
	struct dev_ops ops;
	/* 0 or -errno with err set. */
	int (*create)(void **out, const struct nic_config *cfg, struct error *err);
};

#endif
