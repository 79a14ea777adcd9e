/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a network's process is asked: an object {"do": WHAT, ...}; the answer is an object too, with
 * "error" if it could not be done. What changes the network also changes its file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/net.h"
#include "app/net_daemon.h"
#include "control/nic_json.h"

enum { MACS_MAX = 65536 };

/* Each fills answer, or says what is wrong. */
typedef int request_fn(struct net_daemon *d, json_t *j, json_t *answer, struct error *err);

static json_t *list_of(struct net_daemon *d, const char *name)
{
	json_t *list = json_object_get(d->config, name);

	if (list)
		return list;
	json_object_set_new(d->config, name, json_array());
	return json_object_get(d->config, name);
}

/* ---- tables ---- */

static json_t *port_json(const struct net_switch_port *p)
{
	const struct netport_stats *s = &p->stats;

	return json_pack(
		"{s:i, s:s, s:s, s:o, s:o, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:o, "
		"s:{s:I, s:f, s:f}}",
		"port", (int)p->id, "name", p->name, "group", p->group, "mac",
		net_mac_json(p->mac_given), "mac_used", net_mac_json(p->mac_used), "uplink",
		p->uplink, "link", p->link, "blocked", p->blocked, "in_frames",
		(json_int_t)s->received_frames, "in_packets", (json_int_t)s->received_packets,
		"in_bytes", (json_int_t)s->received_bytes, "out_frames", (json_int_t)s->sent_frames,
		"out_packets", (json_int_t)s->sent_packets, "out_bytes", (json_int_t)s->sent_bytes,
		"drops", net_drops_json(s), "shape", "bits_per_s", (json_int_t)p->shape.bits_per_s,
		"delay_ms", (double)p->shape.delay_ns / 1e6, "loss_percent",
		(double)p->shape.loss_ppm / 1e4);
}

static int show(struct net_daemon *d, json_t *j, json_t *answer, struct error *err)
{
	json_t *ports = json_array(), *macs;
	struct mac_table_stats s;
	struct net_switch_port p;

	(void)j, (void)err;
	for (unsigned id = 0; net_switch_get_port(d->sw, id, &p); id = p.id + 1)
		json_array_append_new(ports, port_json(&p));
	net_switch_get_mac_stats(d->sw, &s);
	macs = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "entries", (json_int_t)s.entries,
			 "places", (json_int_t)s.places, "learned", (json_int_t)s.learned, "moved",
			 (json_int_t)s.moved, "aged", (json_int_t)s.aged, "evicted",
			 (json_int_t)s.evicted, "refused", (json_int_t)s.refused);
	json_object_set_new(answer, "name", json_string(d->name));
	json_object_set_new(answer, "pid", json_integer(getpid()));
	json_object_set_new(answer, "ports", ports);
	json_object_set(answer, "groups", list_of(d, "groups"));
	json_object_set(answer, "interfaces", list_of(d, "interfaces"));
	json_object_set(answer, "forwards", list_of(d, "forwards"));
	json_object_set_new(answer, "mac_table", macs);
	return 0;
}

static int mac_table(struct net_daemon *d, json_t *j, json_t *answer, struct error *err)
{
	struct mac_entry *e = calloc(MACS_MAX, sizeof(*e));
	json_t *list = json_array();

	(void)j;
	if (!e) {
		json_decref(list);
		return error_set(err, -ENOMEM, "out of memory");
	}
	uint32_t n = net_switch_get_macs(d->sw, e, MACS_MAX);
	for (uint32_t i = 0; i < n; i++) {
		struct net_switch_port p;
		bool known = net_switch_get_port(d->sw, e[i].port, &p) && p.id == e[i].port;
		json_array_append_new(
			list, json_pack("{s:o, s:i, s:i, s:s, s:I}", "mac", net_mac_json(e[i].mac),
					"vlan", (int)e[i].vid, "port", (int)e[i].port, "name",
					known ? p.name : "", "age_s", (json_int_t)e[i].age_s));
	}
	free(e);
	json_object_set_new(answer, "entries", list);
	return 0;
}

static int nat_table(struct net_daemon *d, json_t *j, json_t *answer, struct error *err)
{
	struct net_nat *nat = net_daemon_nat(d, err);

	(void)j;
	if (!nat)
		return -ENOENT;
	json_t *list = net_flows_json(nat);
	if (!list)
		return error_set(err, -ENOMEM, "out of memory");
	json_object_set_new(answer, "flows", list);
	return 0;
}

/* ---- changes ---- */

static int save(struct net_daemon *d, struct error *err)
{
	return net_config_save(d->name, d->config, err);
}

