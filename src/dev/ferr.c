/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/ferr.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum { PORT = 0xf0 };

struct ferr {
	struct bus *bus;
	struct irq_line irq;
	pthread_mutex_t lock;
	bool mapped, level;
};

static void set_level(struct ferr *f, bool level)
{
	pthread_mutex_lock(&f->lock);
	f->level = level;
	irq_set(&f->irq, level);
	pthread_mutex_unlock(&f->lock);
}

void ferr_set(struct ferr *f, bool level)
{
	set_level(f, level);
}

static void access_port(void *dev, struct bus_access *a)
{
	if (a->write)
		set_level(dev, false);
}

static void reset(void *dev)
{
	set_level(dev, false);
}

static void state(void *dev, struct state_stream *s)
{
	struct ferr *f = dev;
	bool level = f->level;

	state_begin(s, "ferr", 0, 1);
	state_bool(s, &level);
	state_end(s);
	if (!state_writing(s))
		set_level(f, level);
}

static void destroy(void *dev)
{
	struct ferr *f = dev;

	if (!f)
		return;
	if (f->mapped)
		bus_unmap(f->bus, BUS_PIO, PORT, f);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

const struct dev_ops ferr_ops = {
	.name = "ferr",
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int ferr_create(struct ferr **out, struct bus *bus, const struct irq_line *irq, struct error *err)
{
	struct ferr *f = calloc(1, sizeof(*f));
	int rc;

	*out = NULL;
	if (!f)
		return error_set(err, -ENOMEM, "ferr: out of memory");
	f->bus = bus;
	f->irq = *irq;
	pthread_mutex_init(&f->lock, NULL);
	rc = bus_map(bus, &(struct bus_range){BUS_PIO, PORT, 1, access_port, f, "ferr"});
	if (rc) {
		destroy(f);
		return error_set(err, rc, "ferr: port F0h cannot be mapped");
	}
	f->mapped = true;
	*out = f;
	return 0;
}
