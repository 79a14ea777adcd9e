/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pvscsi's rings. Requests of 128 bytes, completions of 32; indices that count on without end, in a
 * page of their own, of which the guest owns reqProdIdx and cmpConsIdx.
 *
 *     guest: writes a request, ++reqProdIdx, kick        device: takes it, ++reqConsIdx
 *     guest: takes completions, ++cmpConsIdx    <- irq - device: writes it, ++cmpProdIdx
 *
 * Layouts: Linux drivers/scsi/vmw_pvscsi.h (struct names are given beside the offsets).
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "dev/scsi/pvscsi_internal.h"

enum { PAGE = MEM_PAGE_BYTES, REQ_BYTES = 128, CMP_BYTES = 32, SGE_BYTES = 16 };

/* PVSCSIRingsState */
enum { REQ_PROD = 0, REQ_CONS = 4, REQ_LOG2 = 8, CMP_PROD = 12, CMP_CONS = 16, CMP_LOG2 = 20 };
enum { REQ_THRESHOLD = 24, MSG_PROD = 128, MSG_CONS = 132, MSG_LOG2 = 136, STATE_BYTES = 140 };

/* PVSCSIRingReqDesc */
enum { R_CONTEXT = 0, R_DATA = 8, R_DATA_LEN = 16, R_SENSE = 24, R_SENSE_LEN = 32, R_FLAGS = 36 };
enum { R_CDB = 40, R_CDB_LEN = 56, R_LUN = 57, R_BUS = 66, R_TARGET = 67 };
enum { FLAG_SG_LIST = 1, FLAG_OUT_OF_BAND_CDB = 2 };

/* PVSCSISGElement */
enum { SGE_ADDR = 0, SGE_LEN = 8, SGE_FLAGS = 12, SGE_CHAIN = 1, SGES_MAX = 4096 };

/* PVSCSIRingCmpDesc */
enum { C_CONTEXT = 0, C_DATA_LEN = 8, C_SENSE_LEN = 16, C_HOST_STATUS = 20, C_SCSI_STATUS = 22 };

/* HostBusAdapterStatus */
enum { HOST_SUCCESS = 0, HOST_SELTIMEO = 0x11, HOST_DATARUN = 0x12, HOST_INVPARAM = 0x1a };
enum { HOST_BUSRESET = 0x25, HOST_ABORTQUEUE = 0x26, HOST_HASOFTWARE = 0x27 };

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint32_t state_get(const struct pvscsi *p, unsigned at)
{
	return __atomic_load_n((const uint32_t *)((char *)p->state.host + at), __ATOMIC_ACQUIRE);
}

static void state_set(struct pvscsi *p, unsigned at, uint32_t v)
{
	__atomic_store_n((uint32_t *)((char *)p->state.host + at), v, __ATOMIC_RELEASE);
	mem_written(p->mem, p->state.gpa + at, 4);
}

static uint32_t log2_of(uint32_t v)
{
	return v ? 31u - (uint32_t)__builtin_clz(v) : 0;
}

/* --- setting up --- */

int pvscsi_ring_set(struct pvscsi *p, struct pvscsi_ring *ring, unsigned pages_max, uint32_t pages,
		    const uint64_t *gpa, unsigned entry_bytes)
{
	struct pvscsi_ring made = {.entries = pages * (PAGE / entry_bytes)};

	if (!pages || pages > pages_max || pages & (pages - 1))
		return -EINVAL;
	while (made.pages < pages) {
		uint64_t at = gpa[made.pages];
		if (at % PAGE || !dma_map(p->mem, &made.page[made.pages], at, PAGE, true)) {
			pvscsi_ring_forget(p, &made);
			return -EINVAL;
		}
		made.pages++;
	}
	pvscsi_ring_forget(p, ring);
	*ring = made;
	return 0;
}

