// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The control virtqueue in software: a split ring that the CPU serves. A command is copied out of
 * the address space of the control group, held against what the vDPA device was given, executed
 * through the function's mailbox, and acked.
 *
 * What is in the ring is a VMM's or a guest's to write, also while it is read. So each word is read
 * once, and each walk is bounded. All of it runs under the lock of the vDPA device; whoever has
 * stopped the queue under that lock knows that no command is under way.
 *
 * Not vringh: Debian's kernels are built without it (VHOST_RING), and have vhost_iotlb.
 */
#include <linux/etherdevice.h>
#include <linux/slab.h>
#include <linux/virtio_byteorder.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <uapi/linux/vhost_types.h>

#include "virtio_lm_vdpa.h"

/* Commands that are served in a row */
#define VIRTIO_LM_CTRL_BATCH	64

/**
 * virtio_lm_is_ctrl - is this virtqueue the control virtqueue in software
 * @vlm: the vDPA device
 * @idx: index of the virtqueue
 *
 * It comes after all pairs, and after the first one where the driver has negotiated neither MQ nor
 * RSS (virtio 1.3, 5.1.2). Until there are features, the answer is for all that are offered.
 *
 * Return: true if so
 */
bool virtio_lm_is_ctrl(const struct virtio_lm_vdpa *vlm, u16 idx)
{
	u64 features = READ_ONCE(vlm->features) ?: vlm->offer;

	if (!vlm->software_ctrl || !(features & BIT_ULL(VIRTIO_NET_F_CTRL_VQ)))
		return false;
	return idx == (virtio_lm_multiqueue(features) ? vlm->device_vqs : 2);
}

/**
 * virtio_lm_check_ctrl - can the control virtqueue be enabled as the bus has set it up
 * @vq: its settings; what is to be said of any virtqueue was found to be right
 *
 * Virtio 1.3, 2.7: the alignment. Words of 16 bits are read and written at once here.
 *
 * Return: 0 or -EINVAL
 */
int virtio_lm_check_ctrl(const struct virtio_lm_vq *vq)
{
	return IS_ALIGNED(vq->desc, VRING_DESC_ALIGN_SIZE) &&
	       IS_ALIGNED(vq->driver, VRING_AVAIL_ALIGN_SIZE) &&
	       IS_ALIGNED(vq->device, VRING_USED_ALIGN_SIZE) ? 0 : -EINVAL;
}

/**
 * virtio_lm_kick_ctrl - have the control virtqueue looked at
 * @vlm: the vDPA device
 *
 * Any context. A kick of a queue that does not run, or of a device without one, has no effect.
 */
void virtio_lm_kick_ctrl(struct virtio_lm_vdpa *vlm)
{
	if (vlm->ctrl.wq)
		queue_work(vlm->ctrl.wq, &vlm->ctrl.work);
}

/**
 * virtio_lm_enable_ctrl - enable the control virtqueue
 * @vlm: the vDPA device, whose lock is held
 * @vq: its settings, which were checked
 *
 * It is served from when it runs, see virtio_lm_run_vq().
 */
void virtio_lm_enable_ctrl(struct virtio_lm_vdpa *vlm, struct virtio_lm_vq *vq)
{
	WRITE_ONCE(vlm->ctrl.vq, vq);
	virtio_lm_set_ctrl_idx(vlm, vq->has_state ? vq->state.split.avail_index : 0);
	virtio_lm_kick_ctrl(vlm);
}

/**
 * virtio_lm_disable_ctrl - disable the control virtqueue
 * @vlm: the vDPA device, whose lock is held
 *
 * Its settings keep where it stood.
 */
void virtio_lm_disable_ctrl(struct virtio_lm_vdpa *vlm)
{
	struct virtio_lm_vq *vq = vlm->ctrl.vq;

	vq->state.split.avail_index = vlm->ctrl.avail_idx;
	vq->has_state = true;
	vq->packed = false;
	vq->enabled = false;
	WRITE_ONCE(vlm->ctrl.vq, NULL);
}

/**
 * virtio_lm_set_ctrl_idx - say where the control virtqueue goes on
 * @vlm: the vDPA device, whose lock is held
 * @avail_idx: index of the next available descriptor chain; there is none in flight
 */
