/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The .vmx file as lines: each keeps its own text, and those that define a key also key and value.
 * Setting a key makes its line's text anew; all other lines are written as they were read.
 *
 * Taken: blanks around everything; values with and without quotes; a comment after the value; LF
 * and CRLF; a byte order mark; any .encoding that iconv knows (the document then becomes UTF-8).
 * Refused, with the line's number: a line that is neither empty, comment nor KEY = VALUE; a key
 * twice (VMware refuses it, too: which one should count?); a quote that is not closed; bytes 0.
 */
#include "machine/vmx.h"

#include <ctype.h>
#include <errno.h>
#include <iconv.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "disk/file.h"

enum { LINES_MAX = 16 * VMX_KEYS_MAX, NAME_MAX_BYTES = 40 };

struct line {
	char *text;	   /* without its end */
	char *key, *value; /* NULL: not a definition */
	bool crlf;
};

struct vmx {
	char *name;
	struct line *lines;
	unsigned count, room, keys;
	bool bom, crlf; /* crlf: how new lines end, as the first one does */
	bool open_end;	/* the last line has no newline */
};

/* ---- characters ---- */

/* A carriage return counts: the last line may have one without a newline after it. */
static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Letters, digits and what VMware's own keys have: scsi0:0.fileName, guestinfo.a-b, .encoding */
static bool is_key_char(char c)
{
	return isalnum((unsigned char)c) || (c && strchr(".:_-/", c));
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Takes |XX out of a value, in place. A bar without two digits stays; |00 cannot be a string's. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		int high = *s == '|' ? hex_digit(s[1]) : -1, low = high >= 0 ? hex_digit(s[2]) : -1;
		if (low >= 0 && (high | low)) {
			*to++ = (char)(high << 4 | low);
			s += 2;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

/* KEY = "VALUE", escaped; NULL when out of memory. */
static char *make_text(const char *key, const char *value)
{
	char *text = malloc(strlen(key) + 3 * strlen(value) + 6), *to = text;

	if (!text)
		return NULL;
	to += sprintf(to, "%s = \"", key);
	for (; *value; value++) {
		unsigned char c = (unsigned char)*value;
		if (c < 0x20 || c == 0x7f || c == '"' || c == '|')
			to += sprintf(to, "|%02X", c);
		else
			*to++ = (char)c;
	}
	strcpy(to, "\"");
	return text;
}

/* ---- lines ---- */

static struct line *find(const struct vmx *v, const char *key)
{
	for (unsigned i = 0; i < v->count; i++)
		if (v->lines[i].key && !strcasecmp(v->lines[i].key, key))
			return &v->lines[i];
	return NULL;
}

static void line_free(struct line *l)
{
	free(l->text);
	free(l->key);
	free(l->value);
}

/* Takes the line's strings over, also on failure. */
static int append(struct vmx *v, struct line l)
{
	if (v->count == v->room) {
		unsigned room = v->room ? 2 * v->room : 64;
		struct line *lines = realloc(v->lines, room * sizeof(*lines));
		if (!lines) {
			line_free(&l);
			return -ENOMEM;
		}
		v->lines = lines;
		v->room = room;
	}
	v->lines[v->count++] = l;
	v->keys += l.key != NULL;
	return 0;
}

static int bad_line(const struct vmx *v, unsigned number, struct error *err, const char *what)
{
	return error_set(err, -EINVAL, "%s: line %u: %s", v->name, number, what);
}

/*
 * Finds the value in what follows the equals sign: *start and its length. NULL, or what is wrong.
 */
static const char *find_value(const char *s, const char **start, size_t *len)
{
	while (is_blank(*s))
		s++;
	if (*s != '"') {
		*start = s;
		*len = strcspn(s, "#\"");
		if (s[*len] == '"')
			return "a quote in the middle of a value; write it as |22";
		while (*len && is_blank(s[*len - 1]))
			(*len)--;
		return NULL;
	}
	*start = ++s;
	*len = strcspn(s, "\"");
	if (!s[*len])
		return "the value's quote is not closed";
	for (s += *len + 1; is_blank(*s); s++)
		;
	return *s && *s != '#' ? "something follows the value's closing quote; a quote within it "
				 "is written |22"
			       : NULL;
}

/* Splits text into key and value; both stay NULL for an empty line or a comment. */
static int split(const struct vmx *v, struct line *l, unsigned number, struct error *err)
{
	const char *s = l->text, *key, *value;
	size_t key_len, value_len;

	while (is_blank(*s))
		s++;
	if (!*s || *s == '#')
		return 0;
	for (key = s; is_key_char(*s); s++)
		;
	key_len = (size_t)(s - key);
	while (is_blank(*s))
		s++;
	if (!key_len || *s != '=')
		return bad_line(v, number, err, "not of the form KEY = \"VALUE\"");
	const char *wrong = find_value(s + 1, &value, &value_len);
	if (wrong)
		return bad_line(v, number, err, wrong);
	l->key = strndup(key, key_len);
	l->value = strndup(value, value_len);
	if (!l->key || !l->value)
		return error_set(err, -ENOMEM, "%s: out of memory", v->name);
	unescape(l->value);
	if (find(v, l->key))
		return error_set(err, -EINVAL,
				 "%s: line %u: %.*s is there twice; take one of them out", v->name,
				 number, NAME_MAX_BYTES, l->key);
	if (v->keys == VMX_KEYS_MAX)
		return bad_line(v, number, err, "more than 4096 keys");
	return 0;
}

static int parse_lines(struct vmx *v, const char *text, size_t len, struct error *err)
{
	const char *end = text + len;

	if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) {
		v->bom = true;
		text += 3;
	}
	for (unsigned number = 1; text < end; number++) {
		const char *eol = memchr(text, '\n', (size_t)(end - text));
		size_t n = (size_t)((eol ? eol : end) - text);
		bool crlf = eol && n && text[n - 1] == '\r';
		struct line l = {.text = strndup(text, n - crlf), .crlf = eol ? crlf : v->crlf};
		if (!l.text)
			return error_set(err, -ENOMEM, "%s: out of memory", v->name);
		int r = number > LINES_MAX ? bad_line(v, number, err, "more lines than a .vmx has")
					   : split(v, &l, number, err);
		if (r < 0) {
			line_free(&l);
			return r;
		}
		if (number == 1)
			v->crlf = crlf;
		if (append(v, l) < 0)
			return error_set(err, -ENOMEM, "%s: out of memory", v->name);
		v->open_end = !eol;
		text += n + (eol != NULL);
	}
	return 0;
}

/* ---- encodings ---- */

static bool is_ascii(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] & 0x80)
			return false;
	return true;
}

