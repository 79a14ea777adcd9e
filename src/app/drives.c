/* SPDX-License-Identifier: Apache-2.0 */
#include "app/drives.h"

#include <errno.h>
#include <string.h>

/* Cuts the part before the next single comma off *rest, doubled commas made single; *rest is what
 * follows, or NULL. */
static char *next_part(char **rest)
{
	char *part = *rest, *to = part, *from = part;

	for (; *from; from++) {
		if (*from == ',' && *++from != ',') {
			*to = 0;
			*rest = from;
			return part;
		}
		*to++ = *from;
	}
	*to = 0;
	*rest = NULL;
	return part;
}

static int set(struct storage_drive *d, const struct storage_kind **kind, const char *part,
	       struct error *err)
{
	if (!strncmp(part, "model=", 6)) {
		*kind = storage_find(part + 6, d->cdrom, err);
		return *kind ? 0 : -EINVAL;
	}
	if (!d->cdrom && !strcmp(part, "readonly")) {
		d->read_only = true;
		return 0;
	}
	if (!d->cdrom && !strcmp(part, "direct")) {
		d->direct = true;
		return 0;
	}
	return error_set(err, -EINVAL,
			 "'%s' is no setting; there is %s. A comma in the file's name is written "
			 "twice",
			 part, d->cdrom ? "model=NAME" : "model=NAME, readonly and direct");
}

int drives_add(struct storage_plan *plan, const char *option, char *spec, bool cdrom,
	       struct error *err)
{
	const struct storage_kind *kind = storage_default(cdrom);
	struct storage_drive d = {.cdrom = cdrom, .path = next_part(&spec)};
	struct error why = {""};
	int rc = 0;

	if (!d.path[0])
		return error_set(err, -EINVAL, "%s: the file's name is missing", option);
	while (!rc && spec)
		rc = set(&d, &kind, next_part(&spec), &why);
	if (!rc && !kind)
		rc = error_set(&why, -ENODEV, "there is no controller for it");
	if (!rc)
		rc = storage_plan_add_anywhere(plan, kind, &d, &why);
	return rc ? error_set(err, rc, "%s %s: %s", option, d.path, why.text) : 0;
}
