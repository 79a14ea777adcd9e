/* SPDX-License-Identifier: Apache-2.0 */
/* The firmware configuration device. Section names are those of QEMU's docs/specs/fw_cfg. */
#include "dev/fw_cfg.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "dev/regs.h"

enum { SELECTOR_BYTES = 2, DMA_AT = 4, DMA_BYTES = 8, KEYS = FW_CFG_FILE_FIRST + FW_CFG_FILES_MAX };
enum { KEY_MASK = 0x3fff, KEY_NONE = 0xffff };
enum { ID_TRADITIONAL = 1, ID_DMA = 2 };
enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };
#define DMA_SIGNATURE UINT64_C(0x51454d5520434647) /* "QEMU CFG" */

struct item {
	uint8_t *data;
	uint32_t len;
};

/* "File Directory": one entry, numbers big-endian. */
struct dir_entry {
	uint32_t size;
	uint16_t select;
	uint16_t reserved;
	char name[FW_CFG_NAME_BYTES];
};

struct dir {
	uint32_t count;
	struct dir_entry entry[FW_CFG_FILES_MAX];
};

/* "DMA Control register": what the guest keeps in its memory, big-endian. */
struct dma_request {
	uint32_t control;
	uint32_t length;
	uint64_t address;
};

struct fw_cfg {
	struct fw_cfg_config cfg;
	pthread_mutex_t lock;
	unsigned mapped;
	uint16_t key;
	uint32_t offset;
	uint64_t dma_address;
	unsigned files;
	struct dir dir;
	struct item item[KEYS];
};

static int set_item(struct fw_cfg *f, unsigned key, const void *data, size_t len)
{
	uint8_t *copy;

	if (len > UINT32_MAX)
		return -EINVAL;
	copy = malloc(len ? len : 1);
	if (!copy)
		return -ENOMEM;
	if (len)
		memcpy(copy, data, len);
	pthread_mutex_lock(&f->lock);
	free(f->item[key].data);
	f->item[key] = (struct item){copy, (uint32_t)len};
	pthread_mutex_unlock(&f->lock);
	return 0;
}

int fw_cfg_add(struct fw_cfg *f, uint16_t key, const void *data, size_t len)
{
	return key >= FW_CFG_FILE_FIRST ? -EINVAL : set_item(f, key, data, len);
}

int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, size_t len)
{
	size_t name_len = strlen(name);
	struct dir_entry *e;
	unsigned i;
	int rc;

	if (!name_len || name_len >= FW_CFG_NAME_BYTES)
		return -EINVAL;
	for (i = 0; i < f->files && strcmp(f->dir.entry[i].name, name); i++)
		;
	if (i == FW_CFG_FILES_MAX)
		return -ENOSPC;
	rc = set_item(f, FW_CFG_FILE_FIRST + i, data, len);
	if (rc)
		return rc;
	e = &f->dir.entry[i];
	*e = (struct dir_entry){.size = htobe32((uint32_t)len),
				.select = htobe16((uint16_t)(FW_CFG_FILE_FIRST + i))};
	memcpy(e->name, name, name_len);
	if (i == f->files)
		f->dir.count = htobe32(++f->files);
	return set_item(f, FW_CFG_FILE_DIR, &f->dir, 4 + f->files * sizeof(*e));
}

static const struct item *current(const struct fw_cfg *f)
{
	static const struct item none;
	unsigned key = f->key & KEY_MASK;

	return f->key != KEY_NONE && key < KEYS ? &f->item[key] : &none;
}

static void select_key(struct fw_cfg *f, uint16_t key)
{
	f->key = key;
	f->offset = 0;
}

/* "Data Register": past the end there are zeros. */
static uint8_t next_byte(struct fw_cfg *f)
{
	const struct item *it = current(f);

	return f->offset < it->len ? it->data[f->offset++] : 0;
}

/* Copies length bytes of the item, zeros after its end, to guest memory. */
static int dma_read(struct fw_cfg *f, uint64_t gpa, uint32_t length)
{
	static const uint8_t zeros[MEM_PAGE_BYTES];
	const struct item *it = current(f);
	uint32_t n = it->len - f->offset;
	int rc;

	n = n < length ? n : length;
	rc = n ? mem_write(f->cfg.mem, gpa, it->data + f->offset, n) : 0;
	f->offset += n;
	for (gpa += n, length -= n; !rc && length; gpa += n, length -= n) {
		n = length < sizeof(zeros) ? length : (uint32_t)sizeof(zeros);
		rc = mem_write(f->cfg.mem, gpa, zeros, n);
	}
	return rc;
}

static void dma_skip(struct fw_cfg *f, uint32_t length)
{
	uint32_t left = current(f)->len - f->offset;

	f->offset += length < left ? length : left;
}

