/* SPDX-License-Identifier: Apache-2.0 */
/* `walk` and `dump`: an address of the guest's on its way to the host. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "control/inspect/tables.h"

enum { DUMP_MAX = 64 << 10 };

/* ---- the guest's side ---- */

static json_t *describe_level(const struct mmu_look *look, unsigned n)
{
	const struct mmu_look_level *at = &look->level[n];
	const char *names[MMU_LOOK_FLAGS];
	json_t *flags = json_array();
	unsigned count = mmu_look_flags(look, n, names);

	for (unsigned k = 0; k < count; k++)
		json_array_append_new(flags, json_string(names[k]));
	json_t *o = json_pack("{s:s, s:o, s:i, s:o, s:o, s:o, s:I}", "name", at->name, "table",
			      json_hex(at->table), "index", (int)at->index, "entry_at",
			      json_hex(at->at), "entry", json_hex(at->entry), "flags", flags,
			      "spans_bytes", (json_int_t)(UINT64_C(1) << at->shift));
	if (!o)
		return NULL;
	if (at->maps)
		json_object_set_new(o, "page_bytes", json_integer((json_int_t)1 << at->shift));
	if (at->reserved)
		json_object_set_new(o, "reserved_bits", json_hex(at->reserved));
	if (at->from_pdpte)
		json_object_set_new(o, "from_register", json_true());
	if (!at->readable)
		json_object_set_new(o, "outside_memory", json_true());
	if (at->same_as >= 0)
		json_object_set_new(o, "same_table_as", json_string(look->level[at->same_as].name));
	return o;
}

static json_t *describe_look(const struct mmu_look *look, const struct mmu_mode *mode)
{
	json_t *levels = json_array();

	for (unsigned n = 0; n < look->levels; n++)
		json_array_append_new(levels, describe_level(look, n));
	json_t *o = json_pack("{s:o, s:s, s:o, s:o, s:s}", "address", json_hex(look->gva), "paging",
			      mmu_paging_names[look->paging], "cr3", json_hex(mode->cr3), "levels",
			      levels, "end", mmu_look_end_names[look->end]);
	if (!o)
		return NULL;
	if (look->changing)
		json_object_set_new(o, "changing", json_true());
	if (look->end == MMU_LOOK_MAPPED)
		json_object_set_new(o, "page",
				    json_pack("{s:o, s:I, s:b, s:b, s:b, s:b, s:b, s:b}", "gpa",
					      json_hex(look->gpa), "bytes",
					      (json_int_t)1 << look->page_shift, "user", look->user,
					      "writable", look->writable, "executable",
					      look->executable, "global", look->global, "accessed",
					      look->accessed, "dirty", look->dirty));
	return o;
}

/* ---- the host's side ---- */

/* Linux, Documentation/admin-guide/mm/pagemap.rst: bit 63 present, 62 swapped by the host, 0 to 54 the
 * host's frame, which is told to the privileged only. */
static void add_host_frame(json_t *o, const void *host)
{
	long page = sysconf(_SC_PAGESIZE);
	uint64_t entry;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (pread(fd, &entry, 8, (off_t)((uintptr_t)host / (uintptr_t)page * 8)) == 8) {
		uint64_t frame = entry & ((UINT64_C(1) << 55) - 1);
		json_object_set_new(o, "host_holds", json_boolean(entry >> 63));
		if (entry >> 63 && frame)
			json_object_set_new(o, "hpa",
					    json_hex(frame * (uint64_t)page +
						     (uintptr_t)host % (uintptr_t)page));
	}
	close(fd);
}

