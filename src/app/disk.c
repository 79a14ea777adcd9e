/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok disk`: images of disks. What is done to them is in disk/; here are its words. */
#include "app/disk.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "app/options.h"
#include "app/vm_verb.h"
#include "base/clock.h"
#include "disk/file.h"

static const char help[] =
	"hanok disk: makes, shows, checks and changes images of disks. For disks of machines that do\n"
	"not run: an image that is in use is refused, with the name of the process that uses it.\n"
	"\n"
	"  hanok disk create mail.vmdk 20G             a disk that grows as it is written to\n"
	"  hanok disk create --type monolithicFlat --thick eager db.vmdk 20G\n"
	"                                              one that has all its space from the start\n"
	"  hanok disk create --parent base.vmdk a.vmdk a delta: reads from base.vmdk what was not\n"
	"                                              written to it; base.vmdk must not change any more\n"
	"  hanok disk info mail.vmdk                   size, space taken, and what it lies on\n"
	"  hanok disk map mail.vmdk                    which bytes are where, in which file\n"
	"  hanok disk check mail.vmdk                  are its tables sound? --repair mends what can\n"
	"                                              be mended without guessing\n"
	"  hanok disk convert a.vmdk b.vmdk            a copy that needs nothing of a.vmdk\n"
	"  hanok disk convert --type streamOptimized a.vmdk b.vmdk\n"
	"                                              a compressed one, to send\n"
	"  hanok disk resize mail.vmdk +10G            more room (or 30G: to that size)\n"
	"  hanok disk compact mail.vmdk                gives blocks of zeroes back to the host\n"
	"\n"
	"  hanok disk VERB --help                      all options of a verb\n"
	"\n"
	"Images are raw files and VMDKs; a name that ends in .vmdk is a VMDK. For qcow2, VHDX, VDI and\n"
	"others there is qemu-img: qemu-img convert -O vmdk other.qcow2 disk.vmdk\n"
	"\n"
	"Exit status: 0 well; 2 wrong usage; 125 it could not be done, or check found errors.\n";

static const struct sub_verb verbs[] = {
	{"create", disk_verb_create},	{"info", disk_verb_info},
	{"map", disk_verb_map},		{"check", disk_verb_check},
	{"convert", disk_verb_convert}, {"resize", disk_verb_resize},
	{"compact", disk_verb_compact}, {NULL, NULL},
};

int verb_disk(int argc, char **argv)
{
	return verb_below("disk", help, verbs, argc, argv);
}

/* ---- images of others ---- */

int disk_refuse_foreign(const char *path, struct error *err)
{
	/* The first bytes, as the formats' specifications have them; VDI's come after 64 of text. */
	static const struct {
		const char *name, *magic;
		unsigned at, bytes;
	} formats[] = {
		{"qcow2", "QFI\xfb", 0, 4}, {"VHDX", "vhdxfile", 0, 8},
		{"VHD", "conectix", 0, 8},  {"VDI", "\x7f\x10\xda\xbe", 64, 4},
		{"QED", "QED\0", 0, 4},
	};
	char head[512] = "";
	struct file *f;

	/* What cannot be read gets its line from whoever opens it. */
	if (file_open(&f, path, &(struct file_options){0}, NULL))
		return 0;
	int64_t got = file_pread_some(f, head, sizeof(head), 0);
	file_close(f);
	for (unsigned i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
		if (got >= formats[i].at + formats[i].bytes &&
		    !memcmp(head + formats[i].at, formats[i].magic, formats[i].bytes))
			return error_set(err, -EINVAL,
					 "%s: it is a %s image, which is left to qemu-img; make a "
					 "VMDK of it: qemu-img convert -O vmdk %s NAME.vmdk",
					 path, formats[i].name, path);
	return 0;
}

int disk_open_image(struct disk **out, const char *path, const struct disk_options *opt,
		    struct error *err)
{
	int rc = opt->format ? 0 : disk_refuse_foreign(path, err);

	return rc ? rc : disk_open(out, path, opt, err);
}

/* ---- words ---- */

const char *disk_size_text(uint64_t bytes)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	static char buf[4][32];
	static unsigned next;
	char *out = buf[next++ % 4];
	double v = (double)bytes;
	unsigned unit = 0;

	for (; v >= 1024 && unit < 4; unit++)
		v /= 1024;
	snprintf(out, sizeof(buf[0]), unit && v < 100 && v != (uint64_t)v ? "%.1f %s" : "%.0f %s",
		 v, units[unit]);
	return out;
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

static int show(void *opaque, uint64_t done, uint64_t total)
{
	struct disk_progress *p = opaque;
	uint64_t now = clock_ns(), every = p->terminal ? 200000000u : 10000000000u;

	if (interrupted)
		return 1;
	if (now - p->start_ns < 2000000000u || now - p->shown_ns < every)
		return 0;
	double seconds = (double)(now - p->start_ns) / 1e9;
	fprintf(stderr, "%s%s: %3.0f %%, %s of %s, %s/s%s", p->terminal ? "\r" : "", p->what,
		total ? 100.0 * (double)done / (double)total : 100.0, disk_size_text(done),
		disk_size_text(total), disk_size_text((uint64_t)((double)done / seconds)),
		p->terminal ? "\033[K" : "\n");
	p->shown = true;
	p->shown_ns = now;
	return 0;
}

void disk_progress_begin(struct disk_progress *p, const char *what)
{
	struct sigaction sa = {.sa_handler = on_interrupt};

	*p = (struct disk_progress){.progress = {.fn = show, .opaque = p},
				    .what = what,
				    .start_ns = clock_ns(),
				    .terminal = isatty(STDERR_FILENO)};
	interrupted = 0;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

void disk_progress_end(struct disk_progress *p)
{
	if (p->shown && p->terminal)
		fputs("\r\033[K", stderr);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
}

/* ---- options of new images ---- */

int disk_create_option(void *opaque, int option, struct error *err)
{
	struct disk_create_options *opt = opaque;
	uint64_t bytes;
	int rc;

	switch (option) {
	case OPTION_FORMAT:
		opt->format = optarg;
		return 0;
	case OPTION_TYPE:
		opt->type = optarg;
		return 0;
	case OPTION_ADAPTER:
		opt->adapter = optarg;
		return 0;
	case OPTION_PARENT:
		opt->parent = optarg;
		return 0;
	case OPTION_THICK:
		if (!strcmp(optarg, "lazy"))
			opt->thickness = DISK_THICK_LAZY;
		else if (!strcmp(optarg, "eager"))
			opt->thickness = DISK_THICK_EAGER;
		else
			return error_set(err, -EINVAL, "--thick %s: it is lazy or eager", optarg);
		return 0;
	default:
		rc = parse_size("--grain", optarg, &bytes, err);
		if (rc)
			return rc;
		if (bytes < 4096 || bytes > 1 << 20 || bytes & (bytes - 1))
			return error_set(err, -EINVAL,
					 "--grain %s: it is a power of two from 4K "
					 "to 1M",
					 optarg);
		opt->grain_bytes = (uint32_t)bytes;
		return 0;
	}
}
