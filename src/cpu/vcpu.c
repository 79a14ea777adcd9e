/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to a vCPU, and sleeping until one comes: a futex on the word of requests itself. While
 * its thread sleeps the word carries WAITING, so that a request to a vCPU that runs, the common
 * case, makes no system call. Engines never see the bit: it is there only inside vcpu_wait.
 */
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/engine.h"

#define WAITING (UINT32_C(1) << 31)

static void futex(_Atomic uint32_t *word, int op, uint32_t value)
{
	syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

void vcpu_request(struct vcpu *v, uint32_t bits)
{
	uint32_t old = atomic_fetch_or(&v->requests, bits);

	if ((old & bits) == bits)
		return;
	if (old & WAITING)
		futex(&v->requests, FUTEX_WAKE, INT_MAX);
	else if (v->poke)
		v->poke(v);
}

void vcpu_unrequest(struct vcpu *v, uint32_t bits)
{
	atomic_fetch_and(&v->requests, ~bits);
}

void vcpu_send_sipi(struct vcpu *v, uint8_t vector)
{
	atomic_store(&v->sipi_vector, vector);
	vcpu_request(v, VCPU_REQ_SIPI);
}

void vcpu_wait(struct vcpu *v, uint32_t mask)
{
	for (;;) {
		uint32_t now = atomic_fetch_or(&v->requests, WAITING) | WAITING;
		if (now & mask)
			break;
		futex(&v->requests, FUTEX_WAIT, now);
	}
	atomic_fetch_and(&v->requests, ~WAITING);
}
