// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What /dev/vhost-vdpa-N answers when it is asked anything but to move data:
 * features, status, config space, addresses, queue indices, doorbells; asked
 * rightly, wrongly and in the wrong order.
 */
#include <endian.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "kselftest_harness.h"
#include "log.h"
#include "vdpa_nl.h"
#include "vring.h"

#define ACK	VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER	(ACK | VIRTIO_CONFIG_S_DRIVER)
#define FEAT_OK	(DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)
#define DRV_OK	(FEAT_OK | VIRTIO_CONFIG_S_DRIVER_OK)

/* Doorbells that are in front of the LM block (Documentation/virtio-lm-device.rst) */
#define LM_DOORBELLS	1024

#define TEST_SECONDS	240	/* of the harness; the tests' own deadlines come first */

#define MUST_HAVE (BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM))

/* A device opened, owned, and nothing more */
FIXTURE(device) {
	struct vdpa v;
};

FIXTURE_SETUP(device)
{
	OPEN_OR_SKIP(&self->v);
}

FIXTURE_TEARDOWN(device)
{
	vdpa_close(&self->v);
}

/* It is a network device, with a queue pair, rings of a power of two and addresses to map */
TEST_F_TIMEOUT(device, identity, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vdpa_nl_info info;
	uint32_t id;

	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_GET_DEVICE_ID, &id));
	EXPECT_EQ(1, id);	/* virtio 1.2, 5: network card */
	EXPECT_LE(2, v->nvqs);
	EXPECT_LT(0, v->vq_max);
	EXPECT_EQ(0, v->vq_max & (v->vq_max - 1));
	EXPECT_LT(v->range.first, v->range.last);

	/* netlink tells the same */
	ASSERT_EQ(0, vdpa_nl_dev_get(v->name, &info));
	EXPECT_EQ(id, info.device_id);
	EXPECT_EQ(v->nvqs, info.max_vqs);
	EXPECT_EQ(v->vq_max, info.max_vq_size);
}

/* One owner at a time, and nobody is heard who is not the owner */
TEST_F_TIMEOUT(device, ownership, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vhost_vring_state s = { .index = 0, .num = 64 };
	struct vhost_msg_v2 msg = {
		.type = VHOST_IOTLB_MSG_V2,
		.iotlb = { .type = VHOST_IOTLB_INVALIDATE, .size = 4096 },
	};
	int fd;

	EXPECT_EQ(-1, open(v->path, O_RDWR | O_CLOEXEC));
	EXPECT_EQ(EBUSY, errno);
	EXPECT_EQ(-EBUSY, vdpa_ioctl(v, VHOST_SET_OWNER, NULL));

	vdpa_close(v);
	fd = open(vdpa_dev_path(), O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-1, ioctl(fd, VHOST_SET_VRING_NUM, &s));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, ioctl(fd, VHOST_GET_VRING_BASE, &s));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, ioctl(fd, VHOST_VDPA_SET_VRING_ENABLE, &s));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, write(fd, &msg, sizeof(msg)));
	close(fd);
	ASSERT_EQ(0, vdpa_open(v));
}

/* Backend features: those offered can be acked, no others, and the log of vhost is refused */
TEST_F_TIMEOUT(device, backend_features, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	uint64_t offered, none = 0, bad = BIT_ULL(40), base = 0;
	int fd = -1;

	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_GET_BACKEND_FEATURES, &offered));
	EXPECT_TRUE(offered & BIT_ULL(VHOST_BACKEND_F_IOTLB_MSG_V2));
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &offered));
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &none));
	EXPECT_EQ(-EOPNOTSUPP, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &bad));
	if (!vdpa_can(v, CAP_SUSPEND)) {
		bad = BIT_ULL(VHOST_BACKEND_F_SUSPEND);
		EXPECT_EQ(-EOPNOTSUPP, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &bad));
	}
	if (!vdpa_can(v, CAP_RESUME)) {
		bad = BIT_ULL(VHOST_BACKEND_F_RESUME);
		EXPECT_EQ(-EOPNOTSUPP, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &bad));
	}
	EXPECT_EQ(-ENOTTY, vdpa_ioctl(v, VHOST_SET_LOG_BASE, &base));
	EXPECT_EQ(-ENOTTY, vdpa_ioctl(v, VHOST_SET_LOG_FD, &fd));
}

