/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "control/protocol.h"

/*
 * What a client of a control socket sends. The first byte says in what pieces it arrives; the lines
 * must be the same as if it came at once. Each is then read as a request with every kind of argument.
 */
enum { MAX_BYTES = 300 };

static void must(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void arguments(const struct request *r)
{
	struct error err = {""};
	const char *text;
	long long number;
	bool yes;

	if (request_string(r, "name", NULL, &text, &err) == 0)
		must(text != NULL);
	else
		must(err.text[0]);
	if (request_number(r, "replay", 5, 0, 100, &number, &err) == 0)
		must(number >= 0 && number <= 100);
	if (request_bool(r, "force", false, &yes, &err) == 0)
		must(yes == 0 || yes == 1);
}

static void read_request(const char *line, size_t len)
{
	struct error err = {""};
	struct request r;

	if (request_parse(&r, line, len, &err) == 0) {
		must(r.what && json_is_object(r.object));
		arguments(&r);
	} else {
		must(err.text[0]);
	}
	request_free(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct line_reader reader;
	size_t piece, fed = 0, taken = 0, len;
	char *line;

	if (!size)
		return 0;
	piece = (size_t)data[0] + 1;
	data++;
	size--;
	line_reader_init(&reader, MAX_BYTES);
	while (fed < size) {
		size_t n = size - fed < piece ? size - fed : piece;
		int r = line_reader_feed(&reader, data + fed, n);
		fed += n;
		if (r < 0) {
			/* Too long: what is there has no newline among its first MAX_BYTES. */
			must(fed - taken > MAX_BYTES);
			must(!memchr(data + taken, '\n', MAX_BYTES + 1));
			break;
		}
		while (line_reader_next(&reader, &line, &len)) {
			must(!memcmp(line, data + taken, len) && data[taken + len] == '\n');
			taken += len + 1;
			read_request(line, len);
		}
	}
	line_reader_rest(&reader, &line, &len);
	must(len == fed - taken && (!len || !memcmp(line, data + taken, len)));
	free(line);
	line_reader_free(&reader);
	return 0;
}
