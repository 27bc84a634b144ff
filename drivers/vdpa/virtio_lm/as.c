// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Address spaces. What the device serves by itself is the data group of virtqueues. It reaches the
 * address space of that group: what the space's IOTLB holds is in an IOMMU domain, too, which is
 * attached to the function.
 *
 * A control virtqueue in software is a group of its own. The CPU reaches the address space of that
 * group, through its IOTLB. There are two address spaces then, and the bus says which group is
 * bound to which.
 *
 * A kernel that drives the device by itself, through virtio_vdpa, maps nothing here. It uses the
 * DMA API, hence the function's default domain.
 *
 * vhost-vdpa maps with the lock of the VMM's memory held. It does not wait for a device then: the
 * lock of the IOTLBs is taken for the time of an access only, inside of that of the vDPA device.
 */
#include <linux/highmem.h>
#include <linux/iommu.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/virtio_config.h>
#include <uapi/linux/vhost_types.h>

#include "virtio_lm_vdpa.h"

/* Pages that are held or given up before others get the CPU */
#define VIRTIO_LM_PAGES_AT_ONCE	4096

/**
 * virtio_lm_init_as - begin with address spaces that are empty
 * @vlm: the vDPA device
 */
void virtio_lm_init_as(struct virtio_lm_vdpa *vlm)
{
	int i;

	mutex_init(&vlm->as_lock);
	mutex_init(&vlm->log_lock);
	xa_init(&vlm->bitmap);
	/* vhost-vdpa has a limit to the number of mappings, and has mapped what comes here */
	for (i = 0; i < VIRTIO_LM_NUM_AS; i++)
		vhost_iotlb_init(&vlm->as[i], U32_MAX, 0);
}

/*
 * A mapping that fails half way may leave entries to pages that are given up then: Intel's IOMMU
 * in 6.12 does not tell the core what it had mapped when it ran out of memory for a table. Page by
 * page, as an unmapping that begins where nothing is mapped may take the neighbours along.
 */
static void virtio_lm_sweep(struct iommu_domain *domain, u64 iova, u64 size)
{
	u64 end = iova + size;

	for (; iova < end; iova += PAGE_SIZE) {
		if (iommu_iova_to_phys(domain, iova))
			iommu_unmap(domain, iova, PAGE_SIZE);
		cond_resched();
	}
}

static int virtio_lm_iommu_map(struct iommu_domain *domain, u64 iova, u64 size, u64 pa, u32 perm)
{
	int prot = IOMMU_CACHE | (perm & VHOST_ACCESS_RO ? IOMMU_READ : 0) |
		   (perm & VHOST_ACCESS_WO ? IOMMU_WRITE : 0);
	int ret;

	ret = iommu_map(domain, iova, pa, size, prot, VIRTIO_LM_MAP_GFP);
	if (ret)
		virtio_lm_sweep(domain, iova, size);
	return ret;
}

/* All of an address space that is before @end, which may be NULL */
static void virtio_lm_unfill_domain(struct iommu_domain *domain, struct vhost_iotlb *as,
				    struct vhost_iotlb_map *end)
{
	struct vhost_iotlb_map *map;

	for (map = vhost_iotlb_itree_first(as, 0, U64_MAX); map && map != end;
	     map = vhost_iotlb_itree_next(map, 0, U64_MAX))
		iommu_unmap(domain, map->start, map->size);
}

/* Not before it is attached: some IOMMUs settle only then what a domain is like */
static int virtio_lm_fill_domain(struct iommu_domain *domain, struct vhost_iotlb *as)
{
	struct vhost_iotlb_map *map;
	int ret;

	for (map = vhost_iotlb_itree_first(as, 0, U64_MAX); map;
	     map = vhost_iotlb_itree_next(map, 0, U64_MAX)) {
		ret = virtio_lm_iommu_map(domain, map->start, map->size, map->addr, map->perm);
		if (ret) {
			virtio_lm_unfill_domain(domain, as, map);
			return ret;
		}
	}
	return 0;
}

