/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/decode/insn.h"
#include "cpu/state/cpu_state.h"

/*
 * The decoder, in each mode: its answer does not depend on the bytes behind the instruction, is
 * -ENODATA for every shorter piece of it, and its fields are in range.
 */
enum { INSN_MAX = 15 };

static void must(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool reg_valid(unsigned reg)
{
	return reg <= REG_IP || reg == REG_NONE;
}

static void check_fields(const struct insn *i)
{
	must(i->width == 1 || i->width == 2 || i->width == 4 || i->width == 8);
	must(i->addr_bytes == 2 || i->addr_bytes == 4 || i->addr_bytes == 8);
	for (int r = 0; r < 3; r++)
		must(reg_valid(i->reg[r]));
	if (i->flags & INSN_MEM) {
		must(reg_valid(i->base) && reg_valid(i->index));
		must(i->scale == 1 || i->scale == 2 || i->scale == 4 || i->scale == 8);
		must(i->seg < SEG_NR);
	}
	if (i->flags & INSN_DST_MEM)
		must(i->flags & INSN_MEM);
}

/* bytes is a copy of exactly avail bytes. */
static int decode(enum insn_mode mode, bool amd, const uint8_t *bytes, unsigned avail,
		  struct insn *i)
{
	struct decoded d;
	uint8_t *exact = malloc(avail);
	int rc;

	must(exact != NULL);
	memcpy(exact, bytes, avail);
	memset(i, 0, sizeof(*i));
	rc = insn_decode(mode, amd, exact, avail, &d, i);
	free(exact);
	must(rc == 0 || rc == -ENODATA || rc == -E2BIG || rc == -EINVAL);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned avail = size < INSN_MAX ? (unsigned)size : INSN_MAX;

	for (unsigned kind = 0; avail && kind < 6; kind++) {
		enum insn_mode mode = kind / 2;
		bool amd = kind % 2;
		struct insn i, again;

		if (decode(mode, amd, data, avail, &i))
			continue;
		must(i.length >= 1 && i.length <= avail);
		must(!memcmp(i.bytes, data, i.length));
		check_fields(&i);
		must(decode(mode, amd, data, i.length, &again) == 0);
		must(again.length == i.length && again.mnemonic == i.mnemonic);
		for (unsigned n = 1; n < i.length; n++)
			must(decode(mode, amd, data, n, &again) == -ENODATA);
	}
	return 0;
}
