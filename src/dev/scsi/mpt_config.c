/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration pages: tables of facts that drivers read by type, number and address. Here is the
 * message, and the pages that both models have; those of each bus are in files of their own.
 * Layouts: Linux drivers/message/fusion/lsi/mpi_cnfg.h.
 */
#include <string.h>

#include "dev/scsi/mpt_internal.h"

enum { HEADER, READ_CURRENT, WRITE_CURRENT, DEFAULT, WRITE_NVRAM, READ_DEFAULT, READ_NVRAM };
enum { TYPE_IO_UNIT = 0, TYPE_IOC = 1, TYPE_MANUFACTURING = 9, TYPE_EXTENDED = 0x0f };
enum { TYPE_MASK = 0x0f, ATTRIBUTE_CHANGEABLE = 0x10 };

static void put_text(uint8_t *at, const char *text, size_t len)
{
	memcpy(at, text, strnlen(text, len));
}

static unsigned manufacturing_0(struct mpt *m, uint32_t address, uint8_t *d)
{
	(void)address;
	put_text(d + 0x04, m->model->chip, 16);
	put_text(d + 0x14, "", 8);
	put_text(d + 0x1c, "Hanok MPT Fusion", 16);
	return 0x4c;
}

static unsigned io_unit_0(struct mpt *m, uint32_t address, uint8_t *d)
{
	(void)address;
	put_le64(d + 4, UINT64_C(0x3000000000000000) | (uint64_t)m->index << 32);
	return 12;
}

static unsigned io_unit_1(struct mpt *m, uint32_t address, uint8_t *d)
{
	enum { SINGLE_FUNCTION = 1, DISABLE_IR = 0x40 };

	(void)m, (void)address;
	put_le32(d + 4, SINGLE_FUNCTION | DISABLE_IR);
	return 8;
}

static unsigned io_unit_2(struct mpt *m, uint32_t address, uint8_t *d)
{
	(void)address;
	d[0x0d] = m->pci.devfn;
	return 0x20;
}

static unsigned io_unit_3(struct mpt *m, uint32_t address, uint8_t *d)
{
	(void)m, (void)address, (void)d; /* no pins of general use */
	return 12;
}

static unsigned ioc_0(struct mpt *m, uint32_t address, uint8_t *d)
{
	(void)address;
	memcpy(d + 0x0c, m->pci.config + PCI_VENDOR_ID, 4);
	d[0x10] = m->model->revision;
	memcpy(d + 0x14, m->pci.config + PCI_REVISION, 4);
	memcpy(d + 0x18, m->pci.config + PCI_SUBSYSTEM_VENDOR, 4);
	return 0x1c;
}

static unsigned ioc_1(struct mpt *m, uint32_t address, uint8_t *d)
{
	enum { SLOT_UNKNOWN = 0xff };

	(void)m, (void)address; /* replies are not gathered */
	d[0x0d] = SLOT_UNKNOWN;
	return 0x10;
}

static unsigned ioc_2(struct mpt *m, uint32_t address, uint8_t *d)
{
	(void)m, (void)address, (void)d; /* no RAID */
	return 0x0c;
}

static unsigned ioc_3(struct mpt *m, uint32_t address, uint8_t *d)
{
	(void)m, (void)address, (void)d;
	return 8;
}

static unsigned ioc_5(struct mpt *m, uint32_t address, uint8_t *d)
{
	(void)m, (void)address, (void)d;
	return 0x0c;
}

static unsigned ioc_6(struct mpt *m, uint32_t address, uint8_t *d)
{
	(void)m, (void)address, (void)d;
	return 0x3c;
}

static const struct mpt_page common[] = {
	{TYPE_MANUFACTURING, 0, 0x00, .fill = manufacturing_0},
	{TYPE_IO_UNIT, 0, 0x00, .fill = io_unit_0},
	{TYPE_IO_UNIT, 1, 0x02, .fill = io_unit_1},
	{TYPE_IO_UNIT, 2, 0x02, .fill = io_unit_2},
	{TYPE_IO_UNIT, 3, 0x01, .fill = io_unit_3},
	{TYPE_IOC, 0, 0x01, .fill = ioc_0},
	{TYPE_IOC, 1, 0x03, .fill = ioc_1},
	{TYPE_IOC, 2, 0x04, .fill = ioc_2},
	{TYPE_IOC, 3, 0x00, .fill = ioc_3},
	{TYPE_IOC, 4, 0x00, .fill = ioc_3}, /* no enclosure processors, in the same layout */
	{TYPE_IOC, 5, 0x00, .fill = ioc_5},
	{TYPE_IOC, 6, 0x01, .fill = ioc_6},
};