static int set_group(struct net_daemon *d, json_t *j, json_t *answer, struct error *err)
{
	json_t *groups = list_of(d, "groups"), *given = json_object_get(j, "group"), *merged;
	const char *name = json_string_value(json_object_get(given, "name"));

	(void)answer;
	if (!name)
		return error_set(err, -EINVAL, "a port group without a name");
	size_t at = net_find_named(groups, "name", name);
	/* What is not said stays as it was; a VLAN mode takes the place of the other ones. */
	json_t *old = json_array_get(groups, at);
	merged = old ? json_copy(old) : json_object();
	if (json_object_get(given, "vlan") || json_object_get(given, "trunk") ||
	    json_object_get(given, "guest_tagging")) {
		json_object_del(merged, "vlan");
		json_object_del(merged, "trunk");
		json_object_del(merged, "guest_tagging");
	}
	json_object_update(merged, given);
	int rc = net_daemon_group(d, merged, err);
	if (!rc && old)
		json_array_set(groups, at, merged);
	else if (!rc)
		json_array_append(groups, merged);
	json_decref(merged);
	return rc ? rc : save(d, err);
}

static int remove_group(struct net_daemon *d, json_t *j, json_t *answer, struct error *err)
{
	const char *name = json_string_value(json_object_get(j, "name"));
	int rc = name ? net_switch_remove_group(d->sw, name) : -EINVAL;

	(void)answer;
	if (rc)
		return error_set(err, rc, "port group %s: %s", name ? name : "",
				 rc == -EBUSY ? "it has ports" : "there is no such one");
	json_array_remove(list_of(d, "groups"), net_find_named(list_of(d, "groups"), "name", name));
	return save(d, err);
}

static int attach(struct net_daemon *d, json_t *j, json_t *answer, struct error *err)
{
	json_t *config = json_object_get(j, "interface");
	int rc = config ? net_daemon_attach(d, config, err)
			: error_set(err, -EINVAL, "attach: what?");

	if (rc)
		return rc;
	json_array_append(list_of(d, "interfaces"), config);
	json_object_set_new(answer, "port",
			    json_integer(d->interfaces[d->interface_count - 1].port));
	return save(d, err);
}

/* The number of the port that a person names by number or name. */
static int find_port(struct net_daemon *d, json_t *j, unsigned *id, struct error *err)
{
	const char *word = json_string_value(json_object_get(j, "port"));
	struct net_switch_port p;
	char *end;

	if (!word)
		return error_set(err, -EINVAL, "which port?");
	unsigned long number = strtoul(word, &end, 10);
	bool numeric = *word && !*end;
	for (unsigned at = 0; net_switch_get_port(d->sw, at, &p); at = p.id + 1) {
		if (numeric ? p.id != number : strcmp(p.name, word) != 0)
			continue;
		*id = p.id;
		return 0;
	}
	return error_set(err, -ENOENT,
			 "port %s: network %s has no such one; `hanok net show %s` lists "
			 "them",
			 word, d->name, d->name);
}

static int detach(struct net_daemon *d, json_t *j, json_t *answer, struct error *err)
{
	unsigned id, i = 0;
	int rc = find_port(d, j, &id, err);

	(void)answer;
	if (rc)
		return rc;
	while (i < d->interface_count && d->interfaces[i].port != id)
		i++;
	if (i == d->interface_count)
		return error_set(err, -EINVAL, "port %u is a machine's; it goes with it", id);
	json_t *config = d->interfaces[i].config, *entry;
	bool nat = d->interfaces[i].nat;
	size_t at;
	net_daemon_detach(d, i);
	json_array_foreach(list_of(d, "interfaces"), at, entry)
	{
		if (entry != config)
			continue;
		json_array_remove(list_of(d, "interfaces"), at);
		break;
	}
	if (nat)
		json_array_clear(list_of(d, "forwards"));
	return save(d, err);
}

static int forward(struct net_daemon *d, json_t *j, bool add, struct error *err)
{
	const char *text = json_string_value(json_object_get(j, "forward"));
	struct net_nat *nat = net_daemon_nat(d, err);
	json_t *list = list_of(d, "forwards");
	struct net_forward f;
	char line[128];
	int rc;

	if (!nat || !text || net_forward_parse(text, &f, err))
		return -EINVAL;
	rc = add ? net_nat_add_forward(nat, &f, err) : net_nat_remove_forward(nat, &f, err);
	if (rc)
		return rc;
	json_array_clear(list);
	for (unsigned i = 0; net_nat_get_forward(nat, i, &f); i++) {
		net_forward_format(&f, line);
		json_array_append_new(list, json_string(line));
	}
	return save(d, err);
}

