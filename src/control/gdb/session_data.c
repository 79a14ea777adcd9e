/* SPDX-License-Identifier: Apache-2.0 */
/* What a debugger asks of registers, memory, breakpoints and watchpoints. */
#include <errno.h>
#include <string.h>

#include "control/gdb/session_internal.h"

/* ---- registers ---- */

void gdb_read_all_registers(struct gdb_session *s)
{
	struct gdb_cpu c;
	uint8_t v[GDB_REG_BYTES_MAX];

	s->t->get_cpu(s->t->opaque, s->cpu, &c);
	gdb_reply_clear(&s->reply);
	for (unsigned n = 0; n < gdb_regs_count(s->t->arch); n++) {
		unsigned bytes = gdb_reg_read(s->t->arch, n, &c, v);
		gdb_reply_hex(&s->reply, v, bytes);
	}
}

void gdb_write_all_registers(struct gdb_session *s, const char *at)
{
	struct gdb_cpu c;
	uint8_t v[GDB_REG_BYTES_MAX];

	s->t->get_cpu(s->t->opaque, s->cpu, &c);
	for (unsigned n = 0; n < gdb_regs_count(s->t->arch); n++) {
		if (!gdb_take_bytes(&at, v, gdb_reg_bytes(s->t->arch, n))) {
			gdb_answer_error(s, EINVAL);
			return;
		}
		gdb_reg_write(s->t->arch, n, &c, v);
	}
	if (s->t->set_cpu(s->t->opaque, s->cpu, &c) < 0)
		gdb_answer_error(s, EINVAL);
	else
		gdb_answer(s, "OK");
}

void gdb_read_register(struct gdb_session *s, const char *at)
{
	struct gdb_cpu c;
	uint8_t v[GDB_REG_BYTES_MAX];
	uint64_t n;

	if (!gdb_take_hex(&at, &n) || n >= gdb_regs_count(s->t->arch)) {
		gdb_answer_error(s, EINVAL);
		return;
	}
	s->t->get_cpu(s->t->opaque, s->cpu, &c);
	unsigned bytes = gdb_reg_read(s->t->arch, (unsigned)n, &c, v);
	gdb_reply_clear(&s->reply);
	gdb_reply_hex(&s->reply, v, bytes);
}

void gdb_write_register(struct gdb_session *s, const char *at)
{
	struct gdb_cpu c;
	uint8_t v[GDB_REG_BYTES_MAX];
	uint64_t n;

	if (!gdb_take_hex(&at, &n) || n >= gdb_regs_count(s->t->arch) || !gdb_take_char(&at, '=') ||
	    !gdb_take_bytes(&at, v, gdb_reg_bytes(s->t->arch, (unsigned)n))) {
		gdb_answer_error(s, EINVAL);
		return;
	}
	s->t->get_cpu(s->t->opaque, s->cpu, &c);
	if (!gdb_reg_write(s->t->arch, (unsigned)n, &c, v) ||
	    s->t->set_cpu(s->t->opaque, s->cpu, &c) < 0)
		gdb_answer_error(s, EINVAL);
	else
		gdb_answer(s, "OK");
}

/* ---- memory ---- */

bool gdb_take_range(const char **at, uint64_t *gva, uint64_t *len)
{
	return gdb_take_hex(at, gva) && gdb_take_char(at, ',') && gdb_take_hex(at, len);
}

/* m: hexadecimal; x: binary after a b. As much as there is. */
void gdb_read_memory(struct gdb_session *s, const char *at, bool binary)
{
	uint8_t buf[GDB_PACKET_BYTES / 2 - 8];
	uint64_t gva, len;

	if (!gdb_take_range(&at, &gva, &len)) {
		gdb_answer_error(s, EINVAL);
		return;
	}
	if (len > sizeof(buf))
		len = sizeof(buf);
	int got = s->t->read(s->t->opaque, s->cpu, gva, buf, (size_t)len);
	if (got < 0) {
		gdb_answer_error(s, EFAULT);
		return;
	}
	gdb_reply_clear(&s->reply);
	if (binary) {
		gdb_reply_text(&s->reply, "b");
		gdb_reply_binary(&s->reply, buf, (size_t)got);
	} else {
		gdb_reply_hex(&s->reply, buf, (size_t)got);
	}
}

static void write_bytes(struct gdb_session *s, uint64_t gva, const void *bytes, size_t len)
{
	if (s->t->write(s->t->opaque, s->cpu, gva, bytes, len) != (int)len)
		gdb_answer_error(s, EFAULT);
	else
		gdb_answer(s, "OK");
}

void gdb_write_memory(struct gdb_session *s, const char *at)
{
	uint8_t buf[GDB_PACKET_BYTES / 2];
	uint64_t gva, len;

	if (!gdb_take_range(&at, &gva, &len) || !gdb_take_char(&at, ':') || len > sizeof(buf) ||
	    !gdb_take_bytes(&at, buf, (size_t)len))
		gdb_answer_error(s, EINVAL);
	else
		write_bytes(s, gva, buf, (size_t)len);
}

void gdb_write_memory_binary(struct gdb_session *s, const char *at)
{
	uint64_t gva, len;

	if (!gdb_take_range(&at, &gva, &len) || !gdb_take_char(&at, ':') ||
	    len != s->parser.len - (size_t)(at - s->parser.data))
		gdb_answer_error(s, EINVAL);
	else
		write_bytes(s, gva, at, (size_t)len);
}

/* ---- breakpoints and watchpoints ---- */

static int apply_points(struct gdb_session *s)
{
	struct vcpu_debug_point p[VCPU_DEBUG_POINTS];

	for (unsigned n = 0; n < s->points; n++) {
		const struct point *from = &s->point[n];
		p[n] = (struct vcpu_debug_point){
			.gva = from->gva,
			.len = from->type >= Z_WRITE ? from->len : 0,
			.on_read = from->type == Z_READ || from->type == Z_ACCESS,
			.on_write = from->type == Z_WRITE || from->type == Z_ACCESS,
		};
	}
	return s->t->set_points(s->t->opaque, p, s->points);
}

static int find_point(const struct gdb_session *s, const struct point *p)
{
	for (unsigned n = 0; n < s->points; n++)
		if (s->point[n].type == p->type && s->point[n].gva == p->gva &&
		    s->point[n].len == p->len)
			return (int)n;
	return -1;
}

void gdb_change_point(struct gdb_session *s, const char *at, bool set)
{
	uint64_t type, gva, len;

	if (!gdb_take_hex(&at, &type) || !gdb_take_char(&at, ',') ||
	    !gdb_take_range(&at, &gva, &len)) {
		gdb_answer_error(s, EINVAL);
		return;
	}
	if (type > Z_ACCESS) {
		gdb_answer(s, "");
		return;
	}
	struct point p = {(uint8_t)type, gva, len};
	int n = find_point(s, &p);
	if (type >= Z_WRITE && (!len || len > 4096)) {
		gdb_answer_error(s, EINVAL);
		return;
	}
	if (set && n < 0) {
		if (s->points == VCPU_DEBUG_POINTS) {
			gdb_answer_error(s, ENOSPC);
			return;
		}
		s->point[s->points++] = p;
	} else if (!set && n >= 0) {
		s->point[n] = s->point[--s->points];
	}
	if (apply_points(s) < 0)
		gdb_answer_error(s, EINVAL);
	else
		gdb_answer(s, "OK");
}
