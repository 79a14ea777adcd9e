/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "truth.h"

/* A case in the making. */
struct build {
	struct rng r;
	struct tcase *t;
	const struct iform *f; /* the instruction at hand */
	unsigned at;	       /* where it is in t->code */
	unsigned slot;	       /* the next free patch */
	uint32_t aimed;	       /* registers that earlier instructions use for addresses, a mask */
	uint32_t now;	       /* those of this one */
	bool gentle;	       /* part of a sequence: few faults */
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

/* ---- encoding ---- */

static unsigned put_prefixes(struct rng *r, const struct iform *f, uint8_t *b)
{
	static const uint8_t segs[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
	unsigned n = 0;

	/* FS and GS are null selectors in 32-bit code. */
	if (rng_percent(r, 6))
		b[n++] = segs[rng_below(r, f->mode32 ? 4 : 6)];
	if (!f->mode32 && rng_percent(r, 5))
		b[n++] = 0x67;
	if (f->lockable && rng_percent(r, 30))
		b[n++] = 0xf0;
	return n;
}

static unsigned put_legacy_opcode(struct rng *r, const struct iform *f, uint8_t *b)
{
	unsigned n = 0;

	if (f->opsize)
		b[n++] = 0x66;
	if (f->rep)
		b[n++] = f->rep;
	if (!f->mode32 && (f->w || rng_percent(r, 50))) {
		uint8_t rex = 0x40 | f->w << 3;
		if (f->reg_free)
			rex |= rng_next(r) & 4;
		if (f->memory || f->rm_free || !f->has_modrm)
			rex |= rng_next(r) & 3;
		b[n++] = rex;
	}
	if (f->map)
		b[n++] = 0x0f;
	if (f->map >= 2)
		b[n++] = f->map == 2 ? 0x38 : 0x3a;
	b[n++] = f->opcode;
	return n;
}

static unsigned put_vex_opcode(struct rng *r, const struct iform *f, uint8_t *b)
{
	uint8_t vvvv = f->vvvv_free ? (uint8_t)(rng_next(r) & 15) : 0;
	uint8_t rxb = f->mode32 ? 0xe0 : (uint8_t)(rng_next(r) & 0xe0);
	unsigned n = 0;

	if (f->mode32)
		vvvv &= 7;
	if (!f->reg_free)
		rxb |= 0x80;
	if (f->map == 1 && !f->w && (rxb & 0x60) == 0x60 && rng_percent(r, 50)) {
		b[n++] = 0xc5;
		b[n++] = (rxb & 0x80) | (~vvvv & 0xf) << 3 | f->l << 2 | f->pp;
	} else {
		b[n++] = 0xc4;
		b[n++] = rxb | f->map;
		b[n++] = f->w << 7 | (~vvvv & 0xf) << 3 | f->l << 2 | f->pp;
	}
	b[n++] = f->opcode;
	return n;
}

static unsigned put_modrm(struct rng *r, const struct iform *f, uint8_t *b)
{
	uint8_t reg = f->reg_free ? (uint8_t)rng_below(r, 8) : f->reg;
	unsigned n = 0;

	if (!f->memory) {
		b[n++] = 0xc0 | reg << 3 | (f->rm_free ? (uint8_t)rng_below(r, 8) : f->rm);
		return n;
	}
	uint8_t mod = (uint8_t)rng_below(r, 3);
	uint8_t rm = f->vsib ? 4 : (uint8_t)rng_below(r, 8);
	b[n++] = mod << 6 | reg << 3 | rm;
	if (rm == 4)
		b[n++] = (uint8_t)rng_next(r);
	return n; /* the displacement follows: zero until it is known what for */
}

static bool encode(struct build *b)
{
	const struct iform *f = b->f;
	struct rng *r = &b->r;
	uint8_t code[32] = {0};
	unsigned n = f->encoding == ENC_VEX && rng_percent(r, 90) ? 0 : put_prefixes(r, f, code);

	n += f->encoding == ENC_VEX ? put_vex_opcode(r, f, code + n)
				    : put_legacy_opcode(r, f, code + n);
	if (f->has_modrm)
		n += put_modrm(r, f, code + n);
	if (!ZYAN_SUCCESS(
		    ZydisDecoderDecodeFull(forms_decoder(f->mode32), code, 15, &b->z, b->op)) ||
	    b->z.mnemonic != f->mnemonic)
		return false;
	memcpy(b->t->code + b->at, code, 15);
	return true;
}

/* ---- addresses ---- */

enum { NOWHERE = 0x60000000 };

/* Where an access of `bytes` bytes may go: mostly well inside the writable pages. */
static uint64_t some_target(struct build *b, unsigned bytes, bool locked)
{
	struct rng *r = &b->r;
	uint64_t cross = bytes > 1 ? 1 + rng_below(r, bytes - 1) : 0;
	uint64_t inside = DATA_BASE + 64 * (2 + rng_below(r, DATA_RW_BYTES / 64 - 16));
	uint64_t kind = rng_below(r, b->gentle && !rng_percent(r, 10) ? 84 : 100);

	if (kind < 60 || (locked && kind < 84)) /* locked ones do not cross cache lines */
		return inside;
	if (kind < 76)
		return inside + rng_below(r, 64);
	if (kind < 84)
		return DATA_BASE + PAGE - cross;
	if (kind < 88)
		return DATA_BASE + DATA_RW_BYTES - (locked ? 0 : cross);
	if (kind < 91)
		return DATA_BASE + DATA_RW_BYTES + 64 * rng_below(r, 48);
	if (kind < 94)
		return DATA_BASE + DATA_BYTES - (locked ? 0 : cross);
	if (kind < 96)
		return DATA_BASE - (locked ? 64 : cross);
	if (kind < 99)
		return NOWHERE + rng_below(r, 4096);
	return UINT64_C(0x0000800000000000) + (rng_next(r) >> 2); /* not canonical, mostly */
}

static int full_register(ZydisRegister r)
{
	if (r == ZYDIS_REGISTER_NONE || r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP)
		return -1;
	return ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r));
}