static int add_forward(struct net_daemon *d, json_t *j, json_t *answer, struct error *err)
{
	(void)answer;
	return forward(d, j, true, err);
}

static int remove_forward(struct net_daemon *d, json_t *j, json_t *answer, struct error *err)
{
	(void)answer;
	return forward(d, j, false, err);
}

static int capture(struct net_daemon *d, json_t *j, json_t *answer, struct error *err)
{
	const char *file = json_string_value(json_object_get(j, "file"));
	json_int_t limit = json_integer_value(json_object_get(j, "limit_bytes"));
	struct net_capture *fresh = NULL;
	unsigned id;
	int rc = find_port(d, j, &id, err);

	if (!rc && file)
		rc = net_capture_create(&fresh, file, (uint64_t)limit, err);
	if (rc)
		return rc;
	net_switch_capture(d->sw, id, fresh);
	if (d->captures[id]) {
		json_object_set_new(answer, "frames",
				    json_integer((json_int_t)net_capture_frames(d->captures[id])));
		rc = net_capture_close(d->captures[id]);
	} else if (!file) {
		rc = error_set(err, -ENOENT, "port %u is not captured", id);
	}
	d->captures[id] = fresh;
	return rc;
}

static int shape(struct net_daemon *d, json_t *j, json_t *answer, struct error *err)
{
	struct net_shape s = {0};
	json_int_t bits = 0, delay = 0;
	int ppm = 0;
	unsigned id;
	int rc = find_port(d, j, &id, err);

	(void)answer;
	if (rc)
		return rc;
	if (json_unpack(j, "{s?I, s?I, s?i}", "bits_per_s", &bits, "delay_ns", &delay, "loss_ppm",
			&ppm) ||
	    bits < 0 || delay < 0 || delay > 60000000000 || ppm < 0 || ppm > 1000000)
		return error_set(err, -EINVAL, "shape: a number that makes no sense");
	s.bits_per_s = (uint64_t)bits;
	s.delay_ns = (uint64_t)delay;
	s.loss_ppm = (uint32_t)ppm;
	return net_switch_set_shape(d->sw, id, &s);
}

static int move(struct net_daemon *d, json_t *j, json_t *answer, struct error *err)
{
	const char *group = json_string_value(json_object_get(j, "group"));
	unsigned id;
	int rc = find_port(d, j, &id, err);

	(void)answer;
	if (rc)
		return rc;
	rc = group ? net_switch_move(d->sw, id, group) : -EINVAL;
	if (rc)
		return error_set(err, rc, "port group %s: there is no such one",
				 group ? group : "");
	for (unsigned i = 0; i < d->interface_count; i++)
		if (d->interfaces[i].port == id)
			json_object_set_new(d->interfaces[i].config, "group", json_string(group));
	return save(d, err);
}

static void stop_later(void *opaque)
{
	loop_stop(opaque);
}

static int stop(struct net_daemon *d, json_t *j, json_t *answer, struct error *err)
{
	(void)j, (void)answer;
	return loop_post(d->loop, stop_later, d->loop) ? error_set(err, -ENOMEM, "out of memory")
						       : 0;
}

static const struct {
	const char *name;
	request_fn *fn;
} requests[] = {
	{"show", show},
	{"mac-table", mac_table},
	{"nat-table", nat_table},
	{"group-set", set_group},
	{"group-rm", remove_group},
	{"attach", attach},
	{"detach", detach},
	{"forward-add", add_forward},
	{"forward-rm", remove_forward},
	{"capture", capture},
	{"shape", shape},
	{"move", move},
	{"stop", stop},
};

char *net_daemon_request(void *opaque, const char *text)
{
	json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *answer = json_object();
	const char *what = json_string_value(json_object_get(j, "do"));
	struct error err = {""};
	int rc = -EINVAL;
	size_t i = 0;

	while (i < sizeof(requests) / sizeof(requests[0]) &&
	       (!what || strcmp(what, requests[i].name) != 0))
		i++;
	if (i < sizeof(requests) / sizeof(requests[0]))
		rc = requests[i].fn(opaque, j, answer, &err);
	else
		error_set(&err, rc, "a request that is not understood");
	if (rc)
		json_object_set_new(answer, "error",
				    json_string(err.text[0] ? err.text : strerror(-rc)));
	char *reply = json_dumps(answer, JSON_COMPACT);
	json_decref(answer);
	json_decref(j);
	return reply;
}
