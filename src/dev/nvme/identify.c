/* SPDX-License-Identifier: Apache-2.0 */
/* What the controller says of itself: Identify (NVMe 5.15) and Get Log Page (NVMe 5.14). */
#include <stdio.h>
#include <string.h>

#include "dev/nvme/nvme_internal.h"

enum { CNS_NAMESPACE = 0, CNS_CONTROLLER = 1, CNS_ACTIVE_LIST = 2, CNS_DESCRIPTORS = 3 };
enum { LOG_ERRORS = 1, LOG_HEALTH = 2, LOG_FIRMWARE = 3, LOG_BYTES_MAX = 512 };
enum { DESCRIPTOR_UUID = 3, UUID_BYTES = 16 };
enum { SENSOR_KELVIN = 310, WARNING_KELVIN = 343, CRITICAL_KELVIN = 373 };
static const char model[] = "Hanok NVMe Disk", firmware[] = "1.0";

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
	memcpy(at, &value, bytes);
}

/* ASCII fields are filled up with blanks. */
static void put_text(uint8_t *at, const char *text, size_t bytes)
{
	size_t len = strlen(text);

	memset(at, ' ', bytes);
	memcpy(at, text, len < bytes ? len : bytes);
}

/* The same for the same serial number and namespace: FNV-1a twice, marked as a random UUID. */
static void make_uuid(const struct nvme *n, uint32_t nsid, uint8_t uuid[UUID_BYTES])
{
	for (unsigned half = 0; half < 2; half++) {
		uint64_t h = UINT64_C(0xcbf29ce484222325) + half;
		for (const char *s = n->serial; *s; s++)
			h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
		h = (h ^ nsid) * UINT64_C(0x100000001b3);
		h = (h ^ half) * UINT64_C(0x100000001b3);
		put(uuid + 8 * half, h, 8);
	}
	uuid[6] = (uuid[6] & 0x0f) | 0x40;
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
}

static void controller(const struct nvme *n, uint8_t *d)
{
	uint8_t u[UUID_BYTES];

	put(d + 0, 0x15ad, 2);
	put(d + 2, 0x15ad, 2);
	put_text(d + 4, n->serial, 20);
	put_text(d + 24, model, 40);
	put_text(d + 64, firmware, 8);
	d[72] = 6; /* arbitration burst, recommended */
	d[77] = NVME_MDTS;
	put(d + 80, 0x00010400, 4);   /* version */
	d[111] = 1;		      /* an I/O controller */
	d[258] = 3;		      /* aborts at a time, less one */
	d[259] = NVME_EVENTS_MAX - 1; /* event requests held, less one */
	d[260] = 1 << 1 | 1;	      /* one firmware slot, read-only */
	d[261] = 1 << 2;	      /* parts of log pages can be read */
	put(d + 266, WARNING_KELVIN, 2);
	put(d + 268, CRITICAL_KELVIN, 2);
	d[512] = 0x66; /* submission entries: 2^6 bytes */
	d[513] = 0x44; /* completion entries: 2^4 */
	put(d + 516, NVME_NAMESPACES_MAX, 4);
	put(d + 520, 1 << 2 | 1 << 3, 2); /* deallocate, write zeroes */
	d[525] = 2 << 1 | 1;		  /* a write cache; flushes are per namespace */
	make_uuid(n, 0, u);
	snprintf((char *)d + 768, 256,
		 "nqn.2014-08.org.nvmexpress:uuid:%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
		 "%02x%02x%02x%02x%02x%02x",
		 u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12],
		 u[13], u[14], u[15]);
	put(d + 2048, 2500, 2); /* power state 0: 25 W */
}

static void namespace(const struct nvme_namespace *ns, uint8_t *d)
{
	uint32_t granule = ns->granule > 8 ? ns->granule : 8;

	put(d + 0, ns->blocks, 8);  /* size */
	put(d + 8, ns->blocks, 8);  /* capacity */
	put(d + 16, ns->blocks, 8); /* used */
	d[24] = 1 << 4;		    /* the sizes at 64 count */
	put(d + 64, 8 - 1, 2);	    /* writes: hosts like 4 KiB */
	put(d + 66, 8 - 1, 2);
	put(d + 68, (granule < 0x10000 ? granule : 0x10000) - 1, 2); /* deallocation */
	put(d + 70, (granule < 0x10000 ? granule : 0x10000) - 1, 2);
	put(d + 72, 8 - 1, 2);
	d[99] = ns->read_only;
	d[128 + 2] = 9; /* the only format: blocks of 2^9 bytes, no metadata */
}

