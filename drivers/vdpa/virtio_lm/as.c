// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Address spaces, of a vDPA device with a control virtqueue in software. There are two groups of
 * virtqueues, for the data and for the control virtqueue, and two address spaces, and the bus says
 * which group is bound to which.
 *
 * The device reaches the address space of the data group: that one's IOMMU domain is attached to
 * the function. The CPU reaches the address space of the control group, through its IOTLB. Each
 * space is mapped in both, because the groups are bound after that, too.
 *
 * A kernel that drives the device by itself, through virtio_vdpa, maps nothing here. It uses the
 * DMA API, hence the function's default domain.
 */
#include <linux/highmem.h>
#include <linux/iommu.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/virtio_config.h>
#include <uapi/linux/vhost_types.h>

#include "virtio_lm_vdpa.h"

/**
 * virtio_lm_init_as - begin with address spaces that are empty
 * @vlm: the vDPA device
 */
void virtio_lm_init_as(struct virtio_lm_vdpa *vlm)
{
	int i;

	/* vhost-vdpa has a limit to the number of mappings, and has mapped what comes here */
	for (i = 0; i < VIRTIO_LM_NUM_AS; i++)
		vhost_iotlb_init(&vlm->as[i].iotlb, U32_MAX, 0);
}

/* The first that needs a domain finds out what the machine lacks */
static int virtio_lm_get_domain(struct virtio_lm_vdpa *vlm, struct virtio_lm_as *as)
{
	struct device *dev = func_dev(vlm->func);
	struct iommu_domain *domain;

	if (as->domain)
		return 0;
	/* The errors of vhost-vdpa, where it attaches a domain of its own */
	if (!device_iommu_capable(dev, IOMMU_CAP_CACHE_COHERENCY))
		return -ENOTSUPP;

	domain = iommu_paging_domain_alloc(dev);
	if (IS_ERR(domain))
		return PTR_ERR(domain);
	as->domain = domain;
	return 0;
}

static void virtio_lm_detach(struct virtio_lm_vdpa *vlm)
{
	if (vlm->attached)
		iommu_detach_device(vlm->attached->domain, func_dev(vlm->func));
	vlm->attached = NULL;
}

/*
 * virtio_vdpa has the DMA API map its rings and buffers. Anybody else is a VMM, of whom nothing is
 * believed: what it has not mapped, the device does not reach.
 */
static bool virtio_lm_uses_dma_api(struct virtio_lm_vdpa *vlm)
{
	const struct device_driver *driver = READ_ONCE(vlm->vdpa.dev.driver);

	return driver && !strcmp(driver->name, "virtio_vdpa");
}

/**
 * virtio_lm_attach - give the device the address space that it is to reach
 * @vlm: the vDPA device, whose lock is held, and which does not run
 *
 * May sleep.
 *
 * Return: 0, -ENOTSUPP if the IOMMU is not cache coherent or there is none, -EINVAL if the function
 *	   shares its IOMMU group, or another errno
 */
int virtio_lm_attach(struct virtio_lm_vdpa *vlm)
{
	struct virtio_lm_as *as = NULL;
	int ret;

	if (!vlm->software_ctrl)
		return 0;
	if (!virtio_lm_uses_dma_api(vlm))
		as = &vlm->as[vlm->group_asid[VIRTIO_LM_GROUP_DATA]];
	if (vlm->attached == as)
		return 0;

	virtio_lm_detach(vlm);
	if (!as)
		return 0;

	ret = virtio_lm_get_domain(vlm, as);
	if (!ret)
		ret = iommu_attach_device(as->domain, func_dev(vlm->func));
	if (ret) {
		dev_err_ratelimited(&vlm->vdpa.dev, "cannot attach its IOMMU domain (%d)\n", ret);
		return ret;
	}
	vlm->attached = as;
	return 0;
}

static void virtio_lm_put_pages(u64 pa, u64 size)
{
	u64 pfn;

	for (pfn = PHYS_PFN(pa); pfn < PHYS_PFN(pa + size); pfn++)
		put_page(pfn_to_page(pfn));
}

/*
 * vhost-vdpa has pinned the pages, and gives them up before it has them unmapped. Somebody else's
 * memory would be in the IOTLB by then, if they were not held here as well.
 */
