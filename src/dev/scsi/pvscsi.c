/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMware's paravirtual SCSI controller: registers, commands, life. Facts from Linux
 * drivers/scsi/vmw_pvscsi.h and vmw_pvscsi.c; where these are silent, from SeaBIOS' and OVMF's
 * drivers, which also expect the registers in BAR 0 (VMware has them in BAR 1; Linux looks for them).
 *
 *   BAR 0   0000  command, its descriptor word by word, its status
 *           1000  interrupt status          2000  interrupt mask
 *           3014  kick: commands            4018  kick: reads and writes
 *           6000  MSI-X table               7000  MSI-X pending bits
 *
 * Commands work while they are written: when the last word of the descriptor has come, the command
 * is carried out on the vCPU's thread. So are requests (pvscsi_ring.c); those that wait for the host
 * end on the loop's thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dev/scsi/pvscsi_internal.h"

enum { REG_COMMAND = 0, REG_COMMAND_DATA = 4, REG_COMMAND_STATUS = 8 };
enum { REG_INTR_STATUS = 0x100c, REG_INTR_MASK = 0x2010 };
enum { REG_KICK_NON_RW = 0x3014, REG_KICK_RW = 0x4018 };
enum { BAR_BYTES = 0x8000, MSIX_TABLE_AT = 0x6000, MSIX_PBA_AT = 0x7000, VECTORS = 24 };

enum {
	CMD_ADAPTER_RESET = 1,
	CMD_SETUP_RINGS = 3,
	CMD_RESET_BUS = 4,
	CMD_RESET_DEVICE = 5,
	CMD_ABORT_CMD = 6,
	CMD_CONFIG = 7,
	CMD_SETUP_MSG_RING = 8,
	CMD_SETUP_REQCALLTHRESHOLD = 10,
	CMDS
};
enum { STATUS_OK = 0 };
#define STATUS_FAILED UINT32_MAX

enum { TARGETS = 16, REQ_BYTES = 128, CMP_BYTES = 32, MSG_BYTES = 128 };

/* --- interrupts --- */

static void update_intx(struct pvscsi *p)
{
	if (!pci_msix_enabled(&p->pci) && !pci_msi_enabled(&p->pci))
		pci_set_intx(&p->pci, (p->intr_status & p->intr_mask) != 0);
}

/* With messages, the guest does not look at the status; each batch of completions sends one. */
void pvscsi_raise(struct pvscsi *p, uint32_t causes)
{
	p->intr_status |= causes;
	if (!(p->intr_mask & causes))
		return;
	p->stats.interrupts++;
	if (pci_msix_enabled(&p->pci))
		pci_msix_send(&p->pci, 0);
	else if (pci_msi_enabled(&p->pci))
		pci_msi_send(&p->pci, 0);
	else
		update_intx(p);
}

/* --- commands --- */

static uint64_t desc64(const struct pvscsi *p, unsigned word)
{
	return (uint64_t)p->desc[word + 1] << 32 | p->desc[word];
}

static void forget_rings(struct pvscsi *p)
{
	dma_unmap(p->mem, &p->state);
	pvscsi_ring_forget(p, &p->req);
	pvscsi_ring_forget(p, &p->cmp);
	pvscsi_ring_forget(p, &p->msg);
	p->threshold_on = false;
}

static uint32_t adapter_reset(struct pvscsi *p)
{
	scsi_reset(p->scsi, SCSI_ALL_TARGETS);
	forget_rings(p);
	p->intr_status = 0;
	p->intr_mask = 0;
	update_intx(p);
	return STATUS_OK;
}

/* PVSCSICmdDescSetupRings: pages of requests, of completions, PPN of the state, 32 PPNs of each. */
static uint32_t setup_rings(struct pvscsi *p)
{
	uint64_t req[PVSCSI_RING_PAGES_MAX], cmp[PVSCSI_RING_PAGES_MAX];
	struct pvscsi_ring made_req = {0}, made_cmp = {0};
	struct dma_area state = {0};

	for (unsigned i = 0; i < PVSCSI_RING_PAGES_MAX; i++) {
		req[i] = desc64(p, 4 + 2 * i) * MEM_PAGE_BYTES;
		cmp[i] = desc64(p, 4 + 2 * (PVSCSI_RING_PAGES_MAX + i)) * MEM_PAGE_BYTES;
	}
	if (!dma_map(p->mem, &state, desc64(p, 2) * MEM_PAGE_BYTES, MEM_PAGE_BYTES, true) ||
	    pvscsi_ring_set(p, &made_req, PVSCSI_RING_PAGES_MAX, p->desc[0], req, REQ_BYTES) ||
	    pvscsi_ring_set(p, &made_cmp, PVSCSI_RING_PAGES_MAX, p->desc[1], cmp, CMP_BYTES)) {
		pvscsi_ring_forget(p, &made_req);
		dma_unmap(p->mem, &state);
		p->stats.bad_rings++;
		return STATUS_FAILED;
	}
	forget_rings(p);
	p->state = state;
	p->req = made_req;
	p->cmp = made_cmp;
	pvscsi_ring_publish(p);
	return STATUS_OK;
}

