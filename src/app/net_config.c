/* SPDX-License-Identifier: Apache-2.0 */
/* Where networks are kept, and how their processes are asked. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/net.h"
#include "control/vm_folder.h"
#include "net/proto.h"

static bool valid_name(const char *name)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
	size_t n = strspn(name, letters);

	return n && n <= 40 && !name[n];
}

static int make_folder(const char *path, struct error *err)
{
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return error_set(err, -errno, "%s: %s", path, strerror(errno));
	return 0;
}

int net_paths(const char *name, bool create, char **config, char **socket, struct error *err)
{
	char *root, *runtime = NULL, path[4096];
	int rc;

	*config = *socket = NULL;
	if (!valid_name(name))
		return error_set(err, -EINVAL,
				 "%s: a network's name has up to 40 letters, digits, - and _",
				 name);
	rc = vm_runtime(&runtime, create, err);
	if (rc)
		return rc;
	root = vm_root();
	if (!root) {
		free(runtime);
		return error_set(err, -ENOENT, "network %s: HOME is not set", name);
	}
	if (create) {
		snprintf(path, sizeof(path), "%s/.networks", root);
		rc = make_folder(root, err);
		rc = rc ? rc : make_folder(path, err);
		snprintf(path, sizeof(path), "%s/net", runtime);
		rc = rc ? rc : make_folder(path, err);
	}
	if (!rc && (asprintf(config, "%s/.networks/%s.json", root, name) < 0 ||
		    asprintf(socket, "%s/net/%s.sock", runtime, name) < 0))
		rc = error_set(err, -ENOMEM, "network %s: out of memory", name);
	free(root);
	free(runtime);
	return rc;
}

char *net_socket_path(const char *name, struct error *err)
{
	char *config, *socket;

	if (net_paths(name, false, &config, &socket, err))
		return NULL;
	free(config);
	return socket;
}

json_t *net_config_load(const char *name, struct error *err)
{
	char *config, *socket;
	json_error_t why;
	json_t *j = NULL;

	if (net_paths(name, false, &config, &socket, err))
		return NULL;
	if (access(config, F_OK))
		error_set(err, -ENOENT,
			  "%s: there is no such network; `hanok net list` shows those there are, "
			  "`hanok net create %s` makes it",
			  name, name);
	else if (!(j = json_load_file(config, JSON_REJECT_DUPLICATES, &why)))
		error_set(err, -EINVAL, "%s:%d: %s", config, why.line, why.text);
	free(config);
	free(socket);
	return j;
}

int net_config_save(const char *name, json_t *j, struct error *err)
{
	char *config, *socket, *fresh = NULL;
	int rc = net_paths(name, true, &config, &socket, err);

	if (rc)
		return rc;
	if (asprintf(&fresh, "%s.new", config) < 0 || json_dump_file(j, fresh, JSON_INDENT(2)) ||
	    rename(fresh, config))
		rc = error_set(err, -errno, "%s: it cannot be written: %s", config,
			       strerror(errno));
	free(fresh);
	free(config);
	free(socket);
	return rc;
}

int net_ask(const char *name, json_t *request, json_t **answer, struct error *err)
{
	char *socket = net_socket_path(name, err), *text = NULL, *reply = NULL;
	int rc = -EINVAL;

	*answer = NULL;
	if (socket && access(socket, F_OK)) {
		/* Is it the network that is not there, or its process? */
		json_t *config = net_config_load(name, err);
		if (config)
			error_set(err, -ENOENT,
				  "network %s does not run; `hanok net start %s` starts it", name,
				  name);
		json_decref(config);
		free(socket);
		return -ENOENT;
	}
	text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	if (socket && text)
		rc = net_request(socket, text, &reply, err);
	free(socket);
	free(text);
	if (rc)
		return rc;
	*answer = json_loads(reply, 0, NULL);
	free(reply);
	if (!*answer)
		return error_set(err, -EPROTO, "network %s: its answer is not understood", name);
	const char *why = json_string_value(json_object_get(*answer, "error"));
	if (!why)
		return 0;
	rc = error_set(err, -EINVAL, "%s", why);
	json_decref(*answer);
	*answer = NULL;
	return rc;
}

bool net_runs(const char *name)
{
	json_t *answer = NULL, *request = json_pack("{s:s}", "do", "show");
	int rc = net_ask(name, request, &answer, NULL);

	json_decref(request);
	json_decref(answer);
	return !rc;
}

size_t net_find_named(const json_t *list, const char *key, const char *value)
{
	const json_t *j;
	size_t i;

	json_array_foreach(list, i, j)
	{
		const char *is = json_string_value(json_object_get(j, key));
		if (is && !strcmp(is, value))
			break;
	}
	return i;
}
