/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "cpu/interp/access.h"
#include "cpu/interp/block.h"

/*
 * Data access in full: segment checks, alignment, canonical form, page walks with TLB fill, page
 * crossings, MMIO by exit and replay, watchpoints. Where the fast path of access.h does not hit,
 * everything comes here.
 *
 * What keeps the fast path short: a page is entered into the TLB only if every access of its kind
 * is plain. MMIO never is; ROM only for reads; pages under a watchpoint (the guest's debug
 * registers or a debugger's) never; pages this vCPU has code blocks of are not entered for writes,
 * so that a store into the running block is seen (block.h).
 */
static pthread_mutex_t split_lock = PTHREAD_MUTEX_INITIALIZER;

bool cpu_is_canonical(uint64_t gva)
{
	return (uint64_t)((int64_t)(gva << 16) >> 16) == gva;
}

enum mmu_class cpu_system_class(const struct soft_cpu *c)
{
	return (c->s.cr4 & CR4_SMAP) ? MMU_KERNEL : MMU_KERNEL_USER;
}

/* ---- debug registers and watchpoints ---- */

/* DR7's length field: 1, 2, 8, 4 bytes (SDM 17.2.4). */
static unsigned dr_len(uint64_t dr7, unsigned n)
{
	static const uint8_t len[] = {1, 2, 8, 4};

	return len[dr7 >> (18 + 4 * n) & 3];
}

static bool dr_enabled(uint64_t dr7, unsigned n)
{
	return dr7 >> (2 * n) & 3;
}

static bool dr_is_data(uint64_t dr7, unsigned n)
{
	return dr7 >> (16 + 4 * n) & 1; /* types 01 (write) and 11 (read or write) */
}

static bool overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return a - b < blen || b - a < alen;
}

/* Does anything watch data in this page? */
static bool page_is_watched(const struct soft_cpu *c, uint64_t gva)
{
	uint64_t page = gva & PAGE_MASK;

	for (unsigned n = 0; n < 4; n++)
		if (dr_enabled(c->s.dr7, n) && dr_is_data(c->s.dr7, n) &&
		    (c->s.dr[n] & PAGE_MASK) == page)
			return true;
	for (unsigned n = 0; n < c->debug.points; n++) {
		const struct vcpu_debug_point *p = &c->debug.point[n];
		if (p->len && overlap(page, MEM_PAGE_BYTES, p->gva, p->len))
			return true;
	}
	return false;
}

static void check_watch(struct soft_cpu *c, uint64_t gva, unsigned len, bool write)
{
	for (unsigned n = 0; n < 4; n++) {
		uint64_t size = dr_len(c->s.dr7, n);
		bool writes_only = (c->s.dr7 >> (16 + 4 * n) & 3) == 1;
		if (dr_enabled(c->s.dr7, n) && dr_is_data(c->s.dr7, n) && (write || !writes_only) &&
		    overlap(gva, len, c->s.dr[n] & ~(size - 1), size)) {
			c->pending_dr6 |= UINT64_C(1) << n;
			c->break_block = true;
		}
	}
	for (unsigned n = 0; n < c->debug.points; n++) {
		const struct vcpu_debug_point *p = &c->debug.point[n];
		if (p->len && (write ? p->on_write : p->on_read) &&
		    overlap(gva, len, p->gva, p->len)) {
			c->watch_hit = true;
			c->watch_gva = p->gva;
			c->break_block = true;
		}
	}
}

/* ---- translation ---- */

struct target {
	uint8_t *hva; /* NULL: MMIO */
	uint64_t gpa;
};

static void fill_tlb(struct soft_cpu *c, uint64_t gva, enum mmu_class class,
		     const struct mmu_page *page, uint8_t *hva_page, enum mem_kind kind)
{
	bool write = kind == MEM_RAM && page->writable && mem_may_write(c->mem, page->gpa) &&
		     !blocks_page_is_code(c, page->gpa) &&
		     !(c->translator && bt_page_has_code(c, page->gpa));

	if (c->watching && page_is_watched(c, gva)) {
		tlb_flush_page(&c->tlb, gva);
		return;
	}
	tlb_fill(&c->tlb, class, gva, page, hva_page, write);
	cpu_note_page(c, gva, page);
}

/* Translates one access within a page. */
static struct target resolve(struct soft_cpu *c, uint64_t gva, unsigned len, enum mmu_access access,
			     enum mmu_class class)
{
	struct mmu_page page;
	uint32_t error;
	enum mem_kind kind;
	struct target t;