static void virtio_lm_detach(struct virtio_lm_vdpa *vlm)
{
	if (!vlm->attached)
		return;
	iommu_detach_device(vlm->domain, func_dev(vlm->func));
	virtio_lm_free_bitmap(vlm);
	virtio_lm_unfill_domain(vlm->domain, vlm->attached, NULL);
	iommu_domain_free(vlm->domain);
	vlm->domain = NULL;
	vlm->attached = NULL;
}

static int virtio_lm_attach_as(struct virtio_lm_vdpa *vlm, struct vhost_iotlb *as)
{
	struct device *dev = func_dev(vlm->func);
	struct iommu_domain *domain;
	int ret;

	/* The error of vhost-vdpa, where it attaches a domain of its own */
	if (!device_iommu_capable(dev, IOMMU_CAP_CACHE_COHERENCY))
		return -ENOTSUPP;

	domain = iommu_paging_domain_alloc(dev);
	if (IS_ERR(domain))
		return PTR_ERR(domain);
	ret = iommu_attach_device(domain, dev);
	if (ret)
		goto err_free;
	ret = virtio_lm_place_bitmap(vlm, domain);
	if (ret)
		goto err_detach;
	ret = virtio_lm_fill_domain(domain, as);
	if (ret)
		goto err_detach;

	vlm->domain = domain;
	vlm->attached = as;
	return 0;

err_detach:
	iommu_detach_device(domain, dev);
err_free:
	iommu_domain_free(domain);
	return ret;
}

/*
 * virtio_vdpa has the DMA API map its rings and buffers. Anybody else is a VMM, of whom nothing is
 * believed: what it has not mapped, neither the device nor the CPU reaches.
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
 * If that fails, the device would reach the kernel's own memory. So it loses bus mastering, needs a
 * reset, and cannot be started before one that succeeds in this. May sleep.
 *
 * Return: 0, -ENOTSUPP if the IOMMU is not cache coherent or there is none, -EINVAL if the function
 *	   shares its IOMMU group, or another errno
 */
int virtio_lm_attach(struct virtio_lm_vdpa *vlm)
{
	struct vhost_iotlb *as = NULL;
	int ret;

	guard(mutex)(&vlm->as_lock);

	vlm->dma_api = virtio_lm_uses_dma_api(vlm);
	if (!vlm->dma_api)
		as = &vlm->as[vlm->group_asid[VIRTIO_LM_GROUP_DATA]];
	if (vlm->attached == as)
		return 0;

	virtio_lm_detach(vlm);
	ret = as ? virtio_lm_attach_as(vlm, as) : 0;
	if (ret) {
		pci_clear_master(vlm->func->mdev.pci_dev);
		dev_err_ratelimited(&vlm->vdpa.dev, "cannot attach its IOMMU domain (%d)\n", ret);
		vlm->needs_reset = true;
	}
	return ret;
}

/**
 * virtio_lm_is_attached - does the device reach the address space that its data group is bound to
 * @vlm: the vDPA device, whose lock is held
 *
 * Return: true if so, or if that is not this driver's to see to
 */
bool virtio_lm_is_attached(struct virtio_lm_vdpa *vlm)
{
	if (vlm->dma_api)
		return true;

	guard(mutex)(&vlm->as_lock);
	return vlm->attached == &vlm->as[vlm->group_asid[VIRTIO_LM_GROUP_DATA]];
}

static void virtio_lm_put_pages(u64 pa, u64 size)
{
	u64 pfn;

	for (pfn = PHYS_PFN(pa); pfn < PHYS_PFN(pa + size); pfn++) {
		put_page(pfn_to_page(pfn));
		if (!(pfn % VIRTIO_LM_PAGES_AT_ONCE))
			cond_resched();
	}
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
		if (!(pfn % VIRTIO_LM_PAGES_AT_ONCE))
			cond_resched();
	}
	return 0;
}

