/* SPDX-License-Identifier: Apache-2.0 */
/* SCSI IO requests with their scatter/gather lists, and task management. Layouts: Linux
 * drivers/message/fusion/lsi/mpi_init.h and mpi.h. */
#include <errno.h>
#include <string.h>

#include "dev/scsi/mpt_internal.h"

/* MSG_SCSI_IO_REQUEST */
enum { R_TARGET = 0, R_BUS = 1, R_CHAIN = 2, R_CDB_LEN = 4, R_SENSE_LEN = 5, R_LUN = 0x0c };
enum { R_CDB = 0x18, R_DATA_LEN = 0x28, R_SENSE = 0x2c, R_SGL = 0x30 };

/* MSG_SCSI_IO_REPLY */
enum { P_SCSI_STATUS = 0x0c, P_SCSI_STATE = 0x0d, P_TRANSFERRED = 0x14, P_SENSE = 0x18 };
enum { P_TASK_TAG = 0x20, IO_REPLY_BYTES = 0x24, TASK_TAG_UNKNOWN = 0xffff };
enum { STATE_SENSE = 1, STATE_SENSE_FAILED = 2, STATE_NO_STATUS = 4, STATE_TERMINATED = 8 };

/* --- scatter/gather lists --- */

enum { SGE_LAST = 0x80, SGE_TYPE = 0x30, SGE_SIMPLE = 0x10, SGE_CHAIN = 0x30, SGE_64 = 0x02 };
enum { SGE_END_OF_LIST = 0x01, SEGMENTS_MAX = 64, SEGMENT_BYTES_MAX = 4096 };

struct segment {
	uint8_t bytes[SEGMENT_BYTES_MAX];
	unsigned len, at, chain_at; /* chain_at: where its chain element is; 0: it has none */
};

/* The next segment, which a chain element names. 0 or -errno. */
static int follow(struct mpt *m, struct segment *g, unsigned element_bytes)
{
	const uint8_t *e = g->bytes + g->at;
	unsigned len = le16(e), chain_at = e[2] * 4u;
	uint64_t addr = element_bytes == 12 ? le64(e + 4) : le32(e + 4);

	if (!len || len > SEGMENT_BYTES_MAX)
		return -EINVAL;
	if (mem_read(m->mem, addr, g->bytes, len))
		return -EFAULT;
	g->len = len;
	g->at = 0;
	g->chain_at = chain_at;
	return 0;
}

/* Adds up a list until it ends or `left` bytes are there. g holds its first segment. */
static int gather(struct mpt *m, struct scsi_sgl *s, struct segment *g, uint64_t left)
{
	unsigned segments = 0;
	int rc;

	while (left) {
		if (g->at + 8 > g->len)
			return -EINVAL;
		uint8_t *e = g->bytes + g->at, flags = e[3];
		unsigned bytes = flags & SGE_64 ? 12 : 8;
		if (g->at + bytes > g->len)
			return -EINVAL;
		if ((flags & SGE_TYPE) == SGE_CHAIN) {
			rc = ++segments > SEGMENTS_MAX ? -E2BIG : follow(m, g, bytes);
			if (rc)
				return rc;
			continue;
		}
		if ((flags & SGE_TYPE) != SGE_SIMPLE)
			return -EINVAL;
		uint64_t len = le32(e) & 0xffffff;
		if (len > left)
			len = left;
		rc = sgl_add(s, m->mem, bytes == 12 ? le64(e + 4) : le32(e + 4), len);
		if (rc)
			return rc;
		left -= len;
		if (flags & SGE_END_OF_LIST)
			return 0;
		g->at += bytes;
		if (flags & SGE_LAST) { /* of its segment: on to the chain element */
			if (g->chain_at < g->at)
				return 0;
			g->at = g->chain_at;
		}
	}
	return 0;
}

/* --- SCSI IO --- */

static void io_reply(struct mpt *m, const uint8_t *request, const struct scsi_request *r,
		     uint16_t status, uint8_t state, uint32_t sense)
{
	uint8_t d[IO_REPLY_BYTES];

	mpt_default_reply(d, request, sizeof(d), status);
	d[0] = request[R_TARGET];
	d[1] = request[R_BUS];
	d[4] = request[R_CDB_LEN];
	d[5] = request[R_SENSE_LEN];
	d[P_SCSI_STATE] = state;
	if (r) {
		d[P_SCSI_STATUS] = (uint8_t)r->status;
		put_le32(d + P_TRANSFERRED, (uint32_t)r->transferred);
	}
	put_le32(d + P_SENSE, sense);
	put_le16(d + P_TASK_TAG, TASK_TAG_UNKNOWN);
	mpt_post_reply(m, d, sizeof(d));
}

