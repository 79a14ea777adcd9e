/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_E1000_E1000_INTERNAL_H
#define HANOK_DEV_E1000_E1000_INTERNAL_H

#include <stdatomic.h>

#include "bus/dma.h"
#include "dev/e1000/e1000.h"

/* Sections below are of Intel's "PCI/PCI-X Family of Gigabit Ethernet Controllers Software
 * Developer's Manual" (317453), called SDM. */

/* Registers (SDM 13.4), byte offsets in BAR 0. */
enum {
	CTRL = 0x0000,
	CTRL_DUP = 0x0004,
	STATUS = 0x0008,
	EECD = 0x0010,
	EERD = 0x0014,
	CTRL_EXT = 0x0018,
	FLA = 0x001c,
	MDIC = 0x0020,
	FCAL = 0x0028,
	FCAH = 0x002c,
	FCT = 0x0030,
	VET = 0x0038,
	ICR = 0x00c0,
	ITR = 0x00c4,
	ICS = 0x00c8,
	IMS = 0x00d0,
	IMC = 0x00d8,
	RCTL = 0x0100,
	FCTTV = 0x0170,
	TXCW = 0x0178,
	TCTL = 0x0400,
	TIPG = 0x0410,
	AIT = 0x0458,
	LEDCTL = 0x0e00,
	PBA = 0x1000,
	FCRTL = 0x2160,
	FCRTH = 0x2168,
	RDBAL = 0x2800,
	RDBAH = 0x2804,
	RDLEN = 0x2808,
	RDH = 0x2810,
	RDT = 0x2818,
	RDTR = 0x2820,
	RXDCTL = 0x2828,
	RADV = 0x282c,
	RSRPD = 0x2c00,
	TXDMAC = 0x3000,
	TDBAL = 0x3800,
	TDBAH = 0x3804,
	TDLEN = 0x3808,
	TDH = 0x3810,
	TDT = 0x3818,
	TIDV = 0x3820,
	TXDCTL = 0x3828,
	TADV = 0x382c,
	TSPMT = 0x3830,
	STATS_FIRST = 0x4000,
	STATS_END = 0x4100,
	RXCSUM = 0x5000,
	MTA = 0x5200,
	RA = 0x5400,
	VFTA = 0x5600,
	WUC = 0x5800,
	WUFC = 0x5808,
	WUS = 0x5810,
	MANC = 0x5820,
	E1000_REG_BYTES = 0x5900, /* what lies behind is not implemented */
};
enum { E1000_MTA_WORDS = 128, E1000_RA_COUNT = 16, E1000_VFTA_WORDS = 128 };

/* Statistics (SDM 13.7), all of them cleared by a read. */
enum {
	STAT_RNBC = 0x40a0,
	STAT_ROC = 0x40ac,
	STAT_PRC64 = 0x405c,
	STAT_GPRC = 0x4074,
	STAT_BPRC = 0x4078,
	STAT_MPRC = 0x407c,
	STAT_GPTC = 0x4080,
	STAT_GORCL = 0x4088,
	STAT_GOTCL = 0x4090,
	STAT_TORL = 0x40c0,
	STAT_TOTL = 0x40c8,
	STAT_TPR = 0x40d0,
	STAT_TPT = 0x40d4,
	STAT_PTC64 = 0x40d8,
	STAT_MPTC = 0x40f0,
	STAT_BPTC = 0x40f4,
	STAT_TSCTC = 0x40f8,
};

enum {
	CTRL_SLU = 1 << 6,
	CTRL_RST = 1 << 26,
	CTRL_VME = 1 << 30,
};
#define CTRL_PHY_RST (UINT32_C(1) << 31)

/* Interrupt causes (SDM 13.4.17). */
enum {
	INT_TXDW = 1 << 0,
	INT_TXQE = 1 << 1,
	INT_LSC = 1 << 2,
	INT_RXDMT0 = 1 << 4,
	INT_RXT0 = 1 << 7,
	INT_MDAC = 1 << 9,
	INT_ALL = 0x1ffff,
};

enum {
	RCTL_EN = 1 << 1,
	RCTL_UPE = 1 << 3,
	RCTL_MPE = 1 << 4,
	RCTL_LPE = 1 << 5,
	RCTL_BAM = 1 << 15,
	RCTL_VFE = 1 << 18,
	RCTL_CFIEN = 1 << 19,
	RCTL_CFI = 1 << 20,
	RCTL_BSEX = 1 << 25,
	RCTL_SECRC = 1 << 26,
};
enum { TCTL_EN = 1 << 1 };

/* Descriptors are 16 bytes, rings multiples of 8 of them (SDM 3.2.6, 3.4). */
enum { E1000_DESC_BYTES = 16, E1000_RING_BYTES = 0xfff80 };

enum { E1000_EEPROM_WORDS = 64, E1000_PHY_REGS = 32, E1000_TX_BATCH = 16 };
/* Buffers of a batch: as many as its frames have pieces. */
enum { E1000_TX_AREAS = E1000_TX_BATCH * NET_IOV_MAX };
enum { E1000_FRAME_MAX = 16384, E1000_CRC_BYTES = 4 };

/* What is to be done when a register was written, with fewer locks held. */
enum {
	TODO_TX = 1 << 0,
	TODO_READY = 1 << 1,
	TODO_PORT = 1 << 2,
};

/* The context that a context descriptor loads (SDM 3.3.6). */
struct tx_context {
	uint8_t ipcss, ipcso, tucss, tucso, hdrlen;
	uint16_t ipcse, tucse, mss;
	bool tcp, ipv4;
};

