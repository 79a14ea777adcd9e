/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration pages of the SAS controller: a phy for each target, and at each phy a port of its
 * own with at most one end device, directly attached.
 *
 *     phy i: handle 1 + i          the device at it: handle 1 + phys + i, target id i
 */
#include "dev/scsi/mpt_internal.h"

enum { EXT_IO_UNIT = 0x10, EXT_DEVICE = 0x12, EXT_PHY = 0x13, EXT_ENCLOSURE = 0x15 };
enum { RATE_3_0 = 0x09, RATES_1_5_TO_3_0 = 0x98, HEADER_BYTES = 8 };
enum { ENCLOSURE_HANDLE = 1, PHYS = 8 };

/* DeviceInfo (mpi_sas.h) */
enum { END_DEVICE = 1, SSP_INITIATOR = 0x40, SSP_TARGET = 0x400, DIRECT_ATTACH = 0x800 };
enum { CONTROLLER_INFO = END_DEVICE | SSP_INITIATOR };
enum { DISK_INFO = END_DEVICE | SSP_TARGET | DIRECT_ATTACH };

/* Locally assigned names (NAA 3). */
static uint64_t sas_address(const struct mpt *m, unsigned handle)
{
	return UINT64_C(0x3000000000000000) | (uint64_t)m->index << 32 | handle;
}

static unsigned phy_handle(unsigned phy)
{
	return 1 + phy;
}

/* 0: nothing is at this phy. */
static unsigned device_handle(const struct mpt *m, unsigned phy)
{
	return scsi_has_target(m->scsi, phy) ? 1 + PHYS + phy : 0;
}

static unsigned io_unit_0(struct mpt *m, uint32_t address, uint8_t *d)
{
	enum { FIRST = 16, EACH = 16 };

	(void)address;
	d[12] = PHYS;
	for (unsigned i = 0; i < PHYS; i++) {
		uint8_t *p = d + FIRST + EACH * i;
		unsigned handle = device_handle(m, i);
		p[0] = (uint8_t)i;
		p[3] = handle ? RATE_3_0 : 0;
		put_le32(p + 4, CONTROLLER_INFO);
		put_le16(p + 8, handle);
		put_le16(p + 10, phy_handle(i));
	}
	return FIRST + EACH * PHYS;
}

static unsigned io_unit_1(struct mpt *m, uint32_t address, uint8_t *d)
{
	enum { FIRST = 20, EACH = 12 };

	(void)m, (void)address;
	d[16] = PHYS;
	for (unsigned i = 0; i < PHYS; i++) {
		uint8_t *p = d + FIRST + EACH * i;
		p[0] = (uint8_t)i;
		p[3] = RATES_1_5_TO_3_0;
		put_le32(p + 4, CONTROLLER_INFO);
	}
	return FIRST + EACH * PHYS;
}

static unsigned io_unit_2(struct mpt *m, uint32_t address, uint8_t *d)
{
	enum { DIRECT_ATTACH_MAP = 1 << 1 };

	(void)m, (void)address;
	d[8] = PHYS;
	d[0x11] = DIRECT_ATTACH_MAP;
	put_le16(d + 0x12, PHYS);
	return 20;
}

static unsigned io_unit_3(struct mpt *m, uint32_t address, uint8_t *d)
{
	(void)m, (void)address, (void)d; /* errors are not watched */
	return 0x2c;
}

/* --- devices: the phys' own ends, and the disks --- */

static bool has_handle(const struct mpt *m, unsigned handle)
{
	return (handle >= 1 && handle <= PHYS) ||
	       (handle > PHYS && handle <= 2 * PHYS && device_handle(m, handle - 1 - PHYS));
}

/* The handle that a page's address names; 0: none. */
static unsigned find_device(const struct mpt *m, uint32_t address)
{
	enum { GET_NEXT, BUS_TARGET, HANDLE, FIRST = 0xffff };
	unsigned handle = address & 0xffff;

	switch (address >> 28) {
	case GET_NEXT:
		handle = handle == FIRST ? 1 : handle + 1;
		while (handle <= 2 * PHYS && !has_handle(m, handle))
			handle++;
		break;
	case BUS_TARGET:
		handle = handle < PHYS ? device_handle(m, handle) : 0; /* bus 0 */
		break;
	case HANDLE:
		break;
	default:
		return 0;
	}
	return has_handle(m, handle) ? handle : 0;
}

