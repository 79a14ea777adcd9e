/* SPDX-License-Identifier: Apache-2.0 */
/*
 * .vmsd files. The keys are those that VMware Workstation and ESXi write (Broadcom's knowledge base,
 * article 337269, names them); times are microseconds since 1970 in two signed 32-bit halves; what
 * cannot stand within quotes is written as |XX, two hexadecimal digits.
 */
#include "disk/vmsd.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "disk/file.h"

enum {
	TEXT_MAX = 4 << 20,
	/* As many as VMware knows of, and more; a bound for what a file may ask us to allocate. */
	SNAPSHOTS_MAX = 4096,
	DISKS_MAX = 1024,
	CLONES_MAX = 65536,
};

/* ---- the tree ---- */

static void lines_free(struct vmsd_line *line, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		free(line[i].key);
		free(line[i].value);
	}
	free(line);
}

static void snapshot_free(struct vmsd_snapshot *s)
{
	for (unsigned i = 0; i < s->disks; i++) {
		free(s->disk[i].file);
		free(s->disk[i].node);
	}
	for (unsigned i = 0; i < s->clones; i++)
		free(s->clone[i]);
	lines_free(s->line, s->lines);
	free(s->disk);
	free(s->clone);
	free(s->name);
	free(s->description);
	free(s->state_file);
}

void vmsd_free(struct vmsd *v)
{
	for (unsigned i = 0; i < v->count; i++)
		snapshot_free(&v->snapshot[i]);
	lines_free(v->line, v->lines);
	free(v->snapshot);
	*v = (struct vmsd){0};
}

struct vmsd_snapshot *vmsd_find(const struct vmsd *v, uint32_t uid)
{
	for (unsigned i = 0; uid && i < v->count; i++)
		if (v->snapshot[i].uid == uid)
			return &v->snapshot[i];
	return NULL;
}

int vmsd_find_name(const struct vmsd *v, const char *name, struct vmsd_snapshot **out,
		   struct error *err)
{
	unsigned found = 0;
	char *end;

	*out = NULL;
	for (unsigned i = 0; i < v->count; i++)
		if (!strcmp(v->snapshot[i].name, name)) {
			*out = &v->snapshot[i];
			found++;
		}
	if (found > 1)
		return error_set(err, -EINVAL,
				 "snapshot %s: there are %u of that name; give its number instead",
				 name, found);
	if (!found && isdigit((unsigned char)*name)) {
		unsigned long uid = strtoul(name, &end, 10);
		if (!*end && uid <= UINT32_MAX)
			*out = vmsd_find(v, (uint32_t)uid);
	}
	if (!*out)
		return error_set(err, -ENOENT,
				 "snapshot %s: there is none of that name; list them to see what "
				 "there is",
				 name);
	return 0;
}

/* A new zeroed element at the array's end. */
static void *grow(void *array, unsigned *count, size_t size)
{
	char **a = array;
	char *p = realloc(*a, (*count + 1) * size);

	if (!p)
		return NULL;
	*a = p;
	memset(p + *count * size, 0, size);
	return p + (*count)++ * size;
}

static void drop_snapshot(struct vmsd *v, struct vmsd_snapshot *s)
{
	unsigned i = (unsigned)(s - v->snapshot);

	snapshot_free(s);
	v->count--;
	memmove(s, s + 1, (v->count - i) * sizeof(*s));
}

struct vmsd_snapshot *vmsd_add(struct vmsd *v, const char *name, const char *description)
{
	struct vmsd_snapshot *s;

	if (v->count == SNAPSHOTS_MAX || v->last_uid == UINT32_MAX)
		return NULL;
	s = grow(&v->snapshot, &v->count, sizeof(*s));
	if (!s)
		return NULL;
	s->name = strdup(name);
	s->description = strdup(description ? description : "");
	s->state_file = strdup("");
	if (!s->name || !s->description || !s->state_file) {
		drop_snapshot(v, s);
		return NULL;
	}
	s->uid = ++v->last_uid;
	s->parent = v->current;
	s->created_us = clock_utc_ns() / 1000;
	v->current = s->uid;
	return s;
}

