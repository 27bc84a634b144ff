// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The vDPA management interface over generic netlink: one request, one answer,
 * one socket each, so that nothing is left behind by a test that dies.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/vdpa.h>

#include "vdpa_nl.h"

#define NL_ANSWER_SECONDS	60	/* dev_add probes hardware: slow under emulation */

struct nl_msg {
	struct nlmsghdr nlh;
	struct genlmsghdr genl;
	uint8_t attrs[1024];
};

/* Sees an attribute of an answer */
typedef void (*attr_fn)(void *ctx, int type, const void *data, int len);

static void msg_init(struct nl_msg *m, uint16_t family, uint8_t cmd)
{
	memset(m, 0, sizeof(*m));
	m->nlh.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN);
	m->nlh.nlmsg_type = family;
	m->nlh.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	m->nlh.nlmsg_seq = 1;
	m->genl.cmd = cmd;
	m->genl.version = 1;
}

static void msg_put(struct nl_msg *m, uint16_t type, const void *data, uint16_t len)
{
	struct nlattr *a = (struct nlattr *)((uint8_t *)m + NLMSG_ALIGN(m->nlh.nlmsg_len));

	a->nla_type = type;
	a->nla_len = NLA_HDRLEN + len;
	memcpy((uint8_t *)a + NLA_HDRLEN, data, len);
	m->nlh.nlmsg_len = NLMSG_ALIGN(m->nlh.nlmsg_len) + NLA_ALIGN(a->nla_len);
}

static void msg_put_str(struct nl_msg *m, uint16_t type, const char *s)
{
	msg_put(m, type, s, strlen(s) + 1);
}

static void each_attr(const uint8_t *p, size_t len, attr_fn fn, void *ctx)
{
	while (len >= NLA_HDRLEN) {
		const struct nlattr *a = (const struct nlattr *)p;

		if (a->nla_len < NLA_HDRLEN || a->nla_len > len)
			return;
		fn(ctx, a->nla_type & NLA_TYPE_MASK, p + NLA_HDRLEN, a->nla_len - NLA_HDRLEN);
		if (NLA_ALIGN(a->nla_len) >= len)
			return;
		p += NLA_ALIGN(a->nla_len);
		len -= NLA_ALIGN(a->nla_len);
	}
}

/* Sends @m and reads up to the acknowledgment; attributes of answers go to @fn */
static int nl_call(struct nl_msg *m, attr_fn fn, void *ctx)
{
	struct timeval limit = { .tv_sec = NL_ANSWER_SECONDS };
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	static uint8_t buf[32768] __attribute__((aligned(NLMSG_ALIGNTO)));
	const struct nlmsghdr *nlh;
	ssize_t n;
	int fd, ret = 0;

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) ||
	    sendto(fd, m, m->nlh.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0) {
		ret = -errno;
		goto out;
	}

	for (;;) {
		n = recv(fd, buf, sizeof(buf), 0);
		if (n < 0) {
			ret = -errno;
			goto out;
		}
		for (nlh = (void *)buf; NLMSG_OK(nlh, n); nlh = NLMSG_NEXT(nlh, n)) {
			if (nlh->nlmsg_type == NLMSG_ERROR) {
				ret = ((struct nlmsgerr *)NLMSG_DATA(nlh))->error;
				goto out;
			}
			if (fn && nlh->nlmsg_len >= NLMSG_LENGTH(GENL_HDRLEN))
				each_attr((uint8_t *)NLMSG_DATA(nlh) + GENL_HDRLEN,
					  nlh->nlmsg_len - NLMSG_LENGTH(GENL_HDRLEN), fn, ctx);
		}
	}
out:
	close(fd);
	return ret;
}

static void family_attr(void *ctx, int type, const void *data, int len)
{
	if (type == CTRL_ATTR_FAMILY_ID && len == sizeof(uint16_t))
		memcpy(ctx, data, len);
}

