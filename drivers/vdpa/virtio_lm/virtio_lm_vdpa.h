/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What crosses the files of virtio_lm_vdpa, the vDPA parent driver of virtio-net
 * PCI functions with live-migration (LM) registers.
 *
 * The files are layers: each uses what is declared here for those before it, and for no other.
 *
 *   func       what a PCI function does by itself: registers, reset, features
 *   lm         its LM block
 *   mailbox    its control mailbox
 *   features   what can be decided without touching a device;
 *   config     so can this, of the configuration
 *   irq        its interrupts, and the callbacks that they invoke
 *   bitmap     the bitmap that the driver keeps for the device to log in
 *   status     whether the device still is what the bus has made of it
 *   as         what of memory the device reaches, and what the control virtqueue
 *   log        the bus's operations on the dirty log, where it has one
 *   ctrl       the control virtqueue in software
 *   vq         what is done to a virtqueue of the device
 *   vq_ops     the bus's operations on virtqueues
 *   stats      their counters
 *   vdpa_dev   the bus's other operations
 *   provision  what "vdpa dev add" asks for, held against what the device has
 *   mgmt       the vDPA management API: a vDPA device comes and goes
 *   pci_drv    the PCI driver: a function comes and goes
 */
#ifndef _VIRTIO_LM_VDPA_H
#define _VIRTIO_LM_VDPA_H

#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/vdpa.h>
#include <linux/vhost_iotlb.h>
#include <linux/virtio_lm.h>
#include <linux/virtio_net.h>
#include <linux/virtio_pci_modern.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <uapi/linux/vhost_types.h>

#define VIRTIO_LM_DRIVER_NAME	"virtio_lm_vdpa"

/* Pause between two looks at a register that the device is to change */
#define VIRTIO_LM_POLL_US	50

/*
 * As far as the configuration is shown: up to what virtio 1.2 has in it (5.1.4). A guest sees the
 * same of it whatever header this is built with.
 */
#define VIRTIO_LM_CONFIG_SIZE	offsetofend(struct virtio_net_config, supported_hash_types)

/* Virtio 1.3, 2.7 and 2.8: no virtqueue is larger */
#define VIRTIO_LM_VQ_NUM_MAX	32768

/* Groups of virtqueues, and address spaces; one of each without a control virtqueue in software */
#define VIRTIO_LM_GROUP_DATA	0
#define VIRTIO_LM_GROUP_CTRL	1
#define VIRTIO_LM_NUM_GROUPS	2
#define VIRTIO_LM_NUM_AS	2

/* For what a mapping takes. A VMM whose memory is limited is told so, and not killed */
#define VIRTIO_LM_MAP_GFP	(GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/* Classes of control commands that are counted apart (virtio 1.3, 5.1.6.5), and the others */
#define VIRTIO_LM_CTRL_CLASSES	7

struct virtio_lm_vdpa;

/**
 * struct virtio_lm_notify - the notify structure of a function
 * @bar: BAR that holds it
 * @offset: of its first byte in the BAR
 * @length: in bytes; the LM block starts right behind
 */
struct virtio_lm_notify {
	u8 bar;
	u32 offset;
	u32 length;
};

/**
 * struct virtio_lm_func - one PCI function, from probe to remove
 * @mdev: its virtio structures, as the kernel's modern virtio-pci library maps them
 * @mgmt: its face to the vDPA management API
 * @id_table: the one class of device that @mgmt can create, and a terminator
 * @notify: its notify structure
 * @lm: its LM block
 * @lm_len: bytes of it that are mapped
 * @features: of what the device offers, what this driver can pass on
 * @num_queues: virtqueues of the device that the LM block has a register for
 * @caps: LM_CAPS
 * @ctrl_size: bytes of the longest command that its control mailbox takes, 0 without a mailbox
 * @ctrl_tag: of the last command
 * @saved: its configuration space, for after a reset of its link
 * @lock: held while @vlm is changed, with what it has of the function, and while it is used by who
 *	neither holds the vDPA core's device lock nor runs while tasks are frozen
 * @vlm: the vDPA device on it, or NULL
 */
