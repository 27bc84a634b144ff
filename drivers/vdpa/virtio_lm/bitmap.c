// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The bitmap that the driver keeps for the device to log in (log.c). Bit p % 8 of its byte p / 8
 * stands for page p of the device's address space, so it is one array. It is in a window at the top
 * of what the IOMMU translates. There is room for a bit of every page below, and a VMM can map
 * nothing there.
 *
 * Ranges may be as large as the address space. A page of the bitmap is there only if somebody has
 * mapped what it stands for, writable and in a range: nothing else that the device can write has to
 * have a bit. A write elsewhere finds no bit to set, which the device reports as a fault. So
 * nothing that is missing goes unsaid, and what this takes is a page of 4 KiB for each 128 MiB in
 * which something is mapped.
 *
 * A page once there stays until the log ends, whatever is unmapped: its bits are still to be read.
 * A VMM that maps here and there in turn comes to the size of the window, and its memory is charged
 * for it.
 */
#include <linux/highmem.h>
#include <linux/iommu.h>
#include <linux/mm.h>

#include "virtio_lm_vdpa.h"

/* Pages of the device's address space that one page of the bitmap has bits for; in bytes */
#define VIRTIO_LM_BITMAP_SPAN	(PAGE_SIZE * BITS_PER_BYTE << VIRTIO_LM_PAGE_SHIFT)

/*
 * How many bits an address may have, whatever the aperture. Bit 47 is the sign of an address in a
 * first-level table of Intel's. In 6.12 an IOMMU of theirs that has 39 bits says that it has 57.
 */
static const u8 virtio_lm_iova_bits[] = { 47, 39 };

static int virtio_lm_try_page(struct iommu_domain *domain, u64 iova)
{
	struct page *page = alloc_page(VIRTIO_LM_MAP_GFP | __GFP_ZERO);
	int ret;

	if (!page)
		return -ENOMEM;
	ret = iommu_map(domain, iova, page_to_phys(page), PAGE_SIZE, IOMMU_CACHE | IOMMU_READ,
			VIRTIO_LM_MAP_GFP);
	if (!ret)
		iommu_unmap(domain, iova, PAGE_SIZE);
	__free_page(page);
	return ret;
}

/**
 * virtio_lm_place_bitmap - settle where the bitmap is in the device's address space
 * @vlm: the vDPA device, whose as_lock is held
 * @domain: the IOMMU domain of that, attached
 *
 * Whatever the IOMMU says, it is where a page can be mapped. A lack of memory says nothing of that:
 * the bitmap would be elsewhere than before, where the VMM may have something mapped.
 *
 * Return: 0, or an errno of iommu_map()
 */
int virtio_lm_place_bitmap(struct virtio_lm_vdpa *vlm, struct iommu_domain *domain)
{
	int ret = -EFAULT;
	u64 last, size;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(virtio_lm_iova_bits) && ret && ret != -ENOMEM; i++) {
		last = BIT_ULL(virtio_lm_iova_bits[i]) - 1;
		if (domain->geometry.force_aperture)
			last = min_t(u64, domain->geometry.aperture_end, last);
		size = PAGE_ALIGN((last >> VIRTIO_LM_PAGE_SHIFT) / BITS_PER_BYTE + 1);
		vlm->window.first = round_down(last + 1 - size, PAGE_SIZE);
		vlm->window.last = last;
		ret = virtio_lm_try_page(domain, round_down(last, PAGE_SIZE));
	}
	return ret;
}

static u64 virtio_lm_bitmap_iova(struct virtio_lm_vdpa *vlm, unsigned long index)
{
	return vlm->window.first + (u64)index * PAGE_SIZE;
}

static int virtio_lm_add_bitmap_page(struct virtio_lm_vdpa *vlm, unsigned long index)
{
	struct page *page;
	int ret;

	if (xa_load(&vlm->bitmap, index))
		return 0;

	page = alloc_page(VIRTIO_LM_MAP_GFP | __GFP_ZERO);
	if (!page)
		return -ENOMEM;
	ret = xa_reserve(&vlm->bitmap, index, VIRTIO_LM_MAP_GFP);
	if (ret)
		goto err_page;
	ret = iommu_map(vlm->domain, virtio_lm_bitmap_iova(vlm, index), page_to_phys(page),
			PAGE_SIZE, IOMMU_CACHE | IOMMU_READ | IOMMU_WRITE, VIRTIO_LM_MAP_GFP);
	if (ret)
		goto err_reserve;
	/* A reader does not take as_lock: from here on it finds the page */
	xa_store(&vlm->bitmap, index, page, VIRTIO_LM_MAP_GFP);
	return 0;

err_reserve:
	xa_release(&vlm->bitmap, index);
err_page:
	__free_page(page);
	return ret;
}