void pvscsi_ring_forget(struct pvscsi *p, struct pvscsi_ring *ring)
{
	dma_unmap_all(p->mem, ring->page, &ring->pages);
}

void pvscsi_ring_publish(struct pvscsi *p)
{
	p->req_consumed = 0;
	p->cmp_produced = 0;
	state_set(p, REQ_CONS, 0);
	state_set(p, CMP_PROD, 0);
	state_set(p, REQ_LOG2, log2_of(p->req.entries));
	state_set(p, CMP_LOG2, log2_of(p->cmp.entries));
	pvscsi_set_threshold(p);
}

void pvscsi_msg_publish(struct pvscsi *p)
{
	state_set(p, MSG_PROD, 0);
	state_set(p, MSG_LOG2, log2_of(p->msg.entries));
}

/* From how many waiting requests on the guest is to kick. Requests are taken when it does, so each
 * kick matters: 1. */
void pvscsi_set_threshold(struct pvscsi *p)
{
	if (p->state.host)
		state_set(p, REQ_THRESHOLD, p->threshold_on ? 1 : 0);
}

static uint64_t entry_gpa(const struct pvscsi_ring *ring, uint32_t index, unsigned entry_bytes)
{
	uint32_t at = (index & (ring->entries - 1)) * entry_bytes;

	return ring->page[at / PAGE].gpa + at % PAGE;
}

static uint8_t *entry(const struct pvscsi_ring *ring, uint32_t index, unsigned entry_bytes)
{
	uint32_t at = (index & (ring->entries - 1)) * entry_bytes;

	return (uint8_t *)ring->page[at / PAGE].host + at % PAGE;
}

/* --- completions --- */

static void complete(struct pvscsi *p, uint64_t context, uint64_t data_len, uint32_t sense_len,
		     uint16_t host, uint16_t scsi)
{
	uint8_t d[CMP_BYTES] = {0};

	if (!p->state.host)
		return; /* reset meanwhile: nobody waits for it */
	if (p->cmp_produced - state_get(p, CMP_CONS) >= p->cmp.entries) {
		p->stats.lost++;
		return;
	}
	memcpy(d + C_CONTEXT, &context, 8);
	memcpy(d + C_DATA_LEN, &data_len, 8);
	memcpy(d + C_SENSE_LEN, &sense_len, 4);
	memcpy(d + C_HOST_STATUS, &host, 2);
	memcpy(d + C_SCSI_STATUS, &scsi, 2);
	memcpy(entry(&p->cmp, p->cmp_produced, CMP_BYTES), d, sizeof(d));
	mem_written(p->mem, entry_gpa(&p->cmp, p->cmp_produced, CMP_BYTES), sizeof(d));
	state_set(p, CMP_PROD, ++p->cmp_produced);
	p->stats.completions++;
	if (p->processing)
		p->raise = true; /* one interrupt for all that were over at once */
	else
		pvscsi_raise(p, INTR_CMPL_0);
}

/* Sense data to where the request wanted them; returns how many bytes went there. */
static uint32_t give_sense(struct pvscsi *p, const struct scsi_request *r)
{
	uint64_t room = r->extra[1];
	uint32_t len = r->sense_len < room ? r->sense_len : (uint32_t)room;

	return len && mem_write(p->mem, r->extra[0], r->sense, len) ? 0 : len;
}

void pvscsi_done(void *opaque, struct scsi_request *r)
{
	static const uint16_t host[] = {
		[SCSI_DONE] = HOST_SUCCESS,	  [SCSI_NO_TARGET] = HOST_SELTIMEO,
		[SCSI_OVERRUN] = HOST_DATARUN,	  [SCSI_ABORTED] = HOST_ABORTQUEUE,
		[SCSI_WAS_RESET] = HOST_BUSRESET,
	};
	struct pvscsi *p = opaque;
	bool done = r->outcome == SCSI_DONE;

	complete(p, r->tag, r->transferred, done ? give_sense(p, r) : 0, host[r->outcome],
		 done ? (uint16_t)r->status : 0);
}

