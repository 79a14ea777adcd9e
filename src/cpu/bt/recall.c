/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/bt/translate.h"

/*
 * Programs say the same few thousand things over and over: what decoding and classifying an instruction
 * gave is kept, and found again by its bytes without those of its displacement and its immediate, which
 * are all that differs. Decoding is the dearest part of translating; this makes it a look-up.
 *
 * For that the lengths of 64-bit code have to be known, which takes the bytes up to SIB and no more. So
 * two instructions with the same key have the same parts, and an entry is kept only if the decoder
 * found the parts where they are looked for here: what this does not know, or takes for something else,
 * is decoded every time.
 */
/* What follows an opcode (SDM Vol. 2, appendix A). */
enum {
	MODRM = 1,
	IMM8 = 2,
	IMM_WORD = 4,  /* four bytes, two with an operand size prefix */
	IMM_WIDE = 8,  /* eight bytes with REX.W */
	RELATIVE = 16, /* four bytes; the prefix may matter or not */
	COUNTS = 32,   /* the immediate decides what is done */
	GROUP3 = 64,   /* an immediate if ModRM.reg is 0 or 1 */
	UNKNOWN = 128, /* rare, invalid, or an escape */
};

static uint8_t one_byte(uint8_t op)
{
	if (op < 0x40)
		return (op & 7) < 4    ? MODRM
		       : (op & 7) == 4 ? IMM8
		       : (op & 7) == 5 ? IMM_WORD
				       : UNKNOWN;
	switch (op) {
	case 0x50 ... 0x5f: /* PUSH, POP */
	case 0x90 ... 0x99:
	case 0x9c ... 0x9f:
	case 0xa4 ... 0xa7: /* strings */
	case 0xaa ... 0xaf:
	case 0xc3: /* RET */
	case 0xc9: /* LEAVE */
	case 0xf5:
	case 0xf8 ... 0xfd:
		return 0;
	case 0x63: /* MOVSXD */
	case 0x84 ... 0x8e:
	case 0xd0 ... 0xd3:
	case 0xd8 ... 0xdf: /* x87 */
	case 0xfe:
	case 0xff:
		return MODRM;
	case 0x6a:
	case 0x70 ... 0x7f: /* Jcc */
	case 0xa8:
	case 0xb0 ... 0xb7:
	case 0xeb:
		return IMM8;
	case 0x68:
	case 0xa9:
		return IMM_WORD;
	case 0xb8 ... 0xbf:
		return IMM_WIDE;
	case 0x69:
	case 0x81:
	case 0xc7:
		return MODRM | IMM_WORD;
	case 0x6b:
	case 0x80:
	case 0x83:
	case 0xc6:
		return MODRM | IMM8;
	case 0xc0: /* shifts */
	case 0xc1:
		return MODRM | IMM8 | COUNTS;
	case 0xe8:
	case 0xe9:
		return RELATIVE;
	case 0xf6:
		return MODRM | IMM8 | GROUP3;
	case 0xf7:
		return MODRM | IMM_WORD | GROUP3;
	default:
		return UNKNOWN;
	}
}

static uint8_t two_bytes(uint8_t op)
{
	switch (op) {
	case 0x05: /* SYSCALL */
	case 0x0b:
	case 0x31:	    /* RDTSC */
	case 0x77:	    /* EMMS, VZEROUPPER */
	case 0xa2:	    /* CPUID */
	case 0xc8 ... 0xcf: /* BSWAP */
		return 0;
	case 0x0d: /* prefetches and NOPs */
	case 0x10 ... 0x19:
	case 0x1f:
	case 0x28 ... 0x2f:
	case 0x40 ... 0x6f: /* CMOVcc; vectors */
	case 0x74 ... 0x76:
	case 0x7c ... 0x7f:
	case 0x90 ... 0x9f: /* SETcc */
	case 0xa3:
	case 0xa5:
	case 0xab:
	case 0xad:
	case 0xaf ... 0xb1:
	case 0xb3:
	case 0xb6 ... 0xb8:
	case 0xbb ... 0xc1:
	case 0xd0 ... 0xfe:
		return MODRM;
	case 0x70 ... 0x73:
	case 0xa4:
	case 0xac:
	case 0xba:
	case 0xc2:
	case 0xc4 ... 0xc6:
		return MODRM | IMM8 | COUNTS;
	case 0x80 ... 0x8f: /* Jcc */
		return RELATIVE;
	default:
		return UNKNOWN;
	}
}