/* What of a request is needed when it is over. */
static void keep(struct scsi_request *r, const uint8_t *request)
{
	r->extra[0] = le64(request);
	r->extra[1] = le32(request + M_CONTEXT) | (uint64_t)le32(request + R_SENSE) << 32;
	r->extra[2] = le32(request + R_DATA_LEN);
}

static void kept(const struct scsi_request *r, uint8_t *request)
{
	memset(request, 0, MPT_FRAME_BYTES);
	put_le64(request, r->extra[0]);
	put_le32(request + M_CONTEXT, (uint32_t)r->extra[1]);
	put_le32(request + R_SENSE, (uint32_t)(r->extra[1] >> 32));
	put_le32(request + R_DATA_LEN, (uint32_t)r->extra[2]);
}

void mpt_scsi_io(struct mpt *m, const uint8_t *request)
{
	struct segment first;
	uint16_t status = MPT_SUCCESS;
	struct scsi_request *r;
	int rc = 0;

	if (request[R_BUS] >= m->max_buses)
		status = MPT_SCSI_INVALID_BUS;
	else if (request[R_TARGET] >= m->max_devices)
		status = MPT_SCSI_INVALID_TARGET;
	else if (!scsi_has_target(m->scsi, request[R_TARGET]))
		status = MPT_SCSI_DEVICE_NOT_THERE;
	else if (request[R_CDB_LEN] > SCSI_CDB_BYTES)
		status = MPT_INVALID_FIELD;
	if (status) {
		io_reply(m, request, NULL, status, STATE_NO_STATUS, 0);
		return;
	}
	r = scsi_request_new(m->scsi, request + R_CDB, request[R_CDB_LEN]);
	if (r) {
		memcpy(first.bytes, request, MPT_FRAME_BYTES);
		first.len = MPT_FRAME_BYTES;
		first.at = R_SGL;
		first.chain_at = request[R_CHAIN] * 4u;
		rc = gather(m, &r->data, &first, le32(request + R_DATA_LEN));
	}
	if (!r || rc) {
		if (r)
			scsi_request_free(r);
		m->stats.bad_messages += rc && rc != -ENOMEM;
		io_reply(m, request, NULL,
			 rc && rc != -ENOMEM ? MPT_INVALID_SGL : MPT_INSUFFICIENT_RESOURCES,
			 STATE_NO_STATUS, 0);
		return;
	}
	keep(r, request);
	r->tag = le32(request + M_CONTEXT);
	r->target = request[R_TARGET];
	memcpy(r->lun, request + R_LUN, sizeof(r->lun));
	scsi_submit(r);
}

/* --- task management --- */

/* MSG_SCSI_TASK_MGMT and its reply */
enum { T_TYPE = 5, T_TASK_CONTEXT = 0x30, T_CODE = 4, T_COUNT = 0x14, T_REPLY_BYTES = 0x18 };
enum { ABORT_TASK = 1, ABORT_TASK_SET, TARGET_RESET, RESET_BUS, UNIT_RESET, CLEAR_TASK_SET };
enum { QUERY_TASK = 7 };
enum { COMPLETE = 0, NOT_SUPPORTED = 4, FAILED = 5, SUCCEEDED = 8 };

static void tm_reply(struct mpt *m, const uint8_t *request, uint16_t status, uint8_t code,
		     unsigned count)
{
	uint8_t d[T_REPLY_BYTES];

	mpt_default_reply(d, request, sizeof(d), status);
	d[0] = request[R_TARGET];
	d[1] = request[R_BUS];
	d[T_CODE] = code;
	d[T_TYPE] = request[T_TYPE];
	put_le32(d + T_COUNT, count);
	mpt_post_reply(m, d, sizeof(d));
}

