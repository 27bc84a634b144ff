// SPDX-License-Identifier: GPL-2.0-or-later
/* What a parent can do, and what VDPA_REQUIRE asks of it; see vdpa_util.h */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

#include "log.h"
#include "vdpa_nl.h"
#include "vdpa_util.h"

static const char * const cap_names[CAP_COUNT] = {
	[CAP_SUSPEND]		= "suspend",
	[CAP_RESUME]		= "resume",
	[CAP_RING_STATE]	= "ring_state",
	[CAP_LATE_ENABLE]	= "late_enable",
	[CAP_VRING_SIZE]	= "vring_size",
	[CAP_VRING_GROUP]	= "vring_group",
	[CAP_DOORBELL]		= "doorbell",
	[CAP_EVENT_IDX]		= "event_idx",
	[CAP_MRG_RXBUF]		= "mrg_rxbuf",
	[CAP_INDIRECT]		= "indirect",
	[CAP_PACKED]		= "packed",
	[CAP_ANY_ORDER]		= "any_order",
	[CAP_VSTATS]		= "vstats",
	[CAP_KNOWN_STATS]	= "known_stats",
	[CAP_PROVISION]		= "provision",
	[CAP_MAX_VQP]		= "max_vqp",
	[CAP_NAMES]		= "names",
	[CAP_SET_MAC]		= "set_mac",
	[CAP_FAREWELL]		= "farewell",
	[CAP_START_KICKS]	= "start_kicks",
	[CAP_WIRE]		= "wire",
	[CAP_PEER]		= "peer",
	[CAP_LINK]		= "link",
	[CAP_LOG]		= "log",
	[CAP_LOG_ASID]		= "log_asid",
	[CAP_ASID]		= "asid",
	[CAP_CTRL]		= "ctrl",
	[CAP_CTRL_STRICT]	= "ctrl_strict",
	[CAP_UNBIND]		= "unbind",
	[CAP_FAIL_NTH]		= "fail_nth",
};

const char *vdpa_cap_name(enum vdpa_cap cap)
{
	return cap_names[cap];
}

bool vdpa_can(const struct vdpa *v, enum vdpa_cap cap)
{
	return v->caps & 1U << cap;
}

/* The capabilities that VDPA_REQUIRE names, of VDPA_DEV and no other device, in @caps */
int vdpa_required(uint32_t *caps)
{
	const char *p = getenv("VDPA_REQUIRE");
	unsigned int cap;
	size_t len;

	*caps = 0;
	for (; p && *p; p += len, p += *p == ',') {
		len = strcspn(p, ",");
		for (cap = 0; cap < CAP_COUNT; cap++)
			if (strlen(cap_names[cap]) == len && !strncmp(p, cap_names[cap], len))
				break;
		if (cap < CAP_COUNT) {
			*caps |= 1U << cap;
			continue;
		}
		printf("# VDPA_REQUIRE: there is no capability \"%.*s\". Known are:", (int)len, p);
		for (cap = 0; cap < CAP_COUNT; cap++)
			printf(" %s", cap_names[cap]);
		printf("\n");
		fflush(stdout);
		return -EINVAL;
	}
	return 0;
}

bool vdpa_must(const struct vdpa *v, enum vdpa_cap cap)
{
	return (vdpa_parent(v->parent)->promises | v->required) & 1U << cap;
}

/* Is the last queue a control virtqueue that can have an address space of its own? */
static bool has_ctrl(struct vdpa *v)
{
	struct vhost_vring_state first = { .index = 0 }, last = { .index = v->nvqs - 1 };

	return v->offered & BIT_ULL(VIRTIO_NET_F_CTRL_VQ) &&
	       !vdpa_ioctl(v, VHOST_VDPA_GET_VRING_GROUP, &first) &&
	       !vdpa_ioctl(v, VHOST_VDPA_GET_VRING_GROUP, &last) && first.num != last.num;
}

void vdpa_find_caps(struct vdpa *v)
{
	struct vhost_vring_state s = { .index = 0 };
	struct vdpa_nl_info info;
	uint32_t as;
	void *page;

	/* what no parent tells of itself is tried where it is promised or required */
	v->caps = (vdpa_parent(v->parent)->promises | v->required) &
		  (1 << CAP_START_KICKS | 1 << CAP_ANY_ORDER | 1 << CAP_LOG_ASID |
		   1 << CAP_CTRL_STRICT);
	if (v->backend & BIT_ULL(VHOST_BACKEND_F_SUSPEND))
		v->caps |= 1 << CAP_SUSPEND;
	if (v->backend & BIT_ULL(VHOST_BACKEND_F_RESUME))
		v->caps |= 1 << CAP_RESUME;
	/* without, a parent can at most be told index 0, and only once FEATURES_OK is set */
	if (vdpa_get_base(v, 0) != -EOPNOTSUPP)
		v->caps |= 1 << CAP_RING_STATE;
	if (v->backend & BIT_ULL(VHOST_BACKEND_F_ENABLE_AFTER_DRIVER_OK))
		v->caps |= 1 << CAP_LATE_ENABLE;
	if (v->backend & BIT_ULL(VHOST_BACKEND_F_LOG_RANGES))
		v->caps |= 1 << CAP_LOG;
	if (!vdpa_ioctl(v, VHOST_VDPA_GET_AS_NUM, &as) && as > 1)
		v->caps |= 1 << CAP_ASID;
	if (has_ctrl(v))
		v->caps |= 1 << CAP_CTRL;
	if (!strcmp(v->mgmt_bus, "pci"))
		v->caps |= 1 << CAP_UNBIND;
	if (!access("/proc/self/fail-nth", W_OK) &&
	    !access("/sys/kernel/debug/failslab/reject-start", F_OK) &&
	    !access("/sys/kernel/debug/fail_page_alloc/reject-start", F_OK))
		v->caps |= 1 << CAP_FAIL_NTH;
	if (v->offered & BIT_ULL(VIRTIO_RING_F_EVENT_IDX))
		v->caps |= 1 << CAP_EVENT_IDX;
	if (v->offered & BIT_ULL(VIRTIO_NET_F_MRG_RXBUF))
		v->caps |= 1 << CAP_MRG_RXBUF;
	if (v->offered & BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC))
		v->caps |= 1 << CAP_INDIRECT;
	if (v->offered & BIT_ULL(VIRTIO_F_RING_PACKED))
		v->caps |= 1 << CAP_PACKED;
	if (!vdpa_ioctl(v, VHOST_VDPA_GET_VRING_SIZE, &s))
		v->caps |= 1 << CAP_VRING_SIZE;
	if (!vdpa_ioctl(v, VHOST_VDPA_GET_VRING_GROUP, &s))
		v->caps |= 1 << CAP_VRING_GROUP;
	/* before FEATURES_OK it is -EAGAIN for those that can */
	if (vdpa_nl_vstats_get(v->name, 0, &info) != -EOPNOTSUPP)
		v->caps |= 1 << CAP_VSTATS;
	if (vdpa_parent(v->parent)->stats->name)
		v->caps |= 1 << CAP_KNOWN_STATS;
	page = mmap(NULL, getpagesize(), PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (page != MAP_FAILED) {
		v->caps |= 1 << CAP_DOORBELL;
		munmap(page, getpagesize());
	}
}