void virtio_lm_set_ctrl_idx(struct virtio_lm_vdpa *vlm, u16 avail_idx)
{
	vlm->ctrl.avail_idx = avail_idx;
	vlm->ctrl.used_idx = avail_idx;
}

/* Virtio 1.3, 2.7.6 and 2.7.8: where the words are that only one side writes */
static u64 virtio_lm_avail(const struct virtio_lm_vq *vq, u32 word)
{
	return vq->driver + word * sizeof(__le16);
}

static u64 virtio_lm_used_idx(const struct virtio_lm_vq *vq)
{
	return vq->device + offsetof(struct vring_used, idx);
}

/* Where a driver with EVENT_IDX finds from which index on a kick is wanted (virtio 1.3, 2.7.10) */
static u64 virtio_lm_avail_event(const struct virtio_lm_vq *vq)
{
	return vq->device + offsetof(struct vring_used, ring) +
	       vq->num * sizeof(struct vring_used_elem);
}

static bool virtio_lm_has_event_idx(const struct virtio_lm_vdpa *vlm)
{
	return vlm->features & BIT_ULL(VIRTIO_RING_F_EVENT_IDX);
}

/* An indirect table is the last descriptor of its chain, and no longer than a chain may be */
static int virtio_lm_check_indirect(struct virtio_lm_vdpa *vlm, const struct vring_desc *desc)
{
	u16 flags = __virtio16_to_cpu(true, desc->flags);
	u32 len = __virtio32_to_cpu(true, desc->len);

	if (!(vlm->features & BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC)) ||
	    flags & VRING_DESC_F_NEXT || !len || len % sizeof(*desc) ||
	    len / sizeof(*desc) > vlm->ctrl.vq->num)
		return -EINVAL;
	return 0;
}

/*
 * Copy the command of a chain, as far as the mailbox takes it. Its whole length is told, and where
 * the ack goes, which is in the first byte that the device may write.
 */
static int virtio_lm_read_chain(struct virtio_lm_vdpa *vlm, u16 head, u64 *len, u64 *ack)
{
	struct virtio_lm_vq *vq = vlm->ctrl.vq;
	u32 room = vlm->func->ctrl_size, num = vq->num, seen = 0, n;
	bool indirect = false, writable = false;
	u64 table = vq->desc;
	struct vring_desc desc;
	u16 flags, i = head;
	u8 byte;
	int ret;

	*len = 0;
	for (;;) {
		if (i >= num || seen++ == num)
			return -ELOOP;
		ret = virtio_lm_ctrl_copy(vlm, table + i * sizeof(desc), &desc, sizeof(desc),
					  VHOST_ACCESS_RO);
		if (ret)
			return ret;
		flags = __virtio16_to_cpu(true, desc.flags);
		n = __virtio32_to_cpu(true, desc.len);

		if (flags & VRING_DESC_F_INDIRECT) {
			if (indirect || virtio_lm_check_indirect(vlm, &desc))
				return -EINVAL;
			table = __virtio64_to_cpu(true, desc.addr);
			num = n / sizeof(desc);
			indirect = true;
			seen = 0;
			i = 0;
			continue;
		}

		if (!(flags & VRING_DESC_F_WRITE) && writable)
			return -EINVAL;
		if (flags & VRING_DESC_F_WRITE) {
			if (n && !writable)
				*ack = __virtio64_to_cpu(true, desc.addr);
			writable |= n;
		} else {
			ret = virtio_lm_ctrl_copy(vlm, __virtio64_to_cpu(true, desc.addr),
						  vlm->ctrl.command + min_t(u64, *len, room),
						  *len < room ? min_t(u64, n, room - *len) : 0,
						  VHOST_ACCESS_RO);
			if (ret)
				return ret;
			*len += n;
		}

		if (!(flags & VRING_DESC_F_NEXT))
			break;
		i = __virtio16_to_cpu(true, desc.next);
	}

	if (!writable)
		return -EINVAL;
	/* It is written to the mailbox in words, and what was there before is nobody's to see */
	if (*len < room)
		memset(vlm->ctrl.command + *len, 0, round_up(*len, sizeof(u32)) - *len);
	/* A command whose ack cannot be given is not to be executed */
	byte = VIRTIO_NET_ERR;
	return virtio_lm_ctrl_copy(vlm, *ack, &byte, sizeof(byte), VHOST_ACCESS_WO);
}