static void abort_task(struct mpt *m, const uint8_t *request)
{
	uint32_t context = le32(request + T_TASK_CONTEXT);
	unsigned slot = 0, count;

	while (slot < MPT_ABORTS_MAX && m->abort[slot].used)
		slot++;
	if (slot == MPT_ABORTS_MAX) {
		tm_reply(m, request, MPT_SUCCESS, FAILED, 0);
		return;
	}
	count = scsi_abort(m->scsi, request[R_TARGET], context);
	if (!count) { /* it was over before */
		tm_reply(m, request, MPT_SUCCESS, COMPLETE, 0);
		return;
	}
	m->abort[slot].used = true;
	m->abort[slot].count = count;
	memcpy(m->abort[slot].request, request, MPT_FRAME_BYTES);
}

/* A command is over: was it the one somebody waits for? Its own reply went first. */
static void answer_aborts(struct mpt *m, unsigned target, uint32_t context)
{
	for (unsigned i = 0; i < MPT_ABORTS_MAX; i++) {
		struct mpt_abort *a = &m->abort[i];
		if (!a->used || a->request[R_TARGET] != target ||
		    le32(a->request + T_TASK_CONTEXT) != context ||
		    scsi_is_in_flight(m->scsi, target, context))
			continue;
		a->used = false;
		tm_reply(m, a->request, MPT_SUCCESS, COMPLETE, a->count);
	}
}

/* The guest's replies come before that of the reset, which lets go of the lock while it waits. */
static void reset(struct mpt *m, const uint8_t *request, unsigned target)
{
	unsigned count = scsi_in_flight(m->scsi);

	scsi_reset(m->scsi, target);
	if (m->state == MPT_OPERATIONAL)
		tm_reply(m, request, MPT_SUCCESS, COMPLETE, count);
}

void mpt_task_mgmt(struct mpt *m, const uint8_t *request)
{
	unsigned target = request[R_TARGET];
	bool there = !request[R_BUS] && scsi_has_target(m->scsi, target);

	if (request[T_TYPE] == RESET_BUS && !request[R_BUS]) {
		reset(m, request, SCSI_ALL_TARGETS);
		return;
	}
	if (!there) {
		tm_reply(m, request, MPT_SCSI_DEVICE_NOT_THERE, FAILED, 0);
		return;
	}
	switch (request[T_TYPE]) {
	case ABORT_TASK:
		abort_task(m, request);
		break;
	case ABORT_TASK_SET:
	case TARGET_RESET:
	case UNIT_RESET:
	case CLEAR_TASK_SET:
		reset(m, request, target);
		break;
	case QUERY_TASK:
		tm_reply(m, request, MPT_SUCCESS,
			 scsi_is_in_flight(m->scsi, target, le32(request + T_TASK_CONTEXT))
				 ? SUCCEEDED
				 : COMPLETE,
			 0);
		break;
	default:
		tm_reply(m, request, MPT_INVALID_FIELD, NOT_SUPPORTED, 0);
	}
}

/* --- the end of a command --- */

static void answer(struct mpt *m, const struct scsi_request *r, const uint8_t *request)
{
	uint64_t sense_at = (uint64_t)m->sense_high << 32 | le32(request + R_SENSE);
	uint32_t sense = r->sense_len;
	uint8_t state = 0;

	if (r->outcome == SCSI_OVERRUN) {
		io_reply(m, request, NULL, MPT_SCSI_DATA_OVERRUN, STATE_NO_STATUS, 0);
	} else if (r->outcome != SCSI_DONE) {
		io_reply(m, request, NULL, MPT_SCSI_TASK_TERMINATED,
			 STATE_NO_STATUS | STATE_TERMINATED, 0);
	} else if (r->status == SCSI_GOOD) {
		if (r->transferred == le32(request + R_DATA_LEN))
			mpt_post_context(m, le32(request + M_CONTEXT));
		else
			io_reply(m, request, r, MPT_SCSI_DATA_UNDERRUN, 0, 0);
	} else {
		if (sense > request[R_SENSE_LEN])
			sense = request[R_SENSE_LEN];
		if (sense && mem_write(m->mem, sense_at, r->sense, sense))
			sense = 0;
		if (r->status == SCSI_CHECK_CONDITION)
			state = sense ? STATE_SENSE : STATE_SENSE_FAILED;
		io_reply(m, request, r, MPT_SUCCESS, state, sense);
	}
}

void mpt_done(void *opaque, struct scsi_request *r)
{
	struct mpt *m = opaque;
	uint8_t request[MPT_FRAME_BYTES];

	if (m->state != MPT_OPERATIONAL)
		return; /* reset meanwhile: nobody waits for it */
	kept(r, request);
	answer(m, r, request);
	answer_aborts(m, r->target, (uint32_t)r->tag);
}
