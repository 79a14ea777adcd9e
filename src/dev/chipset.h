/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_CHIPSET_H
#define HANOK_DEV_CHIPSET_H

#include "bus/pci.h"
#include "dev/dev.h"

/*
 * PCI bus 0 with the two functions every guest expects on it: a host bridge (Intel Q35, 8086:29C0,
 * at 00:00.0) and a bridge to the ISA devices (ICH9 LPC, 8086:2918, at 00:1F.0). Firmware and
 * kernels that know these chips find the ECAM and the ACPI blocks through them.
 */
struct chipset;

struct chipset_config {
	struct pci_bus_config pci;
	uint16_t pm_base; /* of the ACPI blocks */
};

extern const struct dev_ops chipset_ops;

int chipset_create(struct chipset **out, const struct chipset_config *cfg, struct error *err);
struct pci_bus *chipset_pci(struct chipset *c);

#endif
