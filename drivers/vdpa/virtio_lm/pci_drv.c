// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The PCI side of virtio_lm_vdpa: which functions it claims, what it takes from
 * them at probe and gives back at remove.
 */
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "virtio_lm_vdpa.h"

/* virtio 1.3, 4.1.2: 0x1040 + virtio device ID. A transitional ID would be a legacy device too */
#define VIRTIO_LM_PCI_DEVICE_ID		(0x1040 + VIRTIO_ID_NET)

/* What the function says of itself, once and for all; nothing of it is believed unchecked */
static int virtio_lm_identify(struct virtio_lm_func *func)
{
	struct virtio_pci_modern_device *mdev = &func->mdev;
	u64 features;
	u16 num_queues;
	int ret;

	/*
	 * Without ACCESS_PLATFORM the device would take a VMM's addresses for this machine's
	 * physical ones and write past the IOMMU; VERSION_1 is what makes its rings and the
	 * LM block little endian.
	 */
	features = vp_modern_get_features(mdev);
	if (!(features & BIT_ULL(VIRTIO_F_ACCESS_PLATFORM)) ||
	    !(features & BIT_ULL(VIRTIO_F_VERSION_1))) {
		dev_err(func_dev(func),
			"device features 0x%llx lack VERSION_1 or ACCESS_PLATFORM: in QEMU, set iommu_platform=on\n",
			features);
		return -EINVAL;
	}
	func->features = virtio_lm_usable_features(features, func->caps);

	ret = virtio_lm_negotiate(func, func->features);
	if (ret)
		return ret;
	num_queues = vp_modern_get_num_queues(mdev);
	ret = virtio_lm_reset_device(func);
	if (ret)
		return ret;

	if (num_queues < 2) {
		dev_err(func_dev(func), "device has %u virtqueues, a NIC needs two\n", num_queues);
		return -EINVAL;
	}
	func->num_queues = min(num_queues, VIRTIO_LM_MAX_VQS);
	return 0;
}

static int virtio_lm_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct virtio_lm_func *func;
	int ret;

	func = kzalloc(sizeof(*func), GFP_KERNEL);
	if (!func)
		return -ENOMEM;
	func->mdev.pci_dev = pdev;
	mutex_init(&func->lock);
	pci_set_drvdata(pdev, func);

	ret = pci_enable_device(pdev);
	if (ret)
		goto err_free;

	ret = pci_save_state(pdev);
	if (ret)
		goto err_disable;
	func->saved = pci_store_saved_state(pdev);
	if (!func->saved) {
		ret = -ENOMEM;
		goto err_disable;
	}

	ret = vp_modern_probe(&func->mdev);
	if (ret)
		goto err_saved;

	/* driver_override brings any function here, whatever the ID table says */
	if (func->mdev.id.device != VIRTIO_ID_NET || !func->mdev.device) {
		dev_err(&pdev->dev, "virtio device type %u: not a network device\n",
			func->mdev.id.device);
		ret = -ENODEV;
		goto err_modern;
	}

	ret = virtio_lm_map(func);
	if (ret)
		goto err_modern;
	virtio_lm_find_mailbox(func);

	/* Whoever drove it before may have left it in any state */
	ret = virtio_lm_reset_device(func);
	if (ret)
		goto err_unmap;

	ret = virtio_lm_identify(func);
	if (ret)
		goto err_master;

	ret = virtio_lm_mgmt_register(func);
	if (ret)
		goto err_master;

	return 0;

err_master:
	pci_clear_master(pdev);
err_unmap:
	virtio_lm_unmap(func);
err_modern:
	vp_modern_remove(&func->mdev);
err_saved:
	kfree(func->saved);
err_disable:
	pci_disable_device(pdev);
err_free:
	kfree(func);
	return ret;
}

/*
 * Works with the device gone: whatever is read is not used for anything but an early end
 * of a wait. If a process has /dev/vhost-vdpa-N open, vhost-vdpa keeps us here until it
 * closes it; its ioctls go on meanwhile and fail.
 */
static void virtio_lm_remove(struct pci_dev *pdev)
{
	struct virtio_lm_func *func = pci_get_drvdata(pdev);

	pci_disable_sriov(pdev);
	vdpa_mgmtdev_unregister(&func->mgmt);	/* deletes the vDPA device too */
	pci_clear_master(pdev);
	virtio_lm_unmap(func);
	vp_modern_remove(&func->mdev);
	kfree(func->saved);
	pci_disable_device(pdev);
	kfree(func);
}

/*
 * Virtio 1.3, 6: a driver that has once negotiated SR_IOV, up to FEATURES_OK, may have virtual
 * functions whatever is reset after that. probe() has, see virtio_lm_identify(); whether a vDPA
 * device is made of this function, offers the feature, or runs, is no matter of theirs.
 */
static int virtio_lm_sriov_configure(struct pci_dev *pdev, int num_vfs)
{
	struct virtio_lm_func *func = pci_get_drvdata(pdev);

	if (!(func->features & BIT_ULL(VIRTIO_F_SR_IOV))) {
		dev_info(&pdev->dev, "device does not offer SR_IOV (0x%llx): no virtual functions\n",
			 BIT_ULL(VIRTIO_F_SR_IOV));
		return -EOPNOTSUPP;
	}
	return pci_sriov_configure_simple(pdev, num_vfs);
}

