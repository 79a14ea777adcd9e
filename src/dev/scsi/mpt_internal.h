/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_SCSI_MPT_INTERNAL_H
#define HANOK_DEV_SCSI_MPT_INTERNAL_H

#include "dev/scsi/mpt.h"

enum {
	MPT_TARGETS_MAX = 16,
	MPT_FRAME_BYTES = 128, /* of a request */
	MPT_REPLY_BYTES = 80,  /* of the longest reply: IOC Facts */
	MPT_CREDITS = 128,     /* requests the guest may have under way */
	MPT_FREE_DEPTH = 128,  /* reply frames it may give us */
	MPT_POST_DEPTH = 512,  /* replies that wait for it; a power of two, as the next */
	MPT_BACKLOG_DEPTH = 256,
	MPT_ABORTS_MAX = 8,
	MPT_PAGE_BYTES_MAX = 256,
};

/* IOC states, as the doorbell shows them. */
enum mpt_state { MPT_RESET = 0, MPT_READY = 1, MPT_OPERATIONAL = 2, MPT_FAULT = 4 };

enum { MPT_INTR_DOORBELL = 1 << 0, MPT_INTR_REPLY = 1 << 3, MPT_INTR_ALL = 0x9 };
enum mpt_doorbell { MPT_IDLE, MPT_TAKES_REQUEST, MPT_GIVES_REPLY, MPT_DOORBELLS };

/* IOCStatus of replies. */
enum {
	MPT_SUCCESS = 0,
	MPT_INVALID_FUNCTION = 0x01,
	MPT_INVALID_SGL = 0x03,
	MPT_INSUFFICIENT_RESOURCES = 0x06,
	MPT_INVALID_FIELD = 0x07,
	MPT_CONFIG_INVALID_ACTION = 0x20,
	MPT_CONFIG_INVALID_TYPE = 0x21,
	MPT_CONFIG_INVALID_PAGE = 0x22,
	MPT_CONFIG_CANT_COMMIT = 0x25,
	MPT_SCSI_INVALID_BUS = 0x41,
	MPT_SCSI_INVALID_TARGET = 0x42,
	MPT_SCSI_DEVICE_NOT_THERE = 0x43,
	MPT_SCSI_DATA_OVERRUN = 0x44,
	MPT_SCSI_DATA_UNDERRUN = 0x45,
	MPT_SCSI_TASK_TERMINATED = 0x48,
};

/* Functions of messages. */
enum {
	MPT_SCSI_IO = 0x00,
	MPT_TASK_MGMT = 0x01,
	MPT_IOC_INIT = 0x02,
	MPT_IOC_FACTS = 0x03,
	MPT_CONFIG = 0x04,
	MPT_PORT_FACTS = 0x05,
	MPT_PORT_ENABLE = 0x06,
	MPT_EVENT_NOTIFICATION = 0x07,
	MPT_EVENT_ACK = 0x08,
};

/* Offsets that messages have in common: MSG_REQUEST_HEADER, MSG_DEFAULT_REPLY. */
enum { M_LENGTH = 2, M_FUNCTION = 3, M_FLAGS = 7, M_CONTEXT = 8, M_STATUS = 14, M_LOG = 16 };
enum { M_DEFAULT_BYTES = 20 };

struct mpt;

/* A configuration page. fill writes its body behind the header and returns how many bytes there are
 * with it, or 0: no such page at that address. */
struct mpt_page {
	uint8_t type, number, version;
	bool extended; /* type is an ExtPageType */
	unsigned (*fill)(struct mpt *m, uint32_t address, uint8_t *d);
	/* Takes a page the guest writes; NULL: it cannot. */
	void (*take)(struct mpt *m, uint32_t address, const uint8_t *d);
};

struct mpt_model {
	const char *name, *chip;
	uint16_t pci_device;
	uint8_t revision, port_type;
	bool parallel;
	uint16_t product, message_version;
	unsigned targets;
	uint16_t port_id; /* the initiator's own id */
	const struct mpt_page *pages;
	unsigned page_count;
};