static void virtio_lm_unmap_range(struct virtio_lm_vdpa *vlm, struct vhost_iotlb *as, u64 first,
				  u64 last)
{
	struct vhost_iotlb_map *map;

	while ((map = vhost_iotlb_itree_first(as, first, last))) {
		if (vlm->attached == as)
			iommu_unmap(vlm->domain, map->start, map->size);
		virtio_lm_put_pages(map->addr, map->size);
		vhost_iotlb_map_free(as, map);
	}
}

/**
 * virtio_lm_free_as - undo virtio_lm_init_as() and what was done since
 * @vlm: the vDPA device, which does not run and which the bus has forgotten
 */
void virtio_lm_free_as(struct virtio_lm_vdpa *vlm)
{
	int i;

	guard(mutex)(&vlm->as_lock);

	virtio_lm_detach(vlm);
	for (i = 0; i < VIRTIO_LM_NUM_AS; i++)
		virtio_lm_unmap_range(vlm, &vlm->as[i], 0, U64_MAX);
}

/*
 * The page at an address of the control group's, or NULL. In the DMA API's domain everything is the
 * kernel's own. Without an IOMMU its addresses are those of the memory.
 */
static struct page *virtio_lm_ctrl_page(struct virtio_lm_vdpa *vlm, u64 iova, unsigned int perm)
{
	struct vhost_iotlb_map *map;
	struct iommu_domain *domain;
	phys_addr_t pa;

	if (vlm->dma_api) {
		domain = iommu_get_domain_for_dev(func_dev(vlm->func));
		pa = domain ? iommu_iova_to_phys(domain, iova) : iova;
		if (!pa)
			return NULL;
	} else {
		map = vhost_iotlb_itree_first(&vlm->as[vlm->group_asid[VIRTIO_LM_GROUP_CTRL]],
					      iova, iova);
		if (!map || !(map->perm & perm))
			return NULL;
		pa = map->addr + (iova - map->start);
	}
	return pfn_valid(PHYS_PFN(pa)) ? pfn_to_page(PHYS_PFN(pa)) : NULL;
}

/* What the CPU writes is in no bitmap */
static void virtio_lm_log_ctrl(struct virtio_lm_vdpa *vlm)
{
	if (vlm->ranges &&
	    vlm->group_asid[VIRTIO_LM_GROUP_CTRL] == vlm->group_asid[VIRTIO_LM_GROUP_DATA])
		vlm->log_fault = true;
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

	guard(mutex)(&vlm->as_lock);

	if (perm == VHOST_ACCESS_WO && len)
		virtio_lm_log_ctrl(vlm);
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
	struct page *page;
	void *at;

	guard(mutex)(&vlm->as_lock);

	page = virtio_lm_ctrl_page(vlm, iova, VHOST_ACCESS_RO);
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
	struct page *page;
	void *at;

	guard(mutex)(&vlm->as_lock);

	virtio_lm_log_ctrl(vlm);
	page = virtio_lm_ctrl_page(vlm, iova, VHOST_ACCESS_WO);
	if (!page)
		return -EFAULT;
	at = kmap_local_page(page);
	WRITE_ONCE(*(__le16 *)(at + offset_in_page(iova)), cpu_to_le16(value));
	kunmap_local(at);
	return 0;
}

/**
 * virtio_lm_set_ranges - have bits for the ranges that are to be logged, and forget those before
 * @vlm: the vDPA device, which has its domain
 * @ranges: in ascending order
 * @nranges: how many
 *
 * Return: 0, or -ENOMEM; the ranges are as they were then
 */