struct virtio_lm_func {
	struct virtio_pci_modern_device mdev;
	struct vdpa_mgmt_dev mgmt;
	struct virtio_device_id id_table[2];
	struct virtio_lm_notify notify;
	void __iomem *lm;
	u32 lm_len;
	u64 features;
	u16 num_queues;
	u32 caps;
	u32 ctrl_size;
	u16 ctrl_tag;
	struct pci_saved_state *saved;
	struct mutex lock;	/* see above */
	struct virtio_lm_vdpa *vlm;
};

/**
 * struct virtio_lm_callback - a callback that one interrupt invokes
 * @lock: held while @cb is invoked or replaced, so whoever replaced it knows that the
 *	old one is neither running nor going to
 * @cb: what to invoke
 * @calls: how often it was
 */
struct virtio_lm_callback {
	spinlock_t lock;	/* see above */
	struct vdpa_callback cb;
	u64 calls;
};

/**
 * struct virtio_lm_vq - one virtqueue
 * @callback: what its interrupt invokes: @cb while it runs, else nothing
 * @cb: the bus's callback
 * @notify: its doorbell
 * @doorbell: the doorbell's page, if a VMM may map it; else empty
 * @kicks: how often the driver rang @notify
 * @irq: Linux interrupt number, or negative while none is requested
 * @device_idx: the device's index of it
 * @num_max: size that the device names after a reset
 * @num: size to enable it with
 * @desc: address of the descriptor area to enable it with
 * @driver: address of the driver area to enable it with
 * @device: address of the device area to enable it with
 * @state: to enable it with, as the bus gave it, if @has_state
 * @has_state: the bus has set @state since the last reset, or the queue has stopped there
 * @unknown: it has stopped, and the device has not told where
 * @packed: @state is that of a packed ring: the bus had negotiated one when it set it
 * @ready: the bus wants it to run. Before DRIVER_OK that is a wish
 * @enabled: the device has it enabled
 * @running: both: kicks and callbacks pass
 * @name: of its interrupt
 */
struct virtio_lm_vq {
	struct virtio_lm_callback callback;
	struct vdpa_callback cb;
	void __iomem *notify;
	struct vdpa_notification_area doorbell;
	atomic64_t kicks;
	int irq;
	u16 device_idx;
	u16 num_max;
	u32 num;
	u64 desc;
	u64 driver;
	u64 device;
	struct vdpa_vq_state state;
	bool has_state;
	bool unknown;
	bool packed;
	bool ready;
	bool enabled;
	bool running;
	char name[48];
};

/**
 * struct virtio_lm_config - what "vdpa dev add" put over the device's configuration
 * @mac: address, if @has_mac
 * @mtu: MTU, if not 0
 * @max_pairs: queue pairs, if not 0
 * @has_mac: @mac was given
 */
struct virtio_lm_config {
	u8 mac[ETH_ALEN];
	u16 mtu;
	u16 max_pairs;
	bool has_mac;
};

/**
 * struct virtio_lm_ctrl - the control virtqueue in software
 * @vq: its settings while it is enabled, or NULL
 * @wq: what @work runs on, or NULL if the device has no such queue
 * @work: serves it
 * @command: the command that is being served; as long as the mailbox
 * @avail_idx: index of the next available descriptor chain
 * @used_idx: index of the next used element
 * @broken: the ring cannot be served any more
 * @mac_set: the driver has set a MAC address since the last reset
 * @commands: commands that were served, by their class
 * @errors: how many of them were acked as an error
 */
struct virtio_lm_ctrl {
	struct virtio_lm_vq *vq;
	struct workqueue_struct *wq;
	struct work_struct work;
	u8 *command;
	u16 avail_idx;
	u16 used_idx;
	bool broken;
	bool mac_set;
	u64 commands[VIRTIO_LM_CTRL_CLASSES];
	u64 errors;
};

