/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest-physical memory.
 *
 * RAM is one mapping without the hole:
 *
 *   gpa     0 ........ low                  4 GiB .......... 4 GiB + high
 *   host    base ..... base + low .......................... base + low + high
 *
 *
 * ROM is a list of private copies laid over the map. It changes only before vCPUs run, so readers
 * take no lock.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mem/mem_internal.h"

#define MIB (UINT64_C(1) << 20)

/* A run of guest-physical memory of one kind. */
struct span {
	enum mem_kind kind;
	uint8_t *host;
	uint64_t len;
};

static int create(struct mem **out, uint64_t ram_bytes, bool shared, struct error *err)
{
	*out = NULL;
	if (ram_bytes < MIB || ram_bytes % MIB || ram_bytes > RAM_MAX)
		return error_set(err, -EINVAL,
				 "guest memory of %" PRIu64 " bytes: it must be a whole number of "
				 "MiB, from 1 MiB to 512 GiB",
				 ram_bytes);
	struct mem *m = calloc(1, sizeof(*m));
	if (!m)
		return error_set(err, -ENOMEM, "guest memory: out of memory");
	m->ram = ram_bytes;
	m->file = -1;
	m->low = ram_bytes < MEM_LOW_MAX ? ram_bytes : MEM_LOW_MAX;
	m->high = ram_bytes - m->low;
	m->rom_first = UINT64_MAX;
	int r = ram_map(m, shared, err);
	if (r == 0)
		r = frames_create(m, err);
	if (r < 0) {
		mem_destroy(m);
		return r;
	}
	*out = m;
	return 0;
}

int mem_create(struct mem **out, uint64_t ram_bytes, struct error *err)
{
	return create(out, ram_bytes, false, err);
}

int mem_create_shared(struct mem **out, uint64_t ram_bytes, struct error *err)
{
	return create(out, ram_bytes, true, err);
}

void mem_destroy(struct mem *m)
{
	if (!m)
		return;
	frames_destroy(m);
	for (unsigned i = 0; i < m->roms; i++)
		munmap(m->rom[i].data, m->rom[i].len);
	ram_unmap(m);
	free(m);
}

uint64_t mem_ram_bytes(const struct mem *m)
{
	return m->ram;
}

uint64_t mem_low_bytes(const struct mem *m)
{
	return m->low;
}

uint64_t mem_high_bytes(const struct mem *m)
{
	return m->high;
}

/* RAM, not looking at ROM. */
static struct span ram_span(const struct mem *m, uint64_t gpa)
{
	if (gpa < m->low)
		return (struct span){MEM_RAM, m->base + gpa, m->low - gpa};
	if (gpa >= MEM_HIGH_BASE && gpa - MEM_HIGH_BASE < m->high) {
		uint64_t offset = gpa - MEM_HIGH_BASE;
		return (struct span){MEM_RAM, m->base + m->low + offset, m->high - offset};
	}
	return (struct span){MEM_NONE, NULL, 0};
}

/* What lies at gpa, and how far on it is the same. */
static struct span span_at(const struct mem *m, uint64_t gpa)
{
	struct span s = ram_span(m, gpa);

	if (gpa >= m->rom_end || (s.kind == MEM_RAM && gpa + s.len <= m->rom_first))
		return s;
	for (unsigned i = 0; i < m->roms; i++) {
		const struct rom *r = &m->rom[i];
		if (gpa >= r->gpa && gpa - r->gpa < r->len)
			return (struct span){MEM_ROM, r->data + (gpa - r->gpa),
					     r->len - (gpa - r->gpa)};
		if (r->gpa > gpa && r->gpa - gpa < s.len)
			s.len = r->gpa - gpa;
	}
	return s;
}

static bool range_readable(const struct mem *m, uint64_t gpa, size_t len, bool rom)
{
	while (len > 0) {
		struct span s = span_at(m, gpa);
		if (s.kind == MEM_NONE || (s.kind == MEM_ROM && !rom))
			return false;
		if (len <= s.len)
			return true;
		gpa += s.len;
		len -= s.len;
	}
	return true;
}

/* ---- access ---- */

static uint64_t frame_of(const struct mem *m, const void *host)
{
	return (uint64_t)((const uint8_t *)host - m->base) >> MEM_PAGE_SHIFT;
}

static bool in_ram(const struct mem *m, const void *host)
{
	return (uint64_t)((const uint8_t *)host - m->base) < m->ram;
}

static void pin_range(struct mem *m, const void *host, size_t len, bool write, unsigned pins)
{
	if (!len)
		return;
	uint64_t last = frame_of(m, (const uint8_t *)host + len - 1);
	for (uint64_t f = frame_of(m, host); f <= last; f++)
		frame_get_slow(m, f, write, pins, true);
}

void mem_unpin(struct mem *m, const void *host, size_t len)
{
	if (!len || !in_ram(m, host))
		return;
	uint64_t last = frame_of(m, (const uint8_t *)host + len - 1);
	for (uint64_t f = frame_of(m, host); f <= last; f++)
		frame_unpin(m, f);
}

