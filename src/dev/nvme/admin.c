/* SPDX-License-Identifier: Apache-2.0 */
/* Admin commands (NVMe 5): queues, features, events. The admin queue's lock is held throughout. */
#include "dev/nvme/nvme_internal.h"

enum {
	ADMIN_DELETE_SQ = 0x00,
	ADMIN_CREATE_SQ = 0x01,
	ADMIN_GET_LOG = 0x02,
	ADMIN_DELETE_CQ = 0x04,
	ADMIN_CREATE_CQ = 0x05,
	ADMIN_IDENTIFY = 0x06,
	ADMIN_ABORT = 0x08,
	ADMIN_SET_FEATURES = 0x09,
	ADMIN_GET_FEATURES = 0x0a,
	ADMIN_ASYNC_EVENT = 0x0c,
};
enum { QUEUE_CONTIGUOUS = 1, CQ_INTERRUPTS = 2, EVENT_LOG_ERROR = 1, ABORT_NOT_DONE = 1 };
/* CC: log2 of the entries' sizes (NVMe 3.1.5). */
enum { CC_IOSQES_SHIFT = 16, CC_IOCQES_SHIFT = 20, SQ_ENTRY_LOG2 = 6, CQ_ENTRY_LOG2 = 4 };

static bool is_io_queue(const struct nvme *n, uint32_t id)
{
	return id >= 1 && id <= n->io_queues;
}

/* --- queues --- */

/* What creations have in common: CDW10 holds id and size - 1. */
static unsigned check_queue(const struct nvme *n, const struct nvme_command *c, unsigned shift,
			    unsigned entry_log2)
{
	uint32_t size = (c->cdw10 >> 16) + 1;

	if (!is_io_queue(n, c->cdw10 & 0xffff))
		return NVME_INVALID_QUEUE_ID | NVME_DO_NOT_RETRY;
	if (size < 2 || size > NVME_ENTRIES_MAX ||
	    (__atomic_load_n(&n->cc, __ATOMIC_RELAXED) >> shift & 15) != entry_log2)
		return NVME_INVALID_QUEUE_SIZE | NVME_DO_NOT_RETRY;
	if (!(c->cdw11 & QUEUE_CONTIGUOUS))
		return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
	if (c->prp1 & (NVME_PAGE_BYTES - 1))
		return NVME_INVALID_PRP_OFFSET | NVME_DO_NOT_RETRY;
	return NVME_OK;
}

static unsigned create_cq(struct nvme *n, const struct nvme_command *c)
{
	unsigned status = check_queue(n, c, CC_IOCQES_SHIFT, CQ_ENTRY_LOG2);
	uint16_t vector = (uint16_t)(c->cdw11 >> 16);
	struct nvme_cq *cq;

	if (status)
		return status;
	if (vector >= (pci_msix_enabled(&n->pci) ? nvme_vectors(n) : 1))
		return NVME_INVALID_VECTOR | NVME_DO_NOT_RETRY;
	cq = &n->cq[c->cdw10 & 0xffff];
	pthread_mutex_lock(&cq->lock);
	if (cq->created)
		status = NVME_INVALID_QUEUE_ID | NVME_DO_NOT_RETRY;
	else
		status = nvme_cq_create(cq, n, c->prp1, (c->cdw10 >> 16) + 1, vector,
					c->cdw11 & CQ_INTERRUPTS);
	pthread_mutex_unlock(&cq->lock);
	return status;
}

static bool cq_created(struct nvme *n, uint32_t id)
{
	bool created;

	if (!is_io_queue(n, id))
		return false;
	pthread_mutex_lock(&n->cq[id].lock);
	created = n->cq[id].created;
	pthread_mutex_unlock(&n->cq[id].lock);
	return created;
}

static unsigned create_sq(struct nvme *n, const struct nvme_command *c)
{
	unsigned status = check_queue(n, c, CC_IOSQES_SHIFT, SQ_ENTRY_LOG2);
	uint32_t cq = c->cdw11 >> 16;
	struct nvme_sq *sq;

	if (status)
		return status;
	if (!cq_created(n, cq))
		return NVME_CQ_INVALID | NVME_DO_NOT_RETRY;
	sq = &n->sq[c->cdw10 & 0xffff];
	pthread_mutex_lock(&sq->lock);
	if (sq->created)
		status = NVME_INVALID_QUEUE_ID | NVME_DO_NOT_RETRY;
	else
		status = nvme_sq_create(sq, c->prp1, (c->cdw10 >> 16) + 1, (uint16_t)cq);
	pthread_mutex_unlock(&sq->lock);
	return status;
}

