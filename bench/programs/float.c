/* SPDX-License-Identifier: Apache-2.0 */
/* Floating point: double precision as gcc -O2 compiles it (scalar SSE2), and the x87. */
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct body {
	double x[3], v[3], mass;
};

enum { BODIES = 5 };

static double energy(const struct body *b)
{
	double e = 0;

	for (unsigned i = 0; i < BODIES; i++) {
		for (unsigned k = 0; k < 3; k++)
			e += 0.5 * b[i].mass * b[i].v[k] * b[i].v[k];
		for (unsigned j = i + 1; j < BODIES; j++) {
			double d2 = 0;
			for (unsigned k = 0; k < 3; k++)
				d2 += (b[i].x[k] - b[j].x[k]) * (b[i].x[k] - b[j].x[k]);
			e -= b[i].mass * b[j].mass / sqrt(d2);
		}
	}
	return e;
}

static void attract(struct body *a, struct body *b, double dt)
{
	double d[3], d2 = 0;

	for (unsigned k = 0; k < 3; k++) {
		d[k] = a->x[k] - b->x[k];
		d2 += d[k] * d[k];
	}
	double strength = dt / (d2 * sqrt(d2));
	for (unsigned k = 0; k < 3; k++) {
		a->v[k] -= d[k] * b->mass * strength;
		b->v[k] += d[k] * a->mass * strength;
	}
}

/* Five bodies under gravity, n times 10,000 steps. */
void bench_nbody(unsigned n)
{
	struct body b[BODIES];
	uint64_t seed = 3;

	for (unsigned i = 0; i < BODIES; i++) {
		for (unsigned k = 0; k < 3; k++) {
			b[i].x[k] = i * 5.0 + (double)(next_random(&seed) % 1000) / 250;
			b[i].v[k] = (double)(next_random(&seed) % 1000) / 2000 - 0.25;
		}
		b[i].mass = i ? 0.01 / i : 39;
	}
	for (unsigned step = 0; step < n * 10000; step++) {
		for (unsigned i = 0; i < BODIES; i++)
			for (unsigned j = i + 1; j < BODIES; j++)
				attract(&b[i], &b[j], 0.001);
		for (unsigned i = 0; i < BODIES; i++)
			for (unsigned k = 0; k < 3; k++)
				b[i].x[k] += 0.001 * b[i].v[k];
	}
	printf("%.12f\n", energy(b));
}

/* Product of two matrices of 160 x 160 doubles, n times. */
void bench_matmul(unsigned n)
{
	enum { SIZE = 160 };
	static double a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];
	double sum = 0;

	for (unsigned i = 0; i < SIZE; i++)
		for (unsigned j = 0; j < SIZE; j++) {
			a[i][j] = (double)((i * 7 + j * 3) % 11) / 11;
			b[i][j] = (double)((i * 5 + j * 13) % 17) / 17;
		}
	for (unsigned round = 0; round < n; round++) {
		for (unsigned i = 0; i < SIZE; i++)
			for (unsigned j = 0; j < SIZE; j++) {
				double s = 0;
				for (unsigned k = 0; k < SIZE; k++)
					s += a[i][k] * b[k][j];
				c[i][j] = s;
			}
		a[round % SIZE][0] = c[round % SIZE][round % 7] / 50;
		sum += c[round % SIZE][round % 31];
	}
	printf("%.12f\n", sum);
}

/* The Mandelbrot set, 256 x 256 points and up to 256 steps each, n times. */
void bench_mandelbrot(unsigned n)
{
	unsigned long total = 0;

	for (unsigned round = 0; round < n; round++)
		for (unsigned p = 0; p < 256 * 256; p++) {
			double cx = (p % 256) / 96.0 - 2, cy = (p / 256) / 96.0 - 1.33 + round * 1e-4;
			double x = 0, y = 0;
			unsigned step = 0;
			for (; step < 256 && x * x + y * y < 4; step++) {
				double t = x * x - y * y + cx;
				y = 2 * x * y + cy;
				x = t;
			}
			total += step;
		}
	printf("%lu\n", total);
}

/* The x87 in extended precision: n million steps of a logistic map with a root in it. */
void bench_x87(unsigned n)
{
	long double x = 0.3L, sum = 0;

	for (unsigned i = 0; i < n * 1000000; i++) {
		x = 3.9L * x * (1 - x);
		sum += __builtin_sqrtl(x);
	}
	printf("%.15Lf\n", sum);
}