/**
 * struct virtio_lm_vdpa - one vDPA device, from "vdpa dev add" to "vdpa dev del"
 * @vdpa: what the bus sees
 * @func: the function that it runs on
 * @lock: held by every operation that selects a queue or a feature word in the common
 *	configuration, or changes the state below. The bus is no help: vhost-vdpa's ioctls, the
 *	management API and virtio_vdpa hold different locks. Not needed for what is set before the
 *	bus sees the device and stays (@offer, @nvqs, @device_vqs, @software_ctrl,
 *	@num_max). Nor to read @features, and of a queue @running and @ready, for which their own
 *	access is enough. The callbacks and the address spaces have locks of their own, and
 *	@vectors is changed with the lock of @func
 * @offer: feature bits offered to the bus
 * @features: feature bits the bus accepted
 * @provisioned: overlay on the device's configuration, as "vdpa dev add" made it
 * @config: the same, with the MAC address that the VMM has written
 * @mac_written: it has written one
 * @config_callback: configuration callback
 * @config_irq: its Linux interrupt number, or negative while none is requested
 * @status: device status that the bus has set, less what could not be carried out
 * @external_reset: the function was reset from outside, or is about to be, when the bus had set a
 *	status, and the bus has not reset it since
 * @needs_reset: the device has not done what the bus asked for, its last reset included, and only a
 *	reset mends that
 * @suspended: a suspend has succeeded, and neither resume nor reset was tried since
 * @log_fault: the CPU wrote what it cannot log, and the bus has not been told
 * @log_ended: a reset from outside has ended the log, and the bus has been told
 * @log_lock: taken outside of @lock, while bits are given to who reads the log, and while a log
 *	begins or ends
 * @ranges: that are logged, in ascending order, or NULL without a log; changed with @as_lock, too
 * @nranges: how many
 * @bitmap: pages of its bitmap, by their index; added with @as_lock
 * @window: where in @domain they are; settled with that
 * @vectors: MSI-X vectors are allocated
 * @irqs_on: the interrupts are enabled
 * @nvqs: virtqueues in @vqs
 * @device_vqs: those that the device serves
 * @software_ctrl: the other one is the control virtqueue, in software
 * @num_max: size of the largest of them
 * @vqs: the virtqueues
 * @ctrl: the control virtqueue in software
 * @as_lock: taken inside of @lock for what is in @as, and for @domain and @attached
 * @as: the address spaces; each page in them is held
 * @group_asid: which of them each group is bound to
 * @dma_api: the rings are the kernel's own, mapped by the DMA API
 * @attached: the one that the device reaches, or NULL
 * @domain: it as the IOMMU knows it, or NULL
 * @config_name: of the configuration interrupt
 * @deleting: it is about to be deleted, and cannot be started any more
 * @user: process that opened or reset it last
 * @comm: its name
 * @node: of /dev/vhost-vdpa-N, if vhost-vdpa has the device that is about to be deleted
 * @waiting: tells who keeps it from being deleted
 */
struct virtio_lm_vdpa {
	struct vdpa_device vdpa;
	struct virtio_lm_func *func;
	struct mutex lock;	/* see above */
	u64 offer;
	u64 features;
	struct virtio_lm_config provisioned;
	struct virtio_lm_config config;
	bool mac_written;
	struct virtio_lm_callback config_callback;
	int config_irq;
	u8 status;
	bool external_reset;
	bool needs_reset;
	bool suspended;
	bool log_fault;
	bool log_ended;
	struct mutex log_lock;	/* see above */
	struct vdpa_iova_range *ranges;
	unsigned int nranges;
	struct xarray bitmap;
	struct vdpa_iova_range window;
	bool vectors;
	bool irqs_on;
	u16 nvqs;
	u16 device_vqs;
	bool software_ctrl;
	u16 num_max;
	struct virtio_lm_vq *vqs;
	struct virtio_lm_ctrl ctrl;
	struct mutex as_lock;	/* see above */
	struct vhost_iotlb as[VIRTIO_LM_NUM_AS];
	unsigned int group_asid[VIRTIO_LM_NUM_GROUPS];
	bool dma_api;
	struct vhost_iotlb *attached;
	struct iommu_domain *domain;
	char config_name[48];
	bool deleting;
	pid_t user;
	char comm[TASK_COMM_LEN];
	char node[24];
	struct delayed_work waiting;
};