unsigned nvme_identify(struct nvme *n, const struct nvme_command *c)
{
	const struct nvme_namespace *ns = nvme_namespace(n, c->nsid);
	uint8_t data[NVME_ID_BYTES] = {0};
	unsigned listed = 0;

	switch (c->cdw10 & 0xff) {
	case CNS_NAMESPACE:
		/* One that may be but is not: zeroes. All together: nothing is common to them. */
		if (!c->nsid || c->nsid > NVME_NAMESPACES_MAX)
			return NVME_INVALID_NAMESPACE | NVME_DO_NOT_RETRY;
		if (ns)
		namespace(ns, data);
		break;
	case CNS_CONTROLLER:
		controller(n, data);
		break;
	case CNS_ACTIVE_LIST:
		if (c->nsid >= UINT32_MAX - 1)
			return NVME_INVALID_NAMESPACE | NVME_DO_NOT_RETRY;
		for (uint32_t i = 1; i <= NVME_NAMESPACES_MAX; i++)
			if (i > c->nsid && nvme_namespace(n, i))
				put(data + 4 * listed++, i, 4);
		break;
	case CNS_DESCRIPTORS:
		if (!ns)
			return NVME_INVALID_NAMESPACE | NVME_DO_NOT_RETRY;
		data[0] = DESCRIPTOR_UUID;
		data[1] = UUID_BYTES;
		make_uuid(n, c->nsid, data + 4);
		break;
	default:
		return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
	}
	return nvme_copy_out(n, c, data, sizeof(data));
}

/* --- logs --- */

/* NVMe 5.14.1.2; counters are 16 bytes each. */
static void health(struct nvme *n, uint8_t *d)
{
	uint64_t read = 0, written = 0, reads = 0, writes = 0, errors = 0;

	for (unsigned i = 0; i < NVME_NAMESPACES_MAX; i++) {
		struct disk_stats s;
		if (!n->ns[i].disk)
			continue;
		disk_get_stats(n->ns[i].disk, &s);
		read += s.bytes[DISK_READ];
		written += s.bytes[DISK_WRITE];
		reads += s.requests[DISK_READ];
		writes += s.requests[DISK_WRITE];
		for (unsigned op = 0; op < DISK_OPS; op++)
			errors += s.errors[op];
	}
	put(d + 1, SENSOR_KELVIN, 2);
	d[3] = 100;				  /* spare, per cent */
	d[4] = 10;				  /* and its threshold */
	put(d + 32, (read + 511999) / 512000, 8); /* thousands of 512 bytes, rounded up */
	put(d + 48, (written + 511999) / 512000, 8);
	put(d + 64, reads, 8);
	put(d + 80, writes, 8);
	put(d + 160, errors, 8); /* media errors */
}

unsigned nvme_get_log(struct nvme *n, const struct nvme_command *c)
{
	uint64_t bytes = ((uint64_t)(c->cdw11 & 0xffff) << 16 | c->cdw10 >> 16) + 1;
	uint64_t offset = (uint64_t)c->cdw13 << 32 | c->cdw12;
	uint8_t data[LOG_BYTES_MAX] = {0};
	uint8_t part[NVME_ID_BYTES] = {0};

	bytes *= 4;
	/* A page for the errors holds no entries, another size is nowhere to be asked for. */
	if (bytes > sizeof(part) || offset >= sizeof(data) || offset & 3)
		return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
	switch (c->cdw10 & 0xff) {
	case LOG_ERRORS:
		break;
	case LOG_HEALTH:
		health(n, data);
		break;
	case LOG_FIRMWARE:
		data[0] = 1; /* slot 1 is active */
		put_text(data + 8, firmware, 8);
		break;
	default:
		return NVME_INVALID_LOG | NVME_DO_NOT_RETRY;
	}
	memcpy(part, data + offset, bytes < sizeof(data) - offset ? bytes : sizeof(data) - offset);
	return nvme_copy_out(n, c, part, bytes);
}