/* PVSCSICmdDescSetupMsgRing. No disk comes or goes while the machine runs, so the ring stays empty;
 * drivers that find the command want it to succeed. */
static uint32_t setup_msg_ring(struct pvscsi *p)
{
	uint64_t gpa[PVSCSI_MSG_PAGES_MAX];

	for (unsigned i = 0; i < PVSCSI_MSG_PAGES_MAX; i++)
		gpa[i] = desc64(p, 2 + 2 * i) * MEM_PAGE_BYTES;
	if (!p->state.host ||
	    pvscsi_ring_set(p, &p->msg, PVSCSI_MSG_PAGES_MAX, p->desc[0], gpa, MSG_BYTES)) {
		p->stats.bad_rings++;
		return STATUS_FAILED;
	}
	pvscsi_msg_publish(p);
	return STATUS_OK;
}

static uint32_t reset_bus(struct pvscsi *p)
{
	pvscsi_process(p);
	scsi_reset(p->scsi, SCSI_ALL_TARGETS);
	return STATUS_OK;
}

static uint32_t reset_device(struct pvscsi *p)
{
	if (!scsi_has_target(p->scsi, p->desc[0]))
		return STATUS_FAILED;
	pvscsi_process(p);
	scsi_reset(p->scsi, p->desc[0]);
	return STATUS_OK;
}

/* PVSCSICmdDescAbortCmd. The guest waits for the request's completion. */
static uint32_t abort_cmd(struct pvscsi *p)
{
	pvscsi_process(p);
	scsi_abort(p->scsi, p->desc[2], desc64(p, 0));
	return STATUS_OK;
}

static void put_utf16(uint8_t *at, const char *text)
{
	for (; *text; text++, at += 2)
		at[0] = (uint8_t)*text;
}

/* PVSCSICmdDescConfigCmd: writes a page, PVSCSIConfigPageController, to where the guest wants it. */
static uint32_t config(struct pvscsi *p)
{
	enum { PAGE_CONTROLLER = 0x1958, ADDRESS_CONTROLLER = 0x2120, HOST_INVPARAM = 0x1a };
	enum { HEADER = 16, MANUFACTURER = 24, SERIAL = 152, OPROM = 280, HW = 344, FW = 408 };
	enum { PHYS = 472, PAGE_BYTES = 480 };
	uint32_t page = p->desc[4], phys = TARGETS, words = PAGE_BYTES / 4;
	uint8_t d[PAGE_BYTES] = {0};
	size_t len = PAGE_BYTES;

	memcpy(d, &page, 4);
	if (page == PAGE_CONTROLLER && p->desc[3] == ADDRESS_CONTROLLER) {
		memcpy(d + 4, &words, 2);
		put_utf16(d + MANUFACTURER, "Hanok");
		put_utf16(d + SERIAL, "0");
		put_utf16(d + OPROM, "0");
		put_utf16(d + HW, "2");
		put_utf16(d + FW, HANOK_VERSION);
		memcpy(d + PHYS, &phys, 4);
	} else {
		d[6] = HOST_INVPARAM;
		len = HEADER;
	}
	if (!pci_dev_is_master(&p->pci) || mem_write(p->mem, desc64(p, 0), d, len))
		return STATUS_FAILED;
	return STATUS_OK;
}

/* PVSCSICmdDescSetupReqCall: the status says whether it is on. */
static uint32_t setup_threshold(struct pvscsi *p)
{
	p->threshold_on = p->desc[0] && p->state.host;
	pvscsi_set_threshold(p);
	return p->threshold_on;
}

/* ISSUE_SCSI (2) and DEVICE_UNPLUG (9) have no public description; they are not there, and a guest
 * is told so. */
static const struct {
	uint32_t words; /* of the descriptor */
	uint32_t (*run)(struct pvscsi *p);
} commands[CMDS] = {
	[CMD_ADAPTER_RESET] = {0, adapter_reset},
	[CMD_SETUP_RINGS] = {PVSCSI_DESC_WORDS, setup_rings},
	[CMD_RESET_BUS] = {0, reset_bus},
	[CMD_RESET_DEVICE] = {3, reset_device},
	[CMD_ABORT_CMD] = {4, abort_cmd},
	[CMD_CONFIG] = {6, config},
	[CMD_SETUP_MSG_RING] = {2 + 2 * PVSCSI_MSG_PAGES_MAX, setup_msg_ring},
	[CMD_SETUP_REQCALLTHRESHOLD] = {1, setup_threshold},
};