/**
 * struct virtio_lm_plan - a vDPA device in the making: what was asked for, held against what the
 *	device has
 * @config: overlay on the device's configuration
 * @offer: feature bits offered to the bus
 * @pairs: its queue pairs
 * @device_pairs: the device's max_virtqueue_pairs
 * @nvqs: its virtqueues
 * @software_ctrl: the last of them is the control virtqueue, in software
 */
struct virtio_lm_plan {
	struct virtio_lm_config config;
	u64 offer;
	u16 pairs;
	u16 device_pairs;
	u16 nvqs;
	bool software_ctrl;
};

static inline struct virtio_lm_vdpa *to_vlm(const struct vdpa_device *vdpa)
{
	return container_of(vdpa, struct virtio_lm_vdpa, vdpa);
}

/* The MAC address that a VMM has written is nothing that the next one is to find */
static inline void virtio_lm_forget_mac(struct virtio_lm_vdpa *vlm)
{
	vlm->config = vlm->provisioned;
	vlm->mac_written = false;
}

static inline struct device *func_dev(struct virtio_lm_func *func)
{
	return &func->mdev.pci_dev->dev;
}

/* func.c */
u64 virtio_lm_deadline_us(void);
u32 virtio_lm_read(struct virtio_lm_func *func, u32 offset);
void virtio_lm_write(struct virtio_lm_func *func, u32 offset, u32 value);
bool virtio_lm_gone(struct virtio_lm_func *func);
int virtio_lm_reset_device(struct virtio_lm_func *func);
int virtio_lm_negotiate(struct virtio_lm_func *func, u64 features);

/* lm.c */
int virtio_lm_block_offset(u64 bar_len, const struct virtio_lm_notify *notify, u32 *offset);
bool virtio_lm_doorbell_fits(const struct virtio_lm_notify *notify, u64 offset, u32 width);
bool virtio_lm_doorbell_mappable(const struct virtio_lm_notify *notify, u64 offset,
				 u32 multiplier, resource_size_t pa, u32 page_size);
u32 virtio_lm_ring_encode(const struct vdpa_vq_state *state, bool packed);
void virtio_lm_ring_decode(u32 ring, bool packed, struct vdpa_vq_state *state);
bool virtio_lm_ring_valid(u32 ring, bool packed, u32 num);
int virtio_lm_map(struct virtio_lm_func *func);
void virtio_lm_unmap(struct virtio_lm_func *func);
int virtio_lm_suspend(struct virtio_lm_func *func);
int virtio_lm_resume(struct virtio_lm_func *func);
int virtio_lm_get_ring(struct virtio_lm_func *func, u16 device_idx, u32 *ring);
int virtio_lm_set_ring(struct virtio_lm_func *func, u16 device_idx, u32 ring);

/* mailbox.c */
void virtio_lm_find_mailbox(struct virtio_lm_func *func);
int virtio_lm_run_command(struct virtio_lm_func *func, const void *command, u32 len, u8 *ack);

/* features.c */
u64 virtio_lm_usable_features(u64 device, u32 caps);
u64 virtio_lm_overlay_features(const struct virtio_lm_config *config);
u64 virtio_lm_driver_features(u64 bus, u64 usable, size_t common_len);
u64 virtio_lm_default_features(u64 usable, bool mailbox, u16 pairs);
bool virtio_lm_software_ctrl(u64 offer, bool mailbox);
u64 virtio_lm_features_lacking_ctrl_vq(u64 offer);
bool virtio_lm_multiqueue(u64 offer);
int virtio_lm_pairs(u64 offer, bool software_ctrl, u16 requested, u16 device_pairs, u16 num_queues);
u16 virtio_lm_device_idx(u16 idx, u64 offer, u16 pairs, u16 device_pairs);