/* Copies one run of memory of one kind, the page pinned meanwhile. Returns its length. */
static size_t copy_run(struct mem *m, uint64_t gpa, void *buf, size_t len, bool write)
{
	struct span s = span_at(m, gpa);
	size_t room = MEM_PAGE_BYTES - (gpa & (MEM_PAGE_BYTES - 1));
	size_t n = len < s.len ? len : s.len;

	n = n < room ? n : room;
	if (s.kind == MEM_RAM)
		pin_range(m, s.host, n, write, 1);
	if (write)
		memcpy(s.host, buf, n);
	else
		memcpy(buf, s.host, n);
	if (s.kind == MEM_RAM)
		mem_unpin(m, s.host, n);
	return n;
}

int mem_read(struct mem *m, uint64_t gpa, void *buf, size_t len)
{
	uint8_t *to = buf;

	if (!range_readable(m, gpa, len, true))
		return -EFAULT;
	while (len > 0) {
		size_t n = copy_run(m, gpa, to, len, false);
		to += n;
		gpa += n;
		len -= n;
	}
	return 0;
}

int mem_write(struct mem *m, uint64_t gpa, const void *buf, size_t len)
{
	uint8_t *from = (uint8_t *)(uintptr_t)buf;

	if (!range_readable(m, gpa, len, false))
		return -EFAULT;
	for (size_t left = len; left > 0;) {
		size_t n = copy_run(m, gpa + (len - left), from, left, true);
		from += n;
		left -= n;
	}
	mem_written(m, gpa, len);
	return 0;
}

void mem_written(struct mem *m, uint64_t gpa, uint64_t len)
{
	if (m->listener)
		m->listener(m->listener_opaque, gpa, len);
}

void mem_set_listener(struct mem *m, void (*fn)(void *opaque, uint64_t gpa, uint64_t len),
		      void *opaque)
{
	m->listener_opaque = opaque;
	m->listener = fn;
}

static void *pin(struct mem *m, uint64_t gpa, size_t len, bool write, unsigned pins)
{
	struct span s = span_at(m, gpa);

	if (s.kind != MEM_RAM || len > s.len)
		return NULL;
	pin_range(m, s.host, len, write, pins);
	return s.host;
}

void *mem_pin(struct mem *m, uint64_t gpa, size_t len, bool write)
{
	return pin(m, gpa, len, write, 1);
}

void *mem_ptr(struct mem *m, uint64_t gpa, size_t len)
{
	return pin(m, gpa, len, true, PINS_MAX);
}

uint8_t *mem_page(struct mem *m, uint64_t gpa, bool write, enum mem_kind *kind)
{
	struct span s = span_at(m, gpa & ~(uint64_t)(MEM_PAGE_BYTES - 1));

	*kind = s.kind;
	if (s.kind == MEM_RAM && !frame_get(m, frame_of(m, s.host), write)) {
		*kind = MEM_AWAY;
		return NULL;
	}
	return s.host;
}

void mem_fetch(struct mem *m, uint64_t gpa)
{
	struct span s = ram_span(m, gpa);

	if (s.kind == MEM_RAM)
		frame_get_slow(m, frame_of(m, s.host), false, 0, true);
}

/* The frame's word; 0 where there is no RAM. */
static uint64_t word_at(const struct mem *m, uint64_t gpa)
{
	struct span s = ram_span(m, gpa);

	return s.kind == MEM_RAM ? atomic_load(&m->frames[frame_of(m, s.host)]) : 0;
}

bool mem_may_write(const struct mem *m, uint64_t gpa)
{
	const uint64_t both = FRAME_DIRTY | FRAME_LOGGED;

	return (word_at(m, gpa) & both) == both;
}

bool mem_may_stay(const struct mem *m, uint64_t gpa)
{
	return (word_at(m, gpa) & (FRAME_PRESENT | FRAME_LEAVING | FRAME_LOCKED)) == FRAME_PRESENT;
}

int mem_frame_at(struct mem *m, uint64_t gpa, struct mem_frame *f)
{
	struct span s = ram_span(m, gpa);

	if (s.kind != MEM_RAM)
		return -EFAULT;
	frame_describe(m, frame_of(m, s.host), f);
	return 0;
}

int mem_add_rom(struct mem *m, uint64_t gpa, const void *data, size_t len, struct error *err)
{
	uint64_t mask = MEM_PAGE_BYTES - 1;

	if (gpa & mask || len & mask || len == 0 || gpa + len < gpa)
		return error_set(err, -EINVAL, "ROM at 0x%" PRIx64 ", %zu bytes: not whole pages",
				 gpa, len);
	for (unsigned i = 0; i < m->roms; i++) {
		const struct rom *r = &m->rom[i];
		if (gpa < r->gpa + r->len && r->gpa < gpa + len)
			return error_set(err, -EINVAL,
					 "ROM at 0x%" PRIx64 " overlaps the one at 0x%" PRIx64, gpa,
					 r->gpa);
	}
	if (m->roms == ROM_MAX)
		return error_set(err, -ENOMEM, "ROM at 0x%" PRIx64 ": more than %d ROMs", gpa,
				 ROM_MAX);
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return error_set(err, -ENOMEM, "ROM at 0x%" PRIx64 ", %zu bytes: out of memory",
				 gpa, len);
	memcpy(p, data, len);
	mprotect(p, len, PROT_READ);
	m->rom[m->roms++] = (struct rom){gpa, len, p};
	if (gpa < m->rom_first)
		m->rom_first = gpa;
	if (gpa + len > m->rom_end)
		m->rom_end = gpa + len;
	return 0;
}
