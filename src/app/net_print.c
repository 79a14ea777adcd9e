/* SPDX-License-Identifier: Apache-2.0 */
#include "app/net_print.h"

#include <stdio.h>
#include <string.h>

struct column {
	const char *title, *key;
	int width; /* negative: to the left */
};

static void print_value(const json_t *v, int width)
{
	char text[64] = "";

	if (json_is_string(v))
		snprintf(text, sizeof(text), "%s", json_string_value(v));
	else if (json_is_integer(v))
		snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(v));
	else if (json_is_real(v))
		snprintf(text, sizeof(text), "%.1f", json_real_value(v));
	else if (json_is_boolean(v))
		snprintf(text, sizeof(text), "%s", json_is_true(v) ? "yes" : "no");
	printf("%*s  ", width, text[0] ? text : "-");
}

static void print_table(json_t *rows, const struct column *columns)
{
	json_t *row;
	size_t i;

	for (const struct column *c = columns; c->title; c++)
		printf("%*s  ", c->width, c->title);
	putchar('\n');
	json_array_foreach(rows, i, row)
	{
		for (const struct column *c = columns; c->title; c++)
			print_value(json_object_get(row, c->key), c->width);
		putchar('\n');
	}
}

static void print_drops(json_t *ports)
{
	const char *cause;
	json_t *p, *n;
	size_t i;

	json_array_foreach(ports, i, p)
	{
		json_object_foreach(json_object_get(p, "drops"), cause, n)
			printf("port %lld dropped %lld: %s\n",
			       (long long)json_integer_value(json_object_get(p, "port")),
			       (long long)json_integer_value(n), cause);
	}
}

static void print_groups(json_t *groups)
{
	json_t *g;
	size_t i;

	printf("\n%-16s  %-16s  %s\n", "GROUP", "VLAN", "ACCEPTS");
	json_array_foreach(groups, i, g)
	{
		const char *trunk = json_string_value(json_object_get(g, "trunk"));
		char vlan[32] = "none";
		json_int_t vid = json_integer_value(json_object_get(g, "vlan"));
		if (json_is_true(json_object_get(g, "guest_tagging")))
			strcpy(vlan, "guest's tags");
		else if (trunk)
			snprintf(vlan, sizeof(vlan), "trunk %s", trunk);
		else if (vid)
			snprintf(vlan, sizeof(vlan), "%lld", (long long)vid);
		printf("%-16s  %-16s %s%s%s\n", json_string_value(json_object_get(g, "name")), vlan,
		       json_is_true(json_object_get(g, "promiscuous")) ? " promiscuous" : "",
		       json_is_true(json_object_get(g, "mac_changes")) ? " mac-changes" : "",
		       json_is_true(json_object_get(g, "forged")) ? " forged" : "");
	}
}

void net_print_show(json_t *answer)
{
	static const struct column columns[] = {
		{"PORT", "port", 4},
		{"NAME", "name", -16},
		{"GROUP", "group", -12},
		{"MAC", "mac_used", -17},
		{"LINK", "link", -4},
		{"IN FRAMES", "in_frames", 10},
		{"IN BYTES", "in_bytes", 12},
		{"OUT FRAMES", "out_frames", 10},
		{"OUT BYTES", "out_bytes", 12},
		{0},
	};
	json_t *forwards = json_object_get(answer, "forwards"), *f;
	size_t i;

	print_table(json_object_get(answer, "ports"), columns);
	print_drops(json_object_get(answer, "ports"));
	print_groups(json_object_get(answer, "groups"));
	json_array_foreach(forwards, i, f)
		printf("%sforward %s\n", i ? "" : "\n", json_string_value(f));
}

void net_print_macs(json_t *answer)
{
	static const struct column columns[] = {
		{"MAC", "mac", -17},   {"VLAN", "vlan", 4},   {"PORT", "port", 4},
		{"NAME", "name", -16}, {"AGE s", "age_s", 6}, {0},
	};

	print_table(json_object_get(answer, "entries"), columns);
}

void net_print_flows(json_t *answer)
{
	static const struct column columns[] = {
		{"PROTO", "protocol", -5}, {"INSIDE", "inside", -22}, {"OUTSIDE", "outside", -22},
		{"HOST", "host", -22},	   {"STATE", "state", -12},   {"OUT", "bytes_out", 10},
		{"IN", "bytes_in", 10},	   {"AGE s", "age_s", 8},     {0},
	};

	print_table(json_object_get(answer, "flows"), columns);
}

void net_print_list(json_t *networks)
{
	static const struct column columns[] = {
		{"NETWORK", "name", -24}, {"RUNS", "running", -4}, {0}};

	print_table(networks, columns);
}

void net_print_capture(json_t *answer)
{
	json_t *frames = json_object_get(answer, "frames");

	if (frames)
		printf("%lld frames\n", (long long)json_integer_value(frames));
}