static void run_command(struct pvscsi *p)
{
	uint32_t command = p->command;

	p->command = 0;
	p->stats.commands++;
	p->status = commands[command].run(p);
	if (p->kicked && !scsi_is_draining(p->scsi)) {
		p->kicked = false;
		pvscsi_process(p); /* what came while a reset waited */
	}
}

static void write_command(struct pvscsi *p, uint32_t command)
{
	p->command = 0;
	if (command >= CMDS || !commands[command].run) {
		p->stats.bad_commands++;
		p->status = STATUS_FAILED;
		return;
	}
	p->command = command;
	p->words_wanted = commands[command].words;
	p->words = 0;
	p->status = p->words_wanted; /* "supported, and so long" */
	if (!p->words_wanted)
		run_command(p);
}

static void write_command_data(struct pvscsi *p, uint32_t word)
{
	if (!p->command)
		return;
	p->desc[p->words++] = word;
	if (p->words == p->words_wanted)
		run_command(p);
}

/* --- registers --- */

static uint32_t read_reg(struct pvscsi *p, uint64_t reg)
{
	switch (reg) {
	case REG_COMMAND_STATUS:
		return p->status;
	case REG_INTR_STATUS:
		return p->intr_status;
	case REG_INTR_MASK:
		return p->intr_mask;
	default:
		return 0;
	}
}

static void write_reg(struct pvscsi *p, uint64_t reg, uint32_t v)
{
	switch (reg) {
	case REG_COMMAND:
		write_command(p, v);
		break;
	case REG_COMMAND_DATA:
		write_command_data(p, v);
		break;
	case REG_INTR_STATUS:
		p->intr_status &= ~v;
		update_intx(p);
		break;
	case REG_INTR_MASK:
		p->intr_mask = v & INTR_ALL;
		update_intx(p);
		break;
	case REG_KICK_NON_RW:
	case REG_KICK_RW:
		p->stats.kicks++;
		pvscsi_process(p);
		break;
	default:
		break;
	}
}

static void access_bar(void *opaque, struct bus_access *a)
{
	struct pvscsi *p = opaque;

	if (a->size != 4 || a->offset & 3)
		return; /* the registers are dwords */
	pthread_mutex_lock(&p->lock);
	if (a->write)
		write_reg(p, a->offset, (uint32_t)a->value);
	else
		a->value = read_reg(p, a->offset);
	pthread_mutex_unlock(&p->lock);
}

static void on_again(void *opaque)
{
	struct pvscsi *p = opaque;

	pthread_mutex_lock(&p->lock);
	pvscsi_process(p);
	pthread_mutex_unlock(&p->lock);
}

void pvscsi_get_stats(void *dev, struct pvscsi_stats *out)
{
	struct pvscsi *p = dev;

	pthread_mutex_lock(&p->lock);
	*out = p->stats;
	scsi_get_stats(p->scsi, &out->scsi);
	pthread_mutex_unlock(&p->lock);
}

/* --- life --- */

static void reset(void *dev)
{
	struct pvscsi *p = dev;

	pthread_mutex_lock(&p->lock);
	forget_rings(p);
	scsi_power_on(p->scsi);
	p->command = p->words_wanted = p->words = 0;
	p->status = 0;
	p->intr_status = p->intr_mask = 0;
	p->kicked = false;
	timer_cancel(&p->again);
	pthread_mutex_unlock(&p->lock);
	pci_dev_reset(&p->pci);
}

/* Rings are saved as addresses, and looked up again; what is not memory here fails the restore. */
static void ring_state(struct pvscsi *p, struct state_stream *s, struct pvscsi_ring *ring,
		       unsigned max, unsigned entry_bytes)
{
	uint64_t gpa[PVSCSI_RING_PAGES_MAX] = {0};
	uint32_t pages = ring->pages;

	for (unsigned i = 0; i < pages; i++)
		gpa[i] = ring->page[i].gpa;
	state_u32(s, &pages);
	for (unsigned i = 0; i < pages && i < max; i++)
		state_u64(s, &gpa[i]);
	if (!state_writing(s) && pages && pvscsi_ring_set(p, ring, max, pages, gpa, entry_bytes))
		state_fail(s, "pvscsi: a ring that is not in memory");
}

