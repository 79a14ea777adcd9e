/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Beside the MAC: the EEPROM, by EERD or bit by bit over EECD (SDM 5, 13.4.3, 13.4.4), and the PHY,
 * a Marvell 88E1011 at address 1, by MDIC (SDM 13.4.8, 13.5; IEEE 802.3 22.2.4 for registers 0 to
 * 10 and 15). Negotiation ends as soon as it begins, at 1000 Mb/s full duplex.
 */
#include <string.h>

#include "dev/e1000/e1000_internal.h"

/* --- the EEPROM: 64 words behind Microwire (93C46) --- */

enum {
	EECD_SK = 1 << 0,
	EECD_CS = 1 << 1,
	EECD_DI = 1 << 2,
	EECD_DO = 1 << 3,
	EECD_FWE = 3 << 4,
	EECD_REQ = 1 << 6,
	EECD_GNT = 1 << 7,
	EECD_PRES = 1 << 8,
};
enum { EERD_START = 1 << 0, EERD_DONE = 1 << 4, EEPROM_SUM = 0xbaba };
/* A start bit, the opcode's two, the address's six. */
enum { MICROWIRE_READ = 6, MICROWIRE_BITS = 9 };

void e1000_eeprom_init(struct e1000 *e)
{
	static const uint16_t words[E1000_EEPROM_WORDS] = {
		/* compatibility: copper, LOM not, server not, client not */
		[0x03] = 0x0400,		  /* bit 10: a client's */
		[0x08] = 0xffff,		  /* no PBA number */
		[0x09] = 0xffff, [0x0a] = 0x4408, /* initialisation control 1: subsystem and vendor ids are loaded */
		[0x0b] = 0x0750,		  /* subsystem, VMware's for this card */
		[0x0c] = 0x15ad, [0x0d] = 0x100f, [0x0e] = 0x8086,
		[0x0f] = 0x3040, /* initialisation control 2: pause both ways */
		[0x10] = 0x0008, [0x11] = 0x2000, [0x12] = 0x7e14,
		[0x13] = 0x0048, [0x21] = 0x7061, /* management control */
		[0x24] = 0x0400, [0x2f] = 0x0602, /* LEDs */
	};
	uint16_t sum = 0;

	memcpy(e->eeprom, words, sizeof(words));
	for (unsigned i = 0; i < 3; i++)
		e->eeprom[i] = (uint16_t)(e->mac[2 * i] | e->mac[2 * i + 1] << 8);
	for (unsigned i = 0; i < E1000_EEPROM_WORDS - 1; i++)
		sum = (uint16_t)(sum + e->eeprom[i]);
	e->eeprom[E1000_EEPROM_WORDS - 1] = (uint16_t)(EEPROM_SUM - sum);
}

uint32_t e1000_eecd_read(const struct e1000 *e)
{
	uint32_t v = (e->eecd.pins & (EECD_SK | EECD_CS | EECD_DI | EECD_FWE | EECD_REQ)) |
		     EECD_PRES;

	if (e->eecd.pins & EECD_REQ)
		v |= EECD_GNT;
	if (e->eecd.out_pin)
		v |= EECD_DO;
	return v;
}

/* A rising clock: a bit goes in, or out. The dummy 0 comes with the address's last bit. Other
 * commands than READ do nothing: the part is write-protected, and always ready. */
static void eecd_clock(struct e1000 *e, bool bit)
{
	if (e->eecd.out_bits) {
		e->eecd.out_pin = e->eecd.out >> 15;
		e->eecd.out = (uint16_t)(e->eecd.out << 1);
		if (!--e->eecd.out_bits) /* it goes on with the next word */
			e->eecd.in = 0;
		return;
	}
	if (!e->eecd.in && !bit)
		return; /* waits for a start bit */
	e->eecd.in = e->eecd.in << 1 | bit;
	if (!(e->eecd.in >> (MICROWIRE_BITS - 1)))
		return;
	if (e->eecd.in >> 6 == MICROWIRE_READ) {
		e->eecd.out = e->eeprom[e->eecd.in % E1000_EEPROM_WORDS];
		e->eecd.out_bits = 16;
		e->eecd.out_pin = 0;
	} else {
		e->eecd.out_pin = 1;
	}
	e->eecd.in = 0;
}

void e1000_eecd_write(struct e1000 *e, uint32_t v)
{
	uint32_t old = e->eecd.pins;

	e->eecd.pins = v;
	if (!(v & EECD_CS) || !(old & EECD_CS)) {
		e->eecd.in = 0;
		e->eecd.out_bits = 0;
		e->eecd.out_pin = 1;
	}
	if (v & EECD_CS && v & EECD_SK && !(old & EECD_SK))
		eecd_clock(e, v & EECD_DI);
}