/**
 * virtio_lm_cover - have bits for what the device may write
 * @vlm: the vDPA device, whose as_lock is held, and whose domain is attached
 * @first: first byte that is mapped, or is about to be
 * @last: last byte
 *
 * Only what is in a range that is logged gets any.
 *
 * Return: 0, or -ENOMEM; bits that are there already stay
 */
int virtio_lm_cover(struct virtio_lm_vdpa *vlm, u64 first, u64 last)
{
	const struct vdpa_iova_range *range;
	unsigned long index, end;
	unsigned int i;
	int ret;

	for (i = 0; i < vlm->nranges; i++) {
		range = &vlm->ranges[i];
		if (range->last < first || range->first > last)
			continue;
		index = max(range->first, first) / VIRTIO_LM_BITMAP_SPAN;
		end = min(range->last, last) / VIRTIO_LM_BITMAP_SPAN;
		for (; index <= end; index++) {
			ret = virtio_lm_add_bitmap_page(vlm, index);
			if (ret)
				return ret;
			cond_resched();
		}
	}
	return 0;
}

/**
 * virtio_lm_free_bitmap - forget the ranges, their bits, and the memory of those
 * @vlm: the vDPA device, whose as_lock is held, and which does not log, or cannot write any more
 */
void virtio_lm_free_bitmap(struct virtio_lm_vdpa *vlm)
{
	unsigned long index;
	struct page *page;

	xa_for_each(&vlm->bitmap, index, page) {
		iommu_unmap(vlm->domain, virtio_lm_bitmap_iova(vlm, index), PAGE_SIZE);
		__free_page(page);
		cond_resched();
	}
	xa_destroy(&vlm->bitmap);
	kfree(vlm->ranges);
	vlm->ranges = NULL;
	vlm->nranges = 0;
}

#ifdef VHOST_VDPA_LOG_FAULT

/* The bits of a word, of which the first is that of @iova; those that were not taken stay set */
static int virtio_lm_give_bits(struct vdpa_dirty *dirty, u64 iova, u64 *bits)
{
	unsigned int first, n;
	int ret;

	while (*bits) {
		first = __ffs64(*bits);
		/* how many are set in a row */
		n = ~(*bits >> first) ? __ffs64(~(*bits >> first)) : BITS_PER_LONG_LONG;
		ret = dirty->set(dirty, iova + ((u64)first << VIRTIO_LM_PAGE_SHIFT),
				 (u64)n << VIRTIO_LM_PAGE_SHIFT);
		if (ret)
			return ret;
		*bits &= ~GENMASK_ULL(first + n - 1, first);
	}
	return 0;
}

/*
 * The device sets bits while this clears some. Each word is taken at once. The bits of one that
 * cannot be given are set again.
 */
static int virtio_lm_read_bitmap_page(struct page *page, u64 page_iova, u64 first, u64 last,
				      struct vdpa_dirty *dirty)
{
	const u64 span = (u64)BITS_PER_LONG_LONG << VIRTIO_LM_PAGE_SHIFT;
	atomic64_t *words = page_address(page), *word;
	u64 from, to, iova, mask, bits;
	int ret;

	from = max(first, page_iova);
	to = min(last, page_iova + VIRTIO_LM_BITMAP_SPAN - 1);
	for (iova = round_down(from, span); iova <= to; iova += span) {
		word = &words[(iova - page_iova) / span];
		if (!atomic64_read(word))
			continue;
		mask = GENMASK_ULL((min(to - iova, span - 1)) >> VIRTIO_LM_PAGE_SHIFT,
				   (max(from, iova) - iova) >> VIRTIO_LM_PAGE_SHIFT);
		/* little endian, as the device has it */
		bits = atomic64_fetch_andnot((__force u64)cpu_to_le64(mask), word);
		bits = le64_to_cpu((__force __le64)bits) & mask;
		ret = virtio_lm_give_bits(dirty, iova, &bits);
		if (ret) {
			atomic64_or((__force u64)cpu_to_le64(bits), word);
			return ret;
		}
	}
	return 0;
}

/**
 * virtio_lm_read_bitmap - take bits, and tell whose pages they are
 * @vlm: the vDPA device, whose log_lock is held
 * @first: first byte of the pages to tell of
 * @last: last byte
 * @dirty: who is told
 *
 * Return: 0, or the error of @dirty; the bits that it has not taken are still there
 */
int virtio_lm_read_bitmap(struct virtio_lm_vdpa *vlm, u64 first, u64 last,
			  struct vdpa_dirty *dirty)
{
	unsigned long index;
	struct page *page;
	int ret;

	xa_for_each_range(&vlm->bitmap, index, page, first / VIRTIO_LM_BITMAP_SPAN,
			  last / VIRTIO_LM_BITMAP_SPAN) {
		ret = virtio_lm_read_bitmap_page(page, index * VIRTIO_LM_BITMAP_SPAN, first, last,
						 dirty);
		if (ret)
			return ret;
		cond_resched();
	}
	return 0;
}

#endif /* VHOST_VDPA_LOG_FAULT */
