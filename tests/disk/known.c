/* SPDX-License-Identifier: Apache-2.0 */
/* What the sectors and snapshots of a rig's machine have to hold. */
#include <stdlib.h>
#include <string.h>

#include "rig_internal.h"

/* ---- stamps ---- */

void stamp_fill(void *buf, uint64_t sector, uint64_t stamp)
{
	uint64_t *w = buf;

	for (unsigned i = 0; i < DISK_SECTOR_BYTES / 8; i++)
		w[i] = stamp ? (stamp << 20 | sector) * UINT64_C(0x9e3779b97f4a7c15) + i : 0;
}

bool stamp_has(const void *buf, uint64_t sector, uint64_t stamp)
{
	uint64_t want[DISK_SECTOR_BYTES / 8];

	stamp_fill(want, sector, stamp);
	return !memcmp(buf, want, DISK_SECTOR_BYTES);
}

/* ---- the model ---- */

static void push(struct sector *s, uint64_t stamp)
{
	if (s->n == SINCE_MAX) {
		/* The oldest after the durable one: it was overwritten so often that it would be a
		 * miracle. Callers flush before that. */
		memmove(&s->stamp[1], &s->stamp[2], (SINCE_MAX - 2) * sizeof(s->stamp[0]));
		s->n--;
	}
	s->stamp[s->n++] = stamp;
}

void model_write(struct model *m, uint64_t sector, uint64_t n, uint64_t stamp)
{
	for (uint64_t i = sector; i < sector + n; i++)
		push(&m->sector[i], stamp);
}

/* Zero is newest, but what was newest before comes last, as either may be read. */
void model_discard(struct model *m, uint64_t sector, uint64_t n)
{
	for (uint64_t i = sector; i < sector + n; i++) {
		uint64_t last = m->sector[i].stamp[m->sector[i].n - 1];
		push(&m->sector[i], 0);
		push(&m->sector[i], last);
	}
}

void model_flushed(struct model *m)
{
	for (uint64_t i = 0; i < m->sectors; i++) {
		struct sector *s = &m->sector[i];
		s->stamp[0] = s->stamp[s->n - 1];
		s->n = 1;
	}
}

void model_kept(struct model *m, const uint64_t *stamp)
{
	for (uint64_t i = 0; i < m->sectors; i++) {
		struct sector *s = &m->sector[i];
		unsigned at = s->n;
		while (at-- > 0 && s->stamp[at] != stamp[i])
			;
		/* Not there: a flush has come since. */
		if (at >= s->n)
			continue;
		memmove(&s->stamp[0], &s->stamp[at], (s->n - at) * sizeof(s->stamp[0]));
		s->n -= at;
	}
}

void model_resize(struct model *m, uint64_t sectors)
{
	m->sector = must(realloc(m->sector, sectors * sizeof(*m->sector)));
	for (uint64_t i = m->sectors; i < sectors; i++)
		m->sector[i] = (struct sector){.n = 1};
	m->sectors = sectors;
}

void model_set(struct model *m, const uint64_t *stamp)
{
	for (uint64_t i = 0; i < m->sectors; i++)
		m->sector[i] = (struct sector){.stamp = {stamp[i]}, .n = 1};
	free(m->instead);
	m->instead = NULL;
}

uint64_t *model_copy(const struct model *m)
{
	uint64_t *c = must(calloc(m->sectors, sizeof(*c)));

	for (uint64_t i = 0; i < m->sectors; i++)
		c[i] = m->sector[i].stamp[m->sector[i].n - 1];
	return c;
}

uint64_t *copy_stamps(const uint64_t *stamp, uint64_t n)
{
	return memcpy(must(malloc(n * sizeof(*stamp))), stamp, n * sizeof(*stamp));
}

void known_snap(struct known *k, uint32_t uid, const uint64_t *stamp, uint64_t sectors)
{
	struct snap *s = NULL;

	for (unsigned i = 0; i < k->snaps; i++)
		if (k->snap[i].uid == uid)
			s = &k->snap[i];
	if (!s && k->snaps == SNAPS_MAX) {
		/* The oldest is long deleted: see do_take. */
		free(k->snap[0].stamp);
		memmove(&k->snap[0], &k->snap[1], (SNAPS_MAX - 1) * sizeof(k->snap[0]));
		k->snaps--;
	}
	if (!s) {
		s = &k->snap[k->snaps++];
		s->stamp = NULL;
	}
	free(s->stamp);
	*s = (struct snap){.uid = uid, .sectors = sectors, .stamp = copy_stamps(stamp, sectors)};
}

void known_apply(struct known *k, const struct rig_event *e)
{
	switch (e->change) {
	case RIG_WRITE:
		model_write(&k->model, e->sector, e->n, e->stamp);
		break;
	case RIG_DISCARD:
		model_discard(&k->model, e->sector, e->n);
		break;
	case RIG_FLUSHED:
		model_flushed(&k->model);
		break;
	case RIG_INSTEAD:
		free(k->model.instead);
		k->model.instead = copy_stamps(e->content, k->model.sectors);
		break;
	case RIG_SET:
		model_set(&k->model, e->content);
		break;
	case RIG_KEPT:
		model_kept(&k->model, e->content);
		break;
	case RIG_SNAP:
		known_snap(k, e->uid, e->content, k->model.sectors);
		break;
	}
}

void known_free(struct known *k)
{
	for (unsigned i = 0; i < k->snaps; i++)
		free(k->snap[i].stamp);
	free(k->model.sector);
	free(k->model.instead);
	*k = (struct known){0};
}
