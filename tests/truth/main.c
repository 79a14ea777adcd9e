/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "truth.h"

struct options {
	const char *engine;
	const char *only;
	uint64_t cases;
	double seconds;
	uint64_t seed;
	uint64_t replay;
	unsigned length; /* instructions in a case */
	unsigned shown;	 /* differences shown in full for each mnemonic */
	bool list, replaying, only64;
	bool any_rsp; /* native_takes_any_rsp */
};

struct tally {
	uint64_t run, left_out, lost, differ;
	uint32_t by_mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	uint64_t carried_out, faults;
	uint8_t *form_run;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void usage(FILE *to)
{
	fputs("truth: runs random instructions on the host CPU and in an engine and compares.\n"
	      "usage: truth [options]\n"
	      "  --engine NAME     interp (the default), bt, ...\n"
	      "  --cases N         stop after N cases (default 1000000; 0: no limit)\n"
	      "  --seconds N       stop after N seconds\n"
	      "  --seed S          the random seed (default: printed, from the clock)\n"
	      "  --only MNEMONIC   only forms of this mnemonic\n"
	      "  --only64          no 32-bit code\n"
	      "  --show N          differences shown in full for each mnemonic (default 1)\n"
	      "  --length N        sequences of N instructions (1 to 16; default 1)\n"
	      "  --list            print the forms and stop\n"
	      "  --replay SEED:N   run case N of that seed and print it (same --only64 and\n"
	      "                    --length as then)\n",
	      to);
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"engine", 1, NULL, 'e'}, {"cases", 1, NULL, 'n'},  {"seconds", 1, NULL, 's'},
		{"seed", 1, NULL, 'S'},	  {"only", 1, NULL, 'o'},   {"only64", 0, NULL, '6'},
		{"show", 1, NULL, 'w'},	  {"list", 0, NULL, 'l'},   {"replay", 1, NULL, 'r'},
		{"help", 0, NULL, 'h'},	  {"length", 1, NULL, 'L'}, {NULL, 0, NULL, 0}};
	int c;
	char *end;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'e':
			o->engine = optarg;
			break;
		case 'n':
			o->cases = strtoull(optarg, NULL, 0);
			break;
		case 's':
			o->seconds = strtod(optarg, NULL);
			break;
		case 'S':
			o->seed = strtoull(optarg, NULL, 0);
			break;
		case 'o':
			o->only = optarg;
			break;
		case '6':
			o->only64 = true;
			break;
		case 'w':
			o->shown = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'L':
			o->length = (unsigned)strtoul(optarg, NULL, 0);
			if (!o->length || o->length > LENGTH_MAX)
				return -EINVAL;
			break;
		case 'l':
			o->list = true;
			break;
		case 'r':
			o->replaying = true;
			o->seed = strtoull(optarg, &end, 0);
			if (*end != ':')
				return -EINVAL;
			o->replay = strtoull(end + 1, NULL, 0);
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			return -EINVAL;
		}
	}
	return optind == argc ? 0 : -EINVAL;
}

static bool wanted(const struct options *o, unsigned form)
{
	return !o->only ||
	       !strcasecmp(o->only, ZydisMnemonicGetString((ZydisMnemonic)form_at(form)->mnemonic));
}

static void list_forms(const struct options *o, unsigned forms)
{
	for (unsigned n = 0; n < forms; n++) {
		const struct iform *f = form_at(n);
		if (wanted(o, n))
			printf("%5u %s %-14s %s%s map %u opcode %02x /%u %s%s%s%s\n", n,
			       f->mode32 ? "32" : "64",
			       ZydisMnemonicGetString((ZydisMnemonic)f->mnemonic),
			       f->encoding == ENC_VEX ? "vex" : "legacy", f->l ? ".256" : "",
			       f->map, f->opcode, f->reg, f->memory ? "memory" : "register",
			       f->opsize ? " 66" : "", f->w ? " W" : "",
			       f->rep == 0xf3 ? " f3"
			       : f->rep	      ? " f2"
					      : "");
	}
}

enum { SP = 4 }; /* in gpr[] */

static uint64_t canonical(uint64_t v)
{
	return (uint64_t)((int64_t)(v << 16) >> 16);
}

/* Did an interrupt come while RSP was what the host does not bear? */
static bool was_refused(const struct options *o, const struct result *native)
{
	return !o->any_rsp && (native->vector == 6 || native->vector == 13) &&
	       native->gpr[SP] != canonical(native->gpr[SP]);
}

/* Fills the batch with the next cases; *number goes on. */
static void fill(const struct options *o, struct batch *b, uint64_t *number, unsigned forms,
		 uint64_t limit, struct tally *y)
{
	pristine_make(b->pristine, o->seed, *number / 4096);
	for (b->count = 0; b->count < BATCH && (!limit || y->run + b->count < limit); ++*number) {
		if (b->count && *number % 4096 == 0)
			break; /* other contents of memory */
		if (!wanted(o, (unsigned)(*number % forms)))
			continue;
		struct tcase *t = &b->in[b->count];
		if (!case_make(t, o->seed, *number, forms, o->length)) {
			y->left_out++;
			continue;
		}
		if (!o->any_rsp)
			t->gpr[SP] = canonical(t->gpr[SP]);
		b->out[b->count++].vector = VECTOR_NOT_RUN;
	}
}

