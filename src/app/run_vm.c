/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine with a folder has beyond one without: .vmx, lock, log, console, control socket. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "app/run.h"
#include "base/log.h"

/* ---- from the .vmx ---- */

/* The .vmx's drives first, then those that the command line adds. */
static int merge_storage(struct run *r, struct error *err)
{
	struct storage_plan plan = r->vm.storage, *more = &r->config.storage;
	int code = 0;

	for (unsigned i = 0; code == 0 && i < more->drives; i++)
		code = storage_plan_add_anywhere(&plan, more->controller[more->drive[i].controller],
						 &more->drive[i], err);
	r->config.storage = plan;
	return code;
}

static int merge_nics(struct run *r, struct error *err)
{
	struct nic_plan plan = r->vm.nics, *more = &r->config.nics;
	int code = 0;

	for (unsigned i = 0; code == 0 && i < more->cards; i++)
		code = nic_plan_add(&plan, &more->card[i], err);
	r->config.nics = plan;
	return code;
}

static int merge(struct run *r, struct error *err)
{
	struct boot_source *boot = &r->config.boot;

	if (!r->config.memory_bytes)
		r->config.memory_bytes = r->vm.memory_bytes;
	if (!r->config.memory.limit_bytes)
		r->config.memory.limit_bytes = r->vm.memory_limit_bytes;
	if (!r->memory_min)
		r->memory_min = r->vm.memory_min_bytes;
	if (!r->memory_shares.count)
		r->memory_shares = r->vm.memory_shares;
	r->config.memory.share |= r->vm.memory_share;
	if (!r->balloon_said)
		r->config.balloon = r->vm.balloon;
	if (!r->swap_dir)
		r->swap_dir = r->folder.folder;
	r->config.memory.swap_dir = strcmp(r->swap_dir, "none") ? r->swap_dir : NULL;
	if (!r->config.cpus)
		r->config.cpus = r->vm.cpus;
	if (!r->engine)
		r->engine = r->vm.engine;
	if (!boot->kernel_path) {
		boot->kernel_path = r->vm.kernel;
		if (!boot->initrd_path)
			boot->initrd_path = r->vm.initrd;
	}
	if (!boot->cmdline)
		boot->cmdline = r->vm.append;
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
		if (!r->serial_spec[i])
			r->serial_spec[i] = r->vm.serial[i];
	if (!r->serial_spec[0])
		r->serial_spec[0] = r->report_fd < 0 ? "stdio" : "none";
	if (!boot->kernel_path)
		return error_set(err, -EINVAL,
				 "%s: hanok.kernel is not set, and no firmware boots from a disk "
				 "yet; set it there, or name a kernel by --kernel",
				 r->folder.vmx);
	int code = merge_storage(r, err);
	return code < 0 ? code : merge_nics(r, err);
}

static int read_vmx(struct run *r, struct error *err)
{
	struct vmx *v;
	int code = vmx_read(&v, r->folder.vmx, err);

	if (code == 0)
		code = vm_config_read(&r->vm, v, r->folder.folder, err);
	vmx_destroy(v);
	return code;
}

static void log_beginning(const struct run *r)
{
	const struct storage_plan *p = &r->config.storage;

	log_info("hanok %s, process %d, starts %s (%s)", HANOK_VERSION, (int)getpid(), r->vm.name,
		 r->folder.vmx);
	log_info("%" PRIu64 " MiB of memory, %u CPUs", r->config.memory_bytes >> 20,
		 r->config.cpus);
	log_info("boots %s, initrd %s, append '%s'", r->config.boot.kernel_path,
		 r->config.boot.initrd_path ? r->config.boot.initrd_path : "none",
		 r->config.boot.cmdline ? r->config.boot.cmdline : "");
	for (unsigned i = 0; i < p->drives; i++) {
		const struct storage_drive *d = &p->drive[i];
		log_info("%s %s on controller %u (%s), unit %u", d->cdrom ? "CD drive" : "disk",
			 d->path ? d->path : "(empty)", d->controller,
			 p->controller[d->controller]->name, d->target);
	}
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
		if (r->serial_spec[i])
			log_info("COM%u: %s", i + 1, r->serial_spec[i]);
	for (unsigned i = 0; i < r->config.nics.cards; i++) {
		const struct nic_card *c = &r->config.nics.card[i];
		const uint8_t *m = c->mac;
		log_info("network card %u (%s), %02x:%02x:%02x:%02x:%02x:%02x: %s", i,
			 c->kind->name, m[0], m[1], m[2], m[3], m[4], m[5],
			 c->cable == NIC_NAT	   ? "NAT"
			 : c->cable == NIC_NETWORK ? c->network
						   : "not plugged in");
	}
}

int run_vm_open(struct run *r, struct error *err)
{
	int code = vm_find(&r->folder, r->vm_word, err);

	if (code == 0)
		code = vm_lock(&r->folder, &r->lock_fd, err);
	if (code == 0)
		code = vm_log_open(&r->log, &r->folder, err);
	if (code < 0)
		return code;
	log_set_level(LOG_INFO);
	/* What a crash has to say. */
	if (r->report_fd >= 0) {
		int fd = vm_log_descriptor(r->log);
		if (fd >= 0) {
			dup2(fd, STDERR_FILENO);
			close(fd);
		}
	}
	code = read_vmx(r, err);
	if (code == 0)
		code = merge(r, err);
	if (code == 0)
		log_beginning(r);
	return code;
}

/* ---- console and control socket ---- */

int run_vm_plug_console(struct run *r, struct error *err)
{
	int code = console_create(&r->console, r->loop, 0, &r->config.serial[0], err);

	if (code == 0)
		r->config.serial[0] = console_backend(r->console);
	return code;
}

int run_vm_listen(struct run *r, struct error *err)
{
	const struct control_config cfg = {
		.machine = r->machine,
		.console = r->console,
		.name = r->vm.name,
		.vmx = r->folder.vmx,
		.folder = &r->folder,
		.storage = &r->config.storage,
	};
	struct vm_runner runner = {.pid = getpid()};

	console_set_machine(r->console, r->machine);
	int code = control_create(&r->control, &cfg, err);
	if (code < 0)
		return code;
	strcpy(runner.socket, control_socket(r->control));
	log_info("control socket %s", runner.socket);
	return vm_lock_note(r->lock_fd, &runner, err);
}

void run_vm_ended(struct run *r, const struct machine_result *result)
{
	log_info("ended (%s): %s", control_end_name(result->end), result->why.text);
	console_drain(r->console);
	control_end(r->control, result);
}

void run_vm_close(struct run *r)
{
	vm_unlock(&r->folder, r->lock_fd);
	/* From now on lines have nowhere to go but the terminal. */
	struct vm_log *log = r->log;
	r->log = NULL;
	vm_log_close(log);
	vm_config_free(&r->vm);
	vm_folder_free(&r->folder);
}
