/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_ATA_AHCI_H
#define HANOK_DEV_ATA_AHCI_H

#include "dev/ata/ata.h"

/*
 * An AHCI controller, within its own files. "AHCI" is the Serial ATA Advanced Host Controller
 * Interface specification 1.3.1 (Intel), "SATA" Serial ATA 3.1.
 *
 * ahci.c       the function: global registers, interrupts, life, state
 * ahci_port.c  a port's registers, resets, the FISes it receives
 * ahci_cmd.c   the command list: from a bit in PxCI to a FIS in memory
 */
enum { AHCI_PORTS = 6, AHCI_SLOTS = 32 };
enum { AHCI_PORT_BASE = 0x100, AHCI_PORT_BYTES = 0x80 };

/* Port registers (AHCI 3.3) */
enum {
	PX_CLB = 0x00,
	PX_CLBU = 0x04,
	PX_FB = 0x08,
	PX_FBU = 0x0c,
	PX_IS = 0x10,
	PX_IE = 0x14,
	PX_CMD = 0x18,
	PX_TFD = 0x20,
	PX_SIG = 0x24,
	PX_SSTS = 0x28,
	PX_SCTL = 0x2c,
	PX_SERR = 0x30,
	PX_SACT = 0x34,
	PX_CI = 0x38,
};

/* PxIS, PxIE */
#define PXI_DHRS (1u << 0)  /* register FIS */
#define PXI_PSS (1u << 1)   /* PIO setup FIS */
#define PXI_SDBS (1u << 3)  /* set device bits FIS */
#define PXI_DPS (1u << 5)   /* a descriptor with its interrupt bit set is through */
#define PXI_PCS (1u << 6)   /* PxSERR.DIAG.X */
#define PXI_PRCS (1u << 22) /* PxSERR.DIAG.N */
#define PXI_OFS (1u << 24)  /* more data than descriptors */
#define PXI_IFS (1u << 27)  /* interface, fatal */
#define PXI_HBFS (1u << 29) /* host bus, fatal */
#define PXI_TFES (1u << 30) /* PxTFD.STS.ERR */

/* PxCMD */
#define PXCMD_ST (1u << 0)
#define PXCMD_SUD (1u << 1)
#define PXCMD_POD (1u << 2)
#define PXCMD_CLO (1u << 3)
#define PXCMD_FRE (1u << 4)
#define PXCMD_FR (1u << 14)
#define PXCMD_CR (1u << 15)
#define PXCMD_ATAPI (1u << 24)
#define PXCMD_DLAE (1u << 25)

/* A command slot that is under way. */
struct ahci_slot {
	uint64_t header, table; /* gpa of its command header and command table */
	unsigned regions;	/* PRDTL */
	struct ata_cursor at;
	bool descriptor_irq;
};

struct ahci_port {
	struct ahci *hba;
	unsigned index;
	struct ata_drive drive;
	struct ata_regs regs; /* what the last register FIS said */
	uint64_t clb, fb;
	uint32_t is, ie, cmd, sctl, serr, sig, sact, ci;
	bool linked;	    /* PxSSTS: the drive is there and the phy is on */
	bool halted;	    /* after an error, until PxCMD.ST is cleared */
	bool soft_reset;    /* SRST was set by a control FIS */
	bool reset_pending; /* the signature comes when the drive is drained */

	bool running;	 /* somebody is in ahci_port_run */
	uint32_t issued; /* slots under way */
	int busy_slot;	 /* the one that is not queued; -1: none */
	unsigned last_slot;
	struct ahci_slot slot[AHCI_SLOTS];
	struct ata_command *command; /* one a slot; NULL: no drive */
};

struct ahci {
	pthread_mutex_t lock;
	struct storage_config cfg;
	struct pci_dev pci;
	uint32_t ghc, is, announced; /* of IS: what an MSI was sent for */
	uint64_t interrupts;
	struct ahci_port port[AHCI_PORTS];
};

/* All with the lock held. */

/* Puts PxIS into IS, and IS on the wire or into a message. */
void ahci_update_irq(struct ahci *h);
static inline void ahci_port_raise(struct ahci_port *p, uint32_t bits)
{
	p->is |= bits;
}

uint32_t ahci_port_read(struct ahci_port *p, unsigned reg);
void ahci_port_write(struct ahci_port *p, unsigned reg, uint32_t v);
/* As after power-on or an HBA reset, which leaves PxCLB and PxFB alone (AHCI 10.4.3). */
void ahci_port_reset(struct ahci_port *p, bool power);
/* A restored port: is it one that can be? */
bool ahci_port_valid(const struct ahci_port *p);

/* FISes to memory (AHCI 4.2.1, SATA 10.3) with the interrupts that they cause. */
void ahci_send_d2h(struct ahci_port *p, bool interrupt);
void ahci_send_pio_setup(struct ahci_port *p, uint64_t bytes, bool to_host);
void ahci_send_device_bits(struct ahci_port *p, uint32_t finished);

/* Begins what can begin, and what can then. Lets the lock go in between. */
void ahci_port_run(struct ahci_port *p);
/* Forgets all slots; their commands are cancelled. */
void ahci_port_abort(struct ahci_port *p);
/* The drive's software reset; the signature follows, at once or when the drive is drained. */
void ahci_port_begin_reset(struct ahci_port *p, bool power);
/* The drive has no cancelled command any more. */
void ahci_port_drained(struct ahci_port *p);

/* DMA: -EFAULT also when the function may not master the bus. */
int ahci_dma_read(struct ahci_port *p, uint64_t gpa, void *buf, size_t len);
int ahci_dma_write(struct ahci_port *p, uint64_t gpa, const void *buf, size_t len);

extern const struct ata_host_ops ahci_host_ops;

#endif
