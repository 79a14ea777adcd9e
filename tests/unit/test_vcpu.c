/* SPDX-License-Identifier: Apache-2.0 */
/* cpu/engine.h: requests to a vCPU from other threads, and waiting for them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cpu/engine.h"

static unsigned pokes;

static void poke(struct vcpu *v)
{
	(void)v;
	pokes++;
}

static void requests_are_bits(void **state)
{
	struct vcpu v = {.poke = poke};

	(void)state;
	pokes = 0;
	vcpu_request(&v, VCPU_REQ_IRQ);
	vcpu_request(&v, VCPU_REQ_IRQ); /* nothing new: nobody is disturbed */
	assert_int_equal(pokes, 1);
	vcpu_send_sipi(&v, 0x9a);
	assert_int_equal(pokes, 2);
	assert_int_equal(atomic_load(&v.sipi_vector), 0x9a);
	assert_int_equal(atomic_load(&v.requests), VCPU_REQ_IRQ | VCPU_REQ_SIPI);
	vcpu_unrequest(&v, VCPU_REQ_IRQ);
	assert_int_equal(atomic_load(&v.requests), VCPU_REQ_SIPI);
}

static void what_is_there_already_is_not_waited_for(void **state)
{
	struct vcpu v = {0};

	(void)state;
	vcpu_request(&v, VCPU_REQ_NMI);
	vcpu_wait(&v, VCPU_REQ_NMI | VCPU_REQ_KICK);
	/* The event is still there for the engine, and nothing else. */
	assert_int_equal(atomic_load(&v.requests), VCPU_REQ_NMI);
}

static void *sleeper(void *opaque)
{
	vcpu_wait(opaque, VCPU_REQ_IRQ);
	return NULL;
}

static void only_the_mask_wakes(void **state)
{
	struct vcpu v = {.poke = poke};
	pthread_t thread;

	(void)state;
	pthread_create(&thread, NULL, sleeper, &v);
	usleep(20000);
	vcpu_request(&v, VCPU_REQ_NMI);
	usleep(20000);
	assert_int_equal(pthread_tryjoin_np(thread, NULL), EBUSY);
	vcpu_request(&v, VCPU_REQ_IRQ);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(atomic_load(&v.requests), VCPU_REQ_IRQ | VCPU_REQ_NMI);
}

enum { ROUNDS = 20000 };
static struct vcpu ping, pong;

static void *answer(void *opaque)
{
	(void)opaque;
	for (int i = 0; i < ROUNDS; i++) {
		vcpu_wait(&ping, VCPU_REQ_KICK);
		vcpu_unrequest(&ping, VCPU_REQ_KICK);
		/* Now and then after it has given up looking out by itself. */
		if (i % 100 == 0)
			usleep(400);
		vcpu_request(&pong, VCPU_REQ_IRQ);
	}
	return NULL;
}

/* No request is lost between looking and falling asleep: else this stands still. */
static void no_wake_up_is_lost(void **state)
{
	pthread_t thread;

	(void)state;
	memset(&ping, 0, sizeof(ping));
	memset(&pong, 0, sizeof(pong));
	pthread_create(&thread, NULL, answer, NULL);
	for (int i = 0; i < ROUNDS; i++) {
		vcpu_request(&ping, VCPU_REQ_KICK);
		vcpu_wait(&pong, VCPU_REQ_IRQ);
		vcpu_unrequest(&pong, VCPU_REQ_IRQ);
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
}

static void *wake_after(void *opaque)
{
	usleep(*(unsigned *)opaque);
	vcpu_request(&pong, VCPU_REQ_IRQ);
	return NULL;
}

/* An idle guest must not cost its host anything: a long wait ends the looking out. */
static void long_waits_are_slept_through(void **state)
{
	unsigned long_us = 50000;
	struct timespec before, after;
	pthread_t thread;

	(void)state;
	memset(&pong, 0, sizeof(pong));
	pong.poll_ns = 10000; /* as after short waits */
	pthread_create(&thread, NULL, wake_after, &long_us);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
	vcpu_wait(&pong, VCPU_REQ_IRQ);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
	pthread_join(thread, NULL);
	assert_int_equal(pong.poll_ns, 0);
	assert_true((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec <
		    20000000);
}

static void engines_are_found_by_name(void **state)
{
	struct error reason = {0}, err = {0};

	(void)state;
	for (unsigned i = 0; engines[i]; i++) {
		if (engines[i]->probe(&err) == 0)
			assert_ptr_equal(engine_find(engines[i]->name, &reason, &err), engines[i]);
	}
	const struct engine_ops *best = engine_find("auto", &reason, &err);
	assert_non_null(best);
	assert_non_null(strstr(reason.text, best->name));
	assert_null(engine_find("steam", &reason, &err));
	assert_non_null(strstr(err.text, "steam"));
	assert_non_null(strstr(err.text, "interp"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_bits),
		cmocka_unit_test(what_is_there_already_is_not_waited_for),
		cmocka_unit_test(only_the_mask_wakes),
		cmocka_unit_test(no_wake_up_is_lost),
		cmocka_unit_test(long_waits_are_slept_through),
		cmocka_unit_test(engines_are_found_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