/* Does a table of RSS name pairs that there are? Virtio 1.3, 5.1.6.5.7.1 */
static bool virtio_lm_rss_allowed(const struct virtio_lm_vdpa *vlm, const u8 *data, u32 len)
{
	const struct virtio_net_rss_config *rss = (const void *)data;
	u32 entries, i, pairs = vlm->device_vqs / 2;
	__le16 max_tx_vq;
	const u8 *table;

	table = data + offsetof(struct virtio_net_rss_config, indirection_table);
	if (len < offsetof(struct virtio_net_rss_config, indirection_table) + sizeof(max_tx_vq))
		return false;
	entries = le16_to_cpu(rss->indirection_table_mask) + 1;
	if (len < table - data + (entries + 1) * sizeof(__le16))
		return false;
	for (i = 0; i < entries; i++)
		if (le16_to_cpup((const __le16 *)table + i) >= pairs)
			return false;
	max_tx_vq = *((const __le16 *)table + entries);
	return le16_to_cpu(rss->unclassified_queue) < pairs &&
	       le16_to_cpu(max_tx_vq) && le16_to_cpu(max_tx_vq) <= pairs;
}

/*
 * The device takes what its own features and its own pairs allow; the vDPA device may have been
 * given fewer. The rest is the device's to say.
 */
static bool virtio_lm_allowed(const struct virtio_lm_vdpa *vlm, const u8 *command, u32 len)
{
	const u8 *data = command + sizeof(struct virtio_net_ctrl_hdr);
	const struct virtio_net_ctrl_hdr *hdr = (const void *)command;
	u16 pairs;

	if (len < sizeof(*hdr))
		return false;
	len -= sizeof(*hdr);
	if (hdr->class != VIRTIO_NET_CTRL_MQ)
		return true;

	switch (hdr->cmd) {
	case VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET:
		pairs = len < sizeof(__le16) ? 0 : le16_to_cpup((const __le16 *)data);
		return pairs && pairs <= vlm->device_vqs / 2;
	case VIRTIO_NET_CTRL_MQ_RSS_CONFIG:
		return virtio_lm_rss_allowed(vlm, data, len);
	default:
		return true;
	}
}

/*
 * A device that needs a reset, or is gone, executes nothing. The driver gets an answer all the
 * same: Linux' virtio_net waits for one without end, and holds a lock that all networking needs.
 */
static u8 virtio_lm_execute(struct virtio_lm_vdpa *vlm, u64 len)
{
	const struct virtio_net_ctrl_hdr *hdr = (const void *)vlm->ctrl.command;
	u8 ack = VIRTIO_NET_ERR, status;

	if (len > vlm->func->ctrl_size || !virtio_lm_allowed(vlm, vlm->ctrl.command, len) ||
	    vlm->needs_reset || virtio_lm_check(vlm, &status))
		return VIRTIO_NET_ERR;

	if (virtio_lm_run_command(vlm->func, vlm->ctrl.command, len, &ack))
		virtio_lm_set_needs_reset(vlm);
	if (ack != VIRTIO_NET_OK)
		return ack;

	if (hdr->class == VIRTIO_NET_CTRL_MAC && hdr->cmd == VIRTIO_NET_CTRL_MAC_ADDR_SET)
		vlm->ctrl.mac_set = true;
	return ack;
}

static void virtio_lm_count_command(struct virtio_lm_vdpa *vlm, u64 len, u8 ack)
{
	u8 class = min_t(u8, vlm->ctrl.command[0], VIRTIO_LM_CTRL_CLASSES - 1);

	vlm->ctrl.commands[len ? class : VIRTIO_LM_CTRL_CLASSES - 1]++;
	vlm->ctrl.errors += ack != VIRTIO_NET_OK;
}

