/* SPDX-License-Identifier: Apache-2.0 */
/* Miss-ratio curves as SVG: one file that needs nothing else, in light and in dark. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "app/lab.h"
#include "app/vm_verb.h"

enum { WIDTH = 860, HEIGHT = 500, LEFT = 74, RIGHT = 700, TOP = 84, BOTTOM = 416, TICKS_MAX = 12 };

struct plot {
	FILE *f;
	const struct lab_result *r;
	bool linear;
	double x0, x1; /* frames */
	double y1;     /* miss ratio at the top; 0 below */
};

/* Colours that can be told apart with any kind of colour vision (Okabe, Ito 2008); and shapes.
 * Dashed curves lie over others: where two are one, both are seen. */
static const struct look {
	const char *policy, *light, *dark, *dashes;
	unsigned corners; /* of the mark: 0 is a disc */
	double turn;
} looks[] = {
	{"fifo", "#d55e00", "#ff8a3d", NULL, 4, 0.25},
	{"clock", "#8a6d00", "#e6c229", "6 5", 3, 0},
	{"lru", "#0072b2", "#56b4e9", NULL, 0, 0},
	{"gen", "#009e73", "#2fd3a5", "7 6", 4, 0},
	{"random", "#8b8b8b", "#a8a8a8", "2 3", 3, 0.5},
	{"opt", "#9b3f86", "#e58fd0", NULL, 5, 0},
};
enum { LOOKS = sizeof(looks) / sizeof(looks[0]) };

static const struct look *look_of(const struct policy_ops *policy)
{
	for (unsigned i = 0; i < LOOKS; i++)
		if (!strcmp(looks[i].policy, policy->name))
			return &looks[i];
	return &looks[0];
}

static void put_text(FILE *f, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '&')
			fputs("&amp;", f);
		else if (c == '<')
			fputs("&lt;", f);
		else if (c == '>')
			fputs("&gt;", f);
		else if (c == '"')
			fputs("&quot;", f);
		else
			/* A name that is no UTF-8 would make the whole file unreadable. */
			putc(c < ' ' || c >= 0x7f ? '?' : c, f);
	}
}

static double x_of(const struct plot *p, double frames)
{
	double part = p->linear ? (frames - p->x0) / (p->x1 - p->x0)
				: log(frames / p->x0) / log(p->x1 / p->x0);

	return LEFT + part * (RIGHT - LEFT);
}

static double y_of(const struct plot *p, double ratio)
{
	return BOTTOM - ratio / p->y1 * (BOTTOM - TOP);
}

static void head(const struct plot *p)
{
	const struct page_trace *t = p->r->trace;
	struct short_text page;

	fprintf(p->f,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
		"height=\"%d\" role=\"img\" aria-label=\"Miss ratio by frames\">\n<style>\n"
		"  text { font: 12px system-ui, 'DejaVu Sans', sans-serif; fill: #24292f; }\n"
		"  .title { font-size: 16px; font-weight: 600; }\n"
		"  .note { fill: #57606a; font-size: 11px; }\n"
		"  .grid { stroke: #d0d7de; stroke-width: 1; }\n"
		"  .axis { stroke: #57606a; stroke-width: 1; }\n"
		"  .cold { stroke: #57606a; stroke-width: 1; stroke-dasharray: 5 4; }\n"
		"  .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }\n"
		"  .back { fill: #ffffff; }\n",
		WIDTH, HEIGHT, WIDTH, HEIGHT);
	for (unsigned i = 0; i < LOOKS; i++) {
		fprintf(p->f, "  .%s { stroke: %s; } .%s-mark { fill: %s; }\n", looks[i].policy,
			looks[i].light, looks[i].policy, looks[i].light);
		if (looks[i].dashes)
			fprintf(p->f, "  .%s { stroke-dasharray: %s; }\n", looks[i].policy,
				looks[i].dashes);
	}
	fprintf(p->f, "  @media (prefers-color-scheme: dark) {\n"
		      "    text { fill: #e6edf3; } .note { fill: #9198a1; }\n"
		      "    .grid { stroke: #30363d; } .axis, .cold { stroke: #9198a1; }\n"
		      "    .back { fill: #0d1117; }\n");
	for (unsigned i = 0; i < LOOKS; i++)
		fprintf(p->f, "    .%s { stroke: %s; } .%s-mark { fill: %s; }\n", looks[i].policy,
			looks[i].dark, looks[i].policy, looks[i].dark);
	fprintf(p->f,
		"  }\n</style>\n<rect width=\"100%%\" height=\"100%%\" class=\"back\"/>\n"
		"<text x=\"%d\" y=\"32\" class=\"title\">Miss ratio by memory: ",
		LEFT);
	const char *name = strrchr(p->r->path, '/');
	put_text(p->f, name ? name + 1 : p->r->path);
	fprintf(p->f,
		"</text>\n<text x=\"%d\" y=\"52\" class=\"note\">%zu references to %" PRIu32
		" pages of %s; %s</text>\n",
		LEFT, t->refs, t->pages, show_bytes(&page, t->info.page_bytes),
		trace_sampling_name(t->info.sampling));
}

