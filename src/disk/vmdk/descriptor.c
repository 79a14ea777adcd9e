/* SPDX-License-Identifier: Apache-2.0 */
#include "disk/vmdk/descriptor.h"

#include <ctype.h>
#include <errno.h>
#include <iconv.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- lines ---- */

/* A part of the text. */
struct span {
	const char *at;
	size_t len;
};

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static struct span trim(struct span s)
{
	while (s.len && blank(s.at[0]))
		s.at++, s.len--;
	while (s.len && blank(s.at[s.len - 1]))
		s.len--;
	return s;
}

/* The next line, without its end; false at the end of the text. */
static bool next_line(const struct descriptor *d, size_t *pos, struct span *line)
{
	const char *at = d->text + *pos, *end;

	if (*pos >= d->bytes)
		return false;
	end = memchr(at, '\n', d->bytes - *pos);
	line->at = at;
	line->len = end ? (size_t)(end - at) : d->bytes - *pos;
	*pos += line->len + 1;
	return true;
}

static bool is_extent(struct span s)
{
	static const char *const words[] = {"RW", "RDONLY", "NOACCESS"};

	for (unsigned i = 0; i < 3; i++) {
		size_t n = strlen(words[i]);
		if (s.len > n && !strncmp(s.at, words[i], n) && blank(s.at[n]))
			return true;
	}
	return false;
}

/* Splits `key = value`; the value without its quotes. */
static bool split(struct span line, struct span *key, struct span *value)
{
	struct span s = trim(line);
	const char *eq;

	if (!s.len || s.at[0] == '#' || is_extent(s))
		return false;
	eq = memchr(s.at, '=', s.len);
	if (!eq)
		return false;
	*key = trim((struct span){s.at, (size_t)(eq - s.at)});
	*value = trim((struct span){eq + 1, s.len - (size_t)(eq - s.at) - 1});
	if (value->len && value->at[0] == '"') {
		const char *end = memchr(value->at + 1, '"', value->len - 1);
		value->at++;
		value->len = end ? (size_t)(end - value->at) : value->len - 1;
	}
	return key->len > 0;
}

/* Finds a key's line; the first one counts. */
static bool find(const struct descriptor *d, const char *key, struct span *line, struct span *value)
{
	struct span k;
	size_t pos = 0;

	while (next_line(d, &pos, line))
		if (split(*line, &k, value) && k.len == strlen(key) &&
		    !strncasecmp(k.at, key, k.len))
			return true;
	return false;
}

bool descriptor_get(const struct descriptor *d, const char *key, char *out, size_t size)
{
	struct span line, value;

	if (!find(d, key, &line, &value) || value.len >= size)
		return false;
	memcpy(out, value.at, value.len);
	out[value.len] = 0;
	return true;
}

/* ---- names ---- */

/* A copy in UTF-8, from the encoding the descriptor names; as it is if that cannot be had. */
static char *to_utf8(const struct descriptor *d, struct span s)
{
	char encoding[32], *copy, *in, *out, *from = NULL;
	size_t in_left = s.len, out_left = 4 * s.len;
	bool ascii = true;
	iconv_t cd = (iconv_t)-1;

	copy = calloc(1, out_left + 1);
	if (!copy)
		return NULL;
	for (size_t i = 0; i < s.len; i++)
		ascii = ascii && (unsigned char)s.at[i] < 0x80;
	if (!ascii && descriptor_get(d, "encoding", encoding, sizeof(encoding)) &&
	    strcasecmp(encoding, "UTF-8"))
		cd = iconv_open("UTF-8", encoding);
	if (cd != (iconv_t)-1)
		from = strndup(s.at, s.len);
	if (from) {
		in = from;
		out = copy;
		if (iconv(cd, &in, &in_left, &out, &out_left) == (size_t)-1)
			out = NULL;
		else
			*out = 0;
	}
	if (!from || !out) {
		memcpy(copy, s.at, s.len);
		copy[s.len] = 0;
	}
	free(from);
	if (cd != (iconv_t)-1)
		iconv_close(cd);
	return copy;
}

/* ---- extents ---- */

static struct span word(struct span *s)
{
	struct span w;

	*s = trim(*s);
	w = *s;
	for (w.len = 0; w.len < s->len && !blank(s->at[w.len]);)
		w.len++;
	s->at += w.len;
	s->len -= w.len;
	return w;
}

