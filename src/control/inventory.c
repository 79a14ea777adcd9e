/* SPDX-License-Identifier: Apache-2.0 */
#include "control/inventory.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/client.h"
#include "control/vm_folder.h"

enum { STATUS_MS = 2000, SOCKETS_MAX = 4096 };

/* PID.sock or PID-N.sock */
static int is_socket(const struct dirent *e)
{
	size_t len = strlen(e->d_name);

	return len > 5 && !strcmp(e->d_name + len - 5, ".sock") && e->d_name[0] >= '1' &&
	       e->d_name[0] <= '9';
}

static void look(const char *path, pid_t pid,
		 void (*fn)(void *opaque, const struct inventory_entry *e), void *opaque)
{
	struct inventory_entry e = {.socket = path, .pid = pid};
	struct control_client *c;

	int r = control_connect(&c, path, NULL);
	if (r == -ECONNREFUSED)
		unlink(path); /* a socket that its process, killed, has left behind */
	if (r < 0)
		return;
	if (control_ask(c, json_pack("{s:s}", "do", "status"), &e.status, STATUS_MS, NULL) < 0)
		e.status = NULL;
	control_close(c);
	fn(opaque, &e);
	json_decref(e.status);
}

void inventory_each(void (*fn)(void *opaque, const struct inventory_entry *e), void *opaque)
{
	struct dirent **names = NULL;
	char *folder;

	if (vm_runtime(&folder, false, NULL) < 0)
		return;
	int n = scandir(folder, &names, is_socket, versionsort);
	for (int i = 0; i < n; i++) {
		char *path;
		if (i < SOCKETS_MAX && asprintf(&path, "%s/%s", folder, names[i]->d_name) >= 0) {
			look(path, (pid_t)atoi(names[i]->d_name), fn, opaque);
			free(path);
		}
		free(names[i]);
	}
	free(names);
	free(folder);
}
