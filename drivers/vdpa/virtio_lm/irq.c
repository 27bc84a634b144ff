// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Interrupts: one MSI-X vector per virtqueue of the device and one for the configuration.
 * They are allocated and requested with the vDPA device, so that a shortage fails
 * "vdpa dev add", and freed with it. Until DRIVER_OK and from a reset on they are
 * masked, so that an idle device interrupts nobody.
 */
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/pci.h>
#include <linux/smp.h>

#include "virtio_lm_vdpa.h"

/*
 * A vector is one queue's alone, so its interrupt is handled even if its user finds nothing to
 * do. The kernel would disable one that nobody has handled too often, and that would outlast a
 * reset.
 */
static irqreturn_t virtio_lm_vq_interrupt(int irq, void *data)
{
	struct virtio_lm_vq *vq = data;

	virtio_lm_invoke(&vq->callback);
	return IRQ_HANDLED;
}

static irqreturn_t virtio_lm_config_interrupt(int irq, void *data)
{
	struct virtio_lm_vdpa *vlm = data;

	virtio_lm_invoke(&vlm->config_callback);
	return IRQ_HANDLED;
}

/*
 * disable_irq() masks an interrupt when the next one comes, if it is not told to do so at once.
 * One that comes while it is disabled is kept by the kernel and sent again when it is enabled.
 */
static int virtio_lm_request_irq(int irq, irq_handler_t handler, const char *name, void *data)
{
	int ret = request_irq(irq, handler, IRQF_NO_AUTOEN, name, data);

	if (!ret)
		irq_set_status_flags(irq, IRQ_DISABLE_UNLAZY);
	return ret;
}

/**
 * virtio_lm_request_irqs - allocate and request a vDPA device's interrupts
 * @vlm: the vDPA device
 *
 * They are disabled until virtio_lm_enable_irqs(). A caller that gets an error has
 * virtio_lm_free_irqs() undo what was done.
 *
 * Return: 0 or a negative errno
 */
int virtio_lm_request_irqs(struct virtio_lm_vdpa *vlm)
{
	struct pci_dev *pdev = vlm->func->mdev.pci_dev;
	int want = vlm->device_vqs + 1;
	struct virtio_lm_vq *vq;
	int i, irq, ret;

	ret = pci_alloc_irq_vectors(pdev, want, want, PCI_IRQ_MSIX);
	if (ret < 0) {
		dev_err(&pdev->dev,
			"cannot get %d MSI-X vectors (%d), the function has %d: in QEMU, set vectors=\n",
			want, ret, max(pci_msix_vec_count(pdev), 0));
		return ret;
	}
	vlm->vectors = true;

	for (i = 0; i < vlm->device_vqs; i++) {
		vq = &vlm->vqs[i];
		snprintf(vq->name, sizeof(vq->name), VIRTIO_LM_DRIVER_NAME "[%s]-vq%d",
			 pci_name(pdev), i);
		irq = pci_irq_vector(pdev, i);
		ret = virtio_lm_request_irq(irq, virtio_lm_vq_interrupt, vq->name, vq);
		if (ret)
			goto err;
		vq->irq = irq;
	}

	snprintf(vlm->config_name, sizeof(vlm->config_name), VIRTIO_LM_DRIVER_NAME "[%s]-config",
		 pci_name(pdev));
	irq = pci_irq_vector(pdev, vlm->device_vqs);
	ret = virtio_lm_request_irq(irq, virtio_lm_config_interrupt, vlm->config_name, vlm);
	if (ret)
		goto err;
	vlm->config_irq = irq;
	return 0;

err:
	dev_err(&pdev->dev, "cannot set up interrupt %d of %d: %d\n", i, want, ret);
	return ret;
}

/**
 * virtio_lm_free_irqs - undo virtio_lm_request_irqs(), whole or in part
 * @vlm: the vDPA device; its interrupts are disabled
 *
 * free_irq() waits for handlers that have begun. A CPU may have taken an interrupt and not begun to
 * handle it, and a virtual CPU may stay there for as long as its host has other things to do. Freed
 * meanwhile, that interrupt is one without a handler, which x86 reports (common_interrupt() in
 * arch/x86/kernel/irq.c). An IPI finds each CPU when it is done with what it had. May sleep.
 */
void virtio_lm_free_irqs(struct virtio_lm_vdpa *vlm)
{
	int i;

	if (!vlm->vectors)
		return;

	kick_all_cpus_sync();

	if (vlm->config_irq >= 0)
		free_irq(vlm->config_irq, vlm);
	vlm->config_irq = -EINVAL;

	for (i = 0; i < vlm->device_vqs; i++) {
		if (vlm->vqs[i].irq >= 0)
			free_irq(vlm->vqs[i].irq, &vlm->vqs[i]);
		vlm->vqs[i].irq = -EINVAL;
	}

	/* What was still pending has come to a CPU by now; to find no handler is forgiven once */
	kick_all_cpus_sync();
	pci_free_irq_vectors(vlm->func->mdev.pci_dev);
	vlm->vectors = false;
}

/**
 * virtio_lm_enable_irqs - let the device interrupt
 * @vlm: the vDPA device; its lock is held
 *
 * Each virtqueue's vector is set when the queue is enabled; the configuration has no
 * other time than this.
 *
 * Return: 0 or a negative errno
 */
int virtio_lm_enable_irqs(struct virtio_lm_vdpa *vlm)
{
	struct virtio_pci_modern_device *mdev = &vlm->func->mdev;
	int i;

	if (vp_modern_config_vector(mdev, vlm->device_vqs) != vlm->device_vqs) {
		dev_err_ratelimited(&mdev->pci_dev->dev,
				    "device does not take vector %u for its configuration\n",
				    vlm->device_vqs);
		return -EIO;
	}

	for (i = 0; i < vlm->device_vqs; i++)
		enable_irq(vlm->vqs[i].irq);
	enable_irq(vlm->config_irq);
	vlm->irqs_on = true;
	return 0;
}

/**
 * virtio_lm_disable_irqs - undo virtio_lm_enable_irqs(), if it has succeeded
 * @vlm: the vDPA device; its lock is held
 *
 * When this returns no handler runs, nor will until virtio_lm_enable_irqs(). May sleep.
 */
void virtio_lm_disable_irqs(struct virtio_lm_vdpa *vlm)
{
	int i;

	if (!vlm->irqs_on)
		return;

	vlm->irqs_on = false;
	for (i = 0; i < vlm->device_vqs; i++)
		disable_irq(vlm->vqs[i].irq);
	disable_irq(vlm->config_irq);
}

/**
 * virtio_lm_set_callback - replace a callback
 * @callback: where
 * @cb: the new callback; one whose function is NULL removes the old one
 *
 * When this returns, the old callback is not running and will not be called again, so its
 * owner may free what it points to.
 */
void virtio_lm_set_callback(struct virtio_lm_callback *callback, const struct vdpa_callback *cb)
{
	unsigned long flags;

	spin_lock_irqsave(&callback->lock, flags);
	callback->cb = *cb;
	spin_unlock_irqrestore(&callback->lock, flags);
}

/**
 * virtio_lm_invoke - invoke a callback, if there is one
 * @callback: the callback
 *
 * Any context.
 */
void virtio_lm_invoke(struct virtio_lm_callback *callback)
{
	unsigned long flags;

	spin_lock_irqsave(&callback->lock, flags);
	if (callback->cb.callback) {
		callback->calls++;
		callback->cb.callback(callback->cb.private);
	}
	spin_unlock_irqrestore(&callback->lock, flags);
}