/* Zydis 4.0 names a base of R13D where SIB says that there is none. */
static bool without_base(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	return op->mem.base == ZYDIS_REGISTER_NONE ||
	       ((z->attributes & ZYDIS_ATTRIB_HAS_SIB) && z->raw.modrm.mod == 0 &&
		z->raw.sib.base == 5 && op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN);
}

/* Chooses the operand's own displacement, which does all where there is no register; the rest of
 * the way is the result. */
static uint64_t aim_displacement(struct build *b, const ZydisDecodedOperand *op, int base,
				 int index, uint64_t at)
{
	const ZydisDecodedInstruction *z = &b->z;
	uint8_t *to = b->t->code + b->at + z->raw.disp.offset;
	uint64_t disp = 0;

	if (z->raw.disp.size == 8) {
		int8_t small = (int8_t)rng_next(&b->r);
		disp = (uint64_t)(int64_t)small;
	} else if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP) {
		disp = at - (CODE_BASE + b->t->code_offset + b->at + z->length);
	} else if (base >= 0) {
		int32_t any = (int32_t)rng_next(&b->r);
		bool far = !(b->aimed >> base & 1) && rng_percent(&b->r, 30) && any < CODE_BASE;
		disp = far ? (uint64_t)(int64_t)any : rng_below(&b->r, b->aimed ? 64 : 4096);
	} else {
		if (index >= 0 && !(b->aimed >> index & 1))
			b->t->gpr[index] = rng_below(&b->r, 64);
		disp = index < 0 ? at : at - b->t->gpr[index] * op->mem.scale;
	}
	memcpy(to, &disp, z->raw.disp.size / 8);
	if (z->raw.disp.size == 32)
		disp = (uint64_t)(int64_t)(int32_t)disp;
	return at - disp;
}

/* Makes the operand land on target, or near: by its registers, unless earlier instructions need those.
 * Where it lands, as far as that can be told. */
