/* SPDX-License-Identifier: Apache-2.0 */
#include "app/options.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_MAX = 40, OPTIONS_MAX = 64 };

/* Levenshtein's distance, for words up to WORD_MAX; longer ones are far away. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[WORD_MAX + 1], la = (unsigned)strlen(a), lb = (unsigned)strlen(b);

	if (la > WORD_MAX || lb > WORD_MAX)
		return WORD_MAX;
	for (unsigned j = 0; j <= lb; j++)
		row[j] = j;
	for (unsigned i = 1; i <= la; i++) {
		unsigned diagonal = row[0];
		row[0] = i;
		for (unsigned j = 1; j <= lb; j++) {
			unsigned change = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			unsigned best = row[j] < row[j - 1] ? row[j] : row[j - 1];
			row[j] = best + 1 < change ? best + 1 : change;
		}
	}
	return row[lb];
}

const char *nearest_name(const char *word, const char *const *names)
{
	const char *best = NULL;
	unsigned best_distance = (unsigned)strlen(word) / 3 + 1;

	for (; *names; names++) {
		unsigned d = distance(word, *names);
		if (d <= best_distance && (!best || d < best_distance)) {
			best = *names;
			best_distance = d;
		}
	}
	return best;
}

static int unknown_option(const char *arg, const struct option *options, struct error *err)
{
	const char *names[OPTIONS_MAX + 1];
	char word[WORD_MAX + 1];
	unsigned n = 0;

	for (const struct option *o = options; o->name && n < OPTIONS_MAX; o++)
		names[n++] = o->name;
	names[n] = NULL;
	if (strncmp(arg, "--", 2)) {
		error_set(err, -EINVAL, "%s: there is no such option; --help lists them", arg);
		return '?';
	}
	size_t len = strcspn(arg + 2, "=");
	if (len > WORD_MAX)
		len = WORD_MAX;
	memcpy(word, arg + 2, len);
	word[len] = 0;
	const char *near = nearest_name(word, names);
	if (near)
		error_set(err, -EINVAL, "--%s: there is no such option; did you mean --%s?", word,
			  near);
	else
		error_set(err, -EINVAL, "--%s: there is no such option; --help lists them", word);
	return '?';
}

/* -h is short for --help; -o FILE for --out, in verbs that have it as 'o' and with a value. */
static const char *short_options(const struct option *options)
{
	for (; options->name; options++)
		if (options->val == 'o' && options->has_arg == required_argument)
			return "+:ho:";
	return "+:h";
}

int option_next(int argc, char **argv, const struct option *options, struct error *err)
{
	int at = optind;

	opterr = 0;
	int c = getopt_long(argc, argv, short_options(options), options, NULL);
	if (c == ':') {
		error_set(err, -EINVAL, "%s: a value is missing", argv[at]);
		return '?';
	}
	if (c != '?')
		return c;
	/* optopt: 0 for an unknown or ambiguous name, the option's val when it takes no value. */
	for (const struct option *o = options; o->name && optopt; o++) {
		if (o->val != optopt || !strchr(argv[at], '='))
			continue;
		error_set(err, -EINVAL, "%s: --%s takes no value", argv[at], o->name);
		return '?';
	}
	return unknown_option(argv[at], options, err);
}

int parse_size(const char *option, const char *text, uint64_t *bytes, struct error *err)
{
	static const char units[] = "KMGT";
	char *end;

	errno = 0;
	unsigned long long n = strtoull(text, &end, 10);
	if (end == text || *text < '0' || *text > '9')
		return error_set(err, -EINVAL, "%s %s: not a size; write for example 512M or 2G",
				 option, text);
	unsigned shift = 0;
	const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
		/* MB and MiB are said, too. */
		if ((*end & ~0x20) == 'I')
			end++;
		if ((*end & ~0x20) == 'B')
			end++;
	}
	if (*end)
		return error_set(err, -EINVAL,
				 "%s %s: '%s' is no unit; there are K, M, G and T, as in 512M",
				 option, text, end);
	if (errno == ERANGE || n > UINT64_MAX >> shift)
		return error_set(err, -EINVAL, "%s %s: too large", option, text);
	*bytes = (uint64_t)n << shift;
	return 0;
}

int parse_unsigned(const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out,
		   struct error *err)
{
	char *end;
	int base = !strncmp(text, "0x", 2) || !strncmp(text, "0X", 2) ? 16 : 10;

	errno = 0;
	unsigned long long n = strtoull(text, &end, base);
	if (end == text || *end || *text < '0' || *text > '9')
		return error_set(err, -EINVAL, "%s %s: not a number", option, text);
	if (errno == ERANGE || n < min || n > max)
		return error_set(err, -EINVAL,
				 base == 16 ? "%s %s: it must be from 0x%" PRIx64 " to 0x%" PRIx64
					    : "%s %s: it must be from %" PRIu64 " to %" PRIu64,
				 option, text, min, max);
	*out = n;
	return 0;
}

int parse_seconds(const char *option, const char *text, uint64_t *ns, struct error *err)
{
	char *end;
	double seconds = strtod(text, &end), unit = 1;

	if (end != text && *end && !end[1]) {
		unit = *end == 's' ? 1 : *end == 'm' ? 60 : *end == 'h' ? 3600 : 0;
		end++;
	}
	/* Neither hexadecimal floats nor "nan", which strtod also reads. */
	if (end == text || *end || unit == 0 || strspn(text, "0123456789.") < strlen(text) - 1)
		return error_set(err, -EINVAL,
				 "%s %s: not a time; write seconds as in 90 or 1.5, or 5m, 2h",
				 option, text);
	seconds *= unit;
	if (!isfinite(seconds) || seconds <= 0 || seconds > 1e9)
		return error_set(err, -EINVAL,
				 "%s %s: it must be more than 0 and at most 1e9 seconds", option,
				 text);
	*ns = (uint64_t)(seconds * 1e9);
	return 0;
}