/*
 * Without its feature the dirty log is refused. A vhost-vdpa that has none takes what the argument
 * begins with for the index of a virtqueue, so its errno says little; a parent that has none, or
 * whose feature is not acked, is one that does not support it.
 */
TEST_F_TIMEOUT(device, dirty_log_without_its_feature, TEST_SECONDS)
{
	const struct vhost_vdpa_log_range all = { 0, LOG_PAGE };
	struct vdpa *v = &self->v;
	uint64_t with = BIT_ULL(VHOST_BACKEND_F_IOTLB_MSG_V2) | BIT_ULL(VHOST_BACKEND_F_LOG_RANGES);
	uint64_t without = BIT_ULL(VHOST_BACKEND_F_IOTLB_MSG_V2), word = 0;
	int start, read, stop;

	if (!vdpa_can(v, CAP_LOG))
		EXPECT_EQ(-EOPNOTSUPP, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &with));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_SET_BACKEND_FEATURES, &without));
	start = log_start(v, &all, 1);
	read = log_read(v, 0, LOG_PAGE, &word);
	stop = log_stop(v);
	EXPECT_TRUE(start < 0 && read < 0 && stop < 0);
	if (vdpa_can(v, CAP_LOG))
		EXPECT_TRUE(start == -EOPNOTSUPP && read == start && stop == start);
	EXPECT_EQ(0, word);
}

/* What a migration needs of a parent that says it can do it */
TEST_F_TIMEOUT(device, migration, TEST_SECONDS)
{
	struct vdpa *v = &self->v;

	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	NEED(v, CAP_LATE_ENABLE);
	/* what a guest's driver cannot do without its control queue is not offered alone */
	if (!(v->offered & BIT_ULL(VIRTIO_NET_F_CTRL_VQ)))
		EXPECT_EQ(0, v->offered & (BIT_ULL(VIRTIO_NET_F_CTRL_RX) |
					   BIT_ULL(VIRTIO_NET_F_CTRL_VLAN) |
					   BIT_ULL(VIRTIO_NET_F_CTRL_MAC_ADDR) |
					   BIT_ULL(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) |
					   BIT_ULL(VIRTIO_NET_F_GUEST_ANNOUNCE) |
					   BIT_ULL(VIRTIO_NET_F_MQ)));
}

/* The features that are acked are the features in force; they are fixed by FEATURES_OK */
TEST_F_TIMEOUT(device, features, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vdpa_nl_info info;
	uint64_t wanted = MUST_HAVE | (v->offered & BIT_ULL(VIRTIO_NET_F_MAC));

	EXPECT_EQ(MUST_HAVE, v->offered & MUST_HAVE);
	ASSERT_EQ(0, vdpa_nl_config_get(v->name, &info));
	EXPECT_EQ(v->offered, info.features);
	EXPECT_FALSE(info.has_negotiated);

	ASSERT_EQ(0, vdpa_negotiate(v, wanted));
	ASSERT_EQ(0, vdpa_nl_config_get(v->name, &info));
	EXPECT_TRUE(info.has_negotiated);
	EXPECT_EQ(wanted, info.negotiated);
	EXPECT_EQ(-EBUSY, vdpa_ioctl(v, VHOST_SET_FEATURES, &wanted));

	/* and gone with a reset */
	ASSERT_EQ(0, vdpa_reset(v));
	ASSERT_EQ(0, vdpa_nl_config_get(v->name, &info));
	EXPECT_FALSE(info.has_negotiated);
	ASSERT_EQ(0, vdpa_negotiate(v, MUST_HAVE));
	ASSERT_EQ(0, vdpa_nl_config_get(v->name, &info));
	EXPECT_EQ(MUST_HAVE, info.negotiated);
}