int vmsd_add_disk(struct vmsd_snapshot *s, const char *node, const char *file)
{
	struct vmsd_disk *d = grow(&s->disk, &s->disks, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->node = strdup(node);
	d->file = strdup(file);
	return d->node && d->file ? 0 : -ENOMEM;
}

int vmsd_add_clone(struct vmsd_snapshot *s, const char *vmx_path)
{
	char **c = grow(&s->clone, &s->clones, sizeof(*c));

	if (!c)
		return -ENOMEM;
	*c = strdup(vmx_path);
	return *c ? 0 : -ENOMEM;
}

void vmsd_remove(struct vmsd *v, struct vmsd_snapshot *s)
{
	for (unsigned i = 0; i < v->count; i++)
		if (v->snapshot[i].parent == s->uid)
			v->snapshot[i].parent = s->parent;
	if (v->current == s->uid)
		v->current = s->parent;
	drop_snapshot(v, s);
}

/* ---- reading ---- */

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place: |XX becomes the byte. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (*s == '|' && hex(s[1]) >= 0 && hex(s[2]) >= 0 && (s[1] != '0' || s[2] != '0')) {
			*to++ = (char)(hex(s[1]) << 4 | hex(s[2]));
			s += 3;
		} else {
			*to++ = *s++;
		}
	}
	*to = 0;
}

static char *trim(char *s)
{
	s += strspn(s, " \t");
	for (size_t n = strlen(s); n && strchr(" \t\r", s[n - 1]); n--)
		s[n - 1] = 0;
	return s;
}

/* 0: *key and *value; 1: an empty line or a comment; -EINVAL. */
static int split_line(char *line, char **key, char **value)
{
	line = trim(line);
	if (!*line || *line == '#')
		return 1;
	char *equals = strchr(line, '=');
	if (!equals)
		return -EINVAL;
	*equals = 0;
	*key = trim(line);
	*value = trim(equals + 1);
	if (!**key)
		return -EINVAL;
	size_t n = strlen(*value);
	if (**value == '"') {
		if (n < 2 || (*value)[n - 1] != '"')
			return -EINVAL;
		(*value)[n - 1] = 0;
		(*value)++;
	}
	unescape(*value);
	return 0;
}

/* The number after `prefix`, in [0, max), and what follows it; false: the key is another. */
static bool indexed(const char *key, const char *prefix, unsigned max, unsigned *index,
		    const char **rest)
{
	size_t n = strlen(prefix);
	char *end;

	if (strncasecmp(key, prefix, n) || !isdigit((unsigned char)key[n]))
		return false;
	unsigned long v = strtoul(key + n, &end, 10);
	if (v >= max)
		return false;
	*index = (unsigned)v;
	*rest = end;
	return true;
}

static int set_text(char **to, const char *value)
{
	free(*to);
	*to = strdup(value);
	return *to ? 0 : -ENOMEM;
}

static int set_number(uint32_t *to, const char *value)
{
	char *end;

	if (!*value) { /* VMware writes an empty parent, too */
		*to = 0;
		return 0;
	}
	errno = 0;
	long long v = strtoll(value, &end, 10);
	if (*end || errno || v < INT32_MIN || v > UINT32_MAX)
		return -EINVAL;
	*to = (uint32_t)v;
	return 0;
}

