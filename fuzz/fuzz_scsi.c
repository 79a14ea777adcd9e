/* SPDX-License-Identifier: Apache-2.0 */
#include "../tests/unit/pins.h"
#include "dev/scsi/scsi.h"
#include "fuzz_storage.h"

/*
 * The SCSI target core: CDBs and parameter lists as the input has them, with disks that are slow or
 * fail. Each command is answered once, at the latest when the bus is reset.
 */
enum { BUF = 0x8000, BUF_BYTES = 0x4000 };

static struct mem *mem;
static struct disk disks[FUZZ_UNITS];
static struct scsi_bus *bus;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned given, answered;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void done(void *opaque, struct scsi_request *r)
{
	(void)opaque;
	answered++;
	must(r->outcome == SCSI_OVERRUN || r->transferred <= r->data.bytes);
	must((r->status == SCSI_CHECK_CONDITION) == (r->sense_len == SCSI_SENSE_BYTES));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct storage_unit units[FUZZ_UNITS];
	struct scsi_bus_config cfg = {.lock = &lock, .units = units, .unit_count = FUZZ_UNITS};

	(void)argc;
	(void)argv;
	for (unsigned i = 0; i < FUZZ_UNITS; i++) {
		fake_disk_init(&disks[i], FUZZ_DISK);
		units[i] = (struct storage_unit){.target = i,
						 .cdrom = i == 1 || i == 2,
						 .disk = i == 2 ? NULL : &disks[i],
						 .serial = "FUZZ"};
	}
	disks[3].info.read_only = true;
	must(!mem_create(&mem, FUZZ_RAM, NULL));
	for (unsigned i = 0; i < FUZZ_UNITS; i++)
		disks[i].mem = mem;
	cfg.mem = mem;
	cfg.done = done;
	must(!scsi_bus_create(&bus, &cfg, NULL));
	return 0;
}

static void command(struct fuzz_input *in)
{
	uint8_t cdb[SCSI_CDB_BYTES] = {0};
	unsigned where = (unsigned)take(in, 1), pieces = where >> 3 & 7, len = 6 + (where >> 6) * 4;

	struct scsi_request *r;

	for (unsigned i = 0; i < len && i < SCSI_CDB_BYTES; i++)
		cdb[i] = (uint8_t)take(in, 1);
	r = scsi_request_new(bus, cdb, SCSI_CDB_BYTES);
	must(r != NULL);
	r->target = where & 3;
	r->lun[1] = where == 0xff;
	for (unsigned i = 0; i < pieces; i++)
		sgl_add(&r->data, mem, BUF + take(in, 2) % BUF_BYTES, take(in, 2));
	given++;
	scsi_submit(r);
}

static void parameters(struct fuzz_input *in)
{
	uint8_t *p = ram_at(mem, BUF, 64);

	for (unsigned i = 0; i < 40; i++)
		p[i] = (uint8_t)take(in, 1);
}

static void trouble(struct fuzz_input *in)
{
	uint8_t what = (uint8_t)take(in, 1);
	struct disk *d = &disks[what % FUZZ_UNITS];

	if (what & 4)
		d->later = what & 8;
	else
		d->error[(what >> 4) % DISK_OPS] = what & 8 ? -(int)(what >> 5) - 1 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {.data = data, .left = size};

	given = answered = 0;
	for (unsigned i = 0; i < FUZZ_UNITS; i++) {
		disks[i].later = false;
		memset(disks[i].error, 0, sizeof(disks[i].error));
	}
	while (in.left) {
		unsigned what = (unsigned)take(&in, 1) % 8;
		if (what == 6) { /* completions take the lock themselves */
			for (unsigned i = 0; i < FUZZ_UNITS; i++)
				fake_disk_run(&disks[i]);
			continue;
		}
		pthread_mutex_lock(&lock);
		if (what == 4)
			parameters(&in);
		else if (what == 5)
			trouble(&in);
		else if (what == 7)
			scsi_reset(bus, (unsigned)take(&in, 1) % (SCSI_ALL_TARGETS + 1));
		else
			command(&in);
		pthread_mutex_unlock(&lock);
	}
	pthread_mutex_lock(&lock);
	scsi_power_on(bus);
	must(given == answered && !scsi_in_flight(bus) && !held_pages(mem));
	pthread_mutex_unlock(&lock);
	return 0;
}
