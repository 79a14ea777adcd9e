/* SPDX-License-Identifier: Apache-2.0 */
#include "control/page_recorder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "mem/trace.h"

/* How often it is seen to whether the file has become too large. */
#define CHECK_NS UINT64_C(200000000)

struct page_recorder {
	struct page_recorder_config cfg;
	char *path;
	struct trace_writer *writer; /* NULL: it is over */
	uint64_t began_ns;
	struct timer timer;
};

/* On the thread that uses the page. */
static void on_page(void *opaque, uint64_t gpa, bool write)
{
	struct page_recorder *p = opaque;

	trace_writer_add(p->writer, gpa >> MEM_PAGE_SHIFT, write, clock_ns() - p->began_ns);
}

/*
 * Pages are used by vCPUs and on this, the loop's, thread: while the vCPUs stand still nobody is in on_page, and
 * the writer can go.
 */
static int finish(struct page_recorder *p, struct page_recording *r, struct error *err)
{
	struct trace_writer *w = p->writer;

	r->ns = clock_ns() - p->began_ns;
	machine_pause(p->cfg.machine);
	mem_set_tracer(machine_mem(p->cfg.machine), 0, NULL, NULL);
	p->writer = NULL;
	machine_resume(p->cfg.machine);
	trace_writer_size(w, &r->records, &r->bytes);
	int code = trace_writer_finish(w, err);
	struct stat st;
	if (stat(p->path, &st) == 0 && S_ISREG(st.st_mode))
		r->bytes = (uint64_t)st.st_size;
	return code;
}

static void look(void *opaque)
{
	struct page_recorder *p = opaque;
	struct page_recording r = {0};
	uint64_t now = clock_ns(), end = p->began_ns + p->cfg.ns;
	struct error err;

	trace_writer_size(p->writer, &r.records, &r.bytes);
	r.cut = r.bytes >= p->cfg.bytes_max;
	if (!r.cut && now < end) {
		timer_arm(&p->timer, now + CHECK_NS < end ? now + CHECK_NS : end);
		return;
	}
	int code = finish(p, &r, &err);
	p->cfg.over(p->cfg.opaque, code, &r, &err);
}

int page_recorder_create(struct page_recorder **out, const struct page_recorder_config *cfg,
			 struct error *err)
{
	struct mem *m = machine_mem(cfg->machine);
	uint64_t high = mem_high_bytes(m);
	const struct trace_info info = {
		.page_bytes = MEM_PAGE_BYTES,
		.sampling = TRACE_TLB_MISSES,
		.sample_period = 1,
		.ram_pages = mem_ram_bytes(m) >> MEM_PAGE_SHIFT,
		.end_page = (high ? MEM_HIGH_BASE + high : mem_low_bytes(m)) >> MEM_PAGE_SHIFT,
	};
	struct page_recorder *p = calloc(1, sizeof(*p));

	*out = NULL;
	if (!p)
		return error_set(err, -ENOMEM, "trace-pages: out of memory");
	p->cfg = *cfg;
	timer_init(&p->timer, machine_loop(cfg->machine), look, p);
	p->path = strdup(cfg->path);
	int r = p->path ? trace_writer_create(&p->writer, cfg->path, &info, err)
			: error_set(err, -ENOMEM, "trace-pages: out of memory");
	if (r < 0) {
		page_recorder_destroy(p);
		return r;
	}
	p->began_ns = clock_ns();
	mem_set_tracer(m, cfg->period_ms, on_page, p);
	timer_arm(&p->timer, p->began_ns);
	*out = p;
	return 0;
}

void page_recorder_destroy(struct page_recorder *p)
{
	struct page_recording r;

	if (!p)
		return;
	timer_destroy(&p->timer);
	if (p->writer)
		(void)finish(p, &r, NULL);
	free(p->path);
	free(p);
}
