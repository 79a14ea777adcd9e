/* SPDX-License-Identifier: Apache-2.0 */
#include "control/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

/*
 * vCPU threads format their lines themselves and append them to one buffer under one lock. Whoever
 * finds it full, or the last write a while ago, writes it out. When the file cannot be written the
 * trace stops, the machine does not.
 */
enum { BUFFER_BYTES = 1 << 16, LINE_BYTES = 256 };
#define FLUSH_NS UINT64_C(200000000)

struct trace {
	int fd;
	char *path;
	uint64_t start_ns;
	uint64_t tsc_hz;
	struct machine *machine;
	struct vcpu_tracer tracer[BOARD_CPUS_MAX];

	pthread_mutex_t lock; /* guards what follows */
	uint64_t written_ns;  /* when the buffer was last written out */
	bool failed;
	size_t used;
	char buffer[BUFFER_BYTES];
};

/* With the lock held. */
static void flush(struct trace *t)
{
	size_t done = 0;

	while (done < t->used && !t->failed) {
		ssize_t n = write(t->fd, t->buffer + done, t->used - done);
		if (n >= 0) {
			done += (size_t)n;
		} else if (errno != EINTR) {
			t->failed = true;
			log_error("--trace %s: %s; the trace ends here", t->path, strerror(errno));
		}
	}
	t->used = 0;
}

/* Appends "time cpu what rip" and a line of details that begins with a blank or is empty. */
static void add_line(struct trace *t, unsigned cpu, const char *what, uint64_t rip,
		     const char *details)
{
	char line[LINE_BYTES];

	pthread_mutex_lock(&t->lock);
	/* The time is taken under the lock, so that lines are in order. */
	uint64_t now = clock_ns(), at = now - t->start_ns;
	int len = snprintf(line, sizeof(line), "%" PRIu64 ".%06" PRIu64 " %u %s %" PRIx64 "%s\n",
			   at / 1000000000, at / 1000 % 1000000, cpu, what, rip, details);
	if (len >= (int)sizeof(line)) {
		len = sizeof(line) - 1;
		line[len - 1] = '\n';
	}
	if (!t->failed) {
		if (t->used + (size_t)len > BUFFER_BYTES || now - t->written_ns > FLUSH_NS) {
			flush(t);
			t->written_ns = now;
		}
		memcpy(t->buffer + t->used, line, (size_t)len);
		t->used += (size_t)len;
	}
	pthread_mutex_unlock(&t->lock);
}

static void describe_exit(const struct exit *e, char *out, size_t size)
{
	switch (e->cause) {
	case EXIT_PIO_IN:
	case EXIT_PIO_OUT:
		snprintf(out, size, " port 0x%x size %u data 0x%" PRIx32, e->pio.port, e->pio.size,
			 e->pio.data);
		break;
	case EXIT_MMIO_READ:
	case EXIT_MMIO_WRITE:
		snprintf(out, size, " gpa 0x%" PRIx64 " size %u data 0x%" PRIx64, e->mmio.gpa,
			 e->mmio.size, e->mmio.data);
		break;
	case EXIT_RDMSR:
	case EXIT_WRMSR:
		snprintf(out, size, " msr 0x%" PRIx32 " value 0x%" PRIx64 "%s", e->msr.index,
			 e->msr.value, e->msr.fault ? " fault" : "");
		break;
	case EXIT_DEBUG:
		snprintf(out, size, " address 0x%" PRIx64, e->debug.gva);
		break;
	case EXIT_ERROR:
		snprintf(out, size, " %s", e->error.text);
		break;
	default:
		out[0] = 0;
		break;
	}
}

static void on_exit_handled(void *opaque, unsigned cpu, const struct exit *e, const char *device,
			    uint64_t ticks)
{
	struct trace *t = opaque;
	struct vcpu *v = machine_vcpu(t->machine, cpu);
	struct cpu_state s;
	char what[LINE_BYTES], details[LINE_BYTES + 64];

	v->ops->get_state(v, &s);
	describe_exit(e, what, sizeof(what));
	uint64_t ns = clock_muldiv(ticks, 1000000000, t->tsc_hz);
	snprintf(details, sizeof(details), "%s%s%s %" PRIu64 ".%" PRIu64 "us", what,
		 device ? " " : "", device ? device : "", ns / 1000, ns / 100 % 10);
	add_line(t, cpu, exit_cause_name(e->cause), s.rip, details);
}

