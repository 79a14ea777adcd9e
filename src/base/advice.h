/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BASE_ADVICE_H
#define HANOK_BASE_ADVICE_H

#include <stdbool.h>
#include <sys/mman.h>

/* Advice for madvise() that C libraries of today do not name yet. Kernels that do not know it say EINVAL. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

enum { HUGE_PAGE_BYTES = 2 << 20 };

/* Asks the host for a huge page for shared memory, at `at`, where one can lie; false: it gives none. What is
 * there stays, and others may use it meanwhile. */
static inline bool advise_huge(void *at)
{
	/* One page has to be there, madvise(2). */
	return madvise(at, 4096, MADV_POPULATE_WRITE) == 0 &&
	       madvise(at, HUGE_PAGE_BYTES, MADV_COLLAPSE) == 0;
}

#endif
