/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LSI Logic's Fusion-MPT: a controller that is talked to by messages in memory. Registers, the
 * doorbell and the two queues are here; what the messages mean is in mpt_message.c, mpt_io.c and
 * mpt_config.c. Facts from Linux drivers/message/fusion: lsi/mpi.h (registers, states), mptbase.c
 * (the order in which a driver does things).
 *
 *     guest: a request frame's address -> REQUEST_QUEUE
 *     guest: empty reply frames' addresses -> REPLY_QUEUE (the free FIFO)
 *     controller: the post FIFO -> REPLY_QUEUE, read by the guest, with an interrupt while not empty:
 *         bit 31 clear: a SCSI IO went well, this is its context; set: half a reply frame's address
 *
 * Before the queues are up, messages come word by word through the doorbell (a handshake), and their
 * replies go back half a word at a time. Task management may come that way later, too; its reply
 * then goes through the queue.
 *
 *     RESET -> READY --IOC Init--> OPERATIONAL --a broken queue--> FAULT
 *        ^------- message unit reset, diagnostic reset ---------------'
 */
#include "dev/scsi/mpt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/scsi/mpt_internal.h"

enum {
	REG_DOORBELL = 0x00,
	REG_SEQUENCE = 0x04,
	REG_DIAGNOSTIC = 0x08,
	REG_INTR_STATUS = 0x30,
	REG_INTR_MASK = 0x34,
	REG_REQUEST = 0x40,
	REG_REPLY = 0x44,
	REG_REQUEST_HIGH = 0x48,
	REG_BYTES = 0x100,
	BAR_MEM_BYTES = 0x4000,
};
enum { DIAG_RESET_ADAPTER = 0x04, DIAG_HISTORY = 0x20, DIAG_WRITABLE = 0x80 };
enum { DIAG_KEPT = 0x13 /* memory enable, disable ARM, memory access enable */ };
enum { DOORBELL_ACTIVE = 1 << 27, REPLY_IS_ADDRESS = INT32_MIN };
enum { FUNCTION_MESSAGE_UNIT_RESET = 0x40, FUNCTION_IO_UNIT_RESET, FUNCTION_HANDSHAKE };
enum { FAULT_REQUEST = 0x8112, FAULT_REPLY = 0x8114 };
#define REPLY_QUEUE_EMPTY UINT32_MAX

static void run_message(struct mpt *m, const uint8_t *request, bool handshake);

/* --- interrupts --- */

static void update_irq(struct mpt *m)
{
	bool level = m->intr_status & ~m->intr_mask & MPT_INTR_ALL, rises = level && !m->intr_level;

	m->intr_level = level;
	m->stats.interrupts += rises;
	if (!pci_msi_enabled(&m->pci))
		pci_set_intx(&m->pci, level);
	else if (rises)
		pci_msi_send(&m->pci, 0);
}

/* --- queues --- */

void mpt_fault(struct mpt *m, uint16_t code)
{
	m->stats.faults++;
	m->state = MPT_FAULT;
	m->fault_code = code;
}

static void post(struct mpt *m, uint32_t word)
{
	if (m->post_count == MPT_POST_DEPTH) {
		mpt_fault(m, FAULT_REPLY);
		return;
	}
	m->post_fifo[(m->post_head + m->post_count++) % MPT_POST_DEPTH] = word;
	m->stats.replies++;
	m->intr_status |= MPT_INTR_REPLY;
	update_irq(m);
}

void mpt_post_context(struct mpt *m, uint32_t context)
{
	post(m, context & ~(uint32_t)REPLY_IS_ADDRESS);
}

void mpt_post_reply(struct mpt *m, const uint8_t *reply, unsigned len)
{
	uint32_t low;

	if (!m->free_count) { /* the guest has to give enough of them beforehand */
		mpt_fault(m, FAULT_REPLY);
		return;
	}
	low = m->free_fifo[m->free_head];
	m->free_head = (m->free_head + 1) % MPT_FREE_DEPTH;
	m->free_count--;
	if (len > m->reply_frame_bytes)
		len = m->reply_frame_bytes;
	if (!pci_dev_is_master(&m->pci) ||
	    mem_write(m->mem, (uint64_t)m->mfa_high << 32 | low, reply, len)) {
		mpt_fault(m, FAULT_REPLY);
		return;
	}
	post(m, low >> 1 | (uint32_t)REPLY_IS_ADDRESS);
}

