/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a Linux is found in the memory of a machine:
 *
 *   LSTAR          the kernel's entry for system calls ─> where its image lies in physical memory
 *   BTF            in the image's read-only data       ─> offsets in task_struct and mm_struct
 *   "swapper/0"    the name of the first task, in the image's data ─> init_task
 *   init_task      .tasks: the list of all processes; each has .mm ─> .pgd, the top page table
 *
 * Where the image is not where LSTAR says, all memory that is in use is searched. Addresses within the
 * kernel are translated by the page tables that a vCPU uses now: every process has the kernel's half. With
 * page-table isolation a vCPU in user mode uses a table without it, and the whole one lies in
 * the page before (Linux, arch/x86/include/asm/pgtable.h: PTI_PGTABLE_SWITCH_BIT).
 */
#include "control/inspect/linux.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/inspect/btf.h"

enum { CHUNK = 1 << 20, BTF_TRIES = 64, TASK_TRIES = 64, LIST_TRIES = 3 };
#define BEFORE_ENTRY (UINT64_C(128) << 20) /* how far from its entry the image may reach */
#define AFTER_ENTRY (UINT64_C(512) << 20)
#define PTI_BIT UINT64_C(0x1000)
#define KERNEL_HALF (UINT64_C(1) << 63)

static const char first_name[LINUX_COMM_BYTES] = "swapper/0";

struct offsets {
	uint32_t tasks, pid, tgid, comm, mm, next, prev, pgd;
};

struct linux_guest {
	struct mem *mem;
	bool found;
	struct offsets at;
	uint64_t init_task; /* gva */
	uint8_t chunk[CHUNK + BTF_HEADER_BYTES];
};

int linux_guest_create(struct linux_guest **out, struct mem *m)
{
	struct linux_guest *g = calloc(1, sizeof(*g));

	*out = g;
	if (!g)
		return -ENOMEM;
	g->mem = m;
	return 0;
}

void linux_guest_destroy(struct linux_guest *g)
{
	free(g);
}

/* ---- searching physical memory ---- */

struct range {
	uint64_t gpa, end;
};

/* fn returns true when it has found what it looks for. */
struct search {
	const char *pattern;
	size_t bytes;
	bool (*fn)(void *opaque, uint64_t gpa);
	void *opaque;
};

/* Whether any of the chunk's pages has contents, so that reading it is worth while. */
static bool is_in_use(struct mem *m, uint64_t gpa, uint64_t bytes)
{
	for (uint64_t at = gpa; at < gpa + bytes; at += MEM_PAGE_BYTES) {
		struct mem_frame f;
		if (mem_frame_at(m, at, &f) == 0 &&
		    (f.state == MEM_STATE_PRESENT || f.state == MEM_STATE_SWAPPED))
			return true;
	}
	return false;
}

/* Looks for the pattern at every byte of the range, which is of whole pages of RAM. */
static bool search_range(struct linux_guest *g, const struct range *r, const struct search *s)
{
	for (uint64_t at = r->gpa; at < r->end; at += CHUNK) {
		/* A pattern may begin in this chunk and end in the next. */
		uint64_t fresh = r->end - at < CHUNK ? r->end - at : CHUNK;
		uint64_t left = r->end - at, len = fresh + s->bytes - 1;
		len = len < left ? len : left;
		if (!is_in_use(g->mem, at, fresh) || mmu_look_phys(g->mem, at, g->chunk, len) < 0)
			continue;
		const uint8_t *p = g->chunk, *end = g->chunk + len;
		while ((p = memmem(p, (size_t)(end - p), s->pattern, s->bytes))) {
			if (s->fn(s->opaque, at + (uint64_t)(p - g->chunk)))
				return true;
			p++;
		}
	}
	return false;
}

/* RAM in at most two ranges. */
static unsigned all_ram(struct mem *m, struct range r[2])
{
	r[0] = (struct range){0, mem_low_bytes(m)};
	r[1] = (struct range){MEM_HIGH_BASE, MEM_HIGH_BASE + mem_high_bytes(m)};
	return mem_high_bytes(m) ? 2 : 1;
}

/* Where the kernel's image may lie; false when no vCPU knows. */
static bool image_range(struct linux_guest *g, const struct cpu_state *cpus, unsigned count,
			struct range *r)
{
	struct range ram[2];
	unsigned ranges = all_ram(g->mem, ram);

	for (unsigned k = 0; k < count; k++) {
		struct mmu_mode mode;
		struct mmu_look l;
		mmu_mode_of(&mode, &cpus[k]);
		mmu_look(g->mem, &mode, cpus[k].lstar, &l);
		if (l.end != MMU_LOOK_MAPPED || !(cpus[k].lstar & KERNEL_HALF))
			continue;
		uint64_t gpa = l.gpa & ~UINT64_C(0xfff);
		for (unsigned n = 0; n < ranges; n++) {
			if (gpa < ram[n].gpa || gpa >= ram[n].end)
				continue;
			*r = ram[n];
			if (gpa - r->gpa > BEFORE_ENTRY)
				r->gpa = gpa - BEFORE_ENTRY;
			if (r->end - gpa > AFTER_ENTRY)
				r->end = gpa + AFTER_ENTRY;
			return true;
		}
	}
	return false;
}

