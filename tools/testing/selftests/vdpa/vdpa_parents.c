// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * All that these tests know of a parent by its driver's name. A parent that is not here is tested
 * all the same: what it says that it can do, and what VDPA_REQUIRE says. To add one, add what it
 * has promised, and the words of its statistics.
 */
#include <string.h>

#include "vdpa_util.h"

static const struct vdpa_stat virtio_lm_stats[] = {
	{ "kicks", STAT_KICKS },
	{ "calls", STAT_CALLS },
	{ "avail_idx", STAT_INDEX },
	{ "used_idx", STAT_INDEX },
	{ "rx_commands", STAT_COMMANDS },
	{ "mac_commands", STAT_COMMANDS },
	{ "vlan_commands", STAT_COMMANDS },
	{ "announce_commands", STAT_COMMANDS },
	{ "mq_commands", STAT_COMMANDS },
	{ "guest_offloads_commands", STAT_COMMANDS },
	{ "other_commands", STAT_COMMANDS },
	{ "errors", STAT_ERRORS },
	{ }
};

/* It has others, which have nothing to be held against here */
static const struct vdpa_stat vdpasim_net_stats[] = {
	{ "rx packets", STAT_PACKETS },
	{ "tx packets", STAT_PACKETS },
	{ "cvq requests", STAT_COMMANDS },
	{ "cvq errors", STAT_ERRORS },
	{ }
};

/*
 * What a parent has promised, by its driver's name: here the lack of it is a
 * failure. Whatever depends on how the device was set up (a page per doorbell,
 * a peer on the wire, a kernel with a dirty log) is for VDPA_REQUIRE to name.
 */
static const struct vdpa_parent parents[] = {
	{
		.name = "virtio_lm_vdpa",
		.promises = 1 << CAP_SUSPEND | 1 << CAP_RESUME | 1 << CAP_LATE_ENABLE |
			    1 << CAP_VRING_SIZE | 1 << CAP_VRING_GROUP | 1 << CAP_EVENT_IDX |
			    1 << CAP_MRG_RXBUF | 1 << CAP_VSTATS | 1 << CAP_KNOWN_STATS |
			    1 << CAP_PROVISION | 1 << CAP_MAX_VQP | 1 << CAP_START_KICKS |
			    1 << CAP_UNBIND | 1 << CAP_NAMES | 1 << CAP_SET_MAC |
			    1 << CAP_FAREWELL | 1 << CAP_ANY_ORDER | 1 << CAP_CTRL_STRICT |
			    1 << CAP_RING_STATE,
		.stats = virtio_lm_stats,
		.data_stats = 4,
	},
	{
		.name = "vdpasim_net",
		.promises = 1 << CAP_SUSPEND | 1 << CAP_RESUME | 1 << CAP_LATE_ENABLE |
			    1 << CAP_VRING_GROUP | 1 << CAP_VSTATS | 1 << CAP_KNOWN_STATS |
			    1 << CAP_PROVISION | 1 << CAP_WIRE | 1 << CAP_ASID | 1 << CAP_CTRL |
			    1 << CAP_RING_STATE,
		.stats = vdpasim_net_stats,
		.data_stats = 1,
	},
};

/* Never NULL: of a parent that is not in the table nothing is known */
const struct vdpa_parent *vdpa_parent(const char *driver)
{
	static const struct vdpa_stat none[] = { { } };
	static const struct vdpa_parent stranger = { .stats = none };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(parents); i++)
		if (!strcmp(driver, parents[i].name))
			return &parents[i];
	return &stranger;
}

/* What a statistic of that parent means */
enum vdpa_stat_kind vdpa_stat_kind(const struct vdpa_parent *parent, const char *name)
{
	const struct vdpa_stat *stat;

	for (stat = parent->stats; stat->name; stat++)
		if (!strcmp(name, stat->name))
			return stat->kind;
	return STAT_UNKNOWN;
}
