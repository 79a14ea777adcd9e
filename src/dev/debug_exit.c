/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/debug_exit.h"

#include <errno.h>
#include <stdlib.h>

struct debug_exit {
	struct bus *bus;
	uint16_t port;
	bool mapped;
	void (*fn)(void *opaque, uint32_t value);
	void *opaque;
};

enum { PORT_BYTES = 4 };

static void access_port(void *dev, struct bus_access *a)
{
	struct debug_exit *d = dev;

	if (!a->write)
		a->value = 0;
	else if (a->offset == 0)
		d->fn(d->opaque, (uint32_t)a->value);
}

static void reset(void *dev)
{
	(void)dev;
}

static void state(void *dev, struct state_stream *s)
{
	(void)dev;
	(void)s;
}

static void destroy(void *dev)
{
	struct debug_exit *d = dev;

	if (d && d->mapped)
		bus_unmap(d->bus, BUS_PIO, d->port, d);
	free(d);
}

const struct dev_ops debug_exit_ops = {
	.name = "debug-exit",
	.reset = reset,
	.state = state,
	.destroy = destroy,
};

int debug_exit_create(struct debug_exit **out, struct bus *bus, uint16_t port,
		      void (*fn)(void *opaque, uint32_t value), void *opaque, struct error *err)
{
	struct debug_exit *d = calloc(1, sizeof(*d));
	int rc;

	*out = NULL;
	if (!d)
		return error_set(err, -ENOMEM, "debug exit: out of memory");
	*d = (struct debug_exit){.bus = bus, .port = port, .fn = fn, .opaque = opaque};
	rc = bus_map(bus,
		     &(struct bus_range){BUS_PIO, port, PORT_BYTES, access_port, d, "debug exit"});
	if (rc) {
		destroy(d);
		return error_set(err, rc, "debug exit: port %#x cannot be mapped", port);
	}
	d->mapped = true;
	*out = d;
	return 0;
}