static json_t *describe_frame(struct looker *l, uint64_t gpa, const struct mem_frame *f)
{
	const uint8_t *host = (const uint8_t *)f->host + (gpa & (MEM_PAGE_BYTES - 1));
	struct fault last;
	json_t *o = json_pack("{s:s, s:s, s:b, s:b, s:b, s:i, s:i, s:o}", "kind", "ram", "state",
			      mem_state_names[f->state], "dirty", f->dirty, "logged", f->logged,
			      "leaving", f->leaving, "pins", (int)f->pins, "age", (int)f->age,
			      "hva", json_hex((uintptr_t)host));

	if (!o)
		return NULL;
	if (f->slot) {
		json_object_set_new(o, "slot", json_integer((json_int_t)f->slot));
		json_object_set_new(o, "slot_in", json_string(f->on_file ? "file" : "memory"));
	}
	if (f->state == MEM_STATE_PRESENT)
		add_host_frame(o, host);
	if (fault_log_last(l->faults, gpa, &last))
		json_object_set_new(o, "last_fault", describe_fault(l, &last));
	return o;
}

json_t *describe_gpa(struct looker *l, uint64_t gpa)
{
	struct mem_frame f;
	uint8_t byte;

	/* ROM has no frame. */
	if (mem_frame_at(l->mem, gpa, &f) == 0)
		return describe_frame(l, gpa, &f);
	if (mem_read(l->mem, gpa, &byte, 1) == 0)
		return json_pack("{s:s}", "kind", "rom");
	return json_pack("{s:s}", "kind", "device");
}

int inspect_walk(struct looker *l, const struct request *r, json_t **answer, struct error *err)
{
	struct mmu_mode mode;
	struct mmu_look look;
	uint64_t gva;
	json_t *who;

	int code = request_address(r, "address", true, &gva, err);
	if (code == 0)
		code = request_space(l, r, &mode, &who, err);
	if (code < 0)
		return code;
	mmu_look(l->mem, &mode, gva, &look);
	*answer = describe_look(&look, &mode);
	if (*answer && look.end == MMU_LOOK_MAPPED)
		json_object_set_new(*answer, "host", describe_gpa(l, look.gpa));
	if (*answer)
		json_object_set(*answer, "of", who);
	json_decref(who);
	return *answer ? 0 : inspect_no_memory(answer, err);
}

/* ---- bytes ---- */

/* How many of the bytes can be read, from the first on. */
static size_t read_bytes(struct looker *l, const struct mmu_mode *mode, uint64_t address,
			 uint8_t *to, size_t len)
{
	size_t done = 0;

	while (done < len) {
		size_t n = MEM_PAGE_BYTES - ((address + done) & (MEM_PAGE_BYTES - 1));
		n = n < len - done ? n : len - done;
		int r = mode ? mmu_look_virt(l->mem, mode, address + done, to + done, n)
			     : mmu_look_phys(l->mem, address + done, to + done, n);
		if (r < 0)
			break;
		done += n;
	}
	return done;
}

static json_t *json_bytes(const uint8_t *data, size_t len)
{
	char *text = malloc(2 * len + 1);

	if (!text)
		return NULL;
	for (size_t n = 0; n < len; n++)
		snprintf(text + 2 * n, 3, "%02x", data[n]);
	text[2 * len] = 0;
	json_t *s = json_string(text);
	free(text);
	return s;
}

int inspect_dump(struct looker *l, const struct request *r, json_t **answer, struct error *err)
{
	struct mmu_mode mode;
	json_t *who = NULL;
	uint64_t address;
	long long len;
	bool physical;

	int code = request_address(r, "address", true, &address, err);
	if (code == 0)
		code = request_number(r, "bytes", 256, 1, DUMP_MAX, &len, err);
	if (code == 0)
		code = request_bool(r, "physical", false, &physical, err);
	if (code == 0 && !physical)
		code = request_space(l, r, &mode, &who, err);
	if (code < 0)
		return code;
	uint8_t *data = malloc((size_t)len);
	if (data) {
		size_t got = read_bytes(l, physical ? NULL : &mode, address, data, (size_t)len);
		*answer = json_pack("{s:o, s:i, s:o, s:O*}", "address", json_hex(address), "bytes",
				    (int)got, "data", json_bytes(data, got), "of", who);
	}
	free(data);
	json_decref(who);
	return *answer ? 0 : inspect_no_memory(answer, err);
}