static int virtio_lm_get_pages(u64 pa, u64 size)
{
	u64 pfn;

	for (pfn = PHYS_PFN(pa); pfn < PHYS_PFN(pa + size); pfn++) {
		if (!try_get_page(pfn_to_page(pfn))) {
			virtio_lm_put_pages(pa, PFN_PHYS(pfn) - pa);
			return -ENOMEM;
		}
	}
	return 0;
}

static void virtio_lm_unmap_range(struct virtio_lm_as *as, u64 first, u64 last)
{
	struct vhost_iotlb_map *map;

	while ((map = vhost_iotlb_itree_first(&as->iotlb, first, last))) {
		iommu_unmap(as->domain, map->start, map->size);
		virtio_lm_put_pages(map->addr, map->size);
		vhost_iotlb_map_free(&as->iotlb, map);
		cond_resched();
	}
}

/**
 * virtio_lm_free_as - undo virtio_lm_init_as() and what was done since
 * @vlm: the vDPA device, which does not run and which the bus has forgotten
 */
void virtio_lm_free_as(struct virtio_lm_vdpa *vlm)
{
	int i;

	virtio_lm_detach(vlm);
	for (i = 0; i < VIRTIO_LM_NUM_AS; i++) {
		virtio_lm_unmap_range(&vlm->as[i], 0, U64_MAX);
		if (vlm->as[i].domain)
			iommu_domain_free(vlm->as[i].domain);
		vlm->as[i].domain = NULL;
	}
}

/*
 * The page at an address of the control group's, or NULL. In the DMA API's domain everything is the
 * kernel's own. Without an IOMMU its addresses are those of the memory.
 */
static struct page *virtio_lm_ctrl_page(struct virtio_lm_vdpa *vlm, u64 iova, unsigned int perm)
{
	struct device *dev = func_dev(vlm->func);
	struct vhost_iotlb_map *map;
	struct iommu_domain *domain;
	phys_addr_t pa;

	if (vlm->attached) {
		map = vhost_iotlb_itree_first(&vlm->as[vlm->group_asid[VIRTIO_LM_GROUP_CTRL]].iotlb,
					      iova, iova);
		if (!map || !(map->perm & perm))
			return NULL;
		pa = map->addr + (iova - map->start);
	} else {
		domain = iommu_get_domain_for_dev(dev);
		pa = domain ? iommu_iova_to_phys(domain, iova) : iova;
		if (!pa)
			return NULL;
	}
	return pfn_valid(PHYS_PFN(pa)) ? pfn_to_page(PHYS_PFN(pa)) : NULL;
}

/**
 * virtio_lm_ctrl_copy - copy between a buffer and the control group's address space
 * @vlm: the vDPA device, whose lock is held
 * @iova: address in that space
 * @buf: the buffer
 * @len: bytes to copy; with 0 nothing is, and nothing fails
 * @perm: VHOST_ACCESS_RO to read, VHOST_ACCESS_WO to write
 *
 * Return: 0, or -EFAULT if some of it is not mapped, or not with @perm
 */
int virtio_lm_ctrl_copy(struct virtio_lm_vdpa *vlm, u64 iova, void *buf, size_t len,
			unsigned int perm)
{
	struct page *page;
	size_t offset, n;

	for (; len; len -= n, buf += n, iova += n) {
		offset = offset_in_page(iova);
		n = min(len, PAGE_SIZE - offset);
		page = virtio_lm_ctrl_page(vlm, iova, perm);
		if (!page)
			return -EFAULT;
		if (perm == VHOST_ACCESS_WO)
			memcpy_to_page(page, offset, buf, n);
		else
			memcpy_from_page(buf, page, offset, n);
	}
	return 0;
}

/**
 * virtio_lm_ctrl_read16 - read 16 bits of the control group's address space at once
 * @vlm: the vDPA device, whose lock is held
 * @iova: their address, aligned
 * @value: set to them
 *
 * Return: 0, or -EFAULT if the address is not mapped for reading
 */
int virtio_lm_ctrl_read16(struct virtio_lm_vdpa *vlm, u64 iova, u16 *value)
{
	struct page *page = virtio_lm_ctrl_page(vlm, iova, VHOST_ACCESS_RO);
	void *at;

	if (!page)
		return -EFAULT;
	at = kmap_local_page(page);
	*value = le16_to_cpu(READ_ONCE(*(__le16 *)(at + offset_in_page(iova))));
	kunmap_local(at);
	return 0;
}

