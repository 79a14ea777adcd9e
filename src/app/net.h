/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_NET_H
#define HANOK_APP_NET_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

/*
 * Networks: each is a switch in a process of its own, and a file that says what it is made of:
 *
 *     ~/hanok/.networks/NAME.json     groups, interfaces, forwards     (HANOK_VMS moves it)
 *     RUNTIME/net/NAME.sock           where its process is reached     (control/vm_folder.h)
 */

/* The paths of a network; both the caller's to free. create: their folders are made. */
int net_paths(const char *name, bool create, char **config, char **socket, struct error *err);
/* The socket alone, for a NIC of `hanok run`; the caller's to free. NULL with *err. */
char *net_socket_path(const char *name, struct error *err);
/* The caller's to json_decref; NULL with *err: there is no such network, or its file is broken. */
json_t *net_config_load(const char *name, struct error *err);
/* Replaces the file in one step. */
int net_config_save(const char *name, json_t *config, struct error *err);

/* Runs a network's process until it is asked to stop. ready(opaque, NULL) when it serves, or with
 * the line of error. Returns an exit status. */
int net_daemon_run(const char *name, void (*ready)(void *opaque, const char *error), void *opaque);

/* Where in a list of objects the one is whose key has this value; the list's size: nowhere. */
size_t net_find_named(const json_t *list, const char *key, const char *value);

/* Asks a network's process; *answer is the caller's to json_decref. */
int net_ask(const char *name, json_t *request, json_t **answer, struct error *err);
/* Does its process answer? */
bool net_runs(const char *name);

#endif
