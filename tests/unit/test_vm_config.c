/* SPDX-License-Identifier: Apache-2.0 */
/* What a .vmx asks for, as a machine's parts; and what is refused, with the key named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "machine/vm_config.h"

static struct vmx *parse(const char *text)
{
	struct error err = {""};
	struct vmx *v;

	if (vmx_parse(&v, text, strlen(text), "/vms/mail/mail.vmx", &err))
		fail_msg("%s", err.text);
	return v;
}

static void read_ok(struct vm_config *c, struct vmx *v)
{
	struct error err = {""};

	if (vm_config_read(c, v, "/vms/mail", &err))
		fail_msg("%s", err.text);
}

static const char *const full = "displayName = \"Mail server\"\n"
				"guestOS = \"debian12-64\"\n"
				"memsize = \"2048\"\n"
				"sched.mem.min = \"256\"\n"
				"sched.mem.minSize = \"128\"\n"
				"sched.mem.max = \"1024\"\n"
				"sched.mem.shares = \"high\"\n"
				"hanok.mem.share = \"TRUE\"\n"
				"numvcpus = \"2\"\n"
				"firmware = \"efi\"\n"
				"uuid.bios = \"56 4d\"\n"
				"scsi0.present = \"TRUE\"\n"
				"scsi0.virtualDev = \"pvscsi\"\n"
				"scsi0:0.present = \"TRUE\"\n"
				"scsi0:0.fileName = \"mail.vmdk\"\n"
				"scsi0:8.present = \"TRUE\"\n"
				"scsi0:8.fileName = \"/data/big.vmdk\"\n"
				"scsi0:1.present = \"FALSE\"\n"
				"scsi0:1.fileName = \"not there.vmdk\"\n"
				"sata0.present = \"TRUE\"\n"
				"sata0:1.present = \"TRUE\"\n"
				"sata0:1.deviceType = \"cdrom-image\"\n"
				"sata0:1.fileName = \"install.iso\"\n"
				"sata0:2.present = \"TRUE\"\n"
				"sata0:2.deviceType = \"cdrom-raw\"\n"
				"sata0:2.fileName = \"auto detect\"\n"
				"ide1:0.present = \"TRUE\"\n"
				"ide1:0.fileName = \"old.vmdk\"\n"
				"hanok.virtio3:0.present = \"TRUE\"\n"
				"hanok.virtio3:0.fileName = \"fast.vmdk\"\n"
				"serial0.present = \"TRUE\"\n"
				"serial0.fileType = \"file\"\n"
				"serial0.fileName = \"com1.txt\"\n"
				"serial1.present = \"TRUE\"\n"
				"serial1.fileType = \"thinprint\"\n"
				"ethernet0.present = \"TRUE\"\n"
				"ethernet0.virtualDev = \"virtio\"\n"
				"ethernet0.connectionType = \"nat\"\n"
				"ethernet0.generatedAddress = \"00:0c:29:AB:cd:ef\"\n"
				"hanok.ethernet0.forwards = \"tcp:2222-22,udp:53-53\"\n"
				"ethernet1.present = \"FALSE\"\n"
				"hanok.mem.balloon = \"off\"\n"
				"hanok.engine = \"interp\"\n"
				"hanok.kernel = \"vmlinuz\"\n"
				"hanok.initrd = \"/boot/initrd\"\n"
				"hanok.append = \"console=ttyS0 quiet\"\n"
				"svga.present = \"TRUE\"\n";

static void expect_drive(const struct vm_config *c, const char *kind, unsigned target,
			 const char *path, bool cdrom)
{
	for (unsigned i = 0; i < c->storage.drives; i++) {
		const struct storage_drive *d = &c->storage.drive[i];
		if (strcmp(c->storage.controller[d->controller]->name, kind) || d->target != target)
			continue;
		assert_int_equal(d->cdrom, cdrom);
		if (path)
			assert_string_equal(d->path, path);
		else
			assert_null(d->path);
		return;
	}
	fail_msg("no drive %u on %s", target, kind);
}

static void test_full(void **state)
{
	struct vmx *v = parse(full);
	struct vm_config c;

	(void)state;
	read_ok(&c, v);
	assert_string_equal(c.name, "Mail server");
	assert_string_equal(c.guest_os, "debian12-64");
	assert_string_equal(c.uuid, "56 4d");
	assert_true(c.memory_bytes == UINT64_C(2048) << 20);
	assert_true(c.memory_min_bytes == UINT64_C(256) << 20);
	assert_true(c.memory_limit_bytes == UINT64_C(1024) << 20);
	assert_int_equal(mem_shares_of(&c.memory_shares, c.memory_bytes), 20 * 2048);
	assert_true(c.memory_share);
	assert_int_equal(c.cpus, 2);
	assert_string_equal(c.engine, "interp");
	assert_string_equal(c.kernel, "/vms/mail/vmlinuz");
	assert_string_equal(c.initrd, "/boot/initrd");
	assert_string_equal(c.append, "console=ttyS0 quiet");
	assert_string_equal(c.serial[0], "file:/vms/mail/com1.txt");
	assert_null(c.serial[1]);
	assert_int_equal(c.balloon, BALLOON_OFF);
	assert_int_equal(c.nics.cards, 1);
	assert_int_equal(c.nics.card[0].cable, NIC_NAT);
	assert_memory_equal(c.nics.card[0].mac, "\x00\x0c\x29\xab\xcd\xef", 6);
	assert_int_equal(c.nics.card[0].forwards, 2);
	assert_string_equal(c.nics.card[0].forward[1], "udp:53-53");
	assert_int_equal(c.storage.drives, 6);
	expect_drive(&c, "pvscsi", 0, "/vms/mail/mail.vmdk", false);
	expect_drive(&c, "pvscsi", 8, "/data/big.vmdk", false);
	expect_drive(&c, "ahci", 1, "/vms/mail/install.iso", true);
	expect_drive(&c, "ahci", 2, NULL, true);
	expect_drive(&c, "ide", 2, "/vms/mail/old.vmdk", false);
	expect_drive(&c, "virtio-blk", 0, "/vms/mail/fast.vmdk", false);
	vm_config_free(&c);
	vmx_destroy(v);
}

/* Addresses that nobody gave follow from uuid.bios, or from the file's name. */
static void test_nics(void **state)
{
	static const char *const text =
		"uuid.bios = \"56 4d 8c 4e 1f 2a 9b 33-8a 07 5c 2e 90 3e ff fa\"\n"
		"ethernet0.present = \"TRUE\"\n"
		"ethernet0.virtualDev = \"virtio\"\n"
		"ethernet0.connectionType = \"hostonly\"\n"
		"ethernet1.present = \"TRUE\"\n"
		"ethernet1.virtualDev = \"virtio\"\n"
		"ethernet1.connectionType = \"custom\"\n"
		"ethernet1.vnet = \"/dev/vmnet2\"\n"
		"ethernet1.networkName = \"lab\"\n"
		"ethernet2.present = \"TRUE\"\n"
		"ethernet2.virtualDev = \"VirtIO\"\n"
		"ethernet2.addressType = \"static\"\n"
		"ethernet2.address = \"00:50:56:01:02:03\"\n"
		"ethernet3.present = \"TRUE\"\n"
		"ethernet3.virtualDev = \"virtio\"\n"
		"ethernet3.startConnected = \"FALSE\"\n"
		"ethernet3.generatedAddressOffset = \"7\"\n";
	struct vmx *v = parse(text);
	struct vm_config c, again;

	(void)state;
	read_ok(&c, v);
	assert_int_equal(c.nics.cards, 4);
	assert_memory_equal(c.nics.card[0].mac, "\x00\x0c\x29\x3e\xff\xfa", 6);
	assert_string_equal(c.nics.card[0].network, "hostonly");
	assert_null(c.nics.card[0].group);
	assert_memory_equal(c.nics.card[1].mac, "\x00\x0c\x29\x3f\x00\x04", 6);
	assert_string_equal(c.nics.card[1].network, "vmnet2");
	assert_string_equal(c.nics.card[1].group, "lab");
	assert_memory_equal(c.nics.card[2].mac, "\x00\x50\x56\x01\x02\x03", 6);
	assert_string_equal(c.nics.card[2].network, "bridged");
	assert_int_equal(c.nics.card[3].cable, NIC_UNPLUGGED);
	assert_memory_equal(c.nics.card[3].mac, "\x00\x0c\x29\x3f\x00\x01", 6);
	vm_config_free(&c);
	vmx_unset(v, "uuid.bios");
	read_ok(&c, v);
	read_ok(&again, v);
	assert_memory_equal(c.nics.card[0].mac, again.nics.card[0].mac, 6);
	assert_memory_equal(c.nics.card[0].mac, "\x00\x0c\x29", 3);
	vm_config_free(&c);
	vm_config_free(&again);
	vmx_destroy(v);
}

