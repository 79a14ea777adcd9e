/* SPDX-License-Identifier: Apache-2.0 */
/* The gdb stub's protocol, against a target that is no machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control/gdb/packet.h"
#include "control/gdb/session.h"

enum { CPUS = 2, MEMORY = 0x3000 };

static struct gdb_cpu cpus[CPUS];
static uint8_t memory[MEMORY];
static struct vcpu_debug_point points[VCPU_DEBUG_POINTS];
static unsigned points_nr;
static enum gdb_action resumed[CPUS];
static unsigned resumes, stops, kills;
static char sent[1 << 17];
static size_t sent_len;

static void get_cpu(void *opaque, unsigned cpu, struct gdb_cpu *c)
{
	(void)opaque;
	*c = cpus[cpu];
}

static int set_cpu(void *opaque, unsigned cpu, const struct gdb_cpu *c)
{
	(void)opaque;
	cpus[cpu] = *c;
	return 0;
}

static bool halted(void *opaque, unsigned cpu)
{
	(void)opaque;
	return cpu == 1;
}

static int read_memory(void *opaque, unsigned cpu, uint64_t gva, void *buf, size_t len)
{
	(void)opaque, (void)cpu;
	if (gva >= MEMORY)
		return -14;
	if (len > MEMORY - gva)
		len = MEMORY - gva;
	memcpy(buf, memory + gva, len);
	return (int)len;
}

static int write_memory(void *opaque, unsigned cpu, uint64_t gva, const void *buf, size_t len)
{
	(void)opaque, (void)cpu;
	if (gva >= MEMORY || len > MEMORY - gva)
		return -14;
	memcpy(memory + gva, buf, len);
	return (int)len;
}

static int set_points(void *opaque, const struct vcpu_debug_point *p, unsigned count)
{
	(void)opaque;
	points_nr = count;
	if (count)
		memcpy(points, p, count * sizeof(p[0]));
	return 0;
}

static void resume(void *opaque, const enum gdb_action *actions)
{
	(void)opaque;
	memcpy(resumed, actions, sizeof(resumed));
	resumes++;
}

static void stop(void *opaque)
{
	(void)opaque;
	stops++;
}

static void kill_target(void *opaque)
{
	(void)opaque;
	kills++;
}

static void monitor(void *opaque, unsigned cpu, const char *command, char *out, size_t size)
{
	(void)opaque;
	snprintf(out, size, "%u:%s", cpu, command);
}

static void take(void *opaque, const void *bytes, size_t len)
{
	(void)opaque;
	assert_true(len < sizeof(sent) - sent_len);
	memcpy(sent + sent_len, bytes, len);
	sent_len += len;
	sent[sent_len] = 0;
}

static const struct gdb_target target = {
	.cpus = CPUS,
	.arch = GDB_X86_64,
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
	.send = take,
};

static struct gdb_session *session;

static int setup(void **state)
{
	(void)state;
	memset(cpus, 0, sizeof(cpus));
	for (unsigned n = 0; n < CPUS; n++)
		cpu_state_reset(&cpus[n].s, n);
	memset(memory, 0, sizeof(memory));
	points_nr = resumes = stops = kills = 0;
	assert_int_equal(gdb_session_create(&session, &target), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	gdb_session_destroy(session);
	return 0;
}

/* Sends a packet of len bytes; true while the session goes on. */
static bool put_bytes(const char *data, size_t len)
{
	static struct gdb_reply r;
	static char frame[GDB_PACKET_BYTES + 4];

	gdb_reply_clear(&r);
	memcpy(r.data, data, len);
	r.len = len;
	sent_len = 0;
	sent[0] = 0;
	return gdb_session_input(session, (uint8_t *)frame, gdb_frame(&r, frame));
}

static bool put(const char *text)
{
	return put_bytes(text, strlen(text));
}

/* The data of the last packet sent, without frame and acknowledgement. */
static const char *reply(void)
{
	static char data[GDB_PACKET_BYTES];
	char *begin = strrchr(sent, '$'), *end = begin ? strchr(begin, '#') : NULL;

	if (!end)
		return "(nothing)";
	memcpy(data, begin + 1, (size_t)(end - begin - 1));
	data[end - begin - 1] = 0;
	return data;
}

static void expect(const char *packet, const char *answer)
{
	put(packet);
	assert_string_equal(reply(), answer);
}

static void test_framing(void **state)
{
	(void)state;
	sent_len = 0;
	assert_true(gdb_session_input(session, (const uint8_t *)"x$qC#b4", 7));
	assert_string_equal(sent, "+$QC1#c5");
	sent_len = 0;
	gdb_session_input(session, (const uint8_t *)"$qC#00", 6);
	assert_string_equal(sent, "-");
	sent_len = 0;
	gdb_session_input(session, (const uint8_t *)"-", 1);
	assert_string_equal(sent, "$QC1#c5"); /* again */
	sent_len = 0;
	gdb_session_input(session, (const uint8_t *)"$garb$qC#b4", 11); /* begun anew */
	assert_string_equal(sent, "+$QC1#c5");
	expect("QStartNoAckMode", "OK");
	put("qC");
	assert_string_equal(sent, "$QC1#c5");
}