/* --- requests --- */

/* Follows a scatter/gather list, by segments that each lie within a page. 0 or -errno. */
static int gather_list(struct pvscsi *p, struct scsi_sgl *s, uint64_t at, uint64_t left)
{
	uint8_t sge[SGE_BYTES];
	int rc;

	for (unsigned i = 0; left; i++) {
		if (i == SGES_MAX)
			return -E2BIG;
		rc = mem_read(p->mem, at, sge, sizeof(sge));
		if (rc)
			return rc;
		if (get32(sge + SGE_FLAGS) & SGE_CHAIN) {
			at = get64(sge + SGE_ADDR);
			continue;
		}
		uint64_t len = get32(sge + SGE_LEN);
		if (len > left)
			len = left;
		rc = sgl_add(s, p->mem, get64(sge + SGE_ADDR), len);
		if (rc)
			return rc;
		left -= len;
		at += SGE_BYTES;
	}
	return 0;
}

static int gather(struct pvscsi *p, struct scsi_sgl *s, const uint8_t *d)
{
	uint64_t addr = get64(d + R_DATA), len = get64(d + R_DATA_LEN);

	if (len > SGL_BYTES_MAX)
		return -E2BIG;
	if (get32(d + R_FLAGS) & FLAG_SG_LIST)
		return gather_list(p, s, addr, len);
	return sgl_add(s, p->mem, addr, len);
}

static void take_request(struct pvscsi *p, const uint8_t *d)
{
	uint64_t context = get64(d + R_CONTEXT);
	struct scsi_request *r;
	int rc;

	p->stats.requests++;
	if (get32(d + R_FLAGS) & FLAG_OUT_OF_BAND_CDB || d[R_CDB_LEN] > SCSI_CDB_BYTES) {
		p->stats.bad_requests++;
		complete(p, context, 0, 0, HOST_INVPARAM, 0);
		return;
	}
	r = scsi_request_new(p->scsi, d + R_CDB, d[R_CDB_LEN]);
	if (!r) {
		complete(p, context, 0, 0, HOST_HASOFTWARE, 0);
		return;
	}
	rc = gather(p, &r->data, d);
	if (rc) {
		scsi_request_free(r);
		p->stats.bad_requests++;
		complete(p, context, 0, 0, rc == -ENOMEM ? HOST_HASOFTWARE : HOST_INVPARAM, 0);
		return;
	}
	r->tag = context;
	r->target = d[R_BUS] ? SCSI_TARGETS_MAX : d[R_TARGET];
	memcpy(r->lun, d + R_LUN, sizeof(r->lun));
	r->extra[0] = get64(d + R_SENSE);
	r->extra[1] = get32(d + R_SENSE_LEN);
	scsi_submit(r);
}

/* Takes at most what was there when it began: a guest that goes on writing gets the rest later. */
void pvscsi_process(struct pvscsi *p)
{
	uint8_t d[REQ_BYTES];
	uint32_t waiting;

	if (scsi_is_draining(p->scsi)) {
		p->kicked = true;
		return;
	}
	if (!p->state.host || !pci_dev_is_master(&p->pci))
		return;
	waiting = state_get(p, REQ_PROD) - p->req_consumed;
	if (waiting > p->req.entries) {
		p->stats.bad_rings++;
		return;
	}
	p->processing = true;
	while (waiting--) {
		memcpy(d, entry(&p->req, p->req_consumed, REQ_BYTES), sizeof(d));
		state_set(p, REQ_CONS, ++p->req_consumed);
		take_request(p, d);
	}
	p->processing = false;
	if (p->raise)
		pvscsi_raise(p, INTR_CMPL_0);
	p->raise = false;
	if (state_get(p, REQ_PROD) != p->req_consumed)
		timer_arm(&p->again, clock_ns());
}