static int virtio_lm_put_used(struct virtio_lm_vdpa *vlm, u16 head)
{
	struct virtio_lm_vq *vq = vlm->ctrl.vq;
	struct vring_used_elem elem = {
		.id = __cpu_to_virtio32(true, head),
		.len = __cpu_to_virtio32(true, 1),
	};
	u64 at = vq->device + offsetof(struct vring_used, ring) +
		 (vlm->ctrl.used_idx & (vq->num - 1)) * sizeof(elem);
	int ret;

	ret = virtio_lm_ctrl_copy(vlm, at, &elem, sizeof(elem), VHOST_ACCESS_WO);
	if (ret)
		return ret;
	/* A driver that sees the index sees the element and the ack */
	virt_wmb();
	return virtio_lm_ctrl_write16(vlm, virtio_lm_used_idx(vq), ++vlm->ctrl.used_idx);
}

/* Virtio 1.3, 2.7.7: tell the driver, unless it does not want to be told of this one */
static int virtio_lm_notify_used(struct virtio_lm_vdpa *vlm)
{
	struct virtio_lm_vq *vq = vlm->ctrl.vq;
	bool event_idx = virtio_lm_has_event_idx(vlm);
	u16 used_idx = vlm->ctrl.used_idx, word;
	int ret;

	/* The index is to be seen before the driver is asked: it may be about to sleep */
	virt_mb();
	ret = virtio_lm_ctrl_read16(vlm, virtio_lm_avail(vq, event_idx ? 2 + vq->num : 0), &word);
	if (ret)
		return ret;
	if (event_idx ? vring_need_event(word, used_idx, used_idx - 1) :
			!(word & VRING_AVAIL_F_NO_INTERRUPT))
		virtio_lm_invoke(&vq->callback);
	return 0;
}

/* Is there a chain? If not, a kick for the next one is asked for before this says so */
static int virtio_lm_next_chain(struct virtio_lm_vdpa *vlm, u16 *idx)
{
	struct virtio_lm_vq *vq = vlm->ctrl.vq;
	int ret;

	ret = virtio_lm_ctrl_read16(vlm, virtio_lm_avail(vq, 1), idx);
	if (ret || *idx != vlm->ctrl.avail_idx || !virtio_lm_has_event_idx(vlm))
		return ret;

	ret = virtio_lm_ctrl_write16(vlm, virtio_lm_avail_event(vq), vlm->ctrl.avail_idx);
	if (ret)
		return ret;
	/* A driver that has not seen the event has made the index visible, and does not kick */
	virt_mb();
	return virtio_lm_ctrl_read16(vlm, virtio_lm_avail(vq, 1), idx);
}

/* Return: 1 if a command was served, 0 if there is none, or a negative errno */
static int virtio_lm_serve_one(struct virtio_lm_vdpa *vlm)
{
	struct virtio_lm_vq *vq = vlm->ctrl.vq;
	u64 len, ack_at;
	u16 idx, head;
	u8 ack;
	int ret;

	ret = virtio_lm_next_chain(vlm, &idx);
	if (ret || idx == vlm->ctrl.avail_idx)
		return ret;
	if ((u16)(idx - vlm->ctrl.avail_idx) > vq->num)
		return -ERANGE;
	/* The index first, then what it says is there */
	virt_rmb();
	ret = virtio_lm_ctrl_read16(vlm, virtio_lm_avail(vq, 2 + (vlm->ctrl.avail_idx &
								  (vq->num - 1))), &head);
	if (!ret)
		ret = virtio_lm_read_chain(vlm, head, &len, &ack_at);
	if (ret)
		return ret;

	ack = virtio_lm_execute(vlm, len);
	virtio_lm_count_command(vlm, len, ack);
	vlm->ctrl.avail_idx++;
	ret = virtio_lm_ctrl_copy(vlm, ack_at, &ack, sizeof(ack), VHOST_ACCESS_WO);
	if (!ret)
		ret = virtio_lm_put_used(vlm, head);
	if (!ret)
		ret = virtio_lm_notify_used(vlm);
	return ret ?: 1;
}

