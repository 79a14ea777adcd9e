/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cpu/hostexec/form.h"

/*
 * Masked moves and gathers: only the elements whose mask bit is set are touched in memory, so only
 * they may fault. What an instruction needs to know of its shape is packed into insn.aux.
 */
struct shape {
	uint8_t elements;
	uint8_t bytes;	      /* of an element */
	uint8_t index_bytes;  /* gathers: of an index */
	uint8_t vector_bytes; /* of the operands: 16 or 32; 8 for MMX */
};

static struct shape shape_of(const struct insn *i)
{
	struct shape s;
	uint32_t v = (uint32_t)(uint64_t)i->aux;

	memcpy(&s, &v, sizeof(s));
	return s;
}

static void set_shape(struct insn *i, struct shape s)
{
	uint32_t v;

	memcpy(&v, &s, sizeof(v));
	i->aux = (const void *)(uint64_t)v;
}

static void get_vector(struct soft_cpu *c, unsigned n, uint8_t v[32])
{
	memcpy(v, guest_xmm(c, n), 16);
	memcpy(v + 16, guest_ymmh(c, n), 16);
}

/* Writes a register as VEX instructions do: zero above bytes. */
static void set_vector(struct soft_cpu *c, unsigned n, const uint8_t *v, unsigned bytes)
{
	memcpy(guest_xmm(c, n), v, 16);
	if (bytes == 32)
		memcpy(guest_ymmh(c, n), v + 16, 16);
	else
		memset(guest_ymmh(c, n), 0, 16);
}

static bool selected(const uint8_t *mask, const struct shape *s, unsigned k)
{
	return mask[k * s->bytes + s->bytes - 1] & 0x80;
}

/* An operand's offset, cut to the address size. */
static uint64_t cut(const struct insn *i, uint64_t at)
{
	if (i->addr_bytes == 8)
		return at;
	return i->addr_bytes == 4 ? (uint32_t)at : (uint16_t)at;
}

/* These instructions do no alignment checks (SDM, VMASKMOV and VGATHERDPS); cpu_read, cpu_write and
 * cpu_probe would. */
static uint64_t linear_of(struct soft_cpu *c, const struct insn *i, uint64_t at, unsigned len,
			  bool write)
{
	cpu_linear(c, i->seg, at + len - 1, 1, write);
	return cpu_linear(c, i->seg, at, 1, write);
}

void read_any(struct soft_cpu *c, const struct insn *i, uint64_t at, void *to, unsigned len)
{
	if (c->align_check)
		lin_read(c, linear_of(c, i, at, len, false), to, len,
			 (enum mmu_class)c->data_class);
	else
		cpu_read(c, i->seg, at, to, len);
}

void write_any(struct soft_cpu *c, const struct insn *i, uint64_t at, const void *from,
	       unsigned len)
{
	if (c->align_check)
		lin_write(c, linear_of(c, i, at, len, true), from, len,
			  (enum mmu_class)c->data_class);
	else
		cpu_write(c, i->seg, at, from, len);
}

void probe_any(struct soft_cpu *c, const struct insn *i, uint64_t at, unsigned len, bool write)
{
	if (c->align_check)
		lin_probe(c, linear_of(c, i, at, len, write), len, (enum mmu_class)c->data_class,
			  write);
	else
		cpu_probe(c, i->seg, at, len, write);
}

/* An element's offset. AMD's processors (Zen 3) cut each to the address size, so that one behind the last address
 * is at the first; what lies across the two is beyond the segment's limit. Others are not cut. */
static uint64_t element_at(const struct soft_cpu *c, const struct insn *i, uint64_t at)
{
	return c->vendor_amd ? cut(i, at) : at;
}

/* Writes the selected elements; every access is checked before the first is made. */
static void store_selected(struct soft_cpu *c, const struct insn *i, uint64_t at,
			   const uint8_t *mask, const uint8_t *data, const struct shape *s)
{
	for (unsigned k = 0; k < s->elements; k++)
		if (selected(mask, s, k))
			probe_any(c, i, element_at(c, i, at + k * s->bytes), s->bytes, true);
	for (unsigned k = 0; k < s->elements; k++)
		if (selected(mask, s, k))
			write_any(c, i, element_at(c, i, at + k * s->bytes), data + k * s->bytes,
				  s->bytes);
}

static void vmaskmov_load(struct soft_cpu *c, const struct insn *i)
{
	struct shape s = shape_of(i);
	uint8_t mask[32], out[32] = {0};

	form_check(c, CHECK_AVX);
	uint64_t at = cpu_ea(c, i);
	get_vector(c, i->reg[1], mask);
	for (unsigned k = 0; k < s.elements; k++)
		if (selected(mask, &s, k))
			read_any(c, i, element_at(c, i, at + k * s.bytes), out + k * s.bytes,
				 s.bytes);
	set_vector(c, i->reg[0], out, s.vector_bytes);
}

