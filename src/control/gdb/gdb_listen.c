/* SPDX-License-Identifier: Apache-2.0 */
/* Where debuggers connect to. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/gdb/gdb_internal.h"

static int listen_tcp(struct gdb *g, const char *port, struct error *err)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const int on = 1;
	char *end;
	unsigned long n = strtoul(port, &end, 10);

	if (*port < '0' || *port > '9' || *end || n < 1 || n > 65535)
		return error_set(err, -EINVAL, "--gdb :%s: a port is a number from 1 to 65535",
				 port);
	addr.sin_port = htons((uint16_t)n);
	g->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (g->listen_fd < 0)
		return error_set(err, -errno, "--gdb :%s: %s", port, strerror(errno));
	setsockopt(g->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(g->listen_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (bind(g->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(g->listen_fd, 1) < 0)
		return error_set(err, -errno, "--gdb :%s: %s; name another port", port,
				 strerror(errno));
	return 0;
}

/* 0 when the socket there was left behind by someone who is gone, and has been removed. */
static int remove_stale(const struct sockaddr_un *addr, struct error *err)
{
	struct stat st;

	if (lstat(addr->sun_path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return error_set(err, -EEXIST,
				 "--gdb %s: the file exists and is not a socket; name another path",
				 addr->sun_path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r = fd < 0 ? -1 : connect(fd, (const struct sockaddr *)addr, sizeof(*addr));
	int code = errno;
	if (fd >= 0)
		close(fd);
	if (r == 0 || (code != ECONNREFUSED && code != ENOENT))
		return error_set(err, -EADDRINUSE,
				 "--gdb %s: another program listens there; name another path",
				 addr->sun_path);
	unlink(addr->sun_path);
	return 0;
}

static int listen_unix(struct gdb *g, const char *path, struct error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (!*path || strlen(path) >= sizeof(addr.sun_path))
		return error_set(err, -EINVAL, "--gdb %s: a socket's path has 1 to %zu bytes", path,
				 sizeof(addr.sun_path) - 1);
	memcpy(addr.sun_path, path, strlen(path));
	g->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (g->listen_fd < 0)
		return error_set(err, -errno, "--gdb %s: %s", path, strerror(errno));
	fchmod(g->listen_fd, 0600); /* the file will have this mode */
	int r = bind(g->listen_fd, (struct sockaddr *)&addr, sizeof(addr));
	if (r < 0 && errno == EADDRINUSE) {
		r = remove_stale(&addr, err);
		if (r < 0)
			return r;
		r = bind(g->listen_fd, (struct sockaddr *)&addr, sizeof(addr));
	}
	if (r < 0)
		return error_set(err, -errno, "--gdb %s: %s", path, strerror(errno));
	memcpy(g->unlink_path, addr.sun_path, sizeof(g->unlink_path));
	if (listen(g->listen_fd, 1) < 0)
		return error_set(err, -errno, "--gdb %s: %s", path, strerror(errno));
	return 0;
}

/* Cuts ",word" off the end of text; false when it does not end so. */
static bool cut(char *text, const char *word)
{
	size_t len = strlen(text), w = strlen(word);

	if (len <= w || text[len - w - 1] != ',' || strcmp(text + len - w, word))
		return false;
	text[len - w - 1] = 0;
	return true;
}

int gdb_listen(struct gdb *g, const char *where, bool *wait, struct error *err)
{
	bool again;

	if (strlen(where) >= sizeof(g->where))
		return error_set(err, -EINVAL, "--gdb %s: too long", where);
	strcpy(g->where, where);
	g->target.arch = GDB_X86_64;
	*wait = false;
	do {
		again = false;
		if (cut(g->where, "wait"))
			again = *wait = true;
		if (cut(g->where, "i386")) {
			again = true;
			g->target.arch = GDB_I386;
		}
	} while (again);
	return g->where[0] == ':' ? listen_tcp(g, g->where + 1, err)
				  : listen_unix(g, g->where, err);
}

void gdb_unlisten(struct gdb *g)
{
	if (g->listen_fd >= 0)
		close(g->listen_fd);
	if (g->unlink_path[0])
		unlink(g->unlink_path);
}
