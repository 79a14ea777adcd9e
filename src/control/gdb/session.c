/* SPDX-License-Identifier: Apache-2.0 */
#include "control/gdb/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/gdb/session_internal.h"

/*
 * Each packet goes to the handler of its first letter, which writes the reply (GDB manual, E.2
 * "Packets"); an unknown one gets the empty reply that the protocol asks for. A resuming packet is
 * answered when the vCPUs have stopped again. While they run, only Ctrl-C is listened to.
 */
enum { SIGNAL_INT = 2, SIGNAL_TRAP = 5 };

enum { MONITOR_BYTES = 16384 };

/* ---- replies ---- */

static void send_reply(struct gdb_session *s)
{
	if (s->reply.overflow) {
		gdb_reply_clear(&s->reply);
		gdb_reply_text(&s->reply, "E16");
	}
	s->frame_len = gdb_frame(&s->reply, s->frame);
	s->t->send(s->t->opaque, s->frame, s->frame_len);
}

void gdb_answer(struct gdb_session *s, const char *text)
{
	gdb_reply_clear(&s->reply);
	gdb_reply_text(&s->reply, "%s", text);
}

void gdb_answer_error(struct gdb_session *s, int code)
{
	gdb_reply_clear(&s->reply);
	gdb_reply_text(&s->reply, "E%02x", code & 0xff);
}

/* T05...: why the vCPUs stand still. */
static void answer_stop(struct gdb_session *s)
{
	const struct gdb_stop *stop = &s->stop;
	const char *reason = "";

	gdb_reply_clear(&s->reply);
	gdb_reply_text(&s->reply, "T%02xthread:%x;",
		       stop->kind == GDB_STOP_ASKED ? SIGNAL_INT : SIGNAL_TRAP, stop->cpu + 1);
	if (stop->kind != GDB_STOP_POINT)
		return;
	for (unsigned n = 0; n < s->points; n++) {
		const struct point *p = &s->point[n];
		if (p->gva != stop->gva)
			continue;
		switch (p->type) {
		case Z_SOFTWARE:
			reason = s->swbreak ? "swbreak:;" : "";
			break;
		case Z_HARDWARE:
			reason = s->hwbreak ? "hwbreak:;" : "";
			break;
		case Z_WRITE:
			gdb_reply_text(&s->reply, "watch:%" PRIx64 ";", stop->gva);
			return;
		case Z_READ:
			gdb_reply_text(&s->reply, "rwatch:%" PRIx64 ";", stop->gva);
			return;
		default:
			gdb_reply_text(&s->reply, "awatch:%" PRIx64 ";", stop->gva);
			return;
		}
	}
	gdb_reply_text(&s->reply, "%s", reason);
}

/* ---- threads ---- */

enum { THREAD_ANY = -2, THREAD_ALL = -1, THREAD_BAD = -3 };

/* A thread id as a vCPU's number, or one of the above. */
static int take_thread(const struct gdb_session *s, const char **at)
{
	uint64_t id;

	if (gdb_take_word(at, "-1"))
		return THREAD_ALL;
	if (!gdb_take_hex(at, &id))
		return THREAD_BAD;
	if (!id)
		return THREAD_ANY;
	return id <= s->t->cpus ? (int)id - 1 : THREAD_BAD;
}

static void choose_thread(struct gdb_session *s, const char *at)
{
	bool control = gdb_take_char(&at, 'c');

	if (!control && !gdb_take_char(&at, 'g')) {
		gdb_answer(s, "");
		return;
	}
	int cpu = take_thread(s, &at);
	if (cpu == THREAD_BAD) {
		gdb_answer_error(s, EINVAL);
		return;
	}
	if (control)
		s->step_cpu = cpu >= 0 ? (unsigned)cpu : s->t->cpus;
	else if (cpu >= 0)
		s->cpu = (unsigned)cpu;
	gdb_answer(s, "OK");
}

static void thread_alive(struct gdb_session *s, const char *at)
{
	if (take_thread(s, &at) >= 0)
		gdb_answer(s, "OK");
	else
		gdb_answer_error(s, EINVAL);
}