static unsigned device_0(struct mpt *m, uint32_t address, uint8_t *d)
{
	enum { PRESENT = 1, MAPPED = 2 };
	unsigned handle = find_device(m, address), phy = (handle - 1) % PHYS;
	bool is_disk = handle > PHYS;

	if (!handle)
		return 0;
	put_le16(d + 0x08, phy); /* slot */
	put_le16(d + 0x0a, ENCLOSURE_HANDLE);
	put_le64(d + 0x0c, sas_address(m, handle));
	put_le16(d + 0x14, is_disk ? phy_handle(phy) : 0);
	d[0x16] = (uint8_t)phy;
	put_le16(d + 0x18, handle);
	d[0x1a] = is_disk ? (uint8_t)phy : 0xff;
	put_le32(d + 0x1c, is_disk ? DISK_INFO : CONTROLLER_INFO);
	put_le16(d + 0x20, is_disk ? PRESENT | MAPPED : PRESENT);
	d[0x22] = (uint8_t)phy;
	return 0x24;
}

static unsigned device_1(struct mpt *m, uint32_t address, uint8_t *d)
{
	unsigned handle = find_device(m, address);

	if (!handle)
		return 0;
	put_le64(d + 0x0c, sas_address(m, handle));
	put_le16(d + 0x18, handle);
	d[0x1a] = handle > PHYS ? (uint8_t)(handle - 1 - PHYS) : 0xff;
	return 0x30;
}

static unsigned device_2(struct mpt *m, uint32_t address, uint8_t *d)
{
	unsigned handle = find_device(m, address);

	if (!handle)
		return 0;
	put_le64(d + 8, sas_address(m, handle));
	return 0x14;
}

/* --- phys --- */

static bool find_phy(uint32_t address, unsigned *phy)
{
	*phy = address & 0xff;
	return address >> 28 <= 1 && *phy < PHYS; /* by number, and by index, which are the same */
}

static unsigned phy_0(struct mpt *m, uint32_t address, uint8_t *d)
{
	unsigned phy, handle;

	if (!find_phy(address, &phy))
		return 0;
	handle = device_handle(m, phy);
	put_le16(d + 0x08, phy_handle(phy));
	put_le64(d + 0x0c, sas_address(m, phy_handle(phy)));
	put_le16(d + 0x14, handle);
	put_le32(d + 0x18, handle ? DISK_INFO : 0);
	d[0x1c] = RATES_1_5_TO_3_0;
	d[0x1d] = RATES_1_5_TO_3_0;
	put_le32(d + 0x20, handle ? RATE_3_0 : 0);
	return 0x24;
}

static unsigned phy_1(struct mpt *m, uint32_t address, uint8_t *d)
{
	unsigned phy;

	(void)m, (void)d; /* no errors were counted */
	return find_phy(address, &phy) ? 0x1c : 0;
}

static unsigned enclosure_0(struct mpt *m, uint32_t address, uint8_t *d)
{
	enum { GET_NEXT, HANDLE, FIRST = 0xffff };
	unsigned form = address >> 28, handle = address & 0xffff;

	if (!(form == GET_NEXT && handle == FIRST) &&
	    !(form == HANDLE && handle == ENCLOSURE_HANDLE))
		return 0;
	put_le64(d + 0x0c, sas_address(m, 0));
	put_le16(d + 0x16, ENCLOSURE_HANDLE);
	put_le16(d + 0x18, PHYS);
	return 0x28;
}

const struct mpt_page mpt_sas_pages[MPT_SAS_PAGES] = {
	{EXT_IO_UNIT, 0, 0x04, true, io_unit_0}, {EXT_IO_UNIT, 1, 0x07, true, io_unit_1},
	{EXT_IO_UNIT, 2, 0x06, true, io_unit_2}, {EXT_IO_UNIT, 3, 0x00, true, io_unit_3},
	{EXT_DEVICE, 0, 0x05, true, device_0},	 {EXT_DEVICE, 1, 0x00, true, device_1},
	{EXT_DEVICE, 2, 0x01, true, device_2},	 {EXT_PHY, 0, 0x01, true, phy_0},
	{EXT_PHY, 1, 0x00, true, phy_1},	 {EXT_ENCLOSURE, 0, 0x01, true, enclosure_0},
};