/* Commands that are being aborted, whose end somebody waits for. */
struct mpt_abort {
	bool used;
	uint8_t request[MPT_FRAME_BYTES];
	unsigned count;
};

struct mpt {
	pthread_mutex_t lock; /* before the bus's and the disks'; guards all of it */
	bool lock_ready;
	unsigned index;
	const struct mpt_model *model;
	struct mem *mem;
	struct pci_dev pci;
	struct scsi_bus *scsi;

	enum mpt_state state;
	uint16_t fault_code;
	uint8_t who_init, max_devices, max_buses, event_state;
	uint16_t reply_frame_bytes;
	uint32_t mfa_high, sense_high; /* upper halves of the guest's addresses */

	uint32_t intr_status, intr_mask;
	bool intr_level;
	uint8_t sequence;    /* how much of the key has been written */
	uint32_t diagnostic; /* bits that are kept */

	/* The doorbell handshake. */
	uint8_t doorbell; /* enum mpt_doorbell */
	uint16_t hs_words, hs_at;
	uint32_t hs_request[256];
	uint16_t hs_reply[MPT_REPLY_BYTES / 2];

	uint32_t free_fifo[MPT_FREE_DEPTH], free_head, free_count;
	uint32_t post_fifo[MPT_POST_DEPTH], post_head, post_count;
	uint32_t backlog[MPT_BACKLOG_DEPTH], backlog_count; /* while a reset drains */
	struct mpt_abort abort[MPT_ABORTS_MAX];
	/* What the guest has negotiated with each target (SCSI Device Page 1). */
	uint32_t spi_parameters[MPT_TARGETS_MAX], spi_configuration[MPT_TARGETS_MAX];

	struct mpt_stats stats;
};

static inline uint32_t le16(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t le32(const uint8_t *p)
{
	return le16(p) | le16(p + 2) << 16;
}

static inline uint64_t le64(const uint8_t *p)
{
	return le32(p) | (uint64_t)le32(p + 4) << 32;
}

static inline void put_le16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void put_le32(uint8_t *p, uint32_t v)
{
	put_le16(p, v);
	put_le16(p + 2, v >> 16);
}

static inline void put_le64(uint8_t *p, uint64_t v)
{
	put_le32(p, (uint32_t)v);
	put_le32(p + 4, (uint32_t)(v >> 32));
}

/* All with the lock held. */

/* --- mpt.c --- */
void mpt_fault(struct mpt *m, uint16_t code);
/* Replies by context alone, or with a frame of len bytes. */
void mpt_post_context(struct mpt *m, uint32_t context);
void mpt_post_reply(struct mpt *m, const uint8_t *reply, unsigned len);

/* --- mpt_state.c --- */
void mpt_state(struct mpt *m, struct state_stream *s);

/* --- mpt_message.c --- */
/* A reply's first bytes, from its request: returns their length. */
unsigned mpt_default_reply(uint8_t *reply, const uint8_t *request, unsigned len, uint16_t status);
/* Carries out a message other than SCSI IO and task management, which answer through the queue;
 * writes the reply and returns its length. */
unsigned mpt_message(struct mpt *m, const uint8_t *request, uint8_t *reply);

/* --- mpt_io.c --- */
void mpt_scsi_io(struct mpt *m, const uint8_t *request);
void mpt_task_mgmt(struct mpt *m, const uint8_t *request);
void mpt_done(void *opaque, struct scsi_request *r);

/* --- mpt_config.c, mpt_config_spi.c, mpt_config_sas.c --- */
unsigned mpt_config(struct mpt *m, const uint8_t *request, uint8_t *reply);
/* Pages that every model has; the model's own are in its table. */
enum { MPT_SPI_PAGES = 7, MPT_SAS_PAGES = 10 };
extern const struct mpt_page mpt_spi_pages[MPT_SPI_PAGES], mpt_sas_pages[MPT_SAS_PAGES];

#endif