static int keep_line(struct vmsd_line **line, unsigned *lines, const char *key, const char *value)
{
	struct vmsd_line *l = grow(line, lines, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->key = strdup(key);
	l->value = strdup(value);
	return l->key && l->value ? 0 : -ENOMEM;
}

/* The file may name things in any order. */
static int make_room(void *array, unsigned *count, unsigned index, size_t size)
{
	while (*count <= index)
		if (!grow(array, count, size))
			return -ENOMEM;
	return 0;
}

static int read_disk(struct vmsd_snapshot *s, unsigned index, const char *rest, const char *key,
		     const char *value)
{
	bool file = !strcasecmp(rest, ".fileName");

	if (!file && strcasecmp(rest, ".node"))
		return keep_line(&s->line, &s->lines, key, value);
	if (make_room(&s->disk, &s->disks, index, sizeof(*s->disk)))
		return -ENOMEM;
	return set_text(file ? &s->disk[index].file : &s->disk[index].node, value);
}

static int read_snapshot_key(struct vmsd_snapshot *s, const char *key, const char *value)
{
	const char *rest;
	uint32_t number = 0;
	unsigned i;
	int rc;

	if (!strcasecmp(key, "displayName"))
		return set_text(&s->name, value);
	if (!strcasecmp(key, "description"))
		return set_text(&s->description, value);
	if (!strcasecmp(key, "filename"))
		return set_text(&s->state_file, value);
	if (!strcasecmp(key, "uid"))
		return set_number(&s->uid, value);
	if (!strcasecmp(key, "parent"))
		return set_number(&s->parent, value);
	if (!strcasecmp(key, "createTimeHigh") || !strcasecmp(key, "createTimeLow")) {
		rc = set_number(&number, value);
		if (tolower((unsigned char)key[10]) == 'h')
			s->created_us = (s->created_us & UINT32_MAX) | (uint64_t)number << 32;
		else
			s->created_us = (s->created_us & ~(uint64_t)UINT32_MAX) | number;
		return rc;
	}
	/* How many there are shows by themselves. */
	if (!strcasecmp(key, "numDisks") || !strcasecmp(key, "numClones"))
		return 0;
	if (indexed(key, "disk", DISKS_MAX, &i, &rest))
		return read_disk(s, i, rest, key, value);
	if (indexed(key, "clone", CLONES_MAX, &i, &rest) && !*rest) {
		if (make_room(&s->clone, &s->clones, i, sizeof(*s->clone)))
			return -ENOMEM;
		return set_text(&s->clone[i], value);
	}
	return keep_line(&s->line, &s->lines, key, value);
}

static int read_key(struct vmsd *v, const char *key, const char *value)
{
	const char *rest;
	unsigned i;

	if (!strcasecmp(key, "snapshot.lastUID"))
		return set_number(&v->last_uid, value);
	if (!strcasecmp(key, "snapshot.current"))
		return set_number(&v->current, value);
	if (!strcasecmp(key, "snapshot.numSnapshots") || !strcasecmp(key, ".encoding"))
		return 0;
	if (!strcasecmp(key, "snapshot.needConsolidate")) {
		v->need_consolidate = !strcasecmp(value, "TRUE");
		return 0;
	}
	if (indexed(key, "snapshot", SNAPSHOTS_MAX, &i, &rest) && *rest == '.') {
		if (make_room(&v->snapshot, &v->count, i, sizeof(*v->snapshot)))
			return -ENOMEM;
		return read_snapshot_key(&v->snapshot[i], rest + 1, value);
	}
	return keep_line(&v->line, &v->lines, key, value);
}

/* ---- what was read as a whole ---- */

/* Gaps in the numbers are closed: they mean nothing. */
static int complete_snapshot(struct vmsd_snapshot *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->disks; i++) {
		struct vmsd_disk d = s->disk[i];
		if (d.file && d.node) {
			s->disk[n++] = d;
		} else {
			free(d.file);
			free(d.node);
		}
	}
	s->disks = n;
	n = 0;
	for (unsigned i = 0; i < s->clones; i++)
		if (s->clone[i])
			s->clone[n++] = s->clone[i];
	s->clones = n;
	if ((!s->name && set_text(&s->name, "")) ||
	    (!s->description && set_text(&s->description, "")) ||
	    (!s->state_file && set_text(&s->state_file, "")))
		return -ENOMEM;
	return 0;
}

/* Parents that are there, and no circles. */
static int check_tree(const struct vmsd *v, const char *path, struct error *err)
{
	for (unsigned i = 0; i < v->count; i++) {
		const struct vmsd_snapshot *s = &v->snapshot[i];
		if (vmsd_find(v, s->uid) != s)
			return error_set(err, -EINVAL, "%s: two snapshots have the uid %u", path,
					 s->uid);
		unsigned up = 0;
		for (const struct vmsd_snapshot *p = s; p->parent; up++) {
			p = vmsd_find(v, p->parent);
			if (!p || up > v->count)
				return error_set(err, -EINVAL,
						 "%s: the parents of snapshot %u lead nowhere",
						 path, s->uid);
		}
	}
	if (v->current && !vmsd_find(v, v->current))
		return error_set(err, -EINVAL, "%s: there is no snapshot %u, but it is current",
				 path, v->current);
	return 0;
}

static int complete(struct vmsd *v, const char *path, struct error *err)
{
	unsigned n = 0;
	int rc = 0;

	for (unsigned i = 0; i < v->count; i++) {
		struct vmsd_snapshot s = v->snapshot[i];
		if (s.uid) {
			v->snapshot[n++] = s;
		} else {
			snapshot_free(&s);
		}
	}
	v->count = n;
	for (unsigned i = 0; !rc && i < n; i++) {
		rc = complete_snapshot(&v->snapshot[i]);
		if (v->snapshot[i].uid > v->last_uid)
			v->last_uid = v->snapshot[i].uid;
	}
	if (rc)
		return error_set(err, rc, "%s: out of memory", path);
	return check_tree(v, path, err);
}

