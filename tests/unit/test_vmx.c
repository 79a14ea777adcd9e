/* SPDX-License-Identifier: Apache-2.0 */
/* .vmx files: what comes out is what went in, but for what was set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "machine/vmx.h"

/* As VMware Workstation lays one out; values are made up. */
static const char workstation[] =
	"#!/usr/bin/vmware\n"
	".encoding = \"UTF-8\"\n"
	"config.version = \"8\"\n"
	"virtualHW.version = \"19\"\n"
	"mks.enable3d = \"TRUE\"\n"
	"pciBridge0.present = \"TRUE\"\n"
	"pciBridge4.virtualDev = \"pcieRootPort\"\n"
	"displayName = \"Mail |22old|22 \xed\x95\x9c\xec\x98\xa5\"\n"
	"guestOS = \"debian11-64\"\n"
	"nvram = \"mail.nvram\"\n"
	"memsize = \"2048\"\n"
	"numvcpus = \"2\"\n"
	"scsi0.virtualDev = \"pvscsi\"\n"
	"scsi0.present = \"TRUE\"\n"
	"scsi0:0.fileName = \"mail.vmdk\"\n"
	"scsi0:0.present = \"TRUE\"\n"
	"ethernet0.connectionType = \"nat\"\n"
	"ethernet0.generatedAddress = \"00:0c:29:3e:5b:7a\"\n"
	"uuid.bios = \"56 4d 8c 4e 1f 2a 9b 33-8a 07 5c 2e 90 3e 5b 7a\"\n"
	"guestInfo.note = \"a|0Ab|7Cc\"\n"
	"scsi0:0.redo = \"\"\n"
	"vmotion.checkpointFBSize = \"4194304\"\n";

/* By hand, from Windows: CRLF, blanks, comments, no quotes, no newline at the end. */
static const char by_hand[] = "  # made by hand\r\n"
			      "\r\n"
			      "MEMSIZE=512\r\n"
			      "\tdisplayname   =  web server   # the old one\r\n"
			      "numvcpus = \"1\"   # one will do\r\n"
			      "annotation = \"C:|5Ctemp # not a comment\"\r\n"
			      "last = \"1\"";

static struct vmx *parse(const char *text)
{
	struct error err = {""};
	struct vmx *v;

	if (vmx_parse(&v, text, strlen(text), "x.vmx", &err))
		fail_msg("%s", err.text);
	return v;
}

static void assert_text(struct vmx *v, const char *expected)
{
	char *text;
	size_t len;

	assert_int_equal(vmx_format(v, &text, &len), 0);
	text = realloc(text, len + 1);
	text[len] = 0;
	assert_string_equal(text, expected);
	free(text);
}

static void set(struct vmx *v, const char *key, const char *value)
{
	assert_int_equal(vmx_set(v, key, value, NULL), 0);
}

/* ---- reading ---- */

static void test_untouched(void **state)
{
	const char *const samples[] = {workstation,
				       by_hand,
				       "",
				       "\n",
				       "a=1",
				       "\xef\xbb\xbfx = \"1\"\r\n",
				       "a = \"1\"\r\nb = \"2\"\nc = \"3\"\r\n"};

	(void)state;
	for (unsigned i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
		struct vmx *v = parse(samples[i]);
		assert_text(v, samples[i]);
		vmx_destroy(v);
	}
}

static void test_values(void **state)
{
	struct vmx *v = parse(workstation);

	(void)state;
	assert_string_equal(vmx_get(v, "displayName"), "Mail \"old\" \xed\x95\x9c\xec\x98\xa5");
	assert_string_equal(vmx_get(v, "DISPLAYNAME"), "Mail \"old\" \xed\x95\x9c\xec\x98\xa5");
	assert_string_equal(vmx_get(v, "guestinfo.NOTE"), "a\nb|c");
	assert_string_equal(vmx_get(v, "scsi0:0.redo"), "");
	assert_null(vmx_get(v, "scsi0:1.fileName"));
	vmx_destroy(v);

	v = parse(by_hand);
	assert_string_equal(vmx_get(v, "memsize"), "512");
	assert_string_equal(vmx_get(v, "displayName"), "web server");
	assert_string_equal(vmx_get(v, "annotation"), "C:\\temp # not a comment");
	assert_string_equal(vmx_get(v, "last"), "1");
	vmx_destroy(v);
}