int virtio_lm_set_ranges(struct virtio_lm_vdpa *vlm, const struct vdpa_iova_range *ranges,
			 unsigned int nranges)
{
	struct vdpa_iova_range *copy;
	struct vhost_iotlb_map *map;
	int ret = 0;

	copy = kmemdup_array(ranges, nranges, sizeof(*ranges), GFP_KERNEL_ACCOUNT);
	if (!copy)
		return -ENOMEM;

	guard(mutex)(&vlm->as_lock);

	swap(vlm->ranges, copy);
	swap(vlm->nranges, nranges);
	for (map = vhost_iotlb_itree_first(vlm->attached, 0, U64_MAX); map && !ret;
	     map = vhost_iotlb_itree_next(map, 0, U64_MAX))
		if (map->perm & VHOST_ACCESS_WO)
			ret = virtio_lm_cover(vlm, map->start, map->last);
	if (ret) {
		swap(vlm->ranges, copy);
		swap(vlm->nranges, nranges);
	}
	kfree(copy);
	if (!vlm->ranges)
		virtio_lm_free_bitmap(vlm);
	return ret;
}

/* The bits come first: the device may write as soon as it can */
static int virtio_lm_map_logged(struct virtio_lm_vdpa *vlm, u64 iova, u64 size, u64 pa, u32 perm)
{
	int ret;

	if (perm & VHOST_ACCESS_WO) {
		ret = virtio_lm_cover(vlm, iova, iova + size - 1);
		if (ret)
			return ret;
	}
	return virtio_lm_iommu_map(vlm->domain, iova, size, pa, perm);
}

/**
 * virtio_lm_dma_map - map memory into an address space
 * @vdpa: the vDPA device
 * @asid: the address space
 * @iova: address in it, where nothing else is mapped
 * @size: in bytes; whole pages
 * @pa: physical address of the memory, which vhost-vdpa has pinned
 * @perm: VHOST_ACCESS_RO, VHOST_ACCESS_WO or VHOST_ACCESS_RW
 * @opaque: not used
 *
 * Each page is held until it is unmapped. The lock of the vDPA device is not taken: the lock of the
 * VMM's memory is held, and must not wait for a device. May sleep.
 *
 * Return: 0, -EINVAL if there is no such address space, @size is 0 or @perm is none of these,
 *	   -ENOMEM, or another errno of vhost_iotlb_add_range() or iommu_map(); after an error
 *	   nothing is mapped
 */
int virtio_lm_dma_map(struct vdpa_device *vdpa, unsigned int asid, u64 iova, u64 size, u64 pa,
		      u32 perm, void *opaque)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct vhost_iotlb *as;
	int ret;

	/* No IOMMU maps what nobody may use: later, it would keep the device from this space */
	if (asid >= VIRTIO_LM_NUM_AS || !size || !(perm & VHOST_ACCESS_RW))
		return -EINVAL;
	as = &vlm->as[asid];

	guard(mutex)(&vlm->as_lock);

	ret = virtio_lm_get_pages(pa, size);
	if (ret)
		return ret;
	ret = vhost_iotlb_add_range(as, iova, iova + size - 1, pa, perm);
	if (ret)
		goto err_pages;
	if (vlm->attached == as)
		ret = virtio_lm_map_logged(vlm, iova, size, pa, perm);
	if (ret)
		goto err_iotlb;
	return 0;

err_iotlb:
	vhost_iotlb_del_range(as, iova, iova + size - 1);
err_pages:
	virtio_lm_put_pages(pa, size);
	return ret;
}

/**
 * virtio_lm_dma_unmap - unmap a range of an address space
 * @vdpa: the vDPA device
 * @asid: the address space
 * @iova: first address of the range
 * @size: of the range in bytes
 *
 * When this returns, neither the device nor the CPU writes there any more. A mapping that is partly
 * in the range goes as a whole. The lock of the vDPA device is not taken. May sleep.
 *
 * Return: 0, also if nothing was mapped, or -EINVAL if there is no such address space or @size is 0
 */