static void vmaskmov_store(struct soft_cpu *c, const struct insn *i)
{
	struct shape s = shape_of(i);
	uint8_t mask[32], data[32];

	form_check(c, CHECK_AVX);
	get_vector(c, i->reg[1], mask);
	get_vector(c, i->reg[2], data);
	store_selected(c, i, cpu_ea(c, i), mask, data, &s);
}

/* MASKMOV*: the whole operand is checked, whatever the mask, in halves of 8 bytes, which may be done (SDM,
 * MASKMOVDQU); AMD's takes the lower one first, Intel's the upper one. */
static void check_whole(struct soft_cpu *c, const struct insn *i, uint64_t at, unsigned bytes)
{
	for (unsigned n = 0; n < bytes; n += 8)
		cpu_probe(c, i->seg, at + (c->vendor_amd ? n : bytes - 8 - n), 8, true);
}

/* MASKMOVDQU and VMASKMOVDQU: bytes, to seg:rDI. */
static void store_to_rdi(struct soft_cpu *c, const struct insn *i, enum form_check check)
{
	struct shape s = shape_of(i);
	uint8_t mask[32], data[32];

	form_check(c, check);
	get_vector(c, i->reg[0], data);
	get_vector(c, i->reg[1], mask);
	uint64_t at = cut(i, c->s.gpr[RDI]);
	check_whole(c, i, at, s.vector_bytes);
	store_selected(c, i, at, mask, data, &s);
}

static void maskmovdqu(struct soft_cpu *c, const struct insn *i)
{
	store_to_rdi(c, i, CHECK_SSE);
}

static void vmaskmovdqu(struct soft_cpu *c, const struct insn *i)
{
	store_to_rdi(c, i, CHECK_AVX);
}

void enter_mmx(struct soft_cpu *c)
{
	unsigned top = x87_top(c);
	uint8_t regs[8][16];

	for (unsigned n = 0; n < 8; n++)
		memcpy(regs[n], x87_st(c, n - top), 16);
	memcpy(x87_st(c, 0), regs, sizeof(regs));
	c->s.xsave.bytes[XSAVE_FSW + 1] &= 0xc7;
	c->s.xsave.bytes[XSAVE_FTW] = 0xff;
}

static void maskmovq(struct soft_cpu *c, const struct insn *i)
{
	struct shape s = shape_of(i);

	if (!x87_check(c, CHECK_MMX))
		return;
	uint64_t at = cut(i, c->s.gpr[RDI]);
	enter_mmx(c); /* remains also when the store faults */
	check_whole(c, i, at, s.vector_bytes);
	store_selected(c, i, at, x87_st(c, i->reg[1]), x87_st(c, i->reg[0]), &s);
}

/* ---- gathers ---- */

/* Whether reading would raise. cpu_probe leaves by c->out; here it comes back. */
static bool faults(struct soft_cpu *c, const struct insn *i, uint64_t at, unsigned len)
{
	jmp_buf outer;
	bool fault = true;

	memcpy(&outer, &c->out, sizeof(outer));
	if (!setjmp(c->out)) {
		probe_any(c, i, at, len, false);
		fault = false;
	}
	memcpy(&c->out, &outer, sizeof(outer));
	return fault;
}

static uint64_t element_address(struct soft_cpu *c, const struct insn *i, const uint8_t *index,
				const struct shape *s, unsigned k)
{
	uint64_t at = (uint64_t)i->disp;

	if (i->base < GPR_NR)
		at += c->s.gpr[i->base];
	if (s->index_bytes == 4) {
		int32_t n;
		memcpy(&n, index + 4 * k, 4);
		at += (uint64_t)(int64_t)n * i->scale;
	} else {
		uint64_t n;
		memcpy(&n, index + 8 * k, 8);
		at += n * i->scale;
	}
	return cut(i, at);
}

/*
 * What a gather leaves that faults at element `end`: the elements before it are loaded and their
 * mask is cleared. With Intel's, the mask of the others is made all ones or zeros first (SDM,
 * VGATHERDPS), and what a register has beyond 128 bits is cleared with its first write; with AMD's, all
 * that stays.
 */