/* text in encoding `from` as UTF-8, the caller's to free; NULL when that cannot be. */
static char *to_utf8(const char *from, const char *text, size_t len, size_t *out_len)
{
	iconv_t cd = iconv_open("UTF-8", from);
	size_t room = 4 * len, in_left = len, out_left = room;
	char *out = malloc(room + 1), *in_at = (char *)text, *out_at = out;

	if (cd == (iconv_t)-1 || !out ||
	    iconv(cd, &in_at, &in_left, &out_at, &out_left) == (size_t)-1) {
		free(out);
		out = NULL;
	}
	if (cd != (iconv_t)-1)
		iconv_close(cd);
	*out_len = room - out_left;
	return out;
}

/* The document was parsed byte by byte; where it is not UTF-8, it is parsed again as what it says
 * it is. Encodings whose bytes below 80h are not ASCII (UTF-16) do not come this far. */
static int apply_encoding(struct vmx **v, const char *text, size_t len, struct error *err)
{
	const char *encoding = vmx_get(*v, ".encoding");
	struct vmx *again;
	size_t utf8_len;

	if (!encoding || !strcasecmp(encoding, "UTF-8") || !strcasecmp(encoding, "UTF8") ||
	    is_ascii(text, len))
		return 0;
	char *utf8 = to_utf8(encoding, text, len, &utf8_len);
	if (!utf8)
		return error_set(err, -EINVAL,
				 "%s: .encoding = \"%.*s\": the file is not readable as that; "
				 "save it as UTF-8 and say so there",
				 (*v)->name, NAME_MAX_BYTES, encoding);
	int r = vmx_create(&again, err);
	if (r == 0) {
		free(again->name);
		again->name = (*v)->name;
		(*v)->name = NULL;
		vmx_destroy(*v);
		*v = again;
		vmx_unset(again, ".encoding");
		r = parse_lines(again, utf8, utf8_len, err);
	}
	if (r == 0)
		r = vmx_set(again, ".encoding", "UTF-8", err);
	free(utf8);
	return r;
}

/* ---- life ---- */

static struct vmx *make(const char *name)
{
	struct vmx *v = calloc(1, sizeof(*v));

	if (v)
		v->name = strdup(name);
	if (v && !v->name) {
		free(v);
		v = NULL;
	}
	return v;
}

int vmx_create(struct vmx **out, struct error *err)
{
	struct vmx *v = *out = make("a new .vmx");

	if (!v)
		return error_set(err, -ENOMEM, "a new .vmx: out of memory");
	int r = vmx_set(v, ".encoding", "UTF-8", err);
	if (r < 0) {
		vmx_destroy(v);
		*out = NULL;
	}
	return r;
}

int vmx_parse(struct vmx **out, const char *text, size_t len, const char *name, struct error *err)
{
	struct vmx *v;
	int r;

	*out = NULL;
	if (len > VMX_BYTES_MAX)
		return error_set(err, -EINVAL, "%s: larger than 1 MiB; this is not a .vmx file",
				 name);
	if (memchr(text, 0, len))
		return error_set(err, -EINVAL, "%s: it has bytes 0; this is not a .vmx file", name);
	v = make(name);
	if (!v)
		return error_set(err, -ENOMEM, "%s: out of memory", name);
	r = parse_lines(v, text, len, err);
	if (r == 0)
		r = apply_encoding(&v, text, len, err);
	if (r < 0) {
		vmx_destroy(v);
		return r;
	}
	*out = v;
	return 0;
}

