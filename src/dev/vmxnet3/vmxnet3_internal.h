/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_VMXNET3_VMXNET3_INTERNAL_H
#define HANOK_DEV_VMXNET3_VMXNET3_INTERNAL_H

#include <stdatomic.h>

#include "bus/dma.h"
#include "dev/vmxnet3/vmxnet3.h"

/* Layouts and numbers as in Linux drivers/net/vmxnet3/vmxnet3_defs.h and upt1_defs.h, which is what
 * there is in the way of documentation. */

enum {
	VMXNET3_TX_QUEUES = 8,
	VMXNET3_RX_QUEUES = 16,
	VMXNET3_INTRS = 25,
	VMXNET3_TX_RING_MAX = 4096, /* descriptors; completions too */
	VMXNET3_RX_RING_MAX = 4096,
	VMXNET3_RX_COMP_MAX = 8192,
	VMXNET3_DESC_BYTES = 16,
	VMXNET3_MTU_MIN = 60,
	VMXNET3_MTU_MAX = 9000,
	VMXNET3_BATCH = 16,
	VMXNET3_TX_AREAS = VMXNET3_BATCH * NET_IOV_MAX, /* as many as the frames have pieces */
	VMXNET3_RX_PIECES = 20, /* buffers of a frame: 64 KiB in pages, behind a small first one */
	VMXNET3_RSS_KEY_MAX = 40,
	VMXNET3_RSS_TABLE_MAX = 128,
};
#define VMXNET3_MAGIC UINT32_C(3133079265)

/* --- what the driver shares --- */

struct vmxnet3_filter_conf {
	uint32_t rx_mode;
	uint16_t table_bytes, pad;
	uint64_t table_gpa; /* of multicast addresses */
	uint32_t vlans[128];
};

struct vmxnet3_var_conf {
	uint32_t version, bytes;
	uint64_t gpa;
};

struct vmxnet3_shared {
	uint32_t magic, pad;
	uint32_t driver_version, guest, revisions, upt_versions;
	uint64_t features; /* UPT1_F_* */
	uint64_t driver_data, queues_gpa;
	uint32_t driver_data_bytes, queues_bytes, mtu;
	uint16_t max_rx_pieces;
	uint8_t tx_queues, rx_queues;
	uint32_t reserved[4];
	uint8_t auto_mask, intrs, event_intr, moderation[VMXNET3_INTRS];
	uint32_t intr_control, reserved_intr[2];
	struct vmxnet3_filter_conf filter;
	struct vmxnet3_var_conf rss, pm, plugin;
	uint32_t ecr, reserved_ecr;
	uint64_t command_data[2];
};
_Static_assert(sizeof(struct vmxnet3_shared) == 720, "DriverShared");

/* A queue's descriptor; `ring` and `ring_entries` have the second of a receive queue, and the data
 * ring of a transmit queue, which its descriptors point into like into any other memory. */
struct vmxnet3_queue_desc {
	union {
		uint64_t control[2];
		uint8_t update_rx_prod; /* the driver is to write RXPROD */
	};
	uint64_t ring[2], comp_ring, driver_data, reserved;
	uint32_t entries[2], comp_entries, driver_data_bytes;
	uint8_t intr, pad[7];
	uint8_t stopped, pad2[3];
	uint32_t error;
	uint64_t stats[10];
	uint8_t pad3[88];
};
_Static_assert(sizeof(struct vmxnet3_queue_desc) == 256, "TxQueueDesc, RxQueueDesc");

struct vmxnet3_rss_conf {
	uint16_t types, function, key_bytes, table_entries;
	uint8_t key[VMXNET3_RSS_KEY_MAX];
	uint8_t table[VMXNET3_RSS_TABLE_MAX];
};
_Static_assert(sizeof(struct vmxnet3_rss_conf) == 176, "UPT1_RSSConf");

/* UPT1_F_*. */
enum {
	FEATURE_RXCSUM = 1 << 0,
	FEATURE_RSS = 1 << 1,
	FEATURE_RXVLAN = 1 << 2,
	FEATURE_LRO = 1 << 3
};
/* VMXNET3_ECR_*. */
enum { ECR_RQERR = 1 << 0, ECR_TQERR = 1 << 1, ECR_LINK = 1 << 2 };

/* Statistics in queue descriptors, by index. */
enum { TX_TSO, TX_UNICAST = 2, TX_MULTICAST = 4, TX_BROADCAST = 6, TX_ERROR = 8, TX_DISCARD };
enum { RX_LRO, RX_UNICAST = 2, RX_MULTICAST = 4, RX_BROADCAST = 6, RX_NO_BUFFER = 8, RX_ERROR };

/* --- rings --- */

/* A ring of 16-byte descriptors. Whose one is, says its generation bit, which turns with each
 * round. */
struct vmxnet3_ring {
	uint64_t gpa;
	uint8_t *descs; /* of the host, held by the queue */
	uint32_t entries;
	uint32_t next;
	bool gen;
};

