/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BASE_ADVICE_H
#define HANOK_BASE_ADVICE_H

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

#endif