static void test_nothing_said(void **state)
{
	struct vmx *v = parse("");
	struct vm_config c;

	(void)state;
	read_ok(&c, v);
	assert_string_equal(c.name, "mail");
	assert_string_equal(c.engine, "auto");
	assert_int_equal(c.cpus, 1);
	assert_true(c.memory_bytes == UINT64_C(512) << 20);
	assert_true(c.memory_min_bytes == 0 && c.memory_limit_bytes == 0);
	assert_int_equal(mem_shares_of(&c.memory_shares, c.memory_bytes), 5120);
	assert_false(c.memory_share);
	assert_int_equal(c.storage.drives, 0);
	assert_int_equal(c.balloon, BALLOON_AUTO);
	assert_null(c.kernel);
	vm_config_free(&c);
	vmx_destroy(v);
	v = parse("hanok.balloon = \"FALSE\"\nhanok.mem.balloon = \"auto\"\n");
	read_ok(&c, v);
	assert_int_equal(c.balloon, BALLOON_NONE);
	vm_config_free(&c);
	vmx_destroy(v);
}

#define NIC "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"virtio\"\n"

static void test_refused(void **state)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{"memsize = \"lots\"\n", "memsize = \"lots\": not a number"},
		{"memsize = \"0\"\n", "memsize = \"0\": it must be from 1"},
		{"numvcpus = \"256\"\n", "numvcpus = \"256\""},
		{"sched.mem.shares = \"lots\"\n", "sched.mem.shares = \"lots\": it is low, normal"},
		{"sched.mem.minSize = \"-1\"\n", "sched.mem.minSize"},
		{"hanok.mem.share = \"some\"\n", "hanok.mem.share"},
		{"hanok.balloon = \"red\"\n", "hanok.balloon = \"red\""},
		{"hanok.mem.balloon = \"on\"\n", "hanok.mem.balloon = \"on\": it is either"},
		{"firmware = \"openfirmware\"\n", "either bios or efi"},
		{"scsi0.present = \"maybe\"\n", "scsi0.present"},
		{"scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"buslogic\"\n",
		 "set it to \"lsilogic\""},
		{"scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"steam\"\n", "\"steam\""},
		{"scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a\"\n",
		 "set scsi0.present = \"TRUE\""},
		{"ide0:0.present = \"TRUE\"\n", "ide0:0.fileName: missing"},
		{"ide0:0.present = \"TRUE\"\nide0:0.fileName = \"a\"\n"
		 "ide0:0.mode = \"independent-nonpersistent\"\n",
		 "take a snapshot"},
		{"serial0.present = \"TRUE\"\nserial0.fileType = \"file\"\n",
		 "serial0.fileName: missing"},
		{"scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\n"
		 "scsi0:63.present = \"TRUE\"\nscsi0:63.fileName = \"a\"\n",
		 "scsi0:63: "},
		{"hanok.virtio0:0.present = \"2\"\n", "hanok.virtio0:0.present"},
		{"ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vlance\"\n",
		 "ethernet0.virtualDev: vlance: no such network card"},
		{NIC "ethernet0.connectionType = \"wifi\"\n",
		 "ethernet0.connectionType = \"wifi\": it is nat"},
		{NIC "ethernet0.connectionType = \"custom\"\n", "ethernet0.vnet: missing"},
		{NIC "ethernet0.addressType = \"static\"\n", "ethernet0.address: missing"},
		{NIC "ethernet0.generatedAddress = \"01:00:5e:00:00:01\"\n",
		 "ethernet0.generatedAddress: 01:00:5e"},
		{NIC "ethernet0.generatedAddress = \"00:0c:29:1:2:3\"\n", "no address of a card"},
		{NIC "ethernet0.connectionType = \"nat\"\nhanok.ethernet0.forwards = \"tcp:x\"\n",
		 "ethernet0: "},
		{NIC "hanok.ethernet0.forwards = \"tcp:22-22\"\n", "only NAT forwards"},
	};
	struct vm_config c;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct vmx *v = parse(bad[i].text);
		struct error err = {""};
		assert_true(vm_config_read(&c, v, "/vms/mail", &err) < 0);
		if (!strstr(err.text, bad[i].says) || !strstr(err.text, "mail"))
			fail_msg("'%s' does not say '%s'", err.text, bad[i].says);
		vm_config_free(&c);
		vmx_destroy(v);
	}
}

