/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration pages of the parallel SCSI controller: the port, and what each target has negotiated.
 * The bus is FAST-40 and wide, as VMware's; a transfer's speed does not hang on it. */
#include "dev/scsi/mpt_internal.h"

enum { TYPE_PORT = 3, TYPE_DEVICE = 4, DEVICES = 16 };
enum { SYNC_40 = 0x0a, OFFSET_MAX = 127, WIDE = 0x20000000 };
enum { CAPABILITIES = WIDE | OFFSET_MAX << 16 | SYNC_40 << 8 };

static unsigned port_0(struct mpt *m, uint32_t address, uint8_t *d)
{
	enum { LVD = 3 };

	(void)m;
	if (address & 0xff)
		return 0;
	put_le32(d + 4, CAPABILITIES);
	put_le32(d + 8, LVD);
	return 12;
}

static unsigned port_1(struct mpt *m, uint32_t address, uint8_t *d)
{
	if (address & 0xff)
		return 0;
	put_le32(d + 4, 1u << (16 + m->model->port_id) | m->model->port_id);
	return 16;
}

static unsigned port_2(struct mpt *m, uint32_t address, uint8_t *d)
{
	enum { DISCONNECT = 1, ID_SCAN = 2, LUN_SCAN = 4, TAGS = 8, BIOS_AND_OS = 0x30 };

	if (address & 0xff)
		return 0;
	put_le32(d + 8, BIOS_AND_OS | m->model->port_id);
	for (unsigned i = 0; i < DEVICES; i++) {
		d[12 + 4 * i + 1] = SYNC_40;
		put_le16(d + 12 + 4 * i + 2, DISCONNECT | ID_SCAN | LUN_SCAN | TAGS);
	}
	return 12 + 4 * DEVICES;
}

/* Bus and target of a SCSI Device page's address. False: there can be none. */
static bool device(const struct mpt *m, uint32_t address, unsigned *target)
{
	enum { BUS_MASK = 0xff00, FORM_MASK = 0xf0000000 };

	*target = address & 0xff;
	return !(address & (BUS_MASK | FORM_MASK)) && *target < m->model->targets;
}

static unsigned device_0(struct mpt *m, uint32_t address, uint8_t *d)
{
	enum { NEGOTIATED = 1 };
	unsigned target;

	if (!device(m, address, &target))
		return 0;
	put_le32(d + 4, m->spi_parameters[target]);
	put_le32(d + 8, m->spi_parameters[target] ? NEGOTIATED : 0);
	return 12;
}

static unsigned device_1(struct mpt *m, uint32_t address, uint8_t *d)
{
	unsigned target;

	if (!device(m, address, &target))
		return 0;
	put_le32(d + 4, m->spi_parameters[target]);
	put_le32(d + 12, m->spi_configuration[target]);
	return 16;
}

/* The target agrees to all that the bus can do, and to no more. */
static void take_device_1(struct mpt *m, uint32_t address, const uint8_t *d)
{
	uint32_t want = le32(d + 4), period = want >> 8 & 0xff, offset = want >> 16 & 0xff;
	unsigned target;

	if (!device(m, address, &target))
		return;
	if (offset > OFFSET_MAX)
		offset = OFFSET_MAX;
	if (offset && period < SYNC_40)
		period = SYNC_40;
	m->spi_parameters[target] = (want & WIDE) | offset << 16 | period << 8;
	m->spi_configuration[target] = le32(d + 12);
}

static unsigned device_2(struct mpt *m, uint32_t address, uint8_t *d)
{
	unsigned target;

	(void)d;
	return device(m, address, &target) ? 16 : 0;
}

static unsigned device_3(struct mpt *m, uint32_t address, uint8_t *d)
{
	unsigned target;

	(void)d; /* no errors were counted */
	return device(m, address, &target) ? 12 : 0;
}

const struct mpt_page mpt_spi_pages[MPT_SPI_PAGES] = {
	{TYPE_PORT, 0, 0x02, .fill = port_0},
	{TYPE_PORT, 1, 0x03, .fill = port_1},
	{TYPE_PORT, 2, 0x02, .fill = port_2},
	{TYPE_DEVICE, 0, 0x04, .fill = device_0},
	{TYPE_DEVICE, 1, 0x05, .fill = device_1, .take = take_device_1},
	{TYPE_DEVICE, 2, 0x01, .fill = device_2},
	{TYPE_DEVICE, 3, 0x00, .fill = device_3},
};