static uint32_t read_reply(struct mpt *m)
{
	uint32_t word;

	if (!m->post_count)
		return REPLY_QUEUE_EMPTY;
	word = m->post_fifo[m->post_head];
	m->post_head = (m->post_head + 1) % MPT_POST_DEPTH;
	if (!--m->post_count) {
		m->intr_status &= ~(uint32_t)MPT_INTR_REPLY;
		update_irq(m);
	}
	return word;
}

static void free_reply(struct mpt *m, uint32_t low)
{
	if (m->free_count == MPT_FREE_DEPTH) {
		m->stats.bad_messages++;
		return;
	}
	m->free_fifo[(m->free_head + m->free_count++) % MPT_FREE_DEPTH] = low;
}

static void take_request(struct mpt *m, uint32_t mfa)
{
	enum { ADDRESS_MASK = ~7 };
	uint64_t gpa = (uint64_t)m->mfa_high << 32 | (mfa & (uint32_t)ADDRESS_MASK);
	uint8_t request[MPT_FRAME_BYTES];

	if (mem_read(m->mem, gpa, request, sizeof(request))) {
		mpt_fault(m, FAULT_REQUEST);
		return;
	}
	run_message(m, request, false);
}

static void write_request(struct mpt *m, uint32_t mfa)
{
	if (m->state != MPT_OPERATIONAL || !pci_dev_is_master(&m->pci)) {
		m->stats.bad_messages++;
		return;
	}
	if (!scsi_is_draining(m->scsi)) {
		take_request(m, mfa);
		return;
	}
	if (m->backlog_count == MPT_BACKLOG_DEPTH)
		mpt_fault(m, FAULT_REQUEST);
	else
		m->backlog[m->backlog_count++] = mfa;
}

/* Requests that came while a reset waited. One of them may be a reset itself. */
static void run_backlog(struct mpt *m)
{
	for (uint32_t i = 0; i < m->backlog_count && m->state == MPT_OPERATIONAL; i++) {
		if (scsi_is_draining(m->scsi))
			return;
		take_request(m, m->backlog[i]);
	}
	m->backlog_count = 0;
}

/* --- messages --- */

static void run_message(struct mpt *m, const uint8_t *request, bool handshake)
{
	uint8_t reply[MPT_REPLY_BYTES];
	unsigned len;

	m->stats.messages++;
	switch (request[M_FUNCTION]) {
	case MPT_SCSI_IO:
		mpt_scsi_io(m, request);
		break;
	case MPT_TASK_MGMT:
		mpt_task_mgmt(m, request);
		break;
	default:
		len = mpt_message(m, request, reply);
		if (!handshake) {
			mpt_post_reply(m, reply, len);
			break;
		}
		m->doorbell = MPT_GIVES_REPLY;
		m->hs_words = (uint16_t)(len / 2);
		m->hs_at = 0;
		for (unsigned i = 0; i < m->hs_words; i++)
			m->hs_reply[i] = (uint16_t)le16(reply + 2 * i);
	}
}

/* --- the doorbell --- */

static void end_handshake(struct mpt *m)
{
	uint8_t request[MPT_FRAME_BYTES] = {0};
	size_t bytes = m->hs_words * 4u;

	memcpy(request, m->hs_request, bytes < sizeof(request) ? bytes : sizeof(request));
	m->stats.handshakes++;
	m->doorbell = MPT_IDLE;
	m->hs_words = m->hs_at = 0;
	if (request[M_FUNCTION] <= MPT_TASK_MGMT &&
	    (request[M_FUNCTION] == MPT_SCSI_IO || m->state != MPT_OPERATIONAL))
		m->stats.bad_messages++; /* not this way, or not now: it is left unanswered */
	else
		run_message(m, request, true);
	m->intr_status |= MPT_INTR_DOORBELL;
	update_irq(m);
}