/* NVMe 5.6: over when the queue's commands are. */
static unsigned delete_sq(struct nvme *n, const struct nvme_command *c)
{
	struct nvme_sq *sq;
	unsigned status = NVME_OK;

	if (!is_io_queue(n, c->cdw10 & 0xffff))
		return NVME_INVALID_QUEUE_ID | NVME_DO_NOT_RETRY;
	sq = &n->sq[c->cdw10 & 0xffff];
	pthread_mutex_lock(&sq->lock);
	if (!sq->created || sq->deleting) {
		status = NVME_INVALID_QUEUE_ID | NVME_DO_NOT_RETRY;
	} else if (sq->out) {
		sq->deleting = true;
		sq->delete_cid = c->cid;
		status = NVME_LATER;
	} else {
		nvme_sq_end(sq);
	}
	pthread_mutex_unlock(&sq->lock);
	return status;
}

static unsigned delete_cq(struct nvme *n, const struct nvme_command *c)
{
	uint32_t id = c->cdw10 & 0xffff;

	if (!cq_created(n, id))
		return NVME_INVALID_QUEUE_ID | NVME_DO_NOT_RETRY;
	for (unsigned i = 1; i <= n->io_queues; i++) {
		struct nvme_sq *sq = &n->sq[i];
		pthread_mutex_lock(&sq->lock);
		bool uses = sq->created && sq->cq == id;
		pthread_mutex_unlock(&sq->lock);
		if (uses)
			return NVME_QUEUE_DELETION | NVME_DO_NOT_RETRY;
	}
	pthread_mutex_lock(&n->cq[id].lock);
	nvme_cq_reset(&n->cq[id], n);
	pthread_mutex_unlock(&n->cq[id].lock);
	nvme_update_pin(n);
	return NVME_OK;
}

/* --- features (NVMe 5.14, 5.21) --- */

enum { SELECT_CURRENT, SELECT_DEFAULT, SELECT_SAVED, SELECT_CAPABILITIES };
enum { CAPABILITY_CHANGEABLE = 1 << 2, SET_SAVE = 1u << 31 };

static const struct {
	bool known;
	uint32_t initial, changeable; /* value after reset, bits the driver may change */
} features[NVME_FEATURES] = {
	[FEATURE_ARBITRATION] = {true, 7, UINT32_MAX}, /* no limit of a burst */
	[FEATURE_POWER] = {true, 0, 0xe0},	       /* power state 0 is the only one */
	[FEATURE_TEMPERATURE] = {true, 343, 0xffff},   /* kelvin */
	[FEATURE_RECOVERY] = {true, 0, 0xffff},
	[FEATURE_WRITE_CACHE] = {true, 1, 1},
	[FEATURE_QUEUES] = {true, 0, 0}, /* see below */
	[FEATURE_COALESCING] = {true, 0, 0xffff},
	[FEATURE_VECTOR] = {true, 0, 0},
	[FEATURE_ATOMICITY] = {true, 0, 1},
	[FEATURE_EVENTS] = {true, 0, 0xff},
};

static uint32_t queues_value(const struct nvme *n)
{
	uint32_t count = n->io_queues - 1;

	return count << 16 | count;
}

static unsigned get_features(struct nvme *n, const struct nvme_command *c, uint32_t *result)
{
	unsigned id = c->cdw10 & 0xff, select = c->cdw10 >> 8 & 7;

	if (id >= NVME_FEATURES || !features[id].known || select > SELECT_CAPABILITIES)
		return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
	if (select == SELECT_CAPABILITIES)
		*result = features[id].changeable ? CAPABILITY_CHANGEABLE : 0;
	else if (id == FEATURE_QUEUES)
		*result = queues_value(n);
	else if (id == FEATURE_VECTOR)
		*result = c->cdw11 & 0xffff;
	else if (id == FEATURE_TEMPERATURE && c->cdw11 & ~0u << 16)
		*result = 0; /* one sensor, one threshold */
	else
		*result = select == SELECT_CURRENT ? n->feature[id] : features[id].initial;
	return NVME_OK;
}

