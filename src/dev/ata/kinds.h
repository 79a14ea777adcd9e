/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_ATA_KINDS_H
#define HANOK_DEV_ATA_KINDS_H

#include "dev/ata/ata.h"

/*
 * The two controllers, for the board's table.
 *
 * ahci: an AHCI 1.3.1 controller with the ICH9's identity, six ports, a drive each, MSI or INTx.
 * ide: a PIIX4's IDE function in compatibility mode: 1F0h, 3F6h and IRQ 14, 170h, 376h and IRQ 15,
 * two drives a channel (targets 0, 1 and 2, 3), bus-master DMA.
 */
extern const struct storage_kind ahci_kind;
extern const struct storage_kind ide_kind;

/* Counters of a target. Any thread. */
void ahci_get_stats(void *dev, unsigned target, struct ata_stats *out);
void ide_get_stats(void *dev, unsigned target, struct ata_stats *out);

#endif