/* The image first, then everything. */
static bool search(struct linux_guest *g, const struct range *image, const struct search *s)
{
	struct range ram[2];
	unsigned ranges = all_ram(g->mem, ram);

	if (image && search_range(g, image, s))
		return true;
	for (unsigned n = 0; n < ranges; n++)
		if (search_range(g, &ram[n], s))
			return true;
	return false;
}

/* ---- BTF ---- */

struct btf_search {
	struct linux_guest *g;
	unsigned tries;
	bool seen; /* some BTF was there */
};

static bool take_offsets(struct linux_guest *g, const struct btf *b)
{
	struct offsets *at = &g->at;

	return btf_member(b, "task_struct", "tasks", &at->tasks) == 0 &&
	       btf_member(b, "task_struct", "pid", &at->pid) == 0 &&
	       btf_member(b, "task_struct", "tgid", &at->tgid) == 0 &&
	       btf_member(b, "task_struct", "comm", &at->comm) == 0 &&
	       btf_member(b, "task_struct", "mm", &at->mm) == 0 &&
	       btf_member(b, "list_head", "next", &at->next) == 0 &&
	       btf_member(b, "list_head", "prev", &at->prev) == 0 &&
	       btf_member(b, "mm_struct", "pgd", &at->pgd) == 0;
}

static bool try_btf(void *opaque, uint64_t gpa)
{
	struct btf_search *s = opaque;
	uint8_t header[BTF_HEADER_BYTES];
	bool good = false;
	struct btf *b;
	size_t bytes;

	if (mmu_look_phys(s->g->mem, gpa, header, sizeof(header)) < 0 ||
	    !btf_begins(header, &bytes) || s->tries++ >= BTF_TRIES)
		return false;
	uint8_t *data = malloc(bytes);
	if (data && mmu_look_phys(s->g->mem, gpa, data, bytes) == 0 &&
	    btf_open(&b, data, bytes) == 0) {
		s->seen = true;
		good = take_offsets(s->g, b);
		btf_close(b);
	}
	free(data);
	return good;
}

static int find_btf(struct linux_guest *g, const struct range *image, struct error *err)
{
	struct btf_search s = {.g = g};
	const struct search what = {"\x9f\xeb\x01\x00", 4, try_btf, &s};

	if (search(g, image, &what))
		return 0;
	return error_set(err, -ENOTSUP,
			 "the guest's processes cannot be named: %s; an address space can be given "
			 "by --cr3",
			 s.seen ? "its kernel's BTF does not describe task_struct and mm_struct"
				: "no Linux kernel with BTF was found in its memory");
}

/* ---- tasks ---- */

/* Reads a pointer of the kernel's; false when it is none. */
static bool get_pointer(struct linux_guest *g, const struct mmu_mode *mode, uint64_t gva,
			uint64_t *out)
{
	return mmu_look_virt(g->mem, mode, gva, out, sizeof(*out)) == 0 && (*out & KERNEL_HALF);
}

/* Whether the task there is the first one: it has its name, and the list leads back to it. */
static bool is_first(struct linux_guest *g, const struct mmu_mode *mode, uint64_t task)
{
	uint64_t next, back, list = task + g->at.tasks;
	char comm[LINUX_COMM_BYTES];

	return mmu_look_virt(g->mem, mode, task + g->at.comm, comm, sizeof(comm)) == 0 &&
	       !memcmp(comm, first_name, sizeof(first_name)) &&
	       get_pointer(g, mode, list + g->at.next, &next) &&
	       get_pointer(g, mode, next + g->at.prev, &back) && back == list;
}

struct task_search {
	struct linux_guest *g;
	const struct mmu_mode *mode;
	unsigned tries;
};

/* A name was found at gpa: whose is it? The second task's way back tells the first one's address. */
static bool try_task(void *opaque, uint64_t gpa)
{
	struct task_search *s = opaque;
	struct linux_guest *g = s->g;
	struct mmu_look l;
	uint64_t next, list;

	if (gpa < g->at.comm || s->tries++ >= TASK_TRIES ||
	    mmu_look_phys(g->mem, gpa - g->at.comm + g->at.tasks + g->at.next, &next,
			  sizeof(next)) < 0 ||
	    !(next & KERNEL_HALF) || !get_pointer(g, s->mode, next + g->at.prev, &list))
		return false;
	/* That address is that of the task whose name it is. */
	mmu_look(g->mem, s->mode, list - g->at.tasks + g->at.comm, &l);
	if (l.end != MMU_LOOK_MAPPED || l.gpa != gpa || !is_first(g, s->mode, list - g->at.tasks))
		return false;
	g->init_task = list - g->at.tasks;
	return true;
}