static uint64_t aim(struct build *b, const ZydisDecodedOperand *op, uint64_t target)
{
	const ZydisDecodedInstruction *z = &b->z;
	struct tcase *t = b->t;
	uint64_t mask = z->address_width == 64	 ? UINT64_MAX
			: z->address_width == 32 ? UINT32_MAX
						 : 0xffff;
	bool no_base = without_base(z, op);
	int base = no_base ? -1 : full_register(op->mem.base), index = -1;

	if (op->mem.type != ZYDIS_MEMOP_TYPE_VSIB)
		index = full_register(op->mem.index);
	if (base < 0)
		target = (uint32_t)target == target ? target : NOWHERE;
	uint64_t wanted = target;
	if (!t->mode32 && op->mem.segment == ZYDIS_REGISTER_FS)
		target -= FS_BASE;
	if (!t->mode32 && op->mem.segment == ZYDIS_REGISTER_GS)
		target -= GS_BASE;
	if (z->raw.disp.size && op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
		target = aim_displacement(b, op, base, index, target);
	if (base < 0 || (b->aimed >> base & 1))
		return wanted;
	if (index >= 0 && index != base) {
		if (!(b->aimed >> index & 1) && (t->mode32 || rng_percent(&b->r, 70)))
			t->gpr[index] &= 0xffff;
		target -= t->gpr[index] * op->mem.scale;
	} else if (index == base) {
		wanted -= target % (1 + op->mem.scale);
		target /= 1 + op->mem.scale;
	}
	t->gpr[base] = (target & mask) | (t->mode32 ? 0 : rng_next(&b->r) & ~mask);
	b->now |= 1u << base | (index >= 0 ? 1u << index : 0);
	return wanted;
}

/* Values in memory where an operand is. */
static void plant(struct build *b, uint64_t target, unsigned bytes)
{
	struct rng *r = &b->r;
	struct patch *p = &b->t->patch[b->slot];
	uint64_t at = target - DATA_BASE;

	if (b->slot == PATCHES)
		return;
	b->slot++;
	if (at >= DATA_BYTES)
		return;
	p->offset = (uint32_t)at;
	p->bytes = bytes && bytes < PATCH_BYTES ? bytes : PATCH_BYTES;
	if (p->bytes > DATA_BYTES - at)
		p->bytes = (uint32_t)(DATA_BYTES - at);
	for (unsigned k = 0; k < PATCH_BYTES; k += 16)
		some_vector(r, p->data + k);
	if (bytes == 10) /* x87: extended reals, or decimals */
		some_extended(r, p->data);
	if (bytes == 10 && rng_percent(r, 30))
		for (unsigned k = 0; k < 9; k++)
			p->data[k] = (uint8_t)(rng_below(r, 10) | rng_below(r, 10) << 4);
	if (bytes == 4 && rng_percent(r, 50)) {
		uint32_t v = (uint32_t)some_int(r);
		memcpy(p->data, &v, 4);
	}
	if (bytes == 8 && rng_percent(r, 50)) {
		uint64_t v = some_int(r);
		memcpy(p->data, &v, 8);
	}
}

static bool quad_indices(uint16_t mnemonic)
{
	return mnemonic == ZYDIS_MNEMONIC_VGATHERQPS || mnemonic == ZYDIS_MNEMONIC_VGATHERQPD ||
	       mnemonic == ZYDIS_MNEMONIC_VPGATHERQD || mnemonic == ZYDIS_MNEMONIC_VPGATHERQQ;
}

/* Gather indices that stay near the base. */
static void plant_indices(struct build *b, const ZydisDecodedOperand *op)
{
	struct rng *r = &b->r;
	struct tcase *t = b->t;
	int n = ZydisRegisterGetId(op->mem.index);
	uint8_t v[32];

	for (unsigned k = 0; k < 8; k++) {
		unsigned range = rng_percent(r, 4) ? 4096 : 256;
		int64_t index = (int64_t)rng_below(r, range) - range / 2;
		if (quad_indices(b->f->mnemonic))
			memcpy(v + 8 * (k & 3), &index, 8);
		else
			memcpy(v + 4 * k, &index, 4);
	}
	memcpy(t->fx + 160 + 16 * n, v, 16);
	memcpy(t->ymmh + 16 * n, v + 16, 16);
}

/* ---- operands that need sense ---- */

/* Sets a register unless an address needs it. */
static void set_gpr(struct build *b, int n, uint64_t v)
{
	if (n >= 0 && !((b->aimed | b->now) >> n & 1))
		b->t->gpr[n] = v;
}

/* A bit offset in a register goes far beyond the operand. */
static void sensible_bit_offset(struct build *b)
{
	const ZydisDecodedOperand *op = b->op;
	uint64_t v = (uint64_t)((int64_t)rng_below(&b->r, 4096) - 2048);

	if (!b->f->memory || op[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
		return;
	if (op[1].size < 64 && rng_percent(&b->r, 50)) /* only the operand's bits count */
		v = (v & ((UINT64_C(1) << op[1].size) - 1)) | rng_next(&b->r) << op[1].size;
	set_gpr(b, full_register(op[1].reg.value), v);
}

static void make_sense(struct build *b)
{
	struct tcase *t = b->t;
	struct rng *r = &b->r;
	uint8_t *data = t->patch[0].data;
	bool half = rng_percent(r, 50);

	switch (b->f->mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		sensible_bit_offset(b);
		break;
	case ZYDIS_MNEMONIC_DIV:
	case ZYDIS_MNEMONIC_IDIV:
		if (b->gentle || rng_percent(r, 60))
			set_gpr(b, 2, half ? 0 : (uint64_t)((int64_t)t->gpr[0] >> 63));
		if (b->op[0].size == 8 && rng_percent(r, 50))
			set_gpr(b, 0, rng_below(r, 2000));
		break;
	case ZYDIS_MNEMONIC_CMPXCHG:
		if (half)
			memcpy(data, &t->gpr[0], 8);
		break;
	case ZYDIS_MNEMONIC_CMPXCHG8B:
	case ZYDIS_MNEMONIC_CMPXCHG16B:
		if (half) {
			unsigned size = b->op[0].size / 16;
			memcpy(data, &t->gpr[0], size);
			memcpy(data + size, &t->gpr[2], size);
		}
		break;
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
		memcpy(data, t->fx, 24);
		data[26] = data[27] = 0;
		data[3] &= 0x7f; /* no exception pending */
		data[2] = 0;
		break;
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR: {
		uint32_t v = (uint32_t)rng_next(r) & 0xffff;
		if (rng_percent(r, 10))
			v |= 1u << (18 + rng_below(r, 14)); /* 17 is AMD's own */
		memcpy(data, &v, 4);
		break;
	}
	default:
		break;
	}
	if (b->f->string && (b->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
						ZYDIS_ATTRIB_HAS_REPNE))) {
		uint64_t count = rng_percent(r, 90) ? rng_below(r, 12) : rng_below(r, 3000);
		bool dword = b->z.address_width == 32 && !t->mode32;
		set_gpr(b, 1, dword ? count | rng_next(r) << 32 : count);
		b->now |= 1u << 1;
	}
}

/* Jump targets in the code pages. */
static uint64_t some_code(struct rng *r)
{
	return CODE_BASE + rng_below(r, CODE_BYTES);
}

static void plant_target(struct build *b)
{
	struct tcase *t = b->t;
	uint64_t to = some_code(&b->r);

	if (b->gentle) /* behind the sequence, so that it ends */
		to = CODE_BASE + PAGE + 1024 + rng_below(&b->r, 1024);
	if (!t->mode32 && rng_percent(&b->r, 3)) /* not canonical */
		to |= UINT64_C(1) << (48 + rng_below(&b->r, 15));
	for (unsigned k = 0; k < PATCHES; k++)
		memcpy(t->patch[k].data, &to, 8);
	if (b->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && !b->f->memory)
		set_gpr(b, full_register(b->op[0].reg.value), to);
}

static void make_immediates(struct build *b)
{
	struct rng *r = &b->r;

	for (unsigned k = 0; k < 2; k++) {
		uint64_t v = some_int(r);
		unsigned size = b->z.raw.imm[k].size;
		if (!size)
			continue;
		if (b->z.raw.imm[k].is_relative)
			v = b->gentle ? rng_below(r, 100)
				      : (uint64_t)((int64_t)rng_below(r, 200) - 100);
		else if (size == 8)
			v = rng_next(r);
		if (b->f->mnemonic == ZYDIS_MNEMONIC_ENTER)
			v = k == 0 ? rng_below(r, 256) : rng_below(r, 40);
		memcpy(b->t->code + b->at + b->z.raw.imm[k].offset, &v, size / 8);
	}
}

static void make_operands(struct build *b)
{
	const ZydisDecodedInstruction *z = &b->z;
	bool locked = z->attributes & ZYDIS_ATTRIB_HAS_LOCK ||
		      b->f->mnemonic == ZYDIS_MNEMONIC_XCHG;

	/* Hidden operands first: an explicit one may use the same register and then decides. */
	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned k = 0; k < z->operand_count; k++) {
			const ZydisDecodedOperand *op = &b->op[k];
			bool hidden = op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
			if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || hidden != (pass == 0) ||
			    op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
				continue;
			uint64_t target = some_target(b, op->size / 8, locked);
			if (z->address_width == 32)
				target = (uint32_t)target;
			if (target == (uint32_t)target && target > 0x70000000)
				target = NOWHERE;
			if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
				plant_indices(b, op);
			target = aim(b, op, target);
			plant(b, target, op->size / 8);
			if ((b->f->mnemonic == ZYDIS_MNEMONIC_FXSAVE ||
			     b->f->mnemonic == ZYDIS_MNEMONIC_FXSAVE64) &&
			    target - DATA_BASE < DATA_BYTES)
				b->t->fxsave_at = (int32_t)(target - DATA_BASE);
		}
	}
	if (b->f->mnemonic == ZYDIS_MNEMONIC_LEAVE || b->f->mnemonic == ZYDIS_MNEMONIC_ENTER) {
		uint64_t target = some_target(b, 8, false);
		set_gpr(b, 5, target);
		plant(b, target, 8);
	}
	if (b->f->mnemonic == ZYDIS_MNEMONIC_XLAT)
		set_gpr(b, 3, some_target(b, 1, false));
}

