/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "machine/vmx.h"

/*
 * Any bytes as a .vmx. What is taken is written as it was read, or, when its encoding was changed,
 * as something that reads the same; and setting a key changes that key and nothing else.
 */
static void must(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vmx *reread(const struct vmx *v, char **text, size_t *len)
{
	struct vmx *again;

	must(vmx_format(v, text, len) == 0);
	must(vmx_parse(&again, *text, *len, "again", NULL) == 0);
	return again;
}

static void same_values(const struct vmx *a, const struct vmx *b, const char *but)
{
	const char *ak, *av, *bk, *bv;
	unsigned i = 0;

	for (; vmx_entry(a, i, &ak, &av); i++) {
		must(vmx_entry(b, i, &bk, &bv));
		must(!strcmp(ak, bk));
		must(!strcmp(av, bv) || !strcasecmp(ak, but));
	}
	must(!vmx_entry(b, i, &bk, &bv) || !strcasecmp(bk, but));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error err = {""};
	struct vmx *v, *again;
	char *text;
	size_t len;

	if (size > 4096)
		return 0; /* looking for double keys is quadratic */
	if (vmx_parse(&v, (const char *)data, size, "fuzz", &err) < 0) {
		must(err.text[0] && !v);
		return 0;
	}
	again = reread(v, &text, &len);
	const char *encoding = vmx_get(v, ".encoding");
	must((len == size && !memcmp(text, data, len)) || (encoding && !strcmp(encoding, "UTF-8")));
	same_values(v, again, "");
	free(text);
	vmx_destroy(again);

	if (vmx_set(v, "memsize", "a|b \"c\" #\n", NULL) == 0) {
		again = reread(v, &text, &len);
		must(!strcmp(vmx_get(again, "memsize"), "a|b \"c\" #\n"));
		same_values(v, again, "");
		free(text);
		vmx_destroy(again);
	}
	vmx_destroy(v);
	return 0;
}