/* A bit that is not offered never gets in force: it is refused, or it is dropped */
TEST_F_TIMEOUT(device, features_not_offered, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vdpa_nl_info info;
	uint64_t wanted;
	int bit;

	for (bit = 0; bit < 64; bit++) {
		if (v->offered & BIT_ULL(bit))
			continue;
		wanted = MUST_HAVE | BIT_ULL(bit);
		ASSERT_EQ(0, vdpa_set_status(v, DRIVER));
		if (!vdpa_ioctl(v, VHOST_SET_FEATURES, &wanted) &&
		    !vdpa_set_status(v, FEAT_OK) && vdpa_get_status(v) == FEAT_OK) {
			ASSERT_EQ(0, vdpa_nl_config_get(v->name, &info));
			EXPECT_EQ(0, info.negotiated & ~v->offered) {
				TH_LOG("bit %d", bit);
			}
		}
		ASSERT_EQ(0, vdpa_reset(v));
	}
}

/* Without ACCESS_PLATFORM the device would bypass the mappings: it does not come up */
TEST_F_TIMEOUT(device, features_without_access_platform, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	uint64_t wanted = v->offered & BIT_ULL(VIRTIO_F_VERSION_1);

	ASSERT_EQ(0, vdpa_set_status(v, DRIVER));
	if (!vdpa_ioctl(v, VHOST_SET_FEATURES, &wanted)) {
		EXPECT_EQ(0, vdpa_set_status(v, FEAT_OK));
		EXPECT_NE(FEAT_OK, vdpa_get_status(v));
	}
	/* refused or not, a reset puts it right */
	ASSERT_EQ(0, vdpa_reset(v));
	EXPECT_EQ(0, vdpa_negotiate(v, MUST_HAVE));
}

/* Status bits are added one after another and taken away all at once */
TEST_F_TIMEOUT(device, status, TEST_SECONDS)
{
	struct vdpa *v = &self->v;

	EXPECT_EQ(0, vdpa_get_status(v));
	ASSERT_EQ(0, vdpa_set_status(v, ACK));
	EXPECT_EQ(ACK, vdpa_get_status(v));
	ASSERT_EQ(0, vdpa_set_status(v, DRIVER));
	EXPECT_EQ(DRIVER, vdpa_get_status(v));
	EXPECT_EQ(-EINVAL, vdpa_set_status(v, ACK));
	EXPECT_EQ(DRIVER, vdpa_get_status(v));
	ASSERT_EQ(0, vdpa_reset(v));

	ASSERT_EQ(0, vdpa_negotiate(v, MUST_HAVE));
	EXPECT_EQ(FEAT_OK, vdpa_get_status(v));
	EXPECT_EQ(-EINVAL, vdpa_set_status(v, DRIVER));
	EXPECT_EQ(-EINVAL, vdpa_set_status(v, ACK | VIRTIO_CONFIG_S_FEATURES_OK));
	EXPECT_EQ(FEAT_OK, vdpa_get_status(v));
	/* the same again is no change */
	EXPECT_EQ(0, vdpa_set_status(v, FEAT_OK));
	EXPECT_EQ(FEAT_OK, vdpa_get_status(v));
	ASSERT_EQ(0, vdpa_reset(v));
	EXPECT_EQ(0, vdpa_get_status(v));

	/* DRIVER_OK with no queue enabled is allowed, and idle */
	ASSERT_EQ(0, vdpa_negotiate(v, MUST_HAVE));
	ASSERT_EQ(0, vdpa_set_status(v, DRV_OK));
	EXPECT_EQ(DRV_OK, vdpa_get_status(v));
	EXPECT_EQ(-EINVAL, vdpa_set_status(v, FEAT_OK));
	ASSERT_EQ(0, vdpa_reset(v));

	/* FAILED is the driver's own word for giving up */
	ASSERT_EQ(0, vdpa_set_status(v, DRIVER));
	EXPECT_EQ(0, vdpa_set_status(v, DRIVER | VIRTIO_CONFIG_S_FAILED));
	ASSERT_EQ(0, vdpa_reset(v));
	ASSERT_EQ(0, vdpa_reset(v));
}