static int count(void *opaque, const char *key, const char *file_name)
{
	unsigned *n = opaque;

	assert_true(*key && *file_name);
	(*n)++;
	return 0;
}

/* What is added is found again where it was put, for each kind of controller. */
static void test_add_disks(void **state)
{
	char name[32];

	(void)state;
	for (unsigned i = 0; storage_kinds[i]; i++) {
		const struct storage_kind *k = storage_kinds[i];
		unsigned disks = 0, found = 0;
		struct vm_config c;
		struct vmx *v = parse("");
		for (; disks < 9; disks++) {
			snprintf(name, sizeof(name), "%u.vmdk", disks);
			if (vm_config_add_disk(v, k, disks, name, NULL) < 0)
				break;
		}
		assert_true(disks >= 4);
		read_ok(&c, v);
		assert_int_equal(c.storage.drives, disks);
		for (unsigned d = 0; d < disks; d++) {
			snprintf(name, sizeof(name), "/vms/mail/%u.vmdk", d);
			assert_string_equal(c.storage.drive[d].path, name);
			assert_ptr_equal(c.storage.controller[c.storage.drive[d].controller], k);
		}
		vm_config_each_drive(v, count, &found);
		assert_int_equal(found, disks);
		vm_config_free(&c);
		vmx_destroy(v);
	}
}

