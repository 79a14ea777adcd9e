/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_CONTROL_GDB_SESSION_INTERNAL_H
#define HANOK_CONTROL_GDB_SESSION_INTERNAL_H

#include "control/gdb/packet.h"
#include "control/gdb/session.h"

/* Shared by session.c, which says how it works, and session_data.c. */

/* Z packets' types. */
enum { Z_SOFTWARE, Z_HARDWARE, Z_WRITE, Z_READ, Z_ACCESS };

struct point {
	uint8_t type; /* Z_* */
	uint64_t gva, len;
};

struct gdb_session {
	const struct gdb_target *t;
	struct gdb_parser parser;
	struct gdb_reply reply;
	char frame[GDB_PACKET_BYTES + 4]; /* the last one sent, for a resend */
	size_t frame_len;
	char *target_xml, *threads_xml;

	bool no_ack;
	bool swbreak, hwbreak; /* the debugger understands these stop reasons */
	bool running;
	bool leaving;
	unsigned cpu;	   /* of g, m and the like: Hg */
	unsigned step_cpu; /* of c and s: Hc; cpus means all */
	struct gdb_stop stop;
	unsigned points;
	struct point point[VCPU_DEBUG_POINTS];
	unsigned thread_at; /* of qsThreadInfo */
	enum gdb_action *actions;
};

/* What the packet in hand is answered with. */
void gdb_answer(struct gdb_session *s, const char *text);
void gdb_answer_error(struct gdb_session *s, int code);

/* Reads "address,length". */
bool gdb_take_range(const char **at, uint64_t *gva, uint64_t *len);

/* The packets about registers, memory and points (session_data.c); at is after the letter. */
void gdb_read_all_registers(struct gdb_session *s);
void gdb_write_all_registers(struct gdb_session *s, const char *at);
void gdb_read_register(struct gdb_session *s, const char *at);
void gdb_write_register(struct gdb_session *s, const char *at);
void gdb_read_memory(struct gdb_session *s, const char *at, bool binary);
void gdb_write_memory(struct gdb_session *s, const char *at);
void gdb_write_memory_binary(struct gdb_session *s, const char *at);
void gdb_change_point(struct gdb_session *s, const char *at, bool set);

#endif
