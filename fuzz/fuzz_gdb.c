/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/gdb/packet.h"
#include "control/gdb/session.h"

/*
 * A debugger's connection. The first byte says how the rest is sent: even, as it is; odd, each line
 * as a packet with a good checksum, so that the commands are reached. Whatever comes, each answer
 * is a well-formed packet, and nothing unsound reaches the machine.
 */
enum { CPUS = 3, MEMORY = 0x2000 };

static struct gdb_cpu cpus[CPUS];
static uint8_t memory[MEMORY];
static bool running;
static struct gdb_stop next_stop;

static void must(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void get_cpu(void *opaque, unsigned cpu, struct gdb_cpu *c)
{
	(void)opaque;
	must(cpu < CPUS && !running);
	*c = cpus[cpu];
}

static int set_cpu(void *opaque, unsigned cpu, const struct gdb_cpu *c)
{
	uint32_t mxcsr;

	(void)opaque;
	must(cpu < CPUS && !running);
	memcpy(&mxcsr, c->s.xsave.bytes + XSAVE_MXCSR, sizeof(mxcsr));
	must(!(mxcsr >> 16));
	must(c->s.rflags & FLAG_R1);
	cpus[cpu] = *c;
	return 0;
}

static bool halted(void *opaque, unsigned cpu)
{
	(void)opaque;
	must(cpu < CPUS);
	return cpu & 1;
}

static int read_memory(void *opaque, unsigned cpu, uint64_t gva, void *buf, size_t len)
{
	(void)opaque;
	must(cpu < CPUS && !running && len <= GDB_PACKET_BYTES);
	memset(buf, 0, len);
	if (gva >= MEMORY)
		return -14;
	if (len > MEMORY - gva)
		len = MEMORY - gva;
	memcpy(buf, memory + gva, len);
	return (int)len;
}

static int write_memory(void *opaque, unsigned cpu, uint64_t gva, const void *buf, size_t len)
{
	(void)opaque;
	must(cpu < CPUS && !running && len <= GDB_PACKET_BYTES);
	if (gva >= MEMORY || len > MEMORY - gva)
		return -14;
	memcpy(memory + gva, buf, len);
	return (int)len;
}

static int set_points(void *opaque, const struct vcpu_debug_point *points, unsigned count)
{
	(void)opaque;
	must(!running && count <= VCPU_DEBUG_POINTS);
	for (unsigned n = 0; n < count; n++)
		must(points[n].len <= 4096);
	if (count)
		next_stop = (struct gdb_stop){count % CPUS, GDB_STOP_POINT, points[0].gva};
	return 0;
}

static void resume(void *opaque, const enum gdb_action *actions)
{
	unsigned go = 0;

	(void)opaque;
	must(!running);
	for (unsigned n = 0; n < CPUS; n++)
		go += actions[n] != GDB_HOLD;
	must(go);
	running = true;
}

static void stop(void *opaque)
{
	(void)opaque;
	must(running);
}

static void monitor(void *opaque, unsigned cpu, const char *command, char *out, size_t size)
{
	(void)opaque;
	must(cpu < CPUS && !running);
	snprintf(out, size, "%s%s%s", command, command, command);
}

static void kill_target(void *opaque)
{
	(void)opaque;
}

/* Bytes are acknowledgements or one packet that our own parser takes. */
static void check_sent(void *opaque, const void *bytes, size_t len)
{
	static struct gdb_parser p;
	const uint8_t *b = bytes;
	enum gdb_input last = GDB_INPUT_NONE;

	(void)opaque;
	must(len > 0);
	gdb_parser_reset(&p);
	for (size_t n = 0; n < len; n++) {
		must(last == GDB_INPUT_NONE);
		last = gdb_parser_feed(&p, b[n]);
	}
	must(last == GDB_INPUT_PACKET || last == GDB_INPUT_ACK || last == GDB_INPUT_NAK);
}

static const struct gdb_target target = {
	.cpus = CPUS,
	.get_cpu = get_cpu,
	.set_cpu = set_cpu,
	.halted = halted,
	.read = read_memory,
	.write = write_memory,
	.set_points = set_points,
	.resume = resume,
	.stop = stop,
	.monitor = monitor,
	.kill = kill_target,
	.send = check_sent,
};

/* Sends bytes; when they have set the vCPUs going, those stop again. */
static bool send_some(struct gdb_session *s, const uint8_t *bytes, size_t len)
{
	bool stay = true;

	for (size_t n = 0; n < len && stay; n++) {
		stay = gdb_session_input(s, &bytes[n], 1);
		if (running && stay && n % 4 == 3) {
			running = false;
			gdb_session_stopped(s, &next_stop);
			next_stop = (struct gdb_stop){n % CPUS,
						      n & 8 ? GDB_STOP_STEP : GDB_STOP_ASKED, 0};
		}
	}
	return stay;
}

static bool send_packet(struct gdb_session *s, const uint8_t *bytes, size_t len)
{
	static struct gdb_reply r;
	static char frame[GDB_PACKET_BYTES + 4];

	gdb_reply_clear(&r);
	r.len = len < GDB_PACKET_BYTES ? len : GDB_PACKET_BYTES;
	memcpy(r.data, bytes, r.len);
	return send_some(s, (uint8_t *)frame, gdb_frame(&r, frame));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gdb_target t = target;
	struct gdb_session *s;
	bool stay = true;

	if (size < 1)
		return 0;
	t.arch = data[0] & 2 ? GDB_I386 : GDB_X86_64;
	for (unsigned n = 0; n < CPUS; n++) {
		memset(&cpus[n], 0, sizeof(cpus[n]));
		cpu_state_reset(&cpus[n].s, n);
	}
	running = false;
	next_stop = (struct gdb_stop){0, GDB_STOP_STEP, 0};
	must(gdb_session_create(&s, &t) == 0);
	if (data[0] & 1) {
		const uint8_t *at = data + 1, *end = data + size;
		while (at < end && stay) {
			const uint8_t *line = memchr(at, '\n', (size_t)(end - at));
			size_t len = line ? (size_t)(line - at) : (size_t)(end - at);
			stay = send_packet(s, at, len);
			at += len + 1;
		}
	} else {
		stay = send_some(s, data + 1, size - 1);
	}
	if (stay && running)
		gdb_session_exited(s);
	gdb_session_destroy(s);
	return 0;
}