/* Calls fn with each way to translate the kernel's addresses that there may be, until it is content. */
static bool each_mode(const struct cpu_state *cpus, unsigned count,
		      bool (*fn)(void *opaque, const struct mmu_mode *mode), void *opaque)
{
	for (unsigned k = 0; k < 2 * count; k++) {
		struct mmu_mode mode;
		mmu_mode_of(&mode, &cpus[k / 2]);
		if (k % 2)
			mode.cr3 &= ~PTI_BIT;
		if ((mode.cr0 & CR0_PG) && (mode.efer & EFER_LMA) && fn(opaque, &mode))
			return true;
	}
	return false;
}

struct finding {
	struct linux_guest *g;
	const struct range *image;
	struct mmu_mode mode; /* that works */
};

static bool works(void *opaque, const struct mmu_mode *mode)
{
	struct finding *f = opaque;

	f->mode = *mode;
	return is_first(f->g, mode, f->g->init_task);
}

static bool find_first(void *opaque, const struct mmu_mode *mode)
{
	struct finding *f = opaque;
	struct task_search s = {.g = f->g, .mode = mode};
	/* The name, as long as it is in a task_struct, which is filled up with zeros. */
	const struct search what = {first_name, sizeof(first_name), try_task, &s};

	f->mode = *mode;
	return search(f->g, f->image, &what);
}

static int find(struct linux_guest *g, const struct cpu_state *cpus, unsigned count,
		struct mmu_mode *mode, struct error *err)
{
	struct finding f = {.g = g};
	struct range image;

	if (g->found && each_mode(cpus, count, works, &f)) {
		*mode = f.mode;
		return 0;
	}
	g->found = false;
	if (image_range(g, cpus, count, &image))
		f.image = &image;
	int r = find_btf(g, f.image, err);
	if (r < 0)
		return r;
	if (!each_mode(cpus, count, find_first, &f))
		return error_set(
			err, -ENOTSUP,
			"the guest's processes cannot be named: its kernel's first task was "
			"not found; an address space can be given by --cr3");
	g->found = true;
	*mode = f.mode;
	return 0;
}

static bool read_task(struct linux_guest *g, const struct mmu_mode *mode, uint64_t task,
		      struct linux_task *out)
{
	const struct offsets *at = &g->at;
	struct mmu_look l;
	uint64_t mm, pgd;

	*out = (struct linux_task){.task = task};
	if (mmu_look_virt(g->mem, mode, task + at->pid, &out->pid, 4) < 0 ||
	    mmu_look_virt(g->mem, mode, task + at->tgid, &out->tgid, 4) < 0 ||
	    mmu_look_virt(g->mem, mode, task + at->comm, out->comm, LINUX_COMM_BYTES) < 0 ||
	    mmu_look_virt(g->mem, mode, task + at->mm, &mm, sizeof(mm)) < 0)
		return false;
	if (!mm)
		return true;
	if (!get_pointer(g, mode, mm + at->pgd, &pgd))
		return false;
	mmu_look(g->mem, mode, pgd, &l);
	if (l.end != MMU_LOOK_MAPPED)
		return false;
	out->has_memory = true;
	out->cr3 = l.gpa;
	return true;
}

/* From the first task around to it. */
static bool read_list(struct linux_guest *g, const struct mmu_mode *mode, struct linux_tasks *t)
{
	uint64_t task = g->init_task, list;

	for (t->count = 0; t->count < LINUX_TASKS_MAX;) {
		if (!get_pointer(g, mode, task + g->at.tasks + g->at.next, &list))
			return false;
		task = list - g->at.tasks;
		if (task == g->init_task)
			return true;
		if (!read_task(g, mode, task, &t->list[t->count]))
			return false;
		t->count++;
	}
	return false;
}

int linux_guest_tasks(struct linux_guest *g, const struct cpu_state *cpus, unsigned count,
		      struct linux_tasks *out, struct error *err)
{
	struct mmu_mode mode;
	bool is_64 = false;

	*out = (struct linux_tasks){0};
	for (unsigned k = 0; k < count; k++)
		is_64 = is_64 || ((cpus[k].cr0 & CR0_PG) && (cpus[k].efer & EFER_LMA));
	if (!is_64)
		return error_set(
			err, -ENOTSUP,
			"the guest's processes cannot be named: it is not in 64-bit mode; an "
			"address space can be given by --cr3");
	int r = find(g, cpus, count, &mode, err);
	if (r < 0)
		return r;
	out->list = malloc(LINUX_TASKS_MAX * sizeof(*out->list));
	if (!out->list)
		return error_set(err, -ENOMEM, "the guest's processes: out of memory");
	for (unsigned n = 0; n < LIST_TRIES && !out->complete; n++)
		out->complete = read_list(g, &mode, out);
	return 0;
}