/* What all resets do: nothing is under way any more, no queue holds anything. */
static void clear(struct mpt *m)
{
	m->doorbell = MPT_IDLE;
	m->hs_words = m->hs_at = 0;
	m->free_head = m->free_count = m->post_head = m->post_count = m->backlog_count = 0;
	memset(m->abort, 0, sizeof(m->abort));
	m->who_init = m->event_state = 0;
	m->max_devices = (uint8_t)m->model->targets;
	m->max_buses = 1;
	m->reply_frame_bytes = 0;
	m->mfa_high = m->sense_high = 0;
	m->fault_code = 0;
	m->intr_status = 0;
	memset(m->spi_parameters, 0, sizeof(m->spi_parameters));
	memset(m->spi_configuration, 0, sizeof(m->spi_configuration));
	m->state = MPT_READY;
	update_irq(m);
}

/* Lets go of the lock: the doorbell shows RESET until the disks have let go of their requests. */
static void reset_unit(struct mpt *m)
{
	m->state = MPT_RESET;
	scsi_reset(m->scsi, SCSI_ALL_TARGETS);
	clear(m);
}

static void write_doorbell(struct mpt *m, uint32_t v)
{
	uint8_t function = (uint8_t)(v >> 24), words = (uint8_t)(v >> 16);

	if (m->doorbell == MPT_TAKES_REQUEST) {
		m->hs_request[m->hs_at++] = v;
		if (m->hs_at == m->hs_words)
			end_handshake(m);
		return;
	}
	if (function == FUNCTION_MESSAGE_UNIT_RESET || function == FUNCTION_IO_UNIT_RESET) {
		reset_unit(m);
	} else if (function == FUNCTION_HANDSHAKE && words && m->state != MPT_RESET) {
		m->doorbell = MPT_TAKES_REQUEST;
		m->hs_words = words;
		m->hs_at = 0;
		m->intr_status |= MPT_INTR_DOORBELL;
		update_irq(m);
	} else {
		m->stats.bad_messages++;
	}
}

static uint32_t read_doorbell(struct mpt *m)
{
	uint32_t v = (uint32_t)m->state << 28 | (uint32_t)m->who_init << 24;

	if (m->doorbell != MPT_IDLE)
		v |= DOORBELL_ACTIVE;
	if (m->doorbell == MPT_GIVES_REPLY && m->hs_at < m->hs_words)
		v |= m->hs_reply[m->hs_at++];
	else if (m->state == MPT_FAULT)
		v |= m->fault_code;
	return v;
}

/* Any write acknowledges the doorbell; while it gives a reply, there is more at once. */
static void write_intr_status(struct mpt *m)
{
	if (m->doorbell == MPT_GIVES_REPLY) {
		if (m->hs_at == m->hs_words)
			m->doorbell = MPT_IDLE;
		return;
	}
	m->intr_status &= ~(uint32_t)MPT_INTR_DOORBELL;
	update_irq(m);
}

/* --- diagnostic registers: a key of five writes makes the second writable --- */

static void write_sequence(struct mpt *m, uint32_t v)
{
	static const uint8_t key[] = {0x04, 0x0b, 0x02, 0x07, 0x0d};

	if ((v & 0xf) != key[m->sequence]) {
		m->diagnostic &= ~(uint32_t)DIAG_WRITABLE;
		m->sequence = 0;
		return;
	}
	if (++m->sequence == sizeof(key)) {
		m->diagnostic |= DIAG_WRITABLE;
		m->sequence = 0;
	}
}

static void write_diagnostic(struct mpt *m, uint32_t v)
{
	if (!(m->diagnostic & DIAG_WRITABLE))
		return;
	if (v & DIAG_RESET_ADAPTER) {
		reset_unit(m);
		m->intr_mask = MPT_INTR_ALL;
		update_irq(m);
		m->diagnostic = DIAG_HISTORY;
		return;
	}
	m->diagnostic = DIAG_WRITABLE | (m->diagnostic & v & DIAG_HISTORY) | (v & DIAG_KEPT);
}