static int parse(struct vmsd *v, char *text, const char *path, struct error *err)
{
	unsigned number = 1;

	for (char *line = text, *next; line; line = next, number++) {
		char *key, *value;
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		int rc = split_line(line, &key, &value);
		if (!rc)
			rc = read_key(v, key, value);
		if (rc == -ENOMEM)
			return error_set(err, rc, "%s: out of memory", path);
		if (rc < 0)
			return error_set(err, rc,
					 "%s:%u: this is not key = \"value\", or the "
					 "value is no number; mend the line, or restore the file",
					 path, number);
	}
	return complete(v, path, err);
}

int vmsd_load(struct vmsd *out, const char *path, struct error *err)
{
	uint64_t bytes;
	char *text;
	int rc;

	*out = (struct vmsd){0};
	rc = file_load(path, TEXT_MAX, &text, &bytes, err);
	if (rc == -ENOENT)
		return 0;
	if (rc)
		return rc;
	if (strlen(text) != bytes)
		rc = error_set(err, -EINVAL, "%s: it is no text", path);
	else
		rc = parse(out, text, path, err);
	free(text);
	return rc;
}

/* ---- writing ---- */

static void put(FILE *f, const char *prefix, const char *key, const char *value)
{
	fprintf(f, "%s%s = \"", prefix, key);
	for (const char *c = value; *c; c++)
		if (*c == '"' || *c == '|' || (unsigned char)*c < ' ' || *c == 127)
			fprintf(f, "|%02X", (unsigned char)*c);
		else
			fputc(*c, f);
	fputs("\"\n", f);
}

static void put_number(FILE *f, const char *prefix, const char *key, int64_t value)
{
	fprintf(f, "%s%s = \"%lld\"\n", prefix, key, (long long)value);
}

static void put_snapshot(FILE *f, unsigned n, const struct vmsd_snapshot *s)
{
	char prefix[32], key[32];

	snprintf(prefix, sizeof(prefix), "snapshot%u.", n);
	put_number(f, prefix, "uid", s->uid);
	if (*s->state_file)
		put(f, prefix, "filename", s->state_file);
	if (s->parent)
		put_number(f, prefix, "parent", s->parent);
	put(f, prefix, "displayName", s->name);
	if (*s->description)
		put(f, prefix, "description", s->description);
	put_number(f, prefix, "createTimeHigh", (int32_t)(s->created_us >> 32));
	put_number(f, prefix, "createTimeLow", (int32_t)s->created_us);
	for (unsigned i = 0; i < s->clones; i++) {
		snprintf(key, sizeof(key), "clone%u", i);
		put(f, prefix, key, s->clone[i]);
	}
	if (s->clones)
		put_number(f, prefix, "numClones", s->clones);
	put_number(f, prefix, "numDisks", s->disks);
	for (unsigned i = 0; i < s->disks; i++) {
		snprintf(key, sizeof(key), "disk%u.fileName", i);
		put(f, prefix, key, s->disk[i].file);
		snprintf(key, sizeof(key), "disk%u.node", i);
		put(f, prefix, key, s->disk[i].node);
	}
	for (unsigned i = 0; i < s->lines; i++)
		put(f, prefix, s->line[i].key, s->line[i].value);
}

int vmsd_save(const struct vmsd *v, const char *path, struct error *err)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *f = open_memstream(&text, &bytes);

	if (!f)
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	put(f, "", ".encoding", "UTF-8");
	put_number(f, "", "snapshot.lastUID", v->last_uid);
	if (v->current)
		put_number(f, "", "snapshot.current", v->current);
	if (v->need_consolidate)
		put(f, "", "snapshot.needConsolidate", "TRUE");
	put_number(f, "", "snapshot.numSnapshots", v->count);
	for (unsigned i = 0; i < v->count; i++)
		put_snapshot(f, i, &v->snapshot[i]);
	for (unsigned i = 0; i < v->lines; i++)
		put(f, "", v->line[i].key, v->line[i].value);
	bool failed = ferror(f);
	int rc = 0;
	if (fclose(f) || failed)
		rc = error_set(err, -ENOMEM, "%s: out of memory", path);
	else
		rc = file_replace(path, text, bytes, err);
	free(text);
	return rc;
}