static void test_too_long(void **state)
{
	(void)state;
	sent_len = 0;
	uint8_t sum = 0;
	gdb_session_input(session, (const uint8_t *)"$", 1);
	for (unsigned n = 0; n < GDB_PACKET_BYTES + 100; n++, sum += 'a')
		gdb_session_input(session, (const uint8_t *)"a", 1);
	char end[4];
	snprintf(end, sizeof(end), "#%02x", sum);
	assert_true(gdb_session_input(session, (uint8_t *)end, 3));
	assert_string_equal(sent, "+$E07#ac");
	expect("qC", "QC1");
}

static void test_unknown(void **state)
{
	static const char *const unknown[] = {"",   "!",   "vMustReplyEmpty", "qBogus", "i", "bc",
					      "QX", "Hx0", "Z9,0,0"};
	static const char *const wrong[] = {"m",
					    "m1",
					    "m1,",
					    "mzz,1",
					    "M0,4:00",
					    "M0,1:0g",
					    "p",
					    "pffff",
					    "P0",
					    "P0=12",
					    "G00",
					    "Hg77",
					    "T9",
					    "Z0,0",
					    "Z2,0,0",
					    "X0,5:abc",
					    "vCont;x",
					    "vCont;c:99",
					    "vCont",
					    "qXfer:features:read:target.xml:zz,1",
					    "qXfer:features:read:target.xml:ffffff,1",
					    "m11112222333344445,1",
					    "C",
					    "qRcmd,f"};

	(void)state;
	for (unsigned n = 0; n < sizeof(unknown) / sizeof(unknown[0]); n++)
		expect(unknown[n], "");
	for (unsigned n = 0; n < sizeof(wrong) / sizeof(wrong[0]); n++) {
		put(wrong[n]);
		if (reply()[0] != 'E')
			fail_msg("%s: %s", wrong[n], reply());
	}
	assert_int_equal(resumes, 0);
}

static void test_registers(void **state)
{
	char all[GDB_PACKET_BYTES];

	(void)state;
	cpus[0].s.gpr[RBX] = 0x1122334455667788;
	expect("p1", "8877665544332211");
	expect("P1=0807060504030201", "OK");
	assert_int_equal(cpus[0].s.gpr[RBX], 0x0102030405060708);
	expect("p10", "f0ff000000000000"); /* rip */
	expect("p12", "00f00000");	   /* cs */
	put("g");
	assert_true(strlen(reply()) > 1000);
	snprintf(all, sizeof(all), "G%s", reply());
	cpus[0].s.gpr[R15] = 5;
	struct gdb_cpu before = cpus[0];
	before.s.gpr[R15] = 0;
	expect(all, "OK"); /* as it was read */
	assert_memory_equal(&cpus[0].s.gpr, &before.s.gpr, sizeof(before.s.gpr));
	assert_memory_equal(&cpus[0].s.xsave, &before.s.xsave, sizeof(before.s.xsave));
	assert_int_equal(cpus[0].s.cr0, before.s.cr0);
	/* The other vCPU's */
	expect("Hg2", "OK");
	cpus[1].s.gpr[RAX] = 9;
	expect("p0", "0900000000000000");
}

static void test_mxcsr(void **state)
{
	char xml[1 << 15], packet[64];
	unsigned n = 0;

	(void)state;
	char *text = gdb_target_xml(GDB_X86_64);
	snprintf(xml, sizeof(xml), "%s", text);
	free(text);
	for (char *at = strstr(xml, "<reg name="); at && strncmp(at, "<reg name=\"mxcsr\"", 17);
	     at = strstr(at + 1, "<reg name="))
		n++;
	snprintf(packet, sizeof(packet), "P%x=ffffffff", n);
	expect(packet, "OK");
	snprintf(packet, sizeof(packet), "p%x", n);
	expect(packet, "ffff0000");
}

static void test_memory(void **state)
{
	(void)state;
	expect("M10,3:0a0b0c", "OK");
	expect("m10,3", "0a0b0c");
	assert_true(put_bytes("X20,3:a}\x03", 9)); /* } 03 is # */
	assert_string_equal(reply(), "E16");	   /* three bytes announced, two came */
	assert_true(put_bytes("X20,2:a}\x03", 9));
	assert_string_equal(reply(), "OK");
	assert_int_equal(memory[0x21], '#');
	expect("x20,2", "ba}\x03");
	expect("X0,0:", "OK");
	expect("m2ffe,8", "0000"); /* what there is */
	expect("m3000,1", "E0e");
	expect("M2fff,2:0000", "E0e");
	expect("m0,ffffffffffffffff", reply()); /* cut to a packet */
	put("m0,ffffffffffffffff");
	assert_true(strlen(reply()) > 1000);
}