/* --- the message: MSG_CONFIG, MSG_CONFIG_REPLY --- */

enum {
	C_ACTION = 0,
	C_EXT_LEN = 4,
	C_EXT_TYPE = 6,
	C_HEADER = 0x14,
	C_ADDRESS = 0x18,
	C_SGE = 0x1c
};
enum { H_VERSION = 0, H_LEN = 1, H_NUMBER = 2, H_TYPE = 3, REPLY_BYTES = 0x18 };

static const struct mpt_page *find_in(const struct mpt_page *pages, unsigned count, bool extended,
				      uint8_t type, uint8_t number, bool *type_known)
{
	for (unsigned i = 0; i < count; i++) {
		if (pages[i].extended != extended || pages[i].type != type)
			continue;
		*type_known = true;
		if (pages[i].number == number)
			return &pages[i];
	}
	return NULL;
}

static const struct mpt_page *find(struct mpt *m, const uint8_t *request, bool *type_known)
{
	const uint8_t *h = request + C_HEADER;
	bool extended = (h[H_TYPE] & TYPE_MASK) == TYPE_EXTENDED;
	uint8_t type = extended ? request[C_EXT_TYPE] : h[H_TYPE] & TYPE_MASK;
	const struct mpt_page *p;

	*type_known = false;
	p = find_in(m->model->pages, m->model->page_count, extended, type, h[H_NUMBER], type_known);
	if (!p)
		p = find_in(common, sizeof(common) / sizeof(common[0]), extended, type, h[H_NUMBER],
			    type_known);
	return p;
}

/* The page's header, in front of its body. */
static void put_header(const struct mpt_page *p, uint8_t *d, unsigned len)
{
	d[H_VERSION] = p->version;
	d[H_LEN] = p->extended ? 0 : (uint8_t)(len / 4);
	d[H_NUMBER] = p->number;
	d[H_TYPE] = (uint8_t)((p->extended ? TYPE_EXTENDED : p->type) |
			      (p->take ? ATTRIBUTE_CHANGEABLE : 0));
	if (p->extended) {
		put_le16(d + 4, len / 4);
		d[6] = p->type;
	}
}

/* One simple element says where the page is, or goes. Returns its length. */
static unsigned buffer(const uint8_t *sge, uint64_t *addr)
{
	enum { ADDRESS_64 = 0x02 };

	*addr = sge[3] & ADDRESS_64 ? le64(sge + 4) : le32(sge + 4);
	return le32(sge) & 0xffffff;
}

static uint16_t transfer(struct mpt *m, const struct mpt_page *p, const uint8_t *request,
			 uint8_t *d, unsigned len)
{
	uint8_t action = request[C_ACTION];
	uint64_t addr;
	unsigned room = buffer(request + C_SGE, &addr);

	switch (action) {
	case HEADER:
	case DEFAULT: /* nothing is kept that could differ */
		return MPT_SUCCESS;
	case READ_CURRENT:
	case READ_DEFAULT:
	case READ_NVRAM:
		if (room < len)
			len = room;
		return mem_write(m->mem, addr, d, len) ? MPT_INVALID_SGL : MPT_SUCCESS;
	case WRITE_CURRENT:
	case WRITE_NVRAM:
		if (!p->take)
			return MPT_CONFIG_CANT_COMMIT;
		if (room < len || mem_read(m->mem, addr, d, len))
			return MPT_INVALID_SGL;
		p->take(m, le32(request + C_ADDRESS), d);
		return MPT_SUCCESS;
	default:
		return MPT_CONFIG_INVALID_ACTION;
	}
}

unsigned mpt_config(struct mpt *m, const uint8_t *request, uint8_t *reply)
{
	uint8_t d[MPT_PAGE_BYTES_MAX] = {0};
	bool type_known;
	const struct mpt_page *p = find(m, request, &type_known);
	unsigned len = p ? p->fill(m, le32(request + C_ADDRESS), d) : 0;
	uint16_t status = type_known ? MPT_CONFIG_INVALID_PAGE : MPT_CONFIG_INVALID_TYPE;

	mpt_default_reply(reply, request, REPLY_BYTES, 0);
	reply[C_ACTION] = request[C_ACTION];
	memcpy(reply + C_EXT_LEN, request + C_EXT_LEN, 3);
	memcpy(reply + C_HEADER, request + C_HEADER, 4);
	if (len) {
		put_header(p, d, len);
		memcpy(reply + C_HEADER, d, 4);
		if (p->extended)
			memcpy(reply + C_EXT_LEN, d + 4, 3);
		status = transfer(m, p, request, d, len);
	}
	put_le16(reply + M_STATUS, status);
	return REPLY_BYTES;
}