	c->vcpu.stats.count[EXIT_TLB_MISS]++;
	int r = mmu_walk(c->mem, &c->s, gva, access, class, &page, &error);
	if (r == -EAGAIN)
		cpu_begin_again(c, page.gpa);
	if (r < 0)
		cpu_raise_pf(c, gva, error);
	t.gpa = page.gpa;
	uint8_t *hva = mem_page(c->mem, page.gpa, access == MMU_WRITE, &kind);
	if (kind == MEM_AWAY)
		cpu_begin_again(c, page.gpa);
	t.hva = hva ? hva + (page.gpa & ~PAGE_MASK) : NULL;
	if (kind == MEM_RAM && access == MMU_WRITE) {
		blocks_note_write(c, page.gpa);
		if (c->translator)
			bt_note_write(c, page.gpa, len);
	}
	if (kind != MEM_NONE)
		fill_tlb(c, gva, class, &page, hva, kind);
	if (kind == MEM_ROM && access == MMU_WRITE)
		t.hva = c->rom_sink + (page.gpa & ~PAGE_MASK); /* writes to ROM go nowhere */
	return t;
}

void cpu_fill_tlb(struct soft_cpu *c, uint64_t gva, unsigned size, bool write, enum mmu_class class)
{
	resolve(c, gva, size, write ? MMU_WRITE : MMU_READ, class);
}

/* The same by the TLB, if it has the page. */
static struct target reach(struct soft_cpu *c, uint64_t gva, unsigned len, enum mmu_access access,
			   enum mmu_class class)
{
	const struct tlb_entry *e = &c->tlb.data[class][tlb_index(gva)];
	const uint64_t tag = access == MMU_WRITE ? e->write : e->read;

	if (!tlb_hit(tag, gva, len))
		return resolve(c, gva, len, access, class);
	return (struct target){.hva = (uint8_t *)(e->hva + (gva ^ tag)),
			       .gpa = (e->gpa & PAGE_MASK) + (gva ^ tag)};
}

/* A range of at most 4096 bytes as one or two parts, both resolved before anything is touched. */
struct parts {
	unsigned count;
	unsigned len[2];
	struct target t[2];
};

static struct parts resolve_range(struct soft_cpu *c, uint64_t gva, unsigned len,
				  enum mmu_access access, enum mmu_class class)
{
	struct parts p = {.count = 1, .len = {len, 0}};
	unsigned room = MEM_PAGE_BYTES - (gva & ~PAGE_MASK);

	p.t[0] = reach(c, gva, len < room ? len : room, access, class);
	if (len > room) {
		p.len[0] = room;
		p.len[1] = len - room;
		p.count = 2;
		uint64_t next = (gva & PAGE_MASK) + MEM_PAGE_BYTES;
		p.t[1] = reach(c, cpu_in_long_mode(&c->s) ? next : (uint32_t)next, p.len[1], access,
			       class);
	}
	return p;
}

/* RAM is copied in the access's own size where it is aligned, so that other vCPUs see it whole. */
static void copy_from(void *dst, const uint8_t *src, unsigned len)
{
	switch (len) {
	case 1:
		*(uint8_t *)dst = *(const volatile uint8_t *)src;
		break;
	case 2:
		*(uint16_t *)dst = *(const volatile uint16_t *)src;
		break;
	case 4:
		*(uint32_t *)dst = *(const volatile uint32_t *)src;
		break;
	case 8:
		*(uint64_t *)dst = *(const volatile uint64_t *)src;
		break;
	default:
		memcpy(dst, src, len);
	}
}

static void copy_to(uint8_t *dst, const void *src, unsigned len)
{
	switch (len) {
	case 1:
		*(volatile uint8_t *)dst = *(const uint8_t *)src;
		break;
	case 2:
		*(volatile uint16_t *)dst = *(const uint16_t *)src;
		break;
	case 4:
		*(volatile uint32_t *)dst = *(const uint32_t *)src;
		break;
	case 8:
		*(volatile uint64_t *)dst = *(const uint64_t *)src;
		break;
	default:
		memcpy(dst, src, len);
	}
}

static void mmio_read(struct soft_cpu *c, uint64_t gpa, uint8_t *buf, unsigned len)
{
	for (unsigned at = 0; at < len; at += 8) {
		unsigned size = len - at < 8 ? len - at : 8;
		uint64_t v = cpu_mmio_read(c, gpa + at, size);
		memcpy(buf + at, &v, size);
	}
}

static void mmio_write(struct soft_cpu *c, uint64_t gpa, const uint8_t *buf, unsigned len)
{
	for (unsigned at = 0; at < len; at += 8) {
		unsigned size = len - at < 8 ? len - at : 8;
		uint64_t v = 0;
		memcpy(&v, buf + at, size);
		cpu_mmio_write(c, gpa + at, size, v);
	}
}