void e1000_eerd_write(struct e1000 *e, uint32_t v)
{
	unsigned word = v >> 8 & 0xff;

	if (!(v & EERD_START))
		return;
	*e1000_reg(e, EERD) = (v & 0xff00) | EERD_DONE |
			      (uint32_t)(word < E1000_EEPROM_WORDS ? e->eeprom[word] : 0) << 16;
}

/* --- the PHY --- */

enum {
	PHY_CTRL,
	PHY_STATUS,
	PHY_ID1,
	PHY_ID2,
	PHY_ADVERTISE,
	PHY_PARTNER,
	PHY_EXPANSION,
	PHY_1000T_CTRL = 9,
	PHY_1000T_STATUS,
	PHY_EXT_STATUS = 15,
	M88_CTRL,
	M88_STATUS,
	M88_INT_ENABLE,
	M88_INT_STATUS,
	M88_EXT_CTRL,
	M88_RX_ERRORS,
};
enum {
	PHY_CTRL_RESET = 1 << 15,
	PHY_CTRL_DOWN = 1 << 11,
	PHY_CTRL_RESTART = 1 << 9,
	PHY_STATUS_DONE = 1 << 5,
	PHY_STATUS_LINK = 1 << 2,
	M88_STATUS_GIGABIT = 2 << 14,
	M88_STATUS_DUPLEX = 1 << 13,
	M88_STATUS_RESOLVED = 1 << 11,
	M88_STATUS_LINK = 1 << 10,
};

void e1000_phy_reset(struct e1000 *e)
{
	static const uint16_t start[E1000_PHY_REGS] = {
		[PHY_CTRL] = 0x1140,   /* negotiates; 1000, full duplex */
		[PHY_STATUS] = 0x7949, /* 10 and 100 both ways, extended status */
		[PHY_ID1] = 0x0141,	   [PHY_ID2] = 0x0c20,	      [PHY_ADVERTISE] = 0x0de1,
		[PHY_PARTNER] = 0xcde1, /* what a gigabit partner with pause says */
		[PHY_EXPANSION] = 0x000f,  [PHY_1000T_CTRL] = 0x0e00, [PHY_1000T_STATUS] = 0x7c00,
		[PHY_EXT_STATUS] = 0x3000, [M88_CTRL] = 0x0360,	      [M88_EXT_CTRL] = 0x0d60,
	};

	memcpy(e->phy, start, sizeof(start));
}

bool e1000_phy_is_down(const struct e1000 *e)
{
	return e->phy[PHY_CTRL] & PHY_CTRL_DOWN;
}

static uint16_t phy_read(const struct e1000 *e, unsigned reg, bool link)
{
	switch (reg) {
	case PHY_STATUS:
		return e->phy[reg] | (link ? PHY_STATUS_DONE | PHY_STATUS_LINK : 0);
	case PHY_PARTNER:
	case PHY_1000T_STATUS:
		return link ? e->phy[reg] : 0;
	case M88_STATUS:
		return link ? M88_STATUS_GIGABIT | M88_STATUS_DUPLEX | M88_STATUS_RESOLVED |
				       M88_STATUS_LINK
			    : M88_STATUS_GIGABIT;
	default:
		return e->phy[reg];
	}
}

static void phy_write(struct e1000 *e, unsigned reg, uint16_t v, bool link)
{
	switch (reg) {
	case PHY_STATUS:
	case PHY_ID1:
	case PHY_ID2:
	case PHY_PARTNER:
	case PHY_EXPANSION:
	case PHY_1000T_STATUS:
	case PHY_EXT_STATUS:
	case M88_STATUS:
	case M88_INT_STATUS:
	case M88_RX_ERRORS:
		return;
	case PHY_CTRL:
		if (v & PHY_CTRL_RESET) {
			/* The M88's registers take what was written by a reset; it is over at once. */
			v &= (uint16_t)~PHY_CTRL_RESET;
		}
		if (v & PHY_CTRL_RESTART && link)
			e1000_irq_raise(e, INT_LSC);
		e->phy[reg] = v & (uint16_t)~PHY_CTRL_RESTART;
		return;
	default:
		e->phy[reg] = v;
	}
}

void e1000_mdic_write(struct e1000 *e, uint32_t v, bool link)
{
	enum { WRITE = 1, READ = 2, READY = 1 << 28, INTERRUPT = 1 << 29, ERROR = 1 << 30 };
	unsigned reg = v >> 16 & 31, phy = v >> 21 & 31, op = v >> 26 & 3;

	v &= ~(uint32_t)(READY | ERROR) & 0x7fffffff;
	if (phy != 1 || (op != READ && op != WRITE)) {
		v |= ERROR;
	} else if (op == READ) {
		v = (v & 0xffff0000) | phy_read(e, reg, link);
	} else {
		phy_write(e, reg, (uint16_t)v, link);
	}
	*e1000_reg(e, MDIC) = v | READY;
	if (v & INTERRUPT)
		e1000_irq_raise(e, INT_MDAC);
}
