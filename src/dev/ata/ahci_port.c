/* SPDX-License-Identifier: Apache-2.0 */
/* AHCI ports: their registers, resets, and the FISes they receive. */
#include <errno.h>
#include <string.h>

#include "dev/ata/ahci.h"

#define PXCMD_WRITABLE (PXCMD_ST | PXCMD_FRE | PXCMD_ATAPI | PXCMD_DLAE)
#define PXIE_WRITABLE 0xfdc000ffu
#define PXIS_CLEARABLE (PXIE_WRITABLE & ~(PXI_PCS | PXI_PRCS))
#define SERR_N (1u << 16) /* PhyRdy changed */
#define SERR_X (1u << 26) /* a drive was found */
enum { DET_MASK = 15, DET_RESET = 1, DET_OFFLINE = 4 };
enum { TFD_NONE = 0x7f };
enum { FIS_D2H = 0x34, FIS_PIO_SETUP = 0x5f, FIS_SET_DEVICE_BITS = 0xa1 };
enum { FIS_INTERRUPT = 0x40, FIS_TO_HOST = 0x20 };
/* Where each lies in the received FIS structure (AHCI 4.2.1). */
enum { AT_PIO_SETUP = 0x20, AT_D2H = 0x40, AT_DEVICE_BITS = 0x58 };

int ahci_dma_read(struct ahci_port *p, uint64_t gpa, void *buf, size_t len)
{
	if (!pci_dev_is_master(&p->hba->pci))
		return -EFAULT;
	return mem_read(p->hba->cfg.mem, gpa, buf, len);
}

int ahci_dma_write(struct ahci_port *p, uint64_t gpa, const void *buf, size_t len)
{
	if (!pci_dev_is_master(&p->hba->pci))
		return -EFAULT;
	return mem_write(p->hba->cfg.mem, gpa, buf, len);
}

/* --- received FISes --- */

static void store_fis(struct ahci_port *p, unsigned at, const void *fis, size_t len)
{
	if (!(p->cmd & PXCMD_FRE))
		return;
	if (ahci_dma_write(p, p->fb + at, fis, len)) {
		ahci_port_raise(p, PXI_HBFS);
		p->halted = true;
	}
}

/* The registers as a register FIS and a PIO setup FIS have them (SATA 10.3.5, 10.3.11). */
static void fill_fis(uint8_t *fis, const struct ata_regs *r, uint8_t type, uint8_t flags)
{
	memset(fis, 0, 20);
	fis[0] = type;
	fis[1] = flags;
	fis[2] = r->status;
	fis[3] = r->error;
	for (unsigned i = 0; i < 3; i++) {
		fis[4 + i] = (uint8_t)(r->lba >> (8 * i));
		fis[8 + i] = (uint8_t)(r->lba >> (24 + 8 * i));
	}
	fis[7] = r->device;
	fis[12] = (uint8_t)r->count;
	fis[13] = (uint8_t)(r->count >> 8);
}

static void raise_status(struct ahci_port *p, uint32_t bits)
{
	if (p->regs.status & ATA_ERR)
		bits |= PXI_TFES;
	ahci_port_raise(p, bits);
}

void ahci_send_d2h(struct ahci_port *p, bool interrupt)
{
	uint8_t fis[20];

	fill_fis(fis, &p->regs, FIS_D2H, interrupt ? FIS_INTERRUPT : 0);
	store_fis(p, AT_D2H, fis, sizeof(fis));
	raise_status(p, interrupt ? PXI_DHRS : 0);
}

void ahci_send_pio_setup(struct ahci_port *p, uint64_t bytes, bool to_host)
{
	uint8_t fis[20], end = p->regs.status;

	fill_fis(fis, &p->regs, FIS_PIO_SETUP, FIS_INTERRUPT | (to_host ? FIS_TO_HOST : 0));
	fis[2] = end | ATA_DRQ;
	fis[15] = end; /* the status after the data */
	ata_put16(fis + 16, (uint16_t)bytes);
	store_fis(p, AT_PIO_SETUP, fis, sizeof(fis));
	raise_status(p, PXI_PSS);
}

/* SATA 10.3.6: the status without BSY and DRQ, the error, and the tags that are finished. */
void ahci_send_device_bits(struct ahci_port *p, uint32_t finished)
{
	const uint8_t fis[8] = {FIS_SET_DEVICE_BITS,	   FIS_INTERRUPT,
				p->regs.status & 0x77,	   p->regs.error,
				(uint8_t)finished,	   (uint8_t)(finished >> 8),
				(uint8_t)(finished >> 16), (uint8_t)(finished >> 24)};

	p->sact &= ~finished;
	store_fis(p, AT_DEVICE_BITS, fis, sizeof(fis));
	raise_status(p, PXI_SDBS);
}

/* --- resets --- */

static void send_signature(struct ahci_port *p)
{
	ata_signature(&p->drive, &p->regs);
	p->sig = (uint32_t)p->regs.lba << 8 | (p->regs.count & 0xff);
	ahci_send_d2h(p, false);
}

void ahci_port_begin_reset(struct ahci_port *p, bool power)
{
	ahci_port_abort(p);
	if (!p->drive.present)
		return;
	ata_drive_reset(&p->drive, power);
	p->regs.status = ATA_BSY;
	if (ata_drive_idle(&p->drive))
		send_signature(p);
	else
		p->reset_pending = true;
}

void ahci_port_drained(struct ahci_port *p)
{
	if (p->reset_pending && p->linked && !p->soft_reset)
		send_signature(p);
	p->reset_pending = false;
}

/* COMRESET is over: the phy is on again, if there is a drive (AHCI 10.4.2). */
static void link_up(struct ahci_port *p, bool power)
{
	p->linked = p->drive.present;
	p->soft_reset = false;
	if (!p->linked)
		return;
	p->serr |= SERR_N | SERR_X;
	ahci_port_begin_reset(p, power);
}