/* --- registers --- */

static uint32_t read_reg(struct mpt *m, uint64_t reg)
{
	switch (reg) {
	case REG_DOORBELL:
		return read_doorbell(m);
	case REG_DIAGNOSTIC:
		return m->diagnostic;
	case REG_INTR_STATUS:
		return m->intr_status; /* bit 31 is clear: what was written is taken at once */
	case REG_INTR_MASK:
		return m->intr_mask;
	case REG_REPLY:
		return read_reply(m);
	default:
		return 0;
	}
}

static void write_reg(struct mpt *m, uint64_t reg, uint32_t v)
{
	switch (reg) {
	case REG_DOORBELL:
		write_doorbell(m, v);
		break;
	case REG_SEQUENCE:
		write_sequence(m, v);
		break;
	case REG_DIAGNOSTIC:
		write_diagnostic(m, v);
		break;
	case REG_INTR_STATUS:
		write_intr_status(m);
		break;
	case REG_INTR_MASK:
		m->intr_mask = v & MPT_INTR_ALL;
		update_irq(m);
		break;
	case REG_REQUEST:
	case REG_REQUEST_HIGH:
		write_request(m, v);
		break;
	case REG_REPLY:
		free_reply(m, v);
		break;
	default:
		break;
	}
	if (!scsi_is_draining(m->scsi) && m->backlog_count)
		run_backlog(m);
}

static void access_bar(void *opaque, struct bus_access *a)
{
	struct mpt *m = opaque;

	if (a->size != 4 || a->offset & 3)
		return; /* the registers are dwords */
	pthread_mutex_lock(&m->lock);
	if (a->write)
		write_reg(m, a->offset, (uint32_t)a->value);
	else
		a->value = read_reg(m, a->offset);
	pthread_mutex_unlock(&m->lock);
}

void mpt_get_stats(void *dev, struct mpt_stats *out)
{
	struct mpt *m = dev;

	pthread_mutex_lock(&m->lock);
	*out = m->stats;
	scsi_get_stats(m->scsi, &out->scsi);
	pthread_mutex_unlock(&m->lock);
}

/* --- life --- */

static void reset(void *dev)
{
	struct mpt *m = dev;

	pthread_mutex_lock(&m->lock);
	m->state = MPT_RESET; /* so the ends of requests are not told */
	scsi_power_on(m->scsi);
	m->intr_mask = MPT_INTR_ALL;
	m->sequence = 0;
	m->diagnostic = 0;
	clear(m);
	pthread_mutex_unlock(&m->lock);
	pci_dev_reset(&m->pci);
}

static void save_or_restore(void *dev, struct state_stream *s)
{
	struct mpt *m = dev;

	pthread_mutex_lock(&m->lock);
	scsi_drain(m->scsi); /* so there are no requests to save, nor aborts */
	if (state_begin(s, m->model->name, m->index, 1)) {
		pci_dev_state(&m->pci, s);
		mpt_state(m, s);
		scsi_state(m->scsi, s);
		state_end(s);
	}
	if (!state_writing(s)) /* the line itself is restored with the function */
		m->intr_level = m->intr_status & ~m->intr_mask & MPT_INTR_ALL;
	pthread_mutex_unlock(&m->lock);
}

static void destroy(void *dev)
{
	struct mpt *m = dev;

	if (!m)
		return;
	if (m->lock_ready) {
		m->state = MPT_RESET;
		scsi_bus_destroy(m->scsi);
		pthread_mutex_destroy(&m->lock);
	}
	pci_dev_remove(&m->pci);
	free(m);
}