int virtio_lm_dma_unmap(struct vdpa_device *vdpa, unsigned int asid, u64 iova, u64 size)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);

	if (asid >= VIRTIO_LM_NUM_AS || !size)
		return -EINVAL;

	guard(mutex)(&vlm->as_lock);
	virtio_lm_unmap_range(vlm, &vlm->as[asid], iova, iova + size - 1);
	return 0;
}

/**
 * virtio_lm_reset_map - unmap all of an address space
 * @vdpa: the vDPA device
 * @asid: the address space
 *
 * The default is that nothing is mapped. vhost-vdpa has unmapped all of it before this, which is
 * when the VMM closes the device; so the MAC address that it has written is forgotten here. The
 * domain goes, too: its tables would stay for as long as it does, and the next VMM's reset attaches
 * a new one. A device that did not stop keeps it, or it would reach the kernel's memory. May sleep.
 *
 * Return: 0, or -EINVAL if there is no such address space
 */
int virtio_lm_reset_map(struct vdpa_device *vdpa, unsigned int asid)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);

	if (asid >= VIRTIO_LM_NUM_AS)
		return -EINVAL;

	guard(mutex)(&vlm->lock);
	virtio_lm_forget_mac(vlm);
	guard(mutex)(&vlm->as_lock);
	virtio_lm_unmap_range(vlm, &vlm->as[asid], 0, U64_MAX);
	if (vlm->attached == &vlm->as[asid] && !vlm->needs_reset)
		virtio_lm_detach(vlm);
	return 0;
}

/**
 * virtio_lm_set_group_asid - bind a group of virtqueues to an address space
 * @vdpa: the vDPA device
 * @group: the group
 * @asid: the address space
 *
 * Of a running device it would move its rings and buffers, of one that logs the bitmap. A start
 * that failed half way has left queues enabled in the device, which would reach the kernel's own
 * memory on the way. If the device cannot be given the other address space, it needs a reset, see
 * virtio_lm_attach(). May sleep.
 *
 * Return: 0, -EINVAL if there is no such group or address space, -EBUSY if the device runs or logs
 *	   or needs a reset, or as virtio_lm_attach(); the group is bound as before then
 */
int virtio_lm_set_group_asid(struct vdpa_device *vdpa, unsigned int group, unsigned int asid)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	unsigned int old;
	int ret = 0;

	if (group >= VIRTIO_LM_NUM_GROUPS || asid >= VIRTIO_LM_NUM_AS)
		return -EINVAL;

	guard(mutex)(&vlm->lock);

	if (vlm->status & VIRTIO_CONFIG_S_DRIVER_OK || vlm->ranges ||
	    (group == VIRTIO_LM_GROUP_DATA && vlm->needs_reset))
		return -EBUSY;
	old = vlm->group_asid[group];
	vlm->group_asid[group] = asid;
	if (group == VIRTIO_LM_GROUP_DATA)
		ret = virtio_lm_attach(vlm);
	if (ret)
		vlm->group_asid[group] = old;
	return ret;
}

/**
 * virtio_lm_get_iova_range - which addresses the device can use
 * @vdpa: the vDPA device
 *
 * vhost-vdpa has reset the device before it asks, so the domain of the data group is there. Room
 * for the bitmap is kept whether the kernel has a log or not: a guest that migrates finds the
 * same range. May sleep.
 *
 * Return: the first address and the last one; all there are where there is no domain
 */
struct vdpa_iova_range virtio_lm_get_iova_range(struct vdpa_device *vdpa)
{
	struct virtio_lm_vdpa *vlm = to_vlm(vdpa);
	struct vdpa_iova_range range = { .first = 0, .last = U64_MAX };

	guard(mutex)(&vlm->as_lock);

	if (!vlm->domain)
		return range;
	if (vlm->domain->geometry.force_aperture)
		range.first = vlm->domain->geometry.aperture_start;
	range.last = vlm->window.first - 1;
	return range;
}