static void link_down(struct ahci_port *p)
{
	if (p->linked)
		p->serr |= SERR_N;
	p->linked = false;
	p->regs.status = TFD_NONE;
	p->regs.error = 0;
	ahci_port_abort(p);
}

void ahci_port_reset(struct ahci_port *p, bool power)
{
	ahci_port_abort(p);
	if (power)
		p->clb = p->fb = 0;
	p->is = p->ie = p->sctl = p->serr = 0;
	p->cmd = PXCMD_SUD | PXCMD_POD;
	p->sig = UINT32_MAX;
	p->halted = p->soft_reset = p->reset_pending = false;
	memset(&p->regs, 0, sizeof(p->regs));
	p->regs.status = TFD_NONE;
	link_up(p, power);
	p->serr = 0;
}

/* --- registers --- */

/* Clearing ST drops all commands; CR stays until the disk has let go of the guest's memory. */
static void write_cmd(struct ahci_port *p, uint32_t v)
{
	uint32_t old = p->cmd;

	p->cmd = PXCMD_SUD | PXCMD_POD | (v & PXCMD_WRITABLE);
	if (!(old & PXCMD_ST))
		p->last_slot = AHCI_SLOTS - 1; /* slot 0 is the next */
	if (old & PXCMD_ST && !(v & PXCMD_ST)) {
		ahci_port_abort(p);
		p->halted = false;
	}
	if (v & PXCMD_CLO)
		p->regs.status &= (uint8_t) ~(ATA_BSY | ATA_DRQ);
	/* The signature that came while no FIS was received. */
	if (!(old & PXCMD_FRE) && v & PXCMD_FRE && p->linked &&
	    !(p->regs.status & (ATA_BSY | ATA_ERR)))
		ahci_send_d2h(p, false);
	if (v & PXCMD_ST)
		ahci_port_run(p);
}

static void write_sctl(struct ahci_port *p, uint32_t v)
{
	uint32_t old = p->sctl & DET_MASK, now = v & DET_MASK;

	p->sctl = v & 0xfff;
	if (now == old)
		return;
	if (now == DET_RESET || now == DET_OFFLINE)
		link_down(p);
	else if (now == 0)
		link_up(p, false);
}

static uint32_t read_cmd(const struct ahci_port *p)
{
	uint32_t v = p->cmd | (p->cmd & PXCMD_ST ? p->last_slot << 8 : 0);

	if (p->cmd & PXCMD_FRE)
		v |= PXCMD_FR;
	if (p->cmd & PXCMD_ST || !ata_drive_idle(&p->drive))
		v |= PXCMD_CR;
	return v;
}

uint32_t ahci_port_read(struct ahci_port *p, unsigned reg)
{
	switch (reg) {
	case PX_CLB:
		return (uint32_t)p->clb;
	case PX_CLBU:
		return (uint32_t)(p->clb >> 32);
	case PX_FB:
		return (uint32_t)p->fb;
	case PX_FBU:
		return (uint32_t)(p->fb >> 32);
	case PX_IS:
		return p->is | (p->serr & SERR_X ? PXI_PCS : 0) | (p->serr & SERR_N ? PXI_PRCS : 0);
	case PX_IE:
		return p->ie;
	case PX_CMD:
		return read_cmd(p);
	case PX_TFD:
		return (uint32_t)p->regs.error << 8 | p->regs.status;
	case PX_SIG:
		return p->sig;
	case PX_SSTS: /* there, 6 Gbit/s, active; or offline */
		return p->linked ? 0x133 : (p->sctl & DET_MASK) == DET_OFFLINE ? 4 : 0;
	case PX_SCTL:
		return p->sctl;
	case PX_SERR:
		return p->serr;
	case PX_SACT:
		return p->sact;
	case PX_CI:
		return p->ci;
	default:
		return 0;
	}
}

void ahci_port_write(struct ahci_port *p, unsigned reg, uint32_t v)
{
	switch (reg) {
	case PX_CLB:
		p->clb = (p->clb & ~UINT64_C(0xffffffff)) | (v & ~0x3ffu);
		break;
	case PX_CLBU:
		p->clb = (uint32_t)p->clb | (uint64_t)v << 32;
		break;
	case PX_FB:
		p->fb = (p->fb & ~UINT64_C(0xffffffff)) | (v & ~0xffu);
		break;
	case PX_FBU:
		p->fb = (uint32_t)p->fb | (uint64_t)v << 32;
		break;
	case PX_IS:
		p->is &= ~(v & PXIS_CLEARABLE);
		break;
	case PX_IE:
		p->ie = v & PXIE_WRITABLE;
		break;
	case PX_CMD:
		write_cmd(p, v);
		break;
	case PX_SCTL:
		write_sctl(p, v);
		break;
	case PX_SERR:
		p->serr &= ~v;
		break;
	case PX_SACT: /* only while commands run (AHCI 3.3.13) */
		if (p->cmd & PXCMD_ST)
			p->sact |= v;
		break;
	case PX_CI:
		if (p->cmd & PXCMD_ST) {
			p->ci |= v;
			ahci_port_run(p);
		}
		break;
	default:
		break;
	}
}

bool ahci_port_valid(const struct ahci_port *p)
{
	return !(p->clb & 0x3ff) && !(p->fb & 0xff) && !(p->linked && !p->drive.present) &&
	       !(p->is & ~PXIS_CLEARABLE) && !(p->ie & ~PXIE_WRITABLE) &&
	       (p->cmd & ~PXCMD_WRITABLE) == (PXCMD_SUD | PXCMD_POD) && p->sctl <= 0xfff;
}