/* "Guest-side DMA Interface". */
static void dma(struct fw_cfg *f)
{
	struct dma_request r;
	uint64_t at = f->dma_address;
	uint32_t control, result = 0;

	f->dma_address = 0;
	if (mem_read(f->cfg.mem, at, &r, sizeof(r)))
		return;
	control = be32toh(r.control);
	if (control & DMA_SELECT)
		select_key(f, (uint16_t)(control >> 16));
	if (control & DMA_READ) {
		if (dma_read(f, be64toh(r.address), be32toh(r.length)))
			result = DMA_ERROR;
	} else if (control & DMA_WRITE) {
		result = DMA_ERROR; /* no item here can be written */
	} else if (control & DMA_SKIP) {
		dma_skip(f, be32toh(r.length));
	}
	result = htobe32(result);
	mem_write(f->cfg.mem, at, &result, sizeof(result));
}

static void access_selector(void *dev, struct bus_access *a)
{
	struct fw_cfg *f = dev;

	pthread_mutex_lock(&f->lock);
	if (a->write && a->offset == 0 && a->size == 2)
		select_key(f, (uint16_t)a->value);
	else if (!a->write && a->offset == 1)
		a->value = next_byte(f);
	pthread_mutex_unlock(&f->lock);
}

/* The address register, big-endian: in one piece, or the high half and then the low one. */
static void access_dma(void *dev, struct bus_access *a)
{
	struct fw_cfg *f = dev;

	if (!a->write) { /* reading tells that there is DMA */
		uint64_t bytes = htobe64(DMA_SIGNATURE);
		a->value = bytes >> (8 * a->offset);
		return;
	}
	if (a->size != 4)
		return; /* ports are at most 4 bytes wide */
	pthread_mutex_lock(&f->lock);
	if (a->offset == 0) {
		f->dma_address = (uint64_t)be32toh((uint32_t)a->value) << 32;
	} else if (a->offset == 4) {
		f->dma_address |= be32toh((uint32_t)a->value);
		dma(f);
	}
	pthread_mutex_unlock(&f->lock);
}

static void reset(void *dev)
{
	struct fw_cfg *f = dev;

	pthread_mutex_lock(&f->lock);
	select_key(f, FW_CFG_SIGNATURE);
	f->dma_address = 0;
	pthread_mutex_unlock(&f->lock);
}

/* The items are the machine's configuration and not part of the state. */
static void state(void *dev, struct state_stream *s)
{
	struct fw_cfg *f = dev;

	pthread_mutex_lock(&f->lock);
	state_begin(s, "fw_cfg", 0, 1);
	state_u16(s, &f->key);
	state_u32(s, &f->offset);
	state_u64(s, &f->dma_address);
	if (f->offset > current(f)->len) {
		f->offset = 0;
		state_fail(s, "an offset past its item (another configuration?)");
	}
	state_end(s);
	pthread_mutex_unlock(&f->lock);
}

static void destroy(void *dev)
{
	struct fw_cfg *f = dev;

	if (!f)
		return;
	if (f->mapped > 1)
		bus_unmap(f->cfg.bus, BUS_PIO, f->cfg.port + DMA_AT, f);
	if (f->mapped > 0)
		bus_unmap(f->cfg.bus, BUS_PIO, f->cfg.port, f);
	for (unsigned i = 0; i < KEYS; i++)
		free(f->item[i].data);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

const struct dev_ops fw_cfg_ops = {
	.name = "fw_cfg",
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int fw_cfg_create(struct fw_cfg **out, const struct fw_cfg_config *cfg, struct error *err)
{
	struct fw_cfg *f = calloc(1, sizeof(*f));
	uint32_t id = htole32(ID_TRADITIONAL | ID_DMA);
	int rc;

	*out = NULL;
	if (!f)
		return error_set(err, -ENOMEM, "fw_cfg: out of memory");
	f->cfg = *cfg;
	pthread_mutex_init(&f->lock, NULL);
	const struct bus_range ranges[] = {
		{BUS_PIO, cfg->port, SELECTOR_BYTES, access_selector, f, "fw_cfg"},
		{BUS_PIO, cfg->port + DMA_AT, DMA_BYTES, access_dma, f, "fw_cfg dma"},
	};
	rc = fw_cfg_add(f, FW_CFG_SIGNATURE, "QEMU", 4);
	if (!rc)
		rc = fw_cfg_add(f, FW_CFG_ID, &id, sizeof(id));
	if (!rc)
		rc = fw_cfg_add(f, FW_CFG_FILE_DIR, &f->dir, 4);
	for (; !rc && f->mapped < 2; f->mapped += !rc)
		rc = bus_map(cfg->bus, &ranges[f->mapped]);
	if (rc) {
		destroy(f);
		return error_set(err, rc, "fw_cfg: cannot be made at port %#x", cfg->port);
	}
	reset(f);
	*out = f;
	return 0;
}
