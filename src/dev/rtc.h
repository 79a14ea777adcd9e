/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_DEV_RTC_H
#define HANOK_DEV_RTC_H

#include "base/loop.h"
#include "dev/dev.h"

/* The PC's clock with its battery-backed bytes (Motorola MC146818A datasheet; ICH9 datasheet 13.6).
 * It shows the host's UTC until the guest sets it, and runs on from there. */
struct rtc;

enum { RTC_BYTES = 128 };

struct rtc_config {
	struct bus *bus;
	struct loop *loop;
	uint16_t port;
	struct irq_line irq;
};

extern const struct dev_ops rtc_ops;

int rtc_create(struct rtc **out, const struct rtc_config *cfg, struct error *err);

/* A byte of NVRAM, 0Eh to 7Fh but for the century, as firmware would leave it. Any thread. */
void rtc_set_byte(struct rtc *r, unsigned index, uint8_t value);

#endif