static void list_threads(struct gdb_session *s)
{
	gdb_reply_clear(&s->reply);
	if (s->thread_at >= s->t->cpus) {
		gdb_reply_text(&s->reply, "l");
		return;
	}
	for (unsigned n = 0; n < 64 && s->thread_at < s->t->cpus; n++)
		gdb_reply_text(&s->reply, "%c%x", n ? ',' : 'm', ++s->thread_at);
}

static void describe_thread(struct gdb_session *s, const char *at)
{
	char text[64];
	int cpu = take_thread(s, &at);

	if (cpu < 0) {
		gdb_answer_error(s, EINVAL);
		return;
	}
	snprintf(text, sizeof(text), "vCPU %d%s", cpu,
		 s->t->halted(s->t->opaque, (unsigned)cpu) ? " [halted]" : "");
	gdb_reply_clear(&s->reply);
	gdb_reply_hex(&s->reply, text, strlen(text));
}

static char *make_threads_xml(unsigned cpus)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	fprintf(f, "<?xml version=\"1.0\"?>\n<threads>\n");
	for (unsigned n = 0; n < cpus; n++)
		fprintf(f, "<thread id=\"%x\" core=\"%u\" name=\"vCPU %u\"/>\n", n + 1, n, n);
	fprintf(f, "</threads>\n");
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* ---- running ---- */

static void resume(struct gdb_session *s)
{
	s->running = true;
	gdb_reply_clear(&s->reply);
	s->t->resume(s->t->opaque, s->actions);
}

/* c, s, C, S: with an address to go on at. */
static bool resume_plain(struct gdb_session *s, const char *at, bool step)
{
	uint64_t gva;
	unsigned cpu = s->step_cpu < s->t->cpus ? s->step_cpu : s->stop.cpu;

	if (gdb_take_hex(&at, &gva)) {
		struct gdb_cpu c;
		s->t->get_cpu(s->t->opaque, cpu, &c);
		c.s.rip = gva;
		s->t->set_cpu(s->t->opaque, cpu, &c);
	}
	for (unsigned n = 0; n < s->t->cpus; n++)
		s->actions[n] = GDB_CONTINUE;
	if (step)
		s->actions[cpu] = GDB_STEP;
	resume(s);
	return false;
}

/* One of vCont's actions: what to do, or false. */
static bool take_action(const char **at, enum gdb_action *action)
{
	uint64_t signal;
	char letter = **at;

	switch (letter) {
	case 'c':
	case 'C':
		*action = GDB_CONTINUE;
		break;
	case 's':
	case 'S':
		*action = GDB_STEP;
		break;
	case 't':
		*action = GDB_HOLD;
		break;
	default:
		return false;
	}
	(*at)++;
	/* Signals mean nothing to a machine. */
	return (letter != 'C' && letter != 'S') || gdb_take_hex(at, &signal);
}

/* vCont;action[:thread]...: for each thread the leftmost that fits counts. */
static bool resume_vcont(struct gdb_session *s, const char *at)
{
	bool taken[256] = {0};

	for (unsigned n = 0; n < s->t->cpus; n++)
		s->actions[n] = GDB_HOLD;
	while (gdb_take_char(&at, ';')) {
		enum gdb_action action;
		int cpu = THREAD_ALL;
		if (!take_action(&at, &action) ||
		    (gdb_take_char(&at, ':') && (cpu = take_thread(s, &at)) == THREAD_BAD)) {
			gdb_answer_error(s, EINVAL);
			return true;
		}
		if (cpu == THREAD_ANY)
			cpu = (int)s->stop.cpu;
		for (unsigned n = 0; n < s->t->cpus; n++) {
			if ((cpu == THREAD_ALL || (unsigned)cpu == n) && !taken[n]) {
				s->actions[n] = action;
				taken[n] = true;
			}
		}
	}
	for (unsigned n = 0; n < s->t->cpus; n++) {
		if (s->actions[n] != GDB_HOLD) {
			resume(s);
			return false;
		}
	}
	gdb_answer_error(s, EINVAL);
	return true;
}

/* ---- queries ---- */