/* 1, 2 or 5 times a power of ten: the step of a scale from 0 to end with at most n steps. */
static double nice_step(double end, unsigned n)
{
	static const double times[] = {1, 2, 5, 10};
	double power = pow(10, floor(log10(end / n)));
	unsigned i = 0;

	while (i < 3 && end / (power * times[i]) > n)
		i++;
	return power * times[i];
}

static void y_axis(const struct plot *p, double step)
{
	int digits = step < 0.0001 ? 3 : step < 0.001 ? 2 : step < 0.01 ? 1 : 0;

	for (double v = 0; v < p->y1 + step / 2; v += step)
		fprintf(p->f,
			"<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" class=\"%s\"/>\n"
			"<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.*f %%</text>\n",
			LEFT, y_of(p, v), RIGHT, y_of(p, v), v == 0 ? "axis" : "grid", LEFT - 8,
			y_of(p, v) + 4, digits, 100 * v);
	fprintf(p->f,
		"<text x=\"20\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 20 %d)\">"
		"references that miss</text>\n",
		(TOP + BOTTOM) / 2, (TOP + BOTTOM) / 2);
}

static void x_tick(const struct plot *p, double frames)
{
	struct short_text bytes;
	double x = x_of(p, frames);

	fprintf(p->f,
		"<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" class=\"grid\"/>\n"
		"<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0f</text>\n"
		"<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" class=\"note\">%s</text>\n",
		x, TOP, x, BOTTOM + 5, x, BOTTOM + 20, frames, x, BOTTOM + 36,
		show_bytes(&bytes, (uint64_t)frames * p->r->trace->info.page_bytes));
}

static void x_axis(const struct plot *p)
{
	/* Few frames: each of them. */
	if (p->linear || p->x1 - p->x0 < TICKS_MAX) {
		double step = fmax(1, nice_step(p->x1, TICKS_MAX - 3));
		for (double v = ceil(p->x0 / step) * step; v <= p->x1; v += step)
			x_tick(p, v);
	} else {
		/* Powers of two; every second, third ... when there are many. */
		unsigned first = (unsigned)ceil(log2(p->x0) - 1e-9);
		unsigned last = (unsigned)floor(log2(p->x1) + 1e-9);
		unsigned step = (last - first) / TICKS_MAX + 1;
		for (unsigned i = first; i <= last; i += step)
			x_tick(p, exp2(i));
	}
	fprintf(p->f,
		"<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">frames of memory (%s scale)</text>\n",
		(LEFT + RIGHT) / 2, BOTTOM + 60, p->linear ? "linear" : "logarithmic");
}

static void mark(const struct plot *p, const struct look *look, double x, double y)
{
	double radius = look->corners == 3 ? 4.6 : 4;

	if (!look->corners) {
		fprintf(p->f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.4\" class=\"%s-mark\"/>\n", x,
			y, look->policy);
		return;
	}
	fprintf(p->f, "<polygon class=\"%s-mark\" points=\"", look->policy);
	for (unsigned i = 0; i < look->corners; i++) {
		double angle = 2 * M_PI * ((i + look->turn * 2) / look->corners - 0.25);
		fprintf(p->f, "%.1f,%.1f ", x + radius * cos(angle), y + radius * sin(angle));
	}
	fprintf(p->f, "\"/>\n");
}

