/* SPDX-License-Identifier: Apache-2.0 */
#include "control/protocol.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- lines ---- */

void line_reader_init(struct line_reader *r, size_t max_bytes)
{
	*r = (struct line_reader){.max = max_bytes};
}

void line_reader_free(struct line_reader *r)
{
	free(r->data);
	*r = (struct line_reader){0};
}

int line_reader_feed(struct line_reader *r, const void *data, size_t len)
{
	if (r->at) {
		r->len -= r->at;
		memmove(r->data, r->data + r->at, r->len);
		r->at = 0;
	}
	if (r->len + len > r->room) {
		size_t room = 2 * (r->len + len);
		char *grown = realloc(r->data, room);
		if (!grown)
			return -ENOMEM;
		r->data = grown;
		r->room = room;
	}
	if (len)
		memcpy(r->data + r->len, data, len);
	r->len += len;
	if (r->len > r->max && !memchr(r->data, '\n', r->max + 1))
		return -EMSGSIZE;
	return 0;
}

bool line_reader_next(struct line_reader *r, char **line, size_t *len)
{
	if (r->len == r->at)
		return false;
	char *start = r->data + r->at;
	char *end = memchr(start, '\n', r->len - r->at);

	if (!end)
		return false;
	*end = 0;
	*line = start;
	*len = (size_t)(end - start);
	r->at += *len + 1;
	return true;
}

void line_reader_rest(struct line_reader *r, char **data, size_t *len)
{
	*len = r->len - r->at;
	*data = *len ? malloc(*len) : NULL;
	if (*data)
		memcpy(*data, r->data + r->at, *len);
	else
		*len = 0;
	r->len = r->at = 0;
}

/* ---- requests ---- */

int request_parse(struct request *r, const char *line, size_t len, struct error *err)
{
	json_error_t e;

	*r = (struct request){0};
	r->object = json_loadb(line, len, JSON_REJECT_DUPLICATES, &e);
	if (!r->object)
		return error_set(err, -EINVAL, "not JSON: %s (at byte %d)", e.text, e.position);
	if (!json_is_object(r->object))
		return error_set(err, -EINVAL, "not a JSON object");
	r->id = json_object_get(r->object, "id");
	if (r->id && !json_is_string(r->id) && !json_is_integer(r->id)) {
		r->id = NULL;
		return error_set(err, -EINVAL, "id: it must be a string or an integer");
	}
	return request_string(r, "do", NULL, &r->what, err);
}

void request_free(struct request *r)
{
	json_decref(r->object);
	*r = (struct request){0};
}

static int bad_argument(const char *name, bool there, const char *wanted, struct error *err)
{
	return error_set(err, -EINVAL, "%s: %s; it must be %s", name,
			 there ? "of the wrong type or out of range" : "missing", wanted);
}

int request_string(const struct request *r, const char *name, const char *missing, const char **out,
		   struct error *err)
{
	json_t *value = json_object_get(r->object, name);

	*out = value ? json_string_value(value) : missing;
	return *out ? 0 : bad_argument(name, value != NULL, "a string", err);
}

int request_number(const struct request *r, const char *name, long long missing, long long min,
		   long long max, long long *out, struct error *err)
{
	json_t *value = json_object_get(r->object, name);

	*out = value ? json_integer_value(value) : missing;
	if ((!value || json_is_integer(value)) && *out >= min && *out <= max)
		return 0;
	return bad_argument(name, value != NULL, "an integer in its range", err);
}

int request_bool(const struct request *r, const char *name, bool missing, bool *out,
		 struct error *err)
{
	json_t *value = json_object_get(r->object, name);

	*out = value ? json_is_true(value) : missing;
	return !value || json_is_boolean(value) ? 0
						: bad_argument(name, true, "true or false", err);
}