/* A frame that is being gathered from descriptors. */
struct tx_frame {
	struct tx_context before; /* the context as it was in front of its first descriptor */
	uint32_t next;		  /* the descriptor behind its last */
	bool dropped, bounced;
	struct net_frame net;
	struct iovec iov[NET_IOV_MAX];
	/* From its first descriptor, or any that says so. */
	uint8_t popts, cso, css;
	bool extended, tse, ic, vle, no_fcs;
};

struct e1000 {
	/* Locks in order: lock, netport's own, rx_lock, irq_lock, the PCI bus's. `lock` guards what
	 * is written by the guest and what is transmitted, and is held over netport_send. Registers
	 * are written with both it and rx_lock held, so that either is enough to read one. */
	pthread_mutex_t lock;
	pthread_mutex_t rx_lock;  /* what arrives: its ring and statistics */
	pthread_mutex_t irq_lock; /* `irq` below */
	bool locks_ready;
	struct pci_dev pci;
	struct mem *mem;
	struct netport *port;
	unsigned index;
	uint8_t mac[6]; /* given; in the EEPROM */

	uint32_t reg[E1000_REG_BYTES / 4];
	uint32_t io_address; /* IOADDR (SDM 13.2) */
	uint16_t eeprom[E1000_EEPROM_WORDS];
	struct {
		uint32_t pins; /* EECD as written */
		uint32_t in;   /* bits shifted in since chip select, a 1 in front */
		uint16_t out;
		uint8_t out_bits; /* left, with the dummy bit */
		uint8_t out_pin;
	} eecd;
	uint16_t phy[E1000_PHY_REGS];
	struct tx_context ctx;
	struct timer again; /* what was to be sent when the state was saved */
	uint8_t *bounce;
	struct tx_frame *tx;	  /* E1000_TX_BATCH */
	struct dma_area *tx_area; /* what these point into; E1000_TX_AREAS */
	unsigned tx_areas;
	/* The rings, since they were first looked at: held while the registers that place them stay
	 * as they are and the card is enabled. */
	struct dma_area tx_ring, rx_ring;
	atomic_bool link; /* as last told to the guest */

	struct {
		uint32_t icr, ims, itr;
		uint64_t next_ns; /* none before this (ITR) */
		/* Causes that wait for their delay timers, when, and at the latest. */
		uint64_t rx_ns, rx_last_ns, tx_ns, tx_last_ns;
		bool level;
		struct timer timer;
		uint64_t raised, throttled;
	} irq;

	struct e1000_stats stats; /* rx_: rx_lock, the others: lock */
};

static inline uint32_t *e1000_reg(struct e1000 *e, unsigned offset)
{
	return &e->reg[offset / 4];
}

/* A statistic: sticks at its maximum. */
static inline void e1000_count(struct e1000 *e, unsigned stat, uint32_t n)
{
	uint32_t *r = e1000_reg(e, stat);

	*r = *r > UINT32_MAX - n ? UINT32_MAX : *r + n;
}

/* A statistic of two words. */
static inline void e1000_count64(struct e1000 *e, unsigned stat, uint64_t n)
{
	uint32_t *r = e1000_reg(e, stat);
	uint64_t sum = ((uint64_t)r[1] << 32 | r[0]) + n;

	r[0] = (uint32_t)sum;
	r[1] = (uint32_t)(sum >> 32);
}

/* Which of the six counters by size, PRC64 to PRC1522, a frame with its CRC belongs to. */
static inline unsigned e1000_size_class(uint32_t bytes)
{
	return bytes <= 64    ? 0
	       : bytes < 128  ? 1
	       : bytes < 256  ? 2
	       : bytes < 512  ? 3
	       : bytes < 1024 ? 4
			      : 5;
}

/* --- e1000.c --- */
/* The ring at gpa, kept in `area`; NULL: it is not in memory. Its lock held. */
uint8_t *e1000_ring(struct e1000 *e, struct dma_area *area, uint64_t gpa, uint32_t entries);
bool e1000_link(struct e1000 *e);

/* --- e1000_phy.c; lock held --- */
void e1000_eeprom_init(struct e1000 *e);
uint32_t e1000_eecd_read(const struct e1000 *e);
void e1000_eecd_write(struct e1000 *e, uint32_t v);
void e1000_eerd_write(struct e1000 *e, uint32_t v);
void e1000_phy_reset(struct e1000 *e);
/* link: there is one, seen before locks were taken. */
void e1000_mdic_write(struct e1000 *e, uint32_t v, bool link);
bool e1000_phy_is_down(const struct e1000 *e);

/* --- e1000_irq.c; takes irq_lock --- */
void e1000_irq_init(struct e1000 *e, struct loop *loop);
void e1000_irq_reset(struct e1000 *e);
uint32_t e1000_irq_read(struct e1000 *e, unsigned reg);
void e1000_irq_write(struct e1000 *e, unsigned reg, uint32_t v);
void e1000_irq_raise(struct e1000 *e, uint32_t causes);
/* RXT0 by RDTR and RADV, TXDW by TIDV and TADV (SDM 13.4.30, .31, .44, .46). */
void e1000_irq_received(struct e1000 *e);
void e1000_irq_sent(struct e1000 *e);
/* RDTR's flush bit: what waits is raised now. */
void e1000_irq_flush(struct e1000 *e);
void e1000_irq_state(struct e1000 *e, struct state_stream *s);

/* --- e1000_tx.c; lock held --- */
void e1000_transmit(struct e1000 *e);

/* --- e1000_rx.c --- */
unsigned e1000_receive(void *opaque, const struct net_frame *frames, unsigned count);

#endif
