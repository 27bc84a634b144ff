/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every vDPA test needs: a vhost-vdpa device opened, described and given
 * memory as a VMM does it; deadlines; a random sequence that can be replayed.
 *
 * Functions return 0 or a negative errno unless they say otherwise.
 */
#ifndef VDPA_UTIL_H
#define VDPA_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "kselftest.h"

#define BIT_ULL(n)	(1ULL << (n))

/* Where the tests' memory appears to the device unless a test says otherwise */
#define VDPA_IOVA	0x100000000ULL
#define VDPA_MEM_SIZE	(4UL << 20)

/* What a parent may or may not be able to do; names are in cap_names[] */
enum vdpa_cap {
	CAP_SUSPEND,		/* VHOST_BACKEND_F_SUSPEND */
	CAP_RESUME,		/* VHOST_BACKEND_F_RESUME */
	CAP_RING_STATE,		/* a ring starts at any index, and tells its own */
	CAP_LATE_ENABLE,	/* VHOST_BACKEND_F_ENABLE_AFTER_DRIVER_OK */
	CAP_VRING_SIZE,		/* VHOST_VDPA_GET_VRING_SIZE */
	CAP_VRING_GROUP,	/* VHOST_VDPA_GET_VRING_GROUP */
	CAP_DOORBELL,		/* queue 0 has a page of its own to be kicked by */
	CAP_EVENT_IDX,		/* VIRTIO_F_RING_EVENT_IDX */
	CAP_MRG_RXBUF,		/* VIRTIO_NET_F_MRG_RXBUF */
	CAP_INDIRECT,		/* VIRTIO_F_INDIRECT_DESC */
	CAP_PACKED,		/* VIRTIO_F_RING_PACKED */
	CAP_ANY_ORDER,		/* what it is told is kept until it can be carried out */
	CAP_VSTATS,		/* vendor statistics */
	CAP_KNOWN_STATS,	/* whose meaning is in vdpa_parents.c */
	CAP_PROVISION,		/* mac, mtu and features are given at creation */
	CAP_MAX_VQP,		/* so is the number of queue pairs */
	CAP_NAMES,		/* a bad name is refused, and not tried: some kernels warn of it */
	CAP_SET_MAC,		/* so can the MAC be later, while nobody uses the device */
	CAP_FAREWELL,		/* whoever has it open is told that it is about to be removed */
	CAP_START_KICKS,	/* a start and a resume count as a kick */
	CAP_WIRE,		/* frames come back, from a peer or a loopback */
	CAP_PEER,		/* a wire_peer is on the wire */
	CAP_LINK,		/* the peer can take the link down and up */
	CAP_LOG,		/* VHOST_BACKEND_F_LOG_RANGES */
	CAP_LOG_ASID,		/* in any address space, whoever writes there */
	CAP_ASID,		/* more than one address space */
	CAP_CTRL,		/* a control virtqueue, split, in a group of its own */
	CAP_CTRL_STRICT,	/* which says what is wrong, and which a reset makes forget */
	CAP_UNBIND,		/* its parent is on the PCI bus */
	CAP_FAIL_NTH,		/* the kernel fails allocations on request */
	CAP_COUNT
};

struct vdpa {
	int fd;			/* /dev/vhost-vdpa-N */
	char path[64];
	char name[64];		/* on the vDPA bus */
	char mgmt_bus[32];	/* management device: "pci" or "" */
	char mgmt_dev[64];	/* "0000:01:00.0", or a name */
	char parent[64];	/* name of the parent's driver */
	uint32_t caps;		/* 1 << enum vdpa_cap */
	uint32_t required;	/* those that VDPA_REQUIRE names */
	uint64_t backend;	/* backend features, as offered and acked */
	uint64_t offered;	/* virtio features of the device */
	uint64_t features;	/* virtio features in force */
	uint32_t nvqs;
	uint16_t vq_max;	/* largest ring */
	struct vhost_vdpa_iova_range range;

	uint8_t *mem;		/* shared with the device at iova */
	uint64_t iova;
	size_t mem_size;
	size_t mem_used;
	int memfd;
};

/* What a statistic of a virtqueue counts, or is */
enum vdpa_stat_kind {
	STAT_UNKNOWN,
	STAT_KICKS,		/* kicks that have come from the VMM */
	STAT_CALLS,		/* calls that it was sent */
	STAT_PACKETS,		/* used buffers, one for each packet */
	STAT_INDEX,		/* index in the ring: the same for both sides while it is at rest */
	STAT_COMMANDS,		/* commands, or those of one kind */
	STAT_ERRORS,		/* commands that were refused */
};

