/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Equal pages: the host's KSM (Linux, Documentation/admin-guide/mm/ksm.rst) keeps one copy of pages that are
 * the same, in this machine or another that asks for it, and gives who writes his own again. All
 * that is done here is to offer it the guest's RAM, and to say when it does not work.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "mem/mem_internal.h"

static bool read_number(const char *path, uint64_t *n)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fscanf(f, "%" SCNu64, n) == 1;

	if (f)
		fclose(f);
	return ok;
}

void share_start(struct mem *m)
{
	static const char run[] = "/sys/kernel/mm/ksm/run";
	uint64_t on;

	if (!m->config.share)
		return;
	if (madvise(m->base, m->ram, MADV_MERGEABLE) < 0 || !read_number(run, &on)) {
		log_warn("equal pages are not shared: this host's kernel has no KSM; run without "
			 "--memory-share and hanok.mem.share");
		m->config.share = false;
		return;
	}
	log_info(
		"equal pages are shared, also with other machines that allow it: by the time that a "
		"write takes, one can find out what pages another has");
	if (on != 1)
		log_warn(
			"equal pages are not shared yet: the host's KSM does not run; to start it: "
			"echo 1 | sudo tee %s",
			run);
}

uint64_t share_pages(const struct mem *m)
{
	uint64_t pages = 0;

	if (m->config.share && !read_number("/proc/self/ksm_merging_pages", &pages))
		pages = 0;
	return pages;
}
