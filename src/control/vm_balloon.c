/* SPDX-License-Identifier: Apache-2.0 */
#include "control/vm_balloon.h"

#include <errno.h>

#include "base/clock.h"
#include "base/log.h"

static json_t *describe_guest(const struct balloon_info *i)
{
	json_t *guest = json_object();

	if (!i->told)
		return guest;
	for (unsigned n = 0; n < BALLOON_STAT_NR; n++)
		if (i->stat[n] != BALLOON_UNTOLD)
			json_object_set_new(guest, balloon_stat_names[n],
					    json_integer((json_int_t)(i->stat[n] & INT64_MAX)));
	json_object_set_new(guest, "age_s", json_real((double)(clock_ns() - i->told_ns) / 1e9));
	return guest;
}

static json_t *describe_host(const struct mem_stats *s)
{
	return json_pack("{s:I, s:I, s:I, s:I}", "limit_bytes", (json_int_t)s->limit_bytes,
			 "used_bytes", (json_int_t)s->used_bytes, "swapped_out_pages",
			 (json_int_t)s->evicted_stored, "swapped_in_pages",
			 (json_int_t)(s->swap_ins + s->read_aheads));
}

static json_t *describe(struct machine *m, struct ballooner *b)
{
	struct balloon_info i;
	struct mem_stats s;

	balloon_get_info(ballooner_balloon(b), &i);
	mem_get_stats(machine_mem(m), &s, false);
	return json_pack("{s:b, s:s, s:I, s:I, s:o*, s:o*, s:I, s:I, s:I, s:I, s:I, s:I}", "driver",
			 i.driver, "mode", balloon_mode_names[ballooner_mode(b)], "target_bytes",
			 (json_int_t)i.target, "actual_bytes", (json_int_t)i.actual, "guest",
			 describe_guest(&i), "host", describe_host(&s), "inflated_pages",
			 (json_int_t)i.inflated, "deflated_pages", (json_int_t)i.deflated,
			 "reported_pages", (json_int_t)i.reported, "refused_pages",
			 (json_int_t)i.refused, "repeated_pages", (json_int_t)i.repeated,
			 "kept_pages", (json_int_t)i.kept);
}

/* What the request changes, if anything. */
static int set(struct machine *m, struct ballooner *b, const struct request *r, struct error *err)
{
	long long ram = (long long)mem_ram_bytes(machine_mem(m)), bytes;
	struct balloon_info i;
	bool automatic;
	int code = request_number(r, "target_bytes", -1, -1, ram, &bytes, err);

	if (code == 0)
		code = request_bool(r, "auto", false, &automatic, err);
	if (code < 0)
		return code;
	balloon_get_info(ballooner_balloon(b), &i);
	if (automatic) {
		if (bytes >= 0)
			return error_set(err, -EINVAL, "either target_bytes or auto, not both");
		ballooner_set(b, BALLOON_AUTO, 0);
		log_info("the balloon is automatic");
	} else if (bytes > 0 && !i.driver) {
		return error_set(err, -ENODEV,
				 "its guest has no driver for the balloon, or has not loaded it "
				 "yet; in Linux that is virtio_balloon");
	} else if (bytes >= 0) {
		ballooner_set(b, BALLOON_OFF, (uint64_t)bytes);
		log_info("the balloon is to be of %lld MiB", bytes >> 20);
	}
	return 0;
}

int vm_balloon_request(struct machine *m, const struct request *r, json_t **answer,
		       struct error *err)
{
	struct ballooner *b = machine_ballooner(m);

	if (!b)
		return error_set(err, -ENODEV,
				 "it has no balloon; start it without --balloon none and "
				 "hanok.balloon = \"FALSE\"");
	int code = set(m, b, r, err);
	if (code < 0)
		return code;
	*answer = describe(m, b);
	balloon_ask(ballooner_balloon(b));
	return *answer ? 0 : error_set(err, -ENOMEM, "balloon: out of memory");
}