#define CONFIG_PARTS	64	/* of a longer one: each byte may be a read of the device */

/* Config space: any part of it reads as the same part of the whole; nothing outside of it does */
TEST_F_TIMEOUT(device, config, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	uint8_t whole[4096], part[4096];	/* some parents tell the length of the BAR's part */
	struct vdpa_nl_info info;
	struct virtio_net_config *c = (void *)whole;
	struct {
		struct vhost_vdpa_config c;
		uint8_t buf[64];
	} set = { };
	uint32_t size, parts, off, len;

	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_GET_CONFIG_SIZE, &size));
	ASSERT_LE(offsetof(struct virtio_net_config, max_virtqueue_pairs), size);
	ASSERT_LE(size, sizeof(whole));
	ASSERT_EQ(0, vdpa_get_config(v, 0, whole, size));
	parts = size < CONFIG_PARTS ? size : CONFIG_PARTS;
	for (off = 0; off < parts; off++) {
		for (len = 1; len <= parts - off; len += 1 + off) {
			ASSERT_EQ(0, vdpa_get_config(v, off, part, len));
			ASSERT_EQ(0, memcmp(part, whole + off, len)) {
				TH_LOG("%u bytes at %u differ", len, off);
			}
		}
	}

	EXPECT_EQ(-EINVAL, vdpa_get_config(v, 0, part, 0));
	EXPECT_EQ(-EINVAL, vdpa_get_config(v, 0, part, size + 1));
	EXPECT_EQ(-EINVAL, vdpa_get_config(v, size, part, 1));
	EXPECT_EQ(-EINVAL, vdpa_get_config(v, size - 1, part, 2));
	EXPECT_EQ(-EINVAL, vdpa_get_config(v, UINT32_MAX, part, 2));
	for (off = size - 1; off <= size + 1; off++) {
		set.c.off = off;
		set.c.len = 2;
		EXPECT_EQ(-EINVAL, vdpa_ioctl(v, VHOST_VDPA_SET_CONFIG, &set));
	}
	set.c.off = 0;
	set.c.len = 0;
	EXPECT_EQ(-EINVAL, vdpa_ioctl(v, VHOST_VDPA_SET_CONFIG, &set));

	/* netlink tells the same */
	ASSERT_EQ(0, vdpa_nl_config_get(v->name, &info));
	if (v->offered & BIT_ULL(VIRTIO_NET_F_MAC)) {
		ASSERT_TRUE(info.has_mac);
		EXPECT_EQ(0, memcmp(info.mac, c->mac, sizeof(info.mac)));
	}
	if (v->offered & BIT_ULL(VIRTIO_NET_F_MTU)) {
		ASSERT_TRUE(info.has_mtu);
		EXPECT_EQ(info.mtu, le16toh(c->mtu));
		EXPECT_LE(68, info.mtu);	/* virtio 1.2, 5.1.4.1 */
	}
	if (v->offered & BIT_ULL(VIRTIO_NET_F_STATUS)) {
		ASSERT_TRUE(info.has_link);
		EXPECT_EQ(info.link, le16toh(c->status));
	}
}

/* A config interrupt can be asked for and given up; a bad descriptor is refused */
TEST_F_TIMEOUT(device, config_call, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	int fd = eventfd(0, EFD_CLOEXEC), none = VHOST_FILE_UNBIND, bad = 9999, i;

	ASSERT_LE(0, fd);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SET_CONFIG_CALL, &fd));
		EXPECT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SET_CONFIG_CALL, &none));
	}
	EXPECT_EQ(-EBADF, vdpa_ioctl(v, VHOST_VDPA_SET_CONFIG_CALL, &bad));
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SET_CONFIG_CALL, &fd));
	close(fd);
	ASSERT_EQ(0, vdpa_reset(v));
}