/* qXfer's offset,length of a document. */
static void read_document(struct gdb_session *s, const char *at, const char *document)
{
	uint64_t offset, len, size = strlen(document);

	if (!gdb_take_range(&at, &offset, &len) || offset > size) {
		gdb_answer_error(s, EINVAL);
		return;
	}
	/* At worst every byte is escaped. */
	if (len > GDB_PACKET_BYTES / 2 - 1)
		len = GDB_PACKET_BYTES / 2 - 1;
	bool last = len >= size - offset;
	if (last)
		len = size - offset;
	gdb_reply_clear(&s->reply);
	gdb_reply_text(&s->reply, last ? "l" : "m");
	gdb_reply_binary(&s->reply, document + offset, (size_t)len);
}

static void monitor(struct gdb_session *s, const char *hex)
{
	static char out[MONITOR_BYTES];
	char command[256] = {0};
	size_t len = strlen(hex) / 2;

	if (strlen(hex) % 2 || len >= sizeof(command) || !gdb_take_bytes(&hex, command, len)) {
		gdb_answer_error(s, EINVAL);
		return;
	}
	out[0] = 0;
	s->t->monitor(s->t->opaque, s->cpu, command, out, sizeof(out));
	/* As console output, in pieces; then OK. */
	for (size_t at = 0, all = strlen(out); at < all;) {
		size_t n = all - at < 4096 ? all - at : 4096;
		gdb_answer(s, "O");
		gdb_reply_hex(&s->reply, out + at, n);
		send_reply(s);
		at += n;
	}
	gdb_answer(s, "OK");
}

static void supported(struct gdb_session *s, const char *features)
{
	s->swbreak = strstr(features, "swbreak+");
	s->hwbreak = strstr(features, "hwbreak+");
	gdb_reply_clear(&s->reply);
	gdb_reply_text(&s->reply,
		       "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;"
		       "swbreak+;hwbreak+;vContSupported+;binary-upload+",
		       GDB_PACKET_BYTES);
}

static void query(struct gdb_session *s, const char *at)
{
	if (gdb_take_word(&at, "qSupported")) {
		supported(s, at);
	} else if (gdb_take_word(&at, "qXfer:features:read:target.xml:")) {
		read_document(s, at, s->target_xml);
	} else if (gdb_take_word(&at, "qXfer:threads:read::")) {
		read_document(s, at, s->threads_xml);
	} else if (gdb_take_word(&at, "qfThreadInfo")) {
		s->thread_at = 0;
		list_threads(s);
	} else if (gdb_take_word(&at, "qsThreadInfo")) {
		list_threads(s);
	} else if (gdb_take_word(&at, "qThreadExtraInfo,")) {
		describe_thread(s, at);
	} else if (gdb_take_word(&at, "qRcmd,")) {
		monitor(s, at);
	} else if (gdb_take_word(&at, "qAttached")) {
		gdb_answer(s, "1");
	} else if (gdb_take_word(&at, "qSymbol")) {
		gdb_answer(s, "OK");
	} else if (!strcmp(at, "qC")) {
		gdb_reply_clear(&s->reply);
		gdb_reply_text(&s->reply, "QC%x", s->stop.cpu + 1);
	} else {
		gdb_answer(s, "");
	}
}

/* ---- packets ---- */

static void kill_machine(struct gdb_session *s)
{
	s->leaving = true;
	s->t->kill(s->t->opaque);
	gdb_answer(s, "OK");
}

static bool v_packet(struct gdb_session *s, const char *at)
{
	if (!strcmp(at, "vCont?"))
		gdb_answer(s, "vCont;c;C;s;S;t");
	else if (gdb_take_word(&at, "vCont"))
		return resume_vcont(s, at);
	else if (gdb_take_word(&at, "vKill"))
		kill_machine(s);
	else
		gdb_answer(s, "");
	return true;
}

