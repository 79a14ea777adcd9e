/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok create`: a machine's folder, with its .vmx and its disks, and if wanted a system on them. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "app/app.h"
#include "app/debian.h"
#include "app/new_folder.h"
#include "app/nics.h"
#include "app/options.h"
#include "app/vm_verb.h"
#include "disk/disk_tools.h"
#include "machine/vm_config.h"

static const char help[] =
	"hanok create: make a virtual machine.\n"
	"\n"
	"Examples:\n"
	"  hanok create mail --os debian\n"
	"      A Debian 12 in ~/hanok/mail, ready for `hanok run mail`. The first time it is put\n"
	"      together from Debian's packages (a minute or two), later copied from ~/.cache/hanok.\n"
	"  hanok create ./lab/one --memory 2G --cpus 2 --disk 20G --disk 100G,thick\n"
	"      A machine in the folder ./lab/one with two empty disks.\n"
	"  hanok create web --os debian --nic nat,forward=tcp:127.0.0.1:8080-80 --nic switch=lab\n"
	"      One whose port 80 is the host's 8080, with a second card on the network `lab`.\n"
	"  hanok create test --disk none --kernel vmlinuz --initrd initrd --append console=ttyS0\n"
	"      A machine that boots a kernel of yours.\n"
	"\n"
	"A plain name makes a folder in ~/hanok (HANOK_VMS names another place); one with a slash is\n"
	"the folder itself.\n"
	"\n"
	"  --memory SIZE        as in 512M or 2G (1G)\n"
	"  --cpus N             virtual CPUs (1)\n"
	"  --disk SIZE[,HOW][,type=TYPE]\n"
	"                       a disk (8G); once for each, or none. HOW: thin takes space as it is\n"
	"                       written (so it is if nobody says), thick takes all of it now, eager\n"
	"                       also writes zeroes now. TYPE: a VMDK's createType, as\n"
	"                       monolithicSparse, monolithicFlat, twoGbMaxExtentSparse\n"
	"  --controller NAME    what the disks are on: pvscsi, virtio-blk, ... (pvscsi)\n"
	"  --nic WHERE[,model=NAME][,mac=ADDRESS][,group=NAME|,vlan=N][,forward=FORWARD]...\n"
	"                       a network card (nat); once for each, as `hanok run` has them, or none.\n"
	"                       WHERE it is plugged in: nat, switch=NAME, a network of `hanok net`,\n"
	"                       or bridged=INTERFACE of the host's (as root).\n"
	"                       model: vmxnet3, virtio or e1000 (vmxnet3)\n"
	"  --os debian          install Debian 12 on the first disk: systemd, a login on the serial\n"
	"                       console, DHCP\n"
	"  --password-file FILE the first line is root's password there; otherwise one is made up,\n"
	"                       and kept in NAME.password in the folder, which only you may read\n"
	"  --kernel FILE, --initrd FILE, --append STRING\n"
	"                       what it boots, as `hanok run` has it\n"
	"\n"
	"Exit status: 0 it is there; 2 the command line is wrong; 125 it could not be made, and\n"
	"nothing is left of it.\n";

enum { DISKS_MAX = 8, PASSWORD_BYTES = 128 };

struct new_disk {
	uint64_t bytes;
	enum disk_thickness thickness;
	const char *type; /* NULL: by thickness */
};

struct create {
	const char *name;
	uint64_t memory_bytes, cpus;
	struct new_disk disk[DISKS_MAX];
	unsigned disks;
	bool no_disk, debian;
	const struct storage_kind *kind;
	struct nic_card nic[NICS_MAX];
	unsigned nics;
	bool no_nic;
	const char *password_file, *kernel, *initrd, *append;

	struct vm_folder folder;
	struct vmx *vmx;
};

/* ---- the command line ---- */

static int set_thickness(struct new_disk *d, const char *word, struct error *err)
{
	static const char *const words[] = {
		[DISK_THIN] = "thin",
		[DISK_THICK_LAZY] = "thick",
		[DISK_THICK_EAGER] = "eager",
	};

	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (!strcmp(word, words[i])) {
			d->thickness = (enum disk_thickness)i;
			return 0;
		}
	}
	if (!strncmp(word, "type=", 5) && word[5]) {
		d->type = word + 5;
		return 0;
	}
	return error_set(err, -EINVAL,
			 "--disk: '%s' is no way to make one; there are thin, thick, eager and "
			 "type=TYPE",
			 word);
}

static int add_disk(struct create *c, char *spec, struct error *err)
{
	struct new_disk *d = &c->disk[c->disks];
	char *rest = spec, *size = strsep(&rest, ",");

	if (!strcmp(size, "none") && !rest) {
		c->no_disk = true;
		return 0;
	}
	if (c->disks == DISKS_MAX)
		return error_set(err, -EINVAL, "--disk: up to %d of them", DISKS_MAX);
	*d = (struct new_disk){.thickness = DISK_THIN};
	int r = parse_size("--disk", size, &d->bytes, err);
	if (r == 0 && (d->bytes < 1 << 20 || d->bytes % (1 << 20)))
		r = error_set(err, -EINVAL, "--disk %s: it must be a whole number of MiB, as in 8G",
			      size);
	while (r == 0 && rest)
		r = set_thickness(d, strsep(&rest, ","), err);
	if (r == 0)
		c->disks++;
	return r;
}

/* What VMware's machines have for a system that has the driver. */
static const struct nic_kind *default_nic(void)
{
	const struct nic_kind *kind = nic_find("vmxnet3", NULL);

	return kind ? kind : nic_kinds[0];
}

static int add_nic(struct create *c, char *spec, struct error *err)
{
	struct nic_card *card = &c->nic[c->nics];

	if (!strcmp(spec, "none")) {
		c->no_nic = true;
		return 0;
	}
	if (c->nics == NICS_MAX)
		return error_set(err, -EINVAL, "--nic: up to %d of them", NICS_MAX);
	*card = (struct nic_card){.kind = default_nic()};
	int r = nics_parse(card, spec, err);
	if (r == 0)
		c->nics++;
	return r;
}

enum {
	OPT_MEMORY = 256,
	OPT_CPUS,
	OPT_DISK,
	OPT_CONTROLLER,
	OPT_NIC,
	OPT_OS,
	OPT_PASSWORD_FILE,
	OPT_KERNEL,
	OPT_INITRD,
	OPT_APPEND
};

static const struct option options[] = {
	{"memory", required_argument, NULL, OPT_MEMORY},
	{"cpus", required_argument, NULL, OPT_CPUS},
	{"disk", required_argument, NULL, OPT_DISK},
	{"controller", required_argument, NULL, OPT_CONTROLLER},
	{"nic", required_argument, NULL, OPT_NIC},
	{"os", required_argument, NULL, OPT_OS},
	{"password-file", required_argument, NULL, OPT_PASSWORD_FILE},
	{"kernel", required_argument, NULL, OPT_KERNEL},
	{"initrd", required_argument, NULL, OPT_INITRD},
	{"append", required_argument, NULL, OPT_APPEND},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static int set_memory(struct create *c, struct error *err)
{
	int r = parse_size("--memory", optarg, &c->memory_bytes, err);

	if (r == 0 && (c->memory_bytes < 1 << 20 || c->memory_bytes % (1 << 20)))
		r = error_set(err, -EINVAL,
			      "--memory %s: it must be a whole number of MiB, as in 1G", optarg);
	return r;
}

static int set_option(void *opaque, int option, struct error *err)
{
	struct create *c = opaque;

	switch (option) {
	case OPT_MEMORY:
		return set_memory(c, err);
	case OPT_CPUS:
		return parse_unsigned("--cpus", optarg, 1, BOARD_CPUS_MAX, &c->cpus, err);
	case OPT_DISK:
		return add_disk(c, optarg, err);
	case OPT_CONTROLLER:
		c->kind = storage_find(optarg, false, err);
		return c->kind ? 0 : -EINVAL;
	case OPT_NIC:
		return add_nic(c, optarg, err);
	case OPT_OS:
		c->debian = !strcmp(optarg, "debian");
		return c->debian ? 0
				 : error_set(err, -EINVAL, "--os %s: there is only debian", optarg);
	case OPT_PASSWORD_FILE:
		c->password_file = optarg;
		break;
	case OPT_KERNEL:
		c->kernel = optarg;
		break;
	case OPT_INITRD:
		c->initrd = optarg;
		break;
	case OPT_APPEND:
		c->append = optarg;
		break;
	}
	return 0;
}

static int check_nics(struct create *c, struct error *err)
{
	struct nic_plan plan = {0};
	struct error why;

	if (c->no_nic && c->nics)
		return error_set(err, -EINVAL, "--nic none: there cannot be another card then");
	if (!c->no_nic && !c->nics)
		c->nic[c->nics++] = (struct nic_card){.kind = default_nic(), .cable = NIC_NAT};
	for (unsigned i = 0; i < c->nics; i++) {
		if (nic_plan_add(&plan, &c->nic[i], &why) < 0)
			return error_set(err, -EINVAL, "--nic: card %u: %s", i, why.text);
		if (c->debian && !strcmp(c->nic[i].kind->name, "e1000"))
			return error_set(
				err, -EINVAL,
				"--nic model=e1000: the kernel of --os debian has no driver "
				"for it; take vmxnet3 or virtio");
	}
	return 0;
}

static int check(struct create *c, struct error *err)
{
	if (new_folder_check(c->name, err) < 0)
		return -EINVAL;
	if (c->no_disk && (c->disks || c->debian))
		return error_set(err, -EINVAL, "--disk none: there cannot be %s then",
				 c->debian ? "an --os" : "another disk");
	if (c->debian && (c->kernel || c->initrd || c->append))
		return error_set(err, -EINVAL,
				 "--os debian: it boots its own kernel, so there is no "
				 "--kernel, --initrd or --append");
	if (c->password_file && !c->debian)
		return error_set(err, -EINVAL, "--password-file: it is for --os");
	if (!c->kind)
		c->kind = storage_find("pvscsi", false, NULL);
	if (!c->kind)
		c->kind = storage_default(false);
	if (!c->disks && !c->no_disk)
		c->disk[c->disks++] = (struct new_disk){.bytes = UINT64_C(8) << 30};
	if (c->debian && !strstr("pvscsi virtio-blk nvme ide", c->kind->name))
		return error_set(err, -EINVAL,
				 "--controller %s: the kernel of --os debian has no driver for it; "
				 "take pvscsi, virtio-blk, nvme or ide",
				 c->kind->name);
	return check_nics(c, err);
}

/* ---- the folder ---- */

/* NAME.vmdk, NAME_1.vmdk ...; the caller's to free. */
static char *disk_name(const struct create *c, unsigned number)
{
	char *name = NULL;
	int n = number ? asprintf(&name, "%s_%u.vmdk", c->folder.base, number)
		       : asprintf(&name, "%s.vmdk", c->folder.base);

	return n < 0 ? NULL : name;
}

static char *in_folder(const struct create *c, const char *name)
{
	char *path = NULL;
	int n = asprintf(&path, "%s/%s", c->folder.folder, name);

	return n < 0 ? NULL : path;
}

static int make_disk(struct create *c, unsigned n, struct error *err)
{
	static const char *const adapters[] = {"ide", "lsilogic", "lsisas1068", "pvscsi", "nvme"};
	const struct new_disk *d = &c->disk[n];
	struct disk_create_options o = {
		.format = "vmdk",
		.type = d->type	       ? d->type
			: d->thickness ? "monolithicFlat"
				       : "monolithicSparse",
		.thickness = d->thickness,
		.bytes = d->bytes,
	};
	char *name = disk_name(c, n), *path = name ? in_folder(c, name) : NULL;
	int r = path ? 0 : error_set(err, -ENOMEM, "create: out of memory");

	for (unsigned i = 0; i < sizeof(adapters) / sizeof(adapters[0]); i++)
		if (!strcmp(adapters[i], c->kind->vmx_name))
			o.adapter = adapters[i];
	if (r == 0)
		r = disk_create(path, &o, err);
	if (r == 0)
		r = vm_config_add_disk(c->vmx, c->kind, n, name, err);
	free(path);
	free(name);
	return r;
}

/* ---- the .vmx ---- */

/* A path of the command line, which the .vmx gets as an absolute one. */
static int set_path(struct create *c, const char *key, const char *path, struct error *err)
{
	char *full = path ? realpath(path, NULL) : NULL;
	int r = 0;

	if (path && !full)
		r = error_set(err, -errno, "%s: %s", path, strerror(errno));
	else if (full)
		r = vmx_set(c->vmx, key, full, err);
	free(full);
	return r;
}

static int fill_vmx(struct create *c, struct error *err)
{
	char memory[24], cpus[24], uuid[UUID_BIOS_BYTES];
	char *nvram = NULL;
	int r = asprintf(&nvram, "%s.nvram", c->folder.base) < 0 ? -ENOMEM : 0;

	snprintf(memory, sizeof(memory), "%" PRIu64, c->memory_bytes >> 20);
	snprintf(cpus, sizeof(cpus), "%" PRIu64, c->cpus);
	new_uuid_bios(uuid);
	const struct {
		const char *key, *value;
	} keys[] = {
		{"config.version", "8"},
		{"virtualHW.version", "19"},
		{"displayName", c->folder.base},
		{"guestOS", c->debian ? "debian12-64" : "other-64"},
		{"memsize", memory},
		{"numvcpus", cpus},
		{"uuid.bios", uuid},
		{"nvram", nvram},
		{"hanok.append", c->append},
	};
	for (unsigned i = 0; r == 0 && i < sizeof(keys) / sizeof(keys[0]); i++)
		if (keys[i].value)
			r = vmx_set(c->vmx, keys[i].key, keys[i].value, err);
	if (r == 0)
		r = set_path(c, "hanok.kernel", c->kernel, err);
	if (r == 0)
		r = set_path(c, "hanok.initrd", c->initrd, err);
	for (unsigned i = 0; r == 0 && i < c->nics; i++)
		r = vm_config_add_nic(c->vmx, i, &c->nic[i], err);
	free(nvram);
	return r;
}

/* ---- Debian ---- */

static int read_password(const char *path, char *password, struct error *err)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(password, PASSWORD_BYTES, f);

	if (f)
		fclose(f);
	password[ok ? strcspn(password, "\n") : 0] = 0;
	if (!*password)
		return error_set(err, -EINVAL, "--password-file %s: %s", path,
				 f ? "its first line is empty" : strerror(errno));
	return 0;
}

/* Without letters and digits that look like each other; 16 of 32: 80 bits. */
static int make_password(struct create *c, char *password, struct error *err)
{
	static const char letters[33] = "abcdefghijkmnpqrstuvwxyz23456789";
	unsigned char b[16];
	char *path = vm_file(&c->folder, ".password");
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
	int r = fd >= 0 && getrandom(b, sizeof(b), 0) == sizeof(b) ? 0 : -EIO;

	for (unsigned i = 0; i < sizeof(b); i++)
		password[i] = letters[b[i] % 32];
	password[sizeof(b)] = '\n';
	if (r == 0 && write(fd, password, sizeof(b) + 1) != sizeof(b) + 1)
		r = -EIO;
	password[sizeof(b)] = 0;
	if (fd >= 0)
		close(fd);
	if (r < 0)
		error_set(err, r, "%s: it cannot be written", path ? path : "the password");
	free(path);
	return r;
}

static int install(struct create *c, struct error *err)
{
	char password[PASSWORD_BYTES] = "", name[300];
	char *first = disk_name(c, 0), *path = first ? in_folder(c, first) : NULL;
	struct debian d = {
		.folder = c->folder.folder,
		.base = c->folder.base,
		.disk = path,
		.disk_bytes = c->disk[0].bytes,
		.hostname = c->folder.base,
		.password = password,
	};
	int r = path ? 0 : error_set(err, -ENOMEM, "create: out of memory");

	if (r == 0)
		r = c->password_file ? read_password(c->password_file, password, err)
				     : make_password(c, password, err);
	if (r == 0)
		r = debian_install(&d, err);
	if (r == 0)
		r = vmx_set(c->vmx, "hanok.append", d.append, err);
	snprintf(name, sizeof(name), "%s.vmlinuz", c->folder.base);
	if (r == 0)
		r = vmx_set(c->vmx, "hanok.kernel", name, err);
	snprintf(name, sizeof(name), "%s.initrd", c->folder.base);
	if (r == 0)
		r = vmx_set(c->vmx, "hanok.initrd", name, err);
	free(path);
	free(first);
	return r;
}

/* ---- all of it ---- */

static int create(struct create *c, struct error *err)
{
	int r = new_folder_make(c->name, &c->folder, err);

	if (r < 0)
		return r;
	r = vmx_create(&c->vmx, err);
	if (r == 0)
		r = fill_vmx(c, err);
	for (unsigned i = 0; r == 0 && i < c->disks; i++)
		r = make_disk(c, i, err);
	if (r == 0 && c->debian)
		r = install(c, err);
	/* Last, so that there is a machine when all of it is there. */
	if (r == 0)
		r = vmx_write(c->vmx, c->folder.vmx, err);
	if (r < 0)
		new_folder_undo(&c->folder);
	vmx_destroy(c->vmx);
	return r;
}

static void say_what_next(const struct create *c)
{
	printf("%s is there: %s\n", c->folder.base, c->folder.folder);
	if (c->debian && !c->password_file)
		printf("Log in as root; the password is in %s/%s.password\n", c->folder.folder,
		       c->folder.base);
	if (c->debian || c->kernel)
		printf("`hanok run %s` runs it on this terminal, `hanok start %s` in the background\n",
		       c->name, c->name);
	else
		printf("Nothing is on its disk yet, and no firmware boots from one: give it a kernel "
		       "(hanok.kernel in its .vmx, or `hanok run --kernel`)\n");
}

int verb_create(int argc, char **argv)
{
	struct create c = {.memory_bytes = UINT64_C(1) << 30, .cpus = 1};
	const struct verb_words words = {&c.name, 1, 1, "what shall it be called?", set_option, &c};
	struct error err;

	int r = verb_begin(argc, argv, options, &words, help);
	if (r >= 0)
		return r;
	if (check(&c, &err) < 0)
		return fail(STATUS_USAGE, "%s", err.text);
	r = create(&c, &err);
	if (r == 0)
		say_what_next(&c);
	vm_folder_free(&c.folder);
	return r < 0 ? fail(STATUS_FAILED, "%s", err.text) : STATUS_OK;
}