static int make_pci(struct mpt *m, const struct storage_config *cfg, struct error *err)
{
	const struct pci_ident id = {.vendor = 0x1000,
				     .device = m->model->pci_device,
				     .subsystem_vendor = 0x15ad,
				     .subsystem = 0x1976,
				     .class_code = 0x010000,
				     .revision = m->model->revision,
				     .interrupt_pin = 1};
	int rc;

	pci_dev_init(&m->pci, m->model->name, &id);
	rc = pci_dev_set_bar(&m->pci, 0, PCI_BAR_IO, false, REG_BYTES, access_bar, m);
	if (!rc)
		rc = pci_dev_set_bar(&m->pci, 1, PCI_BAR_MEM64, false, BAR_MEM_BYTES, access_bar,
				     m);
	if (!rc)
		rc = pci_msi_add(&m->pci, 1);
	if (!rc)
		rc = pci_dev_add(&m->pci, cfg->pci, cfg->slot, 0);
	if (rc)
		return error_set(err, rc, "%s: PCI slot %u: %s", m->model->name, cfg->slot,
				 strerror(-rc));
	return 0;
}

static int create(void **out, const struct storage_config *cfg, const struct mpt_model *model,
		  struct error *err)
{
	struct mpt *m = calloc(1, sizeof(*m));
	int rc;

	*out = NULL;
	if (!m)
		return error_set(err, -ENOMEM, "%s: out of memory", model->name);
	m->model = model;
	m->mem = cfg->mem;
	m->index = cfg->index;
	m->intr_mask = MPT_INTR_ALL;
	pthread_mutex_init(&m->lock, NULL);
	m->lock_ready = true;
	struct scsi_bus_config bus = {.mem = cfg->mem,
				      .lock = &m->lock,
				      .units = cfg->units,
				      .unit_count = cfg->unit_count,
				      .parallel = model->parallel,
				      .done = mpt_done,
				      .opaque = m};
	rc = scsi_bus_create(&m->scsi, &bus, err);
	if (!rc)
		rc = make_pci(m, cfg, err);
	if (rc) {
		destroy(m);
		return rc;
	}
	clear(m);
	*out = m;
	return 0;
}

/* --- the two --- */

/* PortType and ProductID: mpi_ioc.h, MPI_PORTFACTS_PORTTYPE_ and MPI_FW_HEADER_PID_. A parallel bus
 * has 16 ids, of which 7 is the controller's own. */
enum { PORT_SCSI = 0x01, PORT_SAS = 0x30, PRODUCT_1030 = 0x0103, PRODUCT_1068 = 0x2102 };
enum { SPI_IDS = 16, SPI_OWN_ID = 7, SAS_PHYS = 8 };

static const struct mpt_model lsilogic = {
	.name = "lsilogic",
	.chip = "LSI53C1030",
	.pci_device = 0x0030,
	.revision = 1,
	.port_type = PORT_SCSI,
	.parallel = true,
	.product = PRODUCT_1030,
	.message_version = 0x0102,
	.targets = SPI_IDS,
	.port_id = SPI_OWN_ID,
	.pages = mpt_spi_pages,
	.page_count = MPT_SPI_PAGES,
};

static const struct mpt_model lsisas1068 = {
	.name = "lsisas1068",
	.chip = "LSISAS1068",
	.pci_device = 0x0054,
	.revision = 1,
	.port_type = PORT_SAS,
	.product = PRODUCT_1068,
	.message_version = 0x0105,
	.targets = SAS_PHYS,
	.port_id = SAS_PHYS,
	.pages = mpt_sas_pages,
	.page_count = MPT_SAS_PAGES,
};

static int create_lsilogic(void **out, const struct storage_config *cfg, struct error *err)
{
	return create(out, cfg, &lsilogic, err);
}

static int create_lsisas1068(void **out, const struct storage_config *cfg, struct error *err)
{
	return create(out, cfg, &lsisas1068, err);
}

const struct storage_kind lsilogic_kind = {
	.name = "lsilogic",
	.vmx_name = "lsilogic",
	.units = SPI_IDS,
	.reserved = 1 << SPI_OWN_ID,
	.cdrom = true,
	.ops = {.name = "lsilogic", .reset = reset, .state = save_or_restore, .destroy = destroy},
	.create = create_lsilogic,
};

const struct storage_kind lsisas1068_kind = {
	.name = "lsisas1068",
	.vmx_name = "lsisas1068",
	.units = SAS_PHYS,
	.cdrom = true,
	.ops = {.name = "lsisas1068", .reset = reset, .state = save_or_restore, .destroy = destroy},
	.create = create_lsisas1068,
};