/* The opcode's map and what follows it; at is left behind it. */
static uint8_t opcode_at(const uint8_t *b, unsigned *at, bool prefixed)
{
	unsigned map = 0;

	if ((b[*at] == 0xc5 || b[*at] == 0xc4) && prefixed)
		return UNKNOWN;
	if (b[*at] == 0xc5) {
		map = 1;
		*at += 2;
	} else if (b[*at] == 0xc4) {
		map = b[*at + 1] & 0x1f;
		*at += 3;
	} else if (b[*at] == 0x0f) {
		map = b[*at + 1] == 0x38 ? 2 : b[*at + 1] == 0x3a ? 3 : 1;
		*at += map == 1 ? 1 : 2;
	}
	const uint8_t op = b[(*at)++];
	switch (map) {
	case 0:
		return one_byte(op);
	case 1:
		return two_bytes(op);
	case 2:
		return MODRM;
	case 3:
		return MODRM | IMM8 | COUNTS;
	default:
		return UNKNOWN;
	}
}

/* Reads RECALL_BYTES at most. */
static void find_parts(const uint8_t *b, struct insn_parts *p)
{
	enum { PREFIXES = 4 };
	bool narrow = false, wide = false;
	unsigned at = 0;

	*p = (struct insn_parts){0};
	for (; at < PREFIXES; at++) {
		if (b[at] == 0x66)
			narrow = true;
		else if (b[at] != 0xf0 && b[at] != 0xf2 && b[at] != 0xf3 && b[at] != 0x2e &&
			 b[at] != 0x3e && b[at] != 0x64 && b[at] != 0x65)
			break;
	}
	if ((b[at] & 0xf0) == 0x40) /* REX */
		wide = b[at++] & 8;
	const uint8_t follows = opcode_at(b, &at, at > 0);
	if (follows & UNKNOWN || ((follows & RELATIVE) && narrow))
		return;
	bool imm = !(follows & GROUP3);
	if (follows & MODRM) {
		const uint8_t modrm = b[at++], mod = modrm >> 6, rm = modrm & 7;
		unsigned base = rm;
		if (mod != 3 && rm == 4)
			base = b[at++] & 7;
		p->disp_at = (uint8_t)at;
		p->disp_bytes = mod == 1 ? 1 : mod == 2 || (mod == 0 && base == 5) ? 4 : 0;
		at += p->disp_bytes;
		imm = imm || (modrm & 0x30) == 0;
	}
	unsigned bytes = 0;
	if (follows & IMM8)
		bytes = 1;
	else if (follows & IMM_WORD)
		bytes = narrow && !wide ? 2 : 4;
	else if (follows & IMM_WIDE)
		bytes = wide ? 8 : narrow ? 2 : 4;
	else if (follows & RELATIVE)
		bytes = 4;
	if (imm && bytes) {
		p->imm_at = (uint8_t)at;
		p->imm_bytes = (uint8_t)bytes;
		p->imm_counts = follows & COUNTS;
		at += bytes;
	}
	p->length = at <= 15 ? (uint8_t)at : 0;
}

/* ---- the table ---- */

typedef unsigned __int128 bits128;

static bits128 low_bytes(unsigned n)
{
	return n < 16 ? ((bits128)1 << 8 * n) - 1 : ~(bits128)0;
}

static bits128 key_of(const uint8_t *bytes, const struct insn_parts *p)
{
	bits128 v;

	memcpy(&v, bytes, sizeof(v));
	v &= low_bytes(p->length);
	v &= ~(low_bytes(p->disp_bytes) << 8 * p->disp_at);
	if (!p->imm_counts)
		v &= ~(low_bytes(p->imm_bytes) << 8 * p->imm_at);
	return v;
}

/* What of the mode the decoder and classify() look at. */
static uint16_t mode_of(const struct trans *t)
{
	return t->key &
	       (MODE_KEY_VALID | MODE_KEY_64 | MODE_KEY_CPL0 | MODE_KEY_SSE | MODE_KEY_AVX |
		MODE_KEY_FS | MODE_KEY_GS | MODE_KEY_SMAP | MODE_KEY_TSD | MODE_KEY_X87);
}

/* The first of the two that the key may be in. */
static struct recalled *slot_of(struct trans *t, bits128 key)
{
	const uint64_t h = ((uint64_t)key ^ mode_of(t)) * UINT64_C(0x9e3779b97f4a7c15) ^
			   (uint64_t)(key >> 64) * UINT64_C(0xc2b2ae3d27d4eb4f);

	return &t->recalled[(h >> 40) % RECALLED & ~UINT64_C(1)];
}