void lin_read(struct soft_cpu *c, uint64_t gva, void *buf, unsigned len, enum mmu_class class)
{
	if (!cpu_in_long_mode(&c->s))
		gva = (uint32_t)gva;
	else if (!cpu_is_canonical(gva) || !cpu_is_canonical(gva + len - 1))
		cpu_gp0(c);
	const struct tlb_entry *e = &c->tlb.data[class][tlb_index(gva)];
	if (tlb_hit(e->read, gva, len)) {
		copy_from(buf, (const uint8_t *)(e->hva + (gva ^ e->read)), len);
		return;
	}
	struct parts p = resolve_range(c, gva, len, MMU_READ, class);
	uint8_t *at = buf;
	for (unsigned k = 0; k < p.count; at += p.len[k++]) {
		if (p.t[k].hva)
			copy_from(at, p.t[k].hva, p.len[k]);
		else
			mmio_read(c, p.t[k].gpa, at, p.len[k]);
	}
}

void lin_write(struct soft_cpu *c, uint64_t gva, const void *buf, unsigned len,
	       enum mmu_class class)
{
	if (!cpu_in_long_mode(&c->s))
		gva = (uint32_t)gva;
	else if (!cpu_is_canonical(gva) || !cpu_is_canonical(gva + len - 1))
		cpu_gp0(c);
	const struct tlb_entry *e = &c->tlb.data[class][tlb_index(gva)];
	if (tlb_hit(e->write, gva, len)) {
		copy_to((uint8_t *)(e->hva + (gva ^ e->write)), buf, len);
		return;
	}
	struct parts p = resolve_range(c, gva, len, MMU_WRITE, class);
	const uint8_t *at = buf;
	for (unsigned k = 0; k < p.count; at += p.len[k++]) {
		if (p.t[k].hva)
			copy_to(p.t[k].hva, at, p.len[k]);
		else
			mmio_write(c, p.t[k].gpa, at, p.len[k]);
	}
}

void lin_probe(struct soft_cpu *c, uint64_t gva, unsigned len, enum mmu_class class, bool write)
{
	if (!cpu_in_long_mode(&c->s))
		gva = (uint32_t)gva;
	else if (!cpu_is_canonical(gva) || !cpu_is_canonical(gva + len - 1))
		cpu_gp0(c);
	const struct tlb_entry *e = &c->tlb.data[class][tlb_index(gva)];
	if (tlb_hit(write ? e->write : e->read, gva, len))
		return;
	resolve_range(c, gva, len, write ? MMU_WRITE : MMU_READ, class);
}

/* ---- segments ---- */

