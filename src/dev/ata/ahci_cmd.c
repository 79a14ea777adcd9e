/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AHCI commands, from a bit in PxCI to its end. Command list and tables: AHCI 4.2.2, 4.2.3.
 *
 * A queued command gives its PxCI bit back as soon as the drive has it, and its PxSACT bit at its
 * end. One that is not queued keeps PxCI until its end, and nothing else runs beside it. An error
 * stops the list (`halted`) with the bits as they are, until the guest clears PxCMD.ST.
 */
#include <errno.h>
#include <string.h>

#include "dev/ata/ahci.h"

enum { HEADER_BYTES = 32, HEADER_PRDBC = 4, TABLE_PACKET = 0x40, TABLE_REGIONS = 0x80 };
enum { FIS_H2D = 0x27, FIS_BYTES = 20, FIS_DWORDS_LEAST = 5, CONTROL_SRST = 4 };

/* The end of a command that the controller itself could not carry out. */
static void fatal(struct ahci_port *p, uint32_t cause)
{
	ahci_port_raise(p, cause);
	p->halted = true;
}

/* --- data --- */

/* AHCI 4.2.3.3: addresses and lengths are even. */
static int fetch_region(void *opaque, unsigned index, struct ata_region *r)
{
	struct ata_command *c = opaque;
	struct ahci_port *p = c->drive->opaque;
	struct ahci_slot *s = &p->slot[c->tag];
	struct {
		uint64_t base;
		uint32_t reserved, count;
	} entry;

	if (index >= s->regions)
		return 0;
	if (ahci_dma_read(p, s->table + TABLE_REGIONS + (uint64_t)index * sizeof(entry), &entry,
			  sizeof(entry)))
		return -EFAULT;
	r->gpa = entry.base & ~UINT64_C(1);
	r->len = ((entry.count & 0x3fffff) | 1) + 1;
	if (entry.count >> 31)
		s->descriptor_irq = true;
	return 1;
}

static int map(struct ata_command *c)
{
	struct ahci_port *p = c->drive->opaque;
	int rc = ata_map_regions(c, p->hba->cfg.mem, &p->slot[c->tag].at, fetch_region, c);

	if (rc < 0)
		ahci_port_raise(p, rc == -ENOBUFS ? PXI_OFS : PXI_HBFS);
	return rc;
}

static void unmap(struct ata_command *c, bool ok)
{
	(void)ok;
	ata_unmap_regions(c);
}

/* --- the end --- */

static void queued_done(struct ahci_port *p, struct ata_command *c)
{
	p->regs.status = c->regs.status;
	p->regs.error = c->regs.error;
	if (!(c->regs.status & ATA_ERR)) {
		ahci_send_device_bits(p, 1u << c->tag);
		return;
	}
	ahci_send_device_bits(p, 0);
	p->halted = true;
	/* The drive gives up what else is queued (ACS 4.16); the guest queues it again. */
	for (unsigned i = 0; i < AHCI_SLOTS; i++)
		ata_cancel(&p->command[i]);
	p->issued = 0;
}

static void plain_done(struct ahci_port *p, struct ata_command *c)
{
	uint32_t moved = (uint32_t)c->moved;
	bool pio_in = c->protocol == ATA_PIO && c->to_host;

	p->busy_slot = -1;
	p->regs = c->regs;
	if (c->regs.status & ATA_ERR)
		p->halted = true;
	else
		p->ci &= ~(1u << c->tag);
	if (ahci_dma_write(p, p->slot[c->tag].header + HEADER_PRDBC, &moved, sizeof(moved)))
		fatal(p, PXI_HBFS);
	if (pio_in && !(c->regs.status & ATA_ERR))
		ahci_send_pio_setup(p, c->bytes < c->block_bytes ? c->bytes : c->block_bytes, true);
	else
		ahci_send_d2h(p, true);
}

static void done(struct ata_command *c)
{
	struct ahci_port *p = c->drive->opaque;

	p->issued &= ~(1u << c->tag);
	if (p->slot[c->tag].descriptor_irq)
		ahci_port_raise(p, PXI_DPS);
	if (c->protocol == ATA_PACKET_PIO || c->protocol == ATA_PACKET_DMA)
		c->regs.count = ATAPI_IR_COMMAND | ATAPI_IR_TO_HOST;
	if (c->protocol == ATA_QUEUED)
		queued_done(p, c);
	else
		plain_done(p, c);
	ahci_update_irq(p->hba);
	ahci_port_run(p);
}

static void drained(struct ata_drive *d)
{
	struct ahci_port *p = d->opaque;

	ahci_port_drained(p);
	ahci_update_irq(p->hba);
	ahci_port_run(p);
}

const struct ata_host_ops ahci_host_ops = {
	.map = map,
	.unmap = unmap,
	.done = done,
	.drained = drained,
};