/* The state that is set is the state that is read, and a reset forgets it */
TEST_F_TIMEOUT(device, vring_base, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	static const uint32_t values[] = { 0, 1, 2, 255, 256, 0x7fff, 0x8000, 0xfffe, 0xffff };
	uint32_t q;
	size_t i;

	NEED(v, CAP_RING_STATE);
	ASSERT_EQ(0, vdpa_negotiate(v, MUST_HAVE));
	for (i = 0; i < ARRAY_SIZE(values); i++) {
		/* each queue its own */
		for (q = 0; q < 2; q++)
			ASSERT_EQ(0, vdpa_set_base(v, q, values[i] ^ q));
		for (q = 0; q < 2; q++)
			EXPECT_EQ(values[i] ^ q, vdpa_get_base(v, q));
	}
	/* what does not fit is refused and changes nothing */
	EXPECT_EQ(-EINVAL, vdpa_set_base(v, 0, 0x10000));
	EXPECT_EQ(-EINVAL, vdpa_set_base(v, 0, UINT32_MAX));
	EXPECT_EQ(0xffff, vdpa_get_base(v, 0));

	ASSERT_EQ(0, vdpa_reset(v));
	for (q = 0; q < 2; q++)
		EXPECT_EQ(0, vdpa_get_base(v, q));
}

/* Every ioctl that takes a queue's index refuses one past the last, and any other */
TEST_F_TIMEOUT(device, queue_index, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	const uint32_t bad[] = {
		v->nvqs, v->nvqs + 1, LM_DOORBELLS, 0x7fff, 0xffff, 0x10000, 0x80000000,
		UINT32_MAX,
	};
	struct vhost_vring_state s;
	struct vhost_vring_addr a;
	struct vhost_vring_file f;
	const struct {
		unsigned long cmd;
		void *arg;
	} calls[] = {
		{ VHOST_SET_VRING_NUM, &s },
		{ VHOST_SET_VRING_BASE, &s },
		{ VHOST_GET_VRING_BASE, &s },
		{ VHOST_SET_VRING_ADDR, &a },
		{ VHOST_SET_VRING_KICK, &f },
		{ VHOST_SET_VRING_CALL, &f },
		{ VHOST_SET_VRING_ERR, &f },
		{ VHOST_VDPA_SET_VRING_ENABLE, &s },
		{ VHOST_VDPA_GET_VRING_GROUP, &s },
		{ VHOST_VDPA_GET_VRING_DESC_GROUP, &s },
		{ VHOST_VDPA_GET_VRING_SIZE, &s },
		{ VHOST_VDPA_SET_GROUP_ASID, &s },
		{ VHOST_SET_VRING_BUSYLOOP_TIMEOUT, &s },
		{ VHOST_GET_VRING_BUSYLOOP_TIMEOUT, &s },
	};
	size_t i, j;

	ASSERT_EQ(0, vdpa_negotiate(v, MUST_HAVE));
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		for (j = 0; j < ARRAY_SIZE(bad); j++) {
			s = (struct vhost_vring_state){ .index = bad[j], .num = 1 };
			a = (struct vhost_vring_addr){ .index = bad[j] };
			f = (struct vhost_vring_file){ .index = bad[j], .fd = VHOST_FILE_UNBIND };
			EXPECT_EQ(-ENOBUFS, vdpa_ioctl(v, calls[i].cmd, calls[i].arg)) {
				TH_LOG("ioctl %#lx, queue %u", calls[i].cmd, bad[j]);
			}
		}
	}
}

