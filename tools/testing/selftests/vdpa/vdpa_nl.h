/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vDPA management interface (include/uapi/linux/vdpa.h), over generic
 * netlink. Functions return 0 or a negative errno.
 */
#ifndef VDPA_NL_H
#define VDPA_NL_H

#include <stdbool.h>
#include <stdint.h>

#define VDPA_NL_STATS	16

/* A device, or a management device, as netlink describes it */
struct vdpa_nl_info {
	char name[64];
	char mgmt_bus[32];
	char mgmt_dev[64];
	uint32_t device_id;
	uint32_t max_vqs;
	uint32_t mgmt_max_vqs;
	uint16_t max_vq_size;
	uint64_t supported;	/* features of the management device */
	uint64_t features;	/* features of the device */
	uint64_t negotiated;
	bool has_negotiated;
	uint8_t mac[6];
	bool has_mac;
	uint16_t mtu;
	bool has_mtu;
	uint16_t max_vqp;
	bool has_max_vqp;
	uint16_t link;
	bool has_link;
	unsigned int nstats;	/* vendor attributes of a queue, of which these are the first */
	struct {
		char name[32];
		uint64_t value;
		bool has_value;
	} stats[VDPA_NL_STATS];
};

/* What a device is created with; NULL or false: left to the parent */
struct vdpa_nl_add {
	const char *name;
	const char *mgmt_bus;	/* "" or NULL: none */
	const char *mgmt_dev;
	const uint8_t *mac;
	bool set_mtu;
	uint16_t mtu;
	bool set_max_vqp;
	uint16_t max_vqp;
	bool set_features;
	uint64_t features;
};

int vdpa_nl_dev_get(const char *name, struct vdpa_nl_info *info);
int vdpa_nl_config_get(const char *name, struct vdpa_nl_info *info);
int vdpa_nl_mgmt_get(const char *bus, const char *dev, struct vdpa_nl_info *info);
int vdpa_nl_vstats_get(const char *name, uint32_t vq, struct vdpa_nl_info *info);
int vdpa_nl_dev_add(const struct vdpa_nl_add *add);
int vdpa_nl_dev_set_mac(const char *name, const uint8_t *mac);
int vdpa_nl_dev_del(const char *name);

#endif /* VDPA_NL_H */