int vmx_read(struct vmx **out, const char *path, struct error *err)
{
	char *text;
	uint64_t len;
	int r = file_load(path, VMX_BYTES_MAX, &text, &len, err);

	*out = NULL;
	if (r < 0)
		return r;
	r = vmx_parse(out, text, (size_t)len, path, err);
	free(text);
	return r;
}

void vmx_destroy(struct vmx *v)
{
	if (!v)
		return;
	for (unsigned i = 0; i < v->count; i++)
		line_free(&v->lines[i]);
	free(v->lines);
	free(v->name);
	free(v);
}

/* ---- keys ---- */

const char *vmx_name(const struct vmx *v)
{
	return v->name;
}

const char *vmx_get(const struct vmx *v, const char *key)
{
	struct line *l = find(v, key);

	return l ? l->value : NULL;
}

bool vmx_entry(const struct vmx *v, unsigned i, const char **key, const char **value)
{
	for (unsigned n = 0; n < v->count; n++) {
		if (!v->lines[n].key || i--)
			continue;
		*key = v->lines[n].key;
		*value = v->lines[n].value;
		return true;
	}
	return false;
}

int vmx_get_bool(const struct vmx *v, const char *key, bool missing, bool *out, struct error *err)
{
	const char *value = vmx_get(v, key);

	*out = missing;
	if (!value || !*value)
		return 0;
	*out = !strcasecmp(value, "TRUE") || !strcasecmp(value, "yes") || !strcmp(value, "1");
	if (*out || !strcasecmp(value, "FALSE") || !strcasecmp(value, "no") || !strcmp(value, "0"))
		return 0;
	return error_set(err, -EINVAL, "%s: %s = \"%.*s\": it is either TRUE or FALSE", v->name,
			 key, NAME_MAX_BYTES, value);
}

int vmx_get_number(const struct vmx *v, const char *key, uint64_t missing, uint64_t min,
		   uint64_t max, uint64_t *out, struct error *err)
{
	const char *value = vmx_get(v, key);
	char *end;

	*out = missing;
	if (!value || !*value)
		return 0;
	errno = 0;
	unsigned long long n = strtoull(value, &end, 10);
	if (*end || !isdigit((unsigned char)*value))
		return error_set(err, -EINVAL, "%s: %s = \"%.*s\": not a number", v->name, key,
				 NAME_MAX_BYTES, value);
	if (errno == ERANGE || n < min || n > max)
		return error_set(err, -EINVAL,
				 "%s: %s = \"%.*s\": it must be from %" PRIu64 " to %" PRIu64,
				 v->name, key, NAME_MAX_BYTES, value, min, max);
	*out = n;
	return 0;
}

static bool is_key(const char *key)
{
	size_t n = 0;

	while (is_key_char(key[n]))
		n++;
	return n && !key[n];
}

int vmx_set(struct vmx *v, const char *key, const char *value, struct error *err)
{
	struct line *l = find(v, key);

	if (!is_key(key))
		return error_set(err, -EINVAL, "%s: '%.*s' cannot be a key", v->name,
				 NAME_MAX_BYTES, key);
	if (!l && v->keys == VMX_KEYS_MAX)
		return error_set(err, -ENOSPC, "%s: more than %d keys", v->name, VMX_KEYS_MAX);
	struct line new = {
		.text = make_text(l ? l->key : key, value),
		.key = strdup(l ? l->key : key),
		.value = strdup(value),
		.crlf = l ? l->crlf : v->crlf,
	};
	int r = new.text &&new.key &&new.value ? 0 : -ENOMEM;
	if (r < 0) {
		line_free(&new);
	} else if (l) {
		line_free(l);
		*l = new;
	} else {
		r = append(v, new);
	}
	if (r < 0)
		return error_set(err, r, "%s: out of memory", v->name);
	if (!l)
		v->open_end = false;
	return 0;
}

void vmx_unset(struct vmx *v, const char *key)
{
	struct line *l = find(v, key);

	if (!l)
		return;
	line_free(l);
	memmove(l, l + 1, (size_t)(v->lines + v->count - (l + 1)) * sizeof(*l));
	v->count--;
	v->keys--;
}

/* ---- writing ---- */

int vmx_format(const struct vmx *v, char **text, size_t *len)
{
	size_t room = 4;

	for (unsigned i = 0; i < v->count; i++)
		room += strlen(v->lines[i].text) + 2;
	char *to = *text = malloc(room);
	if (!to)
		return -ENOMEM;
	if (v->bom)
		to = stpcpy(to, "\xef\xbb\xbf");
	for (unsigned i = 0; i < v->count; i++) {
		to = stpcpy(to, v->lines[i].text);
		if (!v->open_end || i + 1 < v->count)
			to = stpcpy(to, v->lines[i].crlf ? "\r\n" : "\n");
	}
	*len = (size_t)(to - *text);
	return 0;
}

int vmx_write(const struct vmx *v, const char *path, struct error *err)
{
	char *text;
	size_t len;

	if (vmx_format(v, &text, &len) < 0)
		return error_set(err, -ENOMEM, "%s: out of memory", path);
	int r = file_replace(path, text, len, err);
	free(text);
	return r;
}