/* Groups and address spaces: all are below their counts, and none above is accepted */
TEST_F_TIMEOUT(device, groups, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vhost_vring_state s;
	uint32_t groups, spaces, q;

	NEED(v, CAP_VRING_GROUP);
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_GET_GROUP_NUM, &groups));
	ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_GET_AS_NUM, &spaces));
	EXPECT_LE(1, groups);
	EXPECT_LE(1, spaces);
	for (q = 0; q < v->nvqs; q++) {
		s = (struct vhost_vring_state){ .index = q, .num = UINT32_MAX };
		ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_GET_VRING_GROUP, &s));
		EXPECT_EQ(q, s.index);
		EXPECT_LT(s.num, groups);
	}
	s = (struct vhost_vring_state){ .index = 0, .num = spaces };
	EXPECT_EQ(-EINVAL, vdpa_ioctl(v, VHOST_VDPA_SET_GROUP_ASID, &s));
	s = (struct vhost_vring_state){ .index = groups, .num = 0 };
	EXPECT_GT(0, vdpa_ioctl(v, VHOST_VDPA_SET_GROUP_ASID, &s));
}

/* Every queue says how large it may be, and takes a size of its own */
TEST_F_TIMEOUT(device, vring_size, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vhost_vring_state s;
	uint32_t q;

	NEED(v, CAP_VRING_SIZE);
	ASSERT_EQ(0, vdpa_negotiate(v, MUST_HAVE));
	for (q = 0; q < v->nvqs; q++) {
		s = (struct vhost_vring_state){ .index = q };
		ASSERT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_GET_VRING_SIZE, &s));
		EXPECT_EQ(q, s.index);
		EXPECT_LT(0, s.num);
		EXPECT_LE(s.num, v->vq_max);
	}
}

/* A ring's size is a power of two and not zero; its parts are aligned as virtio 1.2, 2.7 says */
TEST_F_TIMEOUT(device, vring_geometry, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	static const uint32_t bad[] = { 0, 3, 255, 257, 0x10000, 0x18000, UINT32_MAX };
	struct vhost_vring_state s = { .index = 0 };
	struct vhost_vring_addr a;
	uint32_t size;
	size_t i;

	ASSERT_EQ(0, vdpa_negotiate(v, MUST_HAVE));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		s.num = bad[i];
		EXPECT_EQ(-EINVAL, vdpa_ioctl(v, VHOST_SET_VRING_NUM, &s)) {
			TH_LOG("size %u", bad[i]);
		}
	}
	for (size = v->vq_max; size > 1; size /= 2) {
		s.num = size;
		EXPECT_EQ(0, vdpa_ioctl(v, VHOST_SET_VRING_NUM, &s));
	}

	a = (struct vhost_vring_addr){ .desc_user_addr = VDPA_IOVA,
				       .avail_user_addr = VDPA_IOVA + 0x10000,
				       .used_user_addr = VDPA_IOVA + 0x20000 };
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_SET_VRING_ADDR, &a));
	a.avail_user_addr++;
	EXPECT_EQ(-EINVAL, vdpa_ioctl(v, VHOST_SET_VRING_ADDR, &a));
	a.avail_user_addr--;
	a.used_user_addr += 2;
	EXPECT_EQ(-EINVAL, vdpa_ioctl(v, VHOST_SET_VRING_ADDR, &a));
	a.used_user_addr -= 2;
	a.flags = 0xff00;
	EXPECT_EQ(-EOPNOTSUPP, vdpa_ioctl(v, VHOST_SET_VRING_ADDR, &a));
}

/* Eventfds are eventfds */
TEST_F_TIMEOUT(device, vring_eventfds, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	static const unsigned long cmds[] = {
		VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR,
	};
	int fd = eventfd(1, EFD_CLOEXEC), null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct vhost_vring_file f = { .index = 0 };
	size_t i;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, null);
	for (i = 0; i < ARRAY_SIZE(cmds); i++) {
		f.fd = fd;	/* signalled already: a kick of a device that is not there yet */
		EXPECT_EQ(0, vdpa_ioctl(v, cmds[i], &f));
		EXPECT_EQ(0, vdpa_ioctl(v, cmds[i], &f));
		f.fd = null;
		EXPECT_EQ(-EINVAL, vdpa_ioctl(v, cmds[i], &f));
		f.fd = 9999;
		EXPECT_EQ(-EBADF, vdpa_ioctl(v, cmds[i], &f));
		f.fd = VHOST_FILE_UNBIND;
		EXPECT_EQ(0, vdpa_ioctl(v, cmds[i], &f));
	}
	close(fd);
	close(null);
}