static void keep_partial(struct soft_cpu *c, const struct insn *i, const struct shape *s,
			 uint8_t *dst, uint8_t *mask, unsigned end, bool progress)
{
	/* With indices of 64 bits there are only half as many elements of 32. */
	unsigned masks = c->vendor_amd ? s->elements : s->vector_bytes / s->bytes;

	for (unsigned k = 0; k < masks; k++) {
		uint8_t *m = mask + k * s->bytes;
		if (k < end || (!c->vendor_amd && !selected(mask, s, k)))
			memset(m, 0, s->bytes);
		else if (!c->vendor_amd)
			memset(m, 0xff, s->bytes);
	}
	if (!c->vendor_amd && s->vector_bytes == 16) {
		memset(mask + 16, 0, 16);
		if (progress)
			memset(dst + 16, 0, 16);
	}
	memcpy(guest_xmm(c, i->reg[2]), mask, 16);
	memcpy(guest_ymmh(c, i->reg[2]), mask + 16, 16);
	memcpy(guest_xmm(c, i->reg[0]), dst, 16);
	memcpy(guest_ymmh(c, i->reg[0]), dst + 16, 16);
}

/*
 * Elements are loaded from the least significant on. Nothing is kept before all that may leave with
 * an MMIO exit is over, since then the instruction starts again.
 */
static void gather(struct soft_cpu *c, const struct insn *i)
{
	struct shape s = shape_of(i);
	uint8_t dst[32], mask[32], index[32];
	uint64_t at[8];
	unsigned k, end;
	bool progress = false;

	form_check(c, CHECK_AVX);
	get_vector(c, i->reg[0], dst);
	get_vector(c, i->reg[2], mask);
	get_vector(c, i->index, index);
	for (end = 0; end < s.elements; end++) {
		at[end] = element_address(c, i, index, &s, end);
		if (selected(mask, &s, end) && faults(c, i, at[end], s.bytes))
			break;
	}
	for (k = 0; k < end; k++) {
		if (!selected(mask, &s, k))
			continue;
		read_any(c, i, at[k], dst + k * s.bytes, s.bytes);
		progress = true;
	}
	if (end < s.elements) {
		keep_partial(c, i, &s, dst, mask, end, progress);
		if (progress && (c->s.rflags & FLAG_TF)) {
			/* The trap after what was done comes before the fault; with RF, by the SDM. */
			c->next_rip = c->s.rip;
			if (!c->vendor_amd)
				c->s.rflags |= FLAG_RF;
			return;
		}
		probe_any(c, i, at[end], s.bytes, false);
	}
	unsigned used = s.elements * s.bytes;
	memset(dst + used, 0, sizeof(dst) - used);
	memset(mask, 0, sizeof(mask));
	set_vector(c, i->reg[0], dst, 32);
	set_vector(c, i->reg[2], mask, 32);
}

/* ---- selection ---- */

static op_fn *select_vmaskmov(const struct decoded *d, struct insn *i, unsigned bytes)
{
	unsigned vector = d->z.avx.vector_length / 8;

	set_shape(i, (struct shape){vector / bytes, bytes, 0, vector});
	return i->flags & INSN_DST_MEM ? vmaskmov_store : vmaskmov_load;
}

static op_fn *select_gather(const struct decoded *d, struct insn *i, unsigned index, unsigned bytes)
{
	unsigned vector = d->z.avx.vector_length / 8;
	unsigned wider = index > bytes ? index : bytes;

	set_shape(i, (struct shape){vector / wider, bytes, index, vector});
	return gather;
}

static op_fn *select_bytes(struct insn *i, unsigned vector, op_fn *fn)
{
	set_shape(i, (struct shape){vector, 1, 0, vector});
	return fn;
}

op_fn *select_masked(const struct decoded *d, struct insn *i)
{
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_MASKMOVQ:
		return select_bytes(i, 8, maskmovq);
	case ZYDIS_MNEMONIC_MASKMOVDQU:
		return select_bytes(i, 16, maskmovdqu);
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
		return select_bytes(i, 16, vmaskmovdqu);
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
		return select_vmaskmov(d, i, 4);
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ:
		return select_vmaskmov(d, i, 8);
	case ZYDIS_MNEMONIC_VGATHERDPS:
	case ZYDIS_MNEMONIC_VPGATHERDD:
		return select_gather(d, i, 4, 4);
	case ZYDIS_MNEMONIC_VGATHERDPD:
	case ZYDIS_MNEMONIC_VPGATHERDQ:
		return select_gather(d, i, 4, 8);
	case ZYDIS_MNEMONIC_VGATHERQPS:
	case ZYDIS_MNEMONIC_VPGATHERQD:
		return select_gather(d, i, 8, 4);
	case ZYDIS_MNEMONIC_VGATHERQPD:
	case ZYDIS_MNEMONIC_VPGATHERQQ:
		return select_gather(d, i, 8, 8);
	default:
		return NULL;
	}
}
