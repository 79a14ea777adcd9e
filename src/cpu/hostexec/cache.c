/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cpu/code_mem.h"
#include "cpu/hostexec/form.h"

/*
 * The forms of one thread. insn.aux holds the generation of the code memory in its upper half and
 * the form's index + 1 in its lower, so that an aux of another thread, or from before the cache was
 * emptied, never passes for one of ours.
 */
enum { FORM_MAX = 16384, HASH_SIZE = 16384, CODE_BYTES = 6 << 20 };

struct form_cache {
	struct code_mem code;
	uint32_t count;
	uint32_t hash[HASH_SIZE]; /* index + 1 */
	struct form form[FORM_MAX];
};

static _Thread_local struct form_cache *mine;
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void destroy(void *p)
{
	struct form_cache *h = p;

	code_mem_destroy(&h->code);
	free(h);
	mine = NULL;
}

static void make_key(void)
{
	pthread_key_create(&key, destroy);
}

static struct form_cache *get_cache(void)
{
	struct error err;

	if (mine)
		return mine;
	pthread_once(&once, make_key);
	struct form_cache *h = calloc(1, sizeof(*h));
	if (!h) {
		log_error("no memory for the instruction cache");
		return NULL;
	}
	if (code_mem_create(&h->code, CODE_BYTES, &err)) {
		log_error("%s", err.text);
		free(h);
		return NULL;
	}
	pthread_setspecific(key, h);
	return mine = h;
}

static void empty(struct form_cache *h)
{
	code_mem_reset(&h->code);
	h->count = 0;
	memset(h->hash, 0, sizeof(h->hash));
}

static uint32_t hash_of(const struct form *f)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (unsigned k = 0; k < f->length; k++)
		h = (h ^ f->bytes[k]) * 16777619u;
	return (h ^ f->guest_fop) % HASH_SIZE;
}

static bool equal(const struct form *a, const struct form *b)
{
	return a->length == b->length && a->guest_fop == b->guest_fop && a->rsp_as == b->rsp_as &&
	       a->base == b->base && !memcmp(a->bytes, b->bytes, a->length);
}

static const void *aux_of(const struct form_cache *h, uint32_t index)
{
	return (const void *)((uint64_t)h->code.generation << 32 | (index + 1));
}

const void *form_make(const struct decoded *d, const struct insn *i)
{
	struct form_cache *h = get_cache();
	struct form f = {0};

	if (!h || !form_encode(d, i, &f))
		return NULL;
	uint32_t slot = hash_of(&f);
	for (uint32_t k = h->hash[slot]; k; k = h->form[k - 1].next)
		if (equal(&h->form[k - 1], &f))
			return aux_of(h, k - 1);

	uint8_t *out = code_mem_reserve(&h->code, STUB_BYTES);
	if (!out || h->count == FORM_MAX) {
		empty(h);
		out = code_mem_reserve(&h->code, STUB_BYTES);
	}
	unsigned at;
	form_classify(d, &f);
	unsigned n = stub_emit(out, d, &f, &at);
	const uint8_t *rx = code_mem_commit(&h->code, n);
	f.code = (stub_fn *)(uintptr_t)rx;
	f.at = rx + at;
	f.next = h->hash[slot];
	h->form[h->count] = f;
	h->hash[slot] = ++h->count;
	return aux_of(h, h->count - 1);
}

const struct form *form_get(struct soft_cpu *c, const struct insn *i)
{
	uint64_t aux = (uint64_t)i->aux;
	struct form_cache *h = mine;

	if (h && aux >> 32 == h->code.generation)
		return &h->form[(uint32_t)aux - 1];

	struct decoded d;
	struct insn again;
	if (insn_decode(c->mode, c->vendor_amd, i->bytes, i->length, &d, &again))
		return NULL;
	const void *fresh = form_make(&d, i);
	if (!fresh)
		return NULL;
	((struct insn *)(uintptr_t)i)->aux = fresh;
	return &mine->form[(uint32_t)(uint64_t)fresh - 1];
}

const struct form *form_need(struct soft_cpu *c, const struct insn *i)
{
	const struct form *f = form_get(c, i);

	if (!f)
		cpu_ud(c);
	return f;
}