/*
 * Memory: mapped once, unmapped as often as one likes, never outside of what
 * can be mapped. vhost gives one errno for every message that it refuses.
 */
TEST_F_TIMEOUT(device, iotlb, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vhost_msg_v2 msg = { .type = VHOST_IOTLB_MSG_V2 };
	const uint64_t iova = VDPA_IOVA;
	uint64_t size;

	ASSERT_EQ(0, vdpa_mem_init(v, iova));
	size = v->mem_size;
	EXPECT_GT(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, iova, size, v->mem,
				VHOST_ACCESS_RW));
	EXPECT_GT(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, iova + size - 4096, 8192, v->mem,
				VHOST_ACCESS_RW));
	EXPECT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, iova, size, NULL, 0));
	EXPECT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, iova, size, NULL, 0));
	EXPECT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, iova, size, v->mem, VHOST_ACCESS_RW));
	EXPECT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, iova, size, NULL, 0));

	EXPECT_GT(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, iova, 0, v->mem, VHOST_ACCESS_RW));
	EXPECT_GT(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, -4096ULL, 8192, v->mem,
				VHOST_ACCESS_RW));
	if (v->range.last != UINT64_MAX)
		EXPECT_GT(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, v->range.last + 1, 4096,
					v->mem, VHOST_ACCESS_RW));
	if (v->range.first)
		EXPECT_GT(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, v->range.first - 4096,
					8192, v->mem, VHOST_ACCESS_RW));
	EXPECT_GT(0, vdpa_iotlb(v, 99, iova, size, v->mem, VHOST_ACCESS_RW));

	/* an address space that is not there */
	msg.asid = 0x10000;
	msg.iotlb.type = VHOST_IOTLB_UPDATE;
	msg.iotlb.iova = iova;
	msg.iotlb.size = size;
	msg.iotlb.uaddr = (uintptr_t)v->mem;
	msg.iotlb.perm = VHOST_ACCESS_RW;
	EXPECT_EQ(-1, write(v->fd, &msg, sizeof(msg)));

	/* the highest pages, and a batch */
	EXPECT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_BATCH_BEGIN, 0, 0, NULL, 0));
	EXPECT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_UPDATE, v->range.last - size + 1, size, v->mem,
				VHOST_ACCESS_RW));
	EXPECT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_BATCH_END, 0, 0, NULL, 0));
	EXPECT_EQ(0, vdpa_iotlb(v, VHOST_IOTLB_INVALIDATE, v->range.last - size + 1, size, NULL,
				0));
}

/* Before there is anything to stop, suspend and resume do nothing, and do no harm */
TEST_F_TIMEOUT(device, suspend_too_early, TEST_SECONDS)
{
	struct vdpa *v = &self->v;

	NEED(v, CAP_SUSPEND);
	NEED(v, CAP_RESUME);
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	ASSERT_EQ(0, vdpa_negotiate(v, MUST_HAVE));
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
	EXPECT_EQ(FEAT_OK, vdpa_get_status(v));
	/* not suspended: what is only for suspended devices is still refused */
	ASSERT_EQ(0, vdpa_set_status(v, DRV_OK));
	EXPECT_EQ(-EINVAL, vdpa_set_base(v, 0, 5));
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));

	/* idle, but running: it can be stopped, asked and set going */
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_SUSPEND, NULL));
	EXPECT_EQ(DRV_OK, vdpa_get_status(v));
	EXPECT_EQ(0, vdpa_get_base(v, 0));
	EXPECT_EQ(0, vdpa_ioctl(v, VHOST_VDPA_RESUME, NULL));
	ASSERT_EQ(0, vdpa_reset(v));
}

