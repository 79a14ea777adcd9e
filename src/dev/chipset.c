/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Q35 host bridge and ICH9 LPC bridge. Where the real registers would move things about, here they
 * only tell where the board has put them and cannot be written:
 *
 *   PCIEXBAR (Q35 MCH datasheet 316966, 5.1.16)  ECAM base
 *   PMBASE, ACPI_CNTL, PIRQx_ROUT, RCBA (ICH9 datasheet 316972, 13.1)
 *
 * The PAM registers can be written but shadowing is always on: the BIOS area is RAM from the start.
 * The subsystem ids are those by which SeaBIOS recognises a machine with a fw_cfg device.
 */
#include "dev/chipset.h"

#include <errno.h>
#include <stdlib.h>

enum { LPC_SLOT = 0x1f, HOST_PCIEXBAR = 0x60, HOST_PAM0 = 0x90, HOST_PAMS = 7, HOST_SMRAM = 0x9d };
enum { LPC_PMBASE = 0x40, LPC_ACPI_CNTL = 0x44, LPC_PIRQ_A = 0x60, LPC_PIRQ_E = 0x68 };

struct chipset {
	struct pci_bus *pb;
	struct pci_dev host, lpc;
};

static void init_host(struct pci_dev *d, const struct chipset_config *cfg)
{
	static const struct pci_ident id = {.vendor = 0x8086,
					    .device = 0x29c0,
					    .subsystem_vendor = 0x1af4,
					    .subsystem = 0x1100,
					    .class_code = 0x060000};

	pci_dev_init(d, "q35 host bridge", &id);
	pci_dev_set(d, HOST_PCIEXBAR, 4, (uint32_t)cfg->pci.ecam_gpa | 1, 0);
	pci_dev_set(d, HOST_PCIEXBAR + 4, 4, (uint32_t)(cfg->pci.ecam_gpa >> 32), 0);
	pci_dev_set(d, HOST_PAM0, 1, 0x30, 0x30);
	for (unsigned i = 1; i < HOST_PAMS; i++)
		pci_dev_set(d, HOST_PAM0 + i, 1, 0x33, 0x33);
	pci_dev_set(d, HOST_SMRAM, 1, 0x12, 0); /* no SMM memory, and locked so */
}

static void init_lpc(struct pci_dev *d, const struct chipset_config *cfg)
{
	static const struct pci_ident id = {.vendor = 0x8086,
					    .device = 0x2918,
					    .subsystem_vendor = 0x1af4,
					    .subsystem = 0x1100,
					    .class_code = 0x060100,
					    .revision = 2};

	pci_dev_init(d, "ich9 lpc", &id);
	pci_dev_set(d, LPC_PMBASE, 4, cfg->pm_base | 1u, 0);
	pci_dev_set(d, LPC_ACPI_CNTL, 1, 0x80, 0); /* decoded; SCI is IRQ 9 */
	for (unsigned i = 0; i < 4; i++) {
		pci_dev_set(d, LPC_PIRQ_A + i, 1, 10 + i % 2, 0); /* as machine/layout.h has it */
		pci_dev_set(d, LPC_PIRQ_E + i, 1, 0x80, 0);	  /* not routed */
	}
}

struct pci_bus *chipset_pci(struct chipset *c)
{
	return c->pb;
}

static void reset(void *dev)
{
	struct chipset *c = dev;

	pci_bus_reset(c->pb);
	pci_dev_reset(&c->host);
	pci_dev_reset(&c->lpc);
}

static void state(void *dev, struct state_stream *s)
{
	struct chipset *c = dev;

	pci_bus_state(c->pb, s);
	state_begin(s, "chipset", 0, 1);
	pci_dev_state(&c->host, s);
	pci_dev_state(&c->lpc, s);
	state_end(s);
}

static void destroy(void *dev)
{
	struct chipset *c = dev;

	if (!c)
		return;
	pci_dev_remove(&c->lpc);
	pci_dev_remove(&c->host);
	pci_bus_destroy(c->pb);
	free(c);
}

const struct dev_ops chipset_ops = {
	.name = "chipset",
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int chipset_create(struct chipset **out, const struct chipset_config *cfg, struct error *err)
{
	struct chipset *c = calloc(1, sizeof(*c));
	int rc;

	*out = NULL;
	if (!c)
		return error_set(err, -ENOMEM, "chipset: out of memory");
	init_host(&c->host, cfg);
	init_lpc(&c->lpc, cfg);
	rc = pci_bus_create(&c->pb, &cfg->pci, err);
	if (rc) {
		destroy(c);
		return rc;
	}
	pci_dev_add(&c->host, c->pb, 0, 0);
	pci_dev_add(&c->lpc, c->pb, LPC_SLOT, 0);
	*out = c;
	return 0;
}