static bool virtio_lm_serve(struct virtio_lm_vdpa *vlm)
{
	struct virtio_lm_vq *vq;
	int ret;

	guard(mutex)(&vlm->lock);

	vq = vlm->ctrl.vq;
	if (!vq || !vq->running || vlm->suspended || vlm->ctrl.broken)
		return false;
	ret = virtio_lm_serve_one(vlm);
	if (ret < 0) {
		dev_err_ratelimited(&vlm->vdpa.dev,
				    "control virtqueue: chain %u cannot be served (%d), size %u, rings at 0x%llx\n",
				    vlm->ctrl.avail_idx, ret, vq->num, vq->desc);
		vlm->ctrl.broken = true;
		virtio_lm_set_needs_reset(vlm);
	}
	return ret > 0;
}

static void virtio_lm_ctrl_work(struct work_struct *work)
{
	struct virtio_lm_vdpa *vlm = container_of(work, struct virtio_lm_vdpa, ctrl.work);
	int n;

	for (n = 0; n < VIRTIO_LM_CTRL_BATCH; n++) {
		if (!virtio_lm_serve(vlm))
			return;
		cond_resched();
	}
	/* A driver that does not come to an end does not keep other work from its turn */
	virtio_lm_kick_ctrl(vlm);
}

/**
 * virtio_lm_init_ctrl - begin with a control virtqueue that is not enabled
 * @vlm: the vDPA device
 *
 * May sleep. A caller that gets an error has virtio_lm_free_ctrl() undo what was done.
 *
 * Return: 0 or -ENOMEM
 */
int virtio_lm_init_ctrl(struct virtio_lm_vdpa *vlm)
{
	INIT_WORK(&vlm->ctrl.work, virtio_lm_ctrl_work);
	if (!vlm->software_ctrl)
		return 0;
	vlm->ctrl.command = kvzalloc(vlm->func->ctrl_size, GFP_KERNEL);
	if (!vlm->ctrl.command)
		return -ENOMEM;
	/* Not bound to a CPU: a driver may wait for the ack on this one, and not let go of it */
	vlm->ctrl.wq = alloc_ordered_workqueue("%s-ctrl", 0, dev_name(&vlm->vdpa.dev));
	return vlm->ctrl.wq ? 0 : -ENOMEM;
}

/**
 * virtio_lm_free_ctrl - undo virtio_lm_init_ctrl()
 * @vlm: the vDPA device, which nobody uses any more and whose lock is not held
 *
 * May sleep.
 */
void virtio_lm_free_ctrl(struct virtio_lm_vdpa *vlm)
{
	cancel_work_sync(&vlm->ctrl.work);
	if (vlm->ctrl.wq)
		destroy_workqueue(vlm->ctrl.wq);
	vlm->ctrl.wq = NULL;
	kvfree(vlm->ctrl.command);
	vlm->ctrl.command = NULL;
}

/**
 * virtio_lm_apply_mac - have the device filter for the MAC address that was provisioned
 * @vlm: the vDPA device, whose lock is held; the device has taken its features
 *
 * Without a control virtqueue a guest cannot have it filter at all. May sleep.
 *
 * Return: 0, -EIO if the device refuses the address, or as virtio_lm_run_command()
 */
int virtio_lm_apply_mac(struct virtio_lm_vdpa *vlm)
{
	struct {
		struct virtio_net_ctrl_hdr hdr;
		u8 mac[ETH_ALEN];
	} command __aligned(sizeof(u32)) = {
		.hdr = { .class = VIRTIO_NET_CTRL_MAC, .cmd = VIRTIO_NET_CTRL_MAC_ADDR_SET },
	};
	u8 ack;
	int ret;

	if (!vlm->software_ctrl || !vlm->config.has_mac ||
	    !(vlm->features & BIT_ULL(VIRTIO_NET_F_CTRL_VQ)))
		return 0;

	ether_addr_copy(command.mac, vlm->config.mac);
	ret = virtio_lm_run_command(vlm->func, &command, sizeof(command), &ack);
	if (ret || ack == VIRTIO_NET_OK)
		return ret;
	dev_err_ratelimited(&vlm->vdpa.dev, "device refuses mac %pM\n", vlm->config.mac);
	return -EIO;
}
