// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Interrupts: one MSI-X vector per virtqueue and one for the configuration.
 * Vectors are allocated with the vDPA device, so that a function with too few of
 * them fails "vdpa dev add"; they are requested at DRIVER_OK and freed at reset,
 * so that an idle device interrupts nobody.
 */
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/pci.h>
#include <linux/smp.h>

#include "virtio_lm_vdpa.h"

/**
 * virtio_lm_alloc_vectors - allocate a vDPA device's MSI-X vectors
 * @vlm: the vDPA device
 *
 * Return: 0 or a negative errno
 */
int virtio_lm_alloc_vectors(struct virtio_lm_vdpa *vlm)
{
	struct pci_dev *pdev = vlm->func->mdev.pci_dev;
	int want = vlm->nvqs + 1;
	int ret;

	ret = pci_alloc_irq_vectors(pdev, want, want, PCI_IRQ_MSIX);
	if (ret < 0) {
		dev_err(&pdev->dev,
			"cannot get %d MSI-X vectors (%d), the function has %d: in QEMU, set vectors=\n",
			want, ret, max(pci_msix_vec_count(pdev), 0));
		return ret;
	}

	vlm->vectors = true;
	return 0;
}

/**
 * virtio_lm_free_vectors - undo virtio_lm_alloc_vectors()
 * @vlm: the vDPA device; its interrupts are freed
 */
void virtio_lm_free_vectors(struct virtio_lm_vdpa *vlm)
{
	if (!vlm->vectors)
		return;

	/* What was pending as its interrupt was freed, handle_bad_irq() has had by now */
	kick_all_cpus_sync();
	pci_free_irq_vectors(vlm->func->mdev.pci_dev);
	vlm->vectors = false;
}

static irqreturn_t virtio_lm_vq_interrupt(int irq, void *data)
{
	struct virtio_lm_vq *vq = data;

	return virtio_lm_call(&vq->call);
}

static irqreturn_t virtio_lm_config_interrupt(int irq, void *data)
{
	struct virtio_lm_vdpa *vlm = data;

	return virtio_lm_call(&vlm->config_call);
}

/**
 * virtio_lm_request_irqs - let the device interrupt
 * @vlm: the vDPA device; its lock is held
 *
 * Each virtqueue's vector is set when the queue is enabled; the configuration has no
 * other time than this.
 *
 * Return: 0 or a negative errno
 */
int virtio_lm_request_irqs(struct virtio_lm_vdpa *vlm)
{
	struct virtio_pci_modern_device *mdev = &vlm->func->mdev;
	struct pci_dev *pdev = mdev->pci_dev;
	struct virtio_lm_vq *vq;
	int i, irq, ret;

	for (i = 0; i < vlm->nvqs; i++) {
		vq = &vlm->vqs[i];
		snprintf(vq->name, sizeof(vq->name), VIRTIO_LM_DRIVER_NAME "[%s]-vq%d",
			 pci_name(pdev), i);
		irq = pci_irq_vector(pdev, i);
		ret = request_irq(irq, virtio_lm_vq_interrupt, 0, vq->name, vq);
		if (ret)
			goto err;
		vq->irq = irq;
	}

	snprintf(vlm->config_name, sizeof(vlm->config_name), VIRTIO_LM_DRIVER_NAME "[%s]-config",
		 pci_name(pdev));
	irq = pci_irq_vector(pdev, vlm->nvqs);
	ret = request_irq(irq, virtio_lm_config_interrupt, 0, vlm->config_name, vlm);
	if (ret)
		goto err;
	vlm->config_irq = irq;

	if (vp_modern_config_vector(mdev, vlm->nvqs) != vlm->nvqs) {
		ret = -EIO;
		goto err;
	}

	return 0;

err:
	dev_err_ratelimited(&pdev->dev, "cannot set up interrupt %d of %d: %d\n",
			    i, vlm->nvqs + 1, ret);
	virtio_lm_free_irqs(vlm);
	return ret;
}

/* At once, not when the next one comes */
static void virtio_lm_mask_irq(int irq)
{
	irq_set_status_flags(irq, IRQ_DISABLE_UNLAZY);
	disable_irq(irq);
}

/*
 * No CPU has an interrupt of this device that it has not handled; of each vector, one more may be
 * pending if the device interrupts in spite of the mask, which is its own.
 *
 * synchronize_irq() waits for handlers that have begun. A CPU may still be on its way to one, and a
 * virtual CPU may stay there for as long as its host has other things to do. Freed meanwhile, that
 * interrupt would be the one without a handler that x86 forgives, and the pending one the next,
 * which it reports (reevaluate_vector() in arch/x86/kernel/irq.c). The IPI finds each CPU when it
 * is done with what it had, maybe ahead of what is pending: that one is forgiven.
 */
static void virtio_lm_quiesce_irqs(struct virtio_lm_vdpa *vlm)
{
	int i;

	for (i = 0; i < vlm->nvqs && vlm->vqs[i].irq >= 0; i++)
		virtio_lm_mask_irq(vlm->vqs[i].irq);
	if (vlm->config_irq >= 0)
		virtio_lm_mask_irq(vlm->config_irq);
	if (i)
		kick_all_cpus_sync();
}

/**
 * virtio_lm_free_irqs - undo virtio_lm_request_irqs(), whole or in part
 * @vlm: the vDPA device; its lock is held
 *
 * May sleep.
 */
void virtio_lm_free_irqs(struct virtio_lm_vdpa *vlm)
{
	int i;

	virtio_lm_quiesce_irqs(vlm);

	if (vlm->config_irq >= 0)
		free_irq(vlm->config_irq, vlm);
	vlm->config_irq = -EINVAL;

	for (i = 0; i < vlm->nvqs; i++) {
		if (vlm->vqs[i].irq >= 0)
			free_irq(vlm->vqs[i].irq, &vlm->vqs[i]);
		vlm->vqs[i].irq = -EINVAL;
	}
}

/**
 * virtio_lm_set_cb - replace a callback
 * @call: where
 * @cb: the new callback; one whose function is NULL removes the old one
 *
 * When this returns, the old callback is not running and will not be called again, so its
 * owner may free what it points to.
 */
void virtio_lm_set_cb(struct virtio_lm_cb *call, const struct vdpa_callback *cb)
{
	unsigned long flags;

	spin_lock_irqsave(&call->lock, flags);
	call->cb = *cb;
	spin_unlock_irqrestore(&call->lock, flags);
}

/**
 * virtio_lm_call - invoke a callback, if there is one
 * @call: the callback
 *
 * Return: IRQ_HANDLED, or what the callback says
 */
irqreturn_t virtio_lm_call(struct virtio_lm_cb *call)
{
	irqreturn_t ret = IRQ_HANDLED;
	unsigned long flags;

	spin_lock_irqsave(&call->lock, flags);
	if (call->cb.callback) {
		call->calls++;
		ret = call->cb.callback(call->cb.private);
	}
	spin_unlock_irqrestore(&call->lock, flags);
	return ret;
}