static void test_points(void **state)
{
	char packet[32];

	(void)state;
	expect("qSupported:swbreak+;hwbreak+;xmlRegisters=i386", reply());
	put("qSupported:swbreak+;hwbreak+;xmlRegisters=i386");
	assert_non_null(strstr(reply(), "PacketSize=4000"));
	expect("Z0,1000,1", "OK");
	expect("Z0,1000,1", "OK"); /* no second one */
	assert_int_equal(points_nr, 1);
	assert_int_equal(points[0].len, 0);
	expect("Z2,2000,4", "OK");
	expect("Z3,2008,8", "OK");
	assert_int_equal(points_nr, 3);
	assert_true(points[1].on_write && !points[1].on_read && points[1].len == 4);
	assert_true(points[2].on_read && !points[2].on_write);
	put("c");
	assert_string_equal(sent, "+");
	gdb_session_stopped(session, &(struct gdb_stop){1, GDB_STOP_POINT, 0x1000});
	assert_string_equal(reply(), "T05thread:2;swbreak:;");
	put("c");
	gdb_session_stopped(session, &(struct gdb_stop){0, GDB_STOP_POINT, 0x2000});
	assert_string_equal(reply(), "T05thread:1;watch:2000;");
	expect("z2,2000,4", "OK");
	expect("z2,2000,4", "OK"); /* gone already */
	assert_int_equal(points_nr, 2);
	for (unsigned n = 0; n < VCPU_DEBUG_POINTS - 2; n++) {
		snprintf(packet, sizeof(packet), "Z1,%x,1", 0x5000 + n);
		expect(packet, "OK");
	}
	expect("Z1,9000,1", "E1c");
}

static void test_running(void **state)
{
	const uint8_t ctrl_c = 3;

	(void)state;
	expect("vCont?", "vCont;c;C;s;S;t");
	put("vCont;s:2;c");
	assert_int_equal(resumed[0], GDB_CONTINUE);
	assert_int_equal(resumed[1], GDB_STEP);
	put("g"); /* no answer while running */
	assert_string_equal(sent, "+");
	gdb_session_input(session, &ctrl_c, 1);
	assert_int_equal(stops, 1);
	gdb_session_stopped(session, &(struct gdb_stop){0, GDB_STOP_ASKED, 0});
	assert_string_equal(reply(), "T02thread:1;");
	gdb_session_input(session, &ctrl_c, 1); /* stands still: nothing to stop */
	assert_int_equal(stops, 1);
	put("vCont;s:1");
	assert_int_equal(resumed[0], GDB_STEP);
	assert_int_equal(resumed[1], GDB_HOLD);
	gdb_session_stopped(session, &(struct gdb_stop){0, GDB_STOP_STEP, 0});
	assert_string_equal(reply(), "T05thread:1;");
	expect("Hc2", "OK");
	put("s1234");
	assert_int_equal(cpus[1].s.rip, 0x1234);
	assert_int_equal(resumed[1], GDB_STEP);
	gdb_session_exited(session);
	assert_string_equal(reply(), "W00");
}

static void test_threads(void **state)
{
	(void)state;
	expect("qfThreadInfo", "m1,2");
	expect("qsThreadInfo", "l");
	expect("T2", "OK");
	expect("qThreadExtraInfo,2", "764350552031205b68616c7465645d"); /* vCPU 1 [halted] */
	put("qXfer:threads:read::0,1000");
	assert_non_null(strstr(reply(), "<thread id=\"2\" core=\"1\""));
}

static void test_description(void **state)
{
	char whole[1 << 15] = "", packet[64];

	(void)state;
	for (unsigned at = 0;; at += 100) { /* in pieces */
		snprintf(packet, sizeof(packet), "qXfer:features:read:target.xml:%x,64", at);
		put(packet);
		assert_true(reply()[0] == 'm' || reply()[0] == 'l');
		strcat(whole, reply() + 1);
		if (reply()[0] == 'l')
			break;
	}
	char *text = gdb_target_xml(GDB_X86_64);
	assert_string_equal(whole, text); /* it has no characters that are escaped */
	free(text);
}

static void test_monitor_and_end(void **state)
{
	(void)state;
	put("qRcmd,68656c70");
	assert_non_null(strstr(sent, "$O303a68656c70#")); /* 0:help */
	assert_string_equal(reply(), "OK");
	assert_false(put("D"));
	assert_string_equal(reply(), "OK");
	assert_int_equal(kills, 0);
	gdb_session_destroy(session);
	assert_int_equal(gdb_session_create(&session, &target), 0);
	assert_false(put("k"));
	assert_int_equal(kills, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_framing),	TEST(test_too_long),	    TEST(test_unknown),
		TEST(test_registers),	TEST(test_mxcsr),	    TEST(test_memory),
		TEST(test_points),	TEST(test_running),	    TEST(test_threads),
		TEST(test_description), TEST(test_monitor_and_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