/* Carries out a packet. False: the reply comes later, or never. */
static bool dispatch(struct gdb_session *s, const char *p)
{
	const char *rest = p + 1;
	uint64_t signal;

	switch (p[0]) {
	case '?':
		answer_stop(s);
		return true;
	case 'g':
		gdb_read_all_registers(s);
		return true;
	case 'G':
		gdb_write_all_registers(s, rest);
		return true;
	case 'p':
		gdb_read_register(s, rest);
		return true;
	case 'P':
		gdb_write_register(s, rest);
		return true;
	case 'm':
	case 'x':
		gdb_read_memory(s, rest, p[0] == 'x');
		return true;
	case 'M':
		gdb_write_memory(s, rest);
		return true;
	case 'X':
		gdb_write_memory_binary(s, rest);
		return true;
	case 'Z':
	case 'z':
		gdb_change_point(s, rest, p[0] == 'Z');
		return true;
	case 'H':
		choose_thread(s, rest);
		return true;
	case 'T':
		thread_alive(s, rest);
		return true;
	case 'c':
	case 's':
		return resume_plain(s, rest, p[0] == 's');
	case 'C':
	case 'S':
		if (!gdb_take_hex(&rest, &signal)) {
			gdb_answer_error(s, EINVAL);
			return true;
		}
		gdb_take_char(&rest, ';');
		return resume_plain(s, rest, p[0] == 'S');
	case 'v':
		return v_packet(s, p);
	case 'q':
		query(s, p);
		return true;
	case 'D':
		s->leaving = true;
		gdb_answer(s, "OK");
		return true;
	case 'k':
		kill_machine(s);
		return false; /* k has no reply */
	default:
		gdb_answer(s, "");
		return true;
	}
}

static void take_packet(struct gdb_session *s)
{
	if (!s->no_ack)
		s->t->send(s->t->opaque, "+", 1);
	if (s->running)
		return; /* no packet has a meaning now */
	if (!strcmp(s->parser.data, "QStartNoAckMode")) {
		gdb_answer(s, "OK");
		send_reply(s);
		s->no_ack = true;
		return;
	}
	if (dispatch(s, s->parser.data))
		send_reply(s);
}

static void take_input(struct gdb_session *s, enum gdb_input input)
{
	switch (input) {
	case GDB_INPUT_PACKET:
		take_packet(s);
		break;
	case GDB_INPUT_BAD:
		if (!s->no_ack)
			s->t->send(s->t->opaque, "-", 1);
		break;
	case GDB_INPUT_TOO_LONG:
		if (!s->no_ack)
			s->t->send(s->t->opaque, "+", 1);
		if (!s->running) {
			gdb_answer_error(s, E2BIG);
			send_reply(s);
		}
		break;
	case GDB_INPUT_NAK:
		if (!s->no_ack && s->frame_len)
			s->t->send(s->t->opaque, s->frame, s->frame_len);
		break;
	case GDB_INPUT_INTERRUPT:
		if (s->running)
			s->t->stop(s->t->opaque);
		break;
	default:
		break;
	}
}

bool gdb_session_input(struct gdb_session *s, const uint8_t *bytes, size_t len)
{
	for (size_t n = 0; n < len && !s->leaving; n++)
		take_input(s, gdb_parser_feed(&s->parser, bytes[n]));
	return !s->leaving;
}

void gdb_session_stopped(struct gdb_session *s, const struct gdb_stop *stop)
{
	s->running = false;
	s->stop = *stop;
	s->cpu = stop->cpu;
	answer_stop(s);
	send_reply(s);
}

void gdb_session_exited(struct gdb_session *s)
{
	s->leaving = true;
	if (!s->running)
		return; /* nobody waits for it */
	gdb_answer(s, "W00");
	send_reply(s);
}

int gdb_session_create(struct gdb_session **out, const struct gdb_target *target)
{
	struct gdb_session *s = calloc(1, sizeof(*s));

	*out = NULL;
	if (!s)
		return -ENOMEM;
	s->t = target;
	s->step_cpu = target->cpus;
	s->stop.kind = GDB_STOP_ASKED;
	s->actions = calloc(target->cpus, sizeof(s->actions[0]));
	s->target_xml = gdb_target_xml(target->arch);
	s->threads_xml = make_threads_xml(target->cpus);
	if (!s->actions || !s->target_xml || !s->threads_xml) {
		gdb_session_destroy(s);
		return -ENOMEM;
	}
	*out = s;
	return 0;
}

void gdb_session_destroy(struct gdb_session *s)
{
	if (!s)
		return;
	free(s->actions);
	free(s->target_xml);
	free(s->threads_xml);
	free(s);
}
