/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/interp/access.h"
#include "cpu/interp/sys/sys.h"

/*
 * What IOPL guards: port access (SDM Vol. 1, 19.5), with the breakpoints on ports; CLI and STI,
 * PUSHF and POPF. The guest is not offered VME and PVI, so virtual interrupts do not exist.
 */
#define FLAGS_EXISTING                                                                             \
	(FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_VM |     \
	 FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID)

enum { TSS_IO_MAP = 0x66, TSS32_MIN_LIMIT = 0x67 };

/*
 * The processor reads two bytes of the bitmap whatever the width, so both must be inside the TSS.
 * A 16-bit TSS has no bitmap.
 */
static bool bitmap_allows(struct soft_cpu *c, uint16_t port, unsigned size)
{
	const struct segment *tr = &c->s.tr;
	uint16_t offset;
	uint16_t bits;

	if ((tr->attr & SEG_UNUSABLE) || !(tr->attr & SYS_TYPE_32) || tr->limit < TSS32_MIN_LIMIT)
		return false;
	lin_read(c, tr->base + TSS_IO_MAP, &offset, 2, cpu_system_class(c));
	uint32_t at = offset + port / 8u;
	if (at + 1 > tr->limit)
		return false;
	lin_read(c, tr->base + at, &bits, 2, cpu_system_class(c));
	return !(bits >> (port & 7) & ((1u << size) - 1));
}

/* Breakpoints on ports: type 10 of DR7 with CR4.DE (SDM 17.2.4). They trap after the access; a
 * repeated instruction stops there. */
static void watch_port(struct soft_cpu *c, uint16_t port, unsigned size)
{
	static const uint8_t len[] = {1, 2, 8, 4};

	for (unsigned n = 0; n < 4; n++) {
		unsigned type = c->s.dr7 >> (16 + 4 * n) & 3;
		uint64_t bytes = len[c->s.dr7 >> (18 + 4 * n) & 3];
		uint64_t first = c->s.dr[n] & ~(bytes - 1);
		if (type == 2 && (c->s.dr7 >> (2 * n) & 3) && port + size > first &&
		    port < first + bytes) {
			c->pending_dr6 |= UINT64_C(1) << n;
			c->break_block = true;
		}
	}
}

void cpu_check_io(struct soft_cpu *c, uint16_t port, unsigned size)
{
	bool by_bitmap = in_v86_mode(c) || (in_protected_mode(c) && c->cpl > cpu_iopl(c));

	if (by_bitmap && !bitmap_allows(c, port, size))
		cpu_gp0(c);
	if (unlikely((c->s.cr4 & CR4_DE) && (c->s.dr7 & 0xff)))
		watch_port(c, port, size);
}

void cpu_set_flags(struct soft_cpu *c, uint64_t value, uint64_t mask)
{
	uint64_t old = c->s.rflags;

	mask &= FLAGS_EXISTING;
	c->s.rflags = (old & FLAGS_EXISTING & ~mask) | (value & mask) | FLAG_R1;
	if ((old ^ c->s.rflags) & (FLAG_TF | FLAG_VM | FLAG_AC | FLAG_RF))
		cpu_update_mode(c);
}

static void need_iopl_in_v86(struct soft_cpu *c)
{
	if (in_v86_mode(c) && cpu_iopl(c) < 3)
		cpu_gp0(c);
}

static void op_pushf(struct soft_cpu *c, const struct insn *i)
{
	need_iopl_in_v86(c);
	cpu_push(c, c->s.rflags & ~(FLAG_VM | FLAG_RF), i->width);
}

static void op_popf(struct soft_cpu *c, const struct insn *i)
{
	uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;

	need_iopl_in_v86(c);
	if (i->width > 2)
		mask |= FLAG_AC | FLAG_ID;
	if (c->cpl <= cpu_iopl(c))
		mask |= FLAG_IF;
	if (c->cpl == 0)
		mask |= FLAG_IOPL;
	uint64_t flags = cpu_pop(c, i->width);
	if (i->width > 2) {
		/* RF reads as 0 from the image and is cleared. */
		flags &= ~FLAG_RF;
		mask |= FLAG_RF;
	}
	cpu_set_flags(c, flags, mask);
}

static void need_iopl(struct soft_cpu *c)
{
	if ((c->s.cr0 & CR0_PE) && c->cpl > cpu_iopl(c))
		cpu_gp0(c);
}

static void op_cli(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	need_iopl(c);
	c->s.rflags &= ~FLAG_IF;
}

/* Interrupts stay blocked for one instruction, when they were before. */
static void op_sti(struct soft_cpu *c, const struct insn *i)
{
	(void)i;
	need_iopl(c);
	if (!(c->s.rflags & FLAG_IF))
		c->s.shadow = SHADOW_STI;
	c->s.rflags |= FLAG_IF;
}

op_fn *flags_select(const struct decoded *d, struct insn *i)
{
	switch (d->z.mnemonic) {
	case ZYDIS_MNEMONIC_PUSHF:
	case ZYDIS_MNEMONIC_PUSHFD:
	case ZYDIS_MNEMONIC_PUSHFQ:
		return op_pushf;
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
		i->flags |= INSN_END;
		return op_popf;
	case ZYDIS_MNEMONIC_CLI:
		i->flags |= INSN_END;
		return op_cli;
	case ZYDIS_MNEMONIC_STI:
		i->flags |= INSN_END;
		return op_sti;
	default:
		return NULL;
	}
}

op_fn *sys_far_select(const struct decoded *d, struct insn *i)
{
	static op_fn *(*const part[])(const struct decoded *, struct insn *) = {
		seg_select,  segtable_select, far_select,   int_select,
		iret_select, syscall_select,  flags_select,
	};

	for (unsigned k = 0; k < sizeof(part) / sizeof(part[0]); k++) {
		op_fn *fn = part[k](d, i);
		if (fn)
			return fn;
	}
	return NULL;
}