/* The family's number: it is given out when the vdpa module is loaded, and asked for once */
static int vdpa_family(uint16_t *family)
{
	static uint16_t known;
	struct nl_msg m;
	int ret;

	*family = known;
	if (known)
		return 0;
	msg_init(&m, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	msg_put_str(&m, CTRL_ATTR_FAMILY_NAME, VDPA_GENL_NAME);
	ret = nl_call(&m, family_attr, family);
	known = *family;
	return ret;
}

static void copy_attr(void *dst, size_t size, const void *data, int len)
{
	if (len > 0)
		memcpy(dst, data, (size_t)len < size ? (size_t)len : size);
}

static void info_attr(void *ctx, int type, const void *data, int len)
{
	struct vdpa_nl_info *i = ctx;

	switch (type) {
	case VDPA_ATTR_DEV_NAME:
		copy_attr(i->name, sizeof(i->name) - 1, data, len);
		break;
	case VDPA_ATTR_MGMTDEV_BUS_NAME:
		copy_attr(i->mgmt_bus, sizeof(i->mgmt_bus) - 1, data, len);
		break;
	case VDPA_ATTR_MGMTDEV_DEV_NAME:
		copy_attr(i->mgmt_dev, sizeof(i->mgmt_dev) - 1, data, len);
		break;
	case VDPA_ATTR_DEV_ID:
		copy_attr(&i->device_id, sizeof(i->device_id), data, len);
		break;
	case VDPA_ATTR_DEV_MAX_VQS:
		copy_attr(&i->max_vqs, sizeof(i->max_vqs), data, len);
		break;
	case VDPA_ATTR_DEV_MGMTDEV_MAX_VQS:
		copy_attr(&i->mgmt_max_vqs, sizeof(i->mgmt_max_vqs), data, len);
		break;
	case VDPA_ATTR_DEV_MAX_VQ_SIZE:
		copy_attr(&i->max_vq_size, sizeof(i->max_vq_size), data, len);
		break;
	case VDPA_ATTR_DEV_SUPPORTED_FEATURES:
		copy_attr(&i->supported, sizeof(i->supported), data, len);
		break;
	case VDPA_ATTR_DEV_FEATURES:
		copy_attr(&i->features, sizeof(i->features), data, len);
		break;
	case VDPA_ATTR_DEV_NEGOTIATED_FEATURES:
		copy_attr(&i->negotiated, sizeof(i->negotiated), data, len);
		i->has_negotiated = true;
		break;
	case VDPA_ATTR_DEV_NET_CFG_MACADDR:
		copy_attr(i->mac, sizeof(i->mac), data, len);
		i->has_mac = true;
		break;
	case VDPA_ATTR_DEV_NET_CFG_MTU:
		copy_attr(&i->mtu, sizeof(i->mtu), data, len);
		i->has_mtu = true;
		break;
	case VDPA_ATTR_DEV_NET_CFG_MAX_VQP:
		copy_attr(&i->max_vqp, sizeof(i->max_vqp), data, len);
		i->has_max_vqp = true;
		break;
	case VDPA_ATTR_DEV_NET_STATUS:
		copy_attr(&i->link, sizeof(i->link), data, len);
		i->has_link = true;
		break;
	case VDPA_ATTR_DEV_VENDOR_ATTR_NAME:
		if (i->nstats < VDPA_NL_STATS)
			copy_attr(i->stats[i->nstats].name, sizeof(i->stats[0].name) - 1, data,
				  len);
		i->nstats++;
		break;
	case VDPA_ATTR_DEV_VENDOR_ATTR_VALUE:
		/* it follows its name */
		if (!i->nstats || i->nstats > VDPA_NL_STATS)
			break;
		copy_attr(&i->stats[i->nstats - 1].value, sizeof(i->stats[0].value), data, len);
		i->stats[i->nstats - 1].has_value = len == sizeof(i->stats[0].value);
		break;
	}
}

static int ask(uint8_t cmd, const char *name, const char *bus, const char *dev,
	       const uint32_t *vq, struct vdpa_nl_info *info)
{
	struct nl_msg m;
	uint16_t family;
	int ret;

	memset(info, 0, sizeof(*info));
	ret = vdpa_family(&family);
	if (ret)
		return ret;
	msg_init(&m, family, cmd);
	if (name)
		msg_put_str(&m, VDPA_ATTR_DEV_NAME, name);
	if (bus && *bus)
		msg_put_str(&m, VDPA_ATTR_MGMTDEV_BUS_NAME, bus);
	if (dev)
		msg_put_str(&m, VDPA_ATTR_MGMTDEV_DEV_NAME, dev);
	if (vq)
		msg_put(&m, VDPA_ATTR_DEV_QUEUE_INDEX, vq, sizeof(*vq));
	return nl_call(&m, info_attr, info);
}

int vdpa_nl_dev_get(const char *name, struct vdpa_nl_info *info)
{
	return ask(VDPA_CMD_DEV_GET, name, NULL, NULL, NULL, info);
}

int vdpa_nl_config_get(const char *name, struct vdpa_nl_info *info)
{
	return ask(VDPA_CMD_DEV_CONFIG_GET, name, NULL, NULL, NULL, info);
}

int vdpa_nl_mgmt_get(const char *bus, const char *dev, struct vdpa_nl_info *info)
{
	return ask(VDPA_CMD_MGMTDEV_GET, NULL, bus, dev, NULL, info);
}

int vdpa_nl_vstats_get(const char *name, uint32_t vq, struct vdpa_nl_info *info)
{
	return ask(VDPA_CMD_DEV_VSTATS_GET, name, NULL, NULL, &vq, info);
}

int vdpa_nl_dev_add(const struct vdpa_nl_add *add)
{
	struct nl_msg m;
	uint16_t family;
	int ret;

	ret = vdpa_family(&family);
	if (ret)
		return ret;
	msg_init(&m, family, VDPA_CMD_DEV_NEW);
	if (add->mgmt_bus && *add->mgmt_bus)
		msg_put_str(&m, VDPA_ATTR_MGMTDEV_BUS_NAME, add->mgmt_bus);
	msg_put_str(&m, VDPA_ATTR_MGMTDEV_DEV_NAME, add->mgmt_dev);
	msg_put_str(&m, VDPA_ATTR_DEV_NAME, add->name);
	if (add->mac)
		msg_put(&m, VDPA_ATTR_DEV_NET_CFG_MACADDR, add->mac, 6);
	if (add->set_mtu)
		msg_put(&m, VDPA_ATTR_DEV_NET_CFG_MTU, &add->mtu, sizeof(add->mtu));
	if (add->set_max_vqp)
		msg_put(&m, VDPA_ATTR_DEV_NET_CFG_MAX_VQP, &add->max_vqp, sizeof(add->max_vqp));
	if (add->set_features)
		msg_put(&m, VDPA_ATTR_DEV_FEATURES, &add->features, sizeof(add->features));
	return nl_call(&m, NULL, NULL);
}

int vdpa_nl_dev_set_mac(const char *name, const uint8_t *mac)
{
	struct nl_msg m;
	uint16_t family;
	int ret;

	ret = vdpa_family(&family);
	if (ret)
		return ret;
	msg_init(&m, family, VDPA_CMD_DEV_ATTR_SET);
	msg_put_str(&m, VDPA_ATTR_DEV_NAME, name);
	msg_put(&m, VDPA_ATTR_DEV_NET_CFG_MACADDR, mac, 6);
	return nl_call(&m, NULL, NULL);
}

int vdpa_nl_dev_del(const char *name)
{
	struct nl_msg m;
	uint16_t family;
	int ret;

	ret = vdpa_family(&family);
	if (ret)
		return ret;
	msg_init(&m, family, VDPA_CMD_DEV_DEL);
	msg_put_str(&m, VDPA_ATTR_DEV_NAME, name);
	return nl_call(&m, NULL, NULL);
}
