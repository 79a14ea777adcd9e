/* SPDX-License-Identifier: Apache-2.0 */
/* BTF as a guest may have it in its memory: whatever it is, it ends, and no offset comes from outside it. */
#include <stdlib.h>

#include "control/inspect/btf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const members[][2] = {
		{"task_struct", "tasks"},
		{"task_struct", "comm"},
		{"list_head", "next"},
		{"mm_struct", "pgd"},
		{"", ""},
	};
	struct btf *b;
	size_t bytes;

	if (size < BTF_HEADER_BYTES)
		return 0;
	bool begins = btf_begins(data, &bytes);
	if (begins && bytes > BTF_BYTES_MAX)
		abort();
	if (btf_open(&b, data, size) == 0) {
		if (!begins || bytes > size)
			abort();
		for (unsigned n = 0; n < sizeof(members) / sizeof(members[0]); n++) {
			uint32_t at;
			btf_member(b, members[n][0], members[n][1], &at);
		}
		btf_close(b);
	}
	return 0;
}
