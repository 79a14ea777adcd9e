/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok net`: networks that machines share. What each command asks is in net_requests.c. */
#include "app/net.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/app.h"
#include "app/net_print.h"
#include "app/options.h"
#include "net/nat.h"

static const char help[] =
	"hanok net: networks that machines share. Each is a switch in a process of its own.\n"
	"\n"
	"  hanok net create NAME [--nat | --tap IF | --bridge IF]   make and start one\n"
	"  hanok net start|stop|rm NAME\n"
	"  hanok net list                       what there is and what runs\n"
	"  hanok net show NAME                  its ports and port groups\n"
	"  hanok net mac-table|nat-table NAME   who is where; which connections pass the NAT\n"
	"\n"
	"  hanok net port-group set NAME GROUP [--vlan N | --trunk 100,200-299 | --guest-tagging]\n"
	"            [--promiscuous yes|no] [--mac-changes yes|no] [--forged yes|no] [--storm PPS]\n"
	"  hanok net port-group rm NAME GROUP\n"
	"  hanok net move NAME PORT GROUP       a port to another group\n"
	"  hanok net attach NAME --nat | --tap IF | --bridge IF [--group G] [--mac ADDRESS]\n"
	"  hanok net detach NAME PORT\n"
	"\n"
	"  hanok net forward add|rm NAME tcp:127.0.0.1:2222-22    the host's port 2222 to the guest's 22\n"
	"  hanok net capture NAME PORT FILE [--limit 100M]        pcapng, for Wireshark and tshark\n"
	"  hanok net capture NAME PORT --stop\n"
	"  hanok net shape NAME PORT [--rate 10M] [--delay 0.02] [--loss PERCENT]   a bad line\n"
	"\n"
	"Options:\n"
	"  --json             tables for programs\n"
	"  --network A/N      the NAT's addresses (10.0.2.0/24)\n"
	"  --no-ipv6          the NAT speaks IPv4 only\n"
	"  --no-host-loopback the NAT's gateway does not lead to this host's own services\n"
	"  --isolated         through the NAT nothing but forwards\n"
	"  --group G          the port group of the interface (default)\n"
	"  --mac ADDRESS      the interface is one machine's, with this address\n"
	"  --foreground       start: stay on this terminal\n"
	"\n"
	"--tap makes an interface on the host, --bridge shares one that is there; both need permission\n"
	"(the error says which). A new network has the port group \"default\", without a VLAN; new\n"
	"groups accept neither promiscuous ports nor changed or forged addresses.\n"
	"\n"
	"Exit status: 0 done; 2 the command line is wrong; 125 it could not be done.\n";

enum {
	OPT_JSON = 256,
	OPT_NAT,
	OPT_TAP,
	OPT_BRIDGE,
	OPT_GROUP,
	OPT_MAC,
	OPT_NETWORK,
	OPT_NO_IPV6,
	OPT_NO_LOOPBACK,
	OPT_ISOLATED,
	OPT_FOREGROUND,
	OPT_VLAN,
	OPT_TRUNK,
	OPT_GUEST,
	OPT_PROMISCUOUS,
	OPT_CHANGES,
	OPT_FORGED,
	OPT_STORM,
	OPT_LIMIT,
	OPT_STOP,
	OPT_RATE,
	OPT_DELAY,
	OPT_LOSS,
};

static const struct option options[] = {
	{"json", no_argument, NULL, OPT_JSON},
	{"nat", no_argument, NULL, OPT_NAT},
	{"tap", required_argument, NULL, OPT_TAP},
	{"bridge", required_argument, NULL, OPT_BRIDGE},
	{"group", required_argument, NULL, OPT_GROUP},
	{"mac", required_argument, NULL, OPT_MAC},
	{"network", required_argument, NULL, OPT_NETWORK},
	{"no-ipv6", no_argument, NULL, OPT_NO_IPV6},
	{"no-host-loopback", no_argument, NULL, OPT_NO_LOOPBACK},
	{"isolated", no_argument, NULL, OPT_ISOLATED},
	{"foreground", no_argument, NULL, OPT_FOREGROUND},
	{"vlan", required_argument, NULL, OPT_VLAN},
	{"trunk", required_argument, NULL, OPT_TRUNK},
	{"guest-tagging", no_argument, NULL, OPT_GUEST},
	{"promiscuous", required_argument, NULL, OPT_PROMISCUOUS},
	{"mac-changes", required_argument, NULL, OPT_CHANGES},
	{"forged", required_argument, NULL, OPT_FORGED},
	{"storm", required_argument, NULL, OPT_STORM},
	{"limit", required_argument, NULL, OPT_LIMIT},
	{"stop", no_argument, NULL, OPT_STOP},
	{"rate", required_argument, NULL, OPT_RATE},
	{"delay", required_argument, NULL, OPT_DELAY},
	{"loss", required_argument, NULL, OPT_LOSS},
	{"help", no_argument, NULL, 'h'},
	{0},
};

/* A command line: words and what the options said, as the objects that requests carry. */
struct command {
	char *words[8];
	int count;
	bool json, stop, foreground;
	json_t *interface, *group, *shape;
	uint64_t limit_bytes;
};

static int take_yes_no(struct command *c, const char *key, const char *text, struct error *err)
{
	bool yes = !strcmp(text, "yes");

	if (!yes && strcmp(text, "no") != 0)
		return error_set(err, -EINVAL, "%s %s: it must be yes or no", key, text);
	return json_object_set_new(c->group, key, json_boolean(yes));
}

/* "10M": bits in a second, powers of 1000. */
static int take_rate(struct command *c, const char *text, struct error *err)
{
	char *end;
	double rate = strtod(text, &end);

	if (end != text && *end && strchr("kMG", *end))
		rate *= *end == 'k' ? 1e3 : *end == 'M' ? 1e6 : 1e9, end++;
	if (end == text || *end || !(rate >= 1000 && rate <= 1e12))
		return error_set(err, -EINVAL,
				 "--rate %s: it must be bits in a second, like 500k, 10M or 1G",
				 text);
	return json_object_set_new(c->shape, "bits_per_s", json_integer((json_int_t)rate));
}

static int take_loss(struct command *c, const char *text, struct error *err)
{
	char *end;
	double percent = strtod(text, &end);

	if (end == text || *end || !(percent >= 0 && percent <= 100))
		return error_set(err, -EINVAL, "--loss %s: it must be a percentage from 0 to 100",
				 text);
	return json_object_set_new(c->shape, "loss_ppm", json_integer((json_int_t)(percent * 1e4)));
}

static int take_number(json_t *in, const char *key, const char *option, const char *text,
		       uint64_t min, uint64_t max, struct error *err)
{
	uint64_t n;
	int rc = parse_unsigned(option, text, min, max, &n, err);

	return rc ? rc : json_object_set_new(in, key, json_integer((json_int_t)n));
}

static int take_interface(struct command *c, const char *kind, const char *device,
			  struct error *err)
{
	if (json_object_get(c->interface, "kind"))
		return error_set(err, -EINVAL, "one of --nat, --tap and --bridge at a time");
	if (device)
		json_object_set_new(c->interface, "device", json_string(device));
	return json_object_set_new(c->interface, "kind", json_string(kind));
}

static int take_option(struct command *c, int option, const char *arg, struct error *err)
{
	uint64_t ns;
	int rc;

	switch (option) {
	case OPT_NAT:
		return take_interface(c, "nat", NULL, err);
	case OPT_TAP:
		return take_interface(c, "tap", arg, err);
	case OPT_BRIDGE:
		return take_interface(c, "bridge", arg, err);
	case OPT_GROUP:
		return json_object_set_new(c->interface, "group", json_string(arg));
	case OPT_MAC:
		return json_object_set_new(c->interface, "mac", json_string(arg));
	case OPT_NETWORK:
		return json_object_set_new(c->interface, "network", json_string(arg));
	case OPT_NO_IPV6:
		return json_object_set_new(c->interface, "ipv6", json_false());
	case OPT_NO_LOOPBACK:
		return json_object_set_new(c->interface, "host_loopback", json_false());
	case OPT_ISOLATED:
		return json_object_set_new(c->interface, "isolated", json_true());
	case OPT_VLAN:
		return take_number(c->group, "vlan", "--vlan", arg, 0, 4094, err);
	case OPT_TRUNK:
		return json_object_set_new(c->group, "trunk", json_string(arg));
	case OPT_GUEST:
		return json_object_set_new(c->group, "guest_tagging", json_true());
	case OPT_PROMISCUOUS:
		return take_yes_no(c, "promiscuous", arg, err);
	case OPT_CHANGES:
		return take_yes_no(c, "mac_changes", arg, err);
	case OPT_FORGED:
		return take_yes_no(c, "forged", arg, err);
	case OPT_STORM:
		return take_number(c->group, "storm_pps", "--storm", arg, 1, 10000000, err);
	case OPT_LIMIT:
		return parse_size("--limit", arg, &c->limit_bytes, err);
	case OPT_RATE:
		return take_rate(c, arg, err);
	case OPT_LOSS:
		return take_loss(c, arg, err);
	case OPT_DELAY:
		rc = parse_seconds("--delay", arg, &ns, err);
		return rc ? rc
			  : json_object_set_new(c->shape, "delay_ns", json_integer((json_int_t)ns));
	case OPT_JSON:
		c->json = true;
		return 0;
	case OPT_STOP:
		c->stop = true;
		return 0;
	case OPT_FOREGROUND:
		c->foreground = true;
		return 0;
	}
	return -EINVAL; /* '?': option_next said it */
}

/* Words and options in any order. 1: --help. */
static int parse(struct command *c, int argc, char **argv, struct error *err)
{
	c->interface = json_object();
	c->group = json_object();
	c->shape = json_object();
	optind = 1;
	for (;;) {
		int option = option_next(argc, argv, options, err);
		if (option == 'h')
			return 1;
		if (option != -1) {
			int rc = take_option(c, option, optarg, err);
			if (rc)
				return rc;
			continue;
		}
		if (optind >= argc)
			return 0;
		if (c->count == 8)
			return error_set(err, -EINVAL,
					 "%s: too many words; --help shows the commands",
					 argv[optind]);
		c->words[c->count++] = argv[optind++];
	}
}

/* ---- the process ---- */

static void tell_parent(void *opaque, const char *error)
{
	int fd = *(int *)opaque, null;

	(void)!write(fd, error ? error : "+", error ? strlen(error) : 1);
	close(fd);
	if (error)
		return;
	/* From now on nobody listens. */
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		close(null);
	}
}

static void tell_terminal(void *opaque, const char *error)
{
	if (error)
		fail(STATUS_FAILED, "%s", error);
	else
		printf("network %s runs; Ctrl-C ends it\n", (const char *)opaque), fflush(stdout);
}

static int start(struct command *c)
{
	const char *name = c->words[1];
	char text[sizeof(struct error)];
	size_t len = 0;
	ssize_t n;
	int fds[2];

	if (c->foreground)
		return net_daemon_run(name, tell_terminal, (void *)name);
	if (pipe2(fds, O_CLOEXEC) < 0)
		return fail(STATUS_FAILED, "net start: %s", strerror(errno));
	fflush(stdout);
	pid_t pid = fork();
	if (pid < 0)
		return fail(STATUS_FAILED, "net start: a process: %s", strerror(errno));
	if (pid == 0) {
		close(fds[0]);
		setsid();
		return net_daemon_run(name, tell_parent, &fds[1]);
	}
	close(fds[1]);
	while (len < sizeof(text) - 1 && (n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = 0;
	close(fds[0]);
	if (!strcmp(text, "+"))
		return STATUS_OK;
	waitpid(pid, NULL, 0);
	return fail(STATUS_FAILED, "%s", len ? text : "net start: its process ended at once");
}

static int create(struct command *c)
{
	const char *name = c->words[1];
	struct error err = {""};
	json_t *config = net_config_load(name, NULL);
	char *path, *socket;
	int rc;

	if (config) {
		json_decref(config);
		return fail(STATUS_FAILED, "%s: there is a network of this name", name);
	}
	config = json_pack("{s:[{s:s}], s:[], s:[]}", "groups", "name", "default", "interfaces",
			   "forwards");
	if (json_object_get(c->interface, "kind"))
		json_array_append(json_object_get(config, "interfaces"), c->interface);
	else if (json_object_size(c->interface)) {
		json_decref(config);
		return fail(STATUS_USAGE, "net create: --nat, --tap or --bridge is missing");
	}
	rc = net_config_save(name, config, &err);
	json_decref(config);
	if (rc)
		return fail(STATUS_FAILED, "%s", err.text);
	int status = start(c);
	if (status == STATUS_OK)
		printf("%s runs; a machine is plugged in by `--nic switch=%s`\n", name, name);
	/* One that cannot run was not created. */
	if (status != STATUS_OK && !net_paths(name, false, &path, &socket, &err)) {
		unlink(path);
		free(path);
		free(socket);
	}
	return status;
}

static int remove_network(struct command *c)
{
	const char *name = c->words[1];
	struct error err = {""};
	char *path, *socket;

	if (net_runs(name))
		return fail(STATUS_FAILED, "network %s runs; `hanok net stop %s` first", name,
			    name);
	json_t *config = net_config_load(name, &err);
	if (!config)
		return fail(STATUS_FAILED, "%s", err.text);
	json_decref(config);
	if (net_paths(name, false, &path, &socket, &err) || unlink(path))
		return fail(STATUS_FAILED, "network %s: %s", name,
			    err.text[0] ? err.text : strerror(errno));
	unlink(socket);
	free(path);
	free(socket);
	return STATUS_OK;
}

/* ---- requests ---- */

/* Asks, and prints the answer: as JSON, or by print. Takes request over. */
static int ask(struct command *c, json_t *request, void (*print)(json_t *answer))
{
	struct error err = {""};
	json_t *answer;
	/* Those with a word of their own before the name. */
	bool pair = !strcmp(c->words[0], "port-group") || !strcmp(c->words[0], "forward");
	int rc = net_ask(c->words[pair ? 2 : 1], request, &answer, &err);

	json_decref(request);
	if (rc)
		return fail(STATUS_FAILED, "%s", err.text);
	if (c->json) {
		json_dumpf(answer, stdout, JSON_INDENT(2));
		putchar('\n');
	} else if (print) {
		print(answer);
	}
	json_decref(answer);
	return STATUS_OK;
}

static int show(struct command *c)
{
	return ask(c, json_pack("{s:s}", "do", "show"), net_print_show);
}

static int mac_table(struct command *c)
{
	return ask(c, json_pack("{s:s}", "do", "mac-table"), net_print_macs);
}

static int nat_table(struct command *c)
{
	return ask(c, json_pack("{s:s}", "do", "nat-table"), net_print_flows);
}

static int stop(struct command *c)
{
	int status = ask(c, json_pack("{s:s}", "do", "stop"), NULL);

	/* It is gone when it says so no more. */
	for (unsigned i = 0; status == STATUS_OK && i < 100 && net_runs(c->words[1]); i++)
		usleep(20000);
	return status;
}

static int port_group(struct command *c)
{
	if (!strcmp(c->words[1], "set")) {
		json_object_set_new(c->group, "name", json_string(c->words[3]));
		return ask(c, json_pack("{s:s, s:O}", "do", "group-set", "group", c->group), NULL);
	}
	if (!strcmp(c->words[1], "rm"))
		return ask(c, json_pack("{s:s, s:s}", "do", "group-rm", "name", c->words[3]), NULL);
	return fail(STATUS_USAGE, "net port-group %s: it must be set or rm", c->words[1]);
}

static int forward(struct command *c)
{
	struct net_forward f;
	struct error err;
	bool add = !strcmp(c->words[1], "add");

	if (!add && strcmp(c->words[1], "rm") != 0)
		return fail(STATUS_USAGE, "net forward %s: it must be add or rm", c->words[1]);
	if (net_forward_parse(c->words[3], &f, &err))
		return fail(STATUS_USAGE, "%s", err.text);
	return ask(c,
		   json_pack("{s:s, s:s}", "do", add ? "forward-add" : "forward-rm", "forward",
			     c->words[3]),
		   NULL);
}

static int attach(struct command *c)
{
	if (!json_object_get(c->interface, "kind"))
		return fail(STATUS_USAGE, "net attach: --nat, --tap or --bridge is missing");
	return ask(c, json_pack("{s:s, s:O}", "do", "attach", "interface", c->interface), NULL);
}

static int detach(struct command *c)
{
	return ask(c, json_pack("{s:s, s:s}", "do", "detach", "port", c->words[2]), NULL);
}

static int move(struct command *c)
{
	return ask(c,
		   json_pack("{s:s, s:s, s:s}", "do", "move", "port", c->words[2], "group",
			     c->words[3]),
		   NULL);
}

static int capture(struct command *c)
{
	char path[PATH_MAX], here[PATH_MAX];
	json_t *request = json_pack("{s:s, s:s, s:I}", "do", "capture", "port", c->words[2],
				    "limit_bytes", (json_int_t)c->limit_bytes);

	if (c->stop == (c->count > 3)) {
		json_decref(request);
		return fail(STATUS_USAGE, "net capture: a file to write to, or --stop");
	}
	/* The network's process is somewhere else. */
	if (!c->stop) {
		if (c->words[3][0] == '/' || !getcwd(here, sizeof(here)))
			snprintf(path, sizeof(path), "%s", c->words[3]);
		else if (snprintf(path, sizeof(path), "%s/%s", here, c->words[3]) >=
			 (int)sizeof(path)) {
			json_decref(request);
			return fail(STATUS_FAILED, "%s: too long a path", c->words[3]);
		}
		json_object_set_new(request, "file", json_string(path));
	}
	return ask(c, request, net_print_capture);
}

static int shape(struct command *c)
{
	json_object_set_new(c->shape, "do", json_string("shape"));
	json_object_set_new(c->shape, "port", json_string(c->words[2]));
	return ask(c, json_incref(c->shape), NULL);
}

static int list(struct command *c)
{
	char *config, *socket;
	struct error err = {""};
	json_t *all = json_array();
	struct dirent *e;

	if (net_paths("x", false, &config, &socket, &err)) {
		json_decref(all);
		return fail(STATUS_FAILED, "%s", err.text);
	}
	*strrchr(config, '/') = 0;
	DIR *dir = opendir(config);
	while (dir && (e = readdir(dir))) {
		char *dot = strrchr(e->d_name, '.');
		if (!dot || dot == e->d_name || strcmp(dot, ".json") != 0)
			continue;
		*dot = 0;
		json_array_append_new(all, json_pack("{s:s, s:b}", "name", e->d_name, "running",
						     net_runs(e->d_name)));
	}
	if (dir)
		closedir(dir);
	free(config);
	free(socket);
	if (c->json) {
		json_dumpf(all, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		net_print_list(all);
	}
	json_decref(all);
	return STATUS_OK;
}

static const struct {
	const char *name;
	int words, more; /* with the command's own; and how many may follow */
	int (*fn)(struct command *c);
	const char *usage;
} commands[] = {
	{"create", 2, 0, create, "NAME"},
	{"start", 2, 0, start, "NAME"},
	{"stop", 2, 0, stop, "NAME"},
	{"rm", 2, 0, remove_network, "NAME"},
	{"list", 1, 0, list, ""},
	{"show", 2, 0, show, "NAME"},
	{"mac-table", 2, 0, mac_table, "NAME"},
	{"nat-table", 2, 0, nat_table, "NAME"},
	{"port-group", 4, 0, port_group, "set|rm NAME GROUP"},
	{"forward", 4, 0, forward, "add|rm NAME FORWARD"},
	{"attach", 2, 0, attach, "NAME --nat | --tap IF | --bridge IF"},
	{"detach", 3, 0, detach, "NAME PORT"},
	{"move", 4, 0, move, "NAME PORT GROUP"},
	{"capture", 3, 1, capture, "NAME PORT FILE"},
	{"shape", 3, 0, shape, "NAME PORT"},
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static int run_command(struct command *c)
{
	const char *names[COMMANDS + 1] = {0};
	unsigned i = 0;

	while (i < COMMANDS && strcmp(c->words[0], commands[i].name) != 0) {
		names[i] = commands[i].name;
		i++;
	}
	if (i == COMMANDS) {
		const char *near = nearest_name(c->words[0], names);
		return fail(STATUS_USAGE,
			    near ? "net %s: there is no such command; did you mean %s?"
				 : "net %s: there is no such command; --help lists them",
			    c->words[0], near);
	}
	if (c->count < commands[i].words || c->count > commands[i].words + commands[i].more)
		return fail(STATUS_USAGE, "net %s: it must be `hanok net %s %s`", commands[i].name,
			    commands[i].name, commands[i].usage);
	return commands[i].fn(c);
}

int verb_net(int argc, char **argv)
{
	struct command c = {0};
	struct error err = {""};
	int status, parsed = parse(&c, argc, argv, &err);

	if (parsed > 0) {
		fputs(help, stdout);
		status = STATUS_OK;
	} else if (parsed < 0) {
		status = fail(STATUS_USAGE, "%s", err.text);
	} else if (!c.count) {
		status = fail(STATUS_USAGE,
			      "net: what to do? `hanok net --help` lists the commands");
	} else {
		status = run_command(&c);
	}
	json_decref(c.interface);
	json_decref(c.group);
	json_decref(c.shape);
	return status;
}