static bool number(struct span w, int base, uint64_t *out)
{
	char digits[24], *end;

	if (!w.len || w.len >= sizeof(digits) || !isxdigit((unsigned char)w.at[0]))
		return false;
	memcpy(digits, w.at, w.len);
	digits[w.len] = 0;
	errno = 0;
	*out = strtoull(digits, &end, base);
	return !*end && !errno;
}

/* ACCESS SECTORS TYPE ["NAME" [OFFSET]], as -EINVAL or 0. */
static int parse_extent(const struct descriptor *d, struct span s, struct extent_line *e)
{
	struct span w = word(&s);

	e->access = w.at[1] == 'W' ? ACCESS_RW : w.at[0] == 'R' ? ACCESS_RDONLY : ACCESS_NOACCESS;
	if (!number(word(&s), 10, &e->sectors) || !e->sectors || e->sectors > INT64_MAX / 512)
		return -EINVAL;
	w = word(&s);
	if (!w.len || w.len >= sizeof(e->type))
		return -EINVAL;
	memcpy(e->type, w.at, w.len);
	e->type[w.len] = 0;
	s = trim(s);
	if (!s.len)
		return 0;
	if (s.at[0] != '"')
		return -EINVAL;
	const char *end = memchr(s.at + 1, '"', s.len - 1);
	if (!end || end == s.at + 1)
		return -EINVAL;
	e->name = to_utf8(d, (struct span){s.at + 1, (size_t)(end - s.at) - 1});
	if (!e->name)
		return -ENOMEM;
	s = trim((struct span){end + 1, s.len - (size_t)(end - s.at) - 1});
	w = word(&s);
	/* What may follow the offset names a partition or a device, of types that are not opened. */
	return w.len && !number(w, 10, &e->offset) ? -EINVAL : 0;
}

static int parse_extents(struct descriptor *d, const char *path, struct error *err)
{
	unsigned room = 0, number_of_line = 0;
	struct span line;
	size_t pos = 0;

	while (next_line(d, &pos, &line)) {
		number_of_line++;
		line = trim(line);
		if (!is_extent(line))
			continue;
		if (d->extent_count == room) {
			room = room ? room * 2 : 4;
			void *more = realloc(d->extents, room * sizeof(*d->extents));
			if (!more || room > 2 * DESCRIPTOR_MAX_EXTENTS)
				return error_set(err, -EINVAL, "disk %s: too many extents", path);
			d->extents = more;
		}
		struct extent_line *e = &d->extents[d->extent_count++];
		*e = (struct extent_line){0};
		if (parse_extent(d, line, e))
			return error_set(err, -EINVAL,
					 "disk %s: line %u of the descriptor is no extent: %.*s",
					 path, number_of_line, (int)(line.len < 80 ? line.len : 80),
					 line.at);
	}
	return 0;
}

/* ---- the whole ---- */

static char *copy_of(const struct descriptor *d, const char *key)
{
	struct span line, value;

	return find(d, key, &line, &value) ? to_utf8(d, value) : NULL;
}

static bool get_cid(const struct descriptor *d, const char *key, uint32_t *cid)
{
	struct span line, value;
	uint64_t n;

	if (!find(d, key, &line, &value) || !number(value, 16, &n) || n > UINT32_MAX)
		return false;
	*cid = (uint32_t)n;
	return true;
}

int descriptor_parse(struct descriptor *d, const char *text, size_t bytes, const char *path,
		     struct error *err)
{
	char version[8];

	*d = (struct descriptor){.parent_cid = CID_NONE};
	d->bytes = strnlen(text, bytes);
	d->text = strndup(text, d->bytes);
	if (!d->text)
		return error_set(err, -ENOMEM, "disk %s: out of memory", path);
	if (!descriptor_get(d, "version", version, sizeof(version)))
		return error_set(err, -EINVAL,
				 "disk %s: no VMDK descriptor: it has no version=", path);
	if (strcmp(version, "1") && strcmp(version, "2") && strcmp(version, "3"))
		return error_set(err, -EINVAL,
				 "disk %s: the descriptor is of version %s; 1 to 3 are known", path,
				 version);
	d->create_type = copy_of(d, "createType");
	if (!d->create_type)
		return error_set(err, -EINVAL, "disk %s: the descriptor has no createType=", path);
	if (!get_cid(d, "CID", &d->cid))
		return error_set(err, -EINVAL, "disk %s: the descriptor has no CID=, or a bad one",
				 path);
	if (!get_cid(d, "parentCID", &d->parent_cid))
		d->parent_cid = CID_NONE;
	d->parent_hint = copy_of(d, "parentFileNameHint");
	return parse_extents(d, path, err);
}