/* ---- whole cases ---- */

static void place(struct build *b)
{
	struct tcase *t = b->t;
	unsigned length = b->z.length;

	t->code_offset = (uint16_t)(512 + rng_below(&b->r, PAGE - 1024));
	/* How much of UD0 and UD1 is fetched before they fault differs among processors. */
	if (b->f->branch || b->f->mnemonic == ZYDIS_MNEMONIC_UD0 ||
	    b->f->mnemonic == ZYDIS_MNEMONIC_UD1 || !rng_percent(&b->r, 3))
		return;
	t->code_offset = (uint16_t)(PAGE - 1 - rng_below(&b->r, length)); /* into the next page */
	if (rng_percent(&b->r, 40) && length > 1 && !b->gentle)		  /* into nothing */
		t->code_offset = (uint16_t)(CODE_BYTES - 1 - rng_below(&b->r, length - 1));
}

static void make_registers(struct build *b)
{
	struct tcase *t = b->t;
	struct rng *r = &b->r;

	make_x87(r, t);
	make_vectors(r, t);
	for (unsigned n = 0; n < 16; n++)
		t->gpr[n] = t->mode32 ? (n < 8 ? (uint32_t)some_int(r) : 0) : some_int(r);
	t->rflags = 0x202 | (rng_next(r) & 0x8d5);
	if (rng_percent(r, 20))
		t->rflags |= 0x400; /* DF */
	if (rng_percent(r, b->gentle ? 1 : 5))
		t->rflags |= 0x40000; /* AC */
	if (t->step)
		t->rflags |= 0x100;
}