static void test_odd_escapes(void **state)
{
	struct vmx *v =
		parse("a = \"|\"\nb = \"|4\"\nc = \"|zz|41\"\nd = \"|00x\"\ne = \"||7C\"\n");

	(void)state;
	assert_string_equal(vmx_get(v, "a"), "|");
	assert_string_equal(vmx_get(v, "b"), "|4");
	assert_string_equal(vmx_get(v, "c"), "|zzA");
	assert_string_equal(vmx_get(v, "d"), "|00x");
	assert_string_equal(vmx_get(v, "e"), "||");
	vmx_destroy(v);
}

static void test_entries(void **state)
{
	struct vmx *v = parse("# x\nb = \"1\"\n\nA = \"2\"\n");
	const char *key, *value;

	(void)state;
	assert_true(vmx_entry(v, 0, &key, &value));
	assert_string_equal(key, "b");
	assert_true(vmx_entry(v, 1, &key, &value));
	assert_string_equal(key, "A");
	assert_string_equal(value, "2");
	assert_false(vmx_entry(v, 2, &key, &value));
	vmx_destroy(v);
}

static void test_refused(void **state)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{"a = \"1\"\nnonsense\n", "x.vmx: line 2: not of the form"},
		{"= \"1\"\n", "line 1: not of the form"},
		{"a b = \"1\"\n", "line 1: not of the form"},
		{"a = \"1\n", "line 1: the value's quote is not closed"},
		{"a = \"1\" \"2\"\n", "line 1: something follows"},
		{"a = x\"1\"\n", "line 1: a quote in the middle"},
		{"memsize = \"1\"\n\nMemSize = \"2\"\n", "line 3: MemSize is there twice"},
		{".encoding = \"klingon\"\na = \"\xff\"\n", ".encoding = \"klingon\""},
		{".encoding = \"EUC-KR\"\na = \"\xff\xff\"\n", ".encoding = \"EUC-KR\""},
	};
	struct vmx *v;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct error err = {""};
		assert_true(vmx_parse(&v, bad[i].text, strlen(bad[i].text), "x.vmx", &err) < 0);
		assert_null(v);
		if (!strstr(err.text, bad[i].says))
			fail_msg("'%s' does not say '%s'", err.text, bad[i].says);
	}
	assert_true(vmx_parse(&v, "a = \"\0\"\n", 8, "x.vmx", NULL) < 0);
}

static void test_too_much(void **state)
{
	char *text = malloc(VMX_BYTES_MAX + 1), *to = text;
	struct vmx *v;

	(void)state;
	memset(text, '\n', VMX_BYTES_MAX + 1);
	assert_true(vmx_parse(&v, text, VMX_BYTES_MAX + 1, "x", NULL) < 0);
	for (unsigned i = 0; i < VMX_KEYS_MAX; i++)
		to += sprintf(to, "k%u=1\n", i);
	assert_int_equal(vmx_parse(&v, text, (size_t)(to - text), "x", NULL), 0);
	assert_true(vmx_set(v, "more", "1", NULL) < 0);
	set(v, "k7", "2");
	vmx_destroy(v);
	to += sprintf(to, "more=1\n");
	assert_true(vmx_parse(&v, text, (size_t)(to - text), "x", NULL) < 0);
	free(text);
}

static void test_encodings(void **state)
{
	/* 한옥 in EUC-KR. */
	struct vmx *v = parse(".encoding = \"EUC-KR\"\ndisplayName = \"\xc7\xd1\xbf\xc1\"\n");

	(void)state;
	assert_string_equal(vmx_get(v, "displayName"), "\xed\x95\x9c\xec\x98\xa5");
	assert_text(v, ".encoding = \"UTF-8\"\ndisplayName = \"\xed\x95\x9c\xec\x98\xa5\"\n");
	vmx_destroy(v);
	/* Nothing but ASCII in it: the same in any of them. */
	v = parse(".encoding = \"windows-1252\"\na = \"b\"\n");
	assert_text(v, ".encoding = \"windows-1252\"\na = \"b\"\n");
	vmx_destroy(v);
}

