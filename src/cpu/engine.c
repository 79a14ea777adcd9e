/* SPDX-License-Identifier: Apache-2.0 */
/* The engines of this build, and the choice among them. */
#include "cpu/engine.h"

#include <errno.h>
#include <string.h>

#include "cpu/bt/engine_bt.h"
#include "cpu/interp/engine_interp.h"

const struct engine_ops *const engines[] = {&engine_bt, &engine_interp, NULL};

/* Appends to a line, as far as there is room. */
static void append(struct error *e, const char *a, const char *b)
{
	strncat(e->text, a, sizeof(e->text) - 1 - strlen(e->text));
	strncat(e->text, b, sizeof(e->text) - 1 - strlen(e->text));
}

static const struct engine_ops *find_auto(struct error *reason, struct error *err)
{
	struct error passed_over = {0};

	for (unsigned i = 0; engines[i]; i++) {
		struct error why = {0};
		if (engines[i]->probe(&why) == 0) {
			error_set(reason, 0, "engine %s: %s%s", engines[i]->name,
				  passed_over.text[0] ? "" : "the best there is here",
				  passed_over.text);
			return engines[i];
		}
		append(&passed_over, passed_over.text[0] ? "; not " : "not ", engines[i]->name);
		append(&passed_over, ": ", why.text);
	}
	error_set(err, -ENODEV, "--engine auto: no engine can run here: %s", passed_over.text);
	return NULL;
}

const struct engine_ops *engine_find(const char *name, struct error *reason, struct error *err)
{
	struct error known = {.text = "auto"}, why = {0};

	if (!strcmp(name, "auto"))
		return find_auto(reason, err);
	for (unsigned i = 0; engines[i]; i++) {
		append(&known, engines[i + 1] ? ", " : " and ", engines[i]->name);
		if (strcmp(name, engines[i]->name))
			continue;
		if (engines[i]->probe(&why) == 0) {
			error_set(reason, 0, "engine %s: as asked for", name);
			return engines[i];
		}
		error_set(err, -ENODEV, "--engine %s: it cannot run here: %s", name, why.text);
		return NULL;
	}
	error_set(err, -EINVAL, "--engine %s: there is no such engine; there are %s", name,
		  known.text);
	return NULL;
}