_Noreturn static void segment_fault(struct soft_cpu *c, enum seg_reg seg)
{
	cpu_raise(c, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
}

/* Limit check with expand-down segments (SDM 5.3): offsets above the limit are the valid ones. */
static bool within_limit(const struct segment *s, uint64_t offset, unsigned len)
{
	uint64_t last = offset + len - 1;

	if ((s->attr & (SEG_S | SEG_TYPE_CODE | SEG_TYPE_DC)) == (SEG_S | SEG_TYPE_DC))
		return offset > s->limit && last <= ((s->attr & SEG_DB) ? 0xffffffff : 0xffff);
	return last <= s->limit;
}

static bool rights_allow(const struct segment *s, bool write)
{
	if (s->attr & SEG_UNUSABLE)
		return false;
	if (s->attr & SEG_TYPE_CODE)
		return !write && (s->attr & SEG_TYPE_WR);
	return !write || (s->attr & SEG_TYPE_WR);
}

uint64_t cpu_linear(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, unsigned len, bool write)
{
	const struct segment *s = &c->s.seg[seg];
	uint64_t gva = (c->seg_base[seg] + offset) & c->lin_mask;

	if (c->mode == MODE_64) {
		if (!cpu_is_canonical(gva) || !cpu_is_canonical(gva + len - 1))
			segment_fault(c, seg);
	} else {
		/* Real mode has limits but no rights (SDM 20.1.1). */
		bool protected = (c->s.cr0 & CR0_PE) && !(c->s.rflags & FLAG_VM);
		if ((protected && !rights_allow(s, write)) || !within_limit(s, offset, len))
			segment_fault(c, seg);
	}
	if (c->align_check && len <= 8 && (gva & (len - 1)) && !(len & (len - 1)))
		cpu_raise(c, VEC_AC, 0);
	return gva;
}

/* ---- the slow ends of access.h, and the general accessors ---- */

static enum mmu_class data_class(const struct soft_cpu *c)
{
	return (enum mmu_class)c->data_class;
}

uint64_t data_read_slow(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, unsigned size)
{
	uint64_t gva = cpu_linear(c, seg, offset, size, false);
	uint64_t v = 0;

	lin_read(c, gva, &v, size, data_class(c));
	if (c->watching)
		check_watch(c, gva, size, false);
	return v;
}

void data_write_slow(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, unsigned size,
		     uint64_t value)
{
	uint64_t gva = cpu_linear(c, seg, offset, size, true);

	lin_write(c, gva, &value, size, data_class(c));
	if (c->watching)
		check_watch(c, gva, size, true);
}

void *rmw_ptr_slow(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, unsigned size)
{
	uint64_t gva = cpu_linear(c, seg, offset, size, true);
	struct parts p = resolve_range(c, gva, size, MMU_WRITE, data_class(c));

	if (c->watching)
		check_watch(c, gva, size, true);
	return p.count == 1 ? p.t[0].hva : NULL;
}

void rmw_lock(struct soft_cpu *c)
{
	if (!c->split_locked) {
		pthread_mutex_lock(&split_lock);
		c->split_locked = true;
	}
}

void rmw_unlock(struct soft_cpu *c)
{
	if (c->split_locked) {
		c->split_locked = false;
		pthread_mutex_unlock(&split_lock);
	}
}

#define DEFINE_EXTERN(BITS)                                                                        \
	uint##BITS##_t cpu_read##BITS(struct soft_cpu *c, enum seg_reg seg, uint64_t offset)       \
	{                                                                                          \
		return rd##BITS(c, seg, offset);                                                   \
	}                                                                                          \
	void cpu_write##BITS(struct soft_cpu *c, enum seg_reg seg, uint64_t offset,                \
			     uint##BITS##_t v)                                                     \
	{                                                                                          \
		wr##BITS(c, seg, offset, v);                                                       \
	}
DEFINE_EXTERN(8)
DEFINE_EXTERN(16)
DEFINE_EXTERN(32)
DEFINE_EXTERN(64)

void cpu_read(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, void *buf, unsigned len)
{
	const void *p = data_hit(c, seg, offset, len, false);

	if (p) {
		copy_from(buf, p, len);
		return;
	}
	uint64_t gva = cpu_linear(c, seg, offset, len, false);
	lin_read(c, gva, buf, len, data_class(c));
	if (c->watching)
		check_watch(c, gva, len, false);
}

void cpu_write(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, const void *buf, unsigned len)
{
	void *p = data_hit(c, seg, offset, len, true);

	if (p) {
		copy_to(p, buf, len);
		return;
	}
	uint64_t gva = cpu_linear(c, seg, offset, len, true);
	lin_write(c, gva, buf, len, data_class(c));
	if (c->watching)
		check_watch(c, gva, len, true);
}

void cpu_probe(struct soft_cpu *c, enum seg_reg seg, uint64_t offset, unsigned len, bool write)
{
	if (data_hit(c, seg, offset, len, write))
		return;
	lin_probe(c, cpu_linear(c, seg, offset, len, write), len, data_class(c), write);
}

uint64_t cpu_ea(const struct soft_cpu *c, const struct insn *i)
{
	return ea(c, i);
}

/* ---- the stack ---- */

uint64_t cpu_stack_mask(const struct soft_cpu *c)
{
	if (c->mode == MODE_64)
		return UINT64_MAX;
	return (c->s.seg[SEG_SS].attr & SEG_DB) ? UINT32_MAX : UINT16_MAX;
}

static void set_sp(struct soft_cpu *c, uint64_t mask, uint64_t sp)
{
	if (mask == UINT16_MAX)
		*(uint16_t *)&c->s.gpr[RSP] = (uint16_t)sp;
	else
		c->s.gpr[RSP] = sp & mask;
}

void cpu_push(struct soft_cpu *c, uint64_t value, unsigned size)
{
	uint64_t mask = cpu_stack_mask(c);
	uint64_t sp = (c->s.gpr[RSP] - size) & mask;

	write_mem(c, SEG_SS, sp, size, value);
	set_sp(c, mask, sp);
}

uint64_t cpu_pop(struct soft_cpu *c, unsigned size)
{
	uint64_t mask = cpu_stack_mask(c);
	uint64_t v = read_mem(c, SEG_SS, c->s.gpr[RSP] & mask, size);

	set_sp(c, mask, c->s.gpr[RSP] + size);
	return v;
}
