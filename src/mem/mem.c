/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest-physical memory.
 *
 * RAM is one memfd, so that it can later be mapped a second time, sent to another process or be
 * shared with it. File offsets run without the hole, and so does the one mapping:
 *
 *   gpa     0 ........ low                  4 GiB .......... 4 GiB + high
 *   file    0 ........ low.................................. low + high
 *   host    base ..... base + low .......................... base + low + high
 *
 * Nothing is taken from the host before the guest touches it: the memfd is sparse and not reserved.
 * Huge pages are turned down (MADV_NOHUGEPAGE): an idle guest touches a few KiB here and there, and
 * 2 MiB for each of these would make its cost a multiple of what it uses. For the same reason
 * residence is counted by the file's blocks, which the kernel keeps exactly, page by page.
 *
 * The mapping's address is asked for in the middle of the user half: guests' own programs live at
 * its bottom and its top, and an engine may want these addresses for itself.
 *
 * ROM is a list of private copies laid over the map. It changes only before vCPUs run, so readers
 * take no lock.
 */
#include "mem/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROM_MAX = 16 };
#define MIB (UINT64_C(1) << 20)
#define RAM_MAX (UINT64_C(1) << 39)
/* Where the mapping may start: 2^43 bytes from here on, in steps of 1 GiB. */
#define PLACE_BASE UINT64_C(0x200000000000)
#define PLACE_STEPS 8192
#define PLACE_STEP (UINT64_C(1) << 30)

struct rom {
	uint64_t gpa, len;
	uint8_t *data;
};

struct mem {
	void (*listener)(void *opaque, uint64_t gpa, uint64_t len);
	void *listener_opaque;
	int fd;
	uint8_t *base;
	uint64_t ram, low, high;
	unsigned roms;
	struct rom rom[ROM_MAX];
	uint64_t rom_first, rom_end; /* all ROMs lie in [first, end) */
};

/* A run of guest-physical memory of one kind. */
struct span {
	enum mem_kind kind;
	uint8_t *host;
	uint64_t len;
};

static void *place_hint(void)
{
	uint16_t step = 0;

	if (getrandom(&step, sizeof(step), GRND_NONBLOCK) != sizeof(step))
		step = 0;
	return (void *)(uintptr_t)(PLACE_BASE + step % PLACE_STEPS * PLACE_STEP);
}

static int map_ram(struct mem *m, struct error *err)
{
	unsigned mib = (unsigned)(m->ram / MIB);

	m->fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (m->fd < 0)
		return error_set(err, -errno, "guest memory: memfd_create: %s", strerror(errno));
	if (ftruncate(m->fd, (off_t)m->ram) < 0 ||
	    fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return error_set(err, -errno, "guest memory: a memory file of %u MiB: %s", mib,
				 strerror(errno));
	void *p = mmap(place_hint(), m->ram, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		       m->fd, 0);
	if (p == MAP_FAILED)
		return error_set(err, -errno,
				 "guest memory: mapping %u MiB: %s; give the guest less memory or "
				 "raise the limit on address space (ulimit -v)",
				 mib, strerror(errno));
	m->base = p;
	/* Advice only: kernels without these features need none of it. */
	madvise(p, m->ram, MADV_DONTDUMP);
	madvise(p, m->ram, MADV_NOHUGEPAGE);
	return 0;
}

int mem_create(struct mem **out, uint64_t ram_bytes, struct error *err)
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
	m->fd = -1;
	m->ram = ram_bytes;
	m->low = ram_bytes < MEM_LOW_MAX ? ram_bytes : MEM_LOW_MAX;
	m->high = ram_bytes - m->low;
	m->rom_first = UINT64_MAX;
	int r = map_ram(m, err);
	if (r < 0) {
		mem_destroy(m);
		return r;
	}
	*out = m;
	return 0;
}

void mem_destroy(struct mem *m)
{
	if (!m)
		return;
	for (unsigned i = 0; i < m->roms; i++)
		munmap(m->rom[i].data, m->rom[i].len);
	if (m->base)
		munmap(m->base, m->ram);
	if (m->fd >= 0)
		close(m->fd);
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

uint64_t mem_resident_bytes(const struct mem *m)
{
	struct stat st;

	if (fstat(m->fd, &st) < 0)
		return 0;
	return (uint64_t)st.st_blocks * 512;
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

int mem_read(const struct mem *m, uint64_t gpa, void *buf, size_t len)
{
	uint8_t *to = buf;

	if (!range_readable(m, gpa, len, true))
		return -EFAULT;
	while (len > 0) {
		struct span s = span_at(m, gpa);
		size_t n = len < s.len ? len : s.len;
		memcpy(to, s.host, n);
		to += n;
		gpa += n;
		len -= n;
	}
	return 0;
}

int mem_write(struct mem *m, uint64_t gpa, const void *buf, size_t len)
{
	const uint8_t *from = buf;

	if (!range_readable(m, gpa, len, false))
		return -EFAULT;
	for (size_t left = len; left > 0;) {
		struct span s = span_at(m, gpa + (len - left));
		size_t n = left < s.len ? left : s.len;
		memcpy(s.host, from, n);
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

void *mem_ptr(struct mem *m, uint64_t gpa, size_t len)
{
	struct span s = span_at(m, gpa);

	return s.kind == MEM_RAM && len <= s.len ? s.host : NULL;
}

void *mem_page(struct mem *m, uint64_t gpa, enum mem_kind *kind)
{
	struct span s = span_at(m, gpa & ~(uint64_t)(MEM_PAGE_BYTES - 1));

	*kind = s.kind;
	return s.host;
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