void ahci_port_abort(struct ahci_port *p)
{
	for (unsigned i = 0; p->command && i < AHCI_SLOTS; i++)
		ata_cancel(&p->command[i]);
	p->issued = p->ci = p->sact = 0;
	p->busy_slot = -1;
}

/* --- the beginning --- */

/* SATA 10.3.4 */
static void parse_fis(const uint8_t *f, struct ata_regs *r)
{
	memset(r, 0, sizeof(*r));
	r->command = f[2];
	r->device = f[7];
	r->feature = (uint16_t)(f[3] | f[11] << 8);
	r->count = (uint16_t)(f[12] | f[13] << 8);
	for (unsigned i = 0; i < 3; i++)
		r->lba |= (uint64_t)f[4 + i] << (8 * i) | (uint64_t)f[8 + i] << (24 + 8 * i);
}

/* A FIS that writes the device control register: the software reset has two of them. */
static void control_fis(struct ahci_port *p, unsigned slot, uint8_t control)
{
	bool set = control & CONTROL_SRST, was = p->soft_reset;

	p->ci &= ~(1u << slot);
	p->soft_reset = set;
	if (set && !was)
		ahci_port_abort(p);
	else if (!set && was)
		ahci_port_begin_reset(p, false);
}

/* Reads the slot's header, table and FIS. */
static int fetch_slot(struct ahci_port *p, unsigned slot, uint8_t fis[FIS_BYTES])
{
	struct ahci_slot *s = &p->slot[slot];
	uint32_t header[4];

	s->header = p->clb + slot * HEADER_BYTES;
	if (ahci_dma_read(p, s->header, header, sizeof(header)))
		return -EFAULT;
	if ((header[0] & 31) < FIS_DWORDS_LEAST)
		return -EINVAL;
	s->table = (uint64_t)header[3] << 32 | (header[2] & ~0x7fu);
	s->regions = header[0] >> 16;
	s->at = (struct ata_cursor){0, 0};
	s->descriptor_irq = false;
	return ahci_dma_read(p, s->table, fis, FIS_BYTES);
}

/* A command comes while others of the other kind are under way, or with a foreign tag. */
static bool out_of_order(const struct ahci_port *p, const struct ata_regs *r, unsigned slot,
			 bool queued)
{
	return queued ? (r->count >> 3 & 31) != slot : p->issued != 0;
}

static void issue(struct ahci_port *p, unsigned slot)
{
	struct ata_command *c = &p->command[slot];
	uint8_t fis[FIS_BYTES];
	int rc = fetch_slot(p, slot, fis);
	bool queued;

	p->last_slot = slot;
	if (rc || fis[0] != FIS_H2D || fis[1] & 15) { /* no port multiplier to send it on */
		fatal(p, rc == -EFAULT ? PXI_HBFS : PXI_IFS);
		return;
	}
	if (!(fis[1] & 0x80)) {
		control_fis(p, slot, fis[15]);
		return;
	}
	parse_fis(fis, &c->regs);
	queued = c->regs.command == ATA_CMD_READ_FPDMA || c->regs.command == ATA_CMD_WRITE_FPDMA;
	if (c->regs.command == ATA_CMD_PACKET &&
	    ahci_dma_read(p, p->slot[slot].table + TABLE_PACKET, c->packet, sizeof(c->packet))) {
		fatal(p, PXI_HBFS);
		return;
	}
	if (out_of_order(p, &c->regs, slot, queued)) {
		p->regs.status = ATA_READY | ATA_ERR;
		p->regs.error = ATA_E_ABRT;
		p->halted = true;
		ahci_send_d2h(p, true);
		return;
	}
	p->issued |= 1u << slot;
	if (queued && !p->drive.cdrom) {
		p->ci &= ~(1u << slot);
		p->regs.status = ATA_READY;
		ahci_send_d2h(p, false);
	} else {
		p->busy_slot = (int)slot;
		p->regs.status = ATA_READY | ATA_BSY;
	}
	ata_start(c);
	ata_run(c);
}

/* The slot to begin next, in turn (AHCI 5.5.1); -1: none may. */
static int next_slot(const struct ahci_port *p)
{
	uint32_t ready = p->ci & ~p->issued;

	if (!ready || !(p->cmd & PXCMD_ST) || p->halted || !p->linked || p->busy_slot >= 0 ||
	    !ata_drive_idle(&p->drive))
		return -1;
	for (unsigned i = 1; i <= AHCI_SLOTS; i++) {
		unsigned slot = (p->last_slot + i) % AHCI_SLOTS;
		if (ready >> slot & 1)
			return (int)slot;
	}
	return -1;
}

void ahci_port_run(struct ahci_port *p)
{
	int slot;

	if (p->running) /* up the stack, or on another thread, which looks again */
		return;
	p->running = true;
	while (!p->drive.settling && (slot = next_slot(p)) >= 0)
		issue(p, (unsigned)slot);
	p->running = false;
	ahci_update_irq(p->hba);
}