static double ratio(const struct plot *p, unsigned policy, unsigned size)
{
	return (double)lab_count(p->r, policy, size)->misses / (double)p->r->trace->refs;
}

static void curve(const struct plot *p, unsigned policy)
{
	const struct look *look = look_of(p->r->policy[policy]);

	fprintf(p->f, "<polyline class=\"curve %s\" points=\"", look->policy);
	for (unsigned i = 0; i < p->r->sizes; i++)
		fprintf(p->f, "%.1f,%.1f ", x_of(p, (double)p->r->frames[i]),
			y_of(p, ratio(p, policy, i)));
	fprintf(p->f, "\"><title>%s</title></polyline>\n", look->policy);
}

/* Few points have a mark each. Of many, each policy has others, so that none covers another's. */
static void marks(const struct plot *p, unsigned policy)
{
	const struct look *look = look_of(p->r->policy[policy]);
	unsigned every = p->r->sizes < 12 ? 1 : p->r->sizes / 24 + 5;

	for (unsigned i = policy % every; i < p->r->sizes; i += every)
		mark(p, look, x_of(p, (double)p->r->frames[i]), y_of(p, ratio(p, policy, i)));
}

static void curves(const struct plot *p)
{
	for (unsigned dashed = 0; dashed < 2; dashed++)
		for (unsigned i = p->r->policies; i--;)
			if (!!look_of(p->r->policy[i])->dashes == dashed)
				curve(p, i);
	for (unsigned i = p->r->policies; i--;)
		marks(p, i);
}

static void legend(const struct plot *p)
{
	for (unsigned i = 0; i < p->r->policies; i++) {
		const struct look *look = look_of(p->r->policy[i]);
		int y = TOP + 12 + 24 * (int)i;
		fprintf(p->f,
			"<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" class=\"curve %s\"/>\n",
			RIGHT + 24, y, RIGHT + 52, y, look->policy);
		mark(p, look, RIGHT + 38, y);
		fprintf(p->f, "<text x=\"%d\" y=\"%d\">%s</text>\n", RIGHT + 62, y + 4,
			look->policy);
	}
}

static void cold(const struct plot *p)
{
	double part = (double)p->r->trace->pages / (double)p->r->trace->refs, y = y_of(p, part);

	fprintf(p->f,
		"<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" class=\"cold\"/>\n"
		"<text x=\"%d\" y=\"%.1f\" class=\"note\">cold misses: %.2g %%</text>\n",
		LEFT, y, RIGHT, y, RIGHT + 24, y < BOTTOM - 4 ? y + 4 : y, 100 * part);
}

static void draw(struct plot *p)
{
	double most = 0, step;

	for (unsigned i = 0; i < p->r->policies; i++)
		for (unsigned j = 0; j < p->r->sizes; j++)
			most = fmax(most, ratio(p, i, j));
	step = nice_step(most, 8);
	p->y1 = fmin(1, ceil(most / step - 1e-9) * step);
	p->x0 = (double)p->r->frames[0];
	p->x1 = (double)p->r->frames[p->r->sizes - 1];
	/* One size alone stands in the middle. */
	if (p->r->sizes == 1) {
		p->x0 /= 2;
		p->x1 *= 2;
	}
	head(p);
	y_axis(p, step);
	x_axis(p);
	cold(p);
	curves(p);
	legend(p);
	fprintf(p->f, "</svg>\n");
}

int lab_write_svg(const struct lab_result *r, bool linear, const char *path, struct error *err)
{
	struct plot p = {.f = fopen(path, "we"), .r = r, .linear = linear};
	int rc = p.f ? 0 : -errno;

	if (p.f) {
		draw(&p);
		if (ferror(p.f))
			rc = -EIO;
		if (fclose(p.f))
			rc = -errno;
	}
	if (rc)
		return error_set(err, rc, "--svg %s: it could not be written: %s", path,
				 strerror(-rc));
	return 0;
}