static bool encode_some(struct build *b)
{
	for (unsigned k = 0; k < 20; k++)
		if (encode(b))
			return true;
	return false;
}

/* The operands of the instruction just encoded. */
static void fill_in(struct build *b)
{
	b->now = 0;
	make_immediates(b);
	make_operands(b);
	make_sense(b);
	if (b->f->branch)
		plant_target(b);
	b->aimed |= b->now;
	b->at += b->z.length;
	b->t->length = (uint8_t)b->at;
}

/*
 * More instructions behind the first: of its mode, without those whose undefined results would go on
 * into the next; a branch may be the last. Registers that address memory keep doing that.
 */
static void add_more(struct build *b, unsigned forms, unsigned length)
{
	for (unsigned k = 1; k < length && !b->f->branch; k++) {
		do
			b->f = form_at((unsigned)rng_below(&b->r, forms));
		while (b->f->mode32 != b->t->mode32 || !b->f->plain ||
		       (b->f->branch && k + 1 < length));
		if (encode_some(b))
			fill_in(b);
	}
}

/*
 * Instructions on AVX-512's mask registers, which no CPUID of ours offers: AMD's processors ignore
 * the bits that would name a register past K7, where the decoder refuses them.
 */
static bool is_opmask(uint8_t opcode)
{
	return (opcode >= 0x41 && opcode <= 0x4b) || (opcode >= 0x90 && opcode <= 0x93) ||
	       opcode == 0x98 || opcode == 0x99;
}

