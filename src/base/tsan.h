/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BASE_TSAN_H
#define HANOK_BASE_TSAN_H

#include <stddef.h>

/*
 * What the thread sanitizer has to be told, in a build with it (SAN=tsan); nothing in others.
 *
 * tsan_may_race: races in these bytes are meant to be, and not reported. For memory in which threads
 * race because that is what is being emulated; what orders our own threads is never excused so.
 */
#ifdef __has_feature
#define HANOK_HAS_TSAN __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define HANOK_HAS_TSAN 1
#else
#define HANOK_HAS_TSAN 0
#endif

#if HANOK_HAS_TSAN
/* Exported by the sanitizer's runtime (compiler-rt, tsan_interface_ann.cpp). */
void AnnotateBenignRaceSized(const char *file, int line, const volatile void *mem, size_t bytes,
			     const char *why);

static inline void tsan_may_race(const volatile void *mem, size_t bytes, const char *why)
{
	AnnotateBenignRaceSized(__FILE__, __LINE__, mem, bytes, why);
}
#else
static inline void tsan_may_race(const volatile void *mem, size_t bytes, const char *why)
{
	(void)mem, (void)bytes, (void)why;
}
#endif

#endif