static inline void vmxnet3_ring_step(struct vmxnet3_ring *r)
{
	if (++r->next >= r->entries) {
		r->next = 0;
		r->gen = !r->gen;
	}
}

struct vmxnet3_queue {
	struct vmxnet3_ring ring[2]; /* transmit queues have one */
	struct vmxnet3_ring comp;
	struct dma_area area[3]; /* of these, while it is active */
	uint8_t intr;
	uint32_t error; /* not 0: stopped */
	uint64_t stats[10];
	struct vmxnet3_queue_desc *desc; /* of the host; NULL: not active */
};

/* A frame that is being gathered from a transmit ring. */
struct vmxnet3_tx_frame {
	struct vmxnet3_ring next; /* behind its last descriptor */
	uint32_t last;
	bool dropped, complete; /* complete: the guest wants to be told */
	struct net_frame net;
	struct iovec iov[NET_IOV_MAX];
};

struct vmxnet3_tx {
	pthread_mutex_t lock;
	struct vmxnet3_queue q;
	struct vmxnet3_tx_frame *frame; /* VMXNET3_BATCH */
	struct dma_area *area;		/* what these point into; VMXNET3_TX_AREAS */
	unsigned areas;
	struct vmxnet3_stats stats; /* tx_ of it */
};

struct vmxnet3 {
	/* Locks in order: lock, a tx queue's, netport's own, rx_lock, irq_lock, the PCI bus's. `lock`
	 * guards registers and commands; what a command changes below it changes with all of them
	 * held (vmxnet3_lock_all). netport_send is called with a tx queue's lock held. */
	pthread_mutex_t lock;
	bool locks_ready;
	struct pci_dev pci;
	struct mem *mem;
	struct netport *port;
	struct timer again; /* what was to be sent when the state was saved */
	unsigned index;
	uint8_t given_mac[6], mac[6]; /* mac: rx_lock too */
	uint32_t mac_low;	      /* MACL, until MACH is written */
	uint64_t shared_gpa;
	uint32_t result; /* of the last command */
	atomic_bool active;
	/* What the driver shared when it activated the card, so that it cannot change its mind. */
	struct vmxnet3_shared conf;
	uint64_t conf_gpa; /* where it was: the guest may write DSAL and DSAH meanwhile */
	struct dma_area conf_area, queues_area; /* held while the card is active */
	struct vmxnet3_queue_desc queues[VMXNET3_TX_QUEUES + VMXNET3_RX_QUEUES];
	struct vmxnet3_stats stats; /* but tx_ and rx_ */

	struct vmxnet3_tx tx[VMXNET3_TX_QUEUES];

	struct {
		pthread_mutex_t lock;
		struct vmxnet3_queue q[VMXNET3_RX_QUEUES];
		uint64_t features;
		struct vmxnet3_filter_conf filter;
		uint8_t *groups; /* filter.table_bytes of multicast addresses */
		struct vmxnet3_rss_conf rss;
		struct vmxnet3_stats stats; /* rx_ of it */
	} rx;

	struct {
		pthread_mutex_t lock;
		bool masked[VMXNET3_INTRS], pending[VMXNET3_INTRS];
		bool asserted;		       /* the pin */
		bool link;		       /* as the guest was last told */
		struct vmxnet3_shared *shared; /* of the host; NULL: not active */
		uint64_t raised;
	} irq;
};

/* --- vmxnet3.c --- */
void vmxnet3_lock_all(struct vmxnet3 *v);
void vmxnet3_unlock_all(struct vmxnet3 *v);

/* --- vmxnet3_cmd.c; lock held --- */
void vmxnet3_command(struct vmxnet3 *v, uint32_t command);
void vmxnet3_deactivate(struct vmxnet3 *v);
/* From v->conf and v->queues; 0 or -EINVAL, and then the card is not active. */
int vmxnet3_apply(struct vmxnet3 *v);
void vmxnet3_update_port(struct vmxnet3 *v);

/* --- vmxnet3_irq.c --- */
void vmxnet3_raise(struct vmxnet3 *v, unsigned intr);
void vmxnet3_event(struct vmxnet3 *v, uint32_t causes);
void vmxnet3_ack_events(struct vmxnet3 *v, uint32_t causes);
void vmxnet3_mask(struct vmxnet3 *v, unsigned intr, bool masked);
bool vmxnet3_is_masked(struct vmxnet3 *v, unsigned intr);
uint32_t vmxnet3_read_icr(struct vmxnet3 *v);
void vmxnet3_link_changed(struct vmxnet3 *v, bool up);

/* --- vmxnet3_tx.c; t->lock held --- */
void vmxnet3_transmit(struct vmxnet3 *v, struct vmxnet3_tx *t);

/* --- vmxnet3_rx.c --- */
unsigned vmxnet3_receive(void *opaque, const struct net_frame *frames, unsigned count);
/* The guest gave queue `q` buffers. */
void vmxnet3_rx_filled(struct vmxnet3 *v, unsigned q);

#endif
