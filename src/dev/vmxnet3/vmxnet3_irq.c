/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts: up to 25, a cause each (a queue, events). Each is pending, masked (IMR), or sent: by
 * MSI-X to its own vector, by MSI, or on the pin, which a read of ICR takes back. With auto_mask one
 * that was sent is masked, until the driver, done with what it was sent for, writes IMR.
 */
#include "dev/vmxnet3/vmxnet3_internal.h"

enum { CONTROL_DISABLE_ALL = 1 << 0 };

/* irq.lock held. */
static void kick(struct vmxnet3 *v, unsigned i)
{
	if (!v->irq.pending[i] || v->irq.masked[i] || !v->irq.shared ||
	    __atomic_load_n(&v->irq.shared->intr_control, __ATOMIC_ACQUIRE) & CONTROL_DISABLE_ALL)
		return;
	v->irq.pending[i] = false;
	v->irq.masked[i] = v->conf.auto_mask;
	v->irq.raised++;
	if (pci_msix_enabled(&v->pci)) {
		pci_msix_send(&v->pci, i);
	} else if (pci_msi_enabled(&v->pci)) {
		pci_msi_send(&v->pci, 0);
	} else {
		v->irq.asserted = true;
		pci_set_intx(&v->pci, 1);
	}
}

void vmxnet3_raise(struct vmxnet3 *v, unsigned intr)
{
	pthread_mutex_lock(&v->irq.lock);
	v->irq.pending[intr] = true;
	kick(v, intr);
	pthread_mutex_unlock(&v->irq.lock);
}

static void event(struct vmxnet3 *v, uint32_t causes)
{
	if (!v->irq.shared)
		return;
	__atomic_fetch_or(&v->irq.shared->ecr, causes, __ATOMIC_ACQ_REL);
	v->irq.pending[v->conf.event_intr] = true;
	kick(v, v->conf.event_intr);
}

void vmxnet3_event(struct vmxnet3 *v, uint32_t causes)
{
	pthread_mutex_lock(&v->irq.lock);
	event(v, causes);
	pthread_mutex_unlock(&v->irq.lock);
}

void vmxnet3_ack_events(struct vmxnet3 *v, uint32_t causes)
{
	pthread_mutex_lock(&v->irq.lock);
	if (v->irq.shared)
		__atomic_fetch_and(&v->irq.shared->ecr, ~causes, __ATOMIC_ACQ_REL);
	pthread_mutex_unlock(&v->irq.lock);
}

void vmxnet3_mask(struct vmxnet3 *v, unsigned intr, bool masked)
{
	pthread_mutex_lock(&v->irq.lock);
	v->irq.masked[intr] = masked;
	kick(v, intr);
	pthread_mutex_unlock(&v->irq.lock);
}

bool vmxnet3_is_masked(struct vmxnet3 *v, unsigned intr)
{
	pthread_mutex_lock(&v->irq.lock);
	bool masked = v->irq.masked[intr];
	pthread_mutex_unlock(&v->irq.lock);
	return masked;
}

/* Is the interrupt on the pin ours? What came so far will be seen by who asks. */
uint32_t vmxnet3_read_icr(struct vmxnet3 *v)
{
	pthread_mutex_lock(&v->irq.lock);
	bool asserted = v->irq.asserted;
	v->irq.asserted = false;
	if (asserted) {
		for (unsigned i = 0; i < VMXNET3_INTRS; i++)
			v->irq.pending[i] = false;
		pci_set_intx(&v->pci, 0);
	}
	pthread_mutex_unlock(&v->irq.lock);
	return asserted;
}

void vmxnet3_link_changed(struct vmxnet3 *v, bool up)
{
	pthread_mutex_lock(&v->irq.lock);
	if (v->irq.link != up) {
		v->irq.link = up;
		event(v, ECR_LINK);
	}
	pthread_mutex_unlock(&v->irq.lock);
}