static void on_event_delivered(void *opaque, struct vcpu *v, const struct cpu_event *e)
{
	static const char *const names[] = {
		[VEC_DE] = "#DE", [VEC_DB] = "#DB", [VEC_BP] = "#BP", [VEC_OF] = "#OF",
		[VEC_BR] = "#BR", [VEC_UD] = "#UD", [VEC_NM] = "#NM", [VEC_DF] = "#DF",
		[VEC_TS] = "#TS", [VEC_NP] = "#NP", [VEC_SS] = "#SS", [VEC_GP] = "#GP",
		[VEC_PF] = "#PF", [VEC_MF] = "#MF", [VEC_AC] = "#AC", [VEC_MC] = "#MC",
		[VEC_XM] = "#XM",
	};
	static const enum exit_cause causes[] = {
		[EVENT_EXTERNAL] = EXIT_INTERRUPT,  [EVENT_NMI] = EXIT_NMI,
		[EVENT_EXCEPTION] = EXIT_EXCEPTION, [EVENT_SOFT_INT] = EXIT_SOFT_INT,
		[EVENT_ICEBP] = EXIT_SOFT_INT,
	};
	bool page_fault = e->kind == EVENT_EXCEPTION && e->vector == VEC_PF;
	const char *name = NULL;
	char details[LINE_BYTES];

	if (e->kind == EVENT_EXCEPTION && e->vector < sizeof(names) / sizeof(names[0]))
		name = names[e->vector];
	int n = snprintf(details, sizeof(details), " vector 0x%x%s%s", e->vector, name ? " " : "",
			 name ? name : "");
	if (e->has_error)
		n += snprintf(details + n, sizeof(details) - (size_t)n, " error 0x%" PRIx32,
			      e->error);
	if (page_fault)
		snprintf(details + n, sizeof(details) - (size_t)n, " address 0x%" PRIx64, e->cr2);
	add_line(opaque, v->index, exit_cause_name(page_fault ? EXIT_PAGE_FAULT : causes[e->kind]),
		 e->rip, details);
}

int trace_open(struct trace **out, const char *path, struct error *err)
{
	struct trace *t = calloc(1, sizeof(*t));

	*out = NULL;
	if (!t)
		return error_set(err, -ENOMEM, "--trace %s: out of memory", path);
	pthread_mutex_init(&t->lock, NULL);
	t->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	t->path = strdup(path);
	if (t->fd < 0 || !t->path) {
		int r = error_set(err, -errno, "--trace %s: %s", path, strerror(errno));
		trace_close(t);
		return r;
	}
	*out = t;
	return 0;
}

int trace_attach(struct trace *t, struct machine *m, struct error *err)
{
	struct machine_hooks hooks = {.exit = on_exit_handled, .opaque = t};

	if (machine_add_hooks(m, &hooks) < 0)
		return error_set(err, -ENOSPC, "--trace %s: too many look on already", t->path);
	t->machine = m;
	t->tsc_hz = clock_tsc_hz();
	t->start_ns = t->written_ns = clock_ns();
	for (unsigned n = 0; n < machine_cpus(m); n++) {
		t->tracer[n] = (struct vcpu_tracer){.fn = on_event_delivered, .opaque = t};
		vcpu_add_tracer(machine_vcpu(m, n), &t->tracer[n]);
	}
	return 0;
}

void trace_close(struct trace *t)
{
	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	flush(t);
	pthread_mutex_unlock(&t->lock);
	if (t->fd >= 0 && close(t->fd) < 0 && !t->failed)
		log_error("--trace %s: %s", t->path, strerror(errno));
	pthread_mutex_destroy(&t->lock);
	free(t->path);
	free(t);
}
