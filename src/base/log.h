/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_BASE_LOG_H
#define HANOK_BASE_LOG_H

/* The log: one line a message, no newline in fmt. Any thread. Errors for a caller go through
 * base/error.h; the log is for what happens while a VM runs. */
enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)

/* Messages above this level are dropped; LOG_WARN at start. */
void log_set_level(enum log_level level);

/* Where lines go; NULL (the start) is stderr, with "hanok: " before each line and, while a raw
 * terminal is on, a carriage return after it. Call before threads start. */
void log_set_sink(void (*sink)(void *opaque, enum log_level level, const char *line), void *opaque);

#endif