static void test_typed(void **state)
{
	struct vmx *v =
		parse("t = \"TRUE\"\nf = \"false\"\ny = \"Yes\"\nz = \"0\"\nodd = \"maybe\"\n"
		      "e = \"\"\nn = \"2048\"\nneg = \"-1\"\nhuge = \"99999999999999999999\"\n");
	struct error err;
	uint64_t n;
	bool b;

	(void)state;
	assert_true(!vmx_get_bool(v, "t", false, &b, NULL) && b);
	assert_true(!vmx_get_bool(v, "f", true, &b, NULL) && !b);
	assert_true(!vmx_get_bool(v, "y", false, &b, NULL) && b);
	assert_true(!vmx_get_bool(v, "z", true, &b, NULL) && !b);
	assert_true(!vmx_get_bool(v, "e", true, &b, NULL) && b);
	assert_true(!vmx_get_bool(v, "none", true, &b, NULL) && b);
	assert_true(vmx_get_bool(v, "odd", true, &b, &err) < 0);
	assert_string_equal(err.text, "x.vmx: odd = \"maybe\": it is either TRUE or FALSE");
	assert_true(!vmx_get_number(v, "n", 1, 1, 4096, &n, NULL) && n == 2048);
	assert_true(!vmx_get_number(v, "none", 7, 1, 4096, &n, NULL) && n == 7);
	assert_true(vmx_get_number(v, "n", 1, 1, 2047, &n, &err) < 0);
	assert_string_equal(err.text, "x.vmx: n = \"2048\": it must be from 1 to 2047");
	assert_true(vmx_get_number(v, "neg", 1, 0, UINT64_MAX, &n, NULL) < 0);
	assert_true(vmx_get_number(v, "huge", 1, 0, UINT64_MAX, &n, NULL) < 0);
	assert_true(vmx_get_number(v, "t", 1, 0, UINT64_MAX, &n, NULL) < 0);
	vmx_destroy(v);
}

/* ---- writing ---- */

static void test_set(void **state)
{
	struct vmx *v = parse(by_hand);

	(void)state;
	set(v, "memsize", "1024");
	set(v, "displayName", "a \"b\" | c\n\xed\x95\x9c");
	set(v, "new:key.1", "");
	assert_text(v, "  # made by hand\r\n"
		       "\r\n"
		       "MEMSIZE = \"1024\"\r\n"
		       "displayname = \"a |22b|22 |7C c|0A\xed\x95\x9c\"\r\n"
		       "numvcpus = \"1\"   # one will do\r\n"
		       "annotation = \"C:|5Ctemp # not a comment\"\r\n"
		       "last = \"1\"\r\n"
		       "new:key.1 = \"\"\r\n");
	assert_string_equal(vmx_get(v, "displayname"), "a \"b\" | c\n\xed\x95\x9c");
	vmx_unset(v, "ANNOTATION");
	vmx_unset(v, "not there");
	assert_null(vmx_get(v, "annotation"));
	assert_true(vmx_set(v, "two words", "1", NULL) < 0);
	assert_true(vmx_set(v, "", "1", NULL) < 0);
	assert_true(vmx_set(v, "a=b", "1", NULL) < 0);
	vmx_destroy(v);
}

/* Every byte that a string can have survives. */
static void test_all_bytes(void **state)
{
	char value[256], *text;
	struct vmx *v, *again;
	size_t len;

	(void)state;
	for (unsigned i = 0; i < 255; i++)
		value[i] = (char)(i + 1);
	value[255] = 0;
	assert_int_equal(vmx_create(&v, NULL), 0);
	set(v, "all", value);
	assert_int_equal(vmx_format(v, &text, &len), 0);
	assert_int_equal(vmx_parse(&again, text, len, "x", NULL), 0);
	assert_string_equal(vmx_get(again, "all"), value);
	assert_string_equal(vmx_get(again, ".encoding"), "UTF-8");
	free(text);
	vmx_destroy(v);
	vmx_destroy(again);
}

static void test_files(void **state)
{
	char folder[] = "/tmp/test-vmx-XXXXXX", path[64];
	struct error err;
	struct vmx *v;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/a.vmx", folder);
	assert_true(vmx_read(&v, path, &err) < 0);
	assert_non_null(strstr(err.text, path));
	v = parse(workstation);
	assert_int_equal(vmx_write(v, path, &err), 0);
	set(v, "memsize", "4096");
	assert_int_equal(vmx_write(v, path, &err), 0);
	vmx_destroy(v);
	assert_int_equal(vmx_read(&v, path, &err), 0);
	assert_string_equal(vmx_get(v, "memsize"), "4096");
	assert_string_equal(vmx_name(v), path);
	vmx_destroy(v);
	assert_int_equal(unlink(path), 0);
	/* Nothing else is left behind. */
	assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_untouched),   cmocka_unit_test(test_values),
		cmocka_unit_test(test_odd_escapes), cmocka_unit_test(test_entries),
		cmocka_unit_test(test_refused),	    cmocka_unit_test(test_too_much),
		cmocka_unit_test(test_encodings),   cmocka_unit_test(test_typed),
		cmocka_unit_test(test_set),	    cmocka_unit_test(test_all_bytes),
		cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