/**
 * virtio_lm_ctrl_write16 - write 16 bits of the control group's address space at once
 * @vlm: the vDPA device, whose lock is held
 * @iova: their address, aligned
 * @value: what to write
 *
 * Return: 0, or -EFAULT if the address is not mapped for writing
 */
int virtio_lm_ctrl_write16(struct virtio_lm_vdpa *vlm, u64 iova, u16 value)
{
	struct page *page = virtio_lm_ctrl_page(vlm, iova, VHOST_ACCESS_WO);
	void *at;

	if (!page)
		return -EFAULT;
	at = kmap_local_page(page);
	WRITE_ONCE(*(__le16 *)(at + offset_in_page(iova)), cpu_to_le16(value));
	kunmap_local(at);
	return 0;
}

static int virtio_lm_iommu_prot(u32 perm)
{
	return IOMMU_CACHE | (perm & VHOST_ACCESS_RO ? IOMMU_READ : 0) |
	       (perm & VHOST_ACCESS_WO ? IOMMU_WRITE : 0);
}

/* Of whole pages, pinned by vhost-vdpa, where nothing else is mapped */
int virtio_lm_dma_map(struct vdpa_device *vdpa, unsigned int asid, u64 iova, u64 size, u64 pa,
		      u32 perm, void *opaque)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct virtio_lm_as *as;
	int ret;

	if (asid >= VIRTIO_LM_NUM_AS || !size)
		return -EINVAL;
	as = &vlm->as[asid];

	guard(mutex)(&vlm->lock);

	ret = virtio_lm_get_domain(vlm, as);
	if (ret)
		return ret;
	ret = virtio_lm_get_pages(pa, size);
	if (ret)
		return ret;
	ret = iommu_map(as->domain, iova, pa, size, virtio_lm_iommu_prot(perm),
			GFP_KERNEL_ACCOUNT);
	if (ret)
		goto err_pages;
	ret = vhost_iotlb_add_range(&as->iotlb, iova, iova + size - 1, pa, perm);
	if (ret)
		goto err_iommu;
	return 0;

err_iommu:
	iommu_unmap(as->domain, iova, size);
err_pages:
	virtio_lm_put_pages(pa, size);
	return ret;
}

/* When this returns, neither the device nor the CPU writes there any more */
int virtio_lm_dma_unmap(struct vdpa_device *vdpa, unsigned int asid, u64 iova, u64 size)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);

	if (asid >= VIRTIO_LM_NUM_AS || !size)
		return -EINVAL;

	guard(mutex)(&vlm->lock);
	virtio_lm_unmap_range(&vlm->as[asid], iova, iova + size - 1);
	return 0;
}

/* The default is that nothing is mapped. vhost-vdpa has unmapped all of it before this */
int virtio_lm_reset_map(struct vdpa_device *vdpa, unsigned int asid)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);

	if (asid >= VIRTIO_LM_NUM_AS)
		return -EINVAL;

	guard(mutex)(&vlm->lock);
	virtio_lm_unmap_range(&vlm->as[asid], 0, U64_MAX);
	return 0;
}

/* Of a running device it would move the rings and the buffers that it works on */
int virtio_lm_set_group_asid(struct vdpa_device *vdpa, unsigned int group, unsigned int asid)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	unsigned int old;
	int ret = 0;

	if (group >= VIRTIO_LM_NUM_GROUPS || asid >= VIRTIO_LM_NUM_AS)
		return -EINVAL;

	guard(mutex)(&vlm->lock);

	if (vlm->status & VIRTIO_CONFIG_S_DRIVER_OK)
		return -EBUSY;
	old = vlm->group_asid[group];
	vlm->group_asid[group] = asid;
	if (group == VIRTIO_LM_GROUP_DATA)
		ret = virtio_lm_attach(vlm);
	if (ret)
		vlm->group_asid[group] = old;
	return ret;
}

/* vhost-vdpa has reset the device before it asks, so the domain of the data group is there */
struct vdpa_iova_range virtio_lm_get_iova_range(struct vdpa_device *vdpa)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct vdpa_iova_range range = { .first = 0, .last = U64_MAX };

	guard(mutex)(&vlm->lock);

	if (vlm->attached && vlm->attached->domain->geometry.force_aperture) {
		range.first = vlm->attached->domain->geometry.aperture_start;
		range.last = vlm->attached->domain->geometry.aperture_end;
	}
	return range;
}