/*
 * Sleep in which the device loses its power, and all that its driver has told it: -EBUSY if
 * there is anything to lose. Tasks are frozen, so nobody adds or deletes the vDPA device.
 */
static int virtio_lm_pm_freeze(struct device *dev)
{
	struct virtio_lm_func *func = dev_get_drvdata(dev);
	u8 status = func->vlm ? func->vlm->status : 0;

	if (!status)
		return 0;
	dev_err(dev, "vDPA device in use (status 0x%02x): end its driver, or suspend to idle\n",
		status);
	return -EBUSY;
}

/*
 * While the machine is idle the device keeps its power, and its driver finds it as it was. The
 * PCI core leaves a function in D0 whose state was saved here (pci_pm_suspend_noirq() in
 * drivers/pci/pci-driver.c), and would put it into D3hot otherwise, from which it comes back
 * reset. Without sleep operations it would clear bus mastering: QEMU's virtio-pci takes
 * DRIVER_OK away with that, for good.
 */
static int virtio_lm_pm_suspend(struct device *dev)
{
	if (pm_suspend_target_state != PM_SUSPEND_TO_IDLE)
		return virtio_lm_pm_freeze(dev);
	return pci_save_state(to_pci_dev(dev));
}

static const struct dev_pm_ops virtio_lm_pm_ops = {
	.suspend	= pm_sleep_ptr(virtio_lm_pm_suspend),
	.freeze		= pm_sleep_ptr(virtio_lm_pm_freeze),
};

/*
 * Before a reset through sysfs, or of another function of the bus. Nobody is told before it is
 * done: a VMM would set the device up again, for that reset to take away.
 */
static void virtio_lm_reset_prepare(struct pci_dev *pdev)
{
	struct virtio_lm_func *func = pci_get_drvdata(pdev);

	guard(mutex)(&func->lock);
	if (func->vlm)
		virtio_lm_mark_external_reset(func->vlm);
}

/* The end of a reset, and of a recovery */
static void virtio_lm_reset_done(struct pci_dev *pdev)
{
	struct virtio_lm_func *func = pci_get_drvdata(pdev);

	guard(mutex)(&func->lock);
	if (func->vlm)
		virtio_lm_notify_reset(func->vlm);
}

/*
 * After an error that has cost no more than what was on its way (pci_channel_io_normal) the device
 * knows best whether it can go on: it sets NEEDS_RESET. After another one the PCI core resets the
 * link, hence the function, whose registers read as those of one that is gone from then on. Newer
 * kernels come here once more when a recovery has failed, also one that has reset nothing.
 */
static pci_ers_result_t virtio_lm_error_detected(struct pci_dev *pdev, pci_channel_state_t state)
{
	switch (state) {
	case pci_channel_io_normal:
		return PCI_ERS_RESULT_CAN_RECOVER;
	case pci_channel_io_frozen:
		virtio_lm_reset_prepare(pdev);
		return PCI_ERS_RESULT_NEED_RESET;
	default:
		virtio_lm_reset_done(pdev);
		return PCI_ERS_RESULT_DISCONNECT;
	}
}

/* In older kernels whoever else has reset the function since probe has used up what was saved */
static pci_ers_result_t virtio_lm_slot_reset(struct pci_dev *pdev)
{
	struct virtio_lm_func *func = pci_get_drvdata(pdev);

	guard(mutex)(&func->lock);

	if (pci_load_saved_state(pdev, func->saved))
		return PCI_ERS_RESULT_DISCONNECT;
	pci_restore_state(pdev);

	/* Gives it bus mastering, which it need not have had when its state was saved */
	if (!(func->vlm ? virtio_lm_recover(func->vlm) : virtio_lm_reset_device(func)))
		return PCI_ERS_RESULT_RECOVERED;

	if (func->vlm)
		virtio_lm_notify_reset(func->vlm);
	return PCI_ERS_RESULT_DISCONNECT;
}

static const struct pci_error_handlers virtio_lm_err_handler = {
	.error_detected	= virtio_lm_error_detected,
	.slot_reset	= virtio_lm_slot_reset,
	.resume		= virtio_lm_reset_done,
	.reset_prepare	= virtio_lm_reset_prepare,
	.reset_done	= virtio_lm_reset_done,
};

static const struct pci_device_id virtio_lm_id_table[] = {
	{ PCI_DEVICE_SUB(PCI_VENDOR_ID_REDHAT_QUMRANET, VIRTIO_LM_PCI_DEVICE_ID,
			 PCI_ANY_ID, VIRTIO_LM_SUBSYS_DEVICE_ID) },
	{ }
};
MODULE_DEVICE_TABLE(pci, virtio_lm_id_table);

static struct pci_driver virtio_lm_pci_driver = {
	.name		= VIRTIO_LM_DRIVER_NAME,
	.id_table	= virtio_lm_id_table,
	.probe		= virtio_lm_probe,
	.remove		= virtio_lm_remove,
	.err_handler	= &virtio_lm_err_handler,
	.sriov_configure = virtio_lm_sriov_configure,
	.driver.pm	= pm_sleep_ptr(&virtio_lm_pm_ops),
};
module_pci_driver(virtio_lm_pci_driver);

MODULE_DESCRIPTION("vDPA driver for virtio-net PCI functions with live-migration registers");
MODULE_LICENSE("GPL");
#ifdef VIRTIO_LM_VDPA_VERSION
MODULE_VERSION(VIRTIO_LM_VDPA_VERSION);
#endif
