/* SPDX-License-Identifier: Apache-2.0 */
/* Messages by which a driver learns what the controller is, and brings it up: IOC Facts and Init,
 * Port Facts and Enable, event notification. Layouts: Linux drivers/message/fusion/lsi/mpi_ioc.h. */
#include <string.h>

#include "dev/scsi/mpt_internal.h"

enum { FIRMWARE_VERSION = 0x01000000, HEADER_VERSION = 0x0c00, CHAIN_DEPTH = 32, BLOCK_WORDS = 8 };

unsigned mpt_default_reply(uint8_t *reply, const uint8_t *request, unsigned len, uint16_t status)
{
	memset(reply, 0, len);
	reply[M_LENGTH] = (uint8_t)(len / 4);
	reply[M_FUNCTION] = request[M_FUNCTION];
	reply[M_FLAGS] = request[M_FLAGS];
	put_le32(reply + M_CONTEXT, le32(request + M_CONTEXT));
	put_le16(reply + M_STATUS, status);
	return len;
}

/* MSG_IOC_FACTS_REPLY */
static unsigned ioc_facts(struct mpt *m, const uint8_t *request, uint8_t *r)
{
	enum { HIGH_PRI_Q = 1 };

	mpt_default_reply(r, request, 0x50, MPT_SUCCESS);
	put_le16(r, m->model->message_version);
	put_le16(r + 0x04, HEADER_VERSION);
	r[0x14] = CHAIN_DEPTH;
	r[0x15] = m->who_init;
	r[0x16] = BLOCK_WORDS;
	put_le16(r + 0x18, MPT_FREE_DEPTH);
	put_le16(r + 0x1a, MPT_FRAME_BYTES / 4);
	put_le16(r + 0x1e, m->model->product);
	put_le32(r + 0x20, m->mfa_high);
	put_le16(r + 0x24, MPT_CREDITS);
	r[0x26] = 1; /* port */
	r[0x27] = m->event_state;
	put_le32(r + 0x28, m->sense_high);
	put_le16(r + 0x2c, m->reply_frame_bytes);
	r[0x2e] = m->max_devices;
	r[0x2f] = m->max_buses;
	put_le32(r + 0x34, m->model->parallel ? 0 : HIGH_PRI_Q);
	put_le32(r + 0x38, FIRMWARE_VERSION);
	put_le16(r + 0x3c, m->model->parallel ? 0 : MPT_CREDITS);
	return 0x50;
}

/* MSG_IOC_INIT */
static unsigned ioc_init(struct mpt *m, const uint8_t *request, uint8_t *r)
{
	enum { REPLY_BYTES_MIN = M_DEFAULT_BYTES };
	uint16_t frame = (uint16_t)le16(request + 0x0c), status = MPT_SUCCESS;

	if (m->state != MPT_READY || frame < REPLY_BYTES_MIN || request[5] > m->model->targets ||
	    request[6] > 1)
		status = MPT_INVALID_FIELD;
	mpt_default_reply(r, request, M_DEFAULT_BYTES, status);
	r[0] = request[0];
	memcpy(r + 4, request + 4, 3); /* flags, devices, buses */
	if (status)
		return M_DEFAULT_BYTES;
	m->who_init = request[0] & 7;
	m->max_devices = request[5] ? request[5] : (uint8_t)m->model->targets;
	m->max_buses = request[6] ? request[6] : 1;
	m->reply_frame_bytes = frame;
	m->mfa_high = le32(request + 0x10);
	m->sense_high = le32(request + 0x14);
	m->state = MPT_OPERATIONAL;
	return M_DEFAULT_BYTES;
}

/* MSG_PORT_FACTS_REPLY; MaxDevices and, with SAS, PortSCSIID tell how many ids there are. */
static unsigned port_facts(struct mpt *m, const uint8_t *request, uint8_t *r)
{
	enum { INITIATOR = 8 };
	uint8_t port = request[6];

	mpt_default_reply(r, request, 0x28, port ? MPT_INVALID_FIELD : MPT_SUCCESS);
	r[6] = port;
	if (port)
		return 0x28;
	r[0x15] = m->model->port_type;
	put_le16(r + 0x16, m->model->targets);
	put_le16(r + 0x18, m->model->port_id);
	put_le16(r + 0x1a, INITIATOR);
	return 0x28;
}

static unsigned port_enable(const uint8_t *request, uint8_t *r)
{
	uint8_t port = request[6];

	mpt_default_reply(r, request, M_DEFAULT_BYTES, port ? MPT_INVALID_FIELD : MPT_SUCCESS);
	r[6] = port;
	return M_DEFAULT_BYTES;
}

/* MSG_EVENT_NOTIFY_REPLY: the one event there is, that events were switched on or off. Nothing else
 * happens by itself here: no disk comes or goes while the machine runs. */
static unsigned event_notification(struct mpt *m, const uint8_t *request, uint8_t *r)
{
	enum { EVENT_CHANGE = 0x0a };

	m->event_state = request[0] & 1;
	mpt_default_reply(r, request, 0x20, MPT_SUCCESS);
	put_le16(r, 1); /* word of event data */
	put_le32(r + 0x14, EVENT_CHANGE);
	r[0x1c] = m->event_state;
	return 0x20;
}

unsigned mpt_message(struct mpt *m, const uint8_t *request, uint8_t *reply)
{
	switch (request[M_FUNCTION]) {
	case MPT_IOC_FACTS:
		return ioc_facts(m, request, reply);
	case MPT_IOC_INIT:
		return ioc_init(m, request, reply);
	case MPT_PORT_FACTS:
		return port_facts(m, request, reply);
	case MPT_PORT_ENABLE:
		return port_enable(request, reply);
	case MPT_EVENT_NOTIFICATION:
		return event_notification(m, request, reply);
	case MPT_EVENT_ACK:
		return mpt_default_reply(reply, request, M_DEFAULT_BYTES, MPT_SUCCESS);
	case MPT_CONFIG:
		return mpt_config(m, request, reply);
	default:
		m->stats.bad_messages++;
		return mpt_default_reply(reply, request, M_DEFAULT_BYTES, MPT_INVALID_FUNCTION);
	}
}