/* config.c */
int virtio_lm_read_config(struct virtio_lm_func *func, struct virtio_net_config *config);
void virtio_lm_overlay_config(struct virtio_net_config *config,
			      const struct virtio_lm_config *overlay, bool mac_set);

/* irq.c */
int virtio_lm_request_irqs(struct virtio_lm_vdpa *vlm);
void virtio_lm_free_irqs(struct virtio_lm_vdpa *vlm);
int virtio_lm_enable_irqs(struct virtio_lm_vdpa *vlm);
void virtio_lm_disable_irqs(struct virtio_lm_vdpa *vlm);
void virtio_lm_set_callback(struct virtio_lm_callback *callback, const struct vdpa_callback *cb);
void virtio_lm_invoke(struct virtio_lm_callback *callback);

/* bitmap.c */
int virtio_lm_place_bitmap(struct virtio_lm_vdpa *vlm, struct iommu_domain *domain);
int virtio_lm_cover(struct virtio_lm_vdpa *vlm, u64 first, u64 last);
void virtio_lm_free_bitmap(struct virtio_lm_vdpa *vlm);
#ifdef VHOST_VDPA_LOG_FAULT
int virtio_lm_read_bitmap(struct virtio_lm_vdpa *vlm, u64 first, u64 last,
			  struct vdpa_dirty *dirty);
#endif

/* status.c */
int virtio_lm_check(struct virtio_lm_vdpa *vlm, u8 *status);
u8 virtio_lm_get_status(struct vdpa_device *vdpa);
void virtio_lm_notify_reset(struct virtio_lm_vdpa *vlm);
void virtio_lm_set_needs_reset(struct virtio_lm_vdpa *vlm);
void virtio_lm_mark_external_reset(struct virtio_lm_vdpa *vlm);
int virtio_lm_recover(struct virtio_lm_vdpa *vlm);
void virtio_lm_prepare_del(struct virtio_lm_vdpa *vlm);

/* as.c */
void virtio_lm_init_as(struct virtio_lm_vdpa *vlm);
void virtio_lm_free_as(struct virtio_lm_vdpa *vlm);
int virtio_lm_attach(struct virtio_lm_vdpa *vlm);
bool virtio_lm_is_attached(struct virtio_lm_vdpa *vlm);
int virtio_lm_ctrl_copy(struct virtio_lm_vdpa *vlm, u64 iova, void *buf, size_t len,
			unsigned int perm);
int virtio_lm_ctrl_read16(struct virtio_lm_vdpa *vlm, u64 iova, u16 *value);
int virtio_lm_ctrl_write16(struct virtio_lm_vdpa *vlm, u64 iova, u16 value);
int virtio_lm_set_ranges(struct virtio_lm_vdpa *vlm, const struct vdpa_iova_range *ranges,
			 unsigned int nranges);
int virtio_lm_dma_map(struct vdpa_device *vdpa, unsigned int asid, u64 iova, u64 size, u64 pa,
		      u32 perm, void *opaque);
int virtio_lm_dma_unmap(struct vdpa_device *vdpa, unsigned int asid, u64 iova, u64 size);
int virtio_lm_reset_map(struct vdpa_device *vdpa, unsigned int asid);
int virtio_lm_set_group_asid(struct vdpa_device *vdpa, unsigned int group, unsigned int asid);
struct vdpa_iova_range virtio_lm_get_iova_range(struct vdpa_device *vdpa);

/* log.c, for a bus that has a dirty log */
#ifdef VHOST_VDPA_LOG_FAULT
int virtio_lm_log_start(struct vdpa_device *vdpa, unsigned int asid,
			const struct vdpa_iova_range *ranges, unsigned int nranges, u64 *page_size);
int virtio_lm_log_read_and_clear(struct vdpa_device *vdpa, u64 iova, u64 length,
				 struct vdpa_dirty *dirty, u32 *flags);
int virtio_lm_log_stop(struct vdpa_device *vdpa);
#endif