static void rings_state(struct pvscsi *p, struct state_stream *s)
{
	bool on = p->state.host;
	uint64_t gpa = p->state.gpa;

	if (!state_writing(s))
		forget_rings(p);
	state_bool(s, &on);
	state_u64(s, &gpa);
	ring_state(p, s, &p->req, PVSCSI_RING_PAGES_MAX, REQ_BYTES);
	ring_state(p, s, &p->cmp, PVSCSI_RING_PAGES_MAX, CMP_BYTES);
	ring_state(p, s, &p->msg, PVSCSI_MSG_PAGES_MAX, MSG_BYTES);
	state_u32(s, &p->req_consumed);
	state_u32(s, &p->cmp_produced);
	state_bool(s, &p->threshold_on);
	if (state_writing(s))
		return;
	if (on && p->req.pages && p->cmp.pages && !(gpa % MEM_PAGE_BYTES))
		dma_map(p->mem, &p->state, gpa, MEM_PAGE_BYTES, true);
	if (on && !p->state.host)
		state_fail(s, "pvscsi: rings that are not in memory");
}

static void save_or_restore(void *dev, struct state_stream *s)
{
	struct pvscsi *p = dev;

	pthread_mutex_lock(&p->lock);
	scsi_drain(p->scsi); /* so there are no requests to save */
	if (state_begin(s, "pvscsi", p->index, 1)) {
		pci_dev_state(&p->pci, s);
		state_u32(s, &p->command);
		state_u32(s, &p->words);
		for (unsigned i = 0; i < PVSCSI_DESC_WORDS; i++)
			state_u32(s, &p->desc[i]);
		state_u32(s, &p->status);
		state_u32(s, &p->intr_status);
		state_u32(s, &p->intr_mask);
		rings_state(p, s);
		scsi_state(p->scsi, s);
		state_end(s);
	}
	if (!state_writing(s)) {
		if (p->command >= CMDS || !commands[p->command].run)
			p->command = 0;
		p->words_wanted = commands[p->command].words;
		if (p->words >= p->words_wanted)
			p->command = p->words = 0;
		if (p->state.host)
			timer_arm(&p->again, clock_ns()); /* a kick before the save may wait */
	}
	pthread_mutex_unlock(&p->lock);
}

static void destroy(void *dev)
{
	struct pvscsi *p = dev;

	if (!p)
		return;
	if (p->lock_ready) {
		timer_destroy(&p->again);
		forget_rings(p);
		scsi_bus_destroy(p->scsi);
		pthread_mutex_destroy(&p->lock);
	}
	pci_dev_remove(&p->pci);
	free(p);
}

static int make_pci(struct pvscsi *p, const struct storage_config *cfg, struct error *err)
{
	static const struct pci_ident id = {.vendor = 0x15ad,
					    .device = 0x07c0,
					    .subsystem_vendor = 0x15ad,
					    .subsystem = 0x07c0,
					    .class_code = 0x010700,
					    .revision = 2,
					    .interrupt_pin = 1};
	int rc;

	pci_dev_init(&p->pci, "pvscsi", &id);
	rc = pci_dev_set_bar(&p->pci, 0, PCI_BAR_MEM32, false, BAR_BYTES, access_bar, p);
	if (!rc)
		rc = pci_msi_add(&p->pci, 1);
	if (!rc)
		rc = pci_msix_add(&p->pci, VECTORS, 0, MSIX_TABLE_AT, MSIX_PBA_AT);
	if (!rc)
		rc = pci_dev_add(&p->pci, cfg->pci, cfg->slot, 0);
	if (rc)
		return error_set(err, rc, "pvscsi: PCI slot %u: %s", cfg->slot, strerror(-rc));
	return 0;
}

static int create(void **out, const struct storage_config *cfg, struct error *err)
{
	struct pvscsi *p = calloc(1, sizeof(*p));
	int rc;

	*out = NULL;
	if (!p)
		return error_set(err, -ENOMEM, "pvscsi: out of memory");
	p->mem = cfg->mem;
	p->index = cfg->index;
	pthread_mutex_init(&p->lock, NULL);
	timer_init(&p->again, cfg->loop, on_again, p);
	p->lock_ready = true;
	struct scsi_bus_config bus = {.mem = cfg->mem,
				      .lock = &p->lock,
				      .units = cfg->units,
				      .unit_count = cfg->unit_count,
				      .done = pvscsi_done,
				      .opaque = p};
	rc = scsi_bus_create(&p->scsi, &bus, err);
	if (!rc)
		rc = make_pci(p, cfg, err);
	if (rc) {
		destroy(p);
		return rc;
	}
	*out = p;
	return 0;
}

const struct storage_kind pvscsi_kind = {
	.name = "pvscsi",
	.vmx_name = "pvscsi",
	.units = TARGETS,
	.cdrom = true,
	.ops = {.name = "pvscsi", .reset = reset, .state = save_or_restore, .destroy = destroy},
	.create = create,
};