static uint64_t value(const uint8_t *at, unsigned bytes, bool sign)
{
	uint64_t v = 0;

	memcpy(&v, at, bytes);
	const unsigned up = 64 - 8 * bytes;
	return sign ? (uint64_t)((int64_t)(v << up) >> up) : v;
}

/* Does nothing behind it run next? */
static bool goes_away(const uint8_t *bytes)
{
	return bytes[0] == 0xe8 || bytes[0] == 0xe9 || bytes[0] == 0xeb || bytes[0] == 0xc3;
}

unsigned recall_ahead(struct trans *t, const uint8_t *at, unsigned avail)
{
	unsigned n = 0, by = 0;

	while (n < SEEN && avail - by >= RECALL_BYTES) {
		struct seen *s = &t->seen[n++];
		read_once(s->bytes, at + by, sizeof(s->bytes));
		s->parts.length = 0;
		if (t->key & MODE_KEY_64)
			find_parts(s->bytes, &s->parts);
		if (!s->parts.length)
			break;
		s->key = key_of(s->bytes, &s->parts);
		s->slot = slot_of(t, s->key);
		__builtin_prefetch(s->slot);
		by += s->parts.length;
		if (goes_away(s->bytes))
			break;
	}
	return n;
}

bool recall(const struct trans *t, struct item *it, const struct seen *s)
{
	const struct insn_parts *p = &s->parts;
	const struct recalled *r = s->slot;
	const uint16_t mode = mode_of(t);

	if (!p->length)
		return false;
	if (r->key != s->key || r->mode != mode)
		r++;
	if (r->key != s->key || r->mode != mode)
		return false;
	memcpy((uint8_t *)&it->i + INSN_FORM_AT, r->insn, sizeof(r->insn));
	memcpy((uint8_t *)it + ITEM_FORM_AT, r->item, sizeof(r->item));
	it->i.fn = NULL;
	it->i.aux = NULL;
	it->d = NULL;
	memcpy(it->i.bytes, s->bytes, sizeof(it->i.bytes));
	it->i.disp = p->disp_bytes ? (int64_t)value(s->bytes + p->disp_at, p->disp_bytes, true) : 0;
	it->i.imm = p->imm_bytes ? value(s->bytes + p->imm_at, p->imm_bytes, r->imm_signed)
				 : r->imm_implied;
	return true;
}

static const ZydisDecodedOperandImm *immediate(const struct decoded *d)
{
	for (unsigned k = 0; k < d->z.operand_count_visible; k++)
		if (d->op[k].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
			return &d->op[k].imm;
	return NULL;
}

void remember_item(struct trans *t, const struct item *it)
{
	uint8_t bytes[RECALL_BYTES] = {0};
	const ZydisDecodedInstruction *z = &t->d.z;
	struct insn_parts p;

	/* Whose handler, too, depends on what is left out here. */
	if (!(t->key & MODE_KEY_64) || it->kind == KIND_HELPER || it->kind == KIND_HELPER_END)
		return;
	memcpy(bytes, it->i.bytes, it->i.length);
	find_parts(bytes, &p);
	const ZydisDecodedOperandImm *imm = p.imm_bytes ? immediate(&t->d) : NULL;
	if (p.length != it->i.length || z->raw.disp.size != 8 * p.disp_bytes ||
	    (p.disp_bytes && z->raw.disp.offset != p.disp_at) ||
	    (p.disp_bytes ? it->i.disp != (int64_t)value(bytes + p.disp_at, p.disp_bytes, true)
			  : it->i.disp != 0))
		return;
	if (p.imm_bytes ? !imm || z->raw.imm[0].offset != p.imm_at ||
				  z->raw.imm[0].size != 8 * p.imm_bytes || z->raw.imm[1].size ||
				  it->i.imm != value(bytes + p.imm_at, p.imm_bytes, imm->is_signed)
			: it->i.imm > UINT8_MAX)
		return;
	const bits128 key = key_of(bytes, &p);
	struct recalled *r = slot_of(t, key);
	r[1] = r[0]; /* what came before the last goes */
	r->key = key;
	r->mode = mode_of(t);
	r->imm_signed = imm && imm->is_signed;
	r->imm_implied = p.imm_bytes ? 0 : (uint8_t)it->i.imm;
	memcpy(r->insn, (const uint8_t *)&it->i + INSN_FORM_AT, sizeof(r->insn));
	memcpy(r->item, (const uint8_t *)it + ITEM_FORM_AT, sizeof(r->item));
}
