/* SPDX-License-Identifier: Apache-2.0 */
/* disk/vmsd.h: what VMware writes is read, what we write is read again, what is broken is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk/file.h"
#include "disk/vmsd.h"

static char path[] = "/tmp/hanok-vmsd-XXXXXX";

static void put(const char *text)
{
	assert_int_equal(file_replace(path, text, strlen(text), NULL), 0);
}

/* The shape of what ESXi writes: gaps, any order, keys that we know nothing of, a negative half. */
static const char theirs[] = ".encoding = \"UTF-8\"\r\n"
			     "snapshot.lastUID = \"4\"\r\n"
			     "snapshot.current = \"4\"\r\n"
			     "snapshot0.uid = \"1\"\r\n"
			     "snapshot0.filename = \"vm-Snapshot1.vmsn\"\r\n"
			     "snapshot0.displayName = \"after |22setup|22\"\r\n"
			     "snapshot0.description = \"two|0Alines\"\r\n"
			     "snapshot0.createTimeHigh = \"388745\"\r\n"
			     "snapshot0.createTimeLow = \"-814770620\"\r\n"
			     "snapshot0.clone0 = \"/vm/clone/clone.vmx\"\r\n"
			     "snapshot0.numClones = \"1\"\r\n"
			     "snapshot0.numDisks = \"2\"\r\n"
			     "snapshot0.disk0.fileName = \"vm.vmdk\"\r\n"
			     "snapshot0.disk0.node = \"scsi0:0\"\r\n"
			     "snapshot0.disk1.fileName = \"/data/vm_1.vmdk\"\r\n"
			     "snapshot0.disk1.node = \"nvme0:1\"\r\n"
			     "snapshot.numSnapshots = \"2\"\r\n"
			     "snapshot2.displayName = \"second\"\r\n"
			     "snapshot2.uid = \"4\"\r\n"
			     "snapshot2.parent = \"1\"\r\n"
			     "snapshot2.type = \"1\"\r\n"
			     "snapshot2.numDisks = \"1\"\r\n"
			     "snapshot2.disk0.fileName = \"vm-000001.vmdk\"\r\n"
			     "snapshot2.disk0.node = \"scsi0:0\"\r\n"
			     "snapshot.mru0.uid = \"4\"\r\n";

static void check_theirs(const struct vmsd *v)
{
	assert_int_equal(v->last_uid, 4);
	assert_int_equal(v->current, 4);
	assert_int_equal(v->count, 2);
	const struct vmsd_snapshot *s = vmsd_find(v, 1);
	assert_string_equal(s->name, "after \"setup\"");
	assert_string_equal(s->description, "two\nlines");
	assert_string_equal(s->state_file, "vm-Snapshot1.vmsn");
	assert_true(s->created_us == (UINT64_C(388745) << 32 | (uint32_t)INT32_C(-814770620)));
	assert_int_equal(s->clones, 1);
	assert_string_equal(s->clone[0], "/vm/clone/clone.vmx");
	assert_int_equal(s->disks, 2);
	assert_string_equal(s->disk[1].file, "/data/vm_1.vmdk");
	assert_string_equal(s->disk[1].node, "nvme0:1");
	s = vmsd_find(v, 4);
	assert_int_equal(s->parent, 1);
	assert_int_equal(s->lines, 1);
	assert_string_equal(s->line[0].key, "type");
	assert_int_equal(v->lines, 1);
	assert_string_equal(v->line[0].key, "snapshot.mru0.uid");
}

static void vmware_is_read_and_kept(void **state)
{
	struct vmsd v;

	(void)state;
	put(theirs);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(vmsd_load(&v, path, NULL), 0);
		check_theirs(&v);
		assert_int_equal(vmsd_save(&v, path, NULL), 0);
		vmsd_free(&v);
	}
}

static void tree_grows_and_shrinks(void **state)
{
	struct vmsd_snapshot *s;
	struct error err;
	struct vmsd v;

	(void)state;
	unlink(path);
	assert_int_equal(vmsd_load(&v, path, NULL), 0);
	assert_int_equal(v.count, 0);
	for (int i = 0; i < 3; i++) {
		s = vmsd_add(&v, i == 2 ? "twin" : "a|b\"c", "");
		assert_non_null(s);
		assert_int_equal(vmsd_add_disk(s, "scsi0:0", "d.vmdk"), 0);
	}
	assert_non_null(vmsd_add(&v, "twin", NULL));
	assert_int_equal(vmsd_find(&v, 4)->parent, 3);
	assert_int_equal(vmsd_find_name(&v, "twin", &s, &err), -EINVAL);
	assert_int_equal(vmsd_find_name(&v, "3", &s, &err), 0);
	assert_int_equal(s->uid, 3);
	assert_int_equal(vmsd_find_name(&v, "nobody", &s, &err), -ENOENT);
	vmsd_remove(&v, vmsd_find(&v, 3));
	assert_int_equal(vmsd_find(&v, 4)->parent, 2);
	vmsd_remove(&v, vmsd_find(&v, 4));
	assert_int_equal(v.current, 2);
	v.need_consolidate = true;
	assert_int_equal(vmsd_save(&v, path, NULL), 0);
	vmsd_free(&v);
	assert_int_equal(vmsd_load(&v, path, NULL), 0);
	assert_int_equal(v.count, 2);
	assert_int_equal(v.last_uid, 4);
	assert_true(v.need_consolidate);
	assert_string_equal(vmsd_find(&v, 2)->name, "a|b\"c");
	/* A uid is never given twice. */
	assert_int_equal(vmsd_add(&v, "new", "")->uid, 5);
	vmsd_free(&v);
}

static void broken_ones_are_refused(void **state)
{
	static const char *const texts[] = {
		"snapshot0.uid\n",
		"snapshot0.uid = \"1\n",
		"snapshot0.uid = \"one\"\n",
		"snapshot.current = \"7\"\n",
		"snapshot0.uid = \"1\"\nsnapshot0.parent = \"1\"\n",
		"snapshot0.uid = \"1\"\nsnapshot1.uid = \"1\"\n",
		("snapshot0.uid = \"1\"\nsnapshot0.parent = \"2\"\nsnapshot1.uid = \"2\"\n"
		 "snapshot1.parent = \"1\"\n"),
		"= \"x\"\n",
	};
	struct error err;
	struct vmsd v;

	(void)state;
	for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		put(texts[i]);
		assert_int_equal(vmsd_load(&v, path, &err), -EINVAL);
		assert_non_null(strstr(err.text, path));
		vmsd_free(&v);
	}
	/* Indices beyond all measure are lines like any other. */
	put("snapshot4000000000.uid = \"1\"\nsnapshot0.uid = \"1\"\n"
	    "snapshot0.disk99999999.fileName = \"x\"\n");
	assert_int_equal(vmsd_load(&v, path, &err), 0);
	assert_int_equal(v.count, 1);
	assert_int_equal(v.snapshot[0].disks, 0);
	vmsd_free(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vmware_is_read_and_kept),
		cmocka_unit_test(tree_grows_and_shrinks),
		cmocka_unit_test(broken_ones_are_refused),
	};
	int fd = mkstemp(path);

	if (fd < 0)
		return 1;
	close(fd);
	int failed = cmocka_run_group_tests_name("disk vmsd", tests, NULL, NULL);
	unlink(path);
	return failed;
}