void descriptor_free(struct descriptor *d)
{
	for (unsigned i = 0; i < d->extent_count; i++)
		free(d->extents[i].name);
	free(d->extents);
	free(d->parent_hint);
	free(d->create_type);
	free(d->text);
	*d = (struct descriptor){0};
}

/* ---- changes ---- */

/* Puts `with` in the place of `len` bytes at `at`. */
static int replace(struct descriptor *d, size_t at, size_t len, const char *with)
{
	size_t n = strlen(with), bytes = d->bytes - len + n;
	char *text = malloc(bytes + 1);

	if (!text)
		return -ENOMEM;
	memcpy(text, d->text, at);
	memcpy(text + at, with, n);
	memcpy(text + at + n, d->text + at + len, d->bytes - at - len);
	text[bytes] = 0;
	free(d->text);
	d->text = text;
	d->bytes = bytes;
	return 0;
}

static size_t place(const struct descriptor *d, const char *at)
{
	return (size_t)(at - d->text);
}

int descriptor_set(struct descriptor *d, const char *key, const char *value)
{
	struct span line, old;
	char *text;
	int rc;

	if (!find(d, key, &line, &old)) {
		if (!value)
			return 0;
		/* A new line: header keys stand behind createType, ddb.* at the end. */
		bool ddb = !strncmp(key, "ddb.", 4);
		size_t at = d->bytes;
		if (!ddb && find(d, "createType", &line, &old))
			at = place(d, line.at) + line.len;
		bool fresh = at == 0 || (at == d->bytes && d->text[at - 1] == '\n');
		if (asprintf(&text, "%s%s=%s%s", fresh ? "" : "\n", key, value, fresh ? "\n" : "") <
		    0)
			return -ENOMEM;
		rc = replace(d, at, 0, text);
		free(text);
		return rc;
	}
	if (!value) {
		size_t at = place(d, line.at), len = line.len + 1;
		return replace(d, at, at + len > d->bytes ? d->bytes - at : len, "");
	}
	/* From behind the = and its blanks to the line's end, without its \r. */
	const char *from = (const char *)memchr(line.at, '=', line.len) + 1;
	const char *to = line.at + line.len;
	while (from < to && (*from == ' ' || *from == '\t'))
		from++;
	while (to > from && blank(to[-1]))
		to--;
	return replace(d, place(d, from), (size_t)(to - from), value);
}

/* The line of extent i. */
static bool find_extent(const struct descriptor *d, unsigned i, struct span *line)
{
	size_t pos = 0;

	while (next_line(d, &pos, line))
		if (is_extent(trim(*line)) && !i--)
			return true;
	return false;
}

int descriptor_set_sectors(struct descriptor *d, unsigned i, uint64_t sectors)
{
	struct span line;
	char digits[24];

	if (!find_extent(d, i, &line))
		return -EINVAL;
	word(&line);
	struct span w = word(&line);
	snprintf(digits, sizeof(digits), "%" PRIu64, sectors);
	return replace(d, place(d, w.at), w.len, digits);
}

int descriptor_drop_extent(struct descriptor *d, unsigned i)
{
	struct span line;

	if (!find_extent(d, i, &line))
		return -EINVAL;
	size_t at = place(d, line.at), len = line.len + 1;
	return replace(d, at, at + len > d->bytes ? d->bytes - at : len, "");
}

int descriptor_add_extent(struct descriptor *d, const char *line)
{
	struct span last, next;
	unsigned i = 0;
	char *text;
	int rc;

	while (find_extent(d, i, &next)) {
		last = next;
		i++;
	}
	if (!i || asprintf(&text, "\n%s", line) < 0)
		return i ? -ENOMEM : -EINVAL;
	rc = replace(d, place(d, last.at) + last.len, 0, text);
	free(text);
	return rc;
}

size_t descriptor_cid_at(const struct descriptor *d)
{
	struct span line, value;

	if (!find(d, "CID", &line, &value) || value.len != 8)
		return 0;
	return place(d, value.at);
}