/*
 * Bytes that the decoder refuses but a processor may not: AMD's LOCK MOV CR0, which is MOV CR8 (no
 * CPUID of ours offers it); what is near VMCALL, since the child may be in a virtual machine itself;
 * AMD's VPERMQ and VPERMPD, which are there with W clear, too; mask registers; and what hosts emulate that are
 * virtual machines themselves, VERW for one, which PVM does with LOCK, too.
 */
static bool left_out(const uint8_t *code)
{
	for (unsigned k = 0; k < 2; k++) { /* behind a prefix, too */
		const uint8_t *vex = code + k;
		if (vex[0] == 0xc4 && (vex[1] & 0x1f) == 3 && vex[3] <= 1)
			return true;
		if ((vex[0] == 0xc4 && (vex[1] & 0x1f) == 1 && is_opmask(vex[3])) ||
		    (vex[0] == 0xc5 && is_opmask(vex[2])))
			return true;
	}
	for (unsigned k = 0; k < 4; k++)
		if (code[k] == 0x0f && (code[k + 1] <= 1 || (code[k + 1] & 0xfd) == 0x20))
			return true;
	return false;
}

/*
 * Bytes that are no instruction: one with a byte changed or a prefix too many, as long as the decoder
 * refuses it for good.
 */
static bool make_junk(struct build *b, unsigned forms)
{
	static const uint8_t prefixes[] = {0xf0, 0x66, 0xf2, 0xf3, 0x48, 0x2e};
	uint8_t code[32];

	for (unsigned tries = 0; tries < 200; tries++) {
		do
			b->f = form_at((unsigned)rng_below(&b->r, forms));
		while (b->f->junk || b->f->mode32 != b->t->mode32);
		if (!encode(b))
			continue;
		unsigned shift = 0;
		memset(code, 0, sizeof(code));
		if (rng_percent(&b->r, 60))
			code[shift++] = prefixes[rng_below(&b->r, b->t->mode32 ? 4 : 6)];
		if (rng_percent(&b->r, 3))
			while (shift < 14)
				code[shift++] = 0x66;
		memcpy(code + shift, b->t->code, 15);
		if (!shift)
			code[rng_below(&b->r, b->z.length)] = (uint8_t)rng_next(&b->r);
		ZyanStatus st =
			ZydisDecoderDecodeFull(forms_decoder(b->t->mode32), code, 15, &b->z, b->op);
		if (ZYAN_SUCCESS(st) || left_out(code))
			continue;
		memcpy(b->t->code, code, 15);
		b->t->length = 15;
		b->t->code_offset = 512;
		return true;
	}
	return false;
}

bool case_make(struct tcase *t, uint64_t seed, uint64_t number, unsigned forms, unsigned length)
{
	struct build b = {.t = t, .gentle = length > 1};

	memset(t, 0, sizeof(*t));
	t->number = number;
	t->instructions = (uint8_t)length;
	t->fxsave_at = -1;
	t->form = (uint32_t)(number % forms);
	b.f = form_at(t->form);
	t->mode32 = b.f->mode32;
	rng_init(&b.r, seed, number);
	if (b.f->junk)
		return make_junk(&b, forms) && (make_registers(&b), true);
	if ((length > 1 && !b.f->plain) || !encode_some(&b))
		return false;
	t->step = length == 1 && (b.f->branch || rng_percent(&b.r, b.f->string ? 25 : 60));
	place(&b);
	make_registers(&b);
	fill_in(&b);
	add_more(&b, forms, length);
	if (t->mode32)
		for (unsigned n = 0; n < 16; n++)
			t->gpr[n] = n < 8 ? (uint32_t)t->gpr[n] : 0;
	return true;
}