/* Kicks of queues that are not ready are no kicks */
TEST_F_TIMEOUT(device, kick_too_early, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vq q;
	int i;

	NEED(v, CAP_RING_STATE);
	ASSERT_EQ(0, vdpa_mem_init(v, VDPA_IOVA));
	ASSERT_EQ(0, vq_init(&q, v, 1, 16, 1, VQ_BUF_SIZE, false));
	ASSERT_EQ(0, vq_set_kick(&q, q.kick));
	for (i = 0; i < 10; i++)
		vq_kick(&q);
	EXPECT_EQ(0, vdpa_get_status(v));
	ASSERT_EQ(0, vdpa_negotiate(v, MUST_HAVE));
	vq_kick(&q);
	ASSERT_EQ(0, vq_setup(&q, 3));
	vq_kick(&q);
	EXPECT_EQ(FEAT_OK, vdpa_get_status(v));
	EXPECT_EQ(3, vdpa_get_base(v, 1));
	vq_free(&q);
}

/*
 * A doorbell is one page that can be written and no more; there is one per
 * queue and none beyond the last. Where the notify structure holds 1024 of
 * them, what follows it is the LM block: it is nobody's doorbell.
 */
TEST_F_TIMEOUT(device, doorbell_bounds, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	const off_t page = getpagesize();
	const uint64_t beyond[] = {
		v->nvqs, v->nvqs + 1, LM_DOORBELLS - 1, LM_DOORBELLS,
		LM_DOORBELLS + 1, 0x7fff, 0xffff, 0x10000, 0x10000 + v->nvqs,
		0x100000000ULL,
	};
	void *p;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(beyond); i++) {
		p = mmap(NULL, page, PROT_WRITE, MAP_SHARED, v->fd, beyond[i] * page);
		EXPECT_EQ(MAP_FAILED, p) {
			TH_LOG("a doorbell for queue %llu", (unsigned long long)beyond[i]);
		}
	}
	EXPECT_EQ(MAP_FAILED, mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, page, PROT_READ, MAP_SHARED, v->fd, 0));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, page, PROT_WRITE, MAP_PRIVATE, v->fd, 0));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 2 * page, PROT_WRITE, MAP_SHARED, v->fd, 0));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 1024 * page, PROT_WRITE, MAP_SHARED, v->fd, 0));
}

/*
 * Every queue has its doorbell, which cannot be made more than that afterwards. But one that is not
 * in the first queue's group is not the device's, and has none.
 */
TEST_F_TIMEOUT(device, doorbells, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	struct vhost_vring_state group;
	const long page = getpagesize();
	uint32_t q;
	void *p;

	NEED(v, CAP_DOORBELL);
	for (q = 0; q < v->nvqs; q++) {
		p = mmap(NULL, page, PROT_WRITE, MAP_SHARED, v->fd, q * page);
		group = (struct vhost_vring_state){ .index = q };
		if (!vdpa_ioctl(v, VHOST_VDPA_GET_VRING_GROUP, &group) && group.num) {
			EXPECT_EQ(MAP_FAILED, p);
			continue;
		}
		ASSERT_NE(MAP_FAILED, p);
		EXPECT_EQ(MAP_FAILED, mremap(p, page, 2 * page, MREMAP_MAYMOVE));
		ASSERT_EQ(0, munmap(p, page));
	}
}

/* An ioctl that is none */
TEST_F_TIMEOUT(device, unknown_ioctls, TEST_SECONDS)
{
	struct vdpa *v = &self->v;
	uint8_t arg[64] = { };
	int nr;

	for (nr = 0xf0; nr <= 0xff; nr++)
		EXPECT_EQ(-ENOTTY, vdpa_ioctl(v, _IOWR(VHOST_VIRTIO, nr, uint64_t), arg));
	EXPECT_EQ(0, vdpa_get_status(v));
}

TEST_HARNESS_MAIN