static unsigned set_features(struct nvme *n, const struct nvme_command *c, uint32_t *result)
{
	unsigned id = c->cdw10 & 0xff;

	if (id >= NVME_FEATURES || !features[id].known)
		return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
	if (c->cdw10 & SET_SAVE)
		return NVME_NOT_SAVEABLE | NVME_DO_NOT_RETRY;
	if (id == FEATURE_QUEUES) {
		/* NVMe 5.21.1.7: 65535 is not a number of queues; all there are are granted. */
		if ((c->cdw11 & 0xffff) == 0xffff || c->cdw11 >> 16 == 0xffff)
			return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
		*result = queues_value(n);
		return NVME_OK;
	}
	if (id == FEATURE_POWER && c->cdw11 & 0x1f)
		return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
	if (id == FEATURE_VECTOR)
		return (c->cdw11 & 0xffff) < nvme_vectors(n)
			       ? NVME_OK
			       : NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
	if (id == FEATURE_TEMPERATURE && c->cdw11 & ~0u << 16)
		return NVME_OK; /* thresholds that never are reached */
	__atomic_store_n(&n->feature[id], c->cdw11 & features[id].changeable, __ATOMIC_RELAXED);
	return NVME_OK;
}

void nvme_reset_admin(struct nvme *n)
{
	for (unsigned i = 0; i < NVME_FEATURES; i++)
		__atomic_store_n(&n->feature[i], features[i].initial, __ATOMIC_RELAXED);
	n->events = 0;
	n->event_masked = false;
	atomic_store(&n->event_pending, 0);
}

/* --- asynchronous events (NVMe 5.2) --- */

void nvme_tell_events(struct nvme *n)
{
	struct nvme_sq *sq = &n->sq[0];

	while (sq->created && n->events && !n->event_masked && atomic_load(&n->event_pending)) {
		unsigned event = (unsigned)__builtin_ctz(atomic_load(&n->event_pending));
		if (!nvme_cq_reserve(&n->cq[0]))
			return; /* again when there is room */
		atomic_fetch_and(&n->event_pending, (uint8_t) ~(1u << event));
		n->event_masked = true; /* until the log is read */
		nvme_complete(sq, 0, n->event_cid[--n->events], event << 8 | EVENT_LOG_ERROR << 16,
			      NVME_OK);
		nvme_cq_say(n, 0);
	}
}

void nvme_event(struct nvme *n, unsigned event)
{
	pthread_mutex_lock(&n->sq[0].lock);
	atomic_fetch_or(&n->event_pending, (uint8_t)(1u << event));
	nvme_tell_events(n);
	pthread_mutex_unlock(&n->sq[0].lock);
}

static unsigned async_event(struct nvme *n, const struct nvme_command *c)
{
	if (n->events == NVME_EVENTS_MAX)
		return NVME_EVENT_LIMIT | NVME_DO_NOT_RETRY;
	n->event_cid[n->events++] = c->cid;
	/* It may wait for ever: no room in the completion queue is kept for it. */
	nvme_cq_unreserve(&n->cq[0]);
	nvme_tell_events(n);
	return NVME_LATER;
}

static unsigned get_log(struct nvme *n, const struct nvme_command *c)
{
	unsigned status = nvme_get_log(n, c);

	/* Bit 15: the event is to stay (NVMe 5.14). */
	if (!status && (c->cdw10 & 0xff) == EVENT_LOG_ERROR && !(c->cdw10 & 1 << 15)) {
		n->event_masked = false;
		nvme_tell_events(n);
	}
	return status;
}

unsigned nvme_admin(struct nvme *n, const struct nvme_command *c, uint32_t *result)
{
	switch (c->opcode) {
	case ADMIN_DELETE_SQ:
		return delete_sq(n, c);
	case ADMIN_CREATE_SQ:
		return create_sq(n, c);
	case ADMIN_GET_LOG:
		return get_log(n, c);
	case ADMIN_DELETE_CQ:
		return delete_cq(n, c);
	case ADMIN_CREATE_CQ:
		return create_cq(n, c);
	case ADMIN_IDENTIFY:
		return nvme_identify(n, c);
	case ADMIN_ABORT:
		/* Allowed to come too late (NVMe 5.1): what a disk has begun it ends. */
		*result = ABORT_NOT_DONE;
		return NVME_OK;
	case ADMIN_SET_FEATURES:
		return set_features(n, c, result);
	case ADMIN_GET_FEATURES:
		return get_features(n, c, result);
	case ADMIN_ASYNC_EVENT:
		return async_event(n, c);
	}
	return NVME_INVALID_OPCODE | NVME_DO_NOT_RETRY;
}