static void test_add_nics(void **state)
{
	const struct nic_card cards[] = {
		{.kind = nic_find("vmxnet3", NULL),
		 .cable = NIC_NAT,
		 .forwards = 2,
		 .forward = {"tcp:127.0.0.1:2222-22", "udp:53-53"}},
		{.kind = nic_find("e1000", NULL), .mac = {0x00, 0x50, 0x56, 0xab, 0, 1}},
		{.kind = nic_find("virtio", NULL),
		 .cable = NIC_NETWORK,
		 .network = "lab",
		 .group = "dmz"},
	};
	struct vmx *v = parse("uuid.bios = \"56 4d 01 02 03 04 05 06-07 08 09 0a 0b 11 22 33\"\n");
	struct vm_config c;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(vm_config_add_nic(v, i, &cards[i], NULL), 0);
	assert_string_equal(vmx_get(v, "ethernet0.virtualDev"), "vmxnet3");
	assert_string_equal(vmx_get(v, "ethernet0.connectionType"), "nat");
	assert_string_equal(vmx_get(v, "ethernet0.addressType"), "generated");
	read_ok(&c, v);
	assert_int_equal(c.nics.cards, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_ptr_equal(c.nics.card[i].kind, cards[i].kind);
		assert_int_equal(c.nics.card[i].cable, cards[i].cable);
	}
	assert_memory_equal(c.nics.card[0].mac, "\x00\x0c\x29\x11\x22\x33", 6);
	assert_memory_equal(c.nics.card[1].mac, cards[1].mac, 6);
	assert_int_equal(c.nics.card[0].forwards, 2);
	assert_string_equal(c.nics.card[0].forward[1], "udp:53-53");
	assert_string_equal(c.nics.card[2].network, "lab");
	assert_string_equal(c.nics.card[2].group, "dmz");
	vm_config_free(&c);
	vmx_destroy(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full),	     cmocka_unit_test(test_nics),
		cmocka_unit_test(test_nothing_said), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_add_disks),    cmocka_unit_test(test_add_nics),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
