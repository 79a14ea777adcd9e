/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "truth.h"

/* Random numbers, and random values that are often at an edge. */

/* ---- random numbers ---- */

static uint64_t splitmix(uint64_t *x)
{
	uint64_t z = *x += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

void rng_init(struct rng *r, uint64_t seed, uint64_t stream)
{
	uint64_t x = seed * UINT64_C(0xd1342543de82ef95) + stream;

	for (unsigned k = 0; k < 4; k++)
		r->s[k] = splitmix(&x);
}

static uint64_t rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

uint64_t rng_next(struct rng *r)
{
	uint64_t *s = r->s, v = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return v;
}

void rng_fill(struct rng *r, void *buf, unsigned bytes)
{
	uint8_t *to = buf;

	for (unsigned at = 0; at < bytes; at += 8) {
		uint64_t v = rng_next(r);
		memcpy(to + at, &v, bytes - at < 8 ? bytes - at : 8);
	}
}

/* ---- values with edges ---- */

uint64_t some_int(struct rng *r)
{
	static const uint64_t edges[] = {0,
					 1,
					 2,
					 0x7f,
					 0x80,
					 0xff,
					 0x7fff,
					 0x8000,
					 0xffff,
					 0x7fffffff,
					 0x80000000,
					 0xffffffff,
					 0x7fffffffffffffff,
					 0x8000000000000000,
					 0xffffffffffffffff,
					 0xffffffff80000000,
					 0x100000000,
					 0xfffffffffffffffe};

	switch (rng_below(r, 8)) {
	case 0:
	case 1:
		return edges[rng_below(r, sizeof(edges) / 8)];
	case 2:
		return rng_below(r, 70);
	case 3:
		return (uint64_t)0 - rng_below(r, 70);
	case 4:
		return (uint32_t)rng_next(r);
	case 5:
		return UINT64_C(1) << rng_below(r, 64);
	default:
		return rng_next(r);
	}
}

/* A number in a format of e exponent and m fraction bits, often at an edge. */
static uint64_t some_float(struct rng *r, unsigned e, unsigned m)
{
	uint64_t sign = rng_next(r) & 1, emax = (UINT64_C(1) << e) - 1, exp;
	uint64_t frac = rng_next(r) & ((UINT64_C(1) << m) - 1);

	switch (rng_below(r, 10)) {
	case 0: /* zero */
		exp = frac = 0;
		break;
	case 1: /* subnormal */
		exp = 0;
		break;
	case 2: /* infinity */
		exp = emax;
		frac = 0;
		break;
	case 3: /* NaN, quiet or signalling */
		exp = emax;
		frac |= 1;
		break;
	case 4: /* small integers, powers of two */
		exp = emax / 2 + rng_below(r, 6);
		frac &= ~UINT64_C(0) << (m - 2);
		break;
	case 5: /* near overflow */
		exp = emax - 1 - rng_below(r, 3);
		break;
	case 6: /* near underflow */
		exp = 1 + rng_below(r, m < emax ? m : 3);
		break;
	case 7: /* about the size of an integer type's limit */
		exp = emax / 2 + rng_below(r, 66 < emax / 2 ? 66 : emax / 2);
		break;
	default:
		exp = rng_below(r, emax);
		break;
	}
	return sign << (e + m) | exp << m | (frac & ((UINT64_C(1) << m) - 1));
}

/* 16 bytes for a vector register or memory: one kind of element throughout. */
void some_vector(struct rng *r, uint8_t *to)
{
	uint64_t kind = rng_below(r, 8);

	for (unsigned k = 0; k < 2; k++) {
		uint64_t v = 0;
		switch (kind) {
		case 0:
		case 1:
			v = some_float(r, 8, 23) | some_float(r, 8, 23) << 32;
			break;
		case 2:
		case 3:
			v = some_float(r, 11, 52);
			break;
		case 4:
			for (unsigned n = 0; n < 4; n++)
				v |= some_float(r, 5, 10) << (16 * n);
			break;
		case 5:
			v = some_int(r);
			break;
		case 6:
			v = (uint32_t)some_int(r) | some_int(r) << 32;
			break;
		default:
			v = rng_next(r);
			break;
		}
		memcpy(to + 8 * k, &v, 8);
	}
}

/* An 80-bit number: also encodings that no operation makes (SDM Vol. 1, table 8-3). */
void some_extended(struct rng *r, uint8_t *to)
{
	uint64_t m = rng_next(r) | UINT64_C(1) << 63;
	uint16_t e = (uint16_t)rng_below(r, 0x7fff);

	switch (rng_below(r, 12)) {
	case 0:
		m = e = 0;
		break;
	case 1: /* denormal */
		m &= ~(UINT64_C(1) << 63);
		e = 0;
		break;
	case 2: /* infinity */
		m = UINT64_C(1) << 63;
		e = 0x7fff;
		break;
	case 3: /* NaN */
		e = 0x7fff;
		break;
	case 4: /* pseudo-denormal */
		e = 0;
		break;
	case 5: /* unnormal, pseudo-infinity, pseudo-NaN */
		m &= ~(UINT64_C(1) << 63);
		if (rng_percent(r, 30))
			e = 0x7fff;
		break;
	case 6: /* integers */
		e = (uint16_t)(0x3fff + rng_below(r, 66));
		m &= ~UINT64_C(0) << rng_below(r, 64);
		m |= UINT64_C(1) << 63;
		break;
	case 7:
		e = (uint16_t)(0x3fff - 5 + rng_below(r, 10));
		break;
	case 8: /* about the limits of single and double */
		e = (uint16_t)((rng_next(r) & 1 ? 0x3f80 : 0x3c00) - 30 + rng_below(r, 60));
		break;
	case 9:
		e = (uint16_t)((rng_next(r) & 1 ? 0x407e : 0x43fe) - 3 + rng_below(r, 6));
		break;
	default:
		break;
	}
	e |= (uint16_t)(rng_next(r) & 0x8000);
	memcpy(to, &m, 8);
	memcpy(to + 8, &e, 2);
}

static void put16(uint8_t *to, uint16_t v)
{
	memcpy(to, &v, 2);
}

void make_x87(struct rng *r, struct tcase *t)
{
	uint16_t fcw = 0x037f, fsw = (uint16_t)(rng_next(r) & 0x7f00); /* TOP, C0 to C3 */

	if (rng_percent(r, 60)) /* RC, PC */
		fcw = (uint16_t)((fcw & 0xf0ff) | (rng_next(r) & 0x0f00));
	if (rng_percent(r, 30)) /* masks */
		fcw = (uint16_t)((fcw & ~0x3f) | (rng_next(r) & 0x3f));
	if (rng_percent(r, 40)) /* flags, without a pending exception... */
		fsw |= (uint16_t)(rng_next(r) & fcw & 0x3f);
	if (rng_percent(r, 4)) { /* ... or with one */
		uint16_t flag = (uint16_t)(1u << rng_below(r, 6));
		fcw &= (uint16_t)~flag;
		fsw |= flag | 0x8080;
	}
	if ((fsw & 1) && rng_percent(r, 30))
		fsw |= 0x40;
	put16(t->fx, fcw);
	put16(t->fx + 2, fsw);
	t->fx[4] = rng_percent(r, 70) ? 0xff : (uint8_t)rng_next(r);
	if (rng_percent(r, 5))
		t->fx[4] = 0;
	put16(t->fx + 6, (uint16_t)(rng_next(r) & 0x7ff));
	uint64_t fip = (uint32_t)rng_next(r), fdp = (uint32_t)rng_next(r);
	if (host_is_amd() && !(fsw & 0x80)) /* its XRSTOR loads them only then */
		fip = fdp = t->fx[6] = t->fx[7] = 0;
	memcpy(t->fx + 8, &fip, 8);
	memcpy(t->fx + 16, &fdp, 8);
	for (unsigned n = 0; n < 8; n++) {
		uint8_t *st = t->fx + 32 + 16 * n;
		if (rng_percent(r, 20)) { /* an MMX value */
			rng_fill(r, st, 8);
			put16(st + 8, 0xffff);
		} else {
			some_extended(r, st);
		}
	}
}

void make_vectors(struct rng *r, struct tcase *t)
{
	uint32_t mxcsr = 0x1f80 | (uint32_t)(rng_next(r) & 0x3f);

	mxcsr |= (uint32_t)rng_next(r) & 0x6000;
	if (rng_percent(r, 25)) /* DAZ, FZ */
		mxcsr |= (uint32_t)rng_next(r) & 0x8040;
	if (rng_percent(r, 25)) /* masks */
		mxcsr &= 0xe07f | (uint32_t)(rng_next(r) & 0x1f80);
	memcpy(t->fx + 24, &mxcsr, 4);
	for (unsigned n = 0; n < 16; n++) {
		some_vector(r, t->fx + 160 + 16 * n);
		some_vector(r, t->ymmh + 16 * n);
	}
}

/* ---- memory ---- */

void pristine_make(uint8_t *data, uint64_t seed, uint64_t batch)
{
	struct rng r;

	rng_init(&r, ~seed, batch);
	for (unsigned at = 0; at < DATA_BYTES; at += 16)
		some_vector(&r, data + at);
}

void case_apply_patches(const struct tcase *t, uint8_t *data)
{
	for (unsigned k = 0; k < PATCHES; k++)
		memcpy(data + t->patch[k].offset, t->patch[k].data, t->patch[k].bytes);
}

static void clear_bytes(uint8_t *data, uint32_t at, unsigned bytes)
{
	for (; bytes && at < DATA_BYTES; at++, bytes--)
		data[at] = 0;
}

void result_take_memory(struct result *r, const struct tcase *t, uint8_t *data,
			const uint8_t *pristine)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	if (t->fxsave_at >= 0) {
		clear_bytes(data, (uint32_t)t->fxsave_at + 6, 18); /* FOP, FIP, FDP */
		clear_bytes(data, (uint32_t)t->fxsave_at + 28, 4);
	}
	r->lines = 0;
	for (unsigned line = 0; line < DATA_BYTES / LINE_BYTES; line++) {
		uint8_t *at = data + line * LINE_BYTES;
		if (!memcmp(at, pristine + line * LINE_BYTES, LINE_BYTES))
			continue;
		if (r->lines < LINES_KEPT) {
			r->line[r->lines] = (uint16_t)line;
			memcpy(r->line_data[r->lines], at, LINE_BYTES);
		}
		for (unsigned k = 0; k < LINE_BYTES; k += 8) {
			uint64_t v;
			memcpy(&v, at + k, 8);
			h = (h ^ v ^ line) * UINT64_C(0x100000001b3) ^ h >> 31;
		}
		r->lines++;
		memcpy(at, pristine + line * LINE_BYTES, LINE_BYTES);
	}
	r->hash = h;
}