struct vdpa_stat {
	const char *name;
	enum vdpa_stat_kind kind;
};

/* What is known of a parent by its driver's name; the table is in vdpa_parents.c */
struct vdpa_parent {
	const char *name;
	uint32_t promises;		/* 1 << enum vdpa_cap */
	const struct vdpa_stat *stats;	/* ends with one without a name */
	unsigned int data_stats;	/* of those, how many each data queue has at least */
};

const struct vdpa_parent *vdpa_parent(const char *driver);
enum vdpa_stat_kind vdpa_stat_kind(const struct vdpa_parent *parent, const char *name);

const char *vdpa_dev_path(void);
int vdpa_open(struct vdpa *v);
void vdpa_close(struct vdpa *v);
int vdpa_reopen(struct vdpa *v);

bool vdpa_can(const struct vdpa *v, enum vdpa_cap cap);
bool vdpa_must(const struct vdpa *v, enum vdpa_cap cap);
const char *vdpa_cap_name(enum vdpa_cap cap);
int vdpa_required(uint32_t *caps);
void vdpa_find_caps(struct vdpa *v);

int vdpa_ioctl(struct vdpa *v, unsigned long cmd, void *arg);
int vdpa_get_status(struct vdpa *v);
int vdpa_set_status(struct vdpa *v, uint8_t status);
int vdpa_get_config(struct vdpa *v, uint32_t off, void *buf, uint32_t len);
int vdpa_reset(struct vdpa *v);
int vdpa_negotiate(struct vdpa *v, uint64_t features);
int vdpa_get_base(struct vdpa *v, uint32_t vq);
int vdpa_set_base(struct vdpa *v, uint32_t vq, uint32_t base);

int vdpa_mem_init_size(struct vdpa *v, uint64_t iova, size_t size);
int vdpa_mem_init(struct vdpa *v, uint64_t iova);
void *vdpa_alloc(struct vdpa *v, size_t size, size_t align);
uint64_t vdpa_iova(const struct vdpa *v, const void *p);
int vdpa_iotlb_asid(struct vdpa *v, uint32_t asid, uint8_t type, uint64_t iova, uint64_t size,
		    void *addr, uint8_t perm);
int vdpa_iotlb(struct vdpa *v, uint8_t type, uint64_t iova, uint64_t size, void *addr,
	       uint8_t perm);

int vdpa_write_file(const char *path, const char *text);
int vdpa_pinned_pages(void);
int vdpa_unpinned(int before);

uint64_t now_us(void);
uint64_t deadline(unsigned int ms);
bool expired(uint64_t deadline);
int wait_readable(int fd, uint64_t deadline);
void sleep_ms(unsigned int ms);

uint64_t test_seed(void);
void rng_init(uint64_t *state, uint64_t seed, const char *name);
uint32_t rng(uint64_t *state);
uint32_t rng_below(uint64_t *state, uint32_t n);

/*
 * A test of something that not every parent can do begins with NEED. A parent
 * known to be able (by its driver's name, or by VDPA_REQUIRE) fails where any
 * other parent skips: otherwise a capability that is lost looks like one that
 * never was.
 */
#define NEED(v, cap) do {							\
	if (!vdpa_can(v, cap)) {						\
		ASSERT_FALSE(vdpa_must(v, cap)) {				\
			TH_LOG("%s (%s) lacks what it must have: %s",		\
			       (v)->name, (v)->parent, vdpa_cap_name(cap));	\
		}								\
		SKIP(return, "%s (%s) lacks: %s", (v)->name, (v)->parent,	\
		     vdpa_cap_name(cap));					\
	}									\
} while (0)

/* Setup of every fixture: without a device named for it, nothing is touched */
#define OPEN_OR_SKIP(v) do {							\
	if (!vdpa_dev_path())							\
		SKIP(return, "VDPA_DEV names no device to test");		\
	ASSERT_EQ(0, vdpa_open(v)) {						\
		TH_LOG("cannot open %s", vdpa_dev_path());			\
	}									\
} while (0)

/* Teardown of every fixture that uses rng() */
#define LOG_SEED_ON_FAILURE() do {						\
	if (!__test_passed(_metadata))						\
		TH_LOG("replay with VDPA_SEED=%llu",				\
		       (unsigned long long)test_seed());			\
} while (0)

#endif /* VDPA_UTIL_H */