/* ctrl.c */
bool virtio_lm_is_ctrl(const struct virtio_lm_vdpa *vlm, u16 idx);
int virtio_lm_check_ctrl(const struct virtio_lm_vq *vq);
void virtio_lm_kick_ctrl(struct virtio_lm_vdpa *vlm);
void virtio_lm_enable_ctrl(struct virtio_lm_vdpa *vlm, struct virtio_lm_vq *vq);
void virtio_lm_disable_ctrl(struct virtio_lm_vdpa *vlm);
void virtio_lm_set_ctrl_idx(struct virtio_lm_vdpa *vlm, u16 avail_idx);
int virtio_lm_init_ctrl(struct virtio_lm_vdpa *vlm);
void virtio_lm_free_ctrl(struct virtio_lm_vdpa *vlm);
int virtio_lm_apply_mac(struct virtio_lm_vdpa *vlm);

/* vq.c */
bool virtio_lm_packed(const struct virtio_lm_vdpa *vlm);
void virtio_lm_kick(struct virtio_lm_vdpa *vlm, struct virtio_lm_vq *vq);
void virtio_lm_run_vq(struct virtio_lm_vq *vq, bool run);
void virtio_lm_log_vq(struct virtio_lm_vdpa *vlm, u16 idx, const char *what, int err);
int virtio_lm_read_state(struct virtio_lm_vdpa *vlm, u16 idx, struct vdpa_vq_state *state);
int virtio_lm_check_vq(struct virtio_lm_vdpa *vlm, struct virtio_lm_vq *vq);
int virtio_lm_enable_vq(struct virtio_lm_vdpa *vlm, u16 idx);
int virtio_lm_start_vq(struct virtio_lm_vdpa *vlm, u16 idx);
int virtio_lm_stop_vq(struct virtio_lm_vdpa *vlm, u16 idx);

/* vq_ops.c */
void virtio_lm_set_vq_cb(struct vdpa_device *vdpa, u16 idx, struct vdpa_callback *cb);
u16 virtio_lm_get_vq_size(struct vdpa_device *vdpa, u16 idx);
void virtio_lm_set_vq_num(struct vdpa_device *vdpa, u16 idx, u32 num);
int virtio_lm_set_vq_address(struct vdpa_device *vdpa, u16 idx, u64 desc_area,
			     u64 driver_area, u64 device_area);
int virtio_lm_set_vq_state(struct vdpa_device *vdpa, u16 idx,
			   const struct vdpa_vq_state *state);
int virtio_lm_get_vq_state(struct vdpa_device *vdpa, u16 idx, struct vdpa_vq_state *state);
void virtio_lm_set_vq_ready(struct vdpa_device *vdpa, u16 idx, bool ready);
bool virtio_lm_get_vq_ready(struct vdpa_device *vdpa, u16 idx);
int virtio_lm_get_vq_irq(struct vdpa_device *vdpa, u16 idx);
void virtio_lm_kick_vq(struct vdpa_device *vdpa, u16 idx);
void virtio_lm_kick_vq_with_data(struct vdpa_device *vdpa, u32 data);
struct vdpa_notification_area virtio_lm_get_vq_notification(struct vdpa_device *vdpa, u16 idx);

/* stats.c */
int virtio_lm_vq_stats(struct virtio_lm_vdpa *vlm, u16 idx, struct sk_buff *msg,
		       struct netlink_ext_ack *extack);

/* vdpa_dev.c */
const struct vdpa_config_ops *virtio_lm_vdpa_ops(const struct virtio_lm_func *func);
int virtio_lm_reset_vdpa(struct virtio_lm_vdpa *vlm);

/* provision.c */
int virtio_lm_check_mac(struct virtio_lm_func *func, const u8 *mac, u64 offer, bool software_ctrl,
			const struct virtio_net_config *config);
int virtio_lm_plan(struct virtio_lm_func *func, const struct vdpa_dev_set_config *add,
		   struct virtio_lm_plan *plan);

/* mgmt.c */
int virtio_lm_mgmt_register(struct virtio_lm_func *func);

#endif /* _VIRTIO_LM_VDPA_H */
