/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static enum log_level max_level = LOG_WARN;
static void (*sink_fn)(void *, enum log_level, const char *);
static void *sink_opaque;

void log_set_level(enum log_level level)
{
	max_level = level;
}

void log_set_sink(void (*sink)(void *, enum log_level, const char *), void *opaque)
{
	sink_fn = sink;
	sink_opaque = opaque;
}

void log_at(enum log_level level, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	if (level > max_level)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (sink_fn)
		sink_fn(sink_opaque, level, line);
	else
		fprintf(stderr, "hanok: %s\r\n", line);
}