static void judge(const struct options *o, const struct tcase *t, const struct result *native,
		  const struct result *engine, struct tally *y)
{
	y->run++;
	y->form_run[t->form] = 1;
	if (native->vector == 1 || native->vector == 3)
		y->carried_out++;
	else
		y->faults++;
	if (results_agree(t, native, engine) || was_refused(o, native))
		return;
	y->differ++;
	if (y->by_mnemonic[form_at(t->form)->mnemonic]++ < o->shown)
		print_difference(t, native, engine, o->seed);
}

/* Runs one batch on both sides. */
static int run_batch(const struct options *o, struct native *n, struct guest *g, struct tally *y,
		     struct error *err)
{
	static struct result engine[BATCH];
	static struct batch local; /* the child may be started anew */
	struct batch *b = native_batch(n);
	unsigned lost = BATCH;

	native_post(n);
	guest_fill(g, b->pristine);
	for (unsigned k = 0; k < b->count; k++)
		guest_run(g, &b->in[k], b->pristine, &engine[k]);
	int ret = native_wait(n, &lost, err);
	if (ret && ret != -ECHILD)
		return ret;
	unsigned from = 0, count = b->count;
	for (unsigned k = 0; k < (ret ? lost : count); k++)
		judge(o, &b->in[k], &b->out[k], &engine[k], y);
	if (!ret)
		return 0;
	char text[1024];
	printf("  the child died at case %llu: %s  --replay %llu:%llu\n",
	       (unsigned long long)b->in[lost].number, case_text(&b->in[lost], text, sizeof(text)),
	       (unsigned long long)o->seed, (unsigned long long)b->in[lost].number);
	y->lost++;
	/* The rest of the batch, without that case. */
	from = lost + 1;
	memcpy(&local, b, sizeof(local));
	b->count = count - from;
	memcpy(b->in, local.in + from, b->count * sizeof(b->in[0]));
	return b->count ? run_batch(o, n, g, y, err) : 0;
}

static void summary(const struct options *o, const struct tally *y, unsigned forms, double seconds)
{
	unsigned covered = 0;

	for (unsigned k = 0; k < forms; k++)
		covered += y->form_run[k];
	for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
		if (y->by_mnemonic[m])
			printf("  %-16s %u differ\n", ZydisMnemonicGetString((ZydisMnemonic)m),
			       y->by_mnemonic[m]);
	printf("truth: engine %s, seed %llu: %u of %u forms, %llu cases (%llu carried out, %llu "
	       "faulted), %llu differ, %llu lost, %.0f cases/s\n",
	       o->engine, (unsigned long long)o->seed, covered, forms, (unsigned long long)y->run,
	       (unsigned long long)y->carried_out, (unsigned long long)y->faults,
	       (unsigned long long)y->differ, (unsigned long long)y->lost,
	       (double)y->run / (seconds > 0 ? seconds : 1));
}

static int run_all(const struct options *o, unsigned forms, struct error *err)
{
	struct native *n = NULL;
	struct guest *g = NULL;
	struct tally y = {.form_run = calloc(forms, 1)};
	double start = now();
	uint64_t number = o->replaying ? o->replay : 0;
	uint64_t limit = o->replaying ? 1 : o->cases;
	int ret = y.form_run ? native_start(&n, err) : error_set(err, -ENOMEM, "no memory");

	if (!ret)
		ret = guest_start(&g, o->engine, err);
	while (!ret && (!limit || y.run < limit) &&
	       (o->seconds <= 0 || now() - start < o->seconds)) {
		struct batch *b = native_batch(n);
		fill(o, b, &number, forms, limit, &y);
		if (o->replaying && b->count)
			print_case(&b->in[0]);
		if (b->count)
			ret = run_batch(o, n, g, &y, err);
		if (y.lost > 100)
			ret = error_set(err, -ECHILD, "the child dies too often");
	}
	if (!ret)
		summary(o, &y, forms, now() - start);
	guest_stop(g);
	native_stop(n);
	free(y.form_run);
	return ret ? ret : y.differ || y.lost ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct options o = {.engine = "interp", .cases = 1000000, .shown = 1, .length = 1};
	struct error err = {0};

	o.seed = (uint64_t)time(NULL);
	if (parse(argc, argv, &o)) {
		usage(stderr);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!o.only64 && !native_has_32_bit()) {
		printf("truth: this host does not run 32-bit code, which is left out\n");
		o.only64 = true;
	}
	unsigned forms = forms_init(!o.only64);
	if (o.list) {
		list_forms(&o, forms);
		return 0;
	}
	printf("truth: engine %s, seed %llu, %u forms\n", o.engine, (unsigned long long)o.seed,
	       forms);
	o.any_rsp = native_takes_any_rsp();
	compare_for(o.engine);
	int ret = run_all(&o, forms, &err);
	if (ret < 0)
		fprintf(stderr, "truth: %s\n", err.text);
	return ret < 0 ? 125 : ret;
}
